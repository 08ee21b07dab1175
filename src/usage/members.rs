//! The members of a JSON object as spans of its text.
//!
//! Does not build values, and does not change a byte: whoever edits a request needs to know where things stand. Only
//! text that is one well-formed object (RFC 8259) counts; a request that upstream will refuse is not worth reading.
//! Two things that the standard forbids are let through, for Windows' clients send them and servers take them: a byte
//! order mark in front (PowerShell, files saved by Notepad; Python's `json.loads` and Node's body-parser skip it), and
//! strings that are no UTF-8 (PowerShell sends Latin-1; Node puts U+FFFD in their place). Where values end is
//! [`super::skip`]'s.

use std::borrow::Cow;
use std::ops::Range;

use super::escapes::Unescape;
use super::skip::{skip_space, value_end};
use super::text::{floor_boundary, into_lossy};

/// Longer than any key that is looked for.
const KEY_BYTES_MAX: usize = 64;

/// A byte order mark, as UTF-8 has it.
pub const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Calls `member` with the key (without its quotes, escapes untouched) and the span of the value, for each member of
/// the object that `text` is, in order, and returns the span of the object. `None` when `text` is not exactly one
/// well-formed object; some members may have been reported by then.
pub fn each_member<'a>(text: &'a [u8], mut member: impl FnMut(&'a [u8], Range<usize>)) -> Option<Range<usize>> {
    let start = skip_space(text, if text.starts_with(BOM) { BOM.len() } else { 0 });
    let mut at = behind(b'{', text, start)?;
    if text.get(at) != Some(&b'}') {
        loop {
            behind(b'"', text, at)?;
            let key_end = value_end(text, at)?;
            let value = behind(b':', text, skip_space(text, key_end))?;
            let end = value_end(text, value)?;
            member(&text[at + 1..key_end - 1], value..end);
            at = skip_space(text, end);
            match behind(b',', text, at) {
                Some(next) => at = next,
                None => break,
            }
        }
    }
    (behind(b'}', text, at)? == text.len()).then_some(start..at + 1)
}

/// A key as [`each_member`] reports it, its escapes undone; of a key longer than any that is looked for, its beginning.
pub fn plain_key(key: &[u8]) -> Cow<'_, [u8]> {
    match memchr::memchr(b'\\', key) {
        None => Cow::Borrowed(key),
        Some(_) => Cow::Owned(decoded(key, KEY_BYTES_MAX).into_bytes()),
    }
}

/// Whether a key as [`each_member`] reports it spells `name`, be it with escapes (`"\u0073tream"`).
pub fn spells(key: &[u8], name: &str) -> bool {
    if memchr::memchr(b'\\', key).is_none() {
        return key == name.as_bytes();
    }
    // Room for one more character of any length: a longer key then never decodes to just the name.
    decoded(key, name.len() + 4) == name
}

/// Whether a value is `true`, or what the servers that coerce take for it: vLLM, SGLang and whoever else reads requests
/// with Pydantic (docs.pydantic.dev, `conversion_table`: bool from str, int and float).
pub fn is_true(value: &[u8]) -> bool {
    const WORDS: [&[u8]; 6] = [b"true", b"1", b"on", b"t", b"y", b"yes"];
    match value.strip_prefix(b"\"").and_then(|inner| inner.strip_suffix(b"\"")) {
        Some(word) => WORDS.iter().any(|known| known.eq_ignore_ascii_case(word)),
        None => matches!(value, b"true" | b"1" | b"1.0"),
    }
}

/// The text of a JSON string value, at most `bytes_max` of it; `None` for any other value.
pub fn string_value(value: &[u8], bytes_max: usize) -> Option<String> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(decoded(inner, bytes_max))
}

/// The characters that the inside of a string stands for, as many as fit.
fn decoded(inner: &[u8], bytes_max: usize) -> String {
    // Six bytes stand for one at least, twelve for a pair of surrogates; cutting the text before looking at it keeps a
    // name of many megabytes cheap.
    let inner = &inner[..inner.len().min(bytes_max.saturating_mul(6).saturating_add(12))];
    let mut bytes = Vec::with_capacity(inner.len());
    let mut unescape = Unescape::default();
    for part in [inner, b"\""] {
        unescape.feed(part, |piece| bytes.extend_from_slice(piece));
    }
    let mut text = into_lossy(bytes);
    text.truncate(floor_boundary(&text, bytes_max));
    text
}

/// Where what follows this byte begins, if it is there.
pub(super) fn behind(byte: u8, text: &[u8], at: usize) -> Option<usize> {
    (*text.get(at)? == byte).then(|| skip_space(text, at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The members as `key=value`, joined with `;`.
    fn check(text: &str, expected: Option<&str>) {
        let mut members = Vec::new();
        let object = each_member(text.as_bytes(), |key, value| {
            members.push(format!("{}={}", String::from_utf8_lossy(key), &text[value]));
        });
        assert_eq!(object.is_some().then(|| members.join(";")).as_deref(), expected, "{text}");
        // The grammar is serde_json's, which is not asked for lone surrogates here.
        if !text.contains("\\ud") {
            let theirs =
                text.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            assert_eq!(object.is_some(), theirs, "serde_json differs on {text}");
        }
    }

    #[test]
    fn members_are_reported_as_they_stand() {
        check("{}", Some(""));
        check(" {\t} \r\n", Some(""));
        check(r#"{"a":1}"#, Some("a=1"));
        check(r#"{ "a" : 1 , "b" : [ 1, {"c":2} ] }"#, Some(r#"a=1;b=[ 1, {"c":2} ]"#));
        check(r#"{"a":-0.5e+10,"a":null,"b":""}"#, Some(r#"a=-0.5e+10;a=null;b="""#));
        check(r#"{"a\"b":"\u00e9\\"}"#, Some(r#"a\"b="\u00e9\\""#));
        check(r#"{"a":"\ud800"}"#, Some(r#"a="\ud800""#));
        check(r#"{"a":[[],{},[[]],{"x":{"y":[]}}]}"#, Some(r#"a=[[],{},[[]],{"x":{"y":[]}}]"#));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "}",
            "[]",
            "1",
            "null",
            "\"a\"",
            "{}{}",
            "{},",
            "{}x",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\" 1}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":.5}",
            "{\"a\":+1}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":1e+}",
            "{\"a\":tru}",
            "{\"a\":True}",
            "{\"a\":NaN}",
            "{\"a\":[1,]}",
            "{\"a\":[,]}",
            "{\"a\":[1}",
            "{\"a\":{\"b\":1]}",
            "{\"a\":{\"b\":1,}}",
            "{\"a\":{1}}",
            "{\"a\":\"x}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\u12g4\"}",
            "{\"a\":\"\\u123",
            "{\"a\":\"\\",
            "{\"a\":1}\0",
            "\u{feff}\u{feff}{}",
            "{\u{feff}}",
            "{\"a\":1//c\n}",
            "{\"a\":nullnull}",
            "{\"a\":00}",
            "{\"a\":-01}",
            "{\"a\":\u{a0}1}",
        ] {
            check(text, None);
        }
        assert!(each_member(b"{\"a\":\xff}", |_, _| ()).is_none(), "only strings may hold bytes that are no UTF-8");
    }

    #[test]
    fn a_byte_order_mark_and_bytes_that_are_no_utf8_are_let_through() {
        for text in [&b"{\"a\":\"Perch\xe8?\"}"[..], b"\xEF\xBB\xBF {\"a\":1}", b"\xEF\xBB\xBF{\"\xff\":\"\xc3\"}"] {
            let mut values = Vec::new();
            let object = each_member(text, |_, value| values.push(text[value].to_vec()));
            let object = object.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(text)));
            assert_eq!((text[object.start], object.end, values.len()), (b'{', text.len(), 1));
        }
    }

    #[test]
    fn whatever_pydantic_takes_for_true_is_true() {
        for value in ["true", "1", "1.0", "\"true\"", "\"True\"", "\"1\"", "\"YES\"", "\"on\"", "\"t\"", "\"y\""] {
            assert!(is_true(value.as_bytes()), "{value}");
        }
        for value in
            ["false", "null", "0", "2", "\"false\"", "\"\"", "\"2\"", "\"tru\"", "[true]", "{}", "\"", "\" true\""]
        {
            assert!(!is_true(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn every_prefix_of_an_object_is_refused() {
        let text = r#"{"a":[1.5e3,"\u00e9",{"b":null}],"c":true}"#;
        for end in 0..text.len() {
            assert!(each_member(&text.as_bytes()[..end], |_, _| ()).is_none(), "{}", &text[..end]);
        }
        check(text, Some(r#"a=[1.5e3,"\u00e9",{"b":null}];c=true"#));
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let deep = |open: &str, close: &str| format!("{{\"a\":{}1{}}}", open.repeat(100_000), close.repeat(100_000));
        let small_stack = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            for (open, close) in [("[", "]"), ("{\"b\":", "}"), ("[{\"b\":", "}]")] {
                assert!(each_member(deep(open, close).as_bytes(), |_, _| ()).is_some());
                assert!(each_member(deep(open, "").as_bytes(), |_, _| ()).is_none());
            }
        });
        small_stack.expect("a thread starts").join().expect("no overflow, no panic");
    }

    #[test]
    fn keys_are_compared_decoded() {
        for (key, same) in [
            ("stream", true),
            (r"\u0073tream", true),
            (r"\u0073\u0074\u0072\u0065\u0061\u006D", true),
            ("strea", false),
            ("streams", false),
            (r"\u0073treams", false),
            (r"\u0073treamé", false),
            (r"\u0073tream\ud83d\ude00", false),
            (r"\u0053tream", false),
            (r"\ud800tream", false),
            ("Stream", false),
            ("", false),
        ] {
            assert_eq!(spells(key.as_bytes(), "stream"), same, "{key}");
            assert_eq!(*plain_key(key.as_bytes()) == *b"stream", same, "{key}");
        }
    }

    #[test]
    fn strings_are_decoded_within_their_bound() {
        for (value, bytes_max, expected) in [
            (r#""qwen/qwen3""#, 256, Some("qwen/qwen3")),
            (r#""a\/b\n\"\u00e9\ud83d\ude00""#, 256, Some("a/b\n\"é😀")),
            (r#""\ud83d\ud83d\ude00\ude00""#, 256, Some("\u{fffd}😀\u{fffd}")),
            (r#""é😀""#, 5, Some("é")),
            (r#""\u00e9\ud83d\ude00""#, 5, Some("é")),
            (r#""aé""#, 2, Some("a")),
            (r#""""#, 5, Some("")),
            ("5", 5, None),
            ("null", 5, None),
        ] {
            assert_eq!(string_value(value.as_bytes(), bytes_max).as_deref(), expected, "{value}");
        }
    }
}
