//! Sums per hour and series, so that statistics never read rows.
//!
//! ```text
//!  rows ──(sum up)──▶ their hour's sums ──(the hour is over: roll up)──▶ its day's sums, the sums of all time
//! ```
//!
//! Rows are summed up many at a time, after the commits that replies wait for: by the keeper about a second later, and
//! before whatever reads sums. `summed_until` in `meta` says up to which id; what came since is counted in memory, and
//! after a kill from the table ([`catch_up`]).
//!
//! An hour that is over is added, once, to its day and to all time by [`roll_up`], which the keeper calls, and packed
//! for quick reading (see [`super::pack`]); `rolled_until` in `meta` says how far that went. A row that comes late, for
//! an hour already rolled up, is added to all of these. So the figures of all time are those of `span` 0 and of the few
//! hours since: [`ALL_TIME`].
//!
//! Invariants:
//! - For every series, the sums of all hours equal those of its rows up to `summed_until`, unless rows were removed.
//! - Sums and `summed_until` change in one transaction, so that no row is counted twice, or never.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OptionalExtension, params};

use super::pack::{HourRead, Packs, Sample, changed, corrected};
use super::rfc3339::{MS_MAX, ms_of_text};
use super::row::Row;
use super::schema::UNKNOWN_MODEL;
use crate::limits::{FIGURE_MAX, SERIES_MAX, UNSUMMED_ROWS_MAX, UNSUMMED_SUMS_MAX};

/// `span` of the sums of all time.
pub const SPAN_ALL: i64 = 0;
/// `span` of a day's sums.
pub const SPAN_DAY: i64 = 1;
/// `span` of an hour's sums.
pub const SPAN_HOUR: i64 = 2;

/// Begins a query: `counted` are the rows of `sums` that add up to all that was ever recorded.
pub const ALL_TIME: &str = "WITH counted AS (
    SELECT * FROM sums WHERE span = 0
    UNION ALL
    SELECT * FROM sums WHERE span = 2 AND start >= (SELECT value FROM meta WHERE name = 'rolled_until')) ";

/// The end of an INSERT into `sums` that adds to what is there.
macro_rules! on_conflict_add {
    () => {
        " ON CONFLICT (span, start, series) DO UPDATE SET
            requests = requests + excluded.requests,
            duration_ms = duration_ms + excluded.duration_ms,
            input_tokens = input_tokens + excluded.input_tokens,
            input_known = input_known + excluded.input_known,
            output_tokens = output_tokens + excluded.output_tokens,
            output_known = output_known + excluded.output_known,
            total_tokens = total_tokens + excluded.total_tokens,
            total_known = total_known + excluded.total_known,
            cached_tokens = cached_tokens + excluded.cached_tokens,
            cached_known = cached_known + excluded.cached_known,
            reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
            reasoning_known = reasoning_known + excluded.reasoning_known,
            first_token_ms = first_token_ms + excluded.first_token_ms,
            first_token_known = first_token_known + excluded.first_token_known,
            tokens_per_second = tokens_per_second + excluded.tokens_per_second,
            tokens_per_second_known = tokens_per_second_known + excluded.tokens_per_second_known,
            first_id = min(first_id, excluded.first_id),
            last_id = max(last_id, excluded.last_id)"
    };
}

/// The columns that [`Sums::read`] reads.
const COLUMNS: &str = "series, requests, duration_ms, input_tokens, input_known, output_tokens, output_known,
    total_tokens, total_known, cached_tokens, cached_known, reasoning_tokens, reasoning_known, first_token_ms,
    first_token_known, tokens_per_second, tokens_per_second_known, first_id, last_id";

/// A series whose names are too many to be kept apart.
pub const OTHER: &str = "other";

pub(super) const HOUR_MS: i64 = 3_600_000;

/// The hour that a time in milliseconds belongs to, counted from 1970.
pub fn hour_of_ms(ms: i64) -> i64 {
    ms.clamp(0, MS_MAX) / HOUR_MS
}

/// A figure of one row as it is stored: one that no exchange can have is unknown, so that no sum can overflow.
pub fn figure(value: Option<u64>) -> Option<i64> {
    value.filter(|value| *value <= FIGURE_MAX).map(|value| value as i64)
}

/// A duration as it is stored; an impossible one is cut.
pub fn duration(ms: u64) -> i64 {
    ms.min(FIGURE_MAX) as i64
}

/// A rate as it is stored: infinite or negative is unknown.
pub fn rate(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value >= 0.0 && *value <= FIGURE_MAX as f64)
}

/// What sums are kept apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Series {
    endpoint: String,
    model: String,
    client: String,
    key: String,
    outcome: String,
}

/// The same names where they stand.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Names<'a> {
    endpoint: &'a str,
    model: &'a str,
    client: &'a str,
    key: &'a str,
    outcome: &'a str,
}

impl Names<'_> {
    fn of(row: &Row) -> Names<'_> {
        Names {
            endpoint: &row.endpoint,
            model: row.model.as_deref().unwrap_or(UNKNOWN_MODEL),
            client: row.client.as_deref().unwrap_or_default(),
            key: row.key.as_deref().unwrap_or_default(),
            outcome: row.outcome.as_str(),
        }
    }

    fn to_series(self) -> Series {
        Series {
            endpoint: self.endpoint.to_owned(),
            model: self.model.to_owned(),
            client: self.client.to_owned(),
            key: self.key.to_owned(),
            outcome: self.outcome.to_owned(),
        }
    }
}

impl Series {
    fn names(&self) -> Names<'_> {
        Names {
            endpoint: &self.endpoint,
            model: &self.model,
            client: &self.client,
            key: &self.key,
            outcome: &self.outcome,
        }
    }

    /// When there are already so many series that statistics would grow slow: clients and keys are no longer kept
    /// apart, and with twice as many nor are endpoints and models. The row itself keeps all its names.
    fn folded(self, known: i64, series_max: i64) -> Series {
        let other = || OTHER.to_owned();
        if known < series_max {
            self
        } else if known < 2 * series_max {
            Series { client: other(), key: other(), ..self }
        } else {
            Series { endpoint: other(), model: other(), client: other(), key: other(), ..self }
        }
    }
}

/// Ids of the series met so far.
#[derive(Debug)]
pub struct SeriesIds {
    ids: HashMap<Series, i64>,
    series_max: i64,
}

impl Default for SeriesIds {
    fn default() -> SeriesIds {
        SeriesIds { ids: HashMap::new(), series_max: SERIES_MAX }
    }
}

impl SeriesIds {
    /// After a rolled back transaction: the ids it made do not exist.
    pub fn forget(&mut self) {
        self.ids.clear();
    }

    fn id(&mut self, conn: &Connection, series: &Series) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.get(series) {
            return Ok(*id);
        }
        let id = match find(conn, series)? {
            Some(id) => id,
            None => {
                let known: i64 = conn.query_row("SELECT coalesce(max(id), 0) FROM series", [], |row| row.get(0))?;
                let folded = series.clone().folded(known, self.series_max);
                match find(conn, &folded)? {
                    Some(id) => id,
                    None => insert(conn, &folded)?,
                }
            }
        };
        self.remember(series.clone(), id);
        Ok(id)
    }

    /// The series that a row of the table was counted in, by its endpoint, model, client, key and outcome. None: somebody
    /// else has changed the row.
    pub(super) fn id_of_row(&mut self, conn: &Connection, names: [&str; 5]) -> rusqlite::Result<Option<i64>> {
        let [endpoint, model, client, key, outcome] = names.map(str::to_owned);
        let series = Series { endpoint, model, client, key, outcome };
        if let Some(id) = self.ids.get(&series) {
            return Ok(Some(*id));
        }
        // The same names, else those that it was folded into.
        for known in [0, self.series_max, 2 * self.series_max] {
            if let Some(id) = find(conn, &series.clone().folded(known, self.series_max))? {
                self.remember(series, id);
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn remember(&mut self, series: Series, id: i64) {
        // Names that were folded must not fill the memory either.
        if self.ids.len() as i64 >= 2 * self.series_max {
            self.ids.clear();
        }
        self.ids.insert(series, id);
    }
}

fn find(conn: &Connection, series: &Series) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT id FROM series WHERE endpoint = ?1 AND model = ?2 AND client = ?3 AND key = ?4 AND outcome = ?5",
    )?
    .query_row(params![series.endpoint, series.model, series.client, series.key, series.outcome], |row| row.get(0))
    .optional()
}

fn insert(conn: &Connection, series: &Series) -> rusqlite::Result<i64> {
    conn.prepare_cached("INSERT INTO series (endpoint, model, client, key, outcome) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .insert(params![series.endpoint, series.model, series.client, series.key, series.outcome])
}

/// What rows add to the sums, put together so that each sum is touched once.
#[derive(Debug, Default)]
pub struct Additions {
    additions: Vec<Addition>,
    rows: usize,
    /// Of a row that is counted already.
    corrects: bool,
}

#[derive(Debug)]
struct Addition {
    hour: i64,
    series: Series,
    sums: Sums,
    /// What each row adds to the distributions, for rows that come late.
    samples: Vec<(Sample, i64)>,
}

/// Whether a row joins the sums or leaves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The row is new.
    Add,
    /// The row was wrong and is about to be added again, corrected.
    Subtract,
}

impl Sign {
    fn factor(self) -> i64 {
        match self {
            Sign::Add => 1,
            Sign::Subtract => -1,
        }
    }
}

impl Additions {
    /// Counts one row.
    pub fn count(&mut self, id: i64, row: &Row, sign: Sign) {
        self.corrects |= sign == Sign::Subtract;
        self.add(hour_of_ms(row.start_ms), Names::of(row), &Sums::of(id, row, sign), (Sample::of(row), sign.factor()));
    }

    fn add(&mut self, hour: i64, names: Names, one: &Sums, sample: (Sample, i64)) {
        self.rows += 1;
        // They are few, see `is_full`: looking through them is faster than a map that has to own the names it is asked
        // for.
        match self.additions.iter_mut().find(|known| known.hour == hour && known.series.names() == names) {
            Some(known) => {
                known.sums.add(one, 1);
                known.samples.push(sample);
            }
            None => {
                let (series, sums, samples) = (names.to_series(), one.clone(), vec![sample]);
                self.additions.push(Addition { hour, series, sums, samples });
            }
        }
    }

    /// Whether they are to be written before more is counted.
    pub fn is_full(&self) -> bool {
        self.rows >= UNSUMMED_ROWS_MAX || self.additions.len() >= UNSUMMED_SUMS_MAX
    }

    /// Writes what was counted, inside the caller's transaction.
    pub fn apply(&self, conn: &Connection, ids: &mut SeriesIds) -> rusqlite::Result<()> {
        // Asked every time: another process may have rolled up.
        let rolled_until = rolled_until(conn)?;
        let mut packs = Packs::default();
        for Addition { hour, series, sums, samples } in &self.additions {
            let series = ids.id(conn, series)?;
            sums.upsert(conn, SPAN_HOUR, *hour, series)?;
            if *hour < rolled_until {
                sums.upsert(conn, SPAN_DAY, hour - hour % 24, series)?;
                sums.upsert(conn, SPAN_ALL, 0, series)?;
                packs.add(conn, *hour, |all_sums, all_latencies| {
                    Sums::add_to(all_sums, series, sums);
                    let latencies = all_latencies.entry(series).or_default();
                    samples.iter().for_each(|(sample, sign)| latencies.count(sample, *sign));
                })?;
                super::clean::late(conn, *hour)?;
                changed(conn)?;
            }
        }
        if self.corrects {
            corrected(conn)?;
        }
        packs.write(conn)
    }
}

/// The id up to which every row is in the sums.
pub(super) fn summed_until(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = 'summed_until'")?.query_row([], |row| row.get(0))
}

pub(super) fn set_summed_until(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'summed_until'")?.execute([id])?;
    Ok(())
}

/// Sums up whatever rows the table has beyond `summed_until`, inside the caller's transaction; returns the last id. Takes
/// some microseconds a row.
pub(super) fn catch_up(conn: &Connection, ids: &mut SeriesIds) -> rusqlite::Result<i64> {
    let mut statement = conn.prepare(
        "SELECT id, start_time, endpoint, model, client, key, outcome, duration_ms, input_tokens, output_tokens,
            total_tokens, cached_tokens, reasoning_tokens, time_to_first_token_ms, tokens_per_second
         FROM requests WHERE id > ?1 ORDER BY id",
    )?;
    let before = summed_until(conn)?;
    let mut rows = statement.query([before])?;
    let mut additions = Additions::default();
    while let Some(row) = rows.next()? {
        // What somebody else has written into a row must not keep all others from being counted.
        let text = |column: usize| row.get_ref(column).ok().and_then(|value| value.as_str().ok()).unwrap_or_default();
        let integer = |column: usize| row.get::<_, i64>(column).ok();
        let known = |column: usize| integer(column).map_or(Known::default(), |sum| Known { sum, rows: 1 });
        let id = row.get(0)?;
        let names = Names { endpoint: text(2), model: text(3), client: text(4), key: text(5), outcome: text(6) };
        let sample = Sample {
            duration_ms: integer(7).unwrap_or(0),
            first_token_ms: integer(13),
            tokens_per_second: row.get(14).ok(),
        };
        let sums = Sums {
            requests: 1,
            duration_ms: sample.duration_ms,
            input: known(8),
            output: known(9),
            total: known(10),
            cached: known(11),
            reasoning: known(12),
            first_token_ms: known(13),
            tokens_per_second: sample.tokens_per_second.unwrap_or(0.0),
            tokens_per_second_known: sample.tokens_per_second.map_or(0, |_| 1),
            first_id: id,
            last_id: id,
        };
        additions.add(hour_of_ms(ms_of_text(text(1)).unwrap_or(0)), names, &sums, (sample, 1));
        if additions.is_full() {
            additions.apply(conn, ids)?;
            additions = Additions::default();
        }
    }
    additions.apply(conn, ids)?;
    // Not the last one read: rows removed by hand have ids that are used again.
    let last = conn.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?;
    if last != before {
        set_summed_until(conn, last)?;
    }
    Ok(last)
}

pub(super) fn rolled_until(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = 'rolled_until'")?.query_row([], |row| row.get(0))
}

/// The sums of one series in one span of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Rows.
    pub requests: i64,
    /// Milliseconds.
    pub duration_ms: i64,
    /// Tokens of prompts.
    pub input: Known,
    /// Tokens of answers.
    pub output: Known,
    /// Both.
    pub total: Known,
    /// Prompt tokens that came from a cache.
    pub cached: Known,
    /// Answer tokens spent on reasoning.
    pub reasoning: Known,
    /// Milliseconds from request to first content.
    pub first_token_ms: Known,
    /// Added up, for a mean.
    pub tokens_per_second: f64,
    /// Rows that know their speed.
    pub tokens_per_second_known: i64,
    /// No row of these has a lower id.
    pub first_id: i64,
    /// No row of these has a higher id.
    pub last_id: i64,
}

/// The sum of a figure, and how many rows knew it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The sum.
    pub sum: i64,
    /// The rows.
    pub rows: i64,
}

impl Known {
    fn of(value: Option<u64>, sign: i64) -> Known {
        figure(value).map_or(Known::default(), |value| Known { sum: sign * value, rows: sign })
    }

    fn add(&mut self, other: Known, sign: i64) {
        self.sum += sign * other.sum;
        self.rows += sign * other.rows;
    }
}

impl Sums {
    fn of(id: i64, row: &Row, sign: Sign) -> Sums {
        let sign = sign.factor();
        let speed = rate(row.tokens_per_second);
        Sums {
            requests: sign,
            duration_ms: sign * duration(row.duration_ms),
            input: Known::of(row.input_tokens, sign),
            output: Known::of(row.output_tokens, sign),
            total: Known::of(row.total_tokens, sign),
            cached: Known::of(row.cached_tokens, sign),
            reasoning: Known::of(row.reasoning_tokens, sign),
            first_token_ms: Known::of(row.time_to_first_token_ms, sign),
            tokens_per_second: sign as f64 * speed.unwrap_or(0.0),
            tokens_per_second_known: speed.map_or(0, |_| sign),
            first_id: id,
            last_id: id,
        }
    }

    /// The sums of every series in an hour.
    pub(super) fn of_hour(conn: &Connection, hour: i64) -> rusqlite::Result<Vec<(i64, Sums)>> {
        let mut statement =
            conn.prepare_cached(&format!("SELECT {COLUMNS} FROM sums WHERE span = 2 AND start = ?1"))?;
        statement.query_map([hour], |row| Sums::read(row, 0))?.collect()
    }

    /// A series and its sums, from the columns [`COLUMNS`] of a query.
    fn read(row: &rusqlite::Row, first: usize) -> rusqlite::Result<(i64, Sums)> {
        let known = |column: usize| {
            Ok::<_, rusqlite::Error>(Known { sum: row.get(first + column)?, rows: row.get(first + column + 1)? })
        };
        let sums = Sums {
            requests: row.get(first + 1)?,
            duration_ms: row.get(first + 2)?,
            input: known(3)?,
            output: known(5)?,
            total: known(7)?,
            cached: known(9)?,
            reasoning: known(11)?,
            first_token_ms: known(13)?,
            tokens_per_second: row.get(first + 15)?,
            tokens_per_second_known: row.get(first + 16)?,
            first_id: row.get(first + 17)?,
            last_id: row.get(first + 18)?,
        };
        Ok((row.get(first)?, sums))
    }

    /// Adds others, or takes them away with a sign of -1. Of ids the range only grows.
    pub fn add(&mut self, other: &Sums, sign: i64) {
        self.requests += sign * other.requests;
        self.duration_ms += sign * other.duration_ms;
        for (known, other) in self.known_mut().into_iter().zip(other.known()) {
            known.add(other, sign);
        }
        self.tokens_per_second += sign as f64 * other.tokens_per_second;
        self.tokens_per_second_known += sign * other.tokens_per_second_known;
        self.first_id = self.first_id.min(other.first_id);
        self.last_id = self.last_id.max(other.last_id);
    }

    pub(super) fn add_to(all: &mut BTreeMap<i64, Sums>, series: i64, sums: &Sums) {
        all.entry(series).and_modify(|known| known.add(sums, 1)).or_insert_with(|| sums.clone());
    }

    pub(super) fn known(&self) -> [Known; 6] {
        [self.input, self.output, self.total, self.cached, self.reasoning, self.first_token_ms]
    }

    pub(super) fn known_mut(&mut self) -> [&mut Known; 6] {
        [
            &mut self.input,
            &mut self.output,
            &mut self.total,
            &mut self.cached,
            &mut self.reasoning,
            &mut self.first_token_ms,
        ]
    }

    fn upsert(&self, conn: &Connection, span: i64, start: i64, series: i64) -> rusqlite::Result<()> {
        let mut statement = conn.prepare_cached(concat!(
            "INSERT INTO sums VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ",
            "?18, ?19, ?20, ?21)",
            on_conflict_add!()
        ))?;
        statement.execute(params![
            span,
            start,
            series,
            self.requests,
            self.duration_ms,
            self.input.sum,
            self.input.rows,
            self.output.sum,
            self.output.rows,
            self.total.sum,
            self.total.rows,
            self.cached.sum,
            self.cached.rows,
            self.reasoning.sum,
            self.reasoning.rows,
            self.first_token_ms.sum,
            self.first_token_ms.rows,
            self.tokens_per_second,
            self.tokens_per_second_known,
            self.first_id,
            self.last_id,
        ])?;
        Ok(())
    }
}

/// Adds the oldest hour that is over and not yet rolled up to its day and to all time, and packs it, inside the caller's
/// transaction. Returns whether there was one. An hour is left alone for one hour more, for rows of exchanges that
/// began in it and still run: rows that come later than that cost more than one upsert.
///
/// `read` is what [`read_ahead`] found on another connection.
pub fn roll_up(conn: &Connection, ids: &mut SeriesIds, read: Option<HourRead>, now_ms: i64) -> rusqlite::Result<bool> {
    let Some(hour) = oldest_over(conn, now_ms)? else { return Ok(false) };
    let mut packs = Packs::default();
    roll_up_hour(conn, ids, &mut packs, hour, read)?;
    packs.write(conn)?;
    Ok(true)
}

/// Reads the rows of the hour that is to be rolled up next, while rows are written on other connections. `None`: there
/// is no such hour.
pub fn read_ahead(conn: &Connection, now_ms: i64) -> rusqlite::Result<Option<HourRead>> {
    let transaction = conn.unchecked_transaction()?;
    let hour = oldest_over(conn, now_ms)?;
    let read = hour.map(|hour| HourRead::new(conn, &mut SeriesIds::default(), hour)).transpose()?;
    transaction.finish()?;
    Ok(read)
}

/// The same for all hours that are over: years of them after an upgrade.
pub fn roll_up_all(conn: &Connection, ids: &mut SeriesIds, now_ms: i64) -> rusqlite::Result<()> {
    let mut packs = Packs::default();
    while let Some(hour) = oldest_over(conn, now_ms)? {
        roll_up_hour(conn, ids, &mut packs, hour, None)?;
    }
    packs.write(conn)
}

fn oldest_over(conn: &Connection, now_ms: i64) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT start FROM sums WHERE span = 2 AND start >= ?1 AND start < ?2 ORDER BY start LIMIT 1")?
        .query_row([rolled_until(conn)?, hour_of_ms(now_ms) - 1], |row| row.get::<_, i64>(0))
        .optional()
}

fn roll_up_hour(
    conn: &Connection,
    ids: &mut SeriesIds,
    packs: &mut Packs,
    hour: i64,
    read: Option<HourRead>,
) -> rusqlite::Result<()> {
    let mut add = conn.prepare_cached(concat!(
        "INSERT INTO sums SELECT ?1, ?2, series, requests, duration_ms, input_tokens, input_known, output_tokens, ",
        "output_known, total_tokens, total_known, cached_tokens, cached_known, reasoning_tokens, reasoning_known, ",
        "first_token_ms, first_token_known, tokens_per_second, tokens_per_second_known, first_id, last_id ",
        "FROM sums WHERE span = 2 AND start = ?3",
        on_conflict_add!()
    ))?;
    add.execute([SPAN_DAY, hour - hour % 24, hour])?;
    add.execute([SPAN_ALL, 0, hour])?;
    packs.add_hour(conn, ids, hour, read)?;
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'rolled_until'")?.execute([hour + 1])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::testing::row;

    #[test]
    fn beyond_the_limit_names_are_no_longer_kept_apart_but_every_row_counts() {
        let conn = Connection::open_in_memory().expect("opens");
        crate::record::schema::create(&conn).expect("creates");
        let mut ids = SeriesIds { ids: HashMap::new(), series_max: 5 };
        let mut additions = Additions::default();
        for i in 0..40 {
            let row = Row { model: Some(format!("model-{i}")), client: Some(format!("client-{i}")), ..row() };
            additions.count(i, &row, Sign::Add);
        }
        additions.apply(&conn, &mut ids).expect("applies");
        let counts = |query: &str| conn.query_row(query, [], |row| row.get::<_, i64>(0)).expect("a query");
        // Five whole, five by model, one for all the others.
        assert_eq!(counts("SELECT count(*) FROM series"), 11);
        assert_eq!(counts("SELECT count(*) FROM series WHERE client <> 'other'"), 5);
        assert_eq!(counts("SELECT count(*) FROM series WHERE model = 'other'"), 1);
        assert_eq!(counts("SELECT sum(requests) FROM sums"), 40);
        assert!(ids.ids.len() <= 10);
    }

    #[test]
    fn an_hour_is_rolled_up_once_and_only_when_it_is_over() {
        let conn = Connection::open_in_memory().expect("opens");
        crate::record::schema::create(&conn).expect("creates");
        let mut additions = Additions::default();
        let mut ids = SeriesIds::default();
        additions.count(1, &row(), Sign::Add);
        additions.apply(&conn, &mut ids).expect("applies");
        let over = (hour_of_ms(row().start_ms) + 2) * HOUR_MS;
        assert_eq!(roll_up(&conn, &mut ids, None, row().start_ms), Ok(false));
        assert_eq!(roll_up(&conn, &mut ids, None, over - 1), Ok(false));
        assert_eq!(roll_up(&conn, &mut ids, None, over), Ok(true));
        assert_eq!(roll_up(&conn, &mut ids, None, over), Ok(false));
        let spans = "SELECT count(*), sum(requests) FROM sums WHERE span < 2";
        assert_eq!(conn.query_row(spans, [], |row| Ok((row.get(0)?, row.get(1)?))), Ok((2, 2)));
    }
}
