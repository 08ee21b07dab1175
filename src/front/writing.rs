//! Replies of the front's own, and the last bytes of others that their clients did not take at once.

use std::net::Shutdown;

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
            State::Writing { .. } | State::Lent { .. } | State::Moving(_) => Next::Keep,
        }
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
                    let _ = connection.client.stream().shutdown(Shutdown::Write);
                    State::Lingering { since_ms: now_ms, drained: 0 }
                }
                Then::Cut => return Err(Dropped),
            };
        }
        Ok(())
    }
}
