//! Fuzz targets of the proxy, and what they begin with. In this folder:
//!
//! ```text
//! cargo install cargo-fuzz
//! cargo run --example seeds          writes corpus/intake, tap, inject, pieces, outline, websocket and socket
//! cargo +nightly fuzz run tap        or another of them; -- -max_total_time=600 ends it after ten minutes
//! ```
//!
//! The targets hold the functions that `cargo test` runs on mutations of its own, against any bytes at all. What one
//! finds becomes a test beside the code that it breaks.

use std::fs;
use std::io;
use std::path::Path;

use lms_metrics_proxy::routes::dialect_of;
// The file of the unit tests names modules of the crate.
use lms_metrics_proxy::{calendar, record};

use tap::DIALECTS;

#[allow(dead_code, reason = "the target uses more of it")]
#[path = "../../tests/fuzz/inject.rs"]
mod inject;
#[allow(dead_code, reason = "the target uses more of it")]
#[path = "../../tests/fuzz/socket.rs"]
mod socket;
#[allow(dead_code, reason = "the target uses more of it")]
#[path = "../../tests/fuzz/tap.rs"]
mod tap;
#[allow(dead_code, reason = "unit tests use more of it")]
#[path = "../../src/testing.rs"]
mod testing;
#[allow(dead_code, reason = "the target uses more of it")]
#[path = "../../tests/fuzz/websocket.rs"]
mod websocket;

const REQUESTS: [&str; 6] = [
    "GET /v1/models HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\n\r\nGET /stats/recent?limit=%31 HTTP/1.0\r\n\r\n",
    "POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nGET / HTTP/1.0\r\n\r\n",
    "POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "GET http://[::1]:80?x HTTP/1.1\r\nHost: b\r\nConnection: close, x-y\r\nExpect: 100-continue\r\n\r\n",
    "GET /v1/..%2f HTTP/1.0\r\nConnection: keep-alive\r\nX_1: \t a\r\nContent-Length: 0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
];

fn main() -> io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (n, request) in REQUESTS.iter().enumerate() {
        write(&here.join("corpus/intake"), &n.to_string(), request.as_bytes())?;
    }
    for (n, body) in inject::BODIES.iter().enumerate() {
        write(&here.join("corpus/inject"), &n.to_string(), body.as_bytes())?;
        write(&here.join("corpus/pieces"), &n.to_string(), &[&b"\0\x20"[..], body.as_bytes()].concat())?;
        let twice = [&(body.len() as u16).to_be_bytes()[..], body.as_bytes(), body.as_bytes()].concat();
        write(&here.join("corpus/outline"), &n.to_string(), &twice)?;
    }
    for (n, frames) in websocket::FRAMES.iter().enumerate() {
        write(&here.join("corpus/websocket"), &n.to_string(), &[&[7; 8][..], frames].concat())?;
    }
    for namespace in 0..3 {
        let bytes = socket::input(namespace, &socket::MESSAGES);
        write(&here.join("corpus/socket"), &format!("all-{namespace}"), &bytes)?;
        for (n, message) in socket::MESSAGES.iter().enumerate() {
            write(&here.join("corpus/socket"), &format!("{n}-{namespace}"), &socket::input(namespace, &[message]))?;
        }
    }
    for entry in fs::read_dir(here.join("../tests/transcripts"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(seed) = reply(&fs::read_to_string(entry.path())?) {
            write(&here.join("corpus/tap"), &name, &seed)?;
        }
    }
    Ok(())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name), bytes)
}

/// A transcript as `fuzz_tap` takes it: how it is read, where it is cut, and the body. `None` for what is none.
fn reply(transcript: &str) -> Option<Vec<u8>> {
    let (head, rest) = transcript.split_once("--- body\n")?;
    let body = rest.split("--- removed\n").next()?.split("--- report\n").next()?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let dialect = dialect_of(field("route")?);
    let place = DIALECTS.iter().position(|other| *other == dialect)?;
    let body = match field("line-ends") {
        Some("crlf") => body.replace('\n', "\r\n"),
        Some("cr") => body.replace('\n', "\r"),
        Some(_) | None => body.to_owned(),
    };
    let (is_json, strips) = (field("form") == Some("json"), field("injected") == Some("yes"));
    let choice = (place as u8) << 2 | u8::from(is_json) << 1 | u8::from(strips);
    Some([&[choice], &[7; 8][..], body.as_bytes()].concat())
}
