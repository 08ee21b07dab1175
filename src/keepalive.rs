//! Noticing a peer that vanished without a word: a machine that lost its power or its network sends no FIN, and whoever
//! only waits for it would wait for ever. TCP asks it now and then whether it is still there (RFC 9293 §3.8.4).

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::limits::*;

/// Has the system ask the peer of `socket` whether it is there while nothing is sent, and give the connection up where
/// no answer comes. A connection is as good without it: what the system does not offer is left out.
pub fn ask_now_and_then<'s, S>(socket: &'s S)
where
    SockRef<'s>: From<&'s S>,
{
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_GAP);
    // Others have a number of their own: eight or ten.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd", windows))]
    let probes = probes.with_retries(KEEPALIVE_PROBES);
    if let Err(e) = SockRef::from(socket).set_tcp_keepalive(&probes) {
        log::debug!("a peer that vanishes will not be noticed: {e}");
    }
}

/// The same for what was sent: nobody who has acknowledged nothing of it for as long is waited for. Linux would try for a
/// quarter of an hour (`tcp_retries2`), while a model generates for nobody. `None` takes that back. A peer that is there
/// and takes nothing is meant, too: its window is closed.
pub fn bound_silence<'s, S>(socket: &'s S, time_max: Option<Duration>)
where
    SockRef<'s>: From<&'s S>,
{
    #[cfg(target_os = "linux")]
    if let Err(e) = SockRef::from(socket).set_tcp_user_timeout(time_max) {
        log::debug!("a peer that vanishes will be noticed late: {e}");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, time_max);
}

/// Whether this error of a connection means that its peer vanished: nothing was acknowledged, or the way to it is gone.
/// Where a time-out of ours looks the same (Windows), this is not known.
pub fn tells_of_vanishing(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    // An error that the system did not give is a time-out of ours.
    let is_told = error.raw_os_error().is_some();
    match error.kind() {
        TimedOut => is_told && cfg!(unix),
        // What routers said last of why no answer came stands in place of the time-out (Linux: `sk_err_soft`).
        HostUnreachable | NetworkUnreachable | NetworkDown => is_told,
        _ => false,
    }
}

/// Whether it is a time-out of ours.
pub fn is_own_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && !tells_of_vanishing(error)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_silent_peer_is_asked_and_given_up_after_two_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("a bound socket")).expect("it listens");
        ask_now_and_then(&stream);
        bound_silence(&stream, Some(UNACKNOWLEDGED_TIME_MAX));
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option of every system"));
        #[cfg(target_os = "linux")]
        {
            let told = (socket.tcp_keepalive_time().ok(), socket.tcp_keepalive_interval().ok());
            assert_eq!(told, (Some(KEEPALIVE_IDLE), Some(KEEPALIVE_GAP)));
            assert_eq!(socket.tcp_keepalive_retries().ok(), Some(KEEPALIVE_PROBES));
            assert_eq!(socket.tcp_user_timeout().ok(), Some(Some(UNACKNOWLEDGED_TIME_MAX)));
            bound_silence(&stream, None);
            assert_eq!(socket.tcp_user_timeout().ok(), Some(None));
        }
        // Linux lets the second replace the number of questions.
        assert_eq!(UNACKNOWLEDGED_TIME_MAX, KEEPALIVE_IDLE + KEEPALIVE_GAP * KEEPALIVE_PROBES);
    }

    #[cfg(unix)]
    #[test]
    fn only_what_the_system_says_tells_of_vanishing() {
        use nix::errno::Errno;

        for errno in [Errno::ETIMEDOUT, Errno::EHOSTUNREACH, Errno::ENETUNREACH, Errno::ENETDOWN] {
            assert!(tells_of_vanishing(&io::Error::from_raw_os_error(errno as i32)), "{errno}");
        }
        for errno in [Errno::EAGAIN, Errno::ECONNRESET, Errno::EPIPE, Errno::ECONNREFUSED] {
            assert!(!tells_of_vanishing(&io::Error::from_raw_os_error(errno as i32)), "{errno}");
        }
        assert!(!tells_of_vanishing(&io::ErrorKind::TimedOut.into()), "a time-out of ours");
    }
}
