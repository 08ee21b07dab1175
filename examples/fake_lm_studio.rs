//! A stand-in for LM Studio: the same routes and the same shapes of replies, with words instead of a model.
//!
//! ```text
//! cargo run --example fake_lm_studio [-- [PORT] [--tokens-per-second N] [--tokens N]]
//! ```
//!
//! It listens on 127.0.0.1:1234 (PORT 0 takes a free one and prints it) and paces its tokens like a small model, or
//! writes as fast as it can with 0. Like LM Studio, it reports usage on a stream only to who asks for it, answers
//! unknown routes with status 200, closes idle connections after 5 s, and stops when the client leaves. On `ws://` it speaks
//! to LM Studio's own SDKs, with the same two models. It is no HTTP server for strangers: a thread for each connection, and
//! few checks.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use serde_json::{Value, json};

use replies::{Dialect, Event, Generation, Pace, generation, object};
use sdk::Namespace;

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../tests/proxy/harness/frames.rs"]
mod frames;
#[path = "fake_lm_studio/replies.rs"]
mod replies;
#[path = "fake_lm_studio/sdk.rs"]
mod sdk;
#[path = "fake_lm_studio/websocket.rs"]
mod websocket;

const EMBEDDING_MODEL: &str = "text-embedding-stand-in";
/// Node's `keepAliveTimeout`.
const IDLE_TIME_MAX: Duration = Duration::from_secs(5);

fn main() {
    let (port, pace) = arguments().unwrap_or_else(|problem| {
        eprintln!("{problem}\nusage: fake_lm_studio [PORT] [--tokens-per-second N] [--tokens N]");
        process::exit(2);
    });
    let listening = TcpListener::bind(("127.0.0.1", port)).and_then(|l| Ok((l.local_addr()?, l)));
    let (address, listener) = listening.unwrap_or_else(|error| {
        eprintln!("cannot listen on 127.0.0.1:{port}: {error}");
        process::exit(1);
    });
    println!("stand-in for LM Studio on http://{address}");
    for stream in listener.incoming() {
        match stream {
            // A client that breaks off is no event here.
            Ok(stream) => drop(thread::spawn(move || Connection { stream, received: Vec::new(), pace }.serve())),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

fn arguments() -> Result<(u16, Pace), String> {
    let mut port = env::var("PORT").ok().filter(|p| !p.is_empty()).unwrap_or("1234".to_owned());
    let (mut rate, mut tokens) = ("30".to_owned(), "48".to_owned());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--tokens-per-second" => rate = arguments.next().unwrap_or_default(),
            "--tokens" => tokens = arguments.next().unwrap_or_default(),
            _ => port = argument,
        }
    }
    let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    let tokens = tokens.parse().map_err(|_| format!("{tokens:?} is no number of tokens"))?;
    let pause = match rate.parse::<f64>() {
        Ok(0.0) => Duration::ZERO,
        Ok(rate) if (0.001..1e6).contains(&rate) => Duration::from_secs_f64(1.0 / rate),
        _ => return Err(format!("{rate:?} is no number of tokens per second")),
    };
    Ok((port, Pace { tokens, pause }))
}

// ---- connections -------------------------------------------------------------------------------------------------

struct Connection {
    stream: TcpStream,
    /// Read, and not yet used.
    received: Vec<u8>,
    pace: Pace,
}

#[derive(Default)]
struct Request {
    method: String,
    target: String,
    body: Vec<u8>,
    wants_close: bool,
    /// Of a request that opens a WebSocket.
    websocket_key: Option<String>,
}

impl Request {
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

impl Connection {
    /// One request after the other, until the client leaves, falls silent or sends what is no HTTP.
    fn serve(mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        while let Some(request) = self.request()? {
            println!("{} {}", request.method, request.target);
            if let (Some(key), Some(namespace)) = (&request.websocket_key, Namespace::of(request.path())) {
                return websocket::serve(self.stream, self.received, key, namespace, self.pace);
            }
            self.answer(&request)?;
            if request.wants_close {
                break;
            }
        }
        Ok(())
    }

    fn request(&mut self) -> io::Result<Option<Request>> {
        if self.received.is_empty() {
            self.stream.set_read_timeout(Some(IDLE_TIME_MAX))?;
            // Silence and leaving end the connection alike.
            if self.receive().is_err() {
                return Ok(None);
            }
        }
        self.stream.set_read_timeout(None)?;

        let mut request = Request::default();
        let (mut length, mut is_chunked, mut expects_continue) = (0, false, false);
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let mut head = httparse::Request::new(&mut fields);
            if let httparse::Status::Complete(end) = head.parse(&self.received).map_err(io::Error::other)? {
                request.method = head.method.unwrap_or_default().to_owned();
                request.target = head.path.unwrap_or_default().to_owned();
                request.wants_close = head.version == Some(0);
                for field in head.headers.iter() {
                    let text = String::from_utf8_lossy(field.value);
                    let value = text.to_ascii_lowercase();
                    match field.name.to_ascii_lowercase().as_str() {
                        "content-length" => length = value.parse().map_err(io::Error::other)?,
                        "transfer-encoding" => is_chunked = value == "chunked",
                        "expect" => expects_continue = value == "100-continue",
                        "sec-websocket-key" => request.websocket_key = Some(text.into_owned()),
                        "connection" => request.wants_close |= value.contains("close"),
                        _ => {}
                    }
                }
                self.received.drain(..end);
                break;
            }
            self.receive()?;
        }
        if expects_continue {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.body = if is_chunked { self.chunks()? } else { self.take(length)? };
        Ok(Some(request))
    }

    /// The body of a chunked request. Trailers are not understood.
    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            match httparse::parse_chunk_size(&self.received) {
                Ok(httparse::Status::Complete((start, size))) => {
                    self.received.drain(..start);
                    let chunk = self.take(usize::try_from(size).map_err(io::Error::other)?)?;
                    self.take(b"\r\n".len())?;
                    if chunk.is_empty() {
                        return Ok(body);
                    }
                    body.extend(chunk);
                }
                Ok(httparse::Status::Partial) => self.receive()?,
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < length {
            self.receive()?;
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.received.extend_from_slice(&bytes[..length]);
                Ok(())
            }
        }
    }

    fn answer(&mut self, request: &Request) -> io::Result<()> {
        let (dialect, is_v0) = match (request.method.as_str(), request.path()) {
            ("GET" | "HEAD", "/v1/models") => {
                return self.json(request, 200, &models(&[("owned_by", json!("organization_owner"))]));
            }
            ("GET" | "HEAD", "/api/v0/models" | "/api/v1/models") => {
                let context = [("max_context_length", json!(32_768)), ("loaded_context_length", json!(8_192))];
                let state = [("type", json!("llm")), ("state", json!("loaded"))];
                return self.json(request, 200, &models(&[state, context].concat()));
            }
            ("GET" | "HEAD", "/lmstudio-greeting") => return self.json(request, 200, sdk::GREETING),
            ("POST", "/v1/embeddings" | "/api/v0/embeddings") => return self.embeddings(request),
            ("POST", "/v1/chat/completions") => (Dialect::Chat, false),
            ("POST", "/api/v0/chat/completions") => (Dialect::Chat, true),
            ("POST", "/v1/completions") => (Dialect::Completions, false),
            ("POST", "/api/v0/completions") => (Dialect::Completions, true),
            ("POST", "/v1/responses") => (Dialect::Responses, false),
            ("POST", "/v1/messages") => (Dialect::Messages, false),
            ("POST", "/api/v1/chat") => (Dialect::Native, false),
            (method, _) => {
                let problem = format!("Unexpected endpoint or method. ({method} {})", request.target);
                return self.json(request, 200, &object(&[("error", json!(problem))]));
            }
        };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match generation(dialect, is_v0, &body, self.pace) {
            Err(problem) => self.json(request, 400, &object(&[("error", json!(problem))])),
            Ok(generation) if body["stream"] == true => self.events(request, &generation),
            Ok(generation) => {
                let start = Instant::now();
                for count in 1..=generation.words.len() {
                    self.wait_for_token(start, count)?;
                }
                self.json(request, 200, &generation.whole())
            }
        }
    }

    fn embeddings(&mut self, request: &Request) -> io::Result<()> {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let count = match &body["input"] {
            Value::Null => return self.json(request, 400, r#"{"error":"'input' field is required"}"#),
            Value::Array(texts) => texts.len(),
            _ => 1,
        };
        let vector = |index| json!({"object": "embedding", "embedding": [0.25, -0.5, 0.125, 1.0], "index": index});
        // LM Studio reports no tokens here: its usage is zero whatever the input.
        let reply = object(&[
            ("object", json!("list")),
            ("data", (0..count).map(vector).collect()),
            ("model", json!(body["model"].as_str().unwrap_or(EMBEDDING_MODEL))),
            ("usage", json!({"prompt_tokens": 0, "total_tokens": 0})),
        ]);
        self.json(request, 200, &reply)
    }

    fn json(&mut self, request: &Request, status: u16, body: &str) -> io::Result<()> {
        let length = format!("Content-Length: {}", body.len());
        let head = head(request, status, &["Content-Type: application/json; charset=utf-8", &length]);
        let body = if request.method == "HEAD" { "" } else { body };
        self.stream.write_all((head + body).as_bytes())
    }

    fn events(&mut self, request: &Request, generation: &Generation) -> io::Result<()> {
        let fields = ["Content-Type: text/event-stream", "Cache-Control: no-cache", "Transfer-Encoding: chunked"];
        self.stream.write_all(head(request, 200, &fields).as_bytes())?;
        let (start, mut tokens) = (Instant::now(), 0);
        for Event { name, content, is_token } in generation.events() {
            if is_token {
                tokens += 1;
                self.wait_for_token(start, tokens)?;
            }
            let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
            let event = format!("{name}data: {content}\n\n");
            self.stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        }
        self.stream.write_all(b"0\r\n\r\n")
    }

    /// Waits until the token is due by watching for the client leaving, which is an error.
    fn wait_for_token(&mut self, start: Instant, count: usize) -> io::Result<()> {
        let due = start + self.pace.pause.mul_f64(count as f64);
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        self.stream.set_read_timeout(Some(left))?;
        match self.stream.peek(&mut [0]) {
            // The next request is here already: it has to wait, and covers up the client leaving.
            Ok(1..) => thread::sleep(due.saturating_duration_since(Instant::now())),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => {
                println!("Client disconnected. Stopping generation after {} tokens.", count - 1);
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }
}

fn models(members: &[(&str, Value)]) -> String {
    let model = |id: &str| {
        let mut model = json!({"id": id, "object": "model"});
        members.iter().for_each(|(name, value)| model[*name] = value.clone());
        model
    };
    object(&[("object", json!("list")), ("data", json!([model(replies::MODEL), model(EMBEDDING_MODEL)]))])
}

fn head(request: &Request, status: u16, fields: &[&str]) -> String {
    let reason = if status == 200 { "OK" } else { "Bad Request" };
    let connection = if request.wants_close { "close" } else { "keep-alive\r\nKeep-Alive: timeout=5" };
    let fields = fields.join("\r\n");
    format!("HTTP/1.1 {status} {reason}\r\nX-Powered-By: Express\r\n{fields}\r\nConnection: {connection}\r\n\r\n")
}
