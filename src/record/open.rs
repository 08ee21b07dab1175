//! Opening the database: makes what is missing, upgrades what is old, and refuses, untouched, what is not ours.
//!
//! ```text
//!  no file, no table ──▶ created ──┐
//!  earlier program ────▶ upgraded ─┤
//!  ours, versions 1–4 ─▶ upgraded ─┼──▶ open
//!  ours ───────────────────────────┘
//!  newer, foreign, damaged, locked, unwritable, no database ──▶ OpenError, one line that says what to do
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::database_file::{beside, for_owner_alone, resolved};
use super::former;
use super::schema::{self, FoundTables};
use super::upgrade;
use super::wal;
use crate::limits::{COMMIT_WAIT_MAX, WAL_BYTES_MAX, WAL_CHECKPOINT_BYTES};
pub use crate::settings::DbSync;

/// Memory for pages of the writing connection, in KiB. It touches the ends of three tables; SQLite's default is 2000.
const CACHE_KB: i64 = 1024;

/// Why the database cannot be opened: one line that says what to do.
#[derive(Debug)]
pub struct OpenError(pub(super) String);

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    /// The file, or those beside it, cannot be created or written.
    pub(super) fn unwritable(path: &Path, reason: impl fmt::Display) -> OpenError {
        OpenError(format!(
            "cannot write the database {} ({reason}): make the file and its folder writable, or choose another place in \
             DATABASE_URL",
            path.display()
        ))
    }

    /// No space, no shared memory on that file system, …
    fn failed(path: &Path, reason: &str) -> OpenError {
        OpenError(format!(
            "cannot open the database {} ({reason}): choose another place in DATABASE_URL, on a local disk with free space",
            path.display()
        ))
    }
}

/// The connection, ready to write: see [`super::store::Store::open`].
pub(super) fn open(path: &Path, sync: DbSync, log_bytes: &Arc<AtomicU64>) -> Result<Connection, OpenError> {
    make_folder(path)?;
    make_private_file(path)?;
    let failed = |error: rusqlite::Error| explain(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(COMMIT_WAIT_MAX).map_err(failed)?;
    // Tables that others made may refer to ours: they refuse no row and hold up no clean-up.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false).map_err(failed)?;
    // Closing a database with a write-ahead log writes the log into it. One that is refused stays as it is.
    let keep_log = log_has_bytes(path);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep_log).map_err(failed)?;
    accepted(path, schema::inspect(&conn).map_err(failed)?)?;
    if conn.is_readonly("main").map_err(failed)? {
        return Err(OpenError::unwritable(path, "read-only"));
    }
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
    bring_up_to_date(&mut conn, path)?;
    configure(&mut conn, sync, log_bytes).map_err(failed)?;
    Ok(conn)
}

/// Whether the file at the path can be opened, as far as that shows without touching what lies beside it, which may be
/// another database's; one is made where there is none.
pub(super) fn look(path: &Path) -> Result<(), OpenError> {
    make_folder(path)?;
    make_private_file(path)?;
    // Read as it is, without its log: whether it is damaged, opening will tell.
    let Some(uri) = path.to_str().filter(|_| cfg!(unix)) else { return Ok(()) };
    let uri = uri.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let found = Connection::open_with_flags(format!("file:{uri}?immutable=1"), flags);
    match found.and_then(|conn| schema::inspect(&conn)) {
        Ok(found) => accepted(path, found).map(drop),
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Err(explain(path, &e)),
        Err(_) => Ok(()),
    }
}

/// Makes the folder of a database where there is none.
pub(super) fn make_folder(path: &Path) -> Result<(), OpenError> {
    match resolved(path).parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            fs::create_dir_all(folder).map_err(|reason| {
                OpenError(format!(
                    "cannot make the folder {} ({reason}): choose another in DATABASE_URL",
                    folder.display()
                ))
            })
        }
        _ => Ok(()),
    }
}

/// Makes the file where there is none, for its owner alone: it holds prompts. SQLite gives the files beside it the
/// same mode. The mode of an existing file is its owner's choice.
fn make_private_file(path: &Path) -> Result<(), OpenError> {
    match for_owner_alone().create_new(true).open(resolved(path)) {
        Ok(_) => Ok(()),
        Err(_) if path.is_dir() => Err(OpenError::unwritable(path, "it is a folder")),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(OpenError::unwritable(path, error)),
    }
}

fn log_has_bytes(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

fn accepted(path: &Path, found: FoundTables) -> Result<FoundTables, OpenError> {
    match found {
        FoundTables::Empty | FoundTables::Earlier | FoundTables::Former(_) | FoundTables::Ours => Ok(found),
        FoundTables::Newer(version) => Err(OpenError(format!(
            "{} was written by a newer version of this program (schema {version}, this one knows {}; left as it is): use \
             that version, or choose another file in DATABASE_URL",
            path.display(),
            schema::VERSION
        ))),
        FoundTables::Foreign => Err(OpenError(format!(
            "{} is the database of another program (left as it is): choose another file in DATABASE_URL",
            path.display()
        ))),
    }
}

fn bring_up_to_date(conn: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error: rusqlite::Error| explain(path, &error);
    let found = accepted(path, schema::inspect(conn).map_err(failed)?)?;
    if found == FoundTables::Empty {
        schema::prepare_empty(conn).map_err(failed)?;
    }
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(OpenError::failed(path, "its file system cannot share memory between connections"));
    }
    if found == FoundTables::Ours {
        return Ok(());
    }
    // Asked again under the lock: another process may have come first.
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let found = accepted(path, schema::inspect(&transaction).map_err(failed)?)?;
    let (done, upgraded_from) = match found {
        FoundTables::Empty => (schema::create(&transaction), None),
        FoundTables::Earlier => (upgrade::upgrade(&transaction), Some("the earlier program's".to_owned())),
        FoundTables::Former(version) => (former::upgrade(&transaction, version), Some(format!("version {version}'s"))),
        FoundTables::Ours | FoundTables::Newer(_) | FoundTables::Foreign => (Ok(()), None),
    };
    done.map_err(failed)?;
    if upgraded_from.is_some() {
        schema::came(&transaction).map_err(failed)?;
    }
    transaction.commit().map_err(failed)?;
    if found == FoundTables::Earlier {
        upgrade::tidy(conn);
    }
    if let Some(from) = upgraded_from {
        let rows: i64 = conn.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).map_err(failed)?;
        log::info!(
            "{} was upgraded from {from} form, {rows} rows. All of them are kept, and all that was said: only a \
             CONTENT_DAYS, CONTENT_MB_MAX or RETENTION_DAYS that you set removes any",
            path.display()
        );
    }
    Ok(())
}

fn configure(conn: &mut Connection, sync: DbSync, log_bytes: &Arc<AtomicU64>) -> rusqlite::Result<()> {
    let synchronous = match sync {
        DbSync::Normal => "NORMAL",
        DbSync::Full => "FULL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "cache_size", -CACHE_KB)?;
    // The keeper checkpoints long before; a commit does it itself only when the keeper cannot keep up.
    let page_bytes = wal::page_bytes(conn)?.max(512);
    let log_bytes = log_bytes.clone();
    log_bytes.store(wal::bytes_in_use(conn)?, Ordering::Relaxed);
    conn.wal_hook(Some(move |log: &mut Wal, frames: i32| {
        let frames = u64::from(frames.unsigned_abs());
        log_bytes.store(wal::bytes_of_frames(frames, page_bytes), Ordering::Relaxed);
        if frames * page_bytes >= WAL_BYTES_MAX {
            // As SQLite's own hook does: where it does not succeed now, the next commit tries again.
            let _ = log.checkpoint();
        }
        Ok(())
    }))?;
    // After a burst the log's file shrinks again, but not at every checkpoint: writing into a file that has its size
    // already made the median commit 30 us instead of 37.
    let log_kept = i64::try_from(4 * WAL_CHECKPOINT_BYTES).unwrap_or(i64::MAX);
    conn.pragma_update(None, "journal_size_limit", log_kept)?;
    conn.set_prepared_statement_cache_capacity(32);
    Ok(())
}

pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> OpenError {
    let at = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            OpenError(format!("{at} is not a database (left as it is): choose another file in DATABASE_URL"))
        }
        Some(ErrorCode::DatabaseCorrupt) => OpenError(format!(
            "{at} is damaged ({error}; left as it is): restore a copy, or move it away to begin anew"
        )),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            OpenError(format!("{at} is locked by another process: end it, or choose another file in DATABASE_URL"))
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            OpenError::unwritable(path, error)
        }
        _ => OpenError::failed(path, &error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::store::Store;
    use crate::testing::{Folder, row};

    /// Opens what `make` left, expects a refusal that says `words`, and the file as it was.
    fn check_refused(words: &str, make: impl FnOnce(&Path)) {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        make(&path);
        let before = fs::read(&path).expect("is there");
        let error = Store::open(&path, DbSync::Normal).expect_err(words).to_string();
        assert!(error.contains(words) && error.contains("metrics.db") && !error.contains('\n'), "{error}");
        assert!(fs::read(&path).expect("is there") == before, "{words}: the file has changed");
    }

    fn sql(path: &Path, statements: &str) {
        Connection::open(path).and_then(|conn| conn.execute_batch(statements)).expect("made for the test");
    }

    fn ours(path: &Path) {
        let mut store = Store::open(path, DbSync::Normal).expect("opens");
        store.write(&vec![row(); 500]).expect("writes");
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_as_it_is() {
        check_refused("is not a database", |path| fs::write(path, "PORT=8080\n").expect("written"));
        check_refused("is not a database", |path| fs::write(path, [7; 100_000]).expect("written"));
        check_refused("another program", |path| sql(path, "CREATE TABLE notes (text)"));
        check_refused("another program", |path| sql(path, "CREATE TABLE requests (id INTEGER PRIMARY KEY, url)"));
        check_refused("another program", |path| {
            sql(path, "PRAGMA journal_mode = WAL; CREATE TABLE notes (text); INSERT INTO notes VALUES (1)");
        });
        check_refused("another program", |path| sql(path, "PRAGMA application_id = 7; CREATE TABLE requests (id)"));
        check_refused("another program", |path| sql(path, "PRAGMA user_version = 7; CREATE TABLE requests (id)"));
        check_refused("another program", |path| {
            sql(path, EARLIER_SHAPE);
            sql(path, "INSERT INTO requests (id) VALUES ('a-text')");
        });
        check_refused("a newer version", |path| {
            ours(path);
            sql(path, &format!("PRAGMA user_version = {}", schema::VERSION + 1));
        });
    }

    const EARLIER_SHAPE: &str = "CREATE TABLE requests (id TEXT, endpoint, model, start_time, end_time, duration_ms,
        input_tokens, output_tokens, total_tokens)";

    #[test]
    fn a_damaged_database_is_refused_and_left_as_it_is() {
        check_refused("is damaged", |path| {
            ours(path);
            let bytes = fs::read(path).expect("is there");
            fs::write(path, &bytes[..bytes.len() / 2]).expect("cut");
        });
        check_refused("is damaged", |path| {
            ours(path);
            let mut bytes = fs::read(path).expect("is there");
            bytes[100..4096].fill(0xA5);
            fs::write(path, bytes).expect("overwritten");
        });
    }

    #[test]
    fn a_log_that_a_foreign_program_left_behind_stays() {
        let folder = Folder::new();
        let (path, log) = (folder.join("metrics.db"), folder.join("metrics.db-wal"));
        let other = Connection::open(&path).expect("opens");
        other.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE notes (text)").expect("made");
        let (before, log_before) = (fs::read(&path).expect("is there"), fs::read(&log).expect("is there"));
        assert!(!log_before.is_empty());
        // A copy is what a killed process leaves: a log that nobody has open.
        let (copy, copied_log) = (folder.join("copy.db"), folder.join("copy.db-wal"));
        fs::copy(&path, &copy).and_then(|_| fs::copy(&log, &copied_log)).expect("copied");
        let error = Store::open(&copy, DbSync::Normal).expect_err("foreign").to_string();
        assert!(error.contains("another program"), "{error}");
        assert!(fs::read(&copy).expect("is there") == before && fs::read(&copied_log).expect("is there") == log_before);
    }

    #[test]
    fn a_locked_database_is_named_as_such() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let other = Connection::open(&path).expect("opens");
        other.execute_batch("CREATE TABLE notes (text); BEGIN EXCLUSIVE").expect("locked");
        let error = Store::open(&path, DbSync::Normal).expect_err("locked").to_string();
        assert!(error.contains("is locked by another process"), "{error}");
    }

    #[test]
    fn a_place_where_nothing_can_be_made_is_named() {
        let folder = Folder::new();
        fs::write(folder.join("file"), "").expect("written");
        let error = Store::open(&folder.join("file/sub/metrics.db"), DbSync::Normal).expect_err("no folder");
        assert!(error.to_string().contains("cannot make the folder"), "{error}");
        fs::create_dir(folder.join("metrics.db")).expect("made");
        let error = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect_err("a folder").to_string();
        assert!(error.contains("it is a folder"), "{error}");
    }

    #[test]
    fn missing_folders_are_made_and_an_empty_file_is_a_new_database() {
        let folder = Folder::new();
        let path = folder.join("a/b/metrics.db");
        assert_eq!(Store::open(&path, DbSync::Full).expect("opens").row_count(), Ok(0));
        fs::write(folder.join("empty.db"), "").expect("written");
        assert_eq!(Store::open(&folder.join("empty.db"), DbSync::Normal).expect("opens").row_count(), Ok(0));
    }

    #[test]
    fn an_existing_database_keeps_its_rows_and_its_key() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let key = store.fingerprint_key().expect("made");
        assert_ne!(key, [0; 32]);
        assert_eq!(store.write(&[row(), row()]), Ok(vec![1, 2]));
        drop(store);
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        assert_eq!(store.fingerprint_key(), Ok(key));
        assert_eq!(store.write(&[row()]), Ok(vec![3]));
        assert_eq!(store.row_count(), Ok(3));
        drop(store);
        assert!(!log_has_bytes(&path), "closing empties the log");
        let other = Store::open(&folder.join("other.db"), DbSync::Normal).expect("opens").fingerprint_key();
        assert_ne!(other, Ok(key));
    }

    #[cfg(unix)]
    #[test]
    fn the_files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store.write(&[row()]).expect("writes");
        for name in ["metrics.db", "metrics.db-wal", "metrics.db-shm"] {
            let mode = fs::metadata(folder.join(name)).expect("is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }
}
