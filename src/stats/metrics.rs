//! `GET /metrics`: figures for Prometheus, in either of its [formats](super::exposition).
//!
//! Counters of requests and tokens and the histograms are those of all time in the database, so they go on over a
//! restart and over the removal of old rows. What is counted in memory begins at zero with the process, as Prometheus
//! expects of counters.
//!
//! Labels are bounded: the first [`METRICS_MODELS_MAX`] models ever seen have series of their own, later ones are
//! `other`. The first, not the busiest, for a series must not change what it counts.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::OptionalExtension;

use super::answers::By;
use super::exposition::{Buckets, Exposition, FamilyKind, MetricPage};
use super::filter::Filter;
use super::power::Power;
use super::reader::{AskError, Reader};
use super::times::TimeParts;
use crate::calendar::{HOUR_MS, ms_of_text};
use crate::limits::{METRICS_CLIENTS_MAX, METRICS_ENDPOINTS_MAX, METRICS_MODELS_MAX};
use crate::order::sort_by;
use crate::packs::prefixes::PrefixSums;
use crate::packs::sums::{Figure, Sums};
use crate::packs::{Measured, SPAN_ALL, pack_id, visit_sums};
use crate::prompts::PrefixBreak;
use crate::record::row::Outcome;
use crate::record::schema::UNKNOWN_MODEL;
use crate::record::series::OTHER;
use crate::record::table::{ALL_FIGURES, text};
use crate::routes::Names;

/// Upper bounds of the buckets of durations, in milliseconds: those that OpenTelemetry's GenAI conventions advise for
/// `gen_ai.server.request.duration`, and on to ten minutes, for models are loaded and prompts read that long here.
const DURATION_BOUNDS_MS: [i64; 17] =
    [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 40_960, 81_920, 163_840, 327_680, 600_000];
/// The same for `gen_ai.server.time_to_first_token`: from 1 ms to 10 s as advised, without the close ones below 10 ms.
const FIRST_TOKEN_BOUNDS_MS: [i64; 19] =
    [1, 10, 20, 40, 60, 80, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000, 30_000, 60_000, 120_000, 600_000];
/// The same for tokens a second, in thousandths: from a large model that swaps to a small one on a fast card.
const SPEED_BOUNDS_THOUSANDTHS: [i64; 16] = [
    1000, 2500, 5000, 10_000, 15_000, 20_000, 30_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000,
    500_000, 1_000_000,
];

/// What the database tells: everything ever recorded. Of an empty one counters begin at `started_s`.
pub fn of_database(reader: &Reader, form: Exposition, now_ms: i64, started_s: f64) -> Result<String, AskError> {
    let counts = reader.at_once(|| Counts::read(reader, form, now_ms, started_s))?;
    let mut measured: BTreeMap<&str, Measured> = BTreeMap::new();
    let of_models = reader.measured(&Filter::default(), By::Model)?;
    for (model, of_model) in &of_models {
        measured.entry(counts.model_names.name(model)).or_default().add(of_model, 1);
    }
    let prefixes = reader.prefixes_by_reason()?;
    let prompts_cut = reader.at_once(|| reader.prompts_cut(&Filter::default()))?;
    let times = reader.times(&Filter::default(), now_ms)?;
    let mut page = MetricPage::new(form);
    counts.add_requests(&mut page);
    counts.add_clients(&mut page);
    if let Some(prices) = reader.prices() {
        counts.add_costs(&mut page, prices.currency());
    }
    add_prefixes(&mut page, &prefixes, counts.began_s);
    let help = "Prompts that upstream seems to have cut, of all time: a suspicion.";
    page.counter("lms_proxy_prompts_cut", help, prompts_cut, counts.began_s);
    add_times(&mut page, &times.total, reader.power.as_deref(), counts.began_s);
    counts.add_distributions(&mut page, &measured);
    Ok(page.into_text())
}

/// The first so many names, by when they were first seen; every other one is `other`.
#[derive(Default)]
struct MetricNames(HashSet<String>);

impl MetricNames {
    fn first<'a>(seen: impl Iterator<Item = (i64, &'a str)>, most: usize) -> MetricNames {
        let mut seen: Vec<(i64, &str)> = seen.collect();
        sort_by(&mut seen, Ord::cmp);
        let mut names = HashSet::new();
        for (_, name) in seen {
            if names.len() < most && !names.contains(name) {
                names.insert(name.to_owned());
            }
        }
        MetricNames(names)
    }

    fn name<'a>(&self, name: &'a str) -> &'a str {
        if self.0.contains(name) { name } else { OTHER }
    }
}

/// When the first of some requests began.
#[derive(Clone, Copy, Debug, Default)]
struct FirstRequest {
    /// Of those that are packed, the row with the lowest id.
    id: Option<i64>,
    /// Of those that are not, when.
    ms: Option<i64>,
}

impl FirstRequest {
    fn add(&mut self, other: FirstRequest) {
        let least = |one: Option<i64>, other: Option<i64>| one.into_iter().chain(other).min();
        *self = FirstRequest { id: least(self.id, other.id), ms: least(self.ms, other.ms) };
    }
}

/// What requests that share some names come to.
#[derive(Clone, Debug, Default)]
struct NamedSums {
    sums: Sums,
    first: FirstRequest,
    /// What those cost that have a price and tell tokens.
    cost: Option<f64>,
    /// When the first one began, in seconds since 1970.
    created_s: f64,
}

impl NamedSums {
    fn add(&mut self, other: &NamedSums) {
        self.sums.add(&other.sums, 1);
        self.first.add(other.first);
        self.cost = self.cost.map_or(other.cost, |cost| Some(cost + other.cost.unwrap_or(0.0)));
    }
}

/// What was ever recorded.
#[derive(Default)]
struct Counts {
    /// By model and endpoint,
    pairs: BTreeMap<(String, String), NamedSums>,
    /// and by outcome, too.
    outcomes: BTreeMap<(String, String, String), Sums>,
    models: BTreeMap<String, NamedSums>,
    clients: BTreeMap<String, NamedSums>,
    model_names: MetricNames,
    /// When the whole began, in seconds since 1970.
    began_s: f64,
}

/// A counter: its name, what it counts, and where that is in sums.
type CounterOfSums = (&'static str, &'static str, fn(&Sums) -> i64);

impl Counts {
    /// Inside the caller's transaction.
    fn read(reader: &Reader, form: Exposition, now_ms: i64, started_s: f64) -> Result<Counts, AskError> {
        let counted = counted(reader)?;
        let first =
            |by: By, most| MetricNames::first(counted.iter().map(|(names, at, _)| (*at, names[by].as_str())), most);
        let (model_names, endpoint_names, client_names) = (
            first(By::Model, METRICS_MODELS_MAX),
            first(By::Endpoint, METRICS_ENDPOINTS_MAX),
            first(By::Client, METRICS_CLIENTS_MAX),
        );
        let began = reader.true_hours(reader.packed()?, now_ms)?;
        let began_s = began.map_or(started_s, |(hour, _)| (hour * HOUR_MS / 1000) as f64);
        let mut counts = Counts { model_names, began_s, ..Counts::default() };
        for (names, _, one) in &counted {
            let model = counts.model_names.name(&names[By::Model]).to_owned();
            let endpoint = endpoint_names.name(&names[By::Endpoint]).to_owned();
            let client = client_names.name(&names[By::Client]).to_owned();
            counts.pairs.entry((model.clone(), endpoint.clone())).or_default().add(one);
            counts.models.entry(model.clone()).or_default().add(one);
            counts.clients.entry(client).or_default().add(one);
            let outcome = names[By::Outcome].clone();
            counts.outcomes.entry((model, endpoint, outcome)).or_default().add(&one.sums, 1);
        }
        let all = counts.pairs.values_mut().chain(counts.models.values_mut()).chain(counts.clients.values_mut());
        for one in all {
            one.created_s = began_s;
            if form == Exposition::OpenMetrics {
                let packed_ms = one.first.id.map(|id| reader.start_of(id)).transpose()?.flatten();
                // Where the packed row was removed, what is known is when the whole began.
                let first_ms = if one.first.id.is_some() { packed_ms } else { one.first.ms };
                one.created_s = first_ms.map_or(began_s, |ms| ms as f64 / 1000.0);
            }
        }
        Ok(counts)
    }

    #[rustfmt::skip] // One metric, one line.
    fn add_requests(&self, page: &mut MetricPage) {
        let mut family = page.family(FamilyKind::Counter, "lms_proxy_requests", "Recorded requests by how they ended, of all time.");
        for ((model, endpoint), pair) in &self.pairs {
            // Each outcome is told from the start: what begins at one is no increase.
            for outcome in Outcome::all().map(Outcome::as_str) {
                let key = (model.clone(), endpoint.clone(), outcome.to_owned());
                let labels = [("model", model.as_str()), ("endpoint", endpoint), ("outcome", outcome)];
                family.count(&labels, self.outcomes.get(&key).map_or(0, |sums| sums.requests), pair.created_s);
            }
        }
        let families: [CounterOfSums; 5] = [
            ("lms_proxy_input_tokens", "Tokens of prompts as reported, of all time.", |sums| sums[Figure::Input].sum),
            ("lms_proxy_output_tokens", "Tokens of answers as reported, of all time.", |sums| sums[Figure::Output].sum),
            ("lms_proxy_cached_input_tokens", "Those of the prompts' tokens that came from a cache, of all time.", |sums| sums[Figure::Cached].sum),
            ("lms_proxy_cache_write_input_tokens", "Those of the prompts' tokens that were written to a cache, of all time.", |sums| sums[Figure::CacheWrite].sum),
            ("lms_proxy_reasoning_output_tokens", "Those of the answers' tokens that were reasoning, of all time.", |sums| sums[Figure::Reasoning].sum),
        ];
        for (name, help, figure) in families {
            let mut family = page.family(FamilyKind::Counter, name, help);
            for ((model, endpoint, outcome), sums) in &self.outcomes {
                let labels = [("model", model.as_str()), ("endpoint", endpoint), ("outcome", outcome)];
                let created_s = self.pairs.get(&(model.clone(), endpoint.clone())).map_or(self.began_s, |pair| pair.created_s);
                family.count(&labels, figure(sums), created_s);
            }
        }
    }

    #[rustfmt::skip] // One metric, one line.
    fn add_clients(&self, page: &mut MetricPage) {
        let families: [CounterOfSums; 3] = [
            ("lms_proxy_client_requests", "Recorded requests by who asked, of all time.", |sums| sums.requests),
            ("lms_proxy_client_input_tokens", "Tokens of prompts by who asked, of all time.", |sums| sums[Figure::Input].sum),
            ("lms_proxy_client_output_tokens", "Tokens of answers by who asked, of all time.", |sums| sums[Figure::Output].sum),
        ];
        for (name, help, figure) in families {
            let mut family = page.family(FamilyKind::Counter, name, help);
            for (client, of_client) in &self.clients {
                family.count(&[("client", client)], figure(&of_client.sums), of_client.created_s);
            }
        }
    }

    /// What has no price, or told no tokens, has no series: nobody knows what it would have cost.
    fn add_costs(&self, page: &mut MetricPage, currency: &str) {
        let families = [
            ("lms_proxy_cost", "What requests would have cost elsewhere by model, of all time.", "model", &self.models),
            ("lms_proxy_client_cost", "What they would have cost by who asked, of all time.", "client", &self.clients),
        ];
        for (name, help, label, all) in families {
            let mut family = page.family(FamilyKind::Counter, name, help);
            for (value, one) in all {
                if let Some(cost) = one.cost {
                    family.count(&[(label, value), ("currency", currency)], cost, one.created_s);
                }
            }
        }
    }

    #[rustfmt::skip] // One metric, one line.
    fn add_distributions(&self, page: &mut MetricPage, measured: &BTreeMap<&str, Measured>) {
        let created_s = |model: &str| self.models.get(model).map_or(self.began_s, |one| one.created_s);
        let mut family = page.family(FamilyKind::Histogram, "lms_proxy_request_duration_seconds", "From the whole request to the end of its reply, of all time.");
        let buckets = Buckets { bounds: &DURATION_BOUNDS_MS, per_unit: 1000.0 };
        for (model, Measured { sums, latencies }) in measured {
            family.histogram(("model", model), &latencies.duration_ms, &buckets, seconds(sums.duration_ms), created_s(model));
        }
        let mut family = page.family(FamilyKind::Histogram, "lms_proxy_time_to_first_token_seconds", "From the whole request to the first content, of all time.");
        let buckets = Buckets { bounds: &FIRST_TOKEN_BOUNDS_MS, per_unit: 1000.0 };
        for (model, Measured { sums, latencies }) in measured {
            family.histogram(("model", model), &latencies.first_token_ms, &buckets, seconds(sums[Figure::FirstTokenMs].sum), created_s(model));
        }
        let mut family = page.family(FamilyKind::Histogram, "lms_proxy_output_tokens_per_second", "Requests by how fast their answers were made, of all time.");
        let buckets = Buckets { bounds: &SPEED_BOUNDS_THOUSANDTHS, per_unit: 1000.0 };
        for (model, Measured { sums, latencies }) in measured {
            family.histogram(("model", model), &latencies.speed, &buckets, sums.tokens_per_second, created_s(model));
        }
    }
}

/// Everything ever recorded by model, endpoint, client and outcome, each with its place in the order in which they were
/// first seen: from the pack of all time and the rows that are not packed yet.
fn counted(reader: &Reader) -> Result<Vec<(Names<String>, i64, NamedSums)>, AskError> {
    // By names, one behind the other.
    let mut all: HashMap<String, (Names<String>, i64, NamedSums)> = HashMap::new();
    let mut joined = String::new();
    let mut count = |[model, endpoint, client, _, outcome]: Names<&str>, at: i64, first: FirstRequest, sums: &Sums| {
        // As a model that nobody told; a label must not be empty.
        let client = if client.is_empty() { UNKNOWN_MODEL } else { client };
        joined.clear();
        joined.extend([model, "\0", endpoint, "\0", client, "\0", outcome]);
        if !all.contains_key(&joined) {
            let names = [model, endpoint, client, "", outcome].map(str::to_owned);
            all.insert(joined.clone(), (names, at, NamedSums::default()));
        }
        if let Some((_, first_at, one)) = all.get_mut(&joined) {
            *first_at = at.min(*first_at);
            one.sums.add(sums, 1);
            one.first.add(first);
        }
    };
    let series = reader.series()?;
    reader.pack("SELECT pack FROM packed_sums WHERE id = ?1", pack_id(SPAN_ALL, 0), |pack| {
        visit_sums(pack, |id, sums| {
            if let Some(series) = usize::try_from(id).ok().and_then(|at| series.get(at)?.as_ref()) {
                let first = FirstRequest { id: Some(sums.first_id), ms: None };
                count(series.each_ref().map(String::as_str), id, first, sums);
            }
        })
    })?;
    let needs = By::ALL.map(|name| name != By::Key);
    // Packed, they become the next series.
    let mut next = series.len() as i64;
    reader.visit_rows(reader.packed()?.ids_behind(), (None, None), needs, ALL_FIGURES, |row| {
        count(row.names(), next, FirstRequest { id: None, ms: ms_of_text(row.start_time()) }, &row.sums());
        next += 1;
        Ok(())
    })?;
    let mut all: Vec<_> = all.into_values().collect();
    let prices = reader.prices();
    for (names, _, one) in &mut all {
        let tells_tokens = one.sums[Figure::Input].rows + one.sums[Figure::Output].rows > 0;
        let price = prices.as_ref().and_then(|prices| prices.of(&names[By::Model]));
        one.cost = price.filter(|_| tells_tokens).map(|price| price.of_sums(&one.sums));
    }
    Ok(all)
}

/// `sums` are by the place of the reason. Each reason is told from the start: what begins at one is no increase.
#[rustfmt::skip] // One metric, one line.
fn add_prefixes(page: &mut MetricPage, sums: &BTreeMap<u8, PrefixSums>, began_s: f64) {
    let mut all = PrefixSums::default();
    sums.values().for_each(|sums| all.add(sums, 1));
    page.counter("lms_proxy_prompt_bytes", "Bytes of prompts as templates render them, of all time.", all.prompt_bytes, began_s);
    page.counter("lms_proxy_prompt_shared_bytes", "Those of them that an earlier prompt of the model began with, of all time.", all.shared_bytes, began_s);
    let of = |reason: PrefixBreak| sums.get(&(reason as u8)).copied().unwrap_or_default();
    let mut family = page.family(FamilyKind::Counter, "lms_proxy_prompt_breaks", "Prompts by why they do not go on where an earlier one ended, or that they do, of all time.");
    for reason in PrefixBreak::all() {
        family.count(&[("reason", reason.as_str())], of(reason).requests, began_s);
    }
    let mut family = page.family(FamilyKind::Counter, "lms_proxy_prompt_lost_seconds", "Estimate of what processing again took of prompts that could have been shared, of all time.");
    for reason in PrefixBreak::all() {
        family.count(&[("reason", reason.as_str())], seconds(of(reason).lost_ms), began_s);
    }
}

/// Of these each only grows. What a phase had of moments that several requests share does not: it becomes less when
/// another request ends that was under way, too.
#[rustfmt::skip] // One metric, one line.
fn add_times(page: &mut MetricPage, all: &TimeParts, power: Option<&Power>, began_s: f64) {
    let busy_us: i64 = [all.generating_ms, all.prompt_processing_ms, all.loading_ms, all.waiting_ms].iter().map(|part| part.0).sum();
    page.counter("lms_proxy_busy_seconds", "Time in which any request was under way, of all time.", busy_us as f64 / 1e6, began_s);
    page.counter("lms_proxy_queue_seconds", "What requests waited for a place, added up, of all time.", seconds(all.queue_ms), began_s);
    page.counter("lms_proxy_model_loads", "Requests for which a model was loaded, as far as upstream tells, of all time.", all.model_loads, began_s);
    page.counter("lms_proxy_model_load_seconds", "How long that took, of all time.", seconds(all.model_load_ms), began_s);
    let Some(power) = power else { return };
    page.counter("lms_proxy_energy_joules", "What that time took of electricity, of all time.", power.joules(busy_us), began_s);
    if let Some((cost, currency)) = power.cost(busy_us) {
        let mut family = page.family(FamilyKind::Counter, "lms_proxy_electricity_cost", "What that cost, of all time.");
        family.count(&[("currency", currency)], cost, began_s);
    }
}

impl Reader {
    /// When the row of this id began, if it is still there: milliseconds since 1970-01-01T00:00:00Z.
    fn start_of(&self, id: i64) -> rusqlite::Result<Option<i64>> {
        let mut query = self.conn.prepare_cached("SELECT start_time FROM requests WHERE id = ?1")?;
        query.query_row([id], |row| Ok(ms_of_text(text(row, 0)))).optional().map(Option::flatten)
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::Prices;
    use super::super::process::of_process;
    use super::super::sources::Sources;
    use super::*;
    use crate::exchange::pool::Pool;
    use crate::http::refusal::Refusal;
    use crate::record::recorder::Recorder;
    use crate::record::row::{Outcome, Row};
    use crate::record::store::{DbSync, Store};
    use crate::testing::{Folder, row};

    const NOW_MS: i64 = 1_768_818_645_678 + 3_600_000;
    const STARTED_S: f64 = 1_000_000_000.5;

    fn scrape(rows: &[Row]) -> String {
        scrape_as(rows, Exposition::Text, None)
    }

    /// Half of the rows are packed.
    fn scrape_as(rows: &[Row], form: Exposition, prices: Option<&str>) -> String {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let mut store = Store::open(&path, DbSync::Normal).expect("opens");
        store.write(&rows[..rows.len() / 2]).expect("writes");
        store.pack_all().expect("packs");
        store.write(&rows[rows.len() / 2..]).expect("writes");
        let sources = Sources {
            database: path.clone(),
            prices: None,
            power: None,
            counters: Arc::default(),
            recorder: Arc::new(Recorder::new(store)),
            workers: Pool::new(1, |_| unreachable!("nothing is asked")),
            in_flight: Arc::default(),
            models: Arc::default(),
            reach: Arc::default(),
            started_s: STARTED_S,
        };
        sources.reach.note(true, 1);
        sources.recorder.figures().written.store(7, Relaxed);
        (0..3).for_each(|_| sources.counters.note_refusal(Refusal::HostMissing));
        let prices = prices.map(|list| Arc::new(Prices::parse(list).expect("a list")));
        let reader = Reader::open(&path).expect("opens").with_prices(prices);
        let database = of_database(&reader, form, NOW_MS, STARTED_S).expect("answers");
        database + &of_process(&sources, form, 0, true) + form.end()
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
        let mut page = MetricPage::new(Exposition::Text);
        let sums = |requests| PrefixSums { requests, prompt_bytes: 1000, shared_bytes: 900, lost_ms: 1500 };
        let of = |reason: PrefixBreak| (reason as u8, sums(reason as i64));
        add_prefixes(&mut page, &[of(PrefixBreak::Continued), of(PrefixBreak::ToolsReordered)].into(), 0.0);
        let text = page.into_text();
        check(&text, "lms_proxy_prompt_bytes_total 2000");
        check(&text, "lms_proxy_prompt_shared_bytes_total 1800");
        check(&text, r#"lms_proxy_prompt_breaks_total{reason="continued"} 1"#);
        check(&text, r#"lms_proxy_prompt_breaks_total{reason="tools_reordered"} 4"#);
        check(&text, r#"lms_proxy_prompt_lost_seconds_total{reason="tools_reordered"} 1.5"#);
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
        bucket("600.0", 2);
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

    const LIST: &str = r#"{"currency": "USD", "models": [{"model": "llama*", "input": 1, "output": 10}]}"#;

    #[test]
    fn clients_are_counted_and_later_ones_are_other() {
        let named = |at: usize| Row { client: Some(format!("client-{at:03}")), ..row() };
        let mut rows: Vec<Row> = (0..METRICS_CLIENTS_MAX + 7).rev().map(named).collect();
        rows[0].client = None;
        let text = scrape_as(&rows, Exposition::Text, Some(LIST));
        check(&text, r#"lms_proxy_client_requests_total{client="unknown"} 1"#);
        check(&text, r#"lms_proxy_client_input_tokens_total{client="client-050"} 85"#);
        check(&text, r#"lms_proxy_client_output_tokens_total{client="other"} 2240"#);
        check(&text, r#"lms_proxy_client_cost_total{client="client-050",currency="USD"} 0.003285"#);
        assert!(!text.contains("client-006"), "{text}");
    }

    #[test]
    fn a_cost_that_nobody_knows_has_no_series() {
        let other = Row { model: Some("mine".to_owned()), client: Some("mine".to_owned()), ..row() };
        let untold = Row { input_tokens: None, output_tokens: None, total_tokens: None, ..row() };
        let silent = Row { client: Some("silent".to_owned()), ..untold };
        let text = scrape_as(&[row(), other, silent], Exposition::Text, Some(LIST));
        check(&text, r#"lms_proxy_cost_total{model="llama-3.2-1b-instruct",currency="USD"} 0.003285"#);
        let costs: Vec<&str> = text.lines().filter(|line| line.contains("_cost_total{")).collect();
        assert_eq!(costs.len(), 2, "{costs:?}");
        assert!(!scrape(&[row()]).contains("cost"), "without prices there are none");
    }

    #[test]
    fn each_outcome_of_what_is_known_is_told_from_the_start() {
        let text = scrape(&[row()]);
        for outcome in Outcome::all() {
            let count = u8::from(outcome == Outcome::Completed);
            let labels = r#"model="llama-3.2-1b-instruct",endpoint="/v1/chat/completions""#;
            check(&text, &format!(r#"lms_proxy_requests_total{{{labels},outcome="{}"}} {count}"#, outcome.as_str()));
        }
        for phase in ["queued", "connecting", "waiting", "generating"] {
            check(&text, &format!(r#"lms_proxy_exchanges{{phase="{phase}"}} 0"#));
        }
    }

    #[test]
    fn speeds_are_told_as_they_were() {
        let fast = |speed: f64| Row { tokens_per_second: Some(speed), ..row() };
        let text = scrape(&[fast(8.0), fast(45.5), fast(2000.0)]);
        let of = r#"{model="llama-3.2-1b-instruct","#;
        check(&text, &format!(r#"lms_proxy_output_tokens_per_second_bucket{of}le="10.0"}} 1"#));
        check(&text, &format!(r#"lms_proxy_output_tokens_per_second_bucket{of}le="1000.0"}} 2"#));
        check(&text, r#"lms_proxy_output_tokens_per_second_sum{model="llama-3.2-1b-instruct"} 2053.5"#);
    }

    #[test]
    fn open_metrics_tells_when_each_counter_began() {
        let late = Row { start_ms: row().start_ms + 5000, model: Some("late".to_owned()), ..row() };
        let (later, packed_s) =
            (Row { start_ms: late.start_ms + 1000, ..late.clone() }, row().start_ms as f64 / 1000.0);
        let text = scrape_as(&[row(), row(), late, later], Exposition::OpenMetrics, None);
        let labels = |model| format!(r#"{{model="{model}",endpoint="/v1/chat/completions",outcome="truncated"}}"#);
        check(&text, &format!("lms_proxy_requests_created{} {packed_s}", labels("llama-3.2-1b-instruct")));
        check(&text, &format!("lms_proxy_requests_created{} {}", labels("late"), packed_s + 5.0));
        check(&text, &format!(r#"lms_proxy_request_duration_seconds_created{{model="late"}} {}"#, packed_s + 5.0));
        check(&text, &format!("lms_proxy_prompt_bytes_created {}", row().start_ms / 3_600_000 * 3600));
        check(&text, &format!("lms_proxy_rows_written_created {STARTED_S}"));
        assert!(text.ends_with("\n# EOF\n"));
        // Of an empty database they begin with the process.
        let empty = scrape_as(&[], Exposition::OpenMetrics, None);
        check(&empty, &format!("lms_proxy_prompt_bytes_created {STARTED_S}"));
    }

    #[test]
    fn time_is_told_by_what_only_grows() {
        let one = Row { queue_ms: Some(200), model_load_ms: Some(300), duration_ms: 2000, ..row() };
        let text = scrape(&[one.clone(), one]);
        check(&text, "lms_proxy_busy_seconds_total 2");
        check(&text, "lms_proxy_queue_seconds_total 0.4");
        check(&text, "lms_proxy_model_loads_total 2");
        check(&text, "lms_proxy_model_load_seconds_total 0.6");
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let rows = [row(), Row { client: Some("a".to_owned()), ..row() }, row()];
        let samples = |form| -> Vec<String> {
            let text = scrape_as(&rows, form, Some(LIST));
            let names = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
            names.map(|(name, _)| name.to_owned()).filter(|name| !name.contains("_created")).collect()
        };
        assert_eq!(samples(Exposition::Text), samples(Exposition::OpenMetrics));
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
        let files = [include_str!("../../deploy/grafana-dashboard.json"), include_str!("../../deploy/alerts.yml")];
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
