//! When a connection to upstream may be used again.
//!
//! Some servers close a connection behind a reply without having announced it (llama.cpp's, behind every stream). Whoever
//! sends the next request just then learns too late, and a POST is never sent twice. So a connection is used again at
//! once only behind a plain reply, and where that was never seen; otherwise it first has to stay open for a moment, which
//! is shorter where many did behind a stream.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::limits::{
    UPSTREAM_DOUBTED_TIME_MIN, UPSTREAM_PROOFS, UPSTREAM_QUIET_TIME_MIN, UPSTREAM_STREAM_PROOFS,
    UPSTREAM_TRUSTED_TIME_MIN,
};

/// Whether upstream closes connections behind its replies without a word, as far as was seen.
pub struct Manners {
    /// Connections that must yet be found open, one after the other, until plain replies are trusted again.
    doubts: AtomicU32,
    /// And behind streams, until less will do for them.
    stream_doubts: AtomicU32,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners { doubts: AtomicU32::new(0), stream_doubts: AtomicU32::new(UPSTREAM_STREAM_PROOFS) }
    }
}

impl Manners {
    /// A connection that was to be used again was closed, or had been.
    pub fn note_close(&self) {
        self.doubts.store(UPSTREAM_PROOFS, Ordering::Relaxed);
        self.stream_doubts.store(UPSTREAM_STREAM_PROOFS, Ordering::Relaxed);
    }

    /// None could be made: what answers there from now on may be another server.
    pub fn note_unreachable(&self) {
        self.stream_doubts.store(UPSTREAM_STREAM_PROOFS, Ordering::Relaxed);
    }

    /// Whether one that is to be used again is open, behind a stream or not.
    pub fn note(&self, carried_stream: bool, is_open: bool) -> bool {
        if is_open {
            count_down(&self.doubts);
            if carried_stream {
                count_down(&self.stream_doubts);
            }
        } else {
            self.note_close();
        }
        is_open
    }

    /// Whether its connections have stayed open behind streams so often that less will do for them.
    pub fn is_trusted(&self) -> bool {
        !is_doubted(&self.doubts) && !is_doubted(&self.stream_doubts)
    }

    /// Whether a connection can be used again that was `quiet` for so long since its last reply, a stream or not.
    pub fn allow(&self, carried_stream: bool, quiet: Duration) -> bool {
        let wanted = match carried_stream {
            _ if is_doubted(&self.doubts) => UPSTREAM_DOUBTED_TIME_MIN,
            true if is_doubted(&self.stream_doubts) => UPSTREAM_QUIET_TIME_MIN,
            true => UPSTREAM_TRUSTED_TIME_MIN,
            false => Duration::ZERO,
        };
        quiet >= wanted
    }
}

fn is_doubted(doubts: &AtomicU32) -> bool {
    doubts.load(Ordering::Relaxed) > 0
}

fn count_down(doubts: &AtomicU32) {
    if is_doubted(doubts) {
        // That two threads count one or three makes no difference.
        let _ = doubts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |doubts| doubts.checked_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;
    const NO_STREAM: bool = false;
    const STREAM: bool = true;

    fn just_before(quiet: Duration) -> Duration {
        quiet - Duration::from_nanos(1)
    }

    #[test]
    fn a_connection_that_carried_a_stream_must_prove_quiet() {
        let manners = Manners::default();
        assert!(manners.allow(NO_STREAM, AT_ONCE), "plain replies are trusted");
        for _ in 0..UPSTREAM_PROOFS {
            manners.note(NO_STREAM, true);
            assert!(
                !manners.allow(STREAM, just_before(UPSTREAM_QUIET_TIME_MIN)),
                "plain replies prove nothing of streams"
            );
        }
        for _ in 0..UPSTREAM_STREAM_PROOFS {
            assert!(!manners.is_trusted() && !manners.allow(STREAM, just_before(UPSTREAM_QUIET_TIME_MIN)));
            assert!(manners.allow(STREAM, UPSTREAM_QUIET_TIME_MIN));
            manners.note(STREAM, true);
        }
        assert!(!manners.allow(STREAM, just_before(UPSTREAM_TRUSTED_TIME_MIN)), "however many were open");
        assert!(manners.is_trusted() && manners.allow(STREAM, UPSTREAM_TRUSTED_TIME_MIN));
        manners.note_unreachable();
        assert!(!manners.is_trusted() && manners.allow(NO_STREAM, AT_ONCE));
        manners.note(STREAM, false);
        assert!(!manners.allow(STREAM, just_before(UPSTREAM_DOUBTED_TIME_MIN)), "one was not");
    }

    #[test]
    fn after_an_unannounced_close_all_must_until_enough_were_found_open_in_a_row() {
        let manners = Manners::default();
        manners.note_close();
        for _ in 1..UPSTREAM_PROOFS {
            manners.note(NO_STREAM, true);
            assert!(!manners.allow(NO_STREAM, just_before(UPSTREAM_DOUBTED_TIME_MIN)));
            assert!(manners.allow(STREAM, UPSTREAM_DOUBTED_TIME_MIN));
        }
        manners.note_close();
        for _ in 0..UPSTREAM_PROOFS {
            assert!(!manners.allow(NO_STREAM, just_before(UPSTREAM_DOUBTED_TIME_MIN)), "the row began anew");
            manners.note(NO_STREAM, true);
        }
        assert!(manners.allow(NO_STREAM, AT_ONCE));
        manners.note(NO_STREAM, true);
        assert!(manners.allow(NO_STREAM, AT_ONCE), "nothing to be taken back");
    }
}
