//! The exchanges: what a worker does with a lent connection, from the request to its row.
//!
//! A worker is a straight line of blocking code ([`worker`]): ask [`upstream`], [`relay`] the reply, hand row and tail to
//! the recorder. The [`pool`] gives it its jobs.

pub mod dial;
mod draft;
pub mod pool;
pub mod relay;
pub mod upstream;
pub mod wire;
pub mod worker;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::front::client::Loan;
use crate::http::head::RequestHead;
use crate::record::fingerprint::FingerprintKey;
use crate::record::recorder::Recorder;
use crate::settings::Settings;
use dial::Names;

/// A connection lent together with the request to answer on it.
pub struct Lend {
    /// The connection.
    pub loan: Loan,
    /// The request's head.
    pub head: RequestHead,
    /// The request's body, whole.
    pub body: Vec<u8>,
    /// When the request was whole, on the monotonic clock.
    pub began: Instant,
    /// The same moment in milliseconds since 1970-01-01T00:00:00Z.
    pub start_ms: i64,
}

impl Lend {
    /// A whole request, as of now.
    pub fn new(loan: Loan, head: RequestHead, body: Vec<u8>) -> Lend {
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Lend { loan, head, body, began: Instant::now(), start_ms: start.as_millis() as i64 }
    }
}

/// What all workers share.
pub struct Shared {
    /// The settings.
    pub settings: Settings,
    /// Where rows go.
    pub recorder: Arc<Recorder>,
    /// Upstream's addresses.
    pub names: Arc<Names>,
    /// What credentials are fingerprinted with.
    pub fingerprints: FingerprintKey,
}
