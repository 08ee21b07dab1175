//! Rows themselves: the newest, pages of them, and one whole.
//!
//! There is no index on anything but ids. Where a filter asks for names or times, packs tell which ids can
//! match, the newest first: a name that was last used in spring costs no walk through the summer.

use std::collections::BinaryHeap;

use rusqlite::types::{FromSql, Value};
use rusqlite::{OptionalExtension, Row, params_from_iter};

use super::answers::{RequestInFull, RequestRow, Requests, one_decimal};
use super::condition::Condition;
use super::filter::Filter;
use super::range::{Cut, cut};
use super::reader::Reader;
use super::turns::{FirstRead, TURNS_AT_ONCE};
use crate::calendar::{HOUR_MS, month_after, whole_seconds};
use crate::limits::TURNS_LOOKED_AT_MAX;
use crate::packs::{SPAN_DAY, SPAN_HOUR, SPAN_MONTH, pack_id};
use crate::record::prompts::{PieceReader, StoredPrompt};
use crate::record::row::Content;

/// What [`Reader::request_of`] reads, in this order; `end_time` follows where one is shown whole.
pub(super) const REQUEST_COLUMNS: &str = "id, endpoint, model, input_tokens, output_tokens, total_tokens, duration_ms,
    start_time, is_error, was_streamed, outcome, http_status, requested_model, cached_tokens, reasoning_tokens,
    time_to_first_token_ms, tokens_per_second, finish_reason, usage_source, model_load_ms, client, key, attempt,
    error_message, request_id, cache_write_tokens, draft_tokens, accepted_draft_tokens, prompt_tokens_per_second,
    conversation, conversation_source, replay_of, prompt_bytes, prefix_of, prefix_bytes, prefix_messages, prefix_break,
    prefix_lost_ms, queue_ms, context_tokens, prompt_cut, prompt_expected_tokens";

/// Fewer ids than this are looked at sooner than the packs that would tell which of them can match.
const NARROWED_IDS_MIN: i64 = if cfg!(test) { 10 } else { 1000 };

/// Turns of conversations looked at for one page.
const LOOKED_AT_MAX: usize = if cfg!(test) { 20 } else { TURNS_LOOKED_AT_MAX };

/// Ids that can match, and the pack that knows them better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ids {
    last: i64,
    first: i64,
    /// Span and start of the pack.
    of: (i64, i64),
}

impl Reader {
    /// The newest rows that the filter lets pass, newest first.
    pub fn recent(&self, filter: &Filter, limit: u32) -> rusqlite::Result<Requests> {
        self.requests(filter, None, limit).map(|found| Requests { next_after: None, ..found })
    }

    /// The same, only those with a lower id than `after`.
    pub fn requests(&self, filter: &Filter, after: Option<i64>, limit: u32) -> rusqlite::Result<Requests> {
        self.at_once(|| {
            if !filter.conversations.is_empty() {
                let within = FirstRead::Newest.behind(after.unwrap_or(i64::MAX), (i64::MIN, i64::MAX));
                return self.page_of_turns(filter, within, FirstRead::Newest, limit);
            }
            let mut requests = Vec::with_capacity(limit as usize);
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

    /// Rows of the filter's conversations that it lets pass, in a range of ids.
    pub(super) fn page_of_turns(
        &self,
        filter: &Filter,
        (from, to): (i64, i64),
        end: FirstRead,
        limit: u32,
    ) -> rusqlite::Result<Requests> {
        match self.id_range(filter)? {
            Some((first, last)) => {
                self.read_turns(filter, (first.max(from), last.min(to)), end, (limit, LOOKED_AT_MAX))
            }
            None => Ok(Requests { requests: Vec::new(), next_after: None }),
        }
    }

    /// The same, where the range is known to be the one to look at. So many rows at most, of so many turns that are
    /// looked at; `next_after` continues.
    pub(super) fn read_turns(
        &self,
        filter: &Filter,
        mut left: (i64, i64),
        end: FirstRead,
        (limit, looked_at_max): (u32, usize),
    ) -> rusqlite::Result<Requests> {
        let condition = Condition::of(filter);
        let mut one = self
            .conn
            .prepare_cached(&format!("SELECT {REQUEST_COLUMNS} FROM requests WHERE id = ?{}", condition.sql))?;
        let (mut requests, mut looked_at) = (Vec::new(), 0);
        // Often all pass.
        let mut most = limit as usize;
        while left.0 <= left.1 {
            let ids = self.turns(filter, left, end, most)?;
            for id in &ids {
                let found = one.query_row(params_from_iter(condition.values(&[*id])), |row| self.request_of(row));
                requests.extend(found.optional()?);
                looked_at += 1;
                if requests.len() == limit as usize || looked_at == looked_at_max {
                    return Ok(Requests { requests, next_after: Some(*id) });
                }
                left = end.behind(*id, left);
            }
            if ids.len() < most {
                break;
            }
            most = most.max(TURNS_AT_ONCE);
        }
        Ok(Requests { requests, next_after: None })
    }

    /// Everything of one request; `None`: there is none of that id.
    pub fn request(&self, id: i64) -> rusqlite::Result<Option<RequestInFull>> {
        let query = format!(
            "SELECT {REQUEST_COLUMNS}, end_time, output, reasoning, tool_calls, prompt, pieces
             FROM requests LEFT JOIN (SELECT id AS content_id, prompt, pieces, output, reasoning, tool_calls FROM content)
                ON content_id = id
             WHERE id = ?1"
        );
        self.at_once(|| {
            let mut statement = self.conn.prepare_cached(&query)?;
            let found = statement.query_row([id], |row| {
                let mut columns = Columns { row, next: 0 };
                let request = RequestInFull {
                    request: self.read_request(&mut columns)?,
                    end_time: columns.get()?,
                    content: Content {
                        prompt: None,
                        output: columns.get()?,
                        reasoning: columns.get()?,
                        tool_calls: columns.get()?,
                        shape: None,
                    },
                };
                Ok((request, StoredPrompt::read(row, columns.next)?))
            });
            let Some((mut request, prompt)) = found.optional()? else { return Ok(None) };
            request.content.prompt = PieceReader::new(&self.conn).join(prompt)?.map(Into::into);
            Ok(Some(request))
        })
    }

    /// A row of [`REQUEST_COLUMNS`].
    pub(super) fn request_of(&self, row: &Row) -> rusqlite::Result<RequestRow> {
        self.read_request(&mut Columns { row, next: 0 })
    }

    fn read_request(&self, columns: &mut Columns) -> rusqlite::Result<RequestRow> {
        let hundredths = |speed: Option<f64>| speed.map(|speed| (speed * 100.0).round() / 100.0);
        // The order of the fields is that of the columns.
        let mut request = RequestRow {
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
            conversation: columns.get()?,
            conversation_source: columns.get()?,
            replay_of: columns.get()?,
            prompt_bytes: columns.get()?,
            prefix_of: columns.get()?,
            prefix_bytes: columns.get()?,
            prefix_messages: columns.get()?,
            prefix_break: columns.get()?,
            prefix_lost_ms: columns.get()?,
            queue_ms: columns.get()?,
            context_tokens: columns.get()?,
            context_used_percent: None,
            prompt_cut: columns.get()?,
            prompt_expected_tokens: columns.get()?,
        };
        let (input, output) = (request.input_tokens, request.output_tokens);
        request.context_used_percent = context_used_percent(request.context_tokens, input, output);
        request.cost = self.prices().map(|prices| prices.of_row(&request));
        Ok(request)
    }

    /// The lowest and highest id that can match, whatever the conversation.
    pub(super) fn id_range(&self, filter: &Filter) -> rusqlite::Result<Option<(i64, i64)>> {
        let ids = self.id_ranges(&Filter { conversations: Vec::new(), ..filter.clone() })?;
        let first = ids.iter().map(|(first, _)| *first).min();
        let last = ids.iter().map(|(_, last)| *last).max();
        Ok(first.zip(last))
    }

    /// All ranges of ids that can match. The filter names no conversation.
    pub(super) fn id_ranges(&self, filter: &Filter) -> rusqlite::Result<Vec<(i64, i64)>> {
        Ok(self.ids(filter)?.into_iter().map(|ids| (ids.first, ids.last)).collect())
    }

    /// Where to look, the highest ids on top. The filter names no conversation.
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

/// How full a context is of prompt and answer.
fn context_used_percent(context: Option<i64>, input: Option<i64>, output: Option<i64>) -> Option<f64> {
    let (context, input) = context.filter(|context| *context > 0).zip(input)?;
    Some(one_decimal((input + output.unwrap_or(0)) as f64 * 100.0 / context as f64))
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
