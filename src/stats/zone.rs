//! Whose clocks a question means: a fixed distance from UTC, or those of a place, which are put forward and back.
//!
//! The rules of places are the system's, in files of TZif (RFC 9636), so that they are as new as it is. The zone of the
//! machine is not asked for.

use std::path::Path;
use std::sync::Arc;

use time::UtcOffset;
use tz::TimeZone;

use crate::calendar::{DAY_MS, HOUR_MS};

/// Where systems keep their zones.
const FOLDER: &str = "/usr/share/zoneinfo";
/// No file of a zone is larger; the largest has some 4 KB.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Longer than any name of a zone.
const NAME_BYTES_MAX: usize = 64;

/// A zone of time.
#[derive(Clone, Debug)]
pub enum Zone {
    /// So many minutes from UTC; east of Greenwich is positive.
    Fixed(i32),
    /// Of a place.
    Named(Arc<NamedZone>),
}

/// A place that has a zone.
#[derive(Debug)]
pub struct NamedZone {
    name: String,
    rules: TimeZone,
}

impl Default for Zone {
    fn default() -> Zone {
        Zone::Fixed(0)
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Zone) -> bool {
        self.text() == other.text()
    }
}

impl Zone {
    /// `+02:00`, `-05:30`, `Z`, `UTC`, or a name as `Europe/Berlin`. In a query string a `+` that nobody escaped has
    /// become a space.
    pub fn parse(text: &str) -> Option<Zone> {
        if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
            return Some(Zone::default());
        }
        // No zone has a space in its name.
        let text = &*text.replace(' ', "+");
        if let Some(minutes) = fixed_minutes(text) {
            return Some(Zone::Fixed(minutes));
        }
        is_name(text).then(|| place(text)).flatten().map(|place| Zone::Named(Arc::new(place)))
    }

    /// What its clocks show at this moment beyond UTC, in milliseconds.
    pub fn offset_ms(&self, at_ms: i64) -> i64 {
        match self {
            Zone::Fixed(minutes) => i64::from(*minutes) * 60_000,
            Zone::Named(place) => {
                let rule = place.rules.find_local_time_type(at_ms.div_euclid(1000));
                // Whole minutes, as all have that are in use.
                rule.map_or(0, |rule| i64::from(rule.ut_offset()).div_euclid(60) * 60_000)
            }
        }
    }

    /// The first moment at which its clocks show this; `local_ms`: what they show, as if that were UTC. Where they never
    /// do, for they are put forward over it, one close by.
    pub fn moment_ms(&self, local_ms: i64) -> i64 {
        let (before, after) = (self.offset_ms(local_ms - DAY_MS), self.offset_ms(local_ms + DAY_MS));
        match self.offset_ms(local_ms - before) == before {
            true => local_ms - before,
            false if self.offset_ms(local_ms - after) == after => local_ms - after,
            false => local_ms - before,
        }
    }

    /// The midnight with which the day begins that this moment belongs to, or the one so many days before.
    pub fn midnight_ms(&self, at_ms: i64, days_before: i64) -> i64 {
        let local = at_ms + self.offset_ms(at_ms);
        self.moment_ms(local - local.rem_euclid(DAY_MS) - days_before * DAY_MS)
    }

    /// The offset of this moment, as a date's text needs it.
    pub fn offset(&self, at_ms: i64) -> UtcOffset {
        UtcOffset::from_whole_seconds((self.offset_ms(at_ms) / 1000) as i32).unwrap_or(UtcOffset::UTC)
    }

    /// `+02:00`, or the name of the place.
    pub fn text(&self) -> String {
        match self {
            Zone::Fixed(_) => self.offset_text(0),
            Zone::Named(place) => place.name.clone(),
        }
    }

    /// What its clocks show beyond UTC at this moment: `+02:00`.
    pub fn offset_text(&self, at_ms: i64) -> String {
        let ms = self.offset_ms(at_ms);
        let (sign, ms) = (if ms < 0 { '-' } else { '+' }, ms.abs());
        format!("{sign}{:02}:{:02}", ms / HOUR_MS, ms % HOUR_MS / 60_000)
    }
}

/// Minutes east of Greenwich: `+02:00` or `+0200`. No zone is further than 14 hours from it.
fn fixed_minutes(text: &str) -> Option<i32> {
    let (sign, digits) = text.split_at_checked(1)?;
    let sign = match sign {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = digits.split_at_checked(2)?;
    let number = |text: &str| text.parse().ok().filter(|_| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()));
    let (hours, minutes): (i32, i32) = (number(hours)?, number(minutes.strip_prefix(':').unwrap_or(minutes))?);
    (hours <= 14 && minutes < 60).then_some(sign * (60 * hours + minutes))
}

/// Whether it may be the name of a zone: no way out of the folder, nor to what is no zone.
fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_uppercase())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+'))
    };
    text.len() <= NAME_BYTES_MAX && text.split('/').all(is_part)
}

fn place(name: &str) -> Option<NamedZone> {
    let path = Path::new(FOLDER).join(name);
    let is_small = std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= FILE_BYTES_MAX);
    let bytes = is_small.then(|| std::fs::read(&path).ok()).flatten()?;
    Some(NamedZone { name: name.to_owned(), rules: TimeZone::from_tz_data(&bytes).ok()? })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::calendar::{ms_of_text, text_of_ms};

    /// A place whose clocks are an hour and two hours before UTC, by the European Union's rule.
    pub(in crate::stats) fn berlin() -> Zone {
        // TZif of version 2, without transitions but for the rule at its end (RFC 9636 §3).
        let header = |version: u8| {
            let counts = [0_u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat();
            [b"TZif".as_slice(), &[version], &[0; 15], &counts].concat()
        };
        let types = [3600_i32.to_be_bytes().as_slice(), &[0, 0], b"CET\0"].concat();
        let file = [&header(b'2')[..], &types, &header(b'2')[..], &types, b"\nCET-1CEST,M3.5.0,M10.5.0/3\n"].concat();
        let rules = TimeZone::from_tz_data(&file).expect("a zone");
        Zone::Named(Arc::new(NamedZone { name: "Europe/Berlin".to_owned(), rules }))
    }

    #[test]
    fn zones_are_offsets() {
        let check = |text: &str, minutes: Option<i32>| {
            assert_eq!(Zone::parse(text), minutes.map(Zone::Fixed), "{text}");
        };
        check("+02:00", Some(120));
        check(" 02:00", Some(120));
        check("-0530", Some(-330));
        check("-00:30", Some(-30));
        check("Z", Some(0));
        check("utc", Some(0));
        for bad in ["", "+", "2", "+2", "+02:0", "+0200:", "+15:00", "+02:60", "+ab:cd", "+:0200", "Nowhere/At_All"] {
            check(bad, None);
        }
        assert_eq!(Zone::Fixed(-330).text(), "-05:30");
    }

    #[test]
    fn names_of_zones_lead_nowhere_else() {
        for name in ["Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "CET"] {
            assert!(is_name(name), "{name}");
        }
        let long = "A".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "/", "../passwd", "Europe/../..", "Europe//Berlin", "/etc/passwd", "posixrules", "a\0", &long]
        {
            assert!(!is_name(name), "{name}");
        }
    }

    #[track_caller]
    fn check(local: &str, expected: &str) {
        let local_ms = ms_of_text(local).expect("a time");
        assert_eq!(text_of_ms(berlin().moment_ms(local_ms)), format!("{expected}.000Z"), "{local}");
    }

    #[test]
    fn clocks_of_a_place_are_put_forward_and_back() {
        check("2026-01-01T00:00:00Z", "2025-12-31T23:00:00");
        check("2026-07-01T00:00:00Z", "2026-06-30T22:00:00");
        // Put forward at two, back at three.
        check("2026-03-29T01:59:00Z", "2026-03-29T00:59:00");
        check("2026-03-29T03:00:00Z", "2026-03-29T01:00:00");
        check("2026-03-30T00:00:00Z", "2026-03-29T22:00:00");
        check("2026-10-25T01:00:00Z", "2026-10-24T23:00:00");
        check("2026-10-25T03:00:00Z", "2026-10-25T02:00:00");
        // What they show twice is the first of both.
        check("2026-10-25T02:30:00Z", "2026-10-25T00:30:00");
        // What they never show is an hour later, or before.
        check("2026-03-29T02:30:00Z", "2026-03-29T01:30:00");
    }

    #[test]
    fn a_day_begins_at_its_midnight_however_long_it_is() {
        let zone = berlin();
        let midnight = |at: &str, before: i64| text_of_ms(zone.midnight_ms(ms_of_text(at).expect("a time"), before));
        assert_eq!(midnight("2026-03-29T21:59:59Z", 0), "2026-03-28T23:00:00.000Z");
        assert_eq!(midnight("2026-03-29T22:00:00Z", 0), "2026-03-29T22:00:00.000Z");
        assert_eq!(midnight("2026-03-30T12:00:00Z", 1), "2026-03-28T23:00:00.000Z");
        assert_eq!(midnight("2026-10-25T22:59:59Z", 0), "2026-10-24T22:00:00.000Z");
        assert_eq!(zone.offset_text(ms_of_text("2026-10-25T22:59:59Z").expect("a time")), "+01:00");
        assert_eq!(zone.text(), "Europe/Berlin");
    }
}
