//! Sums per hour and series, so that statistics never read rows.
//!
//! ```text
//!  rows ──(sum up)──▶ their hour's sums ──(the hour is over: roll up)──▶ its day's sums, the sums of all time
//! ```
//!
//! Rows are summed up many at a time, after the commits that replies wait for: by the keeper about a second later, and
//! before whatever reads sums. `summed_until` in `meta` says up to which id; what came since is counted in memory, and
//! after a kill from the table ([`super::additions`]).
//!
//! An hour that is over is added, once, to its day and to all time by [`super::roll_up`], which the keeper calls, and
//! packed for quick reading (see [`super::pack`]); `rolled_until` in `meta` says how far that went. A row that comes
//! late, for an hour already rolled up, is added to all of these. So the figures of all time are those of `span` 0 and
//! of the few hours since: [`ALL_TIME`].
//!
//! Invariants:
//! - For every series, the sums of all hours equal those of its rows up to `summed_until`, unless rows were removed.
//! - Sums and `summed_until` change in one transaction, so that no row is counted twice, or never.

use rusqlite::{Connection, params};

use super::row::Row;
use crate::limits::FIGURE_MAX;

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
            last_id = max(last_id, excluded.last_id),
            cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
            cache_write_known = cache_write_known + excluded.cache_write_known"
    };
}
pub(super) use on_conflict_add;

/// The columns of `sums` behind its span and start, in their order.
macro_rules! columns {
    () => {
        "series, requests, duration_ms, input_tokens, input_known, output_tokens, output_known, total_tokens,
            total_known, cached_tokens, cached_known, reasoning_tokens, reasoning_known, first_token_ms,
            first_token_known, tokens_per_second, tokens_per_second_known, first_id, last_id,
            cache_write_tokens, cache_write_known"
    };
}
pub(super) use columns;

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

/// Whether a row joins the sums or leaves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// The row is new.
    Add,
    /// The row was wrong and is about to be added again, corrected.
    Subtract,
}

impl Sign {
    pub(super) fn factor(self) -> i64 {
        match self {
            Sign::Add => 1,
            Sign::Subtract => -1,
        }
    }
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
    /// Prompt tokens that were written to a cache.
    pub cache_write: Known,
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
    pub(super) fn of(id: i64, row: &Row, sign: Sign) -> Sums {
        let sign = sign.factor();
        let speed = rate(row.tokens_per_second);
        Sums {
            requests: sign,
            duration_ms: sign * duration(row.duration_ms),
            input: Known::of(row.input_tokens, sign),
            output: Known::of(row.output_tokens, sign),
            total: Known::of(row.total_tokens, sign),
            cached: Known::of(row.cached_tokens, sign),
            cache_write: Known::of(row.cache_write_tokens, sign),
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
            conn.prepare_cached(concat!("SELECT ", columns!(), " FROM sums WHERE span = 2 AND start = ?1"))?;
        statement.query_map([hour], Sums::read)?.collect()
    }

    /// A series and its sums, from the columns `columns` of a query.
    fn read(row: &rusqlite::Row) -> rusqlite::Result<(i64, Sums)> {
        let known =
            |column: usize| Ok::<_, rusqlite::Error>(Known { sum: row.get(column)?, rows: row.get(column + 1)? });
        let sums = Sums {
            requests: row.get(1)?,
            duration_ms: row.get(2)?,
            input: known(3)?,
            output: known(5)?,
            total: known(7)?,
            cached: known(9)?,
            cache_write: known(19)?,
            reasoning: known(11)?,
            first_token_ms: known(13)?,
            tokens_per_second: row.get(15)?,
            tokens_per_second_known: row.get(16)?,
            first_id: row.get(17)?,
            last_id: row.get(18)?,
        };
        Ok((row.get(0)?, sums))
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

    /// Those of every figure, in the order in which packs tell them: what came later stands last.
    pub(super) fn known(&self) -> [Known; 7] {
        [self.input, self.output, self.total, self.cached, self.reasoning, self.first_token_ms, self.cache_write]
    }

    pub(super) fn known_mut(&mut self) -> [&mut Known; 7] {
        [
            &mut self.input,
            &mut self.output,
            &mut self.total,
            &mut self.cached,
            &mut self.reasoning,
            &mut self.first_token_ms,
            &mut self.cache_write,
        ]
    }

    pub(super) fn upsert(&self, conn: &Connection, span: i64, start: i64, series: i64) -> rusqlite::Result<()> {
        let mut statement = conn.prepare_cached(concat!(
            "INSERT INTO sums VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ",
            "?18, ?19, ?20, ?21, ?22, ?23)",
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
            self.cache_write.sum,
            self.cache_write.rows,
        ])?;
        Ok(())
    }
}
