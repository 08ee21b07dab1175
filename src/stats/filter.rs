//! Which requests a question is about, and how that is said in a query string. Pure: time is an argument.

use time::format_description::well_known::Iso8601;
use time::{Date, OffsetDateTime};

use super::answers::By;
use super::zone::Zone;
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
pub const FILTERS: &str = "from, to, tz, model, endpoint, client, key, outcome, conversation";

const TIMES: &str = "a time as 2026-01-19T10:30:45Z, a date as 2026-01-19, a span before now as -24h, -7d or -4w, or today, \
    yesterday, this-week, this-month or this-year";

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
    pub fn take(&mut self, name: &str, value: &str, now_ms: i64, zone: &Zone) -> Result<bool, String> {
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

/// A moment as `from` and `to` take it. A date, or a word for a span, is its first moment.
fn moment(text: &str, now_ms: i64, zone: &Zone) -> Option<i64> {
    if let Some(span) = text.strip_prefix('-') {
        const UNITS: [(char, i64); 4] = [('m', 60_000), ('h', HOUR_MS), ('d', DAY_MS), ('w', 7 * DAY_MS)];
        let (digits, unit_ms) = UNITS.iter().find_map(|(unit, ms)| Some((span.strip_suffix(*unit)?, *ms)))?;
        let count: i64 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        return (digits.len() <= 6).then(|| (now_ms - count * unit_ms).max(0));
    }
    if let Some(days) = days_of_word(text, now_ms, zone) {
        return Some(zone.midnight_ms(now_ms, days).max(0));
    }
    if text.len() == 10 {
        let date = Date::parse(text, &Iso8601::DATE).ok()?;
        return Some(zone.moment_ms(ms_of_date(date)).clamp(0, MS_MAX));
    }
    if !text.contains(['T', 't', ' ']) {
        return None;
    }
    // An offset's `+` that has become a space is put back; the space between date and time is not one of these.
    let (date, time) = text.split_at_checked(11)?;
    ms_of_text(&format!("{date}{}", time.replace(' ', "+")))
}

/// How many days before today the span began that a word means.
fn days_of_word(text: &str, now_ms: i64, zone: &Zone) -> Option<i64> {
    let today = || {
        let local_ms = now_ms + zone.offset_ms(now_ms);
        OffsetDateTime::from_unix_timestamp(local_ms.div_euclid(1000)).ok().map(OffsetDateTime::date)
    };
    match text {
        "today" => Some(0),
        "yesterday" => Some(1),
        "this-week" => Some(i64::from(today()?.weekday().number_days_from_monday())),
        "this-month" => Some(i64::from(today()?.day()) - 1),
        "this-year" => Some(i64::from(today()?.ordinal()) - 1),
        _ => None,
    }
}

/// A value as an error shows it: not longer than needed to recognise it.
pub(super) fn shown(value: &str) -> String {
    format!("{:?}", value.chars().take(60).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::zone::tests::berlin;
    use super::*;
    use crate::calendar::text_of_ms;

    const NOW: &str = "2026-03-01T12:00:00.000Z";

    fn check(value: &str, zone: &str, expected: Option<&str>) {
        let now_ms = ms_of_text(NOW).expect("a time");
        let zone = if zone == "Berlin" { berlin() } else { Zone::parse(zone).expect("a zone") };
        assert_eq!(moment(value, now_ms, &zone).map(text_of_ms).as_deref(), expected, "{value}");
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
        check("2026-07-01", "Berlin", Some("2026-06-30T22:00:00.000Z"));
        check("today", "Z", Some("2026-03-01T00:00:00.000Z"));
        check("today", "+13:00", Some("2026-03-01T11:00:00.000Z"));
        check("today", "Berlin", Some("2026-02-28T23:00:00.000Z"));
        check("yesterday", "Z", Some("2026-02-28T00:00:00.000Z"));
        // A Sunday.
        check("this-week", "Z", Some("2026-02-23T00:00:00.000Z"));
        check("this-week", "+13:00", Some("2026-03-01T11:00:00.000Z"));
        check("this-month", "Berlin", Some("2026-02-28T23:00:00.000Z"));
        check("this-month", "-13:00", Some("2026-02-01T13:00:00.000Z"));
        check("this-year", "Z", Some("2026-01-01T00:00:00.000Z"));
        for bad in ["", "-", "-h", "-5", "-5y", "-+5d", "-5ü", "24h", "2026-1-1", "2026-02-30", "tomorrow", "2026"] {
            check(bad, "Z", None);
        }
    }
}
