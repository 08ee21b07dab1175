//! Pieces of prompts that no content needs any more, a step at a time.
//!
//! A piece is needed as long as there is content of the block that it was used in last ([`prompts`](crate::record::prompts)),
//! or of one before: where the lowest content with pieces stands tells which may go. `pieced_from` remembers that, so that
//! content without pieces, of which there may be millions, is looked through once.
//!
//! Invariant: what is removed is judged in the transaction that removes it. Content that has come since then has its
//! pieces in a later block.

use rusqlite::{Connection, OptionalExtension};

use super::{LOOK_ROWS, Phase, read_ahead};
use crate::limits::{CLEAN_BYTES_MAX, CLEAN_ROWS_MAX};
use crate::record::meta::{number, set};
use crate::record::prompts::block_of;
use crate::record::recorder::Recorder;
use crate::record::schema::PIECED_FROM;

/// Last piece whose size is in `pieces_bytes`.
const COUNTED: &str = "pieces_counted";
/// What the counted pieces hold.
const BYTES: &str = "pieces_bytes";

/// Pieces that were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedPieces {
    /// Ids up to this one,
    until: i64,
    /// and what they hold.
    pub(super) bytes: i64,
}

impl CountedPieces {
    pub(super) fn of(conn: &Connection) -> rusqlite::Result<CountedPieces> {
        Ok(CountedPieces { until: number(conn, COUNTED)?.unwrap_or(0), bytes: number(conn, BYTES)?.unwrap_or(0) })
    }

    fn set(self, conn: &Connection) -> rusqlite::Result<()> {
        set(conn, COUNTED, self.until)?;
        set(conn, BYTES, self.bytes)
    }

    /// Counts some of those that came since; whether all are counted.
    pub(super) fn count(own: &Connection, recorder: &Recorder) -> rusqlite::Result<bool> {
        let counted = CountedPieces::of(own)?;
        // Reads the pages that the transaction is about to need.
        let found: Option<i64> = own
            .prepare_cached(&format!(
                "SELECT max(id), sum(octets)
                 FROM (SELECT id, octet_length(text) AS octets FROM pieces WHERE id > ?1 ORDER BY id LIMIT {LOOK_ROWS})"
            ))?
            .query_row([counted.until], |row| row.get(0))?;
        let Some(until) = found else { return Ok(true) };
        recorder.clean(|conn| {
            if CountedPieces::of(conn)? != counted {
                return Ok(());
            }
            // All that were counted may have been removed by hand.
            let (octets, any): (i64, bool) = conn
                .prepare_cached(
                    "SELECT coalesce(sum(octet_length(text)), 0), EXISTS (SELECT 1 FROM pieces WHERE id <= ?1)
                     FROM pieces WHERE id > ?1 AND id <= ?2",
                )?
                .query_row([counted.until, until], |row| Ok((row.get(0)?, row.get(1)?)))?;
            CountedPieces { until, bytes: octets + if any { counted.bytes } else { 0 } }.set(conn)
        })?;
        Ok(false)
    }
}

/// One step: removes some pieces, or is done when every one is needed.
pub(super) fn step(own: &Connection, recorder: &Recorder) -> rusqlite::Result<Phase> {
    let from = number(own, PIECED_FROM)?.unwrap_or(0);
    let (looked, last, pieced): (i64, Option<i64>, Option<i64>) = own
        .prepare_cached(&format!(
            "SELECT count(*), max(id), min(iif(is_pieced, id, NULL))
             FROM (SELECT id, pieces IS NOT NULL AS is_pieced FROM content WHERE id >= ?1 ORDER BY id LIMIT {LOOK_ROWS})"
        ))?
        .query_row([from], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if let (LOOK_ROWS, Some(last), None) = (looked, last, pieced) {
        recorder.clean(|conn| match number(conn, PIECED_FROM)?.unwrap_or(0) {
            // Nothing has come with an id that was looked at.
            now if now == from => set(conn, PIECED_FROM, last + 1),
            _ => Ok(()),
        })?;
        return Ok(Phase::Pieces);
    }
    let Some(batch) = PieceBatch::find(own, pieced.map_or(i64::MAX, block_of))? else { return Ok(Phase::Count) };
    read_ahead(own, "SELECT length(CAST(text AS BLOB)) FROM pieces WHERE id = ?1", &batch.ids)?;
    recorder.clean_pieces(|conn| batch.remove(conn))?;
    Ok(Phase::Pieces)
}

/// What one step removes.
struct PieceBatch {
    ids: Vec<i64>,
}

impl PieceBatch {
    /// Of those that were last used before this block; `None`: there are none.
    fn find(own: &Connection, before: i64) -> rusqlite::Result<Option<PieceBatch>> {
        let mut unused = own.prepare_cached(&format!(
            "SELECT id, octet_length(text) FROM pieces WHERE last_block < ?1 ORDER BY last_block LIMIT {CLEAN_ROWS_MAX}"
        ))?;
        let mut found = unused.query([before])?;
        let (mut ids, mut bytes) = (Vec::new(), 0);
        while let Some(row) = found.next()? {
            bytes += row.get::<_, i64>(1)?;
            if bytes > CLEAN_BYTES_MAX && !ids.is_empty() {
                break;
            }
            ids.push(row.get(0)?);
        }
        Ok((!ids.is_empty()).then_some(PieceBatch { ids }))
    }

    /// Removes those that are needed no more, inside the caller's transaction. Returns the block before which they were
    /// used last.
    fn remove(&self, conn: &Connection) -> rusqlite::Result<i64> {
        let from = number(conn, PIECED_FROM)?.unwrap_or(0);
        // At most as many rows are passed over as were looked at, and those that have come since.
        let first: Option<i64> = conn
            .prepare_cached("SELECT id FROM content WHERE id >= ?1 AND pieces IS NOT NULL ORDER BY id LIMIT 1")?
            .query_row([from], |row| row.get(0))
            .optional()?;
        let before = first.map_or(i64::MAX, block_of);
        let counted = CountedPieces::of(conn)?;
        let mut removed = 0;
        let mut remove =
            conn.prepare_cached("DELETE FROM pieces WHERE id = ?1 AND last_block < ?2 RETURNING octet_length(text)")?;
        for id in &self.ids {
            let octets: Option<i64> = remove.query_row([*id, before], |row| row.get(0)).optional()?;
            removed += octets.filter(|_| *id <= counted.until).unwrap_or(0);
        }
        if removed > 0 {
            CountedPieces { bytes: (counted.bytes - removed).max(0), ..counted }.set(conn)?;
        }
        Ok(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::{Content, Row};
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, row};

    #[test]
    fn a_piece_that_is_said_again_before_it_is_removed_stays() {
        let folder = Folder::new();
        let mut store = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
        let own = Connection::open(folder.join("metrics.db")).expect("opens");
        let said = |what: &str| {
            let content = Content { prompt: Some(what.repeat(10_000).into()), ..Content::default() };
            vec![Row { content, ..row() }]
        };
        store.write(&said("a")).and_then(|_| store.write(&said("b"))).expect("writes");
        own.execute_batch("DELETE FROM content").expect("removed by hand");
        let batch = PieceBatch::find(&own, i64::MAX).expect("looks").expect("both");
        assert_eq!(batch.ids, [1, 2]);
        store.write(&said("a")).expect("writes");
        // Of the same block as the other: that one has to wait for it.
        store.transact(|conn, _| batch.remove(conn)).expect("removes");
        let left = "SELECT group_concat(id) FROM pieces";
        assert_eq!(own.query_row(left, [], |row| row.get::<_, String>(0)), Ok("1,2".to_owned()));
        store.write(&vec![row(); 64]).and_then(|_| store.write(&said("a"))).expect("writes");
        own.execute_batch("DELETE FROM content WHERE id < 60").expect("removed by hand");
        store.transact(|conn, _| batch.remove(conn)).expect("removes");
        assert_eq!(own.query_row(left, [], |row| row.get::<_, String>(0)), Ok("1".to_owned()));
    }
}
