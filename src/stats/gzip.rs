//! gzip (RFC 1952), for clients that ask for it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::http::reply::Reply;
use crate::http::{RequestHead, accepted};

/// What is smaller fits into a packet as it is.
const BYTES_MIN: usize = 1024;

/// The reply as this client takes it. `varies`: it is one of several, by what types the client takes.
pub(super) fn compressed(reply: Reply, head: &RequestHead, varies: bool) -> Reply {
    let is_large = reply.body().len() >= BYTES_MIN;
    let reply = match (varies, is_large) {
        (true, true) => reply.with_field("Vary", "Accept, Accept-Encoding".to_owned()),
        (true, false) => reply.with_field("Vary", "Accept".to_owned()),
        (false, true) => reply.with_field("Vary", "Accept-Encoding".to_owned()),
        (false, false) => reply,
    };
    if !is_large || !accepts_gzip(head) {
        return reply;
    }
    let body = gzip(reply.body());
    reply.with_body(body).with_field("Content-Encoding", "gzip".to_owned())
}

/// Fast rather than small: whoever asks waits for it.
pub(super) fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}

/// All of it at once.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = encoder();
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("writing into memory does not fail")
}

/// Whether a client takes gzip (RFC 9110 §12.5.3).
pub(super) fn accepts_gzip(head: &RequestHead) -> bool {
    let coding = accepted(head, "accept-encoding").find(|coding| coding.is("gzip") || coding.is("x-gzip"));
    let any = || accepted(head, "accept-encoding").find(|coding| coding.is("*"));
    coding.or_else(any).is_some_and(|coding| coding.weight() > 0.0)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::http::read_head;
    use crate::http::reply::Persistence;

    fn head(fields: &str) -> RequestHead {
        let text = format!("GET /stats HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        read_head(text.as_bytes(), &mut 0).expect("a valid head").expect("a whole head").0
    }

    #[test]
    fn gzip_is_taken_by_who_says_so() {
        let check = |fields: &str, expected: bool| assert_eq!(accepts_gzip(&head(fields)), expected, "{fields}");
        check("", false);
        check("Accept-Encoding: gzip\r\n", true);
        check("Accept-Encoding: br, GZIP;q=0.5\r\n", true);
        check("Accept-Encoding: br\r\nAccept-Encoding: x-gzip\r\n", true);
        check("Accept-Encoding: *\r\n", true);
        check("Accept-Encoding: *;q=0\r\n", false);
        check("Accept-Encoding: gzip;q=0, *\r\n", false);
        check("Accept-Encoding: gzip; q=0.000\r\n", false);
        check("Accept-Encoding: gzip;q=0.001\r\n", true);
        check("Accept-Encoding: identity\r\n", false);
        check("Accept-Encoding:\r\n", false);
    }

    #[test]
    fn what_is_compressed_comes_back_as_it_was() {
        let asks = head("Accept-Encoding: gzip\r\n");
        let body: Vec<u8> = (0..100_000_u32).map(|i| (i / 3 % 16) as u8).collect();
        let reply = compressed(Reply::json(200, body.clone()), &asks, false);
        assert!(reply.body().len() < body.len());
        let mut read = Vec::new();
        GzDecoder::new(reply.body()).read_to_end(&mut read).expect("gzip");
        assert!(read == body);
        let small = Reply::json(200, b"{}\n".to_vec());
        assert_eq!(compressed(small.clone(), &asks, false), small);
        let plain = compressed(Reply::json(200, body.clone()), &head(""), false);
        assert_eq!(plain.body(), body);
        let vary = |body: &[u8], varies| {
            let bytes =
                compressed(Reply::json(200, body.to_vec()), &head(""), varies).encode(Persistence::Close, true, 0);
            let text = String::from_utf8(bytes).expect("a head is text");
            text.lines().find_map(|line| line.strip_prefix("Vary: ").map(str::to_owned))
        };
        assert_eq!(vary(&body, true).as_deref(), Some("Accept, Accept-Encoding"));
        assert_eq!(vary(&body, false).as_deref(), Some("Accept-Encoding"));
        assert_eq!((vary(b"{}", true).as_deref(), vary(b"{}", false)), (Some("Accept"), None));
    }
}
