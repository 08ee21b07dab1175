//! `GET /stats/prefix`: why prompts were read anew, how much of them, and what that took, by client, model and reason.
//! From packs, and the rows that are not packed or lie at the edges of a range.

use std::collections::BTreeMap;
use std::fmt::Write;

use rusqlite::{Row, params_from_iter};
use serde::Serialize;

use super::answers::one_decimal;
use super::columns::{cell, with_commas};
use super::condition::Condition;
use super::filter::Filter;
use super::range::{Cut, Pieces, cut};
use super::reader::{AskError, Reader};
use crate::calendar::HOUR_MS;
use crate::order::sort_by_key;
use crate::packs::prefixes::{PrefixSums, visit_prefixes};
use crate::packs::{SPAN_ALL, SPAN_HOUR, pack_id};
use crate::prompts::PrefixBreak;
use crate::record::series::Series;
use crate::record::table::{integer, text};
use crate::routes::By;

/// Client, model, and the place of the reason among all of them.
type Key = (String, String, u8);

/// What prompts come to, by [`Key`].
type PrefixCounts = BTreeMap<Key, PrefixSums>;

/// Why prompts were read anew.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prefixes {
    /// Of all.
    #[serde(flatten)]
    pub total: PrefixFigures,
    /// By client, model and reason: first what took longest, then what was most.
    pub prefixes: Vec<PrefixGroup>,
}

/// What prompts of one client and model come to that have one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrefixGroup {
    /// Who asked; `None`: nobody knows.
    pub client: Option<String>,
    /// The model that answered.
    pub model: String,
    /// See [`PrefixBreak`].
    pub prefix_break: &'static str,
    /// What they come to.
    #[serde(flatten)]
    pub figures: PrefixFigures,
}

/// What prompts come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrefixFigures {
    /// Requests of which it is known.
    pub requests: i64,
    /// Bytes of their prompts.
    pub prompt_bytes: i64,
    /// Those that no earlier prompt began with.
    pub new_bytes: i64,
    /// Of a hundred bytes, those that an earlier prompt began with. One decimal; `None`: there are no bytes.
    pub shared_percent: Option<f64>,
    /// How long reading again took what could have been shared: an estimate.
    pub estimated_lost_ms: i64,
}

impl PrefixFigures {
    fn of(sums: &PrefixSums) -> PrefixFigures {
        let PrefixSums { requests, prompt_bytes, shared_bytes, lost_ms } = *sums;
        let percent = |bytes: i64| one_decimal(shared_bytes as f64 * 100.0 / bytes as f64);
        PrefixFigures {
            requests,
            prompt_bytes,
            new_bytes: prompt_bytes - shared_bytes,
            shared_percent: (prompt_bytes > 0).then(|| percent(prompt_bytes)),
            estimated_lost_ms: lost_ms,
        }
    }
}

/// What [`of_row`] reads, before what else is asked for.
const COLUMNS: &str = "prefix_break, prompt_bytes, prefix_bytes, prefix_lost_ms";

/// The place of the reason, and sums of one; `None`: nothing is known of it.
fn of_row(row: &Row) -> Option<(u8, PrefixSums)> {
    let reason = PrefixBreak::named(text(row, 0))?;
    let figure = |column| integer(row, column).unwrap_or(0);
    let sums = PrefixSums { requests: 1, prompt_bytes: figure(1), shared_bytes: figure(2), lost_ms: figure(3) };
    Some((reason as u8, sums))
}

/// Rows of these ids, of which those count that the filter lets pass.
pub(super) type PartOfRows = (Filter, (i64, i64));

impl Reader {
    /// Why the prompts that the filter lets pass were read anew.
    pub fn prefixes(&self, filter: &Filter) -> Result<Prefixes, AskError> {
        let counts = self.at_once(|| self.prefix_counts(filter))?;
        let mut total = PrefixSums::default();
        counts.values().for_each(|sums| total.add(sums, 1));
        let groups = counts.into_iter().filter(|(_, sums)| sums.requests > 0).map(|((client, model, place), sums)| {
            let prefix_break = PrefixBreak::all().get(usize::from(place)).map_or("unknown", |reason| reason.as_str());
            PrefixGroup {
                client: (!client.is_empty()).then_some(client),
                model,
                prefix_break,
                figures: PrefixFigures::of(&sums),
            }
        });
        let mut prefixes: Vec<PrefixGroup> = groups.collect();
        // Stable: what is alike stays in the order of names.
        sort_by_key(&mut prefixes, |group| (-group.figures.estimated_lost_ms, -group.figures.new_bytes));
        Ok(Prefixes { total: PrefixFigures::of(&total), prefixes })
    }

    fn prefix_counts(&self, filter: &Filter) -> Result<PrefixCounts, AskError> {
        let mut counts = PrefixCounts::new();
        let parts = self.packed_prompts("packed_prefixes", filter, |series, place, sums, sign| {
            let key = (series[By::Client].clone(), series[By::Model].clone(), place);
            counts.entry(key).or_default().add(sums, sign);
        })?;
        for (part, ids) in parts {
            self.count_rows(&mut counts, &part, ids)?;
        }
        Ok(counts)
    }

    /// Visits what the packs of a table tell of prompts that the filter lets pass, by series and reason, to be added (1)
    /// or taken away (-1). Returns the parts that are left, of which rows tell: those that lie at the edges of a range, or are
    /// not packed, and all of a conversation.
    pub(super) fn packed_prompts(
        &self,
        table: &str,
        filter: &Filter,
        mut visit: impl FnMut(&Series, u8, &PrefixSums, i64),
    ) -> Result<Vec<PartOfRows>, AskError> {
        if !filter.conversations.is_empty() {
            return Ok(self.turns_to_add(filter)?.into_iter().map(|id| (filter.clone(), (id, id))).collect());
        }
        let packed = self.packed()?;
        let mut parts = vec![(filter.clone(), packed.ids_behind())];
        let query = format!("SELECT pack FROM {table} WHERE id = ?1");
        let mut is_any_packed = false;
        self.pack(&query, pack_id(SPAN_ALL, 0), |_| {
            is_any_packed = true;
            Ok(())
        })?;
        if !is_any_packed {
            return Ok(parts);
        }
        let (from, to) = self.parted_at((filter.from_ms, filter.to_ms))?;
        let Pieces { packs, rows } = cut(from, to, packed, Cut::Signed);
        {
            let series = self.series()?;
            for (id, sign) in packs {
                self.pack(&query, id, |pack| {
                    visit_prefixes(pack, |at, place, sums| {
                        let known = usize::try_from(at).ok().and_then(|at| series.get(at)?.as_ref());
                        if let Some(series) = known.filter(|series| filter.matches(series)) {
                            visit(series, place, sums, sign);
                        }
                    })
                })?;
            }
        }
        for (from_ms, to_ms) in rows {
            let hour = pack_id(SPAN_HOUR, from_ms / HOUR_MS);
            let Some((first, last)) = self.ids_of_pack(&Filter::default(), hour)? else { continue };
            let part = Filter { from_ms: Some(from_ms), to_ms: Some(to_ms), ..filter.clone() };
            parts.push((part, (first, last.min(packed.state.until))));
        }
        Ok(parts)
    }

    /// Counts the rows of these ids that the filter lets pass.
    fn count_rows(&self, counts: &mut PrefixCounts, filter: &Filter, ids: (i64, i64)) -> rusqlite::Result<()> {
        let condition = Condition::of(filter);
        let query = format!("SELECT {COLUMNS}, client, model FROM requests WHERE id BETWEEN ? AND ?{}", condition.sql);
        let mut statement = self.conn.prepare_cached(&query)?;
        let mut rows = statement.query(params_from_iter(condition.values(&[ids.0, ids.1])))?;
        while let Some(row) = rows.next()? {
            if let Some((place, sums)) = of_row(row) {
                let key = (text(row, 4).to_owned(), text(row, 5).to_owned(), place);
                counts.entry(key).or_default().add(&sums, 1);
            }
        }
        Ok(())
    }

    /// What prompts of all time come to, by the place of their reason.
    pub(super) fn prefixes_by_reason(&self) -> rusqlite::Result<BTreeMap<u8, PrefixSums>> {
        let mut counts: BTreeMap<u8, PrefixSums> = BTreeMap::new();
        self.at_once(|| {
            self.pack("SELECT pack FROM packed_prefixes WHERE id = ?1", pack_id(SPAN_ALL, 0), |pack| {
                visit_prefixes(pack, |_, place, sums| counts.entry(place).or_default().add(sums, 1))
            })?;
            let behind = self.packed()?.ids_behind();
            let query = format!("SELECT {COLUMNS} FROM requests WHERE id BETWEEN ?1 AND ?2");
            let mut statement = self.conn.prepare_cached(&query)?;
            let mut rows = statement.query([behind.0, behind.1])?;
            while let Some(row) = rows.next()? {
                if let Some((place, sums)) = of_row(row) {
                    counts.entry(place).or_default().add(&sums, 1);
                }
            }
            Ok(counts)
        })
    }
}

impl Prefixes {
    /// The same for a terminal, a line each.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |client: &str, model: &str, reason: &str, cells: [String; 5]| {
            let [requests, prompt, new, share, lost] = cells;
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "{}{}{reason:<19}{requests:>9}{prompt:>15}{new:>15}{share:>9}{lost:>9}",
                cell(client, 14),
                cell(model, 22)
            );
        };
        let head = ["requests", "prompt bytes", "read anew", "shared", "lost s *"].map(str::to_owned);
        line("client", "model", "reason", head);
        for PrefixGroup { client, model, prefix_break, figures } in &self.prefixes {
            line(client.as_deref().unwrap_or("-"), model, prefix_break, figures.cells());
        }
        line("all", "", "", self.total.cells());
        out.push_str("\n* how long it took to read again what could have been shared: an estimate\n");
        out
    }
}

impl PrefixFigures {
    fn cells(&self) -> [String; 5] {
        [
            with_commas(self.requests),
            with_commas(self.prompt_bytes),
            with_commas(self.new_bytes),
            self.shared_percent.map_or("-".to_owned(), |percent| format!("{percent:.1} %")),
            format!("{:.1}", self.estimated_lost_ms as f64 / 1000.0),
        ]
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::record::row::Row as WrittenRow;
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, Random, random_row};

    /// What plain SQL over the rows says.
    fn plain_counts(conn: &Connection, condition: &str) -> Vec<(String, String, String, [i64; 4])> {
        let query = format!(
            "SELECT coalesce(client, ''), model, prefix_break, count(*), sum(prompt_bytes),
                sum(prompt_bytes - prefix_bytes), sum(prefix_lost_ms)
             FROM (SELECT *, CAST(round(unixepoch(start_time, 'subsec') * 1000) AS INTEGER) AS ms FROM requests)
             WHERE prefix_break NOT NULL AND {condition} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        );
        let mut statement = conn.prepare(&query).expect("a query");
        let read = |row: &Row| {
            let figure = |column| row.get::<_, i64>(column);
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, [figure(3)?, figure(4)?, figure(5)?, figure(6)?]))
        };
        statement.query_map([], read).and_then(Iterator::collect).expect("rows")
    }

    #[track_caller]
    fn check(reader: &Reader, conn: &Connection, filter: &Filter, condition: &str) {
        let told = reader.prefixes(filter).expect("answers");
        let mut groups: Vec<_> = told
            .prefixes
            .iter()
            .map(|PrefixGroup { client, model, prefix_break, figures }| {
                let PrefixFigures { requests, prompt_bytes, new_bytes, estimated_lost_ms, .. } = figures;
                let figures = [*requests, *prompt_bytes, *new_bytes, *estimated_lost_ms];
                (client.clone().unwrap_or_default(), model.clone(), (*prefix_break).to_owned(), figures)
            })
            .collect();
        groups.sort();
        assert_eq!(groups, plain_counts(conn, condition), "{condition}");
        let requests: i64 = groups.iter().map(|(.., figures)| figures[0]).sum();
        assert_eq!(told.total.requests, requests);
    }

    #[test]
    fn figures_are_those_of_the_rows_whatever_is_packed_and_whatever_range() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let conn = Connection::open(&path).expect("opens");
        let reader = Reader::open(&path).expect("opens");
        let mut random = Random::new(16);
        let reasons = PrefixBreak::all().map(PrefixBreak::as_str);
        for round in 0..3 {
            let rows: Vec<WrittenRow> = (0..150).map(|_| random_row(&mut random)).collect();
            store.write(&rows).expect("writes");
            for id in round * 150 + 1..=round * 150 + 150 {
                let values = (id, reasons[random.index(reasons.len())], random.below(9000) as i64);
                let known = "UPDATE requests SET prefix_break = ?2, prompt_bytes = 10000, prefix_bytes = ?3,
                    prefix_lost_ms = ?3 / 7, conversation = 'c' || (id % 3), conversation_source = 'header'
                    WHERE id = ?1";
                if id % 5 > 0 {
                    conn.execute(known, values).expect("written");
                }
            }
            check(&reader, &conn, &Filter::default(), "1");
            // The last rows stay as they are, behind those that packs hold.
            if round < 2 {
                store.pack_all().expect("packs");
            }
        }
        check(&reader, &conn, &Filter::default(), "1");
        let (first, last): (i64, i64) = conn
            .query_row(
                "SELECT unixepoch(min(start_time)) * 1000, unixepoch(max(start_time)) * 1000 FROM requests",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .expect("times");
        for _ in 0..60 {
            let mut moment = || {
                let ms = first + random.below((last - first) as u64) as i64;
                if random.below(2) == 0 { ms } else { ms - ms % HOUR_MS }
            };
            let (one, other) = (moment(), moment());
            let (from_ms, to_ms) = (one.min(other), one.max(other));
            let ends = [(Some(from_ms), Some(to_ms)), (Some(from_ms), None), (None, Some(to_ms))];
            let (from_ms, to_ms) = ends[random.index(3)];
            let range = format!("ms >= {} AND ms < {}", from_ms.unwrap_or(0), to_ms.unwrap_or(1_i64 << 50));
            let filter = Filter { from_ms, to_ms, ..Filter::default() };
            check(&reader, &conn, &filter, &range);
            let mut named = filter.clone();
            named.names[By::Model] = vec!["model-0".to_owned(), "model-1".to_owned()];
            check(&reader, &conn, &named, &format!("{range} AND model IN ('model-0', 'model-1')"));
            let of = Filter { conversations: vec!["c1".to_owned()], ..named };
            check(&reader, &conn, &of, &format!("{range} AND model IN ('model-0', 'model-1') AND conversation = 'c1'"));
        }
        let by_reason = reader.prefixes_by_reason().expect("answers");
        let all: i64 = by_reason.values().map(|sums| sums.requests).sum();
        assert_eq!(all, 360);
    }

    #[test]
    fn a_person_reads_a_table() {
        let sums = PrefixSums { requests: 3, prompt_bytes: 214_806, shared_bytes: 1_234, lost_ms: 61_400 };
        let figures = PrefixFigures::of(&sums);
        let group = PrefixGroup {
            client: None,
            model: "m\u{1b}[1m".to_owned(),
            prefix_break: "system_changed",
            figures: figures.clone(),
        };
        let text = Prefixes { total: figures, prefixes: vec![group] }.text();
        let line = text.lines().nth(1).expect("a line");
        for word in ["system_changed", "214,806", "213,572", "0.6 %", "61.4"] {
            assert!(line.contains(word), "{word}: {text}");
        }
        assert!(!text.contains('\u{1b}') && text.contains("an estimate"), "{text}");
        let none = PrefixFigures::of(&PrefixSums::default());
        assert_eq!(none.shared_percent, None);
    }
}
