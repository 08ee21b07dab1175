//! Request heads (RFC 9112 §2–5, strict).
//!
//! It does not read bodies, route, or decide who may ask. It finds where a head ends, refuses what RFC 9110 and 9112
//! do not allow or leave to interpretation, and keeps the rest as it came. httparse splits the head, once, when it is
//! whole; what httparse tolerates (a bare LF, bytes beyond ASCII in a target) was refused line by line until then.
//!
//! ```text
//!  read_head ──▶ find_end: line after line, each checked when its CR LF is there ──▶ parse: httparse, then what the
//!                 │ not whole yet: Ok(None)                                            │    fields mean
//!                 └─▶ Refusal, as soon as it is certain                                └─▶ RequestHead, bytes consumed
//! ```
//!
//! Invariant: however the bytes arrive, the outcome is the same. A refusal depends only on the bytes up to where it is
//! found.

use std::mem::MaybeUninit;

use memchr::memchr;
use ureq::http::uri::PathAndQuery;

use super::fields::{FieldLine, Meaning, Span, field_name};
use super::host;
use super::refusal::Refusal;
use super::reply::Persistence;
use super::request_line::{REQUEST_LINE_BYTES_MAX, check_request_line, strip_scheme};
use super::syntax::{find_control, is_control, is_hop_by_hop, is_nominated, is_tchar};
use crate::limits::{FIELDS_MAX, HEAD_BYTES_MAX};

/// Empty lines allowed before a request line. RFC 9112 §2.2 asks for one at least: old clients send one after a body.
const EMPTY_LINES_MAX: usize = 2;

/// Reads the request head at the start of `buf`: the head and how many bytes it took, or `None` while it is not whole.
///
/// `scanned` remembers how far earlier calls looked, so that byte-by-byte arrival does not cost a look from the start
/// each time. It is 0 for the first call; between calls `buf` only grows. A returned head sets it to 0 again.
pub fn read_head(buf: &[u8], scanned: &mut usize) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let Some(start) = skip_empty_lines(buf)? else { return Ok(None) };
    let Some(end) = find_end(buf, start, scanned)? else { return Ok(None) };
    *scanned = 0;
    RequestHead::parse(&buf[start..end]).map(|head| Some((head, end)))
}

/// Where the request line begins; `None` while there are only line ends. Its first byte already tells TLS and garbage.
fn skip_empty_lines(buf: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut at = 0;
    loop {
        match &buf[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] if at == 2 * EMPTY_LINES_MAX => return Err(Refusal::EmptyLines),
            [b'\r', b'\n', ..] => at += 2,
            [b'\r' | b'\n', ..] => return Err(Refusal::BareLineEnd),
            [0x16, ..] => return Err(Refusal::TlsHello),
            [byte, ..] if is_control(*byte) => return Err(Refusal::ControlByte),
            [byte, ..] if !is_tchar(*byte) => return Err(Refusal::RequestLine),
            [_, ..] => return Ok(Some(at)),
        }
    }
}

// ---- lines -------------------------------------------------------------------------------------------------------

/// Where the head that begins at `start` ends; `None` while its end is not there. Checks every line that ends behind
/// `scanned`, for earlier calls have checked the others, and leaves in `scanned` how far it looked.
fn find_end(buf: &[u8], start: usize, scanned: &mut usize) -> Result<Option<usize>, Refusal> {
    let from = (*scanned).max(start);
    let mut at = from;
    // Where the current line begins, and how many lines are before it. Looked up only when needed: see `locate`.
    let mut line: Option<(usize, usize)> = None;
    loop {
        let stop = find_control(&buf[at..]).map_or(buf.len(), |n| at + n);
        if stop - start > REQUEST_LINE_BYTES_MAX && at.min(stop) - start <= REQUEST_LINE_BYTES_MAX {
            // Checked only where the limit is crossed: a request line that is longer was refused then.
            if line.get_or_insert_with(|| locate(buf, start, from)).1 == 0 {
                return Err(Refusal::TargetTooLong);
            }
        }
        if stop - start > HEAD_BYTES_MAX {
            return Err(Refusal::HeadTooLarge);
        }
        match &buf[stop..] {
            [] | [b'\r'] => {
                *scanned = stop;
                return Ok(None);
            }
            [b'\r', b'\n', ..] => {}
            [b'\r' | b'\n', ..] => return Err(Refusal::BareLineEnd),
            [b'\t', ..] => {
                at = stop + 1;
                continue;
            }
            [_, ..] => return Err(Refusal::ControlByte),
        }
        let (begin, number) = *line.get_or_insert_with(|| locate(buf, start, from));
        let text = &buf[begin..stop];
        match number {
            0 => check_request_line(text)?,
            _ if text.is_empty() => return Ok(Some(stop + 2)),
            _ if number > FIELDS_MAX => return Err(Refusal::TooManyFields),
            _ => {
                field_name(text)?;
            }
        }
        at = stop + 2;
        line = Some((at, number + 1));
    }
}

/// Begin and number of the line that `from` is in. Costs a look back, so it is done once per completed line at most,
/// of which there are few.
fn locate(buf: &[u8], start: usize, from: usize) -> (usize, usize) {
    let before = &buf[start..from];
    let begin = before.iter().rposition(|&byte| byte == b'\n').map_or(start, |lf| start + lf + 1);
    (begin, before.iter().filter(|&&byte| byte == b'\n').count())
}

// ---- the whole head ----------------------------------------------------------------------------------------------

/// One request head. Its bytes are kept once, as they came; the fields are offsets into them.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// From the request line to the empty line. Invariant: what [`find_end`] let pass.
    raw: Box<[u8]>,
    method: Span,
    /// Origin-form or `*`. Invariant: [`PathAndQuery`] takes it unchanged.
    target: Span,
    /// The target without its query.
    path: Span,
    fields: Vec<FieldLine>,
    /// The authority of an absolute-form target.
    authority: Option<Box<str>>,
    minor_version: u8,
    /// What the fields say about the message itself.
    pub meaning: Meaning,
}

impl RequestHead {
    /// Splits a head whose every line was checked.
    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut slots = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        // What httparse refuses, the line checks have refused already. Should the two ever differ, the stricter one wins.
        if parsed.parse_with_uninit_headers(bytes, &mut slots) != Ok(httparse::Status::Complete(bytes.len())) {
            return Err(Refusal::FieldInvalid);
        }
        let (Some(method), Some(target), Some(minor_version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Refusal::RequestLine);
        };
        let fields: Vec<FieldLine> = parsed.headers.iter().map(|field| FieldLine::within(bytes, field)).collect();
        let meaning = Meaning::of(bytes, &fields, minor_version)?;
        let method = Span::within(bytes, method.as_bytes());
        let mut raw: Box<[u8]> = bytes.into();
        let target = Span::within(bytes, target.as_bytes());
        let (target, authority) = origin_form(&mut raw, target, method.of(bytes) == b"OPTIONS")?;
        let is_forwardable = target.text(&raw).parse::<PathAndQuery>().is_ok_and(|parsed| parsed == target.text(&raw));
        if !is_forwardable {
            return Err(Refusal::TargetInvalid);
        }
        let path_len = memchr(b'?', target.of(&raw)).unwrap_or(target.len as usize);
        let path = Span::new(target.at as usize, path_len);
        Ok(Self { raw, method, target, path, fields, authority, minor_version, meaning })
    }

    /// The method, in the case it came in.
    pub fn method(&self) -> &str {
        self.method.text(&self.raw)
    }

    /// Path and query as received, or `*`. Of an absolute-form target only these; see [`RequestHead::authority`].
    pub fn target(&self) -> &str {
        self.target.text(&self.raw)
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.path.text(&self.raw)
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&str> {
        self.target().get(self.path.len as usize + 1..)
    }

    /// 0 or 1.
    pub fn minor_version(&self) -> u8 {
        self.minor_version
    }

    /// Every field in order: the name as received, the value without the white space around it.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.fields.iter().map(|field| (field.name.text(&self.raw), field.value.of(&self.raw)))
    }

    /// The value of the first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let is_named = |field: &&FieldLine| field.name.of(&self.raw).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().find(is_named).map(|field| field.value.of(&self.raw))
    }

    /// Host and port that are asked for: the authority of an absolute-form target wins over Host (RFC 9112 §3.2.2).
    /// `None` only in HTTP/1.0; may be empty.
    pub fn host(&self) -> Option<&str> {
        self.authority().or_else(|| self.meaning.host.map(|span| span.text(&self.raw)))
    }

    /// The authority of an absolute-form target.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// How a reply has to announce whether the connection stays open, if the proxy wants it to.
    pub fn persistence(&self) -> Persistence {
        match (self.meaning.keep_alive, self.minor_version) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAliveAnnounced,
            (true, _) => Persistence::KeepAlive,
        }
    }

    /// Whether a field of this name ends here: the hop-by-hop fields, those that Connection names, and Expect, which
    /// the proxy has answered itself by the time it forwards.
    pub fn is_hop_by_hop(&self, name: &str) -> bool {
        is_hop_by_hop(name)
            || name.eq_ignore_ascii_case("expect")
            || (self.meaning.nominates && is_nominated(self.fields(), name))
    }
}

/// Reduces an absolute-form target to its path and query, in place, and returns its authority. `options`: without a
/// path and a query it asks about the server as a whole (RFC 9112 §3.2.4).
fn origin_form(raw: &mut [u8], target: Span, options: bool) -> Result<(Span, Option<Box<str>>), Refusal> {
    let Some(rest) = strip_scheme(target.of(raw)) else { return Ok((target, None)) };
    let authority_len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..authority_len];
    // RFC 9110 §4.2.1: an empty host is invalid in http URIs. User information (§4.2.4) is no part of a valid host.
    if matches!(authority, [] | [b':', ..]) || !host::is_valid(authority) {
        return Err(Refusal::HostInvalid);
    }
    let has_path = rest.get(authority_len) == Some(&b'/');
    let text: Box<str> = String::from_utf8_lossy(authority).into();
    let mut at = target.at as usize + (target.len as usize - rest.len()) + authority_len;
    let end = target.at as usize + target.len as usize;
    if !has_path {
        // An empty path is sent as `/`. The authority's last byte, copied above, makes room for it.
        at -= 1;
        raw[at] = if options && at + 1 == end { b'*' } else { b'/' };
    }
    Ok((Span::new(at, end - at), Some(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Framing;
    use crate::limits::TARGET_BYTES_MAX;

    const LINE: &str = "GET /v1/models HTTP/1.1\r\n";

    /// What `read_head` says when `raw` arrives cut at `cut`, with an earlier look at the first part.
    fn outcome(raw: &[u8], cut: usize) -> Result<Option<(RequestHead, usize)>, Refusal> {
        let mut scanned = 0;
        match read_head(&raw[..cut], &mut scanned)? {
            Some(early) => Ok(Some(early)),
            None => read_head(raw, &mut scanned),
        }
    }

    /// As [`outcome`], byte by byte.
    fn outcome_by_bytes(raw: &[u8]) -> Result<Option<(RequestHead, usize)>, Refusal> {
        let mut scanned = 0;
        for end in 0..raw.len() {
            if let Some(early) = read_head(&raw[..end], &mut scanned)? {
                return Ok(Some(early));
            }
        }
        read_head(raw, &mut scanned)
    }

    #[track_caller]
    fn refused(raw: impl AsRef<[u8]>, expected: Refusal) {
        let raw = raw.as_ref();
        let shown = String::from_utf8_lossy(&raw[..raw.len().min(200)]).into_owned();
        for cut in (0..=raw.len()).step_by(raw.len() / 500 + 1) {
            assert_eq!(outcome(raw, cut).err(), Some(expected), "{shown:?} cut at {cut}");
        }
        assert_eq!(outcome_by_bytes(raw).err(), Some(expected), "{shown:?} byte by byte");
        let trailing = [raw, b"more"].concat();
        assert_eq!(outcome(&trailing, 0).err(), Some(expected), "{shown:?} with trailing bytes");
    }

    /// Reads `raw`, which must be exactly one head, in every way; a lenient parser must read the same.
    #[track_caller]
    fn accepted(raw: impl AsRef<[u8]>) -> RequestHead {
        let raw = raw.as_ref();
        let shown = String::from_utf8_lossy(raw);
        for cut in 0..=raw.len() {
            assert_eq!(outcome(raw, cut).expect(&shown).expect(&shown).1, raw.len(), "{shown:?} cut at {cut}");
        }
        for end in 0..raw.len() {
            assert!(matches!(outcome(&raw[..end], 0), Ok(None)), "{shown:?} was taken for whole at {end}");
        }
        let (bytewise, _) = outcome_by_bytes(raw).expect(&shown).expect(&shown);
        let (head, consumed) = outcome(&[raw, b"\0more"].concat(), 0).expect(&shown).expect(&shown);
        assert_eq!(consumed, raw.len(), "trailing bytes are no part of {shown:?}");
        assert!(head.fields().eq(bytewise.fields()) && head.target() == bytewise.target(), "{shown:?} byte by byte");

        let mut slots = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut lenient = httparse::Request::new(&mut slots);
        assert!(lenient.parse(raw).is_ok_and(|status| status.is_complete()), "httparse refuses {shown:?}");
        assert_eq!(lenient.method, Some(head.method()));
        assert!(lenient.path.is_some_and(|path| path.ends_with(head.target().trim_start_matches('/'))));
        assert!(head.fields().eq(lenient.headers.iter().map(|field| (field.name, trimmed(field.value)))));
        head
    }

    fn trimmed(value: &[u8]) -> &[u8] {
        value.trim_ascii()
    }

    #[test]
    fn a_plain_head_is_kept_as_it_came() {
        let head = accepted(
            "POST /v1/chat/completions?a=b?c HTTP/1.1\r\nhOst: localhost:8080\r\nX-A:  1 \t\r\nX-Empty:\r\n\
             X-a: caf\u{e9}\r\nContent-Length: 003\r\n\r\n",
        );
        assert_eq!((head.method(), head.target()), ("POST", "/v1/chat/completions?a=b?c"));
        assert_eq!((head.path(), head.query()), ("/v1/chat/completions", Some("a=b?c")));
        assert_eq!((head.host(), head.authority()), (Some("localhost:8080"), None));
        assert_eq!(head.field("x-A"), Some(&b"1"[..]));
        assert_eq!(head.field("x-b"), None);
        assert_eq!(
            head.fields().map(|(name, _)| name).collect::<Vec<_>>(),
            ["hOst", "X-A", "X-Empty", "X-a", "Content-Length"]
        );
        assert_eq!(head.fields().nth(3), Some(("X-a", "caf\u{e9}".as_bytes())));
        assert_eq!(head.meaning.framing, Framing::Length(3));
        assert_eq!(head.persistence(), Persistence::KeepAlive);
    }

    #[test]
    fn unknown_methods_and_odd_but_valid_heads_are_accepted() {
        accepted("M-SEARCH /v1/models HTTP/1.1\r\nHost: a\r\n\r\n");
        accepted("get /v1/%2fmodels%zz HTTP/1.1\r\nHost: \r\n\r\n");
        accepted("GET /with_\"quotes\"?{} HTTP/1.1\r\nHost: [::1]:80\r\n|~: 1\r\n\r\n");
        accepted("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").host(), None);
    }

    #[test]
    fn two_empty_lines_before_a_request_are_skipped_and_no_more() {
        let raw = format!("\r\n\r\n{LINE}Host: a\r\n\r\n");
        for cut in 0..=raw.len() {
            let (head, consumed) = outcome(raw.as_bytes(), cut).expect("valid").expect("whole");
            assert_eq!((head.target(), consumed), ("/v1/models", raw.len()), "cut at {cut}");
        }
        refused(format!("\r\n\r\n\r\n{LINE}Host: a\r\n\r\n"), Refusal::EmptyLines);
        refused(format!("\n{LINE}Host: a\r\n\r\n"), Refusal::BareLineEnd);
        assert!(matches!(outcome(b"\r\n\r", 0), Ok(None)));
    }

    #[test]
    fn what_is_no_http_is_refused_at_its_first_byte() {
        refused([0x16], Refusal::TlsHello);
        refused([0x80], Refusal::RequestLine);
        refused("\0", Refusal::ControlByte);
        refused(" ", Refusal::RequestLine);
        refused("{", Refusal::RequestLine);
    }

    #[test]
    fn request_lines_of_another_shape_are_refused() {
        refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refusal::VersionNotSupported);
        refused("GET / HTTP/2\r\n", Refusal::VersionNotSupported);
        refused("GET / HTTP/0.9\r\n", Refusal::VersionNotSupported);
        refused("GET / HTTP/11\r\n", Refusal::VersionInvalid);
        refused("GET / HTTP/1.1 \r\n", Refusal::VersionInvalid);
        refused("GET / http/1.1\r\n", Refusal::VersionInvalid);
        refused("GET / RTSP/1.0\r\n", Refusal::VersionInvalid);
        refused("GET /\r\n", Refusal::RequestLine);
        refused("GET  / HTTP/1.1\r\n", Refusal::VersionInvalid);
        refused("GET\t/ HTTP/1.1\r\n", Refusal::RequestLine);
        refused("G(T / HTTP/1.1\r\n", Refusal::RequestLine);
        refused("GET  HTTP/1.1\r\n", Refusal::TargetInvalid);
        refused("CONNECT a.example:443 HTTP/1.1\r\n", Refusal::MethodNotImplemented);
        refused(format!("{} / HTTP/1.1\r\n", "X".repeat(33)), Refusal::MethodTooLong);
    }

    #[test]
    fn other_minor_versions_are_refused_like_other_major_ones() {
        refused("GET / HTTP/1.2\r\n", Refusal::VersionNotSupported);
        refused("GET / HTTP/1.9\r\n", Refusal::VersionNotSupported);
        refused("GET / HTTP/1.a\r\n", Refusal::VersionInvalid);
        refused("GET / HTTP/1\r\n", Refusal::VersionInvalid);
    }

    #[test]
    fn targets_that_are_no_path_are_refused() {
        refused("GET v1/models HTTP/1.1\r\n", Refusal::TargetInvalid);
        refused("GET * HTTP/1.1\r\n", Refusal::TargetInvalid);
        refused("GET /a#b HTTP/1.1\r\n", Refusal::TargetInvalid);
        refused("GET /\u{e9} HTTP/1.1\r\n", Refusal::TargetInvalid);
        refused("GET /a\tb HTTP/1.1\r\n", Refusal::TargetInvalid);
        refused("GET /a\x7fb HTTP/1.1\r\n", Refusal::ControlByte);
        refused("GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetInvalid);
        refused("GET https://a/b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetInvalid);
        refused("GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::TargetInvalid);
    }

    #[test]
    fn every_accepted_target_is_forwarded_unchanged() {
        for byte in 0x21..0x7f_u8 {
            for place in ["/v1/a?b", "/v1/?a", "/v1/a?"] {
                let target = place.replace('a', &char::from(byte).to_string());
                let raw = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
                if let Ok(Some((head, _))) = outcome(raw.as_bytes(), 0) {
                    assert_eq!(head.target(), target);
                    assert_eq!(head.target().parse::<PathAndQuery>().expect("forwardable").as_str(), target);
                }
            }
        }
    }

    #[test]
    fn the_authority_of_an_absolute_target_wins_over_host() {
        let check = |absolute: &str, target: &str, authority: &str| {
            let raw = format!("GET {absolute} HTTP/1.1\r\nHost: other\r\n\r\n");
            let (head, _) = outcome(raw.as_bytes(), 0).expect("valid").expect("whole");
            assert_eq!((head.target(), head.host()), (target, Some(authority)), "{absolute}");
        };
        check("http://a:80/v1/models?x", "/v1/models?x", "a:80");
        check("HTTP://a/", "/", "a");
        check("http://a", "/", "a");
        check("http://a?x=/y", "/?x=/y", "a");
        check("http://a/*", "/*", "a");
        refused("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::HostInvalid);
        refused("GET http:///v1 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::HostInvalid);
        refused("GET http://:80/v1 HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::HostInvalid);
    }

    #[test]
    fn options_of_an_absolute_target_without_a_path_asks_about_the_whole_server() {
        let check = |request: &str, target: &str| {
            let raw = format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n");
            let (head, _) = outcome(raw.as_bytes(), 0).expect("valid").expect("whole");
            assert_eq!(head.target(), target, "{request}");
        };
        check("OPTIONS http://a", "*");
        check("OPTIONS HTTP://a", "*");
        check("OPTIONS http://a/", "/");
        check("OPTIONS http://a?", "/?");
        check("OPTIONS http://a?x", "/?x");
        check("OPTIONS *", "*");
        check("options http://a", "/");
        check("POST http://a", "/");
    }

    #[test]
    fn lines_end_in_crlf_and_hold_no_control_bytes() {
        refused("GET / HTTP/1.1\nHost: a\n\n", Refusal::BareLineEnd);
        refused(format!("{LINE}Host: a\r\nX: 1\rY: 2\r\n\r\n"), Refusal::BareLineEnd);
        refused(format!("{LINE}Host: a\r\nX: 1\nY: 2\r\n\r\n"), Refusal::BareLineEnd);
        refused(format!("{LINE}Host: a\r\n\rX"), Refusal::BareLineEnd);
        refused(format!("{LINE}Host: a\r\nX: a\0b\r\n\r\n"), Refusal::ControlByte);
        refused(format!("{LINE}Host: a\r\nX: a\x1bb\r\n\r\n"), Refusal::ControlByte);
        accepted(format!("{LINE}Host: a\r\nX: a\tb\r\n\r\n"));
    }

    #[test]
    fn field_lines_of_another_shape_are_refused_before_the_head_is_whole() {
        refused(format!("{LINE} Host: a\r\n"), Refusal::FoldedField);
        refused(format!("{LINE}Host: a\r\n\tb\r\n"), Refusal::FoldedField);
        refused(format!("{LINE}Host : a\r\n"), Refusal::SpaceBeforeColon);
        refused(format!("{LINE}Host\t: a\r\n"), Refusal::SpaceBeforeColon);
        refused(format!("{LINE}: a\r\n"), Refusal::FieldInvalid);
        refused(format!("{LINE}Host\r\n"), Refusal::FieldInvalid);
        refused(format!("{LINE}Ho st: a\r\n"), Refusal::FieldInvalid);
        refused(format!("{LINE}H\u{f6}st: a\r\n"), Refusal::FieldInvalid);
        refused(format!("{LINE}X{{: a\r\n"), Refusal::FieldInvalid);
    }

    #[test]
    fn names_that_look_like_framing_are_refused() {
        for name in ["Content_Length", "Content-Length2", "_Content-Length", "Transfer_Encoding", "transfer.encoding"] {
            refused(format!("{LINE}Host: a\r\n{name}: 1\r\n\r\n"), Refusal::LookAlikeField);
        }
        accepted(format!("{LINE}Host: a\r\nX-Content-Length: 1\r\nContent-Lengths: 2\r\n\r\n"));
    }

    #[test]
    fn exactly_one_valid_host_is_wanted() {
        refused(format!("{LINE}\r\n"), Refusal::HostMissing);
        refused(format!("{LINE}Host: a\r\nhost: a\r\n\r\n"), Refusal::HostRepeated);
        refused(format!("{LINE}Host: a b\r\n\r\n"), Refusal::HostInvalid);
        refused(format!("{LINE}Host: u@a\r\n\r\n"), Refusal::HostInvalid);
        refused(format!("{LINE}Host: a/b\r\n\r\n"), Refusal::HostInvalid);
        refused("GET / HTTP/1.0\r\nHost: a:b\r\n\r\n", Refusal::HostInvalid);
    }

    #[test]
    fn connection_decides_over_persistence_and_may_not_name_what_upstream_needs() {
        let check = |head: &str, expected: Persistence| {
            assert_eq!(accepted(format!("{head}\r\n\r\n")).persistence(), expected, "{head}");
        };
        check("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE", Persistence::Close);
        check("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, upgrade\r\nUpgrade: ws", Persistence::KeepAlive);
        check("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive", Persistence::Close);
        check("GET / HTTP/1.0", Persistence::Close);
        check("GET / HTTP/1.0\r\nConnection: Keep-Alive", Persistence::KeepAliveAnnounced);
        for name in ["Host", "content-length", "Transfer-Encoding", "AUTHORIZATION"] {
            refused(format!("{LINE}Host: a\r\nConnection: close, {name}\r\n\r\n"), Refusal::ConnectionInvalid);
        }
    }

    #[test]
    fn what_connection_names_ends_here() {
        let head = accepted(format!("{LINE}Host: a\r\nConnection: close, X-A\r\nConnection: x-b\r\nX-A: 1\r\n\r\n"));
        for name in ["connection", "x-a", "X-B", "TE", "trailer", "upgrade", "Proxy-Authorization", "expect"] {
            assert!(head.is_hop_by_hop(name), "{name}");
        }
        for name in ["Authorization", "X-C", "Content-Type", "Host"] {
            assert!(!head.is_hop_by_hop(name), "{name}");
        }
    }

    #[test]
    fn only_the_expectation_of_continue_is_met() {
        assert!(accepted(format!("{LINE}Host: a\r\nExpect: 100-Continue\r\n\r\n")).meaning.expect_continue);
        assert!(!accepted("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").meaning.expect_continue);
        refused(format!("{LINE}Host: a\r\nExpect: 200-maybe\r\n\r\n"), Refusal::ExpectationFailed);
    }

    #[test]
    fn every_limit_of_a_head_has_its_status() {
        let target = |bytes: usize| format!("/{}", "q".repeat(bytes - 1));
        let raw = format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", target(TARGET_BYTES_MAX));
        assert!(outcome(raw.as_bytes(), 0).is_ok_and(|head| head.is_some()));
        refused(format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", target(TARGET_BYTES_MAX + 1)), Refusal::TargetTooLong);
        refused(format!("GET {}", target(2 * TARGET_BYTES_MAX)), Refusal::TargetTooLong);
        refused(format!("{LINE}X: {}", "a".repeat(HEAD_BYTES_MAX)), Refusal::HeadTooLarge);
        let fields = |count: usize| (1..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
        let raw = format!("{LINE}Host: a\r\n{}\r\n", fields(FIELDS_MAX));
        assert!(outcome(raw.as_bytes(), 0).is_ok_and(|head| head.is_some()));
        refused(format!("{LINE}Host: a\r\n{}", fields(FIELDS_MAX + 1)), Refusal::TooManyFields);
    }
}
