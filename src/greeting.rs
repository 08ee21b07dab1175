//! The first lines of the log: what runs, where its page is, where it records, and whether LM Studio answers.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::absolute;
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::exchange::probe;
use crate::limits::{UPSTREAM_CHECK_REST, WORKER_STACK_BYTES};
use crate::proxy::{NamedFiles, Proxy};
use crate::settings::Settings;

/// Says what `proxy` does, which was started with these settings, and has LM Studio asked beside it, if nobody else does soon.
pub fn greet(proxy: &Proxy, settings: Settings, files: NamedFiles) {
    log::info!(concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")));
    log::info!("listening on http://{}", proxy.address);
    log::info!("the page is at {}", pages(proxy.address).join(" and "));
    log::info!("forwarding to {}", settings.upstream);
    let database = absolute(&settings.database).unwrap_or_else(|_| settings.database.clone());
    let rows = if proxy.rows == 1 { "row" } else { "rows" };
    log::info!("recording in {}, {} {rows} so far", database.display(), proxy.rows);
    if settings.upstream_check {
        let builder = thread::Builder::new().name("probe".into()).stack_size(WORKER_STACK_BYTES);
        let reach = proxy.reach.clone();
        let asked = builder.spawn(move || {
            // What clients ask tells it, too, and then nobody need ask for it.
            thread::sleep(UPSTREAM_CHECK_REST);
            let answers = match reach.known() {
                Some((true, _)) => Ok(()),
                // Its exchange has said why.
                Some((false, _)) => return,
                None => probe::answers(&settings, &files.own_roots),
            };
            match answers {
                Ok(()) => log::info!("LM Studio answers at {}", settings.upstream),
                Err(why) => log::warn!("{why} Until it answers, requests fail."),
            }
        });
        if let Err(e) = asked {
            log::warn!("LM Studio was not asked whether it answers: {e}");
        }
    }
}

/// What can be opened in a browser. An address that means every one of this machine is none.
pub fn pages(listening: SocketAddr) -> Vec<String> {
    let at = |host: &dyn std::fmt::Display| format!("http://{host}:{}/", listening.port());
    let local = || match listening.ip() {
        IpAddr::V4(_) if is_taken((Ipv6Addr::LOCALHOST, listening.port())) => at(&Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_loopback() && is_taken((Ipv4Addr::LOCALHOST, listening.port())) => at(&"[::1]"),
        IpAddr::V4(_) | IpAddr::V6(_) => at(&"localhost"),
    };
    let own = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            own_address((Ipv4Addr::UNSPECIFIED, 0), (Ipv4Addr::new(192, 0, 2, 1), 9))
        }
        // Where an address of the one kind is listened on, the other kind comes, too, on most systems.
        IpAddr::V6(ip) if ip.is_unspecified() => {
            own_address((Ipv6Addr::UNSPECIFIED, 0), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9))
        }
        ip if ip.is_loopback() => return vec![local()],
        IpAddr::V4(ip) => return vec![at(&ip)],
        IpAddr::V6(ip) => return vec![at(&format_args!("[{ip}]"))],
    };
    let own = own.map(|ip| match ip {
        IpAddr::V4(ip) => at(&ip),
        IpAddr::V6(ip) => at(&format_args!("[{ip}]")),
    });
    [local()].into_iter().chain(own).collect()
}

/// Whether somebody listens there: `localhost` stands for the addresses of both kinds, and leads to whom it likes.
/// Nobody can connect to what is only bound.
fn is_taken(address: impl Into<SocketAddr>) -> bool {
    let address = address.into();
    let bound = Socket::new(Domain::for_address(address), Type::STREAM, None).and_then(|socket| {
        // As a listener of the standard library: one that has ended is none.
        socket.set_reuse_address(cfg!(unix))?;
        socket.bind(&address.into())
    });
    bound.is_err_and(|e| e.kind() == ErrorKind::AddrInUse)
}

/// The address that this machine has for others. No packet is sent: a UDP socket only looks for its way to `far`, an
/// address of the documentation (RFC 5737, RFC 3849).
fn own_address<A: Into<SocketAddr>>(near: A, far: A) -> Option<IpAddr> {
    let socket = UdpSocket::bind(near.into()).ok()?;
    socket.connect(far.into()).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_page_s_address_is_one_that_can_be_opened() {
        let pages = |address: &str| pages(address.parse().expect("an address"));
        assert_eq!(pages("127.0.0.1:1"), ["http://localhost:1/"]);
        assert_eq!(pages("[::1]:1"), ["http://localhost:1/"]);
        assert_eq!(pages("10.1.2.3:80"), ["http://10.1.2.3:80/"]);
        assert_eq!(pages("[fd00::1]:80"), ["http://[fd00::1]:80/"]);
        for any in ["0.0.0.0:1", "[::]:1"] {
            let pages = pages(any);
            assert!(pages[0] == "http://localhost:1/" && pages.len() <= 2, "{pages:?}");
            assert!(pages.iter().all(|page| !page.contains("0.0.0.0") && !page.contains("[::]")), "{pages:?}");
        }
    }

    #[test]
    fn a_name_that_leads_to_somebody_else_is_not_told() {
        let any_port =
            |ip: IpAddr| TcpListener::bind((ip, 0)).and_then(|socket| Ok((socket.local_addr()?.port(), socket)));
        let (port, _other) = any_port(Ipv4Addr::LOCALHOST.into()).expect("a free port");
        assert_eq!(pages((Ipv6Addr::LOCALHOST, port).into()), [format!("http://[::1]:{port}/")]);
        // Of a system without IPv6 nobody else can have its address.
        let Ok((port, _other)) = any_port(Ipv6Addr::LOCALHOST.into()) else { return };
        assert_eq!(pages((Ipv4Addr::LOCALHOST, port).into()), [format!("http://127.0.0.1:{port}/")]);
        assert_eq!(pages((Ipv4Addr::UNSPECIFIED, port).into())[0], format!("http://127.0.0.1:{port}/"));
        assert_eq!(pages((Ipv6Addr::UNSPECIFIED, port).into())[0], format!("http://localhost:{port}/"));
    }
}
