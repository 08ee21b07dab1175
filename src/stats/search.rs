//! Requests whose stored content holds given words.

use rusqlite::{OptionalExtension, Row, Rows, params_from_iter};

use super::answers::{Hit, Search};
use super::condition::Condition;
use super::filter::Filter;
use super::reader::{AskError, Reader};
use super::rows::REQUEST_COLUMNS;
use super::turns::{FirstRead, TURNS_AT_ONCE};
use crate::limits::{SEARCH_BYTES_MAX, SEARCH_WORDS_MAX};
use crate::record::prompts::{PieceReader, StoredPrompt};
use crate::usage::text::floor_boundary;

/// Rows of `content` looked at in one search, however short they are.
const SEARCH_ROWS_MAX: usize = 20_000;
/// Bytes of an excerpt on either side of the word.
const EXCERPT_BYTES: usize = 80;

impl Reader {
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
            let (mut hits, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
            let mut pieces = PieceReader::new(&self.conn);
            // True once that is enough.
            let mut look_at = |row: &Row| {
                let id: i64 = row.get(0)?;
                let prompt = pieces.join(StoredPrompt::read(row, 4)?)?.unwrap_or_default();
                let mut texts = [prompt.as_str(), "", "", ""];
                for (column, text) in texts.iter_mut().enumerate().skip(1) {
                    *text = row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
                }
                bytes += texts.map(str::len).iter().sum::<usize>();
                looked_at += 1;
                if let Some((found_in, excerpt)) = find(&words, texts) {
                    let values = params_from_iter(condition.values(&[id]));
                    let request = one.query_row(values, |row| self.request_of(row)).optional()?;
                    hits.extend(request.map(|request| Hit { request, found_in, excerpt }));
                }
                let enough = hits.len() >= limit as usize || bytes >= SEARCH_BYTES_MAX || looked_at >= SEARCH_ROWS_MAX;
                Ok::<_, rusqlite::Error>(enough.then_some(id))
            };
            let next_after = self.look_through_content(filter, after, &mut look_at)?;
            Ok(Search { requests: hits, next_after })
        })
    }

    /// Has stored content looked at, the newest first: that of the filter's conversations, else all. Ends with what
    /// `look_at` says, or at the end.
    fn look_through_content(
        &self,
        filter: &Filter,
        after: Option<i64>,
        look_at: &mut impl FnMut(&Row) -> rusqlite::Result<Option<i64>>,
    ) -> rusqlite::Result<Option<i64>> {
        let columns = "id, output, reasoning, tool_calls, prompt, pieces";
        if filter.conversations.is_empty() {
            let query = format!("SELECT {columns} FROM content WHERE id < ?1 ORDER BY id DESC");
            let mut statement = self.conn.prepare_cached(&query)?;
            return look_through(statement.query([after.unwrap_or(i64::MAX)])?, look_at);
        }
        let mut statement = self.conn.prepare_cached(&format!("SELECT {columns} FROM content WHERE id = ?1"))?;
        let mut left = FirstRead::Newest.behind(after.unwrap_or(i64::MAX), (i64::MIN, i64::MAX));
        loop {
            let ids = self.turns(filter, left, FirstRead::Newest, TURNS_AT_ONCE)?;
            for id in &ids {
                let enough = look_through(statement.query([*id])?, look_at)?;
                if enough.is_some() {
                    return Ok(enough);
                }
                left = FirstRead::Newest.behind(*id, left);
            }
            if ids.len() < TURNS_AT_ONCE {
                return Ok(None);
            }
        }
    }
}

fn look_through(
    mut rows: Rows,
    look_at: &mut impl FnMut(&Row) -> rusqlite::Result<Option<i64>>,
) -> rusqlite::Result<Option<i64>> {
    while let Some(row) = rows.next()? {
        let enough = look_at(row)?;
        if enough.is_some() {
            return Ok(enough);
        }
    }
    Ok(None)
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
