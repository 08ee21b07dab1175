//! The writer: rows, their content and the sums in one transaction. Owns the one connection that writes rows.
//!
//! Does not batch, wait, retry or checkpoint; the recorder and the keeper do.
//!
//! What a commit touches: the last page of `requests`, that of `content`, and the page of `sums` with the hour's
//! series; 8 pwrite and 6 fcntl. Measured on 2 cores, ext4, WAL, synchronous=NORMAL, 300 bytes of prompt and output
//! each, the log checkpointed from another connection, median per row: alone 30 us, in a batch of 16 10 us.
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
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, params};

use super::open;
pub use super::open::{DbSync, OpenError};
use super::pack::HourRead;
use super::place::Place;
use super::rfc3339::text_of_ms;
use super::row::{Content, Row};
use super::schema::UNKNOWN_MODEL;
use super::sums::{self, ALL_TIME, Additions, SeriesIds, Sign, duration, figure, rate};

/// The one writing connection.
#[derive(Debug)]
pub struct Store {
    conn: Connection,
    series: SeriesIds,
    place: Place,
    sync: DbSync,
    /// The last error says that the file is damaged: before the next attempt it is opened anew, for somebody may have
    /// repaired it, and the connection remembers bad pages.
    damaged: bool,
}

impl Store {
    /// Opens the database or creates it, missing folders included; a new file is readable by its owner alone. A
    /// database of the earlier program is upgraded in place. One that is refused is left as it is.
    pub fn open(path: &Path, sync: DbSync) -> Result<Store, OpenError> {
        let conn = open::open(path, sync)?;
        Ok(Store { conn, series: SeriesIds::default(), place: Place::of(path), sync, damaged: false })
    }

    /// Whether the database is opened anew before the next rows are written: its file was deleted, moved or replaced,
    /// or is damaged.
    pub fn must_reopen(&self) -> bool {
        self.damaged || !self.place.is_held()
    }

    /// Whether the last attempt to write found the file damaged.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Opens the database at its path anew. Until that succeeds nothing is written: rows in a file that is gone are
    /// lost. What stood in that file stays there.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        let key = self.fingerprint_key();
        if !self.place.is_held() {
            // A file that was only moved has all its rows then, also without the log that is left behind.
            let _ = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            self.place.clear();
        }
        let fresh = Store::open(self.place.path(), self.sync)?;
        if let (Ok(key), Ok(0)) = (key, fresh.row_count()) {
            // The rows to come have their credentials fingerprinted with the secret of this run.
            let _ = fresh.conn.execute("UPDATE meta SET value = ?1 WHERE name = 'fingerprint_key'", [key]);
        }
        *self = fresh;
        Ok(())
    }

    /// How long a transaction waits for another process's lock.
    pub fn set_lock_wait(&self, at_most: Duration) {
        // It can fail only for a handle that is no connection.
        let _ = self.conn.busy_timeout(at_most);
    }

    /// Where the database lies.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Writes all rows in one transaction and returns their ids in order. On an error nothing is written.
    pub fn write(&mut self, rows: &[Row]) -> rusqlite::Result<Vec<i64>> {
        let created_at = text_of_ms(now_ms());
        self.transact(|conn, series| {
            let mut additions = Additions::default();
            let mut ids = Vec::with_capacity(rows.len());
            for row in rows {
                let id = insert(conn, &Entry::new(row, &created_at))?;
                additions.count(conn, series, id, row, Sign::Add)?;
                ids.push(id);
            }
            additions.apply(conn)?;
            Ok(ids)
        })
    }

    /// Replaces a row whose figures changed after it was written: `before` as it was written, `after` as it should
    /// be. A row that clean-up has removed meanwhile, or that went with a deleted file, is
    /// [`rusqlite::Error::QueryReturnedNoRows`], and nothing changes.
    /// What was said stays as it was written: clean-up has counted its size.
    pub fn correct(&mut self, id: i64, before: &Row, after: &Row) -> rusqlite::Result<()> {
        self.transact(|conn, series| {
            update(conn, id, before, after)?;
            let mut additions = Additions::default();
            additions.count(conn, series, id, before, Sign::Subtract)?;
            additions.count(conn, series, id, after, Sign::Add)?;
            additions.apply(conn)
        })
    }

    /// How many requests were ever recorded; from the sums.
    pub fn row_count(&self) -> rusqlite::Result<u64> {
        let query = format!("{ALL_TIME} SELECT coalesce(sum(requests), 0) FROM counted");
        self.conn.query_row(&query, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
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

    /// The same with what [`sums::read_ahead`] has read on another connection, so that no commit waits for that.
    pub fn roll_up_read(&mut self, read: Option<HourRead>, now_ms: i64) -> rusqlite::Result<bool> {
        self.transact(|conn, series| sums::roll_up(conn, series, read, now_ms))
    }

    /// One step of clean-up, in a transaction of its own. On an error nothing is changed.
    pub(super) fn clean<T>(&mut self, step: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.transact(|conn, _| step(conn))
    }

    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut SeriesIds) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        if !self.place.is_held() {
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
        if let Err(e) = &done {
            let code = e.sqlite_error_code();
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

/// The error of a database that cannot be written because it is not where it was.
pub(super) fn gone(words: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY_DBMOVED);
    rusqlite::Error::SqliteFailure(code, Some(words.to_owned()))
}

/// Milliseconds since 1970 by the clock on the wall.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A row on its way into the table, with what only an upgrade knows better than the row.
pub(super) struct Entry<'a> {
    /// `None`: the next one.
    pub(super) id: Option<i64>,
    pub(super) row: &'a Row,
    pub(super) end_time: String,
    pub(super) created_at: &'a str,
}

impl<'a> Entry<'a> {
    fn new(row: &'a Row, created_at: &'a str) -> Entry<'a> {
        Entry { id: None, row, end_time: end_time(row), created_at }
    }
}

fn end_time(row: &Row) -> String {
    text_of_ms(row.start_ms.saturating_add(duration(row.duration_ms)))
}

/// Inserts the row and its content, inside the caller's transaction, and returns its id.
pub(super) fn insert(conn: &Connection, entry: &Entry) -> rusqlite::Result<i64> {
    let Entry { row, .. } = entry;
    let id = conn
        .prepare_cached(
            "INSERT INTO requests (id, endpoint, model, start_time, end_time, duration_ms, input_tokens, output_tokens,
                total_tokens, request_id, is_error, error_message, http_status, was_streamed, created_at, outcome,
                requested_model, cached_tokens, reasoning_tokens, time_to_first_token_ms, tokens_per_second,
                finish_reason, usage_source, model_load_ms, client, key, attempt)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                ?22, ?23, ?24, ?25, ?26, ?27)",
        )?
        .insert(params![
            entry.id,
            row.endpoint,
            row.model.as_deref().unwrap_or(UNKNOWN_MODEL),
            text_of_ms(row.start_ms),
            entry.end_time,
            duration(row.duration_ms),
            figure(row.input_tokens),
            figure(row.output_tokens),
            figure(row.total_tokens),
            row.request_id,
            row.outcome.is_failure(),
            row.error_message,
            row.http_status,
            row.was_streamed,
            entry.created_at,
            row.outcome.as_str(),
            row.requested_model,
            figure(row.cached_tokens),
            figure(row.reasoning_tokens),
            figure(row.time_to_first_token_ms),
            rate(row.tokens_per_second),
            row.finish_reason,
            row.usage_source,
            figure(row.model_load_ms),
            row.client,
            row.key,
            row.attempt,
        ])?;
    insert_content(conn, id, &row.content)?;
    Ok(id)
}

fn insert_content(conn: &Connection, id: i64, content: &Content) -> rusqlite::Result<()> {
    if content.is_empty() {
        return Ok(());
    }
    conn.prepare_cached("INSERT INTO content (id, prompt, output, reasoning, tool_calls) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![id, content.prompt, content.output, content.reasoning, content.tool_calls])?;
    Ok(())
}

fn update(conn: &Connection, id: i64, before: &Row, row: &Row) -> rusqlite::Result<()> {
    let changed = conn
        .prepare_cached(
            "UPDATE requests SET endpoint = ?2, model = ?3, start_time = ?4, end_time = ?5, duration_ms = ?6,
                input_tokens = ?7, output_tokens = ?8, total_tokens = ?9, request_id = ?10, is_error = ?11,
                error_message = ?12, http_status = ?13, was_streamed = ?14, outcome = ?15, requested_model = ?16,
                cached_tokens = ?17, reasoning_tokens = ?18, time_to_first_token_ms = ?19, tokens_per_second = ?20,
                finish_reason = ?21, usage_source = ?22, model_load_ms = ?23, client = ?24, key = ?25, attempt = ?26
             WHERE id = ?1 AND start_time = ?27",
        )?
        .execute(params![
            id,
            row.endpoint,
            row.model.as_deref().unwrap_or(UNKNOWN_MODEL),
            text_of_ms(row.start_ms),
            end_time(row),
            duration(row.duration_ms),
            figure(row.input_tokens),
            figure(row.output_tokens),
            figure(row.total_tokens),
            row.request_id,
            row.outcome.is_failure(),
            row.error_message,
            row.http_status,
            row.was_streamed,
            row.outcome.as_str(),
            row.requested_model,
            figure(row.cached_tokens),
            figure(row.reasoning_tokens),
            figure(row.time_to_first_token_ms),
            rate(row.tokens_per_second),
            row.finish_reason,
            row.usage_source,
            figure(row.model_load_ms),
            row.client,
            row.key,
            row.attempt,
            // The same id in another file is another row.
            text_of_ms(before.start_ms),
        ])?;
    if changed == 1 { Ok(()) } else { Err(rusqlite::Error::QueryReturnedNoRows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::Outcome;
    use crate::record::testing::{Folder, row};

    fn store() -> (Store, Folder) {
        let folder = Folder::new();
        (Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens"), folder)
    }

    fn rows_in(store: &Store, table: &str) -> i64 {
        store.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a query")
    }

    #[test]
    fn a_batch_is_written_whole_or_not_at_all() {
        for table in ["requests", "content", "series", "sums"] {
            let (mut store, _folder) = store();
            store.write(&[row()]).expect("writes");
            let refuse = format!(
                "CREATE TRIGGER refuse BEFORE INSERT ON {table} WHEN (SELECT count(*) FROM requests) > 1
                 BEGIN SELECT RAISE(ABORT, 'no more'); END"
            );
            store.conn.execute_batch(&refuse).expect("made");
            let other = || Row { model: Some("another".to_owned()), ..row() };
            store.write(&[other(), other(), other()]).expect_err(table);
            for (table, rows) in [("requests", 1), ("content", 1), ("series", 1), ("sums", 1)] {
                assert_eq!(rows_in(&store, table), rows, "{table}");
            }
            store.conn.execute_batch("DROP TRIGGER refuse").expect("dropped");
            // The ids of series that were rolled back are not remembered.
            assert_eq!(store.write(&[other(), other()]), Ok(vec![2, 3]));
            assert_eq!(store.row_count(), Ok(3));
            assert_eq!(rows_in(&store, "series"), 2);
        }
    }

    #[test]
    fn a_transaction_that_a_panic_left_open_does_not_stop_the_next() {
        let (mut store, _folder) = store();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.transact(|conn, _| -> rusqlite::Result<()> {
                insert(conn, &Entry::new(&row(), ""))?;
                panic!("a bug");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        assert_eq!(rows_in(&store, "requests"), 1);
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
        let (_store, folder) = check_found_again(rename, &[1]);
        let old = Store::open(&folder.join("old.db"), DbSync::Normal).expect("opens");
        assert_eq!(old.row_count(), Ok(1));
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
        let (store, _folder) = check_found_again(replace, &[2]);
        assert_eq!(store.row_count(), Ok(2));
    }

    #[test]
    fn the_same_id_of_another_file_is_another_row() {
        let (mut store, _folder) = store();
        store.write(&[row()]).expect("writes");
        let other = Row { start_ms: row().start_ms + 1, ..row() };
        assert_eq!(store.correct(1, &other, &other), Err(rusqlite::Error::QueryReturnedNoRows));
    }
}
