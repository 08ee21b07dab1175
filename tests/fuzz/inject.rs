//! The rules of the one edit of a request's body that asks for usage. `cargo test` runs them on bodies that it makes,
//! cargo-fuzz on what it thinks of.

use lms_metrics_proxy::usage::members::is_true;
use lms_metrics_proxy::usage::request_facts::RequestOutline;
use lms_metrics_proxy::usage::{RequestFacts, inject};

/// What a fuzzer begins with.
pub const BODIES: [&str; 23] = [
    r#"{"stream":true}"#,
    r#"{"model":"m","messages":[{"role":"user","content":"a\/b\u00e9"}],"seed":1e400,"stream":true}"#,
    r#"{"stream":true,"stream_options":null,"n":-1.5e-2}"#,
    r#"{"stream_options": { } ,"stream": true }"#,
    r#"{"\u0073tream":true,"stream_options":{"include\u005fusage":false,"x":[{}]}}"#,
    "\u{feff}{\"stream\":\"True\",\"a\":\"\u{e8}\"}",
    r#"{"stream":1,"stream_options":{"include_usage":"true"}}"#,
    r#"{"stream":false,"stream":true,"stream_options":{"include_usage":true,"include_usage":null}}"#,
    " {\n \"stream\" : true\n} \n",
    r#"{"stream_options":{},"stream":true}"#,
    r#"{"stream":true,"stream_options":false}"#,
    r#"{"stream":true,"stream_options":{"include_usage":null,"x":1}}"#,
    r#"{"stream":true,"stream_options":{"x": {"include_usage":true} }}"#,
    r#"{"stream":true,"stream\u005foptions":null}"#,
    r#"{"z":1.0e-02,"seed":12345678901234567890123,"a":"\u00e9\/é","stream":true,"z":-0}"#,
    r#"{"stream":true,"stream_options":{"include_usage":true},"stream_options":null}"#,
    r#"{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}"#,
    r#"[{"stream":true}]"#,
    r#"{"x":{"stream":true}}"#,
    r#"{"stream":true,}"#,
    r#"{"stream":true}{}"#,
    r#"{"stream":true,"stream_options":[]}"#,
    "hello",
];

fn edit_of(body: &[u8]) -> Option<inject::Edit> {
    inject::edit(body, &RequestOutline::of(body))
}

/// Whatever the bytes are, the edit keeps every byte around it, its result is well-formed, asks for
/// usage, and needs no second edit; and a body is edited only if serde_json sees a streaming object in it.
pub fn fuzz_inject(data: &[u8]) {
    let Some(edit) = edit_of(data) else { return };
    let edited = edit.apply(data);
    assert_eq!(edited[..edit.at.start], data[..edit.at.start]);
    assert_eq!(edited[edit.at.start + edit.with.len()..], data[edit.at.end..]);
    let asked = RequestFacts::read(&edited);
    assert!(asked.stream && asked.asks_usage, "the edited body asks");
    assert!(edit_of(&edited).is_none(), "asking twice changes nothing");
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
    use crate::testing::Random;

    /// Makes JSON, the same in every run.
    struct Bodies(Random);

    impl Bodies {
        fn below(&mut self, end: usize) -> usize {
            self.0.index(end)
        }

        fn one<'a>(&mut self, choices: &[&'a str]) -> &'a str {
            choices[self.below(choices.len())]
        }

        fn space(&mut self) -> &'static str {
            self.one(&["", "", "", " ", "\n  ", "\t", "\r\n"])
        }

        fn object(&mut self, keys: &[&str], value: &mut dyn FnMut(&mut Bodies, &str) -> String) -> String {
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
    fn known_bodies_keep_the_rules() {
        BODIES.iter().for_each(|body| fuzz_inject(body.as_bytes()));
    }

    #[test]
    fn any_random_object_is_changed_in_that_one_member_only() {
        let mut random = Bodies(Random::new(0x9E37_79B9_7F4A_7C15));
        let mut edited = 0;
        for _ in 0..20_000 {
            let body = random.body();
            serde_json::from_str::<serde_json::Value>(&body).expect("the generator makes JSON");
            edited += usize::from(edit_of(body.as_bytes()).is_some());
            fuzz_inject(body.as_bytes());
        }
        assert!(edited > 2_000, "enough of them are streams that do not ask: {edited}");
    }

    #[test]
    fn mutated_bodies_never_break_the_edit() {
        let mut random = Bodies(Random::new(0xD1B5_4A32_D192_ED03));
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
