//! One connection, from accepting it to its end, as a machine that knows neither poll nor operating system: events,
//! returns and deadlines in, what is to be done with it out ([`Next`]). What it asks of others it asks of its
//! [`Surroundings`].
//!
//! ```text
//!  Parked (idle, head, body) ──whole request──▶ Lent ──given back──▶ Parked
//!     │                                          ├──its reply only flows──▶ Flowing ──anything that takes time──▶ Lent
//!     │                                          ├──a WebSocket──▶ Tunnelled ──rows to commit, or its end──▶ Lent
//!     │                                          ├──its last reply──▶ Lingering ──▶ closed
//!     │                                          ├──a reply cut short──▶ closed, or Draining ──▶ reset
//!     │                                          ▼ last bytes not taken at once
//!     ├── own reply, not taken at once ──▶ Writing ──▶ Parked, Lingering or closed
//!     ├── for another loop ──▶ left, with its request ──▶ arrived there: Lent
//!     └── refused ──▶ Lingering
//! ```
//!
//! Invariant: a parked or lingering connection that its machine has let go of has nothing left to read or to use up,
//! but for one whose turn was cut short ([`Next::Again`]). So the next event is all that it needs to be waited for. The
//! same holds of upstream's socket while a stream flows.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mio::event::Event;
use mio::net::TcpStream;

use super::intake::{AwaitedPart, Intake, Verdict, WholeRequest};
use super::judge::Plan;
use crate::client::{AfterReply, CalledOff, Claim, Client, Fate, Loan, Returns, Socket};
use crate::counters::Counters;
use crate::exchange::relay::Step;
use crate::exchange::relayed::Exchange;
use crate::exchange::tunnel::{Tunnel, TunnelEnd};
use crate::http::RequestHead;
use crate::http::refusal::Refusal;
use crate::limits::{CONNECTIONS_MAX, LINGER_BYTES_MAX};

/// So many times its scratch space is read from one connection before the others have their turn: 1 MB.
const TURN_READS_MAX: usize = 16;

/// A connection and whose turn it is.
pub struct Connection<S: Socket = TcpStream, F = Box<Exchange>> {
    pub(super) client: Arc<Client<S>>,
    pub(super) intake: Intake<Plan>,
    pub(super) baggage: Baggage,
    pub(super) state: State<S, F>,
}

/// What goes with a connection from one loop to another.
pub struct Baggage {
    /// What the body that is being gathered takes.
    pub(super) claim: Claim,
    pub(super) unread: Unread,
    pub(super) inbound: Inbound,
    _counted: Counted,
}

/// That a connection counts among those held at once, in whichever loop it is.
pub struct Counted {
    figures: Arc<Counters>,
    /// The loop that accepts.
    accepting: Arc<Returns>,
}

impl Counted {
    pub(super) fn new(figures: &Arc<Counters>, accepting: &Arc<Returns>) -> Counted {
        figures.connections.fetch_add(1, Ordering::Relaxed);
        Counted { figures: figures.clone(), accepting: accepting.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Accepting waits for a free place.
        if self.figures.connections.fetch_sub(1, Ordering::Relaxed) == CONNECTIONS_MAX {
            self.accepting.mailbox.wake();
        }
    }
}

/// What a connection is about. `F`: a reply that is being relayed.
pub enum State<S: Socket = TcpStream, F = Box<Exchange>> {
    /// Nothing is owed to its client: the next request is read.
    Parked { since_ms: u64 },
    /// A borrower answers.
    Lent(Departure),
    /// Its reply does nothing but flow: this loop relays what upstream sends. A borrower has the rest in hand.
    Flowing(F, Departure),
    /// Upstream has agreed to a WebSocket: this loop relays what either side sends.
    Tunnelled(Box<Tunnel<S>>, Departure),
    /// The last bytes of a reply wait for the socket.
    Writing { bytes: Vec<u8>, written: usize, then: AfterReply, since_ms: u64 },
    /// Its reply broke off, and nothing but a reset tells so: what it has of it goes to the client first.
    Draining { since_ms: u64 },
    /// The last reply is sent; what the client still sends is dropped, so that no reset eats the reply.
    Lingering { since_ms: u64, drained: usize },
}

/// What it means when the client of a request sends no more.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// It is not answered any more.
    pub(super) ends: bool,
    /// It left at this time with its whole answer; upstream is cut off a little later.
    pub(super) left_ms: Option<u64>,
}

/// What a step of a connection asks the loop to do with it.
#[must_use]
pub enum Next {
    /// It waits for an event, a return, or its deadline.
    Keep,
    /// There is more to read, but others come first: [`Connection::resume`] it soon.
    Again,
    /// Another loop goes on with it, and with this request.
    Move(Box<WholeRequest<Plan>>),
    /// It is over.
    Drop,
}

impl Next {
    /// What comes next where nothing came of this.
    pub(super) fn or_else(self, next: impl FnOnce() -> Next) -> Next {
        if let Next::Keep = self { next() } else { self }
    }
}

/// The client is gone: there is nobody to write to.
pub(super) struct Dropped;

/// Whom a connection asks: the loop that it is in.
pub trait Surroundings<S: Socket = TcpStream, F = Box<Exchange>> {
    /// Milliseconds on the loop's clock.
    fn now_ms(&self) -> u64;
    /// What becomes of a request with this head.
    fn judge(&self, head: &RequestHead) -> Result<Verdict<Plan>, Refusal>;
    /// Whether the memory for bodies is full.
    fn are_bodies_too_many(&self) -> bool;
    /// Whether the proxy stops: no connection goes on behind its next reply.
    fn is_stopping(&self) -> bool;
    /// Whether this request's connection shall go on in another loop.
    fn moves(&mut self, request: &WholeRequest<Plan>) -> bool;
    /// Has the request answered by somebody else.
    fn lend(&mut self, loan: Loan<S>, request: WholeRequest<Plan>, claim: Claim);
    /// From now on events of the stream's upstream are told; false where they cannot be.
    fn watch(&mut self, stream: &F) -> bool;
    /// Has somebody else relay a stream that cannot be watched.
    fn refuse(&mut self, stream: F);
    /// Relays what has come of a stream, whether an event has told of it or not. `hung_up`: upstream has ended its side.
    fn look(&mut self, stream: &mut F, hung_up: bool) -> Step;
    /// Has somebody else do what this step takes. The stream's events are told no more.
    fn hand_over(&mut self, stream: F, step: Step);
    /// From now on events of the WebSocket's upstream are told; false where they cannot be.
    fn watch_tunnel(&mut self, tunnel: &Tunnel<S>) -> bool;
    /// They are told no more.
    fn forget_tunnel(&mut self, tunnel: &Tunnel<S>);
    /// Has somebody else commit the WebSocket's rows, and leave it here again.
    fn settle(&mut self, tunnel: Box<Tunnel<S>>);
    /// Where refusals are counted.
    fn figures(&self) -> &Counters;
    /// From now on the socket is writable when it has nothing left to send; an event tells so, also at once.
    fn tell_when_sent(&self, client: &Client<S>) -> io::Result<()>;
}

/// What an event says of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Bytes, an end or an error can be read.
    pub readable: bool,
    /// Bytes can be written.
    pub writable: bool,
    /// The client sends no more: it left, or closed that side. What it sent before may still be unread.
    pub ended: bool,
    /// It does not read any more, either; or both sides have ended in good order.
    pub gone: bool,
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Ready {
        let gone = event.is_error() || event.is_write_closed();
        let ended = event.is_read_closed() || gone;
        Ready { readable: event.is_readable() || ended, writable: event.is_writable(), ended, gone }
    }
}

/// What is known of the bytes that a socket may hold. Events are told once (edge-triggered), so what they tell is a
/// fact until a read has disproved it, whatever the connection does meanwhile. Nothing else sets or clears it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inbound {
    /// Nobody has read to the end of what was told.
    pub(super) may_have_more: bool,
    /// The end was told, of which no further event will tell: it is found behind the last byte.
    has_ended: bool,
    /// So was [`Ready::gone`].
    pub(super) is_gone: bool,
}

impl Inbound {
    fn note(&mut self, ready: Ready) {
        self.may_have_more |= ready.readable;
        self.has_ended |= ready.ended;
        self.is_gone |= ready.gone;
    }

    /// There may be something of which no event has told, or will: it is looked for.
    fn suspect(&mut self) {
        self.may_have_more = true;
    }

    /// Reads from the socket; the only place that does.
    pub(super) fn read(&mut self, socket: &impl Socket, into: &mut [u8]) -> io::Result<usize> {
        let read = socket.read(into);
        let is_drained = match &read {
            // Where it got less than it wanted, a read has emptied the socket and the next byte is an event (epoll(7),
            // question 9; kqueue(2), EV_CLEAR), but an end that was told already is not. Other systems tell of more
            // only after a read that would block.
            Ok(n) => cfg!(unix) && *n < into.len() && !self.has_ended,
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        };
        self.may_have_more &= !is_drained;
        read
    }
}

/// Bytes read and not used up: the start of a head, or pipelined requests.
#[derive(Debug, Default)]
pub struct Unread {
    bytes: Vec<u8>,
    used: usize,
}

impl Unread {
    pub(super) fn is_empty(&self) -> bool {
        self.used == self.bytes.len()
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.used));
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn use_up(&mut self, count: usize) {
        self.used += count;
        if self.is_empty() {
            *self = Unread::default();
        }
    }
}

impl Baggage {
    /// Of a connection that was just accepted. Registering it tells of what has come already, as an event.
    pub fn new(claim: Claim, counted: Counted) -> Baggage {
        Baggage { claim, unread: Unread::default(), inbound: Inbound::default(), _counted: counted }
    }
}

impl<S: Socket, F> Connection<S, F> {
    /// A parked connection. Nobody else has a hand on `client`.
    pub fn new(client: Client<S>, baggage: Baggage, now_ms: u64) -> Connection<S, F> {
        let state = State::Parked { since_ms: now_ms };
        Connection { client: Arc::new(client), intake: Intake::default(), baggage, state }
    }

    /// Leaves its loop, parked and with the whole request of [`Next::Move`].
    pub fn leave(self) -> Option<(S, SocketAddr, Baggage)> {
        // Nobody has a hand on it: that was seen before, and lending alone gives one.
        let (socket, peer) = Arc::into_inner(self.client)?.into_stream();
        Some((socket, peer, self.baggage))
    }

    /// Goes on in this loop with the request that it moved with.
    pub fn arrive(
        &mut self,
        request: WholeRequest<Plan>,
        around: &mut impl Surroundings<S, F>,
        scratch: &mut [u8],
    ) -> Next {
        // Events of the time between the loops were told to nobody.
        self.baggage.inbound.suspect();
        self.lend(request, around);
        self.go_on(around, scratch)
    }

    /// Something happened on the socket.
    pub fn on_event(&mut self, ready: Ready, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        self.baggage.inbound.note(ready);
        match &mut self.state {
            State::Parked { .. } | State::Lingering { .. } => self.read(around, scratch),
            State::Writing { .. } if ready.writable || ready.gone => self.write(around, scratch),
            State::Draining { .. } if ready.writable || ready.gone => Next::Drop,
            State::Writing { .. } | State::Draining { .. } => Next::Keep,
            State::Tunnelled(..) => self.relay_tunnel(around, scratch),
            State::Lent(departure) | State::Flowing(_, departure) => {
                if ready.readable && self.client.call_back() {
                    return self.take_up(around, scratch);
                }
                if ready.writable {
                    self.client.note_writable();
                }
                // A closed reading side alone may be a half-closed client that waits for its reply; when it asked for a
                // generation it is taken for one that left, as nginx does (499): the model must not go on for nobody.
                if ready.gone || (ready.ended && departure.ends) {
                    let is_over = self.client.call_off(self.client.how_left());
                    if !is_over && departure.left_ms.is_none() {
                        departure.left_ms = Some(around.now_ms());
                    }
                    if is_over {
                        return self.look_upstream(true, around);
                    }
                }
                Next::Keep
            }
        }
    }

    /// Its borrower has returned it, or somebody has called off what goes on on it.
    pub fn take_back(&mut self, fate: Fate, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        match fate {
            Fate::Parked => self.take_up(around, scratch),
            Fate::Write(bytes, then) => {
                self.state = State::Writing { bytes, written: 0, then, since_ms: around.now_ms() };
                self.write(around, scratch)
            }
            Fate::CalledOff(exchange) => self.call_off_from_here(exchange, around),
        }
    }

    /// Goes on with a connection that was given back as if nothing had happened, if it was. The word that says so may
    /// be late: an event, a deadline or a stop has taken it up before, and it may be lent again.
    pub fn take_up(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        if !matches!(self.state, State::Lent(_)) || !self.client.is_given_back() {
            return Next::Keep;
        }
        self.state = State::Parked { since_ms: self.client.given_back_ms() };
        self.go_on(around, scratch)
    }

    /// After a reply: bytes that came before are used first, then the socket is read, if there may be more.
    pub(super) fn go_on(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        self.use_up(around).or_else(|| self.read(around, scratch))
    }

    /// Reads for as long as there may be more and the connection is the loop's.
    pub fn read(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        let mut taken = 0;
        while self.baggage.inbound.may_have_more {
            match self.state {
                State::Parked { .. } => {}
                State::Lingering { drained, .. } if drained > LINGER_BYTES_MAX => return Next::Drop,
                State::Lingering { .. } => {}
                State::Lent(_)
                | State::Flowing(..)
                | State::Tunnelled(..)
                | State::Writing { .. }
                | State::Draining { .. } => return Next::Keep,
            }
            if taken > TURN_READS_MAX * scratch.len() {
                return Next::Again;
            }
            let n = match self.baggage.inbound.read(self.client.stream(), scratch) {
                Ok(0) => return Next::Drop,
                Ok(n) => n,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => continue,
                Err(_) => return Next::Drop,
            };
            taken += n;
            if let State::Lingering { drained, .. } = &mut self.state {
                *drained += n;
                continue;
            }
            match self.take_in(&scratch[..n], around) {
                Next::Keep => {}
                next @ (Next::Again | Next::Move(_) | Next::Drop) => return next,
            }
        }
        Next::Keep
    }

    /// Whether there is, or may be, something to go on with behind the request at hand.
    fn has_more(&self) -> bool {
        !self.baggage.unread.is_empty() || self.baggage.inbound.may_have_more
    }

    /// Lends the connection to whoever answers the request.
    pub(super) fn lend(&mut self, request: WholeRequest<Plan>, around: &mut impl Surroundings<S, F>) {
        let keep_alive = request.head.meaning.keep_alive && !around.is_stopping();
        let ends = request.plan.ends_with_client(&request.head);
        self.client.lend();
        if self.has_more() {
            self.client.call_back();
        }
        if self.baggage.inbound.has_ended && ends {
            self.client.call_off(CalledOff::ClientLeft);
        }
        self.state = State::Lent(Departure { ends, left_ms: None });
        let claim = self.baggage.claim.take();
        around.lend(Loan::new(self.client.clone(), keep_alive), request, claim);
    }

    // ---- a reply that flows ------------------------------------------------------------------------------------

    /// Its borrower has relayed what there was of a stream, and leaves the rest of it here.
    pub fn take_stream(&mut self, stream: F, around: &mut impl Surroundings<S, F>) -> Next {
        if let State::Lent(departure) = self.state
            && around.watch(&stream)
        {
            self.state = State::Flowing(stream, departure);
            // Events of the time before were told to nobody.
            return self.look_upstream(false, around);
        }
        around.refuse(stream);
        Next::Keep
    }

    /// Something happened on the socket of a stream's upstream, or it is its turn. `hung_up`: upstream has ended its side.
    pub fn look_upstream(&mut self, hung_up: bool, around: &mut impl Surroundings<S, F>) -> Next {
        // The event may be late.
        let State::Flowing(stream, departure) = &mut self.state else { return Next::Keep };
        let departure = *departure;
        match around.look(stream, hung_up) {
            Step::Dry => return Next::Keep,
            Step::More => return Next::Again,
            step @ (Step::Full | Step::Terminal | Step::Ended(_) | Step::Bug) => {
                if let State::Flowing(stream, _) = std::mem::replace(&mut self.state, State::Lent(departure)) {
                    around.hand_over(stream, step);
                }
            }
        }
        Next::Keep
    }

    /// Goes on where its turn was cut short.
    pub fn resume(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        match self.state {
            State::Flowing(..) => self.look_upstream(false, around),
            State::Tunnelled(..) => self.relay_tunnel(around, scratch),
            State::Parked { .. }
            | State::Lent(_)
            | State::Writing { .. }
            | State::Draining { .. }
            | State::Lingering { .. } => self.read(around, scratch),
        }
    }

    /// The loop ends by a bug: its stream, for who goes on with it.
    pub fn give_up_stream(&mut self) -> Option<F> {
        let State::Flowing(_, departure) = self.state else { return None };
        match std::mem::replace(&mut self.state, State::Lent(departure)) {
            State::Flowing(stream, _) => Some(stream),
            _ => None,
        }
    }

    /// Calls its exchange off, if there is one.
    pub fn call_off(&mut self, why: CalledOff, around: &mut impl Surroundings<S, F>) -> Next {
        match self.state {
            State::Lent(_) | State::Flowing(..) => {
                self.client.call_off(why);
                self.look_upstream(true, around)
            }
            State::Tunnelled(..) => self.break_off_tunnel(TunnelEnd::from(why), around),
            State::Parked { .. } | State::Writing { .. } | State::Draining { .. } | State::Lingering { .. } => {
                Next::Keep
            }
        }
    }

    /// The same from `/stats/now`. The word may be late: the exchange may have ended already, as called off. A WebSocket ends
    /// with all that goes on in it, for nothing in it could be cut alone.
    fn call_off_from_here(&mut self, exchange: u64, around: &mut impl Surroundings<S, F>) -> Next {
        match self.client.carried() == exchange {
            true => self.call_off(CalledOff::Here, around),
            false => Next::Keep,
        }
    }

    // ---- stopping ----------------------------------------------------------------------------------------------

    /// The proxy stops. What has arrived is still answered, whether its event has come or not; whoever gives back from
    /// now on says so.
    pub fn stop(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        self.baggage.inbound.suspect();
        match self.state {
            State::Parked { .. } | State::Lingering { .. } => self.read(around, scratch),
            State::Lent(_) | State::Flowing(..) if self.client.call_back() => self.take_up(around, scratch),
            State::Lent(_) | State::Flowing(..) | State::Writing { .. } | State::Draining { .. } => Next::Keep,
            State::Tunnelled(..) => self.on_upstream(false, around, scratch),
        }
    }

    /// While the proxy stops: whoever idles is closed.
    pub fn wind_up(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        if let State::Tunnelled(..) = self.state {
            return self.wind_up_tunnel(around, scratch);
        }
        let next = self.take_up(around, scratch);
        let is_idle = match self.state {
            State::Parked { .. } => self.intake.waiting() == AwaitedPart::Idle && !self.has_more(),
            // Its reply was sent whole, and it has nothing more to say that a close would answer with a reset.
            State::Lingering { drained, .. } => drained == 0,
            State::Lent(_)
            | State::Flowing(..)
            | State::Tunnelled(..)
            | State::Writing { .. }
            | State::Draining { .. } => false,
        };
        if matches!(next, Next::Keep) && is_idle { Next::Drop } else { next }
    }
}
