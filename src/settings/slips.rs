//! Names that nobody reads, and the setting that was probably meant: a slip of the keyboard, or the name that another
//! program has for the same.

use super::SETTINGS;
use crate::nearest::nearest;

/// Names of other programs, or of flags, and the setting that stands for them here.
#[rustfmt::skip]
const OTHER_NAMES: &[(&str, &str)] = &[
    ("LMSTUDIO_BASE_URL", "LM_STUDIO_URL"), ("LM_STUDIO_BASE_URL", "LM_STUDIO_URL"),
    ("LMSTUDIO_HOST", "LM_STUDIO_URL"), ("LM_STUDIO_HOST", "LM_STUDIO_URL"), ("LM_STUDIO_API_BASE", "LM_STUDIO_URL"),
    ("UPSTREAM_URL", "LM_STUDIO_URL"), ("UPSTREAM", "LM_STUDIO_URL"), ("URL", "LM_STUDIO_URL"), ("TARGET", "LM_STUDIO_URL"),
    ("LISTEN_PORT", "PORT"), ("LISTEN_HOST", "HOST"), ("LISTEN", "HOST"), ("BIND", "HOST"), ("ADDRESS", "HOST"),
    ("DB", "DATABASE_URL"), ("DB_URL", "DATABASE_URL"), ("DB_PATH", "DATABASE_URL"), ("DATABASE", "DATABASE_URL"),
    ("DATABASE_PATH", "DATABASE_URL"), ("METRICS_DB", "DATABASE_URL"),
    ("STATS_PASSWORD", "STATS_TOKEN"), ("TOKEN", "STATS_TOKEN"), ("API_KEY", "STATS_TOKEN"),
    ("LOG", "RUST_LOG"), ("LOG_LEVEL", "RUST_LOG"), ("LOGLEVEL", "RUST_LOG"), ("VERBOSE", "RUST_LOG"), ("DEBUG", "RUST_LOG"),
    ("LOG_PROMPTS", "LOG_CONTENT"), ("CA_FILE", "UPSTREAM_CA"), ("CACERT", "UPSTREAM_CA"),
];

/// Of those, names that other programs read, too: who sets them for these has not meant us.
#[rustfmt::skip]
const COMMON: [&str; 15] =
    ["UPSTREAM", "URL", "TARGET", "LISTEN", "BIND", "ADDRESS", "DB", "DATABASE", "TOKEN", "API_KEY", "VERBOSE", "DEBUG",
     "LOG", "LOG_LEVEL", "LOGLEVEL"];

/// The setting that a name in a file, or of a flag, is meant for.
pub(super) fn meant_by(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, setting)| *setting);
    other.or_else(|| nearest(&name, &mut SETTINGS.iter().map(|setting| setting.name)))
}

/// The same of a variable of the environment, where most names are for others.
pub(super) fn meant_by_variable(name: &str) -> Option<&'static str> {
    let common = COMMON.contains(&name);
    (!common && SETTINGS.iter().all(|setting| setting.name != name)).then(|| meant_by(name)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_within_two_slips_of_a_setting_or_of_another_program_is_told_from_others() {
        for (name, setting) in [
            ("LMSTUDIO_URL", "LM_STUDIO_URL"),
            ("LM_STUDIO_URLS", "LM_STUDIO_URL"),
            ("LM_STUDIO_BASE_URL", "LM_STUDIO_URL"),
            ("STAT_TOKEN", "STATS_TOKEN"),
            ("STATS_TOEKN", "STATS_TOKEN"),
            ("PROT", "PORT"),
            ("PORTS", "PORT"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("INJECTUSAGE", "INJECT_USAGE"),
            ("RETENTION_DAY", "RETENTION_DAYS"),
            ("LOG_FORMATS", "LOG_FORMAT"),
        ] {
            assert_eq!((meant_by(name), meant_by_variable(name)), (Some(setting), Some(setting)), "{name}");
        }
        for name in
            ["PATH", "HOME", "TERM", "SHELL", "HOSTNAME", "LOGNAME", "USER", "PWD", "OPENAI_BASE_URL", "LANG", "PS1"]
        {
            assert_eq!((meant_by(name), meant_by_variable(name)), (None, None), "{name}");
        }
        // In a file that is ours alone, and as a flag, they can only be meant for us.
        assert_eq!((meant_by("LOG_LEVEL"), meant_by_variable("LOG_LEVEL")), (Some("RUST_LOG"), None));
        assert_eq!(meant_by("lm-studio-url"), Some("LM_STUDIO_URL"));
        for setting in SETTINGS {
            assert_eq!((meant_by(setting.name), meant_by_variable(setting.name)), (Some(setting.name), None));
        }
    }

    #[test]
    fn other_names_stand_for_settings_and_are_none() {
        for (other, setting) in OTHER_NAMES {
            assert!(
                SETTINGS.iter().any(|s| s.name == *setting) && SETTINGS.iter().all(|s| s.name != *other),
                "{other}"
            );
        }
    }
}
