//! Stopping: nobody new is let in, what runs is finished within the grace, then called off.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use super::connection::{Connection, State};
use super::{Front, Role};
use crate::bell::lock;
use crate::client::{CalledOff, Returns};
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
pub enum StopAsked {
    /// It stops from now on, and running exchanges may finish.
    First,
    /// The first, come twice.
    Same,
    /// Whoever asks wants no more waiting.
    Again,
}

impl Stop {
    /// Asks the front to stop.
    pub fn ask(&self, now: Instant) -> StopAsked {
        let is_again = |first: &Instant| now.saturating_duration_since(*first) >= SAME_SIGNAL_TIME_MAX;
        let asked = match self.asked.set(now) {
            Ok(()) => StopAsked::First,
            Err(_) if self.asked.get().is_some_and(is_again) => StopAsked::Again,
            Err(_) => StopAsked::Same,
        };
        self.sleepers().iter().for_each(|returns| returns.mailbox.wake());
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
            returns.mailbox.wake();
        }
    }

    fn sleepers(&self) -> MutexGuard<'_, Vec<Arc<Returns>>> {
        lock(&self.sleepers)
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
        if self.services.stopping.is_none() {
            self.begin_stopping(now_ms);
        }
        for token in self.connections.numbers() {
            self.step(token, Connection::wind_up);
        }
        let grace_over = self.services.stopping.as_ref().is_some_and(|s| s.grace_ends_ms <= now_ms);
        if grace_over && let Some(stopping) = &mut self.services.stopping {
            stopping.called_off = true;
            // In each turn: what began in the last moment goes on no longer, either.
            for token in self.connections.numbers() {
                self.step(token, |connection, around, _| connection.call_off(CalledOff::Shutdown, around));
            }
        }
        let running = self.connections.iter().any(|connection| match connection.state {
            State::Lent(_) | State::Flowing(..) | State::Tunnelled(..) => true,
            State::Parked { .. } | State::Writing { .. } | State::Draining { .. } | State::Lingering { .. } => {
                !grace_over
            }
        });
        !running
    }

    fn begin_stopping(&mut self, now_ms: u64) {
        self.listener = None;
        self.accept_again_ms = None;
        let common = &self.services.common;
        common.statistics.close();
        let grace_ends_ms = now_ms + common.grace.as_millis() as u64;
        self.services.stopping = Some(Stopping { grace_ends_ms, called_off: false });
        if let Role::Lane(arrivals) = &self.services.role {
            arrivals.close().into_iter().for_each(|moved| self.welcome(moved));
        }
        for token in self.connections.numbers() {
            self.step(token, Connection::stop);
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
        let (same, again) = (StopAsked::Same, StopAsked::Again);
        assert_eq!(asked, [StopAsked::First, same, same, same, again, again, again]);
        assert!(stop.is_asked());
        // Whoever read the clock before and asks later.
        assert_eq!(stop.ask(first), same);
    }
}
