//! A filter as a condition on rows, in SQL.

use rusqlite::types::Value;

use super::answers::By;
use super::filter::Filter;
use super::reader::bounds;

/// The condition of a filter on rows.
#[derive(Debug)]
pub(super) struct Condition {
    /// Follows `WHERE` conditions on ids.
    pub sql: String,
    /// The values for its question marks.
    values: Vec<Value>,
}

impl Condition {
    pub(super) fn of(filter: &Filter) -> Condition {
        let mut condition = Condition { sql: String::new(), values: Vec::new() };
        if filter.from_ms.is_some() || filter.to_ms.is_some() {
            let (from, to) = bounds(filter.from_ms, filter.to_ms);
            condition.sql.push_str(" AND start_time >= ? AND start_time < ?");
            condition.values.extend([Value::Text(from), Value::Text(to)]);
        }
        for (by, names) in By::ALL.iter().zip(&filter.names) {
            condition.is_any_of(&format!("coalesce({}, '')", by.name()), names);
        }
        condition.is_any_of("conversation", &filter.conversations);
        condition
    }

    fn is_any_of(&mut self, column: &str, names: &[String]) {
        if !names.is_empty() {
            let marks = vec!["?"; names.len()].join(", ");
            self.sql.push_str(&format!(" AND {column} IN ({marks})"));
            self.values.extend(names.iter().cloned().map(Value::Text));
        }
    }

    /// All values: these of the conditions on ids, and its own.
    pub(super) fn values(&self, ids: &[i64]) -> Vec<Value> {
        ids.iter().map(|id| Value::Integer(*id)).chain(self.values.iter().cloned()).collect()
    }
}
