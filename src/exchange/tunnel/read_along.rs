//! What a tunnel asks of whoever reads a copy of its bytes.

use crate::usage::socket::{Generation, SocketReader};

/// Reads both directions along, for the generations that they carry. `at_us`: microseconds since the WebSocket opened.
pub trait ReadAlong: Send {
    /// What the client has sent next.
    fn client_sent(&mut self, bytes: &[u8], at_us: u64);
    /// What upstream has sent next. So many of these bytes may leave before the rows of [`ReadAlong::take_ended`] are
    /// committed.
    fn upstream_sent(&mut self, bytes: &[u8], at_us: u64) -> usize;
    /// Generations that have ended since the last call.
    fn take_ended(&mut self) -> Vec<Generation>;
    /// How many there were since the last call that will leave none.
    fn take_missed(&mut self) -> u64 {
        0
    }
    /// The WebSocket has ended: those that were under way.
    fn end(&mut self, at_us: u64) -> Vec<Generation>;
    /// How many generations are under way.
    fn running(&self) -> usize;
    /// Whether nothing at all is under way: no load of a model, either.
    fn is_idle(&self) -> bool {
        self.running() == 0
    }
    /// The API token that the client has named, once.
    fn take_token(&mut self) -> Option<String>;
    /// Who the client says it is.
    fn client_name(&self) -> Option<&str>;
    /// Whether upstream is not in the middle of a frame.
    fn is_at_boundary(&self) -> bool;
}

impl ReadAlong for SocketReader {
    fn client_sent(&mut self, bytes: &[u8], at_us: u64) {
        SocketReader::client_sent(self, bytes, at_us);
    }

    fn upstream_sent(&mut self, bytes: &[u8], at_us: u64) -> usize {
        SocketReader::upstream_sent(self, bytes, at_us)
    }

    fn take_ended(&mut self) -> Vec<Generation> {
        SocketReader::take_ended(self)
    }

    fn take_missed(&mut self) -> u64 {
        SocketReader::take_missed(self)
    }

    fn end(&mut self, at_us: u64) -> Vec<Generation> {
        SocketReader::end(self, at_us)
    }

    fn running(&self) -> usize {
        SocketReader::running(self)
    }

    fn is_idle(&self) -> bool {
        SocketReader::is_idle(self)
    }

    fn take_token(&mut self) -> Option<String> {
        SocketReader::take_token(self)
    }

    fn client_name(&self) -> Option<&str> {
        SocketReader::client_name(self)
    }

    fn is_at_boundary(&self) -> bool {
        SocketReader::is_at_boundary(self)
    }
}
