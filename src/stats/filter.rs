//! Which requests a question is about, and how that is said in a query string. Pure: time is an argument.

use simplelog::format_description;
use time::format_description::well_known::Iso8601;
use time::{Date, UtcOffset};

use super::answers::By;
use crate::calendar::{DAY_MS, HOUR_MS, MS_MAX, ms_of_date, ms_of_text};
use crate::clock::latest_true_ms;
use crate::record::row::Outcome;
use crate::record::series::{OTHER, Series};
use crate::routes::Names;

/// What a request must be to count. Empty lists and absent ends ask for nothing; several names mean any of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Started at or after this moment: milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Started before this moment.
    pub to_ms: Option<i64>,
    /// Filed under one of these, as a [`Series`] is.
    pub names: Names<Vec<String>>,
    /// Of one of these conversations.
    pub conversations: Vec<String>,
}

/// The parameters of a [`Filter`], as an error names them.
pub const FILTERS: &str = "from, to, model, endpoint, client, key, outcome, conversation";

const TIMES: &str = "a time as 2026-01-19T10:30:45Z, a date as 2026-01-19, or a span before now as -24h, -7d or -4w";

impl Filter {
    /// What is since a moment is until now: a row of a clock that was wrong is not of the last seven days until its day
    /// comes. Asked for by name, it is found.
    pub fn end_at_present(&mut self, now_ms: i64) {
        let end_ms = present_end_ms(now_ms);
        if self.to_ms.is_none() && self.from_ms.is_some_and(|from| from < end_ms) {
            self.to_ms = Some(end_ms);
        }
    }

    /// Whether a request of these names counts.
    pub fn matches(&self, names: &Names<impl AsRef<str>>) -> bool {
        self.lets_pass(names, |wanted, name| wanted == name)
    }

    /// Whether a request of this conversation counts; `None`: it is of none.
    pub fn takes_conversation(&self, name: Option<&str>) -> bool {
        self.conversations.is_empty() || name.is_some_and(|name| self.conversations.iter().any(|wanted| wanted == name))
    }

    /// Whether any of the requests of a series can count: names that were folded into [`OTHER`] may be any.
    pub(super) fn may_match(&self, series: &Series) -> bool {
        self.lets_pass(series, |wanted, name| wanted == name || name == OTHER)
    }

    fn lets_pass(&self, names: &Names<impl AsRef<str>>, fits: impl Fn(&str, &str) -> bool) -> bool {
        let fits = |wanted: &Vec<String>, name: &str| wanted.is_empty() || wanted.iter().any(|one| fits(one, name));
        self.names.iter().zip(names).all(|(wanted, name)| fits(wanted, name.as_ref()))
    }

    /// Takes one parameter; false where it is none of a filter's. `zone`: whose midnight a date means.
    pub fn take(&mut self, name: &str, value: &str, now_ms: i64, zone: Zone) -> Result<bool, String> {
        let wrong = |takes: &str| format!("{name} is {}: it takes {takes}.", shown(value));
        let time = || moment(value, now_ms, zone).ok_or_else(|| wrong(TIMES));
        let outcomes = Outcome::all().map(Outcome::as_str);
        match (name, By::named(name)) {
            ("from", _) => self.from_ms = Some(time()?),
            ("to", _) => self.to_ms = Some(time()?),
            (_, Some(By::Outcome)) if !outcomes.contains(&value) => {
                return Err(wrong(&format!("one of {}", outcomes.join(", "))));
            }
            ("conversation", _) if value.is_empty() => return Err(wrong("the name of a conversation")),
            ("conversation", _) => self.conversations.push(value.to_owned()),
            (_, Some(by)) => self.names[by].push(value.to_owned()),
            (_, None) => return Ok(false),
        }
        Ok(true)
    }
}

/// The end of the last hour that a row of now can be dated in. Whole hours are told from packs.
pub(super) fn present_end_ms(now_ms: i64) -> i64 {
    (latest_true_ms(now_ms).div_euclid(HOUR_MS) + 1).saturating_mul(HOUR_MS)
}

/// A fixed distance from UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// East of Greenwich is positive.
    pub minutes: i32,
}

impl Zone {
    /// `+02:00`, `-05:30`, `Z` or `UTC`. In a query string a `+` that nobody escaped has become a space.
    pub fn parse(text: &str) -> Option<Zone> {
        if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
            return Some(Zone::default());
        }
        let form = format_description!("[offset_hour sign:mandatory][optional [:]][offset_minute]");
        let offset = UtcOffset::parse(&text.replace(' ', "+"), form).ok()?;
        (offset.whole_hours().abs() <= 14).then_some(Zone { minutes: offset.whole_minutes().into() })
    }

    /// What it adds to UTC.
    pub fn ms(self) -> i64 {
        i64::from(self.minutes) * 60_000
    }

    /// `+02:00`.
    pub fn text(self) -> String {
        let sign = if self.minutes < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", self.minutes.abs() / 60, self.minutes.abs() % 60)
    }
}

/// A moment as `from` and `to` take it. A date is its first moment.
fn moment(text: &str, now_ms: i64, zone: Zone) -> Option<i64> {
    if let Some(span) = text.strip_prefix('-') {
        const UNITS: [(char, i64); 4] = [('m', 60_000), ('h', HOUR_MS), ('d', DAY_MS), ('w', 7 * DAY_MS)];
        let (digits, unit_ms) = UNITS.iter().find_map(|(unit, ms)| Some((span.strip_suffix(*unit)?, *ms)))?;
        let count: i64 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        return (digits.len() <= 6).then(|| (now_ms - count * unit_ms).max(0));
    }
    if text.len() == 10 {
        let date = Date::parse(text, &Iso8601::DATE).ok()?;
        return Some((ms_of_date(date) - zone.ms()).clamp(0, MS_MAX));
    }
    if !text.contains(['T', 't', ' ']) {
        return None;
    }
    // An offset's `+` that has become a space is put back; the space between date and time is not one of these.
    let (date, time) = text.split_at_checked(11)?;
    ms_of_text(&format!("{date}{}", time.replace(' ', "+")))
}

/// A value as an error shows it: not longer than needed to recognise it.
pub(super) fn shown(value: &str) -> String {
    format!("{:?}", value.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::text_of_ms;

    const NOW: &str = "2026-03-01T12:00:00.000Z";

    fn check(value: &str, zone: &str, expected: Option<&str>) {
        let now_ms = ms_of_text(NOW).expect("a time");
        let zone = Zone::parse(zone).expect("a zone");
        assert_eq!(moment(value, now_ms, zone).map(text_of_ms).as_deref(), expected, "{value}");
    }

    #[test]
    fn moments_are_times_dates_or_spans_before_now() {
        check("2026-01-19T10:30:45Z", "Z", Some("2026-01-19T10:30:45.000Z"));
        check("2026-01-19T10:30:45.5+02:00", "Z", Some("2026-01-19T08:30:45.500Z"));
        check("2026-01-19T10:30:45 02:00", "Z", Some("2026-01-19T08:30:45.000Z"));
        check("2026-01-19", "Z", Some("2026-01-19T00:00:00.000Z"));
        check("2026-01-19", "+02:00", Some("2026-01-18T22:00:00.000Z"));
        check("-24h", "Z", Some("2026-02-28T12:00:00.000Z"));
        check("-7d", "+02:00", Some("2026-02-22T12:00:00.000Z"));
        check("-4w", "Z", Some("2026-02-01T12:00:00.000Z"));
        check("-90m", "Z", Some("2026-03-01T10:30:00.000Z"));
        check("-999999w", "Z", Some("1970-01-01T00:00:00.000Z"));
        for bad in ["", "-", "-h", "-5", "-5y", "-+5d", "-5ü", "24h", "2026-1-1", "2026-02-30", "yesterday", "2026"] {
            check(bad, "Z", None);
        }
    }

    #[test]
    fn zones_are_offsets() {
        let check = |text: &str, minutes: Option<i32>| {
            assert_eq!(Zone::parse(text).map(|zone| zone.minutes), minutes, "{text}");
        };
        check("+02:00", Some(120));
        check(" 02:00", Some(120));
        check("-0530", Some(-330));
        check("-00:30", Some(-30));
        check("Z", Some(0));
        check("utc", Some(0));
        for bad in ["", "+", "2", "+2", "+02:0", "+0200:", "+15:00", "+02:60", "+ab:cd", "Europe/Berlin", "+:0200"] {
            check(bad, None);
        }
        assert_eq!(Zone { minutes: -330 }.text(), "-05:30");
    }
}
