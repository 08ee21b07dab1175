//! Which requests are begun, and which wait. At most `MAX_WORKERS` exchanges are in flight, whoever has them in hand.
//!
//! Of those few at a time ([`CONNECTING_MAX`]) are on their way to a connection to upstream: connections are begun in
//! turn anyway ([`super::permits`]), and what waits for its turn here takes no thread. 1000 streams at once took 520 threads
//! and 41 MB at the peak with a thread for each that waits, and 27 MB in turn, where nginx took 25.

use std::collections::VecDeque;

use crate::limits::{CONNECTING_MAX, QUEUE_LENGTH_MAX};

/// What is in flight, and what waits for it.
pub struct Admission<R> {
    in_flight_max: usize,
    in_flight: usize,
    /// Those of them that have yet to come to a connection.
    connecting: usize,
    queue: VecDeque<R>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted<R> {
    /// It is in flight, and connecting.
    Begun(R),
    /// It waits in the queue.
    Queued,
    /// The queue is full.
    Refused(R),
}

impl<R> Admission<R> {
    /// Nothing is in flight.
    pub fn new(in_flight_max: usize) -> Admission<R> {
        Admission { in_flight_max, in_flight: 0, connecting: 0, queue: VecDeque::new() }
    }

    /// A request has come.
    pub fn ask(&mut self, request: R) -> Admitted<R> {
        if self.is_full() {
            return Admitted::Refused(request);
        }
        self.queue.push_back(request);
        match self.next() {
            Some(request) => Admitted::Begun(request),
            None => Admitted::Queued,
        }
    }

    /// The first that waits, if it may begin.
    pub fn next(&mut self) -> Option<R> {
        if !self.may_begin() {
            return None;
        }
        let request = self.queue.pop_front()?;
        self.in_flight += 1;
        self.connecting += 1;
        Some(request)
    }

    fn may_begin(&self) -> bool {
        self.in_flight < self.in_flight_max && self.connecting < CONNECTING_MAX
    }

    /// Whether a request would begin at once.
    pub fn has_room(&self) -> bool {
        self.queue.is_empty() && self.may_begin()
    }

    /// Counts one that has a connection already; false when there is no room for it, or others come first.
    pub fn begin_connected(&mut self) -> bool {
        let room = self.in_flight < self.in_flight_max && self.queue.is_empty();
        self.in_flight += usize::from(room);
        room
    }

    /// One of those connecting is so no longer.
    pub fn connected(&mut self) {
        self.connecting -= 1;
    }

    /// An exchange is over.
    pub fn end(&mut self) {
        self.in_flight -= 1;
    }

    /// Whether no request more may wait: as many do as may wait for an exchange to end.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_LENGTH_MAX + self.in_flight_max.saturating_sub(self.in_flight)
    }

    /// Takes those out of the queue that have nothing to wait for. They leave a row and take no time, so they count for a
    /// moment beyond the limit.
    pub fn dismiss(&mut self, is_idle: impl Fn(&R) -> bool) -> VecDeque<R> {
        let (left, stay) = std::mem::take(&mut self.queue).into_iter().partition::<VecDeque<_>, _>(is_idle);
        self.queue = stay;
        self.in_flight += left.len();
        left
    }

    /// Exchanges begun and not ended.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Requests that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_in_flight_and_the_others_wait_in_order() {
        let mut admission = Admission::new(2);
        assert_eq!(admission.ask(1), Admitted::Begun(1));
        admission.connected();
        assert!(admission.begin_connected());
        assert_eq!((admission.ask(2), admission.ask(3)), (Admitted::Queued, Admitted::Queued));
        assert!(!admission.begin_connected());
        admission.end();
        assert!(!admission.begin_connected(), "who waits comes first");
        assert_eq!((admission.next(), admission.next()), (Some(2), None));
        assert_eq!((admission.in_flight(), admission.queued()), (2, 1));
    }

    #[test]
    fn few_at_a_time_are_connecting_and_nobody_overtakes() {
        let mut admission = Admission::new(1000);
        for request in 0..CONNECTING_MAX {
            assert_eq!(admission.ask(request), Admitted::Begun(request));
        }
        assert_eq!((admission.ask(7), admission.ask(8)), (Admitted::Queued, Admitted::Queued));
        assert_eq!(admission.next(), None);
        admission.connected();
        assert_eq!((admission.next(), admission.next()), (Some(7), None));
        // An exchange that ends has been connected, or has given that up.
        admission.connected();
        admission.end();
        assert_eq!(admission.ask(9), Admitted::Begun(8), "in order");
    }

    #[test]
    fn only_who_would_wait_for_an_exchange_to_end_can_be_refused() {
        let mut admission = Admission::new(CONNECTING_MAX + 10);
        let refused = |admission: &mut Admission<usize>| {
            (0..).find(|request| matches!(admission.ask(*request), Admitted::Refused(_))).expect("it is bounded")
        };
        assert_eq!(refused(&mut admission), CONNECTING_MAX + 10 + QUEUE_LENGTH_MAX);
        assert!(admission.is_full());
        // Those who have left make room.
        assert_eq!(admission.dismiss(|request| request % 2 == 0).len(), (10 + QUEUE_LENGTH_MAX) / 2);
        assert!(!admission.is_full());
    }
}
