//! Conversations as agents have them: which belongs to which, and where a prompt no longer is what was said before.
//! Against an oracle that keeps every prompt as a list of texts and compares each with each.

use std::sync::Arc;

use serde_json::Value;

use crate::harness::*;

/// One thing that a template renders: `t`ool, `s`ystem text or `m`essage, and how it is rendered.
type Rendered = (char, String);

/// What a client keeps of one conversation.
#[derive(Clone)]
struct Talk {
    dialect: usize,
    /// The client program, and the field and value that name the conversation.
    client: String,
    session: Option<(&'static str, String)>,
    system: String,
    tools: Vec<String>,
    messages: Vec<(&'static str, String)>,
    model: &'static str,
}

/// A request as the oracle remembers it.
struct Sent {
    talk: usize,
    model: &'static str,
    rendered: Vec<Rendered>,
}

/// What a row shall say.
struct Judged {
    of: Option<i64>,
    bytes: i64,
    messages: i64,
    reason: &'static str,
}

const SESSION_FIELDS: [&str; 4] = ["X-Claude-Code-Session-Id", "session-id", "x-session-affinity", "agent-session-id"];
const DIALECTS: usize = 3;

/// Numbers that only look random, as those of the unit tests.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    /// A text that hardly another one begins like, as JSON.
    fn text(&mut self) -> String {
        let words: String = (0..1 + self.below(60)).map(|_| format!("{:x} ", self.below(1 << 20))).collect();
        let odd = ["", "ü€", "\"\\/", "\n\t", "]}{[,"][self.below(5)];
        Value::from(format!("{words}{odd}{words}")).to_string()
    }
}

impl Talk {
    fn new(number: usize, random: &mut Random) -> Talk {
        let named = random.below(2) == 0;
        Talk {
            dialect: random.below(DIALECTS),
            client: ["agent/1", "other/2"][random.below(2)].to_owned(),
            session: named.then(|| (SESSION_FIELDS[random.below(4)], format!("talk-{number}"))),
            system: random.text(),
            tools: (0..random.below(4)).map(|_| random.text()).collect(),
            messages: vec![("user", random.text())],
            model: ["m-1", "m-2"][random.below(2)],
        }
    }

    /// What happens between two requests. What leaves nothing of the beginning makes another conversation, unless a
    /// field names it.
    fn go_on(&mut self, random: &mut Random) {
        let (count, named) = (self.messages.len(), self.session.is_some());
        let first = usize::from(!named);
        match random.below(14) {
            0 => self.system = random.text(),
            1 => self.tools.push(random.text()),
            2 if self.tools.len() > 1 => self.tools.rotate_left(1),
            3 if count > 2 => self.messages[first + random.below(count - first)].1 = random.text(),
            4 if count > 2 => drop(self.messages.remove(first + random.below(count - first))),
            // Back to an earlier place, from where it goes on in another way.
            5 if count > 2 => {
                self.messages.truncate(1 + random.below(count - 1));
                self.messages.push(("user", random.text()));
            }
            // A summary in the place of all that was said.
            6 if named && count > 2 => self.messages = vec![("user", random.text())],
            // Once more.
            7 => {}
            _ => {
                self.messages.push(("assistant", random.text()));
                self.messages.push(("user", random.text()));
            }
        }
    }

    fn rendered(&self) -> Vec<Rendered> {
        let tool = |tool: &String| ('t', format!("{{\"name\":{tool}}}"));
        let system = match self.dialect {
            0 => format!("{{\"role\":\"system\",\"content\":{}}}", self.system),
            _ => self.system.clone(),
        };
        let messages = self.messages.iter();
        let messages = messages.map(|(role, text)| ('m', format!("{{\"role\":\"{role}\",\"content\":{text}}}")));
        self.tools.iter().map(tool).chain([('s', system)]).chain(messages).collect()
    }

    /// The request, with marks and spaces that no template renders.
    fn request(&self, random: &mut Random) -> String {
        let mark = r#","cache_control":{"type":"ephemeral"}"#;
        let marked = random.below(self.messages.len());
        let messages = self.messages.iter().enumerate().map(|(place, (role, text))| {
            let space = [" ", ""][random.below(2)];
            let content = match (self.dialect, place == marked, random.below(2)) {
                (1, true, _) => format!("[{{\"type\":\"text\",{space}\"text\":{text}{mark}}}]"),
                (1, false, 0) => format!("[{{\"type\":\"text\",\"text\":{text}}}]{space}"),
                _ => format!("{space}{text}"),
            };
            format!("{{\"role\":{space}\"{role}\",\"content\":{content}}}")
        });
        let messages: Vec<String> = messages.collect();
        let tools: Vec<String> = self.tools.iter().map(|tool| format!("{{\"name\":{tool}}}")).collect();
        let (messages, tools, system, model) = (messages.join(", "), tools.join(","), &self.system, self.model);
        let (path, body) = match self.dialect {
            0 => (
                "/v1/chat/completions",
                format!(
                    r#"{{"model":"{model}","messages":[{{"role":"system","content":{system}}},{messages}],"tools":[{tools}]}}"#
                ),
            ),
            1 => (
                "/v1/messages",
                format!(
                    r#"{{"model":"{model}","system":[{{"type":"text","text":{system}{mark}}}],"messages":[{messages}],"tools":[{tools}]}}"#
                ),
            ),
            _ => (
                "/v1/responses",
                format!(r#"{{"tools":[{tools}],"input":[{messages}],"instructions":{system},"model":"{model}"}}"#),
            ),
        };
        let session = self.session.as_ref().map_or(String::new(), |(field, name)| format!("{field}: {name}\r\n"));
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {}\r\n{session}Content-Length: {}\r\n\r\n{body}",
            self.client,
            body.len()
        )
    }
}

fn bytes(rendered: &[Rendered]) -> i64 {
    rendered.iter().map(|(_, text)| text.len() as i64).sum()
}

fn of_kind(rendered: &[Rendered], kind: char) -> Vec<&String> {
    rendered.iter().filter(|(other, _)| *other == kind).map(|(_, text)| text).collect()
}

fn same<T: PartialEq>(one: &[T], other: &[T]) -> usize {
    (0..one.len().min(other.len())).find(|at| one[*at] != other[*at]).unwrap_or(one.len().min(other.len()))
}

fn judge(earlier: &[Sent], now: &Sent) -> Judged {
    let of_model: Vec<usize> = (0..earlier.len()).filter(|at| earlier[*at].model == now.model).collect();
    let shared = |at: usize| {
        let before = &earlier[at].rendered;
        let messages = same(&of_kind(before, 'm'), &of_kind(&now.rendered, 'm'));
        (messages, bytes(&now.rendered[..same(before, &now.rendered)]), at)
    };
    let Some(mut closest) = of_model.iter().copied().max_by_key(|at| shared(*at)) else {
        return Judged { of: None, bytes: 0, messages: 0, reason: "first" };
    };
    if shared(closest).0 == 0 {
        closest = of_model.iter().copied().rfind(|at| earlier[*at].talk == now.talk).unwrap_or(closest);
    }
    let (before, after) = (&earlier[closest].rendered, &now.rendered);
    let parted = same(before, after);
    let within = match (before.get(parted), after.get(parted)) {
        (Some((_, one)), Some((_, other))) => same(one.as_bytes(), other.as_bytes()) as i64,
        _ => 0,
    };
    let (old, new) = (of_kind(before, 'm'), of_kind(after, 'm'));
    let history = same(&old, &new);
    let (left, right) = (&old[history..], &new[history..]);
    let in_common = history > 0 || right.iter().any(|message| left.contains(message));
    let is_same_talk = earlier[closest].talk == now.talk;
    let between = of_model.iter().any(|at| *at > closest && earlier[*at].talk != now.talk);
    let kinds = [before.get(parted), after.get(parted)].into_iter().flatten().map(|(kind, _)| *kind);
    let reason = match kinds.max() {
        _ if parted == before.len() => {
            if between {
                "other_conversation"
            } else {
                "continued"
            }
        }
        // In the alphabet tools come last, and are rendered first.
        Some('t') if in_common => {
            let sorted = |of: &[Rendered]| {
                let mut tools: Vec<String> = of_kind(of, 't').into_iter().cloned().collect();
                tools.sort();
                tools
            };
            if sorted(before) == sorted(after) { "tools_reordered" } else { "tools_changed" }
        }
        Some('s') if in_common => "system_changed",
        Some('m') if !in_common && !is_same_talk => "first",
        Some('m') => {
            let goes_on_later = right.first().is_some_and(|message| left.contains(message));
            if goes_on_later || right.len() < left.len() { "history_shortened" } else { "message_edited" }
        }
        _ => "first",
    };
    let bytes = bytes(&after[..parted]) + within;
    Judged {
        of: (bytes > 0 || reason != "first").then_some(closest as i64 + 1),
        bytes,
        messages: after[..parted].iter().filter(|(kind, _)| *kind == 'm').count() as i64,
        reason,
    }
}

#[test]
fn rows_tell_conversations_and_prefixes_as_an_oracle_does() {
    let upstream = Upstream::answering(|link, request| {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let reply =
            format!(r#"{{"id":"r","model":{},"usage":{{"prompt_tokens":9,"completion_tokens":2}}}}"#, body["model"]);
        link.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{reply}",
            reply.len()
        ));
    });
    let (url, none) = (upstream.url(), ("LOG_CONTENT", "none"));
    let upstream_at = ("LM_STUDIO_URL", url.as_str());
    for (seed, settings) in [(1, &[upstream_at][..]), (2, &[upstream_at]), (3, &[upstream_at, none])] {
        let folder = Arc::new(Folder::new());
        let mut proxy = Proxy::start(&folder, settings);
        let (mut client, mut random) = (proxy.connect(), Random(seed));
        let mut talks: Vec<Talk> = Vec::new();
        let mut sent: Vec<Sent> = Vec::new();
        let mut names: Vec<(usize, String)> = Vec::new();
        for turn in 0..80 {
            // What is known is in the database, too; where words are kept, to the last byte.
            if turn == 50 && seed < 3 {
                proxy.kill();
                proxy = Proxy::start(&folder, settings);
                client = proxy.connect();
            }
            let number = random.below(talks.len().min(6) + 1);
            let number = if number == talks.len().min(6) { talks.len() } else { talks.len() - 1 - number };
            match talks.get_mut(number) {
                Some(talk) => talk.go_on(&mut random),
                None => talks.push(Talk::new(number, &mut random)),
            }
            let talk = &talks[number];
            assert_eq!(client.ask(talk.request(&mut random)).status(), 200);
            let now = Sent { talk: number, model: talk.model, rendered: talk.rendered() };
            let expected = judge(&sent, &now);
            sent.push(now);
            let row = proxy.json(&format!("/stats/requests/{}", sent.len()));
            let told = (
                row["prefix_of"].as_i64(),
                row["prefix_bytes"].as_i64(),
                row["prefix_messages"].as_i64(),
                row["prefix_break"].as_str(),
            );
            let Judged { of, bytes, messages, reason } = expected;
            let place = format!("seed {seed}, request {}", sent.len());
            assert_eq!(told, (of, Some(bytes), Some(messages), Some(reason)), "{place}");
            let conversation = row["conversation"].as_str().expect("every request of these has one").to_owned();
            match &talks[number].session {
                Some((_, session)) => {
                    assert_eq!(
                        (&conversation, row["conversation_source"].as_str()),
                        (session, Some("header")),
                        "{place}"
                    );
                }
                None => assert_eq!(row["conversation_source"], "prefix", "{place}"),
            }
            // One name for each, and each by one name.
            match names.iter().find(|(talk, name)| *talk == number || *name == conversation) {
                Some(known) => assert_eq!(*known, (number, conversation), "{place}"),
                None => names.push((number, conversation)),
            }
        }
    }
}

#[test]
fn what_goes_on_from_a_reply_belongs_to_its_conversation_and_has_no_prefix() {
    let upstream = Upstream::answering(|link, request| {
        let id = request.field("x-reply-id").expect("told");
        let body = format!(r#"{{"id":"{id}","object":"response","model":"m-1","status":"completed","output":[]}}"#);
        link.send(reply("200 OK", "application/json", body));
    });
    let folder = Arc::new(Folder::new());
    let url = upstream.url();
    let mut proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", url.as_str())]);
    let ask = |proxy: &Proxy, id: &str, before: &str| {
        let body = format!(r#"{{"model":"m-1","input":"Say"{before}}}"#);
        let length = body.len();
        let head =
            format!("POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nX-Reply-Id: {id}\r\nContent-Length: {length}");
        assert_eq!(proxy.ask(format!("{head}\r\n\r\n{body}")).status(), 200);
    };
    ask(&proxy, "resp_1", "");
    ask(&proxy, "resp_2", r#","previous_response_id":"resp_1""#);
    proxy.kill();
    proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", url.as_str())]);
    ask(&proxy, "resp_3", r#","previous_response_id":"resp_2""#);
    ask(&proxy, "resp_4", r#","previous_response_id":"resp_of_another_server""#);
    let rows: Vec<Value> = (1..=4).map(|id| proxy.json(&format!("/stats/requests/{id}"))).collect();
    let of = |row: &Value| (row["conversation"].clone(), row["conversation_source"].clone());
    assert_eq!(rows[0]["conversation_source"], "prefix");
    for row in &rows[1..3] {
        assert_eq!(of(row), (rows[0]["conversation"].clone(), "response".into()));
        assert!(row["prefix_break"].is_null() && row["prompt_bytes"].is_null(), "upstream has the rest of the prompt");
    }
    assert_eq!(of(&rows[3]), ("resp_of_another_server".into(), "response".into()));
}
