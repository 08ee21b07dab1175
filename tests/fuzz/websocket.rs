//! The rules of reading along on a WebSocket. `cargo test` runs them on frames that it makes and spoils, cargo-fuzz on what
//! it thinks of.

use lms_metrics_proxy::http::websocket::{FrameReader, Messages};

use crate::testing::Random;

/// Reads `input`, behind eight bytes that choose where it is cut, and panics where the cuts decide over what is told, or
/// something else is told than a reader of whole frames finds.
pub fn fuzz_websocket(input: &[u8]) {
    let Some((&seed, bytes)) = input.split_first_chunk::<8>() else { return };
    let expected = frames(bytes);
    let mut random = Random::new(u64::from_le_bytes(seed));
    assert_eq!(read(bytes, |left| left), expected, "read whole");
    assert_eq!(read(bytes, |_| 1), expected, "read byte by byte");
    assert_eq!(read(bytes, |left| 1 + random.index(left.min(40))), expected, "read in pieces");
}

/// What some bytes hold.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    /// The text of each message, and where it ends.
    texts: Vec<(Vec<u8>, usize)>,
    /// Where messages end that are not told.
    opaque: Vec<usize>,
    /// Where Close frames end.
    closes: Vec<usize>,
    /// What is here of a text message that has not ended.
    begun: Vec<u8>,
    is_at_boundary: bool,
    is_lost: bool,
}

/// Feeds a reader in pieces whose length `next` chooses, given how much is left.
fn read(bytes: &[u8], mut next: impl FnMut(usize) -> usize) -> Heard {
    let (mut reader, mut listener, mut at) = (FrameReader::default(), Listener::default(), 0);
    while at < bytes.len() {
        let end = at + next(bytes.len() - at).clamp(1, bytes.len() - at);
        listener.before = at;
        reader.read(&bytes[at..end], &mut listener);
        at = end;
    }
    Heard { is_at_boundary: reader.is_at_boundary(), is_lost: reader.is_lost(), ..listener.heard }
}

#[derive(Default)]
struct Listener {
    heard: Heard,
    /// The bytes of earlier pieces.
    before: usize,
}

impl Messages for Listener {
    fn text(&mut self, piece: &[u8]) {
        assert!(!piece.is_empty(), "a piece of nothing");
        self.heard.begun.extend_from_slice(piece);
    }

    fn end_of_text(&mut self, behind: usize) {
        let text = std::mem::take(&mut self.heard.begun);
        self.heard.texts.push((text, self.before + behind));
    }

    fn end_of_opaque(&mut self, behind: usize) {
        self.heard.opaque.push(self.before + behind);
    }

    fn close(&mut self, behind: usize) {
        self.heard.closes.push(self.before + behind);
    }
}

/// The same, read from bytes that are all here.
fn frames(bytes: &[u8]) -> Heard {
    let (mut heard, mut at) = (Heard { is_at_boundary: true, ..Heard::default() }, 0);
    // Whether a message is under way, and is plain text.
    let mut message: Option<bool> = None;
    while at < bytes.len() {
        heard.is_at_boundary = false;
        let Some((header, length, key)) = header(&bytes[at..]) else { return heard };
        let (is_final, is_coded, opcode) = (bytes[at] > 0x7f, bytes[at] & 0x70 > 0, bytes[at] & 0xf);
        let is_frame = match (opcode, message) {
            (0, None) => false,
            (0, Some(is_text)) => !(is_text && is_coded),
            (1 | 2, None) => true,
            (1 | 2, Some(_)) => false,
            (3..8, _) => true,
            _ => is_final && bytes[at + 1] & 0x7f < 126,
        };
        if !is_frame || length >= 1 << 63 {
            return Heard { is_lost: true, ..heard };
        }
        let payload = &bytes[at + header..];
        let is_whole = payload.len() as u64 >= length;
        let payload = if is_whole { &payload[..length as usize] } else { payload };
        if let 1 | 2 = opcode {
            message = Some(opcode == 1 && !is_coded);
        }
        if let (0..3, Some(true)) = (opcode, message) {
            heard.begun.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        }
        if !is_whole {
            return heard;
        }
        at += header + payload.len();
        match (opcode, message) {
            (0..3, Some(is_text)) if is_final => {
                message = None;
                if is_text {
                    heard.texts.push((std::mem::take(&mut heard.begun), at));
                } else {
                    heard.opaque.push(at);
                }
            }
            (8, _) => heard.closes.push(at),
            _ => {}
        }
        heard.is_at_boundary = true;
    }
    heard
}

/// The length of the header that `bytes` begin with, if it is whole, that of the payload, and the masking key.
fn header(bytes: &[u8]) -> Option<(usize, u64, [u8; 4])> {
    let second = *bytes.get(1)?;
    let (length, mut at) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(*bytes[2..].first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*bytes[2..].first_chunk()?), 10),
        length => (u64::from(length), 2),
    };
    let mut key = [0; 4];
    if second > 0x7f {
        key = *bytes[at..].first_chunk()?;
        at += 4;
    }
    Some((at, length, key))
}

/// What a fuzzer begins with: frames of every kind.
pub const FRAMES: [&[u8]; 10] = [
    b"\x81\x05Hello",
    b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
    b"\x01\x03Hel\x89\x01p\x80\x02lo",
    b"\x82\x7e\x00\x80\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f",
    b"\x02\x7f\0\0\0\0\0\0\0\x02ab\x8a\0\x80\x01c",
    b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
    b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00",
    b"\x88\x82\x01\x02\x03\x04\x02\xea",
    b"\x83\x01x\x8b\x01y\x91\x01z",
    b"\x81\xfe\x00\x03\x00\x01\x02\x03abc\x01\x00\x80\x00",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn fuzz(bytes: &[u8]) {
        fuzz_websocket(&[&[7; 8], bytes].concat());
    }

    #[test]
    fn every_single_change_of_known_frames_keeps_the_rules() {
        for known in FRAMES {
            let bytes = [known, FRAMES[2], known].concat();
            for at in 0..bytes.len() {
                let (before, after) = (&bytes[..at], &bytes[at + 1..]);
                fuzz(&[before, after].concat());
                for bit in 0..8 {
                    fuzz(&[before, &[bytes[at] ^ 1 << bit], after].concat());
                }
            }
        }
    }

    #[test]
    fn random_frames_keep_the_rules_and_most_are_understood() {
        let mut random = Random::new(0x2545_f491_4f6c_dd1d);
        let mut texts = 0;
        for _ in 0..5000 {
            let (mut bytes, mut is_begun) = (Vec::new(), false);
            for _ in 0..random.index(12) {
                is_begun = frame(&mut random, is_begun, &mut bytes);
            }
            if random.below(4) == 0 && !bytes.is_empty() {
                let at = random.index(bytes.len());
                bytes[at] = random.below(256) as u8;
            }
            texts += frames(&bytes).texts.len();
            let seed = random.below(u64::MAX).to_le_bytes();
            fuzz_websocket(&[&seed, &bytes[..]].concat());
        }
        assert!(texts > 5000, "enough of the frames make messages: {texts}");
    }

    /// Adds a frame that is likely to be a sound one, where a message `is_begun` or not, and says the same for the next.
    fn frame(random: &mut Random, is_begun: bool, bytes: &mut Vec<u8>) -> bool {
        let likely = match (random.below(3), is_begun) {
            (0, _) => [8, 9, 10, 11][random.index(4)],
            (_, true) => 0,
            (_, false) => [1, 1, 1, 2][random.index(4)],
        };
        let opcode = if random.below(20) == 0 { random.below(16) as u8 } else { likely };
        let fin = if opcode > 7 || random.below(3) > 0 { 0x80 } else { 0 };
        let rsv = if random.below(10) == 0 { 0x40 } else { 0 };
        let mask = if random.below(2) == 0 { 0x80 } else { 0 };
        let length =
            [random.index(8), random.index(126), random.index(1200)][random.index(if opcode > 7 { 2 } else { 3 })];
        bytes.push(fin | rsv | opcode);
        match (length, random.below(20)) {
            (126.., 1..) => bytes.extend([&[mask | 126][..], &(length as u16).to_be_bytes()].concat()),
            (126.., 0) => bytes.extend([&[mask | 127][..], &(length as u64).to_be_bytes()].concat()),
            _ => bytes.push(mask | length as u8),
        }
        let key = if mask == 0 { 0 } else { 4 };
        bytes.extend((0..key + length).map(|_| random.below(256) as u8));
        if opcode > 2 { is_begun } else { fin == 0 }
    }
}
