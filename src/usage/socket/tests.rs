//! Conversations, line by line: `>` what the client says, `<` what LM Studio says. Each line comes a millisecond after
//! the one before.

use super::*;
use crate::limits::{SOCKET_CONTENT_BYTES_MAX, SOCKET_MODELS_MAX, SOCKET_OPEN_MAX, SOCKET_WORDS_BYTES_MAX};
use crate::usage::TokenCounts;
use crate::usage::listing::ModelNews;
use Namespace::{Embedding, Llm, Other};

const AUTH: &str = r#"
> {"authVersion":1,"clientIdentifier":"guest:k4x","clientPasskey":"4Hq"}
< {"success":true}"#;

const LOAD: &str = r#"
> {"type":"channelCreate","endpoint":"getOrLoad","channelId":0,"creationParameter":{"identifier":"qwen3","loadTtlMs":3600000}}
< {"type":"channelSend","channelId":0,"message":{"type":"startLoading","identifier":"qwen3","info":{"modelKey":"qwen/qwen3-4b"}}}
< {"type":"channelSend","channelId":0,"message":{"type":"loadProgress","progress":0.5}}
< {"type":"channelSend","channelId":0,"message":{"type":"loadSuccess","info":{"type":"llm","modelKey":"qwen/qwen3-4b","identifier":"qwen/qwen3-4b:2","instanceReference":"Ab12"}}}
< {"type":"channelClose","channelId":0}"#;

const PREDICT_1: &str = r#"
> {"type":"channelCreate","endpoint":"predict","channelId":1,"creationParameter":{"modelSpecifier":{"type":"instanceReference","instanceReference":"Ab12"},"history":{"messages":[{"role":"user","content":[{"type":"text","text":"Hi \"x\""}]}]},"predictionConfigStack":{"layers":[]}}}"#;

const ANSWER_1: &str = r#"
< {"type":"channelSend","channelId":1,"message":{"type":"promptProcessingProgress","progress":0.9,"details":{"cachedTokenCount":80,"totalPromptTokenCount":100}}}
< {"type":"channelSend","channelId":1,"message":{"type":"promptProcessingProgress","progress":1,"details":{"cachedTokenCount":90,"totalPromptTokenCount":100}}}
< {"type":"channelSend","channelId":1,"message":{"type":"fragment","fragment":{"content":"Hm","tokensCount":1,"reasoningType":"reasoning"}}}
< {"type":"channelSend","channelId":1,"message":{"type":"fragment","fragment":{"content":"</think>","reasoningType":"reasoningEndTag"}}}
< {"type":"channelSend","channelId":1,"message":{"type":"fragment","fragment":{"content":"Hel","reasoningType":"none"}}}
< {"type":"channelSend","channelId":1,"message":{"type":"fragment","fragment":{"content":"lo"}}}
< {"type":"channelSend","channelId":1,"message":{"type":"toolCallGenerationStart","toolCallId":"7"}}
< {"type":"channelSend","channelId":1,"message":{"type":"toolCallGenerationArgumentFragmentGenerated","content":"{\"a\":1}"}}
< {"type":"channelSend","channelId":1,"message":{"type":"toolCallGenerationEnd","toolCallRequest":{"id":"7","type":"function","name":"f","arguments":{"a": [1, "b c"]}}}}"#;

const SUCCESS_1: &str = r#"
< {"type":"channelSend","channelId":1,"message":{"type":"success","stats":{"stopReason":"eosFound","tokensPerSecond":33.1,"numGpuLayers":-1,"timeToFirstTokenSec":0.041,"promptTokensCount":100,"predictedTokensCount":3,"totalTokensCount":103,"usedDraftModelKey":"d","totalDraftTokensCount":8,"acceptedDraftTokensCount":5},"modelInfo":{"type":"llm","identifier":"qwen/qwen3-4b:2","modelKey":"qwen/qwen3-4b"},"predictionConfig":{"fields":[]}}}"#;

const CLOSE_1: &str = r#"
< {"type":"channelClose","channelId":1}"#;

const EMBED_1: &str = r#"
> {"type":"rpcCall","endpoint":"embedString","callId":1,"parameter":{"modelSpecifier":{"type":"instanceReference","instanceReference":"Ef56"},"inputString":"a\u00e9"}}"#;
const EMBEDDED_1: &str = r#"
< {"type":"rpcResult","callId":1,"result":{"embedding":[0.1,-2e-3,0.3]}}"#;

// ---- telling and reading -------------------------------------------------------------------------------------------

/// A text message in one frame: a client's is masked.
fn frame(is_client: bool, message: &[u8]) -> Vec<u8> {
    let mask = if is_client { 0x80 } else { 0 };
    let mut bytes = vec![0x81];
    match message.len() {
        length @ ..126 => bytes.push(mask | length as u8),
        length @ 126..0x1_0000 => bytes.extend([&[mask | 126][..], &(length as u16).to_be_bytes()].concat()),
        length => bytes.extend([&[mask | 127][..], &(length as u64).to_be_bytes()].concat()),
    }
    let key = [7, 0, 255, 33];
    if is_client {
        bytes.extend(key);
    }
    let mask = |(at, byte): (usize, &u8)| if is_client { byte ^ key[at % 4] } else { *byte };
    bytes.extend(message.iter().enumerate().map(mask));
    bytes
}

/// Says one line in pieces of `size`; what ended by it, and how many bytes could leave before that was committed.
fn say(reader: &mut SocketReader, line: &str, at_us: u64, size: usize) -> (usize, Vec<Generation>) {
    let (is_client, message) = (line.starts_with('>'), line[1..].trim());
    let bytes = frame(is_client, message.as_bytes());
    let mut free = bytes.len();
    for (n, piece) in bytes.chunks(size).enumerate() {
        if is_client {
            reader.client_sent(piece, at_us);
            continue;
        }
        let left = reader.upstream_sent(piece, at_us);
        if left < piece.len() {
            free = free.min(n * size + left);
        }
    }
    (free, reader.take_ended())
}

/// Says it all; the generations in the order in which they ended, those that the end ended last.
fn talk_in_pieces(namespace: Namespace, transcript: &str, size: usize) -> Vec<Generation> {
    let mut reader = SocketReader::new(namespace, 1000);
    let mut at_us = 0;
    let mut ended = Vec::new();
    for line in transcript.lines().filter(|line| !line.is_empty()) {
        at_us += 1000;
        ended.extend(say(&mut reader, line, at_us, size).1);
    }
    let open = reader.running();
    let last = reader.end(at_us + 1000);
    assert_eq!(last.len(), open, "what goes on is told at the end");
    ended.extend(last);
    assert_eq!(reader.running(), 0);
    ended
}

fn talk(namespace: Namespace, parts: &[&str]) -> Vec<Generation> {
    talk_in_pieces(namespace, &parts.concat(), usize::MAX)
}

/// The one generation of it.
#[track_caller]
fn one(namespace: Namespace, parts: &[&str]) -> Generation {
    let mut ended = talk(namespace, parts);
    assert_eq!(ended.len(), 1, "{ended:#?}");
    ended.remove(0)
}

// ---- what a row wants to know --------------------------------------------------------------------------------------

#[test]
fn a_prediction_tells_all_that_its_row_wants_to_know() {
    let Generation { endpoint, began_us, ended_us, requested_model, was_streamed, prompt, report, end, .. } =
        one(Llm, &[AUTH, LOAD, PREDICT_1, ANSWER_1, SUCCESS_1, CLOSE_1]);
    assert_eq!((endpoint, was_streamed, end), ("/llm/predict", true, GenerationEnd::Completed));
    assert_eq!((began_us, ended_us), (8_000, 18_000));
    assert_eq!(requested_model.as_deref(), Some("qwen3"));
    let history = r#"{"messages":[{"role":"user","content":[{"type":"text","text":"Hi \"x\""}]}]}"#;
    assert_eq!(prompt.as_deref(), Some(history));
    assert_eq!(report.model.as_deref(), Some("qwen/qwen3-4b:2"));
    let counts = TokenCounts { input: Some(100), output: Some(3), total: Some(103), cached: Some(90), ..report.counts };
    assert_eq!((report.counts, report.counts.reasoning, report.usage_source), (counts, None, Some("stats")));
    assert_eq!((report.work.drafted, report.work.accepted), (Some(8), Some(5)));
    assert_eq!(report.work.tokens_per_second, Some(33.1));
    assert_eq!((report.finish_reason.as_deref(), report.error), (Some("eosFound"), None));
    assert_eq!((report.terminal, report.finished, report.streamed), (true, true, true));
    // The first of the fragments, counted from the request.
    assert_eq!((report.first_content_us, report.content_events), (Some(3_000), 6));
    assert_eq!((report.output.as_deref(), report.reasoning.as_deref()), (Some("Hello"), Some("Hm")));
    let calls = r#"[{"id":"7","name":"f","arguments":"{\"a\":[1,\"b c\"]}"}]"#;
    assert_eq!(report.tool_calls.as_deref(), Some(calls));
}

#[test]
fn raw_text_is_completed_by_an_endpoint_of_its_own() {
    let ask =
        PREDICT_1.replace("predict\"", "completeRawText\"").replace("\"history\":{", "\"rawPrompt\":\"a\\nb\",\"x\":{");
    let generation = one(Llm, &[AUTH, LOAD, &ask, SUCCESS_1]);
    assert_eq!((generation.endpoint, generation.prompt.as_deref()), ("/llm/completeRawText", Some("a\nb")));
}

#[test]
fn an_embedding_tells_who_was_asked_for_what() {
    let list = r#"
> {"type":"rpcCall","endpoint":"listLoaded","callId":0}
< {"type":"rpcResult","callId":0,"result":[{"instanceReference":"x","identifier":"y"},{"identifier":"nomic:2","modelKey":"nomic","instanceReference":"Ef56"}]}"#;
    let generation = one(Embedding, &[AUTH, list, EMBED_1, EMBEDDED_1]);
    assert_eq!((generation.endpoint, generation.was_streamed), ("/embedding/embedString", false));
    assert_eq!((generation.end, generation.ended_us - generation.began_us), (GenerationEnd::Completed, 1_000));
    assert_eq!((generation.prompt.as_deref(), generation.requested_model.as_deref()), (Some("aé"), Some("nomic:2")));
    let report = generation.report;
    assert_eq!(
        (report.model.as_deref(), report.counts, report.usage_source),
        (Some("nomic:2"), TokenCounts::default(), None)
    );
    assert_eq!((report.first_content_us, report.output, report.streamed), (None, None, false));
}

#[test]
fn the_model_is_found_however_it_is_asked_for() {
    #[track_caller]
    fn check(before: &str, specifier: &str, requested: Option<&str>, model: Option<&str>) {
        let ask = PREDICT_1.replace(r#"{"type":"instanceReference","instanceReference":"Ab12"}"#, specifier);
        let Generation { requested_model, report, .. } = one(Llm, &[AUTH, before, &ask, CLOSE_1]);
        assert_eq!((requested_model.as_deref(), report.model.as_deref()), (requested, model), "{specifier}");
    }
    let reference = r#"{"type":"instanceReference","instanceReference":"Ab12"}"#;
    check(LOAD, reference, Some("qwen3"), Some("qwen/qwen3-4b:2"));
    check(&LOAD.replace("loadSuccess", "alreadyLoaded"), reference, Some("qwen3"), Some("qwen/qwen3-4b:2"));
    let load_model = LOAD
        .replace("getOrLoad", "loadModel")
        .replace(r#""identifier":"qwen3","loadTtlMs""#, r#""modelKey":"qwen-key","identifier":"mine","loadTtlMs""#)
        .replace("loadSuccess", "success");
    check(&load_model, reference, Some("qwen-key"), Some("qwen/qwen3-4b:2"));
    let info = r#"
< {"type":"rpcResult","callId":3,"result":{"modelKey":"k","instanceReference":"Ab12"}}"#;
    check(info, reference, Some("k"), Some("k"));
    // The same number loads another one, before the first channel is closed.
    let (close, again) = (LOAD.lines().last().expect("a close"), LOAD.replace("qwen3", "first").replace("Ab12", "Xy"));
    check(&[&again.replace(close, ""), LOAD].concat(), reference, Some("qwen3"), Some("qwen/qwen3-4b:2"));
    // A channel of which nothing is known.
    check(&LOAD.replace("getOrLoad", "other"), reference, None, None);
    check("", reference, None, None);
    check(LOAD, r#"{"type":"query","query":{"identifier":"q"}}"#, Some("q"), None);
    check(LOAD, r#"{"type":"query","query":{"path":"p/q"}}"#, Some("p/q"), None);
    check(LOAD, r#"{"type":"query","query":{"domain":"llm","vision":true}}"#, None, None);
    let both = r#"{"query":{"identifier":"q"},"instanceReference":"Ab12"}"#;
    check(LOAD, both, Some("qwen3"), Some("qwen/qwen3-4b:2"));
    check("", both, Some("q"), None);
    check(LOAD, "null", None, None);
}

#[test]
fn who_loads_under_a_failure_teaches_nothing_and_disturbs_nobody() {
    let failed = r#"
> {"type":"channelCreate","endpoint":"getOrLoad","channelId":0,"creationParameter":{"identifier":"no-such"}}
< {"type":"channelError","channelId":0,"error":{"title":"no such model"}}"#;
    assert!(talk(Llm, &[AUTH, failed]).is_empty());
    assert_eq!(one(Llm, &[AUTH, failed, LOAD, PREDICT_1, SUCCESS_1]).requested_model.as_deref(), Some("qwen3"));
}

#[test]
fn what_stats_leave_out_is_unknown() {
    #[track_caller]
    fn check(stats: &str, expected: [Option<u64>; 4], source: Option<&str>) {
        let success =
            format!("\n< {{\"type\":\"channelSend\",\"channelId\":1,\"message\":{{\"type\":\"success\"{stats}}}}}");
        let Generation { report, end, .. } = one(Llm, &[AUTH, PREDICT_1, ANSWER_1, &success]);
        let TokenCounts { input, output, total, cached, .. } = report.counts;
        assert_eq!(([input, output, total, cached], report.usage_source), (expected, source), "{stats}");
        assert_eq!((end, report.work.tokens_per_second), (GenerationEnd::Completed, None), "{stats}");
    }
    check("", [None, None, None, Some(90)], None);
    check(r#","stats":{}"#, [None, None, None, Some(90)], None);
    check(r#","stats":null,"modelInfo":null"#, [None, None, None, Some(90)], None);
    check(
        r#","stats":{"stopReason":"eosFound","promptTokensCount":100}"#,
        [Some(100), None, None, Some(90)],
        Some("stats"),
    );
    let both = r#","stats":{"promptTokensCount":100,"predictedTokensCount":0,"tokensPerSecond":null}"#;
    check(both, [Some(100), Some(0), Some(100), Some(90)], Some("stats"));
    // More than the prompt cannot have been in the cache.
    check(r#","stats":{"promptTokensCount":10}"#, [Some(10), None, None, None], Some("stats"));
    check(
        r#","stats":{"promptTokensCount":-1,"predictedTokensCount":1.5,"totalTokensCount":"7"}"#,
        [None, None, None, Some(90)],
        None,
    );
}

#[test]
fn without_fragments_a_tool_call_is_what_comes_first() {
    let calls = ANSWER_1.lines().filter(|line| line.contains("toolCall")).collect::<Vec<_>>().join("\n");
    let report = one(Llm, &[AUTH, PREDICT_1, "\n", &calls, SUCCESS_1]).report;
    assert_eq!((report.first_content_us, report.content_events), (Some(1_000), 2));
    let whole = calls.lines().last().expect("three lines").to_owned();
    let twice = one(Llm, &[AUTH, PREDICT_1, "\n", &whole, "\n", &whole.replace("\"7\"", "\"8\""), SUCCESS_1]).report;
    assert_eq!((twice.first_content_us, twice.content_events), (Some(1_000), 2));
    assert_eq!(twice.tool_calls.expect("two").matches("\"name\":\"f\"").count(), 2);
    let again = one(Llm, &[AUTH, PREDICT_1, "\n", &whole, "\n", &whole, SUCCESS_1]).report;
    assert_eq!(again.tool_calls.expect("one").matches("\"name\":\"f\"").count(), 1);
    let bare = whole.replace("\"id\":\"7\",", "");
    let bare = one(Llm, &[AUTH, PREDICT_1, "\n", &bare, "\n", &bare, SUCCESS_1]).report;
    assert_eq!(bare.tool_calls.expect("two").matches("\"name\":\"f\"").count(), 2);
}

#[test]
fn no_words_are_kept_where_none_shall_be() {
    let mut reader = SocketReader::new(Llm, 0);
    let mut ended = Vec::new();
    for line in [AUTH, PREDICT_1, ANSWER_1, SUCCESS_1].concat().lines().filter(|line| !line.is_empty()) {
        ended.extend(say(&mut reader, line, 5, usize::MAX).1);
    }
    let Generation { prompt, report, .. } = ended.remove(0);
    assert_eq!((prompt, report.output, report.reasoning, report.tool_calls), (None, None, None, None));
    assert_eq!((report.counts.total, report.content_events), (Some(103), 6));
}

// ---- how it ends ---------------------------------------------------------------------------------------------------

#[test]
fn each_way_to_end_is_told_apart() {
    #[track_caller]
    fn check(lines: &str, expected: GenerationEnd, finish: Option<&str>, error: Option<&str>) {
        let generation = one(Llm, &[AUTH, PREDICT_1, ANSWER_1, lines]);
        let told = (generation.end, generation.report.finish_reason.as_deref(), generation.report.error.as_deref());
        assert_eq!(told, (expected, finish, error), "{lines}");
        assert_eq!(generation.report.output.as_deref(), Some("Hello"));
    }
    let stopped = |reason: &str| SUCCESS_1.replace("eosFound", reason);
    let cancel = r#"
> {"type":"channelSend","channelId":1,"message":{"type":"cancel"}}"#;
    let error = |error: &str| format!("\n< {{\"type\":\"channelError\",\"channelId\":1,\"error\":{error}}}");
    let sent = r#"
< {"type":"channelSend","channelId":1,"message":{"type":"error","error":{"title":"t"}}}"#;
    use GenerationEnd::{Cancelled, Completed, Failed, Open, Unanswered};
    for reason in
        ["eosFound", "stopStringFound", "toolCalls", "maxPredictedTokensReached", "contextLengthReached", "new"]
    {
        check(&stopped(reason), Completed, Some(reason), None);
    }
    check(&[cancel, &stopped("userStopped"), CLOSE_1].concat(), Cancelled, Some("userStopped"), None);
    check(&stopped("modelUnloaded"), Failed, Some("modelUnloaded"), None);
    check(&stopped("failed"), Failed, Some("failed"), None);
    check(
        &error(r#"{"cause":"c","title":"no such model","stack":"s","rootTitle":"r"}"#),
        Failed,
        None,
        Some("no such model"),
    );
    check(&error(r#"{"cause":"c","rootTitle":"r"}"#), Failed, None, Some("r"));
    check(&error(r#""in words""#), Failed, None, Some("in words"));
    check(&error("null"), Failed, None, Some("an error without a title"));
    check(sent, Failed, None, Some("t"));
    check(&[cancel, CLOSE_1].concat(), Cancelled, None, None);
    check(CLOSE_1, Unanswered, None, None);
    check("", Open, None, None);
    check(cancel, Open, None, None);
}

#[test]
fn a_failure_without_words_has_some_of_ours() {
    let words = |lines: &str| one(Llm, &[AUTH, PREDICT_1, lines]).error();
    assert!(words(&SUCCESS_1.replace("eosFound", "failed")).is_some_and(|words| words.contains("finish_reason")));
    assert!(words(CLOSE_1).is_some_and(|words| words.contains("closed")));
    assert_eq!((words(SUCCESS_1), words("")), (None, None));
}

#[test]
fn an_embedding_may_fail() {
    for (error, expected) in [(r#"{"title":"no such model","rootTitle":"x"}"#, "no such model"), (r#""no""#, "no")] {
        let line = format!("\n< {{\"type\":\"rpcError\",\"callId\":1,\"error\":{error}}}");
        let generation = one(Embedding, &[AUTH, EMBED_1, &line]);
        assert_eq!((generation.end, generation.report.error.as_deref()), (GenerationEnd::Failed, Some(expected)));
    }
    assert_eq!(one(Embedding, &[AUTH, EMBED_1]).end, GenerationEnd::Open);
}

#[test]
fn each_request_is_one_generation_whatever_is_said_twice() {
    use GenerationEnd::{Completed, Failed, Unanswered};
    #[track_caller]
    fn check(parts: &[&str], expected: &[GenerationEnd]) {
        let ends: Vec<GenerationEnd> = talk(Llm, &[&[AUTH], parts].concat()).iter().map(|it| it.end).collect();
        assert_eq!(ends, expected, "{}", parts.concat());
    }
    let error = r#"
< {"type":"channelError","channelId":1,"error":{"title":"late"}}"#;
    check(&[PREDICT_1, SUCCESS_1, SUCCESS_1, CLOSE_1, CLOSE_1], &[Completed]);
    check(&[PREDICT_1, SUCCESS_1, error], &[Completed]);
    check(&[PREDICT_1, SUCCESS_1, error, PREDICT_1, error], &[Completed, Failed]);
    check(&[PREDICT_1, error, SUCCESS_1, CLOSE_1], &[Failed]);
    // The number is used again: behind the close, or before it, of which LM Studio may be later to say.
    check(&[PREDICT_1, SUCCESS_1, CLOSE_1, PREDICT_1, SUCCESS_1, CLOSE_1], &[Completed, Completed]);
    check(&[PREDICT_1, SUCCESS_1, PREDICT_1, CLOSE_1, SUCCESS_1, CLOSE_1], &[Completed, Completed]);
    check(&[PREDICT_1, SUCCESS_1, PREDICT_1, CLOSE_1, CLOSE_1], &[Completed, Unanswered]);
    check(&[PREDICT_1, SUCCESS_1, PREDICT_1, SUCCESS_1, PREDICT_1, SUCCESS_1], &[Completed; 3]);
    // LM Studio passes over a channel whose number is taken.
    check(&[PREDICT_1, PREDICT_1, SUCCESS_1, CLOSE_1], &[Completed]);
    check(
        &[LOAD, &PREDICT_1.replace("channelId\":1", "channelId\":0"), PREDICT_1, SUCCESS_1],
        &[Completed, GenerationEnd::Open],
    );
    let embeddings = talk(Embedding, &[AUTH, EMBED_1, EMBEDDED_1, EMBEDDED_1, EMBED_1, EMBEDDED_1]);
    assert_eq!(embeddings.len(), 2);
}

#[test]
fn channels_and_calls_are_numbered_apart_and_namespaces_know_their_own() {
    let call = EMBED_1.replace("embedString", "predict");
    assert!(talk(Llm, &[AUTH, &call, EMBED_1, EMBEDDED_1]).is_empty());
    assert!(talk(Embedding, &[AUTH, PREDICT_1, SUCCESS_1]).is_empty());
    assert_eq!(one(Llm, &[AUTH, PREDICT_1, EMBEDDED_1]).end, GenerationEnd::Open);
    assert!(talk(Other, &[AUTH, PREDICT_1, SUCCESS_1, EMBED_1, EMBEDDED_1]).is_empty());
}

#[test]
fn what_ends_a_generation_keeps_its_last_byte_until_the_row_is_there() {
    #[track_caller]
    fn check(namespace: Namespace, before: &[&str], line: &str, is_held: bool) {
        let line = line.trim();
        for size in [1, 2, 7, 100, usize::MAX] {
            let mut reader = SocketReader::new(namespace, 100);
            for line in before.concat().lines().filter(|line| !line.is_empty()) {
                say(&mut reader, line, 1, usize::MAX);
            }
            let (free, ended) = say(&mut reader, line, 2, size);
            let length = frame(false, line[1..].trim().as_bytes()).len();
            assert_eq!((free, ended.len()), (length - usize::from(is_held), usize::from(is_held)), "{line} by {size}");
        }
    }
    let asked = [AUTH, PREDICT_1];
    let error = r#"< {"type":"channelError","channelId":1,"error":{}}"#;
    check(Llm, &asked, SUCCESS_1, true);
    check(Llm, &asked, CLOSE_1, true);
    check(Llm, &asked, error, true);
    check(Llm, &asked, r#"< {"channelId":1,"message":{"error":"x","type":"error"},"type":"channelSend"}"#, true);
    check(Llm, &[AUTH, PREDICT_1, SUCCESS_1], CLOSE_1, false);
    check(Llm, &[AUTH, PREDICT_1, SUCCESS_1], error, false);
    check(Embedding, &[AUTH, EMBED_1], EMBEDDED_1, true);
    check(Embedding, &[AUTH, EMBED_1], r#"< {"type":"rpcError","callId":1}"#, true);
    check(Embedding, &[AUTH], EMBEDDED_1, false);
    for line in ANSWER_1.trim().lines() {
        check(Llm, &asked, line, false);
    }
    for line in LOAD.trim().lines().filter(|line| line.starts_with('<')) {
        check(Llm, &asked, line, false);
    }
}

#[test]
fn of_several_ends_in_one_piece_the_first_is_held() {
    let mut reader = SocketReader::new(Llm, 100);
    let ask_2 = PREDICT_1.replace("channelId\":1", "channelId\":2");
    for line in [AUTH, PREDICT_1, &ask_2].concat().lines().filter(|line| !line.is_empty()) {
        say(&mut reader, line, 1, usize::MAX);
    }
    let text = |line: &str| frame(false, line.trim()[1..].trim().as_bytes());
    let fragment = text(ANSWER_1.trim().lines().nth(4).expect("a fragment"));
    let (first, second) = (text(SUCCESS_1), text(&CLOSE_1.replace(":1", ":2")));
    let bytes = [&fragment[..], &first, &second].concat();
    assert_eq!(reader.upstream_sent(&bytes, 2), fragment.len() + first.len() - 1);
    assert_eq!(reader.take_ended().len(), 2);
}

// ---- letting in ----------------------------------------------------------------------------------------------------

#[test]
fn who_is_not_let_in_has_what_was_asked_for_already_fail() {
    let auth = AUTH.lines().nth(1).expect("the client's line");
    for (error, expected) in [
        (r#""Invalid API token""#, "Invalid API token"),
        (r#"{"title":"Invalid API token"}"#, "Invalid API token"),
        ("null", "an error without a title"),
    ] {
        let refusal = format!("\n< {{\"success\":false,\"error\":{error}}}");
        assert!(talk(Llm, &[auth, &refusal]).is_empty());
        let generation = one(Llm, &[auth, PREDICT_1, &refusal]);
        assert_eq!((generation.end, generation.report.error.as_deref()), (GenerationEnd::Failed, Some(expected)));
        // Later such a message is none.
        assert_eq!(one(Llm, &[AUTH, PREDICT_1, &refusal]).end, GenerationEnd::Open);
    }
}

#[test]
fn the_first_message_tells_who_the_client_is_and_its_token_once() {
    #[track_caller]
    fn check(auth: &str, token: Option<&str>, name: Option<&str>) {
        for namespace in [Llm, Embedding, Other] {
            for size in [1, usize::MAX] {
                let mut reader = SocketReader::new(namespace, 100);
                say(&mut reader, &format!("> {auth}"), 1, size);
                assert_eq!((reader.take_token().as_deref(), reader.client_name()), (token, name), "{auth}");
                assert_eq!((reader.take_token(), reader.client_name()), (None, name), "{auth}");
                assert_eq!(reader.bytes(), size_of::<SocketReader>(), "nothing of it is kept");
                // No other message does.
                say(&mut reader, r#"> {"clientIdentifier":"sk-lm-later","clientPasskey":"x"}"#, 2, size);
                assert_eq!((reader.take_token(), reader.client_name()), (None, name), "{auth}");
            }
        }
    }
    let pair = |identifier: &str, passkey: &str| {
        format!(r#"{{"authVersion":1,"clientIdentifier":"{identifier}","clientPasskey":"{passkey}"}}"#)
    };
    check(&pair("sk-lm-AbCdEf12", "0123456789ABCDEFghij"), Some("sk-lm-AbCdEf12:0123456789ABCDEFghij"), None);
    // As TypeScript's SDK sends it; what is longer or shorter is a name of a user's own.
    let js = Some("lmstudio-js");
    check(&pair("AbCdEf12", "0123456789ABCDEFghij"), Some("sk-lm-AbCdEf12:0123456789ABCDEFghij"), js);
    check(&pair("AbCdEf12", "0123456789ABCDEFghi"), None, None);
    check(&pair("AbCdEf1", "0123456789ABCDEFghij"), None, None);
    check(&pair("AbCd-f12", "0123456789ABCDEFghij"), None, None);
    check(&pair("sk-lm-Ab\\u0043", "\\u0030"), Some("sk-lm-AbC:0"), None);
    check(r#"{"clientPasskey":"p","clientIdentifier":"sk-lm-a"}"#, Some("sk-lm-a:p"), None);
    check(&pair("sk-lm-a", ""), None, None);
    check(&pair("sk-lm-a", &"p".repeat(256)), Some(&format!("sk-lm-a:{}", "p".repeat(256))), None);
    check(&pair("sk-lm-a", &"p".repeat(257)), None, None);
    check(&pair("guest:k4x", "4Hq"), None, Some("lmstudio-js"));
    check(&pair("5f0c954e-5a51-4e49-9d6c-4f4c6a8b0f5e", "x"), None, None);
    for identifier in ["lms-cli", "lms-cli-dev", "lms-cli-remote-7"] {
        check(&pair(identifier, "x"), None, Some("lms"));
    }
    check("{\"clientIdentifier\":\"sk-lm-a\",\"clientPasskey\":", None, None);
    check("[]", None, None);
    check("{}", None, None);
}

// ---- whatever comes ------------------------------------------------------------------------------------------------

fn everything() -> [(Namespace, String); 2] {
    let llm = [AUTH, LOAD, PREDICT_1, ANSWER_1, SUCCESS_1, CLOSE_1].concat();
    [(Llm, llm), (Embedding, [AUTH, EMBED_1, EMBEDDED_1].concat())]
}

#[test]
fn the_cuts_decide_nothing() {
    for (namespace, transcript) in everything() {
        let whole = talk_in_pieces(namespace, &transcript, usize::MAX);
        assert_eq!(whole.len(), 1);
        for size in 1..transcript.lines().map(str::len).max().unwrap_or(0) + 10 {
            assert_eq!(talk_in_pieces(namespace, &transcript, size), whole, "pieces of {size}");
        }
    }
}

/// The members of a JSON object, as written.
fn members(object: &str) -> Vec<String> {
    let mut found = Vec::new();
    crate::usage::members::each_member(object.as_bytes(), |key, value| {
        found.push(format!("\"{}\":{}", String::from_utf8_lossy(key), &object[value]));
    })
    .expect("an object");
    found
}

/// All orders of these.
fn orders(of: &[String]) -> Vec<Vec<String>> {
    if of.is_empty() {
        return vec![Vec::new()];
    }
    let mut found = Vec::new();
    for (at, first) in of.iter().enumerate() {
        let rest = [&of[..at], &of[at + 1..]].concat();
        found.extend(orders(&rest).into_iter().map(|order| [vec![first.clone()], order].concat()));
    }
    found
}

#[test]
fn members_come_in_any_order() {
    let mut checked = 0;
    for (namespace, transcript) in everything() {
        let whole = talk_in_pieces(namespace, &transcript, usize::MAX);
        for line in transcript.lines().filter(|line| !line.is_empty()) {
            let object = line[1..].trim();
            let mut others: Vec<String> =
                orders(&members(object)).into_iter().map(|order| format!("{{{}}}", order.join(","))).collect();
            // And those of what is sent.
            if let Some(at) = object.find("\"message\":") {
                let inner = &object[at + 10..object.len() - 1];
                others.extend(
                    orders(&members(inner))
                        .into_iter()
                        .map(|order| object.replace(inner, &format!("{{{}}}", order.join(",")))),
                );
            }
            for other in others {
                let changed = transcript.replace(object, &other);
                assert_eq!(talk_in_pieces(namespace, &changed, 50), whole, "{other}");
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "{checked}");
}

#[test]
fn names_and_values_may_be_escaped_and_spaced() {
    for (namespace, transcript) in everything() {
        let escaped = transcript
            .replace("\"type\"", "\"t\\u0079pe\"")
            .replace("\"channelId\"", "\"\\u0063hannelId\"")
            .replace("\"channelSend\"", "\"channel\\u0053end\"")
            .replace("\"predict\"", "\"\\u0070redict\"")
            .replace("\"Ab12\"", "\"A\\u006212\"")
            .replace("\"qwen3\"", "\"q\\u0077en3\"")
            .replace("\"embedString\"", "\"embed\\u0053tring\"")
            .replace("\"fragment\"", "\"f\\u0072agment\"");
        assert_ne!(escaped, transcript);
        let spaced =
            transcript.replace("\":", "\" :\t ").replace(",\"", " ,\r \"").replace("Hi \\\" :\t x", "Hi \\\"x");
        // What is kept of a conversation is as sent.
        let reports = |transcript: &str, size: usize| {
            let ended = talk_in_pieces(namespace, transcript, size);
            ended.into_iter().map(|it| (it.end, it.requested_model, it.report)).collect::<Vec<_>>()
        };
        for size in [1, 5, usize::MAX] {
            assert_eq!(reports(&escaped, size), reports(&transcript, size));
            assert_eq!(reports(&spaced, size), reports(&transcript, size));
        }
    }
}

#[test]
fn of_members_that_stand_twice_the_last_that_tells_something_counts() {
    let twice = [
        (r#""channelId":1"#, r#""channelId":9,"channelId":1"#),
        (r#""endpoint":"predict""#, r#""endpoint":"getOrLoad","endpoint":"predict""#),
        (r#""content":"Hel""#, r#""content":"no","content":"Hel""#),
        (r#""type":"success""#, r#""type":"fragment","type":"success""#),
        (r#""history":{"#, r#""history":{"messages":[]},"history":{"#),
        (r#""history":{"#, r#""rawPrompt":"no","history":{"#),
        (r#""predictedTokensCount":3"#, r#""predictedTokensCount":30,"predictedTokensCount":3"#),
        (r#""arguments":{"#, r#""arguments":"no","arguments":{"#),
        (r#""stopReason":"eosFound""#, r#""stopReason":"failed","stopReason":"eosFound","stopReason":null"#),
    ];
    let [(_, transcript), _] = everything();
    let whole = talk_in_pieces(Llm, &transcript, usize::MAX);
    for (once, twice) in twice {
        let changed = transcript.replace(once, twice);
        assert_ne!(changed, transcript);
        for size in [1, usize::MAX] {
            assert_eq!(talk_in_pieces(Llm, &changed, size), whole, "{twice}");
        }
    }
}

#[test]
fn what_is_not_understood_is_passed_over() {
    let nested = format!("> {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = format!(
        "< {{\"type\":\"channelSend\",\"channelId\":1,\"message\":{}1{}}}",
        "{\"message\":".repeat(5000),
        "}".repeat(5000)
    );
    let open = format!("< {}", "{\"a\":[".repeat(5000));
    let noise = [
        "> ",
        "< ",
        "> x",
        "< {",
        "> {} {}",
        "< []",
        "> 12",
        "< null",
        "> \"type\"",
        "< {\"type\":7,\"channelId\":{}}",
        "> {\"type\":\"channelCreate\",\"endpoint\":\"predict\"}",
        "> {\"type\":\"channelCreate\",\"endpoint\":\"predict\",\"channelId\":-1}",
        "> {\"type\":\"channelCreate\",\"endpoint\":\"predict\",\"channelId\":\"1\"}",
        "> {\"type\":\"channelSend\",\"channelId\":1,\"message\":\"cancel\"}",
        "> {\"type\":\"signalSubscribe\",\"endpoint\":\"predict\",\"subscribeId\":1,\"creationParameter\":{}}",
        "< {\"type\":\"channelSend\",\"channelId\":1,\"message\":{\"type\":\"success\"} x}",
        "< {\"type\":\"channelSend\",\"channelId\":1,\"message\":{\"type\":\"success\"}}{}",
        "< {\"type\":\"channelSend\",\"channelId\":2,\"message\":{\"type\":\"success\"}}",
        "< {\"type\":\"channelSend\",\"message\":{\"type\":\"success\"}}",
        "< {\"type\":\"channelSend\",\"channelId\":1,\"message\":{\"type\":\"new\",\"stats\":{\"promptTokensCount\":1}}}",
        "< {\"type\":\"communicationWarning\",\"channelId\":1,\"warning\":\"x\"}",
        "< {\"type\":\"rpcResult\",\"callId\":1}",
        &nested,
        &deep,
        &open,
    ];
    let asked = [AUTH, LOAD, PREDICT_1].concat();
    let answered = [ANSWER_1, SUCCESS_1, CLOSE_1].concat();
    let (mut whole, mut changed) =
        (one(Llm, &[&asked, &answered]), one(Llm, &[&asked, "\n", &noise.join("\n"), &answered]));
    for generation in [&mut whole, &mut changed] {
        generation.ended_us = 0;
        generation.report.first_content_us = None;
    }
    assert_eq!(changed, whole);
}

#[test]
fn a_message_without_a_byte_does_not_repeat_the_one_before() {
    let fragment = ANSWER_1.lines().nth(5).expect("a fragment");
    let report = one(Llm, &[AUTH, PREDICT_1, "\n", fragment, "\n< \n> ", SUCCESS_1]).report;
    assert_eq!((report.output.as_deref(), report.content_events), (Some("Hel"), 1));
}

#[test]
fn a_message_that_is_no_text_is_the_first_one_all_the_same() {
    let mut reader = SocketReader::new(Llm, 100);
    reader.client_sent(&[0x82, 0x80, 0, 0, 0, 0], 1);
    say(&mut reader, AUTH.lines().nth(1).expect("the client's line"), 1, usize::MAX);
    assert_eq!(reader.client_name(), None);
}

#[test]
fn sixteen_predictions_at_once_are_told_apart() {
    let numbered = |part: &str, n: usize| {
        part.replace("channelId\":1,", &format!("channelId\":{n},"))
            .replace("channelId\":1}", &format!("channelId\":{n}}}"))
            .replace("Hel", &format!("{n} Hel"))
            .replace("\"predictedTokensCount\":3", &format!("\"predictedTokensCount\":{}", 3 + n))
    };
    let whole = [PREDICT_1, ANSWER_1, SUCCESS_1, CLOSE_1].concat();
    let scripts: Vec<Vec<String>> = (0..16)
        .map(|n| numbered(&whole, n + 10).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
        .collect();
    // Line by line in turn, every second one the other way round.
    let mut transcript = [AUTH, LOAD, "\n"].concat();
    for line in 0..scripts[0].len() {
        let turn: Vec<&str> = scripts.iter().map(|script| script[line].as_str()).collect();
        let turn = if line % 2 == 0 { turn } else { turn.into_iter().rev().collect() };
        transcript.push_str(&format!("{}\n", turn.join("\n")));
    }
    let mut ended = talk_in_pieces(Llm, &transcript, 100);
    assert_eq!(ended.len(), 16);
    ended.sort_by_key(|generation| generation.report.counts.output);
    for (n, generation) in ended.iter().enumerate() {
        let report = &generation.report;
        assert_eq!((generation.end, report.counts.output), (GenerationEnd::Completed, Some(13 + n as u64)));
        assert_eq!(report.output.as_deref(), Some(format!("{} Hello", 10 + n).as_str()));
        assert_eq!((report.counts.cached, generation.requested_model.as_deref()), (Some(90), Some("qwen3")));
    }
}

// ---- bounds --------------------------------------------------------------------------------------------------------

#[test]
fn a_message_of_any_size_is_read_in_bounded_memory() {
    let mut reader = SocketReader::new(Llm, 1000);
    for line in [AUTH, LOAD].concat().lines().filter(|line| !line.is_empty()) {
        say(&mut reader, line, 1, usize::MAX);
    }
    let long = "word ".repeat(200_000);
    let ask = PREDICT_1.trim().replace("Hi ", &long).replace("\"Ab12\"", &format!("\"Ab12\",\"x\":\"{long}\""));
    let fragment = ANSWER_1.trim().lines().nth(4).expect("a fragment").replace("Hel", &long);
    let models =
        format!("[{}{{}}]", "{\"instanceReference\":\"r\",\"identifier\":\"i\"},".repeat(10 * SOCKET_MODELS_MAX));
    let list = format!("< {{\"type\":\"rpcResult\",\"result\":{models},\"callId\":5}}");
    let vector = format!(
        "< {{\"result\":{{\"embedding\":[{}0]}},\"type\":\"rpcResult\",\"callId\":1}}",
        "0.125,".repeat(200_000)
    );
    let title = format!("< {{\"type\":\"channelError\",\"channelId\":7,\"error\":\"{long}\"}}");
    for line in [&ask, &fragment, &list, &vector, &title] {
        let bytes = frame(line.starts_with('>'), line[1..].trim().as_bytes());
        for piece in bytes.chunks(10_000) {
            match line.starts_with('>') {
                true => reader.client_sent(piece, 1),
                false => assert_eq!(reader.upstream_sent(piece, 1), piece.len()),
            }
            assert!(reader.bytes() < 50_000, "{} bytes", reader.bytes());
        }
    }
    let ended = say(&mut reader, SUCCESS_1.trim(), 1, usize::MAX).1;
    let (prompt, output) = (ended[0].prompt.as_deref(), ended[0].report.output.as_deref());
    let (prompt, output) = (prompt.expect("kept"), output.expect("kept"));
    assert!(
        prompt.len() <= 1000 && prompt.starts_with(r#"{"messages":[{"role""#) && prompt.ends_with("]}"),
        "{prompt}"
    );
    assert!(output.len() <= 1000 && output.contains("bytes left out"), "{output}");
    assert_eq!(ended[0].requested_model.as_deref(), Some("qwen3"));
}

#[test]
fn at_rest_a_socket_takes_next_to_nothing() {
    assert!(size_of::<SocketReader>() <= 320, "{} bytes", size_of::<SocketReader>());
    let mut reader = SocketReader::new(Embedding, 1 << 20);
    for line in [AUTH, EMBED_1].concat().lines().filter(|line| !line.is_empty()) {
        say(&mut reader, line, 1, usize::MAX);
    }
    assert!(reader.bytes() > size_of::<SocketReader>());
    say(&mut reader, EMBEDDED_1.trim(), 1, usize::MAX);
    assert_eq!(reader.bytes(), size_of::<SocketReader>());
}

#[test]
fn too_many_at_once_are_counted_and_the_others_recorded() {
    let mut reader = SocketReader::new(Embedding, 10);
    let ask = |n: usize| EMBED_1.trim().replace("callId\":1", &format!("callId\":{n}"));
    // What is no generation gives way.
    for n in 0..10 {
        say(
            &mut reader,
            &LOAD.trim().lines().next().expect("a load").replace("channelId\":0", &format!("channelId\":{n}")),
            1,
            usize::MAX,
        );
    }
    for n in 0..SOCKET_OPEN_MAX + 3 {
        say(&mut reader, &ask(n), 1, usize::MAX);
    }
    assert_eq!((reader.running(), reader.take_missed(), reader.take_missed()), (SOCKET_OPEN_MAX, 3, 0));
    say(&mut reader, EMBEDDED_1.trim(), 1, usize::MAX);
    say(&mut reader, &ask(1), 1, usize::MAX);
    assert_eq!((reader.running(), reader.take_missed()), (SOCKET_OPEN_MAX, 0));
    // A number that is taken.
    say(&mut reader, &ask(1), 1, usize::MAX);
    assert_eq!((reader.end(2).len(), reader.take_missed()), (SOCKET_OPEN_MAX, 1));
}

#[test]
fn words_that_take_too_much_memory_go_and_figures_stay() {
    // Whatever the settings say.
    let mut reader = SocketReader::new(Llm, 64 << 20);
    let predictions = 60;
    let number = |line: &str, n: usize| line.trim().replace("channelId\":1,", &format!("channelId\":{n},"));
    let fragment = ANSWER_1.trim().lines().nth(4).expect("a fragment").replace("Hel", &"word ".repeat(20_000));
    for n in 0..predictions {
        say(&mut reader, &number(PREDICT_1, n), 1, usize::MAX);
        say(&mut reader, &number(&fragment, n), 1, usize::MAX);
        assert!(reader.bytes() < SOCKET_WORDS_BYTES_MAX + SOCKET_CONTENT_BYTES_MAX, "{}", reader.bytes());
    }
    let mut with_words = 0;
    for n in 0..predictions {
        let ended = say(&mut reader, &number(SUCCESS_1, n), 1, usize::MAX).1;
        assert_eq!(ended[0].report.counts.total, Some(103));
        assert_eq!(ended[0].report.output.is_some(), ended[0].prompt.is_some());
        with_words += usize::from(ended[0].prompt.is_some());
    }
    assert!((20..predictions).contains(&with_words), "{with_words}");
}

#[test]
fn what_one_generation_keeps_does_not_grow_with_the_setting_and_is_kept_to_the_end() {
    let mut reader = SocketReader::new(Llm, 64 << 20);
    let long = "word ".repeat(SOCKET_WORDS_BYTES_MAX / 4);
    let fragment = |kind: &str| {
        format!(
            "< {{\"type\":\"channelSend\",\"channelId\":1,\"message\":{{\"type\":\"fragment\",\"fragment\":{{\
            \"content\":\"{long}\",\"reasoningType\":\"{kind}\"}}}}}}"
        )
    };
    let argument = ANSWER_1.trim().lines().last().expect("a call").replace("b c", &long);
    let ask = PREDICT_1.trim().replace("Hi ", &long);
    for line in [&ask, &fragment("reasoning"), &fragment("none"), &argument] {
        say(&mut reader, line, 1, 10_000);
        assert!(reader.bytes() < 2 * SOCKET_WORDS_BYTES_MAX, "{}", reader.bytes());
    }
    let ended = say(&mut reader, SUCCESS_1.trim(), 1, usize::MAX).1.remove(0);
    let (report, most) = (ended.report, SOCKET_CONTENT_BYTES_MAX);
    for words in [ended.prompt, report.output, report.reasoning, report.tool_calls] {
        let words = words.expect("kept");
        assert!((most / 2..=most).contains(&words.len()), "{}", words.len());
    }
}

#[test]
fn a_socket_is_idle_when_nothing_is_open_and_a_load_is() {
    let mut reader = SocketReader::new(Llm, 100);
    let mut told = |line: &str| {
        say(&mut reader, line, 1, usize::MAX);
        (reader.running(), reader.is_idle())
    };
    for line in AUTH.trim().lines() {
        assert_eq!(told(line), (0, true), "{line}");
    }
    for opened in [LOAD, &[PREDICT_1, ANSWER_1, SUCCESS_1, CLOSE_1].concat()] {
        let lines: Vec<&str> = opened.lines().filter(|line| !line.is_empty()).collect();
        let (close, before) = lines.split_last().expect("a close");
        for line in before {
            assert!(!told(line).1, "{line}");
        }
        assert_eq!(told(close), (0, true), "{close}");
    }
}

#[test]
fn frames_are_followed_where_nothing_is_read() {
    let mut reader = SocketReader::new(Other, 100);
    let bytes = frame(false, &[b'x'; 200]);
    assert!(reader.is_at_boundary());
    assert_eq!(reader.upstream_sent(&bytes[..100], 1), 100);
    assert!(!reader.is_at_boundary());
    assert_eq!(reader.upstream_sent(&bytes[100..], 1), bytes.len() - 100);
    assert!(reader.is_at_boundary());
    // What follows the first message in one piece is not even begun.
    let auth = AUTH.lines().nth(1).expect("the client's line")[1..].trim();
    reader.client_sent(&[&frame(true, auth.as_bytes())[..], &frame(true, b"[1,2]")[..8]].concat(), 1);
    assert_eq!((reader.client_name(), reader.bytes()), (Some("lmstudio-js"), size_of::<SocketReader>()));
    let mut reader = SocketReader::new(Llm, 100);
    reader.upstream_sent(&bytes[..1], 1);
    assert!(!reader.is_at_boundary());
}

#[test]
fn the_path_tells_what_a_socket_is_for() {
    for (path, expected) in
        [("/llm", Llm), ("/embedding", Embedding), ("/system", Other), ("/llm/", Other), ("", Other)]
    {
        assert_eq!(Namespace::of_path(path), expected, "{path}");
    }
}

#[test]
fn what_is_loaded_and_what_makes_room_is_told() {
    let mut reader = SocketReader::new(Llm, 100);
    let mut told = |line: &str| {
        say(&mut reader, line, 0, 7);
        let short = |news: ModelNews| {
            let ModelNews { name, key, is_loaded, context_tokens, context_tokens_max } = news;
            (name, key, is_loaded, context_tokens, context_tokens_max)
        };
        reader.take_news().into_iter().map(short).collect::<Vec<_>>()
    };
    let loaded = |name: &str, context| (name.into(), Some("qwen".into()), Some(true), context, Some(32768));
    assert_eq!(
        told(
            r#"> {"type":"channelCreate","endpoint":"getOrLoad","channelId":0,"creationParameter":{"identifier":"qwen"}}"#
        ),
        []
    );
    let start = r#"< {"type":"channelSend","channelId":0,"message":{"type":"startLoading","identifier":"qwen","info":{"modelKey":"qwen","maxContextLength":32768}}}"#;
    assert_eq!(told(start), []);
    let leaves = r#"< {"type":"channelSend","channelId":0,"message":{"type":"unloadingOtherJITModel","info":{"identifier":"llama","modelKey":"llama","instanceReference":"Ef","contextLength":4096}}}"#;
    assert_eq!(told(leaves), [("llama".into(), Some("llama".into()), Some(false), Some(4096), None)]);
    let comes = r#"< {"type":"channelSend","channelId":0,"message":{"type":"loadSuccess","info":{"maxContextLength":32768,"modelKey":"qwen","contextLength":8192,"identifier":"qwen:2","instanceReference":"Ab"}}}"#;
    assert_eq!(told(comes), [loaded("qwen:2", Some(8192))]);
    let list = r#"< {"type":"rpcResult","callId":9,"result":[{"modelKey":"qwen","identifier":"a","instanceReference":"Cd","maxContextLength":32768,"contextLength":0},{"modelKey":"downloaded"}]}"#;
    assert_eq!(told(list), [loaded("a", None)]);
}
