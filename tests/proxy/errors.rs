//! What the proxy says itself when it cannot forward, and that it always can say it.

use std::collections::HashSet;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::harness::*;

/// Checks the one shape that all the proxy's own errors have.
fn check_error(reply: &Message, status: u16, code: &str, words: &str) {
    assert_eq!(reply.status(), status, "{}", reply.text());
    assert_eq!(reply.field("content-type"), Some("application/json"));
    let json = reply.json();
    assert_eq!((&json["error"]["type"], &json["error"]["code"]), (&"proxy_error".into(), &code.into()), "{json}");
    assert!(json["error"]["message"].as_str().expect("a sentence").contains(words), "{json} lacks {words:?}");
}

/// A proxy in front of a port where nobody listens, nor will: a connection of the test's own holds it.
pub fn proxy_before_nobody(settings: &[(&str, &str)]) -> (Proxy, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let holds = TcpStream::connect(listener.local_addr().expect("a bound socket")).expect("it listens");
    let url = url_of(&holds);
    let settings = [&[("LM_STUDIO_URL", url.as_str())], settings].concat();
    (Proxy::start(&Folder::new().into(), &settings), holds)
}

fn url_of(holds: &TcpStream) -> String {
    format!("http://{}", holds.local_addr().expect("a connected socket"))
}

#[test]
fn an_upstream_that_does_not_listen_is_a_502_with_a_row() {
    let (proxy, holds) = proxy_before_nobody(&[]);
    let mut client = proxy.connect();
    let reply = client.ask(chat());
    let url = url_of(&holds);
    let words = format!("LM Studio does not answer at {url} (connection refused). Is its server started?");
    check_error(&reply, 502, "upstream_unreachable", &words);
    let row = proxy.row();
    assert_eq!((row.outcome.as_str(), row.http_status, row.is_error), ("upstream_unreachable", Some(502), true));
    assert_eq!(row.error_message.as_deref(), Some(words.as_str()));
    assert_eq!((row.model.as_str(), row.total_tokens), ("m", None));
    // The connection goes on, and so do local routes.
    check_error(&client.ask(get("/v1/models")), 502, "upstream_unreachable", "started?");
    assert_eq!(client.ask(get("/health")).status(), 200);
}

#[test]
fn an_upstream_that_breaks_off_before_its_reply_is_a_502() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let check = |break_off: &dyn Fn(Link), words: &str| {
        let mut client = proxy.connect();
        client.send(chat());
        let mut link = upstream.accept();
        link.request_head_alone();
        break_off(link);
        check_error(&client.reply(), 502, "upstream_failed", words);
        let rows = proxy.rows();
        let row = rows.last().expect("a row");
        assert_eq!((row.outcome.as_str(), row.http_status), ("upstream_unreachable", Some(502)));
    };
    check(&|link| link.finish(), "closed the connection");
    check(&|link| link.reset(), "connection reset");
    check(&|link| link.send_and_finish("HTTP/1.1 200 OK\r\nContent-Le"), "no usable reply");
    check(&|link| link.send_and_finish("SSH-2.0-OpenSSH_9.7\r\n\r\n"), "not valid HTTP");
    check(&|link| link.send_and_finish(&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000))), "exceeds");
}

#[test]
fn a_silent_upstream_is_a_504_only_where_the_settings_say_so() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("UPSTREAM_IDLE_TIMEOUT_S", "1")]);
    let (mut client, mut link) = asked(&proxy, &upstream, chat());
    check_error(&client.reply(), 504, "upstream_timeout", "silent");
    link.wait_for_close();
    assert_eq!(proxy.row().outcome, "upstream_timeout");
}

#[test]
fn a_stream_that_falls_silent_is_cut_where_the_settings_say_so() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("UPSTREAM_IDLE_TIMEOUT_S", "1")]);
    let (mut client, mut link) = asking(&proxy, &upstream);
    link.send([STREAM_HEAD, &chunk(&event("One"))].concat());
    assert_eq!(client.reply().ended, Ended::Cut);
    link.wait_for_close();
    assert_eq!(proxy.row().outcome, "upstream_timeout");
}

#[test]
fn unknown_paths_are_a_404_that_names_the_likely_one() {
    let (proxy, _holds) = proxy_before_nobody(&[]);
    let mut client = proxy.connect();
    check_error(&client.ask(post("/chat/completions", "{}")), 404, "not_found", "/v1/chat/completions");
    check_error(&client.ask(get("/models")), 404, "not_found", "/v1/models");
    check_error(&client.ask(get("/nothing")), 404, "not_found", "/v1/");
    assert_eq!(client.ask(get("/health")).status(), 200);
}

#[test]
fn local_routes_allow_get_and_head() {
    let (proxy, _holds) = proxy_before_nobody(&[]);
    let mut client = proxy.connect();
    for path in ["/health", "/stats/summary", "/stats/by-model", "/stats/recent"] {
        for method in ["POST", "DELETE", "OPTIONS", "PROPFIND"] {
            let reply =
                client.ask(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{{}}"));
            check_error(&reply, 405, "method_not_allowed", "GET");
            assert_eq!(reply.field("allow"), Some("GET, HEAD"), "{method} {path}");
        }
        let whole = client.ask(get(path));
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.bodiless_reply().field("content-length"), whole.field("content-length"), "{path}");
    }
    assert_eq!(client.ask(get("/health")).text(), "{\"status\": \"ok\", \"service\": \"lms_metrics_proxy_proxy\"}\n");
}

#[test]
fn a_body_beyond_the_limit_is_a_413_that_the_client_can_read() {
    // Known from its length before a byte of it is taken, or found out on the way. Either way the client, still
    // sending, gets the reply and not a reset.
    let (proxy, _holds) = proxy_before_nobody(&[("MAX_BODY_MB", "1")]);
    let body = vec![b'x'; 3_000_000];
    let check = |head: &str, body: &[u8]| {
        let mut client = proxy.connect();
        client.send(format!("POST /v1/x HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n"));
        client.send(body);
        let reply = client.reply();
        check_error(&reply, 413, "body_too_large", "MAX_BODY_MB");
        assert_eq!(reply.field("connection"), Some("close"));
    };
    check("Content-Length: 3000000", &body);
    check("Transfer-Encoding: chunked", &[b"2dc6c0\r\n", &body[..], b"\r\n0\r\n\r\n"].concat());
    check("Content-Length: 3000000\r\nExpect: 100-continue", b"");
    assert_eq!(proxy.rows(), []);
    let exact = [&b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n"[..], &body[..1_048_576]];
    assert_eq!(proxy.ask(exact.concat()).status(), 502);
}

#[test]
fn a_foreign_host_is_a_403() {
    // What a page in a browser can reach by DNS rebinding bears the name of the page.
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let check = |allowed: &str, host: &str, status: u16| {
        let proxy = Proxy::with(&upstream, &[("ALLOWED_HOSTS", allowed)]);
        for path in ["/v1/models", "/health", "/stats/summary"] {
            let reply = proxy.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(reply.status(), status, "{host} with {allowed:?}: {}", reply.text());
            if status == 403 {
                check_error(&reply, 403, "host_not_allowed", "ALLOWED_HOSTS");
            }
        }
    };
    check("", "evil.example", 403);
    check("", "evil.example:8080", 403);
    check("", "localhost:1", 200);
    check("", "127.0.0.1:8080", 200);
    check("", "[::1]:8080", 200);
    check("proxy.example.com", "proxy.example.com", 200);
    check("proxy.example.com", "other.example.com", 403);
    check("*", "evil.example", 200);
}

#[test]
fn a_page_of_another_origin_makes_no_model_generate() {
    // Regression: a form or a fetch of text/plain, for which no browser asks first, was forwarded from any page.
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let check = |proxy: &Proxy, fields: &str, status: u16| {
        let request = chat().replace("Content-Type: application/json", fields);
        let reply = proxy.ask(request);
        assert_eq!(reply.status(), status, "{fields}: {}", reply.text());
        if status == 403 {
            check_error(&reply, 403, "origin_not_allowed", "ALLOWED_HOSTS");
        }
    };
    let proxy = Proxy::before(&upstream);
    check(&proxy, "Origin: https://evil.example\r\nContent-Type: text/plain", 403);
    check(&proxy, "Origin: null\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate", 403);
    check(&proxy, "Origin: https://evil.example\r\nContent-Type: application/json", 200);
    check(&proxy, "Content-Type: text/plain", 200);
    let own = format!("Origin: http://{}\r\nSec-Fetch-Site: same-origin\r\nContent-Type: text/plain", proxy.address());
    check(&proxy, &own, 200);
    assert_eq!(proxy.rows().len(), 3);
    let metrics = proxy.ask(get("/metrics"));
    assert!(metrics.text().contains("lms_proxy_refusals_total{reason=\"origin_not_allowed\"} 2\n"));
    let proxy = Proxy::with(&upstream, &[("ALLOWED_HOSTS", "chat.example")]);
    check(&proxy, "Origin: https://chat.example\r\nContent-Type: text/plain", 200);
    check(&proxy, "Origin: https://evil.example\r\nContent-Type: text/plain", 403);
}

#[test]
fn every_error_code_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("a source");
    let refusals = lms_metrics_proxy::http::Refusal::ALL.map(|refusal| refusal.facts().code.to_owned());
    // The last word of a call that makes an error, and the codes that are chosen where there is no reply.
    let mut codes: HashSet<String> = refusals.into();
    let answering = ["statistics", "replies", "export"].map(|name| format!("src/stats/{name}.rs"));
    for path in ["src/http/reply.rs", "src/front/judge.rs"].into_iter().chain(answering.iter().map(String::as_str)) {
        let text = read(path);
        let calls = text.lines().filter(|line| line.contains("::error("));
        codes.extend(calls.filter_map(|line| Some(line.rsplit_once("\")")?.0.rsplit('"').next()?.to_owned())));
    }
    let no_reply = read("src/exchange/no_reply.rs");
    let chosen = no_reply.lines().filter_map(|line| line.trim().strip_prefix("(50")?.split('"').nth(1));
    codes.extend(chosen.map(str::to_owned));
    for known in ["bad_request", "not_found", "database_unavailable", "upstream_failed", "overloaded", "unauthorized"] {
        assert!(codes.contains(known), "the codes are to be found elsewhere now: {codes:?}");
    }
    let table = read("docs/routes.md");
    let missing: Vec<_> = codes.iter().filter(|code| !table.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_refused_request_ends_its_connection_with_the_documented_code() {
    let (proxy, _holds) = proxy_before_nobody(&[]);
    let check = |request: &str, status: u16, code: &str| {
        let mut client = proxy.connect();
        let reply = client.ask(request);
        check_error(&reply, status, code, "");
        assert_eq!(reply.field("connection"), Some("close"), "{request:?}");
        assert_eq!(client.rest(), b"", "{request:?}");
    };
    let long = "x".repeat(70_000);
    check("GET /v1/models HTTP/1.1\r\n\r\n", 400, "bad_request");
    check("nonsense\r\n\r\n", 400, "bad_request");
    check("GET /v1/../x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "bad_request");
    check("GET / HTTP/2.0\r\n\r\n", 505, "version_not_supported");
    check("CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501, "not_implemented");
    check("POST /v1/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "not_implemented");
    check(&format!("GET /v1/{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"), 414, "target_too_long");
    check(&format!("GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), 431, "headers_too_large");
    check("GET /v1/x HTTP/1.1\r\nHost: localhost\r\nExpect: more\r\n\r\n", 417, "expectation_failed");
    let smuggled = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    check(&format!("POST /v1/x HTTP/1.1\r\nHost: localhost\r\n{smuggled}"), 400, "bad_request");
}

#[test]
fn local_routes_answer_while_every_worker_streams() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "2")]);
    let streams = [(); 2].map(|()| {
        let (mut client, mut link) = asking(&proxy, &upstream);
        link.send(STREAM_HEAD);
        client.through("\r\n\r\n");
        (client, link)
    });
    assert_eq!(proxy.json("/health")["status"], "ok");
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 0);
    assert_eq!(proxy.json("/stats/by-model")["models"].as_array().map(Vec::len), Some(0));
    assert_eq!(proxy.json("/stats/recent?limit=5")["requests"].as_array().map(Vec::len), Some(0));
    assert_eq!(proxy.ask(get("/nothing")).status(), 404);
    for (mut client, mut link) in streams {
        link.send([chunk(DONE), LAST_CHUNK.into()].concat());
        client.through(LAST_CHUNK);
    }
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 2);
}

#[test]
fn no_reply_of_a_local_route_is_lost() {
    // Regression: an event on the socket that came before the statistics' answer had the front read on, and the answer
    // was dropped. Replies that the front gives at once, in between, bring such events about.
    let (proxy, _holds) = proxy_before_nobody(&[]);
    let mut client = proxy.connect();
    for _ in 0..500 {
        assert_eq!(client.ask(get("/health")).status(), 200);
        assert_eq!(client.ask(get("/stats/recent")).status(), 200);
    }
}

#[cfg(not(unix))]
#[test]
fn no_websocket_is_opened_where_none_can_be_relayed() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    check_error(&proxy.ask(opening("/llm")), 501, "websocket_unsupported", "WebSockets");
    assert_eq!(proxy.rows().len(), 0);
}

#[test]
fn a_full_queue_is_a_503_and_who_waits_in_it_is_answered() {
    const QUEUE_LENGTH_MAX: usize = lms_metrics_proxy::limits::QUEUE_LENGTH_MAX;
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let mut first = proxy.connect();
    first.send(streaming_chat());
    let mut link = upstream.accept();
    link.request();
    let mut waiting: Vec<Client> = (0..=QUEUE_LENGTH_MAX).map(|_| proxy.connect()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(post("/v1/x", &number.to_string()));
    }
    // One too many, whichever the front took up last.
    let refused = until("a refusal", || waiting.iter().position(Client::has_reply));
    let refused = waiting.remove(refused).reply();
    for reply in [refused, proxy.ask(post("/v1/x", "y")), proxy.ask(get("/v1/models"))] {
        check_error(&reply, 503, "overloaded", "busy");
        assert_eq!(reply.field("retry-after"), Some("1"));
    }
    // Three are counted, and said once.
    proxy.wait_for_log("refused: the queue is full");
    assert_eq!(proxy.logged_at_least("refused: the queue is full", 1), 1);
    assert!(proxy.ask(get("/metrics")).text().contains("lms_proxy_refusals_total{reason=\"queue_full\"} 3\n"));
    link.send([STREAM_HEAD, &chunk(DONE), LAST_CHUNK].concat());
    first.through(LAST_CHUNK);
    let mut links = vec![link];
    for _ in 0..QUEUE_LENGTH_MAX {
        let link = upstream.asked_on(&mut links);
        let request = link.request();
        link.send(reply("200 OK", "text/plain", request.text()));
    }
    let answered: HashSet<String> = waiting.iter_mut().map(|client| client.reply().text().to_string()).collect();
    assert_eq!(answered.len(), QUEUE_LENGTH_MAX, "each got the answer to its own request");
    assert_eq!(proxy.rows().len(), QUEUE_LENGTH_MAX + 1);
}

#[test]
fn a_connection_that_upstream_closed_meanwhile_is_replaced() {
    // Servers close idle connections whenever they like; the client must not notice.
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let mut client = proxy.connect();
    for number in 0..5 {
        client.send(post("/v1/x", &number.to_string()));
        let mut link = upstream.accept();
        assert_eq!(link.request().text(), number.to_string());
        link.send(reply("200 OK", "text/plain", "Hello"));
        assert_eq!(client.reply().text(), "Hello");
        drop(link);
        // The end of that connection arrives before this answer does, also on a machine that is slow to deliver it.
        proxy.json("/health");
    }
    assert_eq!(proxy.rows().len(), 5);
}

#[test]
fn a_post_whose_connection_breaks_after_it_was_sent_is_not_sent_twice() {
    // Upstream may have begun to generate; whether to try again is the client's decision.
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let (mut client, mut link) = asked(&proxy, &upstream, post("/v1/x", "1"));
    link.send(reply("200 OK", "text/plain", "Hello"));
    client.reply();
    // Over the connection that stayed open.
    client.send(post("/v1/x", "2"));
    assert_eq!(link.request().text(), "2");
    link.finish();
    check_error(&client.reply(), 502, "upstream_failed", "closed the connection");
    client.send(post("/v1/x", "3"));
    assert_eq!(upstream.accept().request().text(), "3");
}

#[test]
fn a_get_whose_connection_breaks_before_its_reply_is_sent_again_once() {
    // It may be repeated (RFC 9110 §9.2.2), and a server that closes an idle connection just then is no failure.
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let (mut client, mut link) = asked(&proxy, &upstream, get("/v1/models"));
    link.send(reply("200 OK", "text/plain", "Hello"));
    client.reply();
    client.send(get("/v1/models"));
    link.request();
    link.finish();
    let mut link = upstream.accept();
    link.request();
    link.finish();
    check_error(&client.reply(), 502, "upstream_failed", "closed the connection");
    assert_eq!(upstream.accepted(), 2);
}

#[test]
fn a_queue_of_clients_who_left_refuses_nobody() {
    const QUEUE_LENGTH_MAX: usize = lms_metrics_proxy::limits::QUEUE_LENGTH_MAX;
    // Whether the one worker waits for upstream, or a stream flows without it.
    for flows in [true, false] {
        let upstream = Upstream::new();
        let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
        let (mut first, mut link) = if flows { streaming(&proxy, &upstream) } else { asking(&proxy, &upstream) };
        for _ in 0..QUEUE_LENGTH_MAX {
            let mut client = proxy.connect();
            client.send(chat());
            client.leave();
        }
        let full = format!("lms_proxy_exchanges_queued {QUEUE_LENGTH_MAX}\n");
        until("a full queue", || proxy.ask(get("/metrics")).text().contains(&full).then_some(()));
        let mut stays = proxy.connect();
        stays.send(chat());
        // Those who left have their rows at once.
        let rows = proxy.wait_for_rows(QUEUE_LENGTH_MAX);
        assert!(rows.iter().all(|row| row.outcome == "client_closed"));
        if !flows {
            link.send(STREAM_HEAD);
        }
        link.send([chunk(DONE), LAST_CHUNK.into()].concat());
        first.through(LAST_CHUNK);
        let mut links = vec![link];
        let link = upstream.asked_on(&mut links);
        link.request();
        link.send(chat_reply());
        assert_eq!(stays.reply().text(), CHAT_REPLY);
    }
}

#[test]
fn bodies_that_together_take_too_much_memory_are_a_503() {
    // Four of the largest size is what all of them may take.
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_BODY_MB", "1")]);
    let part =
        format!("POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(999_999));
    let mut half: Vec<Client> = (0..4).map(|_| proxy.connect()).collect();
    half.iter_mut().for_each(|client| client.send(&part));
    let mut last = proxy.connect();
    last.send(&part);
    // One too many, whichever the front took up last.
    half.push(last);
    let refused = until("a refusal", || half.iter().position(Client::has_reply));
    check_error(&half.remove(refused).reply(), 503, "overloaded", "large requests");
    // Who leaves makes room.
    drop(half);
    let upstream_answers = std::thread::spawn(move || {
        let mut link = upstream.accept();
        for _ in 0..10 {
            link.request();
            link.send(reply("200 OK", "text/plain", "ok"));
        }
    });
    // Body after body is sent on, and none takes room then.
    let mut client = proxy.connect();
    for _ in 0..10 {
        client.send(format!("{part}x"));
        assert_eq!(client.reply().text(), "ok");
    }
    upstream_answers.join().expect("upstream saw ten requests");
}

#[test]
fn what_rows_keep_of_prompts_counts_as_bodies_do_and_what_several_say_once() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_BODY_MB", "1")]);
    let request = |of: &str| {
        let prompt = format!(r#"{{"stream":true,"messages":[{{"content":"{}"}}]}}"#, of.repeat(990_000));
        post("/v1/messages", &prompt)
    };
    let stream = |of: &str| {
        let (mut client, mut link) = asked(&proxy, &upstream, request(of));
        link.send([STREAM_HEAD, &chunk(&event("One"))].concat());
        client.through("One");
        (client, link)
    };
    // Bodies have left, and streams flow.
    let alike: Vec<_> = (0..8).map(|_| stream("a")).collect();
    let others = ["b", "c", "d"].map(stream);
    let mut one_more = proxy.connect();
    one_more.send(request("e"));
    check_error(&one_more.reply(), 503, "overloaded", "large requests");
    // Clients leave before upstream does, and are seen to.
    let (clients, others): (Vec<_>, Vec<_>) = others.into_iter().unzip();
    drop(clients);
    proxy.wait_for_rows(3);
    let more = stream("e");
    let (clients, alike): (Vec<_>, Vec<_>) = alike.into_iter().chain([more]).unzip();
    drop(clients);
    let rows = proxy.wait_for_rows(12);
    drop((others, alike));
    assert_eq!(rows.iter().filter(|row| row.outcome == "client_closed").count(), 12);
}
