//! Pieces of prompts in the database, each there once.
//!
//! A piece's id is never used again (AUTOINCREMENT): a list that names one that somebody has removed by hand names no
//! other.
//!
//! Invariant: where a piece is known to be stored, it is. What was learnt is of an epoch, which ends when a transaction
//! fails, and when another connection has written anything, which SQLite tells (`data_version`). What clean-up removes
//! it tells itself.
//!
//! Which pieces are needed no more, clean-up tells from `last_block`: the block of [`BLOCK_ROWS`] ids that the newest
//! content with this piece belongs to. No count of uses has to be kept right, and a conversation that goes on writes to
//! each of its pieces once in so many requests; a piece stays for as many longer than it must.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, OptionalExtension, params};

use super::{PieceHash, PieceKey, Prompt, StoredPlace};
use crate::limits::PIECED_BYTES_MIN;
use crate::usage::pieces::{PieceEnd, pieces_behind};

/// Ids of content that make a block.
const BLOCK_ROWS: i64 = 64;

/// Epochs so far, of all databases.
static EPOCHS: AtomicU64 = AtomicU64::new(0);

/// The block that content of this id belongs to.
pub(in crate::record) fn block_of(id: i64) -> i64 {
    id.div_euclid(BLOCK_ROWS)
}

/// What is known of the pieces in the database.
#[derive(Debug, Default)]
pub(in crate::record) struct StoredPieces {
    /// Read when it is needed first.
    key: Option<PieceKey>,
    /// As of when all of this was true.
    data_version: i64,
    /// Places of this epoch are true. None is of epoch 0.
    epoch: u64,
    /// Those last used before this block may be gone.
    kept_from: i64,
}

impl StoredPieces {
    /// Stores the pieces of a prompt that are not there, inside the caller's transaction, for the content of this id.
    /// Returns the list of them; `None`: it is to be stored as it is.
    pub(in crate::record) fn store(
        &mut self,
        conn: &Connection,
        id: i64,
        prompt: &Prompt,
    ) -> rusqlite::Result<Option<String>> {
        if prompt.bytes() < PIECED_BYTES_MIN {
            return Ok(None);
        }
        self.look(conn)?;
        let mut list = PieceList { pieces: self, conn, block: block_of(id), ids: String::new() };
        let is_in = match prompt {
            Prompt::Pieced(prompt) => {
                list.ids.reserve(prompt.pieces.len() * 8);
                let mut pieces = prompt.pieces.iter();
                pieces.try_fold(true, |is_in, piece| {
                    Ok::<_, rusqlite::Error>(is_in && list.push(&piece.text, piece.hash, &piece.place)?)
                })?
            }
            Prompt::Whole(text) => list.push_whole(text)?,
        };
        Ok(is_in.then_some(list.ids + "]"))
    }

    /// Pieces last used before this block are removed.
    pub(in crate::record) fn note_removed(&mut self, before: i64) {
        if before == i64::MAX {
            // All of them: none that comes is of a later block.
            self.epoch = next_epoch();
        } else {
            self.kept_from = self.kept_from.max(before);
        }
    }

    #[cfg(test)]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Begins anew if somebody else has written: pieces may be gone.
    fn look(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let data_version = conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        if data_version != self.data_version {
            *self = StoredPieces { data_version, epoch: next_epoch(), ..StoredPieces::default() };
        }
        Ok(())
    }

    /// The hash of a text under this database's key.
    fn hash(&mut self, conn: &Connection, text: &str) -> rusqlite::Result<PieceHash> {
        if let Some(key) = &self.key {
            return Ok(key.hash(text));
        }
        let secret: Vec<u8> =
            conn.query_row("SELECT value FROM meta WHERE name = 'fingerprint_key'", [], |row| row.get(0))?;
        Ok(self.key.insert(PieceKey::new(&secret)).hash(text))
    }
}

fn next_epoch() -> u64 {
    EPOCHS.fetch_add(1, Ordering::Relaxed) + 1
}

/// The list of a prompt's pieces in the making, for content of one block.
struct PieceList<'a> {
    pieces: &'a mut StoredPieces,
    conn: &'a Connection,
    block: i64,
    /// As a JSON array.
    ids: String,
}

impl PieceList<'_> {
    /// Cuts a text that nobody has cut yet.
    fn push_whole(&mut self, text: &str) -> rusqlite::Result<bool> {
        let mut from = 0;
        for PieceEnd { at, .. } in pieces_behind(text.as_bytes(), PieceEnd::START) {
            let piece = &text[from..at];
            let hash = self.pieces.hash(self.conn, piece)?;
            if !self.push(piece, hash, &StoredPlace::default())? {
                return Ok(false);
            }
            from = at;
        }
        Ok(true)
    }

    /// Adds a piece, and writes it where it is not there. False: another text has its hash.
    fn push(&mut self, text: &str, hash: PieceHash, place: &StoredPlace) -> rusqlite::Result<bool> {
        let is_known = place.epoch.load(Ordering::Relaxed) == self.pieces.epoch
            && place.last_block.load(Ordering::Relaxed) >= self.pieces.kept_from;
        let known = is_known.then(|| (place.id.load(Ordering::Relaxed), place.last_block.load(Ordering::Relaxed)));
        let found = match known {
            Some(known) => Some(known),
            None => match self.find(text, &hash)? {
                Some((id, last_block, true)) => Some((id, last_block)),
                Some((.., false)) => return Ok(false),
                None => None,
            },
        };
        let id = match found {
            Some((id, last_block)) => {
                if last_block < self.block {
                    self.use_again(id)?;
                }
                id
            }
            None => self.insert(text, &hash)?,
        };
        let last_block = found.map_or(self.block, |(_, last_block)| last_block.max(self.block));
        place.epoch.store(self.pieces.epoch, Ordering::Relaxed);
        place.id.store(id, Ordering::Relaxed);
        place.last_block.store(last_block, Ordering::Relaxed);
        let before = if self.ids.is_empty() { '[' } else { ',' };
        // Writing into a string cannot fail.
        let _ = write!(self.ids, "{before}{id}");
        Ok(true)
    }

    /// Id and last block of the piece with this hash, and whether it has this text.
    fn find(&self, text: &str, hash: &PieceHash) -> rusqlite::Result<Option<(i64, i64, bool)>> {
        self.conn
            .prepare_cached("SELECT id, last_block, text = ?2 FROM pieces WHERE hash = ?1")?
            .query_row(params![hash, text], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
    }

    fn insert(&self, text: &str, hash: &PieceHash) -> rusqlite::Result<i64> {
        let mut insert = self.conn.prepare_cached("INSERT INTO pieces (hash, last_block, text) VALUES (?1, ?2, ?3)")?;
        insert.insert(params![hash, self.block, text])
    }

    /// It is used in this block, too.
    fn use_again(&self, id: i64) -> rusqlite::Result<()> {
        self.conn
            .prepare_cached("UPDATE pieces SET last_block = ?2 WHERE id = ?1 AND last_block < ?2")?
            .execute([id, self.block])?;
        Ok(())
    }
}
