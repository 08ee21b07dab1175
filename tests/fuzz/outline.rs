//! The rules of outlines and their comparison. `cargo test` runs them on conversations that it makes, cargo-fuzz on what
//! it thinks of.

use std::hash::{BuildHasher, Hasher};

use lms_metrics_proxy::prompts::comparison::{closeness, compare};
use lms_metrics_proxy::prompts::form::form;
use lms_metrics_proxy::prompts::outline::{elements_of, value_of};
use lms_metrics_proxy::prompts::{Element, Outline, Relation};
use lms_metrics_proxy::usage::pieces::{PieceEnd, pieces_behind};

/// The hash function FNV-1a: of any pieces of a text, that of the text.
#[derive(Clone, Copy)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xCBF2_9CE4_8422_2325)
    }
}

impl BuildHasher for Fnv {
    type Hasher = Fnv;

    fn build_hasher(&self) -> Fnv {
        *self
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Whatever the bytes are, their elements stand one behind the other, are the same piece by piece, and have the length
/// and the hash of their form; and two bodies share no more than either has.
pub fn fuzz_outline(data: &[u8]) {
    // Where the first body ends.
    let (place, bodies) = data.split_at(data.len().min(2));
    let end = place.iter().fold(0, |place, byte| place << 8 | usize::from(*byte)) % (bodies.len() + 1);
    let (before, now) = bodies.split_at(end);
    let [before, now, _] = [before, now, bodies].map(checked_outline);
    let comparison = compare(&before, &now);
    let shared = &now.elements()[..comparison.elements];
    assert_eq!(shared, &before.elements()[..comparison.elements]);
    assert_eq!(comparison.bytes, shared.iter().map(|element| u64::from(element.bytes)).sum::<u64>());
    assert!(comparison.bytes <= comparison.bytes_otherwise && comparison.bytes_otherwise <= now.bytes());
    assert!(closeness(&before, &now, None).is_some_and(|(messages, _)| comparison.messages <= messages));
    let is_empty = now.elements().is_empty();
    let itself = compare(&now, &now).relation;
    assert_eq!(itself, if is_empty { Relation::Unrelated } else { Relation::Continued });
}

fn checked_outline(body: &[u8]) -> Outline {
    let hashes = Fnv::default();
    let whole = elements_of(body, PieceEnd::START, None, &hashes);
    let mut from = 0;
    for placed in &whole {
        assert!(from <= placed.value.start && placed.value.start < placed.value.end && placed.value.end <= body.len());
        from = placed.value.end;
        let form = form(&body[placed.value.clone()]);
        assert_eq!((placed.element.bytes as usize, placed.element.hash), (form.len(), hashes.hash_of(&form)));
    }
    let elements: Vec<Element> = whole.iter().map(|placed| placed.element).collect();
    // More are not told apart, and the rest is one in each piece.
    if elements.len() < 4096 {
        assert_eq!(by_pieces(body, hashes), elements);
    }
    let outline = Outline::of(body, &hashes);
    assert_eq!(outline, Outline::new(elements));
    assert_eq!(Outline::decode(&outline.encode()).as_ref(), Some(&outline));
    if let Some(number) = outline.elements().len().checked_sub(1) {
        assert!(value_of(body, number).is_some() && value_of(body, number + 1).is_none());
    }
    outline
}

/// The elements, found in one piece after another.
fn by_pieces(body: &[u8], hashes: Fnv) -> Vec<Element> {
    let (mut from, mut found) = (PieceEnd::START, Vec::new());
    for end in pieces_behind(body, PieceEnd::START) {
        let of_piece = elements_of(&body[from.at..end.at], from, found.last().copied(), &hashes);
        found.extend(of_piece.into_iter().map(|placed| placed.element));
        from = end;
    }
    found
}

impl Fnv {
    fn hash_of(self, bytes: &[u8]) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lms_metrics_proxy::prompts::ElementPart;
    use lms_metrics_proxy::prompts::session::chain;
    use serde_json::{Value, json};

    use super::*;
    use crate::inject::BODIES;
    use crate::testing::Random;

    /// A prompt as its client means it: each element as it would be without marks.
    #[derive(Clone, Debug, Default)]
    struct Meant {
        tools: Vec<Value>,
        system: Vec<String>,
        messages: Vec<Value>,
    }

    /// How a client sends it.
    #[derive(Clone, Copy, Debug)]
    enum Api {
        Chat,
        Messages,
        Responses,
        Native,
    }

    const APIS: [Api; 4] = [Api::Chat, Api::Messages, Api::Responses, Api::Native];

    fn words(random: &mut Random) -> String {
        format!(
            "{} \"{}\"\n{}",
            random.below(1 << 40),
            "é{[,".repeat(random.index(30)),
            "word ".repeat(random.index(90))
        )
    }

    fn message(random: &mut Random, number: usize) -> Value {
        let role = ["user", "assistant", "tool", "system"][if number == 0 { 0 } else { random.index(4) }];
        match random.below(3) {
            0 => json!({ "role": role, "content": words(random) }),
            1 => json!({ "role": role, "content": [{ "type": "tool_result", "content": words(random) }], "zeta": 1.5 }),
            _ => json!({ "role": role, "content": [
                { "type": "text", "text": words(random) }, { "type": "image", "data": [null, {}, []] },
            ] }),
        }
    }

    fn tool(random: &mut Random) -> Value {
        let name = format!("tool_{}", random.below(1 << 40));
        json!({ "name": name, "parameters": { "content": { "type": "string" }, "required": ["content", "a"] } })
    }

    fn meant(random: &mut Random) -> Meant {
        let messages = (0..2 + random.index(9)).map(|number| message(random, number)).collect();
        Meant {
            tools: (0..random.below(5)).map(|_| tool(random)).collect(),
            system: (0..1 + random.below(2)).map(|_| words(random)).collect(),
            messages,
        }
    }

    /// Text as the client may write it: as a block, which has room for a mark.
    fn marked(random: &mut Random, value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (key, value) in members.iter_mut() {
                    if key == "content" && value.is_string() && random.below(2) == 0 {
                        *value = json!([{ "type": "text", "text": value }]);
                    }
                    marked(random, value);
                }
                if random.below(4) == 0 {
                    members.insert("cache_control".into(), json!({ "type": "ephemeral", "more": [{}, "}"] }));
                }
            }
            Value::Array(elements) => elements.iter_mut().for_each(|element| marked(random, element)),
            _ => {}
        }
    }

    fn body(random: &mut Random, api: Api, meant: &Meant) -> String {
        let Meant { mut tools, system, mut messages } = meant.clone();
        let mut members: Vec<(&str, Value)> = vec![("model", json!("m")), ("seed", json!(random.below(9)))];
        let blocks = |system: &[String]| -> Value {
            system.iter().map(|text| json!({ "type": "text", "text": text })).collect::<Vec<_>>().into()
        };
        let key = match api {
            Api::Chat => {
                let leading = |text: &String| json!({ "role": "system", "content": text });
                messages.splice(0..0, system.iter().map(leading));
                "messages"
            }
            Api::Messages => {
                let whole = system.len() == 1 && random.below(2) == 0;
                members.push(("system", if whole { json!(system[0]) } else { blocks(&system) }));
                "messages"
            }
            Api::Responses => {
                members.push(("instructions", json!(system[0])));
                let leading = |text: &String| json!({ "role": "developer", "content": text });
                messages.splice(0..0, system[1..].iter().map(leading));
                "input"
            }
            Api::Native => {
                members.push(("system_prompt", json!(system[0])));
                let leading = |text: &String| json!({ "role": "system", "content": text });
                messages.splice(0..0, system[1..].iter().map(leading));
                "input"
            }
        };
        messages.iter_mut().chain(&mut tools).for_each(|value| marked(random, value));
        if let Some((_, Value::Array(blocks))) = members.iter_mut().find(|(key, _)| *key == "system") {
            blocks.iter_mut().for_each(|block| marked(random, block));
        }
        members.push((key, messages.into()));
        if !tools.is_empty() {
            members.push(("tools", tools.into()));
        }
        for _ in 0..members.len() {
            let (one, other) = (random.index(members.len()), random.index(members.len()));
            // Instructions keep their place among each other.
            let parts = ["system", "instructions", "system_prompt", "input", "messages"];
            if ![one, other].iter().any(|at| parts.contains(&members[*at].0)) {
                members.swap(one, other);
            }
        }
        let texts: Vec<String> = members
            .iter()
            .map(|(key, value)| match random.below(2) {
                0 => format!("\"{key}\":{value}"),
                _ => format!("\"{key}\" : {}", serde_json::to_string_pretty(value).expect("JSON")),
            })
            .collect();
        format!("{{{}}}", texts.join([",", " ,\r\n\t"][random.index(2)]))
    }

    /// The elements as texts, in the order of rendering, and how long each is.
    fn expected(api: Api, meant: &Meant) -> Vec<(ElementPart, String)> {
        let system = meant.system.iter().enumerate().map(|(number, text)| match (api, number) {
            (Api::Chat, _) | (Api::Native, 1..) => json!({ "role": "system", "content": text }),
            (Api::Responses, 1..) => json!({ "role": "developer", "content": text }),
            _ => json!(text),
        });
        let tools = meant.tools.iter().map(|tool| (ElementPart::Tool, tool.to_string()));
        let messages = meant.messages.iter().map(|message| (ElementPart::Message, message.to_string()));
        tools.chain(system.map(|text| (ElementPart::System, text.to_string()))).chain(messages).collect()
    }

    fn checked(random: &mut Random, api: Api, meant: &Meant) -> Outline {
        let body = body(random, api, meant);
        let outline = checked_outline(body.as_bytes());
        let hashes = Fnv::default();
        let found: Vec<_> =
            outline.elements().iter().map(|element| (element.part, element.bytes as usize, element.hash)).collect();
        let told: Vec<_> = expected(api, meant)
            .iter()
            .map(|(part, text)| (*part, text.len(), hashes.hash_of(text.as_bytes())))
            .collect();
        assert_eq!(found, told, "{body}");
        outline
    }

    #[test]
    fn elements_are_those_that_were_meant_however_they_are_written() {
        let mut random = Random::new(0x5EED);
        for _ in 0..400 {
            let meant = meant(&mut random);
            APIS.into_iter().for_each(|api| drop(checked(&mut random, api, &meant)));
        }
    }

    /// What somebody does to a prompt between two requests, and what that makes of it by its very nature.
    fn changed(random: &mut Random, before: &Meant) -> (Meant, Relation) {
        let mut now = before.clone();
        let count = now.messages.len();
        let goes_on = |random: &mut Random, now: &mut Meant| {
            (0..1 + random.below(3)).for_each(|_| now.messages.push(message(random, 1)));
        };
        let relation = match random.below(11) {
            0 => Relation::Continued,
            1 | 2 => {
                goes_on(random, &mut now);
                Relation::Continued
            }
            3 if now.tools.len() > 1 => {
                let places = (random.index(now.tools.len() - 1), now.tools.len() - 1);
                now.tools.swap(places.0, places.1);
                goes_on(random, &mut now);
                Relation::ToolsReordered
            }
            4 if !now.tools.is_empty() => {
                let place = random.index(now.tools.len());
                now.tools[place] = tool(random);
                Relation::ToolsChanged
            }
            5 => {
                now.tools.insert(random.index(now.tools.len() + 1), tool(random));
                goes_on(random, &mut now);
                Relation::ToolsChanged
            }
            6 => {
                let place = random.index(now.system.len());
                now.system[place] = words(random);
                goes_on(random, &mut now);
                Relation::SystemChanged
            }
            7 => {
                now.messages.truncate(1 + random.index(count - 1));
                Relation::HistoryShortened
            }
            8 if count > 2 => {
                let place = 1 + random.index(count - 2);
                now.messages.remove(place);
                goes_on(random, &mut now);
                Relation::HistoryShortened
            }
            9 => {
                // A summary for all but the last.
                now.messages.splice(..count - 1, [message(random, 0)]);
                // For one it is an edit.
                if count > 2 { Relation::HistoryShortened } else { Relation::MessageEdited }
            }
            10 => {
                let place = random.index(count);
                now.messages[place] = message(random, place);
                goes_on(random, &mut now);
                Relation::MessageEdited
            }
            _ => {
                now = meant(random);
                Relation::Unrelated
            }
        };
        (now, relation)
    }

    /// What two prompts share, told slowly: by texts, place by place, and by sets.
    fn slow(api: Api, before: &Meant, now: &Meant) -> (usize, usize, usize, usize) {
        let (old, new) = (expected(api, before), expected(api, now));
        let bytes = |elements: &[(ElementPart, String)]| elements.iter().map(|(_, text)| text.len()).sum::<usize>();
        let mut shared = 0;
        while shared < old.len() && old.get(shared) == new.get(shared) {
            shared += 1;
        }
        let messages = new[..shared].iter().filter(|(part, _)| *part == ElementPart::Message).count();
        let count = |elements: &[(ElementPart, String)], part| elements.iter().filter(|(of, _)| *of < part).count();
        let broken = old.get(shared).map(|(part, _)| new.get(shared).map_or(*part, |(other, _)| *part.min(other)));
        let otherwise = match broken {
            None => bytes(&new[..shared]),
            Some(ElementPart::Message) => {
                let places: BTreeMap<&str, usize> = old
                    .iter()
                    .enumerate()
                    .skip(shared)
                    .rev()
                    .map(|(place, (_, text))| (text.as_str(), place))
                    .collect();
                let again = (shared..new.len()).find_map(|at| Some((at, *places.get(new[at].1.as_str())?)));
                let behind = again.map_or(0, |(at, place)| {
                    let run = new[at..].iter().zip(&old[place..]).take_while(|(new, old)| new == old);
                    let edited =
                        if at == shared + 1 && place == at { old[shared].1.len().min(new[shared].1.len()) } else { 0 };
                    edited + run.map(|((_, text), _)| text.len()).sum::<usize>()
                });
                bytes(&new[..shared]) + behind
            }
            Some(part) => {
                let next = if part == ElementPart::Tool { ElementPart::System } else { ElementPart::Message };
                let (old_at, new_at) = (count(&old, next), count(&new, next));
                let same = new[new_at..].iter().zip(&old[old_at..]).take_while(|(new, old)| new == old).count();
                let of_part = bytes(&old[count(&old, part)..old_at]).min(bytes(&new[count(&new, part)..new_at]));
                bytes(&new[..count(&new, part)]) + of_part + bytes(&new[new_at..new_at + same])
            }
        };
        (shared, bytes(&new[..shared]), messages, otherwise)
    }

    #[test]
    fn what_becomes_of_a_prompt_is_what_was_done_to_it() {
        let mut random = Random::new(16);
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..200 {
            let (api, mut before) = (APIS[random.index(4)], meant(&mut random));
            for _ in 0..6 {
                let (now, relation) = changed(&mut random, &before);
                let outlines = [&before, &now].map(|meant| checked(&mut random, api, meant));
                let found = compare(&outlines[0], &outlines[1]);
                let case = format!("{api:?}: {before:?} and then {now:?}");
                assert_eq!(found.relation, relation, "{case}");
                let (elements, bytes, messages, otherwise) = slow(api, &before, &now);
                let told = (found.elements, found.bytes as usize, found.messages);
                assert_eq!(told, (elements, bytes, messages), "{case}");
                if relation != Relation::Unrelated {
                    assert_eq!(found.bytes_otherwise as usize, otherwise, "{case}");
                }
                let links = outlines.map(|outline| chain(outline.part(ElementPart::Message), 5).collect::<Vec<_>>());
                let goes_on = now.messages.starts_with(&before.messages);
                assert_eq!(links[1].contains(links[0].last().expect("there are messages")), goes_on, "{case}");
                *seen.entry(format!("{relation:?}")).or_default() += 1;
                before = now;
                before.messages.truncate(12);
                if before.messages.len() < 2 {
                    before = meant(&mut random);
                }
            }
        }
        assert!(seen.len() == 7 && seen.values().all(|times| *times > 20), "{seen:?}");
    }

    #[test]
    fn random_and_broken_bodies_keep_the_rules() {
        let mut random = Random::new(8);
        BODIES.iter().for_each(|body| fuzz_outline(body.as_bytes()));
        for _ in 0..1_000 {
            let api = APIS[random.index(4)];
            let before = meant(&mut random);
            let (now, _) = changed(&mut random, &before);
            let bodies = [&before, &now].map(|meant| body(&mut random, api, meant));
            let place = (bodies[0].len() as u16).to_be_bytes();
            let mut bytes = [&place[..], bodies[0].as_bytes(), bodies[1].as_bytes()].concat();
            for _ in 0..random.below(3) {
                let at = random.index(bytes.len());
                bytes[at] = b"{}[],:\"\\ 07ae\xff"[random.index(14)];
            }
            bytes.truncate(bytes.len() - random.index(2) * random.index(bytes.len()));
            fuzz_outline(&bytes);
        }
    }
}
