//! Questions and answers about what was recorded.
//!
//! Reads through a connection of its own that cannot write, so that no question waits for a commit. All figures come
//! from the sums; rows are read only to show the newest ones. Prompts and outputs are never read.

mod answers;
pub mod lane;
pub mod reader;

pub use answers::{ByModel, ModelSums, Recent, RecentRequest, Summary};
pub use reader::Reader;
