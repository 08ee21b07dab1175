//! Polling a socket that somebody else owns: ureq, of those to upstream. Only Unix can; elsewhere workers wait for
//! them.

use std::io;
use std::net::TcpStream;
#[cfg(unix)]
use std::os::fd::AsRawFd;

#[cfg(unix)]
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// Whether there is such a thing here.
pub const IS_POSSIBLE: bool = cfg!(unix);

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
