//! The tables, and what kind of database a file turns out to hold.
//!
//! `requests` is the record: one row per exchange, with the column names of the earlier program of this name. What was
//! said stands in `content`, under the same id, so that reading figures never reads past prompts; long prompts in
//! `pieces`, each of which is there once ([`super::prompts`]), and the view `prompts` has them as text. Packs make the
//! statistics cheap ([`super::packing`]). Each distinct endpoint, model, client, key and outcome met together is a row of
//! `series`.
//!
//! There is no index: newest rows are the highest ids, and the pack of an hour knows the lowest and highest id of its
//! rows, so that a range of time is a range of ids. An id is never used twice as long as the newest row stays: clean-up
//! must leave it.

use rusqlite::{Connection, OptionalExtension, params};

use super::meta::set;

/// `LMSM`, in the header of the file: what `file` and we recognise our databases by.
pub const APPLICATION_ID: i32 = 0x4C4D_534D;
/// The version of the tables below, kept in `user_version`. Before 6 nobody knew where the time went; before 5 every prompt stood in `content`, before 4 there were
/// sums beside packs: see [`super::former`].
pub const VERSION: i32 = 6;

/// Name in `meta`: rows up to this id, and what was said in them, came with an upgrade from an earlier version or
/// program. Clean-up leaves them to limits that the user has set. Absent where none came.
pub(super) const CAME_UNTIL: &str = "came_until";

/// Name in `meta`: no content with a lower id than this has pieces.
pub(super) const PIECED_FROM: &str = "pieced_from";

/// A prompt as text, in a row of `content`: as it stands there, or put together, as [`super::prompts::PieceReader`] does.
const PROMPT: &str = "coalesce(content.prompt, iif(content.pieces IS NULL, NULL,
    (SELECT group_concat(text, '')
     FROM (SELECT coalesce(piece.text, '…[a piece is missing]…') AS text
           FROM json_each(iif(json_valid(content.pieces), content.pieces, '[null]')) AS listed
              LEFT JOIN pieces AS piece ON piece.id = listed.value
           ORDER BY listed.key))))";

/// What `model` says where nobody told.
pub const UNKNOWN_MODEL: &str = "unknown";

/// Size of a page of a new database. SQLite's default; measured against 1024 and 8192 for one-row commits, see
/// `store.rs`.
const PAGE_BYTES: u32 = 4096;

const TABLES: &str = "
CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    start_time TEXT NOT NULL,
    end_time TEXT NOT NULL,
    duration_ms INTEGER NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    total_tokens INTEGER,
    request_id TEXT,
    is_error INTEGER NOT NULL,
    error_message TEXT,
    http_status INTEGER,
    was_streamed INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    outcome TEXT NOT NULL,
    requested_model TEXT,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    time_to_first_token_ms INTEGER,
    tokens_per_second REAL,
    finish_reason TEXT,
    usage_source TEXT,
    model_load_ms INTEGER,
    client TEXT,
    key TEXT,
    attempt INTEGER,
    cache_write_tokens INTEGER,
    draft_tokens INTEGER,
    accepted_draft_tokens INTEGER,
    prompt_tokens_per_second REAL,
    conversation TEXT,
    conversation_source TEXT,
    replay_of INTEGER,
    prompt_bytes INTEGER,
    prefix_of INTEGER,
    prefix_bytes INTEGER,
    prefix_messages INTEGER,
    prefix_break TEXT,
    prefix_lost_ms INTEGER,
    queue_ms INTEGER,
    context_tokens INTEGER,
    prompt_cut INTEGER,
    prompt_expected_tokens INTEGER
);
CREATE TABLE content (
    id INTEGER PRIMARY KEY,
    prompt TEXT,
    output TEXT,
    reasoning TEXT,
    tool_calls TEXT,
    pieces TEXT,
    outline BLOB,
    replaced TEXT,
    title TEXT
);
-- An unknown client or key is '' here: NULLs would each count as different.
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    client TEXT NOT NULL,
    key TEXT NOT NULL,
    outcome TEXT NOT NULL,
    UNIQUE (endpoint, model, client, key, outcome)
);
-- Sums, and the distributions of durations, of many series for one span of time: see packs.
-- id: span << 32 | start. span: 0 all time (start 0), 1 a day, 2 an hour, 3 a month; start: hours since 1970-01-01T00:00Z.
CREATE TABLE packed_sums (id INTEGER PRIMARY KEY, pack BLOB NOT NULL);
CREATE TABLE packed_latencies (id INTEGER PRIMARY KEY, pack BLOB NOT NULL);
-- fingerprint_key: 32 random bytes, made once. packed_until: packs hold the rows up to this id.
-- came_until: rows up to this id came with an upgrade. pieced_from: no content before this id has pieces. rows_changed: how often rows were corrected or removed.
CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('fingerprint_key', randomblob(32)), ('packed_until', 0);
";

/// What prompts in pieces take beside the column `content.pieces`, a JSON array of ids, in whose place `prompt` is NULL.
const PIECES: &str = "
-- hash: 16 bytes of HMAC-SHA256. last_block: the newest content with this piece has an id of last_block * 64 or up to 63
-- more. To change it SQLite reads the text, too, and writes its pages again where the number takes more bytes.
CREATE TABLE pieces (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    hash BLOB NOT NULL UNIQUE,
    last_block INTEGER NOT NULL,
    text TEXT NOT NULL
);
CREATE INDEX pieces_by_block ON pieces (last_block);
";

/// What conversations and shared prefixes take beside columns of `requests`.
const CONVERSATIONS: &str = "
-- Of each series, why prompts were read anew; the same ids.
CREATE TABLE packed_prefixes (id INTEGER PRIMARY KEY, pack BLOB NOT NULL);
-- What belongs together, of the rows that packs hold: sums by series, and which rows.
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    pack BLOB NOT NULL
);
CREATE INDEX conversations_by_last ON conversations (last_id);
CREATE TABLE turns (conversation INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (conversation, id)) WITHOUT ROWID;
";

/// What it takes to tell where the time went.
const TIMES: &str = "
-- Of each series, its part of the time and what it did with it; the same ids.
CREATE TABLE packed_times (id INTEGER PRIMARY KEY, pack BLOB NOT NULL);
-- Of each series, prompts that seem to be cut: packs as those of prefixes, under reason 0; only where there are any.
CREATE TABLE packed_cuts (id INTEGER PRIMARY KEY, pack BLOB NOT NULL);
-- Hours since 1970 whose packs of times are to be made, or made anew: packed rows reach into them.
CREATE TABLE open_hours (hour INTEGER PRIMARY KEY);
-- Packed rows that began before an hour and reach into it.
CREATE TABLE reaching (hour INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (hour, id)) WITHOUT ROWID;
";

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundTables {
    /// No table at all: a new database.
    Empty,
    /// The table of the earlier program, to be upgraded.
    Earlier,
    /// The tables above.
    Ours,
    /// The same of this earlier version, to be upgraded.
    Former(i32),
    /// Ours, but written by a newer version of this program.
    Newer(i32),
    /// A database of another program.
    Foreign,
}

/// Columns of the earlier program's table `requests`; the first nine are always there.
pub(super) const EARLIER_COLUMNS: [&str; 17] = [
    "id",
    "endpoint",
    "model",
    "start_time",
    "end_time",
    "duration_ms",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "prompt",
    "output",
    "request_id",
    "is_error",
    "error_message",
    "http_status",
    "was_streamed",
    "created_at",
];

/// Looks at the database without changing it. Of our own, the newest page of every growing table is read, so that a
/// truncated file is noticed now and not at the first request.
pub fn inspect(conn: &Connection) -> rusqlite::Result<FoundTables> {
    let application_id: i32 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i32 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match (application_id, version) {
        (APPLICATION_ID, 1..=VERSION) => {
            if version == VERSION {
                conn.query_row("SELECT max(id) FROM pieces", [], |_| Ok(()))?;
            }
            for probe in [
                "SELECT max(id) FROM requests",
                "SELECT max(id) FROM content",
                "SELECT max(id) FROM series",
                "SELECT max(id) FROM packed_sums",
                "SELECT max(id) FROM packed_latencies",
                "SELECT value FROM meta WHERE name = 'packed_until'",
            ] {
                conn.query_row(probe, [], |_| Ok(())).optional()?;
            }
            Ok(if version == VERSION { FoundTables::Ours } else { FoundTables::Former(version) })
        }
        (APPLICATION_ID, newer) if newer > VERSION => Ok(FoundTables::Newer(newer)),
        (0, 0) => inspect_unmarked(conn),
        _ => Ok(FoundTables::Foreign),
    }
}

fn inspect_unmarked(conn: &Connection) -> rusqlite::Result<FoundTables> {
    let tables: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'", [], |row| {
            row.get(0)
        })?;
    if tables == 0 {
        return Ok(FoundTables::Empty);
    }
    let columns = columns_of(conn, "requests")?;
    if !EARLIER_COLUMNS[..9].iter().all(|wanted| columns.iter().any(|column| column == wanted)) {
        return Ok(FoundTables::Foreign);
    }
    // Our ids are integers; a table that numbers its rows in another way cannot keep them.
    let odd_id = conn.query_row("SELECT 1 FROM requests WHERE typeof(id) <> 'integer' LIMIT 1", [], |_| Ok(()));
    Ok(if odd_id.optional()?.is_some() { FoundTables::Foreign } else { FoundTables::Earlier })
}

/// Names of a table's columns in lower case; none if there is no such table.
pub fn columns_of(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = conn.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// What must be set before the first page of a new file is written.
pub fn prepare_empty(conn: &Connection) -> rusqlite::Result<()> {
    conn.pragma_update(None, "page_size", PAGE_BYTES)?;
    // Pages that clean-up frees can be given back to the file system step by step; later it would take a VACUUM.
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")
}

/// Makes the tables and marks the file as ours. Belongs inside a transaction.
pub fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(TABLES)?;
    add_tables_of_5(conn)?;
    add_tables_of_6(conn)?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", VERSION)
}

/// Makes the tables that came with version 5, and the view. Belongs inside a transaction.
pub(super) fn add_tables_of_5(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(PIECES)?;
    conn.execute_batch(CONVERSATIONS)?;
    // Others may have made something of this name, on which nothing of ours depends.
    conn.execute_batch(&format!(
        "CREATE VIEW IF NOT EXISTS prompts (id, prompt) AS
         SELECT id, {PROMPT} FROM content WHERE prompt IS NOT NULL OR pieces IS NOT NULL"
    ))
}

/// Makes the tables that came with version 6. Belongs inside a transaction.
pub(super) fn add_tables_of_6(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(TIMES)
}

/// No content that there is has pieces.
pub(super) fn none_is_pieced(conn: &Connection) -> rusqlite::Result<()> {
    let next: i64 = conn.query_row("SELECT coalesce(max(id), 0) + 1 FROM content", [], |row| row.get(0))?;
    set(conn, PIECED_FROM, next)
}

/// Rows from this id on were written, and may have pieces: ids are used again.
pub(super) fn pieced_again(conn: &Connection, first: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = ?2 AND value > ?1")?
        .execute(params![first, PIECED_FROM])?;
    Ok(())
}

/// The rows there are, and what was said, come with an upgrade that takes place in the caller's transaction.
pub(super) fn came(conn: &Connection) -> rusqlite::Result<()> {
    let newest = "SELECT max((SELECT coalesce(max(id), 0) FROM requests), (SELECT coalesce(max(id), 0) FROM content))";
    let newest: i64 = conn.query_row(newest, [], |row| row.get(0))?;
    if newest > 0 {
        set(conn, CAME_UNTIL, newest)?;
    }
    Ok(())
}
