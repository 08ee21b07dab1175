//! What must hold for any bytes at all on a WebSocket to LM Studio. `cargo test` runs it on mixtures of known
//! messages, cargo-fuzz on what it thinks of.

use lms_metrics_proxy::usage::{Generation, Namespace, ReadAlong, SocketReader};

use crate::testing::Random;

/// Ends a piece of the input of [`fuzz_socket`]: no JSON holds it.
const PIECE_END: u8 = 0xFF;
/// What is kept of each kind of words.
const KEPT_MAX: usize = 300;

/// Known messages: `>` of a client, `<` of LM Studio.
pub const MESSAGES: [&str; 24] = [
    r#"> {"authVersion":1,"clientIdentifier":"sk-lm-AbCdEf12","clientPasskey":"4Hq"}"#,
    r#"< {"success":true}"#,
    r#"< {"success":false,"error":{"title":"Invalid API token"}}"#,
    r#"> {"type":"channelCreate","endpoint":"getOrLoad","channelId":0,"creationParameter":{"identifier":"q","loadTtlMs":3}}"#,
    r#"< {"type":"channelSend","channelId":0,"message":{"type":"loadSuccess","info":{"modelKey":"k","identifier":"i","instanceReference":"r"}}}"#,
    r#"< {"type":"channelClose","channelId":0}"#,
    r#"> {"type":"channelCreate","endpoint":"predict","channelId":1,"creationParameter":{"modelSpecifier":{"type":"instanceReference","instanceReference":"r"},"history":{"messages":[{"role":"user","content":[]}]}}}"#,
    r#"> {"creationParameter":{"rawPrompt":"a\u00e9","modelSpecifier":{"query":{"identifier":"q"}}},"channelId":2,"endpoint":"completeRawText","type":"channelCreate"}"#,
    r#"> {"type":"channelSend","channelId":1,"message":{"type":"cancel"}}"#,
    r#"< {"type":"channelSend","channelId":1,"message":{"type":"promptProcessingProgress","details":{"cachedTokenCount":90}}}"#,
    r#"< {"type":"channelSend","channelId":1,"message":{"type":"fragment","fragment":{"content":"Hel\n","tokensCount":1,"reasoningType":"none"}}}"#,
    r#"< {"message":{"fragment":{"reasoningType":"reasoning","content":"Hm"},"type":"fragment"},"channelId":2,"type":"channelSend"}"#,
    r#"< {"type":"channelSend","channelId":1,"message":{"type":"toolCallGenerationArgumentFragmentGenerated","content":"{"}}"#,
    r#"< {"type":"channelSend","channelId":1,"message":{"type":"toolCallGenerationEnd","toolCallRequest":{"id":"7","name":"f","arguments":{"a": [1]}}}}"#,
    r#"< {"type":"channelSend","channelId":1,"message":{"type":"success","stats":{"stopReason":"userStopped","tokensPerSecond":33.1,"promptTokensCount":100,"predictedTokensCount":3},"modelInfo":{"identifier":"i"}}}"#,
    r#"< {"type":"channelSend","channelId":2,"message":{"type":"success"}}"#,
    r#"< {"type":"channelSend","channelId":2,"message":{"type":"error","error":"no"}}"#,
    r#"< {"type":"channelClose","channelId":1}"#,
    r#"< {"type":"channelError","channelId":2,"error":{"title":"t"}}"#,
    r#"> {"type":"rpcCall","endpoint":"embedString","callId":3,"parameter":{"modelSpecifier":{"instanceReference":"r"},"inputString":"a"}}"#,
    r#"< {"type":"rpcResult","callId":3,"result":{"embedding":[0.1,-2e-3]}}"#,
    r#"< {"type":"rpcResult","callId":4,"result":[{"instanceReference":"r","identifier":"i"},{}]}"#,
    r#"< {"type":"rpcError","callId":3,"error":{"title":"t"}}"#,
    r#"< {"type":"communicationWarning","warning":"w"}"#,
];

/// What was read.
#[derive(Debug, PartialEq)]
struct Understood {
    generations: Vec<Generation>,
    /// For each piece of LM Studio's, what of it could leave at once.
    free: Vec<usize>,
    token: Option<String>,
    client_name: Option<&'static str>,
    missed: u64,
    is_at_boundary: bool,
}

/// Reads `input` as what both sides say: one byte chooses what for, eight where it is cut, then come pieces, each with a
/// byte before it that tells who says it and whether it is one text message or bytes of frames. Panics when a promise is
/// broken: nothing depends on the cuts, what ends a generation is held, and memory is bounded.
pub fn fuzz_socket(input: &[u8]) {
    let Some((&[choice, ref seed @ ..], said)) = input.split_first_chunk::<9>() else { return };
    let namespace = [Namespace::Llm, Namespace::Embedding, Namespace::Other][choice as usize % 3];
    let whole = read(namespace, said, |rest| rest);
    let mut random = Random::new(u64::from_le_bytes(*seed));
    let cut = read(namespace, said, |rest| 1 + random.index(rest.min(40)));
    assert!(whole == cut, "the cuts decide: {namespace:?}\n{whole:#?}\n{cut:#?}");
}

fn read(namespace: Namespace, said: &[u8], mut next: impl FnMut(usize) -> usize) -> Understood {
    let mut reader = SocketReader::new(namespace, KEPT_MAX);
    let (mut generations, mut all_free) = (Vec::new(), Vec::new());
    for (n, piece) in said.split(|byte| *byte == PIECE_END).enumerate() {
        let Some((&how, piece)) = piece.split_first() else { continue };
        let (is_client, is_text) = (how & 1 == 1, how & 2 == 0);
        let bytes = if is_text { frame(is_client, piece) } else { piece.to_vec() };
        let at_us = n as u64;
        let (mut at, mut free) = (0, None);
        while at < bytes.len() {
            let end = at + next(bytes.len() - at).clamp(1, bytes.len() - at);
            if is_client {
                reader.client_sent(&bytes[at..end], at_us);
                assert!(reader.take_ended().is_empty(), "a client ends nothing by what it says");
            } else {
                let left = reader.upstream_sent(&bytes[at..end], at_us);
                let ended = reader.take_ended();
                assert!(
                    left <= end - at && (left < end - at) != ended.is_empty(),
                    "{left} of {} with {ended:?}",
                    end - at
                );
                if left < end - at {
                    free.get_or_insert(at + left);
                }
                generations.extend(ended);
            }
            let most = 500_000 + 2_000 * reader.running();
            assert!(reader.bytes() <= most, "{} bytes", reader.bytes());
            at = end;
        }
        if !is_client {
            all_free.push(free.unwrap_or(bytes.len()));
        }
    }
    let (running, ended) = (reader.running(), reader.end(said.len() as u64));
    assert_eq!((running, reader.running()), (ended.len(), 0));
    generations.extend(ended);
    assert!(namespace != Namespace::Other || generations.is_empty());
    for Generation { prompt, report, .. } in &generations {
        for text in [prompt, &report.output, &report.reasoning, &report.tool_calls].into_iter().flatten() {
            assert!(text.len() <= KEPT_MAX, "{} bytes are kept", text.len());
        }
    }
    Understood {
        generations,
        free: all_free,
        token: reader.take_token(),
        client_name: reader.client_name(),
        missed: reader.take_missed(),
        is_at_boundary: reader.is_at_boundary(),
    }
}

/// A text message in one frame. That of a client is masked, by a key that leaves it as it is.
fn frame(is_client: bool, message: &[u8]) -> Vec<u8> {
    let (mask, key): (u8, &[u8]) = if is_client { (0x80, &[0; 4]) } else { (0, &[]) };
    let length = message.len();
    let head = match length {
        ..126 => vec![0x81, mask | length as u8],
        126..0x1_0000 => [&[0x81, mask | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[0x81, mask | 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    [&head, key, message].concat()
}

/// Messages as [`fuzz_socket`] takes them.
pub fn input(choice: u8, messages: &[&str]) -> Vec<u8> {
    let mut input = [&[choice], &[7; 8][..]].concat();
    for message in messages {
        input.push(u8::from(message.starts_with('>')));
        input.extend(message.as_bytes()[1..].trim_ascii());
        input.push(PIECE_END);
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_messages_in_any_order_keep_the_rules() {
        let mut random = Random::new(20_261_128);
        for round in 0..3000 {
            let count = 1 + random.index(30);
            let messages: Vec<&str> = (0..count).map(|_| MESSAGES[random.index(MESSAGES.len())]).collect();
            let mut input = input(round as u8, &messages);
            input[1..9].copy_from_slice(&random.below(u64::MAX).to_le_bytes());
            fuzz_socket(&input);
        }
    }

    #[test]
    fn known_messages_with_changed_bytes_keep_the_rules() {
        let mut random = Random::new(77);
        let telling = b"\"{}[]:,\\01te \x81\x01\x00\xff\x7e\x7f\x88";
        for round in 0..3000 {
            let count = 1 + random.index(12);
            let messages: Vec<&str> = (0..count).map(|_| MESSAGES[random.index(MESSAGES.len())]).collect();
            let mut input = input(round as u8, &messages);
            for _ in 0..1 + random.index(8) {
                let (at, byte) = (9 + random.index(input.len() - 10), telling[random.index(telling.len())]);
                match random.index(4) {
                    0 if input.len() > 10 => drop(input.remove(at)),
                    1 => input.insert(at, byte),
                    2 => input.truncate(at.max(11)),
                    _ => input[at] = byte,
                }
            }
            fuzz_socket(&input);
        }
    }

    #[test]
    fn the_rules_look_at_generations() {
        let llm = read(Namespace::Llm, &input(0, &MESSAGES)[9..], |rest| rest);
        assert_eq!(llm.generations.len(), 2);
        assert_eq!(llm.token.as_deref(), Some("sk-lm-AbCdEf12:4Hq"));
        let embedding = read(Namespace::Embedding, &input(1, &MESSAGES)[9..], |rest| rest);
        assert_eq!(embedding.generations.len(), 1);
    }
}
