//! What a question is answered with: the figures that its route asks for, in the form that its client takes.

use serde::Serialize;

use super::answers::Summary;
use super::bodies::{LostBody, RequestBody, lost_body};
use super::csv;
use super::exposition::Exposition;
use super::filter::{Filter, present_end_ms, shown};
use super::line::StatusLine;
use super::metrics;
use super::now::{Now, call_off};
use super::question::Question;
use super::reader::{AskError, Reader};
use super::report::Report;
use super::sources::Sources;
use crate::http::reply::Reply;
use crate::http::{RequestHead, accepted};
use crate::routes::{By, Local, conversation_of};

/// The type of the report.
const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers from the database, and with metrics of the process.
pub(super) fn reply(
    reader: &Reader,
    route: Local,
    question: &Question,
    head: &RequestHead,
    now_ms: i64,
    process: impl FnOnce(Exposition) -> String,
    sources: &Sources,
) -> Result<Reply, AskError> {
    let Question {
        filter,
        limit,
        after,
        bucket,
        zone,
        by,
        percentiles,
        words,
        format: _,
        csv,
        pretty: _,
        width,
        priced_as: _,
        line_json: _,
    } = question;
    Ok(match route {
        Local::Health | Local::Page | Local::Export | Local::Live | Local::Now | Local::CallOff(_) => {
            unreachable!("others answer it")
        }
        Local::Summary => json(&reader.summary_with_power(filter, now_ms)?),
        Local::By(by) => {
            let groups = reader.groups_with_power(reader.by(by, filter)?, filter, now_ms)?;
            if *csv { table(groups.csv()) } else { json(&groups) }
        }
        Local::OverTime => {
            let points = reader.over_time(filter, *bucket, zone, *by, *percentiles, now_ms)?;
            if *csv { table(points.csv(*by)) } else { json(&points) }
        }
        Local::Latency => json(&reader.latency(filter, by.unwrap_or(By::Model))?),
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
        Local::Line => {
            // A row of a clock that was wrong is not of today until its day comes.
            let (midnight, end) = (zone.midnight_ms(now_ms, 0).max(0), present_end_ms(now_ms));
            let from_ms = Some(filter.from_ms.map_or(midnight, |asked| asked.max(midnight)));
            let to_ms = Some(filter.to_ms.map_or(end, |asked| asked.min(end)));
            let today = reader.summary_with_power(&Filter { from_ms, to_ms, ..filter.clone() }, now_ms)?;
            status_line(sources, question, head, now_ms, Some(&today))
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
            let report = Report::read(reader, filter, zone, now_ms)?;
            if wants_json(head) { json(&report) } else { Reply::new(200, PLAIN, report.text(*width).into_bytes()) }
        }
        Local::Metrics => {
            let form = Exposition::asked_for(head);
            metrics_page(form, metrics::of_database(reader, form, now_ms, sources.started_s)? + &process(form))
        }
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
pub(super) fn reply_without_database(
    sources: &Sources,
    route: Local,
    question: &Question,
    (head, now_ms): (&RequestHead, i64),
    error: &rusqlite::Error,
    process: impl FnOnce(Exposition) -> String,
) -> Reply {
    if route == Local::Metrics {
        // When the database fails, what is in memory is what its owner wants to see.
        let form = Exposition::asked_for(head);
        return metrics_page(form, process(form));
    }
    if route == Local::Line {
        return status_line(sources, question, head, now_ms, None);
    }
    Reply::error(503, &format!("The database cannot be read now ({error})."), "database_unavailable")
}

fn status_line(
    sources: &Sources,
    question: &Question,
    head: &RequestHead,
    now_ms: i64,
    today: Option<&Summary>,
) -> Reply {
    let line = StatusLine::of(&Now::read(sources, now_ms), today);
    if question.line_json.unwrap_or_else(|| wants_json(head)) {
        return json(&line);
    }
    Reply::new(200, PLAIN, (line.text + "\n").into_bytes())
}

/// Whether JSON is preferred to text. A client that takes anything, as curl says of itself, gets text.
fn wants_json(head: &RequestHead) -> bool {
    accepted(head, "accept").any(|kind| kind.is("application/json") && kind.weight() > 0.0)
}

fn metrics_page(form: Exposition, text: String) -> Reply {
    Reply::new(200, form.content_type(), (text + form.end()).into_bytes())
}

fn table(lines: Vec<u8>) -> Reply {
    Reply::new(200, csv::CONTENT_TYPE, lines)
}

/// JSON with a member on each line; anything else as it is.
pub(super) fn for_people(reply: Reply) -> Reply {
    match reply.is_json() {
        true => {
            let body = indented(reply.body());
            reply.with_body(body)
        }
        false => reply,
    }
}

/// The same JSON, a member on each line. `compact`: without blanks between its parts.
fn indented(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (at, &byte) in compact.iter().enumerate() {
        if in_text {
            out.push(byte);
            (in_text, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
            continue;
        }
        let is_empty = || matches!((byte, compact.get(at + 1)), (b'{', Some(b'}')) | (b'[', Some(b']')));
        match byte {
            b'{' | b'[' if !is_empty() => {
                depth += 1;
                out.push(byte);
                line(&mut out, depth);
            }
            b'}' | b']' if !matches!(out.last(), Some(b'{' | b'[')) => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_text = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

fn json(answer: &impl Serialize) -> Reply {
    let mut body = serde_json::to_vec(answer).expect("figures and strings are always JSON");
    body.push(b'\n');
    Reply::json(200, body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_for_people_is_the_same_json() {
        let value =
            json!({"a": [], "b": {}, "c": [1, {"d": "x,y:{[\\\"]}\u{e9}"}, [null, [true]]], "e": "", "f": "\\"});
        let indented = String::from_utf8(indented(value.to_string().as_bytes())).expect("text");
        assert_eq!(indented, serde_json::to_string_pretty(&value).expect("JSON"));
    }
}
