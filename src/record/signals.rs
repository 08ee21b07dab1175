//! What recording tells others: figures, that rows are in, and what the keeper is to see to.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::database_file::FileId;
use crate::bell::Bell;
use crate::limits::WAL_CHECKPOINT_BYTES;

/// Figures of the recorder, for health and metrics.
#[derive(Debug, Default)]
pub struct CommitFigures {
    /// Rows committed since the start.
    pub written: AtomicU64,
    /// Rows given up because too many waited or the database refused them for good.
    pub dropped: AtomicU64,
    /// Rows that were kept without what was said, for the same reasons.
    pub contents_dropped: AtomicU64,
    /// Rows waiting for a database that does not take them.
    pub waiting: AtomicU64,
}

/// What the keeper is woken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeeperWork {
    /// Rows wait for the database.
    pub(super) rows_wait: bool,
    /// Rows were committed since it looked.
    pub(super) rows_came: bool,
    /// The write-ahead log may have grown enough to be checkpointed.
    pub(super) log_grew: bool,
    /// The proxy ends: that stays.
    pub(super) stop: bool,
}

/// Says that rows were committed, to the one thread that may wait for it. While nobody waits, saying so is one atomic
/// load. What was committed is not said: the database knows.
#[derive(Debug, Default)]
pub struct NewRows {
    awaited: AtomicBool,
    bell: Bell<NewRowsState>,
}

#[derive(Debug, Default)]
struct NewRowsState {
    rung: bool,
    /// Where rows go, and the newest id that was there before.
    begun: Option<(FileId, i64)>,
}

impl NewRows {
    fn note(&self) {
        if self.awaited.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// From now on every commit rings, or no longer.
    pub fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::SeqCst);
    }

    /// Wakes who waits, for whatever reason.
    pub fn ring(&self) {
        self.bell.ring(|state| state.rung = true);
    }

    /// Waits until the bell has been rung, at most as long as given.
    pub fn wait_for(&self, at_most: Duration) {
        self.bell.wait_for(at_most, |state| mem::take(&mut state.rung).then_some(()));
    }

    /// Rows go into this file from now on, with higher ids than this one.
    pub(super) fn note_begun(&self, file: Option<FileId>, newest_id: i64) {
        self.bell.lock().begun = file.map(|file| (file, newest_id));
    }

    /// The newest id of this file when rows began to go there; `None` where they did from the start, or do not.
    pub fn begun_behind(&self, file: Option<FileId>) -> Option<i64> {
        let begun = self.bell.lock().begun;
        begun.filter(|begun| Some(begun.0) == file).map(|begun| begun.1)
    }
}

/// All of it, changed by who holds the writer.
#[derive(Default)]
pub(super) struct Signals {
    pub(super) figures: CommitFigures,
    /// Wakes the keeper: rows wait, or came, or the log has grown.
    pub(super) keeper: Bell<KeeperWork>,
    /// Tells that rows are in.
    pub(super) new_rows: NewRows,
    /// Rows were committed since the keeper looked.
    rows_came: AtomicBool,
    /// Rows that are not packed, of those committed since the start; no fewer.
    unpacked: AtomicU64,
    /// Bytes that the write-ahead log grew by since the keeper was last told.
    log_growth: AtomicU64,
    /// Growth of it that the keeper is told of; 0 as long as nobody has set it.
    log_growth_max: AtomicU64,
}

impl Signals {
    /// Rows were committed.
    pub(super) fn note_written(&self, rows: usize) {
        self.figures.written.fetch_add(rows as u64, Ordering::Relaxed);
        self.new_rows.note();
        self.unpacked.fetch_add(rows as u64, Ordering::Relaxed);
        if !self.rows_came.swap(true, Ordering::AcqRel) {
            self.keeper.ring(|work| work.rows_came = true);
        }
    }

    /// The keeper looks: how many rows are not packed. The next one wakes it again.
    pub(super) fn look(&self) -> u64 {
        self.rows_came.store(false, Ordering::Release);
        self.unpacked()
    }

    /// How many rows are not packed.
    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked.load(Ordering::Relaxed)
    }

    /// So many of them were packed.
    pub(super) fn note_packed(&self, rows: u64) {
        self.unpacked.fetch_sub(rows, Ordering::Relaxed);
    }

    /// So much was written to the write-ahead log.
    pub(super) fn note_log_growth(&self, bytes: u64) {
        let grown = self.log_growth.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if grown >= self.log_growth_max() {
            self.log_growth.store(0, Ordering::Relaxed);
            self.keeper.ring(|work| work.log_grew = true);
        }
    }

    /// Waits, at most so long, until there is something to do for the keeper, and takes it.
    pub(super) fn wait_for_work(&self, at_most: Duration) -> KeeperWork {
        let work = self.keeper.wait_for(at_most, |work| {
            let rest = KeeperWork { stop: work.stop, ..KeeperWork::default() };
            (*work != KeeperWork::default()).then(|| mem::replace(work, rest))
        });
        work.unwrap_or_default()
    }

    /// How much the log may grow before the keeper is told.
    pub(super) fn log_growth_max(&self) -> u64 {
        match self.log_growth_max.load(Ordering::Relaxed) {
            0 => WAL_CHECKPOINT_BYTES,
            bytes => bytes,
        }
    }

    pub(super) fn set_log_growth_max(&self, bytes: u64) {
        self.log_growth_max.store(bytes, Ordering::Relaxed);
    }
}
