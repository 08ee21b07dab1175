//! What a client and LM Studio say to each other: which generations are going on, and what becomes of them.
//!
//! ```text
//!  channelCreate ─▶ Running ──success, error──▶ Ended ──channelClose, channelError──▶ (free)
//!                      └──channelClose, channelError────────────────────────────────────▲
//!  rpcCall ───────▶ Running ──rpcResult, rpcError───────────────────────────────────────▲
//! ```
//!
//! Numbers are the client's, and free again when a channel is closed or a call is answered. LM Studio passes over the
//! opening of a channel whose number is taken (lmstudio-js, `ServerPort.receivedChannelCreate`), and so does this. A
//! channel that has ended is remembered until it is closed, so that its close is not taken for that of the next one.

use std::collections::BTreeMap;

use super::super::listing::ModelNews;
use super::super::prompt;
use super::client_message::{ClientKind, ClientMessage, Endpoint};
use super::generation::{BegunGeneration, Generation, GenerationEnd, Running};
use super::models::{KnownModels, text};
use super::server_message::{SentKind, ServerKind, ServerMessage};
use super::{COMPLETE_RAW_TEXT, EMBED_STRING, Namespace, PREDICT};
use crate::limits::{SOCKET_MODELS_MAX, SOCKET_OPEN_MAX, SOCKET_WORDS_BYTES_MAX};

/// What a number counts. Those of channels and of calls are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Numbered {
    Channel,
    Call,
}

/// What is open under a number.
#[derive(Debug)]
enum Opened {
    /// A model is being loaded, and was asked for by this name.
    Loading(Option<String>),
    /// A generation goes on.
    Running(Box<Running>),
    /// What it was for has ended: only its close is still to come.
    Ended,
}

/// One conversation.
#[derive(Debug)]
pub struct Conversation {
    namespace: Namespace,
    kept_max: usize,
    open: BTreeMap<(Numbered, u64), Opened>,
    models: KnownModels,
    running: usize,
    /// What the words of those take in memory.
    words_bytes: usize,
    /// Generations that were too many at once, or begun under a number that is taken.
    pub missed: u64,
    /// How many have begun.
    count: u64,
    /// Generations that have begun, in order.
    pub begun: Vec<BegunGeneration>,
    /// Generations that have ended, in order.
    pub ended: Vec<Generation>,
    /// What was told of models that are loaded, or no more.
    pub news: Vec<ModelNews>,
}

impl Conversation {
    /// Before the first word.
    pub fn new(namespace: Namespace, kept_max: usize) -> Conversation {
        Conversation {
            namespace,
            kept_max,
            open: BTreeMap::new(),
            models: KnownModels::default(),
            running: 0,
            words_bytes: 0,
            missed: 0,
            count: 0,
            begun: Vec::new(),
            ended: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Generations that are going on.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Whether nothing is under way: no model is loaded, no generation goes on, and no close is still to come.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Memory on the heap, nearly.
    pub fn bytes(&self) -> usize {
        let opened = size_of::<(Numbered, u64, Opened)>() + size_of::<Running>();
        self.open.len() * opened + self.words_bytes + self.models.bytes()
    }

    // ---- the client ----------------------------------------------------------------------------------------------

    /// Takes a message of the client.
    pub fn client_said(&mut self, message: &mut ClientMessage, at_us: u64) {
        match (message.kind, message.channel, message.call) {
            (ClientKind::ChannelCreate, Some(number), _) => self.open((Numbered::Channel, number), message, at_us),
            (ClientKind::RpcCall, _, Some(number)) => self.open((Numbered::Call, number), message, at_us),
            (ClientKind::ChannelSend, Some(number), _) if message.is_cancel => {
                if let Some(Opened::Running(running)) = self.open.get_mut(&(Numbered::Channel, number)) {
                    running.is_cancelled = true;
                }
            }
            (ClientKind::ChannelCreate | ClientKind::ChannelSend | ClientKind::RpcCall | ClientKind::Other, ..) => {}
        }
    }

    fn open(&mut self, key: (Numbered, u64), message: &mut ClientMessage, at_us: u64) {
        let endpoint = match (self.namespace, key.0, message.endpoint) {
            (Namespace::Llm, Numbered::Channel, Endpoint::Predict) => PREDICT,
            (Namespace::Llm, Numbered::Channel, Endpoint::CompleteRawText) => COMPLETE_RAW_TEXT,
            (Namespace::Embedding, Numbered::Call, Endpoint::EmbedString) => EMBED_STRING,
            (_, Numbered::Channel, Endpoint::GetOrLoad | Endpoint::LoadModel) => {
                if matches!(self.open.get(&key), None | Some(Opened::Ended)) && self.has_room() {
                    self.open.insert(key, Opened::Loading(text(message.model_to_load())));
                }
                return;
            }
            _ => return,
        };
        let follows_another = match self.open.get(&key) {
            None => false,
            Some(Opened::Ended) => true,
            Some(Opened::Loading(_) | Opened::Running(_)) => return self.missed += 1,
        };
        if !self.has_room() {
            return self.missed += 1;
        }
        let (asked, model) = self.models.find(&message.reference);
        let models = (asked.or_else(|| text(message.asked_model())), model);
        let prompt = message.take_prompt().and_then(|text| prompt::prompt_text(text.as_bytes(), self.kept_max));
        let mut running = Box::new(Running::new(self.count, endpoint, at_us, models, prompt, self.kept_max));
        running.follows_another = follows_another;
        self.count += 1;
        if self.begun.len() < SOCKET_OPEN_MAX {
            self.begun.push(running.begun());
        }
        self.running += 1;
        self.words_bytes += running.words_bytes();
        self.open.insert(key, Opened::Running(running));
        self.bound_words(key);
    }

    /// Whether one more fits: what is no generation gives way.
    fn has_room(&mut self) -> bool {
        if self.open.len() >= SOCKET_OPEN_MAX {
            self.open.retain(|_, opened| matches!(opened, Opened::Running(_)));
        }
        self.open.len() < SOCKET_OPEN_MAX
    }

    /// Words that take too much memory go: those of the one that was told something last.
    fn bound_words(&mut self, key: (Numbered, u64)) {
        if self.words_bytes > SOCKET_WORDS_BYTES_MAX {
            self.tell(key, Running::forget_words);
        }
    }

    // ---- LM Studio -----------------------------------------------------------------------------------------------

    /// Takes a message of LM Studio; whether it ends a generation.
    pub fn server_said(&mut self, message: &mut ServerMessage, at_us: u64) -> bool {
        match (message.kind, message.channel, message.call) {
            (ServerKind::ChannelSend, Some(number), _) => self.sent((Numbered::Channel, number), message, at_us),
            (ServerKind::ChannelClose, Some(number), _) => self.closed(number, None, at_us),
            (ServerKind::ChannelError, Some(number), _) => self.closed(number, Some(message.error_words()), at_us),
            (ServerKind::RpcResult, _, Some(number)) => {
                self.learn(message, None);
                self.end((Numbered::Call, number), GenerationEnd::Completed, None, at_us)
            }
            (ServerKind::RpcError, _, Some(number)) => {
                let error = Some(message.error_words());
                self.end((Numbered::Call, number), GenerationEnd::Failed, error, at_us)
            }
            (
                ServerKind::ChannelSend
                | ServerKind::ChannelClose
                | ServerKind::ChannelError
                | ServerKind::RpcResult
                | ServerKind::RpcError
                | ServerKind::Other,
                ..,
            ) => false,
        }
    }

    /// Takes the answer to the client's first message: where it is not let in, whatever it has asked for already fails.
    pub fn refused(&mut self, message: &ServerMessage, at_us: u64) -> bool {
        let keys: Vec<_> = self.open.keys().copied().collect();
        let mut has_ended = false;
        for key in keys {
            has_ended |= self.end(key, GenerationEnd::Failed, Some(message.error_words()), at_us);
        }
        has_ended
    }

    fn sent(&mut self, key: (Numbered, u64), message: &mut ServerMessage, at_us: u64) -> bool {
        match self.open.get_mut(&key) {
            Some(Opened::Loading(asked)) => {
                let has_ended = matches!(message.sent, SentKind::Success | SentKind::Loaded);
                let asked = if has_ended { asked.take() } else { asked.clone() };
                self.learn(message, asked.as_deref());
                if has_ended {
                    self.open.insert(key, Opened::Ended);
                }
                return false;
            }
            Some(Opened::Running(_)) => {}
            Some(Opened::Ended) | None => return false,
        }
        match message.sent {
            SentKind::Fragment => self.tell(key, |running| running.fragment(message, at_us)),
            SentKind::Progress => self.tell(key, |running| running.progress(message)),
            SentKind::CallPiece => self.tell(key, |running| running.call_piece(message, at_us)),
            SentKind::Call => self.tell(key, |running| running.call(message, at_us)),
            SentKind::Success => {
                self.learn(message, None);
                let mut end = GenerationEnd::Completed;
                self.tell(key, |running| end = running.success(message));
                return self.end(key, end, None, at_us);
            }
            SentKind::Error => return self.end(key, GenerationEnd::Failed, Some(message.error_words()), at_us),
            SentKind::Loaded | SentKind::Unloading | SentKind::Other => {}
        }
        self.bound_words(key);
        false
    }

    fn closed(&mut self, number: u64, error: Option<&[u8]>, at_us: u64) -> bool {
        let key = (Numbered::Channel, number);
        let end = match self.open.get_mut(&key) {
            Some(Opened::Running(running)) => {
                if std::mem::take(&mut running.follows_another) {
                    return false;
                }
                match (error, running.is_cancelled) {
                    (Some(_), _) => GenerationEnd::Failed,
                    (None, true) => GenerationEnd::Cancelled,
                    (None, false) => GenerationEnd::Unanswered,
                }
            }
            Some(Opened::Loading(_) | Opened::Ended) | None => GenerationEnd::Unanswered,
        };
        let has_ended = self.end(key, end, error, at_us);
        self.open.remove(&key);
        has_ended
    }

    /// The connection is over.
    pub fn end_all(&mut self, at_us: u64) {
        let keys: Vec<_> = self.open.keys().copied().collect();
        for key in keys {
            self.end(key, GenerationEnd::Open, None, at_us);
        }
        self.open.clear();
    }

    fn learn(&mut self, message: &ServerMessage, asked: Option<&str>) {
        let is_unloading = message.sent == SentKind::Unloading;
        for model in &message.models {
            // The one that makes room is not the one that was asked for.
            self.models.learn(model, asked.filter(|_| !is_unloading));
            if self.news.len() < SOCKET_MODELS_MAX {
                self.news.extend(model.news(is_unloading));
            }
        }
    }

    /// Tells a generation something that may change what its words take in memory.
    fn tell(&mut self, key: (Numbered, u64), tell: impl FnOnce(&mut Running)) {
        if let Some(Opened::Running(running)) = self.open.get_mut(&key) {
            self.words_bytes -= running.words_bytes();
            tell(running);
            self.words_bytes += running.words_bytes();
        }
    }

    /// Ends what runs under a number, if anything does. A channel's number stays taken until it is closed.
    fn end(&mut self, key: (Numbered, u64), end: GenerationEnd, error: Option<&[u8]>, at_us: u64) -> bool {
        let Some(opened @ Opened::Running(_)) = self.open.get_mut(&key) else { return false };
        let Opened::Running(running) = std::mem::replace(opened, Opened::Ended) else { return false };
        if key.0 == Numbered::Call {
            self.open.remove(&key);
        }
        self.running -= 1;
        self.words_bytes -= running.words_bytes();
        self.ended.push(running.ended(end, error, at_us));
        true
    }
}
