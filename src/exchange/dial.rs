//! Connecting to upstream: its name, its addresses, TLS. Nothing from a request decides where we connect.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use ureq::Timeout;
use ureq::config::{AutoHeaderValue, Config};
use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};
use ureq::unversioned::resolver::{ArrayVec, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, Either, NextTimeout, RustlsConnector, Transport};

use super::shelf::Manners;
use super::wire::{Wire, WireState};
use crate::keepalive;
use crate::limits::*;
use crate::settings::{self, Settings};

/// Upstream's name and the addresses it had when last looked up. Nothing from a request decides where we connect.
pub struct Names {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    host: String,
    port: u16,
    known: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    /// How upstream treats connections.
    pub(super) manners: Arc<Manners>,
    /// Ways to it that there are, in use or not.
    pub(super) ways: AtomicUsize,
    tls: RustlsConnector,
    /// Made once: ureq reads the environment for its defaults.
    pub(super) config: Config,
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
            manners: Arc::default(),
            ways: AtomicUsize::new(0),
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
pub struct Elsewhere;

impl Resolver for Elsewhere {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Ok(ArrayVec::from_fn(|_| nowhere))
    }
}

/// How a worker connects.
pub struct Dial {
    /// What the worker and its socket tell each other.
    pub wire: Arc<WireState>,
    /// Upstream's addresses.
    pub names: Arc<Names>,
    /// `UPSTREAM_CONNECT_TIMEOUT_S`, for all addresses together.
    pub connect_timeout: Duration,
    /// `UPSTREAM_IDLE_TIMEOUT_S`.
    pub idle_timeout: Option<Duration>,
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
            match self.connect_to(address, left) {
                // A port of this machine that nobody listens on may be given to this very socket, and connect to
                // itself.
                Ok(stream) if stream.local_addr().is_ok_and(|own| own == address) => {
                    refused = io::Error::from(io::ErrorKind::ConnectionRefused).into();
                }
                Ok(stream) => {
                    self.names.prefer(address);
                    return Ok(self.wire(stream)?);
                }
                Err(e) if self.wire.is_called_off() => return Err(e.into()),
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
        keepalive::ask_now_and_then(&stream);
        keepalive::bound_silence(&stream, Some(UNACKNOWLEDGED_TIME_MAX));
        stream.set_read_timeout(self.idle_timeout)?;
        stream.set_write_timeout(self.idle_timeout)?;
        let manners = self.names.manners.clone();
        Wire::new(stream, self.wire.clone(), manners, self.idle_timeout).ok_or_else(called_off)
    }

    /// Connects within `time_max`, unless the exchange is called off meanwhile.
    fn connect_to(&self, address: SocketAddr, time_max: Duration) -> io::Result<TcpStream> {
        let deadline = Instant::now() + time_max;
        let mut stream = mio::net::TcpStream::connect(address)?;
        let mut poll = Poll::new()?;
        poll.registry().register(&mut stream, Token(0), Interest::WRITABLE)?;
        let mut events = Events::with_capacity(1);
        loop {
            if self.wire.is_called_off() {
                return Err(called_off());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match poll.poll(&mut events, Some(left.min(CALLED_OFF_GAP))) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            if let Some(e) = stream.take_error()? {
                return Err(e);
            }
            // An event may come before the connection does (mio's documentation of `connect`).
            if stream.peer_addr().is_ok() {
                break;
            }
        }
        poll.registry().deregister(&mut stream)?;
        let stream = TcpStream::from(stream);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

/// How often a connection that is being made looks whether it is still wanted; upstream shall see within 100 ms that it
/// is not.
const CALLED_OFF_GAP: Duration = Duration::from_millis(50);

fn called_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "called off")
}

/// Our TCP connector, with TLS around it where the URL asks for it.
pub struct Tls(pub Arc<Dial>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Connector<()> for Tls {
    type Out = Either<Wire, Box<dyn Transport>>;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        let mut wire = self.0.connect()?;
        if !details.needs_tls() {
            return Ok(Some(Either::A(wire)));
        }
        wire.encrypt();
        // The handshake, too, is connecting. The error of a certificate comes as one of input.
        let socket = self.0.wire.descriptor().ok_or_else(called_off)?;
        socket.set_read_timeout(Some(self.0.connect_timeout))?;
        let tls = self.0.names.tls.connect(details, Some(wire));
        let tls = tls.map_err(|e| match e {
            ureq::Error::Io(e) if e.kind() == io::ErrorKind::InvalidData => ureq::Error::Other(e.into()),
            _ if self.0.wire.timed_out.swap(false, Ordering::Relaxed) => ureq::Error::Timeout(Timeout::Connect),
            e => e,
        })?;
        socket.set_read_timeout(self.0.idle_timeout)?;
        Ok(tls.map(|tls| Either::B(Box::new(tls) as Box<dyn Transport>)))
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
        // The shelf knows how old a connection is.
        .max_idle_age(Duration::MAX)
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
