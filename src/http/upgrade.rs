//! Requests that open a WebSocket (the opening handshake, RFC 6455 §4), and the fields that they are sent on with.
//!
//! Whether the handshake is sound (its key, its version) is upstream's affair.

use super::fields::Span;
use super::framing::Framing;
use super::head::RequestHead;
use super::syntax::{elements, is_hop_by_hop, split_token};

/// Whether the request opens a WebSocket, and nothing else. With a body nobody could say which bytes are frames; and
/// where another protocol is offered, too, upstream might choose that one, of which nothing is known here.
pub fn opens_websocket(head: &RequestHead) -> bool {
    head.method() == "GET"
        && head.minor_version() == 1
        && matches!(head.meaning.framing, Framing::None | Framing::Length(0))
        && listed(head, "connection").any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && listed(head, "upgrade").next().is_some()
        && listed(head, "upgrade").all(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// The fields of an opening handshake that are sent on: as they came, but for
///
/// - Host, which the connection to upstream brings, and the length of no body;
/// - what ends here, as in any request. Connection and Upgrade are what is asked for, and pass; so does what Connection
///   names, for it names it to upstream then;
/// - offers of `permessage-deflate`: compressed messages cannot be read along, and a server that is offered no
///   compression uses none. Other extensions are still offered, in their order: where the one left out stood between
///   them, in two fields, which means the same (RFC 6455 §9.1).
pub fn handshake_fields(head: &RequestHead) -> impl Iterator<Item = (&str, &[u8])> + Clone {
    head.fields().filter(|(name, _)| !ends_here(name)).flat_map(|(name, value)| {
        let offers = name.eq_ignore_ascii_case("sec-websocket-extensions");
        let whole = (!offers).then_some(value);
        whole.into_iter().chain(uncompressed(if offers { value } else { b"" })).map(move |value| (name, value))
    })
}

fn ends_here(name: &str) -> bool {
    let is_asked_for = name.eq_ignore_ascii_case("connection") || name.eq_ignore_ascii_case("upgrade");
    let own = ["host", "content-length", "expect"];
    is_hop_by_hop(name) && !is_asked_for || own.iter().any(|other| name.eq_ignore_ascii_case(other))
}

/// What the fields of this name list, in order.
fn listed<'h>(head: &'h RequestHead, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
    let values = head.fields().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    values.flat_map(elements).filter(|element| !element.is_empty())
}

/// The parts of a Sec-WebSocket-Extensions between offers of `permessage-deflate`, as they stand there.
fn uncompressed(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let mut offers = offers(value);
    let parts = std::iter::from_fn(move || {
        let first = offers.find(|offer| !compresses(offer))?;
        let last = offers.by_ref().take_while(|offer| !compresses(offer)).last().unwrap_or(first);
        let (first, last) = (Span::within(value, first), Span::within(value, last));
        Some(&value[first.at as usize..(last.at + last.len) as usize])
    });
    // Empty elements alone mean nothing (RFC 9110 §5.6.1.2), and would be an empty field.
    parts.map(<[u8]>::trim_ascii).filter(|part| !part.iter().all(|byte| matches!(byte, b',' | b' ' | b'\t')))
}

/// The elements of extension-list, with the space around them. The value of a parameter may be quoted, and hold commas.
fn offers(value: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let (mut is_quoted, mut is_escaped) = (false, false);
    value.split(move |&byte| {
        is_quoted ^= byte == b'"' && !is_escaped;
        is_escaped = is_quoted && !is_escaped && byte == b'\\';
        byte == b',' && !is_quoted
    })
}

fn compresses(offer: &[u8]) -> bool {
    split_token(offer.trim_ascii_start()).0.eq_ignore_ascii_case(b"permessage-deflate")
}

#[cfg(test)]
mod tests {
    use super::super::head::read_head;
    use super::*;

    fn head(request: &str) -> RequestHead {
        read_head(request.as_bytes(), &mut 0).expect("a valid head").expect("a whole head").0
    }

    #[track_caller]
    fn check_opens(line: &str, fields: &[&str], expected: bool) {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head = head(&format!("{line}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(opens_websocket(&head), expected, "{line} {fields:?}");
    }

    #[test]
    fn a_websocket_is_opened_by_get_and_both_fields() {
        let get = "GET /llm HTTP/1.1";
        check_opens(get, &["Connection: Upgrade", "Upgrade: websocket"], true);
        check_opens(get, &["upgrade: WebSocket", "connection: upgrade"], true);
        check_opens(get, &["Connection: keep-alive, Upgrade", "Upgrade: websocket"], true);
        check_opens(get, &["Connection: keep-alive", "Connection: UPGRADE,", "Upgrade: ,websocket"], true);
        check_opens(get, &["Connection: Upgrade", "Upgrade: websocket", "Content-Length: 0"], true);
        check_opens(get, &[], false);
        check_opens(get, &["Upgrade: websocket"], false);
        check_opens(get, &["Connection: Upgrade"], false);
        check_opens(get, &["Connection: Upgrade", "Upgrade:"], false);
        check_opens(get, &["Connection: keep-alive", "Upgrade: websocket"], false);
        check_opens(get, &["Connection: upgrades", "Upgrade: websocket"], false);
        check_opens(get, &["Connection: Upgrade", "Upgrade: websockets"], false);
        for line in ["POST /llm HTTP/1.1", "get /llm HTTP/1.1", "HEAD /llm HTTP/1.1", "GET /llm HTTP/1.0"] {
            check_opens(line, &["Connection: Upgrade", "Upgrade: websocket"], false);
        }
    }

    #[test]
    fn what_may_become_another_protocol_or_has_a_body_opens_none() {
        let check = |field| {
            check_opens("GET /llm HTTP/1.1", &["Connection: Upgrade", "Upgrade: websocket", field], false);
        };
        check("Upgrade: h2c");
        check("Upgrade: h2c, websocket");
        check("Content-Length: 1");
        check("Transfer-Encoding: chunked");
    }

    #[track_caller]
    fn check_fields(fields: &[&str], expected: &[&str]) {
        let came: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head = head(&format!("GET /llm HTTP/1.1\r\nHost: a\r\n{came}\r\n"));
        let sent: Vec<String> = handshake_fields(&head)
            .map(|(name, value)| format!("{name}: {}", std::str::from_utf8(value).expect("text")))
            .collect();
        assert_eq!(sent, expected, "of {fields:?}");
        assert!(handshake_fields(&head).eq(handshake_fields(&head).clone()));
    }

    #[test]
    fn a_handshake_is_sent_on_as_it_came() {
        let typescript = [
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Connection: Upgrade",
            "Upgrade: websocket",
        ];
        let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
        check_fields(&[&typescript[..], &[offer]].concat(), &typescript);
        let python = [
            "Accept: */*",
            "Accept-Encoding: gzip, deflate",
            "User-Agent: python-httpx/0.28.1",
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-version: 13",
        ];
        check_fields(&python, &python);
        let browser = ["Connection: keep-alive, Upgrade, X-A", "X-A: 1", "Upgrade: websocket", "Origin: http://a"];
        check_fields(&browser, &browser);
    }

    #[test]
    fn what_ends_here_is_not_sent_on() {
        let ending = [
            "Keep-Alive: timeout=5",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic YTpi",
            "TE: trailers",
            "Trailer: X-A",
            "Content-Length: 0",
            "Expect: 100-continue",
        ];
        let fields = [&["Connection: Upgrade, TE", "Upgrade: websocket"], &ending[..]].concat();
        check_fields(&fields, &["Connection: Upgrade, TE", "Upgrade: websocket"]);
    }

    #[test]
    fn only_offers_of_permessage_deflate_are_left_out() {
        let check = |value: &str, expected: &[&str]| {
            let expected: Vec<String> =
                expected.iter().map(|value| format!("Sec-WebSocket-Extensions: {value}")).collect();
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            check_fields(&[&format!("Sec-WebSocket-Extensions: {value}")], &expected);
        };
        check("permessage-deflate", &[]);
        check("Permessage-Deflate;client_max_window_bits=10 , permessage-deflate", &[]);
        check(" , permessage-deflate,,", &[]);
        check("", &[]);
        check("foo", &["foo"]);
        check("foo;a=1 ,  bar; b", &["foo;a=1 ,  bar; b"]);
        check("permessage-deflate, foo, bar", &["foo, bar"]);
        check("foo, bar, permessage-deflate; server_no_context_takeover", &["foo, bar"]);
        check("foo, permessage-deflate; a, bar, permessage-deflate, baz", &["foo", "bar", "baz"]);
        // Others that are only named like it, and commas that part nothing.
        check("permessage-deflate2, x-permessage-deflate", &["permessage-deflate2, x-permessage-deflate"]);
        check("foo; a=\"x, permessage-deflate\"", &["foo; a=\"x, permessage-deflate\""]);
        check("permessage-deflate; a=\"x, y\", foo", &["foo"]);
        check("permessage-deflate; a=\"x\\\", y\", foo", &["foo"]);
        check("foo; a=\"\\\\\", permessage-deflate", &["foo; a=\"\\\\\""]);
        check("foo\\, permessage-deflate", &["foo\\"]);
        check("permessage-deflate; a=\"never closed, foo", &[]);
    }
}
