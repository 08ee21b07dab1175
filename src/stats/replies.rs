//! What a question is answered with: the figures that its route asks for, in the form that its client takes.

use serde::Serialize;

use super::bodies::{LostBody, RequestBody, lost_body};
use super::filter::shown;
use super::metrics;
use super::now::{Now, call_off};
use super::question::Question;
use super::reader::{AskError, Reader};
use super::report::Report;
use super::sources::Sources;
use crate::http::RequestHead;
use crate::http::reply::Reply;
use crate::routes::{Local, conversation_of};

/// The type of the report.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers from the database, and with metrics of the process.
pub(super) fn reply(
    reader: &Reader,
    route: Local,
    question: &Question,
    head: &RequestHead,
    now_ms: i64,
    process: impl FnOnce() -> String,
) -> Result<Reply, AskError> {
    let Question { filter, limit, after, bucket, zone, by, words, format: _ } = question;
    Ok(match route {
        Local::Health | Local::Page | Local::Export | Local::Live | Local::Now | Local::CallOff(_) => {
            unreachable!("others answer it")
        }
        Local::Summary => json(&reader.summary(filter)?),
        Local::By(by) => json(&reader.by(by, filter)?),
        Local::OverTime => json(&reader.over_time(filter, *bucket, *zone, *by, now_ms)?),
        Local::Latency => json(&reader.latency(filter)?),
        Local::Recent => json(&reader.recent(filter, *limit)?),
        Local::Requests => json(&reader.requests(filter, *after, *limit)?),
        Local::Request(id) => match reader.request(id)? {
            Some(request) => json(&request),
            None => no_request(id),
        },
        Local::Body(id) => match reader.body(id)? {
            Some(RequestBody::AsSent(body)) => {
                Reply::json(200, body.into_bytes()).with_field("X-Replay-Of", id.to_string())
            }
            Some(RequestBody::Lost(why)) => {
                let (code, message) = lost_body(id, why);
                Reply::error(409, &message, code)
            }
            None => no_request(id),
        },
        Local::RequestPrefix(id) => match reader.request_prefix(id)? {
            Some(prefix) if wants_json(head) => json(&prefix),
            Some(prefix) => Reply::new(200, PLAIN, prefix.text().into_bytes()),
            None => no_request(id),
        },
        Local::Diff(before, now) => match reader.prompt_diff(before, now)? {
            Ok(diff) => Reply::new(200, PLAIN, diff.into_bytes()),
            Err(id) if reader.body(id)?.is_none() => no_request(id),
            Err(id) => {
                let (code, message) = lost_body(id, LostBody::NotStored);
                Reply::error(409, &message, code)
            }
        },
        Local::Prefixes => {
            let prefixes = reader.prefixes(filter)?;
            if wants_json(head) { json(&prefixes) } else { Reply::new(200, PLAIN, prefixes.text().into_bytes()) }
        }
        Local::Time => {
            let times = reader.times(filter, now_ms)?;
            if wants_json(head) { json(&times) } else { Reply::new(200, PLAIN, times.text().into_bytes()) }
        }
        Local::Conversations => json(&reader.conversations(filter, *after, *limit)?),
        Local::Conversation => {
            let name = conversation_of(head.path()).unwrap_or_default();
            match reader.conversation(&name, filter, *after, *limit)? {
                Some(thread) => json(&thread),
                None => Reply::error(404, &format!("There is no conversation {}.", shown(&name)), "not_found"),
            }
        }
        Local::Search => json(&reader.search(filter, words, *after, *limit)?),
        Local::Report => {
            let report = Report::read(reader, filter, *zone, now_ms)?;
            if wants_json(head) { json(&report) } else { Reply::new(200, PLAIN, report.text().into_bytes()) }
        }
        Local::Metrics => metrics_page(metrics::of_database(reader)? + &process()),
    })
}

fn no_request(id: i64) -> Reply {
    Reply::error(404, &format!("There is no request {id}."), "not_found")
}

/// What is answered from memory, whatever the database does.
pub(super) fn reply_from_memory(sources: &Sources, route: Local, head: &RequestHead, now_ms: i64) -> Option<Reply> {
    if let Local::CallOff(id) = route {
        return Some(call_off(sources, id));
    }
    (route == Local::Now).then(|| {
        let now = Now::read(sources, now_ms);
        if wants_json(head) { json(&now) } else { Reply::new(200, PLAIN, now.text().into_bytes()) }
    })
}

/// Answers while the database cannot be read.
pub(super) fn reply_without_database(route: Local, error: &rusqlite::Error, process: impl FnOnce() -> String) -> Reply {
    if route == Local::Metrics {
        // When the database fails, what is in memory is what its owner wants to see.
        return metrics_page(process());
    }
    Reply::error(503, &format!("The database cannot be read now ({error})."), "database_unavailable")
}

/// Whether JSON is preferred to text. A client that takes anything, as curl says of itself, gets text.
fn wants_json(head: &RequestHead) -> bool {
    head.field("accept").is_some_and(|accept| {
        let mut types = accept.split(|byte| *byte == b',').filter_map(|range| range.split(|byte| *byte == b';').next());
        types.any(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
    })
}

fn metrics_page(text: String) -> Reply {
    Reply::new(200, metrics::CONTENT_TYPE, text.into_bytes())
}

fn json(answer: &impl Serialize) -> Reply {
    let mut body = serde_json::to_vec(answer).expect("figures and strings are always JSON");
    body.push(b'\n');
    Reply::json(200, body)
}
