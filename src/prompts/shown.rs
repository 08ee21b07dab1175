//! Text as it is shown to a person: secrets are hidden, and what has no looks of its own is spelled out.

use std::fmt::Write;
use std::ops::Range;

use super::secrets::HIDDEN;
use crate::looks::is_invisible;

/// What becomes of a tabulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tabs {
    /// It stays, as code needs it.
    Kept,
    /// It is spelled out as other characters of its kind.
    SpelledOut,
}

/// Appends a part of a text. `secrets` are those of the text that may be in the part, in order; one that is in it only
/// in part is hidden, too.
pub(super) fn push_shown(out: &mut String, text: &str, part: Range<usize>, secrets: &[Range<usize>], tabs: Tabs) {
    let mut at = part.start;
    let first = secrets.partition_point(|secret| secret.end <= part.start);
    for secret in secrets[first..].iter().take_while(|secret| secret.start < part.end) {
        push_plain(out, &text[at..secret.start.max(at)], tabs);
        out.push_str(HIDDEN);
        at = secret.end.min(part.end);
    }
    push_plain(out, &text[at..part.end], tabs);
}

fn push_plain(out: &mut String, text: &str, tabs: Tabs) {
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' if tabs == Tabs::SpelledOut => out.push_str("\\t"),
            '\t' => out.push(c),
            // Writing to a string cannot fail.
            _ if is_invisible(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(part: Range<usize>, secrets: &[Range<usize>], expected: &str) {
        let mut shown = String::new();
        push_shown(&mut shown, "0123456789", part, secrets, Tabs::Kept);
        assert_eq!(shown, expected);
    }

    #[test]
    fn secrets_are_hidden_in_full_and_in_part() {
        check(0..10, &[], "0123456789");
        check(2..8, &[0..1, 1..2, 8..9], "234567");
        check(2..8, &[0..3, 5..6, 7..10], "[hidden]34[hidden]6[hidden]");
        check(2..8, std::slice::from_ref(&(0..10)), "[hidden]");
        check(2..2, &[], "");
        check(3..5, std::slice::from_ref(&(3..4)), "[hidden]4");
    }

    #[test]
    fn what_cannot_be_seen_is_spelled_out() {
        let shown = |text: &str, tabs| {
            let mut shown = String::new();
            push_shown(&mut shown, text, 0..text.len(), &[], tabs);
            shown
        };
        assert_eq!(shown("a\r\n\tb\u{1b}[1m\u{200b}é😀\u{202e}", Tabs::Kept), "a\\r\\n\tb\\u001b[1m\\u200bé😀\\u202e");
        assert_eq!(shown("\t", Tabs::SpelledOut), "\\t");
    }
}
