//! LM Studio's own `/api/v1/chat`. Counts stand in `stats`: of the body, or of `chat.end`'s `result`.
//!
//! An `error` event may be followed by `chat.end` all the same. Source: LM Studio docs `2_rest/chat.md`,
//! `streaming-events.md`.

use super::document::DocumentFacts;
use super::error;
use super::grammar::Grammar;
use super::role::JsonRole;
use super::words::Telling;

/// The native chat.
pub(super) const GRAMMAR: Grammar = Grammar {
    event: JsonRole::Root,
    body: JsonRole::Reply,
    member,
    terminals: &[b"chat.end"],
    needs_terminal: true,
    outlives_error: true,
    source: "stats",
};

fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match (at, name) {
        (JsonRole::Root, b"type") => JsonRole::Kind,
        (JsonRole::Root, b"result") => JsonRole::Reply,
        (JsonRole::Root | JsonRole::Reply, b"model_instance_id") => JsonRole::Model,
        (JsonRole::Root, b"content") => JsonRole::Loose,
        (JsonRole::Root, b"load_time_seconds") => JsonRole::LoadSeconds,
        (JsonRole::Root, b"tool") => JsonRole::ToolName,
        (JsonRole::Root, b"arguments") => JsonRole::Arguments,
        (JsonRole::Reply, b"response_id") => JsonRole::Id,
        (JsonRole::Reply, b"output") => JsonRole::Items,
        (JsonRole::Item, b"type") => JsonRole::PartKind,
        (JsonRole::Item, b"content") => JsonRole::Loose,
        (JsonRole::Item, b"tool") => JsonRole::ToolName,
        (JsonRole::Item, b"arguments") => JsonRole::Arguments,
        // A call that the model got wrong.
        (JsonRole::Item, b"metadata") => JsonRole::Function,
        (JsonRole::Function, b"tool_name") => JsonRole::ToolName,
        (JsonRole::Function, b"arguments") => JsonRole::Arguments,
        _ => error::member(at, name),
    }
}

/// What a whole document means.
pub(super) fn settle(facts: &mut DocumentFacts) {
    let kind = std::mem::take(&mut facts.kind);
    match kind.as_slice() {
        b"message.delta" => facts.words.loose_is_output(),
        b"reasoning.delta" => facts.words.loose_is_reasoning(),
        b"tool_call.arguments" => {}
        b"chat.end" => facts.words.telling = Telling::Echo,
        // A body that is no stream has no kind.
        b"" => {}
        _ => {
            facts.clear_words();
            facts.has_content = false;
        }
    }
    facts.kind = kind;
}
