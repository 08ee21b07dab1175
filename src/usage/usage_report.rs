//! What a reply says about itself, as the row and the relay want to know it.

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
