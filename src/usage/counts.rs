//! The counts that a reply tells: one table of their names for all dialects, and the rules that put them together.
//!
//! Servers of one dialect use the names of another: SGLang counts `/v1/responses` as a chat does, gateways before
//! Anthropic's models count a chat as messages. So a name means the same wherever usage stands. Sources: the API
//! references of OpenAI, Anthropic, DeepSeek, Moonshot and Cohere; LM Studio's `rest-api`; the sources of llama.cpp,
//! SGLang, TabbyAPI, llama-box, oMLX and mlx-vlm.

use super::role::JsonRole::{self, *};

/// The role of a member where counts may stand: at the top, in `usage`, `stats`, `timings`, and the details of usage.
pub fn member(at: JsonRole, name: &[u8]) -> JsonRole {
    match at {
        Root | Reply => match name {
            b"usage" => Usage,
            b"stats" => Stats,
            b"timings" => Timings,
            b"meta" | b"x_groq" => Meta,
            _ => Skip,
        },
        Usage | Stats => usage(name),
        InputDetails => match name {
            b"cached_tokens" | b"cache_read_tokens" | b"cache_read_input_tokens" => CachedTokens,
            b"cache_write_tokens" | b"cache_creation_tokens" | b"cache_creation_input_tokens" => CacheWriteTokens,
            _ => Skip,
        },
        OutputDetails => match name {
            b"reasoning_tokens" | b"thinking_tokens" => ReasoningTokens,
            _ => Skip,
        },
        Timings => match name {
            b"prompt_n" => PromptN,
            b"cache_n" => CacheN,
            b"predicted_n" => PredictedN,
            b"predicted_per_second" => TokensPerSecond,
            b"prompt_per_second" => PromptPerSecond,
            b"draft_n" | b"drafted_n" => DraftTokens,
            b"draft_n_accepted" => AcceptedDraftTokens,
            _ => Skip,
        },
        // Cohere's `meta.tokens`, and Groq's `x_groq.usage`.
        Meta => match name {
            b"tokens" | b"usage" => Usage,
            _ => Skip,
        },
        _ => Skip,
    }
}

fn usage(name: &[u8]) -> JsonRole {
    match name {
        b"prompt_tokens" | b"input_tokens" => InputTokens,
        b"completion_tokens" | b"output_tokens" | b"total_output_tokens" => OutputTokens,
        b"total_tokens" => TotalTokens,
        b"prompt_tokens_details" | b"input_tokens_details" | b"input_token_details" => InputDetails,
        b"completion_tokens_details" | b"output_tokens_details" | b"output_token_details" => OutputDetails,
        b"cached_tokens" | b"cache_read_input_tokens" | b"prompt_cache_hit_tokens" | b"cache_read_tokens" => {
            CachedTokens
        }
        b"cache_creation_input_tokens" | b"cache_write_tokens" | b"cache_write_input_tokens" => CacheWriteTokens,
        b"reasoning_tokens" | b"thinking_tokens" | b"reasoning_output_tokens" => ReasoningTokens,
        b"draft_tokens" | b"total_draft_tokens_count" => DraftTokens,
        b"accepted_draft_tokens" | b"accepted_draft_tokens_count" => AcceptedDraftTokens,
        b"tokens_per_second"
        | b"completion_tokens_per_sec"
        | b"completion_tokens_per_second"
        | b"generation_tokens_per_second"
        | b"generation_tps" => TokensPerSecond,
        b"prompt_tokens_per_second" | b"prompt_tokens_per_sec" | b"prompt_tps" => PromptPerSecond,
        b"model_load_time_seconds" => LoadSeconds,
        // Cohere's chat: beside what is billed.
        b"tokens" => Usage,
        _ => Skip,
    }
}

/// Counts as reported; unknown is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// Tokens of the prompt.
    pub input: Option<u64>,
    /// Tokens of the answer.
    pub output: Option<u64>,
    /// Both.
    pub total: Option<u64>,
    /// Prompt tokens read from a cache.
    pub cached: Option<u64>,
    /// Prompt tokens written to a cache.
    pub cache_write: Option<u64>,
    /// Answer tokens spent on reasoning.
    pub reasoning: Option<u64>,
}

impl TokenCounts {
    /// Whether any count was reported.
    pub fn is_known(&self) -> bool {
        self.all().iter().any(Option::is_some)
    }

    /// Whether any count above zero was reported.
    pub fn is_positive(&self) -> bool {
        self.all().iter().any(|n| n.is_some_and(|n| n > 0))
    }

    /// Later counts replace earlier ones, each on its own, as [`replace`] says.
    pub fn merge(&mut self, later: &TokenCounts) {
        replace(&mut self.input, later.input);
        replace(&mut self.output, later.output);
        replace(&mut self.total, later.total);
        replace(&mut self.cached, later.cached);
        replace(&mut self.cache_write, later.cache_write);
        replace(&mut self.reasoning, later.reasoning);
    }

    /// What these counts say together, once all of them are there.
    ///
    /// Anthropic, llama.cpp, vLLM and oMLX leave out of a message's input what was read from the cache or written to
    /// it; LM Studio and OpenAI leave it in. More than the input cannot be in it, so there the input is all three.
    pub fn settled(mut self) -> TokenCounts {
        let beside = self.cached.unwrap_or(0).saturating_add(self.cache_write.unwrap_or(0));
        self.input = self.input.map(|input| if beside > input { input.saturating_add(beside) } else { input });
        let sum = self.input.zip(self.output).map(|(input, output)| input.saturating_add(output));
        // A total below its parts was told before they were, or without what the cache had.
        let least = self.input.unwrap_or(0).saturating_add(self.output.unwrap_or(0));
        self.total = self.total.filter(|total| *total >= least).or(sum);
        self
    }

    fn all(&self) -> [Option<u64>; 6] {
        [self.input, self.output, self.total, self.cached, self.cache_write, self.reasoning]
    }
}

/// A later count replaces an earlier one, but a zero never replaces something: Ollama fills the chunks before the last
/// with zeros, gateways the counts of `message_delta` that they do not know.
pub fn replace(count: &mut Option<u64>, later: Option<u64>) {
    if later.is_some_and(|later| later > 0) || count.is_none() {
        *count = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(told: [Option<u64>; 5]) -> TokenCounts {
        let [input, output, total, cached, cache_write] = told;
        TokenCounts { input, output, total, cached, cache_write, reasoning: None }
    }

    #[test]
    fn a_zero_never_replaces_what_was_more() {
        let mut merged = counts([Some(15), Some(1), None, Some(8), Some(0)]);
        merged.merge(&counts([Some(0), Some(29), Some(0), Some(0), Some(3)]));
        assert_eq!(merged, counts([Some(15), Some(29), Some(0), Some(8), Some(3)]));
        merged.merge(&counts([None, Some(0), Some(44), None, None]));
        assert_eq!(merged, counts([Some(15), Some(29), Some(44), Some(8), Some(3)]));
    }

    /// input, output, total, cached, cache_write before and after.
    #[track_caller]
    fn check(told: [Option<u64>; 5], expected: [Option<u64>; 5]) {
        assert_eq!(counts(told).settled(), counts(expected));
    }

    #[test]
    fn what_cannot_be_inside_the_input_is_beside_it() {
        check([Some(4), Some(2), None, Some(10), None], [Some(14), Some(2), Some(16), Some(10), None]);
        check([Some(4), Some(2), Some(6), Some(3), Some(3)], [Some(10), Some(2), Some(12), Some(3), Some(3)]);
        check([Some(0), Some(2), None, None, Some(9)], [Some(9), Some(2), Some(11), None, Some(9)]);
        // LM Studio counts what the cache had.
        check([Some(10), Some(2), None, Some(10), Some(0)], [Some(10), Some(2), Some(12), Some(10), Some(0)]);
        check([None, Some(2), None, Some(10), None], [None, Some(2), None, Some(10), None]);
    }

    #[test]
    fn a_total_below_its_parts_is_worked_out_anew_or_unknown() {
        check([Some(4), Some(2), Some(5), None, None], [Some(4), Some(2), Some(6), None, None]);
        check([Some(4), Some(2), Some(9), None, None], [Some(4), Some(2), Some(9), None, None]);
        check([Some(4), None, Some(3), None, None], [Some(4), None, None, None, None]);
        check([Some(4), None, Some(4), None, None], [Some(4), None, Some(4), None, None]);
        check([None, None, Some(4), None, None], [None, None, Some(4), None, None]);
        check([Some(0), Some(0), Some(0), None, None], [Some(0), Some(0), Some(0), None, None]);
    }
}
