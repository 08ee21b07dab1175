//! `GET /stats/time`: where the time went, by client and model. From packs of hours, and the rows of hours that are still
//! open, that lie at the edges of a range, or that a row reaches into which is not packed.
//!
//! Its parts are the range itself, to the microsecond: what anybody was at, idle time, and the time of hours that were not
//! counted yet or whose rows were removed before they were.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use rusqlite::params;
use serde::{Serialize, Serializer};

use super::answers::one_decimal;
use super::columns::{cell, with_commas};
use super::filter::Filter;
use super::range::{Cut, Packed, Pieces, cut};
use super::reader::{AskError, Reader};
use crate::calendar::{HOUR_MS, hour_of_ms, text_of_ms};
use crate::limits::TIMED_HOURS_READ_MAX;
use crate::order::sort_by_key;
use crate::packs::times::{TimeFigure, TimePhase, TimeSums, UNCOUNTED, visit_times};
use crate::packs::{SPAN_HOUR, pack_id};
use crate::record::times::{Completeness, times_within, unpacked_hours};
use crate::routes::By;

/// Few in tests, so that more are met.
const HOURS_READ_MAX: usize = if cfg!(test) { 80 } else { TIMED_HOURS_READ_MAX };

/// Where the time went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// The range: RFC 3339, UTC, milliseconds. It ends now at the latest.
    pub from: String,
    /// Up to but without this moment.
    pub to: String,
    /// All of it.
    pub range_ms: Milliseconds,
    /// What the requests had of it that the filter lets pass.
    #[serde(flatten)]
    pub total: TimeParts,
    /// Nothing was under way.
    pub idle_ms: Milliseconds,
    /// What other requests had of it.
    pub others_ms: Milliseconds,
    /// Of hours that were not counted: they came with an upgrade, and are, minutes later; or their rows were removed before.
    pub uncounted_ms: Milliseconds,
    /// By client and model: first what had most of the time.
    pub times: Vec<TimeGroup>,
}

/// What the requests of one client and model had of the time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeGroup {
    /// Who asked; `None`: nobody knows.
    pub client: Option<String>,
    /// The model that answered.
    pub model: String,
    /// What they had.
    #[serde(flatten)]
    pub parts: TimeParts,
}

/// What requests had of the time, and what they did with it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeParts {
    /// Answers were made.
    pub generating_ms: Milliseconds,
    /// Prompts were read.
    pub prompt_processing_ms: Milliseconds,
    /// Models were loaded.
    pub loading_ms: Milliseconds,
    /// They waited for their places among those in flight.
    pub waiting_ms: Milliseconds,
    /// A part of `generating_ms`: prompts were read, too, and nobody told how long.
    pub undivided_ms: Milliseconds,
    /// Requests that began.
    pub requests: i64,
    /// How long these waited for their places, added up.
    pub queue_ms: i64,
    /// How many of these had their model loaded for them, as far as upstream tells,
    pub model_loads: i64,
    /// and how long that took, added up.
    pub model_load_ms: i64,
    /// How fast prompts were read. One decimal.
    pub prompt_tokens_per_second: Option<f64>,
    /// Of a hundred tokens that a draft model proposed, those that were taken. One decimal.
    pub accepted_draft_percent: Option<f64>,
    /// How full contexts were, on average of those whose size is known. One decimal.
    pub context_used_percent: Option<f64>,
    /// Requests whose prompt seems to be cut.
    pub prompts_cut: i64,
}

/// Microseconds, told as milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Milliseconds(pub i64);

impl Serialize for Milliseconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1000 {
            0 => serializer.serialize_i64(self.0 / 1000),
            // Three decimals of less than 285 years are exact.
            _ => serializer.serialize_f64(self.0 as f64 / 1000.0),
        }
    }
}

impl TimeParts {
    fn of(sums: &TimeSums) -> TimeParts {
        let shared = |phase| sums.shared_us(phase);
        let [read, read_us, drafted, accepted] =
            [TimeFigure::ReadTokens, TimeFigure::ReadUs, TimeFigure::Drafted, TimeFigure::Accepted]
                .map(|figure| sums.get(figure));
        let ratio = |part: i64, of: i64| (of > 0).then(|| one_decimal(part as f64 / of as f64));
        TimeParts {
            generating_ms: Milliseconds(shared(TimePhase::Generating) + shared(TimePhase::Undivided)),
            prompt_processing_ms: Milliseconds(shared(TimePhase::Reading)),
            loading_ms: Milliseconds(shared(TimePhase::Loading)),
            waiting_ms: Milliseconds(shared(TimePhase::Waiting)),
            undivided_ms: Milliseconds(shared(TimePhase::Undivided)),
            requests: sums.get(TimeFigure::Requests),
            queue_ms: sums.get(TimeFigure::QueueMs),
            model_loads: sums.get(TimeFigure::Loads),
            model_load_ms: sums.get(TimeFigure::LoadMs),
            prompt_tokens_per_second: ratio(read.saturating_mul(1_000_000), read_us),
            accepted_draft_percent: ratio(accepted.saturating_mul(100), drafted),
            context_used_percent: ratio(sums.get(TimeFigure::ContextUsed), 10 * sums.get(TimeFigure::Contexts)),
            prompts_cut: sums.get(TimeFigure::PromptsCut),
        }
    }
}

/// What is added up of a range.
#[derive(Default)]
struct CountedTime {
    /// By those names that they are asked for by.
    groups: BTreeMap<Vec<String>, TimeSums>,
    others_us: i64,
    uncounted_us: i64,
}

impl Reader {
    /// Where the time went in which the filter's requests could be under way, as far as it is over at `now_ms`.
    pub fn times(&self, filter: &Filter, now_ms: i64) -> Result<Times, AskError> {
        let (range, counted) = self.at_once(|| {
            let range = self.time_range(filter, now_ms)?;
            Ok::<_, AskError>((range, self.counted_times(filter, range, &[By::Client, By::Model])?))
        })?;
        let CountedTime { groups, others_us, uncounted_us } = counted;
        let mut total = TimeSums::default();
        groups.values().for_each(|sums| total.add(sums, 1));
        let range_us = (range.1 - range.0) * 1000;
        let nothing = TimeSums::default();
        let mut groups: Vec<_> = groups.into_iter().filter(|(_, sums)| *sums != nothing).collect();
        // Stable: what is alike stays in the order of names.
        sort_by_key(&mut groups, |(_, sums)| -sums.busy_us());
        let times = groups.iter().map(|(names, sums)| TimeGroup {
            client: Some(names[0].clone()).filter(|client| !client.is_empty()),
            model: names[1].clone(),
            parts: TimeParts::of(sums),
        });
        Ok(Times {
            from: text_of_ms(range.0),
            to: text_of_ms(range.1),
            range_ms: Milliseconds(range_us),
            total: TimeParts::of(&total),
            idle_ms: Milliseconds(range_us - total.busy_us() - others_us - uncounted_us),
            others_ms: Milliseconds(others_us),
            uncounted_ms: Milliseconds(uncounted_us),
            times: times.collect(),
        })
    }

    /// Without a beginning it is the hour of the first request; it ends now at the latest.
    fn time_range(&self, filter: &Filter, now_ms: i64) -> Result<(i64, i64), AskError> {
        let to = filter.to_ms.map_or(now_ms, |to| to.min(now_ms)).max(0);
        let from = match filter.from_ms {
            Some(from) => from.max(0),
            None => self.true_hours(self.packed()?, now_ms)?.map_or(to, |(first, _)| first * HOUR_MS),
        };
        Ok((from.min(to), to))
    }

    /// The microseconds that were had of the time by requests that the filter lets pass, by one of their names, or all
    /// of it under an empty one.
    /// `None`: a part of the time was not counted, or is too much to be read.
    pub(super) fn busy_us(
        &self,
        filter: &Filter,
        by: Option<By>,
        now_ms: i64,
    ) -> Result<Option<HashMap<String, i64>>, AskError> {
        let counted = self.at_once(|| {
            let (from, to) = self.time_range(filter, now_ms)?;
            // As the costs beside it: of an hour without its rows nothing is lost.
            let parted = self.parted_at((Some(from), Some(to)))?;
            self.counted_times(filter, (parted.0.unwrap_or(from), parted.1.unwrap_or(to)), by.as_slice())
        });
        match counted {
            Ok(counted) if counted.uncounted_us == 0 => {
                let groups = counted.groups.into_iter();
                Ok(Some(groups.map(|(names, sums)| (names.concat(), sums.busy_us())).collect()))
            }
            Ok(_) | Err(AskError::Refused(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn counted_times(&self, filter: &Filter, (from, to): (i64, i64), by: &[By]) -> Result<CountedTime, AskError> {
        let mut counted = CountedTime::default();
        let packed = self.timed()?;
        let until = packed.state.until;
        let by_conversation = !filter.conversations.is_empty();
        let whole = (hour_of_ms(from + HOUR_MS - 1), hour_of_ms(to));
        // What these hours come to, packs do not tell.
        let mut anew: BTreeSet<i64> = self.open_hours(whole)?;
        anew.extend(unpacked_hours(&self.conn, until)?);
        if by_conversation {
            anew.extend(self.hours_of_turns(filter)?);
        }
        anew.retain(|hour| (whole.0..whole.1).contains(hour));
        let skipped = anew.len().saturating_sub(HOURS_READ_MAX);
        if by_conversation && skipped > 0 {
            return Err(AskError::Refused(format!(
                "Time of conversations is told of {HOURS_READ_MAX} hours at most: give a later from, or an earlier to."
            )));
        }
        let Pieces { packs, rows } = cut(Some(from), Some(to), packed, Cut::Signed);
        for (id, sign) in packs {
            self.count_pack(&mut counted, filter, by, id, sign)?;
        }
        for (at, hour) in anew.into_iter().enumerate() {
            let within = (hour * HOUR_MS, (hour + 1) * HOUR_MS);
            if at < skipped {
                self.count_pack(&mut counted, filter, by, pack_id(SPAN_HOUR, hour), -1)?;
                counted.uncounted_us += HOUR_MS * 1000;
            } else if let Some(of_rows) = self.count_rows_within(filter, by, within, until)? {
                self.count_pack(&mut counted, filter, by, pack_id(SPAN_HOUR, hour), -1)?;
                counted.add(of_rows);
            } else if self.is_unknown(hour)? {
                counted.uncounted_us += HOUR_MS * 1000;
            }
        }
        for within in rows {
            match self.count_rows_within(filter, by, within, until)? {
                Some(of_rows) => counted.add(of_rows),
                None => counted.uncounted_us += (within.1 - within.0) * 1000,
            }
        }
        Ok(counted)
    }

    /// What is packed; an exchange may reach into hours in which none began.
    fn timed(&self) -> rusqlite::Result<Packed> {
        let packed = self.packed()?;
        let last = "SELECT max(id) & 0xFFFFFFFF FROM packed_times WHERE id >= ?1 AND id < ?2";
        let ids = [pack_id(SPAN_HOUR, 0), pack_id(SPAN_HOUR + 1, 0)];
        let last: Option<i64> = self.conn.prepare_cached(last)?.query_row(ids, |row| row.get(0))?;
        Ok(Packed { end: last.map_or(packed.end, |last| packed.end.max(last + 1)), ..packed })
    }

    fn open_hours(&self, (first, end): (i64, i64)) -> rusqlite::Result<BTreeSet<i64>> {
        let mut hours = self.conn.prepare_cached("SELECT hour FROM open_hours WHERE hour >= ?1 AND hour < ?2")?;
        let mut open = BTreeSet::new();
        let mut rows = hours.query([first, end])?;
        while let Some(row) = rows.next()? {
            open.insert(row.get(0)?);
        }
        Ok(open)
    }

    /// The hours that the filter's conversations reach into.
    fn hours_of_turns(&self, filter: &Filter) -> Result<BTreeSet<i64>, AskError> {
        // One that began before the range may reach into it.
        let all = Filter { from_ms: None, to_ms: None, ..filter.clone() };
        let mut hours = BTreeSet::new();
        let mut ends = self.conn.prepare_cached("SELECT start_time, end_time FROM requests WHERE id = ?1")?;
        for id in self.turns_to_add(&all)? {
            let mut found = ends.query(params![id])?;
            if let Some(row) = found.next()? {
                let hour = |column| {
                    let text = crate::record::table::text(row, column);
                    hour_of_ms(crate::calendar::ms_of_text(text).unwrap_or(0))
                };
                hours.extend((hour(0)..=hour(1)).take(HOURS_READ_MAX + 1));
            }
        }
        Ok(hours)
    }

    /// Whether nothing is known of an hour.
    fn is_unknown(&self, hour: i64) -> rusqlite::Result<bool> {
        let mut is_empty = true;
        self.pack(PACK, pack_id(SPAN_HOUR, hour), |pack| visit_times(pack, |_, _| is_empty = false))?;
        Ok(is_empty)
    }

    fn count_pack(
        &self,
        counted: &mut CountedTime,
        filter: &Filter,
        by: &[By],
        id: i64,
        sign: i64,
    ) -> rusqlite::Result<()> {
        let series = self.series()?;
        self.pack(PACK, id, |pack| {
            visit_times(pack, |at, sums| {
                if at == UNCOUNTED {
                    counted.uncounted_us += sign * sums.busy_us();
                    return;
                }
                let known = usize::try_from(at).ok().and_then(|at| series.get(at)?.as_ref());
                match known.filter(|series| filter.conversations.is_empty() && filter.matches(series)) {
                    Some(series) => {
                        let key = by.iter().map(|by| series[*by].clone()).collect();
                        counted.groups.entry(key).or_default().add(sums, sign);
                    }
                    None => counted.others_us += sign * sums.busy_us(),
                }
            })
        })
    }

    /// What the rows come to that reach into a part of an hour; `None`: some were removed.
    fn count_rows_within(
        &self,
        filter: &Filter,
        by: &[By],
        within: (i64, i64),
        until: i64,
    ) -> rusqlite::Result<Option<CountedTime>> {
        let mut keys: Vec<Option<Vec<String>>> = Vec::new();
        let mut places: BTreeMap<Option<Vec<String>>, usize> = BTreeMap::new();
        let (sums, completeness) = times_within(&self.conn, within, (until, true), &mut |row| {
            let names = row.names();
            let is_of_it = filter.matches(&names) && filter.takes_conversation(Some(row.conversation()));
            let key = is_of_it.then(|| by.iter().map(|by| names[*by].to_owned()).collect());
            *places.entry(key).or_insert_with_key(|key| {
                keys.push(key.clone());
                keys.len() - 1
            })
        })?;
        if completeness == Completeness::SomeRemoved {
            return Ok(None);
        }
        let mut counted = CountedTime::default();
        for (key, sums) in keys.into_iter().zip(sums) {
            match key {
                Some(key) => counted.groups.entry(key).or_default().add(&sums, 1),
                None => counted.others_us += sums.busy_us(),
            }
        }
        Ok(Some(counted))
    }
}

const PACK: &str = "SELECT pack FROM packed_times WHERE id = ?1";

impl CountedTime {
    fn add(&mut self, other: CountedTime) {
        for (key, sums) in other.groups {
            self.groups.entry(key).or_default().add(&sums, 1);
        }
        self.others_us += other.others_us;
        self.uncounted_us += other.uncounted_us;
    }
}

impl Times {
    /// The same for a terminal, a line each.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let range_us = self.range_ms.0.max(1) as f64;
        let percent = |us: i64| format!("{:.1} %", us as f64 * 100.0 / range_us);
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{} to {}, {}\n", self.from, self.to, span(self.range_ms.0));
        let mut whole = |name: &str, us: i64| {
            let _ = writeln!(out, "{name:<20}{:>14}{:>9}", span(us), percent(us));
        };
        whole("generating", self.total.generating_ms.0);
        whole("prompt processing", self.total.prompt_processing_ms.0);
        whole("loading a model", self.total.loading_ms.0);
        whole("waiting for a place", self.total.waiting_ms.0);
        whole("idle", self.idle_ms.0);
        for (name, us) in [("other requests", self.others_ms.0), ("not counted", self.uncounted_ms.0)] {
            if us != 0 {
                whole(name, us);
            }
        }
        out.push('\n');
        let mut line = |client: &str, model: &str, cells: [String; 8]| {
            let _ = write!(out, "{}{}", cell(client, 14), cell(model, 22));
            for (cell, width) in cells.iter().zip([9, 11, 10, 9, 9, 6, 12, 8]) {
                let _ = write!(out, "{cell:>width$}");
            }
            out.push('\n');
        };
        let head = ["requests", "generating", "prompts", "loading", "waiting", "loads", "prompt t/s", "drafts"];
        line("client", "model", head.map(str::to_owned));
        for TimeGroup { client, model, parts } in &self.times {
            line(client.as_deref().unwrap_or("-"), model, parts.cells());
        }
        line("all", "", self.total.cells());
        out.push_str("\nMoments in which several requests were under way are shared equally among them.\n");
        out
    }
}

impl TimeParts {
    fn cells(&self) -> [String; 8] {
        [
            with_commas(self.requests),
            span(self.generating_ms.0),
            span(self.prompt_processing_ms.0),
            span(self.loading_ms.0),
            span(self.waiting_ms.0),
            with_commas(self.model_loads),
            self.prompt_tokens_per_second.map_or("-".to_owned(), |rate| format!("{rate:.1}")),
            self.accepted_draft_percent.map_or("-".to_owned(), |percent| format!("{percent:.1} %")),
        ]
    }
}

/// Microseconds as hours, minutes and seconds.
fn span(us: i64) -> String {
    let seconds = us as f64 / 1e6;
    let whole = us / 1_000_000;
    match whole {
        ..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        _ => format!("{}h {:02}m", with_commas(whole / 3600), whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::record::row::{Outcome, Row as WrittenRow};
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, Random, random_row, row};

    const SECOND_MS: i64 = 1000;

    /// Waiting, loading, prompts, answers, and what of these is undivided: what each row was at, as the documentation has
    /// it, from when to when.
    fn phases(row: &WrittenRow) -> [(i64, i64); 5] {
        let length = row.duration_ms as i64;
        let queued = (row.queue_ms.unwrap_or(0) as i64).min(length);
        let loaded = (queued + row.model_load_ms.unwrap_or(0) as i64).min(length);
        let rest = (length - loaded) as f64;
        let read = |tokens: Option<u64>, rate: Option<f64>| {
            let ms = tokens? as f64 * 1000.0 / rate.filter(|rate| *rate > 0.0)?;
            Some(ms.min(rest).round() as i64)
        };
        let input = row.input_tokens.map(|input| input - row.cached_tokens.unwrap_or(0).min(input));
        let reading = match row.time_to_first_token_ms {
            Some(first) => Some((first as i64 - loaded).clamp(0, length - loaded)),
            None if row.endpoint.contains("embeddings") || row.was_streamed || row.output_tokens == Some(0) => {
                Some(length - loaded)
            }
            None => read(input, row.prompt_tokens_per_second)
                .or_else(|| read(row.output_tokens, row.tokens_per_second).map(|answer| length - loaded - answer)),
        };
        let at = |ms: i64| row.start_ms + ms;
        let read_end = loaded + reading.unwrap_or(0);
        let generating = if reading.is_some() { (at(read_end), at(length)) } else { (at(length), at(length)) };
        let undivided = if reading.is_some() { (at(length), at(length)) } else { (at(loaded), at(length)) };
        [(at(0), at(queued)), (at(queued), at(loaded)), (at(loaded), at(read_end)), generating, undivided]
    }

    /// What rows have of a range, moment by moment: by [`phases`] for those that are taken, of the others, and idle.
    fn slow(rows: &[WrittenRow], (from, to): (i64, i64), takes: impl Fn(&WrittenRow) -> bool) -> ([f64; 5], f64, f64) {
        let mut cuts: Vec<i64> =
            rows.iter().flat_map(|row| phases(row).map(|(start, end)| [start, end])).flatten().collect();
        cuts.extend([from, to]);
        cuts.retain(|at| (from..=to).contains(at));
        cuts.sort_unstable();
        cuts.dedup();
        let (mut parts, mut others, mut idle) = ([0.0; 5], 0.0, 0.0);
        for (start, end) in cuts.windows(2).map(|ends| (ends[0], ends[1])) {
            let at = |row: &WrittenRow| phases(row).iter().position(|(from, to)| *from <= start && start < *to);
            let there: Vec<_> = rows.iter().filter_map(|row| Some((row, at(row)?))).collect();
            if there.is_empty() {
                idle += (end - start) as f64;
            }
            for (row, phase) in &there {
                let part = (end - start) as f64 / there.len() as f64;
                if takes(row) { parts[*phase] += part } else { others += part }
            }
        }
        (parts, others, idle)
    }

    #[track_caller]
    fn check(
        reader: &Reader,
        rows: &[WrittenRow],
        filter: &Filter,
        (from, to): (i64, i64),
        takes: impl Fn(&WrittenRow) -> bool,
        off_ms: f64,
    ) {
        let filter = Filter { from_ms: Some(from), to_ms: Some(to), ..filter.clone() };
        let told = reader.times(&filter, to + 1).expect("answers");
        let TimeParts { generating_ms, prompt_processing_ms, loading_ms, waiting_ms, undivided_ms, requests, .. } =
            told.total;
        let parts = [generating_ms, prompt_processing_ms, loading_ms, waiting_ms, told.idle_ms, told.others_ms];
        let sum: i64 = parts.iter().map(|part| part.0).sum();
        assert_eq!((sum + told.uncounted_ms.0, told.range_ms.0), ((to - from) * 1000, (to - from) * 1000));
        assert_eq!(told.uncounted_ms.0, 0);
        let (expected, others, idle) = slow(rows, (from, to), &takes);
        let expected = [expected[3] + expected[4], expected[2], expected[1], expected[0], idle, others, expected[4]];
        for (part, expected) in parts.iter().chain([&undivided_ms]).zip(expected) {
            assert!((part.0 as f64 / 1000.0 - expected).abs() <= off_ms, "{told:?}\n{expected}");
        }
        assert!((told.idle_ms.0 as f64 / 1000.0 - idle).abs() < 1e-6, "what is idle is exact");
        let began = rows.iter().filter(|row| (from..to).contains(&row.start_ms) && takes(row)).count();
        assert_eq!(requests, began as i64);
        let groups: i64 = told.times.iter().map(|group| group.parts.generating_ms.0).sum();
        assert_eq!(groups, generating_ms.0);
    }

    #[test]
    fn parts_are_those_of_the_rows_whatever_is_packed_and_closed_and_add_up_to_the_range() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let (mut random, mut rows) = (Random::new(17), Vec::new());
        let first = row().start_ms - row().start_ms % HOUR_MS;
        for round in 0..4 {
            let mut more: Vec<WrittenRow> = (0..120).map(|_| random_row(&mut random)).collect();
            // Some go on for hours.
            for row in more.iter_mut().step_by(9) {
                row.duration_ms = random.below(5 * HOUR_MS as u64);
                row.model_load_ms = Some(random.below(100_000));
            }
            store.write(&more).expect("writes");
            rows.extend(more);
            // The last rows stay as they are, and the last but one are packed, but their hours are open.
            if round < 3 {
                store.pack_all().expect("packs");
            }
            if round < 2 {
                store.close_hours(first + 60 * HOUR_MS).expect("closes");
            }
            for _ in 0..12 {
                let mut moment = || {
                    let ms = first + random.below(90 * HOUR_MS as u64) as i64;
                    if random.below(2) == 0 { ms } else { ms - ms % HOUR_MS }
                };
                let (one, other) = (moment(), moment());
                let range = (one.min(other), one.max(other));
                check(&reader, &rows, &Filter::default(), range, |_| true, 0.5);
                let mut named = Filter::default();
                named.names[By::Model] = vec!["model-0".to_owned(), "model-1".to_owned()];
                named.names[By::Outcome] = vec!["completed".to_owned(), "truncated".to_owned()];
                let takes = |row: &WrittenRow| {
                    matches!(row.model.as_deref(), Some("model-0" | "model-1"))
                        && matches!(row.outcome, Outcome::Completed | Outcome::Truncated)
                };
                check(&reader, &rows, &named, range, takes, 0.5);
            }
        }
        let all = (first, first + 90 * HOUR_MS);
        check(&reader, &rows, &Filter::default(), all, |_| true, 0.5);
        // Nor does it matter when they are closed.
        store.pack_all().and_then(|()| store.close_hours(all.1)).expect("closes");
        check(&reader, &rows, &Filter::default(), all, |_| true, 0.5);
        let open: i64 = store_number(&path, "SELECT count(*) FROM open_hours");
        assert_eq!(open, 0);
    }

    fn store_number(path: &std::path::Path, query: &str) -> i64 {
        Connection::open(path).and_then(|conn| conn.query_row(query, [], |row| row.get(0))).expect(query)
    }

    #[test]
    fn an_hour_of_too_many_requests_is_shared_to_the_hundredth_of_a_second() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let mut random = Random::new(5);
        let first = row().start_ms - row().start_ms % HOUR_MS;
        let rows: Vec<WrittenRow> = (0..400)
            .map(|_| WrittenRow {
                start_ms: first + random.below(1000 * SECOND_MS as u64) as i64,
                duration_ms: random.below(5000),
                ..random_row(&mut random)
            })
            .collect();
        store.write(&rows).expect("writes");
        let range = (first + 33, first + HOUR_MS);
        check(&reader, &rows, &Filter::default(), range, |_| true, 400.0 * 20.0 / 5.0);
        store.pack_all().and_then(|()| store.close_hours(first + HOUR_MS)).expect("closes");
        check(&reader, &rows, &Filter::default(), (first, first + HOUR_MS), |_| true, 400.0 * 20.0 / 5.0);
    }

    #[test]
    fn time_of_a_conversation_is_told_and_all_else_is_that_of_others() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let start_ms = row().start_ms - row().start_ms % HOUR_MS;
        let of = |at: i64, seconds: u64| WrittenRow {
            start_ms: start_ms + at * SECOND_MS,
            duration_ms: seconds * 1000,
            time_to_first_token_ms: Some(0),
            ..row()
        };
        store.write(&[of(0, 100), of(50, 100), of(4000, 10)]).expect("writes");
        Connection::open(&path)
            .and_then(|conn| {
                conn.execute_batch("UPDATE requests SET conversation = 'c' || id, conversation_source = 'header'")
            })
            .expect("written");
        let filter = Filter { conversations: vec!["c1".to_owned()], ..Filter::default() };
        for _ in 0..2 {
            let told = reader.times(&filter, start_ms + 2 * HOUR_MS).expect("answers");
            let parts = [told.total.generating_ms, told.others_ms, told.idle_ms, told.range_ms];
            assert_eq!(parts.map(|part| part.0 / 1_000_000), [75, 85, 7200 - 160, 7200]);
            assert_eq!((told.total.requests, told.times.len()), (1, 1));
            store.pack_all().and_then(|()| store.close_hours(start_ms + 2 * HOUR_MS)).expect("closes");
        }
    }

    #[test]
    fn hours_whose_rows_were_removed_stay_as_they_were_counted_and_others_are_not_counted() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let first = row().start_ms - row().start_ms % HOUR_MS;
        let at = |hour: i64| WrittenRow { start_ms: first + hour * HOUR_MS, duration_ms: 60_000, ..row() };
        store.write(&[at(0), at(2)]).and_then(|_| store.pack_all()).expect("writes");
        store.close_hours(first + HOUR_MS).expect("closes");
        let remove = |ids: &str| {
            Connection::open(&path)
                .and_then(|conn| conn.execute(&format!("DELETE FROM requests WHERE id IN ({ids})"), []))
                .expect("removes")
        };
        store.write(&[at(4)]).expect("writes");
        remove("1, 2");
        // One comes late that began in the first hour, and reaches into the second.
        store.write(&[WrittenRow { duration_ms: 4_000_000, ..at(0) }]).expect("writes");
        let check = || {
            let told = reader.times(&Filter::default(), first + 5 * HOUR_MS).expect("answers");
            let parts = [told.total.generating_ms, told.uncounted_ms, told.idle_ms, told.range_ms];
            assert_eq!(parts.map(|part| part.0 / 1_000_000), [60 + 400 + 60, 3600, 5 * 3600 - 3600 - 520, 5 * 3600]);
        };
        check();
        store.pack_all().and_then(|()| store.close_hours(first + 10 * HOUR_MS)).expect("closes");
        check();
        // What is read of a part of such an hour is not all there was.
        let part = Filter { from_ms: Some(first + 1000), to_ms: Some(first + HOUR_MS), ..Filter::default() };
        let told = reader.times(&part, first + 5 * HOUR_MS).expect("answers");
        assert_eq!((told.uncounted_ms, told.idle_ms.0), (told.range_ms, 0));
    }

    #[test]
    fn a_row_that_is_corrected_changes_the_hours_that_it_reached_into() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let first = row().start_ms - row().start_ms % HOUR_MS;
        let long = WrittenRow { start_ms: first, duration_ms: 3 * HOUR_MS as u64, ..row() };
        let short = WrittenRow { duration_ms: 1000, ..long.clone() };
        let mut check = |expected_s: i64| {
            let now_ms = first + 5 * HOUR_MS;
            for _ in 0..2 {
                let told = reader.times(&Filter::default(), now_ms).expect("answers");
                assert_eq!(told.total.generating_ms.0, expected_s * 1_000_000);
                store.pack_all().and_then(|()| store.close_hours(now_ms)).expect("closes");
            }
            if expected_s == 0 {
                store.write(std::slice::from_ref(&long)).expect("writes");
            } else {
                let (before, after) = if expected_s == 1 { (&short, &long) } else { (&long, &short) };
                store.correct(1, before, after).expect("corrects");
            }
        };
        check(0);
        check(3 * 3600);
        check(1);
        check(3 * 3600);
    }

    #[test]
    fn rates_are_upstreams_figure_else_what_was_read_until_the_first_token() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let told = WrittenRow {
            input_tokens: Some(3000),
            cached_tokens: Some(1000),
            prompt_tokens_per_second: Some(500.0),
            draft_tokens: Some(40),
            accepted_draft_tokens: Some(30),
            model_load_ms: Some(2500),
            time_to_first_token_ms: Some(9000),
            queue_ms: Some(500),
            duration_ms: 10_000,
            ..row()
        };
        let measured = WrittenRow { prompt_tokens_per_second: None, draft_tokens: Some(60), ..told.clone() };
        store.write(&[told, WrittenRow { accepted_draft_tokens: None, ..measured }]).expect("writes");
        let TimeParts {
            prompt_tokens_per_second, accepted_draft_percent, model_loads, model_load_ms, queue_ms, ..
        } = reader.times(&Filter::default(), row().start_ms + HOUR_MS).expect("answers").total;
        // 2000 in 4 s, and 2000 in the 6 s behind loading.
        assert_eq!((prompt_tokens_per_second, accepted_draft_percent), (Some(400.0), Some(75.0)));
        assert_eq!((model_loads, model_load_ms, queue_ms), (2, 5000, 1000));
        let none = reader.times(&Filter::default(), row().start_ms - HOUR_MS).expect("answers").total;
        assert_eq!((none.prompt_tokens_per_second, none.accepted_draft_percent), (None, None));
    }

    #[test]
    fn a_person_reads_a_table() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store
            .write(&[WrittenRow { model: Some("m\u{1b}[1m".to_owned()), duration_ms: 90_000, ..row() }])
            .expect("writes");
        let filter = Filter { from_ms: Some(row().start_ms), ..Filter::default() };
        let told = Reader::open(&path).expect("opens").times(&filter, row().start_ms + HOUR_MS).expect("answers");
        let text = told.text();
        assert!(text.contains("generating                  1m 30s    2.5 %"), "{text}");
        assert!(text.contains("idle                       58m 30s   97.5 %"), "{text}");
        assert!(text.contains("m?[1m") && !text.contains("other requests"), "{text}");
    }
}
