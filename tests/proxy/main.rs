//! The real binary over real sockets: what a client sees, what upstream sees, and what stands in the database.
//!
//! A test is the client and upstream in one: it says what each side sends next, and waits for what arrives at the
//! other. So "upstream is silent" and "one event so far" are states, not pauses, and no test sleeps or measures time.
//! Whatever does not come within [`harness::PATIENCE`] ends the test.

mod bug;
mod cancel;
mod context;
mod conversations;
mod costs;
#[cfg(unix)]
mod demo;
mod disk;
mod errors;
mod greeting;
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, unused_imports, reason = "some of it is for tests of Linux, or Unix")
)]
mod harness;
mod hostile;
mod injection;
mod line;
mod live;
mod log;
mod many;
mod now;
mod pipelining;
mod record;
mod relay;
mod replay;
mod reply_framing;
mod requests;
mod short;
mod start;
mod statistics;
mod stop;
mod streams;
mod time;
mod tls;
mod transcripts;
mod truncation;
mod unannounced;
mod upstream_faults;
mod vanished;
// Elsewhere none is relayed (`errors.rs`).
#[cfg(unix)]
mod websocket;
