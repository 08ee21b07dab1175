//! Opening the database anew: its file was deleted, moved or replaced, or is damaged, or a lock of this process was not
//! released.
//!
//! Invariants: until another one is open nothing is written, for rows in a file that is gone are lost; and what was
//! committed is moved out of the log before, as far as that is at hand.

use std::sync::atomic::Ordering;
use std::{fs, io};

use rusqlite::ErrorCode;
use rusqlite::config::DbConfig;

use super::database_file::FileState;
use super::open::{self, OpenError};
use super::store::{Store, Trouble};
use super::wal;
use crate::limits::{CLOSE_WAIT_MAX, LOCKED_TIME_MAX};

impl Store {
    /// Whether the database is opened anew before the next rows are written: its file was deleted, moved or replaced,
    /// or is damaged.
    pub fn must_reopen(&self) -> bool {
        self.is_troubled() || self.file_state() != FileState::Held
    }

    /// The same without a look at the files, which writing does.
    pub(super) fn is_troubled(&self) -> bool {
        self.is_stuck() || matches!(self.trouble, Some(Trouble::Damaged | Trouble::Closed))
    }

    /// Whether the database has been locked for longer than other programs have a reason to, or cannot be locked: a lock
    /// of this process may not have been released.
    pub fn is_stuck(&self) -> bool {
        match self.trouble {
            Some(Trouble::LockingFailed) => true,
            Some(Trouble::Locked(since)) => since.elapsed() >= LOCKED_TIME_MAX,
            Some(Trouble::Damaged | Trouble::Closed) | None => false,
        }
    }

    /// What became of the files.
    pub fn file_state(&self) -> FileState {
        match self.files.file_state() {
            _ if self.is_closed() => FileState::Held,
            FileState::LogShort if self.is_log_whole() => FileState::Held,
            state => state,
        }
    }

    fn is_closed(&self) -> bool {
        self.trouble == Some(Trouble::Closed)
    }

    pub(super) fn is_held(&self) -> bool {
        !self.is_closed() && (self.files.is_held() || self.file_state() == FileState::Held)
    }

    /// Whether the log has all that is in use of it: another process may have emptied it into the database.
    fn is_log_whole(&self) -> bool {
        let Ok(in_use) = wal::bytes_in_use(&self.conn) else { return false };
        let whole = self.log_length() >= in_use;
        if whole {
            self.files.log_bytes.store(in_use, Ordering::Relaxed);
        }
        whole
    }

    /// Opens the database at its path anew, after all connections of this process to the one before were closed. Until
    /// that succeeds nothing is written: rows in a file that is gone are lost. What stood in that file stays there; what
    /// stood in its log is moved into it before, as far as it is at hand.
    /// Nothing is removed before the file at the path is known to be one that can be opened.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        if let Some(lock) = &mut self.lock {
            lock.renew()?;
        }
        let path = self.files.path.clone();
        let connections = self.connections.clone();
        let in_use =
            || OpenError(format!("{} is still being read, and is opened anew as soon as it is not", path.display()));
        let _closed = connections.close_all(CLOSE_WAIT_MAX).ok_or_else(in_use)?;
        if !self.is_closed() {
            self.part()?;
        }
        let fresh = Store::open(&path, self.sync)?;
        let key = self.key.or(fresh.key);
        if let (Some(key), Ok(0)) = (key, fresh.row_count()) {
            // The rows to come have their credentials fingerprinted with the secret of this run.
            let _ = fresh.conn.execute("UPDATE meta SET value = ?1 WHERE name = 'fingerprint_key'", [key]);
        }
        let (lock, hashes) = (self.lock.take(), self.hashes.clone());
        *self = Store { lock, connections: connections.clone(), key, hashes, ..fresh };
        Ok(())
    }

    /// Saves what is at hand of the database that is open, and closes it.
    fn part(&mut self) -> Result<(), OpenError> {
        let path = self.files.path.clone();
        let failed = |e: rusqlite::Error| open::explain(&path, &e);
        let aside = |e: io::Error| OpenError::unwritable(&path, e);
        match self.file_state() {
            FileState::Held => {}
            FileState::LogGone => {
                wal::empty(&self.conn).map_err(failed)?;
                if !self.files.has_its_log() {
                    self.files.put_log_aside().map_err(aside)?;
                }
            }
            FileState::LogShort => {
                let (frames, moved) = wal::frames_of(&self.conn).map_err(failed)?;
                let moved_bytes = wal::bytes_of_frames(moved, wal::page_bytes(&self.conn).map_err(failed)?);
                // What is left of the log would take the database back to before its last checkpoint.
                if moved == frames || self.log_length() < moved_bytes {
                    self.files.put_log_aside().map_err(aside)?;
                }
            }
            FileState::Taken | FileState::Gone => {
                // A file that was only moved has all its rows then, also without the log that is left behind.
                match wal::empty(&self.conn) {
                    Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => return Err(failed(e)),
                    // It may be the damaged one that was moved away.
                    Ok(()) | Err(_) => {}
                }
                open::look(&path)?;
                self.files.clear();
            }
        }
        // What there was to save is saved; closing shall not touch files that may be another database's.
        let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        self.close();
        Ok(())
    }

    fn log_length(&self) -> u64 {
        fs::metadata(&self.files.log_path).map_or(0, |log| log.len())
    }
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use rusqlite::Connection;

    use super::*;
    use crate::record::store::{DbSync, is_failed_locking};
    use crate::testing::{Folder, row};

    fn store() -> (Store, Folder) {
        let folder = Folder::new();
        (Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens"), folder)
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
        let (store, folder) = check_found_again(rename, &[1]);
        let old = Store::open(&folder.join("old.db"), DbSync::Normal).expect("opens");
        assert_eq!((store.row_count(), old.row_count()), (Ok(1), Ok(1)));
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
    fn a_lock_of_this_process_that_is_not_released_goes_with_its_connection() {
        let (mut store, folder) = store();
        let long_ago = Some(Trouble::Locked(Instant::now() - LOCKED_TIME_MAX));
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
        store.trouble = long_ago;
        store.write(&[row()]).expect_err("locked as ever");
        assert!(store.must_reopen());
        store.reopen().expect("opens");
        assert!(!store.must_reopen() && stuck.with(|held| held.is_none()));
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
        // What another process holds, opening does not change; it is waited for as ever.
        let foreign = Connection::open(folder.join("metrics.db")).expect("opens");
        foreign.execute_batch("BEGIN IMMEDIATE").expect("locks");
        store.set_lock_wait(Duration::ZERO);
        store.write(&[row()]).expect_err("locked");
        store.trouble = long_ago;
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
        store.transact(|_, _| Err::<(), _>(failure())).expect_err("locking fails");
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
}
