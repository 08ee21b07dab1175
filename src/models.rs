//! Which models upstream has loaded, and with which context length, as far as what passes has told.
//!
//! Nobody asks upstream for that. Listings that clients ask for tell it, replies that tell that a model was loaded for
//! them, and what LM Studio says on WebSockets. Between two of these a model may come or go unseen, so each state says
//! when it was told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::bell::lock;
use crate::limits::MODELS_LISTED_MAX;
use crate::order::sort_by;
use crate::usage::listing::{ModelListing, ModelNews};

/// What is known of the models that were seen loaded.
#[derive(Debug, Default)]
pub struct SeenModels(Mutex<HashMap<String, SeenModel>>);

/// What is known of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenModel {
    /// The name of the model that it is an instance of, where that was told.
    pub key: Option<String>,
    /// It is loaded; else it was, and is no more.
    pub is_loaded: bool,
    /// When it was first seen to be so: milliseconds since 1970-01-01T00:00:00Z.
    pub since_ms: i64,
    /// When it was last told to be so.
    pub told_ms: i64,
    /// How many tokens its context holds, or held when it was loaded.
    pub context_tokens: Option<u64>,
    /// How many it could hold.
    pub context_tokens_max: Option<u64>,
}

impl SeenModels {
    /// How many tokens the context of a model holds, by the name that replies tell: as it was last told of one that is
    /// loaded. Where only the instances are known by other names, what they have in common.
    pub fn context_tokens(&self, model: &str) -> Option<u64> {
        let models = self.models();
        if let Some(known) = models.get(model) {
            return known.context_tokens.filter(|_| known.is_loaded);
        }
        let mut instances = models.values().filter(|known| known.is_loaded && known.key.as_deref() == Some(model));
        let first = instances.next()?.context_tokens?;
        instances.all(|other| other.context_tokens == Some(first)).then_some(first)
    }

    /// Takes what a reply about models says.
    pub fn learn(&self, listing: &ModelListing, now_ms: i64) {
        let mut models = self.models();
        listing.models.iter().for_each(|news| learn_one(&mut models, news, now_ms));
        if !listing.is_complete {
            return;
        }
        // One list names instances, another the models that they are of.
        let is_listed =
            |name: &str| listing.models.iter().any(|news| news.is_loaded == Some(true) && news.name == name);
        for (name, known) in models.iter_mut() {
            if known.is_loaded && !is_listed(name) && !known.key.as_deref().is_some_and(is_listed) {
                (known.is_loaded, known.since_ms, known.told_ms) = (false, now_ms, now_ms);
            }
        }
    }

    /// A reply that began at `began_ms` tells that the model was loaded for it: its context may be another one now, unless
    /// that was told since.
    pub fn note_loading(&self, model: &str, began_ms: i64, now_ms: i64) {
        let mut models = self.models();
        if models.get(model).is_some_and(|known| known.is_loaded && known.told_ms >= began_ms) {
            return;
        }
        if let Some(known) = models.get_mut(model) {
            (known.is_loaded, known.context_tokens) = (false, None);
        }
        let news = ModelNews { name: model.to_owned(), is_loaded: Some(true), ..ModelNews::default() };
        learn_one(&mut models, &news, now_ms);
    }

    /// All of them by name: those that are loaded first, then those that were, each in the order of their names.
    pub fn all(&self) -> Vec<(String, SeenModel)> {
        let mut all: Vec<_> = self.models().iter().map(|(name, known)| (name.clone(), known.clone())).collect();
        sort_by(&mut all, |(name, known), (other, of)| (of.is_loaded, name).cmp(&(known.is_loaded, other)));
        all
    }

    fn models(&self) -> MutexGuard<'_, HashMap<String, SeenModel>> {
        lock(&self.0)
    }
}

fn learn_one(models: &mut HashMap<String, SeenModel>, news: &ModelNews, now_ms: i64) {
    if let Some(known) = models.get_mut(&news.name) {
        let is_loaded = news.is_loaded.unwrap_or(known.is_loaded);
        if is_loaded != known.is_loaded {
            (known.is_loaded, known.since_ms) = (is_loaded, now_ms);
            // How large it was stays told of one that was evicted.
            known.context_tokens = known.context_tokens.filter(|_| !is_loaded);
        }
        known.told_ms = now_ms;
        known.key = news.key.clone().or(known.key.take());
        known.context_tokens = news.context_tokens.or(known.context_tokens);
        known.context_tokens_max = news.context_tokens_max.or(known.context_tokens_max);
    } else if news.is_loaded == Some(true) {
        make_room(models);
        let known = SeenModel {
            key: news.key.clone(),
            is_loaded: true,
            since_ms: now_ms,
            told_ms: now_ms,
            context_tokens: news.context_tokens,
            context_tokens_max: news.context_tokens_max,
        };
        models.insert(news.name.clone(), known);
    }
}

/// Of too many, one goes that is not loaded any more, else the one of which was told longest ago.
fn make_room(models: &mut HashMap<String, SeenModel>) {
    if models.len() < MODELS_LISTED_MAX {
        return;
    }
    let eldest = models.iter().min_by_key(|(_, known)| (known.is_loaded, known.told_ms));
    if let Some(name) = eldest.map(|(name, _)| name.clone()) {
        models.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(name: &str, is_loaded: Option<bool>, context_tokens: Option<u64>) -> ModelNews {
        ModelNews { name: name.into(), is_loaded, context_tokens, ..ModelNews::default() }
    }

    fn listing(is_complete: bool, models: &[ModelNews]) -> ModelListing {
        ModelListing { models: models.to_vec(), is_complete }
    }

    /// Each with what is known of it, in short.
    #[track_caller]
    fn check(seen: &SeenModels, expected: &[(&str, bool, i64, Option<u64>)]) {
        let all = seen.all();
        let found: Vec<_> =
            all.iter().map(|(name, it)| (name.as_str(), it.is_loaded, it.since_ms, it.context_tokens)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_model_is_loaded_from_the_list_that_told_so_first_until_one_tells_otherwise() {
        let seen = SeenModels::default();
        let both = listing(true, &[news("a", Some(true), Some(4096)), news("b", Some(false), None)]);
        seen.learn(&both, 1);
        seen.learn(&both, 2);
        check(&seen, &[("a", true, 1, Some(4096))]);
        assert_eq!((seen.context_tokens("a"), seen.context_tokens("b")), (Some(4096), None));
        seen.learn(&listing(true, &[news("a", Some(false), None), news("b", Some(true), Some(8192))]), 3);
        check(&seen, &[("b", true, 3, Some(8192)), ("a", false, 3, Some(4096))]);
        assert_eq!((seen.context_tokens("a"), seen.context_tokens("b")), (None, Some(8192)));
        // Back again, perhaps with another context.
        seen.learn(&listing(false, &[news("a", Some(true), None)]), 4);
        check(&seen, &[("a", true, 4, None), ("b", true, 3, Some(8192))]);
    }

    #[test]
    fn only_a_complete_list_tells_of_what_it_leaves_out() {
        let seen = SeenModels::default();
        seen.learn(&listing(true, &[news("a", Some(true), None)]), 1);
        seen.learn(&listing(false, &[news("b", Some(true), None), news("a", None, None)]), 2);
        check(&seen, &[("a", true, 1, None), ("b", true, 2, None)]);
        seen.learn(&listing(true, &[news("b", Some(true), None)]), 3);
        check(&seen, &[("b", true, 2, None), ("a", false, 3, None)]);
    }

    #[test]
    fn an_instance_is_known_by_its_own_name_and_by_that_of_its_model() {
        let seen = SeenModels::default();
        let instance =
            |name: &str, context| ModelNews { key: Some("m".into()), ..news(name, Some(true), Some(context)) };
        seen.learn(&listing(true, &[instance("mine", 4096), instance("other", 4096)]), 1);
        assert_eq!((seen.context_tokens("mine"), seen.context_tokens("m")), (Some(4096), Some(4096)));
        // A list of models knows no instances.
        seen.learn(&listing(true, &[news("m", Some(true), Some(4096))]), 2);
        check(&seen, &[("m", true, 2, Some(4096)), ("mine", true, 1, Some(4096)), ("other", true, 1, Some(4096))]);
        let seen = SeenModels::default();
        seen.learn(&listing(true, &[instance("mine", 4096), instance("other", 8192)]), 1);
        assert_eq!(seen.context_tokens("m"), None, "which of them is meant?");
    }

    #[test]
    fn one_that_was_loaded_for_a_reply_may_have_another_context_now() {
        let seen = SeenModels::default();
        seen.note_loading("a", 5, 6);
        check(&seen, &[("a", true, 6, None)]);
        seen.learn(&listing(true, &[news("a", Some(true), Some(4096))]), 7);
        seen.note_loading("a", 6, 8);
        check(&seen, &[("a", true, 6, Some(4096))]);
        seen.note_loading("a", 9, 10);
        check(&seen, &[("a", true, 10, None)]);
    }

    #[test]
    fn of_too_many_those_are_forgotten_that_are_gone_for_longest() {
        let seen = SeenModels::default();
        for n in 0..MODELS_LISTED_MAX as i64 {
            seen.learn(&listing(false, &[news(&n.to_string(), Some(true), None)]), n);
        }
        seen.learn(&listing(false, &[news("7", Some(false), None)]), 1000);
        for name in ["x", "y"] {
            seen.learn(&listing(false, &[news(name, Some(true), None)]), 1001);
        }
        let names: Vec<String> = seen.all().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), MODELS_LISTED_MAX);
        assert!(["0", "7"].iter().all(|gone| !names.iter().any(|name| name == gone)));
    }
}
