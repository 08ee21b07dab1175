//! The grammar of requests (RFC 9110, RFC 9112), and of replies. Pure: bytes in, values out.
//!
//! It opens no socket, asks no clock, starts no thread, logs nothing. The front feeds it what a client sent:
//!
//! ```text
//!  bytes ──▶ read_head ──▶ HostPolicy::allows ──▶ target ─▶ ChunkDecoder or a length ──▶ a whole request
//!               │                │                  │               │
//!               └────────────────┴──── Refusal ─────┴───────────────┘ ──▶ Reply::refusal ──▶ bytes, then close
//! ```
//!
//! - [`refusal`]: why a request is refused.
//! - [`head`]: the head of a request, with [`request_line`] and `fields`; [`framing`]: where the body ends.
//! - [`chunked`]: chunked bodies.
//! - [`host`]: which names are served; [`origin`]: which pages may ask for what.
//! - [`target`]: paths and queries.
//! - [`reply`]: the proxy's own replies, and the head of relayed ones.
//! - [`reply_head`]: the head of a reply of upstream; [`reply_framing`]: where its body ends; [`whole`]: the plainest of
//!   those replies.
//! - [`fuzz`]: the rules that hold for any bytes whatsoever.

pub mod chunked;
mod fields;
pub mod framing;
pub mod fuzz;
pub mod head;
pub mod host;
pub mod origin;
pub mod refusal;
pub mod reply;
pub mod reply_framing;
pub mod reply_head;
pub mod request_line;
mod syntax;
pub mod target;
pub mod whole;

pub use chunked::ChunkDecoder;
pub use framing::Framing;
pub use head::{RequestHead, read_head};
pub use host::HostPolicy;
pub use refusal::Refusal;
pub use reply::{Persistence, Reply, ReplyFraming};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    /// What pure code has no use for.
    const IMPURE: [&str; 8] =
        ["std::net", "std::thread", "std::fs", "std::time::Instant", "SystemTime", "rusqlite", "log::", "mio"];

    fn sources_under(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("a readable entry").path();
            match path.extension() {
                Some(extension) if extension == "rs" => found.push(path),
                Some(_) => {}
                None => sources_under(&path, found),
            }
        }
    }

    /// Whether `text` has `word` as a word of its own: `mio` is not part of `million`, `log::` not of `catalog::`.
    fn has_word(text: &str, word: &str) -> bool {
        let joins = |other: Option<char>| other.is_some_and(|c| c.is_alphanumeric() || c == '_');
        text.match_indices(word).any(|(at, _)| {
            let after = text[at + word.len()..].chars().next();
            !joins(text[..at].chars().next_back()) && (word.ends_with(':') || !joins(after))
        })
    }

    #[test]
    fn http_and_usage_touch_no_socket_clock_thread_database_or_logger() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut sources = Vec::new();
        for folder in ["http", "usage"] {
            sources_under(&root.join(folder), &mut sources);
        }
        assert!(sources.len() > 10, "the folders were found");
        for source in sources {
            let text = fs::read_to_string(&source).expect("readable");
            // What follows is for tests alone, be it the rest of a file or a whole one.
            let code = text.split("[cfg(test)]").next().unwrap_or_default();
            let code: String = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            for word in IMPURE {
                assert!(!has_word(&code, word), "{} mentions {word}", source.display());
            }
        }
    }
}
