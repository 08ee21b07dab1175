//! What workers are asked to do, and who asks them.

use std::sync::Arc;

use super::pool::{Place, Pool, QueuedRequest};
use super::relay::Step;
use super::relayed::Exchange;
use super::relayed::{FlowingMailbox, ForwardedRequest};
use super::tunnel::Tunnel;
use crate::client::Tail;
use crate::in_flight::ExchangePhase;

/// What a worker can be asked to do.
pub enum Job {
    /// Answer a request.
    Exchange(Box<ForwardedRequest>),
    /// Go on with a stream that did nothing but flow.
    Resume(Box<Exchange>, Step),
    /// Commit the rows of a WebSocket, then leave it there again.
    Settle(Box<Tunnel>, Arc<FlowingMailbox>),
    /// Send the last bytes of replies whose rows are committed.
    Finish(Vec<Tail>),
    /// Commit the rows that have arrived.
    Commit,
    /// Something that is no exchange: an export, or telling what happens.
    Beside(Box<dyn FnOnce() + Send>),
}

/// The workers of the proxy.
pub type Workers = Pool<Box<ForwardedRequest>, Job>;

impl Workers {
    /// Has a worker finish replies.
    pub fn finish(self: &Arc<Self>, tails: Vec<Tail>) {
        self.give(Job::Finish(tails));
    }

    /// Has a worker do something that is no exchange and may block as one.
    pub fn do_beside(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) {
        let beside = self.beside();
        self.give(Job::Beside(Box::new(move || {
            let _beside = beside;
            job();
        })));
    }

    /// Has a worker commit what has arrived; false when none can begin at once.
    pub fn commit(self: &Arc<Self>) -> bool {
        self.give_now(Job::Commit).is_ok()
    }
}

impl From<Box<ForwardedRequest>> for Job {
    fn from(request: Box<ForwardedRequest>) -> Job {
        Job::Exchange(request)
    }
}

impl QueuedRequest for Box<ForwardedRequest> {
    fn begin(&mut self, in_flight: Place, connecting: Option<Place>) {
        self.queued = Some(self.lend.began.elapsed());
        self.in_flight = Some(in_flight);
        self.connecting = connecting;
        self.now.enter(ExchangePhase::Connecting);
    }

    fn is_called_off(&self) -> bool {
        self.client().called_off().is_some()
    }
}
