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

trait Close: Send + Sync + std::fmt::Debug {
    fn close(&self);
}

impl<T: Send + std::fmt::Debug> Close for Mutex<Option<T>> {
    fn close(&self) {
        *lock(self) = None;
    }
}

impl Connections {
    /// A new one, empty.
    pub fn slot<T: Send + std::fmt::Debug + 'static>(self: &Arc<Connections>) -> ConnectionSlot<T> {
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
    /// after an error.
    pub fn with_file<R>(
        &self,
        path: &Path,
        open: impl FnOnce() -> rusqlite::Result<T>,
        work: impl FnOnce(&T) -> rusqlite::Result<R>,
    ) -> rusqlite::Result<R> {
        let file = FileId::of(path);
        self.with(|held| {
            let (_, connection) = match held.take() {
                Some(open) if open.0 == file && file.is_some() => held.insert(open),
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
    use super::*;

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
}
