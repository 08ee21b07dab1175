//! The tables of conversations: which requests belong together, and what they come to. Made of rows when these are
//! packed; whoever asks adds the rows behind.
//!
//! A conversation is a row of `conversations`, with a pack of sums by series; each of its requests one of `turns`, from
//! which a thread is read without a walk through all requests. A conversation goes when clean-up has removed the last of
//! its rows; until then its sums tell of those that were removed, too.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::packs::{Measured, encode_sums, read_sums};

/// What some rows of one conversation come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoldedConversation {
    /// Where its name comes from.
    pub source: String,
    /// Its rows, the lowest id first.
    pub ids: Vec<i64>,
    /// Sums by the place of the series among those that were folded.
    pub measured: BTreeMap<usize, Measured>,
}

/// Adds what some rows come to, inside the caller's transaction, or takes it away with a sign of -1: then the rows go on
/// to be turns of it. `series`: ids of the series by their places.
pub(super) fn add(
    conn: &Connection,
    conversations: &BTreeMap<String, FoldedConversation>,
    series: &[i64],
    sign: i64,
) -> rusqlite::Result<()> {
    let mut find = conn.prepare_cached("SELECT id, pack FROM conversations WHERE name = ?1")?;
    let mut insert = conn.prepare_cached(
        "INSERT INTO conversations (name, source, first_id, last_id, pack) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut update = conn.prepare_cached(
        "UPDATE conversations SET first_id = min(first_id, ?2), last_id = max(last_id, ?3), pack = ?4 WHERE id = ?1",
    )?;
    let mut turn = conn.prepare_cached("INSERT OR IGNORE INTO turns VALUES (?1, ?2)")?;
    for (name, folded) in conversations {
        let (first, last) = (folded.ids.first(), folded.ids.last());
        let found: Option<(i64, Vec<u8>)> = find.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let mut pack = found.as_ref().map_or_else(|| Ok(BTreeMap::new()), |(_, pack)| read_sums(pack))?;
        for (place, measured) in &folded.measured {
            Measured::entry(&mut pack, series[*place], &measured.sums).sums.add(&measured.sums, sign);
        }
        let pack = encode_sums(&pack);
        let id = match found {
            Some((id, _)) => {
                update.execute(params![id, first, last, pack])?;
                id
            }
            None => insert.insert(params![name, folded.source, first, last, pack])?,
        };
        for row in &folded.ids {
            turn.execute([id, *row])?;
        }
    }
    Ok(())
}

/// A row of this conversation was removed, inside the caller's transaction: the conversation goes with its last turn.
pub(super) fn forget_turn(conn: &Connection, name: &str, row: i64) -> rusqlite::Result<()> {
    let find = "SELECT id FROM conversations WHERE name = ?1";
    let found: Option<i64> = conn.prepare_cached(find)?.query_row([name], |row| row.get(0)).optional()?;
    let Some(id) = found else { return Ok(()) };
    conn.prepare_cached("DELETE FROM turns WHERE conversation = ?1 AND id = ?2")?.execute([id, row])?;
    conn.prepare_cached(
        "DELETE FROM conversations WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM turns WHERE conversation = ?1)",
    )?
    .execute([id])?;
    Ok(())
}

/// Ids from this one on are given anew, inside the caller's transaction: no turn has any of them.
pub(super) fn forget_rows_from(conn: &Connection, first: i64) -> rusqlite::Result<()> {
    conn.execute("DELETE FROM turns WHERE id >= ?1", [first])?;
    conn.execute(
        "DELETE FROM conversations WHERE NOT EXISTS (SELECT 1 FROM turns WHERE conversation = conversations.id)",
        [],
    )?;
    conn.execute("UPDATE conversations SET last_id = ?1 - 1 WHERE last_id >= ?1", [first])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::reason::PrefixBreak;
    use crate::prompts::session::ConversationSource;
    use crate::record::packing::{fold, pack, pack_all, reused};
    use crate::record::row::Lineage;
    use crate::record::schema;
    use crate::record::series::SeriesIds;
    use crate::record::table::{Entry, Inserts};
    use crate::testing::{Random, random_row};

    fn database() -> Connection {
        let conn = Connection::open_in_memory().expect("opens");
        schema::create(&conn).expect("creates");
        conn
    }

    fn insert(conn: &Connection, random: &mut Random, rows: usize) {
        let mut inserts = Inserts::prepare(conn).expect("prepares");
        for _ in 0..rows {
            let number = random.below(9);
            let lineage = Lineage {
                conversation: (number > 0).then(|| format!("c{number}").into()),
                source: (number > 0).then_some(ConversationSource::Header),
                prompt_bytes: Some(random.below(1000)),
                prefix_bytes: Some(random.below(500)),
                prefix_lost_ms: (number > 5).then_some(number),
                prefix_break: (number > 1).then(|| PrefixBreak::all()[number as usize]),
                ..Lineage::default()
            };
            let row = random_row(random);
            inserts.insert(&Entry { lineage, ..Entry::new(&row, "") }, None).expect("inserts");
        }
    }

    fn text(conn: &Connection, query: &str) -> String {
        conn.query_row(query, [], |row| row.get::<_, Option<String>>(0)).expect("a query").unwrap_or_default()
    }

    /// Names, ends and turns, as the tables have them and as the rows do.
    #[track_caller]
    fn check_turns(conn: &Connection) {
        let told = "SELECT group_concat(format('%s %s %d %d %s', name, source, first_id, last_id,
                (SELECT group_concat(id) FROM turns WHERE conversation = conversations.id)), ';' ORDER BY name)
             FROM conversations";
        let rows = "SELECT group_concat(format('%s header %d %d %s', name, first, last, ids), ';' ORDER BY name)
             FROM (SELECT conversation AS name, min(id) AS first, max(id) AS last, group_concat(id) AS ids
                   FROM (SELECT * FROM requests ORDER BY id) WHERE conversation IS NOT NULL GROUP BY conversation)";
        assert_eq!(text(conn, told), text(conn, rows));
    }

    fn requests(conn: &Connection, name: &str) -> i64 {
        let pack: Vec<u8> = conn
            .query_row("SELECT pack FROM conversations WHERE name = ?1", [name], |row| row.get(0))
            .expect("a conversation");
        read_sums(&pack).expect("a pack").values().map(|measured| measured.sums.requests).sum()
    }

    #[test]
    fn a_conversation_has_its_rows_however_they_were_packed_and_goes_with_the_last() {
        let (conn, mut random, mut ids) = (database(), Random::new(16), SeriesIds::default());
        for rows in [1, 40, 7] {
            insert(&conn, &mut random, rows);
            let folded = fold(&conn).expect("reads").expect("there are rows");
            assert_eq!(pack(&conn, &mut ids, &folded), Ok(true));
            check_turns(&conn);
        }
        let packed = requests(&conn, "c3");
        let rows: Vec<(i64, String)> = conn
            .prepare("SELECT id, conversation FROM requests WHERE conversation IN ('c1', 'c2')")
            .and_then(|mut rows| rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .expect("a query");
        let remove = |condition: &str, id: i64| {
            for table in ["requests", "content"] {
                conn.execute(&format!("DELETE FROM {table} WHERE id {condition} ?1"), [id]).expect("removed");
            }
        };
        for (id, name) in rows {
            remove("=", id);
            forget_turn(&conn, &name, id).expect("forgets");
        }
        check_turns(&conn);
        assert_eq!(requests(&conn, "c3"), packed);
        // Its ids are given to other rows.
        remove(">=", 40);
        let first: i64 = conn.query_row("SELECT max(id) + 1 FROM requests", [], |row| row.get(0)).expect("a query");
        reused(&conn, first).expect("forgets");
        insert(&conn, &mut random, 20);
        pack_all(&conn, &mut ids).expect("packs");
        check_turns(&conn);
    }

    #[test]
    fn packs_of_prefixes_tell_what_rows_do() {
        let (conn, mut random, mut ids) = (database(), Random::new(17), SeriesIds::default());
        for _ in 0..3 {
            insert(&conn, &mut random, 50);
            pack_all(&conn, &mut ids).expect("packs");
        }
        let pack: Vec<u8> =
            conn.query_row("SELECT pack FROM packed_prefixes WHERE id = 0", [], |row| row.get(0)).expect("a pack");
        let mut told: BTreeMap<&str, [i64; 4]> = BTreeMap::new();
        crate::packs::prefixes::visit_prefixes(&pack, |_, reason, sums| {
            let told = told.entry(PrefixBreak::all()[usize::from(reason)].as_str()).or_default();
            let figures = [sums.requests, sums.prompt_bytes, sums.shared_bytes, sums.lost_ms];
            told.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
        })
        .expect("a pack");
        let shown: Vec<String> = told
            .iter()
            .map(|(reason, sums)| format!("{reason} {}", sums.map(|sum| sum.to_string()).join(" ")))
            .collect();
        let rows = "SELECT group_concat(format('%s %d %d %d %d', prefix_break, requests, bytes, shared, lost), ';'
                ORDER BY prefix_break)
             FROM (SELECT prefix_break, count(*) AS requests, sum(prompt_bytes) AS bytes, sum(prefix_bytes) AS shared,
                      coalesce(sum(prefix_lost_ms), 0) AS lost
                   FROM requests WHERE prefix_break IS NOT NULL GROUP BY prefix_break)";
        assert_eq!(shown.join(";"), text(&conn, rows));
    }
}
