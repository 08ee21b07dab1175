//! The statistics lane: one thread with a read-only connection, so that questions never wait behind generation, nor
//! generation behind questions. It only puts replies together; the front sends them, so a client that reads slowly
//! holds up nobody. Exports, which are too long for that, have threads of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::{io, panic, thread};

use serde::Serialize;

use super::answers::By;
use super::export::{Export, Exports, answer};
use super::price::Prices;
use super::question::Question;
use super::{AskError, Reader};
use crate::exchange::Lend;
use crate::http::reply::Reply;
use crate::http::target::Local;
use crate::limits::LANE_QUEUE_LENGTH_MAX;

/// The way to the lane.
pub struct Lane {
    questions: SyncSender<(Local, Box<Lend>)>,
}

/// What the lane's thread owns.
struct Desk {
    path: PathBuf,
    prices: Option<Arc<Prices>>,
    reader: Option<Reader>,
    exports: Exports,
}

/// An answer, or what has to be done for it.
enum Answer {
    Reply(Reply),
    Export(Question),
}

impl Lane {
    /// Starts the lane for the database at `path`. It ends when the `Lane` is dropped.
    pub fn start(path: PathBuf, prices: Option<Arc<Prices>>) -> io::Result<Lane> {
        let (questions, asked) = sync_channel(LANE_QUEUE_LENGTH_MAX);
        let desk = Desk { path, prices, reader: None, exports: Exports::default() };
        thread::Builder::new().name("statistics".into()).spawn(move || answer_all(desk, &asked))?;
        Ok(Lane { questions })
    }

    /// Has a question answered; back it comes when too many wait already.
    pub fn ask(&self, question: Local, lend: Lend) -> Result<(), Box<Lend>> {
        self.questions.try_send((question, Box::new(lend))).map_err(|refused| match refused {
            TrySendError::Full((_, lend)) | TrySendError::Disconnected((_, lend)) => lend,
        })
    }
}

fn answer_all(mut desk: Desk, asked: &Receiver<(Local, Box<Lend>)>) {
    for (route, lend) in asked {
        let query = lend.head.query().unwrap_or_default();
        let now_ms = lend.start_ms;
        // A bug in one answer ends that answer alone.
        let answered = panic::catch_unwind(panic::AssertUnwindSafe(|| desk.answer(route, query, now_ms)));
        let answered = answered.unwrap_or_else(|_| {
            log::error!("an answer ended by a bug of the proxy");
            Answer::Reply(Reply::error(500, "The proxy could not answer, by a bug of its own.", "internal_error"))
        });
        match answered {
            Answer::Reply(reply) => answer(*lend, &reply),
            Answer::Export(Question { filter, format, .. }) => {
                let export = Export { path: desk.path.clone(), prices: desk.prices.clone(), filter, format };
                desk.exports.start(export, *lend);
            }
        }
    }
}

impl Desk {
    fn answer(&mut self, route: Local, query: &str, now_ms: i64) -> Answer {
        let question = match Question::read(route, query, now_ms) {
            Ok(question) if route == Local::Export => return Answer::Export(question),
            Ok(question) => question,
            Err(message) => return Answer::Reply(Reply::error(400, &message, "bad_request")),
        };
        Answer::Reply(self.ask(route, &question, now_ms).unwrap_or_else(|e| match e {
            AskError::Refused(message) => Reply::error(400, &message, "bad_request"),
            AskError::Database(e) => {
                // The next question opens the database anew: it may have been replaced.
                self.reader = None;
                log::warn!("a statistics question was not answered: {e}");
                Reply::error(503, &format!("The database cannot be read now ({e})."), "database_unavailable")
            }
        }))
    }

    fn ask(&mut self, route: Local, question: &Question, now_ms: i64) -> Result<Reply, AskError> {
        let reader = match &self.reader {
            Some(reader) => reader,
            None => self.reader.insert(Reader::open(&self.path)?.with_prices(self.prices.clone())),
        };
        let Question { filter, limit, after, bucket, zone, by, words, format: _ } = question;
        Ok(match route {
            Local::Health | Local::Export => unreachable!("others answer it"),
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
            Local::Search => json(&reader.search(filter, words, *after, *limit)?),
        })
    }
}

fn json(answer: &impl Serialize) -> Reply {
    let mut body = serde_json::to_vec(answer).expect("figures and strings are always JSON");
    body.push(b'\n');
    Reply::json(200, body)
}
