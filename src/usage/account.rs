//! What the documents of one reply say together, and the report made of it.

use super::dialect::Table;
use super::facts::{Counts, Facts, Timings, ToolPart, Words};
use super::text::{Kept, escape, lossy};

/// What a reply says about itself. Unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The model that answered.
    pub model: Option<String>,
    /// The reply's own id.
    pub id: Option<String>,
    /// Tokens of the prompt.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// As reported, else input + output where both are known.
    pub total_tokens: Option<u64>,
    /// Prompt tokens taken from a cache.
    pub cached_tokens: Option<u64>,
    /// Answer tokens spent on reasoning.
    pub reasoning_tokens: Option<u64>,
    /// `usage`, `stats` or `timings`: where the counts came from.
    pub usage_source: Option<&'static str>,
    /// As reported: `stop`, `length`, `end_turn`, …
    pub finish_reason: Option<String>,
    /// The message of an error that the reply reports.
    pub error: Option<String>,
    /// The stream's terminal event, or an error in its place, was seen.
    pub terminal: bool,
    /// The reply must have one, or it is truncated.
    pub needs_terminal: bool,
    /// When the first event with content came, in microseconds of the caller's clock. Streams only.
    pub first_content_us: Option<u64>,
    /// When the last one came.
    pub last_content_us: Option<u64>,
    /// Events with content.
    pub content_events: u64,
    /// Upstream's own figure.
    pub tokens_per_second: Option<f64>,
    /// How long LM Studio loaded the model for this.
    pub model_load_ms: Option<u64>,
    /// The answer's text.
    pub output: Option<String>,
    /// The reasoning.
    pub reasoning: Option<String>,
    /// Tool calls: `[{"id":…,"name":…,"arguments":…},…]`, arguments as text. Beyond the bound, head and tail of that.
    pub tool_calls: Option<String>,
}

/// The sum of what was read. Later values replace earlier ones; nothing is added up.
#[derive(Debug)]
pub struct Account {
    table: &'static Table,
    model: Vec<u8>,
    id: Vec<u8>,
    finish: Vec<u8>,
    error: Option<Vec<u8>>,
    counts: Counts,
    timings: Timings,
    tokens_per_second: Option<f64>,
    load_seconds: Option<f64>,
    first_content_us: Option<u64>,
    last_content_us: Option<u64>,
    content_events: u64,
    output: Spoken,
    reasoning: Spoken,
    tools: Tools,
}

impl Account {
    /// Of a dialect, keeping so many bytes of each kind of words.
    pub fn new(table: &'static Table, kept_max: usize) -> Account {
        Account {
            table,
            model: Vec::new(),
            id: Vec::new(),
            finish: Vec::new(),
            error: None,
            counts: Counts::default(),
            timings: Timings::default(),
            tokens_per_second: None,
            load_seconds: None,
            first_content_us: None,
            last_content_us: None,
            content_events: 0,
            output: Spoken::new(kept_max),
            reasoning: Spoken::new(kept_max),
            tools: Tools::new(kept_max),
        }
    }

    /// Takes what a whole document says. `now_us`: when it came, for an event of a stream.
    pub fn merge(&mut self, facts: &Facts, now_us: Option<u64>) {
        replace(&mut self.model, &facts.model);
        replace(&mut self.id, &facts.id);
        replace(&mut self.finish, &facts.finish);
        // The first error is the cause, those after it are consequences.
        if let (None, Some(message)) = (&self.error, facts.error()) {
            self.error = Some(message.to_vec());
        }
        self.counts.merge(&facts.counts);
        self.timings.merge(&facts.timings);
        self.tokens_per_second = facts.tokens_per_second.or(self.tokens_per_second);
        self.load_seconds = facts.load_seconds.or(self.load_seconds);
        if let Some(now_us) = now_us.filter(|_| self.is_content(facts)) {
            self.first_content_us.get_or_insert(now_us);
            self.last_content_us = Some(now_us);
            self.content_events += 1;
        }
        self.output.merge(&facts.output, facts.words);
        self.reasoning.merge(&facts.reasoning, facts.words);
        self.tools.merge(&facts.tools, facts.words);
    }

    /// An error that is no document: `event: error` with text that is no JSON.
    pub fn error(&mut self, message: &[u8]) {
        self.error.get_or_insert_with(|| message.to_vec());
    }

    /// The report. `terminal`: a terminal event was seen; `is_stream`: the reply came as events.
    pub fn report(&self, terminal: bool, is_stream: bool) -> Report {
        let timings = self.timings.counts();
        // Timings count where usage is unknown, or nothing but zeros.
        let use_timings = match (self.counts.is_known(), self.counts.is_positive()) {
            (_, true) => false,
            (true, false) => timings.is_positive(),
            (false, false) => timings.is_known(),
        };
        let counts = if use_timings { timings } else { self.counts };
        let source = if use_timings { "timings" } else { self.table.source };
        let sum = counts.input.zip(counts.output).map(|(input, output)| input.saturating_add(output));
        Report {
            model: text(&self.model),
            id: text(&self.id),
            input_tokens: counts.input,
            output_tokens: counts.output,
            total_tokens: counts.total.or(sum),
            cached_tokens: counts.cached,
            reasoning_tokens: counts.reasoning,
            usage_source: counts.is_known().then_some(source),
            finish_reason: text(&self.finish),
            error: self.error.as_deref().and_then(text),
            terminal,
            needs_terminal: is_stream && self.table.needs_terminal,
            first_content_us: self.first_content_us,
            last_content_us: self.last_content_us,
            content_events: self.content_events,
            tokens_per_second: self.tokens_per_second,
            model_load_ms: self.load_seconds.map(|seconds| (seconds * 1000.0).round() as u64),
            output: self.output.kept.text(),
            reasoning: self.reasoning.kept.text(),
            tool_calls: self.tools.text(),
        }
    }

    /// Whether the document brings words that were not there yet.
    fn is_content(&self, facts: &Facts) -> bool {
        match facts.words {
            Words::Delta => facts.has_content,
            // `….done` after deltas repeats them.
            Words::Whole => {
                !facts.output.is_empty() && !self.output.had_delta
                    || !facts.reasoning.is_empty() && !self.reasoning.had_delta
                    || !facts.tools.is_empty() && !self.tools.repeats(&facts.tools)
            }
            Words::Echo => facts.has_content && self.content_events == 0,
        }
    }
}

/// Words of one kind, and whether deltas came since they were last given whole.
#[derive(Debug)]
struct Spoken {
    kept: Kept,
    had_delta: bool,
}

impl Spoken {
    fn new(kept_max: usize) -> Spoken {
        Spoken { kept: Kept::new(kept_max), had_delta: false }
    }

    fn merge(&mut self, words: &Kept, how: Words) {
        if words.is_empty() {
            return;
        }
        match how {
            Words::Delta => {
                self.kept.append(words);
                self.had_delta = true;
            }
            Words::Whole => {
                if !self.had_delta {
                    self.kept.append(words);
                }
                self.had_delta = false;
            }
            Words::Echo => {
                if self.kept.is_empty() {
                    self.kept.append(words);
                }
            }
        }
    }
}

/// Tool calls, written as JSON while they come.
#[derive(Debug)]
struct Tools {
    kept: Kept,
    /// The call that is open: its index, its id, and whether it has arguments.
    open: Option<(Option<u64>, Vec<u8>)>,
    has_arguments: bool,
}

impl Tools {
    fn new(kept_max: usize) -> Tools {
        Tools { kept: Kept::new(kept_max), open: None, has_arguments: false }
    }

    fn merge(&mut self, parts: &[ToolPart], how: Words) {
        if how == Words::Echo && self.open.is_some() {
            return;
        }
        for part in parts {
            if !self.continues(part) {
                self.begin(part);
            } else if how == Words::Whole && self.has_arguments {
                continue;
            }
            self.has_arguments |= !part.arguments.is_empty();
            let (head, lost, tail) = part.arguments.pieces();
            escape(head, |escaped| self.kept.push(escaped));
            self.kept.lose(lost);
            escape(tail, |escaped| self.kept.push(escaped));
        }
    }

    /// Whether `parts` bring nothing new.
    fn repeats(&self, parts: &[ToolPart]) -> bool {
        parts.iter().all(|part| self.continues(part) && (self.has_arguments || part.arguments.is_empty()))
    }

    /// Whether `part` belongs to the open call: it has its index or none, and no other id. A name without either is a
    /// call of its own.
    fn continues(&self, part: &ToolPart) -> bool {
        let Some((index, id)) = &self.open else { return false };
        let same_id = part.id.is_empty() || part.id == *id;
        let same_index = part.index.is_none() || part.index == *index;
        let names_another = part.index.is_none() && part.id.is_empty() && !part.name.is_empty();
        same_id && same_index && !names_another
    }

    fn begin(&mut self, part: &ToolPart) {
        let kept = &mut self.kept;
        kept.push(if self.open.is_some() { b"\"},{" } else { b"[{" });
        for (member, value) in [("id", &part.id), ("name", &part.name)] {
            if !value.is_empty() {
                kept.push(format!("\"{member}\":\"").as_bytes());
                escape(value, |escaped| kept.push(escaped));
                kept.push(b"\",");
            }
        }
        kept.push(b"\"arguments\":\"");
        self.open = Some((part.index, part.id.clone()));
        self.has_arguments = false;
    }

    fn text(&self) -> Option<String> {
        let mut whole = self.kept.clone();
        if !whole.is_empty() {
            whole.push(b"\"}]");
        }
        whole.text()
    }
}

fn replace(kept: &mut Vec<u8>, later: &[u8]) {
    if !later.is_empty() && kept != later {
        kept.clear();
        kept.extend_from_slice(later);
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| lossy(bytes).into_owned())
}
