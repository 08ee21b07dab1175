//! Where a request's body ends (RFC 9112 §6). The strictest reading: whatever two servers might read differently is
//! refused, for a request that ends elsewhere for upstream than for the proxy smuggles another one in.

use super::refusal::Refusal;
use super::syntax::{decimal, elements, is_token};

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Exactly so many bytes follow. May be 0.
    Length(u64),
    /// Chunks follow; [`super::chunked::ChunkDecoder`] reads them.
    Chunked,
}

/// What the framing fields of one head say, gathered field by field.
#[derive(Default)]
pub(super) struct FramingFields<'a> {
    length: Option<&'a [u8]>,
    length_repeated: bool,
    /// Every element of every Transfer-Encoding, in order. Rare enough for a vector.
    codings: Vec<&'a [u8]>,
}

impl<'a> FramingFields<'a> {
    pub(super) fn add_length(&mut self, value: &'a [u8]) {
        self.length_repeated |= self.length.replace(value).is_some();
    }

    pub(super) fn add_coding(&mut self, value: &'a [u8]) {
        self.codings.extend(elements(value));
    }

    pub(super) fn decide(&self, minor_version: u8) -> Result<Framing, Refusal> {
        match (self.length, self.codings.is_empty()) {
            (Some(_), false) => Err(Refusal::LengthAndCoding),
            (Some(_), true) if self.length_repeated => Err(Refusal::LengthRepeated),
            (Some(value), true) => length(value).map(Framing::Length),
            (None, false) if minor_version == 0 => Err(Refusal::CodingInOldVersion),
            (None, false) => only_chunked(&self.codings).map(|()| Framing::Chunked),
            (None, true) => Ok(Framing::None),
        }
    }
}

fn length(value: &[u8]) -> Result<u64, Refusal> {
    if value.contains(&b',') {
        return Err(Refusal::LengthRepeated);
    }
    decimal(value).ok_or(Refusal::LengthInvalid)
}

fn only_chunked(codings: &[&[u8]]) -> Result<(), Refusal> {
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let Some((last, others)) = codings.split_last() else { return Err(Refusal::CodingInvalid) };
    if !codings.iter().all(|coding| is_token(coding)) || others.iter().any(is_chunked) {
        return Err(Refusal::CodingInvalid);
    }
    if !others.is_empty() || !is_chunked(last) {
        return Err(Refusal::CodingUnknown);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &[(&str, &str)], minor_version: u8, expected: Result<Framing, Refusal>) {
        let mut framing = FramingFields::default();
        for (name, value) in fields {
            match *name {
                "CL" => framing.add_length(value.as_bytes()),
                _ => framing.add_coding(value.as_bytes()),
            }
        }
        assert_eq!(framing.decide(minor_version), expected, "{fields:?}");
    }

    #[test]
    fn one_plain_length_or_one_chunked_frames_a_body() {
        check(&[], 1, Ok(Framing::None));
        check(&[("CL", "0")], 0, Ok(Framing::Length(0)));
        check(&[("CL", "003")], 1, Ok(Framing::Length(3)));
        check(&[("CL", "18446744073709551615")], 1, Ok(Framing::Length(u64::MAX)));
        check(&[("TE", "Chunked")], 1, Ok(Framing::Chunked));
    }

    #[test]
    fn a_length_that_is_no_plain_decimal_is_rejected() {
        for value in
            ["", "+2", "-2", "0x2", "2 2", "2.0", "a", "\u{b2}", "18446744073709551616", "1000000000000000000000"]
        {
            check(&[("CL", value)], 1, Err(Refusal::LengthInvalid));
        }
    }

    #[test]
    fn several_lengths_are_rejected_even_when_equal() {
        check(&[("CL", "3"), ("CL", "3")], 1, Err(Refusal::LengthRepeated));
        check(&[("CL", "3, 3")], 1, Err(Refusal::LengthRepeated));
        check(&[("CL", "3,")], 1, Err(Refusal::LengthRepeated));
    }

    #[test]
    fn both_length_and_chunked_is_rejected() {
        check(&[("CL", "3"), ("TE", "chunked")], 1, Err(Refusal::LengthAndCoding));
        check(&[("TE", ""), ("CL", "3")], 1, Err(Refusal::LengthAndCoding));
        check(&[("TE", "identity"), ("CL", "x")], 0, Err(Refusal::LengthAndCoding));
    }

    #[test]
    fn any_coding_but_one_chunked_is_rejected() {
        check(&[("TE", "")], 1, Err(Refusal::CodingInvalid));
        check(&[("TE", "chunked,")], 1, Err(Refusal::CodingInvalid));
        check(&[("TE", "chunked, chunked")], 1, Err(Refusal::CodingInvalid));
        check(&[("TE", "chunked"), ("TE", "chunked")], 1, Err(Refusal::CodingInvalid));
        check(&[("TE", "chunked, gzip")], 1, Err(Refusal::CodingInvalid));
        check(&[("TE", "chunked;a=b")], 1, Err(Refusal::CodingInvalid));
        check(&[("TE", "\u{b}chunked")], 1, Err(Refusal::CodingInvalid));
        check(&[("TE", "gzip, chunked")], 1, Err(Refusal::CodingUnknown));
        check(&[("TE", "identity")], 1, Err(Refusal::CodingUnknown));
        check(&[("TE", "xchunked")], 1, Err(Refusal::CodingUnknown));
        check(&[("TE", "chunked")], 0, Err(Refusal::CodingInOldVersion));
    }
}
