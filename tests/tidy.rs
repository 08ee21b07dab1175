//! The order of the source: who may use whom, what pure code has no use for, names that mean one thing.
//!
//! Judged is what the product is made of: neither tests inside a file nor files for tests alone. To add a folder, give
//! it a line in `FLOORS`. An exception is for a change on its way: it must go with what it excuses, and a test sees to
//! that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Folders and files of `src`, from top to bottom: each uses only what stands below it.
const FLOORS: [&str; 32] = [
    // The program.
    "main",
    "demo",
    "greeting",
    "proxy",
    "descriptors",
    // Who reads clients, who answers about what was recorded, who asks upstream, who records.
    "front",
    "stats",
    "exchange",
    "record",
    "prompts",
    "packs",
    // What they share of a connection and of a request.
    "in_flight",
    "client",
    "counters",
    "models",
    "reach",
    "routes",
    "usage",
    "http",
    "settings",
    // What anything may use.
    "keepalive",
    "logging",
    "mailbox",
    "outage",
    "bell",
    "slots",
    "clock",
    "nearest",
    "looks",
    "order",
    "limits",
    "calendar",
];

/// The map of it all stands beside the floors, and tests stand on all of them.
const BESIDE: [&str; 2] = ["lib", "testing"];

/// Folders that turn bytes into values and do nothing else, what else of the source they use, and what they have no use
/// for: paths, with all that lies below.
const PURE: [&str; 4] = ["http", "packs", "prompts", "usage"];
const PURE_USES: [&str; 4] = ["calendar", "limits", "looks", "order"];
const IMPURE: [&str; 10] = [
    "std::net",
    "std::thread",
    "std::fs",
    "std::time::Instant",
    "std::time::SystemTime",
    "crate::calendar::now_ms",
    "rusqlite",
    "socket2",
    "log",
    "mio",
];

/// Names that say enough inside their module, and may be there more than once.
const SHARED_NAMES: [&str; 4] = ["Error", "Kind", "State", "Step"];

/// Types of one name that are still there more than once.
const NAME_EXCEPTIONS: &[&str] = &[];

/// Imports, "file -> file", without which no circle of files would be left.
const CIRCLE_EXCEPTIONS: &[&str] = &[];

/// Imports, "file -> file", that still run upwards.
const UPWARD_EXCEPTIONS: &[&str] = &[];

// ---- the rules ---------------------------------------------------------------------------------------------------

#[test]
fn every_folder_and_file_has_its_floor() {
    let tops: BTreeSet<String> = sources().iter().map(|source| source.top().to_owned()).collect();
    let known = || FLOORS.iter().chain(&BESIDE).copied();
    for top in &tops {
        assert!(known().any(|name| name == top), "src/{top} stands on no floor: give it a line in FLOORS");
    }
    for name in known() {
        assert!(tops.contains(name), "{name} is no more: remove this line");
    }
}

#[test]
fn no_import_runs_upwards() {
    let floor = |top: &str| FLOORS.iter().position(|name| *name == top);
    let sources = sources();
    let mut excused = BTreeSet::new();
    let mut found = Vec::new();
    for Import { from, to, line } in imports(&sources) {
        let (Some(own), Some(other)) = (floor(from.top()), floor(to.top())) else { continue };
        if other >= own {
            continue;
        }
        let arrow = format!("{} -> {}", from.name, to.name);
        match UPWARD_EXCEPTIONS.iter().find(|exception| **exception == arrow) {
            Some(exception) => drop(excused.insert(*exception)),
            None => found.push(format!("src/{}:{line}: uses {}, which stands above it", from.name, to.name)),
        }
    }
    report("no import runs upwards", &found);
    check_needed(UPWARD_EXCEPTIONS, &excused);
}

#[test]
fn files_use_each_other_in_no_circle() {
    let sources = sources();
    let mut uses: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for Import { from, to, line } in imports(&sources) {
        // A part knows what it is a part of: an `impl` may be spread over several files.
        if !from.is_part_of(to) {
            uses.entry(&from.name).or_default().entry(&to.name).or_insert(line);
        }
    }
    let reaches = |from: &str, to: &str, without: &[&str]| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            for other in uses.get(at).into_iter().flat_map(BTreeMap::keys) {
                if !without.contains(&format!("{at} -> {other}").as_str()) && seen.insert(*other) {
                    next.push(other);
                }
            }
        }
        seen.contains(to)
    };
    let mut found = Vec::new();
    for (from, others) in &uses {
        for (to, line) in others {
            let arrow = format!("{from} -> {to}");
            if !CIRCLE_EXCEPTIONS.contains(&arrow.as_str()) && reaches(to, from, CIRCLE_EXCEPTIONS) {
                found.push(format!("src/{from}:{line}: uses {to}, which uses it in turn, be it through others"));
            }
        }
    }
    report("files use each other in no circle", &found);
    let excused = CIRCLE_EXCEPTIONS.iter().copied().filter(|exception| {
        let others: Vec<&str> = CIRCLE_EXCEPTIONS.iter().copied().filter(|other| other != exception).collect();
        let is_used = |from, to| uses.get(from).is_some_and(|others: &BTreeMap<_, _>| others.contains_key(to));
        exception.split_once(" -> ").is_some_and(|(from, to)| is_used(from, to) && reaches(to, from, &others))
    });
    check_needed(CIRCLE_EXCEPTIONS, &excused.collect());
}

#[test]
fn pure_folders_touch_no_socket_clock_thread_database_or_logger() {
    let sources = sources();
    let is_pure = |source: &Source| PURE.contains(&source.top());
    let mut found = BTreeSet::new();
    for source in sources.iter().filter(|source| is_pure(source)) {
        for (path, line) in impure_paths(&source.code) {
            found.insert(format!("src/{}:{line}: mentions {path}", source.name));
        }
    }
    for Import { from, to, line } in imports(&sources) {
        if is_pure(from) && !is_pure(to) && !PURE_USES.contains(&to.top()) {
            found.insert(format!("src/{}:{line}: uses {}, which is not pure", from.name, to.name));
        }
    }
    report("a pure folder turns bytes into values and does nothing else", &Vec::from_iter(found));
}

#[test]
fn impurity_is_found_however_it_is_imported() {
    let check = |code: &str, expected: &[&str]| {
        let found: Vec<&str> = impure_paths(code).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, expected, "{code}");
    };
    check("use std::time::Instant;", &["std::time::Instant"]);
    check("use std::time::{Duration, Instant};", &["std::time::Instant"]);
    check("use std::{fmt, net::{self, IpAddr}, thread};", &["std::net", "std::net", "std::thread"]);
    check("use ::std::thread as t;", &["std::thread"]);
    check("use log::warn;", &["log"]);
    check("use rusqlite as sqlite;", &["rusqlite"]);
    check("use crate::calendar::{HOUR_MS, now_ms};", &["crate::calendar::now_ms"]);
    // Whoever has the module has what lies in it.
    check("use std::time;", &["std::time::Instant", "std::time::SystemTime"]);
    check("use std::time::{self};", &["std::time::Instant", "std::time::SystemTime"]);
    check("use std::time::*;", &["std::time::Instant", "std::time::SystemTime"]);
    check("fn f() { log::warn!(); std::thread::yield_now(); }", &["log", "std::thread"]);
    check("fn f(at: std::time::Instant) {}", &["std::time::Instant"]);
    check("fn f() -> i64 { crate::calendar::now_ms() }", &["crate::calendar::now_ms"]);
    check("use std::time::Duration; use core::net::IpAddr; use crate::catalog::{log, mio};", &[]);
    check("use super::thread; fn log() {} fn f() { catalog::log(); }", &[]);
}

#[test]
fn a_type_s_name_means_one_thing() {
    let sources = sources();
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !BESIDE.contains(&source.top())) {
        for (name, line) in source.types() {
            types.entry(name).or_default().push(format!("src/{}:{line}", source.name));
        }
    }
    types.retain(|name, places| places.len() > 1 && !SHARED_NAMES.contains(&name.as_str()));
    let is_excused = |name: &str| NAME_EXCEPTIONS.contains(&name);
    let found: Vec<String> = types
        .iter()
        .filter(|(name, _)| !is_excused(name))
        .map(|(name, places)| format!("{}: there is another {name}", places.join(", ")))
        .collect();
    report("a type's name says what it is without its module", &found);
    let excused = NAME_EXCEPTIONS.iter().copied().filter(|name| types.contains_key(*name)).collect();
    check_needed(NAME_EXCEPTIONS, &excused);
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = |text: &str| !text.starts_with("//!");
    let found: Vec<String> = files()
        .into_iter()
        .filter(|(_, text)| silent(text))
        .map(|(name, _)| format!("src/{name}:1: has no `//!`"))
        .collect();
    report("every file begins with what it is for", &found);
}

fn report(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "the rule is: {rule}\n  {}", found.join("\n  "));
}

fn check_needed(exceptions: &[&str], excused: &BTreeSet<&str>) {
    let unneeded: Vec<&&str> = exceptions.iter().filter(|exception| !excused.contains(**exception)).collect();
    assert!(unneeded.is_empty(), "they excuse nothing any more, remove these lines: {unneeded:?}");
}

// ---- reading the source ------------------------------------------------------------------------------------------

/// A file of the product.
struct Source {
    /// Below `src`.
    name: String,
    /// As modules are called: `["record", "row"]`; `["record"]` of its `mod.rs`.
    module: Vec<String>,
    /// Its code: comments, what stands in strings, and tests are blank.
    code: String,
}

/// What one file uses of another.
struct Import<'a> {
    from: &'a Source,
    to: &'a Source,
    line: usize,
}

impl Source {
    fn top(&self) -> &str {
        &self.module[0]
    }

    fn is_part_of(&self, other: &Source) -> bool {
        self.module.len() > other.module.len() && self.module.starts_with(&other.module)
    }

    /// Names of the types that it makes, at the top of the file, and their lines.
    fn types(&self) -> Vec<(String, usize)> {
        let tokens: Vec<Token> = tokens(&self.code).collect();
        let (mut depth, mut found) = (0, Vec::new());
        for pair in tokens.windows(2) {
            match pair[0].text {
                "{" => depth += 1,
                "}" => depth -= 1,
                "struct" | "enum" | "union" | "trait" | "type" if depth == 0 => {
                    found.push((pair[1].text.to_owned(), line_of(&self.code, pair[1].at)));
                }
                _ => {}
            }
        }
        found
    }

    /// The paths that it mentions, of those that can lead to another file: others begin where a `use` ends.
    fn paths(&self) -> impl Iterator<Item = WrittenPath> {
        let leads = |path: &WrittenPath| path.is_use || matches!(path.names[0].as_str(), "crate" | "self" | "super");
        paths(&self.code).into_iter().filter(leads)
    }

    /// A path as one from the root of the crate; `None` if it leads to another crate.
    fn absolute(&self, path: &[String], modules: &BTreeMap<&[String], &Source>) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut own = self.module.clone();
        match first.as_str() {
            "crate" | "lms_metrics_proxy" => return Some(rest.to_vec()),
            "self" => return Some([own, rest.to_vec()].concat()),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                own.truncate(own.len().saturating_sub(ups));
                return Some([own, path[ups..].to_vec()].concat());
            }
            _ => {}
        }
        let child = [own, vec![first.clone()]].concat();
        modules.contains_key(child.as_slice()).then(|| [child, rest.to_vec()].concat())
    }
}

/// A path as it stands in the code.
struct WrittenPath {
    names: Vec<String>,
    line: usize,
    /// It is a `use`: of a foreign crate, too, or of the module itself.
    is_use: bool,
    /// Others find it here, too (`pub use`).
    is_public: bool,
}

/// The paths in `code`: those of `use` and those in the middle of it, `a::b`.
fn paths(code: &str) -> Vec<WrittenPath> {
    let tokens: Vec<Token> = tokens(code).collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let begin = tokens[at].at;
        let goes_on = tokens.get(at + 1).is_some_and(|next| next.text == "::");
        if tokens[at].text == "use" {
            let is_public = at > 0 && matches!(tokens[at - 1].text, "pub" | ")");
            let (line, mut trees) = (line_of(code, begin), Vec::new());
            at = tree(&tokens, at + 1, &[], &mut trees);
            found.extend(trees.into_iter().map(|names| WrittenPath { names, line, is_use: true, is_public }));
        } else if is_word(tokens[at].text) && goes_on {
            let mut names = Vec::new();
            for pair in tokens[at..].chunks(2).take_while(|pair| is_word(pair[0].text)) {
                names.push(pair[0].text.to_owned());
                if pair.get(1).is_none_or(|next| next.text != "::") {
                    break;
                }
            }
            at += 2 * names.len() - 1;
            found.push(WrittenPath { names, line: line_of(code, begin), is_use: false, is_public: false });
        } else {
            at += 1;
        }
    }
    found
}

/// Which of [`IMPURE`] the code mentions, and in which lines. A `use` of a module brings all that lies in it.
fn impure_paths(code: &str) -> Vec<(&'static str, usize)> {
    let mut found = Vec::new();
    for WrittenPath { mut names, line, is_use, .. } in paths(code) {
        if names.len() > 1 && matches!(names.last().map(String::as_str), Some("self" | "*")) {
            names.pop();
        }
        for path in IMPURE {
            let impure: Vec<&str> = path.split("::").collect();
            let is_same = names.iter().zip(&impure).all(|(name, other)| name == other);
            if is_same && (names.len() >= impure.len() || is_use) {
                found.push((path, line));
            }
        }
    }
    found
}

/// The paths of a `use`, from the token `at` on; where it ends.
fn tree(tokens: &[Token], mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => {
                at += 1;
                while tokens[at].text != "}" {
                    at = tree(tokens, at, &path, paths);
                    at += usize::from(tokens[at].text == ",");
                }
                return at + 1;
            }
            // The new name matters only here.
            "as" => at += 2,
            "," | "}" | ";" => break,
            "::" => at += 1,
            name => {
                path.push(name.to_owned());
                at += 1;
            }
        }
    }
    paths.push(path);
    at
}

/// Each use that one file makes of another, seen through what a parent hands on.
fn imports(sources: &[Source]) -> Vec<Import<'_>> {
    let modules: BTreeMap<&[String], &Source> = sources.iter().map(|source| (&source.module[..], source)).collect();
    let mut handed_on: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for source in sources {
        for WrittenPath { names, is_public, .. } in source.paths() {
            if let (true, Some(path)) = (is_public, source.absolute(&names, &modules)) {
                handed_on.insert((&source.name, path.last().cloned().unwrap_or_default()), path);
            }
        }
    }
    let mut found = Vec::new();
    for from in sources {
        for WrittenPath { names, line, is_public, .. } in from.paths() {
            let Some(mut path) = from.absolute(&names, &modules).filter(|_| !is_public) else { continue };
            // As often as names are handed on at most: up a folder and up again.
            for _ in 0..3 {
                let lengths = (1..=path.len()).rev();
                let Some(to) = lengths.clone().find_map(|n| modules.get(&path[..n])) else { break };
                let name = path.get(to.module.len()).cloned().unwrap_or_default();
                match handed_on.get(&(to.name.as_str(), name)) {
                    Some(further) if to.name != from.name => path = further.clone(),
                    _ if to.name == from.name => break,
                    _ => {
                        found.push(Import { from, to, line });
                        break;
                    }
                }
            }
        }
    }
    found
}

/// The files under `src` with what is in them.
fn files() -> Vec<(String, String)> {
    fn read(folder: &Path, below: &str, found: &mut Vec<(String, String)>) {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).expect("the sources are there").map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        for path in paths {
            let name = format!("{below}{}", path.file_name().expect("a name").to_string_lossy());
            if path.is_dir() {
                read(&path, &format!("{name}/"), found);
            } else if name.ends_with(".rs") {
                found.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    let mut found = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    assert!(found.len() > 50, "the sources were found");
    found
}

/// The files that the product is made of.
fn sources() -> Vec<Source> {
    let files = files();
    let for_tests: BTreeSet<Vec<String>> = files.iter().flat_map(|(name, text)| test_modules(name, text)).collect();
    files
        .into_iter()
        .map(|(name, text)| Source { module: module_of(&name), code: without_tests(&blank(&text)), name })
        .filter(|source| BESIDE.contains(&source.top()) || !for_tests.contains(&source.module))
        .filter(|source| !source.code.trim_start().starts_with("#![cfg(test)]"))
        .collect()
}

fn module_of(name: &str) -> Vec<String> {
    let path = name.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The files that a file has for tests alone.
fn test_modules(name: &str, text: &str) -> Vec<Vec<String>> {
    let code = blank(text);
    let own = if name == "lib.rs" { Vec::new() } else { module_of(name) };
    let modules = test_items(&code).into_iter().filter_map(|item| {
        let words: Vec<Token> = tokens(&code[item]).skip_while(|token| token.text != "mod").collect();
        matches!(words[..], [Token { text: "mod", .. }, _, Token { text: ";", .. }]).then(|| words[1].text.to_owned())
    });
    modules.map(|module| [own.clone(), vec![module]].concat()).collect()
}

/// The items under `#[cfg(test)]` and its like.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        let attribute = &code[at..at + code[at..].find(']').unwrap_or(0)];
        if words(attribute, "test").next().is_none() || found.last().is_some_and(|last| last.contains(&at)) {
            continue;
        }
        let (mut depth, mut end) = (0, code.len());
        for (n, byte) in code.bytes().enumerate().skip(at + attribute.len() + 1) {
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 && matches!(byte, b'}' | b';') {
                end = n + 1;
                break;
            }
        }
        found.push(at..end);
    }
    found
}

fn without_tests(code: &str) -> String {
    let mut left = code.as_bytes().to_vec();
    for item in test_items(code) {
        left[item].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    String::from_utf8(left).expect("whole items are taken out")
}

/// The text with its comments and what stands in strings and characters blank, in lines as before.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let joins = code.chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if c == '"' {
            quoted(rest)
        } else if !joins && let Some(hashes) = raw_string(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = 2 + hashes;
            begin + rest[begin..].find(&end).map_or(rest.len() - begin, |at| at + end.len())
        } else if c == '\'' {
            character(rest)
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[length..];
    }
    code
}

/// How long a string is that begins here, with its quotes.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// How many `#` the raw string has that begins here.
fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// How long a character is that begins here, with its quotes; a lifetime's quote alone.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = at + escaped.len_utf8();
            from + text[from..].find('\'').map_or(0, |end| end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    at: usize,
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::`, and whatever else stands between spaces, character by character.
fn tokens(code: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += code[at..].len() - code[at..].trim_start().len();
        let rest = &code[at..];
        let first = rest.chars().next()?;
        let length = if is_word(rest) {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let token = Token { text: &rest[..length], at };
        at += length;
        Some(token)
    })
}

/// Where `text` has `word` as a word of its own: `test` is not part of `latest`.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let joins = |other: Option<char>| other.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let after = text[at + word.len()..].chars().next();
        !joins(text[..*at].chars().next_back()) && !joins(after)
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}
