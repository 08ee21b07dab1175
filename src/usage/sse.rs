//! The lines of an event stream (WHATWG HTML §9.2.6), read incrementally and without buffering a line.
//!
//! It knows lines, field names and blank lines, and hands the bytes of values on as they come. It does not put events
//! together, decode anything or decide what leaves for the client.
//!
//! Of the lines that the standard passes over it reads one kind, which some servers send all the same: JSON without
//! `data:` before it, and its further lines where it has several.
//!
//! ```text
//! Start ─▶ Name ─▶ Space ─▶ Value ──┐
//!  ▲  ├──────────────────▶ (bare) ──┤
//!  │  └──▶ Unread (comment, id, junk) ┤
//!  └── AfterCr (swallows one LF) ◀──┘ CR, LF or CRLF
//! ```

use memchr::memchr2;

/// A field whose value is read. `Error` is no field of the standard: llama.cpp before August 2025 wrote `error: {…}`
/// lines (ggml-org/llama.cpp PR 16109).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SseField {
    /// `data`
    Data,
    /// `event`
    Event,
    /// `error`
    Error,
    /// None: a line that is JSON.
    Bare,
}

/// A line, or part of one, of which nothing is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadLine {
    /// It starts with a colon.
    Comment,
    /// `id` or `retry`: belongs to an event, says nothing about usage.
    Known,
    /// A field that the standard does not know.
    Junk,
}

/// What the bytes that a step took were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Bytes of a field name, its colon, the space after it, or of a line that is not read.
    Quiet,
    /// Bytes of a value.
    Value(SseField, &'a [u8]),
    /// The CR or LF that ends a line which is not blank; the field, where it was one that is read.
    LineEnd(Option<SseField>),
    /// The CR or LF of a blank line: the event is over.
    Blank,
    /// The LF of a CRLF whose CR already ended the line.
    LineFeed,
}

/// Where in a line the lexer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// At the start of a line.
    #[default]
    Start,
    /// At the start of a line, and a LF would still belong to the line before.
    AfterCr,
    /// In a field name.
    Name,
    /// After the colon, where one space is not part of the value.
    Space(SseField),
    /// In a value that is read.
    Value(SseField),
    /// In a line that is not read.
    Unread(UnreadLine),
}

const NAMES: [&[u8]; 5] = [b"data", b"event", b"error", b"id", b"retry"];
const NAME_BYTES_MAX: usize = 5;

/// The lexer, at first at the beginning of a stream, behind its byte order mark if it has one. Its memory is a field
/// name.
#[derive(Debug, Default)]
pub struct Lexer {
    state: State,
    name: [u8; NAME_BYTES_MAX],
    name_len: usize,
    /// A document goes on over the end of its line.
    goes_on: bool,
}

impl Lexer {
    /// What follows is read as if a line began here.
    pub fn start_line(&mut self) {
        self.state = State::Start;
    }

    /// The rest of this line is not read.
    pub fn skip_line(&mut self) {
        self.state = State::Unread(UnreadLine::Junk);
    }

    /// A line has ended, but not the document in it: what cannot be the line of a field is more of it.
    pub fn expect_more(&mut self, goes_on: bool) {
        self.goes_on = goes_on;
    }

    /// Where in a line it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether `byte`, the next one, is the first of a line.
    pub fn starts_line(&self, byte: u8) -> bool {
        match self.state {
            State::Start => true,
            State::AfterCr => byte != b'\n',
            State::Name | State::Space(_) | State::Value(_) | State::Unread(_) => false,
        }
    }

    /// Whether the line so far may become a `data` line with a value.
    pub fn may_be_data(&self) -> bool {
        match self.state {
            State::Name => b"data".starts_with(&self.name[..self.name_len]),
            State::Start
            | State::AfterCr
            | State::Space(SseField::Data)
            | State::Value(SseField::Data | SseField::Bare) => true,
            State::Space(_) | State::Value(_) | State::Unread(_) => false,
        }
    }

    /// Takes at least one byte of `input`, which must not be empty, and says how many and what they were.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> (usize, Step<'a>) {
        match self.state {
            State::Start => self.start(input),
            State::AfterCr if input[0] == b'\n' => {
                self.state = State::Start;
                (1, Step::LineFeed)
            }
            State::AfterCr => self.start(input),
            State::Name => self.name(input),
            State::Space(field) => {
                self.state = State::Value(field);
                if input[0] == b' ' { (1, Step::Quiet) } else { self.rest(Some(field), input) }
            }
            State::Value(field) => self.rest(Some(field), input),
            State::Unread(_) => self.rest(None, input),
        }
    }

    fn start<'a>(&mut self, input: &'a [u8]) -> (usize, Step<'a>) {
        // Nearly every line of a stream begins so, and is there whole.
        if input.starts_with(b"data: ") {
            self.state = State::Value(SseField::Data);
            return (6, Step::Quiet);
        }
        match input[0] {
            end @ (b'\r' | b'\n') => {
                self.line_ended(end);
                (1, Step::Blank)
            }
            b':' => {
                self.state = State::Unread(UnreadLine::Comment);
                (1, Step::Quiet)
            }
            b'{' | b'[' => self.bare(input),
            b' ' | b'\t' | b'"' | b'}' | b']' | b',' if self.goes_on => self.bare(input),
            _ => {
                self.state = State::Name;
                self.name_len = 0;
                self.name(input)
            }
        }
    }

    fn bare<'a>(&mut self, input: &'a [u8]) -> (usize, Step<'a>) {
        self.state = State::Value(SseField::Bare);
        self.rest(Some(SseField::Bare), input)
    }

    fn name<'a>(&mut self, input: &'a [u8]) -> (usize, Step<'a>) {
        for (at, &byte) in input.iter().enumerate() {
            let name = &self.name[..self.name_len];
            match byte {
                b':' => {
                    self.state = behind_name(name);
                    return (at + 1, Step::Quiet);
                }
                // A name without a colon has an empty value. The end of the line is a step of its own.
                b'\r' | b'\n' if at > 0 => return (at, Step::Quiet),
                b'\r' | b'\n' => {
                    let named = behind_name(name);
                    self.line_ended(byte);
                    return (1, Step::LineEnd(if let State::Space(field) = named { Some(field) } else { None }));
                }
                _ => {
                    let is_known = |name: &[u8]| NAMES.iter().any(|known| known.starts_with(name));
                    if self.name_len < NAME_BYTES_MAX {
                        self.name[self.name_len] = byte;
                        self.name_len += 1;
                        if is_known(&self.name[..self.name_len]) {
                            continue;
                        }
                    }
                    self.state = State::Unread(UnreadLine::Junk);
                    return (at + 1, Step::Quiet);
                }
            }
        }
        (input.len(), Step::Quiet)
    }

    /// In a line of whose name all is known.
    fn rest<'a>(&mut self, field: Option<SseField>, input: &'a [u8]) -> (usize, Step<'a>) {
        let length = memchr2(b'\n', b'\r', input).unwrap_or(input.len());
        if length == 0 {
            self.line_ended(input[0]);
            return (1, Step::LineEnd(field));
        }
        (length, field.map_or(Step::Quiet, |field| Step::Value(field, &input[..length])))
    }

    fn line_ended(&mut self, byte: u8) {
        self.state = if byte == b'\r' { State::AfterCr } else { State::Start };
    }
}

/// Where in a line the colon behind this name leads to.
fn behind_name(name: &[u8]) -> State {
    match name {
        b"data" => State::Space(SseField::Data),
        b"event" => State::Space(SseField::Event),
        b"error" => State::Space(SseField::Error),
        b"id" | b"retry" => State::Unread(UnreadLine::Known),
        _ => State::Unread(UnreadLine::Junk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lexes `input` in pieces of `size` and writes down what came: `D(…)` values, `|` line ends, `/` blank lines.
    fn lex(input: &[u8], size: usize) -> String {
        let mut lexer = Lexer::default();
        let mut out = String::new();
        for piece in input.chunks(size) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (used, step) = lexer.step(rest);
                rest = &rest[used..];
                match step {
                    Step::Quiet | Step::LineFeed => {}
                    Step::Value(field, bytes) => {
                        let mark = match field {
                            SseField::Data => 'D',
                            SseField::Event => 'E',
                            SseField::Error => 'X',
                            SseField::Bare => 'B',
                        };
                        // Values come in as many pieces as the reads had; here they count as one.
                        if !out.ends_with(')') || out.ends_with("|)") {
                            out.push(mark);
                            out.push('(');
                        } else {
                            out.pop();
                        }
                        out.push_str(std::str::from_utf8(bytes).unwrap());
                        out.push(')');
                    }
                    Step::LineEnd(_) => out.push('|'),
                    Step::Blank => out.push('/'),
                }
            }
        }
        out
    }

    fn check(input: &str, expected: &str) {
        for size in [1, 2, 3, 5, 1000] {
            assert_eq!(lex(input.as_bytes(), size), expected, "{input:?} in pieces of {size}");
        }
    }

    #[test]
    fn lines_end_in_lf_cr_or_crlf() {
        check("data: a\ndata: b\n\n", "D(a)|D(b)|/");
        check("data: a\r\ndata: b\r\n\r\n", "D(a)|D(b)|/");
        check("data: a\rdata: b\r\r", "D(a)|D(b)|/");
        check("data: a\r\n\rdata: b\n\n", "D(a)|/D(b)|/");
    }

    #[test]
    fn one_space_after_the_colon_is_not_value() {
        check("data:a\n\n", "D(a)|/");
        check("data:  a\n\n", "D( a)|/");
        check("data:\n\n", "|/");
        check("data\n\n", "|/");
    }

    #[test]
    fn comments_and_unknown_fields_are_not_read() {
        check(": ping\n\n", "|/");
        check("id: 1\nretry: 5\nevent: e\nfoo: bar\ndatum: 1\ndata: x\n\n", "||E(e)|||D(x)|/");
        check(" data: x\n", "|");
        check("error: {}\n", "X({})|");
    }

    #[test]
    fn lines_that_are_json_are_read() {
        check("{}\n[]\r\n\n", "B({})|B([])|/");
        check("\u{feff}data: a\n {}\n", "||");
    }
}
