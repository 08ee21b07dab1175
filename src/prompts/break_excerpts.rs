//! Where two texts break: a few words around the first byte in which they differ, of each.
//!
//! ```text
//! …Current time: 2026-11-28T10:3|1:07Z. You are…
//! …Current time: 2026-11-28T10:3|2:25Z. You are…
//! ```

use std::ops::Range;

use super::secrets::secrets_within;
use super::shown::{Tabs, push_shown};
use crate::limits::SECRET_BYTES_MAX;
use crate::order::sort_by_key;
use crate::usage::text::{lossy, without_partial_character, without_partial_start};

/// Characters that are shown on each side of the break.
const CHARS: usize = 24;
/// So many more where a word would be cut otherwise.
const WORD_CHARS_MAX: usize = 12;

/// The excerpts of two texts that are the same for `at` bytes, each with `|` at the break. White space but for blanks is
/// spelled out, and what looks like a key is hidden.
pub fn break_excerpts(before: &[u8], now: &[u8], at: usize) -> [String; 2] {
    let at = character_start(before, now, at);
    let same = &before[at.saturating_sub(CONTEXT_BYTES)..at];
    let same = lossy(without_partial_start(same));
    let texts = [before, now].map(|text| {
        let behind = &text[at..text.len().min(at + CONTEXT_BYTES)];
        [&same, &*lossy(without_partial_character(behind))].concat()
    });
    let start = word_start(&same);
    let parts = texts.each_ref().map(|text| start..same.len() + word_end(&text[same.len()..]));
    let secrets = [0, 1].map(|which: usize| secrets_within(&texts[which], Some(parts[which].clone())));
    // What one text continues to a key is no business of anybody's in the other either.
    let mut of_both: Vec<Range<usize>> = secrets.concat();
    sort_by_key(&mut of_both, |secret| secret.start);
    let is_begun = start > 0 || at > same.len();
    [0, 1].map(|which: usize| {
        let (text, end) = (&texts[which], parts[which].end);
        let mut shown = String::new();
        if is_begun {
            shown.push('…');
        }
        push_shown(&mut shown, text, start..same.len(), &joined(&of_both), Tabs::SpelledOut);
        shown.push('|');
        push_shown(&mut shown, text, same.len()..end, &secrets[which], Tabs::SpelledOut);
        if end < text.len() || at + CONTEXT_BYTES < [before, now][which].len() {
            shown.push('…');
        }
        shown
    })
}

/// What is looked at on each side: what is shown, and what may be a part of a secret in it.
const CONTEXT_BYTES: usize = SECRET_BYTES_MAX + 4 * (CHARS + WORD_CHARS_MAX);

/// Where the character begins in which two texts differ, which are the same before `at`.
fn character_start(before: &[u8], now: &[u8], at: usize) -> usize {
    let at = at.min(before.len()).min(now.len());
    let is_within = |text: &[u8]| text.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    if !is_within(before) && !is_within(now) {
        return at;
    }
    let lead = before[..at].iter().rev().take(3).position(|byte| byte & 0xC0 != 0x80);
    lead.map_or(at, |back| at - back - 1)
}

/// Where the last characters of a text begin, with the word that they begin within.
fn word_start(text: &str) -> usize {
    let mut starts = text.char_indices().rev().map(|(start, _)| start);
    let Some(start) = starts.by_ref().nth(CHARS - 1) else { return 0 };
    let is_start = |start: &usize| text[..*start].chars().next_back().is_none_or(char::is_whitespace);
    [start].into_iter().chain(starts.take(WORD_CHARS_MAX)).find(is_start).unwrap_or(start)
}

/// Where the first characters of a text end, with the word that they end within.
fn word_end(text: &str) -> usize {
    let mut ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
    let Some(end) = ends.by_ref().nth(CHARS - 1) else { return text.len() };
    let is_end = |end: &usize| text[*end..].chars().next().is_none_or(char::is_whitespace);
    [end].into_iter().chain(ends.take(WORD_CHARS_MAX)).find(is_end).unwrap_or(end)
}

/// Ranges in order, without those that overlap.
fn joined(ranges: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match joined.last_mut().filter(|last| range.start < last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => joined.push(range.clone()),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, now: &str, expected: [&str; 2]) {
        let same = before.bytes().zip(now.bytes()).take_while(|(one, other)| one == other).count();
        assert_eq!(break_excerpts(before.as_bytes(), now.as_bytes(), same), expected);
        let [now_first, before_second] = break_excerpts(now.as_bytes(), before.as_bytes(), same);
        assert_eq!([before_second.as_str(), now_first.as_str()], expected, "in the other order");
    }

    #[test]
    fn the_break_is_shown_with_the_words_around_it() {
        let prompt = |time: &str| {
            format!("You may use tools. Current time: 2026-11-28T{time}Z. You are an agent, and read files.")
        };
        check(
            &prompt("10:31:07"),
            &prompt("10:32:25"),
            [
                "…Current time: 2026-11-28T10:3|1:07Z. You are an agent,…",
                "…Current time: 2026-11-28T10:3|2:25Z. You are an agent,…",
            ],
        );
        let long = "x".repeat(100);
        check(
            &format!("{long}1{long}"),
            &format!("{long}2{long}"),
            [
                "…xxxxxxxxxxxxxxxxxxxxxxxx|1xxxxxxxxxxxxxxxxxxxxxxx…",
                "…xxxxxxxxxxxxxxxxxxxxxxxx|2xxxxxxxxxxxxxxxxxxxxxxx…",
            ],
        );
    }

    #[test]
    fn begin_and_end_are_no_cuts() {
        check("a", "b", ["|a", "|b"]);
        check("ab", "ab and more", ["ab|", "ab| and more"]);
        check("", "a", ["|", "|a"]);
        check("a", "a", ["a|", "a|"]);
        assert_eq!(break_excerpts(b"ab", b"abc", 99), ["ab|", "ab|c"], "an offset behind the end is the end");
    }

    #[test]
    fn characters_are_whole_and_white_space_is_spelled_out() {
        check("né", "nè", ["n|é", "n|è"]);
        check("a😀b", "a😁b", ["a|😀b", "a|😁b"]);
        check("a\n\tb", "a\n\u{1b}c", ["a\\n|\\tb", "a\\n|\\u001bc"]);
        check(
            &format!("{}1", "é".repeat(9_000)),
            &format!("{}2", "é".repeat(9_000)),
            [&format!("…{}|1", "é".repeat(24)), &format!("…{}|2", "é".repeat(24))],
        );
        let [one, other] = break_excerpts(b"a\xff\xfe1", b"a\xff\xfe2", 3);
        assert_eq!((one.as_str(), other.as_str()), ("a\u{fffd}\u{fffd}|1", "a\u{fffd}\u{fffd}|2"));
        for at in 0..10 {
            // Whatever is not the same in truth.
            let _ = break_excerpts("é😀é".as_bytes(), b"\x80\x80\x80\x80", at);
        }
    }

    #[test]
    fn a_secret_is_hidden_be_it_shown_in_part_or_broken() {
        let key = "ghp_0123456789abcdefghij0123456789abcdefghij";
        check(&format!("the key {key} is 1"), &format!("the key {key} is 2"), ["…[hidden] is |1", "…[hidden] is |2"]);
        check(&format!("at 1 {key}{key}"), &format!("at 2 {key}{key}"), ["at |1 [hidden]…", "at |2 [hidden]…"]);
        // Broken, also where only one of them is a key.
        check(
            &format!("the key {key}"),
            &format!("the key {}, or another", &key[..20]),
            ["…key [hidden]|[hidden]", "…key [hidden]|, or another"],
        );
        check(
            &format!("the key {}1{}", &key[..10], &key[..30]),
            &format!("the key {}2{}", &key[..10], &key[..30]),
            ["the key [hidden]|[hidden]", "the key [hidden]|[hidden]"],
        );
        let block = format!("-----BEGIN PRIVATE KEY-----\n{}", "abcd ef\n".repeat(900));
        check(&format!("{block}1"), &format!("{block}2"), ["…[hidden]|[hidden]", "…[hidden]|[hidden]"]);
    }
}
