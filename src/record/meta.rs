//! Numbers by name in the table `meta`: how far packing, clean-up and other work in steps have come. Each is written in
//! the transaction that does the work, so that a process killed anywhere goes on where it was.

use rusqlite::{Connection, OptionalExtension, params};

/// The number of this name, if there is one.
pub(super) fn number(conn: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// Gives it this value, inside the caller's transaction.
pub(super) fn set(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO meta VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value")?
        .execute(params![name, value])?;
    Ok(())
}
