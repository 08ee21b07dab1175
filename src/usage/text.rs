//! Bytes as text: what is no UTF-8 is replaced, and what is cut is cut between characters.

use std::borrow::Cow;

use crate::limits::NAME_BYTES_MAX;

/// [`String::from_utf8_lossy`], but faster where nothing is replaced: that one looks at every byte on its own.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The same of bytes that nobody else needs.
pub fn into_lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|it| String::from_utf8_lossy(it.as_bytes()).into_owned())
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// Without the bytes of a last character that lacks some. What is no UTF-8 at all stays: it is replaced later.
pub fn without_partial_character(bytes: &[u8]) -> &[u8] {
    let Some(lead) = bytes.iter().rposition(|b| !is_continuation(*b)) else { return bytes };
    let length = match bytes[lead] {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF7 => 4,
        _ => 1,
    };
    if bytes.len() - lead < length { &bytes[..lead] } else { bytes }
}

/// Without the last bytes of a character whose first ones were cut off.
pub fn without_partial_start(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take(3).take_while(|b| is_continuation(**b)).count()..]
}

/// The greatest index up to `most` at which `text` can be cut between two characters.
pub fn floor_boundary(text: &str, most: usize) -> usize {
    let mut at = most.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// What somebody calls something, without white space around it. `None` of nothing, of what is longer than
/// [`NAME_BYTES_MAX`] (cut, it might be the name of something else), and of what is no plain text.
pub fn identifier(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?.trim();
    let is_one = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
    is_one.then_some(name)
}

/// The least index from `least` on at which `text` can be cut between two characters.
pub fn ceil_boundary(text: &str, least: usize) -> usize {
    let mut at = least.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}
