//! Where a request belongs: the conversation that it goes on with, and the earlier prompt that it shares most with.
//!
//! The writer keeps in memory what the last prompts of each model were, element by element as hashes, and how the last
//! conversations of each client ended. A prompt is looked up when its row is written, for only then is known what its
//! reply tells of the cache, and which rows were written before it. What is known in memory is read again from
//! the database after a start, or when a transaction has failed.
//!
//! Where in an element two prompts part, their texts tell: a short one is kept here, a long one is still among the last
//! prompts in memory, or the database has it.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Weak};

use rusqlite::{Connection, OptionalExtension};

use super::prompts::{PieceReader, PiecedPrompt, Prompt, StoredPrompt};
use super::row::{Lineage, Outcome, Row};
use super::schema::UNKNOWN_MODEL;
use super::table::{integer, text};
use crate::calendar::ms_of_text;
use crate::limits::{
    CONVERSATIONS_KNOWN_MAX, MODELS_KNOWN_MAX, OUTLINES_KNOWN_BYTES_MAX, OUTLINES_KNOWN_MAX, PIECED_BYTES_MIN,
};
use crate::prompts::comparison::{closeness, compare};
use crate::prompts::cut::{PromptSize, UsualDensity};
use crate::prompts::outline::shared_within;
use crate::prompts::session::{chain, chain_name, chain_seed};
use crate::prompts::{Circumstances, ConversationSource, ElementPart, Outline, PrefixBreak, ToldConversation};
use crate::routes::{dialect_of, generates};
use crate::usage::Dialect;

/// Rows looked through for what is known in memory after a start.
const LOADED_ROWS_MAX: i64 = 1024;

/// What is known of the last requests.
#[derive(Debug, Default)]
pub(super) struct Lineages {
    /// The rows before this transaction are known.
    is_loaded: bool,
    /// The last prompts that upstream has read, in the order of their rows.
    past: VecDeque<PastPrompt>,
    past_bytes: usize,
    /// Conversations by how their messages ended, by the ids of their replies, and by their own names.
    ends: Recent<u64>,
    replies: Recent<Arc<str>>,
    names: Recent<Arc<str>>,
    models: HashMap<Arc<str>, ModelHabits>,
    /// Who asked last, and what the chains of theirs begin with.
    last_seed: Option<(Option<String>, Option<String>, u64)>,
}

/// A prompt that upstream has read.
#[derive(Debug)]
struct PastPrompt {
    id: i64,
    model: Arc<str>,
    conversation: Arc<str>,
    start_ms: i64,
    outline: Outline,
    text: PastText,
}

/// The text of an earlier prompt.
#[derive(Debug)]
enum PastText {
    Short(Box<str>),
    /// As long as it is among the last prompts.
    Pieced(Weak<PiecedPrompt>),
    Stored,
}

/// What the replies of one model tell of how it reads.
#[derive(Clone, Copy, Debug, Default)]
struct ModelHabits {
    tells_cached_tokens: bool,
    /// Tokens a second, of what is read anew.
    reading_speed: Option<f64>,
    /// Bytes of prompts for each of their tokens.
    density: UsualDensity,
}

/// Of a speed that is measured anew, so much counts.
const NEWEST_SPEED_PART: f64 = 0.25;
/// A first token that comes sooner tells more of other things than of reading.
const MEASURED_MS_MIN: u64 = 100;

/// The conversations of the last so many keys.
#[derive(Debug)]
struct Recent<K> {
    conversations: HashMap<K, Arc<str>>,
    order: VecDeque<K>,
}

impl<K> Default for Recent<K> {
    fn default() -> Recent<K> {
        Recent { conversations: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash> Recent<K> {
    fn note(&mut self, key: K, conversation: &Arc<str>) {
        if self.conversations.insert(key.clone(), conversation.clone()).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > CONVERSATIONS_KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.conversations.remove(&oldest);
        }
    }
}

/// A request that has been looked up, until its row has an id.
#[derive(Debug)]
pub(super) struct Traced {
    /// What its row says of it.
    pub(super) lineage: Lineage,
    /// It is the first that is known of its conversation.
    pub(super) begins: bool,
    end: Option<u64>,
    dialect: Dialect,
}

impl Lineages {
    /// Looks a request up, inside the transaction that is to write its row.
    pub(super) fn trace(
        &mut self,
        conn: &Connection,
        row: &Row,
        hashes: &impl BuildHasher,
    ) -> rusqlite::Result<Traced> {
        let dialect = dialect_of(&row.endpoint);
        let outline = outline_of(row, dialect);
        if !self.is_loaded {
            self.load(conn, hashes)?;
        }
        let messages = outline.map_or(&[][..], |outline| outline.part(ElementPart::Message));
        let seed = self.seed(row, hashes);
        let end = chain(messages, seed).last();
        let (conversation, source) = match &row.told_conversation {
            ToldConversation::Named { name, source } => (Arc::from(name.as_str()), *source),
            ToldConversation::GoesOnFrom { response } => {
                let known = self.replies.conversations.get(response.as_str()).cloned();
                (known.unwrap_or_else(|| Arc::from(response.as_str())), ConversationSource::Response)
            }
            ToldConversation::Untold => {
                let Some(end) = end else {
                    return Ok(Traced { lineage: Lineage::default(), begins: false, end, dialect });
                };
                let links = Vec::from_iter(chain(messages, seed));
                let known = links.iter().rev().find_map(|link| self.ends.conversations.get(link)).cloned();
                (known.unwrap_or_else(|| Arc::from(chain_name(end))), ConversationSource::Prefix)
            }
        };
        let known = self.names.conversations.get(&*conversation).cloned();
        let begins = known.is_none();
        let conversation = known.unwrap_or(conversation);
        let mut lineage =
            Lineage { conversation: Some(conversation.clone()), source: Some(source), ..Lineage::default() };
        // Of what goes on from a reply, upstream has the rest.
        if let Some(outline) = outline.filter(|_| source != ConversationSource::Response) {
            self.compare(conn, row, outline, &conversation, &mut lineage)?;
            self.judge(row, dialect, outline.bytes(), &mut lineage);
        }
        Ok(Traced { lineage, begins, end, dialect })
    }

    /// Whether upstream seems to have cut the prompt. Of one that is not kept as it was sent, how many tokens it should have
    /// is not known.
    fn judge(&mut self, row: &Row, dialect: Dialect, bytes: u64, lineage: &mut Lineage) {
        let is_as_sent = row.content.shape.as_ref().is_some_and(|shape| shape.replaced.is_none());
        let Some(input) = row.input_tokens.filter(|_| is_as_sent && was_read(row.outcome)) else { return };
        // Some count beside it what the cache had: then there are more, and none too few.
        let beside = match dialect {
            Dialect::Messages => row.cached_tokens.unwrap_or(0).saturating_add(row.cache_write_tokens.unwrap_or(0)),
            _ => 0,
        };
        let size = PromptSize {
            bytes,
            new_bytes: bytes.saturating_sub(lineage.prefix_bytes.unwrap_or(0)),
            told_tokens: input.saturating_add(beside),
            context_tokens: row.context_tokens,
        };
        let (_, habits) = self.habits(row.model.as_deref().unwrap_or(UNKNOWN_MODEL));
        let density = &mut habits.density;
        if let Some(judgement) = density.judge(size, || prompt_of(row).map(|prompt| (prompt.bytes(), prompt.parts()))) {
            lineage.prompt_cut = Some(judgement.is_cut);
            lineage.prompt_expected_tokens = Some(judgement.expected_tokens);
        }
    }

    /// What the chains of this client begin with. Mostly it is the one who asked last.
    fn seed(&mut self, row: &Row, hashes: &impl BuildHasher) -> u64 {
        let who = (row.client.as_deref(), row.key.as_deref());
        match &self.last_seed {
            Some((client, key, seed)) if (client.as_deref(), key.as_deref()) == who => *seed,
            Some(_) | None => {
                let seed = chain_seed(who.0, who.1, hashes);
                self.last_seed = Some((row.client.clone(), row.key.clone(), seed));
                seed
            }
        }
    }

    fn compare(
        &self,
        conn: &Connection,
        row: &Row,
        outline: &Outline,
        conversation: &str,
        lineage: &mut Lineage,
    ) -> rusqlite::Result<()> {
        lineage.prompt_bytes = Some(outline.bytes());
        let model = row.model.as_deref().unwrap_or(UNKNOWN_MODEL);
        let known = self.models.get_key_value(model);
        let habits = known.map_or_else(ModelHabits::default, |(_, habits)| *habits);
        // Nearly all prompts of a model have its name from there.
        let is_of_model = |past: &PastPrompt| {
            known.is_some_and(|(known, _)| Arc::ptr_eq(known, &past.model)) || *past.model == *model
        };
        let is_earlier = |past: &PastPrompt| is_of_model(past) && past.start_ms <= row.start_ms;
        let before = || self.past.iter().enumerate().filter(|(_, past)| is_earlier(past));
        // Of those that share as much, the last. None shares more than all there is.
        let all = (outline.part(ElementPart::Message).len(), outline.bytes());
        let (mut closest, mut most) = (None, None);
        for candidate in before().rev() {
            if let Some(shared) = closeness(&candidate.1.outline, outline, most) {
                (closest, most) = (Some(candidate), Some(shared));
            }
            if most == Some(all) {
                break;
            }
        }
        let last_of_it = || before().rfind(|(_, past)| &*past.conversation == conversation);
        let closest = match most {
            Some((0, _)) => last_of_it().or(closest),
            _ => closest,
        };
        let Some((place, past)) = closest else {
            (lineage.prefix_bytes, lineage.prefix_messages) = (Some(0), Some(0));
            lineage.prefix_break = Some(PrefixBreak::First);
            lineage.prefix_lost_ms = Some(0);
            return Ok(());
        };
        let mut comparison = compare(&past.outline, outline);
        if comparison.elements < past.outline.elements().len() && comparison.elements < outline.elements().len() {
            comparison.bytes += shared_within_parted(conn, past, row, comparison.elements)?;
            comparison.bytes_otherwise = comparison.bytes_otherwise.max(comparison.bytes);
        }
        let circumstances = Circumstances {
            model_load_ms: row.model_load_ms,
            input_tokens: row.input_tokens,
            cached_tokens: row.cached_tokens,
            tells_cached_tokens: habits.tells_cached_tokens,
            time_to_first_token_ms: row.time_to_first_token_ms,
            reading_tokens_per_second: row.prompt_tokens_per_second.or(habits.reading_speed),
            other_conversation_between: self
                .past
                .range(place + 1..)
                .any(|past| is_earlier(past) && &*past.conversation != conversation),
            is_same_conversation: &*past.conversation == conversation,
        };
        let reason = comparison.prefix_break(&circumstances);
        lineage.prefix_of = (comparison.bytes > 0 || reason != PrefixBreak::First).then_some(past.id);
        lineage.prefix_bytes = Some(comparison.bytes);
        lineage.prefix_messages = Some(comparison.messages as u64);
        lineage.prefix_break = Some(reason);
        lineage.prefix_lost_ms = comparison.lost_ms(reason, &circumstances);
        Ok(())
    }

    /// The row has been written, under this id.
    pub(super) fn note(&mut self, id: i64, row: &Row, traced: Traced) {
        let Some(conversation) = traced.lineage.conversation else { return };
        if traced.begins {
            self.names.note(conversation.clone(), &conversation);
        }
        self.note_end(&conversation, traced.end, row.request_id.as_deref().filter(|_| is_gone_on_from(traced.dialect)));
        // Only a prompt that was compared goes on to be.
        let compared = row.content.shape.as_ref().filter(|_| traced.lineage.prefix_break.is_some());
        let Some(outline) = compared.map(|shape| shape.outline.clone()) else { return };
        let shared = traced.lineage.prefix_bytes.unwrap_or(0);
        let model = self.note_habits(row, outline.bytes(), shared);
        if was_read(row.outcome) {
            let text = match prompt_of(row) {
                Some(Prompt::Whole(text)) if text.len() < PIECED_BYTES_MIN => PastText::Short(text.as_str().into()),
                Some(Prompt::Pieced(prompt)) => PastText::Pieced(Arc::downgrade(prompt)),
                Some(Prompt::Whole(_)) | None => PastText::Stored,
            };
            self.push(PastPrompt { id, model, conversation, start_ms: row.start_ms, outline, text });
        }
    }

    /// How a conversation goes on: what ends as this one does, or is a reply to this.
    fn note_end(&mut self, conversation: &Arc<str>, end: Option<u64>, reply: Option<&str>) {
        if let Some(end) = end {
            self.ends.note(end, conversation);
        }
        if let Some(reply) = reply {
            self.replies.note(Arc::from(reply), conversation);
        }
    }

    /// The model, as it is known here.
    fn note_habits(&mut self, row: &Row, prompt_bytes: u64, shared_bytes: u64) -> Arc<str> {
        let (model, habits) = self.habits(row.model.as_deref().unwrap_or(UNKNOWN_MODEL));
        habits.tells_cached_tokens |= row.cached_tokens.is_some();
        let first_ms = row.time_to_first_token_ms.filter(|ms| *ms >= MEASURED_MS_MIN);
        let read = row.input_tokens.map(|input| input.saturating_sub(row.cached_tokens.unwrap_or(0)));
        // What is mostly shared may come from a cache without being told.
        let is_anew = shared_bytes < prompt_bytes / 4 || row.cached_tokens.is_some();
        let measured = first_ms.zip(read).filter(|_| is_anew && row.model_load_ms.unwrap_or(0) == 0);
        let measured = measured.map(|(ms, tokens)| tokens as f64 * 1000.0 / ms as f64).filter(|speed| *speed > 0.0);
        if let Some(speed) = row.prompt_tokens_per_second.or(measured) {
            let before = habits.reading_speed.unwrap_or(speed);
            habits.reading_speed = Some(before + (speed - before) * NEWEST_SPEED_PART);
        }
        model
    }

    /// What is known of a model, and its name, which stands once for all that is of it.
    fn habits(&mut self, name: &str) -> (Arc<str>, &mut ModelHabits) {
        let known = self.models.get_key_value(name).map(|(model, _)| model.clone());
        let model = known.unwrap_or_else(|| {
            if self.models.len() >= MODELS_KNOWN_MAX {
                self.models.clear();
            }
            Arc::from(name)
        });
        let habits = self.models.entry(model.clone()).or_default();
        (model, habits)
    }

    fn push(&mut self, past: PastPrompt) {
        self.past_bytes += past.bytes();
        self.past.push_back(past);
        while self.past.len() > OUTLINES_KNOWN_MAX || self.past_bytes > OUTLINES_KNOWN_BYTES_MAX {
            let Some(oldest) = self.past.pop_front() else { break };
            self.past_bytes -= oldest.bytes();
        }
    }

    /// Takes in what the last rows say.
    fn load(&mut self, conn: &Connection, hashes: &impl BuildHasher) -> rusqlite::Result<()> {
        self.is_loaded = true;
        let mut statement = conn.prepare_cached(
            "SELECT requests.id, model, start_time, conversation, request_id, client, key, outcome, cached_tokens,
                prompt_tokens_per_second, outline, endpoint, iif(prompt_cut = 0, prompt_bytes, NULL), input_tokens
             FROM requests LEFT JOIN content ON content.id = requests.id
             WHERE requests.id > (SELECT max(id) FROM requests) - ?1 AND conversation IS NOT NULL ORDER BY requests.id",
        )?;
        let mut rows = statement.query([LOADED_ROWS_MAX])?;
        while let Some(row) = rows.next()? {
            let told = |column| Some(text(row, column)).filter(|text| !text.is_empty());
            let conversation: Arc<str> = Arc::from(text(row, 3));
            let outline = row.get_ref(10)?.as_blob_or_null().ok().flatten().and_then(Outline::decode);
            let outline = outline.filter(|outline| !outline.elements().is_empty());
            let seed = chain_seed(told(5), told(6), hashes);
            let messages = outline.as_ref().map_or(&[][..], |outline| outline.part(ElementPart::Message));
            self.names.note(conversation.clone(), &conversation);
            let reply = told(4).filter(|_| is_gone_on_from(dialect_of(text(row, 11))));
            self.note_end(&conversation, chain(messages, seed).last(), reply);
            let (model, habits) = self.habits(text(row, 1));
            habits.tells_cached_tokens |= integer(row, 8).is_some();
            if let Some((bytes, tokens)) = integer(row, 12).zip(integer(row, 13)) {
                habits.density.learn(bytes as f64 / tokens.max(1) as f64);
            }
            habits.reading_speed = row.get::<_, Option<f64>>(9).ok().flatten().or(habits.reading_speed);
            let outcome = Outcome::named(text(row, 7));
            if let Some(outline) = outline.filter(|_| outcome.is_some_and(was_read)) {
                let start_ms = ms_of_text(text(row, 2)).unwrap_or(0);
                let (id, text) = (row.get(0)?, PastText::Stored);
                self.push(PastPrompt { id, model, conversation, start_ms, outline, text });
            }
        }
        Ok(())
    }
}

impl PastPrompt {
    fn bytes(&self) -> usize {
        let text = if let PastText::Short(text) = &self.text { text.len() } else { 0 };
        size_of::<PastPrompt>() + size_of_val(self.outline.elements()) + text
    }
}

/// What a request's prompt consists of, if it is part of a conversation.
fn outline_of(row: &Row, dialect: Dialect) -> Option<&Outline> {
    let outline = &row.content.shape.as_ref()?.outline;
    let converses = generates(&row.endpoint) && dialect != Dialect::Embeddings;
    Some(outline).filter(|outline| converses && !outline.elements().is_empty())
}

/// Its prompt, kept or not.
fn prompt_of(row: &Row) -> Option<&Prompt> {
    let content = &row.content;
    content.prompt.as_ref().or_else(|| content.shape.as_ref()?.unkept.as_ref())
}

/// How many bytes the prompt of a row has in common with an earlier one of the element of this number, where they part.
fn shared_within_parted(conn: &Connection, past: &PastPrompt, row: &Row, number: usize) -> rusqlite::Result<u64> {
    let Some(now) = prompt_of(row) else { return Ok(0) };
    let shared = |before: &str| shared_within(before.as_bytes(), now.text().as_bytes(), number);
    let pieced = if let PastText::Pieced(prompt) = &past.text { prompt.upgrade() } else { None };
    match (&past.text, pieced) {
        (PastText::Short(before), _) => Ok(shared(before)),
        (_, Some(before)) => Ok(shared(&Prompt::Pieced(before).text())),
        (PastText::Pieced(_) | PastText::Stored, None) => {
            let mut stored = conn.prepare_cached("SELECT prompt, pieces FROM content WHERE id = ?1")?;
            let stored = stored.query_row([past.id], |row| StoredPrompt::read(row, 0)).optional()?;
            let before = stored.map_or(Ok(None), |stored| PieceReader::new(conn).join(stored))?;
            Ok(before.map_or(0, |before| shared(&before)))
        }
    }
}

/// Whether replies of this dialect are those that a request can say it goes on from.
fn is_gone_on_from(dialect: Dialect) -> bool {
    !matches!(dialect, Dialect::Chat | Dialect::Completions | Dialect::Embeddings | Dialect::Messages)
}

/// Whether upstream has read the prompt of a request that ended so.
fn was_read(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::UpstreamError | Outcome::UpstreamUnreachable)
}
