//! A connection under thousands of schedules: the machine itself, over a simulated socket that tells of each edge once,
//! as epoll does. A seed decides how the client's bytes are cut, when events, returns and deadlines are seen, what
//! borrowers do, how much the client takes of a reply, when somebody calls an exchange off, and how it ends. Replies come from an upstream, whose socket is
//! simulated in the same way; borrowers relay them, or leave them to the machine's loop for a while. Whatever the order:
//! every request that came whole gets one reply, in its turn, or the client sees an end that somebody had a reason for.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use mio::Poll;

use super::connection::{Baggage, Connection, Counted, Next, State, Surroundings};
use super::intake::{Verdict, WholeRequest};
use super::simulated::{Chance, PEER, SimulatedSocket, run_all};
use super::{Plan, returns};
use crate::client::{Bodies, CalledOff, Claim, Client, Fate, Interrupt, Loan, Returns};
use crate::counters::Counters;
use crate::exchange::relay::{Ended, Step};
use crate::exchange::request::Forwarding;
use crate::exchange::tunnel::Tunnel;
use crate::http::RequestHead;
use crate::http::refusal::Refusal;
use crate::http::reply::{Persistence, Reply};
use crate::routes::Local;

/// Most steps until everything is at rest once the client has done all that it will.
const STEPS_MAX: usize = 10_000;

/// The socket of an exchange's upstream.
#[derive(Default)]
struct UpstreamState {
    /// How much of the reply it has still to send.
    unsent: usize,
    /// Bytes that have come and were not read.
    inbound: usize,
    /// Something happened of which no event has told.
    edge: bool,
    /// Events are told.
    watched: bool,
    /// The exchange was called off, and this with it.
    shut: bool,
}

/// Upstream, as whoever calls the exchange off sees it.
#[derive(Clone, Default)]
struct SimulatedUpstream(Arc<Mutex<UpstreamState>>);

impl SimulatedUpstream {
    fn lock(&self) -> MutexGuard<'_, UpstreamState> {
        self.0.lock().expect("one thread")
    }
}

impl Interrupt for SimulatedUpstream {
    fn interrupt(&self) {
        let mut upstream = self.lock();
        (upstream.shut, upstream.edge) = (true, true);
    }
}

/// Whom the connection asks: a list of what it has lent.
struct Around {
    bodies: Bodies,
    figures: Counters,
    returns: Arc<Returns>,
    is_stopping: bool,
    /// Every forwarded request moves its connection, as long as that is here.
    moves: bool,
    borrowed: Option<Borrowed>,
    /// The upstream of the exchange in hand.
    upstream: SimulatedUpstream,
    /// No socket of an upstream can be watched.
    is_blind: bool,
    /// So much of a reply is relayed in one turn.
    turn_bytes: usize,
    /// The bytes of replies that the loop has relayed.
    flowed: usize,
    /// Exchanges so far: each has its number.
    exchanges: u64,
    /// Those that somebody has called off.
    called_off: Vec<u64>,
}

/// A request in a borrower's hands, or flowing, and what of its reply is still to be written.
struct Borrowed {
    loan: Loan<SimulatedSocket>,
    reply: Vec<u8>,
    upstream: SimulatedUpstream,
    /// Nothing is left in upstream's socket until its next event.
    is_drained: bool,
}

impl Borrowed {
    /// Relays what has come, but for the last byte, as a relay does; as far as `most` goes.
    fn relay(&mut self, most: usize) -> Step {
        if self.loan.client().called_off().is_some() && self.upstream.lock().shut {
            return Step::Ended(Ended::ClientLeft);
        }
        let came = if self.is_drained { 0 } else { self.upstream.lock().inbound };
        if came == 0 {
            self.is_drained = true;
            return Step::Dry;
        }
        let some = came.min(most);
        if some == self.reply.len() {
            return Step::Ended(Ended::Whole);
        }
        let n = match self.loan.client().write_now(&self.reply[..some]) {
            Ok(n) => n,
            Err(_) => return Step::Ended(Ended::ClientLeft),
        };
        self.reply.drain(..n);
        self.upstream.lock().inbound -= n;
        match n {
            n if n < some => Step::Full,
            n if n < came => Step::More,
            _ => self.relay(most),
        }
    }
}

impl Surroundings<SimulatedSocket, Borrowed> for Around {
    fn now_ms(&self) -> u64 {
        self.returns.now_ms()
    }

    fn judge(&self, head: &RequestHead) -> Result<Verdict<Plan>, Refusal> {
        let number = number_of(head);
        let plan = match head.path().split('/').nth(1) {
            Some("own") => Plan::Answer(Reply::new(200, "text/plain", number.into_bytes())),
            Some("statistics") => Plan::Statistics(Local::Report),
            Some(_) | None => Plan::Forward(Forwarding::of(head)),
        };
        Ok(Verdict { plan, body_bytes_max: 1000, keep_body: true })
    }

    fn are_bodies_too_many(&self) -> bool {
        self.bodies.are_too_many()
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    fn moves(&mut self, request: &WholeRequest<Plan>) -> bool {
        self.moves && !self.is_stopping && request.head.meaning.keep_alive
    }

    fn lend(&mut self, loan: Loan<SimulatedSocket>, request: WholeRequest<Plan>, _: Claim) {
        let reply = Reply::new(200, "text/plain", number_of(&request.head).into_bytes());
        let persistence = if loan.keep_alive() { Persistence::KeepAlive } else { Persistence::Close };
        assert!(self.borrowed.is_none(), "lent twice");
        self.exchanges += 1;
        loan.client().carry(self.exchanges);
        let reply = reply.encode(persistence, false, 0);
        let upstream = SimulatedUpstream::default();
        upstream.lock().unsent = reply.len();
        self.upstream = upstream.clone();
        let _ = loan.client().interrupts(Arc::new(upstream.clone()));
        self.borrowed = Some(Borrowed { loan, reply, upstream, is_drained: false });
    }

    fn watch(&mut self, stream: &Borrowed) -> bool {
        let mut upstream = stream.upstream.lock();
        upstream.watched = !self.is_blind;
        // Nobody relies on being told of what came before.
        upstream.edge = false;
        !self.is_blind
    }

    fn refuse(&mut self, stream: Borrowed) {
        assert!(self.borrowed.is_none(), "a stream in two hands");
        self.borrowed = Some(stream);
    }

    fn look(&mut self, stream: &mut Borrowed, _: bool) -> Step {
        stream.is_drained = false;
        let before = stream.reply.len();
        let step = stream.relay(self.turn_bytes);
        self.flowed += before - stream.reply.len();
        step
    }

    fn hand_over(&mut self, stream: Borrowed, step: Step) {
        assert!(self.borrowed.is_none(), "a stream in two hands");
        assert!(!matches!(step, Step::Dry | Step::More), "handed over for {step:?}");
        stream.upstream.lock().watched = false;
        self.borrowed = Some(stream);
    }

    fn watch_tunnel(&mut self, _: &Tunnel<SimulatedSocket>) -> bool {
        unreachable!("nobody opens a WebSocket")
    }

    fn forget_tunnel(&mut self, _: &Tunnel<SimulatedSocket>) {
        unreachable!("nobody opens a WebSocket")
    }

    fn settle(&mut self, _: Box<Tunnel<SimulatedSocket>>) {
        unreachable!("nobody opens a WebSocket")
    }

    fn figures(&self) -> &Counters {
        &self.figures
    }

    fn tell_when_sent(&self, client: &Client<SimulatedSocket>) -> io::Result<()> {
        client.stream().wire().edge = true;
        Ok(())
    }
}

/// Requests are numbered in their targets, replies tell the number.
fn number_of(head: &RequestHead) -> String {
    head.path().rsplit('/').next().unwrap_or_default().to_owned()
}

/// One schedule.
struct Schedule {
    chance: Chance,
    socket: SimulatedSocket,
    around: Around,
    scratch: Vec<u8>,
    connection: Option<Connection<SimulatedSocket, Borrowed>>,
    /// A stream on its way to the loop.
    leaving: Option<Borrowed>,
    /// On its way to the other loop.
    moving: Option<(Baggage, Box<WholeRequest<Plan>>)>,
    /// Its turn was cut short.
    again: bool,
    /// Returns under way to the loop, each from a thread of its own.
    words: Vec<Fate>,
    /// What the client has still to send.
    unsent: Vec<Vec<u8>>,
    requests: usize,
    /// Somebody had a reason to end the connection.
    may_end: bool,
}

impl Schedule {
    fn new(seed: u64, returns: &Arc<Returns>) -> Schedule {
        let mut chance = Chance::of(seed);
        let requests = 1 + chance.below(6);
        let mut may_end = false;
        let mut bytes = Vec::new();
        for number in 1..=requests {
            let is_last = chance.one_in(20);
            may_end |= is_last;
            let close = if is_last { "Connection: close\r\n" } else { "" };
            let body = "x".repeat(chance.below(60));
            let (method, path) =
                [("GET", "own"), ("GET", "statistics"), ("GET", "v1"), ("POST", "v1")][chance.below(4)];
            let expects = if method == "POST" && chance.one_in(4) { "Expect: 100-continue\r\n" } else { "" };
            let framed = match (method, chance.below(4)) {
                ("GET", _) => "\r\n".to_owned(),
                (_, 0) => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}y\r\n0\r\n\r\n", body.len() + 1),
                (_, _) => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            };
            bytes.extend(
                format!("{method} /{path}/{number} HTTP/1.1\r\nHost: h\r\n{close}{expects}{framed}").into_bytes(),
            );
        }
        if chance.one_in(20) {
            may_end = true;
            bytes.extend(b"nonsense\r\n\r\n");
        }
        let mut unsent = chance.cut(bytes);
        unsent.reverse();
        let scratch = vec![0; [7, 16, 64, 1000][chance.below(4)]];
        let figures = Arc::default();
        let bodies = Bodies::new(u64::MAX);
        let baggage = Baggage::new(bodies.claim(), Counted::new(&figures, returns));
        let socket = SimulatedSocket::with_room([0, 20, 1000, 100_000][chance.below(4)]);
        let client = Client::new(socket.clone(), PEER, 0, returns.clone());
        let around = Around {
            bodies,
            figures: Counters::default(),
            returns: returns.clone(),
            is_stopping: false,
            moves: chance.one_in(2),
            borrowed: None,
            upstream: SimulatedUpstream::default(),
            is_blind: chance.one_in(10),
            turn_bytes: [1, 10, 100, 10_000][chance.below(4)],
            flowed: 0,
            exchanges: 0,
            called_off: Vec::new(),
        };
        let connection = Some(Connection::new(client, baggage, 0));
        let (leaving, moving, again, words) = (None, None, false, Vec::new());
        Schedule {
            chance,
            socket,
            around,
            scratch,
            connection,
            leaving,
            moving,
            again,
            words,
            unsent,
            requests,
            may_end,
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut Connection<SimulatedSocket, Borrowed>, &mut Around, &mut [u8]) -> Next) {
        let Some(connection) = &mut self.connection else { return };
        match step(connection, &mut self.around, &mut self.scratch) {
            Next::Keep => {}
            Next::Again => self.again = true,
            Next::Move(request) => {
                let left = self.connection.take().and_then(Connection::leave);
                let (_, _, baggage) = left.expect("nobody has a hand on it");
                // Who moves is told of nothing more until it is registered anew.
                self.socket.wire().edge = false;
                self.around.moves = false;
                self.moving = Some((baggage, request));
            }
            Next::Drop => {
                self.connection = None;
                self.socket.wire().ended = true;
            }
        }
    }

    /// One thing happens, or nothing. `is_over`: the client sends and ends no more, borrowers do what they should.
    fn happen(&mut self, is_over: bool) {
        self.words.extend(self.around.returns.mailbox.take().into_iter().map(|returned| returned.fate));
        match self.chance.below(if is_over { 10 } else { 14 }) {
            0 => {
                // An event waits while nobody is there whom it could be told.
                if self.connection.is_some()
                    && let Some(ready) = { self.socket.wire().event() }
                {
                    self.step(|connection, around, scratch| connection.on_event(ready, around, scratch));
                }
            }
            1 if !self.words.is_empty() => {
                let at = self.chance.below(self.words.len());
                let fate = self.words.swap_remove(at);
                self.step(|connection, around, scratch| connection.take_back(fate, around, scratch));
            }
            2 => self.borrower(is_over),
            3 if std::mem::take(&mut self.again) => self.step(Connection::resume),
            4 => {
                if let Some((baggage, request)) = self.moving.take() {
                    // Registering tells of what is there, but nobody relies on it for bytes that came on the way. For an
                    // end they do: the read that gets the last bytes does not find it.
                    let is_told = self.chance.one_in(2);
                    let mut wire = self.socket.wire();
                    wire.edge = is_told || wire.reset || wire.fin;
                    drop(wire);
                    let client = Client::new(self.socket.clone(), PEER, 0, self.around.returns.clone());
                    self.connection = Some(Connection::new(client, baggage, 0));
                    self.step(|connection, around, scratch| connection.arrive(*request, around, scratch));
                }
            }
            5 => {
                let more = if is_over { 1000 } else { self.chance.below(100) };
                self.socket.wire().make_room(more);
            }
            10 | 11 => {
                if let Some(segment) = self.unsent.pop() {
                    self.socket.wire().send(segment);
                }
            }
            7 => self.upstream(),
            8 => {
                let mut upstream = self.around.upstream.lock();
                // Where nobody watches, nobody is told; what is left to be told of later.
                if upstream.watched && std::mem::take(&mut upstream.edge) {
                    let hung_up = upstream.shut;
                    drop(upstream);
                    self.step(|connection, around, _| connection.look_upstream(hung_up, around));
                }
            }
            9 => {
                if let Some(stream) = self.leaving.take() {
                    self.step(|connection, around, _| connection.take_stream(stream, around));
                }
            }
            // Once all is over, no deadline rescues what hangs; it may come before a word that is under way.
            6 if !is_over || !self.words.is_empty() => self.step(Connection::look),
            12 if self.chance.one_in(40) => self.end(),
            // The one at hand, or one that is over: the word may be late in either case.
            13 if self.chance.one_in(20) => {
                let exchange = self.around.exchanges.saturating_sub(self.chance.below(2) as u64);
                self.around.called_off.push(exchange);
                self.around.returns.call_off(0, exchange);
            }
            _ => {}
        }
    }

    /// What a borrower does next with its connection.
    fn borrower(&mut self, is_over: bool) {
        let Some(mut borrowed) = self.around.borrowed.take() else { return };
        let client = borrowed.loan.client();
        let is_meant = self.around.called_off.contains(&client.carried());
        assert!(client.called_off() != Some(CalledOff::Here) || is_meant, "another one was called off");
        if borrowed.loan.client().called_off().is_some() || (!is_over && self.chance.one_in(60)) {
            self.may_end = true;
            return borrowed.loan.cut();
        }
        let step = borrowed.relay(usize::MAX);
        if matches!(step, Step::Dry) && self.chance.one_in(2) {
            self.leaving = Some(borrowed);
            return;
        }
        // Its socket does not wait for an event while a borrower reads.
        borrowed.is_drained = false;
        match step {
            Step::Ended(Ended::Whole) => {}
            Step::Ended(_) => return borrowed.loan.cut(),
            _ => {
                self.around.borrowed = Some(borrowed);
                return;
            }
        }
        match borrowed.loan.client().write_now(&borrowed.reply) {
            Ok(n) => {
                borrowed.reply.drain(..n);
                borrowed.upstream.lock().inbound -= n;
            }
            Err(_) => return borrowed.loan.cut(),
        }
        if borrowed.reply.is_empty() {
            borrowed.loan.give_back();
        } else if self.chance.one_in(4) {
            let complete = is_over || !self.chance.one_in(20);
            self.may_end |= !complete;
            borrowed.loan.give_back_with(borrowed.reply, complete);
        } else {
            self.around.borrowed = Some(borrowed);
        }
    }

    /// Upstream sends some of its reply.
    fn upstream(&mut self) {
        let some = 1 + self.chance.below(60);
        let mut upstream = self.around.upstream.lock();
        let n = some.min(upstream.unsent);
        upstream.unsent -= n;
        upstream.inbound += n;
        upstream.edge |= n > 0;
    }

    /// The client ends, or the proxy does.
    fn end(&mut self) {
        self.may_end = true;
        match self.chance.below(3) {
            0 => {
                self.socket.wire().end();
                self.unsent.clear();
            }
            1 => {
                self.socket.wire().break_off();
                self.unsent.clear();
            }
            _ => {
                self.around.is_stopping = true;
                self.step(Connection::stop);
                self.step(Connection::wind_up);
                if self.chance.one_in(4) {
                    self.step(|connection, around, _| connection.call_off(CalledOff::Shutdown, around));
                }
            }
        }
    }

    /// Until nothing is under way any more.
    fn is_at_rest(&self) -> bool {
        let wire = self.socket.wire();
        let is_told = self.connection.is_none() || wire.is_calm();
        let flows = matches!(self.connection, Some(Connection { state: State::Flowing(..), .. }));
        self.around.borrowed.is_none()
            && self.leaving.is_none()
            && self.moving.is_none()
            && self.words.is_empty()
            && !self.again
            && !flows
            && is_told
    }

    /// How many bytes of replies the loop has relayed.
    fn run(mut self) -> usize {
        while !self.unsent.is_empty() {
            self.happen(false);
        }
        let sent_all = !{
            let wire = self.socket.wire();
            wire.fin || wire.reset
        };
        let mut steps = 0;
        let mut calm = 0;
        while calm < 30 {
            self.happen(true);
            calm = if self.is_at_rest() { calm + 1 } else { 0 };
            steps += 1;
            assert!(steps < STEPS_MAX, "it never comes to rest");
        }
        let wire = self.socket.wire();
        let got = String::from_utf8(wire.outbound.clone()).expect("text");
        let replies = got.matches("HTTP/1.1 200 OK\r\n").count();
        let mut at = 0;
        for number in 1..=replies {
            let this = got[at..].find("HTTP/1.1 200 OK\r\n").map(|found| at + found).expect("counted");
            let next = got[this + 1..].find("HTTP/1.1 ").map_or(got.len(), |found| this + 1 + found);
            let is_cut = wire.ended && next == got.len();
            assert!(is_cut || got[this..next].ends_with(&format!("\r\n\r\n{number}")), "out of order: {got:?}");
            at = next;
        }
        let told = got.matches("HTTP/1.1 100 Continue\r\n\r\n").count() + got.matches("HTTP/1.1 400 ").count();
        let is_sound = got.matches("HTTP/1.1 ").count() == replies + told;
        assert!(is_sound || wire.ended, "a head was written in part: {got:?}");
        assert!(replies <= self.requests, "more replies than requests");
        if !wire.ended {
            assert!(sent_all, "the client's end was never seen");
            assert_eq!(replies, self.requests, "a request that came was never answered");
        }
        assert!(!wire.ended || self.may_end, "the connection ended, and nobody had a reason");
        self.around.flowed
    }
}

#[test]
fn every_request_that_came_whole_gets_its_reply_in_order_or_an_end() {
    let poll = Poll::new().expect("a poll");
    let (returns, _) = returns(&poll).expect("a waker");
    let flowed = run_all(0..10_000, |seed| {
        // What the one before left behind is not its.
        returns.mailbox.take();
        Schedule::new(seed, &returns).run()
    });
    assert!(flowed > 0, "no reply ever flowed");
}
