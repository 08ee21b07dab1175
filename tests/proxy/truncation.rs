//! A reply that upstream did not finish does not look finished to the client, and its row says so.

use crate::harness::*;

/// How upstream dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    Fin,
    Reset,
}

/// Upstream sends `part` of a reply, whose body's last words so far are `seen`, and dies when they have arrived.
fn check(part: &str, seen: &str) {
    for death in [Death::Fin, Death::Reset] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let mut client = proxy.connect();
        client.send(streaming_chat());
        let mut link = upstream.accept();
        link.request_head_alone();
        link.send(part);
        client.wait_for(seen);
        match death {
            Death::Fin => link.fin(),
            Death::Reset => link.reset(),
        }
        let reply = client.reply();
        assert_eq!((reply.status(), reply.ended), (200, Ended::Cut), "{death:?}");
        // Whatever had arrived, the client has.
        assert!(reply.text().ends_with(seen), "{death:?}: {}", reply.text());
        let row = proxy.row();
        assert_eq!((row.outcome.as_str(), row.is_error, row.http_status), ("truncated", true, Some(200)), "{death:?}");
        assert_ne!(row.error_message, None);
        let summary = proxy.json("/stats/summary");
        assert_eq!((&summary["failed_requests"], &summary["successful_requests"]), (&1.into(), &0.into()));
    }
}

#[test]
fn within_a_length() {
    check("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"id\":\"half", "half");
}

#[test]
fn within_a_chunk() {
    check(&format!("{STREAM_HEAD}{}1000\r\ndata: half", chunk(&event("One"))), "half");
}

#[test]
fn between_chunks() {
    check(&format!("{STREAM_HEAD}{}", chunk(&event("One"))), "\n\n");
}

#[test]
fn within_the_size_of_a_chunk() {
    check(&format!("{STREAM_HEAD}{}1", chunk(&event("One"))), "\n\n");
}

#[test]
fn in_a_stream_that_ends_with_the_connection_before_its_terminal_event() {
    check(&format!("{CLOSING_STREAM_HEAD}{}", event("One")), "\n\n");
}

#[test]
fn before_the_terminal_event_of_a_stream_whose_chunks_are_whole() {
    // The framing is whole, so the client gets it whole; the words are not, and the row says so.
    let upstream = Upstream::answering(|link, _| {
        link.send([STREAM_HEAD, &chunk(&event("One")), LAST_CHUNK].concat());
    });
    let proxy = Proxy::before(&upstream);
    let reply = proxy.ask(streaming_chat());
    assert_eq!((reply.text(), reply.ended), (event("One").as_str(), Ended::Whole));
    assert_eq!(proxy.row().outcome, "truncated");
}

#[test]
fn after_the_terminal_event_nothing_is_missing() {
    // The row counts as complete, for clients stop reading there; the framing that is missing stays missing.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asking(&proxy, &upstream);
    link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(USAGE_EVENT), &chunk(DONE)].concat());
    client.wait_for(DONE);
    link.fin();
    assert_eq!(client.reply().ended, Ended::Cut);
    let row = proxy.row();
    assert_eq!((row.outcome.as_str(), row.total_tokens), ("completed", Some(22)));
}

#[test]
fn a_stream_that_ends_with_the_connection_after_its_terminal_event_is_whole() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asking(&proxy, &upstream);
    link.send([CLOSING_STREAM_HEAD, &event("One"), DONE].concat());
    link.fin();
    assert_eq!(client.reply().ended, Ended::Whole);
    assert_eq!(proxy.row().outcome, "completed");
}
