//! What recording tells others: figures, that rows are in, and what the keeper is to see to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::alarm::Alarm;
use super::news::News;
use crate::limits::WAL_CHECKPOINT_BYTES;

/// Bytes that a commit adds to the write-ahead log beside its rows, roughly: the pages that every commit changes.
pub(super) const COMMIT_LOG_BYTES: usize = 12 * 1024;

/// Figures of the recorder, for health and metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// Rows committed since the start.
    pub written: AtomicU64,
    /// Rows given up because too many waited or the database refused them for good.
    pub dropped: AtomicU64,
    /// Rows that were kept without what was said, for the same reasons.
    pub contents_dropped: AtomicU64,
    /// Rows waiting for a database that does not take them.
    pub waiting: AtomicU64,
}

/// All of it, changed by who holds the desk.
pub(super) struct Signals {
    pub(super) figures: Figures,
    /// Wakes the keeper: rows wait, or are not summed up, or the log has grown.
    pub(super) alarm: Alarm,
    /// Tells that rows are in.
    pub(super) news: News,
    /// Rows are committed that the sums do not hold.
    unsummed: AtomicBool,
    /// Bytes that the write-ahead log grew by since the keeper was last told, roughly.
    log_growth: AtomicU64,
    /// Growth of it that the keeper is told of.
    log_growth_max: AtomicU64,
}

impl Default for Signals {
    fn default() -> Signals {
        Signals {
            figures: Figures::default(),
            alarm: Alarm::default(),
            news: News::default(),
            unsummed: AtomicBool::new(false),
            log_growth: AtomicU64::new(0),
            log_growth_max: AtomicU64::new(WAL_CHECKPOINT_BYTES),
        }
    }
}

impl Signals {
    /// Rows were committed.
    pub(super) fn note_written(&self, rows: usize) {
        self.figures.written.fetch_add(rows as u64, Ordering::Relaxed);
        self.news.note();
        self.note_behind();
    }

    /// The sums lack rows.
    pub(super) fn note_behind(&self) {
        if !self.unsummed.swap(true, Ordering::AcqRel) {
            self.alarm.raise(|alarm| alarm.rows_unsummed = true);
        }
    }

    /// Sums were written: whether those of all rows.
    pub(super) fn note_summed(&self, all: bool) {
        self.unsummed.store(!all, Ordering::Release);
    }

    /// Whether the sums lack rows.
    pub(super) fn is_behind(&self) -> bool {
        self.unsummed.load(Ordering::Acquire)
    }

    /// So much was written to the write-ahead log.
    pub(super) fn note_log_growth(&self, bytes: usize) {
        let grown = self.log_growth.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        if grown >= self.log_growth_max() {
            self.log_growth.store(0, Ordering::Relaxed);
            self.alarm.raise(|alarm| alarm.log_grew = true);
        }
    }

    /// How much the log may grow before the keeper is told.
    pub(super) fn log_growth_max(&self) -> u64 {
        self.log_growth_max.load(Ordering::Relaxed)
    }

    pub(super) fn set_log_growth_max(&self, bytes: u64) {
        self.log_growth_max.store(bytes, Ordering::Relaxed);
    }
}
