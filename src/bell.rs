//! A state under a lock, and who waits for it to change.
//!
//! No lock in this program is poisoned: a thread that panics ends one exchange, and what it held is whole again when its
//! guards are dropped.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Locks a mutex, also one under which somebody has panicked.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A state, and the threads that wait for it to become what they want.
#[derive(Debug, Default)]
pub struct Bell<T> {
    state: Mutex<T>,
    rung: Condvar,
}

impl<T> Bell<T> {
    /// Nobody waits yet.
    pub const fn new(state: T) -> Bell<T> {
        Bell { state: Mutex::new(state), rung: Condvar::new() }
    }

    /// The state. Whoever waits for a change of it must be woken with [`Bell::ring`].
    pub fn lock(&self) -> MutexGuard<'_, T> {
        lock(&self.state)
    }

    /// Changes the state, then wakes everybody who waits, so that they look at it.
    pub fn ring<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        // After the lock: whoever wakes can have it at once.
        self.rung.notify_all();
        result
    }

    /// Looks at the state now and whenever the bell rings, until `look` has found what it wants.
    pub fn wait<R>(&self, mut look: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return found;
            }
            state = self.rung.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same for `at_most` so long; `None` when it was not found by then.
    pub fn wait_for<R>(&self, at_most: Duration, mut look: impl FnMut(&mut T) -> Option<R>) -> Option<R> {
        let deadline = Instant::now() + at_most;
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return None;
            }
            state = self.rung.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    #[test]
    fn a_lock_outlives_a_panic_under_it() {
        let mutex = Mutex::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            *lock(&mutex) = 2;
            let _held = lock(&mutex);
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(*lock(&mutex), 2);
    }

    #[test]
    fn everybody_who_waits_sees_what_the_bell_was_rung_for() {
        // Each goes on only when its number has come, and calls the next one.
        let bell = &Bell::new(1);
        let called = thread::scope(|scope| {
            let waiting = [3, 1, 2].map(|number| {
                scope.spawn(move || {
                    bell.wait(|next| (*next == number).then_some(()));
                    bell.ring(|next| *next += 1);
                    number
                })
            });
            waiting.map(|thread| thread.join().expect("no panic"))
        });
        assert_eq!((called, *bell.lock()), ([3, 1, 2], 4));
    }

    #[test]
    fn what_was_rung_for_before_is_found_without_waiting_and_taken_once() {
        let bell = Bell::new(None);
        bell.ring(|state| *state = Some("job"));
        assert_eq!(bell.wait(Option::take), "job");
        assert_eq!(bell.wait_for(Duration::ZERO, Option::take), None);
    }

    #[test]
    fn a_wait_that_has_an_end_looks_once_more_then() {
        let (bell, mut looks) = (Bell::new(()), 0);
        let found = bell.wait_for(Duration::from_millis(1), |()| -> Option<()> {
            looks += 1;
            None
        });
        assert_eq!(found, None);
        assert!(looks >= 2, "{looks}");
    }

    #[test]
    fn ringing_ends_a_wait_that_has_an_end() {
        let bell = Bell::new(false);
        thread::scope(|scope| {
            let waiting =
                scope.spawn(|| bell.wait_for(Duration::from_secs(3600), |rung| std::mem::take(rung).then_some(())));
            bell.ring(|rung| *rung = true);
            assert_eq!(waiting.join().expect("no panic"), Some(()));
        });
        assert!(!*bell.lock());
    }
}
