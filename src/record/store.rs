//! The store: rows and their content in one transaction, packs in another. Owns the one connection that writes rows.
//!
//! Does not batch or retry, nor say when to pack; the recorder and the keeper do. A lock it waits for as long as it is
//! told to; the log it moves only when it closes the database or opens it anew.
//!
//! What a commit touches: the last page of `requests` and that of `content`; 4 pwrite and 6 fcntl. A row alone takes
//! 36,000 instructions and 15 us (median; mean 17). In a batch of 16 it is 20,700 and 3.2 us, half of that by looking
//! statements up once for the batch. 2 cores, ext4, WAL, synchronous=NORMAL, 100 bytes of content, nobody else at work.
//!
//! The size of a page was chosen when each commit also wrote what its rows came to: 300 bytes of prompt and output
//! each, the log checkpointed from another connection, median per row.
//!
//! | page size | alone | batch of 16 | alone, 8 KB each | batch, 8 KB each |
//! |---|---|---|---|---|
//! | 1024 | 33 us | 13 us | 66 us | 50 us |
//! | 2048 | 30 us | 10 us | 56 us | 34 us |
//! | 4096 | 30 us | 10 us | 53 us | 26 us |
//! | 8192 | 35 us | 11 us | 59 us | 24 us |
//!
//! A memory map, a larger cache, and doing without auto_vacuum changed nothing beyond the noise (1 us).
//! locking_mode=EXCLUSIVE would lock out the statistics and sqlite3.

use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::connections::Connections;
use super::database_file::DatabaseFile;
use super::hours::{self, FoldedHour};
use super::lineage::Lineages;
use super::lock::{DatabaseLock, Holder};
use super::open;
pub use super::open::{DbSync, OpenError};
use super::packing::{self, Folded};
use super::prompts::{PieceKey, StoredPieces};
use super::row::Row;
use super::schema;
use super::series::SeriesIds;
use super::table::{Entry, Inserts, overwrite};
use crate::calendar::{now_ms, text_of_ms};
use crate::limits::COMMIT_WAIT_MAX;
use crate::packs::{SPAN_ALL, pack_id, visit_sums};

/// The one writing connection.
#[derive(Debug)]
pub struct Store {
    pub(super) conn: Connection,
    pub(super) series: SeriesIds,
    pub(super) pieces: StoredPieces,
    pub(super) lineages: Lineages,
    /// Of what lineages are told by, made of the key.
    pub(super) hashes: Arc<PieceKey>,
    /// Of the last row that was written.
    pub(super) last_id: Option<i64>,
    pub(super) files: DatabaseFile,
    /// Bytes of the log when its growth was asked for.
    pub(super) log_bytes_told: u64,
    pub(super) sync: DbSync,
    /// How long a transaction waits for another process's lock.
    pub(super) lock_wait: Duration,
    pub(super) trouble: Option<Trouble>,
    pub(super) lock: Option<DatabaseLock>,
    /// Other connections of this process.
    pub(super) connections: Arc<Connections>,
    /// The secret that the rows to come have their credentials fingerprinted with.
    pub(super) key: Option<[u8; 32]>,
}

/// What the last attempt has met that the database may have to be opened anew for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The file: somebody may have repaired it, and the connection remembers bad pages.
    Damaged,
    /// A lock, as every attempt since then.
    Locked(Instant),
    /// Locking itself failed, which no other process explains.
    LockingFailed,
    /// There is no connection; the next row opens one.
    Closed,
}

impl Store {
    /// As [`Store::open`], for who is to be the only one that writes it, or shares it knowingly. Whoever opens it
    /// without a lock is expected to know what else does.
    pub fn open_locked(path: &Path, sync: DbSync, holder: Holder) -> Result<Store, OpenError> {
        let lock = DatabaseLock::take(path, holder)?;
        Ok(Store { lock: Some(lock), ..Store::open(path, sync)? })
    }

    /// Opens the database or creates it, missing folders included; a new file is readable by its owner alone. A
    /// database of the earlier program is upgraded in place. One that is refused is left as it is.
    pub fn open(path: &Path, sync: DbSync) -> Result<Store, OpenError> {
        let log_bytes = Arc::default();
        let conn = open::open(path, sync, &log_bytes)?;
        let mut store = Store {
            conn,
            series: SeriesIds::default(),
            pieces: StoredPieces::default(),
            lineages: Lineages::default(),
            hashes: Arc::new(PieceKey::new(&[])),
            last_id: None,
            files: DatabaseFile::of(path, log_bytes),
            log_bytes_told: 0,
            sync,
            // As `open` has set it.
            lock_wait: COMMIT_WAIT_MAX,
            trouble: None,
            lock: None,
            connections: Arc::default(),
            key: None,
        };
        store.key = store.fingerprint_key().ok();
        store.hashes = Arc::new(PieceKey::new(&store.key.unwrap_or_default()));
        Ok(store)
    }

    /// Other connections of this process, which are closed with this one.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        // In its place stands one to nothing.
        if let Ok(nothing) = Connection::open_in_memory() {
            self.conn = nothing;
            self.trouble = Some(Trouble::Closed);
        }
    }

    /// How long a transaction waits for another process's lock.
    pub fn set_lock_wait(&mut self, at_most: Duration) {
        if self.lock_wait == at_most {
            return;
        }
        self.lock_wait = at_most;
        // It can fail only for a handle that is no connection.
        let _ = self.conn.busy_timeout(at_most);
    }

    /// Writes all rows in one transaction and returns their ids in order. On an error nothing is written.
    pub fn write(&mut self, rows: &[Row]) -> rusqlite::Result<Vec<i64>> {
        self.write_and(rows, |_| Ok(()))
    }

    /// The same, and something else in the same transaction.
    pub(super) fn write_and(
        &mut self,
        rows: &[Row],
        also: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<Vec<i64>> {
        let created_at = text_of_ms(now_ms());
        let last_id = self.last_id;
        // What it knows of the database is true only of what is committed: where that fails, it is forgotten.
        let (mut pieces, mut lineages) = (mem::take(&mut self.pieces), mem::take(&mut self.lineages));
        let hashes = self.hashes.clone();
        let ids = self.transact(|conn, _| {
            let mut inserts = Inserts::prepare(conn)?;
            let ids = rows.iter().map(|row| {
                let traced = lineages.trace(conn, row, &*hashes)?;
                let (lineage, begins) = (traced.lineage.clone(), traced.begins);
                let entry = Entry { lineage, begins, ..Entry::new(row, &created_at) };
                let id = inserts.insert(&entry, Some(&mut pieces))?;
                lineages.note(id, row, traced);
                Ok(id)
            });
            let ids = ids.collect::<rusqlite::Result<Vec<i64>>>()?;
            if let Some(first) = ids.first().filter(|first| last_id.is_none_or(|last| **first != last + 1)) {
                // Somebody else has written rows, or has removed the newest: then their ids are used again.
                packing::reused(conn, *first)?;
                schema::pieced_again(conn, *first)?;
            }
            also(conn)?;
            Ok(ids)
        })?;
        self.last_id = ids.last().copied().or(self.last_id);
        (self.pieces, self.lineages) = (pieces, lineages);
        Ok(ids)
    }

    /// Packs what was folded; false: that is not true any more. Does not wait for a database that is locked: an error then, as any
    /// other, leaves everything for the next time.
    pub(super) fn pack(&mut self, folded: &Folded) -> rusqlite::Result<bool> {
        self.transact_beside(|conn, series| packing::pack(conn, series, folded))
    }

    /// A transaction that nobody waits for.
    fn transact_beside<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut SeriesIds) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let (lock_wait, trouble) = (self.lock_wait, self.trouble);
        self.set_lock_wait(Duration::ZERO);
        let done = self.transact(work);
        self.set_lock_wait(lock_wait);
        if done.is_err() {
            // Whether rows can be written, rows find out.
            self.trouble = trouble;
        }
        done
    }

    /// Makes the packs of an hour that was read, and closes it; false: its rows are others now. Errors as with [`Store::pack`].
    pub(super) fn close_hour(&mut self, folded: &FoldedHour) -> rusqlite::Result<bool> {
        self.transact_beside(|conn, series| hours::close(conn, series, folded))
    }

    /// Closes every hour that is over at `now_ms`.
    pub fn close_hours(&mut self, now_ms: i64) -> rusqlite::Result<()> {
        while let Some(folded) = hours::fold(&self.conn, now_ms)? {
            self.close_hour(&folded)?;
        }
        Ok(())
    }

    /// Packs every row there is in one transaction.
    pub fn pack_all(&mut self) -> rusqlite::Result<()> {
        self.transact(packing::pack_all)
    }

    /// Replaces a row whose figures changed after it was written: `before` as it was written, `after` as it should
    /// be. A row that clean-up has removed meanwhile, or that went with a deleted file, is
    /// [`rusqlite::Error::QueryReturnedNoRows`], and nothing changes.
    /// What was said stays as it was written: clean-up has counted its size.
    pub fn correct(&mut self, id: i64, before: &Row, after: &Row) -> rusqlite::Result<()> {
        self.transact(|conn, series| packing::change(conn, series, id, || overwrite(conn, id, before, after)))
    }

    /// How many requests were ever recorded; from the pack of all time, and the rows that are in none yet.
    pub fn row_count(&self) -> rusqlite::Result<u64> {
        let query = "SELECT coalesce((SELECT pack FROM packed_sums WHERE id = ?1), x''), (SELECT count(*) FROM requests
            WHERE id > (SELECT value FROM meta WHERE name = 'packed_until'))";
        let mut requests = 0;
        self.conn.query_row(query, [pack_id(SPAN_ALL, 0)], |row| {
            requests = row.get(1)?;
            Ok(visit_sums(row.get_ref(0)?.as_blob()?, |_, sums| requests += sums.requests)?)
        })?;
        Ok(i64::unsigned_abs(requests))
    }

    /// The highest id of a row; 0 where there is none.
    pub(super) fn newest_id(&self) -> rusqlite::Result<i64> {
        self.conn.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))
    }

    /// The secret that credentials are fingerprinted with, made once when the database was created.
    pub fn fingerprint_key(&mut self) -> rusqlite::Result<[u8; 32]> {
        self.conn.query_row("SELECT value FROM meta WHERE name = 'fingerprint_key'", [], |row| row.get(0))
    }

    /// By how much the log has grown since this was asked last. One that began anew has grown by what it has.
    pub(super) fn take_log_growth(&mut self) -> u64 {
        let now = self.files.log_bytes.load(Ordering::Relaxed);
        let before = mem::replace(&mut self.log_bytes_told, now);
        now.checked_sub(before).unwrap_or(now)
    }

    /// Does the work in one transaction. On an error nothing is changed.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut SeriesIds) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if !self.is_held() {
            return Err(gone("the database file was deleted, moved or replaced"));
        }
        let conn = &self.conn;
        // Only a panic in the middle of a transaction leaves one open.
        if !conn.is_autocommit() {
            self.series.forget();
            conn.execute_batch("ROLLBACK")?;
        }
        let begun = conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([]));
        let done = begun.and_then(|_| work(conn, &mut self.series)).and_then(|done| {
            conn.prepare_cached("COMMIT")?.execute([])?;
            Ok(done)
        });
        self.trouble = match &done {
            // A connection that remembers bad pages does so, whatever goes well.
            Ok(_) => self.trouble.filter(|trouble| *trouble == Trouble::Damaged),
            Err(e) => trouble_of(e, self.trouble),
        };
        if done.is_err() {
            self.series.forget();
            // Some errors (disk full, I/O) roll back by themselves. Should this fail, the next transaction begins
            // with it.
            if !conn.is_autocommit() {
                let _ = conn.execute_batch("ROLLBACK");
            }
        }
        done
    }
}

/// The error of a database that cannot be written because it is not where it was.
pub(super) fn gone(words: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY_DBMOVED);
    rusqlite::Error::SqliteFailure(code, Some(words.to_owned()))
}

/// Whether an error is one of [`gone`].
pub(super) fn is_gone(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_READONLY_DBMOVED)
}

/// What an error tells of, after what the attempt before has met.
fn trouble_of(error: &rusqlite::Error, before: Option<Trouble>) -> Option<Trouble> {
    match (error.sqlite_error_code(), before) {
        _ if is_failed_locking(error) => Some(Trouble::LockingFailed),
        (Some(ErrorCode::DatabaseBusy), Some(Trouble::Locked(_))) => before,
        (Some(ErrorCode::DatabaseBusy), _) => Some(Trouble::Locked(Instant::now())),
        (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), _) => Some(Trouble::Damaged),
        (Some(_) | None, _) => None,
    }
}

/// Whether the system refused to lock or unlock, or what it says of locks cannot be.
pub(super) fn is_failed_locking(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(
            ffi::SQLITE_PROTOCOL
                | ffi::SQLITE_IOERR_LOCK
                | ffi::SQLITE_IOERR_UNLOCK
                | ffi::SQLITE_IOERR_RDLOCK
                | ffi::SQLITE_IOERR_CHECKRESERVEDLOCK
                | ffi::SQLITE_IOERR_SHMLOCK
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::{Content, Outcome};
    use crate::testing::{Folder, row};

    fn store() -> (Store, Folder) {
        let folder = Folder::new();
        (Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens"), folder)
    }

    fn rows_in(store: &Store, table: &str) -> i64 {
        store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a query")
    }

    #[test]
    fn the_log_grows_by_what_its_file_does_also_where_it_begins_anew() {
        let (mut store, folder) = store();
        let length = || std::fs::metadata(folder.join("metrics.db-wal")).expect("a log").len();
        store.take_log_growth();
        let said = |times: usize| {
            let content = Content { prompt: Some("so much ".repeat(times).into()), ..Content::default() };
            Row { content, ..row() }
        };
        let before = length();
        store.write(&[said(20_000)]).expect("writes");
        assert_eq!(store.take_log_growth(), length() - before);
        let before = length();
        store.write(&[said(20_000)]).and_then(|_| store.write(&[said(2)])).expect("what was said is there");
        let grown = store.take_log_growth();
        assert_eq!(grown, length() - before);
        assert!(grown < 100_000, "{grown}");
        assert_eq!(store.take_log_growth(), 0);
        crate::record::wal::empty(&store.conn).expect("moved");
        store.write(&[said(2)]).expect("writes");
        assert_eq!(store.take_log_growth(), length(), "it began anew");
    }

    #[test]
    fn a_batch_is_written_whole_or_not_at_all() {
        for table in ["requests", "content"] {
            let (mut store, _folder) = store();
            store.write(&[row()]).expect("writes");
            let refuse = format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN (SELECT count(*) FROM requests) > 1
                 BEGIN SELECT RAISE(ABORT, 'no more'); END"
            );
            store.conn.execute_batch(&refuse).expect("made");
            let other = || Row { model: Some("another".to_owned()), ..row() };
            store.write(&[other(), other(), other()]).expect_err(table);
            for table in ["requests", "content"] {
                assert_eq!(rows_in(&store, table), 1, "{table}");
            }
            store.conn.execute_batch("DROP TRIGGER refuse").expect("dropped");
            assert_eq!(store.write(&[other(), other()]), Ok(vec![2, 3]));
            check_counted(&mut store, 3);
        }
    }

    /// Requests in packs.
    fn packed(store: &Store) -> i64 {
        let pack = packing::read_pack(&store.conn, pack_id(SPAN_ALL, 0)).expect("a pack");
        pack.values().map(|measured| measured.sums.requests).sum()
    }

    /// Packs, twice: so many rows are counted, each once, before and after.
    #[track_caller]
    fn check_counted(store: &mut Store, rows: i64) {
        for _ in 0..2 {
            assert_eq!(store.row_count(), Ok(rows as u64));
            store.pack_all().expect("packs");
            assert_eq!((packed(store), store.row_count()), (rows, Ok(rows as u64)));
        }
    }

    #[test]
    fn rows_are_counted_at_once_and_packed_when_that_is_asked_for() {
        let (mut store, _folder) = store();
        store.write(&[row(), row()]).expect("writes");
        assert_eq!((rows_in(&store, "requests"), packed(&store), store.row_count()), (2, 0, Ok(2)));
        check_counted(&mut store, 2);
        // Rows that are packed count though they are removed.
        store.transact(|conn, _| conn.execute("DELETE FROM requests WHERE id < 2", [])).expect("removes");
        store.write(&[row()]).expect("writes");
        check_counted(&mut store, 3);
    }

    #[test]
    fn packs_that_are_refused_are_neither_lost_nor_doubled() {
        for table in ["series", "packed_sums", "packed_latencies"] {
            let (mut store, folder) = store();
            store.write(&[row()]).and_then(|_| store.pack_all()).expect("packs");
            let refuse = format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN (SELECT count(*) FROM series) > 1
                 BEGIN SELECT RAISE(ABORT, 'no more'); END"
            );
            store.conn.execute_batch(&refuse).expect("made");
            let of = |model: &str| Row { model: Some(model.to_owned()), ..row() };
            store.write(&[row(), of("a"), of("b")]).expect("rows are no packs");
            store.pack_all().expect_err(table);
            assert_eq!((packed(&store), rows_in(&store, "series"), store.row_count()), (1, 1, Ok(4)), "{table}");
            store.write(&[of("a"), of("c")]).expect("rows are no packs");
            // The ids of series that were rolled back are not remembered.
            store.conn.execute_batch("DROP TRIGGER refuse").expect("dropped");
            let killed = folder.join("killed.db");
            store.conn.execute("VACUUM INTO ?1", [killed.to_str()]).expect("copies");
            check_counted(&mut store, 6);
            check_counted(&mut Store::open(&killed, DbSync::Normal).expect("opens"), 6);
        }
    }

    #[test]
    fn two_processes_count_every_row_once() {
        let (mut one, folder) = store();
        let mut other = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
        let fold = |store: &Store| packing::fold(&store.conn).expect("reads").expect("there are rows");
        one.write(&[row(), row()]).expect("writes");
        // Both have read the same rows; who comes second changes nothing.
        let (first, second) = (fold(&one), fold(&other));
        one.pack(&first).expect("packs");
        other.write(&[row()]).expect("writes");
        other.pack(&second).expect("has come too late");
        assert_eq!((packed(&one), one.row_count()), (2, Ok(3)));
        check_counted(&mut other, 3);
        one.write(&[row()]).expect("writes");
        other.write(&[row(), row()]).expect("writes");
        check_counted(&mut one, 6);
        // Nor are rows packed as they were before they were corrected.
        one.write(&[row()]).expect("writes");
        let outdated = fold(&one);
        other.correct(7, &row(), &Row { duration_ms: 1, ..row() }).expect("corrects");
        one.pack(&outdated).expect("has come too late");
        assert_eq!(packed(&one), 6);
        check_counted(&mut one, 7);
        let pack = packing::read_pack(&one.conn, pack_id(SPAN_ALL, 0)).expect("a pack");
        assert_eq!(pack.values().map(|measured| measured.sums.duration_ms).sum::<i64>(), 6 * 850 + 1);
    }

    #[test]
    fn rows_whose_ids_are_used_again_are_counted() {
        let (mut store, folder) = store();
        let remove =
            |store: &Store| store.conn.execute_batch("DELETE FROM requests; DELETE FROM content").expect("empty");
        let open = || Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
        store.write(&[row(), row(), row()]).and_then(|_| store.pack_all()).expect("writes");
        remove(&store);
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        check_counted(&mut store, 4);
        // Killed before they are packed.
        remove(&store);
        assert_eq!(store.write(&[row(), row()]), Ok(vec![1, 2]));
        drop(store);
        let mut store = open();
        check_counted(&mut store, 6);
        // Removed while no proxy runs.
        remove(&store);
        drop(store);
        store = open();
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        check_counted(&mut store, 7);
    }

    #[test]
    fn rows_wait_for_a_lock_as_long_as_they_are_told_to_and_packs_do_not() {
        let (mut store, folder) = store();
        let other = Connection::open(folder.join("metrics.db")).expect("opens");
        let lock = || other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        let unlock = || other.execute_batch("ROLLBACK").expect("unlocks");
        store.write(&[row()]).expect("writes");
        let folded = packing::fold(&store.conn).expect("reads").expect("there is one");
        store.set_lock_wait(Duration::from_secs(3600));
        lock();
        store.pack(&folded).expect_err("locked");
        // Regression: a lock that a pack had met once was as one that every row has met since.
        assert_eq!(store.trouble, None);
        let begins = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let written = scope.spawn(|| {
                begins.wait();
                store.write(&[row()])
            });
            begins.wait();
            unlock();
            assert_eq!(written.join().expect("no panic"), Ok(vec![2]));
        });
        check_counted(&mut store, 2);
    }

    #[test]
    fn a_transaction_that_a_panic_left_open_does_not_stop_the_next() {
        let (mut store, folder) = store();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.transact(|conn, _| -> rusqlite::Result<()> {
                Inserts::prepare(conn)?.insert(&Entry::new(&row(), ""), None)?;
                panic!("a bug");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        assert_eq!(rows_in(&store, "requests"), 1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.transact(|_, _| -> rusqlite::Result<()> { panic!("a bug") })
        }));
        assert!(panicked.is_err());
        // Seen from elsewhere, for here that transaction is still open.
        store.pack_all().expect("packs");
        let other = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
        assert_eq!((packed(&other), other.row_count()), (1, Ok(1)));
    }

    #[test]
    fn a_corrected_row_is_what_it_should_be() {
        let (mut store, _folder) = store();
        let after = Row { outcome: Outcome::Truncated, output_tokens: None, duration_ms: 1000, ..row() };
        store.write(&[row()]).expect("writes");
        store.correct(1, &row(), &after).expect("corrects");
        let stored = store.conn.query_row(
            "SELECT outcome, is_error, output_tokens, end_time FROM requests WHERE id = 1",
            [],
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?)),
        );
        assert_eq!(stored, Ok(("truncated".to_owned(), true, None::<i64>, "2026-01-19T10:30:46.678Z".to_owned())));
    }

    #[test]
    fn a_row_that_is_gone_is_not_corrected() {
        let (mut store, _folder) = store();
        store.write(&[row()]).expect("writes");
        assert_eq!(store.correct(7, &row(), &row()), Err(rusqlite::Error::QueryReturnedNoRows));
        assert_eq!(store.row_count(), Ok(1));
    }

    #[test]
    fn figures_that_no_exchange_can_have_are_unknown_and_break_no_sum() {
        let (mut store, _folder) = store();
        let absurd = Row {
            start_ms: i64::MIN,
            duration_ms: u64::MAX,
            input_tokens: Some(u64::MAX),
            total_tokens: Some(i64::MAX as u64),
            tokens_per_second: Some(f64::INFINITY),
            ..row()
        };
        store.write(&vec![absurd; 40]).expect("writes");
        let (input, total, speed): (Option<i64>, Option<i64>, Option<f64>) = store
            .conn
            .query_row("SELECT sum(input_tokens), sum(total_tokens), sum(tokens_per_second) FROM requests", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .expect("a query");
        assert_eq!((input, total, speed), (None, None, None));
        assert_eq!(store.row_count(), Ok(40));
    }

    #[test]
    fn a_locked_database_is_an_error_and_nothing_is_written() {
        let (mut store, folder) = store();
        let other = Connection::open(folder.join("metrics.db")).expect("opens");
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        store.write(&[row()]).expect_err("locked");
        other.execute_batch("ROLLBACK").expect("unlocks");
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
    }

    #[test]
    fn the_same_id_of_another_file_is_another_row() {
        let (mut store, _folder) = store();
        store.write(&[row()]).expect("writes");
        let other = Row { start_ms: row().start_ms + 1, ..row() };
        assert_eq!(store.correct(1, &other, &other), Err(rusqlite::Error::QueryReturnedNoRows));
    }
}
