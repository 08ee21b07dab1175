//! Runs the binary for a while under mixed load, with clients that break off and an upstream that fails, and checks
//! that it is as it was in the end: every exchange has exactly its row, memory, descriptors and threads are back, and
//! the database is sound. Linux only, for it reads /proc.
//!
//! ```text
//! cargo run --example soak -- target/release/lms_metrics_proxy [SECONDS]
//! ```
//!
//! Each generation carries a number of its own in the body's `user`, which the row keeps as its client. A request that
//! was sent whole is an exchange, whatever became of it.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use std::{env, fs, process};

use rusqlite::Connection;

/// Clients at once. More than the workers kept, so that the pool grows and shrinks.
const CLIENTS: u64 = 48;
/// A client pauses for up to so long, or the load would be a test of speed.
const THINKING_MS: u64 = 80;
/// The load stops for a while this often, so that workers leave and the figures of quiet moments can be compared.
const ROUND: Duration = Duration::from_secs(60);
/// Idle workers leave after 10 s.
const REST: Duration = Duration::from_secs(13);
/// Whatever takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(binary) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: soak BINARY [SECONDS]");
        return ExitCode::from(2);
    };
    let seconds = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(600);
    let folder = env::temp_dir().join(format!("lms_metrics_proxy-soak-{}", process::id()));
    fs::create_dir_all(&folder).expect("the temporary folder is writable");
    let sound = soak(&binary.canonicalize().expect("a path to the binary"), Duration::from_secs(seconds), &folder);
    if sound {
        let _ = fs::remove_dir_all(&folder);
    } else {
        println!("left for a look: {}", folder.display());
    }
    ExitCode::from(u8::from(!sound))
}

fn soak(binary: &Path, time: Duration, folder: &Path) -> bool {
    let upstream = start_upstream();
    let mut proxy = Proxy::start(binary, folder, upstream);
    let ledger = Ledger::default();
    let began = Instant::now();
    let mut quiet = Vec::new();
    println!("{:>5} {:>9} {:>9} {:>7} {:>5} {:>7}", "s", "exchanges", "peak KB", "KB", "fds", "threads");
    while began.elapsed() < time {
        let until = began + time.min(began.elapsed() + ROUND);
        let peak_kb = AtomicU64::new(0);
        thread::scope(|scope| {
            for number in 0..CLIENTS {
                // Other numbers in each round, for each names exchanges.
                let number = number + CLIENTS * quiet.len() as u64;
                let (ledger, address) = (&ledger, proxy.address);
                scope.spawn(move || {
                    let mut client = Client { address, ledger, random: Random::new(number), connection: None };
                    while Instant::now() < until {
                        client.act();
                        sleep(Duration::from_millis(client.random.below(THINKING_MS)));
                    }
                });
            }
            while Instant::now() < until {
                peak_kb.fetch_max(proxy.vitals().resident_kb, Relaxed);
                sleep(Duration::from_millis(200));
            }
        });
        sleep(REST);
        let vitals = proxy.vitals();
        println!(
            "{:>5} {:>9} {:>9} {:>7} {:>5} {:>7}",
            began.elapsed().as_secs(),
            ledger.asked.lock().expect("no client panics").len(),
            peak_kb.load(Relaxed),
            vitals.resident_kb,
            vitals.descriptors,
            vitals.threads
        );
        quiet.push(vitals);
    }
    ledger.print();
    let stopped = proxy.stop();
    judge(&quiet, &ledger, stopped, folder)
}

fn judge(quiet: &[Vitals], ledger: &Ledger, stopped: bool, folder: &Path) -> bool {
    let mut sound = true;
    let mut check = |what: &str, holds: bool, figures: String| {
        println!("{} {what}: {figures}", if holds { "ok  " } else { "FAIL" });
        sound &= holds;
    };
    let (first, last) = (quiet.first().expect("one round"), quiet.last().expect("one round"));
    // The first round fills caches; what leaks would grow with every round.
    let (first_kb, last_kb) = (first.resident_kb, last.resident_kb);
    check("memory is flat", last_kb < first_kb + first_kb / 4, format!("{first_kb} KB, then {last_kb} KB"));
    let (first_fds, last_fds) = (first.descriptors, last.descriptors);
    check("descriptors are flat", last_fds <= first_fds + 2, format!("{first_fds}, then {last_fds}"));
    // The kept workers, and main, two lanes, statistics, keeper, log, signals.
    check("threads are back to the kept few", last.threads <= 11, last.threads.to_string());

    let database = Connection::open(folder.join("metrics.db")).expect("a database");
    let asked = ledger.asked.lock().expect("no client panics");
    let mut statement = database.prepare("SELECT client FROM requests").expect("the documented column");
    let rows = statement.query_map([], |row| row.get::<_, Option<String>>(0)).expect("a query");
    let rows: Vec<String> = rows.map(|row| row.expect("text").unwrap_or_default()).collect();
    let recorded: HashSet<&str> = rows.iter().map(String::as_str).collect();
    let missing: Vec<&String> = asked.iter().filter(|user| !recorded.contains(user.as_str())).collect();
    let twice = rows.len() - recorded.len();
    let stray = recorded.iter().filter(|user| !asked.contains(**user)).count();
    let holds = missing.is_empty() && twice == 0 && stray == 0;
    let figures = format!("{} of {}, {} missing, {twice} twice, {stray} stray", rows.len(), asked.len(), missing.len());
    check("rows are the exchanges", holds, figures);
    for user in missing.iter().take(10) {
        println!("     missing: {user}");
    }
    let sums = "SELECT outcome || ' ' || count(*) FROM requests GROUP BY outcome ORDER BY outcome";
    let mut statement = database.prepare(sums).expect("the documented column");
    let outcomes = statement.query_map([], |row| row.get::<_, String>(0)).expect("a query");
    let outcomes: Vec<String> = outcomes.map(|outcome| outcome.expect("text")).collect();
    println!("     outcomes: {}", outcomes.join(", "));
    let bugs = "SELECT count(*) FROM requests WHERE error_message LIKE '%bug of the proxy%'";
    let bugs: i64 = database.query_row(bugs, [], |row| row.get(0)).expect("the documented column");
    check("no exchange ended by a bug", bugs == 0, format!("{bugs} did"));
    let integrity: String =
        database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a database that can be read");
    check("the database is sound", integrity == "ok", integrity.clone());
    let log = fs::read_to_string(folder.join("log")).expect("the log");
    let bad: Vec<&str> = log.lines().filter(|line| line.contains("[ERROR]") || line.contains("panicked")).collect();
    check("the log has no error", bad.is_empty(), format!("{} lines, {} errors", log.lines().count(), bad.len()));
    bad.iter().take(10).for_each(|line| println!("     {line}"));
    let wrong = ledger.wrong.load(Relaxed);
    check("no client got what it should not", wrong == 0, format!("{wrong} wrong"));
    check("it ended well", stopped, "exit code 0".to_string());
    sound
}

// ---- the proxy -----------------------------------------------------------------------------------------------------

struct Proxy {
    child: Child,
    address: SocketAddr,
}

#[derive(Clone, Copy)]
struct Vitals {
    resident_kb: u64,
    descriptors: u64,
    threads: u64,
}

impl Proxy {
    fn start(binary: &Path, folder: &Path, upstream: SocketAddr) -> Proxy {
        // Nobody else takes the port between this and the start, or the start fails.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let log = fs::File::create(folder.join("log")).expect("the folder is writable");
        let child = Command::new(binary)
            .current_dir(folder)
            .env_clear()
            .env("PORT", free.port().to_string())
            .env("LM_STUDIO_URL", format!("http://{upstream}"))
            .env("RUST_LOG", "info")
            // With an arena for each thread, glibc's own habits hide whether the proxy leaks.
            .env("GLIBC_TUNABLES", "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=32")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        let proxy = Proxy { child, address: SocketAddr::from(([127, 0, 0, 1], free.port())) };
        let began = Instant::now();
        while TcpStream::connect(proxy.address).is_err() {
            assert!(began.elapsed() < PATIENCE, "the proxy does not listen");
            sleep(Duration::from_millis(10));
        }
        proxy
    }

    fn vitals(&self) -> Vitals {
        let id = self.child.id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).expect("the proxy runs");
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of proc(5)");
            line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
        };
        let descriptors = fs::read_dir(format!("/proc/{id}/fd")).expect("the proxy runs").count() as u64;
        Vitals { resident_kb: figure("VmRSS:"), descriptors, threads: figure("Threads:") }
    }

    /// Whether it ended with exit code 0 when told to.
    fn stop(&mut self) -> bool {
        let _ = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        false
    }
}

// ---- clients -------------------------------------------------------------------------------------------------------

/// What the clients did, and what they saw.
#[derive(Default)]
struct Ledger {
    asked: Mutex<HashSet<String>>,
    whole: AtomicU64,
    cut: AtomicU64,
    failed: AtomicU64,
    left: AtomicU64,
    refused: AtomicU64,
    local: AtomicU64,
    wrong: AtomicU64,
    wrong_shown: AtomicBool,
}

impl Ledger {
    fn print(&self) {
        let read = |count: &AtomicU64| count.load(Relaxed);
        println!(
            "replies whole {}, cut {}, failed {}; clients that left {}, requests refused {}, local answers {}",
            read(&self.whole),
            read(&self.cut),
            read(&self.failed),
            read(&self.left),
            read(&self.refused),
            read(&self.local)
        );
    }
}

struct Client<'a> {
    address: SocketAddr,
    ledger: &'a Ledger,
    random: Random,
    connection: Option<TcpStream>,
}

/// How upstream answers, and how often of a hundred.
const ANSWERS: [(&str, u64); 12] = [
    ("json", 30),
    ("stream", 30),
    ("slow", 14),
    ("large", 4),
    ("status", 4),
    ("hangup", 3),
    ("halfhead", 3),
    ("junk", 2),
    ("cutchunk", 3),
    ("cutlength", 3),
    ("beyond", 2),
    ("unfinished", 2),
];

impl Client<'_> {
    fn act(&mut self) {
        match self.random.below(100) {
            0..70 => self.generate(false),
            70..84 => self.generate(true),
            84..88 => self.break_off(),
            88..91 => self.talk_nonsense(),
            91..94 => self.local("/stats/summary"),
            94..96 => self.local("/stats/recent?limit=20"),
            96..98 => self.local("/v1/models"),
            _ => self.local("/health"),
        }
    }

    fn connect(&mut self) -> TcpStream {
        self.connection.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(self.address).expect("the proxy listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time-out above zero");
            stream.set_nodelay(true).expect("a TCP socket");
            stream
        })
    }

    /// One exchange. `leaves`: the client closes before its end, at some point.
    fn generate(&mut self, leaves: bool) {
        let mut at = self.random.below(100);
        let answer = ANSWERS.iter().find(|(_, share)| {
            let found = at < *share;
            at = at.wrapping_sub(*share);
            found
        });
        let (answer, _) = *answer.expect("the shares add up to a hundred");
        let user = format!("{answer}-{:016x}", self.random.next());
        let stream = !matches!(answer, "json" | "cutlength" | "beyond");
        let words = "word ".repeat(self.random.below(400) as usize);
        let body = format!(r#"{{"model":"m","user":"{user}","stream":{stream},"messages":"{words}"}}"#);
        let mut connection = self.connect();
        self.ledger.asked.lock().expect("no client panics").insert(user.clone());
        if send(&mut connection, "/v1/chat/completions", &body, &mut self.random).is_err() {
            // A connection that was kept alive is not closed by the proxy within the times of this load.
            return self.wrong(&format!("{user} could not be sent"));
        }
        if leaves {
            self.ledger.left.fetch_add(1, Relaxed);
            return self.leave(connection);
        }
        match read_reply(&mut connection) {
            Ok(reply) => self.check(answer, &user, reply, connection),
            Err(e) => self.wrong(&format!("{user}: no reply: {e}")),
        }
    }

    fn check(&mut self, answer: &str, user: &str, reply: Reply, connection: TcpStream) {
        let expected = match answer {
            "json" | "stream" | "slow" | "large" | "beyond" | "unfinished" => (200, true),
            "status" => (404, true),
            "hangup" | "halfhead" | "junk" => (502, true),
            _ => (200, false),
        };
        match expected {
            (200, true) => &self.ledger.whole,
            (200, false) => &self.ledger.cut,
            _ => &self.ledger.failed,
        }
        .fetch_add(1, Relaxed);
        // Names stand in every event, what injection asked for in one of the last.
        let ends = reply.body.len().min(4096);
        let (begin, end) = (&reply.body[..ends], &reply.body[reply.body.len() - ends..]);
        let own = !matches!(answer, "json" | "stream" | "slow" | "large") || contains(begin, user.as_bytes());
        if (reply.status, reply.whole) != expected || !own || contains(end, b"\"injected\"") {
            return self.wrong(&format!("{user}: status {}, whole {}, own {own}", reply.status, reply.whole));
        }
        if reply.whole && !reply.last && self.random.below(4) > 0 {
            self.connection = Some(connection);
        }
    }

    /// Leaves at once, or after some bytes of the reply, in good order or with bytes unread, which resets.
    fn leave(&mut self, mut connection: TcpStream) {
        match self.random.below(4) {
            0 => {}
            1 => drop(connection.shutdown(Shutdown::Write)),
            2 => drop(connection.peek(&mut [0])),
            _ => drop(connection.read(&mut vec![0; 1 + self.random.below(2000) as usize])),
        }
        sleep(Duration::from_millis(self.random.below(3)));
    }

    /// Half a request: no exchange.
    fn break_off(&mut self) {
        let mut connection = self.connect();
        let request =
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{\"user\":\"no\"";
        let sent = 1 + self.random.below(request.len() as u64 - 1) as usize;
        let _ = connection.write_all(&request.as_bytes()[..sent]);
        self.ledger.left.fetch_add(1, Relaxed);
    }

    fn talk_nonsense(&mut self) {
        const NONSENSE: [&str; 5] = [
            "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "GET /v1/x HTTP/1.1\r\nHost : localhost\r\n\r\n",
        ];
        let mut connection = self.connect();
        let _ = connection.write_all(NONSENSE[self.random.below(5) as usize].as_bytes());
        match read_reply(&mut connection) {
            Ok(reply) if reply.status >= 400 => drop(self.ledger.refused.fetch_add(1, Relaxed)),
            Ok(reply) => self.wrong(&format!("nonsense was answered with {}", reply.status)),
            Err(e) => self.wrong(&format!("nonsense was not answered: {e}")),
        }
    }

    fn local(&mut self, path: &str) {
        let mut connection = self.connect();
        let sent = write!(connection, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        match sent.and_then(|()| read_reply(&mut connection)) {
            Ok(reply) if reply.status == 200 && reply.whole => {
                self.ledger.local.fetch_add(1, Relaxed);
                self.connection = Some(connection);
            }
            Ok(reply) => self.wrong(&format!("{path}: status {}, whole {}", reply.status, reply.whole)),
            Err(e) => self.wrong(&format!("{path}: {e}")),
        }
    }

    fn wrong(&self, what: &str) {
        if self.ledger.wrong.fetch_add(1, Relaxed) < 10 || !self.ledger.wrong_shown.swap(true, Relaxed) {
            println!("wrong: {what}");
        }
    }
}

/// Sends a request in one piece, or in a few.
fn send(connection: &mut TcpStream, path: &str, body: &str, random: &mut Random) -> io::Result<()> {
    let length = body.len();
    let request = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
    let pieces = if random.below(4) == 0 { 1 + random.below(200) as usize } else { request.len() };
    request
        .as_bytes()
        .chunks(request.len().div_ceil(request.len().div_ceil(pieces).min(5)))
        .try_for_each(|piece| connection.write_all(piece))
}

struct Reply {
    status: u16,
    body: Vec<u8>,
    whole: bool,
    /// The connection ends with it.
    last: bool,
}

fn read_reply(connection: &mut TcpStream) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = position(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        if !more(connection, &mut bytes)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    let last = field("connection:") == Some("close");
    let mut body = bytes.split_off(head_end);
    let length = field("content-length:").and_then(|length| length.parse::<usize>().ok());
    let is_whole = |body: &[u8]| match length {
        Some(length) => body.len() >= length,
        None => body.ends_with(b"\r\n0\r\n\r\n") || body == b"0\r\n\r\n",
    };
    let mut whole = is_whole(&body);
    while !whole && more(connection, &mut body)? {
        whole = is_whole(&body);
    }
    Ok(Reply { status, body, whole, last })
}

/// Reads once. False at the end or at a reset.
fn more(connection: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 16 * 1024];
    match connection.read(&mut piece) {
        Ok(n) => {
            bytes.extend_from_slice(&piece[..n]);
            Ok(n > 0)
        }
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(false),
        Err(e) => Err(e),
    }
}

// ---- upstream ------------------------------------------------------------------------------------------------------

fn start_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let _ = connection.set_nodelay(true);
            thread::spawn(move || while matches!(answer(&connection), Ok(true)) {});
        }
    });
    address
}

/// Answers one request as its `user` asks. False: the connection ends.
fn answer(mut connection: &TcpStream) -> io::Result<bool> {
    let Some((head, body)) = read_request(connection)? else { return Ok(false) };
    if head.starts_with("GET") {
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")?;
        return Ok(true);
    }
    let text = String::from_utf8_lossy(&body);
    let user = text.split("\"user\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let json = format!(
        r#"{{"id":"{user}","model":"m","choices":[{{"index":0,"message":{{"content":"Hello"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
    );
    let length = json.len();
    let json_head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
    let stream_head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let event = |word: &str| {
        chunk(&format!(
            "data: {{\"id\":\"{user}\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n"
        ))
    };
    // What injection asked for: it must not reach the client.
    let usage = chunk(&format!(
        "data: {{\"id\":\"{user}\",\"model\":\"m\",\"choices\":[],\"usage\":{{\"injected\":1,\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}}}\n\n"
    ));
    let end = [&usage, &chunk("data: [DONE]\n\n"), "0\r\n\r\n"].concat();
    match user.split('-').next().unwrap_or_default() {
        "json" => connection.write_all([json_head, json].concat().as_bytes())?,
        "stream" => {
            connection.write_all([stream_head, &event("one").repeat(20), &end].concat().as_bytes())?;
        }
        "slow" => {
            connection.write_all(stream_head.as_bytes())?;
            for _ in 0..20 {
                sleep(Duration::from_millis(10));
                connection.write_all(event("one").as_bytes())?;
            }
            connection.write_all(end.as_bytes())?;
        }
        "large" => {
            connection.write_all(stream_head.as_bytes())?;
            let piece = event(&"x".repeat(10_000)).repeat(10);
            for _ in 0..20 {
                connection.write_all(piece.as_bytes())?;
            }
            connection.write_all(end.as_bytes())?;
        }
        "status" => {
            let error = r#"{"error":{"message":"No such model"}}"#;
            let length = error.len();
            write!(connection, "HTTP/1.1 404 Not Found\r\nContent-Length: {length}\r\n\r\n{error}")?;
        }
        "hangup" => return Ok(false),
        "halfhead" => {
            connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")?;
            return Ok(false);
        }
        "junk" => connection.write_all(b"SSH-2.0-OpenSSH_9.7\r\n\r\n")?,
        "cutchunk" => {
            connection.write_all([stream_head, &event("one"), "1000\r\ndata: half"].concat().as_bytes())?;
            return Ok(false);
        }
        "cutlength" => {
            connection.write_all([&json_head, &json[..length / 2]].concat().as_bytes())?;
            return Ok(false);
        }
        "beyond" => connection.write_all([&json_head, &json, "HTTP/1.1 200 OK\r\n\r\nsmuggled"].concat().as_bytes())?,
        _ => connection.write_all([stream_head, &event("one"), "0\r\n\r\n"].concat().as_bytes())?,
    }
    Ok(true)
}

fn read_request(mut connection: &TcpStream) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(at) = position(&bytes, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..at]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if bytes.len() >= at + 4 + length {
                let head = String::from_utf8_lossy(&bytes[..at]).into_owned();
                return Ok(Some((head, bytes.split_off(at + 4))));
            }
        }
        match connection.read(&mut piece)? {
            0 => return Ok(None),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}

// ---- small things --------------------------------------------------------------------------------------------------

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}

fn contains(bytes: &[u8], mark: &[u8]) -> bool {
    position(bytes, mark).is_some()
}

/// Marsaglia's xorshift64 ("Xorshift RNGs", 2003), the same in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        // Seeds that lie close together would begin alike.
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
