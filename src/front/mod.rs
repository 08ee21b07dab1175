//! The front: one thread that accepts connections, gathers requests and lends each to whoever answers it.
//!
//! It never waits for anything but its poll. What needs no I/O it answers itself; the statistics go to their lane,
//! what is forwarded to a worker or to the express lane. What a connection does is [`connection`]'s; here is what it
//! needs for that: a poll, a place, a look when its deadline comes, and whom it asks ([`Services`]).
//!
//! There are two such loops: that of `express` takes over the connections whose requests the express lane can answer.
//! It waits for quick commits, too.

mod accepting;
mod connection;
pub mod deadlines;
mod express;
pub mod gather;
mod judge;
mod patience;
mod requests;
#[cfg(test)]
mod schedules;
mod stopping;
mod watch;
mod writing;

use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
#[cfg(target_os = "linux")]
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
#[cfg(target_os = "linux")]
use socket2::SockRef;

use crate::client::{Bodies, Claim, Client, Lend, Loan, Return, Returns};
use crate::exchange::express::Express;
use crate::exchange::pool::Pool;
use crate::exchange::request::ForwardedRequest;
use crate::figures::Figures;
use crate::http::RequestHead;
use crate::http::refusal::Refusal;
use crate::http::reply::Reply;
use crate::limits::{BODIES_MAX, OVERLOADED_RETRY_S};
use crate::outage::Outage;
use crate::stats::lane::Lane;
pub use accepting::listen;
use connection::{Connection, Next, Ready, Surroundings};
use deadlines::Deadlines;
use express::{ExpressLoop, Guests};
use gather::{Request, Verdict};
pub use judge::{Judge, Plan};
use stopping::Stopping;
pub use stopping::{Asked, Stop};
use watch::Watch;

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);
/// Tokens from here on are those of the express lane's ways to upstream.
const WAYS: usize = 1 << 24;

/// What the front reads into; shared by all connections.
const SCRATCH_BYTES: usize = 64 * 1024;

/// The loop and everything it owns.
pub struct Front {
    poll: Poll,
    listener: Option<TcpListener>,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    /// Slots given up during this turn; reused only after it, so that a late event meets nobody else.
    freed: Vec<usize>,
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
    registry: Registry,
    returns: Arc<Returns>,
    stopping: Option<Stopping>,
    common: Common,
    role: Role,
}

/// What both loops share.
#[derive(Clone)]
struct Common {
    judge: Arc<Judge>,
    bodies: Bodies,
    pool: Arc<Pool>,
    statistics: Arc<Lane>,
    figures: Arc<Figures>,
    stop: Arc<Stop>,
    grace: Duration,
}

/// Which of the two loops it is.
enum Role {
    /// It accepts connections.
    Accepting(ExpressLoop),
    /// It is the express loop.
    Express { lane: Express, guests: Guests },
}

impl Front {
    /// Takes over a bound listener.
    pub fn listening(
        mut listener: TcpListener,
        judge: Judge,
        pool: Arc<Pool>,
        statistics: Lane,
        grace: Duration,
    ) -> io::Result<Front> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (returns, _) = returns(&poll)?;
        let stop = Arc::new(Stop::default());
        stop.wakes(returns.clone());
        let fits = Express::serves(&pool.shared().settings);
        let role = Role::Accepting(if fits { ExpressLoop::NotYet } else { ExpressLoop::Never });
        let bodies = Bodies::new(judge.body_bytes_max().saturating_mul(BODIES_MAX));
        let figures = statistics.figures().clone();
        let (judge, statistics) = (Arc::new(judge), Arc::new(statistics));
        let common = Common { judge, bodies, pool, statistics, figures, stop, grace };
        let mut front = Front::new(poll, returns, common, role)?;
        front.listener = Some(listener);
        Ok(front)
    }

    /// Without a listener and connections yet.
    fn new(poll: Poll, returns: Arc<Returns>, common: Common, role: Role) -> io::Result<Front> {
        let registry = poll.registry().try_clone()?;
        Ok(Front {
            poll,
            listener: None,
            connections: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            unfinished: Vec::new(),
            accept_again_ms: None,
            accept_failing: Outage::new(),
            deadlines: Deadlines::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            services: Services { registry, returns, stopping: None, common, role },
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
            // The other loop ends in good order all the same.
            self.services.common.stop.ask(Instant::now());
        }
        if let Role::Accepting(express_loop) = &mut self.services.role
            && let ExpressLoop::Started(_, thread) | ExpressLoop::Closed(thread) =
                std::mem::replace(express_loop, ExpressLoop::Never)
            && thread.join().is_err()
        {
            log::error!("the express loop ended by a bug of the proxy");
        }
        ran
    }

    fn turns(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut watch = match self.services.role {
            Role::Accepting(_) => Watch::sleeping(),
            Role::Express { .. } => Watch::looking(),
        };
        loop {
            let timeout = self.timeout();
            match watch.wait(&mut self.poll, &mut events, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in events.iter() {
                match event.token() {
                    LISTENER => self.accept(),
                    // A connection of the other loop may have closed.
                    WAKER if self.accept_again_ms.is_some() => self.accept(),
                    WAKER => {}
                    Token(token) if token >= WAYS => {
                        if let Role::Express { lane, .. } = &mut self.services.role {
                            let hung_up = event.is_read_closed() || event.is_error();
                            lane.on_event(token, hung_up, &mut self.scratch);
                        }
                    }
                    Token(token) => {
                        let ready = Ready::from(event);
                        self.step(token, |connection, around, scratch| connection.on_event(ready, around, scratch));
                    }
                }
            }
            for token in std::mem::take(&mut self.unfinished) {
                self.step(token, Connection::read);
            }
            for Return { token, fate } in self.services.returns.take() {
                self.step(token, |connection, around, scratch| connection.take_back(fate, around, scratch));
            }
            if let Role::Express { guests, .. } = &self.services.role {
                guests.take().into_iter().for_each(|guest| self.welcome(guest));
            }
            self.check_deadlines();
            self.free.append(&mut self.freed);
            let over = self.services.common.stop.is_asked() && self.stopped();
            if let Role::Express { lane, .. } = &mut self.services.role {
                lane.settle();
                lane.rest();
            }
            if over {
                return Ok(());
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.services.returns.now_ms()
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
        let Role::Express { lane, .. } = &self.services.role else { return None };
        lane.next_rest().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Runs one step of a connection, and does what comes of it.
    fn step(&mut self, token: usize, step: impl FnOnce(&mut Connection, &mut Services, &mut [u8]) -> Next) {
        let Some(mut connection) = self.connections.get_mut(token).and_then(Option::take) else { return };
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
                self.freed.push(token);
                if self.accept_again_ms.is_some() {
                    self.accept();
                }
            }
        }
    }

    fn keep(&mut self, token: usize, connection: Box<Connection>) {
        self.arm(token, &connection);
        self.connections[token] = Some(connection);
    }
}

impl Surroundings for Services {
    fn now_ms(&self) -> u64 {
        self.returns.now_ms()
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

    fn moves(&mut self, request: &Request<Plan>) -> bool {
        self.suits_express(request) && self.express_is_open()
    }

    fn lend(&mut self, loan: Loan, request: Request<Plan>, claim: Claim) {
        let lend = Lend::new(loan, request.head, request.body, claim);
        let taken = match request.plan {
            Plan::Statistics(question) => self.common.statistics.ask(question, Box::new(lend)),
            Plan::Forward(forwarding) => self.forward(ForwardedRequest::new(lend, forwarding)),
            Plan::Answer(reply) => return lend.answer(&reply),
        };
        if let Err(lend) = taken {
            self.common.figures.note_queue_full(lend.loan.client().peer(), lend.head.path());
            let busy = Reply::overloaded(
                "The proxy is busy: MAX_WORKERS requests are being answered, and the queue is full.",
                OVERLOADED_RETRY_S,
            );
            lend.answer(&busy);
        }
    }

    fn figures(&self) -> &Figures {
        &self.common.figures
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
    /// Back the request comes when the queue is full.
    fn forward(&mut self, request: ForwardedRequest) -> Result<(), Box<Lend>> {
        let mut asked = Err(Box::new(request));
        if let Role::Express { lane, .. } = &mut self.role {
            asked = asked.or_else(|request| lane.ask(request));
        }
        asked.or_else(|request| self.common.pool.lend(request)).map_err(|request| Box::new(request.lend))?;
        self.common.figures.note_room();
        Ok(())
    }
}

/// The front's clock with its list of returned connections, and what wakes it, for a new poll.
fn returns(poll: &Poll) -> io::Result<(Arc<Returns>, Arc<Waker>)> {
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    Ok((Arc::new(Returns::new(waker.clone(), Instant::now())), waker))
}
