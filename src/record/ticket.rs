//! How one thread learns what another did with its row.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Where a worker waits for its row: `Some` when it is decided, with the id if the row is in.
#[derive(Default)]
pub(super) struct Ticket {
    decided: Mutex<Option<Option<i64>>>,
    news: Condvar,
}

/// The committing thread's word to a worker that waits. Dropped unsaid, by a panic, it lets the worker go.
pub(super) struct Word(pub(super) Arc<Ticket>);

impl Ticket {
    pub(super) fn wait(&self) -> Option<i64> {
        let undecided = |decided: &mut Option<Option<i64>>| decided.is_none();
        let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = self.news.wait_while(decided, undecided).unwrap_or_else(PoisonError::into_inner);
        decided.flatten()
    }

    /// The first word counts.
    pub(super) fn decide(&self, id: Option<i64>) {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(id);
        self.news.notify_one();
    }
}

impl Drop for Word {
    fn drop(&mut self) {
        self.0.decide(None);
    }
}
