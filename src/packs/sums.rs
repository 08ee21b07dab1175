//! Sums of figures: what rows come to, apart from their distributions.

/// The sums of one series in one span of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Rows.
    pub requests: i64,
    /// Milliseconds.
    pub duration_ms: i64,
    /// Tokens of prompts.
    pub input: KnownSum,
    /// Tokens of answers.
    pub output: KnownSum,
    /// Both.
    pub total: KnownSum,
    /// Prompt tokens that came from a cache.
    pub cached: KnownSum,
    /// Prompt tokens that were written to a cache.
    pub cache_write: KnownSum,
    /// Answer tokens spent on reasoning.
    pub reasoning: KnownSum,
    /// Milliseconds from request to first content.
    pub first_token_ms: KnownSum,
    /// Added up, for a mean.
    pub tokens_per_second: f64,
    /// Rows that know their speed.
    pub tokens_per_second_known: i64,
    /// No row of these has a lower id.
    pub first_id: i64,
    /// No row of these has a higher id.
    pub last_id: i64,
}

/// The sum of a figure, and how many rows knew it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSum {
    /// The sum.
    pub sum: i64,
    /// The rows.
    pub rows: i64,
}

impl KnownSum {
    fn add(&mut self, other: KnownSum, sign: i64) {
        self.sum += sign * other.sum;
        self.rows += sign * other.rows;
    }
}

impl Sums {
    /// Adds others, or takes them away with a sign of -1. Of ids the range only grows.
    pub fn add(&mut self, other: &Sums, sign: i64) {
        self.requests += sign * other.requests;
        self.duration_ms += sign * other.duration_ms;
        for (known, other) in self.known_mut().into_iter().zip(other.known()) {
            known.add(other, sign);
        }
        self.tokens_per_second += sign as f64 * other.tokens_per_second;
        self.tokens_per_second_known += sign * other.tokens_per_second_known;
        self.first_id = self.first_id.min(other.first_id);
        self.last_id = self.last_id.max(other.last_id);
    }

    /// Those of every figure, in the order in which packs tell them: what came later stands last.
    pub(super) fn known(&self) -> [KnownSum; 7] {
        [self.input, self.output, self.total, self.cached, self.reasoning, self.first_token_ms, self.cache_write]
    }

    pub(super) fn known_mut(&mut self) -> [&mut KnownSum; 7] {
        [
            &mut self.input,
            &mut self.output,
            &mut self.total,
            &mut self.cached,
            &mut self.reasoning,
            &mut self.first_token_ms,
            &mut self.cache_write,
        ]
    }
}
