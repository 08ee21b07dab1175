//! The write-ahead log: how long it is, and moving it into the database.

use rusqlite::{Connection, Error, ffi};

/// How many bytes of the write-ahead log are in use, whatever the file has. Changes nothing.
pub(super) fn bytes_in_use(conn: &Connection) -> rusqlite::Result<u64> {
    Ok(bytes_of_frames(frames_of(conn)?.0, page_bytes(conn)?))
}

/// Frames in the write-ahead log, and how many of them are in the database, too. Changes nothing.
pub(super) fn frames_of(conn: &Connection) -> rusqlite::Result<(u64, u64)> {
    checkpoint(conn, "NOOP")
}

/// The same after moving what can be moved in this way.
fn checkpoint(conn: &Connection, how: &str) -> rusqlite::Result<(u64, u64)> {
    // Both are -1 before the log was ever looked at.
    let frames = |frames: i64| u64::try_from(frames).unwrap_or(0);
    let query = format!("PRAGMA wal_checkpoint({how})");
    conn.query_row(&query, [], |row| Ok((frames(row.get(1)?), frames(row.get(2)?))))
}

/// Size of a page.
pub(super) fn page_bytes(conn: &Connection) -> rusqlite::Result<u64> {
    conn.query_row("PRAGMA page_size", [], |row| row.get(0)).map(i64::unsigned_abs)
}

/// Bytes of a write-ahead log: a head, and one for each page. <https://sqlite.org/fileformat2.html#walformat>
pub(super) fn bytes_of_frames(frames: u64, page_bytes: u64) -> u64 {
    if frames == 0 { 0 } else { 32 + frames * (24 + page_bytes) }
}

/// Moves what can be moved while others read and write; how many bytes of the log are still to be used again by writers.
pub(super) fn move_on(conn: &Connection) -> rusqlite::Result<u64> {
    let (frames, moved) = checkpoint(conn, "PASSIVE")?;
    // Only a log that was moved whole begins anew.
    Ok(if moved < frames { frames * page_bytes(conn)? } else { 0 })
}

/// Moves the whole log into the database and cuts it, also where neither has a name any more. An error where somebody
/// reads it, or writes, for longer than the connection waits.
pub(super) fn empty(conn: &Connection) -> rusqlite::Result<()> {
    let busy: bool = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy { Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_BUSY), None)) } else { Ok(()) }
}
