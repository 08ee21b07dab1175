//! The frames of a WebSocket (RFC 6455 §5), read along in one direction of a connection.
//!
//! It does not answer, check UTF-8, undo compression or ask whether a side masks as it should: it tells what the text
//! messages hold and where they end. Nobody waits for its verdict, so it refuses nothing either: at the first bytes
//! that are no frame it is lost, and tells nothing more.
//!
//! ```text
//!  Header ──whole──▶ Payload ──its last byte──▶ Header
//!    └──no frame──▶ Lost
//! ```
//!
//! Invariant: however the bytes are cut, the same is told. It keeps no payload: what is told goes on at once, what
//! nobody reads is counted and not looked at.

/// Longest header of a frame: two bytes, an extended payload length, a masking key.
const HEADER_BYTES_MAX: usize = 2 + 8 + 4;
/// Payload that is unmasked at a time. A multiple of the masking key's length, so that it begins anew with each piece; on
/// the stack, and large enough that it pays to search one.
const UNMASKED_BYTES: usize = 512;

/// FIN: the frame is its message's last.
const FIN: u8 = 0x80;
/// RSV1, RSV2 and RSV3: an extension changed the payload. `permessage-deflate` sets RSV1 (RFC 7692 §6).
const RSV: u8 = 0x70;
/// MASK, in the second byte.
const MASK: u8 = 0x80;
/// Payload lengths beyond have their most significant bit set, which must be 0 (RFC 6455 §5.2).
const PAYLOAD_BYTES_MAX: u64 = u64::MAX >> 1;

/// The opcode, in the first byte.
const OPCODE: u8 = 0x0f;
// 3 to 7 are reserved for more kinds of messages, 11 to 15 for more control frames.
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
/// The first of the control frames.
const CONTROL: u8 = 8;
/// Longest payload of a control frame (RFC 6455 §5.5). More could only be told in an extended payload length.
const CONTROL_BYTES_MAX: u8 = 125;

/// Who is told what the frames hold. Offsets count in the bytes given to the [`FrameReader::read`] that tells.
pub trait Messages {
    /// The next bytes of a text message, unmasked; at least one, and cut anywhere.
    fn text(&mut self, piece: &[u8]);
    /// A text message is whole; `behind` is just behind its last byte.
    fn end_of_text(&mut self, behind: usize);
    /// A message is whole of which nothing else is told: it is binary, or an extension coded it.
    fn end_of_opaque(&mut self, _behind: usize) {}
    /// A Close frame is whole: no message follows in this direction.
    fn close(&mut self, _behind: usize) {}
}

/// Reads the frames of one direction.
#[derive(Clone, Debug)]
pub struct FrameReader {
    state: State,
    /// What the data frames belong to, from a message's first frame to its last; control frames may stand between.
    message: Option<MessageKind>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// So many bytes of the next header are here.
    Header([u8; HEADER_BYTES_MAX], u8),
    Payload(Payload),
    Lost,
}

/// What is still to come of a frame. Between calls, that is more than nothing.
#[derive(Clone, Copy, Debug)]
struct Payload {
    left: u64,
    /// Turned so that its first byte is for the next byte. Zeros are no mask.
    masking_key: [u8; 4],
    kind: FrameKind,
}

#[derive(Clone, Copy, Debug)]
enum FrameKind {
    /// One of the message.
    Data {
        is_final: bool,
    },
    Close,
    /// A ping or a pong, or of a reserved opcode.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageKind {
    Text,
    /// Binary, or coded by an extension.
    Opaque,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self { state: State::NO_HEADER, message: None }
    }
}

impl State {
    const NO_HEADER: State = State::Header([0; HEADER_BYTES_MAX], 0);
}

impl FrameReader {
    /// Takes the next bytes, and tells what they hold.
    pub fn read(&mut self, bytes: &[u8], to: &mut impl Messages) {
        let mut at = 0;
        while at < bytes.len() {
            at += match self.state {
                State::Header(header, length) => self.read_header(header, length, &bytes[at..]),
                State::Payload(payload) => self.read_payload(payload, &bytes[at..], to),
                State::Lost => return,
            };
            // Also of a frame without payload, which ends with its header.
            if let State::Payload(Payload { left: 0, kind, .. }) = self.state {
                self.state = State::NO_HEADER;
                self.end_frame(kind, at, to);
            }
        }
    }

    /// Whether nothing of a frame is under way: here another one can be put in, though only a control frame, for a
    /// message may be.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Header(_, 0))
    }

    /// Whether something came that is no frame: from there on nobody knows where frames begin.
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Gathers a header, and begins its frame when it is whole. Says how many bytes were taken.
    fn read_header(&mut self, mut header: [u8; HEADER_BYTES_MAX], gathered: u8, bytes: &[u8]) -> usize {
        let from = usize::from(gathered);
        // Its second byte tells how long it is.
        let wanted = if from < 2 { 2 } else { header_length(header[1]) };
        let taken = bytes.len().min(wanted - from);
        let gathered = from + taken;
        header[from..gathered].copy_from_slice(&bytes[..taken]);
        self.state = if gathered < 2 || gathered < header_length(header[1]) {
            State::Header(header, gathered as u8)
        } else {
            self.begin_frame(&header).map_or(State::Lost, State::Payload)
        };
        taken
    }

    /// What a whole header announces; `None` where it is none.
    fn begin_frame(&mut self, header: &[u8; HEADER_BYTES_MAX]) -> Option<Payload> {
        let (is_final, rsv, opcode) = (header[0] & FIN != 0, header[0] & RSV, header[0] & OPCODE);
        let kind = match opcode {
            CONTINUATION => match self.message {
                None => return None,
                // RFC 7692 §6: that a message is coded is told by its first frame.
                Some(MessageKind::Text) if rsv != 0 => return None,
                Some(MessageKind::Text | MessageKind::Opaque) => FrameKind::Data { is_final },
            },
            TEXT | BINARY => {
                if self.message.is_some() {
                    // RFC 6455 §5.4: messages are not interleaved.
                    return None;
                }
                let is_told = opcode == TEXT && rsv == 0;
                self.message = Some(if is_told { MessageKind::Text } else { MessageKind::Opaque });
                FrameKind::Data { is_final }
            }
            CONTROL.. if !is_final || header[1] & !MASK > CONTROL_BYTES_MAX => return None,
            CLOSE => FrameKind::Close,
            _ => FrameKind::Other,
        };
        let (extended, rest) = header[2..].split_at(extended_length(header[1]));
        let left = match *extended {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            [a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            _ => u64::from(header[1] & !MASK),
        };
        if left > PAYLOAD_BYTES_MAX {
            return None;
        }
        let masking_key = match rest {
            [a, b, c, d, ..] if header[1] & MASK != 0 => [*a, *b, *c, *d],
            _ => [0; 4],
        };
        Some(Payload { left, masking_key, kind })
    }

    /// Tells payload, if it is a text message's. Says how many bytes were taken.
    fn read_payload(&mut self, mut payload: Payload, bytes: &[u8], to: &mut impl Messages) -> usize {
        let taken = usize::try_from(payload.left).unwrap_or(usize::MAX).min(bytes.len());
        if matches!((payload.kind, self.message), (FrameKind::Data { .. }, Some(MessageKind::Text))) {
            if payload.masking_key == [0; 4] {
                to.text(&bytes[..taken]);
            } else {
                unmask(payload.masking_key, &bytes[..taken], to);
                payload.masking_key.rotate_left(taken % 4);
            }
        }
        payload.left -= taken as u64;
        self.state = State::Payload(payload);
        taken
    }

    fn end_frame(&mut self, kind: FrameKind, behind: usize, to: &mut impl Messages) {
        match kind {
            FrameKind::Data { is_final: true } => match self.message.take() {
                Some(MessageKind::Text) => to.end_of_text(behind),
                Some(MessageKind::Opaque) => to.end_of_opaque(behind),
                None => {}
            },
            FrameKind::Close => to.close(behind),
            FrameKind::Data { is_final: false } | FrameKind::Other => {}
        }
    }
}

/// How long a header is whose second byte this is.
fn header_length(second: u8) -> usize {
    2 + extended_length(second) + if second & MASK == 0 { 0 } else { 4 }
}

/// How many bytes of a header tell the length of a payload, beside its second byte. That a shorter form would have done
/// is no matter here: there is one reading.
fn extended_length(second: u8) -> usize {
    match second & !MASK {
        ..=125 => 0,
        126 => 2,
        _ => 8,
    }
}

/// Tells masked bytes, eight at a time.
fn unmask(key: [u8; 4], bytes: &[u8], to: &mut impl Messages) {
    let key = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut room = [0; UNMASKED_BYTES];
    for masked in bytes.chunks(UNMASKED_BYTES) {
        let plain = &mut room[..masked.len()];
        plain.copy_from_slice(masked);
        let (words, rest) = plain.as_chunks_mut::<8>();
        for word in words {
            *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
        }
        for (byte, key) in rest.iter_mut().zip(key.to_ne_bytes()) {
            *byte ^= key;
        }
        to.text(plain);
    }
}

/// A server's Close frame with this status code (RFC 6455 §7.4). A client's would have to be masked.
pub const fn close_frame(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [FIN | CLOSE, 2, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One thing that was told, and how many bytes had come by then.
    #[derive(Debug, PartialEq)]
    enum Told {
        Text(String, usize),
        Opaque(usize),
        Close(usize),
    }

    #[derive(Debug, Default, PartialEq)]
    struct Listener {
        told: Vec<Told>,
        /// Of a text message that has not ended.
        begun: Vec<u8>,
        /// What came before the bytes that are being read.
        before: usize,
    }

    impl Messages for Listener {
        fn text(&mut self, piece: &[u8]) {
            assert!(!piece.is_empty());
            self.begun.extend_from_slice(piece);
        }

        fn end_of_text(&mut self, behind: usize) {
            let text = String::from_utf8(std::mem::take(&mut self.begun)).expect("tests send UTF-8");
            self.told.push(Told::Text(text, self.before + behind));
        }

        fn end_of_opaque(&mut self, behind: usize) {
            self.told.push(Told::Opaque(self.before + behind));
        }

        fn close(&mut self, behind: usize) {
            self.told.push(Told::Close(self.before + behind));
        }
    }

    /// What is told of `pieces`, and the reader behind them.
    fn read<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> (FrameReader, Listener) {
        let (mut reader, mut listener) = (FrameReader::default(), Listener::default());
        for piece in pieces {
            reader.read(piece, &mut listener);
            listener.before += piece.len();
        }
        (reader, listener)
    }

    /// Reads `bytes` whole, byte by byte and in two pieces, wherever they are cut.
    #[track_caller]
    fn read_all(bytes: &[u8]) -> (FrameReader, Listener) {
        let (reader, listener) = read([bytes]);
        let same = |other: (FrameReader, Listener), how: &str| {
            assert_eq!(other.1, listener, "{how}");
            assert_eq!(other.0.is_at_boundary(), reader.is_at_boundary(), "{how}");
            assert_eq!(other.0.is_lost(), reader.is_lost(), "{how}");
        };
        same(read(bytes.chunks(1)), "byte by byte");
        for cut in (0..=bytes.len()).step_by(bytes.len() / 1000 + 1) {
            same(read([&bytes[..cut], &bytes[cut..]]), &format!("cut at {cut}"));
        }
        (reader, listener)
    }

    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: &[Told]) {
        let (reader, listener) = read_all(&frames.concat());
        assert_eq!(listener.told, expected, "{frames:?}");
        assert!(listener.begun.is_empty() && reader.is_at_boundary() && !reader.is_lost(), "{frames:?}");
    }

    /// That of `frames` so much is told, and nothing of what follows.
    #[track_caller]
    fn check_lost(frames: &[Vec<u8>], expected: &[Told]) {
        let (reader, listener) = read_all(&[frames.concat(), text("never told"), vec![FIN | CLOSE, 0]].concat());
        assert_eq!(listener.told, expected, "{frames:?}");
        assert!(reader.is_lost() && !reader.is_at_boundary(), "{frames:?}");
    }

    /// A frame whose first byte is `first`.
    fn frame(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let mask = if key.is_some() { MASK } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            length @ ..=125 => bytes.push(mask | length as u8),
            length @ ..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(key.unwrap_or_default().iter().take(if key.is_some() { 4 } else { 0 }));
        bytes.extend(payload.iter().enumerate().map(|(n, byte)| byte ^ key.unwrap_or_default()[n % 4]));
        bytes
    }

    fn text(payload: &str) -> Vec<u8> {
        frame(FIN | TEXT, None, payload.as_bytes())
    }

    const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 6455 §5.7.
        let hello = |behind| Told::Text("Hello".to_owned(), behind);
        check(&[b"\x81\x05Hello".to_vec()], &[hello(7)]);
        check(&[b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec()], &[hello(11)]);
        check(&[b"\x01\x03Hel".to_vec(), b"\x80\x02lo".to_vec()], &[hello(9)]);
        check(&[b"\x89\x05Hello".to_vec(), b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58".to_vec()], &[]);
        check(&[[&b"\x82\x7e\x01\x00"[..], &[0; 256]].concat()], &[Told::Opaque(260)]);
        check(&[[&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &[0; 65536]].concat()], &[Told::Opaque(65546)]);
    }

    #[test]
    fn every_length_is_read_with_a_mask_or_without() {
        let lengths = (0..=20).chain([124, 125, 126, 127, 128]);
        for length in lengths.chain([511, 512, 513, 1024, 1500, 65_535, 65_536, 65_537]) {
            let payload: String = ('a'..='z').cycle().take(length).collect();
            for (key, more) in [(None, 0), (KEY, 4), (Some([0; 4]), 4), (Some([0, 0, 0, 1]), 4)] {
                let header = 2 + more + if length > 65_535 { 8 } else { 2 * usize::from(length > 125) };
                let told = |frames: usize| Told::Text(payload.clone(), frames * (header + length));
                let one = frame(FIN | TEXT, key, payload.as_bytes());
                check(&[one.clone(), one], &[told(1), told(2)]);
            }
        }
    }

    #[test]
    fn a_length_may_be_told_in_more_bytes_than_it_needs() {
        check(&[b"\x81\x7e\0\x02Hi".to_vec()], &[Told::Text("Hi".to_owned(), 6)]);
        check(&[b"\x81\x7f\0\0\0\0\0\0\0\x02Hi".to_vec()], &[Told::Text("Hi".to_owned(), 12)]);
        check(&[b"\x81\xff\0\0\0\0\0\0\0\x02\0\x01\0\0Hh".to_vec()], &[Told::Text("Hi".to_owned(), 16)]);
    }

    #[test]
    fn control_frames_may_stand_between_fragments() {
        for key in [None, KEY] {
            let fragments = [
                frame(TEXT, key, b"One "),
                frame(FIN | 9, key, b"ping"),
                frame(CONTINUATION, key, b""),
                frame(FIN | 10, key, b""),
                frame(CONTINUATION, key, b"message, "),
                frame(FIN | 11, key, &[b'x'; 125]),
                frame(FIN | CONTINUATION, key, b"whole."),
            ];
            let behind = fragments.concat().len();
            check(&fragments, &[Told::Text("One message, whole.".to_owned(), behind)]);
        }
    }

    #[test]
    fn a_last_fragment_may_be_empty() {
        check(&[frame(TEXT, KEY, b"Hi"), frame(FIN, KEY, b"")], &[Told::Text("Hi".to_owned(), 14)]);
        check(&[frame(TEXT, None, b""), frame(FIN, None, b"")], &[Told::Text(String::new(), 4)]);
    }

    #[test]
    fn of_binary_and_coded_messages_only_the_end_is_told() {
        for first in [BINARY, TEXT | 0x40, TEXT | 0x20, TEXT | 0x10, BINARY | 0x70] {
            let begin = frame(first, KEY, b"\xff\xfe");
            let told = [Told::Opaque(8 + 6 + 9), Told::Text("Hi".to_owned(), 8 + 6 + 9 + 4)];
            check(
                &[begin, frame(FIN | 9, KEY, b""), frame(FIN | CONTINUATION | 0x10, KEY, b"\xfd\xfc\xfb"), text("Hi")],
                &told,
            );
            check(
                &[frame(FIN | first, None, b"\xff\xfe"), text("Hi")],
                &[Told::Opaque(4), Told::Text("Hi".to_owned(), 8)],
            );
        }
    }

    #[test]
    fn frames_of_reserved_opcodes_are_passed_over() {
        let hi = |behind| Told::Text("Hi".to_owned(), behind);
        for opcode in 3..=7 {
            let frames = [frame(TEXT, None, b"H"), frame(FIN | opcode, None, &[7; 300]), frame(FIN, None, b"i")];
            check(&frames, &[hi(3 + 304 + 3)]);
            check(&[frame(opcode, None, b"1"), text("Hi")], &[hi(7)]);
        }
        for opcode in 11..=15 {
            check(&[frame(FIN | opcode, None, &[7; 125]), text("Hi")], &[hi(131)]);
        }
    }

    #[test]
    fn a_close_frame_is_told() {
        let close = frame(FIN | CLOSE, KEY, b"\x03\xe8bye");
        check(&[text("Hi"), close.clone()], &[Told::Text("Hi".to_owned(), 4), Told::Close(15)]);
        check(
            &[frame(TEXT, None, b"H"), close, frame(FIN, None, b"i")],
            &[Told::Close(14), Told::Text("Hi".to_owned(), 17)],
        );
        check(&[close_frame(1001).to_vec()], &[Told::Close(4)]);
        assert_eq!(close_frame(1001).to_vec(), frame(FIN | CLOSE, None, b"\x03\xe9"));
    }

    #[test]
    fn what_is_no_frame_ends_the_telling_for_good() {
        let hi = || Told::Text("Hi".to_owned(), 4);
        let check = |bytes: &[u8]| check_lost(&[text("Hi"), bytes.to_vec()], &[hi()]);
        check(b"\x81\x7f\x80\0\0\0\0\0\0\x01");
        check(b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0");
        for opcode in 8..=15 {
            check(&frame(FIN | opcode, None, &[0; 126]));
            check(&[FIN | opcode, 126, 0, 1]);
            check(&frame(opcode, KEY, b""));
        }
        check(&frame(CONTINUATION, None, b"a"));
        check(&frame(FIN | CONTINUATION, KEY, b""));
        for begin in [TEXT, BINARY, TEXT | 0x40] {
            check(&[frame(begin, None, b"a"), text("b")].concat());
            check(&[frame(begin, None, b"a"), frame(FIN | BINARY, None, b"b")].concat());
        }
        check(&[frame(TEXT, None, b"a"), frame(FIN | CONTINUATION | 0x40, None, b"b")].concat());
    }

    #[test]
    fn only_between_frames_is_a_boundary() {
        let bytes = [frame(TEXT, KEY, b"Hi"), frame(FIN | 9, None, b""), frame(FIN, KEY, &[b'x'; 200])].concat();
        let ends = [0, 8, 10, bytes.len()];
        for cut in 0..=bytes.len() {
            assert_eq!(read([&bytes[..cut]]).0.is_at_boundary(), ends.contains(&cut), "behind {cut} bytes");
        }
    }

    #[test]
    fn the_longest_payload_is_counted_to_its_end() {
        let header = [&[FIN | BINARY, MASK | 127][..], &PAYLOAD_BYTES_MAX.to_be_bytes(), &[1; 4]].concat();
        let (mut reader, mut listener) = read([&header[..], &[0; 1000]]);
        let State::Payload(payload) = &mut reader.state else { panic!("the frame is under way") };
        assert_eq!(payload.left, PAYLOAD_BYTES_MAX - 1000);
        payload.left = 3;
        reader.read(b"\0\0\0\x81\x02Hi", &mut listener);
        assert_eq!(listener.told, [Told::Opaque(1014 + 3), Told::Text("Hi".to_owned(), 1014 + 7)]);
    }

    #[test]
    fn a_reader_takes_few_bytes() {
        assert!(size_of::<FrameReader>() <= 32, "{}", size_of::<FrameReader>());
    }
}
