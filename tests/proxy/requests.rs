//! Requests reach upstream as the client sent them, and connections live as HTTP says.

use crate::harness::*;

/// What upstream receives of a request, answered with a chat reply.
fn received(request: impl AsRef<[u8]>) -> Message {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(request);
    let mut link = upstream.accept();
    let received = link.request();
    assert_eq!(received.field("host"), Some(upstream.address().to_string().as_str()));
    link.send(chat_reply());
    client.wait_for("HTTP/1.1 200 OK\r\n");
    received
}

/// Upstream that tells in its reply's body what it was asked: the start line, then the body.
fn echoing() -> Upstream {
    Upstream::answering(|link, request| {
        let told = [request.start_line().as_bytes(), b"\n", &request.body].concat();
        link.send(reply("200 OK", "text/plain", told));
    })
}

#[test]
fn method_and_target_are_untouched() {
    // Neither decoded nor encoded nor put in order: upstream may give any of it a meaning.
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    let mut check = |method: &str, target: &str| {
        let reply = client.ask(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(reply.text(), format!("{method} {target} HTTP/1.1\n"));
    };
    check("GET", "/v1/models");
    check("GET", "/v1/models?");
    check("GET", "/v1/models?b=2&a=1&a=%41+%20&&=");
    check("GET", "/v1/models/pub%2Fmodel@q4_k_m");
    check("GET", "/v1/models//double/");
    check("GET", "/v1/models?q=[1]&r={2}|^`'(*)~!$,;:@/?");
    check("GET", "/api/v0/models/%E2%82%AC");
    check("GET", "/api/v1/models/download/status/job-1");
    check("DELETE", "/v1/responses/resp_1");
    check("OPTIONS", "/v1/chat/completions");
    check("PATCH", "/v1/x");
    check("PUT", "/v1/x");
    check("PROPFIND", "/v1/x");
    check("QUERY", "/v1/x?y");
    check("get", "/v1/lower-case");
    check("M-SEARCH", "/v1/x");
    check("X!#$%&'*+.^_`|~", "/v1/x");
}

#[test]
fn request_fields_pass_untouched_and_nothing_is_added() {
    // Of a request on an unrecorded route upstream gets every end-to-end field, its own Host, and nothing else.
    let request = received(
        b"GET /v1/models HTTP/1.1\r\nHost: localhost:8080\r\nAuthorization: Bearer  Two  Spaces\r\nX-Empty:\r\n\
          X-Latin: caf\xe9\r\nX-Twice: 1\r\nX-Twice: 2\r\nAccept-Encoding: gzip, br\r\nCookie: a=1; b=2\r\n\
          Via: 1.0 before\r\nOrigin: http://example.com\r\nRange: bytes=0-1\r\n\r\n",
    );
    assert_eq!(request.field("authorization"), Some("Bearer  Two  Spaces"));
    assert_eq!(request.field("x-latin"), Some("caf\u{e9}"));
    assert_eq!(request.fields("x-twice"), ["1", "2"]);
    assert_eq!(request.field("accept-encoding"), Some("gzip, br"));
    let passed = ["accept-encoding", "authorization", "cookie", "host", "origin", "range", "via", "x-empty", "x-latin"];
    assert_eq!(request.names(), [&passed[..], &["x-twice", "x-twice"]].concat());
    assert_eq!(received(get("/v1/models")).names(), ["host"]);
    assert_eq!(received("DELETE /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n").names(), ["host"]);
}

#[test]
fn recorded_routes_ask_for_a_reply_that_can_be_read() {
    // A compressed reply cannot be read for usage; that is the one field the proxy sets.
    let request = received(chat().replace("Host:", "Accept-Encoding: gzip, deflate\r\nHost:"));
    assert_eq!(request.field("accept-encoding"), Some("identity"));
    assert_eq!(request.names(), ["accept-encoding", "content-length", "content-type", "host"]);
    assert_eq!(received(chat()).names(), ["accept-encoding", "content-length", "content-type", "host"]);
}

#[test]
fn fields_of_the_connection_end_at_the_proxy() {
    let request = received(chat().replace(
        "Host:",
        "Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X-T\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic Og==\r\nUpgrade: websocket\r\nX-Other: 2\r\nHost:",
    ));
    assert_eq!(request.names(), ["accept-encoding", "content-length", "content-type", "host", "x-other"]);
}

#[test]
fn a_body_is_sent_on_byte_for_byte() {
    // Not parsed and written anew: spaces, order, repeated members, numbers and even broken JSON stay.
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    let mut check = |body: &str| {
        let reply = client.ask(post("/v1/chat/completions", body));
        assert_eq!(reply.text().split_once('\n').expect("a start line").1, body);
    };
    check("{ \"model\" : \"m\",\r\n\t\"b\":1.0e+2, \"a\":10000000000000000000001, \"a\":\"\\u00e9\" }\n\n");
    check(r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#);
    check(r#"{"model":"m","stream":fal"#);
    check("no JSON at all");
    check("");
}

#[test]
fn a_body_in_chunks_arrives_with_a_length() {
    let chunks = "4\r\n{\"mo\r\nA;x=y\r\ndel\": \"m\"}\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let request = received(format!("{head}{chunks}"));
    assert_eq!((request.field("content-length"), request.field("transfer-encoding")), (Some("14"), None));
    assert_eq!(request.text(), r#"{"model": "m"}"#);
    assert_eq!(request.field("x-trailer"), None);
    let request = received(format!("{head}0\r\n\r\n"));
    assert_eq!((request.field("content-length"), request.text()), (Some("0"), ""));
}

#[test]
fn a_client_that_expects_100_gets_it_before_its_body() {
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for _ in 0..2 {
        client.send("POST /v1/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(client.bodiless_reply().head, "HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(client.ask("Hello").text(), "POST /v1/x HTTP/1.1\nHello");
    }
    let reply = client.ask("GET /v1/x HTTP/1.1\r\nHost: localhost\r\nExpect: miracles\r\n\r\n");
    assert_eq!(reply.status(), 417);
}

#[test]
fn upstream_never_sees_an_expectation() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send("POST /v1/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n1");
    assert_eq!(upstream.accept().request().names(), ["accept-encoding", "content-length", "host"]);
}

#[test]
fn a_request_may_arrive_in_any_pieces() {
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for piece in [1, 3, 40] {
        for bytes in post("/v1/x", "Hello").as_bytes().chunks(piece) {
            client.send(bytes);
        }
        assert_eq!(client.reply().text(), "POST /v1/x HTTP/1.1\nHello", "{piece} bytes at once");
    }
}

#[test]
fn a_connection_serves_request_after_request() {
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for number in 0..50 {
        let body = number.to_string();
        assert_eq!(client.ask(post("/v1/x", &body)).text(), format!("POST /v1/x HTTP/1.1\n{number}"));
        assert_eq!(client.ask(get("/health")).status(), 200);
    }
    // So do connections to upstream. A second worker may have begun while the first was not quite at rest.
    assert!(upstream.accepted() < 5, "{}", upstream.accepted());
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    // Also where a fast answer of the proxy itself follows one that upstream has not given yet.
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let mut client = proxy.connect();
    let bad = "GET /v1/bad HTTP/1.1\r\nHost: localhost\r\nHost: twice\r\n\r\n";
    let asked = [get("/v1/1"), get("/health"), post("/v1/2", "two"), get("/nothing"), get("/stats/recent"), bad.into()];
    client.send(asked.concat());
    let mut link = upstream.accept();
    assert_eq!(link.request().start_line(), "GET /v1/1 HTTP/1.1");
    link.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\none");
    assert_eq!(client.reply().text(), "one");
    assert_eq!(client.reply().json()["status"], "ok");
    let mut link = upstream.accept();
    assert_eq!(link.request().text(), "two");
    link.send(reply("200 OK", "text/plain", "two"));
    assert_eq!(client.reply().text(), "two");
    assert_eq!(client.reply().status(), 404);
    assert_eq!(client.reply().json()["requests"][0]["endpoint"], "/v1/2");
    assert_eq!(client.reply().status(), 400);
    assert_eq!(client.rest(), b"");
}

#[test]
fn connection_close_is_obeyed_and_announced() {
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    for path in ["/v1/x", "/health", "/stats/summary", "/nothing"] {
        let mut client = proxy.connect();
        let reply = client.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        assert_eq!(reply.field("connection"), Some("close"), "{path}");
        assert_eq!(client.rest(), b"", "{path}");
    }
}

#[test]
fn upstream_closing_its_connection_does_not_close_the_clients() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(chat());
        let mut link = upstream.accept();
        link.request();
        link.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.reply().field("connection"), None);
    }
}

#[test]
fn http_1_0_gets_no_chunks_and_its_connection_ends() {
    let upstream = Upstream::answering(|link, request| match request.start_line().contains("stream") {
        true => link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(DONE), LAST_CHUNK].concat()),
        false => link.send(reply("200 OK", "text/plain", "Hello")),
    });
    let proxy = Proxy::before(&upstream);
    let check = |target: &str, body: &str| {
        let mut client = proxy.connect();
        let reply = client.ask(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert_eq!((reply.text(), reply.field("transfer-encoding")), (body, None), "{target}");
        assert_eq!(client.rest(), b"", "{target}");
    };
    check("/v1/whole", "Hello");
    check("/v1/stream", &[event("One"), DONE.into()].concat());
    check("/health", "{\"status\": \"ok\", \"service\": \"lms_metrics_proxy_proxy\"}\n");
}

#[test]
fn http_1_0_may_ask_for_its_connection_to_stay() {
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for _ in 0..2 {
        let reply = client.ask("GET /v1/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(reply.field("connection").map(str::to_ascii_lowercase).as_deref(), Some("keep-alive"));
    }
}

#[test]
fn the_path_of_the_upstream_url_comes_first() {
    let upstream = echoing();
    let check = |slip: &str, prefix: &str| {
        let url = format!("{}{slip}", upstream.url());
        let proxy = Proxy::start(&Folder::new().into(), &[("LM_STUDIO_URL", &url)]);
        let reply = proxy.ask(get("/v1/models?a=b"));
        assert_eq!(reply.text(), format!("GET {prefix}/v1/models?a=b HTTP/1.1\n"), "{slip}");
    };
    check("/lm/studio", "/lm/studio");
    // A trailing slash and a trailing /v1 are slips, put right.
    check("/lm/", "/lm");
    check("/", "");
    check("/v1", "");
    check("/lm/v1/", "/lm");
}

/// The same to GET and to HEAD, but for the content (RFC 9110 §9.3.2): `rest` follows the method, and answers it.
fn check_head(proxy: &Proxy, rest: &str, status: u16) {
    let answer = |method: &str| {
        let mut client = proxy.connect();
        client.send(format!("{method} {rest}"));
        client.half_close();
        let got = String::from_utf8(client.rest()).expect("text");
        let (head, content) = got.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {rest:.100}: {head}");
        // A second may begin between both.
        let head: Vec<&str> = head.lines().filter(|line| !line.starts_with("Date: ")).collect();
        (head.join("\n"), content.to_owned())
    };
    let ((got, content), (head, nothing)) = (answer("GET"), answer("HEAD"));
    assert_ne!(content, "", "{rest:.100}");
    assert_eq!((head, nothing.as_str()), (got, ""), "{rest:.100}");
}

#[test]
fn head_gets_no_content_whatever_the_answer_is() {
    // A client that sent it reads whatever followed the head as its next reply.
    // Nobody listens there any more.
    let url = Upstream::new().url();
    let settings = [("LM_STUDIO_URL", url.as_str()), ("STATS_TOKEN", "s3cret"), ("MAX_BODY_MB", "1")];
    let proxy = Proxy::start(&std::sync::Arc::new(Folder::new()), &settings);
    let host = "Host: localhost\r\nConnection: close\r\n";
    check_head(&proxy, &format!("/health HTTP/1.1\r\n{host}\r\n"), 200);
    check_head(&proxy, &format!("/stats/summary HTTP/1.1\r\n{host}\r\n"), 401);
    check_head(&proxy, &format!("/ HTTP/1.1\r\n{host}\r\n"), 401);
    check_head(&proxy, &format!("/nowhere HTTP/1.1\r\n{host}\r\n"), 404);
    check_head(&proxy, &format!("/v1/models HTTP/1.1\r\n{host}\r\n"), 502);
    let token = format!("{host}Authorization: Bearer s3cret\r\n");
    check_head(&proxy, &format!("/stats/summary HTTP/1.1\r\n{token}\r\n"), 200);
    check_head(&proxy, &format!("/stats/export?x=y HTTP/1.1\r\n{token}\r\n"), 400);
    check_head(&proxy, &format!("/stats/requests/9 HTTP/1.1\r\n{token}\r\n"), 404);
    // Refusals, wherever in the request their reason stands.
    check_head(&proxy, &format!("/v1/models HTTP/9.9\r\n{host}\r\n"), 505);
    check_head(&proxy, &format!(" /v1/models HTTP/1.1\r\n{host}\r\n"), 400);
    check_head(&proxy, &format!("/{} HTTP/1.1\r\n{host}\r\n", "x".repeat(20_000)), 414);
    check_head(&proxy, "/v1/models HTTP/1.1\r\n\r\n", 400);
    check_head(&proxy, &format!("/v1/models HTTP/1.1\r\n{host}Expect: x\r\n\r\n"), 417);
    check_head(&proxy, &format!("/v1/models HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(70_000)), 431);
    check_head(&proxy, "/v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403);
    check_head(&proxy, &format!("/stats/summary HTTP/1.1\r\n{token}Origin: http://evil.example\r\n\r\n"), 403);
    check_head(&proxy, &format!("/v1/../x HTTP/1.1\r\n{host}\r\n"), 400);
    check_head(&proxy, &format!("/v1/models HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nx\r\n"), 400);
    check_head(&proxy, &format!("/v1/models HTTP/1.1\r\n{host}Content-Length: 9000000\r\n\r\n"), 413);
}

#[test]
fn options_of_the_whole_server_is_answered_in_either_form() {
    let proxy = Proxy::before(&Upstream::new());
    let mut client = proxy.connect();
    for target in ["*", "http://localhost", "HTTP://127.0.0.1:80"] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.bodiless_reply().status(), 204, "{target}");
    }
}
