//! Many at once: each gets its own.

use std::collections::HashSet;

use crate::harness::*;
use crate::record::check_summary_equals_rows;

#[test]
fn three_hundred_streams_at_once_get_their_own_bytes_and_rows() {
    // More than two lanes share.
    const STREAMS: usize = 300;
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut clients: Vec<Client> = (0..STREAMS).map(|_| proxy.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let body = format!(r#"{{"model":"m","stream":true,"stream_options":{{"include_usage":true}},"n":"{number}"}}"#);
        client.send(post("/v1/chat/completions", &body));
    }
    // All of them are under way before any of them ends.
    let mut asked = HashSet::new();
    let mut links: Vec<(Link, String)> = (0..STREAMS)
        .map(|_| {
            let mut link = upstream.accept();
            let number = link.request().json()["n"].as_str().expect("the client sent it").to_string();
            link.send([STREAM_HEAD, &chunk(&event(&format!("begin-{number}.")))].concat());
            assert!(asked.insert(number.clone()), "{number} was sent twice");
            (link, number)
        })
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.wait_for(&format!("begin-{number}."));
    }
    for piece in 0..5 {
        for (link, number) in &mut links {
            link.send(chunk(&event(&format!("{number}-{piece}."))));
        }
    }
    for (link, number) in &mut links {
        let usage = USAGE_EVENT.replace("chatcmpl-1", &format!("id-{number}"));
        link.send([&chunk(&usage), &chunk(DONE), LAST_CHUNK].concat());
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let reply = client.reply();
        let words: String = (0..5).map(|piece| event(&format!("{number}-{piece}."))).collect();
        let usage = USAGE_EVENT.replace("chatcmpl-1", &format!("id-{number}"));
        assert_eq!(reply.text(), [&event(&format!("begin-{number}.")), &words, &usage, DONE].concat());
        assert_eq!(reply.ended, Ended::Whole);
    }
    let rows = proxy.rows();
    assert_eq!(rows.len(), STREAMS);
    assert!(rows.iter().all(|row| row.outcome == "completed" && row.total_tokens == Some(22)));
    let outputs: HashSet<&str> = rows.iter().filter_map(|row| row.output.as_deref()).collect();
    assert_eq!(outputs.len(), STREAMS, "each row has words of its own");
    check_summary_equals_rows(&proxy, &rows);
}

#[test]
fn many_clients_with_many_requests_lose_none_and_get_none_twice() {
    const CLIENTS: usize = 16;
    const REQUESTS: usize = 25;
    let upstream = Upstream::answering(|link, request| {
        let answer = CHAT_REPLY.replace("chatcmpl-1", request.text());
        link.send(reply("200 OK", "application/json", answer));
    });
    let proxy = Proxy::with(&upstream, &[("MAX_WORKERS", "6")]);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut connection = proxy.connect();
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    let id = format!("{client}-{request}");
                    assert_eq!(connection.ask(post("/v1/chat/completions", &id)).json()["id"], id.as_str());
                }
            });
        }
    });
    let rows = proxy.rows();
    let ids: HashSet<&str> = rows.iter().filter_map(|row| row.request_id.as_deref()).collect();
    assert_eq!((rows.len(), ids.len()), (CLIENTS * REQUESTS, CLIENTS * REQUESTS));
    check_summary_equals_rows(&proxy, &rows);
}
