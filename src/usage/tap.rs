//! Reads a copy of the reply's bytes while they pass, and says which may leave for the client.
//!
//! It does not know framing, sockets or time: the worker feeds it body bytes as they come. Whatever it understands or
//! not, the bytes that leave are those that came, in order, but for the one usage event that injection brought.
//!
//! A stream's event counts when its blank line comes, or at the end of the stream; its terminal event already when
//! its line is complete, so that the row can be written before the client sees it.

use super::account::{Account, Report};
use super::dialect::{Dialect, Table};
use super::facts::{Choices, Facts, Spoken, Words};
use super::gate::Gate;
use super::json::Walker;
use super::place::Place;
use super::sse::{Field, Lexer, Rest, State, Step};
use super::twin::Twin;
use crate::limits::HOLD_BYTES_MAX;

/// How a body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `text/event-stream`.
    Events,
    /// JSON.
    Json,
    /// Encoded, or something else: nothing is read, everything passes.
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
    table: &'static Table,
    walker: Walker,
    facts: Facts,
    account: Account,
    lexer: Lexer,
    gate: Gate,
    event: Event,
    twin: Twin,
    /// The usage event is still to be removed.
    strip: bool,
    /// The LF of the removed event's CRLF is still to come.
    strip_line_feed: bool,
    terminal: bool,
    /// Of the latest feed.
    now_us: u64,
}

/// What is known of the event that is being read.
#[derive(Debug, Default)]
struct Event {
    name: Vec<u8>,
    /// Of its lines so far, as they came.
    bytes: usize,
    /// Where in this feed it began.
    from: Option<usize>,
    /// Where in this feed the current line began.
    line_at: Option<usize>,
    /// Whether the doubted bytes are those of the current line alone.
    doubt_is_fresh: bool,
    /// It was found not to be the usage event.
    is_trusted: bool,
    has_data: bool,
    /// A further data line is joined with a line feed.
    joins: bool,
    /// How much of `[DONE]` its data begins with; `None` once it differs.
    done: Option<usize>,
    /// It is read: what follows of it counts no more.
    is_merged: bool,
    /// Data of an error event, in case that it is no JSON.
    text: Vec<u8>,
}

impl Tap {
    /// `strip`: the proxy asked for the usage event, not the client. `content_bytes_max`: bytes kept of each kind of
    /// words, 0 for none.
    pub fn new(dialect: Dialect, form: Form, strip: bool, content_bytes_max: usize) -> Tap {
        let table = dialect.table();
        let mut walker = Walker::new();
        walker.begin(table.body);
        Tap {
            form,
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
            terminal: false,
            now_us: 0,
        }
    }

    /// Reads body bytes as they came and appends to `out` what may leave now. `now_us`: microseconds since the
    /// exchange began, on a monotonic clock.
    pub fn feed(&mut self, input: &[u8], now_us: u64, out: &mut Vec<u8>) -> Flow {
        self.now_us = now_us;
        match self.form {
            Form::Opaque => out.extend_from_slice(input),
            Form::Json => {
                self.walker.feed(input, &mut self.facts);
                out.extend_from_slice(input);
            }
            Form::Events => self.feed_events(input, now_us, out),
        }
        if self.gate.is_closed() { Flow::Terminal } else { Flow::Open }
    }

    /// Lets go what is held: the terminal line and what followed, or a partial line. After a terminal event later bytes
    /// pass at once, and are still read.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.event.is_trusted = true;
        self.gate.release(out);
    }

    /// The body is over, cleanly or not. All that is held leaves.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        match self.form {
            Form::Opaque => {}
            Form::Json => {
                self.walker.finish(&mut self.facts);
                // A body cut short still told its model; one that is no JSON told nothing.
                if !self.walker.is_bad() {
                    self.facts.settle(b"");
                    self.account.merge(&self.facts, None);
                    self.facts.clear();
                }
            }
            // The standard drops an event without its blank line. Its counts are true all the same.
            Form::Events => {
                self.close_if_terminal(0, self.now_us);
                self.merge_event(self.now_us);
                if self.gate.doubts_event() && self.is_usage_event() {
                    self.gate.remove_event(&[], 0, out);
                }
            }
        }
        self.gate.release(out);
    }

    /// What the reply said so far.
    pub fn report(&self) -> Report {
        self.account.report(self.terminal, self.form == Form::Events)
    }

    fn feed_events(&mut self, input: &[u8], now_us: u64, out: &mut Vec<u8>) {
        let mut at = 0;
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
                Step::Value(Field::Data, value) => self.data(value),
                Step::Value(Field::Event, value) => append_up_to(&mut self.event.name, value, NAME_BYTES_MAX),
                Step::Value(Field::Error, value) => self.error_field(value),
                Step::LineEnd(field) => self.line_ends(field, at, now_us),
                Step::Blank => self.event_ends(input, at, now_us, out),
                Step::LineFeed => {
                    if std::mem::take(&mut self.strip_line_feed) {
                        self.gate.remove_byte(input, at, out);
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
        if self.event.bytes == 0 {
            self.event.from = Some(at);
        }
        self.event.line_at = Some(at);
        if !self.event.has_data {
            self.gate.doubt_line(at);
        }
        self.event.doubt_is_fresh = self.strip && !self.event.is_trusted && !self.gate.doubts_event();
        if self.event.doubt_is_fresh {
            self.gate.doubt_event(at);
        }
    }

    fn data(&mut self, value: &[u8]) {
        if self.event.is_merged {
            return;
        }
        if !self.event.has_data {
            self.begin_document(self.table.event);
        }
        if std::mem::take(&mut self.event.joins) {
            self.walker.feed(b"\n", &mut self.facts);
            self.event.done = None;
        }
        self.event.done = self.event.done.and_then(|seen| {
            let compared = value.len().min(DONE.len() - seen);
            (value[..compared] == DONE[seen..seen + compared]).then_some(seen + compared)
        });
        self.walker.feed(value, &mut self.facts);
        if self.event.name == b"error" {
            append_up_to(&mut self.event.text, value, ERROR_BYTES_MAX);
        }
    }

    /// The value of llama.cpp's former `error:` field is an error object.
    fn error_field(&mut self, value: &[u8]) {
        if self.event.is_merged {
            return;
        }
        if !self.event.has_data {
            self.begin_document(Place::Error);
            self.event.name.clear();
            self.event.name.extend_from_slice(b"error");
            self.event.done = None;
        }
        self.walker.feed(value, &mut self.facts);
    }

    fn begin_document(&mut self, root: Place) {
        self.event.has_data = true;
        self.walker.begin(root);
        self.facts.clear();
    }

    fn line_ends(&mut self, field: Option<Field>, at: usize, now_us: u64) {
        match field {
            Some(Field::Data | Field::Error) => {
                self.event.joins = true;
                if self.walker.is_done() || self.walker.is_bad() {
                    self.close_if_terminal(self.event.line_at.unwrap_or(at), now_us);
                }
            }
            Some(Field::Event) | None => {}
        }
    }

    fn event_ends(&mut self, input: &[u8], at: usize, now_us: u64, out: &mut Vec<u8>) {
        self.close_if_terminal(at, now_us);
        self.merge_event(now_us);
        if self.gate.doubts_event() && self.is_usage_event() {
            self.gate.remove_event(input, at + 1, out);
            self.strip = false;
            self.strip_line_feed = input[at] == b'\r';
        } else {
            self.gate.trust_line(out);
            self.gate.trust_event(out);
        }
        match self.event.from {
            Some(from) if self.event.is_merged && self.event.name.is_empty() => self.learn(&input[from..=at]),
            _ => self.twin.forget(),
        }
        let event = &mut self.event;
        event.name.clear();
        event.text.clear();
        (event.bytes, event.from, event.done) = (0, None, Some(0));
        (event.is_trusted, event.has_data, event.joins, event.is_merged) = (false, false, false, false);
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
            || self.event.has_data && (self.walker.is_bad() || facts.choices == Choices::Filled || facts.has_error)
    }

    /// Whether the event, now over, is the one that injection brought.
    fn is_usage_event(&self) -> bool {
        self.event.has_data && self.walker.is_done() && self.facts.is_usage_chunk() && !self.is_too_long()
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
            self.facts.settle(&self.event.name);
            self.account.merge(&self.facts, Some(now_us));
        } else if self.event.name == b"error" {
            self.account.error(&self.event.text);
        }
    }
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
    fn a_doubted_event_leaves_as_soon_as_it_shows_a_choice() {
        let pieces = ["id: 1\n", "data: {\"choices\":[", "{\"del", "ta\":{}}]}\n\n"];
        assert_eq!(left(true, &pieces), ["", "", "id: 1\ndata: {\"choices\":[{\"del", "ta\":{}}]}\n\n"]);
        assert_eq!(left(true, &["data: {\"choices\":[]", "x", "}\n"]), ["", "data: {\"choices\":[]x", "}\n"]);
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
            [(Form::Json, document.clone()), (Form::Events, format!("data: {document}\n\ndata: [DONE]\n\n"))]
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
