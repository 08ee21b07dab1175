//! One client connection, as the loop that it belongs to and its borrower see it: the socket, whose turn it is, and how
//! its exchange is called off.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::SockRef;

use super::returns::{AfterReply, Fate, Return, Returns};
use crate::bell::Bell;
use crate::keepalive;
use crate::limits::WRITE_STALL_MAX;

/// A borrower holds the connection.
const LENT: u8 = 1;
/// The loop has something to go on with, so giving the connection back wakes it. What that is, the loop's own state of
/// the connection knows; this flag is set from it.
const CALLED_BACK: u8 = 2;

/// A non-blocking socket, as far as a connection and its borrower need one.
pub trait Socket {
    /// Reads what is there.
    fn read(&self, into: &mut [u8]) -> io::Result<usize>;
    /// Writes what it takes.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Ends one side, or both.
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;
    /// Why it broke, once.
    fn take_error(&self) -> io::Result<Option<io::Error>>;
    /// Whether closing it is a reset.
    fn set_resets(&self, resets: bool) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut stream = self;
        Read::read(&mut stream, into)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self;
        Write::write(&mut stream, bytes)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        TcpStream::shutdown(self, how)
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        TcpStream::take_error(self)
    }

    fn set_resets(&self, resets: bool) -> io::Result<()> {
        SockRef::from(self).set_linger(resets.then_some(Duration::ZERO))
    }
}

/// Why an exchange is called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledOff {
    /// The client closed its side, or reset the connection.
    ClientLeft,
    /// The client acknowledges nothing any more.
    ClientVanished,
    /// The proxy is stopping and the grace is over.
    Shutdown,
    /// Somebody has called it off by `DELETE /stats/now/ID`.
    Here,
}

/// Something that calling off an exchange interrupts: the upstream socket.
pub trait Interrupt: Send + Sync {
    /// Ends I/O blocked in another thread at once.
    fn interrupt(&self);
}

#[derive(Default)]
struct Cancel {
    called_off: Option<CalledOff>,
    upstream: Option<Arc<dyn Interrupt>>,
    /// The client has its whole answer: nothing is generated that leaving would stop.
    answered: bool,
}

impl Cancel {
    /// Under the lock: once the borrower has withdrawn its upstream socket, that may already serve the next exchange.
    fn interrupt(&mut self) {
        if let Some(upstream) = self.upstream.take() {
            upstream.interrupt();
        }
    }
}

/// One client connection, as both its owners see it.
pub struct Client<S: Socket = TcpStream> {
    stream: S,
    peer: SocketAddr,
    token: usize,
    returns: Arc<Returns>,
    turn: AtomicU8,
    /// The number of the exchange that goes on on it; 0 where none does that could be called off.
    exchange: AtomicU64,
    /// Milliseconds on its loop's clock when it was last given back: the start of idling.
    given_back_ms: AtomicU64,
    /// Set while the borrower waits for the socket to become writable.
    stalled: AtomicBool,
    /// Closing the socket resets it.
    resets: AtomicBool,
    /// Rings for a borrower that waits until the socket takes bytes.
    cancel: Bell<Cancel>,
}

impl<S: Socket> Client<S> {
    /// Wraps an accepted socket.
    pub fn new(stream: S, peer: SocketAddr, token: usize, returns: Arc<Returns>) -> Client<S> {
        Client {
            stream,
            peer,
            token,
            returns,
            turn: AtomicU8::new(0),
            exchange: AtomicU64::new(0),
            given_back_ms: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            resets: AtomicBool::new(false),
            cancel: Bell::default(),
        }
    }

    /// The socket, for its loop's reads and registration.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The socket alone, and the client's address.
    pub fn into_stream(self) -> (S, SocketAddr) {
        (self.stream, self.peer)
    }

    /// The token that its events come with.
    pub fn token(&self) -> usize {
        self.token
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The loop that it belongs to, as far as others reach it.
    pub fn returns(&self) -> &Arc<Returns> {
        &self.returns
    }

    /// From now on the exchange of this number goes on on it.
    pub fn carry(&self, exchange: u64) {
        self.exchange.store(exchange, Ordering::Relaxed);
    }

    /// The number of that.
    pub fn carried(&self) -> u64 {
        self.exchange.load(Ordering::Relaxed)
    }

    // ---- the loop's side ---------------------------------------------------------------------------------------

    /// Hands the writing side to a borrower.
    pub fn lend(&self) {
        *self.cancel() = Cancel::default();
        self.carry(0);
        self.turn.store(LENT, Ordering::Release);
    }

    /// There is something to go on with as soon as the borrower gives it back. True when it has done so already.
    pub fn call_back(&self) -> bool {
        self.turn.fetch_or(CALLED_BACK, Ordering::AcqRel) & LENT == 0
    }

    /// Whether the borrower has given it back without a word. What it returns stays lent until the return is taken.
    pub fn is_given_back(&self) -> bool {
        self.turn.load(Ordering::Acquire) & LENT == 0
    }

    /// When it was given back, on its loop's clock.
    pub fn given_back_ms(&self) -> u64 {
        self.given_back_ms.load(Ordering::Acquire)
    }

    /// The socket takes bytes again: a borrower that waits for it goes on.
    pub fn note_writable(&self) {
        if self.stalled.load(Ordering::SeqCst) {
            self.cancel.ring(|_| ());
        }
    }

    /// How a client went whose connection has ended.
    pub fn how_left(&self) -> CalledOff {
        match self.stream.take_error() {
            Ok(Some(e)) if keepalive::tells_of_vanishing(&e) => CalledOff::ClientVanished,
            Ok(_) | Err(_) => CalledOff::ClientLeft,
        }
    }

    /// Whether its connection has broken, as far as nobody was told so yet.
    pub fn is_broken(&self) -> bool {
        self.stream.take_error().is_ok_and(|error| error.is_some())
    }

    /// Whether its reply would look whole if it were closed in good order now, so that closing it will reset it.
    pub fn resets(&self) -> bool {
        self.resets.load(Ordering::Acquire)
    }

    /// The reply was sent whole: closing the socket is no reset any more.
    pub fn end_well(&self) {
        if self.resets.swap(false, Ordering::AcqRel) {
            let _ = self.stream.set_resets(false);
        }
    }

    /// Calls the exchange off: the upstream connection is cut and a stalled write ends. The first reason stays. Where a
    /// client left with its whole answer, upstream may still tell what that took: false then, and the loop cuts it off
    /// ([`Client::cut_off`]) in its time.
    pub fn call_off(&self, why: CalledOff) -> bool {
        self.cancel.ring(|cancel| {
            cancel.called_off.get_or_insert(why);
            let spares = match why {
                CalledOff::ClientLeft | CalledOff::ClientVanished => cancel.answered,
                CalledOff::Shutdown | CalledOff::Here => false,
            };
            if !spares {
                cancel.interrupt();
            }
            !spares
        })
    }

    /// Cuts the upstream connection of an exchange that was called off.
    pub fn cut_off(&self) {
        self.cancel().interrupt();
    }

    // ---- the borrower's side -----------------------------------------------------------------------------------

    /// Whether the exchange was called off, and why.
    pub fn called_off(&self) -> Option<CalledOff> {
        self.cancel().called_off
    }

    /// With what is sent next the client has its whole answer. From now on its leaving does not interrupt upstream.
    pub fn has_answer(&self) {
        self.cancel().answered = true;
    }

    /// From now on calling off interrupts `upstream`. An error when it was called off already.
    pub fn interrupts(&self, upstream: Arc<dyn Interrupt>) -> Result<(), CalledOff> {
        let mut cancel = self.cancel();
        cancel.upstream = Some(upstream);
        match cancel.called_off {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }

    /// From now on calling off interrupts nothing any more. False when it has interrupted upstream already: that
    /// connection serves nobody else.
    pub fn withdraw(&self) -> bool {
        self.cancel().upstream.take().is_some()
    }

    /// Writes what the socket takes at once; the number of bytes taken.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        write_now(bytes, |bytes| self.stream.write(bytes))
    }

    /// Writes all of `bytes`, waiting where the client reads slowly: at most [`WRITE_STALL_MAX`] without progress, and
    /// no longer than until the exchange is called off.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        let mut written = self.write_now(bytes)?;
        while written < bytes.len() {
            written += self.write_when_writable(&bytes[written..])?;
        }
        Ok(())
    }

    fn write_when_writable(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.cancel.wait_for(WRITE_STALL_MAX, |cancel| {
            if cancel.called_off.is_some() {
                return Some(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            // Tried again after announcing the wait: an edge that came before the announcement is not lost.
            self.stalled.store(true, Ordering::SeqCst);
            match self.write_now(bytes) {
                Ok(0) => None,
                other => Some(other),
            }
        });
        self.stalled.store(false, Ordering::SeqCst);
        written.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    pub(super) fn give_back(&self) {
        self.given_back_ms.store(self.returns.now_ms(), Ordering::Release);
        if self.turn.fetch_and(!LENT, Ordering::AcqRel) & CALLED_BACK != 0 {
            self.returns.push(Return { token: self.token, fate: Fate::Parked });
        }
    }

    // The connection stays lent until its loop takes the return: else an event that comes first would have the loop go
    // on without what it still has to do, and a reply would be lost.

    pub(super) fn give_back_with(&self, bytes: Vec<u8>, then: AfterReply) {
        self.returns.push(Return { token: self.token, fate: Fate::Write(bytes, then) });
    }

    /// From now on whatever closes the socket resets it, be that a bug, or the end of the process by a signal that nobody
    /// can catch.
    pub(super) fn reset_until_whole(&self) {
        // Where that fails, a cut is as invisible as it was without.
        let _ = self.stream.set_resets(true);
        self.resets.store(true, Ordering::Release);
    }

    pub(super) fn close(&self) {
        self.end_well();
        let _ = self.stream.shutdown(Shutdown::Write);
        self.give_back_with(Vec::new(), AfterReply::Linger);
    }

    pub(super) fn cut(&self) {
        // A reset throws away what the client has not got yet: its loop sees to that first.
        if !self.resets() {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        self.give_back_with(Vec::new(), AfterReply::Cut);
    }

    fn cancel(&self) -> MutexGuard<'_, Cancel> {
        self.cancel.lock()
    }
}

/// Writes what a socket that does not block takes at once; the number of bytes taken.
pub fn write_now(bytes: &[u8], mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match write(&bytes[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(written)
}
