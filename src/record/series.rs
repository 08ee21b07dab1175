//! Series: what sums and distributions are kept apart by, and the ids that stand for them in the database.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use crate::limits::SERIES_MAX;
use crate::routes::{By, Names};

/// A series whose names are too many to be kept apart.
pub const OTHER: &str = "other";

/// The names that a request is filed under. Those of an unknown client and key are empty, an unknown model is `unknown`.
pub type Series = Names<String>;

/// As it is counted where so many names are no longer kept apart.
fn folded(series: &Series, names: &[By]) -> Series {
    let mut folded = series.clone();
    names.iter().for_each(|by| OTHER.clone_into(&mut folded[*by]));
    folded
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

    /// The id of a series, made where there is none yet, inside the caller's transaction. When there are already so many
    /// that statistics would grow slow, clients and keys are no longer kept apart, and with twice as many nor are
    /// endpoints and models. The row itself keeps all its names.
    pub(super) fn id(&mut self, conn: &Connection, series: &Series) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.get(series) {
            return Ok(*id);
        }
        let known: i64 = conn.query_row("SELECT coalesce(max(id), 0) FROM series", [], |row| row.get(0))?;
        let ways = [(series.clone(), self.series_max), (folded(series, &[By::Client, By::Key]), 2 * self.series_max)];
        let id = 'found: {
            // What was counted one way before goes on so, however many there are by now.
            let last = folded(series, &[By::Client, By::Key, By::Endpoint, By::Model]);
            for (way, known_max) in ways.into_iter().chain([(last, i64::MAX)]) {
                if let Some(id) = find(conn, &way)? {
                    break 'found id;
                }
                if known < known_max {
                    break 'found insert(conn, &way)?;
                }
            }
            unreachable!("the last way has no bound")
        };
        self.remember(series.clone(), id);
        Ok(id)
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
        "SELECT id FROM series WHERE model = ?1 AND endpoint = ?2 AND client = ?3 AND key = ?4 AND outcome = ?5",
    )?
    .query_row(params_from_iter(series), |row| row.get(0))
    .optional()
}

fn insert(conn: &Connection, series: &Series) -> rusqlite::Result<i64> {
    conn.prepare_cached("INSERT INTO series (model, endpoint, client, key, outcome) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .insert(params_from_iter(series))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_names_are_no_longer_kept_apart_but_every_row_counts() {
        let conn = Connection::open_in_memory().expect("opens");
        crate::record::schema::create(&conn).expect("creates");
        let mut ids = SeriesIds { ids: HashMap::new(), series_max: 5 };
        let name = |name: &str, i: usize| format!("{name}-{i}");
        let series =
            |i: usize| [name("model", i), "/v1/x".to_owned(), name("client", i), String::new(), "completed".to_owned()];
        let met: Vec<i64> = (0..40).map(|i| ids.id(&conn, &series(i)).expect("an id")).collect();
        // Asked again, with nothing remembered, each is what it was.
        ids.forget();
        assert_eq!((0..40).map(|i| ids.id(&conn, &series(i)).expect("an id")).collect::<Vec<_>>(), met);
        let counts = |query: &str| conn.query_row(query, [], |row| row.get::<_, i64>(0)).expect("a query");
        // Five whole, five by model, one for all the others.
        assert_eq!(counts("SELECT count(*) FROM series"), 11);
        assert_eq!(counts("SELECT count(*) FROM series WHERE client <> 'other'"), 5);
        assert_eq!(counts("SELECT count(*) FROM series WHERE model = 'other'"), 1);
        assert!(ids.ids.len() <= 10);
    }
}
