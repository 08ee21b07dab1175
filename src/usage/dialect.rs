//! Which dialect a route speaks, and where each is written down.
//!
//! To add a dialect: a file with its grammar, a variant, a line in `Dialect::grammar`, one in `Dialect::settle` if it
//! has such a rule, and transcripts.

use super::facts::Facts;
use super::grammar::Grammar;
use super::{chat, embeddings, messages, native, other, responses};

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
    /// By the path of the request, without its query.
    pub fn of(path: &str) -> Dialect {
        match path.strip_suffix('/').unwrap_or(path) {
            "/v1/chat/completions" | "/api/v0/chat/completions" => Dialect::Chat,
            "/v1/completions" | "/api/v0/completions" => Dialect::Completions,
            "/v1/embeddings" | "/api/v0/embeddings" => Dialect::Embeddings,
            "/v1/responses" => Dialect::Responses,
            "/v1/messages" => Dialect::Messages,
            "/api/v1/chat" => Dialect::NativeChat,
            _ => Dialect::Other,
        }
    }

    /// Where things stand in it.
    pub(super) fn grammar(self) -> &'static Grammar {
        match self {
            Dialect::Chat | Dialect::Completions => &chat::GRAMMAR,
            Dialect::Embeddings => &embeddings::GRAMMAR,
            Dialect::Responses => &responses::GRAMMAR,
            Dialect::Messages => &messages::GRAMMAR,
            Dialect::NativeChat => &native::GRAMMAR,
            Dialect::Other => &other::GRAMMAR,
        }
    }

    /// What a whole document means, once all of it is known.
    pub(super) fn settle(self, facts: &mut Facts) {
        match self {
            Dialect::Chat | Dialect::Completions => chat::settle(facts),
            Dialect::Responses => responses::settle(facts),
            Dialect::Messages => messages::settle(facts),
            Dialect::NativeChat => native::settle(facts),
            Dialect::Embeddings | Dialect::Other => {}
        }
    }
}

/// Whether an exchange gets a row: every POST under `/v1/`, and the generating routes of LM Studio's own APIs.
pub fn is_recorded(method: &str, path: &str) -> bool {
    method == "POST" && (path.starts_with("/v1/") || path.starts_with("/api/") && Dialect::of(path) != Dialect::Other)
}

/// Whether requests to this path generate or embed something, so that their usage is worth missing. Counting and
/// listing do not, and replies to them tell no usage.
pub fn generates(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    let last = path.rsplit('/').next().unwrap_or_default();
    let counts = matches!(last, "count_tokens" | "input_tokens" | "tokenize" | "detokenize");
    let lists = ["/v1/models", "/v1/files", "/v1/batches", "/v1/vector_stores"];
    !counts
        && !lists
            .iter()
            .any(|list| path.strip_prefix(list).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_dialect() {
        let check = |path, dialect| assert_eq!(Dialect::of(path), dialect, "{path}");
        check("/v1/chat/completions", Dialect::Chat);
        check("/api/v0/chat/completions", Dialect::Chat);
        check("/v1/chat/completions/", Dialect::Chat);
        check("/v1/completions", Dialect::Completions);
        check("/api/v0/completions", Dialect::Completions);
        check("/v1/embeddings", Dialect::Embeddings);
        check("/api/v0/embeddings", Dialect::Embeddings);
        check("/v1/responses", Dialect::Responses);
        check("/v1/messages", Dialect::Messages);
        check("/api/v1/chat", Dialect::NativeChat);
        check("/v1/messages/count_tokens", Dialect::Other);
        check("/v1/rerank", Dialect::Other);
        check("/api/v1/chat/completions", Dialect::Other);
    }

    #[test]
    fn counting_and_listing_generate_nothing() {
        let check = |path, expected| assert_eq!(generates(path), expected, "{path}");
        check("/v1/chat/completions", true);
        check("/v1/embeddings", true);
        check("/v1/rerank", true);
        check("/v1/models_of_mine", true);
        check("/v1/messages/count_tokens", false);
        check("/v1/messages/count_tokens/", false);
        check("/v1/responses/input_tokens", false);
        check("/v1/tokenize", false);
        check("/v1/models", false);
        check("/v1/models/m-1/info", false);
    }

    #[test]
    fn posts_under_v1_and_generating_native_routes_are_recorded() {
        let check = |method, path, recorded| assert_eq!(is_recorded(method, path), recorded, "{method} {path}");
        check("POST", "/v1/chat/completions", true);
        check("POST", "/v1/anything", true);
        check("GET", "/v1/models", false);
        check("POST", "/api/v0/chat/completions", true);
        check("POST", "/api/v0/completions", true);
        check("POST", "/api/v0/embeddings", true);
        check("POST", "/api/v1/chat", true);
        check("POST", "/api/v1/models/load", false);
        check("GET", "/api/v0/models", false);
    }
}
