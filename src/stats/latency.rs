//! Distributions of durations and speeds: from packs, and from rows only where these are not packed yet, or a range
//! begins or ends in the middle of an hour.

use std::collections::BTreeMap;

use super::answers::{By, Distribution, Distributions, Latency, LatencyGroup, LatencyGroups, Percentiles};
use super::answers::{hundredths, known_mean, one_decimal, speed_mean};
use super::filter::Filter;
use super::kept_latencies::{KeptLatencies, Measurements};
use super::range::{Cut, Packed, cut};
use super::reader::{AskError, Reader, RowRead};
use crate::calendar::ms_of_text;
use crate::order::sort_by;
use crate::packs::histogram::Histogram;
use crate::packs::sums::Figure;
use crate::packs::{Latencies, Measured, visit_latencies, visit_sums};
use crate::record::packing::State;
use crate::record::series::Series;
use crate::record::table::TIMINGS;

/// What a percentile may be off, in percent: buckets grow by 8 %, and figures are rounded to one decimal.
pub(super) const ERROR_MAX_PERCENT: u32 = 5;

fn count(by: By, measurements: &mut Measurements, row: &RowRead) {
    let at = measurements.place(row.names()[by]);
    measurements.list[at].1.count(&row.sums());
}

fn distributions(measured: &Measured) -> Distributions {
    let Measured { sums, latencies: Latencies { duration_ms, first_token_ms, speed } } = measured;
    let first_token = sums[Figure::FirstTokenMs];
    let first_token_mean = known_mean(first_token.sum, first_token.rows);
    let mean_of_speeds = speed_mean(sums.tokens_per_second, sums.tokens_per_second_known);
    Distributions {
        duration_ms: distribution(duration_ms, known_mean(sums.duration_ms, sums.requests), one_decimal),
        time_to_first_token_ms: distribution(first_token_ms, first_token_mean, one_decimal),
        tokens_per_second: distribution(speed, mean_of_speeds, |thousandths| hundredths(thousandths / 1000.0)),
    }
}

fn distribution(histogram: &Histogram, mean: Option<f64>, told: impl Fn(f64) -> f64) -> Distribution {
    let percentile = |percent| histogram.percentile(percent).map(&told);
    Distribution {
        count: histogram.total(),
        mean,
        p50: percentile(50),
        p90: percentile(90),
        p95: percentile(95),
        p99: percentile(99),
        max: histogram.max().map(|max| told(max as f64)),
    }
}

impl Reader {
    /// Count, mean, percentiles and maximum, overall and by name.
    pub fn latency(&self, filter: &Filter, by: By) -> Result<Latency, AskError> {
        let mut named = self.measured(filter, by)?;
        sort_by(&mut named, |(a, one), (b, other)| other.sums.requests.cmp(&one.sums.requests).then_with(|| a.cmp(b)));
        let mut overall = Measured::default();
        named.iter().for_each(|(_, measured)| overall.add(measured, 1));
        let groups = named
            .iter()
            .filter(|(_, measured)| measured.sums.requests > 0)
            .map(|(name, measured)| LatencyGroup { name: by.told(name), distributions: distributions(measured) });
        Ok(Latency {
            overall: distributions(&overall),
            percentile_error_max_percent: ERROR_MAX_PERCENT,
            groups: LatencyGroups { by, groups: groups.collect() },
        })
    }

    /// The distributions themselves, by name.
    pub fn measured(&self, filter: &Filter, by: By) -> Result<Vec<(String, Measured)>, AskError> {
        let needs = By::ALL.map(|name| name == by || !filter.names[name].is_empty());
        self.at_once(|| {
            if !filter.conversations.is_empty() {
                let mut named = Measurements::default();
                self.visit_turns(filter, needs, TIMINGS, |row| count(by, &mut named, row))?;
                return Ok(named.list);
            }
            let packed = self.packed()?;
            let (from, to) = self.parted_at((filter.from_ms, filter.to_ms))?;
            let pieces = cut(from, to, packed, Cut::Additive);
            let mut named = self.latencies_of_packs(filter, by, packed.state, pieces.packs)?;
            let mut add = |row: &RowRead| {
                if filter.matches(&row.names()) {
                    count(by, &mut named, row);
                }
                Ok(())
            };
            for edge in pieces.rows {
                self.visit_packed_rows(packed, edge, needs, TIMINGS, &mut add)?;
            }
            self.visit_rows(packed.ids_behind(), (filter.from_ms, filter.to_ms), needs, TIMINGS, &mut add)?;
            Ok(named.list)
        })
    }

    /// The percentiles of each of these ranges, which follow one another.
    pub(super) fn percentiles(
        &self,
        filter: &Filter,
        ranges: &[(Option<i64>, Option<i64>)],
        packed: Packed,
    ) -> Result<Vec<Percentiles>, AskError> {
        let (Some((from, _)), Some((_, to))) = (ranges.first(), ranges.last()) else { return Ok(Vec::new()) };
        let needs = filter.names.each_ref().map(|wanted| !wanted.is_empty());
        let within = Filter { from_ms: *from, to_ms: *to, ..filter.clone() };
        let is_packed = filter.conversations.is_empty();
        // What rows that no pack holds come to in each range.
        let mut single: BTreeMap<usize, Measured> = BTreeMap::new();
        let mut take = |row: &RowRead| {
            if filter.matches(&row.names()) {
                let ms = ms_of_text(row.start_time());
                let at = ranges.partition_point(|(from, _)| *from <= ms).saturating_sub(1);
                single.entry(at).or_default().count(&row.sums());
            }
        };
        if is_packed {
            self.visit_rows(packed.ids_behind(), (*from, *to), needs, TIMINGS, |row| {
                take(row);
                Ok(())
            })?;
        } else {
            self.visit_turns(&within, needs, TIMINGS, take)?;
        }
        let is_of_filter = |series: &Option<Series>| series.as_ref().is_some_and(|series| filter.matches(series));
        let is_wanted: Vec<bool> = self.series()?.iter().map(is_of_filter).collect();
        let mut all = Vec::with_capacity(ranges.len());
        for (at, range) in ranges.iter().enumerate() {
            let mut measured = single.remove(&at).unwrap_or_default();
            if is_packed {
                let (from, to) = self.parted_at(*range)?;
                let pieces = cut(from, to, packed, Cut::Additive);
                for (id, _) in pieces.packs {
                    self.pack("SELECT pack FROM packed_latencies WHERE id = ?1", id, |pack| {
                        visit_latencies(pack, |series, packed| {
                            match usize::try_from(series).is_ok_and(|at| is_wanted.get(at) == Some(&true)) {
                                true => packed.add_to(&mut measured.latencies),
                                false => Ok(()),
                            }
                        })
                    })?;
                }
                for edge in pieces.rows {
                    self.visit_packed_rows(packed, edge, needs, TIMINGS, |row| {
                        if filter.matches(&row.names()) {
                            measured.count(&row.sums());
                        }
                        Ok(())
                    })?;
                }
            }
            let told = distributions(&measured);
            all.push(Percentiles {
                p50_time_to_first_token_ms: told.time_to_first_token_ms.p50,
                p95_time_to_first_token_ms: told.time_to_first_token_ms.p95,
                p50_duration_ms: told.duration_ms.p50,
                p95_duration_ms: told.duration_ms.p95,
                p50_tokens_per_second: told.tokens_per_second.p50,
                p95_tokens_per_second: told.tokens_per_second.p95,
            });
        }
        Ok(all)
    }

    /// What the packs of a range come to, known from an earlier question or read.
    fn latencies_of_packs(
        &self,
        filter: &Filter,
        by: By,
        state: State,
        packs: Vec<(i64, i64)>,
    ) -> rusqlite::Result<Measurements> {
        let filter_of_names = Filter { from_ms: None, to_ms: None, ..filter.clone() };
        let mut all_kept = self.kept_latencies.borrow_mut();
        // What was true of another state of the database will not be true again.
        all_kept.retain(|kept| kept.state == state);
        let kept = match all_kept.take(|kept| kept.filter == filter_of_names && kept.by == by && kept.packs == packs) {
            Some(kept) => kept,
            None => {
                let measurements = self.packed_latencies(&filter_of_names, by, &packs)?;
                KeptLatencies { filter: filter_of_names, by, packs, state, measurements }
            }
        };
        let measurements = kept.measurements.clone();
        all_kept.put(kept);
        Ok(measurements)
    }

    fn packed_latencies(&self, filter: &Filter, by: By, packs: &[(i64, i64)]) -> rusqlite::Result<Measurements> {
        let (series, mut measurements) = (self.series()?, Measurements::default());
        let chosen = |series: &Option<Series>| {
            let series = series.as_ref()?;
            filter.matches(series).then(|| measurements.place(&series[by]))
        };
        let places: Vec<Option<usize>> = series.iter().map(chosen).collect();
        let at = |series: i64| usize::try_from(series).ok().and_then(|series| places.get(series).copied()?);
        for (id, _) in packs {
            self.pack("SELECT pack FROM packed_latencies WHERE id = ?1", *id, |pack| {
                visit_latencies(pack, |series, packed| match at(series) {
                    Some(at) => packed.add_to(&mut measurements.list[at].1.latencies),
                    None => Ok(()),
                })
            })?;
            self.pack("SELECT pack FROM packed_sums WHERE id = ?1", *id, |pack| {
                visit_sums(pack, |series, sums| {
                    if let Some(at) = at(series) {
                        measurements.list[at].1.sums.add(sums, 1);
                    }
                })
            })?;
        }
        Ok(measurements)
    }
}
