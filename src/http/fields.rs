//! Field lines (RFC 9112 §5), and what the fields say about the message itself.

use super::framing::{Framing, FramingFields};
use super::host;
use super::refusal::Refusal;
use super::syntax::{elements, split_token};

/// A part of the raw head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) at: u32,
    pub(super) len: u32,
}

impl Span {
    /// Heads are bounded by [`crate::limits::HEAD_BYTES_MAX`], far below 4 GiB.
    pub(super) fn new(at: usize, len: usize) -> Self {
        Self { at: at as u32, len: len as u32 }
    }

    /// Where `part`, a slice of `whole`, is in it.
    pub(super) fn within(whole: &[u8], part: &[u8]) -> Self {
        Self::new(part.as_ptr().addr() - whole.as_ptr().addr(), part.len())
    }

    pub(super) fn of(self, raw: &[u8]) -> &[u8] {
        &raw[self.at as usize..][..self.len as usize]
    }

    pub(super) fn text(self, raw: &[u8]) -> &str {
        std::str::from_utf8(self.of(raw)).expect("methods, targets, names and hosts were checked to be ASCII")
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FieldLine {
    pub(super) name: Span,
    pub(super) value: Span,
}

impl FieldLine {
    pub(super) fn within(head: &[u8], parsed: &httparse::Header) -> Self {
        Self { name: Span::within(head, parsed.name.as_bytes()), value: Span::within(head, parsed.value) }
    }
}

/// The name of a field line that holds no control byte but HTAB. Also the rule of trailer fields.
pub(super) fn field_name(line: &[u8]) -> Result<&[u8], Refusal> {
    let (name, rest) = split_token(line);
    match (name, rest) {
        ([], [b' ' | b'\t', ..]) => Err(Refusal::FoldedField),
        ([], _) => Err(Refusal::FieldInvalid),
        (name, [b':', ..]) => Ok(name),
        (_, [b' ' | b'\t', ..]) if rest.trim_ascii_start().first() == Some(&b':') => Err(Refusal::SpaceBeforeColon),
        (_, _) => Err(Refusal::FieldInvalid),
    }
}

/// What the fields say about the message itself.
#[derive(Clone, Debug)]
pub struct Meaning {
    pub(super) host: Option<Span>,
    /// Where the body ends.
    pub framing: Framing,
    close: bool,
    /// Whether the client takes another reply on this connection.
    pub keep_alive: bool,
    /// Whether Connection names anything beyond `close` and `keep-alive`.
    pub(super) nominates: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
}

impl Meaning {
    pub(super) fn of(raw: &[u8], fields: &[FieldLine], minor_version: u8) -> Result<Self, Refusal> {
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
        meaning.keep_alive &= !meaning.close;
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
