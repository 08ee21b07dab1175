//! The smallest parts of the grammar, shared by heads, chunks and replies (RFC 9110 §5.6).

/// Fields that concern one connection only (RFC 9110 §7.6.1) and are never forwarded, in either direction.
const HOP_BY_HOP: [&str; 9] = [
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// Whether a field of this name concerns one connection only, whatever `Connection` says.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|hop| hop.eq_ignore_ascii_case(name))
}

/// Whether a `Connection` among `fields` makes the one of this name concern one connection only.
pub(super) fn is_nominated<'a>(mut fields: impl Iterator<Item = (&'a str, &'a [u8])>, name: &str) -> bool {
    fields.any(|(field, value)| {
        field.eq_ignore_ascii_case("connection")
            && elements(value).any(|element| element.eq_ignore_ascii_case(name.as_bytes()))
    })
}

/// tchar (RFC 9110 §5.6.2): what methods and field names are made of.
const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let listed = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut i = 0;
    while i < listed.len() {
        table[listed[i] as usize] = true;
        i += 1;
    }
    table
};

pub(super) fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_tchar(byte))
}

/// The leading tchars of `bytes`, and what follows them.
pub(super) fn split_token(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().position(|&byte| !is_tchar(byte)).unwrap_or(bytes.len()))
}

/// A control byte as no line may hold it. HTAB is one of those that a field value may hold; CR and LF are not.
pub(super) fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// Where the first control byte is, HTAB, CR and LF included. Looks at 16 bytes at a time without a branch between
/// them, which the compiler turns into vector instructions.
pub(super) fn find_control(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 16;
    let is_any = |byte: u8| byte < 0x20 || byte == 0x7f;
    let clean = bytes.chunks_exact(BLOCK).take_while(|block| !block.iter().fold(false, |any, &b| any | is_any(b)));
    let from = clean.count() * BLOCK;
    bytes[from..].iter().position(|&byte| is_any(byte)).map(|at| from + at)
}

/// A number of plain decimal digits: `str::parse` alone would let `+5` through.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The elements of a comma-separated list, empty ones included: whether those are allowed is the caller's decision.
/// Optional white space is SP and HTAB alone, but no line holds what else ASCII calls so.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_byte_is_found_wherever_it_stands() {
        for length in 0..50 {
            assert_eq!(find_control(&vec![0x80; length]), None);
            for at in 0..length {
                for control in [0, b'\t', b'\r', b'\n', 0x1f, 0x7f] {
                    let mut bytes = vec![b' '; length];
                    bytes[at] = control;
                    assert_eq!(find_control(&bytes), Some(at));
                }
            }
        }
    }
}
