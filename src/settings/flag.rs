//! The command line: what it asks for, what `--help` prints, and what it says of a flag that is a setting.

use super::{SETTINGS, StartError, shown, slips};

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// No flag: run the proxy.
    Run,
    /// `--help`
    Help,
    /// `--version`
    Version,
    /// `--health`: ask the running proxy whether it is well.
    Health,
    /// `--check`: say what the settings are.
    Check,
    /// `--demo`: run before a stand-in for LM Studio.
    Demo,
}

/// Every flag, and what it does.
const FLAGS: [(&str, Flag, &str); 5] = [
    ("--help", Flag::Help, "show this"),
    ("--version", Flag::Version, "show the version"),
    ("--demo", Flag::Demo, "show it at work, without LM Studio and settings; nothing is kept"),
    (
        "--check",
        Flag::Check,
        "read the settings, ask nothing, and show each with where it comes from: exit code 0 or 2",
    ),
    ("--health", Flag::Health, "ask the running proxy whether it is well: exit code 0 or 1"),
];

/// Reads the command line, without the program's name. All arguments must be known, and ask for one thing; help is what
/// its owner needs beside whatever else.
pub fn flags(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Flag, StartError> {
    let mut asked: Option<Flag> = None;
    let mut arguments = arguments.into_iter().map(|argument| argument.to_string_lossy().into_owned()).peekable();
    while let Some(argument) = arguments.next() {
        let long = match argument.as_str() {
            "-h" => "--help",
            "-V" => "--version",
            other => other,
        };
        let Some((_, flag, _)) = FLAGS.iter().find(|(name, ..)| *name == long) else {
            return Err(StartError::of_setting(unknown(&argument, arguments.peek().map(String::as_str))));
        };
        match asked {
            Some(other) if other != *flag && other != Flag::Help && *flag != Flag::Help => {
                let names = names(" or ");
                return Err(StartError::of_setting(format!("one thing at a time: it takes {names}")));
            }
            Some(Flag::Help) => {}
            Some(_) | None => asked = Some(*flag),
        }
    }
    Ok(asked.unwrap_or(Flag::Run))
}

fn names(last: &str) -> String {
    let names = FLAGS.map(|(name, ..)| name);
    let (end, others) = names.split_last().expect("there are flags");
    format!("{}{last}{end}", others.join(", "))
}

/// What is said of an argument that is none; `next` stands behind it. A flag that has a setting's name was meant so.
fn unknown(argument: &str, next: Option<&str>) -> String {
    let takes = format!("{} is no argument of this program: it takes {}", shown(argument), names(" or "));
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (argument, next.filter(|next| !next.starts_with('-'))),
    };
    let is_flag = argument.starts_with('-') || argument.contains('=');
    let meant = slips::meant_by(name.trim_start_matches('-')).filter(|_| is_flag);
    let Some(setting) = meant.and_then(|meant| SETTINGS.iter().find(|s| s.name == meant)) else { return takes };
    let value =
        value.filter(|value| !setting.secret && value.bytes().all(|b| b.is_ascii_graphic()) && value.len() < 60);
    let (name, value) = (setting.name, value.unwrap_or("…"));
    format!("{takes}. Settings are variables of the environment or lines of .env: {name}={value}")
}

/// What `--help` prints: the flags, and every setting with its default.
pub fn help_text() -> String {
    let mut text = format!(
        "A transparent proxy in front of LM Studio that records token usage in SQLite.\n\n\
         Usage: lms_metrics_proxy [{}]\n\n",
        FLAGS.map(|(name, ..)| name).join(" | ")
    );
    for (name, _, does) in FLAGS {
        text += &format!("  {name:<10} {does}\n");
    }
    text += "\nSettings come from the environment, then from .env in the working folder, then from .env beside the\n\
        program. An empty value counts as unset.\n";
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "empty" } else { setting.default };
        text += &format!(
            "\n  {} (default: {default})\n      {}.\n      Takes {}.\n",
            setting.name, setting.meaning, setting.takes
        );
    }
    text
}
