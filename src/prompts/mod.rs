//! What requests say word by word, and what two of them have in common. Pure: bytes in, values out.
//!
//! ```text
//!  body ─▶ form ─▶ outline ─▶ comparison ─▶ reason: why the prompt was read anew
//!                     └────▶ session ◀─ head, RequestFacts: which conversation it belongs to
//! ```

pub mod break_excerpts;
pub mod comparison;
pub mod diff;
pub mod form;
mod json_text;
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
