//! Anthropic messages. `message_start` brings a first count of the prompt, `message_delta` a cumulative one of all.
//!
//! LM Studio counts cache reads as part of the input, Anthropic and llama.cpp do not; the total is input + output as
//! reported, in either case, and cache reads are told apart. Source: Anthropic `messages-streaming`; LM Studio docs
//! `4_anthropic-compat/messages.md`.

use super::dialect::Table;
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
        (Place::Root | Place::Reply, b"error") => Place::Error,
        (Place::Root | Place::Reply, b"usage") => Place::Usage,
        (Place::Root, b"message") => Place::Reply,
        (Place::Root, b"index") => Place::ToolIndex,
        (Place::Root, b"content_block") => Place::Item,
        (Place::Root, b"delta") => Place::Message,
        (Place::Reply, b"id") => Place::Id,
        (Place::Reply, b"model") => Place::Model,
        (Place::Reply, b"content") => Place::Items,
        (Place::Reply | Place::Message, b"stop_reason") => Place::Finish,
        (Place::Message, b"text") => Place::Output,
        (Place::Message, b"thinking") => Place::Reasoning,
        (Place::Message, b"partial_json") => Place::Arguments,
        (Place::Item, b"type") => Place::PartKind,
        (Place::Item, b"text") => Place::Output,
        (Place::Item, b"thinking") => Place::Reasoning,
        (Place::Item, b"id") => Place::ToolId,
        (Place::Item, b"name") => Place::ToolName,
        (Place::Item, b"input") => Place::Arguments,
        (Place::Error, b"message") => Place::ErrorMessage,
        (Place::Error, b"type") => Place::ErrorCode,
        (Place::Usage, b"input_tokens") => Place::InputTokens,
        (Place::Usage, b"output_tokens") => Place::OutputTokens,
        (Place::Usage, b"cache_read_input_tokens") => Place::CachedTokens,
        _ => Place::Skip,
    }
}

fn settle(facts: &mut Facts) {
    // A block that begins shows `{}` where the deltas will bring the arguments.
    if facts.kind == b"content_block_start" {
        for tool in &mut facts.tools {
            if matches!(tool.arguments.pieces(), (head, 0, tail) if [head, tail].concat() == b"{}") {
                tool.arguments.clear();
            }
        }
    }
}
