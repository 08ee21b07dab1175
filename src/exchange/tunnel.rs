//! A WebSocket, once upstream has agreed to it (RFC 6455 §4.2.2): a tunnel for bytes in both directions.
//!
//! Every byte goes on as it came, for as long as either side has something to say; a copy is read along for the
//! generations that it carries ([`ReadAlong`]). A tunnel never waits: [`Tunnel::advance`] goes as far as both sockets
//! let it, and says why it stopped. The loop that has its client drives it, so that an idle one costs no thread. What
//! the one side does not take, the other is not asked for: a tunnel holds one read of each at most.
//!
//! The last byte of a message that ends a generation waits for its row, as the tail of a reply does: the loop hands the
//! tunnel to a worker, who commits the row and brings it back.
//!
//! ```text
//!  101 ──▶ advance ─┬─▶ Dry (nothing moves), More (its turn is over) ──▶ later, advance
//!            ▲      ├─▶ Settle ──worker: commit──▶ settled ─┬─▶ advance
//!            └──────┼───────────────────────────────────────┘
//!                   └─▶ Over ──▶ finish             (its end has come meanwhile) ──▶ finish
//! ```

pub mod polled_upstream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::mem;
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::draft::{CANCELLED_HERE, Speaker};
use super::line::log_generation;
use super::polled;
use crate::calendar::now_ms;
use crate::client::{CalledOff, Loan, Socket};
use crate::counters::OpenSocket;
use crate::http::websocket::close_frame;
use crate::in_flight::{AskedNow, ExchangePhase, InFlight, ListedExchange, NewEntry};
use crate::limits::{COUNTS_TIME_MAX, HALF_CLOSED_TIME_MAX};
use crate::models::SeenModels;
use crate::record::row::{Outcome, Row};
use crate::usage::listing::ModelListing;
use crate::usage::socket::{Generation, GenerationEnd, ReadAlong};

/// So many times its scratch space is moved through one tunnel before the others have their turn: 256 KB.
const TURN_READS_MAX: usize = 4;
/// The status of a WebSocket that ends because its server goes away (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;

/// The upstream side of a tunnel. It never waits.
pub trait UpstreamSide: Send {
    /// Appends what has come to `out`, and says whether that was the last. `WouldBlock`: nothing has come.
    fn read(&mut self, out: &mut Vec<u8>) -> io::Result<bool>;
    /// How many of the bytes it takes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Whether all that it took is sent.
    fn flush(&mut self) -> io::Result<bool>;
    /// Whether upstream has broken it off, as far as nobody was told so yet.
    fn is_broken(&self) -> bool;
    /// An event of its socket. `hung_up`: upstream has ended its side, of which no further event will tell.
    fn ready(&mut self, hung_up: bool);
    /// Nothing more will be written.
    fn end(&mut self);
    /// Closed from now on, it is reset.
    fn reset(&mut self);
    /// What is polled.
    fn descriptor(&self) -> Option<&Arc<StdTcpStream>>;
}

/// Where others see what goes on in a tunnel, and learn of models.
#[derive(Clone, Default)]
pub struct Onlookers {
    /// Its generations.
    pub in_flight: Arc<InFlight>,
    /// What LM Studio says of models.
    pub models: Arc<SeenModels>,
}

/// Why a tunnel stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelStep {
    /// Neither side has sent more, or takes more.
    Dry,
    /// There is more to do, but others shall have their turn.
    More,
    /// Rows are to be committed before it goes on: [`Tunnel::take_rows`], then [`Tunnel::settled`].
    Settle,
    /// It has ended: [`Tunnel::finish`].
    Over,
}

/// How a tunnel, or the generations in it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides ended it in good order.
    Both,
    /// The client is gone.
    ClientLeft,
    /// Upstream ended its side first.
    UpstreamEnded,
    /// Upstream broke it off.
    UpstreamReset,
    /// The proxy is stopping.
    Shutdown,
    /// It was called off here.
    Cancelled,
    /// The proxy cannot go on with it.
    Failed,
}

impl From<CalledOff> for TunnelEnd {
    fn from(why: CalledOff) -> TunnelEnd {
        match why {
            CalledOff::ClientLeft | CalledOff::ClientVanished => TunnelEnd::ClientLeft,
            CalledOff::Shutdown => TunnelEnd::Shutdown,
            CalledOff::Here => TunnelEnd::Cancelled,
        }
    }
}

/// How far one direction has come: one half of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    /// More may come.
    Open,
    /// Its sender has ended it; what it sent before may still be on its way.
    Ended,
    /// Its receiver has been told so.
    Told,
}

/// One WebSocket.
pub struct Tunnel<S: Socket = TcpStream> {
    loan: Loan<S>,
    upstream: Box<dyn UpstreamSide>,
    /// `None` after a bug in it.
    reader: Option<Box<dyn ReadAlong>>,
    speaker: Speaker,
    onlookers: Onlookers,
    /// The generations that go on, by their numbers.
    listed: HashMap<u64, ListedExchange>,
    began: Instant,
    /// What its client has not taken yet.
    to_client: Vec<u8>,
    /// So many of these bytes may leave; those behind, and the end, wait for rows.
    free: usize,
    /// What upstream has not taken yet.
    to_upstream: Vec<u8>,
    from_client: Half,
    from_upstream: Half,
    /// All that upstream's side took is sent.
    is_sent: bool,
    /// Upstream has broken it off and takes nothing more, but may have said something before.
    is_deaf: bool,
    /// Generations whose rows are to be committed, with how the tunnel ended where that is what ended them.
    unsettled: Vec<(Generation, Option<TunnelEnd>)>,
    end: Option<TunnelEnd>,
    _counted: OpenSocket,
}

impl Tunnel {
    /// Only Unix can poll the socket of an upstream.
    pub const ARE_POSSIBLE: bool = polled::IS_POSSIBLE;
}

#[cfg(test)]
impl<S: Socket> Tunnel<S> {
    /// Of a client that says nothing of itself.
    pub(crate) fn of_nobody(
        loan: Loan<S>,
        head: &[u8],
        upstream: impl UpstreamSide + 'static,
        reader: impl ReadAlong + 'static,
    ) -> Box<Tunnel<S>> {
        let handshake = b"GET /llm HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let (asked, _) = crate::http::read_head(handshake, &mut 0).expect("a valid head").expect("a whole head");
        let key = Arc::new(super::credential::FingerprintKey::new([0; 32]));
        let counted = OpenSocket::new(&Arc::default()).expect("the first one");
        let speaker = Speaker::new(key, true, &asked);
        Box::new(Tunnel::new(
            loan,
            head.to_vec(),
            Box::new(upstream),
            Box::new(reader),
            speaker,
            Onlookers::default(),
            counted,
        ))
    }
}

impl<S: Socket> Tunnel<S> {
    /// Of a handshake that upstream has agreed to with this head.
    pub fn new(
        loan: Loan<S>,
        head: Vec<u8>,
        upstream: Box<dyn UpstreamSide>,
        reader: Box<dyn ReadAlong>,
        speaker: Speaker,
        onlookers: Onlookers,
        counted: OpenSocket,
    ) -> Tunnel<S> {
        Tunnel {
            loan,
            upstream,
            reader: Some(reader),
            speaker,
            onlookers,
            listed: HashMap::new(),
            began: Instant::now(),
            free: head.len(),
            to_client: head,
            to_upstream: Vec::new(),
            from_client: Half::Open,
            from_upstream: Half::Open,
            is_sent: true,
            is_deaf: false,
            unsettled: Vec::new(),
            end: None,
            _counted: counted,
        }
    }

    /// The token of its client's connection.
    pub fn token(&self) -> usize {
        self.loan.client().token()
    }

    /// The socket to upstream, for whoever polls it.
    pub fn descriptor(&self) -> Option<&Arc<StdTcpStream>> {
        self.upstream.descriptor()
    }

    /// An event of that socket. `hung_up`: upstream has ended its side, of which no further event will tell.
    pub fn ready(&mut self, hung_up: bool) {
        self.upstream.ready(hung_up);
        // Behind its end nobody reads, and would learn of it.
        if hung_up && self.from_upstream != Half::Open && self.upstream.is_broken() {
            self.is_deaf = true;
        }
    }

    /// Goes as far as both sides let it. `client` reads from the client.
    pub fn advance(
        &mut self,
        client: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
        scratch: &mut [u8],
    ) -> TunnelStep {
        let mut moved = 0;
        loop {
            let before = moved;
            match self.serve_client() {
                Ok(n) => moved += n,
                Err(_) => return self.break_off(TunnelEnd::ClientLeft),
            }
            if !self.unsettled.is_empty() {
                return TunnelStep::Settle;
            }
            match self.read_upstream() {
                Ok(n) => moved += n,
                Err(_) => return self.break_off(TunnelEnd::UpstreamReset),
            }
            moved += self.serve_upstream();
            match self.read_client(client, scratch) {
                Ok(n) => moved += n,
                Err(_) => return self.break_off(TunnelEnd::ClientLeft),
            }
            if self.is_deaf && self.from_upstream != Half::Open {
                return self.break_off(TunnelEnd::UpstreamReset);
            }
            if (self.from_client, self.from_upstream) == (Half::Told, Half::Told) {
                return self.break_off(TunnelEnd::Both);
            }
            if moved == before {
                return TunnelStep::Dry;
            }
            if moved > TURN_READS_MAX * scratch.len() {
                return TunnelStep::More;
            }
        }
    }

    /// Ends it, whatever is under way. The client's end counts where that came first.
    pub fn break_off(&mut self, end: TunnelEnd) -> TunnelStep {
        self.end.get_or_insert(end);
        self.end_generations(end);
        if self.unsettled.is_empty() { TunnelStep::Over } else { TunnelStep::Settle }
    }

    /// Whether nothing would be lost if the proxy stopped now.
    pub fn is_idle(&self) -> bool {
        self.reader.as_ref().is_none_or(|reader| reader.is_idle())
            && self.unsettled.is_empty()
            && self.to_client.is_empty()
            && self.to_upstream.is_empty()
            && self.is_sent
            && self.is_at_boundary()
    }

    /// Whether generations go on for a client that has left: upstream may still tell what they took.
    pub fn is_left_running(&self) -> bool {
        self.from_client != Half::Open && self.running() > 0
    }

    /// How long it may stay as it is where a side has ended its half.
    pub fn half_closed_time_max(&self) -> Option<Duration> {
        match (self.from_client, self.from_upstream) {
            (Half::Open, Half::Open) => None,
            _ if self.is_left_running() => Some(COUNTS_TIME_MAX),
            _ => Some(HALF_CLOSED_TIME_MAX),
        }
    }

    /// That time is over: neither side is waited for any longer.
    pub fn expire(&mut self) -> TunnelStep {
        let end = if self.from_client == Half::Open { TunnelEnd::Both } else { TunnelEnd::ClientLeft };
        self.break_off(end)
    }

    // ---- towards the client ------------------------------------------------------------------------------------

    /// Writes what the client takes of what may leave; what has moved.
    fn serve_client(&mut self) -> io::Result<usize> {
        let mut moved = 0;
        if self.free > 0 {
            moved = self.loan.client().write_now(&self.to_client[..self.free])?;
            self.free -= moved;
            self.to_client.drain(..moved);
        }
        if self.to_client.is_empty() {
            // Idle for hours, perhaps.
            self.to_client = Vec::new();
            if self.from_upstream == Half::Ended && self.unsettled.is_empty() {
                let _ = self.loan.client().stream().shutdown(Shutdown::Write);
                self.from_upstream = Half::Told;
                moved += 1;
            }
        }
        Ok(moved)
    }

    fn read_upstream(&mut self) -> io::Result<usize> {
        if !self.to_client.is_empty() || self.from_upstream != Half::Open {
            return Ok(0);
        }
        let ended = match self.upstream.read(&mut self.to_client) {
            Ok(ended) => ended,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) => return Err(e),
        };
        self.free = self.to_client.len();
        let bytes = mem::take(&mut self.to_client);
        if let Some(free) = self.read_along(|reader, at_us| reader.upstream_sent(&bytes, at_us)) {
            self.free = free;
        }
        self.to_client = bytes;
        self.note_ended();
        if ended {
            self.from_upstream = Half::Ended;
            self.end_generations(if self.is_deaf { TunnelEnd::UpstreamReset } else { TunnelEnd::UpstreamEnded });
        }
        if self.unsettled.is_empty() {
            // Nothing that would let them go later.
            self.free = self.to_client.len();
        }
        Ok(self.to_client.len() + usize::from(ended))
    }

    // ---- towards upstream --------------------------------------------------------------------------------------

    fn serve_upstream(&mut self) -> usize {
        let mut moved = 0;
        if !self.to_upstream.is_empty() {
            moved = self.write_upstream(None);
        }
        if self.from_client != Half::Told {
            // Under TLS, what it took may wait for the socket.
            self.is_sent = match self.upstream.flush() {
                Ok(is_sent) => is_sent,
                Err(_) => {
                    self.is_deaf = true;
                    true
                }
            };
        }
        if self.from_client == Half::Ended && self.to_upstream.is_empty() && self.is_sent {
            self.upstream.end();
            self.from_client = Half::Told;
            moved += 1;
        }
        moved
    }

    /// Writes `fresh`, or what waits. What it does not take waits.
    fn write_upstream(&mut self, fresh: Option<&[u8]>) -> usize {
        let bytes = fresh.unwrap_or(&self.to_upstream);
        let taken = match self.upstream.write(bytes) {
            Ok(n) => n,
            Err(_) => {
                self.is_deaf = true;
                bytes.len()
            }
        };
        match fresh {
            Some(fresh) => self.to_upstream.extend_from_slice(&fresh[taken..]),
            None if taken == self.to_upstream.len() => self.to_upstream = Vec::new(),
            None => drop(self.to_upstream.drain(..taken)),
        }
        taken
    }

    fn read_client(
        &mut self,
        client: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
        scratch: &mut [u8],
    ) -> io::Result<usize> {
        if !self.to_upstream.is_empty() || self.from_client != Half::Open {
            return Ok(0);
        }
        let n = match client(scratch) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(e) => return Err(e),
        };
        if n == 0 {
            self.from_client = Half::Ended;
            return Ok(1);
        }
        let bytes = &scratch[..n];
        self.read_along(|reader, at_us| reader.client_sent(bytes, at_us));
        if let Some(token) = self.reader.as_mut().and_then(|reader| reader.take_token()) {
            self.speaker.note_token(&token);
        }
        self.note_begun();
        self.note_ended();
        if !self.is_deaf {
            self.write_upstream(Some(bytes));
        }
        Ok(n)
    }

    // ---- reading along -----------------------------------------------------------------------------------------

    /// A bug in reading ends the reading, and nothing else.
    fn read_along<T>(&mut self, read: impl FnOnce(&mut dyn ReadAlong, u64) -> T) -> Option<T> {
        let at_us = self.elapsed_us();
        let reader = self.reader.as_mut()?;
        let came = catch_unwind(AssertUnwindSafe(|| read(reader.as_mut(), at_us)));
        if came.is_err() {
            log::error!("{}: a WebSocket is not read any more, by a bug of the proxy", self.loan.client().peer());
            self.reader = None;
        }
        came.ok()
    }

    /// Others see from now on what has begun.
    fn note_begun(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        for begun in reader.take_begun() {
            let beginning = NewEntry {
                endpoint: begun.endpoint.to_owned(),
                began: self.began + Duration::from_micros(begun.began_us),
                start_ms: now_ms(),
                body_bytes: begun.prompt_bytes,
                phase: ExchangePhase::Waiting,
            };
            let listed = self.onlookers.in_flight.begin_on_socket(self.loan.client(), beginning);
            let client = self.speaker.client().or(reader.client_name()).map(str::to_owned);
            listed.note_asked(AskedNow { client, model: begun.model, conversation: None });
            listed.follow(begun.progress);
            self.listed.insert(begun.number, listed);
        }
    }

    fn note_ended(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        let ended = reader.take_ended();
        let is_called_off = self.unsettle(ended, None);
        let Some(reader) = &mut self.reader else { return };
        let models = reader.take_news();
        if !models.is_empty() {
            self.onlookers.models.learn(&ModelListing { models, is_complete: false }, now_ms());
        }
        let missed = reader.take_missed();
        if missed > 0 {
            let peer = self.loan.client().peer();
            log::warn!(
                "{peer}: {missed} generations of a WebSocket leave no row: too many at once, or of a taken number"
            );
        }
        if is_called_off {
            // Its end, which has just come, must not reach the client: the loop is about to learn that it was called off.
            self.break_off(TunnelEnd::Cancelled);
            self.to_client.truncate(self.free);
        }
    }

    /// What has ended waits for its row, with how the tunnel ended if that is what ended it; true where one of them was
    /// called off before, whatever ended it.
    fn unsettle(&mut self, ended: Vec<Generation>, end: Option<TunnelEnd>) -> bool {
        let mut is_any = false;
        for mut generation in ended {
            let mut end = end;
            if self.listed.remove(&generation.number).is_some_and(|listed| !listed.decide()) {
                (generation.end, end, is_any) = (GenerationEnd::Open, Some(TunnelEnd::Cancelled), true);
            }
            self.unsettled.push((generation, end));
        }
        is_any
    }

    fn end_generations(&mut self, end: TunnelEnd) {
        let end = if self.from_client == Half::Open { end } else { TunnelEnd::ClientLeft };
        let left = self.read_along(|reader, at_us| reader.end(at_us)).unwrap_or_default();
        self.unsettle(left, Some(end));
        self.listed.clear();
    }

    fn running(&self) -> usize {
        self.reader.as_ref().map_or(0, |reader| reader.running())
    }

    fn is_at_boundary(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| reader.is_at_boundary())
    }

    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    // ---- rows and the end --------------------------------------------------------------------------------------

    /// The rows of the generations that have ended.
    pub fn take_rows(&mut self) -> Vec<Row> {
        let client = self.reader.as_ref().and_then(|reader| reader.client_name());
        let peer = self.loan.client().peer();
        let row = |(generation, end): (Generation, Option<TunnelEnd>)| {
            let (outcome, error) = end.map_or((Outcome::Completed, None), words_of);
            let row = self.speaker.row(generation, client, (self.began, &self.onlookers.models), (outcome, error));
            log_generation(peer, &row, error);
            row
        };
        mem::take(&mut self.unsettled).into_iter().map(row).collect()
    }

    /// Their rows are committed. It goes on, unless its end has come.
    pub fn settled(mut self: Box<Self>) -> Option<Box<Self>> {
        self.free = self.to_client.len();
        if self.end.is_some() {
            (*self).finish();
            return None;
        }
        Some(self)
    }

    /// Closes both sides so that each sees what has become of the other.
    pub fn finish(mut self) {
        log::debug!("{}: a WebSocket has ended: {:?}", self.loan.client().peer(), self.end);
        match self.end {
            Some(TunnelEnd::Both | TunnelEnd::Shutdown) => {
                if self.end == Some(TunnelEnd::Shutdown) && self.is_at_boundary() {
                    self.to_client.extend(close_frame(GOING_AWAY));
                }
                self.loan.make_last();
                self.loan.give_back_with(self.to_client, true);
            }
            Some(TunnelEnd::UpstreamEnded | TunnelEnd::UpstreamReset | TunnelEnd::Cancelled | TunnelEnd::Failed) => {
                if self.end == Some(TunnelEnd::Cancelled) {
                    self.upstream.reset();
                }
                self.loan.make_last_unframed();
                self.loan.give_back_with(self.to_client, false);
            }
            Some(TunnelEnd::ClientLeft) | None => {
                self.upstream.reset();
                self.loan.cut();
            }
        }
    }
}

/// What the row of a generation says that the end of its tunnel has ended.
fn words_of(end: TunnelEnd) -> (Outcome, Option<&'static str>) {
    match end {
        TunnelEnd::ClientLeft => (Outcome::ClientClosed, None),
        // A client that had ended its side first has left: so upstream has ended its own, and the client has not.
        TunnelEnd::Both | TunnelEnd::UpstreamEnded => {
            (Outcome::Truncated, Some("upstream ended the WebSocket in the middle of it"))
        }
        TunnelEnd::UpstreamReset => (Outcome::Truncated, Some("upstream broke off the WebSocket in the middle of it")),
        TunnelEnd::Shutdown => (Outcome::Shutdown, Some("the proxy was stopped before it ended")),
        TunnelEnd::Cancelled => (Outcome::CancelledHere, Some(CANCELLED_HERE)),
        TunnelEnd::Failed => {
            (Outcome::Truncated, Some("the proxy could not go on with the WebSocket; its log says why"))
        }
    }
}
