//! The keeper: one thread that looks after the database behind the workers' backs. It checkpoints the write-ahead log
//! on a connection of its own, so that no commit waits for an fsync, and tries rows again that the database refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use rusqlite::{Connection, OpenFlags};

use super::recorder::Recorder;
use crate::limits::{WAL_BYTES_MAX, WAL_QUIET_BYTES};

/// How often rows that wait are tried again.
const RETRY_GAP: Duration = Duration::from_millis(500);
/// How often it looks whether an hour is over whose sums can be rolled up.
const ROLL_UP_GAP: Duration = Duration::from_secs(600);
/// How long rows that wait are tried again when the proxy ends.
const LAST_TRY: Duration = Duration::from_secs(5);

/// The running keeper.
pub struct Keeper {
    recorder: Arc<Recorder>,
    thread: thread::JoinHandle<()>,
}

impl Keeper {
    /// Starts it for the database at `path`.
    pub fn start(path: PathBuf, recorder: Arc<Recorder>) -> io::Result<Keeper> {
        let own = recorder.clone();
        let thread = thread::Builder::new().name("keeper".into()).spawn(move || keep(&path, &own))?;
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

fn keep(path: &Path, recorder: &Recorder) {
    let mut connection = None;
    let mut rows_wait = false;
    loop {
        roll_up(recorder);
        let alarm = recorder.alarm().wait(Some(if rows_wait { RETRY_GAP } else { ROLL_UP_GAP }));
        if alarm.stop {
            break;
        }
        if rows_wait || alarm.rows_wait {
            rows_wait = !recorder.retry();
        }
        if alarm.log_grew
            && let Err(e) = checkpoint(&mut connection, path, recorder)
        {
            connection = None;
            log::debug!("the write-ahead log was not checkpointed: {e}");
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
}

fn roll_up(recorder: &Recorder) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Err(e) = recorder.roll_up(now.as_millis() as i64) {
        // The sums of the hours themselves are there; only questions take longer.
        log::debug!("the sums were not rolled up: {e}");
    }
}

/// Moves the log's pages into the database file. Most of the work is done while commits go on; only when they outrun
/// it are they held for the rest, so that the log stays bounded.
fn checkpoint(connection: &mut Option<Connection>, path: &Path, recorder: &Recorder) -> rusqlite::Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(open(path)?),
    };
    let left_bytes = passive(connection)?;
    if left_bytes > WAL_QUIET_BYTES {
        // What arrived meanwhile is little, and was written a moment ago: its pages are in memory.
        let left_bytes = recorder.while_quiet(|| passive(connection))?;
        if left_bytes > WAL_BYTES_MAX {
            log::warn!("the write-ahead log has {left_bytes} bytes: a reader holds it open");
        }
    }
    Ok(())
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// A passive checkpoint; how many bytes of the log are still to be used again by writers.
fn passive(connection: &Connection) -> rusqlite::Result<u64> {
    let (pages, moved): (i64, i64) =
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))?;
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    // Only a log that was moved whole begins anew.
    Ok(if moved < pages { u64::try_from(pages * page_bytes).unwrap_or(0) } else { 0 })
}
