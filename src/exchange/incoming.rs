//! A reply's body on its way. It is read here, and not by ureq, which knows less of transfer codings than RFC 9112 does,
//! bounds none of the lines between chunks, and drops good chunks that came in one read with a bad one.

use std::io;
use std::sync::{Arc, Mutex};

use ureq::unversioned::transport::{NextTimeout, Transport};

use super::relay::{Fault, Source};
use crate::bell::lock;
use crate::http::ChunkDecoder;
use crate::http::body_rest::BodyRest;
use crate::http::reply_framing::BodyEnd;

/// A connection to upstream, in the clear or under TLS.
pub type UpstreamLine = Box<dyn Transport>;

/// Where a line lies between two exchanges.
pub type IdleLine = Mutex<Option<UpstreamLine>>;

/// A reply's body on its way. Dropped before its end, its connection is closed.
pub struct Incoming {
    line: UpstreamLine,
    idle: Arc<IdleLine>,
    /// What came with the head.
    early: Vec<u8>,
    rest: BodyRest,
    /// The connection may serve another exchange.
    kept: bool,
}

impl Source for Incoming {
    fn read(&mut self, out: &mut Vec<u8>) -> Result<bool, Fault> {
        if self.is_over() {
            return Ok(true);
        }
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            let used = self.rest.take(&early, out).map_err(Fault::Chunks)?;
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
        let used = self.rest.take(input, out).map_err(Fault::Chunks)?;
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
            *lock(&self.idle) = Some(self.line);
        }
    }
}

impl Incoming {
    /// The body that ends so, of which `early` came with its head. `kept`: the connection may serve another exchange.
    pub fn new(line: UpstreamLine, idle: Arc<IdleLine>, early: Vec<u8>, end: &BodyEnd, kept: bool) -> Incoming {
        let rest = match *end {
            BodyEnd::Nothing => BodyRest::NONE,
            BodyEnd::Length(length) => BodyRest::Length(length),
            BodyEnd::Chunks => BodyRest::Chunks(ChunkDecoder::of_reply()),
            BodyEnd::Close => BodyRest::Close,
        };
        Incoming { line, idle, early, rest, kept }
    }

    fn closed(&mut self) -> Result<bool, Fault> {
        self.kept = false;
        if let BodyRest::Close = self.rest {
            self.rest = BodyRest::NONE;
            return Ok(true);
        }
        Err(Fault::Io(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.rest.is_over()
    }

    /// The connection itself.
    pub fn line(&mut self) -> &mut UpstreamLine {
        &mut self.line
    }

    /// Whether all of a body in chunks seems to have come with the head. Text that looks like the end of one is taken for
    /// it: so it is good for a guess.
    pub fn seems_whole(&self) -> bool {
        self.is_over() || matches!(self.rest, BodyRest::Chunks(_)) && self.early.ends_with(b"0\r\n\r\n")
    }
}
