//! Packing: rows are the truth; packs hold what those up to an id come to, `packed_until` in `meta`. Whoever asks adds the
//! rows behind it, so that no answer ever waits for packing.
//!
//! ```text
//!  rows behind packed_until ──fold (any connection)──▶ by hour and series ──pack (one transaction)──▶ packs, packed_until
//! ```
//!
//! Invariants:
//! - Packs hold every row up to `packed_until` once, those included that were removed since, and none behind it.
//! - Packs and `packed_until` change in one transaction, which changes nothing where another process has moved the id
//!   since the rows were read, or a row was corrected ([`State`]).

use std::collections::{BTreeMap, HashMap};

use rusqlite::{CachedStatement, Connection, Row, ToSql};

use super::meta::{number, set};
use super::pack::{Measured, Packs, Sample};
use super::series::{Names, Series, SeriesIds};
use super::sums::{Known, Sums};
use super::table::{integer, real, text};
use crate::calendar::{hour_of_ms, ms_of_text};
use crate::limits::{PACKED_AT_ONCE_MAX, PACKED_GROUPS_MAX};

/// Name in `meta` of the id up to which packs hold every row.
pub const PACKED_UNTIL: &str = "packed_until";
/// Name in `meta` of how often rows were corrected, removed, or given ids anew: whoever keeps what he made of packs or
/// rows looks at it first.
pub const ROWS_CHANGED: &str = "rows_changed";

/// What packs hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Every row up to this id.
    pub until: i64,
    /// How often rows were changed.
    pub changes: i64,
}

impl State {
    /// As it is in this transaction.
    pub fn of(conn: &Connection) -> rusqlite::Result<State> {
        let number = |name| number(conn, name).map(Option::unwrap_or_default);
        Ok(State { until: number(PACKED_UNTIL)?, changes: number(ROWS_CHANGED)? })
    }
}

/// What rows come to, by hour and series.
#[derive(Debug, Default)]
pub struct Folded {
    /// Of when they were read.
    state: State,
    /// The last row's id.
    last: i64,
    rows: usize,
    /// In the order in which they were met.
    series: Vec<Series>,
    /// Where each of them stands, by its names, one behind the other.
    places: HashMap<String, usize>,
    measured: BTreeMap<(i64, usize), Measured>,
}

/// What [`Folded::count`] reads of a row.
const COLUMNS: &str = "id, start_time, endpoint, model, client, key, outcome, duration_ms, input_tokens, output_tokens,
    total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, time_to_first_token_ms, tokens_per_second";

impl Folded {
    /// The rows behind `packed_until`, as many as are packed at once. `None`: there are none.
    pub fn behind(conn: &Connection) -> rusqlite::Result<Option<Folded>> {
        let transaction = conn.unchecked_transaction()?;
        let state = State::of(conn)?;
        let mut folded = Folded { state, ..Folded::default() };
        let query = format!("SELECT {COLUMNS} FROM requests WHERE id > ?1 ORDER BY id");
        folded.add(&mut conn.prepare_cached(&query)?, &[&state.until])?;
        transaction.finish()?;
        Ok((folded.rows > 0).then_some(folded))
    }

    /// One row, which may be packed or not.
    pub fn of_row(conn: &Connection, id: i64) -> rusqlite::Result<Folded> {
        let mut folded = Folded::default();
        let query = format!("SELECT {COLUMNS} FROM requests WHERE id = ?1");
        folded.add(&mut conn.prepare_cached(&query)?, &[&id])?;
        Ok(folded)
    }

    fn add(&mut self, statement: &mut CachedStatement, parameters: &[&dyn ToSql]) -> rusqlite::Result<()> {
        let mut rows = statement.query(parameters)?;
        while self.rows < PACKED_AT_ONCE_MAX
            && self.measured.len() < PACKED_GROUPS_MAX
            && let Some(row) = rows.next()?
        {
            self.count(row)?;
        }
        Ok(())
    }

    /// What somebody else has written into a row does not keep the others from being counted.
    fn count(&mut self, row: &Row) -> rusqlite::Result<()> {
        let id = row.get(0)?;
        let known = |column: usize| integer(row, column).map_or(Known::default(), |sum| Known { sum, rows: 1 });
        let sample = Sample {
            duration_ms: integer(row, 7).unwrap_or(0),
            first_token_ms: integer(row, 14),
            tokens_per_second: real(row, 15),
        };
        let sums = Sums {
            requests: 1,
            duration_ms: sample.duration_ms,
            input: known(8),
            output: known(9),
            total: known(10),
            cached: known(11),
            cache_write: known(12),
            reasoning: known(13),
            first_token_ms: known(14),
            tokens_per_second: sample.tokens_per_second.unwrap_or(0.0),
            tokens_per_second_known: i64::from(sample.tokens_per_second.is_some()),
            first_id: id,
            last_id: id,
        };
        let series = self.place(Names {
            endpoint: text(row, 2),
            model: text(row, 3),
            client: text(row, 4),
            key: text(row, 5),
            outcome: text(row, 6),
        });
        let hour = hour_of_ms(ms_of_text(text(row, 1)).unwrap_or(0));
        let measured = Measured::entry(&mut self.measured, (hour, series), &sums);
        measured.sums.add(&sums, 1);
        measured.latencies.count(&sample);
        (self.last, self.rows) = (id, self.rows + 1);
        Ok(())
    }

    fn place(&mut self, names: Names) -> usize {
        let Names { endpoint, model, client, key, outcome } = names;
        let joined = [endpoint, model, client, key, outcome].join("\0");
        *self.places.entry(joined).or_insert_with(|| {
            self.series.push(names.to_series());
            self.series.len() - 1
        })
    }

    /// Adds them to packs, or takes them away with a sign of -1.
    pub(super) fn add_to(
        &self,
        packs: &mut Packs,
        conn: &Connection,
        ids: &mut SeriesIds,
        sign: i64,
    ) -> rusqlite::Result<()> {
        let series = self.series.iter().map(|series| ids.id(conn, series)).collect::<rusqlite::Result<Vec<i64>>>()?;
        for ((hour, at), measured) in &self.measured {
            packs.add(conn, *hour, series[*at], measured, sign)?;
        }
        Ok(())
    }
}

/// Adds what was folded to the packs, inside the caller's transaction. False, and without effect, where it is not true
/// any more: another process was faster, or a row was corrected.
pub fn pack(conn: &Connection, ids: &mut SeriesIds, folded: &Folded) -> rusqlite::Result<bool> {
    if State::of(conn)? != folded.state {
        return Ok(false);
    }
    let mut packs = Packs::default();
    folded.add_to(&mut packs, conn, ids, 1)?;
    packs.write(conn)?;
    set(conn, PACKED_UNTIL, folded.last)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::HOUR_MS;
    use crate::record::pack::read;
    use crate::record::row::Row;
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, Random, random_row, row};

    /// Every pack there is. Of ids that were corrected away the ranges may be wider.
    fn packs(conn: &Connection) -> Vec<(i64, BTreeMap<i64, Measured>)> {
        let mut statement = conn.prepare("SELECT id FROM packed_sums ORDER BY id").expect("a query");
        let ids = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("a query");
        let ids: Vec<i64> = ids;
        ids.into_iter().map(|id| (id, read(conn, id).expect("a pack"))).collect()
    }

    #[test]
    fn packs_are_what_sums_that_are_rolled_up_come_to() {
        let folder = Folder::new();
        let mut random = Random::new(14);
        let open = |name: &str| Store::open(&folder.join(name), DbSync::Normal).expect("opens");
        let (mut sums, mut packed) = (open("sums.db"), open("packed.db"));
        let conn = Connection::open(folder.join("packed.db")).expect("opens");
        let mut ids = SeriesIds::default();
        let mut written: Vec<Row> = Vec::new();
        for turn in 0..60 {
            let rows: Vec<Row> = (0..random.below(40)).map(|_| random_row(&mut random)).collect();
            assert_eq!(sums.write(&rows), packed.write(&rows));
            written.extend(rows);
            if !written.is_empty() {
                let at = random.below(written.len() as u64) as usize;
                let after = Row { content: written[at].content.clone(), ..random_row(&mut random) };
                let (id, before) = (at as i64 + 1, &written[at]);
                sums.correct(id, before, &after).expect("corrects");
                correct(&mut packed, &conn, &mut ids, id, (before, &after));
                written[at] = after;
            }
            if random.below(2) == 0 {
                sums.roll_up(row().start_ms + turn * HOUR_MS).expect("rolls up");
            }
            if random.below(3) == 0 {
                pack_all(&conn, &mut ids);
            }
        }
        while sums.roll_up(row().start_ms + 1000 * HOUR_MS).expect("rolls up") {}
        pack_all(&conn, &mut ids);
        let series = |conn: &Connection| {
            let names =
                "SELECT id, endpoint || ' ' || model || ' ' || client || ' ' || key || ' ' || outcome FROM series";
            let mut statement = conn.prepare(names).expect("a query");
            let names = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
            names.and_then(Iterator::collect::<rusqlite::Result<HashMap<i64, String>>>).expect("a query")
        };
        let other = Connection::open(folder.join("sums.db")).expect("opens");
        let named = |conn: &Connection| {
            let series = series(conn);
            let of_pack = |(id, pack): (i64, BTreeMap<i64, Measured>)| {
                let named: BTreeMap<String, String> = pack
                    .into_iter()
                    .filter(|(_, measured)| measured.sums.requests != 0)
                    .map(|(id, mut measured)| {
                        let speed = (measured.sums.tokens_per_second * 1000.0).round();
                        (measured.sums.first_id, measured.sums.last_id, measured.sums.tokens_per_second) =
                            (0, 0, speed);
                        // Of a largest value that was corrected away the bound of its bucket is left, or a lower one.
                        let text = format!("{measured:?}");
                        let text =
                            text.split("max: ").map(|part| part.split_once([' ', '}']).map_or(part, |(_, rest)| rest));
                        (series[&id].clone(), text.collect())
                    })
                    .collect();
                (id, named)
            };
            packs(conn).into_iter().map(of_pack).filter(|(_, pack)| !pack.is_empty()).collect::<Vec<_>>()
        };
        let (expected, found) = (named(&other), named(&conn));
        assert!(expected.len() > 70);
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found);
        }
        assert_eq!(expected.len(), found.len());
    }

    fn pack_all(conn: &Connection, ids: &mut SeriesIds) {
        while let Some(folded) = Folded::behind(conn).expect("reads") {
            conn.execute_batch("BEGIN IMMEDIATE").expect("begins");
            assert!(pack(conn, ids, &folded).expect("packs"));
            conn.execute_batch("COMMIT").expect("commits");
        }
    }

    fn correct(store: &mut Store, conn: &Connection, ids: &mut SeriesIds, id: i64, (before, after): (&Row, &Row)) {
        let was = Folded::of_row(conn, id).expect("reads");
        // Without packing anything itself: nothing is rolled up there.
        store.correct(id, before, after).expect("corrects");
        if id <= State::of(conn).expect("reads").until {
            let mut packs = Packs::default();
            was.add_to(&mut packs, conn, ids, -1).expect("adds");
            Folded::of_row(conn, id).expect("reads").add_to(&mut packs, conn, ids, 1).expect("adds");
            packs.write(conn).expect("writes");
        }
    }
}
