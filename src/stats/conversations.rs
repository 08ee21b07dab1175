//! Conversations: a list of them, the newest first, and one as a thread.
//!
//! What one comes to is told by its row in `conversations`, as far as its requests are packed; the rows behind are added.
//! A list has the conversations of which any request passes the filter. Their figures are those of all their requests,
//! removed ones included.
//!
//! ```text
//!  rows behind packed_until ──by name──▶ those that go on, or are new: the newest ──┐
//!  conversations ──by the last id, downwards──▶ the others ─────────────────────────┴──▶ a page
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;

use rusqlite::{OptionalExtension, Row, params_from_iter};

use super::answers::{By, ConversationThread, ConversationTotals, Conversations};
use super::condition::Condition;
use super::filter::Filter;
use super::reader::{Reader, bounds};
use super::tally::{Tally, Totals};
use super::turns::FirstRead;
use crate::calendar::whole_seconds;
use crate::limits::{CONVERSATIONS_LOOKED_AT_MAX, TURNS_LOOKED_AT_MAX};
use crate::order::{sort_by, sort_by_key};
use crate::packs::visit_sums;
use crate::record::packing::State;
use crate::record::table::{ALL_FIGURES, sums_of, text};
use crate::routes::Names;

/// Few in tests, so that more are met.
const LOOKED_AT_MAX: usize = if cfg!(test) { 5 } else { CONVERSATIONS_LOOKED_AT_MAX };

/// What [`Asked::packed`] reads.
const COLUMNS: &str = "name, source, first_id, last_id, pack";

/// A conversation as it is put together.
#[derive(Debug)]
struct Found {
    name: String,
    source: String,
    first_id: i64,
    last_id: i64,
    totals: Totals,
    /// Series of packed requests, by their ids, and how many.
    series: Vec<(i64, i64)>,
    /// Requests that are not packed, by client and by model.
    clients: BTreeMap<String, i64>,
    models: BTreeMap<String, i64>,
    passes: Passing,
}

/// Whether any request of a conversation passes the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Passing {
    No,
    /// The rows know that are packed.
    Maybe,
    Yes,
}

impl Found {
    fn new(name: &str, source: &str, (first_id, last_id): (i64, i64)) -> Found {
        Found {
            name: name.to_owned(),
            source: source.to_owned(),
            first_id,
            last_id,
            totals: Totals::default(),
            series: Vec::new(),
            clients: BTreeMap::new(),
            models: BTreeMap::new(),
            passes: Passing::No,
        }
    }

    fn count(&mut self, names: &Names<impl AsRef<str>>, requests: i64) {
        for (counts, by) in [(&mut self.clients, By::Client), (&mut self.models, By::Model)] {
            match counts.get_mut(names[by].as_ref()) {
                Some(count) => *count += requests,
                None => drop(counts.insert(names[by].as_ref().to_owned(), requests)),
            }
        }
    }

    /// Adds to what is packed what the rows behind come to.
    fn go_on(self, behind: Option<Found>) -> Found {
        let Some(mut behind) = behind else { return self };
        behind.totals.add(&self.totals, 1);
        let (last_id, passes) = (self.last_id.max(behind.last_id), self.passes.max(behind.passes));
        Found { last_id, passes, totals: behind.totals, clients: behind.clients, models: behind.models, ..self }
    }
}

/// The names that are known and have requests, those with most first.
fn names(counts: BTreeMap<String, i64>) -> Vec<String> {
    let mut counts: Vec<(String, i64)> = counts.into_iter().collect();
    counts.retain(|(name, requests)| *requests > 0 && !name.is_empty());
    sort_by_key(&mut counts, |(_, requests)| Reverse(*requests));
    counts.into_iter().map(|(name, _)| name).collect()
}

/// What a question about conversations needs to know of all of them.
struct Asked<'a> {
    filter: &'a Filter,
    state: State,
    /// Where each series counts.
    tally: Tally,
    /// Whether requests of a series pass, by its id.
    passing: Vec<Passing>,
    /// Ids that rows which pass can have; `None`: any.
    ids: Option<Vec<(i64, i64)>>,
}

impl Asked<'_> {
    /// Whether any of these ids can be that of a row that passes.
    fn may_pass(&self, (first, last): (i64, i64)) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.iter().any(|(from, to)| *from <= last && *to >= first))
    }

    /// A row of [`COLUMNS`].
    fn packed(&self, row: &Row) -> rusqlite::Result<Found> {
        let mut found = Found::new(text(row, 0), text(row, 1), (row.get(2)?, row.get(3)?));
        visit_sums(row.get_ref(4)?.as_blob()?, |series, sums| {
            if let Some(slot) = self.tally.slot_of(series)
                && sums.requests > 0
            {
                found.totals.add_sums(sums, &slot);
                found.series.push((series, sums.requests));
                let passes = usize::try_from(series).ok().and_then(|series| self.passing.get(series).copied());
                found.passes = found.passes.max(passes.unwrap_or(Passing::No));
            }
        })?;
        Ok(found)
    }
}

/// What of a list one answer tells.
struct ListPage {
    found: Vec<Found>,
    limit: usize,
    looked_at: usize,
    /// That of the last one that was looked at.
    last_id: Option<i64>,
}

impl ListPage {
    /// Whether one may be looked at whose last request has this id. Where ids were used again it can be that of several,
    /// which stay together.
    fn has_room(&self, last_id: i64) -> bool {
        self.last_id == Some(last_id) || self.found.len() < self.limit && self.looked_at < LOOKED_AT_MAX
    }

    fn look_at(&mut self, last_id: i64) {
        (self.last_id, self.looked_at) = (Some(last_id), self.looked_at + 1);
    }
}

impl Reader {
    /// Conversations of which any request passes the filter, those first whose last request is the newest. `after`: only
    /// those whose last request has a lower id. One question looks at a bounded number; `next_after` continues.
    pub fn conversations(&self, filter: &Filter, after: Option<i64>, limit: u32) -> rusqlite::Result<Conversations> {
        self.at_once(|| {
            let mut asked = self.asked(filter)?;
            let behind = self.conversations_behind(&mut asked)?;
            let mut page = ListPage { found: Vec::new(), limit: limit as usize, looked_at: 0, last_id: None };
            let before = after.unwrap_or(i64::MAX);
            let is_whole = if filter.conversations.is_empty() {
                self.list_all(&asked, behind, before, &mut page)?
            } else {
                self.list_named(&asked, behind, before, &mut page)?
            };
            self.kept.borrow_mut().put(asked.tally);
            let conversations = page.found.into_iter().map(|found| self.told(found));
            let conversations = conversations.collect::<rusqlite::Result<_>>()?;
            Ok(Conversations { conversations, next_after: page.last_id.filter(|_| !is_whole) })
        })
    }

    /// A conversation, and its requests that pass the filter, the oldest first. `after`: only those with a higher id.
    /// `None`: there is none of this name.
    pub fn conversation(
        &self,
        name: &str,
        filter: &Filter,
        after: Option<i64>,
        limit: u32,
    ) -> rusqlite::Result<Option<ConversationThread>> {
        let filter = Filter { conversations: vec![name.to_owned()], ..filter.clone() };
        self.at_once(|| {
            let mut asked = self.asked(&filter)?;
            let mut behind = self.conversations_behind(&mut asked)?;
            let found = self.find(&asked, name, &mut behind)?;
            self.kept.borrow_mut().put(asked.tally);
            let Some(found) = found else { return Ok(None) };
            let within = FirstRead::Oldest.behind(after.unwrap_or(i64::MIN), (i64::MIN, i64::MAX));
            let page = self.page_of_turns(&filter, within, FirstRead::Oldest, limit)?;
            Ok(Some(ConversationThread {
                conversation: self.told(found)?,
                turns: page.requests,
                next_after: page.next_after,
            }))
        })
    }

    fn asked<'a>(&self, filter: &'a Filter) -> rusqlite::Result<Asked<'a>> {
        let state = State::of(&self.conn)?;
        let mut tally = self.tally(&Filter::default(), None, state)?;
        let has_times = filter.from_ms.is_some() || filter.to_ms.is_some();
        let of_any = Filter { conversations: Vec::new(), ..filter.clone() };
        let ids = if of_any == Filter::default() { None } else { Some(self.id_ranges(&of_any)?) };
        let series = self.series()?;
        tally.learn(&series, self.prices().as_deref());
        let passing = series.iter().map(|series| match series {
            Some(series) if filter.matches(series) && !has_times => Passing::Yes,
            Some(series) if filter.may_match(series) => Passing::Maybe,
            Some(_) | None => Passing::No,
        });
        Ok(Asked { filter, state, tally, passing: passing.collect(), ids })
    }

    /// What the rows that are not packed come to, by conversation.
    fn conversations_behind(&self, asked: &mut Asked) -> rusqlite::Result<HashMap<String, Found>> {
        let named = Condition::of(&Filter { conversations: asked.filter.conversations.clone(), ..Filter::default() });
        let query = format!(
            "SELECT id, start_time, conversation, conversation_source, {}, {} FROM requests
             WHERE id > ? AND conversation <> ''{} ORDER BY id",
            By::ALL.map(By::name).join(", "),
            ALL_FIGURES.0,
            named.sql
        );
        let (from, to) = bounds(asked.filter.from_ms, asked.filter.to_ms);
        let prices = self.prices();
        let mut behind: HashMap<String, Found> = HashMap::new();
        let mut statement = self.conn.prepare_cached(&query)?;
        let mut rows = statement.query(params_from_iter(named.values(&[asked.state.until])))?;
        while let Some(row) = rows.next()? {
            let (id, name) = (row.get(0)?, text(row, 2));
            if !behind.contains_key(name) {
                behind.insert(name.to_owned(), Found::new(name, text(row, 3), (id, id)));
            }
            let Some(found) = behind.get_mut(name) else { continue };
            found.last_id = id;
            let names = By::ALL.map(|by| text(row, 4 + by as usize));
            found.count(&names, 1);
            if let Some(slot) = asked.tally.slot_of_row(&names, prices.as_deref()) {
                found.totals.add_sums(&sums_of(row, 4 + By::ALL.len(), ALL_FIGURES), &slot);
            }
            if asked.filter.matches(&names) && (from.as_str()..to.as_str()).contains(&text(row, 1)) {
                found.passes = Passing::Yes;
            }
        }
        Ok(behind)
    }

    /// The whole conversation of this name.
    fn find(&self, asked: &Asked, name: &str, behind: &mut HashMap<String, Found>) -> rusqlite::Result<Option<Found>> {
        let mut packed = self.conn.prepare_cached(&format!("SELECT {COLUMNS} FROM conversations WHERE name = ?1"))?;
        let packed = packed.query_row([name], |row| asked.packed(row)).optional()?;
        let behind = behind.remove(name);
        Ok(match packed {
            Some(packed) => Some(packed.go_on(behind)),
            None => behind,
        })
    }

    /// Lists those of the filter's conversations whose last request has a lower id than `before`. True: all of them.
    fn list_named(
        &self,
        asked: &Asked,
        mut behind: HashMap<String, Found>,
        before: i64,
        page: &mut ListPage,
    ) -> rusqlite::Result<bool> {
        let mut names = asked.filter.conversations.clone();
        sort_by(&mut names, Ord::cmp);
        names.dedup();
        let found = names.iter().filter_map(|name| self.find(asked, name, &mut behind).transpose());
        let mut found: Vec<Found> = found.collect::<rusqlite::Result<_>>()?;
        found.retain(|found| found.last_id < before);
        sort_by_key(&mut found, |found| Reverse(found.last_id));
        for found in found {
            if !page.has_room(found.last_id) {
                return Ok(false);
            }
            self.list(asked, found, page)?;
        }
        Ok(true)
    }

    /// The same of any conversations.
    fn list_all(
        &self,
        asked: &Asked,
        mut behind: HashMap<String, Found>,
        before: i64,
        page: &mut ListPage,
    ) -> rusqlite::Result<bool> {
        // Those that rows behind belong to have the newest requests.
        let mut newest: Vec<(i64, String)> = behind.values().map(|found| (found.last_id, found.name.clone())).collect();
        sort_by(&mut newest, |one, other| other.cmp(one));
        for (last_id, name) in newest.iter().filter(|(last_id, _)| *last_id < before) {
            if !page.has_room(*last_id) {
                return Ok(false);
            }
            if let Some(found) = self.find(asked, name, &mut behind)? {
                self.list(asked, found, page)?;
            }
        }
        let listed: HashSet<&str> = newest.iter().map(|(_, name)| name.as_str()).collect();
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM conversations WHERE last_id < ?1 ORDER BY last_id DESC, id DESC"
        ))?;
        let mut rows = statement.query([before])?;
        while let Some(row) = rows.next()? {
            let (first_id, last_id) = (row.get(2)?, row.get(3)?);
            if !asked.may_pass((i64::MIN, last_id)) {
                break;
            }
            if !page.has_room(last_id) {
                return Ok(false);
            }
            if asked.may_pass((first_id, last_id)) && !listed.contains(text(row, 0)) {
                self.list(asked, asked.packed(row)?, page)?;
            } else {
                page.look_at(last_id);
            }
        }
        Ok(true)
    }

    /// Puts a conversation on the page if any of its requests passes.
    fn list(&self, asked: &Asked, found: Found, page: &mut ListPage) -> rusqlite::Result<()> {
        page.look_at(found.last_id);
        let passes = match found.passes {
            Passing::Maybe => {
                let filter = Filter { conversations: vec![found.name.clone()], ..asked.filter.clone() };
                let ranges = asked.ids.as_deref().unwrap_or(&[(i64::MIN, i64::MAX)]);
                let last = ranges.iter().map(|(_, last)| *last).max().unwrap_or(i64::MIN).min(asked.state.until);
                let first = ranges.iter().map(|(first, _)| *first).min().unwrap_or(i64::MAX);
                let turns = self.read_turns(&filter, (first, last), FirstRead::Newest, (1, TURNS_LOOKED_AT_MAX))?;
                // Where so many were looked at that more would take too long, what series say has to do.
                !turns.requests.is_empty() || turns.next_after.is_some()
            }
            Passing::Yes => true,
            Passing::No => false,
        };
        if passes {
            page.found.push(found);
        }
        Ok(())
    }

    fn told(&self, mut found: Found) -> rusqlite::Result<ConversationTotals> {
        {
            let series = self.series()?;
            for (id, requests) in mem::take(&mut found.series) {
                let known = usize::try_from(id).ok().and_then(|id| series.get(id)?.as_ref());
                known.into_iter().for_each(|series| found.count(series, requests));
            }
        }
        let text_of = |query: &str, id: i64| -> rusqlite::Result<Option<String>> {
            Ok(self.conn.prepare_cached(query)?.query_row([id], |row| row.get(0)).optional()?.flatten())
        };
        let time_of = |id: i64| {
            let time = text_of("SELECT start_time FROM requests WHERE id = ?1", id)?;
            Ok::<_, rusqlite::Error>(time.map(|time| whole_seconds(&time)))
        };
        Ok(ConversationTotals {
            title: text_of("SELECT title FROM content WHERE id = ?1", found.first_id)?,
            first_time: time_of(found.first_id)?,
            last_time: time_of(found.last_id)?,
            summary: self.summary_of(&found.totals),
            conversation: found.name,
            conversation_source: (!found.source.is_empty()).then_some(found.source),
            clients: names(found.clients),
            models: names(found.models),
            first_id: found.first_id,
            last_id: found.last_id,
        })
    }
}
