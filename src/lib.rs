//! A transparent proxy in front of LM Studio that writes one truthful row for every generation.
//!
//! Two sentences carry the design. **A worker is for what may block; whatever only waits lies in a lane. Rows are the
//! truth; packs hold them up to an id; whoever asks adds the rest.**
//!
//! The first has two exceptions, which take a worker although they only wait: the wait for a head, be it for a model
//! that loads, since it is ureq that waits there; and the one behind a terminal event, since the end is near.
//!
//! # The three ways of a request
//!
//! ```text
//!  client ──▶ front ──▶ 1. answered here: refusals, /health, the page; figures, by the statistics thread
//!               │
//!               └─ moves ─▶ lane ──▶ 2. asked in the lane: a short request, on an idle connection to upstream
//!                 its client  │ ▲
//!                             │ └─ a stream that only flows ─┐
//!                             └─ lends ─▶ worker ────────────┴──▶ 3. asked by a worker: whatever may block
//! ```
//!
//! The accepting loop ([`front`]) judges each request by its head: who answers it, by which dialect its reply tells
//! counts, whether it gets a row. When the request is whole, it is decided whether it is short or may stream. With the
//! first GET or POST that is forwarded a connection moves to a lane, a loop of the same kind, and stays there. Requests
//! of other methods move none, nor does a short one that is its connection's last or goes to upstream by TLS: workers
//! answer those, and their replies in chunks flow in the accepting loop. With `UPSTREAM_IDLE_TIMEOUT_S`, or where a
//! foreign socket cannot be polled, there are no lanes: streams stay with their workers, and WebSockets lie in the
//! accepting loop.
//!
//! **The life of a short request.** Its lane sends it on a connection to upstream that is there already; the whole
//! reply comes as one event; its row is committed with those of the same turn, and the reply leaves. Where no
//! connection is there, or the reply is not plain or not whole, a worker goes on from where the lane stands: the rules
//! of relaying are written once.
//!
//! **The life of a stream.** Its client's loop lends the connection, with the request, to a worker. The worker finds
//! or makes a connection to upstream, sends the request, waits for the head and relays what comes with it, while a
//! tap reads a copy. When upstream has no more for now, the worker leaves the exchange with the loop it came from,
//! where it is a state of its client's connection (`Flowing`): each event from upstream is relayed there. Whatever
//! may block goes to a worker again: a client that reads too slowly, the terminal event, whose row is committed
//! before it leaves, and the end. A client that leaves is seen by the same loop, which shuts upstream's socket on the
//! spot; a worker writes the row.
//!
//! **The life of a WebSocket.** Its handshake goes the way of a stream: a worker asks, and upstream's 101 makes both
//! connections a tunnel, one more state of the client's connection (`Tunnelled`). Its loop passes on what either side
//! sends while a reader of both directions follows the generations in it. The last byte of a message that ends one is
//! held: a worker commits the row and brings the tunnel back.
//!
//! **The life of a count.** The tap reads it ([`usage`]); the end of the exchange puts it into a row; the recorder
//! commits that row, with those of others that end at the same time, before the reply's last bytes leave
//! ([`record`]). The keeper folds rows behind the id `packed_until` into packs of their hour, day, month and of all
//! time. A question adds up packs and the rows behind that id in one read transaction ([`stats`]), and is exact at
//! every moment.
//!
//! # Threads
//!
//! | thread | owns | may block on |
//! |---|---|---|
//! | front (`main`, one) | the listener, connections in no lane, their deadlines | its poll; a rest ¹ |
//! | lane (two at most, on demand) | connections moved to it, their streams and WebSockets, idle ones to upstream | its poll; a rest ¹; a commit ² |
//! | worker (elastic) | a lent exchange while something blocks, an export, or live listeners | a dial, a head, a slow client, a commit |
//! | names (one, while a name is looked up) | nothing: it leaves the addresses for all who wait | the resolver |
//! | probe (one, at the start) | nothing: it asks once whether LM Studio answers | a dial, a head |
//! | statistics (one) | a reading connection | the database; a rest between answers while rows come |
//! | keeper (one) | a connection of its own, the files beside the database | checkpoints, packing, retries, clean-up |
//! | log (one) | the lines that could not be written at once | the standard error stream, for which nobody else waits |
//! | demo (some, with `--demo`) | what is made up before and behind the proxy | all that clients and servers do |
//! | signals (one, ctrlc's) | nothing: it tells the loops to stop, and ends the process when told again | the next signal |
//!
//! ¹ 50 us, while events of streams come faster than any model sends them. ² A quick one; where no worker is free to
//! take over, also one that waits up to 250 ms for a database that is locked.
//!
//! Whoever commits, a lane or a worker, commits what others have brought meanwhile, too. The last bytes of those
//! replies leave by another worker while it goes on committing, and by itself behind its last transaction.
//!
//! # Invariants
//!
//! - The loop that a connection belongs to is the only reader of its socket. Its only writer is whoever holds the loan,
//!   else the loop.
//! - What an event told of a socket counts until a read has disproved it, whoever has the connection meanwhile: no
//!   request that has come stays unread.
//! - Bytes for the client never depend on what the tap understood, with two exceptions: the usage events that injection
//!   brought are taken out, and a reply that only a close ends is ended as whole or cut by whether its stream told that
//!   it was over. When they leave does: a terminal event, or the message of a WebSocket that ends a generation, waits
//!   for its row.
//! - A reply that a client saw complete has its row. A row that is not in the database yet waits in memory, or from
//!   the end to the next start in a file beside it, and is taken in once.
//! - Packs hold every row up to `packed_until` once and none behind it; both change in one transaction.
//! - What others see of an exchange while it goes on ([`in_flight`]) decides nothing but whether it ends by itself or is
//!   called off: once, before its row is written. Its loop ends what was called off, as where a client leaves.
//! - Imports run downwards, without circles, and `http`, `usage`, `packs` and `prompts` are pure: no socket, clock,
//!   thread, database or logger. `tests/tidy.rs` holds the source to it.
//!
//! # Fifteen words
//!
//! | word | meaning |
//! |---|---|
//! | loop | a thread with a poll that waits for hardly anything else (see threads): the accepting one, the lanes |
//! | lane | a loop that connections move to when their requests are forwarded |
//! | worker | a thread of the pool, with one job at a time that may block |
//! | loan | the right to write to a client's connection, in the hands of a worker or the statistics (the borrower); dropped, it cuts that |
//! | exchange | one forwarded request and its reply, from the loan to the row |
//! | upstream | LM Studio, or what stands in its place |
//! | wire | the socket to upstream under a ureq agent, which a loop can interrupt |
//! | relay | the machine that carries one reply's bytes to the client |
//! | tap | what reads a copy of the reply for its counts |
//! | dialect | the form in which a family of routes tells counts: chat, responses, messages … |
//! | tail | the last bytes of a reply, kept back until its row is committed |
//! | row | what one generation came to: the truth |
//! | series | rows of one endpoint, model, client, key and outcome; of too many, packs call names `other`, rows do not |
//! | pack | what the rows of a span come to, by series, in few bytes |
//! | tunnel | a WebSocket: bytes in both directions, for as long as either side likes |
//!
//! # Modules, from the ground up
//!
//! - [`calendar`]: milliseconds, hours, months, and times as text. [`limits`]: bounds, each with its reason. [`clock`]:
//!   how far the clock on the wall can be believed.
//! - [`bell`]: a state under a lock, and who waits for it to change. [`mailbox`]: how one thread leaves something for
//!   another that polls. [`slots`]: numbered places for what a loop polls. [`outage`]:
//!   what goes wrong again and again, said once and counted. [`looks`]: characters that have none. [`nearest`]: names that
//!   were probably meant. [`order`]: lists in order. [`keepalive`], [`logging`].
//! - [`settings`]: environment and flags.
//! - [`http`]: the grammar of requests, replies and WebSockets (pure).
//! - [`usage`]: what each dialect says about tokens (pure).
//! - [`routes`]: what each path is for, one line a route. [`counters`]: what is counted in memory alone.
//!   [`models`], [`reach`]: which models upstream has loaded, and whether it can be reached, as far as what passes has
//!   told.
//! - [`client`]: what a loop and a borrower share of a client's connection.
//! - [`in_flight`]: what goes on now, for who looks.
//! - [`packs`]: what requests come to, in few bytes (pure).
//! - [`prompts`]: what requests say, what two of them have in common, which conversations they make (pure).
//! - [`record`]: rows, the schema, prompts in pieces, the recorder; the lock on the database, and what becomes of its files.
//! - [`exchange`]: workers, upstream, relay, what lanes ask themselves, streams that flow, tunnels.
//! - [`stats`]: questions and answers about what was recorded.
//! - [`front`]: the loops and their connections.
//! - [`descriptors`], [`proxy`]: the parts put together; the door for `main` and for tests. [`greeting`]: the first lines
//!   of the log. [`demo`]: what stands before and behind the proxy where there is no LM Studio to be had.

pub mod bell;
pub mod calendar;
pub mod client;
pub mod clock;
pub mod counters;
pub mod demo;
pub mod descriptors;
pub mod exchange;
pub mod front;
pub mod greeting;
pub mod http;
pub mod in_flight;
pub mod keepalive;
pub mod limits;
pub mod logging;
pub mod looks;
pub mod mailbox;
pub mod models;
pub mod nearest;
pub mod order;
pub mod outage;
pub mod packs;
pub mod prompts;
pub mod proxy;
pub mod reach;
pub mod record;
pub mod routes;
pub mod settings;
pub mod slots;
pub mod stats;
#[cfg(test)]
mod testing;
pub mod usage;
