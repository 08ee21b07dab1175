//! Who writes a database: a lock on a file beside it (`metrics.db-lock`), so that a second proxy on it does not start
//! unnoticed.
//!
//! ```text
//!  alone ───▶ exclusive lock ──(held by another)──▶ refused, with what the file says of the holder
//!  shared ──▶ shared lock ─────(held alone)───────▶ goes on without, and says so
//! ```
//!
//! The lock is the operating system's and ends with the process; the file that a killed one leaves is nobody's. The
//! database itself is not locked: SQLite has locks of its own on it, which on some systems are the same.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::database_file::{FileId, beside, for_owner_alone};
use super::open::{self, OpenError};
use crate::limits::LOCK_FILE_BYTES_MAX;

/// A proxy that is to write a database.
#[derive(Clone, Debug)]
pub struct Holder {
    /// What another one is told of it.
    pub name: String,
    /// Whether others may write it, too (`DATABASE_SHARED`).
    pub shares: bool,
}

/// A database that is locked, until this is dropped.
#[derive(Debug)]
pub(super) struct DatabaseLock {
    database: PathBuf,
    writer: Holder,
    /// `None` where there can be no lock, or somebody else has it and it is shared.
    lock: Option<LockFile>,
}

#[derive(Debug)]
struct LockFile {
    path: PathBuf,
    file: File,
}

impl DatabaseLock {
    /// Locks the database at this path, whether or not it is there yet.
    pub(super) fn take(database: &Path, writer: Holder) -> Result<DatabaseLock, OpenError> {
        open::make_folder(database)?;
        warn_of_other_names(database);
        let mut database_lock = DatabaseLock { database: database.to_owned(), writer, lock: None };
        database_lock.lock()?;
        Ok(database_lock)
    }

    /// Before the path is opened anew: it may lead elsewhere by now, and the lock may be gone with its folder.
    pub(super) fn renew(&mut self) -> Result<(), OpenError> {
        open::make_folder(&self.database)?;
        let path = lock_path(&self.database);
        // Where there was none at the start either, why was said then.
        let is_lost = self.lock.as_ref().is_some_and(|lock| lock.path != path || !lock.is_there());
        if is_lost { self.lock() } else { Ok(()) }
    }

    fn lock(&mut self) -> Result<(), OpenError> {
        let path = lock_path(&self.database);
        self.lock = match LockFile::take(&path, &self.writer) {
            Ok(lock) => Some(lock),
            Err(TryLockError::WouldBlock) if self.writer.shares => {
                log::warn!("{} is also written by another proxy ({})", self.database.display(), holder(&path));
                None
            }
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError(format!(
                    "{} is written by another proxy ({}): stop that one, choose another file in DATABASE_URL, or let both \
                     write to it with DATABASE_SHARED=true",
                    self.database.display(),
                    holder(&path)
                )));
            }
            Err(TryLockError::Error(e)) => {
                log::warn!("a second proxy on the same database would not be noticed: {} ({e})", path.display());
                None
            }
        };
        Ok(())
    }
}

impl LockFile {
    fn take(path: &Path, writer: &Holder) -> Result<LockFile, TryLockError> {
        loop {
            let file = for_owner_alone().create(true).truncate(false).open(path).map_err(TryLockError::Error)?;
            let locked = if writer.shares { file.try_lock_shared() } else { file.try_lock() };
            locked?;
            let lock = LockFile { path: path.to_owned(), file };
            // The holder before removes its file when it ends: then this was the lock of a file without a name.
            if lock.is_there() {
                // Says who holds it. On a full disk nobody is told, and the lock holds all the same.
                let said = format!("{}\n", writer.name);
                let _ = lock.file.set_len(0).and_then(|()| (&lock.file).write_all(said.as_bytes()));
                return Ok(lock);
            }
        }
    }

    fn is_there(&self) -> bool {
        FileId::of(&self.path).is_some_and(|id| Some(id) == FileId::of_file(&self.file))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Others may share it: who is the last one removes it, as long as it holds it alone.
        if self.file.unlock().is_ok() && self.file.try_lock().is_ok() && self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn lock_path(database: &Path) -> PathBuf {
    beside(database, "-lock")
}

/// What the holder wrote, as far as it is fit for one line. Where a lock keeps others from reading, nobody is told.
fn holder(path: &Path) -> String {
    let mut bytes = Vec::new();
    let _ = File::open(path).and_then(|file| file.take(LOCK_FILE_BYTES_MAX).read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let line: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if line.is_empty() { "which did not say who it is".to_owned() } else { line }
}

/// SQLite keeps a log for each name of a file: two that are written under different ones destroy it, and the lock is
/// beside one name only.
fn warn_of_other_names(database: &Path) {
    #[cfg(unix)]
    if let Ok(metadata) = fs::metadata(database)
        && metadata.is_file()
    {
        let names = std::os::unix::fs::MetadataExt::nlink(&metadata);
        if names > 1 {
            log::warn!(
                "{} has {names} names (hard links): opened under another one while the proxy runs, it would be damaged",
                database.display()
            );
        }
    }
    #[cfg(not(unix))]
    let _ = database;
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::record::store::{DbSync, Store};
    use crate::testing::Folder;
    #[cfg(unix)]
    use crate::testing::row;

    fn writer(name: &str, shares: bool) -> Holder {
        Holder { name: name.to_owned(), shares }
    }

    fn refused(database: &Path, shares: bool) -> String {
        DatabaseLock::take(database, writer("the second", shares)).expect_err("it is held").to_string()
    }

    #[test]
    fn what_is_claimed_is_refused_with_who_holds_it_until_it_is_let_go() {
        let folder = Folder::new();
        let path = folder.join("sub/metrics.db");
        let first = DatabaseLock::take(&path, writer("process 7", false)).expect("nobody has it");
        assert!(refused(&path, false).contains("(process 7)"), "{}", refused(&path, false));
        drop(first);
        assert!(!folder.join("sub/metrics.db-lock").exists());
        // What a killed process left is nobody's.
        fs::write(folder.join("sub/metrics.db-lock"), "process 8, which is long gone\n").expect("written");
        let _third = DatabaseLock::take(&path, writer("process 9", false)).expect("nobody has it");
        assert!(refused(&path, false).contains("(process 9)"));
    }

    #[test]
    fn who_shares_it_goes_on_and_keeps_out_who_does_not() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let alone = DatabaseLock::take(&path, writer("one", false)).expect("nobody has it");
        let beside = DatabaseLock::take(&path, writer("two", true)).expect("it knows");
        drop(alone);
        drop(beside);
        let first = DatabaseLock::take(&path, writer("three", true)).expect("nobody has it");
        let second = DatabaseLock::take(&path, writer("four", true)).expect("it is shared");
        assert!(refused(&path, false).contains("(four)"));
        drop(second);
        assert!(refused(&path, false).contains("another proxy"), "one is left");
        drop(first);
        assert!(!folder.join("metrics.db-lock").exists());
    }

    #[cfg(unix)]
    #[test]
    fn another_path_to_the_same_database_is_the_same_claim() {
        let folder = Folder::new();
        fs::create_dir(folder.join("real")).expect("made");
        fs::write(folder.join("real/metrics.db"), "").expect("written");
        std::os::unix::fs::symlink(folder.join("real"), folder.join("link")).expect("linked");
        std::os::unix::fs::symlink("real/metrics.db", folder.join("other.db")).expect("linked");
        let _first = DatabaseLock::take(&folder.join("real/metrics.db"), writer("one", false)).expect("nobody has it");
        for path in ["link/metrics.db", "other.db", "real/../real/metrics.db"] {
            assert!(refused(&folder.join(path), false).contains("(one)"), "{path}");
        }
    }

    #[test]
    fn where_there_can_be_no_lock_there_is_none() {
        let folder = Folder::new();
        fs::create_dir(folder.join("metrics.db-lock")).expect("made");
        let database_lock = DatabaseLock::take(&folder.join("metrics.db"), writer("one", false)).expect("goes on");
        assert!(database_lock.lock.is_none());
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_was_moved_away_is_claimed_anew_where_it_was() {
        let folder = Folder::new();
        let path = folder.join("disk/metrics.db");
        let mut store = Store::open_locked(&path, DbSync::Normal, writer("one", false)).expect("opens");
        let moved = |to: &str| fs::rename(folder.join("disk"), folder.join(to)).expect("renamed");
        moved("old");
        store.reopen().expect("opens");
        assert!(refused(&path, false).contains("(one)"));
        Store::open_locked(&folder.join("old/metrics.db"), DbSync::Normal, writer("two", false))
            .expect("it was let go");
        // Somebody else takes the place first.
        moved("older");
        let other = Store::open_locked(&path, DbSync::Normal, writer("three", false)).expect("nobody has it");
        assert!(store.reopen().expect_err("held").to_string().contains("(three)"));
        store.write(&[row()]).expect_err("not in that file");
        drop(other);
        store.reopen().expect("opens");
        assert_eq!(store.write(&[row()]), Ok(vec![1]));
    }
}
