//! Requests and replies as they appear on the wire.

use super::frames::accept;
use super::peer::Message;

/// A whole reply as LM Studio gives it.
pub const CHAT_REPLY: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":17,"completion_tokens":5,"total_tokens":22}}"#;
/// The same without counts.
pub const CHAT_REPLY_WITHOUT_USAGE: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}]}"#;
/// The head of a stream in chunks.
pub const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
/// The head of a stream that ends with the connection.
pub const CLOSING_STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
/// The last event before the terminal one.
pub const USAGE_EVENT: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"model\":\"m-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":17,\"completion_tokens\":5,\"total_tokens\":22}}\n\n";
/// The terminal event.
pub const DONE: &str = "data: [DONE]\n\n";
/// The end of a body in chunks.
pub const LAST_CHUNK: &str = "0\r\n\r\n";

/// A request without a body.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A request with a JSON body.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n\
         {body}"
    )
}

/// Asks for a chat reply in one piece.
pub fn chat() -> String {
    post("/v1/chat/completions", r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#)
}

/// Asks for a chat reply as a stream with counts.
pub fn streaming_chat() -> String {
    let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    post("/v1/chat/completions", body)
}

/// A reply with a length.
pub fn reply(status: &str, content_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// [`CHAT_REPLY`] with its head.
pub fn chat_reply() -> Vec<u8> {
    reply("200 OK", "application/json", CHAT_REPLY)
}

/// One event that carries a word.
pub fn event(word: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-1\",\"model\":\"m-1\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n"
    )
}

/// One chunk.
pub fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Asks for a WebSocket as LM Studio's TypeScript SDK does, but for its offer of compression.
pub fn opening(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nHost: localhost\r\n\r\n"
    )
}

/// Agrees to it.
pub fn switching(request: &Message) -> String {
    let accept = accept(request.field("sec-websocket-key").expect("a key"));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}
