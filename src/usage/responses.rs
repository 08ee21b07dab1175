//! OpenAI responses. Usage stands in the `response` of the terminal event, or at the top of a body.
//!
//! Words come as deltas, as `….done` where there were no deltas (LM Studio's reasoning and tool arguments), and once
//! more in the terminal event. Calls of tools that are built in (`apply_patch_call`, `shell_call`) have a member of
//! their own for what a function's arguments are. Source: openai-openapi `openapi.yaml`; LM Studio docs `responses.md`.

use super::dialect::Table;
use super::error;
use super::facts::{Facts, Words};
use super::place::Place;

/// Responses.
pub(super) const TABLE: Table = Table {
    event: Place::Root,
    body: Place::Reply,
    member,
    settle,
    terminals: &[b"response.completed", b"response.incomplete", b"response.failed", b"response.done"],
    needs_terminal: true,
    outlives_error: false,
    source: "usage",
};

fn member(at: Place, name: &[u8]) -> Place {
    match (at, name) {
        (Place::Root, b"type") => Place::Kind,
        // At the top of a document that shows only now that it is an event, too.
        (Place::Root | Place::Reply, b"response") => Place::Reply,
        (Place::Root, b"delta" | b"text" | b"arguments" | b"input" | b"refusal") => Place::Loose,
        (Place::Root, b"item") => Place::Item,
        (Place::Root, b"output_index") => Place::ToolIndex,
        (Place::Root, b"item_id") => Place::ItemId,
        (Place::Root, b"code") => Place::ErrorCode,
        (Place::Reply, b"id") => Place::Id,
        (Place::Reply, b"model") => Place::Model,
        (Place::Reply, b"status") => Place::Status,
        (Place::Root | Place::Reply, b"usage") => Place::Usage,
        (Place::Root | Place::Reply, b"timings") => Place::Timings,
        (Place::Reply, b"stats") => Place::Stats,
        (Place::Reply, b"output") => Place::Items,
        (Place::Reply, b"incomplete_details") => Place::Incomplete,
        (Place::Incomplete, b"reason") => Place::FinishDetail,
        (Place::Item, b"type") => Place::PartKind,
        (Place::Item, b"id") => Place::ItemId,
        (Place::Item, b"call_id") => Place::ToolId,
        (Place::Item, b"name") => Place::ToolName,
        (Place::Item, b"arguments" | b"input" | b"operation" | b"action" | b"code" | b"queries") => Place::Arguments,
        (Place::Item, b"content" | b"summary") => Place::Parts,
        (Place::Part, b"type") => Place::PartKind,
        (Place::Part, b"text" | b"refusal") => Place::Loose,
        _ => error::member(at, name),
    }
}

fn settle(facts: &mut Facts) {
    if matches!(facts.status.as_slice(), b"completed" | b"incomplete" | b"failed" | b"cancelled") {
        facts.finish.clone_from(&facts.status);
        facts.has_error |= facts.status == b"failed";
    }
    if !facts.finish_detail.is_empty() {
        facts.finish.clone_from(&facts.finish_detail);
    }
    let kind = std::mem::take(&mut facts.kind);
    match kind.as_slice() {
        b"response.output_text.delta" | b"response.refusal.delta" => facts.loose_is_output(),
        b"response.reasoning_text.delta" | b"response.reasoning_summary_text.delta" | b"response.reasoning.delta" => {
            facts.loose_is_reasoning();
        }
        b"response.function_call_arguments.delta"
        | b"response.mcp_call_arguments.delta"
        | b"response.custom_tool_call_input.delta"
        | b"response.code_interpreter_call_code.delta" => facts.loose_is_arguments(),
        b"response.output_text.done" | b"response.refusal.done" => {
            facts.words = Words::Whole;
            facts.loose_is_output();
        }
        b"response.reasoning_text.done" | b"response.reasoning_summary_text.done" | b"response.reasoning.done" => {
            facts.words = Words::Whole;
            facts.loose_is_reasoning();
        }
        b"response.function_call_arguments.done"
        | b"response.mcp_call_arguments.done"
        | b"response.custom_tool_call_input.done" => {
            facts.words = Words::Whole;
            facts.loose_is_arguments();
        }
        // A part of what the item will tell whole.
        b"response.shell_call_command.delta" | b"response.apply_patch_call_operation_diff.delta" => {
            facts.clear_words();
        }
        // The item opens a tool call, or repeats it; its text came, or comes, in events of its own.
        b"response.output_item.added" => {
            facts.words = Words::Whole;
            facts.clear_text();
            facts.tools.iter_mut().for_each(|tool| tool.arguments.clear());
            facts.has_content = !facts.tools.is_empty();
        }
        b"response.output_item.done" => {
            facts.words = Words::Whole;
            facts.clear_text();
            facts.has_content = !facts.tools.is_empty();
        }
        b"response.completed" | b"response.incomplete" | b"response.failed" | b"response.done" => {
            facts.has_error |= kind == b"response.failed";
            facts.words = Words::Echo;
        }
        // A body that is no stream has no kind, for its root is the response.
        b"" => {}
        _ => {
            facts.clear_words();
            facts.has_content = false;
        }
    }
    facts.kind = kind;
}
