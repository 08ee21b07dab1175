//! How a connection comes back to its loop: what becomes of it, and where borrowers leave it.

use std::sync::Arc;
use std::time::Instant;

use mio::Waker;

use crate::mailbox::Mailbox;

/// What becomes of a connection that a borrower returns.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on: something happened on it meanwhile.
    Parked,
    /// The loop writes these bytes, if there are any, and does what comes after them.
    Write(Vec<u8>, AfterReply),
    /// Nobody returns it: what goes on on it is called off from here, if that is still the exchange of this number.
    CalledOff(u64),
}

/// What the loop does when it has written the last bytes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReply {
    /// The connection goes on.
    Park,
    /// It was its last reply.
    Linger,
    /// The reply is not whole, and the client shall see it.
    Cut,
}

/// A connection on its way back to its loop, or word of one.
#[derive(Debug)]
pub struct Return {
    /// Which connection.
    pub token: usize,
    /// What becomes of it.
    pub fate: Fate,
}

/// Where borrowers leave connections that need their loop's attention.
pub struct Returns {
    /// What they have left.
    pub mailbox: Mailbox<Return>,
    epoch: Instant,
}

impl Returns {
    /// An empty list that wakes the loop's poll.
    pub fn new(waker: Arc<Waker>, epoch: Instant) -> Returns {
        Returns { mailbox: Mailbox::new(waker), epoch }
    }

    /// Milliseconds on the loop's clock.
    pub fn now_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    /// This exchange, on the connection of this token, is called off.
    pub fn call_off(&self, token: usize, exchange: u64) {
        self.push(Return { token, fate: Fate::CalledOff(exchange) });
    }

    pub(super) fn push(&self, returned: Return) {
        // When the loop is gone, so is its interest.
        let _ = self.mailbox.put(returned);
    }
}
