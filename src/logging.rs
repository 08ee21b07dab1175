//! The log: one line a record on the standard error stream, with UTC time and level.
//!
//! Only this program's own records appear. The libraries below print headers, credentials among them, at their more
//! talkative levels; their records are dropped before they are even put into words. What comes from a peer (a path,
//! a model's name) cannot forge a line or steer a terminal: control characters are shown escaped. A standard error
//! stream that is closed or full loses lines, and nothing else.

use std::io::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{Config, ConfigBuilder, LevelPadding, WriteLogger, format_description};

/// Starts logging for the whole process. A second call changes nothing.
pub fn start(level: LevelFilter) {
    if log::set_boxed_logger(Box::new(own_records(level, io::stderr()))).is_ok() {
        log::set_max_level(level);
    }
}

fn own_records<W: Write + Send + 'static>(level: LevelFilter, output: W) -> OwnRecords<W> {
    let lines = WholeLines { line: Vec::new(), output };
    OwnRecords { inner: WriteLogger::new(level, format(), lines) }
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
struct OwnRecords<W: Write + Send + 'static> {
    inner: Box<WriteLogger<WholeLines<W>>>,
}

impl<W: Write + Send + 'static> Log for OwnRecords<W> {
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

    fn flush(&self) {
        self.inner.flush();
    }
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

/// Collects the pieces that simplelog writes and hands on whole lines: one system call a line, and lines of different
/// processes on one terminal do not mix.
struct WholeLines<W> {
    line: Vec<u8>,
    output: W,
}

impl<W: Write> Write for WholeLines<W> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(piece);
        if self.line.ends_with(b"\n") {
            // Dropped whether or not it could be written: a log that cannot be written must not fill the memory.
            let written = self.output.write_all(&self.line);
            self.line.clear();
            written?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use log::Level;

    use super::*;

    /// Remembers each write, and fails when told to.
    #[derive(Clone, Default)]
    struct Output {
        writes: Arc<Mutex<Vec<String>>>,
        broken: bool,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes.lock().expect("no panic under it").push(String::from_utf8_lossy(bytes).into_owned());
            if self.broken { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(bytes.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs `words` at INFO under `target` where `level` is the most that is logged, and returns what was written.
    fn check(level: LevelFilter, target: &str, words: &str, output: Output) -> Vec<String> {
        let logger = own_records(level, output.clone());
        logger.log(&Record::builder().level(Level::Info).target(target).args(format_args!("{words}")).build());
        output.writes.lock().expect("no panic under it").clone()
    }

    #[test]
    fn a_record_is_one_write_with_time_and_level() {
        let writes = check(LevelFilter::Info, "lms_metrics_proxy::front", "listening", Output::default());
        assert_eq!(writes.len(), 1);
        let (time, rest) = writes[0].split_at("2026-01-19T10:30:45.123Z".len());
        assert_eq!(rest, " [INFO ] listening\n");
        time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).expect("RFC 3339");
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
            assert_eq!(!check(level, target, "x", Output::default()).is_empty(), appears, "{level} {target}");
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let writes = check(LevelFilter::Info, "lms_metrics_proxy", "a\r\nb\u{1b}[2J\u{85}é", Output::default());
        assert!(writes[0].ends_with(" a\\r\\nb\\u{1b}[2J\\u{85}é\n"), "{writes:?}");
    }

    #[test]
    fn a_broken_output_loses_lines_and_keeps_none_in_memory() {
        let mut lines = WholeLines { line: Vec::new(), output: Output { broken: true, ..Output::default() } };
        for _ in 0..3 {
            assert!(lines.write_all(b"words\n").is_err());
            assert!(lines.line.is_empty());
        }
        check(LevelFilter::Info, "lms_metrics_proxy", "x", Output { broken: true, ..Output::default() });
    }
}
