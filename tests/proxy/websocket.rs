//! WebSockets: what both ends see of each other, and the rows of what LM Studio's own clients have generated there.

mod ending;
mod generations;
mod now;
mod opening;
mod relaying;

use crate::harness::*;

/// The first message of a client without a token, and LM Studio's answer to any.
const GUEST: &str = r#"{"authVersion":1,"clientIdentifier":"guest:k4x","clientPasskey":"4Hq"}"#;
const WELCOME: &str = r#"{"success":true}"#;

/// A WebSocket with the proxy between, and both its ends.
struct Open {
    client: Client,
    link: Link,
    proxy: Proxy,
    upstream: Upstream,
}

impl Open {
    fn at(path: &str) -> Open {
        Open::with(path, &[])
    }

    fn with(path: &str, settings: &[(&str, &str)]) -> Open {
        let upstream = Upstream::new();
        let proxy = Proxy::with(&upstream, settings);
        let (client, link) = websocket(proxy.address(), &upstream, path);
        Open { client, link, proxy, upstream }
    }

    /// One that has let a guest in.
    fn welcome(settings: &[(&str, &str)]) -> Open {
        let mut open = Open::with("/llm", settings);
        open.asks(GUEST);
        open.answers(WELCOME);
        open
    }

    /// The client says it, and upstream hears it.
    #[track_caller]
    fn asks(&mut self, message: &str) {
        let frame = Frame::text(message).masked();
        self.client.send(frame.bytes());
        assert_eq!(self.link.frame(), frame);
    }

    /// Upstream says it, and the client hears it.
    #[track_caller]
    fn answers(&mut self, message: &str) {
        let frame = Frame::text(message);
        self.link.send(frame.bytes());
        assert_eq!(self.client.frame(), frame);
    }

    /// A prediction goes on, of which the client has a word.
    fn predicting(&mut self, channel: usize) {
        self.asks(&predict(channel));
        self.answers(&fragment(channel, "Hel"));
    }
}

/// Asks for a prediction, of the model "qwen3".
fn predict(channel: usize) -> String {
    let asked = r#""modelSpecifier":{"type":"query","query":{"identifier":"qwen3"}},"history":{"messages":[{"role":"user","content":[{"type":"text","text":"Hi"}]}]}"#;
    format!(r#"{{"type":"channelCreate","endpoint":"predict","channelId":{channel},"creationParameter":{{{asked}}}}}"#)
}

fn told(channel: usize, message: &str) -> String {
    format!(r#"{{"type":"channelSend","channelId":{channel},"message":{message}}}"#)
}

fn fragment(channel: usize, word: &str) -> String {
    told(channel, &format!(r#"{{"type":"fragment","fragment":{{"content":"{word}","reasoningType":"none"}}}}"#))
}

fn progress(channel: usize, cached: usize) -> String {
    let details = format!(r#"{{"cachedTokenCount":{cached},"totalPromptTokenCount":100}}"#);
    told(channel, &format!(r#"{{"type":"promptProcessingProgress","progress":1,"details":{details}}}"#))
}

/// The end of one, of 100 tokens and this many more.
fn success(channel: usize, stop: &str, output: usize) -> String {
    let total = 100 + output;
    let counts = format!(
        r#""promptTokensCount":100,"predictedTokensCount":{output},"totalTokensCount":{total},"numGpuLayers":-1"#
    );
    told(
        channel,
        &format!(
            r#"{{"type":"success","stats":{{"stopReason":"{stop}",{counts}}},"modelInfo":{{"identifier":"qwen3:2"}}}}"#
        ),
    )
}

fn closed(channel: usize) -> String {
    format!(r#"{{"type":"channelClose","channelId":{channel}}}"#)
}

/// Asks for an embedding, and answers that.
fn embed(call: usize) -> String {
    let asked = r#""modelSpecifier":{"type":"query","query":{"identifier":"nomic"}},"inputString":"a word""#;
    format!(r#"{{"type":"rpcCall","endpoint":"embedString","callId":{call},"parameter":{{{asked}}}}}"#)
}

fn embedded(call: usize) -> String {
    format!(r#"{{"type":"rpcResult","callId":{call},"result":{{"embedding":[0.1,-2e-3,0.3]}}}}"#)
}

fn ping() -> Frame {
    Frame::new(FIN | PING, "here?")
}

/// What a row says of its counts: input, output, total, and of the input what the cache had.
fn counts(row: &Row) -> [Option<i64>; 4] {
    [row.input_tokens, row.output_tokens, row.total_tokens, row.cached_tokens]
}

/// How many WebSockets there are.
fn sockets(proxy: &Proxy) -> String {
    let metrics = proxy.ask(get("/metrics"));
    let line = metrics.text().lines().find(|line| line.starts_with("lms_proxy_websockets ")).expect("the gauge");
    line.rsplit(' ').next().expect("split").to_owned()
}

fn wait_for_sockets(proxy: &Proxy, expected: &str) {
    until("the gauge", || (sockets(proxy) == expected).then_some(()));
}
