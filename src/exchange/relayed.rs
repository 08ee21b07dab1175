//! An exchange whose reply is being relayed: what a worker and a loop hand to each other, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use super::draft::{CANCELLED_HERE, Draft, Ending, client_label};
use super::incoming::Incoming;
use super::pool::Place;
use super::relay::{Ended, Relay, Scratch, Step};
use super::request::Forwarding;
use super::tunnel::Tunnel;
use super::unasked::Asking;
use super::upstream::UpstreamConnection;
use super::wire::{Begun, WireState};
use crate::client::{Client, Lend};
use crate::counters::OpenSocket;
use crate::http::chunked::words_of_reply;
use crate::http::head::RequestHead;
use crate::in_flight::{AskedNow, ExchangePhase, InFlight, ListedExchange, NewEntry};
use crate::mailbox::Mailbox;
use crate::record::row::{Outcome, Row};
use crate::usage::UsageReport;
use crate::usage::request_facts::named_at_first;

/// Where workers leave what only waits with the clients of one loop.
pub type FlowingMailbox = Mailbox<LeftWithLoop>;

/// What a worker leaves with its client's loop.
pub enum LeftWithLoop {
    /// A reply that does nothing but flow.
    Reply(Box<Exchange>),
    /// A WebSocket.
    Tunnel(Box<Tunnel>),
}

impl LeftWithLoop {
    /// The token of its client's connection.
    pub fn token(&self) -> usize {
        match self {
            LeftWithLoop::Reply(exchange) => exchange.request.client().token(),
            LeftWithLoop::Tunnel(tunnel) => tunnel.token(),
        }
    }
}

/// A whole request that is sent on to upstream, until its reply has ended.
pub struct ForwardedRequest {
    /// The request, with the connection to answer it on. Its body is kept until upstream has it.
    pub lend: Lend,
    /// What was decided about it.
    pub forwarding: Forwarding,
    /// What others see of it.
    pub(super) now: ListedExchange,
    /// Where it is left while its reply does nothing but flow.
    pub(super) home: Arc<FlowingMailbox>,
    /// Who asks for usage.
    pub(super) asking: Asking,
    /// A lane has begun it.
    pub(super) asked_before: Option<Box<AskedBefore>>,
    /// It has begun, and counts as long as this is kept.
    pub(super) in_flight: Option<Place>,
    /// It counts among those that have yet to come to a connection.
    pub(super) connecting: Option<Place>,
    /// So long it waited until it began.
    pub(super) queued: Option<Duration>,
    /// It opens a WebSocket, if upstream agrees.
    pub(super) socket: Option<OpenSocket>,
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
    pub fn new(
        lend: Lend,
        forwarding: Forwarding,
        home: Arc<FlowingMailbox>,
        in_flight: &Arc<InFlight>,
    ) -> ForwardedRequest {
        let beginning = NewEntry {
            endpoint: lend.head.path().to_owned(),
            began: lend.began,
            start_ms: lend.start_ms,
            body_bytes: Some(lend.body.len() as u64),
            phase: ExchangePhase::Queued,
        };
        let now = in_flight.begin(lend.loan.client(), beginning);
        let (asking, asked_before, socket) = (Asking::AsItCame, None, None);
        let (in_flight, connecting, queued) = (None, None, None);
        ForwardedRequest { lend, forwarding, now, home, asking, asked_before, in_flight, connecting, queued, socket }
    }

    /// The same, of a handshake that opens a WebSocket.
    pub fn of_handshake(self, socket: OpenSocket) -> ForwardedRequest {
        ForwardedRequest { socket: Some(socket), ..self }
    }

    /// The client's connection.
    pub fn client(&self) -> &Client {
        self.lend.loan.client()
    }

    /// It cannot begin at once: what a look at it tells of it.
    pub fn note_queued(&self) {
        let Lend { head, body, .. } = &self.lend;
        let (model, user) = if self.forwarding.recorded { named_at_first(body) } else { (None, None) };
        let client = user.or_else(|| client_label(head));
        self.now.note_queued(AskedNow { client, model, conversation: None });
    }

    /// What its row says of it, if it gets one.
    pub(super) fn draft(&self, shared: &Shared) -> Option<Box<Draft>> {
        let Lend { head, body, began, start_ms, .. } = &self.lend;
        if !self.forwarding.recorded {
            self.now.note_asked(AskedNow { client: client_label(head), ..AskedNow::default() });
            return None;
        }
        let draft = Draft::new(shared, head, body, *began, *start_ms).after_queue(self.queued);
        self.now.note_asked(draft.asked_now());
        Some(Box::new(draft))
    }
}

/// A reply that is being relayed, in a worker's hands or in a loop's.
pub struct Exchange {
    /// What it answers.
    pub request: Box<ForwardedRequest>,
    /// The connection that the reply comes on.
    pub upstream: UpstreamConnection,
    /// The reply on its way.
    pub relay: Relay<Incoming>,
    /// Upstream's status.
    pub status: u16,
    /// The upstream socket does not block: a loop may take over.
    pub is_polled: bool,
    /// The row that was committed at the terminal event.
    pub early: Option<Box<Early>>,
    /// While a loop has the exchange.
    pub draft: Option<Box<Draft>>,
}

/// A row committed before the reply's end, without its words, and its id if it could be committed at once.
pub type Early = (Option<i64>, Row);

impl Exchange {
    /// In a loop: relays what there is, but not much more than `turn_bytes`.
    pub fn flow(&mut self, scratch: &mut Scratch, turn_bytes: usize) -> Step {
        bug_on_purpose(&self.request.lend.head, "flowing");
        self.advance(scratch, turn_bytes)
    }

    /// The socket that it waits for.
    pub fn wire(&self) -> &WireState {
        self.upstream.wire()
    }

    /// Relays what there is, but not much more than `turn_bytes`.
    pub fn advance(&mut self, scratch: &mut Scratch, turn_bytes: usize) -> Step {
        self.relay.advance(self.request.client(), scratch, turn_bytes)
    }

    /// From now on reads wait again.
    pub fn stop_polling(&mut self) {
        if std::mem::take(&mut self.is_polled) {
            // An error means that it is closed, and reading says so, too.
            let _ = self.upstream.wire().set_polled(false);
        }
    }
}

/// What the row says of an upstream whose reply had begun.
const UPSTREAM_VANISHED: &str = "upstream vanished in the middle of its reply: nothing was heard of it any more";
/// What the row says of a client that did not leave, and is not there any more.
pub const CLIENT_VANISHED: &str = "the client vanished: nothing was heard of it any more";

/// How an exchange ended, from how its relay did and from what the tap understood.
pub fn ending(ended: Ended, status: u16, report: UsageReport) -> Ending {
    // Many servers send no terminal event, but tell why each choice ended.
    let missing = report.needs_terminal && !report.terminal && !report.finished && report.error.is_none();
    let (outcome, error) = match ended {
        // Whatever has come: its client did not get the end of it.
        Ended::Cancelled => (Outcome::CancelledHere, Some(CANCELLED_HERE)),
        // After the terminal event nothing can be missed any more: SDK clients stop reading there.
        _ if report.terminal && status >= 400 => (Outcome::UpstreamError, None),
        _ if report.terminal && report.error.is_some() => (Outcome::ErrorInReply, None),
        _ if report.terminal => (Outcome::Completed, None),
        // What was asked for had failed before.
        Ended::ClientLeft | Ended::ClientVanished if status >= 400 => (Outcome::UpstreamError, None),
        Ended::ClientLeft => (Outcome::ClientClosed, None),
        Ended::ClientVanished => (Outcome::ClientClosed, Some(CLIENT_VANISHED)),
        Ended::Shutdown => (Outcome::Shutdown, Some("the proxy was stopped before the reply ended")),
        Ended::TimedOut => (Outcome::UpstreamTimeout, Some("upstream fell silent in the middle of its reply")),
        Ended::Broken => (Outcome::Truncated, Some("upstream broke off its reply")),
        Ended::Malformed(why) => (Outcome::Truncated, Some(words_of_reply(why))),
        Ended::Vanished => (Outcome::Truncated, Some(UPSTREAM_VANISHED)),
        Ended::Whole | Ended::Closed | Ended::Answered if status >= 400 => (Outcome::UpstreamError, None),
        Ended::Whole | Ended::Closed | Ended::Answered if report.error.is_some() => (Outcome::ErrorInReply, None),
        Ended::Whole | Ended::Closed if missing => {
            (Outcome::Truncated, Some("the stream ended without its terminal event"))
        }
        Ended::Whole | Ended::Closed | Ended::Answered => (Outcome::Completed, None),
    };
    // What upstream itself said about an error is more telling than what we make of its end.
    let error = if report.error.is_some() { None } else { error.map(str::to_string) };
    let streamed = report.streamed;
    Ending { outcome, http_status: Some(status), error, report, streamed }
}

/// A panic where `?bug=PLACE` of a request asks for one, so that a test can see what a bug does. Only debug builds know
/// how, and only when their environment says so.
pub fn bug_on_purpose(head: &RequestHead, place: &str) {
    #[cfg(debug_assertions)]
    if head.query().and_then(|query| query.strip_prefix("bug=")) == Some(place)
        && std::env::var_os("BUGS_ON_PURPOSE").is_some()
    {
        panic!("on purpose, while {place}");
    }
    #[cfg(not(debug_assertions))]
    let _ = (head, place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_peer_that_vanished_says_so() {
        let check = |ended: Ended, outcome: Outcome, words: &str| {
            let ending = ending(ended, 200, UsageReport::default());
            assert_eq!((ending.outcome, ending.error.as_deref()), (outcome, Some(words)));
        };
        check(Ended::ClientVanished, Outcome::ClientClosed, CLIENT_VANISHED);
        check(Ended::Vanished, Outcome::Truncated, UPSTREAM_VANISHED);
    }
}
