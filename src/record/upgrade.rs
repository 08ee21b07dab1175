//! From the earlier program's table to ours, in place and in one transaction.
//!
//! Ids, figures and words are kept; prompts and outputs move to `content`; times are written alike; every row is
//! counted. How an exchange ended was not recorded then: it is told from the error flag, status and message. Columns
//! that are missing are unknown, and so are values that cannot be what the column says. What else there is in the file
//! stays; see [`super::extras`] for what others have added to the table itself.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use super::extras::Extras;
use super::packing;
use super::prompts::Prompt;
use super::row::{Content, Lineage, Outcome, Row};
use super::schema;
use super::series::SeriesIds;
use super::table::{Entry, Inserts, duration};
use crate::calendar::{ms_of_text, text_of_ms};

/// Converts the table `requests`, inside the caller's transaction.
pub(super) fn upgrade(conn: &Connection) -> rusqlite::Result<()> {
    let extras = Extras::of(conn)?;
    // Views and triggers elsewhere that speak of `requests` shall go on speaking of it.
    conn.pragma_update(None, "legacy_alter_table", true)?;
    let renamed = conn.execute_batch("ALTER TABLE requests RENAME TO earlier_requests");
    conn.pragma_update(None, "legacy_alter_table", false)?;
    renamed?;
    schema::create(conn)?;
    copy_rows(conn)?;
    schema::none_is_pieced(conn)?;
    // Years of rows: without this the first questions would read them all.
    packing::pack_all(conn, &mut SeriesIds::default())?;
    extras.copy_columns(conn)?;
    conn.execute_batch("DROP TABLE earlier_requests")?;
    extras.make_others(conn)
}

/// Gives back the space that the old table took, and readies the file for giving back more later. Without success the
/// database works all the same, so that nobody needs to know.
pub(super) fn tidy(conn: &Connection) {
    let _ = conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
}

fn copy_rows(conn: &Connection) -> rusqlite::Result<()> {
    let mut select = earlier_rows(conn)?;
    let mut rows = select.query([])?;
    let mut inserts = Inserts::prepare(conn)?;
    let mut last_start_ms = 0;
    while let Some(row) = rows.next()? {
        let earlier = read(row, last_start_ms)?;
        last_start_ms = earlier.row.start_ms;
        let entry = Entry {
            id: Some(earlier.id),
            row: &earlier.row,
            lineage: Lineage::default(),
            begins: false,
            end_time: text_of_ms(earlier.end_ms),
            created_at: &text_of_ms(earlier.created_ms),
        };
        // Prompts stay as they are: those of chats hardly say anything twice.
        inserts.insert(&entry, None)?;
    }
    Ok(())
}

fn earlier_rows(conn: &Connection) -> rusqlite::Result<Statement<'_>> {
    let there = schema::columns_of(conn, "earlier_requests")?;
    let columns: Vec<&str> = schema::EARLIER_COLUMNS
        .iter()
        .map(|column| if there.iter().any(|name| name == column) { *column } else { "NULL" })
        .collect();
    conn.prepare(&format!("SELECT {} FROM earlier_requests ORDER BY id", columns.join(", ")))
}

struct Earlier {
    id: i64,
    row: Row,
    end_ms: i64,
    created_ms: i64,
}

/// One row, its columns in the order of [`schema::EARLIER_COLUMNS`]. A row that does not say when it was is filed with
/// the one before.
fn read(row: &rusqlite::Row, last_start_ms: i64) -> rusqlite::Result<Earlier> {
    let id = row.get(0)?;
    let start = time(row.get_ref(3)?);
    let end = time(row.get_ref(4)?);
    let created = time(row.get_ref(16)?);
    let told_duration = count(row.get_ref(5)?);
    let start_ms = start
        .or_else(|| Some(end?.saturating_sub(duration(told_duration?)).max(0)))
        .or(end)
        .or(created)
        .unwrap_or(last_start_ms);
    let duration_ms = told_duration.or_else(|| u64::try_from(end?.saturating_sub(start_ms)).ok()).unwrap_or_default();
    let end_ms = end.unwrap_or_else(|| start_ms.saturating_add(duration(duration_ms)));
    let error_message = text(row.get_ref(13)?);
    let http_status = count(row.get_ref(14)?).and_then(|status| u16::try_from(status).ok());
    let is_error = match row.get_ref(12)? {
        ValueRef::Null => error_message.is_some(),
        value => flag(value),
    };
    let row = Row {
        endpoint: text(row.get_ref(1)?).unwrap_or_default(),
        model: text(row.get_ref(2)?),
        start_ms,
        duration_ms,
        input_tokens: count(row.get_ref(6)?),
        output_tokens: count(row.get_ref(7)?),
        total_tokens: count(row.get_ref(8)?),
        request_id: text(row.get_ref(11)?),
        outcome: outcome(is_error, http_status, error_message.as_deref()),
        error_message,
        http_status,
        was_streamed: flag(row.get_ref(15)?),
        content: Content {
            prompt: text(row.get_ref(9)?).map(Prompt::Whole),
            output: text(row.get_ref(10)?),
            ..Content::default()
        },
        ..Row::default()
    };
    Ok(Earlier { id, row, end_ms, created_ms: created.unwrap_or(end_ms) })
}

/// How it ended, as best can be told.
fn outcome(is_error: bool, http_status: Option<u16>, message: Option<&str>) -> Outcome {
    let message = message.unwrap_or_default().to_ascii_lowercase();
    let speaks_of = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let unanswered =
        if speaks_of(&["timed out", "timeout"]) { Outcome::UpstreamTimeout } else { Outcome::UpstreamUnreachable };
    match http_status {
        // What a proxy says for an upstream that did not answer; upstream itself may say it, too.
        Some(502..=504) if speaks_of(&["connect", "refused", "unreachable", "dns", "timed out", "timeout"]) => {
            unanswered
        }
        Some(400..) => Outcome::UpstreamError,
        Some(_) if is_error => Outcome::ErrorInReply,
        None if is_error => unanswered,
        Some(_) | None => Outcome::Completed,
    }
}

fn text(value: ValueRef) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
    .filter(|text| !text.is_empty())
}

fn count(value: ValueRef) -> Option<u64> {
    match value {
        ValueRef::Integer(number) => u64::try_from(number).ok(),
        // Exact up to 2^53; beyond it is no count anyway.
        ValueRef::Real(number) if (0.0..9.0e15).contains(&number) => Some(number.round() as u64),
        ValueRef::Text(bytes) if bytes.iter().all(u8::is_ascii_digit) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_) => None,
    }
}

fn flag(value: ValueRef) -> bool {
    match value {
        ValueRef::Integer(number) => number != 0,
        ValueRef::Real(number) => number != 0.0,
        ValueRef::Text(bytes) => bytes == b"1" || bytes.eq_ignore_ascii_case(b"true"),
        ValueRef::Null | ValueRef::Blob(_) => false,
    }
}

fn time(value: ValueRef) -> Option<i64> {
    match value {
        ValueRef::Text(bytes) => ms_of_text(std::str::from_utf8(bytes).ok()?),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::store::{DbSync, Store};
    use crate::stats::Reader;
    use crate::testing::{Folder, row};

    const EARLIER_TABLE: &str = "CREATE TABLE requests (
        id INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, model TEXT, start_time TEXT NOT NULL,
        end_time TEXT, duration_ms INTEGER, input_tokens INTEGER, output_tokens INTEGER, total_tokens INTEGER,
        prompt TEXT, output TEXT, request_id TEXT, is_error BOOLEAN DEFAULT 0, error_message TEXT,
        http_status INTEGER, was_streamed BOOLEAN DEFAULT 0, created_at TEXT DEFAULT CURRENT_TIMESTAMP);
        CREATE INDEX idx_requests_model ON requests (model);";

    fn upgraded(statements: &str) -> (Store, Connection, Folder) {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        Connection::open(&path).and_then(|conn| conn.execute_batch(statements)).expect("made");
        let store = Store::open(&path, DbSync::Normal).expect("upgrades");
        let conn = Connection::open(&path).expect("opens");
        (store, conn, folder)
    }

    /// The row that `values` become, as text.
    fn check(values: &str, columns: &str, expected: &str) {
        let (_store, conn, _folder) = upgraded(&format!("{EARLIER_TABLE} INSERT INTO requests VALUES ({values})"));
        let columns = columns.split(", ").map(|column| format!("coalesce({column}, 'null')")).collect::<Vec<_>>();
        let query = format!("SELECT {} FROM requests LEFT JOIN content USING (id)", columns.join(" || ' ' || "));
        assert_eq!(conn.query_row(&query, [], |row| row.get::<_, String>(0)).as_deref(), Ok(expected), "{values}");
    }

    #[test]
    fn figures_words_and_times_are_kept() {
        let whole = "7, '/v1/completions', 'qwen', '2025-11-02T10:00:00.25+01:00', '2025-11-02T09:00:01.500Z', 1250, \
                     10, 20, 30, 'the prompt', 'the output', 'cmpl-1', 0, NULL, 200, 1, '2025-11-02 09:00:01'";
        check(whole, "id, endpoint, model", "7 /v1/completions qwen");
        check(whole, "start_time, end_time", "2025-11-02T09:00:00.250Z 2025-11-02T09:00:01.500Z");
        check(whole, "duration_ms, created_at", "1250 2025-11-02T09:00:01.000Z");
        check(whole, "input_tokens, output_tokens, total_tokens", "10 20 30");
        check(whole, "prompt, output, request_id", "the prompt the output cmpl-1");
        check(whole, "is_error, http_status, was_streamed, outcome", "0 200 1 completed");
    }

    #[test]
    fn values_that_are_missing_or_odd_are_unknown() {
        let nothing = "9, '', NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL";
        check(nothing, "id, model, input_tokens, prompt", "9 unknown null null");
        check(nothing, "duration_ms, outcome, start_time", "0 completed 1970-01-01T00:00:00.000Z");
        let odd = "9, x'ff', 12, 'soon', '2025-11-02T09:00:01Z', -5, -1, 7.0, '12', x'00ff', 5, 6, 'true', '', 'ok', \
                   'yes', 'never'";
        check(odd, "input_tokens, output_tokens, total_tokens", "null 7 12");
        check(odd, "model, start_time, duration_ms", "12 2025-11-02T09:00:01.000Z 0");
        check(odd, "is_error, outcome, was_streamed, http_status", "1 upstream_unreachable 0 null");
    }

    #[test]
    fn how_it_ended_is_told_from_error_status_and_message() {
        let ended = |is_error: &str, message: &str, status: &str, expected: &str| {
            check(
                &format!(
                    "1, '/v1/x', 'm', '2025-11-02T09:00:01Z', NULL, 5, 1, 2, 3, NULL, NULL, NULL, {is_error}, {message}, {status}, 0, NULL"
                ),
                "outcome",
                expected,
            );
        };
        ended("0", "NULL", "200", "completed");
        ended("NULL", "NULL", "NULL", "completed");
        ended("1", "'model crashed'", "200", "error_in_reply");
        ended("NULL", "'model crashed'", "200", "error_in_reply");
        ended("1", "'no such model'", "404", "upstream_error");
        ended("0", "NULL", "500", "upstream_error");
        ended("1", "'Connection refused'", "NULL", "upstream_unreachable");
        ended("1", "'error trying to connect'", "502", "upstream_unreachable");
        ended("1", "'internal'", "502", "upstream_error");
        ended("1", "'operation timed out'", "504", "upstream_timeout");
    }

    #[test]
    fn columns_may_be_missing() {
        let (store, conn, _folder) = upgraded(
            "CREATE TABLE requests (id INTEGER PRIMARY KEY, endpoint, model, start_time, end_time, duration_ms,
                input_tokens, output_tokens, total_tokens);
             INSERT INTO requests VALUES (3, '/v1/x', 'm', '2025-11-02T09:00:01Z', '2025-11-02T09:00:02Z', NULL, 1, 2, 3)",
        );
        assert_eq!(store.row_count(), Ok(1));
        let duration = conn.query_row("SELECT duration_ms FROM requests", [], |row| row.get::<_, i64>(0));
        assert_eq!(duration, Ok(1000));
    }

    #[test]
    fn every_row_is_counted_and_new_ones_follow() {
        let (mut store, conn, folder) = upgraded(&format!(
            "{EARLIER_TABLE} PRAGMA journal_mode = WAL;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
             INSERT INTO requests SELECT i * 2, '/v1/chat/completions', 'model-' || i % 3,
                strftime('%Y-%m-%dT%H:%M:%fZ', 1768818645 + i * 97, 'unixepoch'), NULL, i, iif(i % 5, i, NULL), i * 2,
                i * 3, 'prompt', NULL, NULL, i % 7 = 0, NULL, iif(i % 7 = 0, 500, 200), i % 2, NULL FROM n"
        ));
        assert_eq!(store.row_count(), Ok(1500));
        assert_eq!(store.write(&[row()]), Ok(vec![3001]));
        let packed_until = "SELECT value FROM meta WHERE name = 'packed_until'";
        assert_eq!(conn.query_row(packed_until, [], |row| row.get::<_, i64>(0)), Ok(3000));
        let reader = Reader::open(&folder.join("metrics.db")).expect("opens");
        let summary = reader.summary(&Default::default()).expect("answers");
        let sums = conn
            .query_row(
                "SELECT count(*), sum(is_error), sum(input_tokens), sum(output_tokens), sum(total_tokens),
                    sum(duration_ms) FROM requests",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)),
            )
            .expect("a query");
        assert_eq!(
            (
                summary.total_requests,
                summary.failed_requests,
                summary.total_input_tokens,
                summary.total_output_tokens,
                summary.total_tokens,
                summary.total_duration_ms
            ),
            sums
        );
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%earlier%' OR name LIKE 'idx%'";
        assert_eq!(conn.query_row(tables, [], |row| row.get::<_, i64>(0)), Ok(0));
        assert_eq!(conn.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0)), Ok(2));
        drop(store);
        assert_eq!(Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens").row_count(), Ok(1501));
    }

    #[test]
    fn an_upgrade_that_fails_leaves_the_earlier_table() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        // Two rows with one id cannot both keep it.
        let table = EARLIER_TABLE.replace("INTEGER PRIMARY KEY AUTOINCREMENT", "INTEGER");
        let statements = format!(
            "{table} INSERT INTO requests (id, endpoint, start_time) VALUES (1, '/v1/x', ''), (1, '/v1/x', '')"
        );
        Connection::open(&path).and_then(|conn| conn.execute_batch(&statements)).expect("made");
        Store::open(&path, DbSync::Normal).expect_err("fails");
        let conn = Connection::open(&path).expect("opens");
        assert_eq!(conn.query_row("SELECT count(prompt IS NULL) FROM requests", [], |row| row.get::<_, i64>(0)), Ok(2));
        assert_eq!(conn.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)), Ok(0));
    }

    #[test]
    fn what_others_added_to_the_database_stays() {
        let (mut store, conn, folder) = upgraded(&format!(
            "{EARLIER_TABLE}
             ALTER TABLE requests ADD COLUMN note TEXT NOT NULL DEFAULT 'none'; ALTER TABLE requests ADD COLUMN Client TEXT;
             ALTER TABLE requests ADD COLUMN \"a \"\"cost\"\"\" REAL;
             CREATE TABLE notes (id INTEGER PRIMARY KEY, request INTEGER REFERENCES requests (id), note TEXT);
             CREATE VIEW noted AS SELECT id, note, model FROM requests;
             CREATE INDEX idx_requests_note ON requests (note);
             CREATE UNIQUE INDEX one_id ON requests (request_id);
             CREATE INDEX of_words ON requests (prompt);
             CREATE TRIGGER counts AFTER INSERT ON requests BEGIN INSERT INTO notes (request) VALUES (NEW.id); END;
             CREATE TRIGGER reads_words AFTER INSERT ON requests BEGIN INSERT INTO notes (note) VALUES (NEW.prompt); END;
             INSERT INTO requests (id, endpoint, start_time, prompt, request_id, note, Client, \"a \"\"cost\"\"\")
                VALUES (3, '/v1/x', '2025-11-02T09:00:01Z', 'words', 'r', 'mine', 'me', 0.5), (4, '/v1/x', '', '', NULL, '', NULL, 2);"
        ));
        let text = |query: &str| conn.query_row(query, [], |row| row.get::<_, String>(0)).expect(query);
        let all =
            "SELECT group_concat(format('%s %s %s', note, earlier_Client, \"a \"\"cost\"\"\"), '; ') FROM requests";
        assert_eq!(text(all), "mine me 0.5;   2.0");
        assert_eq!(text("SELECT prompt FROM content"), "words");
        assert_eq!(
            text("SELECT group_concat(format('%s %s %s', id, note, model), '; ') FROM noted"),
            "3 mine unknown; 4  unknown"
        );
        let others =
            "SELECT group_concat(name, ' ') FROM (SELECT name FROM sqlite_schema WHERE type IN ('index', 'trigger')
            AND tbl_name = 'requests' ORDER BY name)";
        assert_eq!(text(others), "counts idx_requests_note one_id");
        assert_eq!(
            text("SELECT sql FROM sqlite_schema WHERE name = 'notes'").matches("REFERENCES requests").count(),
            1
        );
        // Rows to come are taken, whatever a unique index would say.
        assert_eq!(store.write(&[row(), row()]), Ok(vec![5, 6]));
        assert_eq!(text("SELECT group_concat(request, ' ') FROM notes WHERE request > 4"), "5 6");
        drop(store);
        assert_eq!(Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens").row_count(), Ok(4));
        assert_eq!(text(all), "mine me 0.5;   2.0;   ;   ");
    }
}
