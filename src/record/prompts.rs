//! Prompts in pieces: each piece is in memory and in the database once, however many prompts say it.
//!
//! ```text
//!  request ──▶ memory: what the last prompts have, too, is found byte by byte; the rest is read and cut ──▶ row
//!  row ──▶ stored: pieces that the database has are named by their ids, the others are written
//!  a row's content ──▶ joined: the text
//! ```
//!
//! Agents send the whole conversation with every request. Most of it is the same as in one of the last prompts, whose
//! pieces are kept in [`memory`]: a new prompt takes over those that it begins with, and neither reads nor copies them.
//!
//! A piece is known by 16 bytes of its HMAC-SHA256 under a key of this database's, so that nobody can make two that are
//! taken for one; where the database is found to have another text under the same hash all the same, the prompt is
//! stored as it is.

mod joined;
mod memory;
mod stored;

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64};

use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::joined::{PieceReader, StoredPrompt};
pub use self::memory::{PromptMemory, ReadRequest};
pub(super) use self::stored::{StoredPieces, block_of};
use crate::prompts::Element;
use crate::usage::pieces::PieceEnd;
use crate::usage::request_facts::RequestOutline;

/// Bytes of the HMAC by which a piece is known: two of 2^40 are taken for one with a probability of 2^-49.
const HASH_BYTES: usize = 16;
/// What the key is derived for: that of the database serves others, too.
const KEY_PURPOSE: &[u8] = b"pieces of prompts";

/// What a piece is known by.
pub type PieceHash = [u8; HASH_BYTES];

/// The key of a database's hashes.
#[derive(Debug)]
pub struct PieceKey(hmac::Key);

impl PieceKey {
    /// Derived from the secret that the database keeps.
    pub fn new(secret: &[u8]) -> PieceKey {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), KEY_PURPOSE);
        PieceKey(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// The hash of a text.
    pub fn hash(&self, text: &str) -> PieceHash {
        let mut hash = PieceHash::default();
        hash.copy_from_slice(&hmac::sign(&self.0, text.as_bytes()).as_ref()[..HASH_BYTES]);
        hash
    }
}

impl BuildHasher for PieceKey {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher(hmac::Context::with_key(&self.0))
    }
}

/// A short hash under the key.
#[derive(Clone)]
pub struct KeyedHasher(hmac::Context);

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let tag = self.0.clone().sign();
        tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// A piece of one or more prompts, all of which begin with the same pieces before it.
#[derive(Debug)]
pub struct KeptPiece {
    text: Box<str>,
    hash: PieceHash,
    /// Where it ends in a request's body; `None`: up to there something was replaced.
    end: Option<PieceEnd>,
    place: StoredPlace,
    /// The elements of the prompt that end with it, in the order of the text.
    elements: Box<[Element]>,
    /// How many prompts in memory have it; changed under its lock.
    holders: AtomicU32,
}

/// Where the database has a piece, as far as is known; read and changed by who holds the writer.
#[derive(Debug, Default)]
struct StoredPlace {
    /// What is below is true in this one, see [`StoredPieces`].
    epoch: AtomicU64,
    id: AtomicI64,
    last_block: AtomicI64,
}

impl KeptPiece {
    fn new(text: Box<str>, hash: PieceHash, end: Option<PieceEnd>, elements: Box<[Element]>) -> KeptPiece {
        KeptPiece { text, hash, end, elements, place: StoredPlace::default(), holders: AtomicU32::new(0) }
    }

    /// As it is stored.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it is known by.
    pub fn hash(&self) -> &PieceHash {
        &self.hash
    }

    /// What it takes in memory.
    fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.elements) + size_of::<KeptPiece>()
    }
}

/// A prompt in pieces.
#[derive(Debug)]
pub struct PiecedPrompt {
    pieces: Vec<Arc<KeptPiece>>,
    bytes: usize,
    outline: RequestOutline,
}

impl PiecedPrompt {
    fn new(pieces: Vec<Arc<KeptPiece>>, outline: RequestOutline) -> PiecedPrompt {
        let bytes = pieces.iter().map(|piece| piece.text.len()).sum();
        PiecedPrompt { pieces, bytes, outline }
    }

    /// One behind the other they are the text.
    pub fn pieces(&self) -> &[Arc<KeptPiece>] {
        &self.pieces
    }

    fn elements(&self) -> impl Iterator<Item = Element> {
        self.pieces.iter().flat_map(|piece| piece.elements.iter().copied())
    }
}

/// A prompt as it is stored: the request's body as sent, without vectors, images and audio beyond a mark of their size.
#[derive(Clone)]
pub enum Prompt {
    /// As one text: a short one, or one that is cut where it is written.
    Whole(String),
    /// In pieces.
    Pieced(Arc<PiecedPrompt>),
}

impl Prompt {
    /// Bytes of the text.
    pub fn bytes(&self) -> usize {
        match self {
            Prompt::Whole(text) => text.len(),
            Prompt::Pieced(prompt) => prompt.bytes,
        }
    }

    /// The text in parts.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let (whole, pieces) = match self {
            Prompt::Whole(text) => (Some(text.as_str()), &[][..]),
            Prompt::Pieced(prompt) => (None, prompt.pieces()),
        };
        whole.into_iter().chain(pieces.iter().map(|piece| piece.text()))
    }

    /// As one text.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Prompt::Whole(text) => Cow::Borrowed(text),
            Prompt::Pieced(_) => Cow::Owned(self.to_string()),
        }
    }
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Prompt::Whole(text) => f.write_str(text),
            Prompt::Pieced(prompt) => prompt.pieces.iter().try_for_each(|piece| f.write_str(&piece.text)),
        }
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

impl PartialEq for Prompt {
    fn eq(&self, other: &Prompt) -> bool {
        match (self, other) {
            (Prompt::Whole(one), Prompt::Whole(other)) => one == other,
            (Prompt::Pieced(one), Prompt::Pieced(other)) if Arc::ptr_eq(one, other) => true,
            _ => self.bytes() == other.bytes() && self.text() == other.text(),
        }
    }
}

impl From<String> for Prompt {
    fn from(text: String) -> Prompt {
        Prompt::Whole(text)
    }
}

impl Serialize for Prompt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Prompt, D::Error> {
        String::deserialize(from).map(Prompt::Whole)
    }
}

#[cfg(test)]
mod tests;
