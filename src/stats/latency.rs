//! Distributions of durations and speeds: from packs, and from rows only where these are not packed yet, or a range
//! begins or ends in the middle of an hour.

use super::answers::{By, Distribution, Distributions, Latency, LatencyGroup, LatencyGroups};
use super::answers::{hundredths, known_mean, one_decimal, speed_mean};
use super::filter::Filter;
use super::kept_latencies::{KeptLatencies, Measurements};
use super::range::{Cut, cut};
use super::reader::{AskError, Reader, RowRead};
use crate::packs::histogram::Histogram;
use crate::packs::sums::Figure;
use crate::packs::{Latencies, Measured, visit_latencies, visit_sums};
use crate::record::packing::State;
use crate::record::series::Series;
use crate::record::table::TIMINGS;

/// What a percentile may be off, in percent: buckets grow by 8 %, and figures are rounded to one decimal.
const ERROR_MAX_PERCENT: u32 = 5;

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
        named.sort_by(|(a, one), (b, other)| other.sums.requests.cmp(&one.sums.requests).then_with(|| a.cmp(b)));
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
