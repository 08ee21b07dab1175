//! Times as the database holds them: RFC 3339 in UTC, milliseconds, always 24 characters, so that text sorts as time.
//!
//! Does not know the zone of the machine: a time read without one is taken as UTC.

use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Duration, OffsetDateTime};

const MILLISECONDS: EncodedConfig =
    Config::DEFAULT.set_time_precision(TimePrecision::Second { decimal_digits: std::num::NonZeroU8::new(3) }).encode();

/// The last millisecond of the year 9999: beyond it the text would no longer be 24 characters.
pub const MS_MAX: i64 = 253_402_300_799_999;

/// `1768818645123` → `2026-01-19T10:30:45.123Z`. A time before 1970 or after 9999 is moved to that edge.
pub fn text_of_ms(ms: i64) -> String {
    let time = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(ms.clamp(0, MS_MAX));
    time.format(&Iso8601::<MILLISECONDS>).expect("a time between 1970 and 9999 has a text")
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
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(ms_of_text(text).map(text_of_ms).as_deref(), expected, "{text}");
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
