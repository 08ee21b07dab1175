//! What changed between two prompts, element by element, as `diff -u` shows it.
//!
//! ```text
//! --- 411 system
//! +++ 412 system
//! @@ -1,3 +1,3 @@
//!  You are an agent.
//! -Current time: 2026-11-28T10:31:07Z
//! +Current time: 2026-11-28T10:32:25Z
//!  You may use tools.
//! --- /dev/null
//! +++ 412 message 7 (user)
//! @@ -0,0 +1 @@
//! +Go on.
//! ```
//!
//! Compared is the text of the elements, not their JSON. Elements that are the same are not told, unless they moved. The
//! work is bounded, and so is what is shown: a line that begins with a backslash tells what is left out.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::hash::{Hash, RandomState};
use std::ops::Range;

use similar::DiffOp;

use super::json_text::{JsonText, in_lines};
use super::line_diff::{LineDiff, RUN_LINES_MAX, list_diff, same_bytes};
use super::outline::{ElementPart, ElementRole};
use super::rendering::{RenderedElement, UnrenderedElement, unrendered};
use super::secrets::secrets_within;
use super::shown::{Tabs, push_shown};
use crate::limits::{DIFF_BYTES_MAX, DIFF_LINES_MAX};
use crate::order::sort_by_key;
use crate::usage::text::floor_boundary;

/// Bytes of a line that are shown. One of code has 120 at most, a paragraph some hundreds.
const LINE_BYTES_MAX: usize = 400;
/// Of these, bytes in front of the first difference.
const LINE_BEFORE_BYTES: usize = 120;

/// A prompt, and what it is called.
#[derive(Clone, Copy, Debug)]
pub struct NamedPrompt<'a> {
    /// Mostly the id of its request.
    pub name: &'a str,
    /// The request's body.
    pub body: &'a str,
}

/// What changed from one prompt to another; nothing where both say the same, be it written in another way.
pub fn prompt_diff(before: NamedPrompt, now: NamedPrompt) -> String {
    if before.body == now.body {
        return String::new();
    }
    let (elements, blocks) = differing_elements(before.body, now.body);
    let mut page =
        DiffPage { names: [before.name, now.name], out: String::new(), left_out: 0, lines_left: DIFF_LINES_MAX };
    for change in changes(elements.each_ref().map(Vec::as_slice), &blocks) {
        page.push(change);
    }
    let [old, new] = [before, now].map(|prompt| other_members(prompt.body));
    if old.text != new.text {
        page.push(ElementChange::Edited(&old, &new));
    }
    page.close()
}

/// What stands beside the elements in a body, one member a line or more.
fn other_members(body: &str) -> RenderedElement {
    const ELEMENTS: [&str; 8] =
        ["messages", "input", "contents", "prompt", "system", "instructions", "system_prompt", "tools"];
    let mut members: Vec<_> = JsonText::object(body).into_iter().flat_map(JsonText::members).collect();
    let count = members.len();
    members.retain(|(name, _)| !ELEMENTS.contains(name));
    if members.len() == count {
        // All of it was told.
        members.clear();
    }
    sort_by_key(&mut members, |(name, _)| *name);
    let lines: Vec<String> = members.into_iter().map(|(name, value)| format!("{name}: {}", in_lines(value))).collect();
    RenderedElement {
        part: ElementPart::Message,
        role: ElementRole::Other,
        heading: "other members".to_owned(),
        name: String::new(),
        text: lines.join("\n"),
    }
}

// ---- which elements changed --------------------------------------------------------------------------------------

/// What became of an element.
enum ElementChange<'a> {
    Added(&'a RenderedElement),
    Removed(&'a RenderedElement),
    Edited(&'a RenderedElement, &'a RenderedElement),
    Moved(&'a RenderedElement, &'a RenderedElement),
}

/// A part of the old and one of the new list between what both have.
type DiffBlock = [Range<usize>; 2];

/// The elements in which two prompts differ, and which of them stand between others that are the same. Only these are
/// read.
fn differing_elements(before: &str, now: &str) -> ([Vec<RenderedElement>; 2], Vec<DiffBlock>) {
    let hashes = RandomState::new();
    let elements = [before, now].map(|body| unrendered(body, &hashes));
    let forms = elements.each_ref().map(|elements| elements.iter().map(|it| it.element).collect::<Vec<_>>());
    let (mut rendered, mut blocks) = ([Vec::new(), Vec::new()], Vec::new());
    for block in differing(&forms[0], &forms[1]) {
        let begins = rendered.each_ref().map(Vec::len);
        for (side, part) in block.into_iter().enumerate() {
            rendered[side].extend(elements[side][part].iter().map(UnrenderedElement::render));
        }
        // What is written in another way may say the same.
        let texts = [0, 1].map(|side: usize| -> Vec<_> {
            rendered[side][begins[side]..].iter().map(|it| (it.part, &*it.name, &*it.text)).collect()
        });
        let blocks_within = differing(&texts[0], &texts[1]);
        blocks.extend(blocks_within.into_iter().map(|[old, new]| {
            [begins[0] + old.start..begins[0] + old.end, begins[1] + new.start..begins[1] + new.end]
        }));
    }
    (rendered, blocks)
}

fn differing<T: Eq + Hash>(old: &[T], new: &[T]) -> Vec<DiffBlock> {
    let mut blocks: Vec<DiffBlock> = Vec::new();
    let mut is_open = false;
    for op in list_diff(old, new) {
        let parts = [op.old_range(), op.new_range()];
        if matches!(op, DiffOp::Equal { .. }) {
            is_open = false;
            continue;
        }
        match blocks.last_mut().filter(|_| is_open) {
            Some(open) => open.iter_mut().zip(parts).for_each(|(open, part)| open.end = part.end),
            None => blocks.push(parts),
        }
        is_open = true;
    }
    blocks
}

/// What changed, in the order of the new prompt.
fn changes<'a>([old, new]: [&'a [RenderedElement]; 2], blocks: &[DiffBlock]) -> Vec<ElementChange<'a>> {
    // The old element that each new one was.
    let mut before = vec![None; new.len()];
    let mut is_matched = vec![false; old.len()];
    // First what is the same elsewhere. Then what is called the same: a message in its place, others anywhere.
    for is_moved in [true, false] {
        let key = |block: usize, it: &'a RenderedElement| {
            let block = if is_moved || it.part != ElementPart::Message { 0 } else { block };
            (block, it.part, it.name.as_str(), if is_moved { it.text.as_str() } else { "" })
        };
        let mut waiting: HashMap<_, VecDeque<usize>> = HashMap::new();
        for (number, [olds, _]) in blocks.iter().enumerate() {
            for at in olds.clone().filter(|at| !is_matched[*at]) {
                waiting.entry(key(number, &old[at])).or_default().push_back(at);
            }
        }
        for (number, [_, news]) in blocks.iter().enumerate() {
            for at in news.clone() {
                let same = || waiting.get_mut(&key(number, &new[at])).and_then(VecDeque::pop_front);
                before[at] = before[at].or_else(same);
                before[at].into_iter().for_each(|same: usize| is_matched[same] = true);
            }
        }
    }
    let mut changes = Vec::new();
    for [olds, news] in blocks.iter().cloned() {
        let removed = olds.filter(|at| !is_matched[*at]).map(|at| (old[at].part, ElementChange::Removed(&old[at])));
        let others = news.map(|at| {
            let change = match before[at].map(|before| &old[before]) {
                None => ElementChange::Added(&new[at]),
                Some(before) if before.text == new[at].text => ElementChange::Moved(before, &new[at]),
                Some(before) => ElementChange::Edited(before, &new[at]),
            };
            (new[at].part, change)
        });
        let mut block: Vec<_> = removed.chain(others).collect();
        sort_by_key(&mut block, |(part, _)| *part);
        changes.extend(block.into_iter().map(|(_, change)| change));
    }
    changes
}

// ---- how it looks ------------------------------------------------------------------------------------------------

/// The diff on its way.
struct DiffPage<'a> {
    names: [&'a str; 2],
    out: String,
    /// Elements that found no room.
    left_out: usize,
    /// Lines that may still be compared one by one.
    lines_left: usize,
}

impl DiffPage<'_> {
    fn push(&mut self, change: ElementChange) {
        if self.out.len() >= DIFF_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        let (elements, is_moved) = match change {
            ElementChange::Added(new) => ([None, Some(new)], false),
            ElementChange::Removed(old) => ([Some(old), None], false),
            ElementChange::Edited(old, new) => ([Some(old), Some(new)], false),
            ElementChange::Moved(old, new) => ([Some(old), Some(new)], true),
        };
        for (sign, (element, name)) in ["---", "+++"].into_iter().zip(elements.into_iter().zip(self.names)) {
            let shown = element.map_or_else(|| "/dev/null".to_owned(), |it| format!("{name} {}", it.heading));
            self.out.extend([sign, " "]);
            push_shown(&mut self.out, &shown, 0..shown.len(), &[], Tabs::SpelledOut);
            self.out.push('\n');
        }
        if is_moved {
            return self.out.push_str("\\ moved, with the same text\n");
        }
        let texts = elements.map(|element| element.map(|it| it.text.as_str()));
        let diff = LineDiff::new(texts, &mut self.lines_left);
        let mut sheet = DiffSheet {
            texts: texts.map(Option::unwrap_or_default),
            room: DIFF_BYTES_MAX.saturating_sub(self.out.len()),
            lines: Vec::new(),
        };
        diff.hunks.iter().for_each(|hunk| sheet.hunk(&diff, hunk));
        sheet.write(&mut self.out);
    }

    fn close(mut self) -> String {
        if self.left_out > 0 {
            // Writing to a string cannot fail.
            let _ = writeln!(self.out, "\\ {} more elements differ", self.left_out);
        }
        self.out
    }
}

/// What is shown of two texts.
struct DiffSheet<'a> {
    texts: [&'a str; 2],
    /// Bytes that may still be shown.
    room: usize,
    lines: Vec<DiffLine>,
}

enum DiffLine {
    /// As it stands.
    Told(String),
    /// Of a line of the old or the new text, this part.
    Quoted { sign: char, side: usize, line: Range<usize>, part: Range<usize> },
}

impl DiffSheet<'_> {
    fn hunk(&mut self, diff: &LineDiff, ops: &[DiffOp]) {
        let (Some(begin), Some(end)) = (ops.first(), ops.last()) else { return };
        let span = |from: Range<usize>, to: Range<usize>| {
            let (start, count) = (diff.first + from.start, to.end - from.start);
            match count {
                0 => format!("{start},0"),
                1 => format!("{}", start + 1),
                _ => format!("{},{count}", start + 1),
            }
        };
        let spans = [span(begin.old_range(), end.old_range()), span(begin.new_range(), end.new_range())];
        self.tell(format!("@@ -{} +{} @@", spans[0], spans[1]));
        for op in ops {
            let runs = [op.old_range(), op.new_range()];
            if matches!(op, DiffOp::Equal { .. }) {
                runs[0].clone().for_each(|line| self.quote(' ', 0, diff.lines[0][line].clone(), 0));
                continue;
            }
            for (side, sign) in [(0, '-'), (1, '+')] {
                let (own, other) = (runs[side].clone(), runs[1 - side].clone());
                for (line, counterpart) in
                    own.clone().zip(other.map(Some).chain(std::iter::repeat(None))).take(RUN_LINES_MAX)
                {
                    let line = diff.lines[side][line].clone();
                    let counterpart =
                        counterpart.and_then(|counterpart| diff.lines[1 - side].get(counterpart)).cloned();
                    let same = counterpart.map_or(0, |counterpart| {
                        same_bytes(&self.texts[side][line.clone()], &self.texts[1 - side][counterpart])
                    });
                    self.quote(sign, side, line, same);
                }
                if own.len() > RUN_LINES_MAX {
                    self.tell(format!("\\ {} more lines of {sign}", own.len() - RUN_LINES_MAX));
                }
            }
        }
    }

    fn tell(&mut self, line: String) {
        if let Some(room) = self.room.checked_sub(line.len() + 1) {
            self.room = room;
            self.lines.push(DiffLine::Told(line));
        }
    }

    /// Shows a line, or what is around `focus` of a long one.
    fn quote(&mut self, sign: char, side: usize, line: Range<usize>, focus: usize) {
        let text = &self.texts[side][line.clone()];
        let begin = if text.len() > LINE_BYTES_MAX { focus.saturating_sub(LINE_BEFORE_BYTES) } else { 0 };
        let begin = floor_boundary(text, begin.min(text.len().saturating_sub(LINE_BYTES_MAX)));
        let part = line.start + begin..line.start + floor_boundary(text, begin + LINE_BYTES_MAX);
        if let Some(room) = self.room.checked_sub(part.len() + 2) {
            self.room = room;
            self.lines.push(DiffLine::Quoted { sign, side, line, part });
        } else if self.room > 0 {
            self.room = 0;
            self.lines.push(DiffLine::Told("\\ more than is shown here".to_owned()));
        }
    }

    fn write(&self, out: &mut String) {
        let secrets = [0, 1].map(|wanted: usize| {
            let parts = self.lines.iter().filter_map(|line| match line {
                DiffLine::Quoted { side, part, .. } if *side == wanted => Some(part.clone()),
                DiffLine::Quoted { .. } | DiffLine::Told(_) => None,
            });
            secrets_within(self.texts[wanted], parts)
        });
        for line in &self.lines {
            match line {
                DiffLine::Told(line) => out.push_str(line),
                DiffLine::Quoted { sign, side, line, part } => {
                    out.push(*sign);
                    out.extend((part.start > line.start).then_some('…'));
                    push_shown(out, self.texts[*side], part.clone(), &secrets[*side], Tabs::Kept);
                    out.extend((part.end < line.end).then_some('…'));
                }
            }
            out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::chat_export::chat_messages;
    use crate::testing::Random;

    fn diff(before: &str, now: &str) -> String {
        prompt_diff(NamedPrompt { name: "A", body: before }, NamedPrompt { name: "B", body: now })
    }

    #[track_caller]
    fn check(before: &str, now: &str, expected: &[&str]) {
        assert_eq!(diff(before, now), expected.iter().map(|line| format!("{line}\n")).collect::<String>());
        assert_eq!(diff(before, before), "");
    }

    /// A prompt whose system text is this one.
    fn system(text: &str) -> String {
        format!("{{\"system\":{}}}", serde_json::to_string(text).expect("text"))
    }

    #[test]
    fn a_line_that_changed_is_shown_with_three_lines_around_it() {
        check(
            &system("1\n2\n3\n4\nIt is 10:31.\n5\n6\n7\n8"),
            &system("1\n2\n3\n4\nIt is 10:32.\n5\n6\n7\n8"),
            &[
                "--- A system",
                "+++ B system",
                "@@ -2,7 +2,7 @@",
                " 2",
                " 3",
                " 4",
                "-It is 10:31.",
                "+It is 10:32.",
                " 5",
                " 6",
                " 7",
            ],
        );
        check(
            &system("1\n2\n3\n4\n5\n6\n7\n8\n9\n10"),
            &system("0\n1\n2\n3\n4\n5\n6\n7\n8\n10"),
            &[
                "--- A system",
                "+++ B system",
                "@@ -1,3 +1,4 @@",
                "+0",
                " 1",
                " 2",
                " 3",
                "@@ -6,5 +7,4 @@",
                " 6",
                " 7",
                " 8",
                "-9",
                " 10",
            ],
        );
        check(&system("ab"), &system("b"), &["--- A system", "+++ B system", "@@ -1 +1 @@", "-ab", "+b"]);
        check(&system("a"), &system("a\n"), &["--- A system", "+++ B system", "@@ -1 +1,2 @@", " a", "+"]);
    }

    #[test]
    fn a_conversation_that_goes_on_has_new_messages() {
        check(
            r#"{"model":"m","messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}]}"#,
            r#"{"model":"m","messages":[{"role":"system","content":"Be kind."},{"role":"user","content":[{"type":"text","text":"Hi","cache_control":{}}]},
                {"role":"assistant","tool_calls":[{"id":"c1","function":{"name":"f","arguments":"{\"a\":1}"}}]},
                {"role":"tool","tool_call_id":"c1","content":"x\ny"}]}"#,
            &[
                "--- /dev/null",
                "+++ B message 2 (assistant)",
                "@@ -0,0 +1 @@",
                "+[call f c1] {\"a\": 1}",
                "--- /dev/null",
                "+++ B message 3 (tool)",
                "@@ -0,0 +1,3 @@",
                "+[result c1]",
                "+x",
                "+y",
            ],
        );
    }

    #[test]
    fn messages_are_compared_with_those_in_their_place_and_tools_with_those_of_their_name() {
        check(
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}],
                "tools":[{"name":"e","description":"zero"},{"name":"f","description":"one"},{"name":"g","description":"two"},{"name":"h","description":"three"}]}"#,
            r#"{"messages":[{"role":"user","content":"A"},{"role":"assistant","content":"b"},{"role":"user","content":"d"},{"role":"user","content":"c"}],
                "tools":[{"name":"h","description":"three"},{"name":"e","description":"zero"},{"name":"g","description":"four"}]}"#,
            &[
                "--- A tool 3 (h)",
                "+++ B tool 0 (h)",
                "\\ moved, with the same text",
                "--- A tool 1 (f)",
                "+++ /dev/null",
                "@@ -1 +0,0 @@",
                "-one",
                "--- A tool 2 (g)",
                "+++ B tool 2 (g)",
                "@@ -1 +1 @@",
                "-two",
                "+four",
                "--- A message 0 (user)",
                "+++ B message 0 (user)",
                "@@ -1 +1 @@",
                "-a",
                "+A",
                "--- /dev/null",
                "+++ B message 2 (user)",
                "@@ -0,0 +1 @@",
                "+d",
            ],
        );
        check(
            r#"{"messages":[{"role":"user","content":"a"}]}"#,
            r#"{"messages":[{"role":"assistant","content":"a"}]}"#,
            &[
                "--- A message 0 (user)",
                "+++ /dev/null",
                "@@ -1 +0,0 @@",
                "-a",
                "--- /dev/null",
                "+++ B message 0 (assistant)",
                "@@ -0,0 +1 @@",
                "+a",
            ],
        );
    }

    #[test]
    fn a_message_is_not_compared_with_one_in_another_place_but_a_tool_is() {
        check(
            r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],
                "tools":[{"name":"f","description":"one"},{"name":"g"}]}"#,
            r#"{"messages":[{"role":"assistant","content":"b"},{"role":"user","content":"c"}],
                "tools":[{"name":"g"},{"name":"f","description":"two"}]}"#,
            &[
                "--- A tool 0 (f)",
                "+++ B tool 1 (f)",
                "@@ -1 +1 @@",
                "-one",
                "+two",
                "--- A message 0 (user)",
                "+++ /dev/null",
                "@@ -1 +0,0 @@",
                "-a",
                "--- /dev/null",
                "+++ B message 1 (user)",
                "@@ -0,0 +1 @@",
                "+c",
            ],
        );
    }

    #[test]
    fn whatever_bodies_say_is_read_and_compared() {
        const WORDS: [&str; 30] = [
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"",
            "\\",
            "\"messages\":[",
            "\"tools\":[",
            "\"system\":",
            "\"input\":[",
            "\"role\":\"user\"",
            "\"role\":\"assistant\"",
            "\"role\":\"tool\"",
            "\"content\":",
            "\"text\"",
            "\"type\":\"tool_use\"",
            "\"type\":\"tool_result\"",
            "\"type\":\"image\"",
            "\"type\":\"reasoning\"",
            "\"type\":\"function_call\"",
            "\"tool_calls\":[",
            "\"function\":{\"name\":\"f\"}",
            "\"arguments\":",
            "\"a\\nb\"",
            "null",
            "1e5",
            "é",
            "\"\\ud83d\"",
        ];
        let mut random = Random::new(9);
        let mut whole = 0;
        let mut last = String::new();
        for _ in 0..30_000 {
            let mut body = "{".to_owned();
            let mut open = Vec::new();
            for _ in 0..random.below(24) {
                let word = WORDS[random.index(WORDS.len())];
                open.extend(word.chars().filter(|c| "{[".contains(*c)));
                body.push_str(word);
                body.push_str(["", "", ","][random.index(3)]);
            }
            // Closed as it was opened it is JSON now and then.
            body.extend(open.into_iter().rev().map(|c| if c == '{' { '}' } else { ']' }));
            body.push('}');
            whole += usize::from(JsonText::object(&body).is_some_and(|object| object.members().next().is_some()));
            let told = diff(&last, &body);
            assert!(told.lines().all(|line| line.starts_with(['-', '+', ' ', '@', '\\'])), "{last} {body} {told}");
            for line in chat_messages(&body).into_iter().flat_map(|chat| chat.messages.into_iter().chain(chat.tools)) {
                assert!(JsonText::object(&line).is_some(), "{body} {line}");
            }
            last = body;
        }
        assert!(whole > 300, "{whole}");
    }

    #[test]
    fn what_is_written_in_another_way_is_no_change_and_other_members_are_compared() {
        let old = r#"{"model":"m","messages":[{"role":"user","content":"é"}],"n":1}"#;
        let new = r#"{ "messages" : [{"content":[{"type":"text","text":"\u00e9","cache_control":{}}],"role":"user"}], "n": 1, "model":"m"}"#;
        check(old, new, &[]);
        check(
            old,
            &new.replace("\"m\"", "\"o\"").replace("\"n\": 1", "\"chat_template_kwargs\":{\"enable_thinking\":false}"),
            &[
                "--- A other members",
                "+++ B other members",
                "@@ -1,2 +1,2 @@",
                "-model: \"m\"",
                "-n: 1",
                "+chat_template_kwargs: {\"enable_thinking\": false}",
                "+model: \"o\"",
            ],
        );
        check("no JSON", "no XML", &["--- A body", "+++ B body", "@@ -1 +1 @@", "-no JSON", "+no XML"]);
        check(
            r#"{"file":1}"#,
            r#"{"file":2}"#,
            &["--- A body", "+++ B body", "@@ -1 +1 @@", "-{\"file\": 1}", "+{\"file\": 2}"],
        );
    }

    #[test]
    fn of_a_long_line_the_place_is_shown_where_it_differs() {
        let line = |middle: &str| format!("{}{middle}{}", "é ".repeat(5000), "x ".repeat(5000));
        let told = diff(&system(&line("10:31")), &system(&line("10:32")));
        let lines: Vec<&str> = told.lines().skip(3).collect();
        assert_eq!(lines.len(), 2);
        for (shown, time) in lines.into_iter().zip(["-…", "+…"].into_iter().zip(["10:31", "10:32"])) {
            assert!(shown.starts_with(time.0) && shown.contains(time.1) && shown.ends_with('…'), "{shown}");
            assert!(shown.len() <= LINE_BYTES_MAX + 8, "{}", shown.len());
        }
    }

    #[test]
    fn secrets_are_hidden_though_they_are_shown_in_part_and_controls_are_spelled_out() {
        let key = "ghp_0123456789abcdefghij0123456789abcdefghij";
        check(
            &system(&format!("token\n{key}\n\u{1b}[1m")),
            &system(&format!("token\n{key}0\n\u{1b}[1m")),
            &["--- A system", "+++ B system", "@@ -1,3 +1,3 @@", " token", "-[hidden]", "+[hidden]", " \\u001b[1m"],
        );
        let block = |last: &str| {
            format!("-----BEGIN PRIVATE KEY-----\n{}{last}\n-----END PRIVATE KEY-----", "abcd\n".repeat(20))
        };
        let told = diff(&system(&block("efgh")), &system(&block("ijkl")));
        assert!(!told.contains("abcd") && !told.contains("efgh") && told.contains("-[hidden]"), "{told}");
        let line = |at: &str| format!("{} key=sk-{}{at}", "x ".repeat(400), "a1".repeat(400));
        let told = diff(&system(&line("8")), &system(&line("9")));
        assert!(!told.contains("a1a1") && told.contains("[hidden]"), "{told}");
    }

    /// Makes the new text of the old one and the hunks, as `patch` does.
    #[track_caller]
    fn patched(old: &str, told: &str) -> String {
        let old: Vec<&str> = old.split('\n').collect();
        let (mut new, mut at) = (Vec::new(), 0);
        let mut expected = (0, 0);
        for line in told.lines().skip(2) {
            if let Some(spans) = line.strip_prefix("@@ -") {
                assert_eq!(expected, (0, 0), "{told}");
                let numbers = |span: &str| -> (usize, usize) {
                    let (start, count) = span.split_once(',').unwrap_or((span, "1"));
                    (start.parse().expect("a number"), count.parse().expect("a number"))
                };
                let (olds, news) = spans.strip_suffix(" @@").and_then(|spans| spans.split_once(" +")).expect("spans");
                let ((start, olds), (new_start, news)) = (numbers(olds), numbers(news));
                let start = if olds == 0 { start } else { start - 1 };
                new.extend(&old[at..start]);
                at = start;
                assert_eq!(new.len(), if news == 0 { new_start } else { new_start - 1 }, "{told}");
                expected = (olds, news);
                continue;
            }
            let (sign, text) = line.split_at(1);
            if sign != "+" {
                assert_eq!(old[at], text, "{told}");
                (at, expected.0) = (at + 1, expected.0 - 1);
            }
            if sign != "-" {
                new.push(text);
                expected.1 -= 1;
            }
        }
        new.extend(&old[at..]);
        new.join("\n")
    }

    #[test]
    fn the_old_text_and_the_hunks_make_the_new_text() {
        let mut random = Random::new(16);
        for round in 0..1500 {
            let kinds = [2, 5, 1000][round % 3];
            let mut lines: Vec<String> = (0..random.below(40)).map(|_| format!("l{}", random.below(kinds))).collect();
            let old = lines.join("\n");
            for _ in 0..=random.below(6) {
                let at = random.index(lines.len() + 1);
                match random.below(3) {
                    0 => lines.insert(at, format!("l{}", random.below(kinds))),
                    1 if at < lines.len() => drop(lines.remove(at)),
                    _ if at < lines.len() => lines[at].push('x'),
                    _ => lines.push(String::new()),
                }
            }
            let new = lines.join("\n");
            let told = diff(&system(&old), &system(&new));
            assert_eq!(patched(&old, &told), new, "{told}");
        }
    }

    #[test]
    fn work_and_what_is_shown_are_bounded() {
        let mut random = Random::new(1);
        let mut text = |kinds: u64| (0..60_000).map(|_| format!("line {}\n", random.below(kinds))).collect::<String>();
        for kinds in [2, 20, 1000] {
            let told = diff(&system(&text(kinds)), &system(&text(kinds)));
            assert!(told.contains("\n\\ ") && told.len() < 20_000, "{}", told.len());
        }
        let many = |word: &str| -> String {
            let messages: Vec<String> =
                (0..4000).map(|n| format!("{{\"role\":\"user\",\"content\":\"{n} {}\"}}", word.repeat(80))).collect();
            format!("{{\"messages\":[{}]}}", messages.join(","))
        };
        let told = diff(&many("a"), &many("b"));
        assert!(told.len() < DIFF_BYTES_MAX + 1024 && told.ends_with(" more elements differ\n"), "{}", told.len());
        let once = |word: &str| {
            system(
                &(0..40_000).map(|n| format!("{n} {}\n", if n % 20 == 0 { word } else { "same" })).collect::<String>(),
            )
        };
        let told = diff(&once("one"), &once("another"));
        assert!(told.len() < DIFF_BYTES_MAX + 1024, "{}", told.len());
    }
}
