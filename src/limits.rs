//! Bounds of the proxy, each with its reason: most of them, and all that more than one file knows. Units stand last in
//! the name.
//!
//! What only makes sense beside the code that keeps to it, such as the size of a buffer, of a turn or of a rest, stands
//! at the top of its file (`front/lanes.rs`, `exchange/flow.rs`, `record/keeper.rs`, `stats/live.rs` and others).
//! What a user may want to change is a setting (see [`crate::settings`]); what only an attacker would want to change
//! stands here.

use std::time::Duration;

use crate::calendar::{DAY_MS, HOUR_MS};

// ---- what one request may be -------------------------------------------------------------------------------------

/// Longest method. The longest registered one is UPDATEREDIRECTREF, 17 bytes; RFC 9112 §3 asks for 501 beyond.
pub const METHOD_BYTES_MAX: usize = 32;
/// Longest request target. RFC 9112 §3 asks for 8000 octets at least; nginx stops at 8 KiB by default.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;
/// Largest request head, request line included. nginx: 4 × 8 KiB; Node: 16 KiB. Long bearer tokens fit.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields in a head or a trailer section. Apache httpd and ureq stop at 100, HAProxy at 101.
pub const FIELDS_MAX: usize = 100;
/// Longest line of a chunk size with its extensions. RFC 9112 §7.1.1 asks for a limit; hyper takes 16 KiB.
pub const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of chunk extensions in one body: they carry nothing, and cost what they take to read. Go's net/http
/// allows 16 KiB of overhead (CVE-2023-39326).
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 16 * 1024;
/// Largest trailer section, read and dropped.
pub const TRAILER_BYTES_MAX: usize = 16 * 1024;

// ---- what a client may do slowly ---------------------------------------------------------------------------------

/// Whole head, from its first byte. Node: 60 s; Apache's mod_reqtimeout: 20–40 s.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Silence between two reads of a body. nginx `client_body_timeout`: 60 s.
pub const BODY_GAP_MAX: Duration = Duration::from_secs(30);
/// An idle kept-alive connection. nginx `keepalive_timeout`: 75 s; longer than the pools of usual clients keep theirs.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(75);
/// A client that takes no byte of its reply. nginx `send_timeout`: 60 s.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// After an error reply: how long the client may go on sending before the connection is dropped. nginx
/// `lingering_time` is 30 s, `lingering_timeout` 5 s.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(5);
/// After an error reply: how much the client may go on sending.
pub const LINGER_BYTES_MAX: usize = 64 * 1024 * 1024;

// ---- who vanished ------------------------------------------------------------------------------------------------

/// Silence on a connection after which its peer is asked whether it is still there. Linux waits for two hours by
/// default, Go for 15 s, nginx and HAProxy as the system does. Phones and laptops that sleep are not woken by one
/// packet a minute.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How long after a question without an answer it is asked again. Redis: a third of its idle time; a Wi-Fi that changes
/// its channel is away for less.
pub const KEEPALIVE_GAP: Duration = Duration::from_secs(10);
/// So many questions without an answer, and the peer is taken for gone: two minutes in all. A machine that restarts its
/// network is back by then. Linux asks nine times by default.
pub const KEEPALIVE_PROBES: u32 = 6;
/// The same for what was sent and not acknowledged: as long as all questions together.
pub const UNACKNOWLEDGED_TIME_MAX: Duration = Duration::from_secs(120);

/// How long upstream is read on for a client that left with its whole answer: what is still to come are counts, which
/// servers send in the same breath. Nobody generates meanwhile. Of a WebSocket: how long generations may go on for a
/// client that has ended its side, which upstream was told at once.
pub const COUNTS_TIME_MAX: Duration = Duration::from_secs(1);

// ---- how much at once --------------------------------------------------------------------------------------------

/// Connections that the system keeps until they are accepted; it may allow less (Linux: `somaxconn`, 4096). Node and
/// nginx take 511, Go as many as the system allows. A thousand streams begun at once fit.
pub const LISTEN_QUEUE_LENGTH_MAX: i32 = 4096;
/// Connections held at once. 10,000 idle ones take a few megabytes; beyond, accepting waits.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Files and connections beside those of clients and upstream: the database and its readers, polls, exports, the log.
pub const DESCRIPTORS_OF_OURS: usize = 256;
/// Requests that may wait for one of `MAX_WORKERS` to end. Beyond, the answer is 503: a queue longer than this only
/// hides an outage.
pub const QUEUE_LENGTH_MAX: usize = 1024;
/// Bodies of the largest size that all requests together may hold in memory (1 GiB with the default of `MAX_BODY_MB`):
/// those being gathered, those in the queue and those being sent on, and then, until their rows are made, what the
/// prompts of those have that no earlier one has. nginx writes larger ones than 16 KiB to disk.
pub const BODIES_MAX: u64 = 4;
/// When a client that was refused for that may well try again.
pub const OVERLOADED_RETRY_S: u32 = 1;
/// Statistics questions that may wait for their turn. Each takes milliseconds.
pub const QUESTIONS_QUEUED_MAX: usize = 256;
/// While rows are recorded, the statistics thread rests so many times as long as an answer took: it has a twentieth of
/// a processor then.
pub const ANSWER_REST_FACTOR: u32 = 20;
/// Shortest of these rests: the front and the client have work with each answer, too.
pub const ANSWER_REST_MIN: Duration = Duration::from_millis(5);
/// Longest one, for the next question waits for it: local routes promise an answer within 250 ms.
pub const ANSWER_REST_MAX: Duration = Duration::from_millis(100);
/// The rest behind an answer that tells what goes on, which people and pages ask for in a loop: twenty a second are more
/// than anybody sees. With 190 a second 100 streams took 1.3 times the processor time, 25 us an event instead of 19.
pub const NOW_REST: Duration = Duration::from_millis(50);
/// Workers kept when idle; the others leave after [`WORKER_IDLE_TIME_MAX`].
pub const WORKERS_KEPT: usize = 4;
/// An idle worker beyond the kept few ends after this. Long enough to bridge the gaps of a chat.
pub const WORKER_IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// Stack of a worker. A TLS handshake is the deepest call; only touched pages cost memory.
pub const WORKER_STACK_BYTES: usize = 256 * 1024;

/// A request up to this size, with its head, fits in what the system buffers for a connection (Linux: `tcp_wmem`):
/// sending it waits for nobody. Lanes leave larger ones to workers.
pub const SENT_AT_ONCE_BYTES_MAX: usize = 16 * 1024;
/// Most rows in one transaction, so that its replies do not wait for too long.
pub const BATCH_ROWS_MAX: usize = 256;
/// Most bytes of them where rows have waited and nobody waits any more: where there is little room, a transaction that
/// is small still fits.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// A commit that took longer was no quick one: the next is a worker's, until they are quick again. Fifty times what it
/// takes alone; the lane's other clients wait as long.
pub const QUICK_COMMIT_TIME_MAX: Duration = Duration::from_millis(3);

/// How long a lane in which no stream flows looks for events before it sleeps, while they come as soon as that. A reply
/// over loopback takes some 25 us; waking up takes as long again. See `front/busy_poll.rs`.
pub const LOOK_TIME_MAX: Duration = Duration::from_micros(40);

/// Exchanges that `/stats/now` tells one by one. A person reads the first dozens; a program that has more in flight
/// wants sums.
pub const NOW_SHOWN_MAX: usize = 1000;
/// Listeners of `/stats/live`. They are people at a terminal or a page; beyond, the answer is 503.
pub const LISTENERS_MAX: usize = 64;
/// Events that wait for a listener who reads slowly. Some hundreds of requests; beyond, the listener is cut off.
pub const LISTENER_BYTES_MAX: usize = 256 * 1024;
/// When a client that was refused for that may well try again.
pub const LISTENER_RETRY_S: u32 = 30;

// ---- upstream ----------------------------------------------------------------------------------------------------

/// How long after the start LM Studio is asked whether it answers: clients that wait for the proxy have asked by then.
pub const UPSTREAM_CHECK_REST: Duration = Duration::from_millis(1500);
/// An idle upstream connection is reused only below this age. Node closes its own after 5 s (`keepAliveTimeout`).
pub const UPSTREAM_IDLE_TIME_MAX: Duration = Duration::from_secs(4);
/// Exchanges that are on their way to a connection to upstream at a time, up to where they begin one; further ones wait
/// without a thread. That way takes no waiting until [`DIALS_MAX`] are begun, and more would only wait with a thread then:
/// so many keep the processors of a large machine busy.
pub const CONNECTING_MAX: usize = 8;
/// How long a connection to upstream has to stay open behind a stream before it is used again. llama.cpp's server
/// closes within some 0.1 ms; on a busy machine it may have to wait for its turn in between, which takes a few
/// milliseconds. Making a connection takes 0.1 ms.
pub const UPSTREAM_QUIET_TIME_MIN: Duration = Duration::from_millis(10);
/// The same where so many of them in a row have stayed open: [`UPSTREAM_STREAM_PROOFS`]. Eight agents whose requests come
/// without a pause had nine of ten connections made anew with 10 ms: 2080 requests a second, and 2490 with none anew.
pub const UPSTREAM_TRUSTED_TIME_MIN: Duration = Duration::from_millis(1);
/// Of servers that close one connection of twenty behind a stream, one in 500,000 would pass.
pub const UPSTREAM_STREAM_PROOFS: u32 = 256;
/// The same behind any reply of an upstream that has closed one unannounced: its closes may come late, when its machine
/// is busy, and 10 ms were too few for one of 500 then.
pub const UPSTREAM_DOUBTED_TIME_MIN: Duration = Duration::from_millis(100);
/// So many connections in a row must be found open when they are used again, until an upstream is trusted after a
/// close: more than servers that close after a number of requests serve on one (nginx 1000, cpp-httplib and Apache
/// httpd 100).
pub const UPSTREAM_PROOFS: u32 = 1024;
/// Idle connections that have to prove that they stay open, in each of two places. Servers that have a thread for each
/// connection have few (cpp-httplib, llama.cpp's: eight), and one that is kept and not used takes one from everybody.
pub const UPSTREAM_UNPROVEN_MAX: usize = 2;
/// Largest head of a reply. ureq's default; curl stops at 300 KB, nginx at 4–8 KiB.
pub const REPLY_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest line of a reply's chunk size with its extensions, which are skipped. hyper takes 16 KiB. Trailers have the
/// bounds of those of requests.
pub const REPLY_CHUNK_LINE_BYTES_MAX: usize = 16 * 1024;
/// Largest interim replies (1xx) before one reply, all together. Go's net/http counts them as parts of the head; a
/// server that says 102 every few seconds of a long silence needs 30 bytes each time.
pub const INTERIM_BYTES_MAX: usize = 1024 * 1024;
/// How long a resolved name is used before it is looked up again.
pub const RESOLVED_TIME_MAX: Duration = Duration::from_secs(30);
/// How long its addresses may still be used where looking up fails or takes long. RFC 8767 allows days; home routers
/// give addresses for a day or less, and an hour is longer than a name server is usually away.
pub const RESOLVED_STALE_TIME_MAX: Duration = Duration::from_secs(3600);
/// So long a look-up is waited for where such addresses are at hand. RFC 8767 suggests 1.8 s.
pub const RESOLVE_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a failure is remembered: long enough for all who ask at once, too short to be in anybody's way.
pub const RESOLVE_FAILED_TIME_MAX: Duration = Duration::from_secs(1);
/// Connections to upstream that are being made at a time, or that it has said nothing on yet. Queues of connections not
/// accepted yet hold 128 in most systems and servers (BSD's `SOMAXCONN`, Go and Rust there; Node 511, nginx 511).
pub const DIALS_MAX: usize = 64;
/// After so long a connection is not counted among them any more. On one machine or in one house making it takes a
/// fraction of a millisecond, and accepting it a few. 1024 at once wait for 160 ms at most, where upstream answers
/// nothing.
pub const DIAL_TIME_MAX: Duration = Duration::from_millis(10);

/// Models of which is remembered whether their servers tell counts unasked. A household has some dozens.
pub const UNASKED_MODELS_MAX: usize = 64;

/// Longest reply to a question about models that is read for what is loaded. An entry of LM Studio's native list has some
/// 900 bytes: some three hundred models.
pub const LISTING_BYTES_MAX: usize = 256 * 1024;
/// Models of one such reply, and those that were seen loaded and are remembered. A household has some dozens.
pub const MODELS_LISTED_MAX: usize = 256;

/// WebSockets open at once. One of LM Studio's clients keeps two to five, for as long as it runs: a household, or a
/// hundred clients. Each takes two connections of the system's and some kilobytes of its memory.
pub const SOCKETS_MAX: usize = 1024;

/// A WebSocket that one side has ended and on which the other side says nothing more, before it is closed: one whose
/// upstream forgets to close it must not count for ever. HAProxy's manual closes half-closed tunnels after 30 s or less
/// (`timeout client-fin`), nginx at once.
pub const HALF_CLOSED_TIME_MAX: Duration = Duration::from_secs(60);

// ---- what is read of a request -----------------------------------------------------------------------------------

/// Longest model or user name kept of a request; the rest is cut off. File systems and Hugging Face stay below 256.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest label made of a User-Agent. Product tokens in use are shorter than half of it.
pub const CLIENT_LABEL_BYTES_MAX: usize = 64;

// ---- what is read of a reply -------------------------------------------------------------------------------------

/// Longest partial line held back while it may still be the usage event that injection brought.
pub const HOLD_BYTES_MAX: usize = 16 * 1024;

// ---- what is read of a WebSocket ----------------------------------------------------------------------------------

/// What may be open on one WebSocket at a time and still be recorded. A person's programs keep a few predictions going,
/// but `embed()` of the TypeScript SDK asks for all texts of a list at once, with a call for each.
pub const SOCKET_OPEN_MAX: usize = 10_000;
/// What these say may take so much memory: 20 prompts of 250 KB. Beyond, the words go of those that go on saying some,
/// and their figures stay. There may be [`SOCKETS_MAX`] of it: 5 GB if each was filled, as much as a small model; 64 MB
/// each would come to 64 GB.
pub const SOCKET_WORDS_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Longest prompt or output kept of a generation on a WebSocket, each, whatever `CONTENT_KB_MAX` allows: so the prompt,
/// output, reasoning and tool calls of one fit into the bound above.
pub const SOCKET_CONTENT_BYTES_MAX: usize = SOCKET_WORDS_BYTES_MAX / 5;
/// Models of a WebSocket whose names are remembered, and that one message may tell. A household has some dozens.
pub const SOCKET_MODELS_MAX: usize = 256;

// ---- recording ---------------------------------------------------------------------------------------------------

/// Shortest prompt that is stored in pieces. What a person writes to a model is shorter, and stored as it is: a row alone
/// costs 15 us, and each piece as much again where nothing is known of it.
pub const PIECED_BYTES_MIN: usize = 8 * 1024;
/// Shortest piece of a prompt, but for the last: each takes some 60 bytes beside its text, and six in every later prompt
/// that says it again. An agent's message has some kilobytes.
pub const PIECE_BYTES_MIN: usize = 256;
/// No piece is shorter than this part of what stands before it, so that they are not without number: a prompt of 16 MB
/// has some 5,000 at most.
pub const PIECE_PART_MIN: usize = 1024;
/// The last prompts, kept in memory to compare the next ones with, what several of them say once: those of some ten
/// agents, of 370 KB each.
pub const PROMPTS_KNOWN_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Longest text kept of each kind of words of a reply, whatever `CONTENT_KB_MAX` says: 130,000 tokens, more than models
/// answer with. Every stream in flight may have as much in memory, and once more while its row is written.
pub const REPLY_WORDS_BYTES_MAX: usize = 512 * 1024;
/// Where no words are kept, those of a longer prompt are not looked at to tell what it shares with others: as long as those
/// that are kept by default.
pub const UNKEPT_PROMPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What the last prompts consist of, kept in memory to tell what the next ones share with them: so many prompts, those of
/// some agents and what people ask in between.
pub const OUTLINES_KNOWN_MAX: usize = 128;
/// And so many bytes, at 16 each element: 128 conversations of 500 messages.
pub const OUTLINES_KNOWN_BYTES_MAX: usize = 1024 * 1024;
/// Conversations that a request can be found to go on with, by how their messages end or by the id of their last reply: at
/// a hundred bytes each.
pub const CONVERSATIONS_KNOWN_MAX: usize = 4096;
/// Models of which is known how fast they read, and whether their replies tell of a cache.
pub const MODELS_KNOWN_MAX: usize = 256;
/// Rows behind what is packed, at which the keeper packs them. A question reads them one by one, at 0.4 us each.
pub const PACKED_ROWS_MIN: u64 = 2048;
/// Rows packed in one transaction: a few hundredths of a second of reading beforehand.
pub const PACKED_AT_ONCE_MAX: usize = 16 * 1024;
/// Hours and series that these rows belong to: each takes some kilobytes while they are read.
pub const PACKED_GROUPS_MAX: usize = 1024;
/// A shorter prompt is not judged for whether upstream has cut it: contexts hold 2,048 tokens at least, and what a template
/// puts around it counts for more.
pub const PROMPT_JUDGED_BYTES_MIN: u64 = 8 * 1024;
/// Exchanges of an hour whose time is shared exactly to the millisecond: five a second. They take a megabyte while that is
/// done; where there are more, moments are of ten milliseconds.
pub const SHARED_EXACTLY_MAX: usize = 20_000;
/// Only so much of an exchange counts as time: a week, which is longer than any model generates.
pub const TIMED_MS_MAX: i64 = 7 * DAY_MS;
/// Hours that a question about time reads rows of, beside those at the edges of its range, the newest first. It is the hour
/// that goes on and the one before, but for clocks that were wrong and the minutes behind an upgrade.
pub const TIMED_HOURS_READ_MAX: usize = 64;
/// How long one attempt to commit may wait for a database that another process has locked. The reply waits for it.
pub const COMMIT_WAIT_MAX: Duration = Duration::from_millis(250);
/// A database that is locked for longer without a break is opened anew: the lock may be one of this process that could
/// not be released. Other programs hold theirs for moments, and one that does not is only asked again.
pub const LOCKED_TIME_MAX: Duration = Duration::from_secs(3);
/// How long who opens a database anew waits for answers, exports and clean-up to let go of it; they take moments.
pub const CLOSE_WAIT_MAX: Duration = Duration::from_millis(100);
/// What was said in rows that wait in memory for a database that does not take them. 267 prompts of 250 KB; beyond,
/// the oldest is dropped, and the figures of its row stay.
pub const WAITING_CONTENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// These rows without what was said: the figures of more than 200,000 requests, a day of two or three a second.
pub const WAITING_ROWS_BYTES_MAX: usize = 160 * 1024 * 1024;
/// Growth of the write-ahead log after which the keeper checkpoints it. SQLite's own default is 4 MB; with a thread of
/// its own, rarer and larger is cheaper: pages written many times are moved once.
pub const WAL_CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;
/// The same where there is next to no room on the disk: some twenty commits.
pub const WAL_CHECKPOINT_BYTES_MIN: u64 = 256 * 1024;
/// Less room than this on the database's disk is little: a few of the largest logs.
pub const LITTLE_ROOM_BYTES: u64 = 256 * 1024 * 1024;
/// Room kept there for rows that the database does not take before the end: the figures of some 2,500 requests,
/// half as many again as were lost when a disk of a few megabytes was full.
pub const RESERVE_BYTES_MAX: u64 = 1024 * 1024;
/// The part of the room that the reserve takes where that is less: a quarter, so that the database has most of it.
pub const RESERVE_PART: u64 = 4;
/// Longest line of a file of such rows: what may wait, with every character escaped.
pub const UNSAVED_LINE_BYTES_MAX: u64 = 6 * WAITING_CONTENT_BYTES_MAX as u64 + 1024 * 1024;
/// Size at which the keeper holds commits up for a moment, so that the log begins anew.
pub const WAL_QUIET_BYTES: u64 = 48 * 1024 * 1024;
/// Size of the write-ahead log at which a commit checkpoints it itself.
pub const WAL_BYTES_MAX: u64 = 96 * 1024 * 1024;

/// Most rows that one step of clean-up removes. Rows stand side by side: 256 are some 20 pages.
///
/// The steps' sizes keep commits from waiting for more than 50 ms. Measured with contents of 256 KB, 512 MB in all, and
/// commits going on (2 busy cores, ext4): such a step holds the writer for 0.16 ms (median), 1.4 ms (p99), 5 ms when
/// the file must be read from disk first; one that gives pages back for 0.2 ms and 0.8 ms. Rarely, one in a thousand,
/// it meets a stall of the disk as any commit does.
pub const CLEAN_ROWS_MAX: usize = 256;
/// Most content that one step of clean-up removes, unless a single row holds more. Freeing a text walks through its
/// pages.
pub const CLEAN_BYTES_MAX: i64 = 1024 * 1024;
/// Most pages that one step of clean-up gives back to the file system.
pub const CLEAN_PAGES_MAX: i64 = 64;
/// Free space that clean-up leaves in the file while requests come: they fill it again. Twice what they write between
/// two looks of the keeper.
pub const CLEAN_SPARE_BYTES: u64 = 2 * WAL_CHECKPOINT_BYTES;

/// A clock that is further on than this since it was last believed may be wrong. A long weekend without the proxy; a
/// wrong clock within it removes what would have gone in four days.
pub const CLOCK_LEAP_MS_MAX: i64 = 4 * DAY_MS;
/// How long a clock that has leapt must go on before anything is removed by it. NTP sets a clock right within minutes
/// of finding a network, a person on the day on which certificates turn out to be expired.
pub const CLOCK_AGREES_MS: i64 = DAY_MS;
/// Most that counts of the time between two looks at it: what nobody was there to see is no agreement.
pub const CLOCK_STEP_MS_MAX: i64 = HOUR_MS;

// ---- the log ------------------------------------------------------------------------------------------------------

/// Lines that wait for a standard error stream that does not take them. Some ten thousand; at full load, a fifth of a
/// second. Beyond, lines are lost, for requests must not wait. Docker's non-blocking log driver: 1 MB, too. As many
/// again may be in the hands of the thread that writes.
pub const LOG_WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Lines written at once. POSIX keeps writes to a pipe together up to `PIPE_BUF`, 4 KiB on Linux.
pub const LOG_PIECE_BYTES_MAX: usize = 4096;
/// How long lines gather after a write. A busy proxy logs tens of thousands a second; nobody reads faster than this.
pub const LOG_REST: Duration = Duration::from_millis(5);
/// How long the end of the process waits for lines to be written. Whoever reads takes them in a hundredth of that.
pub const LOG_DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
/// Stack of the thread that writes the log: it calls `write` and little else.
pub const LOG_STACK_BYTES: usize = 64 * 1024;

/// How often the log says again that something goes wrong with every request. Alerts repeat in minutes, too.
pub const OUTAGE_SAID_EVERY: Duration = Duration::from_secs(60);
/// How long nothing must have gone wrong until the log says that it is over. Clients try again after seconds.
pub const OUTAGE_QUIET_TIME: Duration = Duration::from_secs(10);
/// Two signals to stop that come within this are one: `timeout` of GNU sends its own to the process and to its group,
/// and a terminal's Ctrl-C goes to the group and may be passed on by a parent.
pub const SAME_SIGNAL_TIME_MAX: Duration = Duration::from_millis(500);

/// How long an end that shall be at once waits for rows to be kept that the database has not taken. Hundreds of
/// thousands are written in that time; a disk that takes longer may not answer at all.
pub const AT_ONCE_TIME_MAX: Duration = Duration::from_secs(1);

// ---- starting ----------------------------------------------------------------------------------------------------

/// Links that are followed to a database, one to the next. Linux follows 40.
pub const LINKS_MAX: usize = 40;
/// What is read of a lock file: a process and an address fit in it twice.
pub const LOCK_FILE_BYTES_MAX: u64 = 128;
/// Largest `.env` that is read. Real ones hold a few lines; a link to something endless must not fill the memory.
pub const ENV_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Largest file of `UPSTREAM_CA` that is read. All certificates of the web together take 220 KB as PEM.
pub const CA_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long LM Studio may be silent when it is asked at the start whether it answers.
pub const PROBE_SILENCE_MAX: Duration = Duration::from_secs(10);
/// Largest count of tokens or milliseconds that one exchange can honestly have. More is nonsense and stored as
/// unknown; nine million rows of this size still add up within 64 bits.
pub const FIGURE_MAX: u64 = 1_000_000_000_000;
/// Words of one error that are put together from several: what Pydantic refuses in one request it tells field by field,
/// some hundred bytes each. The walker gives each of them no more than a kilobyte.
pub const ERROR_WORDS_BYTES_MAX: usize = 8 * 1024;
/// Fastest stream whose speed is believed where it was seen rather than told, in tokens a second. The fastest that is
/// sold (wafers of 2026) makes some 3000; above it somebody has gathered the events and handed them on.
pub const TOKENS_PER_SECOND_SEEN_MAX: f64 = 4_000.0;
/// A speed told by upstream is believed below this: llama.cpp tells a million for the one token that took no time.
pub const TOKENS_PER_SECOND_TOLD_MAX: f64 = 100_000.0;
/// The same for the reading of prompts, which goes many tokens at a time: small models reach a hundred thousand.
pub const PROMPT_PER_SECOND_TOLD_MAX: f64 = 1_000_000.0;
/// Tool calls of one reply that may still go on, their pieces in any order. Clients run some ten in parallel; of more,
/// the one that began first is over.
pub const TOOL_CALLS_OPEN_MAX: usize = 64;
/// Combinations of endpoint, model, client, key and outcome whose sums are kept apart. Prometheus users are told to
/// stay below some thousands of series for one metric; statistics read one line for each.
pub const SERIES_MAX: i64 = 10_000;
/// How long a question to the database waits for a lock. Readers of a write-ahead log meet one only while it is
/// recovered; local routes promise an answer within 250 ms.
pub const READ_WAIT_MAX: Duration = Duration::from_millis(100);
/// Largest list of prices. A line for each of thousands of models fits.
pub const PRICE_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Most points of an answer over time: more than a year of hours.
pub const BUCKETS_MAX: usize = 10_000;
/// Most of them whose percentiles are told: each takes its distributions to be added up, which nothing keeps. 365 days of a
/// million rows take 7 ms.
pub const PERCENTILE_POINTS_MAX: usize = 1000;
/// Figures of packs kept for later questions, in bytes. A year of hours is 1.4 MB; several open pages ask for much the
/// same.
pub const TALLIES_KEPT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Kinds of questions whose figures are kept. A page asks five.
pub const TALLIES_KEPT_MAX: usize = 16;
/// Distributions kept for later questions, in bytes. Those of twenty models are 80 KB; those asked for last are kept.
pub const LATENCIES_KEPT_BYTES_MAX: usize = 512 * 1024;
/// Kinds of questions whose distributions are kept: looked through for each question about latency.
pub const LATENCIES_KEPT_MAX: usize = 8;
/// Silence after which the statistics thread gives back what it keeps. Pages that are looked at ask more often.
pub const TALLIES_KEPT_TIME_MAX: Duration = Duration::from_secs(60);
/// Content that one search reads: a few hundredths of a second, during which other questions wait.
pub const SEARCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Words that one search looks for.
pub const SEARCH_WORDS_MAX: usize = 16;
/// Requests of conversations that one answer adds up row by row, at 4 us each: a fifth of a second. An agent's day has some
/// thousand; a session id that a program never changes has them all.
pub const TURNS_ADDED_MAX: usize = 50_000;
/// Requests of conversations that are looked at for one page where the filter asks for more than their conversation.
pub const TURNS_LOOKED_AT_MAX: usize = 5_000;
/// Conversations that are looked at for one page of them: some milliseconds where hardly any passes.
pub const CONVERSATIONS_LOOKED_AT_MAX: usize = 5_000;
/// Exports at once, each with a worker. They are for one person at a time; beyond, the answer is 503.
pub const EXPORTS_MAX: usize = 4;
/// When a client that was refused for that may well try again.
pub const EXPORT_RETRY_S: u32 = 30;
/// Models that have series of their own in `/metrics`; further ones are `other`. Each brings some fifty lines.
pub const METRICS_MODELS_MAX: usize = 100;
/// Endpoints that have series of their own in `/metrics`; further ones are `other`. LM Studio has a dozen.
pub const METRICS_ENDPOINTS_MAX: usize = 32;
/// Clients that have series of their own in `/metrics`; further ones are `other`. Each brings some five lines.
pub const METRICS_CLIENTS_MAX: usize = 100;

// ---- prompts shown to people -------------------------------------------------------------------------------------

/// How far around what is shown it is looked for secrets, which may be shown in part. A private key of 8192 bits has
/// 6.4 KB in armour, and longer runs are known by their looks.
pub const SECRET_BYTES_MAX: usize = 8 * 1024;
/// What is shown of the difference between two prompts: some thousand lines. A person reads the first hundred.
pub const DIFF_BYTES_MAX: usize = 256 * 1024;
/// Lines of two prompts that are compared one by one, but for those at both ends that are the same. Where all of them
/// differ at random, they take 60 ms; longer texts are told as replaced.
pub const DIFF_LINES_MAX: usize = 20_000;
