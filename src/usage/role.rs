//! The roles that values have in a reply's JSON.
//!
//! A dialect is a map from (role, member name) to role; what is found at a leaf is the same in all of them (see
//! [`super::document`]). Whatever no dialect names is [`JsonRole::Skip`], with all that is under it.

use super::json::DocumentRole;

/// What a value of a JSON document is. The first group holds others, the second are leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonRole {
    /// Nothing below is read.
    Skip,
    /// The document: an event's data, or a whole body.
    Root,
    /// What an event is about, or the document itself where the reply is not a stream: a Responses `response`, a
    /// Messages `message`, a native `result`.
    Reply,
    /// The message of a `message_start`: what there is of the reply when it begins.
    Beginning,
    /// `choices`, one of them, and one that is not the first.
    Choices,
    Choice,
    OtherChoice,
    /// A `delta` or `message`, and that of a choice which is not the first.
    Message,
    OtherMessage,
    /// A list of output items or content blocks, one of them, and its parts.
    Items,
    Item,
    Parts,
    Part,
    /// A list of tool calls, one of them, and its `function`.
    ToolCalls,
    /// Those of a choice that is not kept.
    UnkeptCalls,
    ToolCall,
    Function,
    /// Where counts stand, and what holds them under another name.
    Usage,
    Meta,
    InputDetails,
    OutputDetails,
    Timings,
    Stats,
    /// An error: its message where it is a string, else an object.
    Error,
    /// `incomplete_details` of a response.
    Incomplete,

    /// Strings.
    Model,
    Id,
    Kind,
    /// What the document calls itself beside its kind: only that it is an error counts.
    KindBeside,
    PartKind,
    Status,
    Finish,
    FinishDetail,
    ErrorMessage,
    ErrorCode,
    /// What else an error has for words.
    ErrorReason,
    /// `message` at the root, which is an error's only in a document that is an error.
    Note,
    /// `detail`: text, an object or a list of them; at the root an error's as `message` is.
    Detail,
    /// `role` of a message.
    MessageRole,
    /// `finish_reason` of a choice that is not the first.
    OtherFinish,
    /// What a tool call is known by: to the client, and among the items of a response.
    ToolId,
    ItemId,
    ToolName,
    /// Numbers.
    InputTokens,
    OutputTokens,
    TotalTokens,
    CachedTokens,
    CacheWriteTokens,
    ReasoningTokens,
    DraftTokens,
    AcceptedDraftTokens,
    PromptN,
    CacheN,
    PredictedN,
    TokensPerSecond,
    PromptPerSecond,
    LoadSeconds,
    ChoiceIndex,
    OtherIndex,
    ToolIndex,
    /// Words: streamed on, whatever their length. Those that are an object or a list are the words in it.
    Output,
    Reasoning,
    /// An answer that is JSON, kept as it stands.
    Answers,
    /// Words whose kind the object around them tells.
    Loose,
    /// Words of a choice that is not kept: only that they came counts.
    Unkept,
    /// Arguments as text, or as JSON to be kept as it stands.
    Arguments,
}

impl DocumentRole for JsonRole {
    const SKIP: JsonRole = JsonRole::Skip;

    fn is_words(self) -> bool {
        matches!(
            self,
            JsonRole::Output
                | JsonRole::Reasoning
                | JsonRole::Loose
                | JsonRole::Unkept
                | JsonRole::Arguments
                | JsonRole::Answers
        )
    }

    fn is_raw(self) -> bool {
        matches!(self, JsonRole::Arguments | JsonRole::Answers)
    }
}
