//! OpenAI chat and text completions, as LM Studio, llama.cpp, Ollama, vLLM and others speak them.
//!
//! Of several choices the one of index 0 is kept; the words of all count as content. Source:
//! LM Studio docs `3_openai-compat`; llama.cpp `tools/server/README.md` (timings).

use super::dialect::Table;
use super::facts::Facts;
use super::place::Place;

/// Chat and completions.
pub(super) const TABLE: Table = Table {
    event: Place::Root,
    body: Place::Root,
    member,
    settle,
    terminals: &[],
    needs_terminal: true,
    outlives_error: false,
    source: "usage",
};

// By place first: this is asked for every member of every chunk.
fn member(at: Place, name: &[u8]) -> Place {
    match at {
        Place::Root => match name {
            b"id" => Place::Id,
            b"model" => Place::Model,
            b"object" | b"type" => Place::Kind,
            b"choices" => Place::Choices,
            b"stats" => Place::Stats,
            b"timings" => Place::Timings,
            _ => usage(at, name),
        },
        Place::Choice => match name {
            b"index" => Place::ChoiceIndex,
            b"delta" | b"message" => Place::Message,
            b"text" => Place::Output,
            b"finish_reason" => Place::Finish,
            _ => Place::Skip,
        },
        Place::Message => match name {
            b"content" | b"refusal" => Place::Output,
            b"reasoning_content" | b"reasoning" => Place::Reasoning,
            b"tool_calls" => Place::ToolCalls,
            b"function_call" => Place::Function,
            _ => Place::Skip,
        },
        _ => rarer(at, name),
    }
}

fn rarer(at: Place, name: &[u8]) -> Place {
    match (at, name) {
        (Place::OtherChoice, b"delta" | b"message") => Place::OtherMessage,
        (Place::OtherChoice, b"text") => Place::Unkept,
        (Place::OtherMessage, b"content" | b"refusal" | b"reasoning_content" | b"reasoning") => Place::Unkept,
        (Place::Part, b"type") => Place::PartKind,
        (Place::Part, b"text" | b"thinking") => Place::Loose,
        (Place::ToolCall, b"index") => Place::ToolIndex,
        (Place::ToolCall, b"id") => Place::ToolId,
        (Place::ToolCall, b"function") => Place::Function,
        (Place::Function, b"name") => Place::ToolName,
        (Place::Function, b"arguments") => Place::Arguments,
        (Place::Stats, b"tokens_per_second") => Place::TokensPerSecond,
        (Place::Timings, b"prompt_n") => Place::PromptN,
        (Place::Timings, b"cache_n") => Place::CacheN,
        (Place::Timings, b"predicted_n") => Place::PredictedN,
        (Place::Timings, b"predicted_per_second") => Place::TokensPerSecond,
        _ => usage(at, name),
    }
}

/// `usage` and `error`, which embeddings share.
pub fn usage(at: Place, name: &[u8]) -> Place {
    match (at, name) {
        (Place::Root, b"usage") => Place::Usage,
        (Place::Root, b"error") => Place::Error,
        (Place::Root, b"message") => Place::Note,
        (Place::Error, b"message") => Place::ErrorMessage,
        (Place::Error, b"code" | b"type") => Place::ErrorCode,
        (Place::Usage, b"prompt_tokens") => Place::InputTokens,
        (Place::Usage, b"completion_tokens") => Place::OutputTokens,
        (Place::Usage, b"total_tokens") => Place::TotalTokens,
        (Place::Usage, b"prompt_tokens_details") => Place::InputDetails,
        (Place::Usage, b"completion_tokens_details") => Place::OutputDetails,
        (Place::InputDetails, b"cached_tokens") => Place::CachedTokens,
        (Place::OutputDetails, b"reasoning_tokens") => Place::ReasoningTokens,
        _ => Place::Skip,
    }
}

fn settle(facts: &mut Facts) {
    if facts.choice_index.is_some_and(|index| index > 0) {
        facts.clear_words();
        facts.finish.clear();
    }
}
