//! Prompts in pieces: each piece is in the database once, however many prompts say it.
//!
//! Agents send the whole conversation with every request. What is new of it is cut into [`pieces`](crate::usage::pieces),
//! looked up by its hash, and written where it is not there; the row's content has the list of them. Most of a prompt is
//! not even looked at: it is the same as in one of the last prompts, which are kept in memory and compared byte by byte.
//!
//! A piece is known by 16 bytes of its HMAC-SHA256 under a key of this database's, so that nobody can make two that are
//! taken for one. Its id is never used again (AUTOINCREMENT): a list that names one that somebody has removed by hand
//! names no other.
//!
//! Invariant: what is in memory is in the database. It is forgotten when a transaction fails, and when another connection
//! has written anything, which SQLite tells (`data_version`). What clean-up removes it tells itself.
//!
//! Which pieces are needed no more, clean-up tells from `last_block`: the block of [`BLOCK_ROWS`] ids that the newest
//! content with this piece belongs to. No count of uses has to be kept right, and a conversation that goes on writes to
//! each of its pieces once in so many requests; a piece stays for as many longer than it must.

use std::fmt::Write;

use ring::hmac;
use rusqlite::{Connection, OptionalExtension, params};

use crate::limits::{PIECED_BYTES_MIN, PROMPTS_KNOWN_BYTES_MAX};
use crate::usage::pieces::{PieceEnd, pieces_behind};

/// Ids of content that make a block.
const BLOCK_ROWS: i64 = 64;
/// Bytes of the HMAC by which a piece is known: two of 2^40 are taken for one with a probability of 2^-49.
const HASH_BYTES: usize = 16;
/// What the key is derived for: that of the database serves others, too.
const KEY_PURPOSE: &[u8] = b"pieces of prompts";
/// Prompts are compared in steps of so many bytes: whole, with the processor's widest instructions.
const COMPARED_BYTES: usize = 4096;

/// Room that a prompt in memory has for the turns to come, as a part of it.
const ROOM_PART: usize = 16;

/// The block that content of this id belongs to.
pub(super) fn block_of(id: i64) -> i64 {
    id.div_euclid(BLOCK_ROWS)
}

/// What is known of the pieces in the database.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    /// Read when it is needed first.
    key: Option<hmac::Key>,
    /// As of when all of this was true.
    data_version: i64,
    /// The last prompts, that used last at the end.
    known: Vec<KnownPrompt>,
    /// Of the prompts stored since somebody asked, what was there already.
    found_bytes: usize,
}

/// A prompt in memory.
#[derive(Debug, Default)]
struct KnownPrompt {
    text: String,
    pieces: Vec<KnownPiece>,
}

/// One of its pieces.
#[derive(Clone, Copy, Debug)]
struct KnownPiece {
    end: PieceEnd,
    id: i64,
    last_block: i64,
}

impl KnownPrompt {
    fn bytes(&self) -> usize {
        self.text.capacity() + self.pieces.capacity() * size_of::<KnownPiece>()
    }

    /// How many bytes of `text` it begins with.
    fn same(&self, text: &str) -> usize {
        let (one, other) = (self.text.as_bytes(), text.as_bytes());
        let steps = one.chunks(COMPARED_BYTES).zip(other.chunks(COMPARED_BYTES));
        let whole = steps.take_while(|(one, other)| one == other).map(|(one, _)| one.len()).sum::<usize>();
        let rest = one[whole..].iter().zip(&other[whole..]);
        whole + rest.take_while(|(one, other)| one == other).count()
    }

    /// Takes this text, which is the same for so many bytes, and keeps the pieces that it has, too.
    fn become_like(&mut self, text: &str, same: usize) {
        if same == text.len() && same == self.text.len() {
            return;
        }
        let within = self.pieces.iter().take_while(|piece| piece.end.is_within(same)).count();
        self.pieces.truncate(within);
        let end = self.pieces.last().map_or(0, |piece| piece.end.at);
        self.text.truncate(end);
        if self.text.capacity() < text.len() {
            // Neither anew for each turn, nor twice of what it takes.
            self.text.reserve_exact(text.len() - end + text.len() / ROOM_PART);
        }
        self.text.push_str(&text[end..]);
    }
}

impl Prompts {
    /// Stores the pieces of a prompt that are not there, inside the caller's transaction, for the content of this id.
    /// Returns the list of them; `None`: it is short, and stored as it is.
    pub(super) fn store(&mut self, conn: &Connection, id: i64, prompt: &str) -> rusqlite::Result<Option<String>> {
        if prompt.len() < PIECED_BYTES_MIN {
            return Ok(None);
        }
        self.look(conn)?;
        let mut known = self.take_alike(prompt);
        let mut from = known.pieces.last().map_or(PieceEnd::START, |piece| piece.end);
        let mut found_bytes = from.at;
        let block = block_of(id);
        let mut pieces = PieceTable { conn, key: key(&mut self.key, conn)?, block };
        for piece in known.pieces.iter_mut().filter(|piece| piece.last_block < block) {
            pieces.use_again(piece.id)?;
            piece.last_block = block;
        }
        for end in pieces_behind(prompt.as_bytes(), from) {
            let (id, is_new) = pieces.find_or_insert(&prompt[from.at..end.at])?;
            found_bytes += if is_new { 0 } else { end.at - from.at };
            known.pieces.push(KnownPiece { end, id, last_block: block });
            from = end;
        }
        self.found_bytes += found_bytes;
        let list = list(&known.pieces);
        self.remember(known);
        Ok(Some(list))
    }

    /// How many bytes of prompts were there already, of those stored since it was asked last.
    pub(super) fn take_found_bytes(&mut self) -> usize {
        std::mem::take(&mut self.found_bytes)
    }

    /// These pieces are removed.
    pub(super) fn forget(&mut self, ids: &[i64]) {
        self.known.retain(|known| !known.pieces.iter().any(|piece| ids.contains(&piece.id)));
    }

    /// Forgets everything if somebody else has written: pieces may be gone.
    fn look(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let data_version = conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if data_version != self.data_version {
            *self = Prompts { data_version, found_bytes: self.found_bytes, ..Prompts::default() };
        }
        Ok(())
    }

    /// The prompt in memory, with those of its pieces that it shares with the one that begins like it for longest. Where it
    /// has most of that one, it takes its place.
    fn take_alike(&mut self, prompt: &str) -> KnownPrompt {
        let mut alike = (0, 0);
        for (place, known) in self.known.iter().enumerate().rev() {
            let same = known.same(prompt);
            if same > alike.1 {
                alike = (place, same);
            }
        }
        let (place, same) = alike;
        if same == 0 {
            return KnownPrompt { text: prompt.to_owned(), pieces: Vec::new() };
        }
        let known = &self.known[place];
        if same <= known.text.len() / 2 {
            let pieces = known.pieces.iter().copied().take_while(|piece| piece.end.is_within(same)).collect();
            return KnownPrompt { text: prompt.to_owned(), pieces };
        }
        let mut known = self.known.remove(place);
        known.become_like(prompt, same);
        known
    }

    fn remember(&mut self, known: KnownPrompt) {
        let bytes = known.bytes();
        if bytes > PROMPTS_KNOWN_BYTES_MAX {
            return;
        }
        let mut all = bytes + self.known.iter().map(KnownPrompt::bytes).sum::<usize>();
        while all > PROMPTS_KNOWN_BYTES_MAX {
            all -= self.known.remove(0).bytes();
        }
        self.known.push(known);
    }
}

/// The key of this database's hashes.
fn key<'a>(known: &'a mut Option<hmac::Key>, conn: &Connection) -> rusqlite::Result<&'a hmac::Key> {
    if let Some(key) = known {
        return Ok(key);
    }
    let secret: Vec<u8> =
        conn.query_row("SELECT value FROM meta WHERE name = 'fingerprint_key'", [], |row| row.get(0))?;
    let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), KEY_PURPOSE);
    Ok(known.insert(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())))
}

/// The ids as a JSON array.
fn list(pieces: &[KnownPiece]) -> String {
    let mut list = String::with_capacity(pieces.len() * 8);
    for piece in pieces {
        let before = if list.is_empty() { '[' } else { ',' };
        // Writing into a string cannot fail.
        let _ = write!(list, "{before}{}", piece.id);
    }
    list.push(']');
    list
}

/// The table of pieces, for content of one block.
struct PieceTable<'a> {
    conn: &'a Connection,
    key: &'a hmac::Key,
    block: i64,
}

impl PieceTable<'_> {
    /// The id of the piece with this text, and whether it was not there.
    fn find_or_insert(&mut self, text: &str) -> rusqlite::Result<(i64, bool)> {
        let tag = hmac::sign(self.key, text.as_bytes());
        let hash = &tag.as_ref()[..HASH_BYTES];
        let found: Option<(i64, i64)> = self
            .conn
            .prepare_cached("SELECT id, last_block FROM pieces WHERE hash = ?1")?
            .query_row([hash], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((id, last_block)) = found {
            if last_block < self.block {
                self.use_again(id)?;
            }
            return Ok((id, false));
        }
        let mut insert = self.conn.prepare_cached("INSERT INTO pieces (hash, last_block, text) VALUES (?1, ?2, ?3)")?;
        Ok((insert.insert(params![hash, self.block, text])?, true))
    }

    /// It is used in this block, too.
    fn use_again(&mut self, id: i64) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("UPDATE pieces SET last_block = ?2 WHERE id = ?1 AND last_block < ?2")?
            .execute([id, self.block])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
