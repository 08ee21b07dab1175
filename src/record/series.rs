//! Series: what sums are kept apart by, and the ids that stand for them in the database.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::row::Row;
use super::schema::UNKNOWN_MODEL;
use crate::limits::SERIES_MAX;

/// A series whose names are too many to be kept apart.
pub const OTHER: &str = "other";

/// What sums are kept apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Series {
    pub(crate) endpoint: String,
    pub(crate) model: String,
    pub(crate) client: String,
    pub(crate) key: String,
    pub(crate) outcome: String,
}

/// What a request is filed under: the same names where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Names<'a> {
    /// Path.
    pub endpoint: &'a str,
    /// Model, or `unknown`.
    pub model: &'a str,
    /// Who asked, or empty.
    pub client: &'a str,
    /// Fingerprint, or empty.
    pub key: &'a str,
    /// How it ended.
    pub outcome: &'a str,
}

impl Names<'_> {
    pub(super) fn of(row: &Row) -> Names<'_> {
        Names {
            endpoint: &row.endpoint,
            model: row.model.as_deref().unwrap_or(UNKNOWN_MODEL),
            client: row.client.as_deref().unwrap_or_default(),
            key: row.key.as_deref().unwrap_or_default(),
            outcome: row.outcome.as_str(),
        }
    }

    pub(super) fn to_series(self) -> Series {
        Series {
            endpoint: self.endpoint.to_owned(),
            model: self.model.to_owned(),
            client: self.client.to_owned(),
            key: self.key.to_owned(),
            outcome: self.outcome.to_owned(),
        }
    }
}

impl Series {
    pub(crate) fn names(&self) -> Names<'_> {
        Names {
            endpoint: &self.endpoint,
            model: &self.model,
            client: &self.client,
            key: &self.key,
            outcome: &self.outcome,
        }
    }

    /// When there are already so many series that statistics would grow slow: clients and keys are no longer kept
    /// apart, and with twice as many nor are endpoints and models. The row itself keeps all its names.
    fn folded(self, known: i64, series_max: i64) -> Series {
        let other = || OTHER.to_owned();
        if known < series_max {
            self
        } else if known < 2 * series_max {
            Series { client: other(), key: other(), ..self }
        } else {
            Series { endpoint: other(), model: other(), client: other(), key: other(), ..self }
        }
    }
}

/// Ids of the series met so far.
#[derive(Debug)]
pub struct SeriesIds {
    ids: HashMap<Series, i64>,
    series_max: i64,
}

impl Default for SeriesIds {
    fn default() -> SeriesIds {
        SeriesIds { ids: HashMap::new(), series_max: SERIES_MAX }
    }
}

impl SeriesIds {
    /// After a rolled back transaction: the ids it made do not exist.
    pub fn forget(&mut self) {
        self.ids.clear();
    }

    pub(super) fn id(&mut self, conn: &Connection, series: &Series) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.get(series) {
            return Ok(*id);
        }
        let id = match find(conn, series)? {
            Some(id) => id,
            None => {
                let known: i64 = conn.query_row("SELECT coalesce(max(id), 0) FROM series", [], |row| row.get(0))?;
                let folded = series.clone().folded(known, self.series_max);
                match find(conn, &folded)? {
                    Some(id) => id,
                    None => insert(conn, &folded)?,
                }
            }
        };
        self.remember(series.clone(), id);
        Ok(id)
    }

    /// The series that a row of the table was counted in. None: somebody else has changed the row.
    pub(super) fn id_of_row(&mut self, conn: &Connection, names: Names) -> rusqlite::Result<Option<i64>> {
        let series = names.to_series();
        if let Some(id) = self.ids.get(&series) {
            return Ok(Some(*id));
        }
        // The same names, else those that it was folded into.
        for known in [0, self.series_max, 2 * self.series_max] {
            if let Some(id) = find(conn, &series.clone().folded(known, self.series_max))? {
                self.remember(series, id);
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn remember(&mut self, series: Series, id: i64) {
        // Names that were folded must not fill the memory either.
        if self.ids.len() as i64 >= 2 * self.series_max {
            self.ids.clear();
        }
        self.ids.insert(series, id);
    }
}

fn find(conn: &Connection, series: &Series) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached(
        "SELECT id FROM series WHERE endpoint = ?1 AND model = ?2 AND client = ?3 AND key = ?4 AND outcome = ?5",
    )?
    .query_row(params![series.endpoint, series.model, series.client, series.key, series.outcome], |row| row.get(0))
    .optional()
}

fn insert(conn: &Connection, series: &Series) -> rusqlite::Result<i64> {
    conn.prepare_cached("INSERT INTO series (endpoint, model, client, key, outcome) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .insert(params![series.endpoint, series.model, series.client, series.key, series.outcome])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::additions::Additions;
    use crate::record::sums::Sign;
    use crate::testing::row;

    #[test]
    fn beyond_the_limit_names_are_no_longer_kept_apart_but_every_row_counts() {
        let conn = Connection::open_in_memory().expect("opens");
        crate::record::schema::create(&conn).expect("creates");
        let mut ids = SeriesIds { ids: HashMap::new(), series_max: 5 };
        let mut additions = Additions::default();
        for i in 0..40 {
            let row = Row { model: Some(format!("model-{i}")), client: Some(format!("client-{i}")), ..row() };
            additions.count(i, &row, Sign::Add);
        }
        additions.apply(&conn, &mut ids).expect("applies");
        let counts = |query: &str| conn.query_row(query, [], |row| row.get::<_, i64>(0)).expect("a query");
        // Five whole, five by model, one for all the others.
        assert_eq!(counts("SELECT count(*) FROM series"), 11);
        assert_eq!(counts("SELECT count(*) FROM series WHERE client <> 'other'"), 5);
        assert_eq!(counts("SELECT count(*) FROM series WHERE model = 'other'"), 1);
        assert_eq!(counts("SELECT sum(requests) FROM sums"), 40);
        assert!(ids.ids.len() <= 10);
    }
}
