//! The lanes of streams: two threads at most that relay every stream which does nothing but flow.
//!
//! A worker that has got the head of a reply without a known length lends the exchange to a lane. It never waits for
//! anything but its poll: a full client, a terminal event whose row must be committed, and the end go back to a worker.
//! Only Unix can poll a socket that somebody else owns; elsewhere workers keep their streams.
//!
//! When events come faster than any model sends them, a lane looks less often, as network cards moderate their
//! interrupts (`Pace`).
//!
//! One lane has time enough: of two cores 100 streams of 50 events a second take it 8 %, 1000 of 20 some 25 %. But an
//! event waits for those before it. Beside nginx, medians of six rounds of 100 streams: with one lane 1.00 and 1.02 of
//! its median latency and 1.14 and 1.13 of its processor time, with two 0.61 and 0.57, and 1.27 and 1.26. (With a third
//! of the streams on the second lane 0.64 and 1.30.) Of 1000 streams two lanes with half of them each took 1.25 of
//! nginx's processor time, one 1.05: so they share as many as a household could have at once, and no more.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use super::in_flight::Exchange;
use super::polled;
use super::pool::Pool;
use super::relay::{Scratch, Step};
use crate::mailbox::Mailbox;

/// So many streams one lane takes before there is a second: their events seldom meet.
const LONE_STREAMS_MAX: usize = 16;
/// So many streams two lanes share. Those beyond go to the first.
const SHARED_STREAMS_MAX: usize = 128;
/// With so many the second lane leaves its own to the first, too: their events come together anyway.
const CROWD_STREAMS: usize = 256;
const WAKER: Token = Token(usize::MAX);
/// Relay at most so much of one stream before the others have their turn.
const TURN_BYTES_MAX: usize = 256 * 1024;
/// The walk through one event needs little; only touched pages cost memory.
const STACK_BYTES: usize = 256 * 1024;

/// So many looks within [`CROWDED`] are a crowd: 20,000 a second.
const LOOKS: u32 = 16;
const CROWDED: Duration = Duration::from_micros(800);
/// How long the lane rests between two looks then, so that more than one event is there. The system makes it some 0.1
/// ms, so that the next looks are no crowd: they go without a rest, and tell whether there still is one. Measured with
/// 16 streams that flood, processor time an event and rate, three runs: 1.2 us and 310,000 a second; without a rest 2.0
/// us and 240,000 to 300,000, for every event woke the lane.
const REST: Duration = Duration::from_micros(50);

/// How often the lane has looked of late.
struct Pace {
    looks: u32,
    since: Instant,
    crowded: bool,
}

impl Pace {
    fn new() -> Pace {
        Pace { looks: 0, since: Instant::now(), crowded: false }
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

/// The ways into the lanes, each started with the first stream that goes there.
#[derive(Default)]
pub struct Streams {
    first: Option<Entry>,
    second: Option<Entry>,
}

/// The way into one lane.
struct Entry {
    arrivals: Arc<Mailbox<Box<Exchange>>>,
    /// Streams that the lane has.
    held: Arc<AtomicUsize>,
}

impl Streams {
    /// Lends an exchange whose upstream socket is polled to a lane. What that gives back goes to the workers of `pool`;
    /// back the exchange comes when there is no lane.
    pub fn lend(&mut self, exchange: Box<Exchange>, pool: &Arc<Pool>) -> Result<(), Box<Exchange>> {
        let held = |lane: &Option<Entry>| lane.as_ref().map_or(0, |entry| entry.held.load(Ordering::Relaxed));
        let (first, second) = (held(&self.first), held(&self.second));
        let is_shared = first >= LONE_STREAMS_MAX && first + second < SHARED_STREAMS_MAX;
        let other = self.first.as_ref().map(|entry| entry.held.clone());
        let (lane, other) =
            if is_shared && second < first { (&mut self.second, other) } else { (&mut self.first, None) };
        if lane.is_none() {
            match Entry::start(pool, other) {
                Ok(entry) => *lane = Some(entry),
                // Out of descriptors, perhaps: the next stream tries again.
                Err(e) => log::debug!("this stream keeps its worker: {e}"),
            }
        }
        match lane {
            Some(entry) => entry.lend(exchange),
            None => Err(exchange),
        }
    }
}

impl Entry {
    /// `other`: what the lane has that this one helps.
    fn start(pool: &Arc<Pool>, other: Option<Arc<AtomicUsize>>) -> io::Result<Entry> {
        if !polled::IS_POSSIBLE {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let poll = Poll::new()?;
        let arrivals = Arc::new(Mailbox::new(Arc::new(Waker::new(poll.registry(), WAKER)?)));
        let held = Arc::new(AtomicUsize::new(0));
        let lane = Lane {
            poll,
            arrivals: arrivals.clone(),
            held: held.clone(),
            other,
            streams: Vec::new(),
            free: Vec::new(),
            unfinished: Vec::new(),
            scratch: Scratch::default(),
            pool: pool.clone(),
        };
        let builder = thread::Builder::new().name("streams".into()).stack_size(STACK_BYTES);
        builder.spawn(move || lane.run())?;
        Ok(Entry { arrivals, held })
    }

    fn lend(&self, exchange: Box<Exchange>) -> Result<(), Box<Exchange>> {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.arrivals.put(exchange).inspect_err(|_| {
            self.held.fetch_sub(1, Ordering::Relaxed);
        })
    }
}

struct Lane {
    poll: Poll,
    arrivals: Arc<Mailbox<Box<Exchange>>>,
    held: Arc<AtomicUsize>,
    other: Option<Arc<AtomicUsize>>,
    streams: Vec<Option<Box<Exchange>>>,
    free: Vec<usize>,
    /// Streams whose turn was cut short although more can be read.
    unfinished: Vec<usize>,
    scratch: Scratch,
    pool: Arc<Pool>,
}

impl Lane {
    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        let mut pace = Pace::new();
        loop {
            if pace.is_crowded() {
                thread::sleep(REST);
            }
            let timeout = if self.unfinished.is_empty() { None } else { Some(Duration::ZERO) };
            if let Err(e) = self.poll.poll(&mut events, timeout)
                && e.kind() != io::ErrorKind::Interrupted
            {
                log::error!("streams cannot be waited for together any more: {e}");
                return;
            }
            for token in std::mem::take(&mut self.unfinished) {
                self.turn(token);
            }
            for event in events.iter().filter(|event| event.token() != WAKER) {
                let Token(token) = event.token();
                if let Some(Some(exchange)) = self.streams.get(token) {
                    exchange.wire().ready(event.is_read_closed() || event.is_error());
                    // Whose turn was cut short just now has had it.
                    if !self.unfinished.contains(&token) {
                        self.turn(token);
                    }
                }
            }
            self.arrivals.take().into_iter().for_each(|exchange| self.admit(exchange));
            if self.is_crowd() {
                // A worker lends them anew.
                (0..self.streams.len()).for_each(|token| self.give_back(token, Step::Dry));
                self.unfinished.clear();
            }
        }
    }
}

/// Also by a bug: workers keep their streams from now on.
impl Drop for Lane {
    fn drop(&mut self) {
        self.arrivals.close().into_iter().for_each(|exchange| self.resume(exchange, Step::Unpolled));
        (0..self.streams.len()).for_each(|token| self.give_back(token, Step::Unpolled));
    }
}

impl Lane {
    fn is_crowd(&self) -> bool {
        let held = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        self.other.as_ref().is_some_and(|other| held(&self.held) > 0 && held(&self.held) + held(other) >= CROWD_STREAMS)
    }

    /// Registering tells of what has come meanwhile as an event.
    fn admit(&mut self, exchange: Box<Exchange>) {
        let token = self.free.pop().unwrap_or_else(|| {
            self.streams.push(None);
            self.streams.len() - 1
        });
        let registered = exchange
            .wire()
            .descriptor()
            .ok_or(io::ErrorKind::NotConnected.into())
            .and_then(|socket| polled::register(self.poll.registry(), &socket, Token(token), Interest::READABLE));
        match registered {
            Ok(()) => self.streams[token] = Some(exchange),
            Err(e) => {
                self.free.push(token);
                log::debug!("a stream stays with its worker: {e}");
                self.resume(exchange, Step::Unpolled);
            }
        }
    }

    fn turn(&mut self, token: usize) {
        let Some(Some(exchange)) = self.streams.get_mut(token) else { return };
        let scratch = &mut self.scratch;
        // A bug ends this exchange alone; its worker records that.
        let step = catch_unwind(AssertUnwindSafe(|| exchange.flow(scratch, TURN_BYTES_MAX)));
        match step {
            Ok(Step::Dry) => {}
            Ok(Step::More) => self.unfinished.push(token),
            Ok(step) => self.give_back(token, step),
            Err(_) => self.give_back(token, Step::Bug),
        }
    }

    fn give_back(&mut self, token: usize, step: Step) {
        let Some(exchange) = self.streams[token].take() else { return };
        if let Some(socket) = exchange.wire().descriptor() {
            polled::deregister(self.poll.registry(), &socket);
        }
        self.free.push(token);
        self.resume(exchange, step);
    }

    fn resume(&self, exchange: Box<Exchange>, step: Step) {
        self.held.fetch_sub(1, Ordering::Relaxed);
        self.pool.resume(exchange, step);
    }
}
