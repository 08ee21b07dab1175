//! What comes back from upstream. ureq reads the head of a reply; its body is read here, for ureq knows less of transfer
//! codings than RFC 9112 does, bounds none of the lines between chunks, and drops good chunks that came in one read with
//! a bad one.
//!
//! ```text
//!  ask ──▶ ureq ──HeadReader: "the head, Content-Length: 0"──▶ ureq takes the exchange for done, and its pool keeps
//!            ▲                     │                           the HeadReader, without its line
//!            │                     ▼
//!            │                  Aside ──▶ Incoming reads the body off the line ──its end──▶ Aside
//!            └──── the next exchange: the pool asks whether it is open, and it takes its line up again ◀┘
//! ```
//!
//! So the pool's bookkeeping stays ureq's, and a line that is not put aside again (a body that broke off, bytes behind
//! its end, a reply that wants the connection closed) is closed with its [`Incoming`].

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use httparse::EMPTY_HEADER;
use ureq::unversioned::transport::{Buffers, Either, NextTimeout, Transport};

use super::relay::{Fault, Source};
use super::wire::Wire;
use crate::bell::lock;
use crate::http::ChunkDecoder;
use crate::http::refusal::Refusal;
use crate::http::reply_framing::{BodyEnd, ReplyBody, reply_body};
use crate::http::reply_head::{ReplyHead, parse_reply_head};
use crate::limits::{INTERIM_BYTES_MAX, REPLY_HEAD_BYTES_MAX};

/// A connection to upstream, in the clear or under TLS.
pub type Line = Either<Wire, Box<dyn Transport>>;

/// Where a line lies that ureq's pool only remembers.
#[derive(Default)]
pub struct Aside(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// The reply that is asked for answers HEAD.
    head_only: bool,
    what: What,
}

#[derive(Default)]
enum What {
    #[default]
    Nothing,
    /// For who asked.
    Reply(Box<UpstreamReply>),
    /// For the next exchange.
    Idle(Box<Line>),
}

/// A reply whose head has come.
pub struct UpstreamReply {
    /// Its head, as upstream wrote it.
    pub head: Vec<u8>,
    /// What that says of the body.
    pub framing: ReplyBody,
    /// Its body, on its way.
    pub body: Incoming,
}

impl Aside {
    /// A request is about to be sent; `head_only`: it is HEAD.
    pub fn expect(&self, head_only: bool) {
        self.held().head_only = head_only;
    }

    /// The reply that ureq has just told of.
    pub fn take_reply(&self) -> Option<Box<UpstreamReply>> {
        match std::mem::take(&mut self.held().what) {
            What::Reply(reply) => Some(reply),
            What::Nothing | What::Idle(_) => None,
        }
    }

    /// Closes what lies there.
    pub fn clear(&self) {
        let left = std::mem::take(&mut self.held().what);
        drop(left);
    }

    fn take_idle(&self) -> Option<Line> {
        let mut held = self.held();
        match std::mem::take(&mut held.what) {
            What::Idle(line) => Some(*line),
            other => {
                held.what = other;
                None
            }
        }
    }

    fn put(&self, what: What) {
        self.held().what = what;
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.0)
    }
}

// ---- the head ----------------------------------------------------------------------------------------------------

/// What ureq takes for the connection: it sees heads, and no body.
pub struct HeadReader {
    aside: Arc<Aside>,
    is_tls: bool,
    line: Option<Line>,
    /// What has come of the reply, interim replies taken off.
    came: Vec<u8>,
    interim_bytes: usize,
    /// What ureq gets to see, from `shown_from` on.
    shown: Vec<u8>,
    shown_from: usize,
    /// Length and meaning of the head, as soon as it is whole and sound.
    read: Option<(usize, ReplyBody)>,
}

/// ureq takes no more fields.
const FIELDS_MAX: usize = 128;

impl HeadReader {
    /// A new connection.
    pub fn new(line: Line, is_tls: bool, aside: Arc<Aside>) -> HeadReader {
        HeadReader {
            aside,
            is_tls,
            line: Some(line),
            came: Vec::new(),
            interim_bytes: 0,
            shown: Vec::new(),
            shown_from: 0,
            read: None,
        }
    }

    fn line(&mut self) -> &mut Line {
        self.line.as_mut().expect("ureq uses no connection but those that are open")
    }

    /// Whether what has come is enough for ureq.
    fn look(&mut self) -> Result<bool, ureq::Error> {
        loop {
            let mut slots = [EMPTY_HEADER; FIELDS_MAX];
            let head = match parse_reply_head(&self.came, &mut slots) {
                // ureq says what is wrong with it.
                Err(_) => {
                    self.shown = std::mem::take(&mut self.came);
                    return Ok(true);
                }
                Ok(None) if self.came.len() <= REPLY_HEAD_BYTES_MAX => return Ok(false),
                Ok(Some(head)) if head.length <= REPLY_HEAD_BYTES_MAX => head,
                Ok(_) => return Err(ureq::Error::LargeResponseHeader(self.came.len(), REPLY_HEAD_BYTES_MAX)),
            };
            let length = head.length;
            if matches!(head.status, 100 | 102..200) {
                self.interim_bytes += length;
                if self.interim_bytes > INTERIM_BYTES_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "interim replies without end").into());
                }
                self.came.drain(..length);
                continue;
            }
            let head_only = self.aside.held().head_only;
            let framing = reply_body(&head, head_only)
                .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.words()))?;
            self.shown = without_body(&head, &framing);
            self.read = Some((length, framing));
            return Ok(true);
        }
    }

    /// Puts the reply aside, if ureq has taken its head. `kept`: its pool remembers the connection.
    fn hand_over(&mut self, kept: bool) -> bool {
        let is_taken = self.shown_from == self.shown.len();
        let (Some(line), Some((length, framing))) = (self.line.take(), self.read.take().filter(|_| is_taken)) else {
            return false;
        };
        let mut head = std::mem::take(&mut self.came);
        let early = head.split_off(length);
        let reading = match framing.end {
            BodyEnd::Nothing | BodyEnd::Length(0) => Reading::Over,
            BodyEnd::Length(length) => Reading::Length(length),
            BodyEnd::Chunks => Reading::Chunks(ChunkDecoder::of_reply()),
            BodyEnd::Close => Reading::Close,
        };
        let body = Incoming { line: Box::new(line), aside: self.aside.clone(), early, reading, kept };
        self.aside.put(What::Reply(Box::new(UpstreamReply { head, framing, body })));
        (self.shown, self.shown_from, self.interim_bytes) = (Vec::new(), 0, 0);
        true
    }
}

/// A head that says the same of all but its body: that has been judged.
fn without_body(head: &ReplyHead, framing: &ReplyBody) -> Vec<u8> {
    let mut shown = Vec::with_capacity(head.length + 64);
    shown.extend_from_slice(format!("HTTP/1.{} {} \r\n", head.minor_version, head.status).as_bytes());
    let frames = |name: &str| ["content-length", "transfer-encoding"].iter().any(|own| name.eq_ignore_ascii_case(own));
    for (name, value) in head.pairs().filter(|(name, _)| !frames(name)) {
        [name.as_bytes(), b": ", value, b"\r\n"].iter().for_each(|part| shown.extend_from_slice(part));
    }
    if framing.end == BodyEnd::Close || framing.is_ambiguous {
        shown.extend_from_slice(b"connection: close\r\n");
    }
    shown.extend_from_slice(b"content-length: 0\r\n\r\n");
    shown
}

impl fmt::Debug for HeadReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadReader")
    }
}

impl Transport for HeadReader {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.line().transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if !self.shown.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a head that is none").into());
        }
        loop {
            let Self { line: Some(line), came, .. } = self else { return Ok(false) };
            if !line.maybe_await_input(timeout)? {
                return Ok(false);
            }
            let input = line.buffers().input();
            let n = input.len();
            came.extend_from_slice(input);
            line.buffers().input_consume(n);
            if self.look()? {
                return Ok(true);
            }
        }
    }

    /// ureq asks when it puts a connection aside, and when it takes it up again.
    fn is_open(&mut self) -> bool {
        if self.line.is_some() {
            return self.hand_over(true);
        }
        self.line = self.aside.take_idle();
        self.line.as_mut().is_some_and(|line| line.is_open())
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

/// A reply after which ureq closes the connection is read all the same.
impl Drop for HeadReader {
    fn drop(&mut self) {
        self.hand_over(false);
    }
}

impl Buffers for HeadReader {
    fn output(&mut self) -> &mut [u8] {
        self.line().buffers().output()
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.line().buffers().tmp_and_output()
    }

    fn input(&self) -> &[u8] {
        &self.shown[self.shown_from..]
    }

    fn input_consume(&mut self, amount: usize) {
        self.shown_from += amount;
    }

    /// What is shown is shown whole: ureq has no reason to wait for more.
    fn can_use_input(&self) -> bool {
        false
    }

    // Nobody appends but `await_input`.

    fn input_append_buf(&mut self) -> &mut [u8] {
        &mut []
    }

    fn input_appended(&mut self, _: usize) {}
}

// ---- the body ----------------------------------------------------------------------------------------------------

/// A reply's body on its way. Dropped before its end, its connection is closed.
pub struct Incoming {
    line: Box<Line>,
    aside: Arc<Aside>,
    /// What came with the head.
    early: Vec<u8>,
    reading: Reading,
    /// The connection may serve another exchange.
    kept: bool,
}

enum Reading {
    /// So many bytes are still to come. Invariant: more than 0.
    Length(u64),
    Chunks(ChunkDecoder),
    Close,
    Over,
}

impl Source for Incoming {
    fn read(&mut self, out: &mut Vec<u8>) -> Result<bool, Fault> {
        if self.is_over() {
            return Ok(true);
        }
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            let used = self.reading.take_in(&early, out).map_err(Fault::Chunks)?;
            self.kept &= used == early.len();
            return Ok(self.is_over());
        }
        match self.line.maybe_await_input(NextTimeout::default()) {
            Ok(true) => {}
            Ok(false) => return self.closed(),
            // TLS that was not closed as it should be.
            Err(ureq::Error::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => return self.closed(),
            Err(e) => return Err(Fault::Io(e.into_io())),
        }
        let input = self.line.buffers().input();
        let came = input.len();
        let used = self.reading.take_in(input, out).map_err(Fault::Chunks)?;
        self.line.buffers().input_consume(used);
        // Bytes behind the end may be a reply that somebody smuggled: they reach nobody.
        self.kept &= used == came;
        Ok(self.is_over())
    }

    fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    fn put_aside(mut self) {
        if self.is_over() && self.kept && self.early.is_empty() && self.line.is_open() {
            self.aside.put(What::Idle(self.line));
        }
    }
}

impl Incoming {
    fn closed(&mut self) -> Result<bool, Fault> {
        self.kept = false;
        match self.reading {
            Reading::Close | Reading::Over => {
                self.reading = Reading::Over;
                Ok(true)
            }
            Reading::Length(_) | Reading::Chunks(_) => Err(Fault::Io(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.reading, Reading::Over)
    }

    /// Whether all of a body in chunks seems to have come with the head. Text that looks like the end of one is taken for
    /// it: so it is good for a guess.
    pub fn seems_whole(&self) -> bool {
        matches!(self.reading, Reading::Over)
            || matches!(self.reading, Reading::Chunks(_)) && self.early.ends_with(b"0\r\n\r\n")
    }
}

impl Reading {
    /// How many bytes of `input` were of the body.
    fn take_in(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        let (used, is_over) = match self {
            Reading::Over => (0, true),
            Reading::Close => {
                out.extend_from_slice(input);
                (input.len(), false)
            }
            Reading::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                out.extend_from_slice(&input[..here]);
                *left -= here as u64;
                (here, *left == 0)
            }
            Reading::Chunks(decoder) => decoder.decode(input, out)?,
        };
        if is_over {
            *self = Reading::Over;
        }
        Ok(used)
    }
}
