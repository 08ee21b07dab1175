//! A socket and what was read from it: enough HTTP to tell where a message ends, and whether it does.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::frames::{CONTINUATION, Frame, TEXT};
use super::{PATIENCE, until};

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As its framing says.
    Whole,
    /// Before that.
    Cut,
}

/// A request or a reply.
#[derive(Debug)]
pub struct Message {
    /// With its last empty line.
    pub head: String,
    pub body: Vec<u8>,
    pub ended: Ended,
}

impl Message {
    pub fn start_line(&self) -> &str {
        self.head.split("\r\n").next().expect("split yields one at least")
    }

    pub fn status(&self) -> u16 {
        let digits = self.start_line().split(' ').nth(1).expect("a status line");
        digits.parse().expect("a status")
    }

    /// Values of every field of this name, as they came.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.fields(name);
        assert!(values.len() < 2, "{name} came more than once: {}", self.head);
        values.first().copied()
    }

    /// Names of all fields in lower case, sorted.
    pub fn names(&self) -> Vec<String> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let mut names: Vec<String> = lines.map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort();
        names
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
}

pub struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    /// The other side has reset it.
    is_reset: bool,
}

impl Peer {
    pub fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out above zero");
        stream.set_nodelay(true).expect("a TCP socket");
        Peer { stream, unread: Vec::new(), is_reset: false }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the other side takes bytes");
    }

    /// Reads once. False at the end or at a reset.
    fn more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(n) => {
                    self.unread.extend_from_slice(&piece[..n]);
                    return true;
                }
                // Linux interrupts reads that have a time-out without any signal handler, say when a machine sleeps.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted) => {
                    self.is_reset = true;
                    return false;
                }
                Err(e) => panic!("reading failed: {e}; so far: {:?}", String::from_utf8_lossy(&self.unread)),
            }
        }
    }

    /// Everything up to and with `mark`; `None` when the connection ended before.
    pub fn through(&mut self, mark: &str) -> Option<Vec<u8>> {
        let mut looked = 0;
        loop {
            let rest = &self.unread[looked..];
            if let Some(at) = rest.windows(mark.len()).position(|window| window == mark.as_bytes()) {
                return Some(self.unread.drain(..looked + at + mark.len()).collect());
            }
            looked = self.unread.len().saturating_sub(mark.len() - 1);
            if !self.more() {
                return None;
            }
        }
    }

    /// Waits for `mark` and takes nothing.
    pub fn wait_for(&mut self, mark: &str) {
        while !self.unread.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            assert!(self.more(), "{mark:?} never came: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// A head, read to its last byte and no further: what follows stays in the socket.
    pub fn head_alone(&mut self) -> String {
        assert!(self.unread.is_empty(), "a head was read with what follows it");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        latin1(&head)
    }

    pub fn head(&mut self) -> Option<String> {
        self.through("\r\n\r\n").map(|head| latin1(&head))
    }

    /// `bodiless`: there is no body, whatever the head says. `closes`: without framing, the body lasts to the end.
    pub fn message(&mut self, bodiless: bool, closes: bool) -> Option<Message> {
        let head = self.head()?;
        let mut message = Message { head, body: Vec::new(), ended: Ended::Whole };
        let length = message.field("content-length").map(|length| length.parse().expect("a length"));
        if bodiless {
            return Some(message);
        }
        message.ended = if message.field("transfer-encoding").is_some() {
            self.chunks(&mut message.body)
        } else if let Some(length) = length {
            self.take(length, &mut message.body)
        } else if closes {
            while self.more() {}
            message.body.append(&mut self.unread);
            if self.is_reset { Ended::Cut } else { Ended::Whole }
        } else {
            Ended::Whole
        };
        Some(message)
    }

    fn take(&mut self, length: usize, body: &mut Vec<u8>) -> Ended {
        while self.unread.len() < length {
            if !self.more() {
                body.append(&mut self.unread);
                return Ended::Cut;
            }
        }
        body.extend(self.unread.drain(..length));
        Ended::Whole
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Ended {
        loop {
            let Some(line) = self.through("\r\n") else { return Ended::Cut };
            let digits = std::str::from_utf8(&line).expect("ASCII").trim_end();
            let size = usize::from_str_radix(digits, 16).unwrap_or_else(|e| panic!("{e}: {digits:?}"));
            if self.take(size, body) == Ended::Cut {
                return Ended::Cut;
            }
            match self.through("\r\n") {
                None => return Ended::Cut,
                Some(end) => assert_eq!(end, b"\r\n", "a chunk ends in an empty line"),
            }
            if size == 0 {
                return Ended::Whole;
            }
        }
    }

    /// The next frame of a WebSocket; `None` when the connection ended before it was whole.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, length)) = Frame::read(&self.unread) {
                self.unread.drain(..length);
                return Some(frame);
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// The next message of text on a WebSocket, of one frame or several. Frames between those are passed over.
    pub fn text_message(&mut self) -> Option<String> {
        let mut text = Vec::new();
        loop {
            let frame = self.frame()?;
            if matches!(frame.opcode(), TEXT | CONTINUATION) {
                text.extend_from_slice(&frame.payload);
                if frame.is_final() {
                    return Some(String::from_utf8(text).expect("messages of text are UTF-8"));
                }
            }
        }
    }

    /// Waits until the other side has closed; returns what came before.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.unread)
    }

    /// So many bytes, whatever they are.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let ended = self.take(count, &mut bytes);
        assert_eq!(ended, Ended::Whole, "the connection ended behind {bytes:?}");
        bytes
    }

    /// Waits for the end; whether it is a reset. Nothing must have come before.
    pub fn is_reset(&mut self) -> bool {
        assert_eq!(self.rest(), b"", "bytes came instead of the end");
        self.is_reset
    }

    /// Sends again and again until every buffer up to the other end is full; how many bytes were taken.
    pub fn fill(&self, bytes: &[u8]) -> usize {
        let mut stream = &self.stream;
        stream.set_nonblocking(true).expect("an open connection");
        let (mut sent, mut refusals) = (0, 0);
        until("full buffers", || {
            // One refusal may only mean that the proxy has something else to do.
            while refusals < 20 {
                match stream.write(&bytes[sent % bytes.len()..]) {
                    Ok(n) => (sent, refusals) = (sent + n, 0),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        refusals += 1;
                        return None;
                    }
                    Err(e) => panic!("the proxy closed the connection: {e}"),
                }
            }
            Some(())
        });
        stream.set_nonblocking(false).expect("an open connection");
        sent
    }

    /// Waits for a byte without taking it.
    pub fn wait_for_byte(&self) {
        loop {
            match self.stream.peek(&mut [0]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                peeked => return assert_eq!(peeked.expect("a byte comes"), 1, "the connection ended instead"),
            }
        }
    }
}

/// One character for each byte: a head may hold any.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}
