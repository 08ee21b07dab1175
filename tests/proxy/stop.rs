//! Told to stop, the proxy finishes what runs; it says so, and it never hangs.
#![cfg(unix)]

use std::net::TcpStream;

use crate::harness::*;

#[test]
fn an_idle_proxy_ends_at_once_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
        let mut proxy = Proxy::before(&upstream);
        let mut idle = proxy.connect();
        idle.ask(chat());
        proxy.signal(signal);
        assert_eq!(proxy.wait().code(), Some(0), "{signal}");
        assert_eq!(idle.rest(), b"");
        proxy.wait_for_log("stopped");
        assert_eq!(proxy.row().outcome, "completed");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_goes_does_not_end_it_where_that_is_ignored_as_nohup_has_it() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let (folder, url) = (std::sync::Arc::new(Folder::new()), upstream.url());
    let mut proxy = Proxy::start_after("trap '' HUP", &folder, &[("LM_STUDIO_URL", &url)]);
    proxy.signal("HUP");
    // Held back for good: it would have been handled by now.
    let pending = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id())).expect("it runs");
        status.lines().any(|line| line.starts_with("ShdPnd:") && line.ends_with('1')).then_some(())
    };
    until("the signal", pending);
    assert_eq!(proxy.ask(chat()).status(), 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn a_stopped_proxy_leaves_a_database_of_one_file() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let mut proxy = Proxy::before(&upstream);
    proxy.ask(chat());
    // Statistics, an export and a listener have the database open, too.
    proxy.json("/stats/summary");
    proxy.ask(get("/stats/export"));
    let mut listener = proxy.connect();
    listener.send(get("/stats/live"));
    listener.through("\r\n\r\n");
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.folder().names(), ["metrics.db"]);
    assert_eq!(proxy.rows().len(), 1);
}

#[test]
fn a_running_stream_is_finished_and_new_connections_are_refused() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::before(&upstream);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    proxy.signal("TERM");
    until("the port to be free", || TcpStream::connect(proxy.address()).is_err().then_some(()));
    link.send([chunk(&event("two")), chunk(USAGE_EVENT), chunk(DONE), LAST_CHUNK.into()].concat());
    assert!(client.through(LAST_CHUNK).contains("two"));
    assert_eq!(client.rest(), b"");
    assert_eq!(proxy.wait().code(), Some(0));
    let row = proxy.row();
    assert_eq!((row.outcome.as_str(), row.total_tokens), ("completed", Some(22)));
}

#[test]
fn a_request_that_has_arrived_in_part_is_answered_when_it_is_whole() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let mut proxy = Proxy::before(&upstream);
    let request = chat();
    let (begin, rest) = request.split_at(request.len() - 5);
    let mut client = proxy.connect();
    client.send(begin);
    // The front has read what came before this answer was asked for, or finds it when it is told to stop.
    proxy.json("/health");
    proxy.signal("TERM");
    proxy.wait_for_log("told to stop");
    until("the port to be free", || TcpStream::connect(proxy.address()).is_err().then_some(()));
    client.send(rest);
    let reply = client.reply();
    assert_eq!((reply.text(), reply.field("connection")), (CHAT_REPLY, Some("close")));
    client.leave();
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.row().outcome, "completed");
}

#[test]
fn a_second_signal_ends_at_once() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::before(&upstream);
    let (mut client, _link) = streaming(&proxy, &upstream);
    proxy.signal("TERM");
    proxy.wait_for_log("told to stop");
    assert_eq!(proxy.signal_until_it_ends("TERM").code(), Some(1));
    assert!(!client.rest().ends_with(LAST_CHUNK.as_bytes()));
}

#[test]
fn two_signals_at_once_are_one() {
    // As `timeout` of GNU sends them: to the process, and to its group.
    let upstream = Upstream::new();
    let mut proxy = Proxy::with(&upstream, &[("RUST_LOG", "debug")]);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    let both = format!("kill -INT {0}; kill -INT {0}", proxy.id());
    assert!(std::process::Command::new("sh").args(["-c", &both]).status().expect("there is a shell").success());
    proxy.wait_for_log("told to stop");
    link.send([chunk(USAGE_EVENT), chunk(DONE), LAST_CHUNK.into()].concat());
    client.through(LAST_CHUNK);
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.row().outcome, "completed");
}

#[test]
fn what_outlasts_the_grace_is_cut_and_its_row_says_so() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::with(&upstream, &[("SHUTDOWN_GRACE_S", "1")]);
    let (mut client, mut link) = streaming(&proxy, &upstream);
    let mut silent = proxy.connect();
    silent.send(chat());
    let mut silent_link = upstream.accept();
    silent_link.request();
    proxy.signal("TERM");
    // Upstream is told, the client sees a cut reply or none, and both rows are there.
    link.wait_for_close();
    silent_link.wait_for_close();
    assert!(!client.rest().ends_with(LAST_CHUNK.as_bytes()));
    assert!(!String::from_utf8_lossy(&silent.rest()).contains("HTTP/1.1 200"));
    assert_eq!(proxy.wait().code(), Some(0));
    let rows = proxy.rows();
    assert!(rows.len() == 2 && rows.iter().all(|row| row.outcome == "shutdown" && row.is_error), "{rows:#?}");
}

/// Regression: only a client that read too slowly had it end.
#[test]
fn an_export_that_outlasts_the_grace_is_cut() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let mut proxy = Proxy::with(&upstream, &[("SHUTDOWN_GRACE_S", "1")]);
    (0..2).for_each(|_| assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY));
    // Looked through a thousand ids at a time it has no end, and it writes nothing that could wait.
    let database = rusqlite::Connection::open(proxy.folder().database()).expect("a database");
    database.execute("UPDATE requests SET id = 1000000000000 WHERE id = 2", []).expect("a row");
    drop(database);
    let mut client = proxy.connect();
    client.send(get("/stats/export?format=jsonl"));
    client.through("\"id\":1,");
    proxy.signal("TERM");
    assert!(!client.rest().ends_with(LAST_CHUNK.as_bytes()));
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn rows_that_wait_for_the_database_are_written_before_the_end() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let mut proxy = Proxy::before(&upstream);
    let lock = rusqlite::Connection::open(proxy.folder().database()).expect("a database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("nobody else writes now");
    proxy.ask(chat());
    proxy.signal("TERM");
    proxy.wait_for_log("told to stop");
    lock.execute_batch("COMMIT").expect("an open transaction");
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.row().outcome, "completed");
}

/// Regression: they were lost without a word.
#[test]
fn an_end_at_once_keeps_the_rows_that_wait_and_says_so() {
    let upstream = Upstream::answering(|link, request| {
        if !request.text().contains("\"stream\":true") {
            link.send(chat_reply());
        }
    });
    let mut proxy = Proxy::before(&upstream);
    let lock = rusqlite::Connection::open(proxy.folder().database()).expect("a database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("nobody else writes now");
    (0..3).for_each(|_| assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY));
    let mut endless = proxy.connect();
    endless.send(streaming_chat());
    assert_eq!(proxy.signal_until_it_ends("TERM").code(), Some(1));
    proxy.wait_for_log("3 rows that the database did not take are kept");
    lock.execute_batch("COMMIT").expect("an open transaction");
    let url = upstream.url();
    let proxy = Proxy::start(&proxy.folder().clone(), &[("LM_STUDIO_URL", &url)]);
    assert_eq!(proxy.wait_for_rows(3).len(), 3);
}

#[test]
fn a_stop_under_load_loses_no_row() {
    // Half of the streams end within the grace, half outlast it; beside them short requests come and go.
    const STREAMS: usize = 40;
    let upstream = Upstream::new();
    let mut proxy = Proxy::with(&upstream, &[("SHUTDOWN_GRACE_S", "3")]);
    let streams: Vec<(Client, Link)> = (0..STREAMS).map(|_| streaming(&proxy, &upstream)).collect();
    let short = Upstream::answering(|link, _| {
        link.try_send(chat_reply());
    });
    let mut hammered = Proxy::with(&short, &[]);
    let address = hammered.address();
    let (seen, sent) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    let (mut seen, mut sent) = (0, 0);
                    loop {
                        sent += 1;
                        match client.try_ask(chat()) {
                            Some(reply) if reply.status() == 200 && reply.ended == Ended::Whole => seen += 1,
                            _ => return (seen, sent),
                        }
                    }
                })
            })
            .collect();
        hammered.wait_for_rows(200);
        hammered.signal("TERM");
        let counts = clients.into_iter().map(|client| client.join().expect("no client panics"));
        counts.fold((0, 0), |(seen, sent), (s, t)| (seen + s, sent + t))
    });
    assert_eq!(hammered.wait().code(), Some(0));
    let rows = hammered.rows().len();
    assert!((seen..=sent).contains(&rows), "{rows} rows of {seen} replies seen and {sent} requests sent");
    assert_eq!(hammered.logged("bug"), 0);

    proxy.signal("TERM");
    proxy.wait_for_log("told to stop");
    let mut outlast = Vec::new();
    for (number, (mut client, mut link)) in streams.into_iter().enumerate() {
        if number % 2 == 0 {
            link.send([chunk(USAGE_EVENT), chunk(DONE), LAST_CHUNK.into()].concat());
            client.through(LAST_CHUNK);
        } else {
            outlast.push((client, link));
        }
    }
    for (client, link) in &mut outlast {
        link.wait_for_close();
        assert!(!client.rest().ends_with(LAST_CHUNK.as_bytes()));
    }
    assert_eq!(proxy.wait().code(), Some(0));
    let rows = proxy.rows();
    let count = |outcome: &str| rows.iter().filter(|row| row.outcome == outcome).count();
    assert_eq!((count("completed"), count("shutdown"), rows.len()), (STREAMS / 2, STREAMS / 2, STREAMS));
    assert_eq!(count_of(&proxy.folder().database(), "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
    assert_eq!(proxy.logged("bug"), 0);
}
