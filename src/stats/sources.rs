//! Where answers come from, whoever gives them: the database, and what is known in memory alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::metrics::Process;
use super::price::Prices;
use super::reader::Reader;
use crate::counters::Counters;
use crate::exchange::job::Workers;
use crate::logging;
use crate::record::database_file::beside;
use crate::record::recorder::Recorder;

/// All of them.
pub struct Sources {
    /// The database.
    pub database: PathBuf,
    /// What requests would have cost.
    pub prices: Option<Arc<Prices>>,
    /// Counters of the loops.
    pub counters: Arc<Counters>,
    /// Counters of rows, and what tells of new ones.
    pub recorder: Arc<Recorder>,
    /// The workers.
    pub workers: Arc<Workers>,
    /// When the proxy was started, in seconds since 1970.
    pub started_s: f64,
}

impl Sources {
    /// Opens the database for questions.
    pub(super) fn open(&self) -> rusqlite::Result<Reader> {
        Ok(Reader::open(&self.database)?.with_prices(self.prices.clone()))
    }

    /// What is known in memory alone.
    pub(super) fn process(&self, listeners: usize) -> Process {
        let rows = self.recorder.figures();
        let bytes = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let log = beside(&self.database, "-wal");
        Process {
            load: self.workers.load(),
            connections: self.counters.connections.load(Ordering::Relaxed),
            listeners,
            rows_written: rows.written.load(Ordering::Relaxed),
            rows_dropped: rows.dropped.load(Ordering::Relaxed),
            contents_dropped: rows.contents_dropped.load(Ordering::Relaxed),
            rows_waiting: rows.waiting.load(Ordering::Relaxed),
            refusals: self.counters.refusals().collect(),
            log_lines_lost: logging::lines_lost(),
            database_bytes: bytes(&self.database) + bytes(&log),
            started_s: self.started_s,
        }
    }
}
