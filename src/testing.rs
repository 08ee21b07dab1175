//! What tests share, and benchmarks and fuzz targets, which take this file in by its path: a folder, rows, numbers that
//! look random.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::calendar::DAY_MS;
use crate::record::row::{Content, Outcome, Row};

/// A folder of its own for each test, removed when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("lms_metrics_proxy-{}-{count}", std::process::id()));
            match std::fs::create_dir(&path) {
                // An earlier process of this number was killed, or could not remove it: Windows keeps what is open.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => {
                    made.expect("the folder for temporary files is writable");
                    return Folder(path);
                }
            }
        }
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Numbers that only look random: Marsaglia's xorshift64 ("Xorshift RNGs", 2003), the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.max(1))
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// The same for the index of something; 0 where there is nothing.
    pub(crate) fn index(&mut self, end: usize) -> usize {
        self.below(end.max(1) as u64) as usize
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Random) -> T) -> Option<T> {
        if self.below(3) == 0 { None } else { Some(value(self)) }
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }
}

/// The request that the specification shows.
pub(crate) fn row() -> Row {
    Row {
        endpoint: "/v1/chat/completions".to_owned(),
        model: Some("llama-3.2-1b-instruct".to_owned()),
        requested_model: None,
        start_ms: 1_768_818_645_678,
        duration_ms: 850,
        input_tokens: Some(85),
        output_tokens: Some(320),
        total_tokens: Some(405),
        cached_tokens: None,
        cache_write_tokens: None,
        reasoning_tokens: None,
        draft_tokens: None,
        accepted_draft_tokens: None,
        request_id: Some("chatcmpl-1".to_owned()),
        outcome: Outcome::Completed,
        error_message: None,
        http_status: Some(200),
        was_streamed: false,
        time_to_first_token_ms: None,
        tokens_per_second: None,
        prompt_tokens_per_second: None,
        finish_reason: Some("stop".to_owned()),
        usage_source: Some("usage"),
        model_load_ms: None,
        client: None,
        key: None,
        attempt: None,
        told_conversation: Default::default(),
        replay_of: None,
        queue_ms: None,
        context_tokens: None,
        content: Content {
            prompt: Some("hello".to_owned().into()),
            output: Some("hi".to_owned()),
            ..Content::default()
        },
    }
}

/// The last one counts, and generates nothing.
const ENDPOINTS: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages/count_tokens"];

/// Any row: every outcome, every figure known or not, within three days.
pub(crate) fn random_row(random: &mut Random) -> Row {
    let text = |random: &mut Random, of: &str| format!("{of}{}", random.below(3));
    let count = |random: &mut Random| random.below(5000);
    // What the cache had and what was written to it are parts of the input.
    let input_tokens = random.maybe(count);
    let part = |random: &mut Random| input_tokens.and_then(|most| random.maybe(|random| random.below(most / 2 + 1)));
    Row {
        endpoint: random.pick(&ENDPOINTS).to_owned(),
        model: random.maybe(|random| text(random, "model-")),
        requested_model: random.maybe(|random| text(random, "model-")),
        start_ms: row().start_ms + random.below(3 * DAY_MS as u64) as i64,
        duration_ms: random.below(600_000),
        input_tokens,
        output_tokens: random.maybe(count),
        total_tokens: random.maybe(count),
        cached_tokens: part(random),
        cache_write_tokens: part(random),
        reasoning_tokens: random.maybe(count),
        draft_tokens: random.maybe(count),
        accepted_draft_tokens: random.maybe(count),
        request_id: random.maybe(|random| text(random, "chatcmpl-")),
        outcome: random.pick(&Outcome::all()),
        error_message: random.maybe(|random| text(random, "error ")),
        http_status: random.maybe(|random| random.pick(&[200, 400, 404, 500, 502])),
        was_streamed: random.below(2) == 0,
        time_to_first_token_ms: random.maybe(count),
        tokens_per_second: random.maybe(|random| random.below(1000) as f64 / 7.0),
        prompt_tokens_per_second: random.maybe(|random| random.below(9000) as f64 / 7.0),
        finish_reason: random.maybe(|random| random.pick(&["stop", "length"]).to_owned()),
        usage_source: random.maybe(|_| "usage"),
        model_load_ms: random.maybe(count),
        client: random.maybe(|random| text(random, "client-")),
        key: random.maybe(|random| text(random, "key-")),
        attempt: random.maybe(|random| random.below(4) as u32),
        told_conversation: Default::default(),
        replay_of: None,
        queue_ms: random.maybe(count),
        context_tokens: random.maybe(|random| 4096 << random.below(4)),
        content: Content {
            prompt: random.maybe(|random| "prompt ".repeat(random.below(2000) as usize).into()),
            output: random.maybe(|random| text(random, "output ")),
            reasoning: random.maybe(|random| text(random, "reasoning ")),
            tool_calls: random.maybe(|_| "[]".to_owned()),
            shape: None,
        },
    }
}
