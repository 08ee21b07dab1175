//! From former versions of our tables. Version 5 did not tell where the time went: the keeper reads the rows of each of
//! its hours once, later. Version 4 had every prompt in `content`, where those that it wrote stay.
//!
//! Versions 1 to 3 kept sums by hour and series in a table `sums`, too, and packed them when their hour was over. Which
//! rows they hold, removed ones included, packs must go on holding.
//!
//! ```text
//!  hours before `rolled_until`   packed already
//!  hours since                   sums from `sums`, distributions from their rows ──▶ packs
//!  rows behind `summed_until`    in neither; packed as any others
//! ```

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::meta::{number, set};
use super::packing::{Folded, PACKED_UNTIL, add_to_packs};
use super::schema::{self, VERSION, columns_of};
use super::series::SeriesIds;
use super::times;
use crate::calendar::{HOUR_MS, text_of_ms};
use crate::packs::sums::{KnownSum, Sums};
use crate::packs::{Latencies, Measured};

/// Columns that version 2 did not have. They come last, where SQLite adds them.
const ADDED_IN_3: [(&str, &str, &str); 6] = [
    ("requests", "cache_write_tokens", "INTEGER"),
    ("requests", "draft_tokens", "INTEGER"),
    ("requests", "accepted_draft_tokens", "INTEGER"),
    ("requests", "prompt_tokens_per_second", "REAL"),
    ("sums", "cache_write_tokens", "INTEGER NOT NULL DEFAULT 0"),
    ("sums", "cache_write_known", "INTEGER NOT NULL DEFAULT 0"),
];

/// Columns that version 4 did not have.
const ADDED_IN_5: [(&str, &str, &str); 13] = [
    ("requests", "conversation", "TEXT"),
    ("requests", "conversation_source", "TEXT"),
    ("requests", "replay_of", "INTEGER"),
    ("requests", "prompt_bytes", "INTEGER"),
    ("requests", "prefix_of", "INTEGER"),
    ("requests", "prefix_bytes", "INTEGER"),
    ("requests", "prefix_messages", "INTEGER"),
    ("requests", "prefix_break", "TEXT"),
    ("requests", "prefix_lost_ms", "INTEGER"),
    ("content", "pieces", "TEXT"),
    ("content", "outline", "BLOB"),
    ("content", "replaced", "TEXT"),
    ("content", "title", "TEXT"),
];

/// Columns that version 5 did not have.
const ADDED_IN_6: [(&str, &str, &str); 4] = [
    ("requests", "queue_ms", "INTEGER"),
    ("requests", "context_tokens", "INTEGER"),
    ("requests", "prompt_cut", "INTEGER"),
    ("requests", "prompt_expected_tokens", "INTEGER"),
];

/// Makes the tables of a former version those of this one, inside the caller's transaction.
pub(super) fn upgrade(conn: &Connection, version: i32) -> rusqlite::Result<()> {
    if version < 4 {
        add_columns(conn, &ADDED_IN_3)?;
    }
    // Packing reads them.
    if version < 5 {
        add_columns(conn, &ADDED_IN_5)?;
        schema::add_tables_of_5(conn)?;
    }
    add_columns(conn, &ADDED_IN_6)?;
    schema::add_tables_of_6(conn)?;
    if version < 4 {
        become_version_4(conn, version)?;
    }
    if version < 5 {
        schema::none_is_pieced(conn)?;
    }
    times::open_packed_hours(conn)?;
    conn.pragma_update(None, "user_version", VERSION)
}

/// Where somebody else has added one of the same name, that one serves.
fn add_columns(conn: &Connection, columns: &[(&str, &str, &str)]) -> rusqlite::Result<()> {
    for (table, column, kind) in columns {
        if !columns_of(conn, table)?.iter().any(|name| name == column) {
            conn.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column} {kind}"))?;
        }
    }
    Ok(())
}

fn become_version_4(conn: &Connection, version: i32) -> rusqlite::Result<()> {
    let summed_until = match version {
        // Every commit wrote the sums of its rows.
        1 => conn.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| row.get(0))?,
        _ => number(conn, "summed_until")?.unwrap_or(0),
    };
    pack_open_hours(conn, summed_until)?;
    set(conn, PACKED_UNTIL, summed_until)?;
    conn.execute_batch(
        "DROP TABLE sums;
         DELETE FROM meta WHERE name IN ('summed_until', 'rolled_until', 'packs_changed', 'rows_corrected',
            'rows_kept_from', 'content_kept_from', 'new_rows_kept_from', 'new_content_kept_from',
            'new_content_counted', 'new_content_bytes')",
    )
}

fn pack_open_hours(conn: &Connection, summed_until: i64) -> rusqlite::Result<()> {
    let rolled_until = number(conn, "rolled_until")?.unwrap_or(0);
    let mut hours = open_hours(conn, rolled_until)?;
    for (hour, measured) in &mut hours {
        add_latencies(conn, *hour, summed_until, measured)?;
    }
    let rows = hours.iter().flat_map(|(hour, by_series)| by_series.iter().map(|(series, of)| (*hour, *series, of)));
    add_to_packs(conn, rows, 1)
}

/// The sums of hours that are not packed, by series.
fn open_hours(conn: &Connection, rolled_until: i64) -> rusqlite::Result<BTreeMap<i64, BTreeMap<i64, Measured>>> {
    let mut statement = conn.prepare(
        "SELECT start, series, requests, duration_ms, input_tokens, input_known, output_tokens, output_known,
            total_tokens, total_known, cached_tokens, cached_known, reasoning_tokens, reasoning_known, first_token_ms,
            first_token_known, cache_write_tokens, cache_write_known, tokens_per_second, tokens_per_second_known,
            first_id, last_id
         FROM sums WHERE span = 2 AND start >= ?1",
    )?;
    let mut rows = statement.query([rolled_until])?;
    let mut hours: BTreeMap<i64, BTreeMap<i64, Measured>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let known =
            |column: usize| Ok::<_, rusqlite::Error>(KnownSum { sum: row.get(column)?, rows: row.get(column + 1)? });
        let sums = Sums {
            requests: row.get(2)?,
            duration_ms: row.get(3)?,
            known: [known(4)?, known(6)?, known(8)?, known(10)?, known(12)?, known(14)?, known(16)?],
            tokens_per_second: row.get(18)?,
            tokens_per_second_known: row.get(19)?,
            first_id: row.get(20)?,
            last_id: row.get(21)?,
        };
        hours.entry(row.get(0)?).or_default().insert(row.get(1)?, Measured { sums, latencies: Latencies::default() });
    }
    Ok(hours)
}

/// Adds the distributions of an hour's rows, as far as they are there and in its sums.
fn add_latencies(
    conn: &Connection,
    hour: i64,
    summed_until: i64,
    measured: &mut BTreeMap<i64, Measured>,
) -> rusqlite::Result<()> {
    let first = measured.values().map(|measured| measured.sums.first_id).min().unwrap_or(0);
    let last = measured.values().map(|measured| measured.sums.last_id).max().unwrap_or(-1).min(summed_until);
    let (from, to) = (text_of_ms(hour * HOUR_MS), text_of_ms((hour + 1) * HOUR_MS));
    let condition = "id BETWEEN ?1 AND ?2 AND start_time >= ?3 AND start_time < ?4";
    let folded = Folded::of_rows(conn, condition, params![first, last, from, to])?;
    for (_, series, of_rows) in folded.by_series(conn, &mut SeriesIds::default())? {
        if let Some(measured) = measured.get_mut(&series) {
            measured.latencies = of_rows.latencies.clone();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::packs::{in_former_form, packs_of_hour};
    use crate::record::packing::{State, read_pack};
    use crate::record::row::{Content, Row};
    use crate::record::schema::CAME_UNTIL;
    use crate::record::store::{DbSync, Store};
    use crate::stats::{Bucket, By, Filter, Reader, Zone};
    use crate::testing::{Folder, Random, random_row, row};

    /// The tables that version 3 had and this one has not.
    const SUMS: &str = "CREATE TABLE sums (
        span INTEGER NOT NULL, start INTEGER NOT NULL, series INTEGER NOT NULL, requests INTEGER NOT NULL,
        duration_ms INTEGER NOT NULL, input_tokens INTEGER NOT NULL, input_known INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL, output_known INTEGER NOT NULL, total_tokens INTEGER NOT NULL,
        total_known INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, cached_known INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL, reasoning_known INTEGER NOT NULL, first_token_ms INTEGER NOT NULL,
        first_token_known INTEGER NOT NULL, tokens_per_second REAL NOT NULL, tokens_per_second_known INTEGER NOT NULL,
        first_id INTEGER NOT NULL, last_id INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL DEFAULT 0,
        cache_write_known INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (span, start, series)) WITHOUT ROWID";

    /// Makes a database whose rows are all packed one as the former version would have left it, which had rolled up the
    /// hours before one and summed up all rows.
    fn become_former(path: &Path, version: i32, rolled_until: i64) {
        let conn = Connection::open(path).expect("opens");
        let drop_columns = |added: &[(&str, &str, &str)]| {
            for (table, column, _) in added {
                conn.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}")).expect("there was one");
            }
        };
        conn.execute_batch(
            "DROP TABLE packed_times; DROP TABLE packed_cuts; DROP TABLE open_hours; DROP TABLE reaching",
        )
        .expect("made");
        drop_columns(&ADDED_IN_6);
        if version == 5 {
            conn.pragma_update(None, "user_version", version).expect("marked");
            return;
        }
        conn.execute_batch(
            "UPDATE content SET prompt = (SELECT prompt FROM prompts WHERE prompts.id = content.id);
             DROP VIEW prompts; DROP TABLE pieces; DROP TABLE packed_prefixes; DROP TABLE conversations; DROP TABLE turns;
             DELETE FROM meta WHERE name = 'pieced_from'",
        )
        .expect("made");
        drop_columns(&ADDED_IN_5);
        if version == 4 {
            conn.pragma_update(None, "user_version", version).expect("marked");
            return;
        }
        conn.execute_batch(SUMS).expect("made");
        let count = |column: &str| format!("coalesce(sum({column}), 0), count({column})");
        let known: Vec<String> = [
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "cached_tokens",
            "reasoning_tokens",
            "time_to_first_token_ms",
        ]
        .map(count)
        .into();
        conn.execute_batch(&format!(
            "INSERT INTO sums SELECT 2, unixepoch(start_time) / 3600, series.id, count(*), sum(duration_ms), {}, {},
                min(requests.id), max(requests.id), {}
             FROM requests JOIN series ON series.endpoint = requests.endpoint AND series.model = requests.model
                AND series.client = coalesce(requests.client, '') AND series.key = coalesce(requests.key, '')
                AND series.outcome = requests.outcome GROUP BY 2, 3",
            known.join(", "),
            count("tokens_per_second").replace(", 0)", ", 0.0)"),
            count("cache_write_tokens"),
        ))
        .expect("summed");
        // Packs had rolled hours alone.
        let hours: Vec<i64> = conn
            .prepare("SELECT id & 0xFFFFFFFF FROM packed_sums WHERE id >> 32 = 2")
            .and_then(|mut hours| hours.query_map([], |row| row.get(0))?.collect())
            .expect("a query");
        for hour in hours.into_iter().filter(|hour| *hour >= rolled_until) {
            let pack = read_pack(&conn, packs_of_hour(hour)[0]).expect("a pack");
            let rows = pack.iter().map(|(series, measured)| (hour, *series, measured));
            add_to_packs(&conn, rows, -1).expect("taken away");
        }
        conn.execute_batch(&format!(
            "DELETE FROM packed_sums WHERE id >> 32 = 2 AND id & 0xFFFFFFFF >= {rolled_until};
             DELETE FROM packed_latencies WHERE id >> 32 = 2 AND id & 0xFFFFFFFF >= {rolled_until};
             INSERT INTO meta SELECT 'summed_until', max(id) FROM requests;
             INSERT INTO meta VALUES ('rolled_until', {rolled_until}), ('rows_kept_from', 7), ('packs_changed', 7);
             DELETE FROM meta WHERE name = 'packed_until'"
        ))
        .expect("written");
        if version < 3 {
            let packs: Vec<(i64, Vec<u8>)> = conn
                .prepare("SELECT id, pack FROM packed_sums")
                .and_then(|mut packs| packs.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
                .expect("a query");
            for (id, pack) in packs {
                let pack = in_former_form(&pack);
                conn.execute("UPDATE packed_sums SET pack = ?2 WHERE id = ?1", params![id, pack]).expect("written");
            }
            for (table, column, _) in ADDED_IN_3 {
                conn.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}")).expect("there was one");
            }
        }
        if version == 1 {
            conn.execute_batch("DELETE FROM meta WHERE name = 'summed_until'").expect("removed");
        }
        conn.pragma_update(None, "user_version", version).expect("marked");
    }

    /// Every answer that is told from packs, and from rows that are not packed.
    fn told(path: &Path) -> String {
        let reader = Reader::open(path).expect("opens");
        let hour = row().start_ms - row().start_ms % HOUR_MS;
        let within = |from: i64, to: i64| Filter {
            from_ms: Some(hour + from * HOUR_MS),
            to_ms: Some(hour + to * HOUR_MS),
            ..Filter::default()
        };
        let filters =
            [Filter::default(), within(3, 41), within(20, 100), Filter { to_ms: Some(hour), ..Filter::default() }];
        let answers = filters.iter().map(|filter| {
            let summary = reader.summary(filter).expect("answers");
            let models = reader.by(By::Model, filter).expect("answers");
            let days = reader.over_time(filter, Bucket::Day, &Zone::Fixed(120), None, false, hour).expect("answers");
            let latency = reader.latency(filter, By::Model).expect("answers");
            let times = reader.times(filter, hour + 80 * HOUR_MS).expect("answers");
            let (total, requests) = (&times.total, times.total.requests);
            // The last microsecond of a part is rounded by the order in which rows are met.
            let parts =
                [total.generating_ms, total.prompt_processing_ms, total.loading_ms].map(|part| (part.0 + 500) / 1000);
            let times = format!("{parts:?} {:?} {:?} {requests}", times.idle_ms, times.uncounted_ms);
            format!("{summary:?} {models:?} {days:?} {latency:?} {times}")
        });
        answers.collect::<Vec<_>>().join("\n")
    }

    /// All that is told of each request.
    fn in_full(path: &Path) -> String {
        let reader = Reader::open(path).expect("opens");
        let all = reader.recent(&Filter::default(), 1000).expect("answers");
        all.requests.iter().map(|row| format!("{:?}", reader.request(row.id).expect("answers"))).collect()
    }

    /// Rows of three days in any order, of which none knows what version 2 did not.
    fn rows(seed: u64) -> Vec<Row> {
        let mut random = Random::new(seed);
        let untold = |row| Row {
            cache_write_tokens: None,
            draft_tokens: None,
            accepted_draft_tokens: None,
            prompt_tokens_per_second: None,
            queue_ms: None,
            context_tokens: None,
            ..row
        };
        (0..500).map(|_| untold(random_row(&mut random))).collect()
    }

    #[test]
    fn every_former_version_comes_over_exactly_however_far_it_had_come() {
        let first = row().start_ms / HOUR_MS;
        for version in 1..=5 {
            // Nothing rolled up, half of it, all; rows of clocks that were wrong among them.
            for rolled_until in [0, first + 30, first + 1000] {
                let folder = Folder::new();
                let path = folder.join("metrics.db");
                let mut store = Store::open(&path, DbSync::Normal).expect("opens");
                store.write(&rows(7)).expect("writes");
                let wrong = [0, 4_070_908_800_000].map(|start_ms| Row { start_ms, cache_write_tokens: None, ..row() });
                store.write(&wrong).and_then(|_| store.pack_all()).expect("writes");
                store.close_hours((first + 90) * HOUR_MS).expect("closes");
                let before = (told(&path), in_full(&path));
                drop(store);
                become_former(&path, version, rolled_until);
                let mut store = Store::open(&path, DbSync::Normal).expect("upgrades");
                store.close_hours((first + 90) * HOUR_MS).expect("closes");
                assert!((told(&path), in_full(&path)) == before, "{version} {rolled_until}");
                let conn = Connection::open(&path).expect("opens");
                assert_eq!(State::of(&conn), Ok(State { until: 502, changes: 0 }));
                assert_eq!(number(&conn, CAME_UNTIL), Ok(Some(502)), "no default removes what came");
                assert_eq!(columns_of(&conn, "sums"), Ok(vec![]));
                // It goes on, also in packs of the former form.
                let late = Row { cache_write_tokens: Some(30), draft_tokens: Some(20), ..row() };
                store.write(&[late]).and_then(|_| store.pack_all()).expect("writes");
                let summary = Reader::open(&path).expect("opens").summary(&Filter::default()).expect("answers");
                assert_eq!((summary.total_requests, summary.total_cache_write_tokens), (503, 30));
                drop(store);
                assert_eq!(Store::open(&path, DbSync::Normal).expect("opens").row_count(), Ok(503));
            }
        }
    }

    /// What version 4 made a database of.
    const VERSION_4: &str = "
        CREATE TABLE requests (id INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL,
            start_time TEXT NOT NULL, end_time TEXT NOT NULL, duration_ms INTEGER NOT NULL, input_tokens INTEGER,
            output_tokens INTEGER, total_tokens INTEGER, request_id TEXT, is_error INTEGER NOT NULL, error_message TEXT,
            http_status INTEGER, was_streamed INTEGER NOT NULL, created_at TEXT NOT NULL, outcome TEXT NOT NULL,
            requested_model TEXT, cached_tokens INTEGER, reasoning_tokens INTEGER, time_to_first_token_ms INTEGER,
            tokens_per_second REAL, finish_reason TEXT, usage_source TEXT, model_load_ms INTEGER, client TEXT, key TEXT,
            attempt INTEGER, cache_write_tokens INTEGER, draft_tokens INTEGER, accepted_draft_tokens INTEGER,
            prompt_tokens_per_second REAL);
        CREATE TABLE content (id INTEGER PRIMARY KEY, prompt TEXT, output TEXT, reasoning TEXT, tool_calls TEXT);
        CREATE TABLE series (id INTEGER PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, client TEXT NOT NULL,
            key TEXT NOT NULL, outcome TEXT NOT NULL, UNIQUE (endpoint, model, client, key, outcome));
        CREATE TABLE packed_sums (id INTEGER PRIMARY KEY, pack BLOB NOT NULL);
        CREATE TABLE packed_latencies (id INTEGER PRIMARY KEY, pack BLOB NOT NULL);
        CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
        INSERT INTO meta VALUES ('fingerprint_key', randomblob(32)), ('packed_until', 0);
        INSERT INTO requests (id, endpoint, model, start_time, end_time, duration_ms, is_error, was_streamed, created_at,
            outcome) VALUES (1, '/v1/chat/completions', 'm', '2026-01-19T10:30:45.678Z', '2026-01-19T10:30:46.528Z', 850,
            0, 0, '2026-01-19T10:30:46.528Z', 'completed');
        INSERT INTO content VALUES (1, '{\"messages\":[\"' || printf('%.20000c', 'x') || '\"]}', 'answer', NULL, NULL);
        CREATE VIEW prompts AS SELECT 'mine';
        PRAGMA application_id = 0x4C4D534D; PRAGMA user_version = 4";

    #[test]
    fn a_database_of_version_4_is_read_on_as_it_is_and_goes_on_in_pieces() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        Connection::open(&path).and_then(|conn| conn.execute_batch(VERSION_4)).expect("made");
        let prompt = format!("{{\"messages\":[\"{}\"]}}", "x".repeat(20_000));
        let said =
            || Content { prompt: Some(prompt.clone().into()), output: Some("answer".to_owned()), ..Content::default() };
        let mut store = Store::open(&path, DbSync::Normal).expect("upgrades");
        assert_eq!(store.write(&[Row { content: said(), ..row() }]), Ok(vec![2]));
        drop(store);
        // Twice, as over a restart.
        for _ in 0..2 {
            Store::open(&path, DbSync::Normal).expect("opens");
            let reader = Reader::open(&path).expect("opens");
            for id in [1, 2] {
                assert_eq!(reader.request(id).expect("answers").expect("is there").content, said(), "{id}");
            }
        }
        let conn = Connection::open(&path).expect("opens");
        let text = |query: &str| conn.query_row(query, [], |row| row.get::<_, String>(0)).expect(query);
        assert_eq!(
            text("SELECT group_concat(id || iif(pieces IS NULL, ' whole', ' pieces')) FROM content"),
            "1 whole,2 pieces"
        );
        assert_eq!(text("SELECT * FROM prompts"), "mine", "what others made stays");
        assert_eq!(number(&conn, schema::PIECED_FROM), Ok(Some(2)));
        // But for that, it is as if it were new.
        let fresh = folder.join("fresh.db");
        Store::open(&fresh, DbSync::Normal).expect("opens");
        let fresh = Connection::open(&fresh).expect("opens");
        for table in ["content", "pieces", "requests"] {
            assert_eq!(columns_of(&conn, table), columns_of(&fresh, table), "{table}");
        }
    }

    #[test]
    fn rows_behind_the_mark_of_a_kill_count_and_so_do_rows_that_were_removed() {
        let first = row().start_ms / HOUR_MS;
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store.write(&rows(7)).and_then(|_| store.pack_all()).expect("writes");
        drop(store);
        become_former(&path, 3, first + 30);
        // Written, and not summed up; some of them late. And clean-up had removed rows of hours that were rolled up.
        let remove =
            format!("DELETE FROM requests WHERE id < 100 AND start_time < '{}'", text_of_ms((first + 30) * HOUR_MS));
        let expected = {
            let copy = folder.join("copy.db");
            Connection::open(&path).and_then(|conn| conn.execute("VACUUM INTO ?1", [copy.to_str()])).expect("copies");
            let mut store = Store::open(&copy, DbSync::Normal).expect("upgrades");
            store.write(&rows(8)).and_then(|_| store.pack_all()).expect("writes");
            Connection::open(&copy).and_then(|conn| conn.execute(&remove, [])).expect("removes");
            told(&copy)
        };
        {
            let other = folder.join("other.db");
            Store::open(&other, DbSync::Normal).map(|mut store| store.write(&rows(8))).expect("opens").expect("writes");
            let conn = Connection::open(&path).expect("opens");
            conn.execute("ATTACH ?1 AS other", [other.to_str()]).expect("attaches");
            let added = ADDED_IN_5.iter().chain(&ADDED_IN_6).filter(|(table, ..)| *table == "requests");
            let without: String =
                added.map(|(_, column, _)| format!("ALTER TABLE more DROP COLUMN {column};")).collect();
            conn.execute_batch(&format!(
                "CREATE TEMP TABLE more AS SELECT * FROM other.requests; UPDATE more SET id = id + 500; {without}
                 INSERT INTO requests SELECT * FROM more; {remove}"
            ))
            .expect("written");
        }
        let mut store = Store::open(&path, DbSync::Normal).expect("upgrades");
        assert_eq!(store.row_count(), Ok(1000));
        assert!(told(&path) == expected);
        store.pack_all().expect("packs");
        assert!(told(&path) == expected);
    }
}
