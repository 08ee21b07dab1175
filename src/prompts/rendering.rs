//! A prompt as a person reads it: the text in each of its elements, whatever the dialect.
//!
//! | in the body | as text |
//! |---|---|
//! | a string, a block of text | what it says |
//! | what the model thought | `[thinking]`, and a line below |
//! | a call of a tool | `[call read_file call_1] {"path": "src/lib.rs"}` |
//! | what a tool answered | `[result call_1]`, and a line below |
//! | an image, audio, a file | `[image] …`, with the mark or the address that is in its place |
//! | the definition of a tool | its description, then its parameters |
//! | what else says something | `[name] value` |
//!
//! What names or marks a part of the body alone (`id`, `status`, `cache_control`) is no text.

use std::borrow::Cow;
use std::hash::BuildHasher;

use super::json_text::{JsonText, in_line, in_lines, words};
use super::outline::{Element, ElementPart, ElementRole, PlacedElement, Unhashed, placed_elements};
use crate::usage::text::floor_boundary;

/// An element of a prompt as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderedElement {
    /// What it is.
    pub part: ElementPart,
    /// Who says it.
    pub role: ElementRole,
    /// Where it stands, and what it is called: `message 3 (user)`, `tool 2 (read_file)`, `system`.
    pub heading: String,
    /// What it is called: a role, the name of a tool, the kind of an item. Empty where it is not called anything.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Longest address of an image that is shown, in bytes. Those of files and web pages are shorter; an image in base64 is
/// not worth reading.
const ADDRESS_BYTES_MAX: usize = 200;

/// How deep words are looked for: a message has blocks, which have blocks, which have texts.
const DEPTH_MAX: usize = 8;

/// The elements of a body, in the order of its outline. What is not understood of it is the last one.
pub fn rendered(body: &str) -> Vec<RenderedElement> {
    unrendered(body, &Unhashed).iter().map(UnrenderedElement::render).collect()
}

/// An element of a body before it is read.
pub(super) struct UnrenderedElement<'a> {
    /// The element, with its hash.
    pub(super) element: Element,
    /// What it is called, with a number where there may be several.
    place: (&'static str, Option<usize>),
    /// Its value, or several that are one element.
    values: &'a str,
}

/// All of them; as [`rendered`] has them.
pub(super) fn unrendered<'a>(body: &'a str, hashes: &impl BuildHasher) -> Vec<UnrenderedElement<'a>> {
    let placed = placed_elements(body.as_bytes(), hashes);
    let is_block = |it: &PlacedElement| {
        it.element.part == ElementPart::System && JsonText::first_of(&body[it.value.clone()]).field("role").is_none()
    };
    let is_alone = placed.iter().filter(|it| is_block(it)).count() == 1;
    let (mut tools, mut blocks, mut messages) = (0.., 0.., 0..);
    let mut elements = Vec::with_capacity(placed.len() + 1);
    for it in &placed {
        let place = match it.element.part {
            ElementPart::Tool => ("tool", tools.next()),
            // Instructions in a member of their own: a message among others tells its role.
            ElementPart::System if is_block(it) => ("system", blocks.next().filter(|_| !is_alone)),
            ElementPart::System | ElementPart::Message => ("message", messages.next()),
        };
        elements.push(UnrenderedElement { element: it.element, place, values: &body[it.value.clone()] });
    }
    if placed.is_empty() || JsonText::object(body).is_none() {
        let rest = &body[placed.iter().map(|it| it.value.end).max().unwrap_or(0)..];
        let (part, role, bytes) = (ElementPart::Message, ElementRole::Other, u32::try_from(rest.len()));
        let element = Element { part, role, bytes: bytes.unwrap_or(u32::MAX), hash: hashes.hash_one(rest) };
        elements.push(UnrenderedElement { element, place: (REST[usize::from(placed.is_empty())], None), values: rest });
    }
    elements
}

/// What is called so is no element.
const REST: [&str; 2] = ["rest of the body", "body"];

impl UnrenderedElement<'_> {
    /// Reads it.
    pub(super) fn render(&self) -> RenderedElement {
        let Element { part, role, .. } = self.element;
        let (what, number) = self.place;
        if REST.contains(&what) {
            let text = JsonText::object(self.values).map_or_else(|| self.values.to_owned(), in_lines);
            return RenderedElement { part, role, heading: what.to_owned(), name: String::new(), text };
        }
        let value = JsonText::first_of(self.values);
        let name = if what == "system" { String::new() } else { name(&self.element, value) };
        let mut text = Text::default();
        let mut count = 0;
        for value in JsonText::all_of(self.values) {
            count += 1;
            match part {
                ElementPart::Tool => text.tool(value),
                ElementPart::System | ElementPart::Message => text.said(value),
            }
        }
        let heading = match number {
            None => what.to_owned(),
            Some(number) if count > 1 => format!("{what}s {number} to {}", number + count - 1),
            Some(number) if name.is_empty() => format!("{what} {number}"),
            Some(number) => format!("{what} {number} ({name})"),
        };
        RenderedElement { part, role, heading, name, text: text.lines }
    }
}

/// What an element is called.
fn name(element: &Element, value: JsonText) -> String {
    let [role, kind, name, function] = value.fields(["role", "type", "name", "function"]);
    let name = words(function.and_then(|function| function.field("name")).or(name));
    let first = match (element.part, role) {
        (ElementPart::Tool, _) => return name.into_owned(),
        (_, Some(_)) => words(role),
        (_, None) => words(kind),
    };
    match element.role {
        ElementRole::User if first.is_empty() || role.is_none() => "user".to_owned(),
        _ => [&*first, &*name].join(" ").trim().to_owned(),
    }
}

/// The member of this name, if it is there.
fn find<'a>(members: &[(&str, JsonText<'a>)], name: &str) -> Option<JsonText<'a>> {
    members.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| *value).filter(|value| !value.is_null())
}

/// What stands in the place of an image, audio or a file: its address, or the mark that was put there.
fn address(value: JsonText) -> String {
    /// `source.url`, `image_url.url`, `file.file_data`.
    const DEPTH_MAX: usize = 2;
    let mut at = value;
    for _ in 0..=DEPTH_MAX {
        let found = at.fields([
            "url",
            "data",
            "data_url",
            "image_url",
            "video_url",
            "file_url",
            "file_data",
            "file_id",
            "filename",
            "source",
            "input_audio",
            "file",
            "audio",
        ]);
        match found.into_iter().flatten().next() {
            Some(next) => at = next,
            None => break,
        }
    }
    let Some(address) = at.string() else { return in_line(at) };
    let shown = floor_boundary(&address, ADDRESS_BYTES_MAX);
    if shown == address.len() {
        address.into_owned()
    } else {
        format!("{}… ({} bytes)", &address[..shown], address.len())
    }
}

/// What is said, one thing a line or more.
#[derive(Default)]
struct Text {
    lines: String,
    /// Lists and blocks around what is said now.
    depth: usize,
}

impl Text {
    fn line<'a>(&mut self, line: impl Into<Cow<'a, str>>) {
        let line = line.into();
        if self.lines.is_empty() {
            // Mostly it is all.
            self.lines = line.into_owned();
        } else {
            self.lines.push('\n');
            self.lines.push_str(&line);
        }
    }

    /// A message, an item, a block, a text, or a list of any of them.
    fn said(&mut self, value: JsonText) {
        if let Some(words) = value.string() {
            return self.line(words);
        }
        if self.depth == DEPTH_MAX || !(value.is_array() || value.is_object()) {
            return self.line(in_line(value));
        }
        self.depth += 1;
        match value.is_array() {
            true => value.elements().for_each(|element| self.said(element)),
            false => self.object(value),
        }
        self.depth -= 1;
    }

    fn object(&mut self, value: JsonText) {
        let members: Vec<_> = value.members().collect();
        let kind = words(find(&members, "type"));
        match &*kind {
            "function_call" | "custom_tool_call" | "tool_use" | "server_tool_use" | "mcp_tool_use" => self.call(value),
            "image" | "image_url" | "input_image" | "input_audio" | "audio" | "video" | "video_url" | "file"
            | "input_file" => self.line(format!("[{kind}] {}", address(value))),
            "document" => self.document(value),
            kind => self.members(&members, kind),
        }
    }

    /// What an object says, member by member.
    fn members(&mut self, members: &[(&str, JsonText)], kind: &str) {
        let is_result = kind.ends_with("_output") || kind.ends_with("tool_result");
        let [call_id, tool_call_id, tool_use_id, failed] =
            ["call_id", "tool_call_id", "tool_use_id", "is_error"].map(|name| find(members, name));
        if let Some(id) = tool_call_id.or(tool_use_id).or(call_id).filter(|_| is_result || tool_call_id.is_some()) {
            let failed = if failed.is_some_and(|failed| failed.as_str() == "true") { ", an error" } else { "" };
            self.line(format!("[result {}{failed}]", words(Some(id))));
        }
        for &(name, member) in members {
            let is_text = member.as_str().starts_with('"');
            match name {
                // What names it, what is in its heading or line, and what is for others.
                "type" | "role" | "id" | "call_id" | "tool_call_id" | "tool_use_id" | "is_error" | "status"
                | "name" | "cache_control" | "annotations" | "logprobs" | "signature" | "index" => {}
                _ if member.is_null() => {}
                "thinking" | "reasoning" | "reasoning_content" | "summary" if is_text || member.is_array() => {
                    if member.elements().next().is_some() || member.string().is_some_and(|words| !words.is_empty()) {
                        self.line("[thinking]");
                        self.said(member);
                    }
                }
                "content" if kind == "reasoning" => {
                    self.line("[thinking]");
                    self.said(member);
                }
                "text" | "content" | "parts" | "refusal" => self.said(member),
                "output" if is_result => self.said(member),
                "encrypted_content" | "data" if is_text && ["reasoning", "redacted_thinking"].contains(&kind) => {
                    self.line(format!("[{name}] {} bytes", member.as_str().len() - 2))
                }
                "tool_calls" => member.elements().for_each(|call| self.call(call)),
                "function_call" => self.call(member),
                "images" => member.elements().for_each(|image| self.line(format!("[image] {}", address(image)))),
                _ => self.other(name, member),
            }
        }
    }

    /// A document, which may be text.
    fn document(&mut self, value: JsonText) {
        let [source, title] = value.fields(["source", "title"]);
        let [kind, data, content] = source.map_or([None; 3], |source| source.fields(["type", "data", "content"]));
        match (kind.map(JsonText::as_str), content.or(data)) {
            (Some("\"text\"" | "\"content\""), Some(content)) => {
                self.line(["[document] ", &words(title)].concat().trim_end());
                self.said(content);
            }
            _ => self.line(format!("[document] {}", address(value))),
        }
    }

    /// A call of a tool: `function` as Chat Completions have it, or `name` and its arguments under one of three names.
    fn call(&mut self, call: JsonText) {
        let [id, call_id, function, custom] = call.fields(["id", "call_id", "function", "custom"]);
        let [name, arguments, args, input] =
            function.or(custom).unwrap_or(call).fields(["name", "arguments", "args", "input"]);
        let head = ["[call", &words(name), &words(call_id.or(id))].join(" ");
        let Some(arguments) = arguments.or(args).or(input) else {
            return self.line(head.trim_end().to_owned() + "]");
        };
        // Mostly it is JSON in a string.
        let said = arguments.string();
        let arguments = said.as_deref().map_or(Some(arguments), JsonText::value);
        let arguments = arguments.map_or_else(|| said.as_deref().unwrap_or_default().to_owned(), in_lines);
        self.line(format!("{}] {arguments}", head.trim_end()));
    }

    /// The definition of a tool.
    fn tool(&mut self, value: JsonText) {
        let function = value.field("function").filter(|function| function.is_object());
        let tool = function.unwrap_or(value);
        if !tool.is_object() || tool.field("name").is_none() {
            return self.line(in_lines(value));
        }
        let around = function.is_some().then(|| value.members()).into_iter().flatten();
        for (name, member) in tool.members().chain(around) {
            match (name, member.as_str()) {
                ("name" | "function" | "cache_control", _) | ("type", "\"function\"") | (_, "null") => {}
                ("description", _) => self.said(member),
                ("parameters" | "input_schema", _) => self.line(in_lines(member)),
                _ => self.other(name, member),
            }
        }
    }

    fn other(&mut self, name: &str, member: JsonText) {
        self.line(format!("[{name}] {}", in_lines(member)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `heading: text` of each element, one below the other.
    #[track_caller]
    fn check(body: &str, expected: &str) {
        let elements = rendered(body);
        let shown: Vec<String> = elements.iter().map(|it| format!("{}: {}", it.heading, it.text)).collect();
        assert_eq!(shown.join("\n"), expected, "{body}");
    }

    #[test]
    fn a_chat_reads_as_it_was_said() {
        check(
            r#"{"model":"m","messages":[{"role":"system","content":"Be kind.\nBe short."},
            {"role":"user","name":"jane","content":[{"type":"text","text":"What is"},{"type":"image_url","image_url":{"url":"[image/png, 99 bytes]"}}]},
            {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function",
             "function":{"name":"look","arguments":"{\"at\":\"a\\nb\"}"}},{"id":"c2","type":"custom","custom":{"name":"run","input":"ls"}}]},
            {"role":"tool","tool_call_id":"c1","content":"a\nb"},
            {"role":"assistant","content":"It is\u00e9.","refusal":null},{"role":"critic","content":"No.","mood":"bad"}],
            "tools":[{"type":"function","function":{"name":"look","description":"Looks.\nTwice.","parameters":{"type":"object","properties":{}},"strict":true}}]}"#,
            "tool 0 (look): Looks.\nTwice.\n{\"type\": \"object\", \"properties\": {}}\n[strict] true\n\
             message 0 (system): Be kind.\nBe short.\n\
             message 1 (user jane): What is\n[image_url] [image/png, 99 bytes]\n\
             message 2 (assistant): [thinking]\nhm\n[call look c1] {\"at\": \"a\\nb\"}\n[call run c2] ls\n\
             message 3 (tool): [result c1]\na\nb\n\
             message 4 (assistant): It is\u{e9}.\n\
             message 5 (critic): No.\n[mood] \"bad\"",
        );
    }

    #[test]
    fn messages_of_anthropic_read_as_they_were_said() {
        check(
            r#"{"system":[{"type":"text","text":"One.","cache_control":{"type":"ephemeral"}},{"type":"text","text":"Two."}],
            "messages":[{"role":"user","content":"Hi"},
            {"role":"assistant","content":[{"type":"thinking","thinking":"so","signature":"xx"},{"type":"redacted_thinking","data":"0123"},
             {"type":"text","text":"Well."},{"type":"tool_use","id":"t1","name":"read","input":{"path":"a"}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","is_error":true,"content":[{"type":"text","text":"no"}]},
             {"type":"image","source":{"type":"base64","media_type":"image/png","data":"[image/png, 5 bytes]"}},
             {"type":"document","title":"T","source":{"type":"text","media_type":"text/plain","data":"words"}}]}],
            "tools":[{"name":"read","description":"Reads.","input_schema":{"type":"object"}},{"type":"web_search_20250305","name":"web_search"}]}"#,
            "tool 0 (read): Reads.\n{\"type\": \"object\"}\n\
             tool 1 (web_search): [type] \"web_search_20250305\"\n\
             system 0: One.\nsystem 1: Two.\n\
             message 0 (user): Hi\n\
             message 1 (assistant): [thinking]\nso\n[data] 4 bytes\nWell.\n[call read t1] {\"path\": \"a\"}\n\
             message 2 (user): [result t1, an error]\nno\n[image] [image/png, 5 bytes]\n[document] T\nwords",
        );
        check(r#"{"system":"One.","messages":[]}"#, "system: One.");
    }

    #[test]
    fn responses_read_as_they_were_said() {
        check(
            r#"{"instructions":"Be kind.","input":[{"type":"message","role":"developer","content":[{"type":"input_text","text":"dev"}]},
            {"role":"user","content":"Hi"},
            {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"so"}],"encrypted_content":"0123456"},
            {"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
            {"type":"function_call","id":"fc_1","call_id":"c1","name":"look","arguments":"{}","status":"completed"},
            {"type":"function_call_output","call_id":"c1","output":"seen"},
            {"type":"message","role":"assistant","content":[{"type":"output_text","text":"Done.","annotations":[]},{"type":"refusal","refusal":"No."}]},
            {"type":"item_reference","id":"x"},{"role":"user","content":[{"type":"input_image","image_url":"http://a/b.png","detail":"low"}]}],
            "tools":[{"type":"function","name":"look","parameters":{}},{"type":"mcp","server_label":"x"}]}"#,
            "tool 0 (look): {}\n\
             tool 1: {\"type\": \"mcp\", \"server_label\": \"x\"}\n\
             system: Be kind.\n\
             message 0 (developer): dev\n\
             message 1 (user): Hi\n\
             message 2 (reasoning): [thinking]\nso\n[encrypted_content] 7 bytes\n\
             message 3 (reasoning): [thinking]\nhm\n\
             message 4 (function_call look): [call look c1] {}\n\
             message 5 (function_call_output): [result c1]\nseen\n\
             message 6 (assistant): Done.\nNo.\n\
             message 7 (item_reference): \n\
             message 8 (user): [input_image] http://a/b.png",
        );
        check(r#"{"input":"Hi"}"#, "message 0 (user): Hi");
    }

    #[test]
    fn lm_studio_s_own_api_completions_and_others_read_as_they_were_said() {
        check(
            r#"{"system_prompt":"Be kind.","input":[{"type":"text","content":"Hi"},{"type":"image","data_url":"[image/png, 5 bytes]"}]}"#,
            "system: Be kind.\nmessage 0 (user): Hi\nmessage 1 (user): [image] [image/png, 5 bytes]",
        );
        check(r#"{"prompt":"Once\nupon"}"#, "message 0 (user): Once\nupon");
        check(r#"{"prompt":["a","b"]}"#, "message 0 (user): a\nb");
        check(
            r#"{"contents":[{"role":"user","parts":[{"text":"Hi"}]},{"role":"model","parts":[{"functionCall":{"name":"f"}}]}]}"#,
            "message 0 (user): Hi\nmessage 1 (model): [functionCall] {\"name\": \"f\"}",
        );
        check(
            r#"{"messages":[{"role":"user","content":"Hi","images":["[image/png, 5 bytes]"]},{"role":"assistant","function_call":{"name":"f","arguments":"x y"}}]}"#,
            "message 0 (user): Hi\n[image] [image/png, 5 bytes]\nmessage 1 (assistant): [call f] x y",
        );
    }

    #[test]
    fn what_is_not_understood_is_shown_as_it_stands() {
        check("", "body: ");
        check("hello \"world", "body: hello \"world");
        check(r#"{"model": "m", "file":5}"#, r#"body: {"model": "m", "file": 5}"#);
        check(
            r#"{"messages":[{"role":"user","content":"Hi"},{"role":"us…[9 bytes left out]…"x"}]"#,
            "message 0 (user): Hi\nrest of the body: ,{\"role\":\"us…[9 bytes left out]…\"x\"}]",
        );
        check(
            r#"{"messages":["x",5,null,[],{"content":7}]}"#,
            "message 0 (user): x\nmessage 1: 5\nmessage 2: null\nmessage 3: \nmessage 4: 7",
        );
    }

    #[test]
    fn of_many_elements_the_last_ones_are_one_and_addresses_are_cut() {
        let many = format!("{{\"messages\":[{}\"z\"]}}", "\"a\", ".repeat(4999));
        let last = rendered(&many).pop().expect("some");
        assert_eq!((last.heading.as_str(), last.text.len()), ("messages 4095 to 4999", 905 * 2 - 1));
        let image = format!(
            r#"{{"messages":[{{"content":[{{"type":"image_url","image_url":{{"url":"{}"}}}}]}}]}}"#,
            "é".repeat(500)
        );
        assert_eq!(rendered(&image)[0].text, format!("[image_url] {}… (1000 bytes)", "é".repeat(100)));
    }
}
