//! Where a reply ends, and under which transfer codings it comes: RFC 9112 §6 and §7.1, however upstream writes it, and
//! whether a lane has asked or a worker.

use crate::harness::*;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n";

/// A request that upstream has taken: by a lane, if `is_warm`.
fn asked(request: &str, is_warm: bool) -> (Upstream, Proxy, Client, Link) {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    let mut link = None;
    if is_warm {
        // The next short exchange is the lane's.
        client.send(chat());
        let mut first = upstream.accept();
        first.request();
        first.send(chat_reply());
        client.reply();
        link = Some(first);
    }
    client.send(request);
    let mut link = link.unwrap_or_else(|| upstream.accept());
    link.request();
    (upstream, proxy, client, link)
}

/// What a client gets of upstream's `reply`, after which upstream closes, and what the row says.
fn relayed(request: &str, reply: &[u8], is_warm: bool) -> (Message, Row) {
    let (_upstream, proxy, mut client, mut link) = asked(request, is_warm);
    // The proxy may have had enough.
    if link.try_send(reply) {
        link.fin();
    }
    let message = client.reply();
    let row = proxy.wait_for_rows(1 + usize::from(is_warm)).pop().expect("a row");
    proxy.check_sound();
    (message, row)
}

fn old(request: &str) -> String {
    request.replace(" HTTP/1.1\r\n", " HTTP/1.0\r\n")
}

/// The body that arrives with these transfer codings, whole.
#[track_caller]
fn check_whole(request: &str, reply: &str, codings: &[&str], body: &str) {
    for is_warm in [false, true] {
        let (message, row) = relayed(request, reply.as_bytes(), is_warm);
        let got = (message.status(), message.text(), message.ended);
        assert_eq!(got, (200, body, Ended::Whole), "{reply:.200?}, warm: {is_warm}");
        assert_eq!(message.fields("transfer-encoding"), codings, "{reply:.200?}, warm: {is_warm}");
        assert_eq!((row.outcome.as_str(), row.error_message), ("completed", None), "{reply:.200?}, warm: {is_warm}");
    }
}

/// What arrives of it before it is visibly broken off, and the row's words.
#[track_caller]
fn check_cut(request: &str, reply: &str, body: &str, words: &str) {
    for is_warm in [false, true] {
        let (message, row) = relayed(request, reply.as_bytes(), is_warm);
        let got = (message.status(), message.text(), message.ended);
        assert_eq!(got, (200, body, Ended::Cut), "{reply:.200?}, warm: {is_warm}");
        assert_eq!(row.outcome, "truncated", "{reply:.200?}, warm: {is_warm}");
        let said = row.error_message.unwrap_or_default();
        assert!(said.contains(words), "{reply:.200?}, warm: {is_warm}: {said}");
    }
}

/// A reply that cannot be begun.
#[track_caller]
fn check_refused(request: &str, reply: &str) {
    for is_warm in [false, true] {
        let (message, row) = relayed(request, reply.as_bytes(), is_warm);
        assert_eq!(message.status(), 502, "{reply:.200?}, warm: {is_warm}: {}", message.text());
        assert_eq!(message.json()["error"]["code"], "upstream_failed", "{reply:.200?}, warm: {is_warm}");
        assert_eq!(row.outcome, "upstream_unreachable", "{reply:.200?}, warm: {is_warm}");
    }
}

#[test]
fn a_coding_without_chunks_lasts_until_the_close() {
    check_whole(&chat(), &format!("{HEAD}Transfer-Encoding: gzip\r\n\r\nzipped"), &["gzip, chunked"], "zipped");
    let both = format!("{HEAD}Content-Length: 3\r\nTransfer-Encoding: gzip\r\n\r\nzipped");
    check_whole(&chat(), &both, &["gzip, chunked"], "zipped");
    let unknown = format!("{HEAD}Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\n6\r\nzipped\r\n0\r\n\r\n");
    check_whole(&chat(), &unknown, &["xchunked, chunked"], "6\r\nzipped\r\n0\r\n\r\n");
}

#[test]
fn a_coding_under_chunks_stays_named() {
    let chunks = [chunk("zip"), chunk("ped"), LAST_CHUNK.into()].concat();
    for codings in ["gzip, chunked", "gzip,chunked", "gzip\r\nTransfer-Encoding: chunked", "GZIP, Chunked"] {
        let reply = format!("{HEAD}Transfer-Encoding: {codings}\r\n\r\n{chunks}");
        let named = if codings.starts_with('G') { "GZIP, chunked" } else { "gzip, chunked" };
        check_whole(&chat(), &reply, &[named], "zipped");
    }
    let stream = HEAD.replace("application/octet-stream", "text/event-stream");
    let reply = format!("{stream}Transfer-Encoding: gzip, chunked\r\n\r\n{chunks}");
    check_whole(&streaming_chat(), &reply, &["gzip, chunked"], "zipped");
}

#[test]
fn chunks_under_a_coding_are_not_taken_off() {
    // It ends with the connection, for `chunked` must not be named a second time.
    let chunks = [chunk("not"), LAST_CHUNK.into()].concat();
    for is_warm in [false, true] {
        let (_upstream, proxy, mut client, link) = asked(&chat(), is_warm);
        link.send_and_finish(&format!("{HEAD}Transfer-Encoding: chunked, gzip\r\n\r\n{chunks}"));
        let got = String::from_utf8(client.rest()).expect("text");
        assert!(got.ends_with(&format!("\r\n\r\n{chunks}")), "{got}");
        assert!(got.contains("\r\nTransfer-Encoding: chunked, gzip\r\n") && got.contains("\r\nConnection: close\r\n"));
        assert_eq!(proxy.rows().pop().expect("a row").outcome, "completed");
    }
}

#[test]
fn an_http_1_0_client_gets_no_transfer_coding() {
    let chunks = [chunk("zip"), chunk("ped"), LAST_CHUNK.into()].concat();
    check_refused(&old(&chat()), &format!("{HEAD}Transfer-Encoding: gzip\r\n\r\nzipped"));
    check_refused(&old(&chat()), &format!("{HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n{chunks}"));
    check_whole(&old(&chat()), &format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunks}"), &[], "zipped");
    check_whole(&old(&chat()), &format!("{HEAD}\r\nzipped"), &[], "zipped");
}

#[test]
fn identity_is_no_coding() {
    let reply = format!("{HEAD}Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nHello and more");
    check_whole(&chat(), &reply, &[], "Hello");
}

#[test]
fn chunks_outweigh_a_length_and_their_connection_ends() {
    let chunks = [chunk("Hello"), LAST_CHUNK.into()].concat();
    let both = format!("{HEAD}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    check_whole(&chat(), &both, &["chunked"], "Hello");
    let old_server = format!("{HEAD}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let old_server = old_server.replace("HTTP/1.1", "HTTP/1.0");
    check_whole(&chat(), &old_server, &["chunked"], "Hello");
    for reply in [both, old_server] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let (_client, mut link) = asking(&proxy, &upstream);
        link.send(reply);
        link.wait_for_close();
    }
}

#[test]
fn a_head_that_frames_its_body_in_two_ways_is_a_502() {
    let chunks = [chunk("Hello"), LAST_CHUNK.into()].concat();
    for fields in [
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip, chunked, chunked",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding:",
        "Transfer-Encoding: \"chunked\"",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: x\r\nTransfer-Encoding: chunked",
        "Content-Length: ",
    ] {
        check_refused(&chat(), &format!("{HEAD}{fields}\r\n\r\n{chunks}"));
    }
    check_whole(&chat(), &format!("{HEAD}Content-Length: 5, 5\r\n\r\nHello"), &[], "Hello");
    check_whole(&chat(), &format!("{HEAD}Content-Length: 5\r\nContent-Length: 05\r\n\r\nHello"), &[], "Hello");
}

#[test]
fn good_chunks_before_a_bad_one_arrive_although_both_came_at_once() {
    let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    for bad in
        ["+5\r\nHello\r\n", "5;a\nb\r\nHello\r\n", "5\nHello", "g\r\n", "\r\n", "5\r\nHelloX\r\n", "0x5\r\nHello\r\n"]
    {
        // Of the last but one the data is there before the fault.
        let body = if bad.contains("HelloX") { "One Two Hello" } else { "One Two " };
        let reply = [&head, &chunk("One "), &chunk("Two "), bad].concat();
        check_cut(&chat(), &reply, body, "chunks are malformed");
        check_cut(&old(&chat()), &reply, body, "chunks are malformed");
    }
    let stream = [STREAM_HEAD, &chunk(&event("One")), "+5\r\nHello\r\n"].concat();
    check_cut(&streaming_chat(), &stream, &event("One"), "chunks are malformed");
}

#[test]
fn usage_in_a_chunk_before_a_bad_one_is_counted() {
    let reply = [STREAM_HEAD, &chunk(&event("One")), &chunk(USAGE_EVENT), "+5\r\nHello\r\n"].concat();
    let (_, row) = relayed(&streaming_chat(), reply.as_bytes(), false);
    assert_eq!((row.outcome.as_str(), row.total_tokens), ("truncated", Some(22)));
}

#[test]
fn what_chunks_may_carry_besides_is_skipped() {
    let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    let extension = "x".repeat(8000);
    let chunks =
        format!("5;{extension}\r\nHello\r\n1 ; a=\"b\"\r\n!\r\n0;{extension}\r\nX-Trailer: {extension}\r\n\r\n");
    check_whole(&chat(), &[&head, chunks.as_str()].concat(), &["chunked"], "Hello!");
    check_whole(&chat(), &[&head, "00000000000000000005  \r\nHello\r\n0\r\n\r\n"].concat(), &["chunked"], "Hello");
}

/// `endless` follows a chunk, again and again, until the proxy has had enough.
#[cfg(target_os = "linux")]
fn check_endless(begin: &str, endless: &str, words: &str) {
    const BYTES_MAX: usize = 64 * 1024 * 1024;
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (mut client, mut link) = asking(&proxy, &upstream);
    let before = proxy.resident_kb();
    link.send([STREAM_HEAD, &chunk(&event("One")), begin].concat());
    let more = endless.repeat(16 * 1024 / endless.len());
    let mut sent = 0;
    while link.try_send(&more) {
        sent += more.len();
        assert!(sent < BYTES_MAX, "{begin:?}: nobody minds");
    }
    let reply = client.reply();
    // With the data of a chunk whose end did not come.
    let body = [&event("One"), begin.strip_prefix("5\r\n").unwrap_or("")].concat();
    assert_eq!((reply.text(), reply.ended), (body.as_str(), Ended::Cut), "{begin:?}");
    let row = proxy.wait_for_rows(1).remove(0);
    assert_eq!(row.outcome, "truncated");
    assert!(row.error_message.as_ref().is_some_and(|said| said.contains(words)), "{begin:?}: {:?}", row.error_message);
    let grown = proxy.resident_kb().saturating_sub(before);
    assert!(grown < 8 * 1024, "{begin:?}: {grown} KB");
    proxy.check_sound();
}

#[cfg(target_os = "linux")]
#[test]
fn no_part_of_the_framing_goes_on_for_ever() {
    check_endless("", "0", "size has no end");
    check_endless("5", " ", "size has no end");
    check_endless("5;", "x", "size has no end");
    check_endless("5\r\nHello", "x", "malformed");
    check_endless("0\r\n", "x", "trailer has no end");
    check_endless("0\r\n", "X: y\r\n", "trailer has no end");
}

#[test]
fn interim_replies_and_heads_without_end_are_a_502() {
    for endless in ["HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"] {
        let upstream = Upstream::new();
        let proxy = Proxy::before(&upstream);
        let (mut client, mut link) = asking(&proxy, &upstream);
        let more = endless.repeat(1000);
        let mut rounds = 0;
        while link.try_send(&more) {
            rounds += 1;
            assert!(rounds < 4000, "nobody minds");
        }
        assert_eq!(client.reply().status(), 502);
        assert_eq!(proxy.row().outcome, "upstream_unreachable");
    }
}

#[test]
fn many_interim_replies_are_none_too_many() {
    // 102 says every few seconds that a long silence is no end.
    let interim = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\nX: y\r\n\r\n".repeat(300);
    for is_warm in [false, true] {
        let (message, row) = relayed(&chat(), &[interim.as_bytes(), &chat_reply()].concat(), is_warm);
        assert_eq!((message.text(), row.outcome.as_str()), (CHAT_REPLY, "completed"));
    }
}

#[test]
fn a_connection_serves_on_whatever_its_replies_were() {
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{}{LAST_CHUNK}", chunk("Hello"));
    let replies = [
        format!("{HEAD}Content-Length: 5\r\n\r\nHello"),
        format!("{HEAD}Content-Length: 5, 5\r\n\r\nHello"),
        format!("HTTP/1.1 100 Continue\r\n\r\n{chunked}"),
        chunked.replace(" chunked", " gzip, chunked"),
        chunked.replace("\r\n0\r\n\r\n", "\r\n0\r\nX: y\r\n\r\n"),
        chunked.replace("5\r\n", "5;x\r\n"),
        chunked,
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
    ];
    let answers = replies.clone();
    let upstream = Upstream::answering(move |link, request| {
        let (start, rest) = request.start_line().split_once("/v1/").expect("a path");
        let mut numbers = rest.split([' ', '/']).map_while(|number| number.parse::<usize>().ok());
        let (reply, cut) = (numbers.next().expect("which"), numbers.next().expect("where it is cut"));
        assert_eq!(start == "HEAD ", reply == answers.len() - 1);
        let (begin, rest) = answers[reply].split_at(cut);
        link.send(begin);
        link.send(rest);
    });
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    for (number, reply) in replies.iter().enumerate() {
        let has_body = reply.ends_with("Hello") || reply.ends_with(LAST_CHUNK) || reply.contains("X: y");
        let method = if number == replies.len() - 1 { "HEAD" } else { "GET" };
        for cut in [1, 40.min(reply.len()), reply.len() - 2, reply.len()] {
            let request = get(&format!("/v1/{number}/{cut}")).replace("GET", method);
            // One that carried a stream must first stay open for a moment.
            until("a connection that is used again", || {
                let before = upstream.accepted();
                client.send(&request);
                if has_body {
                    let got = client.reply();
                    assert_eq!((got.text(), got.ended), ("Hello", Ended::Whole), "{reply:?}");
                } else {
                    client.bodiless_reply();
                }
                (upstream.accepted() == before).then_some(())
            });
        }
    }
}
