//! `GET /stats/requests/{id}/prefix`: what one prompt shares with an earlier one, where they part, and what that took.
//!
//! ```text
//! 412  claude-code  qwen3-coder-30b   prompt 214,806 bytes, 51,330 tokens   first token after 61.4 s
//!      shares 1,234 bytes (0.6 %) with 411, 18.0 s earlier; breaks in the system text at byte 1,234
//!        411  …Current time: 2026-11-28T10:3|1:07Z. You are…
//!        412  …Current time: 2026-11-28T10:3|2:25Z. You are…
//!      system_changed: without it 99.1 % would have been shared; some 60 s of prompt processing (this model: 836 tokens/s)
//! ```
//!
//! Where they part is told by their elements, which are kept with `LOG_CONTENT=none`, too; the words around that place
//! by their texts, where both are stored.

use std::fmt::Write;

use rusqlite::OptionalExtension;
use serde::Serialize;

use super::answers::one_decimal;
use super::columns::{plain, with_commas};
use super::reader::Reader;
use super::rows::REQUEST_COLUMNS;
use crate::calendar::ms_of_text;
use crate::prompts::break_excerpts::break_excerpts;
use crate::prompts::comparison::compare;
use crate::prompts::diff::{NamedPrompt, prompt_diff};
use crate::prompts::form::{form, shared_bytes};
use crate::prompts::outline::value_of;
use crate::prompts::{Element, ElementPart, ElementRole, Outline, PrefixBreak};
use crate::record::prompts::{PieceReader, StoredPrompt};

/// What one prompt shares with an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RequestPrefix {
    /// The request.
    pub id: i64,
    /// Who asked.
    pub client: Option<String>,
    /// The model that answered.
    pub model: String,
    /// Bytes of the prompt, as templates render it. `None`: it was not looked at.
    pub prompt_bytes: Option<i64>,
    /// Tokens of the prompt.
    pub input_tokens: Option<i64>,
    /// From request to first content.
    pub time_to_first_token_ms: Option<i64>,
    /// The request whose prompt it was compared with,
    pub prefix_of: Option<i64>,
    /// which began so much earlier; `None`: its row was removed.
    pub earlier_ms: Option<i64>,
    /// What both begin with, in bytes,
    pub prefix_bytes: Option<i64>,
    /// of a hundred bytes of the prompt,
    pub shared_percent: Option<f64>,
    /// and in whole messages.
    pub prefix_messages: Option<i64>,
    /// Where they part, if they do and that is known.
    pub parted: Option<Parted>,
    /// Why: see [`PrefixBreak`].
    pub prefix_break: Option<String>,
    /// Of a hundred bytes of the prompt, those that would have been shared otherwise.
    pub shared_otherwise_percent: Option<f64>,
    /// How long reading again took what could have been shared: an estimate.
    pub estimated_lost_ms: Option<i64>,
    /// How fast this model was seen to read prompts, as far as the estimate tells it.
    pub reading_tokens_per_second: Option<f64>,
}

/// Where two prompts part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parted {
    /// The first element that is not the same: `message 7 (user)`, `tool 3`, `system`.
    pub element: String,
    /// Bytes of it that are the same; `None`: it is not known, or one of them has no such element.
    pub element_bytes: Option<i64>,
    /// What stands around that place in the earlier prompt, with `|` at the place. What looks like a key is hidden.
    pub before: Option<String>,
    /// The same of the later one.
    pub now: Option<String>,
}

/// What is stored of a prompt.
struct StoredWords {
    outline: Option<Outline>,
    text: Option<String>,
}

impl Reader {
    /// What a prompt shares with the one that it was compared with; `None`: there is no such request.
    pub fn request_prefix(&self, id: i64) -> rusqlite::Result<Option<RequestPrefix>> {
        self.at_once(|| {
            let query = format!("SELECT {REQUEST_COLUMNS} FROM requests WHERE id = ?1");
            let row = self.conn.prepare_cached(&query)?.query_row([id], |row| self.request_of(row)).optional()?;
            let Some(row) = row else { return Ok(None) };
            let (bytes, shared) = (row.prompt_bytes, row.prefix_bytes);
            let percent = |part: i64| {
                let whole = bytes.filter(|whole| *whole > 0)?;
                Some(one_decimal(part as f64 * 100.0 / whole as f64))
            };
            let mut prefix = RequestPrefix {
                id,
                client: row.client,
                model: row.model,
                prompt_bytes: bytes,
                input_tokens: row.input_tokens,
                time_to_first_token_ms: row.time_to_first_token_ms,
                prefix_of: row.prefix_of,
                earlier_ms: None,
                prefix_bytes: shared,
                shared_percent: shared.and_then(percent),
                prefix_messages: row.prefix_messages,
                parted: None,
                prefix_break: row.prefix_break,
                shared_otherwise_percent: None,
                estimated_lost_ms: row.prefix_lost_ms,
                reading_tokens_per_second: row.prompt_tokens_per_second,
            };
            let Some(before) = row.prefix_of else { return Ok(Some(prefix)) };
            prefix.earlier_ms = self.began(id)?.zip(self.began(before)?).map(|(now, before)| now - before);
            if let (Some(old), Some(new)) = (self.stored_words(before)?, self.stored_words(id)?)
                && let (Some(old_outline), Some(new_outline)) = (&old.outline, &new.outline)
            {
                let comparison = compare(old_outline, new_outline);
                prefix.parted = parted(&old, &new, comparison.elements);
                // Without an end of the earlier prompt nothing would have been otherwise.
                if prefix.parted.is_some() {
                    let otherwise = (comparison.bytes_otherwise as i64).max(shared.unwrap_or(0));
                    prefix.shared_otherwise_percent = percent(otherwise);
                    let avoidable = otherwise - shared.unwrap_or(0);
                    prefix.learn_speed(avoidable);
                }
            }
            Ok(Some(prefix))
        })
    }

    /// What changed from one prompt to another, as `diff -u` shows it; an error names the one whose words are not there.
    pub fn prompt_diff(&self, before: i64, now: i64) -> rusqlite::Result<Result<String, i64>> {
        self.at_once(|| {
            let mut texts = Vec::new();
            for id in [before, now] {
                match self.stored_words(id)?.and_then(|words| words.text) {
                    Some(text) => texts.push((id.to_string(), text)),
                    None => return Ok(Err(id)),
                }
            }
            let [before, now] = [0, 1].map(|at: usize| NamedPrompt { name: &texts[at].0, body: &texts[at].1 });
            Ok(Ok(prompt_diff(before, now)))
        })
    }

    fn began(&self, id: i64) -> rusqlite::Result<Option<i64>> {
        let mut query = self.conn.prepare_cached("SELECT start_time FROM requests WHERE id = ?1")?;
        let time: Option<String> = query.query_row([id], |row| row.get(0)).optional()?;
        Ok(time.and_then(|time| ms_of_text(&time)))
    }

    fn stored_words(&self, id: i64) -> rusqlite::Result<Option<StoredWords>> {
        let mut query = self.conn.prepare_cached("SELECT outline, prompt, pieces FROM content WHERE id = ?1")?;
        let found = query.query_row([id], |row| {
            let outline = row.get_ref(0)?.as_blob_or_null().ok().flatten().and_then(Outline::decode);
            Ok((outline, StoredPrompt::read(row, 1)?))
        });
        let Some((outline, stored)) = found.optional()? else { return Ok(None) };
        Ok(Some(StoredWords { outline, text: PieceReader::new(&self.conn).join(stored)? }))
    }
}

impl RequestPrefix {
    /// What the estimate was made with, if that shows: it is never longer than the time to the first token.
    fn learn_speed(&mut self, avoidable: i64) {
        let (Some(bytes), Some(tokens), Some(lost_ms)) =
            (self.prompt_bytes, self.input_tokens, self.estimated_lost_ms.filter(|ms| *ms > 0))
        else {
            return;
        };
        if self.reading_tokens_per_second.is_none() && self.time_to_first_token_ms.is_none_or(|first| lost_ms < first) {
            let tokens = avoidable as f64 / bytes.max(1) as f64 * tokens as f64;
            let speed = tokens * 1000.0 / lost_ms as f64;
            self.reading_tokens_per_second = (speed > 0.0).then(|| one_decimal(speed));
        }
    }

    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = write!(out, "{}", self.id);
        for name in self.client.iter().chain([&self.model]) {
            let _ = write!(out, "  {}", plain(name, 40));
        }
        if let Some(bytes) = self.prompt_bytes {
            let _ = write!(out, "   prompt {} bytes", with_commas(bytes));
        }
        if let Some(tokens) = self.input_tokens {
            let _ = write!(out, ", {} tokens", with_commas(tokens));
        }
        if let Some(ms) = self.time_to_first_token_ms {
            let _ = write!(out, "   first token after {}", span(ms));
        }
        out.push('\n');
        let reason = self.prefix_break.as_deref().and_then(PrefixBreak::named);
        let Some(reason) = reason else {
            out.push_str(
                "     it was not compared: it is no part of a conversation, or an earlier version recorded it\n",
            );
            return out;
        };
        if let Some(of) = self.prefix_of {
            self.write_shared(&mut out, of);
        }
        self.write_reason(&mut out, reason);
        out
    }

    fn write_shared(&self, out: &mut String, of: i64) {
        let percent = self.shared_percent.map_or(String::new(), |percent| format!(" ({percent:.1} %)"));
        let _ = write!(out, "     shares {} bytes{percent} with {of}", with_commas(self.prefix_bytes.unwrap_or(0)));
        if let Some(ms) = self.earlier_ms {
            let _ = write!(out, ", {} earlier", span(ms));
        }
        if let Some(Parted { element, element_bytes, .. }) = &self.parted {
            let _ = write!(out, "; breaks in {element}");
            if let Some(bytes) = element_bytes {
                let _ = write!(out, " at byte {}", with_commas(*bytes));
            }
        }
        out.push('\n');
        if let Some(Parted { before: Some(before), now: Some(now), .. }) = &self.parted {
            let width = of.to_string().len().max(self.id.to_string().len());
            let _ = writeln!(out, "       {of:>width$}  {before}\n       {:>width$}  {now}", self.id);
        }
    }

    fn write_reason(&self, out: &mut String, reason: PrefixBreak) {
        let told = match reason {
            PrefixBreak::First => "no earlier prompt of this model begins alike",
            PrefixBreak::Continued => "it goes on where the earlier one ended, and only the rest is new",
            PrefixBreak::OtherConversation => "all was shared, but another conversation was between on this model",
            PrefixBreak::ModelLoaded => "all was shared, but the model was loaded for this request",
            PrefixBreak::Unexpected => "all was shared, and was processed again all the same: the server's side",
            PrefixBreak::SystemChanged
            | PrefixBreak::ToolsChanged
            | PrefixBreak::ToolsReordered
            | PrefixBreak::MessageEdited
            | PrefixBreak::HistoryShortened => "",
        };
        let _ = write!(out, "     {}: {told}", reason.as_str());
        if told.is_empty() {
            match self.shared_otherwise_percent {
                Some(percent) => drop(write!(out, "without it {percent:.1} % would have been shared")),
                None => out.push_str("what would have been shared without it is not known any more"),
            }
        }
        if let Some(ms) = self.estimated_lost_ms.filter(|ms| *ms > 0) {
            let _ = write!(out, "; some {} of prompt processing", span(ms));
            if let Some(speed) = self.reading_tokens_per_second {
                let _ = write!(out, " (this model: {} tokens/s)", with_commas(speed.round() as i64));
            }
        }
        out.push('\n');
    }
}

/// Seconds, with a decimal as long as that is of interest.
fn span(ms: i64) -> String {
    if ms.abs() < 100_000 { format!("{:.1} s", ms as f64 / 1000.0) } else { format!("{} s", with_commas(ms / 1000)) }
}

/// Where two prompts part that begin with so many elements; `None`: the later one goes on where the earlier one ended.
fn parted(old: &StoredWords, new: &StoredWords, number: usize) -> Option<Parted> {
    let (old_outline, new_outline) = (old.outline.as_ref()?, new.outline.as_ref()?);
    let (before, now) = (old_outline.elements().get(number), new_outline.elements().get(number));
    let outline = if now.is_some() { new_outline } else { old_outline };
    let element = called(outline, number, before?, now);
    let (old_form, new_form) = (form_of(old, before, number), form_of(new, now, number));
    let (mut element_bytes, mut excerpts) = (None, None);
    if let (Some(old), Some(new)) = (old_form, new_form) {
        let same = shared_bytes(&old, &new);
        element_bytes = Some(same as i64);
        excerpts = Some(break_excerpts(&old, &new, same));
    }
    let [before, now] = excerpts.map_or([None, None], |texts| texts.map(Some));
    Some(Parted { element, element_bytes, before, now })
}

/// The form of an element, where the text still has it.
fn form_of(words: &StoredWords, element: Option<&Element>, number: usize) -> Option<Vec<u8>> {
    let text = words.text.as_deref()?.as_bytes();
    let form = form(&text[value_of(text, number)?]);
    // What was replaced or cut in the stored text is another element there.
    (form.len() == element?.bytes as usize).then_some(form)
}

/// The element of this number, as its part of the prompt counts it.
fn called(outline: &Outline, number: usize, before: &Element, now: Option<&Element>) -> String {
    let element = now.unwrap_or(before);
    let of_part = outline.part(element.part);
    let place = number - outline.elements().partition_point(|other| other.part < element.part);
    match element.part {
        ElementPart::Tool => format!("tool {place}"),
        ElementPart::System if of_part.len() == 1 => "the system text".to_owned(),
        ElementPart::System => format!("system text {place}"),
        ElementPart::Message => match element.role {
            ElementRole::System => format!("message {place} (system)"),
            ElementRole::Developer => format!("message {place} (developer)"),
            ElementRole::User => format!("message {place} (user)"),
            ElementRole::Assistant => format!("message {place} (assistant)"),
            ElementRole::Tool => format!("message {place} (tool)"),
            ElementRole::Other => format!("message {place}"),
        },
    }
}
