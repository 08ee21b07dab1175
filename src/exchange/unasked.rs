//! Which models' servers tell the counts of a stream unasked, so that asking would only take something away.
//!
//! llama.cpp and TabbyAPI tell `timings` on the chunk with the `finish_reason`, unless they are asked for usage: then
//! `timings` moves to the usage event, which the client never sees. So a stream whose usage event had `timings` is the
//! last one of its model that is asked, until one comes without counts. That one shows that they are not told unasked
//! after all, and from then on usage is asked for always.
//!
//! Kept for each model that is asked for, because a gateway sends models to different servers, and one model's chat and
//! completions to the same. In memory alone: a server may be another one after the next start.

use std::sync::{Mutex, MutexGuard};

use crate::bell::lock;
use crate::limits::UNASKED_MODELS_MAX;
use crate::usage::UsageReport;

/// What was learned of models. Those forgotten are asked again.
#[derive(Default)]
pub struct Unasked {
    /// Whether each tells counts unasked; the one learned first is the first.
    models: Mutex<Vec<(String, bool)>>,
}

/// How a request was sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Its client asks for usage, or nobody does.
    AsItCame,
    /// The proxy asks: the usage events must not reach the client.
    Injected,
    /// The proxy would, but upstream tells counts unasked.
    Unneeded,
}

impl Unasked {
    /// Whether the server of `model` is known to tell counts unasked.
    pub fn tells(&self, model: &str) -> bool {
        self.models().iter().any(|(known, tells)| known == model && *tells)
    }

    /// Learns from a successful reply of `model` that has come as far as `report` says.
    pub fn learn(&self, model: &str, asking: Asking, report: &UsageReport) {
        let is_whole = report.streamed && (report.terminal || report.finished) && report.error.is_none();
        let lacks = report.counts.input.is_none() || report.counts.output.is_none();
        match asking {
            Asking::Injected if report.told_beside => self.note(model, true),
            Asking::Unneeded if is_whole && lacks => self.note(model, false),
            Asking::AsItCame | Asking::Injected | Asking::Unneeded => {}
        }
    }

    /// What was learned by trying stays.
    fn note(&self, model: &str, tells: bool) {
        let mut models = self.models();
        match models.iter_mut().find(|(known, _)| known == model) {
            Some((_, known)) => *known &= tells,
            None => {
                if models.len() == UNASKED_MODELS_MAX {
                    models.remove(0);
                }
                models.push((model.to_owned(), tells));
            }
        }
    }

    fn models(&self) -> MutexGuard<'_, Vec<(String, bool)>> {
        lock(&self.models)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::TokenCounts;

    fn whole(told_beside: bool, tokens: Option<u64>) -> UsageReport {
        UsageReport {
            streamed: true,
            finished: true,
            told_beside,
            counts: TokenCounts { input: tokens, output: tokens, ..TokenCounts::default() },
            ..UsageReport::default()
        }
    }

    #[test]
    fn timings_that_were_taken_out_teach_and_a_stream_without_counts_teaches_better() {
        let unasked = Unasked::default();
        unasked.learn("m", Asking::Injected, &whole(false, Some(1)));
        assert!(!unasked.tells("m"));
        unasked.learn("m", Asking::Injected, &whole(true, Some(1)));
        assert!(unasked.tells("m") && !unasked.tells("n"));
        unasked.learn("m", Asking::Unneeded, &whole(false, Some(1)));
        assert!(unasked.tells("m"));
        // One that broke off, or failed, tells nothing about what is told at its end.
        unasked.learn("m", Asking::Unneeded, &UsageReport { finished: false, ..whole(false, None) });
        unasked.learn("m", Asking::Unneeded, &UsageReport { error: Some("x".into()), ..whole(false, None) });
        assert!(unasked.tells("m"));
        unasked.learn("m", Asking::Unneeded, &whole(false, None));
        assert!(!unasked.tells("m"));
        unasked.learn("m", Asking::Injected, &whole(true, Some(1)));
        assert!(!unasked.tells("m"), "it was tried");
    }

    #[test]
    fn only_so_many_models_are_remembered() {
        let unasked = Unasked::default();
        (0..=UNASKED_MODELS_MAX).for_each(|n| unasked.note(&n.to_string(), true));
        assert!(!unasked.tells("0") && unasked.tells("1") && unasked.tells(&UNASKED_MODELS_MAX.to_string()));
    }
}
