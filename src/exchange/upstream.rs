//! The upstream side of an exchange: one ureq agent a worker, with a connection of its own.
//!
//! ureq speaks the protocol; the socket under it is ours ([`Wire`]), for four reasons. The front can interrupt it while
//! a worker is blocked on it. Head and body of a request leave in one send. Its buffers grow with what comes, so that a
//! slow stream costs a few kilobytes. And a reset is an error even where ureq would take it for the clean end of a
//! close-delimited body.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use ureq::config::{AutoHeaderValue, Config};
use ureq::http::uri::{Authority, PathAndQuery, Scheme};
use ureq::http::{Method, Request, Response, StatusCode, Uri, request};
use ureq::unversioned::resolver::{ArrayVec, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, RustlsConnector, Transport,
};
use ureq::{Agent, Body, Timeout};

use crate::front::client::Interrupt;
use crate::limits::*;
use crate::settings::{self, Settings};

/// Why there is no reply to relay.
#[derive(Debug)]
pub enum NoReply {
    /// No connection came about: the reason in plain words.
    Unreachable(String),
    /// The connection ended or broke before a whole head had come.
    Failed(String),
    /// Upstream was silent for longer than `UPSTREAM_IDLE_TIMEOUT_S`, or did not accept a connection in time.
    TimedOut(String),
}

/// A worker's way to upstream.
pub struct Upstream {
    agent: Agent,
    wire: Arc<WireState>,
    base: Base,
    make: Arc<Dial>,
}

struct Base {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
}

/// What a worker and the socket under its agent tell each other.
#[derive(Default)]
pub struct WireState {
    /// Owned by the agent alone: a connection that it gives up is closed at once, and upstream sees that.
    socket: Mutex<Weak<TcpStream>>,
    /// Connections attempted so far: tells a fresh one from a pooled one.
    dials: AtomicU64,
    /// Bytes of the current request that the socket took.
    sent: AtomicU64,
    /// Bytes read for the current request.
    received: AtomicU64,
    /// How large a buffer the current request's head and body want.
    output_bytes: AtomicUsize,
    /// Input that ureq has not used up yet.
    buffered: AtomicUsize,
    /// That input holds the end of a chunked body.
    ends: AtomicBool,
    /// A read ran into `UPSTREAM_IDLE_TIMEOUT_S`.
    timed_out: AtomicBool,
}

impl WireState {
    fn socket(&self) -> MutexGuard<'_, Weak<TcpStream>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether more of the reply can be read without waiting for upstream.
    pub fn has_input(&self) -> bool {
        self.buffered.load(Ordering::Relaxed) > 0
    }

    /// Whether the end of a chunked body has come already, so that reading on to it will not wait.
    pub fn has_end(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// Whether a read ended by `UPSTREAM_IDLE_TIMEOUT_S`.
    pub fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }
}

impl Interrupt for WireState {
    fn interrupt(&self) {
        if let Some(socket) = self.socket().upgrade() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Upstream {
    /// A way to upstream; no connection is made yet.
    pub fn new(settings: &Settings, names: &Arc<Names>) -> Upstream {
        let wire = Arc::new(WireState::default());
        let make = Arc::new(Dial {
            wire: wire.clone(),
            names: names.clone(),
            connect_timeout: settings.upstream_connect_timeout,
            idle_timeout: settings.upstream_idle_timeout,
        });
        let base = Base {
            scheme: names.scheme.clone(),
            authority: names.authority.clone(),
            prefix: settings.upstream.prefix().to_string(),
        };
        Upstream { agent: agent(&make), wire, base, make }
    }

    /// The state of the socket, for calling off and for the relay.
    pub fn wire(&self) -> &Arc<WireState> {
        &self.wire
    }

    /// Closes the idle connection, if there is one.
    pub fn disconnect(&mut self) {
        self.agent = agent(&self.make);
    }

    /// Sends one request and waits for the head of its reply, however long that takes.
    ///
    /// A pooled connection that upstream closed meanwhile is replaced by a fresh one, unless a byte of the request may
    /// have been taken; a request without body that may be repeated (RFC 9110 §9.2.2) is, once.
    pub fn ask<'f>(
        &mut self,
        method: &str,
        target: &str,
        fields: impl Iterator<Item = (&'f str, &'f [u8])> + Clone,
        body: &[u8],
    ) -> Result<Response<Body>, NoReply> {
        let repeatable = body.is_empty() && matches!(method, "GET" | "HEAD" | "OPTIONS");
        loop {
            let dials = self.wire.dials.load(Ordering::Relaxed);
            self.wire.sent.store(0, Ordering::Relaxed);
            self.wire.received.store(0, Ordering::Relaxed);
            self.wire.timed_out.store(false, Ordering::Relaxed);
            let request = self.request(method, target, fields.clone(), body)?;
            // Without a length, ureq would send an empty body in chunks.
            let replied = match request.headers_ref().is_some_and(|h| h.contains_key("content-length")) {
                true => request.body(body).map(|request| self.agent.run(request)),
                false => request.body(()).map(|request| self.agent.run(request)),
            };
            let error = match replied.map_err(|e| unsendable(&e))? {
                // `Upgrade` is never sent on: whatever comes now, no client of ours could make sense of it.
                Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    drop(response);
                    self.disconnect();
                    return Err(NoReply::Failed("it switched to a protocol that nobody asked for".into()));
                }
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let pooled = self.wire.dials.load(Ordering::Relaxed) == dials;
            let untaken = self.wire.sent.load(Ordering::Relaxed) == 0;
            let unanswered = self.wire.received.load(Ordering::Relaxed) == 0;
            // Whatever went wrong, this connection serves no other request; so the next attempt dials, and is the last.
            self.disconnect();
            if pooled && (untaken || repeatable && unanswered) && !self.wire.timed_out() {
                continue;
            }
            return Err(self.explain(error));
        }
    }

    fn request<'f>(
        &self,
        method: &str,
        target: &str,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
        body: &[u8],
    ) -> Result<request::Builder, NoReply> {
        let path = if self.base.prefix.is_empty() {
            PathAndQuery::try_from(target)
        } else {
            PathAndQuery::try_from(format!("{}{target}", self.base.prefix))
        };
        let uri = Uri::builder()
            .scheme(self.base.scheme.clone())
            .authority(self.base.authority.clone())
            .path_and_query(path.map_err(|e| unsendable(&e))?)
            .build()
            .map_err(|e| unsendable(&e))?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|e| unsendable(&e))?;
        let mut head_bytes = 256 + target.len();
        let expects_length = !body.is_empty() || matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            head_bytes += name.len() + value.len() + 4;
            request = request.header(name, value);
        }
        if expects_length {
            request = request.header("content-length", body.len());
        }
        self.wire.output_bytes.store(head_bytes + body.len(), Ordering::Relaxed);
        Ok(request)
    }

    fn explain(&self, error: ureq::Error) -> NoReply {
        match error {
            _ if self.wire.timed_out() => NoReply::TimedOut("it stayed silent".into()),
            ureq::Error::Timeout(_) => NoReply::TimedOut("it did not accept a connection in time".into()),
            ureq::Error::HostNotFound => NoReply::Unreachable("its name is not known".into()),
            ureq::Error::ConnectionFailed => NoReply::Unreachable("no connection".into()),
            ureq::Error::Io(e) if self.wire.sent.load(Ordering::Relaxed) == 0 => NoReply::Unreachable(plain(&e)),
            ureq::Error::Rustls(e) => NoReply::Unreachable(format!("TLS: {e}")),
            ureq::Error::Tls(e) => NoReply::Unreachable(format!("TLS: {e}")),
            ureq::Error::Io(e) => NoReply::Failed(plain(&e)),
            ureq::Error::LargeResponseHeader(_, max) => {
                NoReply::Failed(format!("its reply's head exceeds {max} bytes"))
            }
            other => NoReply::Failed(format!("its reply is not valid HTTP ({other})")),
        }
    }
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

/// Every option of ureq that matters, spelled out: nothing is added to a request, followed, decoded or timed.
fn config() -> Config {
    Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .save_redirect_history(false)
        .proxy(None)
        .user_agent(AutoHeaderValue::None)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .allow_non_standard_methods(true)
        .max_response_header_size(REPLY_HEAD_BYTES_MAX)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .max_idle_age(UPSTREAM_IDLE_TIME_MAX)
        .timeout_global(None)
        .timeout_per_call(None)
        .timeout_per_read(None)
        .timeout_per_write(None)
        .timeout_resolve(None)
        .timeout_connect(None)
        .timeout_send_request(None)
        .timeout_await_100(None)
        .timeout_send_body(None)
        .timeout_recv_response(None)
        .timeout_recv_body(None)
        .build()
}

fn agent(dial: &Arc<Dial>) -> Agent {
    Agent::with_parts(dial.names.config.clone(), Tls(dial.clone()), Elsewhere)
}

// ---- names ---------------------------------------------------------------------------------------------------------

/// Upstream's name and the addresses it had when last looked up. Nothing from a request decides where we connect.
pub struct Names {
    scheme: Scheme,
    authority: Authority,
    host: String,
    port: u16,
    known: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    tls: RustlsConnector,
    /// Made once: ureq reads the environment for its defaults.
    config: Config,
}

impl Names {
    /// For the upstream of the settings. The error says what is wrong with its URL.
    pub fn new(settings: &Settings) -> Result<Names, String> {
        let upstream = &settings.upstream;
        let wrong = |e: &dyn fmt::Display| format!("LM_STUDIO_URL cannot be used: {e}");
        let scheme = match upstream.scheme() {
            settings::Scheme::Http => Scheme::HTTP,
            settings::Scheme::Https => Scheme::HTTPS,
        };
        let authority = upstream.authority().parse::<Authority>().map_err(|e| wrong(&e))?;
        let host = upstream.host().trim_start_matches('[').trim_end_matches(']').to_string();
        Ok(Names {
            scheme,
            authority,
            host,
            port: upstream.port(),
            known: Mutex::new(None),
            tls: RustlsConnector::default(),
            config: config(),
        })
    }

    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut known = self.known();
        if let Some((at, addresses)) = &*known
            && at.elapsed() < RESOLVED_TIME_MAX
        {
            return Ok(addresses.clone());
        }
        let addresses = self.look_up()?;
        *known = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }

    fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        // `localhost` is the loopback by definition (RFC 6761 §6.3); no resolver is asked for it.
        if self.host.eq_ignore_ascii_case("localhost") {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            return Ok(both.map(|ip| SocketAddr::new(ip, self.port)).to_vec());
        }
        (self.host.as_str(), self.port).to_socket_addrs().map(Iterator::collect)
    }

    /// The address that answered comes first from now on.
    fn prefer(&self, address: SocketAddr) {
        if let Some((_, addresses)) = &mut *self.known()
            && let Some(at) = addresses.iter().position(|other| *other == address)
        {
            addresses[..=at].rotate_right(1);
        }
    }

    fn forget(&self) {
        *self.known() = None;
    }

    fn known(&self) -> MutexGuard<'_, Option<(Instant, Vec<SocketAddr>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ureq resolves a name for every call, also for a pooled connection. Names are looked up when a connection is made.
#[derive(Debug)]
struct Elsewhere;

impl Resolver for Elsewhere {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Ok(ArrayVec::from_fn(|_| nowhere))
    }
}

// ---- connections ---------------------------------------------------------------------------------------------------

struct Dial {
    wire: Arc<WireState>,
    names: Arc<Names>,
    connect_timeout: Duration,
    idle_timeout: Option<Duration>,
}

impl Dial {
    fn connect(&self) -> Result<Wire, ureq::Error> {
        self.wire.dials.fetch_add(1, Ordering::Relaxed);
        let addresses = self.names.resolve().map_err(|_| ureq::Error::HostNotFound)?;
        let deadline = Instant::now() + self.connect_timeout;
        let mut refused = ureq::Error::HostNotFound;
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ureq::Error::Timeout(Timeout::Connect));
            }
            match TcpStream::connect_timeout(&address, left) {
                // A port of this machine that nobody listens on may be given to this very socket, and connect to itself.
                Ok(stream) if stream.local_addr().is_ok_and(|own| own == address) => {
                    refused = io::Error::from(io::ErrorKind::ConnectionRefused).into();
                }
                Ok(stream) => {
                    self.names.prefer(address);
                    return Ok(self.wire(stream)?);
                }
                Err(e) if e.kind() == io::ErrorKind::TimedOut => refused = ureq::Error::Timeout(Timeout::Connect),
                Err(e) => refused = e.into(),
            }
        }
        // The name may have moved.
        self.names.forget();
        Err(refused)
    }

    fn wire(&self, stream: TcpStream) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(self.idle_timeout)?;
        stream.set_write_timeout(self.idle_timeout)?;
        let socket = Arc::new(stream);
        *self.wire.socket() = Arc::downgrade(&socket);
        Ok(Wire {
            socket,
            state: self.wire.clone(),
            input: Vec::new(),
            start: 0,
            end: 0,
            progress: false,
            output: Vec::new(),
            pending: 0,
            used: false,
        })
    }
}

/// Our TCP connector, with TLS around it where the URL asks for it.
struct Tls(Arc<Dial>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Connector<()> for Tls {
    type Out = Either<Wire, Box<dyn Transport>>;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        let wire = self.0.connect()?;
        if !details.needs_tls() {
            return Ok(Some(Either::A(wire)));
        }
        let tls = self.0.names.tls.connect(details, Some(wire))?;
        Ok(tls.map(|tls| Either::B(Box::new(tls) as Box<dyn Transport>)))
    }
}

/// A socket and its buffers, as ureq wants them.
pub struct Wire {
    socket: Arc<TcpStream>,
    state: Arc<WireState>,
    input: Vec<u8>,
    start: usize,
    end: usize,
    progress: bool,
    output: Vec<u8>,
    /// Output that waits for more: it is sent when ureq begins to wait for input, or when it is much.
    pending: usize,
    /// Whether it was read from since ureq last asked if it is open.
    used: bool,
}

/// Input is read in pieces of this size at first, and of up to [`INPUT_BYTES_MAX`] once they come full.
const INPUT_BYTES_MIN: usize = 2 * 1024;
const INPUT_BYTES_MAX: usize = 32 * 1024;
/// Output is gathered up to this size.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.pending {
            match (&*self.socket).write(&self.output[sent..self.pending]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    sent += n;
                    self.state.sent.fetch_add(n as u64, Ordering::Relaxed);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.note(e)),
            }
        }
        self.pending = 0;
        Ok(())
    }

    /// Remembers a time-out, which looks different from one operating system to the next.
    fn note(&self, e: io::Error) -> io::Error {
        if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            self.state.timed_out.store(true, Ordering::Relaxed);
            return io::ErrorKind::TimedOut.into();
        }
        e
    }

    /// Whether upstream has closed the idle connection, or sent bytes that nobody asked for.
    fn is_quiet(&self) -> io::Result<bool> {
        self.socket.set_nonblocking(true)?;
        let quiet = matches!((&*self.socket).read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false)?;
        Ok(quiet)
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        self.pending += amount;
        if self.pending >= OUTPUT_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        if self.pending > 0 {
            self.flush()?;
            // A stream may go on for hours; what sent its request is given back now.
            self.output = Vec::new();
        }
        self.used = true;
        let socket = self.socket.clone();
        loop {
            match (&*socket).read(self.input_append_buf()) {
                Ok(n) => {
                    self.input_appended(n);
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // ureq takes these for the end of a close-delimited body. They are not: the reply is cut short.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted) => {
                    return Err(io::Error::other("connection reset").into());
                }
                Err(e) => return Err(self.note(e).into()),
            }
        }
    }

    /// ureq asks twice: when it puts a connection aside, and when it takes it up again. Only the second answer counts,
    /// and it costs three system calls.
    fn is_open(&mut self) -> bool {
        if std::mem::take(&mut self.used) { self.start == self.end } else { self.is_quiet().unwrap_or(false) }
    }
}

impl Buffers for Wire {
    fn output(&mut self) -> &mut [u8] {
        let wanted = self.state.output_bytes.load(Ordering::Relaxed).clamp(1024, OUTPUT_BYTES_MAX * 2);
        if self.output.len() < self.pending + 1024 || self.pending == 0 && self.output.len() < wanted {
            self.output.resize((self.pending + 1024).max(wanted), 0);
        }
        &mut self.output[self.pending..]
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.start == self.end {
            let came_full = self.end > 0 && self.end == self.input.len();
            (self.start, self.end) = (0, 0);
            if came_full && self.input.len() < INPUT_BYTES_MAX {
                self.input.resize(self.input.len() * 2, 0);
            }
        } else if self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.input.len() {
                // One thing larger than the buffer: a head. ureq bounds it.
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        if self.input.is_empty() {
            self.input.resize(INPUT_BYTES_MIN, 0);
        }
        &mut self.input[self.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.end += amount;
        self.state.received.fetch_add(amount as u64, Ordering::Relaxed);
        self.state.buffered.store(self.end - self.start, Ordering::Relaxed);
        self.state.ends.store(self.input().ends_with(b"0\r\n\r\n"), Ordering::Relaxed);
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start += amount;
        self.state.buffered.store(self.end - self.start, Ordering::Relaxed);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        // The scratch space serves chunked request bodies; ours are whole and have a length.
        (&mut [], self.output())
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.progress
    }
}
