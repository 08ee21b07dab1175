//! Which conversation a request belongs to: as its client calls it, else by what its messages begin with.
//!
//! Agents name their conversations, each in its own way. What a head says counts before what the body says, for it is
//! the client's own word, and bodies are put together by libraries. Where several names come, the narrower one counts:
//! an agent that another one calls is a conversation of its own.
//!
//! Nothing is believed: a name groups requests, and nobody decides by it.

use std::hash::{BuildHasher, Hasher};

use serde::{Deserialize, Serialize};

use super::outline::{Element, mixed};
use crate::limits::NAME_BYTES_MAX;
use crate::usage::RequestFacts;
use crate::usage::text::identifier;

/// Fields by which clients name their conversations. The first that is there counts.
const FIELDS: [&str; 12] = [
    // Claude Code; see [`AGENT_FIELD`].
    SESSION_FIELD,
    // Codex: a thread of its own for each agent, in the session of the first. Earlier ones had one name for both.
    "Thread-Id",
    "Session-Id",
    "Session_id",
    "Conversation_id",
    // opencode, each agent with its own; `X-Parent-Session-Id` beside it tells who called it.
    "X-Session-Id",
    "X-Session-Affinity",
    // goose, Qwen Code.
    "Agent-Session-Id",
    "X-Qwen-Code-Session-Id",
    // What gateways know: LiteLLM, Helicone; Hermes behind Open WebUI.
    "X-LiteLLM-Session-Id",
    "Helicone-Session-Id",
    "X-Hermes-Session-Key",
];
/// Claude Code's session, from 2.1.86 on.
const SESSION_FIELD: &str = "X-Claude-Code-Session-Id";
/// Which agent of the session it is, from 2.1.139 on; the first one does not say.
const AGENT_FIELD: &str = "X-Claude-Code-Agent-Id";

/// What told which conversation a request belongs to. As text in the column and JSON field `conversation_source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationSource {
    /// A field of the head.
    Header,
    /// A member of the body.
    Body,
    /// The thread of the server's that it belongs to, or the response that it goes on from.
    Response,
    /// What its messages begin with.
    Prefix,
}

impl ConversationSource {
    const TABLE: [(ConversationSource, &str); 4] = [
        (ConversationSource::Header, "header"),
        (ConversationSource::Body, "body"),
        (ConversationSource::Response, "response"),
        (ConversationSource::Prefix, "prefix"),
    ];

    /// The text in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        ConversationSource::TABLE[self as usize].1
    }

    /// The one of this text.
    pub fn named(name: &str) -> Option<ConversationSource> {
        ConversationSource::TABLE.iter().find(|(_, known)| *known == name).map(|(source, _)| *source)
    }
}

/// What a request says of its conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToldConversation {
    /// Its name.
    Named {
        /// At most [`NAME_BYTES_MAX`] long.
        name: String,
        /// Where it stood.
        source: ConversationSource,
    },
    /// The response that it goes on from: it belongs to the conversation of that one.
    GoesOnFrom {
        /// The id of the response.
        response: String,
    },
    /// Nothing. Its messages tell: see [`chain`].
    #[default]
    Untold,
}

/// What a request says of its conversation. `field`: the value of a field of its head, by a name in any case. `setting`:
/// the field that the user named, which counts before all others.
pub fn told_conversation<'a>(
    field: impl Fn(&str) -> Option<&'a [u8]>,
    setting: Option<&str>,
    asked: &RequestFacts,
) -> ToldConversation {
    let named = |name: &str| field(name).and_then(identifier);
    let known = || FIELDS.into_iter().find_map(|name| named(name).map(|session| (name, session)));
    if let Some(session) = setting.and_then(named) {
        return ToldConversation::Named { name: session.to_owned(), source: ConversationSource::Header };
    }
    if let Some((field, session)) = known() {
        let agent = named(AGENT_FIELD).filter(|_| field == SESSION_FIELD).map(|agent| format!("{session}/{agent}"));
        let name = agent.filter(|name| name.len() <= NAME_BYTES_MAX).unwrap_or_else(|| session.to_owned());
        return ToldConversation::Named { name, source: ConversationSource::Header };
    }
    if let Some(name) = asked.session.clone() {
        return ToldConversation::Named { name, source: ConversationSource::Body };
    }
    if let Some(name) = asked.thread.clone() {
        return ToldConversation::Named { name, source: ConversationSource::Response };
    }
    match asked.previous_response.clone() {
        Some(response) => ToldConversation::GoesOnFrom { response },
        None => ToldConversation::Untold,
    }
}

/// What a chain begins with: who asks. Two users who say the same have two conversations.
pub fn chain_seed(client: Option<&str>, key: Option<&str>, hashes: &impl BuildHasher) -> u64 {
    let mut hasher = hashes.build_hasher();
    for name in [client, key] {
        // As long as it says, so that no other pair of names reads the same.
        hasher.write(&name.map_or(u64::MAX, |name| name.len() as u64).to_le_bytes());
        hasher.write(name.unwrap_or_default().as_bytes());
    }
    hasher.finish()
}

/// One link for each of these messages: it stands for the message and all before it, by whoever asks so.
///
/// The last link is that of the whole prompt. A request goes on with the conversation of an earlier one whose last link
/// is among its own: of several, the one with the most messages. Where there is none, it begins a conversation, named by
/// its own last link ([`chain_name`]).
/// The system text and the tools are no part of it: some agents write them anew each turn.
pub fn chain(messages: &[Element], seed: u64) -> impl ExactSizeIterator<Item = u64> {
    let mut link = seed;
    messages.iter().map(move |message| {
        link = mixed(link ^ message.hash);
        link
    })
}

/// The name of a conversation that this link begins.
pub fn chain_name(link: u64) -> String {
    format!("{link:016x}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::{BuildHasherDefault, DefaultHasher};

    use super::super::outline::{ElementPart, ElementRole};
    use super::*;
    use crate::testing::Random;

    #[test]
    fn each_source_stands_in_its_line_and_is_called_alike_in_files() {
        for (place, (source, name)) in ConversationSource::TABLE.into_iter().enumerate() {
            assert_eq!((source as usize, ConversationSource::named(name)), (place, Some(source)));
            assert_eq!(serde_json::to_value(source).expect("JSON"), source.as_str());
        }
        assert_eq!(ConversationSource::named(""), None);
    }

    /// What is told, as `source name`; of a response, `after id`. `head`: lines of it.
    fn told(head: &str, setting: Option<&str>, body: &str) -> String {
        let fields: Vec<(&str, &str)> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        let field = |name: &str| {
            let found = fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_bytes())
        };
        match told_conversation(field, setting, &RequestFacts::read(body.as_bytes())) {
            ToldConversation::Named { name, source } => format!("{} {name}", source.as_str()),
            ToldConversation::GoesOnFrom { response } => format!("after {response}"),
            ToldConversation::Untold => "-".to_owned(),
        }
    }

    #[track_caller]
    fn check(head: &str, body: &str, expected: &str) {
        assert_eq!(told(head, None, body), expected);
    }

    #[test]
    fn each_known_field_names_the_conversation_in_any_case() {
        for name in FIELDS {
            for name in [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                check(&format!("Host: localhost\n{name}: a-1"), "{}", "header a-1");
            }
        }
        check("X-Request-Id: a-1\nX-Parent-Session-Id: b", "{}", "-");
    }

    #[test]
    fn each_known_member_names_the_conversation() {
        check("", r#"{"session_id":"a"}"#, "body a");
        check("", r#"{"litellm_session_id":"a"}"#, "body a");
        check("", r#"{"prompt_cache_key":"a"}"#, "body a");
        check("", r#"{"metadata":{"user_id":"{\"device_id\":\"d\",\"session_id\":\"a-b\"}"}}"#, "body a-b");
        check("", r#"{"metadata":{"user_id":"user_0a_account__session_a-b"}}"#, "body a-b");
        check("", r#"{"thread_id":"a"}"#, "response a");
        check("", r#"{"previous_response_id":"resp_1"}"#, "after resp_1");
        check("", r#"{"messages":[{"session_id":"a"}],"user":"ann","metadata":{"user_id":"ann"}}"#, "-");
        check("", r#"{"previous_response_id":null}"#, "-");
        check("", "", "-");
    }

    #[test]
    fn the_head_counts_before_the_body_and_a_name_before_a_response() {
        let body = r#"{"previous_response_id":"r","thread_id":"t","session_id":"s"}"#;
        check("X-Session-Id: h", body, "header h");
        check("", body, "body s");
        check("", r#"{"previous_response_id":"r","thread_id":"t"}"#, "response t");
        assert_eq!(told("Thread-Id: h\nx-chat: own", Some("X-Chat"), body), "header own");
        assert_eq!(told("Thread-Id: h", Some("X-Chat"), body), "header h", "where it is not there, the others count");
    }

    #[test]
    fn an_agent_that_another_one_calls_has_its_own() {
        let claude = "X-Claude-Code-Session-Id: s";
        check(claude, r#"{"metadata":{"user_id":"{\"session_id\":\"s\"}"}}"#, "header s");
        check(&format!("X-Claude-Code-Agent-Id: a7\n{claude}"), "{}", "header s/a7");
        check("X-Claude-Code-Agent-Id: a7\nX-Session-Id: s", "{}", "header s");
        let long = "s".repeat(NAME_BYTES_MAX - 2);
        check(&format!("{SESSION_FIELD}: {long}\n{AGENT_FIELD}: a7"), "{}", &format!("header {long}"));
        check("session-id: root\nthread-id: child", r#"{"prompt_cache_key":"root"}"#, "header child");
        check("x-session-affinity: child\nx-parent-session-id: root\nX-Session-Id: child", "{}", "header child");
        // A cache key may be one for many.
        check("", r#"{"prompt_cache_key":"app","session_id":"s"}"#, "body s");
    }

    #[test]
    fn what_is_no_name_names_nothing() {
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for value in ["", "  ", "a\tb", "a\u{7f}", &long] {
            check(&format!("Session-Id: {value}\nX-Session-Id: next"), "{}", "header next");
            let escaped = value.replace('\t', "\\t").replace('\u{7f}', "\\u007f");
            check("", &format!(r#"{{"litellm_session_id":"{escaped}","session_id":"next"}}"#), "body next");
            check("", &format!(r#"{{"thread_id":"{escaped}","previous_response_id":"r"}}"#), "after r");
            assert_eq!(told(&format!("X-Chat: {value}"), Some("X-Chat"), "{}"), "-");
        }
        let just = "n".repeat(NAME_BYTES_MAX);
        check(&format!("Session-Id:  {just} "), "{}", &format!("header {just}"));
        check("", &format!(r#"{{"session_id":"{just}"}}"#), &format!("body {just}"));
        check("", r#"{"session_id":7}"#, "-");
        let field = |_: &str| Some(&b"\xff\xfe"[..]);
        let nothing = RequestFacts::default();
        assert_eq!(told_conversation(field, None, &nothing), ToldConversation::Untold);
    }

    type Hashes = BuildHasherDefault<DefaultHasher>;

    fn messages(hashes: &[u64]) -> Vec<Element> {
        let message =
            |hash: &u64| Element { part: ElementPart::Message, role: ElementRole::Other, bytes: 1, hash: *hash };
        hashes.iter().map(message).collect()
    }

    #[test]
    fn a_link_stands_for_a_message_and_all_before_it() {
        let links = |hashes: &[u64], seed| chain(&messages(hashes), seed).collect::<Vec<_>>();
        let long = links(&[1, 2, 3], 9);
        assert_eq!(long.len(), 3);
        assert_eq!(links(&[1, 2], 9), long[..2]);
        assert_ne!(links(&[2, 1], 9)[1], long[1], "their order counts");
        assert_ne!(links(&[1, 2, 3], 8)[2], long[2], "who asks counts");
        assert!(links(&[], 9).is_empty());
        // These stand in databases.
        assert_eq!(chain_name(long[2]), "563cf877ddcf8cea");
        assert_eq!(chain_name(7), "0000000000000007");
    }

    #[test]
    fn whoever_asks_is_told_apart_by_both_names() {
        let seed = |client, key| chain_seed(client, key, &Hashes::default());
        let all = [
            seed(None, None),
            seed(Some(""), None),
            seed(None, Some("")),
            seed(Some("a"), None),
            seed(None, Some("a")),
            seed(Some("a"), Some("b")),
            seed(Some("b"), Some("a")),
            seed(Some("ab"), Some("")),
            seed(Some(""), Some("ab")),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[place + 1..].contains(one), "{place}");
        }
        assert_eq!(seed(Some("a"), Some("b")), all[5]);
    }

    /// Conversations that grow, branch and are interleaved, told apart by links alone; beside it the slow way: the list
    /// of all earlier prompts of the same client, the longest of which the new one begins with.
    #[test]
    fn conversations_by_links_are_those_by_longest_beginning() {
        let mut random = Random::new(5);
        let mut links: HashMap<u64, usize> = HashMap::new();
        let mut prompts: Vec<(u64, Vec<u64>, usize)> = Vec::new();
        let (mut new, mut continued) = (0, 0);
        for number in 0..3_000 {
            let mut words: Vec<u64> = match random.index(4) {
                0 => Vec::new(),
                _ if prompts.is_empty() => Vec::new(),
                _ => prompts[random.index(prompts.len())].1.clone(),
            };
            // Some go back, some say the same as others.
            words.truncate(words.len() - if random.below(3) == 0 { random.index(words.len() + 1) } else { 0 });
            words.extend((0..1 + random.below(3)).map(|_| 1 + random.below(40)));
            let client = random.below(2);
            let expected = prompts
                .iter()
                .rev()
                .filter(|(other, before, _)| *other == client && words.starts_with(before))
                .max_by_key(|(_, before, _)| before.len());
            let expected = expected.map(|(.., conversation)| *conversation);
            let seed = chain_seed(None, Some(&client.to_string()), &Hashes::default());
            let own: Vec<u64> = chain(&messages(&words), seed).collect();
            let found = own.iter().rev().find_map(|link| links.get(link)).copied();
            assert_eq!(found, expected);
            let conversation = found.unwrap_or(number);
            links.entry(own[own.len() - 1]).or_insert(conversation);
            prompts.push((client, words, conversation));
            *if found.is_some() { &mut continued } else { &mut new } += 1;
        }
        assert!(new > 60 && continued > 1_000, "{new} {continued}");
    }
}
