//! What is decided about a request that is sent on to upstream.

use crate::http::RequestHead;
use crate::http::upgrade::opens_websocket;
use crate::limits::SENT_AT_ONCE_BYTES_MAX;
use crate::routes::{dialect_of, is_recorded, model_route};
use crate::usage::listing::ModelRoute;
use crate::usage::{Dialect, request_facts};

/// What its head says of how a request is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// What the reply's counts are told in.
    pub dialect: Dialect,
    /// The exchange gets a row.
    pub recorded: bool,
    /// What its reply tells of upstream's models.
    pub models: Option<ModelRoute>,
    /// Decided when the request is whole.
    pub kind: Kind,
}

/// What a request's reply will be like, as far as the request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Small, of a usual method, and asking for no stream.
    Short,
    /// It asks for a stream, or is too large to be searched for that.
    MayStream,
    /// It opens a WebSocket.
    Handshake,
    /// Of another method, or not whole yet.
    Other,
}

impl Forwarding {
    /// Of a request with this head, whose body has yet to come.
    pub fn of(head: &RequestHead) -> Forwarding {
        let recorded = is_recorded(head.method(), head.path());
        let models = model_route(head.method(), head.path());
        Forwarding { dialect: dialect_of(head.path()), recorded, models, kind: Kind::Other }
    }
}

impl Kind {
    /// Of a whole request.
    pub fn of(head: &RequestHead, body: &[u8]) -> Kind {
        match head.method() {
            "GET" if opens_websocket(head) => Kind::Handshake,
            "GET" | "POST" if body.len() > SENT_AT_ONCE_BYTES_MAX || request_facts::may_stream(body) => Kind::MayStream,
            "GET" | "POST" => Kind::Short,
            _ => Kind::Other,
        }
    }
}
