//! What is counted in memory alone, since the start: one atomic step where it happens, read by `/metrics`.
//!
//! Requests, tokens and durations are not counted here, for their sums are in the database; rows are counted by the
//! [recorder](crate::record::recorder), workers by their [pool](crate::exchange::pool).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::http::refusal::Refusal;

/// Counters of the front.
#[derive(Debug)]
pub struct Figures {
    /// Connections held now.
    pub connections: AtomicUsize,
    /// Requests answered with 503, for too many waited already.
    pub queue_full: AtomicU64,
    refusals: [AtomicU64; Refusal::ALL.len()],
}

impl Default for Figures {
    fn default() -> Figures {
        let refusals = [const { AtomicU64::new(0) }; Refusal::ALL.len()];
        Figures { connections: AtomicUsize::new(0), queue_full: AtomicU64::new(0), refusals }
    }
}

impl Figures {
    /// Counts a refused request.
    pub fn note_refusal(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests were refused for each reason, none left out.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = Refusal::ALL.iter().zip(&self.refusals).map(|(reason, count)| (reason.name(), count));
        counted.chain([("queue_full", &self.queue_full)]).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}
