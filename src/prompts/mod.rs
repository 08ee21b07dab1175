//! What requests say word by word, and what two of them have in common. Pure: bytes in, values out.
//!
//! ```text
//!  body ─▶ form ─▶ outline ─▶ comparison ─▶ reason: why the prompt was read anew
//!                     ├────▶ session ◀─ head, RequestFacts: which conversation it belongs to
//!                     ├────▶ rendering ─▶ diff: as a person reads it, and what changed from one to another
//!                     └────▶ chat_export: as programs that train read it
//! ```
//!
//! How many tokens a prompt may be expected to have, cut tells. What is shown of it to a person (diff, break_excerpts) has no secrets and no invisible characters. Beneath: json_text
//! (JSON as the text that it is), line_diff.

pub mod break_excerpts;
pub mod chat_export;
pub mod comparison;
pub mod cut;
pub mod diff;
pub mod form;
mod json_text;
mod line_diff;
pub mod outline;
pub mod reason;
pub mod rendering;
pub mod secrets;
pub mod session;
mod shown;
pub mod title;

pub use comparison::{Comparison, Relation};
pub use outline::{Element, ElementPart, ElementRole, Outline};
pub use reason::{Circumstances, PrefixBreak};
pub use session::{ConversationSource, ToldConversation};
