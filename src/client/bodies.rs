//! The memory that request bodies take, all of them together: those being gathered and those that wait to be sent on,
//! and what is kept of them until their rows are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much all bodies take, and may take.
#[derive(Clone)]
pub struct Bodies {
    bytes: Arc<AtomicU64>,
    bytes_max: u64,
}

/// The part of one body. Given back when dropped.
pub struct Claim {
    all: Arc<AtomicU64>,
    bytes: u64,
}

impl Bodies {
    /// None yet.
    pub fn new(bytes_max: u64) -> Bodies {
        Bodies { bytes: Arc::default(), bytes_max }
    }

    /// The claim of a body that has not begun.
    pub fn claim(&self) -> Claim {
        Claim { all: self.bytes.clone(), bytes: 0 }
    }

    /// Whether they take more than they may.
    pub fn are_too_many(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.bytes_max
    }
}

impl Claim {
    /// The body has so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        if bytes >= self.bytes {
            self.all.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.all.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Hands the claim on with its body; what is left claims nothing.
    pub fn take(&mut self) -> Claim {
        Claim { all: self.all.clone(), bytes: std::mem::take(&mut self.bytes) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_is_given_back() {
        let bodies = Bodies::new(100);
        let (mut one, mut other) = (bodies.claim(), bodies.claim());
        one.set(60);
        other.set(40);
        assert!(!bodies.are_too_many());
        other.set(41);
        assert!(bodies.are_too_many());
        let handed_on = other.take();
        drop(other);
        assert!(bodies.are_too_many());
        drop(handed_on);
        assert!(!bodies.are_too_many());
        one.set(101);
        assert!(bodies.are_too_many());
        one.set(0);
        assert!(!bodies.are_too_many());
    }
}
