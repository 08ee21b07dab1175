//! The statistics lane: one thread with a read-only connection, so that questions never wait behind generation, nor
//! generation behind questions. It only puts replies together; the front sends them, so a client that reads slowly
//! holds up nobody. Exports, which are too long for that, have threads of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Instant;
use std::{fs, io, panic, thread};

use serde::Serialize;

use super::answers::By;
use super::export::{Export, Exports};
use super::live::Live;
use super::metrics::{self, Process};
use super::pace::Pace;
use super::price::Prices;
use super::question::Question;
use super::report::Report;
use super::{AskError, Filter, Reader};
use crate::calendar::now_ms;
use crate::client::Lend;
use crate::counters::Counters;
use crate::exchange::job::Workers;
use crate::http::RequestHead;
use crate::http::reply::Reply;
use crate::limits::{LANE_QUEUE_LENGTH_MAX, TALLIES_KEPT_TIME_MAX};
use crate::logging;
use crate::outage::Outage;
use crate::record::connections::ConnectionSlot;
use crate::record::database_file::{FileId, beside};
use crate::record::recorder::Recorder;
use crate::routes::Local;

/// The way to the lane.
pub struct Lane {
    questions: SyncSender<(Local, Box<Lend>)>,
    live: Arc<Live>,
    figures: Arc<Counters>,
}

/// Where the figures come from that are not in the database.
pub struct Sources {
    /// Counters of the front.
    pub figures: Arc<Counters>,
    /// Counters of rows, and what tells of new ones.
    pub recorder: Arc<Recorder>,
    /// The workers.
    pub pool: Arc<Workers>,
}

/// What the lane's thread owns.
struct Desk {
    path: PathBuf,
    recorder: Arc<Recorder>,
    prices: Option<Arc<Prices>>,
    reader: ConnectionSlot<Reader>,
    /// The file that it reads.
    file: Option<FileId>,
    exports: Exports,
    live: Arc<Live>,
    sources: Sources,
    started_s: f64,
    unreadable: Outage,
}

/// An answer, or what has to be done for it.
enum Answer {
    Reply(Reply),
    Export(Question),
    Live(Filter),
}

impl Lane {
    /// Starts the lane for the database at `path`. It ends when the `Lane` is dropped.
    pub fn start(path: PathBuf, prices: Option<Arc<Prices>>, sources: Sources) -> io::Result<Lane> {
        let (questions, asked) = sync_channel(LANE_QUEUE_LENGTH_MAX);
        let live = Live::start(path.clone(), prices.clone(), sources.recorder.clone())?;
        let started_s = now_ms() as f64 / 1000.0;
        let exports = Exports::default();
        let figures = sources.figures.clone();
        let desk = Desk {
            path,
            recorder: sources.recorder.clone(),
            prices,
            reader: sources.recorder.slot(),
            file: None,
            exports,
            live: live.clone(),
            sources,
            started_s,
            unreadable: Outage::new(),
        };
        thread::Builder::new().name("statistics".into()).spawn(move || answer_all(desk, &asked))?;
        Ok(Lane { questions, live, figures })
    }

    /// Has a question answered; back it comes when too many wait already.
    pub fn ask(&self, question: Local, lend: Box<Lend>) -> Result<(), Box<Lend>> {
        self.questions.try_send((question, lend)).map_err(|refused| match refused {
            TrySendError::Full((_, lend)) | TrySendError::Disconnected((_, lend)) => lend,
        })
    }
}

impl Lane {
    /// What the front counts, and this lane tells.
    pub fn figures(&self) -> &Arc<Counters> {
        &self.figures
    }

    /// The proxy stops: listeners, who would stay for ever, are sent home.
    pub fn close(&self) {
        self.live.close();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.close();
    }
}

fn answer_all(mut desk: Desk, asked: &Receiver<(Local, Box<Lend>)>) {
    let (mut pace, mut rest_until) = (Pace::default(), Instant::now());
    while let Some((route, lend)) = desk.next(asked) {
        thread::sleep(rest_until.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        // A bug in one answer ends that answer alone.
        let answered = panic::catch_unwind(panic::AssertUnwindSafe(|| desk.answer(route, &lend.head, lend.start_ms)));
        let answered = answered.unwrap_or_else(|_| {
            log::error!("an answer ended by a bug of the proxy");
            Answer::Reply(Reply::error(500, "The proxy could not answer, by a bug of its own.", "internal_error"))
        });
        match answered {
            Answer::Reply(reply) => lend.answer(&reply),
            Answer::Export(Question { filter, format, .. }) => {
                let export = Export {
                    path: desk.path.clone(),
                    slot: desk.recorder.slot(),
                    prices: desk.prices.clone(),
                    filter,
                    format,
                };
                desk.exports.start(export, *lend);
            }
            Answer::Live(filter) => desk.live.join(filter, *lend),
        }
        let rows_written = desk.recorder.figures().written.load(Ordering::Relaxed);
        rest_until = Instant::now() + pace.rest(began.elapsed(), rows_written);
    }
}

impl Desk {
    /// Waits for the next question; `None`: none will come. Nobody asking for a while, memory is given back.
    fn next(&self, asked: &Receiver<(Local, Box<Lend>)>) -> Option<(Local, Box<Lend>)> {
        if self.reader.with(|reader| reader.as_ref().is_some_and(Reader::keeps)) {
            match asked.recv_timeout(TALLIES_KEPT_TIME_MAX) {
                Ok(question) => return Some(question),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.reader.with(|reader| reader.iter().for_each(Reader::forget)),
            }
        }
        asked.recv().ok()
    }

    fn answer(&mut self, route: Local, head: &RequestHead, now_ms: i64) -> Answer {
        let question = match Question::read(route, head.query().unwrap_or_default(), now_ms) {
            Ok(question) if route == Local::Live => return Answer::Live(question.filter),
            Ok(question) => question,
            Err(message) => return Answer::Reply(Reply::error(400, &message, "bad_request")),
        };
        if route == Local::Export {
            return Answer::Export(question);
        }
        let answered = match self.ask(route, head, &question, now_ms) {
            Err(AskError::Database(e)) => {
                log::debug!("a statistics question found the database elsewhere, or broken: {e}");
                // Its file, or one beside it, may have been replaced: rows go where the path leads now, so answers come
                // from there.
                self.recorder.find_database();
                self.ask(route, head, &question, now_ms)
            }
            answered => answered,
        };
        Answer::Reply(match answered {
            Ok(reply) => {
                self.unreadable.over(|count| {
                    format!("the database can be read again; {count} statistics questions found that it could not")
                });
                reply
            }
            Err(AskError::Refused(message)) => Reply::error(400, &message, "bad_request"),
            Err(AskError::Database(e)) => self.answer_without_database(route, &e),
        })
    }

    fn answer_without_database(&mut self, route: Local, error: &rusqlite::Error) -> Reply {
        self.unreadable.warn(format_args!("the database cannot be read for statistics: {error}"));
        if route == Local::Metrics {
            // When the database fails, what is in memory is what its owner wants to see.
            let process = self.sources.process(&self.path, self.live.listening(), self.started_s);
            return Reply::new(200, metrics::CONTENT_TYPE, metrics::text_without_database(&process).into_bytes());
        }
        Reply::error(503, &format!("The database cannot be read now ({error})."), "database_unavailable")
    }

    fn ask(&mut self, route: Local, head: &RequestHead, question: &Question, now_ms: i64) -> Result<Reply, AskError> {
        let file = FileId::of(&self.path);
        if file.is_none() || file != self.file {
            self.reader.with(|reader| *reader = None);
            if self.file.take().is_some() || file.is_none() {
                // Deleted or replaced meanwhile.
                self.recorder.find_database();
            }
        }
        let slot = self.reader.clone();
        slot.with(|held| {
            let reader = match held {
                Some(reader) => reader,
                None => {
                    let reader = Reader::open(&self.path)?.with_prices(self.prices.clone());
                    self.file = FileId::of(&self.path);
                    held.insert(reader)
                }
            };
            let answer = self.answer_from(reader, route, head, question, now_ms);
            if let Err(AskError::Database(_)) = &answer {
                // The next question opens another one.
                *held = None;
            }
            answer
        })
    }

    fn answer_from(
        &self,
        reader: &Reader,
        route: Local,
        head: &RequestHead,
        question: &Question,
        now_ms: i64,
    ) -> Result<Reply, AskError> {
        let Question { filter, limit, after, bucket, zone, by, words, format: _ } = question;
        Ok(match route {
            Local::Health | Local::Page | Local::Export | Local::Live => unreachable!("others answer it"),
            Local::Summary => json(&reader.summary(filter)?),
            Local::ByModel => json(&reader.by(By::Model, filter)?),
            Local::ByEndpoint => json(&reader.by(By::Endpoint, filter)?),
            Local::ByClient => json(&reader.by(By::Client, filter)?),
            Local::ByKey => json(&reader.by(By::Key, filter)?),
            Local::ByOutcome => json(&reader.by(By::Outcome, filter)?),
            Local::OverTime => json(&reader.over_time(filter, *bucket, *zone, *by, now_ms)?),
            Local::Latency => json(&reader.latency(filter)?),
            Local::Recent => json(&reader.recent(filter, *limit)?),
            Local::Requests => json(&reader.requests(filter, *after, *limit)?),
            Local::Request(id) => match reader.request(id)? {
                Some(request) => json(&request),
                None => Reply::error(404, &format!("There is no request {id}."), "not_found"),
            },
            Local::Report => {
                let report = Report::read(reader, filter, *zone, now_ms)?;
                if wants_json(head) { json(&report) } else { Reply::new(200, PLAIN, report.text().into_bytes()) }
            }
            Local::Metrics => {
                let process = self.sources.process(&self.path, self.live.listening(), self.started_s);
                Reply::new(200, metrics::CONTENT_TYPE, metrics::text(reader, &process)?.into_bytes())
            }
            Local::Search => json(&reader.search(filter, words, *after, *limit)?),
        })
    }
}

impl Sources {
    fn process(&self, database: &Path, listeners: usize, started_s: f64) -> Process {
        let rows = self.recorder.figures();
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let log = beside(database, "-wal");
        Process {
            load: self.pool.load(),
            connections: self.figures.connections.load(Ordering::Relaxed),
            listeners,
            rows_written: rows.written.load(Ordering::Relaxed),
            rows_dropped: rows.dropped.load(Ordering::Relaxed),
            contents_dropped: rows.contents_dropped.load(Ordering::Relaxed),
            rows_waiting: rows.waiting.load(Ordering::Relaxed),
            refusals: self.figures.refusals().collect(),
            log_lines_lost: logging::lines_lost(),
            database_bytes: bytes(database) + bytes(&log),
            started_s,
        }
    }
}

/// Whether JSON is preferred to text. A client that takes anything, as curl says of itself, gets text.
fn wants_json(head: &RequestHead) -> bool {
    head.field("accept").is_some_and(|accept| {
        let mut types = accept.split(|byte| *byte == b',').map(|range| {
            range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
        });
        types.any(|kind| kind == b"application/json")
    })
}

/// The type of the report.
const PLAIN: &str = "text/plain; charset=utf-8";

fn json(answer: &impl Serialize) -> Reply {
    let mut body = serde_json::to_vec(answer).expect("figures and strings are always JSON");
    body.push(b'\n');
    Reply::json(200, body)
}
