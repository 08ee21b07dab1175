//! Relays one reply: bytes go to the client as they come, a tap reads a copy.
//!
//! Nothing waits but the end. The last bytes of a reply (the last read of a body of known length, the terminal chunk,
//! a stream's terminal event) are not sent but left in [`Relayed::tail`], for the recorder to send when the row is
//! committed. Where upstream stays silent after a stream's terminal event, the row is committed before the wait.
//!
//! A relay never waits for its client, and for upstream only while that socket blocks; [`Relay::advance`] goes as far
//! as it can and says why it stopped. So a worker and a loop drive the same machine.
//!
//! ```text
//!              ┌──────────── write what is left ─────────────┐
//!  head ──▶ advance ─┬─▶ Full (the client takes no more) ────┘
//!              ▲     ├─▶ Dry (upstream has no more), More (its turn is over) ──▶ later, advance
//!              │     ├─▶ Terminal ──▶ commit, release ──▶ advance
//!              │     └─▶ Ended ──▶ finish ──▶ Relayed
//! ```

use std::io;
use std::time::Instant;

use crate::client::{CalledOff, Client, Socket};
use crate::http::chunked::{LAST_CHUNK, write_chunk};
use crate::http::refusal::Refusal;
use crate::http::reply::ReplyFraming;
use crate::keepalive;
use crate::limits::LISTING_BYTES_MAX;
use crate::usage::{Flow, Form, Tap, UsageReport};

/// Where the body of a reply comes from.
pub trait Source {
    /// Appends what comes next to `out`, and says whether the body has ended. What came before a fault is in `out`, too.
    /// Waits for upstream, unless something has come; or says [`io::ErrorKind::WouldBlock`].
    fn read(&mut self, out: &mut Vec<u8>) -> Result<bool, Fault>;

    /// Whether something has come that reading will not wait for.
    fn has_early(&self) -> bool;

    /// Nobody reads on: after its end the next exchange may have the connection.
    fn put_aside(self);
}

/// Why a body ended too early.
#[derive(Debug)]
pub enum Fault {
    /// Reading failed, or the connection ended. Of a polled socket also that there is nothing now.
    Io(io::Error),
    /// Its chunks cannot be read on.
    Chunks(Refusal),
}

/// How the relaying of a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Upstream ended the body as its framing says.
    Whole,
    /// Upstream ended a body without framing by closing: whole, as far as anyone can tell.
    Closed,
    /// Upstream died in the middle of the body.
    Broken,
    /// Upstream's chunks cannot be read on, for this reason.
    Malformed(Refusal),
    /// Upstream was silent for too long.
    TimedOut,
    /// Upstream vanished in the middle of the body: it acknowledges nothing any more.
    Vanished,
    /// The client is gone.
    ClientLeft,
    /// The client is gone, but had its whole answer before.
    Answered,
    /// The client acknowledges nothing any more.
    ClientVanished,
    /// The proxy is stopping.
    Shutdown,
    /// It was called off here.
    Cancelled,
}

impl From<CalledOff> for Ended {
    fn from(why: CalledOff) -> Ended {
        match why {
            CalledOff::ClientLeft => Ended::ClientLeft,
            CalledOff::ClientVanished => Ended::ClientVanished,
            CalledOff::Shutdown => Ended::Shutdown,
            CalledOff::Here => Ended::Cancelled,
        }
    }
}

/// Why a relay stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Upstream has sent no more. Only where its socket does not block.
    Dry,
    /// There is more to read, but others shall have their turn.
    More,
    /// The client takes no more: [`Relay::write_rest`].
    Full,
    /// The stream's terminal event has come, but not its end: commit the row, then [`Relay::release`].
    Terminal,
    /// It is over: [`Relay::finish`].
    Ended(Ended),
    /// Relaying it met a bug of the proxy.
    Bug,
}

/// What is left to do when a reply was relayed.
pub struct Relayed {
    /// What the tap understood.
    pub report: UsageReport,
    /// The last bytes for the client. Empty when nobody takes them.
    pub tail: Vec<u8>,
    /// The body, where it was gathered and is no longer than that allows.
    pub gathered: Option<Vec<u8>>,
    /// With the tail the client has a whole reply. If not, its connection must be cut so that it can see that.
    pub complete: bool,
}

/// One reply on its way.
pub struct Relay<B> {
    /// Where it comes from.
    body: B,
    /// What reads along.
    tap: Tap,
    /// When the exchange began.
    began: Instant,
    /// How the body is framed for the client.
    framing: ReplyFraming,
    /// Upstream ends the body by closing its connection.
    closed: bool,
    /// Bytes for the client that wait: the head, for company; what a full socket did not take.
    out: Vec<u8>,
    /// Bytes of a body of known length still to come.
    left: u64,
    /// The terminal event is held.
    terminal: bool,
    answer: Answer,
    /// A copy of the body, so long as it is short.
    gathered: Option<Vec<u8>>,
}

/// Whether the client has its whole answer: it was told why every choice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Partial,
    /// The rest of it waits to be sent. Said to the front before it is sent: the client may leave at once.
    Offered,
    /// Its socket took all of it. What follows is read for its counts, whoever else takes it.
    Given,
}

/// Memory that relays use in turn: of a thousand streams all but one wait, and need none.
#[derive(Default)]
pub struct Scratch {
    read: Vec<u8>,
    passed: Vec<u8>,
    out: Vec<u8>,
}

impl<B: Source> Relay<B> {
    /// A reply of which `out`, its head, is still to be sent.
    pub fn new(body: B, tap: Tap, began: Instant, framing: ReplyFraming, closed: bool, out: Vec<u8>) -> Relay<B> {
        let left = match framing {
            ReplyFraming::Length(length) => length,
            ReplyFraming::Chunked | ReplyFraming::None => u64::MAX,
        };
        Relay { body, tap, began, framing, closed, out, left, terminal: false, answer: Answer::Partial, gathered: None }
    }

    /// The same, of whose body a copy is kept unless it is longer than `LISTING_BYTES_MAX`.
    pub fn gathering(mut self) -> Relay<B> {
        self.gathered = Some(Vec::new());
        self
    }

    /// Takes bytes of the body that were read before the head was made.
    pub fn take_ahead(&mut self, bytes: &[u8], scratch: &mut Scratch) {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.take(bytes, &mut scratch.passed);
    }

    /// Relays what there is, but not much more than `turn_bytes`.
    pub fn advance<S: Socket>(&mut self, client: &Client<S>, scratch: &mut Scratch, turn_bytes: usize) -> Step {
        if self.out.is_empty() {
            self.out = std::mem::take(&mut scratch.out);
        }
        let step = self.go_on(client, scratch, turn_bytes);
        if self.out.is_empty() {
            scratch.out = std::mem::take(&mut self.out);
        }
        step
    }

    fn go_on<S: Socket>(&mut self, client: &Client<S>, scratch: &mut Scratch, turn_bytes: usize) -> Step {
        let mut taken = 0;
        loop {
            if self.terminal && self.left > 0 {
                return Step::Terminal;
            }
            // The last bytes of a known length wait for their row; a head for its body, if that is here.
            if self.left > 0
                && !self.body.has_early()
                && let Some(step) = self.send(client)
            {
                return step;
            }
            if taken >= turn_bytes {
                return Step::More;
            }
            scratch.read.clear();
            let read = self.body.read(&mut scratch.read);
            let n = scratch.read.len();
            taken += n;
            self.left = self.left.saturating_sub(n as u64);
            // Also what came before a fault.
            if n > 0 {
                self.take(&scratch.read, &mut scratch.passed);
            }
            match read {
                Ok(false) => {}
                Ok(true) => {
                    let called_off = client.called_off().map(|why| self.left(why.into()));
                    return Step::Ended(called_off.unwrap_or(if self.closed { Ended::Closed } else { Ended::Whole }));
                }
                Err(Fault::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return self.dry(client),
                Err(fault) => return Step::Ended(self.why(client, &fault)),
            }
            if self.left > 0
                && let Some(step) = self.send(client)
            {
                return step;
            }
        }
    }

    /// Nothing more can be read now: what was put together in the hope of more leaves.
    fn dry<S: Socket>(&mut self, client: &Client<S>) -> Step {
        self.send(client).unwrap_or(Step::Dry)
    }

    /// After [`Step::Full`]: writes what is left, as long as the client takes any of it.
    pub fn write_rest<S: Socket>(&mut self, client: &Client<S>) -> Result<(), Ended> {
        let sent = client.write_all(&self.out);
        self.out = Vec::new();
        match sent {
            Ok(()) => self.note_sent(),
            Err(_) if self.answer == Answer::Given => {}
            Err(e) => return Err(left_by(client, &e)),
        }
        Ok(())
    }

    /// What the tap understood so far. A later report has no words.
    pub fn report(&mut self) -> UsageReport {
        self.tap.report()
    }

    /// After [`Step::Terminal`], when the row is committed: the terminal event may leave.
    pub fn release(&mut self) {
        let mut passed = Vec::new();
        self.tap.release(&mut passed);
        self.frame(&passed);
        self.terminal = false;
    }

    /// Puts together what is still to be sent. What upstream sent before it broke off reaches the client, too.
    pub fn finish(mut self, ended: Ended) -> Relayed {
        let mut passed = Vec::new();
        self.tap.end(&mut passed);
        self.frame(&passed);
        let report = self.tap.report();
        let (complete, is_awaited) = match ended {
            Ended::Whole => (true, true),
            // A stream that ended by a close without a word that it ended is not.
            Ended::Closed => (report.terminal || report.finished || !report.needs_terminal, true),
            Ended::Broken | Ended::Malformed(_) | Ended::TimedOut | Ended::Vanished => (false, true),
            Ended::ClientLeft | Ended::Answered | Ended::ClientVanished | Ended::Shutdown | Ended::Cancelled => {
                (false, false)
            }
        };
        if complete && self.framing == ReplyFraming::Chunked {
            self.out.extend_from_slice(LAST_CHUNK);
        }
        let tail = if is_awaited { self.out } else { Vec::new() };
        self.body.put_aside();
        Relayed { report, tail, gathered: self.gathered, complete }
    }

    /// One read's worth: through the tap, framed, to what waits to be sent.
    fn take(&mut self, bytes: &[u8], passed: &mut Vec<u8>) {
        passed.clear();
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if self.tap.feed(bytes, now_us, passed) == Flow::Terminal {
            self.terminal = true;
        }
        let fits = |gathered: &Vec<u8>| gathered.len() + bytes.len() <= LISTING_BYTES_MAX;
        self.gathered = self.gathered.take().filter(fits);
        if let Some(gathered) = &mut self.gathered {
            gathered.extend_from_slice(bytes);
        }
        self.frame(passed);
    }

    fn frame(&mut self, bytes: &[u8]) {
        match self.framing {
            ReplyFraming::Chunked => write_chunk(&mut self.out, bytes),
            ReplyFraming::Length(_) | ReplyFraming::None => self.out.extend_from_slice(bytes),
        }
    }

    /// Sends what waits; a step where that did not succeed at once.
    fn send<S: Socket>(&mut self, client: &Client<S>) -> Option<Step> {
        if self.out.is_empty() {
            return None;
        }
        if self.answer == Answer::Partial && self.tap.is_answered() {
            self.answer = Answer::Offered;
            client.has_answer();
        }
        let sent = match client.write_now(&self.out) {
            Ok(sent) => sent,
            Err(_) if self.answer == Answer::Given => self.out.len(),
            Err(e) => return Some(Step::Ended(left_by(client, &e))),
        };
        if sent < self.out.len() {
            self.out.drain(..sent);
            return Some(Step::Full);
        }
        self.out.clear();
        self.note_sent();
        None
    }

    fn note_sent(&mut self) {
        if self.answer == Answer::Offered {
            self.answer = Answer::Given;
        }
    }

    /// How an exchange ended that was called off.
    fn left(&self, why: Ended) -> Ended {
        match why {
            Ended::ClientLeft | Ended::ClientVanished if self.answer == Answer::Given => Ended::Answered,
            other => other,
        }
    }

    fn why<S: Socket>(&self, client: &Client<S>, fault: &Fault) -> Ended {
        if let Some(why) = client.called_off() {
            return self.left(why.into());
        }
        match fault {
            Fault::Io(error) if keepalive::tells_of_vanishing(error) => Ended::Vanished,
            Fault::Io(error) if keepalive::is_own_timeout(error) => Ended::TimedOut,
            Fault::Io(error) => {
                log::debug!("upstream broke off its reply: {error}");
                Ended::Broken
            }
            Fault::Chunks(refusal) => {
                log::debug!("upstream's chunks cannot be read on: {}", refusal.facts().name);
                Ended::Malformed(*refusal)
            }
        }
    }
}

/// Whoever called it off is the reason why writing failed; else the client is gone, or reads nothing.
fn left_by<S: Socket>(client: &Client<S>, error: &io::Error) -> Ended {
    let vanished = keepalive::tells_of_vanishing(error);
    client.called_off().map_or(if vanished { Ended::ClientVanished } else { Ended::ClientLeft }, Ended::from)
}

/// What a reply is labelled as. Of several types that of a stream counts; what it is, its bytes tell.
pub fn form<'f>(fields: impl Iterator<Item = (&'f str, &'f [u8])>) -> Form {
    const STREAMS: [&[u8]; 4] =
        [b"text/event-stream", b"application/x-ndjson", b"application/ndjson", b"application/jsonl"];
    let mut form = Form::Body;
    for (name, value) in fields {
        if name.eq_ignore_ascii_case("content-encoding") {
            let value = value.trim_ascii();
            if !value.is_empty() && !value.eq_ignore_ascii_case(b"identity") {
                return Form::Opaque;
            }
        } else if name.eq_ignore_ascii_case("content-type") {
            let media_type = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
            if STREAMS.iter().any(|stream| media_type.eq_ignore_ascii_case(stream)) {
                form = Form::Events;
            }
        }
    }
    form
}
#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::net::{Shutdown, SocketAddr};
    use std::rc::Rc;
    use std::sync::Arc;

    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::client::Returns;
    use crate::usage::Dialect;

    const CHUNKED: ReplyFraming = ReplyFraming::Chunked;
    const UNFRAMED: ReplyFraming = ReplyFraming::None;

    /// What one read of upstream finds.
    enum Comes {
        Bytes(&'static str),
        /// The same with the head: nobody waits for it.
        Early(&'static str),
        /// The last bytes, with the end that the framing tells.
        Last(&'static str),
        /// The connection was closed.
        Close,
        /// Nothing now.
        Nothing,
        Breaks(&'static str, Fault),
    }
    use Comes::*;

    struct Script {
        comes: VecDeque<Comes>,
        is_put_aside: Rc<Cell<bool>>,
    }

    impl Source for Script {
        fn read(&mut self, out: &mut Vec<u8>) -> Result<bool, Fault> {
            match self.comes.pop_front().expect("nobody reads behind the end") {
                Bytes(bytes) | Early(bytes) => out.extend_from_slice(bytes.as_bytes()),
                Last(bytes) => {
                    out.extend_from_slice(bytes.as_bytes());
                    return Ok(true);
                }
                Close => return Ok(true),
                Nothing => return Err(Fault::Io(io::ErrorKind::WouldBlock.into())),
                Breaks(bytes, fault) => {
                    out.extend_from_slice(bytes.as_bytes());
                    return Err(fault);
                }
            }
            Ok(false)
        }

        fn has_early(&self) -> bool {
            matches!(self.comes.front(), Some(Early(_)))
        }

        fn put_aside(self) {
            self.is_put_aside.set(true);
        }
    }

    /// The client's socket.
    struct Sink {
        got: RefCell<String>,
        /// So many bytes it takes.
        room: Cell<usize>,
        breaks: Cell<Option<io::ErrorKind>>,
    }

    impl Socket for Sink {
        fn read(&self, _: &mut [u8]) -> io::Result<usize> {
            unreachable!("the loop reads")
        }

        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = self.breaks.get() {
                return Err(kind.into());
            }
            let n = self.room.get().min(bytes.len());
            self.room.set(self.room.get() - n);
            self.got.borrow_mut().push_str(std::str::from_utf8(&bytes[..n]).expect("text"));
            if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
        }

        fn shutdown(&self, _: Shutdown) -> io::Result<()> {
            Ok(())
        }

        fn take_error(&self) -> io::Result<Option<io::Error>> {
            Ok(None)
        }

        fn set_resets(&self, _: bool) -> io::Result<()> {
            Ok(())
        }
    }

    /// One reply, whose head is `head.`.
    struct Trial {
        relay: Relay<Script>,
        client: Client<Sink>,
        scratch: Scratch,
        is_put_aside: Rc<Cell<bool>>,
    }

    impl Trial {
        fn of(form: Form, framing: ReplyFraming, closed: bool, comes: impl IntoIterator<Item = Comes>) -> Trial {
            let poll = Poll::new().expect("a poll");
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
            let returns = Arc::new(Returns::new(waker, Instant::now()));
            let sink = Sink { got: RefCell::default(), room: Cell::new(usize::MAX), breaks: Cell::new(None) };
            let client = Client::new(sink, SocketAddr::from(([127, 0, 0, 1], 1)), 0, returns);
            client.lend();
            let is_put_aside = Rc::new(Cell::new(false));
            let body = Script { comes: comes.into_iter().collect(), is_put_aside: is_put_aside.clone() };
            let tap = Tap::new(Dialect::Chat, form, false, 0);
            let relay = Relay::new(body, tap, Instant::now(), framing, closed, b"head.".to_vec());
            Trial { relay, client, scratch: Scratch::default(), is_put_aside }
        }

        /// A body whose framing upstream told.
        fn new(framing: ReplyFraming, comes: impl IntoIterator<Item = Comes>) -> Trial {
            Trial::of(Form::Body, framing, false, comes)
        }

        /// A stream of events.
        fn events(framing: ReplyFraming, comes: impl IntoIterator<Item = Comes>) -> Trial {
            Trial::of(Form::Events, framing, false, comes)
        }

        fn turn(&mut self, bytes: usize) -> Step {
            self.relay.advance(&self.client, &mut self.scratch, bytes)
        }

        fn advance(&mut self) -> Step {
            self.turn(usize::MAX)
        }

        fn got(&self) -> String {
            self.client.stream().got.take()
        }

        /// The tail, and whether the reply is complete with it.
        fn finish(self, ended: Ended) -> (String, bool) {
            let relayed = self.relay.finish(ended);
            assert!(self.is_put_aside.get());
            (String::from_utf8(relayed.tail).expect("text"), relayed.complete)
        }
    }

    /// How `text` is framed.
    fn framed(framing: ReplyFraming, text: &str) -> String {
        match framing {
            ReplyFraming::Chunked => format!("{:x}\r\n{text}\r\n", text.len()),
            ReplyFraming::Length(_) | ReplyFraming::None => text.into(),
        }
    }

    const STEP_FRAMINGS: [ReplyFraming; 3] = [ReplyFraming::Length(6), CHUNKED, UNFRAMED];

    #[test]
    fn what_comes_leaves_and_the_last_bytes_are_kept_back() {
        for framing in STEP_FRAMINGS {
            let mut trial = Trial::new(framing, [Bytes("ab"), Nothing, Bytes("cd"), Last("ef")]);
            assert_eq!((trial.advance(), trial.got()), (Step::Dry, format!("head.{}", framed(framing, "ab"))));
            assert_eq!((trial.advance(), trial.got()), (Step::Ended(Ended::Whole), framed(framing, "cd")));
            let end = if framing == CHUNKED { "0\r\n\r\n" } else { "" };
            assert_eq!(trial.finish(Ended::Whole), (framed(framing, "ef") + end, true));
        }
    }

    #[test]
    fn the_last_bytes_of_a_known_length_are_kept_back_before_their_end_is_told() {
        let mut trial = Trial::new(ReplyFraming::Length(4), [Bytes("ab"), Bytes("cd"), Close]);
        assert_eq!((trial.advance(), trial.got().as_str()), (Step::Ended(Ended::Whole), "head.ab"));
        assert_eq!(trial.finish(Ended::Whole), ("cd".into(), true));
    }

    #[test]
    fn a_reply_without_a_body_is_all_kept_back() {
        let mut trial = Trial::new(ReplyFraming::Length(0), [Close]);
        assert_eq!((trial.advance(), trial.got().as_str()), (Step::Ended(Ended::Whole), ""));
        assert_eq!(trial.finish(Ended::Whole), ("head.".into(), true));
    }

    #[test]
    fn a_head_waits_for_its_body_only_where_that_is_here() {
        for framing in STEP_FRAMINGS {
            let mut trial = Trial::new(framing, [Nothing, Last("abcdef")]);
            assert_eq!((trial.advance(), trial.got().as_str()), (Step::Dry, "head."));
            let mut trial = Trial::new(framing, [Early("abc"), Nothing]);
            // One write: the socket takes no second one.
            trial.client.stream().room.set("head.".len() + framed(framing, "abc").len());
            assert_eq!((trial.advance(), trial.got()), (Step::Dry, format!("head.{}", framed(framing, "abc"))));
        }
        let mut trial = Trial::new(ReplyFraming::Length(3), [Early("abc"), Close]);
        assert_eq!((trial.advance(), trial.got().as_str()), (Step::Ended(Ended::Whole), ""));
        assert_eq!(trial.finish(Ended::Whole), ("head.abc".into(), true), "all in one write");
    }

    #[test]
    fn what_was_read_before_the_head_was_made_counts() {
        let mut trial = Trial::new(ReplyFraming::Length(4), [Bytes("cd"), Close]);
        trial.relay.take_ahead(b"ab", &mut trial.scratch);
        assert_eq!((trial.advance(), trial.got().as_str()), (Step::Ended(Ended::Whole), "head.ab"));
        assert_eq!(trial.finish(Ended::Whole), ("cd".into(), true));
    }

    #[test]
    fn a_turn_ends_when_it_has_read_enough() {
        for framing in STEP_FRAMINGS {
            let mut trial = Trial::new(framing, [Bytes("ab"), Bytes("cd"), Last("ef")]);
            assert_eq!(trial.turn(3), Step::More);
            assert_eq!(trial.got(), format!("head.{}{}", framed(framing, "ab"), framed(framing, "cd")));
            assert_eq!(trial.turn(3), Step::Ended(Ended::Whole));
        }
    }

    #[test]
    fn a_client_that_takes_no_more_stops_it_and_nothing_is_lost() {
        for framing in STEP_FRAMINGS {
            let mut trial = Trial::new(framing, [Bytes("ab"), Bytes("cd"), Last("ef")]);
            let all = format!("head.{}{}", framed(framing, "ab"), framed(framing, "cd"));
            trial.client.stream().room.set("head.a".len());
            assert_eq!(trial.advance(), Step::Full);
            trial.client.stream().room.set(usize::MAX);
            assert_eq!(trial.relay.write_rest(&trial.client), Ok(()));
            assert_eq!((trial.advance(), trial.got()), (Step::Ended(Ended::Whole), all));
        }
    }

    #[test]
    fn the_terminal_event_is_held_until_its_row_is_in() {
        const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
        const DONE: &str = "data: [DONE]\n\n";
        for framing in [CHUNKED, UNFRAMED] {
            let mut trial = Trial::events(framing, [Bytes(EVENT), Bytes(DONE), Nothing, Close]);
            assert_eq!((trial.advance(), trial.got()), (Step::Terminal, format!("head.{}", framed(framing, EVENT))));
            assert_eq!((trial.advance(), trial.got().as_str()), (Step::Terminal, ""), "nor does asking again help");
            trial.relay.release();
            assert_eq!((trial.advance(), trial.got()), (Step::Dry, framed(framing, DONE)));
            assert_eq!((trial.advance(), trial.got().as_str()), (Step::Ended(Ended::Whole), ""));
        }
        // With the end behind it, nobody needs to be asked: it is the tail.
        let mut trial = Trial::events(CHUNKED, [Bytes(EVENT), Last(DONE)]);
        assert_eq!(
            (trial.advance(), trial.got()),
            (Step::Ended(Ended::Whole), format!("head.{}", framed(CHUNKED, EVENT)))
        );
        assert_eq!(trial.finish(Ended::Whole), (framed(CHUNKED, DONE) + "0\r\n\r\n", true));
        let mut trial = Trial::events(ReplyFraming::Length(DONE.len() as u64), [Early(DONE), Close]);
        assert_eq!(trial.advance(), Step::Ended(Ended::Whole));
        assert_eq!(trial.finish(Ended::Whole), (format!("head.{DONE}"), true));
    }

    #[test]
    fn what_came_before_a_fault_reaches_the_client_and_no_end_does() {
        let check = |fault: Fault, ended: Ended| {
            let mut trial = Trial::new(CHUNKED, [Bytes("ab"), Breaks("cd", fault)]);
            assert_eq!((trial.advance(), trial.got()), (Step::Ended(ended), format!("head.{}", framed(CHUNKED, "ab"))));
            assert_eq!(trial.finish(ended), (framed(CHUNKED, "cd"), false), "{ended:?}");
        };
        check(Fault::Io(io::ErrorKind::UnexpectedEof.into()), Ended::Broken);
        check(Fault::Io(io::Error::other("connection reset")), Ended::Broken);
        check(Fault::Chunks(Refusal::RequestLine), Ended::Malformed(Refusal::RequestLine));
        check(Fault::Io(io::ErrorKind::TimedOut.into()), Ended::TimedOut);
        #[cfg(target_os = "linux")]
        check(Fault::Io(io::Error::from_raw_os_error(110)), Ended::Vanished);
    }

    #[test]
    fn a_close_ends_a_body_without_framing_but_no_stream_that_has_not_said_so() {
        let check = |form: Form, text: &'static str, complete: bool| {
            let mut trial = Trial::of(form, CHUNKED, true, [Bytes(text), Close]);
            assert_eq!(trial.advance(), Step::Ended(Ended::Closed));
            let end = if complete { "0\r\n\r\n" } else { "" };
            assert_eq!(trial.finish(Ended::Closed), (end.into(), complete), "{text}");
        };
        check(Form::Body, "some text", true);
        check(Form::Events, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", false);
        check(Form::Events, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n", true);
    }

    #[test]
    fn an_exchange_that_was_called_off_ends_so_and_has_no_tail() {
        for (why, ended) in [
            (CalledOff::ClientLeft, Ended::ClientLeft),
            (CalledOff::ClientVanished, Ended::ClientVanished),
            (CalledOff::Shutdown, Ended::Shutdown),
            (CalledOff::Here, Ended::Cancelled),
        ] {
            for end in [Last("cd"), Breaks("cd", Fault::Io(io::ErrorKind::UnexpectedEof.into()))] {
                let mut trial = Trial::new(CHUNKED, [Bytes("ab"), Nothing, end]);
                assert_eq!(trial.advance(), Step::Dry);
                trial.client.call_off(why);
                assert_eq!(trial.advance(), Step::Ended(ended));
                assert_eq!(trial.finish(ended), (String::new(), false));
            }
        }
    }

    #[test]
    fn a_client_that_cannot_be_written_to_has_left() {
        let mut trial = Trial::new(CHUNKED, [Bytes("ab")]);
        trial.client.stream().breaks.set(Some(io::ErrorKind::BrokenPipe));
        assert_eq!(trial.advance(), Step::Ended(Ended::ClientLeft));
        let mut trial = Trial::new(CHUNKED, [Bytes("ab")]);
        trial.client.stream().room.set(0);
        assert_eq!(trial.advance(), Step::Full);
        trial.client.call_off(CalledOff::Shutdown);
        assert_eq!(trial.relay.write_rest(&trial.client), Err(Ended::Shutdown));
    }

    #[test]
    fn a_client_that_leaves_with_its_whole_answer_was_answered() {
        const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let comes = || [Bytes(FINISH), Nothing, Bytes("data: {\"usage\":{}}\n\n"), Nothing, Last("")];
        let mut trial = Trial::events(CHUNKED, comes());
        assert_eq!(trial.advance(), Step::Dry);
        assert!(!trial.client.call_off(CalledOff::ClientLeft), "upstream may still tell what it took");
        // Nobody takes what follows; it is read all the same.
        trial.client.stream().breaks.set(Some(io::ErrorKind::BrokenPipe));
        assert_eq!(trial.advance(), Step::Dry);
        assert_eq!(trial.advance(), Step::Ended(Ended::Answered));
        assert_eq!(trial.finish(Ended::Answered), (String::new(), false));
        // Its socket has not taken the answer yet.
        let mut trial = Trial::events(CHUNKED, comes());
        trial.client.stream().room.set(10);
        assert_eq!(trial.advance(), Step::Full);
        trial.client.call_off(CalledOff::ClientLeft);
        assert_eq!(trial.relay.write_rest(&trial.client), Err(Ended::ClientLeft));
        // What stops the proxy is no client's leaving.
        let mut trial = Trial::events(CHUNKED, [Bytes(FINISH), Nothing, Last("")]);
        assert_eq!(trial.advance(), Step::Dry);
        trial.client.call_off(CalledOff::Shutdown);
        assert_eq!(trial.advance(), Step::Ended(Ended::Shutdown));
    }

    #[test]
    fn what_was_sent_takes_no_memory() {
        let mut trial = Trial::new(UNFRAMED, [Bytes("ab"), Nothing]);
        assert_eq!(trial.advance(), Step::Dry);
        assert_eq!(trial.relay.out.capacity(), 0);
        assert!(trial.scratch.out.is_empty() && trial.scratch.out.capacity() > 0, "the next one uses it");
    }

    #[test]
    fn a_copy_of_the_body_is_kept_unless_it_is_long() {
        let check = |pieces: Vec<Comes>, expected: Option<&str>| {
            let mut trial = Trial::new(CHUNKED, pieces);
            trial.relay = trial.relay.gathering();
            while !matches!(trial.advance(), Step::Ended(_)) {
                trial.got();
            }
            let gathered = trial.relay.finish(Ended::Whole).gathered;
            assert_eq!(gathered.as_deref(), expected.map(str::as_bytes));
        };
        check(vec![Bytes("ab"), Nothing, Last("cd")], Some("abcd"));
        let long: &'static str = "a".repeat(LISTING_BYTES_MAX).leak();
        check(vec![Bytes(long), Last("")], Some(long));
        check(vec![Bytes(long), Bytes("b"), Last("cd")], None);
    }
}
