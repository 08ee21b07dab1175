//! The upstream side of an exchange: a ureq agent with one connection of its own ([`super::wire`]).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ureq::http::uri::{PathAndQuery, Scheme};
use ureq::http::{Request, StatusCode, Uri, request};
use ureq::{Agent, SendBody, Timeout};

use super::dial::{Dial, Elsewhere, Tls, UpstreamFacts, is_out_of_descriptors};
use super::head_reader::UpstreamReply;
use super::manners::Manners;
use super::no_reply::NoReply;
use super::wire::WireState;
use crate::keepalive;
use crate::limits::{UPSTREAM_IDLE_TIME_MAX, UPSTREAM_UNPROVEN_MAX};
use crate::settings::UpstreamUrl;

/// So much at a time ureq counts of a body that it does not get to read.
const COUNTED_BYTES: usize = 8 * 1024;

/// A way to upstream.
pub struct UpstreamConnection {
    agent: Agent,
    wire: Arc<WireState>,
    dial: Arc<Dial>,
    /// When it was used last.
    used: Instant,
}

impl Drop for UpstreamConnection {
    fn drop(&mut self) {
        self.dial.upstream.ways.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UpstreamConnection {
    /// A way to upstream; no connection is made yet.
    pub fn new(upstream: &Arc<UpstreamFacts>) -> UpstreamConnection {
        let wire = Arc::new(WireState::default());
        let dial = Arc::new(Dial { wire: wire.clone(), aside: Arc::default(), upstream: upstream.clone() });
        upstream.ways.fetch_add(1, Ordering::Relaxed);
        UpstreamConnection { agent: agent(&dial), wire, dial, used: Instant::now() }
    }

    /// The state of the socket, for calling off and for the relay.
    pub fn wire(&self) -> &Arc<WireState> {
        &self.wire
    }

    /// How upstream treats connections.
    pub fn manners(&self) -> &Manners {
        &self.dial.upstream.manners
    }

    /// It was used until now.
    pub fn note_use(&mut self, now: Instant) {
        self.used = now;
    }

    /// When it will be too old to be of use.
    pub fn expires(&self) -> Instant {
        self.used + UPSTREAM_IDLE_TIME_MAX
    }

    /// Whether it can be used again.
    pub fn is_proven(&self, now: Instant) -> bool {
        self.manners().allow(self.wire.carried_stream(), now.saturating_duration_since(self.used))
    }

    /// Whether it is worth keeping beside these, which are kept: proven, or of a trusted upstream, or one of a few that are
    /// neither, while there are no more ways than are ever in use at once.
    pub fn is_kept<'u>(&self, now: Instant, others: impl Iterator<Item = &'u UpstreamConnection>) -> bool {
        let waits = |other: &&UpstreamConnection| other.wire.is_connected() && !other.is_proven(now);
        self.is_proven(now)
            || self.dial.upstream.ways.load(Ordering::Relaxed) <= self.dial.upstream.ways_max
                && (self.manners().is_trusted() || others.filter(waits).count() < UPSTREAM_UNPROVEN_MAX)
    }

    fn is_encrypted(&self) -> bool {
        self.dial.upstream.url.scheme == Scheme::HTTPS
    }

    /// Closes the idle connection, if there is one.
    pub fn disconnect(&mut self) {
        self.dial.aside.clear();
        self.agent = agent(&self.dial);
    }

    /// Sends one request, whose body the wire has ([`WireState::carry`]), and waits for the head of its reply, however long
    /// that takes.
    ///
    /// A pooled connection that upstream closed meanwhile is replaced by a fresh one, unless a byte of the request may
    /// have been taken; a request without body that may be repeated (RFC 9110 §9.2.2) is, once.
    pub fn ask(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &[u8])],
        upgrades: bool,
    ) -> Result<Box<UpstreamReply>, NoReply> {
        let wire = self.wire.clone();
        let repeatable = wire.body().body.is_empty() && matches!(method, "GET" | "HEAD" | "OPTIONS");
        loop {
            let dials = self.wire.dials.load(Ordering::Relaxed);
            self.wire.sent.store(self.wire.sent_before(), Ordering::Relaxed);
            self.wire.received.store(0, Ordering::Relaxed);
            self.dial.aside.expect(method == "HEAD");
            wire.body().rewind();
            let request = self.request(method, target, fields)?;
            let mut body = wire.body_reader(self.is_encrypted());
            // Without a length, ureq would send an empty body in chunks.
            let replied = match request.headers_ref().is_some_and(|h| h.contains_key("content-length")) {
                true => request.body(SendBody::from_reader(&mut body)).map(|request| self.agent.run(request)),
                false => request.body(()).map(|request| self.agent.run(request)),
            };
            let error = match replied.map_err(|e| unsendable(&e))? {
                // Whatever comes now, its client could make no sense of it.
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS && !upgrades => {
                    drop(response);
                    self.disconnect();
                    return Err(NoReply::Failed("it switched to a protocol that nobody asked for".into()));
                }
                Ok(_) => match self.dial.aside.take_reply() {
                    Some(reply) => return Ok(reply),
                    None => return Err(NoReply::Failed("its connection was lost on the way".into())),
                },
                Err(error) => error,
            };
            let pooled = self.wire.dials.load(Ordering::Relaxed) == dials;
            let untaken = self.wire.sent.load(Ordering::Relaxed) == 0;
            let unanswered = self.wire.received.load(Ordering::Relaxed) == 0;
            let timed_out = matches!(&error, ureq::Error::Io(e) if keepalive::is_own_timeout(e));
            let wanted = !timed_out && !self.wire.is_called_off();
            if pooled && unanswered && wanted {
                self.manners().note_close();
            }
            // Whatever went wrong, this connection serves no other request; so the next attempt dials, and is the last.
            self.disconnect();
            if pooled && (untaken || repeatable && unanswered) && wanted {
                continue;
            }
            return Err(self.explain(error));
        }
    }

    /// The same request as bytes, for who writes them on a connection in the clear itself. `None` where ureq would not
    /// send it, and so could not go on with it.
    pub fn encode<'f>(
        &self,
        method: &str,
        target: &str,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
        body: &[u8],
    ) -> Option<Vec<u8>> {
        let UpstreamUrl { authority, prefix, .. } = &self.dial.upstream.url;
        let mut bytes = Vec::with_capacity(512 + target.len() + body.len());
        let mut push = |parts: &[&[u8]]| parts.iter().for_each(|part| bytes.extend_from_slice(part));
        push(&[method.as_bytes(), b" ", prefix.as_bytes(), target.as_bytes(), b" HTTP/1.1\r\n"]);
        push(&[b"host: ", authority.as_str().as_bytes(), b"\r\n"]);
        for (name, value) in fields {
            let is_text = || value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
            if name.eq_ignore_ascii_case("authorization") && !is_text() {
                return None;
            }
            push(&[name.as_bytes(), b": ", value, b"\r\n"]);
        }
        if expects_length(method, body.len()) {
            push(&[b"content-length: ", body.len().to_string().as_bytes(), b"\r\n"]);
        }
        push(&[b"\r\n", body]);
        Some(bytes)
    }

    fn request(&self, method: &str, target: &str, fields: &[(&str, &[u8])]) -> Result<request::Builder, NoReply> {
        let UpstreamUrl { scheme, authority, prefix, .. } = &self.dial.upstream.url;
        let path = if prefix.is_empty() {
            PathAndQuery::try_from(target)
        } else {
            PathAndQuery::try_from(format!("{prefix}{target}"))
        };
        let uri = Uri::builder()
            .scheme(scheme.clone())
            .authority(authority.clone())
            .path_and_query(path.map_err(|e| unsendable(&e))?)
            .build()
            .map_err(|e| unsendable(&e))?;
        let mut head_bytes = 256 + target.len();
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            head_bytes += name.len() + value.len() + 4;
            request = request.header(*name, *value);
        }
        let body_bytes = self.wire.body().body.len();
        if expects_length(method, body_bytes) {
            request = request.header("content-length", body_bytes);
        }
        let in_buffer = if self.is_encrypted() { body_bytes } else { body_bytes.min(COUNTED_BYTES) };
        self.wire.output_bytes.store(head_bytes + body_bytes, Ordering::Relaxed);
        self.wire.buffer_bytes.store(head_bytes + in_buffer, Ordering::Relaxed);
        Ok(request)
    }

    fn explain(&self, error: ureq::Error) -> NoReply {
        match error {
            ureq::Error::Io(e) if keepalive::is_own_timeout(&e) => NoReply::TimedOut("it stayed silent".into()),
            ureq::Error::Timeout(Timeout::Resolve) => NoReply::not_looked_up(),
            ureq::Error::Timeout(_) => NoReply::TimedOut("it did not accept a connection in time".into()),
            ureq::Error::HostNotFound => NoReply::not_known(),
            ureq::Error::ConnectionFailed => NoReply::not_there("no connection".into()),
            ureq::Error::Io(e) if is_out_of_descriptors(&e) => NoReply::NoRoom(plain(&e)),
            ureq::Error::Io(e) if self.wire.sent.load(Ordering::Relaxed) == 0 => NoReply::not_there(plain(&e)),
            ureq::Error::Rustls(e) => NoReply::of_handshake(&e),
            ureq::Error::Other(e) => NoReply::of_handshake(e.as_ref()),
            error @ ureq::Error::Tls(_) => NoReply::of_handshake(&error),
            ureq::Error::Io(e) if keepalive::tells_of_vanishing(&e) => {
                NoReply::Failed("it vanished: nothing was heard of it any more".into())
            }
            ureq::Error::Io(e) => NoReply::Failed(plain(&e)),
            ureq::Error::LargeResponseHeader(_, max) => {
                NoReply::Failed(format!("its reply's head exceeds {max} bytes"))
            }
            other => NoReply::no_http(&other, self.is_encrypted()),
        }
    }
}

/// Whether a request tells the length of its body even where that is empty (RFC 9110 §8.6).
fn expects_length(method: &str, body_bytes: usize) -> bool {
    body_bytes > 0 || matches!(method, "POST" | "PUT" | "PATCH")
}

fn unsendable(what: &dyn fmt::Display) -> NoReply {
    NoReply::Failed(format!("the request cannot be sent on: {what}"))
}

/// An I/O error without its operating system's number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset".into(),
        io::ErrorKind::UnexpectedEof => "it closed the connection without a reply".into(),
        io::ErrorKind::BrokenPipe => "it closed the connection".into(),
        _ => error.to_string(),
    }
}

fn agent(dial: &Arc<Dial>) -> Agent {
    Agent::with_parts(dial.upstream.config.clone(), Tls(dial.clone()), Elsewhere)
}
