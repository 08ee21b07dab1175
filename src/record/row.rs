//! One row: what is known of one exchange when it ends. Unknown is `None`, never zero.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::prompts::Prompt;
use crate::prompts::Outline;
use crate::prompts::reason::PrefixBreak;
use crate::prompts::session::{ConversationSource, ToldConversation};

/// How an exchange ended. As text in the column and JSON field `outcome`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole reply reached the proxy and reported no error.
    #[default]
    Completed,
    /// The client left before the reply's end. Leaving after a stream's terminal event is `Completed`.
    ClientClosed,
    /// Upstream died in the middle of the reply, a stream ended without its terminal event, or a bug of the proxy ended
    /// the exchange (the error message says so).
    Truncated,
    /// Upstream answered with a status of 400 or above.
    UpstreamError,
    /// An error reported inside a reply of status 200.
    ErrorInReply,
    /// No connection to upstream, or one that ended before a reply began.
    UpstreamUnreachable,
    /// Upstream was silent for longer than the settings allow.
    UpstreamTimeout,
    /// The proxy was told to stop, and the grace ended before the exchange did.
    Shutdown,
    /// Somebody called the exchange off by `DELETE /stats/now/ID`.
    CancelledHere,
}

impl Outcome {
    /// Every outcome, in the order of the documentation: its text in the database and in JSON, and whether it counts as
    /// failed. Those that somebody wanted to end are neither failed nor successful; a `Shutdown` is a failure, for its client did not get the
    /// reply.
    const TABLE: [(Outcome, &str, bool); 9] = [
        (Outcome::Completed, "completed", false),
        (Outcome::ClientClosed, "client_closed", false),
        (Outcome::Truncated, "truncated", true),
        (Outcome::UpstreamError, "upstream_error", true),
        (Outcome::ErrorInReply, "error_in_reply", true),
        (Outcome::UpstreamUnreachable, "upstream_unreachable", true),
        (Outcome::UpstreamTimeout, "upstream_timeout", true),
        (Outcome::Shutdown, "shutdown", true),
        (Outcome::CancelledHere, "cancelled_here", false),
    ];

    /// Every outcome, in the order of the documentation.
    pub fn all() -> [Outcome; 9] {
        Outcome::TABLE.map(|(outcome, ..)| outcome)
    }

    /// The text in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        Outcome::TABLE[self as usize].1
    }

    /// Whether it counts as cancelled: its client, or somebody here, wanted it to end.
    pub fn is_cancelled(self) -> bool {
        matches!(self, Outcome::ClientClosed | Outcome::CancelledHere)
    }

    /// The one of this text.
    pub fn named(name: &str) -> Option<Outcome> {
        Outcome::TABLE.iter().find(|(_, known, _)| *known == name).map(|(outcome, ..)| *outcome)
    }

    /// Whether it counts as failed.
    pub fn is_failure(self) -> bool {
        Outcome::TABLE[self as usize].2
    }
}

/// One recorded exchange. As JSON it waits for the next start where the database does not take it, see
/// [`super::unsaved`]; what was said stands apart there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Row {
    /// Path of the request, without its query.
    pub endpoint: String,
    /// The model that answered, else the one asked for, else `None` (filed under `unknown`).
    pub model: Option<String>,
    /// The model that the client asked for.
    pub requested_model: Option<String>,
    /// When the whole request was there: milliseconds since 1970-01-01T00:00:00Z.
    pub start_ms: i64,
    /// From then to the end of the reply, on a monotonic clock.
    pub duration_ms: u64,
    /// Tokens of the prompt, as reported.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer, as reported.
    pub output_tokens: Option<u64>,
    /// As reported, else input + output where both are known and the dialect defines it so.
    pub total_tokens: Option<u64>,
    /// Prompt tokens taken from a cache; never more than those of the prompt.
    pub cached_tokens: Option<u64>,
    /// Prompt tokens written to a cache, where that is told.
    pub cache_write_tokens: Option<u64>,
    /// Answer tokens spent on reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Tokens that a draft model proposed.
    pub draft_tokens: Option<u64>,
    /// Those of them that the model took.
    pub accepted_draft_tokens: Option<u64>,
    /// The reply's own id (`chatcmpl-…`, `resp_…`, `msg_…`).
    pub request_id: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// In plain words, where there was an error.
    pub error_message: Option<String>,
    /// Upstream's status, where it answered; else the one the proxy answered with.
    pub http_status: Option<u16>,
    /// Whether the reply came as a stream of events.
    pub was_streamed: bool,
    /// From the start to the first event that carries content.
    pub time_to_first_token_ms: Option<u64>,
    /// Upstream's own figure, else how fast the events came where that tells how fast the tokens were made.
    pub tokens_per_second: Option<f64>,
    /// Upstream's own figure for the reading of the prompt.
    pub prompt_tokens_per_second: Option<f64>,
    /// As reported: `stop`, `length`, `tool_calls`, `end_turn`, …
    pub finish_reason: Option<String>,
    /// Where the counts came from: `usage`, `stats` or `timings`.
    #[serde(default, deserialize_with = "usage_source")]
    pub usage_source: Option<UsageSource>,
    /// How long LM Studio loaded the model for this request.
    pub model_load_ms: Option<u64>,
    /// Who asked: the body's `user`, else a label made of User-Agent.
    pub client: Option<String>,
    /// A short keyed fingerprint of the credential; never the credential.
    pub key: Option<String>,
    /// The client library's retry count (`x-stainless-retry-count`).
    pub attempt: Option<u32>,
    /// What the request says of its conversation.
    #[serde(default)]
    pub told_conversation: ToldConversation,
    /// The id of the row whose request the client says that it sends again.
    #[serde(default)]
    pub replay_of: Option<i64>,
    /// How long it waited for a place among those that may be in flight.
    #[serde(default)]
    pub queue_ms: Option<u64>,
    /// How many tokens the model's context holds.
    #[serde(default)]
    pub context_tokens: Option<u64>,
    /// What was said, unless the settings say that it is not stored.
    #[serde(skip)]
    pub content: Content,
}

/// Where a request belongs: its conversation, and what it has in common with earlier ones. Found when its row is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lineage {
    /// The conversation's name.
    pub conversation: Option<Arc<str>>,
    /// Where that comes from.
    pub source: Option<ConversationSource>,
    /// Bytes of the prompt as templates render it.
    pub prompt_bytes: Option<u64>,
    /// The row of the earlier prompt that it was compared with.
    pub prefix_of: Option<i64>,
    /// So many bytes of it begin that prompt, too,
    pub prefix_bytes: Option<u64>,
    /// and so many whole messages.
    pub prefix_messages: Option<u64>,
    /// Why not all of the earlier prompt is shared, or was read anew.
    pub prefix_break: Option<PrefixBreak>,
    /// How long it took to read what could have been shared, as estimated.
    pub prefix_lost_ms: Option<u64>,
    /// Upstream seems to have cut the prompt.
    pub prompt_cut: Option<bool>,
    /// How many tokens it has if it is as usual for its model.
    pub prompt_expected_tokens: Option<u64>,
}

/// A name for the type, or serde would take it for a part of what it reads.
pub type UsageSource = &'static str;

fn usage_source<'de, D: Deserializer<'de>>(from: D) -> Result<Option<UsageSource>, D::Error> {
    let source = Option::<String>::deserialize(from)?;
    Ok(["usage", "stats", "timings"].into_iter().find(|known| source.as_deref() == Some(known)))
}

/// The words of one exchange, bounded by `CONTENT_KB_MAX` each.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Content {
    /// What the request said.
    pub prompt: Option<Prompt>,
    /// The answer's text, put together from its deltas.
    pub output: Option<String>,
    /// The model's reasoning, kept apart.
    pub reasoning: Option<String>,
    /// Tool calls as JSON, kept apart.
    pub tool_calls: Option<String>,
    /// What the prompt consists of.
    #[serde(skip)]
    pub shape: Option<Box<PromptShape>>,
}

/// What is known of a prompt beside what is kept of its words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PromptShape {
    /// Its elements.
    pub outline: Outline,
    /// Where no words are kept, all the same the words, for as long as the row is not written.
    pub unkept: Option<Prompt>,
    /// Why what is kept is not what was sent.
    pub replaced: Option<Replaced>,
}

/// Why a stored prompt is not the body as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Vectors, images, audio or files are a mark of their size, or it is no UTF-8.
    Payload,
    /// It is longer than `CONTENT_KB_MAX`.
    Length,
}

impl Replaced {
    /// The text in the column `replaced`.
    pub fn as_str(self) -> &'static str {
        match self {
            Replaced::Payload => "payload",
            Replaced::Length => "length",
        }
    }
}

impl Content {
    /// Whether there is nothing to store: what a prompt consists of is stored beside words alone.
    pub fn is_empty(&self) -> bool {
        self.prompt.is_none() && self.output.is_none() && self.reasoning.is_none() && self.tool_calls.is_none()
    }

    /// What it takes in memory, but for what is not kept.
    pub fn size(&self) -> usize {
        let prompt = self.prompt.as_ref().map_or(0, Prompt::bytes);
        let outline = self.shape.as_ref().map_or(0, |shape| size_of_val(shape.outline.elements()));
        prompt + length(&self.output) + length(&self.reasoning) + length(&self.tool_calls) + outline
    }
}

impl Row {
    /// The row, and a copy without its words, which may be long.
    pub fn and_figures(mut self) -> (Row, Row) {
        let content = std::mem::take(&mut self.content);
        let figures = self.clone();
        (Row { content, ..self }, figures)
    }

    /// Roughly what the row takes in memory without its content, for bounding the queue of waiting rows.
    pub fn size(&self) -> usize {
        std::mem::size_of::<Row>()
            + self.endpoint.len()
            + length(&self.model)
            + length(&self.requested_model)
            + length(&self.request_id)
            + length(&self.error_message)
            + length(&self.finish_reason)
            + length(&self.client)
            + length(&self.key)
    }
}

fn length(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_stands_in_its_line_and_is_called_alike_in_files() {
        for (place, outcome) in Outcome::all().into_iter().enumerate() {
            assert_eq!(outcome as usize, place, "{outcome:?}");
            assert_eq!(serde_json::to_value(outcome).expect("JSON"), outcome.as_str());
        }
    }
}
