//! What one document (an event's data, or a whole body) says. It counts only once the document proved to be whole:
//! see [`super::account`].

use super::counts::{Counts, Timings, Work, replace};
use super::escapes::Unescape;
use super::excerpt::Excerpt;
use super::grammar::Grammar;
use super::json::{Scalar, Sink, count, figure};
use super::role::JsonRole;
use super::tools::ToolPart;
use super::words::Words;
use crate::limits::{ERROR_WORDS_BYTES_MAX, PROMPT_PER_SECOND_TOLD_MAX, TOKENS_PER_SECOND_TOLD_MAX};

/// What is known of `choices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choices {
    /// The document has none so far.
    Absent,
    /// An array without elements so far.
    Empty,
    /// An array with an element.
    Filled,
}

/// The pieces of words in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// None so far.
    Nothing,
    /// One: its role, the address of its first byte, its length. The address is only compared, to find it again in
    /// the bytes that were fed.
    Once(JsonRole, usize, usize),
    /// Several.
    More,
}

/// What one document says.
#[derive(Debug)]
pub struct Facts {
    grammar: &'static Grammar,
    /// Bytes of words kept, each kind.
    kept_max: usize,

    /// Empty where not told, as all byte strings here. Buffers are reused: no event allocates.
    pub model: Vec<u8>,
    /// The reply's id.
    pub id: Vec<u8>,
    /// The document's own name for what it is: `type` or `object`.
    pub kind: Vec<u8>,
    /// `stop`, `length`, …
    pub finish: Vec<u8>,
    /// A closer reason, which replaces `finish`.
    pub finish_detail: Vec<u8>,
    /// `status` of a response.
    pub status: Vec<u8>,
    /// An error is reported.
    pub has_error: bool,
    /// Its message.
    pub error_message: Vec<u8>,
    /// Other words of it.
    error_reason: Vec<u8>,
    /// Code or type of the error.
    pub error_code: Vec<u8>,
    /// `message` at the root.
    pub note: Vec<u8>,
    /// `detail`; several are joined, as messages are.
    detail: Vec<u8>,
    /// It is a text by itself, a label perhaps, and what stands beside says more.
    error_is_label: bool,
    /// Errors that are open.
    errors_open: u32,
    /// From `usage` or `stats`.
    pub counts: Counts,
    /// Tokens of the answer as told before there was any: see [`super::messages`].
    pub early_output: Option<u64>,
    /// From `timings`.
    pub timings: Timings,
    /// Upstream's own figures.
    pub work: Work,
    /// `choices`.
    pub choices: Choices,
    /// `usage` is an object.
    pub has_usage_object: bool,
    /// `index` of the only choice.
    pub choice_index: Option<u64>,
    /// There are words, or a piece of a tool call, of any choice.
    pub has_content: bool,
    /// There were, whatever the dialect makes of them, or a choice has finished.
    pub carries: bool,
    /// A message tells its role, or words, be they empty.
    pub is_opening: bool,
    /// Choices that appear, and those that tell their `finish_reason`: a bit for each index.
    pub choices_seen: u64,
    pub choices_finished: u64,
    /// The choice that is being read: its index, and whether it has finished.
    choice: (u64, bool),
    /// How the words relate to those before.
    pub words: Words,
    /// Text of the answer.
    pub output: Excerpt,
    /// Reasoning.
    pub reasoning: Excerpt,
    /// Words whose kind the object around them, or the document, tells.
    pub loose: Excerpt,
    /// The only piece of words so far.
    pub spoken: Spoken,
    /// Bytes of all words, those of any choice.
    pub said: u64,
    /// Which of the members that hold words is being read, and which one told the answer and the reasoning. 0: none.
    source: u32,
    output_source: u32,
    reasoning_source: u32,
    loose_source: u32,
    part_kind: Vec<u8>,
    /// Tool calls.
    pub tools: Vec<ToolPart>,
    tool_index: Option<u64>,
    item: Vec<u8>,
    in_tool: bool,
}

impl Facts {
    /// Facts of a dialect, keeping so many bytes of each kind of words.
    pub fn new(grammar: &'static Grammar, kept_max: usize) -> Facts {
        Facts {
            grammar,
            kept_max,
            model: Vec::new(),
            id: Vec::new(),
            kind: Vec::new(),
            finish: Vec::new(),
            finish_detail: Vec::new(),
            status: Vec::new(),
            has_error: false,
            error_message: Vec::new(),
            error_reason: Vec::new(),
            error_code: Vec::new(),
            note: Vec::new(),
            detail: Vec::new(),
            error_is_label: false,
            errors_open: 0,
            counts: Counts::default(),
            early_output: None,
            timings: Timings::default(),
            work: Work::default(),
            choices: Choices::Absent,
            has_usage_object: false,
            choice_index: None,
            has_content: false,
            carries: false,
            is_opening: false,
            choices_seen: 0,
            choices_finished: 0,
            choice: (0, false),
            words: Words::Delta,
            output: Excerpt::new(kept_max),
            reasoning: Excerpt::new(kept_max),
            loose: Excerpt::new(kept_max),
            spoken: Spoken::Nothing,
            said: 0,
            source: 0,
            output_source: 0,
            reasoning_source: 0,
            loose_source: 0,
            part_kind: Vec::new(),
            tools: Vec::new(),
            tool_index: None,
            item: Vec::new(),
            in_tool: false,
        }
    }

    /// Forgets everything; buffers stay.
    pub fn clear(&mut self) {
        let texts = [&mut self.model, &mut self.id, &mut self.kind, &mut self.finish, &mut self.finish_detail];
        texts.into_iter().for_each(Vec::clear);
        let texts = [&mut self.status, &mut self.error_message, &mut self.error_code, &mut self.note];
        texts.into_iter().for_each(Vec::clear);
        self.error_reason.clear();
        self.detail.clear();
        self.has_error = false;
        self.error_is_label = false;
        self.errors_open = 0;
        self.counts = Counts::default();
        self.early_output = None;
        self.timings = Timings::default();
        self.work = Work::default();
        self.choices = Choices::Absent;
        self.has_usage_object = false;
        self.choice_index = None;
        self.has_content = false;
        self.carries = false;
        self.is_opening = false;
        (self.choices_seen, self.choices_finished) = (0, 0);
        self.words = Words::Delta;
        self.spoken = Spoken::Nothing;
        self.said = 0;
        (self.source, self.output_source, self.reasoning_source, self.loose_source) = (0, 0, 0, 0);
        self.clear_words();
        self.part_kind.clear();
        self.item.clear();
        self.tool_index = None;
        self.in_tool = false;
    }

    /// Forgets the words, but not that there were some.
    pub fn clear_words(&mut self) {
        self.clear_text();
        self.tools.clear();
    }

    /// The same, without those of tool calls.
    pub fn clear_text(&mut self) {
        self.output.clear();
        self.reasoning.clear();
        self.clear_loose();
    }

    fn clear_loose(&mut self) {
        self.loose.clear();
        self.loose_source = 0;
    }

    /// The document is whole; `name` is that of the event.
    pub fn end(&mut self, name: &[u8]) {
        if self.kind.is_empty() {
            self.kind.extend_from_slice(name);
        }
        if self.kind == b"error" || name == b"error" {
            self.has_error = true;
        }
    }

    /// What the error says, in its own words as far as it has any.
    pub fn error(&self) -> Option<Vec<u8>> {
        if !self.has_error {
            return None;
        }
        let told = [&self.error_message, &self.note, &self.detail, &self.error_reason, &self.error_code];
        let Some(first) = told.into_iter().find(|words| !words.is_empty()) else {
            return Some(b"an error without a message".to_vec());
        };
        // `{"error": "Bad Request", "message": "…"}`
        let mut beside = [&self.note, &self.detail].into_iter().filter(|words| !words.is_empty() && *words != first);
        Some(match beside.next().filter(|_| self.error_is_label) {
            Some(more) => [first, &b": "[..], more].concat(),
            None => first.clone(),
        })
    }

    /// The document is the reply to a request that failed: what it says is an error, however it says it.
    pub fn is_of_a_failure(&mut self) {
        self.has_error |= !self.note.is_empty() || !self.detail.is_empty();
    }

    /// Whether this is a chunk that `include_usage` brings: a usage object, and nothing that the client would have had
    /// without. Most servers send it with empty `choices`, Go's with `null`, some without any, LiteLLM, Azure and
    /// mlx-dspark with a choice whose delta is empty. Where one stands beside the counts of a stream that goes on (some
    /// tell them in every chunk), it is a chunk of its own only if it says nothing at all.
    pub fn is_usage_chunk(&self, all_finished: bool) -> bool {
        let is_free = match self.choices {
            Choices::Absent | Choices::Empty => true,
            Choices::Filled => all_finished || !self.is_opening && self.counts.is_positive(),
        };
        self.has_usage_object && !self.has_error && !self.carries && is_free
    }

    /// The tool call that is being read.
    pub fn tool(&mut self) -> &mut ToolPart {
        if !self.in_tool || self.tools.is_empty() {
            self.in_tool = true;
            self.tools.push(ToolPart::new(self.tool_index, &self.item, self.kept_max));
        }
        let last = self.tools.len() - 1;
        &mut self.tools[last]
    }

    /// Loose words turn out to be of the answer.
    pub fn loose_is_output(&mut self) {
        if is_first(&mut self.output_source, self.source) {
            self.output.append(&self.loose);
        }
        self.clear_loose();
    }

    /// Loose words turn out to be reasoning.
    pub fn loose_is_reasoning(&mut self) {
        if is_first(&mut self.reasoning_source, self.source) {
            self.reasoning.append(&self.loose);
        }
        self.clear_loose();
    }

    /// Loose words turn out to be arguments of a tool call.
    pub fn loose_is_arguments(&mut self) {
        let loose = std::mem::replace(&mut self.loose, Excerpt::new(self.kept_max));
        self.clear_loose();
        self.tool().arguments.append(&loose);
    }

    fn keep(&mut self, at: JsonRole, value: &[u8]) {
        match at {
            // Whatever else the document calls itself: vLLM's error has a `type` of its own beside `object`.
            JsonRole::Kind | JsonRole::KindBeside => self.has_error |= value == b"error",
            JsonRole::ErrorMessage | JsonRole::ErrorReason | JsonRole::Detail | JsonRole::ErrorCode => {
                self.has_error |= self.errors_open > 0 && !value.is_empty() && value != b"0";
            }
            JsonRole::Finish | JsonRole::OtherFinish if !value.is_empty() => {
                self.carries = true;
                self.choice.1 = true;
            }
            _ => {}
        }
        let kept = match at {
            JsonRole::Model => &mut self.model,
            JsonRole::Id => &mut self.id,
            JsonRole::Kind => &mut self.kind,
            JsonRole::PartKind => &mut self.part_kind,
            JsonRole::Status => &mut self.status,
            JsonRole::Finish => &mut self.finish,
            JsonRole::FinishDetail => &mut self.finish_detail,
            JsonRole::ErrorMessage => return join(&mut self.error_message, value),
            JsonRole::ErrorReason => &mut self.error_reason,
            JsonRole::ErrorCode => &mut self.error_code,
            // Where an object was expected.
            JsonRole::Note | JsonRole::Beginning => &mut self.note,
            JsonRole::Detail => return join(&mut self.detail, value),
            JsonRole::Error if !value.is_empty() => {
                self.has_error = true;
                self.error_is_label = true;
                return join(&mut self.error_message, value);
            }
            JsonRole::MessageRole => {
                self.is_opening |= !value.is_empty();
                return;
            }
            JsonRole::OtherFinish => return,
            JsonRole::ToolId => &mut self.tool().id,
            JsonRole::ItemId => {
                if self.in_tool {
                    self.tool().item = value.to_vec();
                }
                &mut self.item
            }
            JsonRole::ToolName => {
                self.has_content = true;
                self.carries = true;
                &mut self.tool().name
            }
            _ => return,
        };
        kept.clear();
        kept.extend_from_slice(value);
    }

    fn number(&mut self, at: JsonRole, written: &[u8]) {
        match at {
            JsonRole::TokensPerSecond => told(&mut self.work.tokens_per_second, written, TOKENS_PER_SECOND_TOLD_MAX),
            JsonRole::PromptPerSecond => told(&mut self.work.prompt_per_second, written, PROMPT_PER_SECOND_TOLD_MAX),
            JsonRole::LoadSeconds => self.work.load_seconds = figure(written),
            _ => self.count(at, count(written)),
        }
    }

    /// A count has several names, and may be told under each of them.
    fn count(&mut self, at: JsonRole, counted: Option<u64>) {
        match at {
            JsonRole::InputTokens => replace(&mut self.counts.input, counted),
            JsonRole::OutputTokens => replace(&mut self.counts.output, counted),
            JsonRole::TotalTokens => replace(&mut self.counts.total, counted),
            JsonRole::CachedTokens => replace(&mut self.counts.cached, counted),
            JsonRole::CacheWriteTokens => replace(&mut self.counts.cache_write, counted),
            JsonRole::ReasoningTokens => replace(&mut self.counts.reasoning, counted),
            JsonRole::DraftTokens => replace(&mut self.work.drafted, counted),
            JsonRole::AcceptedDraftTokens => replace(&mut self.work.accepted, counted),
            JsonRole::PromptN => self.timings.prompt = counted,
            JsonRole::CacheN => self.timings.cached = counted,
            JsonRole::PredictedN => self.timings.predicted = counted,
            JsonRole::ChoiceIndex | JsonRole::OtherIndex => {
                self.choice.0 = counted.unwrap_or(self.choice.0);
                if at == JsonRole::ChoiceIndex {
                    self.choice_index = counted;
                }
            }
            JsonRole::ToolIndex => {
                self.tool_index = counted;
                if self.in_tool {
                    self.tool().index = counted;
                }
            }
            _ => {}
        }
    }

    /// What an item of a list turned out to be. Tools that are built in have no name but the kind of their call.
    fn end_item(&mut self) {
        let is_result = self.part_kind.ends_with(b"_output");
        if self.in_tool && is_result {
            self.tools.pop();
        }
        if !self.part_kind.ends_with(b"_call") {
            return;
        }
        let kind = std::mem::take(&mut self.part_kind);
        let tool = self.tool();
        if tool.name.is_empty() {
            tool.name.extend_from_slice(&kind);
            self.has_content = true;
        }
        self.part_kind = kind;
    }
}

/// Whether words of the member `source` count: only those of the first member that has any. Servers tell the same words
/// under several names, so that clients of each find them.
fn is_first(first: &mut u32, source: u32) -> bool {
    if *first == 0 {
        *first = source;
    }
    *first == source
}

/// Words of an error, of which there may be several, in a list or one in another.
fn join(words: &mut Vec<u8>, more: &[u8]) {
    if more.is_empty() || words == more || words.len() + more.len() > ERROR_WORDS_BYTES_MAX {
        return;
    }
    if !words.is_empty() {
        words.extend_from_slice(b"; ");
    }
    words.extend_from_slice(more);
}

/// Takes a speed that can be one. Nothing at all is no speed: it stands for a figure that was not worked out.
fn told(figure_told: &mut Option<f64>, written: &[u8], max: f64) {
    *figure_told = figure(written).filter(|speed| *speed > 0.0 && *speed < max).or(*figure_told);
}

impl Sink for Facts {
    fn member(&mut self, at: JsonRole, name: &[u8]) -> JsonRole {
        let role = (self.grammar.member)(at, name);
        let holds_words = matches!(role, JsonRole::Output | JsonRole::Reasoning | JsonRole::Parts | JsonRole::Loose);
        if holds_words && matches!(at, JsonRole::Root | JsonRole::Message | JsonRole::Choice | JsonRole::Item) {
            self.source += 1;
        }
        // llama-cpp-python tells a call under its old name, too.
        if at == JsonRole::Message && role == JsonRole::Function && !self.tools.is_empty() {
            return JsonRole::Skip;
        }
        role
    }

    fn element(&mut self, at: JsonRole, index: u32) -> JsonRole {
        match at {
            JsonRole::Choices => {
                self.choices = Choices::Filled;
                self.choice = (u64::from(index), false);
                if index == 0 { JsonRole::Choice } else { JsonRole::OtherChoice }
            }
            JsonRole::ToolCalls => {
                // A second list in one document, or a `function_call` before it, tells the same calls.
                if index == 0 {
                    self.tools.clear();
                }
                // Where a call does not tell its index, its position stands for it.
                self.tool_index = Some(u64::from(index));
                self.in_tool = false;
                JsonRole::ToolCall
            }
            JsonRole::Items => {
                self.in_tool = false;
                JsonRole::Item
            }
            // `content` as a list of parts instead of a string.
            JsonRole::Parts | JsonRole::Output | JsonRole::Loose => JsonRole::Part,
            // So are thoughts, and each part of those is one.
            JsonRole::Reasoning | JsonRole::Unkept => at,
            JsonRole::UnkeptCalls => {
                (self.has_content, self.carries) = (true, true);
                JsonRole::Skip
            }
            // Lists of errors, and of what is wrong.
            JsonRole::Error | JsonRole::ErrorMessage | JsonRole::Note | JsonRole::Detail => at,
            _ => JsonRole::Skip,
        }
    }

    fn open(&mut self, at: JsonRole, is_object: bool) {
        match at {
            JsonRole::Choices if !is_object && self.choices == Choices::Absent => self.choices = Choices::Empty,
            JsonRole::Usage => self.has_usage_object |= is_object,
            JsonRole::Error => self.errors_open += 1,
            JsonRole::Part => self.part_kind.clear(),
            JsonRole::Item => {
                self.part_kind.clear();
                self.item.clear();
                (self.output_source, self.reasoning_source) = (0, 0);
            }
            JsonRole::ToolCall => (self.has_content, self.carries) = (true, true),
            JsonRole::UnkeptCalls if is_object => (self.has_content, self.carries) = (true, true),
            _ => {}
        }
    }

    fn close(&mut self, at: JsonRole) {
        match at {
            JsonRole::Choice | JsonRole::OtherChoice => {
                let bit = 1 << self.choice.0.min(63);
                self.choices_seen |= bit;
                self.choices_finished |= if self.choice.1 { bit } else { 0 };
            }
            JsonRole::Error => self.errors_open = self.errors_open.saturating_sub(1),
            _ => {}
        }
        if matches!(at, JsonRole::Part | JsonRole::Item) && !self.loose.is_empty() {
            match self.part_kind.as_slice() {
                b"reasoning" | b"reasoning_text" | b"reasoning_content" | b"summary_text" | b"thinking" => {
                    self.loose_is_reasoning();
                }
                _ => self.loose_is_output(),
            }
        }
        if at == JsonRole::Item {
            self.end_item();
        }
    }

    fn scalar(&mut self, at: JsonRole, value: Scalar<'_>) {
        match value {
            Scalar::Text(text) => {
                self.keep(at, text);
                // Some servers put their numbers in quotes.
                let is_speed = matches!(at, JsonRole::TokensPerSecond | JsonRole::PromptPerSecond);
                if !text.is_empty() && (is_speed || text.iter().all(u8::is_ascii_digit)) {
                    self.number(at, text);
                }
            }
            Scalar::Number(written) => {
                self.number(at, written);
                // `"error": 500`
                if at == JsonRole::Error || at == JsonRole::ErrorCode {
                    self.keep(JsonRole::ErrorCode, written);
                    self.has_error |= at == JsonRole::Error && written != b"0";
                }
            }
            Scalar::True => self.has_error |= at == JsonRole::Error,
            Scalar::Nothing => {}
        }
    }

    fn words(&mut self, at: JsonRole, piece: &[u8]) {
        self.is_opening = true;
        if piece.is_empty() {
            return;
        }
        (self.has_content, self.carries) = (true, true);
        self.spoken = match self.spoken {
            Spoken::Nothing => Spoken::Once(at, piece.as_ptr().addr(), piece.len()),
            Spoken::Once(..) | Spoken::More => Spoken::More,
        };
        self.push(at, piece);
    }
}

impl Facts {
    /// Says the same with other words, given as the inside of a JSON string and its closing quote: see [`super::repeat`].
    pub fn say_instead(&mut self, at: JsonRole, words: &[u8]) {
        self.clear_words();
        self.said = 0;
        // The members that were read behind those words do not tell them.
        (self.output_source, self.reasoning_source) = (0, 0);
        Unescape::default().feed(words, |piece| self.push(at, piece));
    }

    fn push(&mut self, at: JsonRole, piece: &[u8]) {
        match at {
            JsonRole::Output | JsonRole::Answers if !is_first(&mut self.output_source, self.source) => return,
            JsonRole::Reasoning if !is_first(&mut self.reasoning_source, self.source) => return,
            JsonRole::Output | JsonRole::Answers => self.output.push(piece),
            JsonRole::Reasoning => self.reasoning.push(piece),
            JsonRole::Loose if !is_first(&mut self.loose_source, self.source) => return,
            JsonRole::Loose => self.loose.push(piece),
            JsonRole::Arguments => self.tool().arguments.push(piece),
            _ => {}
        }
        self.said += piece.len() as u64;
    }
}
