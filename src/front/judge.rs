//! What becomes of a request, decided by its head before any of its body is taken.

use crate::exchange::request::Forwarding;
use crate::http::origin;
use crate::http::refusal::Refusal;
use crate::http::reply::Reply;
use crate::http::target::query_pairs;
use crate::http::upgrade::opens_websocket;
use crate::http::{HostPolicy, RequestHead};
use crate::routes::{Local, Route, overview, route};
use crate::settings::{Settings, Token};
use crate::stats::page::{page, wants_page};

use super::intake::Verdict;

/// Exactly what the specification shows.
const HEALTHY: &[u8] = b"{\"status\": \"ok\", \"service\": \"lms_metrics_proxy_proxy\"}\n";

/// What to do with a request once it is whole.
pub enum Plan {
    /// It goes to upstream.
    Forward(Forwarding),
    /// The statistics thread answers it.
    Statistics(Local),
    /// The front answers it at once.
    Answer(Reply),
}

impl Plan {
    /// Whether a client that sends no more is taken for one that has left.
    pub fn ends_with_client(&self, head: &RequestHead) -> bool {
        match self {
            // No client of a WebSocket has said its last word before it is open.
            Plan::Forward(_) => head.method() == "POST" || opens_websocket(head),
            Plan::Statistics(question) => *question == Local::Live,
            Plan::Answer(_) => false,
        }
    }
}

/// Decides by the settings.
pub struct Judge {
    hosts: HostPolicy,
    token: Option<Token>,
    body_bytes_max: u64,
}

impl Judge {
    /// By these settings.
    pub fn new(settings: &Settings) -> Judge {
        Judge {
            hosts: HostPolicy::new(&settings.allowed_hosts),
            token: settings.stats_token.clone(),
            body_bytes_max: settings.body_bytes_max,
        }
    }

    /// The largest body accepted.
    pub fn body_bytes_max(&self) -> u64 {
        self.body_bytes_max
    }

    /// A plan, or the reason for refusing the request and closing its connection.
    pub fn judge(&self, head: &RequestHead) -> Result<Verdict<Plan>, Refusal> {
        // Only HTTP/1.0 may leave the host out; browsers, which DNS rebinding needs, never do.
        if head.host().is_some_and(|host| !self.hosts.allows(host)) {
            return Err(Refusal::HostNotAllowed);
        }
        let is_handshake = opens_websocket(head);
        let plan = match route(head.path())? {
            // Only POST makes a model do anything.
            Route::Forward if head.method() == "POST" && origin::is_unasked(head, &self.hosts) => {
                return Err(Refusal::OriginNotAllowed);
            }
            // A page may open one to any server, and read what comes.
            Route::Forward | Route::Namespace if is_handshake && origin::is_foreign(head, &self.hosts) => {
                return Err(Refusal::OriginNotAllowed);
            }
            Route::Namespace if !is_handshake => Plan::Answer(websockets_only(head.path())),
            Route::Forward | Route::Namespace => Plan::Forward(Forwarding::of(head)),
            Route::Local(local) => self.judge_local(head, local)?,
            Route::Asterisk => Plan::Answer(Reply::options()),
            Route::Unknown { suggestion } => {
                let instead = suggestion.map(|likely| format!("Did you mean {likely}?"));
                Plan::Answer(Reply::not_found(head.path(), &instead.unwrap_or_else(|| overview(head.path()))))
            }
        };
        let keep_body = matches!(plan, Plan::Forward(_));
        Ok(Verdict { plan, body_bytes_max: self.body_bytes_max, keep_body })
    }

    fn judge_local(&self, head: &RequestHead, local: Local) -> Result<Plan, Refusal> {
        if !origin::is_own(head) {
            return Err(Refusal::OriginNotAllowed);
        }
        if !local.allows(head.method()) {
            return Ok(Plan::Answer(Reply::method_not_allowed(local.allow())));
        }
        match local {
            Local::Health => Ok(Plan::Answer(Reply::json(200, HEALTHY.to_vec()))),
            // The page itself asks for the token, when the answer says that one is missing.
            Local::Page if wants_page(head) => Ok(Plan::Answer(page(head, if self.may_ask(head) { 200 } else { 401 }))),
            // To who takes it, the page says so.
            Local::Page if !self.may_ask(head) => {
                Ok(Plan::Answer(unauthorized().with_field("Vary", "Accept".to_owned())))
            }
            _ if !self.may_ask(head) => Ok(Plan::Answer(unauthorized())),
            Local::Page => Ok(Plan::Statistics(Local::Report)),
            statistics => Ok(Plan::Statistics(statistics)),
        }
    }

    fn may_ask(&self, head: &RequestHead) -> bool {
        let Some(token) = &self.token else { return true };
        let bearer = head.field("authorization").and_then(|value| {
            let (scheme, secret) = value.split_at_checked(b"bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"bearer ").then(|| secret.trim_ascii())
        });
        let in_query = || {
            let pairs = query_pairs(head.query().unwrap_or_default());
            pairs.into_iter().find(|(name, _)| name == "token").map(|(_, value)| value.into_bytes())
        };
        match bearer {
            Some(secret) => is_equal(secret, token.as_bytes()),
            None => in_query().is_some_and(|secret| is_equal(&secret, token.as_bytes())),
        }
    }
}

/// A proxy in between that passes no Upgrade on makes of a handshake what any GET is.
fn websockets_only(path: &str) -> Reply {
    let message = format!("{path} takes WebSockets only. A proxy in front of this one must pass Upgrade on.");
    Reply::error(404, &message, "not_found")
}

fn unauthorized() -> Reply {
    let message = "This proxy's statistics want a token: Authorization: Bearer TOKEN, or ?token=TOKEN.";
    Reply::error(401, message, "unauthorized").with_field("WWW-Authenticate", "Bearer".to_owned())
}

/// Compares in a time that tells nothing but the length.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::read_head;

    fn judge(variables: &[(&str, &str)], request: &str) -> Result<Plan, Refusal> {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        let (settings, _) = crate::settings::read(lookup).expect("valid settings");
        let (head, _) = read_head(request.as_bytes(), &mut 0).expect("a valid head").expect("a whole head");
        Judge::new(&settings).judge(&head).map(|verdict| verdict.plan)
    }

    #[test]
    fn health_needs_no_token_and_statistics_do() {
        let token = [("STATS_TOKEN", "s3cret")];
        let check = |path: &str, field: &str, expected: bool| {
            let plan = judge(&token, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n"));
            let answered = match plan {
                Ok(Plan::Statistics(_)) => true,
                Ok(Plan::Answer(reply)) => reply.status() == 200,
                Ok(Plan::Forward(_)) | Err(_) => panic!("{path} is local"),
            };
            assert_eq!(answered, expected, "{path} {field}");
        };
        check("/health", "", true);
        check("/stats/summary", "", false);
        check("/stats/summary", "Authorization: Bearer s3cret\r\n", true);
        check("/stats/summary", "Authorization: bearer s3cret\r\n", true);
        check("/stats/summary", "Authorization: Bearer s3cre\r\n", false);
        check("/stats/summary", "Authorization: Basic s3cret\r\n", false);
        check("/stats/summary?token=s3cret", "", true);
        check("/stats/summary?token=wrong", "", false);
    }

    #[test]
    fn a_foreign_origin_gets_no_local_route() {
        let check = |origin: &str, allowed: bool| {
            let request = format!("GET /health HTTP/1.1\r\nHost: localhost:8080\r\nOrigin: {origin}\r\n\r\n");
            assert_eq!(judge(&[], &request).is_ok(), allowed, "{origin}");
        };
        check("http://localhost:8080", true);
        check("https://evil.example", false);
        check("http://localhost:3000", false);
        check("null", false);
    }

    #[test]
    fn a_foreign_page_that_did_not_ask_first_gets_nothing_generated() {
        let check = |method: &str, path: &str, allowed: bool| {
            let origin = "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors";
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost:8080\r\n{origin}\r\n\r\n");
            let refused = judge(&[], &request).err();
            assert_eq!(refused, (!allowed).then_some(Refusal::OriginNotAllowed), "{method} {path}");
            assert!(judge(&[("ALLOWED_HOSTS", "evil.example")], &request).is_ok(), "{method} {path}");
        };
        for path in
            ["/v1/chat/completions", "/v1/anything", "/api/v0/completions", "/api/v1/chat", "/api/v1/models/load"]
        {
            check("POST", path, false);
            // Listings, the preflight, and what no page sends without one.
            for method in ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"] {
                check(method, path, true);
            }
        }
    }

    #[test]
    fn a_foreign_host_gets_no_route_at_all() {
        for path in ["/health", "/v1/models", "/nothing"] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
            assert_eq!(judge(&[], &request).err(), Some(Refusal::HostNotAllowed));
        }
        let request = "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n";
        assert!(judge(&[("ALLOWED_HOSTS", "evil.example")], request).is_ok());
    }
}
