//! What clients of the demo ask, whom, and what comes back.

/// A model of the demo: its name, tokens a second, and whether it reasons first.
pub(super) type DemoModel = (&'static str, f64, bool);
pub(super) const MODELS: [DemoModel; 3] =
    [("openai/gpt-oss-20b", 68.0, false), ("qwen/qwen3-30b-a3b", 92.0, true), ("google/gemma-3-12b", 41.0, false)];
pub(super) const EMBEDDER: &str = "text-embedding-nomic-embed-text-v1.5";
/// What is asked.
pub(super) const QUESTIONS: [&str; 6] = [
    "Summarise this week's release notes in three sentences.",
    "Why does my service answer slowly after a deploy?",
    "Write a commit message for this change.",
    "Explain the difference between a mutex and a channel.",
    "Translate the greeting on our page into French and German.",
    "Which of these two SQL queries is faster, and why?",
];
/// What every answer is made of.
pub(super) const WORDS: &str = "Nothing here was thought by a model: the demo makes these words up, one by one, so that \
    you can see them come. Behind them is the same proxy that would stand before your LM Studio: it passes each byte on \
    as it came, counts what the reply says of its tokens, and writes one row. ";
/// What it thinks before, if it reasons.
pub(super) const THOUGHTS: &str =
    "The question is simple enough. First what is asked, then what a short answer needs. ";
/// Why it does not answer.
pub(super) const TOO_LONG: &str =
    "The number of tokens to keep from the initial prompt is greater than the context length.";
