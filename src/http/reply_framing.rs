//! Where a reply's body ends (RFC 9112 §6.3), and which transfer codings stay on it.
//!
//! A server may be read more kindly than a client: nobody gains by a reply that is read in two ways but who wrote it.
//! Still there must be one reading, or what follows a reply is taken for another one.

use super::reply_head::ReplyHead;
use super::syntax::{decimal, elements, split_token};

/// How a reply's body is delimited by upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEnd {
    /// There is none.
    Nothing,
    /// So many bytes follow.
    Length(u64),
    /// Chunks follow.
    Chunks,
    /// It ends with the connection.
    Close,
}

/// What a reply's head says about its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyBody {
    /// Where it ends.
    pub end: BodyEnd,
    /// Its `Content-Length`, which also a reply without body may have.
    pub length: Option<u64>,
    /// The transfer codings that are left on the body once its chunks are taken off, as upstream named them.
    pub codings: String,
    /// What follows on the connection is not to be trusted: two fields framed the body, or one that its version has
    /// not.
    pub is_ambiguous: bool,
}

/// Why nobody can say where a reply's body ends: a Content-Length that is no plain decimal number.
const LENGTH_INVALID: &str = "its Content-Length is not a plain decimal number";
/// The same of several that differ.
const LENGTHS_DIFFER: &str = "it has Content-Lengths that differ";
/// The same of a malformed Transfer-Encoding, or `chunked` more than once.
const CODING_INVALID: &str = "its Transfer-Encoding is malformed, or names chunked twice";

/// What a head says about its reply's body. `head_only`: it answers HEAD. The error says in plain words why nobody can
/// say where it ends.
pub fn reply_body(head: &ReplyHead, head_only: bool) -> Result<ReplyBody, &'static str> {
    let (mut length, mut is_coded, mut codings) = (None, false, Vec::new());
    for (name, value) in head.pairs() {
        match name.len() {
            14 if name.eq_ignore_ascii_case("content-length") => {
                // The same number again, as a list or another field, has been sent by mistake, and means the same.
                for element in elements(value) {
                    let number = decimal(element).ok_or(LENGTH_INVALID)?;
                    if length.replace(number).is_some_and(|other| other != number) {
                        return Err(LENGTHS_DIFFER);
                    }
                }
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                is_coded = true;
                for element in elements(value).filter(|element| !element.is_empty()) {
                    codings.push(coding(element).ok_or(CODING_INVALID)?);
                }
            }
            _ => {}
        }
    }
    if is_coded && codings.is_empty() {
        return Err(CODING_INVALID);
    }
    // RFC 2616 §4.4: says that there is none, and frames nothing.
    codings.retain(|coding| !coding.eq_ignore_ascii_case("identity"));
    let is_chunked = |coding: &&str| coding.eq_ignore_ascii_case("chunked");
    if codings.iter().filter(|coding| is_chunked(coding)).count() > 1 {
        return Err(CODING_INVALID);
    }
    let is_ambiguous = !codings.is_empty() && (length.is_some() || head.minor_version == 0);
    let end = if head_only || matches!(head.status, 100..200 | 204 | 304) {
        BodyEnd::Nothing
    } else if codings.last().is_some_and(is_chunked) {
        codings.pop();
        BodyEnd::Chunks
    } else {
        // A length does not count where there is a coding.
        length.filter(|_| codings.is_empty()).map_or(BodyEnd::Close, BodyEnd::Length)
    };
    Ok(ReplyBody { end, length, codings: codings.join(", "), is_ambiguous })
}

/// transfer-coding = token *( OWS ";" OWS parameter ). `chunked` has no parameters.
fn coding(element: &[u8]) -> Option<&str> {
    let (name, parameters) = split_token(element);
    let is_sound = match parameters.trim_ascii_start() {
        [] => true,
        [b';', ..] => !name.eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    std::str::from_utf8(element).ok().filter(|_| is_sound && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::reply_head::{parse_reply_head, slots};
    use super::*;

    fn read(start: &str, fields: &[&str], head_only: bool) -> Result<ReplyBody, &'static str> {
        let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let text = format!("{start}\r\n{lines}\r\n");
        let mut slots = slots(text.as_bytes());
        reply_body(&parse_reply_head(text.as_bytes(), &mut slots).expect("sound").expect("a head"), head_only)
    }

    #[track_caller]
    fn check(fields: &[&str], end: BodyEnd, codings: &str) {
        let body = read("HTTP/1.1 200 OK", fields, false).expect("a sound head");
        assert_eq!((body.end, body.codings.as_str()), (end, codings), "{fields:?}");
    }

    #[track_caller]
    fn check_fault(fields: &[&str], fault: &str) {
        for head_only in [false, true] {
            assert_eq!(read("HTTP/1.1 200 OK", fields, head_only), Err(fault), "{fields:?}");
        }
    }

    #[test]
    fn one_length_or_the_same_again_ends_a_body() {
        check(&["Content-Length: 0"], BodyEnd::Length(0), "");
        check(&["CONTENT-LENGTH: 005"], BodyEnd::Length(5), "");
        check(&["Content-Length: 5, 5"], BodyEnd::Length(5), "");
        check(&["Content-Length: 5", "content-length: 05"], BodyEnd::Length(5), "");
        check(&["Content-Length: 18446744073709551615"], BodyEnd::Length(u64::MAX), "");
    }

    #[test]
    fn lengths_that_are_none_or_differ_end_nothing() {
        for value in ["", "+5", "-5", "0x5", "5 5", "5.0", "a", "5,", ",5", "5,,5", "18446744073709551616"] {
            check_fault(&[&format!("Content-Length: {value}")], LENGTH_INVALID);
        }
        check_fault(&["Content-Length: 5, 6"], LENGTHS_DIFFER);
        check_fault(&["Content-Length: 5", "Content-Length: 6"], LENGTHS_DIFFER);
        check_fault(&["Content-Length: 5", "Content-Length: x"], LENGTH_INVALID);
        // Not even where a coding would count instead.
        check_fault(&["Content-Length: x", "Transfer-Encoding: chunked"], LENGTH_INVALID);
    }

    #[test]
    fn chunks_end_a_body_where_they_are_the_last_coding() {
        check(&["Transfer-Encoding: chunked"], BodyEnd::Chunks, "");
        check(&["Transfer-Encoding: Chunked, "], BodyEnd::Chunks, "");
        check(&["Transfer-Encoding: gzip, chunked"], BodyEnd::Chunks, "gzip");
        check(&["Transfer-Encoding: gzip;q=\"a\"", "Transfer-Encoding: chunked"], BodyEnd::Chunks, "gzip;q=\"a\"");
        check(&["Content-Length: 3", "Transfer-Encoding: chunked"], BodyEnd::Chunks, "");
    }

    #[test]
    fn any_other_last_coding_leaves_the_end_to_the_close() {
        check(&[], BodyEnd::Close, "");
        check(&["Transfer-Encoding: gzip"], BodyEnd::Close, "gzip");
        check(&["Transfer-Encoding: gzip", "Content-Length: 3"], BodyEnd::Close, "gzip");
        check(&["Transfer-Encoding: chunked, gzip"], BodyEnd::Close, "chunked, gzip");
        check(&["Transfer-Encoding: xchunked"], BodyEnd::Close, "xchunked");
    }

    #[test]
    fn identity_is_no_coding() {
        check(&["Transfer-Encoding: identity", "Content-Length: 3"], BodyEnd::Length(3), "");
        check(&["Transfer-Encoding: identity"], BodyEnd::Close, "");
        check(&["Transfer-Encoding: identity, chunked"], BodyEnd::Chunks, "");
    }

    #[test]
    fn codings_that_are_none_end_nothing() {
        for value in ["", ",", "chunked, chunked", "gzip, chunked, chunked", "chunked, gzip, chunked"] {
            check_fault(&[&format!("Transfer-Encoding: {value}")], CODING_INVALID);
        }
        for value in ["chunked;a=b", "chunked;", "chun ked", "\"chunked\"", "chunked gzip", "caf\u{e9}"] {
            check_fault(&[&format!("Transfer-Encoding: {value}")], CODING_INVALID);
        }
        check_fault(&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], CODING_INVALID);
    }

    #[test]
    fn some_replies_have_no_body_whatever_they_say() {
        let check = |start: &str, head_only: bool| {
            for fields in [&["Content-Length: 9"][..], &["Transfer-Encoding: chunked"], &[]] {
                assert_eq!(read(start, fields, head_only).expect("sound").end, BodyEnd::Nothing, "{start}");
            }
        };
        check("HTTP/1.1 204 No Content", false);
        check("HTTP/1.1 304 Not Modified", false);
        check("HTTP/1.1 103 Early Hints", false);
        check("HTTP/1.1 200 OK", true);
        check("HTTP/1.1 404 Not Found", true);
    }

    #[test]
    fn what_frames_a_body_twice_leaves_a_doubt() {
        let check = |start: &str, fields: &[&str], expected: bool| {
            assert_eq!(read(start, fields, false).expect("sound").is_ambiguous, expected, "{start} {fields:?}");
        };
        check("HTTP/1.1 200 OK", &["Content-Length: 3", "Transfer-Encoding: chunked"], true);
        check("HTTP/1.0 200 OK", &["Transfer-Encoding: chunked"], true);
        check("HTTP/1.1 200 OK", &["Transfer-Encoding: gzip, chunked"], false);
        check("HTTP/1.1 200 OK", &["Content-Length: 3, 3"], false);
        check("HTTP/1.0 200 OK", &["Content-Length: 3"], false);
    }
}
