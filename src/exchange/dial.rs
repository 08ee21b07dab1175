//! Connecting to upstream: a permit, its addresses one after the other, TLS. Nothing from a request decides where we connect.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use ureq::Timeout;
use ureq::config::{AutoHeaderValue, Config};
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts};
use ureq::unversioned::resolver::{ArrayVec, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, RustlsConnector};

use super::addresses::Addresses;
use super::head_reader::{Aside, HeadReader};
use super::manners::Manners;
use super::permits::Permit;
use super::permits::Permits;
use super::polled::CALLED_OFF_GAP;
use super::roots::{Trust, tls_config};
use super::wire::{Wire, WireState, called_off};
use crate::calendar::now_ms;
use crate::keepalive;
use crate::limits::*;
use crate::reach::Reach;
use crate::settings::{Settings, UpstreamUrl};

/// What is known of upstream, whoever connects. Nothing from a request decides where we connect.
pub struct UpstreamFacts {
    pub(super) url: UpstreamUrl,
    addresses: Arc<Addresses>,
    permits: Arc<Permits>,
    /// Whether connections come about.
    pub reach: Arc<Reach>,
    /// How upstream treats connections.
    pub(super) manners: Arc<Manners>,
    /// Ways to it that there are, in use or not.
    pub(super) ways: AtomicUsize,
    /// As many of them as there may be in use at once.
    pub(super) ways_max: usize,
    /// `UPSTREAM_CONNECT_TIMEOUT_S`, for the name, a permit, all addresses and TLS together: so long a client waits at most.
    connect_timeout: Duration,
    /// `UPSTREAM_IDLE_TIMEOUT_S`.
    idle_timeout: Option<Duration>,
    trust: Trust,
    /// Made once: ureq reads the environment for its defaults.
    pub(super) config: Config,
}

impl UpstreamFacts {
    /// For the upstream of the settings. `own_roots`: what its certificate may be signed with beside those of the web.
    pub fn new(settings: &Settings, own_roots: &[Certificate<'static>]) -> UpstreamFacts {
        let resolve = |host: &str, port| (host, port).to_socket_addrs().map(Iterator::collect);
        let url = &settings.upstream;
        let host = url.authority.host().trim_start_matches('[').trim_end_matches(']');
        UpstreamFacts {
            url: url.clone(),
            addresses: Arc::new(Addresses::new(host, url.port, Box::new(resolve))),
            permits: Arc::default(),
            reach: Arc::default(),
            manners: Arc::default(),
            ways: AtomicUsize::new(0),
            ways_max: settings.max_workers,
            connect_timeout: settings.upstream_connect_timeout,
            idle_timeout: settings.upstream_idle_timeout,
            trust: Trust::new(own_roots, config),
            config: config(RootCerts::WebPki),
        }
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
    /// Where the connection lies between exchanges.
    pub aside: Arc<Aside>,
    /// What is known of upstream.
    pub upstream: Arc<UpstreamFacts>,
}

impl Dial {
    /// Connects, and notes whether that could be done. Where it was called off, or the system gave no socket, nobody
    /// knows.
    fn connect(&self, deadline: Instant) -> Result<Wire, ureq::Error> {
        let made = self.try_to_connect(deadline);
        let is_out_of_descriptors = matches!(&made, Err(ureq::Error::Io(e)) if is_out_of_descriptors(e));
        if made.is_ok() || !self.wire.is_called_off() && !is_out_of_descriptors {
            self.upstream.reach.note(made.is_ok(), now_ms());
            if made.is_err() {
                self.upstream.manners.note_unreachable();
            }
        }
        made
    }

    fn try_to_connect(&self, deadline: Instant) -> Result<Wire, ureq::Error> {
        self.wire.dials.fetch_add(1, Ordering::Relaxed);
        if !self.upstream.addresses.are_at_hand() {
            // A look-up may take long, and one is for all who wait.
            self.wire.let_go();
        }
        let found = match self.upstream.addresses.find(&self.wire, deadline) {
            Ok(found) => found.ok_or(ureq::Error::HostNotFound)?,
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(ureq::Error::Timeout(Timeout::Resolve)),
            Err(e) => return Err(e.into()),
        };
        let mut refused = ureq::Error::HostNotFound;
        for (at, address) in found.addresses.iter().copied().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            // An address that does not answer leaves time for those behind it.
            let share = left / (found.addresses.len() - at) as u32;
            match self.connect_to(address, share) {
                // A port of this machine that nobody listens on may be given to this very socket, and connect to
                // itself.
                Ok((stream, _)) if stream.local_addr().is_ok_and(|own| own == address) => {
                    refused = io::Error::from(io::ErrorKind::ConnectionRefused).into();
                }
                Ok((stream, permit)) => {
                    self.upstream.addresses.prefer(address);
                    return Ok(self.wire(stream, permit)?);
                }
                Err(e) if self.wire.is_called_off() => return Err(e.into()),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => refused = ureq::Error::Timeout(Timeout::Connect),
                Err(e) => refused = e.into(),
            }
        }
        self.upstream.addresses.doubt(&found);
        Err(refused)
    }

    fn wire(&self, stream: TcpStream, permit: Permit) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        keepalive::ask_now_and_then(&stream);
        keepalive::bound_silence(&stream, Some(UNACKNOWLEDGED_TIME_MAX));
        let idle_timeout = self.upstream.idle_timeout;
        if idle_timeout.is_some() {
            stream.set_read_timeout(idle_timeout)?;
            stream.set_write_timeout(idle_timeout)?;
        }
        let manners = self.upstream.manners.clone();
        Wire::new(stream, self.wire.clone(), manners, permit, idle_timeout).ok_or_else(called_off)
    }

    /// Connects within `time_max`, unless the exchange is called off meanwhile.
    fn connect_to(&self, address: SocketAddr, time_max: Duration) -> io::Result<(TcpStream, Permit)> {
        let deadline = Instant::now() + time_max;
        let permit = self.upstream.permits.take(&self.wire, deadline)?;
        self.wire.let_go();
        let mut stream = mio::net::TcpStream::connect(address)?;
        // To this machine it is there at once.
        if !is_connected(&stream)? {
            self.wait_until_connected(&mut stream, deadline)?;
        }
        let stream = TcpStream::from(stream);
        stream.set_nonblocking(false)?;
        Ok((stream, permit))
    }

    fn wait_until_connected(&self, stream: &mut mio::net::TcpStream, deadline: Instant) -> io::Result<()> {
        let mut poll = Poll::new()?;
        poll.registry().register(stream, Token(0), Interest::WRITABLE)?;
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
            if is_connected(stream)? {
                return poll.registry().deregister(stream);
            }
        }
    }
}

/// Whether a connection that is being made is there. An event may say so too early (mio's documentation of `connect`).
fn is_connected(stream: &mio::net::TcpStream) -> io::Result<bool> {
    stream.take_error()?.map_or(Ok(stream.peer_addr().is_ok()), Err)
}

/// The process, or the system, has as many as it may have: EMFILE and ENFILE, which have the same numbers on every
/// Unix.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

/// Our TCP connector, with TLS around it where the URL asks for it.
pub struct Tls(pub Arc<Dial>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Connector<()> for Tls {
    type Out = HeadReader;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        let deadline = Instant::now() + self.0.upstream.connect_timeout;
        let dial = || self.0.connect(deadline);
        if !details.needs_tls() {
            return Ok(Some(HeadReader::new(Box::new(dial()?), false, self.0.aside.clone())));
        }
        let trust = &self.0.upstream.trust;
        trust.connect(details, dial, |tls, details, wire| self.encrypt(tls, details, wire, deadline))
    }
}

impl Tls {
    // In a frame of its own: workers hold none of it (5 KB) where there is no TLS.
    #[inline(never)]
    fn encrypt(
        &self,
        tls: &RustlsConnector,
        details: &ConnectionDetails,
        mut wire: Wire,
        deadline: Instant,
    ) -> Result<Option<HeadReader>, ureq::Error> {
        wire.encrypt();
        // The handshake, too, is connecting. The error of a certificate comes as one of input.
        let socket = self.0.wire.descriptor().ok_or_else(called_off)?;
        self.0.wire.set_deadline(Some(deadline));
        let tls = tls.connect(details, Some(wire));
        self.0.wire.set_deadline(None);
        let tls = tls.map_err(|e| match e {
            ureq::Error::Io(e) if keepalive::is_own_timeout(&e) => ureq::Error::Timeout(Timeout::Connect),
            ureq::Error::Io(e) => ureq::Error::Other(e.into()),
            e => e,
        })?;
        socket.set_read_timeout(self.0.upstream.idle_timeout)?;
        Ok(tls.map(|tls| HeadReader::new(Box::new(tls), true, self.0.aside.clone())))
    }
}

/// Every option of ureq that matters, spelled out: nothing is added to a request, followed, decoded or timed.
fn config(roots: RootCerts) -> Config {
    Config::builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .save_redirect_history(false)
        .proxy(None)
        .tls_config(tls_config(roots))
        .user_agent(AutoHeaderValue::None)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .allow_non_standard_methods(true)
        .max_response_header_size(REPLY_HEAD_BYTES_MAX)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        // IdleConnections knows how old a connection is.
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
