//! What the schedules of connections share: a socket that tells of each edge once, as epoll does, and chance.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use super::connection::Ready;
use crate::bell::lock;
use crate::client::Socket;

/// Whose socket it is.
pub const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Both ends of a connection.
#[derive(Default)]
pub struct SimulatedWire {
    pub inbound: VecDeque<u8>,
    /// How much of what came was read.
    pub read: usize,
    /// The peer closed its side.
    pub fin: bool,
    pub reset: bool,
    /// The reset was told to nobody yet (`SO_ERROR`).
    error: bool,
    /// How much the socket takes before the peer reads.
    pub room: usize,
    /// A write found no room: making some is an edge.
    wants_room: bool,
    /// Something happened of which no event has told.
    pub edge: bool,
    /// What the socket took.
    pub outbound: Vec<u8>,
    /// Our side is closed.
    pub ended: bool,
    /// Closing it is a reset.
    pub resets: bool,
    /// Both are, and nobody has it any more.
    pub closed: bool,
}

/// The proxy's end.
#[derive(Clone, Default)]
pub struct SimulatedSocket(Arc<Mutex<SimulatedWire>>);

impl SimulatedSocket {
    /// One whose peer takes so much at first. Registering tells of what is there.
    pub fn with_room(room: usize) -> SimulatedSocket {
        let socket = SimulatedSocket::default();
        *socket.wire() = SimulatedWire { room, edge: true, ..SimulatedWire::default() };
        socket
    }

    pub fn wire(&self) -> MutexGuard<'_, SimulatedWire> {
        lock(&self.0)
    }
}

impl Socket for SimulatedSocket {
    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.wire();
        let n = wire.inbound.len().min(into.len());
        wire.inbound.drain(..n).zip(into).for_each(|(byte, place)| *place = byte);
        wire.read += n;
        match n {
            0 if std::mem::take(&mut wire.error) => Err(io::ErrorKind::ConnectionReset.into()),
            0 if !wire.fin && !wire.reset => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.wire();
        if std::mem::take(&mut wire.error) {
            // Linux tells it once: after it, reading finds an end.
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if wire.reset || wire.ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = wire.room.min(bytes.len());
        wire.room -= n;
        wire.outbound.extend_from_slice(&bytes[..n]);
        wire.wants_room |= n < bytes.len();
        if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut wire = self.wire();
        wire.ended = true;
        if how == Shutdown::Both {
            // Its other side then reads as ended.
            wire.fin = true;
        }
        // Where both are, that is an edge.
        wire.edge |= wire.fin;
        Ok(())
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(std::mem::take(&mut self.wire().error).then(|| io::ErrorKind::ConnectionReset.into()))
    }

    fn set_resets(&self, resets: bool) -> io::Result<()> {
        self.wire().resets = resets;
        Ok(())
    }
}

impl SimulatedWire {
    /// The peer sends this.
    pub fn send(&mut self, bytes: impl IntoIterator<Item = u8>) {
        self.inbound.extend(bytes);
        self.edge = true;
    }

    /// The peer closes its side.
    pub fn end(&mut self) {
        (self.fin, self.edge) = (true, true);
    }

    /// The peer resets the connection.
    pub fn break_off(&mut self) {
        (self.reset, self.error, self.edge) = (true, true, true);
    }

    /// The peer reads.
    pub fn make_room(&mut self, more: usize) {
        self.room += more;
        self.edge |= more > 0 && std::mem::take(&mut self.wants_room);
    }

    /// Whether nothing is left to be told, also when the peer has read all.
    pub fn is_calm(&self) -> bool {
        !self.edge && !self.wants_room
    }

    /// What epoll says at this moment, if there was an edge.
    pub fn event(&mut self) -> Option<Ready> {
        if !std::mem::take(&mut self.edge) {
            return None;
        }
        let ended = self.fin || self.reset;
        let readable = ended || !self.inbound.is_empty();
        let writable = self.room > 0 || self.reset;
        // EPOLLHUP: also when both sides have closed in good order.
        let gone = self.reset || self.fin && self.ended;
        (readable || writable).then_some(Ready { readable, writable, ended, gone })
    }
}

/// Xorshift: the same schedule for the same seed.
pub struct Chance(u64);

impl Chance {
    pub fn of(seed: u64) -> Chance {
        Chance((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Cuts `bytes` anywhere.
    pub fn cut(&mut self, mut bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let most = [2, 40, 100, 400][self.below(4)];
            let n = (1 + self.below(most)).min(bytes.len());
            pieces.push(bytes.drain(..n).collect());
        }
        pieces
    }
}

/// Runs the schedules of these seeds; says which one fails. What each came to, in all.
pub fn run_all(seeds: std::ops::Range<u64>, mut run: impl FnMut(u64) -> usize) -> usize {
    let mut sum = 0;
    for seed in seeds {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed))) {
            Ok(came) => sum += came,
            Err(why) => {
                eprintln!("the schedule of seed {seed}");
                std::panic::resume_unwind(why);
            }
        }
    }
    sum
}
