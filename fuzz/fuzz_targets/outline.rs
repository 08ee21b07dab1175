//! Two bodies as lists of their elements, and what these have in common.

#![no_main]

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/fuzz/outline.rs"]
mod rules;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rules::fuzz_outline(bytes));
