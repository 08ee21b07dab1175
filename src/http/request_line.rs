//! The request line (RFC 9112 §3): method, target and version, with exactly one space between each.

use super::refusal::Refusal;
use super::syntax::split_token;
use crate::limits::{METHOD_BYTES_MAX, TARGET_BYTES_MAX};

/// Longest request line: method and target at their limits, the version, and the spaces between.
pub(super) const REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + 1 + TARGET_BYTES_MAX + " HTTP/1.1".len();

/// Refuses what no request line may be. The parser of the whole head is more lenient, and comes later.
pub(super) fn check_request_line(line: &[u8]) -> Result<(), Refusal> {
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
    check_version(version)?;
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
    if is_valid_form { Ok(()) } else { Err(Refusal::TargetInvalid) }
}

/// Whether a request that begins like this asks for a head alone, however unreadable the rest is: also a refusal has no
/// content then (RFC 9110 §9.3.2). Empty lines may stand before it.
pub fn asks_for_head(bytes: &[u8]) -> bool {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    bytes[start..].starts_with(b"HEAD ")
}

fn check_version(version: &[u8]) -> Result<(), Refusal> {
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Refusal::VersionNotSupported),
        // As HTTP/2 is called by its name rather than by its version.
        [b'H', b'T', b'T', b'P', b'/', b'0' | b'2'..=b'9'] => Err(Refusal::VersionNotSupported),
        _ => Err(Refusal::VersionInvalid),
    }
}

/// What follows `http://`. No other scheme is served here.
pub(super) fn strip_scheme(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = target.split_at_checked(b"http://".len())?;
    scheme.eq_ignore_ascii_case(b"http://").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::asks_for_head;

    #[test]
    fn a_request_for_a_head_is_known_by_its_method_alone() {
        for bytes in ["HEAD ", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\nHEAD x", "HEAD  ", "HEAD / HTTP/9"] {
            assert!(asks_for_head(bytes.as_bytes()), "{bytes:?}");
        }
        for bytes in ["", "\r\n", "HEAD", "HEADER /", "head /", "GET HEAD ", " HEAD /", "HEAD\t/", "HEAD\r\n"] {
            assert!(!asks_for_head(bytes.as_bytes()), "{bytes:?}");
        }
    }
}
