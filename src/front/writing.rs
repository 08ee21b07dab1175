//! Replies of the front's own, and the last bytes of others that their clients did not take at once.

use std::io;
use std::net::Shutdown;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;

#[cfg(target_os = "linux")]
use mio::unix::SourceFd;
#[cfg(target_os = "linux")]
use mio::{Interest, Token};
#[cfg(target_os = "linux")]
use socket2::SockRef;

use super::client::Then;
use super::{Connection, Dropped, Front, Next, State};

impl Front {
    pub(super) fn reply(
        &mut self,
        connection: &mut Connection,
        bytes: Vec<u8>,
        keep_alive: bool,
    ) -> Result<(), Dropped> {
        let then = if keep_alive { Then::Park } else { Then::Linger };
        connection.state = State::Writing { bytes, written: 0, then, since_ms: self.now_ms() };
        self.write_some(connection)
    }

    /// Writes what is left of a reply, then goes on with the connection.
    pub(super) fn write(&mut self, token: usize, connection: &mut Connection) -> Next {
        if self.write_some(connection).is_err() {
            return Next::Drop;
        }
        match connection.state {
            State::Parked { .. } => self.go_on(token, connection),
            State::Lingering { .. } => self.read(token, connection),
            State::Writing { then: Then::Cut, ref bytes, written, .. } if written == bytes.len() => {
                self.cut(token, connection)
            }
            State::Writing { .. } | State::Draining { .. } | State::Lent { .. } | State::Moving(_) => Next::Keep,
        }
    }

    /// Ends a connection whose reply is not whole. Where the client could not tell, it is reset: Linux lets a client read
    /// what it has received before that, but the proxy's own system drops what it has not sent by then. So it waits until
    /// all is sent, for as long as for a client that takes nothing ([`WRITE_STALL_MAX`](crate::limits::WRITE_STALL_MAX)).
    pub(super) fn cut(&mut self, token: usize, connection: &mut Connection) -> Next {
        if !connection.client.resets() || self.tell_when_sent(token, connection).is_err() {
            return Next::Drop;
        }
        connection.state = State::Draining { since_ms: self.now_ms() };
        Next::Keep
    }

    /// From now on the socket is writable when it has nothing left to send; an event tells so, also at once.
    #[cfg(target_os = "linux")]
    fn tell_when_sent(&self, token: usize, connection: &Connection) -> io::Result<()> {
        let stream = connection.client.stream();
        SockRef::from(stream).set_tcp_notsent_lowat(1)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().reregister(&mut SourceFd(&stream.as_raw_fd()), Token(token), both)
    }

    /// Other systems tell nobody.
    #[cfg(not(target_os = "linux"))]
    fn tell_when_sent(&self, _: usize, _: &Connection) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_some(&mut self, connection: &mut Connection) -> Result<(), Dropped> {
        let now_ms = self.now_ms();
        let State::Writing { bytes, written, then, since_ms } = &mut connection.state else { return Ok(()) };
        let n = connection.client.write_now(&bytes[*written..]).map_err(|_| Dropped)?;
        *written += n;
        if n > 0 {
            *since_ms = now_ms;
        }
        if *written == bytes.len() {
            connection.state = match then {
                Then::Park => State::Parked { since_ms: now_ms },
                Then::Linger => {
                    connection.client.end_well();
                    let _ = connection.client.stream().shutdown(Shutdown::Write);
                    State::Lingering { since_ms: now_ms, drained: 0 }
                }
                // The caller cuts it.
                Then::Cut => return Ok(()),
            };
        }
        Ok(())
    }
}
