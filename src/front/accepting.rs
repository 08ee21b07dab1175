//! Taking connections in: as many as there are places, and again as soon as there is one.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::connection::{Baggage, Connection, Counted, Next};
use super::{Front, Services};
use crate::client::Client;
use crate::keepalive;
use crate::limits::{CONNECTIONS_MAX, LISTEN_QUEUE_LENGTH_MAX, UNACKNOWLEDGED_TIME_MAX};

/// Listens on `address`. The system keeps those who connect in a queue until they are accepted; one too many has its SYN
/// dropped, and sends it again a second later. mio and the standard library would have a queue of 128.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A port in TIME_WAIT can be listened on at once; on Windows this would be about ports that somebody listens on.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_QUEUE_LENGTH_MAX)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// How long accepting rests after the process ran out of descriptors, if no connection closes before.
const ACCEPT_REST: Duration = Duration::from_millis(100);

impl Front {
    pub(super) fn accept(&mut self) {
        self.accept_again_ms = None;
        while let Some(listener) = &self.listener {
            if self.services.common.figures.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
                // Looked at again as soon as a connection closes.
                self.accept_again_ms = Some(self.now_ms() + 1000);
                return;
            }
            match listener.accept() {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.accept_failing
                        .over(|count| format!("connections are accepted again; that failed {count} times"));
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => {
                    // Out of descriptors or of memory: the edge is spent, so accepting is tried again by the clock.
                    self.accept_failing
                        .warn(format_args!("cannot accept a connection ({e}); trying again until it works"));
                    self.accept_again_ms = Some(self.now_ms() + ACCEPT_REST.as_millis() as u64);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let Services { returns, common, .. } = &self.services;
        let baggage = Baggage::new(common.bodies.claim(), Counted::new(&common.figures, returns));
        keepalive::ask_now_and_then(&stream);
        keepalive::bound_silence(&stream, Some(UNACKNOWLEDGED_TIME_MAX));
        match stream.set_nodelay(true).and_then(|()| self.take_in_hand(stream, peer, baggage)) {
            Ok(token) => self.step(token, |_, _, _| Next::Keep),
            Err(e) => log::debug!("{peer}: gone before it was admitted: {e}"),
        }
    }

    /// Registers a connection and gives it a token.
    pub(super) fn take_in_hand(
        &mut self,
        mut stream: TcpStream,
        peer: SocketAddr,
        baggage: Baggage,
    ) -> io::Result<usize> {
        let token = self.connections.reserve();
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(e) = self.poll.registry().register(&mut stream, Token(token), both) {
            self.connections.give_back(token);
            return Err(e);
        }
        let client = Client::new(stream, peer, token, self.services.returns.clone());
        let connection = Connection::new(client, baggage, self.now_ms());
        self.connections.put(token, Box::new(connection));
        Ok(token)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn hundreds_can_connect_before_any_is_accepted() {
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a bound of Linux");
        let count = most.trim().parse().unwrap_or(128).min(500);
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        // One whose SYN is dropped would take a second.
        let waiting: Vec<_> = (0..count)
            .map(|number| TcpStream::connect_timeout(&address, Duration::from_millis(900)).map_err(|e| (number, e)))
            .collect::<Result<_, _>>()
            .expect("room for all");
        assert_eq!(waiting.len(), count);
    }
}
