//! Rolling up: an hour that is over is added to its day and to all time, and packed, once.

use rusqlite::{Connection, OptionalExtension};

use super::pack::{HourRead, Packs};
use super::series::SeriesIds;
use super::sums::{SPAN_ALL, SPAN_DAY, columns, on_conflict_add};
use crate::calendar::{day_of_hour, hour_of_ms};

/// Adds the oldest hour that is over and not yet rolled up to its day and to all time, and packs it, inside the
/// caller's transaction. Returns whether there was one. An hour is left alone for one hour more, for rows of exchanges
/// that began in it and still run: rows that come later than that cost more than one upsert.
///
/// `read` is what [`read_ahead`] found on another connection.
pub fn roll_up(conn: &Connection, ids: &mut SeriesIds, read: Option<HourRead>, now_ms: i64) -> rusqlite::Result<bool> {
    let Some(hour) = oldest_over(conn, now_ms)? else { return Ok(false) };
    let mut packs = Packs::default();
    roll_up_hour(conn, ids, &mut packs, hour, read)?;
    packs.write(conn)?;
    Ok(true)
}

/// Reads the rows of the hour that is to be rolled up next, while rows are written on other connections. `None`: there
/// is no such hour.
pub fn read_ahead(conn: &Connection, now_ms: i64) -> rusqlite::Result<Option<HourRead>> {
    let transaction = conn.unchecked_transaction()?;
    let hour = oldest_over(conn, now_ms)?;
    let read = hour.map(|hour| HourRead::new(conn, &mut SeriesIds::default(), hour)).transpose()?;
    transaction.finish()?;
    Ok(read)
}

/// The same for all hours that are over: years of them after an upgrade.
pub fn roll_up_all(conn: &Connection, ids: &mut SeriesIds, now_ms: i64) -> rusqlite::Result<()> {
    let mut packs = Packs::default();
    while let Some(hour) = oldest_over(conn, now_ms)? {
        roll_up_hour(conn, ids, &mut packs, hour, None)?;
    }
    packs.write(conn)
}

fn oldest_over(conn: &Connection, now_ms: i64) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT start FROM sums WHERE span = 2 AND start >= ?1 AND start < ?2 ORDER BY start LIMIT 1")?
        .query_row([rolled_until(conn)?, hour_of_ms(now_ms) - 1], |row| row.get::<_, i64>(0))
        .optional()
}

fn roll_up_hour(
    conn: &Connection,
    ids: &mut SeriesIds,
    packs: &mut Packs,
    hour: i64,
    read: Option<HourRead>,
) -> rusqlite::Result<()> {
    let mut add = conn.prepare_cached(concat!(
        "INSERT INTO sums SELECT ?1, ?2, ",
        columns!(),
        " FROM sums WHERE span = 2 AND start = ?3",
        on_conflict_add!()
    ))?;
    add.execute([SPAN_DAY, day_of_hour(hour), hour])?;
    add.execute([SPAN_ALL, 0, hour])?;
    packs.add_hour(conn, ids, hour, read)?;
    conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'rolled_until'")?.execute([hour + 1])?;
    Ok(())
}

/// The first hour that is not rolled up.
pub(super) fn rolled_until(conn: &Connection) -> rusqlite::Result<i64> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = 'rolled_until'")?.query_row([], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::HOUR_MS;
    use crate::record::additions::Additions;
    use crate::record::sums::Sign;
    use crate::testing::row;

    #[test]
    fn an_hour_is_rolled_up_once_and_only_when_it_is_over() {
        let conn = Connection::open_in_memory().expect("opens");
        crate::record::schema::create(&conn).expect("creates");
        let mut additions = Additions::default();
        let mut ids = SeriesIds::default();
        additions.count(1, &row(), Sign::Add);
        additions.apply(&conn, &mut ids).expect("applies");
        let over = (hour_of_ms(row().start_ms) + 2) * HOUR_MS;
        assert_eq!(roll_up(&conn, &mut ids, None, row().start_ms), Ok(false));
        assert_eq!(roll_up(&conn, &mut ids, None, over - 1), Ok(false));
        assert_eq!(roll_up(&conn, &mut ids, None, over), Ok(true));
        assert_eq!(roll_up(&conn, &mut ids, None, over), Ok(false));
        let spans = "SELECT count(*), sum(requests) FROM sums WHERE span < 2";
        assert_eq!(conn.query_row(spans, [], |row| Ok((row.get(0)?, row.get(1)?))), Ok((2, 2)));
    }
}
