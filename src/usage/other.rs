//! Every other route under `/v1/` (rerank, transcription, decisions, what is still to come): `usage`, `error`, `model`
//! and `id` at the top of the document. Of words only the `answers` of decisions are read, as JSON.

use super::chat;
use super::dialect::Table;
use super::facts::Facts;
use super::place::Place;

/// Whatever has no dialect of its own.
pub(super) const TABLE: Table = Table {
    event: Place::Root,
    body: Place::Root,
    member,
    settle,
    terminals: &[],
    needs_terminal: false,
    outlives_error: false,
    source: "usage",
};

fn member(at: Place, name: &[u8]) -> Place {
    match (at, name) {
        (Place::Root, b"id") => Place::Id,
        (Place::Root, b"model") => Place::Model,
        (Place::Root, b"object" | b"type") => Place::Kind,
        (Place::Root, b"answers") => Place::Answers,
        _ => chat::usage(at, name),
    }
}

fn settle(_: &mut Facts) {}
