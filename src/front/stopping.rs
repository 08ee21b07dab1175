//! Stopping: nobody new is let in, what runs is finished within the grace, then called off.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::client::{CalledOff, Returns};
use super::gather::Waiting;
use super::{Front, Next, Role, State};
use crate::limits::SAME_SIGNAL_TIME_MAX;

/// Tells the front to stop.
#[derive(Default)]
pub struct Stop {
    /// When it was asked first.
    asked: OnceLock<Instant>,
    /// The loops.
    sleepers: Mutex<Vec<Arc<Returns>>>,
}

/// What asking the front to stop amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It stops from now on, and running exchanges may finish.
    First,
    /// The first, come twice.
    Same,
    /// Whoever asks wants no more waiting.
    Again,
}

impl Stop {
    /// Asks the front to stop.
    pub fn ask(&self, now: Instant) -> Asked {
        let is_again = |first: &Instant| now.saturating_duration_since(*first) >= SAME_SIGNAL_TIME_MAX;
        let asked = match self.asked.set(now) {
            Ok(()) => Asked::First,
            Err(_) if self.asked.get().is_some_and(is_again) => Asked::Again,
            Err(_) => Asked::Same,
        };
        self.sleepers().iter().for_each(|returns| returns.wake());
        asked
    }

    /// Whether it was asked at all.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.get().is_some()
    }

    /// From now on stopping wakes this loop, too.
    pub(super) fn wakes(&self, returns: Arc<Returns>) {
        self.sleepers().push(returns.clone());
        // Whoever asked meanwhile has not seen it.
        if self.is_asked() {
            returns.wake();
        }
    }

    fn sleepers(&self) -> MutexGuard<'_, Vec<Arc<Returns>>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far stopping has come.
pub(super) struct Stopping {
    pub(super) grace_ends_ms: u64,
    pub(super) called_off: bool,
}

impl Front {
    /// Goes on stopping; true when nothing is left to wait for.
    pub(super) fn stopped(&mut self) -> bool {
        let now_ms = self.now_ms();
        if self.stopping.is_none() {
            self.listener = None;
            self.accept_again_ms = None;
            self.common.statistics.close();
            self.stopping =
                Some(Stopping { grace_ends_ms: now_ms + self.common.grace.as_millis() as u64, called_off: false });
            if let Role::Express { guests, .. } = &self.role {
                guests.close().into_iter().for_each(|guest| self.welcome(guest));
            }
            // What has arrived is still answered; who idles is closed. Whoever gives back from now on wakes the front.
            for token in 0..self.connections.len() {
                if let Some(Some(connection)) = self.connections.get(token) {
                    connection.client.note_event();
                }
                self.reclaim(token);
                self.step(token, |front, token, connection| {
                    let is_parked = matches!(connection.state, State::Parked { .. });
                    if is_parked { front.go_on(token, connection) } else { Next::Keep }
                });
            }
        }
        for token in 0..self.connections.len() {
            self.reclaim(token);
            self.step(token, |_, _, connection| match connection.state {
                State::Parked { .. } if connection.gather.waiting() == Waiting::Idle => Next::Drop,
                // Its reply was sent whole, and it has nothing more to say that a close would answer with a reset.
                State::Lingering { drained: 0, .. } => Next::Drop,
                State::Parked { .. }
                | State::Lent { .. }
                | State::Writing { .. }
                | State::Draining { .. }
                | State::Lingering { .. }
                | State::Moving(_) => Next::Keep,
            });
        }
        let grace_over = self.stopping.as_ref().is_some_and(|s| s.grace_ends_ms <= now_ms);
        if grace_over
            && let Some(stopping) = &mut self.stopping
            && !stopping.called_off
        {
            stopping.called_off = true;
            for connection in self.connections.iter().flatten() {
                if let State::Lent { .. } = connection.state {
                    connection.client.call_off(CalledOff::Shutdown);
                }
            }
        }
        let running = self.connections.iter().flatten().any(|connection| match connection.state {
            State::Lent { .. } | State::Moving(_) => true,
            State::Parked { .. } | State::Writing { .. } | State::Draining { .. } | State::Lingering { .. } => {
                !grace_over
            }
        });
        !running
    }

    /// A connection that was given back without a word is parked.
    pub(super) fn reclaim(&mut self, token: usize) {
        if let Some(Some(connection)) = self.connections.get_mut(token)
            && let State::Lent { .. } = connection.state
            && connection.client.is_given_back()
        {
            connection.state = State::Parked { since_ms: connection.client.given_back_ms() };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_signals_that_come_together_are_one() {
        let (stop, first) = (Stop::default(), Instant::now());
        assert!(!stop.is_asked());
        let asked = [0, 0, 1, 499, 500, 501, 60_000].map(|ms| stop.ask(first + Duration::from_millis(ms)));
        let (same, again) = (Asked::Same, Asked::Again);
        assert_eq!(asked, [Asked::First, same, same, same, again, again, again]);
        assert!(stop.is_asked());
        // Whoever read the clock before and asks later.
        assert_eq!(stop.ask(first), same);
    }
}
