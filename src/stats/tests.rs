//! Every figure of every answer, against plain SQL over the rows.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;

use super::answers::{average, known_mean, one_decimal, speed_mean};
use super::export::Pages;
use super::*;
use crate::calendar::{DAY_MS, HOUR_MS, text_of_ms};
use crate::limits::{PERCENTILE_POINTS_MAX, SEARCH_BYTES_MAX};
use crate::packs::sums::Sums;
use crate::packs::visit_sums;
use crate::record::row::{Content, Outcome, Row};
use crate::record::store::{DbSync, Store};
use crate::testing::{Folder, Random, random_row, row};

/// Model-2 and unknown models have no price.
const PRICES: &str = r#"{"currency": "EUR", "models": [
    {"model": "MODEL-0", "input": 3, "cached_input": 0.5, "cache_write": 3.75, "output": 12},
    {"model": "*-1", "input": 0.25, "output": 2}]}"#;

/// What a row costs by that list, in SQL.
const COST: &str = "CASE coalesce(input_tokens, output_tokens) IS NOT NULL OR NULL WHEN 1 THEN CASE model
    WHEN 'model-0' THEN (coalesce(input_tokens, 0) - coalesce(cached_tokens, 0) - coalesce(cache_write_tokens, 0)) * 3.0
        + coalesce(cached_tokens, 0) * 0.5 + coalesce(cache_write_tokens, 0) * 3.75
        + coalesce(output_tokens, 0) * 12.0
    WHEN 'model-1' THEN coalesce(input_tokens, 0) * 0.25 + coalesce(output_tokens, 0) * 2.0 END END / 1e6";

/// A store, a reader beside it, and a third connection for plain SQL over the rows.
struct Bench {
    store: Store,
    reader: Reader,
    plain: Connection,
    path: PathBuf,
    _folder: Folder,
}

impl Bench {
    fn new() -> Bench {
        let folder = Folder::new();
        let path = folder.join("metrics.db");
        let store = Store::open(&path, DbSync::Normal).expect("opens");
        Bench::on(store, path, folder)
    }

    fn on(store: Store, path: PathBuf, folder: Folder) -> Bench {
        let prices = Arc::new(Prices::parse(PRICES).expect("a list"));
        let reader = Reader::open(&path).expect("opens").with_prices(Some(prices));
        let plain = Connection::open(&path).expect("opens");
        let view = "CREATE TEMP VIEW r AS
            SELECT *, CAST(round(unixepoch(start_time, 'subsec') * 1000) AS INTEGER) AS ms FROM requests";
        plain.execute_batch(view).expect("made");
        Bench { store, reader, plain, path, _folder: folder }
    }

    fn write(&mut self, rows: &[Row]) {
        self.store.write(rows).expect("writes");
    }

    /// Has rows from this id on belong to some conversation, or to none: no matter what they say.
    fn converse(&self, first: i64, random: &mut Random) {
        let number = random.below(1000);
        let update = "UPDATE requests SET conversation = 'c' || ((id * 7919 + ?2) % 6), conversation_source = 'header',
                prompt_bytes = id * 100, prefix_of = id - 1, prefix_bytes = id * 90, prefix_break = 'continued'
             WHERE id >= ?1 AND (id * 31 + ?2) % 4 > 0";
        self.plain.execute(update, [first, number as i64]).expect("written");
    }

    fn pack(&mut self) {
        self.store.pack_all().expect("packs");
    }

    fn numbers(&self, query: &str) -> Vec<i64> {
        let mut statement = self.plain.prepare(query).expect(query);
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect(query)
    }

    fn number(&self, query: &str) -> i64 {
        self.plain.query_row(query, [], |row| row.get::<_, Option<i64>>(0)).expect(query).unwrap_or(0)
    }

    fn summary(&self, condition: &str) -> Summary {
        let query = format!(
            "SELECT count(*), sum(outcome = 'completed'), sum(is_error), sum(input_tokens), sum(output_tokens),
                sum(total_tokens), sum(duration_ms), sum(outcome IN ('client_closed', 'cancelled_here')), sum(cached_tokens),
                sum(reasoning_tokens),
                sum(total_tokens IS NULL AND endpoint NOT LIKE '%count_tokens'), sum({COST}), count({COST}),
                sum(cache_write_tokens), sum(time_to_first_token_ms), count(time_to_first_token_ms),
                coalesce(sum(tokens_per_second), 0.0), count(tokens_per_second)
             FROM r WHERE {condition}"
        );
        let read = |row: &rusqlite::Row| {
            let count = |column| row.get(column).map(Option::<i64>::unwrap_or_default);
            let cost: Option<f64> = row.get(11)?;
            let known = count(12)? > 0 || count(0)? == 0;
            Ok(Summary {
                total_requests: count(0)?,
                successful_requests: count(1)?,
                failed_requests: count(2)?,
                total_input_tokens: count(3)?,
                total_output_tokens: count(4)?,
                total_tokens: count(5)?,
                average_input_tokens: average(count(3)?, count(0)?),
                average_output_tokens: average(count(4)?, count(0)?),
                total_duration_ms: count(6)?,
                cancelled_requests: count(7)?,
                total_cached_tokens: count(8)?,
                total_cache_write_tokens: count(13)?,
                average_time_to_first_token_ms: known_mean(count(14)?, count(15)?),
                average_tokens_per_second: speed_mean(row.get(16)?, count(17)?),
                total_reasoning_tokens: count(9)?,
                requests_without_usage: count(10)?,
                prompts_cut: None,
                electricity: None,
                cost: Some(Cost { cost: known.then_some(cost.unwrap_or(0.0)), currency: "EUR".to_owned() }),
            })
        };
        self.plain.prepare_cached(&query).and_then(|mut query| query.query_row([], read)).expect("a query")
    }
}

/// The condition of a filter, from its fields.
fn condition_of(filter: &Filter) -> String {
    let mut parts = vec!["1".to_owned()];
    parts.extend(filter.from_ms.map(|from| format!("ms >= {from}")));
    parts.extend(filter.to_ms.map(|to| format!("ms < {to}")));
    for (by, names) in By::ALL.iter().zip(&filter.names).filter(|(_, names)| !names.is_empty()) {
        let any: Vec<String> = names.iter().map(|name| format!("coalesce({}, '') = '{name}'", by.name())).collect();
        parts.push(format!("({})", any.join(" OR ")));
    }
    if !filter.conversations.is_empty() {
        let any: Vec<String> = filter.conversations.iter().map(|name| format!("'{name}'")).collect();
        parts.push(format!("conversation IN ({})", any.join(", ")));
    }
    parts.join(" AND ")
}

fn random_filter(random: &mut Random) -> Filter {
    let mut moment = || {
        let ms = row().start_ms - 2 * DAY_MS + random.below(45 * DAY_MS as u64) as i64;
        match random.below(5) {
            0 => None,
            1 => Some(ms),
            2 => Some(ms - ms % HOUR_MS),
            3 => Some(ms - ms % 60_000),
            _ => Some(ms - ms % DAY_MS),
        }
    };
    let (from_ms, to_ms) = (moment(), moment());
    let mut some = |of: &[&str]| -> Vec<String> {
        let wanted = of.iter().filter(|_| random.below(4) == 0).map(|name| (*name).to_owned()).collect();
        if random.below(3) == 0 { wanted } else { Vec::new() }
    };
    let names = [
        some(&["model-0", "model-1", "unknown"]),
        some(&["/v1/chat/completions", "/v1/embeddings", "/nowhere"]),
        some(&["client-0", "client-1", ""]),
        some(&["key-1", ""]),
        some(&Outcome::all().map(Outcome::as_str)),
    ];
    let conversations = some(&["c1", "c2", "c5", "nowhere"]);
    Filter { from_ms, to_ms, names, conversations }
}

fn of_model(name: &str) -> Filter {
    let mut filter = Filter::default();
    filter.names[By::Model].push(name.to_owned());
    filter
}

/// Sums may be added up in another order: equal but for the last digits.
fn assert_same(answer: &Summary, plain: &Summary, about: &str) {
    let costs = |summary: &Summary| summary.cost.as_ref().expect("there are prices").cost;
    let near = match (costs(answer), costs(plain)) {
        (Some(a), Some(b)) => (a - b).abs() < 2e-6,
        (a, b) => a == b,
    };
    assert!(near, "{about}: {answer:?} {plain:?}");
    let rest = |summary: &Summary| Summary { cost: None, prompts_cut: None, ..summary.clone() };
    assert_eq!(rest(answer), rest(plain), "{about}");
}

fn check(bench: &Bench, filter: &Filter, random: &mut Random) {
    let condition = condition_of(filter);
    let about = format!("{filter:?}");
    assert_same(&bench.reader.summary(filter).expect("answers"), &bench.summary(&condition), &about);
    for by in By::ALL {
        check_by(bench, by, filter, &condition);
    }
    check_over_time(bench, filter, random);
    check_latency(bench, filter, &condition);
    check_rows(bench, filter, &condition, 1 + random.below(40) as u32);
    check_conversations(bench, filter, &condition, 1 + random.below(4) as u32);
}

fn check_by(bench: &Bench, by: By, filter: &Filter, condition: &str) {
    let column = by.name();
    let query = format!(
        "SELECT {column}, coalesce({column}, '') FROM r WHERE {condition} GROUP BY 1 ORDER BY count(*) DESC, 2"
    );
    let mut statement = bench.plain.prepare(&query).expect("a query");
    let names = statement.query_map([], |row| row.get::<_, Option<String>>(0));
    let names: Vec<Option<String>> = names.and_then(Iterator::collect).expect("a query");
    let answer = bench.reader.by(by, filter).expect("answers");
    assert_eq!(answer.groups.iter().map(|group| group.name.clone()).collect::<Vec<_>>(), names, "{by:?} {filter:?}");
    for group in answer.groups {
        let name = group.name.clone().unwrap_or_default();
        let plain = bench.summary(&format!("{condition} AND coalesce({column}, '') = '{name}'"));
        assert_same(&group.summary, &plain, &format!("{by:?} {name} {filter:?}"));
    }
}

fn check_over_time(bench: &Bench, filter: &Filter, random: &mut Random) {
    let bucket = Bucket::TABLE[random.below(4) as usize].0;
    let zone = match random.below(8) {
        at @ 0..6 => Zone::Fixed([0, 120, -300, 330, 840, -570][at as usize]),
        _ => zone::tests::berlin(),
    };
    let about = format!("{bucket:?} {zone:?} {filter:?}");
    let now_ms = row().start_ms + 50 * DAY_MS;
    let by = (random.below(3) == 0).then_some(By::Model);
    let points = bench.reader.over_time(filter, bucket, &zone, by, false, now_ms).expect("answers").points;
    // Of so many points as a question may have.
    let told = bench.reader.over_time(filter, bucket, &zone, by, true, now_ms).map(|told| told.points);
    assert_eq!(told.is_ok(), points.len() <= PERCENTILE_POINTS_MAX, "{about}");
    // The bucket that SQLite's calendar puts a moment in.
    let bucket_of = |ms: i64| {
        let seconds = (ms + zone.offset_ms(ms)).div_euclid(1000);
        let how = match bucket {
            Bucket::Hour => {
                return bench.plain.query_row("SELECT strftime('%FT%H', ?1, 'unixepoch')", [seconds], |row| row.get(0));
            }
            Bucket::Day => "'unixepoch'",
            Bucket::Week => "'unixepoch', 'weekday 0', '-6 days'",
            Bucket::Month => "'unixepoch', 'start of month'",
        };
        bench.plain.query_row(&format!("SELECT strftime('%FT00', ?1, {how})"), [seconds], |row| row.get::<_, String>(0))
    };
    for (at, point) in points.iter().enumerate() {
        // Points are many; those with rows, and some without, are enough.
        if point.summary.total_requests == 0 && at % 16 > 0 {
            continue;
        }
        let expected = bucket_of(point.start_ms).expect("a query");
        let offset =
            if zone.offset_ms(point.start_ms) == 0 { "Z".to_owned() } else { zone.offset_text(point.start_ms) };
        assert_eq!(point.start, format!("{expected}:00:00{offset}"), "{about}");
        let next = points.get(at + 1).map(|next| next.start_ms);
        if let Some(next) = next {
            assert_eq!(bucket_of(next - 1).expect("a query"), expected, "{about}");
        }
        let within = Filter {
            from_ms: filter.from_ms.max(Some(point.start_ms)),
            to_ms: [filter.to_ms, next].into_iter().flatten().min(),
            ..filter.clone()
        };
        assert_same(&point.summary, &bench.summary(&condition_of(&within)), &format!("{} {about}", point.start));
        if let Ok(told) = &told {
            let Distributions { duration_ms, time_to_first_token_ms, tokens_per_second } =
                bench.reader.latency(&within, By::Model).expect("answers").overall;
            let expected = Percentiles {
                p50_time_to_first_token_ms: time_to_first_token_ms.p50,
                p95_time_to_first_token_ms: time_to_first_token_ms.p95,
                p50_duration_ms: duration_ms.p50,
                p95_duration_ms: duration_ms.p95,
                p50_tokens_per_second: tokens_per_second.p50,
                p95_tokens_per_second: tokens_per_second.p95,
            };
            assert_eq!(told[at], Point { percentiles: Some(expected), ..point.clone() }, "{about}");
        }
        assert_eq!(point.groups, by.map(|by| bench.reader.by(by, &within).expect("answers")), "{about}");
    }
    let total: i64 = points.iter().map(|point| point.summary.total_requests).sum();
    assert_eq!(total, bench.summary(&condition_of(filter)).total_requests, "{about}");
}

fn check_latency(bench: &Bench, filter: &Filter, condition: &str) {
    for by in By::ALL {
        let latency = bench.reader.latency(filter, by).expect("answers");
        check_distributions(bench, &latency.overall, condition);
        let groups = latency.groups.groups;
        let requests: i64 = groups.iter().map(|group| group.distributions.duration_ms.count).sum();
        assert_eq!(requests, latency.overall.duration_ms.count);
        for LatencyGroup { name, distributions } in &groups {
            let (column, name) = (by.name(), name.as_deref().unwrap_or_default());
            let condition = format!("{condition} AND coalesce({column}, '') = '{name}'");
            check_distributions(bench, distributions, &condition);
        }
    }
}

fn check_distributions(bench: &Bench, told: &Distributions, condition: &str) {
    for (column, told) in [
        ("duration_ms", &told.duration_ms),
        ("time_to_first_token_ms", &told.time_to_first_token_ms),
        ("tokens_per_second", &told.tokens_per_second),
    ] {
        let about = format!("{column} {condition}");
        let query = format!("SELECT {column} FROM r WHERE {column} IS NOT NULL AND {condition} ORDER BY 1");
        let mut statement = bench.plain.prepare(&query).expect("a query");
        let values = statement.query_map([], |row| row.get::<_, f64>(0));
        let values: Vec<f64> = values.and_then(Iterator::collect).expect("a query");
        assert_eq!(told.count, values.len() as i64, "{about}");
        if values.is_empty() {
            assert_eq!(*told, Distribution::default(), "{about}");
            continue;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let told_mean = told.mean.expect("a mean");
        assert!((told_mean - one_decimal(mean)).abs() < 0.11, "{about}: mean {told_mean} of {mean}");
        for (percent, told) in [(50, told.p50), (90, told.p90), (95, told.p95), (99, told.p99)] {
            let exact = values[(values.len() * percent).div_ceil(100).max(1) - 1];
            let told = told.expect("a percentile");
            assert!((told - exact).abs() <= 0.05 * exact + 0.01, "{about}: p{percent} is {told} of {exact}");
        }
        // A row that was corrected after its hour was packed may have been the largest.
        let (told, exact) = (told.max.expect("a maximum"), values[values.len() - 1]);
        assert!(told >= exact - 0.01 && told <= exact * 1.081 + 0.01, "{about}: max is {told} of {exact}");
    }
}

fn check_rows(bench: &Bench, filter: &Filter, condition: &str, limit: u32) {
    let ids = bench.numbers(&format!("SELECT id FROM r WHERE {condition} ORDER BY id DESC"));
    let recent = bench.reader.recent(filter, limit).expect("answers").requests;
    let recent: Vec<i64> = recent.iter().map(|request| request.id).collect();
    // Of a conversation it looks at a bounded number of turns.
    let looks_at_all = filter.conversations.is_empty();
    let newest = &ids[..ids.len().min(if looks_at_all { limit as usize } else { recent.len() })];
    assert_eq!(recent, newest, "{filter:?}");
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = bench.reader.requests(filter, after, limit).expect("answers");
        assert!(page.requests.len() <= limit as usize);
        paged.extend(page.requests);
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged.iter().map(|request| request.id).collect::<Vec<_>>(), ids, "{filter:?}");
    let prices = bench.reader.prices();
    let reader = Reader::open(&bench.path).expect("opens").with_prices(prices);
    let mut pages = Pages::open(reader, filter).expect("opens");
    let mut exported = Vec::new();
    while pages.next(|request| exported.push(request.clone())).expect("reads") {}
    exported.reverse();
    assert_eq!(exported, paged, "{filter:?}");
}

/// All pages of the list, one behind the other.
fn listed(bench: &Bench, filter: &Filter, limit: u32) -> Vec<ConversationTotals> {
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = bench.reader.conversations(filter, after, limit).expect("answers");
        let mut last_ids: Vec<i64> = page.conversations.iter().map(|told| told.last_id).collect();
        last_ids.dedup();
        assert!(last_ids.len() <= limit as usize);
        listed.extend(page.conversations);
        after = page.next_after;
        if after.is_none() {
            return listed;
        }
    }
}

fn check_conversations(bench: &Bench, filter: &Filter, condition: &str, limit: u32) {
    let texts = |query: &str| -> Vec<String> {
        let mut statement = bench.plain.prepare(query).expect(query);
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect(query)
    };
    let listed = listed(bench, filter, limit);
    let names = texts(&format!(
        "SELECT conversation FROM r WHERE conversation IS NOT NULL GROUP BY 1 HAVING max({condition}) ORDER BY max(id) DESC"
    ));
    assert_eq!(listed.iter().map(|told| told.conversation.as_str()).collect::<Vec<_>>(), names, "{filter:?}");
    for told in &listed {
        let of_it = format!("conversation = '{}'", told.conversation);
        assert_same(&told.summary, &bench.summary(&of_it), &told.conversation);
        let of = |column: &str| {
            texts(&format!(
                "SELECT {column} FROM r WHERE {of_it} AND {column} <> '' GROUP BY 1 ORDER BY count(*) DESC, 1"
            ))
        };
        assert_eq!((&told.clients, &told.models), (&of("client"), &of("model")), "{of_it}");
        let end = |end: &str| bench.number(&format!("SELECT {end}(id) FROM r WHERE {of_it}"));
        assert_eq!((told.first_id, told.last_id), (end("min"), end("max")), "{of_it}");
        let time = |id: i64| texts(&format!("SELECT substr(start_time, 1, 19) || 'Z' FROM r WHERE id = {id}")).pop();
        assert_eq!((&told.first_time, &told.last_time), (&time(told.first_id), &time(told.last_id)), "{of_it}");
    }
    assert_eq!(bench.reader.conversation("nowhere", filter, None, limit), Ok(None));
    let Some(told) = listed.first() else { return };
    let (mut turns, mut after) = (Vec::new(), None);
    loop {
        let page = bench.reader.conversation(&told.conversation, filter, after, limit).expect("answers");
        let page = page.expect("is there");
        assert_eq!(page.conversation, *told);
        turns.extend(page.turns.iter().map(|turn| turn.id));
        after = page.next_after;
        if after.is_none() {
            break;
        }
    }
    let condition = condition_of(&Filter { conversations: vec![told.conversation.clone()], ..filter.clone() });
    assert_eq!(turns, bench.numbers(&format!("SELECT id FROM r WHERE {condition} ORDER BY id")), "{filter:?}");
}

#[test]
fn statistics_equal_the_rows_whatever_is_written_corrected_and_packed() {
    let mut random = Random::new(20_260_119);
    let mut bench = Bench::new();
    check(&bench, &Filter::default(), &mut random);
    let mut written: Vec<(i64, Row)> = Vec::new();
    let some_row = |random: &mut Random| {
        let row = random_row(random);
        // Most on few days, some over six weeks and two changes of month.
        let days = if random.below(3) == 0 { random.below(38) } else { 0 };
        Row { start_ms: row.start_ms + days as i64 * DAY_MS, ..row }
    };
    for _ in 0..24 {
        let rows: Vec<Row> = (0..random.below(30)).map(|_| some_row(&mut random)).collect();
        let ids = bench.store.write(&rows).expect("writes");
        bench.converse(ids.first().copied().unwrap_or(i64::MAX), &mut random);
        written.extend(ids.into_iter().zip(rows));
        if !written.is_empty() && random.below(2) == 0 {
            let index = random.below(written.len() as u64) as usize;
            // Content is not corrected.
            let after = Row { content: written[index].1.content.clone(), ..some_row(&mut random) };
            bench.store.correct(written[index].0, &written[index].1, &after).expect("corrects");
            written[index].1 = after;
        }
        if random.below(2) == 0 {
            bench.pack();
        }
        check(&bench, &Filter::default(), &mut random);
        for _ in 0..2 {
            check(&bench, &random_filter(&mut random), &mut random);
        }
    }
    assert_eq!(bench.store.row_count().expect("answers"), written.len() as u64);
    let packed = bench.number("SELECT count(*) FROM packed_sums WHERE id >> 32 = 2");
    assert!(packed > 100, "{packed} hours were packed");
    bench.pack();
    check_spans(&bench);
    check(&bench, &Filter::default(), &mut random);
    let stored = written.iter().filter(|(_, row)| !row.content.is_empty()).count() as i64;
    assert_eq!(bench.number("SELECT count(*) FROM content"), stored);
}

/// Every pack equals what plain SQL makes of its rows; and there is one wherever there are rows.
fn check_spans(bench: &Bench) {
    let spans = [
        (0, "0"),
        (1, "hour - hour % 24"),
        (2, "hour"),
        (3, "unixepoch(ms / 1000, 'unixepoch', 'start of month') / 3600"),
    ];
    for (span, start) in spans {
        let query = format!(
            "SELECT {start}, series.id, count(*), sum(duration_ms), sum(input_tokens), count(input_tokens),
                sum(output_tokens), sum(cache_write_tokens), count(time_to_first_token_ms), count(tokens_per_second),
                min(r.id), max(r.id)
             FROM (SELECT *, ms / 3600000 AS hour FROM r) AS r JOIN series ON series.endpoint = r.endpoint
                AND series.model = r.model AND series.client = coalesce(r.client, '')
                AND series.key = coalesce(r.key, '') AND series.outcome = r.outcome
             GROUP BY 1, 2 ORDER BY 1, 2"
        );
        let mut statement = bench.plain.prepare(&query).expect("a query");
        let lines = statement.query_map([], |row| {
            (0..12).map(|column| row.get(column).map(Option::<i64>::unwrap_or_default)).collect::<Result<Vec<i64>, _>>()
        });
        let expected: Vec<Vec<i64>> = lines.and_then(Iterator::collect).expect("a query");
        let mut packed = Vec::new();
        for id in bench.numbers(&format!("SELECT id FROM packed_sums WHERE id >> 32 = {span} ORDER BY id")) {
            let blob: Vec<u8> = bench
                .plain
                .query_row("SELECT pack FROM packed_sums WHERE id = ?1", [id], |row| row.get(0))
                .expect("a pack");
            let told = |series: i64, sums: &Sums| {
                let Sums { requests, duration_ms, first_id, last_id, .. } = *sums;
                let [input, output, .., first_token, cache_write] = sums.known;
                let known = [input.rows, output.sum, cache_write.sum, first_token.rows];
                [&[id & 0xFFFF_FFFF, series, requests, duration_ms, input.sum], &known[..]]
                    .concat()
                    .into_iter()
                    .chain([sums.tokens_per_second_known, first_id, last_id])
                    .collect()
            };
            visit_sums(&blob, |series, sums| {
                if sums.requests > 0 {
                    packed.push(told(series, sums));
                }
            })
            .expect("a pack");
        }
        assert_eq!(packed.len(), expected.len(), "{span}");
        for (packed, expected) in packed.iter().zip(expected) {
            let packed: &Vec<i64> = packed;
            assert_eq!(packed[..10], expected[..10], "{span}");
            // Of ids the range only grows, where rows are corrected.
            assert!(packed[10] <= expected[10] && packed[11] >= expected[11], "{span}");
        }
    }
}

/// What is asked again may come from memory: never from before a row came, whatever its hour.
#[test]
fn an_answer_given_before_does_not_hide_rows_that_came_since() {
    let mut bench = Bench::new();
    let hour = row().start_ms - row().start_ms % HOUR_MS;
    let zone = Zone::Fixed(330);
    let asked = Filter { from_ms: Some(hour - DAY_MS), to_ms: Some(hour + DAY_MS), ..Filter::default() };
    let counted = |bench: &Bench| -> Vec<i64> {
        let points = bench.reader.over_time(&asked, Bucket::Hour, &zone, None, false, hour).expect("answers").points;
        points.iter().map(|point| point.summary.total_requests).filter(|requests| *requests > 0).collect()
    };
    let write = |bench: &mut Bench, minute: i64| {
        bench.write(&[Row { start_ms: hour + minute * 60_000, ..row() }]);
        // Twice: what the first question left must be as good.
        (counted(bench), counted(bench))
    };
    let twice = |counts: &[i64]| (counts.to_vec(), counts.to_vec());
    // The halves of the hour belong to two buckets.
    assert_eq!(write(&mut bench, 10), twice(&[1]));
    assert_eq!(write(&mut bench, 20), twice(&[2]));
    assert_eq!(write(&mut bench, 40), twice(&[2, 1]));
    bench.pack();
    assert_eq!(counted(&bench), [2, 1]);
    // They are packed, and more come.
    assert_eq!(write(&mut bench, 29), twice(&[3, 1]));
    assert_eq!(write(&mut bench, 30), twice(&[3, 2]));
    bench.pack();
    assert_eq!(counted(&bench), [3, 2]);
    // Packed one after another, each between two questions.
    assert_eq!(write(&mut bench, 31), twice(&[3, 3]));
    bench.pack();
    assert_eq!((counted(&bench), counted(&bench)), twice(&[3, 3]));
    bench.reader.forget();
    assert!(!bench.reader.keeps());
    assert_eq!(counted(&bench), [3, 3]);
    assert!(bench.reader.keeps());
}

/// The pack of an hour knows of higher ids then than the packs hold.
#[test]
fn an_answer_given_before_does_not_hide_rows_whose_time_others_have_written() {
    let mut bench = Bench::new();
    let hour = row().start_ms / HOUR_MS * HOUR_MS;
    let filter = Filter { from_ms: Some(hour), to_ms: Some(hour + HOUR_MS), ..Filter::default() };
    let requests = |bench: &Bench| bench.reader.summary(&filter).map(|told| told.total_requests);
    bench.write(&[row()]);
    bench.pack();
    assert_eq!(requests(&bench), Ok(1));
    bench.write(&[row(), row()]);
    // The same moment, east of Greenwich; and none at all.
    let east = text_of_ms(row().start_ms + 2 * HOUR_MS).replace('Z', "+02:00");
    bench.plain.execute("UPDATE requests SET start_time = ?1 WHERE id = 2", [east]).expect("written");
    bench.plain.execute("UPDATE requests SET start_time = x'00' WHERE id = 3", []).expect("written");
    bench.pack();
    assert_eq!(requests(&bench), Ok(2));
}

#[test]
fn a_row_whose_id_is_used_again_counts_once_at_the_edge_of_a_range() {
    let mut bench = Bench::new();
    let hour = row().start_ms - row().start_ms % HOUR_MS;
    let at = |minute: i64| Row { start_ms: hour + minute * 60_000, ..row() };
    bench.write(&[at(10), at(40), at(50)]);
    bench.pack();
    let asked = Filter { from_ms: Some(hour + HOUR_MS / 2), to_ms: Some(hour + HOUR_MS), ..Filter::default() };
    let told = |bench: &Bench| {
        let latency = bench.reader.latency(&asked, By::Model).expect("answers").overall.duration_ms.count;
        (bench.reader.summary(&asked).expect("answers").total_requests, latency)
    };
    assert_eq!(told(&bench), (2, 2));
    bench.plain.execute_batch("DELETE FROM content WHERE id > 1; DELETE FROM requests WHERE id > 1").expect("removes");
    assert_eq!(bench.store.write(&[at(45)]), Ok(vec![2]));
    assert_eq!(told(&bench), (1, 1));
    bench.pack();
    assert_eq!(told(&bench), (1, 1));
}

#[test]
fn distributions_asked_again_count_every_row_once_and_as_it_is() {
    let mut bench = Bench::new();
    let hour = row().start_ms - row().start_ms % HOUR_MS;
    let asked = Filter { from_ms: Some(hour + 5 * 60_000), ..Filter::default() };
    let at = |minute: i64, duration_ms: u64| Row { start_ms: hour + minute * 60_000, duration_ms, ..row() };
    let check = |bench: &Bench, expected: &[u64]| {
        // Twice: what the first question left must be as good.
        for _ in 0..2 {
            let told = bench.reader.latency(&asked, By::Model).expect("answers").overall.duration_ms;
            let mean = expected.iter().sum::<u64>() as f64 / expected.len() as f64;
            assert_eq!((told.count, told.mean), (expected.len() as i64, Some(one_decimal(mean))), "{expected:?}");
            assert_eq!(told.max, expected.iter().max().map(|max| *max as f64), "{expected:?}");
        }
    };
    bench.write(&[at(1, 7), at(10, 100)]);
    check(&bench, &[100]);
    bench.write(&[at(61, 300), at(20, 200)]);
    check(&bench, &[100, 200, 300]);
    // Before it is packed.
    bench.store.correct(3, &at(61, 300), &at(61, 50)).expect("corrects");
    check(&bench, &[100, 200, 50]);
    bench.pack();
    check(&bench, &[100, 200, 50]);
    bench.write(&[at(30, 400), at(62, 500)]);
    check(&bench, &[100, 200, 50, 400, 500]);
    bench.store.correct(5, &at(30, 400), &at(30, 20)).expect("corrects");
    check(&bench, &[100, 200, 50, 20, 500]);
}

#[test]
fn statistics_of_an_upgraded_database_equal_its_rows() {
    let folder = Folder::new();
    let path = folder.join("metrics.db");
    let earlier = "CREATE TABLE requests (id INTEGER PRIMARY KEY, endpoint TEXT, model TEXT, start_time TEXT,
            end_time TEXT, duration_ms INTEGER, input_tokens INTEGER, output_tokens INTEGER, total_tokens INTEGER,
            prompt TEXT, output TEXT, is_error INTEGER, http_status INTEGER);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO requests SELECT i * 2, '/v1/chat/completions', 'model-' || i % 3,
            strftime('%Y-%m-%dT%H:%M:%fZ', 1768818645 + i * 1997, 'unixepoch'), NULL, i * 7 % 5000,
            iif(i % 5, i, NULL), i * 2, i * 3, 'prompt ' || i, NULL, i % 7 = 0, iif(i % 7 = 0, 500, 200) FROM n";
    Connection::open(&path).and_then(|conn| conn.execute_batch(earlier)).expect("made");
    let mut bench = Bench::on(Store::open(&path, DbSync::Normal).expect("upgrades"), path, folder);
    let mut random = Random::new(7);
    bench.write(&[row()]);
    check(&bench, &Filter::default(), &mut random);
    for _ in 0..40 {
        check(&bench, &random_filter(&mut random), &mut random);
    }
}

#[test]
fn totals_of_all_time_and_of_whole_hours_outlive_their_rows() {
    let mut random = Random::new(99);
    let mut bench = Bench::new();
    let rows: Vec<Row> = (0..400).map(|_| random_row(&mut random)).collect();
    bench.write(&rows);
    bench.pack();
    let hour = row().start_ms - row().start_ms % HOUR_MS;
    let filters = [
        Filter::default(),
        of_model("model-1"),
        Filter { to_ms: Some(hour + 30 * HOUR_MS), ..Filter::default() },
        Filter { from_ms: Some(hour + 3 * HOUR_MS), to_ms: Some(hour + 41 * HOUR_MS), ..Filter::default() },
    ];
    let answers = |bench: &Bench| {
        let answer = |filter: &Filter| {
            let (summary, models) = (bench.reader.summary(filter), bench.reader.by(By::Model, filter));
            let points = bench.reader.over_time(filter, Bucket::Day, &Zone::Fixed(120), None, false, row().start_ms);
            let latency = bench.reader.latency(filter, By::Model);
            (summary.expect("answers"), models.expect("answers"), points.expect("answers"), latency.expect("answers"))
        };
        filters.iter().map(answer).collect::<Vec<_>>()
    };
    let before = answers(&bench);
    bench.plain.execute_batch("DELETE FROM content; DELETE FROM requests WHERE id < 300").expect("removes");
    assert_eq!(answers(&bench), before);
}

#[test]
fn an_empty_database_answers_zeros() {
    let bench = Bench::new();
    check(&bench, &Filter::default(), &mut Random::new(1));
    assert_eq!(bench.store.row_count().expect("answers"), 0);
    let reader = Reader::open(&bench.path).expect("opens");
    let filter = Filter::default();
    let json = serde_json::to_string(&reader.summary(&filter).expect("answers")).expect("serialises");
    assert!(
        json.starts_with(r#"{"total_requests":0,"successful_requests":0,"failed_requests":0,"total_input_tokens":0,"#)
    );
    assert!(json.contains(r#""average_input_tokens":0.0,"#) && !json.contains("cost"), "{json}");
    let json = serde_json::to_string(&reader.by(By::Model, &filter).expect("answers")).expect("serialises");
    assert_eq!(json, r#"{"models":[]}"#);
    let json = serde_json::to_string(&reader.recent(&filter, 100).expect("answers")).expect("serialises");
    assert_eq!(json, r#"{"requests":[]}"#);
    let points = reader.over_time(&filter, Bucket::Day, &Zone::default(), None, false, 0).expect("answers").points;
    assert_eq!(points, []);
}

#[test]
fn answers_have_the_promised_shape() {
    let mut bench = Bench::new();
    bench.write(&[row()]);
    let filter = Filter::default();
    let check = |answer: String, fixed: &str| assert!(answer.contains(fixed), "{answer}");
    let reader = &bench.reader;
    let json = |answer: &dyn Fn() -> serde_json::Value| answer().to_string();
    let recent = serde_json::to_string(&reader.recent(&filter, 100).expect("answers")).expect("serialises");
    check(
        recent,
        r#"{"requests":[{"id":1,"endpoint":"/v1/chat/completions","model":"llama-3.2-1b-instruct","input_tokens":85,"output_tokens":320,"total_tokens":405,"duration_ms":850,"start_time":"2026-01-19T10:30:45Z","is_error":false,"was_streamed":false,"outcome":"completed","#,
    );
    let by = |by| serde_json::to_string(&reader.by(by, &filter).expect("answers")).expect("serialises");
    check(
        by(By::Model),
        r#"{"models":[{"model":"llama-3.2-1b-instruct","requests":1,"input_tokens":85,"output_tokens":320,"total_tokens":405,"avg_tokens_per_request":405.0,"#,
    );
    check(by(By::Client), r#"{"clients":[{"client":null,"requests":1,"#);
    check(by(By::Outcome), r#""cost":null,"currency":"EUR"}]}"#);
    let points =
        reader.over_time(&filter, Bucket::Month, &Zone::Fixed(120), Some(By::Model), false, 0).expect("answers");
    let points = serde_json::to_string(&points).expect("serialises");
    check(
        points,
        r#"{"bucket":"month","tz":"+02:00","points":[{"start":"2026-01-01T00:00:00+02:00","total_requests":1,"#,
    );
    bench.plain.execute_batch("UPDATE requests SET conversation = 'c'").expect("written");
    let conversation = reader.conversation("c", &filter, None, 1).expect("answers").expect("is there");
    let (told, turn) = (serde_json::to_string(&conversation.conversation), &conversation.turns[0]);
    let told = told.expect("serialises");
    check(
        told.clone(),
        r#"{"conversation":"c","conversation_source":null,"title":null,"clients":[],"models":["llama-3.2-1b-instruct"],"requests":1,"input_tokens":85,"#,
    );
    check(
        told.clone(),
        r#""currency":"EUR","first_id":1,"first_time":"2026-01-19T10:30:45Z","last_id":1,"last_time":"2026-01-19T10:30:45Z"}"#,
    );
    let list = serde_json::to_string(&reader.conversations(&filter, None, 100).expect("answers")).expect("serialises");
    assert_eq!(list, format!(r#"{{"conversations":[{told}]}}"#));
    let turn = serde_json::to_string(turn).expect("serialises");
    let thread = serde_json::to_string(&conversation).expect("serialises");
    assert_eq!(thread, format!(r#"{},"turns":[{turn}],"next_after":1}}"#, &told[..told.len() - 1]));
    let latency = reader.latency(&filter, By::Model).expect("answers");
    let latency = json(&|| serde_json::to_value(&latency).expect("serialises"));
    check(latency, r#""max":850.0,"mean":850.0,"p50":"#);
    let whole = reader.request(1).expect("answers").expect("is there");
    let Content { prompt, output, reasoning, .. } = whole.content;
    assert_eq!((prompt, output.as_deref(), reasoning), (Some("hello".to_owned().into()), Some("hi"), None));
    assert_eq!(whole.end_time, "2026-01-19T10:30:46.528Z");
    assert_eq!(reader.request(2).expect("answers"), None);
}

#[test]
fn unknown_is_null_and_an_untold_model_is_unknown() {
    let mut bench = Bench::new();
    let silent = Row { model: None, input_tokens: None, output_tokens: None, total_tokens: Some(u64::MAX), ..row() };
    bench.write(&[silent]);
    check(&bench, &Filter::default(), &mut Random::new(1));
    let request = &bench.reader.recent(&Filter::default(), 1).expect("answers").requests[0];
    assert_eq!(request.model, "unknown");
    assert_eq!((request.input_tokens, request.output_tokens, request.total_tokens), (None, None, None));
}

#[test]
fn averages_are_rounded_to_one_decimal() {
    assert_eq!(average(45_621, 150), 304.1);
    assert_eq!(average(12_543, 150), 83.6);
    assert_eq!(average(28_877, 20), 1443.8);
    assert_eq!(average(1, 3), 0.3);
    assert_eq!(average(0, 0), 0.0);
    for (sum, requests) in (0..2000).flat_map(|sum| (1..100).map(move |requests| (sum, requests))) {
        let printed = format!("{:.1}", sum as f64 / requests as f64);
        assert_eq!(average(sum, requests), printed.parse::<f64>().expect("a number"), "{sum} of {requests}");
    }
}

#[test]
fn what_the_reader_sees_is_committed_and_it_cannot_write() {
    let bench = Bench::new();
    assert!(bench.reader.conn.execute_batch("DELETE FROM requests").is_err());
    assert!(Reader::open(&bench.path.with_extension("missing")).is_err());
}

#[test]
fn outcomes_are_filed_as_successful_failed_or_cancelled() {
    let mut bench = Bench::new();
    let one = |outcome: &Outcome| Row { outcome: *outcome, content: Content::default(), ..row() };
    let rows: Vec<Row> = Outcome::all().iter().map(one).collect();
    bench.write(&rows);
    let summary = bench.reader.summary(&Filter::default()).expect("answers");
    assert_eq!(
        (summary.successful_requests, summary.failed_requests, summary.cancelled_requests),
        (1, Outcome::all().iter().filter(|outcome| outcome.is_failure()).count() as i64, 2)
    );
}

#[test]
fn too_many_points_are_refused_with_what_to_do() {
    let mut bench = Bench::new();
    bench.write(&[Row { start_ms: 0, ..row() }]);
    let over_time =
        |filter: &Filter, bucket| bench.reader.over_time(filter, bucket, &Zone::default(), None, false, row().start_ms);
    let ask = |bucket| over_time(&Filter { from_ms: Some(0), ..Filter::default() }, bucket);
    let Err(AskError::Refused(error)) = ask(Bucket::Hour) else { panic!("half a million hours") };
    assert!(error.contains("10000 points") && error.contains("later from"), "{error}");
    assert_eq!(ask(Bucket::Month).expect("answers").points.len(), 56 * 12 + 1);
    assert_eq!(over_time(&Filter::default(), Bucket::Month).expect("answers").points.len(), 56 * 12 + 1);
    // Who does not say since when gets the last ones.
    let points = over_time(&Filter::default(), Bucket::Hour).expect("answers").points;
    assert_eq!((points.len(), points[9_999].start.as_str()), (10_000, "2026-01-19T10:00:00Z"));
}

#[test]
fn rows_of_a_clock_that_was_wrong_do_not_move_the_points_of_the_others() {
    let now_ms = row().start_ms;
    let year_2099 = 4_070_908_800_000;
    for wrong in [vec![], vec![0], vec![year_2099], vec![0, year_2099, i64::MAX]] {
        let mut bench = Bench::new();
        bench.write(&[Row { start_ms: now_ms - 400 * DAY_MS, ..row() }]);
        bench.write(&wrong.iter().map(|start_ms| Row { start_ms: *start_ms, ..row() }).collect::<Vec<_>>());
        bench.write(&[row()]);
        for (bucket, pack) in Bucket::TABLE.into_iter().flat_map(|(bucket, ..)| [(bucket, false), (bucket, true)]) {
            if pack {
                bench.pack();
            }
            for zone in [Zone::default(), Zone::Fixed(-300)] {
                let answer = bench.reader.over_time(&Filter::default(), bucket, &zone, None, false, now_ms + 1000);
                let points = answer.expect("answers").points;
                let counts = points.iter().map(|point| point.summary.total_requests).filter(|requests| *requests > 0);
                assert_eq!(counts.collect::<Vec<_>>(), [1, 1], "{bucket:?} {wrong:?}");
                assert_eq!((points[0].summary.total_requests, points[points.len() - 1].summary.total_requests), (1, 1));
            }
        }
        let all = Filter::default();
        let requests = wrong.len() as i64 + 2;
        assert_eq!(bench.reader.summary(&all).expect("answers").total_requests, requests);
        assert_eq!(bench.reader.latency(&all, By::Model).expect("answers").overall.duration_ms.count, requests);
        assert_eq!(bench.reader.recent(&all, 10).expect("answers").requests.len() as i64, requests);
    }
}

#[test]
fn words_are_found_without_regard_to_case_wherever_they_are_stored() {
    let mut bench = Bench::new();
    let said = |prompt: &str, output: &str| {
        let (prompt, output) = (Some(prompt.to_owned().into()), Some(output.to_owned()));
        Row { content: Content { prompt, output, ..Content::default() }, ..row() }
    };
    let rows = [said("The Quick fox", "jumps"), said("über alles", "ÜBERmut"), said("quick", "and dirty"), row()];
    bench.write(&rows);
    let check = |words: &str, after: Option<i64>, limit: u32, expected: &[i64]| {
        let found = bench.reader.search(&Filter::default(), words, after, limit).expect("answers");
        let ids: Vec<i64> = found.requests.iter().map(|hit| hit.request.id).collect();
        assert_eq!(ids, expected, "{words}");
        found
    };
    check("QUICK", None, 10, &[3, 1]);
    check("quick jumps", None, 10, &[1]);
    check("quick", Some(3), 10, &[1]);
    check("absent", None, 10, &[]);
    check("Über", None, 10, &[2]);
    assert_eq!(check("quick", None, 1, &[3]).next_after, Some(3));
    let found = check("fox", None, 10, &[1]);
    assert_eq!((found.requests[0].found_in, found.requests[0].excerpt.as_str()), ("prompt", "The Quick fox"));
    assert!(matches!(bench.reader.search(&Filter::default(), "  ", None, 1), Err(AskError::Refused(_))));
    assert_eq!(bench.reader.search(&of_model("another"), "quick", None, 10).expect("answers").requests, []);
    // Of a conversation, packed in part, no more is read than its turns.
    bench.plain.execute_batch("UPDATE requests SET conversation = 'a' WHERE id <> 3").expect("written");
    bench.pack();
    bench.write(&vec![said("quick", "again"); 20]);
    bench.plain.execute_batch("UPDATE requests SET conversation = 'a' WHERE id > 15").expect("written");
    let search = |after, limit| {
        let found = bench.reader.search(&of_conversation("a"), "quick", after, limit).expect("answers");
        (found.requests.iter().map(|hit| hit.request.id).collect::<Vec<_>>(), found.next_after)
    };
    assert_eq!(search(None, 100), ([(16..=24).rev().collect(), vec![1]].concat(), None));
    assert_eq!(search(None, 2), (vec![24, 23], Some(23)));
    assert_eq!(search(Some(17), 2), (vec![16, 1], Some(1)));
}

/// An agent's turns, each of which says all that was said before; every message has so many bytes and more.
fn growing(turns: usize, bytes: usize) -> Vec<Row> {
    let message = |i: usize| format!(r#"{{"role":"user","content":"{} Größe{i}"}}"#, "filler ".repeat(bytes / 7));
    let messages: Vec<String> = (0..turns).map(message).collect();
    let prompt = |until: usize| format!(r#"{{"messages":[{}],"turn":"turn{until}"}}"#, messages[..until].join(","));
    let said = |until| Content { prompt: Some(prompt(until).into()), output: None, ..row().content };
    (1..=turns).map(|until| Row { content: said(until), ..row() }).collect()
}

#[test]
fn words_of_prompts_in_pieces_are_found_as_in_their_texts() {
    let mut bench = Bench::new();
    bench.write(&growing(60, 700));
    let in_pieces: i64 = bench
        .plain
        .query_row("SELECT count(*) FROM content WHERE pieces NOT NULL", [], |row| row.get(0))
        .expect("a count");
    assert!(in_pieces > 40, "{in_pieces}");
    let check = |words: &str| {
        let texts: Vec<(i64, String)> = {
            let mut all = bench.plain.prepare("SELECT id, prompt FROM prompts ORDER BY id DESC").expect("a query");
            let texts = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("reads");
            texts.collect::<rusqlite::Result<_>>().expect("reads")
        };
        let holds =
            |text: &str| words.split_whitespace().all(|word| text.to_lowercase().contains(&word.to_lowercase()));
        let expected: Vec<i64> = texts.iter().filter(|(_, text)| holds(text)).map(|(id, _)| *id).collect();
        let found = bench.reader.search(&Filter::default(), words, None, 100).expect("answers");
        let ids: Vec<i64> = found.requests.iter().map(|hit| hit.request.id).collect();
        assert_eq!((ids, found.next_after), (expected, None), "{words}");
        found.requests.len()
    };
    let long = format!("{}\"", "x".repeat(70));
    for (words, at_least) in [
        ("größe7", 50),
        ("FILLER turn30 größe29\"}", 1),
        ("größe40\"},{\"role\":\"user\",\"content\":\"filler", 10),
        ("größe40\"},{\"role\":\"user\",\"content\":\"fillet", 0),
        ("größe59\"}],\"turn\":\"turn60\"}", 1),
        ("größe3 absent", 0),
        ("missing]", 0),
        (&long, 0),
    ] {
        assert!(check(words) >= at_least, "{words}");
    }
    bench.plain.execute("DELETE FROM pieces WHERE id = 5", []).expect("removed");
    assert!(check("missing] größe59") > 0);
}

#[test]
fn a_search_reads_what_many_prompts_say_once() {
    let mut bench = Bench::new();
    let turns = growing(30, SEARCH_BYTES_MAX / 240);
    let said: usize = turns.iter().filter_map(|row| row.content.prompt.as_ref()).map(|prompt| prompt.bytes()).sum();
    assert!(said > SEARCH_BYTES_MAX, "{said}");
    bench.write(&turns);
    let found = bench.reader.search(&Filter::default(), "absent", None, 1).expect("answers");
    assert_eq!((found.requests, found.next_after), (vec![], None));
}

fn of_conversation(name: &str) -> Filter {
    Filter { conversations: vec![name.to_owned()], ..Filter::default() }
}

#[test]
fn rows_are_those_of_a_conversation_whatever_turns_say() {
    let mut bench = Bench::new();
    bench.write(&vec![row(); 30]);
    bench.plain.execute_batch("UPDATE requests SET conversation = 'a' WHERE id % 3 = 0").expect("written");
    bench.pack();
    // Some are removed, some others have written, and more come.
    let changes = "DELETE FROM requests WHERE id < 10;
        UPDATE requests SET conversation = 'b' WHERE id = 15;
        INSERT INTO turns SELECT id, 16 FROM conversations";
    bench.plain.execute_batch(changes).expect("written");
    bench.write(&vec![row(); 10]);
    bench.plain.execute_batch("UPDATE requests SET conversation = 'a' WHERE id > 38").expect("written");
    for filter in [of_conversation("a"), of_conversation("nowhere")] {
        let condition = condition_of(&filter);
        assert_same(&bench.reader.summary(&filter).expect("answers"), &bench.summary(&condition), &condition);
        check_latency(&bench, &filter, &condition);
        check_rows(&bench, &filter, &condition, 3);
    }
    let told = bench.reader.requests(&of_conversation("a"), Some(40), 3).expect("answers");
    assert_eq!(told.requests.iter().map(|request| request.id).collect::<Vec<_>>(), [39, 30, 27]);
    let request = &told.requests[0];
    assert_eq!((request.conversation.as_deref(), request.prefix_break.as_deref()), (Some("a"), None));
}

/// A zone of half an hour, and times of the day, part hours. Of some of these the rows are gone.
#[test]
fn an_hour_whose_rows_were_removed_is_told_once_wherever_days_are_parted() {
    let mut bench = Bench::new();
    let mut random = Random::new(7);
    let rows: Vec<Row> = (0..400).map(|_| random_row(&mut random)).collect();
    bench.write(&rows);
    bench.plain.execute_batch("UPDATE requests SET prompt_cut = 1, prefix_break = 'continued'").expect("written");
    bench.pack();
    let first = bench.number("SELECT min(ms) FROM r");
    let cut_ms = first - first % HOUR_MS + 30 * HOUR_MS;
    let before = bench.number(&format!("SELECT count(*) FROM r WHERE ms < {cut_ms}"));
    let all = bench.reader.summary(&Filter::default()).expect("answers");
    bench
        .plain
        .execute_batch(&format!("DELETE FROM requests WHERE id IN (SELECT id FROM r WHERE ms < {cut_ms})"))
        .expect("removes");
    // Clean-up says so.
    bench.plain.execute_batch("INSERT OR REPLACE INTO meta VALUES ('rows_changed', 1)").expect("said");
    for minutes in [330, 345, -210, 0] {
        for bucket in [Bucket::Hour, Bucket::Day] {
            let zone = Zone::parse(&Zone::Fixed(minutes).text()).expect("a zone");
            let told = bench
                .reader
                .over_time(&Filter::default(), bucket, &zone, Some(By::Model), false, row().start_ms + 3 * DAY_MS)
                .expect("answers");
            let sum = |figure: fn(&Summary) -> i64| told.points.iter().map(|point| figure(&point.summary)).sum::<i64>();
            assert_eq!(sum(|one| one.total_requests), 400, "{minutes} {bucket:?}");
            assert_eq!(sum(|one| one.total_tokens), all.total_tokens, "{minutes} {bucket:?}");
        }
    }
    // What is before a moment and what is behind it is all there is: in each answer the same.
    for _ in 0..200 {
        let at = first + random.below(72 * HOUR_MS as u64) as i64;
        let (until, since) =
            (Filter { to_ms: Some(at), ..Filter::default() }, Filter { from_ms: Some(at), ..Filter::default() });
        let figures = |filter: &Filter| {
            let summary = bench.reader.summary(filter).expect("answers");
            let latency = bench.reader.latency(filter, By::Model).expect("answers").overall.duration_ms.count;
            let prefixes = bench.reader.prefixes(filter).expect("answers").total.requests;
            [summary.total_requests, latency, prefixes, summary.prompts_cut.expect("counted")]
        };
        let (left, right) = (figures(&until), figures(&since));
        assert_eq!(left.iter().zip(right).map(|(left, right)| left + right).collect::<Vec<_>>(), [400; 4], "{at}");
        assert!(left.iter().all(|figure| *figure == left[0]), "{left:?}");
        // The hour counts where it begins.
        let hour = at - at % HOUR_MS;
        let end = if hour < cut_ms { hour + HOUR_MS } else { at };
        let counted = rows.iter().filter(|row| row.start_ms < end).count();
        assert_eq!(left[0], counted as i64, "{at}");
    }
    assert!(before > 50);
}

#[test]
fn a_conversation_without_end_is_not_added_up_but_told_so() {
    let mut bench = Bench::new();
    let now_ms = row().start_ms;
    bench.write(&(0..502).map(|i| Row { start_ms: now_ms + i * 60_000, ..row() }).collect::<Vec<_>>());
    bench.plain.execute_batch("UPDATE requests SET conversation = 'default'").expect("written");
    let filter = of_conversation("default");
    let check = |bench: &Bench| {
        let told = bench.reader.summary(&filter);
        assert!(matches!(&told, Err(AskError::Refused(why)) if why.contains("give a later from")), "{told:?}");
        assert!(bench.reader.latency(&filter, By::Model).is_err());
        assert_eq!(bench.reader.requests(&filter, None, 5).map(|told| told.requests.len()), Ok(5));
    };
    check(&bench);
    bench.pack();
    check(&bench);
    let filter = Filter { from_ms: Some(now_ms + 5 * HOUR_MS), ..filter.clone() };
    assert_eq!(bench.reader.by(By::Model, &filter).map(|told| told.groups[0].summary.total_requests), Ok(202));
}

#[test]
fn a_conversation_outlives_its_first_rows_and_has_a_title_as_long_as_these_are_there() {
    let mut bench = Bench::new();
    bench.write(&vec![row(); 6]);
    let told = "UPDATE requests SET conversation = iif(id % 2, 'odd', 'even');
        UPDATE content SET title = 'Say ' || id";
    bench.plain.execute_batch(told).expect("written");
    let list = |bench: &Bench| bench.reader.conversations(&Filter::default(), None, 10).expect("answers").conversations;
    let before = list(&bench);
    assert_eq!(before.iter().map(|told| told.title.as_deref()).collect::<Vec<_>>(), [Some("Say 2"), Some("Say 1")]);
    bench.pack();
    assert_eq!(list(&bench), before);
    bench.plain.execute_batch("DELETE FROM content WHERE id = 1; DELETE FROM requests WHERE id = 1").expect("removes");
    let [even, odd] = &list(&bench)[..] else { panic!("two") };
    assert_eq!(*even, before[0]);
    assert_eq!(*odd, ConversationTotals { title: None, first_time: None, ..before[1].clone() });
    let thread = bench.reader.conversation("odd", &Filter::default(), None, 10).expect("answers").expect("is there");
    assert_eq!(thread.conversation.summary.total_requests, 3);
    assert_eq!(thread.turns.iter().map(|turn| turn.id).collect::<Vec<_>>(), [3, 5]);
}

#[test]
fn conversations_whose_last_request_has_one_id_are_listed_together() {
    let mut bench = Bench::new();
    let name = |bench: &Bench| {
        let update = "UPDATE requests SET conversation = 'c' || (id % 3) WHERE conversation IS NULL";
        bench.plain.execute_batch(update).expect("written");
    };
    bench.write(&vec![row(); 9]);
    name(&bench);
    bench.pack();
    // The ids of some are given to others.
    bench.plain.execute_batch("DELETE FROM content WHERE id > 3; DELETE FROM requests WHERE id > 3").expect("removes");
    bench.write(&[row()]);
    name(&bench);
    for _ in 0..2 {
        let told = listed(&bench, &Filter::default(), 1);
        let told: Vec<(&str, i64)> = told.iter().map(|told| (told.conversation.as_str(), told.last_id)).collect();
        assert_eq!(told, [("c1", 4), ("c2", 3), ("c0", 3)]);
        bench.pack();
    }
}

#[test]
fn rows_say_whether_names_pass_that_packs_have_folded() {
    let mut bench = Bench::new();
    bench.write(&[row(), Row { client: Some("curl".to_owned()), ..row() }]);
    bench.plain.execute_batch("UPDATE requests SET conversation = 'c' || id").expect("written");
    bench.pack();
    bench.plain.execute_batch("UPDATE series SET client = 'other' WHERE client = 'curl'").expect("written");
    let mut filter = Filter::default();
    for (client, expected) in [("curl", vec!["c2"]), ("", vec!["c1"]), ("nobody", vec![])] {
        filter.names[By::Client] = vec![client.to_owned()];
        let told = listed(&bench, &filter, 10);
        assert_eq!(told.iter().map(|told| told.conversation.as_str()).collect::<Vec<_>>(), expected, "{client}");
    }
}
