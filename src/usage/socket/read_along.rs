//! What a tunnel asks of whoever reads a copy of its bytes.

use super::super::listing::ModelNews;
use super::generation::{BegunGeneration, Generation};

/// Reads both directions of a WebSocket along, for the generations that they carry. `at_us`: microseconds of the
/// caller's clock.
pub trait ReadAlong: Send {
    /// Reads bytes that the client sent. Its words end no generation.
    fn client_sent(&mut self, bytes: &[u8], at_us: u64);

    /// Reads bytes that LM Studio sent. How many of them may leave before the rows of what [`ReadAlong::take_ended`]
    /// tells are committed: all, or those before the last byte of the first message that ends a generation.
    fn upstream_sent(&mut self, bytes: &[u8], at_us: u64) -> usize;

    /// Generations that have begun since this was last asked, in order.
    fn take_begun(&mut self) -> Vec<BegunGeneration> {
        Vec::new()
    }

    /// Generations that have ended since this was last asked, in order.
    fn take_ended(&mut self) -> Vec<Generation>;

    /// Generations since this was last asked that will not be told: there were too many at once, or the client gave
    /// them a number that was taken.
    fn take_missed(&mut self) -> u64 {
        0
    }

    /// What was told of models since this was last asked.
    fn take_news(&mut self) -> Vec<ModelNews> {
        Vec::new()
    }

    /// The connection is over: generations that have ended, and those that go no further.
    fn end(&mut self, at_us: u64) -> Vec<Generation>;

    /// Generations that are going on.
    fn running(&self) -> usize;

    /// Whether nothing at all is open: no model is being loaded, either.
    fn is_idle(&self) -> bool {
        self.running() == 0
    }

    /// The API token that the first message comes to, as a client of the HTTP API would send it. Told once, and kept no
    /// longer.
    fn take_token(&mut self) -> Option<String>;

    /// Who the client is, as far as the first message tells. A User-Agent tells more.
    fn client_name(&self) -> Option<&'static str>;

    /// Whether nothing of a frame towards the client is under way: a Close frame may be put in here.
    fn is_at_boundary(&self) -> bool;
}
