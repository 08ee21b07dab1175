//! A transparent proxy in front of LM Studio that writes one truthful row for every generation.
//!
//! # The way of a request
//!
//! ```text
//!  client ──▶ front (loop thread) ──lend──▶ exchange (worker thread) ──▶ LM Studio
//!                 ▲    parks, reads             │  asks, relays, taps
//!                 └────────give back────────────┤
//!                                               ▼
//!                                           record ──▶ SQLite ◀── stats (read-only lane)
//! ```
//!
//! The front accepts connections and gathers whole requests. It answers what needs no I/O itself, hands the
//! statistics to a lane of their own, and lends every other connection, with its request, to a worker. The worker asks
//! upstream and relays the reply as it comes, while a tap reads a copy. A stream that does nothing but flow is relayed
//! by the loop that has its client meanwhile. Before the last bytes leave for the client, the row is committed, by that
//! worker or with others by whoever is committing already; then the connection is given back. Rows are the truth: packs
//! hold what those up to an id come to, and whoever asks for statistics adds the rest.
//!
//! Connections whose requests are forwarded move to a lane, one or two more loops of the same kind. A lane asks short
//! requests upstream and commits their rows itself, and relays its clients' streams while they flow. Whatever is not plain
//! or not quick goes on with a worker: a worker is for what may block, whatever only waits lies in a lane.
//!
//! # Who owns what
//!
//! | thread | owns | may block on |
//! |---|---|---|
//! | front (one) | the listener, the poll, the parked connections, their deadlines | the poll alone |
//! | lane (two at most, on demand) | the same of connections moved to it, the streams that flow to them, some connections to upstream | its poll, a quick commit; any commit while no thread is free |
//! | worker (elastic) | one lent connection, with one to upstream, or an export's to the database; or all listeners' | upstream, the client's reading, a commit, the database |
//! | statistics (one) | a read-only database connection | the database, a rest while rows are recorded |
//! | keeper (one) | a second database connection, the files beside the database | checkpoints, packing, retries of rows, clean-up |
//! | names (one, while a name is looked up) | nothing: it leaves the addresses for all who wait | the system's resolver |
//! | log (one) | the lines that could not be written at once | the standard error stream, for which nobody else waits |
//!
//! Invariants:
//! - The loop that a connection belongs to is the only reader of its socket, the borrower its only writer.
//! - What an event told of a socket counts until a read has disproved it, whoever has the connection meanwhile: no request
//!   that has come stays unread.
//! - Bytes for the client never depend on what the tap understood, but for the usage events that injection brought.
//! - A reply that a client saw complete has its row. A row that is not in the database yet waits in memory, or from the end
//!   to the next start in a file beside it, and is taken in once.
//! - `http` and `usage` are pure: no socket, clock, thread, database or logger. A test holds them to it.
//!
//! # Modules, in reading order
//!
//! - [`limits`]: every bound, with its reason.
//! - [`settings`]: environment and flags.
//! - [`logging`]: one line a record, ours alone; nobody waits for whoever reads them.
//! - [`proxy`]: the parts put together; the door for `main` and for tests.
//! - [`descriptors`]: as many as are needed.
//! - [`keepalive`]: noticing a peer that vanished.
//! - [`outage`]: what goes wrong again and again is said once, and counted.
//! - [`counters`]: what is counted in memory alone.
//! - [`bell`]: a state under a lock, and who waits for it to change.
//! - [`calendar`]: milliseconds, hours, months, and times as text.
//! - [`mailbox`]: how one thread leaves something for another that polls.
//! - [`slots`]: numbered places for what a loop polls.
//! - [`client`]: what a loop and a borrower share of a client's connection.
//! - [`front`]: the loops and their connections.
//! - [`http`]: the grammar of requests, and of replies (pure).
//! - [`routes`]: what each path is for, one line a route.
//! - [`exchange`]: workers, upstream, relay, what lanes ask themselves, streams that flow.
//! - [`usage`]: what each dialect says about tokens (pure).
//! - [`clock`]: what the clock on the wall can be believed (pure).
//! - [`packs`]: what requests come to, in few bytes (pure).
//! - [`record`]: rows, the schema, the recorder; the lock on the database, and what becomes of its files.
//! - [`stats`]: questions and answers about what was recorded.

pub mod bell;
pub mod calendar;
pub mod client;
pub mod clock;
pub mod counters;
pub mod descriptors;
pub mod exchange;
pub mod front;
pub mod http;
pub mod keepalive;
pub mod limits;
pub mod logging;
pub mod mailbox;
pub mod outage;
pub mod packs;
pub mod proxy;
pub mod record;
pub mod routes;
pub mod settings;
pub mod slots;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod usage;
