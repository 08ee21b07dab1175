//! How many connections are begun at a time.
//!
//! What a server has not accepted yet waits in a queue of its system, 128 long or less. One connection too many, and its
//! SYN is dropped and sent again a second later. So a dial needs a permit, and there are few; whoever finds none waits, in
//! order. The permit is free again when upstream has sent a byte, for then it has accepted the connection; or after a
//! while, for a model may think for minutes, and an address may never answer: nobody waits for another's.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::Instant;

use super::wire::state::{Look, WireState};
use crate::bell::lock;
use crate::limits::{DIAL_TIME_MAX, DIALS_MAX};

/// The permits.
#[derive(Default)]
pub struct Permits(Mutex<State>);

/// One of them, until it is dropped.
pub struct Permit {
    permits: Arc<Permits>,
    ticket: u64,
}

#[derive(Default)]
struct State {
    tickets: u64,
    /// Permits taken, and since when.
    taken: VecDeque<(u64, Instant)>,
    /// Who waits, in order, and is woken.
    waiting: VecDeque<(u64, Thread)>,
}

impl State {
    fn queue_up(&mut self, who: Thread) -> u64 {
        self.tickets += 1;
        self.waiting.push_back((self.tickets, who));
        self.tickets
    }

    /// Whether it is this ticket's turn: then it has its permit. If not, when that may change by itself.
    fn look(&mut self, ticket: u64, now: Instant) -> Look<()> {
        if self.waiting.front().is_none_or(|(first, _)| *first != ticket) {
            return Look::NotYet(None);
        }
        let old = self.taken.iter().take_while(|(_, since)| *since + DIAL_TIME_MAX <= now).count();
        self.taken.drain(..old);
        if let Some((_, eldest)) = self.taken.front()
            && self.taken.len() >= DIALS_MAX
        {
            return Look::NotYet(Some(*eldest + DIAL_TIME_MAX));
        }
        self.waiting.pop_front();
        self.taken.push_back((ticket, now));
        Look::Found(())
    }

    /// The ticket is worth nothing any more, whether it had its permit or not.
    fn give_up(&mut self, ticket: u64) {
        self.waiting.retain(|(other, _)| *other != ticket);
        self.taken.retain(|(other, _)| *other != ticket);
    }

    /// Whose turn is next.
    fn next(&self) -> Option<&Thread> {
        self.waiting.front().map(|(_, who)| who)
    }
}

impl Permits {
    /// Waits for a permit, until `deadline` (an error of kind `TimedOut`) or until the exchange is called off.
    pub fn take(self: &Arc<Permits>, wire: &WireState, deadline: Instant) -> io::Result<Permit> {
        let ticket = self.state().queue_up(thread::current());
        // Given up by an error, too.
        let permit = Permit { permits: self.clone(), ticket };
        wire.wait(deadline, |now| self.state().look(ticket, now))?;
        self.wake_next();
        Ok(permit)
    }

    fn wake_next(&self) {
        if let Some(next) = self.state().next() {
            next.unpark();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.state().give_up(self.ticket);
        self.permits.wake_next();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::client::Interrupt;

    fn full() -> (State, Instant) {
        let (mut state, now) = (State::default(), Instant::now());
        for _ in 0..DIALS_MAX {
            let ticket = state.queue_up(thread::current());
            assert!(is_found(state.look(ticket, now)));
        }
        (state, now)
    }

    fn is_found(look: Look<()>) -> bool {
        matches!(look, Look::Found(()))
    }

    #[test]
    fn those_beyond_wait_in_order() {
        let (mut state, now) = full();
        let [second, third] = [(), ()].map(|()| state.queue_up(thread::current()));
        assert!(matches!(state.look(second, now), Look::NotYet(Some(at)) if at == now + DIAL_TIME_MAX));
        state.give_up(1);
        assert!(matches!(state.look(third, now), Look::NotYet(None)), "not before its turn");
        assert!(is_found(state.look(second, now)));
        assert!(!is_found(state.look(third, now)));
        state.give_up(second);
        assert!(is_found(state.look(third, now)));
    }

    #[test]
    fn who_gives_up_waiting_leaves_the_turn_to_the_next() {
        let (mut state, now) = full();
        let [second, third] = [(), ()].map(|()| state.queue_up(thread::current()));
        state.give_up(second);
        state.give_up(1);
        assert!(is_found(state.look(third, now)));
    }

    #[test]
    fn a_dial_that_nobody_answers_keeps_its_place_for_a_moment_only() {
        let (mut state, now) = full();
        let waiting: Vec<u64> = (0..2 * DIALS_MAX).map(|_| state.queue_up(thread::current())).collect();
        let just_before = now + DIAL_TIME_MAX - Duration::from_nanos(1);
        assert!(!is_found(state.look(waiting[0], just_before)));
        // However many there are, each is free then; those who took them have as long.
        let then = now + DIAL_TIME_MAX;
        assert!(waiting[..DIALS_MAX].iter().all(|ticket| is_found(state.look(*ticket, then))));
        assert!(!is_found(state.look(waiting[DIALS_MAX], then)));
        assert!(is_found(state.look(waiting[DIALS_MAX], then + DIAL_TIME_MAX)));
        // What was given up twice frees none of the others.
        state.give_up(1);
        assert_eq!(state.taken.len(), 1);
    }

    #[test]
    fn who_waits_for_a_place_is_let_go_when_called_off_or_late() {
        let permits = Arc::new(Permits::default());
        let take = |wire: &WireState, at: Instant| permits.take(wire, at).map_err(|e| e.kind());
        let far = Instant::now() + Duration::from_secs(60);
        // Taken an hour from now, in which nobody's time is over.
        let held: Vec<u64> = (0..DIALS_MAX as u64).map(|ticket| u64::MAX - ticket).collect();
        permits.state().taken = held.iter().map(|ticket| (*ticket, far + Duration::from_secs(3600))).collect();
        assert_eq!(take(&WireState::default(), Instant::now()).err(), Some(io::ErrorKind::TimedOut));
        let wire = WireState::default();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| take(&wire, far).err());
            while permits.state().waiting.is_empty() {
                thread::yield_now();
            }
            let behind = scope.spawn(|| take(&WireState::default(), far).err());
            while permits.state().waiting.len() < 2 {
                thread::yield_now();
            }
            wire.interrupt();
            assert_eq!(waiting.join().expect("no panic"), Some(io::ErrorKind::ConnectionAborted));
            // One permit becomes free: who stood behind has it.
            drop(Permit { permits: permits.clone(), ticket: held[0] });
            assert_eq!(behind.join().expect("no panic"), None);
        });
        let state = permits.state();
        assert_eq!((state.waiting.len(), state.taken.len()), (0, DIALS_MAX - 1));
    }
}
