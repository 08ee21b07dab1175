//! Why a prompt had to be read anew, from where it no longer is what an earlier one was.
//!
//! What the client sent tells the [`Relation`] of two prompts. Whether the server could make use of what they share is
//! told by what it says of its cache, else by how late the first token came.

use super::comparison::{Comparison, Relation};

/// How a prompt goes on where an earlier one of the same model was, or why it does not. As text in the column and JSON
/// field `prefix_break`; packs have its place in [`PrefixBreak::TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrefixBreak {
    /// No earlier one is known that says any of it.
    First,
    /// It goes on where the earlier one ended: nothing is read twice.
    Continued,
    /// The system text is another one.
    SystemChanged,
    /// The tools are others.
    ToolsChanged,
    /// The same tools stand in another order.
    ToolsReordered,
    /// A message that was said before is another one.
    MessageEdited,
    /// Messages that were said before are left out.
    HistoryShortened,
    /// All is shared, but another conversation was between on that model.
    OtherConversation,
    /// All is shared, but the model was loaded for this request.
    ModelLoaded,
    /// All is shared, and was read anew all the same: the server's side.
    Unexpected,
}

impl PrefixBreak {
    const TABLE: [(PrefixBreak, &str); 10] = [
        (PrefixBreak::First, "first"),
        (PrefixBreak::Continued, "continued"),
        (PrefixBreak::SystemChanged, "system_changed"),
        (PrefixBreak::ToolsChanged, "tools_changed"),
        (PrefixBreak::ToolsReordered, "tools_reordered"),
        (PrefixBreak::MessageEdited, "message_edited"),
        (PrefixBreak::HistoryShortened, "history_shortened"),
        (PrefixBreak::OtherConversation, "other_conversation"),
        (PrefixBreak::ModelLoaded, "model_loaded"),
        (PrefixBreak::Unexpected, "unexpected"),
    ];

    /// All of them, in the order of the documentation.
    pub fn all() -> [PrefixBreak; 10] {
        PrefixBreak::TABLE.map(|(reason, _)| reason)
    }

    /// The text in the database and in JSON.
    pub fn as_str(self) -> &'static str {
        PrefixBreak::TABLE[self as usize].1
    }

    /// The one of this text.
    pub fn named(name: &str) -> Option<PrefixBreak> {
        PrefixBreak::TABLE.iter().find(|(_, known)| *known == name).map(|(reason, _)| *reason)
    }
}

/// What is known of the later request, and of what was between the two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Circumstances {
    /// How long upstream told that it loaded the model.
    pub model_load_ms: Option<u64>,
    /// Tokens of the prompt.
    pub input_tokens: Option<u64>,
    /// Those of them that a cache had.
    pub cached_tokens: Option<u64>,
    /// Whether this model told cached tokens before.
    pub tells_cached_tokens: bool,
    /// From the whole request to the first token.
    pub time_to_first_token_ms: Option<u64>,
    /// How fast this model reads prompts.
    pub reading_tokens_per_second: Option<f64>,
    /// Whether a request of another conversation has begun on this model since the earlier one.
    pub other_conversation_between: bool,
    /// Whether both requests are of one conversation, by whatever tells that.
    pub is_same_conversation: bool,
}

/// The time to the first token tells whether a prompt was read anew where reading what it shares would take at least
/// so long: what else that time holds (the network, a queue, the first token itself) is some tens of milliseconds.
const TOLD_BY_TIME_MS_MIN: f64 = 500.0;

impl Comparison {
    /// Why the later prompt was read anew.
    pub fn prefix_break(&self, circumstances: &Circumstances) -> PrefixBreak {
        match self.relation {
            Relation::Unrelated => PrefixBreak::First,
            // The same agent with something new to do.
            Relation::HistoryShortened | Relation::MessageEdited
                if !self.has_message_in_common && !circumstances.is_same_conversation =>
            {
                PrefixBreak::First
            }
            Relation::HistoryShortened => PrefixBreak::HistoryShortened,
            Relation::MessageEdited => PrefixBreak::MessageEdited,
            Relation::SystemChanged => PrefixBreak::SystemChanged,
            Relation::ToolsChanged => PrefixBreak::ToolsChanged,
            Relation::ToolsReordered => PrefixBreak::ToolsReordered,
            Relation::Continued => self.of_continued(circumstances),
        }
    }

    fn of_continued(&self, circumstances: &Circumstances) -> PrefixBreak {
        if circumstances.model_load_ms.is_some_and(|ms| ms > 0) {
            return PrefixBreak::ModelLoaded;
        }
        match (self.was_cache_kept(circumstances), circumstances.other_conversation_between) {
            (Some(true), _) | (None, false) => PrefixBreak::Continued,
            (Some(false) | None, true) => PrefixBreak::OtherConversation,
            (Some(false), false) => PrefixBreak::Unexpected,
        }
    }

    /// Whether the server used what it had of the earlier prompt; `None` where nothing tells.
    fn was_cache_kept(&self, circumstances: &Circumstances) -> Option<bool> {
        // Without a count the reply was no whole one, and tells nothing by leaving another out.
        let input = circumstances.input_tokens? as f64;
        let shared = self.tokens(self.bytes, input);
        if let Some(cached) = circumstances.cached_tokens {
            return Some(cached as f64 >= shared / 2.0);
        }
        if circumstances.tells_cached_tokens {
            return Some(false);
        }
        let (first_ms, speed) = (circumstances.time_to_first_token_ms?, reading_speed(circumstances)?);
        let read = first_ms as f64 * speed / 1000.0;
        (shared / speed * 1000.0 >= TOLD_BY_TIME_MS_MIN).then_some(read < input - shared / 2.0)
    }

    /// Estimate of the time that was lost to reading anew, in milliseconds; `None` where the size of the prompt in
    /// tokens or the speed of reading is not known.
    pub fn lost_ms(&self, reason: PrefixBreak, circumstances: &Circumstances) -> Option<u64> {
        let (bytes, cached) = match reason {
            PrefixBreak::First | PrefixBreak::Continued => return Some(0),
            PrefixBreak::SystemChanged
            | PrefixBreak::ToolsChanged
            | PrefixBreak::ToolsReordered
            | PrefixBreak::MessageEdited
            | PrefixBreak::HistoryShortened => (self.bytes_otherwise.saturating_sub(self.bytes), 0),
            PrefixBreak::OtherConversation | PrefixBreak::ModelLoaded | PrefixBreak::Unexpected => {
                (self.bytes, circumstances.cached_tokens.unwrap_or(0))
            }
        };
        if bytes == 0 {
            return Some(0);
        }
        let tokens = self.tokens(bytes, circumstances.input_tokens? as f64) - cached as f64;
        let lost_ms = (tokens.max(0.0) / reading_speed(circumstances)? * 1000.0).round() as u64;
        // Nothing was lost behind the first token.
        Some(lost_ms.min(circumstances.time_to_first_token_ms.unwrap_or(u64::MAX)))
    }

    /// Tokens of so many bytes of the later prompt.
    fn tokens(&self, bytes: u64, input: f64) -> f64 {
        bytes as f64 / self.prompt_bytes.max(1) as f64 * input
    }
}

fn reading_speed(circumstances: &Circumstances) -> Option<f64> {
    circumstances.reading_tokens_per_second.filter(|speed| *speed > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::comparison::compare;
    use crate::prompts::outline::outline_of;

    #[test]
    fn each_reason_stands_in_its_line() {
        for (place, reason) in PrefixBreak::all().into_iter().enumerate() {
            assert_eq!((reason as usize, PrefixBreak::named(reason.as_str())), (place, Some(reason)));
        }
        assert_eq!(PrefixBreak::named(""), None);
    }

    /// Ten thousand tokens, of which the first nine thousand were there before; a thousand are read in a second.
    const READ: Circumstances = Circumstances {
        model_load_ms: None,
        input_tokens: Some(10_000),
        cached_tokens: None,
        tells_cached_tokens: false,
        time_to_first_token_ms: None,
        reading_tokens_per_second: Some(1000.0),
        other_conversation_between: false,
        is_same_conversation: false,
    };

    /// The reason and what was lost, as `reason ms`.
    #[track_caller]
    fn check_reason(before: &str, now: &str, circumstances: Circumstances, expected: &str) {
        let comparison = compare(&outline_of(before), &outline_of(now));
        let reason = comparison.prefix_break(&circumstances);
        let lost = comparison.lost_ms(reason, &circumstances).map_or("?".to_owned(), |ms| ms.to_string());
        assert_eq!(format!("{} {lost}", reason.as_str()), expected);
    }

    #[track_caller]
    fn check_continued(circumstances: Circumstances, expected: &str) {
        check_reason("s1:4000 u1:5000", "s1:4000 u1:5000 a1:1000", circumstances, expected);
    }

    #[test]
    fn a_prompt_that_goes_on_is_healthy_unless_something_tells_otherwise() {
        check_continued(READ, "continued 0");
        check_continued(Circumstances::default(), "continued 0");
        check_continued(Circumstances { cached_tokens: Some(9000), ..READ }, "continued 0");
        check_continued(Circumstances { cached_tokens: Some(4500), ..READ }, "continued 0");
        check_continued(Circumstances { time_to_first_token_ms: Some(1100), ..READ }, "continued 0");
        check_continued(Circumstances { model_load_ms: Some(0), ..READ }, "continued 0");
    }

    #[test]
    fn a_loaded_model_explains_itself() {
        let loaded = Circumstances { model_load_ms: Some(4000), ..READ };
        check_continued(loaded, "model_loaded 9000");
        check_continued(Circumstances { other_conversation_between: true, ..loaded }, "model_loaded 9000");
        check_continued(Circumstances { input_tokens: None, ..loaded }, "model_loaded ?");
        check_continued(Circumstances { reading_tokens_per_second: None, ..loaded }, "model_loaded ?");
        check_continued(Circumstances { reading_tokens_per_second: Some(0.0), ..loaded }, "model_loaded ?");
    }

    #[test]
    fn what_is_told_of_the_cache_counts_before_time() {
        let unexpected = Circumstances { cached_tokens: Some(4499), ..READ };
        check_continued(unexpected, "unexpected 4501");
        check_continued(Circumstances { cached_tokens: Some(0), ..READ }, "unexpected 9000");
        let between = Circumstances { other_conversation_between: true, ..READ };
        check_continued(Circumstances { cached_tokens: Some(0), ..between }, "other_conversation 9000");
        check_continued(Circumstances { cached_tokens: Some(9000), ..between }, "continued 0");
        let early = Circumstances { time_to_first_token_ms: Some(1000), cached_tokens: Some(0), ..READ };
        check_continued(early, "unexpected 1000");
        // Not told by a model that tells it.
        let silent = Circumstances { tells_cached_tokens: true, ..READ };
        check_continued(silent, "unexpected 9000");
        check_continued(Circumstances { input_tokens: None, ..silent }, "continued 0");
    }

    #[test]
    fn a_first_token_as_late_as_for_a_new_prompt_tells_that_it_was_read_anew() {
        let first_after = |ms| Circumstances { time_to_first_token_ms: Some(ms), ..READ };
        check_continued(first_after(10_200), "unexpected 9000");
        check_continued(first_after(5_500), "unexpected 5500");
        check_continued(first_after(5_499), "continued 0");
        let between = |ms| Circumstances { other_conversation_between: true, ..first_after(ms) };
        check_continued(between(10_200), "other_conversation 9000");
        check_continued(between(1_100), "continued 0");
        // Where nothing tells, another conversation is the likely reason.
        check_continued(Circumstances { other_conversation_between: true, ..READ }, "other_conversation 9000");
        // Too short for its time to tell anything.
        let short = |circumstances| Circumstances { input_tokens: Some(550), ..circumstances };
        check_continued(short(first_after(3_000)), "continued 0");
        check_continued(short(between(3_000)), "other_conversation 495");
    }

    #[test]
    fn a_change_costs_what_would_have_been_shared_without_it() {
        let circumstances = Circumstances { other_conversation_between: true, cached_tokens: Some(0), ..READ };
        check_reason(
            "t1:1000 s1:1000 u1:7000",
            "t1:1000 s2:1000 u1:7000 a1:1000",
            circumstances,
            "system_changed 8000",
        );
        check_reason("t1:2000 t2:2000 u1:6000", "t2:2000 t1:2000 u1:6000", circumstances, "tools_reordered 10000");
        check_reason("t1:2000 u1:6000", "t2:2000 u1:6000 a1:2000", circumstances, "tools_changed 8000");
        check_reason("u1:2000 a1:2000 u2:6000", "u1:2000 a2:2000 u2:6000", circumstances, "message_edited 8000");
        check_reason("u1 a1 u2:5000", "u2:5000 a2:2500 u3:2500", circumstances, "history_shortened 5000");
        check_reason("u1:10 a1:10 u2:10", "u1:10 a1:10", circumstances, "history_shortened 0");
        check_reason("s1:1000 u1:1000", "s2:1000 u1:1000", Circumstances::default(), "system_changed ?");
    }

    #[test]
    fn without_an_earlier_message_it_is_the_first_unless_the_conversation_is_the_same() {
        let same = Circumstances { is_same_conversation: true, ..READ };
        check_reason("s1 u1", "s2 x", same, "first 0");
        check_reason("s1 u1", "s1 x", READ, "first 0");
        check_reason("s1 u1", "s1 x", same, "message_edited 0");
        check_reason("s1 u1 a1 u2", "s1 xsum", READ, "first 0");
        check_reason("s1 u1 a1 u2", "s1 xsum", same, "history_shortened 0");
        // One that both have somewhere makes it the same.
        check_reason("s1 u1 a1", "s1 x a1", READ, "message_edited 6667");
    }
}
