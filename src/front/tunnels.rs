//! A connection whose client speaks over a WebSocket: what its loop does with the tunnel.

use std::io;

use super::connection::{Baggage, Connection, Departure, Next, State, Surroundings};
use crate::client::Socket;
use crate::exchange::tunnel::{Tunnel, TunnelEnd, TunnelStep};

impl<S: Socket, F> Connection<S, F> {
    /// A worker has opened a WebSocket, or has committed the rows of one, and leaves it here.
    pub fn take_tunnel(
        &mut self,
        mut tunnel: Box<Tunnel<S>>,
        around: &mut impl Surroundings<S, F>,
        scratch: &mut [u8],
    ) -> Next {
        // Dropped, it is cut.
        let State::Lent(departure) = self.state else { return Next::Keep };
        if !around.watch_tunnel(&tunnel) {
            tunnel.break_off(TunnelEnd::Failed);
            around.settle(tunnel);
            return Next::Keep;
        }
        // Once it is open, each side may end its own.
        self.state = State::Tunnelled(tunnel, Departure { ends: false, ..departure });
        match self.client.called_off() {
            Some(why) => self.break_off_tunnel(TunnelEnd::from(why), around),
            // What came meanwhile was told to nobody.
            None => self.on_upstream(false, around, scratch),
        }
    }

    /// Something happened on the socket of its upstream. `hung_up`: upstream has ended its side, of which no further
    /// event will tell.
    pub fn on_upstream(&mut self, hung_up: bool, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        let State::Tunnelled(tunnel, _) = &mut self.state else { return self.look_upstream(hung_up, around) };
        tunnel.ready(hung_up);
        self.relay_tunnel(around, scratch)
    }

    /// Relays what either side has sent.
    pub(super) fn relay_tunnel(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        let Connection { client, baggage, state, .. } = self;
        let State::Tunnelled(tunnel, departure) = state else { return Next::Keep };
        let step = tunnel.advance(&mut |into| baggage.read(client.stream(), into), scratch);
        departure.left_ms = match tunnel.half_closed_time_max() {
            // What goes on for nobody ends in its time, whatever comes meanwhile.
            Some(_) if tunnel.is_left_running() => departure.left_ms.or_else(|| Some(around.now_ms())),
            Some(_) => Some(around.now_ms()),
            None => None,
        };
        match step {
            // Where nothing is read of it or written to it, nothing else tells.
            TunnelStep::Dry if baggage.inbound.is_gone && client.is_broken() => {
                self.break_off_tunnel(TunnelEnd::ClientLeft, around)
            }
            TunnelStep::Dry => Next::Keep,
            TunnelStep::More => Next::Again,
            TunnelStep::Settle | TunnelStep::Over => self.end_turn_of_tunnel(step, around),
        }
    }

    /// Ends its WebSocket, whatever is under way.
    pub(super) fn break_off_tunnel(&mut self, end: TunnelEnd, around: &mut impl Surroundings<S, F>) -> Next {
        let State::Tunnelled(tunnel, _) = &mut self.state else { return Next::Keep };
        let step = tunnel.break_off(end);
        self.end_turn_of_tunnel(step, around)
    }

    /// One side has ended its half, and the other has been waited for long enough.
    pub(super) fn expire_tunnel(&mut self, around: &mut impl Surroundings<S, F>) -> Next {
        let State::Tunnelled(tunnel, _) = &mut self.state else { return Next::Keep };
        let step = tunnel.expire();
        self.end_turn_of_tunnel(step, around)
    }

    /// While the proxy stops: closes a WebSocket on which nothing goes on, when what has come is relayed.
    pub(super) fn wind_up_tunnel(&mut self, around: &mut impl Surroundings<S, F>, scratch: &mut [u8]) -> Next {
        let next = self.relay_tunnel(around, scratch);
        match &self.state {
            State::Tunnelled(tunnel, _) if matches!(next, Next::Keep) && tunnel.is_idle() => {
                self.break_off_tunnel(TunnelEnd::Shutdown, around)
            }
            _ => next,
        }
    }

    /// Somebody else has the tunnel next, or nobody.
    fn end_turn_of_tunnel(&mut self, step: TunnelStep, around: &mut impl Surroundings<S, F>) -> Next {
        let Some(tunnel) = self.give_up_tunnel() else { return Next::Keep };
        around.forget_tunnel(&tunnel);
        match step {
            TunnelStep::Settle => around.settle(tunnel),
            TunnelStep::Over | TunnelStep::Dry | TunnelStep::More => tunnel.finish(),
        }
        Next::Keep
    }

    /// The tunnel, for who goes on with it.
    pub fn give_up_tunnel(&mut self) -> Option<Box<Tunnel<S>>> {
        let State::Tunnelled(_, departure) = self.state else { return None };
        match std::mem::replace(&mut self.state, State::Lent(departure)) {
            State::Tunnelled(tunnel, _) => Some(tunnel),
            _ => None,
        }
    }
}

impl Baggage {
    /// Reads what has come behind the handshake, then from the socket.
    fn read(&mut self, socket: &impl Socket, into: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            while self.inbound.may_have_more {
                match self.inbound.read(socket, into) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    read => return read,
                }
            }
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = self.unread.rest().len().min(into.len());
        into[..n].copy_from_slice(&self.unread.rest()[..n]);
        self.unread.use_up(n);
        Ok(n)
    }
}
