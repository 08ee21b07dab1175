//! A stand-in for LM Studio on loopback: `/v1/models`, chat completions with reasoning and tool calls, embeddings, and
//! an error where a request is one. It makes words up at the pace of a model, and stops when nobody listens.
//!
//! It serves the demo's own clients and whoever tries it by hand, and is no server for anything else: of a request it
//! sees what it looks for in the text, so that the demo adds little to the program.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::chance::Chance;
use super::words::{EMBEDDER, MODELS, THOUGHTS, TOO_LONG, WORDS};
use crate::limits::WORKER_STACK_BYTES;

/// Largest request body that is read.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// As long as a prompt may be.
const PROMPT_BYTES_MAX: usize = 60_000;
/// After so many messages an agent has seen enough, and gets an answer.
const AGENT_MESSAGES: usize = 8;
const FILES: [&str; 5] = ["src/main.rs", "src/lib.rs", "Cargo.toml", "README.md", "tests/proxy.rs"];

/// Listens on a free port, for as long as the process lives.
pub(super) fn listen() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    spawn(Box::new(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Where there is no thread to be had, the connection is closed.
            let _ = spawn(Box::new(move || drop(serve(stream))));
        }
    }))?;
    Ok(address)
}

pub(super) fn spawn(work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    thread::Builder::new().name("demo".into()).stack_size(WORKER_STACK_BYTES).spawn(work).map(drop)
}

/// Answers requests until the connection ends.
fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    for number in 1.. {
        let (mut head, mut body) = (String::new(), Vec::new());
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.to_ascii_lowercase().split_once("content-length:").and_then(|(_, rest)| number_at(rest));
        reader.by_ref().take(length.unwrap_or(0).min(BODY_BYTES_MAX)).read_to_end(&mut body)?;
        let target = head.split(' ').nth(1).unwrap_or_default();
        answer(reader.get_mut(), target, &String::from_utf8_lossy(&body), number)?;
    }
    Ok(())
}

fn answer(out: &mut TcpStream, target: &str, request: &str, number: u64) -> io::Result<()> {
    let model = text_of(request, "model").unwrap_or(MODELS[0].0);
    let known = MODELS.iter().find(|(name, ..)| *name == model);
    match (target, known) {
        ("/v1/models", _) => {
            let mut list = format!(r#"{{"id":"{EMBEDDER}","object":"model"}}"#);
            for (name, ..) in MODELS {
                list += &format!(r#",{{"id":"{name}","object":"model"}}"#);
            }
            whole(out, "200 OK", &format!(r#"{{"object":"list","data":[{list}]}}"#))
        }
        ("/v1/embeddings", _) => {
            let tokens = request.len() / 4;
            pause(tokens as u64 / 2);
            let vector = r#"{"object":"embedding","index":0,"embedding":[0.25,-0.5,0.125]}"#;
            let usage = format!(r#"{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}"#);
            let body = format!(r#"{{"object":"list","data":[{vector}],"model":"{EMBEDDER}","usage":{usage}}}"#);
            whole(out, "200 OK", &body)
        }
        ("/v1/chat/completions", Some(_)) if request.len() > PROMPT_BYTES_MAX => {
            refuse(out, "400 Bad Request", TOO_LONG)
        }
        ("/v1/chat/completions", Some((model, speed, reasons))) => {
            Chat::new(request, model, *reasons, number).answer(out, after(request, "stream"), *speed)
        }
        ("/v1/chat/completions", None) => {
            refuse(out, "404 Not Found", "The demo has no such model; /v1/models lists those that it has.")
        }
        _ => refuse(out, "404 Not Found", "The demo's stand-in has no such route."),
    }
}

fn refuse(out: &mut TcpStream, status: &str, message: &str) -> io::Result<()> {
    whole(out, status, &format!(r#"{{"error":{{"message":"{message}","type":"invalid_request_error"}}}}"#))
}

fn whole(out: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let reply =
        format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    out.write_all(reply.as_bytes())
}

fn pause(ms: u64) {
    thread::sleep(Duration::from_millis(ms));
}

/// What stands behind the first member of this name.
fn after<'a>(json: &'a str, name: &str) -> &'a str {
    let name = format!("\"{name}\"");
    let behind = json.match_indices(&name).map(|(at, _)| json[at + name.len()..].trim_start());
    behind.filter_map(|rest| rest.strip_prefix(':')).next().unwrap_or_default().trim_start()
}

/// The text of the first member of this name.
pub(super) fn text_of<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    after(json, name).strip_prefix('"').and_then(|rest| rest.split('"').next())
}

fn number_at(text: &str) -> Option<u64> {
    let text = text.trim_start();
    text[..text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())].parse().ok()
}

/// One reply of a chat.
struct Chat {
    id: u64,
    model: &'static str,
    prompt_tokens: u64,
    cached_tokens: u64,
    thoughts: u64,
    words: u64,
    /// The file that is asked for in place of an answer.
    file: Option<&'static str>,
}

impl Chat {
    fn new(request: &str, model: &'static str, reasons: bool, number: u64) -> Chat {
        let bytes = request.len() as u64;
        let mut chance = Chance::new(bytes * 31 + number);
        let messages = request.matches("\"role\"").count();
        // An agent looks at some files before it answers.
        let calls = !after(request, "tools").is_empty() && !messages.is_multiple_of(AGENT_MESSAGES);
        let words = if calls { 12 } else { chance.between(40, 220) };
        Chat {
            id: chance.below(1 << 32),
            model,
            prompt_tokens: bytes / 4,
            // What was said before is in the cache, but for the first time.
            cached_tokens: if messages > 2 { (bytes / 4).saturating_sub(208) } else { 0 },
            thoughts: if reasons { chance.between(15, 60) } else { 0 },
            words: words.min(number_at(after(request, "max_tokens")).unwrap_or(words)),
            file: calls.then(|| chance.pick(&FILES)),
        }
    }

    fn answer(&self, out: &mut TcpStream, stream: &str, speed: f64) -> io::Result<()> {
        let token_ms = (1000.0 / speed) as u64;
        // Reading the prompt.
        pause(80 + (self.prompt_tokens - self.cached_tokens) / 3);
        if stream.starts_with("true") {
            return self.stream(out, token_ms);
        }
        pause(token_ms * (self.thoughts + self.words));
        let content: String = taken(WORDS, self.words).collect();
        let message = format!(r#""message":{{"role":"assistant","content":"{content}"}}"#);
        whole(out, "200 OK", &self.told(&format!("{{\"index\":0,{message},{}}}", self.end()), &self.usage()))
    }

    fn stream(&self, out: &mut TcpStream, token_ms: u64) -> io::Result<()> {
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let words = if self.file.is_some() { 0 } else { self.words };
        let thoughts = taken(THOUGHTS, self.thoughts).map(|word| ("reasoning_content", word));
        for (name, word) in thoughts.chain(taken(WORDS, words).map(|word| ("content", word))) {
            pause(token_ms);
            self.say(out, &format!(r#""{name}":"{word}""#), r#""finish_reason":null"#)?;
        }
        if let Some(file) = self.file {
            pause(token_ms * self.words);
            let function = format!(r#""name":"read_file","arguments":"{{\"path\":\"{file}\"}}""#);
            let call = format!(r#"{{"index":0,"id":"call_1","type":"function","function":{{{function}}}}}"#);
            self.say(out, &format!(r#""tool_calls":[{call}]"#), r#""finish_reason":null"#)?;
        }
        self.say(out, "", &self.end())?;
        chunk(out, &self.told("", &self.usage()))?;
        chunk(out, "[DONE]")?;
        out.write_all(b"0\r\n\r\n")
    }

    fn say(&self, out: &mut TcpStream, delta: &str, end: &str) -> io::Result<()> {
        chunk(out, &self.told(&format!(r#"{{"index":0,"delta":{{{delta}}},{end}}}"#), "null"))
    }

    fn told(&self, choice: &str, usage: &str) -> String {
        let Chat { id, model, .. } = self;
        format!(r#"{{"id":"chatcmpl-demo{id:08x}","model":"{model}","choices":[{choice}],"usage":{usage}}}"#)
    }

    fn end(&self) -> String {
        format!(r#""finish_reason":"{}""#, if self.file.is_some() { "tool_calls" } else { "stop" })
    }

    fn usage(&self) -> String {
        let Chat { prompt_tokens, cached_tokens, thoughts, words, .. } = self;
        let (output, total) = (thoughts + words, prompt_tokens + thoughts + words);
        format!(
            r#"{{"prompt_tokens":{prompt_tokens},"completion_tokens":{output},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{cached_tokens}}},"completion_tokens_details":{{"reasoning_tokens":{thoughts}}}}}"#
        )
    }
}

/// So many words, over and over.
fn taken(text: &'static str, count: u64) -> impl Iterator<Item = &'static str> {
    text.split_inclusive(' ').cycle().take(count as usize)
}

/// One event.
fn chunk(out: &mut TcpStream, event: &str) -> io::Result<()> {
    out.write_all(format!("{:x}\r\ndata: {event}\n\n\r\n", event.len() + 8).as_bytes())
}
