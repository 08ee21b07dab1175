//! A row in the making: what the request said, kept until the reply has said the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::credential::{FingerprintKey, credential};
use crate::calendar::now_ms;
use crate::http::head::RequestHead;
use crate::in_flight::AskedNow;
use crate::limits::UNKEPT_PROMPT_BYTES_MAX;
use crate::models::SeenModels;
use crate::prompts::ToldConversation;
use crate::prompts::session::told_conversation;
use crate::record::prompts::{Prompt, ReadRequest};
use crate::record::row::{Content, Outcome, PromptShape, Row};
use crate::usage::inject::Edit;
use crate::usage::socket::{Generation, GenerationEnd};
use crate::usage::{RequestFacts, UsageReport, client};

/// What the request said.
pub struct Draft {
    endpoint: String,
    asked: RequestFacts,
    /// What makes it ask for usage, if it asks for a stream without.
    edit: Option<Edit>,
    prompt: Option<Prompt>,
    /// What that takes in memory beside earlier prompts.
    prompt_bytes: usize,
    shape: Option<Box<PromptShape>>,
    client: Option<String>,
    key: Option<String>,
    attempt: Option<u32>,
    told_conversation: ToldConversation,
    replay_of: Option<i64>,
    queue_ms: Option<u64>,
    models: Arc<SeenModels>,
    began: Instant,
    start_ms: i64,
    has_row: bool,
    /// What upstream says of an error is kept; it may quote the prompt.
    keeps_words: bool,
}

/// Stands for upstream's words about an error where no words are kept.
const ERROR_UNTOLD: &str = "upstream reported an error (LOG_CONTENT=none: its words are not kept)";

/// What the row says of what was called off.
pub const CANCELLED_HERE: &str = "it was called off by DELETE /stats/now/ID";

/// What became of the request.
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// Upstream's status, or the one of the proxy's own answer.
    pub http_status: Option<u16>,
    /// In plain words, where it was no success.
    pub error: Option<String>,
    /// What the tap understood of the reply.
    pub report: UsageReport,
    /// Whether the reply came as events.
    pub streamed: bool,
}

impl Ending {
    /// That of an exchange in which the proxy met a bug.
    pub fn of_bug(streamed: bool) -> Ending {
        let error = Some("the exchange ended by a bug of the proxy; its log says where".to_string());
        Ending { outcome: Outcome::Truncated, http_status: None, error, report: UsageReport::default(), streamed }
    }
}

impl Draft {
    /// Notes what the request says.
    #[inline(never)]
    pub fn new(shared: &Shared, head: &RequestHead, body: &[u8], began: Instant, start_ms: i64) -> Draft {
        let settings = &shared.settings;
        let keeps_words = settings.content_bytes_max > 0;
        let bytes_max = if keeps_words { settings.content_bytes_max } else { UNKEPT_PROMPT_BYTES_MAX };
        let read = shared.prompts.read(body, bytes_max);
        let ReadRequest { facts: asked, edit, prompt, prompt_bytes, outline, replaced } = read;
        let (prompt, unkept) = if keeps_words { (prompt, None) } else { (None, prompt) };
        // What was cut has no outline, but it has to be told that it was.
        let is_known = outline.is_some() || replaced.is_some();
        let outline = outline.unwrap_or_default();
        let shape = is_known.then(|| Box::new(PromptShape { outline, unkept, replaced }));
        let (label, key) = who_asks(head, &shared.fingerprints);
        let number = |name| number_of(head.field(name)?);
        Draft {
            endpoint: head.path().to_string(),
            edit,
            prompt,
            prompt_bytes,
            shape,
            client: asked.user.clone().or(label),
            key,
            attempt: number("x-stainless-retry-count").and_then(|number| number.try_into().ok()),
            told_conversation: told_conversation(|name| head.field(name), settings.session_header.as_deref(), &asked),
            replay_of: number(REPLAY_FIELD),
            queue_ms: None,
            models: shared.models.clone(),
            asked,
            began,
            start_ms,
            has_row: false,
            keeps_words,
        }
    }

    /// The same of a request that waited so long for its place.
    pub fn after_queue(self, queued: Option<Duration>) -> Draft {
        Draft { queue_ms: queued.map(|queued| u64::try_from(queued.as_millis()).unwrap_or(u64::MAX)), ..self }
    }

    /// What others see of it while it goes on.
    pub fn asked_now(&self) -> AskedNow {
        let conversation = match &self.told_conversation {
            ToldConversation::Named { name, .. } => Some(name.clone()),
            ToldConversation::GoesOnFrom { .. } | ToldConversation::Untold => None,
        };
        AskedNow { client: self.client.clone(), model: self.asked.model.clone(), conversation }
    }

    /// Whether a row was made of it already.
    pub fn has_row(&self) -> bool {
        self.has_row
    }

    /// The model that the client asked for; empty where it named none.
    pub fn asked_model(&self) -> &str {
        self.asked.model.as_deref().unwrap_or_default()
    }

    /// Whether the client asked for a stream.
    pub fn asked_stream(&self) -> bool {
        self.asked.stream
    }

    /// What makes its request ask for usage, once.
    pub fn take_edit(&mut self) -> Option<Edit> {
        self.edit.take()
    }

    /// What the prompt takes in memory until the row is made, beside what others have, too.
    pub fn prompt_bytes(&self) -> usize {
        self.prompt_bytes
    }

    /// How many choices the client asked for.
    pub fn asked_choices(&self) -> u64 {
        self.asked.choices.unwrap_or(1)
    }

    /// The row before the exchange has ended. `self` stays, for that row may have to be corrected, without the prompt.
    pub fn early_row(&mut self, ending: Ending) -> Row {
        self.has_row = true;
        let as_of_now = Draft {
            endpoint: self.endpoint.clone(),
            asked: self.asked.clone(),
            edit: None,
            prompt: self.prompt.take(),
            shape: self.shape.take(),
            client: self.client.clone(),
            key: self.key.clone(),
            told_conversation: self.told_conversation.clone(),
            models: self.models.clone(),
            ..*self
        };
        as_of_now.row(ending)
    }

    /// The row.
    pub fn row(self, ending: Ending) -> Row {
        let Ending { outcome, http_status, error, report, streamed } = ending;
        let UsageReport { counts, work, .. } = report;
        let model = report.model.or_else(|| self.asked.model.clone());
        Row {
            endpoint: self.endpoint,
            context_tokens: model.as_deref().and_then(|model| self.models.context_tokens(model)),
            model,
            requested_model: self.asked.model,
            start_ms: self.start_ms,
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            input_tokens: counts.input,
            output_tokens: counts.output,
            total_tokens: counts.total,
            cached_tokens: counts.cached,
            cache_write_tokens: counts.cache_write,
            reasoning_tokens: counts.reasoning,
            draft_tokens: work.drafted,
            accepted_draft_tokens: work.accepted,
            request_id: report.id,
            outcome,
            error_message: error.or_else(|| match self.keeps_words {
                true => report.error,
                false => report.error.map(|_| ERROR_UNTOLD.to_string()),
            }),
            http_status,
            was_streamed: streamed,
            time_to_first_token_ms: report.first_content_us.map(|us| us / 1000),
            tokens_per_second: work.tokens_per_second,
            prompt_tokens_per_second: work.prompt_per_second,
            finish_reason: report.finish_reason,
            usage_source: report.usage_source,
            model_load_ms: work.load_seconds.map(|seconds| (seconds * 1000.0).round() as u64),
            client: self.client,
            key: self.key,
            attempt: self.attempt,
            told_conversation: self.told_conversation,
            replay_of: self.replay_of,
            queue_ms: self.queue_ms,
            content: Content {
                prompt: self.prompt,
                output: report.output,
                reasoning: report.reasoning,
                tool_calls: report.tool_calls,
                shape: self.shape,
            },
        }
    }
}

/// A field that says which row's request is sent again.
const REPLAY_FIELD: &str = "x-replay-of";

/// Digits alone.
fn number_of(value: &[u8]) -> Option<i64> {
    let digits = std::str::from_utf8(value).ok().filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// What a head says of who asks: the label of the client program, and the fingerprint of the credential.
fn who_asks(head: &RequestHead, fingerprints: &FingerprintKey) -> (Option<String>, Option<String>) {
    let secret = credential(head.field("authorization"), head.field("x-api-key"));
    (client_label(head), secret.map(|secret| fingerprints.fingerprint(secret)))
}

/// The label of the client program, as the head tells it.
pub fn client_label(head: &RequestHead) -> Option<String> {
    client::label(head.field("user-agent"), head.field("x-title"), head.field("http-referer"))
}

/// Who speaks over a WebSocket: what all its rows say.
pub struct Speaker {
    client: Option<String>,
    key: Option<String>,
    keeps_words: bool,
    fingerprints: Arc<FingerprintKey>,
}

impl Speaker {
    /// As the handshake tells it. `keeps_words`: what upstream says of an error is kept.
    pub fn new(fingerprints: Arc<FingerprintKey>, keeps_words: bool, head: &RequestHead) -> Speaker {
        let (client, key) = who_asks(head, &fingerprints);
        Speaker { client, key, keeps_words, fingerprints }
    }

    /// The client program, where the handshake tells it.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// As the first message tells it: the same token is the same key on whichever way it comes.
    pub fn note_token(&mut self, token: &str) {
        self.key = Some(self.fingerprints.fingerprint(token.as_bytes()));
    }

    /// The row of a generation that has ended just now. `client`: who it is where the handshake does not tell. `opened`:
    /// when the WebSocket was. `models`: what is known of them. `cut`: the outcome where it is the WebSocket's end that has ended it.
    pub fn row(
        &self,
        generation: Generation,
        client: Option<&str>,
        (opened, models): (Instant, &Arc<SeenModels>),
        cut: (Outcome, Option<&str>),
    ) -> Row {
        let (outcome, error) = match (generation.end, generation.error()) {
            (GenerationEnd::Open, _) => cut,
            (GenerationEnd::Completed, error) => (Outcome::Completed, error),
            (GenerationEnd::Cancelled, error) => (Outcome::ClientClosed, error),
            (GenerationEnd::Failed, error) => (Outcome::ErrorInReply, error),
            (GenerationEnd::Unanswered, error) => (Outcome::Truncated, error),
        };
        let Generation { endpoint, began_us, ended_us, requested_model, was_streamed, prompt, report, .. } = generation;
        let began = opened + Duration::from_micros(began_us);
        let draft = Draft {
            endpoint: endpoint.to_owned(),
            asked: RequestFacts { model: requested_model, ..RequestFacts::default() },
            edit: None,
            prompt: prompt.map(Prompt::Whole),
            prompt_bytes: 0,
            shape: None,
            client: self.client.clone().or_else(|| client.map(str::to_owned)),
            key: self.key.clone(),
            attempt: None,
            told_conversation: ToldConversation::Untold,
            replay_of: None,
            queue_ms: None,
            models: models.clone(),
            began,
            start_ms: now_ms() - began.elapsed().as_millis() as i64,
            has_row: false,
            keeps_words: self.keeps_words,
        };
        let error = error.map(str::to_owned);
        let row = draft.row(Ending { outcome, http_status: Some(101), error, report, streamed: was_streamed });
        Row { duration_ms: ended_us.saturating_sub(began_us) / 1000, ..row }
    }
}
