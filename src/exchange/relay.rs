//! Relays one reply: bytes go to the client as they come, a tap reads a copy.
//!
//! Nothing waits but the end. The last bytes of a reply (the last read of a body of known length, the terminal chunk,
//! a stream's terminal event) are not sent but left in [`Relayed::tail`], for the recorder to send when the row is
//! committed. Where upstream stays silent after a stream's terminal event, the row is committed before the wait.

use std::io::{self, Read};
use std::time::Instant;

use ureq::http::HeaderMap;

use super::wire::WireState;
use crate::front::client::{CalledOff, Client};
use crate::http::reply::ReplyFraming;
use crate::usage::{Flow, Form, Report, Tap};

/// How the relaying of a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Upstream ended the body as its framing says.
    Whole,
    /// Upstream ended a body without framing by closing: whole, as far as anyone can tell.
    Closed,
    /// Upstream died in the middle of the body.
    Broken,
    /// Upstream was silent for too long.
    TimedOut,
    /// The client is gone.
    ClientLeft,
    /// The proxy is stopping.
    Shutdown,
}

impl From<CalledOff> for Ended {
    fn from(why: CalledOff) -> Ended {
        match why {
            CalledOff::ClientLeft => Ended::ClientLeft,
            CalledOff::Shutdown => Ended::Shutdown,
        }
    }
}

/// What is left to do when a reply was relayed.
pub struct Relayed {
    /// How it ended.
    pub ended: Ended,
    /// What the tap understood.
    pub report: Report,
    /// The last bytes for the client. Empty when nobody takes them.
    pub tail: Vec<u8>,
    /// With the tail the client has a whole reply. If not, its connection must be cut so that it can see that.
    pub complete: bool,
}

/// One reply on its way.
pub struct Relay<'a> {
    /// Where it goes.
    pub client: &'a Client,
    /// The socket it comes from.
    pub wire: &'a WireState,
    /// What reads along.
    pub tap: Tap,
    /// When the exchange began.
    pub began: Instant,
    /// How the body is framed for the client.
    pub framing: ReplyFraming,
    /// Upstream ends the body by closing its connection.
    pub closed: bool,
    /// Bytes for the client that wait for company: the head at first.
    pub out: Vec<u8>,
    /// What the tap lets through of one read.
    pub passed: Vec<u8>,
}

/// The first size of the buffer for reads, and the size it grows to when reads fill it.
const READ_BYTES_MIN: usize = 2 * 1024;
const READ_BYTES_MAX: usize = 32 * 1024;

impl Relay<'_> {
    /// Relays the whole body. `commit` is called at most once, when a stream's terminal event has come and upstream
    /// keeps the connection open without a word.
    pub fn run(&mut self, body: &mut dyn Read, buffer: &mut Vec<u8>, mut commit: impl FnMut(Report)) -> Relayed {
        let mut left = match self.framing {
            ReplyFraming::Length(length) => length,
            ReplyFraming::Chunked | ReplyFraming::None => u64::MAX,
        };
        let mut terminal = Flow::Open;
        buffer.resize(READ_BYTES_MIN.max(buffer.len()), 0);
        loop {
            if terminal == Flow::Terminal && left > 0 && !self.wire.has_end() {
                commit(self.tap.report());
                self.release();
                terminal = Flow::Open;
            }
            // The last bytes of a known length wait for their row; a head for its body, if that is here.
            if left > 0
                && !self.wire.has_input()
                && let Err(ended) = self.send()
            {
                return self.finish(ended);
            }
            let n = match body.read(buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) => {
                    let ended = self.why(&e);
                    return self.finish(ended);
                }
            };
            left = left.saturating_sub(n as u64);
            if self.take(&buffer[..n]) == Flow::Terminal {
                terminal = Flow::Terminal;
            }
            if left > 0
                && let Err(ended) = self.send()
            {
                return self.finish(ended);
            }
            if n == buffer.len() && n < READ_BYTES_MAX {
                buffer.resize(n * 2, 0);
            }
        }
        let called_off = self.client.called_off().map(Ended::from);
        self.finish(called_off.unwrap_or(if self.closed { Ended::Closed } else { Ended::Whole }))
    }

    /// One read's worth: through the tap, framed, to what waits to be sent.
    fn take(&mut self, bytes: &[u8]) -> Flow {
        self.passed.clear();
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let flow = self.tap.feed(bytes, now_us, &mut self.passed);
        self.frame();
        flow
    }

    fn release(&mut self) {
        self.passed.clear();
        self.tap.release(&mut self.passed);
        self.frame();
    }

    fn frame(&mut self) {
        if self.passed.is_empty() {
            return;
        }
        match self.framing {
            ReplyFraming::Chunked => {
                write_chunk_size(&mut self.out, self.passed.len());
                self.out.extend_from_slice(&self.passed);
                self.out.extend_from_slice(b"\r\n");
            }
            ReplyFraming::Length(_) | ReplyFraming::None => {
                self.out.extend_from_slice(&self.passed);
            }
        }
    }

    fn send(&mut self) -> Result<(), Ended> {
        if self.out.is_empty() {
            return Ok(());
        }
        let sent = self.client.write_all(&self.out);
        self.out.clear();
        // Whoever called it off is the reason why writing failed; else the client is gone, or reads nothing.
        sent.map_err(|_| self.client.called_off().map_or(Ended::ClientLeft, Ended::from))
    }

    fn why(&self, error: &io::Error) -> Ended {
        match self.client.called_off() {
            Some(why) => why.into(),
            None if self.wire.timed_out() => Ended::TimedOut,
            None => {
                log::debug!("upstream broke off its reply: {error}");
                Ended::Broken
            }
        }
    }

    /// Puts together what is still to be sent. What upstream sent before it broke off reaches the client, too.
    fn finish(&mut self, ended: Ended) -> Relayed {
        self.passed.clear();
        self.tap.end(&mut self.passed);
        self.frame();
        let report = self.tap.report();
        let complete = match ended {
            Ended::Whole => true,
            // A stream that ended by a close without its terminal event is not.
            Ended::Closed => report.terminal || !report.needs_terminal,
            Ended::Broken | Ended::TimedOut | Ended::ClientLeft | Ended::Shutdown => false,
        };
        if complete && self.framing == ReplyFraming::Chunked {
            self.out.extend_from_slice(b"0\r\n\r\n");
        }
        let tail = match ended {
            Ended::ClientLeft | Ended::Shutdown => Vec::new(),
            Ended::Whole | Ended::Closed | Ended::Broken | Ended::TimedOut => std::mem::take(&mut self.out),
        };
        Relayed { ended, report, tail, complete }
    }
}

fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = size.max(1).ilog2() as usize / 4 + 1;
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[size >> (4 * digit) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// How the tap is to read a reply.
pub fn form(headers: &HeaderMap) -> Form {
    let value = |name: &str| headers.get(name).map_or(&[][..], |v| v.as_bytes()).to_ascii_lowercase();
    let encoding = value("content-encoding");
    if !encoding.is_empty() && encoding != b"identity" {
        return Form::Opaque;
    }
    let content_type = value("content-type");
    let media_type = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    match media_type {
        b"text/event-stream" => Form::Events,
        b"application/json" => Form::Json,
        other if other.ends_with(b"+json") => Form::Json,
        _ => Form::Opaque,
    }
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
