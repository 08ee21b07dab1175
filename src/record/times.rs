//! Where the time went, hour by hour: what the exchanges that were under way in an hour come to, and the packs of that.
//!
//! How an hour is shared shows only when all exchanges are known that reach into it, and each that comes later changes the
//! part of all others. So packing a row only opens the hours that it reaches into; the keeper makes the packs of an open
//! hour that is over, by reading its rows, and closes it. A row that comes later opens it again.
//!
//! ```text
//!  rows ──packing──▶ open_hours, reaching ──keeper, hours──▶ packed_times of the hour, its day, month and all time
//! ```

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::table::{integer, real, text};
use crate::calendar::{HOUR_MS, hour_of_ms, ms_of_text, text_of_ms};
use crate::limits::{SHARED_EXACTLY_MAX, TIMED_MS_MAX};
use crate::packs::times::{PHASES, Presence, TIME_FIGURES, TimeFigure, TimeSums, TimedRun, in_microseconds};
use crate::packs::{SPAN_HOUR, pack_id, visit_sums};
use crate::routes::{Names, dialect_of};
use crate::usage::Dialect;

/// So few in tests, so that more are met.
const EXACTLY_MAX: usize = if cfg!(test) { 200 } else { SHARED_EXACTLY_MAX };

/// The hours that an exchange reaches into behind that in which it began.
pub(super) fn hours_reached(start_ms: i64, duration_ms: i64) -> std::ops::RangeInclusive<i64> {
    let last_ms = start_ms.saturating_add(duration_ms.clamp(0, TIMED_MS_MAX)) - 1;
    hour_of_ms(start_ms) + 1..=hour_of_ms(last_ms.max(start_ms))
}

/// Opens hours, and notes rows that reach into some, inside the caller's transaction.
pub(super) fn open_hours(
    conn: &Connection,
    hours: &BTreeSet<i64>,
    reaching: &[(i64, i64)],
    sign: i64,
) -> rusqlite::Result<()> {
    let mut open = conn.prepare_cached("INSERT OR IGNORE INTO open_hours VALUES (?1)")?;
    for hour in hours {
        open.execute([hour])?;
    }
    let mut note = conn.prepare_cached(match sign {
        1 => "INSERT OR IGNORE INTO reaching VALUES (?1, ?2)",
        _ => "DELETE FROM reaching WHERE hour = ?1 AND id = ?2",
    })?;
    for (hour, id) in reaching {
        open.execute([hour])?;
        note.execute([hour, id])?;
    }
    Ok(())
}

/// Every hour of which packs hold rows is to be looked at, inside the caller's transaction.
pub(super) fn open_packed_hours(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute(
        "INSERT OR IGNORE INTO open_hours SELECT id & 0xFFFFFFFF FROM packed_sums WHERE id >= ?1 AND id < ?2",
        [pack_id(SPAN_HOUR, 0), pack_id(SPAN_HOUR + 1, 0)],
    )?;
    Ok(())
}

/// Ids from this one on are given anew, inside the caller's transaction.
pub(super) fn forget_rows_from(conn: &Connection, first: i64) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM reaching WHERE id >= ?1", [first])?;
    Ok(())
}

/// A row that reaches into what is being looked at.
pub(crate) struct TimedRow<'a> {
    row: &'a Row<'a>,
    /// Its id.
    pub id: i64,
    /// What it was at, and when.
    pub run: TimedRun,
}

/// What a [`TimedRow`] is made of. Names stand in the order of [`Names`].
const COLUMNS: &str = "id, model, endpoint, client, key, outcome, start_time, duration_ms, queue_ms, model_load_ms,
    time_to_first_token_ms, was_streamed, input_tokens, cached_tokens, output_tokens, tokens_per_second,
    prompt_tokens_per_second, draft_tokens, accepted_draft_tokens, conversation, context_tokens, prompt_cut";

impl<'a> TimedRow<'a> {
    fn new(row: &'a Row<'a>) -> rusqlite::Result<TimedRow<'a>> {
        let timed = TimedRow { row, id: row.get(0)?, run: TimedRun::default() };
        Ok(TimedRow { run: timed.told_run(), ..timed })
    }

    /// Its names.
    pub fn names(&self) -> Names<&'a str> {
        std::array::from_fn(|at| text(self.row, 1 + at))
    }

    /// Its conversation; empty where it has none.
    pub fn conversation(&self) -> &'a str {
        text(self.row, 19)
    }

    fn figure(&self, column: usize) -> Option<i64> {
        integer(self.row, column).filter(|figure| *figure >= 0)
    }

    fn rate(&self, column: usize) -> Option<f64> {
        real(self.row, column).filter(|rate| *rate > 0.0)
    }

    /// Tokens of the prompt that did not come from a cache.
    fn read_tokens(&self) -> Option<i64> {
        Some((self.figure(12)? - self.figure(13).unwrap_or(0)).max(0))
    }

    /// What it was at. A phase that nobody told lasted no time; what is left is its answer's, or undivided.
    fn told_run(&self) -> TimedRun {
        let start_ms = ms_of_text(text(self.row, 6)).unwrap_or(0);
        let length = self.figure(7).unwrap_or(0).min(TIMED_MS_MAX);
        let waited = self.figure(8).unwrap_or(0).min(length);
        let loaded = waited + self.figure(9).unwrap_or(0).min(length - waited);
        let rest = length - loaded;
        let made_none = self.figure(14) == Some(0) || dialect_of(text(self.row, 2)) == Dialect::Embeddings;
        let of_rate = |tokens: Option<i64>, column| {
            let ms = tokens? as f64 * 1000.0 / self.rate(column)?;
            Some(ms.min(rest as f64).round() as i64)
        };
        let first = self.figure(10).map(|first| (first - loaded).clamp(0, rest));
        let read = match first {
            Some(read) => Some(read),
            // No word came, so it did not get any further.
            None if made_none || self.figure(11) == Some(1) => Some(rest),
            None => of_rate(self.read_tokens(), 16).or_else(|| Some(rest - of_rate(self.figure(14), 15)?)),
        };
        let read_until = loaded + read.unwrap_or(0);
        let generated_until = if read.is_some() { length } else { read_until };
        TimedRun { start_ms, ends_ms: [waited, loaded, read_until, generated_until, length].map(|ms| start_ms + ms) }
    }

    /// What counts of it where it began.
    fn sums(&self) -> TimeSums {
        let mut sums = TimeSums([0; TIME_FIGURES]);
        let mut set = |figure: TimeFigure, number: i64| sums.0[figure as usize] = number;
        set(TimeFigure::Requests, 1);
        set(TimeFigure::QueueMs, self.figure(8).unwrap_or(0));
        if let Some(load) = self.figure(9).filter(|load| *load > 0) {
            set(TimeFigure::Loads, 1);
            set(TimeFigure::LoadMs, load);
        }
        let began = self.figure(8).unwrap_or(0) + self.figure(9).unwrap_or(0);
        let first_us = self.figure(10).map(|first| (first - began) * 1000);
        let tokens = self.read_tokens().filter(|tokens| *tokens > 0);
        let told_us = tokens.zip(self.rate(16)).map(|(tokens, rate)| (tokens as f64 * 1e6 / rate) as i64);
        if let Some((tokens, us)) = tokens.zip(told_us.or(first_us)).filter(|(_, us)| *us > 0) {
            set(TimeFigure::ReadTokens, tokens);
            set(TimeFigure::ReadUs, us);
        }
        if let Some((drafted, accepted)) = self.figure(17).zip(self.figure(18)) {
            set(TimeFigure::Drafted, drafted);
            set(TimeFigure::Accepted, accepted);
        }
        if let Some((context, input)) = self.figure(20).filter(|context| *context > 0).zip(self.figure(12)) {
            let used = input + self.figure(14).unwrap_or(0);
            set(TimeFigure::Contexts, 1);
            set(TimeFigure::ContextUsed, (used as f64 * 1000.0 / context as f64).round() as i64);
        }
        set(TimeFigure::PromptsCut, self.figure(21).unwrap_or(0));
        sums
    }
}

/// Whether all rows are there that once were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completeness {
    AllThere,
    SomeRemoved,
}

/// Visits every row that reaches into an hour: those that packs hold, and with `and_unpacked` those behind.
fn visit_hour(
    conn: &Connection,
    hour: i64,
    until: i64,
    and_unpacked: bool,
    visit: &mut dyn FnMut(&TimedRow),
) -> rusqlite::Result<Completeness> {
    let (mut range, mut requests) = (None, 0);
    let pack = "SELECT pack FROM packed_sums WHERE id = ?1";
    let pack: Option<Vec<u8>> =
        conn.prepare_cached(pack)?.query_row([pack_id(SPAN_HOUR, hour)], |row| row.get(0)).optional()?;
    visit_sums(&pack.unwrap_or_default(), |_, sums| {
        let (first, last) = range.unwrap_or((sums.first_id, sums.last_id));
        range = Some((first.min(sums.first_id), last.max(sums.last_id)));
        requests += sums.requests;
    })?;
    let mut seen = 0;
    if let Some((first, last)) = range {
        let mut rows = conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM requests WHERE id BETWEEN ?1 AND ?2 AND start_time >= ?3 AND start_time < ?4"
        ))?;
        let (from, to) = (text_of_ms(hour * HOUR_MS), text_of_ms((hour + 1) * HOUR_MS));
        let mut rows = rows.query(params![first, last.min(until), from, to])?;
        while let Some(row) = rows.next()? {
            visit(&TimedRow::new(row)?);
            seen += 1;
        }
    }
    let mut all_there = seen == requests;
    let mut ids = conn.prepare_cached("SELECT id FROM reaching WHERE hour = ?1")?;
    let mut one = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM requests WHERE id = ?1"))?;
    let mut ids = ids.query([hour])?;
    while let Some(id) = ids.next()? {
        let mut found = one.query([id.get::<_, i64>(0)?])?;
        match found.next()? {
            Some(row) => visit(&TimedRow::new(row)?),
            None => all_there = false,
        }
    }
    if and_unpacked {
        let to = text_of_ms((hour + 1) * HOUR_MS);
        visit_unpacked(conn, until, &to, visit)?;
    }
    Ok(if all_there { Completeness::AllThere } else { Completeness::SomeRemoved })
}

/// Visits every row that no pack holds and that began before a moment.
fn visit_unpacked(
    conn: &Connection,
    until: i64,
    before: &str,
    visit: &mut dyn FnMut(&TimedRow),
) -> rusqlite::Result<()> {
    let mut rows = conn.prepare_cached(&format!("SELECT {COLUMNS} FROM requests WHERE id > ?1 AND start_time < ?2"))?;
    let mut rows = rows.query(params![until, before])?;
    while let Some(row) = rows.next()? {
        visit(&TimedRow::new(row)?);
    }
    Ok(())
}

/// The hours that rows reach into which no pack holds.
pub(crate) fn unpacked_hours(conn: &Connection, until: i64) -> rusqlite::Result<BTreeSet<i64>> {
    let mut hours = BTreeSet::new();
    visit_unpacked(conn, until, "~", &mut |row| {
        let (start_ms, end_ms) = (row.run.start_ms, row.run.end_ms());
        hours.insert(hour_of_ms(start_ms));
        hours.extend(hours_reached(start_ms, end_ms - start_ms));
    })?;
    Ok(hours)
}

/// How a part of an hour is shared among the rows that reach into it, by what `place` tells of each, from 0. The figures of
/// rows that began in it are among it. Read inside the caller's transaction.
pub(crate) fn times_within(
    conn: &Connection,
    (from_ms, to_ms): (i64, i64),
    (until, and_unpacked): (i64, bool),
    place: &mut dyn FnMut(&TimedRow) -> usize,
) -> rusqlite::Result<(Vec<TimeSums>, Completeness)> {
    let hour = hour_of_ms(from_ms);
    let mut presence = Presence::new((from_ms, to_ms), EXACTLY_MAX);
    let (mut runs, mut sums): (Vec<(usize, TimedRun)>, Vec<TimeSums>) = (Vec::new(), Vec::new());
    let mut row_at = |row: &TimedRow, count: usize| {
        let at = place(row);
        (at, count.max(at + 1))
    };
    let completeness = visit_hour(conn, hour, until, and_unpacked, &mut |row| {
        let run = row.run;
        let begins = (from_ms..to_ms).contains(&run.start_ms);
        if !begins && (run.end_ms() <= from_ms || run.start_ms >= to_ms) {
            return;
        }
        let (at, count) = row_at(row, sums.len());
        sums.resize(count, TimeSums::default());
        if begins {
            sums[at].add(&row.sums(), 1);
        }
        presence.note(run.start_ms, run.end_ms());
        if presence.is_exact() {
            runs.push((at, run));
        } else {
            runs = Vec::new();
        }
    })?;
    let is_exact = presence.is_exact();
    let shares = presence.shares();
    let mut parts = vec![0.0; sums.len() * PHASES];
    let mut share = |at: usize, run: &TimedRun| {
        for (phase, (start, end)) in run.phases().into_iter().enumerate() {
            parts[at * PHASES + phase] += shares.of(start.max(from_ms), end.min(to_ms));
        }
    };
    if is_exact {
        runs.iter().for_each(|(at, run)| share(*at, run));
    } else {
        // Too many to be kept in mind are read again.
        visit_hour(conn, hour, until, and_unpacked, &mut |row| {
            if row.run.end_ms() > from_ms && row.run.start_ms < to_ms {
                share(row_at(row, 0).0, &row.run);
            }
        })?;
    }
    let rounded = in_microseconds(&parts, shares.busy_ms());
    for (sums, phases) in sums.iter_mut().zip(rounded.chunks(PHASES)) {
        sums.0[..PHASES].copy_from_slice(phases);
    }
    Ok((sums, completeness))
}
