//! `GET /stats`: everything that matters on one screen of a terminal, 80 columns wide; or the same as JSON.
//!
//! The last days are calendar days, today included, so that the report reads hours and days and no rows but the few
//! that it shows.

use std::array;
use std::fmt::{Display, Write};

use serde::Serialize;

use super::answers::{By, Groups, RequestRow, Summary};
use super::filter::{Filter, Zone, present_end_ms};
use super::reader::{AskError, Reader};
use crate::calendar::{DAY_MS, ms_of_text, text_of_ms, whole_seconds};

/// Models that the text shows; the others are added up in one line.
const MODELS_SHOWN: usize = 8;
/// Requests at the end.
const REQUESTS_SHOWN: u32 = 8;

/// What the report says.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When it was made: RFC 3339, UTC.
    pub time: String,
    /// Whose midnights part days.
    pub tz: String,
    /// Since midnight.
    pub today: Summary,
    /// Today and the six days before.
    pub last_7_days: Summary,
    /// Today and the 29 days before.
    pub last_30_days: Summary,
    /// Everything ever recorded.
    pub all_time: Summary,
    /// By model, of all time, most requests first.
    #[serde(flatten)]
    pub models: Groups,
    /// The newest requests, newest first.
    pub requests: Vec<RequestRow>,
    #[serde(skip)]
    zone: Zone,
    #[serde(skip)]
    now_ms: i64,
}

impl Report {
    /// Of the requests that the filter lets pass. A range of time makes every line shorter, none longer.
    pub fn read(reader: &Reader, filter: &Filter, zone: Zone, now_ms: i64) -> Result<Report, AskError> {
        let midnight = now_ms - (now_ms + zone.ms()).rem_euclid(DAY_MS);
        // A row of a clock that was wrong is not of today until its day comes.
        let to = present_end_ms(now_ms);
        let since = |days: i64| {
            let from = (midnight - (days - 1) * DAY_MS).max(0);
            let from_ms = Some(filter.from_ms.map_or(from, |asked| asked.max(from)));
            let to_ms = Some(filter.to_ms.map_or(to, |asked| asked.min(to)));
            reader.summary(&Filter { from_ms, to_ms, ..filter.clone() })
        };
        Ok(Report {
            time: whole_seconds(&text_of_ms(now_ms)),
            tz: zone.text(),
            today: since(1)?,
            last_7_days: since(7)?,
            last_30_days: since(30)?,
            all_time: reader.summary(filter)?,
            models: reader.by(By::Model, filter)?,
            requests: reader.recent(filter, REQUESTS_SHOWN)?.requests,
            zone,
            now_ms,
        })
    }

    /// Aligned columns. Names are cut and freed of what could steer a terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let now = self.local(self.now_ms);
        let title = concat!("LMS Metrics Proxy ", env!("CARGO_PKG_VERSION"));
        let made = format!("{} {} (UTC{})", &now[..10], &now[11..16], self.tz);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{title}{made:>width$}\n", width = 80 - title.len());
        self.write_totals(&mut text);
        self.write_models(&mut text);
        self.write_requests(&mut text);
        text
    }

    fn write_totals(&self, text: &mut String) {
        const WIDTHS: &[usize] = &[10, 9, 9, 13, 13, 13];
        write_line(text, 13, "", WIDTHS, &["requests", "failed", "left", "tokens in", "tokens out", "tokens"]);
        let lines = [
            ("today", &self.today),
            ("7 days", &self.last_7_days),
            ("30 days", &self.last_30_days),
            ("all time", &self.all_time),
        ];
        for (name, sums) in lines {
            let [requests, failed, input, output] = figures(sums);
            let figures = [requests, failed, sums.cancelled_requests, input, output, sums.total_tokens];
            write_figures(text, 13, name, WIDTHS, &figures);
        }
        let costs = lines.iter().filter_map(|(name, sums)| {
            let cost = sums.cost.as_ref()?;
            Some(match cost.cost {
                Some(small) if small < 1.0 => format!("{name} {small:.4} {}", cost.currency),
                Some(value) => format!("{name} {value:.2} {}", cost.currency),
                None => format!("{name} unknown"),
            })
        });
        let costs: Vec<String> = costs.collect();
        if !costs.is_empty() {
            let _ = writeln!(text, "\nElsewhere it would have cost: {}", costs.join(", "));
        }
    }

    fn write_models(&self, text: &mut String) {
        let groups = &self.models.groups;
        if groups.is_empty() {
            text.push_str("\nNothing is recorded yet. Point a client at this port instead of LM Studio's.\n");
            return;
        }
        const WIDTHS: &[usize] = &[9, 8, 13, 13];
        text.push('\n');
        write_line(text, 37, "model, all time", WIDTHS, &["requests", "failed", "tokens in", "tokens out"]);
        let mut line = |name: &str, figures: [i64; 4]| write_figures(text, 37, &plain(name, 36), WIDTHS, &figures);
        let (shown, rest) = groups.split_at(groups.len().min(MODELS_SHOWN));
        for group in shown {
            line(group.name.as_deref().unwrap_or_default(), figures(&group.summary));
        }
        if !rest.is_empty() {
            let sum = rest
                .iter()
                .map(|group| figures(&group.summary))
                .fold([0; 4], |sum, more| array::from_fn(|at| sum[at] + more[at]));
            line(&format!("({} more)", rest.len()), sum);
        }
    }

    fn write_requests(&self, text: &mut String) {
        if self.requests.is_empty() {
            return;
        }
        let _ = writeln!(text, "\n{:<12}{:<25}{:>8}{:>8}{:>8}{:>8}  how", "last", "model", "in", "out", "s", "tok/s");
        for request in &self.requests {
            let local = self.local(ms_of_text(&request.start_time).unwrap_or(0));
            let known = |value: Option<i64>| value.map_or("-".to_owned(), |value| figure(value, 7));
            let speed = request.tokens_per_second.map_or("-".to_owned(), rate);
            let _ = writeln!(
                text,
                "{:<12}{:<25}{:>8}{:>8}{:>8}{speed:>8}  {}",
                format!("{} {}", &local[5..10], &local[11..16]),
                plain(&request.model, 24),
                known(request.input_tokens),
                known(request.output_tokens),
                duration(request.duration_ms),
                ending(&request.outcome)
            );
        }
    }

    /// A moment in the zone asked for, as `2026-01-19T10:30:45.123Z`.
    fn local(&self, ms: i64) -> String {
        text_of_ms(ms + self.zone.ms())
    }
}

fn figures(sums: &Summary) -> [i64; 4] {
    [sums.total_requests, sums.failed_requests, sums.total_input_tokens, sums.total_output_tokens]
}

/// A name at the left, and behind it cells at the right of their columns.
fn write_line(text: &mut String, name_width: usize, name: &str, widths: &[usize], cells: &[impl Display]) {
    let _ = write!(text, "{name:<name_width$}");
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(text, "{cell:>width$}");
    }
    text.push('\n');
}

/// The same of figures, each at least a blank apart from what is before it.
fn write_figures(text: &mut String, name_width: usize, name: &str, widths: &[usize], figures: &[i64]) {
    let cells: Vec<String> = figures.iter().zip(widths).map(|(value, width)| figure(*value, width - 1)).collect();
    write_line(text, name_width, name, widths, &cells);
}

/// With a comma between thousands, in at most so many characters: larger ones in thousands, millions, and so on.
pub(super) fn figure(value: i64, width: usize) -> String {
    let mut rest = value;
    for unit in ["", "k", "M", "G", "T", "P"] {
        let text = with_commas(rest) + unit;
        if text.len() <= width {
            return text;
        }
        rest /= 1000;
    }
    rest.to_string()
}

pub(super) fn with_commas(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds with a decimal; above an hour and a half without.
fn duration(ms: i64) -> String {
    if ms < 6_000_000 { format!("{:.1}", ms as f64 / 1000.0) } else { figure(ms / 1000, 7) }
}

/// With one decimal as long as that is of interest.
fn rate(value: f64) -> String {
    if value < 10_000.0 { format!("{value:.1}") } else { figure(value as i64, 7) }
}

/// A word of at most nine letters for how a request ended, so that the line stays within 80.
fn ending(outcome: &str) -> &str {
    match outcome {
        "completed" => "ok",
        "client_closed" => "left",
        "cancelled_here" => "cancelled",
        "truncated" => "truncated",
        "upstream_unreachable" => "no reply",
        "upstream_timeout" => "timeout",
        "shutdown" => "stopped",
        _ => "error",
    }
}

/// What came over the network, fit for a terminal: no control characters, cut to so many characters.
pub(super) fn plain(text: &str, width: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if clean.chars().count() <= width {
        return clean;
    }
    clean.chars().take(width - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::HOUR_MS;
    use crate::record::row::{Outcome, Row};
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, Random, random_row, row};

    fn report(rows: &[Row], now_ms: i64) -> Report {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store.write(rows).expect("writes");
        let reader = Reader::open(&path).expect("opens");
        Report::read(&reader, &Filter::default(), Zone { minutes: 120 }, now_ms).expect("answers")
    }

    #[test]
    fn days_begin_at_midnight_of_the_zone_asked_for() {
        // Half past ten in UTC, half past twelve there: midnight was 12.5 hours ago.
        let now_ms = row().start_ms;
        let ago = |hours: i64| Row { start_ms: now_ms - hours * HOUR_MS, ..row() };
        let report =
            report(&[ago(0), ago(12), ago(13), ago(13 + 24 * 6), ago(24 * 20), ago(24 * 400), ago(-24 * 400)], now_ms);
        let counts = [&report.today, &report.last_7_days, &report.last_30_days, &report.all_time];
        assert_eq!(counts.map(|summary| summary.total_requests), [2, 3, 5, 7]);
        assert_eq!((report.models.groups.len(), report.requests.len()), (1, 7));
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let mut random = Random::new(3);
        let mut rows: Vec<Row> = (0..50).map(|_| random_row(&mut random)).collect();
        let long = Some("a model with a name that goes on and on until nobody reads it any more".to_owned());
        let most = crate::limits::FIGURE_MAX;
        rows.push(Row { model: long, duration_ms: most, input_tokens: Some(most), output_tokens: Some(most), ..row() });
        rows.push(Row { outcome: Outcome::Truncated, tokens_per_second: Some(12_345.678), ..row() });
        let text = report(&rows, row().start_ms).text();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{} wide: {line}", line.chars().count());
        }
        assert!(text.contains("1,000,000M"), "{text}");
    }

    #[test]
    fn nothing_that_a_client_sent_steers_the_terminal() {
        let text = report(&[Row { model: Some("\u{1b}[2Jmodel\u{9b}1m\r\n".to_owned()), ..row() }], 0).text();
        assert!(text.contains("?[2Jmodel?1m??"), "{text}");
    }

    #[test]
    fn an_empty_database_says_what_to_do() {
        let text = report(&[], 0).text();
        assert!(text.contains("Nothing is recorded yet."), "{text}");
        assert!(!text.contains("model, all time"));
    }

    #[test]
    fn figures_fit_their_columns() {
        let check = |value: i64, width: usize, expected: &str| assert_eq!(figure(value, width), expected);
        check(0, 9, "0");
        check(999, 9, "999");
        check(1000, 9, "1,000");
        check(1_234_567, 9, "1,234,567");
        check(12_345_678, 9, "12,345k");
        check(i64::MAX, 9, "9,223P");
    }
}
