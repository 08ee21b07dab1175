//! Polling a socket that somebody else owns: ureq, of those to upstream. The poll of a loop can on Unix alone; elsewhere
//! workers wait for upstream. A thread that waits for one socket and nothing else can everywhere.

use std::io;
use std::net::TcpStream;
#[cfg(unix)]
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

#[cfg(unix)]
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

/// Whether a loop can.
pub const IS_POSSIBLE: bool = cfg!(unix);

/// Whether a shutdown of the socket wakes a thread that waits for it. On Windows it sleeps on until its peer does
/// something (<https://github.com/rust-lang/rust/issues/121594>), so there it has to look whether it is still wanted.
pub const SHUTDOWN_WAKES: bool = cfg!(unix);

/// How often who is not woken looks whether the exchange is still wanted; upstream shall see within 100 ms that it is
/// not.
pub const CALLED_OFF_GAP: Duration = Duration::from_millis(50);

/// Events of `socket` come as `token` from now on.
#[cfg(unix)]
pub fn register(registry: &Registry, socket: &TcpStream, token: Token, interests: Interest) -> io::Result<()> {
    registry.register(&mut SourceFd(&socket.as_raw_fd()), token, interests)
}

/// No event of `socket` comes any more.
#[cfg(unix)]
pub fn deregister(registry: &Registry, socket: &TcpStream) {
    // An error means that it was not registered.
    let _ = registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
}

#[cfg(not(unix))]
pub fn register(_: &Registry, _: &TcpStream, _: Token, _: Interest) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
pub fn deregister(_: &Registry, _: &TcpStream) {}

/// What a thread that waits for one socket alone polls.
pub struct Watch {
    poll: Poll,
    events: Events,
    /// A second handle of the socket, which mio owns and can poll everywhere.
    #[cfg(not(unix))]
    twin: mio::net::TcpStream,
}

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

impl Watch {
    /// Of this socket, which does not block.
    #[cfg(unix)]
    pub fn new(socket: &TcpStream) -> io::Result<Watch> {
        let poll = Poll::new()?;
        register(poll.registry(), socket, Token(0), BOTH)?;
        Ok(Watch { poll, events: Events::with_capacity(1) })
    }

    /// Of this socket, which does not block.
    #[cfg(not(unix))]
    pub fn new(socket: &TcpStream) -> io::Result<Watch> {
        let poll = Poll::new()?;
        let mut twin = mio::net::TcpStream::from_std(socket.try_clone()?);
        poll.registry().register(&mut twin, Token(0), BOTH)?;
        Ok(Watch { poll, events: Events::with_capacity(1), twin })
    }

    /// Waits until there is something to read or room to write, and says whether the former. An error of kind `TimedOut`
    /// after `time_max`; once the exchange is called off, it is for the next write to say so.
    pub fn wait(&mut self, time_max: Option<Duration>, is_called_off: &dyn Fn() -> bool) -> io::Result<bool> {
        let deadline = time_max.map(|max| Instant::now() + max);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // What mio has told once it tells again only where a read of its own found nothing more.
            #[cfg(not(unix))]
            self.poll.registry().reregister(&mut self.twin, Token(0), BOTH)?;
            match self.poll.poll(&mut self.events, pause(left)) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            if !self.events.is_empty() || is_called_off() {
                return Ok(self.events.iter().any(|event| event.is_readable()));
            }
        }
    }
}

/// How long a thread with so much time left waits at a stretch; `None`: for as long as it takes.
pub fn pause(left: Option<Duration>) -> Option<Duration> {
    if SHUTDOWN_WAKES { left } else { Some(left.map_or(CALLED_OFF_GAP, |left| left.min(CALLED_OFF_GAP))) }
}
