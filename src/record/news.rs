//! Says that rows were committed, to the one thread that may wait for it. While nobody waits, saying so is one atomic
//! load. What was committed is not said: the database knows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::place::FileId;

/// A bell between the threads that commit and the one that tells.
#[derive(Debug, Default)]
pub struct News {
    awaited: AtomicBool,
    rung: Mutex<bool>,
    bell: Condvar,
    begun: Mutex<Option<(FileId, i64)>>,
}

impl News {
    /// Rows were committed.
    pub fn note(&self) {
        if self.awaited.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// From now on [`News::note`] rings, or no longer.
    pub fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::SeqCst);
    }

    /// Wakes who waits, for whatever reason.
    pub fn ring(&self) {
        *self.rung() = true;
        self.bell.notify_one();
    }

    /// Waits until the bell has been rung, at most as long as given.
    pub fn wait(&self, at_most: Option<Duration>) {
        let quiet = |rung: &mut bool| !*rung;
        let mut rung = match at_most {
            None => self.bell.wait_while(self.rung(), quiet).unwrap_or_else(PoisonError::into_inner),
            Some(at_most) => {
                self.bell.wait_timeout_while(self.rung(), at_most, quiet).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        *rung = false;
    }

    /// Rows go into this file from now on, with higher ids than this one.
    pub(super) fn note_begun(&self, file: Option<FileId>, newest_id: i64) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = file.map(|file| (file, newest_id));
    }

    /// The newest id of this file when rows began to go there; `None` where they did from the start, or do not.
    pub fn begun_behind(&self, file: Option<FileId>) -> Option<i64> {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.filter(|begun| Some(begun.0) == file).map(|begun| begun.1)
    }

    fn rung(&self) -> MutexGuard<'_, bool> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
