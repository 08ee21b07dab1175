//! JSON as the text that it is: members in their order, numbers with all their digits, nothing copied.
//!
//! A prompt can have millions of values, of which a few are asked for: no tree is built. What is asked for is looked up
//! in text that was found well-formed as a whole, so that nothing has to be judged any more, however deep it is nested.

use std::borrow::Cow;

use crate::usage::members::{each_member, spells, string_value};
use crate::usage::skip::{string_end, value_end};

/// One well-formed value, without white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JsonText<'a>(&'a str);

impl<'a> JsonText<'a> {
    /// The object that a text is; `None`: it is none, or not well-formed.
    pub(super) fn object(text: &'a str) -> Option<JsonText<'a>> {
        let span = each_member(text.as_bytes(), |_, _| ())?;
        Some(JsonText(&text[span]))
    }

    /// The value that a text is.
    pub(super) fn value(text: &'a str) -> Option<JsonText<'a>> {
        let text = text.trim_ascii();
        (value_end(text.as_bytes(), 0)? == text.len()).then_some(JsonText(text))
    }

    /// The first of the values in a text, which are well-formed, with commas between them.
    pub(super) fn first_of(values: &'a str) -> JsonText<'a> {
        JsonText(split_value(values).0)
    }

    /// All of them.
    pub(super) fn all_of(values: &'a str) -> impl Iterator<Item = JsonText<'a>> {
        Members { left: values, is_object: false }.map(|(_, value)| value)
    }

    /// As it stands.
    pub(super) fn as_str(self) -> &'a str {
        self.0
    }

    pub(super) fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    pub(super) fn is_array(self) -> bool {
        self.0.starts_with('[')
    }

    pub(super) fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// What a string says; `None` for any other value.
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        let inside = inside(self.0)?;
        if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
            return Some(Cow::Borrowed(inside));
        }
        string_value(self.0.as_bytes(), usize::MAX).map(Cow::Owned)
    }

    /// The elements of an array, or the members of an object: names as they stand between their quotes.
    pub(super) fn members(self) -> Members<'a> {
        let is_object = self.is_object();
        let inside = if is_object || self.is_array() { &self.0[1..self.0.len() - 1] } else { "" };
        Members { left: inside.trim_ascii(), is_object }
    }

    /// The elements of an array; none of any other value.
    pub(super) fn elements(self) -> impl Iterator<Item = JsonText<'a>> {
        JsonText::all_of(if self.is_array() { self.members().left } else { "" })
    }

    /// The members of these names, without those that are `null`. Of a name that stands twice the last one counts.
    pub(super) fn fields<const N: usize>(self, names: [&str; N]) -> [Option<JsonText<'a>>; N] {
        let mut found = [None; N];
        for (name, value) in self.members().filter(|_| self.is_object()) {
            if let Some(at) = names.iter().position(|known| spells(name.as_bytes(), known)) {
                found[at] = (!value.is_null()).then_some(value);
            }
        }
        found
    }

    /// The member of this name, likewise.
    pub(super) fn field(self, name: &str) -> Option<JsonText<'a>> {
        let [found] = self.fields([name]);
        found
    }
}

/// What a string says; nothing of anything else.
pub(super) fn words<'a>(value: Option<JsonText<'a>>) -> Cow<'a, str> {
    value.and_then(JsonText::string).unwrap_or_default()
}

/// What stands between the quotes of a string.
fn inside(string: &str) -> Option<&str> {
    string.strip_prefix('"')?.strip_suffix('"')
}

/// What stands in an object or an array, one after the other.
pub(super) struct Members<'a> {
    left: &'a str,
    is_object: bool,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, JsonText<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        let name = if self.is_object {
            let (name, left) = split_value(self.left);
            self.left = left.trim_ascii_start().strip_prefix(':').map_or("", str::trim_ascii_start);
            inside(name)?
        } else {
            ""
        };
        let (value, left) = split_value(self.left);
        self.left = left.trim_ascii_start().strip_prefix(',').map_or("", str::trim_ascii_start);
        Some((name, JsonText(value)))
    }
}

/// The value that a well-formed text begins with, and what follows it.
fn split_value(text: &str) -> (&str, &str) {
    text.split_at(value_end(text.as_bytes(), 0).unwrap_or(text.len()))
}

/// The value in one line for the eye: with a space behind each colon and comma.
pub(super) fn in_line(value: JsonText) -> String {
    let mut line = String::new();
    push_line(&mut line, value, usize::MAX);
    line
}

/// Appends it, and says whether it has no more than so many bytes; of a longer one only a part may be there.
fn push_line(out: &mut String, value: JsonText, bytes_max: usize) -> bool {
    let (text, begin) = (value.as_str(), out.len());
    let mut at = 0;
    while at < text.len() && out.len() - begin <= bytes_max {
        match text.as_bytes()[at] {
            b'"' => {
                let end = string_end(text.as_bytes(), at).unwrap_or(text.len());
                push_plain(out, &text[at..end]);
                at = end;
                continue;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {}
            byte @ (b',' | b':') => out.extend([char::from(byte), ' ']),
            byte => out.push(char::from(byte)),
        }
        at += 1;
    }
    at == text.len() && out.len() - begin <= bytes_max
}

/// Appends a string with its quotes, and without the escapes that it need not have.
fn push_plain(out: &mut String, string: &str) {
    match JsonText(string).string() {
        Some(Cow::Owned(plain)) => out.push_str(&quoted(&plain)),
        Some(Cow::Borrowed(_)) | None => out.push_str(string),
    }
}

/// A text as a string of JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// Longest object or array that is written in one line.
const LINE_BYTES_MAX: usize = 100;
/// Objects and arrays in each other that are written in several lines: those of a tool's parameters with their own.
/// Deeper ones stand in one line whatever their length, so that nothing grows by more than a few times.
const DEPTH_MAX: usize = 8;

/// The value for the eye: in one line where it fits, else one line for each member.
pub(super) fn in_lines(value: JsonText) -> String {
    let mut lines = String::new();
    push_lines(&mut lines, value, 0);
    lines
}

fn push_lines(out: &mut String, value: JsonText, depth: usize) {
    let begin = out.len();
    let is_short = !(value.is_object() || value.is_array()) || depth == DEPTH_MAX;
    if push_line(out, value, if is_short { usize::MAX } else { LINE_BYTES_MAX }) {
        return;
    }
    out.truncate(begin);
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', 2 * depth));
    };
    out.push_str(&value.as_str()[..1]);
    for (place, (name, member)) in value.members().enumerate() {
        if place > 0 {
            out.push(',');
        }
        new_line(out, depth + 1);
        if value.is_object() {
            push_plain(out, &["\"", name, "\""].concat());
            out.push_str(": ");
        }
        push_lines(out, member, depth + 1);
    }
    new_line(out, depth);
    out.push_str(&value.as_str()[value.as_str().len() - 1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> JsonText<'_> {
        JsonText::object(text).expect("an object")
    }

    /// Members as `name=value`, with `;` behind each.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let members = object(text).members().map(|(name, value)| format!("{name}={};", value.as_str()));
        assert_eq!(members.collect::<String>(), expected, "{text}");
    }

    #[test]
    fn members_are_told_as_they_stand() {
        check("{}", "");
        check("\u{feff} { } ", "");
        check(r#"{"a":1}"#, "a=1;");
        check(r#"{ "a" : 1.50 , "b" : [ 1, {"c":"}"} ] ,"c":null}"#, r#"a=1.50;b=[ 1, {"c":"}"} ];c=null;"#);
        check(r#"{"a\"b":"\\","":true}"#, r#"a\"b="\\";=true;"#);
        check(r#"{"é":"é😀","x":-1e5}"#, r#"é="é😀";x=-1e5;"#);
        let text = r#"{"a":[1,"x,]",[],{"b":[2]}, false ]}"#;
        let elements: Vec<&str> = object(text).field("a").unwrap().elements().map(JsonText::as_str).collect();
        assert_eq!(elements, ["1", "\"x,]\"", "[]", "{\"b\":[2]}", "false"]);
    }

    #[test]
    fn what_is_no_value_of_the_kind_tells_nothing() {
        for text in ["", "[]", "x", "{\"a\":}", "{\"a\":1", "{} {}"] {
            assert_eq!(JsonText::object(text), None, "{text}");
        }
        for text in ["", "[1", "[1,]", "[] []", "x"] {
            assert_eq!(JsonText::value(text), None, "{text}");
        }
        assert_eq!(JsonText::value(" [1]\n").map(|it| it.elements().count()), Some(1));
        let value = object(r#"{"a":5,"b":null,"c":"\ud83d!","a":"last","\u0064":[]}"#);
        let [a, b, c, d, e] = value.fields(["a", "b", "c", "d", "e"]).map(|it| it.map(JsonText::as_str));
        assert_eq!([a, b, c, d, e], [Some("\"last\""), None, Some(r#""\ud83d!""#), Some("[]"), None]);
        assert_eq!(value.field("a").and_then(JsonText::string).as_deref(), Some("last"));
        assert_eq!(value.field("c").and_then(JsonText::string).as_deref(), Some("\u{fffd}!"), "half of a pair");
        assert_eq!(value.field("d").and_then(JsonText::string), None);
        assert_eq!(value.field("d").unwrap().field("x"), None);
        assert_eq!(value.field("a").unwrap().elements().count(), 0);
    }

    #[test]
    fn a_value_is_written_in_one_line() {
        let text = "{ \"a\" : [1,\n2.50],\"b c\":\"x \\u00e9\\n,:\", \"d\":{}}";
        assert_eq!(in_line(object(text)), r#"{"a": [1, 2.50], "b c": "x é\n,:", "d": {}}"#);
    }

    #[test]
    fn what_does_not_fit_in_a_line_has_one_for_each_member() {
        let short = r#"{"type": "function", "n": [1, 2]}"#;
        assert_eq!(in_lines(object(short)), short);
        let long = "x".repeat(99);
        let text = format!(r#"{{"name":"read","of":{{"path":"{long}","n":1}},"l":["{long}",[]],"e":{{}}}}"#);
        let expected = format!(
            "{{\n  \"name\": \"read\",\n  \"of\": {{\n    \"path\": \"{long}\",\n    \"n\": 1\n  }},\n  \"l\": [\n    \"{long}\",\n    []\n  ],\n  \"e\": {{}}\n}}"
        );
        assert_eq!(in_lines(object(&text)), expected);
    }

    #[test]
    fn deep_nesting_needs_no_stack_and_does_not_grow_without_bound() {
        let deep = format!("{{\"a\":{}1{}}}", "[1,".repeat(100_000), "]".repeat(100_000));
        let small_stack = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            let value = object(&deep);
            assert_eq!(value.members().count(), 1);
            assert_eq!(in_line(value).len(), deep.len() + 100_001);
            assert!(in_lines(value).len() < 2 * deep.len());
            let wide = format!("{{\"a\":[{}1]}}", "1,".repeat(100_000));
            assert!(in_lines(object(&wide)).len() < 5 * wide.len());
        });
        small_stack.expect("a thread starts").join().expect("no overflow, no panic");
    }
}
