//! What is counted in memory alone, since the start: one atomic step where it happens, read by `/metrics`.
//!
//! Requests, tokens and durations are not counted here, for their sums are in the database; rows are counted by the
//! [recorder](crate::record::recorder), workers by their [pool](crate::exchange::pool).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::http::refusal::Refusal;
use crate::limits::SOCKETS_MAX;
use crate::outage::Outage;

/// Counters of the front.
#[derive(Debug)]
pub struct Counters {
    /// Connections held now.
    pub connections: AtomicUsize,
    /// WebSockets open now, and those that are being opened.
    pub sockets: AtomicUsize,
    /// Requests answered with 503, for too many waited already.
    pub queue_full: AtomicU64,
    refusals: [AtomicU64; Refusal::ALL.len()],
    /// The 503s in the log.
    queue: Outage,
    bodies: Outage,
}

impl Default for Counters {
    fn default() -> Counters {
        let refusals = [const { AtomicU64::new(0) }; Refusal::ALL.len()];
        Counters {
            connections: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            queue_full: AtomicU64::new(0),
            refusals,
            queue: Outage::new(),
            bodies: Outage::new(),
        }
    }
}

impl Counters {
    /// Counts a refused request.
    pub fn note_refusal(&self, refusal: Refusal) {
        self.refusals[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a 503, for too many requests wait, or nobody can be had to answer them.
    pub fn note_queue_full(&self, peer: SocketAddr, path: &str, why: &str) {
        self.queue_full.fetch_add(1, Ordering::Relaxed);
        self.queue.warn(format_args!("{peer}: {path} refused: {why}"));
    }

    /// Counts a 503, for the bodies of requests take too much memory.
    pub fn note_bodies_full(&self, peer: SocketAddr) {
        self.queue_full.fetch_add(1, Ordering::Relaxed);
        self.bodies.warn(format_args!("{peer}: refused: too many large requests at once"));
    }

    /// A request was lent: there is room.
    pub fn note_room(&self) {
        for outage in [&self.queue, &self.bodies] {
            outage.over(|count| format!("there is room for requests again; {count} were refused"));
        }
    }

    /// How many requests were refused for each reason, none left out.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = Refusal::ALL.iter().zip(&self.refusals).map(|(reason, count)| (reason.facts().name, count));
        counted.chain([("queue_full", &self.queue_full)]).map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// That a WebSocket counts among those open at once.
pub struct OpenSocket(Arc<Counters>);

impl OpenSocket {
    /// Counts one more, if there is room for it.
    pub fn new(counters: &Arc<Counters>) -> Option<OpenSocket> {
        // Counted out where there is none.
        let socket = OpenSocket(counters.clone());
        (counters.sockets.fetch_add(1, Ordering::Relaxed) < SOCKETS_MAX).then_some(socket)
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}
