//! The log: one line a record on the standard error stream, with UTC time and level; for people, with colours where a
//! terminal shows them, or a JSON object a line for programs, with what a record tells beside its words.
//!
//! Only this program's own records appear. The libraries below print headers, credentials among them, at their more
//! talkative levels; their records are dropped before they are even put into words. What comes from a peer (a path,
//! a model's name) cannot forge a line or steer a terminal: what cannot be seen is shown escaped. A standard error
//! stream that is closed or full loses lines, counted and told of, and nothing else: no thread ever waits for it, but
//! the one that writes (`spool`).

mod spool;

#[cfg(target_os = "linux")]
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock};
use std::{env, thread};

use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{Config, ConfigBuilder, WriteLogger};

use crate::bell::lock;
use crate::calendar::{now_ms, text_of_ms};
use crate::limits::{LOG_DRAIN_TIME_MAX, LOG_STACK_BYTES};
use crate::looks::is_invisible;
use spool::{Scribe, Spool};

/// What waits for the standard error stream, of which a process has one.
static SPOOL: Spool = Spool::new();
/// Whether the thread runs that writes.
static SCRIBE_RUNS: Mutex<bool> = Mutex::new(false);
/// How lines look, once that is known.
static LOOK: OnceLock<LogLook> = OnceLock::new();

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLook {
    /// `2026-01-19T10:30:45.123Z [INFO ] words`
    Plain,
    /// The same in colours, for a terminal.
    Coloured,
    /// `{"time":…,"level":…,"target":…,"message":…}`, and the fields of the record.
    Json,
}

impl LogLook {
    /// For the standard error stream as it is: a terminal gets colours, unless `NO_COLOR` is set to anything
    /// (no-color.org) or it says that it knows none.
    pub fn for_people() -> LogLook {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        // A console of Windows shows the codes instead, unless it is one of the new ones.
        let knows_codes =
            if cfg!(windows) { set("WT_SESSION").is_some() } else { set("TERM").is_none_or(|t| t != "dumb") };
        match io::stderr().is_terminal() && set("NO_COLOR").is_none() && knows_codes {
            true => LogLook::Coloured,
            false => LogLook::Plain,
        }
    }
}

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(level: LevelFilter, look: LogLook) -> io::Result<()> {
    let look = *LOOK.get_or_init(|| look);
    start_scribe()?;
    if log::set_boxed_logger(Box::new(OwnRecords::new(level, look, &SPOOL))).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Says something that is no record of the log, as why the program does not start.
pub fn say(words: &str) {
    let line = format!("{}: {words}\n", env!("CARGO_PKG_NAME"));
    if start_scribe().is_ok() {
        SPOOL.push(line.as_bytes());
    } else {
        // Without a thread to be had, nothing else runs that could be held up.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// Gives what was logged a short time to be written. The last thing before the process ends.
pub fn finish() {
    SPOOL.drain(LOG_DRAIN_TIME_MAX);
}

/// Lines lost since the start, for the standard error stream did not take them.
pub fn lines_lost() -> u64 {
    SPOOL.lost_ever()
}

fn start_scribe() -> io::Result<()> {
    let mut runs = lock(&SCRIBE_RUNS);
    if !*runs {
        let builder = thread::Builder::new().name("log".into()).stack_size(LOG_STACK_BYTES);
        builder.spawn(|| Scribe::new(io::stderr(), lost_lines).run(&SPOOL))?;
        #[cfg(target_os = "linux")]
        if let Some(direct) = opened_once_more() {
            SPOOL.write_directly_to(direct);
        }
        *runs = true;
    }
    Ok(())
}

/// The standard error stream with a description of its own, which never waits: that of a pipe or a terminal. A file's
/// would have a place of its own to write at, too, and a socket cannot be opened.
#[cfg(target_os = "linux")]
fn opened_once_more() -> Option<File> {
    use nix::libc::{O_NOCTTY, O_NONBLOCK};
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

    const STREAM: &str = "/proc/self/fd/2";
    let kind = fs::metadata(STREAM).ok()?.file_type();
    let mut options = File::options();
    options.write(true).custom_flags(O_NONBLOCK | O_NOCTTY);
    (kind.is_fifo() || kind.is_char_device()).then(|| options.open(STREAM).ok()).flatten()
}

/// The line that tells of lost ones, like any other. It appears at every level, for so may they have.
fn lost_lines(count: u64) -> Vec<u8> {
    let words = format!("log lines lost here: {count}; the standard error stream did not take them");
    let look = LOOK.get().copied().unwrap_or(LogLook::Plain);
    let mut line = line(look, &Record::builder().level(Level::Warn).target(module_path!()).build(), &words);
    line.push('\n');
    line.into_bytes()
}

/// A record as a line, but for its end. `words`: what it says.
fn line(look: LogLook, record: &Record<'_>, words: &str) -> String {
    let (time, level) = (text_of_ms(now_ms()), record.level());
    match look {
        LogLook::Plain => format!("{time} [{level:<5}] {}", one_line(words)),
        LogLook::Coloured => {
            let colour = match level {
                Level::Error => "1;31",
                Level::Warn => "33",
                Level::Info => "32",
                Level::Debug => "36",
                Level::Trace => "2",
            };
            format!("\u{1b}[2m{time}\u{1b}[0m \u{1b}[{colour}m{level:<5}\u{1b}[0m {}", one_line(words))
        }
        LogLook::Json => {
            let mut fields = JsonFields(String::from("{"));
            fields.put("time", json(&time));
            fields.put("level", json(level.as_str()));
            fields.put("target", json(record.target()));
            fields.put("message", json(words));
            // It ends early only where a field's own code says so, and none does.
            let _ = record.key_values().visit(&mut fields);
            fields.0.push('}');
            fields.0
        }
    }
}

fn json(text: &str) -> String {
    serde_json::to_string(text).expect("a text is JSON")
}

/// An object that is being written.
struct JsonFields(String);

impl JsonFields {
    fn put(&mut self, name: &str, value: String) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0 += &json(name);
        self.0.push(':');
        self.0 += &value;
    }
}

impl<'kvs> VisitSource<'kvs> for JsonFields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut written = JsonValue(String::new());
        value.visit(&mut written)?;
        self.put(key.as_str(), written.0);
        Ok(())
    }
}

/// The value of one field: numbers as numbers, all else as text.
struct JsonValue(String);

impl<'v> VisitValue<'v> for JsonValue {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = json(&value.to_string());
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.to_string();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = serde_json::Value::from(value).to_string();
        Ok(())
    }
}

/// simplelog passes on what it is given: the line is whole before it takes its lock.
fn bare() -> Config {
    let mut config = ConfigBuilder::new();
    config
        .set_max_level(LevelFilter::Off)
        .set_time_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    config.build()
}

/// Passes on what this program logs, as one line.
struct OwnRecords {
    /// Invariant: it hands lines to the spool alone, so nobody waits for long while it is locked.
    inner: Box<dyn Log>,
    look: LogLook,
}

impl OwnRecords {
    fn new(level: LevelFilter, look: LogLook, spool: &'static Spool) -> OwnRecords {
        OwnRecords { inner: WriteLogger::new(level, bare(), WholeLines { line: Vec::new(), spool }), look }
    }
}

impl Log for OwnRecords {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Asked here and not of simplelog's own filter, which looks at a record only after others may have formatted
        // it.
        let target = metadata.target();
        let own = target.strip_prefix(env!("CARGO_PKG_NAME")).is_some_and(|r| r.is_empty() || r.starts_with("::"));
        own && self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Put into words before simplelog takes its lock: were the words to panic under the lock, every later record
        // would panic too.
        let line = line(self.look, record, &record.args().to_string());
        let metadata = record.metadata().clone();
        self.inner.log(&Record::builder().metadata(metadata).args(format_args!("{line}")).build());
    }

    /// Lines are handed on whole; nothing is held back.
    fn flush(&self) {}
}

/// The same words, with what cannot be seen escaped.
fn one_line(words: &str) -> String {
    let mut line = String::with_capacity(words.len());
    for c in words.chars() {
        if is_invisible(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// Collects the pieces that simplelog writes and hands on whole lines.
struct WholeLines {
    line: Vec<u8>,
    spool: &'static Spool,
}

impl Write for WholeLines {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(piece);
        if self.line.ends_with(b"\n") {
            self.spool.push(&self.line);
            self.line.clear();
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logs `words` at INFO under `target` where `level` is the most that is logged, and returns what is to be written.
    fn check(level: LevelFilter, target: &str, words: &str) -> String {
        logged(level, LogLook::Plain, target, words, &[])
    }

    fn logged(level: LevelFilter, look: LogLook, target: &str, words: &str, fields: &[(&str, Value<'_>)]) -> String {
        let spool: &Spool = Box::leak(Box::new(Spool::new()));
        let logger = OwnRecords::new(level, look, spool);
        let mut record = Record::builder();
        record.level(Level::Info).target(target).key_values(&fields);
        logger.log(&record.args(format_args!("{words}")).build());
        spool.text()
    }

    #[track_caller]
    fn check_line(line: &str, rest: &str) {
        let (time, words) = line.split_at("2026-01-19T10:30:45.123Z".len());
        assert_eq!(words, rest);
        time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).expect("RFC 3339");
    }

    #[test]
    fn a_record_is_one_line_with_time_and_level() {
        check_line(&check(LevelFilter::Info, "lms_metrics_proxy::front", "listening"), " [INFO ] listening\n");
    }

    #[test]
    fn the_line_that_tells_of_lost_ones_looks_like_any_other() {
        let words = " [WARN ] log lines lost here: 12; the standard error stream did not take them\n";
        check_line(&String::from_utf8(lost_lines(12)).expect("text"), words);
    }

    #[test]
    fn only_own_records_of_the_chosen_level_appear() {
        for (level, target, appears) in [
            (LevelFilter::Info, "lms_metrics_proxy", true),
            (LevelFilter::Warn, "lms_metrics_proxy", false),
            (LevelFilter::Off, "lms_metrics_proxy", false),
            (LevelFilter::Trace, "ureq::run", false),
            (LevelFilter::Trace, "ureq_proto::client", false),
            (LevelFilter::Trace, "rustls::client", false),
            (LevelFilter::Trace, "mio::poll", false),
            (LevelFilter::Trace, "lms_metrics_proxy_other", false),
            (LevelFilter::Trace, "", false),
        ] {
            assert_eq!(!check(level, target, "x").is_empty(), appears, "{level} {target}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        let line = check(LevelFilter::Info, "lms_metrics_proxy", "a\r\nb\u{1b}[2J\u{85}é\u{202e}c\u{200b}\u{e0041}");
        assert!(line.ends_with(" a\\r\\nb\\u{1b}[2J\\u{85}é\\u{202e}c\\u{200b}\\u{e0041}\n"), "{line:?}");
    }

    #[test]
    fn as_json_a_record_is_an_object_with_its_fields_and_what_a_peer_says_forges_none() {
        let words = "a\r\n\"b\u{1b}[2J\u{85}é";
        let fields =
            [("model", Value::from(words)), ("input_tokens", Value::from(7u64)), ("speed", Value::from(1.5f64))];
        let line = logged(LevelFilter::Info, LogLook::Json, "lms_metrics_proxy::front", words, &fields);
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        let mut object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let time = object["time"].take();
        time::OffsetDateTime::parse(time.as_str().expect("text"), &time::format_description::well_known::Rfc3339)
            .expect("RFC 3339");
        let expected = serde_json::json!({"time": null, "level": "INFO", "target": "lms_metrics_proxy::front",
            "message": words, "model": words, "input_tokens": 7, "speed": 1.5});
        assert_eq!(object, expected);
    }

    #[test]
    fn on_a_terminal_the_level_has_a_colour_and_words_bring_none() {
        let line = logged(LevelFilter::Info, LogLook::Coloured, "lms_metrics_proxy", "a\u{1b}[31mb", &[]);
        assert!(line.ends_with("Z\u{1b}[0m \u{1b}[32mINFO \u{1b}[0m a\\u{1b}[31mb\n"), "{line:?}");
    }
}
