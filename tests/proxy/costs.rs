//! What requests would have cost, also as another model of the list, and what was saved.

use std::fs;

use serde_json::Value;

use crate::harness::*;

/// One model costs a thousand times what any other does.
const LIST: &str = r#"{"currency": "EUR", "models": [
    {"model": "dear", "input": 1000, "output": 1000}, {"model": "*", "input": 1, "output": 1}]}"#;

/// With a list of prices, in a folder beside.
fn proxy(upstream: &Upstream) -> (Folder, Proxy) {
    let folder = Folder::new();
    let list = folder.path().join("prices.json");
    fs::write(&list, LIST).expect("writes");
    let list = list.to_str().expect("a plain path");
    let proxy = Proxy::with(upstream, &[("MODEL_PRICES", list), ("POWER_WATTS", "100000"), ("POWER_PRICE", "2000")]);
    (folder, proxy)
}

#[test]
fn every_route_that_tells_costs_tells_them_as_another_model_when_asked() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let (_folder, proxy) = proxy(&upstream);
    let mut events = ["/stats/live", "/stats/live?as=dear"].map(|path| {
        let mut listener = proxy.connect();
        listener.send(get(path));
        listener.wait_for("\r\n\r\n");
        listener
    });
    proxy.ask(chat());
    // The last cost in an answer: that of a group is behind that of a point.
    let cost = |answer: &str| -> f64 {
        let (_, rest) = answer.rsplit_once("\"cost\":").expect(answer);
        rest[..rest.find([',', '}']).expect(answer)].parse().expect(answer)
    };
    let check = |own: &str, dear: &str| {
        let (own, dear) = (cost(own), cost(dear));
        assert!(own > 0.0 && (dear / own - 1000.0).abs() < 1e-6, "{own} {dear}");
    };
    let told = events.each_mut().map(|listener| listener.through("\n\n"));
    check(&told[0], &told[1]);
    let conversation = proxy.json("/stats/recent")["requests"][0]["conversation"].clone();
    let conversation = format!("/stats/conversations/{}", conversation.as_str().expect("it has one"));
    let paths = [
        "/stats/summary",
        "/stats/by-model",
        "/stats/by-client",
        "/stats/over-time",
        "/stats/over-time?by=key",
        "/stats/recent",
        "/stats/requests",
        "/stats/requests/1",
        "/stats/search?q=hi",
        "/stats/conversations",
        &conversation,
        "/stats/export?format=jsonl",
    ];
    for path in paths {
        let with = if path.contains('?') { "&" } else { "?" };
        let ask = |path: &str| proxy.ask(get(path)).text().to_owned();
        check(&ask(path), &ask(&format!("{path}{with}as=dear")));
        // What is kept of one is none of the other's.
        check(&ask(path), &ask(&format!("{path}{with}as=dear")));
    }
    let report = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
        proxy.ask(request).text().to_owned()
    };
    check(&report("/stats"), &report("/stats?as=dear"));
    // The page lets one of these be chosen; patterns are no models.
    let told: Value = serde_json::from_str(&report("/stats")).expect("JSON");
    assert_eq!(told["priced_as"], serde_json::json!(["dear"]));
}

#[test]
fn a_model_that_is_not_in_the_list_is_refused_with_some_that_are() {
    let upstream = Upstream::new();
    let (_folder, proxy) = proxy(&upstream);
    for path in ["/stats/summary", "/stats/export", "/stats/live", "/stats/requests/1", "/stats"] {
        let reply = proxy.ask(get(&format!("{path}?as=cheap")));
        assert_eq!(reply.status(), 400, "{path}");
        let message = reply.json()["error"]["message"].as_str().map(str::to_owned).expect("an error");
        assert_eq!(message, "as is \"cheap\": MODEL_PRICES has no such model; it has dear, *.");
    }
    let unpriced = Proxy::before(&upstream).ask(get("/stats/summary?as=dear"));
    assert_eq!(unpriced.status(), 400);
    assert!(unpriced.text().contains("MODEL_PRICES is not set"));
}

#[test]
fn the_summary_tells_what_electricity_took_and_what_was_saved() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let (_folder, proxy) = proxy(&upstream);
    let none = proxy.json("/stats/summary");
    let of = |answer: &Value, name: &str| answer[name].as_f64().unwrap_or_else(|| panic!("{name} is not in {answer}"));
    assert_eq!(["energy_wh", "electricity_cost", "saved"].map(|name| of(&none, name)), [0.0; 3]);
    proxy.ask(chat());
    let one = proxy.json("/stats/summary");
    // A watt hour costs two.
    let (energy, cost) = (of(&one, "energy_wh"), of(&one, "electricity_cost"));
    assert!((cost - energy * 2.0).abs() < 0.01, "{one}");
    assert!((of(&one, "saved") - (of(&one, "cost") - cost)).abs() < 2e-6, "{one}");
    assert_eq!(one["electricity_currency"], "EUR");
    let models = proxy.json("/stats/by-model");
    assert!((of(&models["models"][0], "energy_wh") - energy).abs() < 1e-9, "{models}");
    // Without the settings nothing is said of it.
    let plain = Proxy::before(&upstream);
    plain.ask(chat());
    assert!(plain.json("/stats/summary").get("energy_wh").is_none());
}
