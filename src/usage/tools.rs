//! Tool calls put together from their pieces, and written as JSON.
//!
//! Pieces of parallel calls may alternate. A piece belongs to the call of its index, else of its id, else to the last.

use super::escapes::escape;
use super::excerpt::Excerpt;
use super::words::Telling;
use crate::limits::TOOL_CALLS_OPEN_MAX;

/// A tool call, or a piece of one.
#[derive(Clone, Debug)]
pub struct ToolPart {
    /// Which call of the reply it belongs to.
    pub index: Option<u64>,
    /// As told.
    pub id: Vec<u8>,
    /// What a response's item is known by, where that is not the id.
    pub item: Vec<u8>,
    /// As told.
    pub name: Vec<u8>,
    /// JSON text, or plain text for a custom tool.
    pub arguments: Excerpt,
}

impl ToolPart {
    /// One of which only this is known.
    pub fn new(index: Option<u64>, item: &[u8], kept_max: usize) -> ToolPart {
        let arguments = Excerpt::new(kept_max);
        ToolPart { index, id: Vec::new(), item: item.to_vec(), name: Vec::new(), arguments }
    }

    fn bytes(&self) -> usize {
        self.id.len() + self.item.len() + self.name.len() + self.arguments.bytes()
    }
}

/// The tool calls of a document.
#[derive(Debug)]
pub struct DocumentCalls {
    /// Those that it tells, or pieces of them.
    pub parts: Vec<ToolPart>,
    /// What the next one is known by.
    index: Option<u64>,
    item: Vec<u8>,
    /// The last one is being read.
    is_open: bool,
    kept_max: usize,
}

impl DocumentCalls {
    /// None yet, of whose arguments so many bytes are kept.
    pub fn new(kept_max: usize) -> DocumentCalls {
        DocumentCalls { parts: Vec::new(), index: None, item: Vec::new(), is_open: false, kept_max }
    }

    /// Another document begins.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.item.clear();
        (self.index, self.is_open) = (None, false);
    }

    /// An element of a list of calls begins. Where it does not tell its index, its position stands for it.
    pub fn begin_call(&mut self, position: u32) {
        // A second list in one document, or a `function_call` before it, tells the same calls.
        if position == 0 {
            self.parts.clear();
        }
        (self.index, self.is_open) = (Some(u64::from(position)), false);
    }

    /// An item begins, which may be a call.
    pub fn begin_item(&mut self) {
        self.item.clear();
        self.is_open = false;
    }

    /// It tells its index.
    pub fn index(&mut self, told: Option<u64>) {
        self.index = told;
        if self.is_open {
            self.current().index = told;
        }
    }

    /// It tells its item.
    pub fn item(&mut self, told: &[u8]) {
        told.clone_into(&mut self.item);
        if self.is_open {
            told.clone_into(&mut self.current().item);
        }
    }

    /// The call that is being read.
    pub fn current(&mut self) -> &mut ToolPart {
        if !self.is_open || self.parts.is_empty() {
            self.is_open = true;
            self.parts.push(ToolPart::new(self.index, &self.item, self.kept_max));
        }
        let last = self.parts.len() - 1;
        &mut self.parts[last]
    }

    /// The item that was read is no call, but the result of one.
    pub fn forget_current(&mut self) {
        if self.is_open {
            self.parts.pop();
        }
    }
}

/// The tool calls of a reply.
#[derive(Debug, Default)]
pub struct Tools {
    kept_max: usize,
    /// Calls that are over, as JSON without the end of the last one.
    written: Excerpt,
    /// Calls that may go on, in the order in which they began.
    open: Vec<ToolPart>,
}

impl Tools {
    /// None yet, of which so many bytes of JSON are kept.
    pub fn new(kept_max: usize) -> Tools {
        Tools { kept_max, written: Excerpt::new(kept_max), ..Tools::default() }
    }

    /// Takes the pieces of a document.
    pub fn merge(&mut self, parts: &[ToolPart], telling: Telling) {
        let is_repeated = telling == Telling::Echo && !(self.open.is_empty() && self.written.is_empty());
        if parts.is_empty() || is_repeated {
            return;
        }
        for part in parts {
            let at = match self.call_of(part) {
                Some(at) => at,
                None => {
                    self.open.push(ToolPart::new(part.index, &part.item, self.kept_max));
                    self.open.len() - 1
                }
            };
            let call = &mut self.open[at];
            for (known, told) in [(&mut call.id, &part.id), (&mut call.name, &part.name), (&mut call.item, &part.item)]
            {
                if known.is_empty() {
                    known.extend_from_slice(told);
                }
            }
            if telling == Telling::Delta || call.arguments.is_empty() {
                call.arguments.append(&part.arguments);
            }
        }
        self.close_oldest();
    }

    /// Whether `parts` bring nothing new.
    pub fn repeats(&self, parts: &[ToolPart]) -> bool {
        let is_known = |at: usize, part: &ToolPart| part.arguments.is_empty() || !self.open[at].arguments.is_empty();
        parts.iter().all(|part| self.call_of(part).is_some_and(|at| is_known(at, part)))
    }

    /// Memory that they take, nearly.
    pub fn bytes(&self) -> usize {
        self.written.bytes() + self.open.iter().map(ToolPart::bytes).sum::<usize>()
    }

    /// The calls as JSON, `None` where there are none.
    pub fn into_text(self) -> Option<String> {
        let mut whole = self.written;
        self.open.iter().for_each(|call| write(&mut whole, call));
        if !whole.is_empty() {
            whole.push(b"\"}]");
        }
        whole.into_text()
    }

    /// The call that a piece continues. One of its index has no other id and no other name: servers that number every
    /// call 0 tell them apart by these. A name without index and id is a call of its own.
    fn call_of(&self, part: &ToolPart) -> Option<usize> {
        let agree = |one: &[u8], other: &[u8]| one.is_empty() || other.is_empty() || one == other;
        let is_same = |call: &ToolPart| agree(&call.id, &part.id) && agree(&call.name, &part.name);
        if part.index.is_some() {
            self.open.iter().rposition(|call| call.index == part.index && is_same(call))
        } else if !part.id.is_empty() || !part.item.is_empty() {
            let told = |one: &[u8], other: &[u8]| !one.is_empty() && one == other;
            let is_told = |call: &ToolPart| told(&part.id, &call.id) || told(&part.item, &call.item);
            self.open.iter().rposition(|call| is_told(call) && agree(&call.name, &part.name))
        } else if part.name.is_empty() {
            self.open.len().checked_sub(1)
        } else {
            None
        }
    }

    /// Bounds what is held: calls are written, the first first, until few are open and these take little more than what
    /// will be kept of them.
    fn close_oldest(&mut self) {
        while self.open.len() > TOOL_CALLS_OPEN_MAX
            || self.open.len() > 1 && self.open.iter().map(ToolPart::bytes).sum::<usize>() > 2 * self.kept_max.max(1024)
        {
            write(&mut self.written, &self.open.remove(0));
        }
    }
}

/// Writes a call behind others, without its end.
fn write(json: &mut Excerpt, call: &ToolPart) {
    json.push(if json.is_empty() { b"[{" } else { b"\"},{" });
    let id = if call.id.is_empty() { &call.item } else { &call.id };
    for (member, value) in [("id", id), ("name", &call.name)] {
        if !value.is_empty() {
            json.push(format!("\"{member}\":\"").as_bytes());
            escape(value, |escaped| json.push(escaped));
            json.push(b"\",");
        }
    }
    json.push(b"\"arguments\":\"");
    let (head, lost, tail) = call.arguments.pieces();
    escape(head, |escaped| json.push(escaped));
    json.lose(lost);
    tail.into_iter().for_each(|part| escape(part, |escaped| json.push(escaped)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece as `index id name arguments`, `-` for what is not told.
    fn part(told: &str) -> ToolPart {
        let words: Vec<&str> = told.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let mut part = ToolPart::new(words[0].parse().ok(), b"", 200);
        part.id = words[1].into();
        part.name = words[2].into();
        part.arguments.push(words[3].as_bytes());
        part
    }

    #[track_caller]
    fn check(pieces: &[(&str, Telling)], expected: &str) {
        let mut tools = Tools::new(200);
        pieces.iter().for_each(|(told, how)| tools.merge(&[part(told)], *how));
        assert_eq!(tools.into_text().unwrap_or_default(), expected, "{pieces:?}");
    }

    fn deltas<'a>(pieces: &[&'a str]) -> Vec<(&'a str, Telling)> {
        pieces.iter().map(|piece| (*piece, Telling::Delta)).collect()
    }

    #[test]
    fn pieces_find_their_call() {
        let two = r#"[{"id":"a","name":"f","arguments":"12"},{"id":"b","name":"g","arguments":"34"}]"#;
        check(&deltas(&["0 a f -", "1 b g -", "0 - - 1", "1 - - 3", "0 - - 2", "1 - - 4"]), two);
        check(&deltas(&["- a f 1", "- b g 3", "- a - 2", "- b - 4"]), two);
        check(&deltas(&["0 a f 1", "- - - 2", "0 b g 3", "0 b g 4"]), two);
        check(&deltas(&["0 - f 1", "0 - g 2"]), r#"[{"name":"f","arguments":"1"},{"name":"g","arguments":"2"}]"#);
        check(&deltas(&["- - f 1", "- - f 1"]), r#"[{"name":"f","arguments":"1"},{"name":"f","arguments":"1"}]"#);
        // The name comes behind the first arguments.
        check(&deltas(&["0 - - 1", "0 a f 2"]), r#"[{"id":"a","name":"f","arguments":"12"}]"#);
    }

    #[test]
    fn arguments_that_are_told_again_count_once() {
        let whole = [("0 a f -", Telling::Whole), ("0 - - 12", Telling::Whole), ("0 a f 12", Telling::Whole)];
        check(&whole, r#"[{"id":"a","name":"f","arguments":"12"}]"#);
        let both = [("0 a f -", Telling::Whole), ("0 - - 1", Telling::Delta), ("0 - - 2", Telling::Delta)];
        let told_again = [("0 - - 12", Telling::Whole), ("- a f 12", Telling::Echo)];
        check(&[&both[..], &told_again].concat(), r#"[{"id":"a","name":"f","arguments":"12"}]"#);
        check(&[("- a f 12", Telling::Echo)], r#"[{"id":"a","name":"f","arguments":"12"}]"#);
    }

    #[test]
    fn what_is_held_is_bounded_in_calls_and_bytes() {
        let mut tools = Tools::new(200);
        for call in 0..10_000 {
            tools.merge(&[part(&format!("{call} - f {}", "x".repeat(100)))], Telling::Delta);
            assert!(tools.open.len() <= TOOL_CALLS_OPEN_MAX);
            assert!(tools.open.iter().map(ToolPart::bytes).sum::<usize>() <= 2048);
        }
        let text = tools.into_text().unwrap_or_default();
        assert!(text.starts_with(r#"[{"name":"f","#) && text.ends_with("xxx\"}]") && text.len() <= 200, "{text}");
    }
}
