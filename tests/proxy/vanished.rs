//! Peers that vanish without a word: the system asks whether they are there while nothing is sent.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::SocketAddr;

use crate::harness::*;

/// Which timer the socket between these ports runs (proc_net_tcp): 2 is that of keepalive; and in how many hundredths of a
/// second it ends.
fn timer(local: u16, remote: u16) -> Option<(u32, u64)> {
    let table = fs::read_to_string("/proc/net/tcp").expect("a table of Linux");
    let line = table.lines().find(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&format!(":{local:04X}")) && fields[2].ends_with(&format!(":{remote:04X}"))
    })?;
    let (kind, left) = line.split_whitespace().nth(5)?.split_once(':')?;
    Some((kind.parse().ok()?, u64::from_str_radix(left, 16).ok()?))
}

#[test]
fn client_and_upstream_are_asked_after_a_minute_of_silence() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let (client, link) = streaming(&proxy, &upstream);
    let port = |address: SocketAddr| address.port();
    let sides = [
        ("client", port(proxy.address()), port(client.address())),
        ("upstream", port(link.peer()), port(upstream.address())),
    ];
    for (side, local, remote) in sides {
        // First of all the timer may be that of a byte not acknowledged yet.
        let left = until(side, || timer(local, remote).filter(|(kind, _)| *kind == 2)).1;
        assert!(left <= 6000, "{side}: asked in {left} hundredths of a second");
    }
}
