//! Requests that are sent before the replies to those before them have come: each is answered, however they were cut
//! into segments and whenever these arrived.

use crate::harness::*;

/// Upstream that tells in its reply's body what it was sent.
fn echoing() -> Upstream {
    Upstream::answering(|link, request| link.send(reply("200 OK", "text/plain", &request.body)))
}

/// A request that stays in the loop that accepts; its body tells which one it is.
fn put(body: &str) -> String {
    post("/v1/x", body).replacen("POST", "PUT", 1)
}

/// A client that waits for its first reply, while `behind` has arrived behind that request and its event was seen.
fn waiting(proxy: &Proxy, upstream: &Upstream, client: &mut Client, first: &str, behind: &str) -> Link {
    client.send(first);
    let mut link = upstream.accept();
    link.request();
    client.send(behind);
    // The same loop has seen what came before this connection.
    assert_eq!(proxy.ask(get("/health")).status(), 200);
    link
}

/// Answers what waits with 1, 2 and 3, and sees that the client has each.
fn answer_three(link: &mut Link, client: &mut Client) {
    for number in ["1", "2", "3"] {
        link.send(reply("200 OK", "text/plain", number));
        assert_eq!(client.reply().text(), number);
        if number != "3" {
            link.request();
        }
    }
}

#[test]
fn a_request_is_read_that_came_while_the_one_before_the_last_was_answered() {
    // The second is used out of what was read with the first; the third is in the socket, and its event is over.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    let mut link = waiting(&proxy, &upstream, &mut client, &[put("1"), put("2")].concat(), &put("3"));
    answer_three(&mut link, &mut client);
}

#[test]
fn a_request_behind_one_that_ends_with_a_full_read_is_read() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    // Large ones first, so that the system takes as much at once.
    client.send(put(&"x".repeat(4 << 20)));
    let mut link = upstream.accept();
    link.request();
    link.send(reply("200 OK", "text/plain", "0"));
    assert_eq!(client.reply().text(), "0");
    let read_bytes = 64 * 1024;
    let head_bytes = put(&"x".repeat(read_bytes)).len() - read_bytes;
    let full = put(&"x".repeat(read_bytes - head_bytes));
    assert!(full.len() <= read_bytes);
    // One byte less where the length has a digit less.
    let full = if full.len() < read_bytes { put(&"x".repeat(2 * read_bytes - head_bytes - full.len())) } else { full };
    assert_eq!(full.len(), read_bytes);
    client.send(put("1"));
    link.request();
    client.send([full, put("3")].concat());
    assert_eq!(proxy.ask(get("/health")).status(), 200);
    answer_three(&mut link, &mut client);
}

#[test]
fn requests_in_segments_of_their_own_are_all_answered() {
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    for round in 0..100 {
        let mut client = proxy.connect();
        let request = |number: usize| post("/v1/x", &format!("{round} {number}"));
        (0..3).for_each(|number| client.send(request(number)));
        for number in 0..3 {
            assert_eq!(client.reply().text(), format!("{round} {number}"));
        }
    }
}

#[test]
fn four_requests_under_way_at_all_times_are_all_answered() {
    // As undici does with `pipelining: 4`.
    let upstream = echoing();
    let proxy = Proxy::before(&upstream);
    for round in 0..20 {
        let mut client = proxy.connect();
        let request = |number: usize| post("/v1/x", &format!("{round} {number}"));
        (0..4).for_each(|number| client.send(request(number)));
        for number in 0..24 {
            assert_eq!(client.reply().text(), format!("{round} {number}"));
            if number + 4 < 24 {
                client.send(request(number + 4));
            }
        }
    }
}
