//! Request heads (RFC 9112 §2–5, strict).
//!
//! It does not read bodies, route, or decide who may ask. It finds where a head ends, refuses what RFC 9110 and 9112
//! do not allow or leave to interpretation, and keeps the rest as it came.
//!
//! ```text
//!  read_head ──▶ scan: line after line, each checked when its CR LF is there ──▶ assemble: what the fields mean
//!                 │ not whole yet: Ok(None)                                        │
//!                 └─▶ Refusal, as soon as it is certain                            └─▶ RequestHead, bytes consumed
//! ```
//!
//! Invariant: however the bytes arrive, the outcome is the same. A refusal depends only on the bytes up to where it is
//! found.

use ureq::http::uri::PathAndQuery;

use super::framing::{Framing, FramingFields};
use super::host;
use super::refusal::Refusal;
use super::reply::Persistence;
use super::syntax::{elements, is_control, is_hop_by_hop, is_tchar, split_token, trim, trim_start};
use crate::limits::{FIELDS_MAX, HEAD_BYTES_MAX, METHOD_BYTES_MAX, TARGET_BYTES_MAX};

/// Longest request line: method and target at their limits, the version, and the spaces between.
const REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + 1 + TARGET_BYTES_MAX + " HTTP/1.1".len();
/// Empty lines allowed before a request line. RFC 9112 §2.2 asks for one at least: old clients send one after a body.
const EMPTY_LINES_MAX: usize = 2;

/// Reads the request head at the start of `buf`: the head and how many bytes it took, or `None` while it is not whole.
///
/// `scanned` remembers how far earlier calls looked, so that byte-by-byte arrival does not cost a look from the start
/// each time. It is 0 for the first call; between calls `buf` only grows. A returned head sets it to 0 again.
pub fn read_head(buf: &[u8], scanned: &mut usize) -> Result<Option<(RequestHead, usize)>, Refusal> {
    let Some(start) = skip_empty_lines(buf)? else { return Ok(None) };
    let from = (*scanned).max(start);
    let mut fields = Vec::new();
    let end = match scan(buf, start, from, &mut fields)? {
        Scan::Partial(upto) => {
            *scanned = upto;
            return Ok(None);
        }
        Scan::Whole(end) => end,
    };
    if from > start {
        // This call saw only the last lines. Now that all are there, gather them in one go.
        fields.clear();
        scan(buf, start, start, &mut fields)?;
    }
    *scanned = 0;
    RequestHead::assemble(&buf[start..end], fields).map(|head| Some((head, end)))
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

enum Scan {
    /// The head's end is not there; all before this offset was looked at.
    Partial(usize),
    /// The head ends at this offset.
    Whole(usize),
}

/// Walks the lines of the head that begins at `start`, from `from` on, and gathers the fields that end behind `from`.
fn scan(buf: &[u8], start: usize, from: usize, fields: &mut Vec<Field>) -> Result<Scan, Refusal> {
    let mut at = from;
    // Where the current line begins, and how many lines are before it. Looked up only when needed: see `locate`.
    let mut line: Option<(usize, usize)> = None;
    loop {
        let stop = buf[at..].iter().position(|&byte| byte < 0x20 || byte == 0x7f).map_or(buf.len(), |n| at + n);
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
            [] | [b'\r'] => return Ok(Scan::Partial(stop)),
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
            0 => {
                // Only for its refusal; `assemble` reads it again when the whole head is there.
                parse_request_line(text)?;
            }
            _ if text.is_empty() => return Ok(Scan::Whole(stop + 2)),
            _ if number > FIELDS_MAX => return Err(Refusal::TooManyFields),
            _ => push_field(fields, text, begin - start)?,
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

/// The three parts of a request line, as offsets into it.
struct RequestLine {
    method_end: usize,
    target_end: usize,
    minor_version: u8,
}

fn parse_request_line(line: &[u8]) -> Result<RequestLine, Refusal> {
    let (method, rest) = split_token(line);
    if method.len() > METHOD_BYTES_MAX {
        return Err(Refusal::MethodTooLong);
    }
    let rest = rest.strip_prefix(b" ").ok_or(Refusal::RequestLine)?;
    let target_len = rest.iter().position(|&byte| byte == b' ').ok_or(Refusal::RequestLine)?;
    let (target, version) = (&rest[..target_len], &rest[target_len + 1..]);
    if target_len > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    let minor_version = parse_version(version)?;
    if method == b"CONNECT" {
        return Err(Refusal::MethodNotImplemented);
    }
    // A fragment is never sent; whoever sends one may also mean something else by what stands before it.
    if !target.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Refusal::TargetInvalid);
    }
    let is_valid_form = match target {
        [b'/', ..] => true,
        b"*" => method == b"OPTIONS",
        _ => strip_scheme(target).is_some(),
    };
    if !is_valid_form {
        return Err(Refusal::TargetInvalid);
    }
    Ok(RequestLine { method_end: method.len(), target_end: method.len() + 1 + target_len, minor_version })
}

fn parse_version(version: &[u8]) -> Result<u8, Refusal> {
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        // RFC 9110 §2.5: a higher minor version is answered as the highest that is known.
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(1),
        [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9'] => Err(Refusal::VersionNotSupported),
        [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::VersionNotSupported),
        _ => Err(Refusal::VersionInvalid),
    }
}

/// What follows `http://`. No other scheme is served here.
fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = target.split_at_checked(b"http://".len())?;
    scheme.eq_ignore_ascii_case(b"http://").then_some(rest)
}

/// A part of the raw head.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: u32,
    len: u32,
}

impl Span {
    /// Heads are bounded by [`HEAD_BYTES_MAX`], far below 4 GiB.
    fn new(at: usize, len: usize) -> Self {
        Self { at: at as u32, len: len as u32 }
    }

    fn of(self, raw: &[u8]) -> &[u8] {
        &raw[self.at as usize..][..self.len as usize]
    }

    fn text(self, raw: &[u8]) -> &str {
        std::str::from_utf8(self.of(raw)).expect("methods, targets, names and hosts were checked to be ASCII")
    }
}

#[derive(Clone, Copy, Debug)]
struct Field {
    name: Span,
    value: Span,
}

fn push_field(fields: &mut Vec<Field>, line: &[u8], offset: usize) -> Result<(), Refusal> {
    let (name, value) = split_field(line)?;
    let after_colon = &line[name.len() + 1..];
    let value_at = line.len() - trim_start(after_colon).len();
    if fields.is_empty() {
        // Usual clients send 5 to 12 fields: one allocation.
        fields.reserve(16);
    }
    fields.push(Field { name: Span::new(offset, name.len()), value: Span::new(offset + value_at, value.len()) });
    Ok(())
}

/// Name and value of a field line that holds no control byte but HTAB. Also the rule of trailer fields.
pub(super) fn split_field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let (name, rest) = split_token(line);
    match (name, rest) {
        ([], [b' ' | b'\t', ..]) => Err(Refusal::FoldedField),
        ([], _) => Err(Refusal::FieldInvalid),
        (name, [b':', value @ ..]) => Ok((name, trim(value))),
        (_, [b' ' | b'\t', ..]) if trim(rest).first() == Some(&b':') => Err(Refusal::SpaceBeforeColon),
        (_, _) => Err(Refusal::FieldInvalid),
    }
}

// ---- the whole head ----------------------------------------------------------------------------------------------

/// One request head. Its bytes are kept once, as they came; the fields are offsets into them.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// From the request line to the empty line. Invariant: what [`scan`] let pass.
    raw: Box<[u8]>,
    method: Span,
    /// Origin-form or `*`. Invariant: [`PathAndQuery`] takes it unchanged.
    target: Span,
    fields: Vec<Field>,
    host: Option<Span>,
    /// The authority of an absolute-form target.
    authority: Option<Box<str>>,
    minor_version: u8,
    /// Whether Connection names anything beyond `close` and `keep-alive`.
    nominates: bool,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the client takes another reply on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

impl RequestHead {
    fn assemble(bytes: &[u8], fields: Vec<Field>) -> Result<Self, Refusal> {
        let line_len = bytes.iter().position(|&byte| byte == b'\r').unwrap_or(bytes.len());
        let line = parse_request_line(&bytes[..line_len])?;
        let meaning = Meaning::of(bytes, &fields, line.minor_version)?;
        let mut raw: Box<[u8]> = bytes.into();
        let target_at = line.method_end + 1;
        let (target, authority) = origin_form(&mut raw, Span::new(target_at, line.target_end - target_at))?;
        let is_forwardable = target.text(&raw).parse::<PathAndQuery>().is_ok_and(|parsed| parsed == target.text(&raw));
        if !is_forwardable {
            return Err(Refusal::TargetInvalid);
        }
        Ok(Self {
            raw,
            method: Span::new(0, line.method_end),
            target,
            fields,
            host: meaning.host,
            authority,
            minor_version: line.minor_version,
            nominates: meaning.nominates,
            framing: meaning.framing,
            keep_alive: meaning.keep_alive && !meaning.close,
            expect_continue: meaning.expect_continue,
        })
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
        self.target().split_once('?').map_or(self.target(), |(path, _)| path)
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// 0 or 1; higher ones are treated as 1.
    pub fn minor_version(&self) -> u8 {
        self.minor_version
    }

    /// Every field in order: the name as received, the value without the white space around it.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.fields.iter().map(|field| (field.name.text(&self.raw), field.value.of(&self.raw)))
    }

    /// The value of the first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Host and port that are asked for: the authority of an absolute-form target wins over Host (RFC 9112 §3.2.2).
    /// `None` only in HTTP/1.0; may be empty.
    pub fn host(&self) -> Option<&str> {
        self.authority().or_else(|| self.host.map(|span| span.text(&self.raw)))
    }

    /// The authority of an absolute-form target.
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// How a reply has to announce whether the connection stays open, if the proxy wants it to.
    pub fn persistence(&self) -> Persistence {
        match (self.keep_alive, self.minor_version) {
            (false, _) => Persistence::Close,
            (true, 0) => Persistence::KeepAliveAnnounced,
            (true, _) => Persistence::KeepAlive,
        }
    }

    /// Whether a field of this name ends here: the hop-by-hop fields, those that Connection names, and Expect, which
    /// the proxy has answered itself by the time it forwards.
    pub fn is_hop_by_hop(&self, name: &str) -> bool {
        is_hop_by_hop(name) || name.eq_ignore_ascii_case("expect") || (self.nominates && self.is_nominated(name))
    }

    fn is_nominated(&self, name: &str) -> bool {
        self.fields()
            .filter(|(field, _)| field.eq_ignore_ascii_case("connection"))
            .any(|(_, value)| elements(value).any(|element| element.eq_ignore_ascii_case(name.as_bytes())))
    }
}

/// Reduces an absolute-form target to its path and query, in place, and returns its authority.
fn origin_form(raw: &mut [u8], target: Span) -> Result<(Span, Option<Box<str>>), Refusal> {
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
        raw[at] = b'/';
    }
    Ok((Span::new(at, end - at), Some(text)))
}

/// What the fields say about the message itself.
struct Meaning {
    host: Option<Span>,
    framing: Framing,
    close: bool,
    keep_alive: bool,
    nominates: bool,
    expect_continue: bool,
}

impl Meaning {
    fn of(raw: &[u8], fields: &[Field], minor_version: u8) -> Result<Self, Refusal> {
        let mut framing = FramingFields::default();
        let mut meaning = Meaning {
            host: None,
            framing: Framing::None,
            close: false,
            // HTTP/1.0 has to ask for it.
            keep_alive: minor_version > 0,
            nominates: false,
            expect_continue: false,
        };
        for field in fields {
            let (name, value) = (field.name.of(raw), field.value.of(raw));
            match name.len() {
                4 if name.eq_ignore_ascii_case(b"host") => {
                    if meaning.host.replace(field.value).is_some() {
                        return Err(Refusal::HostRepeated);
                    }
                    if !host::is_valid(value) {
                        return Err(Refusal::HostInvalid);
                    }
                }
                6 if name.eq_ignore_ascii_case(b"expect") => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::ExpectationFailed);
                    }
                    // RFC 9110 §10.1.1: in HTTP/1.0 it is ignored.
                    meaning.expect_continue = minor_version > 0;
                }
                10 if name.eq_ignore_ascii_case(b"connection") => meaning.read_connection(value)?,
                14 if name.eq_ignore_ascii_case(b"content-length") => framing.add_length(value),
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => framing.add_coding(value),
                13.. if is_look_alike(name) => return Err(Refusal::LookAlikeField),
                _ => {}
            }
        }
        if meaning.host.is_none() && minor_version > 0 {
            return Err(Refusal::HostMissing);
        }
        meaning.framing = framing.decide(minor_version)?;
        Ok(meaning)
    }

    /// RFC 9110 §7.6.1. A field that upstream must see may not be named: a proxy that obeyed would drop it.
    fn read_connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        const MUST_REACH: [&[u8]; 4] = [b"host", b"content-length", b"transfer-encoding", b"authorization"];
        for element in elements(value) {
            if element.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if element.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if MUST_REACH.iter().any(|name| element.eq_ignore_ascii_case(name)) {
                return Err(Refusal::ConnectionInvalid);
            } else {
                self.nominates = true;
            }
        }
        Ok(())
    }
}

/// `Content_Length`, `Transfer.Encoding` and the like: some servers (CGI and WSGI gateways among them) read them as
/// the real ones, so two readings of one request become possible. Called only for names that are not the real ones.
fn is_look_alike(name: &[u8]) -> bool {
    let letters = || name.iter().filter(|byte| byte.is_ascii_alphabetic()).map(u8::to_ascii_lowercase);
    letters().eq(*b"contentlength") || letters().eq(*b"transferencoding")
}
