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

use std::array;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::conversations::{self, FoldedConversation};
use super::meta::{number, set};
use super::schema::CAME_UNTIL;
use super::series::{MetSeries, SeriesIds};
use super::table::{ALL_FIGURES, integer, sums_of, text};
use super::times;
use crate::calendar::{hour_of_ms, ms_of_text};
use crate::limits::{PACKED_AT_ONCE_MAX, PACKED_GROUPS_MAX};
use crate::packs::prefixes::{PrefixPack, PrefixSums, encode_prefixes, visit_prefixes};
use crate::packs::sums::Sums;
use crate::packs::{DamagedPack, Measured, encode_latencies, encode_sums, packs_of_hour, read_sums, visit_latencies};
use crate::prompts::reason::PrefixBreak;

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

/// Counts, inside the caller's transaction, that rows are no longer what they were.
pub(super) fn note_rows_changed(conn: &Connection) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO meta VALUES (?1, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")?
        .execute([ROWS_CHANGED])?;
    Ok(())
}

/// Ids from this one on are given anew, inside the caller's transaction: packs hold none of these rows, and none came
/// with an upgrade.
pub(super) fn reused(conn: &Connection, first: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = ?2 AND value > ?1")?
        .execute(params![first - 1, CAME_UNTIL])?;
    if State::of(conn)?.until < first {
        return Ok(());
    }
    set(conn, PACKED_UNTIL, first - 1)?;
    conversations::forget_rows_from(conn, first)?;
    times::forget_rows_from(conn, first)?;
    note_rows_changed(conn)
}

/// What rows come to, by hour and series.
#[derive(Debug, Default)]
pub struct Folded {
    /// Of when they were read.
    state: State,
    /// The last row's id.
    last: i64,
    rows: usize,
    series: MetSeries,
    measured: BTreeMap<(i64, usize), Measured>,
    /// By hour, series and reason.
    prefixes: BTreeMap<(i64, usize, u8), PrefixSums>,
    /// Those that seem to be cut.
    cuts: BTreeMap<(i64, usize, u8), PrefixSums>,
    conversations: BTreeMap<String, FoldedConversation>,
    /// Hours in which rows began.
    hours: BTreeSet<i64>,
    /// Later ones that some reach into, with their ids.
    reaching: Vec<(i64, i64)>,
}

/// What [`Folded::count`] reads of a row, before its figures.
const COLUMNS: &str = "id, start_time, model, endpoint, client, key, outcome, conversation, conversation_source,
    prefix_break, prompt_bytes, prefix_bytes, prefix_lost_ms, prompt_cut";

impl Folded {
    /// The rows behind `packed_until`, as many as are packed at once, from one state of the database: inside the
    /// caller's transaction. `None`: there are none.
    fn behind(conn: &Connection) -> rusqlite::Result<Option<Folded>> {
        let state = State::of(conn)?;
        let folded = Folded::read(conn, "id > ?1 ORDER BY id", [state.until], Folded::is_full)?;
        Ok((folded.rows > 0).then_some(Folded { state, ..folded }))
    }

    /// All rows of a condition, packed or not.
    pub(super) fn of_rows(conn: &Connection, condition: &str, values: impl Params) -> rusqlite::Result<Folded> {
        Folded::read(conn, condition, values, |_| false)
    }

    fn read(
        conn: &Connection,
        which: &str,
        values: impl Params,
        enough: fn(&Folded) -> bool,
    ) -> rusqlite::Result<Folded> {
        let mut folded = Folded::default();
        let query = format!("SELECT {COLUMNS}, {} FROM requests WHERE {which}", ALL_FIGURES.0);
        let mut statement = conn.prepare_cached(&query)?;
        let mut rows = statement.query(values)?;
        while !enough(&folded)
            && let Some(row) = rows.next()?
        {
            folded.count(row)?;
        }
        Ok(folded)
    }

    /// Whether there may be more than are packed at once.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= PACKED_AT_ONCE_MAX
            || self.reaching.len() >= PACKED_AT_ONCE_MAX
            || self.measured.len() + self.conversations.len() >= PACKED_GROUPS_MAX
    }

    /// What somebody else has written into a row does not keep the others from being counted.
    fn count(&mut self, row: &Row) -> rusqlite::Result<()> {
        let id = row.get(0)?;
        let sums = Sums { first_id: id, last_id: id, ..sums_of(row, 14, ALL_FIGURES) };
        let series = self.series.place(array::from_fn(|at| text(row, 2 + at)));
        let start_ms = ms_of_text(text(row, 1)).unwrap_or(0);
        let hour = hour_of_ms(start_ms);
        self.hours.insert(hour);
        self.reaching.extend(times::hours_reached(start_ms, sums.duration_ms).map(|hour| (hour, id)));
        Measured::entry(&mut self.measured, (hour, series), &sums).count(&sums);
        if let Some(reason) = PrefixBreak::named(text(row, 9)) {
            let figure = |column| integer(row, column).unwrap_or(0);
            let of_row =
                PrefixSums { requests: 1, prompt_bytes: figure(10), shared_bytes: figure(11), lost_ms: figure(12) };
            self.prefixes.entry((hour, series, reason as u8)).or_default().add(&of_row, 1);
        }
        if integer(row, 13) == Some(1) {
            self.cuts.entry((hour, series, 0)).or_default().requests += 1;
        }
        let name = text(row, 7);
        if !name.is_empty() {
            let folded = match self.conversations.get_mut(name) {
                Some(folded) => folded,
                None => {
                    let source = text(row, 8).to_owned();
                    let begun = FoldedConversation { source, ..FoldedConversation::default() };
                    self.conversations.entry(name.to_owned()).or_insert(begun)
                }
            };
            folded.ids.push(id);
            Measured::entry(&mut folded.measured, series, &sums).sums.add(&sums, 1);
        }
        (self.last, self.rows) = (id, self.rows + 1);
        Ok(())
    }

    /// Hour, series, and what they come to. Series that are new are made, inside the caller's transaction.
    pub(super) fn by_series(
        &self,
        conn: &Connection,
        ids: &mut SeriesIds,
    ) -> rusqlite::Result<impl Iterator<Item = (i64, i64, &Measured)>> {
        let series = self.series.ids(conn, ids)?;
        Ok(self.measured.iter().map(move |((hour, at), measured)| (*hour, series[*at], measured)))
    }

    /// Adds them to packs and conversations, or takes them away with a sign of -1.
    fn add_to_packs(&self, conn: &Connection, ids: &mut SeriesIds, sign: i64) -> rusqlite::Result<()> {
        add_to_packs(conn, self.by_series(conn, ids)?, sign)?;
        let series = self.series.ids(conn, ids)?;
        add_prefixes(conn, "packed_prefixes", &self.prefixes, &series, sign)?;
        add_prefixes(conn, "packed_cuts", &self.cuts, &series, sign)?;
        times::open_hours(conn, &self.hours, &self.reaching, sign)?;
        conversations::add(conn, &self.conversations, &series, sign)
    }
}

/// Adds what the prompts of rows come to, by hour, the place of their series and reason, to packs of one table.
fn add_prefixes(
    conn: &Connection,
    table: &str,
    prefixes: &BTreeMap<(i64, usize, u8), PrefixSums>,
    series: &[i64],
    sign: i64,
) -> rusqlite::Result<()> {
    let mut added: BTreeMap<i64, PrefixPack> = BTreeMap::new();
    for ((hour, at, reason), sums) in prefixes {
        for id in packs_of_hour(*hour) {
            added.entry(id).or_default().entry((series[*at], *reason)).or_default().add(sums, sign);
        }
    }
    let read = format!("SELECT pack FROM {table} WHERE id = ?1");
    let mut write = conn.prepare_cached(&format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)"))?;
    for (id, mut pack) in added {
        let stored = read_blob(conn, &read, id)?;
        visit_prefixes(&stored, |series, reason, sums| pack.entry((series, reason)).or_default().add(sums, 1))?;
        write.execute(params![id, encode_prefixes(&pack)])?;
    }
    Ok(())
}

/// Reads the rows behind `packed_until`, on any connection.
pub(super) fn fold(conn: &Connection) -> rusqlite::Result<Option<Folded>> {
    let transaction = conn.unchecked_transaction()?;
    let folded = Folded::behind(conn)?;
    transaction.finish()?;
    Ok(folded)
}

/// Adds what was folded to the packs, inside the caller's transaction. False, and without effect, where it is not true
/// any more: another process was faster, or a row was changed.
pub(super) fn pack(conn: &Connection, ids: &mut SeriesIds, folded: &Folded) -> rusqlite::Result<bool> {
    if State::of(conn)? != folded.state {
        return Ok(false);
    }
    folded.add_to_packs(conn, ids, 1)?;
    set(conn, PACKED_UNTIL, folded.last)?;
    Ok(true)
}

/// Packs every row there is, inside the caller's transaction: years of them after an upgrade.
pub(super) fn pack_all(conn: &Connection, ids: &mut SeriesIds) -> rusqlite::Result<()> {
    while let Some(folded) = Folded::behind(conn)? {
        pack(conn, ids, &folded)?;
    }
    Ok(())
}

/// Has a row changed, inside the caller's transaction, and the packs with it where they hold it.
pub(super) fn change(
    conn: &Connection,
    ids: &mut SeriesIds,
    id: i64,
    change: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    if id <= State::of(conn)?.until {
        Folded::of_rows(conn, "id = ?1", [id])?.add_to_packs(conn, ids, -1)?;
        change()?;
        Folded::of_rows(conn, "id = ?1", [id])?.add_to_packs(conn, ids, 1)?;
    } else {
        change()?;
    }
    note_rows_changed(conn)
}

/// Adds what rows come to, by hour and series, to the four packs of each hour, or takes it away with a sign of -1. One
/// pack after the other: one of ten thousand series takes eight megabytes while it is open.
pub(super) fn add_to_packs<'m>(
    conn: &Connection,
    rows: impl Iterator<Item = (i64, i64, &'m Measured)>,
    sign: i64,
) -> rusqlite::Result<()> {
    let mut added: BTreeMap<i64, Vec<(i64, &Measured)>> = BTreeMap::new();
    for (hour, series, measured) in rows {
        for id in packs_of_hour(hour) {
            added.entry(id).or_default().push((series, measured));
        }
    }
    let mut write_sums = conn.prepare_cached("INSERT OR REPLACE INTO packed_sums VALUES (?1, ?2)")?;
    let mut write_latencies = conn.prepare_cached("INSERT OR REPLACE INTO packed_latencies VALUES (?1, ?2)")?;
    for (id, added) in added {
        let mut pack = read_pack(conn, id)?;
        for (series, measured) in added {
            Measured::entry(&mut pack, series, &measured.sums).add(measured, sign);
        }
        write_sums.execute(params![id, encode_sums(&pack)])?;
        write_latencies.execute(params![id, encode_latencies(&pack)])?;
    }
    Ok(())
}

/// A pack as it is stored; none is an empty one.
pub(super) fn read_pack(conn: &Connection, id: i64) -> rusqlite::Result<BTreeMap<i64, Measured>> {
    let mut pack = read_sums(&read_blob(conn, "SELECT pack FROM packed_sums WHERE id = ?1", id)?)?;
    let latencies = read_blob(conn, "SELECT pack FROM packed_latencies WHERE id = ?1", id)?;
    visit_latencies(&latencies, |series, packed| packed.add_to(&mut pack.entry(series).or_default().latencies))?;
    Ok(pack)
}

/// The bytes of a pack; none where there is none.
fn read_blob(conn: &Connection, query: &str, id: i64) -> rusqlite::Result<Vec<u8>> {
    let blob = conn.prepare_cached(query)?.query_row([id], |row| row.get(0)).optional()?;
    Ok(blob.unwrap_or_default())
}

impl From<DamagedPack> for rusqlite::Error {
    fn from(_: DamagedPack) -> rusqlite::Error {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, "a damaged pack".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packs::{SPAN_ALL, SPAN_HOUR, pack_id};
    use crate::record::row::Row as Recorded;
    use crate::record::schema;
    use crate::record::table::{Entry, Inserts};
    use crate::testing::{Random, random_row, row};

    fn database() -> Connection {
        let conn = Connection::open_in_memory().expect("opens");
        schema::create(&conn).expect("creates");
        conn
    }

    fn insert(conn: &Connection, rows: &[Recorded]) {
        let mut inserts = Inserts::prepare(conn).expect("prepares");
        for row in rows {
            inserts.insert(&Entry::new(row, ""), None).expect("inserts");
        }
    }

    fn requests(conn: &Connection, id: i64) -> i64 {
        read_pack(conn, id).expect("a pack").values().map(|measured| measured.sums.requests).sum()
    }

    #[test]
    fn rows_are_packed_in_parts_where_they_belong_to_many_hours() {
        let conn = database();
        let hours = PACKED_GROUPS_MAX as i64 + 100;
        let rows: Vec<Recorded> =
            (0..hours).map(|hour| Recorded { start_ms: row().start_ms + hour * 3_600_000, ..row() }).collect();
        insert(&conn, &rows);
        let folded = fold(&conn).expect("reads").expect("there are rows");
        assert!(folded.is_full() && folded.last == PACKED_GROUPS_MAX as i64);
        pack_all(&conn, &mut SeriesIds::default()).expect("packs");
        assert_eq!(State::of(&conn), Ok(State { until: hours, changes: 0 }));
        assert_eq!(requests(&conn, pack_id(SPAN_ALL, 0)), hours);
        assert_eq!(fold(&conn).map(|folded| folded.is_none()), Ok(true));
    }

    #[test]
    fn what_cannot_be_in_a_column_is_unknown_and_keeps_nothing_from_being_packed() {
        let conn = database();
        insert(&conn, &[row(), row()]);
        let odd =
            "UPDATE requests SET start_time = 'soon', endpoint = x'ff', duration_ms = 'long', input_tokens = 'many',
            tokens_per_second = x'00', outcome = 7 WHERE id = 1";
        conn.execute_batch(odd).expect("written");
        pack_all(&conn, &mut SeriesIds::default()).expect("packs");
        assert_eq!((requests(&conn, pack_id(SPAN_ALL, 0)), requests(&conn, pack_id(SPAN_HOUR, 0))), (2, 1));
        let all = read_pack(&conn, pack_id(SPAN_ALL, 0)).expect("a pack");
        assert_eq!(all.values().map(|measured| measured.sums.known[0].sum).sum::<i64>(), 85);
    }

    #[test]
    fn what_was_folded_before_a_row_was_changed_is_not_packed() {
        let conn = database();
        insert(&conn, &[row(), row()]);
        let mut ids = SeriesIds::default();
        let folded = fold(&conn).expect("reads").expect("there are rows");
        change(&conn, &mut ids, 1, || Ok(())).expect("changes");
        assert_eq!(pack(&conn, &mut ids, &folded), Ok(false));
        assert_eq!(State::of(&conn), Ok(State { until: 0, changes: 1 }));
        let folded = fold(&conn).expect("reads").expect("there are rows");
        assert_eq!(pack(&conn, &mut ids, &folded), Ok(true));
        assert_eq!(State::of(&conn), Ok(State { until: 2, changes: 1 }));
    }

    #[test]
    fn a_row_that_is_changed_leaves_the_packs_that_held_it() {
        let conn = database();
        let mut random = Random::new(5);
        let rows: Vec<Recorded> = (0..40).map(|_| random_row(&mut random)).collect();
        insert(&conn, &rows);
        let mut ids = SeriesIds::default();
        pack_all(&conn, &mut ids).expect("packs");
        for (id, row) in (1..).zip(&rows) {
            let after = random_row(&mut random);
            change(&conn, &mut ids, id, || crate::record::table::overwrite(&conn, id, row, &after)).expect("changes");
        }
        let changed = State { until: 40, changes: 40 };
        assert_eq!(State::of(&conn), Ok(changed));
        // As if they had been packed like that, by the same series.
        let fresh = database();
        let mut all =
            conn.prepare("SELECT model, endpoint, client, key, outcome FROM series ORDER BY id").expect("a query");
        let mut all = all.query([]).expect("a query");
        while let Some(row) = all.next().expect("a query") {
            let names = array::from_fn(|column| text(row, column).to_owned());
            SeriesIds::default().id(&fresh, &names).expect("an id");
        }
        let folded = Folded::of_rows(&conn, "id > ?1", [0]).expect("reads");
        folded.add_to_packs(&fresh, &mut SeriesIds::default(), 1).expect("adds");
        for (id, expected) in
            folded.measured.keys().flat_map(|(hour, _)| packs_of_hour(*hour)).map(|id| (id, read_pack(&fresh, id)))
        {
            let counted = |pack: BTreeMap<i64, Measured>| {
                let counted = pack.into_iter().filter(|(_, measured)| measured.sums.requests != 0);
                let figures = counted.map(|(series, Measured { sums, latencies })| {
                    let Sums { requests, duration_ms, known, .. } = sums;
                    let totals =
                        [latencies.duration_ms.total(), latencies.first_token_ms.total(), latencies.speed.total()];
                    (series, requests, duration_ms, known, totals)
                });
                figures.collect::<Vec<_>>()
            };
            assert_eq!(counted(read_pack(&conn, id).expect("a pack")), counted(expected.expect("a pack")));
        }
    }
}
