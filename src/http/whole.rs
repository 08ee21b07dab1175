//! A reply that has come whole in one piece, of the plainest kind: a lane relays those, and leaves every
//! other to a worker.

use httparse::{EMPTY_HEADER, Header};

use super::reply_framing::{BodyEnd, reply_body};
use super::reply_head::{ReplyHead, parse_reply_head};

/// Room for the fields of a usual reply; LM Studio sends nine.
const PLAIN_FIELDS_MAX: usize = 32;

/// Where a reply's fields are kept while it is looked at.
pub type Fields<'b> = [Header<'b>; PLAIN_FIELDS_MAX];

/// Room for fields.
pub const NO_FIELDS: Fields<'static> = [EMPTY_HEADER; PLAIN_FIELDS_MAX];

/// The reply in `bytes`, its head and its body, if it is whole and plain: HTTP/1.1, a status that has a body, one
/// `Content-Length`, no transfer coding, no wish to close, and not a byte too much. `None` is no verdict: more may
/// come, or another reader knows better.
pub fn read_whole<'f, 'b>(bytes: &'b [u8], fields: &'f mut Fields<'b>) -> Option<(ReplyHead<'f, 'b>, &'b [u8])> {
    let head = parse_reply_head(bytes, fields).ok()??;
    if head.minor_version != 1 || !(200..600).contains(&head.status) {
        return None;
    }
    let is_kept = |value: &[u8]| value.eq_ignore_ascii_case(b"keep-alive");
    if head.pairs().any(|(name, value)| name.eq_ignore_ascii_case("connection") && !is_kept(value)) {
        return None;
    }
    let body = &bytes[head.length..];
    let end = reply_body(&head, false).ok()?.end;
    (end == BodyEnd::Length(body.len() as u64)).then_some((head, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status and body of `reply`, if it is whole and plain.
    fn read(reply: &str) -> Option<(u16, String)> {
        let mut fields = NO_FIELDS;
        let (head, body) = read_whole(reply.as_bytes(), &mut fields)?;
        Some((head.status, String::from_utf8_lossy(body).into_owned()))
    }

    #[test]
    fn a_plain_reply_is_read_when_its_last_byte_is_there() {
        let reply = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\ncontent-length: 5\r\n\r\nHello";
        assert_eq!(read(reply), Some((404, "Hello".to_owned())));
        for cut in 0..reply.len() {
            assert_eq!(read(&reply[..cut]), None, "cut at {cut}");
        }
        assert_eq!(read(&format!("{reply}H")), None, "a byte too much");
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Some((200, String::new())));
        let kept = "HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nH";
        assert_eq!(read(kept), Some((200, "H".to_owned())));
    }

    #[test]
    fn whatever_is_not_plain_is_left_to_others() {
        let check = |head: &str| assert_eq!(read(&format!("{head}\r\n\r\nHello")), None, "{head}");
        check("HTTP/1.1 200 OK");
        check("HTTP/1.0 200 OK\r\nContent-Length: 5");
        check("HTTP/1.1 103 Early Hints\r\nContent-Length: 5");
        check("HTTP/1.1 204 No Content\r\nContent-Length: 5");
        check("HTTP/1.1 304 Not Modified\r\nContent-Length: 5");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5, 6");
        check("HTTP/1.1 200 OK\r\nContent-Length: +5");
        check("HTTP/1.1 200 OK\r\nContent-Length:");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, x");
        check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Y : z");
        let many = "X: y\r\n".repeat(PLAIN_FIELDS_MAX);
        check(&format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 5"));
    }
}
