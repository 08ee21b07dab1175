//! A log that nobody reads holds up nobody, and one that somebody reads is whole.
#![cfg(unix)]

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::harness::*;

/// Requests whose lines, of some two thousand bytes, no pipe and no memory for lines holds.
const FLOOD: usize = 1500;

/// Answers the flood, and nothing else.
fn upstream() -> Upstream {
    Upstream::answering(|link, request| {
        if request.start_line().contains("/flood/") {
            link.try_send(chat_reply());
        } else {
            link.wait_for_close();
        }
    })
}

/// `count` requests over a few connections, each with a path of `bytes`, so is its line in the log; all are answered.
fn flood(proxy: &Proxy, count: usize, bytes: usize) {
    flood_at(proxy.address(), count, bytes);
}

fn flood_at(address: SocketAddr, count: usize, bytes: usize) {
    const CLIENTS: usize = 4;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                for _ in 0..count / CLIENTS {
                    let reply = client.ask(post(&format!("/v1/flood/{}", "x".repeat(bytes)), "{}"));
                    assert_eq!(reply.status(), 200);
                }
            });
        }
    });
}

fn lost(proxy: &Proxy) -> usize {
    let text = proxy.ask(get("/metrics"));
    let value = text.text().lines().find_map(|line| line.strip_prefix("lms_proxy_log_lines_lost_total "));
    value.and_then(|value| value.parse().ok()).expect("a metric")
}

#[test]
fn requests_are_answered_while_nobody_reads_the_log_and_the_gap_is_told_afterwards() {
    let upstream = upstream();
    let proxy = Proxy::before(&upstream);
    proxy.leave_log_unread();
    flood(&proxy, FLOOD, 2000);
    assert_eq!(proxy.json("/health")["status"], "ok");
    assert_eq!(proxy.rows().len(), FLOOD);
    let lost = lost(&proxy);
    assert!((1..FLOOD).contains(&lost), "{lost}");
    proxy.read_log_on();
    let told = proxy.wait_for_log("log lines lost here: ");
    assert!(told.contains(&format!("lost here: {lost};")) && told.contains(" [WARN ] "), "{told}");
    // Each line is there or counted, and the log goes on.
    assert_eq!(proxy.logged("/v1/flood/") + lost, FLOOD);
    flood(&proxy, 4, 1);
    proxy.wait_for_log("/v1/flood/x ");
    proxy.check_sound();
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_the_stop() {
    let upstream = upstream();
    let mut proxy = Proxy::before(&upstream);
    proxy.leave_log_unread();
    flood(&proxy, FLOOD, 2000);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert_eq!(proxy.rows().len(), FLOOD);
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_who_stops_twice() {
    let upstream = upstream();
    let mut proxy = Proxy::before(&upstream);
    proxy.leave_log_unread();
    flood(&proxy, FLOOD, 2000);
    let mut client = proxy.connect();
    client.send(chat());
    until("a running exchange", || {
        let text = proxy.ask(get("/metrics"));
        text.text().contains("lms_proxy_exchanges_in_flight 1\n").then_some(())
    });
    assert_eq!(proxy.signal_until_it_ends("INT").code(), Some(1));
}

#[test]
fn a_start_that_fails_does_not_wait_for_who_reads_why() {
    let folder = Folder::new();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let stderr = writer.try_clone().expect("a descriptor");
    // It blocks as soon as the pipe is full, and ends when nobody can read it any more.
    let filling = std::thread::spawn(move || while writer.write_all(&[b'x'; 4096]).is_ok() {});
    let mut child = command(folder.path()).env("PORT", "none").stderr(stderr).stdout(Stdio::null()).spawn();
    let child = child.as_mut().expect("the binary runs");
    let ended = until("its end", || child.try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(2));
    drop(reader);
    filling.join().expect("no panic");
}

#[test]
fn a_log_in_a_file_has_every_line_up_to_the_last() {
    let (upstream, folder) = (upstream(), Folder::new());
    let path = folder.path().join("log");
    let file = std::fs::File::create(&path).expect("writable");
    let mut command = command(folder.path());
    command
        .env("PORT", "0")
        .env("LM_STUDIO_URL", upstream.url())
        .env("UPSTREAM_CHECK", "false")
        .stderr(file)
        .stdout(Stdio::null());
    let mut child = command.spawn().expect("the binary runs");
    let log = || std::fs::read_to_string(&path).expect("text");
    let address = until("the address", || {
        let text = log();
        let (_, rest) = text.split_once("listening on http://")?;
        rest.split_once('\n').map(|(address, _)| address.parse().expect("an address"))
    });
    flood_at(address, FLOOD, 1);
    let told = Command::new("kill").arg("-TERM").arg(child.id().to_string()).status();
    assert!(told.expect("there is a kill command").success());
    assert_eq!(until("its end", || child.try_wait().expect("a child")).code(), Some(0));
    let text = log();
    assert_eq!(text.lines().filter(|line| line.contains(" /v1/flood/x ")).count(), FLOOD);
    assert!(text.ends_with(" stopped\n"), "{:?}", text.lines().last());
}

#[test]
fn a_log_that_is_read_has_every_line_up_to_the_last() {
    let upstream = upstream();
    let mut proxy = Proxy::before(&upstream);
    flood(&proxy, FLOOD, 1);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    let (lines, _) = proxy.kill();
    assert_eq!(lines.iter().filter(|line| line.contains(" /v1/flood/x ")).count(), FLOOD);
    assert!(lines.last().is_some_and(|line| line.ends_with(" stopped")), "{:?}", lines.last());
}
