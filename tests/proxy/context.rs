//! How full a context is, and prompts that are silently cut: before an upstream whose context holds 4096 tokens, and that
//! says nothing of what it leaves out.

use serde_json::{Value, json};

use crate::harness::*;

/// A token is four bytes here.
fn upstream_that_cuts() -> Upstream {
    Upstream::answering(|link, request| {
        let text = request.text();
        if text.is_empty() {
            let listed = r#"{"data":[{"id":"m-1","state":"loaded","loaded_context_length":4096}]}"#;
            return link.send(reply("200 OK", "application/json", listed));
        }
        let body: Value = serde_json::from_str(text).expect("JSON");
        let bytes = body["messages"][0]["content"].to_string().len();
        let usage = json!({"prompt_tokens": (bytes / 4).min(4096), "completion_tokens": 64});
        let answer = json!({"id": "chatcmpl-1", "model": "m-1", "usage": usage,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hm."}, "finish_reason": "stop"}]});
        link.send(reply("200 OK", "application/json", answer.to_string()));
    })
}

fn ask(proxy: &Proxy, content: &Value) {
    let body = json!({"model": "m-1", "messages": [{"role": "user", "content": content}]});
    assert_eq!(proxy.ask(post("/v1/chat/completions", &body.to_string())).status(), 200);
}

/// Of so many bytes, each beginning with another number: nothing of it was there before.
fn words(number: usize, bytes: usize) -> String {
    let words = ["parse", "the", "header", "and", "return", "what", "follows", "it", "or", "an", "error"];
    let text: String = (0..bytes / 4).map(|at| format!("{} ", words[(at * 7 + at / 11 + number) % 11])).collect();
    format!("{number} {}", &text[..bytes])
}

#[test]
fn a_prompt_that_upstream_cuts_is_suspected_and_counted_and_others_are_not() {
    let upstream = upstream_that_cuts();
    let proxy = Proxy::before(&upstream);
    assert_eq!(proxy.ask(get("/api/v0/models")).status(), 200);
    for number in 0..9 {
        ask(&proxy, &Value::from(words(number, 9000 + 500 * number)));
    }
    ask(&proxy, &Value::from(words(10, 60_000)));
    // An image is tokens, too, and how many nobody knows.
    let image = json!([{"type": "text", "text": words(11, 60_000)},
        {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", "iVBORw0KGgo".repeat(3000))}}]);
    ask(&proxy, &image);
    ask(&proxy, &Value::from("Hi"));
    let rows = proxy.json("/stats/requests");
    let told: Vec<Value> = rows["requests"].as_array().expect("rows").iter().rev().cloned().collect();
    let cuts: Vec<&Value> = told.iter().map(|row| &row["prompt_cut"]).collect();
    let (no, unknown) = (json!(false), Value::Null);
    assert_eq!(cuts, [&no, &no, &no, &no, &no, &no, &no, &no, &no, &json!(true), &unknown, &unknown], "{rows}");
    let cut = &told[9];
    assert_eq!((cut["input_tokens"].as_i64(), cut["context_tokens"].as_i64()), (Some(4096), Some(4096)));
    assert_eq!(cut["context_used_percent"].as_f64(), Some(101.6), "{cut}");
    let expected = cut["prompt_expected_tokens"].as_i64().expect("it is known what is usual");
    assert!((13_500..16_500).contains(&expected), "{expected}");
    assert_eq!(proxy.json("/stats/summary")["prompts_cut"], 1);
    assert_eq!(proxy.json("/stats/summary?model=m-1&from=-1h")["prompts_cut"], 1);
    assert_eq!(proxy.json("/stats/summary?model=none")["prompts_cut"], 0);
    assert!(proxy.ask(get("/metrics")).text().contains("\nlms_proxy_prompts_cut_total 1\n"));
    let json = "GET /stats/time?from=-1h HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";
    let times = proxy.ask(json).json();
    assert_eq!(times["times"][0]["prompts_cut"], 1);
    assert!(times["times"][0]["context_used_percent"].as_f64().is_some_and(|percent| percent > 50.0), "{times}");
}

#[cfg(unix)]
#[test]
fn what_is_usual_is_learned_again_after_a_start() {
    let upstream = Upstream::answering(|link, request| {
        let body: Value = serde_json::from_str(request.text()).expect("JSON");
        let bytes = body["messages"][0]["content"].to_string().len();
        // Two bytes a token, of which 16,000 are left.
        let usage = json!({"prompt_tokens": (bytes / 2).min(16_000), "completion_tokens": 1});
        let answer = json!({"id": "chatcmpl-1", "model": "m-1", "usage": usage, "choices": []});
        link.send(reply("200 OK", "application/json", answer.to_string()));
    });
    let mut proxy = Proxy::before(&upstream);
    (0..9).for_each(|number| ask(&proxy, &Value::from(words(number, 20_000))));
    proxy.signal("TERM");
    proxy.wait();
    let url = upstream.url();
    let proxy = Proxy::start(proxy.folder(), &[("LM_STUDIO_URL", &url)]);
    ask(&proxy, &Value::from(words(9, 40_000)));
    let row = proxy.json("/stats/recent?limit=1")["requests"][0].clone();
    let expected = row["prompt_expected_tokens"].as_i64().expect("it is known");
    assert!((18_000..22_000).contains(&expected), "{row}");
    assert_eq!((&row["prompt_cut"], &row["context_tokens"]), (&json!(false), &Value::Null));
}
