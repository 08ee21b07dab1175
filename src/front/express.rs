//! The express loop: a second front, without a listener, for connections on which short exchanges come one after the
//! other. It reads them as the first one does, but asks upstream and commits rows on its own thread
//! ([`crate::exchange::express`]), so that such an exchange never changes threads. A commit may keep it for a moment;
//! whoever connects meanwhile is answered by the first.
//!
//! A connection moves here with the first request that the express lane can answer, and stays until it ends. The thread
//! starts when the first one does.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use mio::Poll;
use mio::net::TcpStream;

use super::connection::{Baggage, Connection};
use super::gather::Request;
use super::{Common, Front, Plan, Role, Services, WAYS, returns};
use crate::exchange::express::Express;
use crate::exchange::request::{Forwarding, Kind};
use crate::limits::WORKER_STACK_BYTES;
use crate::mailbox::Mailbox;

/// A connection on its way, with the request that moved it.
pub struct Guest {
    stream: TcpStream,
    peer: SocketAddr,
    baggage: Baggage,
    request: Box<Request<Plan>>,
}

/// The way into the loop.
pub type Door = Arc<Mailbox<Guest>>;

/// The loop's side of the door. Dropped, also by a bug of the loop, it is closed.
pub struct Guests(Door);

impl Guests {
    /// Everyone who has come since the last call.
    pub fn take(&self) -> Vec<Guest> {
        self.0.take()
    }

    /// Closes the door behind those who have come.
    pub fn close(&self) -> Vec<Guest> {
        self.0.close()
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.close();
    }
}

/// Starts the loop. It ends when the proxy is told to stop.
pub fn start(common: Common) -> io::Result<(Door, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let (returns, waker) = returns(&poll)?;
    let door = Arc::new(Mailbox::new(waker));
    let lane = Express::new(common.pool.clone(), poll.registry().try_clone()?, WAYS);
    let role = Role::Express { lane, guests: Guests(door.clone()) };
    let stop = common.stop.clone();
    let mut front = Front::new(poll, returns.clone(), common, role)?;
    let run = move || {
        if let Err(e) = front.run() {
            log::error!("the express loop failed: {e}");
        }
    };
    let thread = Builder::new().name("express".into()).stack_size(WORKER_STACK_BYTES).spawn(run)?;
    stop.wakes(returns);
    Ok((door, thread))
}

/// The express loop, as the first one sees it.
pub enum ExpressLoop {
    /// There will be none: the settings or the system are against it.
    Never,
    /// Nobody needed it yet.
    NotYet,
    Started(Door, JoinHandle<()>),
    /// It takes nobody in any more.
    Closed(JoinHandle<()>),
}

impl Services {
    /// Whether this request shall move its connection to the express loop: the connection goes on behind it.
    pub(super) fn suits_express(&self, request: &Request<Plan>) -> bool {
        matches!(self.role, Role::Accepting(_))
            && self.stopping.is_none()
            && request.head.keep_alive
            && matches!(request.plan, Plan::Forward(Forwarding { kind: Kind::Short, .. }))
    }

    /// Whether there is an express loop to move to; it is started for the first who wants to.
    pub(super) fn express_is_open(&mut self) -> bool {
        let Role::Accepting(express_loop) = &mut self.role else { return false };
        if let ExpressLoop::NotYet = express_loop {
            match start(self.common.clone()) {
                Ok((door, thread)) => *express_loop = ExpressLoop::Started(door, thread),
                // Out of descriptors, perhaps: the next request tries again.
                Err(e) => log::debug!("this connection stays: {e}"),
            }
        }
        matches!(express_loop, ExpressLoop::Started(..))
    }
}

impl Front {
    /// Moves a connection.
    pub(super) fn move_away(&mut self, token: usize, connection: Connection, request: Box<Request<Plan>>) {
        self.freed.push(token);
        let Some((mut stream, peer, baggage)) = connection.leave() else { return };
        let _ = self.poll.registry().deregister(&mut stream);
        let guest = Guest { stream, peer, baggage, request };
        let Role::Accepting(express_loop) = &mut self.services.role else { return };
        let ExpressLoop::Started(door, _) = express_loop else { return };
        if let Err(guest) = door.put(guest) {
            if let ExpressLoop::Started(_, thread) = std::mem::replace(express_loop, ExpressLoop::Never) {
                *express_loop = ExpressLoop::Closed(thread);
            }
            self.welcome(guest);
        }
    }

    /// Takes in a connection that was moved here.
    pub(super) fn welcome(&mut self, guest: Guest) {
        let Guest { stream, peer, baggage, request } = guest;
        match self.take_in_hand(stream, peer, baggage) {
            Ok(token) => {
                self.step(token, |connection, around, scratch| connection.arrive(*request, around, scratch));
            }
            Err(e) => log::warn!("{peer}: cut: {e}"),
        }
    }
}
