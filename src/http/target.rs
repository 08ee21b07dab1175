//! Routing: what a path is for. It does not decide who may ask, nor with which method.

use super::refusal::Refusal;

/// What under these goes to LM Studio.
const FORWARDED: [&str; 3] = ["/v1/", "/api/v0/", "/api/v1/"];
/// First segments that are known under `/v1`, for the hint in a 404.
const KNOWN_UNDER_V1: [&str; 6] = ["chat", "completions", "embeddings", "messages", "models", "responses"];
/// First segments that are known under `/api/v1`. `/api/chat` is a route of Ollama: whoever asks for it speaks another
/// protocol than the one that answers at `/api/v1/chat`.
const KNOWN_UNDER_API: [&str; 1] = ["models"];
/// No hint for paths longer than this: it would only send back what came.
const SUGGESTION_BYTES_MAX: usize = 128;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To LM Studio.
    Forward,
    /// Answered here.
    Local(Local),
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
    /// Totals by model.
    ByModel,
    /// Totals by endpoint.
    ByEndpoint,
    /// Totals by client.
    ByClient,
    /// Totals by credential.
    ByKey,
    /// Totals by how requests ended.
    ByOutcome,
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
    /// Requests that hold given words.
    Search,
    /// All matching requests as a file.
    Export,
    /// Requests as they end, one event each.
    Live,
    /// A report for a terminal.
    Report,
    /// The page for a browser.
    Page,
    /// Figures for Prometheus.
    Metrics,
}

impl Local {
    /// Every local path but that of a single request. A new route is a line here and a variant above.
    pub const ALL: [(&'static str, Local); 17] = [
        ("/health", Local::Health),
        ("/stats/summary", Local::Summary),
        ("/stats/by-model", Local::ByModel),
        ("/stats/by-endpoint", Local::ByEndpoint),
        ("/stats/by-client", Local::ByClient),
        ("/stats/by-key", Local::ByKey),
        ("/stats/by-outcome", Local::ByOutcome),
        ("/stats/over-time", Local::OverTime),
        ("/stats/latency", Local::Latency),
        ("/stats/recent", Local::Recent),
        ("/stats/requests", Local::Requests),
        ("/stats/search", Local::Search),
        ("/stats/export", Local::Export),
        ("/stats/live", Local::Live),
        ("/stats", Local::Report),
        ("/", Local::Page),
        ("/metrics", Local::Metrics),
    ];
    /// What stands before the id of a single request.
    const REQUEST: &'static str = "/stats/requests/";
    /// The methods of local routes, as the Allow of a 405.
    pub const ALLOW: &'static str = "GET, HEAD";

    /// Whether local routes have this method.
    pub fn allows(method: &str) -> bool {
        matches!(method, "GET" | "HEAD")
    }
}

/// What a path (without query) is for. Forwarded paths must not climb out of their prefix, however they spell it.
pub fn route(path: &str) -> Result<Route, Refusal> {
    if let Some(rest) = FORWARDED.iter().find_map(|prefix| path.strip_prefix(prefix)) {
        return if climbs_out(rest) { Err(Refusal::PathEscapes) } else { Ok(Route::Forward) };
    }
    if let Some(id) = path.strip_prefix(Local::REQUEST)
        && !id.is_empty()
        && id.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(id) = id.parse()
    {
        return Ok(Route::Local(Local::Request(id)));
    }
    if let Some((_, local)) = Local::ALL.iter().find(|(known, _)| *known == path) {
        return Ok(Route::Local(*local));
    }
    Ok(if path == "*" { Route::Asterisk } else { Route::Unknown { suggestion: suggestion(path) } })
}

/// Whether the segments after a prefix lead above it at any point, for any server that decodes `%2e`, `%2f` and `%5c`,
/// takes `\` for `/`, cuts a segment at `;`, or drops empty segments.
fn climbs_out(rest: &str) -> bool {
    let decoded = percent_decode(rest.as_bytes());
    let mut depth = 0_usize;
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment.split(|&byte| byte == b';').next() {
            Some(b"..") if depth == 0 => return true,
            Some(b"..") => depth -= 1,
            Some(b"." | b"") | None => {}
            Some(_) => depth += 1,
        }
    }
    false
}

fn suggestion(path: &str) -> Option<String> {
    if path.len() > SUGGESTION_BYTES_MAX {
        return None;
    }
    let trimmed = path.trim_end_matches('/');
    let first = |rest: &str| rest.split('/').next().unwrap_or_default().to_owned();
    if Local::ALL.iter().any(|(known, _)| *known == trimmed) {
        return Some(trimmed.to_owned());
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

/// The pairs of a query in order, percent-decoded, `+` as a space. A name without `=` has an empty value. What is no
/// UTF-8 is replaced.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let text = |part: &str| {
        let spaced: Vec<u8> = part.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
        String::from_utf8_lossy(&percent_decode(&spaced)).into_owned()
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Decodes `%XX`; a `%` without two hex digits stays as it is.
fn percent_decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        let hex = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
        let escaped = match after {
            [high, low, ..] if byte == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                decoded.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    decoded
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
        for (path, local) in Local::ALL {
            check(path, Ok(Route::Local(local)));
            let suggestion = (path != "/").then(|| path.to_owned());
            check(&format!("{path}/"), Ok(Route::Unknown { suggestion }));
        }
        check("/stats/requests/150", Ok(Route::Local(Local::Request(150))));
        for path in
            ["/stats/requests/-1", "/stats/requests/x", "/stats/requests/1/", "/stats/requests/99999999999999999999"]
        {
            check(path, Ok(Route::Unknown { suggestion: None }));
        }
        check("*", Ok(Route::Asterisk));
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
    }

    #[test]
    fn queries_are_decoded_in_order() {
        let check = |query: &str, expected: &[(&str, &str)]| {
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(query_pairs(query), expected, "{query}");
        };
        check("", &[]);
        check("limit=5&limit=6", &[("limit", "5"), ("limit", "6")]);
        check("a&b=&&=c", &[("a", ""), ("b", ""), ("", "c")]);
        check("a+b=c%20d%2B%C3%A9&x=y=z", &[("a b", "c d+\u{e9}"), ("x", "y=z")]);
        check("a=%&b=%4&c=%zz&d=%ff", &[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "\u{fffd}")]);
    }
}
