//! One exchange in a straight line: what the request says, upstream's reply, the row, the reply's last bytes.

use std::mem;
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::draft::{CANCELLED_HERE, Draft, Ending, Speaker};
use super::flow::FlowingReplies;
use super::head_reader::UpstreamReply;
use super::incoming::Incoming;
use super::job::{Job, Workers};
use super::line::ExchangeLine;
use super::no_reply::NoReply;
use super::outgoing::OutgoingBody;
use super::pool::{Pool, Runner};
use super::relay::{Ended, Relay, Scratch, Source, Step, form};
use super::relayed::{AskedBefore, ForwardedRequest};
use super::relayed::{CLIENT_VANISHED, Early, Exchange, FlowingMailbox, LeftWithLoop, bug_on_purpose, ending};
use super::request::Kind;
use super::tunnel::polled_upstream::PolledUpstream;
use super::tunnel::{Onlookers, Tunnel, TunnelEnd};
use super::unasked::Asking;
use super::upstream::UpstreamConnection;
use crate::calendar::now_ms;
use crate::client::{CalledOff, Lend, Tail};
use crate::http::head::RequestHead;
use crate::http::reply::{Reply, ReplyFraming, write_relayed_head};
use crate::http::reply_framing::{BodyEnd, ReplyBody};
use crate::http::reply_head::{self, parse_reply_head};
use crate::http::upgrade::handshake_fields;
use crate::limits::OVERLOADED_RETRY_S;
use crate::record::row::Outcome;
use crate::usage::inject::Edit;
use crate::usage::socket::{Namespace, SocketReader};
use crate::usage::{Dialect, Form, ReplyProgress, Tap, UsageReport, are_events};

/// The workers. None is started yet.
pub fn workers(shared: Arc<Shared>) -> Arc<Workers> {
    let in_flight_max = shared.settings.max_workers;
    Pool::new(in_flight_max, move |pool| {
        let (shared, pool) = (shared.clone(), pool.clone());
        Box::new(Worker { shared, pool, scratch: Scratch::default(), draft: None })
    })
}

/// A worker's belongings, warm from one exchange to the next.
struct Worker {
    shared: Arc<Shared>,
    pool: Arc<Workers>,
    scratch: Scratch,
    /// The row in the making, where the route is recorded. It outlives a panic of the exchange.
    draft: Option<Box<Draft>>,
}

/// A usual reply's head, with a first event or a short body.
const HEAD_BYTES: usize = 1024;
/// White space at the beginning of a body that is read before its head is sent on.
const BLANK_BYTES_MAX: usize = 4 * 1024;

impl Runner<Job> for Worker {
    fn run(&mut self, job: Job) {
        match job {
            Job::Exchange(request) => self.exchange(request),
            Job::Resume(exchange, step) => self.resume(exchange, step),
            Job::Settle(tunnel, home) => self.settle(tunnel, &home),
            Job::Finish(tails) => tails.into_iter().for_each(Tail::send),
            Job::Commit => self.shared.recorder.commit_arrivals(|tails| self.pool.finish(tails)),
            Job::Beside(job) => job(),
        }
    }

    /// What is kept only to be quick is given back.
    fn rest(&mut self) {
        self.shared.idle.clear_out();
        self.scratch = Scratch::default();
    }

    /// Records the exchange that the panic has ended, unless its row was made already. Its client saw the connection
    /// cut, but tokens may have been spent.
    fn end_by_bug(&mut self) {
        log::error!("an exchange ended by a bug of the proxy; its connection was cut");
        let Some(draft) = self.draft.take().filter(|draft| !draft.has_row()) else { return };
        let ending = Ending::of_bug(draft.asked_stream());
        let row = draft.row(ending);
        self.shared.recorder.commit(row, |tails| self.pool.finish(tails));
    }
}

impl Worker {
    fn exchange(&mut self, mut request: Box<ForwardedRequest>) {
        let mut edit = None;
        let (mut upstream, begun) = match request.asked_before.take().map(|asked| *asked) {
            Some(AskedBefore { upstream, begun, draft }) => {
                self.draft = draft;
                (upstream, Some(begun))
            }
            None => {
                self.draft = request.draft(&self.shared);
                bug_on_purpose(&request.lend.head, "asking");
                edit = self.ask_for_usage(&mut request);
                (self.shared.idle.take(&self.shared.upstream), None)
            }
        };
        upstream.wire().carry(OutgoingBody::new(mem::take(&mut request.lend.body), edit));
        let asked_already = begun.is_some();
        upstream.wire().begin(begun);
        upstream.wire().show(Some((*request.now).clone()));
        upstream.wire().hold(request.connecting.take().filter(|_| !upstream.wire().is_connected()));
        let reply = match request.client().interrupts(upstream.wire().clone()) {
            Ok(()) => ask(&mut upstream, &request),
            Err(_) => Err(NoReply::Failed("called off before it was asked".into())),
        };
        upstream.wire().let_go();
        upstream.wire().show(None);
        if asked_already && reply.is_err() {
            // It owes a reply: no other exchange shall get it.
            upstream.disconnect();
        }
        // A stream may go on for hours: the body is given back now, but for what the row keeps of it.
        upstream.wire().carry(OutgoingBody::default());
        request.lend.claim.set(self.draft.as_ref().map_or(0, |draft| draft.prompt_bytes()));
        match reply {
            Ok(reply) => self.begin(request, upstream, reply),
            Err(why) => self.answer(request, upstream, why),
        }
    }

    /// The edit that asks for usage, where the client does not and upstream would not tell.
    fn ask_for_usage(&mut self, request: &mut ForwardedRequest) -> Option<Edit> {
        let draft = self.draft.as_mut()?;
        let is_askable = matches!(request.forwarding.dialect, Dialect::Chat | Dialect::Completions);
        let edit = draft.take_edit().filter(|_| is_askable && self.shared.settings.inject_usage)?;
        if self.shared.unasked.tells(draft.asked_model()) {
            request.asking = Asking::Unneeded;
            return None;
        }
        request.asking = Asking::Injected;
        Some(edit)
    }

    /// What a reply tells about who has to ask for usage the next time.
    fn learn(&self, request: &ForwardedRequest, status: u16, report: &UsageReport) {
        if let (Some(draft), 200..300) = (&self.draft, status) {
            self.shared.unasked.learn(draft.asked_model(), request.asking, report);
        }
    }

    // ---- a reply -----------------------------------------------------------------------------------------------

    // Frames of their own for what follows one another: with a thousand workers every page of stack counts.
    #[inline(never)]
    fn begin(&mut self, mut request: Box<ForwardedRequest>, upstream: UpstreamConnection, reply: Box<UpstreamReply>) {
        let UpstreamReply { head: bytes, framing: body_framing, mut body } = *reply;
        let mut slots = reply_head::slots(&bytes);
        let head = parse_reply_head(&bytes, &mut slots).ok().flatten().expect("a head is read before it is put aside");
        let status = head.status;
        if status == 101 {
            return self.open_tunnel(*request, upstream, bytes, body);
        }
        // A body under a coding cannot be read along, nor can anything be taken out of it.
        let is_plain = request.forwarding.recorded && body_framing.codings.is_empty();
        let form = if is_plain { form(head.pairs()) } else { Form::Opaque };
        let has_body = body_framing.end != BodyEnd::Nothing;
        let mut strip = request.asking == Asking::Injected && has_body && status < 400 && form != Form::Opaque;
        let mut ahead = Vec::new();
        if strip && form == Form::Body && matches!(body_framing.end, BodyEnd::Length(_)) {
            // Only a stream may lose its length, and only its bytes tell that it is one.
            strip = begins_as_events(&mut body, &mut ahead);
        }
        let framing = framing(&request.lend.head, status, &body_framing, strip);
        if has_body && framing == ReplyFraming::None {
            request.lend.loan.make_last_unframed();
        }

        let closed = body_framing.end == BodyEnd::Close;
        upstream.wire().carries(closed || body_framing.end == BodyEnd::Chunks);
        let mut out = Vec::with_capacity(HEAD_BYTES);
        let persistence = request.lend.persistence();
        let codings = if has_body { body_framing.codings.as_str() } else { "" };
        let (start, framed) = ((status, head.reason), (framing, codings));
        write_relayed_head(&mut out, start, head.pairs(), framed, persistence);

        let content_bytes_max = self.shared.settings.content_bytes_max;
        let choices = self.draft.as_ref().map_or(1, |draft| draft.asked_choices());
        let mut tap = Tap::new(request.forwarding.dialect, form, strip, content_bytes_max).of_choices(choices);
        if status >= 400 {
            tap = tap.of_a_failure();
        }
        let progress = Arc::<ReplyProgress>::default();
        request.now.follow(progress.clone());
        tap = tap.telling(progress);
        // What has come whole already, or is about to, needs nobody to wait for it.
        let flows = has_body && !matches!(framing, ReplyFraming::Length(_)) && !body.seems_whole();
        let is_polled =
            flows && FlowingReplies::are_possible(&self.shared.settings) && upstream.wire().set_polled(true).is_ok();
        let mut relay = Relay::new(body, tap, request.lend.began, framing, closed, out);
        if request.forwarding.models.is_some() {
            relay = relay.gathering();
        }
        relay.take_ahead(&ahead, &mut self.scratch);
        let exchange = Box::new(Exchange { request, upstream, relay, status, is_polled, early: None, draft: None });
        self.carry(exchange);
    }

    #[inline(never)]
    fn resume(&mut self, mut exchange: Box<Exchange>, step: Step) {
        self.draft = exchange.draft.take();
        match self.heed(&mut exchange, step) {
            Some(ended) => self.end(exchange, ended),
            None => self.carry(exchange),
        }
    }

    /// Relays until the end, or until a stream does nothing but flow.
    fn carry(&mut self, mut exchange: Box<Exchange>) {
        loop {
            match exchange.advance(&mut self.scratch, usize::MAX) {
                Step::Dry if exchange.is_polled => {
                    exchange.draft = self.draft.take();
                    match exchange.request.home.clone().put(LeftWithLoop::Reply(exchange)) {
                        Ok(()) | Err(LeftWithLoop::Tunnel(_)) => return,
                        Err(LeftWithLoop::Reply(back)) => exchange = back,
                    }
                    self.draft = exchange.draft.take();
                    exchange.stop_polling();
                }
                step => {
                    if let Some(ended) = self.heed(&mut exchange, step) {
                        return self.end(exchange, ended);
                    }
                }
            }
        }
    }

    /// Does what takes time. The end, if that is what it comes to.
    fn heed(&mut self, exchange: &mut Exchange, step: Step) -> Option<Ended> {
        match step {
            Step::Dry | Step::More => None,
            Step::Full => exchange.relay.write_rest(exchange.request.client()).err(),
            Step::Terminal if !exchange.request.now.decide() => Some(Ended::Cancelled),
            Step::Terminal => {
                self.commit_early(exchange);
                exchange.relay.release();
                // The end is near, or else upstream is silent: either way its next bytes are waited for here.
                exchange.stop_polling();
                None
            }
            Step::Ended(ended) => Some(ended),
            // As if it had happened here.
            Step::Bug => std::panic::resume_unwind(Box::new("a bug while a stream flowed")),
        }
    }

    fn commit_early(&mut self, exchange: &mut Exchange) {
        let report = exchange.relay.report();
        self.learn(&exchange.request, exchange.status, &report);
        let Some(draft) = &mut self.draft else { return };
        let (row, figures) = draft.early_row(ending(Ended::Whole, exchange.status, report)).and_figures();
        let id = self.shared.recorder.commit(row, |tails| self.pool.finish(tails));
        exchange.early = Some(Box::new((id, figures)));
    }

    fn end(&mut self, mut exchange: Box<Exchange>, ended: Ended) {
        exchange.stop_polling();
        let Exchange { request, mut upstream, relay, status, early, .. } = *exchange;
        bug_on_purpose(&request.lend.head, "relaying");
        let ended = if request.now.decide() { ended } else { Ended::Cancelled };
        let relayed = relay.finish(ended);
        // From here on the upstream connection may serve the next exchange. One that calling off has shut down behind the
        // reply's end must not: found closed, it would have upstream doubted for what it did not do.
        if !request.client().withdraw() {
            upstream.disconnect();
        }
        upstream.note_use(Instant::now());
        self.shared.idle.put(upstream);
        self.learn(&request, status, &relayed.report);
        if let (Ended::Whole | Ended::Closed, Some(body)) = (ended, &relayed.gathered) {
            self.shared.learn_of_models(request.forwarding.models, status, body);
        }
        self.shared.learn_of_loading(&relayed.report, request.lend.start_ms);
        self.finish(request, ending(ended, status, relayed.report), relayed.tail, relayed.complete, early);
    }

    #[inline(never)]
    fn finish(
        &mut self,
        request: Box<ForwardedRequest>,
        ending: Ending,
        tail: Vec<u8>,
        complete: bool,
        early: Option<Box<Early>>,
    ) {
        let ForwardedRequest { lend: Lend { loan, head, began, .. }, now, .. } = *request;
        // A client that has its whole reply is answered that it is over.
        drop(now);
        let line = ExchangeLine::new(loan.client().peer(), &ending, began);
        let tail = Tail::new(loan, tail, complete);
        bug_on_purpose(&head, "finishing");
        let Some(draft) = self.draft.take() else {
            line.log(&head, None);
            return tail.send();
        };
        let row = draft.row(ending);
        line.log(&head, Some(&row));
        match early {
            None => self.shared.recorder.finish(row, tail, |tails| self.pool.finish(tails)),
            Some(early) => {
                let (id, before) = *early;
                self.shared.recorder.correct(id, &before, row);
                tail.send();
            }
        }
    }

    // ---- a WebSocket -------------------------------------------------------------------------------------------

    /// Upstream has agreed: from now on the connection is a tunnel, in its client's loop.
    #[inline(never)]
    fn open_tunnel(&self, request: ForwardedRequest, upstream: UpstreamConnection, head: Vec<u8>, body: Incoming) {
        let ForwardedRequest { lend: Lend { loan, head: asked, began, .. }, home, socket, now, .. } = request;
        drop(now);
        let Some(counted) = socket else { return loan.cut() };
        // The tunnel sees for itself that its client leaves.
        loan.client().withdraw();
        let upstream = match PolledUpstream::new(body, upstream.wire().clone()) {
            Ok(upstream) => Box::new(upstream),
            Err(e) => return log::warn!("{}: a WebSocket is cut: {e}", loan.client().peer()),
        };
        log::info!("{} GET {} 101 in {} ms", loan.client().peer(), asked.path(), began.elapsed().as_millis());
        let content_bytes_max = self.shared.settings.content_bytes_max;
        let reader = Box::new(SocketReader::new(Namespace::of_path(asked.path()), content_bytes_max));
        let speaker = Speaker::new(self.shared.fingerprints.clone(), content_bytes_max > 0, &asked);
        let onlookers = Onlookers { in_flight: self.shared.in_flight.clone(), models: self.shared.models.clone() };
        let tunnel = Tunnel::new(loan, head, upstream, reader, speaker, onlookers, counted);
        // Where there is no loop any more, it is cut.
        let _ = home.put(LeftWithLoop::Tunnel(Box::new(tunnel)));
    }

    /// Commits the rows of a WebSocket's generations; what it held back for them may leave then.
    fn settle(&self, mut tunnel: Box<Tunnel>, home: &FlowingMailbox) {
        loop {
            self.shared.recorder.commit_all(tunnel.take_rows(), |tails| self.pool.finish(tails));
            let Some(settled) = tunnel.settled() else { return };
            let Err(LeftWithLoop::Tunnel(back)) = home.put(LeftWithLoop::Tunnel(settled)) else { return };
            // There is no loop any more: what still goes on leaves its rows, too.
            tunnel = back;
            tunnel.break_off(TunnelEnd::Failed);
        }
    }

    // ---- no reply ----------------------------------------------------------------------------------------------

    #[inline(never)]
    fn answer(&mut self, request: Box<ForwardedRequest>, mut upstream: UpstreamConnection, why: NoReply) {
        let client = request.client();
        let called_off = if request.now.decide() { client.called_off() } else { Some(CalledOff::Here) };
        if !client.withdraw() {
            upstream.disconnect();
        }
        upstream.note_use(Instant::now());
        self.shared.idle.put(upstream);
        let (status, code, message) = why.told(&self.shared.settings.upstream);
        let outcome = if status == 504 { Outcome::UpstreamTimeout } else { Outcome::UpstreamUnreachable };
        let reply = match status {
            503 => Reply::overloaded(&message, OVERLOADED_RETRY_S),
            _ => Reply::error(status, &message, code),
        };
        let (outcome, error, reply) = match called_off {
            None => (outcome, Some(message), Some(reply)),
            Some(CalledOff::ClientLeft) => (Outcome::ClientClosed, None, None),
            Some(CalledOff::ClientVanished) => (Outcome::ClientClosed, Some(CLIENT_VANISHED.to_string()), None),
            Some(CalledOff::Here) => {
                // No client library tries again for this status: what was called off shall stay so.
                let reply = Reply::error(410, CALLED_OFF_MESSAGE, "cancelled_here");
                (Outcome::CancelledHere, Some(CANCELLED_HERE.to_string()), Some(reply))
            }
            Some(CalledOff::Shutdown) => {
                let message = "The proxy was stopped before LM Studio replied.";
                let reply = Reply::overloaded(message, OVERLOADED_RETRY_S);
                (Outcome::Shutdown, Some(message.to_string()), Some(reply))
            }
        };
        let http_status = reply.as_ref().map(Reply::status);
        let streamed = self.draft.as_ref().is_some_and(|draft| draft.asked_stream());
        let ending = Ending { outcome, http_status, error, report: UsageReport::default(), streamed };
        let head_only = request.lend.head.method() == "HEAD";
        let bytes = reply
            .as_ref()
            .map(|reply| reply.encode(request.lend.persistence(), head_only, now_ms()))
            .unwrap_or_default();
        self.finish(request, ending, bytes, reply.is_some(), None);
    }
}

/// What the client of a request reads that was called off before anything of its reply had come.
const CALLED_OFF_MESSAGE: &str = "Whoever runs this proxy has called this request off (DELETE /stats/now/ID).";

/// Sends the request on.
#[inline(never)]
fn ask(upstream: &mut UpstreamConnection, request: &ForwardedRequest) -> Result<Box<UpstreamReply>, NoReply> {
    let head = &request.lend.head;
    if request.forwarding.kind == Kind::Handshake {
        let fields: Vec<_> = handshake_fields(head).collect();
        return upstream.ask(head.method(), head.target(), &fields, true);
    }
    let fields: Vec<_> = forwarded(head, request.forwarding.recorded).collect();
    let reply = upstream.ask(head.method(), head.target(), &fields, false)?;
    // RFC 9112 §6.1. We asked for none, and have nothing to take it off with.
    if head.minor_version() == 0 && reply.framing.end != BodyEnd::Nothing && !reply.framing.codings.is_empty() {
        let why = format!("its transfer coding {} is none for an HTTP/1.0 client", reply.framing.codings);
        return Err(NoReply::Failed(why));
    }
    Ok(reply)
}

/// The fields of a request that are sent on: everything end-to-end as it came. Generating routes ask for no encoding,
/// for an encoded reply cannot be read along.
pub fn forwarded(head: &RequestHead, recorded: bool) -> impl Iterator<Item = (&str, &[u8])> {
    let own = |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case("content-length");
    let dropped = move |name: &str| {
        own(name)
            || head.is_hop_by_hop(name)
            || name.eq_ignore_ascii_case("expect")
            || recorded && name.eq_ignore_ascii_case("accept-encoding")
    };
    let identity = recorded.then_some(("accept-encoding", &b"identity"[..]));
    head.fields().filter(move |(name, _)| !dropped(name)).chain(identity)
}

/// Reads the first bytes of a body into `ahead`; whether they are those of events. What ends or breaks before them is
/// told by the next read, too.
fn begins_as_events(body: &mut Incoming, ahead: &mut Vec<u8>) -> bool {
    while let (Ok(false), true) = (body.read(ahead), ahead.len() <= BLANK_BYTES_MAX) {
        if are_events(ahead).is_some() {
            break;
        }
    }
    are_events(ahead).unwrap_or(false)
}

/// How the body goes to the client: with the length that upstream gave, else in chunks, else until the close.
fn framing(head: &RequestHead, status: u16, body: &ReplyBody, strip: bool) -> ReplyFraming {
    match body.end {
        // A reply without body may still tell the length it would have had, but for 204 (RFC 9110 §8.6).
        BodyEnd::Nothing if status == 204 => ReplyFraming::None,
        BodyEnd::Nothing => body.length.map_or(ReplyFraming::None, ReplyFraming::Length),
        // Without the event that is taken out, the length would be wrong.
        BodyEnd::Length(length) if !strip => ReplyFraming::Length(length),
        BodyEnd::Length(_) | BodyEnd::Chunks | BodyEnd::Close if head.minor_version() == 0 => ReplyFraming::None,
        // Chunks within another coding have been named; a second time they must not be.
        BodyEnd::Close if body.codings.split(", ").any(|coding| coding.eq_ignore_ascii_case("chunked")) => {
            ReplyFraming::None
        }
        BodyEnd::Length(_) | BodyEnd::Chunks | BodyEnd::Close => ReplyFraming::Chunked,
    }
}
