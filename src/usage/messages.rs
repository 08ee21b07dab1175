//! Anthropic messages. `message_start` brings a first count of the prompt, `message_delta` a cumulative one of all.
//!
//! LM Studio counts cache reads as part of the input, Anthropic, llama.cpp and vLLM do not: see
//! [`Counts::settled`](super::counts::TokenCounts::settled). Source: Anthropic `messages-streaming`; LM Studio docs
//! `4_anthropic-compat/messages.md`.

use super::document::DocumentFacts;
use super::error;
use super::grammar::Grammar;
use super::role::JsonRole::{self, *};

/// Messages.
pub(super) const GRAMMAR: Grammar = Grammar {
    body: Reply,
    member,
    settle,
    terminals: &[b"message_stop"],
    needs_terminal: true,
    outlives_error: false,
    source: "usage",
};

fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match (at, name) {
        (Root | Reply, b"type") => Kind,
        (Beginning, b"usage") => Usage,
        // At the top of a document that shows only now that it is an event, too. As text it is an error's.
        (Root | Reply, b"message") => Beginning,
        (Root, b"index") => ToolIndex,
        (Root, b"content_block") => Item,
        (Root, b"delta") => Message,
        (Reply | Beginning, b"id") => Id,
        (Reply | Beginning, b"model") => Model,
        (Reply | Beginning, b"content") => Items,
        (Reply | Beginning | Message, b"stop_reason") => Finish,
        (Message, b"text") => Output,
        (Message, b"thinking") => Reasoning,
        (Message, b"partial_json") => Arguments,
        (Item, b"type") => PartKind,
        (Item, b"text") => Output,
        (Item, b"thinking") => Reasoning,
        (Item, b"id") => ToolId,
        (Item, b"name") => ToolName,
        (Item, b"input") => Arguments,
        _ => error::member(at, name),
    }
}

/// What a whole document means.
fn settle(facts: &mut DocumentFacts) {
    // Before the answer began nobody can have counted it; and no prompt is empty.
    if facts.kind == b"message_start" {
        facts.numbers.early_output = facts.numbers.counts.output.take();
        facts.numbers.counts.input = facts.numbers.counts.input.filter(|input| *input > 0);
    }
    // A block that begins shows `{}` where the deltas will bring the arguments.
    if facts.kind == b"content_block_start" {
        for tool in &mut facts.calls.parts {
            if matches!(tool.arguments.pieces(), (head, 0, [tail, _]) if [head, tail].concat() == b"{}") {
                tool.arguments.clear();
            }
        }
    }
}
