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

// ---- replies without framing: nothing but a reset tells that one is not whole ---------------------------------------

/// The same request in HTTP/1.0, as nginx asks its upstreams by default.
fn old(request: &str) -> String {
    request.replace(" HTTP/1.1\r\n", " HTTP/1.0\r\n")
}

/// A stream for an HTTP/1.0 client, of which the client has seen one event.
fn old_stream(proxy: &Proxy, upstream: &Upstream, head: &str, event: &str) -> (Client, Link) {
    let (mut client, mut link) = asked(proxy, upstream, old(&streaming_chat()));
    link.send([head, event].concat());
    client.wait_for("\n\n");
    (client, link)
}

#[test]
fn an_http_1_0_client_sees_it_by_a_reset() {
    let one = event("One");
    for (head, event) in [(STREAM_HEAD, chunk(&one)), (CLOSING_STREAM_HEAD, one.clone())] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let (mut client, mut link) = old_stream(&proxy, &upstream, head, &event);
        link.fin();
        let reply = client.reply();
        assert_eq!((reply.text(), reply.ended), (one.as_str(), Ended::Cut), "{head}");
        assert_eq!(reply.fields("transfer-encoding"), [""; 0]);
        assert_eq!(proxy.row().outcome, "truncated", "{head}");
        proxy.check_sound();
    }
}

#[test]
fn an_http_1_0_client_sees_a_whole_reply_end_in_good_order() {
    let events = [event("One").as_str(), DONE].concat();
    for reply in [[STREAM_HEAD, &chunk(&events), LAST_CHUNK].concat(), [CLOSING_STREAM_HEAD, &events].concat()] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let (mut client, link) = asked(&proxy, &upstream, old(&streaming_chat()));
        link.send_and_finish(&reply);
        let got = client.reply();
        assert_eq!((got.text(), got.ended), (events.as_str(), Ended::Whole), "{reply}");
        assert_eq!(proxy.row().outcome, "completed");
    }
}

// Other systems tell nobody when all is sent.
#[cfg(target_os = "linux")]
#[test]
fn what_was_relayed_before_a_reset_is_not_lost() {
    // More than a client receives unread, and less than the proxy's system takes to send: a reset at once would throw the
    // difference away.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = old_stream(&proxy, &upstream, CLOSING_STREAM_HEAD, &event("One"));
    let much = format!("data: {}\n\n", "x".repeat(1000)).repeat(400);
    link.send(&much);
    link.fin();
    assert_eq!(proxy.wait_for_rows(1)[0].outcome, "truncated");
    let reply = client.reply();
    assert_eq!((reply.body.len(), reply.ended), (event("One").len() + much.len(), Ended::Cut));
}

#[cfg(unix)]
#[test]
fn a_killed_proxy_resets_what_it_could_not_finish() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, _link) = old_stream(&proxy, &upstream, STREAM_HEAD, &chunk(&event("One")));
    proxy.kill();
    assert_eq!(client.reply().ended, Ended::Cut);
}

#[cfg(unix)]
#[test]
fn a_stop_resets_what_outlasts_the_grace() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::with(&upstream, &[("SHUTDOWN_GRACE_S", "1")]);
    let (mut client, _link) = old_stream(&proxy, &upstream, STREAM_HEAD, &chunk(&event("One")));
    proxy.signal("TERM");
    let reply = client.reply();
    assert_eq!((reply.text(), reply.ended), (event("One").as_str(), Ended::Cut));
    proxy.wait();
    assert_eq!(proxy.rows()[0].outcome, "shutdown");
}

#[cfg(debug_assertions)]
#[test]
fn a_bug_resets_it_too() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("BUGS_ON_PURPOSE", "1")]);
    for (count, place) in ["flowing", "relaying", "finishing"].into_iter().enumerate() {
        let (mut client, mut link) =
            asked(&proxy, &upstream, old(&streaming_chat()).replace(" HTTP/", &format!("?bug={place} HTTP/")));
        link.send([CLOSING_STREAM_HEAD, &event("One")].concat());
        client.wait_for("\r\n\r\n");
        link.try_send(event("Two"));
        // The proxy may have cut it already.
        drop(link);
        assert_eq!(client.reply().ended, Ended::Cut, "{place}");
        assert_eq!(proxy.wait_for_rows(count + 1)[count].outcome, "truncated", "{place}");
    }
}
