//! `--demo`: one command to a proxy at work, that leaves nothing behind and touches nothing of the user's.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::*;

/// The demo as a process.
fn begun(folder: &Folder, settings: &[(&str, &str)]) -> Child {
    let temporary = folder.path().join("temporary");
    fs::create_dir_all(&temporary).expect("writable");
    let mut command = command(folder.path());
    command.arg("--demo").env("TMPDIR", &temporary).envs(settings.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs")
}

/// The same, and the lines that it says.
fn started(folder: &Folder, settings: &[(&str, &str)]) -> (Child, Vec<String>) {
    let mut child = begun(folder, settings);
    let said = BufReader::new(child.stdout.take().expect("it is piped")).lines().take(3);
    let said = said.map(|line| line.expect("text")).collect();
    (child, said)
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
    assert!(sent.expect("there is a kill command").success());
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}

#[test]
fn one_command_shows_it_at_work_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let temporary = folder.path().join("temporary");
    // Settings that would lead elsewhere, or end the start.
    fs::write(folder.path().join(".env"), "LM_STUDIO_URL=http://192.0.2.1\nPORT=nonsense\n").expect("writable");
    let settings = [("DATABASE_URL", "sqlite:./mine.db"), ("HOST", "0.0.0.0"), ("STATS_TOKEN", "t")];
    let (mut child, said) = started(&folder, &settings);
    assert_eq!(said.len(), 3, "{said:?}");
    let (_, port) = said[0].split_once("http://localhost:").expect("an address to open");
    let port = port.split('/').next().and_then(|port| port.parse().ok()).expect("a port");
    assert!(said[1].contains(&format!("curl http://localhost:{port}/stats")), "{said:?}");
    let ask = |path: &str| Client::connect(([127, 0, 0, 1], port).into()).ask(get(path));
    let before = ask("/stats/summary").json()["total_requests"].as_u64().expect("a number");
    assert!(before > 500, "{before}");
    // Requests go on, of each kind, with counts.
    let rows = until("live rows", || {
        let rows = ask("/stats/requests?from=-1h&limit=50").json()["requests"].as_array().expect("a list").clone();
        let of = |endpoint: &str| {
            rows.iter()
                .any(|row| row["endpoint"] == endpoint && row["outcome"] == "completed" && row["total_tokens"].is_u64())
        };
        (of("/v1/chat/completions") && of("/v1/embeddings")).then_some(rows)
    });
    assert!(
        rows.iter().all(|row| row["outcome"] != "truncated" && row["outcome"] != "upstream_unreachable"),
        "{rows:?}"
    );
    // A stranger's own request is answered, too.
    let chat = r#"{"model":"google/gemma-3-12b","max_tokens":3,"messages":[{"role":"user","content":"Hi"}]}"#;
    let reply = Client::connect(([127, 0, 0, 1], port).into()).ask(post("/v1/chat/completions", chat));
    assert_eq!((reply.status(), &reply.json()["usage"]["completion_tokens"]), (200, &3.into()), "{}", reply.text());
    assert!(!is_empty(&temporary));
    signal(&child, "INT");
    assert_eq!(until("its end", || child.try_wait().expect("a child")).code(), Some(0));
    assert!(is_empty(&temporary), "something was left behind");
    assert!(!folder.path().join("mine.db").exists() && !folder.database().exists());
}

#[test]
fn a_demo_beside_another_takes_a_free_port_and_told_twice_leaves_nothing_behind_either() {
    let (one, other) = (Folder::new(), Folder::new());
    let (mut first, said) = started(&one, &[]);
    let (mut second, said_too) = started(&other, &[]);
    assert!(said[0].contains("http://localhost:") && said[0] != said_too[0], "{said:?} {said_too:?}");
    for (child, folder) in [(&mut first, &one), (&mut second, &other)] {
        until("its end", || {
            signal(child, "TERM");
            child.try_wait().expect("a child")
        });
        assert!(is_empty(&folder.path().join("temporary")), "something was left behind");
    }
}

#[cfg(unix)]
#[test]
fn told_to_stop_while_it_begins_it_leaves_nothing_behind_either() {
    for name in ["INT", "TERM"] {
        let folder = Folder::new();
        let mut child = begun(&folder, &[]);
        let temporary = folder.path().join("temporary");
        until("its folder", || (!is_empty(&temporary)).then_some(()));
        signal(&child, name);
        assert_eq!(until("its end", || child.try_wait().expect("a child")).code(), Some(0), "{name}");
        assert!(is_empty(&temporary), "something was left behind by {name}");
    }
}
