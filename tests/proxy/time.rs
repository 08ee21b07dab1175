//! Where the time went, of exchanges whose every phase the test holds in its hands: against a count of milliseconds.
//!
//! Time is the matter itself here, so a test lets some pass; what it expects is told by rows and by events whose order is
//! known, never by how long something should take.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::harness::*;

fn let_pass(ms: u64) {
    let began = Instant::now();
    until("time to pass", || (began.elapsed() >= Duration::from_millis(ms)).then_some(()));
}

fn json(proxy: &Proxy, path: &str) -> Value {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    serde_json::from_str(proxy.ask(request).text()).expect("JSON")
}

/// A row as the clock saw it, in milliseconds: start, and how long it waited, loaded, took to its first token, and took.
type Clocked = (i64, i64, i64, i64, i64);

fn clocked(proxy: &Proxy) -> Vec<Clocked> {
    let query = "SELECT CAST(round(unixepoch(start_time, 'subsec') * 1000) AS INTEGER), queue_ms,
        coalesce(model_load_ms, 0), coalesce(time_to_first_token_ms, 0), duration_ms FROM requests ORDER BY id";
    let conn = Connection::open(proxy.folder().path().join("metrics.db")).expect("opens");
    let mut statement = conn.prepare(query).expect("the documented columns");
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .and_then(Iterator::collect);
    rows.expect("every row knows how long it waited")
}

/// Waiting, loading, prompts and answers, a millisecond after the other.
fn shared(rows: &[Clocked]) -> [f64; 4] {
    let mut parts = [0.0; 4];
    let (from, to) = (rows.iter().map(|row| row.0).min(), rows.iter().map(|row| row.0 + row.4).max());
    for ms in from.unwrap_or(0)..to.unwrap_or(0) {
        let there: Vec<_> = rows.iter().filter(|row| (row.0..row.0 + row.4).contains(&ms)).collect();
        for (start, queue, load, first, _) in &there {
            let at = ms - start;
            let phase = [*queue, queue + load, *first].iter().filter(|end| at >= **end).count();
            parts[phase] += 1.0 / there.len() as f64;
        }
    }
    parts
}

#[track_caller]
fn check(proxy: &Proxy) -> [f64; 4] {
    let told = json(proxy, "/stats/time?from=-1h");
    let part = |name: &str| told[name].as_f64().expect(name);
    let parts = ["waiting_ms", "loading_ms", "prompt_processing_ms", "generating_ms"].map(part);
    let expected = shared(&clocked(proxy));
    for (part, expected) in parts.iter().zip(expected) {
        assert!((part - expected).abs() < 0.1, "{told} {expected}");
    }
    let rest = ["idle_ms", "others_ms", "uncounted_ms"].map(part);
    let sum: f64 = parts.iter().chain(&rest).map(|part| (part * 1000.0).round()).sum();
    assert_eq!(sum, part("range_ms") * 1000.0, "{told}");
    parts
}

#[test]
fn who_waits_for_a_place_has_a_part_of_the_time_and_its_row_says_how_long() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let (mut first, mut link) = asking(&proxy, &upstream);
    let_pass(20);
    link.send([STREAM_HEAD, &chunk(&event("One"))].concat());
    first.through("One");
    let mut second = proxy.connect();
    second.send(streaming_chat());
    until("the second in the queue", || {
        proxy.ask(get("/metrics")).text().contains("lms_proxy_exchanges_queued 1\n").then_some(())
    });
    let queued = Instant::now();
    let_pass(40);
    let held_ms = queued.elapsed().as_millis() as i64;
    link.send([chunk(USAGE_EVENT), chunk(DONE), LAST_CHUNK.to_owned()].concat());
    first.through(LAST_CHUNK);
    let mut links = vec![link];
    let link = upstream.asked_on(&mut links);
    link.request();
    link.send([STREAM_HEAD, &chunk(&event("Two"))].concat());
    second.through("Two");
    let_pass(10);
    link.send([chunk(USAGE_EVENT), chunk(DONE), LAST_CHUNK.to_owned()].concat());
    second.through(LAST_CHUNK);
    proxy.wait_for_rows(2);
    let rows = clocked(&proxy);
    assert!(rows[0].3 >= 20 && rows[1].1 >= held_ms, "{rows:?} {held_ms}");
    assert!(rows[1].1 <= rows[1].3 && rows[1].3 <= rows[1].4, "{rows:?}");
    let [waiting, _, prompts, generating] = check(&proxy);
    // Two were there while the one waited: to each a half.
    assert!(waiting >= held_ms as f64 / 2.0 && generating >= held_ms as f64 / 2.0 + 10.0 && prompts >= 20.0);
}

#[test]
fn loading_and_slow_prompts_are_told_apart_from_answers() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) =
        asked(&proxy, &upstream, post("/api/v1/chat", r#"{"model":"m","input":"Hi","stream":true}"#));
    let event = |name: &str, rest: &str| chunk(&format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n"));
    link.send(
        [STREAM_HEAD, &event("chat.start", ",\"model_instance_id\":\"m\""), &event("model_load.start", "")].concat(),
    );
    client.through("model_load.start");
    let_pass(60);
    link.send([event("model_load.end", ",\"load_time_seconds\":0.05"), event("prompt_processing.start", "")].concat());
    client.through("prompt_processing.start");
    let_pass(30);
    link.send(event("message.delta", ",\"content\":\"Hello\""));
    client.through("Hello");
    let_pass(20);
    let stats = ",\"result\":{\"model_instance_id\":\"m\",\"output\":[],\"stats\":{\"input_tokens\":900,\
        \"total_output_tokens\":2,\"tokens_per_second\":40.5,\"model_load_time_seconds\":0.05}}";
    link.send([event("chat.end", stats), LAST_CHUNK.to_owned()].concat());
    client.through(LAST_CHUNK);
    proxy.wait_for_rows(1);
    let [waiting, loading, prompts, generating] = check(&proxy);
    assert_eq!((loading, waiting < 50.0), (50.0, true));
    assert!(prompts >= 40.0 && generating >= 20.0, "{prompts} {generating}");
    let told = json(&proxy, "/stats/time?from=-1h&model=m");
    assert_eq!((told["model_loads"].as_i64(), told["model_load_ms"].as_i64()), (Some(1), Some(50)));
    let speed = told["times"][0]["prompt_tokens_per_second"].as_f64().expect("it is measured");
    let (_, queue, load, first, _) = clocked(&proxy)[0];
    assert!((speed - 900_000.0 / (first - load - queue) as f64).abs() <= 0.1, "{speed}");
    // Without them, it is the time of others.
    let others = json(&proxy, "/stats/time?from=-1h&model=none");
    assert_eq!(others["times"], Value::Array(vec![]));
    assert!(
        others["others_ms"].as_f64().is_some_and(|ms| (ms - waiting - loading - prompts - generating).abs() < 0.01)
    );
    let reply = proxy.ask(get("/stats/time?from=-1h"));
    let text = reply.text();
    assert!(text.contains("\nprompt processing "), "{text}");
}
