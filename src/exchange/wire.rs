//! The socket under a ureq agent, with its buffers. ureq makes the requests; the socket is ours, for five reasons. The
//! front can interrupt it while a worker is blocked on it. Head and body of a request leave in one send. Its buffers grow
//! with what comes, so that a slow stream costs a few kilobytes. The body of a stream can be read without blocking, by
//! the lane that relays many of them. And an exchange that the express lane has begun can go on here ([`Begun`]). What
//! comes back is read by [`super::incoming`].

use std::fmt;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::permits::Permit;
use super::pool::Connecting;
use super::shelf::Manners;
use super::upload::{self, Sent};
use super::wait::{Look, Waits};
use crate::front::client::Interrupt;
use crate::keepalive;
use crate::limits::SENT_AT_ONCE_BYTES_MAX;

/// What a worker and the socket under its agent tell each other.
#[derive(Default)]
pub struct WireState {
    link: Mutex<Link>,
    /// Connections attempted so far: tells a fresh one from a pooled one.
    pub(super) dials: AtomicU64,
    /// Bytes of the current request that the socket took.
    pub(super) sent: AtomicU64,
    /// Bytes read for the current request.
    pub(super) received: AtomicU64,
    /// How large a buffer the current request's head and body want.
    pub(super) output_bytes: AtomicUsize,
    /// A read ran into `UPSTREAM_IDLE_TIMEOUT_S`.
    pub(super) timed_out: AtomicBool,
    /// The socket does not block: whoever reads is told when there is something.
    polled: AtomicBool,
    /// Nothing is left in the polled socket until its next event.
    drained: AtomicBool,
    /// Upstream has ended its side: no further event will tell so.
    hung_up: AtomicBool,
    /// The next request was begun already.
    begun: Mutex<Option<Begun>>,
    /// What others wait for until a connection is on its way.
    turn: Mutex<Option<Connecting>>,
}

/// A request that the express lane has sent on, on this connection, and the beginning of its reply. ureq is asked for
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

/// What calling off an exchange needs.
#[derive(Default)]
struct Link {
    /// Owned by the agent alone: a connection that it gives up is closed at once, and upstream sees that.
    socket: Weak<TcpStream>,
    /// Also where there is no socket yet: what is being connected is not used then.
    called_off: bool,
    /// A thread that waits for something else than the socket.
    waiting: Option<Thread>,
}

impl WireState {
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the exchange can be called off: the one before is over. `begun`: its request was sent on already.
    pub fn begin(&self, begun: Option<Begun>) {
        self.link().called_off = false;
        *self.begun() = begun;
    }

    /// Others wait until its connection is there, or on its way.
    pub(super) fn hold(&self, turn: Option<Connecting>) {
        *self.turn() = turn;
    }

    /// They need not wait any longer.
    pub(super) fn let_go(&self) {
        // Dropped after the lock: whoever comes next may begin at once.
        let turn = self.turn().take();
        drop(turn);
    }

    fn turn(&self) -> MutexGuard<'_, Option<Connecting>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the next request that were sent on already.
    pub(super) fn sent_before(&self) -> u64 {
        self.begun().as_ref().map_or(0, |begun| begun.sent)
    }

    /// Whether the exchange was called off.
    pub fn is_called_off(&self) -> bool {
        self.link().called_off
    }

    /// From now on reads do not wait, and see nothing that comes before the next [`WireState::ready`]; or they do
    /// again.
    pub fn set_polled(&self, polled: bool) -> io::Result<()> {
        // The flags outlive a socket: the next one blocks.
        self.polled.store(false, Ordering::Relaxed);
        let socket = self.link().socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        socket.set_nonblocking(polled)?;
        self.polled.store(polled, Ordering::Relaxed);
        self.drained.store(polled, Ordering::Relaxed);
        self.hung_up.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// An event of the polled socket. `hung_up`: upstream has ended its side.
    pub fn ready(&self, hung_up: bool) {
        self.drained.store(false, Ordering::Relaxed);
        if hung_up {
            self.hung_up.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there is a socket, still open on this side.
    pub fn is_connected(&self) -> bool {
        self.link().socket.strong_count() > 0
    }

    /// The socket, for whoever polls it.
    pub fn descriptor(&self) -> Option<Arc<TcpStream>> {
        self.link().socket.upgrade()
    }

    fn begun(&self) -> MutexGuard<'_, Option<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a read ended by `UPSTREAM_IDLE_TIMEOUT_S`.
    pub fn timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }
}

impl Waits for WireState {
    fn wait<T>(&self, deadline: Instant, mut look: impl FnMut(Instant) -> Look<T>) -> io::Result<T> {
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

/// A socket and its buffers, as ureq wants them.
pub struct Wire {
    socket: Arc<TcpStream>,
    state: Arc<WireState>,
    manners: Arc<Manners>,
    /// Until upstream's first byte.
    permit: Option<Permit>,
    input: Vec<u8>,
    start: usize,
    end: usize,
    progress: bool,
    output: Vec<u8>,
    /// Output that waits for more: it is sent when ureq begins to wait for input, or when it is much.
    pending: usize,
    /// Whether it was read from since ureq last asked if it is open.
    used: bool,
    /// Upstream replied before it had read the whole request, or closed: the rest is not sent, and no other request.
    cut_short: bool,
    /// TLS is spoken over it.
    encrypted: bool,
    /// What it sent may stay unacknowledged: a large request was among it.
    patient: bool,
    /// `UPSTREAM_IDLE_TIMEOUT_S`.
    idle_time_max: Option<Duration>,
}

/// Input is read in pieces of this size at first, and of up to [`INPUT_BYTES_MAX`] once they come full.
const INPUT_BYTES_MIN: usize = 2 * 1024;
const INPUT_BYTES_MAX: usize = 32 * 1024;
/// Output is gathered up to this size.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// Takes over a connected socket. From now on the front can interrupt it through `state`; `None` if the exchange
    /// was called off meanwhile.
    pub fn new(
        stream: TcpStream,
        state: Arc<WireState>,
        manners: Arc<Manners>,
        permit: Permit,
        idle_time_max: Option<Duration>,
    ) -> Option<Wire> {
        let socket = Arc::new(stream);
        *state.begun() = None;
        {
            let mut link = state.link();
            if link.called_off {
                return None;
            }
            link.socket = Arc::downgrade(&socket);
        }
        Some(Wire {
            socket,
            state,
            manners,
            permit: Some(permit),
            input: Vec::new(),
            start: 0,
            end: 0,
            progress: false,
            output: Vec::new(),
            pending: 0,
            used: false,
            cut_short: false,
            encrypted: false,
            patient: false,
            idle_time_max,
        })
    }

    /// From now on what is read and written is TLS.
    pub fn encrypt(&mut self) {
        self.encrypted = true;
    }

    /// Sends what waits. Where upstream has replied, or closed, before it had read the whole request, its reply counts,
    /// and the rest of the request is left out (RFC 9112 §9.5).
    fn flush(&mut self) -> io::Result<()> {
        let mut bytes = &self.output[..std::mem::take(&mut self.pending)];
        if self.cut_short {
            return Ok(());
        }
        let state = &self.state;
        let begun = state.begun().take();
        if let Some(begun) = &begun {
            bytes = &begun.unsent;
        }
        let large = state.output_bytes.load(Ordering::Relaxed) > SENT_AT_ONCE_BYTES_MAX;
        if large && !std::mem::replace(&mut self.patient, true) {
            // An upstream that is there may take its time to read so much.
            keepalive::bound_silence(&*self.socket, None);
        }
        // What TLS sends of its own is no reply.
        let large = large && !self.encrypted;
        let sent = upload::send(&self.socket, bytes, large, self.idle_time_max, |n| {
            state.sent.fetch_add(n as u64, Ordering::Relaxed);
        });
        if let Some(begun) = begun.filter(|begun| !begun.received.is_empty()) {
            (self.start, self.end) = (0, 0);
            self.input = begun.received;
            let came = self.input.len();
            self.input_appended(came);
        }
        let state = &self.state;
        match sent {
            Ok(Sent::Whole) => Ok(()),
            Ok(Sent::CutShort) => {
                self.cut_short = true;
                Ok(())
            }
            Err(e)
                if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
                    && state.sent.load(Ordering::Relaxed) > 0 =>
            {
                // Before it closed, upstream may have said why.
                self.cut_short = true;
                Ok(())
            }
            Err(e) => Err(self.note(e)),
        }
    }

    /// Remembers a time-out, which looks different from one operating system to the next.
    fn note(&self, e: io::Error) -> io::Error {
        if keepalive::tells_of_vanishing(&e) {
            return e;
        }
        if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            self.state.timed_out.store(true, Ordering::Relaxed);
            return io::ErrorKind::TimedOut.into();
        }
        e
    }

    fn is_still_open(&self) -> bool {
        let open = self.is_quiet().unwrap_or(false);
        if open {
            self.manners.note_open()
        } else {
            self.manners.note_close()
        }
        open
    }

    /// Whether upstream has closed the idle connection, or sent bytes that nobody asked for.
    fn is_quiet(&self) -> io::Result<bool> {
        self.socket.set_nonblocking(true)?;
        let quiet = matches!((&*self.socket).read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        self.socket.set_nonblocking(false)?;
        Ok(quiet)
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        self.pending += amount;
        // What was begun already is not sent, however much it is.
        if self.pending >= OUTPUT_BYTES_MAX && self.state.begun().is_none() {
            self.flush()?;
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let mut came_before = false;
        if self.pending > 0 {
            self.flush()?;
            came_before = self.start < self.end;
        }
        // A stream may go on for hours; what sent its request is given back now.
        self.output = Vec::new();
        self.used = true;
        if came_before {
            return Ok(true);
        }
        let polled = self.state.polled.load(Ordering::Relaxed);
        if polled && self.state.drained.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        }
        let socket = self.socket.clone();
        loop {
            let room = self.input_append_buf();
            let wanted = room.len();
            match (&*socket).read(room) {
                Ok(n) => {
                    // A read that did not get all it wanted has drained the socket (epoll(7), question 9), but for an
                    // end that was told already.
                    if polled && n < wanted && !self.state.hung_up.load(Ordering::Relaxed) {
                        self.state.drained.store(true, Ordering::Relaxed);
                    }
                    self.input_appended(n);
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if polled && e.kind() == io::ErrorKind::WouldBlock => {
                    self.state.drained.store(true, Ordering::Relaxed);
                    return Err(e.into());
                }
                // Not the end of a reply that the close ends, whoever reads it: it is cut short.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted) => {
                    return Err(io::Error::other("connection reset").into());
                }
                Err(e) => return Err(self.note(e).into()),
            }
        }
    }

    /// ureq asks twice: when it puts a connection aside, and when it takes it up again. Only the second answer counts,
    /// and it costs three system calls.
    fn is_open(&mut self) -> bool {
        if std::mem::take(&mut self.used) {
            self.start == self.end && !self.cut_short
        } else {
            self.state.begun().is_some() || self.is_still_open()
        }
    }
}

impl Buffers for Wire {
    fn output(&mut self) -> &mut [u8] {
        let wanted = self.state.output_bytes.load(Ordering::Relaxed).clamp(1024, OUTPUT_BYTES_MAX * 2);
        if self.output.len() < self.pending + 1024 || self.pending == 0 && self.output.len() < wanted {
            self.output.resize((self.pending + 1024).max(wanted), 0);
        }
        &mut self.output[self.pending..]
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        if self.start == self.end {
            let (came, length) = (self.end, self.input.len());
            (self.start, self.end) = (0, 0);
            if came > 0 && came == length && length < INPUT_BYTES_MAX {
                self.input.resize(length * 2, 0);
            } else if came < length / 8 && length > INPUT_BYTES_MIN {
                // It came fast once; now it comes slowly, for hours perhaps.
                self.input.truncate(length / 2);
                self.input.shrink_to_fit();
            }
        } else if self.end == self.input.len() {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.input.len() {
                // One thing larger than the buffer, which its reader wants whole: a record of TLS.
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        if self.input.is_empty() {
            self.input.resize(INPUT_BYTES_MIN, 0);
        }
        &mut self.input[self.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.end += amount;
        // Whatever it is, upstream has accepted the connection.
        self.permit = None;
        self.state.received.fetch_add(amount as u64, Ordering::Relaxed);
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start += amount;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        // The scratch space serves chunked request bodies; ours are whole and have a length.
        (&mut [], self.output())
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.progress
    }
}
