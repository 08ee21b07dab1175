//! Rows of the conversations that a filter names. `turns` tells which ids they have, as far as rows are packed; those
//! behind tell it themselves. Whether a row passes the rest of the filter, it tells itself, too.

use rusqlite::{params, params_from_iter};

use super::condition::Condition;
use super::filter::Filter;
use super::reader::{AskError, Reader, RowRead};
use crate::limits::TURNS_ADDED_MAX;
use crate::record::packing::State;
use crate::record::table::{FigureColumns, text};
use crate::routes::Names;

/// Ids read at once, where it does not show how many are needed.
pub(super) const TURNS_AT_ONCE: usize = if cfg!(test) { 7 } else { 1000 };
/// Few in tests, so that more are met.
const ADDED_MAX: usize = if cfg!(test) { 500 } else { TURNS_ADDED_MAX };

/// The end of a range of ids that is read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstRead {
    Oldest,
    Newest,
}

impl FirstRead {
    fn order(self) -> &'static str {
        match self {
            FirstRead::Oldest => "ASC",
            FirstRead::Newest => "DESC",
        }
    }

    /// What of a range is left behind an id.
    pub fn behind(self, id: i64, (first, last): (i64, i64)) -> (i64, i64) {
        match self {
            FirstRead::Oldest => (first.max(id.saturating_add(1)), last),
            FirstRead::Newest => (first, last.min(id.saturating_sub(1))),
        }
    }
}

impl Reader {
    /// Ids that rows of the filter's conversations have in a range of ids: at most so many, fewer only where there are no
    /// more.
    pub(super) fn turns(
        &self,
        filter: &Filter,
        (first, last): (i64, i64),
        end: FirstRead,
        most: usize,
    ) -> rusqlite::Result<Vec<i64>> {
        let mut ids: Vec<i64> = Vec::new();
        for name in &filter.conversations {
            ids.append(&mut self.packed_turns(name, (first, last), end, most)?);
        }
        let behind = State::of(&self.conn)?.until.saturating_add(1);
        let mut unpacked = self.conn.prepare_cached(
            "SELECT id, conversation FROM requests WHERE id BETWEEN ?1 AND ?2 AND conversation NOT NULL",
        )?;
        let mut rows = unpacked.query([first.max(behind), last])?;
        while let Some(row) = rows.next()? {
            if filter.takes_conversation(Some(text(row, 1))) {
                ids.push(row.get(0)?);
            }
        }
        ids.sort_unstable();
        ids.dedup();
        if end == FirstRead::Newest {
            ids.reverse();
        }
        ids.truncate(most);
        Ok(ids)
    }

    /// The same of one conversation, without those behind.
    pub(super) fn packed_turns(
        &self,
        name: &str,
        (first, last): (i64, i64),
        end: FirstRead,
        most: usize,
    ) -> rusqlite::Result<Vec<i64>> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT id FROM turns WHERE conversation = (SELECT id FROM conversations WHERE name = ?1)
                AND id BETWEEN ?2 AND ?3 ORDER BY id {} LIMIT ?4",
            end.order()
        ))?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        statement.query_map(params![name, first, last, most], |row| row.get(0))?.collect()
    }

    /// Ids of all rows of the filter's conversations, if these are not too many to be added up. Whether they pass the
    /// rest of the filter is to be asked.
    pub(super) fn turns_to_add(&self, filter: &Filter) -> Result<Vec<i64>, AskError> {
        let Some(range) = self.id_range(filter)? else { return Ok(Vec::new()) };
        let ids = self.turns(filter, range, FirstRead::Oldest, ADDED_MAX + 1)?;
        if ids.len() > ADDED_MAX {
            return Err(AskError::Refused(format!(
                "That would be more than {ADDED_MAX} requests of conversations to add up: give a later from, or an \
                 earlier to."
            )));
        }
        Ok(ids)
    }

    /// Every row of the filter's conversations that it lets pass.
    pub(super) fn visit_turns(
        &self,
        filter: &Filter,
        needs: Names<bool>,
        figures: FigureColumns,
        mut visit: impl FnMut(&RowRead),
    ) -> Result<(), AskError> {
        let ids = self.turns_to_add(filter)?;
        let condition = Condition::of(filter);
        let mut statement =
            self.conn.prepare_cached(&RowRead::query(needs, figures, &format!("id = ?{}", condition.sql)))?;
        for id in ids {
            let mut rows = statement.query(params_from_iter(condition.values(&[id])))?;
            if let Some(row) = rows.next()? {
                visit(&RowRead::new(row, needs, figures));
            }
        }
        Ok(())
    }
}
