//! Runs every file of `tests/transcripts` (see its README), whole and in pieces, and mutations of all of them.

use lms_metrics_proxy::routes::dialect_of;
use lms_metrics_proxy::usage::{Dialect, Flow, Form, Tap, UsageReport};

use crate::tap::{fuzz_tap, run};
use crate::testing::Random;

struct Transcript {
    name: String,
    dialect: Dialect,
    form: Form,
    strip: bool,
    /// The request failed.
    failed: bool,
    streamed: bool,
    content_bytes_max: usize,
    /// What follows the terminal event changes the report.
    corrected: bool,
    body: Vec<u8>,
    client: Vec<u8>,
    report: String,
}

impl Transcript {
    fn tap(&self) -> Tap {
        let tap = Tap::new(self.dialect, self.form, self.strip, self.content_bytes_max);
        if self.failed { tap.of_a_failure() } else { tap }
    }

    fn parse(name: &str, text: &str) -> Transcript {
        let (head, rest) = text.split_once("--- body\n").expect("a body section");
        let (body_and_removed, report) = rest.split_once("--- report\n").expect("a report section");
        let mut parts = body_and_removed.split("--- removed\n");
        let body = parts.next().unwrap_or_default();
        let field = |name: &str| {
            let mut fields = head.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once(": "));
            fields.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let ends = |text: &str| match field("line-ends") {
            None => text.to_owned(),
            Some("crlf") => text.replace('\n', "\r\n"),
            Some("cr") => text.replace('\n', "\r"),
            Some(other) => panic!("{name}: line-ends: {other}"),
        };
        let body = if field("final-newline") == Some("no") { body.trim_end_matches('\n') } else { body };
        let body = ends(body);
        let body = if field("bom") == Some("yes") { format!("\u{feff}{body}") } else { body };
        let (mut client, mut from) = (body.clone(), 0);
        for removed in parts.map(ends) {
            let at =
                client[from..].find(&removed).unwrap_or_else(|| panic!("{name}: what is removed is not in the body"));
            from += at;
            client.replace_range(from..from + removed.len(), "");
        }
        let form = match (field("form"), field("content-type")) {
            (None | Some("events"), None) => Form::Events,
            (None | Some("events"), Some(types)) if types.contains("text/event-stream") => Form::Events,
            (None | Some("events" | "json"), _) => Form::Body,
            (Some("opaque"), _) => Form::Opaque,
            (Some(other), _) => panic!("{name}: form: {other}"),
        };
        Transcript {
            name: name.to_owned(),
            dialect: dialect_of(field("route").expect("a route")),
            form,
            failed: field("status").is_some_and(|status| status >= "400"),
            streamed: field("streamed").map_or(form == Form::Events, |streamed| streamed == "yes"),
            strip: field("injected") == Some("yes"),
            content_bytes_max: field("content-bytes-max").map_or(4096, |n| n.parse().expect("a number")),
            corrected: field("corrected") == Some("yes"),
            client: client.into_bytes(),
            body: body.into_bytes(),
            report: report.to_owned(),
        }
    }
}

fn all() -> Vec<Transcript> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of transcripts") {
        let path = entry.expect("a folder that can be read").path();
        if path.extension().is_some_and(|e| e == "txt") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            found.push(Transcript::parse(&name, &std::fs::read_to_string(&path).expect("a text")));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(found.len() > 40, "only {} transcripts", found.len());
    found
}

/// A report as the transcripts write it: a line for each field that is told.
fn lines(report: &UsageReport) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            out.push_str(&format!("{name}: {value}\n"));
        }
    };
    let text = |value: &Option<String>| value.as_ref().map(|v| format!("{v:?}"));
    let count = |value: Option<u64>| value.map(|v| v.to_string());
    let flag = |value: bool| value.then(|| "yes".to_owned());
    line("model", text(&report.model));
    line("id", text(&report.id));
    line("input_tokens", count(report.counts.input));
    line("output_tokens", count(report.counts.output));
    line("total_tokens", count(report.counts.total));
    line("cached_tokens", count(report.counts.cached));
    line("cache_write_tokens", count(report.counts.cache_write));
    line("reasoning_tokens", count(report.counts.reasoning));
    line("draft_tokens", count(report.work.drafted));
    line("accepted_draft_tokens", count(report.work.accepted));
    line("usage_source", report.usage_source.map(str::to_owned));
    line("finish_reason", text(&report.finish_reason));
    line("error", text(&report.error));
    line("terminal", flag(report.terminal));
    line("truncated", flag(report.needs_terminal && !report.terminal && !report.finished));
    line("content_events", count(Some(report.content_events).filter(|n| *n > 0)));
    line("tokens_per_second", report.work.tokens_per_second.map(|v| v.to_string()));
    line("prompt_tokens_per_second", report.work.prompt_per_second.map(|v| v.to_string()));
    line("model_load_ms", report.work.load_seconds.map(|seconds| (seconds * 1000.0).round().to_string()));
    line("output", text(&report.output));
    line("reasoning", text(&report.reasoning));
    line("tool_calls", report.tool_calls.clone());
    out
}

fn check(transcript: &Transcript, how: &str, next: impl FnMut(usize) -> usize) {
    let name = &transcript.name;
    let (bytes, report) = run(transcript.tap(), &transcript.body, next);
    let (client, bytes) = (String::from_utf8_lossy(&transcript.client), String::from_utf8_lossy(&bytes));
    assert_eq!(bytes, client, "bytes for the client: {name}, {how}");
    assert_eq!(lines(&report), transcript.report, "report: {name}, {how}");
    assert_eq!(report.streamed, transcript.streamed, "{name}, {how}");
    let at = (report.content_events > 0).then_some(7);
    assert_eq!(report.first_content_us, at, "content time: {name}, {how}");
}

#[test]
fn every_transcript_reads_the_same_whole_and_in_pieces() {
    for transcript in all() {
        check(&transcript, "whole", |rest| rest);
        check(&transcript, "byte by byte", |_| 1);
        for seed in 1..30 {
            let mut random = Random::new(seed * 7919);
            let longest = [3, 20, 300][seed as usize % 3];
            check(&transcript, &format!("cuts of seed {seed}"), |_| 1 + random.index(longest));
        }
    }
}

#[test]
fn every_transcript_reads_the_same_event_by_event() {
    for transcript in all() {
        let mut ends: Vec<usize> = (1..transcript.body.len())
            .filter(|&at| {
                let before = &transcript.body[..at];
                before.ends_with(b"\n\n") || before.ends_with(b"\r\n\r\n") || before.ends_with(b"\r\r")
            })
            .collect();
        ends.push(transcript.body.len());
        let mut at = 0;
        check(&transcript, "event by event", |_| {
            let end = ends.iter().copied().find(|end| *end > at).unwrap_or(at + 1);
            let length = end - at;
            at = end;
            length
        });
    }
}

/// Promise 2 of the design: what a client takes for the end has not left when the row is written, and the row is true.
#[test]
fn the_end_of_a_stream_is_held_until_it_is_released() {
    for transcript in all() {
        for size in [1, 10, 100_000] {
            let (mut tap, mut out, mut at_terminal) = (transcript.tap(), Vec::new(), None);
            for piece in transcript.body.chunks(size) {
                if tap.feed(piece, 7, &mut out) == Flow::Terminal {
                    at_terminal.get_or_insert_with(|| (out.len(), tap.report()));
                }
            }
            let Some((left, mut report)) = at_terminal else { continue };
            let sent = String::from_utf8_lossy(&transcript.client[..left]);
            let done = sent.lines().find(|line| line.starts_with("data") && line.ends_with("[DONE]"));
            assert_eq!(done, None, "{}", transcript.name);
            assert!(out.len() == left, "{}: bytes left after the terminal event", transcript.name);
            tap.release(&mut out);
            tap.end(&mut out);
            assert_eq!(out, transcript.client, "{}", transcript.name);
            // Its words were told once, and are not told again.
            (report.output, report.reasoning, report.tool_calls) = (None, None, None);
            let is_final = report == tap.report();
            assert!(is_final || transcript.corrected, "{}: pieces of {size}", transcript.name);
        }
    }
}

#[test]
fn a_partial_line_can_be_released_at_any_moment() {
    for transcript in all().iter().filter(|t| !t.strip) {
        let (mut tap, mut out) = (transcript.tap(), Vec::new());
        for (at, byte) in transcript.body.iter().enumerate() {
            tap.feed(&[*byte], 7, &mut out);
            tap.release(&mut out);
            assert_eq!(out, &transcript.body[..=at], "{}", transcript.name);
        }
        tap.end(&mut out);
        assert_eq!(lines(&tap.report()), transcript.report, "{}", transcript.name);
    }
}

#[test]
fn mutated_transcripts_keep_the_promises() {
    let transcripts = all();
    let mut random = Random::new(20_260_119);
    for round in 0..4_000 {
        let mut input: Vec<u8> = (0..9).map(|_| random.index(256) as u8).collect();
        let first = &transcripts[random.index(transcripts.len())];
        input.extend_from_slice(&first.body[..first.body.len().min(3000)]);
        for _ in 0..random.index(4) {
            let at = 9 + random.index(input.len() - 9);
            match random.index(4) {
                0 => input[at] = random.index(256) as u8,
                1 => drop(input.remove(at)),
                2 => input.truncate(at),
                _ => {
                    // Frames of two streams spliced together.
                    let second = &transcripts[random.index(transcripts.len())].body;
                    let from = random.index(second.len());
                    input.truncate(at);
                    input.extend_from_slice(&second[from..second.len().min(from + 2000)]);
                }
            }
            if input.len() < 10 {
                break;
            }
        }
        // A panic says which round it was; the generator makes it the same again.
        let outcome = std::panic::catch_unwind(|| fuzz_tap(&input));
        assert!(outcome.is_ok(), "round {round}: {:?}", String::from_utf8_lossy(&input));
    }
}

/// The usage events that servers send.
const USAGE_EVENTS: [&str; 9] = [
    r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
    r#"{"usage":{"prompt_tokens":3,"completion_tokens":4},"choices":[ ]}"#,
    r#"{"choices":null,"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
    r#"{"id":"c","usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
    r#"{"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
    r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":null}],"usage":{"prompt_tokens":3}}"#,
    r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"usage":{"prompt_tokens":3}}"#,
    r#"{"choices":[{"index":1,"text":""},{"index":0,"text":""}],"usage":{"completion_tokens":4}}"#,
    r#"{"choices":[],"usage":{"prompt_tokens":3},"timings":{"prompt_n":3,"predicted_n":4}}"#,
];
/// What is none of them.
const OTHER_EVENTS: [&str; 7] = [
    r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"usage":{"prompt_tokens":3}}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"a \"quoted\" word"}}],"usage":{"prompt_tokens":3}}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"usage"}}],"usage":null}"#,
    r#"{"choices":[],"prompt_filter_results":[{"usage":{}}]}"#,
    r#"{"choices":[],"usage":null}"#,
    r#"{"choices":[{"index":1,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}],"usage":{}}"#,
    r#"{"type":"ping"}"#,
];
const FINISHES: [&str; 2] = [
    r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}"#,
    r#"{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"length"}]}"#,
];

/// A stream with usage events somewhere behind its words, and the same without them.
fn stream(random: &mut Random) -> (Form, String, String) {
    let (data, end) =
        [("data: ", "\n\n"), ("data:", "\r\n\r\n"), ("data: ", "\r\r"), ("data: ", "\n"), ("", "\n")][random.index(5)];
    let line_end = &end[..end.len() / 2];
    let is_sse = !data.is_empty();
    let (mut body, mut client) = (String::new(), String::new());
    let mut say = |random: &mut Random, document: &str, is_usage: bool| {
        let before = match random.index(if is_sse && end.len() > 1 { 9 } else { 1 }) {
            6 => format!("id: 7{line_end}"),
            7 => format!("event: chunk{line_end}"),
            _ => String::new(),
        };
        let event = format!("{before}{data}{document}{end}");
        body.push_str(&event);
        if !is_usage {
            client.push_str(&event);
        }
    };
    for _ in 0..1 + random.index(6) {
        let event = OTHER_EVENTS[random.index(OTHER_EVENTS.len())];
        say(random, event, false);
    }
    FINISHES.iter().for_each(|event| say(random, event, false));
    for _ in 0..random.index(4) {
        let event = USAGE_EVENTS[random.index(USAGE_EVENTS.len())];
        say(random, event, true);
    }
    if random.index(3) > 0 {
        say(random, "[DONE]", false);
        for _ in 0..random.index(3) {
            let event = USAGE_EVENTS[random.index(USAGE_EVENTS.len())];
            say(random, event, true);
        }
    }
    (if random.index(2) == 0 { Form::Events } else { Form::Body }, body, client)
}

#[test]
fn whatever_injection_brought_goes_and_nothing_else_wherever_it_is_cut() {
    let mut random = Random::new(20_261_128);
    for round in 0..500 {
        let (form, body, client) = stream(&mut random);
        for longest in [1, 7, 60, 100_000] {
            for strip in [true, false] {
                let tap = Tap::new(Dialect::Chat, form, strip, 300);
                let (bytes, report) = run(tap, body.as_bytes(), |_| 1 + random.index(longest));
                let expected = if strip { &client } else { &body };
                assert_eq!(&String::from_utf8_lossy(&bytes), expected, "round {round}, {form:?}, up to {longest}");
                assert!(report.streamed && report.finished, "round {round}: {body}");
            }
        }
    }
}
