//! How long statistics, recording and starting take on a small database and on a large one, in one run.
//!
//! ```text
//! cargo bench --bench statistics                               ten thousand rows beside a million
//! cargo bench --bench statistics -- 10000000 /some/folder      beside ten million, which take minutes to make
//! cargo bench --bench statistics -- 10000000 /some/folder conversation      only questions that are named so
//! cargo bench --bench statistics -- content=300000 10000000 /some/folder    the last 300,000 with what was said
//! ```
//!
//! Makes two databases, over the same year and twenty models, through the store that the proxy records with; one that
//! is there already is used again. Then asks every question of both in turn, and prints medians in milliseconds and
//! their ratio: asked again, as pages and scrapers do, and asked for the first time, with nothing kept from other
//! questions. At the end it records rows one by one, with and without another thread that asks without pause, at the
//! pace of the statistics thread. Rows that it records it takes out again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, mem, thread};

use rusqlite::Connection;

use lms_metrics_proxy::calendar::{DAY_MS, text_of_ms};
use lms_metrics_proxy::prompts::{ConversationSource, ToldConversation};
use lms_metrics_proxy::record::prompts::{PieceKey, PromptMemory};
use lms_metrics_proxy::record::row::{Content, Outcome, PromptShape, Row};
use lms_metrics_proxy::record::store::{DbSync, Store};
use lms_metrics_proxy::stats::exposition::Exposition;
use lms_metrics_proxy::stats::metrics;
use lms_metrics_proxy::stats::report::Report;
use lms_metrics_proxy::stats::statistics::rest;
use lms_metrics_proxy::stats::{Bucket, By, Filter, Reader, Zone};

// The file of the tests names modules of the crate.
use lms_metrics_proxy::{calendar, record};
use testing::Random;

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../src/testing.rs"]
mod testing;

const SMALL: u64 = 10_000;
/// 2025-01-01T00:00:00Z.
const START_MS: i64 = 1_735_689_600_000;
const YEAR_MS: i64 = 365 * DAY_MS;
/// "Now" is in the middle of an hour shortly before the year's end.
const NOW_MS: i64 = START_MS + YEAR_MS - 20 * 60_000;
const BATCH: u64 = 1000;
const TRIES: usize = 15;
/// A conversation that both databases have.
const AGENT: &str = "00000000-0000-4000-8000-000000000030";
/// As many rows as there are at most, while the keeper can pack.
const UNPACKED: u64 = 2048;
const CLIENTS: [&str; 3] = ["open-webui", "openai-python", "curl"];
const UNPACKED_ASKED: [&str; 6] =
    ["summary", "by-model", "over-time, a year of days, +02:00", "latency", "metrics", "conversations"];

fn main() {
    // Cargo's own arguments begin with a dash.
    let mut arguments = std::env::args().skip(1).filter(|text| !text.starts_with('-')).peekable();
    let said = arguments.next_if(|text| text.starts_with("content="));
    let said: u64 = said.map_or(0, |text| text["content=".len()..].parse().expect("a number of rows"));
    let rows = arguments.next().unwrap_or_else(|| "1000000".to_owned());
    // Else the name of other benchmarks, which cargo hands to all.
    let Ok(rows) = rows.parse() else { return };
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "target/statistics".to_owned()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let named = arguments.next().unwrap_or_default();
    let (small, large) = (make(&folder, SMALL, said), make(&folder, rows, said));

    println!("{:<42} {:>30} {:>30}", "", "asked again", "asked first");
    let columns = format!("{SMALL:>10} {rows:>10} {:>8}", "ratio");
    println!("{:<42} {columns} {columns}", "median, ms");
    let (one, other) = (Reader::open(&small).expect("opens"), Reader::open(&large).expect("opens"));
    for (name, ask) in questions().into_iter().filter(|(name, _)| name.contains(&named)) {
        tell(name, &ask, &one, &other);
    }
    if !named.is_empty() {
        return;
    }
    let unpacked = (Recorded::new(&small), Recorded::new(&large));
    for path in [&small, &large] {
        let rows = (0..UNPACKED).map(|i| in_conversation(row(&mut Random::new(i + 7), NOW_MS), i + 1));
        let rows: Vec<Row> = rows.collect();
        open(path).write(&rows).expect("writes");
    }
    for (name, ask) in questions().into_iter().filter(|(name, _)| UNPACKED_ASKED.contains(name)) {
        tell(&format!("{name}; {UNPACKED} unpacked"), &ask, &one, &other);
    }
    unpacked.0.take_out();
    unpacked.1.take_out();
    let mut opening = Pair::default();
    for _ in 0..TRIES {
        opening.add(false, timed(|| open(&small).row_count().is_ok() as usize));
        opening.add(true, timed(|| open(&large).row_count().is_ok() as usize));
    }
    println!("{:<42} {opening}", "opening the database to write");
    record(&small, &large);
    record_while_asked(&large);
}

/// Recording is short: a hundred rows a measurement.
fn record(small: &Path, large: &Path) {
    let (one, other) = (Recorded::new(small), Recorded::new(large));
    let (mut a, mut b) = (open(small), open(large));
    let mut recording = Pair::default();
    // Writing to a file's end meets the disk now and then: more tries than questions need.
    for turn in 0..10 * TRIES as u64 {
        recording.add(false, timed(|| write(&mut a, &mut Random::new(turn + 7), 100)));
        recording.add(true, timed(|| write(&mut b, &mut Random::new(turn + 7), 100)));
    }
    println!("{:<42} {recording}", "recording 100 rows, one by one");
    drop((a, b));
    one.take_out();
    other.take_out();
    // Nothing is left in the logs for whoever copies the files.
    for recorded in [one, other] {
        recorded.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpoints");
    }
}

/// Rows per second, one by one, in turns with and without a thread that asks through a connection of its own.
fn record_while_asked(path: &Path) {
    const ROWS: u64 = 3000;
    let recorded = Recorded::new(path);
    let mut store = open(path);
    let keeper = Connection::open(path).expect("opens");
    let (asked, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let (answers, rows_written) = (AtomicU64::new(0), AtomicU64::new(0));
    let (mut rates, mut random) = ([Vec::new(), Vec::new()], Random::new(7));
    thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let reader = Reader::open(path).expect("opens");
            let questions = questions();
            let often = ["summary", "over-time, a year of days, +02:00", "latency"];
            let mut rows_before = 0;
            let often: Vec<&Ask> =
                questions.iter().filter(|(name, _)| often.contains(name)).map(|(_, ask)| ask).collect();
            while !done.load(Ordering::Relaxed) {
                if !asked.load(Ordering::Relaxed) {
                    thread::park();
                }
                for ask in &often {
                    let began = Instant::now();
                    assert!(ask(&reader) > 0);
                    let rows = rows_written.load(Ordering::Relaxed);
                    thread::sleep(rest(began.elapsed(), mem::replace(&mut rows_before, rows) != rows));
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for turn in 0..6 * TRIES as u64 {
            let is_asked = turn % 2 == 1;
            asked.store(is_asked, Ordering::Relaxed);
            asker.thread().unpark();
            // The thread finishes what it is at, or begins.
            thread::sleep(Duration::from_millis(30));
            let ms = timed(|| {
                let one = |_| rows_written.fetch_add(write(&mut store, &mut random, 1) as u64, Ordering::Relaxed);
                (0..ROWS).map(one).count()
            });
            rates[usize::from(is_asked)].push(ROWS as f64 / ms * 1000.0);
            // So that no more rows are unpacked than would be. And as the proxy's keeper does, which no commit waits
            // for.
            recorded.take_out();
            keeper.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("checkpoints");
        }
        done.store(true, Ordering::Relaxed);
        asker.thread().unpark();
    });
    let [quiet, asked] = rates.map(median);
    let answers = answers.into_inner();
    println!(
        "rows per second, one by one: {quiet:.0}; asked for summary, days and latency without pause: {asked:.0}, \
         {:+.1} % ({answers} answers)",
        (asked / quiet - 1.0) * 100.0
    );
}

fn write(store: &mut Store, random: &mut Random, rows: u64) -> usize {
    (0..rows).map(|_| store.write(&[row(random, NOW_MS)]).expect("writes").len()).sum()
}

/// What a database was before rows were recorded to measure that.
struct Recorded {
    conn: Connection,
    last_id: i64,
}

impl Recorded {
    fn new(path: &Path) -> Recorded {
        let conn = Connection::open(path).expect("opens");
        let last_id = conn.query_row("SELECT max(id) FROM requests", [], |row| row.get(0)).expect("a query");
        Recorded { conn, last_id }
    }

    fn take_out(&self) {
        self.conn.execute("DELETE FROM requests WHERE id > ?1", [self.last_id]).expect("takes out");
    }
}

type Ask = Box<dyn Fn(&Reader) -> usize>;

/// One line: how long the question takes of each database, asked again and asked first.
fn tell(name: &str, ask: &Ask, small: &Reader, large: &Reader) {
    let (mut first, mut again) = (Pair::default(), Pair::default());
    for _ in 0..TRIES {
        for (reader, is_large) in [(small, false), (large, true)] {
            reader.forget();
            first.add(is_large, timed(|| ask(reader)));
            again.add(is_large, timed(|| ask(reader)));
        }
    }
    println!("{name:<42} {again} {first}");
}

/// Every question, answered as JSON; its length keeps the compiler honest.
fn questions() -> Vec<(&'static str, Ask)> {
    fn json(answer: &impl serde::Serialize) -> usize {
        serde_json::to_vec(answer).expect("serialises").len()
    }
    let all = Filter::default;
    // As `-7d` is: not on a whole minute.
    let days = |days: i64| Filter { from_ms: Some(NOW_MS - days * DAY_MS + 12_345), ..Filter::default() };
    let of_model = |name: &str| {
        let mut filter = Filter::default();
        filter.names[By::Model].push(name.to_owned());
        filter
    };
    let half = Filter { from_ms: Some(START_MS + 31 * DAY_MS + 5), to_ms: Some(NOW_MS), ..Filter::default() };
    let edges = half.clone();
    let over = |bucket: Bucket, minutes: i32, filter: Filter| -> Ask {
        Box::new(move |r| {
            json(&r.over_time(&filter, bucket, &Zone::Fixed(minutes), None, false, NOW_MS).expect("answers"))
        })
    };
    let percentiles = |bucket: Bucket, filter: Filter| -> Ask {
        Box::new(move |r| json(&r.over_time(&filter, bucket, &Zone::default(), None, true, NOW_MS).expect("answers")))
    };
    let by = |by: By| -> Ask { Box::new(move |r| json(&r.by(by, &Filter::default()).expect("answers"))) };
    let summary = |filter: Filter| -> Ask { Box::new(move |r| json(&r.summary(&filter).expect("answers"))) };
    let recent = |filter: Filter| -> Ask { Box::new(move |r| json(&r.recent(&filter, 100).expect("answers"))) };
    let latency = |filter: Filter| -> Ask { Box::new(move |r| json(&r.latency(&filter, By::Model).expect("answers"))) };
    let time = |filter: Filter| -> Ask { Box::new(move |r| json(&r.times(&filter, NOW_MS).expect("answers"))) };
    let conversations =
        |filter: Filter| -> Ask { Box::new(move |r| json(&r.conversations(&filter, None, 100).expect("answers"))) };
    let thread = |name: &'static str| -> Ask {
        Box::new(move |r| json(&r.conversation(name, &Filter::default(), None, 100).expect("answers")))
    };
    let of_conversation = |name: &str| Filter { conversations: vec![name.to_owned()], ..Filter::default() };
    let mut failed = of_model("model-19");
    failed.names[By::Client].push("curl".to_owned());
    failed.names[By::Outcome].push("upstream_error".to_owned());
    let by_30 = days(30);
    let middle = Filter { to_ms: Some(START_MS + YEAR_MS / 2), ..Filter::default() };
    vec![
        ("summary", summary(all())),
        ("summary, one model", summary(of_model("model-07"))),
        ("summary, -24h", summary(days(1))),
        ("summary, -7d", summary(days(7))),
        ("summary, -30d", summary(days(30))),
        ("summary, 11 months to the millisecond", summary(half)),
        ("by-model", by(By::Model)),
        ("by-endpoint", by(By::Endpoint)),
        ("by-client", by(By::Client)),
        ("by-key", by(By::Key)),
        ("by-outcome", by(By::Outcome)),
        ("by-model, -30d", Box::new(move |r| json(&r.by(By::Model, &by_30).expect("answers")))),
        ("over-time, a day of hours", over(Bucket::Hour, 120, days(1))),
        ("over-time, a year of days", over(Bucket::Day, 0, all())),
        ("over-time, a year of days, +02:00", over(Bucket::Day, 120, all())),
        ("over-time, a year of weeks, +02:00", over(Bucket::Week, 120, all())),
        ("over-time, a year of months, +02:00", over(Bucket::Month, 120, all())),
        ("over-time, 30 days, +05:30", over(Bucket::Day, 330, days(30))),
        ("over-time, a year of hours", over(Bucket::Hour, 0, all())),
        ("over-time, a year of days, percentiles", percentiles(Bucket::Day, all())),
        ("over-time, 30 days of hours, percentiles", percentiles(Bucket::Hour, days(30))),
        ("latency", latency(all())),
        ("latency, -7d", latency(days(7))),
        ("latency, -30d", latency(days(30))),
        ("time", time(all())),
        ("time, one model", time(of_model("model-07"))),
        ("time, -24h", time(days(1))),
        ("time, -30d", time(days(30))),
        ("time, 11 months to the millisecond", time(edges)),
        ("recent", recent(all())),
        ("recent, one model", recent(of_model("model-07"))),
        ("recent, a model used in spring", recent(of_model("model-in-spring"))),
        ("requests before mid-year", recent(middle.clone())),
        ("conversations", conversations(all())),
        ("conversations, -7d", conversations(days(7))),
        ("conversations, one model", conversations(of_model("model-07"))),
        ("conversations, a model used in spring", conversations(of_model("model-in-spring"))),
        ("conversations before mid-year", conversations(middle)),
        ("conversations of a client and a failure", conversations(failed)),
        ("one conversation, of 40", thread(AGENT)),
        ("one conversation, of each 97th request", thread("default")),
        ("recent, one conversation", recent(of_conversation(AGENT))),
        ("summary, one conversation", summary(of_conversation(AGENT))),
        ("summary, a conversation, -30d", summary(Filter { conversations: vec!["default".to_owned()], ..days(30) })),
        ("latency, one conversation", latency(of_conversation(AGENT))),
        (
            "report",
            Box::new(|r| {
                Report::read(r, &Filter::default(), &Zone::Fixed(120), NOW_MS).expect("answers").text(80).len()
            }),
        ),
        ("metrics", Box::new(|r| metrics::of_database(r, Exposition::Text, NOW_MS, 0.0).expect("answers").len())),
        (
            "search, a word that nobody said",
            Box::new(|r| json(&r.search(&Filter::default(), "xylophone", None, 100).expect("answers"))),
        ),
        ("one request", Box::new(|r| json(&r.request(5000).expect("answers")))),
    ]
}

/// Measurements of the small database and of the large one.
#[derive(Default)]
struct Pair([Vec<f64>; 2]);

impl Pair {
    fn add(&mut self, large: bool, ms: f64) {
        self.0[usize::from(large)].push(ms);
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [small, large] = self.0.clone().map(median);
        write!(f, "{small:>10.3} {large:>10.3} {:>8.2}", large / small)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn timed(ask: impl FnOnce() -> usize) -> f64 {
    let began = Instant::now();
    let answered = ask();
    assert!(answered > 0);
    began.elapsed().as_secs_f64() * 1000.0
}

fn open(path: &Path) -> Store {
    Store::open(path, DbSync::Normal).expect("opens")
}

/// A database of so many rows, evenly over the year, all packed; the last `said` with what was said.
fn make(folder: &Path, rows: u64, said: u64) -> PathBuf {
    let path = folder.join(if said == 0 { format!("{rows}.db") } else { format!("{rows}-{said}.db") });
    if path.exists() {
        // Should a former version have made it, it becomes one of this.
        drop(open(&path));
        return path;
    }
    let began = Instant::now();
    let unfinished = folder.join("unfinished.db");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("unfinished.db{suffix}")));
    }
    let mut store = open(&unfinished);
    let mut random = Random::new(rows);
    let mut said_by = Clients::new(&mut store);
    let mut written = 0;
    while written < rows {
        let batch = BATCH.min(rows - written);
        let start = |i: u64| START_MS + ((written + i) as i128 * i128::from(NOW_MS - START_MS) / rows as i128) as i64;
        let batch: Vec<Row> = (0..batch)
            .map(|i| (in_conversation(row(&mut random, start(i)), written + i + 1), written + i + 1))
            .map(|(row, id)| if id + said > rows { said_by.say(row, id) } else { row })
            .collect();
        written += store.write(&batch).expect("writes").len() as u64;
    }
    store.pack_all().expect("packs");
    let closing = Instant::now();
    store.close_hours(NOW_MS).expect("closes");
    eprintln!("hours closed in {:.1} s", closing.elapsed().as_secs_f64());
    drop(store);
    std::fs::rename(&unfinished, &path).expect("renames");
    eprintln!("{rows} rows made in {:.0} s: {}", began.elapsed().as_secs_f64(), path.display());
    path
}

/// The name of the conversation that the row of this id belongs to, and a number of its own.
///
/// Of ten rows six are those of three agents at a time, whose conversations have forty turns, and now and then four
/// hundred; two of a chat of five; one stands alone and one belongs to none. A program that never changes its session
/// has one in 97.
fn conversation(id: u64) -> Option<(String, u64)> {
    let agent = id / 200 * 3 + id % 3;
    Some(match id % 10 {
        _ if id.is_multiple_of(97) => ("default".to_owned(), 0),
        0..6 if id.is_multiple_of(3) && id / 2000 % 20 == 19 => {
            (format!("00000000-0000-4000-8001-{:012}", id / 2000), id / 2000)
        }
        0..6 => (format!("00000000-0000-4000-8000-{agent:012}"), agent),
        6 | 7 => (format!("chat-{:011}", id / 25), id / 25),
        8 => (format!("{id:016x}"), id),
        _ => return None,
    })
}

/// A conversation keeps to its client and model.
fn in_conversation(row: Row, id: u64) -> Row {
    let Some((name, number)) = conversation(id) else { return row };
    let mut random = Random::new(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let model = format!("model-{:02}", random.below(20).min(random.below(20)));
    let client = random.below(3) as usize;
    Row {
        model: row.model.filter(|model| model == "model-in-spring").or(Some(model)),
        client: Some(CLIENTS[client].to_owned()),
        key: (client == 1).then(|| "3f9a12cd".to_owned()),
        told_conversation: ToldConversation::Named { name, source: ConversationSource::Header },
        ..row
    }
}

/// Mostly small, sometimes large, as durations are: below 2 to the power of `from` at least, of `from` + `more` at
/// most.
fn skewed(random: &mut Random, from: u64, more: u64) -> u64 {
    let magnitude = from + random.below(more);
    random.below(1 << magnitude)
}

/// A chat as a household has them: twenty models, the first ones more often; three programs; few failures.
fn row(random: &mut Random, start_ms: i64) -> Row {
    let model = random.below(20).min(random.below(20));
    let outcome = match random.below(50) {
        0 => Outcome::ClientClosed,
        1 => Outcome::UpstreamError,
        _ => Outcome::Completed,
    };
    let known = outcome != Outcome::UpstreamError;
    let (input, output) = (20 + random.below(4000), 1 + random.below(1500));
    let spring = (START_MS + 100 * DAY_MS..START_MS + 101 * DAY_MS).contains(&start_ms);
    let name = if spring && random.below(5) == 0 { "model-in-spring".to_owned() } else { format!("model-{model:02}") };
    let client = random.below(3);
    Row {
        endpoint: if model == 19 { "/v1/embeddings" } else { "/v1/chat/completions" }.to_owned(),
        model: Some(name.clone()),
        requested_model: Some(name),
        start_ms,
        duration_ms: 200 + skewed(random, 4, 13),
        input_tokens: known.then_some(input),
        output_tokens: known.then_some(output),
        total_tokens: known.then_some(input + output),
        cached_tokens: (random.below(3) == 0).then(|| random.below(input)),
        cache_write_tokens: None,
        reasoning_tokens: None,
        draft_tokens: None,
        accepted_draft_tokens: None,
        request_id: Some(format!("chatcmpl-{:016x}", random.0)),
        outcome,
        error_message: (!known).then(|| "The model could not be loaded.".to_owned()),
        http_status: Some(if known { 200 } else { 500 }),
        was_streamed: random.below(3) > 0,
        time_to_first_token_ms: known.then(|| 30 + skewed(random, 3, 10)),
        tokens_per_second: known.then(|| 2.0 + random.below(20_000) as f64 / 100.0),
        prompt_tokens_per_second: None,
        finish_reason: known.then(|| "stop".to_owned()),
        usage_source: known.then_some("usage"),
        model_load_ms: None,
        client: Some(CLIENTS[client as usize].to_owned()),
        key: (client == 1).then(|| "3f9a12cd".to_owned()),
        attempt: None,
        told_conversation: Default::default(),
        replay_of: None,
        queue_ms: None,
        context_tokens: None,
        content: Content::default(),
    }
}

/// Who says what in a database with content: agents that send their system text, their tools and all that was said
/// before with every turn; people who chat; programs that ask once or embed.
struct Clients {
    /// Reads bodies as the proxy does.
    memory: PromptMemory,
    random: Random,
    /// Of each agent, and of the chat, the conversation's name and messages so far.
    threads: HashMap<u64, (String, String)>,
    systems: Vec<String>,
    tools: Vec<String>,
}

impl Clients {
    fn new(store: &mut Store) -> Clients {
        let key = PieceKey::new(&store.fingerprint_key().expect("a key"));
        let mut random = Random::new(11);
        let tool = |random: &mut Random, i: usize| {
            let words = words(random, 1500);
            format!(
                r#"{{"type":"function","function":{{"name":"tool_{i}","description":"{words}","parameters":{{"type":"object","properties":{{"path":{{"type":"string"}}}}}}}}}}"#
            )
        };
        let systems = CLIENTS.map(|client| format!("You are {client}. {}", words(&mut random, 12_000))).to_vec();
        let tools = CLIENTS.map(|_| (0..14).map(|i| tool(&mut random, i)).collect::<Vec<_>>().join(",")).to_vec();
        Clients { memory: PromptMemory::new(key), random, threads: HashMap::new(), systems, tools }
    }

    /// The row with what was said, and figures that go with it.
    fn say(&mut self, row: Row, id: u64) -> Row {
        let random = &mut self.random;
        let model = row.model.as_deref().unwrap_or_default();
        let client = CLIENTS.iter().position(|client| row.client.as_deref() == Some(client)).unwrap_or(0);
        let question = |random: &mut Random, from: u64, more: u64| {
            let bytes = skewed(random, from, more);
            said("user", &format!("About ticket-{id}: {}", words(random, 40 + bytes)))
        };
        let place = match id % 10 {
            _ if id.is_multiple_of(97) => None,
            0..6 => Some(id % 3),
            6 | 7 => Some(3),
            _ => None,
        };
        let name = conversation(id).map(|(name, _)| name).unwrap_or_default();
        let thread = place.map(|place| self.threads.entry(place).or_default());
        let body = match thread {
            None if id % 10 == 9 => format!(r#"{{"model":"{model}","input":"{}"}}"#, words(random, 200 + id % 1000)),
            None => format!(r#"{{"model":"{model}","messages":[{}]}}"#, question(random, 7, 5)),
            Some((known, messages)) => {
                let is_agent = place != Some(3);
                if *known != name {
                    let system = if is_agent { &self.systems[client] } else { "You are a helpful assistant." };
                    (*known, *messages) = (name, said("system", system));
                    *messages += &format!(",{}", question(random, 7, 4));
                } else if is_agent && !id.is_multiple_of(19) {
                    let bytes = 100 + skewed(random, 8, 6);
                    *messages += &format!(
                        r#",{{"role":"assistant","content":"{}","tool_calls":[{{"id":"call_{id}","type":"function","function":{{"name":"tool_{}","arguments":"{{\"path\":\"src/{}.rs\"}}"}}}}]}},{{"role":"tool","tool_call_id":"call_{id}","content":"{}"}}"#,
                        words(random, 120),
                        random.below(14),
                        random.below(500),
                        words(random, bytes),
                    );
                } else {
                    *messages += &format!(",{},{}", said("assistant", &words(random, 600)), question(random, 7, 4));
                }
                let tools = if is_agent { format!(r#""tools":[{}],"#, self.tools[client]) } else { String::new() };
                // Who begins with the time has its whole prompt read anew with each turn.
                let clock = if is_agent && id / 200 % 8 == 3 {
                    said("system", &format!("It is {}.", text_of_ms(row.start_ms))) + ","
                } else {
                    String::new()
                };
                format!(r#"{{"model":"{model}","stream":true,{tools}"messages":[{clock}{messages}]}}"#)
            }
        };
        let read = self.memory.read(body.as_bytes(), 16 * 1024 * 1024);
        let embeds = id % 10 == 9;
        let known = row.input_tokens.is_some();
        let input = body.len() as u64 / 4;
        let content = Content {
            prompt: read.prompt,
            output: (known && !embeds).then(|| {
                let bytes = skewed(random, 7, 5);
                words(random, 60 + bytes)
            }),
            reasoning: (known && client == 1 && !embeds).then(|| words(random, 500)),
            tool_calls: (known && place.is_some_and(|place| place < 3)).then(|| {
                let path = random.below(500);
                format!(r#"[{{"id":"call_{id}","type":"function","function":{{"name":"tool_{}","arguments":"{{\"path\":\"src/{path}.rs\"}}"}}}}]"#, path % 14)
            }),
            shape: read.outline.map(|outline| Box::new(PromptShape { outline, unkept: None, replaced: read.replaced })),
        };
        let told_conversation = match place {
            // That of a chat is found by its messages.
            Some(3) => ToldConversation::Untold,
            _ => row.told_conversation,
        };
        Row {
            endpoint: if embeds { "/v1/embeddings" } else { "/v1/chat/completions" }.to_owned(),
            input_tokens: known.then_some(input),
            output_tokens: row.output_tokens.filter(|_| !embeds),
            total_tokens: row.output_tokens.map(|output| input + output),
            cached_tokens: (known && place.is_some()).then_some(input * 9 / 10),
            told_conversation,
            content,
            ..row
        }
    }
}

fn said(role: &str, text: &str) -> String {
    format!(r#"{{"role":"{role}","content":"{text}"}}"#)
}

/// Words that make sense to nobody, of so many bytes at least.
fn words(random: &mut Random, bytes: u64) -> String {
    const WORDS: [&str; 32] = [
        "the ",
        "file ",
        "returns ",
        "a ",
        "value ",
        "that ",
        "is ",
        "not ",
        "checked; ",
        "line ",
        "of ",
        "function ",
        "let ",
        "error\\n",
        "where ",
        "it ",
        "reads ",
        "index ",
        "config ",
        "then ",
        "tests ",
        "fail ",
        "because ",
        "store ",
        "and ",
        "to ",
        "commit ",
        "server ",
        "request ",
        "in ",
        "for ",
        "model\\n",
    ];
    let mut text = String::with_capacity(bytes as usize + 16);
    while (text.len() as u64) < bytes {
        let mut chosen = random.below(u64::MAX);
        for _ in 0..12 {
            text.push_str(WORDS[chosen as usize % WORDS.len()]);
            chosen >>= 5;
        }
    }
    text
}
