//! What goes on now is shown as it is, and ends when somebody calls it off.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::*;

/// What `/stats/now` tells.
fn now(proxy: &Proxy) -> Value {
    let reply = proxy.ask("GET /stats/now HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    assert_eq!((reply.status(), reply.field("content-type")), (200, Some("application/json")));
    reply.json()
}

/// The only exchange, as soon as it is in this phase.
#[track_caller]
fn in_phase(proxy: &Proxy, phase: &str) -> Value {
    let only = |now: Value| {
        let exchanges = now["exchanges"].as_array().expect("a list").clone();
        assert!(exchanges.len() <= 1, "{now}");
        exchanges.into_iter().next().filter(|one| one["phase"] == phase)
    };
    until(phase, || only(now(proxy)))
}

/// The ids of all that go on, and their phases.
fn phases(proxy: &Proxy) -> Vec<(u64, String)> {
    let now = now(proxy);
    let exchanges = now["exchanges"].as_array().expect("a list").iter();
    let phase = |one: &Value| one["phase"].as_str().expect("a word").to_owned();
    exchanges.map(|one| (one["id"].as_u64().expect("a number"), phase(one))).collect()
}

fn delete(id: u64, fields: &str) -> String {
    format!("DELETE /stats/now/{id} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

/// Calls it off, and what is called off with it.
#[track_caller]
fn call_off(proxy: &Proxy, id: u64) -> Vec<u64> {
    let reply = proxy.ask(delete(id, ""));
    assert_eq!(reply.status(), 202, "{}", reply.text());
    reply.json()["called_off"].as_array().expect("a list").iter().map(|id| id.as_u64().expect("a number")).collect()
}

/// What its client reads before anything of its reply came.
#[track_caller]
fn check_told(reply: &Message) {
    assert_eq!((reply.status(), &reply.json()["error"]["code"]), (410, &"cancelled_here".into()));
}

#[track_caller]
fn check_row(row: &Row, http_status: i64) {
    assert_eq!((row.outcome.as_str(), row.is_error, row.http_status), ("cancelled_here", false, Some(http_status)));
    assert_eq!(row.error_message.as_deref(), Some("it was called off by DELETE /stats/now/ID"));
}

#[test]
fn nothing_goes_on_and_nothing_is_known_before_the_first_request() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let now = now(&proxy);
    assert_eq!((&now["in_flight"], &now["queued"], &now["exchanges"]), (&0.into(), &0.into(), &Value::Array(vec![])));
    assert_eq!(
        (&now["upstream"]["is_up"], &now["upstream"]["since"], &now["models"]),
        (&Value::Null, &Value::Null, &Value::Array(vec![]))
    );
    let text = proxy.ask(get("/stats/now"));
    assert_eq!(text.field("content-type"), Some("text/plain; charset=utf-8"));
    assert!(
        text.text().contains("LM Studio was not asked for anything yet.\n\nNothing is in flight.\n"),
        "{}",
        text.text()
    );
    assert!(!proxy.ask(get("/metrics")).text().contains("lms_proxy_upstream_up"));
}

#[test]
fn a_stream_waits_until_its_first_word_and_then_its_events_are_counted() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let body = r#"{"model":"asked","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let fields = "User-Agent: curl/8.5.0\r\nSession_id: s-1";
    let request = post("/v1/chat/completions", body).replace("Content-Type", &format!("{fields}\r\nContent-Type"));
    let (mut client, mut link) = asked(&proxy, &upstream, request);
    let one = in_phase(&proxy, "waiting");
    assert_eq!(
        (&one["endpoint"], &one["client"], &one["model"]),
        (&"/v1/chat/completions".into(), &"curl".into(), &"asked".into())
    );
    assert_eq!((&one["conversation"], &one["body_bytes"]), (&"s-1".into(), &body.len().into()));
    assert_eq!(
        (&one["events"], &one["output_tokens"], &one["events_per_second"]),
        (&0.into(), &Value::Null, &Value::Null)
    );
    // A head, and a role without a word: the prompt is still being processed.
    let role = "data: {\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}]}\n\n";
    link.send([STREAM_HEAD.to_owned(), chunk(": ping\n\n"), chunk(role)].concat());
    client.through("assistant");
    let one = in_phase(&proxy, "waiting");
    assert_eq!((&one["model"], &one["events"]), (&"m-1".into(), &1.into()));
    for word in ["One", "two", "two", "three"] {
        link.send(chunk(&event(word)));
        client.through(word);
    }
    let one = until("five events", || Some(in_phase(&proxy, "generating")).filter(|one| one["events"] == 5));
    assert_eq!((&one["output_tokens"], &one["tokens_per_second"]), (&Value::Null, &Value::Null));
    assert!(one["duration_ms"].as_u64() >= one["phase_ms"].as_u64());
    let told =
        until("a speed", || Some(in_phase(&proxy, "generating")).filter(|one| !one["events_per_second"].is_null()));
    assert!(told["events_per_second"].as_f64().expect("a number") > 0.0);
    let text = proxy.ask(get("/stats/now"));
    assert!(text.text().lines().any(|line| line.contains("curl") && line.contains("generating")), "{}", text.text());
    link.send([chunk(USAGE_EVENT), chunk(DONE), LAST_CHUNK.into()].concat());
    client.through(LAST_CHUNK);
    assert_eq!(phases(&proxy), [], "who has the whole reply is told that it is over");
}

#[test]
fn tokens_are_told_where_the_stream_tells_them() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (_client, mut link) = streaming(&proxy, &upstream);
    let counted = "data: {\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" more\"}}],\"usage\":{\"prompt_tokens\":17,\"completion_tokens\":7,\"total_tokens\":24}}\n\n";
    link.send(chunk(counted));
    let one = until("tokens", || Some(in_phase(&proxy, "generating")).filter(|one| one["output_tokens"] == 7));
    assert_eq!(one["events"], 2);
}

#[test]
fn what_a_lane_asks_and_what_cannot_be_read_is_shown_too() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asked(&proxy, &upstream, chat());
    link.send(chat_reply());
    client.reply();
    assert_eq!(phases(&proxy), []);
    // On a connection that is there already, a lane asks itself.
    client.send(post("/v1/embeddings", r#"{"model":"e","input":"a"}"#));
    link.request();
    let one = in_phase(&proxy, "waiting");
    assert_eq!((&one["endpoint"], &one["model"]), (&"/v1/embeddings".into(), &"e".into()));
    link.send(reply("200 OK", "application/json", "{}"));
    client.reply();
    assert_eq!(phases(&proxy), []);
    client.send(get("/v1/files"));
    link.request();
    link.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
    client.through("1\r\na");
    let one = in_phase(&proxy, "generating");
    assert_eq!((&one["endpoint"], &one["model"], &one["events"]), (&"/v1/files".into(), &Value::Null, &Value::Null));
}

#[test]
fn one_that_waits_for_a_place_is_queued_and_can_be_called_off() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let (mut first, mut link) = streaming(&proxy, &upstream);
    let mut second = proxy.connect();
    second.send(post("/v1/chat/completions", r#"{"model":"queued","user":"me","messages":[]}"#));
    // It is shown from its first moment on, and looked at in the next.
    let queued = until("a queue", || {
        let now = now(&proxy);
        now["exchanges"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|one| one["phase"] == "queued" && !one["model"].is_null())
            .cloned()
    });
    assert_eq!((&queued["model"], &queued["client"]), (&"queued".into(), &"me".into()));
    let counts = now(&proxy);
    assert_eq!((&counts["in_flight"], &counts["queued"]), (&1.into(), &1.into()));
    let id = queued["id"].as_u64().expect("a number");
    assert_eq!(call_off(&proxy, id), [id]);
    check_told(&second.reply());
    // The other goes on, and its place is still its own.
    link.send([chunk(DONE), LAST_CHUNK.into()].concat());
    first.through(LAST_CHUNK);
    let rows = proxy.wait_for_rows(2);
    check_row(rows.iter().find(|row| row.requested_model.as_deref() == Some("queued")).expect("its row"), 410);
    assert_eq!(rows.iter().filter(|row| row.outcome == "completed").count(), 1);
    // Its connection serves the next request.
    let mut links = vec![link];
    second.send(chat());
    let link = upstream.asked_on(&mut links);
    link.request();
    link.send(chat_reply());
    assert_eq!(second.reply().status(), 200);
}

/// An address that nobody answers: its queue of connections is full.
#[cfg(target_os = "linux")]
#[test]
fn one_that_connects_can_be_called_off() {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(0).expect("it listens");
    let address = listener.local_addr().expect("an address").as_socket().expect("of IP");
    let mut fill = Vec::new();
    until("a full queue", || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let connected = socket.connect_timeout(&address.into(), std::time::Duration::from_millis(100));
        fill.push(socket);
        connected.is_err().then_some(())
    });
    let proxy = Proxy::start(&std::sync::Arc::new(Folder::new()), &[("LM_STUDIO_URL", &format!("http://{address}"))]);
    let mut client = proxy.connect();
    client.send(chat());
    let one = in_phase(&proxy, "connecting");
    call_off(&proxy, one["id"].as_u64().expect("a number"));
    check_told(&client.reply());
    check_row(&proxy.wait_for_rows(1)[0], 410);
    assert_eq!(now(&proxy)["upstream"]["is_up"], Value::Null, "nobody has waited long enough to know");
}

#[test]
fn one_that_waits_is_told_that_it_was_called_off_and_upstream_is_let_go() {
    for is_lane in [false, true] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let (mut client, mut link) = asked(&proxy, &upstream, chat());
        if is_lane {
            link.send(chat_reply());
            client.reply();
            client.send(chat());
            link.request();
        }
        let one = in_phase(&proxy, "waiting");
        call_off(&proxy, one["id"].as_u64().expect("a number"));
        link.wait_for_close();
        check_told(&client.reply());
        let rows = proxy.wait_for_rows(1 + usize::from(is_lane));
        check_row(rows.last().expect("a row"), 410);
        assert_eq!(phases(&proxy), []);
    }
}

#[test]
fn a_stream_that_is_called_off_is_cut_and_upstream_with_it() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    let (mut stays, mut stays_link) = streaming(&proxy, &upstream);
    let ids: Vec<u64> = phases(&proxy).into_iter().map(|(id, _)| id).collect();
    assert_eq!((ids.len(), call_off(&proxy, ids[0])), (2, vec![ids[0]]));
    link.wait_for_close();
    let rest = String::from_utf8(client.rest()).expect("text");
    assert!(!rest.contains(LAST_CHUNK) && !rest.contains("[DONE]"), "{rest}");
    let row = proxy.wait_for_rows(1).remove(0);
    check_row(&row, 200);
    assert_eq!(row.output.as_deref(), Some("One"));
    assert_eq!(proxy.ask(delete(ids[0], "")).status(), 404, "it is over");
    stays_link.send([chunk(DONE), LAST_CHUNK.into()].concat());
    stays.through(LAST_CHUNK);
    // It counts as cancelled, and as what it is.
    let summary = proxy.json("/stats/summary");
    let figures = ["total_requests", "cancelled_requests", "failed_requests", "successful_requests"];
    assert_eq!(figures.map(|name| summary[name].as_i64().expect("a number")), [2, 1, 0, 1]);
    assert_eq!(proxy.json("/stats/summary?outcome=cancelled_here")["total_requests"], 1);
    let outcomes = proxy.json("/stats/by-outcome")["outcomes"].as_array().expect("a list").clone();
    assert!(outcomes.iter().any(|one| one["outcome"] == "cancelled_here" && one["requests"] == 1), "{outcomes:?}");
    assert!(proxy.ask(get("/metrics")).text().contains(r#"outcome="cancelled_here"} 1"#));
    proxy.check_sound();
}

#[test]
fn one_that_has_told_its_end_is_not_called_off_any_more() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    link.send(chunk(DONE));
    client.through("[DONE]");
    let reply = proxy.ask(delete(phases(&proxy)[0].0, ""));
    assert_eq!((reply.status(), &reply.json()["error"]["code"]), (409, &"has_ended".into()), "{}", reply.text());
    link.send(LAST_CHUNK);
    client.through(LAST_CHUNK);
    assert_eq!(proxy.row().outcome, "completed");
}

/// In the last moment: what is answered, what the row says and what the client sees is one story, whoever is faster.
#[test]
fn whoever_calls_off_is_told_what_becomes_of_it() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut links = Vec::new();
    let mut stories = [0, 0];
    let whole_stream = [STREAM_HEAD, &chunk(&event("One")), &chunk(DONE), LAST_CHUNK].concat();
    // Sooner or later, by what else there is to do.
    let busy = |count: usize| {
        let mut asks = proxy.connect();
        (0..=count).for_each(|_| drop(asks.ask(get("/health"))));
        asks
    };
    for round in 0..60 {
        let mut client = proxy.connect();
        let is_stream = round % 2 == 0;
        let request = if is_stream { streaming_chat() } else { chat() };
        client.send(request.replace("Host", "Connection: close\r\nHost"));
        let link = upstream.asked_on(&mut links);
        link.request();
        // Nobody has asked for it: who asks for what goes on waits before the next answer.
        let id = round as u64 + 1;
        let calls_off = std::thread::scope(|scope| {
            let answers = scope.spawn(|| busy(round % 7).ask(delete(id, "")).status());
            busy(3);
            link.try_send(if is_stream { whole_stream.clone().into_bytes() } else { chat_reply() });
            answers.join().expect("answered")
        });
        let seen = String::from_utf8(client.rest()).expect("text");
        let is_whole = if is_stream { seen.ends_with(LAST_CHUNK) } else { seen.contains(CHAT_REPLY) };
        let row = proxy.wait_for_rows(round + 1).pop().expect("a row");
        match calls_off {
            202 => assert_eq!((row.outcome.as_str(), is_whole), ("cancelled_here", false), "{seen}"),
            404 | 409 => assert_eq!((row.outcome.as_str(), is_whole), ("completed", true), "{seen}"),
            other => panic!("{other}"),
        }
        stories[usize::from(is_whole)] += 1;
    }
    assert!(stories.iter().all(|count| *count > 0), "both happen: {stories:?}");
    proxy.check_sound();
}

#[test]
fn one_whose_client_does_not_read_is_called_off_too() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (_client, mut link) = streaming(&proxy, &upstream);
    link.send_until_full(&chunk(&event(&"x".repeat(10_000))));
    call_off(&proxy, phases(&proxy)[0].0);
    link.wait_for_close();
    check_row(&proxy.wait_for_rows(1)[0], 200);
}

#[test]
fn who_may_call_off_is_who_may_ask() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("STATS_TOKEN", "s3cret")]);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    let token = "Authorization: Bearer s3cret\r\n";
    let status = |request: String| proxy.ask(request).status();
    let asked = |fields: &str| format!("GET /stats/now HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    assert_eq!((status(asked("")), status(asked(token))), (401, 200));
    assert_eq!(status(delete(1, "")), 401);
    let foreign = format!("{token}Origin: https://evil.example\r\n");
    assert_eq!((status(asked(&foreign)), status(delete(1, &foreign))), (403, 403));
    assert_eq!(status(delete(1, token).replace("Host: localhost", "Host: evil.example")), 403);
    assert_eq!(status(delete(1, token).replace("/1 ", "/1?force=1 ")), 400);
    assert_eq!(status(delete(999, token)), 404);
    // Each route tells its own methods.
    for (method, path, allow) in
        [("DELETE", "/stats/now", "GET, HEAD"), ("GET", "/stats/now/1", "DELETE"), ("POST", "/stats/now/1", "DELETE")]
    {
        let reply = proxy.ask(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"));
        assert_eq!((reply.status(), reply.field("allow")), (405, Some(allow)), "{method} {path}");
    }
    // Nothing of that has touched it.
    link.send([chunk(DONE), LAST_CHUNK.into()].concat());
    client.through(LAST_CHUNK);
    assert_eq!(proxy.row().outcome, "completed");
}

#[test]
fn it_is_told_and_called_off_without_a_database() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (_client, mut link) = streaming(&proxy, &upstream);
    std::fs::write(proxy.folder().database(), "no database").expect("written");
    call_off(&proxy, in_phase(&proxy, "generating")["id"].as_u64().expect("a number"));
    link.wait_for_close();
}

// ---- upstream ------------------------------------------------------------------------------------------------------

/// The gauge, if it is there.
fn up(proxy: &Proxy) -> Option<String> {
    let metrics = proxy.ask(get("/metrics"));
    let line = metrics.text().lines().find(|line| line.starts_with("lms_proxy_upstream_up "))?.to_owned();
    line.rsplit(' ').next().map(str::to_owned)
}

#[test]
fn upstream_is_up_or_down_since_a_request_found_it_so() {
    // Each request makes a connection of its own.
    let last = String::from_utf8(chat_reply()).expect("text").replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let upstream = Upstream::answering(move |link, _| link.send(&last));
    let address = upstream.address();
    let proxy = Proxy::before(&upstream);
    assert_eq!(up(&proxy), None);
    assert_eq!(proxy.ask(chat()).status(), 200);
    let since = now(&proxy)["upstream"]["since"].clone();
    assert_eq!(
        (&now(&proxy)["upstream"]["is_up"], since.is_string(), up(&proxy).as_deref()),
        (&true.into(), true, Some("1"))
    );
    drop(upstream);
    // A connection that its listener had not taken up yet is reset.
    until("its end", || {
        proxy.ask(chat());
        (now(&proxy)["upstream"]["is_up"] == false).then_some(())
    });
    let down = now(&proxy)["upstream"].clone();
    assert_eq!((&down["is_up"], up(&proxy).as_deref()), (&false.into(), Some("0")));
    assert_eq!(proxy.ask(chat()).status(), 502);
    assert_eq!(now(&proxy)["upstream"], down, "since then");
    let text = proxy.ask(get("/stats/now")).text().to_owned();
    assert!(text.contains("LM Studio does not answer, for "), "{text}");
    let _again = Upstream::answering_again(address, |link, _| link.send(chat_reply()));
    assert_eq!(proxy.ask(chat()).status(), 200);
    assert_eq!((&now(&proxy)["upstream"]["is_up"], up(&proxy).as_deref()), (&true.into(), Some("1")));
}

/// What is known of models: name, state, how many tokens their context holds, and could hold.
fn models(proxy: &Proxy) -> Vec<(String, String, Option<u64>, Option<u64>)> {
    let now = now(proxy);
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let of = |one: &Value| {
        let tokens = |name: &str| one[name].as_u64();
        (text(&one["model"]), text(&one["state"]), tokens("context_tokens"), tokens("context_tokens_max"))
    };
    now["models"].as_array().expect("a list").iter().map(of).collect()
}

fn model(
    name: &str,
    state: &str,
    context: Option<u64>,
    most: Option<u64>,
) -> (String, String, Option<u64>, Option<u64>) {
    (name.into(), state.into(), context, most)
}

#[test]
fn listings_tell_which_models_are_loaded_and_which_were_evicted() {
    const A: &str = r#"{"object":"list","data":[{"id":"a","state":"loaded","loaded_context_length":4096,"max_context_length":32768},{"id":"b","state":"not-loaded"}]}"#;
    const B: &str = r#"{"models":[{"key":"a","loaded_instances":[],"max_context_length":32768},{"key":"b","loaded_instances":[{"id":"b","config":{"context_length":8192}}],"max_context_length":8192}]}"#;
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::answering(move |link, request| {
        let body = if request.start_line().contains("/v1/models/unload") {
            r#"{"instance_id":"b"}"#
        } else if request.start_line().contains("/api/v1/models") {
            B
        } else if request.start_line().contains("/api/v0/models") {
            A
        } else {
            r#"{"data":[{"id":"a"},{"id":"b"}]}"#
        };
        // By a lane and by a worker, whole and in chunks.
        match asked.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => link.send(reply("200 OK", "application/json", body)),
            _ => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                let (begin, end) = body.split_at(body.len() / 2);
                link.send([head, &chunk(begin), &chunk(end), LAST_CHUNK].concat());
            }
        }
    });
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    let mut ask = |request: String| assert_eq!(client.ask(request).status(), 200);
    for _ in 0..2 {
        ask(get("/api/v0/models"));
        assert_eq!(models(&proxy)[0], model("a", "loaded", Some(4096), Some(32768)));
        let before = models(&proxy);
        ask(get("/v1/models"));
        assert_eq!(models(&proxy), before, "names alone tell nothing");
        ask(get("/api/v1/models"));
        let evicted = model("a", "evicted", Some(4096), Some(32768));
        assert_eq!(models(&proxy), [model("b", "loaded", Some(8192), Some(8192)), evicted.clone()]);
        ask(post("/api/v1/models/unload", r#"{"instance_id":"b"}"#));
        assert_eq!(models(&proxy), [evicted, model("b", "evicted", Some(8192), Some(8192))]);
        let text = proxy.ask(get("/stats/now")).text().to_owned();
        assert!(text.contains("evicted  a ") && text.contains("context 4,096 of 32,768"), "{text}");
        // The next round's replies come in the other way.
        ask(get("/v1/models"));
    }
    proxy.check_sound();
}

#[test]
fn a_reply_that_loaded_its_model_tells_so() {
    let stream = "event: chat.start\ndata: {\"type\":\"chat.start\",\"model_instance_id\":\"m-1\"}\n\nevent: model_load.end\ndata: {\"type\":\"model_load.end\",\"model_instance_id\":\"m-1\",\"load_time_seconds\":2.5}\n\nevent: chat.end\ndata: {\"type\":\"chat.end\",\"result\":{\"model_instance_id\":\"m-1\",\"output\":[],\"stats\":{\"input_tokens\":1,\"total_output_tokens\":1,\"model_load_time_seconds\":2.5}}}\n\n";
    let upstream = Upstream::answering(move |link, _| link.send([STREAM_HEAD, &chunk(stream), LAST_CHUNK].concat()));
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(post("/api/v1/chat", r#"{"model":"m-1","input":"Hi","stream":true}"#));
    client.through(LAST_CHUNK);
    assert_eq!(models(&proxy), [model("m-1", "loaded", None, None)]);
}
