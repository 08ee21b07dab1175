//! Requests whose stored content holds given words.

use std::collections::HashMap;

use memchr::memmem::Finder;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Rows, params_from_iter};

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
/// Reading of so many bytes takes as long as looking a piece up that was read: a tenth of a microsecond.
const KNOWN_PIECE_BYTES: usize = 128;
/// What is known of pieces takes some hundred bytes each; then it begins anew.
const KNOWN_PIECES_MAX: usize = 16 * 1024;
/// Longer words are looked for in whole prompts: nobody types them.
const EDGE_BYTES_MAX: usize = 64;
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
            let mut sieve = Sieve::of(&self.conn, &words)?;
            // Its id, once that is enough.
            let mut look_at = |row: &Row| {
                let id: i64 = row.get(0)?;
                let mut texts = [""; 4];
                for (column, text) in texts.iter_mut().enumerate().skip(1) {
                    *text = row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from)?.unwrap_or_default();
                }
                let is_whole = row.get_ref(4)? != ValueRef::Null;
                let passes = match row.get_ref(5)?.as_str_or_null().unwrap_or_default() {
                    Some(list) if !is_whole => sieve.lets_pass(list, &texts, &mut bytes)?,
                    Some(_) | None => true,
                };
                let prompt = if passes { pieces.join(StoredPrompt::read(row, 4)?)? } else { None }.unwrap_or_default();
                texts[0] = &prompt;
                bytes += texts.map(str::len).iter().sum::<usize>();
                looked_at += 1;
                if let Some((found_in, excerpt)) = passes.then(|| find(&words, texts)).flatten() {
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

/// Tells prompts that cannot hold what is looked for from what each of their pieces holds, which is read once however
/// many prompts say it.
struct Sieve<'a> {
    piece: CachedStatement<'a>,
    words: Vec<Finder<'a>>,
    plain: bool,
    /// Words may begin in one piece and end in another: so much of both counts.
    edge: usize,
    known: HashMap<i64, KnownPiece>,
}

/// What is known of a piece.
struct KnownPiece {
    /// A bit for each word that it holds.
    held: u32,
    begins: Box<[u8]>,
    ends: Box<[u8]>,
}

impl<'a> Sieve<'a> {
    fn of(conn: &'a Connection, words: &'a [String]) -> rusqlite::Result<Sieve<'a>> {
        Ok(Sieve {
            piece: conn.prepare_cached("SELECT text FROM pieces WHERE id = ?1")?,
            words: words.iter().map(|word| Finder::new(word.as_bytes())).collect(),
            plain: words.iter().all(|word| word.is_ascii()),
            edge: words.iter().map(|word| word.len() - 1).max().unwrap_or(0),
            known: HashMap::new(),
        })
    }

    /// False: a prompt of these pieces, and the other texts, do not hold all words. Adds to `bytes` what that took.
    fn lets_pass(&mut self, list: &str, texts: &[&str], bytes: &mut usize) -> rusqlite::Result<bool> {
        let Some(ids) = serde_json::from_str::<Vec<i64>>(list).ok().filter(|_| self.edge <= EDGE_BYTES_MAX) else {
            return Ok(true);
        };
        let all = u32::MAX >> (u32::BITS as usize - self.words.len());
        let mut held = texts.iter().fold(0, |held, text| held | self.words_in(lower(text, self.plain).as_bytes()));
        let mut before: Vec<u8> = Vec::new();
        for id in ids {
            if !self.known.contains_key(&id) {
                let Some(piece) = self.read(id, bytes)? else { return Ok(true) };
                if self.known.len() == KNOWN_PIECES_MAX {
                    self.known.clear();
                }
                self.known.insert(id, piece);
            }
            let piece = &self.known[&id];
            before.extend_from_slice(&piece.begins);
            held |= piece.held | self.words_in(&before);
            if piece.ends.len() == self.edge {
                before.clear();
                before.extend_from_slice(&piece.ends);
            }
            before.drain(..before.len().saturating_sub(self.edge));
            *bytes += KNOWN_PIECE_BYTES;
            if held == all {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read(&mut self, id: i64, bytes: &mut usize) -> rusqlite::Result<Option<KnownPiece>> {
        let mut found = self.piece.query([id])?;
        let Some(row) = found.next()? else { return Ok(None) };
        let text = lower(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?, self.plain);
        let text = text.as_bytes();
        *bytes += text.len();
        let held = words_in(&self.words, text);
        let edge = self.edge.min(text.len());
        Ok(Some(KnownPiece { held, begins: text[..edge].into(), ends: text[text.len() - edge..].into() }))
    }

    fn words_in(&self, text: &[u8]) -> u32 {
        words_in(&self.words, text)
    }
}

/// A bit for each word that stands in a text.
fn words_in(words: &[Finder], text: &[u8]) -> u32 {
    words.iter().enumerate().fold(0, |held, (at, word)| held | u32::from(word.find(text).is_some()) << at)
}

/// Lower case changes the length of some letters; only words that need it pay for that.
fn lower(text: &str, plain: bool) -> String {
    if plain { text.to_ascii_lowercase() } else { text.to_lowercase() }
}

/// Where the first word stands, if every word stands somewhere.
fn find(words: &[String], texts: [&str; 4]) -> Option<(&'static str, String)> {
    const PARTS: [&str; 4] = ["prompt", "output", "reasoning", "tool_calls"];
    let plain = words.iter().all(|word| word.is_ascii());
    let lower = texts.map(|text| lower(text, plain));
    let place_of = |word: &String| {
        let finder = Finder::new(word.as_bytes());
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
