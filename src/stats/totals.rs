//! Totals: the summary, the same by name, and over time. From packs, and the rows that are not packed yet; others are
//! read only for the parts of an hour at the edges of a range.

use std::iter;

use rusqlite::params;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answers::{By, Cost, Group, Groups, OverTime, Point, Summary, average, known_mean, speed_mean};
use super::filter::Filter;
use super::latency::ERROR_MAX_PERCENT;
use super::price::Prices;
use super::range::{Cut, Packed, Pieces, cut};
use super::reader::{AskError, Reader, RowRead, bounds};
use super::tally::{Part, Piece, Tally, Totals};
use super::zone::Zone;
use crate::calendar::{DAY_MS, HOUR_MS, MS_MAX, hour_of_ms, ms_of_date, ms_of_text};
use crate::clock::{EARLIEST_TRUE_MS, latest_true_ms};
use crate::limits::{BUCKETS_MAX, PERCENTILE_POINTS_MAX};
use crate::order::{sort_by, sort_by_key};
use crate::packs::visit_sums;
use crate::record::packing::State;
use crate::record::table::{ALL_FIGURES, text};

/// All zones in use are whole quarters of an hour from UTC.
const QUARTER_MS: i64 = HOUR_MS / 4;
/// The longest day has so much more than 24 hours: its clocks are put back.
const PUT_BACK_MS_MAX: i64 = 2 * HOUR_MS;
/// What people write as a time of day. What is told from now is hardly ever a whole minute.
const MINUTE_MS: i64 = 60_000;

/// How time is parted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bucket {
    /// Hours.
    Hour,
    /// Days.
    #[default]
    Day,
    /// Weeks, from Monday (ISO 8601).
    Week,
    /// Calendar months.
    Month,
}

impl Bucket {
    /// All of them: the name in queries and answers, and how long it is from the beginning of one to somewhere in the
    /// next, or to its beginning.
    pub(super) const TABLE: [(Bucket, &'static str, i64); 4] = [
        (Bucket::Hour, "hour", HOUR_MS),
        (Bucket::Day, "day", DAY_MS),
        (Bucket::Week, "week", 7 * DAY_MS),
        // Whatever the length of this one.
        (Bucket::Month, "month", 32 * DAY_MS),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Bucket> {
        Bucket::TABLE.iter().find(|(_, known, _)| *known == name).map(|(bucket, ..)| *bucket)
    }

    /// Its name in queries and answers.
    pub fn as_str(self) -> &'static str {
        Bucket::TABLE[self as usize].1
    }

    /// The beginning of the bucket that a moment belongs to.
    fn start(self, ms: i64, zone: &Zone) -> i64 {
        let local = ms + zone.offset_ms(ms);
        let date = || OffsetDateTime::from_unix_timestamp(local.div_euclid(1000)).map(OffsetDateTime::date);
        let start = match (self, date()) {
            // Also of an hour that clocks show twice.
            (Bucket::Hour, _) => return ms - local.rem_euclid(HOUR_MS),
            (Bucket::Week, Ok(date)) => ms_of_date(date) - i64::from(date.weekday().number_days_from_monday()) * DAY_MS,
            (Bucket::Month, Ok(date)) => ms_of_date(date) - (i64::from(date.day()) - 1) * DAY_MS,
            (Bucket::Day, _) | (Bucket::Week | Bucket::Month, Err(_)) => local - local.rem_euclid(DAY_MS),
        };
        zone.moment_ms(start)
    }

    fn length_ms(self) -> i64 {
        Bucket::TABLE[self as usize].2
    }

    /// The beginning of the first of so many buckets, or fewer, of which the last one ends at `to_ms` or holds it.
    fn back(self, buckets: usize, to_ms: i64, zone: &Zone) -> i64 {
        let before = i64::try_from(buckets).unwrap_or(i64::MAX).saturating_sub(1).saturating_mul(self.length_ms());
        self.start((to_ms - 1).saturating_sub(before).max(0), zone)
    }

    /// The beginning of the bucket after the one that begins at `start`.
    fn next(self, start: i64, zone: &Zone) -> i64 {
        let put_back_ms = if self == Bucket::Hour { 0 } else { PUT_BACK_MS_MAX };
        self.start(start + self.length_ms() + put_back_ms, zone)
    }
}

/// Totals by bucket of time, then by group.
struct Table {
    tally: Tally,
    cells: Vec<Vec<Totals>>,
}

impl Table {
    /// Adds a row to the range that it belongs to. The ranges follow one another.
    fn add(&mut self, row: &RowRead, ranges: &[(Option<i64>, Option<i64>)], prices: Option<&Prices>) {
        let Some(slot) = self.tally.slot_of_row(&row.names(), prices) else { return };
        let at = match ranges {
            [_] => 0,
            _ => {
                let ms = ms_of_text(row.start_time());
                ranges.partition_point(|(from, _)| *from <= ms).saturating_sub(1)
            }
        };
        cell(&mut self.cells[at], slot.group).add_sums(&row.sums(), &slot);
    }
}

fn cell(cells: &mut Vec<Totals>, group: u32) -> &mut Totals {
    let group = group as usize;
    if cells.len() <= group {
        cells.resize_with(group + 1, Totals::default);
    }
    &mut cells[group]
}

impl Reader {
    /// The totals of all that the filter lets pass; zeros where there is nothing.
    pub fn summary(&self, filter: &Filter) -> Result<Summary, AskError> {
        self.at_once(|| {
            let range = [(filter.from_ms, filter.to_ms)];
            let all =
                self.tabulate(filter, None, &range, self.packed()?, |table| self.summary_of(&merged(&table.cells[0])))?;
            Ok(Summary { prompts_cut: Some(self.prompts_cut(filter)?), ..all })
        })
    }

    /// The summary's figures apart for each model, client, …, most requests first, then by name.
    pub fn by(&self, by: By, filter: &Filter) -> Result<Groups, AskError> {
        self.at_once(|| {
            let range = [(filter.from_ms, filter.to_ms)];
            self.tabulate(filter, Some(by), &range, self.packed()?, |table| self.groups_of(by, table, 0))
        })
    }

    /// The summary of each bucket of time from the filter's beginning, else the first request, to its end, else now.
    /// With `by` each bucket's groups, too. What no clock can have meant, and what is more than [`BUCKETS_MAX`] buckets
    /// ago, is left out unless the filter asks for it. `percentiles`: they are told, too.
    pub fn over_time(
        &self,
        filter: &Filter,
        bucket: Bucket,
        zone: &Zone,
        by: Option<By>,
        percentiles: bool,
        now_ms: i64,
    ) -> Result<OverTime, AskError> {
        self.at_once(|| {
            let packed = self.packed()?;
            let starts = self.starts(filter, bucket, zone, packed, now_ms)?;
            let ranges: Vec<(Option<i64>, Option<i64>)> = starts
                .iter()
                .map(|start| {
                    let next = bucket.next(*start, zone);
                    let from = filter.from_ms.map_or(*start, |from| from.max(*start));
                    (Some(from.max(0)), Some(filter.to_ms.map_or(next, |to| to.min(next))))
                })
                .collect();
            if percentiles && ranges.len() > PERCENTILE_POINTS_MAX {
                return Err(AskError::Refused(format!(
                    "Percentiles are told of {PERCENTILE_POINTS_MAX} points at most, and these are {}: give a larger bucket, \
                     or a later from.",
                    ranges.len()
                )));
            }
            let told = if percentiles { self.percentiles(filter, &ranges, packed)? } else { Vec::new() };
            let point = |table: &Table, at: usize, start_ms: i64| Point {
                start: text_in_zone(start_ms, zone),
                start_ms,
                summary: self.summary_of(&merged(&table.cells[at])),
                groups: by.map(|by| self.groups_of(by, table, at)),
                percentiles: told.get(at).copied(),
            };
            let points = self.tabulate(filter, by, &ranges, packed, |table| {
                starts.iter().enumerate().map(|(at, start_ms)| point(table, at, *start_ms)).collect()
            })?;
            let percentile_error_max_percent = percentiles.then_some(ERROR_MAX_PERCENT);
            Ok(OverTime { bucket: bucket.as_str(), tz: zone.text(), percentile_error_max_percent, points })
        })
    }

    fn starts(
        &self,
        filter: &Filter,
        bucket: Bucket,
        zone: &Zone,
        packed: Packed,
        now_ms: i64,
    ) -> Result<Vec<i64>, AskError> {
        let hours = self.true_hours(packed, now_ms)?;
        let newest_ms = hours.map_or(0, |(_, last)| (last + 1) * HOUR_MS).max(now_ms + 1);
        let to_ms = filter.to_ms.unwrap_or(newest_ms);
        let first_ms =
            hours.map(|(first, _)| (first * HOUR_MS).max(bucket.back(BUCKETS_MAX, to_ms.min(newest_ms), zone)));
        let Some(from_ms) = filter.from_ms.or(first_ms) else { return Ok(Vec::new()) };
        let starts = iter::successors(Some(bucket.start(from_ms, zone)), |start| Some(bucket.next(*start, zone)));
        let starts: Vec<i64> = starts.take_while(|start| *start < to_ms).take(BUCKETS_MAX + 1).collect();
        if starts.len() > BUCKETS_MAX {
            let name = bucket.as_str();
            return Err(AskError::Refused(format!(
                "That would be more than {BUCKETS_MAX} points: give a larger bucket than {name}, or a later from."
            )));
        }
        Ok(starts)
    }

    /// The first and the last hour that have requests and can be true; of those that have any where none can.
    pub(super) fn true_hours(&self, packed: Packed, now_ms: i64) -> rusqlite::Result<Option<(i64, i64)>> {
        let can_be_true =
            self.hours_with_rows(packed, hour_of_ms(EARLIEST_TRUE_MS), hour_of_ms(latest_true_ms(now_ms)))?;
        can_be_true.map_or_else(|| self.hours_with_rows(packed, 0, hour_of_ms(MS_MAX)), |hours| Ok(Some(hours)))
    }

    fn hours_with_rows(&self, packed: Packed, from: i64, to: i64) -> rusqlite::Result<Option<(i64, i64)>> {
        let (from_text, to_text) = bounds(Some(from * HOUR_MS), Some((to + 1) * HOUR_MS));
        let unpacked: (Option<String>, Option<String>) = self
            .conn
            .prepare_cached(
                "SELECT min(start_time), max(start_time) FROM requests
                 WHERE id > ?1 AND start_time >= ?2 AND start_time < ?3",
            )?
            .query_row(params![packed.state.until, from_text, to_text], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let hour = |text: Option<String>| Some(hour_of_ms(ms_of_text(&text?)?));
        let unpacked = hour(unpacked.0).zip(hour(unpacked.1));
        let all = self.packed_hours(from, to)?.into_iter().chain(unpacked);
        Ok(all.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))))
    }

    /// Adds up what every range holds, and has `answer` made of it.
    fn tabulate<T>(
        &self,
        filter: &Filter,
        by: Option<By>,
        ranges: &[(Option<i64>, Option<i64>)],
        packed: Packed,
        answer: impl FnOnce(&Table) -> T,
    ) -> Result<T, AskError> {
        let tally = self.tally(filter, by, packed.state)?;
        let mut table = Table { tally, cells: vec![Vec::new(); ranges.len()] };
        if !filter.conversations.is_empty() {
            self.add_turns(&mut table, filter, ranges)?;
            return Ok(answer(&table));
        }
        table.tally.learn(&self.series()?, self.prices().as_deref());
        let mut uses = Vec::new();
        for (bucket, range) in ranges.iter().enumerate() {
            let (from, to) = self.parted_at(*range)?;
            let Pieces { packs, rows } = cut(from, to, packed, Cut::Signed);
            uses.extend(packs.into_iter().map(|(id, sign)| (Piece::Pack(id), bucket, sign)));
            uses.extend(rows.into_iter().map(|(from_ms, to_ms)| (Piece::Rows(from_ms, to_ms), bucket, 1)));
        }
        // A pack at the edge of two buckets is read once; and all in the order in which they lie in the file.
        sort_by_key(&mut uses, |(piece, ..)| *piece);
        for same in uses.chunk_by(|(one, ..), (other, ..)| one == other) {
            let figures = self.figures(&mut table.tally, same[0].0, packed)?;
            for (_, bucket, sign) in same {
                for (group, figures) in figures {
                    cell(&mut table.cells[*bucket], *group).add(figures, *sign);
                }
            }
        }
        self.add_unpacked(&mut table, ranges, packed)?;
        let answer = answer(&table);
        self.kept.borrow_mut().put(table.tally);
        Ok(answer)
    }

    /// What is known of such questions.
    pub(super) fn tally(&self, filter: &Filter, by: Option<By>, state: State) -> rusqlite::Result<Tally> {
        let priced_as = self.prices().and_then(|prices| prices.asked_as());
        self.kept.borrow_mut().take(filter, by, priced_as, state, |until, now| self.hours_of_rows(until, now))
    }

    /// The hours that the rows behind one id, up to another, were packed in.
    fn hours_of_rows(&self, after: i64, last: i64) -> rusqlite::Result<Vec<i64>> {
        let mut statement =
            self.conn.prepare_cached("SELECT start_time FROM requests WHERE id > ?1 AND id <= ?2 ORDER BY id")?;
        let hours = statement.query_map([after, last], |row| Ok(hour_of_ms(ms_of_text(text(row, 0)).unwrap_or(0))))?;
        let mut hours = hours.collect::<rusqlite::Result<Vec<i64>>>()?;
        hours.dedup();
        Ok(hours)
    }

    /// Adds the rows that are not packed.
    fn add_unpacked(
        &self,
        table: &mut Table,
        ranges: &[(Option<i64>, Option<i64>)],
        packed: Packed,
    ) -> rusqlite::Result<()> {
        let (Some((from, _)), Some((_, to))) = (ranges.first(), ranges.last()) else { return Ok(()) };
        let prices = self.prices();
        let prices = prices.as_deref();
        let needs = table.tally.needs(prices.is_some());
        self.visit_rows(packed.ids_behind(), (*from, *to), needs, ALL_FIGURES, |row| {
            table.add(row, ranges, prices);
            Ok(())
        })
    }

    /// Adds the rows of the filter's conversations: no pack holds them apart from others.
    fn add_turns(
        &self,
        table: &mut Table,
        filter: &Filter,
        ranges: &[(Option<i64>, Option<i64>)],
    ) -> Result<(), AskError> {
        let (Some((from, _)), Some((_, to))) = (ranges.first(), ranges.last()) else { return Ok(()) };
        let prices = self.prices();
        let prices = prices.as_deref();
        let needs = table.tally.needs(prices.is_some());
        let filter = Filter { from_ms: *from, to_ms: *to, ..filter.clone() };
        self.visit_turns(&filter, needs, ALL_FIGURES, |row| table.add(row, ranges, prices))
    }

    fn figures<'a>(&self, tally: &'a mut Tally, piece: Piece, packed: Packed) -> rusqlite::Result<&'a [(u32, Totals)]> {
        match piece {
            Piece::Pack(id) => tally.figures(piece, None, true, |tally| {
                self.pack("SELECT pack FROM packed_sums WHERE id = ?1", id, |pack| {
                    visit_sums(pack, |series, sums| {
                        if let Some(slot) = tally.slot_of(series) {
                            tally.count(Part::Asked, sums, &slot);
                        }
                    })
                })
            }),
            Piece::Rows(from_ms, to_ms) => self.figures_of_rows(tally, from_ms, to_ms, packed),
        }
    }

    fn figures_of_rows<'a>(
        &self,
        tally: &'a mut Tally,
        from_ms: i64,
        to_ms: i64,
        packed: Packed,
    ) -> rusqlite::Result<&'a [(u32, Totals)]> {
        // Of a moment that nobody will ask for again nothing is kept.
        let all = |unit_ms: i64| from_ms % unit_ms == 0 && to_ms % unit_ms == 0;
        let keeps = all(MINUTE_MS);
        // What the hour has before or behind is likely to be the edge of the next bucket. Finding its rows costs what
        // finding these costs: all are looked at.
        let (hour, next) = (from_ms - from_ms % HOUR_MS, from_ms - from_ms % HOUR_MS + HOUR_MS);
        let along = match (from_ms == hour, to_ms == next) {
            _ if !(keeps && all(QUARTER_MS)) => None,
            (true, false) => Some((to_ms, next)),
            (false, true) => Some((hour, from_ms)),
            (true, true) | (false, false) => None,
        };
        let range = along.map_or((from_ms, to_ms), |(from, to)| (from.min(from_ms), to.max(to_ms)));
        let (from, to) = bounds(Some(from_ms), Some(to_ms));
        let along = along.map(|(from, to)| Piece::Rows(from, to));
        let prices = self.prices();
        let prices = prices.as_deref();
        let needs = tally.needs(prices.is_some());
        tally.figures(Piece::Rows(from_ms, to_ms), along, keeps, |tally| {
            self.visit_packed_rows(packed, range, needs, ALL_FIGURES, |row| {
                if let Some(slot) = tally.slot_of_row(&row.names(), prices) {
                    let is_asked = along.is_none() || (from.as_str()..to.as_str()).contains(&row.start_time());
                    tally.count(if is_asked { Part::Asked } else { Part::Along }, &row.sums(), &slot);
                }
                Ok(())
            })
        })
    }

    pub(super) fn summary_of(&self, figures: &Totals) -> Summary {
        let [input, output, total, cached, reasoning, first_token_ms, cache_write] = figures.sums;
        Summary {
            total_requests: figures.requests,
            successful_requests: figures.completed,
            failed_requests: figures.requests - figures.completed - figures.cancelled,
            total_input_tokens: input,
            total_output_tokens: output,
            total_tokens: total,
            average_input_tokens: average(input, figures.requests),
            average_output_tokens: average(output, figures.requests),
            total_duration_ms: figures.duration_ms,
            cancelled_requests: figures.cancelled,
            total_cached_tokens: cached,
            total_cache_write_tokens: cache_write,
            total_reasoning_tokens: reasoning,
            requests_without_usage: figures.requests - figures.with_usage,
            average_time_to_first_token_ms: known_mean(first_token_ms, figures.first_tokens_known),
            average_tokens_per_second: speed_mean(figures.tokens_per_second, figures.tokens_per_second_known),
            cost: self.cost_of(figures),
            prompts_cut: None,
            electricity: None,
        }
    }

    fn groups_of(&self, by: By, table: &Table, bucket: usize) -> Groups {
        let cells = table.tally.groups.iter().zip(&table.cells[bucket]).filter(|(_, figures)| figures.requests > 0);
        let mut groups: Vec<Group> =
            cells.map(|(name, figures)| Group { name: by.told(name), summary: self.summary_of(figures) }).collect();
        sort_by(&mut groups, |a, b| {
            let requests = b.summary.total_requests.cmp(&a.summary.total_requests);
            requests.then_with(|| a.name.cmp(&b.name))
        });
        Groups { by, groups }
    }

    fn cost_of(&self, figures: &Totals) -> Option<Cost> {
        // No requests cost nothing; requests without any price, or any tokens told, cost nobody knows what.
        let known = figures.priced > 0 || figures.requests == 0;
        self.prices().map(|prices| prices.told(known.then_some(figures.cost)))
    }
}

fn merged(cells: &[Totals]) -> Totals {
    let mut all = Totals::default();
    cells.iter().for_each(|figures| all.add(figures, 1));
    all
}

fn text_in_zone(ms: i64, zone: &Zone) -> String {
    let time = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok();
    time.and_then(|time| time.to_offset(zone.offset(ms)).format(&Rfc3339).ok()).unwrap_or_default()
}
