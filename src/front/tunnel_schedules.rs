//! A WebSocket under thousands of schedules: the connection and its tunnel themselves, between two simulated sockets that
//! tell of each edge once, as epoll does. A seed decides what either side sends and how it is cut, when events and
//! returns are seen, when either side reads, which messages wait for a row, how long workers take, and how it ends.
//! Whatever the order: what one side sent reaches the other, in order, with its end behind it; nothing leaves before
//! its row; and at rest nothing is left.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

use mio::Poll;

use super::connection::{Baggage, Connection, Counted, Next, State, Surroundings};
use super::intake::{Verdict, WholeRequest};
use super::simulated::{Chance, PEER, SimulatedSocket, run_all};
use super::{Plan, returns};
use crate::bell::lock;
use crate::client::{Bodies, CalledOff, Claim, Client, Fate, Loan, Returns, Socket};
use crate::counters::Counters;
use crate::exchange::relay::Step;
use crate::exchange::request::Forwarding;
use crate::exchange::tunnel::{Tunnel, UpstreamSide};
use crate::http::RequestHead;
use crate::http::refusal::Refusal;
use crate::http::websocket::close_frame;
use crate::limits::{COUNTS_TIME_MAX, HALF_CLOSED_TIME_MAX};
use crate::record::row::{Outcome, Row};
use crate::usage::socket::{Generation, GenerationEnd, ReadAlong, generations};

/// Most steps until everything is at rest once both sides have done all that they will.
const STEPS_MAX: usize = 10_000;
const HANDSHAKE: &[u8] = b"GET /llm HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";
/// What TLS seals at a time.
const RECORD_BYTES: usize = 16;

// ---- upstream ----------------------------------------------------------------------------------------------------

/// The upstream side: what polls a socket, in the clear or under TLS.
struct SimulatedUpstream {
    socket: SimulatedSocket,
    /// TLS takes bytes before the socket does.
    seals: bool,
    sealed: Vec<u8>,
    read_bytes: usize,
    /// The end comes with the last bytes.
    tells_end_early: bool,
    /// Nothing is left in its socket until the next event.
    is_drained: bool,
    hung_up: bool,
}

impl SimulatedUpstream {
    fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}

impl UpstreamSide for SimulatedUpstream {
    fn read(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        if self.is_drained {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut into = vec![0; self.read_bytes];
        let read = self.socket.read(&mut into);
        let n = read.as_ref().map_or(0, |n| *n);
        self.is_drained = n < into.len() && !self.hung_up;
        out.extend_from_slice(&into[..n]);
        let wire = self.socket.wire();
        let is_last = self.tells_end_early && wire.fin && !wire.reset && wire.inbound.is_empty();
        read.map(|n| n == 0 || is_last)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.seals {
            return self.write_now(bytes);
        }
        let mut taken = 0;
        while taken < bytes.len() && self.flush()? {
            let n = (bytes.len() - taken).min(RECORD_BYTES);
            self.sealed.extend_from_slice(&bytes[taken..taken + n]);
            taken += n;
        }
        self.flush()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<bool> {
        if !self.sealed.is_empty() {
            let n = self.write_now(&self.sealed)?;
            self.sealed.drain(..n);
        }
        Ok(self.sealed.is_empty())
    }

    fn is_broken(&self) -> bool {
        self.socket.take_error().is_ok_and(|error| error.is_some())
    }

    fn ready(&mut self, hung_up: bool) {
        self.hung_up |= hung_up;
        self.is_drained = false;
    }

    fn end(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn reset(&mut self) {
        let _ = self.socket.set_resets(true);
    }

    fn descriptor(&self) -> Option<&Arc<TcpStream>> {
        None
    }
}

impl Drop for SimulatedUpstream {
    fn drop(&mut self) {
        self.socket.wire().closed = true;
    }
}

// ---- reading along -----------------------------------------------------------------------------------------------

/// What is read along, for the tunnel and for the schedule. Generations begin and end at places in what is sent.
#[derive(Default)]
struct Reading {
    from_client: Vec<u8>,
    from_upstream: Vec<u8>,
    begins: Vec<usize>,
    ends: Vec<usize>,
    /// Frames of upstream are so long.
    frame_bytes: usize,
    client_seen: usize,
    upstream_seen: usize,
    begun: usize,
    running: usize,
    /// Ended, and not taken yet.
    ended: usize,
    /// Cut by the end of the WebSocket.
    cut: usize,
    /// From here on bytes of upstream wait for rows.
    held_from: Option<usize>,
}

impl Reading {
    fn is_at_boundary(&self) -> bool {
        self.upstream_seen.is_multiple_of(self.frame_bytes) || self.upstream_seen == self.from_upstream.len()
    }
}

#[derive(Clone, Default)]
struct SimulatedReader(Arc<Mutex<Reading>>);

impl SimulatedReader {
    fn lock(&self) -> MutexGuard<'_, Reading> {
        lock(&self.0)
    }
}

impl ReadAlong for SimulatedReader {
    fn client_sent(&mut self, bytes: &[u8], _: u64) {
        let mut reading = self.lock();
        let from = reading.client_seen;
        reading.client_seen += bytes.len();
        let to = reading.client_seen;
        assert!(reading.from_client[from..].starts_with(bytes), "what the client sent was read otherwise");
        let begun = reading.begins.iter().filter(|at| (from..to).contains(at)).count();
        reading.begun += begun;
        reading.running += begun;
    }

    fn upstream_sent(&mut self, bytes: &[u8], _: u64) -> usize {
        let mut reading = self.lock();
        let from = reading.upstream_seen;
        reading.upstream_seen += bytes.len();
        assert!(reading.from_upstream[from..].starts_with(bytes), "what upstream sent was read otherwise");
        assert_eq!(reading.held_from, None, "read on before the rows were committed");
        for at in from..reading.upstream_seen {
            if reading.running > 0 && reading.ends.contains(&at) {
                reading.running -= 1;
                reading.ended += 1;
                reading.held_from.get_or_insert(at);
            }
        }
        reading.held_from.map_or(bytes.len(), |at| at - from)
    }

    fn take_ended(&mut self) -> Vec<Generation> {
        generations(std::mem::take(&mut self.lock().ended), || GenerationEnd::Completed)
    }

    fn end(&mut self, _: u64) -> Vec<Generation> {
        let mut reading = self.lock();
        let cut = std::mem::take(&mut reading.running);
        reading.cut += cut;
        generations(cut, || GenerationEnd::Open)
    }

    fn running(&self) -> usize {
        self.lock().running
    }

    fn take_token(&mut self) -> Option<String> {
        None
    }

    fn client_name(&self) -> Option<&'static str> {
        None
    }

    fn is_at_boundary(&self) -> bool {
        self.lock().is_at_boundary()
    }
}

// ---- whom the connection asks ------------------------------------------------------------------------------------

type Simulated = Connection<SimulatedSocket, ()>;

/// Whom the connection asks: at most one worker has its tunnel.
struct Around {
    now_ms: u64,
    figures: Counters,
    upstream: SimulatedSocket,
    is_stopping: bool,
    /// Upstream is asked for the WebSocket.
    opening: Option<Loan<SimulatedSocket>>,
    /// Its rows are being committed.
    settling: Option<Box<Tunnel<SimulatedSocket>>>,
    /// Events of upstream are told.
    is_watched: bool,
    /// So is what was there when that began; but for an end, nobody relies on it.
    tells_of_before: bool,
}

impl Surroundings<SimulatedSocket, ()> for Around {
    fn now_ms(&self) -> u64 {
        self.now_ms
    }

    fn judge(&self, head: &RequestHead) -> Result<Verdict<Plan>, Refusal> {
        Ok(Verdict { plan: Plan::Forward(Forwarding::of(head)), body_bytes_max: 0, keep_body: true })
    }

    fn are_bodies_too_many(&self) -> bool {
        false
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    fn moves(&mut self, _: &WholeRequest<Plan>) -> bool {
        false
    }

    fn lend(&mut self, loan: Loan<SimulatedSocket>, _: WholeRequest<Plan>, _: Claim) {
        assert!(self.opening.replace(loan).is_none(), "lent twice");
    }

    fn watch(&mut self, (): &()) -> bool {
        unreachable!("no reply flows")
    }

    fn refuse(&mut self, (): ()) {
        unreachable!("no reply flows")
    }

    fn look(&mut self, (): &mut (), _: bool) -> Step {
        unreachable!("no reply flows")
    }

    fn hand_over(&mut self, (): (), _: Step) {
        unreachable!("no reply flows")
    }

    fn watch_tunnel(&mut self, _: &Tunnel<SimulatedSocket>) -> bool {
        assert!(!std::mem::replace(&mut self.is_watched, true), "polled twice");
        let mut wire = self.upstream.wire();
        wire.edge = self.tells_of_before || wire.fin || wire.reset;
        true
    }

    fn forget_tunnel(&mut self, _: &Tunnel<SimulatedSocket>) {
        self.is_watched = false;
    }

    fn settle(&mut self, tunnel: Box<Tunnel<SimulatedSocket>>) {
        assert!(self.settling.replace(tunnel).is_none(), "a tunnel in two hands");
    }

    fn figures(&self) -> &Counters {
        &self.figures
    }

    fn tell_when_sent(&self, client: &Client<SimulatedSocket>) -> io::Result<()> {
        client.stream().wire().edge = true;
        Ok(())
    }
}

// ---- a schedule --------------------------------------------------------------------------------------------------

/// What a side does next.
#[derive(Debug)]
enum Deed {
    Send(Vec<u8>),
    End,
}

/// One of the two sides.
struct Side {
    socket: SimulatedSocket,
    /// What it will do, the last thing first.
    will: Vec<Deed>,
    /// What it has sent.
    sent: usize,
    /// It reset the connection when the tunnel had not ended yet.
    reset: bool,
}

impl Side {
    fn new(chance: &mut Chance, bytes: Vec<u8>) -> Side {
        let socket = SimulatedSocket::with_room([0, 20, 100, 100_000][chance.below(4)]);
        let mut will: Vec<Deed> = chance.cut(bytes).into_iter().map(Deed::Send).collect();
        if chance.one_in(2) {
            will.push(Deed::End);
        }
        will.reverse();
        Side { socket, will, sent: 0, reset: false }
    }

    fn act(&mut self) {
        match self.will.pop() {
            Some(Deed::Send(bytes)) => {
                self.sent += bytes.len();
                self.socket.wire().send(bytes);
            }
            Some(Deed::End) => self.socket.wire().end(),
            None => {}
        }
    }

    fn reset(&mut self) {
        self.will.clear();
        self.reset = true;
        self.socket.wire().break_off();
    }
}

struct Schedule {
    chance: Chance,
    around: Around,
    returns: Arc<Returns>,
    scratch: Vec<u8>,
    connection: Option<Simulated>,
    client: Side,
    upstream: Side,
    reader: SimulatedReader,
    /// The upstream side, until the worker makes a tunnel with it.
    unopened: Option<SimulatedUpstream>,
    /// A tunnel on its way to the loop.
    leaving: Option<Box<Tunnel<SimulatedSocket>>>,
    /// Its turn was cut short.
    again: bool,
    /// Returns under way to the loop.
    words: Vec<Fate>,
    rows: Vec<Row>,
    grace_is_over: bool,
    /// What either side had sent when the proxy was told to stop.
    sent_before_stop: (usize, usize),
    /// All that the client may get.
    for_client: Vec<u8>,
    /// Of what either side got, so much was found right.
    checked: (usize, usize),
    /// It got the beginning of a Close frame behind it, or all of it.
    close_bytes: usize,
    /// The tunnel was seen to have ended.
    was_closed: bool,
}

/// Any bytes but those of a Close frame.
fn letters(chance: &mut Chance, most: usize) -> Vec<u8> {
    let length = chance.below(most);
    (0..length).map(|_| chance.below(0x80) as u8).collect()
}

impl Schedule {
    fn new(seed: u64, returns: &Arc<Returns>) -> Schedule {
        let mut chance = Chance::of(seed);
        let (from_client, from_upstream) = (letters(&mut chance, 300), letters(&mut chance, 300));
        let mut places = |length: usize| {
            let count = if length == 0 { 0 } else { chance.below(5) };
            (0..count).map(|_| chance.below(length)).collect::<Vec<usize>>()
        };
        let (begins, ends) = (places(from_client.len()), places(from_upstream.len()));
        let frame_bytes = 1 + chance.below(4);
        let client = Side::new(&mut chance, [HANDSHAKE, &from_client].concat());
        let upstream = Side::new(&mut chance, from_upstream.clone());
        let for_client = [SWITCHING, &from_upstream].concat();
        let reader = SimulatedReader::default();
        *reader.lock() = Reading { from_client, from_upstream, begins, ends, frame_bytes, ..Reading::default() };
        let scratch = vec![0; [7, 16, 64, 1000][chance.below(4)]];
        let unopened = SimulatedUpstream {
            socket: upstream.socket.clone(),
            seals: chance.one_in(2),
            sealed: Vec::new(),
            read_bytes: [5, 30, 1000][chance.below(3)],
            tells_end_early: chance.one_in(4),
            is_drained: true,
            hung_up: false,
        };
        let baggage = Baggage::new(Bodies::new(u64::MAX).claim(), Counted::new(&Arc::default(), returns));
        let connection = Connection::new(Client::new(client.socket.clone(), PEER, 0, returns.clone()), baggage, 0);
        let around = Around {
            now_ms: 0,
            figures: Counters::default(),
            upstream: upstream.socket.clone(),
            is_stopping: false,
            opening: None,
            settling: None,
            is_watched: false,
            tells_of_before: chance.one_in(2),
        };
        Schedule {
            chance,
            around,
            returns: returns.clone(),
            scratch,
            connection: Some(connection),
            client,
            upstream,
            reader,
            unopened: Some(unopened),
            leaving: None,
            again: false,
            words: Vec::new(),
            rows: Vec::new(),
            grace_is_over: false,
            sent_before_stop: (0, 0),
            for_client,
            checked: (0, 0),
            close_bytes: 0,
            was_closed: false,
        }
    }

    fn step(&mut self, step: impl FnOnce(&mut Simulated, &mut Around, &mut [u8]) -> Next) {
        let Some(connection) = &mut self.connection else { return };
        match step(connection, &mut self.around, &mut self.scratch) {
            Next::Keep => {}
            Next::Again => self.again = true,
            Next::Move(_) => unreachable!("nobody moves it"),
            Next::Drop => {
                self.connection = None;
                self.client.socket.wire().closed = true;
            }
        }
        self.words.extend(self.returns.mailbox.take().into_iter().map(|returned| returned.fate));
    }

    /// One thing happens, or nothing. `is_over`: both sides do nothing more, but for reading.
    fn happen(&mut self, is_over: bool) {
        match self.chance.below(if is_over { 9 } else { 13 }) {
            0 => {
                let event = self.client.socket.wire().event();
                if let Some(ready) = event {
                    self.step(|connection, around, scratch| connection.on_event(ready, around, scratch));
                }
            }
            1 if self.around.is_watched => {
                let event = self.upstream.socket.wire().event();
                if let Some(ready) = event {
                    self.step(|connection, around, scratch| connection.on_upstream(ready.ended, around, scratch));
                }
            }
            2 if !self.words.is_empty() => {
                let at = self.chance.below(self.words.len());
                let fate = self.words.swap_remove(at);
                self.step(|connection, around, scratch| connection.take_back(fate, around, scratch));
            }
            3 if std::mem::take(&mut self.again) => self.step(Connection::resume),
            4 => self.open(),
            5 => self.commit(),
            6 => {
                if let Some(tunnel) = self.leaving.take() {
                    self.step(|connection, around, scratch| connection.take_tunnel(tunnel, around, scratch));
                }
            }
            n @ (7 | 8) => {
                let more = if is_over { 1000 } else { self.chance.below(60) };
                [&self.client, &self.upstream][n - 7].socket.wire().make_room(more);
            }
            9 | 10 if self.client_waits() => {}
            9 | 10 => self.client.act(),
            11 => self.upstream.act(),
            12 if self.chance.one_in(20) => self.meet_with_trouble(),
            _ => {}
        }
        if self.around.is_stopping {
            // As the loop does in each turn.
            self.step(Connection::wind_up);
            if self.grace_is_over {
                self.step(|connection, around, _| connection.call_off(CalledOff::Shutdown, around));
            }
        }
        self.words.extend(self.returns.mailbox.take().into_iter().map(|returned| returned.fate));
    }

    /// A client that ended its side before the WebSocket is open would be one that has left.
    fn client_waits(&self) -> bool {
        let is_open = self.checked.0 >= SWITCHING.len();
        let is_cut = self.connection.is_none() || self.client.reset || self.around.is_stopping;
        matches!(self.client.will[..], [Deed::End]) && !is_open && !is_cut
    }

    /// Upstream has agreed.
    fn open(&mut self) {
        let Some(loan) = self.around.opening.take() else { return };
        let upstream = self.unopened.take().expect("one handshake");
        self.leaving = Some(Tunnel::of_nobody(loan, SWITCHING, upstream, self.reader.clone()));
    }

    /// A worker commits what it was handed.
    fn commit(&mut self) {
        let Some(mut tunnel) = self.around.settling.take() else { return };
        let rows = tunnel.take_rows();
        assert!(!rows.is_empty(), "handed over for nothing");
        self.rows.extend(rows);
        self.reader.lock().held_from = None;
        self.leaving = tunnel.settled();
    }

    fn meet_with_trouble(&mut self) {
        match self.chance.below(4) {
            0 => self.client.reset(),
            1 if !self.upstream.socket.wire().closed => self.upstream.reset(),
            1 => {}
            2 => self.stop(),
            _ => {
                self.stop();
                self.end_grace();
            }
        }
    }

    fn stop(&mut self) {
        if !std::mem::replace(&mut self.around.is_stopping, true) {
            self.sent_before_stop = (self.client.sent, self.upstream.sent);
            self.step(Connection::stop);
        }
    }

    fn end_grace(&mut self) {
        self.grace_is_over = true;
        self.step(|connection, around, _| connection.call_off(CalledOff::Shutdown, around));
    }

    /// Whether nothing can happen any more.
    fn is_at_rest(&self) -> bool {
        self.around.opening.is_none()
            && self.around.settling.is_none()
            && self.leaving.is_none()
            && self.words.is_empty()
            && !self.again
            && (self.connection.is_none() || self.client.socket.wire().is_calm())
            && (!self.around.is_watched || self.upstream.socket.wire().is_calm())
    }

    // ---- the rules -----------------------------------------------------------------------------------------------

    /// What is true at any moment.
    fn check(&mut self) {
        let (client, upstream) = (self.client.socket.wire(), self.upstream.socket.wire());
        let reading = self.reader.lock();
        // What either side sent, and nothing else.
        let fresh = &client.outbound[self.checked.0..];
        let same = fresh.iter().zip(&self.for_client[self.checked.0..]).take_while(|(a, b)| a == b).count();
        let close = &client.outbound[self.checked.0 + same..];
        assert!(close_frame(1001).starts_with(close), "the client got what nobody sent");
        assert!(close.is_empty() || self.around.is_stopping, "closed, and nobody stops");
        self.close_bytes = close.len();
        let upstream_fresh = &upstream.outbound[self.checked.1..];
        assert!(reading.from_client[self.checked.1..].starts_with(upstream_fresh), "upstream got what nobody sent");
        self.checked = (self.checked.0 + same, upstream.outbound.len());
        // Rows come first.
        let got = self.checked.0.saturating_sub(SWITCHING.len());
        assert!(reading.held_from.is_none_or(|at| got <= at), "it left before its row");
        // One read of each side is held.
        let from_client = client.read.saturating_sub(HANDSHAKE.len() + upstream.outbound.len());
        assert!(
            upstream.closed || upstream.reset || from_client <= self.scratch.len() + RECORD_BYTES,
            "too much is held for upstream"
        );
        assert!(upstream.read - got <= 1000, "too much is held for the client");
        assert!(upstream.read == 0 || self.checked.0 >= SWITCHING.len(), "read before its head was sent");
        // An end is behind the last byte.
        let is_cut = self.client.reset || self.upstream.reset || self.around.is_stopping;
        if client.ended && !is_cut {
            assert!(upstream.fin && self.upstream.will.is_empty(), "ended, though upstream has not");
            assert_eq!(got, self.upstream.sent, "ended before the last byte");
        }
        if upstream.ended && !is_cut {
            assert!(client.fin && self.client.will.is_empty(), "ended, though the client has not");
            assert_eq!(HANDSHAKE.len() + upstream.outbound.len(), self.client.sent, "ended before the last byte");
        }
        let is_whole = !is_cut || !self.grace_is_over && !self.client.reset && !self.upstream.reset;
        let nobody_ended = !client.fin && !upstream.fin;
        assert!(reading.cut == 0 || !is_whole || !nobody_ended, "a generation was cut, and nobody had a reason");
        // Closed while it idled, nothing is lost.
        if upstream.closed && !std::mem::replace(&mut self.was_closed, true) && is_whole && nobody_ended {
            let to_upstream = HANDSHAKE.len() + upstream.outbound.len();
            assert_eq!(to_upstream, client.read, "closed before all was sent to upstream");
            assert!(to_upstream >= self.sent_before_stop.0, "what the client had sent before was lost");
            assert!(reading.upstream_seen >= self.sent_before_stop.1, "what upstream had sent before was lost");
        }
    }

    /// What is true when all has been done. How many generations there were.
    fn check_at_rest(mut self) -> usize {
        if self.around.is_stopping && !self.grace_is_over {
            let is_busy = self.reader.running() > 0 || !self.reader.is_at_boundary();
            let stays = matches!(self.connection, Some(Connection { state: State::Tunnelled(..), .. }));
            assert!(is_busy || !stays, "idle, and left open");
            self.end_grace();
            self.come_to_rest();
        }
        let (client, upstream) = (self.client.socket.wire(), self.upstream.socket.wire());
        let reading = self.reader.lock();
        let got = self.checked.0.saturating_sub(SWITCHING.len());
        let state = self.connection.as_ref().map(|connection| &connection.state);
        let is_open = matches!(state, Some(State::Tunnelled(..)));
        let was_opened = self.unopened.is_none();
        let both_ended = client.fin && upstream.fin;
        match (self.around.is_stopping, self.client.reset, self.upstream.reset) {
            (true, _, _) => {
                assert!(!is_open && (upstream.closed || !was_opened), "open behind the stop");
                let is_told = was_opened && reading.is_at_boundary() && !client.reset && !upstream.reset;
                let nobody_ended = !client.fin && !upstream.fin;
                assert!(!is_told || !nobody_ended || self.close_bytes == 4, "not told why it is closed");
            }
            (_, true, _) | (_, _, true) if both_ended => {}
            (_, true, _) => {
                assert!(self.connection.is_none(), "the client's reset was not seen");
                assert!(!was_opened || upstream.closed, "upstream was not told of the reset");
                assert!(!was_opened || upstream.resets || self.upstream.reset, "the reset looked like an end");
            }
            (_, _, true) => {
                assert!(!was_opened || upstream.closed, "upstream's reset was not seen");
                assert!(!was_opened || self.connection.is_none(), "the client was not told of the reset");
                assert!(!was_opened || client.resets, "the reset looked like an end");
                assert!(!was_opened || got == self.upstream.sent, "what came before the reset was dropped");
            }
            (false, false, false) => {
                assert!(was_opened, "never opened");
                assert_eq!(got, self.upstream.sent, "bytes of upstream are stuck");
                assert_eq!(
                    HANDSHAKE.len() + upstream.outbound.len(),
                    self.client.sent,
                    "bytes of the client are stuck"
                );
                assert_eq!(client.ended, upstream.fin, "upstream's end is stuck");
                assert_eq!(upstream.ended, client.fin, "the client's end is stuck");
                assert_eq!(
                    (self.connection.is_none(), upstream.closed, is_open),
                    (both_ended, both_ended, !both_ended)
                );
                assert!(!client.resets && !upstream.resets, "reset, and nobody had a reason");
            }
        }
        assert_eq!(self.around.is_watched, is_open, "polled for nothing");
        let running = if is_open { reading.running } else { 0 };
        assert_eq!(self.rows.len() + running, reading.begun, "a row for each generation");
        let completed = self.rows.iter().filter(|row| row.outcome == Outcome::Completed).count();
        assert_eq!(self.rows.len() - completed, reading.cut, "those that were cut say so");
        reading.begun
    }

    fn come_to_rest(&mut self) {
        let mut steps = 0;
        while !self.is_at_rest() {
            self.happen(true);
            self.check();
            steps += 1;
            assert!(steps < STEPS_MAX, "it never comes to rest");
        }
    }

    fn run(mut self) -> usize {
        while !self.client.will.is_empty() || !self.upstream.will.is_empty() {
            self.happen(false);
            self.check();
        }
        for _ in 0..self.chance.below(60) {
            self.happen(false);
            self.check();
        }
        self.come_to_rest();
        self.check_at_rest()
    }
}

#[test]
fn what_either_side_sends_reaches_the_other_in_order_and_behind_its_row() {
    let poll = Poll::new().expect("a poll");
    let (returns, _) = returns(&poll).expect("a waker");
    let generations = run_all(0..10_000, |seed| {
        // What the one before left behind is not its.
        returns.mailbox.take();
        Schedule::new(seed, &returns).run()
    });
    assert!(generations > 0, "nothing was generated");
}

/// A WebSocket whose client asks for a generation and ends its side, at rest.
fn left_running(returns: &Arc<Returns>) -> Schedule {
    let mut schedule = Schedule::new(0, returns);
    let (from_client, from_upstream) = (b"ask".to_vec(), b"answer".to_vec());
    schedule.for_client = [SWITCHING, &from_upstream].concat();
    schedule.client.will = vec![Deed::End, Deed::Send([HANDSHAKE, &from_client].concat())];
    schedule.upstream.will = vec![Deed::Send(from_upstream.clone())];
    let (begins, ends) = (vec![2], vec![5]);
    *schedule.reader.lock() =
        Reading { from_client, from_upstream, begins, ends, frame_bytes: 1, ..Reading::default() };
    while !schedule.client.will.is_empty() {
        schedule.client.act();
        schedule.come_to_rest();
    }
    schedule
}

#[test]
fn what_a_client_left_running_goes_on_for_as_long_as_counts_may_take() {
    let poll = Poll::new().expect("a poll");
    let (returns, _) = returns(&poll).expect("a waker");
    let time_max_ms = COUNTS_TIME_MAX.as_millis() as u64;
    let look = |schedule: &mut Schedule, now_ms: u64| {
        schedule.around.now_ms = now_ms;
        schedule.step(Connection::look);
        schedule.come_to_rest();
        matches!(schedule.connection, Some(Connection { state: State::Tunnelled(..), .. }))
    };
    let mut schedule = left_running(&returns);
    assert!(look(&mut schedule, time_max_ms - 1));
    // It is cut as if it had broken it off.
    schedule.client.reset = true;
    assert!(!look(&mut schedule, time_max_ms));
    assert_eq!(schedule.rows[0].outcome, Outcome::ClientClosed);

    // Once it has ended, upstream may take its time to close, but not for ever.
    let time_max_ms = HALF_CLOSED_TIME_MAX.as_millis() as u64;
    let mut schedule = left_running(&returns);
    schedule.upstream.act();
    schedule.come_to_rest();
    assert_eq!(schedule.rows[0].outcome, Outcome::Completed);
    assert!(look(&mut schedule, time_max_ms - 1));
    schedule.client.reset = true;
    assert!(!look(&mut schedule, time_max_ms));
}
