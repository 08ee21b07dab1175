//! What goes on now: an entry for each exchange and for each generation on a WebSocket, from the moment its request is
//! whole until its reply is about to end. It is for people who look; but whether it ends by itself or is called off is
//! decided here, once, before anything of its end is written or sent.
//!
//! Whoever has the exchange in hand notes how far it is, in atomics of its entry. Whoever looks copies a few entries at a
//! time under a lock that no request waits for longer than that takes: some 0.1 us.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::bell::lock;
use crate::client::{Client, Returns, Socket};
use crate::order::sort_by_key;
use crate::usage::ReplyProgress;

/// Lists with a lock of their own, so that the threads that begin exchanges hardly ever meet.
const LISTS: u64 = 16;
/// So many places are looked at under one lock.
const PLACES_AT_ONCE: usize = 16;

/// All entries.
#[derive(Default)]
pub struct InFlight {
    ids: AtomicU64,
    lists: [Mutex<EntryList>; LISTS as usize],
}

#[derive(Default)]
struct EntryList {
    places: Vec<Option<Arc<UnderWay>>>,
    free: Vec<usize>,
}

/// How far an exchange is, as long as nothing of its answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExchangePhase {
    /// It waits for a place: for an exchange to end, or for its turn to connect.
    Queued,
    /// It has no connection to upstream yet.
    Connecting,
    /// Nothing of the answer has come: upstream loads a model, or processes the prompt.
    Waiting,
    /// The answer comes.
    Generating,
}

impl ExchangePhase {
    const TABLE: [(ExchangePhase, &str); 4] = [
        (ExchangePhase::Queued, "queued"),
        (ExchangePhase::Connecting, "connecting"),
        (ExchangePhase::Waiting, "waiting"),
        (ExchangePhase::Generating, "generating"),
    ];

    /// All of them, in the order in which an exchange goes through them.
    pub fn all() -> [ExchangePhase; 4] {
        ExchangePhase::TABLE.map(|(phase, _)| phase)
    }

    /// Its word in JSON and text.
    pub fn as_str(self) -> &'static str {
        ExchangePhase::TABLE[self as usize].1
    }
}

/// What is known of a request from its words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedNow {
    /// Who asks.
    pub client: Option<String>,
    /// The model that is asked for.
    pub model: Option<String>,
    /// The conversation that the request names.
    pub conversation: Option<String>,
}

/// One that goes on.
pub struct UnderWay {
    id: u64,
    endpoint: String,
    began: Instant,
    start_ms: i64,
    body_bytes: Option<u64>,
    /// Microseconds from the beginning to the phase, and which it is, in the lowest two bits.
    phase: AtomicU64,
    /// As far as was looked at before it began.
    queued: OnceLock<AskedNow>,
    asked: OnceLock<AskedNow>,
    progress: OnceLock<Arc<ReplyProgress>>,
    /// What becomes of it: [`OPEN`], [`DECIDED`] or [`CALLED_OFF`].
    end: AtomicU8,
    /// The exchange of the connection that it goes on in: itself, or the handshake of its WebSocket.
    exchange: u64,
    loop_of_client: Arc<Returns>,
    token: usize,
}

/// It goes on, and can be called off.
const OPEN: u8 = 0;
/// It ends by itself, and that is about to be told.
const DECIDED: u8 = 1;
/// Somebody calls it off, and was told so.
const CALLED_OFF: u8 = 2;

/// Its beginning.
pub struct NewEntry {
    /// Its path without the query, or what a generation on a WebSocket is known by.
    pub endpoint: String,
    /// When it began, on the monotonic clock,
    pub began: Instant,
    /// and in milliseconds since 1970-01-01T00:00:00Z.
    pub start_ms: i64,
    /// Bytes of the request's body, or of the prompt.
    pub body_bytes: Option<u64>,
    /// How far it is.
    pub phase: ExchangePhase,
}

/// That one is among those that go on, for as long as this is kept.
pub struct ListedExchange {
    all: Arc<InFlight>,
    entry: Arc<UnderWay>,
    place: usize,
}

/// What became of calling one off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOff {
    /// There is none of this id.
    Unknown,
    /// It has ended by itself, or is about to.
    HasEnded,
    /// These end: of a WebSocket, all generations that go on.
    Ends(Vec<u64>),
}

impl InFlight {
    /// An exchange begins on the connection of this client.
    pub fn begin<S: Socket>(self: &Arc<InFlight>, client: &Client<S>, beginning: NewEntry) -> ListedExchange {
        let id = self.next_id();
        client.carry(id);
        self.list(id, id, client, beginning)
    }

    /// A generation begins on the WebSocket that the connection of this client is.
    pub fn begin_on_socket<S: Socket>(self: &Arc<InFlight>, client: &Client<S>, beginning: NewEntry) -> ListedExchange {
        self.list(self.next_id(), client.carried(), client, beginning)
    }

    fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn list<S: Socket>(
        self: &Arc<InFlight>,
        id: u64,
        exchange: u64,
        client: &Client<S>,
        beginning: NewEntry,
    ) -> ListedExchange {
        let NewEntry { endpoint, began, start_ms, body_bytes, phase } = beginning;
        let entry = Arc::new(UnderWay {
            id,
            endpoint,
            began,
            start_ms,
            body_bytes,
            phase: AtomicU64::new(phase as u64),
            queued: OnceLock::new(),
            asked: OnceLock::new(),
            progress: OnceLock::new(),
            end: AtomicU8::new(OPEN),
            exchange,
            loop_of_client: client.returns().clone(),
            token: client.token(),
        });
        let place = lock(self.list_of(id)).put(entry.clone());
        ListedExchange { all: self.clone(), entry, place }
    }

    fn list_of(&self, id: u64) -> &Mutex<EntryList> {
        &self.lists[(id % LISTS) as usize]
    }

    /// All that go on, the eldest first.
    pub fn all(&self) -> Vec<Arc<UnderWay>> {
        let mut all = Vec::new();
        for list in &self.lists {
            let (mut at, mut more) = (0, true);
            while more {
                // Memory is had before the lock.
                all.reserve(PLACES_AT_ONCE);
                let list = lock(list);
                let rest = list.places.get(at..).unwrap_or_default();
                all.extend(rest.iter().take(PLACES_AT_ONCE).flatten().cloned());
                more = rest.len() > PLACES_AT_ONCE;
                at += PLACES_AT_ONCE;
            }
        }
        sort_by_key(&mut all, |entry| entry.id);
        all
    }

    /// Calls off the one of this id.
    pub fn call_off(&self, id: u64) -> CallOff {
        let all = self.all();
        let Some(found) = all.iter().find(|entry| entry.id == id) else { return CallOff::Unknown };
        if !found.end_as(CALLED_OFF) {
            return CallOff::HasEnded;
        }
        let mut ids = Vec::new();
        for entry in all.iter().filter(|entry| entry.exchange == found.exchange) {
            if entry.end_as(CALLED_OFF) {
                ids.push(entry.id);
            }
        }
        found.loop_of_client.call_off(found.token, found.exchange);
        CallOff::Ends(ids)
    }
}

impl EntryList {
    fn put(&mut self, entry: Arc<UnderWay>) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(entry);
                place
            }
            None => {
                self.places.push(Some(entry));
                self.places.len() - 1
            }
        }
    }
}

impl Drop for ListedExchange {
    fn drop(&mut self) {
        let mut list = lock(self.all.list_of(self.entry.id));
        let entry = list.places[self.place].take();
        list.free.push(self.place);
        drop(list);
        // What it holds is given back behind the lock.
        drop(entry);
    }
}

impl std::ops::Deref for ListedExchange {
    type Target = Arc<UnderWay>;

    fn deref(&self) -> &Arc<UnderWay> {
        &self.entry
    }
}

impl UnderWay {
    // ---- who has it in hand ------------------------------------------------------------------------------------

    /// A phase begins now.
    pub fn enter(&self, phase: ExchangePhase) {
        self.enter_at(phase, self.elapsed_us());
    }

    /// The same of one that began at once.
    pub fn enter_at_once(&self, phase: ExchangePhase) {
        self.enter_at(phase, 0);
    }

    fn enter_at(&self, phase: ExchangePhase, at_us: u64) {
        self.phase.store(at_us << 2 | phase as u64, Ordering::Relaxed);
    }

    /// It has to wait, and so much was looked at of its request.
    pub fn note_queued(&self, asked: AskedNow) {
        let _ = self.queued.set(asked);
    }

    /// The request was read.
    pub fn note_asked(&self, asked: AskedNow) {
        let _ = self.asked.set(asked);
    }

    /// It ends by itself, and nobody can call it off from now on. False: somebody has, so that it must end as called off,
    /// whatever has come of it.
    pub fn decide(&self) -> bool {
        self.end_as(DECIDED)
    }

    /// Whether this is how it ends: as was first said.
    fn end_as(&self, end: u8) -> bool {
        let before = self.end.compare_exchange(OPEN, end, Ordering::AcqRel, Ordering::Acquire);
        before.is_ok() || before == Err(end)
    }

    /// The reply tells there how far it has come.
    pub fn follow(&self, progress: Arc<ReplyProgress>) {
        let _ = self.progress.set(progress);
    }

    // ---- who looks ---------------------------------------------------------------------------------------------

    /// Its number, which no other has in the life of this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What is asked for.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// When it began, in milliseconds since 1970-01-01T00:00:00Z.
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// Microseconds since then.
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Bytes of the request's body, or of the prompt.
    pub fn body_bytes(&self) -> Option<u64> {
        self.body_bytes
    }

    /// What is known of the request.
    pub fn asked(&self) -> AskedNow {
        self.asked.get().or(self.queued.get()).cloned().unwrap_or_default()
    }

    /// How far its reply has come, once there is one.
    pub fn progress(&self) -> Option<&ReplyProgress> {
        self.progress.get().map(|progress| &**progress)
    }

    /// Its phase, and when that began, in microseconds from the beginning.
    pub fn phase(&self) -> (ExchangePhase, u64) {
        if let Some(first_us) = self.progress().and_then(|progress| progress.read_so_far().first_us) {
            return (ExchangePhase::Generating, first_us);
        }
        let noted = self.phase.load(Ordering::Relaxed);
        (ExchangePhase::TABLE[(noted & 3) as usize].0, noted >> 2)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use mio::net::TcpStream;
    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::client::{Fate, Return};

    /// A client's connection with this token, and where its loop would find what is left for it.
    fn client(token: usize) -> (Client, Arc<Returns>) {
        let poll = Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).expect("a waker"));
        let returns = Arc::new(Returns::new(waker, Instant::now()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("a bound socket");
        let stream = TcpStream::connect(address).expect("it listens");
        (Client::new(stream, address, token, returns.clone()), returns)
    }

    fn entry(phase: ExchangePhase) -> NewEntry {
        NewEntry { endpoint: "/v1/x".into(), began: Instant::now(), start_ms: 7, body_bytes: None, phase }
    }

    fn ids(all: &InFlight) -> Vec<u64> {
        all.all().iter().map(|entry| entry.id()).collect()
    }

    #[test]
    fn all_are_told_in_order_until_they_are_over() {
        let (client, _returns) = client(1);
        let all = Arc::<InFlight>::default();
        let count = LISTS as usize * (2 * PLACES_AT_ONCE + 1);
        let mut listed: Vec<_> = (0..count).map(|_| all.begin(&client, entry(ExchangePhase::Queued))).collect();
        assert_eq!(ids(&all), (1..=count as u64).collect::<Vec<_>>());
        drop(listed.drain(..count - 2));
        assert_eq!(ids(&all), [count as u64 - 1, count as u64]);
        // Their places are taken again.
        let more: Vec<_> = (2..count).map(|_| all.begin(&client, entry(ExchangePhase::Queued))).collect();
        assert!(all.lists.iter().all(|list| lock(list).places.len() <= 2 * PLACES_AT_ONCE + 2));
        drop((listed, more));
        assert!(ids(&all).is_empty());
    }

    #[test]
    fn what_is_called_off_is_told_to_its_loop_with_what_ends_with_it() {
        let all = Arc::<InFlight>::default();
        let ((one, one_s), (socket, socket_s)) = (client(1), client(2));
        let first = all.begin(&one, entry(ExchangePhase::Waiting));
        let handshake = all.begin(&socket, entry(ExchangePhase::Waiting));
        drop(handshake);
        let on_socket = [(); 2].map(|()| all.begin_on_socket(&socket, entry(ExchangePhase::Waiting)));
        let check = |id, together: CallOff, returns: &Returns, expected: Option<(usize, u64)>| {
            assert_eq!(all.call_off(id), together);
            let told: Vec<_> = returns.mailbox.take().into_iter().map(|Return { token, fate }| (token, fate)).collect();
            let expected: Vec<_> = expected.into_iter().map(|(token, it)| (token, Fate::CalledOff(it))).collect();
            assert_eq!(told, expected);
        };
        check(1, CallOff::Ends(vec![1]), &one_s, Some((1, 1)));
        check(4, CallOff::Ends(vec![3, 4]), &socket_s, Some((2, 2)));
        check(2, CallOff::Unknown, &socket_s, None);
        // Who has it in hand learns of it, and told is the same again.
        assert!(!first.decide() && on_socket.iter().all(|listed| !listed.decide()));
        check(1, CallOff::Ends(vec![1]), &one_s, Some((1, 1)));
        drop((first, on_socket));
        check(1, CallOff::Unknown, &one_s, None);
        // What has ended by itself is not among those that end with another.
        let on_socket = [(); 2].map(|()| all.begin_on_socket(&socket, entry(ExchangePhase::Waiting)));
        assert!(on_socket[0].decide() && on_socket[0].decide());
        check(5, CallOff::HasEnded, &socket_s, None);
        check(6, CallOff::Ends(vec![6]), &socket_s, Some((2, 2)));
    }

    #[test]
    fn an_answer_that_comes_is_a_phase_of_its_own() {
        let (client, _returns) = client(1);
        let listed = Arc::<InFlight>::default().begin(&client, entry(ExchangePhase::Queued));
        assert_eq!(listed.phase(), (ExchangePhase::Queued, 0));
        listed.enter_at(ExchangePhase::Connecting, 5);
        assert_eq!(listed.phase(), (ExchangePhase::Connecting, 5));
        let progress = Arc::<ReplyProgress>::default();
        listed.follow(progress.clone());
        listed.enter_at(ExchangePhase::Waiting, 1 << 60);
        assert_eq!(listed.phase(), (ExchangePhase::Waiting, 1 << 60));
        let read = crate::usage::ReadSoFar { events: Some(1), words: 1, first_us: Some(9), output_tokens: None };
        progress.tell(read, 10);
        assert_eq!(listed.phase(), (ExchangePhase::Generating, 9));
        // What was looked at in the queue counts until the request was read.
        let named = |name: &str| AskedNow { model: Some(name.into()), ..AskedNow::default() };
        listed.note_queued(named("queued"));
        assert_eq!(listed.asked(), named("queued"));
        listed.note_asked(named("asked"));
        assert_eq!(listed.asked(), named("asked"));
    }
}
