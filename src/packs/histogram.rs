//! Distributions in few bytes: how many values fell into each of a row of buckets whose bounds grow by 8 %.
//!
//! A percentile is answered with a value at most 4 % (the ratio of bucket and neighbour, halved) from the exact one, at
//! any size and with any sum of histograms. The scheme is DDSketch's (Masson, Rim, Lee: "DDSketch", VLDB 2019), without
//! its collapsing: 360 buckets reach from 1 to the largest figure that is stored. Values are whole numbers, in
//! milliseconds or in thousandths.

use super::varint::{Bytes, push};

/// Ratio of a bucket's bounds.
const GROWTH: f64 = 1.08;

/// Counts of values, by size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// How many in each bucket, from the lowest; as long as needed. Negative only in the middle of a calculation.
    counts: Vec<i64>,
    /// The largest value. Once its row was corrected, no more than the bound of the largest bucket in use.
    max: i64,
}

impl Histogram {
    /// Adds a value.
    pub fn count(&mut self, value: i64) {
        *self.slot(bucket_of(value)) += 1;
        self.max = self.max.max(value);
    }

    /// Adds another one, or takes it away with a sign of -1.
    pub fn add(&mut self, other: &Histogram, sign: i64) {
        for (bucket, count) in other.counts.iter().enumerate() {
            if *count != 0 {
                *self.slot(bucket) += sign * count;
            }
        }
        if sign > 0 {
            self.max = self.max.max(other.max);
        } else {
            self.trim();
        }
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Histogram>() + self.counts.capacity() * size_of::<i64>()
    }

    /// How many values there are.
    pub fn total(&self) -> i64 {
        self.counts.iter().sum()
    }

    /// How many values are at most `value`, exact to the bucket that it falls into.
    pub fn at_most(&self, value: i64) -> i64 {
        self.counts.iter().take(bucket_of(value) + 1).sum()
    }

    /// The largest value; `None` where there is none.
    pub fn max(&self) -> Option<i64> {
        (self.total() > 0).then_some(self.max)
    }

    /// The value that `percent` of 100 values do not exceed (nearest rank), as near as the buckets tell.
    pub fn percentile(&self, percent: u32) -> Option<f64> {
        let total = self.total();
        let rank = ((total * i64::from(percent) + 99) / 100).max(1);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(middle_of(bucket).min(self.max as f64))
    }

    fn slot(&mut self, bucket: usize) -> &mut i64 {
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        &mut self.counts[bucket]
    }

    fn trim(&mut self) {
        while self.counts.last() == Some(&0) {
            self.counts.pop();
        }
        let bound = self.counts.len().checked_sub(1).map_or(0, bound_of);
        self.max = self.max.min(bound);
    }

    /// Writes it: the buckets in use, each with its distance from the one before.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let used = || self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        push(out, used().count() as u64);
        if used().next().is_none() {
            return;
        }
        push(out, self.max.max(0) as u64);
        let mut before = 0;
        for (bucket, count) in used() {
            push(out, (bucket - before) as u64);
            push(out, *count as u64);
            before = bucket;
        }
    }

    /// Adds what [`Histogram::encode`] wrote. `None`: these bytes are none.
    pub(super) fn add_encoded(&mut self, bytes: &mut Bytes) -> Option<()> {
        let used = bytes.number()?;
        if used == 0 {
            return Some(());
        }
        self.max = self.max.max(i64::try_from(bytes.number()?).ok()?);
        let mut bucket = 0;
        for _ in 0..used {
            bucket += usize::try_from(bytes.number()?).ok()?;
            if bucket >= BUCKETS_MAX {
                return None;
            }
            *self.slot(bucket) += i64::try_from(bytes.number()?).ok()?;
        }
        Some(())
    }
}

/// More than any figure needs: a thousand times the largest one falls into bucket 450.
const BUCKETS_MAX: usize = 512;

/// Bucket 0 holds zero; bucket n+1 what is above GROWTH^(n-1) and at most GROWTH^n.
fn bucket_of(value: i64) -> usize {
    if value <= 0 {
        return 0;
    }
    BOUNDS.partition_point(|bound| *bound < value).min(BUCKETS_MAX - 1)
}

fn bound_of(bucket: usize) -> i64 {
    BOUNDS[bucket.min(BUCKETS_MAX - 1)]
}

/// The largest value of each bucket. A table is as fast as a logarithm, whose last digit is not the same everywhere.
static BOUNDS: [i64; BUCKETS_MAX] = bounds();

const fn bounds() -> [i64; BUCKETS_MAX] {
    let mut bounds = [0; BUCKETS_MAX];
    let (mut bound, mut bucket) = (1.0, 1);
    while bucket < BUCKETS_MAX {
        bounds[bucket] = bound as i64;
        bound *= GROWTH;
        bucket += 1;
    }
    bounds
}

/// The value whose ratio to both bounds is the same. Below 13 a bucket holds one whole number at most: that one.
fn middle_of(bucket: usize) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let middle = 2.0 * GROWTH.powi(bucket as i32 - 1) / (1.0 + GROWTH);
    if middle < 12.5 { middle.round() } else { middle }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Every percentile within 4 % of the exact one by nearest rank.
    fn check(mut values: Vec<i64>) {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.count(*value));
        let (mut bytes, mut again) = (Vec::new(), Histogram::default());
        histogram.encode(&mut bytes);
        assert_eq!(again.add_encoded(&mut Bytes::new(&bytes)), Some(()));
        assert_eq!(again, histogram);
        values.sort_unstable();
        for percent in 1..=100 {
            let exact = values[(values.len() * percent).div_ceil(100).max(1) - 1] as f64;
            let told = histogram.percentile(percent as u32).expect("there are values");
            assert!((told - exact).abs() <= 0.04 * exact, "p{percent} of {}: {told} for {exact}", values.len());
        }
        assert_eq!(histogram.max(), values.last().copied());
        for value in &values {
            let mut one = Histogram::default();
            one.count(*value);
            histogram.add(&one, -1);
        }
        assert_eq!(histogram, Histogram::default());
    }

    #[test]
    fn percentiles_are_near_the_exact_ones_at_every_size() {
        check((0..=3000).collect());
        check(vec![0]);
        check(vec![crate::limits::FIGURE_MAX as i64 * 1000, 1, 1]);
        let mut random = Random::new(7);
        for size in 1..60 {
            let values = (0..size * 5).map(|_| {
                let magnitude = 1 << random.below(40);
                (magnitude + random.below(magnitude)) as i64
            });
            check(values.collect());
        }
    }

    #[test]
    fn a_bucket_ends_at_a_power_of_its_growth() {
        let mut random = Random::new(11);
        let wide = (0..10_000).map(|_| {
            let magnitude = 1 << random.below(46);
            random.below(magnitude) as i64
        });
        for value in (0..100_000).chain(wide) {
            let expected = if value == 0 { 0.0 } else { 1.0 + (value as f64).log(GROWTH).max(0.0).ceil() };
            assert_eq!(bucket_of(value) as f64, expected, "{value}");
        }
        assert_eq!(bucket_of(i64::MAX), BUCKETS_MAX - 1);
    }

    #[test]
    fn bytes_that_are_no_histogram_are_refused() {
        assert_eq!(Histogram::default().add_encoded(&mut Bytes::new(&[3, 5, 1])), None);
        assert_eq!(Histogram::default().add_encoded(&mut Bytes::new(&[1, 5, 0xFF, 0xFF, 3, 1])), None);
        assert_eq!(Histogram::default().percentile(50), None);
    }
}
