//! LM Studio's own `/api/v1/chat`. Counts stand in `stats`: of the body, or of `chat.end`'s `result`.
//!
//! An `error` event may be followed by `chat.end` all the same. Source: LM Studio docs `2_rest/chat.md`,
//! `streaming-events.md`.

use super::document::DocumentFacts;
use super::error;
use super::grammar::Grammar;
use super::role::JsonRole::{self, *};
use super::words::Telling;

/// The native chat.
pub(super) const GRAMMAR: Grammar = Grammar {
    body: Reply,
    member,
    settle,
    terminals: &[b"chat.end"],
    needs_terminal: true,
    outlives_error: true,
    source: "stats",
};

fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match (at, name) {
        (Root, b"type") => Kind,
        (Root, b"result") => Reply,
        (Root | Reply, b"model_instance_id") => Model,
        (Root, b"content") => Loose,
        (Root, b"load_time_seconds") => LoadSeconds,
        (Root, b"tool") => ToolName,
        (Root, b"arguments") => Arguments,
        (Reply, b"response_id") => Id,
        (Reply, b"output") => Items,
        (Item, b"type") => PartKind,
        (Item, b"content") => Loose,
        (Item, b"tool") => ToolName,
        (Item, b"arguments") => Arguments,
        // A call that the model got wrong.
        (Item, b"metadata") => Function,
        (Function, b"tool_name") => ToolName,
        (Function, b"arguments") => Arguments,
        _ => error::member(at, name),
    }
}

/// What a whole document means.
fn settle(facts: &mut DocumentFacts) {
    match facts.kind.as_slice() {
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
}
