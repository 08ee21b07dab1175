//! What a client sends: heads, chunked bodies, targets, hosts.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lms_metrics_proxy::http::fuzz::fuzz_intake(bytes));
