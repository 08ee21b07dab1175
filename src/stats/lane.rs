//! The statistics lane: one thread with a read-only connection, so that questions never wait behind generation, nor
//! generation behind questions. It only puts replies together; the front sends them, so a client that reads slowly
//! holds up nobody.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::{io, panic, thread};

use serde::Serialize;

use super::Reader;
use crate::exchange::Lend;
use crate::http::reply::{Persistence, Reply};
use crate::http::target::{Local, query_pairs};
use crate::limits::LANE_QUEUE_LENGTH_MAX;

/// The way to the lane.
pub struct Lane {
    questions: SyncSender<(Local, Box<Lend>)>,
}

impl Lane {
    /// Starts the lane for the database at `path`. It ends when the `Lane` is dropped.
    pub fn start(path: PathBuf) -> io::Result<Lane> {
        let (questions, asked) = sync_channel(LANE_QUEUE_LENGTH_MAX);
        thread::Builder::new().name("statistics".into()).spawn(move || answer_all(&path, &asked))?;
        Ok(Lane { questions })
    }

    /// Has a question answered; back it comes when too many wait already.
    pub fn ask(&self, question: Local, lend: Lend) -> Result<(), Box<Lend>> {
        self.questions.try_send((question, Box::new(lend))).map_err(|refused| match refused {
            TrySendError::Full((_, lend)) | TrySendError::Disconnected((_, lend)) => lend,
        })
    }
}

fn answer_all(path: &Path, asked: &Receiver<(Local, Box<Lend>)>) {
    let mut reader = None;
    for (question, lend) in asked {
        let persistence = if lend.loan.keep_alive() { lend.head.persistence() } else { Persistence::Close };
        // A bug in one answer ends that answer alone.
        let answered = panic::catch_unwind(panic::AssertUnwindSafe(|| reply(&mut reader, path, question, &lend)));
        let reply = answered.unwrap_or_else(|_| {
            log::error!("an answer ended by a bug of the proxy");
            Reply::error(500, "The proxy could not answer, by a bug of its own.", "internal_error")
        });
        let bytes = reply.encode(persistence, lend.head.method() == "HEAD");
        lend.loan.give_back_with(bytes);
    }
}

fn reply(reader: &mut Option<Reader>, path: &Path, question: Local, lend: &Lend) -> Reply {
    let answer = ask(reader, path, question, lend.head.query().unwrap_or_default());
    match answer {
        Ok(reply) => reply,
        Err(e) => {
            // The next question opens the database anew: it may have been replaced.
            *reader = None;
            log::warn!("a statistics question was not answered: {e}");
            Reply::error(503, &format!("The database cannot be read now ({e})."), "database_unavailable")
        }
    }
}

fn ask(reader: &mut Option<Reader>, path: &Path, question: Local, query: &str) -> rusqlite::Result<Reply> {
    let reader = match reader {
        Some(reader) => reader,
        None => reader.insert(Reader::open(path)?),
    };
    Ok(match question {
        Local::Health => unreachable!("the front answers it"),
        Local::Summary => json(&reader.summary()?),
        Local::ByModel => json(&reader.by_model()?),
        Local::Recent => match limit(query) {
            Ok(limit) => json(&reader.recent(limit)?),
            Err(message) => Reply::error(400, &message, "bad_request"),
        },
    })
}

fn json(answer: &impl Serialize) -> Reply {
    let mut body = serde_json::to_vec(answer).expect("figures and strings are always JSON");
    body.push(b'\n');
    Reply::json(200, body)
}

/// `limit` of the query: 1 to 1000, 100 where it is not given. Outside it is clamped.
fn limit(query: &str) -> Result<u32, String> {
    let pairs = query_pairs(query);
    let Some((_, text)) = pairs.iter().rev().find(|(name, _)| name == "limit") else { return Ok(100) };
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("limit takes a whole number from 1 to 1000.".into());
    }
    let number = if text.starts_with('-') { 0 } else { digits.parse().unwrap_or(u32::MAX) };
    Ok(number.clamp(1, 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_clamped_and_must_be_a_number() {
        let check = |query: &str, expected: Option<u32>| assert_eq!(limit(query).ok(), expected, "{query}");
        check("", Some(100));
        check("limit=1", Some(1));
        check("limit=0", Some(1));
        check("limit=-5", Some(1));
        check("limit=1000", Some(1000));
        check("limit=1001", Some(1000));
        check("limit=99999999999999999999", Some(1000));
        check("limit=", None);
        check("limit=ten", None);
        check("limit=%2B5", None);
        check("limit=5&limit=7", Some(7));
    }
}
