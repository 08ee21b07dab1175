//! OpenAI embeddings: counts of the prompt alone; vectors are never read.

use super::chat::usage;
use super::dialect::Table;
use super::facts::Facts;
use super::place::Place;

/// Embeddings.
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
        (Place::Root, b"object") => Place::Kind,
        _ => usage(at, name),
    }
}

fn settle(_: &mut Facts) {}
