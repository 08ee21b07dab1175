//! The table of requests: what a row is there, column by column.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, params};

use super::prompts::{Prompt, StoredPieces};
use super::row::{Content, Lineage, Replaced, Row};
use super::schema::UNKNOWN_MODEL;
use crate::calendar::text_of_ms;
use crate::limits::FIGURE_MAX;
use crate::packs::sums::Figure::{self, CacheWrite, Cached, FirstTokenMs, Input, Output, Reasoning, Total};
use crate::packs::sums::{KnownSum, Sums};
use crate::prompts::title::title;
use crate::prompts::{ConversationSource, PrefixBreak};

/// A figure of one row as it is stored: one that no exchange can have is unknown, so that no sum can overflow.
fn figure(value: Option<u64>) -> Option<i64> {
    value.filter(|value| *value <= FIGURE_MAX).map(|value| value as i64)
}

/// A duration as it is stored; an impossible one is cut.
pub(super) fn duration(ms: u64) -> i64 {
    ms.min(FIGURE_MAX) as i64
}

/// A rate as it is stored: infinite or negative is unknown.
fn rate(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite() && *value >= 0.0 && *value <= FIGURE_MAX as f64)
}

/// A whole number in a column of a row of the table. `None`: it is unknown, or somebody else has written what it cannot be.
pub(crate) fn integer(row: &rusqlite::Row, column: usize) -> Option<i64> {
    match row.get_ref(column) {
        Ok(ValueRef::Integer(number)) => Some(number),
        Ok(_) | Err(_) => None,
    }
}

/// The same of any number.
pub(super) fn real(row: &rusqlite::Row, column: usize) -> Option<f64> {
    match row.get_ref(column) {
        Ok(ValueRef::Real(number)) => Some(number),
        Ok(ValueRef::Integer(number)) => Some(number as f64),
        Ok(_) | Err(_) => None,
    }
}

/// The same of a text, where unknown is empty.
pub(crate) fn text<'a>(row: &'a rusqlite::Row, column: usize) -> &'a str {
    row.get_ref(column).ok().and_then(|value| value.as_str().ok()).unwrap_or_default()
}

/// Columns that sums are made of, and the figures that those between the duration and the speed hold.
pub(crate) type FigureColumns = (&'static str, &'static [Figure]);

/// All of them.
pub(crate) const ALL_FIGURES: FigureColumns = (
    "duration_ms, input_tokens, output_tokens, total_tokens, cached_tokens, reasoning_tokens, time_to_first_token_ms,
        cache_write_tokens, tokens_per_second",
    &[Input, Output, Total, Cached, Reasoning, FirstTokenMs, CacheWrite],
);
/// What distributions are made of.
pub(crate) const TIMINGS: FigureColumns = ("duration_ms, time_to_first_token_ms, tokens_per_second", &[FirstTokenMs]);

/// Sums of one: the row whose columns of figures begin with this one.
pub(crate) fn sums_of(row: &rusqlite::Row, first: usize, (_, figures): FigureColumns) -> Sums {
    let duration_ms = integer(row, first).unwrap_or(0);
    let speed = real(row, first + 1 + figures.len());
    let mut sums = Sums {
        requests: 1,
        duration_ms,
        tokens_per_second: speed.unwrap_or(0.0),
        tokens_per_second_known: i64::from(speed.is_some()),
        ..Sums::default()
    };
    for (column, figure) in (first + 1..).zip(figures) {
        sums.known[*figure as usize] =
            integer(row, column).map_or_else(KnownSum::default, |sum| KnownSum { sum, rows: 1 });
    }
    sums
}

/// A row on its way into the table, with what only an upgrade knows better than the row.
pub(super) struct Entry<'a> {
    /// `None`: the next one.
    pub(super) id: Option<i64>,
    pub(super) row: &'a Row,
    pub(super) lineage: Lineage,
    /// It begins a conversation.
    pub(super) begins: bool,
    pub(super) end_time: String,
    pub(super) created_at: &'a str,
}

impl<'a> Entry<'a> {
    pub(super) fn new(row: &'a Row, created_at: &'a str) -> Entry<'a> {
        let end_time = text_of_ms(row.start_ms.saturating_add(duration(row.duration_ms)));
        Entry { id: None, row, lineage: Lineage::default(), begins: false, end_time, created_at }
    }
}

/// Inserts rows and their content, inside the caller's transaction. Statements are looked up once for all of them.
pub(super) struct Inserts<'a> {
    conn: &'a Connection,
    requests: CachedStatement<'a>,
    content: CachedStatement<'a>,
}

impl Inserts<'_> {
    pub(super) fn prepare(conn: &Connection) -> rusqlite::Result<Inserts<'_>> {
        let requests = conn.prepare_cached(
            "INSERT INTO requests (id, endpoint, model, start_time, end_time, duration_ms, input_tokens, output_tokens,
                total_tokens, request_id, is_error, error_message, http_status, was_streamed, created_at, outcome,
                requested_model, cached_tokens, reasoning_tokens, time_to_first_token_ms, tokens_per_second,
                finish_reason, usage_source, model_load_ms, client, key, attempt, cache_write_tokens, draft_tokens,
                accepted_draft_tokens, prompt_tokens_per_second, replay_of, conversation, conversation_source,
                prompt_bytes, prefix_of, prefix_bytes, prefix_messages, prefix_break, prefix_lost_ms,
                queue_ms, context_tokens, prompt_cut, prompt_expected_tokens)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21,
                ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42, ?43,
                ?44)",
        )?;
        let content = conn.prepare_cached(
            "INSERT INTO content (id, prompt, output, reasoning, tool_calls, pieces, outline, replaced, title)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        Ok(Inserts { conn, requests, content })
    }

    /// Returns the row's id. With `pieces` a long prompt is stored in such.
    pub(super) fn insert(&mut self, entry: &Entry, pieces: Option<&mut StoredPieces>) -> rusqlite::Result<i64> {
        let id = self.insert_request(entry)?;
        let content = &entry.row.content;
        if content.is_empty() {
            return Ok(id);
        }
        let Content { prompt, output, reasoning, tool_calls, shape } = content;
        let pieces = match pieces.zip(prompt.as_ref()) {
            Some((pieces, prompt)) => pieces.store(self.conn, id, prompt)?,
            None => None,
        };
        let outline = shape.as_ref().map(|shape| shape.outline.encode());
        let replaced = shape.as_ref().and_then(|shape| shape.replaced).map(Replaced::as_str);
        let title = prompt.as_ref().filter(|_| entry.begins).and_then(|prompt| title(&prompt.text()));
        let prompt = prompt.as_ref().filter(|_| pieces.is_none()).map(Prompt::text);
        self.content.execute(params![id, prompt, output, reasoning, tool_calls, pieces, outline, replaced, title])?;
        Ok(id)
    }

    fn insert_request(&mut self, entry: &Entry) -> rusqlite::Result<i64> {
        let Entry { row, lineage, .. } = entry;
        self.requests.insert(params![
            entry.id,
            row.endpoint,
            row.model.as_deref().unwrap_or(UNKNOWN_MODEL),
            text_of_ms(row.start_ms),
            entry.end_time,
            duration(row.duration_ms),
            figure(row.input_tokens),
            figure(row.output_tokens),
            figure(row.total_tokens),
            row.request_id,
            row.outcome.is_failure(),
            row.error_message,
            row.http_status,
            row.was_streamed,
            entry.created_at,
            row.outcome.as_str(),
            row.requested_model,
            figure(row.cached_tokens),
            figure(row.reasoning_tokens),
            figure(row.time_to_first_token_ms),
            rate(row.tokens_per_second),
            row.finish_reason,
            row.usage_source,
            figure(row.model_load_ms),
            row.client,
            row.key,
            row.attempt,
            figure(row.cache_write_tokens),
            figure(row.draft_tokens),
            figure(row.accepted_draft_tokens),
            rate(row.prompt_tokens_per_second),
            row.replay_of,
            lineage.conversation,
            lineage.source.map(ConversationSource::as_str),
            figure(lineage.prompt_bytes),
            lineage.prefix_of,
            figure(lineage.prefix_bytes),
            figure(lineage.prefix_messages),
            lineage.prefix_break.map(PrefixBreak::as_str),
            figure(lineage.prefix_lost_ms),
            figure(row.queue_ms),
            figure(row.context_tokens),
            lineage.prompt_cut,
            figure(lineage.prompt_expected_tokens),
        ])
    }
}

/// Overwrites a row, inside the caller's transaction: the one of this id that began when `before` did. If there is
/// none, it is [`rusqlite::Error::QueryReturnedNoRows`]. Its content stays.
pub(super) fn overwrite(conn: &Connection, id: i64, before: &Row, after: &Row) -> rusqlite::Result<()> {
    // The same id in another file is another row.
    let (created_at, lineage) = conn
        .prepare_cached(
            "DELETE FROM requests WHERE id = ?1 AND start_time = ?2 RETURNING created_at, conversation,
                conversation_source, prompt_bytes, prefix_of, prefix_bytes, prefix_messages, prefix_break,
                prefix_lost_ms, prompt_cut, prompt_expected_tokens",
        )?
        .query_row(params![id, text_of_ms(before.start_ms)], |row| Ok((row.get::<_, String>(0)?, lineage(row, 1))))?;
    let entry = Entry { id: Some(id), lineage, ..Entry::new(after, &created_at) };
    Inserts::prepare(conn)?.insert_request(&entry)?;
    Ok(())
}

/// That of a row whose columns of it begin with this one.
fn lineage(row: &rusqlite::Row, first: usize) -> Lineage {
    let figure = |column| integer(row, first + column).and_then(|number| u64::try_from(number).ok());
    Lineage {
        conversation: Some(text(row, first)).filter(|name| !name.is_empty()).map(Arc::from),
        source: ConversationSource::named(text(row, first + 1)),
        prompt_bytes: figure(2),
        prefix_of: integer(row, first + 3),
        prefix_bytes: figure(4),
        prefix_messages: figure(5),
        prefix_break: PrefixBreak::named(text(row, first + 6)),
        prefix_lost_ms: figure(7),
        prompt_cut: integer(row, first + 8).map(|cut| cut != 0),
        prompt_expected_tokens: figure(9),
    }
}
