//! How fast the words of a stream came, where that says how fast they were made.
//!
//! Tokens are made one after the other; events are what a server, and every proxy before it, makes of them. Where
//! events come as the tokens are made, the tokens behind the first event were made between it and the last one. They
//! were not where a server hands over what it has gathered: then the time between two events is that of a write. So a
//! speed is told only of words that came spread over time: at several moments, none of which brought a large part of
//! them, and none of which followed a silence as long as the rest.

use crate::limits::TOKENS_PER_SECOND_SEEN_MAX;

/// Events this close to the first of them came at one moment: one write of the server, read in pieces.
const MOMENT_US: u64 = 1_000;
/// Fewer moments are bursts: between three of them lie two pauses, and one of these would be the longer half.
const MOMENTS_MIN: u32 = 4;
/// The part of all words that one moment may bring at most: a third. A tool call whose arguments came at once, or
/// reasoning told when it was over, is more.
const PART_MAX: u64 = 3;
/// The part of the time that a silence between two moments may take at most: half.
const SILENCE_MAX: u64 = 2;

/// When words came, and how many. Words are counted in bytes, for which tokens nearly stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct WordPace {
    /// Microseconds of the caller's clock: the first event with words.
    pub first_us: Option<u64>,
    /// The last one.
    last_us: Option<u64>,
    /// Events with words.
    pub events: u64,
    moments: u32,
    /// When the current moment began, and what it has brought.
    moment_us: u64,
    moment_bytes: u64,
    first_bytes: u64,
    most_bytes: u64,
    bytes: u64,
    silence_us: u64,
}

impl WordPace {
    /// An event brought so many bytes of words.
    pub fn count(&mut self, now_us: u64, bytes: u64) {
        if self.first_us.is_none() {
            self.first_us = Some(now_us);
            self.begin(now_us);
        } else if now_us.saturating_sub(self.moment_us) >= MOMENT_US {
            self.silence_us = self.silence_us.max(now_us - self.last_us.unwrap_or(now_us).min(now_us));
            self.begin(now_us);
        }
        self.last_us = Some(now_us);
        self.events += 1;
        self.bytes += bytes;
        self.moment_bytes += bytes;
        self.most_bytes = self.most_bytes.max(self.moment_bytes);
        if self.moments == 1 {
            self.first_bytes = self.moment_bytes;
        }
    }

    fn begin(&mut self, now_us: u64) {
        self.moments = self.moments.saturating_add(1);
        self.moment_us = now_us;
        self.moment_bytes = 0;
    }

    /// Tokens a second, if so many were made. Those of the first moment were made before it, so they do not count.
    pub fn tokens_per_second(&self, tokens: u64) -> Option<f64> {
        let span_us = self.last_us?.checked_sub(self.first_us?)?;
        let is_spread = self.moments >= MOMENTS_MIN
            && self.most_bytes.saturating_mul(PART_MAX) <= self.bytes
            && self.silence_us.saturating_mul(SILENCE_MAX) <= span_us;
        if !is_spread || span_us == 0 || self.bytes == 0 {
            return None;
        }
        let part = (self.bytes - self.first_bytes) as f64 / self.bytes as f64;
        let speed = tokens as f64 * part * 1e6 / span_us as f64;
        (speed > 0.0 && speed <= TOKENS_PER_SECOND_SEEN_MAX).then_some(speed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as (milliseconds since the one before, bytes), and the tokens that they stand for.
    fn speed(events: &[(u64, u64)], tokens: u64) -> Option<f64> {
        let (mut pace, mut now_us) = (WordPace::default(), 5_000_000);
        for (wait_ms, bytes) in events {
            now_us += wait_ms * 1000;
            pace.count(now_us, *bytes);
        }
        pace.tokens_per_second(tokens)
    }

    #[test]
    fn words_that_come_as_they_are_made_tell_the_speed() {
        // A token each 20 ms: 50 a second, whatever came before.
        assert_eq!(speed(&[(20, 4); 101], 101), Some(50.0));
        assert_eq!(speed(&[(20, 4); 5], 5), Some(50.0));
        // Ten at a time are as fast.
        assert_eq!(speed(&[(200, 40); 11], 110), Some(50.0));
        // Pieces of one write are one moment.
        let pieces: Vec<(u64, u64)> = (0..22).map(|at| (if at % 2 == 0 { 200 } else { 0 }, 20)).collect();
        assert_eq!(speed(&pieces, 110), Some(50.0));
    }

    #[test]
    fn bursts_tell_none() {
        assert_eq!(speed(&[], 9), None);
        assert_eq!(speed(&[(1500, 400)], 500), None);
        assert_eq!(speed(&[(1500, 400), (4, 400)], 500), None);
        assert_eq!(speed(&[(500, 400), (1500, 400)], 500), None);
        assert_eq!(speed(&[(500, 400), (700, 400), (700, 400)], 500), None);
        // Each of many events.
        assert_eq!(speed(&[[(2, 4); 100], [(0, 4); 100]].concat(), 200), None);
        assert_eq!(speed(&[vec![(2, 4); 10], vec![(1500, 4)], vec![(2, 4); 10]].concat(), 21), None);
        // All of it handed over by one who had gathered it.
        assert_eq!(speed(&[(1, 4); 50], 5000), None);
    }

    #[test]
    fn what_comes_in_one_piece_tells_none() {
        let text = [(20, 4); 20];
        assert_eq!(speed(&[&text[..], &[(4, 0), (4, 400)]].concat(), 120), None);
        assert_eq!(speed(&[&text[..], &[(4000, 0), (0, 30)]].concat(), 120), None);
        assert_eq!(speed(&[&[(900, 400)], &text[..]].concat(), 120), None);
    }
}
