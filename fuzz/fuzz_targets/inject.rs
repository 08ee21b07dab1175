//! The one edit of a request's body that asks for usage.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lms_metrics_proxy::usage::inject::fuzz_inject(bytes));
