//! A bug of the proxy's own, which debug builds have where a request asks for one, ends that exchange alone.
#![cfg(debug_assertions)]

use crate::harness::*;

/// An exchange that panics at `place`. Its client sees no whole reply, its row says what happened, and everybody else
/// is served by the only worker there is.
fn check(place: &str, answer: impl Fn(&mut Link) + Send + Sync + 'static, recorded: bool) {
    let upstream =
        Upstream::answering(
            move |link, request| {
                if request.start_line().contains("bug=") { answer(link) } else { link.send(chat_reply()) }
            },
        );
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "1"), ("BUGS_ON_PURPOSE", "1")]);
    let mut steady = proxy.connect();
    for count in 1..=3 {
        let mut client = proxy.connect();
        client.send(streaming_chat().replace(" HTTP/", &format!("?bug={place} HTTP/")));
        assert!(!String::from_utf8_lossy(&client.rest()).ends_with(LAST_CHUNK), "{place}");
        assert_eq!(steady.ask(chat()).text(), CHAT_REPLY, "{place}");
        let rows = proxy.wait_for_rows(2 * count);
        assert_eq!(rows.len(), 2 * count, "{place}: {rows:#?}");
        let failed: Vec<&Row> = rows.iter().filter(|row| row.outcome == "truncated").collect();
        assert_eq!(failed.len(), if recorded { 0 } else { count }, "{place}: {rows:#?}");
        assert!(failed.iter().all(|row| row.is_error && row.total_tokens.is_none() && row.prompt.is_some()));
        assert_eq!(proxy.logged_at_least("on purpose", count), count, "{place}");
        assert_eq!(proxy.logged_at_least("ended by a bug of the proxy", count), count, "{place}");
    }
    assert_eq!(proxy.json("/health")["status"], "ok");
    assert_eq!(proxy.json("/stats/summary")["total_requests"], 6);
    assert_eq!(count_of(&proxy.folder().database(), "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
}

fn whole_stream(link: &mut Link) {
    link.try_send([STREAM_HEAD, &chunk(&event("One")), &chunk(DONE), LAST_CHUNK].concat());
}

#[test]
fn before_upstream_is_asked() {
    check("asking", |_| unreachable!("upstream is not asked"), false);
}

#[test]
fn while_the_reply_is_relayed() {
    check("relaying", whole_stream, false);
}

#[cfg(unix)]
#[test]
fn while_a_stream_flows() {
    // What comes after the first event is relayed by the client's lane.
    let flowing = |link: &mut Link| {
        link.try_send([STREAM_HEAD, &chunk(&event("One"))].concat());
        until("the cut", || (!link.try_send(chunk(&event("more")))).then_some(()));
    };
    check("flowing", flowing, false);
}

#[test]
fn before_the_row_is_made() {
    check("finishing", whole_stream, false);
}

#[test]
fn after_the_row_was_committed_it_is_not_written_twice() {
    // The last chunk does not come with the terminal event, so the row is not waited with.
    let early = |link: &mut Link| {
        link.try_send([STREAM_HEAD, &chunk(&event("One")), &chunk(DONE)].concat());
        link.fin();
    };
    check("relaying", early, true);
}

#[test]
fn nothing_but_the_environment_allows_for_it() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    assert_eq!(proxy.ask(chat().replace(" HTTP/", "?bug=asking HTTP/")).text(), CHAT_REPLY);
    proxy.check_sound();
}
