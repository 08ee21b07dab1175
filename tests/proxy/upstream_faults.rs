//! An upstream that talks nonsense or goes away: the client learns of it, a row says so, the connection it happened on
//! is given up, and the next request is answered. How a reply that has begun looks when it breaks off is
//! `truncation`'s.

use crate::harness::*;

/// How upstream dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    Fin,
    Reset,
}

/// The next request gets a connection of its own, and its reply.
fn check_goes_on(proxy: &Proxy, upstream: &Upstream, how: &str) {
    let (mut client, mut link) = asked(proxy, upstream, chat());
    link.send(chat_reply());
    assert_eq!(client.reply().text(), CHAT_REPLY, "{how}");
    proxy.check_sound();
}

/// What upstream says for a reply, then it dies: the client gets a 502, and so says the row.
fn check_no_reply(said: &str) {
    for death in [Death::Fin, Death::Reset] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let mut client = proxy.connect();
        client.send(chat());
        let mut link = upstream.accept();
        let how = format!("{said:.100?}, {death:?}");
        match death {
            Death::Fin => {
                link.request();
                link.send_and_finish(said);
            }
            Death::Reset => {
                link.request_head_alone();
                link.send(said);
                link.reset();
            }
        }
        let reply = client.reply();
        assert_eq!((reply.status(), &reply.json()["error"]["code"]), (502, &"upstream_failed".into()), "{how}");
        let row = proxy.row();
        assert_eq!((row.outcome.as_str(), row.http_status), ("upstream_unreachable", Some(502)), "{how}");
        assert!(row.is_error && row.error_message.is_some(), "{how}");
        check_goes_on(&proxy, &upstream, &how);
    }
}

#[test]
fn death_before_the_head_is_a_502() {
    check_no_reply("");
}

#[test]
fn death_within_the_head_is_a_502() {
    check_no_reply("HTTP/1.1 200 OK");
    check_no_reply("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Ty");
}

/// What upstream says although it lives: a 502 again, and the connection is closed by the proxy, however whole it
/// looks.
fn check_nonsense(said: &str) {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let (mut client, mut link) = asked(&proxy, &upstream, chat());
    link.try_send(said);
    let reply = client.reply();
    assert_eq!(reply.status(), 502, "{said:.200?}: {}", reply.text());
    assert_eq!(reply.json()["error"]["code"], "upstream_failed", "{said:.200?}");
    link.wait_for_close();
    let row = proxy.row();
    assert_eq!((row.outcome.as_str(), row.http_status, row.is_error), ("upstream_unreachable", Some(502), true));
    check_goes_on(&proxy, &upstream, &format!("{said:.100?}"));
}

#[test]
fn junk_for_a_head_is_a_502() {
    check_nonsense("SSH-2.0-OpenSSH_9.7\r\n\r\n");
    check_nonsense("<html><body>Not HTTP</body></html>\r\n\r\n");
    check_nonsense("\0\u{1}\u{2}\u{3}\r\n\r\n");
    check_nonsense("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

#[test]
fn a_bad_status_line_is_a_502() {
    check_nonsense("HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n");
    check_nonsense("HTTP/1.1 99 Early\r\nContent-Length: 0\r\n\r\n");
    check_nonsense("HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    check_nonsense("HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn a_giant_head_is_a_502() {
    check_nonsense(&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000)));
    let fields = "X: x\r\n".repeat(5000);
    check_nonsense(&format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"));
    // It never ends.
    check_nonsense(&format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200_000)));
}

#[test]
fn lengths_that_contradict_are_a_502() {
    check_nonsense("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nHello!");
    check_nonsense("HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nHello!");
    check_nonsense("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nHello");
    check_nonsense("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nHello");
    check_nonsense("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nHello");
    check_nonsense("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nHello");
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_a_502() {
    check_nonsense("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
}

#[test]
fn bytes_past_the_length_reach_nobody() {
    // They may be a reply that somebody smuggled: neither this client nor the next may take it for theirs.
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(chat());
        let mut link = upstream.accept();
        link.request();
        link.send([chat_reply(), reply("200 OK", "text/plain", "smuggled")].concat());
        assert_eq!(client.reply().text(), CHAT_REPLY);
        link.wait_for_close();
    }
    client.send(chat());
    let mut link = upstream.accept();
    link.request();
    link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(DONE), LAST_CHUNK, "HTTP/1.1 200 OK\r\n\r\n"].concat());
    assert_eq!(client.reply().text(), [&event("One"), DONE].concat());
    client.half_close();
    assert_eq!(client.rest(), b"");
    link.wait_for_close();
    assert!(proxy.rows().iter().all(|row| row.outcome == "completed"));
    check_goes_on(&proxy, &upstream, "");
}

#[test]
fn chunks_that_are_none_cut_the_reply() {
    for junk in ["xyz\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "\r\n\r\n", "5\r\nHelloHello\r\n"] {
        let upstream = Upstream::new();
        let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
        let (mut client, mut link) = asking(&proxy, &upstream);
        link.send([STREAM_HEAD, &chunk(&event("One")), junk].concat());
        let reply = client.reply();
        assert_eq!((reply.status(), reply.ended), (200, Ended::Cut), "{junk:?}");
        link.wait_for_close();
        assert_eq!(proxy.row().outcome, "truncated", "{junk:?}");
        check_goes_on(&proxy, &upstream, junk);
    }
}

/// The head has come, and nothing of the body.
#[test]
fn death_after_the_head_is_visible() {
    for head in [STREAM_HEAD, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n"] {
        for death in [Death::Fin, Death::Reset] {
            let upstream = Upstream::new();
            let proxy = Proxy::before(&upstream);
            let mut client = proxy.connect();
            client.send(chat());
            let mut link = upstream.accept();
            link.request_head_alone();
            link.send(head);
            client.wait_for("\r\n\r\n");
            match death {
                Death::Fin => link.fin(),
                Death::Reset => link.reset(),
            }
            let reply = client.reply();
            assert_eq!((reply.status(), reply.ended, reply.body.len()), (200, Ended::Cut, 0), "{death:?}");
            assert_eq!(proxy.row().outcome, "truncated", "{death:?}");
            check_goes_on(&proxy, &upstream, head);
        }
    }
}

#[test]
fn death_before_the_terminal_chunk_of_a_whole_json_body_is_visible() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(chat());
    let mut link = upstream.accept();
    link.request_head_alone();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    link.send([head, &chunk(CHAT_REPLY)].concat());
    client.wait_for("22}}");
    link.reset();
    let reply = client.reply();
    assert_eq!((reply.text(), reply.ended), (CHAT_REPLY, Ended::Cut));
    assert_eq!(proxy.row().outcome, "truncated");
    check_goes_on(&proxy, &upstream, "");
}

#[test]
fn restarts_are_survived() {
    let answer = |link: &mut Link, _: Message| link.send(chat_reply());
    let mut upstream = Upstream::answering(answer);
    let address = upstream.address();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "2")]);
    let mut client = proxy.connect();
    for round in 1..=3 {
        assert_eq!(client.ask(chat()).text(), CHAT_REPLY, "round {round}");
        drop(upstream);
        until("upstream's end", || std::net::TcpStream::connect(address).is_err().then_some(()));
        // The connection made before may have outlived its listener; one of its own finds nobody.
        let fresh = proxy.connect().ask("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert!([200, 502].contains(&fresh.status()), "{}", fresh.text());
        upstream = Upstream::answering_again(address, answer);
        until("a reply", || (client.ask(chat()).status() == 200).then_some(()));
    }
    proxy.check_sound();
}

#[test]
fn a_refusal_of_a_large_body_reaches_the_client_before_the_body_was_read() {
    let body = format!("{{\"x\":\"{}\"}}", "x".repeat(20_000_000));
    for (closes, before) in [(false, ""), (true, ""), (false, "HTTP/1.1 100 Continue\r\n\r\n")] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let mut client = proxy.connect();
        client.send(post("/v1/chat/completions", &body));
        let mut link = upstream.accept();
        link.request_head_alone();
        link.send(before);
        link.send(reply("413 Content Too Large", "application/json", "{}"));
        if closes {
            link.reset();
            // What had arrived before the reset may be lost on the way; then that is what the client is told.
            assert!(matches!(client.reply().status(), 413 | 502));
        } else {
            assert_eq!(client.reply().status(), 413);
        }
        assert_eq!(
            proxy.row().outcome,
            if proxy.row().http_status == Some(413) { "upstream_error" } else { "upstream_unreachable" }
        );
        check_goes_on(&proxy, &upstream, "413");
    }
}

#[test]
fn a_handshake_that_does_not_come_is_no_connection() {
    let upstream = Upstream::new();
    let url = upstream.url().replace("http:", "https:");
    let settings = [("LM_STUDIO_URL", url.as_str()), ("UPSTREAM_CONNECT_TIMEOUT_S", "1")];
    let proxy = Proxy::start(&std::sync::Arc::new(Folder::new()), &settings);
    let reply = proxy.ask(chat());
    assert_eq!((reply.status(), &reply.json()["error"]["code"]), (504, &"upstream_timeout".into()));
    assert_eq!(proxy.row().outcome, "upstream_timeout");
}

#[test]
fn a_handshake_that_comes_byte_by_byte_is_given_up_in_time() {
    let upstream = Upstream::new();
    let url = upstream.url().replace("http:", "https:");
    let settings = [("LM_STUDIO_URL", url.as_str()), ("UPSTREAM_CONNECT_TIMEOUT_S", "1")];
    let proxy = Proxy::start(&std::sync::Arc::new(Folder::new()), &settings);
    let mut client = proxy.connect();
    client.send(chat());
    let mut link = upstream.accept();
    // The largest record there may be; it takes longer than anybody waits here.
    link.send([22, 3, 3, 0x3f, 0xff]);
    until("the close", || (!link.try_send([2])).then_some(()));
    let reply = client.reply();
    assert_eq!((reply.status(), &reply.json()["error"]["code"]), (504, &"upstream_timeout".into()));
    assert_eq!(proxy.row().outcome, "upstream_timeout");
}

#[test]
fn an_interim_reply_does_not_end_an_upload() {
    let body = format!("{{\"x\":\"{}\"}}", "x".repeat(20_000_000));
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(post("/v1/chat/completions", &body));
    let mut link = upstream.accept();
    // Nothing is taken until the interim reply has been sent.
    link.wait_for_request();
    link.send("HTTP/1.1 102 Processing\r\n\r\n");
    assert_eq!(link.request().text().len(), body.len());
    link.send(chat_reply());
    assert_eq!(client.reply().text(), CHAT_REPLY);
    assert_eq!(proxy.row().outcome, "completed");
}
