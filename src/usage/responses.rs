//! OpenAI responses. Usage stands in the `response` of the terminal event, or at the top of a body.
//!
//! Words come as deltas, as `….done` where there were no deltas (LM Studio's reasoning and tool arguments), and once
//! more in the terminal event. Calls of tools that are built in (`apply_patch_call`, `shell_call`) have a member of
//! their own for what a function's arguments are. Source: openai-openapi `openapi.yaml`; LM Studio docs `responses.md`.

use super::document::DocumentFacts;
use super::error;
use super::grammar::Grammar;
use super::role::JsonRole::{self, *};
use super::words::Telling;

/// Responses.
pub(super) const GRAMMAR: Grammar = Grammar {
    body: Reply,
    member,
    settle,
    terminals: &[b"response.completed", b"response.incomplete", b"response.failed", b"response.done"],
    needs_terminal: true,
    outlives_error: false,
    source: "usage",
};

fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match (at, name) {
        (Root, b"type") => Kind,
        // At the top of a document that shows only now that it is an event, too.
        (Root | Reply, b"response") => Reply,
        (Root, b"delta" | b"text" | b"arguments" | b"input" | b"refusal") => Loose,
        (Root, b"item") => Item,
        (Root, b"output_index") => ToolIndex,
        (Root, b"item_id") => ItemId,
        (Root, b"code") => ErrorCode,
        (Reply, b"id") => Id,
        (Reply, b"model") => Model,
        (Reply, b"status") => Status,
        (Reply, b"output") => Items,
        (Reply, b"incomplete_details") => Incomplete,
        (Incomplete, b"reason") => FinishDetail,
        (Item, b"type") => PartKind,
        (Item, b"id") => ItemId,
        (Item, b"call_id") => ToolId,
        (Item, b"name") => ToolName,
        (Item, b"arguments" | b"input" | b"operation" | b"action" | b"code" | b"queries") => Arguments,
        (Item, b"content" | b"summary") => Parts,
        (Part, b"type") => PartKind,
        (Part, b"text" | b"refusal") => Loose,
        _ => error::member(at, name),
    }
}

/// What a whole document means.
fn settle(facts: &mut DocumentFacts) {
    if matches!(facts.status.as_slice(), b"completed" | b"incomplete" | b"failed" | b"cancelled") {
        facts.finish.clone_from(&facts.status);
        facts.error.is_told |= facts.status == b"failed";
    }
    if !facts.finish_detail.is_empty() {
        facts.finish.clone_from(&facts.finish_detail);
    }
    let (subject, stage) = match facts.kind.iter().rposition(|&byte| byte == b'.') {
        Some(dot) => (&facts.kind[..dot], &facts.kind[dot + 1..]),
        None => (facts.kind.as_slice(), &b""[..]),
    };
    if stage == b"done" {
        facts.words.telling = Telling::Whole;
    }
    match (subject, stage) {
        (b"response.output_text" | b"response.refusal", b"delta" | b"done") => facts.words.loose_is_output(),
        (
            b"response.reasoning_text" | b"response.reasoning_summary_text" | b"response.reasoning",
            b"delta" | b"done",
        ) => facts.words.loose_is_reasoning(),
        (
            b"response.function_call_arguments" | b"response.mcp_call_arguments" | b"response.custom_tool_call_input",
            b"delta" | b"done",
        )
        | (b"response.code_interpreter_call_code", b"delta") => facts.loose_is_arguments(),
        // A part of what the item will tell whole.
        (b"response.shell_call_command" | b"response.apply_patch_call_operation_diff", b"delta") => facts.clear_words(),
        // The item opens a tool call, or repeats it; its text came, or comes, in events of its own.
        (b"response.output_item", b"added" | b"done") => {
            if stage == b"added" {
                facts.calls.parts.iter_mut().for_each(|tool| tool.arguments.clear());
            }
            facts.words.telling = Telling::Whole;
            facts.words.clear_text();
            facts.has_content = !facts.calls.parts.is_empty();
        }
        (b"response", b"completed" | b"incomplete" | b"failed" | b"done") => {
            facts.error.is_told |= stage == b"failed";
            facts.words.telling = Telling::Echo;
        }
        // A body that is no stream has no kind, for its root is the response.
        (b"", b"") => {}
        _ => {
            facts.clear_words();
            facts.has_content = false;
        }
    }
}
