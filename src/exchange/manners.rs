//! When a connection to upstream may be used again.
//!
//! Some servers close a connection behind a reply without having announced it (llama.cpp's, behind every stream). Whoever
//! sends the next request just then learns too late, and a POST is never sent twice. So a connection is used again at
//! once only where that was never seen; otherwise it first has to stay open for a moment.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::limits::{UPSTREAM_DOUBTED_TIME_MIN, UPSTREAM_PROOFS, UPSTREAM_QUIET_TIME_MIN};

/// Whether upstream closes connections behind its replies without a word, as far as was seen.
#[derive(Default)]
pub struct Manners {
    /// Connections that must yet be found open, one after the other, until plain replies are trusted again.
    doubts: AtomicU32,
}

impl Manners {
    /// A connection that was to be used again was closed, or had been.
    pub fn note_close(&self) {
        self.doubts.store(UPSTREAM_PROOFS, Ordering::Relaxed);
    }

    /// One was still open.
    fn note_open(&self) {
        if self.doubts.load(Ordering::Relaxed) > 0 {
            // That two threads count one or three makes no difference.
            let _ = self.doubts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |doubts| doubts.checked_sub(1));
        }
    }

    /// Whether one that is to be used again is open.
    pub fn note(&self, is_open: bool) -> bool {
        if is_open {
            self.note_open()
        } else {
            self.note_close()
        }
        is_open
    }

    /// Whether a connection can be used again that was `quiet` for so long since its last reply, a stream or not.
    pub fn allow(&self, carried_stream: bool, quiet: Duration) -> bool {
        let is_doubted = self.doubts.load(Ordering::Relaxed) > 0;
        let wanted = match (is_doubted, carried_stream) {
            (true, _) => UPSTREAM_DOUBTED_TIME_MIN,
            (false, true) => UPSTREAM_QUIET_TIME_MIN,
            (false, false) => Duration::ZERO,
        };
        quiet >= wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;
    const JUST_BEFORE: Duration = UPSTREAM_QUIET_TIME_MIN.saturating_sub(Duration::from_nanos(1));
    const STILL_DOUBTED: Duration = UPSTREAM_DOUBTED_TIME_MIN.saturating_sub(Duration::from_nanos(1));

    #[test]
    fn a_connection_that_carried_a_stream_must_prove_quiet() {
        let manners = Manners::default();
        assert!(manners.allow(false, AT_ONCE), "plain replies are trusted");
        assert!(!manners.allow(true, AT_ONCE) && !manners.allow(true, JUST_BEFORE));
        assert!(manners.allow(true, UPSTREAM_QUIET_TIME_MIN));
    }

    #[test]
    fn after_an_unannounced_close_all_must_until_enough_were_found_open_in_a_row() {
        let manners = Manners::default();
        manners.note_close();
        for _ in 1..UPSTREAM_PROOFS {
            manners.note_open();
            assert!(!manners.allow(false, STILL_DOUBTED) && manners.allow(true, UPSTREAM_DOUBTED_TIME_MIN));
        }
        manners.note_close();
        for _ in 0..UPSTREAM_PROOFS {
            assert!(!manners.allow(false, STILL_DOUBTED), "the row began anew");
            manners.note_open();
        }
        assert!(manners.allow(false, AT_ONCE));
        manners.note_open();
        assert!(manners.allow(false, AT_ONCE), "nothing to be taken back");
    }
}
