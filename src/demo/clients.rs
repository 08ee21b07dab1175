//! Made-up clients: an agent whose conversation grows, somebody who asks this and that (of a model that is not there,
//! too, and sometimes leaves in the middle), and an indexer. Each asks, waits for its reply, and rests.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::chance::Chance;
use super::stand_in::{spawn, text_of};
use super::words::{EMBEDDER, MODELS, QUESTIONS};

/// After so many messages a conversation is over.
const MESSAGES_MAX: usize = 24;
const TOOLS: &str = r#"[{"type":"function","function":{"name":"read_file","description":"Reads a file.","parameters":{"type":"object","properties":{"path":{"type":"string"}}}}}]"#;

/// A turn of a client: the chance that it is left to, and where it keeps what was said.
type Turn = fn(SocketAddr, &mut Vec<String>, &mut Chance) -> io::Result<()>;

/// Starts them; they go on for as long as the process lives.
pub(super) fn start(proxy: SocketAddr) {
    let clients: [(Turn, u64, u64); 3] = [(agent, 2_000, 6_000), (asker, 1_500, 5_000), (indexer, 4_000, 9_000)];
    for (seed, (turn, rest_from_ms, rest_to_ms)) in (1..).zip(clients) {
        // Where there is no thread to be had, there is a client less.
        let _ = spawn(Box::new(move || {
            let (mut chance, mut messages) = (Chance::new(seed), Vec::new());
            loop {
                // The proxy may be ending: then this ends with it.
                let _ = turn(proxy, &mut messages, &mut chance);
                thread::sleep(Duration::from_millis(chance.between(rest_from_ms, rest_to_ms)));
            }
        }));
    }
}

fn agent(proxy: SocketAddr, messages: &mut Vec<String>, chance: &mut Chance) -> io::Result<()> {
    if messages.is_empty() || messages.len() > MESSAGES_MAX {
        let system = "You are a careful programmer. Look at the files before you answer. ".repeat(20);
        *messages = vec![message("system", &system), message("user", chance.pick(&QUESTIONS))];
    }
    let (model, messages_so_far) = (MODELS[1].0, messages.join(","));
    let body = format!(r#"{{"model":"{model}","stream":true,"messages":[{messages_so_far}],"tools":{TOOLS}}}"#);
    let reply = ask(proxy, "/v1/chat/completions", "Zed/0.210.1", &body, u64::MAX)?;
    let said: String = reply.lines().filter_map(|event| text_of(event, "content")).collect();
    match reply.split_once(r#""tool_calls":["#).and_then(|(_, rest)| rest.split_once(']')) {
        Some((call, _)) => {
            messages.push(format!(r#"{{"role":"assistant","content":null,"tool_calls":[{call}]}}"#));
            let content = "a line of a file that the demo made up; ".repeat(18);
            messages.push(format!(r#"{{"role":"tool","tool_call_id":"call_1","content":"{content}"}}"#));
        }
        None => messages.extend([message("assistant", &said), message("user", chance.pick(&QUESTIONS))]),
    }
    Ok(())
}

fn message(role: &str, content: &str) -> String {
    format!(r#"{{"role":"{role}","content":"{content}"}}"#)
}

fn asker(proxy: SocketAddr, _: &mut Vec<String>, chance: &mut Chance) -> io::Result<()> {
    let (model, leaves_after) = match chance.below(12) {
        0 => ("mistralai/not-there-7b", u64::MAX),
        1 => (MODELS[2].0, 4_000),
        _ => (chance.pick(&MODELS).0, u64::MAX),
    };
    let user_agent = chance.pick(&["OpenAI/Python 2.8.1", "OpenAI/JS 6.9.0", "curl/8.5.0"]);
    let (stream, question) = (chance.below(3) > 0 || leaves_after < u64::MAX, message("user", chance.pick(&QUESTIONS)));
    let body = format!(r#"{{"model":"{model}","stream":{stream},"messages":[{question}]}}"#);
    ask(proxy, "/v1/chat/completions", user_agent, &body, leaves_after).map(drop)
}

fn indexer(proxy: SocketAddr, _: &mut Vec<String>, chance: &mut Chance) -> io::Result<()> {
    let text = chance.pick(&QUESTIONS).repeat(chance.between(1, 6) as usize);
    let body = format!(r#"{{"model":"{EMBEDDER}","input":"{text}"}}"#);
    ask(proxy, "/v1/embeddings", "OpenAI/JS 6.9.0", &body, u64::MAX).map(drop)
}

/// Asks, and reads the reply up to so many bytes. By HTTP/1.0, so that it comes without chunks and ends with the
/// connection.
fn ask(proxy: SocketAddr, path: &str, user_agent: &str, body: &str, bytes_max: u64) -> io::Result<String> {
    let length = body.len();
    let mut stream = TcpStream::connect(proxy)?;
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: {user_agent}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut reply = Vec::new();
    stream.take(bytes_max).read_to_end(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}
