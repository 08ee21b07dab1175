//! Commits rows before their replies end, in as few transactions as the load allows.
//!
//! A worker that ends an exchange leaves here its row and the reply's last bytes. If nobody commits at that moment, it
//! commits the row itself and sends the bytes: alone, that is the shortest way. Otherwise it leaves at once for its
//! next exchange, and whoever is committing takes the row into its next transaction. A lane does the same with the rows
//! of a turn, but only where that keeps it for a moment ([`Recorder::finish_now`]). So a busy proxy commits in batches,
//! hardly a thread waits for another's commit (only one that must know its row's id does, [`Recorder::commit`]), and a
//! reply is complete for its client only when its row is in the database, or kept for it. While more rows wait, the
//! tails of a batch go to another worker: what serves everybody is committing, and a TCP send costs as much as a row.
//!
//! A database that does not take rows (locked, full, broken) holds the first reply for as long as an attempt takes, and
//! further ones hardly. The rows wait in memory, bounded in bytes; every later commit tries them first, without waiting
//! for a lock, and so does the [`super::keeper`].
//!
//! No commit that a reply waits for writes packs: the keeper has that done.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Instant;

use super::connections::{ConnectionSlot, Connections};
use super::hours;
use super::packing;
use super::row::{Content, Row};
use super::signals::{CommitFigures, NewRows, Signals};
use super::store::Store;
use super::writer::Writer;
use crate::bell::lock;
use crate::client::Tail;
use crate::limits::{BATCH_ROWS_MAX, COMMIT_WAIT_MAX, QUICK_COMMIT_TIME_MAX};
use crate::outage::Outage;

/// A row on its way into the database.
type Arrival = (Row, AfterCommit);
/// Those that are committed together.
type Batch = (Vec<Row>, Vec<AfterCommit>);

/// What happens when the row is committed, or cannot be.
enum AfterCommit {
    /// The reply ends.
    Send(Tail),
    /// The worker that waits goes on, with the id if the row is in. Dropped unsaid, by a panic, this lets it go, too.
    Tell(SyncSender<Option<i64>>),
}

#[derive(Default)]
struct ArrivedRows {
    waiting: VecDeque<Arrival>,
    /// Somebody is committing and will take what arrives.
    committing: bool,
}

/// Takes rows from any thread.
pub struct Recorder {
    arrivals: Mutex<ArrivedRows>,
    writer: Mutex<Writer>,
    connections: Arc<Connections>,
    pub(super) signals: Arc<Signals>,
    /// The last commit took long.
    slow: AtomicBool,
    /// Committed rows that could not be corrected.
    uncorrected: Outage,
}

impl Recorder {
    /// Takes over the writing connection.
    pub fn new(store: Store) -> Recorder {
        let signals = Arc::<Signals>::default();
        Recorder {
            arrivals: Mutex::default(),
            connections: store.connections().clone(),
            writer: Mutex::new(Writer::new(store, signals.clone())),
            signals,
            slow: AtomicBool::new(false),
            uncorrected: Outage::new(),
        }
    }

    /// Commits `row`, then sends `tail`; or leaves both to the thread that is committing. Tails that another thread
    /// should send are handed to `pass_on`.
    pub fn finish(&self, row: Row, tail: Tail, pass_on: impl Fn(Vec<Tail>)) {
        if self.arrive([(row, AfterCommit::Send(tail))]) {
            self.commit_arrivals(pass_on);
        }
    }

    /// Commits the rows, then sends their tails, if that keeps nobody waiting: the database takes rows, the last commit
    /// was quick, and nobody else is writing. Or leaves both to the thread that is committing. Else `hand_over` has a
    /// worker call [`Recorder::commit_arrivals`]; only if none is free (false) they are committed here all the same.
    pub fn finish_now(
        &self,
        replies: impl Iterator<Item = (Row, Tail)>,
        pass_on: impl Fn(Vec<Tail>),
        hand_over: impl Fn() -> bool,
    ) {
        if self.arrive(replies.map(|(row, tail)| (row, AfterCommit::Send(tail)))) {
            self.run_shift(pass_on, Some(hand_over));
        }
    }

    /// Goes on where [`Recorder::finish_now`] stopped.
    pub fn commit_arrivals(&self, pass_on: impl Fn(Vec<Tail>)) {
        self.run_shift(pass_on, None::<fn() -> bool>);
    }

    /// Commits `row` and waits for it: its id, or `None` when the database does not take it now and it waits in
    /// memory.
    pub fn commit(&self, row: Row, pass_on: impl Fn(Vec<Tail>)) -> Option<i64> {
        self.commit_all(vec![row], pass_on)
    }

    /// The same of all these rows, and the last one's id.
    pub fn commit_all(&self, rows: Vec<Row>, pass_on: impl Fn(Vec<Tail>)) -> Option<i64> {
        // Whoever commits never waits for who waits.
        let (tell, told) = mpsc::sync_channel(rows.len());
        let arrivals = rows.into_iter().map(|row| (row, AfterCommit::Tell(tell.clone())));
        if self.arrive(arrivals.collect::<Vec<_>>()) {
            self.commit_arrivals(pass_on);
        }
        drop(tell);
        told.iter().last().flatten()
    }

    /// Corrects a committed row whose counts changed afterwards. `before` and the corrected row are without words, which
    /// stay as they are.
    pub fn correct(&self, id: Option<i64>, before: &Row, after: Row) {
        let after = Row { duration_ms: before.duration_ms, content: Content::default(), ..after };
        // A row that still waits in memory stays as it was: what came after a terminal event is worth no search.
        let Some(id) = id else { return };
        if *before == after {
            return;
        }
        let corrected = self.writer().store.correct(id, before, &after);
        match corrected {
            Ok(_) => self.uncorrected.over(|count| format!("rows can be corrected again; {count} could not be")),
            Err(e) => self.uncorrected.warn(format_args!("row {id} could not be corrected: {e}")),
        }
    }

    /// Opens the database anew where its path leads elsewhere by now.
    pub fn find_database(&self) {
        self.writer().find_database();
    }

    /// Packs the rows behind what is packed, which are read through `reading`. In short transactions: commits take their
    /// turn in between.
    pub fn pack(&self, reading: &rusqlite::Connection) -> rusqlite::Result<()> {
        loop {
            // Committed by now: what is folded has them, if that is all there is.
            let unpacked = self.signals.unpacked();
            let Some(folded) = packing::fold(reading)? else {
                self.signals.note_packed(unpacked);
                return Ok(());
            };
            let is_packed = self.writer().beside(|store| store.pack(&folded))?;
            // Where a row was corrected meanwhile, they are folded again.
            if is_packed && !folded.is_full() {
                // What came meanwhile is little, and the beginning of the next time's.
                self.signals.note_packed(unpacked);
                return Ok(());
            }
        }
    }

    /// Makes the packs of times of the first open hour that is over at `now_ms`; false: there is none, or its rows have
    /// changed meanwhile.
    pub fn close_hour(&self, reading: &rusqlite::Connection, now_ms: i64) -> rusqlite::Result<bool> {
        let Some(folded) = hours::fold(reading, now_ms)? else { return Ok(false) };
        self.writer().beside(|store| store.close_hour(&folded))
    }

    /// One short transaction of clean-up; commits wait for it.
    pub(super) fn clean<T>(
        &self,
        step: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.writer().beside(|store| store.transact(|conn, _| step(conn)))
    }

    /// The same of one that removes pieces of prompts, and says before which block those were used last.
    pub(super) fn clean_pieces(
        &self,
        step: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<i64>,
    ) -> rusqlite::Result<()> {
        self.writer().beside(|store| {
            let before = store.transact(|conn, _| step(conn))?;
            store.pieces.note_removed(before);
            Ok(())
        })
    }

    /// Where another connection of this process to the database lies.
    pub fn slot<T: Send + 'static>(&self) -> ConnectionSlot<T> {
        self.connections.slot()
    }

    /// What tells that rows were committed.
    pub fn new_rows(&self) -> &NewRows {
        &self.signals.new_rows
    }

    /// Counters.
    pub fn figures(&self) -> &CommitFigures {
        &self.signals.figures
    }

    /// True: nobody commits, so that the caller has to.
    fn arrive(&self, rows: impl IntoIterator<Item = Arrival>) -> bool {
        let mut arrivals = lock(&self.arrivals);
        arrivals.waiting.extend(rows);
        !mem::replace(&mut arrivals.committing, true)
    }

    /// Commits whatever arrives until nothing is left. A bug ends the batch in hand alone: the others' replies wait for
    /// whoever commits, and for nobody else.
    fn run_shift(&self, pass_on: impl Fn(Vec<Tail>), hand_over: Option<impl Fn() -> bool>) {
        let mut bug = None;
        let mut committed = catch_unwind(AssertUnwindSafe(|| self.commit_batches(&pass_on, hand_over)));
        let tails = loop {
            match committed {
                Ok(tails) => break tails,
                // Each further one has taken a batch with it, too: this ends.
                Err(another) => bug = Some(another),
            }
            committed = catch_unwind(AssertUnwindSafe(|| self.commit_batches(&pass_on, None::<fn() -> bool>)));
        };
        // Nobody waits for this thread any more: it sends the last batch's tails itself.
        tails.into_iter().for_each(Tail::send);
        if let Some(bug) = bug {
            resume_unwind(bug);
        }
    }

    /// Given somebody to hand over to, it does so rather than wait for what is in the way of a commit: another writer, a
    /// lock, a database that does not answer. The last batch's tails.
    fn commit_batches(&self, pass_on: impl Fn(Vec<Tail>), mut hand_over: Option<impl Fn() -> bool>) -> Vec<Tail> {
        let mut tails = Vec::new();
        while let Some(batch) = self.next_batch() {
            if !tails.is_empty() {
                pass_on(mem::take(&mut tails));
            }
            if let Err((rows, thens)) = self.commit_batch(batch, &mut tails, hand_over.is_some()) {
                let mut arrivals = lock(&self.arrivals);
                rows.into_iter().zip(thens).rev().for_each(|arrival| arrivals.waiting.push_front(arrival));
            }
            // Nor does it go on committing for others then.
            if let Some(hand_over) = hand_over.take_if(|_| !lock(&self.arrivals).waiting.is_empty())
                // Before anything is sent: until then nobody commits.
                && hand_over()
            {
                break;
            }
        }
        tails
    }

    /// `None`: nothing has arrived, and nobody commits any more.
    fn next_batch(&self) -> Option<Batch> {
        let mut arrivals = lock(&self.arrivals);
        arrivals.committing = !arrivals.waiting.is_empty();
        let rows = arrivals.waiting.len().min(BATCH_ROWS_MAX);
        arrivals.committing.then(|| arrivals.waiting.drain(..rows).unzip())
    }

    fn commit_batch(&self, (rows, thens): Batch, tails: &mut Vec<Tail>, at_once: bool) -> Result<(), Batch> {
        let began = Instant::now();
        let written = if at_once { self.write_now(rows) } else { Ok(self.writer().write(rows)) };
        let mut ids = match written {
            Ok(ids) => ids.into_iter(),
            Err(rows) => return Err((rows, thens)),
        };
        self.slow.store(began.elapsed() > QUICK_COMMIT_TIME_MAX, Ordering::Relaxed);
        for then in thens {
            let id = ids.next();
            match then {
                AfterCommit::Send(tail) => tails.push(tail),
                // Who asked is there: it waits.
                AfterCommit::Tell(tell) => drop(tell.send(id)),
            }
        }
        Ok(())
    }

    /// The rows come back where writing them would have to wait, or fails.
    fn write_now(&self, rows: Vec<Row>) -> Result<Vec<i64>, Vec<Row>> {
        if self.slow.load(Ordering::Relaxed) {
            return Err(rows);
        }
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(writer)) => writer.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(rows),
        };
        writer.write_now(&rows).ok_or(rows)
    }

    /// For who has patience.
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        let mut writer = lock(&self.writer);
        writer.store.set_lock_wait(COMMIT_WAIT_MAX);
        writer
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::store::DbSync;
    use crate::record::writer::Progress;
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
        let woken = || recorder.signals.wait_for_work(Duration::ZERO).rows_came;
        assert!(woken());
        recorder.commit(row(), |_| ());
        assert!(!woken());
        assert_eq!(recorder.signals.look(), 2);
        recorder.commit(row(), |_| ());
        assert!(woken());
        assert_eq!(recorder.signals.look(), 3);
        // Regression: rows that could not be packed were told as packed.
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        let reading = rusqlite::Connection::open(other.path().expect("a path")).expect("opens");
        recorder.pack(&reading).expect_err("locked");
        assert_eq!(recorder.signals.look(), 3);
        other.execute_batch("ROLLBACK").expect("unlocks");
        recorder.pack(&other).expect("packs");
        assert_eq!(recorder.signals.look(), 0);
        let packed_until = "SELECT value FROM meta WHERE name = 'packed_until'";
        assert_eq!(other.query_row(packed_until, [], |row| row.get(0)), Ok(3));
    }

    #[test]
    fn a_bug_of_who_commits_leaves_no_row_waiting_for_nobody() {
        let (recorder, _other, _folder) = recorder();
        let (tells, mut told): (Vec<_>, Vec<_>) = (0..=BATCH_ROWS_MAX).map(|_| mpsc::sync_channel(1)).unzip();
        let arrivals = tells.into_iter().map(|tell| (row(), AfterCommit::Tell(tell)));
        assert!(recorder.arrive(arrivals));
        // As the first batch is in, and one row is left.
        let hand_over = || panic!("a bug that this test has made");
        catch_unwind(AssertUnwindSafe(|| recorder.run_shift(|_| (), Some(hand_over)))).expect_err("it is told");
        let last = told.pop().expect("the last").try_recv();
        assert_eq!(last, Ok(Some(BATCH_ROWS_MAX as i64 + 2)));
        assert!(recorder.arrive([]), "nobody commits");
    }

    #[test]
    fn rows_that_wait_are_tried_again_by_the_clock() {
        let (recorder, other, _folder) = recorder();
        let woken = || recorder.signals.wait_for_work(Duration::ZERO).rows_wait;
        assert!(!woken());
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        assert_eq!(recorder.commit(row(), |_| ()), None);
        assert!(woken());
        // Regression: each attempt that failed was a reason for the next, without a rest; and was waited for.
        let mut writer = recorder.writer();
        assert_eq!((writer.write_waiting(), writer.store.lock_wait), (Progress::Refused, Duration::ZERO));
        drop(writer);
        assert!(!woken());
        assert_eq!(recorder.commit(row(), |_| ()), None);
        assert!(!woken());
        other.execute_batch("ROLLBACK").expect("unlocks");
        assert_eq!(recorder.writer().write_waiting(), Progress::Done);
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        assert_eq!(recorder.commit(row(), |_| ()), None);
        assert!(woken(), "the first to wait again");
        other.execute_batch("ROLLBACK").expect("unlocks");
        assert_eq!(recorder.writer().write_waiting(), Progress::Done);
        assert_eq!(other.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)), Ok(4));
    }
}
