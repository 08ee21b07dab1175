//! Series: what sums and distributions are kept apart by, and the ids that stand for them in the database.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::limits::SERIES_MAX;

/// A series whose names are too many to be kept apart.
pub const OTHER: &str = "other";

/// What a request is filed under, and what requests are kept apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Series<S = String> {
    /// Path.
    pub endpoint: S,
    /// Model, or `unknown`.
    pub model: S,
    /// Who asked, or empty.
    pub client: S,
    /// Fingerprint, or empty.
    pub key: S,
    /// How it ended.
    pub outcome: S,
}

/// The same names where they stand.
pub type SeriesNames<'a> = Series<&'a str>;

impl<S> Series<S> {
    fn map<'s, T>(&'s self, name: impl Fn(&'s S) -> T) -> Series<T> {
        Series {
            endpoint: name(&self.endpoint),
            model: name(&self.model),
            client: name(&self.client),
            key: name(&self.key),
            outcome: name(&self.outcome),
        }
    }
}

impl SeriesNames<'_> {
    pub(super) fn to_series(self) -> Series {
        self.map(|name| (*name).to_owned())
    }
}

impl Series {
    pub(crate) fn names(&self) -> SeriesNames<'_> {
        self.map(String::as_str)
    }

    /// As it is counted where so many names are no longer kept apart: those of clients and keys, or all but how it ended.
    fn folded(&self, all: bool) -> Series {
        let other = || OTHER.to_owned();
        let folded = Series { client: other(), key: other(), ..self.clone() };
        if all { Series { endpoint: other(), model: other(), ..folded } } else { folded }
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

    /// The id of a series, made where there is none yet, inside the caller's transaction. When there are already so many
    /// that statistics would grow slow, clients and keys are no longer kept apart, and with twice as many nor are
    /// endpoints and models. The row itself keeps all its names.
    pub(super) fn id(&mut self, conn: &Connection, series: &Series) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.get(series) {
            return Ok(*id);
        }
        let known: i64 = conn.query_row("SELECT coalesce(max(id), 0) FROM series", [], |row| row.get(0))?;
        let ways = [(series.clone(), self.series_max), (series.folded(false), 2 * self.series_max)];
        let id = 'found: {
            // What was counted one way before goes on so, however many there are by now.
            for (way, known_max) in ways.into_iter().chain([(series.folded(true), i64::MAX)]) {
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
    #[test]
    fn beyond_the_limit_names_are_no_longer_kept_apart_but_every_row_counts() {
        let conn = Connection::open_in_memory().expect("opens");
        crate::record::schema::create(&conn).expect("creates");
        let mut ids = SeriesIds { ids: HashMap::new(), series_max: 5 };
        let name = |name: &str, i: usize| format!("{name}-{i}");
        let series = |i: usize| Series {
            endpoint: "/v1/x".to_owned(),
            model: name("model", i),
            client: name("client", i),
            key: String::new(),
            outcome: "completed".to_owned(),
        };
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
