//! What the log says: at the start, of each exchange, and as JSON; and what the settings say of themselves.

use std::fs;
use std::process::{Output, Stdio};
use std::sync::Arc;

use crate::errors::proxy_before_nobody;
use crate::harness::*;

/// A proxy before one that answers each request with a chat.
fn answering(settings: &[(&str, &str)]) -> (Proxy, Upstream) {
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let url = upstream.url();
    let settings = [&[("LM_STUDIO_URL", url.as_str())], settings].concat();
    (Proxy::start(&Folder::new().into(), &settings), upstream)
}

fn chat_of_curl() -> String {
    chat().replace("Host: localhost\r\n", "Host: localhost\r\nUser-Agent: curl/8.5.0\r\n")
}

#[test]
fn the_line_of_an_exchange_tells_what_its_row_does() {
    let (proxy, _upstream) = answering(&[]);
    // The first by a worker, the others in a lane.
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.ask(chat_of_curl()).status(), 200);
    }
    proxy.logged_at_least(" ms, model m-1, 17 tokens in, 5 tokens out, client curl", 3);
    assert!(proxy.wait_for_log("POST /v1/chat/completions 200 completed in ").contains("[INFO ]"));
}

#[test]
fn a_502_is_a_warning_with_its_reason() {
    let (proxy, _holds) = proxy_before_nobody(&[]);
    assert_eq!(proxy.ask(chat_of_curl()).status(), 502);
    let line = proxy.wait_for_log("502 upstream_unreachable in ");
    let told = line.contains("[WARN ]") && line.contains(" ms, model m, client curl: LM Studio does not answer at ");
    assert!(told && line.contains("connection refused"), "{line}");
}

#[test]
fn what_is_answered_or_refused_here_is_told_at_debug() {
    let proxy = Proxy::start(&Arc::new(Folder::new()), &[("RUST_LOG", "debug")]);
    proxy.ask(get("/nothing"));
    proxy.ask(get("/stats/requests/99"));
    proxy.ask("GET / HTTP/9.9\r\n\r\n");
    for words in ["GET /nothing 404", "GET /stats/requests/99 404", "refused: version_not_supported"] {
        assert!(proxy.wait_for_log(words).contains("[DEBUG]"), "{words}");
    }
}

#[test]
fn as_json_each_line_is_an_object_and_an_exchange_has_fields() {
    let folder = Arc::new(Folder::new());
    let upstream = Upstream::answering(|link, _| link.send(chat_reply()));
    let mut command = command(folder.path());
    command
        .envs([("PORT", "0"), ("LOG_FORMAT", "json"), ("UPSTREAM_CHECK", "false")])
        .env("LM_STUDIO_URL", upstream.url());
    let log = folder.path().join("log");
    command.stderr(fs::File::create(&log).expect("writable")).stdout(Stdio::null());
    let mut child = command.spawn().expect("the binary runs");
    let objects = || -> Vec<serde_json::Value> {
        let text = fs::read_to_string(&log).expect("text");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    };
    let message = |object: &serde_json::Value| object["message"].as_str().expect("words").to_owned();
    let address = until("the address", || {
        objects().iter().find_map(|o| message(o).strip_prefix("listening on http://").map(str::to_owned))
    });
    Client::connect(address.parse().expect("an address")).ask(chat_of_curl());
    let exchange =
        until("the exchange", || objects().into_iter().find(|object| object["path"] != serde_json::Value::Null));
    let _ = child.kill();
    let _ = child.wait();
    for (name, value) in [
        ("level", "INFO".into()),
        ("target", "lms_metrics_proxy::exchange::line".into()),
        ("method", "POST".into()),
        ("path", "/v1/chat/completions".into()),
        ("http_status", 200.into()),
        ("outcome", "completed".into()),
        ("model", "m-1".into()),
        ("input_tokens", 17.into()),
        ("output_tokens", 5.into()),
        ("client", "curl".into()),
        // Nobody knows it.
        ("tokens_per_second", serde_json::Value::Null),
    ] {
        assert_eq!(exchange[name], value, "{name}: {exchange}");
    }
    assert!(exchange.get("tokens_per_second").is_none(), "{exchange}");
    assert!(message(&exchange).contains(" 200 completed in "));
}

#[test]
fn the_start_says_what_can_be_opened_and_where_it_records() {
    let folder = Arc::new(Folder::new());
    let (proxy, _upstream) = answering(&[("HOST", "0.0.0.0")]);
    let port = proxy.address().port();
    assert!(proxy.wait_for_log("the page is at ").contains(&format!("at http://localhost:{port}/")));
    assert!(proxy.wait_for_log("STATS_TOKEN is not set").contains("[WARN ]"));
    let proxy = Proxy::start(&folder, &[("STATS_TOKEN", "t"), ("STAT_TOKEN", "t")]);
    let recording = proxy.wait_for_log("recording in ");
    let (_, path) = recording.split_once("recording in ").expect("found");
    assert!(path.starts_with('/') || cfg!(windows), "{recording}");
    assert!(proxy.wait_for_log("STAT_TOKEN").contains("Did you mean STATS_TOKEN?"));
    assert_eq!(proxy.logged("is not set"), 0);
}

#[test]
fn at_the_start_lm_studio_is_asked_once_and_that_is_no_exchange() {
    let (proxy, upstream) = answering(&[("UPSTREAM_CHECK", "true")]);
    assert!(proxy.wait_for_log("LM Studio answers at ").contains(&upstream.url()));
    proxy.ask(chat());
    assert_eq!(proxy.logged_at_least(" completed in ", 1), 1);
    assert_eq!((proxy.rows().len(), proxy.logged("/v1/models")), (1, 0));
    let (proxy, _holds) = proxy_before_nobody(&[("UPSTREAM_CHECK", "true")]);
    let line = proxy.wait_for_log("LM Studio does not answer at ");
    assert!(line.contains("[WARN ]") && line.contains("Is its server started?"), "{line}");
    assert!(proxy.rows().is_empty());
    // One that says nothing delays nobody.
    let silent = Upstream::new();
    let url = silent.url();
    let mut proxy = Proxy::start(&Folder::new().into(), &[("LM_STUDIO_URL", &url), ("UPSTREAM_CHECK", "true")]);
    let mut asked = silent.accept();
    assert!(asked.request().start_line().starts_with("GET /v1/models "));
    assert_eq!(proxy.json("/health")["status"], "ok");
    #[cfg(unix)]
    {
        proxy.signal("TERM");
        assert_eq!(proxy.wait().code(), Some(0));
    }
    let _ = &mut proxy;
}

fn ran(folder: &Folder, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = command(folder.path());
    command.args(arguments).envs(settings.iter().copied()).output().expect("the binary runs")
}

#[test]
fn check_shows_the_settings_and_asks_nothing() {
    let folder = Folder::new();
    fs::write(folder.path().join(".env"), "# a\nCONTENT_DAYS=7\nSTATS_TOKEN=hunter2\nPROT=9\n").expect("writable");
    let output = ran(&folder, &["--check"], &[("PORT", "9000")]);
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{warned}");
    let has = |line: &str, place: &str| said.lines().any(|l| l.starts_with(line) && l.ends_with(place));
    assert!(has("PORT=9000 ", "# environment") && has("HOST=127.0.0.1 ", "# default"), "{said}");
    assert!(has("CONTENT_DAYS=7 ", "# .env, line 2") && has("STATS_TOKEN=*** ", "# .env, line 3"), "{said}");
    assert!(warned.contains("Did you mean PORT?") && !format!("{said}{warned}").contains("hunter2"), "{warned}");
    assert!(!folder.database().exists());
    let bad = [("HOST", "nowhere"), ("MAX_BODY_MB", "x")];
    let output = ran(&folder, &["--check"], &bad);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), warned.lines().count()), (Some(2), 3), "{warned}");
    // All that is wrong, be it a setting, the file that one names, or the file with settings.
    let bad = [("HOST", "nowhere"), ("MODEL_PRICES", "/nowhere/prices"), ("UPSTREAM_CA", "/nowhere/ca")];
    fs::write(folder.path().join(".env"), "CONTENT_DAYS=7\nno setting\n").expect("writable");
    let output = ran(&folder, &["--check"], &bad);
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), warned.lines().count()), (Some(2), 4), "{warned}");
    for words in ["HOST is ", "/nowhere/prices", "/nowhere/ca", ".env, line 2"] {
        assert!(warned.contains(words), "{warned}");
    }
    assert!(
        said.ends_with('\n') && said.contains("\n# not read: .env, line 2: is not of the form NAME=value"),
        "{said}"
    );
    fs::remove_file(folder.path().join(".env")).expect("is there");
    let output = ran(&folder, &["--check"], &[("LM_STUDIO_URL", "http://me:hunter2@h")]);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(warned.contains("no user or query") && !warned.contains("hunter2"), "{warned}");
    for setting in ["MODEL_PRICES", "UPSTREAM_CA"] {
        let output = ran(&folder, &["--check"], &[(setting, "/nowhere/at-all")]);
        let warned = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && warned.contains("cannot be read"), "{warned}");
    }
}
