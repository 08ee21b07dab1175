//! OpenAI chat and text completions, as LM Studio, llama.cpp, Ollama, vLLM and others speak them.
//!
//! Of several choices the one of index 0 is kept; the words of all count as content. Source:
//! LM Studio docs `3_openai-compat`; llama.cpp `tools/server/README.md` (timings).

use super::document::DocumentFacts;
use super::error;
use super::grammar::Grammar;
use super::role::JsonRole::{self, *};

/// Chat and completions.
pub(super) const GRAMMAR: Grammar = Grammar {
    body: Root,
    member,
    settle,
    terminals: &[],
    needs_terminal: true,
    outlives_error: false,
    source: "usage",
};

// By role first: this is asked for every member of every chunk.
fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match at {
        Root => match name {
            b"id" => Id,
            b"model" => Model,
            b"choices" => Choices,
            _ => error::member(at, name),
        },
        Choice => match name {
            b"index" => ChoiceIndex,
            b"delta" | b"message" => Message,
            b"text" => Output,
            b"finish_reason" => Finish,
            // Moonshot counts there.
            b"usage" => Usage,
            _ => error::member(at, name),
        },
        Message => match name {
            b"content" | b"refusal" => Output,
            b"tool_calls" => ToolCalls,
            b"function_call" => Function,
            b"role" => MessageRole,
            _ if is_reasoning(name) => Reasoning,
            _ => Skip,
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
        (OtherChoice, b"delta" | b"message") => OtherMessage,
        (OtherChoice, b"text") => Unkept,
        (OtherChoice, b"index") => OtherIndex,
        (OtherChoice, b"finish_reason") => OtherFinish,
        (OtherMessage, b"tool_calls" | b"function_call") => UnkeptCalls,
        (OtherMessage, b"content" | b"refusal") => Unkept,
        (OtherMessage, name) if is_reasoning(name) => Unkept,
        (Part, b"type") => PartKind,
        (Part, b"text" | b"refusal") => Loose,
        // Mistral: a list of parts.
        (Part, b"thinking") => Reasoning,
        (Reasoning, b"text" | b"thinking" | b"summary" | b"content") => Reasoning,
        (Unkept, b"text" | b"thinking" | b"summary" | b"content") => Unkept,
        (ToolCall, b"index") => ToolIndex,
        (ToolCall, b"id") => ToolId,
        (ToolCall, b"function" | b"custom") => Function,
        (ToolCall | Function, b"name") => ToolName,
        (ToolCall | Function, b"arguments" | b"input") => Arguments,
        _ => error::member(at, name),
    }
}

/// What a whole document means.
fn settle(facts: &mut DocumentFacts) {
    if facts.choices.first_index.is_some_and(|index| index > 0) {
        facts.clear_words();
        facts.finish.clear();
    }
}
