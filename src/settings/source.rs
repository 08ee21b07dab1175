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

use super::{SETTINGS, Settings, StartError, read};
use crate::limits::ENV_FILE_BYTES_MAX;

/// Reads the settings of this process. Warnings for the log come with them.
pub fn from_environment() -> Result<(Settings, Vec<String>), StartError> {
    let beside_program = env::current_exe().ok().and_then(|program| Some(program.parent()?.join(".env")));
    let files: Vec<PathBuf> = [Some(PathBuf::from(".env")), beside_program].into_iter().flatten().collect();
    from_sources(|name| env::var_os(name), &files)
}

/// The first source that has a value wins: the environment, then the files in their order.
pub(super) fn from_sources(
    environment: impl Fn(&str) -> Option<OsString>,
    files: &[PathBuf],
) -> Result<(Settings, Vec<String>), StartError> {
    let mut values: HashMap<String, String> = HashMap::new();
    for setting in SETTINGS {
        if let Some(value) = environment(setting.name).filter(|value| !value.is_empty()) {
            let not_text =
                |_| StartError::of_setting(format!("{} holds bytes that are not UTF-8: it takes text", setting.name));
            let value = value.into_string().map_err(not_text)?;
            values.insert(setting.name.to_owned(), value);
        }
    }
    for path in files {
        for (name, value) in env_file(path)? {
            if !value.is_empty() {
                values.entry(name).or_insert(value);
            }
        }
    }
    read(|name| values.get(name).cloned())
}

/// The lines of one file; none if there is no such file.
fn env_file(path: &Path) -> Result<Vec<(String, String)>, StartError> {
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
    dotenvy::from_read_iter(&lines).map(|item| item.map_err(malformed)).collect()
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

/// The content of a regular file or a pipe; `None` if there is none. A folder of that name is a Python environment.
fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return if path.is_dir() { Ok(None) } else { Err(error) },
    };
    if file.metadata()?.is_dir() {
        return Ok(None);
    }
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
