//! Streams that do nothing but flow: the loop that has the client of one relays it, and no thread of its own waits for
//! its next event.
//!
//! A worker that has relayed all there is of a reply without a known length leaves the exchange with that loop. The loop
//! never waits for anything but its poll: a full client, a terminal event whose row must be committed, and the end go
//! back to a worker. Only Unix can poll a socket that somebody else owns; elsewhere workers keep their streams.
//!
//! When events come faster than any model sends them, a loop looks less often, as network cards moderate their
//! interrupts (`LookRate`).
//!
//! This is so because a thread for each stream costs more than relaying. Measured on two cores, processor time an event,
//! nginx beside it in the same run: 100 paced streams 22.0 us (nginx 10.7), 1000 paced 19.8 (10.7), 16 that flood 3.7
//! (1.0). A bare thread that only reads and writes, with no parsing at all, still took 16.7, 18.2 and 3.3 us: waking a
//! thread for every event is what costs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token, Waker};

use super::job::{Job, Workers};
use super::polled;
use super::relay::{Scratch, Step};
use super::relayed::{Exchange, FlowingMailbox, LeftWithLoop};
use super::tunnel::{Tunnel, TunnelEnd};
use crate::mailbox::Mailbox;
use crate::settings::Settings;

/// Relay at most so much of one stream before the others have their turn.
const TURN_BYTES_MAX: usize = 256 * 1024;

/// So many looks within [`CROWDED`] are a crowd: 8,000 a second.
const LOOKS: u32 = 16;
const CROWDED: Duration = Duration::from_millis(2);
/// How long the loop rests between two looks then, so that more than one event is there. The system makes it some 0.1
/// ms. Measured with 16 streams that flood, processor time an event and rate, three runs: 1.2 us and 310,000 a second;
/// without a rest 2.0 us and 240,000 to 300,000, for every event woke the loop. 1000 paced streams, 20,000 events a
/// second: 1.06 of nginx's processor time where only 20,000 looks a second were a crowd, 1.02 with 8,000 (medians of four
/// and of five rounds).
const REST: Duration = Duration::from_micros(50);

/// How often streams were looked at of late.
struct LookRate {
    looks: u32,
    since: Instant,
    crowded: bool,
}

impl LookRate {
    fn new() -> LookRate {
        LookRate { looks: 0, since: Instant::now(), crowded: false }
    }

    /// Counts one more look; whether they follow too fast upon each other.
    fn is_crowded(&mut self) -> bool {
        self.looks += 1;
        if self.looks == LOOKS {
            let now = Instant::now();
            self.crowded = now.duration_since(self.since) < CROWDED;
            (self.looks, self.since) = (0, now);
        }
        self.crowded
    }
}

/// What a loop needs for the streams that flow in it. The streams themselves are states of its connections.
pub struct FlowingReplies {
    mailbox: Arc<FlowingMailbox>,
    registry: Registry,
    /// The token of a stream is this and its connection's.
    first_token: usize,
    pool: Arc<Workers>,
    scratch: Scratch,
    rate: LookRate,
    /// The loop's turn has looked at one.
    looked: bool,
    /// How many there are.
    count: usize,
}

impl FlowingReplies {
    /// Whether workers leave any stream of this upstream: who waits for no longer than so long does it in a read.
    pub fn are_possible(settings: &Settings) -> bool {
        polled::IS_POSSIBLE && settings.upstream_idle_timeout.is_none()
    }

    /// None yet, in the loop of this poll and `waker`.
    pub fn new(pool: Arc<Workers>, registry: Registry, waker: Arc<Waker>, first_token: usize) -> FlowingReplies {
        FlowingReplies {
            mailbox: Arc::new(Mailbox::new(waker)),
            registry,
            first_token,
            pool,
            scratch: Scratch::default(),
            rate: LookRate::new(),
            looked: false,
            count: 0,
        }
    }

    /// Where workers leave them.
    pub fn mailbox(&self) -> &Arc<FlowingMailbox> {
        &self.mailbox
    }

    /// Those left since the last call, each with the token of its connection.
    pub fn take(&self) -> Vec<(usize, LeftWithLoop)> {
        self.mailbox.take().into_iter().map(|left| (left.token(), left)).collect()
    }

    /// Whether there are any.
    pub fn is_any(&self) -> bool {
        self.count > 0
    }

    /// Before the loop waits: rests where it would be woken too soon.
    pub fn rest(&mut self) {
        if std::mem::take(&mut self.looked) && self.rate.is_crowded() {
            thread::sleep(REST);
        }
    }

    /// From now on upstream's events are told. Registering tells of what has come meanwhile, too.
    pub fn watch(&mut self, exchange: &Exchange) -> io::Result<()> {
        let token = Token(self.first_token + exchange.request.client().token());
        let socket = exchange.wire().descriptor().ok_or(io::ErrorKind::NotConnected)?;
        polled::register(&self.registry, &socket, token, Interest::READABLE)?;
        self.count += 1;
        Ok(())
    }

    /// Looks whether anything has come, whatever events have told, and relays that. `hung_up`: upstream has ended its
    /// side, of which no further event will tell. A bug ends this exchange alone.
    pub fn look(&mut self, exchange: &mut Exchange, hung_up: bool) -> Step {
        self.looked = true;
        exchange.wire().ready(hung_up);
        let scratch = &mut self.scratch;
        catch_unwind(AssertUnwindSafe(|| exchange.flow(scratch, TURN_BYTES_MAX))).unwrap_or(Step::Bug)
    }

    /// Has a worker do what takes time.
    pub fn hand_over(&mut self, exchange: Box<Exchange>, step: Step) {
        if let Some(socket) = exchange.wire().descriptor() {
            polled::deregister(&self.registry, &socket);
        }
        self.count -= 1;
        self.pool.give(Job::Resume(exchange, step));
    }

    /// The same of a WebSocket's upstream, also of when it takes bytes again.
    pub fn watch_tunnel(&self, tunnel: &Tunnel) -> io::Result<()> {
        let socket = tunnel.descriptor().ok_or(io::ErrorKind::NotConnected)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        polled::register(&self.registry, socket, Token(self.first_token + tunnel.token()), both)
    }

    /// Its upstream's events are told no more.
    pub fn forget_tunnel(&self, tunnel: &Tunnel) {
        if let Some(socket) = tunnel.descriptor() {
            polled::deregister(&self.registry, socket);
        }
    }

    /// Has a worker commit the rows of a WebSocket.
    pub fn settle(&self, tunnel: Box<Tunnel>) {
        self.pool.give(Job::Settle(tunnel, self.mailbox.clone()));
    }

    /// Breaks off a WebSocket that no loop can drive.
    pub fn give_up(&self, mut tunnel: Box<Tunnel>) {
        tunnel.break_off(TunnelEnd::Failed);
        self.settle(tunnel);
    }

    /// Has a worker keep one that cannot be watched.
    pub fn refuse(&self, mut exchange: Box<Exchange>) {
        exchange.stop_polling();
        self.pool.give(Job::Resume(exchange, Step::Dry));
    }
}

/// Also by a bug of the loop: workers keep their streams from now on.
impl Drop for FlowingReplies {
    fn drop(&mut self) {
        for left in self.mailbox.close() {
            match left {
                LeftWithLoop::Reply(exchange) => self.refuse(exchange),
                LeftWithLoop::Tunnel(tunnel) => self.give_up(tunnel),
            }
        }
    }
}
