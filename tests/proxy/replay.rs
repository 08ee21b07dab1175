//! A request once more: its body as it was sent, and what was shared with earlier ones.

use crate::harness::*;

fn error_code(reply: &Message) -> String {
    let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    body["error"]["code"].as_str().expect("a code").to_owned()
}

fn answering() -> Upstream {
    Upstream::answering(|link, _| link.send(chat_reply()))
}

#[test]
fn a_body_comes_back_as_it_was_sent_and_runs_again() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    let long = "A long text, with \u{fc} and \\\"quotes\\\". ".repeat(1000);
    for (at, text) in (0..).zip(["Hi", &long]) {
        let body =
            format!("{{ \"model\" : \"m\",\n\t\"messages\":[ {{\"role\":\"user\",\"content\":\"{text}\"}} ] }}\n");
        assert_eq!(proxy.ask(post("/v1/chat/completions", &body)).status(), 200);
        let id = 2 * at + 1;
        let reply = proxy.ask(get(&format!("/stats/requests/{id}/body")));
        assert_eq!((reply.status(), reply.text()), (200, body.as_str()));
        assert_eq!(reply.field("content-type"), Some("application/json"));
        assert_eq!(reply.field("cache-control"), Some("no-store"));
        let replay = reply.field("x-replay-of").expect("a name for the replay");
        let again =
            post("/v1/chat/completions", reply.text()).replacen("\r\n", &format!("\r\nX-Replay-Of: {replay}\r\n"), 1);
        assert_eq!(proxy.ask(again).status(), 200);
        let row = proxy.json(&format!("/stats/requests/{}", id + 1));
        assert_eq!((&row["replay_of"], row["prompt"].as_str()), (&id.into(), Some(body.as_str())));
    }
    assert_eq!(proxy.ask(get("/stats/requests/99/body")).status(), 404);
    assert_eq!(proxy.ask(get("/stats/requests/1/body?limit=1")).status(), 400);
}

#[test]
fn a_body_that_is_not_there_as_it_was_sent_is_a_conflict_that_says_why() {
    let upstream = answering();
    let check = |setting: (&str, &str), body: &str, code: &str| {
        let proxy = Proxy::with(&upstream, &[setting]);
        assert_eq!(proxy.ask(post("/v1/chat/completions", body)).status(), 200);
        let reply = proxy.ask(get("/stats/requests/1/body"));
        assert_eq!((reply.status(), error_code(&reply).as_str()), (409, code));
        assert_eq!(reply.field("x-replay-of"), None);
    };
    let full = ("LOG_CONTENT", "full");
    check(("LOG_CONTENT", "none"), r#"{"messages":[{"role":"user","content":"Hi"}]}"#, "body_not_stored");
    let image = format!("data:image/png;base64,{}", "A".repeat(4000));
    let with_image = format!(
        r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{image}"}}}}]}}]}}"#
    );
    check(full, &with_image, "body_replaced");
    let long = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "long ".repeat(1000));
    check(("CONTENT_KB_MAX", "1"), &long, "body_cut");
}

/// Two turns, of which the second has another system text.
fn two_turns(proxy: &Proxy) {
    for time in ["10:31:07", "10:32:25"] {
        let body = format!(
            r#"{{"model":"m-1","messages":[{{"role":"system","content":"It is {time}. You are an agent."}},{{"role":"user","content":"Go on."}}]}}"#
        );
        let request = post("/v1/chat/completions", &body).replacen("\r\n", "\r\nUser-Agent: agent/1\r\n", 1);
        assert_eq!(proxy.ask(request).status(), 200);
    }
}

#[test]
fn why_prompts_were_read_anew_is_summed_for_people_programs_and_prometheus() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    two_turns(&proxy);
    let rows: Vec<serde_json::Value> = (1..3).map(|id| proxy.json(&format!("/stats/requests/{id}"))).collect();
    let table = proxy.ask(get("/stats/prefix"));
    assert_eq!(table.field("content-type"), Some("text/plain; charset=utf-8"));
    assert!(table.text().contains("system_changed") && table.text().contains("an estimate"), "{}", table.text());
    let ask = |query: &str| {
        let request = get(&format!("/stats/prefix{query}")).replacen("\r\n", "\r\nAccept: application/json\r\n", 1);
        serde_json::from_slice::<serde_json::Value>(&proxy.ask(request).body).expect("JSON")
    };
    let all = ask("");
    let sum = |field: &str| rows.iter().map(|row| row[field].as_i64().expect("a figure")).sum::<i64>();
    assert_eq!(all["requests"], 2);
    assert_eq!(all["prompt_bytes"], sum("prompt_bytes"));
    assert_eq!(all["new_bytes"], sum("prompt_bytes") - sum("prefix_bytes"));
    let mut reasons: Vec<&str> =
        all["prefixes"].as_array().expect("a list").iter().filter_map(|one| one["prefix_break"].as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["first", "system_changed"]);
    assert_eq!(ask("?client=somebody")["requests"], 0);
    assert_eq!(ask("?model=m-1&from=-1h")["requests"], 2);
    assert_eq!(proxy.ask(get("/stats/prefix?limit=1")).status(), 400);
    let metrics = proxy.ask(get("/metrics"));
    for line in [
        format!("lms_proxy_prompt_bytes_total {}", sum("prompt_bytes")),
        format!("lms_proxy_prompt_shared_bytes_total {}", sum("prefix_bytes")),
        r#"lms_proxy_prompt_breaks_total{reason="system_changed"} 1"#.to_owned(),
        r#"lms_proxy_prompt_breaks_total{reason="unexpected"} 0"#.to_owned(),
    ] {
        assert!(metrics.text().lines().any(|told| told == line), "{line}");
    }
}

#[test]
fn a_person_is_told_where_a_prompt_broke_and_no_key_with_it() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    two_turns(&proxy);
    let ask = |id: i64| proxy.ask(get(&format!("/stats/requests/{id}/prefix"))).text().to_owned();
    let row = proxy.json("/stats/requests/2");
    let told = ask(2);
    for words in [
        "2  agent  m-1   prompt ".to_owned(),
        format!("shares {} bytes (", row["prefix_bytes"]),
        ") with 1, ".to_owned(),
        format!("breaks in the system text at byte {}\n", row["prefix_bytes"]),
        "  1  ".to_owned(),
        "It is 10:3|1:07. You are an agent.".to_owned(),
        "It is 10:3|2:25. You are an agent.".to_owned(),
        "system_changed: without it 100.0 % would have been shared".to_owned(),
    ] {
        assert!(told.contains(&words), "{words} is not in\n{told}");
    }
    assert!(ask(1).contains("first: no earlier prompt"), "{}", ask(1));
    let request = get("/stats/requests/2/prefix").replacen("\r\n", "\r\nAccept: application/json\r\n", 1);
    let json: serde_json::Value = serde_json::from_slice(&proxy.ask(request).body).expect("JSON");
    assert_eq!((&json["prefix_of"], &json["prefix_break"]), (&1.into(), &"system_changed".into()));
    assert_eq!(json["parted"]["element_bytes"], row["prefix_bytes"]);
    assert!(json["parted"]["now"].as_str().expect("words").contains("10:3|2:25"), "{json}");
    assert_eq!(proxy.ask(get("/stats/requests/99/prefix")).status(), 404);
    // The break cuts a key in two, or stands within one.
    let key = "ghp_0123456789abcdefghij0123456789abcdefghij";
    for end in ["x", "y"] {
        let text = format!("The key is {}{end}{} .", &key[..20], &key[20..]);
        let body = format!(r#"{{"model":"m-2","messages":[{{"role":"user","content":"{text}"}}]}}"#);
        assert_eq!(proxy.ask(post("/v1/chat/completions", &body)).status(), 200);
    }
    let told = ask(4);
    assert!(told.contains("[hidden]|[hidden]") && told.contains(" with 3, "), "{told}");
    assert!(!told.contains("ghp_") && !told.contains("0123"), "{told}");
}

#[test]
fn without_words_it_is_the_figures_that_tell_of_a_break() {
    let upstream = answering();
    let proxy = Proxy::with(&upstream, &[("LOG_CONTENT", "none")]);
    two_turns(&proxy);
    let told = proxy.ask(get("/stats/requests/2/prefix")).text().to_owned();
    assert!(told.contains(") with 1, ") && told.contains("system_changed: "), "{told}");
    assert!(!told.contains("10:3") && !told.contains("breaks in"), "{told}");
}

#[test]
fn what_changed_between_two_prompts_is_shown_as_diff_does() {
    let upstream = answering();
    let proxy = Proxy::before(&upstream);
    two_turns(&proxy);
    let ask = |path: &str| proxy.ask(get(&format!("/stats/requests/{path}")));
    let told = ask("1/diff/2");
    assert_eq!(told.field("content-type"), Some("text/plain; charset=utf-8"));
    for line in ["-It is 10:31:07. You are an agent.", "+It is 10:32:25. You are an agent."] {
        assert!(told.text().lines().any(|one| one == line), "{line} is not in\n{}", told.text());
    }
    assert!(!told.text().contains("Go on."), "{}", told.text());
    assert_eq!(ask("1/diff/1").text(), "");
    assert_eq!(ask("1/diff/99").status(), 404);
    let without_words = Proxy::with(&upstream, &[("LOG_CONTENT", "none")]);
    two_turns(&without_words);
    let lost = without_words.ask(get("/stats/requests/1/diff/2"));
    assert_eq!((lost.status(), error_code(&lost).as_str()), (409, "body_not_stored"));
}
