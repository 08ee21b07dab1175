//! What each path is for: one line a route.
//!
//! A line says who answers, what it takes in its query, and of a generating route of LM Studio, what it speaks. Who may
//! ask, and with which method, the front judges.

use std::ops::{Index, IndexMut};
use std::str::FromStr;

use crate::http::Refusal;
use crate::http::target::{climbs_out, decoded};
use crate::nearest::nearest;
use crate::usage::Dialect;
use crate::usage::listing::ModelRoute;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To LM Studio.
    Forward,
    /// Answered here.
    Local(Local),
    /// To LM Studio, if it opens a WebSocket; else nowhere.
    Namespace,
    /// `OPTIONS *`, a question about the server as a whole.
    Asterisk,
    /// Nowhere: 404.
    Unknown {
        /// The path that was probably meant.
        suggestion: Option<String>,
    },
}

/// The routes that the proxy answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// Whether the proxy runs.
    Health,
    /// Totals.
    Summary,
    /// Totals, kept apart by a name.
    By(By),
    /// Totals of hours, days, weeks or months.
    OverTime,
    /// Durations and speeds.
    Latency,
    /// The newest requests.
    Recent,
    /// Requests, page by page.
    Requests,
    /// One request in full.
    Request(i64),
    /// The body of one request, as it was sent.
    Body(i64),
    /// Requests that hold given words.
    Search,
    /// What the prompt of one shares with an earlier one.
    RequestPrefix(i64),
    /// What changed from the prompt of the first to that of the second.
    Diff(i64, i64),
    /// Conversations, page by page.
    Conversations,
    /// One of them as a thread.
    Conversation,
    /// Why prompts were read anew, and what that took.
    Prefixes,
    /// Where the time went.
    Time,
    /// All matching requests as a file.
    Export,
    /// Requests as they end, one event each.
    Live,
    /// What goes on now.
    Now,
    /// One of it is to end.
    CallOff(u64),
    /// What goes on and what today came to, in one line.
    Line,
    /// A report for a terminal.
    Report,
    /// The page for a browser.
    Page,
    /// Figures for Prometheus.
    Metrics,
}

/// What totals are kept apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum By {
    /// The model that answered.
    Model,
    /// The path.
    Endpoint,
    /// Who asked.
    Client,
    /// The credential's fingerprint.
    Key,
    /// How it ended.
    Outcome,
}

impl By {
    /// All of them.
    pub const ALL: [By; 5] = [By::Model, By::Endpoint, By::Client, By::Key, By::Outcome];

    /// The name of the field that tells them apart: of JSON, of a query, and of a column.
    pub fn name(self) -> &'static str {
        const NAMES: Names<&str> = ["model", "endpoint", "client", "key", "outcome"];
        NAMES[self]
    }

    /// A name as answers tell it: an empty one is nobody's, unless every request has one of this kind.
    pub fn told(self, name: &str) -> Option<String> {
        (!name.is_empty() || matches!(self, By::Model | By::Endpoint)).then(|| name.to_owned())
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<By> {
        By::ALL.into_iter().find(|by| by.name() == name)
    }
}

/// One of something for each of them, in the order of [`By::ALL`]: `names[By::Model]`.
pub type Names<T> = [T; By::ALL.len()];

impl<T> Index<By> for Names<T> {
    type Output = T;

    fn index(&self, by: By) -> &T {
        &self[by as usize]
    }
}

impl<T> IndexMut<By> for Names<T> {
    fn index_mut(&mut self, by: By) -> &mut T {
        &mut self[by as usize]
    }
}

/// A route that the proxy answers itself.
#[derive(Debug)]
pub struct LocalRoute {
    /// Its path, exactly.
    pub path: &'static str,
    /// What it is.
    pub local: Local,
    /// What its query takes beside the filters; `None`: not even these.
    pub takes: Option<&'static [&'static str]>,
}

const fn line(path: &'static str, local: Local, takes: Option<&'static [&'static str]>) -> LocalRoute {
    LocalRoute { path, local, takes }
}

/// Every local route but those of a single request and of a single conversation.
pub static LOCAL: [LocalRoute; 22] = [
    // The front answers.
    line("/health", Local::Health, None),
    line("/", Local::Page, None),
    // The statistics answer.
    line("/stats/summary", Local::Summary, Some(&[])),
    line("/stats/by-model", Local::By(By::Model), Some(&["format"])),
    line("/stats/by-endpoint", Local::By(By::Endpoint), Some(&["format"])),
    line("/stats/by-client", Local::By(By::Client), Some(&["format"])),
    line("/stats/by-key", Local::By(By::Key), Some(&["format"])),
    line("/stats/by-outcome", Local::By(By::Outcome), Some(&["format"])),
    line("/stats/over-time", Local::OverTime, Some(&["bucket", "by", "format", "percentiles"])),
    line("/stats/latency", Local::Latency, Some(&["by"])),
    line("/stats/recent", Local::Recent, Some(&["limit"])),
    line("/stats/requests", Local::Requests, Some(&["after", "limit"])),
    line("/stats/search", Local::Search, Some(&["q", "after", "limit"])),
    line("/stats/conversations", Local::Conversations, Some(&["after", "limit"])),
    line("/stats/prefix", Local::Prefixes, Some(&[])),
    line("/stats/time", Local::Time, Some(&[])),
    line("/stats/now", Local::Now, None),
    line("/stats/line", Local::Line, Some(&["format"])),
    line("/stats", Local::Report, Some(&["width"])),
    line("/metrics", Local::Metrics, None),
    // A worker answers: one for each export, one for all who listen.
    line("/stats/export", Local::Export, Some(&["format"])),
    line("/stats/live", Local::Live, Some(&[])),
];
/// The route of a single request, behind which its id stands, and what of it is asked for. The statistics answer.
static REQUEST: LocalRoute = line("/stats/requests/", Local::Request(0), None);
/// The route of one that goes on now, behind which its id stands. The statistics answer.
const NOW: &str = "/stats/now/";
/// The route of a single conversation, behind which its name stands. The statistics answer.
static CONVERSATION: LocalRoute = line("/stats/conversations/", Local::Conversation, Some(&["after", "limit"]));

/// What under these goes to LM Studio.
const FORWARDED: [&str; 3] = ["/v1/", "/api/v0/", "/api/v1/"];
/// What LM Studio's own clients ask first: whether it is LM Studio that listens here.
const GREETING: &str = "/lmstudio-greeting";
/// Where they open their WebSockets, one for each of what it is about.
const NAMESPACES: [&str; 8] =
    ["/llm", "/embedding", "/system", "/diagnostics", "/files", "/repository", "/plugins", "/runtime"];
/// The generating routes whose dialect is known; LM Studio answers.
const GENERATING: [(&str, Dialect); 9] = [
    ("/v1/chat/completions", Dialect::Chat),
    ("/v1/completions", Dialect::Completions),
    ("/v1/embeddings", Dialect::Embeddings),
    ("/v1/responses", Dialect::Responses),
    ("/v1/messages", Dialect::Messages),
    ("/api/v0/chat/completions", Dialect::Chat),
    ("/api/v0/completions", Dialect::Completions),
    ("/api/v0/embeddings", Dialect::Embeddings),
    ("/api/v1/chat", Dialect::NativeChat),
];
/// Under `/v1`, too, but they only list, and replies to them tell no usage.
const LISTING: [&str; 4] = ["/v1/models", "/v1/files", "/v1/batches", "/v1/vector_stores"];
/// Where upstream lists its models, and tells of one behind a slash.
const MODELS: [&str; 3] = ["/v1/models", "/api/v0/models", "/api/v1/models"];
/// What routes end with that only count, wherever they are.
const COUNTING: [&str; 4] = ["count_tokens", "input_tokens", "tokenize", "detokenize"];

/// First segments that are known under `/v1`, for the hint in a 404.
const KNOWN_UNDER_V1: [&str; 6] = ["chat", "completions", "embeddings", "messages", "models", "responses"];
/// First segments that are known under `/api/v1`. `/api/chat` is a route of Ollama: whoever asks for it speaks another
/// protocol than the one that answers at `/api/v1/chat`.
const KNOWN_UNDER_API: [&str; 1] = ["models"];
/// No hint for paths longer than this: it would only send back what came.
const SUGGESTION_BYTES_MAX: usize = 128;

impl Local {
    /// The methods of the route, as the Allow of a 405.
    pub fn allow(self) -> &'static str {
        if let Local::CallOff(_) = self { "DELETE" } else { "GET, HEAD" }
    }

    /// Whether the route has this method.
    pub fn allows(self, method: &str) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method)
    }

    /// Whether its answer tells what requests would have cost.
    pub fn tells_costs(self) -> bool {
        match self {
            Local::Summary | Local::By(_) | Local::OverTime | Local::Recent | Local::Requests | Local::Request(_) => {
                true
            }
            Local::Search
            | Local::Conversations
            | Local::Conversation
            | Local::Export
            | Local::Live
            | Local::Line
            | Local::Report => true,
            Local::Health | Local::Latency | Local::Body(_) | Local::RequestPrefix(_) | Local::Diff(..) => false,
            Local::Prefixes | Local::Time | Local::Now | Local::CallOff(_) | Local::Page | Local::Metrics => false,
        }
    }

    /// Whether what it answers depends on `Accept`.
    pub fn varies(self) -> bool {
        match self {
            Local::Page | Local::Report | Local::RequestPrefix(_) | Local::Prefixes => true,
            Local::Time | Local::Now | Local::Line | Local::Metrics => true,
            Local::Health | Local::Summary | Local::By(_) | Local::OverTime | Local::Latency => false,
            Local::Recent | Local::Requests | Local::Request(_) | Local::Body(_) | Local::Search => false,
            Local::Diff(..) | Local::Conversations | Local::Conversation => false,
            Local::Export | Local::Live | Local::CallOff(_) => false,
        }
    }

    /// Whether it answers in JSON, so that a member on each line can be asked for.
    pub fn has_json(self) -> bool {
        !matches!(self, Local::Body(_) | Local::Diff(..) | Local::Export | Local::Live | Local::Metrics)
    }

    /// Its line.
    pub fn line(self) -> &'static LocalRoute {
        let single = if self == Local::Conversation { &CONVERSATION } else { &REQUEST };
        LOCAL.iter().find(|line| line.local == self).unwrap_or(single)
    }
}

/// What a path (without query) is for. Forwarded paths must not climb out of their prefix, however they spell it.
pub fn route(path: &str) -> Result<Route, Refusal> {
    if let Some(rest) = FORWARDED.iter().find_map(|prefix| path.strip_prefix(prefix)) {
        return if climbs_out(rest) { Err(Refusal::PathEscapes) } else { Ok(Route::Forward) };
    }
    if let Some(local) = path.strip_prefix(REQUEST.path).and_then(of_request) {
        return Ok(Route::Local(local));
    }
    if let Some(id) = path.strip_prefix(NOW).and_then(number) {
        return Ok(Route::Local(Local::CallOff(id)));
    }
    if conversation_of(path).is_some() {
        return Ok(Route::Local(Local::Conversation));
    }
    if path == GREETING {
        return Ok(Route::Forward);
    }
    if NAMESPACES.contains(&path) {
        return Ok(Route::Namespace);
    }
    if let Some(line) = LOCAL.iter().find(|line| line.path == path) {
        return Ok(Route::Local(line.local));
    }
    Ok(if path == "*" { Route::Asterisk } else { Route::Unknown { suggestion: suggestion(path) } })
}

/// What of a request is asked for, by what stands behind the path of [`REQUEST`].
fn of_request(rest: &str) -> Option<Local> {
    let (id, what) = rest.split_once('/').map_or((rest, None), |(id, what)| (id, Some(what)));
    let id = number(id)?;
    match what {
        None => Some(Local::Request(id)),
        Some("body") => Some(Local::Body(id)),
        Some("prefix") => Some(Local::RequestPrefix(id)),
        Some(what) => Some(Local::Diff(id, number(what.strip_prefix("diff/")?)?)),
    }
}

fn number<N: FromStr>(id: &str) -> Option<N> {
    id.parse().ok().filter(|_| id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The name of the conversation that a path (without query) asks for.
pub fn conversation_of(path: &str) -> Option<String> {
    let name = path.strip_prefix(CONVERSATION.path)?;
    (!name.is_empty() && !name.contains('/')).then(|| decoded(name))
}

fn suggestion(path: &str) -> Option<String> {
    if path.len() > SUGGESTION_BYTES_MAX {
        return None;
    }
    let trimmed = path.trim_end_matches('/');
    let first = |rest: &str| rest.split('/').next().unwrap_or_default().to_owned();
    // Of a path with more parts or fewer, what follows a slash would be the slip.
    let parts = |path: &str| path.split('/').count();
    let mut alike = LOCAL.iter().map(|line| line.path).filter(|path| *path != "/" && parts(path) == parts(trimmed));
    if let Some(path) = nearest(trimmed, &mut alike) {
        return Some(path.to_owned());
    }
    if matches!(trimmed, "/v1" | "/api/v0" | "/api/v1") {
        return Some(format!("{trimmed}/models"));
    }
    if let Some(rest) = trimmed.strip_prefix("/api/") {
        return KNOWN_UNDER_API.contains(&first(rest).as_str()).then(|| format!("/api/v1/{rest}"));
    }
    let rest = trimmed.strip_prefix('/')?;
    KNOWN_UNDER_V1.contains(&first(rest).as_str()).then(|| format!("/v1/{rest}"))
}

/// What there is, in the words of a 404 to this path that is near to none.
pub fn overview(path: &str) -> String {
    if !path.starts_with("/stats") {
        return "The API is under /v1/, /api/v0/ and /api/v1/, figures are under /stats.".to_owned();
    }
    let listed: Vec<&str> = LOCAL.iter().map(|line| line.path).filter(|path| path.starts_with("/stats")).collect();
    format!(
        "There are {}, /stats/requests/ID (with /body or /prefix behind it), /stats/requests/ID/diff/ID and \
         /stats/conversations/NAME.",
        listed.join(", ")
    )
}

/// What the replies to requests for a path (without query) speak.
pub fn dialect_of(path: &str) -> Dialect {
    let path = path.strip_suffix('/').unwrap_or(path);
    GENERATING.iter().find(|(known, _)| *known == path).map_or(Dialect::Other, |(_, dialect)| *dialect)
}

/// Whether an exchange gets a row: every POST under `/v1/`, and the generating routes of LM Studio's own APIs.
pub fn is_recorded(method: &str, path: &str) -> bool {
    method == "POST" && (path.starts_with("/v1/") || path.starts_with("/api/") && dialect_of(path) != Dialect::Other)
}

/// What a request asks of upstream's models, if it does.
pub fn model_route(method: &str, path: &str) -> Option<ModelRoute> {
    let path = path.strip_suffix('/').unwrap_or(path);
    match method {
        "GET" => {
            let is_list = |list: &&str| path.strip_prefix(*list).is_some_and(|of| of.is_empty() || of.starts_with('/'));
            // Of downloads nothing is told there.
            let is_other = path.starts_with("/api/v1/models/");
            (MODELS.iter().any(is_list) && !is_other).then_some(ModelRoute::List)
        }
        "POST" if path == "/api/v1/models/load" => Some(ModelRoute::Load),
        "POST" if path == "/api/v1/models/unload" => Some(ModelRoute::Unload),
        _ => None,
    }
}

/// Whether requests to this path generate or embed something, so that their usage is worth missing.
pub fn generates(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let is_under = |list: &&str| path.strip_prefix(*list).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !COUNTING.contains(&path.rsplit('/').next().unwrap_or_default()) && !LISTING.iter().any(is_under)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Result<Route, Refusal>) {
        assert_eq!(route(path), expected, "{path}");
    }

    #[test]
    fn everything_under_the_prefixes_is_forwarded() {
        for path in ["/v1/", "/v1/chat/completions", "/api/v0/models/a%2Fb", "/api/v1/chat", "/v1//x", "/v1/a/../b"] {
            check(path, Ok(Route::Forward));
        }
        for path in ["/v1/a/./b", "/v1/...", "/v1/..a", "/v1/a%2f..%2fb", "/v1/%", "/v1/%2", "/v1/%252e%252e/"] {
            check(path, Ok(Route::Forward));
        }
    }

    #[test]
    fn paths_that_climb_out_of_their_prefix_are_refused() {
        for path in
            ["/v1/..", "/v1/../x", "/v1/../v1/models", "/v1/a/../../x", "/v1/./../x", "/v1//../x", "/api/v1/../v0/x"]
        {
            check(path, Err(Refusal::PathEscapes));
        }
        for path in ["/v1/%2e%2E/x", "/v1/.%2e/x", "/v1/%2e./", "/v1/..%2fx", "/v1/..%5Cx", "/v1/..\\x", "/v1/..;a/x"] {
            check(path, Err(Refusal::PathEscapes));
        }
    }

    #[test]
    fn local_paths_are_exact() {
        for &LocalRoute { path, local, .. } in &LOCAL {
            check(path, Ok(Route::Local(local)));
            assert_eq!(local.line().path, path);
            let suggestion = (path != "/").then(|| path.to_owned());
            check(&format!("{path}/"), Ok(Route::Unknown { suggestion }));
        }
        check("/stats/requests/150", Ok(Route::Local(Local::Request(150))));
        check("/stats/requests/150/body", Ok(Route::Local(Local::Body(150))));
        check("/stats/requests/150/prefix", Ok(Route::Local(Local::RequestPrefix(150))));
        check("/stats/requests/149/diff/150", Ok(Route::Local(Local::Diff(149, 150))));
        for rest in [
            "1/diff",
            "1/diff/",
            "1/diff/x",
            "1/diff/2/3",
            "-1",
            "+1",
            "x",
            "1/",
            "99999999999999999999",
            "1/body/",
            "1/x",
            "/body",
            "x/body",
        ] {
            check(&format!("/stats/requests/{rest}"), Ok(Route::Unknown { suggestion: None }));
        }
        check("/stats/now/7", Ok(Route::Local(Local::CallOff(7))));
        for rest in ["x", "-1", "+1", "7/", "99999999999999999999"] {
            check(&format!("/stats/now/{rest}"), Ok(Route::Unknown { suggestion: None }));
        }
        check("*", Ok(Route::Asterisk));
        for (path, name) in [("a%2Fb%20c+d", "a/b c+d"), ("%ff", "\u{fffd}"), (".", "."), ("..", "..")] {
            let path = format!("/stats/conversations/{path}");
            check(&path, Ok(Route::Local(Local::Conversation)));
            assert_eq!(conversation_of(&path).as_deref(), Some(name));
        }
        assert_eq!(Local::Conversation.line().path, "/stats/conversations/");
        check("/stats/conversations/a/", Ok(Route::Unknown { suggestion: None }));
    }

    #[test]
    fn a_path_that_lacks_its_prefix_names_the_likely_one() {
        let likely = |path: &str, expected: Option<&str>| {
            check(path, Ok(Route::Unknown { suggestion: expected.map(str::to_owned) }));
        };
        likely("/chat/completions", Some("/v1/chat/completions"));
        likely("/models", Some("/v1/models"));
        likely("/models/", Some("/v1/models"));
        likely("/completions", Some("/v1/completions"));
        likely("/embeddings", Some("/v1/embeddings"));
        likely("/responses/resp_1", Some("/v1/responses/resp_1"));
        likely("/messages", Some("/v1/messages"));
        likely("/api/chat", None);
        likely("/api/chat/", None);
        likely("/api/generate", None);
        likely("/api/models/load", Some("/api/v1/models/load"));
        likely("/v1", Some("/v1/models"));
        likely("/favicon.ico", None);
        likely("/chatter", None);
        likely("/v1%2fmodels", None);
        likely("/x/../v1/models", None);
        likely(&format!("/models/{}", "a".repeat(SUGGESTION_BYTES_MAX)), None);
        for (slip, path) in [
            ("/stats/nwo", "/stats/now"),
            ("/stats/nowx/", "/stats/now"),
            ("/stats/by-modell", "/stats/by-model"),
            ("/stats/overtime", "/stats/over-time"),
            ("/stats/conversation", "/stats/conversations"),
            ("/stat", "/stats"),
            ("/metric", "/metrics"),
            ("/helath", "/health"),
        ] {
            likely(slip, Some(path));
        }
        for far in ["/stats/tokens", "/stats/requests/x", "/stats/now/x", "/x", "/statistics"] {
            likely(far, None);
        }
        assert!(overview("/stats/tokens").contains("/stats/over-time") && !overview("/x").contains("over-time"));
    }

    #[test]
    fn the_path_tells_the_dialect() {
        let check = |path, dialect| assert_eq!(dialect_of(path), dialect, "{path}");
        check("/v1/chat/completions", Dialect::Chat);
        check("/api/v0/chat/completions", Dialect::Chat);
        check("/v1/chat/completions/", Dialect::Chat);
        check("/v1/completions", Dialect::Completions);
        check("/api/v0/completions", Dialect::Completions);
        check("/v1/embeddings", Dialect::Embeddings);
        check("/api/v0/embeddings", Dialect::Embeddings);
        check("/v1/responses", Dialect::Responses);
        check("/v1/messages", Dialect::Messages);
        check("/api/v1/chat", Dialect::NativeChat);
        check("/v1/messages/count_tokens", Dialect::Other);
        check("/v1/rerank", Dialect::Other);
        check("/api/v1/chat/completions", Dialect::Other);
    }

    #[test]
    fn counting_and_listing_generate_nothing() {
        let check = |path, expected| assert_eq!(generates(path), expected, "{path}");
        check("/v1/chat/completions", true);
        check("/v1/embeddings", true);
        check("/v1/rerank", true);
        check("/v1/models_of_mine", true);
        check("/v1/messages/count_tokens", false);
        check("/v1/messages/count_tokens/", false);
        check("/v1/responses/input_tokens", false);
        check("/v1/tokenize", false);
        check("/v1/models", false);
        check("/v1/models/m-1/info", false);
    }

    #[test]
    fn questions_about_models_are_known() {
        let check = |method, path, expected| assert_eq!(model_route(method, path), expected, "{method} {path}");
        for path in
            ["/v1/models", "/v1/models/", "/v1/models/a%2Fb", "/api/v0/models", "/api/v0/models/a", "/api/v1/models"]
        {
            check("GET", path, Some(ModelRoute::List));
            check("POST", path, None);
            check("HEAD", path, None);
        }
        check("POST", "/api/v1/models/load", Some(ModelRoute::Load));
        check("POST", "/api/v1/models/unload", Some(ModelRoute::Unload));
        for path in ["/api/v1/models/download/status/1", "/v1/modelsx", "/v1/chat/completions"] {
            check("GET", path, None);
            check("POST", path, None);
        }
    }

    #[test]
    fn posts_under_v1_and_generating_native_routes_are_recorded() {
        let check = |method, path, recorded| assert_eq!(is_recorded(method, path), recorded, "{method} {path}");
        check("POST", "/v1/chat/completions", true);
        check("POST", "/v1/anything", true);
        check("GET", "/v1/models", false);
        check("POST", "/api/v0/chat/completions", true);
        check("POST", "/api/v0/completions", true);
        check("POST", "/api/v0/embeddings", true);
        check("POST", "/api/v1/chat", true);
        check("POST", "/api/v1/models/load", false);
        check("GET", "/api/v0/models", false);
    }
}
