//! One exchange in a straight line: what the request says, upstream's reply, the row, the reply's last bytes.

use std::sync::Arc;
use std::time::Instant;

use ureq::Body;
use ureq::http::{HeaderMap, Response};

use super::draft::{Draft, Ending};
use super::pool::{Job, Pool};
use super::relay::{Ended, Relay, form};
use super::upstream::{NoReply, Upstream};
use super::{Lend, Shared};
use crate::front::client::{CalledOff, Loan};
use crate::http::head::RequestHead;
use crate::http::reply::{self, Persistence, Reply, ReplyFraming};
use crate::limits::OVERLOADED_RETRY_S;
use crate::record::row::Outcome;
use crate::record::tail::Tail;
use crate::settings::LogContent;
use crate::usage::inject::ask_for_usage;
use crate::usage::{Dialect, Form, Report, Tap, is_recorded};

/// A worker's belongings, warm from one exchange to the next.
pub struct Worker {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    upstream: Upstream,
    buffers: Buffers,
    /// The row in the making, where the route is recorded. It outlives a panic of the exchange.
    draft: Option<Box<Draft>>,
}

#[derive(Default)]
struct Buffers {
    read: Vec<u8>,
    passed: Vec<u8>,
}

/// A usual reply's head, with a first event or a short body.
const HEAD_BYTES: usize = 1024;
/// Buffers that grew beyond this are given back after the exchange.
const BUFFER_BYTES_KEPT: usize = 8 * 1024;

impl Worker {
    /// A worker without a connection yet.
    pub fn new(shared: Arc<Shared>, pool: Arc<Pool>) -> Worker {
        let upstream = Upstream::new(&shared.settings, &shared.names);
        Worker { shared, pool, upstream, buffers: Buffers::default(), draft: None }
    }

    /// Does one job.
    pub fn run(&mut self, job: Job) {
        match job {
            Job::Exchange(lend) => self.exchange(*lend),
            Job::Finish(tails) => {
                // Whoever reads slowly waits for nobody else's sake.
                let slow: Vec<Tail> = tails.into_iter().filter_map(Tail::send_now).collect();
                slow.into_iter().for_each(Tail::send);
            }
        }
    }

    /// Closes the idle upstream connection.
    pub fn disconnect(&mut self) {
        self.upstream.disconnect();
        self.buffers = Buffers::default();
    }

    /// Records the exchange that a panic has just ended, unless its row was made already. Its client saw the
    /// connection cut, but tokens may have been spent.
    pub fn record_bug(&mut self) {
        let Some(mut draft) = self.draft.take().filter(|draft| !draft.has_row()) else { return };
        let error = Some("the exchange ended by a bug of the proxy; its log says where".to_string());
        let streamed = draft.asked_stream();
        let ending =
            Ending { outcome: Outcome::Truncated, http_status: None, error, report: Report::default(), streamed };
        self.shared.recorder.commit(draft.row(ending), |tails| self.pool.finish(tails));
    }

    fn exchange(&mut self, lend: Lend) {
        let Lend { loan, head, body, began, start_ms } = lend;
        let recorded = is_recorded(head.method(), head.path());
        self.draft = recorded.then(|| Box::new(Draft::new(&self.shared, &head, &body, began, start_ms)));
        bug_on_purpose(&head, "asking");
        let injected = self.draft.as_ref().and_then(|draft| self.injected(draft, &head, &body));
        let strip = injected.is_some();

        let reply = match loan.client().interrupts(Some(self.upstream.wire().clone())) {
            Ok(()) => self.ask(&head, injected.as_deref().unwrap_or(&body), recorded),
            Err(_) => Err(NoReply::Failed("called off before it was asked".into())),
        };
        // A stream may go on for hours: its request is given back now.
        drop((body, injected));
        let exchange = Exchange { loan, head, recorded, began, strip };
        match reply {
            Ok(reply) => self.relay(exchange, reply),
            Err(why) => self.answer(exchange, why),
        }
    }

    fn injected(&self, draft: &Draft, head: &RequestHead, body: &[u8]) -> Option<Vec<u8>> {
        let asks = self.shared.settings.inject_usage && draft.asked_stream();
        match Dialect::of(head.path()) {
            Dialect::Chat | Dialect::Completions if asks => ask_for_usage(body),
            _ => None,
        }
    }

    /// Sends the request on: everything end-to-end as it came. Generating routes ask for no encoding, for an encoded
    /// reply cannot be read along.
    #[inline(never)]
    fn ask(&mut self, head: &RequestHead, body: &[u8], recorded: bool) -> Result<Response<Body>, NoReply> {
        let own = |name: &str| name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case("content-length");
        let dropped = |name: &str| {
            own(name)
                || head.is_hop_by_hop(name)
                || name.eq_ignore_ascii_case("expect")
                || recorded && name.eq_ignore_ascii_case("accept-encoding")
        };
        let fields = head.fields().filter(|(name, _)| !dropped(name));
        let identity = recorded.then_some(("accept-encoding", &b"identity"[..]));
        self.upstream.ask(head.method(), head.target(), fields.chain(identity), body)
    }

    // ---- a reply -----------------------------------------------------------------------------------------------

    // Frames of their own for what follows one another: with a thousand workers every page of stack counts.
    #[inline(never)]
    fn relay(&mut self, mut exchange: Exchange, reply: Response<Body>) {
        let (parts, body) = reply.into_parts();
        let status = parts.status.as_u16();
        let form = if exchange.recorded { form(&parts.headers) } else { Form::Opaque };
        let strip = exchange.strip && form == Form::Events;
        let has_body = exchange.head.method() != "HEAD" && !matches!(status, 100..200 | 204 | 304);
        let framing = framing(&exchange.head, status, &parts.headers, has_body, strip);
        if has_body && framing == ReplyFraming::None {
            exchange.loan.make_last();
        }
        let framed = ["content-length", "transfer-encoding"].iter().any(|name| parts.headers.contains_key(*name));

        let mut out = Vec::with_capacity(HEAD_BYTES);
        let fields: Vec<_> = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        reply::write_relayed_head(&mut out, status, fields.iter().copied(), framing, exchange.persistence());

        let content = match self.shared.settings.log_content {
            LogContent::Full => self.shared.settings.content_bytes_max,
            LogContent::None => 0,
        };
        let mut relay = Relay {
            client: exchange.loan.client(),
            wire: self.upstream.wire(),
            tap: Tap::new(Dialect::of(exchange.head.path()), form, strip, content),
            began: exchange.began,
            framing,
            closed: has_body && !framed,
            out,
            passed: std::mem::take(&mut self.buffers.passed),
        };
        let mut early = None;
        let draft = &mut self.draft;
        let (recorder, pool) = (&self.shared.recorder, &self.pool);
        let relayed = relay.run(&mut body.into_reader(), &mut self.buffers.read, |report| {
            if let Some(draft) = draft {
                let row = draft.row(ending(Ended::Whole, status, report, form));
                let id = recorder.commit(row.clone(), |tails| pool.finish(tails));
                early = Some((id, row));
            }
        });
        bug_on_purpose(&exchange.head, "relaying");
        self.buffers.passed = std::mem::take(&mut relay.passed);
        drop(relay);
        // From here on the upstream connection may serve the next exchange.
        let _ = exchange.loan.client().interrupts(None);

        let ending = ending(relayed.ended, status, relayed.report, form);
        self.finish(exchange, ending, relayed.tail, relayed.complete, early);
        self.buffers.trim();
    }

    #[inline(never)]
    fn finish(&mut self, exchange: Exchange, ending: Ending, tail: Vec<u8>, complete: bool, early: Option<Early>) {
        let Exchange { loan, head, .. } = exchange;
        log_exchange(&loan, &head, &ending, exchange.began);
        let tail = Tail::new(loan, tail, complete);
        let Some(draft) = &mut self.draft else { return tail.send() };
        bug_on_purpose(&head, "finishing");
        let row = draft.row(ending);
        self.draft = None;
        match early {
            None => self.shared.recorder.finish(row, tail, |tails| self.pool.finish(tails)),
            Some((id, before)) => {
                self.shared.recorder.correct(id, &before, row);
                tail.send();
            }
        }
    }

    // ---- no reply ----------------------------------------------------------------------------------------------

    #[inline(never)]
    fn answer(&mut self, exchange: Exchange, why: NoReply) {
        let client = exchange.loan.client();
        let called_off = client.called_off();
        let _ = client.interrupts(None);
        let base = &self.shared.settings.upstream;
        let (status, code, outcome, message) = match why {
            NoReply::Unreachable(why) => (
                502,
                "upstream_unreachable",
                Outcome::UpstreamUnreachable,
                format!("LM Studio does not answer at {base} ({why}). Is its server started?"),
            ),
            NoReply::Failed(why) => (
                502,
                "upstream_failed",
                Outcome::UpstreamUnreachable,
                format!("LM Studio at {base} gave no usable reply: {why}."),
            ),
            NoReply::TimedOut(why) => (
                504,
                "upstream_timeout",
                Outcome::UpstreamTimeout,
                format!("LM Studio at {base} did not answer in time: {why}."),
            ),
        };
        let reply = Reply::error(status, &message, code);
        let (outcome, http_status, error, reply) = match called_off {
            None => (outcome, Some(status), Some(message), Some(reply)),
            Some(CalledOff::ClientLeft) => (Outcome::ClientClosed, None, None, None),
            Some(CalledOff::Shutdown) => {
                let message = "The proxy was stopped before LM Studio replied.";
                let reply = Reply::overloaded(message, OVERLOADED_RETRY_S);
                (Outcome::Shutdown, Some(reply.status()), Some(message.to_string()), Some(reply))
            }
        };
        let streamed = self.draft.as_ref().is_some_and(|draft| draft.asked_stream());
        let ending = Ending { outcome, http_status, error, report: Report::default(), streamed };
        let head_only = exchange.head.method() == "HEAD";
        let bytes = reply.as_ref().map(|reply| reply.encode(exchange.persistence(), head_only)).unwrap_or_default();
        self.finish(exchange, ending, bytes, reply.is_some(), None);
    }
}

/// What stays of a request while its reply is relayed.
struct Exchange {
    loan: Loan,
    head: RequestHead,
    /// The route is recorded.
    recorded: bool,
    began: Instant,
    /// The usage event was asked for by us: it must not reach the client.
    strip: bool,
}

/// A row committed before the reply's end, and its id if it could be committed at once.
type Early = (Option<i64>, crate::record::row::Row);

impl Exchange {
    fn persistence(&self) -> Persistence {
        if self.loan.keep_alive() { self.head.persistence() } else { Persistence::Close }
    }
}

impl Buffers {
    fn trim(&mut self) {
        for buffer in [&mut self.read, &mut self.passed] {
            if buffer.capacity() > BUFFER_BYTES_KEPT {
                *buffer = Vec::new();
            }
        }
    }
}

/// How the body goes to the client: with the length that upstream gave, else in chunks, else until the close.
fn framing(head: &RequestHead, status: u16, headers: &HeaderMap, has_body: bool, strip: bool) -> ReplyFraming {
    let length = headers.get("content-length").and_then(|v| v.to_str().ok()?.trim().parse().ok());
    match length {
        // A reply without body may still tell the length it would have had, but for 204 (RFC 9110 §8.6).
        Some(length) if !has_body && status != 204 => ReplyFraming::Length(length),
        _ if !has_body => ReplyFraming::None,
        // Without the event that is taken out, the length would be wrong.
        Some(length) if !strip && !headers.contains_key("transfer-encoding") => ReplyFraming::Length(length),
        _ if head.minor_version() == 0 => ReplyFraming::None,
        _ => ReplyFraming::Chunked,
    }
}

fn ending(ended: Ended, status: u16, report: Report, form: Form) -> Ending {
    let missing = report.needs_terminal && !report.terminal && report.error.is_none();
    let (outcome, error) = match ended {
        // After the terminal event nothing can be missed any more: SDK clients stop reading there.
        _ if report.terminal && status >= 400 => (Outcome::UpstreamError, None),
        _ if report.terminal && report.error.is_some() => (Outcome::ErrorInReply, None),
        _ if report.terminal => (Outcome::Completed, None),
        Ended::ClientLeft => (Outcome::ClientClosed, None),
        Ended::Shutdown => (Outcome::Shutdown, Some("the proxy was stopped before the reply ended")),
        Ended::TimedOut => (Outcome::UpstreamTimeout, Some("upstream fell silent in the middle of its reply")),
        Ended::Broken => (Outcome::Truncated, Some("upstream broke off its reply")),
        Ended::Whole | Ended::Closed if status >= 400 => (Outcome::UpstreamError, None),
        Ended::Whole | Ended::Closed if report.error.is_some() => (Outcome::ErrorInReply, None),
        Ended::Whole | Ended::Closed if missing => {
            (Outcome::Truncated, Some("the stream ended without its terminal event"))
        }
        Ended::Whole | Ended::Closed => (Outcome::Completed, None),
    };
    // What upstream itself said about an error is more telling than what we make of its end.
    let error = if report.error.is_some() { None } else { error.map(str::to_string) };
    Ending { outcome, http_status: Some(status), error, report, streamed: form == Form::Events }
}

/// A panic where `?bug=PLACE` of a request asks for one, so that a test can see what a bug does. Only debug builds know
/// how, and only when their environment says so.
fn bug_on_purpose(head: &RequestHead, place: &str) {
    #[cfg(debug_assertions)]
    if head.query().and_then(|query| query.strip_prefix("bug=")) == Some(place)
        && std::env::var_os("BUGS_ON_PURPOSE").is_some()
    {
        panic!("on purpose, while {place}");
    }
    #[cfg(not(debug_assertions))]
    let _ = (head, place);
}

fn log_exchange(loan: &Loan, head: &RequestHead, ending: &Ending, began: Instant) {
    log::info!(
        "{} {} {} {} {} in {} ms",
        loan.client().peer(),
        head.method(),
        head.path(),
        ending.http_status.unwrap_or(0),
        ending.outcome.as_str(),
        began.elapsed().as_millis()
    );
}
