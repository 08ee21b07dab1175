//! What a server says of its models where a client asks for that: which are loaded, and with which context length.
//!
//! Sources: LM Studio's docs `2_rest/list.md`, `load.md`, `unload.md` (`/api/v1/models`) and `2_rest/endpoints.mdx`
//! (`/api/v0/models`); llama.cpp's `tools/server/README.md`; vLLM's `/v1/models`. Of LM Studio's `/v1/models` nothing is
//! learned: it lists names alone, loaded or not.

use serde_json::Value;

use crate::limits::{MODELS_LISTED_MAX, NAME_BYTES_MAX};

/// What a request about models asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelRoute {
    /// Which there are, or how one of them is.
    List,
    /// That one is loaded.
    Load,
    /// That one is unloaded.
    Unload,
}

/// What is told of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelNews {
    /// The name that replies tell: of LM Studio that of the loaded instance.
    pub name: String,
    /// The name of the model that it is an instance of, where that is told.
    pub key: Option<String>,
    /// Whether it is loaded, where that is told.
    pub is_loaded: Option<bool>,
    /// How many tokens its context holds, as it is loaded.
    pub context_tokens: Option<u64>,
    /// How many it could hold.
    pub context_tokens_max: Option<u64>,
}

/// What a reply about models says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelListing {
    /// Each of them, [`MODELS_LISTED_MAX`] at most.
    pub models: Vec<ModelNews>,
    /// Whatever it does not tell of is not loaded.
    pub is_complete: bool,
}

impl ModelListing {
    /// Reads the body of a reply; `None` where it is no JSON.
    pub fn read(route: ModelRoute, body: &[u8]) -> Option<ModelListing> {
        let document: Value = serde_json::from_slice(body).ok()?;
        let mut models = Vec::new();
        match route {
            ModelRoute::List => {
                let list = ["data", "models"].into_iter().find_map(|name| document.get(name)?.as_array());
                let Some(list) = list else {
                    note_model(&document, &mut models);
                    return Some(ModelListing { models, is_complete: false });
                };
                list.iter().for_each(|model| note_model(model, &mut models));
                let is_complete = !list.is_empty()
                    && models.len() <= MODELS_LISTED_MAX
                    && models.iter().all(|model| model.is_loaded.is_some());
                models.truncate(MODELS_LISTED_MAX);
                return Some(ModelListing { models, is_complete });
            }
            ModelRoute::Load if text(&document, "status") != Some("loaded") => {}
            ModelRoute::Load | ModelRoute::Unload => models.extend(named(&document, "instance_id")),
        }
        for model in &mut models {
            model.is_loaded = Some(route == ModelRoute::Load);
            model.context_tokens = document.get("load_config").and_then(|config| tokens(config, "context_length"));
        }
        Some(ModelListing { models, is_complete: false })
    }
}

/// Takes what one element of a list says: of LM Studio's native list that may be several loaded instances.
fn note_model(element: &Value, models: &mut Vec<ModelNews>) {
    if let Some(instances) = element.get("loaded_instances").and_then(Value::as_array) {
        let Some(model) = named(element, "key") else { return };
        let context_tokens_max = tokens(element, "max_context_length");
        if instances.is_empty() {
            return models.push(ModelNews { is_loaded: Some(false), context_tokens_max, ..model });
        }
        models.extend(instances.iter().filter_map(|instance| {
            Some(ModelNews {
                key: Some(model.name.clone()),
                is_loaded: Some(true),
                context_tokens: instance.get("config").and_then(|config| tokens(config, "context_length")),
                context_tokens_max,
                ..named(instance, "id")?
            })
        }));
        return;
    }
    let Some(model) = named(element, "id") else { return };
    let status = element.get("status").and_then(|status| text(status, "value"));
    let meta = element.get("meta").filter(|meta| meta.is_object());
    // vLLM serves what is loaded alone.
    let served = tokens(element, "max_model_len");
    let is_loaded = match (text(element, "state"), status) {
        (Some("loaded"), _) | (None, Some("loaded")) => Some(true),
        (Some("not-loaded"), _) | (None, Some("unloaded" | "failed")) => Some(false),
        (Some(_), _) | (None, Some(_)) => None,
        // llama.cpp knows these only of the model that it has.
        (None, None) => (meta.is_some() || served.is_some()).then_some(true),
    };
    let of_meta = |name| meta.and_then(|meta| tokens(meta, name));
    models.push(ModelNews {
        is_loaded,
        context_tokens: tokens(element, "loaded_context_length").or(of_meta("n_ctx")).or(served),
        context_tokens_max: tokens(element, "max_context_length").or(of_meta("n_ctx_train")),
        ..model
    });
}

/// A model of which nothing but the name is told; `None` where that cannot be one.
fn named(of: &Value, member: &str) -> Option<ModelNews> {
    let name = text(of, member).filter(|name| (1..=NAME_BYTES_MAX).contains(&name.len()))?;
    Some(ModelNews { name: name.to_owned(), ..ModelNews::default() })
}

fn text<'a>(of: &'a Value, member: &str) -> Option<&'a str> {
    of.get(member)?.as_str()
}

/// A number of tokens; none at all is unknown.
fn tokens(of: &Value, member: &str) -> Option<u64> {
    of.get(member)?.as_u64().filter(|tokens| *tokens > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ModelRoute::*;

    /// What each model is told to be, in short.
    #[track_caller]
    fn check(route: ModelRoute, body: &str, is_complete: bool, expected: &[&str]) {
        let listing = ModelListing::read(route, body.as_bytes()).expect("JSON");
        let short = |model: &ModelNews| {
            let ModelNews { name, key, is_loaded, context_tokens, context_tokens_max } = model;
            let figure = |known: &Option<u64>| known.map_or("?".into(), |tokens| tokens.to_string());
            let key = key.as_ref().map(|key| format!(" of {key}")).unwrap_or_default();
            let state = is_loaded.map_or("unknown", |is| if is { "loaded" } else { "not loaded" });
            format!("{name}{key} {state} {}/{}", figure(context_tokens), figure(context_tokens_max))
        };
        let found: Vec<String> = listing.models.iter().map(short).collect();
        assert_eq!((found, listing.is_complete), (expected.iter().map(|text| text.to_string()).collect(), is_complete));
    }

    #[test]
    fn lm_studio_s_lists_tell_what_is_loaded_and_how_large_its_context_is() {
        check(
            List,
            r#"{"object":"list","data":[
                {"id":"qwen2-vl","type":"vlm","state":"not-loaded","max_context_length":32768},
                {"id":"llama","type":"llm","state":"loaded","max_context_length":131072,"loaded_context_length":4096}]}"#,
            true,
            &["qwen2-vl not loaded ?/32768", "llama loaded 4096/131072"],
        );
        check(List, r#"{"id":"llama","state":"loaded","loaded_context_length":8192}"#, false, &["llama loaded 8192/?"]);
        check(
            List,
            r#"{"models":[
                {"type":"llm","key":"g","loaded_instances":[{"id":"g","config":{"context_length":4096}},
                    {"id":"g:2","config":{"context_length":8192}}],"max_context_length":32768},
                {"type":"embedding","key":"e","loaded_instances":[],"max_context_length":2048}]}"#,
            true,
            &["g of g loaded 4096/32768", "g:2 of g loaded 8192/32768", "e not loaded ?/2048"],
        );
        check(
            Load,
            r#"{"type":"llm","instance_id":"g","status":"loaded","load_config":{"context_length":16384}}"#,
            false,
            &["g loaded 16384/?"],
        );
        check(Load, r#"{"error":{"message":"no room"}}"#, false, &[]);
        check(Unload, r#"{"instance_id":"g"}"#, false, &["g not loaded ?/?"]);
    }

    #[test]
    fn names_alone_tell_nothing_of_what_is_loaded() {
        check(List, r#"{"data":[{"id":"a","object":"model"},{"id":"b"}]}"#, false, &["a unknown ?/?", "b unknown ?/?"]);
        check(List, r#"{"data":[]}"#, false, &[]);
    }

    #[test]
    fn other_servers_lists_are_read_as_well() {
        let llama = r#"{"models":[{"name":"m"}],"object":"list","data":[{"id":"m","meta":{"n_ctx":4096,"n_ctx_train":131072}}]}"#;
        check(List, llama, true, &["m loaded 4096/131072"]);
        let router = r#"{"data":[{"id":"a","status":{"value":"loaded"}},{"id":"b","status":{"value":"unloaded"}},
            {"id":"c","status":{"value":"loading"},"meta":null}]}"#;
        check(List, router, false, &["a loaded ?/?", "b not loaded ?/?", "c unknown ?/?"]);
        check(List, r#"{"data":[{"id":"v","max_model_len":40960}]}"#, true, &["v loaded 40960/?"]);
    }

    #[test]
    fn what_cannot_be_is_unknown() {
        check(
            List,
            r#"{"data":[{"id":7},{"id":""},null,{"id":"a","state":true,"loaded_context_length":"many"}]}"#,
            false,
            &["a unknown ?/?"],
        );
        check(List, r#"{"data":[{"id":"a","state":"loaded","loaded_context_length":0}]}"#, true, &["a loaded ?/?"]);
        check(List, "[]", false, &[]);
        assert_eq!(ModelListing::read(List, b"<html>"), None);
        let long = format!(r#"{{"data":[{{"id":"{}","state":"loaded"}}]}}"#, "a".repeat(NAME_BYTES_MAX + 1));
        check(List, &long, true, &[]);
        let many = |count| {
            let models: Vec<String> = (0..count).map(|n| format!(r#"{{"id":"{n}","state":"loaded"}}"#)).collect();
            let body = format!(r#"{{"data":[{}]}}"#, models.join(","));
            ModelListing::read(List, body.as_bytes()).map(|listing| (listing.models.len(), listing.is_complete))
        };
        assert_eq!(many(MODELS_LISTED_MAX), Some((MODELS_LISTED_MAX, true)));
        assert_eq!(many(MODELS_LISTED_MAX + 1), Some((MODELS_LISTED_MAX, false)));
    }
}
