//! Summing up: what rows add to the sums, counted in memory for many of them, then written at once.

use rusqlite::Connection;

use super::pack::{Latencies, Measured, Packs, Sample, changed, corrected};
use super::roll_up::rolled_until;
use super::row::Row;
use super::series::{Names, Series, SeriesIds};
use super::sums::{Known, SPAN_ALL, SPAN_DAY, SPAN_HOUR, Sign, Sums};
use crate::calendar::{day_of_hour, hour_of_ms, ms_of_text};
use crate::limits::{UNSUMMED_ROWS_MAX, UNSUMMED_SUMS_MAX};

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
                sums.upsert(conn, SPAN_DAY, day_of_hour(*hour), series)?;
                sums.upsert(conn, SPAN_ALL, 0, series)?;
                let latencies = Latencies::default();
                packs.add(conn, *hour, series, &Measured { sums: sums.clone(), latencies }, 1)?;
                for (sample, sign) in samples {
                    let sums = Sums { first_id: sums.first_id, last_id: sums.last_id, ..Sums::default() };
                    let mut one = Measured { sums, latencies: Latencies::default() };
                    one.latencies.count(sample);
                    packs.add(conn, *hour, series, &one, *sign)?;
                }
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

/// Sums up whatever rows the table has beyond `summed_until`, inside the caller's transaction; returns the last id.
/// Takes some microseconds a row.
pub(super) fn catch_up(conn: &Connection, ids: &mut SeriesIds) -> rusqlite::Result<i64> {
    let mut statement = conn.prepare(
        "SELECT id, start_time, endpoint, model, client, key, outcome, duration_ms, input_tokens, output_tokens,
            total_tokens, cached_tokens, reasoning_tokens, time_to_first_token_ms, tokens_per_second, cache_write_tokens
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
            cache_write: known(15),
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
