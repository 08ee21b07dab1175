//! An incremental JSON walker: finds the few roles that a dialect names, in a document of any size cut anywhere.
//!
//! It keeps a short stack of roles and one short value. It builds no tree, does not recurse, and passes over what
//! nobody asked for without looking at more than quotes and brackets; there, and in numbers, it is more lenient than
//! RFC 8259, and it takes `NaN` and `Infinity`, which Python servers write. Control characters in strings are let
//! through. All else that is not JSON ends the walk as malformed.
//!
//! ```text
//!  Value ─▶ Text | Bare | Skip ⇄ SkipText ─▶ Next ─▶ Value, Key or Done
//!    │                                        ▲
//!    └─▶ FirstKey ─▶ Text (name) ─▶ Colon ─▶ Value …        anything unexpected ─▶ Bad
//! ```

use super::escapes::Unescape;
use memchr::memchr2;

/// Deepest level at which a dialect looks for anything is 8 (`response.output[].content[].text`); below, levels are
/// only counted.
const DEPTH_MAX: usize = 16;
/// Longest name, number or short string kept. Identifiers and messages are shorter; the rest is cut off.
const SHORT_BYTES_MAX: usize = 1024;

/// What a value of a document is to whoever walks it: an enum for each family of documents.
pub trait DocumentRole: Copy + PartialEq {
    /// Nothing below is read.
    const SKIP: Self;
    /// Whether strings here are streamed on piece by piece instead of being kept, cut off, as one short value.
    fn is_words(self) -> bool;
    /// Whether objects and arrays here are handed on as JSON text without white space.
    fn is_raw(self) -> bool;
}

/// Takes what the walker finds.
pub trait JsonSink {
    /// What it looks for.
    type Role: DocumentRole;
    /// The role of the member `name` of the object at `at`.
    fn member(&mut self, at: Self::Role, name: &[u8]) -> Self::Role;
    /// The role of the element `index` of the array at `at`.
    fn element(&mut self, at: Self::Role, index: u32) -> Self::Role;
    /// An object (or array) at `at` begins. Not called for what is skipped or handed on raw.
    fn open(&mut self, at: Self::Role, is_object: bool);
    /// It ends.
    fn close(&mut self, at: Self::Role);
    /// A value which is neither words nor container.
    fn scalar(&mut self, at: Self::Role, value: Scalar<'_>);
    /// A piece of the words at `at`, unescaped; may be cut within a character.
    fn words(&mut self, at: Self::Role, piece: &[u8]);
}

/// A short value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// A string, unescaped, cut off when too long.
    Text(&'a [u8]),
    /// A number as written.
    Number(&'a [u8]),
    /// `true`
    True,
    /// `null`, `false`, `NaN`, `Infinity`: nothing told.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    FirstValue,
    FirstKey,
    Key,
    Colon,
    /// In a string: a member's name or a value.
    Text {
        is_name: bool,
    },
    /// In a number or literal.
    Bare,
    /// In a container that is passed over, and in a string of it.
    Skip,
    SkipText {
        escaped: bool,
    },
    Next,
    Done,
    Bad,
}

#[derive(Clone, Copy, Debug)]
struct Frame<R> {
    role: R,
    is_object: bool,
    index: u32,
}

/// The walker. Reusable: [`Walker::begin`] starts it on the next document.
#[derive(Debug)]
pub struct Walker<R> {
    state: State,
    frames: [Frame<R>; DEPTH_MAX],
    depth: usize,
    /// Open containers of the one that is passed over.
    skipped: u64,
    /// Of the value that is being read.
    role: R,
    unescape: Unescape,
    short: Vec<u8>,
}

impl<R: DocumentRole> Walker<R> {
    /// A walker before a document whose role is `root`.
    pub fn new(root: R) -> Walker<R> {
        Walker {
            state: State::Value,
            frames: [Frame { role: R::SKIP, is_object: false, index: 0 }; DEPTH_MAX],
            depth: 0,
            skipped: 0,
            role: root,
            unescape: Unescape::default(),
            short: Vec::new(),
        }
    }

    /// Starts on a document whose role is `root`.
    pub fn begin(&mut self, root: R) {
        self.state = State::Value;
        self.depth = 0;
        self.role = root;
        self.unescape = Unescape::default();
        self.short.clear();
    }

    /// Whether the document is there whole. A number at the top is whole only after [`Walker::finish`].
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether it is no JSON.
    pub fn is_bad(&self) -> bool {
        self.state == State::Bad
    }

    /// The document is over.
    pub fn finish<S: JsonSink<Role = R>>(&mut self, sink: &mut S) {
        if self.state == State::Bare && self.depth == 0 {
            self.bare_ended(sink);
        }
    }

    /// Reads on, up to what follows the document and is no white space, or shows that it is no JSON; how many bytes
    /// that were.
    pub fn feed<S: JsonSink<Role = R>>(&mut self, input: &[u8], sink: &mut S) -> usize {
        let mut rest = input;
        while let Some(&byte) = rest.first() {
            let used = match self.state {
                State::Value | State::FirstValue => self.value(byte, rest, sink),
                State::Key | State::FirstKey => self.key(byte, rest, sink),
                State::Colon => self.colon(byte),
                State::Text { is_name } => self.text(is_name, rest, sink),
                State::Bare => self.bare(rest, sink),
                State::Skip => self.skip(rest, sink),
                State::SkipText { escaped } => self.skip_text(escaped, rest, sink),
                State::Next => self.next(byte, sink),
                State::Done if is_space(byte) => 1,
                State::Done | State::Bad => return input.len() - rest.len(),
            };
            rest = &rest[used..];
        }
        input.len()
    }

    fn value<S: JsonSink<Role = R>>(&mut self, byte: u8, input: &[u8], sink: &mut S) -> usize {
        if is_space(byte) {
            return 1;
        }
        if byte == b']' && self.state == State::FirstValue {
            return self.close(sink);
        }
        if self.depth > 0 && !self.frames[self.depth - 1].is_object {
            let frame = &mut self.frames[self.depth - 1];
            self.role = if frame.role == R::SKIP { R::SKIP } else { sink.element(frame.role, frame.index) };
            frame.index = frame.index.saturating_add(1);
        }
        match byte {
            b'"' => self.string(input, sink),
            b'{' | b'[' => self.open(byte == b'{', input, sink),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b'N' | b'I' => {
                self.short.clear();
                self.state = State::Bare;
                self.bare(input, sink)
            }
            _ => self.bad(),
        }
    }

    /// A string value begins at `input[0]`. Most are there whole and without an escape.
    fn string<S: JsonSink<Role = R>>(&mut self, input: &[u8], sink: &mut S) -> usize {
        self.short.clear();
        match memchr2(b'"', b'\\', &input[1..]) {
            Some(length) if input[1 + length] == b'"' => {
                let whole = &input[1..1 + length];
                if self.role.is_words() {
                    sink.words(self.role, whole);
                } else if self.role != R::SKIP {
                    sink.scalar(self.role, Scalar::Text(&whole[..length.min(SHORT_BYTES_MAX)]));
                }
                self.value_ended();
                length + 2 + self.comma(input.get(length + 2))
            }
            _ => {
                self.state = State::Text { is_name: false };
                1
            }
        }
    }

    fn open<S: JsonSink<Role = R>>(&mut self, is_object: bool, input: &[u8], sink: &mut S) -> usize {
        if self.role == R::SKIP || self.role.is_raw() || self.depth == DEPTH_MAX {
            self.skipped = 0;
            self.state = State::Skip;
            return self.skip(input, sink);
        }
        self.frames[self.depth] = Frame { role: self.role, is_object, index: 0 };
        self.depth += 1;
        self.state = if is_object { State::FirstKey } else { State::FirstValue };
        sink.open(self.role, is_object);
        1
    }

    fn close<S: JsonSink<Role = R>>(&mut self, sink: &mut S) -> usize {
        self.depth -= 1;
        sink.close(self.frames[self.depth].role);
        self.value_ended();
        1
    }

    fn key<S: JsonSink<Role = R>>(&mut self, byte: u8, input: &[u8], sink: &mut S) -> usize {
        match byte {
            b'"' => {}
            b'}' if self.state == State::FirstKey => return self.close(sink),
            _ => return self.expect_space(byte),
        }
        // Names are short: a plain loop beats a search.
        let end = input[1..].iter().position(|&b| b == b'"' || b == b'\\');
        match end {
            Some(length) if input[1 + length] == b'"' => {
                self.role = sink.member(self.frames[self.depth - 1].role, &input[1..1 + length]);
                // Colon and value nearly always follow at once: two turns less.
                let after = length + 2;
                match input[after..] {
                    [b':', first, ..] => {
                        self.state = State::Value;
                        after + 1 + self.value(first, &input[after + 1..], sink)
                    }
                    _ => {
                        self.state = State::Colon;
                        after
                    }
                }
            }
            _ => {
                self.short.clear();
                self.state = State::Text { is_name: true };
                1
            }
        }
    }

    fn colon(&mut self, byte: u8) -> usize {
        if byte != b':' {
            return self.expect_space(byte);
        }
        self.state = State::Value;
        1
    }

    fn next<S: JsonSink<Role = R>>(&mut self, byte: u8, sink: &mut S) -> usize {
        let is_object = self.frames[self.depth - 1].is_object;
        match byte {
            b',' => {
                self.state = if is_object { State::Key } else { State::Value };
                1
            }
            b'}' if is_object => self.close(sink),
            b']' if !is_object => self.close(sink),
            _ => self.expect_space(byte),
        }
    }

    /// In a string that was cut or has escapes.
    fn text<S: JsonSink<Role = R>>(&mut self, is_name: bool, input: &[u8], sink: &mut S) -> usize {
        let role = self.role;
        let short = &mut self.short;
        let (used, ended) = self.unescape.feed(input, |piece: &[u8]| {
            if !is_name && role.is_words() {
                sink.words(role, piece);
            } else {
                let room = SHORT_BYTES_MAX.saturating_sub(short.len());
                short.extend_from_slice(&piece[..piece.len().min(room)]);
            }
        });
        if !ended {
            return used;
        }
        if is_name {
            self.role = sink.member(self.frames[self.depth - 1].role, &self.short);
            self.state = State::Colon;
        } else {
            if self.role.is_words() {
                // Also words of which there are none were told.
                sink.words(self.role, b"");
            } else if self.role != R::SKIP {
                sink.scalar(self.role, Scalar::Text(&self.short));
            }
            self.value_ended();
        }
        used
    }

    fn bare<S: JsonSink<Role = R>>(&mut self, input: &[u8], sink: &mut S) -> usize {
        // Every other member of a chunk is `null`, and nobody asks for most numbers.
        if self.short.is_empty() && input.starts_with(b"null") && matches!(input.get(4), Some(b',' | b'}' | b']')) {
            if self.role != R::SKIP {
                sink.scalar(self.role, Scalar::Nothing);
            }
            self.value_ended();
            return 4 + self.comma(input.get(4));
        }
        let length = input
            .iter()
            .position(|&b| !(b.is_ascii_alphanumeric() || b == b'-' || b == b'+' || b == b'.'))
            .unwrap_or(input.len());
        let room = SHORT_BYTES_MAX.saturating_sub(self.short.len());
        self.short.extend_from_slice(&input[..length.min(room)]);
        if length < input.len() {
            self.bare_ended(sink);
            return length + self.comma(input.get(length));
        }
        length
    }

    fn bare_ended<S: JsonSink<Role = R>>(&mut self, sink: &mut S) {
        let value = match self.short.as_slice() {
            b"true" => Scalar::True,
            b"false" | b"null" | b"NaN" | b"Infinity" | b"-Infinity" => Scalar::Nothing,
            number if matches!(number.first(), Some(b'-' | b'0'..=b'9')) => Scalar::Number(number),
            _ => {
                self.bad();
                return;
            }
        };
        if self.role != R::SKIP {
            sink.scalar(self.role, value);
        }
        self.value_ended();
    }

    fn skip<S: JsonSink<Role = R>>(&mut self, input: &[u8], sink: &mut S) -> usize {
        let mut used = input.len();
        for (at, &byte) in input.iter().enumerate() {
            match byte {
                b'"' => self.state = State::SkipText { escaped: false },
                b'{' | b'[' => {
                    self.skipped += 1;
                    continue;
                }
                b'}' | b']' => {
                    self.skipped -= 1;
                    if self.skipped > 0 {
                        continue;
                    }
                    self.value_ended();
                }
                _ => continue,
            }
            used = at + 1;
            break;
        }
        if self.role.is_raw() {
            let pieces = input[..used].split(|b| b.is_ascii_whitespace());
            pieces.filter(|piece| !piece.is_empty()).for_each(|piece| sink.words(self.role, piece));
        }
        used
    }

    fn skip_text<S: JsonSink<Role = R>>(&mut self, escaped: bool, input: &[u8], sink: &mut S) -> usize {
        let used = if escaped {
            self.state = State::SkipText { escaped: false };
            1
        } else {
            match memchr2(b'"', b'\\', input) {
                Some(at) => {
                    self.state = if input[at] == b'"' { State::Skip } else { State::SkipText { escaped: true } };
                    at + 1
                }
                None => input.len(),
            }
        };
        if self.role.is_raw() {
            sink.words(self.role, &input[..used]);
        }
        used
    }

    /// A comma that follows a member of an object at once, taken with it: one turn less.
    fn comma(&mut self, next: Option<&u8>) -> usize {
        if next != Some(&b',') || self.state != State::Next || !self.frames[self.depth - 1].is_object {
            return 0;
        }
        self.state = State::Key;
        1
    }

    fn value_ended(&mut self) {
        self.state = if self.depth == 0 { State::Done } else { State::Next };
    }

    fn expect_space(&mut self, byte: u8) -> usize {
        if is_space(byte) { 1 } else { self.bad() }
    }

    fn bad(&mut self) -> usize {
        self.state = State::Bad;
        1
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::super::role::JsonRole;
    use super::*;

    /// Writes down what is found: every name is a role of its own by its first letter.
    #[derive(Default)]
    struct Noted(String);

    impl JsonSink for Noted {
        type Role = JsonRole;

        fn member(&mut self, _: JsonRole, name: &[u8]) -> JsonRole {
            match name {
                b"model" => JsonRole::Model,
                b"usage" => JsonRole::Usage,
                b"output" => JsonRole::Output,
                b"arguments" => JsonRole::Arguments,
                b"choices" => JsonRole::Choices,
                _ => JsonRole::Skip,
            }
        }
        fn element(&mut self, at: JsonRole, _: u32) -> JsonRole {
            at
        }
        fn open(&mut self, at: JsonRole, _: bool) {
            self.0.push_str(&format!("({at:?} "));
        }
        fn close(&mut self, _: JsonRole) {
            self.0.push(')');
        }
        fn scalar(&mut self, at: JsonRole, value: Scalar<'_>) {
            let value = match value {
                Scalar::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
                Scalar::Number(number) => String::from_utf8_lossy(number).into_owned(),
                Scalar::True => "true".to_owned(),
                Scalar::Nothing => "nothing".to_owned(),
            };
            self.0.push_str(&format!("{at:?}={value} "));
        }
        fn words(&mut self, _: JsonRole, piece: &[u8]) {
            self.0.push_str(&String::from_utf8_lossy(piece));
        }
    }

    /// Expects `found`, or `BAD` or `CUT` at its end for what is malformed or not whole.
    fn check(document: &str, expected: &str) {
        for size in [1, 2, 3, 7, 10_000] {
            let (mut walker, mut found) = (Walker::new(JsonRole::Root), Noted::default());
            let mut pieces = document.as_bytes().chunks(size);
            let more = pieces.any(|piece| walker.feed(piece, &mut found) < piece.len());
            walker.finish(&mut found);
            let end = match (walker.is_bad() || more, walker.is_done()) {
                (true, _) => "BAD",
                (false, false) => "CUT",
                (false, true) => "",
            };
            if end != "BAD" || expected != "BAD" {
                assert_eq!(format!("{}{end}", found.0), expected, "{document} in pieces of {size}");
            }
        }
    }

    #[test]
    fn only_named_places_are_found() {
        check(r#"{"model":"m","x":{"model":"no"},"y":[{"model":"no"}]}"#, r#"(Root Model="m" )"#);
        check(
            r#" { "usage" : { "model" : 12 , "x" : null } , "model" : true } "#,
            "(Root (Usage Model=12 )Model=true )",
        );
        check(
            r#"{"choices":[],"choices":[1,"a",null]}"#,
            r#"(Root (Choices )(Choices Choices=1 Choices="a" Choices=nothing ))"#,
        );
        check(r#"{"x":"}\"]","y":"\\","z":[[{"\\":"]"}]],"model":-1.5e3}"#, "(Root Model=-1.5e3 )");
    }

    #[test]
    fn names_and_values_may_be_escaped() {
        check(r#"{"m\u006fdel":"a\n\u00e9"}"#, "(Root Model=\"a\\né\" )");
        check(r#"{"model":"\ud83d\ude00 \ud83d \ude00"}"#, "(Root Model=\"😀 \u{fffd} \u{fffd}\" )");
        check(r#"{"output":"a\"b\u12"}"#, "(Root a\"b\u{fffd})");
    }

    #[test]
    fn raw_json_loses_its_white_space_but_not_that_of_strings() {
        check(r#"{"arguments": { "a b" : [ 1, "\" }" ] } }"#, r#"(Root {"a b":[1,"\" }"]})"#);
        check(r#"{"arguments":"{\"a\":1}"}"#, r#"(Root {"a":1})"#);
    }

    #[test]
    fn what_is_no_json_is_bad_and_what_is_cut_is_not_done() {
        for document in
            ["x", "{]", "{\"model\"}", "{\"model\":}", "[1,]", "{,}", "nul", "{} {}", "}", "{\"a\":1 \"b\"}", "tru "]
        {
            check(document, "BAD");
        }
        check("", "CUT");
        check("{\"model\":\"m", "(Root CUT");
        check("{\"x\":[[{\"model\":1}", "(Root CUT");
        check("12", "Root=12 ");
        check("NaN", "Root=nothing ");
    }

    #[test]
    fn depth_is_bounded_and_nothing_below_is_found() {
        let nested = |levels: usize| format!("{}{}", "{\"usage\":".repeat(levels), "[".repeat(100_000));
        let (mut walker, mut found) = (Walker::new(JsonRole::Root), Noted::default());
        walker.feed(nested(500).as_bytes(), &mut found);
        assert_eq!(found.0.matches('(').count(), DEPTH_MAX);
        assert!(!walker.is_bad() && !walker.is_done());
        walker.feed("]".repeat(100_000).as_bytes(), &mut found);
        walker.feed("}".repeat(500).as_bytes(), &mut found);
        assert!(walker.is_done());
    }
}
