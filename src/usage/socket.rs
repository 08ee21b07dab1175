//! The language of LM Studio's SDKs (`@lmstudio/sdk`, `lmstudio` for Python, `lms`), read along on one WebSocket.
//!
//! Each text message is a JSON object. The first of each side lets the client in; then channels are opened (a
//! prediction, the loading of a model) and calls are made (an embedding), several at once, told apart by the client's
//! numbers. Nothing is answered, changed or refused here: a message that is not understood is passed over. Source:
//! lmstudio-js, `packages/lms-communication` and `lms-external-backend-interfaces`.
//!
//! ```text
//!  client's bytes ───▶ direction (frames, JSON) ─▶ client_message ─┐
//!                                                                  ├─▶ conversation ─▶ generation
//!  LM Studio's bytes ▶ direction (frames, JSON) ─▶ server_message ─┘    └ models
//! ```

mod client_message;
mod conversation;
mod direction;
mod generation;
mod models;
mod read_along;
mod server_message;

use super::listing::ModelNews;
use crate::limits::SOCKET_CONTENT_BYTES_MAX;
use client_message::ClientMessage;
use conversation::Conversation;
use direction::Direction;
#[cfg(test)]
pub(crate) use generation::generations;
pub use generation::{BegunGeneration, Generation, GenerationEnd};
pub use read_along::ReadAlong;
use server_message::ServerMessage;

/// Endpoints by which rows know generations: the namespace, and what is opened or called in it.
const PREDICT: &str = "/llm/predict";
const COMPLETE_RAW_TEXT: &str = "/llm/completeRawText";
const EMBED_STRING: &str = "/embedding/embedString";

/// Longest identifier and longest passkey that LM Studio takes.
const CREDENTIAL_BYTES_MAX: usize = 256;
/// What API tokens begin with.
const TOKEN_BEGINNING: &[u8] = b"sk-lm-";

/// What a WebSocket to LM Studio is for: its path tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Language models.
    Llm,
    /// Embedding models.
    Embedding,
    /// Files, downloads, what is loaded: nothing is generated there, and nothing is read but who the client is.
    Other,
}

impl Namespace {
    /// That of a path.
    pub fn of_path(path: &str) -> Namespace {
        match path {
            "/llm" => Namespace::Llm,
            "/embedding" => Namespace::Embedding,
            _ => Namespace::Other,
        }
    }
}

/// Reads along on one WebSocket. Times are microseconds of the caller's clock.
// Not to be printed: while the first message is read, credentials are in it.
pub struct SocketReader {
    namespace: Namespace,
    kept_max: usize,
    client: Direction<ClientMessage>,
    upstream: Direction<ServerMessage>,
    conversation: Conversation,
    token: Option<String>,
    client_name: Option<&'static str>,
}

impl SocketReader {
    /// Before the first byte behind the heads. `content_bytes_max`: bytes kept of each kind of words, 0 for none, and
    /// at most [`SOCKET_CONTENT_BYTES_MAX`].
    pub fn new(namespace: Namespace, content_bytes_max: usize) -> SocketReader {
        let kept_max = content_bytes_max.min(SOCKET_CONTENT_BYTES_MAX);
        SocketReader {
            namespace,
            kept_max,
            client: Direction::new(),
            upstream: Direction::new(),
            conversation: Conversation::new(namespace, kept_max),
            token: None,
            client_name: None,
        }
    }

    /// Memory that it takes, nearly.
    pub fn bytes(&self) -> usize {
        size_of::<SocketReader>() + self.client.bytes() + self.upstream.bytes() + self.conversation.bytes()
    }

    /// What reading takes is given back while nothing is going on: an SDK keeps its connections for hours.
    fn rest(&mut self) {
        if self.conversation.is_idle() {
            self.client.rest();
            self.upstream.rest();
        }
    }
}

impl ReadAlong for SocketReader {
    fn client_sent(&mut self, bytes: &[u8], at_us: u64) {
        let is_read = self.namespace != Namespace::Other;
        if !is_read && self.client.is_begun() {
            return;
        }
        let (conversation, token, client_name) = (&mut self.conversation, &mut self.token, &mut self.client_name);
        self.client.read(bytes, self.kept_max, |message, is_first, _| {
            let Some(message) = message else { return };
            if is_first {
                *token = api_token(message);
                *client_name = client_of(&message.identifier, token.as_deref());
            }
            if is_read {
                conversation.client_said(message, at_us);
            }
        });
        if !is_read && self.client.is_begun() {
            self.client.forget();
        }
        self.rest();
    }

    fn upstream_sent(&mut self, bytes: &[u8], at_us: u64) -> usize {
        if self.namespace == Namespace::Other {
            self.upstream.pass(bytes);
            return bytes.len();
        }
        let mut free = bytes.len();
        let conversation = &mut self.conversation;
        self.upstream.read(bytes, self.kept_max, |message, is_first, behind| {
            let Some(message) = message else { return };
            let has_ended = match is_first && message.is_accepted == Some(false) {
                true => conversation.refused(message, at_us),
                false => conversation.server_said(message, at_us),
            };
            if has_ended {
                free = free.min(behind - 1);
            }
        });
        self.rest();
        free
    }

    fn take_begun(&mut self) -> Vec<BegunGeneration> {
        std::mem::take(&mut self.conversation.begun)
    }

    fn take_ended(&mut self) -> Vec<Generation> {
        std::mem::take(&mut self.conversation.ended)
    }

    fn take_news(&mut self) -> Vec<ModelNews> {
        std::mem::take(&mut self.conversation.news)
    }

    fn end(&mut self, at_us: u64) -> Vec<Generation> {
        self.conversation.end_all(at_us);
        self.take_ended()
    }

    fn running(&self) -> usize {
        self.conversation.running()
    }

    fn is_idle(&self) -> bool {
        self.conversation.is_idle()
    }

    fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.conversation.missed)
    }

    fn take_token(&mut self) -> Option<String> {
        self.token.take()
    }

    fn client_name(&self) -> Option<&'static str> {
        self.client_name
    }

    fn is_at_boundary(&self) -> bool {
        self.upstream.is_at_boundary()
    }
}

/// The token that identifier and passkey are the parts of: `sk-lm-`, eight letters or digits, a colon, twenty more.
/// TypeScript's SDK sends what stands around the colon without that beginning, which is then told by its lengths. Guests
/// and names of a user's own have none.
fn api_token(message: &ClientMessage) -> Option<String> {
    let identifier = std::str::from_utf8(&message.identifier).ok()?;
    let passkey = std::str::from_utf8(&message.passkey).ok()?;
    let fits = |part: &str| !part.is_empty() && part.len() <= CREDENTIAL_BYTES_MAX;
    let is_part = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match identifier.as_bytes().strip_prefix(TOKEN_BEGINNING) {
        Some(_) if fits(identifier) && fits(passkey) => Some(format!("{identifier}:{passkey}")),
        None if is_part(identifier, 8) && is_part(passkey, 20) => Some(format!("sk-lm-{identifier}:{passkey}")),
        Some(_) | None => None,
    }
}

/// The program that introduces itself so. Python's guests are a UUID, and its User-Agent is told; TypeScript's SDK sends
/// none, and is the one that takes a token's beginning off.
fn client_of(identifier: &[u8], token: Option<&str>) -> Option<&'static str> {
    if identifier.starts_with(b"lms-cli") {
        Some("lms")
    } else if identifier.starts_with(b"guest:") || token.is_some() && !identifier.starts_with(TOKEN_BEGINNING) {
        Some("lmstudio-js")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
