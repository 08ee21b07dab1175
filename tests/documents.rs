//! What is written for people: links lead somewhere, the README stays short, every route is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lms_metrics_proxy::routes::LOCAL;

/// Whoever reads it for the first time reads on to the end of this many lines, and no further.
const README_LINES_MAX: usize = 250;

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    let headings: BTreeMap<&PathBuf, BTreeSet<String>> =
        documents.iter().map(|(path, text)| (path, anchors(text))).collect();
    let mut broken = Vec::new();
    for (path, text) in &documents {
        for link in links(text) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let folder = path.parent().expect("a file has a folder");
            let target = if file.is_empty() { path.clone() } else { folder.join(file) };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}: there is no such file", path.display()));
                continue;
            };
            let is_heading = |anchor: &str| headings.get(&target).is_some_and(|known| known.contains(anchor));
            if !anchor.is_none_or(is_heading) {
                broken.push(format!("{}: {link}: there is no such heading", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_local_route_stands_in_the_table_of_routes_and_has_a_section() {
    let documents = documents();
    let table = read("docs/routes.md");
    let headings: String = documents
        .values()
        .flat_map(|text| text.lines())
        .filter(|line| line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    for path in LOCAL.iter().map(|route| route.path) {
        assert!(table.contains(&format!("`{path}`")), "{path} is missing in docs/routes.md");
        let is_told = [format!("`{path}`"), format!("`GET {path}`"), format!("`GET {path}?")];
        assert!(is_told.iter().any(|title| headings.contains(title)), "{path} has no section");
    }
}

#[test]
fn the_readme_is_short_and_its_commands_are_those_that_are_run() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES_MAX, "the README has {lines} lines: what is long belongs into docs/");
    let is_a_line = |text: &str, command: &str| text.lines().any(|line| line == command);
    let test = readme.lines().find(|line| line.starts_with("cargo test")).expect("the README tells how to test");
    assert!(is_a_line(&read(".ci/run"), test), "{test:?} is not what .ci/run runs");
}

#[test]
fn the_manual_page_tells_every_flag() {
    let help = Command::new(env!("CARGO_BIN_EXE_lms_metrics_proxy")).arg("--help").output().expect("the binary runs");
    let page = read("deploy/man/lms_metrics_proxy.1");
    let help = String::from_utf8(help.stdout).expect("text");
    let flags: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next()).collect();
    assert!(flags.len() > 3, "{help}");
    for flag in flags {
        assert!(page.contains(&format!("\n.B \\-\\-{flag}\n")), "--{flag} is missing");
    }
}

/// The Markdown at the root and in `docs`, by its whole path.
fn documents() -> BTreeMap<PathBuf, String> {
    let is_document = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
    let in_folder = |name: &str| {
        let entries = fs::read_dir(root().join(name)).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).filter(is_document).collect::<Vec<_>>()
    };
    let paths = ["", "docs"].into_iter().flat_map(in_folder);
    let documents: BTreeMap<_, _> = paths
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a document");
            (path.canonicalize().expect("it was read"), text)
        })
        .collect();
    assert!(documents.len() > 10, "the documents are to be found elsewhere now");
    documents
}

/// Its lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    })
}

/// Targets of links that begin with no scheme.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets =
        prose(text).flat_map(|line| line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)));
    targets.filter(|target| !target.contains("://"))
}

/// What a link may name behind `#`, as GitHub makes it of a heading: letters, digits, `_` and `-` stay, blanks become `-`.
fn anchors(text: &str) -> BTreeSet<String> {
    let titles = prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim_start());
    let of_title = |title: &str| {
        let kept = title.to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    titles.map(of_title).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect("a document")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
