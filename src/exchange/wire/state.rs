//! What a worker, its client's loop and the socket under an agent tell each other: how an exchange is called off,
//! whatever it waits for, and how far its bytes have come. It owns no socket: a connection that its agent gives up is
//! closed at once.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::thread::{self, Thread};
use std::time::Instant;

use crate::bell::lock;
use crate::client::Interrupt;
use crate::exchange::outgoing::{BodyOnItsWay, BodyReader, OutgoingBody};
use crate::exchange::pool::Place;
use crate::in_flight::{ExchangePhase, UnderWay};

/// What a worker and the socket under its agent tell each other.
#[derive(Default)]
pub struct WireState {
    link: Mutex<Link>,
    /// Connections attempted so far: tells a fresh one from a pooled one.
    pub(in crate::exchange) dials: AtomicU64,
    /// Bytes of the current request that the socket took.
    pub(in crate::exchange) sent: AtomicU64,
    /// Bytes read for the current request.
    pub(in crate::exchange) received: AtomicU64,
    /// Bytes of the current request, head and body, nearly.
    pub(in crate::exchange) output_bytes: AtomicUsize,
    /// How large a buffer it wants.
    pub(in crate::exchange) buffer_bytes: AtomicUsize,
    /// Its body.
    body: Mutex<BodyOnItsWay>,
    /// How reads of the socket go, as [`Readiness`].
    readiness: AtomicU8,
    /// The next request was begun already.
    begun: Mutex<Option<Begun>>,
    /// Its last reply came without a length.
    carried_stream: AtomicBool,
    /// `None`: the socket is sent on as output comes. Else its output, which whoever has the tunnel sends.
    unsent: Mutex<Option<Vec<u8>>>,
}

/// A request that a lane has sent on, on this connection, and the beginning of its reply. ureq is asked for
/// the same request then, but what it sends stays here; it gets to read the reply.
#[derive(Debug, Default)]
pub struct Begun {
    /// Bytes of it that the socket took.
    pub sent: u64,
    /// What the socket did not take of the request.
    pub unsent: Vec<u8>,
    /// What has come of the reply.
    pub received: Vec<u8>,
}

/// How reads of a socket go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Readiness {
    /// They wait.
    Blocking,
    /// It is polled, and nothing is left in it until its next event.
    Drained,
    /// It is polled, and there is something.
    Ready,
    /// Upstream has ended its side as well: no further event will tell so.
    HungUp,
}

/// What calling off an exchange needs.
#[derive(Default)]
struct Link {
    /// Owned by the agent alone: a connection that it gives up is closed at once, and upstream sees that.
    socket: Weak<TcpStream>,
    /// Also where there is no socket yet: what is being connected is not used then.
    called_off: bool,
    /// Until when what is read must come, all of it: a handshake is part of connecting.
    deadline: Option<Instant>,
    /// A thread that waits for something else than the socket.
    waiting: Option<Thread>,
    /// What others wait for until a connection is on its way.
    turn: Option<Place>,
    /// What others see of the exchange until its reply begins.
    now: Option<Arc<UnderWay>>,
}

impl WireState {
    fn link(&self) -> MutexGuard<'_, Link> {
        lock(&self.link)
    }

    /// A new socket, which calling off the exchange shuts down; false if it was called off meanwhile.
    pub(super) fn connect(&self, socket: &Arc<TcpStream>) -> bool {
        *self.begun() = None;
        *self.unsent() = None;
        let mut link = self.link();
        if !link.called_off {
            link.socket = Arc::downgrade(socket);
        }
        !link.called_off
    }

    /// Before the exchange can be called off: the one before is over. `begun`: its request was sent on already.
    pub fn begin(&self, begun: Option<Begun>) {
        self.link().called_off = false;
        *self.begun() = begun;
    }

    /// What it carries now. `is_stream`: a reply without a length.
    pub(in crate::exchange) fn carries(&self, is_stream: bool) {
        self.carried_stream.store(is_stream, Ordering::Relaxed);
    }

    /// What its last reply was.
    pub(in crate::exchange) fn carried_stream(&self) -> bool {
        self.carried_stream.load(Ordering::Relaxed)
    }

    /// The body of the next request.
    pub(in crate::exchange) fn carry(&self, body: OutgoingBody) {
        *self.body() = BodyOnItsWay::new(body);
    }

    /// That of the current one.
    pub(in crate::exchange) fn body(&self) -> MutexGuard<'_, BodyOnItsWay> {
        lock(&self.body)
    }

    /// The same for ureq to read.
    pub(in crate::exchange) fn body_reader(&self, is_copied: bool) -> BodyReader<'_> {
        BodyReader { way: &self.body, is_copied }
    }

    /// Others see there how far its exchange is.
    pub(in crate::exchange) fn show(&self, now: Option<Arc<UnderWay>>) {
        self.link().now = now;
    }

    /// It has a connection, and its request is sent: from here on upstream is waited for.
    pub(super) fn note_sending(&self) {
        if let Some(now) = self.link().now.take() {
            now.enter(ExchangePhase::Waiting);
        }
    }

    /// Others wait until its connection is there, or on its way.
    pub(in crate::exchange) fn hold(&self, turn: Option<Place>) {
        self.link().turn = turn;
    }

    /// They need not wait any longer.
    pub(in crate::exchange) fn let_go(&self) {
        // Dropped after the lock: whoever comes next may begin at once.
        let turn = self.link().turn.take();
        drop(turn);
    }

    /// What is read must come by then, however many reads that takes; `None`: no longer.
    pub(in crate::exchange) fn set_deadline(&self, deadline: Option<Instant>) {
        self.link().deadline = deadline;
    }

    /// That moment.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.link().deadline
    }

    /// Bytes of the next request that were sent on already.
    pub(in crate::exchange) fn sent_before(&self) -> u64 {
        self.begun().as_ref().map_or(0, |begun| begun.sent)
    }

    /// Whether the exchange was called off.
    pub fn is_called_off(&self) -> bool {
        self.link().called_off
    }

    /// From now on reads do not wait, and see nothing that comes before the next [`WireState::ready`]; or they do
    /// again.
    pub fn set_polled(&self, polled: bool) -> io::Result<()> {
        // It outlives a socket: the next one blocks.
        self.set_readiness(Readiness::Blocking);
        let socket = self.link().socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        socket.set_nonblocking(polled)?;
        if polled {
            self.set_readiness(Readiness::Drained);
        }
        Ok(())
    }

    /// From now on output waits for whoever takes it from [`WireState::unsent`]: a tunnel's socket, in both directions.
    /// A stream's is polled as well, but only to be read; what TLS answers meanwhile, nobody would take.
    pub(in crate::exchange) fn divert_output(&self) {
        self.unsent().get_or_insert_default();
    }

    /// An event of the polled socket. `hung_up`: upstream has ended its side.
    pub fn ready(&self, hung_up: bool) {
        if hung_up {
            self.set_readiness(Readiness::HungUp);
        } else if self.readiness() == Readiness::Drained {
            self.set_readiness(Readiness::Ready);
        }
    }

    pub(super) fn readiness(&self) -> Readiness {
        use Readiness::*;
        [Blocking, Drained, Ready, HungUp][usize::from(self.readiness.load(Ordering::Relaxed))]
    }

    pub(super) fn set_readiness(&self, readiness: Readiness) {
        self.readiness.store(readiness as u8, Ordering::Relaxed);
    }

    /// Whether there is a socket, still open on this side.
    pub fn is_connected(&self) -> bool {
        self.link().socket.strong_count() > 0
    }

    /// The socket, for whoever polls it.
    pub fn descriptor(&self) -> Option<Arc<TcpStream>> {
        self.link().socket.upgrade()
    }

    pub(super) fn begun(&self) -> MutexGuard<'_, Option<Begun>> {
        lock(&self.begun)
    }

    /// Output of a tunnel that is to be sent; `None` where the wire sends its output itself.
    pub(in crate::exchange) fn unsent(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        lock(&self.unsent)
    }
}

/// What one look found of what somebody waits for.
pub enum Look<T> {
    /// What was waited for.
    Found(T),
    /// Look again when woken, and by then at the latest.
    NotYet(Option<Instant>),
}

impl WireState {
    /// Looks at the time, and again whenever this thread is unparked, until something is found. An error of kind
    /// `TimedOut` at `deadline`; of `ConnectionAborted`, at once, when the exchange is called off.
    pub(in crate::exchange) fn wait<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(Instant) -> Look<T>,
    ) -> io::Result<T> {
        self.link().waiting = Some(thread::current());
        let found = loop {
            if self.is_called_off() {
                break Err(called_off());
            }
            let now = Instant::now();
            let again = match look(now) {
                Look::Found(found) => break Ok(found),
                Look::NotYet(again) => again,
            };
            if now >= deadline {
                break Err(io::ErrorKind::TimedOut.into());
            }
            let until = again.map_or(deadline, |again| again.min(deadline));
            thread::park_timeout(until.saturating_duration_since(now));
        };
        self.link().waiting = None;
        found
    }
}

/// The error of what was not wanted any more.
pub fn called_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "called off")
}

impl Interrupt for WireState {
    fn interrupt(&self) {
        let mut link = self.link();
        link.called_off = true;
        if let Some(thread) = link.waiting.take() {
            thread.unpark();
        }
        if let Some(socket) = link.socket.upgrade() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
