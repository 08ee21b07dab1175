//! All matching rows as CSV or as JSON lines, oldest first; or conversations ([`super::chats`]). Each export is a worker's job with a reading connection of its
//! own: it holds up neither other questions nor, by reading in short transactions, a checkpoint, however slowly its client
//! reads. It never has more than one page of rows in memory.

use std::sync::Arc;

use flate2::write::GzEncoder;
use rusqlite::params_from_iter;

use super::Reader;
use super::answers::RequestRow;
use super::chats::Chats;
use super::condition::Condition;
use super::csv;
use super::filter::Filter;
use super::local_stream::LocalStream;
use super::price::Prices;
use super::rows::REQUEST_COLUMNS;
use super::sources::Sources;
use super::turns::FirstRead;
use crate::client::Lend;
use crate::http::reply::Reply;
use crate::record::connections::ConnectionSlot;

/// Ids looked at in one transaction; milliseconds.
const PAGE_IDS: i64 = 1000;

/// The columns of CSV, each a field of the JSON. What came later stands last, so that whoever counts columns finds the
/// others: behind these costs, where there are prices, and conversations.
const CSV_HEADER: &str = "id,start_time,endpoint,model,requested_model,client,key,outcome,is_error,error_message,\
    http_status,was_streamed,finish_reason,input_tokens,output_tokens,total_tokens,cached_tokens,reasoning_tokens,\
    usage_source,duration_ms,time_to_first_token_ms,tokens_per_second,model_load_ms,attempt,request_id,\
    cache_write_tokens,draft_tokens,accepted_draft_tokens,prompt_tokens_per_second";
const CSV_HEADER_OF_COSTS: &str = ",cost,currency";
const CSV_HEADER_OF_CONVERSATIONS: &str = ",conversation,conversation_source,replay_of,prompt_bytes,prefix_of,\
    prefix_bytes,prefix_messages,prefix_break,prefix_lost_ms,queue_ms,\
    context_tokens,context_used_percent,prompt_cut,prompt_expected_tokens";

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, with a header line. No cell begins a formula.
    #[default]
    Csv,
    /// One JSON object a line, as in `/stats/requests`.
    Jsonl,
    /// One JSON object a line for each conversation, with all that was said: messages as Chat Completions have them.
    Chat,
}

impl Format {
    /// All of them, each with its name in queries, the name of a file, and the type of a reply.
    const TABLE: [(Format, &str, &str, &str); 3] = [
        (Format::Csv, "csv", "requests.csv", csv::CONTENT_TYPE),
        (Format::Jsonl, "jsonl", "requests.jsonl", "application/jsonl"),
        (Format::Chat, "chat", "conversations.jsonl", "application/jsonl"),
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Format> {
        Format::TABLE.iter().find(|(_, known, ..)| *known == name).map(|(format, ..)| *format)
    }
}

/// Answers with all that the filter lets pass, perhaps compressed.
pub(super) fn export(
    sources: &Sources,
    prices: Option<Arc<Prices>>,
    (filter, format): (&Filter, Format),
    gzip: Option<GzEncoder<Vec<u8>>>,
    lend: Lend,
) {
    let has_costs = prices.is_some();
    let slot: ConnectionSlot<Exported> = sources.recorder.slot();
    let open = || Exported::open(sources.open()?.with_prices(prices), filter, format);
    // Before it is opened here: see `with_file`.
    sources.recorder.find_database();
    if let Err(e) = slot.with(|held| open().map(|exported| *held = Some(exported))) {
        let message = format!("The database cannot be read now ({e}).");
        return lend.answer(&Reply::error(503, &message, "database_unavailable"));
    }
    let (.., file, content_type) = Format::TABLE[format as usize];
    let disposition = format!("attachment; filename=\"{file}\"");
    let fields: [(&str, &[u8]); 4] = [
        ("Content-Type", content_type.as_bytes()),
        ("Content-Disposition", disposition.as_bytes()),
        ("Cache-Control", b"no-store"),
        ("Vary", b"Accept-Encoding"),
    ];
    let Some(mut stream) = LocalStream::begin(lend, &fields, gzip) else { return };
    match send(&slot, format, has_costs, &mut stream) {
        Ok(()) => stream.end(),
        Err(e) => log::info!("an export ended early: {e}"),
    }
}

/// What is being exported.
#[derive(Debug)]
enum Exported {
    Rows(Pages),
    Chats(Chats),
}

impl Exported {
    fn open(reader: Reader, filter: &Filter, format: Format) -> rusqlite::Result<Exported> {
        match format {
            Format::Csv | Format::Jsonl => Pages::open(reader, filter).map(Exported::Rows),
            Format::Chat => Chats::open(reader, filter).map(Exported::Chats),
        }
    }
}

/// Sends all of it; else says why not.
fn send(
    slot: &ConnectionSlot<Exported>,
    format: Format,
    has_costs: bool,
    stream: &mut LocalStream,
) -> Result<(), String> {
    let header = csv_header(has_costs);
    let mut text = match format {
        Format::Csv => format!("{header}\r\n").into_bytes(),
        Format::Jsonl | Format::Chat => Vec::new(),
    };
    loop {
        let more = slot.with(|held| {
            let more = match held.as_mut().ok_or("the database was opened anew")? {
                Exported::Rows(pages) if format == Format::Csv => {
                    pages.next(|request| csv::write_line(&mut text, &header, request))
                }
                Exported::Rows(pages) => pages.next(|request| write_json_line(&mut text, request)),
                Exported::Chats(chats) => chats.next(&mut text),
            };
            more.map_err(|e| format!("the database cannot be read ({e})"))
        })?;
        // By itself only a write that waits ends when it is called off, and to a client that keeps up none waits.
        if let Some(why) = stream.client().called_off() {
            return Err(format!("it was called off ({why:?})"));
        }
        stream.push(&text);
        text.clear();
        stream.send().map_err(|e| format!("its client left ({e})"))?;
        if !more {
            return Ok(());
        }
    }
}

/// Matching rows in pages, each read in a transaction of its own. Rows that are written meanwhile are left out.
#[derive(Debug)]
pub struct Pages {
    reader: Reader,
    filter: Filter,
    condition: Condition,
    next_id: i64,
    last_id: i64,
}

impl Pages {
    /// From the first row that can match to the last.
    pub fn open(reader: Reader, filter: &Filter) -> rusqlite::Result<Pages> {
        let (first, last) = reader.at_once(|| reader.id_range(filter))?.unwrap_or((0, -1));
        let lowest: Option<i64> = reader.conn.query_row("SELECT min(id) FROM requests", [], |row| row.get(0))?;
        let (filter, condition) = (filter.clone(), Condition::of(filter));
        Ok(Pages { reader, filter, condition, next_id: first.max(lowest.unwrap_or(0)), last_id: last })
    }

    /// Reads the next page; false after the last one.
    pub fn next(&mut self, mut row: impl FnMut(&RequestRow)) -> rusqlite::Result<bool> {
        if self.next_id > self.last_id {
            return Ok(false);
        }
        let end = self.reader.at_once(|| match self.filter.conversations.is_empty() {
            true => self.page_of_rows(&mut row),
            false => self.page_of_turns(&mut row),
        })?;
        self.next_id = end.saturating_add(1);
        Ok(self.next_id <= self.last_id)
    }

    /// Returns the last id that was looked at.
    fn page_of_rows(&self, row: &mut impl FnMut(&RequestRow)) -> rusqlite::Result<i64> {
        let end = self.next_id.saturating_add(PAGE_IDS - 1).min(self.last_id);
        let query = format!(
            "SELECT {REQUEST_COLUMNS} FROM requests WHERE id BETWEEN ? AND ?{} ORDER BY id",
            self.condition.sql
        );
        let mut statement = self.reader.conn.prepare_cached(&query)?;
        let mut rows = statement.query(params_from_iter(self.condition.values(&[self.next_id, end])))?;
        while let Some(one) = rows.next()? {
            row(&self.reader.request_of(one)?);
        }
        Ok(end)
    }

    /// The same of conversations.
    fn page_of_turns(&self, row: &mut impl FnMut(&RequestRow)) -> rusqlite::Result<i64> {
        let (within, limit) = ((self.next_id, self.last_id), PAGE_IDS as u32);
        let page = self.reader.page_of_turns(&self.filter, within, FirstRead::Oldest, limit)?;
        page.requests.iter().for_each(row);
        Ok(page.next_after.unwrap_or(self.last_id))
    }
}

fn write_json_line(out: &mut Vec<u8>, request: &RequestRow) {
    serde_json::to_writer(&mut *out, request).expect("figures and strings are always JSON");
    out.push(b'\n');
}

fn csv_header(has_costs: bool) -> String {
    [CSV_HEADER, if has_costs { CSV_HEADER_OF_COSTS } else { "" }, CSV_HEADER_OF_CONVERSATIONS].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::store::{DbSync, Store};
    use crate::stats::Prices;
    use crate::testing::{Folder, row};

    #[test]
    fn every_field_of_a_request_has_its_column() {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        Store::open(&path, DbSync::Normal).expect("opens").write(&[row()]).expect("writes");
        let prices = Arc::new(Prices::parse(r#"{"currency": "EUR", "models": []}"#).expect("a list"));
        let reader = Reader::open(&path).expect("opens").with_prices(Some(prices));
        let request = serde_json::to_value(&reader.recent(&Filter::default(), 1).expect("answers").requests[0]);
        let request = request.expect("serialises");
        let header = csv_header(true);
        let mut columns: Vec<&str> = header.split(',').collect();
        columns.sort_unstable();
        assert_eq!(columns, request.as_object().expect("an object").keys().collect::<Vec<_>>());
    }
}
