//! The express lane: short exchanges from the request to its row, on the one thread that also reads those clients.
//!
//! ```text
//!  request ──▶ ask ──▶ (poll) ──▶ a plain reply, whole ──▶ finished ──▶ settle: one commit for all, then their tails
//!               │          └───────── anything else ──────────────┐
//!               └───────── no connection, or not for this lane ───┴──▶ a worker, from where it stands
//! ```
//!
//! It does what is always the same: a request small enough for one send, asked on a connection that is there already,
//! and a reply with a length that is there whole when it comes. Everything else goes to a worker, which begins, or goes
//! on where the lane stopped ([`Begun`]): streams, long replies, errors, clients who left, an upstream that must be
//! connected to, a database that keeps one waiting. So the rules of relaying are written once, and the lane waits for
//! nothing but its poll and for commits that are quick.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};

use super::Shared;
use super::draft::{Draft, Ending};
use super::in_flight::{bug_on_purpose, ending};
use super::job::{Job, Workers};
use super::polled;
use super::relay::{Ended, form};
use super::request::{AskedBefore, ForwardedRequest, Kind};
use super::upstream::Upstream;
use super::wire::Begun;
use super::worker::{forwarded, log_exchange};
use crate::client::{Lend, Tail};
use crate::http::reply::{ReplyFraming, write_relayed_head};
use crate::http::reply_head::ReplyHead;
use crate::http::whole::{NO_FIELDS, read_whole};
use crate::limits::*;
use crate::record::row::Row;
use crate::settings::{Scheme, Settings};
use crate::slots::Slots;
use crate::usage::{Form, Tap};

/// The lane's connections to upstream, and the exchanges on them.
pub struct Express {
    shared: Arc<Shared>,
    pool: Arc<Workers>,
    registry: Registry,
    /// The token of the first way.
    first_token: usize,
    ways: Slots<Way>,
    /// Ways without an exchange, the one used last on top.
    idle: Vec<usize>,
    /// Replies that end when their rows are in.
    finished: Vec<(Row, Tail)>,
}

/// A connection to upstream, registered with the lane's poll.
struct Way {
    upstream: Upstream,
    socket: Arc<TcpStream>,
    asked: Option<Asked>,
    idle_since: Instant,
}

/// An exchange on its way.
struct Asked {
    request: Box<ForwardedRequest>,
    /// Bytes that the socket took.
    sent: u64,
    draft: Option<Box<Draft>>,
}

/// How far sending a request got.
enum Sent {
    Whole,
    /// The socket did not take the rest.
    Partly(Begun),
    /// Not a byte: it is not for this lane, or was called off.
    Nothing,
    /// Not a byte: the connection is broken.
    Broken,
}

impl Express {
    /// Whether exchanges with this upstream can be the lane's: TLS and time-outs are ureq's.
    pub fn serves(settings: &Settings) -> bool {
        polled::IS_POSSIBLE && settings.upstream.scheme() == Scheme::Http && settings.upstream_idle_timeout.is_none()
    }

    /// A lane without connections. Those that it will have get the poll's tokens from `first_token` on.
    pub fn new(shared: Arc<Shared>, pool: Arc<Workers>, registry: Registry, first_token: usize) -> Express {
        Express { shared, pool, registry, first_token, ways: Slots::default(), idle: Vec::new(), finished: Vec::new() }
    }

    /// Sends the request on; back it comes where a worker must.
    pub fn ask(&mut self, mut request: Box<ForwardedRequest>) -> Result<(), Box<ForwardedRequest>> {
        if request.forwarding.kind != Kind::Short {
            self.share();
            return Err(request);
        }
        let Some(in_flight) = self.pool.begin() else { return Err(request) };
        let Some(at) = self.free_way() else { return Err(request) };
        request.in_flight = Some(in_flight);
        let Some(way) = self.ways.get_mut(at) else { unreachable!("a free way is there") };
        way.upstream.wire().begin(None);
        way.asked = Some(Asked { request, sent: 0, draft: None });
        let shared = &self.shared;
        match catch_unwind(AssertUnwindSafe(|| way.send(shared))) {
            Ok(Sent::Whole) => {}
            Ok(Sent::Partly(begun)) => self.go_on(at, begun),
            Ok(Sent::Nothing) => self.begin_anew(at, false),
            Ok(Sent::Broken) => self.begin_anew(at, true),
            Err(_) => self.end_by_bug(at),
        }
        Ok(())
    }

    /// An event of the way with this token. `hung_up`: upstream has ended its side. A reply that does not fit in
    /// `scratch` is relayed as it comes.
    pub fn on_event(&mut self, token: usize, hung_up: bool, scratch: &mut [u8]) {
        let at = token - self.first_token;
        let Some(way) = self.ways.get(at) else { return };
        if way.asked.is_some() {
            if catch_unwind(AssertUnwindSafe(|| self.reply(at, hung_up, scratch))).is_err() {
                self.end_by_bug(at);
            }
            return;
        }
        // Upstream has closed it, or says what nobody asked for. What told of a reply may come once more, behind it.
        if !hung_up && is_quiet(&way.socket) {
            return;
        }
        way.upstream.manners().note_close();
        self.idle.retain(|idle| *idle != at);
        self.give_up(at);
    }

    /// At the end of a turn: commits the rows of all replies that are whole, then lets their last bytes go.
    pub fn settle(&mut self) {
        self.ways.end_turn();
        if self.finished.is_empty() {
            return;
        }
        let finished = std::mem::take(&mut self.finished);
        let (pool, recorder) = (&self.pool, &self.shared.recorder);
        let settled = catch_unwind(AssertUnwindSafe(|| {
            recorder.finish_now(finished, |tails| pool.finish(tails), || pool.commit());
        }));
        if settled.is_err() {
            log::error!("exchanges ended by a bug of the proxy; their connections were cut");
        }
    }

    /// When an idle connection will be too old to be of use.
    pub fn next_rest(&self) -> Option<Instant> {
        let eldest = self.idle.first().and_then(|at| self.ways.get(*at))?;
        Some(eldest.idle_since + UPSTREAM_IDLE_TIME_MAX)
    }

    /// Closes those that are.
    pub fn rest(&mut self) {
        let now = Instant::now();
        while self.next_rest().is_some_and(|at| at <= now) {
            let at = self.idle.remove(0);
            self.give_up(at);
        }
    }

    // ---- ways --------------------------------------------------------------------------------------------------

    /// A connection to ask on: one of its own, or one that a worker has put aside.
    fn free_way(&mut self) -> Option<usize> {
        if let Some(at) = self.take_idle() {
            return Some(at);
        }
        let upstream = self.shared.shelf.take_connected()?;
        let socket = upstream.wire().descriptor()?;
        upstream.wire().set_polled(true).ok()?;
        let at = self.ways.reserve();
        let token = Token(self.first_token + at);
        if polled::register(&self.registry, &socket, token, Interest::READABLE).is_err() {
            self.ways.give_back(at);
            return None;
        }
        self.ways.put(at, Way { upstream, socket, asked: None, idle_since: Instant::now() });
        Some(at)
    }

    /// The idle way used last, of those that can be used again.
    fn take_idle(&mut self) -> Option<usize> {
        self.rest();
        let is_proven =
            |at: &usize| self.ways.get(*at).is_some_and(|way| way.upstream.is_proven(way.idle_since.elapsed()));
        let place = self.idle.iter().rposition(is_proven)?;
        Some(self.idle.remove(place))
    }

    fn is_kept(&self, at: usize) -> bool {
        let way = |at: &usize| self.ways.get(*at);
        let unproven =
            || self.idle.iter().filter_map(way).filter(|way| !way.upstream.is_proven(way.idle_since.elapsed())).count();
        way(&at).is_some_and(|way| way.upstream.is_kept(Duration::ZERO, unproven))
    }

    /// Puts a connection aside for the worker that gets the next request, so that it need not make one.
    fn share(&mut self) {
        let Some(at) = self.take_idle() else { return };
        let since = self.ways.get(at).map(|way| way.idle_since);
        let (Some(since), Some((upstream, _))) = (since, self.leave(at)) else { return };
        self.shared.shelf.put(upstream, since);
    }

    /// Closes a connection. That takes it out of the poll.
    fn give_up(&mut self, at: usize) {
        self.ways.remove(at);
    }

    /// Takes a connection out of the lane, to be used as any other.
    fn leave(&mut self, at: usize) -> Option<(Upstream, Option<Asked>)> {
        let Way { upstream, socket, asked, .. } = self.ways.remove(at)?;
        polled::deregister(&self.registry, &socket);
        // An error means that it is closed, and reading says so, too.
        let _ = upstream.wire().set_polled(false);
        Some((upstream, asked))
    }

    // ---- exchanges ---------------------------------------------------------------------------------------------

    fn reply(&mut self, at: usize, hung_up: bool, scratch: &mut [u8]) {
        let Some(way) = self.ways.get_mut(at) else { return };
        let Some(asked) = &mut way.asked else { return };
        // How a connection ends is read by who tells of it: the next read would not know any more.
        let read = if hung_up { Ok(0) } else { (&*way.socket).read(scratch) };
        let n = match read {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => 0,
        };
        let mut fields = NO_FIELDS;
        let whole = read_whole(&scratch[..n], &mut fields);
        // From here on the connection serves the next exchange: this one can be called off no more.
        let Some(whole) = whole.filter(|_| asked.request.lend.loan.client().interrupts(None).is_ok()) else {
            let begun = Begun { sent: asked.sent, unsent: Vec::new(), received: scratch[..n].to_vec() };
            return self.go_on(at, begun);
        };
        let (bytes, row) = asked.end(&self.shared, &whole.0, whole.1);
        way.idle_since = Instant::now();
        way.upstream.carries(false);
        let Some(Asked { request, .. }) = way.asked.take() else { return };
        if self.is_kept(at) {
            self.idle.push(at)
        } else {
            self.give_up(at)
        }
        let tail = Tail::new(request.lend.loan, bytes, true);
        match row {
            Some(row) => self.finished.push((row, tail)),
            None => tail.send(),
        }
    }

    /// A worker goes on with what was begun.
    fn go_on(&mut self, at: usize, begun: Begun) {
        let Some((upstream, Some(Asked { mut request, draft, .. }))) = self.leave(at) else { return };
        request.asked_before = Some(AskedBefore { upstream, begun, draft });
        self.pool.give(Job::Exchange(request));
    }

    /// A worker begins anew: on this connection, or on another if it is `broken`.
    fn begin_anew(&mut self, at: usize, broken: bool) {
        let since = self.ways.get(at).map(|way| way.idle_since);
        let (Some(since), Some((upstream, Some(Asked { request, .. })))) = (since, self.leave(at)) else { return };
        let _ = request.lend.loan.client().interrupts(None);
        if !broken {
            self.shared.shelf.put(upstream, since);
        }
        self.pool.give(Job::Exchange(request));
    }

    /// A bug ends this exchange alone. Its client sees the connection cut, but tokens may have been spent.
    fn end_by_bug(&mut self, at: usize) {
        log::error!("an exchange ended by a bug of the proxy; its connection was cut");
        // Whatever was done before, this way is nobody's any more.
        let Some(Way { asked, .. }) = self.ways.remove(at) else { return };
        self.idle.retain(|idle| *idle != at);
        let Some(Asked { request, draft, .. }) = asked else { return };
        let Some(mut draft) = draft.filter(|draft| !draft.has_row()) else { return };
        let row = draft.row(Ending::of_bug(draft.asked_stream()));
        self.finished.push((row, Tail::new(request.lend.loan, Vec::new(), false)));
    }
}

/// Also by a bug of the loop: then what was begun leaves its rows.
impl Drop for Express {
    fn drop(&mut self) {
        for at in self.ways.numbers() {
            if matches!(self.ways.get(at), Some(Way { asked: Some(_), .. })) {
                self.end_by_bug(at);
            }
        }
        self.settle();
    }
}

/// Whether nothing can be read of it, nor its end.
fn is_quiet(mut socket: &TcpStream) -> bool {
    matches!(socket.read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

impl Way {
    /// Sends the request on, then notes what it says: upstream is at work meanwhile.
    fn send(&mut self, shared: &Shared) -> Sent {
        let Some(Asked { request, sent: taken, draft }) = &mut self.asked else { return Sent::Nothing };
        let Lend { loan, head, body, began, start_ms, .. } = &request.lend;
        let recorded = request.forwarding.recorded;
        let bytes = self.upstream.encode(head.method(), head.target(), forwarded(head, recorded), body);
        let Some(bytes) = bytes.filter(|bytes| bytes.len() <= SENT_AT_ONCE_BYTES_MAX) else { return Sent::Nothing };
        // Upstream has ended its side, or said what nobody asked for: both may come before the event that tells of it.
        if !is_quiet(&self.socket) {
            self.upstream.manners().note_close();
            return Sent::Broken;
        }
        self.upstream.manners().note_open();
        if loan.client().interrupts(Some(self.upstream.wire().clone())).is_err() {
            return Sent::Nothing;
        }
        let n = match (&*self.socket).write(&bytes) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Sent::Broken,
        };
        *taken = n as u64;
        let sent = match &bytes[n..] {
            [] => Sent::Whole,
            unsent => Sent::Partly(Begun { sent: *taken, unsent: unsent.to_vec(), received: Vec::new() }),
        };
        *draft = recorded.then(|| Box::new(Draft::new(shared, head, body, *began, *start_ms)));
        bug_on_purpose(head, "asking");
        sent
    }
}

impl Asked {
    /// What the client gets, and the row, if the route is recorded.
    fn end(&mut self, shared: &Shared, reply: &ReplyHead, body: &[u8]) -> (Vec<u8>, Option<Row>) {
        let Lend { loan, head, began, .. } = &self.request.lend;
        bug_on_purpose(head, "relaying");
        let form = if self.draft.is_some() { form(reply.pairs()) } else { Form::Opaque };
        let mut tap = Tap::new(self.request.forwarding.dialect, form, false, shared.settings.content_bytes_kept());
        if reply.status >= 400 {
            tap = tap.of_a_failure();
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        let persistence = loan.persistence(head);
        let framing = ReplyFraming::Length(body.len() as u64);
        write_relayed_head(&mut bytes, (reply.status, reply.reason), reply.pairs(), (framing, ""), persistence);
        tap.feed(body, u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX), &mut bytes);
        tap.end(&mut bytes);
        let ending = ending(Ended::Whole, reply.status, tap.report());
        log_exchange(loan, head, &ending, *began);
        bug_on_purpose(head, "finishing");
        (bytes, self.draft.as_mut().map(|draft| draft.row(ending)))
    }
}

/// A usual reply's head.
const HEAD_BYTES: usize = 512;
