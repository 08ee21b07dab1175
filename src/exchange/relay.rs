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
use std::sync::Arc;
use std::time::Instant;

use super::incoming::{Fault, Incoming};
use super::wire::WireState;
use crate::client::{CalledOff, Client};
use crate::http::refusal::Refusal;
use crate::http::reply::ReplyFraming;
use crate::keepalive;
use crate::usage::{Flow, Form, Tap, UsageReport};

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
}

impl From<CalledOff> for Ended {
    fn from(why: CalledOff) -> Ended {
        match why {
            CalledOff::ClientLeft => Ended::ClientLeft,
            CalledOff::ClientVanished => Ended::ClientVanished,
            CalledOff::Shutdown => Ended::Shutdown,
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
    /// How it ended.
    pub ended: Ended,
    /// What the tap understood.
    pub report: UsageReport,
    /// The last bytes for the client. Empty when nobody takes them.
    pub tail: Vec<u8>,
    /// With the tail the client has a whole reply. If not, its connection must be cut so that it can see that.
    pub complete: bool,
}

/// One reply on its way.
pub struct Relay {
    /// Where it comes from.
    body: Incoming,
    /// The socket under it.
    pub wire: Arc<WireState>,
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

/// Memory that relays use in turn.
#[derive(Default)]
pub struct Scratch {
    read: Vec<u8>,
    passed: Vec<u8>,
}

/// Larger buffers are given back when a relay has sent what was in them.
const OUT_BYTES_KEPT: usize = 4 * 1024;

impl Relay {
    /// A reply of which `out`, its head, is still to be sent.
    pub fn new(
        body: Incoming,
        wire: Arc<WireState>,
        tap: Tap,
        began: Instant,
        framing: ReplyFraming,
        closed: bool,
        out: Vec<u8>,
    ) -> Relay {
        let left = match framing {
            ReplyFraming::Length(length) => length,
            ReplyFraming::Chunked | ReplyFraming::None => u64::MAX,
        };
        Relay { body, wire, tap, began, framing, closed, out, left, terminal: false, answer: Answer::Partial }
    }

    /// Takes bytes of the body that were read before the head was made.
    pub fn take_ahead(&mut self, bytes: &[u8], scratch: &mut Scratch) {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.take(bytes, &mut scratch.passed);
    }

    /// Relays what there is, but not much more than `turn_bytes`.
    pub fn advance(&mut self, client: &Client, scratch: &mut Scratch, turn_bytes: usize) -> Step {
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
    fn dry(&mut self, client: &Client) -> Step {
        self.send(client).unwrap_or(Step::Dry)
    }

    /// Whether the whole body seems to have come with its head, so that nobody needs to wait for it.
    pub fn seems_whole(&self) -> bool {
        self.body.seems_whole()
    }

    /// After [`Step::Full`]: writes what is left, as long as the client takes any of it.
    pub fn write_rest(&mut self, client: &Client) -> Result<(), Ended> {
        let sent = client.write_all(&self.out);
        self.out = Vec::new();
        match sent {
            Ok(()) => self.note_sent(),
            Err(_) if self.answer == Answer::Given => {}
            Err(e) => return Err(left_by(client, &e)),
        }
        Ok(())
    }

    /// What the tap understood so far.
    pub fn report(&self) -> UsageReport {
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
        let complete = match ended {
            Ended::Whole => true,
            // A stream that ended by a close without a word that it ended is not.
            Ended::Closed => report.terminal || report.finished || !report.needs_terminal,
            Ended::Broken | Ended::Malformed(_) | Ended::TimedOut | Ended::Vanished => false,
            Ended::ClientLeft | Ended::Answered | Ended::ClientVanished | Ended::Shutdown => false,
        };
        if complete && self.framing == ReplyFraming::Chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        let tail = match ended {
            Ended::ClientLeft | Ended::Answered | Ended::ClientVanished | Ended::Shutdown => Vec::new(),
            Ended::Whole | Ended::Closed | Ended::Broken | Ended::Malformed(_) | Ended::TimedOut | Ended::Vanished => {
                self.out
            }
        };
        self.body.put_aside();
        Relayed { ended, report, tail, complete }
    }

    /// One read's worth: through the tap, framed, to what waits to be sent.
    fn take(&mut self, bytes: &[u8], passed: &mut Vec<u8>) {
        passed.clear();
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if self.tap.feed(bytes, now_us, passed) == Flow::Terminal {
            self.terminal = true;
        }
        self.frame(passed);
    }

    fn frame(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.framing {
            ReplyFraming::Chunked => {
                self.out.reserve(bytes.len() + 20);
                write_chunk_size(&mut self.out, bytes.len());
                self.out.extend_from_slice(bytes);
                self.out.extend_from_slice(b"\r\n");
            }
            ReplyFraming::Length(_) | ReplyFraming::None => self.out.extend_from_slice(bytes),
        }
    }

    /// Sends what waits; a step where that did not succeed at once.
    fn send(&mut self, client: &Client) -> Option<Step> {
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
        if self.out.capacity() > OUT_BYTES_KEPT {
            self.out = Vec::new();
        }
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

    fn why(&self, client: &Client, fault: &Fault) -> Ended {
        match client.called_off() {
            Some(why) => return self.left(why.into()),
            None if self.wire.timed_out() => return Ended::TimedOut,
            None => {}
        }
        match fault {
            Fault::Io(error) if keepalive::tells_of_vanishing(error) => Ended::Vanished,
            Fault::Io(error) => {
                log::debug!("upstream broke off its reply: {error}");
                Ended::Broken
            }
            Fault::Chunks(refusal) => {
                log::debug!("upstream's chunks cannot be read on: {}", refusal.name());
                Ended::Malformed(*refusal)
            }
        }
    }
}

/// Whoever called it off is the reason why writing failed; else the client is gone, or reads nothing.
fn left_by(client: &Client, error: &io::Error) -> Ended {
    let vanished = keepalive::tells_of_vanishing(error);
    client.called_off().map_or(if vanished { Ended::ClientVanished } else { Ended::ClientLeft }, Ended::from)
}

fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = size.max(1).ilog2() as usize / 4 + 1;
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[size >> (4 * digit) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
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
    use super::*;

    #[test]
    fn chunk_sizes_have_no_leading_zeros() {
        let check = |size: usize, expected: &str| {
            let mut out = Vec::new();
            write_chunk_size(&mut out, size);
            assert_eq!(out, expected.as_bytes());
        };
        check(1, "1\r\n");
        check(15, "f\r\n");
        check(16, "10\r\n");
        check(255, "ff\r\n");
        check(65536, "10000\r\n");
    }
}
