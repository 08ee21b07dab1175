//! A client that leaves stops the generation, and its row says that it left.

use crate::harness::*;

#[test]
fn while_upstream_is_silent_before_its_reply() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    client.send(chat());
    let mut link = upstream.accept();
    link.request();
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
    let (mut first, mut link) = streaming(&proxy, &upstream);
    let mut second = proxy.connect();
    second.send(chat());
    // The front has seen what came before this, for it takes what is ready in order.
    proxy.json("/health");
    second.leave();
    proxy.json("/health");
    link.send([chunk(DONE), LAST_CHUNK.into()].concat());
    first.through(LAST_CHUNK);
    let rows = proxy.wait_for_rows(2);
    let outcomes: Vec<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
    assert_eq!(outcomes, ["completed", "client_closed"]);
    // The next request is the next that upstream gets.
    let mut third = proxy.connect();
    third.send(post("/v1/third", ""));
    assert!(link.request().start_line().contains("third"));
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
