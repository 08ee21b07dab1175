//! What changed from one text to another, line by line.
//!
//! What is the same at both ends is passed over byte by byte, and what is between is given to Myers' algorithm, which gives
//! up on the shortest answer before it takes long. Its work is bounded, too: of more lines than it may compare, all are
//! told as replaced.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memrchr};
use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::{DiffOp, group_diff_ops};

/// Lines around a change that are shown with it, as `diff -u` has it.
const CONTEXT_LINES: usize = 3;
/// Lines that are shown of what was added or removed in one place: more are a file, or the answer of a tool.
pub(super) const RUN_LINES_MAX: usize = 200;

/// What changed from one text to another, line by line.
pub(super) struct LineDiff {
    /// Lines in front of those that are told here.
    pub(super) first: usize,
    /// Lines of the old and of the new text: where they stand, without the line breaks. Only those that are shown.
    pub(super) lines: [Vec<Range<usize>>; 2],
    /// Changes that belong together, with the lines around them.
    pub(super) hunks: Vec<Vec<DiffOp>>,
}

impl LineDiff {
    /// `None` is no text at all. `lines_left`: how many more lines may be compared one by one.
    pub(super) fn new(texts: [Option<&str>; 2], lines_left: &mut usize) -> LineDiff {
        let [old, new] = texts.map(Option::unwrap_or_default);
        let Differing { start, ends, before } = Differing::of(old, new);
        let first = count_breaks(&old[..start]);
        let lines = |side: usize| texts[side].map(|text| lines(text, start..ends[side])).into_iter().flatten();
        let counts = [0, 1].map(|side| texts[side].map_or(0, |text| count_lines(text, start..ends[side])));
        // What was not there before is compared with nothing.
        let left = lines_left.checked_sub(counts[0] + counts[1]).filter(|_| texts.iter().all(Option::is_some));
        let (lines, ops) = match left {
            Some(left) => {
                *lines_left = left;
                let lines = [0, 1].map(|side| lines(side).collect::<Vec<_>>());
                let words = [0, 1].map(|side: usize| -> Vec<&str> {
                    lines[side].iter().map(|line| &texts[side].unwrap_or_default()[line.clone()]).collect()
                });
                let ops = list_diff(&words[0], &words[1]);
                (lines, ops)
            }
            None => {
                let lines = [0, 1].map(|side| lines(side).take(before + RUN_LINES_MAX).collect());
                let same = DiffOp::Equal { old_index: 0, new_index: 0, len: before };
                let [old_len, new_len] = counts.map(|count| count - before);
                (lines, vec![same, DiffOp::Replace { old_index: before, old_len, new_index: before, new_len }])
            }
        };
        LineDiff { first, lines, hunks: group_diff_ops(ops, CONTEXT_LINES) }
    }
}

/// The lines in which two texts differ, and those around them. Most of long texts is the same, and passed over quickly.
struct Differing {
    /// Where they begin, in both.
    start: usize,
    /// Where they end: behind a line break, or with the text.
    ends: [usize; 2],
    /// Lines from the start on that are the same.
    before: usize,
}

impl Differing {
    fn of(old: &str, new: &str) -> Differing {
        let line_start = |at: usize| memrchr(b'\n', &old.as_bytes()[..at]).map_or(0, |found| found + 1);
        let changed = line_start(same_bytes(old, new));
        let (mut start, mut before) = (changed, 0);
        while start > 0 && before < CONTEXT_LINES {
            start = line_start(start - 1);
            before += 1;
        }
        let rests = [&old[changed..], &new[changed..]].map(str::as_bytes);
        let same = rests[0].iter().rev().zip(rests[1].iter().rev()).take_while(|(one, other)| one == other).count();
        let is_line = |rest: &[u8]| rest.len() == same || rest[rest.len() - same - 1] == b'\n';
        // The part at the end that is the same begins with a line of both.
        let end = &rests[0][rests[0].len() - same..];
        let whole_lines = if rests.iter().all(|rest| is_line(rest)) { 0 } else { behind_break(end, 0) };
        let around = (0..CONTEXT_LINES).fold(whole_lines, |at, _| behind_break(end, at));
        Differing { start, ends: [old.len(), new.len()].map(|length| length - same + around), before }
    }
}

/// What changed from one list to another. Compared are numbers that stand for what is in them, so that the algorithm is
/// in the program once.
pub(super) fn list_diff<T: Eq + Hash>(old: &[T], new: &[T]) -> Vec<DiffOp> {
    let mut known = HashMap::new();
    let [old, new] = [old, new].map(|list| -> Vec<usize> {
        let number = |it| {
            let next = known.len();
            *known.entry(it).or_insert(next)
        };
        list.iter().map(number).collect()
    });
    let mut hook = Compact::new(Replace::new(Capture::new()), &*old, &*new);
    let Ok(()) = myers::diff(&mut hook, &*old, 0..old.len(), &*new, 0..new.len());
    hook.into_inner().into_inner().into_ops()
}

/// How many bytes two texts begin with alike.
pub(super) fn same_bytes(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

/// Behind the next line break, or the end.
fn behind_break(text: &[u8], at: usize) -> usize {
    memchr(b'\n', &text[at..]).map_or(text.len(), |found| at + found + 1)
}

fn count_breaks(text: &str) -> usize {
    memchr_iter(b'\n', text.as_bytes()).count()
}

/// The lines in a part of a text, which begins with a line and ends behind a line break or with the text.
fn lines(text: &str, part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut next = (part.start < part.end || part.end == text.len()).then_some(part.start);
    std::iter::from_fn(move || {
        let start = next?;
        let end = memchr(b'\n', &text.as_bytes()[start..part.end]).map(|found| start + found);
        next = end.map(|end| end + 1).filter(|start| *start < part.end || part.end == text.len());
        Some(start..end.unwrap_or(part.end))
    })
}

fn count_lines(text: &str, part: Range<usize>) -> usize {
    count_breaks(&text[part.clone()]) + usize::from(part.end == text.len())
}
