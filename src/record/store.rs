//! The writer: rows and their content in one transaction, their sums in a later one. Owns the one connection that
//! writes rows.
//!
//! ```text
//!  write ──▶ requests, content (a reply waits)      counted in memory ──sum up──▶ sums, summed_until
//! ```
//!
//! Does not batch, wait, retry or checkpoint, nor say when to sum up; the recorder and the keeper do. The table always
//! knows which rows are not in the sums: what is counted in memory only spares reading them. Whatever else writes
//! sums up first, in its own transaction.
//!
//! What a commit touches: the last page of `requests` and that of `content`; 4 pwrite and 6 fcntl. Without the page of
//! `sums` a row alone takes 36,000 instructions instead of 70,000 and 15 us instead of 20 (median; mean 17 instead of
//! 30). In a batch of 16 it is 20,700 instead of 27,000 and 3.2 us instead of 4.2, half of that by looking statements
//! up once for the batch. 2 cores, ext4, WAL, synchronous=NORMAL, 100 bytes of content, nobody else at work.
//!
//! The size of a page was chosen when sums were part of the commit: 300 bytes of prompt and output each, the log
//! checkpointed from another connection, median per row.
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

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io, mem};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::additions::{self, Additions};
use super::clean;
use super::connections::Connections;
use super::lock::{DatabaseLock, Writer};
use super::meta;
use super::open;
pub use super::open::{DbSync, OpenError};
use super::pack::HourRead;
use super::place::{FileState, LogBytes, Place};
use super::roll_up;
use super::row::Row;
use super::series::SeriesIds;
use super::sums::{ALL_TIME, Sign};
use super::table::{Entry, Inserts, overwrite};
use crate::calendar::{self, text_of_ms};
use crate::limits::{CLOSE_WAIT_MAX, COMMIT_WAIT_MAX, LOCKED_TIME_MAX};

/// Rows that are in the table and not in the sums yet.
#[derive(Debug)]
enum Unsummed {
    /// Those behind `until`, as far as `last`, and what they add to the sums. None where both are the same.
    Counted { until: i64, last: i64, additions: Additions },
    /// Whichever the table has behind `summed_until`: another process has written some, or a bug came between.
    InTable,
}

/// The one writing connection.
#[derive(Debug)]
pub struct Store {
    conn: Connection,
    series: SeriesIds,
    unsummed: Unsummed,
    place: Place,
    sync: DbSync,
    /// How long a transaction waits for another process's lock.
    lock_wait: Duration,
    /// The last error says that the file is damaged: before the next attempt it is opened anew, for somebody may have
    /// repaired it, and the connection remembers bad pages.
    damaged: bool,
    /// Since when every attempt has met a lock.
    locked_since: Option<Instant>,
    /// The last attempt failed at locking itself, which no other process explains.
    locking_failed: bool,
    /// After how long of locks the database is opened anew.
    locked_time_max: Duration,
    lock: Option<DatabaseLock>,
    /// There is no connection; the next row opens one.
    closed: bool,
    /// Other connections of this process.
    connections: Arc<Connections>,
    /// The secret that the rows to come have their credentials fingerprinted with.
    key: Option<[u8; 32]>,
}

impl Store {
    /// As [`Store::open`], for who is to be the only one that writes it, or shares it knowingly. Whoever opens it
    /// without a lock is expected to know what else does.
    pub fn open_locked(path: &Path, sync: DbSync, writer: Writer) -> Result<Store, OpenError> {
        let lock = DatabaseLock::take(path, writer)?;
        Ok(Store { lock: Some(lock), ..Store::open(path, sync)? })
    }

    /// Nothing is written from now on: somebody else may.
    pub fn let_go(&mut self) {
        self.lock = None;
    }

    /// Opens the database or creates it, missing folders included; a new file is readable by its owner alone. A
    /// database of the earlier program is upgraded in place. One that is refused is left as it is.
    pub fn open(path: &Path, sync: DbSync) -> Result<Store, OpenError> {
        let log_bytes = LogBytes::default();
        let conn = open::open(path, sync, &log_bytes)?;
        let (series, place) = (SeriesIds::default(), Place::of(path, log_bytes));
        // What a killed process has left.
        let unsummed = Unsummed::InTable;
        // As `open` has set it.
        let lock_wait = COMMIT_WAIT_MAX;
        let mut store = Store {
            conn,
            series,
            unsummed,
            place,
            sync,
            lock_wait,
            damaged: false,
            closed: false,
            locked_since: None,
            locking_failed: false,
            locked_time_max: LOCKED_TIME_MAX,
            lock: None,
            connections: Arc::default(),
            key: None,
        };
        store.key = store.fingerprint_key().ok();
        if let Err(e) = store.sum_up() {
            log::debug!("the rows of the last run are not summed up yet: {e}");
            store.damaged = false;
        }
        Ok(store)
    }

    /// Whether the database is opened anew before the next rows are written: its file was deleted, moved or replaced,
    /// or is damaged.
    pub fn must_reopen(&self) -> bool {
        self.is_troubled() || self.file_state() != FileState::Held
    }

    /// The same without a look at the files, which writing does.
    pub(super) fn is_troubled(&self) -> bool {
        self.damaged || self.closed || self.is_stuck()
    }

    /// Whether the database has been locked for longer than other programs have a reason to, or cannot be locked: a lock
    /// of this process may not have been released.
    pub fn is_stuck(&self) -> bool {
        self.locking_failed || self.locked_since.is_some_and(|since| since.elapsed() >= self.locked_time_max)
    }

    /// What became of the files.
    pub fn file_state(&self) -> FileState {
        match self.place.file_state() {
            _ if self.closed => FileState::Held,
            FileState::LogShort if self.is_log_whole() => FileState::Held,
            state => state,
        }
    }

    fn is_held(&self) -> bool {
        !self.closed && (self.place.is_held() || self.file_state() == FileState::Held)
    }

    /// Whether the log has all that is in use of it: another process may have emptied it into the database.
    fn is_log_whole(&self) -> bool {
        let in_use = open::log_bytes_of(&self.conn);
        if let Ok(in_use) = in_use {
            let whole = self.log_length() >= in_use;
            if whole {
                self.place.note_log_bytes(in_use)
            }
            return whole;
        }
        false
    }

    /// Other connections of this process, which are closed with this one.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Whether the last attempt to write found the file damaged.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Opens the database at its path anew, after all connections of this process to the one before were closed. Until
    /// that succeeds nothing is written: rows in a file that is gone are lost. What stood in that file stays there, and
    /// is summed up when it is opened again; what stood in its log is moved into it before, as far as it is at hand.
    /// Nothing is removed before the file at the path is known to be one that can be opened.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        if let Some(lock) = &mut self.lock {
            lock.renew()?;
        }
        let path = self.place.path().to_owned();
        let connections = self.connections.clone();
        let in_use = || OpenError::InUse { path: path.clone() };
        let _closed = connections.close_all(CLOSE_WAIT_MAX).ok_or_else(in_use)?;
        if !self.closed {
            self.part()?;
        }
        let fresh = Store::open(&path, self.sync)?;
        let key = self.key.or(fresh.key);
        if let (Some(key), Ok(0)) = (key, fresh.row_count()) {
            // The rows to come have their credentials fingerprinted with the secret of this run.
            let _ = fresh.conn.execute("UPDATE meta SET value = ?1 WHERE name = 'fingerprint_key'", [key]);
        }
        *self = Store { lock: self.lock.take(), connections: connections.clone(), key, ..fresh };
        Ok(())
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        // In its place stands one to nothing.
        if let Ok(nothing) = Connection::open_in_memory() {
            self.conn = nothing;
            self.unsummed = Unsummed::InTable;
            self.closed = true;
        }
    }

    /// Saves what is at hand of the database that is open, and closes it.
    fn part(&mut self) -> Result<(), OpenError> {
        let path = self.place.path().to_owned();
        let failed = |e: rusqlite::Error| open::explain(&path, &e);
        let aside = |e: io::Error| OpenError::Unwritable { path: path.clone(), reason: e.to_string() };
        match self.file_state() {
            FileState::Held => {}
            FileState::LogGone => {
                self.empty_log().map_err(failed)?;
                if !self.place.has_its_log() {
                    self.place.put_log_aside().map_err(aside)?;
                }
            }
            FileState::LogShort => {
                let (frames, moved) = open::log_frames(&self.conn).map_err(failed)?;
                // What is left of the log would take the database back to before its last checkpoint.
                if moved == frames || self.log_length() < self.log_length_of(moved).map_err(failed)? {
                    self.place.put_log_aside().map_err(aside)?;
                }
            }
            FileState::Taken | FileState::Gone => {
                // A file that was only moved has all its rows then, also without the log that is left behind.
                match self.empty_log() {
                    Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => return Err(failed(e)),
                    // It may be the damaged one that was moved away.
                    Ok(()) | Err(_) => {}
                }
                open::look(&path)?;
                self.place.clear();
            }
        }
        // What there was to save is saved; closing shall not touch files that may be another database's.
        let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        self.close();
        Ok(())
    }

    /// Moves the whole log into the database, also where neither has a name any more.
    fn empty_log(&self) -> rusqlite::Result<()> {
        let busy: bool = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        let code = || rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        if busy { Err(rusqlite::Error::SqliteFailure(code(), None)) } else { Ok(()) }
    }

    fn log_length(&self) -> u64 {
        fs::metadata(self.place.log_path()).map_or(0, |log| log.len())
    }

    fn log_length_of(&self, frames: u64) -> rusqlite::Result<u64> {
        let page_bytes: i64 = self.conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        Ok(open::bytes_of_frames(frames, page_bytes.unsigned_abs()))
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

    /// Where the database lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Writes all rows in one transaction and returns their ids in order. On an error nothing is written. Their sums
    /// wait for [`Store::sum_up`].
    pub fn write(&mut self, rows: &[Row]) -> rusqlite::Result<Vec<i64>> {
        self.write_and(rows, |_| Ok(()))
    }

    /// The same for rows that an earlier run kept elsewhere under `mark`, of which `done` are in the database then. In
    /// one transaction, so that none is taken in twice.
    pub(super) fn take_in(&mut self, mark: &str, rows: &[Row], done: usize) -> rusqlite::Result<()> {
        let done = i64::try_from(done).unwrap_or(i64::MAX);
        self.write_and(rows, |conn| meta::set(conn, mark, done)).map(|_| ())
    }

    /// How many of them are in the database.
    pub(super) fn taken_in(&self, mark: &str) -> rusqlite::Result<usize> {
        Ok(meta::number(&self.conn, mark)?.and_then(|done| usize::try_from(done).ok()).unwrap_or(0))
    }

    fn write_and(
        &mut self,
        rows: &[Row],
        also: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<Vec<i64>> {
        if self.unsummed.is_full() && self.sum_up().is_err() {
            // Memory is bounded. The table still has them.
            self.unsummed = Unsummed::InTable;
        }
        let created_at = text_of_ms(calendar::now_ms());
        let known = self.unsummed.until();
        let ids = self.transact(|conn, _| {
            let mut inserts = Inserts::prepare(conn)?;
            let ids = rows.iter().map(|row| inserts.insert(&Entry::new(row, &created_at)));
            let ids = ids.collect::<rusqlite::Result<Vec<i64>>>()?;
            let summed_until = known.map_or_else(|| additions::summed_until(conn), Ok)?;
            if let Some(first) = ids.first().filter(|first| **first <= summed_until) {
                // Somebody has removed the newest rows: their ids are used again.
                additions::set_summed_until(conn, first - 1)?;
                clean::reused(conn, *first)?;
            }
            also(conn)?;
            Ok(ids)
        })?;
        self.unsummed.add(&ids, rows);
        Ok(ids)
    }

    /// Adds what was written since the last time to the sums. Does not wait for a database that is locked: an error
    /// then, as any other, leaves everything for the next time.
    pub fn sum_up(&mut self) -> rusqlite::Result<()> {
        if !self.is_behind() {
            return Ok(());
        }
        let (lock_wait, damaged) = (self.lock_wait, self.damaged);
        self.set_lock_wait(Duration::ZERO);
        let summed = self.transact_summed(|_, _| Ok(()));
        self.set_lock_wait(lock_wait);
        // Whether rows can be written, rows find out.
        self.damaged = damaged;
        summed
    }

    /// Whether there are, or may be, rows that the sums do not hold.
    pub fn is_behind(&self) -> bool {
        match &self.unsummed {
            Unsummed::Counted { until, last, .. } => until < last,
            Unsummed::InTable => true,
        }
    }

    /// Replaces a row whose figures changed after it was written: `before` as it was written, `after` as it should
    /// be. A row that clean-up has removed meanwhile, or that went with a deleted file, is
    /// [`rusqlite::Error::QueryReturnedNoRows`], and nothing changes.
    /// What was said stays as it was written: clean-up has counted its size.
    pub fn correct(&mut self, id: i64, before: &Row, after: &Row) -> rusqlite::Result<()> {
        self.transact_summed(|conn, series| {
            overwrite(conn, id, before, after)?;
            let mut additions = Additions::default();
            additions.count(id, before, Sign::Subtract);
            additions.count(id, after, Sign::Add);
            additions.apply(conn, series)
        })
    }

    /// How many requests were ever recorded; from the sums, and the rows that are not in them yet.
    pub fn row_count(&self) -> rusqlite::Result<u64> {
        let query = format!(
            "{ALL_TIME} SELECT coalesce(sum(requests), 0) + (SELECT count(*) FROM requests
                WHERE id > (SELECT value FROM meta WHERE name = 'summed_until')) FROM counted"
        );
        self.conn.query_row(&query, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    }

    /// The highest id of a row; 0 where there is none.
    pub(super) fn newest_id(&self) -> rusqlite::Result<i64> {
        self.conn.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))
    }

    /// The secret that credentials are fingerprinted with, made once when the database was created.
    pub fn fingerprint_key(&mut self) -> rusqlite::Result<[u8; 32]> {
        self.conn.query_row("SELECT value FROM meta WHERE name = 'fingerprint_key'", [], |row| row.get(0))
    }

    /// Adds the sums of one hour that is over to those of its day and of all time, so that questions about all time
    /// stay cheap. Returns whether there was one: call again while there is. Takes about as long as a commit.
    pub fn roll_up(&mut self, now_ms: i64) -> rusqlite::Result<bool> {
        self.roll_up_read(None, now_ms)
    }

    /// The same with what [`roll_up::read_ahead`] has read on another connection, so that no commit waits for that.
    pub fn roll_up_read(&mut self, read: Option<HourRead>, now_ms: i64) -> rusqlite::Result<bool> {
        self.transact_summed(|conn, series| roll_up::roll_up(conn, series, read, now_ms))
    }

    /// One step of clean-up, in a transaction of its own. On an error nothing is changed.
    pub(super) fn clean<T>(&mut self, step: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.transact_summed(|conn, _| step(conn))
    }

    /// Sums up first, in the same transaction: whoever looks at the sums, or removes rows, finds every row counted.
    fn transact_summed<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut SeriesIds) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        // Should `work` panic, the table knows.
        let unsummed = mem::replace(&mut self.unsummed, Unsummed::InTable);
        let done = self.transact(|conn, series| {
            let until = unsummed.sum_up(conn, series)?;
            Ok((until, work(conn, series)?))
        });
        match done {
            Ok((until, done)) => {
                self.unsummed = Unsummed::none_behind(until);
                Ok(done)
            }
            Err(e) => {
                self.unsummed = unsummed;
                Err(e)
            }
        }
    }

    fn transact<T>(
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
        if done.is_ok() {
            (self.locked_since, self.locking_failed) = (None, false);
        }
        if let Err(e) = &done {
            let code = e.sqlite_error_code();
            self.locking_failed = is_failed_locking(e);
            self.locked_since = match code {
                Some(ErrorCode::DatabaseBusy) => Some(self.locked_since.unwrap_or_else(Instant::now)),
                Some(_) | None => None,
            };
            self.damaged = matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
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

impl Unsummed {
    fn none_behind(until: i64) -> Unsummed {
        Unsummed::Counted { until, last: until, additions: Additions::default() }
    }

    /// The id up to which every row is in the sums, if it is known.
    fn until(&self) -> Option<i64> {
        match self {
            Unsummed::Counted { until, .. } => Some(*until),
            Unsummed::InTable => None,
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Unsummed::Counted { additions, .. } => additions.is_full(),
            Unsummed::InTable => false,
        }
    }

    /// Counts rows that are committed.
    fn add(&mut self, ids: &[i64], rows: &[Row]) {
        let (Some(first), Some(newest)) = (ids.first(), ids.last()) else { return };
        match self {
            Unsummed::Counted { until, last, additions } => {
                if until == last && *first <= *until {
                    // Used again, see `Store::write`.
                    (*until, *last) = (first - 1, first - 1);
                }
                if *first == *last + 1 && newest - first + 1 == ids.len() as i64 {
                    ids.iter().zip(rows).for_each(|(id, row)| additions.count(*id, row, Sign::Add));
                    *last = *newest;
                } else {
                    *self = Unsummed::InTable;
                }
            }
            Unsummed::InTable => {}
        }
    }

    /// Brings the sums up to date, inside the caller's transaction; returns the last id.
    fn sum_up(&self, conn: &Connection, series: &mut SeriesIds) -> rusqlite::Result<i64> {
        match self {
            Unsummed::Counted { until, last, .. } if until == last => Ok(*until),
            // Asked every time: another process may have counted the rows.
            Unsummed::Counted { until, last, additions } if additions::summed_until(conn)? == *until => {
                additions.apply(conn, series)?;
                additions::set_summed_until(conn, *last)?;
                Ok(*last)
            }
            Unsummed::Counted { .. } | Unsummed::InTable => additions::catch_up(conn, series),
        }
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

/// Whether the system refused to lock or unlock, or what it says of locks cannot be.
fn is_failed_locking(error: &rusqlite::Error) -> bool {
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
    use crate::calendar::HOUR_MS;
    use crate::limits::UNSUMMED_ROWS_MAX;
    use crate::record::row::Outcome;
    use crate::testing::{Folder, Random, random_row, row};

    fn store() -> (Store, Folder) {
        let folder = Folder::new();
        (Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens"), folder)
    }

    fn rows_in(store: &Store, table: &str) -> i64 {
        store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a query")
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
            check_summed(&mut store, 3);
        }
    }

    /// Requests in the sums of hours.
    fn summed(store: &Store) -> i64 {
        let query = "SELECT coalesce(sum(requests), 0) FROM sums WHERE span = 2";
        store.conn.query_row(query, [], |row| row.get(0)).expect("a query")
    }

    /// Sums up, twice: so many rows are counted, each once.
    #[track_caller]
    fn check_summed(store: &mut Store, rows: i64) {
        for _ in 0..2 {
            store.sum_up().expect("sums up");
            assert_eq!((summed(store), store.row_count()), (rows, Ok(rows as u64)));
        }
    }

    /// Everything that statistics read but rows.
    fn all_sums(store: &Store) -> Vec<String> {
        let queries = [
            "SELECT format('%d %d %d %d %d %d %d %d', span, start, series, requests, duration_ms, input_tokens,
                first_token_known, last_id) FROM sums ORDER BY span, start, series",
            "SELECT format('%d %s', id, outcome) FROM series",
            "SELECT format('%d %s', id, hex(pack)) FROM packed_latencies",
            "SELECT format('%s %d', name, value) FROM meta WHERE name <> 'fingerprint_key'",
        ];
        let lines = |query: &&str| {
            let mut statement = store.conn.prepare(query).expect(query);
            let lines = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect);
            lines.unwrap_or_else(|e| panic!("{query}: {e}"))
        };
        queries.iter().map(lines).collect::<Vec<Vec<String>>>().concat()
    }

    #[test]
    fn rows_are_in_the_table_at_once_and_in_the_sums_when_they_are_asked_for() {
        let (mut store, _folder) = store();
        store.write(&[row(), row()]).expect("writes");
        assert_eq!((rows_in(&store, "requests"), summed(&store), store.is_behind()), (2, 0, true));
        check_summed(&mut store, 2);
        assert!(!store.is_behind());
        // Whatever else changes the database sums up first.
        store.write(&[row()]).expect("writes");
        store.correct(3, &row(), &Row { duration_ms: 1, ..row() }).expect("corrects");
        assert_eq!(summed(&store), 3);
        store.write(&[row()]).expect("writes");
        assert_eq!(store.roll_up(row().start_ms), Ok(false));
        assert_eq!(summed(&store), 4);
        store.write(&[row()]).expect("writes");
        store.clean(|conn| conn.execute("DELETE FROM requests WHERE id < 5", [])).expect("removes");
        assert_eq!(summed(&store), 5);
    }

    #[test]
    fn what_a_killed_process_left_is_counted_once_and_as_it_would_have_been() {
        let rows = |seed: u64| {
            let mut random = Random::new(seed);
            (0..UNSUMMED_ROWS_MAX + 100).map(|_| random_row(&mut random)).collect::<Vec<_>>()
        };
        let after = row().start_ms + 48 * HOUR_MS;
        let sums_of = |killed: bool| {
            let (mut store, folder) = store();
            store.write(&rows(1)).expect("writes");
            while store.roll_up(after).expect("rolls up") {}
            // Most of these come late, for hours that are packed.
            store.write(&rows(2)).expect("writes");
            if !killed {
                store.sum_up().expect("sums up");
            }
            drop(store);
            for _ in 0..2 {
                let store = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
                assert!(!store.is_behind());
                assert_eq!(summed(&store) as usize, 2 * rows(1).len());
            }
            all_sums(&Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens"))
        };
        let packed_changes = |sums: &mut Vec<String>| sums.retain(|line| !line.starts_with("packs_changed"));
        let (mut killed, mut ended) = (sums_of(true), sums_of(false));
        packed_changes(&mut killed);
        packed_changes(&mut ended);
        assert_eq!(killed, ended);
    }

    #[test]
    fn sums_that_are_refused_are_neither_lost_nor_doubled() {
        for table in ["series", "sums"] {
            let (mut store, folder) = store();
            store.write(&[row()]).expect("writes");
            store.sum_up().expect("sums up");
            let refuse = format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN (SELECT count(*) FROM {table}) > 1
                 BEGIN SELECT RAISE(ABORT, 'no more'); END"
            );
            store.conn.execute_batch(&refuse).expect("made");
            let of = |model: &str| Row { model: Some(model.to_owned()), ..row() };
            store.write(&[row(), of("a"), of("b")]).expect("rows are no sums");
            store.sum_up().expect_err(table);
            assert_eq!((summed(&store), rows_in(&store, "series"), store.row_count()), (1, 1, Ok(4)), "{table}");
            store.write(&[of("a"), of("c")]).expect("rows are no sums");
            // The ids of series that were rolled back are not remembered.
            store.conn.execute_batch("DROP TRIGGER refuse").expect("dropped");
            let killed = folder.join("killed.db");
            store.conn.execute("VACUUM INTO ?1", [killed.to_str()]).expect("copies");
            check_summed(&mut store, 6);
            assert_eq!(all_sums(&store), all_sums(&Store::open(&killed, DbSync::Normal).expect("opens")));
        }
    }

    #[test]
    fn sums_that_are_refused_for_long_are_made_from_the_table() {
        let (mut store, _folder) = store();
        let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON sums BEGIN SELECT RAISE(ABORT, 'no more'); END";
        store.conn.execute_batch(refuse).expect("made");
        store.write(&vec![row(); UNSUMMED_ROWS_MAX]).expect("writes");
        store.write(&[row()]).expect("writes");
        assert!(matches!(store.unsummed, Unsummed::InTable), "memory is bounded");
        store.conn.execute_batch("DROP TRIGGER refuse").expect("dropped");
        check_summed(&mut store, UNSUMMED_ROWS_MAX as i64 + 1);
        // Where nothing is in the way, the next commit makes room.
        store.write(&vec![row(); UNSUMMED_ROWS_MAX]).expect("writes");
        store.write(&[row()]).expect("writes");
        assert_eq!(summed(&store), 2 * UNSUMMED_ROWS_MAX as i64 + 1);
    }

    #[test]
    fn two_processes_count_every_row_once() {
        let (mut one, folder) = store();
        one.write(&[row(), row()]).expect("writes");
        // Opening counts what the first has not yet.
        let mut other = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
        assert_eq!(summed(&other), 2);
        check_summed(&mut one, 2);
        one.write(&[row()]).expect("writes");
        other.write(&[row(), row()]).expect("writes");
        one.write(&[row()]).expect("writes");
        check_summed(&mut other, 6);
        check_summed(&mut one, 6);
        other.write(&[row()]).expect("writes");
        one.write(&[row()]).expect("writes");
        check_summed(&mut one, 8);
        check_summed(&mut other, 8);
    }

    #[test]
    fn rows_whose_ids_are_used_again_are_counted() {
        let (mut store, folder) = store();
        let remove =
            |store: &Store| store.conn.execute_batch("DELETE FROM requests; DELETE FROM content").expect("empty");
        let open = || Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
        store.write(&[row(), row(), row()]).expect("writes");
        store.sum_up().expect("sums up");
        remove(&store);
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        check_summed(&mut store, 4);
        // Also while nobody knows how far the sums go.
        remove(&store);
        store.unsummed = Unsummed::InTable;
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        check_summed(&mut store, 5);
        // Killed before they are summed up.
        remove(&store);
        assert_eq!(store.write(&[row(), row()]), Ok(vec![1, 2]));
        drop(store);
        let mut store = open();
        assert_eq!(summed(&store), 7);
        // Removed while no proxy runs.
        remove(&store);
        drop(store);
        store = open();
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        check_summed(&mut store, 8);
    }

    #[test]
    fn rows_wait_for_a_lock_as_long_as_they_are_told_to_and_sums_do_not() {
        let (mut store, folder) = store();
        let other = Connection::open(folder.join("metrics.db")).expect("opens");
        let lock = || other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        let unlock = || other.execute_batch("ROLLBACK").expect("unlocks");
        let for_ever = Duration::from_secs(3600);
        store.write(&vec![row(); UNSUMMED_ROWS_MAX]).expect("writes");
        store.set_lock_wait(for_ever);
        lock();
        store.sum_up().expect_err("locked");
        // Those that meet sums which have to be written first do not wait either, if they are told not to.
        store.set_lock_wait(Duration::ZERO);
        store.write(&[row()]).expect_err("locked");
        store.set_lock_wait(for_ever);
        let begins = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            let written = scope.spawn(|| {
                begins.wait();
                store.write(&[row()])
            });
            begins.wait();
            unlock();
            assert_eq!(written.join().expect("no panic"), Ok(vec![UNSUMMED_ROWS_MAX as i64 + 1]));
        });
        check_summed(&mut store, UNSUMMED_ROWS_MAX as i64 + 1);
    }

    #[test]
    fn a_transaction_that_a_panic_left_open_does_not_stop_the_next() {
        let (mut store, folder) = store();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.transact(|conn, _| -> rusqlite::Result<()> {
                Inserts::prepare(conn)?.insert(&Entry::new(&row(), ""))?;
                panic!("a bug");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        assert_eq!(rows_in(&store, "requests"), 1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.clean(|_| -> rusqlite::Result<()> { panic!("a bug") })
        }));
        assert!(panicked.is_err());
        // Seen from elsewhere, for here that transaction is still open.
        store.sum_up().expect("sums up");
        let other = Connection::open(folder.join("metrics.db")).expect("opens");
        let summed = other.query_row("SELECT coalesce(sum(requests), 0) FROM sums", [], |row| row.get::<_, i64>(0));
        assert_eq!(summed, Ok(1));
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

    /// What `happens` to an open database with one row; then another is written. Rows before and after, at the path.
    #[cfg(unix)]
    fn check_found_again(happens: impl FnOnce(&Folder), expected: &[i64]) -> (Store, Folder) {
        let (mut store, folder) = store();
        store.write(&[row()]).expect("writes");
        let key = store.fingerprint_key().expect("a key");
        assert!(!store.must_reopen());
        happens(&folder);
        assert!(store.must_reopen());
        store.write(&[row()]).expect_err("into a file that is gone");
        store.correct(1, &row(), &row()).expect_err("in a file that is gone");
        store.reopen().expect("opens");
        assert!(!store.must_reopen());
        assert_eq!(store.write(&[row()]).expect("writes"), expected);
        assert_eq!(store.fingerprint_key(), Ok(key));
        let sound = store.conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        assert_eq!(sound, Ok("ok".to_owned()));
        (store, folder)
    }

    #[cfg(unix)]
    #[test]
    fn a_deleted_database_is_begun_anew() {
        let remove = |folder: &Folder, name: &str| std::fs::remove_file(folder.join(name)).expect("removed");
        check_found_again(|folder| remove(folder, "metrics.db"), &[1]);
        let all = |folder: &Folder| {
            for name in ["metrics.db", "metrics.db-wal", "metrics.db-shm"] {
                remove(folder, name);
            }
        };
        check_found_again(all, &[1]);
        check_found_again(|folder| std::fs::remove_dir_all(folder.join("")).expect("removed"), &[1]);
    }

    #[cfg(unix)]
    #[test]
    fn a_database_that_was_moved_away_takes_all_its_rows_along() {
        let rename = |folder: &Folder| {
            std::fs::rename(folder.join("metrics.db"), folder.join("old.db")).expect("renamed");
        };
        let (mut store, folder) = check_found_again(rename, &[1]);
        check_summed(&mut store, 1);
        // They were not summed up when it was moved.
        let old = Store::open(&folder.join("old.db"), DbSync::Normal).expect("opens");
        assert_eq!((old.row_count(), summed(&old)), (Ok(1), 1));
    }

    #[cfg(unix)]
    #[test]
    fn rows_go_into_the_database_that_took_the_place_of_another() {
        // The log of the first must not be applied to the second.
        let replace = |folder: &Folder| {
            let copy = folder.join("copy.db");
            let vacuum = format!("VACUUM INTO '{}'", copy.display());
            let first = Connection::open(folder.join("metrics.db")).expect("opens");
            first.execute_batch(&vacuum).expect("copies");
            drop(first);
            std::fs::rename(copy, folder.join("metrics.db")).expect("renamed");
        };
        let (mut store, _folder) = check_found_again(replace, &[2]);
        check_summed(&mut store, 2);
    }

    #[test]
    fn a_lock_of_this_process_that_is_not_released_goes_with_its_connection() {
        let (mut store, folder) = store();
        // As one whose release failed: SQLite sees it, and nobody will let go of it.
        let stuck = store.connections().slot();
        stuck.with(|held| {
            let other = Connection::open(folder.join("metrics.db")).expect("opens");
            other.execute_batch("BEGIN IMMEDIATE").expect("locks");
            *held = Some(other);
        });
        store.set_lock_wait(Duration::ZERO);
        store.write(&[row()]).expect_err("locked");
        assert!(!store.must_reopen(), "others may hold a lock for a while");
        store.locked_time_max = Duration::ZERO;
        assert!(store.must_reopen());
        store.reopen().expect("opens");
        assert!(!store.must_reopen() && stuck.with(|held| held.is_none()));
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        // What another process holds, opening does not change; it is waited for as ever.
        let foreign = Connection::open(folder.join("metrics.db")).expect("opens");
        foreign.execute_batch("BEGIN IMMEDIATE").expect("locks");
        store.set_lock_wait(Duration::ZERO);
        store.write(&[row()]).expect_err("locked");
        store.locked_time_max = Duration::ZERO;
        store.reopen().expect("opens");
        store.set_lock_wait(Duration::ZERO);
        store.write(&[row()]).expect_err("locked");
        foreign.execute_batch("ROLLBACK").expect("unlocks");
        assert_eq!(store.write(&[row()]), Ok(vec![2]));
    }

    #[test]
    fn locking_that_fails_has_the_database_opened_anew_at_once() {
        use rusqlite::ffi;
        let failed = |code| is_failed_locking(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert!(failed(ffi::SQLITE_PROTOCOL) && failed(ffi::SQLITE_IOERR_SHMLOCK) && failed(ffi::SQLITE_IOERR_UNLOCK));
        assert!(!failed(ffi::SQLITE_BUSY) && !failed(ffi::SQLITE_IOERR_WRITE) && !failed(ffi::SQLITE_FULL));
        let (mut store, _folder) = store();
        let failure = || rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_SHMLOCK), None);
        store.clean(|_| Err::<(), _>(failure())).expect_err("locking fails");
        assert!(store.must_reopen());
        store.reopen().expect("opens");
        assert!(!store.must_reopen());
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
    }

    #[cfg(unix)]
    #[test]
    fn nothing_is_opened_or_removed_while_somebody_reads_the_one_before() {
        let (mut store, folder) = store();
        store.write(&[row()]).expect("writes");
        let reads = store.connections().slot();
        let connections = store.connections().clone();
        std::fs::remove_file(folder.join("metrics.db-wal")).expect("removed");
        reads.with(|held| {
            *held = Some(Connection::open(folder.join("other.db")).expect("opens"));
            let error = store.reopen().expect_err("it is in use").to_string();
            assert!(error.contains("still being read"), "{error}");
            store.write(&[row()]).expect_err("into a log that is gone");
        });
        store.reopen().expect("opens");
        assert!(Arc::ptr_eq(&connections, store.connections()));
        assert_eq!((store.write(&[row()]), store.row_count()), (Ok(vec![2]), Ok(2)));
    }

    #[cfg(unix)]
    #[test]
    fn the_log_of_a_database_behind_a_link_is_watched_where_it_lies() {
        let folder = Folder::new();
        std::fs::create_dir_all(folder.join("real")).expect("made");
        std::fs::write(folder.join("real/metrics.db"), "").expect("written");
        std::os::unix::fs::symlink("real/metrics.db", folder.join("metrics.db")).expect("linked");
        let mut store = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        std::fs::remove_file(folder.join("real/metrics.db-wal")).expect("removed");
        assert_eq!(store.file_state(), FileState::LogGone);
        store.reopen().expect("opens");
        assert_eq!((store.write(&[row()]), store.row_count()), (Ok(vec![2]), Ok(2)));
    }

    #[test]
    fn the_same_id_of_another_file_is_another_row() {
        let (mut store, _folder) = store();
        store.write(&[row()]).expect("writes");
        let other = Row { start_ms: row().start_ms + 1, ..row() };
        assert_eq!(store.correct(1, &other, &other), Err(rusqlite::Error::QueryReturnedNoRows));
    }
}
