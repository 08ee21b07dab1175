//! A text of any length kept within a bound: its head, its tail, and between them how much was left out.
//!
//! Holds no more than the bound, whatever passes through, and gives what it holds away as the text.

use std::borrow::Cow;

use super::text::{ceil_boundary, floor_boundary, into_lossy, lossy, without_partial_character, without_partial_start};

/// The excerpt of what was pushed so far.
#[derive(Clone, Debug, Default)]
pub struct Excerpt {
    bytes_max: usize,
    /// The head, up to half of `bytes_max`, then the tail: a ring as soon as it is full.
    kept: Vec<u8>,
    /// Where the full ring begins, from the end of the head on: the next byte replaces that one.
    eldest: usize,
    total: u64,
}

impl Excerpt {
    /// An empty text that will take at most `bytes_max` bytes; 0 keeps nothing but that there was something.
    pub fn new(bytes_max: usize) -> Excerpt {
        Excerpt { bytes_max, ..Excerpt::default() }
    }

    /// One that will be about as long as `bytes`, if that fits.
    pub fn with_room(bytes_max: usize, bytes: usize) -> Excerpt {
        Excerpt { kept: Vec::with_capacity(bytes.min(bytes_max)), ..Excerpt::new(bytes_max) }
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Memory that it takes, nearly.
    pub fn bytes(&self) -> usize {
        self.kept.len()
    }

    /// Forgets everything but the bound.
    pub fn clear(&mut self) {
        self.kept.clear();
        (self.eldest, self.total) = (0, 0);
    }

    /// Adds to the text. A character may come in parts.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if self.bytes_max == 0 {
            return;
        }
        let (fits, bytes) = bytes.split_at(bytes.len().min(self.bytes_max - self.kept.len()));
        self.kept.extend_from_slice(fits);
        if bytes.is_empty() {
            return;
        }
        let ring = &mut self.kept[self.bytes_max / 2..];
        // What goes once around leaves the ring's begin where it is.
        let bytes = &bytes[bytes.len().saturating_sub(ring.len())..];
        let (first, second) = bytes.split_at(bytes.len().min(ring.len() - self.eldest));
        ring[self.eldest..][..first.len()].copy_from_slice(first);
        ring[..second.len()].copy_from_slice(second);
        self.eldest += bytes.len();
        if self.eldest >= ring.len() {
            self.eldest -= ring.len();
        }
    }

    /// Adds what another one with the same bound keeps.
    pub fn append(&mut self, other: &Excerpt) {
        let (head, lost, tail) = other.pieces();
        self.push(head);
        self.lose(lost);
        tail.into_iter().for_each(|part| self.push(part));
    }

    /// Counts bytes that another one with the same bound already left out. More than the bound was pushed, then, so
    /// that the head is full and the tail begins anew.
    pub fn lose(&mut self, bytes: u64) {
        if bytes > 0 {
            self.total += bytes;
            self.kept.truncate(self.bytes_max / 2);
            self.eldest = 0;
        }
    }

    /// What is kept, in its order, and how many bytes are left out between: head, their number, tail in two parts.
    pub fn pieces(&self) -> (&[u8], u64, [&[u8]; 2]) {
        let (head, ring) = self.kept.split_at(self.kept.len().min(self.bytes_max / 2));
        let (newer, older) = ring.split_at(self.eldest);
        (head, self.total - self.kept.len() as u64, [older, newer])
    }

    /// The text, `None` where there is none: whole where it fits, else `HEAD…[N bytes left out]…TAIL`, cut between
    /// characters. Bytes that are not UTF-8 become U+FFFD.
    pub fn into_text(mut self) -> Option<String> {
        if self.is_empty() || self.bytes_max == 0 {
            return None;
        }
        if self.total > self.kept.len() as u64 {
            let at = self.bytes_max / 2;
            self.kept[at..].rotate_left(self.eldest);
            let (head, tail) = self.kept.split_at(at);
            let (head, tail) = (without_partial_character(head), without_partial_start(tail));
            let (Ok(head), Ok(tail)) = (str::from_utf8(head), str::from_utf8(tail)) else {
                return Some(cut(&lossy(head), &lossy(tail), self.total, self.bytes_max).concat());
            };
            let [head, mark, tail] = cut(head, tail, self.total, self.bytes_max);
            // A long text is not copied: the mark has room where both were cut.
            let (mark, left_out) = (mark.into_owned(), head.len()..self.kept.len() - tail.len());
            self.kept.splice(left_out, mark.into_bytes());
            return Some(into_lossy(self.kept));
        }
        let text = into_lossy(self.kept);
        // Replacement characters are longer than what they stand for.
        Some(if text.len() <= self.bytes_max {
            text
        } else {
            cut(&text, &text, text.len() as u64, self.bytes_max).concat()
        })
    }
}

/// What fits of `head` and `tail` with the mark between: both are cut by half a mark at least.
fn cut<'a>(head: &'a str, tail: &'a str, total: u64, bytes_max: usize) -> [Cow<'a, str>; 3] {
    let mark = |left_out: u64| format!("…[{left_out} bytes left out]…");
    let Some(room) = bytes_max.checked_sub(mark(total).len()) else { return Default::default() };
    let head = &head[..floor_boundary(head, room / 2)];
    let tail = &tail[ceil_boundary(tail, tail.len().saturating_sub(room - room / 2))..];
    [head.into(), mark(total.saturating_sub((head.len() + tail.len()) as u64)).into(), tail.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `text` whole and in parts of every small length; all must give `expected`.
    fn check(text: &str, bytes_max: usize, expected: &str) {
        for part in [text.len().max(1), 1, 2, 3, 7, 64] {
            let mut excerpt = Excerpt::new(bytes_max);
            text.as_bytes().chunks(part).for_each(|part| excerpt.push(part));
            assert!(excerpt.kept.capacity() <= 2 * bytes_max.max(64), "memory stays bounded");
            assert_eq!(excerpt.clone().into_text().unwrap_or_default(), expected, "parts of {part}");
        }
        assert!(expected.len() <= bytes_max);
    }

    #[test]
    fn a_text_that_fits_is_whole() {
        check("", 10, "");
        check("0123456789", 10, "0123456789");
        check("héé😀", 9, "héé😀");
    }

    #[test]
    fn a_longer_text_keeps_head_and_tail() {
        check(&format!("abcd{}wxyz", "-".repeat(92)), 34, "abcd…[92 bytes left out]…wxyz");
        check(&"é".repeat(50), 35, "éé…[92 bytes left out]…éé");
        check(&"😀".repeat(25), 36, "😀…[92 bytes left out]…😀");
    }

    #[test]
    fn a_bound_below_the_mark_keeps_nothing() {
        check("0123456789", 9, "");
        check("0123456789", 0, "");
    }

    #[test]
    fn replacement_characters_stay_within_the_bound() {
        for (length, bytes_max) in [(10, 10), (20, 40), (100, 40), (100, 100), (1000, 300)] {
            let mut excerpt = Excerpt::new(bytes_max);
            excerpt.push(&vec![0xFF; length]);
            let text = excerpt.clone().into_text().expect("some");
            assert!(text.len() <= bytes_max, "{length} {bytes_max} {text}");
        }
    }

    fn kept(max: usize, pieces: &[&str]) -> Option<String> {
        let mut kept = Excerpt::new(max);
        pieces.iter().for_each(|piece| kept.push(piece.as_bytes()));
        kept.into_text()
    }

    #[test]
    fn words_up_to_the_bound_are_kept_whole() {
        assert_eq!(kept(100, &[]), None);
        assert_eq!(kept(0, &["a"]), None);
        for size in [1, 26, 27, 73, 74, 99, 100] {
            let words: String = ('a'..='z').cycle().take(size).collect();
            assert_eq!(kept(100, &[&words]).as_deref(), Some(words.as_str()));
            let (first, second) = words.split_at(size / 3);
            assert_eq!(kept(100, &[first, second]).as_deref(), Some(words.as_str()));
        }
    }

    #[test]
    fn longer_words_keep_head_and_tail_and_never_exceed_the_bound() {
        let words: String = "aé€😀".chars().cycle().take(4_000).collect();
        for max in (60..200).step_by(3) {
            for size in [3, 100, 20_000] {
                let mut kept = Excerpt::new(max);
                words.as_bytes().chunks(size).for_each(|piece| kept.push(piece));
                let text = kept.into_text().unwrap();
                assert!(text.len() <= max, "{} bytes of {max}", text.len());
                let (head, rest) = text.split_once("…[").unwrap();
                let (left_out, tail) = rest.split_once(" bytes left out]…").unwrap();
                assert!(words.starts_with(head) && words.ends_with(tail), "{text}");
                assert_eq!(head.len() + tail.len() + left_out.parse::<usize>().unwrap(), words.len());
            }
        }
    }

    #[test]
    fn appending_what_was_cut_is_the_same_as_appending_all() {
        let words: String = ('a'..='z').cycle().take(1_000).collect();
        for first in [0, 10, 99, 100, 101, 500] {
            for second in [0, 10, 99, 100, 101, 500] {
                let (mut whole, mut joined, mut part) = (Excerpt::new(100), Excerpt::new(100), Excerpt::new(100));
                whole.push(&words.as_bytes()[..first]);
                whole.push(&words.as_bytes()[first..first + second]);
                joined.push(&words.as_bytes()[..first]);
                part.push(&words.as_bytes()[first..first + second]);
                joined.append(&part);
                assert_eq!(joined.into_text(), whole.into_text(), "{first} + {second}");
            }
        }
    }
}
