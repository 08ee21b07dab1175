//! The statistics thread: it answers one question after the other on a read-only connection, so that they never wait
//! behind generation, nor generation behind them. It only puts replies together; the loop of their connection sends them,
//! so a client that reads slowly holds up nobody. What takes long goes on with a worker: exports, and telling what happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use std::{io, mem, panic, thread};

use super::export::export;
use super::exposition::Exposition;
use super::filter::Filter;
use super::gzip::{accepts_gzip, compressed, encoder};
use super::live::Live;
use super::price::Prices;
use super::process::of_process;
use super::question::Question;
use super::reader::{AskError, Reader};
use super::replies::{for_people, reply, reply_from_memory, reply_without_database};
use super::sources::Sources;
use crate::client::Lend;
use crate::counters::Counters;
use crate::http::RequestHead;
use crate::http::reply::Reply;
use crate::limits::{
    ANSWER_REST_FACTOR, ANSWER_REST_MAX, ANSWER_REST_MIN, EXPORT_RETRY_S, EXPORTS_MAX, NOW_REST, QUESTIONS_QUEUED_MAX,
    TALLIES_KEPT_TIME_MAX,
};
use crate::outage::Outage;
use crate::record::connections::ConnectionSlot;
use crate::record::database_file::FileId;
use crate::routes::Local;

/// The way to the statistics thread.
pub struct Statistics {
    questions: SyncSender<(Local, Box<Lend>)>,
    live: Arc<Live>,
    sources: Arc<Sources>,
}

/// How long the thread rests after an answer that took so long, if rows came since the one before. Questions without
/// pause would take their share of the processor from the exchanges that bring them; a rest for each answer leaves them a
/// twentieth of one. When none come, nobody is held up.
pub fn rest(took: Duration, rows_came: bool) -> Duration {
    if rows_came { (took * ANSWER_REST_FACTOR).clamp(ANSWER_REST_MIN, ANSWER_REST_MAX) } else { Duration::ZERO }
}

/// What the thread owns.
struct Answerer {
    sources: Arc<Sources>,
    reader: ConnectionSlot<(Option<FileId>, Reader)>,
    live: Arc<Live>,
    /// Every export that runs holds one more.
    exports: Arc<()>,
    unreadable: Outage,
}

/// What is to be done for a question.
enum Disposition {
    Reply(Reply),
    Export(Question, Option<Arc<Prices>>),
    Live(Filter, Option<Arc<Prices>>),
}

impl Statistics {
    /// Starts the thread. It ends when the `Statistics` are dropped.
    pub fn start(sources: Sources) -> io::Result<Statistics> {
        let sources = Arc::new(sources);
        let (questions, asked) = sync_channel(QUESTIONS_QUEUED_MAX);
        let live = Arc::new(Live::new(sources.clone()));
        let answerer = Answerer {
            sources: sources.clone(),
            reader: sources.recorder.slot(),
            live: live.clone(),
            exports: Arc::default(),
            unreadable: Outage::new(),
        };
        thread::Builder::new().name("statistics".into()).spawn(move || answerer.run(&asked))?;
        Ok(Statistics { questions, live, sources })
    }

    /// Has a question answered; back it comes when too many wait already.
    pub fn ask(&self, route: Local, lend: Box<Lend>) -> Result<(), Box<Lend>> {
        self.questions.try_send((route, lend)).map_err(|refused| match refused {
            TrySendError::Full((_, lend)) | TrySendError::Disconnected((_, lend)) => lend,
        })
    }

    /// What the loops count, and answers tell.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.sources.counters
    }

    /// The proxy stops: listeners, who would stay for ever, are sent home.
    pub fn close(&self) {
        self.live.close();
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        self.close();
    }
}

impl Answerer {
    fn run(self, asked: &Receiver<(Local, Box<Lend>)>) {
        let (mut rows_before, mut rest_until) = (0, Instant::now());
        while let Some((route, lend)) = self.next(asked) {
            thread::sleep(rest_until.saturating_duration_since(Instant::now()));
            let began = Instant::now();
            // A bug in one answer ends that answer alone.
            let decided =
                panic::catch_unwind(panic::AssertUnwindSafe(|| self.decide(route, &lend.head, lend.start_ms)));
            let decided = decided.unwrap_or_else(|_| {
                log::error!("an answer ended by a bug of the proxy");
                let message = "The proxy could not answer, by a bug of its own.";
                Disposition::Reply(Reply::error(500, message, "internal_error"))
            });
            match decided {
                Disposition::Reply(reply) => {
                    let (peer, head) = (lend.loan.client().peer(), &lend.head);
                    log::debug!("{peer} {} {} {} answered here", head.method(), head.path(), reply.status());
                    let reply = compressed(reply, &lend.head, route.varies());
                    lend.answer(&reply);
                }
                Disposition::Export(question, prices) => self.export(question, prices, *lend),
                Disposition::Live(filter, prices) => self.live.join(filter, prices, *lend),
            }
            let rows_written = self.sources.recorder.figures().written.load(Ordering::Relaxed);
            let rows_came = mem::replace(&mut rows_before, rows_written) != rows_written;
            // What goes on is asked for again and again, also while no row comes: long streams go on then.
            let rest_min = if matches!(route, Local::Now | Local::Line) { NOW_REST } else { Duration::ZERO };
            rest_until = Instant::now() + rest(began.elapsed(), rows_came).max(rest_min);
        }
    }

    /// Waits for the next question; `None`: none will come. Nobody asking for a while, memory is given back.
    fn next(&self, asked: &Receiver<(Local, Box<Lend>)>) -> Option<(Local, Box<Lend>)> {
        if self.reader.with(|held| held.as_ref().is_some_and(|(_, reader)| reader.keeps())) {
            match asked.recv_timeout(TALLIES_KEPT_TIME_MAX) {
                Ok(question) => return Some(question),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.reader.with(|held| held.iter().for_each(|(_, reader)| reader.forget()))
                }
            }
        }
        asked.recv().ok()
    }

    fn decide(&self, route: Local, head: &RequestHead, now_ms: i64) -> Disposition {
        let asked = Question::read(route, head.query().unwrap_or_default(), now_ms).and_then(|question| {
            let prices = self.sources.prices_as(question.priced_as.as_deref())?;
            Ok((question, prices))
        });
        let (question, prices) = match asked {
            Ok((question, prices)) if route == Local::Live => {
                return Disposition::Live(question.filter, prices.filter(|_| question.priced_as.is_some()));
            }
            Ok((question, prices)) if route == Local::Export => return Disposition::Export(question, prices),
            Ok(asked) => asked,
            Err(message) => return Disposition::Reply(Reply::error(400, &message, "bad_request")),
        };
        let shaped = |reply: Reply| if question.pretty { for_people(reply) } else { reply };
        if let Some(reply) = reply_from_memory(&self.sources, route, head, now_ms) {
            return Disposition::Reply(shaped(reply));
        }
        let answer = |reader: &Reader| {
            reader.price_by(prices.clone());
            let answered =
                reply(reader, route, &question, head, now_ms, |form| self.process_metrics(form, true), &self.sources);
            let answered = answered.map(shaped);
            answered.or_else(|e| match e {
                AskError::Refused(message) => Ok(Reply::error(400, &message, "bad_request")),
                AskError::Database(e) => Err(e),
            })
        };
        let answered = match self.ask(answer) {
            Err(e) => {
                log::debug!("a statistics question found the database elsewhere, or broken: {e}");
                // Its file, or one beside it, may have been replaced: rows go where the path leads now, so answers come
                // from there.
                self.ask(answer)
            }
            answered => answered,
        };
        Disposition::Reply(match answered {
            Ok(reply) => {
                self.unreadable.over(|count| {
                    format!("the database can be read again; {count} statistics questions found that it could not")
                });
                reply
            }
            Err(e) => {
                self.unreadable.warn(format_args!("the database cannot be read for statistics: {e}"));
                let from_memory = |form| self.process_metrics(form, false);
                shaped(reply_without_database(&self.sources, route, &question, (head, now_ms), &e, from_memory))
            }
        })
    }

    fn ask(&self, answer: impl FnOnce(&Reader) -> rusqlite::Result<Reply>) -> rusqlite::Result<Reply> {
        let Sources { database, recorder, .. } = &*self.sources;
        self.reader.with_file(database, || recorder.find_database(), || self.sources.open(), answer)
    }

    fn process_metrics(&self, form: Exposition, database_up: bool) -> String {
        of_process(&self.sources, form, self.live.listening(), database_up)
    }

    /// Has a worker export, if not too many do already.
    fn export(&self, question: Question, prices: Option<Arc<Prices>>, lend: Lend) {
        if Arc::strong_count(&self.exports) > EXPORTS_MAX {
            return lend.answer(&Reply::overloaded("Too many exports run already.", EXPORT_RETRY_S));
        }
        let running = self.exports.clone();
        let sources = self.sources.clone();
        // Made here: it passes over the stack, and a worker has little of that.
        let gzip = accepts_gzip(&lend.head).then(encoder);
        self.sources.workers.do_beside(move || {
            let _running = running;
            export(&sources, prices, (&question.filter, question.format), gzip, lend);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_rests_while_rows_come_and_never_for_long() {
        let ms = Duration::from_millis;
        assert_eq!(rest(ms(1), true), ms(1) * ANSWER_REST_FACTOR);
        assert_eq!(rest(ms(1), false), ms(0));
        assert_eq!(rest(Duration::from_micros(10), true), ANSWER_REST_MIN);
        assert_eq!(rest(ms(60), true), ANSWER_REST_MAX);
    }
}
