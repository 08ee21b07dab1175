//! Questions and answers about what was recorded.
//!
//! Reads through a connection of its own that cannot write, so that no question waits for a commit. Figures come from
//! the sums, packed for quick reading, whatever the range; rows are read for the parts of an hour at its edges, and to
//! show them. A [`Filter`] goes in, a struct of [`answers`] comes out.
//!
//! Totals, by name and over time, are in [`totals`]; percentiles in [`mod@latency`]; single requests, pages of them and
//! words in them in [`rows`]; all of them, as a stream, in [`export`]. [`question`] says what a query string means, and
//! [`lane`] is the thread that answers, at the [`pace`]
//! that recording bears.
//!
//! For people and programs that want no JSON: [`report`] is one screen of a terminal, [`mod@page`] the page for a
//! browser, [`live`] tells of requests as they end, [`metrics`] is for Prometheus.

pub mod answers;
pub mod export;
pub mod filter;
pub mod lane;
pub mod latency;
pub mod live;
pub mod metrics;
pub mod pace;
pub mod page;
pub mod price;
pub mod question;
mod range;
pub mod reader;
pub mod report;
pub mod rows;
mod tally;
pub mod totals;

pub use answers::*;
pub use filter::{Filter, Zone};
pub use price::Prices;
pub use reader::{AskError, Reader};
pub use totals::Bucket;

#[cfg(test)]
mod tests;
