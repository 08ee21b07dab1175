//! Replies: the proxy's own, and the head of relayed ones. Bytes only; it does not send.

use serde_json::json;
use ureq::http::StatusCode;

use super::refusal::{Refusal, RefusalFacts};
use super::syntax::{is_hop_by_hop, is_nominated};
use crate::calendar::http_date;

/// Whether the connection outlives a reply, and how that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The connection ends with the reply: `Connection: close`.
    Close,
    /// It stays open, which HTTP/1.1 takes for granted.
    KeepAlive,
    /// It stays open, which HTTP/1.0 has to be told: `Connection: keep-alive`.
    KeepAliveAnnounced,
}

/// How the body of a relayed reply is delimited towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFraming {
    /// `Content-Length`, as upstream sent it. Also for replies to HEAD and for 304, which have no body.
    Length(u64),
    /// `Transfer-Encoding: chunked`. Never towards HTTP/1.0.
    Chunked,
    /// Neither: a status without a body, or an end that only the close of the connection marks.
    None,
}

/// The answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The type of most replies.
const JSON: &str = "application/json";

/// A reply of the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    status: u16,
    fields: Vec<(&'static str, String)>,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Reply {
    /// A reply with a JSON body.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, JSON, body)
    }

    /// A reply with a body of another type.
    pub fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, fields: Vec::new(), content_type, body }
    }

    /// An error in the documented shape.
    pub fn error(status: u16, message: &str, code: &str) -> Self {
        let (message, code) = (json!(message), json!(code));
        let body = format!(r#"{{"error":{{"message":{message},"type":"proxy_error","code":{code}}}}}"#) + "\n";
        Self::json(status, body.into_bytes())
    }

    /// The answer to a refused request.
    pub fn refusal(refusal: Refusal) -> Self {
        let RefusalFacts { status, code, message, .. } = refusal.facts();
        Self::error(status, message, code)
    }

    /// 404, with what else there is.
    pub fn not_found(path: &str, instead: &str) -> Self {
        // Paths are as long as clients make them; the start of one is enough to recognise it.
        let shown: String = path.chars().take(200).collect();
        Self::error(404, &format!("There is nothing at {shown}. {instead}"), "not_found")
    }

    /// 405, with the methods that are allowed.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::error(405, &format!("The methods of this path are: {allow}."), "method_not_allowed")
            .with_field("Allow", allow.to_owned())
    }

    /// 503, with the time after which another try makes sense.
    pub fn overloaded(message: &str, retry_after_s: u32) -> Self {
        Self::error(503, message, "overloaded").with_field("Retry-After", retry_after_s.to_string())
    }

    /// 204 to `OPTIONS *`.
    pub fn options() -> Self {
        Self::new(204, "", Vec::new())
    }

    /// The same with one more field. The value must not hold line ends.
    pub fn with_field(mut self, name: &'static str, value: String) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The same with another body.
    pub fn with_body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    /// Whether its body is JSON.
    pub fn is_json(&self) -> bool {
        self.content_type == JSON
    }

    /// The bytes for the client, at this moment. To HEAD the body is left out, its length stays.
    pub fn encode(&self, persistence: Persistence, head_only: bool, now_ms: i64) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.body.len());
        push_status_line(&mut out, self.status, reason(self.status));
        // RFC 9110 §6.6.1: in errors of a server it may be left out.
        if self.status < 500 {
            push_field(&mut out, "Date", http_date(now_ms).as_bytes());
        }
        if self.status != 204 {
            push_field(&mut out, "Content-Type", self.content_type.as_bytes());
            push_field(&mut out, "Content-Length", self.body.len().to_string().as_bytes());
        }
        push_field(&mut out, "Cache-Control", b"no-store");
        for (name, value) in &self.fields {
            push_field(&mut out, name, value.as_bytes());
        }
        push_persistence(&mut out, persistence);
        out.extend_from_slice(b"\r\n");
        if !head_only && self.status != 204 {
            out.extend_from_slice(&self.body);
        }
        out
    }
}

/// Writes the head of a relayed reply: status, reason phrase and end-to-end fields as they came, our framing and our
/// Connection. `codings`: those that the body still has. An HTTP/1.0 client must not be sent any.
pub fn write_relayed_head<'a>(
    out: &mut Vec<u8>,
    (status, reason): (u16, &str),
    fields: impl Iterator<Item = (&'a str, &'a [u8])> + Clone,
    (framing, codings): (ReplyFraming, &str),
    persistence: Persistence,
) {
    push_status_line(out, status, reason);
    for (name, value) in fields.clone() {
        if !is_hop_by_hop(name) && !name.eq_ignore_ascii_case("content-length") && !is_nominated(fields.clone(), name) {
            push_field(out, name, value);
        }
    }
    match framing {
        ReplyFraming::Length(bytes) => push_field(out, "Content-Length", bytes.to_string().as_bytes()),
        ReplyFraming::Chunked if codings.is_empty() => push_field(out, "Transfer-Encoding", b"chunked"),
        ReplyFraming::Chunked => push_field(out, "Transfer-Encoding", format!("{codings}, chunked").as_bytes()),
        ReplyFraming::None if codings.is_empty() => {}
        ReplyFraming::None => push_field(out, "Transfer-Encoding", codings.as_bytes()),
    }
    push_persistence(out, persistence);
    out.extend_from_slice(b"\r\n");
}

fn push_status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn push_persistence(out: &mut Vec<u8>, persistence: Persistence) {
    match persistence {
        Persistence::Close => push_field(out, "Connection", b"close"),
        Persistence::KeepAlive => {}
        Persistence::KeepAliveAnnounced => push_field(out, "Connection", b"keep-alive"),
    }
}

/// The reason phrase of a status. Empty for unregistered ones, which RFC 9112 §4 allows.
fn reason(status: u16) -> &'static str {
    match status {
        // As RFC 9110 §15.5.14 has it; the crate keeps an older name.
        413 => "Content Too Large",
        _ => StatusCode::from_u16(status).ok().and_then(|known| known.canonical_reason()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    #[track_caller]
    fn check(reply: &Reply, persistence: Persistence, head_only: bool, expected: &str) {
        assert_eq!(String::from_utf8_lossy(&reply.encode(persistence, head_only, 784_111_777_000)), expected);
    }

    #[test]
    fn a_refusal_is_readable_json_and_closes() {
        let body = "{\"error\":{\"message\":\"The request target is too long.\",\"type\":\"proxy_error\",\"code\":\"target_too_long\"}}\n";
        let head = format!(
            "HTTP/1.1 414 URI Too Long\r\n{DATE}Content-Type: application/json\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let reply = Reply::refusal(Refusal::TargetTooLong);
        check(&reply, Persistence::Close, false, &format!("{head}{body}"));
        check(&reply, Persistence::Close, true, &head);
    }

    #[test]
    fn the_reply_tells_http_1_0_that_the_connection_stays() {
        let head = format!(
            "HTTP/1.1 200 OK\r\n{DATE}Content-Type: application/json\r\nContent-Length: 2\r\nCache-Control: no-store\r\n"
        );
        let reply = Reply::json(200, b"{}".to_vec());
        check(&reply, Persistence::KeepAlive, false, &format!("{head}\r\n{{}}"));
        check(&reply, Persistence::KeepAliveAnnounced, false, &format!("{head}Connection: keep-alive\r\n\r\n{{}}"));
    }

    #[test]
    fn errors_of_the_server_have_no_date() {
        let encoded = Reply::overloaded("Busy.", 2).encode(Persistence::Close, false, 0);
        assert!(!String::from_utf8(encoded).expect("text").contains("Date:"));
    }

    #[test]
    fn replies_that_need_a_field_have_it() {
        let text = |reply: Reply| String::from_utf8(reply.encode(Persistence::Close, false, 0)).expect("text");
        assert!(text(Reply::method_not_allowed("GET, HEAD")).contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(text(Reply::overloaded("Busy.", 2)).contains("\r\nRetry-After: 2\r\n"));
        assert!(text(Reply::not_found("/models", "See there.")).contains("There is nothing at /models. See there."));
        assert!(!text(Reply::options()).contains("Content-Length"));
        assert!(Reply::not_found(&"/\u{e9}".repeat(9000), "").body().len() < 1000);
    }

    #[test]
    fn a_relayed_head_keeps_end_to_end_fields_and_frames_anew() {
        let upstream: &[(&str, &[u8])] = &[
            ("content-type", b"text/event-stream"),
            ("content-length", b"5"),
            ("transfer-encoding", b"chunked"),
            ("connection", b"keep-alive, x-hop"),
            ("keep-alive", b"timeout=5"),
            ("x-hop", b"1"),
            ("set-cookie", b"a"),
            ("set-cookie", b"b"),
        ];
        let relayed_coded = |status, framing, codings, persistence| {
            let mut out = Vec::new();
            write_relayed_head(&mut out, (status, "So so"), upstream.iter().copied(), (framing, codings), persistence);
            String::from_utf8(out).expect("text")
        };
        let relayed = |status, framing, persistence| relayed_coded(status, framing, "", persistence);
        let fields = "content-type: text/event-stream\r\nset-cookie: a\r\nset-cookie: b\r\n";
        let chunked = format!("HTTP/1.1 200 So so\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(relayed(200, ReplyFraming::Chunked, Persistence::KeepAlive), chunked);
        let length = format!("HTTP/1.1 404 So so\r\n{fields}Content-Length: 5\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(relayed(404, ReplyFraming::Length(5), Persistence::KeepAliveAnnounced), length);
        let coded = chunked.replace("chunked", "gzip, chunked");
        assert_eq!(relayed_coded(200, ReplyFraming::Chunked, "gzip", Persistence::KeepAlive), coded);
        let closed = coded.replace("gzip, chunked", "chunked, gzip\r\nConnection: close");
        assert_eq!(relayed_coded(200, ReplyFraming::None, "chunked, gzip", Persistence::Close), closed);
        let closed = format!("HTTP/1.1 299 So so\r\n{fields}Connection: close\r\n\r\n");
        assert_eq!(relayed(299, ReplyFraming::None, Persistence::Close), closed);
    }
}
