//! LM Studio's own `/api/v1/chat`. Counts stand in `stats`: of the body, or of `chat.end`'s `result`.
//!
//! An `error` event may be followed by `chat.end` all the same. Source: LM Studio docs `2_rest/chat.md`,
//! `streaming-events.md`.

use super::dialect::Table;
use super::error;
use super::facts::{Facts, Words};
use super::place::Place;

/// The native chat.
pub(super) const TABLE: Table = Table {
    event: Place::Root,
    body: Place::Reply,
    member,
    settle,
    terminals: &[b"chat.end"],
    needs_terminal: true,
    outlives_error: true,
    source: "stats",
};

fn member(at: Place, name: &[u8]) -> Place {
    match (at, name) {
        (Place::Root, b"type") => Place::Kind,
        (Place::Root, b"result") => Place::Reply,
        (Place::Root | Place::Reply, b"model_instance_id") => Place::Model,
        (Place::Root, b"content") => Place::Loose,
        (Place::Root, b"load_time_seconds") => Place::LoadSeconds,
        (Place::Root, b"tool") => Place::ToolName,
        (Place::Root, b"arguments") => Place::Arguments,
        (Place::Reply, b"response_id") => Place::Id,
        (Place::Reply, b"output") => Place::Items,
        (Place::Reply, b"stats") => Place::Stats,
        (Place::Reply, b"usage") => Place::Usage,
        (Place::Item, b"type") => Place::PartKind,
        (Place::Item, b"content") => Place::Loose,
        (Place::Item, b"tool") => Place::ToolName,
        (Place::Item, b"arguments") => Place::Arguments,
        // A call that the model got wrong.
        (Place::Item, b"metadata") => Place::Function,
        (Place::Function, b"tool_name") => Place::ToolName,
        (Place::Function, b"arguments") => Place::Arguments,
        _ => error::member(at, name),
    }
}

fn settle(facts: &mut Facts) {
    let kind = std::mem::take(&mut facts.kind);
    match kind.as_slice() {
        b"message.delta" => facts.loose_is_output(),
        b"reasoning.delta" => facts.loose_is_reasoning(),
        b"tool_call.arguments" => {}
        b"chat.end" => facts.words = Words::Echo,
        // A body that is no stream has no kind.
        b"" => {}
        _ => {
            facts.clear_words();
            facts.has_content = false;
        }
    }
    facts.kind = kind;
}
