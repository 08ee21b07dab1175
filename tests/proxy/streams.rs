//! Streams that do nothing but flow have no worker of their own, and are answered for all the same.

use crate::harness::*;

fn end(client: &mut Client, link: &mut Link) {
    link.send([&chunk(USAGE_EVENT), &chunk(DONE), LAST_CHUNK].concat());
    client.through(LAST_CHUNK);
}

fn gauge(proxy: &Proxy, name: &str) -> u64 {
    let reply = proxy.ask(get("/metrics"));
    let line = reply.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect(name).parse().expect("a number")
}

#[cfg(unix)]
#[test]
fn a_stream_that_flows_holds_no_worker() {
    const STREAMS: usize = 60;
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut streams: Vec<_> = (0..STREAMS).map(|_| streaming(&proxy, &upstream)).collect();
    assert_eq!(gauge(&proxy, "lms_proxy_exchanges_in_flight"), STREAMS as u64);
    // A few more than one, where a stream began before the worker of the last one was back.
    let workers = gauge(&proxy, "lms_proxy_worker_threads");
    assert!(workers < STREAMS as u64 / 2, "{workers} workers for {STREAMS} streams");
    streams.iter_mut().for_each(|(client, link)| end(client, link));
    until("the end of all", || (gauge(&proxy, "lms_proxy_exchanges_in_flight") == 0).then_some(()));
    assert!(proxy.rows().iter().all(|row| row.outcome == "completed" && row.total_tokens == Some(22)));
    assert_eq!(proxy.rows().len(), STREAMS);
}

#[test]
fn a_stream_that_flows_still_counts_against_max_workers() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1")]);
    let (mut first, mut link) = streaming(&proxy, &upstream);
    let mut second = proxy.connect();
    second.send(chat());
    until("the second in the queue", || (gauge(&proxy, "lms_proxy_exchanges_queued") == 1).then_some(()));
    link.send(chunk(&event("Two")));
    first.wait_for("Two");
    assert_eq!(upstream.accepted(), 1);
    end(&mut first, &mut link);
    let mut links = vec![link];
    let link = upstream.asked_on(&mut links);
    assert!(link.request().text().contains("\"Hi\""));
    link.send(chat_reply());
    assert_eq!(second.reply().text(), CHAT_REPLY);
}

#[test]
fn a_client_that_reads_late_gets_every_byte() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "2")]);
    let mut slow = proxy.connect();
    slow.send(streaming_chat());
    let mut filling = upstream.accept();
    filling.request();
    filling.send(STREAM_HEAD);
    let piece = event(&"x".repeat(10_000));
    let sent = filling.send_until_full(&chunk(&piece));
    // Meanwhile another one flows.
    let (mut quick, mut link) = streaming(&proxy, &upstream);
    end(&mut quick, &mut link);
    let rest = std::thread::spawn(move || {
        if sent > 0 {
            filling.send(&chunk(&piece)[sent..]);
        }
        filling.send([&chunk(USAGE_EVENT), &chunk(DONE), LAST_CHUNK].concat());
        (filling, piece)
    });
    let reply = slow.reply();
    let (_, piece) = rest.join().expect("everything was sent");
    let ends = [USAGE_EVENT, DONE].concat();
    let pieces = reply.text().len() / piece.len();
    assert!(pieces > 100, "{pieces} events fill no buffer");
    assert!(reply.text() == piece.repeat(pieces) + &ends, "bytes differ");
    let rows = proxy.wait_for_rows(2);
    assert!(rows.iter().all(|row| row.outcome == "completed" && row.total_tokens == Some(22)), "{rows:#?}");
}

#[test]
fn what_comes_with_the_end_of_the_connection_reaches_the_client() {
    for pieces in [vec![event("Two"), DONE.to_string()], vec![[&event("Two"), DONE].concat()]] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let (mut client, mut link) = asking(&proxy, &upstream);
        link.send([CLOSING_STREAM_HEAD, &event("One")].concat());
        client.through("One");
        for piece in &pieces {
            link.send(piece);
        }
        link.finish();
        client.wait_for(DONE);
        assert_eq!(proxy.wait_for_rows(1)[0].outcome, "completed");
    }
}

#[test]
fn a_terminal_event_without_an_end_is_committed_and_sent() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    link.send([chunk(USAGE_EVENT), chunk(DONE)].concat());
    client.wait_for(DONE);
    assert_eq!(proxy.row().outcome, "completed");
    // Upstream is in no hurry to end it.
    link.send(LAST_CHUNK);
    client.through(LAST_CHUNK);
    assert_eq!(client.ask(get("/health")).status(), 200);
    assert_eq!(proxy.rows().len(), 1);
}

#[test]
fn a_connection_that_carried_a_stream_serves_again_when_it_has_been_quiet() {
    let whole = [STREAM_HEAD, &chunk(&event("One")), &chunk(USAGE_EVENT), &chunk(DONE), LAST_CHUNK].concat();
    let upstream = Upstream::answering(move |link, _| link.send(&whole));
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    // Requests that come before that have others made.
    for _ in 0..3 {
        until("a stream on a connection that was there", || {
            let accepted = upstream.accepted();
            assert_eq!(client.ask(streaming_chat()).text(), [&event("One"), USAGE_EVENT, DONE].concat());
            (upstream.accepted() == accepted).then_some(())
        });
    }
    assert!(proxy.rows().iter().all(|row| row.outcome == "completed"));
}

#[test]
fn a_terminal_event_is_not_held_for_what_only_looks_like_the_end() {
    // Bytes that end as a body in chunks would, in a body without chunks and within a chunk that is not whole.
    let within = format!("{:x}\r\ndata: [DONE]\r\n\r\nid: 10\r\n\r\n", 28);
    let closing = "data: [DONE]\r\n\r\nid: 10\r\n\r\n";
    for (head, body) in [(CLOSING_STREAM_HEAD, closing), (STREAM_HEAD, &within)] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let (mut client, mut link) = asking(&proxy, &upstream);
        link.send([head, body].concat());
        client.wait_for("[DONE]");
        assert_eq!(proxy.rows()[0].outcome, "completed");
    }
}

#[test]
fn a_head_is_not_held_for_a_chunk_that_has_only_begun() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asking(&proxy, &upstream);
    let piece = chunk(&event("One"));
    let (begun, rest) = piece.split_at(1);
    link.send([STREAM_HEAD, begun].concat());
    client.wait_for("\r\n\r\n");
    link.send(rest);
    client.wait_for("One");
    end(&mut client, &mut link);
}
