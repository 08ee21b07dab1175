//! What packs come to, group by group, and what is kept of that for the next question of the same kind.
//!
//! A page that shows a year of hours asks for it again and again, and adjacent days in another zone share the hours at
//! their edges. So each pack is decoded once, to the few figures that answers tell, and these are kept, in bounded
//! memory, until a pack changes: those of the hours of the rows that were packed since.

use std::collections::{HashMap, HashSet};
use std::mem::{self, size_of};

use super::answers::By;
use super::filter::Filter;
use super::kept::{Keep, KeptAnswers};
use super::price::{Price, Prices};
use crate::calendar::HOUR_MS;
use crate::limits::{TALLIES_KEPT_BYTES_MAX, TALLIES_KEPT_MAX};
use crate::packs::sums::{FIGURES, Figure, Sums};
use crate::packs::{SPAN_HOUR, pack_id, packs_of_hour};
use crate::record::packing::State;
use crate::record::row::Outcome;
use crate::record::series::Series;
use crate::routes::{Names, generates};

/// Little room in tests, so that pieces are met that are kept as well as others.
const BYTES_MAX: usize = if cfg!(test) { 32 * 1024 } else { TALLIES_KEPT_BYTES_MAX };

/// Memory that the place of a piece takes: maps are half full on average.
const PLACE_BYTES: usize = 2 * size_of::<(Piece, (u32, u32))>();

/// Rows that were packed since, beyond which all is forgotten sooner than their hours are looked up.
const ROWS_FOLLOWED_MAX: i64 = 100_000;

/// The totals of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Totals {
    pub requests: i64,
    pub completed: i64,
    pub cancelled: i64,
    /// Requests that told a total, or generate nothing of which one could be told.
    pub with_usage: i64,
    pub duration_ms: i64,
    /// By [`Figure`].
    pub sums: [i64; FIGURES],
    /// Requests that know when their first token came.
    pub first_tokens_known: i64,
    /// Of those that know their speed, added up.
    pub tokens_per_second: f64,
    /// How many these are.
    pub tokens_per_second_known: i64,
    pub cost: f64,
    /// Counts of tokens that have a price: of the prompt and of the answer.
    pub priced: i64,
}

impl Totals {
    /// Adds others, or takes them away with a sign of -1.
    pub fn add(&mut self, other: &Totals, sign: i64) {
        self.requests += sign * other.requests;
        self.completed += sign * other.completed;
        self.cancelled += sign * other.cancelled;
        self.with_usage += sign * other.with_usage;
        self.duration_ms += sign * other.duration_ms;
        for (sum, other) in self.sums.iter_mut().zip(other.sums) {
            *sum += sign * other;
        }
        self.first_tokens_known += sign * other.first_tokens_known;
        self.tokens_per_second += sign as f64 * other.tokens_per_second;
        self.tokens_per_second_known += sign * other.tokens_per_second_known;
        self.cost += sign as f64 * other.cost;
        self.priced += sign * other.priced;
    }

    /// Adds the sums of one series.
    pub fn add_sums(&mut self, sums: &Sums, slot: &SeriesSlot) {
        self.requests += sums.requests;
        self.with_usage += if slot.generates { sums[Figure::Total].rows } else { sums.requests };
        self.duration_ms += sums.duration_ms;
        for (sum, known) in self.sums.iter_mut().zip(sums.known) {
            *sum += known.sum;
        }
        self.first_tokens_known += sums[Figure::FirstTokenMs].rows;
        self.tokens_per_second += sums.tokens_per_second;
        self.tokens_per_second_known += sums.tokens_per_second_known;
        self.completed += i64::from(slot.is_completed) * sums.requests;
        self.cancelled += i64::from(slot.is_cancelled) * sums.requests;
        if let Some(price) = &slot.price {
            self.cost += price.of_sums(sums);
            self.priced += sums[Figure::Input].rows + sums[Figure::Output].rows;
        }
    }
}

/// Where a series counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeriesSlot {
    pub group: u32,
    is_completed: bool,
    is_cancelled: bool,
    /// Whether such requests generate, so that their usage is missed.
    generates: bool,
    price: Option<Price>,
}

/// A part of a range whose figures change only when packs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Piece {
    /// The pack of this id.
    Pack(i64),
    /// The packed rows of an hour from one moment to another.
    Rows(i64, i64),
}

/// What questions have left for later ones, the last one first.
#[derive(Debug, Default)]
pub(super) struct KeptTallies {
    tallies: KeptAnswers<Tally>,
    /// What was packed when they were asked.
    state: State,
}

impl KeptTallies {
    /// Hands out what is kept for questions of this kind, whatever their time, and is still true. `hours` tells to which
    /// hours rows were added that were packed since, by their ids: behind one, up to another.
    pub fn take<E>(
        &mut self,
        filter: &Filter,
        by: Option<By>,
        priced_as: Option<Price>,
        state: State,
        hours: impl FnOnce(i64, i64) -> Result<Vec<i64>, E>,
    ) -> Result<Tally, E> {
        let before = mem::replace(&mut self.state, state);
        let follows = before.until <= state.until && state.until - before.until <= ROWS_FOLLOWED_MAX;
        if before.changes != state.changes || !follows {
            self.tallies.retain(|_| false);
        } else if before.until < state.until && !self.tallies.is_empty() {
            // Should the hours not be told, nothing is kept.
            let mut kept = mem::take(&mut self.tallies);
            let changed: HashSet<i64> = hours(before.until, state.until)?.into_iter().flat_map(packs_of_hour).collect();
            kept.retain(|tally| {
                tally.forget(&changed);
                true
            });
            self.tallies = kept;
        }
        let filter = Filter { from_ms: None, to_ms: None, ..filter.clone() };
        let known = self.tallies.take(|tally| tally.by == by && tally.priced_as == priced_as && tally.filter == filter);
        Ok(known.unwrap_or_else(|| Tally::new(filter, by, priced_as)))
    }

    /// Takes it back.
    pub fn put(&mut self, tally: Tally) {
        self.tallies.put(tally);
    }

    /// Whether there is anything to let go of.
    pub fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }
}

impl Keep for Tally {
    const COUNT_MAX: usize = TALLIES_KEPT_MAX;
    const BYTES_MAX: usize = BYTES_MAX;

    fn bytes(&self) -> usize {
        let names: usize = self.groups.iter().map(|name| 2 * (name.len() + size_of::<String>())).sum();
        names
            + self.slots.len() * size_of::<Option<SeriesSlot>>()
            + self.places.len() * PLACE_BYTES
            + self.figures.len() * size_of::<(u32, Totals)>()
    }
}

/// The groups of one kind of question, and the figures of the pieces that were asked for.
#[derive(Debug)]
pub(super) struct Tally {
    filter: Filter,
    by: Option<By>,
    /// Costs are in the figures.
    priced_as: Option<Price>,
    /// The names of the groups. Invariant: none ever changes its place, so that kept figures stay right.
    pub groups: Vec<String>,
    known: HashMap<String, u32>,
    /// By the id of the series; `None`: it does not count.
    slots: Vec<Option<SeriesSlot>>,
    /// Where the figures of a piece are: from, up to but without.
    places: HashMap<Piece, (u32, u32)>,
    /// Of each piece those of its groups. Behind `kept` are those of a piece that is not kept.
    figures: Vec<(u32, Totals)>,
    kept: usize,
    /// There was no room for a piece.
    is_full: bool,
    /// By group, of the piece that is being read and of the one read along with it.
    current: [Vec<Option<Totals>>; 2],
}

/// Which of two pieces that are read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The one that is asked for.
    Asked,
    /// The one that is read along with it, for it is likely to be asked for next.
    Along,
}

impl Tally {
    fn new(filter: Filter, by: Option<By>, priced_as: Option<Price>) -> Tally {
        Tally {
            filter,
            by,
            priced_as,
            groups: Vec::new(),
            known: HashMap::new(),
            slots: Vec::new(),
            places: HashMap::new(),
            figures: Vec::new(),
            kept: 0,
            is_full: false,
            current: Default::default(),
        }
    }

    /// Learns where series count that came since the last question.
    pub fn learn(&mut self, series: &[Option<Series>], prices: Option<&Prices>) {
        for series in series.iter().skip(self.slots.len()) {
            let slot = series.as_ref().and_then(|series| self.slot_of_row(series, prices));
            self.slots.push(slot);
        }
    }

    /// Where the series of this id counts.
    #[inline]
    pub fn slot_of(&self, series: i64) -> Option<SeriesSlot> {
        usize::try_from(series).ok().and_then(|series| self.slots.get(series).copied()?)
    }

    /// Where a row of these names counts, if it passes.
    pub fn slot_of_row(&mut self, names: &Names<impl AsRef<str>>, prices: Option<&Prices>) -> Option<SeriesSlot> {
        if !self.filter.matches(names) {
            return None;
        }
        let name = self.by.map_or("", |by| names[by].as_ref());
        let group = self.known.get(name).copied().unwrap_or_else(|| {
            let group = self.groups.len() as u32;
            self.groups.push(name.to_owned());
            self.known.insert(name.to_owned(), group);
            group
        });
        let outcome = Outcome::named(names[By::Outcome].as_ref());
        Some(SeriesSlot {
            group,
            is_completed: outcome == Some(Outcome::Completed),
            is_cancelled: outcome.is_some_and(Outcome::is_cancelled),
            generates: generates(names[By::Endpoint].as_ref()),
            price: prices.and_then(|prices| prices.of(names[By::Model].as_ref())),
        })
    }

    /// Which names of rows tell where they count.
    pub fn needs(&self, has_prices: bool) -> Names<bool> {
        By::ALL.map(|name| {
            let told = self.by == Some(name) || !self.filter.names[name].is_empty();
            told || matches!(name, By::Outcome | By::Endpoint) || name == By::Model && has_prices
        })
    }

    /// Counts a series or a row of the piece that is being read.
    #[inline]
    pub fn count(&mut self, part: Part, sums: &Sums, slot: &SeriesSlot) {
        let (group, current) = (slot.group as usize, &mut self.current[part as usize]);
        if current.len() <= group {
            current.resize(group + 1, None);
        }
        current[group].get_or_insert_default().add_sums(sums, slot);
    }

    /// The figures of a piece by group. `read` counts what is in it; it is not asked where that is known already.
    /// `along` is a piece that it counts, too; kept is that one only when the other is.
    pub fn figures<E>(
        &mut self,
        piece: Piece,
        along: Option<Piece>,
        keeps: bool,
        read: impl FnOnce(&mut Tally) -> Result<(), E>,
    ) -> Result<&[(u32, Totals)], E> {
        if let Some((from, to)) = self.places.get(&piece) {
            return Ok(&self.figures[*from as usize..*to as usize]);
        }
        self.figures.truncate(self.kept);
        self.current.iter_mut().for_each(Vec::clear);
        read(self)?;
        if let Some(along) = along.filter(|_| keeps) {
            self.put(Part::Along, along, keeps);
        }
        let from = self.kept;
        self.put(Part::Asked, piece, keeps);
        Ok(&self.figures[from..])
    }

    /// Appends what was counted, and keeps it if it shall and there is room.
    fn put(&mut self, part: Part, piece: Piece, keeps: bool) {
        self.figures.truncate(self.kept);
        let groups = self.current[part as usize].iter().enumerate();
        self.figures.extend(groups.filter_map(|(group, figures)| Some((group as u32, (*figures)?))));
        if !keeps {
            return;
        }
        self.is_full |= self.bytes() + PLACE_BYTES > BYTES_MAX;
        if !self.is_full {
            let place = (self.kept as u32, self.figures.len() as u32);
            self.kept = self.figures.len();
            self.places.insert(piece, place);
        }
    }

    /// Forgets these packs, and rows of these hours. Their figures stay where they are, out of use; when they and pieces
    /// that nobody asks for any more have filled the room, it is emptied.
    fn forget(&mut self, packs: &HashSet<i64>) {
        if mem::take(&mut self.is_full) {
            self.places.clear();
            (self.figures, self.kept) = (Vec::new(), 0);
        }
        self.places.retain(|piece, _| match piece {
            Piece::Pack(id) => !packs.contains(id),
            Piece::Rows(from_ms, _) => !packs.contains(&pack_id(SPAN_HOUR, from_ms / HOUR_MS)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packs::{SPAN_ALL, SPAN_DAY};

    const DAY: i64 = 490_000 - 490_000 % 24;
    const STATE: State = State { until: 100, changes: 7 };

    fn take(kept: &mut KeptTallies, filter: &Filter, by: Option<By>, state: State, changed: &[i64]) -> Tally {
        kept.take(filter, by, None, state, |_, _| Ok::<_, ()>(changed.to_vec())).expect("hours are told")
    }

    fn one_request(tally: &mut Tally) -> Result<(), ()> {
        let slot = tally.slot_of_row(&["a", "/v1/x", "", "", "completed"], None).expect("passes");
        tally.count(Part::Asked, &Sums { requests: 1, ..Sums::default() }, &slot);
        tally.count(Part::Along, &Sums { requests: 2, ..Sums::default() }, &slot);
        Ok(())
    }

    fn requests(tally: &mut Tally, piece: Piece, along: Option<Piece>, keeps: bool) -> Option<i64> {
        tally.figures(piece, along, keeps, one_request).ok().map(|figures| figures[0].1.requests)
    }

    fn is_kept(tally: &mut Tally, piece: Piece) -> bool {
        tally.figures(piece, None, true, |_| Err(())).is_ok()
    }

    #[test]
    fn a_piece_is_read_once_until_it_changes() {
        let mut kept = KeptTallies::default();
        let mut model = Filter { from_ms: Some(5), ..Filter::default() };
        model.names[By::Model].push("a".to_owned());
        let hour = Piece::Pack(pack_id(SPAN_HOUR, DAY + 4));
        let (day, all) = (Piece::Pack(pack_id(SPAN_DAY, DAY)), Piece::Pack(pack_id(SPAN_ALL, 0)));
        let rows = |hour: i64, from_ms: i64| Piece::Rows(hour * HOUR_MS + from_ms, hour * HOUR_MS + from_ms + 1);
        let mut tally = take(&mut kept, &model, None, STATE, &[]);
        for piece in [hour, day, all, rows(DAY + 5, 0)] {
            assert_eq!(requests(&mut tally, piece, None, true), Some(1));
        }
        assert_eq!(requests(&mut tally, Piece::Rows(1, 2), None, false), Some(1));
        assert_eq!(requests(&mut tally, rows(DAY + 4, 3), Some(rows(DAY + 4, 4)), true), Some(1));
        assert_eq!(requests(&mut tally, rows(DAY + 4, 4), None, true), Some(2));
        kept.put(tally);
        // The same kind, whatever its time; and no other.
        let mut tally = take(&mut kept, &Filter { from_ms: None, ..model.clone() }, None, STATE, &[]);
        assert!([hour, day, all, rows(DAY + 4, 3)].into_iter().all(|piece| is_kept(&mut tally, piece)));
        assert!(!is_kept(&mut tally, Piece::Rows(1, 2)));
        kept.put(tally);
        assert!(!is_kept(&mut take(&mut kept, &Filter::default(), None, STATE, &[]), hour));
        assert!(!is_kept(&mut take(&mut kept, &model, Some(By::Key), STATE, &[]), hour));
        let price = Price { input: 1.0, cached_input: 1.0, cache_write: 1.0, output: 1.0 };
        let mut priced =
            kept.take(&model, None, Some(price), STATE, |_, _| Ok::<_, ()>(vec![])).expect("hours are told");
        assert!(!is_kept(&mut priced, hour), "costs are in what is kept");
        // Rows of another hour were packed.
        let more = State { until: 101, ..STATE };
        let mut tally = take(&mut kept, &model, None, more, &[DAY + 5]);
        assert!(is_kept(&mut tally, hour) && is_kept(&mut tally, rows(DAY + 4, 4)));
        assert!(!is_kept(&mut tally, day) && !is_kept(&mut tally, all) && !is_kept(&mut tally, rows(DAY + 5, 0)));
        kept.put(tally);
        // A row was changed; ids are given anew.
        assert!(!is_kept(&mut take(&mut kept, &model, None, State { changes: 8, ..more }, &[]), hour));
        let mut tally = take(&mut kept, &model, None, State { changes: 8, ..more }, &[]);
        assert_eq!(requests(&mut tally, hour, None, true), Some(1));
        kept.put(tally);
        assert!(!is_kept(&mut take(&mut kept, &model, None, State { until: 99, changes: 8 }, &[]), hour));
    }

    #[test]
    fn a_full_room_is_emptied_when_rows_are_packed() {
        let mut kept = KeptTallies::default();
        let (all, late) = (Filter::default(), Piece::Rows(1, 2));
        let mut tally = take(&mut kept, &all, None, STATE, &[]);
        for pack in 0..1000 {
            assert_eq!(requests(&mut tally, Piece::Pack(pack), None, true), Some(1));
        }
        assert!(is_kept(&mut tally, Piece::Pack(0)) && !is_kept(&mut tally, Piece::Pack(999)));
        kept.put(tally);
        let mut tally = take(&mut kept, &all, None, State { until: 101, ..STATE }, &[DAY]);
        assert!(!is_kept(&mut tally, Piece::Pack(0)));
        assert_eq!(requests(&mut tally, late, None, true), Some(1));
        assert!(is_kept(&mut tally, late));
    }
}
