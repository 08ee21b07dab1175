//! A row for each generation, committed before its client knows that it is over.

use rusqlite::Connection;

use super::*;

#[test]
fn a_prediction_has_its_row_before_the_client_has_its_end() {
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    open.answers(&progress(1, 90));
    open.answers(&fragment(1, "lo"));
    assert_eq!(open.proxy.rows(), []);
    open.answers(&success(1, "eosFound", 3));
    let row = open.proxy.row();
    assert_eq!(
        (row.endpoint.as_str(), row.outcome.as_str(), row.http_status),
        ("/llm/predict", "completed", Some(101))
    );
    assert_eq!((row.requested_model.as_deref(), row.model.as_str()), (Some("qwen3"), "qwen3:2"));
    assert_eq!((counts(&row), row.was_streamed), ([Some(100), Some(3), Some(103), Some(90)], true));
    assert_eq!((row.finish_reason.as_deref(), row.client.as_deref()), (Some("eosFound"), Some("lmstudio-js")));
    assert_eq!(row.output.as_deref(), Some("Hello"));
    assert!(row.prompt.as_deref().is_some_and(|prompt| prompt.contains("Hi")), "{row:?}");
    open.answers(&closed(1));
    // The number is free again, and a figure that is not told is unknown.
    open.predicting(1);
    open.answers(&told(1, r#"{"type":"success","stats":{},"modelInfo":{"identifier":"qwen3:2"}}"#));
    open.answers(&closed(1));
    open.predicting(1);
    open.answers(&told(1, r#"{"type":"success"}"#));
    let rows = open.proxy.rows();
    for row in &rows[1..] {
        assert_eq!((row.outcome.as_str(), counts(row), &row.finish_reason), ("completed", [None; 4], &None));
    }
    assert_eq!(rows.len(), 3);
    let summary = open.proxy.json("/stats/summary");
    assert_eq!((&summary["total_requests"], &summary["successful_requests"]), (&3.into(), &3.into()));
}

#[test]
fn sixteen_at_once_are_told_apart() {
    // Each has a model, words, counts and an end of its own; their messages come in turn.
    let mut open = Open::welcome(&[]);
    for channel in 0..16 {
        open.asks(
            &predict(channel).replace("qwen3", &format!("asked-{channel}")).replace("Hi", &format!("p{channel}")),
        );
    }
    for (word, backwards) in [("a", false), ("b", true), ("c", false)] {
        for n in 0..16 {
            let channel = if backwards { 15 - n } else { n };
            open.answers(&progress(channel, 10 + channel));
            open.answers(&fragment(channel, &format!("{word}{channel} ")));
        }
    }
    // Four ends, in an order of their own; those of four channels each come in one segment.
    let ends = |channel: usize| match channel % 4 {
        0 => success(channel, "eosFound", channel).replace("qwen3:2", &format!("model-{channel}")),
        1 => success(channel, "userStopped", channel).replace("qwen3:2", &format!("model-{channel}")),
        2 => format!(r#"{{"type":"channelError","channelId":{channel},"error":{{"title":"No. {channel} failed"}}}}"#),
        _ => success(channel, "failed", channel).replace("qwen3:2", &format!("model-{channel}")),
    };
    for group in [3, 1, 0, 2] {
        let messages: Vec<Frame> =
            (0..4).flat_map(|n| [ends(4 * n + group), closed(4 * n + group)]).map(|m| Frame::text(&m)).collect();
        open.link.send(messages.iter().flat_map(Frame::bytes).collect::<Vec<u8>>());
        for message in messages {
            assert_eq!(open.client.frame(), message);
        }
    }
    let rows = open.proxy.rows();
    assert_eq!(rows.len(), 16);
    for channel in 0..16 {
        let asked = format!("asked-{channel}");
        let row = rows.iter().find(|row| row.requested_model.as_ref() == Some(&asked)).expect("a row for each");
        assert_eq!(row.output, Some(format!("a{channel} b{channel} c{channel} ")));
        assert!(row.prompt.as_ref().is_some_and(|prompt| prompt.contains(&format!("\"p{channel}\""))));
        let (outcome, is_counted) = match channel % 4 {
            0 => ("completed", true),
            1 => ("client_closed", true),
            2 => ("error_in_reply", false),
            _ => ("error_in_reply", true),
        };
        assert_eq!(row.outcome, outcome, "{channel}");
        let cached = Some(10 + channel as i64);
        if is_counted {
            let output = channel as i64;
            assert_eq!(counts(row), [Some(100), Some(output), Some(100 + output), cached]);
            assert_eq!(row.model, format!("model-{channel}"));
        } else {
            assert_eq!(counts(row), [None, None, None, cached]);
            assert_eq!(row.error_message, Some(format!("No. {channel} failed")));
            assert_eq!(row.model, asked);
        }
    }
}

#[test]
fn a_cancelled_one_tells_what_it_took() {
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    open.asks(&told(1, r#"{"type":"cancel"}"#));
    open.answers(&success(1, "userStopped", 1));
    open.answers(&closed(1));
    let row = open.proxy.row();
    assert_eq!(
        (row.outcome.as_str(), row.is_error, row.finish_reason.as_deref()),
        ("client_closed", false, Some("userStopped"))
    );
    assert_eq!(counts(&row), [Some(100), Some(1), Some(101), None]);
}

#[test]
fn errors_are_told_in_lm_studio_s_words() {
    let error = r#""error":{"title":"Out of memory","rootTitle":"x","suggestion":"y"}"#;
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    open.answers(&format!(r#"{{"type":"channelError","channelId":1,{error}}}"#));
    let row = open.proxy.row();
    assert_eq!((row.outcome.as_str(), row.error_message.as_deref()), ("error_in_reply", Some("Out of memory")));
    let mut open = Open::at("/embedding");
    open.asks(GUEST);
    open.answers(WELCOME);
    open.asks(&embed(1));
    open.answers(&format!(r#"{{"type":"rpcError","callId":1,{error}}}"#));
    open.asks(&embed(2));
    open.answers(&embedded(2));
    let rows = open.proxy.rows();
    let of = |row: &Row| (row.outcome.clone(), row.error_message.clone(), row.prompt.clone(), row.was_streamed);
    let word = Some("a word".to_owned());
    assert_eq!(of(&rows[0]), ("error_in_reply".into(), Some("Out of memory".into()), word.clone(), false));
    assert_eq!(of(&rows[1]), ("completed".into(), None, word, false));
    assert!(rows.iter().all(|row| row.endpoint == "/embedding/embedString" && row.model == "nomic"), "{rows:?}");
    assert!(rows.iter().all(|row| counts(row) == [None; 4]), "{rows:?}");
    assert_eq!(rows.len(), 2);
}

#[test]
fn nothing_else_leaves_a_row() {
    let mut open = Open::welcome(&[]);
    open.asks(r#"{"type":"rpcCall","endpoint":"countTokens","callId":1,"parameter":{"inputString":"a"}}"#);
    open.answers(r#"{"type":"rpcResult","callId":1,"result":{"tokenCount":1}}"#);
    open.asks(r#"{"type":"channelCreate","endpoint":"loadModel","channelId":1,"creationParameter":{"modelKey":"m"}}"#);
    open.answers(&told(1, r#"{"type":"success","info":{"identifier":"m","instanceReference":"r"}}"#));
    open.answers(&closed(1));
    // What only looks like a prediction, and an embedding where there are none.
    open.asks(r#"{"type":"channelSend","channelId":2,"message":{"endpoint":"predict"}}"#);
    open.asks(&embed(3));
    open.answers(&embedded(3));
    open.client.send(Frame::new(FIN | BINARY, predict(4)).masked().bytes());
    open.link.frame();
    open.answers(&success(4, "eosFound", 3));
    assert_eq!(open.proxy.rows(), []);
    for path in ["/system", "/files", "/v1/llm"] {
        let mut other = Open::at(path);
        other.asks(GUEST);
        other.asks(&predict(1));
        other.answers(&success(1, "eosFound", 3));
        assert_eq!(other.proxy.rows(), [], "{path}");
    }
}

#[test]
fn compressed_messages_pass_and_leave_none() {
    // A server may compress although nobody has offered it.
    let mut open = Open::at("/llm");
    open.asks(GUEST);
    let squeezed = Frame::new(0xc1, [0xaa, 0x56, 0x2a, 0x2e, 0x4d, 0x4e, 0x4e, 0x2d, 0x2e, 0x56, 0xb2]);
    for _ in 0..3 {
        open.link.send(squeezed.bytes());
        assert_eq!(open.client.frame(), squeezed);
        open.client.send(squeezed.clone().masked().bytes());
        assert_eq!(open.link.frame(), squeezed.clone().masked());
    }
    open.proxy.check_sound();
    assert_eq!(open.proxy.rows(), []);
}

#[test]
fn one_token_is_one_key_on_whichever_way_it_comes() {
    let mut open = Open::at("/llm");
    open.asks(r#"{"authVersion":1,"clientIdentifier":"sk-lm-12345678","clientPasskey":"abcdefghij0123456789"}"#);
    open.answers(WELCOME);
    open.predicting(1);
    open.answers(&success(1, "eosFound", 3));
    let bearer = "Authorization: Bearer sk-lm-12345678:abcdefghij0123456789\r\nHost:";
    let mut client = open.proxy.connect();
    client.send(chat().replace("Host:", bearer));
    let mut link = open.upstream.accept();
    link.request();
    link.send(reply("200 OK", "application/json\r\nConnection: close", CHAT_REPLY));
    client.reply();
    // A guest has none, nor has who is refused.
    let (mut guest, mut link) = websocket(open.proxy.address(), &open.upstream, "/llm");
    guest.send(Frame::text(GUEST).masked().bytes());
    link.frame();
    guest.send(Frame::text(&predict(1)).masked().bytes());
    link.frame();
    link.send(Frame::text(&success(1, "eosFound", 3)).bytes());
    guest.frame();
    let rows = open.proxy.rows();
    assert_eq!(rows.len(), 3);
    assert!(rows[0].key.is_some() && rows[0].key == rows[1].key, "{rows:?}");
    assert_eq!(rows[2].key, None);
    // It is kept nowhere.
    let (log, folder) = open.proxy.kill();
    for name in folder.names() {
        let bytes = std::fs::read(folder.path().join(&name)).expect("a file");
        assert!(!bytes.windows(20).any(|window| window == b"abcdefghij0123456789"), "{name}");
    }
    assert!(!log.iter().any(|line| line.contains("abcdefghij")), "{log:?}");
}

#[test]
fn where_no_words_are_kept_there_are_none() {
    let mut open = Open::welcome(&[("LOG_CONTENT", "none")]);
    open.predicting(1);
    open.answers(&success(1, "eosFound", 3));
    open.predicting(2);
    open.answers(r#"{"type":"channelError","channelId":2,"error":{"title":"it said Hi"}}"#);
    let rows = open.proxy.rows();
    assert!(rows.len() == 2 && rows.iter().all(|row| (&row.prompt, &row.output) == (&None, &None)), "{rows:?}");
    assert_eq!(counts(&rows[0])[..3], [Some(100), Some(3), Some(103)]);
    assert!(rows[1].error_message.as_deref().is_some_and(|words| !words.contains("Hi")), "{rows:?}");
}

#[test]
fn a_locked_database_holds_up_its_end_for_a_while_and_loses_no_row() {
    let mut open = Open::welcome(&[]);
    (1..=20).for_each(|channel| open.predicting(channel));
    let lock = Connection::open(open.proxy.folder().database()).expect("a database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("nobody else writes now");
    let ends: Vec<Frame> = (1..=20).map(|channel| Frame::text(&success(channel, "eosFound", 3))).collect();
    open.link.send([ends.iter().flat_map(Frame::bytes).collect(), ping().bytes()].concat());
    open.client.send(ping().masked().bytes());
    // Other frames wait no longer than the end does.
    assert_eq!(open.link.frame(), ping().masked());
    ends.iter().for_each(|end| assert_eq!(open.client.frame(), *end));
    assert_eq!(open.client.frame(), ping());
    assert_eq!(open.proxy.json("/health")["status"], "ok");
    assert_eq!(open.proxy.rows(), []);
    lock.execute_batch("COMMIT").expect("an open transaction");
    let rows = open.proxy.wait_for_rows(20);
    assert!(rows.len() == 20 && rows.iter().all(|row| row.total_tokens == Some(103)), "{rows:#?}");
}

#[test]
fn a_client_may_end_its_side_while_the_end_is_held() {
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    let lock = Connection::open(open.proxy.folder().database()).expect("a database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("nobody else writes now");
    let end = Frame::text(&success(1, "eosFound", 3));
    open.link.send(end.bytes());
    open.client.half_close();
    assert_eq!(open.client.frame(), end);
    assert_eq!(open.link.rest(), b"");
    open.answers(&closed(1));
    lock.execute_batch("COMMIT").expect("an open transaction");
    assert_eq!(open.proxy.wait_for_rows(1)[0].outcome, "completed");
}

/// Locks the database, lets the end through and kills the proxy when its client has that: were it not held, the attempt
/// could not have failed yet. Elsewhere than on Linux the log's last lines may end with a process that is killed.
#[cfg(target_os = "linux")]
#[test]
fn the_end_waits_until_its_row_was_tried() {
    let mut open = Open::welcome(&[]);
    open.predicting(1);
    let lock = Connection::open(open.proxy.folder().database()).expect("a database");
    lock.execute_batch("BEGIN EXCLUSIVE").expect("nobody else writes now");
    open.answers(&success(1, "eosFound", 3));
    let (log, _) = open.proxy.kill();
    assert!(log.iter().any(|line| line.contains("does not take rows")), "{log:#?}");
    drop(lock);
}
