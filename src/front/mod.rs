//! The front: one thread that accepts connections, gathers requests and lends each to whoever answers it.
//!
//! It never waits for anything but its poll. What needs no I/O it answers itself; the statistics go to their lane,
//! what is forwarded to a worker or to the express lane. A connection is in one of these states, and every deadline is
//! computed from it (`patience`):
//!
//! ```text
//!  Parked (idle, head, body) ──whole request──▶ Lent ──given back──▶ Parked
//!     │                                          ├──its last reply──▶ Lingering ──▶ closed
//!     │                                          ├──a reply cut short──▶ closed, or Draining ──▶ reset
//!     │                                          ▼ last bytes not taken at once
//!     ├── own reply, not taken at once ──▶ Writing ──▶ Parked, Lingering or closed
//!     ├── for the express lane ──▶ Moving ──▶ Lent, in the other loop
//!     └── refused ──▶ Lingering
//! ```
//!
//! There are two such loops: that of `express` takes over the connections whose requests the express lane can answer.
//! It waits for quick commits, too.

mod accepting;
pub mod bodies;
pub mod client;
pub mod deadlines;
mod express;
pub mod gather;
mod judge;
mod patience;
mod requests;
mod stopping;
mod watch;
mod writing;

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::exchange::express::Express;
use crate::exchange::pool::Pool;
use crate::figures::Figures;
use crate::limits::*;
use crate::outage::Outage;
use crate::stats::lane::Lane;
use accepting::Counted;
pub use accepting::listen;
use bodies::{Bodies, Claim};
use client::{Client, Fate, Returns, Then};
use deadlines::Deadlines;
use express::{ExpressLoop, Guests};
use gather::Gather;
pub use judge::{Judge, Plan};
use stopping::Stopping;
pub use stopping::{Asked, Stop};
use watch::Watch;

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);
/// Tokens from here on are those of the express lane's ways to upstream.
const WAYS: usize = 1 << 24;

/// Read at most so much from one connection before the others have their turn.
const TURN_BYTES_MAX: usize = 1024 * 1024;
/// What the front reads into; shared by all connections.
const SCRATCH_BYTES: usize = 64 * 1024;

/// A connection, from accepting it to its end.
struct Connection {
    client: Arc<Client>,
    gather: Gather<Plan>,
    /// What the body that is being gathered takes.
    claim: Claim,
    /// Bytes read and not used up: the start of a head, or a pipelined request.
    unread: Vec<u8>,
    state: State,
    /// The client sends no more: it left, or closed that side. What it sent before may still be unread.
    hung_up: bool,
    /// For its place among all.
    counted: Counted,
}

impl Connection {
    /// The request that it moves with; it is parked then.
    fn take_request(&mut self, now_ms: u64) -> Option<Box<gather::Request<Plan>>> {
        match std::mem::replace(&mut self.state, State::Parked { since_ms: now_ms }) {
            State::Moving(request) => Some(request),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// What came of a request that is refused takes no memory while its client reads why.
    fn forget_request(&mut self) {
        self.gather = Gather::default();
        self.claim.set(0);
    }
}

enum State {
    Parked {
        since_ms: u64,
    },
    Lent {
        ends_with_client: bool,
        /// Its client left at this time, with its whole answer: upstream is cut off a little later.
        left_ms: Option<u64>,
    },
    Writing {
        bytes: Vec<u8>,
        written: usize,
        then: Then,
        since_ms: u64,
    },
    Lingering {
        since_ms: u64,
        drained: usize,
    },
    /// Its reply broke off, and nothing but a reset tells so: what it has of it goes to the client first.
    Draining {
        since_ms: u64,
    },
    /// About to be moved to the second loop with this request, or just arrived there.
    Moving(Box<gather::Request<Plan>>),
}

/// What a step of a connection asks the front to do with it.
#[derive(PartialEq)]
enum Next {
    Keep,
    Drop,
}

/// The client is gone: there is nobody to write to.
struct Dropped;

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
    returns: Arc<Returns>,
    stopping: Option<Stopping>,
    deadlines: Deadlines,
    scratch: Box<[u8]>,
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
        let mut front = Front::new(poll, returns, common, role);
        front.listener = Some(listener);
        Ok(front)
    }

    /// Without a listener and connections yet.
    fn new(poll: Poll, returns: Arc<Returns>, common: Common, role: Role) -> Front {
        Front {
            poll,
            listener: None,
            connections: Vec::new(),
            free: Vec::new(),
            freed: Vec::new(),
            unfinished: Vec::new(),
            accept_again_ms: None,
            accept_failing: Outage::new(),
            returns,
            stopping: None,
            deadlines: Deadlines::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            common,
            role,
        }
    }

    /// The handle that stops it.
    pub fn stop(&self) -> Arc<Stop> {
        self.common.stop.clone()
    }

    /// Runs until it is told to stop and every exchange has ended or was called off.
    pub fn run(&mut self) -> io::Result<()> {
        let ran = self.turns();
        if ran.is_err() {
            // The other loop ends in good order all the same.
            self.common.stop.ask(Instant::now());
        }
        if let Role::Accepting(express_loop) = &mut self.role
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
        let mut watch = match self.role {
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
                        if let Role::Express { lane, .. } = &mut self.role {
                            let hung_up = event.is_read_closed() || event.is_error();
                            lane.on_event(token, hung_up, &mut self.scratch);
                        }
                    }
                    Token(token) => {
                        let gone = event.is_error() || event.is_write_closed();
                        self.on_event(token, event.is_writable(), event.is_read_closed(), gone);
                    }
                }
            }
            for token in std::mem::take(&mut self.unfinished) {
                self.step(token, Self::read);
            }
            for returned in self.returns.take() {
                self.take_back(returned.token, returned.fate);
            }
            if let Role::Express { guests, .. } = &self.role {
                guests.take().into_iter().for_each(|guest| self.welcome(guest));
            }
            self.check_deadlines();
            self.free.append(&mut self.freed);
            let over = self.common.stop.is_asked() && self.stopped();
            if let Role::Express { lane, .. } = &mut self.role {
                lane.settle();
                lane.rest();
            }
            if over {
                return Ok(());
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.returns.now_ms()
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        let stop_check = self.stopping.as_ref().filter(|s| !s.called_off).map(|s| s.grace_ends_ms);
        let next = [self.deadlines.next(), self.accept_again_ms, stop_check].into_iter().flatten().min();
        let next = next.map(|at| Duration::from_millis(at.saturating_sub(self.now_ms())));
        [next, self.next_rest()].into_iter().flatten().min()
    }

    fn next_rest(&self) -> Option<Duration> {
        let Role::Express { lane, .. } = &self.role else { return None };
        lane.next_rest().map(|at| at.saturating_duration_since(Instant::now()))
    }

    // ---- events ------------------------------------------------------------------------------------------------

    fn on_event(&mut self, token: usize, writable: bool, read_closed: bool, gone: bool) {
        let Some(Some(connection)) = self.connections.get_mut(token) else { return };
        // No further event tells of it: whoever reads on, now or after a request was lent, finds the end.
        connection.hung_up |= read_closed || gone;
        match &mut connection.state {
            State::Parked { .. } | State::Lingering { .. } => self.step(token, Self::read),
            // It is never seen at rest.
            State::Moving(_) => {}
            State::Writing { .. } => self.step(token, Self::write),
            State::Draining { .. } if writable || gone => self.step(token, |_, _, _| Next::Drop),
            State::Draining { .. } => {}
            State::Lent { ends_with_client, left_ms } => {
                if connection.client.note_event() {
                    return self.take_back(token, Fate::Parked);
                }
                if writable {
                    connection.client.note_writable();
                }
                // A closed reading side alone may be a half-closed client that waits for its reply; when it asked for a
                // generation it is taken for one that left, as nginx does (499): the model must not go on for nobody.
                if gone || (read_closed && *ends_with_client) {
                    let is_over = connection.client.call_off(connection.client.how_left());
                    if !is_over && left_ms.is_none() {
                        *left_ms = Some(self.returns.now_ms());
                        self.step(token, |_, _, _| Next::Keep);
                    }
                }
            }
        }
    }

    /// Runs one step of a connection, and drops or arms it afterwards.
    fn step(&mut self, token: usize, step: fn(&mut Front, usize, &mut Connection) -> Next) {
        let Some(mut connection) = self.connections.get_mut(token).and_then(Option::take) else { return };
        match step(self, token, &mut connection) {
            Next::Keep if matches!(connection.state, State::Moving(_)) => self.move_away(token, connection),
            Next::Keep => {
                self.arm(token, &connection);
                self.connections[token] = Some(connection);
            }
            Next::Drop => {
                drop(connection);
                self.freed.push(token);
                if self.accept_again_ms.is_some() {
                    self.accept();
                }
            }
        }
    }

    fn take_back(&mut self, token: usize, fate: Fate) {
        let Some(Some(connection)) = self.connections.get_mut(token) else { return };
        // A late word about a connection that an event has taken back before.
        if fate == Fate::Parked && !connection.client.is_given_back() {
            return;
        }
        let State::Lent { .. } = connection.state else { return };
        let since_ms = self.returns.now_ms();
        let step = match fate {
            Fate::Cut => Self::cut,
            Fate::Closed => {
                connection.state = State::Lingering { since_ms, drained: 0 };
                Self::read
            }
            Fate::Parked => {
                connection.state = State::Parked { since_ms: connection.client.given_back_ms() };
                Self::go_on
            }
            Fate::Write(bytes, then) => {
                connection.state = State::Writing { bytes, written: 0, then, since_ms };
                Self::write
            }
        };
        self.step(token, step);
    }

    /// After a reply: bytes that came before are used first, then the socket is read.
    fn go_on(&mut self, token: usize, connection: &mut Connection) -> Next {
        if !connection.unread.is_empty() {
            let unread = std::mem::take(&mut connection.unread);
            if self.take_in(connection, &unread) == Next::Drop {
                return Next::Drop;
            }
        }
        self.read(token, connection)
    }

    fn read(&mut self, token: usize, connection: &mut Connection) -> Next {
        let mut scratch = std::mem::take(&mut self.scratch);
        let next = self.read_into(token, connection, &mut scratch);
        self.scratch = scratch;
        next
    }

    fn read_into(&mut self, token: usize, connection: &mut Connection, scratch: &mut [u8]) -> Next {
        let mut taken = 0;
        loop {
            match &mut connection.state {
                State::Parked { .. } => {}
                State::Lingering { drained, .. } if *drained > LINGER_BYTES_MAX => return Next::Drop,
                State::Lingering { .. } => {}
                State::Lent { .. } | State::Writing { .. } | State::Draining { .. } | State::Moving(_) => {
                    return Next::Keep;
                }
            }
            if taken > TURN_BYTES_MAX {
                if !self.unfinished.contains(&token) {
                    self.unfinished.push(token);
                }
                return Next::Keep;
            }
            let n = match connection.client.stream().read(scratch) {
                Ok(0) => return Next::Drop,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Next::Keep,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Next::Drop,
            };
            taken += n;
            if let State::Lingering { drained, .. } = &mut connection.state {
                *drained += n;
            } else if self.take_in(connection, &scratch[..n]) == Next::Drop {
                return Next::Drop;
            }
        }
    }
}

/// The front's clock with its list of returned connections, and what wakes it, for a new poll.
fn returns(poll: &Poll) -> io::Result<(Arc<Returns>, Arc<Waker>)> {
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    Ok((Arc::new(Returns::new(waker.clone(), Instant::now())), waker))
}
