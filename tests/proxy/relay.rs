//! Replies reach the client as upstream sent them.

use crate::harness::*;

/// Sends `request` and lets upstream answer with the bytes of `reply`; then the connection to upstream ends in good
/// order.
fn relayed(request: &str, reply: impl AsRef<[u8]>) -> Message {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asked(&proxy, &upstream, request);
    link.send(reply);
    link.fin();
    let bodiless = request.starts_with("HEAD ");
    if bodiless { client.bodiless_reply() } else { client.reply() }
}

#[test]
fn status_and_body_are_as_upstream_sent_them() {
    // Whatever upstream says, the client hears: success, refusal, failure, and statuses that nobody knows.
    let upstream = Upstream::answering(|link, request| {
        let status = request.start_line().split(['=', ' ']).nth(2).expect("?s=STATUS").replace('_', " ");
        link.send(reply(&status, "text/plain; charset=utf-8", format!("this is {status}")));
    });
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    let mut check = |status: u16, line: &str| {
        for method in ["GET", "POST"] {
            let target = format!("/v1/models?s={}", line.replace(' ', "_"));
            let reply = client.ask(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert_eq!(reply.status(), status, "{method}");
            assert_eq!(reply.text(), format!("this is {line}"));
            assert_eq!(reply.field("content-type"), Some("text/plain; charset=utf-8"));
        }
    };
    check(200, "200 OK");
    check(201, "201 Created");
    check(299, "299 Odd");
    check(400, "400 Bad Request");
    check(401, "401 Unauthorized");
    check(404, "404 Not Found");
    check(418, "418 Teapot");
    check(429, "429 Too Many Requests");
    check(500, "500 Internal Server Error");
    check(503, "503 Service Unavailable");
    check(599, "599 Odd");
}

#[test]
fn the_head_is_as_upstream_wrote_it() {
    let check = |request: &str, before: &str, framed: &str| {
        let fields = "X-Mixed: One\r\nx-other: Two\r\nX-MIXED: Three\r\nSet-Cookie: a=b\r\n";
        let reply = relayed(request, format!("{before}HTTP/1.1 200 So be it\r\n{fields}{framed}"));
        assert!(reply.head.starts_with("HTTP/1.1 200 So be it\r\n"), "{}", reply.head);
        assert!(reply.head.contains(&format!("\r\n{fields}")), "{}", reply.head);
    };
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for before in ["", early] {
        check(&chat(), before, "Content-Length: 2\r\n\r\n{}");
        check(&get("/v1/models"), before, "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n");
        check("HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", before, "Content-Length: 2\r\n\r\n");
    }
}

#[test]
fn redirects_are_not_followed() {
    // Where a redirect leads is the client's business.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let (mut client, mut link) = asked(&proxy, &upstream, get("/v1/models"));
        let location = format!("{}/v1/elsewhere", upstream.url());
        link.send(format!(
            "HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 4\r\nConnection: close\r\n\r\nover"
        ));
        link.fin();
        let reply = client.reply();
        assert_eq!(reply.start_line().split_once(' ').expect("a status line").1, status);
        assert_eq!(reply.field("location"), Some(location.as_str()));
        assert_eq!(reply.text(), "over");
        link.wait_for_close();
    }
}

#[test]
fn a_length_stays_a_length() {
    let reply = relayed(&chat(), chat_reply());
    assert_eq!(reply.field("content-length"), Some(CHAT_REPLY.len().to_string().as_str()));
    assert_eq!(reply.field("transfer-encoding"), None);
    assert_eq!(reply.text(), CHAT_REPLY);
    let reply = relayed(&chat(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((reply.field("content-length"), reply.text()), (Some("0"), ""));
}

#[test]
fn a_body_in_chunks_stays_in_chunks() {
    let chunks = [chunk("Hel"), "2;ext=1\r\nlo\r\n".into(), "0\r\nX-Trailer: 1\r\n\r\n".into()].concat();
    let reply = relayed(&chat(), format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
    assert_eq!((reply.field("transfer-encoding"), reply.field("content-length")), (Some("chunked"), None));
    assert_eq!((reply.text(), reply.ended), ("Hello", Ended::Whole));
}

#[test]
fn a_body_that_ends_with_the_connection_is_sent_in_chunks() {
    // The client can tell a whole reply from a cut one although upstream's framing could not.
    let reply = relayed(&chat(), "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nHello");
    assert_eq!(reply.field("transfer-encoding"), Some("chunked"));
    assert_eq!((reply.text(), reply.ended), ("Hello", Ended::Whole));
}

#[test]
fn replies_without_a_body_have_none() {
    // HEAD and 304 tell a length without a body, 204 neither; the next reply on the connection is not eaten.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let check = |request: &str, head: &str, length: Option<&str>| {
        let mut client = proxy.connect();
        client.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        client.send(get("/health"));
        let mut link = upstream.accept();
        link.request();
        link.send(format!("HTTP/1.1 {head}Connection: close\r\n\r\n"));
        link.fin();
        let reply = client.bodiless_reply();
        assert_eq!(reply.start_line(), format!("HTTP/1.1 {}", head.split("\r\n").next().expect("a line")));
        assert_eq!(reply.field("content-length"), length, "{request} {head}");
        assert_eq!(reply.field("transfer-encoding"), None, "{request} {head}");
        assert_eq!(client.reply().json()["status"], "ok");
    };
    check("HEAD /v1/models", "200 OK\r\nContent-Length: 1234\r\n", Some("1234"));
    check("HEAD /v1/models", "200 OK\r\n", None);
    check("GET /v1/models", "204 No Content\r\n", None);
    check("DELETE /v1/models/m", "204 No Content\r\n", None);
    check("GET /v1/models", "304 Not Modified\r\nETag: \"1\"\r\n", None);
    check("GET /v1/models", "304 Not Modified\r\nContent-Length: 1234\r\n", Some("1234"));
}

#[test]
fn interim_replies_are_skipped() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let reply = relayed(&chat(), [interim.as_bytes(), &chat_reply()].concat());
    assert_eq!((reply.status(), reply.text()), (200, CHAT_REPLY));
}

#[test]
fn an_encoded_reply_is_not_decoded() {
    // The bytes need not even be what Content-Encoding says.
    let body: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for request in [chat(), get("/v1/models")] {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let reply = relayed(&request, [head.as_bytes(), &body].concat());
        assert_eq!(reply.field("content-encoding"), Some("gzip"));
        assert_eq!(reply.body, body);
    }
}

#[test]
fn large_bodies_pass_unchanged_both_ways() {
    // Larger than every buffer on the way, and no period in it that a buffer's size could hide.
    let body: Vec<u8> = (0..6_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let upstream = Upstream::answering(|link, request| match request.field("x-framing") {
        Some("length") => link.send(reply("200 OK", "audio/wav", &request.body)),
        _ => {
            link.send("HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nTransfer-Encoding: chunked\r\n\r\n");
            for piece in request.body.chunks(70_001) {
                link.send([format!("{:X}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            link.send(LAST_CHUNK);
        }
    });
    let proxy = Proxy::before(&upstream);
    for framing in ["length", "chunks"] {
        let head = format!(
            "POST /v1/audio/x HTTP/1.1\r\nHost: localhost\r\nX-Framing: {framing}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let reply = proxy.ask([head.as_bytes(), &body].concat());
        assert_eq!(reply.ended, Ended::Whole);
        assert!(reply.body == body, "{framing}: {} of {} bytes", reply.body.len(), body.len());
    }
}

#[test]
fn reply_fields_pass_and_those_of_the_connection_do_not() {
    let reply = relayed(
        &get("/v1/models"),
        b"HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\n\
          X-Empty: \r\nX-Latin: caf\xe9\r\nX-Spaces: a  b\tc\r\nVary: Origin\r\nServer: up\r\n\
          Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
          Upgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(reply.fields("set-cookie"), ["a=1", "b=2; Path=/"]);
    assert_eq!(reply.field("x-empty"), Some(""));
    assert_eq!(reply.field("x-latin"), Some("caf\u{e9}"));
    assert_eq!(reply.field("x-spaces"), Some("a  b\tc"));
    let passed = ["content-length", "server", "set-cookie", "set-cookie", "vary", "x-empty", "x-latin", "x-powered-by"];
    assert_eq!(reply.names(), [&passed[..], &["x-spaces"]].concat());
}

#[test]
fn an_event_arrives_before_the_next_is_sent() {
    // Nothing is held back to be sent in company: each event is seen while upstream is silent again.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asking(&proxy, &upstream);
    link.send(STREAM_HEAD);
    client.through("\r\n\r\n");
    for word in ["One", "two", "three"] {
        link.send(chunk(&event(word)));
        assert!(client.through("\n\n").contains(word));
    }
    link.send([chunk(DONE), LAST_CHUNK.into()].concat());
    client.through(LAST_CHUNK);
    assert_eq!(proxy.row().outcome, "completed");
}

#[test]
fn a_stream_is_the_same_however_the_network_cuts_it() {
    let events = [event("One"), ": comment\r\n\r\n".into(), event("two"), USAGE_EVENT.into(), DONE.into()].concat();
    let raw = format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&events));
    let upstream = Upstream::answering(move |link, request| {
        let piece = request.field("x-piece").expect("the client sends it").parse().expect("a number");
        raw.as_bytes().chunks(piece).for_each(|bytes| link.send(bytes));
    });
    let proxy = Proxy::before(&upstream);
    for piece in [1, 2, 3, 7, 50, 1000] {
        let request = streaming_chat().replace("Host:", &format!("X-Piece: {piece}\r\nHost:"));
        let reply = proxy.ask(request);
        assert_eq!((reply.text(), reply.ended), (events.as_str(), Ended::Whole), "{piece} bytes at once");
    }
    let rows = proxy.rows();
    assert!(rows.iter().all(|row| row.outcome == "completed" && row.total_tokens == Some(22)), "{rows:#?}");
}
