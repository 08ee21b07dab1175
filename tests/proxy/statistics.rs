//! Statistics as their readers ask for them: filters, files, costs. Their figures are checked beside the queries.

use std::fs;
use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;

use lms_metrics_proxy::record::row::{Content, Outcome, Row};
use lms_metrics_proxy::record::store::{DbSync, Store};
use rusqlite::Connection;

use crate::harness::*;

pub fn recorded(number: usize) -> Row {
    Row {
        endpoint: "/v1/chat/completions".to_owned(),
        model: Some(if number.is_multiple_of(2) { "even" } else { "odd" }.to_owned()),
        requested_model: None,
        start_ms: 1_768_818_645_678 + number as i64 * 1000,
        duration_ms: 850,
        input_tokens: Some(1000),
        output_tokens: Some(500),
        total_tokens: Some(1500),
        cached_tokens: None,
        cache_write_tokens: None,
        reasoning_tokens: None,
        draft_tokens: None,
        accepted_draft_tokens: None,
        request_id: Some(format!("chatcmpl-{number}")),
        outcome: Outcome::Completed,
        error_message: (number == 0).then(|| "=cmd(\"a\"), bad".to_owned()),
        http_status: Some(200),
        was_streamed: false,
        time_to_first_token_ms: None,
        tokens_per_second: None,
        prompt_tokens_per_second: None,
        finish_reason: Some("stop".to_owned()),
        usage_source: Some("usage"),
        model_load_ms: None,
        client: None,
        key: None,
        attempt: None,
        told_conversation: Default::default(),
        replay_of: None,
        queue_ms: None,
        context_tokens: None,
        content: Content { prompt: Some(format!("prompt {number}").into()), ..Content::default() },
    }
}

/// A proxy on a database that holds so many rows.
fn proxy_on(rows: usize, settings: &[(&str, &str)]) -> Proxy {
    let folder = Arc::new(Folder::new());
    let mut store = Store::open(&folder.database(), DbSync::Normal).expect("opens");
    let rows: Vec<Row> = (0..rows).map(recorded).collect();
    for batch in rows.chunks(1000) {
        store.write(batch).expect("writes");
    }
    drop(store);
    // Where a row's number can be divided by four, it is the turn of a conversation.
    Connection::open(folder.database())
        .and_then(|conn| conn.execute_batch("UPDATE requests SET conversation = 'a/b c' WHERE id % 4 = 0"))
        .expect("written");
    fs::write(
        folder.path().join("prices.json"),
        r#"{"currency": "USD", "models": [{"model": "e*", "input": 1, "output": 2}]}"#,
    )
    .expect("written");
    // The words of these rows are older than those that are kept by default.
    Proxy::start(&folder, &[&[("CONTENT_DAYS", "0")], settings].concat())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn every_route_answers_and_takes_filters() {
    let proxy = proxy_on(10, &[("MODEL_PRICES", "prices.json")]);
    let check = |path: &str, pointer: &str, expected: serde_json::Value| {
        let answer = proxy.json(path);
        assert_eq!(answer.pointer(pointer), Some(&expected), "{path}: {answer}");
    };
    check("/stats/summary", "/total_requests", 10.into());
    check("/stats/summary", "/cost", 0.01.into());
    check("/stats/summary?model=odd", "/total_requests", 5.into());
    check("/stats/summary?model=odd&model=even", "/total_requests", 10.into());
    check("/stats/summary?model=odd", "/cost", serde_json::Value::Null);
    check("/stats/summary?from=2026-01-19T10:30:50Z", "/total_requests", 5.into());
    check("/stats/summary?to=2026-01-19", "/total_requests", 0.into());
    check("/stats/summary?from=-1h", "/total_requests", 0.into());
    check("/stats/by-model", "/models/0/model", "even".into());
    check("/stats/by-model", "/models/0/cost", 0.01.into());
    check("/stats/by-endpoint", "/endpoints/0/requests", 10.into());
    check("/stats/by-client", "/clients/0/client", serde_json::Value::Null);
    check("/stats/by-key", "/keys/0/requests", 10.into());
    check("/stats/by-outcome?outcome=completed", "/outcomes/0/outcome", "completed".into());
    let month = "/stats/over-time?bucket=month&tz=+02:00&from=2026-01-01&to=2026-03-01";
    check(month, "/points/0/total_requests", 10.into());
    check(month, "/points/1/start", "2026-02-01T00:00:00+02:00".into());
    check(month, "/points/1/total_requests", 0.into());
    check("/stats/latency", "/duration_ms/max", 850.0.into());
    check("/stats/latency?model=odd", "/models/0/duration_ms/count", 5.into());
    check("/stats/recent?model=odd&limit=2", "/requests/1/id", 8.into());
    check("/stats/requests?limit=4&after=7", "/requests/0/id", 6.into());
    check("/stats/requests?limit=4&after=7", "/next_after", 3.into());
    check("/stats/requests/3", "/prompt", "prompt 2".into());
    check("/stats/search?q=PROMPT+7", "/requests/0/excerpt", "prompt 7".into());
    check("/stats/requests/4", "/conversation", "a/b c".into());
    check("/stats/summary?conversation=a/b+c", "/total_requests", 2.into());
    check(
        "/stats/summary?conversation=a%2Fb%20c&conversation=d&from=2026-01-19T10:30:50Z",
        "/total_requests",
        1.into(),
    );
    check("/stats/by-model?conversation=a/b+c&outcome=completed", "/models/0/requests", 2.into());
    check("/stats/over-time?conversation=a/b+c&from=2026-01-19&to=2026-01-20", "/points/0/total_requests", 2.into());
    check("/stats/latency?conversation=a/b+c", "/duration_ms/count", 2.into());
    check("/stats/recent?conversation=a/b+c", "/requests/0/id", 8.into());
    check("/stats/requests?conversation=a/b+c&limit=1", "/next_after", 8.into());
    check("/stats/search?conversation=a/b+c&q=prompt", "/requests/1/id", 4.into());
    check("/stats/summary?conversation=d", "/total_requests", 0.into());
    assert!(proxy.json("/stats/requests/5")["conversation"].is_null());
    check("/stats/conversations", "/conversations/0/conversation", "a/b c".into());
    check("/stats/conversations?model=odd&to=2026-01-19T10:30:49Z", "/conversations/0/requests", 2.into());
    check("/stats/conversations?model=odd&from=2026-01-19T10:30:54Z", "/conversations", serde_json::json!([]));
    check("/stats/conversations/a%2Fb%20c", "/cost", serde_json::Value::Null);
    check("/stats/conversations/a%2Fb%20c?limit=1", "/turns/0/id", 4.into());
    check("/stats/conversations/a%2Fb%20c?limit=1", "/next_after", 4.into());
    check("/stats/conversations/a%2Fb%20c?after=4", "/turns/0/id", 8.into());
    assert_eq!(proxy.ask(get("/stats/export?conversation=a/b+c")).text().lines().count(), 3);
    for (path, status) in [
        ("/stats/summary?modle=odd", 400),
        ("/stats/over-time?bucket=hour&from=1990-01-01", 400),
        ("/stats/search", 400),
        ("/stats/summary?conversation=", 400),
        ("/stats/conversations?q=x", 400),
        ("/stats/conversations/a", 404),
        ("/stats/conversations/a%2Fb%20c/", 404),
        ("/stats/export?format=xls", 400),
        ("/stats/requests/11", 404),
        ("/stats/requests/x", 404),
    ] {
        assert_eq!(proxy.ask(get(path)).status(), status, "{path}");
    }
    let error = &proxy.ask(get("/stats/conversations/a")).json()["error"];
    assert_eq!((&error["code"], &error["message"]), (&"not_found".into(), &"There is no conversation \"a\".".into()));
    let error = |path: &str| proxy.ask(get(path)).json()["error"].clone();
    let said = |path: &str, words: &str| error(path)["message"].as_str().is_some_and(|message| message.contains(words));
    assert_eq!(error("/stats/by-model?modle=odd")["code"], "bad_request");
    assert!(said("/stats/by-model?modle=odd", "\"modle\". Did you mean model?"));
    assert!(said("/stats/nwo", "Did you mean /stats/now?") && said("/stats/x", "There are /stats/summary, "));
    // A plus that nobody escaped is a space by then; no zone has one.
    if std::path::Path::new("/usr/share/zoneinfo/Etc/GMT+5").exists() {
        check("/stats/over-time?tz=Etc/GMT+5&from=2026-01-19", "/tz", "Etc/GMT+5".into());
    }
}

#[test]
fn an_export_is_a_file_of_all_matching_rows() {
    let proxy = proxy_on(2500, &[("MODEL_PRICES", "prices.json")]);
    let mut client = proxy.connect();
    let csv = client.ask(get("/stats/export"));
    assert_eq!(csv.field("content-type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(csv.field("content-disposition"), Some("attachment; filename=\"requests.csv\""));
    let lines: Vec<&str> = csv.text().split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 2501);
    assert!(lines[0].starts_with("id,start_time,endpoint,model,"));
    assert!(lines[0].contains(",request_id,cache_write_tokens,draft_tokens,accepted_draft_tokens,"));
    assert!(lines[0].contains(",prompt_tokens_per_second,cost,currency,conversation,conversation_source,"));
    assert!(lines[0].ends_with(",context_tokens,context_used_percent,prompt_cut,prompt_expected_tokens"));
    assert!(lines[1].contains(r#",false,"'=cmd(""a""), bad",200,"#), "{}", lines[1]);
    assert!(
        lines[2500].starts_with("2500,2026-01-19T11:12:24Z,")
            && lines[2500].ends_with("chatcmpl-2499,,,,,,USD,a/b c,,,,,,,,,,,,,")
    );
    // The connection goes on.
    let jsonl = client.ask(get("/stats/export?format=jsonl&model=even&from=2026-01-19T11:00:00Z"));
    let rows: Vec<serde_json::Value> =
        jsonl.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.first().map(|row| &row["id"]), Some(&1757.into()));
    assert!(rows.iter().all(|row| row["model"] == "even" && row["cost"] == 0.002));
    client.send("HEAD /stats/export HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.bodiless_reply().status(), 200);
    // Compressed where that is asked for, part by part.
    let plain = client.ask(get("/stats/export"));
    assert!(plain.field("date").is_some_and(|date| date.ends_with(" GMT")));
    assert_eq!((plain.field("content-encoding"), plain.field("vary")), (None, Some("Accept-Encoding")));
    let small = client.ask(get("/stats/export").replace("Host", "Accept-Encoding: gzip\r\nHost"));
    assert_eq!((small.field("content-encoding"), small.ended), (Some("gzip"), Ended::Whole));
    let mut unpacked = Vec::new();
    GzDecoder::new(&small.body[..]).read_to_end(&mut unpacked).expect("gzip");
    assert!(unpacked == plain.body && small.body.len() * 5 < plain.body.len());
    let old = proxy.ask("GET /stats/export?to=2026-01-19T10:30:50Z HTTP/1.0\r\n\r\n");
    assert_eq!((old.field("transfer-encoding"), old.text().lines().count()), (None, 6));
}

#[test]
fn conversations_are_exported_with_all_that_was_said() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let say = r#"{"role": "user", "content": "Say \"a\"."}"#;
    let answered = format!(r#"{say}, {{"role": "assistant", "content": "b"}}, {say}"#);
    for messages in [say, &answered, say] {
        let body = format!(r#"{{"model": "m", "messages": [{messages}], "tools": [{{"name": "f"}}]}}"#);
        let asked = post("/v1/chat/completions", &body);
        proxy.ask(asked.replacen("\r\n", "\r\nX-Claude-Code-Session-Id: c\r\n", 1));
    }
    let listed = &proxy.json("/stats/conversations")["conversations"];
    assert_eq!((&listed[0]["requests"], &listed[1]), (&3.into(), &serde_json::Value::Null), "{listed}");
    assert_eq!((&listed[0]["title"], &listed[0]["conversation_source"]), (&"Say \"a\".".into(), &"header".into()));
    let chats = proxy.ask(get("/stats/export?format=chat&conversation=c&conversation=d"));
    assert_eq!(chats.field("content-type"), Some("application/jsonl"));
    assert_eq!(chats.field("content-disposition"), Some("attachment; filename=\"conversations.jsonl\""));
    let line: serde_json::Value = serde_json::from_str(chats.text()).expect("one line of JSON");
    let user = serde_json::json!({"role": "user", "content": "Say \"a\"."});
    let [before, answer] = ["b", "Hello"].map(|said| serde_json::json!({"role": "assistant", "content": said}));
    let tool = serde_json::json!({"type": "function", "function": {"name": "f"}});
    let messages = [&user, &before, &user, &answer];
    let expected = serde_json::json!({"conversation": "c", "messages": messages, "tools": [tool], "left_out": 0});
    assert_eq!(line, expected);
}

#[test]
fn a_reader_of_an_export_that_stalls_holds_up_nobody() {
    let proxy = proxy_on(15_000, &[]);
    let mut stalled: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
    for client in &mut stalled {
        client.send(get("/stats/export?format=jsonl"));
        client.wait_for("\"id\":1,");
    }
    let refused = proxy.ask(get("/stats/export"));
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("30")));
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 15_000);
    // No export keeps the write-ahead log from being moved whole: it reads in short transactions.
    let other = Connection::open(proxy.folder().database()).expect("opens");
    until("a checkpoint", || {
        let busy = other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        (busy == Ok(0)).then_some(())
    });
    // Who reads on gets the rest.
    let first = stalled.remove(0).reply();
    assert_eq!(first.text().lines().count(), 15_000);
    drop(stalled);
    until("a free place", || (proxy.ask(get("/stats/export?from=-1h")).status() == 200).then_some(()));
}

/// Regression: a row of a clock that was wrong was of every last week until its day came.
#[test]
fn what_is_since_a_moment_leaves_out_rows_of_days_to_come() {
    let folder = Arc::new(Folder::new());
    let mut store = Store::open(&folder.database(), DbSync::Normal).expect("opens");
    let year_2099 = Row { start_ms: 4_070_908_800_000, ..recorded(1) };
    store.write(&[recorded(0), year_2099]).expect("writes");
    drop(store);
    let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", "http://127.0.0.1:9")]);
    for (query, requests) in [("?from=-1d", 0), ("?from=2026-01-01", 1), ("", 2), ("?from=2098-01-01", 1)] {
        let told = |route: &str, pointer: &str| proxy.json(&format!("{route}{query}")).pointer(pointer).cloned();
        assert_eq!(told("/stats/summary", "/total_requests"), Some(requests.into()), "{query}");
        assert_eq!(told("/stats/latency", "/duration_ms/count"), Some(requests.into()), "{query}");
        let listed = told("/stats/requests", "/requests").and_then(|rows| rows.as_array().map(Vec::len));
        assert_eq!(listed, Some(requests), "{query}");
        let export = proxy.ask(get(&format!("/stats/export{query}")));
        assert_eq!(export.text().lines().count(), 1 + requests, "{query}");
    }
}
