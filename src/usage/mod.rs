//! What each dialect says about tokens. Pure: bytes in, values out; no socket, clock, thread, database or logger.
//!
//! # What a reply says
//!
//! ```text
//!  body bytes ─▶ tap ─▶ sse (lines) ─▶ json (roles) ─▶ document (one event) ─▶ account (the reply) ─▶ usage_report
//!                 │                      ▲ grammar: chat, responses, messages, native, other
//!                 └─▶ hold ─▶ client
//! ```
//!
//! The tap looks at a copy of the bytes; the hold delays a few of them, and takes out the usage events that injection
//! brought. An event of any size is read as it comes: nothing is put together but short values and bounded words. An
//! event that differs from the one before in its words alone is not walked but compared (repeat).
//!
//! A document is made of its words, choices, tool calls (tools), numbers and error; so is the account of all documents.
//!
//! # What a request says
//!
//! request_facts reads the members of its body that the row or the relay needs, inject makes it ask for usage, prompt
//! keeps it without its payloads, pieces cuts that so that it is stored once, client tells who asked. Beneath them: members
//! (a JSON object as spans), skip (where a value ends), form.
//!
//! # What is said on a WebSocket
//!
//! LM Studio's SDKs talk in messages; `socket` reads both directions along, by the same walker (json) with roles of its
//! own.
//!
//! All use escapes (of JSON strings), text (bytes as text) and excerpt (a text kept within a bound).

mod account;
mod chat;
mod choices;
pub mod client;
mod counts;
pub mod dialect;
mod document;
mod error;
mod escapes;
mod excerpt;
mod form;
mod grammar;
mod hold;
pub mod inject;
mod json;
pub mod listing;
pub mod members;
mod messages;
mod native;
mod numbers;
mod other;
pub mod pieces;
mod plain;
mod progress;
pub mod prompt;
mod repeat;
pub mod request_facts;
mod responses;
mod role;
pub mod skip;
pub mod socket;
mod sse;
pub mod tap;
pub mod text;
mod tools;
mod usage_report;
mod word_pace;
mod words;

pub use counts::TokenCounts;
pub use dialect::Dialect;
pub use numbers::ServerWork;
pub use progress::{ReadSoFar, ReplyProgress};
pub use request_facts::RequestFacts;
pub use socket::{BegunGeneration, Generation, GenerationEnd, Namespace, ReadAlong, SocketReader};
pub use tap::{Flow, Form, Tap, are_events};
pub use usage_report::UsageReport;
