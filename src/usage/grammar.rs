//! What a dialect is made of: where in its JSON things stand, and how its streams end.

use super::document::DocumentFacts;
use super::role::JsonRole;

/// One dialect.
#[derive(Debug)]
pub struct Grammar {
    /// Role of a body that is no stream. An event's data is the root.
    pub body: JsonRole,
    /// The role of a member of an object.
    pub member: fn(JsonRole, &[u8]) -> JsonRole,
    /// What a whole document means, once all of it is known.
    pub settle: fn(&mut DocumentFacts),
    /// Kinds of events after which nothing of interest follows.
    pub terminals: &'static [&'static [u8]],
    /// A stream must end in one of them or in `[DONE]`.
    pub needs_terminal: bool,
    /// After an error event the stream may still go on to its terminal event.
    pub outlives_error: bool,
    /// What the counts are called there.
    pub source: &'static str,
}
