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

mod events;

use std::sync::Arc;

use super::account::Account;
use super::dialect::Dialect;
use super::document::DocumentFacts;
use super::grammar::Grammar;
use super::hold::Hold;
use super::json::Walker;
use super::members::BOM;
use super::plain;
use super::progress::{ReadSoFar, ReplyProgress};
use super::repeat::Repeat;
use super::role::JsonRole;
use super::sse::Lexer;
use super::usage_report::UsageReport;
use crate::limits::REPLY_WORDS_BYTES_MAX;
use events::Event;

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

/// Reads one reply.
#[derive(Debug)]
pub struct Tap {
    form: Form,
    shape: Shape,
    grammar: &'static Grammar,
    walker: Walker<JsonRole>,
    facts: DocumentFacts,
    account: Account,
    lexer: Lexer,
    hold: Hold,
    event: Event,
    repeat: Repeat,
    /// Usage events are to be removed.
    strip: bool,
    /// The LF of a removed event's CRLF is still to come.
    strip_line_feed: bool,
    terminal: bool,
    /// It begins with a document without a field before it.
    is_document: bool,
    /// A field of an event came.
    has_field: bool,
    /// Documents that were read in lines.
    documents: u64,
    /// That were asked for. A server may give fewer, and its reply be whole.
    choices: u64,
    /// The beginning of the body, where the request failed.
    failed_body: Option<Vec<u8>>,
    /// Of the latest feed.
    now_us: u64,
    /// Where others see how far it has come.
    progress: Option<Arc<ReplyProgress>>,
}

impl Tap {
    /// `strip`: the proxy asked for usage events, not the client. `content_bytes_max`: bytes kept of each kind of
    /// words, 0 for none.
    pub fn new(dialect: Dialect, form: Form, strip: bool, content_bytes_max: usize) -> Tap {
        let content_bytes_max = content_bytes_max.min(REPLY_WORDS_BYTES_MAX);
        let grammar = dialect.grammar();
        Tap {
            form,
            shape: Shape::Unknown { mark: 0 },
            grammar,
            walker: Walker::new(grammar.body),
            facts: DocumentFacts::new(grammar.member, content_bytes_max),
            account: Account::new(content_bytes_max),
            lexer: Lexer::default(),
            hold: Hold::default(),
            event: Event::new(),
            repeat: Repeat::default(),
            strip,
            strip_line_feed: false,
            terminal: false,
            is_document: false,
            has_field: false,
            documents: 0,
            choices: 1,
            failed_body: None,
            now_us: 0,
            progress: None,
        }
    }

    /// From now on it tells there how far it has come.
    pub fn telling(mut self, progress: Arc<ReplyProgress>) -> Tap {
        self.progress = Some(progress);
        self
    }

    /// The request failed: whatever the body says is an error.
    pub fn of_a_failure(mut self) -> Tap {
        self.failed_body = Some(Vec::new());
        self
    }

    /// The request asked for so many choices: the client has its answer when all of them have ended.
    pub fn of_choices(mut self, choices: u64) -> Tap {
        self.choices = choices;
        self
    }

    /// Reads body bytes as they came and appends to `out` what may leave now. `now_us`: microseconds since the
    /// exchange began, on a monotonic clock.
    pub fn feed(&mut self, input: &[u8], now_us: u64, out: &mut Vec<u8>) -> Flow {
        self.now_us = now_us;
        if self.form == Form::Opaque {
            out.extend_from_slice(input);
            self.tell_progress();
            return Flow::Open;
        }
        if let Some(body) = &mut self.failed_body {
            append_up_to(body, input, plain::BODY_BYTES_MAX);
        }
        let mut at = 0;
        if let Shape::Unknown { mark } = self.shape {
            at = self.begin(mark, input);
        }
        if self.shape == Shape::Document {
            at += self.document(&input[at..]);
        }
        match self.shape {
            Shape::Events => self.feed_events(input, at, out),
            Shape::Unknown { .. } | Shape::Document | Shape::Text => out.extend_from_slice(input),
        }
        self.tell_progress();
        if self.hold.is_closed() { Flow::Terminal } else { Flow::Open }
    }

    /// Lets go what is held: the terminal line and what followed, or a partial line. After a terminal event later bytes
    /// pass at once, and are still read; only what may be a usage event still waits.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        self.hold.release(out);
    }

    /// The body is over, cleanly or not. All that is held leaves.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        match self.shape {
            Shape::Unknown { .. } | Shape::Text => {}
            Shape::Document => {
                self.walker.finish(&mut self.facts);
                // A body cut short still told its model; one that is no JSON told nothing.
                if !self.walker.is_bad() {
                    self.settle();
                }
            }
            // The standard drops an event without its blank line. Its counts are true all the same.
            Shape::Events => {
                self.document_ends(0);
                self.hold.join(out);
                self.keep_or_remove(&[], 0, out);
            }
        }
        if let Some(words) =
            self.failed_body.take().filter(|_| !self.account.has_error()).and_then(|body| plain::words(&body))
        {
            self.account.error(words.as_bytes());
        }
        self.hold.end(out);
    }

    /// What the reply said so far. Its words are told once: a later report has none.
    pub fn report(&mut self) -> UsageReport {
        let is_stream = self.is_stream();
        self.account.report(self.grammar, self.terminal, is_stream)
    }

    /// Whether the client, with the bytes that have left, has its whole answer: what may follow are counts.
    pub fn is_answered(&self) -> bool {
        let choices = self.account.choices();
        choices.have_all_ended() && choices.count_ended() >= self.choices && self.is_stream()
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

    fn tell_progress(&self) {
        let Some(progress) = &self.progress else { return };
        let before = || progress.read_so_far().first_us;
        let read = match self.form {
            Form::Opaque => {
                let first_us = before().or(Some(self.now_us));
                ReadSoFar { events: None, words: 0, first_us, output_tokens: None }
            }
            Form::Events | Form::Body => ReadSoFar { events: Some(self.documents), ..self.account.read_so_far() },
        };
        progress.tell(read, self.now_us);
        progress.tell_model(|| self.account.model());
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
    fn document(&mut self, input: &[u8]) -> usize {
        let used = self.walker.feed(input, &mut self.facts);
        if self.walker.is_bad() {
            (self.shape, self.is_document) = (Shape::Events, false);
            self.lexer.skip_line();
        } else if self.walker.is_done() {
            self.shape = Shape::Events;
            self.settle();
            // White space behind it begins the next line, wherever reads end.
            return input[..used].trim_ascii_end().len();
        }
        used
    }

    /// Takes what a document says.
    fn settle(&mut self) {
        self.facts.end(&self.event.name);
        (self.grammar.settle)(&mut self.facts);
        if self.failed_body.is_some() {
            self.facts.error.request_failed();
        }
        self.account.merge(&self.facts, self.now_us);
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
    use crate::limits::HOLD_BYTES_MAX;

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
            assert_eq!((tap.report().counts.total, tap.report().terminal), (Some(7), true));
        }
    }

    #[test]
    fn a_line_behind_a_document_is_the_same_line_wherever_reads_end() {
        let body = b"{\"model\":\"m\"} \n {\"model\":\"n\"}\n";
        for size in 1..body.len() {
            let mut tap = Tap::new(Dialect::Chat, Form::Body, false, 0);
            read(&mut tap, body, size);
            assert_eq!((tap.report().model.as_deref(), tap.report().streamed), (Some("m"), false), "pieces of {size}");
        }
    }

    #[test]
    fn spaces_before_done_behind_another_line_are_no_end_wherever_reads_end() {
        let body = b"data: {\"choices\":[]}\ndata:  [DONE]\n\n";
        for size in 1..body.len() {
            let mut tap = Tap::new(Dialect::Chat, Form::Events, false, 0);
            read(&mut tap, body, size);
            assert!(!tap.report().terminal, "pieces of {size}");
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
                assert_eq!(tap.report().counts.total, Some(7));
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
            assert_eq!((report.counts.input, report.counts.output), (Some(3), Some(4)));
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
        assert_eq!((report.first_content_us, report.content_events), (Some(10), 2));
    }
}
