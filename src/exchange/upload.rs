//! Sending a request that may be larger than upstream cares to read.
//!
//! A server that refuses a body (413) says so and stops reading. Whoever only writes then waits for ever, or finds the
//! connection reset, and its client never hears why. So while upstream takes no more, this looks whether it has
//! replied.

use std::io::{self, IoSlice, Write};
use std::net::TcpStream;
use std::time::Duration;

use httparse::EMPTY_HEADER;

use super::polled::{self, Watch};
use crate::http::reply_head::parse_reply_head;
use crate::limits::FIELDS_MAX;

/// A head, and a body with an edit.
const PARTS: usize = 4;

/// What became of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// Upstream takes them.
    Whole,
    /// Upstream has replied, or ended its side, before it took them all.
    CutShort,
}

/// Sends all of these bytes, one behind the other, and calls `taken` with what the socket took each time. Of a `large` request in the clear,
/// waits for as long as upstream neither reads nor replies, but no longer than `idle_time_max`; a small one fits in
/// what the system buffers, and who waits for it all the same is woken when the exchange is called off, or looks.
pub fn send(
    socket: &TcpStream,
    bytes: &[&[u8]; PARTS],
    large: bool,
    idle_time_max: Option<Duration>,
    is_called_off: &dyn Fn() -> bool,
    taken: impl FnMut(usize),
) -> io::Result<Uploaded> {
    if large || !polled::SHUTDOWN_WAKES {
        let mut watch = None;
        socket.set_nonblocking(true)?;
        let sent = send_all(socket, bytes, taken, |_| {
            let has_come = wait(socket, &mut watch, idle_time_max, is_called_off)?;
            Ok((large && has_come && is_refusal(socket)).then_some(Uploaded::CutShort))
        });
        socket.set_nonblocking(false)?;
        return sent;
    }
    send_all(socket, bytes, taken, Err)
}

/// `full` is asked what to do where the socket takes no more: go on, or be content.
fn send_all(
    mut socket: &TcpStream,
    bytes: &[&[u8]; PARTS],
    mut taken: impl FnMut(usize),
    mut full: impl FnMut(io::Error) -> io::Result<Option<Uploaded>>,
) -> io::Result<Uploaded> {
    let mut slices = bytes.map(IoSlice::new);
    let mut left = &mut slices[..];
    // Those that are empty are passed over.
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match socket.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                IoSlice::advance_slices(&mut left, n);
                taken(n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if let Some(enough) = full(e)? {
                    return Ok(enough);
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Uploaded::Whole)
}

/// Waits until upstream takes more, or says something or ends its side: whether the latter. `watch` is made at the first
/// wait of a request.
// In a frame of its own: usual requests fit, and their workers hold none of it (7 KB).
#[inline(never)]
fn wait(
    socket: &TcpStream,
    watch: &mut Option<Watch>,
    idle_time_max: Option<Duration>,
    is_called_off: &dyn Fn() -> bool,
) -> io::Result<bool> {
    let watch = match watch {
        Some(watch) => watch,
        None => watch.insert(Watch::new(socket)?),
    };
    watch.wait(idle_time_max, is_called_off)
}

/// What is looked at of a reply: an interim one takes some 25 bytes, with fields some hundreds.
const BEGINNING_BYTES: usize = 4096;

/// Whether upstream has ended its side, or begun a reply that wants no more of the request: a status of 400 or above.
/// An interim one (1xx) asks for patience, and what comes behind it counts; a success is begun early.
fn is_refusal(socket: &TcpStream) -> bool {
    let mut begun = [0; BEGINNING_BYTES];
    match socket.peek(&mut begun) {
        Ok(0) => true,
        Ok(n) => begins_refusal(&begun[..n]),
        Err(_) => false,
    }
}

fn begins_refusal(mut bytes: &[u8]) -> bool {
    const STATUS_AT: usize = "HTTP/1.1 ".len();
    while let Some(status) = bytes.get(STATUS_AT..STATUS_AT + 3) {
        if status[0] != b'1' {
            return status[0] >= b'4';
        }
        let mut slots = [EMPTY_HEADER; FIELDS_MAX];
        let Ok(Some(head)) = parse_reply_head(bytes, &mut slots) else { return false };
        bytes = &bytes[head.length..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_seen_also_behind_interim_replies_and_by_a_whole_status() {
        let check = |bytes: &str, expected: bool| assert_eq!(begins_refusal(bytes.as_bytes()), expected, "{bytes}");
        check("", false);
        check("HTTP/1.1 41", false);
        check("HTTP/1.1 413", true);
        check("HTTP/1.0 500 Oh\r\n", true);
        check("HTTP/1.1 200 OK\r\n\r\n", false);
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\nLink: <a>; rel=b\n\n";
        check(interim, false);
        check(&interim[..40], false);
        check(&format!("{interim}HTTP/1.1 413 Too large\r\n"), true);
        check(&format!("{interim}HTTP/1.1 200 OK\r\n"), false);
    }
}
