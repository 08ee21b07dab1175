//! The reading connection: what all questions share.

use std::cell::{Ref, RefCell};
use std::path::Path;
use std::sync::Arc;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::filter::Filter;
use super::kept::KeptAnswers;
use super::kept_latencies::KeptLatencies;
use super::power::Power;
use super::price::Prices;
use super::range::Packed;
use super::tally::KeptTallies;
use crate::calendar::{HOUR_MS, MS_MAX, hour_of_ms, text_of_ms};
use crate::limits::READ_WAIT_MAX;
use crate::packs::sums::Sums;
use crate::packs::{DamagedPack, SPAN_HOUR, pack_id, visit_sums};
use crate::record::packing::State;
use crate::record::series::Series;
use crate::record::table::{FigureColumns, sums_of, text};
use crate::routes::{By, Names};

/// Memory for pages of the reading connection, in KiB: SQLite's default. A year of daily packs is as much.
const CACHE_KB: i64 = 2000;

/// Why a question has no answer.
#[derive(Debug, PartialEq)]
pub enum AskError {
    /// The question itself is wrong; says what would be right.
    Refused(String),
    /// The database cannot be read.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for AskError {
    fn from(e: rusqlite::Error) -> Self {
        AskError::Database(e)
    }
}

/// Answers questions. Cannot write. The questions themselves stand in `totals`, `latency`, `rows` and `search`.
#[derive(Debug)]
pub struct Reader {
    pub(super) conn: Connection,
    prices: RefCell<Option<Arc<Prices>>>,
    pub(super) power: Option<Arc<Power>>,
    series: RefCell<Vec<Option<Series>>>,
    pub(super) kept: RefCell<KeptTallies>,
    pub(super) kept_latencies: RefCell<KeptAnswers<KeptLatencies>>,
}

impl Reader {
    /// Opens a database that [`crate::record::store::Store::open`] has opened before.
    pub fn open(path: &Path) -> rusqlite::Result<Reader> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(READ_WAIT_MAX)?;
        conn.pragma_update(None, "query_only", true)?;
        conn.pragma_update(None, "cache_size", -CACHE_KB)?;
        conn.set_prepared_statement_cache_capacity(32);
        // A prepared statement stays, whatever is bound to it: nobody runs ANALYZE, so its plan can get no better.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(Reader {
            conn,
            prices: RefCell::default(),
            power: None,
            series: RefCell::default(),
            kept: RefCell::default(),
            kept_latencies: RefCell::default(),
        })
    }

    /// From now on answers tell costs.
    pub fn with_prices(self, prices: Option<Arc<Prices>>) -> Reader {
        // What is kept has costs in it.
        Reader { prices: RefCell::new(prices), kept: RefCell::default(), ..self }
    }

    /// From now on answers tell what electricity takes.
    pub fn with_power(self, power: Option<Arc<Power>>) -> Reader {
        Reader { power, ..self }
    }

    /// The next answers tell costs by this one: the list that it was opened with, or [as if](Prices::all_as) all were one
    /// model of that.
    pub fn price_by(&self, prices: Option<Arc<Prices>>) {
        self.prices.replace(prices);
    }

    /// What costs are told by.
    pub(super) fn prices(&self) -> Option<Arc<Prices>> {
        self.prices.borrow().clone()
    }

    /// Whether it holds memory that [`Reader::forget`] gives back.
    pub fn keeps(&self) -> bool {
        !self.kept.borrow().is_empty() || !self.kept_latencies.borrow().is_empty()
    }

    /// Gives back what it keeps for later questions, pages of the database included.
    pub fn forget(&self) {
        self.kept.take();
        self.kept_latencies.take();
        // Pages that cannot be given back stay; nothing is wrong with that.
        let _ = self.conn.release_memory();
    }

    /// Answers from one state of the database, however many queries it takes and whatever is written meanwhile.
    pub(super) fn at_once<T, E: From<rusqlite::Error>>(&self, ask: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let transaction = self.conn.unchecked_transaction()?;
        let answer = ask()?;
        transaction.finish()?;
        Ok(answer)
    }

    /// What is packed.
    pub(super) fn packed(&self) -> rusqlite::Result<Packed> {
        let (first, last) = self.packed_hours(0, HOUR_MAX)?.unwrap_or((0, -1));
        Ok(Packed { state: State::of(&self.conn)?, first, end: last + 1 })
    }

    /// The first and the last packed hour of these, ends included.
    pub(super) fn packed_hours(&self, from: i64, to: i64) -> rusqlite::Result<Option<(i64, i64)>> {
        let mut ends = self.conn.prepare_cached(
            "SELECT (SELECT min(id) FROM packed_sums WHERE id BETWEEN ?1 AND ?2) & 0xFFFFFFFF,
                (SELECT max(id) FROM packed_sums WHERE id BETWEEN ?1 AND ?2) & 0xFFFFFFFF",
        )?;
        let ids = [pack_id(SPAN_HOUR, from), pack_id(SPAN_HOUR, to)];
        ends.query_row(ids, |row| Ok(row.get::<_, Option<i64>>(0)?.zip(row.get(1)?)))
    }

    /// Every series by its id.
    pub(super) fn series(&self) -> rusqlite::Result<Ref<'_, Vec<Option<Series>>>> {
        {
            let mut known = self.series.borrow_mut();
            // Series are never changed or removed.
            let next = known.len() as i64;
            let mut statement = self
                .conn
                .prepare_cached("SELECT id, model, endpoint, client, key, outcome FROM series WHERE id >= ?1")?;
            let mut rows = statement.query([next])?;
            while let Some(row) = rows.next()? {
                let id = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
                let length = known.len().max(id + 1);
                known.resize_with(length, || None);
                known[id] = Some([row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?]);
            }
        }
        Ok(self.series.borrow())
    }

    /// Reads a pack without copying it; none is like an empty one.
    pub(super) fn pack(
        &self,
        query: &str,
        id: i64,
        read: impl FnOnce(&[u8]) -> Result<(), DamagedPack>,
    ) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached(query)?;
        let mut rows = statement.query([id])?;
        match rows.next()? {
            Some(row) => Ok(read(row.get_ref(0)?.as_blob()?)?),
            None => Ok(()),
        }
    }

    /// The lowest and highest id that rows of a pack can have which the filter lets pass.
    pub(super) fn ids_of_pack(&self, filter: &Filter, id: i64) -> rusqlite::Result<Option<(i64, i64)>> {
        let series = self.series()?;
        let mut ids: Option<(i64, i64)> = None;
        self.pack("SELECT pack FROM packed_sums WHERE id = ?1", id, |pack| {
            visit_sums(pack, |at, sums| {
                let known = usize::try_from(at).ok().and_then(|at| series.get(at)?.as_ref());
                if sums.requests > 0 && known.is_some_and(|series| filter.may_match(series)) {
                    let (first, last) = ids.unwrap_or((sums.first_id, sums.last_id));
                    ids = Some((first.min(sums.first_id), last.max(sums.last_id)));
                }
            })
        })?;
        Ok(ids)
    }

    /// The moments that part a range from what is before and behind it. Of an hour of whose rows some were removed nobody
    /// knows any more what was before a moment in it: it counts whole, where it begins.
    pub(super) fn parted_at(&self, range: (Option<i64>, Option<i64>)) -> rusqlite::Result<(Option<i64>, Option<i64>)> {
        let mut row = self.conn.prepare_cached("SELECT 1 FROM requests WHERE id = ?1")?;
        let mut parted = |ms: Option<i64>| -> rusqlite::Result<Option<i64>> {
            let Some(hour) = ms.filter(|ms| ms % HOUR_MS != 0).map(hour_of_ms) else { return Ok(ms) };
            // Clean-up begins with its first one.
            let ids = self.ids_of_pack(&Filter::default(), pack_id(SPAN_HOUR, hour))?;
            let are_all_there = ids.map_or(Ok(true), |(first, _)| row.exists([first]))?;
            Ok(if are_all_there { ms } else { Some((hour + 1) * HOUR_MS) })
        };
        Ok((parted(range.0)?, parted(range.1)?))
    }

    /// Every packed row that started from one moment until before another of the same hour.
    pub(super) fn visit_packed_rows(
        &self,
        packed: Packed,
        (from_ms, to_ms): (i64, i64),
        needs: Names<bool>,
        figures: FigureColumns,
        visit: impl FnMut(&RowRead) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let ids = self.ids_of_pack(&Filter::default(), pack_id(SPAN_HOUR, from_ms / HOUR_MS))?;
        let Some((first, last)) = ids else { return Ok(()) };
        self.visit_rows((first, last.min(packed.state.until)), (Some(from_ms), Some(to_ms)), needs, figures, visit)
    }

    /// Every row of these ids that started in a range of time. Only the names that are needed are read; the others are
    /// empty.
    pub(super) fn visit_rows(
        &self,
        (first_id, last_id): (i64, i64),
        (from_ms, to_ms): (Option<i64>, Option<i64>),
        needs: Names<bool>,
        figures: FigureColumns,
        mut visit: impl FnMut(&RowRead) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let which = "id BETWEEN ?1 AND ?2 AND start_time >= ?3 AND start_time < ?4";
        let query = RowRead::query(needs, figures, which);
        let mut statement = self.conn.prepare_cached(&query)?;
        let (from, to) = bounds(from_ms, to_ms);
        let mut rows = statement.query(params![first_id, last_id, from, to])?;
        while let Some(row) = rows.next()? {
            visit(&RowRead::new(row, needs, figures))?;
        }
        Ok(())
    }
}

/// Hours are counted in as many bits.
const HOUR_MAX: i64 = 0xFFFF_FFFF;

/// What the longest query of rows takes, nearly.
const QUERY_BYTES: usize = 320;

/// A row that is being visited. What somebody else has written into it is as unknown.
pub(super) struct RowRead<'a> {
    row: &'a Row<'a>,
    needs: Names<bool>,
    figures: FigureColumns,
}

impl<'a> RowRead<'a> {
    /// The query whose rows can be read so.
    pub fn query(needs: Names<bool>, figures: FigureColumns, condition: &str) -> String {
        let mut query = String::with_capacity(QUERY_BYTES);
        query.push_str("SELECT start_time");
        for by in By::ALL.into_iter().filter(|by| needs[*by]) {
            query.extend([", ", by.name()]);
        }
        query.extend([", ", figures.0, " FROM requests WHERE ", condition]);
        query
    }

    pub fn new(row: &'a Row<'a>, needs: Names<bool>, figures: FigureColumns) -> RowRead<'a> {
        RowRead { row, needs, figures }
    }

    /// As it is stored: RFC 3339, UTC, with milliseconds.
    pub fn start_time(&self) -> &str {
        text(self.row, 0)
    }

    /// Those that were needed.
    pub fn names(&self) -> Names<&str> {
        let mut column = 0;
        self.needs.map(|needed| {
            column += usize::from(needed);
            if needed { text(self.row, column) } else { "" }
        })
    }

    /// Sums of one.
    pub fn sums(&self) -> Sums {
        sums_of(self.row, 1 + self.needs.iter().filter(|needed| **needed).count(), self.figures)
    }
}

/// The ends of a range as text, to be compared with `start_time`: from, up to but without.
pub(super) fn bounds(from_ms: Option<i64>, to_ms: Option<i64>) -> (String, String) {
    let from = from_ms.map(text_of_ms).unwrap_or_default();
    // `~` sorts behind every time.
    let to = to_ms.filter(|to| *to <= MS_MAX).map_or("~".to_owned(), text_of_ms);
    (from, to)
}
