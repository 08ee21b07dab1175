//! Who had the time: a span of time shared among the exchanges that were under way in it, and packs of what that comes to.
//!
//! Each moment, a millisecond, is shared equally among the exchanges that are under way in it, and each does with its part
//! what it is at. So all parts together are the time in which anything was under way, however many exchanges there were at
//! once. Where they are too many to be kept in mind, a moment is a cell of ten milliseconds: what of it is busy is shared
//! in proportion to how long each is under way in it.

use std::collections::BTreeMap;

use super::varint::{Bytes, push, push_signed};
use super::{DamagedPack, visit_entries};
use crate::order::sort_by;

/// What an exchange is at, in this order. Of [`TimePhase::Undivided`] is not known where reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePhase {
    /// It waits for its place among those in flight.
    Waiting,
    /// Its model is loaded.
    Loading,
    /// Its prompt is read.
    Reading,
    /// Its answer is made.
    Generating,
    /// Reading and generating, of which nobody told where the one ended.
    Undivided,
}

/// How many there are.
pub const PHASES: usize = 5;

/// An exchange on the clock, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimedRun {
    /// When it began.
    pub start_ms: i64,
    /// When each phase ended; the next began then.
    pub ends_ms: [i64; PHASES],
}

impl TimedRun {
    /// When it ended.
    pub fn end_ms(&self) -> i64 {
        self.ends_ms[PHASES - 1]
    }

    /// Each phase, from when to when.
    pub fn phases(&self) -> [(i64, i64); PHASES] {
        let mut from = self.start_ms;
        self.ends_ms.map(|end| (std::mem::replace(&mut from, end), end))
    }
}

/// Milliseconds of a cell.
const CELL_MS: i64 = 10;

/// How many exchanges are under way, moment by moment, of a span of time. See [`Shares`].
#[derive(Debug)]
pub struct Presence {
    within: (i64, i64),
    kept: KeptRuns,
    exactly_max: usize,
}

#[derive(Debug)]
enum KeptRuns {
    /// Their beginnings and ends.
    Each(Vec<(i64, i64)>),
    Cells(Cells),
}

/// The span in cells, in each of which this is known.
#[derive(Debug)]
struct Cells {
    /// Milliseconds of exchanges that are there for a part of it.
    parts_ms: Vec<u32>,
    /// The milliseconds in which such are there, a bit each.
    busy: Vec<u16>,
    /// Exchanges that are there for all of it: how many more than in the cell before.
    whole: Vec<i32>,
}

impl Presence {
    /// Of nobody in this span yet: from, up to but without. Up to so many are kept in mind each.
    pub fn new(within: (i64, i64), exactly_max: usize) -> Presence {
        Presence { within, kept: KeptRuns::Each(Vec::new()), exactly_max }
    }

    /// One was under way from one moment until another.
    pub fn note(&mut self, from_ms: i64, to_ms: i64) {
        let (from, to) = (from_ms.max(self.within.0), to_ms.min(self.within.1));
        if from >= to {
            return;
        }
        if let KeptRuns::Each(each) = &mut self.kept {
            each.push((from, to));
            if each.len() <= self.exactly_max {
                return;
            }
            let mut cells = Cells::new(self.within);
            each.iter().for_each(|(from, to)| cells.note(from - self.within.0, to - self.within.0));
            self.kept = KeptRuns::Cells(cells);
            return;
        }
        if let KeptRuns::Cells(cells) = &mut self.kept {
            cells.note(from - self.within.0, to - self.within.0);
        }
    }

    /// Whether each is kept in mind.
    pub fn is_exact(&self) -> bool {
        matches!(self.kept, KeptRuns::Each(_))
    }

    /// What everybody's part is, now that all are known.
    pub fn shares(self) -> Shares {
        match self.kept {
            KeptRuns::Each(each) => Shares::exact(each),
            KeptRuns::Cells(cells) => cells.shares(self.within.0),
        }
    }
}

impl Cells {
    fn new((from, to): (i64, i64)) -> Cells {
        let count = usize::try_from((to - from + CELL_MS - 1) / CELL_MS).unwrap_or(0);
        Cells { parts_ms: vec![0; count], busy: vec![0; count], whole: vec![0; count + 1] }
    }

    /// From and to from the beginning of the span.
    fn note(&mut self, from: i64, to: i64) {
        let (first, last) = (from / CELL_MS, (to - 1) / CELL_MS);
        let mut part = |cell: i64| {
            let start = cell * CELL_MS;
            let (from, to) = (from.max(start) - start, to.min(start + CELL_MS) - start);
            self.parts_ms[cell as usize] += (to - from) as u32;
            self.busy[cell as usize] |= ((1_u32 << to) - (1_u32 << from)) as u16;
        };
        part(first);
        if last > first {
            part(last);
            self.whole[first as usize + 1] += 1;
            self.whole[last as usize] -= 1;
        }
    }

    fn shares(self, from_ms: i64) -> Shares {
        let mut shares = Shares::default();
        let mut whole = 0_i64;
        for (cell, (parts, busy)) in self.parts_ms.into_iter().zip(self.busy).enumerate() {
            whole += i64::from(self.whole[cell]);
            let present = whole * CELL_MS + i64::from(parts);
            let busy = if whole > 0 { CELL_MS } else { i64::from(busy.count_ones()) };
            let rate = if present > 0 { busy as f64 / present as f64 } else { 0.0 };
            shares.push(from_ms + cell as i64 * CELL_MS, CELL_MS, rate);
            shares.busy_ms += busy;
        }
        shares
    }
}

/// What part of its time an exchange has for itself, moment by moment.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    /// From when on, and what a millisecond there is worth; the next begins where it ends.
    steps: Vec<ShareStep>,
    end_ms: i64,
    end_sum: f64,
    busy_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct ShareStep {
    start_ms: i64,
    rate: f64,
    /// Of all steps before.
    sum: f64,
}

impl Shares {
    fn exact(each: Vec<(i64, i64)>) -> Shares {
        let mut turns: Vec<(i64, i32)> = each.into_iter().flat_map(|(from, to)| [(from, 1), (to, -1)]).collect();
        turns.sort_unstable();
        let (mut shares, mut present) = (Shares::default(), 0);
        for (at, turn) in turns.iter().enumerate() {
            present += turn.1;
            let length = turns.get(at + 1).map_or(0, |next| next.0 - turn.0);
            if length > 0 {
                let rate = if present > 0 { 1.0 / f64::from(present) } else { 0.0 };
                shares.push(turn.0, length, rate);
                shares.busy_ms += if present > 0 { length } else { 0 };
            }
        }
        shares
    }

    fn push(&mut self, start_ms: i64, length_ms: i64, rate: f64) {
        self.steps.push(ShareStep { start_ms, rate, sum: self.end_sum });
        self.end_ms = start_ms + length_ms;
        self.end_sum += length_ms as f64 * rate;
    }

    /// How many milliseconds of the span anybody was under way.
    pub fn busy_ms(&self) -> i64 {
        self.busy_ms
    }

    /// What an exchange has for itself of the time from one moment to another, all of which it is under way.
    pub fn of(&self, from_ms: i64, to_ms: i64) -> f64 {
        if from_ms >= to_ms { 0.0 } else { self.until(to_ms) - self.until(from_ms) }
    }

    fn until(&self, ms: i64) -> f64 {
        if ms >= self.end_ms {
            return self.end_sum;
        }
        match self.steps.partition_point(|step| step.start_ms <= ms).checked_sub(1).map(|at| self.steps[at]) {
            Some(step) => step.sum + (ms - step.start_ms) as f64 * step.rate,
            None => 0.0,
        }
    }
}

/// Rounds parts in milliseconds to microseconds, so that together they are exactly as much as they are parts of: those
/// nearest to the next microsecond get what is left over.
pub fn in_microseconds(parts_ms: &[f64], whole_ms: i64) -> Vec<i64> {
    let mut rounded: Vec<i64> = parts_ms.iter().map(|part| (part * 1000.0).floor() as i64).collect();
    let mut order: Vec<usize> = (0..parts_ms.len()).filter(|at| parts_ms[*at] > 0.0).collect();
    let rest = |at: usize| parts_ms[at] * 1000.0 - (parts_ms[at] * 1000.0).floor();
    sort_by(&mut order, |a, b| rest(*b).total_cmp(&rest(*a)));
    let missing = whole_ms * 1000 - rounded.iter().sum::<i64>();
    let count = order.len().max(1) as i64;
    let (each, more) = (missing.div_euclid(count), missing.rem_euclid(count));
    for (place, at) in order.into_iter().enumerate() {
        rounded[at] += each + i64::from((place as i64) < more);
    }
    rounded
}

/// A figure of a pack of times, in the order in which packs tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeFigure {
    /// Microseconds of the time that it had, by [`TimePhase`]; the five figures from here on.
    Shared,
    /// Requests that began.
    Requests = PHASES as isize,
    /// What each of them waited for its place, in milliseconds, added up.
    QueueMs,
    /// How many of them had their model loaded,
    Loads,
    /// and how long that took, in milliseconds.
    LoadMs,
    /// Tokens of prompts that were read, of those of which it is known how long that took,
    ReadTokens,
    /// and how long, in microseconds.
    ReadUs,
    /// Tokens that a draft model proposed where it is known how many were taken,
    Drafted,
    /// and how many were.
    Accepted,
    /// Requests of which it is known how large their context is,
    Contexts,
    /// and how full it was, in thousandths, added up.
    ContextUsed,
    /// Prompts that seem to be cut.
    PromptsCut,
}

/// How many there are.
pub const TIME_FIGURES: usize = TimeFigure::PromptsCut as usize + 1;

/// What the exchanges of one series come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeSums(pub [i64; TIME_FIGURES]);

impl TimeSums {
    /// One of them.
    pub fn get(&self, figure: TimeFigure) -> i64 {
        self.0[figure as usize]
    }

    /// Microseconds of the time that it had for this.
    pub fn shared_us(&self, phase: TimePhase) -> i64 {
        self.0[TimeFigure::Shared as usize + phase as usize]
    }

    /// Microseconds of the time that it had.
    pub fn busy_us(&self) -> i64 {
        self.0[..PHASES].iter().sum()
    }

    /// Adds others, or takes them away with a sign of -1.
    pub fn add(&mut self, other: &TimeSums, sign: i64) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, other)| *sum += sign * other);
    }
}

/// Sums by series. No series has the id 0: under it stands time, as [`UNCOUNTED`], whose rows were removed before it was
/// counted.
pub type TimePack = BTreeMap<i64, TimeSums>;

/// In the place of a series.
pub const UNCOUNTED: i64 = 0;

/// Reads every entry of a pack. One that was written when there were fewer figures has none of the others.
pub fn visit_times(bytes: &[u8], mut visit: impl FnMut(i64, &TimeSums)) -> Result<(), DamagedPack> {
    visit_entries(bytes, |series, bytes| {
        visit(series, &decode(bytes).ok_or(DamagedPack)?);
        Ok(())
    })
}

fn decode(bytes: &mut Bytes) -> Option<TimeSums> {
    let mut sums = TimeSums::default();
    for at in 0..bytes.number()? {
        let number = bytes.signed()?;
        if let Some(sum) = usize::try_from(at).ok().and_then(|at| sums.0.get_mut(at)) {
            *sum = number;
        }
    }
    Some(sums)
}

/// A pack as it is stored: of each series how many figures it has, those at the end left out that are 0, and these. A series
/// of which nothing is left is not in it.
pub fn encode_times(pack: &TimePack) -> Vec<u8> {
    let (mut out, mut before) = (Vec::with_capacity(pack.len() * 32), 0);
    for (series, TimeSums(figures)) in pack {
        let Some(last) = figures.iter().rposition(|figure| *figure != 0) else { continue };
        push(&mut out, (series - before) as u64);
        before = *series;
        push(&mut out, last as u64 + 1);
        figures[..=last].iter().for_each(|figure| push_signed(&mut out, *figure));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Shares as they are meant, millisecond by millisecond.
    fn slow(within: (i64, i64), runs: &[TimedRun]) -> Vec<[f64; PHASES]> {
        let mut parts = vec![[0.0; PHASES]; runs.len()];
        for ms in within.0..within.1 {
            let there = |run: &TimedRun| run.start_ms <= ms && ms < run.end_ms();
            let present = runs.iter().filter(|run| there(run)).count() as f64;
            for (run, parts) in runs.iter().zip(&mut parts).filter(|(run, _)| there(run)) {
                let phase = run.ends_ms.iter().position(|end| ms < *end).expect("it is at something");
                parts[phase] += 1.0 / present;
            }
        }
        parts
    }

    fn quick((from, to): (i64, i64), runs: &[TimedRun], exactly_max: usize) -> (Vec<[f64; PHASES]>, i64, bool) {
        let mut presence = Presence::new((from, to), exactly_max);
        runs.iter().for_each(|run| presence.note(run.start_ms, run.end_ms()));
        let is_exact = presence.is_exact();
        let shares = presence.shares();
        let part = |(start, end): (i64, i64)| shares.of(start.max(from), end.min(to));
        (runs.iter().map(|run| run.phases().map(part)).collect(), shares.busy_ms(), is_exact)
    }

    fn random_runs(random: &mut Random, count: usize) -> Vec<TimedRun> {
        let run = |_| {
            let start_ms = random.below(4000) as i64 - 500;
            let mut end = start_ms;
            let ends_ms = [0; PHASES].map(|_| {
                end += if random.below(2) == 0 { 0 } else { random.below(400) as i64 };
                end
            });
            TimedRun { start_ms, ends_ms }
        };
        (0..count).map(run).collect()
    }

    #[test]
    fn each_moment_is_shared_equally_by_those_who_are_there() {
        let mut random = Random::new(17);
        for round in 0..60 {
            let runs = random_runs(&mut random, round % 20);
            let within = (random.below(500) as i64, 500 + random.below(3000) as i64);
            let expected = slow(within, &runs);
            let (told, busy_ms, is_exact) = quick(within, &runs, 1000);
            assert!(is_exact);
            for (told, expected) in told.iter().flatten().zip(expected.iter().flatten()) {
                assert!((told - expected).abs() < 1e-6, "{told} {expected}");
            }
            let all: f64 = told.iter().flatten().sum();
            assert!((all - busy_ms as f64).abs() < 1e-6);
        }
    }

    #[test]
    fn of_too_many_to_be_kept_the_busy_time_is_exact_and_parts_are_so_to_a_cell() {
        let mut random = Random::new(18);
        for _ in 0..20 {
            let runs = random_runs(&mut random, 60);
            let within = (3, 3007);
            let expected = slow(within, &runs);
            let (told, busy_ms, is_exact) = quick(within, &runs, 10);
            assert!(!is_exact);
            assert_eq!(busy_ms, quick(within, &runs, 1000).1);
            let all: f64 = told.iter().flatten().sum();
            assert!((all - busy_ms as f64).abs() < 1e-6);
            for (told, expected) in told.iter().flatten().zip(expected.iter().flatten()) {
                // It has two ends.
                assert!((told - expected).abs() <= 2.0 * CELL_MS as f64, "{told} {expected}");
            }
        }
    }

    #[test]
    fn rounded_parts_are_as_much_as_what_they_are_parts_of() {
        assert_eq!(in_microseconds(&[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0], 1), [334, 333, 333, 0]);
        assert_eq!(in_microseconds(&[0.0004, 0.9996], 1), [0, 1000]);
        assert_eq!(in_microseconds(&[], 0), [0; 0]);
    }

    #[test]
    fn a_pack_is_read_as_it_was_written_and_so_is_one_of_fewer_or_more_figures() {
        let mut of = TimeSums::default();
        of.0[2] = 7;
        of.0[5] = -1;
        let mut all = TimeSums([3; TIME_FIGURES]);
        all.0[0] = 1 << 50;
        let told: TimePack = [(UNCOUNTED, of), (1, of), (9, all)].into();
        let mut pack = told.clone();
        pack.insert(5, TimeSums::default());
        let read = |bytes: &[u8]| {
            let mut read = TimePack::new();
            let told = visit_times(bytes, |series, sums| {
                read.insert(series, *sums);
            });
            told.map(|()| read)
        };
        assert_eq!(read(&encode_times(&pack)), Ok(told), "nothing is told of what came to nothing");
        let more: Vec<u8> = [vec![1, TIME_FIGURES as u8 + 1], vec![2; TIME_FIGURES + 1]].concat();
        assert_eq!(read(&more), Ok([(1, TimeSums([1; TIME_FIGURES]))].into()));
        assert_eq!(read(&more[..5]), Err(DamagedPack));
    }
}
