//! The last prompts in memory, and what a request says, read with their help.
//!
//! What a body has in common with one of them, from its first byte on, is compared and nothing else: the members that
//! tell, where it is cut, and that it holds no payload are known. The rest is read in one walk
//! ([`PromptWalk`]).
//!
//! Nobody waits for the database here, nor does it matter what it has: where a piece is stored, its row finds out.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::{KeptPiece, PieceKey, PiecedPrompt, Prompt};
use crate::bell::lock;
use crate::limits::{PIECED_BYTES_MIN, PROMPTS_KNOWN_BYTES_MAX};
use crate::prompts::Outline;
use crate::prompts::outline::elements_of;
use crate::record::row::Replaced;
use crate::usage::inject::{self, Edit};
use crate::usage::pieces::PieceEnd;
use crate::usage::prompt::{PromptPiece, PromptWalk, excerpt_of};
use crate::usage::request_facts::{RequestFacts, RequestOutline};

/// What a request's body says.
#[derive(Debug, Default)]
pub struct ReadRequest {
    /// Of itself.
    pub facts: RequestFacts,
    /// What makes it ask for usage, if it asks for a stream without.
    pub edit: Option<Edit>,
    /// The prompt, where it is kept.
    pub prompt: Option<Prompt>,
    /// What that takes in memory beside earlier prompts.
    pub prompt_bytes: usize,
    /// What the prompt consists of.
    pub outline: Option<Outline>,
    /// Why it is not what was sent.
    pub replaced: Option<Replaced>,
}

/// The last prompts, and the key that their pieces are hashed with.
#[derive(Debug)]
pub struct PromptMemory {
    key: PieceKey,
    known: Mutex<KnownPrompts>,
}

#[derive(Debug, Default)]
struct KnownPrompts {
    /// That used last at the end.
    prompts: Vec<Arc<PiecedPrompt>>,
    /// What they take, each piece once.
    bytes: usize,
}

impl PromptMemory {
    /// Nothing is known yet.
    pub fn new(key: PieceKey) -> PromptMemory {
        PromptMemory { key, known: Mutex::default() }
    }

    /// Reads a request's body. `bytes_max`: of its prompt.
    pub fn read(&self, body: &[u8], bytes_max: usize) -> ReadRequest {
        let mut beginning = if body.len() < PIECED_BYTES_MIN { None } else { self.beginning_of(body, bytes_max) };
        if let Some(Beginning { prompt, .. }) = beginning.take_if(|known| known.is_whole()) {
            // Sent once more.
            let request = ReadRequest::of(body, &prompt.outline);
            lock(&self.known).use_again(&prompt);
            let outline = Some(Outline::new(prompt.elements()));
            return ReadRequest { prompt: Some(Prompt::Pieced(prompt)), outline, ..request };
        }
        let mut walk = beginning.as_ref().map_or_else(|| PromptWalk::of(body), |known| known.walk_behind(body));
        if walk.is_binary() {
            (beginning, walk) = (None, PromptWalk::of(body));
        }
        let mut new = Vec::new();
        while let Some(piece) = walk.next_piece() {
            new.push(piece);
        }
        let outline = walk.into_outline();
        let request = ReadRequest::of(body, &outline);
        let known = beginning.as_ref().map_or(&[][..], Beginning::pieces);
        let texts = || known.iter().map(|piece| piece.text()).chain(new.iter().map(|piece| piece.text.as_ref()));
        let bytes: usize = texts().map(str::len).sum();
        if bytes > bytes_max {
            let request = ReadRequest { replaced: Some(Replaced::Length), ..request };
            return request.with_text(excerpt_of(texts(), bytes_max));
        }
        let replaced = new.iter().any(|piece| !piece.is_as_sent).then_some(Replaced::Payload);
        let request = ReadRequest { replaced, ..request };
        if bytes < PIECED_BYTES_MIN {
            let text = (bytes > 0).then(|| texts().collect::<String>());
            let outline = text.as_ref().map(|text| Outline::of(text.as_bytes(), &self.key));
            return ReadRequest { outline, ..request }.with_text(text);
        }
        self.keep(request, beginning, new, outline)
    }

    /// Gives everything back.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        let known = std::mem::take(&mut *lock(&self.known));
        for piece in known.prompts.iter().flat_map(|prompt| &prompt.pieces) {
            piece.holders.store(0, Ordering::Relaxed);
        }
    }

    /// The prompt whose pieces most of the body begins with.
    fn beginning_of(&self, body: &[u8], bytes_max: usize) -> Option<Beginning> {
        let alike: Vec<_> = {
            let known = lock(&self.known);
            let begins = |prompt: &&Arc<PiecedPrompt>| {
                prompt.bytes <= bytes_max && body.starts_with(prompt.pieces[0].text.as_bytes())
            };
            known.prompts.iter().rev().filter(begins).cloned().collect()
        };
        let mut longest: Option<Beginning> = None;
        for prompt in alike {
            let count = shared_pieces(&prompt, body, longest.as_ref().map_or(&[], Beginning::pieces));
            if count > longest.as_ref().map_or(0, |longest| longest.count) {
                longest = Some(Beginning { prompt, count });
            }
        }
        longest
    }

    fn keep(
        &self,
        request: ReadRequest,
        beginning: Option<Beginning>,
        new: Vec<PromptPiece>,
        outline: RequestOutline,
    ) -> ReadRequest {
        let known = beginning.as_ref().map_or(&[][..], |known| &known.prompt.pieces);
        let count = beginning.as_ref().map_or(0, |known| known.count);
        let mut pieces = Vec::with_capacity(count + new.len());
        pieces.extend_from_slice(&known[..count]);
        let mut from = pieces.last().and_then(|piece: &Arc<KeptPiece>| piece.end).unwrap_or(PieceEnd::START);
        let mut last = pieces.iter().rev().find_map(|piece| piece.elements.last().copied());
        let (mut is_as_sent, mut prompt_bytes) = (true, 0);
        for PromptPiece { text, end: place, is_as_sent: this } in new {
            is_as_sent &= this;
            let end = is_as_sent.then_some(place);
            // Behind a payload there is no comparing, but the texts are as they were.
            let same = known.get(pieces.len()).filter(|known| *known.text == *text && known.end == end);
            pieces.push(same.cloned().unwrap_or_else(|| {
                let hash = self.key.hash(&text);
                let elements = elements_of(text.as_bytes(), from, last, &self.key).into_iter();
                let elements = elements.map(|placed| placed.element).collect();
                let piece = KeptPiece::new(boxed(text), hash, end, elements);
                prompt_bytes += piece.bytes();
                Arc::new(piece)
            }));
            from = place;
            last = pieces.last().and_then(|piece| piece.elements.last().copied()).or(last);
        }
        prompt_bytes += pieces.len() * size_of::<Arc<KeptPiece>>();
        let prompt = Arc::new(PiecedPrompt::new(pieces, outline));
        let outline = Some(Outline::new(prompt.elements()));
        if prompt.outline.before(0).is_some() {
            lock(&self.known).remember(prompt.clone(), beginning);
        }
        ReadRequest { prompt: Some(Prompt::Pieced(prompt)), prompt_bytes, outline, ..request }
    }
}

impl ReadRequest {
    fn of(body: &[u8], outline: &RequestOutline) -> ReadRequest {
        let facts = RequestFacts::of_form(body).unwrap_or_else(|| outline.facts(body));
        ReadRequest { facts, edit: inject::edit(body, outline), ..ReadRequest::default() }
    }

    fn with_text(self, text: Option<String>) -> ReadRequest {
        ReadRequest { prompt_bytes: text.as_ref().map_or(0, String::len), prompt: text.map(Prompt::Whole), ..self }
    }
}

/// A text in memory of its own, and of its size.
fn boxed(text: Cow<str>) -> Box<str> {
    text.into_owned().into_boxed_str()
}

/// The first pieces of a prompt, with which a body begins.
struct Beginning {
    prompt: Arc<PiecedPrompt>,
    count: usize,
}

impl Beginning {
    fn pieces(&self) -> &[Arc<KeptPiece>] {
        &self.prompt.pieces[..self.count]
    }

    /// The body is nothing else.
    fn is_whole(&self) -> bool {
        self.count == self.prompt.pieces.len()
    }

    fn walk_behind<'a>(&self, body: &'a [u8]) -> PromptWalk<'a> {
        let from = self.pieces().last().and_then(|piece| piece.end).unwrap_or(PieceEnd::START);
        // Only prompts of which this is known are remembered.
        PromptWalk::behind(body, from, self.prompt.outline.before(from.at).unwrap_or_default())
    }
}

/// How many pieces of the prompt are pieces of the body. `longest`: it is known to begin with these.
fn shared_pieces(prompt: &PiecedPrompt, body: &[u8], longest: &[Arc<KeptPiece>]) -> usize {
    let (mut at, mut count) = (0, 0);
    for (number, piece) in prompt.pieces.iter().enumerate() {
        let is_same = longest.get(number).is_some_and(|longest| Arc::ptr_eq(longest, piece));
        if piece.end.is_none() || !(is_same || body[at..].starts_with(piece.text.as_bytes())) {
            break;
        }
        (at, count) = (at + piece.text.len(), number + 1);
    }
    // Where a piece ends depends on the byte behind it, too.
    let is_next_same = match prompt.pieces.get(count) {
        Some(next) => body.get(at) == next.text.as_bytes().first(),
        None => at == body.len(),
    };
    if is_next_same { count } else { count.saturating_sub(1) }
}

impl KnownPrompts {
    /// The prompt takes the place of the one it goes on, where it has most of that.
    fn remember(&mut self, prompt: Arc<PiecedPrompt>, beginning: Option<Beginning>) {
        let goes_on = |known: &Beginning| {
            known.pieces().iter().map(|piece| piece.text.len()).sum::<usize>() > known.prompt.bytes / 2
        };
        let former = beginning.filter(goes_on).map(|known| known.prompt);
        for piece in &prompt.pieces {
            if piece.holders.fetch_add(1, Ordering::Relaxed) == 0 {
                self.bytes += piece.bytes();
            }
        }
        self.bytes += own_bytes(&prompt);
        self.prompts.push(prompt);
        // Unless another request was quicker, which goes on in another way.
        if let Some(place) = former.and_then(|former| self.prompts.iter().position(|known| Arc::ptr_eq(known, &former)))
        {
            self.forget(place);
        }
        while self.bytes > PROMPTS_KNOWN_BYTES_MAX {
            self.forget(0);
        }
    }

    fn use_again(&mut self, prompt: &Arc<PiecedPrompt>) {
        if let Some(place) = self.prompts.iter().position(|known| Arc::ptr_eq(known, prompt)) {
            self.prompts[place..].rotate_left(1);
        }
    }

    fn forget(&mut self, place: usize) {
        let prompt = self.prompts.remove(place);
        for piece in &prompt.pieces {
            if piece.holders.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.bytes -= piece.bytes();
            }
        }
        self.bytes -= own_bytes(&prompt);
    }
}

/// What a prompt takes beside its pieces.
fn own_bytes(prompt: &PiecedPrompt) -> usize {
    size_of::<PiecedPrompt>() + prompt.pieces.capacity() * size_of::<Arc<KeptPiece>>()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What the last prompts take, which is counted right and within bounds.
    #[track_caller]
    pub(in crate::record::prompts) fn check_memory(memory: &PromptMemory) -> usize {
        let known = lock(&memory.known);
        let mut pieces: BTreeMap<*const KeptPiece, (&KeptPiece, u32)> = BTreeMap::new();
        for piece in known.prompts.iter().flat_map(|prompt| &prompt.pieces) {
            pieces.entry(Arc::as_ptr(piece)).or_insert((piece, 0)).1 += 1;
        }
        let held: usize = pieces.values().map(|(piece, _)| piece.bytes()).sum();
        let own: usize = known.prompts.iter().map(|prompt| own_bytes(prompt)).sum();
        assert_eq!(known.bytes, held + own);
        assert!(known.bytes <= PROMPTS_KNOWN_BYTES_MAX, "{}", known.bytes);
        for (piece, count) in pieces.values() {
            assert_eq!(piece.holders.load(Ordering::Relaxed), *count);
        }
        known.bytes
    }
}
