//! When to look at a connection next. A heap with one live entry a connection: an entry that comes due is checked
//! against the connection's actual deadline, computed from its state, and put back where that lies later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Times are milliseconds on the front's clock.
#[derive(Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Deadlines {
    /// Look at `token` at `at_ms`. `scheduled` is the connection's own note of its earliest entry: a later deadline
    /// needs no new entry, for the earlier one will find it.
    pub fn schedule(&mut self, token: usize, at_ms: u64, scheduled: &mut Option<u64>) {
        if scheduled.is_none_or(|earlier| at_ms < earlier) {
            *scheduled = Some(at_ms);
            self.heap.push(Reverse((at_ms, token)));
        }
    }

    /// The next time anything is due.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one entry that is due: its time and its connection.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<(u64, usize)> {
        match self.heap.peek() {
            Some(Reverse((at, _))) if *at <= now_ms => self.heap.pop().map(|Reverse(entry)| entry),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_deadline_needs_no_second_entry() {
        let mut deadlines = Deadlines::default();
        let mut scheduled = None;
        deadlines.schedule(7, 100, &mut scheduled);
        deadlines.schedule(7, 200, &mut scheduled);
        assert_eq!(deadlines.heap.len(), 1);
        deadlines.schedule(7, 50, &mut scheduled);
        assert_eq!(deadlines.next(), Some(50));
    }

    #[test]
    fn entries_come_due_in_order_and_not_before() {
        let mut deadlines = Deadlines::default();
        deadlines.schedule(1, 30, &mut None);
        deadlines.schedule(2, 10, &mut None);
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(30), Some((10, 2)));
        assert_eq!(deadlines.pop_due(30), Some((30, 1)));
        assert_eq!(deadlines.pop_due(30), None);
    }
}
