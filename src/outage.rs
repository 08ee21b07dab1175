//! What goes wrong again and again, once for each request at worst: said when it begins, counted while it lasts, said
//! again every minute with how often meanwhile, and when it is over.
//!
//! Where the next request may fare better, an outage is over only when nothing has gone wrong for a while: a queue that
//! is full takes one, refuses ten, takes one.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::bell::lock;
use crate::limits::{OUTAGE_QUIET_TIME, OUTAGE_SAID_EVERY};

/// One thing that may go wrong.
#[derive(Debug, Default)]
pub struct Outage {
    /// Whether it lasts; looked at where things go well, without a lock.
    lasts: AtomicBool,
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    /// When a line was last written.
    said: Instant,
    /// When it last went wrong.
    last: Instant,
    /// How often since the last line.
    unsaid: u64,
    /// How often in all.
    count: u64,
}

/// How often it went wrong since the last line, as the end of the next one.
fn told(unsaid: u64) -> String {
    if unsaid == 0 { String::new() } else { format!(" ({unsaid} times more since this was last said)") }
}

impl Outage {
    /// None, so far.
    pub const fn new() -> Outage {
        Outage { lasts: AtomicBool::new(false), state: Mutex::new(None) }
    }

    /// It went wrong: says so, where a line is due.
    pub fn warn(&self, what: impl fmt::Display) {
        self.say(log::Level::Warn, what);
    }

    /// The same of what its owner must look after.
    pub fn error(&self, what: impl fmt::Display) {
        self.say(log::Level::Error, what);
    }

    /// It went well: says `what` where that ends it, given how often it went wrong.
    pub fn over(&self, what: impl FnOnce(u64) -> String) {
        if let Some(count) = self.is_over(Instant::now) {
            log::warn!("{}", what(count));
        }
    }

    fn say(&self, level: log::Level, what: impl fmt::Display) {
        if let Some(unsaid) = self.note(Instant::now()) {
            log::log!(level, "{what}{}", told(unsaid));
        }
    }

    /// `Some` when a line is due, with how often it went wrong since the last one.
    fn note(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.state);
        let Some(lasting) = &mut *state else {
            *state = Some(State { said: now, last: now, unsaid: 0, count: 1 });
            self.lasts.store(true, Ordering::Relaxed);
            return Some(0);
        };
        lasting.last = now;
        lasting.count += 1;
        if now.saturating_duration_since(lasting.said) < OUTAGE_SAID_EVERY {
            lasting.unsaid += 1;
            return None;
        }
        lasting.said = now;
        Some(std::mem::take(&mut lasting.unsaid))
    }

    /// `Some` with how often it went wrong when that is over, and a line is due.
    fn is_over(&self, now: impl FnOnce() -> Instant) -> Option<u64> {
        if !self.lasts.load(Ordering::Relaxed) {
            return None;
        }
        let quiet = |state: &mut State| now().saturating_duration_since(state.last) >= OUTAGE_QUIET_TIME;
        let over = lock(&self.state).take_if(quiet)?;
        self.lasts.store(false, Ordering::Relaxed);
        Some(over.count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_said_when_it_begins_every_minute_and_when_it_is_over() {
        let (outage, began) = (Outage::new(), Instant::now());
        let at = |ms: u64| began + Duration::from_millis(ms);
        assert_eq!(outage.is_over(|| unreachable!("nothing lasts")), None);
        assert_eq!(outage.note(at(0)), Some(0));
        // For a minute and a half, each tenth of a second; what goes well in between ends nothing.
        let said: Vec<_> = (1..=900)
            .filter_map(|n| {
                assert_eq!(outage.is_over(|| at(n * 100)), None);
                outage.note(at(n * 100)).map(|unsaid| (n, unsaid))
            })
            .collect();
        assert_eq!(said, [(600, 599)]);
        assert_eq!(outage.is_over(|| at(90_000) + OUTAGE_QUIET_TIME), Some(901));
        assert_eq!(outage.is_over(|| unreachable!("nothing lasts")), None);
        // The next one is said at once.
        assert_eq!(outage.note(at(101_000)), Some(0));
        assert_eq!(outage.is_over(|| at(200_000)), Some(1));
    }

    #[test]
    fn a_line_tells_what_was_not_said() {
        assert_eq!(format!("refused{}", told(0)), "refused");
        assert_eq!(format!("refused{}", told(7)), "refused (7 times more since this was last said)");
    }
}
