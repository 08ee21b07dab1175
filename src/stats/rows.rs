//! Rows themselves: the newest, pages of them, one whole, and those that hold given words.
//!
//! There is no index on anything but ids. Where a filter asks for names or times, packs tell which ids can
//! match, the newest first: a name that was last used in spring costs no walk through the summer.

use std::collections::BinaryHeap;

use rusqlite::types::{FromSql, Value};
use rusqlite::{OptionalExtension, Row, params_from_iter};

use super::answers::{By, Hit, RequestInFull, RequestRow, Requests, Search};
use super::filter::Filter;
use super::range::{Cut, cut};
use super::reader::{AskError, Reader, bounds};
use crate::calendar::{HOUR_MS, month_after, whole_seconds};
use crate::limits::{SEARCH_BYTES_MAX, SEARCH_WORDS_MAX};
use crate::packs::{SPAN_DAY, SPAN_HOUR, SPAN_MONTH, pack_id};
use crate::record::row::Content;
use crate::record::schema::PROMPT;
use crate::usage::text::floor_boundary;

/// What [`Reader::request_of`] reads, in this order; `end_time` follows where one is shown whole.
pub(super) const REQUEST_COLUMNS: &str = "id, endpoint, model, input_tokens, output_tokens, total_tokens, duration_ms,
    start_time, is_error, was_streamed, outcome, http_status, requested_model, cached_tokens, reasoning_tokens,
    time_to_first_token_ms, tokens_per_second, finish_reason, usage_source, model_load_ms, client, key, attempt,
    error_message, request_id, cache_write_tokens, draft_tokens, accepted_draft_tokens, prompt_tokens_per_second";

/// Fewer ids than this are looked at sooner than the packs that would tell which of them can match.
const NARROWED_IDS_MIN: i64 = if cfg!(test) { 10 } else { 1000 };
/// Rows of `content` looked at in one search, however short they are.
const SEARCH_ROWS_MAX: usize = 20_000;
/// Bytes of an excerpt on either side of the word.
const EXCERPT_BYTES: usize = 80;

/// Ids that can match, and the pack that knows them better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ids {
    last: i64,
    first: i64,
    /// Span and start of the pack.
    of: (i64, i64),
}

/// The condition of a filter on rows.
#[derive(Debug)]
pub(super) struct Condition {
    /// Follows `WHERE` conditions on ids.
    pub sql: String,
    /// The values for its question marks.
    values: Vec<Value>,
}

impl Condition {
    pub(super) fn of(filter: &Filter) -> Condition {
        let mut condition = Condition { sql: String::new(), values: Vec::new() };
        if filter.from_ms.is_some() || filter.to_ms.is_some() {
            let (from, to) = bounds(filter.from_ms, filter.to_ms);
            condition.sql.push_str(" AND start_time >= ? AND start_time < ?");
            condition.values.extend([Value::Text(from), Value::Text(to)]);
        }
        for (by, names) in By::ALL.iter().zip(&filter.names).filter(|(_, names)| !names.is_empty()) {
            let marks = vec!["?"; names.len()].join(", ");
            condition.sql.push_str(&format!(" AND coalesce({}, '') IN ({marks})", by.name()));
            condition.values.extend(names.iter().cloned().map(Value::Text));
        }
        condition
    }

    /// All values: these of the conditions on ids, and its own.
    pub(super) fn values(&self, ids: &[i64]) -> Vec<Value> {
        ids.iter().map(|id| Value::Integer(*id)).chain(self.values.iter().cloned()).collect()
    }
}

impl Reader {
    /// The newest rows that the filter lets pass, newest first.
    pub fn recent(&self, filter: &Filter, limit: u32) -> rusqlite::Result<Requests> {
        self.requests(filter, None, limit).map(|found| Requests { next_after: None, ..found })
    }

    /// The same, only those with a lower id than `after`.
    pub fn requests(&self, filter: &Filter, after: Option<i64>, limit: u32) -> rusqlite::Result<Requests> {
        self.at_once(|| {
            let mut requests = Vec::new();
            let mut highest = after.map_or(i64::MAX, |after| after.saturating_sub(1));
            let condition = Condition::of(filter);
            let query = format!(
                "SELECT {REQUEST_COLUMNS} FROM requests WHERE id BETWEEN ? AND ?{} ORDER BY id DESC LIMIT ?",
                condition.sql
            );
            let mut statement = self.conn.prepare_cached(&query)?;
            let mut left = self.ids(filter)?;
            while let Some(ids) = left.pop() {
                let missing = i64::from(limit) - requests.len() as i64;
                if missing <= 0 {
                    break;
                }
                if ids.first > highest {
                    continue;
                }
                if self.narrow(filter, ids, &mut left)? {
                    continue;
                }
                // All rows of these ids are looked at, so what others say of the same ids is done.
                let mut values = condition.values(&[ids.first, ids.last.min(highest)]);
                values.push(Value::Integer(missing));
                let found = statement.query_map(params_from_iter(values), |row| self.request_of(row))?;
                for request in found {
                    requests.push(request?);
                }
                highest = ids.first.saturating_sub(1);
            }
            let next_after =
                requests.last().filter(|_| requests.len() == limit as usize).map(|oldest: &RequestRow| oldest.id);
            Ok(Requests { requests, next_after })
        })
    }

    /// Everything of one request; `None`: there is none of that id.
    pub fn request(&self, id: i64) -> rusqlite::Result<Option<RequestInFull>> {
        let query = format!(
            "SELECT {REQUEST_COLUMNS}, end_time, prompt, output, reasoning, tool_calls
             FROM requests LEFT JOIN (SELECT id AS content_id, {PROMPT} AS prompt, output, reasoning, tool_calls FROM content)
                ON content_id = id
             WHERE id = ?1"
        );
        let mut statement = self.conn.prepare_cached(&query)?;
        statement
            .query_row([id], |row| {
                let mut columns = Columns { row, next: 0 };
                Ok(RequestInFull {
                    request: self.read_request(&mut columns)?,
                    end_time: columns.get()?,
                    content: Content {
                        prompt: columns.get()?,
                        output: columns.get()?,
                        reasoning: columns.get()?,
                        tool_calls: columns.get()?,
                    },
                })
            })
            .optional()
    }

    /// Requests whose stored content holds every word, without regard to case, newest first. One question reads a
    /// bounded amount of content; `next_after` continues.
    pub fn search(&self, filter: &Filter, words: &str, after: Option<i64>, limit: u32) -> Result<Search, AskError> {
        let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
        if words.is_empty() || words.len() > SEARCH_WORDS_MAX {
            return Err(AskError::Refused(format!("q takes words to look for, {SEARCH_WORDS_MAX} at most.")));
        }
        self.at_once(|| {
            let condition = Condition::of(filter);
            let mut one = self
                .conn
                .prepare_cached(&format!("SELECT {REQUEST_COLUMNS} FROM requests WHERE id = ?{}", condition.sql))?;
            let mut statement = self.conn.prepare_cached(&format!(
                "SELECT id, {PROMPT}, output, reasoning, tool_calls FROM content WHERE id < ?1 ORDER BY id DESC"
            ))?;
            let mut rows = statement.query([after.unwrap_or(i64::MAX)])?;
            let (mut hits, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
            while let Some(row) = rows.next()? {
                let id: i64 = row.get(0)?;
                let mut texts = [""; 4];
                for (column, text) in texts.iter_mut().enumerate() {
                    *text =
                        row.get_ref(column + 1)?.as_str_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
                    bytes += text.len();
                }
                looked_at += 1;
                if let Some((found_in, excerpt)) = find(&words, texts) {
                    let values = params_from_iter(condition.values(&[id]));
                    let request = one.query_row(values, |row| self.request_of(row)).optional()?;
                    hits.extend(request.map(|request| Hit { request, found_in, excerpt }));
                }
                if hits.len() >= limit as usize || bytes >= SEARCH_BYTES_MAX || looked_at >= SEARCH_ROWS_MAX {
                    return Ok(Search { requests: hits, next_after: Some(id) });
                }
            }
            Ok(Search { requests: hits, next_after: None })
        })
    }

    /// A row of [`REQUEST_COLUMNS`].
    pub(super) fn request_of(&self, row: &Row) -> rusqlite::Result<RequestRow> {
        self.read_request(&mut Columns { row, next: 0 })
    }

    fn read_request(&self, columns: &mut Columns) -> rusqlite::Result<RequestRow> {
        let hundredths = |speed: Option<f64>| speed.map(|speed| (speed * 100.0).round() / 100.0);
        // The order of the fields is that of the columns.
        let request = RequestRow {
            id: columns.get()?,
            endpoint: columns.get()?,
            model: columns.get()?,
            input_tokens: columns.get()?,
            output_tokens: columns.get()?,
            total_tokens: columns.get()?,
            duration_ms: columns.get()?,
            start_time: whole_seconds(&columns.get::<String>()?),
            is_error: columns.get()?,
            was_streamed: columns.get()?,
            outcome: columns.get()?,
            http_status: columns.get()?,
            requested_model: columns.get()?,
            cached_tokens: columns.get()?,
            reasoning_tokens: columns.get()?,
            time_to_first_token_ms: columns.get()?,
            tokens_per_second: hundredths(columns.get()?),
            finish_reason: columns.get()?,
            usage_source: columns.get()?,
            model_load_ms: columns.get()?,
            client: columns.get()?,
            key: columns.get()?,
            attempt: columns.get()?,
            error_message: columns.get()?,
            request_id: columns.get()?,
            cache_write_tokens: columns.get()?,
            draft_tokens: columns.get()?,
            accepted_draft_tokens: columns.get()?,
            prompt_tokens_per_second: hundredths(columns.get()?),
            cost: None,
        };
        let (input, output) = (request.input_tokens, request.output_tokens);
        let price = self.prices.as_ref().and_then(|prices| prices.of(&request.model));
        let price = price.filter(|_| input.is_some() || output.is_some());
        let counts = [input, request.cached_tokens, request.cache_write_tokens, output];
        let cost = price.map(|price| price.of_request(counts));
        Ok(RequestRow { cost: self.cost(cost), ..request })
    }

    /// The lowest and highest id that can match.
    pub(super) fn id_range(&self, filter: &Filter) -> rusqlite::Result<Option<(i64, i64)>> {
        self.at_once(|| {
            let ids = self.ids(filter)?;
            let first = ids.iter().map(|ids| ids.first).min();
            let last = ids.iter().map(|ids| ids.last).max();
            Ok(first.zip(last))
        })
    }

    /// Where to look, the highest ids on top.
    fn ids(&self, filter: &Filter) -> rusqlite::Result<BinaryHeap<Ids>> {
        let mut heap = BinaryHeap::new();
        const WITHIN: (i64, i64) = (SPAN_HOUR, 0);
        let newest: Option<i64> =
            self.conn.prepare_cached("SELECT max(id) FROM requests")?.query_row([], |row| row.get(0))?;
        if *filter == Filter::default() {
            heap.extend(newest.map(|last| Ids { last, first: i64::MIN, of: WITHIN }));
            return Ok(heap);
        }
        let packed = self.packed()?;
        let all = (filter.from_ms.is_none() && filter.to_ms.is_none()).then_some(packed.first * HOUR_MS);
        let pieces = cut(filter.from_ms.or(all), filter.to_ms, packed, Cut::Additive);
        for (id, _) in &pieces.packs {
            heap.extend(self.ids_within(filter, (id >> 32, id & 0xFFFF_FFFF))?);
        }
        for (from_ms, _) in &pieces.rows {
            heap.extend(self.ids_within(filter, (SPAN_HOUR, from_ms / HOUR_MS))?);
        }
        // Rows that are not packed may be of any time.
        let (first, last) = (packed.ids_behind().0, newest.unwrap_or(0));
        heap.extend((first <= last).then_some(Ids { last, first, of: WITHIN }));
        Ok(heap)
    }

    /// Puts what the packs of the next smaller span know in the place of `ids`; false where that is of no use.
    fn narrow(&self, filter: &Filter, ids: Ids, heap: &mut BinaryHeap<Ids>) -> rusqlite::Result<bool> {
        if ids.last.saturating_sub(ids.first) < NARROWED_IDS_MIN {
            return Ok(false);
        }
        let (span, start) = ids.of;
        let (smaller, step, end) = match span {
            SPAN_MONTH => (SPAN_DAY, 24, month_after(start)),
            SPAN_DAY => (SPAN_HOUR, 1, start + 24),
            _ => return Ok(false),
        };
        for start in (start..end).step_by(step) {
            heap.extend(self.ids_within(filter, (smaller, start))?);
        }
        Ok(true)
    }

    fn ids_within(&self, filter: &Filter, of: (i64, i64)) -> rusqlite::Result<Option<Ids>> {
        let ids = self.ids_of_pack(filter, pack_id(of.0, of.1))?;
        Ok(ids.map(|(first, last)| Ids { last, first, of }))
    }
}

/// The columns of a row, one after the other.
struct Columns<'a> {
    row: &'a Row<'a>,
    next: usize,
}

impl Columns<'_> {
    fn get<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        self.next += 1;
        self.row.get(self.next - 1)
    }
}

/// Where the first word stands, if every word stands somewhere.
fn find(words: &[String], texts: [&str; 4]) -> Option<(&'static str, String)> {
    const PARTS: [&str; 4] = ["prompt", "output", "reasoning", "tool_calls"];
    // Lower case changes the length of some letters; only words that need it pay for that.
    let plain = words.iter().all(|word| word.is_ascii());
    let lower = texts.map(|text| if plain { text.to_ascii_lowercase() } else { text.to_lowercase() });
    let place_of = |word: &String| {
        let finder = memchr::memmem::Finder::new(word.as_bytes());
        lower.iter().enumerate().find_map(|(part, text)| Some((part, finder.find(text.as_bytes())?)))
    };
    let (part, at) = place_of(&words[0])?;
    words[1..]
        .iter()
        .all(|word| place_of(word).is_some())
        .then(|| (PARTS[part], excerpt(texts[part], at, words[0].len())))
}

fn excerpt(text: &str, at: usize, length: usize) -> String {
    let from = floor_boundary(text, at.saturating_sub(EXCERPT_BYTES));
    let to = floor_boundary(text, at + length + EXCERPT_BYTES);
    let before = if from > 0 { "…" } else { "" };
    let behind = if to < text.len() { "…" } else { "" };
    format!("{before}{}{behind}", &text[from..to])
}
