//! The socket under a ureq agent, with its buffers. ureq makes the requests; the socket is ours, for five reasons. The
//! client's loop can interrupt it while a worker is blocked on it. Head and body of a request leave in one send. Its
//! buffers grow with what comes, so that a slow stream costs a few kilobytes. The body of a stream can be read without
//! blocking, by the loop that relays many of them. And an exchange that a lane has begun can go on here ([`Begun`]).
//! What comes back is read by [`super::incoming`].

pub(super) mod state;

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use self::state::Readiness;
pub use self::state::{Begun, WireState, called_off};
use super::manners::Manners;
use super::permits::Permit;
use super::polled;
use super::upload::{self, Uploaded};
use crate::keepalive;
use crate::limits::SENT_AT_ONCE_BYTES_MAX;

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
    /// Behind it, so much of the request's body, which stands elsewhere.
    pending_body: usize,
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

thread_local! {
    /// What the polled sockets of this thread read into, in turn: those that wait hold nothing. Measured with
    /// callgrind: of 3450 instructions of this process for an event of a stream, some 900 went into getting memory and
    /// giving it back, for this and for what is sent.
    static SPARE_INPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// Takes over a connected socket. From now on the client's loop can interrupt it through `state`; `None` if the
    /// exchange was called off meanwhile.
    pub fn new(
        stream: TcpStream,
        state: Arc<WireState>,
        manners: Arc<Manners>,
        permit: Permit,
        idle_time_max: Option<Duration>,
    ) -> Option<Wire> {
        let socket = Arc::new(stream);
        state.connect(&socket).then(|| Wire {
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
            pending_body: 0,
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
        let head = &self.output[..std::mem::take(&mut self.pending)];
        let body_bytes = std::mem::take(&mut self.pending_body);
        if self.cut_short {
            return Ok(());
        }
        let state = &self.state;
        let begun = state.begun().take();
        if begun.is_none() {
            state.note_sending();
        }
        let mut body = state.body();
        let [first, second, third] = body.send(body_bytes);
        let bytes = match &begun {
            Some(begun) => [&begun.unsent[..], &[], &[], &[]],
            None => [head, first, second, third],
        };
        let large = state.output_bytes.load(Ordering::Relaxed) > SENT_AT_ONCE_BYTES_MAX;
        if large && !std::mem::replace(&mut self.patient, true) {
            // An upstream that is there may take its time to read so much.
            keepalive::bound_silence(&*self.socket, None);
        }
        // What TLS sends of its own is no reply.
        let large = large && !self.encrypted;
        let sent = upload::send(&self.socket, &bytes, large, self.idle_time_max, &|| state.is_called_off(), |n| {
            state.sent.fetch_add(n as u64, Ordering::Relaxed);
        });
        drop(body);
        if let Some(begun) = begun.filter(|begun| !begun.received.is_empty()) {
            (self.start, self.end) = (0, 0);
            self.input = begun.received;
            let came = self.input.len();
            self.input_appended(came);
        }
        let state = &self.state;
        match sent {
            Ok(Uploaded::Whole) => Ok(()),
            Ok(Uploaded::CutShort) => {
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
            Err(e) => Err(told(e)),
        }
    }

    /// A stream waits without a buffer, and so does an idle connection.
    fn release_input(&mut self) {
        if self.start == self.end && !self.input.is_empty() {
            SPARE_INPUT.set(std::mem::take(&mut self.input));
            (self.start, self.end) = (0, 0);
        }
    }

    /// Waits, where a shutdown would not wake who reads, until there is something to read or the exchange is called off,
    /// which reading tells then. A read that its time-out ends may have lost bytes there (Microsoft of `SO_RCVTIMEO`); a
    /// look takes none.
    fn look_out(&self) -> io::Result<()> {
        let idle_until = self.idle_time_max.map(|max| Instant::now() + max);
        let until = self.state.deadline().filter(|_| self.encrypted).into_iter().chain(idle_until).min();
        while !self.state.is_called_off() {
            let began = Instant::now();
            let left = until.map(|until| until.saturating_duration_since(began));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let pause = polled::pause(left);
            self.socket.set_read_timeout(pause)?;
            match self.socket.peek(&mut [0]) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Upstream that vanished looks the same, but at once and again and again.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
                        && pause.is_some_and(|pause| began.elapsed() >= pause / 2) => {}
                _ => break,
            }
        }
        Ok(())
    }

    /// Whether upstream has kept the idle connection open, and sent nothing that nobody asked for.
    fn is_still_open(&self) -> bool {
        let socket = &*self.socket;
        let is_open = socket.set_nonblocking(true).is_ok() && is_quiet(socket) && socket.set_nonblocking(false).is_ok();
        self.manners.note(self.state.carried_stream(), is_open)
    }
}

/// Whether nothing can be read of a socket that does not block, nor its end.
pub fn is_quiet(mut socket: &TcpStream) -> bool {
    matches!(socket.read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

/// A time-out looks different from one operating system to the next.
fn told(e: io::Error) -> io::Error {
    let is_timeout = matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    if is_timeout && !keepalive::tells_of_vanishing(&e) { io::ErrorKind::TimedOut.into() } else { e }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let announced = self.state.body().take_announced();
        self.pending_body += announced;
        self.pending += amount - announced;
        if let Some(unsent) = &mut *self.state.unsent() {
            // Whoever has the tunnel knows when its socket takes bytes.
            unsent.extend_from_slice(&self.output[..std::mem::take(&mut self.pending)]);
            return Ok(());
        }
        // What was begun already is not sent, however much it is.
        if self.pending >= OUTPUT_BYTES_MAX && self.state.begun().is_none() {
            self.flush()?;
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let mut came_before = false;
        if self.pending + self.pending_body > 0 {
            self.flush()?;
            came_before = self.start < self.end;
        }
        // A stream may go on for hours; what sent its request is given back now.
        self.output = Vec::new();
        self.used = true;
        if came_before {
            return Ok(true);
        }
        let readiness = self.state.readiness();
        if readiness == Readiness::Drained {
            self.release_input();
            return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        }
        let socket = self.socket.clone();
        if self.encrypted
            && let Some(deadline) = self.state.deadline()
        {
            let left = deadline.saturating_duration_since(Instant::now());
            // A time-out of zero would be none, and a byte that is there already does not wait for one.
            if left.is_zero() {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            socket.set_read_timeout(Some(left))?;
        }
        if readiness == Readiness::Blocking && !polled::SHUTDOWN_WAKES {
            self.look_out()?;
        }
        loop {
            let room = self.input_append_buf();
            let wanted = room.len();
            match (&*socket).read(room) {
                Ok(n) => {
                    // A read that did not get all it wanted has drained the socket (epoll(7), question 9), but for an
                    // end that was told already.
                    if readiness == Readiness::Ready && n < wanted {
                        self.state.set_readiness(Readiness::Drained);
                    }
                    self.input_appended(n);
                    return Ok(n > 0);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if readiness != Readiness::Blocking && e.kind() == io::ErrorKind::WouldBlock => {
                    // An end that was told already would be told no more.
                    if readiness == Readiness::Ready {
                        self.state.set_readiness(Readiness::Drained);
                    }
                    self.release_input();
                    return Err(e.into());
                }
                // Not the end of a reply that the close ends, whoever reads it: it is cut short.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted) => {
                    return Err(io::Error::other("connection reset").into());
                }
                Err(e) => return Err(told(e).into()),
            }
        }
    }

    /// ureq asks twice: when it puts a connection aside, and when it takes it up again. Only the second answer counts,
    /// and it costs three system calls.
    fn is_open(&mut self) -> bool {
        if std::mem::take(&mut self.used) {
            self.release_input();
            self.start == self.end && !self.cut_short
        } else {
            self.state.begun().is_some() || self.is_still_open()
        }
    }
}

impl Buffers for Wire {
    fn output(&mut self) -> &mut [u8] {
        let wanted = self.state.buffer_bytes.load(Ordering::Relaxed).clamp(1024, OUTPUT_BYTES_MAX * 2);
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
            self.input = SPARE_INPUT.take();
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::super::permits::Permits;
    use super::*;

    /// A polled socket for which `bytes` have come, and its peer.
    fn polled(bytes: &[u8]) -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("a bound socket")).expect("it listens");
        let mut peer = listener.accept().expect("a connection").0;
        peer.write_all(bytes).expect("it takes a few bytes");
        stream.peek(&mut [0]).expect("they come");
        let state = Arc::new(WireState::default());
        let permit = Arc::new(Permits::default()).take(&state, Instant::now()).expect("the first one");
        let wire = Wire::new(stream, state, Arc::default(), permit, None).expect("nobody calls it off");
        wire.state.set_polled(true).expect("a socket");
        wire.state.ready(false);
        (wire, peer)
    }

    #[test]
    fn an_idle_connection_holds_no_memory() {
        let (mut wire, _peer) = polled(b"ab");
        assert!(wire.await_input(NextTimeout::default()).expect("bytes"));
        wire.input_consume(2);
        assert!(wire.is_open());
        assert_eq!(wire.input.capacity(), 0);
    }

    /// What TLS answers while it reads, and what a read then sends of it.
    fn answer(wire: &mut Wire, bytes: &[u8]) {
        wire.output()[..bytes.len()].copy_from_slice(bytes);
        wire.transmit_output(bytes.len(), NextTimeout::default()).expect("it only waits");
        let nothing = wire.await_input(NextTimeout::default()).expect_err("nothing has come");
        assert_eq!(nothing.into_io().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_tls_answers_on_a_stream_that_is_polled_is_sent_with_the_next_read() {
        let (mut wire, mut peer) = polled(b"a");
        assert!(wire.await_input(NextTimeout::default()).expect("a byte"));
        wire.input_consume(1);
        answer(&mut wire, b"updated");
        assert_eq!(*wire.state.unsent(), None);
        let mut came = [0; 7];
        peer.read_exact(&mut came).expect("it was sent");
        assert_eq!(&came, b"updated");
    }

    #[test]
    fn what_a_tunnel_says_waits_for_whoever_has_it_and_not_for_the_next_connection() {
        let (mut wire, peer) = polled(b"a");
        assert!(wire.await_input(NextTimeout::default()).expect("a byte"));
        wire.input_consume(1);
        wire.state.divert_output();
        answer(&mut wire, b"ab");
        answer(&mut wire, b"c");
        peer.set_nonblocking(true).expect("a socket");
        assert!(is_quiet(&peer));
        assert_eq!(wire.state.unsent().as_deref(), Some(&b"abc"[..]));
        assert!(wire.state.connect(&Arc::new(peer)));
        assert_eq!(*wire.state.unsent(), None);
    }

    #[test]
    fn a_polled_socket_that_waits_holds_no_memory_and_the_next_one_reads_into_it() {
        let check = |bytes: &[u8], room: usize| {
            let (mut wire, _peer) = polled(bytes);
            assert!(wire.await_input(NextTimeout::default()).expect("bytes"));
            assert_eq!((wire.input(), wire.input.len()), (bytes, room));
            wire.input_consume(bytes.len());
            for _ in 0..2 {
                let nothing = wire.await_input(NextTimeout::default()).expect_err("nothing more has come");
                assert_eq!(nothing.into_io().kind(), io::ErrorKind::WouldBlock);
                assert_eq!(wire.input.capacity(), 0);
            }
        };
        // It comes full, and so grows.
        check(&[b'a'; INPUT_BYTES_MIN], INPUT_BYTES_MIN);
        check(b"b", 2 * INPUT_BYTES_MIN);
    }
}
