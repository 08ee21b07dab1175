//! What the stand-in says to LM Studio's own clients (its SDKs, `lms`, editors), message by message. No socket and no
//! waiting here.
//!
//! A call has one answer. A channel has messages, each waited for like a token or not, and a last one, which tells how
//! far it came if the client cancels it.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::EMBEDDING_MODEL;
use super::replies::{MODEL, Pace, object, words, words_in};

/// The greeting by which clients know LM Studio.
pub const GREETING: &str = r#"{"lmstudio":true}"#;
/// How a load comes forward.
const PROGRESS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];
const CONTEXT_TOKENS_MAX: u32 = 4096;

/// What a WebSocket is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    Llm,
    Embedding,
    System,
    /// Here, but without any endpoint.
    Other,
}

impl Namespace {
    pub fn of(path: &str) -> Option<Namespace> {
        match path {
            "/llm" => Some(Namespace::Llm),
            "/embedding" => Some(Namespace::Embedding),
            "/system" => Some(Namespace::System),
            "/diagnostics" | "/files" | "/repository" | "/plugins" | "/runtime" => Some(Namespace::Other),
            _ => None,
        }
    }

    /// The one model of its kind.
    fn model(self) -> Option<&'static str> {
        match self {
            Namespace::Llm => Some(MODEL),
            Namespace::Embedding => Some(EMBEDDING_MODEL),
            Namespace::System | Namespace::Other => None,
        }
    }
}

/// What a client's message calls for.
pub enum Answer {
    Message(String),
    /// Messages of a channel, over time.
    Channel(Channel),
    Cancel {
        channel: u64,
    },
    Nothing,
}

/// The answer to the first message of a client, and whether anything follows. As LM Studio does unless told otherwise,
/// it takes any name and passkey.
pub fn authenticate(message: &Value) -> (&'static str, bool) {
    match message["authVersion"].as_u64() {
        Some(1) => (r#"{"success":true}"#, true),
        _ => (r#"{"success":false,"error":{"title":"Invalid authentication packet"}}"#, false),
    }
}

pub fn answer(namespace: Namespace, message: &Value, pace: Pace) -> Answer {
    let (endpoint, channel) = (message["endpoint"].as_str().unwrap_or_default(), message["channelId"].as_u64());
    match (message["type"].as_str().unwrap_or_default(), channel) {
        ("rpcCall", _) => Answer::Message(match call(namespace, endpoint, &message["parameter"]) {
            Some(Ok(Value::Null)) => typed("rpcResult", &[("callId", message["callId"].clone())]),
            Some(Ok(result)) => typed("rpcResult", &[("callId", message["callId"].clone()), ("result", result)]),
            Some(Err(title)) => typed("rpcError", &[("callId", message["callId"].clone()), ("error", error(&title))]),
            None => warning(endpoint),
        }),
        ("channelCreate", Some(id)) => match Work::of(namespace, endpoint, &message["creationParameter"], pace) {
            Some(Ok(work)) => Answer::Channel(Channel { id, work }),
            Some(Err(title)) => {
                Answer::Message(typed("channelError", &[("channelId", json!(id)), ("error", error(&title))]))
            }
            None => Answer::Message(warning(endpoint)),
        },
        ("channelSend", Some(channel)) if message["message"]["type"] == "cancel" => Answer::Cancel { channel },
        ("keepAlive", _) => Answer::Message(typed("keepAliveAck", &[])),
        _ => Answer::Nothing,
    }
}

/// LM Studio answers an unknown endpoint with a warning alone: who called it waits for ever.
fn warning(endpoint: &str) -> String {
    typed("communicationWarning", &[("warning", json!(format!("Received an unknown endpoint: {endpoint}")))])
}

fn error(title: &str) -> Value {
    json!({"title": title, "rootTitle": title})
}

/// A JSON object that tells its type first, as LM Studio writes them.
fn typed(kind: &str, members: &[(&str, Value)]) -> String {
    object(&[&[("type", json!(kind))], members].concat())
}

/// The result of a call, or the title of an error; `None` for an unknown one.
fn call(namespace: Namespace, endpoint: &str, parameter: &Value) -> Option<Result<Value, String>> {
    let text = parameter["inputString"].as_str().unwrap_or_default();
    let result = match (namespace, endpoint) {
        (Namespace::System, "listDownloadedModels") => {
            [Namespace::Llm, Namespace::Embedding].into_iter().filter_map(Model::downloaded).map(|m| m.info()).collect()
        }
        (Namespace::System, "version") => json!({"version": "0.4.25", "build": 1}),
        (Namespace::System, "notify") => Value::Null,
        (Namespace::Llm | Namespace::Embedding, "listLoaded") => loaded(namespace).iter().map(Model::info).collect(),
        (Namespace::Llm | Namespace::Embedding, "getModelInfo") => match Model::specified(namespace, parameter) {
            Err(title) if parameter["throwIfNotFound"] == true => return Some(Err(title)),
            found => found.map_or(Value::Null, |model| model.info()),
        },
        (Namespace::Llm | Namespace::Embedding, "unloadModel") => {
            let identifier = parameter["identifier"].as_str().unwrap_or_default();
            let is_meant = |model: &Model| model.namespace == namespace && model.identifier == identifier;
            let mut all = LOADED.lock().expect("nobody panics with the list");
            let Some(at) = all.iter().position(is_meant) else { return Some(Err(not_found(identifier))) };
            all.remove(at);
            Value::Null
        }
        (Namespace::Llm | Namespace::Embedding, "getLoadConfig" | "getBasePredictionConfig") => json!({"fields": []}),
        (Namespace::Llm | Namespace::Embedding, "countTokens") => json!({"tokenCount": words_in(&json!(text))}),
        (Namespace::Llm | Namespace::Embedding, "tokenize") => {
            json!({"tokens": (0..words_in(&json!(text))).collect::<Vec<_>>()})
        }
        (Namespace::Llm, "applyPromptTemplate") => json!({"formatted": parameter["history"].to_string()}),
        (Namespace::Embedding, "embedString") => match Model::specified(namespace, parameter) {
            Ok(_) => json!({"embedding": [0.25, -0.5, 0.125, 1.0]}),
            Err(title) => return Some(Err(title)),
        },
        _ => return None,
    };
    Some(Ok(result))
}

// ---- models ------------------------------------------------------------------------------------------------------

/// A model, on the disk or loaded.
#[derive(Clone)]
struct Model {
    namespace: Namespace,
    key: &'static str,
    identifier: String,
    /// What a load is known by among all; 0 for none.
    reference: usize,
}

/// All that are loaded, for all clients.
static LOADED: Mutex<Vec<Model>> = Mutex::new(Vec::new());

fn loaded(namespace: Namespace) -> Vec<Model> {
    let all = LOADED.lock().expect("nobody panics with the list");
    all.iter().filter(|model| model.namespace == namespace).cloned().collect()
}

fn not_found(name: &str) -> String {
    format!("No model found that fits the query: {name}")
}

impl Model {
    fn downloaded(namespace: Namespace) -> Option<Model> {
        let key = namespace.model()?;
        Some(Model { namespace, key, identifier: key.to_owned(), reference: 0 })
    }

    /// The loaded one that is meant by a reference or a query; the title of an error where there is none.
    fn specified(namespace: Namespace, parameter: &Value) -> Result<Model, String> {
        let specifier = if parameter["specifier"].is_null() { "modelSpecifier" } else { "specifier" };
        let query = &parameter[specifier]["query"];
        let reference = &parameter[specifier]["instanceReference"];
        let name = query["identifier"].as_str().or(query["path"].as_str());
        let is_meant = |model: &Model| match (reference.as_str(), name) {
            (Some(reference), _) => model.instance_reference() == reference,
            (None, Some(name)) => model.identifier == name || model.key == name,
            (None, None) => true,
        };
        let unnamed = if reference.is_null() { "{}" } else { "an instance that was unloaded" };
        loaded(namespace).into_iter().find(is_meant).ok_or_else(|| not_found(name.unwrap_or(unnamed)))
    }

    fn load(namespace: Namespace, identifier: Option<&str>) -> Option<Model> {
        static LAST: Mutex<usize> = Mutex::new(0);
        let mut model = Model::downloaded(namespace)?;
        let mut all = LOADED.lock().expect("nobody panics with the list");
        let is_taken = |name: &str| all.iter().any(|model| model.identifier == name);
        let mut name = identifier.unwrap_or(model.key).to_owned();
        // As LM Studio calls a second instance of the same.
        for count in 2.. {
            if !is_taken(&name) {
                break;
            }
            name = format!("{}:{count}", model.key);
        }
        model.identifier = name;
        let mut last = LAST.lock().expect("nobody panics with the number");
        *last += 1;
        model.reference = *last;
        all.push(model.clone());
        Some(model)
    }

    fn instance_reference(&self) -> String {
        format!("instance-{}", self.reference)
    }

    fn info(&self) -> Value {
        let is_llm = self.namespace == Namespace::Llm;
        let mut info = json!({
            "type": if is_llm { "llm" } else { "embedding" }, "modelKey": self.key, "format": "gguf",
            "displayName": "Stand-in", "publisher": "stand-in", "path": format!("stand-in/{}", self.key),
            "sizeBytes": 1_000_000, "indexedModelIdentifier": format!("stand-in/{}", self.key), "deviceIdentifier": null,
            "paramsString": "1B", "architecture": "none", "maxContextLength": CONTEXT_TOKENS_MAX,
        });
        if is_llm {
            info["vision"] = json!(false);
            info["trainedForToolUse"] = json!(true);
        }
        if self.reference > 0 {
            info["identifier"] = json!(self.identifier);
            info["instanceReference"] = json!(self.instance_reference());
            info["contextLength"] = json!(CONTEXT_TOKENS_MAX);
            info["ttlMs"] = Value::Null;
            info["lastUsedTime"] = Value::Null;
        }
        info
    }
}

// ---- channels ----------------------------------------------------------------------------------------------------

/// What is told on one channel.
pub struct Channel {
    pub id: u64,
    work: Work,
}

enum Work {
    /// `getOrLoad` of a model that is loaded.
    Found(Model),
    /// `getOrLoad`, whose words these are.
    LoadOnDemand(Namespace),
    /// `loadModel`, with the identifier that was asked for.
    Load(Namespace, Option<String>),
    /// `predict` and `completeRawText`.
    Prediction(Prediction),
}

struct Prediction {
    model: Model,
    prompt_tokens: usize,
    /// Those that an earlier prediction has processed.
    cached_tokens: usize,
    said: Said,
    seconds_per_token: f64,
}

enum Said {
    Words {
        words: Vec<String>,
        is_cut: bool,
    },
    /// A tool to be called, and with what.
    ToolCall {
        name: String,
        arguments: Value,
    },
}

/// One message of a channel, and whether a token is waited for before it is sent.
pub struct Told {
    pub message: String,
    pub is_token: bool,
}

impl Channel {
    /// `message` as one of this channel.
    pub fn send(&self, message: &str) -> String {
        format!(r#"{{"type":"channelSend","channelId":{},"message":{message}}}"#, self.id)
    }

    pub fn close(&self) -> String {
        typed("channelClose", &[("channelId", json!(self.id))])
    }

    /// What is told before the last message.
    pub fn messages(&self) -> Vec<Told> {
        let at_once = |message| Told { message, is_token: false };
        let token = |message| Told { message, is_token: true };
        let progress = |kind: &'static str| {
            PROGRESS.map(|progress| token(typed(kind, &[("progress", json!(progress))]))).into_iter()
        };
        let info = |namespace| Model::downloaded(namespace).map_or(Value::Null, |model| model.info());
        match &self.work {
            Work::Found(_) => Vec::new(),
            Work::LoadOnDemand(namespace) => {
                let begin = [("identifier", json!(namespace.model())), ("info", info(*namespace))];
                [at_once(typed("startLoading", &begin))].into_iter().chain(progress("loadProgress")).collect()
            }
            Work::Load(namespace, _) => {
                let resolved = at_once(typed("resolved", &[("info", info(*namespace))]));
                [resolved].into_iter().chain(progress("progress")).collect()
            }
            Work::Prediction(prediction) => prediction.messages(),
        }
    }

    /// The last message: behind all the others, or behind so many tokens when the client `cancelled`.
    pub fn last(&self, tokens: usize, cancelled: bool) -> Option<String> {
        match &self.work {
            Work::Found(model) => Some(typed("alreadyLoaded", &[("info", model.info())])),
            Work::LoadOnDemand(_) | Work::Load(..) if cancelled => None,
            Work::LoadOnDemand(namespace) => {
                Some(typed("loadSuccess", &[("info", Model::load(*namespace, None)?.info())]))
            }
            Work::Load(namespace, identifier) => {
                Some(typed("success", &[("info", Model::load(*namespace, identifier.as_deref())?.info())]))
            }
            Work::Prediction(prediction) => Some(prediction.success(tokens, cancelled)),
        }
    }
}

impl Work {
    /// What is asked for, or the title of an error; `None` for an unknown endpoint.
    fn of(namespace: Namespace, endpoint: &str, parameter: &Value, pace: Pace) -> Option<Result<Work, String>> {
        let key = namespace.model()?;
        Some(match endpoint {
            "getOrLoad" => {
                let name = parameter["identifier"].as_str().unwrap_or_default();
                let found = loaded(namespace).into_iter().find(|model| model.identifier == name);
                match found {
                    Some(model) => Ok(Work::Found(model)),
                    None if name == key => Ok(Work::LoadOnDemand(namespace)),
                    None => Err(not_found(name)),
                }
            }
            "loadModel" => match parameter["modelKey"].as_str().unwrap_or_default() {
                name if name == key => Ok(Work::Load(namespace, parameter["identifier"].as_str().map(str::to_owned))),
                name => Err(not_found(name)),
            },
            "predict" | "completeRawText" if namespace == Namespace::Llm => {
                Model::specified(namespace, parameter).map(|model| Work::Prediction(prediction(model, parameter, pace)))
            }
            _ => return None,
        })
    }
}

fn prediction(model: Model, parameter: &Value, pace: Pace) -> Prediction {
    let history = &parameter["history"]["messages"];
    let last = history.as_array().and_then(|messages| messages.last()).unwrap_or(&parameter["rawPrompt"]);
    let prompt_tokens = words_in(history) + words_in(&parameter["rawPrompt"]);
    let limit = setting(parameter, "llm.prediction.maxPredictedTokens");
    let limit = limit.filter(|limit| limit["checked"] == true).and_then(|limit| limit["value"].as_u64());
    let count = limit.map_or(pace.tokens, |limit| pace.tokens.min(usize::try_from(limit).unwrap_or(usize::MAX)));
    // A tool is called once: when its result is here, words follow.
    let tools = setting(parameter, "llm.prediction.tools").filter(|_| last["role"] != "tool");
    let said = match tools.map(|tools| &tools["tools"][0]["function"]) {
        Some(tool) if tool["name"].is_string() => Said::ToolCall {
            name: tool["name"].as_str().unwrap_or_default().to_owned(),
            arguments: arguments(&tool["parameters"]["properties"]),
        },
        _ => Said::Words { words: words(count), is_cut: count < pace.tokens },
    };
    Prediction {
        model,
        prompt_tokens,
        cached_tokens: prompt_tokens - words_in(last),
        said,
        seconds_per_token: pace.pause.as_secs_f64(),
    }
}

/// A value of the topmost layer of the configuration that has it.
fn setting<'p>(parameter: &'p Value, key: &str) -> Option<&'p Value> {
    let layers = parameter["predictionConfigStack"]["layers"].as_array()?;
    let mut fields = layers.iter().filter_map(|layer| layer["config"]["fields"].as_array()).flatten();
    fields.find(|field| field["key"] == key).map(|field| &field["value"])
}

/// Something of the right type for each parameter of a tool.
fn arguments(properties: &Value) -> Value {
    let properties = properties.as_object().into_iter().flatten();
    let argument = |kind: &Value| match kind.as_str() {
        Some("integer" | "number") => json!(2),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("stand-in"),
    };
    properties.map(|(name, schema)| (name.clone(), argument(&schema["type"]))).collect()
}

impl Prediction {
    fn messages(&self) -> Vec<Told> {
        let at_once = |message| Told { message, is_token: false };
        let token = |message| Told { message, is_token: true };
        let mut told = vec![at_once(self.progress(0)), at_once(self.progress(self.prompt_tokens - self.cached_tokens))];
        match &self.said {
            Said::Words { words, .. } => told.extend(words.iter().map(|word| {
                let fragment = json!({"content": word, "tokensCount": 1, "containsDrafted": false,
                                      "reasoningType": "none", "isStructural": false});
                token(typed("fragment", &[("fragment", fragment)]))
            })),
            Said::ToolCall { name, arguments } => {
                let request = json!({"id": "call-1", "type": "function", "name": name, "arguments": arguments});
                told.extend([
                    at_once(typed("toolCallGenerationStart", &[("toolCallId", json!("call-1"))])),
                    token(typed("toolCallGenerationNameReceived", &[("name", json!(name))])),
                    token(typed(
                        "toolCallGenerationArgumentFragmentGenerated",
                        &[("content", json!(arguments.to_string()))],
                    )),
                    at_once(typed("toolCallGenerationEnd", &[("toolCallRequest", request)])),
                ]);
            }
        }
        told
    }

    /// Of the prompt, so many tokens have been processed beside those in the cache.
    fn progress(&self, processed: usize) -> String {
        let done = self.cached_tokens + processed;
        let details = json!({
            "cachedTokenCount": self.cached_tokens, "totalPromptTokenCount": self.prompt_tokens,
            "processedPromptTokenCount": processed, "unprocessedPromptTokenCount": self.prompt_tokens - done,
        });
        let progress = done as f64 / self.prompt_tokens.max(1) as f64;
        typed("promptProcessingProgress", &[("progress", json!(progress)), ("details", details)])
    }

    fn success(&self, tokens: usize, cancelled: bool) -> String {
        let stop_reason = match self.said {
            _ if cancelled => "userStopped",
            Said::Words { is_cut: true, .. } => "maxPredictedTokensReached",
            Said::Words { is_cut: false, .. } => "eosFound",
            Said::ToolCall { .. } => "toolCalls",
        };
        let seconds = self.seconds_per_token * tokens as f64;
        let stats = json!({
            "stopReason": stop_reason, "tokensPerSecond": tokens as f64 / seconds.max(0.001), "numGpuLayers": -1,
            "timeToFirstTokenSec": self.seconds_per_token, "totalTimeSec": seconds,
            "promptTokensCount": self.prompt_tokens, "predictedTokensCount": tokens,
            "totalTokensCount": self.prompt_tokens + tokens,
        });
        let none = json!({"fields": []});
        let members = [
            ("stats", stats),
            ("modelInfo", self.model.info()),
            ("loadModelConfig", none.clone()),
            ("predictionConfig", none),
        ];
        typed("success", &members)
    }
}
