use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::rows::{Row, count_of, rows_of};
use super::{Client, Folder, Message, PATIENCE, Upstream, until};

/// The binary, in `folder`, knowing nothing of this process's environment.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lms_metrics_proxy"));
    command.current_dir(folder).env_clear().stdin(Stdio::null());
    // Windows finds its own libraries by it.
    if let Some(root) = std::env::var_os("SystemRoot") {
        command.env("SystemRoot", root);
    }
    command
}

/// Lines of the log shown when a test fails.
const LINES_SHOWN: usize = 40;

/// The proxy as a process. Killed when dropped; of a failed test the log is shown.
pub struct Proxy {
    child: Child,
    address: SocketAddr,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    folder: Arc<Folder>,
}

#[derive(Default)]
struct Log {
    /// Lines so far, and whether it ended.
    lines: Mutex<(Vec<String>, bool)>,
    grew: Condvar,
    /// The pipe is left alone.
    unread: Mutex<bool>,
    read_on: Condvar,
}

impl Log {
    fn set_unread(&self, unread: bool) {
        *self.unread.lock().expect("no panic under it") = unread;
        self.read_on.notify_all();
    }
}

impl Proxy {
    /// In front of `upstream`, with defaults.
    pub fn before(upstream: &Upstream) -> Proxy {
        Proxy::with(upstream, &[])
    }

    /// In front of `upstream`, with these settings.
    pub fn with(upstream: &Upstream, settings: &[(&str, &str)]) -> Proxy {
        let url = upstream.url();
        Proxy::start(&Arc::new(Folder::new()), &[&[("LM_STUDIO_URL", url.as_str())], settings].concat())
    }

    /// With these settings, its database in `folder`.
    pub fn start(folder: &Arc<Folder>, settings: &[(&str, &str)]) -> Proxy {
        Proxy::spawn(command(folder.path()), folder, settings)
    }

    /// The same, begun by a shell that does `before` first: limits and ignored signals are inherited.
    #[cfg(unix)]
    pub fn start_after(before: &str, folder: &Arc<Folder>, settings: &[(&str, &str)]) -> Proxy {
        Proxy::start_by_shell(&format!("{before}; exec \"$0\""), folder, settings)
    }

    /// The same, begun by another program that is given the binary's path.
    #[cfg(unix)]
    pub fn start_by(program: &str, folder: &Arc<Folder>, settings: &[(&str, &str)]) -> Proxy {
        Proxy::start_by_shell(&format!("exec {program} \"$0\""), folder, settings)
    }

    #[cfg(unix)]
    fn start_by_shell(script: &str, folder: &Arc<Folder>, settings: &[(&str, &str)]) -> Proxy {
        let mut shell = Command::new("sh");
        shell.current_dir(folder.path()).env_clear().stdin(Stdio::null());
        shell.args(["-c", script, env!("CARGO_BIN_EXE_lms_metrics_proxy")]);
        Proxy::spawn(shell, folder, settings)
    }

    fn spawn(mut command: Command, folder: &Arc<Folder>, settings: &[(&str, &str)]) -> Proxy {
        // All tests are one process, with thousands of connections at times.
        lms_metrics_proxy::descriptors::ask_for_enough(0);
        command.env("PORT", "0").env("RUST_LOG", "info").env("UPSTREAM_CHECK", "false").envs(settings.iter().copied());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the binary runs");
        let errors = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Log::default());
        let own = log.clone();
        let reader = thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                own.lines.lock().expect("no panic under it").0.push(line);
                own.grew.notify_all();
                let unread = own.unread.lock().expect("no panic under it");
                drop(own.read_on.wait_while(unread, |unread| *unread).expect("no panic under it"));
            }
            own.lines.lock().expect("no panic under it").1 = true;
            own.grew.notify_all();
        });
        let unspecified = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut proxy = Proxy { child, address: unspecified, log, reader: Some(reader), folder: folder.clone() };
        let line = proxy.wait_for_log("listening on http://");
        proxy.address = line.rsplit("http://").next().expect("split").parse().expect("an address");
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Asks over a connection of its own.
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        self.connect().ask(request)
    }

    /// What a local route answers.
    pub fn json(&self, path: &str) -> serde_json::Value {
        let reply = self.ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(reply.status(), 200, "{}", reply.text());
        reply.json()
    }

    /// What stands in the database now.
    pub fn rows(&self) -> Vec<Row> {
        rows_of(&self.folder.database())
    }

    /// The only row.
    pub fn row(&self) -> Row {
        let mut rows = self.rows();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    /// Waits until there are `count` rows: for ends that no client sees.
    pub fn wait_for_rows(&self, count: usize) -> Vec<Row> {
        until("rows", || Some(self.rows()).filter(|rows| rows.len() >= count))
    }

    /// Waits for a log line with these words.
    pub fn wait_for_log(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().expect("no panic under it");
        loop {
            if let Some(line) = lines.0.iter().find(|line| line.contains(words)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!lines.1 && !left.is_zero(), "{words:?} was never logged: {:#?}", lines.0);
            lines = self.log.grew.wait_timeout(lines, left).expect("no panic under it").0;
        }
    }

    /// From now on nobody reads what it logs: after a line at most, the pipe is left alone.
    pub fn leave_log_unread(&self) {
        self.log.set_unread(true);
    }

    /// What it logged meanwhile is read, and what follows.
    pub fn read_log_on(&self) {
        self.log.set_unread(false);
    }

    /// How many lines of the log have these words, as soon as `times` of them do: a line may come after what it tells of.
    pub fn logged_at_least(&self, words: &str, times: usize) -> usize {
        until(&format!("{words:?} in the log"), || Some(self.logged(words)).filter(|found| *found >= times))
    }

    /// How many lines of the log so far have these words.
    pub fn logged(&self, words: &str) -> usize {
        self.log.lines.lock().expect("no panic under it").0.iter().filter(|line| line.contains(words)).count()
    }

    /// What must hold after every fault: it answers, its database is sound, and no bug of its own came to light.
    pub fn check_sound(&self) {
        self.check_sound_with(&self.folder.database());
    }

    /// The same where the database lies elsewhere.
    pub fn check_sound_with(&self, database: &Path) {
        assert_eq!(self.json("/health")["status"], "ok");
        let sound = "SELECT integrity_check = 'ok' FROM pragma_integrity_check";
        assert_eq!(count_of(database, sound), 1);
        assert_eq!((self.logged("bug"), self.logged("panicked")), (0, 0));
    }

    #[cfg(unix)]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("there is a kill command").success());
    }

    /// Stops all its threads (SIGSTOP), each of which goes on for a moment behind the signal; waits until none does.
    #[cfg(unix)]
    pub fn halt(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        // Elsewhere there is nowhere to look.
        let Ok(tasks) = std::fs::read_dir(tasks) else { return };
        for task in tasks.flatten() {
            until("a thread that stands still", || {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(')')
                    .next()
                    .is_none_or(|rest| !rest.starts_with(' ') || rest.starts_with(" T"))
                    .then_some(())
            });
        }
    }

    /// Sends a signal again and again until it ends: two that come close together count as one.
    #[cfg(unix)]
    pub fn signal_until_it_ends(&mut self, name: &str) -> ExitStatus {
        until("the proxy's end", || {
            self.signal(name);
            self.child.try_wait().expect("a child")
        })
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        until("the proxy's end", || self.child.try_wait().expect("a child"))
    }

    /// Ends it at once, as SIGKILL does. The whole log, and the folder with its database.
    pub fn kill(mut self) -> (Vec<String>, Arc<Folder>) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.read_log_on();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let lines = std::mem::take(&mut self.log.lines.lock().expect("no panic under it").0);
        (lines, self.folder.clone())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.read_log_on();
        if thread::panicking()
            && let Ok(lines) = self.log.lines.lock()
        {
            let last = &lines.0[lines.0.len().saturating_sub(LINES_SHOWN)..];
            let state = ended.ok().flatten().map_or("still running".into(), |status| status.to_string());
            eprintln!("the proxy ({state}) logged:\n{}", last.join("\n"));
        }
    }
}
