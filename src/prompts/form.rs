//! An element of a prompt as a template sees it, so that what is only written in another way is the same.
//!
//! The form of a JSON value is its text without white space outside of strings, without `cache_control`, the mark by
//! which clients tell a server what to keep, and with text in one way of two: clients write `"content":"x"` as
//! `"content":[{"type":"text","text":"x"}]` to have a place for that mark, and take both back with the next turn. Keys
//! keep their order, numbers and strings their spelling: a client writes what it sends again as it did before.
//!
//! Values that come here are well-formed. Of others the form is some of their text.

use std::ops::Range;

use crate::usage::members::spells;
use crate::usage::skip::{skip_space, string_end, value_end};

/// The member that no template renders.
const MARK: &str = "cache_control";
/// The member whose text is written in two ways.
const CONTENT: &str = "content";

/// What a value says of itself, if it is an object: the insides of the strings, escapes untouched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SelfTold<'a> {
    /// `role`: who says it.
    pub(super) role: Option<&'a [u8]>,
    /// `type`: what it is.
    pub(super) kind: Option<&'a [u8]>,
}

/// Hands on the form of a value, piece by piece: what is written in one way only is one piece.
pub(super) fn each_form_piece<'a>(value: &'a [u8], emit: impl FnMut(&'a [u8])) -> SelfTold<'a> {
    let mut form = FormWriter { text: value, run: 0, comma_waits: false, depth: 0, told: SelfTold::default(), emit };
    match sole_text(value, 0) {
        Some((text, end)) if end == value.len() => {
            (form.emit)(&value[text]);
            SelfTold { role: None, kind: Some(b"text") }
        }
        Some(_) | None => {
            form.write();
            form.told
        }
    }
}

/// The form of a value.
pub fn form(value: &[u8]) -> Vec<u8> {
    let mut form = Vec::with_capacity(value.len());
    each_form_piece(value, |piece| form.extend_from_slice(piece));
    form
}

/// How many bytes the forms of two values begin with alike.
pub fn shared_bytes(one: &[u8], other: &[u8]) -> usize {
    form(one).iter().zip(&form(other)).take_while(|(one, other)| one == other).count()
}

/// On its way over a value.
struct FormWriter<'a, E> {
    text: &'a [u8],
    /// What stands from here to the place that is looked at is part of the form, and not handed on yet.
    run: usize,
    /// A comma belongs before the next piece, unless the object ends.
    comma_waits: bool,
    /// Objects and arrays that are open.
    depth: usize,
    told: SelfTold<'a>,
    emit: E,
}

impl<'a, E: FnMut(&'a [u8])> FormWriter<'a, E> {
    fn write(&mut self) {
        let text = self.text;
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            at = match byte {
                b'"' => self.string(at),
                b' ' | b'\t' | b'\n' | b'\r' => {
                    self.hand_on(at);
                    self.run = skip_space(text, at);
                    self.run
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    at + 1
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    at + 1
                }
                _ => at + 1,
            };
        }
        self.hand_on(text.len());
    }

    /// Hands on what is left up to here, but for a comma at its end, which waits for what follows it.
    fn hand_on(&mut self, to: usize) {
        let piece = &self.text[self.run..to];
        self.run = to;
        if piece.is_empty() {
            return;
        }
        if self.comma_waits {
            (self.emit)(b",");
        }
        let (piece, ends_with_comma) = match piece.strip_suffix(b",") {
            Some(before) => (before, true),
            None => (piece, false),
        };
        self.comma_waits = ends_with_comma;
        if !piece.is_empty() {
            (self.emit)(piece);
        }
    }

    /// A string begins here; where to go on.
    fn string(&mut self, at: usize) -> usize {
        let text = self.text;
        let end = string_end(text, at).unwrap_or(text.len());
        let colon = skip_space(text, end);
        if text.get(colon) != Some(&b':') {
            return end;
        }
        let (key, value) = (&text[at + 1..end - 1], skip_space(text, colon + 1));
        if spells(key, MARK) {
            return self.leave_out(at, value);
        }
        if spells(key, CONTENT)
            && let Some((sole, behind)) = sole_text(text, value).filter(|_| text.get(value) == Some(&b'['))
        {
            self.hand_on(end);
            (self.emit)(b":");
            (self.emit)(&text[sole]);
            self.run = behind;
            return behind;
        }
        if self.depth == 1 {
            match key {
                b"role" => self.told.role = inside_of(text, value),
                b"type" => self.told.kind = inside_of(text, value),
                _ => {}
            }
        }
        end
    }

    /// The member that begins here, with the comma that parts it from its neighbours; where to go on.
    fn leave_out(&mut self, at: usize, value: usize) -> usize {
        let text = self.text;
        self.hand_on(at);
        let behind = skip_space(text, value_end(text, value).unwrap_or(text.len()));
        match text.get(behind) {
            // The comma before it, if there is one, waits for the next member.
            Some(b',') => self.run = behind + 1,
            Some(_) | None => (self.run, self.comma_waits) = (behind, false),
        }
        self.run
    }
}

/// The inside of the string that begins here, if one does.
fn inside_of(text: &[u8], at: usize) -> Option<&[u8]> {
    (text.get(at) == Some(&b'"')).then(|| string_end(text, at)).flatten().map(|end| &text[at + 1..end - 1])
}

/// The string, with its quotes, that is all the text in the value which begins here, and where the value ends: that is
/// `{"type":"text","text":…}`, marked or not, or an array with nothing else in it.
fn sole_text(text: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
    let behind = |byte: u8, at: usize| (text.get(at) == Some(&byte)).then(|| skip_space(text, at + 1));
    if let Some(first) = behind(b'[', at) {
        let (sole, end) = sole_text_of_block(text, first)?;
        let bracket = skip_space(text, end);
        return (text.get(bracket) == Some(&b']')).then_some((sole, bracket + 1));
    }
    sole_text_of_block(text, at)
}

fn sole_text_of_block(text: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
    let behind = |byte: u8, at: usize| (text.get(at) == Some(&byte)).then(|| skip_space(text, at + 1));
    let (mut sole, mut is_text) = (None, false);
    let mut at = behind(b'{', at)?;
    loop {
        let key = (text.get(at) == Some(&b'"')).then_some(at)?;
        let key_end = string_end(text, key)?;
        let value = behind(b':', skip_space(text, key_end))?;
        let end = match &text[key + 1..key_end - 1] {
            b"text" if text.get(value) == Some(&b'"') => {
                let end = string_end(text, value)?;
                sole = Some(value..end);
                end
            }
            b"type" if text[value..].starts_with(b"\"text\"") => {
                is_text = true;
                value + b"\"text\"".len()
            }
            key if spells(key, MARK) => value_end(text, value)?,
            _ => return None,
        };
        at = skip_space(text, end);
        match text.get(at)? {
            b',' => at = skip_space(text, at + 1),
            b'}' if is_text => return Some((sole?, at + 1)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        let of = form(value.as_bytes());
        assert_eq!(String::from_utf8_lossy(&of), expected, "{value}");
        assert_eq!(form(&of), of, "the form of a form is itself");
    }

    #[test]
    fn white_space_is_left_out_where_it_is_none_of_a_string() {
        check(r#"{ "a" : [ 1 , -2.50 , "b  c\n" ] , "d":	{ } }"#, r#"{"a":[1,-2.50,"b  c\n"],"d":{}}"#);
        check("[\r\n1,\n2\n]", "[1,2]");
        check("\"a \\\" , : {\"", "\"a \\\" , : {\"");
        check(" 1", "1");
        check(r#"{"a":{},"b":[],"c":[[ ],{ }]}"#, r#"{"a":{},"b":[],"c":[[],{}]}"#);
    }

    #[test]
    fn marks_are_left_out_wherever_they_stand() {
        check(r#"{"cache_control":{"type":"ephemeral"}}"#, "{}");
        check(r#"{"a":1,"cache_control":{"type":"ephemeral"}}"#, r#"{"a":1}"#);
        check(r#"{"cache_control":null,"a":1}"#, r#"{"a":1}"#);
        check(r#"{"a":1,"cache_control":[{"x":"}"}],"b":2}"#, r#"{"a":1,"b":2}"#);
        check("{ \"a\" : 1 ,\n \"cache_control\" : { } ,\n \"b\" : 2 }", r#"{"a":1,"b":2}"#);
        check("{ \"a\" : 1 ,\n \"cache_control\" : { } \n}", r#"{"a":1}"#);
        check("{\n \"cache_control\" : { } \n , \"b\" : [ 1 ] }", r#"{"b":[1]}"#);
        check(r#"{"a":1,"cache_control":1,"cache_control":2}"#, r#"{"a":1}"#);
        check(r#"{"a":1,"cache_control":1, "cache_control":2 ,"b":3}"#, r#"{"a":1,"b":3}"#);
        check(r#"{"a":[{"b":"x","cache_control":{}},{"cache_control":{},"b":"y"}]}"#, r#"{"a":[{"b":"x"},{"b":"y"}]}"#);
        check(r#"[1,{"\u0063ache_control":1}]"#, "[1,{}]");
        check(r#"["cache_control",{"a":"cache_control"}]"#, r#"["cache_control",{"a":"cache_control"}]"#);
    }

    #[test]
    fn text_has_one_form_as_content_and_as_a_block() {
        check(r#"{"role":"user","content":[{"type":"text","text":"x"}]}"#, r#"{"role":"user","content":"x"}"#);
        check(r#"{"content":[{"text":"[x]","type":"text"}],"role":"user"}"#, r#"{"content":"[x]","role":"user"}"#);
        check(
            r#"{"role":"user", "content" : [ { "type" : "text" , "cache_control":{"type":"ephemeral"}, "text" : "x\"" } ] }"#,
            r#"{"role":"user","content":"x\""}"#,
        );
        check(
            r#"{"content":[{"type":"tool_result","content":[{"type":"text","text":"r"}],"cache_control":{}}]}"#,
            r#"{"content":[{"type":"tool_result","content":"r"}]}"#,
        );
        // A block of a system prompt.
        check(r#"{"type":"text","text":"x","cache_control":{}}"#, r#""x""#);
        for other in [
            r#"{"content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]}"#,
            r#"{"content":[{"type":"text","text":"x","citations":[]}]}"#,
            r#"{"content":[{"type":"image","text":"x"}]}"#,
            r#"{"content":[{"text":"x"}]}"#,
            r#"{"content":[{"type":"text"}]}"#,
            r#"{"content":[{"type":"text","text":null}]}"#,
            r#"{"content":[{"type":"textual","text":"x"}]}"#,
            r#"{"content":{"type":"text","text":"x"}}"#,
            r#"{"content":[]}"#,
            r#"{"content":[{}]}"#,
            r#"{"parts":[{"type":"text","text":"x"}]}"#,
        ] {
            check(other, other);
        }
    }

    #[test]
    fn a_value_tells_who_says_it_and_what_it_is() {
        let check = |value: &str, role: Option<&str>, kind: Option<&str>| {
            let told = each_form_piece(value.as_bytes(), |_| ());
            assert_eq!(told, SelfTold { role: role.map(str::as_bytes), kind: kind.map(str::as_bytes) }, "{value}");
        };
        check(r#"{"role":"user","content":[{"role":"x","type":"text"}]}"#, Some("user"), None);
        check(r#"{ "type" : "message" , "role" : "assistant" }"#, Some("assistant"), Some("message"));
        check(r#"{"role":7,"type":null}"#, None, None);
        check(r#"{"type":"text","text":"x"}"#, None, Some("text"));
        check(r#"[{"role":"user"}]"#, None, None);
        check(r#""role""#, None, None);
    }

    #[test]
    fn what_is_written_in_one_way_only_is_one_piece() {
        let mut pieces = Vec::new();
        let message = br#"{"role":"user","content":"a, b","more":[1,{"c":null}]}"#;
        each_form_piece(message, |piece| pieces.push(piece));
        assert_eq!(pieces, [&message[..]]);
    }

    #[test]
    fn any_bytes_have_some_form() {
        for value in
            [&b""[..], b"\"", b"{\"a\":", b"{\"cache_control\":", b"{\"content\":[{\"type\":\"text\"", b",]}", b"\xff "]
        {
            form(value);
        }
        assert_eq!(shared_bytes(br#"{"a": 1}"#, br#"{"a":1,"b":2}"#), 6);
        assert_eq!(shared_bytes(b"", b"1"), 0);
    }
}
