//! What the models are called behind the references by which the SDKs ask for them, as far as a connection told.

use super::super::listing::ModelNews;
use super::super::text::lossy;
use crate::limits::SOCKET_MODELS_MAX;

/// What a message tells of a model. Empty is not told.
#[derive(Clone, Debug, Default)]
pub struct ToldModel {
    /// Opaque, and that of one loading of the model.
    pub reference: Vec<u8>,
    /// What it is asked for by; of a second instance with `:2` behind.
    pub identifier: Vec<u8>,
    /// Its name without that.
    pub key: Vec<u8>,
    /// `contextLength`: how many tokens its context holds.
    pub context_tokens: Option<u64>,
    /// `maxContextLength`: how many it could hold.
    pub context_tokens_max: Option<u64>,
}

impl ToldModel {
    /// Its name.
    pub fn name(&self) -> Option<String> {
        text(if self.identifier.is_empty() { &self.key } else { &self.identifier })
    }

    /// What it tells of what is loaded: only a loaded instance has a reference. `is_unloading`: it is to go.
    pub fn news(&self, is_unloading: bool) -> Option<ModelNews> {
        let name = text(&self.identifier).filter(|_| !self.reference.is_empty() || is_unloading)?;
        let key = text(&self.key);
        let (context_tokens, context_tokens_max) = (self.context_tokens, self.context_tokens_max);
        Some(ModelNews { name, key, is_loaded: Some(!is_unloading), context_tokens, context_tokens_max })
    }

    /// Memory that it takes, nearly.
    pub fn bytes(&self) -> usize {
        size_of::<ToldModel>() + self.reference.len() + self.identifier.len() + self.key.len()
    }
}

/// The models of a connection.
#[derive(Debug, Default)]
pub struct KnownModels(Vec<KnownModel>);

#[derive(Debug)]
struct KnownModel {
    reference: Vec<u8>,
    /// By which name it was asked for when it was loaded.
    asked: Option<String>,
    name: Option<String>,
}

impl KnownModels {
    /// Learns of a model, and by which name it was asked for. Of too many, the eldest is forgotten.
    pub fn learn(&mut self, told: &ToldModel, asked: Option<&str>) {
        if told.reference.is_empty() {
            return;
        }
        let (asked, name) = (asked.map(str::to_owned), told.name());
        if let Some(known) = self.0.iter_mut().find(|known| known.reference == told.reference) {
            known.asked = asked.or(known.asked.take());
            known.name = name.or(known.name.take());
            return;
        }
        if self.0.len() == SOCKET_MODELS_MAX {
            self.0.remove(0);
        }
        self.0.push(KnownModel { reference: told.reference.clone(), asked, name });
    }

    /// By which name the model behind a reference was asked for, and its name. Where only the latter is known, it is
    /// also what the client chose it by.
    pub fn find(&self, reference: &[u8]) -> (Option<String>, Option<String>) {
        let known = self.0.iter().find(|known| known.reference == reference);
        known.map_or((None, None), |known| (known.asked.clone().or_else(|| known.name.clone()), known.name.clone()))
    }

    /// Memory that they take, nearly.
    pub fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let size =
            |it: &KnownModel| size_of::<KnownModel>() + it.reference.len() + length(&it.asked) + length(&it.name);
        self.0.iter().map(size).sum()
    }
}

/// Bytes as text; `None` where there are none.
pub fn text(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reference: &str, identifier: &str, key: &str) -> ToldModel {
        let (reference, identifier, key) = (reference.into(), identifier.into(), key.into());
        ToldModel { reference, identifier, key, ..ToldModel::default() }
    }

    #[track_caller]
    fn check(models: &KnownModels, reference: &str, asked: Option<&str>, name: Option<&str>) {
        let found = models.find(reference.as_bytes());
        assert_eq!((found.0.as_deref(), found.1.as_deref()), (asked, name), "{reference}");
    }

    #[test]
    fn what_was_asked_for_outlives_what_is_told_later() {
        let mut models = KnownModels::default();
        models.learn(&told("r", "qwen:2", "qwen"), Some("my-qwen"));
        models.learn(&told("r", "", ""), None);
        check(&models, "r", Some("my-qwen"), Some("qwen:2"));
        models.learn(&told("r", "renamed", ""), None);
        check(&models, "r", Some("my-qwen"), Some("renamed"));
        models.learn(&told("r", "", ""), Some("other"));
        check(&models, "r", Some("other"), Some("renamed"));
        models.learn(&told("listed", "", "key"), None);
        check(&models, "listed", Some("key"), Some("key"));
        check(&models, "x", None, None);
        models.learn(&told("", "nothing", ""), None);
        check(&models, "", None, None);
    }

    #[test]
    fn of_too_many_models_the_eldest_are_forgotten() {
        let mut models = KnownModels::default();
        for n in 0..SOCKET_MODELS_MAX + 3 {
            models.learn(&told(&n.to_string(), "name", ""), None);
        }
        assert_eq!(models.0.len(), SOCKET_MODELS_MAX);
        check(&models, "2", None, None);
        check(&models, "3", Some("name"), Some("name"));
    }
}
