//! Questions and answers about what was recorded.
//!
//! Reads through a connection of its own that cannot write, so that no question waits for a commit. Figures come from
//! packs, whatever the range; rows are read where they are not packed yet, for the parts of an hour at its edges, and to
//! show them. A [`Filter`] goes in, a struct of [`answers`] comes out. What packs came to is kept from one question to
//! the next, in bounded memory, and given back when nobody asks (`tally`, [`mod@latency`]).
//!
//! Ten million rows over a year and 20 models, medians in milliseconds on 2 cores (`benches/statistics.rs`):
//!
//! | question | asked first | asked again | ten thousand rows, first, again |
//! |---|---|---|---|
//! | summary, by-model | 0.06 | 0.01 | 0.04, 0.006 |
//! | summary of the last 30 days | 0.29 | 0.20 | 0.04, 0.006 |
//! | a year of days at +02:00 | 5.3 | 0.36 | 1.1, 0.30 |
//! | 30 days at +05:30, whose edges are rows | 16 | 0.34 | 0.33, 0.05 |
//! | a year of hours | 37 | 5.5 | 12, 7.7 |
//! | latency | 0.19 | 0.07 | 0.13, 0.07 |
//! | latency of the last 30 days | 1.3 | 0.17 | 0.20, 0.08 |
//! | time, of the year or of the last 30 days | 1.2 | 1.1 | 0.15, 0.12 |
//! | `/metrics` | 0.43 | 0.30 | 0.36, 0.29 |
//! | a hundred of 1.5 million conversations | 0.38 | 0.24 | 0.31, 0.22 |
//! | the same of a client, a model and a failure | 2.1 | 1.9 | 0.14, 0.06 |
//! | a conversation of 40 requests as a thread | 0.19 | 0.10 | 0.15, 0.10 |
//! | the summary of one of 8,500 requests | 24 | 24 | 0.15, 0.05 |
//!
//! The first answer after a start or a minute of silence is the slow one. Ranges that begin in the middle of an hour
//! read that hour's rows, a thousand here and one there: a fifth of a millisecond that a small database does not pay.
//! Rows that are not packed yet are read for every answer: 2,048 take a summary 1.0 ms. So many are packed as soon
//! as the keeper looks, a second after a row: what a second brings may come on top.
//!
//! Totals, by name and over time, are in [`totals`]; percentiles in [`mod@latency`]; single requests and pages
//! of them in [`rows`], words in them in [`search`]; all of them, as a stream, in [`export`]. [`conversations`]
//! lists what belongs together; which rows do, `turns` knows. Why prompts were read anew is told by [`prefixes`], and
//! of one prompt
//! by [`breaks`]; where the time went, by [`times`];
//! `cuts` counts prompts that seem to be cut; [`bodies`] gives a request's body back. [`question`] says what a query string means,
//! [`statistics`] is the thread that answers, at the [pace](statistics::rest) that recording bears, and `replies` has
//! the answer of each route, as JSON, as text, as a table (`csv`), compressed (`gzip`) where that is asked for; whose
//! clocks it means, [`zone`] knows. What all of them need lies in [`sources`]; what has no end when it begins is sent as a
//! `local_stream`.
//!
//! For people and programs that want no JSON: [`report`] is one screen of a terminal, [`mod@page`] the page for a
//! browser, [`live`] tells of requests as they end, [`now`] of those that go on, [`line`](mod@line) of both in one line, [`metrics`] is for Prometheus, in
//! the formats of [`exposition`], with what `process` knows.

pub mod answers;
pub mod bodies;
pub mod breaks;
mod chats;
mod columns;
mod condition;
pub mod conversations;
mod csv;
mod cuts;
mod electricity;
pub mod export;
pub mod exposition;
pub mod filter;
mod gzip;
mod kept;
mod kept_latencies;
pub mod latency;
pub mod line;
pub mod live;
mod local_stream;
pub mod metrics;
pub mod now;
pub mod page;
mod page_parts;
pub mod power;
pub mod prefixes;
pub mod price;
mod process;
pub mod question;
mod range;
pub mod reader;
mod replies;
pub mod report;
pub mod rows;
pub mod search;
pub mod sources;
pub mod statistics;
mod tally;
pub mod times;
pub mod totals;
mod turns;
pub mod zone;

pub use answers::*;
pub use filter::Filter;
pub use power::Power;
pub use price::Prices;
pub use reader::{AskError, Reader};
pub use totals::Bucket;
pub use zone::Zone;

#[cfg(test)]
mod tests;
