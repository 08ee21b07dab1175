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

/// The body with `stream_options.include_usage` set to `true`, or `None` when it must go as it came: it is not a JSON
/// object, `stream` is not true, it asks already, or the members in question have values that are not ours to mend.
pub fn ask_for_usage(body: &[u8]) -> Option<Vec<u8>> {
    edit(body).map(|edit| edit.apply(body))
}

/// The edit that [`ask_for_usage`] makes, for a caller that would rather send the body in three parts than copy it.
pub fn edit(body: &[u8]) -> Option<Edit> {
    let mut stream = false;
    let mut options = None;
    let object = each_member(body, |key, value| {
        if spells(key, "stream") {
            stream = is_true(&body[value]);
        } else if spells(key, "stream_options") {
            options = Some(value);
        }
    })?;
    if !stream {
        return None;
    }
    match options {
        // The object has a member, `stream`: hence the comma.
        None => Some(insertion(object.end - 1, r#","stream_options":{"include_usage":true}"#)),
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

/// For a fuzzer: whatever the bytes are, the edit keeps every byte around it, its result is well-formed, asks for
/// usage, and needs no second edit; and a body is edited only if serde_json sees a streaming object in it.
pub fn fuzz_inject(data: &[u8]) {
    let Some(edit) = edit(data) else { return };
    let edited = edit.apply(data);
    assert_eq!(edited[..edit.at.start], data[..edit.at.start]);
    assert_eq!(edited[edit.at.start + edit.with.len()..], data[edit.at.end..]);
    let asked = super::RequestFacts::read(&edited);
    assert!(asked.stream && asked.asks_usage, "the edited body asks");
    assert!(self::edit(&edited).is_none(), "asking twice changes nothing");
    // serde_json stops at 128 levels, at numbers beyond f64 and at lone surrogates, which are all JSON.
    if let Ok(mut before) = serde_json::from_slice::<serde_json::Value>(data) {
        let mut after: serde_json::Value = serde_json::from_slice(&edited).expect("an edited body stays well-formed");
        assert!(is_true(before["stream"].to_string().as_bytes()) && after["stream_options"]["include_usage"] == true);
        for value in [&mut before, &mut after] {
            let members = value.as_object_mut().expect("only objects are edited");
            if let Some(serde_json::Value::Object(options)) = members.get_mut("stream_options") {
                options.remove("include_usage");
            }
            // Absent, off and empty mean the same once `include_usage` is set aside.
            if members
                .get("stream_options")
                .is_some_and(|it| it.is_null() || *it == false || *it == serde_json::json!({}))
            {
                members.remove("stream_options");
            }
        }
        assert_eq!(before, after, "nothing else changed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<&str>) {
        let edited = ask_for_usage(body.as_bytes()).map(|edited| String::from_utf8(edited).expect("stays UTF-8"));
        assert_eq!(edited.as_deref(), expected, "{body}");
        fuzz_inject(body.as_bytes());
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

    /// A small generator (Marsaglia's xorshift), so that a failing seed can be run again.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % bound
        }

        fn one<'a>(&mut self, choices: &[&'a str]) -> &'a str {
            choices[self.below(choices.len())]
        }

        fn space(&mut self) -> &'static str {
            self.one(&["", "", "", " ", "\n  ", "\t", "\r\n"])
        }

        fn object(&mut self, keys: &[&str], value: &mut dyn FnMut(&mut Random, &str) -> String) -> String {
            let members: Vec<String> = (0..self.below(6))
                .map(|_| {
                    let key = self.one(keys);
                    let (a, b, c, d) = (self.space(), self.space(), self.space(), self.space());
                    format!("{a}\"{key}\"{b}:{c}{}{d}", value(self, key))
                })
                .collect();
            let inside = if members.is_empty() { self.space().to_owned() } else { members.join(",") };
            format!("{{{inside}}}")
        }

        fn value(&mut self, depth: usize) -> String {
            match self.below(if depth == 0 { 6 } else { 8 }) {
                0 => self.one(&["0", "-0", "1.50", "1E+2", "0.1e-7", "123456789012", "-5"]).to_owned(),
                1 => self.one(&["null", "true", "false"]).to_owned(),
                2..=5 => {
                    self.one(&[r#""""#, r#""a\/b""#, r#""\u00E9é😀""#, r#""}{][,:\"""#, r#""stream\\""#]).to_owned()
                }
                6 => format!("[{}{},{}]", self.space(), self.value(depth - 1), self.value(depth - 1)),
                _ => self.object(&["a", "stream", "stream_options", "include_usage"], &mut |random, _| {
                    random.value(depth - 1)
                }),
            }
        }

        fn body(&mut self) -> String {
            let keys = ["stream", r"\u0073tream", "stream_options", r"stream_option\u0073", "model", "x"];
            let options = ["include_usage", r"include\u005Fusage", "include_obfuscation", "y"];
            self.object(&keys, &mut |random, key| match (key.ends_with("tream"), key.starts_with("stream_o")) {
                (true, _) if random.below(4) > 0 => "true".to_owned(),
                (_, true) if random.below(4) > 0 => random.object(&options, &mut |random, _| {
                    random.one(&["true", "false", "null", "1", r#""x""#, "{}"]).to_owned()
                }),
                _ => random.value(3),
            })
        }
    }

    #[test]
    fn any_random_object_is_changed_in_that_one_member_only() {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut edited = 0;
        for _ in 0..20_000 {
            let body = random.body();
            serde_json::from_str::<serde_json::Value>(&body).expect("the generator makes JSON");
            edited += usize::from(edit(body.as_bytes()).is_some());
            fuzz_inject(body.as_bytes());
        }
        assert!(edited > 2_000, "enough of them are streams that do not ask: {edited}");
    }

    #[test]
    fn mutated_bodies_never_break_the_edit() {
        let mut random = Random(0xD1B5_4A32_D192_ED03);
        for _ in 0..20_000 {
            let mut body = random.body().into_bytes();
            for _ in 0..=random.below(3) {
                let at = random.below(body.len() + 1);
                match random.below(3) {
                    0 if at < body.len() => drop(body.remove(at)),
                    1 if at < body.len() => body[at] = random.below(256) as u8,
                    _ => body.insert(at, random.one(&["{", "}", "\"", "\\", ",", ":", "0", "n"]).as_bytes()[0]),
                }
            }
            fuzz_inject(&body);
        }
    }
}
