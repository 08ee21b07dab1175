//! The grammar of requests (RFC 9110, RFC 9112), and of replies. Pure: bytes in, values out.
//!
//! It opens no socket, asks no clock, starts no thread, logs nothing. The front feeds it what a client sent:
//!
//! ```text
//!  bytes ──▶ read_head ──▶ HostPolicy::allows ──▶ target ─▶ ChunkDecoder or a length ──▶ a whole request
//!               │                │                  │               │
//!               └────────────────┴──── Refusal ─────┴───────────────┘ ──▶ Reply::refusal ──▶ bytes, then close
//! ```
//!
//! - [`refusal`]: why a request is refused.
//! - [`head`]: the head of a request, with [`request_line`] and `fields`; [`framing`]: where the body ends.
//! - [`chunked`]: chunked bodies; [`body_rest`]: what is still to come of any.
//! - [`host`]: which names are served; [`origin`]: which pages may ask for what.
//! - [`target`]: paths and queries. [`accept`]: which replies a client takes.
//! - [`reply`]: the proxy's own replies, and the head of relayed ones.
//! - [`reply_head`]: the head of a reply of upstream; [`reply_framing`]: where its body ends; [`whole`]: the plainest
//!   of those replies.
//! - [`upgrade`]: which requests open a WebSocket; [`websocket`]: its frames.

pub mod accept;
pub mod body_rest;
pub mod chunked;
mod fields;
pub mod framing;
pub mod head;
pub mod host;
pub mod origin;
pub mod refusal;
pub mod reply;
pub mod reply_framing;
pub mod reply_head;
pub mod request_line;
mod syntax;
pub mod target;
pub mod upgrade;
pub mod websocket;
pub mod whole;

pub use accept::accepted;
pub use chunked::ChunkDecoder;
pub use framing::Framing;
pub use head::{RequestHead, read_head};
pub use host::HostPolicy;
pub use refusal::Refusal;
pub use reply::{Persistence, Reply, ReplyFraming};
