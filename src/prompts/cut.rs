//! Whether upstream has silently cut a prompt: it tells fewer tokens than so many bytes can be.
//!
//! How many bytes a token stands for depends on the model's tokenizer and on what is said: 2 of base64, 4 of code and of
//! English. What is usual for a model is learned from the prompts before, of which those that seem cut are left out. A
//! prompt that has far more bytes for each token than is usual is suspected, sooner where its tokens stop at a round
//! number, or where it could not fit into the context of which the length is known.
//!
//! It stays a suspicion: nobody but upstream knows. So what is suspected is looked at once more: spaces without end, and
//! lines of one character, are few tokens.

use crate::limits::PROMPT_JUDGED_BYTES_MIN;

/// Bytes for each token, as often as they were met: each bucket is a tenth larger than the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct UsualDensity {
    counts: [u16; BUCKETS],
    total: u16,
}

/// From one byte a token to sixteen.
const BUCKETS: usize = 30;
const BUCKET_GROWTH: f64 = 1.1;
/// Then what was met counts half, so that newer prompts tell more.
const TOTAL_MAX: u16 = 512;
/// Before so many prompts what is usual is not known, and what is so for most models serves.
const KNOWN_MIN: u16 = 8;
/// What most models have, of most texts.
const COMMON: f64 = 4.0;
/// What people write does not have more, to most tokenizers: the densest of what was measured is prose.
const COMMON_HIGH: f64 = 5.0;
/// So many times what is high among the usual is far above it.
const FAR: f64 = 1.8;
/// The same where the tokens stop at a round number, which few prompts do by chance.
const FAR_AT_BOUND: f64 = 1.25;
/// Smallest round number at which upstreams stop; the others are its doubles.
const BOUND_MIN: u64 = 1024;
/// So close below it tokens stop at a round number, where a template's own tokens come on top.
const BOUND_SLACK: u64 = 8;

/// A prompt, as far as it matters how long it is.
#[derive(Clone, Copy, Debug)]
pub struct PromptSize {
    /// Bytes as templates render them.
    pub bytes: u64,
    /// Those of them that no earlier prompt began with.
    pub new_bytes: u64,
    /// Its tokens, as told; where a cache is told apart, with those.
    pub told_tokens: u64,
    /// How many tokens the model's context holds.
    pub context_tokens: Option<u64>,
}

/// What is thought of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutJudgement {
    /// It seems to be cut.
    pub is_cut: bool,
    /// How many tokens it has if it is as usual.
    pub expected_tokens: u64,
}

impl UsualDensity {
    /// Judges a prompt, and learns from it. `text` is asked for that of one that is suspected, in parts, with its bytes, if
    /// it is known. `None`: it is too short to tell, or its tokens may be those alone that were read anew.
    pub fn judge<'t, P: Iterator<Item = &'t str>>(
        &mut self,
        size: PromptSize,
        text: impl FnOnce() -> Option<(usize, P)>,
    ) -> Option<CutJudgement> {
        let PromptSize { bytes, new_bytes, told_tokens, .. } = size;
        if bytes < PROMPT_JUDGED_BYTES_MIN || told_tokens == 0 {
            return None;
        }
        let expected = |bytes: u64| bytes as f64 / self.middle();
        let judgement = CutJudgement { is_cut: false, expected_tokens: expected(bytes).round() as u64 };
        let density = bytes as f64 / told_tokens as f64;
        if !self.is_suspect(size, density) {
            self.learn(density);
            return Some(judgement);
        }
        // Some servers count what they read, and not what they had.
        let is_of_new = (0.5..2.0).contains(&(told_tokens as f64 / expected(new_bytes).max(1.0)));
        if new_bytes < bytes && is_of_new {
            return None;
        }
        let words_max = told_tokens as f64 / EXPLAINED_PART;
        let is_explained = text().is_some_and(|(text_bytes, parts)| has_few_words(parts, text_bytes, bytes, words_max));
        Some(CutJudgement { is_cut: !is_explained, ..judgement })
    }

    fn is_suspect(&self, size: PromptSize, density: f64) -> bool {
        let high = self.high();
        let fits = |context: u64| size.bytes as f64 / (FAR_AT_BOUND * high) <= context as f64;
        let stops = size.told_tokens.next_power_of_two();
        let at_bound = stops >= BOUND_MIN && stops - size.told_tokens <= BOUND_SLACK;
        let overflows = size.context_tokens.is_some_and(|context| size.told_tokens <= context && !fits(context));
        density > FAR * high || (at_bound || overflows) && density > FAR_AT_BOUND * high
    }

    /// Takes in what a prompt has that is not cut: bytes for each token.
    pub fn learn(&mut self, density: f64) {
        let bucket = density.max(1.0).log(BUCKET_GROWTH) as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1;
        self.total += 1;
        if self.total >= TOTAL_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
    }

    /// What half of the prompts have at most.
    fn middle(&self) -> f64 {
        if self.total < KNOWN_MIN { COMMON } else { bound(self.bucket_of_part(0.5)) / BUCKET_GROWTH.sqrt() }
    }

    /// What nearly all have at most. A model that was asked for base64 alone may be asked for prose next.
    fn high(&self) -> f64 {
        if self.total < KNOWN_MIN { COMMON_HIGH } else { bound(self.bucket_of_part(0.95)).max(COMMON_HIGH) }
    }

    fn bucket_of_part(&self, part: f64) -> usize {
        let (rank, mut below) = (f64::from(self.total) * part, 0.0);
        let reaches = |count: &u16| {
            below += f64::from(*count);
            below >= rank
        };
        self.counts.iter().position(reaches).unwrap_or(BUCKETS - 1)
    }
}

/// The upper end of a bucket.
fn bound(bucket: usize) -> f64 {
    BUCKET_GROWTH.powi(bucket as i32 + 1)
}

/// A prompt of so many tokens for each of its words, as [`has_few_words`] counts them, is not cut. Tokenizers make more
/// than one of most, and whoever cuts leaves less than that.
const EXPLAINED_PART: f64 = 0.75;
/// Of a long text so many pieces of so many bytes are looked at.
const PIECES: usize = 16;
const PIECE_BYTES: usize = 8 * 1024;
/// So many are looked at before it is asked whether there are more words already.
const LOOK_BYTES: usize = 1024;
/// A word of more letters is more than one.
const WORD_LETTERS: usize = 12;

/// Whether a prompt of so many bytes has no more than so many words, if it is as what is looked at of its text: a run of
/// letters and digits, of one other character, or of blanks. No tokenizer makes fewer tokens of what people write. Mostly
/// a prompt that is suspected has more, and the first lines say so.
fn has_few_words<'t>(parts: impl Iterator<Item = &'t str>, text_bytes: usize, bytes: u64, words_max: f64) -> bool {
    let step = (text_bytes / PIECES).max(PIECE_BYTES);
    let (mut words, mut seen, mut begin) = (0, 0, 0);
    let all_of = |seen: usize| bytes as f64 / seen.max(1) as f64;
    for part in parts {
        let mut at = 0;
        while at < part.len() {
            // Pieces lie a step apart, whatever parts they are in.
            let in_step = (begin + at) % step;
            if in_step >= PIECE_BYTES {
                at += step - in_step;
                continue;
            }
            let piece = &part.as_bytes()[at..part.len().min(at + LOOK_BYTES.min(PIECE_BYTES - in_step))];
            words += words_in(piece);
            seen += piece.len();
            at += piece.len();
            // What was not looked at has some, too.
            if words as f64 * all_of(text_bytes.max(seen)) > words_max {
                return false;
            }
        }
        begin += part.len();
    }
    words as f64 * all_of(seen) <= words_max
}

fn words_in(piece: &[u8]) -> usize {
    let (mut words, mut at) = (0, 0);
    while let Some(first) = piece.get(at) {
        let is_like = |byte: &u8| match first {
            b' ' | b'\\' => matches!(byte, b' ' | b'\\' | b'n' | b't'),
            first if is_of_word(*first) => is_of_word(*byte),
            first => byte == first,
        };
        let length = piece[at..].iter().take_while(|byte| is_like(byte)).count().max(1);
        // A single blank goes with the word behind it.
        words += match (first, length) {
            (b' ', 1) => 0,
            (first, length) if is_of_word(*first) => {
                let letters = piece[at..at + length].iter().filter(|byte| !matches!(byte, 0x80..0xC0)).count();
                letters.div_ceil(WORD_LETTERS)
            }
            _ => 1,
        };
        at += length;
    }
    words
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

#[cfg(test)]
mod tests;
