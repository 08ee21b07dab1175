//! The desk: whoever holds it writes. It keeps the rows that the database does not take now, bounded in bytes, and
//! tries them before any others; and it notices when the database is elsewhere, damaged, or well again.
//!
//! Does not decide who writes, nor when: the recorder and the keeper do.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fmt, mem};

use rusqlite::ErrorCode;

use super::row::Row;
use super::signals::{COMMIT_LOG_BYTES, Figures, Signals};
use super::store::Store;
use crate::limits::{BATCH_ROWS_MAX, WAITING_ROWS_BYTES_MAX};

/// What the committing thread holds.
pub(super) struct Desk {
    pub(super) store: Store,
    waiting: Waiting,
    /// The database refused the last sums; said in the log once.
    sums_failing: bool,
}

/// Rows that the database did not take yet.
#[derive(Default)]
struct Waiting {
    rows: VecDeque<Row>,
    bytes: usize,
    /// The database refused the last attempt; said in the log once.
    failing: bool,
}

impl Desk {
    pub(super) fn new(store: Store) -> Desk {
        Desk { store, waiting: Waiting::default(), sums_failing: false }
    }

    /// Writes to the file that is at the database's path now, a new one if there is none. True when nothing is in the
    /// way of writing.
    pub(super) fn find_database(&mut self) -> bool {
        if !self.store.must_reopen() {
            return true;
        }
        let place = self.store.place();
        let (path, held, taken) = (place.path().display().to_string(), place.is_held(), place.is_taken());
        match self.store.reopen() {
            // Damaged before; whether it is now, writing will tell.
            Ok(()) if held => {}
            Ok(()) if taken => log::warn!("{path} was replaced by another database; rows go there from now on"),
            Ok(()) => log::error!("{path} was deleted or moved, with the rows it held; a new one was begun"),
            Err(e) => {
                self.waiting.fail(&e);
                return false;
            }
        }
        true
    }

    /// False when it is to be tried again.
    pub(super) fn sum_up(&mut self, signals: &Signals) -> bool {
        let failed = match self.store.sum_up() {
            Ok(()) => {
                self.sums_failing = false;
                signals.note_log_growth(COMMIT_LOG_BYTES);
                None
            }
            // The rows went with their file. The next row or question finds out, and says so.
            Err(_) if !self.store.place().is_held() => None,
            Err(e) => Some(e),
        };
        signals.note_summed(failed.is_none());
        let is_locked = |e: &rusqlite::Error| e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        if let Some(e) = failed.as_ref().filter(|e| !is_locked(e))
            && !mem::replace(&mut self.sums_failing, true)
        {
            log::error!("the database takes no sums ({e}); until it does, statistics lack the newest rows");
        }
        failed.is_none()
    }

    fn fail(&mut self, error: &rusqlite::Error) {
        if self.store.is_damaged() {
            let path = self.store.place().path().display();
            self.waiting.fail(&format_args!("{error}: restore a copy of {path}, or move it away to begin anew"));
        } else {
            self.waiting.fail(error);
        }
    }

    /// Writes what waits and `rows` in one transaction. The ids of `rows`, or none when they wait now.
    pub(super) fn write(&mut self, rows: Vec<Row>, signals: &Signals) -> Vec<i64> {
        if rows.is_empty() && self.waiting.rows.is_empty() {
            return Vec::new();
        }
        if self.find_database() {
            if !self.waiting.rows.is_empty() {
                self.waiting.keep(rows, signals);
                // The database took none the last time. No further reply is held to see whether it does now.
                self.store.set_lock_wait(Duration::ZERO);
                self.write_waiting(signals);
                return Vec::new();
            }
            match self.store.write(&rows) {
                Ok(ids) => return self.wrote(ids, signals),
                Err(e) => self.fail(&e),
            }
        }
        self.waiting.keep(rows, signals);
        Vec::new()
    }

    /// Writes `rows` if nothing is in the way and no lock must be waited for. What else goes wrong is found again by
    /// who writes them then.
    pub(super) fn write_now(&mut self, rows: &[Row], signals: &Signals) -> Option<Vec<i64>> {
        // Whether the file is where it was, writing finds out.
        if !self.waiting.rows.is_empty() || self.store.is_damaged() {
            return None;
        }
        self.store.set_lock_wait(Duration::ZERO);
        let ids = self.store.write(rows).ok()?;
        Some(self.wrote(ids, signals))
    }

    fn wrote(&mut self, ids: Vec<i64>, signals: &Signals) -> Vec<i64> {
        signals.note_written(ids.len());
        self.waiting.recover();
        ids
    }

    /// Writes what waits, oldest first, as far as the database takes it.
    fn write_waiting(&mut self, signals: &Signals) {
        let figures = &signals.figures;
        while !self.waiting.rows.is_empty() {
            let count = self.waiting.rows.len().min(BATCH_ROWS_MAX);
            let batch = &self.waiting.rows.make_contiguous()[..count];
            let written = match self.store.write(batch) {
                Ok(_) => Ok(count),
                // One of them is what the database will never take: then one by one.
                Err(e) if is_lasting(&e) => self.store.write(&batch[..1]).map(|_| 1),
                Err(e) => Err(e),
            };
            match written {
                Ok(written) => {
                    signals.note_written(written);
                    self.waiting.remove(written, figures);
                }
                Err(e) if is_lasting(&e) => {
                    log::error!("a row was given up: {e}");
                    figures.dropped.fetch_add(1, Ordering::Relaxed);
                    self.waiting.remove(1, figures);
                }
                Err(e) => {
                    self.fail(&e);
                    return;
                }
            }
        }
        self.waiting.recover();
    }
}

impl Waiting {
    fn fail(&mut self, error: &dyn fmt::Display) {
        if !mem::replace(&mut self.failing, true) {
            log::error!("the database does not take rows ({error}); they wait in memory and are tried again");
        }
    }

    fn recover(&mut self) {
        if mem::take(&mut self.failing) {
            log::warn!("the database takes rows again; none waits any more");
        }
    }

    /// The keeper is told of the first: from then on it tries again by the clock.
    fn keep(&mut self, rows: Vec<Row>, signals: &Signals) {
        let figures = &signals.figures;
        let first = self.rows.is_empty();
        for row in rows {
            let size = row.size();
            if self.bytes + size > WAITING_ROWS_BYTES_MAX {
                let dropped = figures.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                log::error!("a row was lost: too many wait for the database ({dropped} lost since the start)");
                continue;
            }
            self.bytes += size;
            self.rows.push_back(row);
        }
        figures.waiting.store(self.rows.len() as u64, Ordering::Relaxed);
        if first && !self.rows.is_empty() {
            signals.alarm.raise(|alarm| alarm.rows_wait = true);
        }
    }

    fn remove(&mut self, count: usize, figures: &Figures) {
        for row in self.rows.drain(..count) {
            self.bytes -= row.size();
        }
        figures.waiting.store(self.rows.len() as u64, Ordering::Relaxed);
    }
}

/// Whether trying again cannot help: the row itself is what the database refuses.
fn is_lasting(error: &rusqlite::Error) -> bool {
    use ErrorCode::*;
    matches!(error.sqlite_error_code(), Some(TooBig | ConstraintViolation | TypeMismatch | ParameterOutOfRange))
}
