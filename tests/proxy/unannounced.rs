//! An upstream that closes its connection behind a reply without having announced it: the next request must not go out on
//! it, for a POST is never sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lms_metrics_proxy::limits::UPSTREAM_QUIET_TIME_MIN;

use crate::harness::*;

/// What upstream saw.
#[derive(Default)]
struct Seen {
    posts: AtomicUsize,
    /// Requests on a connection whose end was on its way.
    too_late: AtomicUsize,
    /// Closes that a busy machine held up for longer than any connection waits to be trusted: who asks then is refused.
    held_up: AtomicUsize,
    /// Clients who were.
    refused: AtomicUsize,
}

impl Seen {
    /// The whole reply, or a refusal that a close held up explains.
    fn check(&self, reply: &Message, round: usize) {
        if reply.text() == CHAT_REPLY {
            return;
        }
        let refused = self.refused.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(refused <= self.held_up.load(Ordering::SeqCst), "round {round}: {}", reply.text());
    }

    /// Requests that arrived, and those that did not for such a close.
    fn asked(&self) -> usize {
        self.posts.load(Ordering::SeqCst) + self.refused.load(Ordering::SeqCst)
    }

    fn too_late(&self) -> usize {
        self.too_late.load(Ordering::SeqCst).saturating_sub(self.held_up.load(Ordering::SeqCst))
    }
}

/// When a connection ends behind a reply: at any moment of the first millisecond, another one each time.
fn moments() -> impl Fn() -> Duration {
    let count = AtomicUsize::new(0);
    move || Duration::from_micros((count.fetch_add(1, Ordering::Relaxed) as u64 * 617) % 1000)
}

/// Closes behind streams, or behind every reply.
fn closing_upstream(behind_all: bool) -> (Upstream, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let (count, moment) = (seen.clone(), moments());
    let upstream = Upstream::answering(move |link, request| {
        let is_stream = request.text().contains("\"stream\":true");
        count.posts.fetch_add(usize::from(request.start_line().starts_with("POST")), Ordering::SeqCst);
        if is_stream {
            link.send([STREAM_HEAD, &chunk(&event("One")), &chunk(DONE), LAST_CHUNK].concat());
        } else {
            link.send(chat_reply());
        }
        if is_stream || behind_all {
            let began = Instant::now();
            // This is upstream's own delay, for which nobody waits.
            thread::sleep(moment());
            // Counted before anybody can see it.
            count.held_up.fetch_add(1, Ordering::SeqCst);
            link.fin();
            let in_time = usize::from(began.elapsed() < UPSTREAM_QUIET_TIME_MIN / 2);
            count.held_up.fetch_sub(in_time, Ordering::SeqCst);
            let late = usize::from(link.is_asked_again());
            count.too_late.fetch_add(late, Ordering::SeqCst);
        }
    });
    (upstream, seen)
}

#[test]
fn five_hundred_posts_right_behind_streams_are_all_answered_and_sent_once() {
    const ROUNDS: usize = 500;
    let (upstream, seen) = closing_upstream(false);
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for round in 0..ROUNDS {
        assert_eq!(client.ask(streaming_chat()).status(), 200, "stream {round}");
        seen.check(&client.ask(chat()), round);
    }
    drop(proxy);
    assert_eq!(seen.asked(), 2 * ROUNDS);
    assert_eq!(seen.too_late(), 0);
}

#[test]
fn many_clients_behind_streams_are_all_answered() {
    const ROUNDS: usize = 40;
    const CLIENTS: usize = 8;
    let (upstream, seen) = closing_upstream(false);
    let proxy = Proxy::before(&upstream);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let mut client = proxy.connect();
            let seen = &seen;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    assert_eq!(client.ask(streaming_chat()).status(), 200, "stream {round}");
                    seen.check(&client.ask(chat()), round);
                }
            });
        }
    });
    assert_eq!(seen.asked(), 2 * ROUNDS * CLIENTS);
}

#[test]
fn an_upstream_that_has_closed_behind_a_plain_reply_is_not_trusted_again() {
    const ROUNDS: usize = 300;
    let (upstream, seen) = closing_upstream(true);
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    // Requests that may be repeated find out.
    for _ in 0..5 {
        assert_eq!(client.ask(get("/v1/models")).status(), 200);
    }
    for round in 0..ROUNDS {
        seen.check(&client.ask(chat()), round);
    }
    drop(proxy);
    assert_eq!(seen.asked(), ROUNDS);
    // That of a repeated request at most.
    assert!(seen.too_late() <= 5);
}

#[test]
fn an_upstream_that_keeps_its_connections_serves_short_exchanges_on_one() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for _ in 0..200 {
        assert_eq!(client.ask(chat()).text(), CHAT_REPLY);
    }
    assert_eq!(upstream.accepted(), 1);
}

/// Regression: a fast client left one idle connection behind each request, and an upstream with a thread for each had
/// none left for the next.
#[test]
fn few_idle_connections_wait_for_being_trusted() {
    const ROUNDS: usize = 100;
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (open.clone(), most.clone());
    let upstream = Upstream::answering(move |link, request| {
        if request.start_line().starts_with("GET") {
            link.send(chat_reply());
            return link.fin();
        }
        // Until the next request comes on it, or its end.
        peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        link.send(chat_reply());
        link.wait_for_more();
        now.fetch_sub(1, Ordering::SeqCst);
    });
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    // Requests that may be repeated find out that it closes.
    for _ in 0..5 {
        assert_eq!(client.ask(get("/v1/models")).status(), 200);
    }
    for round in 0..ROUNDS {
        assert_eq!(client.ask(chat()).text(), CHAT_REPLY, "round {round}");
    }
    let most = most.load(Ordering::SeqCst);
    // Those of two places, the one in use, and one whose end has not been read yet.
    assert!(most <= 8, "{most} at once");
}
