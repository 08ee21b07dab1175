//! Distributions by name, and those that are kept for the next question of the same kind.

use std::collections::HashMap;
use std::mem::size_of;

use super::answers::By;
use super::filter::Filter;
use super::kept::Keep;
use crate::limits::{LATENCIES_KEPT_BYTES_MAX, LATENCIES_KEPT_MAX};
use crate::packs::Measured;
use crate::record::packing::State;

/// Distributions by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Measurements {
    pub list: Vec<(String, Measured)>,
    places: HashMap<String, usize>,
}

impl Measurements {
    pub fn place(&mut self, name: &str) -> usize {
        self.places.get(name).copied().unwrap_or_else(|| {
            self.list.push((name.to_owned(), Measured::default()));
            self.places.insert(name.to_owned(), self.list.len() - 1);
            self.list.len() - 1
        })
    }

    fn bytes(&self) -> usize {
        let of_one = |(name, measured): &(String, Measured)| {
            2 * name.len() + size_of::<(String, Measured)>() + measured.latencies.bytes()
        };
        self.list.iter().map(of_one).sum()
    }
}

/// What the packs of a range came to. Adding up a month of them takes milliseconds; pages and Prometheus ask for the same
/// again and again.
#[derive(Debug)]
pub(super) struct KeptLatencies {
    /// Without its time.
    pub filter: Filter,
    pub by: By,
    pub packs: Vec<(i64, i64)>,
    /// What was packed when they were read.
    pub state: State,
    pub measurements: Measurements,
}

impl Keep for KeptLatencies {
    const COUNT_MAX: usize = LATENCIES_KEPT_MAX;
    const BYTES_MAX: usize = LATENCIES_KEPT_BYTES_MAX;

    fn bytes(&self) -> usize {
        self.measurements.bytes()
    }
}
