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

/// Series in the order in which they were met among some rows.
#[derive(Debug, Default)]
pub(super) struct MetSeries {
    met: Vec<Series>,
    /// Where each of them stands, by its names, one behind the other.
    places: HashMap<String, usize>,
    /// That of the last row.
    last_place: usize,
}

impl MetSeries {
    /// Where the series of a row with these names stands.
    pub(super) fn place(&mut self, names: Names<&str>) -> usize {
        // Mostly it is the same as that of the row before.
        if self.met.get(self.last_place).is_none_or(|last| !last.iter().eq(&names)) {
            self.last_place = *self.places.entry(names.join("\0")).or_insert_with(|| {
                self.met.push(names.map(str::to_owned));
                self.met.len() - 1
            });
        }
        self.last_place
    }

    /// Their ids, of which the first met have the lowest. They are made where there are none, inside the caller's
    /// transaction.
    pub(super) fn ids(&self, conn: &Connection, ids: &mut SeriesIds) -> rusqlite::Result<Vec<i64>> {
        self.met.iter().map(|series| ids.id(conn, series)).collect()
    }
}

/// Ids of the series met so far.
#[derive(Debug, Default)]
pub struct SeriesIds {
    ids: HashMap<Series, i64>,
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
        let ways = [
            (series.clone(), SERIES_MAX),
            (folded(series, &[By::Client, By::Key]), 2 * SERIES_MAX),
            (folded(series, &[By::Client, By::Key, By::Endpoint, By::Model]), i64::MAX),
        ];
        for (way, known_max) in ways {
            let id = match find(conn, &way)? {
                // What was counted one way before goes on so, however many there are by now.
                Some(id) => id,
                None if known < known_max => insert(conn, &way)?,
                None => continue,
            };
            // Names that were folded must not fill the memory either.
            if self.ids.len() as i64 >= 2 * SERIES_MAX {
                self.ids.clear();
            }
            self.ids.insert(series.clone(), id);
            return Ok(id);
        }
        unreachable!("the last way has no bound")
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
        let mut ids = SeriesIds::default();
        let name = |name: &str, i: i64| format!("{name}-{i}");
        let series =
            |i: i64| [name("model", i), "/v1/x".to_owned(), name("client", i), String::new(), "completed".to_owned()];
        // Others, up to this id.
        let fill = |until: i64| {
            let others = "WITH RECURSIVE ids (id) AS (SELECT coalesce(max(id), 0) + 1 FROM series
                 UNION ALL SELECT id + 1 FROM ids WHERE id < ?1)
                 INSERT INTO series SELECT id, 'another', id, '', '', '' FROM ids";
            conn.execute(others, [until]).expect("fills");
        };
        let mut meet =
            |range: std::ops::Range<i64>| range.map(|i| ids.id(&conn, &series(i)).expect("an id")).collect::<Vec<_>>();
        fill(SERIES_MAX - 5);
        let mut met = meet(0..20);
        fill(2 * SERIES_MAX - 5);
        met.extend(meet(20..40));
        // Asked again, with nothing remembered, each is what it was.
        ids.forget();
        assert_eq!((0..40).map(|i| ids.id(&conn, &series(i)).expect("an id")).collect::<Vec<_>>(), met);
        let counts = |condition: &str| {
            let query = format!("SELECT count(*) FROM series WHERE endpoint <> 'another' AND {condition}");
            conn.query_row(&query, [], |row| row.get::<_, i64>(0)).expect("a query")
        };
        // Five whole, fifteen and five by model, one for all the others.
        assert_eq!((counts("true"), counts("client <> 'other'"), counts("model = 'other'")), (26, 5, 1));
        ids.ids = (0..2 * SERIES_MAX).map(|i| (series(i), i)).collect();
        ids.id(&conn, &series(-1)).expect("an id");
        assert_eq!(ids.ids.len(), 1);
    }
}
