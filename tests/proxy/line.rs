//! The line for a status bar, of exchanges that the test holds in its hands.

#[cfg(unix)]
use std::fs;

use crate::harness::*;

#[test]
fn the_line_tells_what_goes_on_and_what_today_came_to() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let text = || proxy.ask(get("/stats/line")).text().to_owned();
    assert_eq!(text(), "⏸ idle · today 0 tokens\n");
    let (mut client, mut link) = asking(&proxy, &upstream);
    assert!(text().starts_with("▶ m waiting "), "{}", text());
    link.send(chat_reply());
    client.reply();
    until("its end", || (text() == "⏸ idle · today 22 tokens\n").then_some(()));
}

#[test]
fn it_is_json_to_who_asks_for_that() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let accept = |path: &str, accept: &str| {
        proxy.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"))
    };
    let expected =
        r#"{"text":"⏸ idle · today 0 tokens","tooltip":"today: 0 requests, 0 failed, 0 tokens","class":"idle"}"#;
    for (path, types) in [("/stats/line", "application/json"), ("/stats/line?format=json", "*/*")] {
        let reply = accept(path, types);
        assert_eq!((reply.text().trim_end(), reply.field("content-type")), (expected, Some("application/json")));
    }
    let plain = accept("/stats/line?format=text", "application/json");
    assert_eq!(plain.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(proxy.ask(get("/stats/line?format=xml")).status(), 400);
}

#[test]
#[cfg(unix)]
fn it_is_told_without_today_while_the_database_cannot_be_read() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("DATABASE_URL", "sqlite:./disk/metrics.db")]);
    let folder = proxy.folder().path().join("disk");
    fs::remove_dir_all(&folder).expect("removed");
    // Nothing can be made where a file is.
    fs::write(&folder, "").expect("written");
    let reply = proxy.ask(get("/stats/line"));
    assert_eq!((reply.status(), reply.text()), (200, "⏸ idle\n"));
}
