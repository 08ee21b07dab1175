//! A request that is sent on to upstream, with all that was decided about it.

use std::sync::Arc;

use super::Shared;
use super::draft::Draft;
use super::flow::FlowingMailbox;
use super::pool::{Connecting, InFlight};
use super::unasked::Asking;
use super::upstream::UpstreamConnection;
use super::wire::Begun;
use crate::client::{Client, Lend};
use crate::http::RequestHead;
use crate::limits::SENT_AT_ONCE_BYTES_MAX;
use crate::routes::{dialect_of, is_recorded};
use crate::usage::{Dialect, request_facts};

/// What its head says of how a request is sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// What the reply's counts are told in.
    pub dialect: Dialect,
    /// The exchange gets a row.
    pub recorded: bool,
    /// Decided when the request is whole.
    pub kind: Kind,
}

/// What a request's reply will be like, as far as the request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Small, of a usual method, and asking for no stream.
    Short,
    /// It asks for a stream, or is too large to be searched for that.
    Streamed,
    /// Of another method, or not whole yet.
    Other,
}

impl Forwarding {
    /// Of a request with this head, whose body has yet to come.
    pub fn of(head: &RequestHead) -> Forwarding {
        let recorded = is_recorded(head.method(), head.path());
        Forwarding { dialect: dialect_of(head.path()), recorded, kind: Kind::Other }
    }
}

impl Kind {
    /// Of a whole request.
    pub fn of(head: &RequestHead, body: &[u8]) -> Kind {
        match head.method() {
            "GET" | "POST" if body.len() > SENT_AT_ONCE_BYTES_MAX || request_facts::may_stream(body) => Kind::Streamed,
            "GET" | "POST" => Kind::Short,
            _ => Kind::Other,
        }
    }
}

/// A whole request that is sent on to upstream, until its reply has ended.
pub struct ForwardedRequest {
    /// The request, with the connection to answer it on. Its body is kept until upstream has it.
    pub lend: Lend,
    /// What was decided about it.
    pub forwarding: Forwarding,
    /// Where it is left while its reply does nothing but flow.
    pub(super) home: Arc<FlowingMailbox>,
    /// Who asks for usage.
    pub(super) asking: Asking,
    /// A lane has begun it.
    pub(super) asked_before: Option<Box<AskedBefore>>,
    /// It has begun, and counts as long as this is kept.
    pub(super) in_flight: Option<InFlight>,
    /// It counts among those that have yet to come to a connection.
    pub(super) connecting: Option<Connecting>,
}

/// What a worker goes on from: the request was sent on already (see [`Begun`]).
pub struct AskedBefore {
    /// On this connection.
    pub(super) upstream: UpstreamConnection,
    /// So far.
    pub(super) begun: Begun,
    /// What it said.
    pub(super) draft: Option<Box<Draft>>,
}

impl ForwardedRequest {
    /// One that nobody has begun.
    pub fn new(lend: Lend, forwarding: Forwarding, home: Arc<FlowingMailbox>) -> ForwardedRequest {
        let asking = Asking::AsItCame;
        ForwardedRequest { lend, forwarding, home, asking, asked_before: None, in_flight: None, connecting: None }
    }

    /// The client's connection.
    pub fn client(&self) -> &Client {
        self.lend.loan.client()
    }

    /// What its row says of it, if it gets one.
    pub(super) fn draft(&self, shared: &Shared) -> Option<Box<Draft>> {
        let Lend { head, body, began, start_ms, .. } = &self.lend;
        self.forwarding.recorded.then(|| Box::new(Draft::new(shared, head, body, *began, *start_ms)))
    }
}
