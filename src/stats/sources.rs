//! Where answers come from, whoever gives them: the database, and what is known in memory alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::power::Power;
use super::price::Prices;
use super::reader::Reader;
use crate::counters::Counters;
use crate::exchange::job::Workers;
use crate::in_flight::InFlight;
use crate::models::SeenModels;
use crate::reach::Reach;
use crate::record::database_file::beside;
use crate::record::recorder::Recorder;

/// All of them.
pub struct Sources {
    /// The database.
    pub database: PathBuf,
    /// What requests would have cost.
    pub prices: Option<Arc<Prices>>,
    /// What electricity answers take.
    pub power: Option<Arc<Power>>,
    /// Counters of the loops.
    pub counters: Arc<Counters>,
    /// Counters of rows, and what tells of new ones.
    pub recorder: Arc<Recorder>,
    /// The workers.
    pub workers: Arc<Workers>,
    /// What goes on now.
    pub in_flight: Arc<InFlight>,
    /// Which models upstream has loaded.
    pub models: Arc<SeenModels>,
    /// Whether it can be reached.
    pub reach: Arc<Reach>,
    /// When the proxy was started, in seconds since 1970.
    pub started_s: f64,
}

impl Sources {
    /// Opens the database for questions.
    pub(super) fn open(&self) -> rusqlite::Result<Reader> {
        Ok(Reader::open(&self.database)?.with_prices(self.prices.clone()).with_power(self.power.clone()))
    }

    /// What costs are told by: the list, or as if all were this model of it. An error says what would be right.
    pub(super) fn prices_as(&self, model: Option<&str>) -> Result<Option<Arc<Prices>>, String> {
        let Some(model) = model else { return Ok(self.prices.clone()) };
        let list = self.prices.as_ref().ok_or("as is for what would have cost: MODEL_PRICES is not set.")?;
        Ok(Some(Arc::new(list.all_as(model)?)))
    }

    /// The database file with its log.
    pub(super) fn database_bytes(&self) -> u64 {
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        bytes(&self.database) + bytes(&beside(&self.database, "-wal"))
    }
}
