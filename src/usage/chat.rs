//! OpenAI chat and text completions, as LM Studio, llama.cpp, Ollama, vLLM and others speak them.
//!
//! Of several choices the one of index 0 is kept; the words of all count as content. Source:
//! LM Studio docs `3_openai-compat`; llama.cpp `tools/server/README.md` (timings).

use super::dialect::Table;
use super::error;
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
            _ => usage(at, name),
        },
        Place::Choice => match name {
            b"index" => Place::ChoiceIndex,
            b"delta" | b"message" => Place::Message,
            b"text" => Place::Output,
            b"finish_reason" => Place::Finish,
            // Moonshot counts there.
            b"usage" => Place::Usage,
            _ => error::member(at, name),
        },
        Place::Message => match name {
            b"content" | b"refusal" => Place::Output,
            b"tool_calls" => Place::ToolCalls,
            b"function_call" => Place::Function,
            b"role" => Place::Role,
            _ if is_reasoning(name) => Place::Reasoning,
            _ => Place::Skip,
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

fn rarer(at: Place, name: &[u8]) -> Place {
    match (at, name) {
        (Place::OtherChoice, b"delta" | b"message") => Place::OtherMessage,
        (Place::OtherChoice, b"text") => Place::Unkept,
        (Place::OtherChoice, b"index") => Place::OtherIndex,
        (Place::OtherChoice, b"finish_reason") => Place::OtherFinish,
        (Place::OtherMessage, b"tool_calls" | b"function_call") => Place::UnkeptCalls,
        (Place::OtherMessage, b"content" | b"refusal") => Place::Unkept,
        (Place::OtherMessage, name) if is_reasoning(name) => Place::Unkept,
        (Place::Part, b"type") => Place::PartKind,
        (Place::Part, b"text" | b"refusal") => Place::Loose,
        // Mistral: a list of parts.
        (Place::Part, b"thinking") => Place::Reasoning,
        (Place::Reasoning, b"text" | b"thinking" | b"summary" | b"content") => Place::Reasoning,
        (Place::Unkept, b"text" | b"thinking" | b"summary" | b"content") => Place::Unkept,
        (Place::ToolCall, b"index") => Place::ToolIndex,
        (Place::ToolCall, b"id") => Place::ToolId,
        (Place::ToolCall, b"function" | b"custom") => Place::Function,
        (Place::ToolCall | Place::Function, b"name") => Place::ToolName,
        (Place::ToolCall | Place::Function, b"arguments" | b"input") => Place::Arguments,
        _ => usage(at, name),
    }
}

/// `usage` and errors, which every dialect with both at the top shares.
pub fn usage(at: Place, name: &[u8]) -> Place {
    match (at, name) {
        (Place::Root, b"usage") => Place::Usage,
        (Place::Root, b"stats") => Place::Stats,
        (Place::Root, b"timings") => Place::Timings,
        (Place::Root, b"meta" | b"x_groq") => Place::Meta,
        _ => error::member(at, name),
    }
}

fn settle(facts: &mut Facts) {
    if facts.choice_index.is_some_and(|index| index > 0) {
        facts.clear_words();
        facts.finish.clear();
    }
}
