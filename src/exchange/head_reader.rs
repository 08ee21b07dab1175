//! The head of a reply. ureq reads it, and no body: that is read by [`Incoming`].
//!
//! ```text
//!  ask ──▶ ureq ──HeadReader: "the head, Content-Length: 0"──▶ ureq takes the exchange for done, and its pool keeps
//!            ▲                     │                           the HeadReader, without its line
//!            │                     ▼
//!            │                  Aside ──▶ Incoming reads the body off the line ──its end──▶ IdleLine
//!            └──── the next exchange: the pool asks whether it is open, and it takes its line up again ◀┘
//! ```
//!
//! So the pool's bookkeeping stays ureq's, and a line that is not put aside again (a body that broke off, bytes behind
//! its end, a reply that wants the connection closed) is closed with its [`Incoming`].

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use httparse::EMPTY_HEADER;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::incoming::{IdleLine, Incoming, UpstreamLine};
use crate::bell::lock;
use crate::http::reply_framing::{BodyEnd, ReplyBody, reply_body};
use crate::http::reply_head::{ReplyHead, parse_reply_head};
use crate::limits::{INTERIM_BYTES_MAX, REPLY_HEAD_BYTES_MAX};

/// Where a reply lies until whoever asked for it takes it, for ureq only tells of it; and its line until the next one.
#[derive(Default)]
pub struct Aside {
    /// The reply that is asked for answers HEAD.
    head_only: AtomicBool,
    reply: Mutex<Option<Box<UpstreamReply>>>,
    idle: Arc<IdleLine>,
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
        self.head_only.store(head_only, Ordering::Relaxed);
    }

    /// The reply that ureq has just told of.
    pub fn take_reply(&self) -> Option<Box<UpstreamReply>> {
        lock(&self.reply).take()
    }

    /// Closes what lies there.
    pub fn clear(&self) {
        let left = (self.take_reply(), lock(&self.idle).take());
        drop(left);
    }
}

/// What ureq takes for the connection: it sees heads, and no body.
pub struct HeadReader {
    aside: Arc<Aside>,
    is_tls: bool,
    line: Option<UpstreamLine>,
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
    pub fn new(line: UpstreamLine, is_tls: bool, aside: Arc<Aside>) -> HeadReader {
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

    fn line(&mut self) -> &mut UpstreamLine {
        self.line.as_mut().expect("ureq uses no connection but those that are open")
    }

    /// Whether what has come is enough for ureq.
    // In a frame of its own: workers that wait for a head hold none of it (4 KB).
    #[inline(never)]
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
            let head_only = self.aside.head_only.load(Ordering::Relaxed);
            let mut framing =
                reply_body(&head, head_only).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
            if head.status == 101 {
                // What follows is of another protocol, and goes on until the connection ends.
                framing.end = BodyEnd::Close;
            }
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
        let body = Incoming::new(line, self.aside.idle.clone(), early, &framing.end, kept);
        *lock(&self.aside.reply) = Some(Box::new(UpstreamReply { head, framing, body }));
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
        self.line = lock(&self.aside.idle).take();
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
