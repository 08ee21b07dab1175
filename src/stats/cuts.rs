//! How many prompts seem to be cut. From packs, which are there only where any are, and the rows that are not packed or lie
//! at the edges of a range.

use rusqlite::params_from_iter;

use super::condition::Condition;
use super::filter::Filter;
use super::reader::{AskError, Reader};

impl Reader {
    /// Of those that the filter lets pass, inside the caller's transaction.
    pub(super) fn prompts_cut(&self, filter: &Filter) -> Result<i64, AskError> {
        let mut count = 0;
        let parts = self.packed_prompts("packed_cuts", filter, |_, _, sums, sign| count += sign * sums.requests)?;
        for (part, ids) in parts {
            count += self.rows_cut(&part, ids)?;
        }
        Ok(count)
    }

    /// Of the rows of these ids.
    fn rows_cut(&self, filter: &Filter, ids: (i64, i64)) -> rusqlite::Result<i64> {
        let condition = Condition::of(filter);
        let query =
            format!("SELECT count(*) FROM requests WHERE id BETWEEN ? AND ? AND prompt_cut = 1{}", condition.sql);
        let values = params_from_iter(condition.values(&[ids.0, ids.1]));
        self.conn.prepare_cached(&query)?.query_row(values, |row| row.get(0))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::calendar::HOUR_MS;
    use crate::record::row::Row;
    use crate::record::store::{DbSync, Store};
    use crate::routes::By;
    use crate::testing::{Folder, Random, random_row, row};

    #[test]
    fn they_are_those_of_the_rows_whatever_is_packed_and_whatever_range() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let (conn, reader) = (Connection::open(&path).expect("opens"), Reader::open(&path).expect("opens"));
        let mut random = Random::new(4);
        let told = |filter: &Filter| reader.at_once(|| reader.prompts_cut(filter)).expect("answers");
        assert_eq!(told(&Filter::default()), 0);
        for round in 0..3 {
            let rows: Vec<Row> = (0..100).map(|_| random_row(&mut random)).collect();
            store.write(&rows).expect("writes");
            let mark = "UPDATE requests SET prompt_cut = id % 3 = 0, conversation = 'c' || id % 5,
                conversation_source = 'header' WHERE id > ?1";
            conn.execute(mark, [round * 100]).expect("written");
            for _ in 0..20 {
                let mut moment = || {
                    let ms = row().start_ms + random.below(72 * HOUR_MS as u64) as i64;
                    if random.below(2) == 0 { ms } else { ms - ms % HOUR_MS }
                };
                let (from, to) = (moment(), moment());
                let mut filter = Filter { from_ms: Some(from.min(to)), to_ms: Some(to.max(from)), ..Filter::default() };
                filter.names[By::Model].push("model-1".to_owned());
                for conversations in [vec![], vec!["c1".to_owned()]] {
                    let of_it = if conversations.is_empty() { "1" } else { "conversation = 'c1'" };
                    let plain = format!(
                        "SELECT count(*) FROM requests WHERE prompt_cut = 1 AND model = 'model-1' AND {of_it} AND
                            round(unixepoch(start_time, 'subsec') * 1000) >= {} AND
                            round(unixepoch(start_time, 'subsec') * 1000) < {}",
                        from.min(to),
                        to.max(from)
                    );
                    let expected: i64 = conn.query_row(&plain, [], |row| row.get(0)).expect("a query");
                    assert_eq!(told(&Filter { conversations, ..filter.clone() }), expected, "{plain}");
                }
            }
            if round < 2 {
                store.pack_all().expect("packs");
            }
        }
        assert_eq!(told(&Filter::default()), 100);
    }
}
