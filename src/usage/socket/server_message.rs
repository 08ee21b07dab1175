//! What one message of LM Studio says: kept within bounds until it is over, for its members come in any order. Where
//! one stands twice, the last that tells something counts.

use super::super::excerpt::Excerpt;
use super::super::json::{DocumentRole, JsonSink, Scalar};
use super::super::numbers::{ToldNumbers, count};
use super::super::role::JsonRole;
use super::direction::{SocketMessage, keep_name};
use super::models::ToldModel;
use crate::limits::SOCKET_MODELS_MAX;
use ServerRole::*;

/// What a value in it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRole {
    /// Nothing below is read.
    Skip,
    /// The message.
    Root,
    /// `message` of a `channelSend`.
    Sent,
    Fragment,
    /// `details` of how far the prompt is processed.
    Progress,
    Stats,
    ToolCall,
    /// What a model is called.
    Model,
    /// `result` of a call: perhaps what a model is called, or a list of that.
    CallResult,
    /// An error: its title where it is a string, else an object.
    Error,

    /// Strings.
    Kind,
    SentType,
    ReasoningType,
    StopReason,
    ModelReference,
    ModelIdentifier,
    ModelKey,
    ToolId,
    ToolName,
    ErrorTitle,
    ErrorRootTitle,
    ErrorCause,
    /// Numbers.
    ChannelId,
    CallId,
    ContextTokens,
    ContextTokensMax,
    Figure(JsonRole),
    /// `success` of the first message.
    Accepted,
    /// Words: those of a fragment, of a piece of a tool call, and arguments as JSON.
    Content,
    CallPiece,
    Arguments,
}

impl DocumentRole for ServerRole {
    const SKIP: ServerRole = Skip;

    fn is_words(self) -> bool {
        matches!(self, Content | CallPiece | Arguments)
    }

    fn is_raw(self) -> bool {
        self == Arguments
    }
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerKind {
    /// Something is sent on a channel.
    ChannelSend,
    /// A channel is over.
    ChannelClose,
    /// A channel is over, by an error.
    ChannelError,
    /// A call is answered.
    RpcResult,
    /// A call is answered by an error.
    RpcError,
    /// Whatever tells nothing here.
    #[default]
    Other,
}

/// What is sent on a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SentKind {
    /// Some words of the answer.
    Fragment,
    /// How far the prompt is processed.
    Progress,
    /// A tool call is being written.
    CallPiece,
    /// A tool call is whole.
    Call,
    /// The prediction, or the loading by `loadModel`, has ended well.
    Success,
    /// The loading by `getOrLoad` has.
    Loaded,
    /// A model is being unloaded, to make room.
    Unloading,
    /// The prediction has ended badly: the Python SDK knows it.
    Error,
    /// Whatever else.
    #[default]
    Other,
}

/// What kind of words a fragment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FragmentKind {
    /// The answer.
    #[default]
    Answer,
    /// Reasoning.
    Reasoning,
    /// What stands around it, or something not known yet.
    Other,
}

/// What one message says. Empty is not told.
#[derive(Debug)]
pub struct ServerMessage {
    /// `type`
    pub kind: ServerKind,
    /// `channelId`
    pub channel: Option<u64>,
    /// `callId`
    pub call: Option<u64>,
    /// `type` of what is sent.
    pub sent: SentKind,
    /// Words of a fragment.
    pub content: Excerpt,
    /// What kind of words these are.
    pub fragment: FragmentKind,
    /// Bytes of words, of whatever kind.
    pub said: u64,
    /// Counts, and speed.
    pub numbers: ToldNumbers,
    /// `stopReason`
    pub finish: Vec<u8>,
    /// Models that it tells of.
    pub models: Vec<ToldModel>,
    /// The last of them is being read.
    is_in_model: bool,
    /// The id of a tool call.
    pub tool_id: Vec<u8>,
    /// The tool's name.
    pub tool_name: Vec<u8>,
    /// Its arguments.
    pub arguments: Excerpt,
    /// A member begins whose words stand for those before.
    words_begin: bool,
    error: TitledError,
    /// The client is let in, or not. Only the first message tells.
    pub is_accepted: Option<bool>,
}

/// What it says of an error.
#[derive(Debug, Default)]
struct TitledError {
    title: Vec<u8>,
    root_title: Vec<u8>,
    cause: Vec<u8>,
}

impl ServerMessage {
    /// What the error says that it tells.
    pub fn error_words(&self) -> &[u8] {
        let TitledError { title, root_title, cause } = &self.error;
        [title, root_title, cause]
            .into_iter()
            .find(|words| !words.is_empty())
            .map_or(b"an error without a title", |words| words)
    }

    fn context(&mut self, at: ServerRole, written: &[u8]) {
        let Some(model) = self.models.last_mut().filter(|_| self.is_in_model) else { return };
        let known = if at == ContextTokens { &mut model.context_tokens } else { &mut model.context_tokens_max };
        *known = count(written).filter(|tokens| *tokens > 0);
    }

    fn text(&mut self, at: ServerRole, value: &[u8]) {
        let kept = match at {
            Kind => {
                self.kind = match value {
                    b"channelSend" => ServerKind::ChannelSend,
                    b"channelClose" => ServerKind::ChannelClose,
                    b"channelError" => ServerKind::ChannelError,
                    b"rpcResult" => ServerKind::RpcResult,
                    b"rpcError" => ServerKind::RpcError,
                    _ => ServerKind::Other,
                };
                return;
            }
            SentType => {
                self.sent = sent_kind(value);
                return;
            }
            ReasoningType => {
                self.fragment = match value {
                    b"none" => FragmentKind::Answer,
                    b"reasoning" => FragmentKind::Reasoning,
                    _ => FragmentKind::Other,
                };
                return;
            }
            ModelReference | ModelIdentifier | ModelKey => {
                let Some(model) = self.models.last_mut().filter(|_| self.is_in_model) else { return };
                return keep_name(
                    match at {
                        ModelReference => &mut model.reference,
                        ModelIdentifier => &mut model.identifier,
                        _ => &mut model.key,
                    },
                    value,
                );
            }
            StopReason => &mut self.finish,
            ToolId => &mut self.tool_id,
            ToolName => &mut self.tool_name,
            Error | ErrorTitle => &mut self.error.title,
            ErrorRootTitle => &mut self.error.root_title,
            ErrorCause => &mut self.error.cause,
            _ => return,
        };
        value.clone_into(kept);
    }
}

fn sent_kind(name: &[u8]) -> SentKind {
    match name {
        b"fragment" => SentKind::Fragment,
        b"promptProcessingProgress" => SentKind::Progress,
        b"toolCallGenerationStart"
        | b"toolCallGenerationNameReceived"
        | b"toolCallGenerationArgumentFragmentGenerated" => SentKind::CallPiece,
        b"toolCallGenerationEnd" => SentKind::Call,
        b"success" => SentKind::Success,
        b"loadSuccess" | b"alreadyLoaded" => SentKind::Loaded,
        b"unloadingOtherJITModel" => SentKind::Unloading,
        b"error" => SentKind::Error,
        _ => SentKind::Other,
    }
}

impl SocketMessage for ServerMessage {
    const ROOT: ServerRole = Root;

    fn new(kept_max: usize) -> ServerMessage {
        ServerMessage {
            kind: ServerKind::Other,
            channel: None,
            call: None,
            sent: SentKind::Other,
            content: Excerpt::new(kept_max),
            fragment: FragmentKind::Answer,
            said: 0,
            numbers: ToldNumbers::default(),
            finish: Vec::new(),
            models: Vec::new(),
            is_in_model: false,
            tool_id: Vec::new(),
            tool_name: Vec::new(),
            arguments: Excerpt::new(kept_max),
            words_begin: false,
            error: TitledError::default(),
            is_accepted: None,
        }
    }

    // Keeps its buffers: many messages are fragments of one answer.
    fn clear(&mut self) {
        (self.kind, self.channel, self.call) = (ServerKind::Other, None, None);
        (self.sent, self.fragment, self.said) = (SentKind::Other, FragmentKind::Answer, 0);
        (self.is_accepted, self.is_in_model, self.words_begin) = (None, false, false);
        self.numbers = ToldNumbers::default();
        self.models.clear();
        [&mut self.content, &mut self.arguments].into_iter().for_each(Excerpt::clear);
        let TitledError { title, root_title, cause } = &mut self.error;
        let texts = [&mut self.finish, &mut self.tool_id, &mut self.tool_name, title, root_title, cause];
        texts.into_iter().for_each(Vec::clear);
    }

    fn bytes(&self) -> usize {
        let TitledError { title, root_title, cause } = &self.error;
        let texts = [&self.finish, &self.tool_id, &self.tool_name, title, root_title, cause];
        let models: usize = self.models.iter().map(ToldModel::bytes).sum();
        self.content.bytes() + self.arguments.bytes() + texts.into_iter().map(Vec::len).sum::<usize>() + models
    }
}

impl JsonSink for ServerMessage {
    type Role = ServerRole;

    fn member(&mut self, at: ServerRole, name: &[u8]) -> ServerRole {
        let role = match at {
            Root => match name {
                b"type" => Kind,
                b"channelId" => ChannelId,
                b"callId" => CallId,
                b"message" => Sent,
                b"result" => CallResult,
                b"error" => Error,
                b"success" => Accepted,
                _ => Skip,
            },
            Sent => match name {
                b"type" => SentType,
                b"fragment" => Fragment,
                b"details" => Progress,
                b"stats" => Stats,
                b"info" | b"modelInfo" => Model,
                b"toolCallRequest" => ToolCall,
                b"content" => CallPiece,
                b"error" => Error,
                _ => Skip,
            },
            Fragment => match name {
                b"content" => Content,
                b"reasoningType" => ReasoningType,
                _ => Skip,
            },
            Progress => match name {
                b"cachedTokenCount" => Figure(JsonRole::CachedTokens),
                _ => Skip,
            },
            Stats => stats_member(name),
            Model | CallResult => match name {
                b"instanceReference" => ModelReference,
                b"identifier" => ModelIdentifier,
                b"modelKey" => ModelKey,
                b"contextLength" => ContextTokens,
                b"maxContextLength" => ContextTokensMax,
                _ => Skip,
            },
            ToolCall => match name {
                b"id" => ToolId,
                b"name" => ToolName,
                b"arguments" => Arguments,
                _ => Skip,
            },
            Error => match name {
                b"title" => ErrorTitle,
                b"rootTitle" => ErrorRootTitle,
                b"cause" => ErrorCause,
                _ => Skip,
            },
            _ => Skip,
        };
        self.words_begin |= role.is_words();
        role
    }

    fn element(&mut self, at: ServerRole, _index: u32) -> ServerRole {
        if at == CallResult { Model } else { Skip }
    }

    fn open(&mut self, at: ServerRole, is_object: bool) {
        if is_object && matches!(at, Model | CallResult) {
            self.is_in_model = self.models.len() < SOCKET_MODELS_MAX;
            if self.is_in_model {
                self.models.push(ToldModel::default());
            }
        }
    }

    fn close(&mut self, _at: ServerRole) {}

    fn scalar(&mut self, at: ServerRole, value: Scalar<'_>) {
        match value {
            Scalar::Text(text) => self.text(at, text),
            Scalar::Number(written) => match at {
                ChannelId => self.channel = count(written),
                CallId => self.call = count(written),
                ContextTokens | ContextTokensMax => self.context(at, written),
                Figure(figure) => self.numbers.tell(figure, written),
                _ => {}
            },
            Scalar::True | Scalar::Nothing if at == Accepted => self.is_accepted = Some(value == Scalar::True),
            Scalar::True | Scalar::Nothing => {}
        }
    }

    fn words(&mut self, at: ServerRole, piece: &[u8]) {
        let begins = std::mem::take(&mut self.words_begin);
        self.said += piece.len() as u64;
        let kept = match at {
            Content => &mut self.content,
            Arguments => &mut self.arguments,
            _ => return,
        };
        if begins {
            kept.clear();
        }
        kept.push(piece);
    }
}

fn stats_member(name: &[u8]) -> ServerRole {
    Figure(match name {
        b"stopReason" => return StopReason,
        b"promptTokensCount" => JsonRole::InputTokens,
        b"predictedTokensCount" => JsonRole::OutputTokens,
        b"totalTokensCount" => JsonRole::TotalTokens,
        b"tokensPerSecond" => JsonRole::TokensPerSecond,
        b"totalDraftTokensCount" => JsonRole::DraftTokens,
        b"acceptedDraftTokensCount" => JsonRole::AcceptedDraftTokens,
        _ => return Skip,
    })
}
