//! All matching rows as CSV or as JSON lines, oldest first. Each export is a worker's job with a reading connection of its
//! own: it holds up neither other questions nor, by reading in short transactions, a checkpoint, however slowly its client
//! reads. It never has more than one page of rows in memory.

use std::sync::Arc;

use rusqlite::params_from_iter;

use super::Reader;
use super::answers::RequestRow;
use super::filter::Filter;
use super::local_stream::LocalStream;
use super::rows::{Condition, REQUEST_COLUMNS};
use super::sources::Sources;
use crate::client::Lend;
use crate::http::reply::Reply;
use crate::record::connections::ConnectionSlot;

/// Ids looked at in one transaction; milliseconds.
const PAGE_IDS: i64 = 1000;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, with a header line. No cell begins a formula.
    Csv,
    /// One JSON object a line, as in `/stats/requests`.
    Jsonl,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 2] = [Format::Csv, Format::Jsonl];

    /// Its name in queries, and the end of a file's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Jsonl => "jsonl",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Jsonl => "application/jsonl",
        }
    }
}

/// What is exported from where.
pub struct Export {
    /// The database, and prices for a column of costs.
    pub sources: Arc<Sources>,
    /// Where its connection lies.
    pub pages: ConnectionSlot<Pages>,
    /// Which rows.
    pub filter: Filter,
    /// How.
    pub format: Format,
}

impl Export {
    /// Answers with all of it.
    pub fn run(self, lend: Lend) {
        let open = || Pages::open(self.sources.open()?, &self.filter);
        if let Err(e) = self.pages.with(|held| open().map(|pages| *held = Some(pages))) {
            let message = format!("The database cannot be read now ({e}).");
            return lend.answer(&Reply::error(503, &message, "database_unavailable"));
        }
        let name = format!("attachment; filename=\"requests.{}\"", self.format.as_str());
        let fields: [(&str, &[u8]); 3] = [
            ("Content-Type", self.format.content_type().as_bytes()),
            ("Content-Disposition", name.as_bytes()),
            ("Cache-Control", b"no-store"),
        ];
        let Some(mut stream) = LocalStream::begin(lend, &fields) else { return };
        match self.send(&mut stream) {
            Ok(()) => stream.end(),
            Err(e) => log::info!("an export ended early: {e}"),
        }
    }

    /// Sends all rows; else says why not.
    fn send(&self, stream: &mut LocalStream) -> Result<(), String> {
        let costs = if self.sources.prices.is_some() { &COST_COLUMNS[..] } else { &[] };
        let columns = || COLUMNS.iter().chain(costs);
        let mut text = Vec::new();
        if self.format == Format::Csv {
            write_csv_line(&mut text, columns().map(|(name, _)| Cell::Text(name)));
        }
        loop {
            let more = self.pages.with(|held| {
                let pages = held.as_mut().ok_or("the database was opened anew")?;
                let more = pages.next(|request| match self.format {
                    Format::Csv => write_csv_line(&mut text, columns().map(|(_, cell)| cell(request))),
                    Format::Jsonl => write_json_line(&mut text, request),
                });
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
}

/// Matching rows in pages, each read in a transaction of its own. Rows that are written meanwhile are left out.
#[derive(Debug)]
pub struct Pages {
    reader: Reader,
    condition: Condition,
    next_id: i64,
    last_id: i64,
}

impl Pages {
    /// From the first row that can match to the last.
    pub fn open(reader: Reader, filter: &Filter) -> rusqlite::Result<Pages> {
        let (first, last) = reader.id_range(filter)?.unwrap_or((0, -1));
        let lowest: Option<i64> = reader.conn.query_row("SELECT min(id) FROM requests", [], |row| row.get(0))?;
        let condition = Condition::of(filter);
        Ok(Pages { reader, condition, next_id: first.max(lowest.unwrap_or(0)), last_id: last })
    }

    /// Reads the next page; false after the last one.
    pub fn next(&mut self, mut row: impl FnMut(&RequestRow)) -> rusqlite::Result<bool> {
        if self.next_id > self.last_id {
            return Ok(false);
        }
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
        self.next_id = end.saturating_add(1);
        Ok(self.next_id <= self.last_id)
    }
}

/// What a cell holds.
enum Cell<'a> {
    Nothing,
    Number(String),
    Text(&'a str),
}

impl<T: ToString> From<Option<T>> for Cell<'_> {
    fn from(number: Option<T>) -> Self {
        number.map_or(Cell::Nothing, |number| Cell::Number(number.to_string()))
    }
}

/// A column of CSV: its name, and how its cells are made.
type CsvColumn = (&'static str, fn(&RequestRow) -> Cell);

const COLUMNS: [CsvColumn; 29] = [
    ("id", |r| Some(r.id).into()),
    ("start_time", |r| Cell::Text(&r.start_time)),
    ("endpoint", |r| Cell::Text(&r.endpoint)),
    ("model", |r| Cell::Text(&r.model)),
    ("requested_model", |r| text(&r.requested_model)),
    ("client", |r| text(&r.client)),
    ("key", |r| text(&r.key)),
    ("outcome", |r| Cell::Text(&r.outcome)),
    ("is_error", |r| flag(r.is_error)),
    ("error_message", |r| text(&r.error_message)),
    ("http_status", |r| r.http_status.into()),
    ("was_streamed", |r| flag(r.was_streamed)),
    ("finish_reason", |r| text(&r.finish_reason)),
    ("input_tokens", |r| r.input_tokens.into()),
    ("output_tokens", |r| r.output_tokens.into()),
    ("total_tokens", |r| r.total_tokens.into()),
    ("cached_tokens", |r| r.cached_tokens.into()),
    ("reasoning_tokens", |r| r.reasoning_tokens.into()),
    ("usage_source", |r| text(&r.usage_source)),
    ("duration_ms", |r| Some(r.duration_ms).into()),
    ("time_to_first_token_ms", |r| r.time_to_first_token_ms.into()),
    ("tokens_per_second", |r| r.tokens_per_second.into()),
    ("model_load_ms", |r| r.model_load_ms.into()),
    ("attempt", |r| r.attempt.into()),
    ("request_id", |r| text(&r.request_id)),
    // Columns that came later stand last, so that whoever counts columns finds the others.
    ("cache_write_tokens", |r| r.cache_write_tokens.into()),
    ("draft_tokens", |r| r.draft_tokens.into()),
    ("accepted_draft_tokens", |r| r.accepted_draft_tokens.into()),
    ("prompt_tokens_per_second", |r| r.prompt_tokens_per_second.into()),
];
/// Where there are prices.
const COST_COLUMNS: [CsvColumn; 2] = [
    ("cost", |r| r.cost.as_ref().and_then(|cost| cost.cost).into()),
    ("currency", |r| r.cost.as_ref().map_or(Cell::Nothing, |cost| Cell::Text(&cost.currency))),
];

fn text(text: &Option<String>) -> Cell<'_> {
    text.as_deref().map_or(Cell::Nothing, Cell::Text)
}

fn flag(flag: bool) -> Cell<'static> {
    Cell::Text(if flag { "true" } else { "false" })
}

fn write_json_line(out: &mut Vec<u8>, request: &RequestRow) {
    serde_json::to_writer(&mut *out, request).expect("figures and strings are always JSON");
    out.push(b'\n');
}

/// RFC 4180 §2: commas between cells, CRLF behind the line, quotes around what holds one of these, doubled inside.
///
/// A text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, "CSV Injection").
fn write_csv_line<'a>(out: &mut Vec<u8>, cells: impl Iterator<Item = Cell<'a>>) {
    for (at, cell) in cells.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match cell {
            Cell::Nothing => {}
            Cell::Number(number) => out.extend_from_slice(number.as_bytes()),
            Cell::Text(text) => {
                let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
                let quoted = text.contains(['"', ',', '\r', '\n']);
                if quoted {
                    out.push(b'"');
                }
                if formula {
                    out.push(b'\'');
                }
                if quoted {
                    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
                    out.push(b'"');
                } else {
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_needed_and_begin_no_formula() {
        let check = |text: &str, expected: &str| {
            let mut out = Vec::new();
            write_csv_line(&mut out, [Cell::Text(text), Cell::Nothing, Cell::Number("-5".to_owned())].into_iter());
            assert_eq!(String::from_utf8(out).expect("text"), format!("{expected},,-5\r\n"));
        };
        check("plain", "plain");
        check("a,b", "\"a,b\"");
        check("say \"hi\"", "\"say \"\"hi\"\"\"");
        check("two\r\nlines", "\"two\r\nlines\"");
        check("=1+1", "'=1+1");
        check("=\"a\",1", "\"'=\"\"a\"\",1\"");
        for first in ["+", "-", "@", "\t"] {
            check(&format!("{first}x"), &format!("'{first}x"));
        }
        check("\rx", "\"'\rx\"");
        check("", "");
    }
}
