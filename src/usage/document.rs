//! What one document (an event's data, or a whole body) says. It counts only once the document proved to be whole:
//! see [`super::account`].

use super::choices::DocumentChoices;
use super::error::ToldError;
use super::escapes::Unescape;
use super::json::{JsonSink, Scalar};
use super::numbers::{ToldNumbers, count};
use super::role::JsonRole::{self, *};
use super::tools::DocumentCalls;
use super::words::{DocumentWords, WordPieces};

/// What one document says. Texts are empty where not told. Buffers are reused: no event allocates.
#[derive(Debug)]
pub struct DocumentFacts {
    /// [`member`](super::grammar::Grammar::member) of the dialect.
    member: fn(JsonRole, &[u8]) -> JsonRole,
    /// The model that answers.
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
    /// `type` of the part or item that is being read.
    part_kind: Vec<u8>,
    /// What it says of an error.
    pub error: ToldError,
    /// Its numbers.
    pub numbers: ToldNumbers,
    /// `choices`.
    pub choices: DocumentChoices,
    /// Its words.
    pub words: DocumentWords,
    /// Tool calls.
    pub calls: DocumentCalls,
    /// `usage` is an object.
    pub has_usage_object: bool,
    /// There are words, or a piece of a tool call, of any choice.
    pub has_content: bool,
    /// There were, whatever the dialect makes of them, or a choice has finished.
    pub carries: bool,
    /// A message tells its role, or words, be they empty.
    pub is_opening: bool,
}

impl DocumentFacts {
    /// Facts of a dialect, keeping so many bytes of each kind of words.
    pub fn new(member: fn(JsonRole, &[u8]) -> JsonRole, kept_max: usize) -> DocumentFacts {
        DocumentFacts {
            member,
            model: Vec::new(),
            id: Vec::new(),
            kind: Vec::new(),
            finish: Vec::new(),
            finish_detail: Vec::new(),
            status: Vec::new(),
            part_kind: Vec::new(),
            error: ToldError::default(),
            numbers: ToldNumbers::default(),
            choices: DocumentChoices::default(),
            words: DocumentWords::new(kept_max),
            calls: DocumentCalls::new(kept_max),
            has_usage_object: false,
            has_content: false,
            carries: false,
            is_opening: false,
        }
    }

    /// Another document begins.
    pub fn clear(&mut self) {
        let texts = [&mut self.model, &mut self.id, &mut self.kind, &mut self.finish, &mut self.finish_detail];
        texts.into_iter().for_each(Vec::clear);
        self.status.clear();
        self.part_kind.clear();
        self.error.clear();
        self.numbers = ToldNumbers::default();
        self.choices = DocumentChoices::default();
        self.words.clear();
        self.calls.clear();
        (self.has_usage_object, self.has_content, self.carries, self.is_opening) = (false, false, false, false);
    }

    /// Forgets the words, but not that there were some.
    pub fn clear_words(&mut self) {
        self.words.clear_text();
        self.calls.parts.clear();
    }

    /// The document is whole; `name` is that of the event.
    pub fn end(&mut self, name: &[u8]) {
        if self.kind.is_empty() {
            self.kind.extend_from_slice(name);
        }
        self.error.is_told |= self.kind == b"error" || name == b"error";
    }

    /// Whether this is a chunk that `include_usage` brings: a usage object, and nothing that the client would have had
    /// without. Most servers send it with empty `choices`, Go's with `null`, some without any, LiteLLM, Azure and
    /// mlx-dspark with a choice whose delta is empty. Where one stands beside the counts of a stream that goes on (some
    /// tell them in every chunk), it is a chunk of its own only if it says nothing at all.
    pub fn is_usage_chunk(&self, all_finished: bool) -> bool {
        let says_nothing = !self.is_opening && self.numbers.counts.is_positive();
        let is_free = !self.choices.are_told || all_finished || says_nothing;
        self.has_usage_object && !self.error.is_told && !self.carries && is_free
    }

    /// Says the same with other words, given as the inside of a JSON string and its closing quote: see
    /// [`super::repeat`].
    pub fn say_instead(&mut self, at: JsonRole, words: &[u8]) {
        self.clear_words();
        self.words.said = 0;
        Unescape::default().feed(words, |piece| self.push(at, piece));
    }

    /// Loose words turn out to be arguments of a tool call.
    pub fn loose_is_arguments(&mut self) {
        self.calls.current().arguments.append(&self.words.loose.words);
        self.words.loose.clear();
    }

    fn push(&mut self, at: JsonRole, piece: &[u8]) {
        if at == Arguments {
            self.calls.current().arguments.push(piece);
        }
        self.words.push(at, piece);
    }

    fn text(&mut self, at: JsonRole, value: &[u8]) {
        let kept = match at {
            Model => &mut self.model,
            Id => &mut self.id,
            // Whatever else the document calls itself: vLLM's error has a `type` of its own beside `object`.
            Kind | KindBeside => {
                self.error.is_told |= value == b"error";
                if at == KindBeside {
                    return;
                }
                &mut self.kind
            }
            PartKind => &mut self.part_kind,
            Status => &mut self.status,
            Finish | OtherFinish => {
                if !value.is_empty() {
                    self.carries = true;
                    self.choices.finish();
                }
                if at == OtherFinish {
                    return;
                }
                &mut self.finish
            }
            FinishDetail => &mut self.finish_detail,
            MessageRole => {
                self.is_opening |= !value.is_empty();
                return;
            }
            ToolId => &mut self.calls.current().id,
            ItemId => return self.calls.item(value),
            ToolName => {
                self.note_call();
                &mut self.calls.current().name
            }
            _ => return self.error.tell(at, value),
        };
        value.clone_into(kept);
    }

    fn number(&mut self, at: JsonRole, written: &[u8]) {
        match at {
            ChoiceIndex => {
                self.choices.first_index = count(written);
                self.choices.index(self.choices.first_index);
            }
            OtherIndex => self.choices.index(count(written)),
            ToolIndex => self.calls.index(count(written)),
            _ => self.numbers.tell(at, written),
        }
    }

    /// A piece of a tool call came.
    fn note_call(&mut self) {
        (self.has_content, self.carries) = (true, true);
    }

    /// What an item of a list turned out to be. Tools that are built in have no name but the kind of their call.
    fn end_item(&mut self) {
        if self.part_kind.ends_with(b"_output") {
            self.calls.forget_current();
        } else if self.part_kind.ends_with(b"_call") {
            let call = self.calls.current();
            if call.name.is_empty() {
                call.name.clone_from(&self.part_kind);
                self.has_content = true;
            }
        }
    }
}

impl JsonSink for DocumentFacts {
    type Role = JsonRole;

    fn member(&mut self, at: JsonRole, name: &[u8]) -> JsonRole {
        let role = (self.member)(at, name);
        let holds_words = matches!(role, Output | Reasoning | Parts | Loose);
        if holds_words && matches!(at, Root | Message | Choice | Item) {
            self.words.begin_member();
        }
        // llama-cpp-python tells a call under its old name, too.
        if at == Message && role == Function && !self.calls.parts.is_empty() {
            return Skip;
        }
        role
    }

    fn element(&mut self, at: JsonRole, index: u32) -> JsonRole {
        match at {
            Choices => {
                self.choices.begin(index);
                if index == 0 { Choice } else { OtherChoice }
            }
            ToolCalls => {
                self.calls.begin_call(index);
                ToolCall
            }
            Items => Item,
            // `content` as a list of parts instead of a string.
            Parts | Output | Loose => Part,
            // So are thoughts, and each part of those is one.
            Reasoning | Unkept => at,
            UnkeptCalls => {
                self.note_call();
                Skip
            }
            // Lists of errors, and of what is wrong.
            Error | ErrorMessage | Note | Detail => at,
            _ => Skip,
        }
    }

    fn open(&mut self, at: JsonRole, is_object: bool) {
        match at {
            Usage => self.has_usage_object |= is_object,
            Error => self.error.begin(),
            Part => self.part_kind.clear(),
            Item => {
                self.part_kind.clear();
                self.calls.begin_item();
                self.words.begin_item();
            }
            ToolCall => self.note_call(),
            UnkeptCalls if is_object => self.note_call(),
            _ => {}
        }
    }

    fn close(&mut self, at: JsonRole) {
        match at {
            Choice | OtherChoice => self.choices.end(),
            Error => self.error.end(),
            _ => {}
        }
        if matches!(at, Part | Item) && !self.words.loose.words.is_empty() {
            match self.part_kind.as_slice() {
                b"reasoning" | b"reasoning_text" | b"reasoning_content" | b"summary_text" | b"thinking" => {
                    self.words.loose_is_reasoning();
                }
                _ => self.words.loose_is_output(),
            }
        }
        if at == Item {
            self.end_item();
        }
    }

    fn scalar(&mut self, at: JsonRole, value: Scalar<'_>) {
        match value {
            Scalar::Text(text) => {
                self.text(at, text);
                // Some servers put their numbers in quotes.
                let is_speed = matches!(at, TokensPerSecond | PromptPerSecond);
                if !text.is_empty() && (is_speed || text.iter().all(u8::is_ascii_digit)) {
                    self.number(at, text);
                }
            }
            Scalar::Number(written) => {
                self.number(at, written);
                self.error.tell_number(at, written);
            }
            Scalar::True => self.error.is_told |= at == Error,
            Scalar::Nothing => {}
        }
    }

    fn words(&mut self, at: JsonRole, piece: &[u8]) {
        self.is_opening = true;
        if piece.is_empty() {
            return;
        }
        (self.has_content, self.carries) = (true, true);
        self.words.pieces = match self.words.pieces {
            WordPieces::None => WordPieces::One(at, piece.as_ptr().addr(), piece.len()),
            WordPieces::One(..) | WordPieces::More => WordPieces::More,
        };
        self.push(at, piece);
    }
}
