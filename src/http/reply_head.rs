//! The head of a reply as upstream wrote it: names in their own letters, fields in their order, the reason phrase.
//!
//! Does not judge: which heads are sound ureq says, and [`super::reply_framing`] which bodies.

use httparse::{EMPTY_HEADER, Header, Response, Status};

/// A head, in borrowed bytes.
pub struct ReplyHead<'f, 'b> {
    /// Minor version of HTTP.
    pub minor_version: u8,
    /// Status.
    pub status: u16,
    /// Reason phrase; empty also where it has bytes that are not ASCII.
    pub reason: &'b str,
    /// Fields.
    pub fields: &'f [Header<'b>],
    /// Length of the head, with the empty line.
    pub length: usize,
}

impl<'b> ReplyHead<'_, 'b> {
    /// Names and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + Clone {
        self.fields.iter().map(|field| (field.name, field.value))
    }
}

/// Room for all fields that a head of these bytes can have.
pub fn slots<'b>(bytes: &[u8]) -> Vec<Header<'b>> {
    vec![EMPTY_HEADER; memchr::memchr_iter(b'\n', bytes).count()]
}

/// The head that `bytes` begin with, if its fields fit in `slots`. `None` is no error: more may come.
pub fn parse_reply_head<'f, 'b>(
    bytes: &'b [u8],
    slots: &'f mut [Header<'b>],
) -> Result<Option<ReplyHead<'f, 'b>>, httparse::Error> {
    let mut head = Response::new(slots);
    let Status::Complete(length) = head.parse(bytes)? else { return Ok(None) };
    Ok(Some(ReplyHead {
        minor_version: head.version.ok_or(httparse::Error::Version)?,
        status: head.code.ok_or(httparse::Error::Status)?,
        reason: head.reason.unwrap_or_default(),
        fields: head.headers,
        length,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written_once_it_is_whole() {
        let text = b"HTTP/1.1 404 Nicht gefunden\r\nX-One: a\r\nx-two:  b \r\nX-ONE: c\r\n\r\nbody\n";
        for cut in 0..text.len() - 5 {
            let mut slots = slots(&text[..cut]);
            assert!(matches!(parse_reply_head(&text[..cut], &mut slots), Ok(None)), "cut at {cut}");
        }
        let mut slots = slots(text);
        let head = parse_reply_head(text, &mut slots).expect("it is sound").expect("it is whole");
        assert_eq!((head.minor_version, head.status, head.reason), (1, 404, "Nicht gefunden"));
        let pairs: Vec<_> = head.pairs().collect();
        assert_eq!(pairs, [("X-One", &b"a"[..]), ("x-two", b"b"), ("X-ONE", b"c")]);
        assert_eq!(&text[head.length..], b"body\n");
        let mut few = [EMPTY_HEADER; 2];
        assert!(parse_reply_head(text, &mut few).is_err());
    }
}
