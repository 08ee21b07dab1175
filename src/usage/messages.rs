//! Anthropic messages. `message_start` brings a first count of the prompt, `message_delta` a cumulative one of all.
//!
//! LM Studio counts cache reads as part of the input, Anthropic, llama.cpp and vLLM do not: see
//! [`Counts::settled`](super::counts::Counts::settled). Source: Anthropic `messages-streaming`; LM Studio docs
//! `4_anthropic-compat/messages.md`.

use super::dialect::Table;
use super::error;
use super::facts::Facts;
use super::place::Place;

/// Messages.
pub(super) const TABLE: Table = Table {
    event: Place::Root,
    body: Place::Reply,
    member,
    settle,
    terminals: &[b"message_stop"],
    needs_terminal: true,
    outlives_error: false,
    source: "usage",
};

fn member(at: Place, name: &[u8]) -> Place {
    match (at, name) {
        (Place::Root | Place::Reply, b"type") => Place::Kind,
        (Place::Root | Place::Reply | Place::Beginning, b"usage") => Place::Usage,
        (Place::Root | Place::Reply, b"timings") => Place::Timings,
        // At the top of a document that shows only now that it is an event, too. As text it is an error's.
        (Place::Root | Place::Reply, b"message") => Place::Beginning,
        (Place::Root | Place::Reply, b"stats") => Place::Stats,
        (Place::Root, b"index") => Place::ToolIndex,
        (Place::Root, b"content_block") => Place::Item,
        (Place::Root, b"delta") => Place::Message,
        (Place::Reply | Place::Beginning, b"id") => Place::Id,
        (Place::Reply | Place::Beginning, b"model") => Place::Model,
        (Place::Reply | Place::Beginning, b"content") => Place::Items,
        (Place::Reply | Place::Beginning | Place::Message, b"stop_reason") => Place::Finish,
        (Place::Message, b"text") => Place::Output,
        (Place::Message, b"thinking") => Place::Reasoning,
        (Place::Message, b"partial_json") => Place::Arguments,
        (Place::Item, b"type") => Place::PartKind,
        (Place::Item, b"text") => Place::Output,
        (Place::Item, b"thinking") => Place::Reasoning,
        (Place::Item, b"id") => Place::ToolId,
        (Place::Item, b"name") => Place::ToolName,
        (Place::Item, b"input") => Place::Arguments,
        _ => error::member(at, name),
    }
}

fn settle(facts: &mut Facts) {
    // Before the answer began nobody can have counted it; and no prompt is empty.
    if facts.kind == b"message_start" {
        facts.early_output = facts.counts.output.take();
        facts.counts.input = facts.counts.input.filter(|input| *input > 0);
    }
    // A block that begins shows `{}` where the deltas will bring the arguments.
    if facts.kind == b"content_block_start" {
        for tool in &mut facts.tools {
            if matches!(tool.arguments.pieces(), (head, 0, tail) if [head, tail].concat() == b"{}") {
                tool.arguments.clear();
            }
        }
    }
}
