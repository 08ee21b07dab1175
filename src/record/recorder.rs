//! Commits rows before their replies end, in as few transactions as the load allows.
//!
//! A worker that ends an exchange leaves here its row and the reply's last bytes. If nobody commits at that moment, it
//! commits the row itself and sends the bytes: alone, that is the shortest way. Otherwise it leaves at once for its
//! next exchange, and whoever is committing takes the row into its next transaction. The express loop does the same
//! with the rows of a turn, but only where that keeps it for a moment ([`Recorder::finish_now`]). So a busy proxy
//! commits in batches without a thread ever waiting for another's commit, and a reply is complete for its client only
//! when its row is in the database. While more rows wait, the tails of a batch go to another worker: what serves
//! everybody is committing, and a TCP send costs as much as a row.
//!
//! A database that does not take rows (locked, full, broken) holds the first reply for as long as an attempt takes, and
//! further ones hardly. The rows wait in memory, bounded in bytes; every later commit tries them first, without waiting
//! for a lock, and so does the [`super::keeper`].
//!
//! No commit that a reply waits for writes packs: the keeper has that done.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::connections::{Connections, Slot};
use super::desk::Desk;
pub use super::desk::Progress;
use super::packing;
use super::row::Row;
use super::signals::{COMMIT_LOG_BYTES, Figures, KeeperWork, NewRows, Signals};
use super::store::Store;
use crate::bell::{Bell, lock};
use crate::client::Tail;
use crate::limits::{BATCH_ROWS_MAX, COMMIT_WAIT_MAX, QUICK_COMMIT_TIME_MAX};
use crate::outage::Outage;

/// A row on its way into the database.
struct Entry {
    row: Row,
    then: Then,
}

/// What happens when the row is committed, or cannot be.
enum Then {
    /// The reply ends.
    Send(Tail),
    /// The worker that waits goes on.
    Tell(Answer),
}

/// The committing thread's answer to a worker that waits for its row: `Some` when that is decided, with the id if the
/// row is in. Dropped unsaid, by a panic, it lets the worker go.
struct Answer(Arc<Bell<Option<Option<i64>>>>);

impl Answer {
    fn give(self, id: Option<i64>) {
        self.0.ring(|answer| *answer = Some(id));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.ring(|answer| {
            answer.get_or_insert(None);
        });
    }
}

/// Whether a thread waits for what is in the way of a commit: another writer, a lock, a database that does not answer.
#[derive(Clone, Copy)]
enum Patience {
    Usual,
    None,
}

#[derive(Default)]
struct Arrivals {
    entries: VecDeque<Entry>,
    /// Somebody is committing and will take what arrives.
    committing: bool,
}

/// Takes rows from any thread.
pub struct Recorder {
    arrivals: Mutex<Arrivals>,
    desk: Mutex<Desk>,
    connections: Arc<Connections>,
    signals: Signals,
    /// The last commit took long.
    slow: AtomicBool,
    /// Committed rows that could not be corrected.
    uncorrected: Outage,
}

impl Recorder {
    /// Takes over the writing connection.
    pub fn new(store: Store) -> Recorder {
        Recorder {
            arrivals: Mutex::default(),
            connections: store.connections().clone(),
            desk: Mutex::new(Desk::new(store)),
            signals: Signals::default(),
            slow: AtomicBool::new(false),
            uncorrected: Outage::new(),
        }
    }

    /// Commits `row`, then sends `tail`; or leaves both to the thread that is committing. Tails that another thread
    /// should send are handed to `pass_on`.
    pub fn finish(&self, row: Row, tail: Tail, pass_on: impl Fn(Vec<Tail>)) {
        self.arrive(Entry { row, then: Then::Send(tail) }, pass_on);
    }

    /// Commits the rows, then sends their tails, if that keeps nobody waiting: the database takes rows, the last commit
    /// was quick, and nobody else is writing. Or leaves both to the thread that is committing. Else `hand_over` has a
    /// worker call [`Recorder::commit_arrivals`]; only if none is free (false) they are committed here all the same.
    pub fn finish_now(&self, replies: Vec<(Row, Tail)>, pass_on: impl Fn(Vec<Tail>), hand_over: impl Fn() -> bool) {
        {
            let mut arrivals = self.arrivals();
            arrivals.entries.extend(replies.into_iter().map(|(row, tail)| Entry { row, then: Then::Send(tail) }));
            if arrivals.committing {
                return;
            }
            arrivals.committing = true;
        }
        self.run_shift(pass_on, Patience::None, hand_over);
    }

    /// Goes on where [`Recorder::finish_now`] stopped.
    pub fn commit_arrivals(&self, pass_on: impl Fn(Vec<Tail>)) {
        self.run_shift(pass_on, Patience::Usual, || false);
    }

    /// Commits `row` and waits for it: its id, or `None` when the database does not take it now and it waits in
    /// memory.
    pub fn commit(&self, row: Row, pass_on: impl Fn(Vec<Tail>)) -> Option<i64> {
        let answer = Arc::new(Bell::default());
        self.arrive(Entry { row, then: Then::Tell(Answer(answer.clone())) }, pass_on);
        answer.wait(|answer| *answer)
    }

    /// Corrects a committed row whose counts changed afterwards.
    pub fn correct(&self, id: Option<i64>, before: &Row, after: Row) {
        let after = Row { duration_ms: before.duration_ms, content: before.content.clone(), ..after };
        // A row that still waits in memory stays as it was: what came after a terminal event is worth no search.
        let Some(id) = id else { return };
        if *before == after {
            return;
        }
        let corrected = self.desk().store.correct(id, before, &after);
        match corrected {
            Ok(_) => {
                self.uncorrected.over(|count| format!("rows can be corrected again; {count} could not be"));
            }
            Err(e) => {
                self.uncorrected.warn(format_args!("row {id} could not be corrected: {e}"));
            }
        }
    }

    /// Tries the waiting rows once more.
    pub fn retry(&self) -> Progress {
        self.desk().write_waiting(&self.signals)
    }

    /// Whether the last rows were not taken because the disk is full.
    pub(super) fn is_disk_full(&self) -> bool {
        self.desk().is_disk_full()
    }

    /// The log was cut for that.
    pub(super) fn note_log_cut(&self) {
        self.desk().note_log_cut();
    }

    /// The rows that still wait, for who keeps them elsewhere.
    pub(super) fn take_waiting(&self) -> Vec<Row> {
        self.desk().take_waiting(&self.signals.figures)
    }

    /// How many of the rows under this mark are in the database.
    pub(super) fn taken_in(&self, mark: &str) -> rusqlite::Result<usize> {
        self.desk().taken_in(mark)
    }

    /// Writes some of the rows that an earlier run kept elsewhere; returns how many are in the database then.
    pub(super) fn take_in(&self, mark: &str, rows: &[Row], done: usize) -> rusqlite::Result<usize> {
        self.desk().take_in(mark, rows, done, &self.signals)
    }

    /// How much the write-ahead log may grow before the keeper is told.
    pub(super) fn log_growth_max(&self) -> u64 {
        self.signals.log_growth_max()
    }

    pub(super) fn set_log_growth_max(&self, bytes: u64) {
        self.signals.set_log_growth_max(bytes);
    }

    /// Opens the database anew where its path leads elsewhere by now.
    pub fn find_database(&self) {
        self.desk().find_database(&self.signals);
    }

    /// Looks after the rows that came since the last look: what became of the files under them, and how many are not
    /// packed.
    pub(super) fn look(&self) -> u64 {
        self.find_database();
        self.signals.look()
    }

    /// Packs the rows behind what is packed, which are read through `reading`. In short transactions: commits take their
    /// turn in between.
    pub fn pack(&self, reading: &rusqlite::Connection) -> rusqlite::Result<()> {
        self.signals.note_packed();
        while let Some(folded) = packing::fold(reading)? {
            self.desk().store.pack(&folded)?;
            self.signals.note_log_growth(COMMIT_LOG_BYTES);
            if !folded.is_full() {
                // What came meanwhile is little, and the beginning of the next time's.
                break;
            }
        }
        Ok(())
    }

    /// One short transaction of clean-up; commits wait for it. `log_bytes`: what it adds to the write-ahead log beside
    /// the pages that every commit changes, roughly.
    pub(super) fn clean<T>(
        &self,
        log_bytes: usize,
        step: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let done = self.desk().store.clean(step);
        self.signals.note_log_growth(COMMIT_LOG_BYTES + log_bytes);
        done
    }

    /// Everything is written: another proxy may have the database.
    pub fn let_go(&self) {
        self.desk().store.let_go();
    }

    /// Where another connection of this process to the database lies.
    pub fn slot<T: Send + std::fmt::Debug + 'static>(&self) -> Slot<T> {
        self.connections.slot()
    }

    /// Runs `work` while nothing is committed.
    pub fn while_quiet<T>(&self, work: impl FnOnce() -> T) -> T {
        let _desk = self.desk();
        work()
    }

    /// Lets go of the database. A row that comes all the same opens it again.
    pub(super) fn close(&self) {
        self.desk().store.close();
    }

    /// Gives the keeper something to do.
    pub(super) fn wake_keeper(&self, what: impl FnOnce(&mut KeeperWork)) {
        self.signals.keeper.ring(what);
    }

    /// Waits, at most so long, until there is something to do for the keeper, and takes it.
    pub(super) fn wait_for_work(&self, at_most: Duration) -> KeeperWork {
        self.signals.wait_for_work(at_most)
    }

    /// What tells that rows were committed.
    pub fn new_rows(&self) -> &NewRows {
        &self.signals.new_rows
    }

    /// Counters.
    pub fn figures(&self) -> &Figures {
        &self.signals.figures
    }

    fn arrive(&self, entry: Entry, pass_on: impl Fn(Vec<Tail>)) {
        {
            let mut arrivals = self.arrivals();
            arrivals.entries.push_back(entry);
            if arrivals.committing {
                return;
            }
            arrivals.committing = true;
        }
        self.run_shift(pass_on, Patience::Usual, || false);
    }

    /// Commits whatever arrives until nothing is left, or patience ends and somebody else goes on.
    fn run_shift(&self, pass_on: impl Fn(Vec<Tail>), mut patience: Patience, hand_over: impl Fn() -> bool) {
        let mut shift = Shift { recorder: self, ended: false };
        let mut tails = Vec::new();
        while let Some(batch) = shift.next_batch() {
            if !tails.is_empty() {
                pass_on(mem::take(&mut tails));
            }
            if let Err(batch) = self.commit_batch(batch, &mut tails, patience) {
                shift.put_back(batch);
            }
            // Who has no patience does not go on committing for others either.
            if matches!(patience, Patience::None) && shift.has_more() {
                // Before anything is sent: until then nobody commits.
                if hand_over() {
                    shift.ended = true;
                    break;
                }
                patience = Patience::Usual;
            }
        }
        // Nobody waits for this thread any more: it sends the last batch's tails itself.
        tails.into_iter().for_each(Tail::send);
    }

    fn commit_batch(&self, batch: Vec<Entry>, tails: &mut Vec<Tail>, patience: Patience) -> Result<(), Vec<Entry>> {
        let (rows, thens): (Vec<Row>, Vec<Then>) = batch.into_iter().map(|entry| (entry.row, entry.then)).unzip();
        let log_bytes = COMMIT_LOG_BYTES + rows.iter().map(|row| row.size() + row.content.size()).sum::<usize>();
        let began = Instant::now();
        let written = match patience {
            Patience::Usual => Ok(self.desk().write(rows, &self.signals)),
            Patience::None => self.write_now(rows),
        };
        let mut ids = match written {
            Ok(ids) => ids.into_iter(),
            Err(rows) => return Err(rows.into_iter().zip(thens).map(|(row, then)| Entry { row, then }).collect()),
        };
        self.slow.store(began.elapsed() > QUICK_COMMIT_TIME_MAX, Ordering::Relaxed);
        for then in thens {
            let id = ids.next();
            match then {
                Then::Send(tail) => tails.push(tail),
                Then::Tell(answer) => answer.give(id),
            }
        }
        self.signals.note_log_growth(log_bytes);
        Ok(())
    }

    /// The rows come back where writing them would have to wait, or fails.
    fn write_now(&self, rows: Vec<Row>) -> Result<Vec<i64>, Vec<Row>> {
        if self.slow.load(Ordering::Relaxed) {
            return Err(rows);
        }
        let mut desk = match self.desk.try_lock() {
            Ok(desk) => desk,
            Err(TryLockError::Poisoned(desk)) => desk.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(rows),
        };
        desk.write_now(&rows, &self.signals).ok_or(rows)
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        lock(&self.arrivals)
    }

    /// For who has patience.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        let mut desk = lock(&self.desk);
        desk.store.set_lock_wait(COMMIT_WAIT_MAX);
        desk
    }
}

/// One thread's turn at committing. It ends when nothing is left, or when the thread panics: then somebody else can
/// begin one.
struct Shift<'a> {
    recorder: &'a Recorder,
    /// Or somebody else goes on with it.
    ended: bool,
}

impl Shift<'_> {
    fn next_batch(&mut self) -> Option<Vec<Entry>> {
        let mut arrivals = self.recorder.arrivals();
        if arrivals.entries.is_empty() {
            arrivals.committing = false;
            self.ended = true;
            return None;
        }
        let rows = arrivals.entries.len().min(BATCH_ROWS_MAX);
        Some(arrivals.entries.drain(..rows).collect())
    }

    fn has_more(&self) -> bool {
        !self.recorder.arrivals().entries.is_empty()
    }

    fn put_back(&self, batch: Vec<Entry>) {
        let mut arrivals = self.recorder.arrivals();
        batch.into_iter().rev().for_each(|entry| arrivals.entries.push_front(entry));
    }
}

impl Drop for Shift<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.recorder.arrivals().committing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::store::DbSync;
    use crate::testing::{Folder, row};

    /// A recorder with one row, and another connection to its database.
    fn recorder() -> (Recorder, rusqlite::Connection, Folder) {
        let folder = Folder::new();
        let store = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
        let recorder = Recorder::new(store);
        assert_eq!(recorder.commit(row(), |_| ()), Some(1));
        let other = rusqlite::Connection::open(folder.join("metrics.db")).expect("opens");
        (recorder, other, folder)
    }

    #[test]
    fn the_first_row_since_the_keeper_looked_wakes_it_and_no_other() {
        let (recorder, other, _folder) = recorder();
        let woken = || recorder.wait_for_work(Duration::ZERO).rows_came;
        assert!(woken());
        recorder.commit(row(), |_| ());
        assert!(!woken());
        assert_eq!(recorder.look(), 2);
        recorder.commit(row(), |_| ());
        assert!(woken());
        assert_eq!(recorder.look(), 3);
        recorder.pack(&other).expect("packs");
        assert_eq!(recorder.look(), 0);
        let packed_until = "SELECT value FROM meta WHERE name = 'packed_until'";
        assert_eq!(other.query_row(packed_until, [], |row| row.get(0)), Ok(3));
    }

    #[test]
    fn rows_that_wait_are_tried_again_by_the_clock() {
        let (recorder, other, _folder) = recorder();
        let woken = || recorder.wait_for_work(Duration::ZERO).rows_wait;
        assert!(!woken());
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        assert_eq!(recorder.commit(row(), |_| ()), None);
        assert!(woken());
        // Regression: each attempt that failed was a reason for the next, without a rest.
        assert_eq!(recorder.retry(), Progress::Refused);
        assert!(!woken());
        assert_eq!(recorder.commit(row(), |_| ()), None);
        assert!(!woken());
        other.execute_batch("ROLLBACK").expect("unlocks");
        assert_eq!(recorder.retry(), Progress::Done);
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        assert_eq!(recorder.commit(row(), |_| ()), None);
        assert!(woken(), "the first to wait again");
        other.execute_batch("ROLLBACK").expect("unlocks");
        assert_eq!(recorder.retry(), Progress::Done);
        assert_eq!(other.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)), Ok(4));
    }
}
