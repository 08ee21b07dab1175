//! Rows, the schema they are kept in, and the recorder that commits them before a reply's last bytes leave.
//!
//! ```text
//!  row, tail ──▶ recorder ──▶ writer ──▶ store ──▶ table ──▶ requests, content ──packing──▶ packs by series
//!               (who commits)  (what waits)
//!  keeper ──▶ checkpoints, rows that wait, packing, clean
//! ```
//!
//! A [`row`] is what is known when an exchange ends; the [`table`] has its columns. [`packing`] folds rows into packs by
//! [`series`], `times` tells where that of an hour went, `hours` when it is over, [`clean`] removes what is too old or too much, [`prompts`] are kept
//! in pieces, each of them once, `meta` has how far each has come. The recorder and the
//! [`keeper`] tell each other by [`signals`].
//!
//! A database is held by a [`lock`] beside it and opened by [`open`], which makes its [`schema`] or has the [`upgrade`] or
//! [`former`] do so (`extras`: what others have added to a table goes on). What becomes of its files is watched by its
//! [`database_file`]; where they are gone, [`reopen`] saves what it can and opens it anew, when the process's other
//! [`connections`] are closed. The less [`room`] there is on the disk, the earlier its log ([`wal`]) is moved. What it does
//! not take before the end goes into a file beside it ([`unsaved`]).

pub mod clean;
pub mod connections;
mod conversations;
pub mod database_file;
mod extras;
mod former;
mod hours;
pub mod keeper;
mod lineage;
pub mod lock;
mod meta;
pub mod open;
pub mod packing;
pub mod prompts;
pub mod recorder;
mod reopen;
mod room;
pub mod row;
pub mod schema;
pub mod series;
pub mod signals;
pub mod store;
pub(crate) mod table;
pub(crate) mod times;
pub mod unsaved;
pub mod upgrade;
mod wal;
mod writer;
