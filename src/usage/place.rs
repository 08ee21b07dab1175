//! The places in a reply's JSON that mean something.
//!
//! A dialect is a map from (place, member name) to place; what is found at a leaf is the same in all of them (see
//! [`super::facts`]). Whatever no dialect names is [`Place::Skip`], with all that is under it.

/// What a value of a JSON document is. The first group holds others, the second are leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing below is read.
    Skip,
    /// The document: an event's data, or a whole body.
    Root,
    /// What an event is about, or the document itself where the reply is not a stream: a Responses `response`, a
    /// Messages `message`, a native `result`.
    Reply,
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
    ToolCall,
    Function,
    /// Where counts stand.
    Usage,
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
    PartKind,
    Status,
    Finish,
    FinishDetail,
    ErrorMessage,
    ErrorCode,
    /// `message` at the root, which is an error's only in an event that is an error.
    Note,
    ToolId,
    ToolName,
    /// Numbers.
    InputTokens,
    OutputTokens,
    TotalTokens,
    CachedTokens,
    ReasoningTokens,
    PromptN,
    CacheN,
    PredictedN,
    TokensPerSecond,
    LoadSeconds,
    ChoiceIndex,
    ToolIndex,
    /// Words: streamed on, whatever their length.
    Output,
    Reasoning,
    /// Words whose kind the object around them tells.
    Loose,
    /// Words of a choice that is not kept: only that they came counts.
    Unkept,
    /// Arguments as text, or as JSON to be kept as it stands.
    Arguments,
}

impl Place {
    /// Whether strings here are streamed on piece by piece instead of being kept, cut off, as one short value.
    pub fn is_words(self) -> bool {
        matches!(self, Place::Output | Place::Reasoning | Place::Loose | Place::Unkept | Place::Arguments)
    }

    /// Whether objects and arrays here are handed on as JSON text without white space.
    pub fn is_raw(self) -> bool {
        self == Place::Arguments
    }
}
