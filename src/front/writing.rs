//! Replies of the front's own, and the last bytes of others that their clients did not take at once.

use std::net::Shutdown;

use super::connection::{Connection, Dropped, Next, State, Surroundings};
use crate::client::{AfterReply, Socket};

impl<S: Socket, F> Connection<S, F> {
    pub(super) fn reply(
        &mut self,
        bytes: Vec<u8>,
        keep_alive: bool,
        around: &mut impl Surroundings<S, F>,
    ) -> Result<(), Dropped> {
        let then = if keep_alive { AfterReply::Park } else { AfterReply::Linger };
        self.state = State::Writing { bytes, written: 0, then, since_ms: around.now_ms() };
        self.write_some(around)
    }

    /// Writes what is left of a reply, then goes on with the connection.
    pub(super) fn write(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        if self.write_some(around).is_err() {
            return Next::Drop;
        }
        match self.state {
            State::Parked { .. } => self.go_on(around, scratch),
            State::Lingering { .. } => self.read(around, scratch),
            State::Writing { then: AfterReply::Cut, ref bytes, written, .. } if written == bytes.len() => {
                self.cut(around)
            }
            State::Writing { .. }
            | State::Draining { .. }
            | State::Lent(_)
            | State::Flowing(..)
            | State::Tunnelled(..) => Next::Keep,
        }
    }

    /// Ends a connection whose reply is not whole. Where the client could not tell, it is reset: Linux lets a client read
    /// what it has received before that, but the proxy's own system drops what it has not sent by then. So it waits until
    /// all is sent, for as long as for a client that takes nothing ([`WRITE_STALL_MAX`](crate::limits::WRITE_STALL_MAX)).
    pub(super) fn cut(&mut self, around: &mut impl Surroundings<S, F>) -> Next {
        if !self.client.resets() || around.tell_when_sent(&self.client).is_err() {
            return Next::Drop;
        }
        self.state = State::Draining { since_ms: around.now_ms() };
        Next::Keep
    }

    fn write_some(&mut self, around: &mut impl Surroundings<S, F>) -> Result<(), Dropped> {
        let now_ms = around.now_ms();
        let State::Writing { bytes, written, then, since_ms } = &mut self.state else { return Ok(()) };
        let n = self.client.write_now(&bytes[*written..]).map_err(|_| Dropped)?;
        *written += n;
        if n > 0 {
            *since_ms = now_ms;
        }
        if *written == bytes.len() {
            self.state = match then {
                AfterReply::Park => State::Parked { since_ms: now_ms },
                AfterReply::Linger => {
                    self.client.end_well();
                    let _ = self.client.stream().shutdown(Shutdown::Write);
                    State::Lingering { since_ms: now_ms, drained: 0 }
                }
                // The caller cuts it.
                AfterReply::Cut => return Ok(()),
            };
        }
        Ok(())
    }
}
