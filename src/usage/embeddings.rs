//! OpenAI embeddings: counts of the prompt alone; vectors are never read.

use super::chat::usage;
use super::grammar::Grammar;
use super::role::JsonRole;

/// Embeddings.
pub(super) const GRAMMAR: Grammar = Grammar {
    event: JsonRole::Root,
    body: JsonRole::Root,
    member,
    terminals: &[],
    needs_terminal: false,
    outlives_error: false,
    source: "usage",
};

fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match (at, name) {
        (JsonRole::Root, b"id") => JsonRole::Id,
        (JsonRole::Root, b"model") => JsonRole::Model,
        (JsonRole::Root, b"object") => JsonRole::Kind,
        _ => usage(at, name),
    }
}
