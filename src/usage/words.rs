//! How the words of a document relate to those of the documents before it.

/// Whether a document brings words, or repeats what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// They follow those before.
    Delta,
    /// They stand for the deltas since the last such event, and count where there were none (`….done`).
    Whole,
    /// They repeat the whole reply, and count where nothing else was kept (`response.completed`).
    Echo,
}
