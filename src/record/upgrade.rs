//! From the earlier program's table to ours, in place and in one transaction.
//!
//! Ids, figures and words are kept; prompts and outputs move to `content`; times are written alike; every row is
//! counted. How an exchange ended was not recorded then: it is told from the error flag, status and message. Columns
//! that are missing are unknown, and so are values that cannot be what the column says.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use super::rfc3339::{ms_of_text, text_of_ms};
use super::row::{Content, Outcome, Row};
use super::schema;
use super::store::{Entry, insert};
use super::sums::{Additions, SeriesIds, Sign, duration};

/// Rows whose sums are put together before they are written.
const ROWS_AT_ONCE: usize = 512;

const COLUMNS: [&str; 17] = [
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

/// Converts the table `requests`, inside the caller's transaction.
pub(super) fn upgrade(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("ALTER TABLE requests RENAME TO earlier_requests")?;
    schema::create(conn)?;
    copy_rows(conn)?;
    conn.execute_batch("DROP TABLE earlier_requests")
}

/// Gives back the space that the old table took, and readies the file for giving back more later. Without success the
/// database works all the same, so that nobody needs to know.
pub(super) fn tidy(conn: &Connection) {
    let _ = conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
}

fn copy_rows(conn: &Connection) -> rusqlite::Result<()> {
    let mut select = earlier_rows(conn)?;
    let mut rows = select.query([])?;
    let mut series = SeriesIds::default();
    let mut additions = Additions::default();
    let mut counted = 0;
    let mut last_start_ms = 0;
    while let Some(row) = rows.next()? {
        let earlier = read(row, last_start_ms)?;
        last_start_ms = earlier.row.start_ms;
        let id = insert(
            conn,
            &Entry {
                id: Some(earlier.id),
                row: &earlier.row,
                end_time: text_of_ms(earlier.end_ms),
                created_at: &text_of_ms(earlier.created_ms),
            },
        )?;
        additions.count(conn, &mut series, id, &earlier.row, Sign::Add)?;
        counted += 1;
        if counted % ROWS_AT_ONCE == 0 {
            additions.apply(conn)?;
            additions = Additions::default();
        }
    }
    additions.apply(conn)
}

fn earlier_rows(conn: &Connection) -> rusqlite::Result<Statement<'_>> {
    let there = schema::columns_of(conn, "earlier_requests")?;
    let columns: Vec<&str> =
        COLUMNS.iter().map(|column| if there.iter().any(|name| name == column) { *column } else { "NULL" }).collect();
    conn.prepare(&format!("SELECT {} FROM earlier_requests ORDER BY id", columns.join(", ")))
}

struct Earlier {
    id: i64,
    row: Row,
    end_ms: i64,
    created_ms: i64,
}

/// One row, its columns in the order of [`COLUMNS`]. A row that does not say when it was is filed with the one before.
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
        requested_model: None,
        start_ms,
        duration_ms,
        input_tokens: count(row.get_ref(6)?),
        output_tokens: count(row.get_ref(7)?),
        total_tokens: count(row.get_ref(8)?),
        cached_tokens: None,
        reasoning_tokens: None,
        request_id: text(row.get_ref(11)?),
        outcome: outcome(is_error, http_status, error_message.as_deref()),
        error_message,
        http_status,
        was_streamed: flag(row.get_ref(15)?),
        time_to_first_token_ms: None,
        tokens_per_second: None,
        finish_reason: None,
        usage_source: None,
        model_load_ms: None,
        client: None,
        key: None,
        attempt: None,
        content: Content {
            prompt: text(row.get_ref(9)?),
            output: text(row.get_ref(10)?),
            reasoning: None,
            tool_calls: None,
        },
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
