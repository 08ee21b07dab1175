//! Gathers one whole request from the bytes of a connection. Knows no socket: bytes in, steps out.
//!
//! ```text
//!  Idle ──first byte──▶ Head ──judged──▶ Body ──▶ whole request ──▶ Idle
//!                        └─── refused ────┘ ────▶ error reply, close
//! ```

use crate::http::body_rest::BodyRest;
use crate::http::chunked::ChunkDecoder;
use crate::http::refusal::Refusal;
use crate::http::request_line::asks_for_head;
use crate::http::{Framing, RequestHead, read_head};

/// A request gathered whole.
pub struct WholeRequest<P> {
    /// Its head.
    pub head: RequestHead,
    /// Its body, chunked framing taken off.
    pub body: Vec<u8>,
    /// What the judge decided to do with it.
    pub plan: P,
}

/// What a head's judge decides before any of the body is taken.
pub struct Verdict<P> {
    /// What to do with the request once it is whole.
    pub plan: P,
    /// The largest body accepted for that.
    pub body_bytes_max: u64,
    /// Whether the body is of use; else it is read and dropped.
    pub keep_body: bool,
}

/// How far the gathering got.
pub enum Step<P> {
    /// Not whole yet.
    More,
    /// Not whole yet, and the client waits for `100 Continue` before it sends the body.
    Continue,
    /// Whole.
    Whole(Box<WholeRequest<P>>),
}

/// So many times what has come of a body there is room for what is still to come. A body over loopback comes 64 KB at a
/// time, and usual ones fit then; who only announces a large one gets next to nothing.
const ROOM_FACTOR: usize = 8;

/// Makes room for what comes of a body of known length, and for more of it, but for no more than it has: what is too
/// long would be copied on the way, and freed in more sizes than one.
fn make_room(body: &mut Vec<u8>, comes: usize, left: u64) {
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    let needed = body.len() + comes.min(left);
    if needed > body.capacity() {
        let room = needed.saturating_mul(ROOM_FACTOR) - body.len();
        body.reserve_exact(room.min(left));
    }
}

/// The gathering of one connection's requests, one after the other.
pub struct Intake<P> {
    state: State<P>,
    /// The request asks for a head alone, as far as it can be read.
    head_only: bool,
}

enum State<P> {
    Idle,
    Head { scanned: usize },
    Body { request: Box<WholeRequest<P>>, rest: BodyRest, keep_body: bool },
}

/// What a connection waits for, for its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwaitedPart {
    /// The first byte of a request.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
}

impl<P> Default for Intake<P> {
    fn default() -> Self {
        Intake { state: State::Idle, head_only: false }
    }
}

impl<P> Intake<P> {
    /// What it waits for.
    pub fn waiting(&self) -> AwaitedPart {
        match self.state {
            State::Idle => AwaitedPart::Idle,
            State::Head { .. } => AwaitedPart::Head,
            State::Body { .. } => AwaitedPart::Body,
        }
    }

    /// Whether the request that it has, or had last, wants no content in its reply, be that a refusal.
    pub fn is_head_only(&self) -> bool {
        self.head_only
    }

    /// Bytes of the body so far.
    pub fn body_bytes(&self) -> usize {
        match &self.state {
            State::Body { request, .. } => request.body.len(),
            State::Idle | State::Head { .. } => 0,
        }
    }

    /// Takes in `bytes`; how many were used up, and how far it got. Unused bytes must come again, with what follows
    /// them. `judge` sees a head before any of its body is taken.
    pub fn advance(
        &mut self,
        bytes: &[u8],
        judge: impl FnOnce(&RequestHead) -> Result<Verdict<P>, Refusal>,
    ) -> Result<(usize, Step<P>), Refusal> {
        let mut used = 0;
        if let State::Idle = self.state {
            if bytes.is_empty() {
                return Ok((0, Step::More));
            }
            self.state = State::Head { scanned: 0 };
        }
        let mut fresh = false;
        if let State::Head { scanned } = &mut self.state {
            self.head_only = asks_for_head(bytes);
            let Some((head, consumed)) = read_head(bytes, scanned)? else { return Ok((0, Step::More)) };
            used = consumed;
            let verdict = judge(&head)?;
            let rest = match head.meaning.framing {
                Framing::None => BodyRest::NONE,
                Framing::Length(length) if length > verdict.body_bytes_max => return Err(Refusal::BodyTooLarge),
                Framing::Length(length) => BodyRest::Length(length),
                Framing::Chunked => BodyRest::Chunks(ChunkDecoder::new(verdict.body_bytes_max)),
            };
            fresh = head.meaning.expect_continue;
            let request = Box::new(WholeRequest { head, body: Vec::new(), plan: verdict.plan });
            self.state = State::Body { request, rest, keep_body: verdict.keep_body };
        }
        if let State::Body { request, rest, keep_body } = &mut self.state {
            if let (BodyRest::Length(left), true) = (&*rest, *keep_body) {
                make_room(&mut request.body, bytes.len() - used, *left);
            }
            let taken = rest.take(&bytes[used..], &mut request.body)?;
            used += taken;
            if !*keep_body {
                request.body.clear();
            }
            if !rest.is_over() {
                // A client that has begun to send the body does not wait.
                return Ok((used, if fresh && taken == 0 { Step::Continue } else { Step::More }));
            }
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Body { request, .. } => Ok((used, Step::Whole(request))),
            State::Idle | State::Head { .. } => unreachable!("only a gathered body gets here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gathers a request whose body of `length` bytes comes in pieces of this size; the room that it then has.
    fn room_of(length: usize, piece: usize) -> usize {
        let mut intake = Intake::<()>::default();
        let judge = |_: &RequestHead| Ok(Verdict { plan: (), body_bytes_max: 1 << 30, keep_body: true });
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        assert!(matches!(intake.advance(head.as_bytes(), judge), Ok((_, Step::More))));
        let body = vec![b'x'; length];
        for piece in body.chunks(piece) {
            match intake.advance(piece, judge) {
                Ok((_, Step::Whole(request))) => return request.body.capacity(),
                Ok((used, Step::More)) => assert_eq!(used, piece.len()),
                Ok((_, Step::Continue)) | Err(_) => unreachable!("it is a plain request"),
            }
            let State::Body { request, .. } = &intake.state else { unreachable!("its body comes") };
            assert!(request.body.capacity() <= ROOM_FACTOR * request.body.len(), "not for who only announces much");
        }
        unreachable!("it has come whole")
    }

    #[test]
    fn a_body_has_the_room_that_it_takes_and_no_more() {
        for length in [1, 100, 1000, 100_000] {
            for piece in [1, 7, 4096, 65_536, 1 << 20] {
                assert_eq!(room_of(length, piece), length, "in pieces of {piece}");
            }
        }
    }
}
