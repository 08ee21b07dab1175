//! What upstream sends: streams and JSON of every dialect, read by the tap.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lms_metrics_proxy::usage::fuzz::fuzz_tap(bytes));
