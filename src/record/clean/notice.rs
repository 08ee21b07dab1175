//! What is about to be removed for its age, named before it is: a limit was lowered, or reaches what came with an upgrade,
//! or the proxy has not run for long. What grows old from hour to hour is not worth a word.

use rusqlite::Connection;

use crate::calendar::{DAY_MS, text_of_ms};
use crate::clock::EARLIEST_TRUE_MS;

/// So much content is looked through at most: the lowest ids, where what is oldest lies.
const LOOKED_AT_MAX: i64 = 10_000;

/// The line of the log, if something began more than a day before `kept_from_ms`. `spared`: up to this id all is out of
/// reach. `days`: `CONTENT_DAYS`.
pub(super) fn of_content(
    own: &Connection,
    spared: i64,
    kept_from_ms: i64,
    days: u64,
) -> rusqlite::Result<Option<String>> {
    let found = own.query_row(
        &format!(
            "SELECT count(*), min(start_time) FROM (SELECT id FROM content WHERE id > ?1 ORDER BY id LIMIT {LOOKED_AT_MAX})
             JOIN requests USING (id) WHERE start_time >= ?2 AND start_time < ?3"
        ),
        (spared, text_of_ms(EARLIEST_TRUE_MS), text_of_ms(kept_from_ms)),
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?)),
    )?;
    let (count, Some(oldest)) = found else { return Ok(None) };
    let at_least = if count == LOOKED_AT_MAX { "at least " } else { "" };
    let requests = if count == 1 { "request" } else { "requests" };
    let line = format!(
        "what was said in {at_least}{count} {requests}, from {} on, is older than CONTENT_DAYS={days} and is removed now; \
         figures stay",
        oldest.get(..10).unwrap_or(&oldest)
    );
    Ok((oldest < text_of_ms(kept_from_ms - DAY_MS)).then_some(line))
}
