//! `GET /stats/live`: server-sent events, one for every request as it ends, as long as somebody listens.
//!
//! ```text
//!  statistics ──join──▶ arriving ──▶ listener ──(left, too slow, or the proxy stops)──▶ returned to its loop
//!                                       ▲
//!            commit ──bell──▶ teller ───┘ reads what is new from the database, once for all listeners
//! ```
//!
//! The thread that commits a row only rings a bell, and even that only while somebody listens. The teller is a worker's
//! job for as long, with a reading connection of its own; the database is its queue, so nothing is copied and nothing
//! fills up. Nobody is waited for: what a listener's socket does not take is kept, up to [`LISTENER_BYTES_MAX`], and tried
//! again. Its connection stays lent until it leaves.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{mem, thread};

use rusqlite::params;

use super::answers::RequestRow;
use super::filter::Filter;
use super::local_stream::LocalStream;
use super::price::Prices;
use super::reader::Reader;
use super::rows::REQUEST_COLUMNS;
use super::sources::Sources;
use crate::bell::lock;
use crate::calendar::ms_of_text;
use crate::client::{Interrupt, Lend};
use crate::http::reply::Reply;
use crate::limits::{LISTENER_BYTES_MAX, LISTENER_RETRY_S, LISTENERS_MAX};
use crate::outage::Outage;
use crate::record::connections::ConnectionSlot;
use crate::record::database_file::FileId;
use crate::record::recorder::Recorder;
use crate::routes::Names;

/// A comment is sent after so long a silence. Proxies in between give up after 30 to 60 s.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How soon bytes that a listener did not take are tried again.
const UNSENT_GAP: Duration = Duration::from_millis(200);
/// How soon a database that could not be read is tried again.
const RETRY_GAP: Duration = Duration::from_secs(1);
/// Rows read at once.
const ROWS_MAX: usize = 100;

/// The way to the listeners.
pub struct Live {
    sources: Arc<Sources>,
    audience: Mutex<Audience>,
}

/// Who listens, as far as others than the teller know.
#[derive(Default)]
struct Audience {
    /// To be let in by the teller.
    arriving: Vec<Listener>,
    /// How many it has let in.
    listening: usize,
    /// There is a teller, or will be in a moment.
    is_told: bool,
    /// The proxy stops.
    closed: bool,
}

/// Somebody who listens.
struct Listener {
    filter: Filter,
    /// What it wants costs to be told by, if not as others.
    prices: Option<Arc<Prices>>,
    stream: LocalStream,
}

/// Calling off a listener's exchange wakes the teller, which then sees who has left.
struct Leave(Arc<Recorder>);

impl Interrupt for Leave {
    fn interrupt(&self) {
        self.0.new_rows().ring();
    }
}

impl Live {
    /// Nobody listens yet.
    pub fn new(sources: Arc<Sources>) -> Live {
        Live { sources, audience: Mutex::default() }
    }

    /// Lets somebody in who wants to hear of what the filter lets pass, perhaps with costs by prices of its own.
    pub fn join(self: &Arc<Live>, filter: Filter, prices: Option<Arc<Prices>>, lend: Lend) {
        // Nobody else lets anybody in.
        let refusal = {
            let audience = self.audience();
            let is_full = audience.listening + audience.arriving.len() >= LISTENERS_MAX;
            let full = is_full.then_some("Too many listen already.");
            if audience.closed { Some("The proxy is stopping.") } else { full }
        };
        if let Some(why) = refusal.filter(|_| lend.head.method() != "HEAD") {
            return lend.answer(&Reply::overloaded(why, LISTENER_RETRY_S));
        }
        let fields: [(&str, &[u8]); 3] = [
            ("Content-Type", b"text/event-stream"),
            ("Cache-Control", b"no-store"),
            // nginx would gather the events otherwise.
            ("X-Accel-Buffering", b"no"),
        ];
        let Some(stream) = LocalStream::begin(lend, &fields, None) else { return };
        if stream.client().interrupts(Arc::new(Leave(self.sources.recorder.clone()))).is_err() {
            return;
        }
        let is_told = {
            let mut audience = self.audience();
            audience.arriving.push(Listener { filter, prices, stream });
            self.sources.recorder.new_rows().set_awaited(true);
            mem::replace(&mut audience.is_told, true)
        };
        if is_told {
            self.sources.recorder.new_rows().ring();
        } else {
            let teller = Teller { live: self.clone(), listeners: Vec::new() };
            self.sources.workers.do_beside(move || teller.tell());
        }
    }

    /// How many listen.
    pub fn listening(&self) -> usize {
        self.audience().listening
    }

    /// Lets nobody in any more and sends everybody home.
    pub fn close(&self) {
        self.audience().closed = true;
        self.sources.recorder.new_rows().ring();
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        lock(&self.audience)
    }
}

/// Tells all listeners. A bug in it costs those of that moment their connections, and nobody else's.
struct Teller {
    live: Arc<Live>,
    listeners: Vec<Listener>,
}

impl Drop for Teller {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut audience = self.live.audience();
            *audience = Audience { closed: audience.closed, ..Audience::default() };
        }
    }
}

impl Teller {
    fn tell(mut self) {
        let live = self.live.clone();
        let source: ConnectionSlot<Reader> = live.sources.recorder.slot();
        // Before it is opened here: see `with_file`.
        live.sources.recorder.find_database();
        let mut told_until = None;
        let mut spoke = Instant::now();
        let unreadable = Outage::new();
        while self.let_in() {
            let (mut more, mut waits) = (false, KEEP_ALIVE);
            match source.with(|source| live.news(source, &mut told_until)) {
                Ok(rows) if !rows.is_empty() => {
                    more = rows.len() == ROWS_MAX;
                    self.listeners.iter_mut().for_each(|listener| rows.iter().for_each(|row| listener.hear(row)));
                    spoke = Instant::now();
                }
                Ok(_) => unreadable.over(|count| format!("what happens can be told again; that failed {count} times")),
                Err(e) => {
                    source.with(|source| *source = None);
                    waits = RETRY_GAP;
                    unreadable.warn(format_args!("what happens cannot be told: {e}"));
                }
            }
            if spoke.elapsed() >= KEEP_ALIVE {
                self.listeners.iter_mut().for_each(|listener| listener.stream.push(b": still here\n\n"));
                spoke = Instant::now();
            }
            let before = self.listeners.len();
            self.listeners.retain_mut(Listener::send);
            if more || self.listeners.len() < before {
                continue;
            }
            if self.listeners.iter().any(|listener| listener.stream.unsent() > 0) {
                waits = UNSENT_GAP;
            }
            live.sources.recorder.new_rows().wait_for(waits.min(KEEP_ALIVE.saturating_sub(spoke.elapsed())));
        }
        self.listeners.drain(..).for_each(Listener::part);
    }

    /// Lets in who has arrived; false when nobody listens any more, or the proxy stops.
    fn let_in(&mut self) -> bool {
        let mut audience = self.live.audience();
        self.listeners.append(&mut audience.arriving);
        let is_told = !(audience.closed || self.listeners.is_empty());
        audience.listening = self.listeners.len();
        audience.is_told = is_told;
        // Under the lock, so that it does not undo what an arrival has just done.
        self.live.sources.recorder.new_rows().set_awaited(is_told);
        is_told
    }
}

impl Live {
    /// What is new since the last call; after the first, nothing. `told_until`: how far that was, of which file.
    fn news(
        &self,
        source: &mut Option<Reader>,
        told_until: &mut Option<(Option<FileId>, i64)>,
    ) -> rusqlite::Result<Vec<LiveEvent>> {
        let is_new = source.is_none();
        let reader = match source {
            Some(reader) => reader,
            None => source.insert(self.sources.open()?),
        };
        let last = match told_until {
            Some((_, last)) if !is_new => last,
            _ => {
                let newest: i64 =
                    reader.conn.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?;
                let file = FileId::of(&self.sources.database);
                let last = match told_until {
                    None => newest,
                    // Opened anew, it goes on where it was.
                    Some((same, last)) if *same == file && *last <= newest => *last,
                    // Another database by now: what it came with is no news.
                    Some(_) => {
                        self.sources.recorder.new_rows().begun_behind(file).map_or(newest, |begun| begun.min(newest))
                    }
                };
                &mut told_until.insert((file, last)).1
            }
        };
        let mut told = Vec::new();
        let query = format!("SELECT {REQUEST_COLUMNS} FROM requests WHERE id > ?1 ORDER BY id LIMIT ?2");
        let mut statement = reader.conn.prepare_cached(&query)?;
        let rows = statement.query_map(params![*last, ROWS_MAX as i64], |row| reader.request_of(row))?;
        for request in rows {
            told.push(LiveEvent::new(request?));
        }
        if let Some(newest) = told.last() {
            *last = newest.request.id;
        }
        Ok(told)
    }
}

/// A row as an event.
struct LiveEvent {
    request: RequestRow,
    start_ms: i64,
    text: String,
}

impl LiveEvent {
    fn new(request: RequestRow) -> LiveEvent {
        let json = serde_json::to_string(&request).expect("figures and strings are always JSON");
        let start_ms = ms_of_text(&request.start_time).unwrap_or(0);
        LiveEvent { text: format!("id: {}\ndata: {json}\n\n", request.id), start_ms, request }
    }
}

impl Listener {
    fn hear(&mut self, event: &LiveEvent) {
        let LiveEvent { request, start_ms, text } = event;
        let [client, key] = [&request.client, &request.key].map(|name| name.as_deref().unwrap_or_default());
        let names: Names<&str> = [&request.model, &request.endpoint, client, key, &request.outcome];
        let in_time = self.filter.from_ms.is_none_or(|from| from <= *start_ms)
            && self.filter.to_ms.is_none_or(|to| *start_ms < to);
        let is_wanted = self.filter.takes_conversation(request.conversation.as_deref());
        if in_time && is_wanted && self.filter.matches(&names) {
            match &self.prices {
                None => self.stream.push(text.as_bytes()),
                Some(prices) => {
                    let priced = RequestRow { cost: Some(prices.of_row(request)), ..request.clone() };
                    self.stream.push(LiveEvent::new(priced).text.as_bytes());
                }
            }
        }
    }

    /// Sends what the socket takes at once. False when the listener has left or lags too far behind; then its
    /// connection is cut.
    fn send(&mut self) -> bool {
        self.stream.client().called_off().is_none()
            && self.stream.send_now().is_ok()
            && self.stream.unsent() <= LISTENER_BYTES_MAX
    }

    /// The proxy stops: the stream ends well, if it can at once.
    fn part(mut self) {
        if self.send() && self.stream.unsent() == 0 {
            self.stream.client().withdraw();
            self.stream.end_for_good();
        }
    }
}
