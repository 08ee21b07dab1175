//! `GET /stats/live`: server-sent events, one for every request as it ends, as long as somebody listens.
//!
//! ```text
//!  lane ──join──▶ door ──▶ listener ──(left, too slow, or the proxy stops)──▶ returned to the front
//!                             ▲
//!  commit ──bell──▶ teller ───┘ reads what is new from the database, once for all listeners
//! ```
//!
//! The thread that commits a row only rings a bell, and even that only while somebody listens. The teller has a thread
//! and a reading connection of its own; the database is its queue, so nothing is copied and nothing fills up. Nobody is
//! waited for: what a listener's socket does not take is kept, up to [`LISTENER_BYTES_MAX`], and tried again. Its
//! connection stays lent until it leaves.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{io, panic, thread};

use rusqlite::params;

use super::answers::Request;
use super::filter::Filter;
use super::price::Prices;
use super::reader::Reader;
use super::rows::REQUEST_COLUMNS;
use crate::bell::lock;
use crate::calendar::ms_of_text;
use crate::client::{Interrupt, Lend, Loan};
use crate::http::reply::{Reply, ReplyFraming, write_relayed_head};
use crate::limits::{LISTENER_BYTES_MAX, LISTENER_RETRY_S, LISTENERS_MAX, WORKER_STACK_BYTES};
use crate::outage::Outage;
use crate::record::connections::ConnectionSlot;
use crate::record::database_file::FileId;
use crate::record::recorder::Recorder;
use crate::record::series::SeriesNames;
use crate::record::signals::NewRows;

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
    recorder: Arc<Recorder>,
    door: Mutex<Door>,
    listening: AtomicUsize,
}

#[derive(Default)]
struct Door {
    arriving: Vec<Listener>,
    closed: bool,
}

/// Somebody who listens.
struct Listener {
    filter: Filter,
    loan: Loan,
    chunked: bool,
    unsent: Vec<u8>,
}

/// Calling off a listener's exchange wakes the teller, which then sees who has left.
struct Leave(Arc<Recorder>);

impl Interrupt for Leave {
    fn interrupt(&self) {
        self.0.new_rows().ring();
    }
}

impl Live {
    /// Starts the teller for the database at `path`. It ends when the way is closed.
    pub fn start(path: PathBuf, prices: Option<Arc<Prices>>, recorder: Arc<Recorder>) -> io::Result<Arc<Live>> {
        let live = Arc::new(Live { recorder, door: Mutex::default(), listening: AtomicUsize::new(0) });
        let own = live.clone();
        let builder = thread::Builder::new().name("live".into()).stack_size(WORKER_STACK_BYTES);
        builder.spawn(move || {
            // A bug costs the listeners of that moment their connections, and nobody else's.
            while panic::catch_unwind(panic::AssertUnwindSafe(|| tell(&own, &path, prices.as_ref()))).is_err() {
                log::error!("telling what happens ended by a bug of the proxy; it begins anew");
            }
        })?;
        Ok(live)
    }

    /// Lets somebody in who wants to hear of what the filter lets pass.
    pub fn join(&self, filter: Filter, mut lend: Lend) {
        let chunked = lend.head.minor_version() >= 1;
        if !chunked {
            // Only the end of the connection can mark the end of the reply.
            lend.loan.make_last_unframed();
        }
        let head = head(&lend, chunked);
        if lend.head.method() == "HEAD" {
            return lend.loan.give_back_with(head, true);
        }
        let mut door = self.door();
        if door.closed || self.listening.load(Ordering::Relaxed) + door.arriving.len() >= LISTENERS_MAX {
            drop(door);
            return lend.answer(&Reply::overloaded("Too many listen already.", LISTENER_RETRY_S));
        }
        if lend.loan.client().interrupts(Some(Arc::new(Leave(self.recorder.clone())))).is_ok() {
            self.recorder.new_rows().set_awaited(true);
            door.arriving.push(Listener { filter, loan: lend.loan, chunked, unsent: head });
            self.recorder.new_rows().ring();
        }
    }

    /// How many listen.
    pub fn listening(&self) -> usize {
        self.listening.load(Ordering::Relaxed)
    }

    /// Lets nobody in any more and sends everybody home.
    pub fn close(&self) {
        self.door().closed = true;
        self.recorder.new_rows().ring();
    }

    /// Moves who has arrived to `listeners`; false when the way is closed.
    fn let_in(&self, listeners: &mut Vec<Listener>) -> bool {
        let mut door = self.door();
        listeners.append(&mut door.arriving);
        self.listening.store(listeners.len(), Ordering::Relaxed);
        // Under the lock, so that it does not undo what an arrival has just done.
        self.recorder.new_rows().set_awaited(!listeners.is_empty());
        !door.closed
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        lock(&self.door)
    }
}

fn head(lend: &Lend, chunked: bool) -> Vec<u8> {
    let framing = if chunked { ReplyFraming::Chunked } else { ReplyFraming::None };
    let fields: [(&str, &[u8]); 3] = [
        ("Content-Type", b"text/event-stream"),
        ("Cache-Control", b"no-store"),
        // nginx would gather the events otherwise.
        ("X-Accel-Buffering", b"no"),
    ];
    let mut head = Vec::new();
    write_relayed_head(&mut head, (200, "OK"), fields.into_iter(), (framing, ""), lend.persistence());
    head
}

/// The teller's thread.
fn tell(live: &Live, path: &Path, prices: Option<&Arc<Prices>>) {
    let mut listeners: Vec<Listener> = Vec::new();
    let source: ConnectionSlot<Reader> = live.recorder.slot();
    let mut told_until = None;
    let mut spoke = Instant::now();
    let unreadable = Outage::new();
    while live.let_in(&mut listeners) {
        if listeners.is_empty() {
            source.with(|source| *source = None);
            told_until = None;
            live.recorder.new_rows().wait();
            continue;
        }
        let (mut more, mut waits) = (false, KEEP_ALIVE);
        match source.with(|source| news(source, &mut told_until, path, prices, live.recorder.new_rows())) {
            Ok(rows) if !rows.is_empty() => {
                more = rows.len() == ROWS_MAX;
                listeners.iter_mut().for_each(|listener| rows.iter().for_each(|row| listener.hear(row)));
                spoke = Instant::now();
            }
            Ok(_) => {
                unreadable.over(|count| format!("what happens can be told again; that failed {count} times"));
            }
            Err(e) => {
                source.with(|source| *source = None);
                waits = RETRY_GAP;
                unreadable.warn(format_args!("what happens cannot be told: {e}"));
            }
        }
        if spoke.elapsed() >= KEEP_ALIVE {
            listeners.iter_mut().for_each(|listener| listener.push(": still here\n\n"));
            spoke = Instant::now();
        }
        let before = listeners.len();
        listeners.retain_mut(Listener::send);
        if more || listeners.len() < before {
            continue;
        }
        if listeners.iter().any(|listener| !listener.unsent.is_empty()) {
            waits = UNSENT_GAP;
        }
        live.recorder.new_rows().wait_for(waits.min(KEEP_ALIVE.saturating_sub(spoke.elapsed())));
    }
    listeners.into_iter().for_each(Listener::part);
}

/// A row as an event.
struct Told {
    request: Request,
    start_ms: i64,
    event: String,
}

/// What is new since the last call; after the first, nothing. `told_until`: how far that was, of which file.
fn news(
    source: &mut Option<Reader>,
    told_until: &mut Option<(Option<FileId>, i64)>,
    path: &Path,
    prices: Option<&Arc<Prices>>,
    told_of: &NewRows,
) -> rusqlite::Result<Vec<Told>> {
    let is_new = source.is_none();
    let reader = match source {
        Some(reader) => reader,
        None => source.insert(Reader::open(path)?.with_prices(prices.cloned())),
    };
    let last = match told_until {
        Some((_, last)) if !is_new => last,
        _ => {
            let newest: i64 =
                reader.conn.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?;
            let file = FileId::of(path);
            let last = match told_until {
                None => newest,
                // Opened anew, it goes on where it was.
                Some((same, last)) if *same == file && *last <= newest => *last,
                // Another database by now: what it came with is no news.
                Some(_) => told_of.begun_behind(file).map_or(newest, |begun| begun.min(newest)),
            };
            &mut told_until.insert((file, last)).1
        }
    };
    let mut told = Vec::new();
    let query = format!("SELECT {REQUEST_COLUMNS} FROM requests WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut statement = reader.conn.prepare_cached(&query)?;
    let rows = statement.query_map(params![*last, ROWS_MAX as i64], |row| reader.request_of(row))?;
    for request in rows {
        told.push(Told::new(request?));
    }
    if let Some(newest) = told.last() {
        *last = newest.request.id;
    }
    Ok(told)
}

impl Told {
    fn new(request: Request) -> Told {
        let json = serde_json::to_string(&request).expect("figures and strings are always JSON");
        let start_ms = ms_of_text(&request.start_time).unwrap_or(0);
        Told { event: format!("id: {}\ndata: {json}\n\n", request.id), start_ms, request }
    }
}

impl Listener {
    fn hear(&mut self, told: &Told) {
        let Told { request, start_ms, event } = told;
        let names = SeriesNames {
            endpoint: &request.endpoint,
            model: &request.model,
            client: request.client.as_deref().unwrap_or_default(),
            key: request.key.as_deref().unwrap_or_default(),
            outcome: &request.outcome,
        };
        let in_time = self.filter.from_ms.is_none_or(|from| from <= *start_ms)
            && self.filter.to_ms.is_none_or(|to| *start_ms < to);
        if in_time && self.filter.matches(&names) {
            self.push(event);
        }
    }

    fn push(&mut self, event: &str) {
        if self.chunked {
            self.unsent.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        } else {
            self.unsent.extend_from_slice(event.as_bytes());
        }
    }

    /// Sends what the socket takes at once. False when the listener has left or lags too far behind; then its
    /// connection is cut.
    fn send(&mut self) -> bool {
        if self.loan.client().called_off().is_some() {
            return false;
        }
        match self.loan.client().write_now(&self.unsent) {
            Ok(n) => {
                self.unsent.drain(..n);
                self.unsent.len() <= LISTENER_BYTES_MAX
            }
            Err(_) => false,
        }
    }

    /// The proxy stops: the stream ends well, if it can at once.
    fn part(mut self) {
        if self.chunked {
            self.unsent.extend_from_slice(b"0\r\n\r\n");
        }
        if self.send() && self.unsent.is_empty() {
            let _ = self.loan.client().interrupts(None);
            self.loan.make_last();
            self.loan.give_back();
        }
    }
}
