//! The numbers that a document tells, and those that all documents of a reply tell together.

use super::counts::{TokenCounts, replace};
use super::role::JsonRole::{self, *};
use crate::limits::{PROMPT_PER_SECOND_TOLD_MAX, TOKENS_PER_SECOND_TOLD_MAX};

/// All of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToldNumbers {
    /// From `usage` or `stats`.
    pub counts: TokenCounts,
    /// Tokens of the answer as told before there was any: see [`super::messages`].
    pub early_output: Option<u64>,
    /// llama.cpp's `timings`. The input there is what was processed, without what the cache had.
    timings: TokenCounts,
    /// Upstream's own figures.
    pub work: ServerWork,
}

/// What a server says of its own work beside the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerWork {
    /// Tokens made a second.
    pub tokens_per_second: Option<f64>,
    /// Prompt tokens read a second.
    pub prompt_per_second: Option<f64>,
    /// Tokens that a draft model proposed.
    pub drafted: Option<u64>,
    /// Those of them that the model took.
    pub accepted: Option<u64>,
    /// How long LM Studio loaded the model.
    pub load_seconds: Option<f64>,
}

impl ToldNumbers {
    /// Takes a number as written. A count has several names, and may be told under each of them.
    pub fn tell(&mut self, at: JsonRole, written: &[u8]) {
        let (counts, timings, work) = (&mut self.counts, &mut self.timings, &mut self.work);
        let known = match at {
            InputTokens => &mut counts.input,
            OutputTokens => &mut counts.output,
            TotalTokens => &mut counts.total,
            CachedTokens => &mut counts.cached,
            CacheWriteTokens => &mut counts.cache_write,
            ReasoningTokens => &mut counts.reasoning,
            DraftTokens => &mut work.drafted,
            AcceptedDraftTokens => &mut work.accepted,
            PromptN => &mut timings.input,
            CacheN => &mut timings.cached,
            PredictedN => &mut timings.output,
            TokensPerSecond => {
                return tell_speed(&mut work.tokens_per_second, written, TOKENS_PER_SECOND_TOLD_MAX);
            }
            PromptPerSecond => {
                return tell_speed(&mut work.prompt_per_second, written, PROMPT_PER_SECOND_TOLD_MAX);
            }
            LoadSeconds => {
                work.load_seconds = figure(written);
                return;
            }
            _ => return,
        };
        replace(known, count(written));
    }

    /// Later numbers replace earlier ones, each on its own. With `timings_per_token` those come in every chunk.
    pub fn merge(&mut self, later: &ToldNumbers) {
        self.counts.merge(&later.counts);
        self.early_output = later.early_output.or(self.early_output);
        self.timings.merge(&later.timings);
        let (work, later) = (&mut self.work, &later.work);
        work.tokens_per_second = later.tokens_per_second.or(work.tokens_per_second);
        work.prompt_per_second = later.prompt_per_second.or(work.prompt_per_second);
        replace(&mut work.drafted, later.drafted);
        replace(&mut work.accepted, later.accepted);
        work.load_seconds = later.load_seconds.or(work.load_seconds);
    }

    /// Tokens of an answer that still comes, where the stream tells them as it goes. A zero is none that was counted.
    pub fn output_so_far(&self) -> Option<u64> {
        self.counts.output.or(self.timings.output).filter(|tokens| *tokens > 0)
    }

    /// Whether `timings` alone tell what a request cost.
    pub fn timings_suffice(&self) -> bool {
        self.timings.input.is_some() && self.timings.output.is_some()
    }

    /// The counts of a reply, and whether `timings` told them. `is_whole`: the whole answer came.
    pub fn settled(&self, is_whole: bool) -> (TokenCounts, bool) {
        let input = self.timings.input.and_then(|n| n.checked_add(self.timings.cached.unwrap_or(0)));
        let timings = TokenCounts { input, ..self.timings };
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
        if is_whole && counts.output.unwrap_or(0) == 0 {
            counts.output = self.early_output.filter(|output| *output > 0).or(counts.output);
        }
        (counts.settled(), use_timings)
    }
}

/// Takes a speed that can be one. Nothing at all is no speed: it stands for a figure that was not worked out.
fn tell_speed(known: &mut Option<f64>, written: &[u8], max: f64) {
    *known = figure(written).filter(|speed| *speed > 0.0 && *speed < max).or(*known);
}

/// A count as a server may write it: `12`, but also `12.0` and `1e3`. `None` for whatever is negative, fractional, no
/// number or beyond what JSON carries exactly (2^53, RFC 8259 §6).
pub fn count(written: &[u8]) -> Option<u64> {
    const EXACT_MAX: u64 = 1 << 53;
    let text = std::str::from_utf8(written).ok()?;
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|&n| n <= EXACT_MAX);
    }
    let number = figure(written)?;
    (number.fract() == 0.0 && number <= EXACT_MAX as f64).then_some(number as u64)
}

/// A figure that is no count: finite and not negative.
fn figure(written: &[u8]) -> Option<f64> {
    // Rust reads `+1`, `inf` and `nan`, too.
    written.first().filter(|first| first.is_ascii_digit())?;
    let number: f64 = std::str::from_utf8(written).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_and_not_negative() {
        let check = |written: &str, expected| assert_eq!(count(written.as_bytes()), expected, "{written}");
        check("0", Some(0));
        check("12", Some(12));
        check("12.0", Some(12));
        check("1e3", Some(1000));
        check("1.5e1", Some(15));
        check("9007199254740992", Some(1 << 53));
        check("9007199254740993", None);
        check("18446744073709551616", None);
        check("1e400", None);
        check("-1", None);
        check("-0", None);
        check("1.5", None);
        check("", None);
        check("+5", None);
    }
}
