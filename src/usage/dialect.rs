//! The dialects, and where each is written down.
//!
//! To add a dialect: a file with its grammar, a variant, a route in `crate::routes`, a line in `Dialect::grammar`, and
//! transcripts.

use super::grammar::Grammar;
use super::{chat, messages, native, other, responses};

/// The language in which a reply tells what it cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI chat completions, also under `/api/v0`.
    Chat,
    /// OpenAI text completions, also under `/api/v0`.
    Completions,
    /// OpenAI embeddings, also under `/api/v0`.
    Embeddings,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Messages,
    /// LM Studio's own `/api/v1/chat`.
    NativeChat,
    /// Whatever else: `usage`, `error`, `model` and `id` where they usually stand.
    Other,
}

impl Dialect {
    /// Where things stand in it.
    pub(super) fn grammar(self) -> &'static Grammar {
        match self {
            Dialect::Chat | Dialect::Completions => &chat::GRAMMAR,
            Dialect::Responses => &responses::GRAMMAR,
            Dialect::Messages => &messages::GRAMMAR,
            Dialect::NativeChat => &native::GRAMMAR,
            Dialect::Embeddings | Dialect::Other => &other::GRAMMAR,
        }
    }
}
