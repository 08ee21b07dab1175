//! What others have added to the earlier program's table: columns, indices and triggers that it did not make itself.
//! An upgrade takes nothing away, so they go on with the table that takes its place.
//!
//! Indices of the earlier program's own (`idx_requests_…` on its columns) served its questions and hold nothing that
//! the rows do not; they go. A unique index becomes a plain one, and a trigger that does not fit the new table is left
//! out: rows to come must not be refused. Other tables and views are not touched at all.

use rusqlite::{Connection, OptionalExtension, Statement};

use super::schema::{self, EARLIER_COLUMNS};
use super::table::Inserts;

/// What there was beside what an upgrade reads.
#[derive(Debug)]
pub(super) struct Extras {
    /// Name and type.
    columns: Vec<(String, String)>,
    /// Indices and triggers: name and statement.
    others: Vec<(String, String)>,
}

impl Extras {
    /// Of the table `requests`, before it is renamed.
    pub(super) fn of(conn: &Connection) -> rusqlite::Result<Extras> {
        let mut columns = conn.prepare("SELECT name, type FROM pragma_table_info('requests')")?;
        let mut extras = Extras { columns: pairs(&mut columns)?, others: Vec::new() };
        extras.columns.retain(|(name, _)| !is_earlier(name));
        let mut others = conn.prepare(
            "SELECT name, sql FROM sqlite_schema WHERE type IN ('index', 'trigger') AND lower(tbl_name) = 'requests'
                AND sql IS NOT NULL ORDER BY type, rowid",
        )?;
        for other in pairs(&mut others)? {
            if !is_earlier_index(conn, &other.0)? {
                extras.others.push(other);
            }
        }
        Ok(extras)
    }

    /// Adds the columns to the new table and copies what is in them, while both tables are there.
    pub(super) fn copy_columns(&self, conn: &Connection) -> rusqlite::Result<()> {
        for (name, kind) in &self.columns {
            let there = schema::columns_of(conn, "requests")?;
            let mut new_name = name.clone();
            // A column of ours may have that name, and mean something else.
            while there.contains(&new_name.to_lowercase()) {
                new_name = format!("earlier_{new_name}");
            }
            let (new, old) = (quoted(&new_name), quoted(name));
            conn.execute_batch(&format!(
                "ALTER TABLE requests ADD COLUMN {new} {kind};
                 UPDATE requests SET {new} = earlier.{old} FROM earlier_requests AS earlier
                    WHERE earlier.id = requests.id AND earlier.{old} IS NOT NULL"
            ))?;
        }
        Ok(())
    }

    /// Makes indices and triggers anew, once the earlier table is gone.
    pub(super) fn make_others(&self, conn: &Connection) -> rusqlite::Result<()> {
        for (name, statement) in &self.others {
            let statement = match statement.strip_prefix("CREATE UNIQUE INDEX ") {
                Some(rest) => format!("CREATE INDEX {rest}"),
                None => statement.clone(),
            };
            conn.execute_batch("SAVEPOINT other")?;
            // A trigger is only compiled with the statement that it goes with.
            let made = conn.execute_batch(&statement).and_then(|()| Inserts::prepare(conn).map(drop));
            conn.flush_prepared_statement_cache();
            if let Err(e) = made {
                conn.execute_batch("ROLLBACK TO other")?;
                log::warn!("{name} does not fit the upgraded table and was left out ({e}): {statement}");
            }
            conn.execute_batch("RELEASE other")?;
        }
        Ok(())
    }
}

fn pairs(query: &mut Statement) -> rusqlite::Result<Vec<(String, String)>> {
    query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

fn is_earlier(column: &str) -> bool {
    EARLIER_COLUMNS.iter().any(|earlier| column.eq_ignore_ascii_case(earlier))
}

fn is_earlier_index(conn: &Connection, name: &str) -> rusqlite::Result<bool> {
    if !name.to_ascii_lowercase().starts_with("idx_requests") {
        return Ok(false);
    }
    // The name of an expression is NULL.
    let mut columns = conn.prepare("SELECT coalesce(name, '') FROM pragma_index_info(?1)")?;
    let columns = columns.query_map([name], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let partial = "SELECT 1 FROM pragma_index_list('requests') WHERE name = ?1 AND (partial OR [unique])";
    let odd = conn.query_row(partial, [name], |_| Ok(())).optional()?.is_some();
    // A trigger has no columns.
    Ok(!columns.is_empty() && columns.iter().all(|column| is_earlier(column)) && !odd)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
