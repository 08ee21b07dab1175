//! What a client sends: heads, chunked bodies, targets, hosts.

#![no_main]

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/fuzz/intake.rs"]
mod rules;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rules::fuzz_intake(bytes));
