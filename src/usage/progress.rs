//! How far a reply has come while it is read: what its reader tells others, who may look at any moment.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// How far it has come. Times are microseconds since the exchange began, on the reader's clock. One thread tells at a
/// time; who looks meanwhile may see one figure before another.
#[derive(Debug)]
pub struct ReplyProgress {
    /// [`UNKNOWN`] until something can be counted.
    events: AtomicU64,
    output_tokens: AtomicU64,
    first_us: AtomicU64,
    /// Events with words as counted by then, at the ends of the last seconds: see [`Mark`].
    marks: [AtomicU64; 2],
    words: AtomicU64,
    model: OnceLock<String>,
}

/// Stands for what is not known.
const UNKNOWN: u64 = u64::MAX;
/// How long the time is that a speed is taken over, at least, and half of what it is at most while events come.
const MARK_MS: u64 = 1_000;
/// A shorter time tells no speed.
const SPAN_MS_MIN: u64 = 250;

/// A count at a moment: the low halves of both, which go round after 49 days and four thousand million events.
#[derive(Clone, Copy)]
struct Mark {
    ms: u32,
    words: u32,
}

impl Mark {
    fn new(us: u64, words: u64) -> Mark {
        Mark { ms: (us / 1000) as u32, words: words as u32 }
    }

    fn of(packed: u64) -> Mark {
        Mark { ms: (packed >> 32) as u32, words: packed as u32 }
    }

    fn packed(self) -> u64 {
        u64::from(self.ms) << 32 | u64::from(self.words)
    }

    fn ms_since(self, earlier: Mark) -> u64 {
        u64::from(self.ms.wrapping_sub(earlier.ms))
    }
}

/// What a reader has counted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadSoFar {
    /// Events, whatever they say; `None` where they cannot be read.
    pub events: Option<u64>,
    /// Those of them with words.
    pub words: u64,
    /// When the first of these came; of a body that cannot be read, its first byte.
    pub first_us: Option<u64>,
    /// Tokens of the answer, as the reply itself has told so far.
    pub output_tokens: Option<u64>,
}

impl Default for ReplyProgress {
    fn default() -> ReplyProgress {
        ReplyProgress {
            events: AtomicU64::new(UNKNOWN),
            output_tokens: AtomicU64::new(UNKNOWN),
            first_us: AtomicU64::new(UNKNOWN),
            marks: [const { AtomicU64::new(0) }; 2],
            words: AtomicU64::new(0),
            model: OnceLock::new(),
        }
    }
}

impl ReplyProgress {
    /// Tells what was read until now.
    pub fn tell(&self, read: ReadSoFar, now_us: u64) {
        let store = |known: &AtomicU64, value: Option<u64>| known.store(value.unwrap_or(UNKNOWN), Ordering::Relaxed);
        store(&self.events, read.events);
        store(&self.output_tokens, read.output_tokens);
        self.words.store(read.words, Ordering::Relaxed);
        let Some(first_us) = read.first_us else { return };
        let [old, new] = &self.marks;
        if self.first_us.load(Ordering::Relaxed) == UNKNOWN {
            let begin = Mark::new(first_us, 0).packed();
            old.store(begin, Ordering::Relaxed);
            new.store(begin, Ordering::Relaxed);
            self.first_us.store(first_us, Ordering::Release);
        }
        let (last, now) = (Mark::of(new.load(Ordering::Relaxed)), Mark::new(now_us, read.words));
        if now.ms_since(last) >= MARK_MS {
            old.store(last.packed(), Ordering::Relaxed);
            new.store(now.packed(), Ordering::Relaxed);
        }
    }

    /// Tells which model answers, once.
    pub fn tell_model(&self, model: impl FnOnce() -> Option<String>) {
        if self.model.get().is_none()
            && let Some(model) = model()
        {
            let _ = self.model.set(model);
        }
    }

    /// The model that answers.
    pub fn model(&self) -> Option<&str> {
        self.model.get().map(String::as_str)
    }

    /// What was told last.
    pub fn read_so_far(&self) -> ReadSoFar {
        let load = |known: &AtomicU64| Some(known.load(Ordering::Acquire)).filter(|value| *value != UNKNOWN);
        ReadSoFar {
            first_us: load(&self.first_us),
            events: load(&self.events),
            words: self.words.load(Ordering::Relaxed),
            output_tokens: load(&self.output_tokens),
        }
    }

    /// Events with words a second, over the last one or two seconds, or since the first; `None` until a moment has gone by.
    pub fn events_per_second(&self, now_us: u64) -> Option<f64> {
        let read = self.read_so_far();
        read.first_us.filter(|_| read.events.is_some())?;
        let (old, now) = (Mark::of(self.marks[0].load(Ordering::Relaxed)), Mark::new(now_us, read.words));
        let span_ms = now.ms_since(old);
        let came = now.words.wrapping_sub(old.words);
        // A mark that was set meanwhile may be ahead of what was read before.
        let fits = (SPAN_MS_MIN..u64::from(u32::MAX / 2)).contains(&span_ms) && came < u32::MAX / 2;
        fits.then(|| f64::from(came) * 1000.0 / span_ms as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(progress: &ReplyProgress, words: u64, now_ms: u64) {
        let first_us = Some(2_000_000);
        let read = ReadSoFar { events: Some(words + 1), words, first_us, output_tokens: None };
        progress.tell(read, now_ms * 1000);
    }

    #[test]
    fn the_speed_is_that_of_the_last_seconds_and_falls_when_nothing_comes() {
        let progress = ReplyProgress::default();
        assert_eq!(progress.events_per_second(5_000_000), None, "nothing has come");
        tell(&progress, 1, 2000);
        assert_eq!(progress.events_per_second(2_100_000), None, "only just");
        // Twenty a second, then two hundred.
        (1..=60).for_each(|n| tell(&progress, 1 + n, 2000 + 50 * n));
        let speed = progress.events_per_second(5_000_000).expect("a speed");
        assert!((19.0..21.5).contains(&speed), "{speed}");
        (1..=600).for_each(|n| tell(&progress, 61 + n, 5000 + 5 * n));
        let speed = progress.events_per_second(8_000_000).expect("a speed");
        assert!((195.0..205.0).contains(&speed), "{speed}");
        let speed = progress.events_per_second(60_000_000).expect("a speed");
        assert!(speed < 8.0, "{speed}");
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let progress = ReplyProgress::default();
        let nothing = ReadSoFar { events: None, words: 0, first_us: None, output_tokens: None };
        assert_eq!(progress.read_so_far(), nothing);
        let unreadable = ReadSoFar { first_us: Some(7), ..nothing };
        progress.tell(unreadable, 9);
        assert_eq!((progress.read_so_far(), progress.events_per_second(9_000_000)), (unreadable, None));
        progress.tell_model(|| None);
        progress.tell_model(|| Some("m".into()));
        progress.tell_model(|| unreachable!("it is told"));
        assert_eq!(progress.model(), Some("m"));
    }
}
