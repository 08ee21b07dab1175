//! Chunked bodies (RFC 9112 §7.1): those of requests in the strictest reading, those of replies with what servers are
//! known to write besides ([`Strictness`]). Extensions and trailers are bounded and dropped.
//!
//! ```text
//!  Size ──size > 0──▶ Data ──▶ DataCr ──▶ DataLf ──▶ Size
//!    └────size = 0──▶ Trailer ──empty line──▶ Done
//! ```
//!
//! All bytes given are consumed, but for those behind the body's end.

use super::fields::field_name;
use super::refusal::Refusal;
use super::syntax::{is_control, split_token};
use crate::limits::*;

/// Most digits of a chunk size; leading zeros count in a request.
const SIZE_DIGITS_MAX: usize = 15;
/// The first size that has more.
const SIZE_END: u64 = 1 << (4 * SIZE_DIGITS_MAX);

/// What is let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strictness {
    /// A request that another server may read differently smuggles a second one in: extensions and trailer fields are
    /// checked by their grammar, and few.
    Request,
    /// White space behind a size, leading zeros without end, and whatever stands in an extension or a trailer field:
    /// RFC 9112 §7.1.1 has them ignored, and a reply is worth more than its form. What makes a second reading possible
    /// (signs, bare line ends, control bytes) is refused here, too.
    Reply,
}

/// Decodes one body.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    strictness: Strictness,
    /// The unfinished line of a size or a trailer field, without LF.
    line: Vec<u8>,
    /// How much the body may still grow.
    body_left: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
    trailer_fields: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    /// So many bytes of a chunk are still to come. Invariant: more than 0.
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
    Done,
}

impl ChunkDecoder {
    /// A decoder for a request's body of at most `bytes_max` decoded bytes.
    pub fn new(bytes_max: u64) -> Self {
        Self::with(Strictness::Request, bytes_max)
    }

    /// A decoder for a reply's body, however long.
    pub fn of_reply() -> Self {
        Self::with(Strictness::Reply, u64::MAX)
    }

    fn with(strictness: Strictness, bytes_max: u64) -> Self {
        Self {
            state: State::Size,
            strictness,
            line: Vec::new(),
            body_left: bytes_max,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
        }
    }

    /// Takes the next bytes, appends what they hold of the body to `body`, and says how many were consumed and
    /// whether the body has ended. An error is final; what came before it is in `body`.
    pub fn decode(&mut self, input: &[u8], body: &mut Vec<u8>) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            match self.state {
                State::Size => at += self.read_size(&input[at..])?,
                State::Data(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                    body.extend_from_slice(&input[at..at + here]);
                    at += here;
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                }
                State::DataCr => at += self.expect(input[at], b'\r', State::DataLf)?,
                State::DataLf => at += self.expect(input[at], b'\n', State::Size)?,
                State::Trailer => at += self.read_trailer(&input[at..])?,
                State::Done => {}
            }
        }
        Ok((at, self.state == State::Done))
    }

    fn expect(&mut self, byte: u8, expected: u8, next: State) -> Result<usize, Refusal> {
        if byte != expected {
            return Err(Refusal::ChunkInvalid);
        }
        self.state = next;
        Ok(1)
    }

    fn read_size(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let line_max = match self.strictness {
            Strictness::Request => CHUNK_LINE_BYTES_MAX,
            Strictness::Reply => REPLY_CHUNK_LINE_BYTES_MAX,
        };
        let Some(consumed) = self.gather(input, line_max, Refusal::ChunkLineTooLong)? else { return Ok(input.len()) };
        let digits = self.line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(self.line.len());
        let (size, extensions) = self.line.split_at(digits);
        let is_sound = match self.strictness {
            Strictness::Request => digits <= SIZE_DIGITS_MAX && are_extensions(extensions),
            Strictness::Reply => matches!(extensions.trim_ascii_start(), [] | [b';', ..]),
        };
        let value = |digit: &u8| char::from(*digit).to_digit(16).map(u64::from);
        let size = size.iter().try_fold(0_u64, |sum, digit| Some(sum.checked_mul(16)? + value(digit)?));
        let size = size.filter(|&size| is_sound && digits > 0 && size < SIZE_END).ok_or(Refusal::ChunkInvalid)?;
        if self.strictness == Strictness::Request {
            // A reply of days may have one in every chunk.
            self.extension_bytes += extensions.len();
            if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
                return Err(Refusal::ChunkLineTooLong);
            }
        }
        self.body_left = self.body_left.checked_sub(size).ok_or(Refusal::BodyTooLarge)?;
        self.state = if size == 0 { State::Trailer } else { State::Data(size) };
        self.line.clear();
        Ok(consumed)
    }

    fn read_trailer(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let line_max = TRAILER_BYTES_MAX - self.trailer_bytes;
        let Some(consumed) = self.gather(input, line_max, Refusal::TrailersTooLarge)? else { return Ok(input.len()) };
        if self.line.is_empty() {
            self.state = State::Done;
            return Ok(consumed);
        }
        if self.strictness == Strictness::Request {
            check_trailer_field(&self.line)?;
        }
        self.trailer_bytes += self.line.len();
        self.trailer_fields += 1;
        if self.trailer_fields > FIELDS_MAX {
            return Err(Refusal::TrailersTooLarge);
        }
        self.line.clear();
        Ok(consumed)
    }

    /// Moves bytes into `self.line` up to a CR LF, which it leaves out; how many bytes were consumed, or `None` while
    /// the line is not whole.
    fn gather(&mut self, input: &[u8], bytes_max: usize, too_long: Refusal) -> Result<Option<usize>, Refusal> {
        for (i, &byte) in input.iter().enumerate() {
            if self.line.last() == Some(&b'\r') {
                if byte != b'\n' {
                    return Err(Refusal::BareLineEnd);
                }
                self.line.pop();
                return Ok(Some(i + 1));
            }
            match byte {
                b'\n' => return Err(Refusal::BareLineEnd),
                b'\r' => {}
                byte if is_control(byte) => return Err(Refusal::ControlByte),
                _ if self.line.len() >= bytes_max => return Err(too_long),
                // Nothing that could still become a size: do not wait for the line's end.
                byte if self.state == State::Size && self.line.is_empty() && !byte.is_ascii_hexdigit() => {
                    return Err(Refusal::ChunkInvalid);
                }
                _ => {}
            }
            self.line.push(byte);
        }
        Ok(None)
    }
}

/// RFC 9110 §6.5.1: what frames or routes has no meaning here, and misleads those who think it has.
fn check_trailer_field(line: &[u8]) -> Result<(), Refusal> {
    let name = field_name(line)?;
    let misleads = [&b"content-length"[..], b"transfer-encoding", b"host"];
    if misleads.iter().any(|other| name.eq_ignore_ascii_case(other)) {
        return Err(Refusal::TrailerInvalid);
    }
    Ok(())
}

/// What is wrong with a reply that is refused for this reason, for whoever reads its row.
pub fn words_of_reply(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::ChunkLineTooLong => "upstream's reply was broken off: the line of a chunk's size has no end",
        Refusal::TrailersTooLarge => "upstream's reply was broken off: its trailer has no end",
        _ => "upstream's reply was broken off: its chunks are malformed",
    }
}

/// The end of a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Adds these bytes as a chunk. No bytes are none: an empty chunk would be the last one.
pub fn write_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.reserve(bytes.len() + 20);
    let digits = bytes.len().ilog2() as usize / 4 + 1;
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[bytes.len() >> (4 * digit) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ), but no white space before the first
/// semicolon: `5 ;x` has been read in two ways before.
fn are_extensions(extensions: &[u8]) -> bool {
    let mut rest = extensions;
    while let Some(after) = rest.strip_prefix(b";") {
        let (name, after) = split_token(after.trim_ascii_start());
        if name.is_empty() {
            return false;
        }
        rest = after.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b"=") {
            let Some(after) = skip_extension_value(after.trim_ascii_start()) else { return false };
            rest = after.trim_ascii_start();
        }
    }
    rest.is_empty()
}

/// What follows a token or a quoted string.
fn skip_extension_value(bytes: &[u8]) -> Option<&[u8]> {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let (value, rest) = split_token(bytes);
        return (!value.is_empty()).then_some(rest);
    };
    let mut rest = quoted;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body, and how many bytes were consumed, when `raw` arrives `step` bytes at a time. `None`: not whole.
    fn outcome(raw: &[u8], step: usize, bytes_max: u64) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
        decode_all(ChunkDecoder::new(bytes_max), raw, step, &mut Vec::new())
    }

    fn decode_all(
        mut decoder: ChunkDecoder,
        raw: &[u8],
        step: usize,
        body: &mut Vec<u8>,
    ) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
        let mut consumed = 0;
        for piece in raw.chunks(step) {
            let (here, done) = decoder.decode(piece, body)?;
            consumed += here;
            if done {
                return Ok(Some((std::mem::take(body), consumed)));
            }
            assert_eq!(here, piece.len(), "all is consumed until the end");
        }
        Ok(None)
    }

    #[track_caller]
    fn check(raw: &str, expected: Result<&str, Refusal>) {
        let trailing = format!("{raw}GET /");
        for step in 1..=trailing.len() {
            let whole = expected.map(|body| Some((body.as_bytes().to_vec(), raw.len())));
            assert_eq!(outcome(trailing.as_bytes(), step, 64), whole, "{raw:?}, {step} at a time");
        }
        if expected.is_ok() {
            for end in 0..raw.len() {
                assert_eq!(outcome(&raw.as_bytes()[..end], raw.len(), 64), Ok(None), "{raw:?} ended at {end}");
            }
        }
    }

    #[test]
    fn chunks_are_written_without_leading_zeros_and_none_of_no_bytes() {
        let check = |bytes: usize, size: &str| {
            let (mut out, body) = (Vec::new(), "x".repeat(bytes));
            write_chunk(&mut out, body.as_bytes());
            let expected = if bytes == 0 { String::new() } else { format!("{size}\r\n{body}\r\n") };
            assert_eq!(String::from_utf8(out).expect("text"), expected);
        };
        check(0, "");
        check(1, "1");
        check(15, "f");
        check(16, "10");
        check(255, "ff");
        check(65536, "10000");
    }

    #[test]
    fn chunks_are_joined_and_their_extensions_and_trailers_dropped() {
        check("0\r\n\r\n", Ok(""));
        check("3\r\nabc\r\n000a\r\n0123456789\r\n00\r\n\r\n", Ok("abc0123456789"));
        check("A;x;y=1 ; z = \"q\\\"\t;\"\r\n0123456789\r\n0;last\r\nX-T: 1\r\nX-U:\r\n\r\n", Ok("0123456789"));
        check("2\r\n\r\n\r\n0\r\n\r\n", Ok("\r\n"));
    }

    #[test]
    fn a_size_is_1_to_15_hex_digits_and_nothing_else() {
        for size in ["", "g", "+1", "-1", "0x1", " 1", "1 ", "1 ;a", "1\t", "1_0", "0000000000000001", "1;", "1;=a"] {
            check(&format!("{size}\r\na\r\n0\r\n\r\n"), Err(Refusal::ChunkInvalid));
        }
        check("1;a=\r\na\r\n0\r\n\r\n", Err(Refusal::ChunkInvalid));
        check("1;a=\"b\r\na\r\n0\r\n\r\n", Err(Refusal::ChunkInvalid));
        check("1;a=\"b\"c\r\na\r\n0\r\n\r\n", Err(Refusal::ChunkInvalid));
    }

    #[test]
    fn chunk_lines_end_in_crlf_and_hold_no_control_bytes() {
        check("1\na\r\n0\r\n\r\n", Err(Refusal::BareLineEnd));
        check("1\r\r\na\r\n0\r\n\r\n", Err(Refusal::BareLineEnd));
        check("1;a\rb\r\na\r\n0\r\n\r\n", Err(Refusal::BareLineEnd));
        check("1\0\r\na\r\n0\r\n\r\n", Err(Refusal::ControlByte));
        check("1;a\x0b\r\na\r\n0\r\n\r\n", Err(Refusal::ControlByte));
        check("0\r\n\n", Err(Refusal::BareLineEnd));
        check("0\r\nX: \x01\r\n\r\n", Err(Refusal::ControlByte));
    }

    #[test]
    fn data_is_followed_by_crlf() {
        check("1\r\nab\r\n0\r\n\r\n", Err(Refusal::ChunkInvalid));
        check("1\r\na\n0\r\n\r\n", Err(Refusal::ChunkInvalid));
        check("1\r\na\r0\r\n\r\n", Err(Refusal::ChunkInvalid));
        check("1\r\na0\r\n\r\n", Err(Refusal::ChunkInvalid));
        // Each of the two bytes is looked at for itself.
        check("1\r\nax\n0\r\n\r\n", Err(Refusal::ChunkInvalid));
        check("1\r\na\rx0\r\n\r\n", Err(Refusal::ChunkInvalid));
    }

    #[test]
    fn trailers_are_fields_that_do_not_frame() {
        check("0\r\nContent-Length: 1\r\n\r\n", Err(Refusal::TrailerInvalid));
        check("0\r\ntransfer-encoding: chunked\r\n\r\n", Err(Refusal::TrailerInvalid));
        check("0\r\nHOST: a\r\n\r\n", Err(Refusal::TrailerInvalid));
        check("0\r\nX\r\n\r\n", Err(Refusal::FieldInvalid));
        check("0\r\n X: 1\r\n\r\n", Err(Refusal::FoldedField));
        check("0\r\nX : 1\r\n\r\n", Err(Refusal::SpaceBeforeColon));
    }

    #[test]
    fn every_part_of_a_chunked_body_is_bounded() {
        let check = |raw: String, expected: Refusal| {
            for step in [1, 1000, raw.len()] {
                assert_eq!(outcome(raw.as_bytes(), step, 64), Err(expected), "{step} at a time");
            }
        };
        check("41\r\n".to_owned(), Refusal::BodyTooLarge);
        check(format!("40\r\n{}\r\n1\r\n", "a".repeat(64)), Refusal::BodyTooLarge);
        check("fffffffffffffff\r\n".to_owned(), Refusal::BodyTooLarge);
        check(format!("1;{}", "x".repeat(CHUNK_LINE_BYTES_MAX)), Refusal::ChunkLineTooLong);
        check(format!("1;{}\r\na\r\n", "x".repeat(4000)).repeat(5), Refusal::ChunkLineTooLong);
        check(format!("0\r\n{}", "x".repeat(TRAILER_BYTES_MAX + 1)), Refusal::TrailersTooLarge);
        check(format!("0\r\n{}", "X: 1\r\n".repeat(FIELDS_MAX + 1)), Refusal::TrailersTooLarge);
        check(format!("0\r\n{}", format!("X: {}\r\n", "1".repeat(4000)).repeat(5)), Refusal::TrailersTooLarge);
    }

    /// A reply's chunks, whole, byte by byte and with trailing bytes; `before`: what came of the body before an error.
    #[track_caller]
    fn check_reply(raw: &str, expected: Result<&str, Refusal>, before: &str) {
        let trailing = format!("{raw}HTTP/1.1 200 OK");
        for step in (1..=trailing.len()).step_by(trailing.len() / 100 + 1) {
            let mut body = Vec::new();
            let got = decode_all(ChunkDecoder::of_reply(), trailing.as_bytes(), step, &mut body);
            let whole = expected.map(|body| Some((body.as_bytes().to_vec(), raw.len())));
            assert_eq!(got, whole, "{raw:.100?}, {step} at a time");
            assert_eq!(body, before.as_bytes(), "{raw:.100?}, {step} at a time");
        }
    }

    #[test]
    fn a_reply_may_have_what_nobody_reads_in_two_ways() {
        check_reply("3\r\nabc\r\n0\r\n\r\n", Ok("abc"), "");
        check_reply("3  \t\r\nabc\r\n0 \r\n\r\n", Ok("abc"), "");
        check_reply("3 ; a\r\nabc\r\n0;;=\r\n\r\n", Ok("abc"), "");
        check_reply("00000000000000000000000003\r\nabc\r\n000000000000000000000\r\n\r\n", Ok("abc"), "");
        check_reply("0\r\nContent-Length: 9\r\nno field\r\n\r\n", Ok(""), "");
        let extension = "x".repeat(REPLY_CHUNK_LINE_BYTES_MAX - 2);
        check_reply(&format!("1;{extension}\r\na\r\n0\r\n\r\n"), Ok("a"), "");
        // Of as many chunks as there are.
        let chunks = format!("1;{}\r\na\r\n", "x".repeat(1000)).repeat(100);
        check_reply(&format!("{chunks}0\r\n\r\n"), Ok(&"a".repeat(100)), "");
    }

    #[test]
    fn what_could_be_read_in_two_ways_ends_a_reply_behind_the_chunks_before_it() {
        for size in ["", "+5", "-5", "0x5", " 5", "5 5", "g", "\u{e9}", "5a g", "1000000000000000", "00_5"] {
            check_reply(&format!("1\r\na\r\n{size}\r\nHello\r\n0\r\n\r\n"), Err(Refusal::ChunkInvalid), "a");
        }
        check_reply("1\r\na\r\n5;x\ny\r\nHello\r\n", Err(Refusal::BareLineEnd), "a");
        check_reply("1\r\na\r\n5;x\ry\r\nHello\r\n", Err(Refusal::BareLineEnd), "a");
        check_reply("1\r\na\r\n5\nHello\r\n", Err(Refusal::BareLineEnd), "a");
        check_reply("1\r\na\r\n5;\0\r\nHello\r\n", Err(Refusal::ControlByte), "a");
        check_reply("1\r\nab\r\n", Err(Refusal::ChunkInvalid), "a");
        check_reply("1\r\na\r\n0\r\nX: \n\r\n", Err(Refusal::BareLineEnd), "a");
    }

    #[test]
    fn no_part_of_a_replys_framing_grows_without_end() {
        let zeros = "0".repeat(REPLY_CHUNK_LINE_BYTES_MAX + 1);
        check_reply(&format!("1\r\na\r\n{zeros}"), Err(Refusal::ChunkLineTooLong), "a");
        let blanks = " ".repeat(REPLY_CHUNK_LINE_BYTES_MAX);
        check_reply(&format!("1\r\na\r\n1{blanks}"), Err(Refusal::ChunkLineTooLong), "a");
        check_reply(&format!("1\r\na\r\n1;{zeros}"), Err(Refusal::ChunkLineTooLong), "a");
        let line = "x".repeat(TRAILER_BYTES_MAX + 1);
        check_reply(&format!("1\r\na\r\n0\r\n{line}"), Err(Refusal::TrailersTooLarge), "a");
        let fields = "X: y\r\n".repeat(FIELDS_MAX + 1);
        check_reply(&format!("1\r\na\r\n0\r\n{fields}"), Err(Refusal::TrailersTooLarge), "a");
        check_reply(&format!("1\r\na{zeros}"), Err(Refusal::ChunkInvalid), "a");
    }
}
