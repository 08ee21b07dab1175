//! Every byte passes as it came, in both directions and however it is cut.

#[cfg(target_os = "linux")]
use std::thread;

use super::*;

#[test]
fn both_ends_read_the_frames_that_the_other_sends() {
    let Open { mut client, mut link, proxy: _proxy, upstream: _upstream } = Open::at("/llm");
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let frame = Frame::new(FIN | BINARY, vec![b'x'; length]);
        client.send(frame.clone().masked().bytes());
        assert_eq!(link.frame(), frame.clone().masked());
        link.send(frame.bytes());
        assert_eq!(client.frame(), frame);
    }
}

#[test]
fn what_makes_no_sense_passes_too() {
    // Reserved bits and opcodes, a mask from the wrong side, continuations of nothing, lengths that are too long, and
    // bytes that are no frames at all.
    let Open { mut client, mut link, proxy, upstream: _upstream } = Open::at("/llm");
    let mut nonsense: Vec<Vec<u8>> = (0..=255).map(|first| Frame::new(first, "{}").bytes()).collect();
    nonsense.push(Frame::text("{\"type\":").masked().bytes());
    nonsense.push(Frame::new(FIN | TEXT, [0xff, 0xfe]).bytes());
    nonsense.push(vec![0x81, 126, 0, 2, b'{', b'}']);
    nonsense.push([&[0x81, 127][..], &[0xff; 8], b"HTTP/1.1 400 Bad Request\r\n\r\n"].concat());
    for bytes in nonsense {
        link.send(&bytes);
        assert_eq!(client.exactly(bytes.len()), bytes);
        client.send(&bytes);
        assert_eq!(link.exactly(bytes.len()), bytes);
    }
    proxy.check_sound();
}

#[test]
fn what_comes_with_the_heads_belongs_to_it() {
    // The client does not wait for the answer; upstream says something behind its own.
    let upstream = Upstream::new();
    let proxy = Proxy::before(&upstream);
    let mut client = proxy.connect();
    let said = [GUEST, &predict(1)].map(|message| Frame::text(message).masked());
    client.send([opening("/llm").into_bytes(), said.each_ref().map(Frame::bytes).concat()].concat());
    let mut link = upstream.accept();
    let request = link.request();
    let early = Frame::text(r#"{"type":"communicationWarning","warning":"early"}"#);
    link.send([switching(&request).into_bytes(), early.bytes(), ping().bytes()].concat());
    assert_eq!(client.bodiless_reply().status(), 101);
    assert_eq!([client.frame(), client.frame()], [early, ping()]);
    assert_eq!([link.frame(), link.frame()], said);
    let answers = [WELCOME, &fragment(1, "Hi"), &success(1, "eosFound", 1)].map(Frame::text);
    link.send(answers.each_ref().map(Frame::bytes).concat());
    assert_eq!([client.frame(), client.frame(), client.frame()], answers);
    let row = proxy.row();
    assert_eq!((row.outcome.as_str(), row.output.as_deref(), row.total_tokens), ("completed", Some("Hi"), Some(101)));
}

#[test]
fn a_conversation_may_be_split_at_every_byte() {
    // In each round every frame is split one byte later, and the other end has the first part before the second comes.
    // So the last bytes that wait for a row are the only ones that it must not have by then.
    let Open { mut client, mut link, proxy, upstream: _upstream } = Open::welcome(&[]);
    let mut rounds = 0;
    for split in 1.. {
        let load = |message: &str| Frame::text(&told(2 * split, message));
        let asks = format!(
            r#"{{"type":"channelCreate","endpoint":"getOrLoad","channelId":{},"creationParameter":{{"identifier":"q"}}}}"#,
            2 * split
        );
        let info = r#"{"type":"alreadyLoaded","info":{"identifier":"qwen3:2","instanceReference":"Ab12"}}"#;
        let channel = 2 * split + 1;
        let query = r#"{"type":"query","query":{"identifier":"qwen3"}}"#;
        let reference = r#"{"type":"instanceReference","instanceReference":"Ab12"}"#;
        let conversation = [
            Frame::text(&asks).masked(),
            load(info),
            Frame::text(&closed(2 * split)),
            Frame::text(&predict(channel).replace(query, reference)).masked(),
            Frame::text(&progress(channel, 90)),
            Frame::text(&fragment(channel, "Gr\u{fc}\u{df}")),
            Frame::new(FIN | PING, "p").masked(),
            Frame::new(FIN | PONG, "p"),
            Frame::text(&fragment(channel, " \\\"Gott\\\"")),
            Frame::text(&success(channel, "eosFound", 3)),
            Frame::text(&closed(channel)),
        ];
        let mut splits = 0;
        for frame in &conversation {
            let bytes = frame.bytes();
            let at = split.min(bytes.len());
            splits += usize::from(at < bytes.len());
            for part in [&bytes[..at], &bytes[at..]] {
                if frame.masking_key.is_some() {
                    client.send(part);
                    assert_eq!(link.exactly(part.len()), part);
                } else {
                    link.send(part);
                    assert_eq!(client.exactly(part.len()), part);
                }
            }
        }
        rounds += 1;
        if splits == 0 {
            break;
        }
    }
    assert!(rounds > 200, "{rounds}");
    let rows = proxy.rows();
    assert_eq!(rows.len(), rounds);
    for row in rows {
        assert_eq!((row.outcome.as_str(), row.output.as_deref()), ("completed", Some("Gr\u{fc}\u{df} \"Gott\"")));
        assert_eq!((row.requested_model.as_deref(), row.model.as_str()), (Some("q"), "qwen3:2"));
        assert_eq!(counts(&row), [Some(100), Some(3), Some(103), Some(90)]);
    }
}

#[test]
fn a_message_may_come_in_fragments_with_other_frames_between() {
    let Open { mut client, mut link, proxy, upstream: _upstream } = Open::welcome(&[]);
    for bytes_max in [1, 2, 7, 100] {
        for frame in Frame::text(&predict(1)).masked().in_fragments(bytes_max) {
            client.send([frame.bytes(), ping().masked().bytes()].concat());
            assert_eq!([link.frame(), link.frame()], [frame, ping().masked()]);
        }
        for message in [fragment(1, "Hello"), success(1, "eosFound", 3), closed(1)] {
            let fragments = Frame::text(&message).in_fragments(bytes_max);
            let count = fragments.len();
            for (number, frame) in fragments.into_iter().enumerate() {
                link.send([ping().bytes(), frame.bytes()].concat());
                assert_eq!(client.frame(), ping());
                assert_eq!(client.frame(), frame, "{number} of {count}");
            }
        }
    }
    let rows = proxy.rows();
    let words = rows.iter().map(|row| (row.output.as_deref(), row.total_tokens)).collect::<Vec<_>>();
    assert_eq!(words, [(Some("Hello"), Some(103)); 4]);
}

/// Bytes of a message that repeat at no power of two, so that none that is lost, doubled or misplaced is overlooked.
#[cfg(target_os = "linux")]
fn pattern() -> Vec<u8> {
    (0..65_521_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The head of a binary message of so many bytes. A key of zeros masks nothing.
#[cfg(target_os = "linux")]
fn head_of(bytes: u64, is_masked: bool) -> Vec<u8> {
    let (mask, key): (u8, &[u8]) = if is_masked { (0x80, &[0; 4]) } else { (0, &[]) };
    [&[FIN | BINARY, mask | 127][..], &bytes.to_be_bytes(), key].concat()
}

#[cfg(target_os = "linux")]
#[test]
fn a_message_of_100_mb_passes_through_flat_memory() {
    // Both ways at once; on the way for files, and on one that is read along.
    const PATTERNS: u64 = 1600;
    for path in ["/files", "/llm"] {
        let Open { mut client, mut link, proxy, upstream: _upstream } = Open::at(path);
        let before_kb = proxy.peak_kb();
        let (pattern, proxy) = (pattern(), &proxy);
        let bytes = PATTERNS * pattern.len() as u64;
        assert!(bytes > 100_000_000);
        let (mut sending, mut answering) = (client.twin(), link.twin());
        let pattern = &pattern;
        thread::scope(|scope| {
            scope.spawn(move || {
                sending.send(head_of(bytes, true));
                (0..PATTERNS).for_each(|_| sending.send(pattern));
            });
            scope.spawn(move || {
                answering.send(head_of(bytes, false));
                (0..PATTERNS).for_each(|_| answering.send(pattern));
            });
            scope.spawn(move || {
                assert_eq!(link.exactly(14), head_of(bytes, true));
                (0..PATTERNS).for_each(|n| assert!(link.exactly(pattern.len()) == *pattern, "{n}"));
            });
            assert_eq!(client.exactly(10), head_of(bytes, false));
            (0..PATTERNS).for_each(|n| assert!(client.exactly(pattern.len()) == *pattern, "{n}"));
        });
        let grown_kb = proxy.peak_kb() - before_kb;
        assert!(grown_kb < 8_000, "{path}: {grown_kb} KB");
    }
}

/// What one side sends and the other does not read stalls it; nothing is lost, and little is kept.
#[track_caller]
fn check_stalls(is_client: bool) {
    let Open { mut client, mut link, proxy, upstream: _upstream } = Open::welcome(&[]);
    #[cfg(target_os = "linux")]
    let before_kb = proxy.peak_kb();
    let word = "x".repeat(10_000);
    let frame = match is_client {
        true => Frame::text(&told(1, &format!(r#"{{"type":"x","x":"{word}"}}"#))).masked().bytes(),
        false => Frame::text(&fragment(1, &word)).bytes(),
    };
    let sent = if is_client { client.fill(&frame) } else { link.fill(&frame) };
    #[cfg(target_os = "linux")]
    {
        let grown_kb = proxy.peak_kb() - before_kb;
        assert!(grown_kb < 8_000, "{grown_kb} KB");
    }
    // The other direction has nothing to do with it.
    let (pings, pongs) = (ping().masked().bytes(), ping().bytes());
    if is_client {
        link.send(&pongs);
        assert_eq!(client.exactly(pongs.len()), pongs);
    } else {
        client.send(&pings);
        assert_eq!(link.exactly(pings.len()), pings);
    }
    for at in (0..sent).step_by(frame.len()) {
        let expected = &frame[..frame.len().min(sent - at)];
        let came = if is_client { link.exactly(expected.len()) } else { client.exactly(expected.len()) };
        assert!(came == expected, "at {at} of {sent}");
    }
    // It is as open as ever.
    let rest = &frame[sent % frame.len()..];
    if is_client {
        client.send(rest);
        assert!(link.exactly(rest.len()) == rest);
    } else {
        link.send(rest);
        assert!(client.exactly(rest.len()) == rest);
    }
    proxy.check_sound();
}

#[test]
fn a_client_that_does_not_read_stalls_upstream() {
    check_stalls(false);
}

#[test]
fn an_upstream_that_does_not_read_stalls_its_client() {
    check_stalls(true);
}

#[test]
fn no_silence_is_too_long_for_one() {
    // Upstream may be silent for a second when it was asked for something, but not on a WebSocket: three such seconds
    // go by, each told by the reply that is given up.
    let settings = [("UPSTREAM_IDLE_TIMEOUT_S", "1")];
    let Open { mut client, mut link, proxy, upstream } = Open::welcome(&settings);
    client.send(Frame::text(&predict(1)).masked().bytes());
    link.text_message();
    for _ in 0..3 {
        let mut asking = proxy.connect();
        asking.send(chat());
        let mut silent = upstream.accept();
        silent.request();
        assert_eq!(asking.reply().status(), 504);
    }
    link.send([fragment(1, "Hi"), success(1, "eosFound", 1)].map(|message| Frame::text(&message).bytes()).concat());
    assert_eq!([client.text_message(), client.text_message()], [fragment(1, "Hi"), success(1, "eosFound", 1)]);
    assert_eq!(proxy.rows().last().expect("its row").outcome, "completed");
}
