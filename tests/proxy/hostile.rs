//! Clients that break off, send nothing more, read nothing, or come in great numbers: the others are served, and what
//! it costs is bounded.

use crate::harness::*;

fn answering() -> Upstream {
    Upstream::answering(|link, request| {
        if request.start_line().starts_with("POST") {
            // Whoever asked may have left.
            link.try_send(chat_reply());
        } else {
            link.try_send(reply("200 OK", "application/json", "{}"));
        }
    })
}

fn check_serves(proxy: &Proxy) {
    assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY);
    proxy.check_sound();
}

#[test]
fn a_flood_of_resets_costs_nobody_else_anything() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    let mut steady = proxy.connect();
    let half = &chat()[..100];
    for round in 0..300 {
        let mut client = proxy.connect();
        // A reset while idle, within a head, within a body, or while its request is answered.
        client.send(get("/health"));
        match round % 5 {
            0 => {}
            1 => client.send("POST /v1/chat/comp"),
            2 => client.send(half),
            3 => client.send(chat()),
            _ => client.send(streaming_chat().repeat(5)),
        }
        client.reset();
        if round % 10 == 0 {
            assert_eq!(steady.ask(chat()).text(), CHAT_REPLY);
        }
    }
    check_serves(&proxy);
}

#[test]
fn resets_while_streams_pour_in_leave_a_row_each() {
    const STREAMS: usize = 40;
    let upstream = Upstream::answering(|link, _| {
        link.try_send(STREAM_HEAD);
        let events = chunk(&event("more")).repeat(50);
        while link.try_send(&events) {}
    });
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "8")]);
    for _ in 0..STREAMS {
        let mut client = proxy.connect();
        client.send(streaming_chat());
        client.sip();
        client.reset();
    }
    let rows = proxy.wait_for_rows(STREAMS);
    assert!(rows.len() == STREAMS && rows.iter().all(|row| row.outcome == "client_closed"), "{rows:#?}");
    proxy.check_sound();
}

#[test]
fn requests_in_single_bytes_are_served() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for byte in chat().as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(client.reply().text(), CHAT_REPLY);
    check_serves(&proxy);
}

#[cfg(target_os = "linux")]
#[test]
fn fifteen_hundred_half_requests_cost_no_service_and_little_memory() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    let half = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX: {}\r\nContent-", "x".repeat(1000));
    let mut begun: Vec<Client> = Vec::new();
    for number in 0..1500 {
        let mut client = proxy.connect();
        // Within the request line, within the head, within the body.
        match number % 3 {
            0 => client.send("POST /v1/chat"),
            1 => client.send(&half),
            _ => client.send([&half, "Length: 4000\r\n\r\n", &"y".repeat(2000)].concat()),
        }
        begun.push(client);
    }
    check_serves(&proxy);
    assert!(proxy.resident_kb() < 40_000, "{} KB", proxy.resident_kb());
    // Whoever goes on is answered.
    for client in begun.iter_mut().skip(2).step_by(300) {
        client.send("y".repeat(2000));
        assert_eq!(client.reply().text(), CHAT_REPLY);
    }
    drop(begun);
    until("descriptors", || (proxy.descriptors() < 40).then_some(()));
    check_serves(&proxy);
}

#[cfg(target_os = "linux")]
#[test]
fn a_client_that_reads_nothing_of_a_fast_stream_costs_a_bounded_buffer() {
    const BYTES: usize = 80_000_000;
    let piece = chunk(&event(&"x".repeat(100_000)));
    let pieces = BYTES / piece.len();
    let upstream = Upstream::answering(move |link, _| {
        link.try_send(STREAM_HEAD);
        for _ in 0..pieces {
            if !link.try_send(&piece) {
                return;
            }
        }
        link.try_send([chunk(DONE), LAST_CHUNK.into()].concat());
    });
    let proxy = Proxy::with(&upstream, &[("CONTENT_KB_MAX", "64")]);
    let before_kb = proxy.resident_kb();
    let mut slow = proxy.connect();
    slow.send(streaming_chat());
    for _ in 0..10 {
        slow.sip();
    }
    // Meanwhile the same stream passes whole for somebody who reads, so that there was time to buffer everything.
    assert_eq!(proxy.ask(streaming_chat()).ended, Ended::Whole);
    let after_kb = proxy.resident_kb();
    assert!(after_kb < before_kb + 8_000, "from {before_kb} to {after_kb} KB");
    // What it did not read waits for it.
    assert!(slow.rest_of_chunks() > BYTES - 300_000);
    let rows = proxy.wait_for_rows(2);
    assert!(rows.iter().all(|row| row.outcome == "completed"), "{rows:#?}");
    proxy.check_sound();
}

#[cfg(target_os = "linux")]
#[test]
fn out_of_descriptors_it_waits_for_free_ones_without_spinning() {
    let upstream = answering();
    let url = upstream.url();
    let folder = std::sync::Arc::new(Folder::new());
    let proxy = Proxy::start_after("ulimit -n 64", &folder, &[("LM_STUDIO_URL", &url)]);
    let mut steady = proxy.connect();
    assert_eq!(steady.ask(chat()).text(), CHAT_REPLY);
    for _ in 0..2 {
        let mut many: Vec<Client> = (0..100).map(|_| proxy.connect()).collect();
        until("no free descriptor", || (proxy.descriptors() >= 64).then_some(()));
        // Connections there are go on, as far as they need no new descriptor.
        assert_eq!(steady.ask(get("/health")).status(), 200);
        let ticks = proxy.ticks();
        for client in &mut many {
            client.send(get("/health"));
        }
        // Each closes after its reply, and so each of those that wait has its turn.
        let began = std::time::Instant::now();
        for mut client in many {
            assert_eq!(client.reply().status(), 200);
        }
        let spent = proxy.ticks() - ticks;
        assert!(spent < 20 + began.elapsed().as_millis() as u64 / 50, "{spent} ticks of 10 ms");
        until("free descriptors", || (proxy.descriptors() < 40).then_some(()));
    }
    // Nothing is lost: who connects now is served at once, a generation too.
    assert_eq!(steady.ask(chat()).text(), CHAT_REPLY);
    // Regression: every attempt was a line in the log.
    let said = proxy.logged_at_least("cannot accept", 1);
    assert!(said <= 10, "{said} lines");
    check_serves(&proxy);
}
