//! What the documents of one reply say together, and the report made of it.

use std::mem;

use super::choices::EndedChoices;
use super::document::DocumentFacts;
use super::grammar::Grammar;
use super::numbers::ToldNumbers;
use super::progress::ReadSoFar;
use super::text::lossy;
use super::tools::Tools;
use super::usage_report::UsageReport;
use super::word_pace::WordPace;
use super::words::{ReplyWords, Telling};

/// The sum of what was read. Later values replace earlier ones; nothing is added up.
#[derive(Debug, Default)]
pub struct Account {
    model: Vec<u8>,
    id: Vec<u8>,
    finish: Vec<u8>,
    error: Option<Vec<u8>>,
    choices: EndedChoices,
    /// An event that is taken out tells counts in `timings`.
    pub told_beside: bool,
    numbers: ToldNumbers,
    pace: WordPace,
    output: ReplyWords,
    reasoning: ReplyWords,
    tools: Tools,
}

impl Account {
    /// Of no document yet, keeping so many bytes of each kind of words.
    pub fn new(kept_max: usize) -> Account {
        Account {
            output: ReplyWords::new(kept_max),
            reasoning: ReplyWords::new(kept_max),
            tools: Tools::new(kept_max),
            ..Account::default()
        }
    }

    /// Takes what a whole document says, which came at `now_us`.
    pub fn merge(&mut self, facts: &DocumentFacts, now_us: u64) {
        replace(&mut self.model, &facts.model);
        replace(&mut self.id, &facts.id);
        replace(&mut self.finish, &facts.finish);
        // The first error is the cause, those after it are consequences.
        if self.error.is_none() {
            self.error = facts.error.words();
        }
        self.choices.merge(facts.choices.ended);
        // Where there are no choices, whoever tells a reason has finished.
        if facts.choices.ended.is_empty() && !facts.finish.is_empty() {
            self.choices.note(0, true);
        }
        self.numbers.merge(&facts.numbers);
        if self.is_content(facts) {
            self.pace.count(now_us, facts.words.said);
        }
        let telling = facts.words.telling;
        self.output.merge(&facts.words.output.words, telling);
        self.reasoning.merge(&facts.words.reasoning.words, telling);
        self.tools.merge(&facts.calls.parts, telling);
    }

    /// The same of an event that repeats the one before it with other words: about all else it says nothing new.
    pub fn merge_repeated(&mut self, facts: &DocumentFacts, now_us: u64) {
        self.pace.count(now_us, facts.words.said);
        self.output.merge(&facts.words.output.words, Telling::Delta);
        self.reasoning.merge(&facts.words.reasoning.words, Telling::Delta);
    }

    /// An error that is no document: `event: error` with text that is no JSON.
    pub fn error(&mut self, message: &[u8]) {
        self.error.get_or_insert_with(|| message.to_vec());
    }

    /// Which choices have told why they ended.
    pub fn choices(&self) -> &EndedChoices {
        &self.choices
    }

    /// The model that answers, if that was told.
    pub fn model(&self) -> Option<String> {
        text(&self.model)
    }

    /// How far the answer has come.
    pub fn read_so_far(&self) -> ReadSoFar {
        let WordPace { first_us, events: words, .. } = self.pace;
        ReadSoFar { events: None, words, first_us, output_tokens: self.numbers.output_so_far() }
    }

    /// Whether an error was reported.
    pub fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// The report, which takes the words along: a later one has none. `terminal`: a terminal event was seen; `streamed`:
    /// the reply came as events.
    pub fn report(&mut self, grammar: &Grammar, terminal: bool, streamed: bool) -> UsageReport {
        let finished = self.choices.have_all_ended();
        let (counts, from_timings) = self.numbers.settled(terminal || finished);
        let mut work = self.numbers.work;
        work.tokens_per_second = work.tokens_per_second.or_else(|| self.pace.tokens_per_second(counts.output?));
        let source = if from_timings { "timings" } else { grammar.source };
        UsageReport {
            model: text(&self.model),
            id: text(&self.id),
            counts,
            work,
            usage_source: counts.is_known().then_some(source),
            finish_reason: text(&self.finish),
            error: self.error.as_deref().and_then(text),
            terminal,
            finished,
            streamed,
            told_beside: self.told_beside,
            needs_terminal: streamed && grammar.needs_terminal,
            first_content_us: self.pace.first_us.filter(|_| streamed),
            content_events: if streamed { self.pace.events } else { 0 },
            output: mem::take(&mut self.output.words).into_text(),
            reasoning: mem::take(&mut self.reasoning.words).into_text(),
            tool_calls: mem::take(&mut self.tools).into_text(),
        }
    }

    /// Whether the document brings words that were not there yet.
    fn is_content(&self, facts: &DocumentFacts) -> bool {
        match facts.words.telling {
            Telling::Delta => facts.has_content,
            // `….done` after deltas repeats them.
            Telling::Whole => {
                !facts.words.output.words.is_empty() && !self.output.had_delta
                    || !facts.words.reasoning.words.is_empty() && !self.reasoning.had_delta
                    || !facts.calls.parts.is_empty() && !self.tools.repeats(&facts.calls.parts)
            }
            Telling::Echo => facts.has_content && self.pace.events == 0,
        }
    }
}

fn replace(known: &mut Vec<u8>, later: &[u8]) {
    // Nearly every event tells the same as the one before.
    if !later.is_empty() && known != later {
        later.clone_into(known);
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| lossy(bytes).into_owned())
}
