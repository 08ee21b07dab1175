//! Looking through the hours that became too old, an hour's ids at a time. The sums of an hour know its ids, so that no
//! other rows are looked at.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension};

use super::{Aged, Batch, EARLIEST_TRUE_HOUR, LOOK_ROWS, Phase, Reach};
use crate::calendar::{HOUR_MS, text_of_ms};
use crate::record::clock::EARLIEST_TRUE_MS;
use crate::record::meta::{number, set};
use crate::record::recorder::Recorder;

/// Looking through the hours that became too old.
#[derive(Debug)]
pub(super) struct Walk {
    what: Aged,
    reach: Reach,
    /// The name in `meta` as it was when the walk began.
    from: i64,
    /// The first hour that is not too old.
    until: i64,
    /// What begins later has no date that can be true.
    true_until_ms: i64,
    /// The next hour to look at, and the ids of it that are left.
    hour: i64,
    ids: Option<(i64, i64)>,
    /// The newest row was found too old in this hour, and stays: the next walk begins with it.
    newest_in: Option<i64>,
}

impl Walk {
    /// Through these hours.
    pub(super) fn new(what: Aged, reach: Reach, hours: Range<i64>, true_until_ms: i64) -> Walk {
        let hour = hours.start.max(EARLIEST_TRUE_HOUR);
        Walk { what, reach, from: hours.start, until: hours.end, true_until_ms, hour, ids: None, newest_in: None }
    }

    /// One step: a piece of an hour, or the way to the next one.
    pub(super) fn step(mut self, own: &Connection, recorder: &Recorder) -> rusqlite::Result<Phase> {
        let Some((next, last)) = self.ids.take() else { return self.next_hour(own, recorder) };
        let newest: i64 = own.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?;
        let mut look = match self.what {
            Aged::Rows => own.prepare_cached(concat!(
                "SELECT requests.id, start_time, content.id IS NOT NULL, ",
                octets!(),
                " FROM requests LEFT JOIN content ON content.id = requests.id
                 WHERE requests.id BETWEEN ?1 AND ?2 ORDER BY requests.id LIMIT ?3"
            ))?,
            Aged::Content => own.prepare_cached(concat!(
                "SELECT content.id, start_time, 1, ",
                octets!(),
                " FROM content LEFT JOIN requests ON content.id = requests.id
                 WHERE content.id BETWEEN ?1 AND ?2 ORDER BY content.id LIMIT ?3"
            ))?,
        };
        // A date that cannot be true says nothing, but these ids were recorded when it was this hour.
        let dated = text_of_ms(EARLIEST_TRUE_MS)..=text_of_ms(self.true_until_ms);
        let too_old_before = text_of_ms(self.until * HOUR_MS);
        let is_too_old = |start_time: String| start_time < too_old_before || !dated.contains(&start_time);
        let mut found = look.query([next, last, LOOK_ROWS])?;
        let mut batch = Batch::default();
        self.ids = None;
        let mut looked = 0;
        while let Some(row) = found.next()? {
            let (id, start_time, has_content): (i64, Option<String>, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            looked += 1;
            // Content without a row is nobody's.
            if start_time.is_none_or(is_too_old) {
                let stays = self.what == Aged::Rows && id == newest;
                if stays {
                    self.newest_in.get_or_insert(self.hour);
                }
                if (has_content || !stays) && !batch.take(id, row.get(3)?) {
                    self.ids = Some((id, last));
                    break;
                }
            }
            if looked == LOOK_ROWS {
                self.ids = Some((id + 1, last));
            }
        }
        drop(found);
        drop(look);
        if self.ids.is_none() {
            self.hour += 1;
        }
        batch.remove(self.what, own, recorder)?;
        Ok(Phase::Walk(self))
    }

    fn next_hour(mut self, own: &Connection, recorder: &Recorder) -> rusqlite::Result<Phase> {
        let hour = own
            .prepare_cached(
                "SELECT start, min(first_id), max(last_id) FROM sums WHERE span = 2 AND start >= ?1 AND start < ?2
                 GROUP BY start ORDER BY start LIMIT 1",
            )?
            .query_row([self.hour, self.until], |row| Ok((row.get(0)?, (row.get::<_, i64>(1)?, row.get(2)?))))
            .optional()?;
        if let Some((hour, (first, last))) = hour {
            // What has no date of its own and was recorded since the hour before goes with this one.
            let first = first.min(last_id_before(own, hour)? + 1);
            // In hours of before an upgrade nothing may be left to look at.
            (self.hour, self.ids) = (hour, Some((first.max(self.reach.spared() + 1), last)));
            return Ok(Phase::Walk(self));
        }
        let done = self.newest_in.unwrap_or(self.hour);
        if done > self.from {
            recorder.clean(0, |conn| {
                // Unless a late row has taken it back meanwhile.
                let name = self.what.name(self.reach);
                if number(conn, name)?.unwrap_or(0) == self.from {
                    set(conn, name, done)?;
                }
                Ok(())
            })?;
        }
        Ok(self.what.next())
    }
}

/// The highest id in the last hour before that has requests, and a date that can be true.
fn last_id_before(conn: &Connection, hour: i64) -> rusqlite::Result<i64> {
    let mut statement = conn.prepare_cached(
        "SELECT coalesce(max(last_id), 0) FROM sums WHERE span = 2
         AND start = (SELECT max(start) FROM sums WHERE span = 2 AND start >= ?1 AND start < ?2)",
    )?;
    statement.query_row([EARLIEST_TRUE_HOUR, hour], |row| row.get(0))
}
