//! Distributions of durations and speeds: from kept histograms, and from rows only where an hour is not over or a range
//! begins or ends in its middle.

use std::collections::HashMap;

use super::answers::{By, Distribution, Distributions, Latency, ModelLatency};
use super::filter::Filter;
use super::range::{Cut, HOUR_MS, cut};
use super::reader::{Reader, RowFigures, passes};
use super::totals::one_decimal;
use crate::record::histogram::Histogram;
use crate::record::pack::{Latencies, visit_latencies, visit_sums};
use crate::record::sums::{Known, Sums};

/// What a percentile may be off, in percent: buckets grow by 8 %, and figures are rounded to one decimal.
const ERROR_MAX_PERCENT: u32 = 5;

/// The distributions of one model with the sums that means need.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The distributions.
    pub latencies: Latencies,
    /// The sums that go with them: of tokens there are none.
    pub sums: Sums,
}

impl Measured {
    /// Adds those of another model.
    pub fn add(&mut self, other: &Measured) {
        self.latencies.add(&other.latencies);
        self.sums.add(&other.sums, 1);
    }

    fn distributions(&self) -> Distributions {
        let Latencies { duration_ms, first_token_ms, speed } = &self.latencies;
        let sums = &self.sums;
        let durations = Known { sum: sums.duration_ms, rows: sums.requests };
        let mean = |known: Known| (known.rows > 0).then(|| one_decimal(known.sum as f64 / known.rows as f64));
        let speed_mean = (sums.tokens_per_second_known > 0)
            .then(|| hundredths(sums.tokens_per_second / sums.tokens_per_second_known as f64));
        Distributions {
            duration_ms: distribution(duration_ms, mean(durations), one_decimal),
            time_to_first_token_ms: distribution(first_token_ms, mean(sums.first_token_ms), one_decimal),
            tokens_per_second: distribution(speed, speed_mean, |thousandths| hundredths(thousandths / 1000.0)),
        }
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
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
    /// Count, mean, percentiles and maximum, overall and by model.
    pub fn latency(&self, filter: &Filter) -> rusqlite::Result<Latency> {
        let mut models: Vec<(String, Measured)> = self.measured(filter)?.into_iter().collect();
        models.sort_by(|(a, one), (b, other)| other.sums.requests.cmp(&one.sums.requests).then_with(|| a.cmp(b)));
        let mut overall = Measured::default();
        models.iter().for_each(|(_, measured)| overall.add(measured));
        let models = models
            .iter()
            .filter(|(_, measured)| measured.sums.requests > 0)
            .map(|(model, measured)| ModelLatency { model: model.clone(), distributions: measured.distributions() });
        Ok(Latency {
            overall: overall.distributions(),
            percentile_error_max_percent: ERROR_MAX_PERCENT,
            models: models.collect(),
        })
    }

    /// The distributions themselves, by model.
    pub fn measured(&self, filter: &Filter) -> rusqlite::Result<HashMap<String, Measured>> {
        self.at_once(|| {
            let pieces = cut(filter.from_ms, filter.to_ms, self.packed()?, Cut::Additive);
            let (series, mut models) = (self.series()?, Vec::<(String, Measured)>::new());
            let mut known: HashMap<String, usize> = HashMap::new();
            let mut place = |models: &mut Vec<(String, Measured)>, model: &str| match known.get(model) {
                Some(at) => *at,
                None => {
                    models.push((model.to_owned(), Measured::default()));
                    known.insert(model.to_owned(), models.len() - 1);
                    models.len() - 1
                }
            };
            let chosen = |series: &Option<super::reader::Series>| {
                let names = series.as_ref()?.names();
                passes(filter, &names).then(|| place(&mut models, names.model))
            };
            let places: Vec<Option<usize>> = series.iter().map(chosen).collect();
            let at = |series: i64| usize::try_from(series).ok().and_then(|series| places.get(series).copied()?);
            for (id, _) in &pieces.packs {
                self.pack("SELECT pack FROM packed_latencies WHERE id = ?1", *id, |pack| {
                    visit_latencies(pack, |series, packed| match at(series) {
                        Some(at) => packed.add_to(&mut models[at].1.latencies),
                        None => Ok(()),
                    })
                })?;
                self.pack("SELECT pack FROM packed_sums WHERE id = ?1", *id, |pack| {
                    visit_sums(pack, |series, sums| {
                        if let Some(at) = at(series) {
                            models[at].1.sums.add(sums, 1);
                        }
                    })
                })?;
            }
            let needs = By::ALL.map(|name| name == By::Model || filter.asks_for(name));
            let open = pieces.open.map(|(from, to)| (from.saturating_mul(HOUR_MS), to.saturating_mul(HOUR_MS)));
            for (from_ms, to_ms) in open.into_iter().chain(pieces.rows) {
                self.visit_rows((from_ms, to_ms), needs, RowFigures::Sample, |row| {
                    let names = row.names()?;
                    if passes(filter, &names) {
                        let (sample, sums) = row.sample()?;
                        let at = place(&mut models, names.model);
                        models[at].1.latencies.count(&sample, 1);
                        models[at].1.sums.add(&sums, 1);
                    }
                    Ok(())
                })?;
            }
            Ok(models.into_iter().collect())
        })
    }
}
