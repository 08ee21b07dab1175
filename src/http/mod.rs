//! The grammar of requests (RFC 9110, RFC 9112), and the proxy's replies. Pure: bytes in, values out.
//!
//! It opens no socket, asks no clock, starts no thread, logs nothing. The front feeds it what a client sent:
//!
//! ```text
//!  bytes ──▶ read_head ──▶ HostPolicy::allows ──▶ route ──▶ ChunkDecoder or a length ──▶ a whole request
//!               │                │                  │               │
//!               └────────────────┴──── Refusal ─────┴───────────────┘ ──▶ Reply::refusal ──▶ bytes, then close
//! ```
//!
//! - [`refusal`]: why a request is refused.
//! - [`head`]: the request line and the fields; [`framing`]: where the body ends.
//! - [`chunked`]: chunked bodies.
//! - [`host`]: which names are served.
//! - [`target`]: what a path is for.
//! - [`reply`]: the proxy's own replies, and the head of relayed ones.
//! - [`fuzz`]: the rules that hold for any bytes whatsoever.

pub mod chunked;
pub mod framing;
pub mod fuzz;
pub mod head;
pub mod host;
pub mod refusal;
pub mod reply;
mod syntax;
pub mod target;

pub use chunked::ChunkDecoder;
pub use framing::Framing;
pub use head::{RequestHead, read_head};
pub use host::HostPolicy;
pub use refusal::Refusal;
pub use reply::{Persistence, Reply, ReplyFraming};
pub use target::{Local, Route, route};
