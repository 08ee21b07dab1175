//! Short exchanges on a connection that has carried one are answered in a lane, when there is a connection to
//! upstream, too. What holds for every other exchange must hold there.
#![cfg(unix)]

use crate::harness::*;

/// A client and upstream's connection after one exchange: the next short one is a lane's.
fn warm(proxy: &Proxy, upstream: &Upstream) -> (Client, Link) {
    let (mut client, mut link) = asked(proxy, upstream, chat());
    link.send(chat_reply());
    assert_eq!(client.reply().text(), CHAT_REPLY);
    // The tail was sent when the connection to upstream was free again.
    (client, link)
}

/// The same request, to be the connection's last.
fn last(request: &str) -> String {
    request.replace("Host: localhost\r\n", "Host: localhost\r\nConnection: close\r\n")
}

/// All that a client gets until its connection ends, heads in lower case, and its row, where upstream's reply comes in
/// these `pieces`, after which its connection ends.
fn outcome(request: &str, pieces: &[&[u8]], is_warm: bool) -> (String, Option<Row>) {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = if is_warm {
        let (mut client, link) = warm(&proxy, &upstream);
        client.send(last(request));
        (client, link)
    } else {
        let mut client = proxy.connect();
        client.send(last(request));
        let link = upstream.accept();
        (client, link)
    };
    link.request();
    for piece in pieces {
        // The proxy may have had enough.
        link.try_send(piece);
    }
    link.fin();
    let got = String::from_utf8_lossy(&client.rest()).into_owned();
    let (head, body) = got.split_once("\r\n\r\n").unwrap_or((&got, ""));
    let mut fields: Vec<String> = head.split("\r\n").map(str::to_ascii_lowercase).collect();
    fields.sort();
    let port = upstream.address().port().to_string();
    let is_chunked = fields.iter().any(|field| field == "transfer-encoding: chunked");
    let body = if is_chunked { unchunked(body) } else { body.to_owned() };
    let got = format!("{}\n\n{body}", fields.join("\n")).replace(&port, "PORT");
    let rows = usize::from(request.starts_with("POST"));
    let row = proxy.wait_for_rows(rows + usize::from(is_warm)).pop().filter(|_| rows > 0);
    proxy.check_sound();
    (got, row.map(|row| Row { id: 0, error_message: row.error_message.map(|e| e.replace(&port, "PORT")), ..row }))
}

/// A body without its chunks, which may be cut in other places, but with their end.
fn unchunked(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        if size == 0 {
            return format!("{body} and the end: {rest:?}");
        }
        let (chunk, rest) = rest.split_at(size.min(rest.len()));
        body.push_str(chunk);
        chunks = rest.strip_prefix("\r\n").unwrap_or(rest);
    }
    body
}

/// Whether a lane can ask or not, the client gets the same and so does the row.
fn check(request: &str, pieces: &[&[u8]]) {
    let (cold, warm) = (outcome(request, pieces, false), outcome(request, pieces, true));
    assert_eq!(cold, warm, "{:?}", pieces.iter().map(|piece| String::from_utf8_lossy(piece)).collect::<Vec<_>>());
}

#[test]
fn fields_come_as_they_were_written() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = warm(&proxy, &upstream);
    let fields = "Host: localhost\r\nX-Mixed: One\r\nAuthorization: Bearer s\r\n";
    client.send(chat().replace("Host: localhost\r\n", fields));
    let request = link.request();
    assert!(request.head.contains("\r\nX-Mixed: One\r\n"), "{}", request.head);
    assert_eq!(request.field("host"), Some(upstream.address().to_string().as_str()));
    assert_eq!(request.field("authorization"), Some("Bearer s"));
    assert_eq!(request.field("accept-encoding"), Some("identity"));
    let fields = "X-Mixed: Two\r\nx-other: Three\r\nX-MIXED: Four\r\n";
    link.send(format!("HTTP/1.1 200 So be it\r\n{fields}Content-Length: 2\r\n\r\n{{}}"));
    let reply = client.reply();
    assert!(reply.head.starts_with("HTTP/1.1 200 So be it\r\n"), "{}", reply.head);
    assert!(reply.head.contains(&format!("\r\n{fields}")), "{}", reply.head);
    assert_eq!(reply.text(), "{}");
    assert_eq!(upstream.accepted(), 1);
}

#[test]
fn plain_replies_are_the_same_with_it_and_without() {
    for status in ["200 OK", "201 Created", "400 Bad Request", "404 Not Found", "429 Too Many Requests", "599 Odd"] {
        check(&chat(), &[&reply(status, "application/json", CHAT_REPLY)]);
    }
    check(&chat(), &[&reply("200 OK", "application/json", "")]);
    check(&chat(), &[&reply("200 OK", "application/json", "no JSON")]);
    check(&chat(), &[&reply("200 OK", "application/json", r#"{"error":{"message":"Model unloaded."}}"#)]);
    check(&chat(), &[&reply("200 OK", "application/octet-stream", [0, 255, 13, 10])]);
    check(&chat(), &[&reply("200 OK", "application/json\r\nContent-Encoding: gzip", CHAT_REPLY)]);
    check(&chat(), &[&reply("200 OK", "application/json\r\nConnection: keep-alive, X-A\r\nX-A: b", CHAT_REPLY)]);
    check(&get("/v1/models"), &[&reply("200 OK", "application/json", "{}")]);
    check(&post("/v1/embeddings", r#"{"model":"e","input":"x"}"#), &[&reply("200 OK", "application/json", CHAT_REPLY)]);
    let stream = [event("One"), USAGE_EVENT.into(), DONE.into()].concat();
    check(&chat(), &[&reply("200 OK", "text/event-stream", &stream)]);
    check(&chat(), &[&reply("200 OK", "text/event-stream", event("One"))]);
}

#[test]
fn replies_that_are_not_plain_are_the_same_with_it_and_without() {
    let stream = [STREAM_HEAD, &chunk(&event("One")), &chunk(USAGE_EVENT), &chunk(DONE), LAST_CHUNK].concat();
    check(&chat(), &[stream.as_bytes()]);
    check(&chat(), &[&stream.as_bytes()[..stream.len() - 5]]);
    check(&chat(), &[&stream.as_bytes()[..stream.len() - 40]]);
    check(&chat(), &[CLOSING_STREAM_HEAD.as_bytes(), event("One").as_bytes(), DONE.as_bytes()]);
    check(&chat(), &[CLOSING_STREAM_HEAD.as_bytes(), event("One").as_bytes()]);
    check(&chat(), &[b"HTTP/1.1 204 No Content\r\n\r\n"]);
    check(&chat(), &[b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"]);
    check(&chat(), &[&[b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", &chat_reply()[..]].concat()]);
    check(&chat(), &[b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"]);
    check(&chat(), &[b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n", CHAT_REPLY.as_bytes()]);
    check(&chat(), &[&reply("200 OK", "application/json\r\nConnection: close", CHAT_REPLY)]);
    check(&chat(), &[&[&chat_reply()[..], b"and more"].concat()]);
    check(&chat().replace("POST", "PUT"), &[&chat_reply()]);
    check(&get("/v1/models").replace("GET", "DELETE"), &[&chat_reply()]);
}

#[test]
fn nonsense_and_death_are_the_same_with_it_and_without() {
    check(&chat(), &[]);
    check(&chat(), &[b"HTTP/1.1 200 OK"]);
    check(&chat(), &[b"nonsense\r\n\r\n"]);
    check(&chat(), &[b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"]);
    check(&chat(), &[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nHello"]);
    let reply = chat_reply();
    check(&chat(), &[&reply[..reply.len() - 1]]);
    check(&chat(), &[&reply[..reply.len() - CHAT_REPLY.len()]]);
}

#[test]
fn a_reply_in_pieces_is_the_same() {
    let reply = chat_reply();
    for cut in [1, 20, reply.len() - CHAT_REPLY.len(), reply.len() - 1] {
        check(&chat(), &[&reply[..cut], &reply[cut..]]);
    }
    let bytes: Vec<&[u8]> = reply.chunks(1).collect();
    check(&chat(), &bytes);
}

#[test]
fn a_large_reply_is_relayed_as_it_comes() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = warm(&proxy, &upstream);
    client.send(chat());
    link.request();
    let text = format!(r#"{{"model":"m-1","padding":"{}"}}"#, "x".repeat(1_000_000));
    let large = reply("200 OK", "application/json", &text);
    let (begin, rest) = large.split_at(1000);
    link.send(begin);
    client.wait_for("xxx");
    link.send(rest);
    assert_eq!(client.reply().text(), text);
    assert_eq!(client.ask(get("/health")).status(), 200);
}

#[test]
fn a_request_too_large_for_one_send_is_answered() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = warm(&proxy, &upstream);
    for bytes in [10_000, 14_400, 100_000] {
        let body = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(bytes));
        client.send(post("/v1/completions", &body));
        assert_eq!(link.request().body, body.as_bytes());
        link.send(chat_reply());
        assert_eq!(client.reply().text(), CHAT_REPLY);
    }
    assert_eq!(upstream.accepted(), 1);
    proxy.check_sound();
}

#[test]
fn a_request_with_a_large_head_is_sent_once() {
    // Handed over to a worker or not, and however its head and body are cut into sends.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = warm(&proxy, &upstream);
    for bytes in [1000, 16_000, 40_000, 65_000] {
        let field = format!("Host: localhost\r\nX-Large: {}\r\n", "x".repeat(bytes));
        client.send(chat().replace("Host: localhost\r\n", &field));
        assert!(link.request().head.contains(&"x".repeat(bytes)));
        let reply = chat_reply();
        let (begin, rest) = reply.split_at(30);
        link.send(begin);
        link.send(rest);
        assert_eq!(client.reply().text(), CHAT_REPLY);
        // Whatever was sent twice would come before this one.
        client.send(get("/v1/models"));
        assert!(link.request().start_line().starts_with("GET /v1/models"));
        link.send(chat_reply());
        assert_eq!(client.reply().text(), CHAT_REPLY);
    }
    assert_eq!(proxy.rows().len(), 5);
}

#[test]
fn a_client_that_leaves_stops_the_generation() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    type Leave = fn(Client);
    let ways: [Leave; 2] = [Client::leave, |mut client| client.half_close()];
    for (count, leave) in ways.into_iter().enumerate() {
        let (mut client, mut link) = warm(&proxy, &upstream);
        client.send(chat());
        link.request();
        leave(client);
        link.wait_for_close();
        let row = proxy.wait_for_rows(2 * count + 2).remove(2 * count + 1);
        assert_eq!((row.outcome.as_str(), row.is_error, row.http_status), ("client_closed", false, None));
        assert_eq!(row.prompt.as_deref(), proxy.rows()[0].prompt.as_deref());
    }
    proxy.check_sound();
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let upstream = Upstream::answering(|link, request| {
        let model = request.json()["model"].as_str().unwrap_or_default().to_owned();
        link.send(reply("200 OK", "application/json", format!(r#"{{"model":"{model}"}}"#)));
    });
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.ask(chat());
    let ask = |model: &str| post("/v1/chat/completions", &format!(r#"{{"model":"{model}"}}"#));
    client.send([ask("a"), get("/health"), ask("b"), ask("c")].concat());
    assert_eq!(client.reply().json()["model"], "a");
    assert_eq!(client.reply().json()["status"], "ok");
    assert_eq!(client.reply().json()["model"], "b");
    assert_eq!(client.reply().json()["model"], "c");
    let models: Vec<String> = proxy.rows().into_iter().map(|row| row.model).collect();
    assert_eq!(models, ["m", "a", "b", "c"]);
}

#[test]
fn every_kind_of_request_takes_turns_on_one_connection() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, link) = warm(&proxy, &upstream);
    let mut links = vec![link];
    for _ in 0..3 {
        client.send(streaming_chat());
        let link = upstream.asked_on(&mut links);
        link.request();
        link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(USAGE_EVENT), &chunk(DONE), LAST_CHUNK].concat());
        client.through(LAST_CHUNK);
        assert_eq!(client.ask(get("/health")).json()["status"], "ok");
        assert_eq!(client.ask(get("/stats/recent")).status(), 200);
        client.send(chat());
        let link = upstream.asked_on(&mut links);
        link.request();
        link.send(chat_reply());
        assert_eq!(client.reply().text(), CHAT_REPLY);
        client.send(get("/v1/models"));
        let link = upstream.asked_on(&mut links);
        link.request();
        link.send(reply("200 OK", "application/json", "{}"));
        assert_eq!(client.reply().text(), "{}");
    }
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 7);
    assert!(client.ask("GET /nowhere HTTP/1.1\r\nHost: evil.example\r\n\r\n").status() == 403);
    assert_eq!(client.rest(), b"");
}

#[test]
fn what_ureq_would_not_send_is_not_sent_however_the_reply_would_come() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = warm(&proxy, &upstream);
    let odd = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xe4\r\n\
        Content-Length: 2\r\n\r\n{}";
    assert_eq!(client.ask(odd).status(), 502);
    link.wait_for_close();
    assert_eq!(proxy.rows()[1].outcome, "upstream_unreachable");
}

#[test]
fn a_connection_that_upstream_closed_meanwhile_is_replaced() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = warm(&proxy, &upstream);
    client.send(chat());
    link.request();
    link.send(chat_reply());
    client.reply();
    link.finish();
    client.send(chat());
    let mut link = upstream.accept();
    link.request();
    link.send(chat_reply());
    assert_eq!(client.reply().text(), CHAT_REPLY);
    assert!(proxy.rows().iter().all(|row| row.outcome == "completed"));
}

#[test]
fn one_that_is_found_closed_when_it_is_asked_is_replaced() {
    // The request and that end come together, the request first. No other place is free than the request's own.
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let (mut client, mut link) = warm(&proxy, &upstream);
    client.send(chat());
    link.request();
    link.send(chat_reply());
    client.reply();
    proxy.halt();
    client.send(chat());
    link.fin();
    proxy.signal("CONT");
    let mut link = upstream.accept();
    link.request();
    link.send(chat_reply());
    assert_eq!(client.reply().text(), CHAT_REPLY);
    assert!(proxy.rows().iter().all(|row| row.outcome == "completed"));
}

#[test]
fn what_upstream_says_unasked_reaches_nobody() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = warm(&proxy, &upstream);
    client.send(chat());
    link.request();
    link.send(chat_reply());
    client.reply();
    link.send(reply("200 OK", "application/json", "unasked"));
    link.wait_for_close();
    client.send(chat());
    let mut link = upstream.accept();
    link.request();
    link.send(chat_reply());
    assert_eq!(client.reply().text(), CHAT_REPLY);
}

#[test]
fn it_counts_among_the_exchanges_in_flight() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let (mut one, mut link) = warm(&proxy, &upstream);
    let wait_for_metric = |line: &str| {
        until(line, || proxy.ask(get("/metrics")).text().lines().any(|other| other == line).then_some(()));
    };
    // A worker counts for a moment longer than its client waits.
    wait_for_metric("lms_proxy_exchanges_in_flight 0");
    one.send(chat());
    link.request();
    let mut other = proxy.connect();
    other.send(chat());
    wait_for_metric("lms_proxy_exchanges_queued 1");
    assert!(!other.has_reply());
    link.send(chat_reply());
    assert_eq!(one.reply().text(), CHAT_REPLY);
    let mut next = upstream.accept();
    next.request();
    next.send(chat_reply());
    assert_eq!(other.reply().text(), CHAT_REPLY);
    assert_eq!(proxy.rows().len(), 3);
}

#[test]
fn a_locked_database_holds_up_neither_replies_nor_health() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(chat()).text(), CHAT_REPLY));
    let lock = rusqlite::Connection::open(proxy.folder().database()).expect("a database");
    lock.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes now");
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| client.send(chat()));
        for client in &mut clients {
            assert_eq!(client.reply().text(), CHAT_REPLY);
            assert_eq!(client.ask(get("/health")).json()["status"], "ok");
        }
    }
    proxy.wait_for_log("does not take rows");
    lock.execute_batch("ROLLBACK").expect("unlocked");
    assert_eq!(proxy.wait_for_rows(16).len(), 16);
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(chat()).text(), CHAT_REPLY));
    assert_eq!(proxy.wait_for_rows(20).len(), 20);
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 20);
}

#[test]
fn told_to_stop_the_proxy_finishes_what_the_lane_has_begun() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::before(&upstream);
    let (mut client, mut link) = warm(&proxy, &upstream);
    let (mut idle, _) = {
        client.send(chat());
        link.request();
        warm(&proxy, &upstream)
    };
    proxy.signal("TERM");
    assert_eq!(idle.rest(), b"");
    link.send(chat_reply());
    assert_eq!(client.reply().text(), CHAT_REPLY);
    assert_eq!(client.rest(), b"");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(proxy.rows().iter().all(|row| row.outcome == "completed"));
    assert_eq!(proxy.rows().len(), 3);
}

#[test]
fn what_outlasts_the_grace_is_called_off() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::with(&upstream, &[("SHUTDOWN_GRACE_S", "1")]);
    let (mut client, mut link) = warm(&proxy, &upstream);
    client.send(chat());
    link.request();
    proxy.signal("TERM");
    link.wait_for_close();
    assert_eq!(client.reply().status(), 503);
    assert_eq!(client.rest(), b"");
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.rows()[1].outcome, "shutdown");
}

#[cfg(debug_assertions)]
#[test]
fn a_bug_ends_its_exchange_alone() {
    for place in ["sending", "asking", "relaying", "finishing"] {
        let upstream = Upstream::answering(|link, _| {
            link.try_send(chat_reply());
        });
        let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "2"), ("BUGS_ON_PURPOSE", "1")]);
        let mut steady = proxy.connect();
        for count in 1..=3 {
            let mut client = proxy.connect();
            assert_eq!(client.ask(chat()).text(), CHAT_REPLY);
            client.send(chat().replace(" HTTP/", &format!("?bug={place} HTTP/")));
            assert_eq!(client.rest(), b"", "{place}");
            assert_eq!(steady.ask(chat()).text(), CHAT_REPLY, "{place}");
            let rows = proxy.wait_for_rows(3 * count);
            let failed: Vec<&Row> = rows.iter().filter(|row| row.outcome == "truncated").collect();
            assert_eq!((rows.len(), failed.len()), (3 * count, count), "{place}: {rows:#?}");
            assert!(failed.iter().all(|row| row.is_error && row.total_tokens.is_none() && row.prompt.is_some()));
            assert_eq!(proxy.logged_at_least("on purpose", count), count, "{place}");
            assert_eq!(proxy.logged_at_least("ended by a bug of the proxy", count), count, "{place}");
            // So this, and all of the above, is the lane's.
            assert_eq!(proxy.logged_at_least("bug in lane: ", count), count, "{place}");
        }
        let sound = "SELECT integrity_check = 'ok' FROM pragma_integrity_check";
        assert_eq!(count_of(&proxy.folder().database(), sound), 1);
        assert_eq!(proxy.json("/stats/summary")["total_requests"], 9);
    }
}
