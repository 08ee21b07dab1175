//! The settings: what the proxy can be told, what it assumes otherwise, and what it says about a bad value.
//!
//! A setting is an environment variable, or a line of `.env` (see [`source`]). One table holds name, default and
//! meaning of each; the parser, `--help`, `--check` and every error read that table. [`read`] is pure: it looks names up
//! through a closure and touches neither environment nor files. What a user has probably meant instead knows [`slips`]. Nothing here opens, connects or creates anything: a path that
//! does not exist and a host that does not answer are found out by whoever needs them.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

pub use flag::{Flag, flags, help_text};
pub use source::{Given, from_environment};
pub use value::{PowerPrice, Token, UpstreamUrl};

mod flag;
mod slips;
pub mod source;
mod value;

/// Everything the proxy was told, checked and in the units it is used in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `PORT`. 0 lets the operating system choose; the log tells which.
    pub port: u16,
    /// `HOST`, the address to listen on.
    pub host: IpAddr,
    /// `LM_STUDIO_URL`.
    pub upstream: UpstreamUrl,
    /// `DATABASE_URL` without its scheme.
    pub database: PathBuf,
    /// `DATABASE_SHARED`: whether other proxies may write the same database.
    pub database_shared: bool,
    /// `RUST_LOG`, as far as it speaks of this program.
    pub log_level: LevelFilter,
    /// `LOG_FORMAT`: whether lines of the log are JSON objects.
    pub log_json: bool,
    /// `INJECT_USAGE`.
    pub inject_usage: bool,
    /// `CONTENT_KB_MAX`, in bytes; 0 where `LOG_CONTENT` says that no words are kept.
    pub content_bytes_max: usize,
    /// `CONTENT_DAYS`.
    pub content_days: Limit,
    /// `CONTENT_MB_MAX`, in bytes.
    pub content_bytes_total_max: Limit,
    /// `RETENTION_DAYS`.
    pub retention_days: Limit,
    /// `MAX_WORKERS`.
    pub max_workers: usize,
    /// `MAX_BODY_MB`, in bytes.
    pub body_bytes_max: u64,
    /// `ALLOWED_HOSTS`, in lower case; `*` stands for any.
    pub allowed_hosts: Vec<String>,
    /// `SESSION_HEADER`.
    pub session_header: Option<String>,
    /// `STATS_TOKEN`.
    pub stats_token: Option<Token>,
    /// `MODEL_PRICES`.
    pub model_prices: Option<PathBuf>,
    /// `POWER_WATTS`.
    pub power_watts: Option<f64>,
    /// `POWER_PRICE`.
    pub power_price: Option<PowerPrice>,
    /// `UPSTREAM_CA`.
    pub upstream_ca: Option<PathBuf>,
    /// `UPSTREAM_CHECK`: whether LM Studio is asked at the start whether it answers.
    pub upstream_check: bool,
    /// `UPSTREAM_CONNECT_TIMEOUT_S`.
    pub upstream_connect_timeout: Duration,
    /// `UPSTREAM_IDLE_TIMEOUT_S`; `None` waits without end.
    pub upstream_idle_timeout: Option<Duration>,
    /// `SHUTDOWN_GRACE_S`.
    pub shutdown_grace: Duration,
    /// `DB_SYNC`.
    pub db_sync: DbSync,
}

/// How much of what was recorded is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Days or bytes; 0 = no limit.
    pub max: u64,
    /// Whether the user has set it; else it is this version's default.
    pub is_set: bool,
}

/// What a committed row survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DbSync {
    /// A killed process.
    Normal,
    /// A power cut as well.
    Full,
}

/// Why the proxy cannot start, or not go on: a line for each reason, which says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    words: String,
    exit_code: u8,
}

impl StartError {
    /// Of what no setting can be blamed for.
    pub fn new(words: impl fmt::Display) -> StartError {
        StartError { words: words.to_string(), exit_code: 1 }
    }

    /// A setting is what is wrong.
    pub fn of_setting(words: String) -> StartError {
        StartError { words, exit_code: 2 }
    }

    /// The same of several.
    pub fn of_settings(lines: &[String]) -> StartError {
        StartError::of_setting(lines.join("\n"))
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

/// A variable holds what it does not take. `held`: fit for showing; `None` where that is a secret.
fn not_taken(name: &str, held: Option<String>, takes: &str) -> String {
    match held {
        Some(held) => format!("{name} is {held}: it takes {takes}"),
        None => format!("{name} cannot be used (its value is not shown): it takes {takes}"),
    }
}

/// Reads the settings through `lookup`, which answers with the value of a variable. An empty value counts as unset.
///
/// Beside the settings come warnings for the log: about slips that were put right, and about what will hurt. An error
/// tells all that is wrong.
pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<(Settings, Vec<String>), StartError> {
    read_from(&lookup).taken()
}

/// What was read, whether it can be used or not.
#[derive(Debug)]
pub struct ReadSettings {
    /// For what is wrong, its default stands.
    pub settings: Settings,
    /// For the log.
    pub warnings: Vec<String>,
    /// A line for each that is wrong.
    pub wrong: Vec<String>,
}

impl ReadSettings {
    /// The settings and the warnings, if nothing is wrong.
    pub fn taken(self) -> Result<(Settings, Vec<String>), StartError> {
        if self.wrong.is_empty() {
            Ok((self.settings, self.warnings))
        } else {
            Err(StartError::of_settings(&self.wrong))
        }
    }
}

/// The same: its code is there once, whoever looks up.
fn read_from(lookup: &dyn Fn(&str) -> Option<String>) -> ReadSettings {
    let from = Lookup { lookup, wrong: RefCell::default() };
    let (upstream, mut warnings) = from.parsed("LM_STUDIO_URL", value::upstream);
    let keeps_words = from.choice("LOG_CONTENT", &[("full", true), ("none", false)]);
    let content_bytes_max = from.number("CONTENT_KB_MAX", 1..=65_536) as usize * 1024;
    let settings = Settings {
        port: from.number("PORT", 0..=65_535) as u16,
        host: from.parsed("HOST", value::listening_address),
        upstream,
        database: from.parsed("DATABASE_URL", value::database),
        database_shared: from.parsed("DATABASE_SHARED", value::boolean),
        log_level: from.parsed("RUST_LOG", value::log_level),
        log_json: from.choice("LOG_FORMAT", &[("text", false), ("json", true)]),
        inject_usage: from.parsed("INJECT_USAGE", value::boolean),
        content_bytes_max: if keeps_words { content_bytes_max } else { 0 },
        content_days: from.limit("CONTENT_DAYS", 0..=36_500, 1),
        content_bytes_total_max: from.limit("CONTENT_MB_MAX", 0..=1_048_576, 1024 * 1024),
        retention_days: from.limit("RETENTION_DAYS", 0..=36_500, 1),
        max_workers: from.number("MAX_WORKERS", 1..=10_000) as usize,
        body_bytes_max: from.number("MAX_BODY_MB", 1..=4_096) * 1024 * 1024,
        allowed_hosts: from.parsed("ALLOWED_HOSTS", value::host_names),
        session_header: from.optional("SESSION_HEADER", value::field_name),
        stats_token: from.optional("STATS_TOKEN", value::token),
        model_prices: from.optional("MODEL_PRICES", value::file),
        power_watts: from.optional("POWER_WATTS", value::watts),
        power_price: from.optional("POWER_PRICE", value::power_price),
        upstream_ca: from.optional("UPSTREAM_CA", value::file),
        upstream_check: from.parsed("UPSTREAM_CHECK", value::boolean),
        upstream_connect_timeout: Duration::from_secs(from.number("UPSTREAM_CONNECT_TIMEOUT_S", 1..=3_600)),
        upstream_idle_timeout: Some(from.number("UPSTREAM_IDLE_TIMEOUT_S", 0..=86_400))
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs),
        shutdown_grace: Duration::from_secs(from.number("SHUTDOWN_GRACE_S", 0..=86_400)),
        db_sync: from.choice("DB_SYNC", &[("normal", DbSync::Normal), ("full", DbSync::Full)]),
    };
    let mut wrong = from.wrong.into_inner();
    if points_at_itself(&settings) {
        let takes = format!("another address than the proxy's own, which would ask itself (PORT is {})", settings.port);
        wrong.push(not_taken("LM_STUDIO_URL", Some(shown(&settings.upstream.to_string())), &takes));
    }
    if !settings.host.to_canonical().is_loopback() && settings.stats_token.is_none() {
        warnings.push(format!(
            "HOST is {} and STATS_TOKEN is not set: whoever reaches that address can read what was recorded, prompts \
             included. Set STATS_TOKEN, or leave HOST at 127.0.0.1",
            settings.host
        ));
    }
    ReadSettings { settings, warnings, wrong }
}

/// A request that came back to the proxy would go round until every worker is taken.
fn points_at_itself(settings: &Settings) -> bool {
    if settings.upstream.port != settings.port {
        return false;
    }
    let upstream = match settings.upstream.authority.host() {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => match host.trim_matches(['[', ']']).parse() {
            Ok(address) => address,
            // A name: looking it up is not ours to do.
            Err(_) => return false,
        },
    };
    upstream == settings.host || (settings.host.is_unspecified() && upstream.is_loopback())
}

/// One line of the table.
struct Setting {
    name: &'static str,
    /// As it would be written. Goes through the parser like any other value.
    default: &'static str,
    /// Completes the sentence "It takes …".
    takes: &'static str,
    meaning: &'static str,
    /// Whether its value must never be shown.
    secret: bool,
}

const fn setting(name: &'static str, default: &'static str, takes: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, takes, meaning, secret: false }
}

/// The table, in the order of the documentation.
#[rustfmt::skip]
const SETTINGS: &[Setting] = &[
    setting("PORT", "8080", "a port from 0 to 65535 (0 = any free one)", "Listening port"),
    setting("HOST", "127.0.0.1", "an IP address or localhost",
        "Listening address; 0.0.0.0 listens on every interface"),
    setting("LM_STUDIO_URL", "http://localhost:1234",
        "an http:// or https:// address, perhaps with port and path, no user or query, as in http://localhost:1234",
        "Where LM Studio listens"),
    setting("DATABASE_URL", "sqlite:./metrics.db",
        "the path of an SQLite file, as in sqlite:./metrics.db (not in memory, no other kind of database)",
        "The database file; missing folders are made"),
    setting("DATABASE_SHARED", "false", "true or false",
        "Start even if another proxy writes the same database file"),
    setting("RUST_LOG", "info", "off, error, warn, info, debug or trace, also as lms_metrics_proxy=LEVEL",
        "How much is logged to the standard error stream"),
    setting("LOG_FORMAT", "text", "text or json",
        "json logs one JSON object a line; text has colours on a terminal, unless NO_COLOR is set"),
    setting("INJECT_USAGE", "true", "true or false",
        "Ask LM Studio for token counts on streams whose client did not, and hide what that adds from the client"),
    setting("LOG_CONTENT", "full", "full or none", "full stores prompts and outputs, none stores figures only"),
    setting("CONTENT_KB_MAX", "16384", "a number from 1 to 65536",
        "Longest prompt or output stored, each, in KB; longer ones keep head and tail"),
    setting("CONTENT_DAYS", "30", "a number from 0 to 36500 (0 = no limit)",
        "Stored prompts and outputs older than this many days are removed; not by default those that came with an upgrade"),
    setting("CONTENT_MB_MAX", "1024", "a number from 0 to 1048576 (0 = no limit)",
        "Stored prompts and outputs beyond this many MB are removed, oldest first; by default without what came with\n      an upgrade"),
    setting("RETENTION_DAYS", "0", "a number from 0 to 36500 (0 = for ever)",
        "Rows older than this many days are removed; totals of all time stay"),
    setting("MAX_WORKERS", "1024", "a number from 1 to 10000", "Most requests in flight; more wait, then get a 503"),
    setting("MAX_BODY_MB", "256", "a number from 1 to 4096", "Largest request body, in MB"),
    setting("ALLOWED_HOSTS", "", "host names without scheme and port, separated by commas, or *",
        "Further names accepted in the Host header, and hosts whose pages may POST and open WebSockets; * = any"),
    setting("SESSION_HEADER", "", "the name of a header field",
        "A header field in which clients name their conversation, beside those that are known"),
    Setting { secret: true, ..setting("STATS_TOKEN", "", "visible ASCII characters without spaces",
        "When set, every local route but /health wants Authorization: Bearer TOKEN") },
    setting("MODEL_PRICES", "", "the path of a JSON file", "Prices per model, for showing what use would have cost"),
    setting("POWER_WATTS", "", "watts as in 350, up to 100000",
        "What the machine takes while it answers, for showing what electricity that took"),
    setting("POWER_PRICE", "", "a price, perhaps with a currency, as in 0.30 EUR",
        "What a kilowatt hour costs; without a currency, in that of MODEL_PRICES"),
    setting("UPSTREAM_CA", "", "the path of a PEM file of certificates",
        "Certificates that an https:// LM_STUDIO_URL may be signed with, beside those of the web"),
    setting("UPSTREAM_CHECK", "true", "true or false",
        "Ask LM Studio once at the start whether it answers; the log says so"),
    setting("UPSTREAM_CONNECT_TIMEOUT_S", "10", "a number of seconds from 1 to 3600",
        "Longest wait for a connection to LM Studio, looking up its name included"),
    setting("UPSTREAM_IDLE_TIMEOUT_S", "0", "a number of seconds from 0 to 86400 (0 = no limit)",
        "Longest silence accepted from LM Studio, model loading and prompt processing included"),
    setting("SHUTDOWN_GRACE_S", "30", "a number of seconds from 0 to 86400",
        "How long running requests may finish after SIGTERM or Ctrl-C; a second signal ends at once"),
    setting("DB_SYNC", "normal", "normal or full", "normal survives a killed process, full also a power cut"),
];

/// The table beside what was set.
struct Lookup<'l> {
    lookup: &'l dyn Fn(&str) -> Option<String>,
    /// What is not taken, a line each.
    wrong: RefCell<Vec<String>>,
}

impl Lookup<'_> {
    /// The value, else the default, through `parse`. `None` of `parse` means that the value is not taken: that is noted,
    /// and the default stands for it, so that all that is wrong is found.
    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        let setting = SETTINGS.iter().find(|s| s.name == name).expect("every setting stands in the table");
        let default = || parse(setting.default).expect("a default is taken");
        let Some(held) = self.set(name) else { return default() };
        parse(&held).unwrap_or_else(|| {
            let shown = (!setting.secret).then(|| shown(&held));
            self.wrong.borrow_mut().push(not_taken(setting.name, shown, setting.takes));
            default()
        })
    }

    /// What it was set to. White space around a value is never meant; `set PORT=8080 & …` on Windows leaves some.
    fn set(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|held| held.trim().to_owned()).filter(|held| !held.is_empty())
    }

    /// A setting whose default is empty: `None` unless set.
    fn optional<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.parsed(name, |text| if text.is_empty() { Some(None) } else { parse(text).map(Some) })
    }

    fn number(&self, name: &str, range: RangeInclusive<u64>) -> u64 {
        self.parsed(name, |text| value::number(text).filter(|n| range.contains(n)))
    }

    /// A number of units, each so many days or bytes.
    fn limit(&self, name: &str, range: RangeInclusive<u64>, unit: u64) -> Limit {
        Limit { max: self.number(name, range) * unit, is_set: self.set(name).is_some() }
    }

    fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> T {
        self.parsed(name, |text| choices.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)).map(|(_, t)| *t))
    }
}

/// A value fit for one line of an error: quoted, shortened, and without the password of an address. A foreign `.env`
/// may well bring `DATABASE_URL=postgres://user:password@host/`.
fn shown(held: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    let mut held = held.to_owned();
    if let (Some(scheme), Some(at)) = (held.find("://"), held.rfind('@'))
        && scheme + 3 < at
    {
        held.replace_range(scheme + 3..at, "***");
    }
    if held.chars().count() > SHOWN_CHARS_MAX {
        held = held.chars().take(SHOWN_CHARS_MAX).chain(['…']).collect();
    }
    format!("{held:?}")
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(e: io::Error) -> Self {
        StartError::new(format_args!("the system refuses what the proxy needs to start: {e}"))
    }
}

#[cfg(test)]
mod tests;
