//! The lanes: two more loops at most, without a listener, for connections whose requests are forwarded and which then only
//! wait. A lane reads them as the accepting loop does, but asks short requests upstream and commits their rows on its own
//! thread ([`crate::exchange::short`]), so that such an exchange never changes threads; and it relays the streams of
//! its clients while they do nothing but flow ([`crate::exchange::flow`]). A commit may keep it for a moment; whoever
//! connects meanwhile is answered by the accepting loop.
//!
//! A connection moves to a lane with the first request that is short, asks for a stream or opens a WebSocket, and stays
//! until it ends. A lane's thread starts when the first one does.
//!
//! One lane has time enough for streams: of two cores 100 of 50 events a second take it 8 %, 1000 of 20 some 25 %. But an
//! event waits for those before it. Beside nginx, medians of six rounds of 100 streams: with one lane 0.93 of its
//! median latency and 1.04 of its processor time, with two 0.63 and 1.23: two processors at work, neither with what the
//! other has in its cache. Sharing fewer of them saves hardly any of that: 96 took 0.69 and 1.22, 80 0.88 and 1.22, 64
//! 0.92 and 1.17. Of 1000 streams two lanes with half of them each took 1.25 of nginx's processor time, one 1.05: so
//! they share as many as a household could have at once, and no more.
//!
//! One lane that yields its processor between two events took 0.76 and 1.11, but beside two threads that compute, as a
//! model on the processor has them, the median rose to 20 ms and more, from 0.1 ms: whoever yields waits for their turn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use mio::Poll;
use mio::net::TcpStream;

use super::connection::{Baggage, Connection};
use super::intake::WholeRequest;
use super::{Common, Front, LINKS, Plan, Role, Services};
use crate::exchange::flow::FlowingReplies;
use crate::exchange::relayed::FlowingMailbox;
use crate::exchange::request::{Forwarding, Kind};
use crate::exchange::short::ShortExchanges;
use crate::limits::WORKER_STACK_BYTES;
use crate::mailbox::Mailbox;
use crate::settings::Settings;

/// So many exchanges one lane has in hand before streams go to a second: their events seldom meet.
const LONE_STREAMS_MAX: usize = 16;
/// So many exchanges two lanes share. Streams beyond go to the first.
const SHARED_STREAMS_MAX: usize = 128;

/// A connection on its way, with the request that moved it.
pub struct Moved {
    stream: TcpStream,
    peer: SocketAddr,
    baggage: Baggage,
    request: Box<WholeRequest<Plan>>,
    /// It counts as one that the lane has in hand.
    _lane: Arc<FlowingMailbox>,
}

/// Where connections are left that move to a lane.
pub type Arrivals = Mailbox<Moved>;

/// A lane, as the accepting loop sees it.
enum Lane {
    /// There will be none: the settings are against it, or it has ended.
    Never,
    /// Nobody needed it yet.
    NotYet,
    Started(StartedLane),
}

struct StartedLane {
    arrivals: Arc<Arrivals>,
    /// Whoever is answered there has a hand on this.
    flowing: Arc<FlowingMailbox>,
}

/// The lanes, as the accepting loop sees them.
pub struct Lanes {
    first: Lane,
    second: Lane,
    /// They ask short requests themselves.
    ask: bool,
    threads: Vec<JoinHandle<()>>,
}

impl Lanes {
    /// None is started yet.
    pub fn new(settings: &Settings) -> Lanes {
        let lane = || if FlowingReplies::are_possible(settings) { Lane::NotYet } else { Lane::Never };
        Lanes { first: lane(), second: lane(), ask: ShortExchanges::serves(settings), threads: Vec::new() }
    }

    /// Whether this request's connection shall move to one of them.
    fn suit(&self, request: &WholeRequest<Plan>) -> bool {
        match &request.plan {
            Plan::Forward(Forwarding { kind: Kind::Short, .. }) => self.ask && request.head.meaning.keep_alive,
            Plan::Forward(Forwarding { kind: Kind::MayStream | Kind::Handshake, .. }) => true,
            Plan::Forward(Forwarding { kind: Kind::Other, .. }) | Plan::Statistics(_) | Plan::Answer(_) => false,
        }
    }

    /// Whether there is one; it is started for the first who wants to move there.
    fn are_open(&mut self, common: &Common) -> bool {
        self.first.open(common, &mut self.threads).is_some()
    }

    /// The lane for a connection that moves with this request.
    fn choose(&mut self, request: &WholeRequest<Plan>, common: &Common) -> &mut Lane {
        let may_stream = matches!(request.plan, Plan::Forward(Forwarding { kind: Kind::MayStream, .. }));
        let (first, second) = (self.first.in_hand(), self.second.in_hand());
        let is_shared = first > LONE_STREAMS_MAX && first + second < SHARED_STREAMS_MAX;
        if may_stream && is_shared && second < first && self.second.open(common, &mut self.threads).is_some() {
            return &mut self.second;
        }
        &mut self.first
    }

    /// Waits until they have ended.
    pub fn join(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a lane ended by a bug of the proxy");
            }
        }
    }
}

impl Lane {
    fn open(&mut self, common: &Common, threads: &mut Vec<JoinHandle<()>>) -> Option<&StartedLane> {
        if let Lane::NotYet = self {
            match start(common.clone()) {
                Ok((started, thread)) => {
                    threads.push(thread);
                    *self = Lane::Started(started);
                }
                // Out of descriptors, perhaps: the next request tries again.
                Err(e) => log::debug!("this connection stays: {e}"),
            }
        }
        match self {
            Lane::Started(started) => Some(started),
            Lane::Never | Lane::NotYet => None,
        }
    }

    /// How many exchanges it has in hand.
    fn in_hand(&self) -> usize {
        match self {
            // All but this hand and the loop's own.
            Lane::Started(started) => Arc::strong_count(&started.flowing).saturating_sub(2),
            Lane::Never | Lane::NotYet => 0,
        }
    }
}

/// Starts a lane. It ends when the proxy is told to stop.
fn start(common: Common) -> io::Result<(StartedLane, JoinHandle<()>)> {
    let poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    let asks = ShortExchanges::serves(&common.shared.settings);
    let short = asks.then(|| ShortExchanges::new(common.shared.clone(), common.pool.clone(), registry, LINKS));
    let stop = common.stop.clone();
    let mut front = Front::new(poll, common, |waker| Role::Lane(Arc::new(Mailbox::new(waker))), short)?;
    let Role::Lane(arrivals) = &front.services.role else { unreachable!("made just now") };
    let started = StartedLane { arrivals: arrivals.clone(), flowing: front.services.flowing.mailbox().clone() };
    let returns = front.services.returns.clone();
    let run = move || {
        if let Err(e) = front.run() {
            log::error!("a lane failed: {e}");
        }
    };
    let thread = Builder::new().name("lane".into()).stack_size(WORKER_STACK_BYTES).spawn(run)?;
    stop.wakes(returns);
    Ok((started, thread))
}

impl Services {
    /// Whether this request shall move its connection to a lane, and there is one.
    pub(super) fn moves_to_lane(&mut self, request: &WholeRequest<Plan>) -> bool {
        let Role::Accepting(lanes) = &mut self.role else { return false };
        self.stopping.is_none() && lanes.suit(request) && lanes.are_open(&self.common)
    }
}

impl Front {
    /// Moves a connection.
    pub(super) fn move_away(&mut self, token: usize, connection: Connection, request: Box<WholeRequest<Plan>>) {
        self.connections.give_back(token);
        let Some((mut stream, peer, baggage)) = connection.leave() else { return };
        let _ = self.poll.registry().deregister(&mut stream);
        let Role::Accepting(lanes) = &mut self.services.role else { return };
        let lane = lanes.choose(&request, &self.services.common);
        let Lane::Started(started) = lane else { return };
        let moved = Moved { stream, peer, baggage, request, _lane: started.flowing.clone() };
        if let Err(moved) = started.arrivals.put(moved) {
            *lane = Lane::Never;
            self.welcome(moved);
        }
    }

    /// Takes in a connection that was moved here.
    pub(super) fn welcome(&mut self, moved: Moved) {
        let Moved { stream, peer, baggage, request, _lane } = moved;
        match self.take_in_hand(stream, peer, baggage) {
            Ok(token) => {
                self.step(token, |connection, around, scratch| connection.arrive(*request, around, scratch));
            }
            Err(e) => log::warn!("{peer}: cut: {e}"),
        }
    }
}
