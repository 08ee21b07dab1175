//! The writer: the store under one lock, and whoever holds it writes. It keeps the rows that the database does not take
//! now, bounded in bytes, and tries them before any others; and it notices when the database is elsewhere, damaged, or
//! well again.
//!
//! What was said goes first, figures last: the content of rows that wait has a bound of its own, beyond which it is
//! dropped, and a row that is refused for good is tried without. The oldest content goes first, for the prompt of a
//! later turn repeats what was said before, and it is what clean-up would remove first.
//!
//! Does not decide who writes, nor when: the recorder and the keeper do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fmt, mem};

use rusqlite::ErrorCode;

use super::database_file::FileState;
use super::meta;
use super::row::{Content, Row};
use super::signals::{CommitFigures, Signals};
use super::store::{Store, Trouble, gone, is_gone};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, WAITING_CONTENT_BYTES_MAX, WAITING_ROWS_BYTES_MAX};
use crate::outage::Outage;

/// What the committing thread holds.
pub(super) struct Writer {
    pub(super) store: Store,
    signals: Arc<Signals>,
    waiting: WaitingRows,
    /// What became of the database, until another one is open.
    file_state: Option<FileState>,
    /// There was no room for the last rows.
    pub(super) disk_full: bool,
    /// Since then the log was cut, which may have made room.
    pub(super) log_cut: bool,
    /// Rows that are refused for good for what was said in them, and those refused for themselves.
    refused: Refused,
}

/// How far an attempt to write what waits came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing waits any more.
    Done,
    /// The log has grown: before it grows further, it is to be checkpointed.
    More,
    /// The database does not take them.
    Refused,
}

/// Rows that the database did not take yet.
#[derive(Default)]
struct WaitingRows {
    rows: VecDeque<Row>,
    /// So many of the oldest had their content dropped.
    bare: usize,
    /// Of the rows without their content.
    bytes: usize,
    content_bytes: usize,
    /// Most of both.
    bytes_max: usize,
    content_bytes_max: usize,
    /// The database refused the last attempt; said in the log once.
    failing: bool,
    /// What went since it does: each is said once, and how many it were in the end.
    contents_dropped: u64,
    rows_dropped: u64,
}

impl Writer {
    pub(super) fn new(store: Store, signals: Arc<Signals>) -> Writer {
        Writer {
            store,
            signals,
            waiting: WaitingRows::within(WAITING_ROWS_BYTES_MAX, WAITING_CONTENT_BYTES_MAX),
            file_state: None,
            disk_full: false,
            log_cut: false,
            refused: Refused::default(),
        }
    }

    /// Writes to the file that is at the database's path now, a new one if there is none. True when nothing is in the
    /// way of writing.
    pub(super) fn find_database(&mut self) -> bool {
        if !self.store.must_reopen() {
            return true;
        }
        let path = self.store.files.path.display().to_string();
        let (stuck, state) = (self.store.is_stuck(), self.store.file_state());
        let state = *self.file_state.get_or_insert(state);
        if let Err(e) = self.store.reopen() {
            self.waiting.fail(&e);
            return false;
        }
        self.file_state = None;
        if let Ok(newest_id) = self.store.newest_id() {
            self.signals.new_rows.note_begun(self.store.files.file, newest_id);
        }
        match state {
            FileState::Held if stuck => log::warn!("{path} was locked for long and nobody let go; it was opened anew"),
            // Damaged before; whether it is now, writing will tell.
            FileState::Held => {}
            FileState::LogGone => {
                log::warn!("{path}-wal or -shm was removed while in use; its rows were saved into {path}");
            }
            FileState::LogShort => {
                log::error!("{path}-wal was cut while in use: rows that were only there are lost; it goes on");
            }
            FileState::Taken => log::warn!("{path} was replaced by another database; rows go there from now on"),
            FileState::Gone => log::error!("{path} was deleted or moved, with the rows it held; a new one was begun"),
        }
        true
    }

    fn fail(&mut self, error: &rusqlite::Error) {
        self.disk_full = is_full(error);
        if self.disk_full && !self.log_cut {
            // The keeper cuts the log and tries again; only if there is no room then, somebody has to make some.
            return;
        }
        if self.store.trouble == Some(Trouble::Damaged) {
            let path = self.store.files.path.display();
            self.waiting.fail(&format_args!("{error}: restore a copy of {path}, or move it away to begin anew"));
        } else {
            self.waiting.fail(error);
        }
    }

    /// Writes what waits and `rows` in one transaction. The ids of `rows`, or none when they wait now.
    pub(super) fn write(&mut self, rows: Vec<Row>) -> Vec<i64> {
        if !self.waiting.rows.is_empty() {
            self.waiting.keep(rows, &self.signals);
            self.write_waiting();
            return Vec::new();
        }
        // Where the files are, writing looks.
        if !self.store.is_troubled() || self.find_database() {
            let written = match self.store.write(&rows) {
                Err(e) if is_gone(&e) => self.find_database().then(|| self.store.write(&rows)),
                written => Some(written),
            };
            match written {
                Some(Ok(ids)) => return self.wrote(ids),
                Some(Err(e)) => self.fail(&e),
                None => {}
            }
        }
        self.waiting.keep(rows, &self.signals);
        Vec::new()
    }

    /// Writes `rows` if nothing is in the way and no lock must be waited for. What else goes wrong is found again by
    /// who writes them then.
    pub(super) fn write_now(&mut self, rows: &[Row]) -> Option<Vec<i64>> {
        // Whether the file is where it was, writing finds out.
        if !self.waiting.rows.is_empty() || self.store.is_troubled() {
            return None;
        }
        self.store.set_lock_wait(Duration::ZERO);
        let ids = self.store.write(rows).ok()?;
        Some(self.wrote(ids))
    }

    /// What waits, for who keeps it elsewhere.
    pub(super) fn take_waiting(&mut self) -> Vec<Row> {
        let rows = mem::take(&mut self.waiting.rows).into();
        (self.waiting.bytes, self.waiting.content_bytes, self.waiting.bare) = (0, 0, 0);
        self.signals.figures.waiting.store(0, Ordering::Relaxed);
        rows
    }

    /// Writes some of the rows that an earlier run kept elsewhere, behind the first `done`, which are in already, and in
    /// the same transaction how many they are. Returns that.
    pub(super) fn take_in(&mut self, mark: &str, rows: &[Row], done: usize) -> rusqlite::Result<usize> {
        if !self.find_database() {
            return Err(gone("the database cannot be opened"));
        }
        let store = &mut self.store;
        let dealt = write_first(&rows[done..], (&self.signals.figures, &self.refused), |rows, count| {
            let done = i64::try_from(done + count).unwrap_or(i64::MAX);
            store.write_and(rows, |conn| meta::set(conn, mark, done)).map(drop)
        })?;
        self.signals.note_written(dealt.written);
        self.note_log_growth();
        Ok(done + dealt.rows)
    }

    /// Works with the store beside the rows that come.
    pub(super) fn beside<T>(&mut self, work: impl FnOnce(&mut Store) -> T) -> T {
        let done = work(&mut self.store);
        self.note_log_growth();
        done
    }

    /// Tells the keeper by how much the log has grown, and returns it.
    fn note_log_growth(&mut self) -> u64 {
        let grown = self.store.take_log_growth();
        self.signals.note_log_growth(grown);
        grown
    }

    fn wrote(&mut self, ids: Vec<i64>) -> Vec<i64> {
        self.note_log_growth();
        self.signals.note_written(ids.len());
        self.refused.note_taken();
        (self.disk_full, self.log_cut) = (false, false);
        self.waiting.recover();
        ids
    }

    /// Writes what waits, oldest first, as far as the database takes it, and no more than the log is to grow by. Does
    /// not wait for a lock.
    pub(super) fn write_waiting(&mut self) -> Progress {
        let signals = self.signals.clone();
        let mut log_bytes = 0;
        if self.waiting.rows.is_empty() {
            return Progress::Done;
        }
        if !self.find_database() {
            return Progress::Refused;
        }
        // The database took none the last time. No reply is held to see whether it does now.
        self.store.set_lock_wait(Duration::ZERO);
        while !self.waiting.rows.is_empty() {
            if log_bytes >= signals.log_growth_max() {
                return Progress::More;
            }
            let (rows, store) = (self.waiting.rows.make_contiguous(), &mut self.store);
            match write_first(rows, (&signals.figures, &self.refused), |rows, _| store.write(rows).map(drop)) {
                Ok(dealt) => {
                    signals.note_written(dealt.written);
                    self.waiting.remove(dealt.rows, &signals.figures);
                    log_bytes += self.note_log_growth();
                }
                Err(e) => {
                    self.fail(&e);
                    return Progress::Refused;
                }
            }
        }
        (self.disk_full, self.log_cut) = (false, false);
        self.waiting.recover();
        Progress::Done
    }
}

/// What the database refuses for good, whatever is tried: it may be every row.
#[derive(Debug, Default)]
struct Refused {
    contents: Outage,
    rows: Outage,
}

impl Refused {
    /// Rows are taken as they are.
    fn note_taken(&self) {
        self.contents.over(|count| format!("what is said in requests is kept again; that of {count} was not"));
        self.rows.over(|count| format!("no row is given up any more; {count} were"));
    }
}

impl WaitingRows {
    fn within(bytes_max: usize, content_bytes_max: usize) -> WaitingRows {
        WaitingRows { bytes_max, content_bytes_max, ..WaitingRows::default() }
    }

    fn fail(&mut self, error: &dyn fmt::Display) {
        if !mem::replace(&mut self.failing, true) {
            log::error!("the database does not take rows ({error}); they wait in memory and are tried again");
        }
    }

    fn recover(&mut self) {
        if !mem::take(&mut self.failing) {
            return;
        }
        match (mem::take(&mut self.contents_dropped), mem::take(&mut self.rows_dropped)) {
            (0, 0) => log::warn!("the database takes rows again; none waits any more"),
            (contents, rows) => log::warn!(
                "the database takes rows again; none waits any more; of those that waited {rows} were lost, and {contents} \
                 without what was said"
            ),
        }
    }

    /// The keeper is told of the first: from then on it tries again by the clock.
    fn keep(&mut self, rows: Vec<Row>, signals: &Signals) {
        let figures = &signals.figures;
        let first = self.rows.is_empty();
        for mut row in rows {
            // Words that are not kept do not wait either.
            if let Some(shape) = &mut row.content.shape {
                shape.unkept = None;
            }
            let size = row.size();
            if self.bytes + size > self.bytes_max {
                figures.dropped.fetch_add(1, Ordering::Relaxed);
                self.rows_dropped += 1;
                if self.rows_dropped == 1 {
                    log::error!(
                        "rows are lost from now on: {} wait for the database, which is all that may",
                        self.rows.len()
                    );
                }
                continue;
            }
            self.bytes += size;
            self.content_bytes += row.content.size();
            self.rows.push_back(row);
        }
        self.fit_content(figures);
        figures.waiting.store(self.rows.len() as u64, Ordering::Relaxed);
        if first && !self.rows.is_empty() {
            signals.keeper.ring(|work| work.rows_wait = true);
        }
    }

    /// Drops the oldest content while there is too much.
    fn fit_content(&mut self, figures: &CommitFigures) {
        while self.content_bytes > self.content_bytes_max
            && let Some(row) = self.rows.get_mut(self.bare)
        {
            self.bare += 1;
            let content = mem::take(&mut row.content);
            self.content_bytes -= content.size();
            if content.is_empty() {
                continue;
            }
            figures.contents_dropped.fetch_add(1, Ordering::Relaxed);
            self.contents_dropped += 1;
            if self.contents_dropped == 1 {
                log::warn!(
                    "prompts and outputs of requests are lost from now on, oldest first: more than {} MB wait for the \
                     database; their figures are kept",
                    self.content_bytes_max / (1024 * 1024)
                );
            }
        }
    }

    /// The first are dealt with.
    fn remove(&mut self, count: usize, figures: &CommitFigures) {
        for row in self.rows.drain(..count) {
            self.bytes -= row.size();
            self.content_bytes -= row.content.size();
        }
        self.bare = self.bare.saturating_sub(count);
        figures.waiting.store(self.rows.len() as u64, Ordering::Relaxed);
    }
}

/// What became of the first of some rows.
struct Dealt {
    /// So many are written or given up,
    rows: usize,
    /// so many of them written.
    written: usize,
}

/// Writes the first of `rows`, as many as make a transaction, or one where the database will not have them all. One that
/// it will never take loses what was said, and is given up if that does not help. `write` has the rows to write, and how
/// many of all are dealt with then.
fn write_first(
    rows: &[Row],
    (figures, said): (&CommitFigures, &Refused),
    mut write: impl FnMut(&[Row], usize) -> rusqlite::Result<()>,
) -> rusqlite::Result<Dealt> {
    let mut attempt = |rows: &[Row], count: usize| {
        write(rows, count)?;
        Ok(Dealt { rows: count, written: rows.len() })
    };
    let count = batch_of(rows.iter());
    let refused = match attempt(&rows[..count], count) {
        // One of them is what the database will never take, or there is no room for so many: then one by one.
        Err(e) if is_lasting(&e) || is_full(&e) => match attempt(&rows[..1], 1) {
            Err(e) if is_lasting(&e) => e,
            done => return done,
        },
        done => return done,
    };
    let refused = if rows[0].content.is_empty() {
        refused
    } else {
        match attempt(&[Row { content: Content::default(), ..rows[0].clone() }], 1) {
            Ok(dealt) => {
                said.contents.warn(format_args!("what was said in a request is not kept: {refused}"));
                figures.contents_dropped.fetch_add(1, Ordering::Relaxed);
                return Ok(dealt);
            }
            Err(e) if is_lasting(&e) => e,
            Err(e) => return Err(e),
        }
    };
    let dealt = attempt(&[], 1)?;
    said.rows.error(format_args!("a row was given up: {refused}"));
    figures.dropped.fetch_add(1, Ordering::Relaxed);
    Ok(dealt)
}

/// How many of these rows, the first at least, make a transaction.
fn batch_of<'a>(rows: impl Iterator<Item = &'a Row>) -> usize {
    let mut bytes = 0;
    let fits = |row: &&Row| {
        bytes += row.size() + row.content.size();
        bytes <= BATCH_BYTES_MAX
    };
    rows.take(BATCH_ROWS_MAX).take_while(fits).count().max(1)
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether trying again cannot help: the row itself is what the database refuses.
fn is_lasting(error: &rusqlite::Error) -> bool {
    use ErrorCode::*;
    matches!(error.sqlite_error_code(), Some(TooBig | ConstraintViolation | TypeMismatch | ParameterOutOfRange))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::store::DbSync;
    use crate::testing::{Folder, row};

    fn said(bytes: usize) -> Row {
        Row { content: Content { prompt: Some("x".repeat(bytes).into()), ..Content::default() }, ..row() }
    }

    fn writer(path: &std::path::Path) -> (Writer, Arc<Signals>) {
        let signals = Arc::new(Signals::default());
        (Writer::new(Store::open(path, DbSync::Normal).expect("opens"), signals.clone()), signals)
    }

    /// Numbers of the rows whose content is still there.
    fn with_content(waiting: &WaitingRows) -> Vec<usize> {
        (0..waiting.rows.len()).filter(|at| !waiting.rows[*at].content.is_empty()).collect()
    }

    fn dropped(signals: &Signals) -> (u64, u64) {
        let CommitFigures { dropped, contents_dropped, .. } = &signals.figures;
        (dropped.load(Ordering::Relaxed), contents_dropped.load(Ordering::Relaxed))
    }

    #[test]
    fn content_goes_before_figures_and_the_oldest_first() {
        let signals = Signals::default();
        let mut waiting = WaitingRows::within(10 * said(0).size(), 1000);
        for _ in 0..3 {
            waiting.keep(vec![said(400)], &signals);
        }
        assert_eq!((waiting.rows.len(), with_content(&waiting), dropped(&signals)), (3, vec![1, 2], (0, 1)));
        // More than all that may wait goes itself, and so does what came before it.
        waiting.keep(vec![said(1001)], &signals);
        assert_eq!((waiting.rows.len(), with_content(&waiting), dropped(&signals)), (4, vec![], (0, 4)));
        waiting.keep(vec![said(500), said(500)], &signals);
        assert_eq!((with_content(&waiting), dropped(&signals)), (vec![4, 5], (0, 4)));
        // Rows that leave change nothing in that.
        waiting.remove(5, &signals.figures);
        waiting.keep(vec![said(500), said(1)], &signals);
        assert_eq!((with_content(&waiting), dropped(&signals)), (vec![1, 2], (0, 5)));
        // Then figures, and of these what comes last: what waits is kept.
        waiting.keep((0..8).map(|_| said(0)).collect(), &signals);
        assert_eq!((waiting.rows.len(), dropped(&signals)), (10, (1, 5)));
        waiting.remove(10, &signals.figures);
        assert_eq!((waiting.bytes, waiting.content_bytes, waiting.bare), (0, 0, 0));
    }

    #[test]
    fn what_waits_is_written_in_parts_where_the_log_may_not_grow_far() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let (mut writer, signals) = writer(&path);
        signals.set_log_growth_max(2_000_000);
        let other = rusqlite::Connection::open(&path).expect("opens");
        other.execute_batch("BEGIN IMMEDIATE").expect("locks");
        // None of them says what another does.
        let prompt = |number| Some(format!("{number}{}", "x".repeat(400_000)).into());
        let content = |number| Content { prompt: prompt(number), ..Content::default() };
        writer.write((0..10).map(|number| Row { content: content(number), ..row() }).collect());
        assert_eq!(writer.write_waiting(), Progress::Refused);
        other.execute_batch("ROLLBACK").expect("unlocks");
        let mut left = Vec::new();
        while writer.write_waiting() == Progress::More {
            left.push(writer.waiting.rows.len());
            assert!(signals.wait_for_work(Duration::ZERO).log_grew);
        }
        // Two of them make a transaction, three transactions what the log may grow by.
        assert_eq!((left, writer.waiting.rows.len()), (vec![4], 0));
    }

    #[test]
    fn the_figures_of_200_000_requests_fit() {
        let typical = Row {
            requested_model: row().model,
            request_id: Some("chatcmpl-0123456789abcdef0123456789abcdef".to_owned()),
            client: Some("openai-python/1.109.1".to_owned()),
            key: Some("9c1716ac26cd".to_owned()),
            ..said(250_000)
        };
        assert!(200_000 * typical.size() <= WAITING_ROWS_BYTES_MAX, "{}", typical.size());
    }

    #[test]
    fn a_row_that_is_refused_for_what_was_said_keeps_its_figures() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let (mut writer, signals) = writer(&path);
        let other = rusqlite::Connection::open(&path).expect("opens");
        // Somebody has removed a row by hand, and left its content.
        other.execute_batch("INSERT INTO content (id, prompt) VALUES (2, 'left')").expect("written");
        writer.write(vec![row(), said(10), row()]);
        assert_eq!(writer.write_waiting(), Progress::Done);
        assert_eq!(other.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)), Ok(3));
        assert_eq!(other.query_row("SELECT count(*) FROM content WHERE prompt = 'hello'", [], |row| row.get(0)), Ok(2));
        assert_eq!((dropped(&signals), writer.waiting.rows.len()), ((0, 1), 0));
    }

    #[test]
    fn a_row_that_is_refused_for_good_is_given_up_and_keeps_no_other_waiting() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let (mut writer, signals) = writer(&path);
        let other = rusqlite::Connection::open(&path).expect("opens");
        let trigger = "CREATE TRIGGER no BEFORE INSERT ON requests WHEN NEW.endpoint = 'no'
                       BEGIN SELECT RAISE(ABORT, 'no'); END";
        other.execute_batch(trigger).expect("made");
        let rows = [row(), Row { endpoint: "no".to_owned(), ..said(10) }, row()];
        writer.write(rows.to_vec());
        assert_eq!(writer.write_waiting(), Progress::Done);
        assert_eq!((dropped(&signals), writer.waiting.rows.len()), ((1, 0), 0));
        // The same for those that an earlier run kept.
        let mut done = 0;
        while done < rows.len() {
            done = writer.take_in("unsaved:test", &rows, done).expect("taken");
        }
        assert_eq!((dropped(&signals), meta::number(&writer.store.conn, "unsaved:test")), ((2, 0), Ok(Some(3))));
        assert_eq!(other.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)), Ok(4));
    }
}
