//! The words of an answer: those that a document brings, and how they join what was said before.
//!
//! Servers tell the same words under several names, so that clients of each find them: of a document only the words of
//! the first member that has any count, for each kind.

use super::excerpt::Excerpt;
use super::role::JsonRole::{self, *};

/// How a document tells its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// They follow those before.
    Delta,
    /// They stand for the deltas since the last such event, and count where there were none (`….done`).
    Whole,
    /// They repeat the whole reply, and count where nothing else was kept (`response.completed`).
    Echo,
}

/// The pieces of words in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordPieces {
    /// None so far.
    None,
    /// One: its role, the address of its first byte, its length. The address is only compared, to find it again in
    /// the bytes that were fed.
    One(JsonRole, usize, usize),
    /// Several.
    More,
}

/// The words of one kind in a document.
#[derive(Debug)]
pub struct FirstTold {
    /// Those of the first member that has any.
    pub words: Excerpt,
    /// Which member that is; 0: none.
    member: u32,
}

impl FirstTold {
    fn new(kept_max: usize) -> FirstTold {
        FirstTold { words: Excerpt::new(kept_max), member: 0 }
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.words.clear();
        self.member = 0;
    }

    /// Whether words of this member count.
    fn is_told_by(&mut self, member: u32) -> bool {
        if self.member == 0 {
            self.member = member;
        }
        self.member == member
    }

    /// Takes those of another kind, which `member` tells.
    fn take(&mut self, other: &mut FirstTold, member: u32) {
        if self.is_told_by(member) {
            self.words.append(&other.words);
        }
        other.clear();
    }
}

/// The words of a document.
#[derive(Debug)]
pub struct DocumentWords {
    /// How they relate to those before.
    pub telling: Telling,
    /// Text of the answer.
    pub output: FirstTold,
    /// Reasoning.
    pub reasoning: FirstTold,
    /// Words whose kind the object around them, or the document, tells.
    pub loose: FirstTold,
    /// Whether they came in one piece.
    pub pieces: WordPieces,
    /// Bytes of all words, those of any choice.
    pub said: u64,
    /// Which of the members that hold words is being read.
    member: u32,
}

impl DocumentWords {
    /// None yet, of which so many bytes of each kind are kept.
    pub fn new(kept_max: usize) -> DocumentWords {
        DocumentWords {
            telling: Telling::Delta,
            output: FirstTold::new(kept_max),
            reasoning: FirstTold::new(kept_max),
            loose: FirstTold::new(kept_max),
            pieces: WordPieces::None,
            said: 0,
            member: 0,
        }
    }

    /// Another document begins.
    pub fn clear(&mut self) {
        self.clear_text();
        (self.telling, self.pieces) = (Telling::Delta, WordPieces::None);
        (self.said, self.member) = (0, 0);
    }

    /// Forgets the words, but not that there were some.
    pub fn clear_text(&mut self) {
        [&mut self.output, &mut self.reasoning, &mut self.loose].into_iter().for_each(FirstTold::clear);
    }

    /// A member that may hold words begins.
    pub fn begin_member(&mut self) {
        self.member += 1;
    }

    /// Another item of a list begins, whose members tell words of their own.
    pub fn begin_item(&mut self) {
        (self.output.member, self.reasoning.member) = (0, 0);
    }

    /// A piece came, of which more may be still to come.
    pub fn push(&mut self, at: JsonRole, piece: &[u8]) {
        let kind = match at {
            Output | Answers => Some(&mut self.output),
            Reasoning => Some(&mut self.reasoning),
            Loose => Some(&mut self.loose),
            _ => None,
        };
        if let Some(kind) = kind {
            if !kind.is_told_by(self.member) {
                return;
            }
            kind.words.push(piece);
        }
        self.said += piece.len() as u64;
    }

    /// Loose words turn out to be of the answer.
    pub fn loose_is_output(&mut self) {
        self.output.take(&mut self.loose, self.member);
    }

    /// Loose words turn out to be reasoning.
    pub fn loose_is_reasoning(&mut self) {
        self.reasoning.take(&mut self.loose, self.member);
    }
}

/// Words of one kind in a reply, and whether deltas came since they were last given whole.
#[derive(Debug, Default)]
pub struct ReplyWords {
    /// As far as they are kept.
    pub words: Excerpt,
    /// Deltas came.
    pub had_delta: bool,
}

impl ReplyWords {
    /// None yet.
    pub fn new(kept_max: usize) -> ReplyWords {
        ReplyWords { words: Excerpt::new(kept_max), had_delta: false }
    }

    /// Takes those of a document.
    pub fn merge(&mut self, more: &Excerpt, telling: Telling) {
        if more.is_empty() {
            return;
        }
        let counts = match telling {
            Telling::Delta => true,
            Telling::Whole => !self.had_delta,
            Telling::Echo => self.words.is_empty(),
        };
        if counts {
            self.words.append(more);
        }
        if telling != Telling::Echo {
            self.had_delta = telling == Telling::Delta;
        }
    }
}
