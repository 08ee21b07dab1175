//! Stopping: nobody new is let in, what runs is finished within the grace, then called off.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::{CalledOff, Returns};
use super::gather::Waiting;
use super::{Front, Next, Role, State};

/// Tells the front to stop. Each call counts: the first lets running exchanges finish.
#[derive(Default)]
pub struct Stop {
    asked: AtomicU32,
    /// The loops.
    sleepers: Mutex<Vec<Arc<Returns>>>,
}

impl Stop {
    /// Asks the front to stop; how often it was asked before.
    pub fn ask(&self) -> u32 {
        let before = self.asked.fetch_add(1, Ordering::AcqRel);
        self.sleepers().iter().for_each(|returns| returns.wake());
        before
    }

    /// Whether it was asked at all.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire) > 0
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
