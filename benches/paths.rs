//! What each request and each event costs, part by part. `cargo bench` runs all, `cargo bench -- tap` those named so.
//!
//! Sockets are left out: `tests/proxy` runs whole exchanges, and nginx beside the proxy is measured elsewhere.
//! Statistics on many rows are a benchmark of their own.

use std::fs;
use std::hash::RandomState;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

use lms_metrics_proxy::client::{Client, Returns};
use lms_metrics_proxy::http::{ChunkDecoder, read_head};
use lms_metrics_proxy::in_flight::{AskedNow, ExchangePhase, InFlight, NewEntry};
use lms_metrics_proxy::prompts::Outline;
use lms_metrics_proxy::prompts::comparison::{closeness, compare};
use lms_metrics_proxy::record::recorder::Recorder;
use lms_metrics_proxy::record::row::{Content, Row};
use lms_metrics_proxy::record::store::{DbSync, Store};
use lms_metrics_proxy::usage::request_facts::RequestOutline;
use lms_metrics_proxy::usage::{Dialect, Form, RequestFacts, Tap, inject, prompt};

// The file of the tests names modules of the crate.
use lms_metrics_proxy::{calendar, record};

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../src/testing.rs"]
mod testing;

fn main() {
    divan::main();
}

// ---- a request ---------------------------------------------------------------------------------------------------

/// As the OpenAI client for Python sends it.
const HEAD: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\n\
    Host: localhost:8080\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    Connection: keep-alive\r\n\
    Accept: application/json\r\n\
    Content-Type: application/json\r\n\
    User-Agent: OpenAI/Python 1.109.1\r\n\
    X-Stainless-Lang: python\r\n\
    X-Stainless-Package-Version: 1.109.1\r\n\
    X-Stainless-OS: Linux\r\n\
    X-Stainless-Arch: x64\r\n\
    X-Stainless-Runtime: CPython\r\n\
    X-Stainless-Runtime-Version: 3.12.3\r\n\
    Authorization: Bearer not-needed\r\n\
    X-Stainless-Async: false\r\n\
    x-stainless-retry-count: 0\r\n\
    x-stainless-read-timeout: 600\r\n\
    Content-Length: 1024\r\n\r\n";

const CURL_HEAD: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\n\
    Accept: */*\r\nContent-Type: application/json\r\nContent-Length: 120\r\n\r\n";

#[divan::bench(args = ["curl", "openai-python"])]
fn intake(bencher: Bencher, client: &str) {
    let head = if client == "curl" { CURL_HEAD } else { HEAD };
    bencher.counter(BytesCount::of_slice(head)).bench(|| read_head(black_box(head), &mut 0));
}

/// What a short exchange takes to be among those that go on, alone, and while somebody looks again and again.
#[divan::bench(args = [false, true])]
fn in_flight(bencher: Bencher, is_looked_at: bool) {
    let poll = mio::Poll::new().expect("a poll");
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let stream = mio::net::TcpStream::connect(address).expect("it listens");
    let client = Client::new(stream, address, 0, Arc::new(Returns::new(waker, Instant::now())));
    let all = Arc::<InFlight>::default();
    let begin = || {
        let endpoint = black_box("/v1/chat/completions").to_owned();
        let (began, start_ms, body_bytes, phase) = (Instant::now(), 0, Some(120), ExchangePhase::Queued);
        let listed = all.begin(&client, NewEntry { endpoint, began, start_ms, body_bytes, phase });
        listed.enter_at_once(ExchangePhase::Waiting);
        let (client, model) = (Some(black_box("curl").to_owned()), Some(black_box("llama-3.2-1b-instruct").to_owned()));
        listed.note_asked(AskedNow { client, model, conversation: None });
        listed
    };
    let others: Vec<_> = (0..1000).map(|_| begin()).collect();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        if is_looked_at {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    black_box(all.all());
                }
            });
        }
        bencher.bench(|| drop(begin()));
        ends.store(true, Ordering::Relaxed);
    });
    drop(others);
}

/// A body of 1 MB that comes in chunks of one size.
#[divan::bench(args = [64, 1024, 16384])]
fn chunk_decoding(bencher: Bencher, chunk_bytes: usize) {
    let count = 1_048_576 / chunk_bytes;
    let mut encoded = Vec::new();
    for _ in 0..count {
        encoded.extend_from_slice(format!("{chunk_bytes:x}\r\n").as_bytes());
        encoded.extend(std::iter::repeat_n(b'x', chunk_bytes));
        encoded.extend_from_slice(b"\r\n");
    }
    encoded.extend_from_slice(b"0\r\n\r\n");
    bencher.counter(BytesCount::of_slice(&encoded)).bench(|| {
        let mut body = Vec::with_capacity(count * chunk_bytes);
        ChunkDecoder::new(u64::MAX).decode(black_box(&encoded), &mut body).map(|_| body)
    });
}

/// A streaming request whose prompt has about so many bytes, half of them escaped here and there.
fn body(prompt_bytes: usize) -> Vec<u8> {
    let words = r#"Some words of a prompt, \"quoted\" and on\nseveral lines. "#.repeat(prompt_bytes / 58 + 1);
    format!(r#"{{"model":"llama-3.2-1b-instruct","messages":[{{"role":"user","content":"{words}"}}],"stream":true}}"#)
        .into_bytes()
}

const BODIES: [usize; 3] = [100, 10_000, 1_000_000];

#[divan::bench(args = BODIES)]
fn injection(bencher: Bencher, prompt_bytes: usize) {
    let body = body(prompt_bytes);
    bencher.counter(BytesCount::of_slice(&body)).bench(|| inject::edit(black_box(&body), &RequestOutline::of(&body)));
}

#[divan::bench(args = BODIES)]
fn what_is_asked(bencher: Bencher, prompt_bytes: usize) {
    let body = body(prompt_bytes);
    bencher.counter(BytesCount::of_slice(&body)).bench(|| RequestFacts::read(black_box(&body)));
}

#[divan::bench(args = BODIES)]
fn prompt_kept(bencher: Bencher, prompt_bytes: usize) {
    let body = body(prompt_bytes);
    bencher.counter(BytesCount::of_slice(&body)).bench(|| prompt::prompt_text(black_box(&body), 256 * 1024));
}

/// What an agent sends: a tool for each 20 KB, and messages of 2 KB, one of which has a mark.
fn conversation(bytes: usize) -> Vec<u8> {
    let schema = r#"{"type":"object","properties":{"path":{"type":"string"},"content":{"type":"string"}}}"#;
    let tool = format!(r#"{{"type":"function","function":{{"name":"edit","parameters":{schema}}}}}"#);
    let mark = r#","cache_control":{"type":"ephemeral"}"#;
    let messages: Vec<String> = (0..bytes / 2000)
        .map(|number| {
            let words = r#"Some words,\n\"quoted\" and on several lines. "#.repeat(42);
            let mark = if number == 3 { mark } else { "" };
            format!(r#"{{"role":"user","content":[{{"type":"text","text":"{number} {words}"{mark}}}]}}"#)
        })
        .collect();
    let tools = vec![tool; bytes / 20_000].join(",");
    format!(r#"{{"model":"m","tools":[{tools}],"messages":[{}]}}"#, messages.join(",")).into_bytes()
}

const CONVERSATIONS: [usize; 2] = [20_000, 500_000];

#[divan::bench(args = CONVERSATIONS)]
fn outline(bencher: Bencher, bytes: usize) {
    let (body, hashes) = (conversation(bytes), RandomState::new());
    bencher.counter(BytesCount::of_slice(&body)).bench(|| Outline::of(black_box(&body), &hashes));
}

/// Of a prompt and the one before it, whose instructions were others.
#[divan::bench(args = CONVERSATIONS)]
fn outlines_compared(bencher: Bencher, bytes: usize) {
    let hashes = RandomState::new();
    let [before, now] = ["1", "2"].map(|system| {
        let body = String::from_utf8(conversation(bytes)).expect("JSON");
        Outline::of(body.replacen("{", &format!(r#"{{"system":"{system}","#), 1).as_bytes(), &hashes)
    });
    bencher.bench(|| (closeness(black_box(&before), &now, None), compare(black_box(&before), &now)));
}

// ---- a reply -----------------------------------------------------------------------------------------------------

/// Events of one stream. Each comes in a read of its own, as paced streams do.
const EVENTS: usize = 1000;

/// One event of a chat as LM Studio sends it; of another stream, one of about the same length that tells nothing.
fn event(n: usize) -> Vec<u8> {
    format!(
        "data: {{\"id\":\"chatcmpl-um3b\",\"object\":\"chat.completion.chunk\",\"created\":1747835957,\
         \"model\":\"gemma-2-2b-it\",\"system_fingerprint\":\"gemma-2-2b-it\",\"choices\":[{{\"index\":0,\
         \"delta\":{{\"content\":\" word{n}\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
    )
    .into_bytes()
}

/// Bytes kept of the answer's words; 0 with `LOG_CONTENT=none`. `strip`: the usage event is to be taken out, so that
/// each event is looked at before it leaves.
#[divan::bench(args = [(0, false), (0, true), (262_144, false), (262_144, true)])]
fn tap_per_event(bencher: Bencher, (kept_bytes, strip): (usize, bool)) {
    let events: Vec<Vec<u8>> = (0..EVENTS).map(event).collect();
    let mut out = Vec::with_capacity(4096);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut tap = Tap::new(Dialect::Chat, Form::Events, strip, kept_bytes);
        for (n, event) in events.iter().enumerate() {
            out.clear();
            tap.feed(black_box(event), n as u64, &mut out);
        }
        tap
    });
}

/// Events that differ in more than their words, so that each is walked: a chat whose chunks tell the time, and numbered
/// events of a response.
#[divan::bench(args = ["chat", "responses"])]
fn tap_walked(bencher: Bencher, kind: &str) {
    let chunk = |n: usize| String::from_utf8_lossy(&event(n)).replace("1747835957", &(1_747_835_957 + n).to_string());
    let delta = |n: usize| {
        format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":{n},\
             \"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"delta\":\" word{n}\",\"logprobs\":[]}}\n\n"
        )
    };
    let (dialect, events): (Dialect, Vec<String>) = match kind {
        "chat" => (Dialect::Chat, (0..EVENTS).map(chunk).collect()),
        _ => (Dialect::Responses, (0..EVENTS).map(delta).collect()),
    };
    let mut out = Vec::with_capacity(4096);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut tap = Tap::new(dialect, Form::Events, false, 262_144);
        for (n, event) in events.iter().enumerate() {
            out.clear();
            tap.feed(black_box(event.as_bytes()), n as u64, &mut out);
        }
        tap
    });
}

/// The same events in reads of 4 KiB, as a flooded stream comes.
#[divan::bench(args = [0, 262_144])]
fn tap_flooded(bencher: Bencher, kept_bytes: usize) {
    let events: Vec<u8> = (0..EVENTS).flat_map(event).collect();
    let mut out = Vec::with_capacity(8192);
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut tap = Tap::new(Dialect::Chat, Form::Events, true, kept_bytes);
        for read in events.chunks(4096) {
            out.clear();
            tap.feed(black_box(read), 1, &mut out);
        }
        tap
    });
}

// ---- a row -------------------------------------------------------------------------------------------------------

/// Rows of one measurement, shared among the writers.
const ROWS: usize = 2048;

fn row() -> Row {
    Row {
        requested_model: Some("llama-3.2-1b-instruct".to_owned()),
        was_streamed: true,
        time_to_first_token_ms: Some(120),
        tokens_per_second: Some(43.8),
        client: Some("OpenAI/Python".to_owned()),
        content: Content {
            prompt: Some(r#"{"messages":[{"role":"user","content":"Say hello."}]}"#.to_owned().into()),
            output: Some("Hello! How can I help you today?".to_owned()),
            ..Content::default()
        },
        ..testing::row()
    }
}

/// A database of its own, in the folder that cargo gives to benchmarks, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("paths-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the folder for benchmarks is writable");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Rows committed while each of so many writers waits for its own. Starting the writers is part of it.
#[divan::bench(args = [1, 16, 256], sample_size = 1, sample_count = 20)]
fn recorder(bencher: Bencher, writers: usize) {
    let folder = Folder::new(&format!("recorder-{writers}"));
    let store = Store::open(&folder.0.join("metrics.db"), DbSync::Normal).expect("a new database opens");
    let recorder = Recorder::new(store);
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        thread::scope(|scope| {
            for _ in 0..writers {
                scope.spawn(|| {
                    for _ in 0..ROWS / writers {
                        // No reply hangs on these rows, so there is nothing to pass on.
                        recorder.commit(row(), |_| {}).expect("nothing else uses the database");
                    }
                });
            }
        });
    });
}
