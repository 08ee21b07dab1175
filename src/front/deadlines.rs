//! When to look at a connection next. A heap with one live entry a token: what comes due is checked against the
//! connection's actual deadline, computed from its state, and put back where that lies later. An entry stays when its
//! connection goes, for the next one of that token: so there are few, however fast connections come and go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Times are milliseconds on the loop's clock.
#[derive(Default)]
pub struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, usize)>>,
    /// The earliest entry of each token.
    scheduled: Vec<Option<u64>>,
}

impl Deadlines {
    /// Look at `token` at `at_ms`. Where it is looked at earlier anyway, that will find the later deadline.
    pub fn schedule(&mut self, token: usize, at_ms: u64) {
        if self.scheduled.len() <= token {
            self.scheduled.resize(token + 1, None);
        }
        let scheduled = &mut self.scheduled[token];
        if scheduled.is_none_or(|earlier| at_ms < earlier) {
            *scheduled = Some(at_ms);
            self.heap.push(Reverse((at_ms, token)));
        }
    }

    /// The next time anything is due.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one that is due.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<usize> {
        while let Some(&Reverse((at, token))) = self.heap.peek()
            && at <= now_ms
        {
            self.heap.pop();
            // Otherwise an earlier one came in between.
            if self.scheduled[token] == Some(at) {
                self.scheduled[token] = None;
                return Some(token);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_deadline_needs_no_second_entry() {
        let mut deadlines = Deadlines::default();
        deadlines.schedule(7, 100);
        deadlines.schedule(7, 200);
        assert_eq!(deadlines.heap.len(), 1);
        deadlines.schedule(7, 50);
        assert_eq!(deadlines.next(), Some(50));
        assert_eq!(deadlines.pop_due(1000), Some(7));
        assert_eq!(deadlines.pop_due(1000), None, "once");
        // Whoever has the token next is looked at.
        deadlines.schedule(7, 300);
        assert_eq!(deadlines.next(), Some(300));
    }

    #[test]
    fn entries_come_due_in_order_and_not_before() {
        let mut deadlines = Deadlines::default();
        deadlines.schedule(1, 30);
        deadlines.schedule(2, 10);
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(30), Some(2));
        assert_eq!(deadlines.pop_due(30), Some(1));
        assert_eq!(deadlines.pop_due(30), None);
    }
}
