//! What the stand-in says, in each dialect of LM Studio. No socket and no waiting here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

/// The model that answers who names none.
pub const MODEL: &str = "stand-in-1b-instruct";
const WORDS: &str = "This answer comes from the stand-in for LM Studio. No model was asked, so do not trust a word of \
    it; but its tokens arrive one by one, its usage is counted, and it stops when nobody listens. ";

/// The ways of asking for words.
#[derive(Clone, Copy, PartialEq)]
pub enum Dialect {
    Chat,
    Completions,
    Responses,
    Messages,
    Native,
}

/// How much is said, and how fast.
#[derive(Clone, Copy)]
pub struct Pace {
    pub tokens: usize,
    /// Before each token.
    pub pause: Duration,
}

/// What is said in answer to one request.
pub struct Generation {
    dialect: Dialect,
    /// Routes under /api/v0 tell more.
    is_v0: bool,
    id: u64,
    created: u64,
    model: String,
    prompt_tokens: usize,
    pub words: Vec<String>,
    is_cut: bool,
    include_usage: bool,
    seconds: f64,
}

/// One event of a stream.
pub struct Event {
    pub name: Option<&'static str>,
    pub content: String,
    /// Whether a token is waited for before it is sent.
    pub is_token: bool,
}

/// Decides what to say, in at most so many tokens; `Err` is what is missing from the request.
pub fn generation(dialect: Dialect, is_v0: bool, body: &Value, pace: Pace) -> Result<Generation, String> {
    static LAST_ID: AtomicU64 = AtomicU64::new(0);
    let prompt = match dialect {
        Dialect::Chat | Dialect::Messages => "messages",
        Dialect::Completions => "prompt",
        Dialect::Responses | Dialect::Native => "input",
    };
    let Some(prompt) = body.get(prompt) else { return Err(format!("'{prompt}' field is required")) };
    let limits = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
    let limit = limits.iter().find_map(|name| body[name].as_u64()).and_then(|limit| usize::try_from(limit).ok());
    let count = limit.map_or(pace.tokens, |limit| limit.min(pace.tokens));
    Ok(Generation {
        dialect,
        is_v0,
        id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1,
        created: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |t| t.as_secs()),
        model: body["model"].as_str().unwrap_or(MODEL).to_owned(),
        prompt_tokens: words_in(prompt),
        words: words(count),
        is_cut: count < pace.tokens,
        include_usage: body["stream_options"]["include_usage"] == true,
        seconds: pace.pause.as_secs_f64() * count as f64,
    })
}

/// So many words to say.
pub fn words(count: usize) -> Vec<String> {
    WORDS.split_inclusive(' ').cycle().take(count).map(str::to_owned).collect()
}

/// Words of every text in it: near enough to tokens.
pub fn words_in(value: &Value) -> usize {
    match value {
        Value::String(text) => text.split_whitespace().count(),
        Value::Array(items) => items.iter().map(words_in).sum(),
        Value::Object(members) => members.values().map(words_in).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// A JSON object whose members stand in the order given: LM Studio tells the model first and the usage last.
pub fn object(members: &[(&str, Value)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn unnamed(content: String, is_token: bool) -> Event {
    Event { name: None, content, is_token }
}

/// An event that tells its name a second time, as its first member. Only what brings words is a token.
fn named(name: &'static str, members: Value) -> Event {
    let members = members.to_string();
    let separator = if members == "{}" { "" } else { "," };
    let content = format!("{{\"type\":\"{name}\"{separator}{}", &members[1..]);
    Event { name: Some(name), content, is_token: name.ends_with("delta") && name != "message_delta" }
}

impl Generation {
    fn id(&self, prefix: &str) -> Value {
        json!(format!("{prefix}{:08}", self.id))
    }

    fn usage(&self) -> Value {
        let (input, output) = (self.prompt_tokens, self.words.len());
        match self.dialect {
            Dialect::Chat | Dialect::Completions => {
                json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
                       "completion_tokens_details": {"reasoning_tokens": 0}})
            }
            Dialect::Responses => {
                json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output,
                       "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}})
            }
            Dialect::Messages => {
                json!({"input_tokens": input, "output_tokens": output, "cache_read_input_tokens": 0})
            }
            Dialect::Native => {
                json!({"input_tokens": input, "total_output_tokens": output, "reasoning_output_tokens": 0,
                       "tokens_per_second": self.rate(), "time_to_first_token_seconds": 0.03})
            }
        }
    }

    fn rate(&self) -> f64 {
        self.words.len() as f64 / self.seconds.max(0.001)
    }

    /// The reply to a request that did not ask for a stream.
    pub fn whole(&self) -> String {
        let text = self.words.concat();
        let finish = if self.is_cut { "length" } else { "stop" };
        let (model, created, usage) = (json!(self.model), json!(self.created), self.usage());
        match self.dialect {
            Dialect::Chat | Dialect::Completions => {
                let (prefix, kind, choice) = if self.dialect == Dialect::Chat {
                    let message = json!({"role": "assistant", "content": text, "tool_calls": []});
                    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish});
                    ("chatcmpl-", "chat.completion", choice)
                } else {
                    let choice = json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish});
                    ("cmpl-", "text_completion", choice)
                };
                let mut members = vec![("id", self.id(prefix)), ("object", json!(kind)), ("created", created)];
                members.extend([("model", model.clone()), ("choices", json!([choice])), ("usage", usage)]);
                if self.is_v0 {
                    let reason = if self.is_cut { "maxPredictedTokensReached" } else { "eosFound" };
                    members.push((
                        "stats",
                        json!({"tokens_per_second": self.rate(), "time_to_first_token": 0.03,
                                                  "generation_time": self.seconds, "stop_reason": reason}),
                    ));
                    members.push(("model_info", json!({"arch": "none", "quant": "Q4_K_M", "format": "gguf"})));
                } else {
                    members.extend([("stats", json!({})), ("system_fingerprint", model)]);
                }
                object(&members)
            }
            Dialect::Responses => self.response("completed", &text).to_string(),
            Dialect::Messages => object(&[
                ("id", self.id("msg_")),
                ("type", json!("message")),
                ("role", json!("assistant")),
                ("content", json!([{"type": "text", "text": text}])),
                ("model", model),
                ("stop_reason", json!(self.stop_reason())),
                ("stop_sequence", Value::Null),
                ("usage", usage),
            ]),
            Dialect::Native => self.result(&text).to_string(),
        }
    }

    fn stop_reason(&self) -> &'static str {
        if self.is_cut { "max_tokens" } else { "end_turn" }
    }

    fn response(&self, status: &str, text: &str) -> Value {
        let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
        let message = json!({"id": self.id("msg_"), "type": "message", "role": "assistant", "content": content});
        let (output, usage) =
            if status == "completed" { (json!([message]), self.usage()) } else { (json!([]), Value::Null) };
        json!({"id": self.id("resp_"), "object": "response", "created_at": self.created, "status": status,
               "model": self.model, "output": output, "usage": usage})
    }

    fn result(&self, text: &str) -> Value {
        json!({"model_instance_id": self.model, "output": [{"type": "message", "content": text}],
               "stats": self.usage(), "response_id": self.id("resp_")})
    }

    /// The reply to a request that asked for a stream.
    pub fn events(&self) -> Vec<Event> {
        let token = |word: &String| match self.dialect {
            Dialect::Chat => unnamed(self.chunk(json!({"delta": {"role": "assistant", "content": word}})), true),
            Dialect::Completions => unnamed(self.chunk(json!({"text": word})), true),
            Dialect::Responses => named("response.output_text.delta", json!({"output_index": 0, "delta": word})),
            Dialect::Messages => {
                named("content_block_delta", json!({"index": 0, "delta": {"type": "text_delta", "text": word}}))
            }
            Dialect::Native => named("message.delta", json!({"content": word})),
        };
        let (before, after) = self.around();
        before.into_iter().chain(self.words.iter().map(token)).chain(after).collect()
    }

    /// What stands before and after the tokens of a stream.
    fn around(&self) -> (Vec<Event>, Vec<Event>) {
        let text = self.words.concat();
        match self.dialect {
            Dialect::Chat | Dialect::Completions => {
                let finish = json!(if self.is_cut { "length" } else { "stop" });
                let last = if self.dialect == Dialect::Chat { json!({"delta": {}}) } else { json!({"text": ""}) };
                let mut after = vec![unnamed(self.chunk_with(last, finish), false)];
                if self.include_usage {
                    after.push(unnamed(self.chunk_of(json!([]), Some(self.usage())), false));
                }
                after.push(unnamed("[DONE]".to_owned(), false));
                (Vec::new(), after)
            }
            Dialect::Responses => (
                vec![
                    named("response.created", json!({"response": self.response("in_progress", "")})),
                    named("response.in_progress", json!({"response": self.response("in_progress", "")})),
                ],
                vec![
                    named("response.output_text.done", json!({"output_index": 0, "text": text})),
                    named("response.completed", json!({"response": self.response("completed", &text)})),
                ],
            ),
            Dialect::Messages => {
                let usage =
                    json!({"input_tokens": self.prompt_tokens, "output_tokens": 0, "cache_read_input_tokens": 0});
                let message = json!({"id": self.id("msg_"), "type": "message", "role": "assistant", "content": [],
                                     "model": self.model, "stop_reason": null, "usage": usage});
                let block = json!({"index": 0, "content_block": {"type": "text", "text": ""}});
                let delta = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
                (
                    vec![named("message_start", json!({"message": message})), named("content_block_start", block)],
                    vec![
                        named("content_block_stop", json!({"index": 0})),
                        named("message_delta", json!({"delta": delta, "usage": self.usage()})),
                        named("message_stop", json!({})),
                    ],
                )
            }
            Dialect::Native => (
                vec![
                    named("chat.start", json!({"model_instance_id": self.model})),
                    named("prompt_processing.start", json!({})),
                    named("prompt_processing.end", json!({})),
                    named("message.start", json!({})),
                ],
                vec![named("message.end", json!({})), named("chat.end", json!({"result": self.result(&text)}))],
            ),
        }
    }

    fn chunk(&self, choice: Value) -> String {
        self.chunk_with(choice, Value::Null)
    }

    fn chunk_with(&self, mut choice: Value, finish: Value) -> String {
        choice["index"] = json!(0);
        choice["logprobs"] = Value::Null;
        choice["finish_reason"] = finish;
        self.chunk_of(json!([choice]), None)
    }

    fn chunk_of(&self, choices: Value, usage: Option<Value>) -> String {
        let is_chat = self.dialect == Dialect::Chat;
        let (prefix, kind) =
            if is_chat { ("chatcmpl-", "chat.completion.chunk") } else { ("cmpl-", "text_completion") };
        let mut members = vec![("id", self.id(prefix)), ("object", json!(kind)), ("created", json!(self.created))];
        members.extend([("model", json!(self.model)), ("system_fingerprint", json!(self.model)), ("choices", choices)]);
        members.extend(usage.map(|usage| ("usage", usage)));
        object(&members)
    }
}
