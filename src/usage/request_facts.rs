//! What a request says about itself: the members of its body that the row or the relay needs.
//!
//! Does not judge the request: that is upstream's right. A body that is neither one well-formed JSON object nor a form
//! says nothing. Where a key stands twice the last one counts, as in `JSON.parse`, Python and nlohmann::json.

use std::ops::Range;

use memchr::memmem;

use super::form::{each_field, is_form};
use super::members::{each_member, is_true, plain_key, spells, string_value};
use super::numbers::count;
use super::pieces::{PartWalk, PieceEnd};
use super::text::{identifier, lossy, without_partial_character};
use crate::limits::NAME_BYTES_MAX;

/// What a request's body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// `model`, where it is a string that is not empty.
    pub model: Option<String>,
    /// Whether `stream` is `true`, or what some servers take for it ([`is_true`]).
    pub stream: bool,
    /// `user`, where it is a string that is not empty.
    pub user: Option<String>,
    /// Whether `stream_options.include_usage` is, likewise.
    pub asks_usage: bool,
    /// `n`, where it is a count above zero: how many choices the reply shall have.
    pub choices: Option<u64>,
    /// What the body calls the conversation: the first of [`SESSIONS`] that is an [`identifier`].
    pub session: Option<String>,
    /// `thread_id`, likewise: the conversation as upstream knows it.
    pub thread: Option<String>,
    /// `previous_response_id`, likewise: the reply that the request goes on from.
    pub previous_response: Option<String>,
}

/// Where the members that tell stand in a JSON body, as one walk over it finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOutline {
    /// Their values, in the order of [`NAMES`].
    values: [Option<Range<usize>>; NAMES.len()],
    /// One of them stands there twice.
    repeats: bool,
    /// Behind the closing brace; `None`: the body is no well-formed object.
    object_end: Option<usize>,
}

/// The members that tell. The constants below are their places.
const NAMES: [&str; 11] = [
    "model",
    "stream",
    "user",
    "stream_options",
    "n",
    "thread_id",
    "previous_response_id",
    "litellm_session_id",
    "session_id",
    "metadata",
    "prompt_cache_key",
];
const MODEL: usize = 0;
const STREAM: usize = 1;
const USER: usize = 2;
const STREAM_OPTIONS: usize = 3;
const CHOICES: usize = 4;
const THREAD: usize = 5;
const PREVIOUS_RESPONSE: usize = 6;
const METADATA: usize = 9;
/// The places among [`NAMES`] of members by which bodies name their conversations: Cline, which means LiteLLM; OpenRouter; Claude Code and what
/// resembles it, within [`METADATA_USER`]; Codex, opencode and whoever else wants a cache that is found again. A cache
/// key stands last, for it may be one for many conversations.
const SESSIONS: [usize; 4] = [7, 8, METADATA, 10];
/// The member of `metadata` that holds the session, among others.
const METADATA_USER: &str = "user_id";
/// Longest of it that is looked at. Claude Code's has 200 bytes.
const METADATA_USER_BYTES_MAX: usize = 1024;

/// The model that a body asks for and the user that it names, where they stand in its first bytes.
pub fn named_at_first(body: &[u8]) -> (Option<String>, Option<String>) {
    let begin = &body[..body.len().min(FIRST_BYTES)];
    let (mut model, mut user) = (None, None);
    each_member(begin, |key, value| {
        if spells(key, NAMES[MODEL]) {
            model = name(&begin[value]);
        } else if spells(key, NAMES[USER]) {
            user = name(&begin[value]);
        }
    });
    (model, user)
}

/// What is looked at of a request that has to wait: most clients name the model first.
const FIRST_BYTES: usize = 4 * 1024;

impl RequestOutline {
    /// That of a whole body.
    pub fn of(body: &[u8]) -> RequestOutline {
        let (mut outline, mut walk) = (RequestOutline::default(), PartWalk::behind(body, PieceEnd::START));
        while walk.next(|key, value| outline.note(&body[key], value)).is_some() {}
        outline.end(walk.object_end());
        outline
    }

    /// A member is passed on the way.
    pub(super) fn note(&mut self, key: &[u8], value: Range<usize>) {
        let key = plain_key(key);
        if let Some(place) = NAMES.iter().position(|name| *key == *name.as_bytes()) {
            self.repeats |= self.values[place].replace(value).is_some();
        }
    }

    /// The way is over.
    pub(super) fn end(&mut self, object_end: Option<usize>) {
        self.object_end = object_end;
    }

    /// As it was when the walk was at this place. `None`: nobody knows any more.
    pub fn before(&self, at: usize) -> Option<RequestOutline> {
        let values = self.values.clone().map(|value| value.filter(|value| value.end <= at));
        (!self.repeats).then_some(RequestOutline { values, repeats: false, object_end: None })
    }

    /// What the members of this body tell.
    pub fn facts(&self, body: &[u8]) -> RequestFacts {
        let value = |place| self.value(place).map(|value| &body[value]);
        let session = |place| match (place, value(place)?) {
            (METADATA, metadata) => session_of(metadata),
            (_, name) => id(name),
        };
        RequestFacts {
            model: value(MODEL).and_then(name),
            stream: value(STREAM).is_some_and(is_true),
            user: value(USER).and_then(name),
            asks_usage: value(STREAM_OPTIONS).is_some_and(asks_usage),
            choices: value(CHOICES).and_then(count).filter(|n| *n > 0),
            session: SESSIONS.into_iter().find_map(session),
            thread: value(THREAD).and_then(id),
            previous_response: value(PREVIOUS_RESPONSE).and_then(id),
        }
    }

    /// Where the value of `stream` is.
    pub(super) fn stream(&self) -> Option<Range<usize>> {
        self.value(STREAM)
    }

    /// Where that of `stream_options` is.
    pub(super) fn stream_options(&self) -> Option<Range<usize>> {
        self.value(STREAM_OPTIONS)
    }

    /// Where the closing brace of the object is.
    pub(super) fn closing_brace(&self) -> Option<usize> {
        self.object_end.map(|end| end - 1)
    }

    fn value(&self, place: usize) -> Option<Range<usize>> {
        self.values[place].clone().filter(|_| self.object_end.is_some())
    }
}

impl RequestFacts {
    /// Reads the top-level members of a JSON request body, or the fields of a form; anything else says nothing. Names
    /// longer than [`NAME_BYTES_MAX`] are cut.
    pub fn read(body: &[u8]) -> RequestFacts {
        RequestFacts::of_form(body).unwrap_or_else(|| RequestOutline::of(body).facts(body))
    }

    /// Audio is sent as a form; its fields are named as the members of a JSON body. `None`: the body is none.
    pub fn of_form(body: &[u8]) -> Option<RequestFacts> {
        if !is_form(body) {
            return None;
        }
        let mut facts = RequestFacts::default();
        each_field(body, |name, value| match name {
            b"model" => facts.model = field(value),
            b"stream" => facts.stream = value.eq_ignore_ascii_case(b"true") || value == b"1",
            b"user" => facts.user = field(value),
            _ => {}
        });
        Some(facts)
    }
}

fn field(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    let kept = without_partial_character(&value[..value.len().min(NAME_BYTES_MAX)]);
    (!kept.is_empty()).then(|| lossy(kept).chars().filter(|c| !c.is_control()).collect())
}

/// Whether the body may ask for a stream: cheaper than reading it, and never wrong in saying no. Only a body that names
/// `stream`, or spells names in escapes, is read.
pub fn may_stream(body: &[u8]) -> bool {
    let names_it = || memmem::find(body, b"\"stream\"").is_some() || memmem::find(body, b"\\u").is_some();
    (is_form(body) || names_it()) && RequestFacts::read(body).stream
}

fn name(value: &[u8]) -> Option<String> {
    string_value(value, NAME_BYTES_MAX).filter(|name| !name.is_empty())
}

/// A name that must not be cut.
fn id(value: &[u8]) -> Option<String> {
    // A longer one stays longer.
    let text = string_value(value, NAME_BYTES_MAX + 4)?;
    identifier(text.as_bytes()).map(str::to_owned)
}

/// The session in the value of `metadata`: a member of the JSON text that `user_id` is, or at the end of its name,
/// `user_…_account_…_session_…` (Claude Code's newer and older versions).
fn session_of(metadata: &[u8]) -> Option<String> {
    let mut user = None;
    each_member(metadata, |key, value| {
        if spells(key, METADATA_USER) {
            user = string_value(&metadata[value], METADATA_USER_BYTES_MAX);
        }
    })?;
    let user = user?;
    if let Some((_, session)) = user.strip_prefix("user_").and_then(|name| name.rsplit_once("_session_")) {
        return identifier(session.as_bytes()).map(str::to_owned);
    }
    let mut session = None;
    each_member(user.as_bytes(), |key, value| {
        if spells(key, "session_id") {
            session = id(&user.as_bytes()[value]);
        }
    })?;
    session
}

/// Whether the value of `stream_options` asks for usage.
fn asks_usage(options: &[u8]) -> bool {
    let mut asks = false;
    let object = each_member(options, |key, value| {
        if spells(key, "include_usage") {
            asks = is_true(&options[value]);
        }
    });
    object.is_some() && asks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_asked_for_however_its_name_is_spelled() {
        let check = |body: &str, expected: bool| {
            assert_eq!(
                (may_stream(body.as_bytes()), RequestFacts::read(body.as_bytes()).stream),
                (expected, expected),
                "{body}"
            );
        };
        check(r#"{"stream":true}"#, true);
        check(r#"{ "model": "m", "stream" : true }"#, true);
        check(r#"{"\u0073tr\u0065am":true}"#, true);
        check(r#"{"stream":false}"#, false);
        check(r#"{"stream":true,"stream":false}"#, false);
        check(r#"{"stream":"true"}"#, true);
        check("\u{feff}{\"stream\":\"True\"}", true);
        check(r#"{"stream":1}"#, true);
        check(r#"{"stream":"false"}"#, false);
        check(r#"{"messages":[{"stream":true}]}"#, false);
        check(r#"{"prompt":"\"stream\":true"}"#, false);
        check(r#"{"stream_options":{"include_usage":true}}"#, false);
        check("", false);
    }

    /// `expected` as `model stream user asks_usage`, `-` for what is unknown or false.
    fn check(body: &str, expected: &str) {
        let asked = RequestFacts::read(body.as_bytes());
        let flag = |set: bool, name: &'static str| if set { name } else { "-" };
        let told = format!(
            "{} {} {} {}",
            asked.model.as_deref().unwrap_or("-"),
            flag(asked.stream, "stream"),
            asked.user.as_deref().unwrap_or("-"),
            flag(asked.asks_usage, "usage"),
        );
        assert_eq!(told, expected, "{body}");
    }

    #[test]
    fn top_level_members_are_read() {
        check(r#"{"model":"m","messages":[],"stream":true,"user":"ann"}"#, "m stream ann -");
        check(r#"{"stream_options":{"include_usage":true},"stream":true}"#, "- stream - usage");
        check(r#"{"stream_options":{"x":{"include_usage":true}},"model":"m"}"#, "m - - -");
        check(r#"{"m\u006fdel":"a\/b","\u0073tream":true}"#, "a/b stream - -");
        check(r#"{"messages":[{"model":"no","stream":true,"user":"no"}]}"#, "- - - -");
        check(r#" {"model" : "m" } "#, "m - - -");
    }

    #[test]
    fn the_fields_of_a_form_are_read() {
        let field = |name: &str, value: &str| {
            format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let audio = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
                     Content-Type: audio/wav\r\n\r\nRIFF\r\n";
        let end = "--B--\r\n";
        check(&[&field("model", "whisper-1"), audio, end].concat(), "whisper-1 - - -");
        let all = [audio, &field("model", "m"), &field("stream", "True"), &field("user", "ann"), end].concat();
        check(&all, "m stream ann -");
        assert!(may_stream(all.as_bytes()));
        check(&[&field("model", ""), &field("stream", "false"), end].concat(), "- - - -");
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        check(r#"{"model":"a","model":"b","stream":true,"stream":false}"#, "b - - -");
        check(r#"{"model":"a","model":5}"#, "- - - -");
        check(r#"{"stream_options":{"include_usage":true},"stream_options":null}"#, "- - - -");
        check(r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#, "- - - -");
        check(r#"{"stream_options":{"include_usage":false,"include_usage":true}}"#, "- - - usage");
    }

    #[test]
    fn values_of_another_type_are_unknown() {
        check(r#"{"model":null,"stream":"x","user":7,"stream_options":{"include_usage":2}}"#, "- - - -");
        check(r#"{"model":"","stream":[true],"user":"","stream_options":[true]}"#, "- - - -");
    }

    #[test]
    fn the_number_of_choices_is_a_count_above_zero() {
        let check = |body: &str, expected| assert_eq!(RequestFacts::read(body.as_bytes()).choices, expected, "{body}");
        check(r#"{"n":2}"#, Some(2));
        check(r#"{"n":1}"#, Some(1));
        for body in
            ["{}", r#"{"n":0}"#, r#"{"n":null}"#, r#"{"n":-1}"#, r#"{"n":"x"}"#, r#"{"n":1.5}"#, r#"{"m":[{"n":2}]}"#]
        {
            check(body, None);
        }
    }

    #[test]
    fn what_windows_clients_send_is_read() {
        check("\u{feff}{\"model\":\"m\",\"stream\":true}", "m stream - -");
        let asked = RequestFacts::read(
            b"{\"model\":\"m\",\"stream\":true,\"messages\":[{\"content\":\"Perch\xe8?\"}],\"user\":\"Zo\xeb\"}",
        );
        assert_eq!(
            (asked.model.as_deref(), asked.stream, asked.user.as_deref()),
            (Some("m"), true, Some("Zo\u{fffd}"))
        );
    }

    #[test]
    fn what_is_not_an_object_says_nothing() {
        for body in ["", "[]", "null", "hello", r#"{"model":"m""#, r#"{"model":"m"}x"#, r#"[{"model":"m"}]"#] {
            check(body, "- - - -");
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let asked = RequestFacts::read(
            format!(r#"{{"model":"{}","user":"a{}"}}"#, "x".repeat(1000), "é".repeat(1000)).as_bytes(),
        );
        assert_eq!(asked.model.map(|name| name.len()), Some(NAME_BYTES_MAX));
        assert_eq!(asked.user.map(|name| name.len()), Some(NAME_BYTES_MAX - 1));
    }
}
