//! A prompt of any dialect as messages of Chat Completions, which is what programs for training read.
//!
//! | here | in Messages | in Responses | in LM Studio's own API |
//! |---|---|---|---|
//! | message of the role `system` | `system` | `instructions` | `system_prompt` |
//! | `content` as a text, else as parts | `content`, its blocks | `content`, its parts | one element of `input`, or several |
//! | `tool_calls` of the assistant | `tool_use` | `function_call` | |
//! | `reasoning_content` of the assistant | `thinking` | `reasoning` | |
//! | message of the role `tool` | `tool_result` | `function_call_output` | |
//! | `tools` | `input_schema` is `parameters` | `function` is around it | |
//!
//! Nothing is made up: what Chat Completions have no place for is left out, and what they may have one for is taken over.

use super::form::form;
use super::json_text::{JsonText, quoted, words};
use super::outline::{ElementPart, ElementRole, PlacedElement, Unhashed, placed_elements};
use crate::usage::text::into_lossy;

/// A conversation for training: each message and tool an object of JSON, in one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatMessages {
    /// What was said, instructions first.
    pub messages: Vec<String>,
    /// The tools that there were.
    pub tools: Vec<String>,
    /// Images, audio and files that it had, and that are left out: of them a mark of their size was stored.
    pub left_out: usize,
}

/// What a body says as messages of Chat Completions. `None`: it is no conversation, or not understood as a whole, or
/// something was cut out of it.
pub fn chat_messages(body: &str) -> Option<ChatMessages> {
    let object = JsonText::object(body).filter(|_| !is_cut(body))?;
    // Texts to embed, and several prompts in one request.
    let lists = [object.field("prompt"), object.field("input")];
    if lists.into_iter().flatten().any(|list| list.elements().next().is_some_and(|first| !first.is_object())) {
        return None;
    }
    let (mut thread, mut tools) = (ChatThread::default(), Vec::new());
    for PlacedElement { element, value } in placed_elements(body.as_bytes(), &Unhashed) {
        for value in JsonText::all_of(&body[value]) {
            match element.part {
                ElementPart::Tool => tools.push(tool(value)),
                ElementPart::System if value.field("role").is_none() => thread.instructions.add(value),
                ElementPart::System | ElementPart::Message => thread.add(element.role, value),
            }
        }
    }
    let messages = thread.finish();
    // Arguments of calls are JSON within a string.
    let all_marks = |json: &str| marks(&json.replace("\\\"", "\""));
    let kept: usize = messages.iter().map(|message| all_marks(message)).sum();
    (!messages.is_empty()).then(|| ChatMessages { messages, tools, left_out: all_marks(body).saturating_sub(kept) })
}

/// The answer of a row as the message that follows them. `tool_calls`: as the row has them, a list of objects with
/// `id`, `name` and `arguments`. `None`: there was no answer, or it is not whole.
pub fn answer_message(output: Option<&str>, reasoning: Option<&str>, tool_calls: Option<&str>) -> Option<String> {
    if [output, reasoning, tool_calls].into_iter().flatten().any(is_cut) {
        return None;
    }
    let mut answer = AssistantTurn::default();
    answer.content.parts.extend(output.map(ContentPart::text));
    answer.reasoning.extend(reasoning.map(str::to_owned));
    if let Some(calls) = tool_calls {
        let calls = JsonText::value(calls).filter(|calls| calls.is_array())?;
        answer.calls.extend(calls.elements().map(call));
    }
    (!answer.is_empty()).then(|| answer.message())
}

/// Whether a text has the mark of what was left out of it when it was stored: nobody shall learn from that.
fn is_cut(text: &str) -> bool {
    text.match_indices(" bytes left out]…").any(|(at, _)| {
        let before = text[..at].trim_end_matches(|c: char| c.is_ascii_digit());
        before.len() < at && before.ends_with("…[")
    })
}

/// How many strings of some JSON are nothing but the mark of a payload that was not stored: `[image/png, 2345678 bytes]`.
fn marks(json: &str) -> usize {
    let ends_one = |at: usize| {
        let before = json[..at].trim_end_matches(|c: char| c.is_ascii_digit());
        let kind = before.strip_suffix(", ").filter(|_| before.len() < at);
        kind.and_then(|kind| kind.rsplit_once('"')).is_some_and(|(_, kind)| kind.starts_with('['))
    };
    json.match_indices(" bytes]\"").filter(|(at, _)| ends_one(*at)).count()
}

/// Whether a text is nothing else.
fn is_mark(text: &str) -> bool {
    text.starts_with('[') && !text.contains('"') && marks(&quoted(text)) == 1
}

/// JSON in one line, without what only marks a part of a prompt.
fn plain(value: JsonText) -> String {
    into_lossy(form(value.as_str().as_bytes()))
}

/// An object on its way: members in the order in which they are given.
#[derive(Default)]
struct ObjectText(String);

impl ObjectText {
    /// `json`: the value as it shall stand.
    fn with(mut self, name: &str, json: &str) -> ObjectText {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.extend([&*quoted(name), ":", json]);
        self
    }

    /// A member that may not be there.
    fn with_some(self, name: &str, value: Option<JsonText>) -> ObjectText {
        match value {
            Some(value) => self.with(name, &plain(value)),
            None => self,
        }
    }

    fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn list(elements: &[String]) -> String {
    ["[", &elements.join(","), "]"].concat()
}

/// What a message says.
#[derive(Default)]
struct ContentList {
    parts: Vec<ContentPart>,
}

/// A part of it.
enum ContentPart {
    Text(String),
    /// An object of JSON.
    Other(String),
}

impl ContentPart {
    fn text(text: &str) -> ContentPart {
        ContentPart::Text(text.to_owned())
    }

    fn json(&self) -> String {
        match self {
            ContentPart::Text(text) => {
                ObjectText::default().with("type", "\"text\"").with("text", &quoted(text)).close()
            }
            ContentPart::Other(json) => json.clone(),
        }
    }
}

impl ContentList {
    /// Takes a text, a block, or a list of them.
    fn add(&mut self, value: JsonText) {
        match value.is_array() {
            true => value.elements().for_each(|element| self.block(element)),
            false => self.block(value),
        }
    }

    fn block(&mut self, value: JsonText) {
        let [kind, text, content, refusal] = value.fields(["type", "text", "content", "refusal"]);
        let said = match &*words(kind) {
            "text" | "input_text" | "output_text" | "message" | "refusal" | "" => text.or(content).or(refusal),
            _ => None,
        };
        match said.unwrap_or(value).string() {
            Some(words) if is_mark(&words) => {}
            Some(words) => self.parts.push(ContentPart::Text(words.into_owned())),
            None if marks(value.as_str()) > 0 => {}
            None => self.parts.push(ContentPart::Other(payload(value))),
        }
    }

    /// As `content`: one text is a string.
    fn json(&self) -> String {
        match self.parts.as_slice() {
            [] => "\"\"".to_owned(),
            [ContentPart::Text(text)] => quoted(text),
            parts => list(&parts.iter().map(ContentPart::json).collect::<Vec<_>>()),
        }
    }
}

/// An image, audio or a file as a part of a message.
fn payload(block: JsonText) -> String {
    let [kind, image_url, data_url, source] = block.fields(["type", "image_url", "data_url", "source"]);
    let address = match (&*words(kind), source) {
        ("input_image", _) => image_url.map(|url| words(Some(url)).into_owned()),
        ("image", Some(source)) => {
            let [url, data, media_type] = source.fields(["url", "data", "media_type"]);
            let base64 = || data.map(|data| format!("data:{};base64,{}", words(media_type), words(Some(data))));
            url.map(|url| words(Some(url)).into_owned()).or_else(base64)
        }
        ("image", None) => data_url.map(|url| words(Some(url)).into_owned()),
        _ => None,
    };
    let Some(address) = address else { return plain(block) };
    let url = ObjectText::default().with("url", &quoted(&address)).close();
    ObjectText::default().with("type", "\"image_url\"").with("image_url", &url).close()
}

/// A call of a tool, as any dialect has it.
fn call(call: JsonText) -> String {
    let [id, call_id, kind, function, custom] = call.fields(["id", "call_id", "type", "function", "custom"]);
    let [name, arguments, input] = function.or(custom).unwrap_or(call).fields(["name", "arguments", "input"]);
    let said = arguments.or(input).map_or_else(String::new, |said| match said.string() {
        Some(words) => quoted(&words),
        None => quoted(&plain(said)),
    });
    let is_custom = custom.is_some() || words(kind) == "custom_tool_call";
    let (what, said_as) = if is_custom { ("custom", "input") } else { ("function", "arguments") };
    let of_it = ObjectText::default().with_some("name", name);
    let of_it = if said.is_empty() { of_it } else { of_it.with(said_as, &said) };
    ObjectText::default().with_some("id", call_id.or(id)).with("type", &quoted(what)).with(what, &of_it.close()).close()
}

/// A tool, as any dialect defines it.
fn tool(tool: JsonText) -> String {
    let [kind, function, name, description, parameters, input_schema, strict] =
        tool.fields(["type", "function", "name", "description", "parameters", "input_schema", "strict"]);
    let is_function = matches!(&*words(kind), "" | "function") || input_schema.is_some();
    if function.is_some() || name.is_none() || !is_function {
        return plain(tool);
    }
    let function = ObjectText::default()
        .with_some("name", name)
        .with_some("description", description)
        .with_some("parameters", parameters.or(input_schema))
        .with_some("strict", strict);
    ObjectText::default().with("type", "\"function\"").with("function", &function.close()).close()
}

/// What the assistant said at once.
#[derive(Default)]
struct AssistantTurn {
    content: ContentList,
    reasoning: Vec<String>,
    calls: Vec<String>,
}

impl AssistantTurn {
    fn is_empty(&self) -> bool {
        self.content.parts.is_empty() && self.reasoning.is_empty() && self.calls.is_empty()
    }

    /// Takes the content of a message.
    fn add(&mut self, content: JsonText) {
        if !content.is_array() {
            return self.content.block(content);
        }
        for block in content.elements() {
            let [kind, thinking] = block.fields(["type", "thinking"]);
            match &*words(kind) {
                "thinking" => self.think(thinking),
                "redacted_thinking" => {}
                "tool_use" => self.calls.push(call(block)),
                _ => self.content.block(block),
            }
        }
    }

    /// Takes reasoning: a text, or a list of blocks with text.
    fn think(&mut self, value: Option<JsonText>) {
        let Some(value) = value else { return };
        let texts = value.elements().filter_map(|block| block.field("text")).chain([value]);
        let thoughts = texts.filter_map(JsonText::string).filter(|thought| !thought.is_empty());
        self.reasoning.extend(thoughts.map(|thought| thought.into_owned()));
    }

    fn message(&self) -> String {
        let message = ObjectText::default().with("role", "\"assistant\"");
        let message = match (self.reasoning.as_slice(), self.content.parts.as_slice()) {
            ([], []) => message.with("content", "null"),
            ([], _) => message.with("content", &self.content.json()),
            (reasoning, content) => {
                let said = if content.is_empty() { "null".to_owned() } else { self.content.json() };
                message.with("content", &said).with("reasoning_content", &quoted(&reasoning.join("\n")))
            }
        };
        if self.calls.is_empty() { message } else { message.with("tool_calls", &list(&self.calls)) }.close()
    }
}

/// Messages on their way.
#[derive(Default)]
struct ChatThread {
    instructions: ContentList,
    messages: Vec<String>,
    /// What the assistant says, of which more may follow.
    turn: AssistantTurn,
    /// The same of a user whose message comes block by block.
    blocks: ContentList,
}

impl ChatThread {
    fn add(&mut self, role: ElementRole, value: JsonText) {
        let [told, kind, content, parts] = value.fields(["role", "type", "content", "parts"]);
        let kind = words(kind);
        let said = content.or(parts);
        match (role, told) {
            (ElementRole::Assistant, Some(_)) => self.answer(value, said),
            (ElementRole::Assistant, None) if kind == "reasoning" => {
                let [summary, content] = value.fields(["summary", "content"]);
                self.begin_answer();
                self.turn.think(content.filter(|content| content.elements().next().is_some()).or(summary));
            }
            (ElementRole::Assistant, None) => {
                self.end_blocks();
                if ["function_call", "custom_tool_call"].contains(&&*kind) {
                    self.turn.calls.push(call(value));
                }
            }
            (ElementRole::Tool, None) => self.result(value.field("call_id"), value.field("output")),
            (ElementRole::Tool, Some(_)) => self.result(value.field("tool_call_id"), said),
            (_, Some(role)) => self.message(&words(Some(role)), value.field("name"), said),
            (ElementRole::User, None) => {
                self.end_turn();
                self.blocks.block(value);
            }
            (_, None) => {}
        }
    }

    /// A message of the assistant: what it thought before is part of it.
    fn answer(&mut self, value: JsonText, said: Option<JsonText>) {
        self.begin_answer();
        let [reasoning_content, reasoning, tool_calls, function_call] =
            value.fields(["reasoning_content", "reasoning", "tool_calls", "function_call"]);
        self.turn.think(reasoning_content.or(reasoning));
        said.into_iter().for_each(|said| self.turn.add(said));
        tool_calls.into_iter().flat_map(JsonText::elements).chain(function_call).for_each(|it| {
            self.turn.calls.push(call(it));
        });
    }

    /// Words and thoughts begin a turn, or go on with the thoughts that began it.
    fn begin_answer(&mut self) {
        self.end_blocks();
        if !self.turn.content.parts.is_empty() || !self.turn.calls.is_empty() {
            self.end_turn();
        }
    }

    /// A message of anybody else. In it there may be answers of tools, which are messages of their own.
    fn message(&mut self, role: &str, name: Option<JsonText>, said: Option<JsonText>) {
        self.end_blocks();
        self.end_turn();
        let mut content = ContentList::default();
        let mut has_result = false;
        said.filter(|said| !said.is_array()).into_iter().for_each(|said| content.block(said));
        for block in said.into_iter().flat_map(JsonText::elements) {
            let [kind, id, answer] = block.fields(["type", "tool_use_id", "content"]);
            if words(kind) == "tool_result" {
                self.result(id, answer);
                has_result = true;
            } else {
                content.block(block);
            }
        }
        if !has_result || !content.parts.is_empty() {
            let message = ObjectText::default().with("role", &quoted(role)).with_some("name", name);
            self.messages.push(message.with("content", &content.json()).close());
        }
    }

    /// What a tool answered.
    fn result(&mut self, id: Option<JsonText>, said: Option<JsonText>) {
        self.end_blocks();
        self.end_turn();
        let mut content = ContentList::default();
        said.into_iter().for_each(|said| content.add(said));
        let message = ObjectText::default().with("role", "\"tool\"").with_some("tool_call_id", id);
        self.messages.push(message.with("content", &content.json()).close());
    }

    fn end_turn(&mut self) {
        let turn = std::mem::take(&mut self.turn);
        self.messages.extend((!turn.is_empty()).then(|| turn.message()));
    }

    fn end_blocks(&mut self) {
        let content = std::mem::take(&mut self.blocks);
        if !content.parts.is_empty() {
            let message = ObjectText::default().with("role", "\"user\"");
            self.messages.push(message.with("content", &content.json()).close());
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.end_blocks();
        self.end_turn();
        // Only instructions are no conversation.
        if !self.messages.is_empty() && !self.instructions.parts.is_empty() {
            let message = ObjectText::default().with("role", "\"system\"");
            self.messages.insert(0, message.with("content", &self.instructions.json()).close());
        }
        self.messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::rendering::rendered;

    /// Messages and then tools, one a line.
    #[track_caller]
    fn check(body: &str, expected: &[&str]) {
        let ChatMessages { messages, tools, .. } = chat_messages(body).expect("a conversation");
        let lines: Vec<&str> = messages.iter().chain(&tools).map(String::as_str).collect();
        assert_eq!(lines.join("\n"), expected.join("\n"), "{body}");
        for line in lines {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|it| it.is_object()), "{line}");
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn a_chat_stays_as_it_is_without_marks() {
        check(
            r#"{"messages":[{"role":"system","content":"Be kind."},
            {"role":"user","name":"jane","content":[{"type":"text","text":"Hi\u00e9","cache_control":{"type":"ephemeral"}}]},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"},
             {"type":"image_url","image_url":{"url":"u","detail":"low"}}]},
            {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
             {"id":"c1","type":"function","function":{"name":"f","arguments":"{ \"a\":1}"}},
             {"id":"c2","type":"custom","custom":{"name":"g","input":"ls"}}]},
            {"role":"tool","tool_call_id":"c1","content":"x"},
            {"role":"assistant","content":"Done."},{"role":"assistant","content":""}],
            "tools":[{"type":"function","function":{"name":"f","parameters":{"b":1,"a":2}},"cache_control":{}}]}"#,
            &[
                r#"{"role":"system","content":"Be kind."}"#,
                r#"{"role":"user","name":"jane","content":"Hié"}"#,
                r#"{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"u","detail":"low"}}]}"#,
                r#"{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{ \"a\":1}"}},{"id":"c2","type":"custom","custom":{"name":"g","input":"ls"}}]}"#,
                r#"{"role":"tool","tool_call_id":"c1","content":"x"}"#,
                r#"{"role":"assistant","content":"Done."}"#,
                r#"{"role":"assistant","content":""}"#,
                r#"{"type":"function","function":{"name":"f","parameters":{"b":1,"a":2}}}"#,
            ],
        );
        // Ollama's arguments are an object.
        check(
            r#"{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"b": 1, "a":[]}}}]}]}"#,
            &[
                r#"{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"f","arguments":"{\"b\":1,\"a\":[]}"}}]}"#,
            ],
        );
    }

    #[test]
    fn messages_of_anthropic_are_turned() {
        check(
            r#"{"system":[{"type":"text","text":"One.","cache_control":{"type":"ephemeral"}},{"type":"text","text":"Two."}],
            "messages":[{"role":"user","content":"Hi"},
            {"role":"assistant","content":[{"type":"thinking","thinking":"so","signature":"x"},
             {"type":"redacted_thinking","data":"x"},{"type":"text","text":"Well."},
             {"type":"tool_use","id":"t1","name":"read","input":{"path": "a"}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"no"}]},
             {"type":"tool_result","tool_use_id":"t2"},{"type":"text","text":"And?"},
             {"type":"image","source":{"type":"base64","media_type":"image/png","data":"[image/png, 5 bytes]"}},
             {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},
             {"type":"image","source":{"type":"url","url":"http://a"}}]}],
            "tools":[{"name":"read","description":"Reads.","input_schema":{"type":"object"}},
             {"type":"web_search_20250305","name":"web_search"}]}"#,
            &[
                r#"{"role":"system","content":[{"type":"text","text":"One."},{"type":"text","text":"Two."}]}"#,
                r#"{"role":"user","content":"Hi"}"#,
                r#"{"role":"assistant","content":"Well.","reasoning_content":"so","tool_calls":[{"id":"t1","type":"function","function":{"name":"read","arguments":"{\"path\":\"a\"}"}}]}"#,
                r#"{"role":"tool","tool_call_id":"t1","content":"no"}"#,
                r#"{"role":"tool","tool_call_id":"t2","content":""}"#,
                r#"{"role":"user","content":[{"type":"text","text":"And?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},{"type":"image_url","image_url":{"url":"http://a"}}]}"#,
                r#"{"type":"function","function":{"name":"read","description":"Reads.","parameters":{"type":"object"}}}"#,
                r#"{"type":"web_search_20250305","name":"web_search"}"#,
            ],
        );
    }

    #[test]
    fn what_was_not_stored_is_counted_and_no_part_of_a_message() {
        let of = |content: &str| {
            let chat =
                chat_messages(&format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#)).expect("a chat");
            (chat.messages.concat(), chat.left_out)
        };
        let check = |content: &str, kept: &str, left_out: usize| {
            let message = format!(r#"{{"role":"user","content":{kept}}}"#);
            assert_eq!(of(content), (message, left_out), "{content}");
        };
        let text = r#"{"type":"text","text":"See."}"#;
        let image = r#"{"type":"image_url","image_url":{"url":"[image/png, 5 bytes]"}}"#;
        let audio = r#"{"type":"input_audio","input_audio":{"data":"[audio/wav, 72 bytes]","format":"wav"}}"#;
        let file = r#"{"type":"file","file":{"filename":"a.pdf","file_data":"[application/pdf, 9 bytes]"}}"#;
        check(&format!("[{text},{image},{audio},{file}]"), r#""See.""#, 3);
        check(&format!("[{image}]"), r#""""#, 1);
        check(r#""[image/png, 5 bytes]""#, r#""""#, 1);
        check(&format!(r#"[{text},{{"type":"text","text":"[image/png, 5 bytes]"}}]"#), r#""See.""#, 1);
        // What stays in a call is not counted; what a tool answered is left out.
        let calls = r#"{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{"a":"[image/png, 5 bytes]"}}]}"#;
        let said = format!(r#"{{"messages":[{calls},{{"role":"tool","content":"[image/png, 5 bytes]"}}]}}"#);
        assert_eq!(chat_messages(&said).expect("a chat").left_out, 1);
        // Words may say so, and an address may look like it.
        check(r#""a mark is [image/png, 5 bytes]""#, r#""a mark is [image/png, 5 bytes]""#, 0);
        let address = r#"{"type":"image_url","image_url":{"url":"http://a/[1, 5 bytes]"}}"#;
        check(&format!("[{text},{address}]"), &format!("[{text},{address}]"), 0);
    }

    #[test]
    fn items_of_responses_are_put_together_to_messages() {
        check(
            r#"{"instructions":"Be kind.","input":[
            {"role":"user","content":[{"type":"input_text","text":"Hi"},{"type":"input_image","image_url":"u"}]},
            {"type":"reasoning","summary":[{"type":"summary_text","text":"so"}],"content":[]},
            {"type":"message","role":"assistant","content":[{"type":"output_text","text":"Well.","annotations":[]}]},
            {"type":"function_call","id":"fc","call_id":"c1","name":"f","arguments":"{}"},
            {"type":"custom_tool_call","call_id":"c2","name":"g","input":"ls"},
            {"type":"web_search_call","id":"ws"},
            {"type":"function_call_output","call_id":"c1","output":"x"},
            {"type":"custom_tool_call_output","call_id":"c2","output":[{"type":"input_text","text":"y"}]},
            {"type":"reasoning","content":[{"type":"reasoning_text","text":"a"},{"type":"reasoning_text","text":"b"}]},
            {"type":"message","role":"assistant","content":"Done."},{"type":"message","role":"assistant","content":"More."},
            {"type":"item_reference","id":"x"}],
            "tools":[{"type":"function","name":"f","parameters":{},"strict":false},{"type":"function","name":"bare"},
             {"type":"mcp","server_label":"x"}]}"#,
            &[
                r#"{"role":"system","content":"Be kind."}"#,
                r#"{"role":"user","content":[{"type":"text","text":"Hi"},{"type":"image_url","image_url":{"url":"u"}}]}"#,
                r#"{"role":"assistant","content":"Well.","reasoning_content":"so","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"c2","type":"custom","custom":{"name":"g","input":"ls"}}]}"#,
                r#"{"role":"tool","tool_call_id":"c1","content":"x"}"#,
                r#"{"role":"tool","tool_call_id":"c2","content":"y"}"#,
                r#"{"role":"assistant","content":"Done.","reasoning_content":"a\nb"}"#,
                r#"{"role":"assistant","content":"More."}"#,
                r#"{"type":"function","function":{"name":"f","parameters":{},"strict":false}}"#,
                r#"{"type":"function","function":{"name":"bare"}}"#,
                r#"{"type":"mcp","server_label":"x"}"#,
            ],
        );
        check(r#"{"input":"Hi"}"#, &[r#"{"role":"user","content":"Hi"}"#]);
    }

    #[test]
    fn lm_studio_s_own_api_and_a_prompt_are_a_users_message() {
        check(
            r#"{"system_prompt":"Be kind.","input":[{"type":"text","content":"Hi"},{"type":"image","data_url":"u"}]}"#,
            &[
                r#"{"role":"system","content":"Be kind."}"#,
                r#"{"role":"user","content":[{"type":"text","text":"Hi"},{"type":"image_url","image_url":{"url":"u"}}]}"#,
            ],
        );
        check(r#"{"prompt":"Once"}"#, &[r#"{"role":"user","content":"Once"}"#]);
        check(
            r#"{"contents":[{"role":"user","parts":[{"text":"Hi"}]},{"role":"model","parts":[{"text":"Ho"}]}]}"#,
            &[r#"{"role":"user","content":"Hi"}"#, r#"{"role":"assistant","content":"Ho"}"#],
        );
    }

    #[test]
    fn what_is_no_conversation_is_none() {
        for body in [
            "",
            "hello",
            "{}",
            r#"{"messages":[]}"#,
            r#"{"messages":[{"role":"user","content":"Hi"}"#,
            r#"{"messages":[{"role":"assistant","content":null}]}"#,
            r#"{"system":"Be kind.","messages":[]}"#,
            r#"{"input":["a","b"]}"#,
            r#"{"prompt":["a"]}"#,
            r#"{"prompt":[1,2]}"#,
            r#"{"prompt":"a…[5 bytes left out]…z"}"#,
        ] {
            assert_eq!(chat_messages(body), None, "{body}");
        }
    }

    #[test]
    fn an_answer_is_the_message_that_follows() {
        let check = |output, reasoning, calls, expected: Option<&str>| {
            assert_eq!(answer_message(output, reasoning, calls).as_deref(), expected);
        };
        check(None, None, None, None);
        check(Some("a \"b\"\n"), None, None, Some(r#"{"role":"assistant","content":"a \"b\"\n"}"#));
        check(Some("a"), Some("so"), None, Some(r#"{"role":"assistant","content":"a","reasoning_content":"so"}"#));
        check(
            None,
            None,
            Some(r#"[{"id":"c1","name":"f","arguments":"{\"a\":1}"},{"name":"g","arguments":"ls"}]"#),
            Some(
                r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"type":"function","function":{"name":"g","arguments":"ls"}}]}"#,
            ),
        );
        check(Some("a"), None, Some(r#"[{"id":"c1","na"#), None);
        check(Some("a"), None, Some(r#"[{"name":"f","arguments":"a…[99 bytes left out]…z"}]"#), None);
        check(Some("a…[99 bytes left out]…z"), None, None, None);
        check(
            Some("[99 bytes left out]…"),
            None,
            None,
            Some(r#"{"role":"assistant","content":"[99 bytes left out]…"}"#),
        );
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let small_stack = std::thread::Builder::new().stack_size(256 * 1024).spawn(|| {
            for (open, close) in [
                ("[", "]"),
                ("{\"content\":", "}"),
                ("{\"content\":[", "]}"),
                ("{\"text\":", "}"),
                ("{\"function\":", "}"),
            ] {
                let nested = [&open.repeat(5_000), "1", &close.repeat(5_000)].concat();
                for around in [
                    r#"{"messages":[{"role":"assistant","content":#}]}"#,
                    r#"{"messages":[{"role":"user","content":#}]}"#,
                    r#"{"input":[{"type":"reasoning","summary":#}]}"#,
                    r#"{"system":[#],"tools":[#],"input":"x"}"#,
                ] {
                    let body = around.replace('#', &nested);
                    assert!(chat_messages(&body).is_none_or(|it| !it.messages.is_empty()));
                    assert!(!rendered(&body).is_empty());
                }
            }
        });
        small_stack.expect("a thread starts").join().expect("no overflow, no panic");
    }
}
