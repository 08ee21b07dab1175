//! What goes on in a WebSocket is shown, and called off with it.

use super::*;

fn exchanges(proxy: &Proxy) -> Vec<serde_json::Value> {
    let reply = proxy.ask("GET /stats/now HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    reply.json()["exchanges"].as_array().expect("a list").clone()
}

#[test]
fn each_prediction_is_shown_while_it_goes_on() {
    let mut open = Open::welcome(&[]);
    assert!(exchanges(&open.proxy).is_empty(), "an idle WebSocket is none");
    open.asks(&predict(1));
    open.asks(&predict(2));
    let waiting = exchanges(&open.proxy);
    assert_eq!(waiting.len(), 2);
    for one in &waiting {
        assert_eq!(
            (&one["endpoint"], &one["model"], &one["phase"]),
            (&"/llm/predict".into(), &"qwen3".into(), &"waiting".into())
        );
        assert_eq!((&one["client"], &one["events"]), (&"lmstudio-js".into(), &0.into()));
        assert!(one["body_bytes"].as_u64().expect("a number") > 50);
    }
    open.answers(&progress(1, 90));
    for word in ["Hel", "lo"] {
        open.answers(&fragment(1, word));
    }
    let both = exchanges(&open.proxy);
    assert_eq!((&both[0]["phase"], &both[0]["events"]), (&"generating".into(), &2.into()));
    assert_eq!((&both[0]["output_tokens"], &both[1]["phase"]), (&serde_json::Value::Null, &"waiting".into()));
    open.answers(&success(1, "eosFound", 2));
    open.answers(&closed(1));
    let one = exchanges(&open.proxy);
    assert_eq!((one.len(), &one[0]["id"]), (1, &both[1]["id"]));
}

#[test]
fn calling_one_off_ends_its_websocket_with_all_that_goes_on_in_it() {
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    open.asks(&predict(2));
    let ids: Vec<u64> = exchanges(&open.proxy).iter().map(|one| one["id"].as_u64().expect("a number")).collect();
    let delete = |id: u64| format!("DELETE /stats/now/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let reply = open.proxy.ask(delete(ids[1]));
    assert_eq!((reply.status(), &reply.json()["called_off"]), (202, &serde_json::json!(ids)));
    // Neither a close frame nor an end of the prediction: both sides see a cut.
    assert!(open.client.is_reset());
    open.link.wait_for_end();
    let rows = open.proxy.wait_for_rows(2);
    assert!(rows.iter().all(|row| row.outcome == "cancelled_here" && !row.is_error), "{rows:?}");
    assert!(exchanges(&open.proxy).is_empty());
    assert_eq!(open.proxy.ask(delete(ids[0])).status(), 404);
    wait_for_sockets(&open.proxy, "0");
    open.proxy.check_sound();
}

#[test]
fn what_is_loaded_on_a_websocket_is_known() {
    let mut open = Open::welcome(&[]);
    open.asks(
        r#"{"type":"channelCreate","endpoint":"getOrLoad","channelId":0,"creationParameter":{"identifier":"qwen3"}}"#,
    );
    open.answers(&told(0, r#"{"type":"loadSuccess","info":{"identifier":"qwen3","modelKey":"qwen3","instanceReference":"Ab","contextLength":8192,"maxContextLength":32768}}"#));
    let reply = open.proxy.ask("GET /stats/now HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n");
    let model = &reply.json()["models"][0];
    assert_eq!((&model["model"], &model["state"]), (&"qwen3".into(), &"loaded".into()));
    assert_eq!((&model["context_tokens"], &model["context_tokens_max"]), (&8192.into(), &32768.into()));
}
