//! Totals: the summary, the same by name, and over time. From packs and open hours; rows are read only for the parts of
//! an hour at the edges of a range.

use std::collections::HashMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::answers::{By, Cost, Group, Groups, OverTime, Point, Summary};
use super::filter::{Filter, Names, Zone, ms_of_date, next_month};
use super::price::Price;
use super::range::{Cut, HOUR_MS, Packed, Pieces, cut};
use super::reader::{AskError, Reader, passes};
use crate::limits::BUCKETS_MAX;
use crate::record::pack::visit_sums;
use crate::record::row::Outcome;
use crate::record::sums::{COLUMNS, Sums};

/// How time is parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// Hours.
    Hour,
    /// Days.
    Day,
    /// Weeks, from Monday (ISO 8601).
    Week,
    /// Calendar months.
    Month,
}

impl Bucket {
    /// All of them.
    pub const ALL: [Bucket; 4] = [Bucket::Hour, Bucket::Day, Bucket::Week, Bucket::Month];

    /// Its name in queries and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Bucket::Hour => "hour",
            Bucket::Day => "day",
            Bucket::Week => "week",
            Bucket::Month => "month",
        }
    }

    /// The beginning of the bucket that a moment belongs to.
    fn start(self, ms: i64, zone: Zone) -> i64 {
        let local = ms + zone.ms();
        let date = || OffsetDateTime::from_unix_timestamp(local.div_euclid(1000)).map(OffsetDateTime::date);
        let start = match (self, date()) {
            (Bucket::Hour, _) => local - local.rem_euclid(HOUR_MS),
            (Bucket::Week, Ok(date)) => {
                ms_of_date(date) - i64::from(date.weekday().number_days_from_monday()) * 24 * HOUR_MS
            }
            (Bucket::Month, Ok(date)) => ms_of_date(date) - (i64::from(date.day()) - 1) * 24 * HOUR_MS,
            (Bucket::Day, _) | (Bucket::Week | Bucket::Month, Err(_)) => local - local.rem_euclid(24 * HOUR_MS),
        };
        start - zone.ms()
    }

    /// The beginning of the bucket after the one that begins at `start`.
    fn next(self, start: i64, zone: Zone) -> i64 {
        match self {
            Bucket::Hour => start + HOUR_MS,
            Bucket::Day => start + 24 * HOUR_MS,
            Bucket::Week => start + 7 * 24 * HOUR_MS,
            Bucket::Month => {
                let local = OffsetDateTime::from_unix_timestamp((start + zone.ms()).div_euclid(1000));
                let next = local.ok().and_then(|local| next_month(local.date()));
                next.map_or(start + 31 * 24 * HOUR_MS, |date| ms_of_date(date) - zone.ms())
            }
        }
    }
}

/// The totals of one group.
#[derive(Clone, Debug, Default)]
struct Figures {
    sums: Sums,
    completed: i64,
    cancelled: i64,
    cost: f64,
    /// Requests whose model has a price.
    priced: i64,
}

/// Where a series counts.
#[derive(Clone, Copy, Debug)]
struct Slot {
    group: usize,
    ended: Ended,
    price: Option<Price>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Completed,
    Cancelled,
    Failed,
}

impl Figures {
    fn add(&mut self, sums: &Sums, slot: &Slot, sign: i64) {
        self.sums.add(sums, sign);
        match slot.ended {
            Ended::Completed => self.completed += sign * sums.requests,
            Ended::Cancelled => self.cancelled += sign * sums.requests,
            Ended::Failed => {}
        }
        if let Some(price) = &slot.price {
            self.cost += sign as f64 * price.of_sums(sums);
            self.priced += sign * sums.requests;
        }
    }
}

/// Totals by bucket of time, then by group.
struct Table<'a> {
    reader: &'a Reader,
    filter: &'a Filter,
    by: Option<By>,
    groups: Vec<String>,
    known: HashMap<String, usize>,
    cells: Vec<Vec<Figures>>,
}

impl Table<'_> {
    fn slot(&mut self, names: &Names) -> Slot {
        let name = match self.by {
            None => "",
            Some(By::Model) => names.model,
            Some(By::Endpoint) => names.endpoint,
            Some(By::Client) => names.client,
            Some(By::Key) => names.key,
            Some(By::Outcome) => names.outcome,
        };
        let group = match self.known.get(name) {
            Some(group) => *group,
            None => {
                self.groups.push(name.to_owned());
                self.known.insert(name.to_owned(), self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        let ended = match names.outcome {
            done if done == Outcome::Completed.as_str() => Ended::Completed,
            left if left == Outcome::ClientClosed.as_str() => Ended::Cancelled,
            _ => Ended::Failed,
        };
        Slot { group, ended, price: self.reader.prices.as_ref().and_then(|prices| prices.of(names.model)) }
    }

    /// Where each series counts, by its id; `None`: not at all.
    fn slots(&mut self) -> rusqlite::Result<Vec<Option<Slot>>> {
        let series = self.reader.series()?;
        let chosen = |series: &Option<super::reader::Series>| {
            let names = series.as_ref()?.names();
            passes(self.filter, &names).then(|| self.slot(&names))
        };
        Ok(series.iter().map(chosen).collect())
    }

    fn cell(&mut self, bucket: usize, group: usize) -> &mut Figures {
        let cells = &mut self.cells[bucket];
        if cells.len() <= group {
            cells.resize_with(group + 1, Figures::default);
        }
        &mut cells[group]
    }

    fn fill(&mut self, bucket: usize, pieces: &Pieces, slots: &[Option<Slot>]) -> rusqlite::Result<()> {
        let reader = self.reader;
        let slot_of = |series: i64| usize::try_from(series).ok().and_then(|series| slots.get(series).copied()?);
        for (id, sign) in &pieces.packs {
            reader.pack("SELECT pack FROM packed_sums WHERE id = ?1", *id, |pack| {
                visit_sums(pack, |series, sums| {
                    if let Some(slot) = slot_of(series) {
                        self.cell(bucket, slot.group).add(sums, &slot, *sign);
                    }
                })
            })?;
        }
        if let Some((from, to)) = pieces.open {
            let query = format!("SELECT {COLUMNS} FROM sums WHERE span = 2 AND start >= ?1 AND start < ?2");
            let mut statement = reader.conn.prepare_cached(&query)?;
            let mut rows = statement.query([from, to])?;
            while let Some(row) = rows.next()? {
                let (series, sums) = Sums::read(row, 0)?;
                if let Some(slot) = slot_of(series) {
                    self.cell(bucket, slot.group).add(&sums, &slot, 1);
                }
            }
        }
        for (from_ms, to_ms) in &pieces.rows {
            reader.visit_rows(*from_ms, *to_ms, |names, sums, _| {
                if passes(self.filter, &names) {
                    let slot = self.slot(&names);
                    self.cell(bucket, slot.group).add(sums, &slot, 1);
                }
            })?;
        }
        Ok(())
    }
}

impl Reader {
    /// The totals of all that the filter lets pass; zeros where there is nothing.
    pub fn summary(&self, filter: &Filter) -> rusqlite::Result<Summary> {
        self.at_once(|| {
            let table = self.table(filter, None, &[(filter.from_ms, filter.to_ms)], self.packed()?)?;
            Ok(self.summary_of(&merged(&table.cells[0])))
        })
    }

    /// The summary's figures apart for each model, client, …, most requests first, then by name.
    pub fn by(&self, by: By, filter: &Filter) -> rusqlite::Result<Groups> {
        self.at_once(|| {
            let table = self.table(filter, Some(by), &[(filter.from_ms, filter.to_ms)], self.packed()?)?;
            Ok(self.groups_of(by, &table, 0))
        })
    }

    /// The summary of each bucket of time from the filter's beginning, else the first request, to its end, else now.
    /// With `by` each bucket's groups, too.
    pub fn over_time(
        &self,
        filter: &Filter,
        bucket: Bucket,
        zone: Zone,
        by: Option<By>,
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
            let table = self.table(filter, by, &ranges, packed)?;
            let points = starts.iter().enumerate().map(|(at, start_ms)| Point {
                start: text_in_zone(*start_ms, zone),
                start_ms: *start_ms,
                summary: self.summary_of(&merged(&table.cells[at])),
                groups: by.map(|by| self.groups_of(by, &table, at)),
            });
            Ok(OverTime { bucket: bucket.as_str(), tz: zone.text(), points: points.collect() })
        })
    }

    fn starts(
        &self,
        filter: &Filter,
        bucket: Bucket,
        zone: Zone,
        packed: Packed,
        now_ms: i64,
    ) -> Result<Vec<i64>, AskError> {
        let last: Option<i64> =
            self.conn.prepare_cached("SELECT max(start) FROM sums WHERE span = 2")?.query_row([], |row| row.get(0))?;
        let Some(from_ms) = filter.from_ms.or(last.map(|_| packed.first * HOUR_MS)) else { return Ok(Vec::new()) };
        let to_ms = filter.to_ms.unwrap_or_else(|| last.map_or(0, |last| (last + 1) * HOUR_MS).max(now_ms + 1));
        let mut starts = Vec::new();
        let mut start = bucket.start(from_ms, zone);
        while start < to_ms {
            if starts.len() == BUCKETS_MAX {
                let name = bucket.as_str();
                return Err(AskError::Refused(format!(
                    "That would be more than {BUCKETS_MAX} points: give a larger bucket than {name}, or a later from."
                )));
            }
            starts.push(start);
            start = bucket.next(start, zone);
        }
        Ok(starts)
    }

    fn table<'a>(
        &'a self,
        filter: &'a Filter,
        by: Option<By>,
        ranges: &[(Option<i64>, Option<i64>)],
        packed: Packed,
    ) -> rusqlite::Result<Table<'a>> {
        let cells = vec![Vec::new(); ranges.len()];
        let mut table = Table { reader: self, filter, by, groups: Vec::new(), known: HashMap::new(), cells };
        let slots = table.slots()?;
        for (bucket, (from, to)) in ranges.iter().enumerate() {
            table.fill(bucket, &cut(*from, *to, packed, Cut::Signed), &slots)?;
        }
        Ok(table)
    }

    fn summary_of(&self, figures: &Figures) -> Summary {
        let sums = &figures.sums;
        Summary {
            total_requests: sums.requests,
            successful_requests: figures.completed,
            failed_requests: sums.requests - figures.completed - figures.cancelled,
            total_input_tokens: sums.input.sum,
            total_output_tokens: sums.output.sum,
            total_tokens: sums.total.sum,
            average_input_tokens: average(sums.input.sum, sums.requests),
            average_output_tokens: average(sums.output.sum, sums.requests),
            total_duration_ms: sums.duration_ms,
            cancelled_requests: figures.cancelled,
            total_cached_tokens: sums.cached.sum,
            total_reasoning_tokens: sums.reasoning.sum,
            requests_without_usage: sums.requests - sums.total.rows,
            cost: self.cost_of(figures),
        }
    }

    fn groups_of(&self, by: By, table: &Table, bucket: usize) -> Groups {
        let cells = table.groups.iter().zip(&table.cells[bucket]).filter(|(_, figures)| figures.sums.requests > 0);
        let mut groups: Vec<Group> = cells
            .map(|(name, figures)| Group {
                name: (!name.is_empty() || matches!(by, By::Model | By::Endpoint)).then(|| name.clone()),
                requests: figures.sums.requests,
                input_tokens: figures.sums.input.sum,
                output_tokens: figures.sums.output.sum,
                total_tokens: figures.sums.total.sum,
                avg_tokens_per_request: average(figures.sums.total.sum, figures.sums.requests),
                successful_requests: figures.completed,
                failed_requests: figures.sums.requests - figures.completed - figures.cancelled,
                cancelled_requests: figures.cancelled,
                cached_tokens: figures.sums.cached.sum,
                reasoning_tokens: figures.sums.reasoning.sum,
                duration_ms: figures.sums.duration_ms,
                requests_without_usage: figures.sums.requests - figures.sums.total.rows,
                cost: self.cost_of(figures),
            })
            .collect();
        groups.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.name.cmp(&b.name)));
        Groups { by, groups }
    }

    fn cost_of(&self, figures: &Figures) -> Option<Cost> {
        // No requests cost nothing; requests without any price cost nobody knows what.
        let known = figures.priced > 0 || figures.sums.requests == 0;
        self.cost(known.then_some(figures.cost))
    }

    /// A cost as answers tell it; `None` where there are no prices.
    pub(super) fn cost(&self, cost: Option<f64>) -> Option<Cost> {
        // Adding zero makes a negative zero, which sums of differences may leave, a plain one.
        let rounded = |cost: f64| (cost * 1e6).round() / 1e6 + 0.0;
        let currency = self.prices.as_ref()?.currency().to_owned();
        Some(Cost { cost: cost.map(rounded), currency })
    }
}

fn merged(cells: &[Figures]) -> Figures {
    let mut all = Figures::default();
    for figures in cells {
        all.sums.add(&figures.sums, 1);
        all.completed += figures.completed;
        all.cancelled += figures.cancelled;
        all.cost += figures.cost;
        all.priced += figures.priced;
    }
    all
}

fn text_in_zone(ms: i64, zone: Zone) -> String {
    let time = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000)).ok();
    let offset = time::UtcOffset::from_whole_seconds(zone.minutes * 60).ok();
    let text = time.zip(offset).and_then(|(time, offset)| time.to_offset(offset).format(&Rfc3339).ok());
    text.unwrap_or_default()
}

/// Rounded to one decimal; of nothing it is zero.
pub(super) fn average(sum: i64, requests: i64) -> f64 {
    if requests == 0 { 0.0 } else { one_decimal(sum as f64 / requests as f64) }
}

/// The nearest decimal to the exact value of `mean`, as Python and C's `printf` print it: multiplying by ten first
/// would round twice.
pub(super) fn one_decimal(mean: f64) -> f64 {
    format!("{mean:.1}").parse().unwrap_or(mean)
}
