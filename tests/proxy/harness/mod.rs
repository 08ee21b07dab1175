//! The three parties of a test: the proxy as a process, upstream and the client as sockets in the test's hands.

mod client;
mod folder;
mod frames;
mod peer;
mod process;
mod rows;
mod upstream;
#[cfg(target_os = "linux")]
mod vitals;
mod words;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use client::Client;
pub use folder::Folder;
pub use frames::*;
pub use peer::{Ended, Message};
pub use process::{Proxy, command};
pub use rows::{Row, count_of, rows_of};
pub use upstream::{Link, Upstream};
pub use words::*;

/// How long anything may take. Only a test that fails ever waits so long; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what nobody can announce: a commit or the end of another process.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Both ends of a request that upstream has taken.
pub fn asked(proxy: &Proxy, upstream: &Upstream, request: impl AsRef<[u8]>) -> (Client, Link) {
    let mut client = proxy.connect();
    client.send(request);
    let mut link = upstream.accept();
    link.request();
    (client, link)
}

/// The same of one for a stream.
pub fn asking(proxy: &Proxy, upstream: &Upstream) -> (Client, Link) {
    asked(proxy, upstream, streaming_chat())
}

/// A client whose connection has moved to where streams flow. What it asks there is answered when all has been seen
/// that came before, for a loop takes what is ready in order.
pub fn beside_streams(proxy: &Proxy, upstream: &Upstream) -> Client {
    let (mut client, mut link) = asked(proxy, upstream, get("/v1/models"));
    link.send(reply("200 OK", "application/json\r\nConnection: close", "{}"));
    assert_eq!(client.reply().text(), "{}");
    client
}

/// A stream of which the client has read one event: from now on it only flows.
pub fn streaming(proxy: &Proxy, upstream: &Upstream) -> (Client, Link) {
    let (mut client, mut link) = asking(proxy, upstream);
    link.send([STREAM_HEAD, &chunk(&event("One"))].concat());
    client.through("One");
    (client, link)
}

/// Both ends of a WebSocket that is open. `address` is the proxy's, or what stands between in its place.
pub fn websocket(address: SocketAddr, upstream: &Upstream, path: &str) -> (Client, Link) {
    let mut client = Client::connect(address);
    client.send(opening(path));
    let mut link = upstream.accept();
    let request = link.request();
    link.send(switching(&request));
    let reply = client.bodiless_reply();
    assert_eq!(reply.status(), 101);
    assert_eq!(reply.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "as RFC 6455 §1.3 has it");
    (client, link)
}
