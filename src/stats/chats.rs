//! Conversations for training, a line of JSON each, with every message of the longest branch once.
//!
//! A prompt says again what was said before it. So the turn whose prompt has most messages, of several the last, stands for
//! its conversation: a later one that goes on with it has more. Turns without a whole answer, or whose words are not
//! stored or not understood, are left out.
//!
//! Reads some turns in each transaction, and never has the words of more than one in memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use rusqlite::{OptionalExtension, params, params_from_iter};

use super::condition::Condition;
use super::filter::Filter;
use super::reader::Reader;
use super::turns::{FirstRead, TURNS_AT_ONCE};
use crate::order::sort_by;
use crate::prompts::chat_export::{answer_message, chat_messages};
use crate::prompts::{ElementPart, Outline};
use crate::record::packing::State;
use crate::record::prompts::{PieceReader, StoredPrompt};
use crate::record::row::Outcome;
use crate::record::table::text;

/// So many of the longest prompts of a conversation are looked at for one that is understood.
const CHOICES_MAX: usize = 8;
/// Bytes of lines after which they are sent.
const LINES_BYTES: usize = 64 * 1024;

/// Conversations on their way. Rows that are written meanwhile are left out.
#[derive(Debug)]
pub(super) struct Chats {
    reader: Reader,
    filter: Filter,
    /// Ids that rows which pass can have.
    within: (i64, i64),
    next: NextChats,
    /// The one that is being read.
    reading: Option<Reading>,
    /// Rows that were not packed in this state, by conversation.
    behind: (State, HashMap<String, Vec<i64>>),
}

/// Those that are to be read.
#[derive(Debug)]
enum NextChats {
    /// The packed ones behind this id of theirs, then the others.
    Packed(i64),
    /// Those of these names.
    Named(std::vec::IntoIter<String>),
}

/// A conversation whose turns are looked through.
#[derive(Debug)]
struct Reading {
    name: String,
    /// Ids of turns that were not looked at.
    left: (i64, i64),
    /// The longest so far, the shortest of them on top.
    longest: BinaryHeap<Reverse<Branch>>,
}

/// A turn, by how much its prompt has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Branch {
    messages: usize,
    bytes: i64,
    id: i64,
}

impl Chats {
    /// All that have a turn that the filter lets pass; of these turns one each.
    pub fn open(reader: Reader, filter: &Filter) -> rusqlite::Result<Chats> {
        let within = reader.at_once(|| with_words(&reader, reader.id_range(filter)?))?.unwrap_or((0, -1));
        let mut named = filter.conversations.clone();
        sort_by(&mut named, Ord::cmp);
        named.dedup();
        let next = if named.is_empty() { NextChats::Packed(i64::MIN) } else { NextChats::Named(named.into_iter()) };
        // No state is like this one.
        let behind = (State { until: -1, ..State::default() }, HashMap::new());
        Ok(Chats { reader, filter: filter.clone(), within, next, reading: None, behind })
    }

    /// Writes some lines, or none yet; false after the last one.
    pub fn next(&mut self, lines: &mut Vec<u8>) -> rusqlite::Result<bool> {
        let Chats { reader, filter, within, next, reading, behind } = self;
        reader.at_once(|| {
            let state = State::of(&reader.conn)?;
            if behind.0 != state {
                *behind = (state, unpacked(reader, state, *within)?);
            }
            let mut looked_at = 0;
            while looked_at < TURNS_AT_ONCE && lines.len() < LINES_BYTES {
                let mut at = match reading.take() {
                    Some(at) => at,
                    None => match next.next(reader, *within, &behind.1)? {
                        Some(name) => Reading { name, left: *within, longest: BinaryHeap::new() },
                        None => return Ok(false),
                    },
                };
                let mut ids = reader.packed_turns(&at.name, at.left, FirstRead::Oldest, TURNS_AT_ONCE)?;
                let is_whole = ids.len() < TURNS_AT_ONCE;
                if let Some(last) = ids.last() {
                    at.left = FirstRead::Oldest.behind(*last, at.left);
                }
                if is_whole {
                    ids.extend(behind.1.get(&at.name).into_iter().flatten());
                }
                looked_at += 1 + ids.len();
                at.look_through(reader, filter, &ids)?;
                if is_whole {
                    at.write_line(reader, lines)?;
                } else {
                    *reading = Some(at);
                }
            }
            Ok(true)
        })
    }
}

/// What of a range of ids can have words: those of the last month, where rows are kept for years.
fn with_words(reader: &Reader, ids: Option<(i64, i64)>) -> rusqlite::Result<Option<(i64, i64)>> {
    let oldest: Option<i64> = reader.conn.query_row("SELECT min(id) FROM content", [], |row| row.get(0))?;
    Ok(ids.zip(oldest).map(|((first, last), oldest)| (first.max(oldest), last)))
}

/// Ids of rows that are not packed, by conversation.
fn unpacked(reader: &Reader, state: State, (first, last): (i64, i64)) -> rusqlite::Result<HashMap<String, Vec<i64>>> {
    let mut statement = reader
        .conn
        .prepare_cached("SELECT id, conversation FROM requests WHERE id BETWEEN ?1 AND ?2 AND conversation <> ''")?;
    let mut rows = statement.query([first.max(state.until.saturating_add(1)), last])?;
    let mut behind: HashMap<String, Vec<i64>> = HashMap::new();
    while let Some(row) = rows.next()? {
        behind.entry(text(row, 1).to_owned()).or_default().push(row.get(0)?);
    }
    Ok(behind)
}

impl NextChats {
    fn next(
        &mut self,
        reader: &Reader,
        (first, last): (i64, i64),
        behind: &HashMap<String, Vec<i64>>,
    ) -> rusqlite::Result<Option<String>> {
        if let NextChats::Packed(before) = self {
            let mut statement = reader.conn.prepare_cached(
                "SELECT id, name FROM conversations WHERE id > ?1 AND last_id >= ?2 AND first_id <= ?3 ORDER BY id LIMIT 1",
            )?;
            let packed = statement.query_row(params![*before, first, last], |row| Ok((row.get(0)?, row.get(1)?)));
            if let Some((id, name)) = packed.optional()? {
                *before = id;
                return Ok(Some(name));
            }
            // In the order of their first rows.
            let mut others: Vec<(&Vec<i64>, &String)> = behind.iter().map(|(name, ids)| (ids, name)).collect();
            others.sort_unstable();
            let mut known = reader.conn.prepare_cached("SELECT 1 FROM conversations WHERE name = ?1")?;
            let mut names = Vec::new();
            for (_, name) in others {
                if !known.exists([name])? {
                    names.push(name.clone());
                }
            }
            *self = NextChats::Named(names.into_iter());
        }
        match self {
            NextChats::Named(names) => Ok(names.next()),
            NextChats::Packed(_) => Ok(None),
        }
    }
}

impl Reading {
    /// Keeps the longest of these turns.
    fn look_through(&mut self, reader: &Reader, filter: &Filter, ids: &[i64]) -> rusqlite::Result<()> {
        let condition = Condition::of(&Filter { conversations: vec![self.name.clone()], ..filter.clone() });
        let mut statement = reader.conn.prepare_cached(&format!(
            "SELECT prompt_bytes, outline FROM requests JOIN content ON content.id = requests.id
             WHERE requests.id = ? AND outcome = '{}' AND (prompt NOT NULL OR pieces NOT NULL){}",
            Outcome::Completed.as_str(),
            condition.sql
        ))?;
        for id in ids {
            let mut rows = statement.query(params_from_iter(condition.values(&[*id])))?;
            let Some(row) = rows.next()? else { continue };
            let outline = row.get_ref(1)?.as_blob_or_null().unwrap_or_default().and_then(Outline::decode);
            let messages = outline.map_or(0, |outline| outline.part(ElementPart::Message).len());
            let bytes = row.get_ref(0)?.as_i64_or_null().unwrap_or_default().unwrap_or_default();
            self.longest.push(Reverse(Branch { messages, bytes, id: *id }));
            if self.longest.len() > CHOICES_MAX {
                self.longest.pop();
            }
        }
        Ok(())
    }

    /// Writes what the longest says that is understood, with its answer.
    fn write_line(self, reader: &Reader, lines: &mut Vec<u8>) -> rusqlite::Result<()> {
        let mut statement = reader
            .conn
            .prepare_cached("SELECT output, reasoning, tool_calls, prompt, pieces FROM content WHERE id = ?1")?;
        let mut pieces = PieceReader::new(&reader.conn);
        for Reverse(branch) in self.longest.into_sorted_vec() {
            let mut rows = statement.query([branch.id])?;
            let Some(row) = rows.next()? else { continue };
            let said = |column| row.get_ref(column).ok().and_then(|text| text.as_str().ok());
            let Some(answer) = answer_message(said(0), said(1), said(2)) else { continue };
            let prompt = pieces.join(StoredPrompt::read(row, 3)?)?;
            let Some(mut chat) = prompt.and_then(|prompt| chat_messages(prompt.as_str())) else { continue };
            chat.messages.push(answer);
            lines.extend_from_slice(b"{\"conversation\":");
            serde_json::to_writer(&mut *lines, &self.name).expect("a string is always JSON");
            for (member, elements) in [("messages", chat.messages), ("tools", chat.tools)] {
                lines.extend_from_slice(format!(",\"{member}\":[").as_bytes());
                for (at, element) in elements.iter().enumerate() {
                    lines.extend_from_slice(if at > 0 { b"," } else { b"" });
                    lines.extend_from_slice(element.as_bytes());
                }
                lines.push(b']');
            }
            lines.extend_from_slice(format!(",\"left_out\":{}}}\n", chat.left_out).as_bytes());
            break;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::hash::RandomState;
    use std::path::Path;

    use rusqlite::Connection;

    use super::*;
    use crate::calendar::ms_of_text;
    use crate::record::row::{Content, PromptShape, Row};
    use crate::record::store::{DbSync, Store};
    use crate::routes::By;
    use crate::testing::{Folder, row};

    /// A row whose prompt has these messages of a user, and who answers.
    fn turn(messages: &[&str], answer: &str) -> Row {
        let said: Vec<String> =
            messages.iter().map(|said| format!(r#"{{"role": "user", "content": "{said}"}}"#)).collect();
        let prompt = format!(r#"{{"model": "m", "messages": [{}], "tools": []}}"#, said.join(", "));
        let outline = Outline::of(prompt.as_bytes(), &RandomState::new());
        let shape = Some(Box::new(PromptShape { outline, ..PromptShape::default() }));
        Row {
            content: Content {
                prompt: Some(prompt.into()),
                output: Some(answer.to_owned()),
                shape,
                ..Content::default()
            },
            ..row()
        }
    }

    /// Has these rows written as turns of conversations, `-` for none.
    fn write(store: &mut Store, path: &Path, turns: Vec<(&str, Row)>) {
        let conn = Connection::open(path).expect("opens");
        for (conversation, row) in turns {
            let ids = store.write(&[row]).expect("writes");
            let told = "UPDATE requests SET conversation = nullif(?2, '-') WHERE id = ?1";
            conn.execute(told, params![ids[0], conversation]).expect("written");
        }
    }

    /// All lines; `between` is done after each part of them.
    fn lines(path: &Path, filter: &Filter, mut between: impl FnMut()) -> Vec<String> {
        let reader = Reader::open(path).expect("opens");
        let (mut chats, mut lines) = (Chats::open(reader, filter).expect("opens"), Vec::new());
        while chats.next(&mut lines).expect("reads") {
            between();
        }
        String::from_utf8(lines).expect("text").lines().map(str::to_owned).collect()
    }

    fn line(conversation: &str, said: &[&str], answer: &str) -> String {
        let user = |said: &&str| format!(r#"{{"role":"user","content":"{said}"}},"#);
        let said: String = said.iter().map(user).collect();
        let answer = format!(r#"{{"role":"assistant","content":"{answer}"}}"#);
        format!(r#"{{"conversation":"{conversation}","messages":[{said}{answer}],"tools":[],"left_out":0}}"#)
    }

    #[test]
    fn a_conversation_is_its_longest_branch_with_the_answer() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let failed = Row { outcome: Outcome::Truncated, ..turn(&["a", "b", "c", "d"], "half an") };
        let unstored = Row { content: Content::default(), ..row() };
        let other_model = Row { model: Some("other".to_owned()), ..turn(&["a", "b", "c"], "by another") };
        let calls = Content { output: None, tool_calls: Some("[cut".to_owned()), ..turn(&["a", "b", "c"], "").content };
        write(
            &mut store,
            &path,
            vec![
                ("one", turn(&["a"], "1")),
                ("one", turn(&["a", "b"], "2")),
                ("one", turn(&["a", "b"], "again")),
                ("one", turn(&[&"much longer, but in one message".repeat(5)], "3")),
                ("one", failed),
                ("one", Row { content: calls, ..row() }),
                ("-", turn(&["a", "b", "c", "d"], "of no conversation")),
                ("not understood", row()),
                ("not stored", unstored),
                ("two \"quoted\"", other_model),
            ],
        );
        let mut of_model = Filter::default();
        of_model.names[By::Model].push("other".to_owned());
        let of_two = Filter { conversations: vec!["two \"quoted\"".to_owned(), "no".to_owned()], ..Filter::default() };
        let before = Filter { to_ms: Some(ms_of_text("2026-01-01T00:00:00Z").expect("a time")), ..Filter::default() };
        let one = line("one", &["a", "b"], "again");
        let two = line("two \\\"quoted\\\"", &["a", "b", "c"], "by another");
        let two_alone = std::slice::from_ref(&two);
        for _ in 0..2 {
            assert_eq!(lines(&path, &Filter::default(), || ()), [one.clone(), two.clone()]);
            assert_eq!(lines(&path, &of_model, || ()), two_alone);
            assert_eq!(lines(&path, &of_two, || ()), two_alone);
            assert_eq!(lines(&path, &before, || ()), [""; 0]);
            store.pack_all().expect("packs");
        }
        // It goes on behind what is packed.
        write(&mut store, &path, vec![("one", turn(&["a", "b", "c"], "4")), ("three", turn(&["x"], "5"))]);
        let expected = [line("one", &["a", "b", "c"], "4"), two, line("three", &["x"], "5")];
        assert_eq!(lines(&path, &Filter::default(), || ()), expected);
    }

    #[test]
    fn requests_before_the_first_with_words_are_not_looked_through() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let silent = || Row { content: Content::default(), ..row() };
        let mut turns: Vec<_> = (0..20 * TURNS_AT_ONCE).map(|i| (["one", "silent"][i % 2], silent())).collect();
        turns.push(("one", turn(&["a"], "1")));
        write(&mut store, &path, turns);
        for _ in 0..2 {
            let mut parts = 0;
            assert_eq!(lines(&path, &Filter::default(), || parts += 1), [line("one", &["a"], "1")]);
            assert!(parts < 3, "{parts}");
            store.pack_all().expect("packs");
        }
        Connection::open(&path).and_then(|conn| conn.execute("DELETE FROM content", [])).expect("removed");
        assert_eq!(lines(&path, &Filter::default(), || ()), [""; 0]);
    }

    #[test]
    fn each_conversation_is_told_once_whatever_is_packed_and_written_meanwhile() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        let names: Vec<String> = (0..40).map(|i| format!("c{}", i % 13)).collect();
        let turns = |until: usize| names[..until].iter().map(|name| (name.as_str(), turn(&["a"], name))).collect();
        write(&mut store, &path, turns(40));
        store.pack_all().expect("packs");
        write(&mut store, &path, (13..30).map(|i| (["c3", "new"][i % 2], turn(&["a", "b"], "behind"))).collect());
        let mut parts = 0;
        let mut told = lines(&path, &Filter::default(), || {
            write(&mut store, &path, vec![("c1", turn(&["a", "b", "c"], "late")), ("late", turn(&["a"], "late"))]);
            if parts % 2 == 1 {
                store.pack_all().expect("packs");
            }
            parts += 1;
        });
        told.sort_unstable();
        let mut expected: Vec<String> =
            (0..13).filter(|i| *i != 3).map(|i| line(&format!("c{i}"), &["a"], &format!("c{i}"))).collect();
        expected.extend(["c3", "new"].map(|name| line(name, &["a", "b"], "behind")));
        expected.sort_unstable();
        assert_eq!(told, expected);
        assert!(parts > 3, "{parts}");
    }
}
