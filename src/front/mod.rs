//! The front: a loop that accepts connections, gathers requests and lends each to whoever answers it.
//!
//! It never waits for anything but its poll. What needs no I/O it answers itself; the statistics go to their thread,
//! what is forwarded to a worker or a lane. What a connection does is [`connection`]'s; here is what it
//! needs for that: a poll, a place, a look when its deadline comes, and whom it asks ([`Services`]).
//!
//! There are up to three such loops: the [`lanes`] take over the connections whose requests are forwarded. They wait for
//! quick commits, too.

mod accepting;
mod busy_poll;
mod connection;
pub mod deadlines;
pub mod intake;
mod judge;
mod lanes;
mod requests;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod simulated;
mod stopping;
mod timeouts;
#[cfg(test)]
mod tunnel_schedules;
mod tunnels;
mod writing;

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use mio::Registry;
use mio::net::TcpListener;
#[cfg(target_os = "linux")]
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
#[cfg(target_os = "linux")]
use socket2::SockRef;

use crate::client::{Bodies, Claim, Client, Fate, Lend, Loan, Return, Returns};
use crate::counters::{Counters, OpenSocket};
use crate::exchange::Shared;
use crate::exchange::flow::FlowingReplies;
use crate::exchange::job::Workers;
use crate::exchange::pool::Busy;
use crate::exchange::relay::Step;
use crate::exchange::relayed::{Exchange, ForwardedRequest, LeftWithLoop};
use crate::exchange::request::Kind;
use crate::exchange::short::ShortExchanges;
use crate::exchange::tunnel::Tunnel;
use crate::http::RequestHead;
use crate::http::refusal::Refusal;
use crate::http::reply::Reply;
use crate::limits::{BODIES_MAX, OVERLOADED_RETRY_S};
use crate::outage::Outage;
use crate::slots::Slots;
use crate::stats::statistics::Statistics;
pub use accepting::listen;
use busy_poll::BusyPoll;
use connection::{Connection, Next, Ready, Surroundings};
use deadlines::Deadlines;
use intake::{Verdict, WholeRequest};
pub use judge::{Judge, Plan};
use lanes::{Arrivals, Lanes};
use stopping::Stopping;
pub use stopping::{Stop, StopAsked};

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);
/// Tokens from here on are those of a lane's connections to upstream on which it asks.
const LINKS: usize = 1 << 24;
/// Tokens from here on are those of streams that flow, each this and its connection's.
const FLOWING: usize = 1 << 25;

/// What the front reads into; shared by all connections.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Why a request is refused: in the log, and in the reply.
type BusyWords = (&'static str, &'static str);
const QUEUE_FULL: BusyWords =
    ("the queue is full", "The proxy is busy: MAX_WORKERS requests are being answered, and the queue is full.");
const NO_THREAD: BusyWords =
    ("no thread can be started", "The proxy is busy: the system gives it no thread for another request.");
const QUESTIONS_FULL: BusyWords =
    ("too many questions wait for the statistics", "The statistics are busy: too many questions wait already.");
const SOCKETS_FULL: BusyWords =
    ("too many WebSockets are open", "The proxy is busy: as many WebSockets are open as it relays at once.");
/// Where the socket of an upstream cannot be polled.
const NO_SOCKETS: &str = "This proxy relays no WebSockets on this operating system.";

/// The loop and everything it owns.
pub struct Front {
    poll: Poll,
    listener: Option<TcpListener>,
    connections: Slots<Box<Connection>>,
    /// Connections whose turn was cut short although more can be read.
    unfinished: Vec<usize>,
    accept_again_ms: Option<u64>,
    /// Connections wait that could not be accepted.
    accept_failing: Outage,
    deadlines: Deadlines,
    scratch: Box<[u8]>,
    services: Services,
}

/// What the loop offers its connections.
struct Services {
    /// The loop's poll.
    #[cfg(target_os = "linux")]
    registry: Registry,
    returns: Arc<Returns>,
    /// When this turn began, on the loop's clock: nothing that a loop waits for needs it more exactly.
    now_ms: u64,
    stopping: Option<Stopping>,
    flowing: FlowingReplies,
    /// Asks short requests in this loop.
    short: Option<ShortExchanges>,
    common: Common,
    role: Role,
}

/// What all loops share.
#[derive(Clone)]
struct Common {
    judge: Arc<Judge>,
    bodies: Bodies,
    shared: Arc<Shared>,
    pool: Arc<Workers>,
    statistics: Arc<Statistics>,
    figures: Arc<Counters>,
    stop: Arc<Stop>,
    grace: Duration,
}

/// Which of the loops it is.
enum Role {
    /// It accepts connections.
    Accepting(Lanes),
    /// It is a lane, to which connections move.
    Lane(Arc<Arrivals>),
}

impl Front {
    /// Takes over a bound listener.
    pub fn listening(
        mut listener: TcpListener,
        judge: Judge,
        shared: Arc<Shared>,
        pool: Arc<Workers>,
        statistics: Statistics,
        grace: Duration,
    ) -> io::Result<Front> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let lanes = Lanes::new(&shared.settings);
        let bodies = Bodies::new(judge.body_bytes_max().saturating_mul(BODIES_MAX));
        let figures = statistics.counters().clone();
        let (judge, statistics) = (Arc::new(judge), Arc::new(statistics));
        let common = Common { judge, bodies, shared, pool, statistics, figures, stop: Arc::default(), grace };
        let mut front = Front::new(poll, common, |_| Role::Accepting(lanes), None)?;
        front.stop().wakes(front.services.returns.clone());
        front.listener = Some(listener);
        Ok(front)
    }

    /// Without a listener and connections yet.
    fn new(
        poll: Poll,
        common: Common,
        role: impl FnOnce(Arc<Waker>) -> Role,
        short: Option<ShortExchanges>,
    ) -> io::Result<Front> {
        let to_flowing = poll.registry().try_clone()?;
        #[cfg(target_os = "linux")]
        let registry = poll.registry().try_clone()?;
        let (returns, waker) = returns(&poll)?;
        let flowing = FlowingReplies::new(common.pool.clone(), to_flowing, waker.clone(), FLOWING);
        let role = role(waker);
        Ok(Front {
            poll,
            listener: None,
            connections: Slots::default(),
            unfinished: Vec::new(),
            accept_again_ms: None,
            accept_failing: Outage::new(),
            deadlines: Deadlines::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            services: Services {
                #[cfg(target_os = "linux")]
                registry,
                now_ms: returns.now_ms(),
                returns,
                stopping: None,
                flowing,
                short,
                common,
                role,
            },
        })
    }

    /// The handle that stops it.
    pub fn stop(&self) -> Arc<Stop> {
        self.services.common.stop.clone()
    }

    /// Runs until it is told to stop and every exchange has ended or was called off.
    pub fn run(&mut self) -> io::Result<()> {
        let ran = self.turns();
        if ran.is_err() {
            // The other loops end in good order all the same.
            self.services.common.stop.ask(Instant::now());
        }
        if let Role::Accepting(lanes) = &mut self.services.role {
            lanes.join();
        }
        ran
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut busy_poll = BusyPoll::new();
        loop {
            self.services.flowing.rest();
            // Asked before the wait, so that what had come by then is seen before anything is called off.
            let stops = self.services.common.stop.is_asked();
            let begins_to_stop = stops && self.services.stopping.is_none();
            let timeout = if begins_to_stop { Some(Duration::ZERO) } else { self.timeout() };
            let may_look = self.services.short.is_some() && !self.services.flowing.is_any();
            match busy_poll.wait(&mut self.poll, &mut events, timeout, may_look) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            self.services.now_ms = self.services.returns.now_ms();
            // Whose turn was cut short has the next one behind those of whom an event tells.
            let unfinished = std::mem::take(&mut self.unfinished);
            let mut is_woken = false;
            for event in events.iter() {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => is_woken = true,
                    Token(token) if token >= LINKS => {
                        let hung_up = event.is_read_closed() || event.is_error();
                        if token >= FLOWING {
                            self.step(token - FLOWING, |connection, around, scratch| {
                                connection.on_upstream(hung_up, around, scratch)
                            });
                        } else if let Some(short) = &mut self.services.short {
                            short.on_event(token, hung_up, &mut self.scratch);
                        }
                    }
                    Token(token) => {
                        let ready = Ready::from(event);
                        self.step(token, |connection, around, scratch| connection.on_event(ready, around, scratch));
                    }
                }
            }
            for token in unfinished {
                if !self.unfinished.contains(&token) {
                    self.step(token, Connection::resume);
                }
            }
            if is_woken {
                self.take_what_was_left();
            }
            self.check_deadlines();
            self.connections.end_turn();
            let over = stops && self.stopped();
            if let Some(short) = &mut self.services.short {
                short.settle();
                short.rest();
            }
            if over {
                return Ok(());
            }
        }
    }

    /// Other threads have left something, and have woken the loop for it.
    fn take_what_was_left(&mut self) {
        // A connection of another loop may have closed.
        if self.accept_again_ms.is_some() {
            self.accept();
        }
        for Return { token, fate } in self.services.returns.mailbox.take() {
            let calls_off = matches!(fate, Fate::CalledOff(_));
            self.step(token, |connection, around, scratch| connection.take_back(fate, around, scratch));
            if calls_off {
                // It may be one that waits for a place.
                self.services.common.pool.dismiss();
            }
        }
        for (token, left) in self.services.flowing.take() {
            self.step(token, |connection, around, scratch| match left {
                LeftWithLoop::Reply(exchange) => connection.take_stream(exchange, around),
                LeftWithLoop::Tunnel(tunnel) => connection.take_tunnel(tunnel, around, scratch),
            });
        }
        if let Role::Lane(arrivals) = &self.services.role {
            arrivals.take().into_iter().for_each(|moved| self.welcome(moved));
        }
    }

    fn now_ms(&self) -> u64 {
        self.services.now_ms
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let stop_check = self.services.stopping.as_ref().filter(|s| !s.called_off).map(|s| s.grace_ends_ms);
        let next = [self.deadlines.next(), self.accept_again_ms, stop_check].into_iter().flatten().min();
        let next = next.map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
        [next, self.next_rest()].into_iter().flatten().min()
    }

    fn next_rest(&self) -> Option<Duration> {
        let short = self.services.short.as_ref()?;
        short.next_rest().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Runs one step of a connection, and does what comes of it.
    fn step(&mut self, token: usize, step: impl FnOnce(&mut Connection, &mut Services, &mut [u8]) -> Next) {
        let Some(mut connection) = self.connections.take(token) else { return };
        match step(&mut connection, &mut self.services, &mut self.scratch) {
            Next::Keep => self.keep(token, connection),
            Next::Again => {
                if !self.unfinished.contains(&token) {
                    self.unfinished.push(token);
                }
                self.keep(token, connection);
            }
            Next::Move(request) => self.move_away(token, *connection, request),
            Next::Drop => {
                drop(connection);
                self.connections.give_back(token);
                if self.accept_again_ms.is_some() {
                    self.accept();
                }
            }
        }
    }

    fn keep(&mut self, token: usize, connection: Box<Connection>) {
        self.arm(token, &connection);
        self.connections.put(token, connection);
    }
}

/// Also by a bug of the loop: nobody moves here from now on, and workers keep its streams.
impl Drop for Front {
    fn drop(&mut self) {
        if let Role::Lane(arrivals) = &self.services.role {
            arrivals.close();
        }
        for connection in self.connections.iter_mut() {
            if let Some(mut exchange) = connection.give_up_stream() {
                exchange.stop_polling();
                self.services.flowing.hand_over(exchange, Step::Dry);
            }
            if let Some(tunnel) = connection.give_up_tunnel() {
                self.services.flowing.give_up(tunnel);
            }
        }
    }
}

impl Surroundings for Services {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn judge(&self, head: &RequestHead) -> Result<Verdict<Plan>, Refusal> {
        self.common.judge.judge(head)
    }

    fn are_bodies_too_many(&self) -> bool {
        self.common.bodies.are_too_many()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    fn moves(&mut self, request: &WholeRequest<Plan>) -> bool {
        self.moves_to_lane(request)
    }

    fn lend(&mut self, loan: Loan, request: WholeRequest<Plan>, claim: Claim) {
        let lend = Lend::new(loan, request.head, request.body, claim);
        let taken = match request.plan {
            Plan::Statistics(question) => {
                self.common.statistics.ask(question, Box::new(lend)).map_err(|lend| (lend, QUESTIONS_FULL))
            }
            Plan::Forward(forwarding) => {
                let in_flight = &self.common.shared.in_flight;
                let request = ForwardedRequest::new(lend, forwarding, self.flowing.mailbox().clone(), in_flight);
                match forwarding.kind {
                    Kind::Handshake => self.open_socket(request),
                    Kind::Short | Kind::MayStream | Kind::Other => self.forward(request),
                }
            }
            Plan::Answer(reply) => return lend.answer(&reply),
        };
        if let Err((lend, (why, message))) = taken {
            self.common.figures.note_queue_full(lend.loan.client().peer(), lend.head.path(), why);
            lend.answer(&Reply::overloaded(message, OVERLOADED_RETRY_S));
        }
    }

    fn figures(&self) -> &Counters {
        &self.common.figures
    }

    fn watch(&mut self, exchange: &Box<Exchange>) -> bool {
        self.flowing.watch(exchange).inspect_err(|e| log::debug!("a stream stays with its worker: {e}")).is_ok()
    }

    fn refuse(&mut self, exchange: Box<Exchange>) {
        self.flowing.refuse(exchange);
    }

    fn look(&mut self, exchange: &mut Box<Exchange>, hung_up: bool) -> Step {
        self.flowing.look(exchange, hung_up)
    }

    fn hand_over(&mut self, exchange: Box<Exchange>, step: Step) {
        self.flowing.hand_over(exchange, step);
    }

    fn watch_tunnel(&mut self, tunnel: &Tunnel) -> bool {
        self.flowing.watch_tunnel(tunnel).inspect_err(|e| log::warn!("a WebSocket is cut: {e}")).is_ok()
    }

    fn forget_tunnel(&mut self, tunnel: &Tunnel) {
        self.flowing.forget_tunnel(tunnel);
    }

    fn settle(&mut self, tunnel: Box<Tunnel>) {
        self.flowing.settle(tunnel);
    }

    #[cfg(target_os = "linux")]
    fn tell_when_sent(&self, client: &Client) -> io::Result<()> {
        let stream = client.stream();
        SockRef::from(stream).set_tcp_notsent_lowat(1)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.reregister(&mut SourceFd(&stream.as_raw_fd()), Token(client.token()), both)
    }

    /// Other systems tell nobody.
    #[cfg(not(target_os = "linux"))]
    fn tell_when_sent(&self, _: &Client) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Services {
    /// Sends a handshake on, where there is room for another WebSocket.
    fn open_socket(&mut self, request: ForwardedRequest) -> Result<(), (Box<Lend>, BusyWords)> {
        if !Tunnel::ARE_POSSIBLE {
            request.lend.answer(&Reply::error(501, NO_SOCKETS, "websocket_unsupported"));
            return Ok(());
        }
        match OpenSocket::new(&self.common.figures) {
            Some(socket) => self.forward(request.of_handshake(socket)),
            None => Err((Box::new(request.lend), SOCKETS_FULL)),
        }
    }

    /// Back the request comes when it cannot even wait.
    fn forward(&mut self, request: ForwardedRequest) -> Result<(), (Box<Lend>, BusyWords)> {
        let mut asked = Err(Box::new(request));
        if let Some(short) = &mut self.short {
            asked = asked.or_else(|request| short.ask(request));
        }
        asked.or_else(|request| self.lend_to_worker(request)).map_err(|(request, busy)| {
            let words = match busy {
                Busy::QueueFull => QUEUE_FULL,
                Busy::NoThread => NO_THREAD,
            };
            (Box::new(request.lend), words)
        })?;
        self.common.figures.note_room();
        Ok(())
    }

    fn lend_to_worker(&self, request: Box<ForwardedRequest>) -> Result<(), (Box<ForwardedRequest>, Busy)> {
        if !self.common.pool.has_room() {
            request.note_queued();
        }
        self.common.pool.lend(request)
    }
}

/// The front's clock with its list of returned connections, and what wakes it, for a new poll.
fn returns(poll: &Poll) -> io::Result<(Arc<Returns>, Arc<Waker>)> {
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    Ok((Arc::new(Returns::new(waker.clone(), Instant::now())), waker))
}
