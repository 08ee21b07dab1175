//! What every variable takes, what it refuses, and with which words.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;

use super::*;

/// Reads settings in which one variable is set and no other.
fn with(name: &str, value: &str) -> Result<(Settings, Vec<String>), StartError> {
    read(|asked| (asked == name).then(|| value.to_owned()))
}

/// A value is taken, and what came of it shows as `expected`.
#[track_caller]
fn check(name: &str, value: &str, shows: impl Fn(&Settings) -> String, expected: &str) {
    match with(name, value) {
        Ok((settings, _)) => assert_eq!(shows(&settings), expected, "{name}={value:?}"),
        Err(error) => panic!("{name}={value:?} was refused: {error}"),
    }
}

/// A value is refused in one line that names the variable and what it takes.
#[track_caller]
fn refused(name: &str, value: &str) -> String {
    let line = match with(name, value) {
        Ok(_) => panic!("{name}={value:?} was taken"),
        Err(error) => error.to_string(),
    };
    assert!(line.starts_with(name) && line.contains(": it takes "), "{line}");
    assert!(!line.contains('\n') && line.len() < 400, "{line}");
    line
}

#[test]
fn without_any_variable_the_documented_defaults_hold() {
    let (settings, warnings) = read(|_| None).expect("defaults are good");
    assert!(warnings.is_empty());
    let expected = "Settings { port: 8080, host: 127.0.0.1, upstream: UpstreamUrl { scheme: \"http\", authority: \
        localhost:1234, port: 1234, prefix: \"\" }, database: \"./metrics.db\", \
        database_shared: false, log_level: Info, log_json: false, inject_usage: true, content_bytes_max: 16777216, content_days: Limit { \
        max: 30, is_set: false }, content_bytes_total_max: Limit { max: 1073741824, is_set: false }, retention_days: \
        Limit { max: 0, is_set: false }, max_workers: 1024, body_bytes_max: 268435456, \
        allowed_hosts: [], session_header: None, stats_token: None, model_prices: None, power_watts: None, power_price: None, upstream_ca: None, upstream_check: true, upstream_connect_timeout: 10s, \
        upstream_idle_timeout: None, shutdown_grace: 30s, db_sync: Normal }";
    assert_eq!(format!("{settings:?}"), expected);
}

#[test]
fn every_line_of_the_table_is_read_and_shown_in_the_help() {
    let asked = RefCell::new(BTreeSet::new());
    read(|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    })
    .expect("defaults are good");
    let help = help_text();
    for setting in SETTINGS {
        assert!(asked.borrow().contains(setting.name), "{} is never read", setting.name);
        assert!(help.contains(&format!("\n  {} (default: ", setting.name)), "{} is not in the help", setting.name);
    }
    assert_eq!(asked.borrow().len(), SETTINGS.len());
    assert!(help.lines().all(|line| line.len() <= 120));
}

#[test]
fn the_example_file_names_every_setting_with_its_default() {
    let example = include_str!("../../.env.example");
    for setting in SETTINGS {
        let line = format!("\n#{}={}\n", setting.name, setting.default);
        assert!(example.contains(&line), "{line}");
    }
}

#[test]
fn the_table_of_settings_tells_every_one_with_its_default() {
    let table = include_str!("../../docs/settings.md");
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "empty".to_owned() } else { format!("`{}`", setting.default) };
        let line = format!("\n| `{}` | {default} | ", setting.name);
        assert!(table.contains(&line), "{line}");
    }
}

#[test]
fn an_empty_or_blank_value_counts_as_unset() {
    for setting in SETTINGS {
        for blank in ["", " ", "\t\r"] {
            assert!(with(setting.name, blank).is_ok(), "{}={blank:?}", setting.name);
        }
    }
    check("PORT", " 9000 ", |s| s.port.to_string(), "9000");
}

#[test]
fn a_limit_that_was_set_is_told_from_a_default_even_if_it_is_the_same() {
    for (value, max, is_set) in [("", 30, false), (" ", 30, false), ("30", 30, true), ("7", 7, true), ("0", 0, true)] {
        let limit = with("CONTENT_DAYS", value).expect("is taken").0.content_days;
        assert_eq!(limit, Limit { max, is_set }, "{value:?}");
        assert!(!with("CONTENT_DAYS", value).expect("is taken").0.content_bytes_total_max.is_set, "{value:?}");
    }
    for name in ["CONTENT_MB_MAX", "RETENTION_DAYS"] {
        let (s, _) = with(name, "9").expect("is taken");
        assert_eq!(
            (s.content_bytes_total_max.is_set, s.retention_days.is_set),
            (name == "CONTENT_MB_MAX", name == "RETENTION_DAYS")
        );
    }
}

#[test]
fn numbers_are_digits_within_their_range() {
    check("PORT", "0", |s| s.port.to_string(), "0");
    check("PORT", "65535", |s| s.port.to_string(), "65535");
    check("CONTENT_KB_MAX", "1", |s| s.content_bytes_max.to_string(), "1024");
    check("CONTENT_MB_MAX", "0", |s| s.content_bytes_total_max.max.to_string(), "0");
    check("MAX_BODY_MB", "2", |s| s.body_bytes_max.to_string(), "2097152");
    check("UPSTREAM_IDLE_TIMEOUT_S", "0", |s| format!("{:?}", s.upstream_idle_timeout), "None");
    check("UPSTREAM_IDLE_TIMEOUT_S", "9", |s| format!("{:?}", s.upstream_idle_timeout), "Some(9s)");
    for bad in ["65536", "-1", "+80", "80.0", "0x50", "8 0", "eighty", "99999999999999999999999"] {
        refused("PORT", bad);
    }
    for name in ["CONTENT_KB_MAX", "MAX_WORKERS", "MAX_BODY_MB", "UPSTREAM_CONNECT_TIMEOUT_S"] {
        refused(name, "0");
    }
    for setting in SETTINGS.iter().filter(|s| s.takes.contains("a number")) {
        refused(setting.name, "18446744073709551615");
        let largest = setting.takes.split("to ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a range");
        assert!(with(setting.name, largest).is_ok(), "{} {largest}", setting.name);
    }
}

#[test]
fn electricity_is_told_in_decimals_and_its_price_may_have_a_currency() {
    check("POWER_WATTS", "350", |s| format!("{:?}", s.power_watts), "Some(350.0)");
    check("POWER_WATTS", "62.5", |s| format!("{:?}", s.power_watts), "Some(62.5)");
    for bad in ["0", "-1", "1e3", "inf", "350 W", "100001", "."] {
        refused("POWER_WATTS", bad);
    }
    let price =
        |s: &Settings| s.power_price.as_ref().map(|p| format!("{} {:?}", p.per_kwh, p.currency)).unwrap_or_default();
    check("POWER_PRICE", "0.30", price, "0.3 None");
    check("POWER_PRICE", "0.30 EUR", price, "0.3 Some(\"EUR\")");
    check("POWER_PRICE", "0", price, "0 None");
    for bad in ["-0.3", "EUR", "0.30 EUR a kWh", "0,30"] {
        refused("POWER_PRICE", bad);
    }
}

#[test]
fn words_are_taken_in_any_case() {
    let inject = |s: &Settings| s.inject_usage.to_string();
    for yes in ["true", "1", "YES", "On"] {
        check("INJECT_USAGE", yes, inject, "true");
    }
    for no in ["false", "0", "No", "OFF"] {
        check("INJECT_USAGE", no, inject, "false");
    }
    refused("INJECT_USAGE", "maybe");
    check("LOG_CONTENT", "None", |s| s.content_bytes_max.to_string(), "0");
    refused("LOG_CONTENT", "some");
    check("DB_SYNC", "FULL", |s| format!("{:?}", s.db_sync), "Full");
    refused("DB_SYNC", "off");
}

#[test]
fn the_listening_address_is_an_address_or_localhost() {
    let host = |s: &Settings| s.host.to_string();
    check("HOST", "0.0.0.0", host, "0.0.0.0");
    check("HOST", "localhost", host, "127.0.0.1");
    check("HOST", "::", host, "::");
    check("HOST", "[::1]", host, "::1");
    for bad in ["example.com", "0.0.0.0:8080", "[127.0.0.1]", "*", "1.2.3", "http://localhost"] {
        refused("HOST", bad);
    }
}

#[test]
fn an_upstream_is_scheme_host_port_and_prefix() {
    let parts = |s: &Settings| {
        let u = &s.upstream;
        format!("{} {} {} {} {} {u}", u.scheme, u.authority.host(), u.port, u.authority, u.prefix)
    };
    check("LM_STUDIO_URL", "http://nas:1", parts, "http nas 1 nas:1  http://nas:1");
    check("LM_STUDIO_URL", "HTTP://NAS.local", parts, "http nas.local 80 nas.local  http://nas.local");
    check("LM_STUDIO_URL", "https://a_b.c.", parts, "https a_b.c. 443 a_b.c.  https://a_b.c.");
    check("LM_STUDIO_URL", "http://[::1]:5", parts, "http [::1] 5 [::1]:5  http://[::1]:5");
    check("LM_STUDIO_URL", "https://h/lm/a%20b", parts, "https h 443 h /lm/a%20b https://h/lm/a%20b");
}

#[test]
fn a_slash_or_v1_at_the_end_of_the_upstream_is_taken_off_with_a_warning() {
    for (given, base) in [
        ("http://h:1/", "http://h:1"),
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/v1/", "http://h:1"),
        ("http://h:1//v1//", "http://h:1"),
        ("http://h:1/v1/v1", "http://h:1"),
        ("http://h:1/lm/v1/", "http://h:1/lm"),
    ] {
        let (settings, warnings) = with("LM_STUDIO_URL", given).expect(given);
        assert_eq!(settings.upstream.to_string(), base, "{given}");
        assert_eq!(warnings.len(), 1, "{given}");
    }
    for given in ["http://h:1", "http://h:1/lm", "http://h:1/v10", "http://v1"] {
        let (settings, warnings) = with("LM_STUDIO_URL", given).expect(given);
        assert_eq!((settings.upstream.to_string().as_str(), warnings.len()), (given, 0));
    }
}

#[test]
fn an_upstream_that_is_no_plain_base_is_refused() {
    for bad in [
        "localhost:1234",
        "localhost",
        "ftp://h",
        "http:/h",
        "http://",
        "http://:80",
        "http:///v1",
        "http://h:",
        "http://h:0",
        "http://h:65536",
        "http://h:+1",
        "http://h:1:2",
        "http://h x",
        "http://h?x=y",
        "http://h/a?b",
        "http://h/#a",
        "http://h#a",
        "http://u@h",
        "http://u:p@h",
        "http://[::1",
        "http://[::1]x",
        "http://[1.2.3.4]",
        "http://[::1%25eth0]",
        "http://a..b",
        "http://häuser",
        "http://h/a//b",
        "http://h/../b",
        "http://h/%2E%2e/b",
        "http://h/a%2",
        "http://h/a\\b",
        "http://h/ä",
        "http://h\n.x",
        "http://h/a\r\nX: y",
    ] {
        refused("LM_STUDIO_URL", bad);
    }
}

#[test]
fn an_upstream_that_is_the_proxy_itself_is_refused() {
    let read = |host: &str, url: &str| {
        let set = [("HOST", host), ("LM_STUDIO_URL", url)];
        read(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    };
    for (host, url) in [
        ("127.0.0.1", "http://localhost:8080"),
        ("127.0.0.1", "http://127.0.0.1:8080/v1"),
        ("::1", "http://[::1]:8080"),
        ("0.0.0.0", "http://localhost:8080"),
        ("192.168.1.2", "http://192.168.1.2:8080"),
    ] {
        let line = read(host, url).expect_err(url).to_string();
        assert!(line.contains("own"), "{line}");
    }
    for (host, url) in [
        ("127.0.0.1", "http://localhost:8081"),
        ("127.0.0.1", "http://192.168.1.2:8080"),
        ("192.168.1.2", "http://localhost:8080"),
        ("0.0.0.0", "http://nas:8080"),
    ] {
        assert!(read(host, url).is_ok(), "{host} {url}");
    }
}

#[test]
fn a_database_is_a_file() {
    let path = |s: &Settings| s.database.display().to_string();
    check("DATABASE_URL", "sqlite:a.db", path, "a.db");
    check("DATABASE_URL", "sqlite://./a.db", path, "./a.db");
    check("DATABASE_URL", "sqlite:///var/a b.db", path, "/var/a b.db");
    check("DATABASE_URL", "SQLite:/var/a.db?mode=rwc", path, "/var/a.db");
    check("DATABASE_URL", "data/a.db", path, "data/a.db");
    check("DATABASE_URL", "a.db?mode=rwc", path, "a.db");
    check("DATABASE_URL", "what?.db", path, "what?.db");
    check("DATABASE_URL", "C:\\a.db", path, "C:\\a.db");
    for bad in [
        "sqlite:",
        "sqlite://",
        "sqlite::memory:",
        "sqlite://:memory:",
        ":memory:",
        "sqlite:a.db?mode=memory",
        "sqlite:a.db?mode=ro",
        "sqlite:a.db?cache=shared",
        "postgres://h/db",
        "mysql://h/db",
        "file:a.db",
        "data/",
        "~/a.db",
        "sqlite:~/a.db",
        "a\0.db",
    ] {
        refused("DATABASE_URL", bad);
    }
}

#[test]
fn of_the_log_directives_those_for_this_program_count() {
    let level = |s: &Settings| s.log_level.to_string();
    for (value, expected) in [
        ("off", "OFF"),
        ("Error", "ERROR"),
        ("warn", "WARN"),
        ("TRACE", "TRACE"),
        ("lms_metrics_proxy=debug", "DEBUG"),
        ("lms_metrics_proxy=debug,other=info", "DEBUG"),
        ("other=info", "INFO"),
        ("warn,other=trace", "WARN"),
        ("warn, lms_metrics_proxy = debug", "DEBUG"),
        ("lms_metrics_proxy=debug,warn", "DEBUG"),
        ("lms_metrics_proxy", "TRACE"),
        ("other=nonsense,", "INFO"),
    ] {
        check("RUST_LOG", value, level, expected);
    }
    for bad in ["verbose", "lms_metrics_proxy=verbose", "warn,verbose", "3", "info/words"] {
        refused("RUST_LOG", bad);
    }
}

#[test]
fn allowed_hosts_are_bare_names() {
    let hosts = |s: &Settings| s.allowed_hosts.join(" ");
    check("ALLOWED_HOSTS", "LM.Example.com, other.,,", hosts, "lm.example.com other");
    check("ALLOWED_HOSTS", "*", hosts, "*");
    for bad in ["http://a", "a:80", "*.a", "a b", "a/b"] {
        refused("ALLOWED_HOSTS", bad);
    }
}

#[test]
fn a_session_header_is_the_name_of_a_field() {
    let name = |s: &Settings| s.session_header.clone().unwrap_or_default();
    check("SESSION_HEADER", " X-My-Session ", name, "X-My-Session");
    for bad in ["X-My-Session:", "a b", "é"] {
        refused("SESSION_HEADER", bad);
    }
}

#[test]
fn a_secret_is_never_shown() {
    let line = refused("STATS_TOKEN", "hunter2 hunter2");
    assert!(!line.contains("hunter2"), "{line}");
    let (settings, _) = with("STATS_TOKEN", "hunter2").expect("a good token");
    assert_eq!(settings.stats_token.as_ref().map(Token::as_bytes), Some(&b"hunter2"[..]));
    assert!(!format!("{settings:?}").contains("hunter2"));
    for (name, value) in [("DATABASE_URL", "postgres://u:hunter2@h/db"), ("LM_STUDIO_URL", "http://u:hunter2@h")] {
        let line = refused(name, value);
        assert!(!line.contains("hunter2") && line.contains("://***@h"), "{line}");
    }
}

#[test]
fn what_is_shown_of_a_value_is_short_and_on_one_line() {
    let line = refused("HOST", "a\n\u{1b}[2Jb");
    assert!(line.starts_with(r#"HOST is "a\n\u{1b}[2Jb": it takes an IP address or localhost"#), "{line}");
    assert!(refused("HOST", &"é".repeat(100_000)).contains('…'));
}

#[test]
fn flags_are_known_or_refused() {
    let flags = |line: &str| flags(line.split_whitespace().map(OsString::from));
    for (line, flag) in [
        ("", Flag::Run),
        ("--help", Flag::Help),
        ("-h", Flag::Help),
        ("--version", Flag::Version),
        ("-V", Flag::Version),
        ("--health", Flag::Health),
        ("--check", Flag::Check),
        ("--demo", Flag::Demo),
        ("--help --version", Flag::Help),
        ("--version --help", Flag::Help),
        ("--health --health", Flag::Health),
    ] {
        assert_eq!(flags(line), Ok(flag), "{line}");
    }
    assert!(flags("--version --health").is_err_and(|e| e.to_string().starts_with("one thing at a time")));
    for line in ["--port=1", "help", "--help --what", "--"] {
        assert!(flags(line).is_err_and(|e| e.to_string().contains("it takes --help")), "{line}");
    }
}

#[test]
fn a_flag_that_is_a_setting_is_answered_with_how_to_set_it() {
    let check = |line: &str, setting: &str| {
        let error = flags(line.split_whitespace().map(OsString::from)).expect_err(line).to_string();
        assert!(error.ends_with(&format!("or lines of .env: {setting}")), "{line}: {error}");
        assert!(!error.contains('\n') && !error.contains("hunter2"), "{error}");
    };
    check("--port 9000", "PORT=9000");
    check("--port=9000", "PORT=9000");
    check("-port --host", "PORT=…");
    check("--lm-studio-url http://h:1", "LM_STUDIO_URL=http://h:1");
    check("--db m.db", "DATABASE_URL=m.db");
    check("--log-level", "RUST_LOG=…");
    check("--stats-token hunter2", "STATS_TOKEN=…");
    check("PORT=9000", "PORT=9000");
    for line in ["port", "serve", "--frobnicate 3"] {
        let error = flags(line.split_whitespace().map(OsString::from)).expect_err(line).to_string();
        assert!(error.ends_with("or --health"), "{error}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let lookup = |name: &str| match name {
        "PORT" => Some("x".to_owned()),
        "HOST" => Some("y".to_owned()),
        "STATS_TOKEN" => Some("hunter2 hunter2".to_owned()),
        _ => None,
    };
    let error = read(lookup).expect_err("three are bad").to_string();
    let names: Vec<&str> = error.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, ["PORT", "HOST", "STATS_TOKEN"], "{error}");
    let error = from_files("all", &[("PORT", "x")], &[b"nonsense\n", b"\xff"]).expect_err("three are bad").to_string();
    let places = [("1.env, line 1: ", 0), ("2.env, line 1: ", 1), ("PORT is \"x\"", 2)];
    assert!(places.iter().all(|(words, at)| error.lines().nth(*at).is_some_and(|l| l.contains(words))), "{error}");
}

#[test]
fn an_open_address_without_a_token_is_warned_of() {
    let warnings = |host: &str, token: Option<&str>| {
        let lookup = |name: &str| match name {
            "HOST" => Some(host.to_owned()),
            "STATS_TOKEN" => token.map(str::to_owned),
            _ => None,
        };
        read(lookup).expect("is taken").1
    };
    for open in ["0.0.0.0", "::", "192.168.1.5", "::ffff:10.0.0.1"] {
        assert!(warnings(open, None).iter().any(|w| w.contains("STATS_TOKEN is not set")), "{open}");
        assert!(warnings(open, Some("t")).is_empty(), "{open}");
    }
    for closed in ["127.0.0.1", "127.0.0.9", "::1", "localhost", "::ffff:127.0.0.1"] {
        assert!(warnings(closed, None).is_empty(), "{closed}");
    }
}

#[test]
fn a_name_that_is_none_of_ours_is_warned_of() {
    let warnings = |names: &[&str], content: &str| {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        given("names", &[], &names, &[content.as_bytes()]).read().taken().expect("good settings").1
    };
    let told = warnings(&["PATH", "HOME", "STAT_TOKEN", "LOG_LEVEL"], "PORT=1\n# a\nPROT=99\nA=1\nDATABASE_URL=x$A\n");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("STAT_TOKEN is no setting. Did you mean STATS_TOKEN?"), "{told:?}");
    assert!(
        told[1].contains("1.env, line 3: \"PROT\" is no setting") && told[1].ends_with("Did you mean PORT?"),
        "{told:?}"
    );
    let many: String = (0..9).map(|n| format!("OTHER_{n}=hunter2\n")).collect();
    let told = warnings(&[], &many);
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(told[5].contains("4 more names") && !told.concat().contains("hunter2"), "{told:?}");
}

#[test]
fn the_table_says_where_each_value_comes_from_and_shows_no_secret() {
    let files: [&[u8]; 1] = [b"\nSTATS_TOKEN=hunter2\nHOST=::1\nSESSION_HEADER='  '\nMODEL_PRICES='a b'\n"];
    let given = given("table", &[("PORT", "9000"), ("LM_STUDIO_URL", "http://u:hunter2@h")], &[], &files);
    let table = given.table();
    let line = |name: &str| table.lines().find(|line| line.starts_with(&format!("{name}="))).expect(name).to_owned();
    let check = |name: &str, value: &str, place: &str| {
        let line = line(name);
        assert!(line.starts_with(&format!("{name}={value} ")) && line.ends_with(place), "{line}");
    };
    check("PORT", "9000", "# environment");
    check("STATS_TOKEN", "***", "1.env, line 2");
    check("HOST", "::1", "1.env, line 3");
    check("SESSION_HEADER", "", "# default");
    check("MODEL_PRICES", "\"a b\"", "1.env, line 5");
    check("LM_STUDIO_URL", "http://***@h", "# environment");
    check("CONTENT_DAYS", "30", "# default");
    assert_eq!(table.lines().count(), SETTINGS.len());
    assert!(!table.contains("hunter2"), "{table}");
}

/// What files with these contents give, in a folder that goes away with the test.
fn given(test: &str, environment: &[(&str, &str)], names: &[String], files: &[&[u8]]) -> source::Given {
    let folder = std::env::temp_dir().join(format!("lms_metrics_proxy-{}-{test}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let mut paths = vec![folder.join("absent")];
    for (number, content) in files.iter().enumerate() {
        let path = folder.join(format!("{}.env", number + 1));
        fs::write(&path, content).expect("a temporary file");
        paths.push(path);
    }
    let set = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
    let given = source::from_sources(set, names, &paths);
    fs::remove_dir_all(&folder).expect("our own folder");
    given
}

/// The settings in them.
fn from_files(test: &str, environment: &[(&str, &str)], files: &[&[u8]]) -> Result<Settings, StartError> {
    given(test, environment, &[], files).read().taken().map(|(settings, _)| settings)
}

#[test]
fn a_real_variable_outranks_the_first_file_and_that_the_second() {
    let environment = [("PORT", "1"), ("CONTENT_DAYS", "")];
    let first = b"PORT=2\nRETENTION_DAYS=2 # kept\nCONTENT_DAYS=2\n\nMAX_WORKERS=\n";
    let second = b"\xef\xbb\xbfPORT=3\r\nRETENTION_DAYS=3\r\nexport MAX_WORKERS='3'\r\nOTHERS=x\r\nMAX_BODY_MB=3 ";
    let s = from_files("ranks", &environment, &[first, second]).expect("good files");
    let got = (s.port, s.retention_days.max, s.content_days.max, s.max_workers, s.body_bytes_max >> 20);
    assert_eq!(got, (1, 2, 2, 3, 3));
}

#[test]
fn a_malformed_file_is_refused_with_its_line_and_without_its_content() {
    for (content, line) in [
        (&b"PORT=1\nhunter2\n"[..], 2),
        (b"# a\n\nSTATS_TOKEN=hunter2 hunter2", 3),
        (b"PORT=1\nSTATS_TOKEN=\"hunter2\nMORE=1\n", 2),
        (b"PORT=1\nDATABASE_URL=C:\\hunter2\nMORE=1\n", 2),
        (b"A=1\nB=2\nC=hunter2\xff\n", 3),
        (b"\n\n\n=hunter2\n", 4),
    ] {
        let shown = String::from_utf8_lossy(content);
        let error = from_files("malformed", &[], &[content]).expect_err(&shown).to_string();
        assert!(error.contains(&format!("1.env, line {line}: ")), "{shown:?}: {error}");
        assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_variable_that_nobody_has_set_is_refused_and_not_taken_for_nothing() {
    let token = |file: &str| {
        let settings = from_files("unset", &[], &[file.as_bytes()])?;
        Ok::<_, StartError>(settings.stats_token.map(|token| String::from_utf8_lossy(token.as_bytes()).into_owned()))
    };
    for value in ["a$b", "\"a$b\"", "${hunter2}", "a$", "$hunter2", "'a'$b", "$PORT$b", "a$b'c'"] {
        let error = token(&format!("PORT=1\nSTATS_TOKEN={value}\n")).expect_err(value).to_string();
        assert!(error.contains("1.env, line 2: ") && error.contains("'single quotes'"), "{value}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for (value, expected) in [
        ("'a$b'", "a$b"),
        (r"a\$b", "a$b"),
        (r#""a\$b""#, "a$b"),
        ("a$PORT", "a1"),
        ("${PORT}b", "1b"),
        ("'\"a$b'", "\"a$b"),
        ("ab # $c", "ab"),
        ("a#b", "a#b"),
    ] {
        assert_eq!(token(&format!("PORT=1\nSTATS_TOKEN={value}\n")), Ok(Some(expected.to_owned())), "{value}");
    }
    // What is not ours is not looked at.
    assert_eq!(token("OTHER=$unset_by_all\n"), Ok(None));
}

#[test]
fn an_endless_file_is_refused_and_of_a_folder_is_warned() {
    let long = vec![b'\n'; 1024 * 1024 + 1];
    assert!(from_files("long", &[], &[&long]).expect_err("too long").to_string().contains("1048576"));
    let (_, warnings) = source::from_sources(|_| None, &[], &[std::env::temp_dir()]).read().taken().expect("defaults");
    assert!(warnings.len() == 1 && warnings[0].contains("is a folder"), "{warnings:?}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_an_error() {
    use std::os::unix::ffi::OsStringExt;
    let set = |name: &str| (name == "HOST").then(|| OsString::from_vec(vec![0xff, 0xfe]));
    let error = source::from_sources(set, &[], &[]).read().taken().expect_err("no text");
    assert_eq!(error.to_string(), "HOST holds bytes that are not UTF-8: it takes text");
}
