//! Closing hours: an hour that is over is read once, and its packs of times are made.
//!
//! Invariants:
//! - Packs of an hour that is not open are those of all packed rows that reach into it; the packs of longer spans are the
//!   sums of those of hours.
//! - The packs of an hour of which a row was removed stay as they are.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::packing::State;
use super::series::{MetSeries, SeriesIds};
use super::times::{Completeness, hours_reached, times_within};
use crate::calendar::{HOUR_MS, hour_of_ms};
use crate::packs::packs_of_hour;
use crate::packs::times::{TimeFigure, TimePack, TimeSums, UNCOUNTED, encode_times, visit_times};

/// An open hour, and what it comes to.
#[derive(Debug)]
pub(super) struct FoldedHour {
    /// Of when its rows were read.
    state: State,
    hour: i64,
    series: MetSeries,
    sums: Vec<TimeSums>,
    /// Later hours that its rows reach into, with their ids: where an earlier version packed these, nobody has noted it.
    reaching: BTreeSet<(i64, i64)>,
    completeness: Completeness,
}

/// Reads the first open hour that is over, on any connection. `None`: there is none.
pub(super) fn fold(conn: &Connection, now_ms: i64) -> rusqlite::Result<Option<FoldedHour>> {
    let transaction = conn.unchecked_transaction()?;
    let open = "SELECT min(hour) FROM open_hours WHERE hour < ?1";
    let open = conn.prepare_cached(open)?.query_row([hour_of_ms(now_ms)], |row| row.get::<_, Option<i64>>(0))?;
    let Some(hour) = open else { return Ok(None) };
    let state = State::of(conn)?;
    let mut series = MetSeries::default();
    let (from, to) = (hour * HOUR_MS, (hour + 1) * HOUR_MS);
    let mut reaching = BTreeSet::new();
    let (sums, completeness) = times_within(conn, (from, to), (state.until, false), &mut |row| {
        if row.run.start_ms >= from {
            let length_ms = row.run.end_ms() - row.run.start_ms;
            reaching.extend(hours_reached(row.run.start_ms, length_ms).map(|hour| (hour, row.id)));
        }
        series.place(row.names())
    })?;
    transaction.finish()?;
    Ok(Some(FoldedHour { state, hour, series, sums, reaching, completeness }))
}

/// Makes the packs of an hour that was read, inside the caller's transaction, and closes it. False, and without effect,
/// where rows were packed or changed since.
pub(super) fn close(conn: &Connection, ids: &mut SeriesIds, folded: &FoldedHour) -> rusqlite::Result<bool> {
    if State::of(conn)? != folded.state {
        return Ok(false);
    }
    let [of_hour, longer @ ..] = packs_of_hour(folded.hour);
    let before = read_pack(conn, of_hour)?;
    let mut now = TimePack::new();
    match folded.completeness {
        Completeness::AllThere => {
            for (series, sums) in folded.series.ids(conn, ids)?.into_iter().zip(&folded.sums) {
                now.entry(series).or_default().add(sums, 1);
            }
        }
        Completeness::SomeRemoved if before.is_empty() => {
            now.entry(UNCOUNTED).or_default().0[TimeFigure::Shared as usize] = HOUR_MS * 1000;
        }
        Completeness::SomeRemoved => now.clone_from(&before),
    }
    if now != before {
        write_pack(conn, of_hour, &now)?;
        for id in longer {
            let mut pack = read_pack(conn, id)?;
            for (series, sums) in &now {
                pack.entry(*series).or_default().add(sums, 1);
            }
            for (series, sums) in &before {
                pack.entry(*series).or_default().add(sums, -1);
            }
            write_pack(conn, id, &pack)?;
        }
    }
    conn.prepare_cached("DELETE FROM open_hours WHERE hour = ?1")?.execute([folded.hour])?;
    let mut note = conn.prepare_cached("INSERT OR IGNORE INTO reaching VALUES (?1, ?2)")?;
    for (hour, id) in &folded.reaching {
        if note.execute([hour, id])? > 0 {
            conn.prepare_cached("INSERT OR IGNORE INTO open_hours VALUES (?1)")?.execute([hour])?;
        }
    }
    Ok(true)
}

fn read_pack(conn: &Connection, id: i64) -> rusqlite::Result<TimePack> {
    let query = "SELECT pack FROM packed_times WHERE id = ?1";
    let blob: Option<Vec<u8>> = conn.prepare_cached(query)?.query_row([id], |row| row.get(0)).optional()?;
    let mut pack = TimePack::new();
    visit_times(&blob.unwrap_or_default(), |series, sums| pack.entry(series).or_default().add(sums, 1))?;
    Ok(pack)
}

fn write_pack(conn: &Connection, id: i64, pack: &TimePack) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT OR REPLACE INTO packed_times VALUES (?1, ?2)")?
        .execute(params![id, encode_times(pack)])?;
    Ok(())
}
