//! What each dialect says about tokens. Pure: bytes in, values out; no socket, clock, thread, database or logger.
//!
//! # What a reply says
//!
//! ```text
//!  body bytes ─▶ tap ─▶ sse (lines) ─▶ json (places) ─▶ facts (one event) ─▶ account (the reply) ─▶ report
//!                 │                       ▲ member, settle
//!                 └─▶ gate ─▶ client      chat, embeddings, responses, messages, native, other
//! ```
//!
//! An event that differs from the one before in its words alone is not walked but compared (twin).
//!
//! The tap looks at a copy of the bytes; the gate delays a few of them, and takes out the usage events that injection
//! brought. An event of any size is read as it comes: nothing is put together but short values and bounded words.

mod account;
pub mod asked;
mod chat;
pub mod client;
mod counts;
pub mod dialect;
mod embeddings;
mod error;
pub mod excerpt;
mod facts;
mod form;
#[doc(hidden)]
pub mod fuzz;
mod gate;
pub mod inject;
mod json;
pub mod members;
mod messages;
mod native;
mod other;
mod pace;
mod place;
mod plain;
pub mod prompt;
mod responses;
mod sse;
pub mod tap;
mod text;
mod tools;
mod transcripts;
mod twin;

pub use account::Report;
pub use dialect::{Dialect, generates, is_recorded};
pub use tap::{Flow, Form, Tap, are_events};
