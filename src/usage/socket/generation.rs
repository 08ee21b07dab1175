//! One generation: from the message that asks for it to the one that ends it.

use std::sync::Arc;

use super::super::counts::TokenCounts;
use super::super::excerpt::Excerpt;
use super::super::numbers::{ServerWork, ToldNumbers};
use super::super::progress::{ReadSoFar, ReplyProgress};
use super::super::text::lossy;
use super::super::tools::{ToolPart, Tools};
use super::super::usage_report::UsageReport;
use super::super::word_pace::WordPace;
use super::super::words::Telling;
use super::models::text;
use super::server_message::{FragmentKind, ServerMessage};

/// One that begins.
#[derive(Debug)]
pub struct BegunGeneration {
    /// Its number, which no other has on this connection.
    pub number: u64,
    /// As [`Generation::endpoint`].
    pub endpoint: &'static str,
    /// When the whole message was there that asks for it, in microseconds of the caller's clock.
    pub began_us: u64,
    /// The model that the client asks for, else the one behind that.
    pub model: Option<String>,
    /// Bytes of the prompt, where words are kept.
    pub prompt_bytes: Option<u64>,
    /// How far it is. Times count from `began_us`.
    pub progress: Arc<ReplyProgress>,
}

/// One that has ended, as the row wants to know it. Unknown is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// As [`BegunGeneration::number`].
    pub number: u64,
    /// `/llm/predict`, `/llm/completeRawText` or `/embedding/embedString`.
    pub endpoint: &'static str,
    /// When the whole message was there that asks for it, in microseconds of the caller's clock.
    pub began_us: u64,
    /// When the whole message was there that ends it, or the connection ended.
    pub ended_us: u64,
    /// The model that the client asked for.
    pub requested_model: Option<String>,
    /// The answer comes word by word.
    pub was_streamed: bool,
    /// The conversation as JSON, or the text, as the client sent it: within the bound, without payloads.
    pub prompt: Option<String>,
    /// What LM Studio says of it. Times count from `began_us`.
    pub report: UsageReport,
    /// How it ended.
    pub end: GenerationEnd,
}

/// How a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationEnd {
    /// It is whole.
    Completed,
    /// The client has stopped it.
    Cancelled,
    /// By an error, which the report tells, or a finish reason that is one.
    Failed,
    /// Its channel was closed without a word about it, or with none that could be read.
    Unanswered,
    /// The connection ended before it did.
    Open,
}

impl Generation {
    /// Why it is no success, where LM Studio's own words do not tell.
    pub fn error(&self) -> Option<&'static str> {
        match self.end {
            GenerationEnd::Failed if self.report.error.is_none() => {
                Some("LM Studio ended the generation for the reason in finish_reason")
            }
            GenerationEnd::Unanswered => Some("LM Studio closed the channel without a result"),
            GenerationEnd::Completed | GenerationEnd::Cancelled | GenerationEnd::Failed | GenerationEnd::Open => None,
        }
    }
}

/// So many of which nothing is known but how they ended.
#[cfg(test)]
pub(crate) fn generations(count: usize, end: impl Fn() -> GenerationEnd) -> Vec<Generation> {
    let generation = |number| Generation {
        number: number as u64,
        endpoint: super::PREDICT,
        began_us: 0,
        ended_us: 0,
        requested_model: None,
        was_streamed: true,
        prompt: None,
        report: UsageReport::default(),
        end: end(),
    };
    (0..count).map(generation).collect()
}

/// One that is still going on.
#[derive(Debug)]
pub struct Running {
    number: u64,
    progress: Arc<ReplyProgress>,
    endpoint: &'static str,
    began_us: u64,
    requested_model: Option<String>,
    /// The model that is behind what was asked for.
    model: Option<String>,
    prompt: Option<String>,
    /// The client has asked to stop it.
    pub is_cancelled: bool,
    /// Its number is that of a channel which has ended, but is not closed yet: the next close is that one's.
    pub follows_another: bool,
    /// What is kept of its words; nothing where they took too much memory.
    kept_max: usize,
    /// There as soon as something is told.
    answer: Option<Box<AnswerSoFar>>,
}

/// What a prediction has said so far.
#[derive(Debug)]
struct AnswerSoFar {
    model: Option<String>,
    numbers: ToldNumbers,
    /// Of the last that told how far the prompt is processed.
    cached: Option<u64>,
    finish: Option<String>,
    pace: WordPace,
    output: Excerpt,
    reasoning: Excerpt,
    tools: Tools,
    /// Pieces of a tool call came, which is not whole yet.
    is_in_call: bool,
}

impl AnswerSoFar {
    fn new(kept_max: usize) -> AnswerSoFar {
        AnswerSoFar {
            model: None,
            numbers: ToldNumbers::default(),
            cached: None,
            finish: None,
            pace: WordPace::default(),
            output: Excerpt::new(kept_max),
            reasoning: Excerpt::new(kept_max),
            tools: Tools::new(kept_max),
            is_in_call: false,
        }
    }

    /// As told. A count of what the cache had is not one of `stats`, and no more than the prompt.
    fn counts(&self) -> TokenCounts {
        let counts = self.numbers.counts.settled();
        TokenCounts { cached: self.cached.filter(|cached| counts.input.is_none_or(|input| *cached <= input)), ..counts }
    }
}

impl Running {
    /// One that begins, with its number, the model that it asks for and the one behind that.
    pub fn new(
        number: u64,
        endpoint: &'static str,
        began_us: u64,
        (requested_model, model): (Option<String>, Option<String>),
        prompt: Option<String>,
        kept_max: usize,
    ) -> Running {
        Running {
            number,
            progress: Arc::default(),
            endpoint,
            began_us,
            requested_model,
            model,
            prompt,
            is_cancelled: false,
            follows_another: false,
            kept_max,
            answer: None,
        }
    }

    /// What it is at its beginning.
    pub fn begun(&self) -> BegunGeneration {
        BegunGeneration {
            number: self.number,
            endpoint: self.endpoint,
            began_us: self.began_us,
            model: self.requested_model.clone().or_else(|| self.model.clone()),
            prompt_bytes: self.prompt.as_ref().map(|prompt| prompt.len() as u64),
            progress: self.progress.clone(),
        }
    }

    /// Takes words.
    pub fn fragment(&mut self, message: &ServerMessage, at_us: u64) {
        let after_us = self.after(at_us);
        let answer = self.answer();
        answer.pace.count(after_us, message.said);
        match message.fragment {
            FragmentKind::Answer => answer.output.append(&message.content),
            FragmentKind::Reasoning => answer.reasoning.append(&message.content),
            FragmentKind::Other => {}
        }
        self.tell_progress(after_us);
    }

    /// Takes how far the prompt is processed.
    pub fn progress(&mut self, message: &ServerMessage) {
        let answer = self.answer();
        answer.cached = message.numbers.counts.cached.or(answer.cached);
    }

    /// Takes a piece of a tool call: the whole one will be told.
    pub fn call_piece(&mut self, message: &ServerMessage, at_us: u64) {
        let after_us = self.after(at_us);
        let answer = self.answer();
        answer.is_in_call = true;
        answer.pace.count(after_us, message.said);
        self.tell_progress(after_us);
    }

    /// Takes a whole tool call.
    pub fn call(&mut self, message: &mut ServerMessage, at_us: u64) {
        let (after_us, kept_max) = (self.after(at_us), self.kept_max);
        let answer = self.answer();
        if !std::mem::take(&mut answer.is_in_call) {
            answer.pace.count(after_us, message.said);
        }
        if kept_max == 0 {
            return self.tell_progress(after_us);
        }
        let mut call = ToolPart::new(None, b"", kept_max);
        std::mem::swap(&mut call.id, &mut message.tool_id);
        std::mem::swap(&mut call.name, &mut message.tool_name);
        std::mem::swap(&mut call.arguments, &mut message.arguments);
        answer.tools.merge(&[call], Telling::Whole);
        self.tell_progress(after_us);
    }

    /// Takes the message of its success; how it has ended.
    pub fn success(&mut self, message: &ServerMessage) -> GenerationEnd {
        let answer = self.answer();
        answer.numbers.merge(&message.numbers);
        answer.model = message.models.last().and_then(|model| model.name());
        answer.finish = text(&message.finish);
        match message.finish.as_slice() {
            b"userStopped" => GenerationEnd::Cancelled,
            b"failed" | b"modelUnloaded" => GenerationEnd::Failed,
            _ => GenerationEnd::Completed,
        }
    }

    /// Forgets its words, and keeps no more.
    pub fn forget_words(&mut self) {
        (self.prompt, self.kept_max) = (None, 0);
        if let Some(answer) = &mut self.answer {
            (answer.output, answer.reasoning) = (Excerpt::new(0), Excerpt::new(0));
            answer.tools = Tools::new(0);
        }
    }

    /// What its words take in memory, nearly.
    pub fn words_bytes(&self) -> usize {
        let answer = self.answer.as_deref();
        let words = |it: &AnswerSoFar| it.output.bytes() + it.reasoning.bytes() + it.tools.bytes();
        self.prompt.as_ref().map_or(0, String::len) + answer.map_or(0, words)
    }

    /// It is over.
    pub fn ended(self, end: GenerationEnd, error: Option<&[u8]>, at_us: u64) -> Generation {
        let was_streamed = self.endpoint != super::EMBED_STRING;
        let mut report = match self.answer {
            Some(answer) => report(*answer),
            None => UsageReport::default(),
        };
        report.model = report.model.or(self.model);
        report.error = error.map(|words| lossy(words).into_owned());
        report.terminal = end != GenerationEnd::Open;
        report.finished = end == GenerationEnd::Completed;
        (report.streamed, report.needs_terminal) = (was_streamed, true);
        Generation {
            number: self.number,
            endpoint: self.endpoint,
            began_us: self.began_us,
            ended_us: at_us,
            requested_model: self.requested_model,
            was_streamed,
            prompt: self.prompt,
            report,
            end,
        }
    }

    /// Messages are told from their beginning on, and those that bring words are what is counted here.
    fn tell_progress(&self, after_us: u64) {
        let Some(answer) = &self.answer else { return };
        let WordPace { events: words, first_us, .. } = answer.pace;
        self.progress.tell(ReadSoFar { events: Some(words), words, first_us, output_tokens: None }, after_us);
    }

    fn answer(&mut self) -> &mut AnswerSoFar {
        let kept_max = self.kept_max;
        self.answer.get_or_insert_with(|| Box::new(AnswerSoFar::new(kept_max)))
    }

    fn after(&self, at_us: u64) -> u64 {
        at_us.saturating_sub(self.began_us)
    }
}

fn report(answer: AnswerSoFar) -> UsageReport {
    let counts = answer.counts();
    let work = answer.numbers.work;
    let speed = work.tokens_per_second.or_else(|| answer.pace.tokens_per_second(counts.output?));
    UsageReport {
        model: answer.model,
        counts,
        work: ServerWork { tokens_per_second: speed, ..work },
        usage_source: answer.numbers.counts.is_known().then_some("stats"),
        finish_reason: answer.finish,
        first_content_us: answer.pace.first_us,
        content_events: answer.pace.events,
        output: answer.output.into_text(),
        reasoning: answer.reasoning.into_text(),
        tool_calls: answer.tools.into_text(),
        ..UsageReport::default()
    }
}
