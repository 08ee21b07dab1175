//! Sums of figures: what rows come to, apart from their distributions.

use std::ops::Index;

/// The sums of one series in one span of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Rows.
    pub requests: i64,
    /// Milliseconds.
    pub duration_ms: i64,
    /// Of what not every row tells, by [`Figure`].
    pub known: [KnownSum; FIGURES],
    /// Added up, for a mean.
    pub tokens_per_second: f64,
    /// Rows that know their speed.
    pub tokens_per_second_known: i64,
    /// No row of these has a lower id.
    pub first_id: i64,
    /// No row of these has a higher id.
    pub last_id: i64,
}

/// How many figures there are.
pub const FIGURES: usize = 7;

/// What not every row tells, in the order in which packs tell it: what came later stands last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Tokens of prompts.
    Input,
    /// Tokens of answers.
    Output,
    /// Both.
    Total,
    /// Prompt tokens that came from a cache.
    Cached,
    /// Answer tokens spent on reasoning.
    Reasoning,
    /// Milliseconds from request to first content.
    FirstTokenMs,
    /// Prompt tokens that were written to a cache.
    CacheWrite,
}

impl Index<Figure> for Sums {
    type Output = KnownSum;

    fn index(&self, figure: Figure) -> &KnownSum {
        &self.known[figure as usize]
    }
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
        for (known, other) in self.known.iter_mut().zip(other.known) {
            known.add(other, sign);
        }
        self.tokens_per_second += sign as f64 * other.tokens_per_second;
        self.tokens_per_second_known += sign * other.tokens_per_second_known;
        self.first_id = self.first_id.min(other.first_id);
        self.last_id = self.last_id.max(other.last_id);
    }
}
