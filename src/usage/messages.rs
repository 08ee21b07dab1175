//! Anthropic messages. `message_start` brings a first count of the prompt, `message_delta` a cumulative one of all.
//!
//! LM Studio counts cache reads as part of the input, Anthropic, llama.cpp and vLLM do not: see
//! [`Counts::settled`](super::counts::TokenCounts::settled). Source: Anthropic `messages-streaming`; LM Studio docs
//! `4_anthropic-compat/messages.md`.

use super::document::DocumentFacts;
use super::error;
use super::grammar::Grammar;
use super::role::JsonRole;

/// Messages.
pub(super) const GRAMMAR: Grammar = Grammar {
    event: JsonRole::Root,
    body: JsonRole::Reply,
    member,
    terminals: &[b"message_stop"],
    needs_terminal: true,
    outlives_error: false,
    source: "usage",
};

fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match (at, name) {
        (JsonRole::Root | JsonRole::Reply, b"type") => JsonRole::Kind,
        (JsonRole::Beginning, b"usage") => JsonRole::Usage,
        // At the top of a document that shows only now that it is an event, too. As text it is an error's.
        (JsonRole::Root | JsonRole::Reply, b"message") => JsonRole::Beginning,
        (JsonRole::Root, b"index") => JsonRole::ToolIndex,
        (JsonRole::Root, b"content_block") => JsonRole::Item,
        (JsonRole::Root, b"delta") => JsonRole::Message,
        (JsonRole::Reply | JsonRole::Beginning, b"id") => JsonRole::Id,
        (JsonRole::Reply | JsonRole::Beginning, b"model") => JsonRole::Model,
        (JsonRole::Reply | JsonRole::Beginning, b"content") => JsonRole::Items,
        (JsonRole::Reply | JsonRole::Beginning | JsonRole::Message, b"stop_reason") => JsonRole::Finish,
        (JsonRole::Message, b"text") => JsonRole::Output,
        (JsonRole::Message, b"thinking") => JsonRole::Reasoning,
        (JsonRole::Message, b"partial_json") => JsonRole::Arguments,
        (JsonRole::Item, b"type") => JsonRole::PartKind,
        (JsonRole::Item, b"text") => JsonRole::Output,
        (JsonRole::Item, b"thinking") => JsonRole::Reasoning,
        (JsonRole::Item, b"id") => JsonRole::ToolId,
        (JsonRole::Item, b"name") => JsonRole::ToolName,
        (JsonRole::Item, b"input") => JsonRole::Arguments,
        _ => error::member(at, name),
    }
}

/// What a whole document means.
pub(super) fn settle(facts: &mut DocumentFacts) {
    // Before the answer began nobody can have counted it; and no prompt is empty.
    if facts.kind == b"message_start" {
        facts.numbers.early_output = facts.numbers.counts.output.take();
        facts.numbers.counts.input = facts.numbers.counts.input.filter(|input| *input > 0);
    }
    // A block that begins shows `{}` where the deltas will bring the arguments.
    if facts.kind == b"content_block_start" {
        for tool in &mut facts.calls.parts {
            if matches!(tool.arguments.pieces(), (head, 0, tail) if [head, tail].concat() == b"{}") {
                tool.arguments.clear();
            }
        }
    }
}
