//! How the proxy starts, and with which words and exit code it does not.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use rusqlite::Connection;

use crate::harness::*;

/// Runs the binary to its end. Whatever ends a start must end it by itself; a proxy that runs would wait for ever, so
/// that it is ended after a while.
fn ran(folder: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = command(folder);
    command.args(arguments).env("PORT", "0").envs(settings.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let deadline = std::time::Instant::now() + PATIENCE;
    while child.try_wait().expect("a child").is_none() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let _ = child.kill();
    child.wait_with_output().expect("a child")
}

/// The start ends with this code and one line with these words.
fn check_refused(folder: &Path, settings: &[(&str, &str)], code: i32, words: &[&str]) {
    let output = ran(folder, &[], settings);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{settings:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{settings:?}: {said}");
    assert!(words.iter().all(|word| said.contains(word)), "{settings:?}: {said:?} lacks one of {words:?}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn a_bad_value_is_exit_code_2_and_one_line() {
    // The variable, what it held, what it takes.
    let folder = Folder::new();
    let check = |name: &str, held: &str, takes: &str| {
        check_refused(folder.path(), &[(name, held)], 2, &[name, held, takes]);
    };
    check("PORT", "99999", "0 to 65535");
    check("PORT", "-1", "0 to 65535");
    check("PORT", "http", "0 to 65535");
    check("HOST", "not a host", "an IP address");
    check("LM_STUDIO_URL", "localhost:1234", "http://");
    check("LM_STUDIO_URL", "ftp://localhost", "http://");
    check("DATABASE_URL", "mysql://localhost/x", "SQLite");
    check("DATABASE_URL", "sqlite::memory:", "not in memory");
    check("RUST_LOG", "loud", "trace");
    check("INJECT_USAGE", "perhaps", "true or false");
    check("LOG_CONTENT", "half", "full or none");
    check("CONTENT_KB_MAX", "0", "1 to 65536");
    check("CONTENT_DAYS", "-1", "0 to 36500");
    check("CONTENT_MB_MAX", "1.5", "0 to 1048576");
    check("RETENTION_DAYS", "ever", "0 to 36500");
    check("MODEL_PRICES", "/nowhere/prices.json", "cannot be read");
    check("MAX_WORKERS", "0", "1 to 10000");
    check("MAX_BODY_MB", "1e3", "1 to 4096");
    check("ALLOWED_HOSTS", "http://a", "host names");
    check("UPSTREAM_CONNECT_TIMEOUT_S", "0", "1 to 3600");
    check("UPSTREAM_IDLE_TIMEOUT_S", "+5", "0 to 86400");
    check("SHUTDOWN_GRACE_S", "30s", "0 to 86400");
    check("DB_SYNC", "off", "normal or full");
    assert!(!folder.database().exists(), "a start that was refused left a database");
}

#[test]
fn a_secret_is_not_shown() {
    let folder = Folder::new();
    let output = ran(folder.path(), &[], &[("STATS_TOKEN", "hush hush")]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("STATS_TOKEN") && !said.contains("hush"), "{said}");
}

#[test]
fn an_unknown_flag_is_exit_code_2() {
    let folder = Folder::new();
    let output = ran(folder.path(), &["--prot", "80"], &[]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("--prot"), "{said}");
}

#[test]
fn a_taken_port_is_exit_code_1() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port().to_string();
    check_refused(folder.path(), &[("PORT", &port)], 1, &[&port, "in use", "PORT"]);
    assert!(!folder.database().exists(), "the database was touched before the port was known to be free");
}

#[test]
fn a_folder_that_cannot_be_made_is_exit_code_1() {
    // A path below a file: not even root can make a folder there.
    let folder = Folder::new();
    fs::write(folder.path().join("file"), "").expect("a writable folder");
    check_refused(folder.path(), &[("DATABASE_URL", "sqlite:./file/deeper/m.db")], 1, &["file/deeper", "DATABASE_URL"]);
    check_refused(folder.path(), &[("DATABASE_URL", "sqlite:.")], 1, &["folder", "DATABASE_URL"]);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written_is_exit_code_1() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let sealed = folder.path().join("sealed");
    fs::create_dir(&sealed).expect("a writable folder");
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o555)).expect("our own folder");
    if fs::write(sealed.join("probe"), "").is_ok() {
        eprintln!("skipped: whoever runs this test may write anywhere (root)");
        return;
    }
    check_refused(folder.path(), &[("DATABASE_URL", "sealed/m.db")], 1, &["sealed/m.db", "DATABASE_URL"]);
}

#[test]
fn a_foreign_file_is_exit_code_1_and_stays_as_it_is() {
    let folder = Folder::new();
    let check = |path: &Path, words: &[&str]| {
        let before = fs::read(path).expect("a file");
        check_refused(folder.path(), &[("DATABASE_URL", path.to_str().expect("text"))], 1, words);
        assert_eq!(fs::read(path).expect("a file"), before, "{path:?} was changed");
    };
    let text = folder.path().join("notes.txt");
    fs::write(&text, "no database, but something that somebody wants to keep\n".repeat(200)).expect("writable");
    check(&text, &["notes.txt", "not a database", "DATABASE_URL"]);
    let made = |name: &str, sql: &str| {
        let path = folder.path().join(name);
        Connection::open(&path).and_then(|c| c.execute_batch(sql)).expect("valid SQL");
        path
    };
    check(&made("other.db", "CREATE TABLE songs (title TEXT)"), &["other.db", "another program"]);
    check(&made("same.db", "CREATE TABLE requests (id INTEGER, title TEXT)"), &["same.db", "another program"]);
    let newer = "PRAGMA application_id = 0x4C4D534D; PRAGMA user_version = 99; CREATE TABLE requests (id INTEGER)";
    check(&made("newer.db", newer), &["newer.db", "newer version"]);
}

#[test]
fn missing_folders_are_made_and_the_first_lines_say_what_runs() {
    let folder = Arc::new(Folder::new());
    let url = "sqlite://./deep/er/usage.db?mode=rwc";
    let settings = [("DATABASE_URL", url), ("LM_STUDIO_URL", "http://localhost:4321/")];
    let proxy = Proxy::start(&folder, &settings);
    proxy.wait_for_log(env!("CARGO_PKG_VERSION"));
    proxy.wait_for_log("forwarding to http://localhost:4321");
    let database: PathBuf = ["deep", "er", "usage.db"].iter().collect();
    assert!(proxy.wait_for_log("recording in").contains(&format!("{}, 0 rows", database.display())));
    // The trailing slash was a slip.
    proxy.wait_for_log("[WARN ]");
    assert!(folder.path().join("deep/er/usage.db").is_file());
}

#[test]
fn settings_come_from_the_environment_and_then_from_a_file() {
    let folder = Arc::new(Folder::new());
    fs::write(folder.path().join(".env"), "DATABASE_URL=from-file.db\nLM_STUDIO_URL=http://10.0.0.1:1\n")
        .expect("writable");
    let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", "http://10.0.0.2:2")]);
    proxy.wait_for_log("forwarding to http://10.0.0.2:2");
    assert!(proxy.wait_for_log("recording in").contains("from-file.db"));
}

#[test]
fn help_names_every_setting_and_version_the_version() {
    let folder = Folder::new();
    // Also where a setting is bad: help is what its owner needs then.
    let output = ran(folder.path(), &["--help"], &[("PORT", "bad")]);
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    for name in ["PORT", "HOST", "LM_STUDIO_URL", "DATABASE_URL", "RUST_LOG", "MAX_WORKERS", "SHUTDOWN_GRACE_S"] {
        assert!(said.contains(name), "{name}");
    }
    let output = ran(folder.path(), &["--version"], &[("PORT", "bad")]);
    let version = concat!("lms_metrics_proxy ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), version.as_bytes()));
    assert!(!folder.database().exists());
}

#[test]
fn health_asks_the_running_proxy() {
    let proxy = Proxy::start(&Arc::new(Folder::new()), &[]);
    let folder = Folder::new();
    let check = |port: u16, host: &str, code: i32| {
        let port = port.to_string();
        let output = ran(folder.path(), &["--health"], &[("PORT", &port), ("HOST", host)]);
        assert_eq!(output.status.code(), Some(code), "{host}:{port} {}", String::from_utf8_lossy(&output.stderr));
    };
    let port = proxy.address().port();
    check(port, "127.0.0.1", 0);
    check(port, "0.0.0.0", 0);
    // Whoever else answers there is not the proxy.
    let other = Upstream::answering(|link, _| {
        link.send(reply("404 Not Found", "text/plain", "no"));
        link.fin();
    });
    check(other.address().port(), "127.0.0.1", 1);
    proxy.kill();
    check(port, "127.0.0.1", 1);
    assert!(!folder.database().exists());
}

/// Makes a database of the earlier program: two rows, one of them with words, older than those that are kept by default.
fn make_earlier(database: &Path) {
    let earlier = "CREATE TABLE requests (id INTEGER PRIMARY KEY AUTOINCREMENT, endpoint TEXT NOT NULL, model TEXT, \
        start_time TEXT NOT NULL, end_time TEXT NOT NULL, duration_ms INTEGER, input_tokens INTEGER, \
        output_tokens INTEGER, total_tokens INTEGER, prompt TEXT, output TEXT, request_id TEXT, is_error BOOLEAN, \
        error_message TEXT, http_status INTEGER, was_streamed BOOLEAN, created_at TEXT);
        INSERT INTO requests VALUES (3, '/v1/chat/completions', 'old', '2026-01-19T10:30:45Z', '2026-01-19T10:30:46Z', \
            850, 85, 320, 405, 'Hi', 'Hello', 'r-3', 0, NULL, 200, 1, '2026-01-19T10:30:46Z');
        INSERT INTO requests VALUES (4, '/v1/embeddings', NULL, '2026-01-20T10:30:45+01:00', \
            '2026-01-20T10:30:46+01:00', 10, NULL, NULL, NULL, NULL, NULL, NULL, 1, 'boom', 500, 0, NULL);";
    Connection::open(database).and_then(|c| c.execute_batch(earlier)).expect("valid SQL");
}

#[test]
fn a_database_of_the_earlier_program_is_upgraded_and_counted() {
    let folder = Arc::new(Folder::new());
    make_earlier(&folder.database());
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let url = upstream.url();
    for total in [3, 4] {
        let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", &url)]);
        assert!(proxy.wait_for_log("recording in").contains(&format!("{} rows", total - 1)));
        proxy.ask(chat());
        let summary = proxy.json("/stats/summary");
        assert_eq!((&summary["total_requests"], &summary["failed_requests"]), (&total.into(), &1.into()));
        assert_eq!(summary["total_tokens"], 405 + 22 * (total - 2));
        let models = proxy.json("/stats/by-model")["models"].clone();
        let names: Vec<&str> = models.as_array().expect("a list").iter().filter_map(|m| m["model"].as_str()).collect();
        assert!(["old", "unknown", "m-1"].iter().all(|name| names.contains(name)), "{names:?}");
        crate::record::check_summary_equals_rows(&proxy, &proxy.rows());
    }
    let rows = rows_of(&folder.database());
    assert_eq!((rows[0].id, rows[0].prompt.as_deref(), rows[0].output.as_deref()), (3, Some("Hi"), Some("Hello")));
    assert_eq!((rows[1].id, rows[1].is_error, rows[1].total_tokens), (4, true, None));
    assert_eq!(rows.len(), 4);
}

#[test]
fn what_came_with_an_upgrade_is_removed_only_by_a_limit_that_was_set() {
    let folder = Arc::new(Folder::new());
    make_earlier(&folder.database());
    let words =
        || count_of(&folder.database(), "SELECT count(*) FROM content WHERE prompt = 'Hi' AND output = 'Hello'");
    // Nobody's words came with nothing, and clean-up removes them.
    let (add, left) = ("INSERT INTO content (id, prompt) VALUES (9, 'x')", "SELECT count(*) FROM content WHERE id = 9");
    for start in 0..3 {
        let proxy = Proxy::start(&folder, &[]);
        until("clean-up", || (count_of(&folder.database(), left) == 0).then_some(()));
        assert_eq!((words(), proxy.rows().len()), (1, 2), "start {start}");
        let upgraded = usize::from(start == 0);
        assert_eq!(proxy.logged_at_least("was upgraded from the earlier program's form, 2 rows", upgraded), upgraded);
        assert_eq!(proxy.logged("is removed now"), 0, "start {start}");
        drop(proxy);
        Connection::open(folder.database()).and_then(|conn| conn.execute_batch(add)).expect("valid SQL");
    }
    // As long as the default, but the user's own.
    let proxy = Proxy::start(&folder, &[("CONTENT_DAYS", "30")]);
    until("clean-up", || (words() == 0).then_some(()));
    // What goes is named, and before it does.
    let named = "what was said in 1 request, from 2026-01-19 on, is older than CONTENT_DAYS=30 and is removed now";
    assert_eq!(proxy.logged_at_least(named, 1), 1);
    assert_eq!(rows_of(&folder.database()).len(), 2);
}

#[cfg(unix)]
#[test]
fn a_second_proxy_on_the_same_database_is_exit_code_1_and_told_who_holds_it() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let first = Proxy::before(&upstream);
    let folder = first.folder().clone();
    let (id, address) = (format!("process {}", first.id()), first.address().to_string());
    check_refused(folder.path(), &[("PORT", "0")], 1, &["metrics.db", &id, &address, "DATABASE_SHARED"]);
    // By another path.
    let same = folder.path().join("../").join(folder.path().file_name().expect("a folder")).join("metrics.db");
    check_refused(folder.path(), &[("DATABASE_URL", same.to_str().expect("text"))], 1, &[&id]);
    let url = upstream.url();
    let shared = Proxy::start(&folder, &[("LM_STUDIO_URL", &url), ("DATABASE_SHARED", "true")]);
    shared.wait_for_log("is also written by another proxy");
    for proxy in [&first, &shared] {
        assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY);
    }
    assert_eq!(first.rows().len(), 2);
    // A killed one holds nothing, and a stopped one leaves nothing behind.
    drop((first.kill(), shared));
    let mut third = Proxy::start(&folder, &[]);
    third.signal("TERM");
    assert_eq!(third.wait().code(), Some(0));
    assert!(!folder.path().join("metrics.db-lock").exists());
}

/// Regression: a database behind a link was not begun, at the start nor when it had been deleted, and two names of one
/// that was not there yet were two databases.
#[cfg(unix)]
#[test]
fn a_link_to_where_no_database_is_yet_is_followed() {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let (url, folder) = (upstream.url(), Arc::new(Folder::new()));
    std::os::unix::fs::symlink("elsewhere/real.db", folder.path().join("metrics.db")).expect("linked");
    let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", &url)]);
    let real = folder.path().join("elsewhere/real.db");
    let id = format!("process {}", proxy.id());
    check_refused(folder.path(), &[("DATABASE_URL", "sqlite:./elsewhere/real.db"), ("PORT", "0")], 1, &[&id]);
    assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY);
    assert_eq!(rows_of(&real).len(), 1);
    fs::remove_dir_all(folder.path().join("elsewhere")).expect("removed");
    assert_eq!(proxy.ask(chat()).text(), CHAT_REPLY);
    proxy.wait_for_log("was deleted or moved");
    assert_eq!(rows_of(&real).len(), 1);
}

#[test]
fn what_was_recorded_is_there_after_a_restart() {
    let folder = Arc::new(Folder::new());
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let url = upstream.url();
    for total in 1..4 {
        let proxy = Proxy::start(&folder, &[("LM_STUDIO_URL", &url)]);
        proxy.ask(chat());
        assert_eq!(proxy.json("/stats/summary")["total_requests"], total);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn it_asks_for_the_descriptors_that_it_may_need() {
    let check = |before: &str, expected: usize| {
        let proxy = Proxy::start_after(before, &Arc::new(Folder::new()), &[]);
        assert_eq!(proxy.descriptors_max(), expected, "{before}");
    };
    check("ulimit -S -n 200; ulimit -H -n 1000", 1000);
    check("ulimit -n 300", 300);
}

/// The heap is as the program wants it by a variable that the program begins anew with, once: whoever has set one, or takes it
/// away, is left alone.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn it_begins_anew_once_to_have_its_own_heap() {
    let upstream = Upstream::new();
    let check = |settings: &[(&str, &str)], expected: bool| {
        let proxy = Proxy::with(&upstream, settings);
        let environment = std::fs::read(format!("/proc/{}/environ", proxy.id())).expect("it runs");
        let environment = String::from_utf8_lossy(&environment).into_owned();
        // glibc takes it apart where it stands.
        let tunables =
            ["GLIBC_TUNABLES=glibc.malloc.arena_max=1", "tcache_count=32", "trim_threshold=", "mmap_threshold="];
        let told = tunables.iter().all(|tunable| environment.contains(tunable));
        assert_eq!(told, expected, "{settings:?}");
    };
    check(&[], true);
    check(&[("MALLOC_ARENA_MAX", "7")], false);
    check(&[("GLIBC_TUNABLES", "glibc.malloc.arena_max=3")], false);
    check(&[("LMS_METRICS_PROXY_BEGUN", "1")], false);
}
