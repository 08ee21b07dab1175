//! JSON escapes undone, wherever the string is cut, and done.

use memchr::memchr2;

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
    pub fn feed(&mut self, input: &[u8], mut emit: impl FnMut(&[u8])) -> (usize, bool) {
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

    fn after_backslash(&mut self, byte: u8, emit: &mut impl FnMut(&[u8])) {
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

    fn hex_digit(&mut self, digits: u8, value: u16, emit: &mut impl FnMut(&[u8])) {
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
    fn lone_surrogate(&mut self, emit: &mut impl FnMut(&[u8])) {
        if self.high.take().is_some() {
            emit(REPLACEMENT);
        }
    }
}

fn emit_char(scalar: u32, emit: &mut impl FnMut(&[u8])) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_is_the_inside_of_a_json_string() {
        let mut out = Vec::new();
        escape("a\"\\\n\r\t\u{1}é".as_bytes(), |piece| out.extend_from_slice(piece));
        assert_eq!(out, br#"a\"\\\n\r\t\u0001"#.iter().copied().chain("é".bytes()).collect::<Vec<u8>>());
    }
}
