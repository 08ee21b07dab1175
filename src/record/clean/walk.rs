//! Looking for what is too old among the lowest ids, a step at a time.

use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension};

use super::{Aged, CleanBatch, LOOK_ROWS, OCTETS, Phase};
use crate::calendar::text_of_ms;
use crate::clock::{EARLIEST_TRUE_MS, latest_true_ms};
use crate::record::packing::State;
use crate::record::recorder::Recorder;

/// Looking at rows, or at content, from the lowest ids on.
#[derive(Debug)]
pub(super) struct Walk {
    what: Aged,
    /// Up to this id all is out of reach.
    spared: i64,
    /// What began before is too old.
    kept_from: String,
    /// Dates that can be true.
    true_dates: RangeInclusive<String>,
    /// Behind this id it looks: whatever is up to it is out of reach, or has no date that can be true.
    after: i64,
    /// What has no such date is too old up to this id, the highest that was found to be too old.
    untrue_until: i64,
}

impl Walk {
    /// For what began before a moment, asked at `now_ms`.
    pub(super) fn new(what: Aged, spared: i64, kept_from_ms: i64, now_ms: i64) -> Walk {
        let true_dates = text_of_ms(EARLIEST_TRUE_MS)..=text_of_ms(latest_true_ms(now_ms));
        let kept_from = text_of_ms(kept_from_ms);
        Walk { what, spared, kept_from, true_dates, after: spared, untrue_until: 0 }
    }

    /// One step: removes some of the lowest ids, or is done when none of them is too old.
    pub(super) fn step(mut self, own: &Connection, recorder: &Recorder) -> rusqlite::Result<Phase> {
        let newest: i64 = own.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?;
        let (mut look, until) = match self.what {
            // Who asks adds the rows that are not packed: they must be there.
            Aged::Rows => (
                own.prepare_cached(&format!(
                    "SELECT id, start_time FROM requests WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT {LOOK_ROWS}"
                ))?,
                State::of(own)?.until,
            ),
            Aged::Content => (
                own.prepare_cached(&format!(
                    "SELECT content.id, start_time FROM content LEFT JOIN requests ON content.id = requests.id
                     WHERE content.id > ?1 AND content.id <= ?2 ORDER BY content.id LIMIT {LOOK_ROWS}"
                ))?,
                i64::MAX,
            ),
        };
        let mut size = own.prepare_cached(&format!("SELECT {OCTETS} FROM content WHERE id = ?1"))?;
        let mut found = look.query([self.after, until])?;
        let (mut batch, mut untrue, mut looked, mut last, mut some_stay) =
            (CleanBatch::default(), Vec::new(), 0, self.after, false);
        'look: while let Some(row) = found.next()? {
            let (id, start_time): (i64, Option<String>) = (row.get(0)?, row.get(1)?);
            (looked, last) = (looked + 1, id);
            match start_time {
                Some(date) if !self.true_dates.contains(&date) && id > self.untrue_until => {
                    untrue.push(id);
                    continue;
                }
                Some(date) if self.true_dates.contains(&date) => {
                    if date >= self.kept_from {
                        some_stay = true;
                        continue;
                    }
                    if self.after > self.spared && self.untrue_until < id {
                        // All that was passed over is too old, too.
                        (self.after, self.untrue_until) = (self.spared, id);
                        return Ok(Phase::Walk(self));
                    }
                    self.untrue_until = self.untrue_until.max(id);
                }
                // Content without a row is nobody's.
                Some(_) | None => {}
            }
            for id in untrue.drain(..).chain([id]) {
                let octets: Option<i64> = size.query_row([id], |row| row.get(0)).optional()?;
                let stays = self.what == Aged::Rows && id == newest && octets.is_none();
                some_stay |= stays;
                if !stays && !batch.take(id, octets.unwrap_or(0)) {
                    break 'look;
                }
            }
        }
        drop(found);
        if !batch.ids.is_empty() {
            batch.remove(self.what, own, recorder)?;
            return Ok(Phase::Walk(self));
        }
        if some_stay || looked < LOOK_ROWS {
            return Ok(self.what.next());
        }
        self.after = last;
        Ok(Phase::Walk(self))
    }
}
