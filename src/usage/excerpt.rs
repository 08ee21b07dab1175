//! A text of any length kept within a bound: its head, its tail, and between them how much was left out.
//!
//! Holds no more than about one and a half times the bound, whatever passes through.

use super::members::floor_boundary;
use super::text::{lossy, without_partial_character, without_partial_start};

/// The excerpt of what was pushed so far.
pub struct Excerpt {
    bytes_max: usize,
    /// Invariant: full (half of `bytes_max`) before anything goes into the tail.
    head: Vec<u8>,
    /// Invariant: at least the last `bytes_max - head_max` bytes, and at most twice as many.
    tail: Vec<u8>,
    total: usize,
}

impl Excerpt {
    /// An empty text that will take at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Excerpt {
        Excerpt { bytes_max, head: Vec::new(), tail: Vec::new(), total: 0 }
    }

    /// Adds to the text. A character may come in parts.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len());
        let head_max = self.bytes_max / 2;
        let tail_max = self.bytes_max - head_max;
        let (head, bytes) = bytes.split_at(bytes.len().min(head_max - self.head.len()));
        self.head.extend_from_slice(head);
        if bytes.len() >= tail_max {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - tail_max..]);
            return;
        }
        self.tail.extend_from_slice(bytes);
        // Dropping a whole tail's length at a time keeps the copying proportional to what was pushed.
        if self.tail.len() > 2 * tail_max {
            self.tail.drain(..self.tail.len() - tail_max);
        }
    }

    /// The text: whole where it fits, else `HEAD…[N bytes left out]…TAIL`, cut between characters. Bytes that are not
    /// UTF-8 become U+FFFD.
    pub fn into_text(mut self) -> String {
        if self.total <= self.bytes_max {
            self.head.append(&mut self.tail);
            let text = String::from_utf8(self.head).unwrap_or_else(|it| lossy(it.as_bytes()).into_owned());
            // Replacement characters are longer than what they stand for.
            return if text.len() <= self.bytes_max { text } else { cut(&text, &text, text.len(), self.bytes_max) };
        }
        let tail_from = self.tail.len().saturating_sub(self.bytes_max - self.bytes_max / 2);
        let (head, tail) = (without_partial_character(&self.head), without_partial_start(&self.tail[tail_from..]));
        cut(&lossy(head), &lossy(tail), self.total, self.bytes_max)
    }
}

/// What fits of `head` and `tail` with the mark between: both are cut by half a mark at least.
fn cut(head: &str, tail: &str, total: usize, bytes_max: usize) -> String {
    let mark = |left_out: usize| format!("…[{left_out} bytes left out]…");
    let Some(room) = bytes_max.checked_sub(mark(total).len()) else { return String::new() };
    let head = &head[..floor_boundary(head, room / 2)];
    let mut tail_from = tail.len().saturating_sub(room - room / 2);
    while !tail.is_char_boundary(tail_from) {
        tail_from += 1;
    }
    let tail = &tail[tail_from..];
    [head, &mark(total.saturating_sub(head.len() + tail.len())), tail].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `text` whole and in parts of every small length; all must give `expected`.
    fn check(text: &str, bytes_max: usize, expected: &str) {
        for part in [text.len().max(1), 1, 2, 3, 7, 64] {
            let mut excerpt = Excerpt::new(bytes_max);
            text.as_bytes().chunks(part).for_each(|part| excerpt.push(part));
            assert!(excerpt.tail.capacity() <= 4 * bytes_max.max(64), "memory stays bounded");
            assert_eq!(excerpt.into_text(), expected, "parts of {part}");
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
            let text = excerpt.into_text();
            assert!(text.len() <= bytes_max, "{length} {bytes_max} {text}");
        }
    }
}
