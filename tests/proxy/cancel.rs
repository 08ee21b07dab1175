//! A client that leaves stops the generation, and its row says that it left.

use crate::harness::*;

#[test]
fn while_upstream_is_silent_before_its_reply() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (client, mut link) = asked(&proxy, &upstream, chat());
    client.leave();
    link.wait_for_close();
    let row = proxy.wait_for_rows(1).remove(0);
    assert_eq!((row.outcome.as_str(), row.is_error, row.http_status), ("client_closed", false, None));
    assert_eq!((row.input_tokens, row.output_tokens), (None, None));
    let summary = proxy.json("/stats/summary");
    let figures = ["total_requests", "cancelled_requests", "failed_requests", "successful_requests"];
    assert_eq!(figures.map(|name| summary[name].as_i64().expect("a number")), [1, 1, 0, 0]);
}

#[test]
fn while_upstream_is_silent_between_events() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (client, mut link) = streaming(&proxy, &upstream);
    client.leave();
    link.wait_for_close();
    let row = proxy.wait_for_rows(1).remove(0);
    assert_eq!((row.outcome.as_str(), row.is_error, row.http_status), ("client_closed", false, Some(200)));
    assert_eq!(row.output.as_deref(), Some("One"));
}

#[test]
fn while_events_pour_in() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (client, mut link) = streaming(&proxy, &upstream);
    client.leave();
    until("the close", || (!link.try_send(chunk(&event("more")))).then_some(()));
    assert_eq!(proxy.wait_for_rows(1)[0].outcome, "client_closed");
}

#[test]
fn with_a_stalled_reading_side() {
    // The client reads nothing any more: the worker waits for it, not for upstream, and still hears that it left.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (client, mut link) = streaming(&proxy, &upstream);
    link.send_until_full(&chunk(&event(&"x".repeat(10_000))));
    client.leave();
    link.wait_for_close();
    assert_eq!(proxy.wait_for_rows(1)[0].outcome, "client_closed");
}

#[test]
fn by_closing_only_its_sending_side() {
    // nginx takes that for leaving, too (499): a generation must not go on for nobody.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    client.half_close();
    link.wait_for_close();
    assert_eq!(proxy.wait_for_rows(1)[0].outcome, "client_closed");
}

#[test]
fn a_half_closed_client_gets_what_is_no_generation() {
    // `printf 'GET …' | nc` closes its sending side and waits.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(get("/v1/models"));
    client.half_close();
    let mut link = upstream.accept();
    link.request();
    link.send(reply("200 OK", "application/json", "{}"));
    assert_eq!(client.reply().text(), "{}");
}

#[test]
fn leaving_after_the_terminal_event_is_no_cancelling() {
    // SDK clients stop reading at `[DONE]` and close.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    link.send([chunk(USAGE_EVENT), chunk(DONE)].concat());
    client.through("[DONE]");
    client.leave();
    link.wait_for_close();
    let row = proxy.row();
    assert_eq!((row.outcome.as_str(), row.total_tokens), ("completed", Some(22)));
}

#[test]
fn while_waiting_for_a_worker() {
    // Upstream never hears of a request whose client left before its turn.
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let mut beside = beside_streams(&proxy, &upstream);
    let (mut first, mut link) = streaming(&proxy, &upstream);
    let mut second = proxy.connect();
    second.send(chat());
    // The accepting loop has moved it to its lane when this is answered, and the lane has it in the queue then.
    proxy.json("/health");
    beside.ask(get("/health"));
    second.leave();
    // On a busy machine the system may bring another processor's packets first: some more round trips let this one come.
    (0..10).for_each(|_| drop(beside.ask(get("/health"))));
    link.send([chunk(DONE), LAST_CHUNK.into()].concat());
    first.through(LAST_CHUNK);
    let rows = proxy.wait_for_rows(2);
    let outcomes: Vec<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
    assert_eq!(outcomes, ["completed", "client_closed"]);
    // The next request is the next that upstream gets.
    let mut third = proxy.connect();
    third.send(post("/v1/third", ""));
    assert!(upstream.asked_on(&mut vec![link]).request().start_line().contains("third"));
}

#[test]
fn the_others_go_on() {
    // Calling one exchange off touches no other, on the same worker or another.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut stays, mut stays_link) = streaming(&proxy, &upstream);
    for _ in 0..20 {
        let (leaves, mut link) = streaming(&proxy, &upstream);
        leaves.leave();
        link.wait_for_close();
    }
    stays_link.send([chunk(DONE), LAST_CHUNK.into()].concat());
    stays.through(LAST_CHUNK);
    let rows = proxy.wait_for_rows(21);
    let count = |outcome: &str| rows.iter().filter(|row| row.outcome == outcome).count();
    assert_eq!((count("completed"), count("client_closed")), (1, 20));
}

#[cfg(unix)]
#[test]
fn right_behind_its_request() {
    // Request and end are there at once, and no event of its own tells of the end. A body that takes several turns to
    // read is no different.
    let leave = |client: Client| client.leave();
    let half_close = |mut client: Client| {
        client.half_close();
        client.rest();
    };
    for body in ["{}".to_string(), format!("{{\"x\":\"{}\"}}", "x".repeat(3_000_000))] {
        for go in [leave as fn(Client), half_close] {
            let upstream = Upstream::new();
            let proxy = Proxy::before(&upstream);
            let mut client = proxy.connect();
            let request = post("/v1/chat/completions", &body);
            if body.len() < 100 {
                proxy.halt();
                client.send(request);
                let gone = std::thread::spawn(move || go(client));
                // What the client sent has arrived when this one's connection is there.
                let _later = proxy.connect();
                proxy.signal("CONT");
                gone.join().expect("it only reads");
            } else {
                client.send(request);
                go(client);
            }
            assert_eq!(proxy.wait_for_rows(1)[0].outcome, "client_closed");
        }
    }
}

/// A port that takes no more connections: whoever connects waits.
#[cfg(target_os = "linux")]
fn full_port() -> (std::net::TcpListener, Vec<std::net::TcpStream>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let mut waiting = Vec::new();
    let patience = std::time::Duration::from_millis(300);
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, patience) {
        waiting.push(stream);
        assert!(waiting.len() < 10_000, "the port takes everybody");
    }
    (listener, waiting)
}

#[cfg(target_os = "linux")]
#[test]
fn while_upstream_is_being_connected_to() {
    let (listener, _waiting) = full_port();
    let url = format!("http://{}", listener.local_addr().expect("a bound socket"));
    let settings = [("LM_STUDIO_URL", url.as_str()), ("UPSTREAM_CONNECT_TIMEOUT_S", "600"), ("SHUTDOWN_GRACE_S", "0")];
    let mut proxy = Proxy::start(&std::sync::Arc::new(Folder::new()), &settings);
    let mut client = proxy.connect();
    client.send(chat());
    let in_flight = || proxy.ask(get("/metrics")).text().contains("lms_proxy_exchanges_in_flight 1");
    until("the request to be in flight", || in_flight().then_some(()));
    client.leave();
    assert_eq!(proxy.wait_for_rows(1)[0].outcome, "client_closed");
    // A stop does not wait for a connection either.
    let mut other = proxy.connect();
    other.send(chat());
    let in_flight = || proxy.ask(get("/metrics")).text().contains("lms_proxy_exchanges_in_flight 1");
    until("the request to be in flight", || in_flight().then_some(()));
    proxy.signal("TERM");
    assert_eq!(other.reply().status(), 503);
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.rows()[1].outcome, "shutdown");
}

// ---- after the finish_reason -------------------------------------------------------------------------------------

const FINISH: &str = "data: {\"id\":\"chatcmpl-1\",\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

/// A client that leaves at the finish_reason, of a stream that flows; what upstream sends then, and how it goes on.
fn leaves_at_finish(then: impl FnOnce(&mut Link)) -> Row {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut beside = beside_streams(&proxy, &upstream);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    link.send(chunk(FINISH));
    client.through("\"stop\"");
    client.leave();
    // The lane has seen that when it answers this.
    beside.ask(get("/health"));
    then(&mut link);
    let rows = proxy.wait_for_rows(1);
    // Whatever follows corrects that row, and adds none.
    beside.ask(get("/health"));
    assert_eq!(rows.len(), 1);
    rows[0].clone()
}

#[test]
fn with_its_whole_answer_the_counts_are_waited_for() {
    let row = leaves_at_finish(|link| {
        link.send(chunk(USAGE_EVENT));
        link.send([&chunk(DONE), LAST_CHUNK].concat());
    });
    assert_eq!((row.outcome.as_str(), row.is_error, row.total_tokens), ("completed", false, Some(22)));
    assert_eq!(row.output.as_deref(), Some("One"));
}

#[test]
fn with_its_whole_answer_silence_is_not_waited_for_long() {
    // Nothing comes: upstream is let go all the same.
    let row = leaves_at_finish(|link| link.wait_for_close());
    assert_eq!((row.outcome.as_str(), row.total_tokens), ("completed", None));
}

#[test]
fn with_its_whole_answer_upstream_may_die() {
    let row = leaves_at_finish(|link| {
        link.send(chunk(USAGE_EVENT));
        link.fin();
    });
    assert_eq!((row.outcome.as_str(), row.total_tokens), ("completed", Some(22)));
}

#[test]
fn with_the_answer_of_one_choice_of_two() {
    // The other choice is being generated: leaving stops that.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    link.send(chunk(&event("One").replace("\"index\":0", "\"index\":1")));
    link.send(chunk(FINISH));
    client.through("\"stop\"");
    client.leave();
    link.wait_for_close();
    assert_eq!(proxy.wait_for_rows(1)[0].outcome, "client_closed");
}

#[test]
fn with_one_choice_before_the_other_has_begun() {
    // The request tells that there will be another.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) =
        asked(&proxy, &upstream, post("/v1/chat/completions", r#"{"model":"m","stream":true,"n":2,"messages":[]}"#));
    link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(FINISH)].concat());
    client.through("\"stop\"");
    client.leave();
    link.wait_for_close();
    assert_eq!(proxy.wait_for_rows(1)[0].outcome, "client_closed");
}

#[cfg(unix)]
#[test]
fn with_its_whole_answer_a_stop_ends_it() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::with(&upstream, &[("SHUTDOWN_GRACE_S", "0")]);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    link.send(chunk(FINISH));
    client.through("\"stop\"");
    client.leave();
    proxy.signal("TERM");
    link.wait_for_close();
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.rows()[0].outcome, "completed");
}

#[test]
fn behind_the_status_of_a_failure() {
    // What was asked for had failed before, whoever waits for the words.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asking(&proxy, &upstream);
    link.send("HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n");
    client.through("404 Not Found\r\n");
    client.leave();
    link.wait_for_close();
    let row = proxy.wait_for_rows(1).remove(0);
    assert_eq!((row.outcome.as_str(), row.is_error, row.http_status), ("upstream_error", true, Some(404)));
}
