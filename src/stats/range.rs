//! Cutting a range of time into packs, and the rows at its edges. Pure. Rows that are not packed yet come on top.
//!
//! A range is what lies before its end without what lies before its beginning, and either may be told from the next
//! larger span: 22 hours of a day are the day without two hours. So a year, or a day in another zone, is a handful of
//! packs. Distributions know no subtraction of their largest value, and ranges of ids none at all: for those a range is
//! cut without.

use crate::calendar::{HOUR_MS, day_of_hour, month_after, month_of_hour};
use crate::packs::{SPAN_ALL, SPAN_DAY, SPAN_HOUR, SPAN_MONTH, pack_id};
use crate::record::packing::State;

/// Whether packs may be taken away again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// They may.
    Signed,
    /// They are only added up.
    Additive,
}

/// What a range consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Ids of packs, to be added (1) or taken away (-1).
    pub packs: Vec<(i64, i64)>,
    /// Parts of an hour, in milliseconds: from, up to but without.
    pub rows: Vec<(i64, i64)>,
}

/// What is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packed {
    /// Which rows are.
    pub state: State,
    /// The first hour that has any.
    pub first: i64,
    /// The first hour behind the last that has.
    pub end: i64,
}

impl Packed {
    /// The ids of rows that are not packed.
    pub fn ids_behind(self) -> (i64, i64) {
        (self.state.until.saturating_add(1), i64::MAX)
    }
}

/// Cuts a range. Without an end it reaches as far as anything does.
pub(super) fn cut(from_ms: Option<i64>, to_ms: Option<i64>, packed: Packed, how: Cut) -> Pieces {
    let mut pieces = Pieces::default();
    if let (Some(from), Some(to)) = (from_ms, to_ms) {
        let is_whole = from % HOUR_MS == 0 && to % HOUR_MS == 0;
        if from < to && !is_whole && from.div_euclid(HOUR_MS) == (to - 1).div_euclid(HOUR_MS) {
            pieces.rows.push((from, to));
            return pieces;
        } else if from >= to {
            return pieces;
        }
    }
    let from = from_ms.map(|from| (from + HOUR_MS - 1).div_euclid(HOUR_MS));
    let to = to_ms.map(|to| to.div_euclid(HOUR_MS));
    if let (Some(ms), Some(hour)) = (from_ms, from)
        && ms < hour * HOUR_MS
    {
        pieces.rows.push((ms, hour * HOUR_MS));
    }
    if let (Some(ms), Some(hour)) = (to_ms, to)
        && ms > hour * HOUR_MS
    {
        pieces.rows.push((hour * HOUR_MS, ms));
    }
    let mut packs = PackList { list: Vec::new(), how };
    let until = |hour: i64| hour.min(packed.end);
    match (from, to) {
        (None, None) => packs.list.push((pack_id(SPAN_ALL, 0), 1)),
        // Rows that clean-up has removed count in the pack of all time alone: they are before any `to`.
        (None, Some(to)) if how == Cut::Signed => {
            packs.list.push((pack_id(SPAN_ALL, 0), 1));
            packs.hours(until(to), packed.end, -1);
        }
        (from, to) => {
            let from = from.unwrap_or(packed.first).max(packed.first);
            packs.hours(from, until(to.unwrap_or(packed.end)), 1);
        }
    }
    pieces.packs = packs.list;
    pieces
}

struct PackList {
    list: Vec<(i64, i64)>,
    how: Cut,
}

impl PackList {
    /// The hours from `from` to `to`, from the packs of hours, days and months.
    fn hours(&mut self, from: i64, to: i64, sign: i64) {
        let (first, last) = (
            self.near(from, day_of_hour(from), day_of_hour(from + 23), true),
            self.near(to, day_of_hour(to), day_of_hour(to + 23), false),
        );
        if first >= last || to - from <= 12 {
            return self.plain(SPAN_HOUR, from, to, 1, sign);
        }
        self.bridge(SPAN_HOUR, 1, from, first, sign);
        self.days(first, last, sign);
        self.bridge(SPAN_HOUR, 1, last, to, sign);
    }

    fn days(&mut self, from: i64, to: i64, sign: i64) {
        let month = month_of_hour;
        let after = |day: i64| if month(day) == day { day } else { month_after(month(day)) };
        let (first, last) =
            (self.near(from, month(from), after(from), true), self.near(to, month(to), after(to), false));
        if first >= last || to - from <= 15 * 24 {
            return self.plain(SPAN_DAY, from, to, 24, sign);
        }
        self.bridge(SPAN_DAY, 24, from, first, sign);
        let mut start = first;
        while start < last {
            self.list.push((pack_id(SPAN_MONTH, start), sign));
            start = month_after(start);
        }
        self.bridge(SPAN_DAY, 24, last, to, sign);
    }

    /// The boundary of a larger span to use for `at`: the nearer one, or the one inside the range.
    fn near(&self, at: i64, before: i64, after: i64, is_start: bool) -> i64 {
        let is_before = match self.how {
            Cut::Signed => at - before <= after - at,
            Cut::Additive => !is_start,
        };
        if is_before { before } else { after }
    }

    /// The way from one boundary to another: forward it is added, backward taken away.
    fn bridge(&mut self, span: i64, step: usize, from: i64, to: i64, sign: i64) {
        self.plain(span, from, to, step, sign);
        self.plain(span, to, from, step, -sign);
    }

    fn plain(&mut self, span: i64, from: i64, to: i64, step: usize, sign: i64) {
        self.list.extend((from..to).step_by(step).map(|start| (pack_id(span, start), sign)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// The first hour behind a pack; of all time there is none.
    fn pack_end(id: i64) -> Option<i64> {
        let (span, start) = (id >> 32, id & 0xFFFF_FFFF);
        match span {
            SPAN_HOUR => Some(start + 1),
            SPAN_DAY => Some(start + 24),
            SPAN_MONTH => Some(month_after(start)),
            _ => None,
        }
    }

    /// How often each packed hour counts in the pieces.
    fn counts(pieces: &Pieces, packed: Packed) -> Vec<i64> {
        let mut counts = vec![0; (packed.end - packed.first) as usize];
        for (id, sign) in &pieces.packs {
            let (start, end) = (id & 0xFFFF_FFFF, pack_end(*id).unwrap_or(packed.end));
            for hour in start.max(packed.first)..end.min(packed.end) {
                counts[(hour - packed.first) as usize] += sign;
            }
        }
        counts
    }

    #[test]
    fn every_hour_of_a_range_counts_once_and_no_other() {
        let mut random = Random::new(3);
        for _ in 0..2000 {
            let first = 490_000 + random.below(1000) as i64;
            let packed = Packed { first, end: first + 1 + random.below(9000) as i64, ..Packed::default() };
            let mut moment = || {
                let ms = (first - 100) * HOUR_MS + random.below(9200 * HOUR_MS as u64) as i64;
                match random.below(5) {
                    0 => None,
                    1 => Some(ms),
                    _ => Some(ms - ms % HOUR_MS),
                }
            };
            let (from, to) = (moment(), moment());
            for how in [Cut::Signed, Cut::Additive] {
                let pieces = cut(from, to, packed, how);
                for (hour, count) in (first..).zip(counts(&pieces, packed)) {
                    let within = from.is_none_or(|from| hour * HOUR_MS >= from)
                        && to.is_none_or(|to| (hour + 1) * HOUR_MS <= to);
                    assert_eq!(count, i64::from(within), "hour {hour} of {from:?} to {to:?}, {packed:?}, {pieces:?}");
                }
                assert!(pieces.packs.len() < 110, "{}", pieces.packs.len());
            }
        }
    }

    #[test]
    fn edges_are_rows() {
        let packed = Packed { end: 10, ..Packed::default() };
        let half = HOUR_MS / 2;
        let pieces = cut(Some(3 * HOUR_MS + half), Some(12 * HOUR_MS + half), packed, Cut::Signed);
        assert_eq!(pieces.rows, [(3 * HOUR_MS + half, 4 * HOUR_MS), (12 * HOUR_MS, 12 * HOUR_MS + half)]);
        assert_eq!(pieces.packs, (4..10).map(|hour| (pack_id(SPAN_HOUR, hour), 1)).collect::<Vec<_>>());
        let pieces = cut(Some(3 * HOUR_MS + 1), Some(3 * HOUR_MS + 2), packed, Cut::Signed);
        assert_eq!((pieces.rows, pieces.packs), (vec![(3 * HOUR_MS + 1, 3 * HOUR_MS + 2)], vec![]));
        assert_eq!(cut(Some(5), Some(5), packed, Cut::Signed), Pieces::default());
    }
}
