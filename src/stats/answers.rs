//! The JSON of the statistics routes: names, types and order of the fields as the specification fixes them; fields
//! that came later follow. A figure that nobody told is `null`, in sums it adds nothing.

use serde::Serialize;

/// `GET /stats/summary`: everything ever recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// All requests, however they ended.
    pub total_requests: i64,
    /// Those whose whole reply arrived without an error.
    pub successful_requests: i64,
    /// No reply, a status of 400 or above, an error inside a 200, or a truncated reply.
    pub failed_requests: i64,
    /// Tokens of prompts.
    pub total_input_tokens: i64,
    /// Tokens of answers.
    pub total_output_tokens: i64,
    /// Both.
    pub total_tokens: i64,
    /// Over all requests, one decimal.
    pub average_input_tokens: f64,
    /// Over all requests, one decimal.
    pub average_output_tokens: f64,
    /// Milliseconds from request to end of reply, added up.
    pub total_duration_ms: i64,
    /// Requests whose client left before the end: neither successful nor failed.
    pub cancelled_requests: i64,
    /// Prompt tokens that came from a cache.
    pub total_cached_tokens: i64,
    /// Answer tokens spent on reasoning.
    pub total_reasoning_tokens: i64,
    /// Requests whose token total is not known.
    pub requests_without_usage: i64,
}

/// `GET /stats/by-model`: most requests first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ByModel {
    /// One for each model ever recorded.
    pub models: Vec<ModelSums>,
}

/// One model's share of the summary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelSums {
    /// Its name, or `unknown`.
    pub model: String,
    /// All its requests.
    pub requests: i64,
    /// Tokens of prompts.
    pub input_tokens: i64,
    /// Tokens of answers.
    pub output_tokens: i64,
    /// Both.
    pub total_tokens: i64,
    /// Over all its requests, one decimal.
    pub avg_tokens_per_request: f64,
    /// As in the summary.
    pub successful_requests: i64,
    /// As in the summary.
    pub failed_requests: i64,
    /// As in the summary.
    pub cancelled_requests: i64,
    /// Prompt tokens that came from a cache.
    pub cached_tokens: i64,
    /// Answer tokens spent on reasoning.
    pub reasoning_tokens: i64,
    /// Milliseconds, added up.
    pub duration_ms: i64,
}

/// `GET /stats/recent`: newest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recent {
    /// At most as many as asked for.
    pub requests: Vec<RecentRequest>,
}

/// One request without its words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecentRequest {
    /// Its number in the database.
    pub id: i64,
    /// Path without query.
    pub endpoint: String,
    /// The model that answered, or `unknown`.
    pub model: String,
    /// Tokens of the prompt.
    pub input_tokens: Option<i64>,
    /// Tokens of the answer.
    pub output_tokens: Option<i64>,
    /// Both.
    pub total_tokens: Option<i64>,
    /// From request to end of reply.
    pub duration_ms: i64,
    /// RFC 3339, UTC, whole seconds.
    pub start_time: String,
    /// Whether it failed.
    pub is_error: bool,
    /// Whether the reply came as events.
    pub was_streamed: bool,
    /// How it ended, in a word: see [`crate::record::row::Outcome`].
    pub outcome: String,
    /// Upstream's status, else the proxy's.
    pub http_status: Option<i64>,
    /// The model that the client asked for.
    pub requested_model: Option<String>,
    /// Prompt tokens that came from a cache.
    pub cached_tokens: Option<i64>,
    /// Answer tokens spent on reasoning.
    pub reasoning_tokens: Option<i64>,
    /// From request to first content.
    pub time_to_first_token_ms: Option<i64>,
    /// Two decimals.
    pub tokens_per_second: Option<f64>,
    /// `stop`, `length`, …
    pub finish_reason: Option<String>,
    /// Where the counts came from.
    pub usage_source: Option<String>,
    /// How long loading the model took.
    pub model_load_ms: Option<i64>,
    /// Who asked.
    pub client: Option<String>,
    /// Fingerprint of the credential.
    pub key: Option<String>,
    /// The client library's retry count.
    pub attempt: Option<i64>,
    /// What went wrong, in plain words.
    pub error_message: Option<String>,
    /// The reply's own id.
    pub request_id: Option<String>,
}
