//! Short exchanges from the request to its row, on the one thread that also reads those clients: a lane's.
//!
//! ```text
//!  request ──▶ ask ──▶ (poll) ──▶ a plain reply, whole ──▶ finished ──▶ settle: one commit for all, then their tails
//!               │ └─ not all was sent ──┴─ anything else ──▶ a worker goes on from where it stands
//!               └─ no connection, not short, no room ──▶ a worker asks
//! ```
//!
//! It does what is always the same: a request small enough for one send, asked on a connection that is there already,
//! and a reply with a length that is there whole when it comes. Everything else is a worker's, which goes on where the
//! lane stopped ([`Begun`]): streams, long replies, errors, clients who left, an upstream that must be connected to, a
//! database that keeps one waiting. So the rules of relaying are written once, and the lane waits for nothing but its
//! poll and for commits that are quick.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use ureq::http::uri::Scheme;

use super::Shared;
use super::draft::{Draft, Ending};
use super::flow::FlowingReplies;
use super::job::{Job, Workers};
use super::line::ExchangeLine;
use super::polled;
use super::relay::{Ended, form};
use super::relayed::{AskedBefore, ForwardedRequest};
use super::relayed::{bug_on_purpose, ending};
use super::request::Kind;
use super::upstream::UpstreamConnection;
use super::wire::{Begun, is_quiet};
use super::worker::forwarded;
use crate::client::{Lend, Tail};
use crate::http::reply::{ReplyFraming, write_relayed_head};
use crate::http::reply_head::ReplyHead;
use crate::http::whole::{NO_FIELDS, read_whole};
use crate::in_flight::ExchangePhase;
use crate::limits::*;
use crate::record::row::Row;
use crate::settings::Settings;
use crate::slots::Slots;
use crate::usage::{Form, Tap};

/// A lane's connections to upstream, and the exchanges on them.
pub struct ShortExchanges {
    shared: Arc<Shared>,
    pool: Arc<Workers>,
    registry: Registry,
    /// The token of the first connection.
    first_token: usize,
    links: Slots<UpstreamLink>,
    /// Connections without an exchange, the one used last on top.
    idle: Vec<usize>,
    /// Replies that end when their rows are in.
    finished: Vec<(Row, Tail)>,
}

/// A connection to upstream, registered with the lane's poll.
struct UpstreamLink {
    upstream: UpstreamConnection,
    socket: Arc<TcpStream>,
    exchange: Option<ShortExchange>,
}

/// An exchange on its way.
struct ShortExchange {
    request: Box<ForwardedRequest>,
    /// Bytes that the socket took.
    sent: u64,
    draft: Option<Box<Draft>>,
}

impl ShortExchanges {
    /// Whether exchanges with this upstream can be a lane's: TLS and time-outs are a worker's.
    pub fn serves(settings: &Settings) -> bool {
        settings.upstream.scheme == Scheme::HTTP && FlowingReplies::are_possible(settings)
    }

    /// No connections yet. Those that there will be get the poll's tokens from `first_token` on.
    pub fn new(shared: Arc<Shared>, pool: Arc<Workers>, registry: Registry, first_token: usize) -> ShortExchanges {
        ShortExchanges {
            shared,
            pool,
            registry,
            first_token,
            links: Slots::default(),
            idle: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// Sends the request on; back it comes where a worker must.
    pub fn ask(&mut self, mut request: Box<ForwardedRequest>) -> Result<(), Box<ForwardedRequest>> {
        if request.forwarding.kind != Kind::Short {
            self.share();
            return Err(request);
        }
        let Some(in_flight) = self.pool.begin() else { return Err(request) };
        let Some(at) = self.free_link() else { return Err(request) };
        request.in_flight = Some(in_flight);
        request.queued = Some(Duration::ZERO);
        let Some(link) = self.links.get_mut(at) else { unreachable!("a free connection is there") };
        link.upstream.wire().begin(None);
        link.exchange = Some(ShortExchange { request, sent: 0, draft: None });
        let shared = &self.shared;
        match catch_unwind(AssertUnwindSafe(|| link.send(shared))) {
            Ok(Some(unsent)) if unsent.is_empty() => {}
            Ok(Some(unsent)) => self.go_on(at, unsent, Vec::new()),
            Ok(None) => return self.give_back(at).map_or(Ok(()), Err),
            Err(_) => self.end_by_bug(at),
        }
        Ok(())
    }

    /// An event of the connection with this token. `hung_up`: upstream has ended its side. A reply that does not fit in
    /// `scratch` is relayed as it comes.
    pub fn on_event(&mut self, token: usize, hung_up: bool, scratch: &mut [u8]) {
        let at = token - self.first_token;
        let Some(link) = self.links.get(at) else { return };
        if link.exchange.is_some() {
            if catch_unwind(AssertUnwindSafe(|| self.reply(at, hung_up, scratch))).is_err() {
                self.end_by_bug(at);
            }
            return;
        }
        // Upstream has closed it, or says what nobody asked for. What told of a reply may come once more, behind it.
        if !hung_up && is_quiet(&link.socket) {
            return;
        }
        link.upstream.manners().note_close();
        self.idle.retain(|idle| *idle != at);
        self.give_up(at);
    }

    /// At the end of a turn: commits the rows of all replies that are whole, then lets their last bytes go.
    pub fn settle(&mut self) {
        self.links.end_turn();
        if self.finished.is_empty() {
            return;
        }
        let (pool, recorder) = (&self.pool, &self.shared.recorder);
        let settled = catch_unwind(AssertUnwindSafe(|| {
            recorder.finish_now(self.finished.drain(..), |tails| pool.finish(tails), || pool.commit());
        }));
        if settled.is_err() {
            log::error!("exchanges ended by a bug of the proxy; their connections were cut");
        }
    }

    /// When an idle connection will be too old to be of use.
    pub fn next_rest(&self) -> Option<Instant> {
        let eldest = self.idle.first().and_then(|at| self.links.get(*at))?;
        Some(eldest.upstream.expires())
    }

    /// Closes those that are.
    pub fn rest(&mut self) {
        let now = Instant::now();
        while self.next_rest().is_some_and(|at| at <= now) {
            let at = self.idle.remove(0);
            self.give_up(at);
        }
    }

    // ---- connections -------------------------------------------------------------------------------------------

    /// A connection to ask on: one of its own, or one that a worker has put aside.
    fn free_link(&mut self) -> Option<usize> {
        if let Some(at) = self.take_idle() {
            return Some(at);
        }
        let upstream = self.shared.idle.take_connected()?;
        let socket = upstream.wire().descriptor()?;
        upstream.wire().set_polled(true).ok()?;
        let at = self.links.reserve();
        let token = Token(self.first_token + at);
        if polled::register(&self.registry, &socket, token, Interest::READABLE).is_err() {
            self.links.give_back(at);
            return None;
        }
        self.links.put(at, UpstreamLink { upstream, socket, exchange: None });
        Some(at)
    }

    /// The idle connection used last, of those that can be used again.
    fn take_idle(&mut self) -> Option<usize> {
        self.rest();
        let now = Instant::now();
        let is_proven = |at: &usize| self.links.get(*at).is_some_and(|link| link.upstream.is_proven(now));
        let place = self.idle.iter().rposition(is_proven)?;
        Some(self.idle.remove(place))
    }

    fn is_kept(&self, at: usize, now: Instant) -> bool {
        let way = |at: &usize| self.links.get(*at).map(|link| &link.upstream);
        way(&at).is_some_and(|upstream| upstream.is_kept(now, self.idle.iter().filter_map(way)))
    }

    /// Leaves a connection for the worker that gets the next request, so that it need not make one.
    fn share(&mut self) {
        if let Some(at) = self.take_idle() {
            self.give_back(at);
        }
    }

    /// Leaves a connection on which nothing was sent to workers, and gives back the request that was to be.
    fn give_back(&mut self, at: usize) -> Option<Box<ForwardedRequest>> {
        let (upstream, exchange) = self.leave(at)?;
        let mut request = exchange.map(|exchange| exchange.request);
        if let Some(request) = &mut request {
            request.client().withdraw();
            request.in_flight = None;
        }
        self.shared.idle.put(upstream);
        request
    }

    /// Closes a connection. That takes it out of the poll.
    fn give_up(&mut self, at: usize) {
        self.links.remove(at);
    }

    /// Takes a connection out of the lane, to be used as any other.
    fn leave(&mut self, at: usize) -> Option<(UpstreamConnection, Option<ShortExchange>)> {
        let UpstreamLink { upstream, socket, exchange, .. } = self.links.remove(at)?;
        polled::deregister(&self.registry, &socket);
        // An error means that it is closed, and reading says so, too.
        let _ = upstream.wire().set_polled(false);
        Some((upstream, exchange))
    }

    // ---- exchanges ---------------------------------------------------------------------------------------------

    fn reply(&mut self, at: usize, hung_up: bool, scratch: &mut [u8]) {
        let Some(link) = self.links.get_mut(at) else { return };
        let Some(exchange) = &mut link.exchange else { return };
        // How a connection ends is read by who tells of it: the next read would not know any more.
        let read = if hung_up { Ok(0) } else { (&*link.socket).read(scratch) };
        let n = match read {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => 0,
        };
        let mut fields = NO_FIELDS;
        let whole = read_whole(&scratch[..n], &mut fields);
        // From here on the connection serves the next exchange: this one can be called off no more.
        let is_ours = |request: &ForwardedRequest| request.now.decide() && request.client().withdraw();
        let Some(whole) = whole.filter(|_| is_ours(&exchange.request)) else {
            return self.go_on(at, Vec::new(), scratch[..n].to_vec());
        };
        let (bytes, row) = exchange.end(&self.shared, &whole.0, whole.1);
        let now = Instant::now();
        link.upstream.note_use(now);
        link.upstream.wire().carries(false);
        let Some(ShortExchange { request, .. }) = link.exchange.take() else { return };
        let ForwardedRequest { lend, now: listed, .. } = *request;
        // A client that has its whole reply is answered that it is over.
        drop(listed);
        if self.is_kept(at, now) {
            self.idle.push(at)
        } else {
            self.give_up(at)
        }
        let tail = Tail::new(lend.loan, bytes, true);
        match row {
            Some(row) => self.finished.push((row, tail)),
            None => tail.send(),
        }
    }

    /// A worker goes on from where the exchange stands.
    fn go_on(&mut self, at: usize, unsent: Vec<u8>, received: Vec<u8>) {
        let Some((upstream, Some(ShortExchange { mut request, sent, draft }))) = self.leave(at) else { return };
        request.asked_before = Some(Box::new(AskedBefore { upstream, begun: Begun { sent, unsent, received }, draft }));
        self.pool.give(Job::Exchange(request));
    }

    /// A bug ends this exchange alone. Its client sees the connection cut, but tokens may have been spent.
    fn end_by_bug(&mut self, at: usize) {
        log::error!("an exchange ended by a bug of the proxy; its connection was cut");
        // Whatever was done before, this connection is nobody's any more.
        let Some(UpstreamLink { exchange, .. }) = self.links.remove(at) else { return };
        self.idle.retain(|idle| *idle != at);
        let Some(ShortExchange { request, draft, .. }) = exchange else { return };
        // The bug may have come before the draft, or be in making it.
        let made_now = || catch_unwind(AssertUnwindSafe(|| request.draft(&self.shared))).ok().flatten();
        let Some(draft) = draft.or_else(made_now) else { return };
        let ending = Ending::of_bug(draft.asked_stream());
        let row = draft.row(ending);
        self.finished.push((row, Tail::new(request.lend.loan, Vec::new(), false)));
    }
}

/// Also by a bug of the loop: then what was begun leaves its rows.
impl Drop for ShortExchanges {
    fn drop(&mut self) {
        for at in self.links.numbers() {
            if matches!(self.links.get(at), Some(UpstreamLink { exchange: Some(_), .. })) {
                self.end_by_bug(at);
            }
        }
        self.settle();
    }
}

impl UpstreamLink {
    /// Sends the request on, then notes what it says: upstream is at work meanwhile, so that costs no time. Where a bug
    /// comes in between, the row is made by who ends the exchange. What the socket did not take; `None`: not a byte was
    /// sent, for the request is too large, or was called off, or the connection is broken.
    fn send(&mut self, shared: &Shared) -> Option<Vec<u8>> {
        let ShortExchange { request, sent, draft } = self.exchange.as_mut()?;
        let Lend { loan, head, body, .. } = &request.lend;
        let fields = forwarded(head, request.forwarding.recorded);
        let bytes = self.upstream.encode(head.method(), head.target(), fields, body)?;
        if bytes.len() > SENT_AT_ONCE_BYTES_MAX {
            return None;
        }
        // Upstream has ended its side, or said what nobody asked for: both may come before the event that tells of it.
        if !self.upstream.manners().note(self.upstream.wire().carried_stream(), is_quiet(&self.socket)) {
            self.upstream.disconnect();
            return None;
        }
        loan.client().interrupts(self.upstream.wire().clone()).ok()?;
        let n = match (&*self.socket).write(&bytes) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.upstream.disconnect();
                return None;
            }
        };
        *sent = n as u64;
        request.now.enter_at_once(ExchangePhase::Waiting);
        bug_on_purpose(head, "sending");
        *draft = request.draft(shared);
        bug_on_purpose(head, "asking");
        Some(bytes[n..].to_vec())
    }
}

impl ShortExchange {
    /// What the client gets, and the row, if the route is recorded.
    fn end(&mut self, shared: &Shared, reply: &ReplyHead, body: &[u8]) -> (Vec<u8>, Option<Row>) {
        let Lend { loan, head, began, .. } = &self.request.lend;
        bug_on_purpose(head, "relaying");
        let form = if self.draft.is_some() { form(reply.pairs()) } else { Form::Opaque };
        let mut tap = Tap::new(self.request.forwarding.dialect, form, false, shared.settings.content_bytes_max);
        if reply.status >= 400 {
            tap = tap.of_a_failure();
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        let persistence = loan.persistence(head);
        let framing = ReplyFraming::Length(body.len() as u64);
        write_relayed_head(&mut bytes, (reply.status, reply.reason), reply.pairs(), (framing, ""), persistence);
        tap.feed(body, u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), &mut bytes);
        tap.end(&mut bytes);
        let report = tap.report();
        shared.learn_of_models(self.request.forwarding.models, reply.status, body);
        shared.learn_of_loading(&report, self.request.lend.start_ms);
        let ending = ending(Ended::Whole, reply.status, report);
        let line = ExchangeLine::new(loan.client().peer(), &ending, *began);
        bug_on_purpose(head, "finishing");
        let row = self.draft.take().map(|draft| draft.row(ending));
        line.log(head, row.as_ref());
        (bytes, row)
    }
}

/// A usual reply's head.
const HEAD_BYTES: usize = 512;
