//! The front: one thread that accepts connections, gathers requests and lends each to whoever answers it.
//!
//! It never waits for anything but its poll. What needs no I/O it answers itself; the statistics go to their lane,
//! everything forwarded to a worker. A connection is in one of four states, and every deadline is computed from it:
//!
//! ```text
//!  Parked (idle, head, body) ──whole request──▶ Lent ──given back──▶ Parked
//!     │                                          ├──its last reply──▶ Lingering ──▶ closed
//!     │                                          ├──a reply cut short──▶ closed
//!     │                                          ▼ last bytes not taken at once
//!     ├── own reply, not taken at once ──▶ Writing ──▶ Parked, Lingering or closed
//!     └── refused ──▶ Lingering
//! ```
//!
//! There are two such loops: a connection whose request the express lane can answer moves to that of [`express`], with
//! the request (Moving).

pub mod bodies;
pub mod client;
pub mod deadlines;
#[cfg(unix)]
mod express;
pub mod gather;
mod judge;

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(unix)]
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::exchange::Lend;
#[cfg(unix)]
use crate::exchange::express::Express;
use crate::exchange::pool::Pool;
use crate::figures::Figures;
use crate::http::refusal::Refusal;
use crate::http::reply::{CONTINUE, Persistence, Reply};
use crate::http::target::Local;
use crate::limits::*;
use crate::stats::lane::Lane;
use bodies::{Bodies, Claim};
use client::{CalledOff, Client, Fate, Loan, Returns, Then};
use deadlines::Deadlines;
use gather::{Gather, Step, Waiting};
pub use judge::{Judge, Plan};

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX);
/// Tokens from here on are those of the express lane's ways to upstream.
const WAYS: usize = 1 << 24;

/// Read at most so much from one connection before the others have their turn.
const TURN_BYTES_MAX: usize = 1024 * 1024;
/// What the front reads into; shared by all connections.
const SCRATCH_BYTES: usize = 64 * 1024;
/// How long accepting rests after the process ran out of descriptors, if no connection closes before.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Tells the front to stop. Each call counts: the first lets running exchanges finish.
#[derive(Default)]
pub struct Stop {
    asked: AtomicU32,
    /// The loops.
    sleepers: Mutex<Vec<Arc<Returns>>>,
}

impl Stop {
    /// Asks the front to stop; how often it was asked before.
    pub fn ask(&self) -> u32 {
        let before = self.asked.fetch_add(1, Ordering::AcqRel);
        self.sleepers().iter().for_each(|returns| returns.wake());
        before
    }

    /// From now on stopping wakes this loop, too.
    fn wakes(&self, returns: Arc<Returns>) {
        self.sleepers().push(returns);
    }

    fn sleepers(&self) -> MutexGuard<'_, Vec<Arc<Returns>>> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Connection {
    client: Arc<Client>,
    gather: Gather<Plan>,
    /// What the body that is being gathered takes.
    claim: Claim,
    /// Bytes read and not used up: the start of a head, or a pipelined request.
    unread: Vec<u8>,
    state: State,
    /// The earliest look scheduled in the deadlines.
    scheduled: Option<u64>,
    /// The client sends no more: it left, or closed that side. What it sent before may still be unread.
    hung_up: bool,
}

impl Connection {
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
    /// Connections wait that could not be accepted; said in the log once.
    accept_failing: bool,
    returns: Arc<Returns>,
    stopping: Option<Stopping>,
    deadlines: Deadlines,
    scratch: Box<[u8]>,
    figures: Arc<Figures>,
    common: Common,
    role: Role,
}

/// What both loops share.
#[derive(Clone)]
pub struct Common {
    judge: Arc<Judge>,
    bodies: Bodies,
    pool: Arc<Pool>,
    lane: Arc<Lane>,
    stop: Arc<Stop>,
    grace: Duration,
}

/// Which of the two loops it is.
enum Role {
    /// It accepts connections.
    First(Second),
    /// It is the express loop.
    #[cfg(unix)]
    Second { express: Express, guests: express::Guests },
}

/// The express loop, as the first one sees it.
enum Second {
    /// There will be none: the settings or the system are against it.
    Never,
    /// Nobody needed it yet.
    #[cfg(unix)]
    NotYet,
    #[cfg(unix)]
    Started(express::Door, JoinHandle<()>),
}

struct Stopping {
    grace_ends_ms: u64,
    called_off: bool,
}

impl Front {
    /// Takes over a bound listener. `express`: short exchanges have a loop of their own.
    pub fn listening(
        mut listener: TcpListener,
        judge: Judge,
        pool: Arc<Pool>,
        lane: Lane,
        grace: Duration,
    ) -> io::Result<Front> {
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let returns = returns(&poll)?;
        let stop = Arc::new(Stop::default());
        stop.wakes(returns.clone());
        #[cfg(unix)]
        let second = if Express::serves(&pool.shared().settings) { Second::NotYet } else { Second::Never };
        #[cfg(not(unix))]
        let second = Second::Never;
        let bodies = Bodies::new(judge.body_bytes_max().saturating_mul(BODIES_MAX));
        let common = Common { judge: Arc::new(judge), bodies, pool, lane: Arc::new(lane), stop, grace };
        let mut front = Front::new(poll, returns, common, Role::First(second));
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
            accept_failing: false,
            returns,
            stopping: None,
            deadlines: Deadlines::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            figures: common.lane.figures().clone(),
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
        let mut events = Events::with_capacity(1024);
        loop {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in events.iter() {
                match event.token() {
                    LISTENER => self.accept(),
                    WAKER => {}
                    #[cfg(unix)]
                    Token(token) if token >= WAYS => {
                        if let Role::Second { express, .. } = &mut self.role {
                            let hung_up = event.is_read_closed() || event.is_error();
                            express.on_event(token, hung_up, &mut self.scratch);
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
            #[cfg(unix)]
            if let Role::Second { express, guests } = &mut self.role {
                express.settle();
                express.rest();
                guests.take().into_iter().for_each(|guest| self.welcome(guest));
            }
            self.check_deadlines();
            self.free.append(&mut self.freed);
            if self.common.stop.asked.load(Ordering::Acquire) > 0 && self.stopped() {
                break;
            }
        }
        #[cfg(unix)]
        if let Role::First(second) = &mut self.role
            && let Second::Started(_, thread) = std::mem::replace(second, Second::Never)
            && thread.join().is_err()
        {
            log::error!("the express loop ended by a bug of the proxy");
        }
        Ok(())
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

    #[cfg(unix)]
    fn next_rest(&self) -> Option<Duration> {
        let Role::Second { express, .. } = &self.role else { return None };
        express.next_rest().map(|at| at.saturating_duration_since(Instant::now()))
    }

    #[cfg(not(unix))]
    fn next_rest(&self) -> Option<Duration> {
        None
    }

    // ---- accepting ---------------------------------------------------------------------------------------------

    fn accept(&mut self) {
        self.accept_again_ms = None;
        while let Some(listener) = &self.listener {
            if self.figures.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
                // Looked at again as soon as a connection closes.
                self.accept_again_ms = Some(self.now_ms() + 1000);
                return;
            }
            match listener.accept() {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if std::mem::take(&mut self.accept_failing) {
                        log::warn!("every connection that waited is accepted");
                    }
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    // Out of descriptors or of memory: the edge is spent, so accepting is tried again by the clock.
                    if !std::mem::replace(&mut self.accept_failing, true) {
                        log::warn!("cannot accept a connection ({e}); trying again until it works");
                    }
                    self.accept_again_ms = Some(self.now_ms() + ACCEPT_REST.as_millis() as u64);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: mio::net::TcpStream, peer: SocketAddr) {
        let state = State::Parked { since_ms: self.now_ms() };
        let claim = self.common.bodies.claim();
        match stream.set_nodelay(true).and_then(|()| self.take_in_hand(stream, peer, claim, state)) {
            Ok(token) => {
                self.figures.connections.fetch_add(1, Ordering::Relaxed);
                self.step(token, |_, _, _| Next::Keep);
            }
            Err(e) => log::debug!("{peer}: gone before it was admitted: {e}"),
        }
    }

    /// Registers a connection and gives it a token.
    fn take_in_hand(
        &mut self,
        mut stream: mio::net::TcpStream,
        peer: SocketAddr,
        claim: Claim,
        state: State,
    ) -> io::Result<usize> {
        let token = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(e) = self.poll.registry().register(&mut stream, Token(token), both) {
            self.freed.push(token);
            return Err(e);
        }
        let client = Arc::new(Client::new(stream, peer, token, self.returns.clone()));
        self.connections[token] = Some(Box::new(Connection {
            client,
            gather: Gather::default(),
            claim,
            unread: Vec::new(),
            state,
            scheduled: None,
            hung_up: false,
        }));
        Ok(token)
    }

    // ---- events ------------------------------------------------------------------------------------------------

    fn on_event(&mut self, token: usize, writable: bool, read_closed: bool, gone: bool) {
        let Some(Some(connection)) = self.connections.get_mut(token) else { return };
        // No further event tells of it: whoever reads on, now or after a request was lent, finds the end.
        connection.hung_up |= read_closed || gone;
        match &connection.state {
            State::Parked { .. } | State::Lingering { .. } => self.step(token, Self::read),
            // It is never seen at rest.
            State::Moving(_) => {}
            State::Writing { .. } => self.step(token, Self::write),
            State::Lent { ends_with_client, .. } => {
                if connection.client.note_event() {
                    return self.take_back(token, Fate::Parked);
                }
                if writable {
                    connection.client.note_writable();
                }
                // A closed reading side alone may be a half-closed client that waits for its reply; when it asked for a
                // generation it is taken for one that left, as nginx does (499): the model must not go on for nobody.
                if gone || (read_closed && *ends_with_client) {
                    connection.client.call_off(CalledOff::ClientLeft);
                }
            }
        }
    }

    /// Runs one step of a connection, and drops or arms it afterwards.
    fn step(&mut self, token: usize, step: fn(&mut Front, usize, &mut Connection) -> Next) {
        let Some(mut connection) = self.connections.get_mut(token).and_then(Option::take) else { return };
        match step(self, token, &mut connection) {
            #[cfg(unix)]
            Next::Keep if matches!(connection.state, State::Moving(_)) => self.move_away(token, connection),
            Next::Keep => {
                self.arm(token, &mut connection);
                self.connections[token] = Some(connection);
            }
            Next::Drop => {
                drop(connection);
                self.freed.push(token);
                self.figures.connections.fetch_sub(1, Ordering::Relaxed);
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
            Fate::Cut => |_: &mut Front, _: usize, _: &mut Connection| Next::Drop,
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
                State::Lent { .. } | State::Writing { .. } | State::Moving(_) => return Next::Keep,
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

    // ---- requests ----------------------------------------------------------------------------------------------

    /// Takes in bytes behind those not used up before.
    fn take_in(&mut self, connection: &mut Connection, bytes: &[u8]) -> Next {
        if connection.unread.is_empty() {
            return match self.use_up(connection, bytes) {
                Ok(used) => {
                    connection.unread = bytes[used..].to_vec();
                    Next::Keep
                }
                Err(Dropped) => Next::Drop,
            };
        }
        let mut all = std::mem::take(&mut connection.unread);
        all.extend_from_slice(bytes);
        match self.use_up(connection, &all) {
            Ok(used) => {
                all.drain(..used);
                connection.unread = all;
                Next::Keep
            }
            Err(Dropped) => Next::Drop,
        }
    }

    /// Uses up `bytes`, request after request, until one is lent or more must be read; how many were used.
    fn use_up(&mut self, connection: &mut Connection, bytes: &[u8]) -> Result<usize, Dropped> {
        let mut used = 0;
        while used < bytes.len() && matches!(connection.state, State::Parked { .. }) {
            let waited = connection.gather.waiting();
            let judge = &self.common.judge;
            let step = match connection.gather.advance(&bytes[used..], |head| judge.judge(head)) {
                Ok((n, step)) => {
                    used += n;
                    step
                }
                Err(refusal) => {
                    used = bytes.len();
                    self.refuse(connection, refusal)?;
                    break;
                }
            };
            connection.claim.set(match &step {
                Step::Whole(request) => request.body.len(),
                Step::More | Step::Continue => connection.gather.body_bytes(),
            });
            if self.common.bodies.are_too_many() {
                self.turn_away(connection)?;
                return Ok(bytes.len());
            }
            // A head has one deadline from its first byte; a body one from its last.
            if waited != Waiting::Head || connection.gather.waiting() != Waiting::Head {
                connection.state = State::Parked { since_ms: self.returns.now_ms() };
            }
            match step {
                Step::More => break,
                Step::Continue => {
                    connection.client.write_now(CONTINUE).map_err(|_| Dropped)?;
                }
                Step::Whole(request) => {
                    let pending = used < bytes.len() || connection.hung_up;
                    self.on_request(connection, request, pending)?;
                }
            }
        }
        Ok(used)
    }

    fn on_request(
        &mut self,
        connection: &mut Connection,
        request: Box<gather::Request<Plan>>,
        pending: bool,
    ) -> Result<(), Dropped> {
        match &request.plan {
            Plan::Answer(answer) => {
                connection.claim.set(0);
                let keep_alive = request.head.keep_alive && self.stopping.is_none();
                let persistence = if keep_alive { request.head.persistence() } else { Persistence::Close };
                let bytes = answer.encode(persistence, request.head.method() == "HEAD");
                return self.reply(connection, bytes, keep_alive);
            }
            #[cfg(unix)]
            Plan::Forward if self.is_for_express(&request) => connection.state = State::Moving(request),
            Plan::Statistics(_) | Plan::Forward => self.lend(connection, *request, pending),
        }
        Ok(())
    }

    /// Lends the connection to whoever answers the request.
    fn lend(&mut self, connection: &mut Connection, request: gather::Request<Plan>, pending: bool) {
        let keep_alive = request.head.keep_alive && self.stopping.is_none();
        let question = match request.plan {
            Plan::Statistics(question) => Some(question),
            Plan::Forward | Plan::Answer(_) => None,
        };
        let ends_with_client = match question {
            Some(question) => question == Local::Live,
            None => request.head.method() == "POST",
        };
        connection.client.lend(pending || self.stopping.is_some());
        if connection.hung_up && ends_with_client {
            connection.client.call_off(CalledOff::ClientLeft);
        }
        connection.state = State::Lent { ends_with_client };
        let loan = Loan::new(connection.client.clone(), keep_alive);
        let lend = Box::new(Lend::new(loan, request.head, request.body, connection.claim.take()));
        let taken = match question {
            Some(question) => self.common.lane.ask(question, lend),
            None => self.forward(lend),
        };
        if let Err(lend) = taken {
            self.figures.queue_full.fetch_add(1, Ordering::Relaxed);
            log::warn!("{}: {} refused: the queue is full", connection.client.peer(), lend.head.path());
            let busy = Reply::overloaded(
                "The proxy is busy: MAX_WORKERS requests are being answered, and the queue is full.",
                OVERLOADED_RETRY_S,
            );
            let persistence = lend.loan.persistence(&lend.head);
            lend.loan.give_back_with(busy.encode(persistence, lend.head.method() == "HEAD"), true);
        }
    }

    fn forward(&mut self, lend: Box<Lend>) -> Result<(), Box<Lend>> {
        #[cfg(unix)]
        if let Role::Second { express, .. } = &mut self.role {
            return express.ask(lend).or_else(|lend| self.common.pool.lend(lend));
        }
        self.common.pool.lend(lend)
    }

    /// The memory for bodies is full: whose body grows now tries again later.
    fn turn_away(&mut self, connection: &mut Connection) -> Result<(), Dropped> {
        log::warn!("{}: refused: too many large requests at once", connection.client.peer());
        self.figures.queue_full.fetch_add(1, Ordering::Relaxed);
        connection.forget_request();
        let busy = Reply::overloaded("Too many large requests at once.", OVERLOADED_RETRY_S);
        self.reply(connection, busy.encode(Persistence::Close, false), false)
    }

    fn refuse(&mut self, connection: &mut Connection, refusal: Refusal) -> Result<(), Dropped> {
        log::debug!("{}: refused: {}", connection.client.peer(), refusal.name());
        self.figures.note_refusal(refusal);
        connection.forget_request();
        self.reply(connection, Reply::refusal(refusal).encode(Persistence::Close, false), false)
    }

    // ---- own replies -------------------------------------------------------------------------------------------

    fn reply(&mut self, connection: &mut Connection, bytes: Vec<u8>, keep_alive: bool) -> Result<(), Dropped> {
        let then = if keep_alive { Then::Park } else { Then::Linger };
        connection.state = State::Writing { bytes, written: 0, then, since_ms: self.now_ms() };
        self.write_some(connection)
    }

    /// Writes what is left of a reply, then goes on with the connection.
    fn write(&mut self, token: usize, connection: &mut Connection) -> Next {
        if self.write_some(connection).is_err() {
            return Next::Drop;
        }
        match connection.state {
            State::Parked { .. } => self.go_on(token, connection),
            State::Lingering { .. } => self.read(token, connection),
            State::Writing { .. } | State::Lent { .. } | State::Moving(_) => Next::Keep,
        }
    }

    fn write_some(&mut self, connection: &mut Connection) -> Result<(), Dropped> {
        let now_ms = self.now_ms();
        let State::Writing { bytes, written, then, since_ms } = &mut connection.state else { return Ok(()) };
        let n = connection.client.write_now(&bytes[*written..]).map_err(|_| Dropped)?;
        *written += n;
        if n > 0 {
            *since_ms = now_ms;
        }
        if *written == bytes.len() {
            connection.state = match then {
                Then::Park => State::Parked { since_ms: now_ms },
                Then::Linger => {
                    let _ = connection.client.stream().shutdown(Shutdown::Write);
                    State::Lingering { since_ms: now_ms, drained: 0 }
                }
                Then::Cut => return Err(Dropped),
            };
        }
        Ok(())
    }

    // ---- moving to the express loop ----------------------------------------------------------------------------

    #[cfg(unix)]
    fn is_for_express(&mut self, request: &gather::Request<Plan>) -> bool {
        let Role::First(second) = &mut self.role else { return false };
        if self.stopping.is_some() || !Express::suits(&request.head, &request.body) {
            return false;
        }
        if let Second::NotYet = second {
            match express::start(self.common.clone()) {
                Ok((door, thread)) => *second = Second::Started(door, thread),
                // Out of descriptors, perhaps: the next request tries again.
                Err(e) => log::debug!("this connection stays: {e}"),
            }
        }
        matches!(second, Second::Started(..))
    }

    /// Moves a connection, unless somebody still has a hand on it: then it stays, and a worker gets its request.
    #[cfg(unix)]
    fn move_away(&mut self, token: usize, mut connection: Box<Connection>) {
        let since_ms = self.now_ms();
        let State::Moving(request) = std::mem::replace(&mut connection.state, State::Parked { since_ms }) else {
            return;
        };
        let Connection { client, claim, unread, hung_up, .. } = *connection;
        let (mut stream, peer) = match Client::into_stream(client) {
            Ok(parts) => parts,
            Err(client) => {
                let mut connection = Box::new(Connection { client, claim, unread, hung_up, ..*connection });
                let pending = !connection.unread.is_empty() || hung_up;
                self.lend(&mut connection, *request, pending);
                self.connections[token] = Some(connection);
                return self.step(token, |_, _, _| Next::Keep);
            }
        };
        let _ = self.poll.registry().deregister(&mut stream);
        self.freed.push(token);
        let guest = express::Guest { stream, peer, request, claim, unread, hung_up };
        let Role::First(second) = &mut self.role else { return };
        let Second::Started(door, _) = second else { return };
        if let Err(guest) = door.enter(guest) {
            *second = Second::Never;
            self.welcome(guest);
        }
    }

    /// Takes in a connection that was moved here.
    #[cfg(unix)]
    fn welcome(&mut self, guest: express::Guest) {
        let express::Guest { stream, peer, request, claim, unread, hung_up } = guest;
        match self.take_in_hand(stream, peer, claim, State::Moving(request)) {
            Ok(token) => {
                if let Some(Some(connection)) = self.connections.get_mut(token) {
                    (connection.unread, connection.hung_up) = (unread, hung_up);
                }
                self.step(token, Self::arrive);
            }
            Err(e) => {
                log::warn!("{peer}: cut: {e}");
                self.figures.connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    #[cfg(unix)]
    fn arrive(&mut self, token: usize, connection: &mut Connection) -> Next {
        let since_ms = self.now_ms();
        let State::Moving(request) = std::mem::replace(&mut connection.state, State::Parked { since_ms }) else {
            return Next::Keep;
        };
        let pending = !connection.unread.is_empty() || connection.hung_up;
        match self.on_request(connection, request, pending) {
            Ok(()) => self.go_on(token, connection),
            Err(Dropped) => Next::Drop,
        }
    }

    // ---- deadlines ---------------------------------------------------------------------------------------------

    /// When to look at a connection, by its state. A lent one has no deadline, but is looked at when it could have become
    /// idle.
    fn deadline(connection: &Connection) -> u64 {
        let after = |since_ms: u64, limit: Duration| since_ms + limit.as_millis() as u64;
        match &connection.state {
            State::Parked { since_ms } => match connection.gather.waiting() {
                Waiting::Idle => after(*since_ms, IDLE_TIME_MAX),
                Waiting::Head => after(*since_ms, HEAD_TIME_MAX),
                Waiting::Body => after(*since_ms, BODY_GAP_MAX),
            },
            State::Lent { .. } | State::Moving(_) => u64::MAX,
            State::Writing { since_ms, .. } => after(*since_ms, WRITE_STALL_MAX),
            State::Lingering { since_ms, .. } => after(*since_ms, LINGER_TIME_MAX),
        }
    }

    fn arm(&mut self, token: usize, connection: &mut Connection) {
        let at = match connection.state {
            // Given back without a word, it idles: this look finds out.
            State::Lent { .. } => self.now_ms() + IDLE_TIME_MAX.as_millis() as u64,
            State::Parked { .. } | State::Writing { .. } | State::Lingering { .. } | State::Moving(_) => {
                Self::deadline(connection)
            }
        };
        self.deadlines.schedule(token, at, &mut connection.scheduled);
    }

    fn check_deadlines(&mut self) {
        let now_ms = self.now_ms();
        if self.accept_again_ms.is_some_and(|at| at <= now_ms) {
            self.accept();
        }
        while let Some((at, token)) = self.deadlines.pop_due(now_ms) {
            let Some(Some(connection)) = self.connections.get_mut(token) else { continue };
            if connection.scheduled != Some(at) {
                continue;
            }
            connection.scheduled = None;
            if let State::Lent { .. } = connection.state
                && connection.client.is_given_back()
            {
                connection.state = State::Parked { since_ms: connection.client.given_back_ms() };
            }
            if Self::deadline(connection) <= now_ms {
                self.step(token, Self::expire);
            } else {
                self.step(token, |_, _, _| Next::Keep);
            }
        }
    }

    fn expire(&mut self, _token: usize, connection: &mut Connection) -> Next {
        match connection.state {
            State::Parked { .. } => {
                let refusal = match connection.gather.waiting() {
                    Waiting::Idle => return Next::Drop,
                    Waiting::Head => Refusal::HeadTimeout,
                    Waiting::Body => Refusal::BodyTimeout,
                };
                self.refuse(connection, refusal).map_or(Next::Drop, |()| Next::Keep)
            }
            State::Lent { .. } | State::Writing { .. } | State::Lingering { .. } | State::Moving(_) => Next::Drop,
        }
    }

    // ---- stopping ----------------------------------------------------------------------------------------------

    /// Goes on stopping; true when nothing is left to wait for.
    fn stopped(&mut self) -> bool {
        let now_ms = self.now_ms();
        if self.stopping.is_none() {
            self.listener = None;
            self.accept_again_ms = None;
            self.common.lane.close();
            #[cfg(unix)]
            if let Role::Second { guests, .. } = &self.role {
                guests.close().into_iter().for_each(|guest| self.welcome(guest));
            }
            self.stopping =
                Some(Stopping { grace_ends_ms: now_ms + self.common.grace.as_millis() as u64, called_off: false });
            // What has arrived is still answered; who idles is closed. Whoever gives back from now on wakes the front.
            for token in 0..self.connections.len() {
                if let Some(Some(connection)) = self.connections.get(token) {
                    connection.client.note_event();
                }
                self.reclaim(token);
                self.step(token, |front, token, connection| match connection.state {
                    State::Parked { .. } => front.go_on(token, connection),
                    State::Lent { .. } | State::Writing { .. } | State::Lingering { .. } | State::Moving(_) => {
                        Next::Keep
                    }
                });
            }
        }
        for token in 0..self.connections.len() {
            self.reclaim(token);
            self.step(token, |_, _, connection| match connection.state {
                State::Parked { .. } if connection.gather.waiting() == Waiting::Idle => Next::Drop,
                // Its reply was sent whole, and it has nothing more to say that a close would answer with a reset.
                State::Lingering { drained: 0, .. } => Next::Drop,
                State::Parked { .. }
                | State::Lent { .. }
                | State::Writing { .. }
                | State::Lingering { .. }
                | State::Moving(_) => Next::Keep,
            });
        }
        let grace_over = self.stopping.as_ref().is_some_and(|s| s.grace_ends_ms <= now_ms);
        if grace_over
            && let Some(stopping) = &mut self.stopping
            && !stopping.called_off
        {
            stopping.called_off = true;
            for connection in self.connections.iter().flatten() {
                if let State::Lent { .. } = connection.state {
                    connection.client.call_off(CalledOff::Shutdown);
                }
            }
        }
        let running = self.connections.iter().flatten().any(|connection| match connection.state {
            State::Lent { .. } | State::Moving(_) => true,
            State::Parked { .. } | State::Writing { .. } | State::Lingering { .. } => !grace_over,
        });
        !running
    }

    fn reclaim(&mut self, token: usize) {
        if let Some(Some(connection)) = self.connections.get_mut(token)
            && let State::Lent { .. } = connection.state
            && connection.client.is_given_back()
        {
            connection.state = State::Parked { since_ms: connection.client.given_back_ms() };
        }
    }
}

/// The front's clock and its list of returned connections, for a new poll.
pub fn returns(poll: &Poll) -> io::Result<Arc<Returns>> {
    let waker = mio::Waker::new(poll.registry(), WAKER)?;
    Ok(Arc::new(Returns::new(waker, Instant::now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection of which `bytes` have arrived.
    fn connection(bytes: &[u8]) -> Connection {
        let poll = Poll::new().expect("a poll");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let stream = mio::net::TcpStream::connect(address).expect("it listens");
        let client = Arc::new(Client::new(stream, address, 0, returns(&poll).expect("a waker")));
        let mut gather = Gather::default();
        let verdict = gather::Verdict { plan: Plan::Forward, body_bytes_max: 1000, keep_body: true };
        let mut verdict = Some(verdict);
        gather.advance(bytes, |_| Ok(verdict.take().expect("one head"))).map_err(|_| ()).expect("a good request");
        let state = State::Parked { since_ms: 5000 };
        let claim = Bodies::new(0).claim();
        Connection { client, gather, claim, unread: Vec::new(), state, scheduled: None, hung_up: false }
    }

    /// How long a connection in this state may stay in it.
    fn check(bytes: &str, state: impl FnOnce(u64) -> State, limit: Option<Duration>) {
        let mut connection = connection(bytes.as_bytes());
        connection.state = state(5000);
        let expected = limit.map_or(u64::MAX, |limit| 5000 + limit.as_millis() as u64);
        assert_eq!(Front::deadline(&connection), expected, "{bytes:?}");
    }

    #[test]
    fn each_state_has_its_own_deadline() {
        let parked = |since_ms| State::Parked { since_ms };
        check("", parked, Some(IDLE_TIME_MAX));
        check("POST /v1/x HT", parked, Some(HEAD_TIME_MAX));
        let head = "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
        check(&head[..head.len() - 1], parked, Some(HEAD_TIME_MAX));
        check(head, parked, Some(BODY_GAP_MAX));
        check(&format!("{head}Hell"), parked, Some(BODY_GAP_MAX));
        check(&format!("{head}Hello"), parked, Some(IDLE_TIME_MAX));
        let writing = |since_ms| State::Writing { bytes: vec![0; 9], written: 1, then: Then::Park, since_ms };
        check("", writing, Some(WRITE_STALL_MAX));
        check("", |since_ms| State::Lingering { since_ms, drained: 0 }, Some(LINGER_TIME_MAX));
        // A model may think for as long as it likes.
        check("", |_| State::Lent { ends_with_client: true }, None);
    }
}
