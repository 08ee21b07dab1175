//! Whether upstream can be reached, as far as connecting to it has shown. Nobody connects to find out.

use std::sync::atomic::{AtomicI64, Ordering};

/// Since when it can, or cannot: milliseconds since 1970-01-01T00:00:00Z, negative where it cannot; 0 is not known yet.
#[derive(Debug, Default)]
pub struct Reach(AtomicI64);

impl Reach {
    /// A connection came about at this time, or none did.
    pub fn note(&self, is_up: bool, now_ms: i64) {
        // Nearly always nothing has changed; where two threads disagree, the later one may win.
        if self.known().is_none_or(|(was_up, _)| was_up != is_up) {
            let now_ms = now_ms.max(1);
            self.0.store(if is_up { now_ms } else { -now_ms }, Ordering::Relaxed);
        }
    }

    /// Whether it can be reached, and since when that is so; `None` before the first attempt.
    pub fn known(&self) -> Option<(bool, i64)> {
        let since = self.0.load(Ordering::Relaxed);
        (since != 0).then_some((since > 0, since.abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_up_or_down_since_that_was_seen_first() {
        let reach = Reach::default();
        assert_eq!(reach.known(), None);
        for (is_up, now_ms, expected) in [
            (false, 5, (false, 5)),
            (false, 6, (false, 5)),
            (true, 7, (true, 7)),
            (true, 8, (true, 7)),
            (false, 9, (false, 9)),
        ] {
            reach.note(is_up, now_ms);
            assert_eq!(reach.known(), Some(expected));
        }
    }
}
