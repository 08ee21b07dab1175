//! Every generation leaves one row, and it is there before the client has the whole reply.

#[cfg(unix)]
use std::collections::HashSet;
#[cfg(unix)]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rusqlite::Connection;

use crate::harness::*;

#[test]
fn the_row_is_there_when_the_reply_ends() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.ask(chat().replace("/v1/chat/completions", "/v1/chat/completions?key=secret"));
    let row = proxy.row();
    assert_eq!((row.endpoint.as_str(), row.model.as_str()), ("/v1/chat/completions", "m-1"));
    assert_eq!((row.outcome.as_str(), row.http_status, row.is_error), ("completed", Some(200), false));
    assert_eq!((row.input_tokens, row.output_tokens, row.total_tokens), (Some(17), Some(5), Some(22)));
    assert_eq!((row.request_id.as_deref(), row.was_streamed), (Some("chatcmpl-1"), false));
    assert!(row.prompt.expect("stored by default").contains("Hi"));
    assert_eq!(row.output.as_deref(), Some("Hello"));
    for count in 2..20 {
        client.ask(chat());
        assert_eq!(proxy.rows().len(), count);
    }
}

#[test]
fn the_row_of_a_stream_is_there_before_its_terminal_event() {
    // SDK clients take `[DONE]` for the end, whatever upstream still has to say and however long it takes.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asking(&proxy, &upstream);
    link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(&event("two")), &chunk(USAGE_EVENT)].concat());
    client.through("\"total_tokens\":22");
    assert_eq!(proxy.rows(), []);
    link.send(chunk(DONE));
    client.through("[DONE]");
    let row = proxy.row();
    assert_eq!((row.outcome.as_str(), row.was_streamed, row.total_tokens), ("completed", true, Some(22)));
    assert_eq!(row.output.as_deref(), Some("Onetwo"));
    link.send(LAST_CHUNK);
    client.through(LAST_CHUNK);
    assert_eq!(proxy.rows(), [row]);
}

/// Locks the database, lets a reply through and kills the proxy when the client has seen its end. Regression: of a
/// reply with a length all bytes were sent before the row was tried. Were it so again, the attempt could not have
/// failed yet when the proxy is killed.
#[cfg(target_os = "linux")]
fn check_last_bytes_wait_for_the_attempt(reply: &[u8], last_bytes: &str) {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let lock = locked(&proxy);
    let (mut client, mut link) = asking(&proxy, &upstream);
    link.send(reply);
    client.through(last_bytes);
    let (log, _) = proxy.kill();
    assert!(log.iter().any(|line| line.contains("does not take rows")), "{log:#?}");
    drop(lock);
}

// Elsewhere the log's last lines may end with a process that is killed.
#[cfg(target_os = "linux")]
#[test]
fn the_last_bytes_wait_until_the_row_was_tried() {
    check_last_bytes_wait_for_the_attempt(&chat_reply(), r#""total_tokens":22}}"#);
    check_last_bytes_wait_for_the_attempt(&[STREAM_HEAD, &chunk(DONE), LAST_CHUNK].concat().into_bytes(), "[DONE]");
    // Upstream says nothing more after the terminal event.
    check_last_bytes_wait_for_the_attempt(&[STREAM_HEAD, &chunk(DONE)].concat().into_bytes(), "[DONE]");
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_last_bytes_wait_for_the_attempt(&[head, &chunk("{}"), LAST_CHUNK].concat().into_bytes(), LAST_CHUNK);
}

/// Nobody else can write, and soon nobody can read either.
fn locked(proxy: &Proxy) -> Connection {
    let lock = Connection::open(proxy.folder().database()).expect("a database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("nobody else writes now");
    lock
}

#[test]
fn a_locked_database_delays_no_reply_for_long_and_loses_no_row() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let lock = locked(&proxy);
    for _ in 0..3 {
        assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY);
    }
    assert_eq!(proxy.ask(get("/health")).status(), 200);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 0);
    assert_eq!(proxy.rows(), []);
    lock.execute_batch("COMMIT").expect("an open transaction");
    let rows = proxy.wait_for_rows(3);
    assert!(rows.len() == 3 && rows.iter().all(|row| row.total_tokens == Some(22)), "{rows:#?}");
    proxy.wait_for_log("takes rows again");
}

#[cfg(unix)]
#[test]
fn rows_are_counted_at_once_and_packed_at_the_end_and_at_the_start() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let url = upstream.url();
    let start = |folder: &Arc<Folder>| Proxy::start(folder, &[("LM_STUDIO_URL", url.as_str())]);
    let folder = Arc::new(Folder::new());
    let database = folder.database();
    let mut proxy = start(&folder);
    let packed_until = "SELECT value FROM meta WHERE name = 'packed_until'";
    for rows in 1..=3 {
        proxy.ask(chat());
        assert_eq!(proxy.json("/stats/summary")["total_requests"], rows);
    }
    // The first row may have come before the keeper began.
    assert!(count_of(&database, packed_until) < 3);
    proxy.signal("TERM");
    proxy.wait();
    assert_eq!(count_of(&database, packed_until), 3);
    let proxy = start(&folder);
    proxy.ask(chat());
    proxy.kill();
    let proxy = start(&folder);
    until("what a kill left is packed", || (count_of(&database, packed_until) == 4).then_some(()));
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 4);
}

#[test]
fn statistics_are_exact_also_while_the_database_takes_no_writes() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    proxy.ask(chat());
    let lock = locked(&proxy);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 1);
    lock.execute_batch("COMMIT").expect("an open transaction");
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 1);
}

#[test]
fn statistics_count_every_row_that_was_seen_while_others_are_written() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let (seen, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(proxy.address());
                while !ends.load(Ordering::Relaxed) {
                    client.ask(chat());
                    seen.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let counted = || {
            for _ in 0..10 {
                let before = seen.load(Ordering::SeqCst) as u64;
                let total = proxy.json("/stats/summary")["total_requests"].as_u64();
                assert!(total >= Some(before), "{total:?} of at least {before}");
                thread::sleep(std::time::Duration::from_millis(20));
            }
        };
        // The clients end whatever comes of it.
        let counted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(counted));
        ends.store(true, Ordering::Relaxed);
        counted.expect("every row that was seen counts");
    });
}

#[test]
fn what_nobody_told_is_null() {
    let upstream = Upstream::answering(|link, _| {
        link.send(reply("200 OK", "application/json", CHAT_REPLY_WITHOUT_USAGE));
    });
    let proxy = Proxy::before(&upstream);
    proxy.ask(chat());
    proxy.ask(post("/v1/x", "no JSON"));
    let rows = proxy.rows();
    for row in &rows {
        assert_eq!((row.input_tokens, row.output_tokens, row.total_tokens), (None, None, None));
        assert_eq!(row.outcome, "completed");
    }
    let recent = &proxy.json("/stats/recent")["requests"];
    for name in ["input_tokens", "output_tokens", "total_tokens"] {
        assert!(recent[0][name].is_null() && recent[1][name].is_null(), "{recent}");
    }
    assert_eq!(proxy.json("/stats/summary")["total_tokens"], 0);
}

#[test]
fn a_reply_that_names_no_model_is_filed_under_the_one_asked_for_or_unknown() {
    let upstream = Upstream::answering(|link, _| link.send(reply("200 OK", "text/plain", "Hello")));
    let proxy = Proxy::before(&upstream);
    proxy.ask(chat());
    proxy.ask(post("/v1/chat/completions", "{}"));
    let models: Vec<String> = proxy.rows().into_iter().map(|row| row.model).collect();
    assert_eq!(models, ["m", "unknown"]);
}

#[test]
fn generations_are_recorded_and_nothing_else() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    for path in ["/v1/models", "/health", "/stats/recent", "/nothing", "/api/v0/models"] {
        proxy.ask(get(path));
    }
    for path in ["/api/v1/models/load", "/api/v1/models/download", "/chat/completions"] {
        proxy.ask(post(path, "{}"));
    }
    assert_eq!(proxy.rows(), []);
    let recorded = ["/v1/anything", "/v1/messages", "/v1/responses", "/api/v0/chat/completions", "/api/v1/chat"];
    for path in recorded {
        proxy.ask(post(path, "{}"));
    }
    let endpoints: Vec<String> = proxy.rows().into_iter().map(|row| row.endpoint).collect();
    assert_eq!(endpoints, recorded);
}

#[test]
fn what_upstream_calls_an_error_is_one() {
    let upstream = Upstream::answering(|link, request| {
        let (status, error) = match request.text() {
            "status" => ("400 Bad Request", r#"{"error":{"message":"No such model"}}"#),
            "inside" => ("200 OK", r#"{"error":"Unexpected endpoint or method. (POST /v1/x)"}"#),
            _ => ("500 Internal Server Error", "broken"),
        };
        link.send(reply(status, "application/json", error));
    });
    let proxy = Proxy::before(&upstream);
    for body in ["status", "inside", "neither"] {
        proxy.ask(post("/v1/chat/completions", body));
    }
    let rows = proxy.rows();
    let outcomes: Vec<_> = rows.iter().map(|row| (row.outcome.as_str(), row.http_status)).collect();
    let expected = [("upstream_error", Some(400)), ("error_in_reply", Some(200)), ("upstream_error", Some(500))];
    assert_eq!(outcomes, expected);
    assert!(rows.iter().all(|row| row.is_error));
    assert_eq!(rows[0].error_message.as_deref(), Some("No such model"));
    assert_eq!(proxy.json("/stats/summary")["failed_requests"], 3);
}

#[test]
fn usage_is_asked_for_where_the_client_did_not_and_the_client_never_sees_it() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(post("/v1/chat/completions", r#"{"model":"m","stream":true}"#));
    let mut link = upstream.accept();
    assert_eq!(link.request().json()["stream_options"]["include_usage"], true);
    link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(USAGE_EVENT), &chunk(DONE), LAST_CHUNK].concat());
    assert_eq!(client.reply().text(), [event("One"), DONE.into()].concat());
    assert_eq!(proxy.row().total_tokens, Some(22));
}

#[test]
fn nothing_is_asked_for_and_nothing_stored_where_the_settings_say_so() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("INJECT_USAGE", "false"), ("LOG_CONTENT", "none")]);
    let mut client = proxy.connect();
    let body = r#"{"model":"m","stream":true}"#;
    client.send(post("/v1/chat/completions", body));
    let mut link = upstream.accept();
    assert_eq!(link.request().text(), body);
    link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(DONE), LAST_CHUNK].concat());
    assert_eq!(client.reply().text(), [event("One"), DONE.into()].concat());
    let row = proxy.row();
    assert_eq!((row.total_tokens, row.prompt, row.output), (None, None, None));
    // An error may quote the prompt.
    client.send(chat());
    let mut links = vec![link];
    let link = upstream.asked_on(&mut links);
    link.request();
    link.send(reply("400 Bad Request", "application/json", r#"{"error":"'Hi there' is too long"}"#));
    assert!(client.reply().text().contains("Hi there"));
    let row = proxy.rows().remove(1);
    assert_eq!((row.outcome.as_str(), row.is_error), ("upstream_error", true));
    assert!(!row.error_message.expect("a message").contains("Hi there"));
    client.send(post("/v1/chat/completions", &format!(r#"{{"messages":["{}"]}}"#, "Hi ".repeat(10_000))));
    let link = upstream.asked_on(&mut links);
    link.request();
    link.send(chat_reply());
    client.reply();
    let said = "SELECT (SELECT count(*) FROM content) + (SELECT count(*) FROM pieces)";
    assert_eq!((proxy.rows().len(), count_of(proxy.folder().database().as_path(), said)), (3, 0));
}

#[cfg(unix)]
#[test]
fn a_killed_proxy_has_the_row_of_every_reply_that_was_seen_whole() {
    // SIGKILL at any moment, under load, again and again on the same database.
    const CLIENTS: usize = 8;
    let upstream = Upstream::answering(|link, request| {
        let id = request.text().to_string();
        if request.start_line().contains("stream") {
            let event = event("x").replace("chatcmpl-1", &id);
            // Cut off by the kill like everything else.
            link.try_send([STREAM_HEAD, &chunk(&event), &chunk(DONE), LAST_CHUNK].concat());
        } else {
            link.try_send(reply("200 OK", "application/json", CHAT_REPLY.replace("chatcmpl-1", &id)));
        }
    });
    let folder = std::sync::Arc::new(Folder::new());
    let url = upstream.url();
    let mut seen_ever = HashSet::new();
    for round in 0..4 {
        let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", &url)]);
        let seen_count = AtomicUsize::new(0);
        let seen = thread::scope(|scope| {
            let (address, seen_count) = (proxy.address(), &seen_count);
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn(move || asked_until_killed(address, &format!("{round}-{client}"), seen_count))
                })
                .collect();
            until("replies", || (seen_count.load(Ordering::Relaxed) >= 50 * (round + 1)).then_some(()));
            proxy.kill();
            clients.into_iter().flat_map(|client| client.join().expect("no client panics")).collect::<Vec<_>>()
        });
        seen_ever.extend(seen);

        let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", &url)]);
        let rows = proxy.rows();
        let recorded: HashSet<String> = rows.iter().filter_map(|row| row.request_id.clone()).collect();
        let missing: Vec<_> = seen_ever.difference(&recorded).collect();
        assert!(missing.is_empty(), "round {round}: of {} replies {missing:?} have no row", seen_ever.len());
        assert_eq!(recorded.len(), rows.iter().filter(|row| row.request_id.is_some()).count(), "a row came twice");
        check_summary_equals_rows(&proxy, &rows);
        let sound = "SELECT integrity_check = 'ok' FROM pragma_integrity_check";
        assert_eq!(count_of(&folder.database(), sound), 1);
    }
}

/// Asks one request after the other until the proxy is gone; ids of the replies that were seen whole.
#[cfg(unix)]
fn asked_until_killed(address: std::net::SocketAddr, name: &str, seen_count: &AtomicUsize) -> Vec<String> {
    let mut client = Client::connect(address);
    let mut seen = Vec::new();
    loop {
        let id = format!("{name}-{}", seen.len());
        let path = if seen.len() % 2 == 0 { "/v1/chat/completions" } else { "/v1/chat/completions?stream" };
        let Some(reply) = client.try_ask(post(path, &id)) else { return seen };
        if reply.ended == Ended::Cut && !reply.body.windows(6).any(|window| window == b"[DONE]") {
            return seen;
        }
        seen_count.fetch_add(1, Ordering::Relaxed);
        seen.push(id);
    }
}

/// The statistics are sums of their own; here they are compared with what they sum up.
pub fn check_summary_equals_rows(proxy: &Proxy, rows: &[Row]) {
    let summary = proxy.json("/stats/summary");
    let count = |wanted: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count();
    assert_eq!(summary["total_requests"], rows.len());
    assert_eq!(summary["failed_requests"], count(&|row| row.is_error));
    assert_eq!(summary["cancelled_requests"], count(&|row| row.outcome == "client_closed"));
    assert_eq!(summary["total_tokens"], rows.iter().filter_map(|row| row.total_tokens).sum::<i64>());
    let by_model = proxy.json("/stats/by-model");
    let models = by_model["models"].as_array().expect("a list");
    assert_eq!(
        models.iter().map(|model| model["requests"].as_u64().expect("a number")).sum::<u64>(),
        rows.len() as u64
    );
}

#[test]
fn a_form_tells_its_model_and_a_program_its_name_behind_a_library() {
    let upstream = Upstream::answering(|link, _| link.send(reply("200 OK", "application/json", r#"{"text":"hello"}"#)));
    let proxy = Proxy::before(&upstream);
    let form = "--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
                --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\0\r\n--B--\r\n";
    let request = post("/v1/audio/transcriptions", form);
    let fields = "User-Agent: OpenAI/Python 1.2.3\r\nX-Title: My Notes\r\n\r\n";
    proxy.ask(request.replacen("\r\n\r\n", &format!("\r\n{fields}"), 1));
    let one = &proxy.json("/stats/recent")["requests"][0];
    assert_eq!((&one["model"], &one["client"]), (&"whisper-1".into(), &"MyNotes".into()), "{one}");
}

#[test]
fn cache_writes_drafts_and_prompt_speed_reach_rows_sums_metrics_and_exports() {
    let upstream = Upstream::answering(|link, request| {
        let body = match request.text() {
            "cache" => {
                r#"{"type":"message","model":"m-1","content":[],"usage":{"input_tokens":4,"output_tokens":2,
                    "cache_read_input_tokens":100,"cache_creation_input_tokens":30}}"#
            }
            _ => {
                r#"{"model":"m-1","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2},
                    "timings":{"draft_n":9,"draft_n_accepted":5,"prompt_per_second":320.5,"predicted_per_second":50.25}}"#
            }
        };
        link.send(reply("200 OK", "application/json", body));
    });
    let proxy = Proxy::before(&upstream);
    proxy.ask(post("/v1/messages", "cache"));
    proxy.ask(post("/v1/chat/completions", "draft"));
    proxy.ask(post("/v1/messages/count_tokens", "count"));
    let rows = &proxy.json("/stats/recent")["requests"];
    assert_eq!((&rows[2]["input_tokens"], &rows[2]["total_tokens"]), (&134.into(), &136.into()), "{rows}");
    assert_eq!((&rows[2]["cached_tokens"], &rows[2]["cache_write_tokens"]), (&100.into(), &30.into()), "{rows}");
    assert_eq!((&rows[1]["draft_tokens"], &rows[1]["accepted_draft_tokens"]), (&9.into(), &5.into()), "{rows}");
    assert_eq!((&rows[1]["prompt_tokens_per_second"], &rows[1]["tokens_per_second"]), (&320.5.into(), &50.25.into()));
    assert!(rows[1]["cache_write_tokens"].is_null(), "{rows}");
    assert_eq!(proxy.json("/stats/summary")["total_cache_write_tokens"], 30);
    assert_eq!(proxy.json("/stats/by-model?endpoint=/v1/messages")["models"][0]["cache_write_tokens"], 30);
    let counted = "lms_proxy_cache_write_input_tokens_total{model=\"m-1\",endpoint=\"/v1/messages\"";
    assert!(proxy.ask(get("/metrics")).text().contains(counted));
    let csv = proxy.ask(get("/stats/export"));
    assert!(csv.text().lines().any(|line| line.contains(",,9,5,320.5,")), "{}", csv.text());
}

#[test]
fn what_only_counts_or_lists_misses_no_usage() {
    let upstream =
        Upstream::answering(|link, _| link.send(reply("200 OK", "application/json", r#"{"input_tokens":14}"#)));
    let proxy = Proxy::before(&upstream);
    for path in ["/v1/messages/count_tokens", "/v1/models", "/v1/chat/completions"] {
        proxy.ask(post(path, "{}"));
    }
    let summary = proxy.json("/stats/summary");
    assert_eq!((&summary["total_requests"], &summary["requests_without_usage"]), (&3.into(), &1.into()), "{summary}");
}

#[test]
fn a_conversation_is_kept_whole_and_each_word_of_it_once() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let folder = std::sync::Arc::new(Folder::new());
    let url = upstream.url();
    let mut messages = vec![format!(r#"{{"role":"system","content":"{}"}}"#, "You are é\\n".repeat(2000))];
    let mut bodies = Vec::new();
    for run in 0..3 {
        let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", &url)]);
        let mut client = proxy.connect();
        for turn in 0..10 {
            messages.push(format!(r#"{{"role": "user", "content": "{run} {turn} {}"}}"#, "go on ".repeat(100 * turn)));
            let body = format!("{{\"model\":\"m\",\n\"messages\": [{}]}}", messages.join(" , "));
            client.ask(post("/v1/chat/completions", &body));
            bodies.push(body);
        }
        let prompts: Vec<String> = proxy.rows().into_iter().filter_map(|row| row.prompt).collect();
        assert!(prompts == bodies, "run {run}");
        let told = proxy.json(&format!("/stats/requests/{}", bodies.len()));
        assert_eq!(told["prompt"].as_str(), bodies.last().map(String::as_str));
        let found = proxy.json(&format!("/stats/search?q={run}%209"));
        assert_eq!(found["requests"][0]["id"], bodies.len());
    }
    let stored = count_of(&folder.database(), "SELECT sum(octet_length(text)) FROM pieces");
    let (longest, all) = (bodies[29].len() as i64, bodies.iter().map(String::len).sum::<usize>() as i64);
    assert!(stored < longest + 30 * 1000 && stored * 10 < all, "{stored} of {longest}, {all} sent");
}
