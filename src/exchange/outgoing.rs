//! A request's body on its way to upstream.
//!
//! ureq counts it, and it goes from here to the socket: what ureq would copy into a buffer of its own for each worker, up
//! to 128 KB of it, stays where it is. With TLS, which has a use for a copy, ureq gets to read it.

use std::io::{self, Read};
use std::sync::Mutex;

use crate::bell::lock;
use crate::usage::inject::Edit;

/// A body as upstream gets it: as it came, but for one edit.
#[derive(Debug, Default)]
pub struct OutgoingBody {
    bytes: Vec<u8>,
    edit: Option<Edit>,
}

impl OutgoingBody {
    /// With the edit made, if there is one.
    pub fn new(bytes: Vec<u8>, edit: Option<Edit>) -> OutgoingBody {
        OutgoingBody { bytes, edit }
    }

    /// As upstream gets it.
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// Whether upstream gets nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it is made of, one behind the other.
    fn parts(&self) -> [&[u8]; 3] {
        match &self.edit {
            Some(edit) => [&self.bytes[..edit.at.start], edit.with.as_bytes(), &self.bytes[edit.at.end..]],
            None => [&self.bytes, &[], &[]],
        }
    }

    /// The same of a stretch of it.
    pub(super) fn stretch(&self, from: usize, to: usize) -> [&[u8]; 3] {
        let mut begin = 0;
        self.parts().map(|part| {
            let within = |at: usize| at.saturating_sub(begin).min(part.len());
            let stretch = &part[within(from)..within(to)];
            begin += part.len();
            stretch
        })
    }
}

/// How far a body has come.
#[derive(Debug, Default)]
pub(super) struct BodyOnItsWay {
    pub(super) body: OutgoingBody,
    /// ureq has read so much of it,
    read: usize,
    /// of which so much is not copied, and was not handed on yet,
    announced: usize,
    /// and so much was sent from here.
    sent: usize,
}

impl BodyOnItsWay {
    /// Nothing of it was sent yet.
    pub(super) fn new(body: OutgoingBody) -> BodyOnItsWay {
        BodyOnItsWay { body, ..BodyOnItsWay::default() }
    }

    /// It is sent once more.
    pub(super) fn rewind(&mut self) {
        (self.read, self.announced, self.sent) = (0, 0, 0);
    }

    /// Bytes that ureq hands on as its output, and that stand here.
    pub(super) fn take_announced(&mut self) -> usize {
        std::mem::take(&mut self.announced)
    }

    /// The next bytes to send, which count as sent from now on.
    pub(super) fn send(&mut self, count: usize) -> [&[u8]; 3] {
        let from = self.sent;
        self.sent += count;
        self.body.stretch(from, self.sent)
    }
}

/// The body as ureq reads it.
pub(super) struct BodyReader<'a> {
    pub(super) way: &'a Mutex<BodyOnItsWay>,
    /// What it reads is what is sent.
    pub(super) is_copied: bool,
}

impl Read for BodyReader<'_> {
    fn read(&mut self, mut into: &mut [u8]) -> io::Result<usize> {
        let way = &mut *lock(self.way);
        let from = way.read;
        way.read = (from + into.len()).min(way.body.len());
        if !self.is_copied {
            way.announced += way.read - from;
            return Ok(way.read - from);
        }
        for part in way.body.stretch(from, way.read) {
            let (place, rest) = into.split_at_mut(part.len());
            place.copy_from_slice(part);
            into = rest;
        }
        Ok(way.read - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_of_an_edited_body_is_that_of_the_edited_text() {
        let edits = [None, Some(3..3), Some(0..0), Some(10..10), Some(2..7), Some(0..10)];
        for edit in edits.map(|at| at.map(|at| Edit { at, with: "edit" })) {
            let text = b"0123456789";
            let edited = edit.as_ref().map_or(text.to_vec(), |edit| edit.apply(text));
            let body = OutgoingBody::new(text.to_vec(), edit);
            assert_eq!(body.len(), edited.len());
            for from in 0..=edited.len() {
                for to in from..=edited.len() {
                    assert_eq!(body.stretch(from, to).concat(), edited[from..to], "{from} {to}");
                }
            }
        }
    }

    #[test]
    fn what_is_read_is_copied_or_announced() {
        for is_copied in [true, false] {
            let body = OutgoingBody::new(b"body".to_vec(), Some(Edit { at: 1..2, with: "O" }));
            let way = Mutex::new(BodyOnItsWay::new(body));
            for _ in 0..2 {
                let mut reader = BodyReader { way: &way, is_copied };
                let mut room = [b'-'; 3];
                assert_eq!(reader.read(&mut room).expect("is there"), 3);
                assert_eq!((&room, lock(&way).take_announced()), if is_copied { (b"bOd", 0) } else { (b"---", 3) });
                assert_eq!(reader.read(&mut room).expect("is there"), 1);
                assert_eq!(lock(&way).take_announced(), usize::from(!is_copied));
                assert_eq!(reader.read(&mut room).expect("ends"), 0);
                assert_eq!(lock(&way).send(3).concat(), b"bOd");
                assert_eq!(lock(&way).send(1).concat(), b"y");
                lock(&way).rewind();
            }
        }
    }
}
