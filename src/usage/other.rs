//! OpenAI embeddings, and every other route under `/v1/` (rerank, transcription, decisions, what is still to come):
//! `usage`, `error`, `model` and `id` at the top of the document. Of words only the `answers` of decisions are read, as
//! JSON; vectors are not.

use super::error;
use super::grammar::Grammar;
use super::role::JsonRole::{self, *};

/// Whatever has no dialect of its own.
pub(super) const GRAMMAR: Grammar = Grammar {
    body: Root,
    member,
    settle: |_| (),
    terminals: &[],
    needs_terminal: false,
    outlives_error: false,
    source: "usage",
};

fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match (at, name) {
        (Root, b"id") => Id,
        (Root, b"model") => Model,
        (Root, b"answers") => Answers,
        _ => error::member(at, name),
    }
}
