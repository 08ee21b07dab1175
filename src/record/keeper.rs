//! The keeper: one thread that looks after the database behind the workers' backs. It checkpoints the write-ahead log
//! on a connection of its own, so that no commit waits for an fsync, sums up what was committed, tries rows again that
//! the database refused, and cleans up.
//!
//! It sleeps until it is woken: by the first row that is not summed up, by rows that wait, by a log that has grown (so
//! clean-up comes as often as content does), or after `WAKE_GAP`. While clean-up is at work, it rests after each step,
//! so that commits take their turn and relaying has the processor.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use rusqlite::{Connection, OpenFlags};

use super::alarm::AlarmState;
use super::clean::{Cleaner, Retention};
use super::connections::Slot;
use super::place::{FileId, resolved, with_end};
use super::recorder::Recorder;
use super::store::now_ms;
use crate::limits::{CLEAN_SPARE_BYTES, WAL_BYTES_MAX, WAL_QUIET_BYTES};

/// How often rows that wait are tried again.
const RETRY_GAP: Duration = Duration::from_millis(500);
/// How often it looks whether an hour is over, whose sums can be rolled up, and whether something became too old.
const WAKE_GAP: Duration = Duration::from_secs(600);
/// Shortest rest after a step of clean-up: a thread that waits for the desk gets it.
const REST_MIN: Duration = Duration::from_millis(1);
/// Longest one, also after a step that met a stall of the disk.
const REST_MAX: Duration = Duration::from_millis(500);
/// How long after a row the sums hold it at the latest, where nobody asks before: one transaction for all until then.
const SUM_GAP: Duration = Duration::from_secs(1);
/// How long rows that wait are tried again when the proxy ends.
const LAST_TRY: Duration = Duration::from_secs(5);
/// How long the end waits for who uses the database.
const FOLD_WAIT: Duration = Duration::from_secs(1);
/// How soon it looks again whether they have let go of it.
const CLOSE_GAP: Duration = Duration::from_millis(5);

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
        self.recorder.alarm().raise(|alarm| alarm.stop = true);
        if self.thread.join().is_err() {
            log::error!("the keeper ended by a bug of the proxy");
        }
    }
}

fn keep(path: &Path, recorder: &Recorder, retention: Retention) {
    let own = Own { path, slot: recorder.slot() };
    let (mut rows_wait, mut sum_at) = (false, None);
    let mut cleaner = Cleaner::new(retention);
    let mut file = FileId::of(path);
    roll_up(&own, recorder);
    cleaner.begin(0);
    loop {
        let rest = match (rows_wait, cleaner.is_at_work()) {
            // A database that takes no rows is not cleaned either.
            (true, _) => RETRY_GAP,
            (false, true) => clean(&mut cleaner, &own, recorder),
            (false, false) => WAKE_GAP,
        };
        let was_at_work = cleaner.is_at_work() || rest < WAKE_GAP;
        let alarm = wait(recorder, &mut sum_at, rest);
        if alarm.stop {
            break;
        }
        let file_now = FileId::of(path);
        if file_now != file {
            // What was found in another file holds for this one no longer.
            file = file_now;
            cleaner.rest();
        }
        if rows_wait || alarm.rows_wait {
            rows_wait = !recorder.retry();
        }
        if alarm.log_grew {
            roll_up(&own, recorder);
            cleaner.begin(CLEAN_SPARE_BYTES);
            match checkpoint(&own, recorder) {
                // Clean-up would only let the log grow further.
                Ok(left_bytes) if left_bytes > WAL_BYTES_MAX => cleaner.rest(),
                Ok(_) => {}
                Err(e) => {
                    log::debug!("the write-ahead log was not checkpointed: {e}");
                }
            }
        } else if alarm == AlarmState::default() && !was_at_work {
            // Nothing was written for a while: nothing is about to fill the free space.
            roll_up(&own, recorder);
            cleaner.begin(0);
        }
    }
    let deadline = Instant::now() + LAST_TRY;
    while !recorder.retry() {
        if Instant::now() >= deadline {
            let lost = recorder.figures().waiting.load(std::sync::atomic::Ordering::Relaxed);
            log::error!("{lost} rows are lost: the database did not take them before the end");
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    // Whatever is not summed up now is at the next start.
    recorder.sum_up();
    close(&own, recorder);
}

/// Makes the database one file, which can be copied alone. Whoever closes it last takes the files beside it away, if
/// that one may write: so this does, as soon as the statistics have let go of it.
fn close(own: &Own, recorder: &Recorder) {
    let deadline = Instant::now() + FOLD_WAIT;
    loop {
        if let Err(e) = own.with(fold) {
            log::debug!("the write-ahead log stays beside the database: {e}");
            return;
        }
        recorder.close();
        own.close();
        if !with_end(&resolved(own.path), "-wal").exists() || Instant::now() >= deadline {
            return;
        }
        thread::sleep(CLOSE_GAP);
    }
}

/// Waits until there is something to do, at most for so long, and sums up meanwhile whenever it is time.
fn wait(recorder: &Recorder, sum_at: &mut Option<Instant>, at_most: Duration) -> AlarmState {
    let end = Instant::now() + at_most;
    loop {
        let until = sum_at.map_or(end, |at| end.min(at));
        let alarm = recorder.alarm().wait(Some(until.saturating_duration_since(Instant::now())));
        let now = Instant::now();
        if alarm.rows_unsummed {
            sum_at.get_or_insert(now + SUM_GAP);
        }
        if sum_at.is_some_and(|at| at <= now) {
            *sum_at = if recorder.sum_up() { None } else { Some(now + SUM_GAP) };
        }
        let alarm = AlarmState { rows_unsummed: false, ..alarm };
        if alarm != AlarmState::default() || now >= end {
            return alarm;
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

fn roll_up(own: &Own, recorder: &Recorder) {
    let rolled_up = own.with(|reading| recorder.roll_up(reading, now_ms()));
    if let Err(e) = rolled_up {
        // The sums of the hours themselves are there; only questions take longer.
        log::debug!("the sums were not rolled up: {e}");
    }
}

/// Moves the log's pages into the database file. Most of the work is done while commits go on; only when they outrun
/// it are they held for the rest, so that the log stays bounded. Returns how many bytes of it could not be moved.
fn checkpoint(own: &Own, recorder: &Recorder) -> rusqlite::Result<u64> {
    own.with(|connection| {
        let mut left_bytes = passive(connection)?;
        if left_bytes > WAL_QUIET_BYTES {
            // What arrived meanwhile is little, and was written a moment ago: its pages are in memory.
            left_bytes = recorder.while_quiet(|| passive(connection))?;
            if left_bytes > WAL_BYTES_MAX {
                log::warn!("the write-ahead log has {left_bytes} bytes: a reader holds it open");
            }
        }
        Ok(left_bytes)
    })
}

/// The keeper's connection, opened when it is needed. It is always one to the file that the path leads to: what is
/// done to a file that was moved away or deleted is not done to the database.
struct Own<'a> {
    path: &'a Path,
    slot: Slot<(Option<FileId>, Connection)>,
}

impl Own<'_> {
    /// Works with the connection; after an error the next work opens another one.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let file = FileId::of(self.path);
        self.slot.with(|held| {
            let (_, connection) = match held.take() {
                Some(open) if open.0 == file && file.is_some() => held.insert(open),
                _ => {
                    let connection = open(self.path)?;
                    held.insert((FileId::of(self.path), connection))
                }
            };
            let worked = work(connection);
            if worked.is_err() {
                *held = None;
            }
            worked
        })
    }

    fn close(&self) {
        self.slot.with(|held| *held = None);
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// Moves the whole log into the database and cuts it; an error where somebody else reads it or writes for too long.
fn fold(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(FOLD_WAIT)?;
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy { Err(rusqlite::Error::QueryReturnedNoRows) } else { Ok(()) }
}

/// A passive checkpoint; how many bytes of the log are still to be used again by writers.
fn passive(connection: &Connection) -> rusqlite::Result<u64> {
    let (pages, moved): (i64, i64) =
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    // Only a log that was moved whole begins anew.
    Ok(if moved < pages { u64::try_from(pages * page_bytes).unwrap_or(0) } else { 0 })
}
