//! What people and Prometheus look at: live events, the report, the page, `/metrics`.

use lms_metrics_proxy::record::row::Row;
use lms_metrics_proxy::record::store::{DbSync, Store};

use crate::harness::*;
use crate::statistics::recorded;

/// A listener whose stream has begun.
fn listener(proxy: &Proxy, path: &str) -> Client {
    let mut listener = proxy.connect();
    listener.send(get(path));
    let head = listener.through("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"), "{head}");
    listener
}

/// The value of a sample of `/metrics`.
fn sample(proxy: &Proxy, name: &str) -> Option<f64> {
    let reply = proxy.ask(get("/metrics"));
    assert_eq!(reply.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = reply.text();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn every_listener_hears_of_every_request_that_its_filter_lets_pass() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let (mut all, others) = (listener(&proxy, "/stats/live"), listener(&proxy, "/stats/live?model=another"));
    let mut failed = listener(&proxy, "/stats/live?outcome=completed&endpoint=/v1/completions");
    for id in 1..=3 {
        proxy.ask(chat());
        let event = all.through("\n\n");
        let (head, json) = event.split_once("data: ").expect("an event with data");
        assert!(head.ends_with(&format!("id: {id}\n")), "{event}");
        let told: serde_json::Value = serde_json::from_str(json.trim()).expect("JSON");
        assert_eq!(told, proxy.json("/stats/recent?limit=1")["requests"][0]);
    }
    proxy.ask(post("/v1/completions", r#"{"model":"m","prompt":"Hi"}"#));
    assert!(failed.through("\n\n").contains("id: 4\n"));
    assert!(!others.has_reply(), "it asked for another model");
}

/// Regression: the first row of a database begun anew, and of one that was moved back, was told to nobody.
#[test]
#[cfg(unix)]
fn a_listener_goes_on_hearing_wherever_the_database_went() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::with(&upstream, &[("DATABASE_URL", "sqlite:./disk/metrics.db")]);
    let mut listener = listener(&proxy, "/stats/live");
    let mut hears = |id: i64| {
        proxy.ask(chat());
        let event = listener.through("\n\n");
        assert!(event.contains(&format!("id: {id}\n")), "{id}: {event}");
    };
    let folder = proxy.folder().path().join("disk");
    let (database, log) = (folder.join("metrics.db"), folder.join("metrics.db-wal"));
    (1..=3).for_each(&mut hears);
    std::fs::rename(&folder, folder.with_extension("old")).expect("renamed");
    (1..=2).for_each(&mut hears);
    std::fs::remove_dir_all(&folder).expect("removed");
    std::fs::rename(folder.with_extension("old"), &folder).expect("renamed");
    (4..=5).for_each(&mut hears);
    std::fs::remove_file(log).expect("removed");
    (6..=7).for_each(&mut hears);
    // What another database came with is no news.
    let other = proxy.folder().path().join("other.db");
    let mut store = Store::open(&other, DbSync::Normal).expect("opens");
    store.write(&vec![recorded(1); 20]).expect("writes");
    drop(store);
    std::fs::rename(other, database).expect("renamed");
    (21..=22).for_each(&mut hears);
}

#[test]
fn a_listener_that_leaves_makes_room_and_one_too_many_is_refused() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut listeners: Vec<Client> = (0..64).map(|_| listener(&proxy, "/stats/live")).collect();
    let refused = proxy.ask(get("/stats/live"));
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("30")));
    assert_eq!(sample(&proxy, "lms_proxy_live_listeners"), Some(64.0));
    listeners.pop().expect("64 listeners").leave();
    until("a free place", || (sample(&proxy, "lms_proxy_live_listeners") == Some(63.0)).then_some(()));
    listeners.push(listener(&proxy, "/stats/live"));
}

#[test]
fn a_listener_who_does_not_read_holds_up_nobody_and_is_cut_off() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    let _silent = listener(&proxy, "/stats/live");
    // More than the sockets hold by themselves, which is some megabytes.
    let mut store = Store::open(&proxy.folder().database(), DbSync::Normal).expect("opens");
    let long = Row { error_message: Some("x".repeat(100_000)), ..recorded(1) };
    store.write(&vec![long; 100]).expect("writes");
    assert_eq!(proxy.ask(chat()).status(), 200);
    until("its end", || (sample(&proxy, "lms_proxy_live_listeners") == Some(0.0)).then_some(()));
}

#[test]
#[cfg(unix)]
fn listeners_do_not_delay_the_end_and_see_it() {
    let upstream = Upstream::new();
    let mut proxy = Proxy::with(&upstream, &[("SHUTDOWN_GRACE_S", "3600")]);
    let mut listener = listener(&proxy, "/stats/live");
    proxy.signal("TERM");
    assert!(listener.rest().ends_with(LAST_CHUNK.as_bytes()));
    listener.leave();
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn counters_go_on_over_a_restart() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let url = upstream.url();
    let settings = [("LM_STUDIO_URL", url.as_str())];
    let folder = std::sync::Arc::new(Folder::new());
    let requests = r#"lms_proxy_requests_total{model="m-1",endpoint="/v1/chat/completions",outcome="completed"}"#;
    let duration = r#"lms_proxy_request_duration_seconds_count{model="m-1"}"#;
    let proxy = Proxy::start(&folder, &settings);
    assert_eq!(sample(&proxy, requests), None);
    proxy.ask(chat());
    assert_eq!((sample(&proxy, requests), sample(&proxy, duration)), (Some(1.0), Some(1.0)));
    assert_eq!(sample(&proxy, "lms_proxy_rows_written_total"), Some(1.0));
    let (_, folder) = proxy.kill();
    let proxy = Proxy::start(&folder, &settings);
    assert_eq!(sample(&proxy, "lms_proxy_rows_written_total"), Some(0.0));
    proxy.ask(chat());
    assert_eq!((sample(&proxy, requests), sample(&proxy, duration)), (Some(2.0), Some(2.0)));
}

#[test]
fn refusals_and_exchanges_in_flight_are_counted() {
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    proxy.ask("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    proxy.ask("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(sample(&proxy, r#"lms_proxy_refusals_total{reason="host_not_allowed"}"#), Some(1.0));
    assert_eq!(sample(&proxy, r#"lms_proxy_refusals_total{reason="host_missing"}"#), Some(1.0));
    assert_eq!(sample(&proxy, r#"lms_proxy_refusals_total{reason="queue_full"}"#), Some(0.0));
    let (mut client, mut link) = asked(&proxy, &upstream, chat());
    assert_eq!(sample(&proxy, "lms_proxy_exchanges_in_flight"), Some(1.0));
    link.send(chat_reply());
    client.reply();
    until("an idle worker", || (sample(&proxy, "lms_proxy_exchanges_in_flight") == Some(0.0)).then_some(()));
}

#[test]
fn the_report_is_text_unless_json_is_asked_for() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    proxy.ask(chat());
    let report = |accept: &str| proxy.ask(format!("GET /stats HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n"));
    let text = report("Accept: */*\r\n");
    assert_eq!(text.field("content-type"), Some("text/plain; charset=utf-8"));
    assert!(text.text().contains("\nall time              1        0"), "{}", text.text());
    // The first line tells the minute.
    let after_title = |reply: &Message| reply.text().split_once('\n').expect("lines").1.to_owned();
    assert_eq!(after_title(&report("")), after_title(&text));
    let json = report("Accept: text/html;q=0.1, Application/JSON\r\n");
    assert_eq!(json.field("content-type"), Some("application/json"));
    let json = json.json();
    for span in ["today", "last_7_days", "last_30_days", "all_time"] {
        assert_eq!(json[span], proxy.json("/stats/summary"), "{span}");
    }
    assert_eq!(json["models"], proxy.json("/stats/by-model")["models"]);
    assert_eq!(json["requests"], proxy.json("/stats/recent")["requests"]);
}

#[test]
fn curl_gets_the_report_where_a_browser_gets_the_page() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::with(&upstream, &[("STATS_TOKEN", "s3cret")]);
    let ask = |accept: &str, query: &str| {
        proxy.ask(format!("GET /?token=s3cret{query} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"))
    };
    proxy.ask(chat());
    let page = ask("text/html,application/xhtml+xml,*/*;q=0.8", "");
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    let report = ask("*/*", "");
    assert_eq!(report.field("content-type"), Some("text/plain; charset=utf-8"));
    assert!(report.text().starts_with("LMS Metrics Proxy ") && report.text().ends_with('\n'), "{}", report.text());
    let widest = |text: &str| text.lines().map(str::len).max();
    assert_eq!((widest(report.text()), widest(ask("*/*", "&width=120").text())), (Some(80), Some(120)));
    assert_eq!(ask("application/json", "").json()["all_time"]["total_requests"], 1);
    let unwanted = ask("text/html;q=0, */*", "");
    assert_eq!(unwanted.field("content-type"), Some("text/plain; charset=utf-8"));
    let unwanted = ask("application/json;q=0, text/plain", "");
    assert_eq!(unwanted.field("content-type"), Some("text/plain; charset=utf-8"));
    let locked = proxy.ask("GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
    assert_eq!((locked.status(), locked.field("content-type")), (401, Some("application/json")));
    // What depends on it says so.
    let varies = |reply: &Message| reply.field("vary").is_some_and(|vary| vary.starts_with("Accept"));
    assert!(varies(&page) && varies(&report) && varies(&locked));
    for path in ["/stats", "/stats/now", "/stats/line", "/stats/time", "/stats/prefix", "/metrics"] {
        assert!(varies(&proxy.ask(get(&format!("{path}?token=s3cret")))), "{path}");
    }
    for (path, status) in [("/health", 200), ("/stats/by-model", 401), ("/nothing", 404), ("/v1/../x", 400)] {
        let reply = proxy.ask(get(path));
        assert!(reply.text().ends_with('\n'), "{path}");
        assert!(
            (reply.status(), reply.field("date").is_some_and(|date| date.ends_with(" GMT"))) == (status, true),
            "{path}"
        );
    }
}

#[test]
fn answers_come_as_tables_for_people_and_compressed_where_asked() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let proxy = Proxy::before(&upstream);
    proxy.ask(chat());
    let groups = proxy.ask(get("/stats/by-model?format=csv"));
    assert_eq!(groups.field("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let lines: Vec<Vec<&str>> = groups.text().lines().map(|line| line.split(',').collect()).collect();
    let group = &proxy.json("/stats/by-model")["models"][0];
    let cells: Vec<&str> = lines[0].iter().map(|name| group[*name].as_str().unwrap_or("a figure")).collect();
    assert_eq!(
        (lines.len(), lines[1][0], cells[0], lines[0].len()),
        (2, "m-1", "m-1", group.as_object().expect("one").len())
    );
    for (query, first, count) in [
        ("", "start,total_requests", 17),
        ("&percentiles", "start,total_requests", 23),
        ("&by=model", "start,model,requests", 17),
    ] {
        let points = proxy.ask(get(&format!("/stats/over-time?format=csv&from=-1d{query}")));
        assert!(points.text().starts_with(first), "{}", points.text());
        assert!(points.text().lines().all(|line| line.split(',').count() == count), "{}", points.text());
    }
    let points = proxy.json("/stats/over-time?bucket=month&percentiles=1");
    assert_eq!(points["percentile_error_max_percent"], 5);
    assert!(points["points"][0]["p95_duration_ms"].is_number(), "{points}");
    assert!(points["points"][0]["p95_time_to_first_token_ms"].is_null(), "{points}");
    let pretty = proxy.ask(get("/stats/requests/1?pretty"));
    assert!(pretty.text().starts_with("{\n  \"id\": 1,\n"), "{}", pretty.text());
    assert_eq!(pretty.json(), proxy.json("/stats/requests/1"));
    let compressed = proxy.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(compressed.field("content-encoding"), Some("gzip"));
    let plain = proxy.ask(get("/metrics"));
    assert_eq!((plain.field("content-encoding"), plain.field("vary")), (None, Some("Accept, Accept-Encoding")));
    assert_eq!(proxy.ask(get("/metrics?pretty")).status(), 400);
    assert!(compressed.body.len() * 3 < plain.body.len());
    assert_eq!(proxy.ask(get("/stats/summary?from=2026-02-01&to=2026-01-01")).status(), 400);
}

#[test]
fn the_page_is_for_everybody_and_its_figures_for_those_with_the_token() {
    let upstream = Upstream::new();
    let proxy = Proxy::with(&upstream, &[("STATS_TOKEN", "s3cret")]);
    for (path, status) in [("/", 401), ("/?token=wrong", 401), ("/?token=s3cret", 200)] {
        let page = proxy.ask(get(path));
        assert_eq!((page.status(), page.field("content-type")), (status, Some("text/html; charset=utf-8")), "{path}");
        let policy = page.field("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(page.text().ends_with("</html>\n"));
    }
    for path in ["/stats", "/metrics", "/stats/live"] {
        assert_eq!(proxy.ask(get(path)).status(), 401, "{path}");
        let head = format!("HEAD {path}?token=s3cret HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let mut client = proxy.connect();
        client.send(head);
        assert_eq!(client.bodiless_reply().status(), 200, "{path}");
    }
}
