//! The JSON of the statistics routes: names, types and order of the fields as the specification fixes them; fields
//! that came later follow. A figure that nobody told is `null`, in sums it adds nothing.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::csv;
use crate::record::row::Content;
pub use crate::routes::By;

/// What it would have cost; absent where there are no prices.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// In whole units of the currency, six decimals. `null`: no price is known.
    pub cost: Option<f64>,
    /// As the list of prices names it.
    pub currency: String,
}

/// `GET /stats/summary`.
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
    /// Requests whose token total is not known, of those that generate.
    pub requests_without_usage: i64,
    /// Prompt tokens that were written to a cache.
    pub total_cache_write_tokens: i64,
    /// Over those that tell when their first content came, one decimal.
    pub average_time_to_first_token_ms: Option<f64>,
    /// Over those that tell their speed, two decimals.
    pub average_tokens_per_second: Option<f64>,
    /// What they would have cost.
    #[serde(flatten)]
    pub cost: Option<Cost>,
    /// Prompts that upstream seems to have cut: a suspicion. Told of sums of all, not of groups and points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts_cut: Option<i64>,
    /// What electricity took. Told of sums of all and of groups, not of points.
    #[serde(flatten)]
    pub electricity: Option<Electricity>,
}

/// What electricity took while requests were under way; absent where nobody says how much that is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Electricity {
    /// Watt hours, three decimals. `None`: a part of the time was not counted.
    pub energy_wh: Option<f64>,
    /// In whole units of its currency, six decimals. Absent without a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub electricity_cost: Option<Option<f64>>,
    /// As its price names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub electricity_currency: Option<String>,
    /// What it would have cost elsewhere, less what electricity cost. Absent of groups, and without prices of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<Option<f64>>,
}

/// `GET /stats/by-model` and its like: most requests first, then by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// By what.
    pub by: By,
    /// One for each name that has requests.
    pub groups: Vec<Group>,
}

/// One name's share of the summary.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `None`: an unknown client, or a request without a credential. Written under the name of what it is.
    pub name: Option<String>,
    /// Of its requests alone.
    pub summary: Summary,
}

impl Serialize for Groups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups: Vec<NamedGroup> = self.groups.iter().map(|group| NamedGroup(self.by, group)).collect();
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&format!("{}s", self.by.name()), &groups)?;
        map.end()
    }
}

/// The figures of a group, as columns.
const FIGURES: &str = "requests,input_tokens,output_tokens,total_tokens,avg_tokens_per_request,successful_requests,\
    failed_requests,cancelled_requests,cached_tokens,reasoning_tokens,duration_ms,requests_without_usage,\
    cache_write_tokens,avg_time_to_first_token_ms,avg_tokens_per_second";
const COSTS: &str = ",cost,currency";

impl Groups {
    /// As a table, a line for each group.
    pub fn csv(&self) -> Vec<u8> {
        let has_costs = self.groups.iter().any(|group| group.summary.cost.is_some());
        let electricity = self.groups.iter().find_map(|group| group.summary.electricity.as_ref());
        let power = match electricity {
            None => "",
            Some(Electricity { electricity_cost: None, .. }) => ",energy_wh",
            Some(_) => ",energy_wh,electricity_cost,electricity_currency",
        };
        let header = [self.by.name(), ",", FIGURES, if has_costs { COSTS } else { "" }, power].concat();
        csv::table(&header, self.groups.iter().map(|group| NamedGroup(self.by, group)))
    }
}

struct NamedGroup<'a>(By, &'a Group);

impl Serialize for NamedGroup<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let NamedGroup(by, Group { name, summary }) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(by.name(), name)?;
        summary.serialize_figures(&mut map)?;
        map.end()
    }
}

impl Summary {
    /// Its figures in the order and under the names that groups have them.
    fn serialize_figures<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("requests", &self.total_requests)?;
        map.serialize_entry("input_tokens", &self.total_input_tokens)?;
        map.serialize_entry("output_tokens", &self.total_output_tokens)?;
        map.serialize_entry("total_tokens", &self.total_tokens)?;
        map.serialize_entry("avg_tokens_per_request", &average(self.total_tokens, self.total_requests))?;
        map.serialize_entry("successful_requests", &self.successful_requests)?;
        map.serialize_entry("failed_requests", &self.failed_requests)?;
        map.serialize_entry("cancelled_requests", &self.cancelled_requests)?;
        map.serialize_entry("cached_tokens", &self.total_cached_tokens)?;
        map.serialize_entry("reasoning_tokens", &self.total_reasoning_tokens)?;
        map.serialize_entry("duration_ms", &self.total_duration_ms)?;
        map.serialize_entry("requests_without_usage", &self.requests_without_usage)?;
        map.serialize_entry("cache_write_tokens", &self.total_cache_write_tokens)?;
        map.serialize_entry("avg_time_to_first_token_ms", &self.average_time_to_first_token_ms)?;
        map.serialize_entry("avg_tokens_per_second", &self.average_tokens_per_second)?;
        if let Some(Cost { cost, currency }) = &self.cost {
            map.serialize_entry("cost", cost)?;
            map.serialize_entry("currency", currency)?;
        }
        if let Some(Electricity { energy_wh, electricity_cost, electricity_currency, saved: _ }) = &self.electricity {
            map.serialize_entry("energy_wh", energy_wh)?;
            if let Some(cost) = electricity_cost {
                map.serialize_entry("electricity_cost", cost)?;
                map.serialize_entry("electricity_currency", electricity_currency)?;
            }
        }
        Ok(())
    }
}

/// Rounded to one decimal; of nothing it is zero.
pub(super) fn average(sum: i64, requests: i64) -> f64 {
    if requests == 0 { 0.0 } else { one_decimal(sum as f64 / requests as f64) }
}

/// The mean of those that are known, rounded to one decimal.
pub(super) fn known_mean(sum: i64, known: i64) -> Option<f64> {
    (known > 0).then(|| average(sum, known))
}

/// The mean of speeds, in hundredths. Sums of differences leave a trace, which must not decide how a half is rounded.
pub(super) fn speed_mean(sum: f64, known: i64) -> Option<f64> {
    let plain = (sum * 1e6).round() / 1e6;
    (known > 0).then(|| hundredths(plain / known as f64))
}

/// Rounded to two decimals.
pub(super) fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The nearest decimal to the exact value of `mean`, as Python and C's `printf` print it. Multiplying by ten rounds, too:
/// that matters where it comes to a half, and only there is the mean printed, which takes eight hundred instructions.
pub(super) fn one_decimal(mean: f64) -> f64 {
    let tenths = mean * 10.0;
    if (tenths - tenths.round()).abs() == 0.5 {
        return format!("{mean:.1}").parse().unwrap_or(mean);
    }
    tenths.round() / 10.0
}

/// `GET /stats/over-time`: the summary of each hour, day, week or month, oldest first, empty ones included.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OverTime {
    /// `hour`, `day`, `week` (from Monday) or `month`.
    pub bucket: &'static str,
    /// The distance from UTC whose midnights part days.
    pub tz: String,
    /// How far a percentile may be from the exact one, in percent of it. Absent where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentile_error_max_percent: Option<u32>,
    /// One for each.
    pub points: Vec<Point>,
}

/// The figures of a summary, as columns.
const SUMS: &str = "total_requests,successful_requests,failed_requests,total_input_tokens,total_output_tokens,total_tokens,\
    average_input_tokens,average_output_tokens,total_duration_ms,cancelled_requests,total_cached_tokens,\
    total_reasoning_tokens,requests_without_usage,total_cache_write_tokens,average_time_to_first_token_ms,\
    average_tokens_per_second";

/// The same of [`Percentiles`].
const PERCENTILES: &str = ",p50_time_to_first_token_ms,p95_time_to_first_token_ms,p50_duration_ms,p95_duration_ms,\
    p50_tokens_per_second,p95_tokens_per_second";

impl OverTime {
    /// As a table: a line for each point, or each of its groups.
    pub fn csv(&self, by: Option<By>) -> Vec<u8> {
        let has_costs = self.points.iter().any(|point| point.summary.cost.is_some());
        let costs = if has_costs { COSTS } else { "" };
        let percentiles = if self.percentile_error_max_percent.is_some() { PERCENTILES } else { "" };
        let Some(by) = by else { return csv::table(&["start,", SUMS, costs, percentiles].concat(), &self.points) };
        let header = ["start,", by.name(), ",", FIGURES, costs].concat();
        let groups =
            |point: &'_ Point| point.groups.iter().flat_map(|groups| &groups.groups).cloned().collect::<Vec<_>>();
        let lines = self
            .points
            .iter()
            .flat_map(|point| groups(point).into_iter().map(|group| GroupAt { start: point.start.clone(), by, group }));
        csv::table(&header, lines)
    }
}

struct GroupAt {
    start: String,
    by: By,
    group: Group,
}

impl Serialize for GroupAt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("start", &self.start)?;
        map.serialize_entry(self.by.name(), &self.group.name)?;
        self.group.summary.serialize_figures(&mut map)?;
        map.end()
    }
}

/// One bucket of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Its beginning, RFC 3339 in the zone asked for.
    pub start: String,
    /// The same in milliseconds since 1970.
    #[serde(skip)]
    pub start_ms: i64,
    /// What was requested in it.
    #[serde(flatten)]
    pub summary: Summary,
    /// Kept apart by name, where that was asked for.
    #[serde(flatten)]
    pub groups: Option<Groups>,
    /// Where these were asked for.
    #[serde(flatten)]
    pub percentiles: Option<Percentiles>,
}

/// What half, and 95 of a hundred, of the requests that tell a figure do not exceed. `null` where none does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "named as in the answer")]
pub struct Percentiles {
    pub p50_time_to_first_token_ms: Option<f64>,
    pub p95_time_to_first_token_ms: Option<f64>,
    pub p50_duration_ms: Option<f64>,
    pub p95_duration_ms: Option<f64>,
    pub p50_tokens_per_second: Option<f64>,
    pub p95_tokens_per_second: Option<f64>,
}

/// `GET /stats/latency`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Of all requests.
    #[serde(flatten)]
    pub overall: Distributions,
    /// How far a percentile may be from the exact one, in percent of it.
    pub percentile_error_max_percent: u32,
    /// Of each model, or whatever it was asked for by.
    #[serde(flatten)]
    pub groups: LatencyGroups,
}

/// Distributions by name, most requests first.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyGroups {
    /// By what.
    pub by: By,
    /// One for each name that has requests.
    pub groups: Vec<LatencyGroup>,
}

/// One name's distributions.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyGroup {
    /// As that of a [`Group`].
    pub name: Option<String>,
    /// Of its requests alone.
    pub distributions: Distributions,
}

impl Serialize for LatencyGroups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups: Vec<NamedLatency> = self.groups.iter().map(|group| NamedLatency(self.by, group)).collect();
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&format!("{}s", self.by.name()), &groups)?;
        map.end()
    }
}

struct NamedLatency<'a>(By, &'a LatencyGroup);

impl Serialize for NamedLatency<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let NamedLatency(by, LatencyGroup { name, distributions }) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(by.name(), name)?;
        map.serialize_entry("duration_ms", &distributions.duration_ms)?;
        map.serialize_entry("time_to_first_token_ms", &distributions.time_to_first_token_ms)?;
        map.serialize_entry("tokens_per_second", &distributions.tokens_per_second)?;
        map.end()
    }
}

/// How three figures are distributed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Distributions {
    /// From request to end of reply.
    pub duration_ms: Distribution,
    /// From request to first content.
    pub time_to_first_token_ms: Distribution,
    /// As measured or reported.
    pub tokens_per_second: Distribution,
}

/// The distribution of one figure over the requests that tell it. `null` where none does.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// How many requests tell it.
    pub count: i64,
    /// Exact.
    pub mean: Option<f64>,
    /// Half of the requests have no more.
    pub p50: Option<f64>,
    /// Nine of ten have no more.
    pub p90: Option<f64>,
    /// 95 of a hundred have no more.
    pub p95: Option<f64>,
    /// 99 of a hundred have no more.
    pub p99: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

/// `GET /stats/recent` and `GET /stats/requests`: newest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Requests {
    /// At most as many as asked for.
    pub requests: Vec<RequestRow>,
    /// What to give as `after` for the next older ones; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<i64>,
}

/// One request without its words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestRow {
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
    /// Prompt tokens that were written to a cache.
    pub cache_write_tokens: Option<i64>,
    /// Tokens that a draft model proposed.
    pub draft_tokens: Option<i64>,
    /// Those of them that the model took.
    pub accepted_draft_tokens: Option<i64>,
    /// Of the prompt, as upstream told it. Two decimals.
    pub prompt_tokens_per_second: Option<f64>,
    /// What it would have cost.
    #[serde(flatten)]
    pub cost: Option<Cost>,
    /// The conversation that it belongs to.
    pub conversation: Option<String>,
    /// Where that name comes from: `header`, `body`, `response` or `prefix`.
    pub conversation_source: Option<String>,
    /// The request that its client says it is sent again for.
    pub replay_of: Option<i64>,
    /// Bytes of the prompt, as templates render it.
    pub prompt_bytes: Option<i64>,
    /// The request whose prompt it was compared with,
    pub prefix_of: Option<i64>,
    /// so many bytes of which it begins with, too,
    pub prefix_bytes: Option<i64>,
    /// and so many whole messages.
    pub prefix_messages: Option<i64>,
    /// Why it does not go on where that one ended: see [`crate::prompts::reason::PrefixBreak`].
    pub prefix_break: Option<String>,
    /// How long reading anew took what could have been shared, as estimated.
    pub prefix_lost_ms: Option<i64>,
    /// How long it waited for a place among those that may be in flight.
    pub queue_ms: Option<i64>,
    /// How many tokens the model's context holds.
    pub context_tokens: Option<i64>,
    /// Of a hundred of them, those that prompt and answer take. One decimal.
    pub context_used_percent: Option<f64>,
    /// Upstream seems to have cut the prompt: a suspicion.
    pub prompt_cut: Option<bool>,
    /// How many tokens it has if it is as usual for its model; `input_tokens` are those that were told.
    pub prompt_expected_tokens: Option<i64>,
}

/// `GET /stats/requests/{id}`: everything of one request.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestInFull {
    /// Its figures.
    #[serde(flatten)]
    pub request: RequestRow,
    /// When its reply ended: RFC 3339, UTC, milliseconds.
    pub end_time: String,
    /// What was said, as stored.
    #[serde(flatten)]
    pub content: Content,
}

/// `GET /stats/search`: newest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Search {
    /// Those that hold every word.
    pub requests: Vec<Hit>,
    /// What to give as `after` to search on: the work of one question is bounded. Absent once everything is searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<i64>,
}

/// One request that holds the words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// Its figures.
    #[serde(flatten)]
    pub request: RequestRow,
    /// Where the first word was found: `prompt`, `output`, `reasoning` or `tool_calls`.
    pub found_in: &'static str,
    /// What stands around it.
    pub excerpt: String,
}

/// `GET /stats/conversations`: those first whose last request is the newest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conversations {
    /// At most as many as asked for.
    pub conversations: Vec<ConversationTotals>,
    /// What to give as `after` for further ones: the work of one question is bounded. Absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<i64>,
}

/// What requests that belong together come to.
#[derive(Clone, Debug, PartialEq)]
pub struct ConversationTotals {
    /// Its name.
    pub conversation: String,
    /// Where the name comes from: `header`, `body`, `response` or `prefix`.
    pub conversation_source: Option<String>,
    /// What its first request says first.
    pub title: Option<String>,
    /// Who asked, as far as that is known; most requests first.
    pub clients: Vec<String>,
    /// The models that answered; most requests first.
    pub models: Vec<String>,
    /// Of all its requests, removed ones included. Written as that of a group is.
    pub summary: Summary,
    /// Its first request.
    pub first_id: i64,
    /// When that began: RFC 3339, UTC, whole seconds. `None`: its row was removed.
    pub first_time: Option<String>,
    /// Its last request.
    pub last_id: i64,
    /// When that began.
    pub last_time: Option<String>,
}

impl Serialize for ConversationTotals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("conversation", &self.conversation)?;
        map.serialize_entry("conversation_source", &self.conversation_source)?;
        map.serialize_entry("title", &self.title)?;
        map.serialize_entry("clients", &self.clients)?;
        map.serialize_entry("models", &self.models)?;
        self.summary.serialize_figures(&mut map)?;
        map.serialize_entry("first_id", &self.first_id)?;
        map.serialize_entry("first_time", &self.first_time)?;
        map.serialize_entry("last_id", &self.last_id)?;
        map.serialize_entry("last_time", &self.last_time)?;
        map.end()
    }
}

/// `GET /stats/conversations/{name}`: a conversation as a thread.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConversationThread {
    /// What it comes to.
    #[serde(flatten)]
    pub conversation: ConversationTotals,
    /// Its requests, oldest first; at most as many as asked for.
    pub turns: Vec<RequestRow>,
    /// What to give as `after` for the next ones; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<i64>,
}
