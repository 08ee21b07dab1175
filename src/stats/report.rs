//! `GET /stats`: everything that matters on one screen of a terminal, 80 columns wide or as many as it is asked for; or
//! the same as JSON.
//!
//! The last days are calendar days, today included, so that the report reads hours and days and no rows but the few
//! that it shows.

use std::array;
use std::fmt::Write;

use serde::Serialize;

use super::answers::{By, Electricity, Groups, RequestRow, Summary};
use super::columns::{WIDTH, amount, figure, plain, write_cells, write_figures, write_line, write_list, write_title};
use super::filter::{Filter, present_end_ms};
use super::reader::{AskError, Reader};
use super::zone::Zone;
use crate::calendar::{ms_of_text, text_of_ms, whole_seconds};

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
    /// What all can be priced as: the models of the list that are no patterns. Absent where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub priced_as: Vec<String>,
    #[serde(skip)]
    zone: Zone,
    #[serde(skip)]
    now_ms: i64,
}

impl Report {
    /// Of the requests that the filter lets pass. A range of time makes every line shorter, none longer.
    pub fn read(reader: &Reader, filter: &Filter, zone: &Zone, now_ms: i64) -> Result<Report, AskError> {
        // A row of a clock that was wrong is not of today until its day comes.
        let to = present_end_ms(now_ms);
        let since = |days: i64| {
            let from = zone.midnight_ms(now_ms, days - 1).max(0);
            let from_ms = Some(filter.from_ms.map_or(from, |asked| asked.max(from)));
            let to_ms = Some(filter.to_ms.map_or(to, |asked| asked.min(to)));
            reader.summary_with_power(&Filter { from_ms, to_ms, ..filter.clone() }, now_ms)
        };
        Ok(Report {
            time: whole_seconds(&text_of_ms(now_ms)),
            tz: zone.text(),
            today: since(1)?,
            last_7_days: since(7)?,
            last_30_days: since(30)?,
            all_time: reader.summary_with_power(filter, now_ms)?,
            models: reader.groups_with_power(reader.by(By::Model, filter)?, filter, now_ms)?,
            requests: reader.recent(filter, REQUESTS_SHOWN)?.requests,
            priced_as: reader.prices().map(|prices| prices.names()).unwrap_or_default(),
            zone: zone.clone(),
            now_ms,
        })
    }

    /// Aligned columns, of which no line has more than `width`. Names are cut and freed of what could steer a terminal.
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        let now = self.local(self.now_ms);
        write_title(&mut text, width, &format!("{} {} ({})", &now[..10], &now[11..16], self.zone_text()));
        self.write_totals(&mut text, width);
        self.write_models(&mut text, width);
        self.write_requests(&mut text, width);
        text
    }

    /// `UTC+02:00`, or `Europe/Berlin` where that is as short.
    fn zone_text(&self) -> String {
        match &self.zone {
            Zone::Fixed(_) => format!("UTC{}", self.tz),
            Zone::Named(_) => plain(&self.tz, 32),
        }
    }

    fn write_totals(&self, text: &mut String, width: usize) {
        let all = [("requests", 10), ("failed", 9), ("left", 9), ("tokens in", 13), ("tokens out", 13), ("tokens", 13)];
        let is_shown = |name: &str| width >= WIDTH || !matches!(name, "left" | "tokens");
        let (heads, widths): (Vec<&str>, Vec<usize>) = all.into_iter().filter(|(name, _)| is_shown(name)).unzip();
        write_line(text, 13, "", &widths, &heads);
        let lines = [
            ("today", &self.today),
            ("7 days", &self.last_7_days),
            ("30 days", &self.last_30_days),
            ("all time", &self.all_time),
        ];
        for (name, sums) in lines {
            let [requests, failed, input, output] = figures(sums);
            let figures = [requests, failed, sums.cancelled_requests, input, output, sums.total_tokens];
            let figures =
                figures.into_iter().zip(all).filter(|(_, (name, _))| is_shown(name)).map(|(figure, _)| figure);
            write_figures(text, 13, name, &widths, &figures.collect::<Vec<_>>());
        }
        let costs = |told: &dyn Fn(&Summary) -> Option<String>| -> Vec<String> {
            lines.iter().filter_map(|(name, sums)| Some(format!("{name} {}", told(sums)?))).collect()
        };
        let elsewhere = costs(&|sums| sums.cost.as_ref().map(|cost| amount(cost.cost, &cost.currency)));
        let electricity = costs(&|sums| {
            let Electricity { energy_wh, electricity_cost, electricity_currency, .. } = sums.electricity.as_ref()?;
            let Some(energy) = energy_wh else { return Some("unknown".to_owned()) };
            let energy =
                if *energy < 1000.0 { format!("{energy:.1} Wh") } else { format!("{:.1} kWh", energy / 1000.0) };
            let cost = electricity_cost.zip(electricity_currency.as_ref());
            Some(cost.map_or(energy.clone(), |(cost, currency)| format!("{energy} ({})", amount(cost, currency))))
        });
        let saved = costs(&|sums| {
            let saved = sums.electricity.as_ref()?.saved?;
            Some(amount(saved, &sums.cost.as_ref()?.currency))
        });
        let words = [("Elsewhere it would have cost:", elsewhere), ("Electricity:", electricity), ("Saved:", saved)];
        for (words, costs) in words.iter().filter(|(_, costs)| !costs.is_empty()) {
            text.push('\n');
            write_list(text, width, words, costs);
        }
    }

    fn write_models(&self, text: &mut String, width: usize) {
        let groups = &self.models.groups;
        if groups.is_empty() {
            text.push_str("\nNothing is recorded yet. Point a client at this port instead of LM Studio's.\n");
            return;
        }
        const WIDTHS: &[usize] = &[9, 8, 13, 13];
        let name_width = width - WIDTHS.iter().sum::<usize>();
        text.push('\n');
        write_line(text, name_width, "model, all time", WIDTHS, &["requests", "failed", "tokens in", "tokens out"]);
        let mut line = |name: &str, figures: [i64; 4]| {
            write_figures(text, name_width, name, WIDTHS, &figures);
        };
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

    fn write_requests(&self, text: &mut String, width: usize) {
        if self.requests.is_empty() {
            return;
        }
        let all = [("in", 8), ("out", 8), ("s", 8), ("tok/s", 8)];
        let is_shown = |name: &str| width >= WIDTH || name != "s";
        let (heads, widths): (Vec<&str>, Vec<usize>) = all.into_iter().filter(|(name, _)| is_shown(name)).unzip();
        let name_width = width - TIME_WIDTH - widths.iter().sum::<usize>() - ENDING_WIDTH;
        let year = &self.local(self.now_ms)[..4];
        text.push('\n');
        let mut line = |time: &str, name: &str, cells: &[&str], ending: &str| {
            let _ = write!(text, "{time:<TIME_WIDTH$}");
            write_cells(text, name_width, name, &widths, cells);
            let _ = writeln!(text, "  {ending}");
        };
        line("last", "model", &heads, "how");
        for request in &self.requests {
            let local = self.local(ms_of_text(&request.start_time).unwrap_or(0));
            // Of another year, which one counts more than the time of day.
            let time = match &local[..4] == year {
                true => format!("{} {}", &local[5..10], &local[11..16]),
                false => local[..10].to_owned(),
            };
            let known = |value: Option<i64>| value.map_or("-".to_owned(), |value| figure(value, 7));
            let speed = request.tokens_per_second.map_or("-".to_owned(), rate);
            let figures =
                [known(request.input_tokens), known(request.output_tokens), duration(request.duration_ms), speed];
            let cells = figures.iter().zip(all).filter(|(_, (name, _))| is_shown(name));
            let cells: Vec<&str> = cells.map(|(cell, _)| cell.as_str()).collect();
            line(&time, &request.model, &cells, ending(&request.outcome));
        }
    }

    /// A moment in the zone asked for, as `2026-01-19T10:30:45.123Z`.
    fn local(&self, ms: i64) -> String {
        text_of_ms(ms + self.zone.offset_ms(ms))
    }
}

fn figures(sums: &Summary) -> [i64; 4] {
    [sums.total_requests, sums.failed_requests, sums.total_input_tokens, sums.total_output_tokens]
}

/// Columns of a request's time, and of how it ended with the blanks before.
const TIME_WIDTH: usize = 12;
const ENDING_WIDTH: usize = 11;

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

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::super::answers::Cost;
    use super::super::columns::{WIDTH_MAX, WIDTH_MIN};
    use super::*;
    use crate::calendar::{DAY_MS, HOUR_MS};
    use crate::record::row::{Outcome, Row};
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, Random, random_row, row};

    fn report(rows: &[Row], now_ms: i64) -> Report {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store.write(rows).expect("writes");
        let reader = Reader::open(&path).expect("opens");
        Report::read(&reader, &Filter::default(), &Zone::Fixed(120), now_ms).expect("answers")
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
        let east = "\u{6a21}\u{578b}\u{1f600}".repeat(20);
        rows.push(Row { model: Some(east), start_ms: row().start_ms - 400 * DAY_MS, ..row() });
        let report = report(&rows, row().start_ms);
        for width in [WIDTH_MIN, WIDTH - 1, WIDTH, WIDTH + 1, WIDTH_MAX] {
            let text = report.text(width);
            for line in text.lines() {
                assert!(line.width() <= width, "{} wide: {line}", line.width());
            }
            assert!(text.contains("1,000,000M"), "{text}");
        }
    }

    #[test]
    fn what_it_cost_and_saved_is_told_of_each_span() {
        let spans = |each: &str| format!("today {each}, 7 days {each}, 30 days {each}, all time {each}\n");
        let mut report = report(&[row()], row().start_ms);
        assert!(!report.text(WIDTH_MAX).contains("Electricity"), "nobody said what it takes");
        for sums in [&mut report.today, &mut report.last_7_days, &mut report.last_30_days, &mut report.all_time] {
            sums.cost = Some(Cost { cost: Some(2.5), currency: "EUR".to_owned() });
            sums.electricity = Some(Electricity {
                energy_wh: Some(1234.5),
                electricity_cost: Some(Some(0.37)),
                electricity_currency: Some("EUR".to_owned()),
                saved: Some(Some(2.13)),
            });
        }
        let text = report.text(WIDTH_MAX);
        for line in [
            format!("Elsewhere it would have cost: {}", spans("2.50 EUR")),
            format!("Electricity: {}", spans("1.2 kWh (0.3700 EUR)")),
            format!("Saved: {}", spans("2.13 EUR")),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        let nothing = Electricity { energy_wh: None, electricity_cost: None, electricity_currency: None, saved: None };
        report.today.electricity = Some(nothing);
        assert!(report.text(WIDTH_MAX).contains("Electricity: today unknown, 7 days"), "{}", report.text(WIDTH_MAX));
    }

    #[test]
    fn nothing_that_a_client_sent_steers_the_terminal() {
        let text = report(&[Row { model: Some("\u{1b}[2Jmodel\u{9b}1m\r\n".to_owned()), ..row() }], 0).text(WIDTH);
        assert!(text.contains("?[2Jmodel?1m??"), "{text}");
    }

    #[test]
    fn columns_are_aligned_whatever_a_name_is_written_in() {
        let of = |model: &str| Row { model: Some(model.to_owned()), ..row() };
        let text =
            report(&[of("\u{6a21}\u{578b}-7b"), of("\u{1f600}"), of("e\u{301}t\u{e9}"), of("plain")], row().start_ms);
        let text = text.text(WIDTH);
        let (_, requests) = text.split_once("\nlast").expect("requests");
        let column = |line: &str| line.rfind("ok").map(|at| line[..at].width());
        let columns: Vec<_> = requests.lines().skip(1).map(column).collect();
        assert_eq!(columns, [Some(WIDTH - 9); 4], "{text}");
    }

    #[test]
    fn requests_of_other_years_tell_which() {
        let old = Row { start_ms: row().start_ms - 400 * DAY_MS, ..row() };
        let text = report(&[old, row()], row().start_ms).text(WIDTH);
        let times: Vec<&str> = text.lines().rev().take(2).map(|line| line[..TIME_WIDTH].trim_end()).collect();
        assert_eq!(times, ["2024-12-15", "01-19 12:30"], "{text}");
    }

    #[test]
    fn an_empty_database_says_what_to_do() {
        let text = report(&[], 0).text(WIDTH);
        assert!(text.contains("Nothing is recorded yet."), "{text}");
        assert!(!text.contains("model, all time"));
    }
}
