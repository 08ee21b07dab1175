//! Events: lines put together, what each says, and which of them leave.

use super::super::role::JsonRole;
use super::super::sse::{SseField, State, Step, UnreadLine};
use super::super::words::{Telling, WordPieces};
use super::{Tap, append_up_to};
use crate::limits::HOLD_BYTES_MAX;

/// The end of an OpenAI stream. Clients test for the beginning only (openai-python `_streaming.py`).
const DONE: &[u8] = b"[DONE]";
/// Longest name of an event kept; the longest known has 38 bytes.
const NAME_BYTES_MAX: usize = 64;
/// What is kept of the text of an error event that is no JSON.
const ERROR_BYTES_MAX: usize = 512;

/// What is known of the event that is being read.
#[derive(Debug, Default)]
pub(super) struct Event {
    pub(super) name: Vec<u8>,
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

impl Event {
    /// One of which nothing has come.
    pub(super) fn new() -> Event {
        Event { done: Some(0), ..Event::default() }
    }
}

impl Tap {
    pub(super) fn feed_events(&mut self, input: &[u8], mut at: usize, out: &mut Vec<u8>) {
        (self.event.from, self.event.line_at) = (None, None);
        while let Some(&byte) = input.get(at) {
            if self.lexer.starts_line(byte) {
                let repeated = self.repeated(&input[at..]);
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
                Step::Value(SseField::Event, value) => self.name(value),
                Step::Value(field @ (SseField::Data | SseField::Error | SseField::Bare), value) => {
                    let more = self.value(field, value, input, out);
                    if more > 0 {
                        at += used - more;
                        self.split_line(input, at, out);
                        continue;
                    }
                }
                Step::LineEnd(field) => self.line_ends(field, at),
                Step::Blank => self.event_ends(input, at, out),
                Step::LineFeed => {
                    if std::mem::take(&mut self.strip_line_feed) {
                        self.hold.remove_byte(input, at);
                    }
                }
            }
            at += used;
            self.weigh(at, out);
        }
        self.hold.finish(input, out);
    }

    /// Takes an event that repeats the one before with other words; how many bytes it has. None of them is doubted.
    fn repeated(&mut self, input: &[u8]) -> usize {
        if self.event.bytes > 0 || self.lexer.state() != State::Start || self.hold.is_closed() {
            return 0;
        }
        let Some(same) = self.repeat.find(input) else { return 0 };
        self.facts.say_instead(same.role, same.words);
        self.account.merge_repeated(&self.facts, self.now_us);
        self.documents += 1;
        same.length
    }

    /// An event was read, or passed over: if it only brought words, the next one may repeat it.
    fn learn(&mut self, event: &[u8]) {
        let facts = &self.facts;
        self.repeat.forget();
        let WordPieces::One(role, address, length) = facts.words.pieces else { return };
        let only_words = matches!(role, JsonRole::Output | JsonRole::Reasoning)
            && facts.words.telling == Telling::Delta
            && facts.has_content
            && facts.calls.parts.is_empty()
            && facts.choices.first_index.is_none_or(|index| index == 0)
            && !facts.error.is_told;
        let start = address.wrapping_sub(event.as_ptr().addr());
        if only_words && self.walker.is_done() && start < event.len() && length < event.len() - start {
            self.repeat.learn(event, start..start + length, role);
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
                self.hold.fork(at);
            }
        } else if self.strip && !event.is_trusted && !self.hold.doubts_event() {
            event.doubt_is_fresh = true;
            self.hold.doubt_event(at);
        }
        if !event.has_data || event.is_merged {
            self.hold.doubt_line(at);
        }
    }

    fn name(&mut self, value: &[u8]) {
        self.has_field = true;
        let event = &mut self.event;
        let name = if event.is_merged { &mut event.late_name } else { &mut event.name };
        append_up_to(name, value, NAME_BYTES_MAX);
    }

    /// Reads a value, or a part of it; how many bytes at its end are behind the document.
    fn value(&mut self, field: SseField, mut value: &[u8], input: &[u8], out: &mut Vec<u8>) -> usize {
        self.has_field |= field != SseField::Bare;
        if self.event.is_merged {
            let text = value.trim_ascii_start();
            if text.len() < value.len() {
                self.event.done = None;
            }
            // A line without data is none of the next event.
            if text.is_empty() {
                return 0;
            }
            self.next_event(input, out);
            value = text;
        }
        if !self.event.has_data {
            // The value of llama.cpp's and llama-box's `error:` field is an error object.
            let is_error = field == SseField::Error;
            self.event.has_data = true;
            self.walker.begin(if is_error { JsonRole::Error } else { JsonRole::Root });
            self.facts.clear();
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

    fn line_ends(&mut self, field: Option<SseField>, at: usize) {
        match field {
            Some(SseField::Data | SseField::Error | SseField::Bare) if !self.event.is_merged => {
                self.event.joins = true;
                let (is_done, is_bad) = (self.walker.is_done(), self.walker.is_bad());
                // Further lines of an error's text are read on.
                if is_done || is_bad && self.event.name != b"error" {
                    self.document_ends(self.event.line_at.unwrap_or(at));
                }
                self.lexer.expect_more(self.event.has_data && !is_done && !is_bad);
            }
            Some(_) | None => {}
        }
    }

    /// The blank line at `at`.
    fn event_ends(&mut self, input: &[u8], at: usize, out: &mut Vec<u8>) {
        self.document_ends(at);
        if self.event.late_name == b"error" {
            (self.facts.error.is_told, self.terminal) = (true, true);
            self.account.error(&self.facts.error.words().unwrap_or_default());
        }
        self.hold.join(out);
        self.keep_or_remove(input, at + 1, out);
        match self.event.from {
            Some(from) if self.event.is_merged && self.event.name.is_empty() => self.learn(&input[from..=at]),
            _ => self.repeat.forget(),
        }
        self.lexer.expect_more(false);
        self.event.late_name.clear();
        self.forget_event(0);
        self.event.done = Some(0);
    }

    /// The line that is being read is the first of the next event, or the one before it was.
    fn next_event(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.is_to_go() {
            self.hold.remove_to_fork(input);
        } else {
            self.hold.trust_event(out);
        }
        self.hold.part();
        self.repeat.forget();
        let bytes = self.event.bytes - self.event.fork.unwrap_or(0);
        self.forget_event(bytes);
        std::mem::swap(&mut self.event.name, &mut self.event.late_name);
    }

    /// Something follows a document at `at` on the same line: the beginning of the next one, where a line feed is lost.
    fn split_line(&mut self, input: &[u8], at: usize, out: &mut Vec<u8>) {
        self.document_ends(self.event.line_at.unwrap_or(at));
        self.keep_or_remove(input, at, out);
        self.repeat.forget();
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

    /// The event is over before `end`: it is removed, or nothing of it is doubted any more.
    pub(super) fn keep_or_remove(&mut self, input: &[u8], end: usize, out: &mut Vec<u8>) {
        if self.is_to_go() {
            self.hold.remove_event(input, end);
            self.strip_line_feed = input[..end].ends_with(b"\r");
        } else {
            self.hold.trust_line(out);
            self.hold.trust_event(out);
        }
    }

    /// Whether the event, now over, is one that injection brought.
    fn is_to_go(&mut self) -> bool {
        let is_to_go = self.hold.doubts_event()
            && self.event.has_data
            && self.walker.is_done()
            && self.facts.is_usage_chunk(self.account.choices().have_all_ended())
            && !self.is_too_long();
        self.account.told_beside |= is_to_go && self.facts.numbers.timings_suffice();
        is_to_go
    }

    /// Ends doubts as soon as the bytes before `at` have decided them.
    fn weigh(&mut self, at: usize, out: &mut Vec<u8>) {
        if self.event.done == Some(DONE.len()) {
            self.terminal = true;
            self.hold.close(at);
        }
        let line_is_over = matches!(self.lexer.state(), State::Start | State::AfterCr);
        if self.hold.doubts_line() && (line_is_over || self.event.done.is_none() || !self.lexer.may_be_data()) {
            self.hold.trust_line(out);
        }
        if !self.hold.doubts_event() || self.hold.doubts_line() {
            return;
        }
        if self.lexer.state() == State::Unread(UnreadLine::Comment) && self.event.doubt_is_fresh {
            // A comment before the event is none of it; the next line is doubted anew.
            self.hold.trust_event(out);
        } else if self.cannot_be_usage_event() {
            self.event.is_trusted = true;
            self.hold.trust_event(out);
        }
    }

    fn cannot_be_usage_event(&self) -> bool {
        let facts = &self.facts;
        self.is_too_long()
            || self.lexer.state() == State::Unread(UnreadLine::Junk)
            || self.event.has_data && (self.walker.is_bad() || facts.carries || facts.error.is_told)
    }

    /// Counted in bytes of the event, not of what is held, so that the reads do not decide.
    fn is_too_long(&self) -> bool {
        self.event.bytes > HOLD_BYTES_MAX
    }

    /// The event's data or the event itself is over: its document counts, if it is whole. What is no JSON is passed
    /// over. If the event is a terminal one, all is held from offset `from`.
    pub(super) fn document_ends(&mut self, from: usize) {
        let (event, grammar) = (&mut self.event, self.grammar);
        if event.is_merged {
            return;
        }
        let is_whole = event.has_data && self.walker.is_done();
        let kind = if is_whole && !self.facts.kind.is_empty() { &self.facts.kind } else { &event.name };
        let is_error = event.name == b"error" || kind == b"error" || is_whole && self.facts.error.is_told;
        let is_terminal = grammar.terminals.contains(&kind.as_slice());
        if event.has_data {
            event.is_merged = true;
            self.walker.finish(&mut self.facts);
            if self.walker.is_done() {
                self.documents += 1;
                self.settle();
            } else if event.name == b"error" {
                self.account.error(&event.text);
            }
        }
        if is_terminal || is_error && !grammar.outlives_error {
            self.hold.close(from);
        }
        self.terminal |= is_terminal || is_error;
    }
}
