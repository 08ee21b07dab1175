//! The one edit of a request's body that asks for usage.

#![no_main]

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/fuzz/inject.rs"]
mod rules;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rules::fuzz_inject(bytes));
