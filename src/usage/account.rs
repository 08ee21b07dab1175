//! What the documents of one reply say together, and the report made of it.

use super::counts::{Counts, Timings, Work};
use super::excerpt::Excerpt;
use super::facts::Facts;
use super::grammar::Grammar;
use super::pace::Pace;
use super::text::lossy;
use super::tools::Tools;
use super::words::Words;

/// What a reply says about itself. Unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageReport {
    /// The model that answered.
    pub model: Option<String>,
    /// The reply's own id.
    pub id: Option<String>,
    /// Tokens of the prompt.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// As reported where that is no less than its parts, else input + output where both are known.
    pub total_tokens: Option<u64>,
    /// Prompt tokens taken from a cache; never more than those of the prompt.
    pub cached_tokens: Option<u64>,
    /// Prompt tokens written to a cache.
    pub cache_write_tokens: Option<u64>,
    /// Answer tokens spent on reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Tokens that a draft model proposed.
    pub draft_tokens: Option<u64>,
    /// Those of them that were taken.
    pub accepted_draft_tokens: Option<u64>,
    /// `usage`, `stats` or `timings`: where the counts came from.
    pub usage_source: Option<&'static str>,
    /// As reported: `stop`, `length`, `end_turn`, …
    pub finish_reason: Option<String>,
    /// The message of an error that the reply reports.
    pub error: Option<String>,
    /// The stream's terminal event, or an error in its place, was seen.
    pub terminal: bool,
    /// Every choice told why it ended: the answer is whole.
    pub finished: bool,
    /// The reply came as a stream.
    pub streamed: bool,
    /// An event that was taken out told counts in `timings`, which upstream tells unasked as well.
    pub told_beside: bool,
    /// The reply must have one, or it is truncated.
    pub needs_terminal: bool,
    /// When the first event with content came, in microseconds of the caller's clock. Streams only.
    pub first_content_us: Option<u64>,
    /// When the last one came.
    pub last_content_us: Option<u64>,
    /// Events with content.
    pub content_events: u64,
    /// Upstream's own figure, else how fast the words came where that tells how fast they were made.
    pub tokens_per_second: Option<f64>,
    /// Upstream's own figure for the reading of the prompt.
    pub prompt_tokens_per_second: Option<f64>,
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
    grammar: &'static Grammar,
    model: Vec<u8>,
    id: Vec<u8>,
    finish: Vec<u8>,
    error: Option<Vec<u8>>,
    choices_seen: u64,
    choices_finished: u64,
    counts: Counts,
    /// Tokens of the answer as told before there was any.
    early_output: Option<u64>,
    timings: Timings,
    work: Work,
    pace: Pace,
    output: Spoken,
    reasoning: Spoken,
    tools: Tools,
}

impl Account {
    /// Of a dialect, keeping so many bytes of each kind of words.
    pub fn new(grammar: &'static Grammar, kept_max: usize) -> Account {
        Account {
            grammar,
            model: Vec::new(),
            id: Vec::new(),
            finish: Vec::new(),
            error: None,
            choices_seen: 0,
            choices_finished: 0,
            counts: Counts::default(),
            early_output: None,
            timings: Timings::default(),
            work: Work::default(),
            pace: Pace::default(),
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
            self.error = Some(message);
        }
        // Where there are no choices, whoever tells a reason has finished.
        let (seen, finished) = match facts.choices_seen {
            0 => {
                if facts.finish.is_empty() {
                    (0, 0)
                } else {
                    (1, 1)
                }
            }
            seen => (seen, facts.choices_finished),
        };
        self.choices_seen |= seen;
        self.choices_finished |= finished;
        self.counts.merge(&facts.counts);
        self.early_output = facts.early_output.or(self.early_output);
        self.timings.merge(&facts.timings);
        self.work.merge(&facts.work);
        if let Some(now_us) = now_us.filter(|_| self.is_content(facts)) {
            self.pace.count(now_us, facts.said);
        }
        self.output.merge(&facts.output, facts.words);
        self.reasoning.merge(&facts.reasoning, facts.words);
        self.tools.merge(&facts.tools, facts.words);
    }

    /// The same of an event that repeats the one before it with other words: about all else it says nothing new.
    pub fn merge_repeated(&mut self, facts: &Facts, now_us: u64) {
        self.pace.count(now_us, facts.said);
        self.output.merge(&facts.output, Words::Delta);
        self.reasoning.merge(&facts.reasoning, Words::Delta);
    }

    /// An error that is no document: `event: error` with text that is no JSON.
    pub fn error(&mut self, message: &[u8]) {
        self.error.get_or_insert_with(|| message.to_vec());
    }

    /// Whether every choice that appeared has told why it ended.
    pub fn is_finished(&self) -> bool {
        self.choices_seen != 0 && self.choices_finished & self.choices_seen == self.choices_seen
    }

    /// How many choices have told why they ended, of those that can be told apart.
    pub fn choices_finished(&self) -> u64 {
        self.choices_finished.count_ones().into()
    }

    /// Whether an error was reported.
    pub fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// The report. `terminal`: a terminal event was seen; `is_stream`: the reply came as events.
    pub fn report(&self, terminal: bool, is_stream: bool) -> UsageReport {
        let timings = self.timings.counts();
        // Timings count where usage is unknown, or nothing but zeros.
        let use_timings = match (self.counts.is_known(), self.counts.is_positive()) {
            (_, true) => false,
            (true, false) => timings.is_positive(),
            (false, false) => timings.is_known(),
        };
        let mut counts = if use_timings { timings } else { self.counts };
        // llama.cpp's usage may lack what its timings tell of the cache.
        let fits = |cached: &u64| counts.input.is_some_and(|input| *cached <= input);
        counts.cached = counts.cached.or(timings.cached.filter(fits));
        // Told before the answer, it counts only where the whole answer came and nothing more was told.
        if (terminal || self.is_finished()) && counts.output.unwrap_or(0) == 0 {
            counts.output = self.early_output.filter(|output| *output > 0).or(counts.output);
        }
        let counts = counts.settled();
        let source = if use_timings { "timings" } else { self.grammar.source };
        UsageReport {
            model: text(&self.model),
            id: text(&self.id),
            input_tokens: counts.input,
            output_tokens: counts.output,
            total_tokens: counts.total,
            cached_tokens: counts.cached,
            cache_write_tokens: counts.cache_write,
            reasoning_tokens: counts.reasoning,
            draft_tokens: self.work.drafted,
            accepted_draft_tokens: self.work.accepted,
            usage_source: counts.is_known().then_some(source),
            finish_reason: text(&self.finish),
            error: self.error.as_deref().and_then(text),
            terminal,
            finished: self.is_finished(),
            streamed: is_stream,
            told_beside: false,
            needs_terminal: is_stream && self.grammar.needs_terminal,
            first_content_us: self.pace.first_us,
            last_content_us: self.pace.last_us,
            content_events: self.pace.events,
            tokens_per_second: self.work.tokens_per_second.or_else(|| self.pace.tokens_per_second(counts.output?)),
            prompt_tokens_per_second: self.work.prompt_per_second,
            model_load_ms: self.work.load_seconds.map(|seconds| (seconds * 1000.0).round() as u64),
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
            Words::Echo => facts.has_content && self.pace.events == 0,
        }
    }
}

/// Words of one kind, and whether deltas came since they were last given whole.
#[derive(Debug)]
struct Spoken {
    kept: Excerpt,
    had_delta: bool,
}

impl Spoken {
    fn new(kept_max: usize) -> Spoken {
        Spoken { kept: Excerpt::new(kept_max), had_delta: false }
    }

    fn merge(&mut self, words: &Excerpt, how: Words) {
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

fn replace(kept: &mut Vec<u8>, later: &[u8]) {
    if !later.is_empty() && kept != later {
        kept.clear();
        kept.extend_from_slice(later);
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| lossy(bytes).into_owned())
}
