//! Clean-up: removes what is older, or more, than the settings keep, and gives the freed space back.
//!
//! ```text
//!  resting ──begin──▶ rows by age ──▶ content by age ──▶ pieces ──▶ counting ──▶ content by size ──▶ space ──▶ resting
//!                                                          ▲                         │
//!                                                          └─────────────────────────┘
//! ```
//!
//! Works in steps. A step first looks, on a connection of its own, so that no commit waits; what it found goes in one
//! short transaction through the recorder's writer. Killed between two steps, the next start goes on: what is still to
//! be done is read from the database alone. Packs are never touched; times are arguments; the keeper decides when.
//!
//! - By age: the lowest ids are the oldest rows, nearly. Those of the first [`LOOK_ROWS`] that are too old go, until none
//!   of them is ([`walk`]). A row leaves when the whole hour it began in is too old, and once it is packed.
//! - By size: `content_bytes` is what the content up to the id `content_counted` holds. New content is added to it
//!   here, not by the commit that writes it, which stays as fast as it was; its size is told without reading it. Who
//!   removes content by other means deletes these names from `meta`, and it is counted anew.
//! - Pieces of prompts ([`pieces`]) go as soon as no content needs them, before more content does; `pieces_bytes` is what
//!   those up to the id `pieces_counted` hold, and counts towards the size.
//! - What came with an upgrade (`came_until`, see [`schema`](super::schema)) is out of reach of a limit that is only
//!   this version's default.
//! - The newest row stays, whatever its age: otherwise its id would be used again.
//! - A clock that leaps removes nothing until it is believed ([`crate::clock`]); what was seen of it is in `meta`, too. A
//!   row whose date cannot be true goes as soon as one that was recorded after it is too old.
//!
//! How long a step holds the writer, and so a commit, is in `limits.rs` beside the sizes of a step.

mod notice;
mod pieces;
mod walk;

use std::mem;

use rusqlite::{Connection, OptionalExtension};

use self::pieces::CountedPieces;
use self::walk::Walk;

use super::conversations;
use super::meta::{number, set};
use super::packing::note_rows_changed;
use super::prompts::block_of;
use super::recorder::Recorder;
use super::schema::CAME_UNTIL;
use crate::calendar::{DAY_MS, HOUR_MS, hour_of_ms, text_of_ms};
use crate::clock::{Doubt, Seen};
use crate::limits::{CLEAN_BYTES_MAX, CLEAN_PAGES_MAX, CLEAN_ROWS_MAX, CLOCK_AGREES_MS};
use crate::settings::Limit;

/// Behind this id content is counted, which is all that the limit reaches.
const COUNTED_BEHIND: &str = "content_counted_behind";
/// Last id whose content is in `content_bytes`.
const COUNTED: &str = "content_counted";
/// What the counted content holds.
const BYTES: &str = "content_bytes";

/// The last time that was believed, and of one that is doubted what was seen of it: see [`Seen`].
const BELIEVED: &str = "clock_believed_ms";
const DOUBTED: &str = "clock_doubted_ms";
const AGREED: &str = "clock_agreed_ms";
/// A believed time is written down again when it is so much later: an idle proxy hardly writes.
const BELIEVED_GAP_MS: i64 = DAY_MS;

/// Size of the content in the row at hand; told from its header, without reading the text.
const OCTETS: &str = "coalesce(octet_length(prompt), 0) + coalesce(octet_length(output), 0)
    + coalesce(octet_length(reasoning), 0) + coalesce(octet_length(tool_calls), 0) + coalesce(octet_length(pieces), 0)";
/// Rows and content looked at in one step. Such a limit stands in the text of a query: SQLite prepares a statement anew
/// for each value that is bound to one.
const LOOK_ROWS: i64 = 512;

/// What the settings keep.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// `RETENTION_DAYS`: rows.
    pub days: Limit,
    /// `CONTENT_DAYS`: what was said.
    pub content_days: Limit,
    /// `CONTENT_MB_MAX`, in bytes.
    pub content_bytes_max: Limit,
}

/// Up to which id a limit reaches nothing: a default spares what came with an upgrade.
fn spared(limit: Limit, conn: &Connection) -> rusqlite::Result<i64> {
    if limit.is_set { Ok(0) } else { Ok(number(conn, CAME_UNTIL)?.unwrap_or(0)) }
}

/// Content that was counted.
#[derive(Clone, Copy, PartialEq, Eq)]
struct CountedContent {
    /// Ids behind this one,
    behind: i64,
    /// up to this one,
    until: i64,
    /// and what they hold.
    bytes: i64,
}

impl CountedContent {
    fn of(conn: &Connection) -> rusqlite::Result<CountedContent> {
        let behind = number(conn, COUNTED_BEHIND)?.unwrap_or(0);
        let until = number(conn, COUNTED)?.unwrap_or(0).max(behind);
        Ok(CountedContent { behind, until, bytes: number(conn, BYTES)?.unwrap_or(0) })
    }

    /// Of the ids that a limit reaches: where it reaches others than the last time, none is counted yet.
    fn within(limit: Limit, conn: &Connection) -> rusqlite::Result<CountedContent> {
        let (behind, counted) = (spared(limit, conn)?, CountedContent::of(conn)?);
        let none = CountedContent { behind, until: behind, bytes: 0 };
        Ok(if counted.behind == behind { counted } else { none })
    }

    fn set(self, conn: &Connection) -> rusqlite::Result<()> {
        set(conn, COUNTED_BEHIND, self.behind)?;
        set(conn, COUNTED, self.until)?;
        set(conn, BYTES, self.bytes)
    }
}

/// Where the clean-up stands.
#[derive(Debug)]
pub struct Cleaner {
    retention: Retention,
    phase: Phase,
    spare_bytes: u64,
    /// Asked to begin while it was at work.
    again: bool,
    /// Content has outgrown its bound by far.
    hurried: bool,
    /// The last hours that rows and content were looked through for: until the next one hardly any becomes too old.
    looked_until: [Option<i64>; 2],
}

#[derive(Debug)]
enum Phase {
    Resting,
    /// About to look for what is too old.
    Start(Aged),
    Walk(Walk),
    Pieces,
    Count,
    Size,
    Space,
}

/// What grows old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aged {
    Rows,
    Content,
}

impl Aged {
    fn next(self) -> Phase {
        match self {
            Aged::Rows => Phase::Start(Aged::Content),
            Aged::Content => Phase::Pieces,
        }
    }
}

impl Cleaner {
    /// Rests until it is told to begin.
    pub fn new(retention: Retention) -> Cleaner {
        let looked_until = [None; 2];
        Cleaner { retention, phase: Phase::Resting, spare_bytes: 0, again: false, hurried: false, looked_until }
    }

    /// Begins, now or when what it is at is done. `spare_bytes`: free space that stays in the file, for rows to come
    /// are about to fill it.
    pub fn begin(&mut self, spare_bytes: u64) {
        if self.is_at_work() {
            self.again = true;
        } else {
            self.spare_bytes = spare_bytes;
            self.phase = Phase::Start(Aged::Rows);
        }
    }

    /// Gives up until it is told to begin.
    pub fn rest(&mut self) {
        self.phase = Phase::Resting;
        (self.again, self.hurried, self.looked_until) = (false, false, [None; 2]);
    }

    /// Whether [`Cleaner::step`] has something to do.
    pub fn is_at_work(&self) -> bool {
        !matches!(self.phase, Phase::Resting)
    }

    /// How many times as long as a step took it shall rest then. Clean-up takes about a thousandth of a processor,
    /// which removes some 0.6 GB of content an hour, of 300,000 requests: nobody waits for it. (A twentieth cost 100 paced
    /// streams as much as relaying them, a two-hundredth a tenth of that.) When content comes faster and is twice what it
    /// may be, clean-up takes half of one.
    pub fn rest_factor(&self) -> u32 {
        if self.hurried { 1 } else { 1000 }
    }

    /// One step: looks on `own`, removes through the recorder. After an error it rests.
    pub fn step(&mut self, own: &Connection, recorder: &Recorder, now_ms: i64) -> rusqlite::Result<()> {
        self.phase = match mem::replace(&mut self.phase, Phase::Resting) {
            Phase::Resting => Phase::Resting,
            Phase::Start(what) => self.start(own, recorder, what, now_ms)?,
            Phase::Walk(walk) => walk.step(own, recorder)?,
            Phase::Pieces => pieces::step(own, recorder)?,
            Phase::Count => self.count(own, recorder)?,
            Phase::Size => self.fit(own, recorder)?,
            Phase::Space => self.give_back(own, recorder)?,
        };
        if !self.is_at_work() && mem::take(&mut self.again) {
            self.begin(self.spare_bytes);
        }
        Ok(())
    }

    fn start(&mut self, own: &Connection, recorder: &Recorder, what: Aged, now_ms: i64) -> rusqlite::Result<Phase> {
        let limit = match what {
            Aged::Rows => self.retention.days,
            Aged::Content => self.retention.content_days,
        };
        if limit.max == 0 {
            return Ok(what.next());
        }
        let days = i64::try_from(limit.max).unwrap_or(i64::MAX);
        let now_ms = age_from_ms(own, recorder, now_ms)?;
        let until = hour_of_ms(now_ms).saturating_sub(days.saturating_mul(24));
        // A pass that fails looks again.
        let looked_until = self.looked_until[what as usize].replace(until);
        if looked_until == Some(until) {
            return Ok(what.next());
        }
        let spared = spared(limit, own)?;
        if (what, looked_until) == (Aged::Content, None)
            && let Some(line) = notice::of_content(own, spared, until * HOUR_MS, limit.max)?
        {
            log::warn!("{line}");
        }
        Ok(Phase::Walk(Walk::new(what, spared, until * HOUR_MS, now_ms)))
    }

    /// Adds content that came since to the counter.
    fn count(&self, own: &Connection, recorder: &Recorder) -> rusqlite::Result<Phase> {
        let limit = self.retention.content_bytes_max;
        if limit.max == 0 {
            return Ok(Phase::Space);
        }
        let counted = CountedContent::within(limit, own)?;
        // Reads the pages that the transaction is about to need.
        let found: Option<i64> = own
            .prepare_cached(&format!(
                "SELECT max(id), sum(octets)
                 FROM (SELECT id, {OCTETS} AS octets FROM content WHERE id > ?1 ORDER BY id LIMIT {LOOK_ROWS})"
            ))?
            .query_row([counted.until], |row| row.get(0))?;
        let Some(until) = found else {
            let all_counted = CountedPieces::count(own, recorder)?;
            return Ok(if all_counted { Phase::Size } else { Phase::Count });
        };
        recorder.clean(|conn| {
            if CountedContent::within(limit, conn)? != counted {
                return Ok(());
            }
            // All that was counted may have been removed by hand.
            let (octets, any): (i64, bool) = conn
                .prepare_cached(&format!(
                    "SELECT coalesce(sum({OCTETS}), 0), EXISTS (SELECT 1 FROM content WHERE id > ?3 AND id <= ?1)
                     FROM content WHERE id > ?1 AND id <= ?2"
                ))?
                .query_row([counted.until, until, counted.behind], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let before = if any { counted.bytes } else { 0 };
            CountedContent { until, bytes: before + octets, ..counted }.set(conn)
        })?;
        Ok(Phase::Count)
    }

    /// Removes the oldest content while there is too much.
    fn fit(&mut self, own: &Connection, recorder: &Recorder) -> rusqlite::Result<Phase> {
        let limit = self.retention.content_bytes_max;
        let max = i64::try_from(limit.max).unwrap_or(i64::MAX);
        let counted = CountedContent::within(limit, own)?;
        let of_pieces = CountedPieces::of(own)?.bytes;
        let excess = counted.bytes + of_pieces - max;
        self.hurried = excess > max;
        if excess <= 0 {
            return Ok(Phase::Space);
        }
        let mut batch = CleanBatch::default();
        let mut oldest = own.prepare_cached(&format!(
            "SELECT id, {OCTETS} FROM content WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT {CLEAN_ROWS_MAX}"
        ))?;
        let mut found = oldest.query([counted.behind, counted.until])?;
        while batch.bytes < excess
            && let Some(row) = found.next()?
            // How much goes with the pieces of a block shows when they have gone.
            && let id = row.get(0)?
            && (of_pieces == 0 || batch.ids.first().is_none_or(|first| block_of(*first) == block_of(id)))
            && batch.take(id, row.get(1)?)
        {}
        drop(found);
        if batch.ids.is_empty() {
            return Ok(Phase::Space);
        }
        batch.remove(Aged::Content, own, recorder)?;
        Ok(if of_pieces == 0 { Phase::Size } else { Phase::Pieces })
    }

    /// Moves pages from the end of the file to free places, so that the file can be cut. Does nothing in a database
    /// that could not be readied for it when it was upgraded.
    fn give_back(&self, own: &Connection, recorder: &Recorder) -> rusqlite::Result<Phase> {
        let page_bytes = pragma(own, "page_size")?;
        let spare = i64::try_from(self.spare_bytes).unwrap_or(i64::MAX) / page_bytes;
        let pages = pragma(own, "freelist_count")? - spare;
        if pages <= 0 {
            return Ok(Phase::Resting);
        }
        let freed = recorder.clean(|conn| {
            let before = pragma(conn, "freelist_count")?;
            let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({})", pages.min(CLEAN_PAGES_MAX)))?;
            let mut moved = vacuum.query([])?;
            while moved.next()?.is_some() {}
            Ok(before - pragma(conn, "freelist_count")?)
        })?;
        if freed <= 0 {
            return Ok(Phase::Resting);
        }
        if freed >= pages {
            // The file itself is cut by a checkpoint.
            recorder.signals.keeper.ring(|work| work.log_grew = true);
            return Ok(Phase::Resting);
        }
        Ok(Phase::Space)
    }
}

/// What ages are told from at `now_ms`, by what the database knows of the clock.
fn age_from_ms(own: &Connection, recorder: &Recorder, now_ms: i64) -> rusqlite::Result<i64> {
    let doubt = number(own, DOUBTED)?.zip(number(own, AGREED)?);
    let doubt = doubt.map(|(last_ms, agreed_ms)| Doubt { last_ms, agreed_ms });
    let before = number(own, BELIEVED)?.map(|believed_ms| Seen { believed_ms, doubt });
    let seen = before.map_or_else(|| Seen::first(now_ms), |before| before.look(now_ms));
    let is_known = before.is_some_and(|before| {
        let moved_ms = seen.believed_ms.saturating_sub(before.believed_ms);
        before.doubt == seen.doubt && (0..BELIEVED_GAP_MS).contains(&moved_ms)
    });
    if !is_known {
        recorder.clean(|conn| {
            set(conn, BELIEVED, seen.believed_ms)?;
            conn.execute("DELETE FROM meta WHERE name IN (?1, ?2)", [DOUBTED, AGREED])?;
            if let Some(Doubt { last_ms, agreed_ms }) = seen.doubt {
                set(conn, DOUBTED, last_ms)?;
                set(conn, AGREED, agreed_ms)?;
            }
            Ok(())
        })?;
    }
    let (was, now) = (before.map_or(seen.believed_ms, |before| before.believed_ms), text_of_ms(now_ms));
    match (before.and_then(|before| before.doubt), seen.doubt) {
        (None, Some(_)) => {
            let hours = CLOCK_AGREES_MS / HOUR_MS;
            log::warn!(
                "the clock says {now}, far from {} where it was last: nothing is removed for its age by that until it has \
                 gone on for {hours} hours",
                text_of_ms(was)
            );
        }
        (Some(_), None) => log::info!("the clock is believed again: {now}"),
        (None, None) | (Some(_), Some(_)) => {}
    }
    Ok(seen.age_from_ms(now_ms))
}

/// What one step removes.
#[derive(Debug, Default)]
struct CleanBatch {
    ids: Vec<i64>,
    bytes: i64,
}

impl CleanBatch {
    /// Whether it fits; one always does.
    fn take(&mut self, id: i64, bytes: i64) -> bool {
        let full = self.ids.len() >= CLEAN_ROWS_MAX || self.bytes + bytes > CLEAN_BYTES_MAX;
        if full && !self.ids.is_empty() {
            return false;
        }
        self.ids.push(id);
        self.bytes += bytes;
        true
    }

    fn remove(&self, what: Aged, own: &Connection, recorder: &Recorder) -> rusqlite::Result<()> {
        if self.ids.is_empty() {
            return Ok(());
        }
        let texts = ["prompt", "output", "reasoning", "tool_calls"].map(|text| format!("length(CAST({text} AS BLOB))"));
        read_ahead(own, &format!("SELECT {} FROM content WHERE id = ?1", texts.join(", ")), &self.ids)?;
        // Freed pages are not written, only the lists that name them.
        recorder.clean(|conn| remove(conn, what, &self.ids))
    }
}

/// Reads what is about to be freed: to free a text reads it page by page, and what was read here comes from memory while
/// commits wait. The query reads it as bytes, for characters would be counted one by one.
fn read_ahead(own: &Connection, query: &str, ids: &[i64]) -> rusqlite::Result<()> {
    let at_once = own.unchecked_transaction()?;
    let mut read = own.prepare_cached(query)?;
    for id in ids {
        read.query_row([id], |_| Ok(())).optional()?;
    }
    at_once.finish()
}

/// Removes content, and its rows where they are too old, inside the caller's transaction.
fn remove(conn: &Connection, what: Aged, ids: &[i64]) -> rusqlite::Result<()> {
    let (counted, mut removed) = (CountedContent::of(conn)?, 0);
    let mut size = conn.prepare_cached(&format!("SELECT {OCTETS} FROM content WHERE id = ?1"))?;
    let mut remove_content = conn.prepare_cached("DELETE FROM content WHERE id = ?1")?;
    let mut remove_row = conn.prepare_cached(
        "DELETE FROM requests WHERE id = ?1 AND id < (SELECT max(id) FROM requests) RETURNING conversation",
    )?;
    for id in ids {
        if let Some(octets) = size.query_row([id], |row| row.get::<_, i64>(0)).optional()? {
            remove_content.execute([id])?;
            if (counted.behind + 1..=counted.until).contains(id) {
                removed += octets;
            }
        }
        if what == Aged::Rows {
            let removed = remove_row.query_row([id], |row| row.get::<_, Option<String>>(0)).optional()?;
            if let Some(conversation) = removed.flatten() {
                conversations::forget_turn(conn, &conversation, *id)?;
            }
        }
    }
    if what == Aged::Rows {
        note_rows_changed(conn)?;
    }
    if removed > 0 {
        CountedContent { bytes: (counted.bytes - removed).max(0), ..counted }.set(conn)?;
    }
    Ok(())
}

fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PIECED_BYTES_MIN;
    use crate::record::row::{Content, Row};
    use crate::record::schema::came;
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, Random, random_row, row};

    /// The begin of an hour, five days after [`row`] and two after the last of [`random_row`].
    const NOW_MS: i64 = 1_768_816_800_000 + 5 * DAY_MS;
    const NO: Limit = Limit { max: 0, is_set: false };
    const NONE: Retention = Retention { days: NO, content_days: NO, content_bytes_max: NO };

    /// A limit that the user has set.
    const fn set_to(max: u64) -> Limit {
        Limit { max, is_set: true }
    }

    struct CleanBench {
        recorder: Recorder,
        own: Connection,
        folder: Folder,
    }

    impl CleanBench {
        fn new(rows: &[Row]) -> CleanBench {
            let folder = Folder::new();
            let mut store = Store::open(&folder.join("metrics.db"), DbSync::Normal).expect("opens");
            for batch in rows.chunks(100) {
                store.write(batch).expect("writes");
            }
            store.pack_all().expect("packs");
            let own = Connection::open(folder.join("metrics.db")).expect("opens");
            CleanBench { recorder: Recorder::new(store), own, folder }
        }

        fn write(&self, row: Row) -> i64 {
            self.recorder.commit(row, |_| ()).expect("is written")
        }

        /// Cleans until nothing is left to do; how many steps it took.
        fn clean(&self, retention: Retention, now_ms: i64) -> usize {
            // As the keeper does, before it begins.
            self.recorder.pack(&self.own).expect("packs");
            let mut cleaner = Cleaner::new(retention);
            cleaner.begin(0);
            let mut steps = 0;
            while cleaner.is_at_work() {
                cleaner.step(&self.own, &self.recorder, now_ms).expect("a step");
                steps += 1;
            }
            steps
        }

        fn number(&self, query: &str) -> i64 {
            self.own.query_row(query, [], |row| row.get(0)).expect(query)
        }

        fn text(&self, query: &str) -> String {
            let query = format!("SELECT coalesce(group_concat(line, '; '), '') FROM ({query})");
            self.own.query_row(&query, [], |row| row.get(0)).expect("a query")
        }

        fn ids(&self, table: &str) -> String {
            self.text(&format!("SELECT id AS line FROM {table} ORDER BY id"))
        }

        fn packs(&self) -> String {
            self.text("SELECT format('%d %s', id, hex(pack)) AS line FROM packed_sums")
        }

        fn content_bytes(&self) -> i64 {
            let pieces = "SELECT coalesce(sum(octet_length(text)), 0) FROM pieces";
            self.number(&format!("SELECT coalesce(sum({OCTETS}), 0) FROM content")) + self.number(pieces)
        }
    }

    fn random_rows(count: usize) -> Vec<Row> {
        let mut random = Random::new(7);
        (0..count).map(|_| random_row(&mut random)).collect()
    }

    /// The same, with prompts that are stored as they are.
    fn unpieced(mut rows: Vec<Row>) -> Vec<Row> {
        for prompt in rows.iter_mut().filter_map(|row| row.content.prompt.as_mut()) {
            let mut text = prompt.to_string();
            text.truncate(PIECED_BYTES_MIN - 1);
            *prompt = text.into();
        }
        rows
    }

    fn sized(bytes: usize) -> Row {
        Row { content: Content { prompt: Some("x".repeat(bytes).into()), ..Content::default() }, ..row() }
    }

    /// So many rows, none of which says what another does.
    fn different(count: usize, bytes: usize) -> Vec<Row> {
        let text = |number: usize| format!("{number:09}{}", "x".repeat(bytes - 9));
        let content = |number| Content { prompt: Some(text(number).into()), ..Content::default() };
        (0..count).map(|number| Row { content: content(number), ..row() }).collect()
    }

    /// Cleans rows of three days in any order; what is left, as plain SQL, and the packs as they were.
    fn check(retention: Retention, rows_left: &str, content_left: &str) {
        let bench = CleanBench::new(&random_rows(250));
        let cut = |days: u64| text_of_ms(if days == 0 { 0 } else { NOW_MS - days as i64 * DAY_MS });
        let expected = |table: &str, condition: &str| {
            let condition = condition
                .replace("CONTENT_CUT", &format!("'{}'", cut(retention.content_days.max)))
                .replace("CUT", &format!("'{}'", cut(retention.days.max)));
            bench
                .text(&format!("SELECT id AS line FROM {table} JOIN requests USING (id) WHERE {condition} ORDER BY id"))
        };
        let (rows, content) = (expected("requests AS one", rows_left), expected("content", content_left));
        let changes = "SELECT coalesce((SELECT value FROM meta WHERE name = 'rows_changed'), 0)";
        let (packs, before, changed) = (bench.packs(), bench.ids("requests"), bench.number(changes));
        bench.clean(retention, NOW_MS);
        assert_eq!(bench.ids("requests"), rows, "{retention:?}");
        // Readers that keep figures made of rows are told, and only then.
        assert_eq!(bench.number(changes) > changed, rows != before, "{retention:?}");
        assert_eq!(bench.ids("content"), content, "{retention:?}");
        assert_eq!(bench.packs(), packs, "{retention:?}");
        assert_eq!(bench.number("PRAGMA freelist_count"), 0, "{retention:?}");
    }

    #[test]
    fn what_is_older_is_removed_and_nothing_else() {
        let newest = "requests.start_time >= CUT OR id = (SELECT max(id) FROM requests)";
        check(NONE, "true", "true");
        check(Retention { days: set_to(100), content_days: set_to(100), ..NONE }, "true", "true");
        check(Retention { days: set_to(4), ..NONE }, newest, "start_time >= CUT");
        check(Retention { days: set_to(3), ..NONE }, newest, "start_time >= CUT");
        check(Retention { content_days: set_to(3), ..NONE }, "true", "start_time >= CONTENT_CUT");
        check(
            Retention { days: set_to(4), content_days: set_to(3), ..NONE },
            newest,
            "start_time >= CONTENT_CUT AND start_time >= CUT",
        );
        check(
            Retention { days: set_to(1), content_days: set_to(1), ..NONE },
            "id = (SELECT max(id) FROM requests)",
            "false",
        );
    }

    #[test]
    fn content_beyond_the_size_is_removed_oldest_first_and_no_more() {
        for max in [1, 100_000, 500_000, u64::MAX] {
            let bench = CleanBench::new(&unpieced(random_rows(250)));
            let all = bench.ids("content");
            bench.clean(Retention { content_bytes_max: set_to(max), ..NONE }, NOW_MS);
            let (left, bytes) = (bench.ids("content"), bench.content_bytes());
            assert!(all.ends_with(&left), "{max}: the newest stay");
            assert!(u64::try_from(bytes).expect("a size") <= max, "{max}");
            // The largest content has some 8 KB.
            assert!(left == all || u64::try_from(bytes + 20_000).expect("a size") > max, "{max}");
            assert_eq!(bench.number("SELECT count(*) FROM requests"), 250);
            assert_eq!(bench.number("SELECT value FROM meta WHERE name = 'content_bytes'"), bytes, "{max}");
        }
    }

    #[test]
    fn the_newest_row_stays_until_another_comes_and_no_id_is_used_twice() {
        let bench = CleanBench::new(&[row(), row(), row()]);
        let retention = Retention { days: set_to(1), ..NONE };
        bench.clean(retention, NOW_MS);
        assert_eq!((bench.ids("requests").as_str(), bench.ids("content").as_str()), ("3", ""));
        bench.clean(retention, NOW_MS);
        assert_eq!(bench.write(Row { start_ms: NOW_MS, ..row() }), 4);
        bench.clean(retention, NOW_MS);
        assert_eq!((bench.ids("requests").as_str(), bench.ids("content").as_str()), ("4", "4"));
    }

    #[test]
    fn a_row_that_comes_late_for_a_cleaned_hour_is_removed() {
        let bench = CleanBench::new(&random_rows(10));
        let retention = Retention { days: set_to(1), ..NONE };
        bench.clean(retention, NOW_MS);
        bench.write(row());
        bench.write(Row { start_ms: NOW_MS, ..row() });
        bench.clean(retention, NOW_MS);
        assert_eq!((bench.ids("requests").as_str(), bench.ids("content").as_str()), ("12", "12"));
    }

    #[test]
    fn a_clock_that_leaps_ahead_removes_nothing_and_goes_on_where_it_was() {
        let bench = CleanBench::new(&random_rows(50));
        let retention = Retention { days: set_to(30), content_days: set_to(30), ..NONE };
        let (rows, content) = (bench.ids("requests"), bench.ids("content"));
        bench.clean(retention, NOW_MS);
        let year_2099 = 4_070_908_800_000;
        bench.write(Row { start_ms: year_2099, ..row() });
        for hours in 0..20 {
            bench.clean(retention, year_2099 + (3 + hours) * HOUR_MS);
        }
        assert_eq!((bench.ids("requests"), bench.ids("content")), (format!("{rows}; 51"), format!("{content}; 51")));
        // Set right, it removes what is too old then; the row of 2099 goes with those recorded beside it.
        bench.write(Row { start_ms: NOW_MS + DAY_MS, ..row() });
        bench.write(Row { start_ms: NOW_MS + 2 * DAY_MS, ..row() });
        bench.clean(retention, NOW_MS + 3 * DAY_MS);
        assert_eq!(bench.ids("requests"), format!("{rows}; 51; 52; 53"));
        for day in 1..14 {
            bench.clean(retention, NOW_MS + 3 * day * DAY_MS);
        }
        assert_eq!(bench.ids("requests"), "53");
    }

    #[test]
    fn rows_of_1970_stay_as_long_as_those_recorded_beside_them() {
        let of_1970 = || Row { start_ms: 60_000, ..row() };
        let bench =
            CleanBench::new(&[row(), of_1970(), of_1970(), Row { start_ms: row().start_ms + DAY_MS, ..row() }, row()]);
        let after = row().start_ms + DAY_MS;
        bench.clean(Retention { days: set_to(30), content_days: set_to(30), ..NONE }, NOW_MS);
        assert_eq!((bench.ids("requests").as_str(), bench.ids("content").as_str()), ("1; 2; 3; 4; 5", "1; 2; 3; 4; 5"));
        bench.clean(Retention { content_days: set_to(1), ..NONE }, after + DAY_MS);
        assert_eq!(bench.ids("content"), "4");
        let bench = CleanBench::new(&[of_1970(), row(), of_1970(), Row { start_ms: after, ..row() }]);
        bench.clean(Retention { content_days: set_to(1), ..NONE }, after + DAY_MS);
        assert_eq!(bench.ids("content"), "3; 4");
        bench.clean(Retention { content_days: set_to(1), ..NONE }, after + 3 * DAY_MS);
        assert_eq!(bench.ids("content"), "");
    }

    #[test]
    fn rows_without_a_true_date_hold_up_no_clean_up_however_many_they_are() {
        let untrue = |at: i64| Row { start_ms: [60_000, 4_070_908_800_000][at as usize % 2], ..row() };
        let mut rows: Vec<Row> = (0..2 * LOOK_ROWS + 100).map(untrue).collect();
        rows.extend([row(), row(), Row { start_ms: row().start_ms + DAY_MS, ..row() }]);
        rows.extend((0..LOOK_ROWS).map(untrue));
        let bench = CleanBench::new(&rows);
        let retention = Retention { days: set_to(1), content_days: set_to(1), ..NONE };
        let count = |table: &str| bench.number(&format!("SELECT count(*) FROM {table}"));
        bench.clean(retention, row().start_ms + DAY_MS / 2);
        assert_eq!((count("requests"), count("content")), (rows.len() as i64, rows.len() as i64));
        // Two are too old: so is whatever was recorded before them.
        bench.clean(retention, row().start_ms + 2 * DAY_MS);
        assert_eq!((count("requests"), count("content")), (LOOK_ROWS + 1, LOOK_ROWS + 1));
        assert_eq!(bench.number("SELECT min(id) FROM requests"), 2 * LOOK_ROWS + 103);
    }

    #[test]
    fn killed_between_any_two_steps_it_goes_on_where_it_was() {
        let retention = Retention { days: set_to(4), content_days: set_to(3), content_bytes_max: set_to(300_000) };
        let rows = random_rows(150);
        let whole = CleanBench::new(&rows);
        let steps = whole.clean(retention, NOW_MS);
        for killed_after in (0..steps).step_by(11) {
            let bench = CleanBench::new(&rows);
            let mut cleaner = Cleaner::new(retention);
            cleaner.begin(0);
            for _ in 0..killed_after {
                cleaner.step(&bench.own, &bench.recorder, NOW_MS).expect("a step");
                let wrong = format!(
                    "SELECT (SELECT coalesce(sum({OCTETS}), 0) FROM content
                        WHERE id <= (SELECT value FROM meta WHERE name = 'content_counted'))
                    <> coalesce((SELECT value FROM meta WHERE name = 'content_bytes'), 0)
                    OR EXISTS (SELECT 1 FROM content WHERE id NOT IN (SELECT id FROM requests))"
                );
                assert_eq!(bench.number(&wrong), 0, "{killed_after}");
            }
            bench.clean(retention, NOW_MS);
            assert_eq!(bench.ids("requests"), whole.ids("requests"), "{killed_after}");
            assert_eq!(bench.ids("content"), whole.ids("content"), "{killed_after}");
        }
    }

    #[test]
    fn no_step_removes_more_than_its_share() {
        let bench = CleanBench::new(&different(40, 200_000));
        let mut cleaner = Cleaner::new(Retention { days: set_to(1), ..NONE });
        cleaner.begin(0);
        let (mut bytes, mut pages) = (bench.content_bytes(), bench.number("PRAGMA page_count"));
        while cleaner.is_at_work() {
            cleaner.step(&bench.own, &bench.recorder, NOW_MS).expect("a step");
            let (bytes_now, pages_now) = (bench.content_bytes(), bench.number("PRAGMA page_count"));
            assert!(bytes - bytes_now <= CLEAN_BYTES_MAX);
            // The map of parents has pages of its own.
            assert!(pages - pages_now <= CLEAN_PAGES_MAX + 1);
            (bytes, pages) = (bytes_now, pages_now);
        }
        assert_eq!((bytes, bench.ids("requests").as_str()), (0, "40"));
    }

    #[test]
    fn freed_space_goes_back_to_the_file_system_but_for_what_is_to_be_spared() {
        let bench = CleanBench::new(&different(100, 100_000));
        let size = || std::fs::metadata(bench.folder.join("metrics.db")).expect("is there").len();
        let checkpoint = || bench.own.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("moved");
        checkpoint();
        assert!(size() > 10_000_000);
        let mut cleaner = Cleaner::new(Retention { content_days: set_to(1), ..NONE });
        cleaner.begin(4_000_000);
        while cleaner.is_at_work() {
            cleaner.step(&bench.own, &bench.recorder, NOW_MS).expect("a step");
        }
        assert!(bench.recorder.signals.wait_for_work(std::time::Duration::ZERO).log_grew, "the file wants to be cut");
        checkpoint();
        assert!((4_000_000..4_300_000).contains(&size()), "{}", size());
        bench.clean(NONE, NOW_MS);
        checkpoint();
        assert!(size() < 200_000, "{}", size());
        assert_eq!(bench.text("SELECT integrity_check AS line FROM pragma_integrity_check"), "ok");
    }

    #[test]
    fn content_removed_by_hand_costs_no_new_content() {
        let bench = CleanBench::new(&vec![sized(1000); 10]);
        let retention = Retention { content_bytes_max: set_to(10_000), ..NONE };
        bench.clean(retention, NOW_MS);
        bench.own.execute_batch("DELETE FROM content").expect("removed");
        bench.write(sized(1000));
        bench.clean(retention, NOW_MS);
        assert_eq!(bench.ids("content"), "11");
    }

    #[test]
    fn a_database_that_refuses_ends_the_pass_and_the_next_one_cleans() {
        let bench = CleanBench::new(&[row(), row()]);
        let retention = Retention { days: set_to(1), ..NONE };
        let mut cleaner = Cleaner::new(retention);
        cleaner.begin(0);
        bench.own.execute_batch("BEGIN IMMEDIATE").expect("locks");
        while cleaner.is_at_work() {
            let _ = cleaner.step(&bench.own, &bench.recorder, NOW_MS);
        }
        bench.own.execute_batch("ROLLBACK").expect("unlocks");
        assert_eq!(bench.ids("requests"), "1; 2");
        bench.clean(retention, NOW_MS);
        assert_eq!(bench.ids("requests"), "2");
    }

    #[test]
    fn what_came_with_an_upgrade_is_removed_by_no_default() {
        let default = |max| Limit { max, is_set: false };
        for (assumed, set) in [
            (Retention { days: default(1), ..NONE }, Retention { days: set_to(1), ..NONE }),
            (Retention { content_days: default(1), ..NONE }, Retention { content_days: set_to(1), ..NONE }),
            (Retention { content_bytes_max: default(1), ..NONE }, Retention { content_bytes_max: set_to(1), ..NONE }),
        ] {
            let bench = CleanBench::new(&vec![sized(1000); 10]);
            came(&bench.own).expect("marked");
            let all = bench.ids("content");
            // Twice, as over a restart.
            for _ in 0..2 {
                bench.clean(assumed, NOW_MS);
                assert_eq!((bench.ids("requests"), bench.ids("content")), (all.clone(), all.clone()), "{assumed:?}");
            }
            // What is new is removed as ever; the newest row stays.
            for _ in 0..3 {
                bench.write(sized(1000));
            }
            bench.clean(assumed, NOW_MS);
            assert_eq!(bench.ids("content"), all, "{assumed:?}");
            let newest = if assumed.days.max > 0 { "13" } else { "11; 12; 13" };
            assert_eq!(bench.ids("requests"), format!("{all}; {newest}"), "{assumed:?}");
            // A limit set later finds what was spared.
            bench.clean(set, NOW_MS);
            assert_eq!(bench.ids("content"), "", "{set:?}");
            assert_eq!(
                bench.ids("requests"),
                if set.days.max > 0 { "13".to_owned() } else { format!("{all}; {newest}") }
            );
        }
    }

    #[test]
    fn a_default_size_is_that_of_what_did_not_come_with_an_upgrade() {
        let bench = CleanBench::new(&vec![sized(1000); 10]);
        let assumed = Retention { content_bytes_max: Limit { max: 3000, is_set: false }, ..NONE };
        let set = Retention { content_bytes_max: set_to(5000), ..NONE };
        bench.clean(Retention { content_bytes_max: set_to(100_000), ..NONE }, NOW_MS);
        came(&bench.own).expect("marked");
        for _ in 0..5 {
            bench.write(sized(1000));
            bench.clean(assumed, NOW_MS);
        }
        assert_eq!(bench.ids("content"), "1; 2; 3; 4; 5; 6; 7; 8; 9; 10; 13; 14; 15");
        assert_eq!(bench.number("SELECT value FROM meta WHERE name = 'content_bytes'"), 3000);
        // Whichever limit counts, what it reaches is counted.
        bench.clean(set, NOW_MS);
        assert_eq!(bench.ids("content"), "9; 10; 13; 14; 15");
        assert_eq!(bench.number("SELECT value FROM meta WHERE name = 'content_bytes'"), 5000);
        bench.write(sized(1000));
        bench.clean(assumed, NOW_MS);
        assert_eq!(bench.ids("content"), "9; 10; 14; 15; 16");
        // Whatever there is now came with the next upgrade.
        came(&bench.own).expect("marked");
        bench.write(sized(3000));
        bench.clean(assumed, NOW_MS);
        assert_eq!(bench.ids("content"), "9; 10; 14; 15; 16; 17");
    }

    #[test]
    fn ids_that_are_used_again_did_not_come_with_an_upgrade() {
        let bench = CleanBench::new(&[row(), row(), row()]);
        came(&bench.own).expect("marked");
        bench
            .own
            .execute_batch("DELETE FROM requests WHERE id > 1; DELETE FROM content WHERE id > 1")
            .expect("removed");
        assert_eq!((bench.write(row()), bench.write(row())), (2, 3));
        bench.clean(Retention { content_days: Limit { max: 1, is_set: false }, ..NONE }, NOW_MS);
        assert_eq!(bench.ids("content"), "1");
    }
}
