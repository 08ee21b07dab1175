//! A prompt cut into pieces.

#![no_main]

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/fuzz/pieces.rs"]
mod rules;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rules::fuzz_pieces(bytes));
