//! How a WebSocket is opened, or is not.

use super::*;

/// What upstream receives of a handshake with these further fields.
fn received(fields: &str) -> String {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(opening("/llm").replace("Host:", &format!("{fields}Host:")));
    let head = upstream.accept().request().head;
    let host = format!("host: {}\r\n", upstream.address());
    assert!(head.contains(&host), "{head:?}");
    head.replace(&host, "")
}

#[test]
fn the_handshake_goes_on_as_it_came_but_for_host_and_compression() {
    let check = |fields: &str, expected: &str| {
        let as_came = opening("/llm").replace("Host: localhost\r\n", expected);
        // ureq writes names in lower case.
        let lower = |head: &str| {
            let (line, fields) = head.split_once("\r\n").expect("a start line");
            let field = |field: &str| match field.split_once(": ") {
                Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
                None => field.to_owned(),
            };
            [line.to_owned(), fields.split("\r\n").map(field).collect::<Vec<_>>().join("\r\n")].join("\r\n")
        };
        let received = received(fields);
        let sorted = |head: &str| {
            let mut lines: Vec<String> = lower(head).split("\r\n").map(str::to_owned).collect();
            lines[1..].sort();
            lines
        };
        assert_eq!(sorted(&received), sorted(&as_came), "{fields:?}");
    };
    check("", "");
    check("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", "");
    check("Sec-WebSocket-Extensions: permessage-deflate, x-other\r\n", "Sec-WebSocket-Extensions: x-other\r\n");
    let passed = "Sec-WebSocket-Protocol: a, b\r\nOrigin: http://localhost\r\nCookie: a=1\r\nAuthorization: Bearer x\r\n\
                  User-Agent: python-httpx/0.28.1\r\nAccept-Encoding: gzip, deflate\r\nX-Twice: 1\r\nX-Twice: 2\r\n";
    check(passed, passed);
}

#[test]
fn the_answer_to_it_comes_back_as_it_is() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(opening("/llm?a=%41"));
    let mut link = upstream.accept();
    let request = link.request();
    assert_eq!(request.start_line(), "GET /llm?a=%41 HTTP/1.1");
    let answer = switching(&request).replace(
        "Upgrade: websocket",
        "x-UPPER:  two  spaces \r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nUPGRADE: WebSocket",
    );
    link.send(&answer);
    assert_eq!(client.through("\r\n\r\n"), answer);
}

#[test]
fn every_namespace_and_every_forwarded_path_has_them() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    for path in ["/llm", "/embedding", "/system", "/diagnostics", "/files", "/repository", "/plugins", "/runtime"] {
        websocket(proxy.address(), &upstream, path);
    }
    for path in ["/v1/realtime", "/api/v0/any", "/api/v1/any"] {
        websocket(proxy.address(), &upstream, path);
    }
    for path in ["/", "/llm/", "/llm/x", "/LLM", "/health", "/stats/live", "/ws"] {
        let mut client = proxy.connect();
        client.send(opening(path));
        assert_ne!(client.bodiless_reply().status(), 101, "{path}");
    }
    assert_eq!(upstream.accepted(), 11);
}

#[test]
fn the_greeting_is_forwarded() {
    let upstream = Upstream::answering(|link, request| {
        assert_eq!(request.start_line(), "GET /lmstudio-greeting HTTP/1.1");
        link.send(reply("200 OK", "application/json", r#"{"lmstudio":true}"#));
    });
    let proxy = Proxy::before(&upstream);
    let reply = proxy.ask(get("/lmstudio-greeting"));
    assert_eq!((reply.status(), reply.text()), (200, r#"{"lmstudio":true}"#));
    assert_eq!(proxy.rows(), []);
}

#[test]
fn a_namespace_is_for_websockets_alone() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    for request in [get("/llm"), post("/llm", "{}"), opening("/llm").replace("Connection: Upgrade\r\n", "")] {
        let reply = proxy.ask(request);
        assert_eq!((reply.status(), upstream.accepted()), (404, 0), "{}", reply.head);
    }
}

#[test]
fn upstream_may_refuse_and_its_reply_is_one_as_any() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    let mut links = Vec::new();
    for (status, field, body) in [
        ("404 Not Found", "X-Why: 1", "no such thing"),
        ("426 Upgrade Required", "Sec-WebSocket-Version: 13", "version 13, please"),
        ("200 OK", "X-Why: 2", "a page"),
    ] {
        client.send(opening("/llm"));
        let link = upstream.asked_on(&mut links);
        link.request();
        link.send(reply(status, &format!("text/plain\r\n{field}"), body));
        let answer = client.reply();
        let (name, value) = field.split_once(": ").expect("a field");
        assert_eq!((answer.text(), answer.field(name)), (body, Some(value)));
        assert_eq!(answer.start_line(), format!("HTTP/1.1 {status}"));
    }
    // The connection serves on, for a WebSocket in the end.
    client.send(get("/v1/models"));
    let link = upstream.asked_on(&mut links);
    link.request();
    link.send(reply("200 OK", "application/json", "{}"));
    assert_eq!(client.reply().text(), "{}");
    client.send(opening("/llm"));
    let link = upstream.asked_on(&mut links);
    let request = link.request();
    link.send(switching(&request));
    assert_eq!(client.bodiless_reply().status(), 101);
    link.send(ping().bytes());
    assert_eq!(client.frame(), ping());
    assert_eq!(proxy.rows(), []);
}

#[test]
fn upstream_may_be_silent_or_gone() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asked(&proxy, &upstream, opening("/llm"));
    link.fin();
    assert_eq!(client.reply().status(), 502);
    // LM Studio's server says nothing at all to a path that it does not know. Regression: who gave that up left an
    // exchange in flight for ever.
    for further in [vec![], ping().masked().bytes()] {
        let (client, mut link) = asked(&proxy, &upstream, [opening("/llm").as_bytes(), &further].concat());
        client.leave();
        link.wait_for_close();
    }
    wait_for_sockets(&proxy, "0");
    proxy.check_sound();
}

#[test]
fn a_page_of_another_origin_opens_none() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("ALLOWED_HOSTS", "chat.example")]);
    let asked = |host: &str, origin: &str| {
        let mut client = proxy.connect();
        let fields = format!("Origin: {origin}\r\nHost: {host}");
        client.send(opening("/llm").replace("Host: localhost", &fields));
        client
    };
    let refused = ["https://evil.example", "http://localhost:3000", "null", "http://chat.example.evil.example"];
    for origin in refused {
        let reply = asked("localhost", origin).reply();
        assert_eq!(
            (reply.status(), reply.json()["error"]["code"].as_str()),
            (403, Some("origin_not_allowed")),
            "{origin}"
        );
    }
    let reply = asked("evil.example", "http://evil.example").reply();
    assert_eq!((reply.status(), reply.json()["error"]["code"].as_str()), (403, Some("host_not_allowed")));
    assert_eq!(upstream.accepted(), 0);
    let metrics = proxy.ask(get("/metrics"));
    let line = format!("lms_proxy_refusals_total{{reason=\"origin_not_allowed\"}} {}\n", refused.len());
    assert!(metrics.text().contains(&line), "{}", metrics.text());
    for (host, origin) in [
        ("localhost", "http://localhost"),
        ("127.0.0.1:8080", "https://127.0.0.1:8080"),
        ("localhost", "https://chat.example"),
        ("localhost", "http://chat.example:3000"),
    ] {
        let mut client = asked(host, origin);
        let mut link = upstream.accept();
        let request = link.request();
        assert_eq!(request.field("origin"), Some(origin));
        link.send(switching(&request));
        assert_eq!(client.bodiless_reply().status(), 101);
    }
}

#[test]
fn those_that_are_open_are_counted_and_take_no_worker() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    assert_eq!(sockets(&proxy), "0");
    let mut open: Vec<_> = (0..3).map(|_| websocket(proxy.address(), &upstream, "/llm")).collect();
    assert_eq!(sockets(&proxy), "3");
    let mut client = proxy.connect();
    client.send(chat());
    let mut asked = upstream.accept();
    asked.request();
    // Nor does a request that takes the only worker there may be keep them from going on: rows are committed, too.
    for (client, link) in &mut open {
        client.send(Frame::text(&predict(1)).masked().bytes());
        link.text_message();
        link.send([Frame::text(&success(1, "eosFound", 3)).bytes(), ping().bytes()].concat());
        assert_eq!(client.text_message(), success(1, "eosFound", 3));
        assert_eq!(client.frame(), ping());
    }
    asked.send(chat_reply());
    assert_eq!(client.reply().text(), CHAT_REPLY);
    assert_eq!(proxy.rows().len(), 4);
    for left in ["2", "1", "0"] {
        drop(open.pop());
        wait_for_sockets(&proxy, left);
    }
}
