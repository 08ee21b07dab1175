use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::frames::Frame;
use super::peer::{Message, Peer};

/// A client's connection, in the test's hands.
pub struct Client(Peer);

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client(Peer::new(TcpStream::connect(address).expect("the proxy listens")))
    }

    /// A second hand on the same connection, to send while this one reads.
    pub fn twin(&self) -> Client {
        Client(Peer::new(self.0.stream().try_clone().expect("a descriptor")))
    }

    /// Its end of the connection.
    pub fn address(&self) -> SocketAddr {
        self.0.stream().local_addr().expect("an open connection")
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes);
    }

    /// The next reply.
    pub fn reply(&mut self) -> Message {
        self.0.message(false, true).expect("a reply")
    }

    /// The next reply where it has no body whatever its head says: HEAD, 1xx, 204, 304.
    pub fn bodiless_reply(&mut self) -> Message {
        self.0.message(true, true).expect("a reply")
    }

    /// Sends a request and waits for its reply.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request);
        self.reply()
    }

    /// The same of a proxy that may be killed: `None` where it did not even begin to reply.
    pub fn try_ask(&mut self, request: impl AsRef<[u8]>) -> Option<Message> {
        self.0.stream().write_all(request.as_ref()).ok()?;
        self.0.message(false, true)
    }

    /// Whether a reply, or the connection's end, has begun to arrive.
    pub fn has_reply(&self) -> bool {
        let stream = self.0.stream();
        stream.set_nonblocking(true).expect("an open connection");
        let arrived = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).expect("an open connection");
        arrived
    }

    /// Waits for these bytes; returns them with all that came before.
    pub fn through(&mut self, mark: &str) -> String {
        let bytes = self.0.through(mark).unwrap_or_else(|| panic!("{mark:?} never came"));
        String::from_utf8(bytes).expect("text")
    }

    /// Waits for these bytes and takes nothing.
    pub fn wait_for(&mut self, mark: &str) {
        self.0.wait_for(mark);
    }

    /// The next frame of a WebSocket.
    pub fn frame(&mut self) -> Frame {
        self.0.frame().expect("a whole frame")
    }

    /// The next message of text on a WebSocket, whatever its frames.
    pub fn text_message(&mut self) -> String {
        self.0.text_message().expect("a whole message")
    }

    /// So many bytes, whatever they are.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.0.exactly(count)
    }

    /// Sends again and again until every buffer up to upstream is full; how many bytes were taken in all.
    pub fn fill(&mut self, bytes: impl AsRef<[u8]>) -> usize {
        self.0.fill(bytes.as_ref())
    }

    /// Waits for the connection's end; whether it is a reset. Nothing must have come before.
    pub fn is_reset(&mut self) -> bool {
        self.0.is_reset()
    }

    /// Waits for the connection's end; returns what came before.
    pub fn rest(&mut self) -> Vec<u8> {
        self.0.rest()
    }

    /// Says that it sends no more, and goes on reading.
    pub fn half_close(&mut self) {
        self.0.stream().shutdown(Shutdown::Write).expect("an open connection");
    }

    /// Closes the connection.
    pub fn leave(self) {}

    /// Closes it with bytes unread, which resets it (RFC 2525 §2.17).
    pub fn reset(self) {
        self.0.wait_for_byte();
    }

    /// Reads on to the last chunk and keeps nothing; how many bytes came.
    pub fn rest_of_chunks(&mut self) -> usize {
        let mut piece = vec![0; 1 << 16];
        let (mut count, mut end) = (0, Vec::new());
        while !end.ends_with(b"\r\n0\r\n\r\n") {
            let n = self.0.stream().read(&mut piece).expect("an open connection");
            assert_ne!(n, 0, "the connection ended before the last chunk");
            count += n;
            end.extend_from_slice(&piece[n.saturating_sub(16)..n]);
            end.drain(..end.len().saturating_sub(16));
        }
        count
    }

    /// Takes a few bytes of what has come, or waits for some.
    pub fn sip(&mut self) -> usize {
        self.0.stream().read(&mut [0; 64]).expect("an open connection")
    }
}
