//! What one message of a client says: kept within bounds until it is over, for its members come in any order. Where
//! one stands twice, the last that tells something counts.

use super::super::excerpt::Excerpt;
use super::super::json::{DocumentRole, JsonSink, Scalar};
use super::super::numbers::count;
use super::direction::{SocketMessage, keep_name};
use ClientRole::*;

/// What a value in it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientRole {
    /// Nothing below is read.
    Skip,
    /// The message.
    Root,
    /// `creationParameter` of a channel, `parameter` of a call.
    Parameter,
    /// Which model shall answer: an instance, or a query for one.
    ModelSpecifier,
    ModelQuery,
    /// `message` of a `channelSend`.
    Sent,

    /// Strings.
    Kind,
    EndpointName,
    SentType,
    Reference,
    QueryIdentifier,
    QueryPath,
    /// What a `getOrLoad` asks for, and a `loadModel`.
    LoadIdentifier,
    LoadKey,
    ClientIdentifier,
    ClientPasskey,
    /// Numbers.
    ChannelId,
    CallId,
    /// Words: `history` as JSON, `rawPrompt` and `inputString` as text.
    Prompt,
}

impl DocumentRole for ClientRole {
    const SKIP: ClientRole = Skip;

    fn is_words(self) -> bool {
        self == Prompt
    }

    fn is_raw(self) -> bool {
        self == Prompt
    }
}

/// What kind of message it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientKind {
    /// A channel is opened.
    ChannelCreate,
    /// Something is sent on one.
    ChannelSend,
    /// A call.
    RpcCall,
    /// Whatever tells nothing here.
    #[default]
    Other,
}

/// What a channel or a call is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Endpoint {
    /// `predict`
    Predict,
    /// `completeRawText`
    CompleteRawText,
    /// `embedString`
    EmbedString,
    /// `getOrLoad`
    GetOrLoad,
    /// `loadModel`
    LoadModel,
    /// Whatever else.
    #[default]
    Other,
}

/// What one message says. Empty is not told.
pub struct ClientMessage {
    /// `type`
    pub kind: ClientKind,
    /// `endpoint`
    pub endpoint: Endpoint,
    /// `channelId`
    pub channel: Option<u64>,
    /// `callId`
    pub call: Option<u64>,
    /// What is sent is `cancel`.
    pub is_cancel: bool,
    /// An opaque name of the instance that shall answer.
    pub reference: Vec<u8>,
    query_identifier: Vec<u8>,
    query_path: Vec<u8>,
    load_identifier: Vec<u8>,
    load_key: Vec<u8>,
    /// What the model shall answer to.
    prompt: Excerpt,
    /// The member begins that tells it.
    prompt_begins: bool,
    /// Who the client is: the first message tells.
    pub identifier: Vec<u8>,
    /// By what it proves that.
    pub passkey: Vec<u8>,
    kept_max: usize,
}

impl ClientMessage {
    /// The model that it asks for by a name of its own.
    pub fn asked_model(&self) -> &[u8] {
        if self.query_identifier.is_empty() { &self.query_path } else { &self.query_identifier }
    }

    /// The model that it asks to be loaded.
    pub fn model_to_load(&self) -> &[u8] {
        if self.endpoint == Endpoint::LoadModel { &self.load_key } else { &self.load_identifier }
    }

    /// What the model shall answer to, given away.
    pub fn take_prompt(&mut self) -> Option<String> {
        std::mem::replace(&mut self.prompt, Excerpt::new(self.kept_max)).into_text()
    }

    fn text(&mut self, at: ClientRole, value: &[u8]) {
        match at {
            Kind => {
                self.kind = match value {
                    b"channelCreate" => ClientKind::ChannelCreate,
                    b"channelSend" => ClientKind::ChannelSend,
                    b"rpcCall" => ClientKind::RpcCall,
                    _ => ClientKind::Other,
                }
            }
            EndpointName => {
                self.endpoint = match value {
                    b"predict" => Endpoint::Predict,
                    b"completeRawText" => Endpoint::CompleteRawText,
                    b"embedString" => Endpoint::EmbedString,
                    b"getOrLoad" => Endpoint::GetOrLoad,
                    b"loadModel" => Endpoint::LoadModel,
                    _ => Endpoint::Other,
                }
            }
            SentType => self.is_cancel = value == b"cancel",
            Reference => keep_name(&mut self.reference, value),
            QueryIdentifier => keep_name(&mut self.query_identifier, value),
            QueryPath => keep_name(&mut self.query_path, value),
            LoadIdentifier => keep_name(&mut self.load_identifier, value),
            LoadKey => keep_name(&mut self.load_key, value),
            // Whole or not at all: a part of a credential is another one.
            ClientIdentifier => value.clone_into(&mut self.identifier),
            ClientPasskey => value.clone_into(&mut self.passkey),
            Skip | Root | Parameter | ModelSpecifier | ModelQuery | Sent | ChannelId | CallId | Prompt => {}
        }
    }
}

impl SocketMessage for ClientMessage {
    const ROOT: ClientRole = Root;

    fn new(kept_max: usize) -> ClientMessage {
        ClientMessage {
            kind: ClientKind::Other,
            endpoint: Endpoint::Other,
            channel: None,
            call: None,
            is_cancel: false,
            reference: Vec::new(),
            query_identifier: Vec::new(),
            query_path: Vec::new(),
            load_identifier: Vec::new(),
            load_key: Vec::new(),
            prompt: Excerpt::new(kept_max),
            prompt_begins: false,
            identifier: Vec::new(),
            passkey: Vec::new(),
            kept_max,
        }
    }

    fn clear(&mut self) {
        *self = ClientMessage::new(self.kept_max);
    }

    fn bytes(&self) -> usize {
        let names = [&self.reference, &self.query_identifier, &self.query_path, &self.load_identifier, &self.load_key];
        let names = names.into_iter().chain([&self.identifier, &self.passkey]);
        self.prompt.bytes() + names.map(Vec::len).sum::<usize>()
    }
}

impl JsonSink for ClientMessage {
    type Role = ClientRole;

    fn member(&mut self, at: ClientRole, name: &[u8]) -> ClientRole {
        let role = match (at, name) {
            (Root, b"type") => Kind,
            (Root, b"endpoint") => EndpointName,
            (Root, b"channelId") => ChannelId,
            (Root, b"callId") => CallId,
            (Root, b"creationParameter" | b"parameter") => Parameter,
            (Root, b"message") => Sent,
            (Root, b"clientIdentifier") => ClientIdentifier,
            (Root, b"clientPasskey") => ClientPasskey,
            (Parameter, b"modelSpecifier") => ModelSpecifier,
            (Parameter, b"history" | b"rawPrompt" | b"inputString") => Prompt,
            (Parameter, b"identifier") => LoadIdentifier,
            (Parameter, b"modelKey") => LoadKey,
            (ModelSpecifier, b"instanceReference") => Reference,
            (ModelSpecifier, b"query") => ModelQuery,
            (ModelQuery, b"identifier") => QueryIdentifier,
            (ModelQuery, b"path") => QueryPath,
            (Sent, b"type") => SentType,
            _ => Skip,
        };
        self.prompt_begins |= role == Prompt;
        role
    }

    fn element(&mut self, _at: ClientRole, _index: u32) -> ClientRole {
        Skip
    }

    fn open(&mut self, _at: ClientRole, _is_object: bool) {}

    fn close(&mut self, _at: ClientRole) {}

    fn scalar(&mut self, at: ClientRole, value: Scalar<'_>) {
        match value {
            Scalar::Text(text) => self.text(at, text),
            Scalar::Number(written) if at == ChannelId => self.channel = count(written),
            Scalar::Number(written) if at == CallId => self.call = count(written),
            Scalar::Number(_) | Scalar::True | Scalar::Nothing => {}
        }
    }

    fn words(&mut self, _at: ClientRole, piece: &[u8]) {
        if std::mem::take(&mut self.prompt_begins) {
            self.prompt.clear();
        }
        self.prompt.push(piece);
    }
}
