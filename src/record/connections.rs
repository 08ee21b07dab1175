//! The connections of this process to the database, beside the one that writes rows.
//!
//! SQLite keeps locks and the index of the write-ahead log once for all connections of a process to a file. A lock whose
//! release failed, and the index of a log that is gone, stay for as long as one of them is open. So each lies in a slot,
//! from where who opens the database anew can close it; it is used only while none is closed, and its owner opens
//! another one when it is wanted next.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::database_file::FileId;
use crate::bell::lock;

/// How soon those in use are tried again.
const GAP: Duration = Duration::from_millis(1);

/// All of them.
#[derive(Debug, Default)]
pub struct Connections {
    /// Held for reading while one is used, for writing while all are closed.
    used: RwLock<()>,
    slots: Mutex<Vec<Weak<dyn Close>>>,
}

/// Where a connection lies, or what reads through it; empty until it is wanted, and again when it was closed.
#[derive(Debug)]
pub struct ConnectionSlot<T> {
    all: Arc<Connections>,
    held: Arc<Mutex<Option<T>>>,
}

trait Close: Send + Sync {
    fn close(&self);
}

impl<T: Send> Close for Mutex<Option<T>> {
    fn close(&self) {
        *lock(self) = None;
    }
}

impl Connections {
    /// A new one, empty.
    pub fn slot<T: Send + 'static>(self: &Arc<Connections>) -> ConnectionSlot<T> {
        let held = Arc::new(Mutex::new(None));
        let mut slots = lock(&self.slots);
        slots.retain(|slot| slot.strong_count() > 0);
        let own: Arc<dyn Close> = held.clone();
        slots.push(Arc::downgrade(&own));
        ConnectionSlot { all: self.clone(), held }
    }

    /// Closes all of them; none is opened before the answer is dropped. `None` where one is in use for longer than
    /// given: its user may be waiting for who asks.
    pub(super) fn close_all(&self, at_most: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        let end = Instant::now() + at_most;
        let closed = loop {
            match self.used.try_write() {
                Ok(closed) => break closed,
                Err(TryLockError::Poisoned(closed)) => break closed.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(GAP),
                Err(TryLockError::WouldBlock) => return None,
            }
        };
        lock(&self.slots).iter().filter_map(Weak::upgrade).for_each(|slot| slot.close());
        Some(closed)
    }
}

impl<T> Clone for ConnectionSlot<T> {
    fn clone(&self) -> ConnectionSlot<T> {
        ConnectionSlot { all: self.all.clone(), held: self.held.clone() }
    }
}

impl<T> ConnectionSlot<T> {
    /// Uses what lies there, or puts something there.
    pub fn with<R>(&self, work: impl FnOnce(&mut Option<T>) -> R) -> R {
        let _used = self.all.used.read().unwrap_or_else(PoisonError::into_inner);
        work(&mut lock(&self.held))
    }
}

impl<T> ConnectionSlot<(Option<FileId>, T)> {
    /// Uses what lies there if it was opened at the file that `path` leads to now; else another one is opened, as it is
    /// after an error. Before, `find` has who writes look for the database: beside a file that took its place the log of
    /// the one before still lies, and would be read, and moved, into it.
    pub fn with_file<R>(
        &self,
        path: &Path,
        find: impl FnOnce(),
        open: impl FnOnce() -> rusqlite::Result<T>,
        work: impl FnOnce(&T) -> rusqlite::Result<R>,
    ) -> rusqlite::Result<R> {
        let is_at = |(of, _): &(Option<FileId>, T), file: Option<FileId>| file.is_some() && *of == file;
        // While none is used: whoever finds it elsewhere closes them all.
        if !self.with(|held| held.as_ref().is_some_and(|open| is_at(open, FileId::of(path)))) {
            find();
        }
        let file = FileId::of(path);
        self.with(|held| {
            let (_, connection) = match held.take() {
                Some(open) if is_at(&open, file) => held.insert(open),
                _ => {
                    let connection = open()?;
                    held.insert((FileId::of(path), connection))
                }
            };
            let worked = work(connection);
            if worked.is_err() {
                *held = None;
            }
            worked
        })
    }
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use std::cell::Cell;

    use super::*;
    #[cfg(unix)]
    use crate::testing::Folder;

    #[test]
    fn all_are_closed_unless_one_is_in_use() {
        let all = Arc::new(Connections::default());
        let (one, other) = (all.slot::<u8>(), all.slot::<String>());
        one.with(|held| *held = Some(1));
        other.with(|held| {
            *held = Some(String::new());
            assert!(all.close_all(Duration::ZERO).is_none());
        });
        assert_eq!(one.with(|held| *held), Some(1));
        drop(all.close_all(Duration::ZERO).expect("none is in use"));
        assert_eq!((one.with(|held| *held), other.with(|held| held.clone())), (None, None));
    }

    #[cfg(unix)]
    #[test]
    fn the_database_is_found_before_another_file_is_opened_while_none_is_used() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let all = Arc::new(Connections::default());
        let slot = all.slot::<(Option<FileId>, u8)>();
        let used = |number: u8| {
            let found = Cell::new(false);
            let find = || {
                found.set(true);
                assert!(all.close_all(Duration::ZERO).is_some());
            };
            let used = slot.with_file(&path, find, || Ok(number), |held| Ok(*held));
            (used, found.get())
        };
        std::fs::write(&path, "one").expect("written");
        assert_eq!(used(1), (Ok(1), true));
        assert_eq!(used(2), (Ok(1), false), "the same file");
        std::fs::write(folder.join("other.db"), "other").expect("written");
        std::fs::rename(folder.join("other.db"), &path).expect("renamed");
        assert_eq!(used(3), (Ok(3), true));
        std::fs::remove_file(&path).expect("removed");
        assert_eq!((used(4), used(5)), ((Ok(4), true), (Ok(5), true)), "no file is the same as none");
    }
}
