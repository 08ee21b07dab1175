//! Secrets that are introduced as such: `Bearer …`, `password=…`, `"api_key": "…"`, `user:password@host`.

use std::ops::Range;

use super::{is_word, length, mixes_cases};

/// Longest value of a password that is searched for its end.
pub(super) const VALUE_BYTES_MAX: usize = 512;
/// Ends of names of what is secret whatever it looks like, without case and separators.
const SURE_NAMES: [&[u8]; 12] = [
    b"password",
    b"passwd",
    b"passphrase",
    b"apikey",
    b"secretkey",
    b"accesskey",
    b"privatekey",
    b"clientsecret",
    b"accesstoken",
    b"authtoken",
    b"refreshtoken",
    b"authorization",
];
/// Names of what often is none: their values have to look like a secret.
const UNSURE_NAMES: [&[u8]; 5] = [b"token", b"secret", b"pwd", b"credential", b"credentials"];
/// Longest of them.
const NAME_BYTES: usize = 13;
/// What stands for a value in documentation, schemas and code.
const NO_VALUES: [&str; 18] = [
    "none",
    "null",
    "nil",
    "true",
    "false",
    "undefined",
    "string",
    "str",
    "text",
    "bool",
    "boolean",
    "number",
    "object",
    "required",
    "optional",
    "empty",
    "hidden",
    "redacted",
];

/// What follows the name of a scheme of authentication (RFC 9110 §11.1).
pub(super) fn introduced(text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    const BYTES_MIN: usize = 8;
    let scheme = &text[start..end];
    if !scheme.eq_ignore_ascii_case(b"bearer") && !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let from = end + length(&text[end..], |byte| byte == b' ');
    let bytes = length(&text[from..], |byte| is_word(byte) || b".~+/=".contains(&byte));
    let token = without_full_stop(&text[from..from + bytes]);
    let is_long = token.len() >= 24 && mixes_cases(token);
    let is_token = token.len() >= BYTES_MIN && (token.iter().any(u8::is_ascii_digit) || is_long);
    (from > end && is_token).then(|| from..from + token.len())
}

/// The password in an address: `scheme://user:password@host` (RFC 3986 §3.2.1).
pub(super) fn in_address(text: &[u8], end: usize) -> Option<Range<usize>> {
    let rest = text[end..].strip_prefix(b"://")?;
    let rest = &rest[..rest.len().min(VALUE_BYTES_MAX)];
    let user = &rest[..length(rest, |byte| byte.is_ascii_graphic() && !b"/?#\"'<>\\@".contains(&byte))];
    let colon = memchr::memchr(b':', user)?;
    let from = end + 3 + colon + 1;
    let password = &user[colon + 1..];
    (rest.get(user.len()) == Some(&b'@') && !is_placeholder(password)).then(|| from..from + password.len())
}

/// The value behind the name of a secret, `password=…` or `"api_key": "…"`, whose last word ends at `end`.
pub(super) fn named(text: &[u8], end: usize) -> Option<Range<usize>> {
    let mut at = end + length(&text[end..], |byte| b"\\\"'`]".contains(&byte)).min(4);
    let blanks = length(&text[at..], |byte| byte == b' ');
    at += blanks;
    let sign = [&b":="[..], b"=>", b"=", b":"].into_iter().find(|sign| text[at..].starts_with(sign));
    match sign {
        Some(_) if text[at..].starts_with(b"==") => return None,
        Some(sign) => at += sign.len(),
        None if blanks > 0 => {}
        None => return None,
    }
    let is_sure = is_sure_name(&text[..end])?;
    if sign.is_none() && !is_option(&text[..end]) {
        return None;
    }
    let spaces = length(&text[at..], |byte| byte == b' ');
    at += spaces;
    let escapes = length(&text[at..], |byte| byte == b'\\');
    if let Some(quote) = text.get(at + escapes).filter(|byte| b"\"'`".contains(byte)) {
        let from = at + escapes + 1;
        let inside = &text[from..text.len().min(from + VALUE_BYTES_MAX)];
        let value = &inside[..quoted(inside, *quote, escapes)];
        let is_secret = if is_sure { !is_placeholder(value) } else { looks_random(value) };
        return is_secret.then(|| from..from + value.len());
    }
    let is_part = |byte: u8| !byte.is_ascii_whitespace() && !b"\"'`,;&)}]|\\".contains(&byte);
    let rest = &text[at..text.len().min(at + VALUE_BYTES_MAX)];
    let value = without_full_stop(&rest[..length(rest, is_part)]);
    let is_close = spaces + blanks == 0 && sign == Some(b"=");
    let looks_secret = match is_sure {
        false => looks_random(value),
        true if is_close => value.len() >= 4,
        true => value.iter().any(|byte| !byte.is_ascii_alphabetic()),
    };
    let behind = at + value.len();
    (looks_secret && !is_code(value) && !is_placeholder(value))
        .then(|| at..behind + if value.len() == rest.len() { length(&text[behind..], is_part) } else { 0 })
}

/// Whether what ends here is the name of an option of a program, whose value follows a space.
fn is_option(text: &[u8]) -> bool {
    text.rsplit(u8::is_ascii_whitespace).next().is_some_and(|name| name.starts_with(b"--"))
}

/// Whether the text ends with the name of what surely is secret, or with one of what may be; `None`: with neither.
fn is_sure_name(text: &[u8]) -> Option<bool> {
    // All of them end with one of these.
    if !text.last().is_some_and(|last| b"deyntlsDEYNTLS".contains(last)) {
        return None;
    }
    let mut name = [0; NAME_BYTES];
    let letters = text.iter().rev().filter(|byte| !b"_- ".contains(byte));
    let mut from = NAME_BYTES;
    for letter in letters.take_while(|byte| byte.is_ascii_alphabetic()).take(NAME_BYTES) {
        from -= 1;
        name[from] = letter.to_ascii_lowercase();
    }
    let name = &name[from..];
    if SURE_NAMES.iter().any(|known| name.ends_with(known)) {
        return Some(true);
    }
    UNSURE_NAMES.iter().any(|known| name.ends_with(known)).then_some(false)
}

/// How long a string is, up to its quote with so many escapes before it, or to the end of its line.
fn quoted(inside: &[u8], quote: u8, escapes: usize) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(quote, b'\n', &inside[at..]) {
        at += found;
        let before = inside[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        if inside[at] == b'\n' || before <= escapes {
            return at - before;
        }
        at += 1;
    }
    inside.len()
}

/// Without what ends a sentence.
fn without_full_stop(text: &[u8]) -> &[u8] {
    let kept = text.iter().rposition(|byte| !b".!?:".contains(byte)).map_or(0, |last| last + 1);
    &text[..kept]
}

/// Whether a value only stands for one: a variable, a type, stars, `your-key`.
fn is_placeholder(value: &[u8]) -> bool {
    let Some(first) = value.first() else { return true };
    let word = String::from_utf8_lossy(value).to_ascii_lowercase();
    b"$<{%[&@*".contains(first)
        || value.iter().all(|byte| byte == first)
        || word.starts_with("your")
        || NO_VALUES.contains(&word.as_str())
}

/// Whether a value without quotes is an expression rather than a value.
fn is_code(value: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_' || *byte == b'.';
    value.iter().any(|byte| b"([{<>*$".contains(byte))
        || memchr::memmem::find(value, b"::").is_some()
        // `self.password`, `password=user_password`
        || value.iter().all(is_name) && (value.contains(&b'.') || is_sure_name(value).is_some())
}

/// Whether a value that need not be secret looks as if it were.
fn looks_random(value: &[u8]) -> bool {
    value.len() >= 8
        && value.iter().all(u8::is_ascii_graphic)
        && value.iter().any(u8::is_ascii_digit)
        && value.iter().any(u8::is_ascii_alphabetic)
        // `PWD=/home/…`
        && !value.starts_with(b"/")
        && !is_placeholder(value)
}
