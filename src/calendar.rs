//! Times: milliseconds since 1970, the hours, days and months in UTC that they belong to, and times as text.
//!
//! The database holds a time as RFC 3339 in UTC with milliseconds, always 24 characters, so that text sorts as time. The
//! zone of the machine is not asked for: a time read without one is taken as UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime, Time};

/// Milliseconds of an hour.
pub const HOUR_MS: i64 = 3_600_000;
/// Milliseconds of a day.
pub const DAY_MS: i64 = 24 * HOUR_MS;

const MILLISECONDS: EncodedConfig =
    Config::DEFAULT.set_time_precision(TimePrecision::Second { decimal_digits: std::num::NonZeroU8::new(3) }).encode();

/// The last millisecond of the year 9999: beyond it the text would no longer be 24 characters.
pub const MS_MAX: i64 = 253_402_300_799_999;

/// Milliseconds since 1970 by the clock on the wall.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The hour that a time in milliseconds belongs to, counted from 1970.
pub fn hour_of_ms(ms: i64) -> i64 {
    ms.clamp(0, MS_MAX) / HOUR_MS
}

/// The first hour of the day (UTC) that an hour belongs to.
pub fn day_of_hour(hour: i64) -> i64 {
    hour - hour % 24
}

/// The first hour of the month (UTC) that an hour belongs to.
pub fn month_of_hour(hour: i64) -> i64 {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(hour * 3600) else { return day_of_hour(hour) };
    day_of_hour(hour) - (i64::from(time.day()) - 1) * 24
}

/// The first hour of the month after the one that begins with this hour.
pub fn month_after(month: i64) -> i64 {
    month_of_hour(month + 32 * 24)
}

/// The date's first moment in UTC, in milliseconds.
pub fn ms_of_date(date: Date) -> i64 {
    PrimitiveDateTime::new(date, Time::MIDNIGHT).assume_utc().unix_timestamp() * 1000
}

/// `1768818645123` → `2026-01-19T10:30:45.123Z`. A time before 1970 or after 9999 is moved to that edge.
pub fn text_of_ms(ms: i64) -> String {
    let time = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(ms.clamp(0, MS_MAX));
    time.format(&Iso8601::<MILLISECONDS>).expect("a time between 1970 and 9999 has a text")
}

/// A time as HTTP has it (RFC 9110 §5.6.7): `Mon, 19 Jan 2026 10:30:45 GMT`.
pub fn http_date(ms: i64) -> String {
    let time = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(ms.clamp(0, MS_MAX));
    let (weekday, (year, month, day), (hour, minute, second)) =
        (time.weekday(), (time.year(), time.month(), time.day()), time.to_hms());
    format!("{weekday:.3}, {day:02} {month:.3} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Reads RFC 3339, and what SQLite's `CURRENT_TIMESTAMP` and its like write: a space for the `T`, no zone.
pub fn ms_of_text(text: &str) -> Option<i64> {
    let text = text.trim().replacen(' ', "T", 1);
    let time = OffsetDateTime::parse(&text, &Rfc3339).or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339));
    let ms = i64::try_from(time.ok()?.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    (0..=MS_MAX).contains(&ms).then_some(ms)
}

/// The same time without its milliseconds: `2026-01-19T10:30:45Z`, the shape that the statistics routes promise.
pub fn whole_seconds(text: &str) -> String {
    match text.split_once('.') {
        Some((seconds, _)) => [seconds, "Z"].concat(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use time::Month;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(ms_of_text(text).map(text_of_ms).as_deref(), expected, "{text}");
    }

    #[test]
    fn hours_days_and_months_begin_where_the_calendar_says() {
        let hour = |text: &str| hour_of_ms(ms_of_text(text).expect("a time"));
        let (leap_day, month) = (hour("2024-02-29T23:59:59.999Z"), hour("2024-02-01T00:00:00Z"));
        assert_eq!(day_of_hour(leap_day), hour("2024-02-29T00:00:00Z"));
        assert_eq!((month_of_hour(leap_day), month_of_hour(month)), (month, month));
        assert_eq!(month_after(month), hour("2024-03-01T00:00:00Z"));
        assert_eq!(month_after(hour("2025-12-01T00:00:00Z")), hour("2026-01-01T00:00:00Z"));
        assert_eq!((hour_of_ms(-1), hour_of_ms(HOUR_MS - 1), hour_of_ms(HOUR_MS)), (0, 0, 1));
        let date = |year, month, day| Date::from_calendar_date(year, month, day).expect("a date");
        assert_eq!(ms_of_date(date(1970, Month::January, 2)), DAY_MS);
    }

    #[test]
    fn every_usual_way_to_write_a_time_is_read_and_written_alike() {
        check("2026-01-19T10:30:45.123Z", Some("2026-01-19T10:30:45.123Z"));
        check("2026-01-19T10:30:45Z", Some("2026-01-19T10:30:45.000Z"));
        check("2026-01-19T10:30:45.123456789+00:00", Some("2026-01-19T10:30:45.123Z"));
        check("2026-01-19T12:30:45+02:00", Some("2026-01-19T10:30:45.000Z"));
        check("2025-12-31T23:59:59.999-05:30", Some("2026-01-01T05:29:59.999Z"));
        check("2026-01-19 10:30:45", Some("2026-01-19T10:30:45.000Z"));
        check("2026-01-19 10:30:45.5", Some("2026-01-19T10:30:45.500Z"));
        check(" 2024-02-29T00:00:00Z ", Some("2024-02-29T00:00:00.000Z"));
        check("2026-02-29T00:00:00Z", None);
        check("1969-12-31T23:59:59Z", None);
        check("yesterday", None);
        check("2026-01-19", None);
        check("", None);
    }

    #[test]
    fn dates_of_http_are_those_of_the_rfc() {
        let date = |text: &str| http_date(ms_of_text(text).expect("a time"));
        assert_eq!(date("1994-11-06T08:49:37.999Z"), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn a_time_out_of_range_is_moved_to_its_edge() {
        assert_eq!(text_of_ms(i64::MIN), "1970-01-01T00:00:00.000Z");
        assert_eq!(text_of_ms(i64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn seconds_stand_without_a_fraction() {
        assert_eq!(whole_seconds("2026-01-19T10:30:45.999Z"), "2026-01-19T10:30:45Z");
        assert_eq!(whole_seconds("2026-01-19T10:30:45Z"), "2026-01-19T10:30:45Z");
    }
}
