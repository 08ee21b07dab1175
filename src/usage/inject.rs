//! Asking for usage on a stream whose client did not: one edit of the request's body.
//!
//! Changes no byte but those of the edit: number forms, key order, escapes, white space and duplicates stay. What the
//! edit may touch is narrow, for a request that upstream would refuse must still be refused: only an absent, `null`
//! or `false` `stream_options` is made an object, only an absent, `null` or `false` `include_usage` is made `true`.
//!
//! Where a key stands twice the last one counts and is the one edited, as in `JSON.parse`, Python and nlohmann::json.
//! The first would be left alone by all of them, and a member added at the end of the object is the last.

use std::ops::Range;

use super::members::{each_member, is_true, spells};
use super::request_facts::RequestOutline;

/// One change of a body: the bytes `at` (none, for an insertion) give way to `with`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Where, in the body as it came.
    pub at: Range<usize>,
    /// What stands there afterwards.
    pub with: &'static str,
}

impl Edit {
    /// The body with the edit made.
    pub fn apply(&self, body: &[u8]) -> Vec<u8> {
        [&body[..self.at.start], self.with.as_bytes(), &body[self.at.end..]].concat()
    }
}

/// The edit that sets `stream_options.include_usage` to `true`, or `None` when the body must go as it came: it is not a
/// JSON object, `stream` is not true, it asks already, or the members in question have values that are not ours to
/// mend.
pub fn edit(body: &[u8], outline: &RequestOutline) -> Option<Edit> {
    let closing_brace = outline.closing_brace()?;
    if !outline.stream().is_some_and(|value| is_true(&body[value])) {
        return None;
    }
    match outline.stream_options() {
        // The object has a member, `stream`: hence the comma.
        None => Some(insertion(closing_brace, r#","stream_options":{"include_usage":true}"#)),
        Some(at) if is_off(&body[at.clone()]) => Some(Edit { at, with: r#"{"include_usage":true}"# }),
        Some(at) => options_edit(&body[at.clone()], at.start),
    }
}

/// The edit inside the object that `stream_options` is; `offset` is its place in the body.
fn options_edit(options: &[u8], offset: usize) -> Option<Edit> {
    let mut empty = true;
    let mut include = None;
    let object = each_member(options, |key, value| {
        empty = false;
        if spells(key, "include_usage") {
            include = Some(value);
        }
    })?;
    let end = offset + object.end - 1;
    match include {
        None if empty => Some(insertion(end, r#""include_usage":true"#)),
        None => Some(insertion(end, r#","include_usage":true"#)),
        Some(at) if is_off(&options[at.clone()]) => Some(Edit { at: offset + at.start..offset + at.end, with: "true" }),
        // Asked already, or a value that upstream may judge.
        Some(_) => None,
    }
}

fn insertion(at: usize, with: &'static str) -> Edit {
    Edit { at: at..at, with }
}

fn is_off(value: &[u8]) -> bool {
    value == b"null" || value == b"false"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask_for_usage(body: &[u8]) -> Option<Vec<u8>> {
        edit(body, &RequestOutline::of(body)).map(|edit| edit.apply(body))
    }

    fn check(body: &str, expected: Option<&str>) {
        let edited = ask_for_usage(body.as_bytes()).map(|edited| String::from_utf8(edited).expect("stays UTF-8"));
        assert_eq!(edited.as_deref(), expected, "{body}");
    }

    #[test]
    fn a_stream_that_does_not_ask_is_made_to_ask() {
        check(r#"{"stream":true}"#, Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#));
        check(
            " {\n \"stream\" : true\n} \n",
            Some(" {\n \"stream\" : true\n,\"stream_options\":{\"include_usage\":true}} \n"),
        );
        check(
            r#"{"stream":true,"stream_options":null,"n":1}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true},"n":1}"#),
        );
        check(
            r#"{"stream":true,"stream_options":false}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        );
        check(
            r#"{"stream_options":{},"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        );
        check(
            r#"{"stream_options": { } ,"stream":true}"#,
            Some(r#"{"stream_options": { "include_usage":true} ,"stream":true}"#),
        );
        check(
            r#"{"stream":true,"stream_options":{"include_usage": false }}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage": true }}"#),
        );
        check(
            r#"{"stream":true,"stream_options":{"include_usage":null,"x":1}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true,"x":1}}"#),
        );
        check(
            r#"{"stream":true,"stream_options":{"x": {"include_usage":true} }}"#,
            Some(r#"{"stream":true,"stream_options":{"x": {"include_usage":true} ,"include_usage":true}}"#),
        );
        check(r#"{"\u0073tream":true}"#, Some(r#"{"\u0073tream":true,"stream_options":{"include_usage":true}}"#));
        check(
            r#"{"stream":true,"stream\u005foptions":null}"#,
            Some(r#"{"stream":true,"stream\u005foptions":{"include_usage":true}}"#),
        );
        check(
            r#"{"stream":true,"stream_options":{"include\u005fusage":false}}"#,
            Some(r#"{"stream":true,"stream_options":{"include\u005fusage":true}}"#),
        );
    }

    #[test]
    fn number_forms_order_and_escapes_stay() {
        check(
            r#"{"z":1.0e-02,"seed":12345678901234567890123,"a":"\u00e9\/é","stream":true,"z":-0}"#,
            Some(
                r#"{"z":1.0e-02,"seed":12345678901234567890123,"a":"\u00e9\/é","stream":true,"z":-0,"stream_options":{"include_usage":true}}"#,
            ),
        );
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        check(r#"{"stream":true,"stream":false}"#, None);
        check(
            r#"{"stream":false,"stream":true}"#,
            Some(r#"{"stream":false,"stream":true,"stream_options":{"include_usage":true}}"#),
        );
        check(
            r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":null}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":{"include_usage":true}}"#),
        );
        check(r#"{"stream":true,"stream_options":null,"stream_options":{"include_usage":true}}"#, None);
        check(
            r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":true}}"#),
        );
        check(r#"{"stream":true,"stream_options":{"include_usage":false,"include_usage":true}}"#, None);
    }

    #[test]
    fn a_body_that_is_not_ours_to_change_goes_as_it_came() {
        for body in [
            "",
            "hello",
            "null",
            "[]",
            "true",
            "{}",
            r#"[{"stream":true}]"#,
            r#"{"stream":false}"#,
            r#"{"stream":null}"#,
            r#"{"stream":"false"}"#,
            r#"{"stream":"x"}"#,
            r#"{"stream":[true]}"#,
            r#"{"Stream":true}"#,
            r#"{"x":{"stream":true}}"#,
            r#"{"stream":true"#,
            r#"{"stream":true,}"#,
            r#"{"stream":true}{}"#,
            r#"{"stream":true}x"#,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":1}}"#,
            r#"{"stream":true,"stream_options":{"include_usage":"false"}}"#,
            r#"{"stream":true,"stream_options":[]}"#,
            r#"{"stream":true,"stream_options":true}"#,
            r#"{"stream":true,"stream_options":"x"}"#,
            r#"{"stream":true,"stream_options":0}"#,
        ] {
            check(body, None);
        }
        assert_eq!(ask_for_usage(b"{\"stream\":true,\"a\":\xff}"), None);
    }

    #[test]
    fn a_mark_in_front_and_latin_1_stay_as_they_came() {
        check(
            "\u{feff}{\"stream\":true}",
            Some("\u{feff}{\"stream\":true,\"stream_options\":{\"include_usage\":true}}"),
        );
        check(r#"{"stream":"true"}"#, Some(r#"{"stream":"true","stream_options":{"include_usage":true}}"#));
        check(r#"{"stream":1}"#, Some(r#"{"stream":1,"stream_options":{"include_usage":true}}"#));
        let edited = ask_for_usage(b"{\"a\":\"Perch\xe8?\",\"stream\":true,\"stream_options\":{}}");
        let expected = b"{\"a\":\"Perch\xe8?\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}";
        assert_eq!(edited.as_deref(), Some(&expected[..]));
    }
}
