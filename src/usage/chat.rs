//! OpenAI chat and text completions, as LM Studio, llama.cpp, Ollama, vLLM and others speak them.
//!
//! Of several choices the one of index 0 is kept; the words of all count as content. Source:
//! LM Studio docs `3_openai-compat`; llama.cpp `tools/server/README.md` (timings).

use super::document::DocumentFacts;
use super::error;
use super::grammar::Grammar;
use super::role::JsonRole;

/// Chat and completions.
pub(super) const GRAMMAR: Grammar = Grammar {
    event: JsonRole::Root,
    body: JsonRole::Root,
    member,
    terminals: &[],
    needs_terminal: true,
    outlives_error: false,
    source: "usage",
};

// By role first: this is asked for every member of every chunk.
fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match at {
        JsonRole::Root => match name {
            b"id" => JsonRole::Id,
            b"model" => JsonRole::Model,
            b"choices" => JsonRole::Choices,
            _ => error::member(at, name),
        },
        JsonRole::Choice => match name {
            b"index" => JsonRole::ChoiceIndex,
            b"delta" | b"message" => JsonRole::Message,
            b"text" => JsonRole::Output,
            b"finish_reason" => JsonRole::Finish,
            // Moonshot counts there.
            b"usage" => JsonRole::Usage,
            _ => error::member(at, name),
        },
        JsonRole::Message => match name {
            b"content" | b"refusal" => JsonRole::Output,
            b"tool_calls" => JsonRole::ToolCalls,
            b"function_call" => JsonRole::Function,
            b"role" => JsonRole::MessageRole,
            _ if is_reasoning(name) => JsonRole::Reasoning,
            _ => JsonRole::Skip,
        },
        _ => rarer(at, name),
    }
}

/// Under which names a message tells its reasoning; each may be text or a list of parts. Where several tell it, the
/// first one counts.
fn is_reasoning(name: &[u8]) -> bool {
    matches!(
        name,
        b"reasoning_content"
            | b"reasoning"
            | b"reasoning_text"
            | b"reasoning_details"
            | b"thinking"
            | b"thinking_blocks"
            | b"thinking_content"
    )
}

fn rarer(at: JsonRole, name: &[u8]) -> JsonRole {
    match (at, name) {
        (JsonRole::OtherChoice, b"delta" | b"message") => JsonRole::OtherMessage,
        (JsonRole::OtherChoice, b"text") => JsonRole::Unkept,
        (JsonRole::OtherChoice, b"index") => JsonRole::OtherIndex,
        (JsonRole::OtherChoice, b"finish_reason") => JsonRole::OtherFinish,
        (JsonRole::OtherMessage, b"tool_calls" | b"function_call") => JsonRole::UnkeptCalls,
        (JsonRole::OtherMessage, b"content" | b"refusal") => JsonRole::Unkept,
        (JsonRole::OtherMessage, name) if is_reasoning(name) => JsonRole::Unkept,
        (JsonRole::Part, b"type") => JsonRole::PartKind,
        (JsonRole::Part, b"text" | b"refusal") => JsonRole::Loose,
        // Mistral: a list of parts.
        (JsonRole::Part, b"thinking") => JsonRole::Reasoning,
        (JsonRole::Reasoning, b"text" | b"thinking" | b"summary" | b"content") => JsonRole::Reasoning,
        (JsonRole::Unkept, b"text" | b"thinking" | b"summary" | b"content") => JsonRole::Unkept,
        (JsonRole::ToolCall, b"index") => JsonRole::ToolIndex,
        (JsonRole::ToolCall, b"id") => JsonRole::ToolId,
        (JsonRole::ToolCall, b"function" | b"custom") => JsonRole::Function,
        (JsonRole::ToolCall | JsonRole::Function, b"name") => JsonRole::ToolName,
        (JsonRole::ToolCall | JsonRole::Function, b"arguments" | b"input") => JsonRole::Arguments,
        _ => error::member(at, name),
    }
}

/// What a whole document means.
pub(super) fn settle(facts: &mut DocumentFacts) {
    if facts.choices.first_index.is_some_and(|index| index > 0) {
        facts.clear_words();
        facts.finish.clear();
    }
}
