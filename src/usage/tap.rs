//! Reads a copy of the reply's bytes while they pass, and says which may leave for the client.
//!
//! It does not know framing, sockets or time: the worker feeds it body bytes as they come. Whatever it understands or
//! not, the bytes that leave are those that came, in order, but for the usage events that injection brought.
//!
//! What a reply is, its bytes tell, for servers label streams as JSON or text, or not at all, and JSON as a stream:
//!
//! ```text
//! Unknown ─▶ Document (JSON) ─ more behind it ─▶ Events (lines: SSE, JSON in lines)
//!    ├──────────────────────────────────────────────▲
//!    └─▶ Text (nothing is read)
//! ```
//!
//! An event counts when the line is over on which its document ends, and it is over itself at its blank line, at the
//! next event where there is none, or at the end of the stream. A terminal one counts when its document ends, so that
//! the row can be written before the client sees it.

use super::account::{Account, Report};
use super::dialect::{Dialect, Table};
use super::facts::{Facts, Spoken, Words};
use super::gate::Gate;
use super::json::Walker;
use super::members::BOM;
use super::place::Place;
use super::plain;
use super::sse::{Field, Lexer, Rest, State, Step};
use super::twin::Twin;
use crate::limits::HOLD_BYTES_MAX;

/// What a body is labelled as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `text/event-stream`, or lines of JSON.
    Events,
    /// Something else, or nothing.
    Body,
    /// Encoded, or of no interest: nothing is read, everything passes.
    Opaque,
}

/// Whether the stream's terminal event is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Not, or not any more.
    Open,
    /// It is, with all that follows, until [`Tap::release`].
    Terminal,
}

/// What a body turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Nothing came but white space and so many bytes of a byte order mark.
    Unknown { mark: usize },
    /// In a JSON document that came without a field before it.
    Document,
    /// Lines.
    Events,
    /// Nothing that can be read.
    Text,
}

/// The end of an OpenAI stream. Clients test for the beginning only (openai-python `_streaming.py`).
const DONE: &[u8] = b"[DONE]";
/// Longest name of an event kept; the longest known has 38 bytes.
const NAME_BYTES_MAX: usize = 64;
/// What is kept of the text of an error event that is no JSON.
const ERROR_BYTES_MAX: usize = 512;

/// Reads one reply.
#[derive(Debug)]
pub struct Tap {
    form: Form,
    shape: Shape,
    table: &'static Table,
    walker: Walker,
    facts: Facts,
    account: Account,
    lexer: Lexer,
    gate: Gate,
    event: Event,
    twin: Twin,
    /// Usage events are to be removed.
    strip: bool,
    /// The LF of a removed event's CRLF is still to come.
    strip_line_feed: bool,
    /// One that was removed told counts in `timings`.
    told_beside: bool,
    terminal: bool,
    /// It begins with a document without a field before it.
    is_document: bool,
    /// A field of an event came.
    has_field: bool,
    /// Documents that were read in lines.
    documents: u64,
    /// The beginning of the body, where the request failed.
    words: Option<Vec<u8>>,
    /// Of the latest feed.
    now_us: u64,
}

/// What is known of the event that is being read.
#[derive(Debug, Default)]
struct Event {
    name: Vec<u8>,
    /// A name that came behind its data: the next event's, where there is no blank line between.
    late_name: Vec<u8>,
    /// Of its lines so far, as they came.
    bytes: usize,
    /// How many of these are before the line with which the next event may begin.
    fork: Option<usize>,
    /// Where in this feed it began.
    from: Option<usize>,
    /// Where in this feed the current line began.
    line_at: Option<usize>,
    /// Whether the doubted bytes are those of the current line alone.
    doubt_is_fresh: bool,
    /// It was found not to be a usage event.
    is_trusted: bool,
    has_data: bool,
    /// A further data line is joined with a line feed.
    joins: bool,
    /// How much of `[DONE]` its data begins with; `None` once it differs.
    done: Option<usize>,
    /// Its document is over, and read: what follows is no part of it.
    is_merged: bool,
    /// Data of an error event, in case that it is no JSON.
    text: Vec<u8>,
}

impl Tap {
    /// `strip`: the proxy asked for usage events, not the client. `content_bytes_max`: bytes kept of each kind of
    /// words, 0 for none.
    pub fn new(dialect: Dialect, form: Form, strip: bool, content_bytes_max: usize) -> Tap {
        let table = dialect.table();
        let mut walker = Walker::new();
        walker.begin(table.body);
        Tap {
            form,
            shape: Shape::Unknown { mark: 0 },
            table,
            walker,
            facts: Facts::new(table, content_bytes_max),
            account: Account::new(table, content_bytes_max),
            lexer: Lexer::new(),
            gate: Gate::default(),
            event: Event { done: Some(0), ..Event::default() },
            twin: Twin::default(),
            strip,
            strip_line_feed: false,
            told_beside: false,
            terminal: false,
            is_document: false,
            has_field: false,
            documents: 0,
            words: None,
            now_us: 0,
        }
    }

    /// The request failed: whatever the body says is an error.
    pub fn of_a_failure(mut self) -> Tap {
        self.words = Some(Vec::new());
        self
    }

    /// Reads body bytes as they came and appends to `out` what may leave now. `now_us`: microseconds since the
    /// exchange began, on a monotonic clock.
    pub fn feed(&mut self, input: &[u8], now_us: u64, out: &mut Vec<u8>) -> Flow {
        self.now_us = now_us;
        if self.form == Form::Opaque {
            out.extend_from_slice(input);
            return Flow::Open;
        }
        if let Some(words) = &mut self.words {
            append_up_to(words, input, plain::BODY_BYTES_MAX);
        }
        let mut at = 0;
        if let Shape::Unknown { mark } = self.shape {
            at = self.begin(mark, input);
        }
        if self.shape == Shape::Document {
            at += self.document(&input[at..], now_us);
        }
        match self.shape {
            Shape::Events => self.feed_events(input, at, now_us, out),
            Shape::Unknown { .. } | Shape::Document | Shape::Text => out.extend_from_slice(input),
        }
        if self.gate.is_closed() { Flow::Terminal } else { Flow::Open }
    }

    /// Lets go what is held: the terminal line and what followed, or a partial line. After a terminal event later bytes
    /// pass at once, and are still read; only what may be a usage event still waits.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.gate.release(out);
    }

    /// The body is over, cleanly or not. All that is held leaves.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        match self.shape {
            Shape::Unknown { .. } | Shape::Text => {}
            Shape::Document => {
                self.walker.finish(&mut self.facts);
                // A body cut short still told its model; one that is no JSON told nothing.
                if !self.walker.is_bad() {
                    self.settle(self.now_us);
                }
            }
            // The standard drops an event without its blank line. Its counts are true all the same.
            Shape::Events => {
                self.close_if_terminal(0, self.now_us);
                self.merge_event(self.now_us);
                if self.gate.doubts_event() && self.is_usage_event() {
                    self.gate.join(out);
                    self.remove(|gate| gate.remove_event(&[], 0));
                }
            }
        }
        if let Some(words) =
            self.words.take().filter(|_| !self.account.has_error()).and_then(|body| plain::words(&body))
        {
            self.account.error(words.as_bytes());
        }
        self.gate.end(out);
    }

    /// What the reply said so far.
    pub fn report(&self) -> Report {
        let mut report = self.account.report(self.terminal, self.is_stream());
        report.told_beside = self.told_beside;
        if !report.streamed {
            (report.first_content_us, report.last_content_us, report.content_events) = (None, None, 0);
        }
        report
    }

    /// Whether the client, with the bytes that have left, has its whole answer: what may follow are counts.
    pub fn is_answered(&self) -> bool {
        self.account.is_finished() && self.is_stream()
    }

    /// A document by itself is no stream, whatever it is labelled as; lines are, if they are labelled so, or are those
    /// of events.
    fn is_stream(&self) -> bool {
        match (self.is_document, self.form) {
            (true, _) => self.documents > 0,
            (false, Form::Events) => true,
            (false, Form::Body) => self.has_field,
            (false, Form::Opaque) => false,
        }
    }

    // ---- what it is --------------------------------------------------------------------------------------------

    /// Looks for the first byte that tells; how many are before it.
    fn begin(&mut self, mut mark: usize, input: &[u8]) -> usize {
        for (at, &byte) in input.iter().enumerate() {
            let in_mark = mark < BOM.len();
            if in_mark && byte == BOM[mark] {
                mark += 1;
                continue;
            }
            // Half a mark is the beginning of something else.
            let is_begun = in_mark && mark > 0;
            if byte.is_ascii_whitespace() && !is_begun {
                mark = BOM.len();
                continue;
            }
            self.shape = match (byte, self.form) {
                (b'{' | b'[', _) if !is_begun => Shape::Document,
                (_, Form::Events) => Shape::Events,
                (first, _) if may_begin_field(first) => Shape::Events,
                _ => Shape::Text,
            };
            self.is_document = self.shape == Shape::Document;
            if is_begun {
                self.lexer.skip_line();
            }
            return at;
        }
        self.shape = Shape::Unknown { mark };
        input.len()
    }

    /// Reads on in a document; how many bytes are before what follows it. What is no JSON after all is a line that
    /// nobody can read.
    fn document(&mut self, input: &[u8], now_us: u64) -> usize {
        let used = self.walker.feed(input, &mut self.facts);
        if self.walker.is_bad() {
            (self.shape, self.is_document) = (Shape::Events, false);
            self.lexer.skip_line();
        } else if self.walker.is_done() {
            self.shape = Shape::Events;
            self.settle(now_us);
        }
        used
    }

    /// Takes what a document says.
    fn settle(&mut self, now_us: u64) {
        self.facts.settle(&self.event.name);
        if self.words.is_some() {
            self.facts.is_of_a_failure();
        }
        self.account.merge(&self.facts, Some(now_us));
    }

    // ---- events ------------------------------------------------------------------------------------------------

    fn feed_events(&mut self, input: &[u8], mut at: usize, now_us: u64, out: &mut Vec<u8>) {
        (self.event.from, self.event.line_at) = (None, None);
        while let Some(&byte) = input.get(at) {
            if self.lexer.starts_line(byte) {
                let repeated = self.repeated(&input[at..], now_us);
                if repeated > 0 {
                    at += repeated;
                    continue;
                }
                self.line_starts(at);
            }
            let (used, step) = self.lexer.step(&input[at..]);
            self.event.bytes = self.event.bytes.saturating_add(used);
            match step {
                Step::Quiet => {}
                Step::Value(Field::Event, value) => self.name(value),
                Step::Value(field @ (Field::Data | Field::Error | Field::Bare), value) => {
                    let more = self.value(field, value, input, out);
                    if more > 0 {
                        at += used - more;
                        self.split_line(input, at, now_us, out);
                        continue;
                    }
                }
                Step::LineEnd(field) => self.line_ends(field, at, now_us),
                Step::Blank => self.event_ends(input, at, now_us, out),
                Step::LineFeed => {
                    if std::mem::take(&mut self.strip_line_feed) {
                        self.gate.remove_byte(input, at);
                    }
                }
            }
            at += used;
            self.weigh(at, out);
        }
        self.gate.finish(input, out);
    }

    /// Takes an event that repeats the one before with other words; how many bytes it has. None of them is doubted.
    fn repeated(&mut self, input: &[u8], now_us: u64) -> usize {
        if self.event.bytes > 0 || self.lexer.state() != State::Start || self.gate.is_closed() {
            return 0;
        }
        let Some(same) = self.twin.find(input) else { return 0 };
        self.facts.say_instead(same.place, same.words);
        self.account.merge(&self.facts, Some(now_us));
        same.length
    }

    /// An event was read, or passed over: if it only brought words, the next one may repeat it.
    fn learn(&mut self, event: &[u8]) {
        let facts = &self.facts;
        self.twin.forget();
        let Spoken::Once(place, address, length) = facts.spoken else { return };
        let only_words = matches!(place, Place::Output | Place::Reasoning)
            && facts.words == Words::Delta
            && facts.tools.is_empty()
            && facts.choice_index.is_none_or(|index| index == 0)
            && !facts.has_error;
        let start = address.wrapping_sub(event.as_ptr().addr());
        if only_words && self.walker.is_done() && start < event.len() && length < event.len() - start {
            self.twin.learn(event, start..start + length, place);
        }
    }

    fn line_starts(&mut self, at: usize) {
        self.strip_line_feed = false;
        let event = &mut self.event;
        if event.bytes == 0 {
            event.from = Some(at);
        }
        event.line_at = Some(at);
        event.doubt_is_fresh = false;
        if event.is_merged {
            event.done = Some(0);
            event.fork.get_or_insert(event.bytes);
            if self.strip {
                self.gate.fork(at);
            }
        } else if self.strip && !event.is_trusted && !self.gate.doubts_event() {
            event.doubt_is_fresh = true;
            self.gate.doubt_event(at);
        }
        if !event.has_data || event.is_merged {
            self.gate.doubt_line(at);
        }
    }

    fn name(&mut self, value: &[u8]) {
        self.has_field = true;
        let event = &mut self.event;
        let name = if event.is_merged { &mut event.late_name } else { &mut event.name };
        append_up_to(name, value, NAME_BYTES_MAX);
    }

    /// Reads a value, or a part of it; how many bytes at its end are behind the document.
    fn value(&mut self, field: Field, value: &[u8], input: &[u8], out: &mut Vec<u8>) -> usize {
        self.has_field |= field != Field::Bare;
        if self.event.is_merged {
            // A line without data is none of the next event.
            if value.iter().all(u8::is_ascii_whitespace) {
                return 0;
            }
            self.next_event(input, out);
        }
        if !self.event.has_data {
            // The value of llama.cpp's and llama-box's `error:` field is an error object.
            let is_error = field == Field::Error;
            self.begin_document(if is_error { Place::Error } else { self.table.event });
            if is_error {
                self.event.name.clear();
                self.event.name.extend_from_slice(b"error");
                self.event.done = None;
            }
        }
        if std::mem::take(&mut self.event.joins) {
            self.walker.feed(b"\n", &mut self.facts);
            if !self.event.text.is_empty() {
                append_up_to(&mut self.event.text, b"\n", ERROR_BYTES_MAX);
            }
            self.event.done = None;
        }
        self.event.done = self.event.done.and_then(|seen| {
            let compared = value.len().min(DONE.len() - seen);
            (value[..compared] == DONE[seen..seen + compared]).then_some(seen + compared)
        });
        let used = self.walker.feed(value, &mut self.facts);
        if self.event.name == b"error" {
            append_up_to(&mut self.event.text, value, ERROR_BYTES_MAX);
        }
        if self.walker.is_done() { value.len() - used } else { 0 }
    }

    fn begin_document(&mut self, root: Place) {
        self.event.has_data = true;
        self.walker.begin(root);
        self.facts.clear();
    }

    fn line_ends(&mut self, field: Option<Field>, at: usize, now_us: u64) {
        match field {
            Some(Field::Data | Field::Error | Field::Bare) if !self.event.is_merged => {
                self.event.joins = true;
                let (is_done, is_bad) = (self.walker.is_done(), self.walker.is_bad());
                // Further lines of an error's text are read on.
                if is_done || is_bad && self.event.name != b"error" {
                    self.close_if_terminal(self.event.line_at.unwrap_or(at), now_us);
                    self.merge_event(now_us);
                }
                self.lexer.expect_more(self.event.has_data && !is_done && !is_bad);
            }
            Some(_) | None => {}
        }
    }

    /// The blank line at `at`.
    fn event_ends(&mut self, input: &[u8], at: usize, now_us: u64, out: &mut Vec<u8>) {
        self.close_if_terminal(at, now_us);
        self.merge_event(now_us);
        if self.event.late_name == b"error" {
            (self.facts.has_error, self.terminal) = (true, true);
            self.account.error(&self.facts.error().unwrap_or_default());
        }
        self.gate.join(out);
        if self.gate.doubts_event() && self.is_usage_event() {
            self.remove(|gate| gate.remove_event(input, at + 1));
            self.strip_line_feed = input[at] == b'\r';
        } else {
            self.gate.trust_line(out);
            self.gate.trust_event(out);
        }
        match self.event.from {
            Some(from) if self.event.is_merged && self.event.name.is_empty() => self.learn(&input[from..=at]),
            _ => self.twin.forget(),
        }
        self.lexer.expect_more(false);
        self.event.late_name.clear();
        self.forget_event(0);
        self.event.done = Some(0);
    }

    /// The line that is being read is the first of the next event, or the one before it was.
    fn next_event(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.gate.doubts_event() && self.is_usage_event() {
            self.remove(|gate| gate.remove_to_fork(input));
        } else {
            self.gate.trust_event(out);
        }
        self.gate.part();
        self.twin.forget();
        let bytes = self.event.bytes - self.event.fork.unwrap_or(0);
        self.forget_event(bytes);
        std::mem::swap(&mut self.event.name, &mut self.event.late_name);
    }

    /// Something follows a document at `at` on the same line: the beginning of the next one, where a line feed is lost.
    fn split_line(&mut self, input: &[u8], at: usize, now_us: u64, out: &mut Vec<u8>) {
        self.close_if_terminal(self.event.line_at.unwrap_or(at), now_us);
        self.merge_event(now_us);
        if self.gate.doubts_event() && self.is_usage_event() {
            self.remove(|gate| gate.remove_event(input, at));
        } else {
            self.gate.trust_line(out);
            self.gate.trust_event(out);
        }
        self.twin.forget();
        self.forget_event(0);
        self.event.done = Some(0);
        self.lexer.start_line();
    }

    /// So many bytes of the next event have come.
    fn forget_event(&mut self, bytes: usize) {
        let event = &mut self.event;
        event.name.clear();
        event.text.clear();
        (event.bytes, event.fork, event.from) = (bytes, None, None);
        (event.is_trusted, event.has_data, event.joins, event.is_merged) = (false, false, false, false);
    }

    /// Removes the usage event that was just read.
    fn remove(&mut self, how: impl FnOnce(&mut Gate)) {
        let counts = self.facts.timings.counts();
        self.told_beside |= counts.input.is_some() && counts.output.is_some();
        how(&mut self.gate);
    }

    /// Ends doubts as soon as the bytes before `at` have decided them.
    fn weigh(&mut self, at: usize, out: &mut Vec<u8>) {
        if self.event.done == Some(DONE.len()) {
            self.terminal = true;
            self.gate.close(at);
        }
        let line_is_over = matches!(self.lexer.state(), State::Start | State::AfterCr);
        if self.gate.doubts_line() && (line_is_over || self.event.done.is_none() || !self.lexer.may_be_data()) {
            self.gate.trust_line(out);
        }
        if !self.gate.doubts_event() || self.gate.doubts_line() {
            return;
        }
        if self.lexer.state() == State::Rest(Rest::Comment) && self.event.doubt_is_fresh {
            // A comment before the event is none of it; the next line is doubted anew.
            self.gate.trust_event(out);
        } else if self.cannot_be_usage_event() {
            self.event.is_trusted = true;
            self.gate.trust_event(out);
        }
    }

    fn cannot_be_usage_event(&self) -> bool {
        let facts = &self.facts;
        self.is_too_long()
            || self.lexer.state() == State::Rest(Rest::Junk)
            || self.event.has_data && (self.walker.is_bad() || facts.carries || facts.has_error)
    }

    /// Whether the event, now over, is one that injection brought.
    fn is_usage_event(&self) -> bool {
        self.event.has_data
            && self.walker.is_done()
            && self.facts.is_usage_chunk(self.account.is_finished())
            && !self.is_too_long()
    }

    /// Counted in bytes of the event, not of what is held, so that the reads do not decide.
    fn is_too_long(&self) -> bool {
        self.event.bytes > HOLD_BYTES_MAX
    }

    /// The event's data or the event itself is over: if it is a terminal one, all is held from offset `from`.
    fn close_if_terminal(&mut self, from: usize, now_us: u64) {
        let event = &self.event;
        if event.is_merged {
            return;
        }
        let is_whole = event.has_data && self.walker.is_done();
        let kind = if is_whole && !self.facts.kind.is_empty() { &self.facts.kind } else { &event.name };
        let is_error = event.name == b"error" || kind == b"error" || is_whole && self.facts.has_error;
        let is_terminal = self.table.terminals.contains(&kind.as_slice());
        if is_terminal || is_error && !self.table.outlives_error {
            self.merge_event(now_us);
            self.gate.close(from);
        }
        self.terminal |= is_terminal || is_error;
    }

    /// Takes what the event says, if it is whole. What is no JSON is passed over.
    fn merge_event(&mut self, now_us: u64) {
        if !self.event.has_data || self.event.is_merged {
            return;
        }
        self.event.is_merged = true;
        self.walker.finish(&mut self.facts);
        if self.walker.is_done() {
            self.documents += 1;
            self.settle(now_us);
        } else if self.event.name == b"error" {
            self.account.error(&self.event.text);
        }
    }
}

/// Whether the beginning of a body is that of events, whatever it is labelled as; `None` where more of it must tell.
pub fn are_events(begin: &[u8]) -> Option<bool> {
    let text = begin.strip_prefix(BOM).unwrap_or(begin).trim_ascii_start();
    let first = text.first().filter(|_| !BOM.starts_with(begin))?;
    Some(may_begin_field(*first))
}

/// Whether the first line may be that of a field, or a comment.
fn may_begin_field(byte: u8) -> bool {
    matches!(byte, b'd' | b'e' | b'i' | b'r' | b':')
}

fn append_up_to(kept: &mut Vec<u8>, piece: &[u8], max: usize) {
    let room = max.saturating_sub(kept.len());
    kept.extend_from_slice(&piece[..piece.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const USAGE: &str = r#""usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}"#;

    fn read(tap: &mut Tap, body: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        body.chunks(size).for_each(|piece| {
            tap.feed(piece, 1, &mut out);
        });
        tap.release(&mut out);
        tap.end(&mut out);
        out
    }

    /// What has left after each of `pieces`.
    fn left(strip: bool, pieces: &[&str]) -> Vec<String> {
        let mut tap = Tap::new(Dialect::Chat, Form::Events, strip, 100);
        let left = pieces.iter().map(|piece| {
            let mut out = Vec::new();
            tap.feed(piece.as_bytes(), 1, &mut out);
            String::from_utf8(out).unwrap()
        });
        left.collect()
    }

    #[test]
    fn bytes_leave_at_once_but_for_what_may_be_the_terminal_line() {
        assert_eq!(left(false, &["da", "ta", ": ", "{\"a", "\":1}\n"]), ["", "", "", "data: {\"a", "\":1}\n"]);
        assert_eq!(left(false, &["data: [DON", "T]\n"]), ["", "data: [DONT]\n"]);
        assert_eq!(left(false, &["date", ": x"]), ["date", ": x"]);
        assert_eq!(left(false, &[": ping\n", "\n", "x\n\ndata: [DONE]", "\n\n"]), [": ping\n", "\n", "x\n\n", ""]);
    }

    #[test]
    fn a_doubted_event_leaves_as_soon_as_it_shows_words_or_a_finish_reason() {
        let whole = "id: 1\ndata: {\"choices\":[{\"delta\":{\"content\":\"a";
        let pieces = ["id: 1\n", "data: {\"choices\":[", "{\"delta\":{\"con", "tent\":\"a", "\"}}]}\n\n"];
        assert_eq!(left(true, &pieces), ["", "", "", whole, "\"}}]}\n\n"]);
        let pieces = ["data: {\"choices\":[{\"delta\":{},\"finish_reason\":", "\"stop\"", "}]}\n\n"];
        assert_eq!(left(true, &pieces), ["", &pieces[..2].concat(), "}]}\n\n"]);
        assert_eq!(left(true, &["data: {\"choices\":[{\"delta\":{}}]", "}\n\n"])[0], "");
        assert_eq!(left(true, &["data: {\"choices\":[]", "x", "}\n"]), ["", "data: {\"choices\":[]x", "}\n"]);
    }

    #[test]
    fn what_follows_a_document_on_its_line_is_the_next_event() {
        let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}";
        let usage = format!("data: {{\"choices\":[],{USAGE}}}");
        let body = format!("{finish}\n\n{usage}data: [DONE]\n\n");
        for size in [1, 3, 1000] {
            let mut tap = Tap::new(Dialect::Chat, Form::Events, true, 0);
            let out = read(&mut tap, body.as_bytes(), size);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{finish}\n\ndata: [DONE]\n\n"));
            assert_eq!((tap.report().total_tokens, tap.report().terminal), (Some(7), true));
        }
    }

    #[test]
    fn the_first_bytes_tell_events_from_other_bodies() {
        let check =
            |begin: &str, expected: Option<bool>| assert_eq!(are_events(begin.as_bytes()), expected, "{begin:?}");
        check("", None);
        check(" \r\n", None);
        check("\u{feff}", None);
        check("\u{feff}\n: ping", Some(true));
        check("data", Some(true));
        check("{", Some(false));
        check("<html>", Some(false));
    }

    #[test]
    fn an_event_longer_than_the_hold_passes_however_it_is_cut() {
        for (length, passes) in [(HOLD_BYTES_MAX - 200, false), (HOLD_BYTES_MAX, true)] {
            let body = format!("data: {{\"x\":\"{}\",\"choices\":[],{USAGE}}}\n\n", "x".repeat(length));
            for size in [1, 1000, 100_000] {
                let mut tap = Tap::new(Dialect::Chat, Form::Events, true, 0);
                let out = read(&mut tap, body.as_bytes(), size);
                assert_eq!(out == body.as_bytes(), passes, "{length} in pieces of {size}");
                assert_eq!(tap.report().total_tokens, Some(7));
            }
        }
    }

    #[test]
    fn usage_at_the_end_of_a_long_event_or_body_is_found_in_bounded_memory() {
        let filler = "ab\\n".repeat(1 << 20);
        let document = format!(
            "{{\"choices\":[{{\"index\":0,\"logprobs\":[\"{filler}\"],\"delta\":{{\"content\":\"{filler}\"}}}}],{USAGE}}}"
        );
        for (form, body) in
            [(Form::Body, document.clone()), (Form::Events, format!("data: {document}\n\ndata: [DONE]\n\n"))]
        {
            let mut tap = Tap::new(Dialect::Chat, form, true, 1000);
            assert!(read(&mut tap, body.as_bytes(), 64 * 1024) == body.as_bytes());
            let report = tap.report();
            assert_eq!((report.input_tokens, report.output_tokens), (Some(3), Some(4)));
            assert!(report.output.is_some_and(|words| words.len() <= 1000));
        }
    }

    #[test]
    fn content_times_are_those_of_the_first_and_last_event_with_words() {
        let mut tap = Tap::new(Dialect::Chat, Form::Events, false, 0);
        let deltas = ["{\"role\":\"assistant\",\"content\":\"\"}", "{\"content\":\"a\"}", "{\"content\":\"b\"}", "{}"];
        for (now, delta) in deltas.iter().enumerate() {
            let event = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
            tap.feed(event.as_bytes(), 10 * now as u64, &mut Vec::new());
        }
        let report = tap.report();
        assert_eq!((report.first_content_us, report.last_content_us, report.content_events), (Some(10), Some(20), 2));
    }
}
