//! Where a JSON value ends.
//!
//! Builds nothing: it passes over a value that is well-formed (RFC 8259) and says how long it is. The characters of
//! strings are not judged, so that what is no UTF-8 may stand in them, nor is the depth of nesting, which costs a bit a
//! level and no stack.

/// Behind the value that begins at `at`; `None` where there is no whole one. A number is whole where the text ends.
pub fn value_end(text: &[u8], at: usize) -> Option<usize> {
    let mut nest = Nest::default();
    let mut at = at;
    loop {
        at = match *text.get(at)? {
            b'"' => string_end(text, at)?,
            b'{' => match skip_space(text, at + 1) {
                empty if text.get(empty) == Some(&b'}') => empty + 1,
                key => {
                    nest.open(true);
                    at = behind_key(text, key)?;
                    continue;
                }
            },
            b'[' => match skip_space(text, at + 1) {
                empty if text.get(empty) == Some(&b']') => empty + 1,
                first => {
                    nest.open(false);
                    at = first;
                    continue;
                }
            },
            _ => bare_end(text, at)?,
        };
        loop {
            let Some(is_object) = nest.is_in_object() else { return Some(at) };
            at = skip_space(text, at);
            match (*text.get(at)?, is_object) {
                (b',', true) => {
                    at = behind_key(text, skip_space(text, at + 1))?;
                    break;
                }
                (b',', false) => {
                    at = skip_space(text, at + 1);
                    break;
                }
                (b'}', true) | (b']', false) => nest.close(),
                _ => return None,
            }
            at += 1;
        }
    }
}

/// Where what is no white space begins.
pub fn skip_space(text: &[u8], at: usize) -> usize {
    at + text[at..].iter().take_while(|byte| is_space(**byte)).count()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The value of the member whose key begins here.
fn behind_key(text: &[u8], key: usize) -> Option<usize> {
    if text.get(key) != Some(&b'"') {
        return None;
    }
    let colon = skip_space(text, string_end(text, key)?);
    (text.get(colon) == Some(&b':')).then(|| skip_space(text, colon + 1))
}

/// Behind the string whose quote is at `at`; `None` where it is no whole one.
pub fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at = plain_end(text, at);
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match text.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' if text.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => at += 6,
                _ => return None,
            },
            _ => return None,
        }
    }
}

/// Where a quote, a backslash or a control character stands first, or the text ends.
fn plain_end(text: &[u8], at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let mut at = at;
    // Eight bytes at once: of those that are below a bound the lowest is told for certain, others above it may be, too.
    while let Some(word) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*word);
        let (quote, escape) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
        let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
        let found = (below(word, 0x20) | below(quote, 1) | below(escape, 1)) & TOPS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    at + text[at..].iter().take_while(|byte| !special(byte)).count()
}

/// Behind a number or a literal, which something else than more of it must follow.
fn bare_end(text: &[u8], at: usize) -> Option<usize> {
    let rest = &text[at..];
    let literal = ["true", "false", "null"].iter().find(|word| rest.starts_with(word.as_bytes()));
    let end = at + literal.map_or_else(|| number_length(rest), |word| Some(word.len()))?;
    let is_over = |byte: &u8| is_space(*byte) || matches!(byte, b',' | b']' | b'}' | b'"' | b'[' | b'{' | b':');
    text.get(end).is_none_or(is_over).then_some(end)
}

fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |at: usize| text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let some_digits = |at: usize| Some(digits(at)).filter(|count| *count > 0);
    let mut at = usize::from(text.first() == Some(&b'-'));
    at += match text.get(at)? {
        b'0' => 1,
        _ => some_digits(at)?,
    };
    if text.get(at) == Some(&b'.') {
        at += 1 + some_digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        at += some_digits(at)?;
    }
    Some(at)
}

/// What is open: objects and arrays, a bit each.
#[derive(Default)]
struct Nest {
    /// The innermost ones, the last opened lowest.
    bits: u64,
    depth: usize,
    /// Those around them, 64 in each.
    outer: Vec<u64>,
}

impl Nest {
    fn open(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | u64::from(is_object);
        self.depth += 1;
    }

    fn close(&mut self) {
        self.bits >>= 1;
        self.depth -= 1;
        if self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or(0);
        }
    }

    /// `None`: nothing is open.
    fn is_in_object(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.bits & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;
    use serde_json::Deserializer;

    use super::*;
    use crate::testing::Random;

    /// By serde_json, which reads the same grammar.
    fn expected(text: &[u8]) -> Option<usize> {
        let mut values = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        Some(values.byte_offset())
    }

    #[track_caller]
    fn check(text: &[u8]) {
        assert_eq!(value_end(text, 0), expected(text), "{}", text.escape_ascii());
    }

    #[test]
    fn values_end_where_serde_json_says() {
        for text in [
            "1",
            "-0.5e+10,",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1x",
            "1:",
            "0",
            "-01",
            "1 ",
            "nul",
            "null",
            "nullx",
            "true]",
            "falsely",
            "tru",
            "\"\"",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u123\"",
            "\"\\",
            "\"\\\"",
            "\"\n\"",
            "\"a\\\"b\\\\\"c",
            "\"\\ud800\"",
            "{}",
            "{ }",
            "[]",
            "[ ]",
            "{\"a\":1,}",
            "[1,]",
            "[,]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\" : [ 1 , {} ] } x",
            "{\"a\":1 \"b\":2}",
            "[1 2]",
            "[1}",
            "{\"a\":1]",
            "{1:2}",
            "{\"a\"1}",
            "",
            "x",
            "]",
            "[[[",
            "[[],[{}]]",
            "{\"a\":{\"b\":{}}}",
            "[\"a\",\"\\n\",null]",
        ] {
            check(text.as_bytes());
        }
        check(b"\"\xff\xfe\x80\"");
        check(b"[\xff]");
    }

    #[test]
    fn random_texts_end_where_serde_json_says() {
        let words: [&[u8]; 26] = [
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b"\"",
            b"\\",
            b"\"a\"",
            b"\"key\":",
            b"1",
            b"0",
            b"-",
            b".5",
            b"e+1",
            b"true",
            b"null",
            b" ",
            b"\n",
            b"\x1f",
            b"\\u00e9",
            b"\\n",
            "\u{e9}".as_bytes(),
            b"\xff",
            b"12345678",
            b"\"abcdefgh\\\"i\"",
        ];
        let mut random = Random::new(3);
        for _ in 0..200_000 {
            let text: Vec<u8> = (0..random.below(12)).flat_map(|_| words[random.index(26)]).copied().collect();
            if !text.first().is_some_and(|byte| is_space(*byte)) {
                check(&text);
            }
        }
    }

    #[test]
    fn a_special_character_is_found_wherever_it_stands() {
        for special in [b'"', b'\\', 0, 0x1f] {
            for length in 0..40 {
                for around in [b'a', b' ', 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                    let mut text = vec![around; 48];
                    assert_eq!(plain_end(&text, 3), 48);
                    text[length] = special;
                    assert_eq!((plain_end(&text, 0), plain_end(&text[..length], 0)), (length, length));
                }
            }
        }
    }

    #[test]
    fn nests_of_any_depth_are_closed_as_they_were_opened() {
        for depth in [1, 63, 64, 65, 128, 129, 1000] {
            let open = |n: usize| if n.is_multiple_of(3) { "{\"a\":" } else { "[" };
            let close = |n: usize| if n.is_multiple_of(3) { "}" } else { "]" };
            let whole = (0..depth).map(open).chain(["1"]).chain((0..depth).rev().map(close)).collect::<String>();
            assert_eq!(value_end(whole.as_bytes(), 0), Some(whole.len()), "{depth}");
            assert_eq!(value_end(&whole.as_bytes()[..whole.len() - 1], 0), None, "{depth}");
            let other = (0..depth).map(open).chain(["1"]).chain((0..depth).map(close)).collect::<String>();
            assert_eq!(value_end(other.as_bytes(), 0), expected(other.as_bytes()), "{depth}");
        }
    }
}
