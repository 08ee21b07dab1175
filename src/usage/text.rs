//! Words: JSON escapes undone and done, and the bounded buffer that keeps head and tail of what was said.

use std::borrow::Cow;

use memchr::memchr2;

/// Bytes of a string without escapes.
pub type Piece<'a> = &'a [u8];

/// The replacement character, for escapes that mean no character.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// Reads the inside of a JSON string, cut anywhere, up to its closing quote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unescape {
    escape: Escape,
    /// A high surrogate that waits for its low one.
    high: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    Backslash,
    Hex {
        digits: u8,
        value: u16,
    },
}

impl Unescape {
    /// Takes bytes up to and including the closing quote; says how many, and whether the quote came.
    pub fn feed(&mut self, input: &[u8], mut emit: impl FnMut(Piece<'_>)) -> (usize, bool) {
        let mut at = 0;
        while at < input.len() {
            match self.escape {
                Escape::None => {
                    let rest = &input[at..];
                    let plain = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    if plain > 0 {
                        self.lone_surrogate(&mut emit);
                        emit(&rest[..plain]);
                    }
                    at += plain;
                    match input.get(at) {
                        None => break,
                        Some(b'"') => {
                            self.lone_surrogate(&mut emit);
                            return (at + 1, true);
                        }
                        Some(_) => self.escape = Escape::Backslash,
                    }
                    at += 1;
                }
                Escape::Backslash => {
                    self.after_backslash(input[at], &mut emit);
                    at += 1;
                }
                Escape::Hex { digits, value } => match (input[at] as char).to_digit(16) {
                    Some(digit) => {
                        self.hex_digit(digits + 1, value << 4 | digit as u16, &mut emit);
                        at += 1;
                    }
                    // The byte is no part of the escape: it is read again as what it is.
                    None => {
                        self.escape = Escape::None;
                        self.lone_surrogate(&mut emit);
                        emit(REPLACEMENT);
                    }
                },
            }
        }
        (at, false)
    }

    fn after_backslash(&mut self, byte: u8, emit: &mut impl FnMut(Piece<'_>)) {
        self.escape = Escape::None;
        let plain: &[u8] = match byte {
            b'u' => {
                self.escape = Escape::Hex { digits: 0, value: 0 };
                return;
            }
            b'"' => b"\"",
            b'\\' => b"\\",
            b'/' => b"/",
            b'b' => b"\x08",
            b'f' => b"\x0c",
            b'n' => b"\n",
            b'r' => b"\r",
            b't' => b"\t",
            _ => REPLACEMENT,
        };
        self.lone_surrogate(emit);
        emit(plain);
    }

    fn hex_digit(&mut self, digits: u8, value: u16, emit: &mut impl FnMut(Piece<'_>)) {
        if digits < 4 {
            self.escape = Escape::Hex { digits, value };
            return;
        }
        self.escape = Escape::None;
        if let (Some(high), 0xDC00..=0xDFFF) = (self.high, value) {
            self.high = None;
            let pair = 0x10000 + (u32::from(high - 0xD800) << 10) + u32::from(value - 0xDC00);
            return emit_char(pair, emit);
        }
        self.lone_surrogate(emit);
        match value {
            0xD800..=0xDBFF => self.high = Some(value),
            _ => emit_char(u32::from(value), emit),
        }
    }

    /// A high surrogate that nothing followed.
    fn lone_surrogate(&mut self, emit: &mut impl FnMut(Piece<'_>)) {
        if self.high.take().is_some() {
            emit(REPLACEMENT);
        }
    }
}

fn emit_char(scalar: u32, emit: &mut impl FnMut(Piece<'_>)) {
    let character = char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER);
    emit(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Appends `text` as the inside of a JSON string.
pub fn escape(text: &[u8], mut push: impl FnMut(&[u8])) {
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        push(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => push(b"\\\""),
            b'\\' => push(b"\\\\"),
            b'\n' => push(b"\\n"),
            b'\r' => push(b"\\r"),
            b'\t' => push(b"\\t"),
            _ => push(format!("\\u{byte:04x}").as_bytes()),
        }
    }
    push(&text[plain..]);
}

/// What the mark between head and tail takes at most, for any 64-bit number in it.
const MARK_BYTES_MAX: usize = 48;

/// Words kept up to a bound: all of them, or head and tail with a mark between.
#[derive(Clone, Debug)]
pub struct Kept {
    max: usize,
    head: Vec<u8>,
    /// What follows the head: at most twice what is wanted of it, so that moving it is rare.
    tail: Vec<u8>,
    total: u64,
}

impl Kept {
    /// An empty one that keeps `max` bytes; 0 keeps nothing but that there was something.
    pub fn new(max: usize) -> Kept {
        Kept { max, head: Vec::new(), tail: Vec::new(), total: 0 }
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Memory that they take, nearly.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// Forgets everything but the bound.
    pub fn clear(&mut self) {
        self.head.clear();
        self.tail.clear();
        self.total = 0;
    }

    /// Appends.
    pub fn push(&mut self, piece: &[u8]) {
        self.total += piece.len() as u64;
        if self.max == 0 {
            return;
        }
        let room = self.half() - self.head.len();
        let (head, tail) = piece.split_at(piece.len().min(room));
        self.head.extend_from_slice(head);
        let wanted = self.max - self.half();
        let tail = &tail[tail.len().saturating_sub(wanted)..];
        if self.tail.len() + tail.len() > 2 * wanted {
            let kept = wanted - tail.len();
            self.tail.drain(..self.tail.len() - kept);
        }
        self.tail.extend_from_slice(tail);
    }

    /// Appends what another one with the same bound keeps.
    pub fn append(&mut self, other: &Kept) {
        let (head, lost, tail) = other.pieces();
        self.push(head);
        self.lose(lost);
        self.push(tail);
    }

    /// Counts bytes that another one with the same bound already left out. More than the bound was said, then, so that
    /// the head is full and the tail begins anew.
    pub fn lose(&mut self, bytes: u64) {
        if bytes > 0 {
            self.total += bytes;
            self.tail.clear();
        }
    }

    /// What is kept, in its order, and how many bytes are left out between.
    pub fn pieces(&self) -> (&[u8], u64, &[u8]) {
        // Cut to what is wanted, so that what follows does not depend on when the tail was moved last.
        let tail = &self.tail[self.tail.len().saturating_sub(self.max - self.half())..];
        (&self.head, self.total - (self.head.len() + tail.len()) as u64, tail)
    }

    /// The words as text, `None` where there are none. What is no UTF-8 is replaced.
    pub fn text(&self) -> Option<String> {
        if self.is_empty() || self.max == 0 {
            return None;
        }
        if self.total <= self.max as u64 {
            return Some(lossy(&[self.head.as_slice(), &self.tail].concat()).into_owned());
        }
        let head = without_partial_character(&self.head);
        let tail = without_partial_start(&self.tail[self.tail.len().saturating_sub(self.half())..]);
        let left_out = self.total - (head.len() + tail.len()) as u64;
        Some(format!("{}…[{left_out} bytes left out]…{}", lossy(head), lossy(tail)))
    }

    fn half(&self) -> usize {
        self.max.saturating_sub(MARK_BYTES_MAX) / 2
    }
}

/// [`String::from_utf8_lossy`], but faster where nothing is replaced: that one looks at every byte on its own.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// Without the bytes of a last character that lacks some. What is no UTF-8 at all stays: it is replaced later.
pub fn without_partial_character(bytes: &[u8]) -> &[u8] {
    let Some(lead) = bytes.iter().rposition(|b| !is_continuation(*b)) else { return bytes };
    let length = match bytes[lead] {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF7 => 4,
        _ => 1,
    };
    if bytes.len() - lead < length { &bytes[..lead] } else { bytes }
}

/// Without the last bytes of a character whose first ones were cut off.
pub fn without_partial_start(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take(3).take_while(|b| is_continuation(**b)).count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(max: usize, pieces: &[&str]) -> Option<String> {
        let mut kept = Kept::new(max);
        pieces.iter().for_each(|piece| kept.push(piece.as_bytes()));
        kept.text()
    }

    #[test]
    fn words_up_to_the_bound_are_kept_whole() {
        assert_eq!(kept(100, &[]), None);
        assert_eq!(kept(0, &["a"]), None);
        for size in [1, 26, 27, 73, 74, 99, 100] {
            let words: String = ('a'..='z').cycle().take(size).collect();
            assert_eq!(kept(100, &[&words]).as_deref(), Some(words.as_str()));
            let (first, second) = words.split_at(size / 3);
            assert_eq!(kept(100, &[first, second]).as_deref(), Some(words.as_str()));
        }
    }

    #[test]
    fn longer_words_keep_head_and_tail_and_never_exceed_the_bound() {
        let words: String = "aé€😀".chars().cycle().take(4_000).collect();
        for max in (60..200).step_by(3) {
            for size in [3, 100, 20_000] {
                let mut kept = Kept::new(max);
                words.as_bytes().chunks(size).for_each(|piece| kept.push(piece));
                let text = kept.text().unwrap();
                assert!(text.len() <= max, "{} bytes of {max}", text.len());
                let (head, rest) = text.split_once("…[").unwrap();
                let (left_out, tail) = rest.split_once(" bytes left out]…").unwrap();
                assert!(words.starts_with(head) && words.ends_with(tail), "{text}");
                assert_eq!(head.len() + tail.len() + left_out.parse::<usize>().unwrap(), words.len());
            }
        }
    }

    #[test]
    fn appending_what_was_cut_is_the_same_as_appending_all() {
        let words: String = ('a'..='z').cycle().take(1_000).collect();
        for first in [0, 10, 99, 100, 101, 500] {
            for second in [0, 10, 99, 100, 101, 500] {
                let (mut whole, mut joined, mut part) = (Kept::new(100), Kept::new(100), Kept::new(100));
                whole.push(&words.as_bytes()[..first]);
                whole.push(&words.as_bytes()[first..first + second]);
                joined.push(&words.as_bytes()[..first]);
                part.push(&words.as_bytes()[first..first + second]);
                joined.append(&part);
                assert_eq!(joined.text(), whole.text(), "{first} + {second}");
            }
        }
    }

    #[test]
    fn escaped_text_is_the_inside_of_a_json_string() {
        let mut out = Vec::new();
        escape("a\"\\\n\r\t\u{1}é".as_bytes(), |piece| out.extend_from_slice(piece));
        assert_eq!(out, br#"a\"\\\n\r\t\u0001"#.iter().copied().chain("é".bytes()).collect::<Vec<u8>>());
    }
}
