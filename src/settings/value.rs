//! What a setting's text means. Each function answers `None` where the text is not taken; none has a side effect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use log::LevelFilter;
use ureq::http::uri::{Authority, Scheme};

/// Where LM Studio listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// The value of the Host field: host, and port if one was given. An IPv6 address stands in brackets.
    pub authority: Authority,
    /// As given, else 80 or 443.
    pub port: u16,
    /// What stands before a target (`/v1/models?x=y`) on the request line. Empty, or starts with a slash and ends without.
    pub prefix: String,
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

/// A secret that a client must know. It can be compared, and read by name; it does not show in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The secret itself, for comparing in constant time.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// `LM_STUDIO_URL`, with warnings about what was taken off. Query, fragment and credentials have no place in it:
/// every client's request would carry them.
pub(super) fn upstream(text: &str) -> Option<(UpstreamUrl, Vec<String>)> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme: Scheme = scheme.to_ascii_lowercase().parse().ok()?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority: Authority = authority.to_ascii_lowercase().parse().ok()?;
    let (host, port) = authority.as_str().split_at(authority.host().len());
    let host_is_good = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    let port = match (port.strip_prefix(':'), scheme.as_str()) {
        (None, "http") if port.is_empty() => 80,
        (None, "https") if port.is_empty() => 443,
        (Some(digits), "http" | "https") => number(digits).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)?,
        _ => return None,
    };

    let mut prefix = path.trim_end_matches('/');
    while let Some(shorter) = prefix.strip_suffix("/v1") {
        prefix = shorter.trim_end_matches('/');
    }
    if !host_is_good || !is_path_prefix(prefix) {
        return None;
    }
    let taken_off = &path[prefix.len()..];
    let url = UpstreamUrl { scheme, authority, port, prefix: prefix.to_owned() };
    let warning = format!("LM_STUDIO_URL: took {taken_off} off its end, requests bring their own path; using {url}");
    let warnings = if taken_off.is_empty() { Vec::new() } else { vec![warning] };
    Some((url, warnings))
}

/// RFC 3986 §3.3: segments of pchar. Empty and dot segments would be read differently by different servers.
fn is_path_prefix(prefix: &str) -> bool {
    let mut segments = prefix.split('/');
    // A path starts with its slash, so there is nothing before the first one.
    segments.next() == Some("")
        && segments.all(|segment| {
            let plain = segment.to_ascii_lowercase().replace("%2e", ".");
            !matches!(plain.as_str(), "" | "." | "..") && is_pchars(segment)
        })
}

fn is_pchars(segment: &str) -> bool {
    let are_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b));
    let begins_escaped = |part: &str| {
        part.get(..2).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())) && are_plain(&part[2..])
    };
    // A percent sign stands before every part but the first.
    let mut parts = segment.split('%');
    parts.next().is_some_and(are_plain) && parts.all(begins_escaped)
}

/// Letters, digits, hyphens and underscores (which names in home and container networks do have), in labels.
fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.strip_suffix('.').unwrap_or(name).split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// `HOST`. Brackets around an IPv6 address are understood.
pub(super) fn listening_address(text: &str) -> Option<IpAddr> {
    if text.eq_ignore_ascii_case("localhost") {
        return Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// `DATABASE_URL`. A database in memory is refused, for it would forget everything at the end without a word; so is
/// the address of another kind of database.
pub(super) fn database(text: &str) -> Option<PathBuf> {
    let (of_sqlite, rest) = match text.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("sqlite:") => (true, &text[7..]),
        Some(_) | None => (false, text),
    };
    let rest = if of_sqlite { rest.strip_prefix("//").unwrap_or(rest) } else { rest };
    let path = match rest.strip_suffix("?mode=rwc") {
        Some(path) => path,
        // Other parameters ask for what is not done; in a plain path the character is part of a name.
        None if of_sqlite && rest.contains('?') => return None,
        None => rest,
    };
    // `sqlite:///C:/x` is how other programs write a drive.
    let path = match path.as_bytes() {
        [b'/', drive, b':', ..] if cfg!(windows) && drive.is_ascii_alphabetic() => &path[1..],
        _ => path,
    };
    let foreign = path.contains("://") || path.starts_with("file:") || path.contains(":memory:");
    // Only a shell expands `~`; here it would become a folder of that name.
    let no_file = path.is_empty() || path.ends_with(['/', '\0']) || path.starts_with("~/") || path.contains('\0');
    (!foreign && !no_file).then(|| PathBuf::from(path))
}

/// `RUST_LOG`: directives separated by commas, as env_logger takes them. A level alone and one for this program count,
/// the latter more; what speaks of other programs is left to them.
pub(super) fn log_level(text: &str) -> Option<LevelFilter> {
    let (mut general, mut own) = (None, None);
    for directive in text.split(',').map(str::trim).filter(|d| !d.is_empty()) {
        match directive.split_once('=') {
            None if directive == env!("CARGO_PKG_NAME") => own = Some(LevelFilter::Trace),
            None => general = Some(directive.parse().ok()?),
            Some((target, level)) if target.trim() == env!("CARGO_PKG_NAME") => own = Some(level.trim().parse().ok()?),
            Some(_) => {}
        }
    }
    Some(own.or(general).unwrap_or(LevelFilter::Info))
}

/// Digits alone: `parse` would let a sign pass.
pub(super) fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

pub(super) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// `ALLOWED_HOSTS`, in lower case and without the dot that may end a full name.
pub(super) fn host_names(text: &str) -> Option<Vec<String>> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let taken =
        |name: &str| (name == "*" || is_host_name(name)).then(|| name.trim_end_matches('.').to_ascii_lowercase());
    names.map(taken).collect()
}

/// `SESSION_HEADER`: a token of RFC 9110.
pub(super) fn field_name(text: &str) -> Option<String> {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    text.bytes().all(is_tchar).then(|| text.to_owned())
}

/// `STATS_TOKEN`: what can stand in an Authorization field.
pub(super) fn token(text: &str) -> Option<Token> {
    text.bytes().all(|b| b.is_ascii_graphic()).then(|| Token(text.to_owned()))
}

/// What a kilowatt hour costs.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerPrice {
    /// In whole units of the currency.
    pub per_kwh: f64,
    /// Its name; `None`: that of the list of prices.
    pub currency: Option<String>,
}

/// `POWER_WATTS`.
pub(super) fn watts(text: &str) -> Option<f64> {
    decimal(text).filter(|watts| *watts > 0.0 && *watts <= 100_000.0)
}

/// `POWER_PRICE`.
pub(super) fn power_price(text: &str) -> Option<PowerPrice> {
    let (price, currency) = text.split_once(' ').map_or((text, None), |(price, name)| (price, Some(name.trim())));
    let is_name =
        |name: &str| (1..=8).contains(&name.len()) && name.chars().all(|c| c.is_alphanumeric() || "$€£¥".contains(c));
    if !currency.is_none_or(is_name) {
        return None;
    }
    let per_kwh = decimal(price).filter(|price| *price <= 1e6)?;
    Some(PowerPrice { per_kwh, currency: currency.map(str::to_owned) })
}

/// Digits, perhaps with a point between them: Rust also takes `inf`, `1e3` and signs.
fn decimal(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_plain)
}

pub(super) fn file(text: &str) -> Option<PathBuf> {
    (!text.contains('\0') && !text.ends_with('/')).then(|| PathBuf::from(text))
}
