//! Who asked, told by User-Agent: a short label that groups the requests of one program.
//!
//! A library tells its own name there, not that of the program that uses it. Some programs tell theirs behind it, or in
//! the fields by which OpenRouter knows applications (`X-Title`, `HTTP-Referer`): Roo Code and Cherry Studio do so
//! towards any server. Python's LangChain, LlamaIndex, litellm and aider tell nothing there but to OpenRouter.
//!
//! Versions, platforms and comments are left out, so that an update of the program does not make it another one.
//! Nothing is believed: the label is only printable ASCII of bounded length, and nobody decides by it.

use crate::limits::CLIENT_LABEL_BYTES_MAX;

/// Products whose label is not their own name: how the product begins, in lower case, and the label. The first that
/// fits counts. `OpenAI/Python 1.2.3` and the like are what the SDKs made by Stainless send.
const READABLE: [(&str, &str); 22] = [
    ("openai/python", "openai-python"),
    ("asyncopenai/python", "openai-python"),
    ("azureopenai/python", "openai-python"),
    ("asyncazureopenai/python", "openai-python"),
    ("openai/js", "openai-node"),
    ("azureopenai/js", "openai-node"),
    ("openai/", "openai-*"),
    ("anthropic/python", "anthropic-python"),
    ("asyncanthropic/python", "anthropic-python"),
    ("anthropic/js", "anthropic-node"),
    ("anthropic/", "anthropic-*"),
    ("codex_", "codex"),
    ("codex-", "codex"),
    ("codex/", "codex"),
    ("undici", "node"),
    ("node-fetch", "node"),
    ("node/", "node"),
    ("node.js", "node"),
    ("ai/", "ai-sdk"),
    ("ai-sdk/", "ai-sdk"),
    ("lm studio", "lm-studio"),
    ("cherry studio", "CherryStudio"),
];

/// Products that only name the machinery inside: a label behind one of them tells more.
const MACHINERY: [&str; 9] =
    ["mozilla", "applewebkit", "gecko", "chrome", "chromium", "safari", "electron", "mobile", "version"];

/// Labels of libraries, which many programs use. A program's own name tells more.
const LIBRARIES: [&str; 12] = [
    "ai-sdk",
    "aiohttp",
    "axios",
    "browser",
    "electron",
    "go-http-client",
    "node",
    "okhttp",
    "python",
    "python-httpx",
    "python-requests",
    "python-urllib",
];
/// How products are named that a library puts behind its own name.
const PLATFORMS: [&str; 9] = ["ai", "ai-sdk", "bun", "deno", "httpx", "node", "node.js", "python", "runtime"];

/// Label of who asked: that of the User-Agent, unless it is a library's and the program tells its own name elsewhere.
pub fn label(user_agent: Option<&[u8]>, title: Option<&[u8]>, referer: Option<&[u8]>) -> Option<String> {
    let label = product(user_agent);
    if !label.as_deref().is_none_or(is_library) {
        return label;
    }
    let own = user_agent.filter(|_| label.is_some()).and_then(behind_library);
    own.or_else(|| title.and_then(without_spaces)).or_else(|| referer.and_then(host_of)).or(label)
}

fn is_library(label: &str) -> bool {
    begins(label, "openai-") || begins(label, "anthropic-") || is_among(label, &LIBRARIES)
}

/// Whether a text begins so, in any case.
fn begins(text: &str, begin: &str) -> bool {
    text.get(..begin.len()).is_some_and(|text| text.eq_ignore_ascii_case(begin))
}

/// Whether a name is one of these, in any case.
fn is_among(name: &str, names: &[&str]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The first product behind that of a library: `OpenAI/Python 1.2.3 my-agent/0.1`.
fn behind_library(user_agent: &[u8]) -> Option<String> {
    let text = printable(user_agent);
    if text.starts_with("Mozilla/") {
        return None;
    }
    let bare = without_comments(&text);
    let behind = bare.split_whitespace().skip(1).filter(|product| product.contains('/')).filter_map(name);
    let mut own = behind.filter(|name| !is_among(name, &PLATFORMS) && !is_library(name));
    own.next().map(cut)
}

/// A title as a product would be written: `Roo Code` is `RooCode`.
fn without_spaces(title: &[u8]) -> Option<String> {
    let text: String = printable(title).split_whitespace().collect();
    text.bytes().any(|byte| byte.is_ascii_alphanumeric()).then(|| cut(&text))
}

/// The host of an address, without `www.`. That of a page on this machine tells nobody.
fn host_of(address: &[u8]) -> Option<String> {
    let text = printable(address);
    let (_, behind) = text.trim().split_once("://")?;
    let host = behind.split(['/', '?', '#', ':']).next().unwrap_or_default();
    let host = host.strip_prefix("www.").unwrap_or(host);
    let is_named = host.contains('.') && host.bytes().any(|byte| byte.is_ascii_alphabetic());
    (is_named && !host.contains(' ')).then(|| cut(host))
}

/// What is printable ASCII, blanks for the rest. Longer than any real one is a waste of time to look at; browsers' are
/// about 120 bytes.
fn printable(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(1024)];
    let printable = bytes.iter().map(|&b| if b.is_ascii_graphic() { b } else { b' ' });
    String::from_utf8(printable.collect()).expect("ASCII is UTF-8")
}

fn cut(label: &str) -> String {
    // All of it is ASCII.
    label[..label.len().min(CLIENT_LABEL_BYTES_MAX)].to_owned()
}

/// Label made of a User-Agent: its product token, SDK names made readable, any browser `browser`, and an application in
/// a browser's clothes (Electron) by its own name. `None` without one.
fn product(user_agent: Option<&[u8]>) -> Option<String> {
    let text = printable(user_agent?);
    let text = text.trim();
    let label = if let Some((product, label)) = READABLE.iter().find(|(product, _)| begins(text, product)) {
        // The SDK's language stands where a version would.
        match label.strip_suffix('*') {
            Some(family) => format!("{family}{}", name(&text[product.len()..])?.to_ascii_lowercase()),
            None => (*label).to_owned(),
        }
    } else if begins(text, "mozilla/") {
        browser(text)
    } else if begins(text, "python/") {
        // `Python/3.11 aiohttp/3.9`: the library, where it is told.
        text.split_whitespace().nth(1).and_then(name).unwrap_or("Python").to_owned()
    } else {
        name(text)?.to_owned()
    };
    Some(cut(&label))
}

/// The name of the product that a text begins with: what stands before its version. `None` where there is no name.
fn name(text: &str) -> Option<&str> {
    let end = text.find(['/', ' ', '(', ';', ',']);
    let name = text[..end.unwrap_or(text.len())].trim_matches(|c: char| !c.is_ascii_alphanumeric());
    (!name.is_empty()).then_some(name)
}

/// What calls itself Mozilla: an application built on Electron by its own name, PowerShell, or simply a browser.
fn browser(text: &str) -> String {
    if text.contains("PowerShell/") {
        return "PowerShell".to_owned();
    }
    if !text.contains("Electron/") {
        return "browser".to_owned();
    }
    let bare = without_comments(text);
    let own = bare.split_whitespace().filter_map(|product| product.contains('/').then(|| name(product)).flatten());
    let mut own = own.filter(|product| !is_among(product, &MACHINERY));
    own.next().unwrap_or("electron").to_owned()
}

/// The text without what stands in brackets (RFC 9110 §5.6.5).
fn without_comments(text: &str) -> String {
    let mut depth = 0_usize;
    let mut bare = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ if depth == 0 => bare.push(character),
            _ => (),
        }
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user_agent: &str, expected: Option<&str>) {
        assert_eq!(label(Some(user_agent.as_bytes()), None, None).as_deref(), expected, "{user_agent}");
    }

    #[test]
    fn sdks_are_made_readable() {
        check("OpenAI/Python 1.2.3", Some("openai-python"));
        check("AsyncOpenAI/Python 1.99.0", Some("openai-python"));
        check("OpenAI/JS 4.77.0", Some("openai-node"));
        check("OpenAI/Go 1.2.0", Some("openai-go"));
        check("OpenAI/Java 2.0.0", Some("openai-java"));
        check("Anthropic/Python 0.40.0", Some("anthropic-python"));
        check("AsyncAnthropic/Python 0.40.0", Some("anthropic-python"));
        check("Anthropic/JS 0.39.0", Some("anthropic-node"));
        check("ai/5.0.0 ai-sdk/provider-utils/3.0.0 runtime/node.js/22", Some("ai-sdk"));
        check("Python/3.11 aiohttp/3.9.1", Some("aiohttp"));
        check("Python/3.11", Some("Python"));
        check("node-fetch/1.0 (+https://github.com/bitinn/node-fetch)", Some("node"));
        check("node", Some("node"));
        check("undici", Some("node"));
    }

    #[test]
    fn other_programs_go_by_their_product_token() {
        check("curl/8.5.0", Some("curl"));
        check("python-requests/2.31.0", Some("python-requests"));
        check("python-httpx/0.27.0", Some("python-httpx"));
        check("Python-urllib/3.11", Some("Python-urllib"));
        check("axios/1.6.2", Some("axios"));
        check("Go-http-client/1.1", Some("Go-http-client"));
        check("ollama/0.5.4 (amd64 linux) Go/go1.22", Some("ollama"));
        check("Cline/3.20.0", Some("Cline"));
        check("Continue", Some("Continue"));
        check("Zed/0.190.0 (macos; aarch64)", Some("Zed"));
        check("claude-cli/1.0.88 (external, cli)", Some("claude-cli"));
        check("codex_cli_rs/0.30.0 (Mac OS 15.1; arm64)", Some("codex"));
        check("codex-tui/0.99", Some("codex"));
        check("okhttp/4.12.0", Some("okhttp"));
        check("my-script", Some("my-script"));
    }

    #[test]
    fn browsers_are_one_and_applications_in_their_clothes_are_themselves() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)";
        check(&format!("{chrome} Chrome/126.0.0.0 Safari/537.36"), Some("browser"));
        check("Mozilla/5.0 (Macintosh; rv:127.0) Gecko/20100101 Firefox/127.0", Some("browser"));
        check(&format!("{chrome} obsidian/1.5.3 Chrome/114.0 Electron/25.8 Safari/537.36"), Some("obsidian"));
        check(&format!("{chrome} Chrome/114.0 Electron/25.8 Safari/537.36"), Some("electron"));
        check("Mozilla/5.0 (Windows NT; Windows NT 10.0; en-US) WindowsPowerShell/5.1.19041", Some("PowerShell"));
    }

    #[test]
    fn a_program_that_tells_its_name_is_seen_through_its_library() {
        let check = |user_agent: &str, title: &str, referer: &str, expected: &str| {
            let told = [user_agent, title, referer].map(|text| Some(text.as_bytes()).filter(|text| !text.is_empty()));
            let label = label(told[0], told[1], told[2]);
            assert_eq!(label.as_deref(), Some(expected), "{user_agent} {title} {referer}");
        };
        check("OpenAI/JS 5.12.2", "Roo Code", "https://github.com/RooVetGit/Roo-Cline", "RooCode");
        check("RooCode/3.53.0", "Roo Code", "https://github.com/RooVetGit/Roo-Cline", "RooCode");
        check("OpenAI/Python 1.2.3", "", "http://aider.chat", "aider.chat");
        check("OpenAI/Python 1.2.3", "", "https://www.example.org:8443/a?b", "example.org");
        check("Mozilla/5.0 (X11) Chrome/126.0 Safari/537.36", "Cherry Studio", "", "CherryStudio");
        check("", "Aider", "", "Aider");
        check("OpenAI/Python 1.2.3 my-agent/0.1", "", "", "my-agent");
        check("AsyncOpenAI/Python 1.2.3 Python/3.11 httpx/0.27", "", "", "openai-python");
        check("ai/5.0.0 ai-sdk/provider-utils/3.0.0 runtime/node.js/22", "", "", "ai-sdk");
        check("langchainjs-openai/1.0.0 (node/v20.18.0)", "", "", "langchainjs-openai");
        // What tells nothing.
        check("OpenAI/Python 1.2.3", " \u{e9} ", "http://localhost:3000/", "openai-python");
        check("OpenAI/Python 1.2.3", "", "http://192.168.1.5/", "openai-python");
        check("curl/8.5.0", "My Title", "", "curl");
    }

    #[test]
    fn no_name_is_none() {
        assert_eq!(label(None, None, None), None);
        for user_agent in ["", "   ", "/1.0", "()", "\u{e9}\u{e9}", "OpenAI/"] {
            check(user_agent, None);
        }
    }

    #[test]
    fn the_label_is_short_and_printable() {
        check(&"x".repeat(5000), Some(&"x".repeat(CLIENT_LABEL_BYTES_MAX)));
        check("evil\u{1b}[31m/1", Some("evil"));
        check("\"><script>/1", Some("script"));
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for round in 0..20_000 {
            let bytes: Vec<u8> = (0..round % 60)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 40) as u8
                })
                .collect();
            for start in ["", "Mozilla/5.0 Electron/1 (", "OpenAI/", "Python/3 "] {
                let agent = [start.as_bytes(), &bytes].concat();
                for label in
                    [label(Some(&agent), None, None), label(None, Some(&bytes), Some(&bytes))].into_iter().flatten()
                {
                    assert!(!label.is_empty() && label.len() <= CLIENT_LABEL_BYTES_MAX);
                    assert!(label.bytes().all(|byte| byte.is_ascii_graphic()), "{label}");
                }
            }
        }
    }
}
