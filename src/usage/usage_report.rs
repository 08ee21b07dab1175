//! What a reply says about itself, as the row and the relay want to know it.

use super::counts::TokenCounts;
use super::numbers::ServerWork;

/// What a reply says about itself. Unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageReport {
    /// The model that answered.
    pub model: Option<String>,
    /// The reply's own id.
    pub id: Option<String>,
    /// What the reply counts.
    pub counts: TokenCounts,
    /// What upstream says of its own work, but for the speed: how fast the words came where that is not told, and tells
    /// how fast they were made.
    pub work: ServerWork,
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
    /// Events with content.
    pub content_events: u64,
    /// The answer's text.
    pub output: Option<String>,
    /// The reasoning.
    pub reasoning: Option<String>,
    /// Tool calls: `[{"id":…,"name":…,"arguments":…},…]`, arguments as text. Beyond the bound, head and tail of that.
    pub tool_calls: Option<String>,
}
