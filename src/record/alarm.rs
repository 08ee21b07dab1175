//! What wakes the keeper.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Wakes the keeper.
#[derive(Default)]
pub struct Alarm {
    state: Mutex<AlarmState>,
    bell: Condvar,
}

/// What the keeper is woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlarmState {
    /// Rows wait for the database.
    pub rows_wait: bool,
    /// Rows are committed that the sums do not hold yet.
    pub rows_unsummed: bool,
    /// The write-ahead log may have grown enough to be checkpointed.
    pub log_grew: bool,
    /// The proxy ends.
    pub stop: bool,
}

impl Alarm {
    /// Raises the alarm.
    pub fn raise(&self, what: impl FnOnce(&mut AlarmState)) {
        what(&mut self.state());
        self.bell.notify_one();
    }

    /// Waits until there is something to do, and takes it. `at_most`: also comes back after that.
    pub fn wait(&self, at_most: Option<Duration>) -> AlarmState {
        let quiet = |state: &mut AlarmState| *state == AlarmState::default();
        let mut state = match at_most {
            None => self.bell.wait_while(self.state(), quiet).unwrap_or_else(PoisonError::into_inner),
            Some(at_most) => {
                let waited = self.bell.wait_timeout_while(self.state(), at_most, quiet);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let stop = state.stop;
        AlarmState { stop, ..mem::replace(&mut *state, AlarmState { stop, ..AlarmState::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, AlarmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
