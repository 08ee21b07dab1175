//! What a client of LM Studio's SDK and LM Studio say on one WebSocket.

#![no_main]

// The file of the unit tests names modules of the crate.
use lms_metrics_proxy::{calendar, record};

#[allow(dead_code, reason = "unit tests use more of it")]
#[path = "../../src/testing.rs"]
mod testing;

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/fuzz/socket.rs"]
mod rules;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rules::fuzz_socket(bytes));
