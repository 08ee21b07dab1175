//! Where settings come from: the environment, then `.env` in the working folder, then `.env` beside the program.
//!
//! The environment of the process is never changed (that is unsound beside other threads): the files are read into a
//! map that the lookup falls back to.

use std::cell::Cell;
use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{ReadSettings, SETTINGS, StartError, read_from, shown, slips};
use crate::limits::ENV_FILE_BYTES_MAX;

/// So many names that are none of ours are told of one file. One that is another program's may hold a hundred.
const UNKNOWN_NAMES_TOLD: usize = 5;

/// What the sources hold, before anybody has looked at the values.
#[derive(Debug, Default)]
pub struct Given {
    /// By setting: the value, and where it comes from.
    values: HashMap<&'static str, (String, String)>,
    /// Names that were probably meant for us.
    warnings: Vec<String>,
    /// What cannot be read at all.
    wrong: Vec<String>,
}

/// Looks where settings of this process may come from.
pub fn from_environment() -> Given {
    let beside_program = env::current_exe().ok().and_then(|program| Some(program.parent()?.join(".env")));
    // Both may be one.
    let other = beside_program.filter(|path| path.parent() != env::current_dir().ok().as_deref());
    let files: Vec<PathBuf> = [Some(PathBuf::from(".env")), other].into_iter().flatten().collect();
    let names: Vec<String> = env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    from_sources(|name| env::var_os(name), &names, &files)
}

/// The first source that has a value wins: the environment, then the files in their order. `names`: all that the
/// environment has.
pub(super) fn from_sources(
    environment: impl Fn(&str) -> Option<OsString>,
    names: &[String],
    files: &[PathBuf],
) -> Given {
    let mut given = Given::default();
    for setting in SETTINGS {
        let Some(value) = environment(setting.name).filter(|value| !value.is_empty()) else { continue };
        match value.into_string() {
            Ok(value) => drop(given.values.insert(setting.name, (value, "environment".into()))),
            Err(_) => given.wrong.push(format!("{} holds bytes that are not UTF-8: it takes text", setting.name)),
        }
    }
    for name in names {
        if let Some(meant) = slips::meant_by_variable(name) {
            given.warnings.push(format!("the variable {name} is no setting. Did you mean {meant}?"));
        }
    }
    for path in files {
        if path.is_dir() {
            given.warnings.push(format!("{} is a folder: no settings were read from it", path.display()));
            continue;
        }
        match env_file(path) {
            Ok(lines) => given.take(path, lines),
            Err(error) => given.wrong.push(error.to_string()),
        }
    }
    given
}

impl Given {
    fn take(&mut self, path: &Path, lines: Vec<EnvLine>) {
        let mut unknown = 0;
        for EnvLine { number, name, value, is_used } in lines {
            let place = format!("{}, line {number}", path.display());
            match SETTINGS.iter().find(|setting| setting.name == name) {
                Some(_) if value.is_empty() => {}
                Some(setting) => drop(self.values.entry(setting.name).or_insert((value, place))),
                None if is_used => {}
                None => {
                    unknown += 1;
                    if unknown <= UNKNOWN_NAMES_TOLD {
                        let meant = slips::meant_by(&name).map(|meant| format!(". Did you mean {meant}?"));
                        let (name, meant) = (shown(&name), meant.unwrap_or_default());
                        self.warnings.push(format!("{place}: {name} is no setting of this program{meant}"));
                    }
                }
            }
        }
        if unknown > UNKNOWN_NAMES_TOLD {
            let more = unknown - UNKNOWN_NAMES_TOLD;
            self.warnings.push(format!("{}: {more} more names are no settings of this program", path.display()));
        }
    }

    /// What stands in them.
    pub fn read(&self) -> ReadSettings {
        let read = read_from(&|name| self.values.get(name).map(|(value, _)| value.clone()));
        let warnings = [&self.warnings[..], &read.warnings].concat();
        ReadSettings { warnings, wrong: [&self.wrong[..], &read.wrong].concat(), ..read }
    }

    /// What `--check` prints: each setting as it would be written, and where it comes from; and what could not be read.
    /// Secrets are not shown.
    pub fn table(&self) -> String {
        let lines = SETTINGS.iter().map(|setting| {
            let (value, place) = match self.values.get(setting.name).filter(|(value, _)| !value.trim().is_empty()) {
                Some(_) if setting.secret => ("***".to_owned(), place_of(&self.values, setting.name)),
                Some((value, _)) => (plainly_shown(value.trim()), place_of(&self.values, setting.name)),
                None => (setting.default.to_owned(), "default"),
            };
            (format!("{}={value}", setting.name), place)
        });
        let lines: Vec<_> = lines.collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|n| *n <= 60).max().unwrap_or(0);
        let lines = lines.iter().map(|(line, place)| format!("{line:<width$}  # {place}\n"));
        lines.chain(self.wrong.iter().map(|wrong| format!("# not read: {wrong}\n"))).collect()
    }
}

fn place_of<'a>(values: &'a HashMap<&'static str, (String, String)>, name: &str) -> &'a str {
    values.get(name).map_or("default", |(_, place)| place)
}

/// A value on one line, without the password of an address; in quotes where it would read as something else without.
fn plainly_shown(value: &str) -> String {
    let quoted = shown(value);
    let inner = &quoted[1..quoted.len() - 1];
    if inner.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"'$#".contains(&b)) { inner.to_owned() } else { quoted }
}

/// One line of a file.
struct EnvLine {
    number: usize,
    name: String,
    value: String,
    /// Another value is made with it.
    is_used: bool,
}

/// The lines of one file; none if there is no such file.
fn env_file(path: &Path) -> Result<Vec<EnvLine>, StartError> {
    let wrong =
        |line: usize, reason: &str| StartError::of_setting(format!("{}, line {line}: {reason}", path.display()));
    let bytes = match read_bounded(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Vec::new()),
        Err(error) => return Err(StartError::of_setting(format!("{}: cannot be read ({error})", path.display()))),
    };
    let mut text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|b| **b == b'\n').count();
            return Err(wrong(line, "holds bytes that are not UTF-8"));
        }
    };
    // dotenvy takes a blank at the very end of a file for an open value.
    text.push('\n');
    let text = text.trim_start_matches('\u{feff}');

    if let Some(line) = line_with_unset_name(text) {
        let reason = "puts in what a name behind a $ stands for, but that is not set: a value with a $ belongs in \
            'single quotes'";
        return Err(wrong(line, reason));
    }
    let lines = LineByLine { rest: Cell::new(text.as_bytes()), taken: Cell::new(0) };
    let malformed = |error| {
        let lines_of_item = match error {
            // From where it went wrong to the end of the item. The text itself may be a secret.
            dotenvy::Error::LineParse(item, _) => item.lines().count().max(1),
            _ => 1,
        };
        let line = (lines.taken.get() + 1).saturating_sub(lines_of_item).max(1);
        wrong(line, "is not of the form NAME=value (quote values with blanks, backslashes, $ or #)")
    };
    let used = |name: &str| text.contains(&format!("${name}")) || text.contains(&format!("${{{name}}}"));
    let items = dotenvy::from_read_iter(&lines).map(|item| {
        let (name, value) = item.map_err(malformed)?;
        // The last one of a value of several lines.
        let (number, is_used) = (lines.taken.get(), used(&name));
        Ok(EnvLine { number, name, value, is_used })
    });
    items.collect()
}

/// The first line (from 1) of one of our settings that uses a variable which neither the environment nor a line before
/// sets. dotenvy would put in nothing for it, and a token with a `$` in it would be a shorter one than it looks.
fn line_with_unset_name(text: &str) -> Option<usize> {
    let mut set = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let Some((name, value)) = line.strip_prefix("export ").unwrap_or(line).split_once('=') else { continue };
        let name = name.trim();
        let is_set = |used: &str| set.contains(&used) || env::var_os(used).is_some();
        if SETTINGS.iter().any(|setting| setting.name == name) && !used_names(value).all(is_set) {
            return Some(number + 1);
        }
        set.push(name);
    }
    None
}

/// What stands behind each `$` of a value that is neither in single quotes nor escaped: `NAME`, as in `$NAME` or
/// `${NAME}`, or nothing.
fn used_names(value: &str) -> impl Iterator<Item = &str> {
    let (mut rest, mut in_single, mut in_double) = (value, false, false);
    std::iter::from_fn(move || {
        while let Some(at) = rest.find(['\'', '"', '\\', '$', '#']) {
            let (before, found) = rest.split_at(at);
            rest = &found[1..];
            match found.as_bytes()[0] {
                b'\'' if !in_double => in_single = !in_single,
                b'"' if !in_single => in_double = !in_double,
                b'\\' if !in_single => rest = rest.get(1..).unwrap_or_default(),
                b'#' if !in_single && !in_double && before.ends_with([' ', '\t']) => return None,
                b'$' if !in_single => {
                    let name = match rest.strip_prefix('{') {
                        Some(braced) => braced.split('}').next().unwrap_or_default(),
                        None => &rest[..rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len())],
                    };
                    return Some(name);
                }
                _ => {}
            }
        }
        None
    })
}

/// The content of a regular file or a pipe; `None` if there is none.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.by_ref().take(ENV_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > ENV_FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is longer than {ENV_FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(bytes))
}

/// Gives out one line a read, and so knows how far a buffering reader has come: dotenvy tells no line numbers.
struct LineByLine<'a> {
    rest: Cell<&'a [u8]>,
    /// Whole lines given out.
    taken: Cell<usize>,
}

impl Read for &LineByLine<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.rest.get();
        let line = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |end| end + 1);
        let (given, rest) = bytes.split_at(line.min(buffer.len()));
        buffer[..given.len()].copy_from_slice(given);
        self.rest.set(rest);
        self.taken.set(self.taken.get() + usize::from(given.ends_with(b"\n")));
        Ok(given.len())
    }
}
