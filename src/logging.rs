//! The log: one line a record on the standard error stream, with UTC time and level.
//!
//! Only this program's own records appear. The libraries below print headers, credentials among them, at their more
//! talkative levels; their records are dropped before they are even put into words. What comes from a peer (a path,
//! a model's name) cannot forge a line or steer a terminal: control characters are shown escaped. A standard error
//! stream that is closed or full loses lines, counted and told of, and nothing else: no thread ever waits for it, but
//! the one that writes (`spool`).

mod spool;

#[cfg(target_os = "linux")]
use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::Mutex;
use std::thread;

use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{Config, ConfigBuilder, LevelPadding, WriteLogger, format_description};

use crate::bell::lock;
use crate::calendar::{now_ms, text_of_ms};
use crate::limits::{LOG_DRAIN_TIME_MAX, LOG_STACK_BYTES};
use spool::{Scribe, Spool};

/// What waits for the standard error stream, of which a process has one.
static SPOOL: Spool = Spool::new();
/// Whether the thread runs that writes.
static SCRIBE_RUNS: Mutex<bool> = Mutex::new(false);

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(level: LevelFilter) -> io::Result<()> {
    start_scribe()?;
    if log::set_boxed_logger(Box::new(OwnRecords::new(level, &SPOOL))).is_ok() {
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
    let time = text_of_ms(now_ms());
    format!("{time} [WARN ] log lines lost here: {count}; the standard error stream did not take them\n").into_bytes()
}

/// `2026-01-19T10:30:45.123Z [INFO ] words`
fn format() -> Config {
    let mut config = ConfigBuilder::new();
    config
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_level_padding(LevelPadding::Right)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off);
    config.build()
}

/// Passes on what this program logs, as one line.
struct OwnRecords {
    /// Invariant: it hands lines to the spool alone, so nobody waits for long while it is locked.
    inner: Box<dyn Log>,
}

impl OwnRecords {
    fn new(level: LevelFilter, spool: &'static Spool) -> OwnRecords {
        OwnRecords { inner: WriteLogger::new(level, format(), WholeLines { line: Vec::new(), spool }) }
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
        let words = one_line(&record.args().to_string());
        let metadata = record.metadata().clone();
        self.inner.log(&Record::builder().metadata(metadata).args(format_args!("{words}")).build());
    }

    /// Lines are handed on whole; nothing is held back.
    fn flush(&self) {}
}

/// The same words with control characters escaped.
fn one_line(words: &str) -> String {
    let mut line = String::with_capacity(words.len());
    for c in words.chars() {
        if c.is_control() {
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
    use log::Level;

    use super::*;

    /// Logs `words` at INFO under `target` where `level` is the most that is logged, and returns what is to be written.
    fn check(level: LevelFilter, target: &str, words: &str) -> String {
        let spool: &Spool = Box::leak(Box::new(Spool::new()));
        let logger = OwnRecords::new(level, spool);
        logger.log(&Record::builder().level(Level::Info).target(target).args(format_args!("{words}")).build());
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
    fn control_characters_are_escaped() {
        let line = check(LevelFilter::Info, "lms_metrics_proxy", "a\r\nb\u{1b}[2J\u{85}é");
        assert!(line.ends_with(" a\\r\\nb\\u{1b}[2J\\u{85}é\n"), "{line:?}");
    }
}
