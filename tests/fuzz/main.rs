//! What must hold for any bytes at all: of a client's, of upstream's, of a request that is edited, of a WebSocket.
//!
//! The same functions are the targets of cargo-fuzz (`fuzz/`), which takes these files in by their path.

// The file of the unit tests names modules of the crate.
use lms_metrics_proxy::{calendar, record};

mod inject;
mod intake;
mod outline;
mod pieces;
mod socket;
mod tap;
#[allow(dead_code, reason = "unit tests use more of it")]
#[path = "../../src/testing.rs"]
mod testing;
mod transcripts;
mod websocket;
