//! The keeper: one thread that looks after the database behind the workers' backs. It checkpoints the write-ahead log
//! on a connection of its own, so that no commit waits for an fsync, packs what was committed, closes the hours that are
//! over, tries rows again that the database refused, and cleans up.
//!
//! Where there is little room on the disk it checkpoints earlier, and cuts the log; rows that the database has not taken
//! when the proxy ends it keeps in a file, and takes in what it finds there when it begins.
//!
//! It sleeps until it is woken: by the first row since it looked, by rows that wait, by a log that has grown (so
//! clean-up comes as often as content does), or after `WAKE_GAP`. While clean-up is at work, it rests after each step,
//! so that commits take their turn and relaying has the processor.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use rusqlite::{Connection, OpenFlags};

use super::clean::{Cleaner, Retention};
use super::connections::ConnectionSlot;
use super::database_file::{FileId, beside};
use super::recorder::Recorder;
use super::room;
use super::signals::KeeperWork;
use super::unsaved::{self, TakeIn};
use super::wal;
use super::writer::Progress;
use crate::calendar::now_ms;
use crate::limits::{CLEAN_SPARE_BYTES, PACKED_ROWS_MIN, WAL_BYTES_MAX, WAL_CHECKPOINT_BYTES, WAL_QUIET_BYTES};
use crate::outage::Outage;

/// How often rows that wait are tried again.
const RETRY_GAP: Duration = Duration::from_millis(500);
/// How often it looks whether something became too old.
const WAKE_GAP: Duration = Duration::from_secs(600);
/// Shortest rest after a step of clean-up: a thread that waits for the writer gets it.
const REST_MIN: Duration = Duration::from_millis(1);
/// Longest one, also after a step that met a stall of the disk.
const REST_MAX: Duration = Duration::from_secs(2);
/// How long after a row it looks: once for all until then.
const LOOK_GAP: Duration = Duration::from_secs(1);
/// How long after a row it is packed at the latest.
const PACK_GAP: Duration = Duration::from_secs(600);
/// How long after that the log is moved into the database, if no further row has come: it takes two fsyncs, for which
/// nobody waits then.
const MOVE_GAP: Duration = Duration::from_secs(1);
/// How long after rows were packed hours are closed that are over: rows of streams that go on for longer open them again,
/// and each time their rows are read.
const CLOSE_HOURS_GAP: Duration = Duration::from_secs(300);
/// The keeper rests so many times as long as closing an hour took, and for this long at least, before it closes the next:
/// behind an upgrade there are years of them.
const CLOSE_HOURS_REST_FACTOR: u32 = 20;
const CLOSE_HOURS_REST_MIN: Duration = Duration::from_millis(10);
/// How long rows that wait are tried again when the proxy ends.
const LAST_TRY: Duration = Duration::from_secs(5);
/// How long it rests between two of these tries: nothing tells when a lock goes or a disk has room.
const LAST_TRY_GAP: Duration = Duration::from_millis(100);
/// How long the end waits for who uses the database.
const FOLD_WAIT: Duration = Duration::from_secs(1);
/// How soon it looks again whether they have let go of it.
const CLOSE_GAP: Duration = Duration::from_millis(5);

/// Pages that its connection keeps: it reads forward, and hardly ever the same page again. SQLite's default is 2000.
const CACHE_KB: i64 = 256;

/// The running keeper.
pub struct Keeper {
    recorder: Arc<Recorder>,
    thread: thread::JoinHandle<()>,
}

impl Keeper {
    /// Starts it for the database at `path`, of which it keeps what `retention` says.
    pub fn start(path: PathBuf, recorder: Arc<Recorder>, retention: Retention) -> io::Result<Keeper> {
        let own = recorder.clone();
        let thread = thread::Builder::new().name("keeper".into()).spawn(move || keep(&path, &own, retention))?;
        Ok(Keeper { recorder, thread })
    }

    /// Tries for the last time to write what waits, checkpoints, and ends.
    pub fn stop(self) {
        self.recorder.signals.keeper.ring(|work| work.stop = true);
        if self.thread.join().is_err() {
            log::error!("the keeper ended by a bug of the proxy");
        }
    }
}

fn keep(path: &Path, recorder: &Recorder, retention: Retention) {
    let own = Own { path, recorder, slot: recorder.slot(), held_open: Outage::new() };
    let (mut rows_wait, mut due) = (false, Due { close_hours_at: Some(Instant::now()), ..Due::default() });
    let mut cleaner = Cleaner::new(retention);
    let mut file = FileId::of(path);
    look_at_room(path, recorder);
    if recorder.signals.log_growth_max() < WAL_CHECKPOINT_BYTES {
        // What a killed process has left may be as much as there is room for.
        cut_log(&own, recorder);
    }
    let mut unsaved = TakeIn::find(path);
    pack(&own, recorder);
    cleaner.begin(0);
    loop {
        if !rows_wait {
            unsaved.step(recorder, || own.with(wal::move_on));
        }
        let rest = match (rows_wait || unsaved.waits(), cleaner.is_at_work()) {
            // A database that takes no rows is not cleaned either.
            (true, _) => RETRY_GAP,
            (false, true) => clean(&mut cleaner, &own, recorder),
            (false, false) => WAKE_GAP,
        };
        let was_at_work = cleaner.is_at_work() || rest < WAKE_GAP;
        let work = wait(&own, recorder, &mut due, rest);
        if work.stop {
            break;
        }
        let file_now = FileId::of(path);
        if file_now != file {
            // What was found in another file holds for this one no longer.
            file = file_now;
            cleaner.rest();
            pack(&own, recorder);
        }
        if rows_wait || work.rows_wait {
            rows_wait = !write_waiting(&own, recorder);
        }
        if work.log_grew {
            cleaner.begin(CLEAN_SPARE_BYTES);
            if checkpoint(&own, recorder).is_some_and(|left_bytes| left_bytes > WAL_BYTES_MAX) {
                // Clean-up would only let the log grow further.
                cleaner.rest();
            }
            look_at_room(path, recorder);
        } else if work == KeeperWork::default() && !was_at_work {
            // Nothing was written for a while: nothing is about to fill the free space.
            look_at_room(path, recorder);
            pack(&own, recorder);
            due.close_hours_at.get_or_insert_with(Instant::now);
            cleaner.begin(0);
        }
    }
    let deadline = Instant::now() + LAST_TRY;
    while !write_waiting(&own, recorder) {
        if Instant::now() >= deadline {
            unsaved::save(path, recorder);
            break;
        }
        thread::sleep(LAST_TRY_GAP);
    }
    room::release_reserve(path);
    // Whatever is not packed now is at the next start.
    pack(&own, recorder);
    close(&own, recorder);
    // Everything is written: another proxy may have the database.
    recorder.writer().store.lock = None;
}

/// The log is moved the earlier the less room there is.
fn look_at_room(path: &Path, recorder: &Recorder) {
    let free = room::free_bytes(path);
    recorder.signals.set_log_growth_max(room::checkpoint_bytes(free));
    room::keep_reserve(path, free);
}

/// Writes what waits; true when nothing does any more.
fn write_waiting(own: &Own, recorder: &Recorder) -> bool {
    loop {
        if recorder.writer().disk_full {
            // Room may have come free for the pages in the log, and what it takes up is free then.
            cut_log(own, recorder);
            recorder.writer().log_cut = true;
        }
        let progress = recorder.writer().write_waiting();
        match progress {
            Progress::Done => return true,
            Progress::Refused => return false,
            Progress::More => cut_log(own, recorder),
        }
    }
}

/// Makes the database one file, which can be copied alone. Whoever closes it last takes the files beside it away, if
/// that one may write: so this does, as soon as the statistics have let go of it.
fn close(own: &Own, recorder: &Recorder) {
    let deadline = Instant::now() + FOLD_WAIT;
    own.close();
    loop {
        // One that is closed last; nobody opens the database anew any more.
        let folded = open(own.path).and_then(|connection| {
            connection.busy_timeout(FOLD_WAIT)?;
            wal::empty(&connection)?;
            recorder.writer().store.close();
            Ok(())
        });
        if let Err(e) = folded {
            return log::debug!("the write-ahead log stays beside the database: {e}");
        }
        if !beside(own.path, "-wal").exists() || Instant::now() >= deadline {
            return;
        }
        thread::sleep(CLOSE_GAP);
    }
}

/// What is to be done behind rows.
#[derive(Default)]
struct Due {
    look_at: Option<Instant>,
    pack_at: Option<Instant>,
    move_at: Option<Instant>,
    close_hours_at: Option<Instant>,
}

/// Waits until there is something to do, at most for so long. Meanwhile it packs rows that have become many or old, and
/// moves the log when no row has come for a while: what a row says shall not be only there for hours.
fn wait(own: &Own, recorder: &Recorder, due: &mut Due, at_most: Duration) -> KeeperWork {
    let end = Instant::now() + at_most;
    let is_due = |at: &mut Option<Instant>, now: Instant| at.take_if(|at| *at <= now).is_some();
    loop {
        let dues = [due.look_at, due.pack_at, due.move_at, due.close_hours_at];
        let until = dues.into_iter().flatten().fold(end, Instant::min);
        let work = recorder.signals.wait_for_work(until.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        if work.rows_came {
            due.look_at.get_or_insert(now + LOOK_GAP);
            due.pack_at.get_or_insert(now + PACK_GAP);
            due.move_at = None;
        }
        if is_due(&mut due.look_at, now) {
            // What became of the files under the rows that came.
            recorder.find_database();
            if recorder.signals.look() >= PACKED_ROWS_MIN {
                due.pack_at = Some(now);
            }
            due.move_at = Some(now + MOVE_GAP);
        }
        if is_due(&mut due.pack_at, now) {
            pack(own, recorder);
            due.close_hours_at.get_or_insert(now + CLOSE_HOURS_GAP);
        }
        if is_due(&mut due.close_hours_at, now) {
            due.close_hours_at = close_hour(own, recorder).map(|rest| Instant::now() + rest);
        }
        if is_due(&mut due.move_at, now) {
            move_log(own, recorder);
        }
        let work = KeeperWork { rows_came: false, ..work };
        if work != KeeperWork::default() || now >= end {
            return work;
        }
    }
}

/// One step of clean-up; returns for how long to rest then.
fn clean(cleaner: &mut Cleaner, own: &Own, recorder: &Recorder) -> Duration {
    let began = Instant::now();
    let stepped = own.with(|connection| cleaner.step(connection, recorder, now_ms()));
    if let Err(e) = stepped {
        cleaner.rest();
        log::debug!("clean-up was put off: {e}");
        return WAKE_GAP;
    }
    if cleaner.is_at_work() { (began.elapsed() * cleaner.rest_factor()).clamp(REST_MIN, REST_MAX) } else { WAKE_GAP }
}

fn pack(own: &Own, recorder: &Recorder) {
    // The rows themselves are there; only questions take longer.
    own.try_with("rows were not packed", |reading| recorder.pack(reading));
}

/// Closes an hour that is over; returns for how long to rest until the next, if there may be one.
fn close_hour(own: &Own, recorder: &Recorder) -> Option<Duration> {
    let began = Instant::now();
    let is_closed = own.try_with("an hour was not closed", |reading| recorder.close_hour(reading, now_ms()))?;
    is_closed.then(|| (began.elapsed() * CLOSE_HOURS_REST_FACTOR).max(CLOSE_HOURS_REST_MIN))
}

/// Moves the log's pages into the database file. Most of the work is done while commits go on; only when they outrun
/// it are they held for the rest, so that the log stays bounded. Returns how many bytes of it could not be moved.
fn checkpoint(own: &Own, recorder: &Recorder) -> Option<u64> {
    let failed = "the write-ahead log was not checkpointed";
    let left_bytes = own.try_with(failed, wal::move_on)?;
    if recorder.signals.log_growth_max() < WAL_CHECKPOINT_BYTES {
        cut_log(own, recorder);
        return Some(left_bytes);
    }
    own.try_with(failed, |connection| {
        let mut left_bytes = left_bytes;
        if left_bytes > WAL_QUIET_BYTES {
            // What came meanwhile is less, and what comes during this is little: that is moved while nobody commits.
            left_bytes = wal::move_on(connection)?;
        }
        if left_bytes > WAL_QUIET_BYTES {
            let _nobody_commits = recorder.writer();
            left_bytes = wal::move_on(connection)?;
            if left_bytes > WAL_BYTES_MAX {
                own.held_open.warn(format_args!("the write-ahead log has {left_bytes} bytes: a reader holds it open"));
            }
        }
        if left_bytes <= WAL_BYTES_MAX {
            own.held_open.over(|_| "no reader holds the write-ahead log open any more".to_owned());
        }
        Ok(left_bytes)
    })
}

/// Moves as much of the log as can be while nothing else is to be done.
fn move_log(own: &Own, recorder: &Recorder) {
    // It may be gone meanwhile: then what it held is saved first.
    recorder.find_database();
    own.try_with("the write-ahead log was not moved", wal::move_on);
}

/// The keeper's connection, opened when it is needed. It is always one to the file that the path leads to: what is
/// done to a file that was moved away or deleted is not done to the database.
struct Own<'a> {
    path: &'a Path,
    recorder: &'a Recorder,
    slot: ConnectionSlot<(Option<FileId>, Connection)>,
    /// A reader keeps the log from being moved.
    held_open: Outage,
}

impl Own<'_> {
    /// Works with the connection; after an error the next work opens another one.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.slot.with_file(self.path, || self.recorder.find_database(), || open(self.path), work)
    }

    /// The same where nothing is lost if it does not succeed: what that means is told to who looks for it.
    fn try_with<T>(&self, failed: &str, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        self.with(work).inspect_err(|e| log::debug!("{failed}: {e}")).ok()
    }

    fn close(&self) {
        self.slot.with(|held| *held = None);
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KB)?;
    Ok(connection)
}

/// Moves the log and cuts it, so that its room is the database's. Who reads it, or writes, is not waited for.
fn cut_log(own: &Own, recorder: &Recorder) {
    own.try_with("the write-ahead log was not cut", |connection| {
        connection.busy_timeout(Duration::ZERO)?;
        let _nobody_commits = recorder.writer();
        wal::empty(connection)
    });
}
