//! The express loop: a second front, without a listener, for connections on which short exchanges come one after the
//! other. It reads them as the first one does, but asks upstream and commits rows on its own thread
//! ([`crate::exchange::express`]), so that such an exchange never changes threads. A commit may keep it for a moment;
//! whoever connects meanwhile is answered by the first.
//!
//! A connection moves here with the first request that the express lane can answer, and stays until it ends. The thread
//! starts when the first one does.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use mio::Poll;
use mio::net::TcpStream;

use super::bodies::Claim;
use super::client::Returns;
use super::{Common, Front, Role, WAYS, gather, returns};
use crate::exchange::express::Express;
use crate::front::Plan;
use crate::limits::WORKER_STACK_BYTES;

/// A connection on its way, with the request that moved it.
pub struct Guest {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub request: Box<gather::Request<Plan>>,
    pub claim: Claim,
    pub unread: Vec<u8>,
    pub hung_up: bool,
}

/// Connections that have not been taken in yet; `None` when nobody takes them in any more.
type List = Option<Vec<Guest>>;

/// The way into the loop.
pub struct Door {
    list: Arc<Mutex<List>>,
    returns: Arc<Returns>,
}

/// The loop's side of the door. Dropped, it is closed.
pub struct Guests(Arc<Mutex<List>>);

impl Door {
    /// Back the guest comes when the door is closed.
    pub fn enter(&self, guest: Guest) -> Result<(), Guest> {
        match &mut *lock(&self.list) {
            Some(list) => list.push(guest),
            None => return Err(guest),
        }
        self.returns.wake();
        Ok(())
    }
}

impl Guests {
    /// Everyone who has come since the last call.
    pub fn take(&self) -> Vec<Guest> {
        lock(&self.0).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Closes the door behind those who have come.
    pub fn close(&self) -> Vec<Guest> {
        lock(&self.0).take().unwrap_or_default()
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(list: &Mutex<List>) -> MutexGuard<'_, List> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the loop. It ends when the proxy is told to stop.
pub fn start(common: Common) -> io::Result<(Door, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let returns = returns(&poll)?;
    let list = Arc::new(Mutex::new(Some(Vec::new())));
    let door = Door { list: list.clone(), returns: returns.clone() };
    let express = Express::new(common.pool.clone(), poll.registry().try_clone()?, WAYS);
    common.stop.wakes(returns.clone());
    let role = Role::Second { express, guests: Guests(list) };
    let mut front = Front::new(poll, returns, common, role);
    let run = move || {
        if let Err(e) = front.run() {
            log::error!("the express loop failed: {e}");
        }
    };
    let thread = Builder::new().name("express".into()).stack_size(WORKER_STACK_BYTES).spawn(run)?;
    Ok((door, thread))
}
