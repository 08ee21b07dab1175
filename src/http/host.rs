//! Who may be asked for: the grammar of Host, and the policy that keeps web pages out.
//!
//! A page on the internet can point a name of its own at 127.0.0.1 and then talk to this port as if it were its own
//! server (DNS rebinding, CVE-2024-28224). What it cannot do is make the browser send another name in Host. So only
//! names that nobody can register in the public DNS are served, and those that the settings add.

// Address values only; sockets are in `std::net`, which this module must not touch.
use core::net::{IpAddr, Ipv6Addr};

/// The endings that are reserved for local use: RFC 6762 (.local), RFC 6761 (.localhost), RFC 8375 (.home.arpa), ICANN
/// resolution 2024.07.29.06 (.internal); .lan is what routers for the home use.
const LOCAL_SUFFIXES: [&str; 5] = [".local", ".lan", ".internal", ".home.arpa", ".localhost"];

/// Which names are served.
#[derive(Clone, Debug)]
pub struct HostPolicy {
    any: bool,
    /// Lowercase, without port.
    names: Vec<String>,
}

impl HostPolicy {
    /// The local names and those in `allowed` (without regard to case or port); `*` allows every name.
    pub fn new(allowed: &[String]) -> Self {
        let names = allowed.iter().map(|name| name_of(name.trim()).to_ascii_lowercase());
        Self { any: allowed.iter().any(|name| name.trim() == "*"), names: names.collect() }
    }

    /// Whether the settings name the host of this origin, whatever its scheme and port. Names that are served without
    /// being named count for nothing here: other pages of this machine are other pages.
    pub fn names_origin(&self, origin: &[u8]) -> bool {
        let authority = std::str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
        self.any || authority.is_some_and(|(_, host)| self.names.contains(&name_of(host).to_ascii_lowercase()))
    }

    /// Whether a valid Host, with or without a port, is served. The empty Host is: RFC 9112 §3.2 allows it, and no
    /// browser sends it for a page that has a name.
    pub fn allows(&self, host: &str) -> bool {
        let name = name_of(host).to_ascii_lowercase();
        if self.any || name.is_empty() || self.names.contains(&name) {
            return true;
        }
        // Only addresses are in brackets: see `is_valid`.
        match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => !is_metadata(address),
            Err(_) => is_local_name(&name),
        }
    }
}

/// The name or address in `host`: without port, and without the dot of a fully qualified name.
fn name_of(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, _)) if name.ends_with(']') => name,
        Some((name, port)) if !name.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Link-local IPv4 addresses are where clouds keep their metadata services (169.254.169.254). Nobody serves LM Studio
/// there.
fn is_metadata(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(v4) if v4.is_link_local())
}

/// A single label (`localhost`, `nas`), or a name under an ending reserved for local use.
fn is_local_name(name: &str) -> bool {
    if name.split('.').any(str::is_empty) {
        return false;
    }
    !name.contains('.') || LOCAL_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2, RFC 3986 §3.2.2), without user information, zone identifiers and the
/// address formats of the future. Empty is valid.
pub(super) fn is_valid(host: &[u8]) -> bool {
    let Some(inner) = host.strip_prefix(b"[") else {
        let (name, rest) = host.split_at(host.iter().position(|&byte| byte == b':').unwrap_or(host.len()));
        return is_reg_name(name) && is_port(rest);
    };
    let Some(end) = inner.iter().position(|&byte| byte == b']') else { return false };
    core::str::from_utf8(&inner[..end]).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
        && is_port(&inner[end + 1..])
}

fn is_port(rest: &[u8]) -> bool {
    match rest {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        [_, ..] => false,
    }
}

/// *( unreserved / pct-encoded / sub-delims )
fn is_reg_name(name: &[u8]) -> bool {
    let mut rest = name;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            [byte, after @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => after,
            [_, ..] => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(allowed: &[&str], host: &str, expected: bool) {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(HostPolicy::new(&allowed).allows(host), expected, "{host:?} with {allowed:?}");
    }

    #[test]
    fn addresses_and_local_names_are_served() {
        for host in ["localhost", "LOCALHOST:8080", "localhost.", "nas", "nas:80", "127.0.0.1", "192.168.1.7:8080"] {
            check(&[], host, true);
        }
        for host in ["[::1]", "[::1]:8080", "[fe80::1]", "8.8.8.8", "a.local", "a.b.LAN:1", "x.internal", "y.home.arpa"]
        {
            check(&[], host, true);
        }
        for host in ["app.localhost", "", ":8080"] {
            check(&[], host, true);
        }
    }

    #[test]
    fn names_that_somebody_can_register_are_refused() {
        for host in ["evil.example", "localhost.evil.example:80", "127.0.0.1.nip.io", "127.0.0.1.", "evil.example."] {
            check(&[], host, host == "127.0.0.1.");
        }
        for host in ["a.localhost.com", "alocal.com", ".local", "a..local", "home.arpa.com", "127.1", "xlan.de"] {
            check(&[], host, false);
        }
    }

    #[test]
    fn the_metadata_addresses_of_clouds_are_refused() {
        for host in ["169.254.169.254", "169.254.1.1:80", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]:80"] {
            check(&[], host, false);
        }
    }

    #[test]
    fn the_settings_add_names() {
        check(&["Proxy.Example"], "proxy.example:8080", true);
        check(&["proxy.example:80"], "PROXY.example.", true);
        check(&["proxy.example"], "a.proxy.example", false);
        check(&["*"], "anything.example", true);
    }

    #[test]
    fn hosts_have_a_grammar() {
        for host in ["", "a", "a:", "a:80", ":80", "a_b.c", "%C3%B1", "0.0.0.0=5000", "[::1]", "[::1]:80", "1.2.3.4"] {
            assert!(is_valid(host.as_bytes()), "{host}");
        }
        for host in ["a b", "a:b", "a:80:80", "a:123456", "a/b", "u@a", "a?b", "a#b", "a\\b", "%zz", "%4", "\u{e9}"] {
            assert!(!is_valid(host.as_bytes()), "{host}");
        }
        for host in ["[", "[]", "[::1", "::1", "[::1]a", "[::1]:a", "[1.2.3.4]", "[v1.a]", "[fe80::1%25eth0]", "a[::1]"]
        {
            assert!(!is_valid(host.as_bytes()), "{host}");
        }
    }
}
