//! Which page a browser asks for, if a browser asks at all, and whether it asked first (Fetch standard, Fetch
//! Metadata).
//!
//! A web page may send a request of the plainest kind to any server without asking: a form, or a POST of text/plain. It
//! cannot read the answer, but the model generates all the same. For anything else its browser asks the server first
//! (a preflight); whether LM Studio lets it is LM Studio's affair. Clients that are no browsers send none of the fields
//! that are looked at here, and nothing of theirs is refused.

use super::head::RequestHead;
use super::host::HostPolicy;
use super::syntax::is_hop_by_hop;

/// The types of a body that need no preflight.
const SAFELISTED_TYPES: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];
/// Fields that prove no preflight: a page may set them without one, or its browser sets them of itself, as it does those
/// that concern the connection.
const UNPROVING: [&str; 23] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "b3",
    "cache-control",
    "content-language",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "dnt",
    "expect",
    "forwarded",
    "host",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
];
/// The same by how their names begin. Most are what stands between a browser and this proxy may add; one that adds a
/// field not listed here lets a page's plain request pass for one that was preflighted.
const UNPROVING_PREFIXES: [&str; 22] = [
    "cdn-",
    "cf-",
    "fastly-",
    "if-",
    "proxy-",
    "sec-",
    "trace",
    "true-client-",
    "uber-trace-",
    "x-amz",
    "x-arr-",
    "x-azure-",
    "x-b3-",
    "x-client-",
    "x-cloud-",
    "x-correlation-",
    "x-datadog-",
    "x-envoy-",
    "x-forwarded",
    "x-original-",
    "x-real-",
    "x-request-",
];

/// Whether the page is one of our own, or no browser asks.
pub fn is_own(head: &RequestHead) -> bool {
    let Some(origin) = head.field("origin") else { return true };
    let authority = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
    authority.zip(head.host()).is_some_and(|(authority, host)| authority.eq_ignore_ascii_case(host.as_bytes()))
}

/// Whether a browser sends this POST for a page of another origin, which `hosts` does not name, and without a
/// preflight.
pub fn is_unasked(head: &RequestHead, hosts: &HostPolicy) -> bool {
    is_foreign(head, hosts)
        && match head.field("sec-fetch-mode") {
            Some(b"no-cors" | b"navigate") => true,
            // Where the mode is not told (older browsers, and addresses of the home network) or is `cors`, the request
            // itself tells.
            Some(_) | None => !is_preflighted(head),
        }
}

/// Whether a browser asks for a page of another origin, which `hosts` does not name.
pub fn is_foreign(head: &RequestHead, hosts: &HostPolicy) -> bool {
    if head.field("origin").is_some_and(|origin| hosts.names_origin(origin)) {
        return false;
    }
    match head.field("sec-fetch-site") {
        Some(b"same-origin") => false,
        // The user himself: an address that he typed, or an extension of his.
        Some(b"none") => false,
        // `cross-site`; and `same-site`, as localhost:3000 is to localhost:8080.
        Some(_) => true,
        None => !is_own(head),
    }
}

/// Whether the request has what no page can send without a preflight.
fn is_preflighted(head: &RequestHead) -> bool {
    !matches!(head.method(), "GET" | "HEAD" | "POST")
        || head.fields().any(|(name, value)| {
            if name.eq_ignore_ascii_case("content-type") {
                !is_safelisted_type(value)
            } else if name.eq_ignore_ascii_case("authorization") {
                !is_sent_by_itself(value)
            } else {
                !is_unproving(&name.to_ascii_lowercase())
            }
        })
}

fn is_safelisted_type(value: &[u8]) -> bool {
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    essence.is_empty() || SAFELISTED_TYPES.iter().any(|kind| essence.eq_ignore_ascii_case(kind.as_bytes()))
}

/// Credentials that a browser adds to any request once its user has given them.
fn is_sent_by_itself(credentials: &[u8]) -> bool {
    let scheme = credentials.split(|&byte| byte == b' ').next().unwrap_or_default();
    ["Basic", "Digest", "Negotiate", "NTLM"].iter().any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()))
}

fn is_unproving(name: &str) -> bool {
    UNPROVING.contains(&name) || is_hop_by_hop(name) || UNPROVING_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::read_head;

    /// What browsers send with every request, and what a proxy adds.
    const BROWSER: &str = "User-Agent: Mozilla/5.0\r\nAccept: */*\r\nAccept-Language: de\r\nAccept-Encoding: gzip\r\n\
        Referer: https://evil.example/\r\nCookie: a=b\r\nDNT: 1\r\nSec-GPC: 1\r\nSec-CH-UA: \"x\"\r\nPriority: u=1\r\n\
        X-Forwarded-For: 10.0.0.1\r\nX-Real-IP: 10.0.0.1\r\nContent-Length: 2\r\n";
    const EVIL: &str = "Origin: https://evil.example\r\n";
    const TEXT: &str = "Content-Type: text/plain;charset=UTF-8\r\n";
    const JSON: &str = "Content-Type: application/json\r\n";

    #[track_caller]
    fn check(allowed: &[&str], fields: &[&str], expected: bool) {
        let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let fields = fields.concat();
        let request = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8080\r\n{fields}{BROWSER}\r\n");
        let (head, _) = read_head(request.as_bytes(), &mut 0).expect("a valid head").expect("a whole head");
        assert_eq!(is_unasked(&head, &HostPolicy::new(&allowed)), expected, "{fields} with {allowed:?}");
    }

    fn metadata(site: &str, mode: &str) -> String {
        format!("Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: {mode}\r\nSec-Fetch-Dest: empty\r\n")
    }

    #[test]
    fn a_foreign_page_that_did_not_ask_is_told_by_the_metadata() {
        for site in ["cross-site", "same-site", "unheard-of"] {
            check(&[], &[EVIL, TEXT, &metadata(site, "no-cors")], true);
            check(&[], &[EVIL, TEXT, &metadata(site, "navigate")], true);
            check(&[], &[EVIL, TEXT, &metadata(site, "cors")], true);
            check(&[], &[EVIL, &metadata(site, "cors")], true);
            check(&[], &[TEXT, &metadata(site, "no-cors")], true);
            check(&[], &["Origin: null\r\n", TEXT, &metadata(site, "navigate")], true);
            // Nothing that a page can send: whoever sends it did not ask.
            check(&[], &[EVIL, JSON, &metadata(site, "no-cors")], true);
            // The preflight was LM Studio's to answer.
            check(&[], &[EVIL, JSON, &metadata(site, "cors")], false);
            check(&[], &["Origin: null\r\n", JSON, &metadata(site, "cors")], false);
        }
        for site in ["same-origin", "none"] {
            for mode in ["no-cors", "navigate", "cors", "same-origin"] {
                check(&[], &[TEXT, &metadata(site, mode)], false);
            }
        }
        // As nginx passes it on unless told otherwise: Host is upstream's.
        check(&[], &["Origin: https://chat.example\r\n", TEXT, &metadata("same-origin", "cors")], false);
    }

    #[test]
    fn the_user_himself_is_not_foreign_nor_is_a_page_of_a_named_host() {
        let check = |allowed: &[&str], fields: &[&str], expected: bool| {
            let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
            let fields = fields.concat();
            let request = format!("GET /llm HTTP/1.1\r\nHost: localhost:8080\r\n{fields}\r\n");
            let (head, _) = read_head(request.as_bytes(), &mut 0).expect("a valid head").expect("a whole head");
            assert_eq!(is_foreign(&head, &HostPolicy::new(&allowed)), expected, "{fields} with {allowed:?}");
        };
        for origin in [EVIL, "Origin: chrome-extension://abc\r\n", "Origin: null\r\n"] {
            check(&[], &[origin], true);
            check(&[], &[origin, &metadata("none", "websocket")], false);
            check(&[], &[origin, &metadata("cross-site", "websocket")], true);
            check(&["evil.example"], &[origin, &metadata("same-site", "websocket")], origin != EVIL);
            check(&["*"], &[origin, &metadata("cross-site", "websocket")], false);
        }
        check(&[], &[], false);
        check(&[], &["Origin: http://localhost:8080\r\n"], false);
    }

    #[test]
    fn where_there_is_no_metadata_origin_and_request_tell() {
        for origin in
            ["https://evil.example", "null", "http://localhost:3000", "https://localhost:8080.evil.example", "x"]
        {
            let origin = format!("Origin: {origin}\r\n");
            for kind in [
                "",
                TEXT,
                "Content-Type: TEXT/Plain\r\n",
                "Content-Type: application/x-www-form-urlencoded\r\n",
                "Content-Type: multipart/form-data; boundary=a\r\n",
                "Content-Type:\r\n",
            ] {
                check(&[], &[&origin, kind], true);
                check(&[], &[&origin, kind, "Authorization: Basic YTpi\r\n"], true);
                check(&[], &[&origin, kind, "Authorization: Bearer key\r\n"], false);
                check(&[], &[&origin, kind, "X-Api-Key: key\r\n"], false);
            }
            check(&[], &[&origin, JSON], false);
            check(&[], &[&origin, "Content-Type: application/json; charset=utf-8\r\n"], false);
            check(&[], &[&origin, "Content-Type: text/plain, application/json\r\n"], false);
        }
        check(&[], &["Origin: http://localhost:8080\r\n", TEXT], false);
        check(&[], &["Origin: https://LOCALHOST:8080\r\n", TEXT], false);
    }

    #[test]
    fn clients_that_are_no_browsers_notice_nothing() {
        for kind in ["", TEXT, JSON, "Content-Type: multipart/form-data; boundary=a\r\n"] {
            check(&[], &[kind], false);
        }
        for origin in
            ["vscode-webview://1c2d", "app://obsidian.md", "tauri://localhost", "chrome-extension://abc", "file://"]
        {
            check(&[], &[&format!("Origin: {origin}\r\n"), JSON], false);
            check(&[], &[&format!("Origin: {origin}\r\n"), JSON, &metadata("cross-site", "cors")], false);
        }
    }

    #[test]
    fn the_settings_name_origins_that_need_not_ask() {
        for origin in ["https://Chat.Example", "http://chat.example:3000", "app://chat.example"] {
            let origin = format!("Origin: {origin}\r\n");
            check(&["chat.example"], &[&origin, TEXT], false);
            check(&["chat.example"], &[&origin, TEXT, &metadata("cross-site", "no-cors")], false);
            check(&["other.example"], &[&origin, TEXT], true);
        }
        check(&["*"], &[EVIL, TEXT], false);
        check(&["*"], &["Origin: null\r\n", TEXT, &metadata("cross-site", "navigate")], false);
        check(&["chat.example"], &["Origin: https://chat.example.evil.example\r\n", TEXT], true);
        check(&["chat.example"], &["Origin: null\r\n", TEXT], true);
        // Served is not named.
        check(&["chat.example"], &["Origin: http://localhost:3000\r\n", TEXT], true);
        check(&["localhost"], &["Origin: http://localhost:3000\r\n", TEXT], false);
    }
}
