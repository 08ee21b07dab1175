//! One direction of a socket: its frames, and in them the message that is being read.
//!
//! A message is read as it comes, whatever its length, and understood when it is whole. What is no JSON, or binary, or
//! coded by an extension, is passed over.

use super::super::json::{JsonSink, Walker};
use super::super::text::without_partial_character;
use crate::http::websocket::{FrameReader, Messages};
use crate::limits::NAME_BYTES_MAX;

/// What a message says, gathered while it is walked.
pub trait SocketMessage: JsonSink {
    /// What the message is as a whole.
    const ROOT: Self::Role;

    /// Of which nothing has come; so many bytes of its words will be kept.
    fn new(kept_max: usize) -> Self;

    /// Another message begins.
    fn clear(&mut self);

    /// What it keeps in memory, nearly.
    fn bytes(&self) -> usize;
}

/// One direction.
pub struct Direction<M: SocketMessage> {
    frames: FrameReader,
    /// Not there while nothing is going on.
    reading: Option<Box<MessageReading<M>>>,
    /// A message has ended.
    is_begun: bool,
}

/// A message that is being read.
struct MessageReading<M: SocketMessage> {
    walker: Walker<M::Role>,
    message: M,
    /// Some of it has come.
    is_begun: bool,
    /// Something follows its document.
    is_spoilt: bool,
}

impl<M: SocketMessage> Direction<M> {
    /// Before the first byte.
    pub fn new() -> Direction<M> {
        Direction { frames: FrameReader::default(), reading: None, is_begun: false }
    }

    /// Reads on. `said` is told of each text message that is over, and just behind which of `bytes`: what it says, if
    /// that could be read, and whether it is the first message of all.
    pub fn read(&mut self, bytes: &[u8], kept_max: usize, said: impl FnMut(Option<&mut M>, bool, usize)) {
        let (reading, is_begun) = (&mut self.reading, &mut self.is_begun);
        self.frames.read(bytes, &mut Ear { reading, is_begun, kept_max, said });
    }

    /// Reads on in the frames, but not in messages.
    pub fn pass(&mut self, bytes: &[u8]) {
        self.frames.read(bytes, &mut Deaf);
    }

    /// Whether a message has ended.
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Whether nothing of a frame is under way.
    pub fn is_at_boundary(&self) -> bool {
        self.frames.is_at_boundary()
    }

    /// Gives back what reading takes, if no message is under way.
    pub fn rest(&mut self) {
        self.reading = self.reading.take().filter(|reading| reading.is_begun);
    }

    /// Gives it back in any case: nothing more will be read.
    pub fn forget(&mut self) {
        self.reading = None;
    }

    /// Memory on the heap, nearly.
    pub fn bytes(&self) -> usize {
        self.reading.as_ref().map_or(0, |reading| size_of::<MessageReading<M>>() + reading.message.bytes())
    }
}

impl<M: SocketMessage> MessageReading<M> {
    fn new(kept_max: usize) -> MessageReading<M> {
        MessageReading { walker: Walker::new(M::ROOT), message: M::new(kept_max), is_begun: false, is_spoilt: false }
    }

    fn read(&mut self, piece: &[u8]) {
        if !self.is_begun {
            self.walker.begin(M::ROOT);
            self.message.clear();
            (self.is_begun, self.is_spoilt) = (true, false);
        }
        if !self.is_spoilt {
            self.is_spoilt = self.walker.feed(piece, &mut self.message) < piece.len();
        }
    }

    /// The message is over: what it says, if it is JSON.
    fn end(&mut self) -> Option<&mut M> {
        let is_begun = std::mem::take(&mut self.is_begun);
        (is_begun && !self.is_spoilt && self.walker.is_done()).then_some(&mut self.message)
    }
}

struct Ear<'a, M: SocketMessage, F> {
    reading: &'a mut Option<Box<MessageReading<M>>>,
    is_begun: &'a mut bool,
    kept_max: usize,
    said: F,
}

impl<M: SocketMessage, F: FnMut(Option<&mut M>, bool, usize)> Messages for Ear<'_, M, F> {
    fn text(&mut self, piece: &[u8]) {
        self.reading.get_or_insert_with(|| Box::new(MessageReading::new(self.kept_max))).read(piece);
    }

    fn end_of_text(&mut self, behind: usize) {
        let is_first = !std::mem::replace(self.is_begun, true);
        (self.said)(self.reading.as_mut().and_then(|reading| reading.end()), is_first, behind);
    }

    fn end_of_opaque(&mut self, _behind: usize) {
        *self.is_begun = true;
    }
}

struct Deaf;

impl Messages for Deaf {
    fn text(&mut self, _piece: &[u8]) {}

    fn end_of_text(&mut self, _behind: usize) {}
}

/// Keeps a name, or what fits of it.
pub fn keep_name(kept: &mut Vec<u8>, value: &[u8]) {
    without_partial_character(&value[..value.len().min(NAME_BYTES_MAX)]).clone_into(kept);
}
