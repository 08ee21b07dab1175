//! `GET /metrics`: the Prometheus text format, version 0.0.4.
//!
//! Counters of requests and tokens and the histograms are those of all time in the database, so they go on over a
//! restart and over the removal of old rows. What is counted in memory begins at zero with the process, as Prometheus
//! expects of counters.
//!
//! Labels are bounded: the first [`METRICS_MODELS_MAX`] models ever seen have series of their own, later ones are
//! `other`. The first, not the busiest, for a series must not change what it counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use super::answers::By;
use super::filter::Filter;
use super::reader::{AskError, Reader};
use super::sources::Sources;
use crate::limits::{METRICS_ENDPOINTS_MAX, METRICS_MODELS_MAX};
use crate::logging;
use crate::packs::histogram::Histogram;
use crate::packs::prefixes::PrefixSums;
use crate::packs::sums::{Figure, Sums};
use crate::packs::{Measured, SPAN_ALL, pack_id, visit_sums};
use crate::prompts::PrefixBreak;
use crate::record::series::OTHER;
use crate::record::table::ALL_FIGURES;
use crate::routes::Names;

/// The type of the reply, with the version that scrapers look for.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the buckets of durations, in milliseconds: those that OpenTelemetry's GenAI conventions advise for
/// `gen_ai.server.request.duration`, and on to ten minutes, for models are loaded and prompts read that long here.
const DURATION_BOUNDS_MS: [i64; 17] =
    [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 40_960, 81_920, 163_840, 327_680, 600_000];
/// The same for `gen_ai.server.time_to_first_token`: from 1 ms to 10 s as advised, without the close ones below 10 ms.
const FIRST_TOKEN_BOUNDS_MS: [i64; 19] =
    [1, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000, 30_000, 60_000, 120_000, 600_000];

/// What the database tells: everything ever recorded.
pub fn of_database(reader: &Reader) -> Result<String, AskError> {
    let (models, counts) = counts(reader)?;
    let mut measured: BTreeMap<String, Measured> = BTreeMap::new();
    for (model, of_model) in reader.measured(&Filter::default(), By::Model)? {
        measured.entry(models.name(model)).or_default().add(&of_model, 1);
    }
    let prefixes = reader.prefixes_by_reason()?;
    let prompts_cut = reader.at_once(|| reader.prompts_cut(&Filter::default()))?;
    let mut page = Page::default();
    page.add_requests(&counts);
    page.add_prefixes(&prefixes);
    page.counter(
        "lms_proxy_prompts_cut_total",
        "Prompts that upstream seems to have cut, of all time: a suspicion.",
        prompts_cut,
    );
    page.add_distributions(&measured);
    Ok(page.text)
}

/// What is known in memory alone. While the database cannot be read it is all there is to scrape: counters of all time are
/// left out, for at zero they would seem to have begun anew.
pub(super) fn of_process(sources: &Sources, listeners: usize, database_up: bool) -> String {
    let mut page = Page::default();
    page.add_process(sources, listeners, database_up);
    page.text
}

/// The first so many names, by when they were first seen; every other one is `other`.
struct MetricNames(HashSet<String>);

impl MetricNames {
    fn first(seen: impl Iterator<Item = (i64, String)>, most: usize) -> MetricNames {
        let mut seen: Vec<(i64, String)> = seen.collect();
        seen.sort_unstable();
        let mut names = HashSet::new();
        for (_, name) in seen {
            if names.len() < most {
                names.insert(name);
            }
        }
        MetricNames(names)
    }

    fn name(&self, name: String) -> String {
        if self.0.contains(&name) { name } else { OTHER.to_owned() }
    }
}

/// Model, endpoint, outcome.
type Labels = [String; 3];

/// What was ever recorded, from the pack of all time and the rows that are not packed yet.
fn counts(reader: &Reader) -> rusqlite::Result<(MetricNames, BTreeMap<Labels, Sums>)> {
    // By labels, one behind the other: with them, and what was seen first.
    let mut counted: HashMap<String, (i64, Labels, Sums)> = HashMap::new();
    let mut joined = String::new();
    let mut count = |seen: i64, [model, endpoint, _, _, outcome]: Names<&str>, sums: &Sums| {
        joined.clear();
        joined.extend([model, "\0", endpoint, "\0", outcome]);
        if let Some((first, _, all)) = counted.get_mut(&joined) {
            *first = seen.min(*first);
            all.add(sums, 1);
        } else {
            counted.insert(joined.clone(), (seen, [model, endpoint, outcome].map(str::to_owned), sums.clone()));
        }
    };
    reader.at_once(|| {
        let series = reader.series()?;
        reader.pack("SELECT pack FROM packed_sums WHERE id = ?1", pack_id(SPAN_ALL, 0), |pack| {
            visit_sums(pack, |id, sums| {
                if let Some(series) = usize::try_from(id).ok().and_then(|at| series.get(at)?.as_ref()) {
                    count(id, series.each_ref().map(String::as_str), sums);
                }
            })
        })?;
        let needs = By::ALL.map(|name| matches!(name, By::Model | By::Endpoint | By::Outcome));
        // Packed, they become the next series.
        let mut next = series.len() as i64;
        reader.visit_rows(reader.packed()?.ids_behind(), (None, None), needs, ALL_FIGURES, |row| {
            count(next, row.names(), &row.sums());
            next += 1;
            Ok(())
        })
    })?;
    let models = counted.values().map(|(first, [model, _, _], _)| (*first, model.clone()));
    let models = MetricNames::first(models, METRICS_MODELS_MAX);
    let endpoints = counted.values().map(|(first, [_, endpoint, _], _)| (*first, endpoint.clone()));
    let endpoints = MetricNames::first(endpoints, METRICS_ENDPOINTS_MAX);
    let mut told: BTreeMap<Labels, Sums> = BTreeMap::new();
    for (_, [model, endpoint, outcome], sums) in counted.into_values() {
        told.entry([models.name(model), endpoints.name(endpoint), outcome]).or_default().add(&sums, 1);
    }
    Ok((models, told))
}

/// A counter: its name, what it counts, and where that is in sums.
type CounterOfSums = (&'static str, &'static str, fn(&Sums) -> i64);

/// The text as it grows.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    #[rustfmt::skip] // One metric, one line.
    fn add_requests(&mut self, counts: &BTreeMap<Labels, Sums>) {
        let families: [CounterOfSums; 6] = [
            ("lms_proxy_requests_total", "Recorded requests by how they ended, of all time.", |sums| sums.requests),
            ("lms_proxy_input_tokens_total", "Tokens of prompts as reported, of all time.", |sums| sums[Figure::Input].sum),
            ("lms_proxy_output_tokens_total", "Tokens of answers as reported, of all time.", |sums| sums[Figure::Output].sum),
            ("lms_proxy_cached_input_tokens_total", "Those of the prompts' tokens that came from a cache, of all time.", |sums| sums[Figure::Cached].sum),
            ("lms_proxy_cache_write_input_tokens_total", "Those of the prompts' tokens that were written to a cache, of all time.", |sums| sums[Figure::CacheWrite].sum),
            ("lms_proxy_reasoning_output_tokens_total", "Those of the answers' tokens that were reasoning, of all time.", |sums| sums[Figure::Reasoning].sum),
        ];
        for (name, help, figure) in families {
            self.family(name, "counter", help);
            for ([model, endpoint, outcome], sums) in counts {
                let labels = [("model", model.as_str()), ("endpoint", endpoint), ("outcome", outcome)];
                self.sample(name, &labels, figure(sums));
            }
        }
    }

    /// `sums` are by the place of the reason. Each reason is told from the start: what begins at one is no increase.
    #[rustfmt::skip] // One metric, one line.
    fn add_prefixes(&mut self, sums: &BTreeMap<u8, PrefixSums>) {
        let mut all = PrefixSums::default();
        sums.values().for_each(|sums| all.add(sums, 1));
        self.counter("lms_proxy_prompt_bytes_total", "Bytes of prompts as templates render them, of all time.", all.prompt_bytes);
        self.counter("lms_proxy_prompt_shared_bytes_total", "Those of them that an earlier prompt of the model began with, of all time.", all.shared_bytes);
        let of = |reason: PrefixBreak| sums.get(&(reason as u8)).copied().unwrap_or_default();
        self.family("lms_proxy_prompt_breaks_total", "counter", "Prompts by why they do not go on where an earlier one ended, or that they do, of all time.");
        for reason in PrefixBreak::all() {
            self.sample("lms_proxy_prompt_breaks_total", &[("reason", reason.as_str())], of(reason).requests);
        }
        self.family("lms_proxy_prompt_lost_seconds_total", "counter", "Estimate of what processing again took of prompts that could have been shared, of all time.");
        for reason in PrefixBreak::all() {
            self.sample("lms_proxy_prompt_lost_seconds_total", &[("reason", reason.as_str())], seconds(of(reason).lost_ms));
        }
    }

    fn add_distributions(&mut self, measured: &BTreeMap<String, Measured>) {
        let duration = "lms_proxy_request_duration_seconds";
        self.family(duration, "histogram", "From the whole request to the end of its reply, of all time.");
        for (model, of_model) in measured {
            let sum_ms = of_model.sums.duration_ms;
            self.histogram(duration, model, &of_model.latencies.duration_ms, &DURATION_BOUNDS_MS, sum_ms);
        }
        let first_token = "lms_proxy_time_to_first_token_seconds";
        self.family(first_token, "histogram", "From the whole request to the first content, of all time.");
        for (model, of_model) in measured {
            let sum_ms = of_model.sums[Figure::FirstTokenMs].sum;
            self.histogram(first_token, model, &of_model.latencies.first_token_ms, &FIRST_TOKEN_BOUNDS_MS, sum_ms);
        }
    }

    #[rustfmt::skip] // One metric, one line.
    fn add_process(&mut self, sources: &Sources, listeners: usize, database_up: bool) {
        let (load, rows) = (sources.workers.load(), sources.recorder.figures());
        self.gauge("lms_proxy_database_up", "Whether the database could be read for this scrape; if not, its metrics are missing.", u8::from(database_up));
        if let Some((is_up, _)) = sources.reach.known() {
            self.gauge("lms_proxy_upstream_up", "Whether the last attempt to connect to LM Studio had success; missing before the first.", u8::from(is_up));
        }
        self.gauge("lms_proxy_exchanges_in_flight", "Exchanges begun and not ended.", load.in_flight);
        self.gauge("lms_proxy_exchanges_queued", "Requests that wait for a worker.", load.queued);
        self.gauge("lms_proxy_worker_threads", "Worker threads, busy or not.", load.workers);
        self.gauge("lms_proxy_connections", "Client connections that are open.", sources.counters.connections.load(Relaxed));
        self.gauge("lms_proxy_websockets", "WebSockets that are open.", sources.counters.sockets.load(Relaxed));
        self.gauge("lms_proxy_live_listeners", "Listeners of /stats/live.", listeners);
        self.gauge("lms_proxy_rows_waiting", "Rows in memory that the database does not take at present.", rows.waiting.load(Relaxed));
        self.counter("lms_proxy_rows_written_total", "Rows committed since the start.", rows.written.load(Relaxed));
        self.counter("lms_proxy_rows_dropped_total", "Rows lost since the start; any is an error.", rows.dropped.load(Relaxed));
        self.counter("lms_proxy_contents_dropped_total", "Rows kept without prompt and output since the start, for too much waited for the database.", rows.contents_dropped.load(Relaxed));
        self.counter("lms_proxy_log_lines_lost_total", "Lines of the log that the standard error stream did not take, since the start.", logging::lines_lost());
        self.gauge("lms_proxy_database_size_bytes", "The database file with its write-ahead log.", sources.database_bytes());
        self.family("lms_proxy_refusals_total", "counter", "Requests refused before they were forwarded, since the start.");
        for (reason, count) in sources.counters.refusals() {
            self.sample("lms_proxy_refusals_total", &[("reason", reason)], count);
        }
        self.gauge("process_start_time_seconds", "When the proxy was started, in seconds since 1970.", sources.started_s);
        self.family("lms_proxy_build_info", "gauge", "Always 1; the version is a label.");
        self.sample("lms_proxy_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push_str(if at == 0 { "{" } else { "," });
            let _ = write!(self.text, "{label}=\"");
            self.text.extend(text.chars().flat_map(escaped).flatten());
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    fn histogram(&mut self, name: &str, model: &str, counts: &Histogram, bounds_ms: &[i64], sum_ms: i64) {
        let total = counts.total();
        if total == 0 {
            return;
        }
        let bucket = format!("{name}_bucket");
        for bound_ms in bounds_ms {
            let le = seconds(*bound_ms).to_string();
            self.sample(&bucket, &[("model", model), ("le", &le)], counts.at_most(*bound_ms));
        }
        self.sample(&bucket, &[("model", model), ("le", "+Inf")], total);
        self.sample(&format!("{name}_sum"), &[("model", model)], seconds(sum_ms));
        self.sample(&format!("{name}_count"), &[("model", model)], total);
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// A character of a label's value: backslash, quote and line end are escaped.
fn escaped(c: char) -> [Option<char>; 2] {
    match c {
        '\\' => [Some('\\'), Some('\\')],
        '"' => [Some('\\'), Some('"')],
        '\n' => [Some('\\'), Some('n')],
        c => [None, Some(c)],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exchange::pool::Pool;
    use crate::http::refusal::Refusal;
    use crate::record::recorder::Recorder;
    use crate::record::row::{Outcome, Row};
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, row};

    fn scrape(rows: &[Row]) -> String {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store.write(rows).expect("writes");
        let sources = Sources {
            database: path.clone(),
            prices: None,
            counters: Arc::default(),
            recorder: Arc::new(Recorder::new(store)),
            workers: Pool::new(1, |_| unreachable!("nothing is asked")),
            in_flight: Arc::default(),
            models: Arc::default(),
            reach: Arc::default(),
            started_s: 0.0,
        };
        sources.recorder.figures().written.store(7, Relaxed);
        (0..3).for_each(|_| sources.counters.note_refusal(Refusal::HostMissing));
        of_database(&Reader::open(&path).expect("opens")).expect("answers") + &of_process(&sources, 0, true)
    }

    #[track_caller]
    fn check(text: &str, line: &str) {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }

    #[test]
    fn counters_are_kept_apart_by_model_endpoint_and_outcome() {
        let failed = Row { outcome: Outcome::Truncated, output_tokens: None, cache_write_tokens: Some(30), ..row() };
        let text = scrape(&[row(), row(), failed]);
        let labels = r#"{model="llama-3.2-1b-instruct",endpoint="/v1/chat/completions",outcome="#;
        check(&text, &format!(r#"lms_proxy_requests_total{labels}"completed"}} 2"#));
        check(&text, &format!(r#"lms_proxy_requests_total{labels}"truncated"}} 1"#));
        check(&text, &format!(r#"lms_proxy_input_tokens_total{labels}"completed"}} 170"#));
        check(&text, &format!(r#"lms_proxy_output_tokens_total{labels}"truncated"}} 0"#));
        check(&text, &format!(r#"lms_proxy_cache_write_input_tokens_total{labels}"truncated"}} 30"#));
        check(&text, r#"lms_proxy_refusals_total{reason="host_missing"} 3"#);
        check(&text, "lms_proxy_rows_written_total 7");
    }

    #[test]
    fn prompts_are_told_by_why_they_were_read_anew_and_no_reason_is_left_out() {
        let text = scrape(&[row()]);
        for reason in PrefixBreak::all().map(PrefixBreak::as_str) {
            check(&text, &format!(r#"lms_proxy_prompt_breaks_total{{reason="{reason}"}} 0"#));
            check(&text, &format!(r#"lms_proxy_prompt_lost_seconds_total{{reason="{reason}"}} 0"#));
        }
        check(&text, "lms_proxy_prompt_bytes_total 0");
        let mut page = Page::default();
        let sums = |requests| PrefixSums { requests, prompt_bytes: 1000, shared_bytes: 900, lost_ms: 1500 };
        let of = |reason: PrefixBreak| (reason as u8, sums(reason as i64));
        page.add_prefixes(&[of(PrefixBreak::Continued), of(PrefixBreak::ToolsReordered)].into());
        check(&page.text, "lms_proxy_prompt_bytes_total 2000");
        check(&page.text, "lms_proxy_prompt_shared_bytes_total 1800");
        check(&page.text, r#"lms_proxy_prompt_breaks_total{reason="continued"} 1"#);
        check(&page.text, r#"lms_proxy_prompt_breaks_total{reason="tools_reordered"} 4"#);
        check(&page.text, r#"lms_proxy_prompt_lost_seconds_total{reason="tools_reordered"} 1.5"#);
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_the_count() {
        let slow = Row { duration_ms: 3_600_000, ..row() };
        let text = scrape(&[row(), row(), slow]);
        let bucket = |le: &str, count: u32| {
            let name = "lms_proxy_request_duration_seconds_bucket";
            check(&text, &format!(r#"{name}{{model="llama-3.2-1b-instruct",le="{le}"}} {count}"#));
        };
        bucket("0.64", 0);
        bucket("1.28", 2);
        bucket("600", 2);
        bucket("+Inf", 3);
        check(&text, r#"lms_proxy_request_duration_seconds_sum{model="llama-3.2-1b-instruct"} 3601.7"#);
        check(&text, r#"lms_proxy_request_duration_seconds_count{model="llama-3.2-1b-instruct"} 3"#);
        assert!(!text.contains("first_token_seconds_bucket"), "none told it");
    }

    #[test]
    fn later_models_are_other_and_nothing_of_them_is_lost() {
        let named = |at: usize| Row { model: Some(format!("model-{at:03}")), ..row() };
        // The highest names come first: being first is what counts.
        let text = scrape(&(0..METRICS_MODELS_MAX + 20).rev().map(named).collect::<Vec<_>>());
        let labels =
            |model: &str| format!(r#"{{model="{model}",endpoint="/v1/chat/completions",outcome="completed"}}"#);
        check(&text, &format!("lms_proxy_requests_total{} 20", labels(OTHER)));
        check(&text, &format!("lms_proxy_requests_total{} 1", labels("model-020")));
        assert!(!text.contains("model-019"));
        check(&text, r#"lms_proxy_request_duration_seconds_count{model="other"} 20"#);
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let text = scrape(&[Row { model: Some("a\"b\\c\nd".to_owned()), ..row() }]);
        assert!(text.contains(r#"lms_proxy_requests_total{model="a\"b\\c\nd",endpoint"#), "{text}");
    }

    #[test]
    fn dashboard_and_alerts_ask_for_nothing_that_is_not_told() {
        let text = scrape(&[Row { time_to_first_token_ms: Some(40), ..row() }]);
        let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let files = [include_str!("../../deploy/grafana-dashboard.json"), include_str!("../../deploy/prometheus.yml")];
        for file in files {
            let mut asked = 0;
            for (at, _) in file.match_indices("lms_proxy_") {
                let rest = &file[at..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let name = &rest[..end];
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
                assert!(told.contains(&family.unwrap_or(name)), "{name} is not among {told:?}");
                asked += 1;
            }
            assert!(asked > 0);
        }
    }
}
