//! Usage is asked for where the client did not, and nothing of that reaches it, nor is anything taken from it.

use std::sync::{Arc, Mutex};

use crate::harness::*;

const TIMINGS: &str = r#""timings":{"cache_n":12,"prompt_n":5,"predicted_n":5,"predicted_per_second":50.0}"#;
const FINISH: &str = r#"data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]TIMINGS}

"#;
const USAGE: &str = r#"data: {"model":"m","choices":[],"usage":{"prompt_tokens":17,"completion_tokens":5,"total_tokens":22}TIMINGS}

"#;

fn with_timings(event: &str, told: bool) -> String {
    event.replace("TIMINGS", &if told { format!(",{TIMINGS}") } else { String::new() })
}

fn stream(model: &str) -> String {
    post("/v1/chat/completions", &format!(r#"{{"model":"{model}","stream":true,"messages":[]}}"#))
}

/// An upstream that tells timings with usage, and unasked if `tells`; and whether it was asked, for each request.
fn upstream(tells: fn(&str) -> bool) -> (Upstream, Arc<Mutex<Vec<bool>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let upstream = Upstream::answering(move |link, request| {
        let body = request.json();
        let is_asked = body["stream_options"]["include_usage"] == true;
        seen.lock().expect("no test panics with it").push(is_asked);
        let model = body["model"].as_str().expect("a model");
        let finish = with_timings(FINISH, !is_asked && tells(model));
        let usage = if is_asked { with_timings(USAGE, true) } else { String::new() };
        link.send([STREAM_HEAD, &chunk(&[&event("One"), &finish, &usage, DONE].concat()), LAST_CHUNK].concat());
    });
    (upstream, asked)
}

#[test]
fn who_tells_counts_unasked_is_asked_but_once() {
    let (upstream, asked) = upstream(|_| true);
    let proxy = Proxy::before(&upstream);
    let told = [event("One"), with_timings(FINISH, true), DONE.into()].concat();
    let first = proxy.ask(stream("m"));
    assert_eq!(first.text(), told.replace(&format!(",{TIMINGS}"), ""));
    for _ in 0..3 {
        assert_eq!(proxy.ask(stream("m")).text(), told);
    }
    // Another model may be another server's.
    proxy.ask(stream("n"));
    assert_eq!(*asked.lock().expect("whole"), [true, false, false, false, true]);
    for row in proxy.wait_for_rows(5) {
        assert_eq!((row.input_tokens, row.output_tokens, row.outcome.as_str()), (Some(17), Some(5), "completed"));
    }
}

#[test]
fn who_tells_none_unasked_is_asked_for_ever_after() {
    let (upstream, asked) = upstream(|_| false);
    let proxy = Proxy::before(&upstream);
    (0..5).for_each(|_| drop(proxy.ask(stream("m"))));
    assert_eq!(*asked.lock().expect("whole"), [true, false, true, true, true]);
    let known = |row: &Row| row.total_tokens.is_some();
    assert_eq!(proxy.wait_for_rows(5).iter().map(known).collect::<Vec<_>>(), [true, false, true, true, true]);
}

#[test]
fn only_a_stream_loses_its_length() {
    let events = [event("One"), with_timings(FINISH, false), with_timings(USAGE, false), DONE.into()].concat();
    let seen = events.replace(&with_timings(USAGE, false), "");
    let check = |status: &'static str, label: &'static str, body: &str, seen: &str| {
        let reply = reply(status, label, body);
        let upstream = Upstream::answering(move |link, request| {
            assert_eq!(request.json()["stream_options"]["include_usage"], true);
            link.send(&reply);
        });
        let proxy = Proxy::before(&upstream);
        let got = proxy.ask(stream("m"));
        assert_eq!(got.text(), seen, "{label}");
        let length = (body == seen).then(|| body.len().to_string());
        assert_eq!(got.field("content-length"), length.as_deref(), "{status} {label} {body}");
        assert_eq!(proxy.wait_for_rows(1)[0].was_streamed, body == events, "{label}");
    };
    for label in ["text/event-stream", "application/json", "text/plain", "application/octet-stream"] {
        check("200 OK", label, &events, &seen);
    }
    check("200 OK", "application/json", CHAT_REPLY, CHAT_REPLY);
    check("200 OK", "application/json", &format!(" \r\n{CHAT_REPLY}"), &format!(" \r\n{CHAT_REPLY}"));
    check("200 OK", "text/plain", "Hello", "Hello");
    check("200 OK", "application/json", "", "");
    check("400 Bad Request", "application/json", r#"{"error":"no"}"#, r#"{"error":"no"}"#);
}
