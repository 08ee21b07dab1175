//! The line of the log that an exchange, or a generation of a WebSocket, leaves: who asked what, and what it came to.
//!
//! What is not known is left out. Only the proxy's own words say why something failed: upstream's may quote the prompt,
//! and stand in the row alone. Nothing is put into words where the level is off.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, Record};

use super::draft::Ending;
use crate::http::head::RequestHead;
use crate::record::row::{Outcome, Row};

/// What is known of an exchange before its row is made.
pub struct ExchangeLine {
    peer: SocketAddr,
    began: Instant,
    outcome: Outcome,
    status: Option<u16>,
    /// Why it failed, in the proxy's own words.
    reason: Option<String>,
}

impl ExchangeLine {
    /// Of an exchange that has ended so.
    pub fn new(peer: SocketAddr, ending: &Ending, began: Instant) -> ExchangeLine {
        let Ending { outcome, http_status, error, .. } = ending;
        ExchangeLine { peer, began, outcome: *outcome, status: *http_status, reason: error.clone() }
    }

    /// Logs it, with what its row says, if it has one.
    pub fn log(self, head: &RequestHead, row: Option<&Row>) {
        let ExchangeLine { peer, began, outcome, status, reason } = self;
        let duration_ms = row.map_or_else(|| began.elapsed().as_millis() as u64, |row| row.duration_ms);
        let (method, path) = (head.method(), head.path());
        Told { peer, method, path, status, outcome, duration_ms, reason: reason.as_deref(), row }.log();
    }
}

/// Logs a generation of a WebSocket. `reason`: why it failed, in the proxy's own words.
pub fn log_generation(peer: SocketAddr, row: &Row, reason: Option<&str>) {
    let (path, outcome, duration_ms) = (row.endpoint.as_str(), row.outcome, row.duration_ms);
    Told { peer, method: "WebSocket", path, status: None, outcome, duration_ms, reason, row: Some(row) }.log();
}

/// All that the line says.
struct Told<'a> {
    peer: SocketAddr,
    method: &'a str,
    path: &'a str,
    status: Option<u16>,
    outcome: Outcome,
    duration_ms: u64,
    reason: Option<&'a str>,
    row: Option<&'a Row>,
}

impl Told<'_> {
    fn log(&self) {
        let level = level(self.outcome);
        if log::log_enabled!(level) {
            let mut record = Record::builder();
            record.level(level).target(module_path!()).module_path_static(Some(module_path!())).key_values(self);
            log::logger().log(&record.args(format_args!("{self}")).build());
        }
    }
}

/// A request that lost something is worth a warning.
fn level(outcome: Outcome) -> Level {
    match outcome {
        Outcome::UpstreamUnreachable | Outcome::UpstreamTimeout | Outcome::Truncated => Level::Warn,
        Outcome::Completed
        | Outcome::ClientClosed
        | Outcome::CancelledHere
        | Outcome::UpstreamError
        | Outcome::ErrorInReply
        | Outcome::Shutdown => Level::Info,
    }
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Told { peer, method, path, status, outcome, duration_ms, reason, row } = self;
        write!(f, "{peer} {method} {path} ")?;
        if let Some(status) = status {
            write!(f, "{status} ")?;
        }
        write!(f, "{} in {duration_ms} ms", outcome.as_str())?;
        if let Some(row) = row {
            let text = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!(", {name} {value}"));
            let count = |value: Option<u64>, of: &str| value.map(|value| format!(", {value} {of}"));
            let told = [
                text("model", &row.model),
                count(row.input_tokens, "tokens in"),
                count(row.output_tokens, "tokens out"),
                row.tokens_per_second.map(|speed| format!(", {speed:.1} tokens/s")),
                text("client", &row.client),
            ];
            told.iter().flatten().try_for_each(|told| f.write_str(told))?;
        }
        reason.map_or(Ok(()), |reason| write!(f, ": {reason}"))
    }
}

/// The same as fields, under the names that rows have for them.
impl kv::Source for Told<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), kv::Error> {
        let mut put = |name: &'static str, value: Option<Value<'kvs>>| {
            value.map_or(Ok(()), |value| visitor.visit_pair(Key::from_str(name), value))
        };
        put("peer", Some(Value::from_display(&self.peer)))?;
        put("method", Some(Value::from(self.method)))?;
        put("path", Some(Value::from(self.path)))?;
        put("http_status", self.status.map(|status| Value::from(u64::from(status))))?;
        put("outcome", Some(Value::from(self.outcome.as_str())))?;
        put("duration_ms", Some(Value::from(self.duration_ms)))?;
        put("reason", self.reason.map(Value::from))?;
        let Some(row) = self.row else { return Ok(()) };
        put("model", row.model.as_deref().map(Value::from))?;
        put("input_tokens", row.input_tokens.map(Value::from))?;
        put("output_tokens", row.output_tokens.map(Value::from))?;
        put("tokens_per_second", row.tokens_per_second.map(Value::from))?;
        put("client", row.client.as_deref().map(Value::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out_and_never_a_zero() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 5));
        let told = |status, outcome, reason, row: Option<&Row>| {
            let (method, path, duration_ms) = ("POST", "/v1/x", 7);
            Told { peer, method, path, status, outcome, duration_ms, reason, row }.to_string()
        };
        let mut row = crate::testing::row();
        (row.model, row.client) = (Some("m".into()), Some("curl".into()));
        (row.input_tokens, row.output_tokens, row.tokens_per_second) = (Some(0), None, None);
        let line = told(Some(200), Outcome::Completed, None, Some(&row));
        assert_eq!(line, "127.0.0.1:5 POST /v1/x 200 completed in 7 ms, model m, 0 tokens in, client curl");
        (row.input_tokens, row.output_tokens, row.tokens_per_second) = (None, Some(9), Some(12.345));
        (row.model, row.client) = (None, None);
        let line = told(None, Outcome::Truncated, Some("it broke"), Some(&row));
        assert_eq!(line, "127.0.0.1:5 POST /v1/x truncated in 7 ms, 9 tokens out, 12.3 tokens/s: it broke");
        let line = told(None, Outcome::ClientClosed, None, None);
        assert_eq!(line, "127.0.0.1:5 POST /v1/x client_closed in 7 ms");
    }
}
