//! What a query string asks of a route. Pure: time is an argument.

use super::answers::By;
use super::export::Format;
use super::filter::{FILTERS, Filter, Zone, shown};
use super::totals::Bucket;
use crate::http::target::query_pairs;
use crate::routes::Local;

/// A question in full.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// Which requests.
    pub filter: Filter,
    /// How many, 1 to 1000.
    pub limit: u32,
    /// Only those with a lower id.
    pub after: Option<i64>,
    /// How time is parted.
    pub bucket: Bucket,
    /// Whose midnights part days.
    pub zone: Zone,
    /// What the points of time are kept apart by.
    pub by: Option<By>,
    /// Words to look for.
    pub words: String,
    /// How rows are written.
    pub format: Format,
}

impl Question {
    /// Reads a query. An error says which parameter is wrong and what it takes.
    pub fn read(route: Local, query: &str, now_ms: i64) -> Result<Question, String> {
        let pairs = query_pairs(query);
        let (has_filters, takes) = (route.line().takes.is_some(), route.line().takes.unwrap_or_default());
        let mut question = Question { limit: 100, ..Question::default() };
        // The zone says whose midnight a date means, wherever it stands.
        if let Some((_, tz)) = pairs.iter().find(|(name, _)| name == "tz" && takes.contains(&"tz")) {
            let wrong = || format!("tz is {}: it takes a distance from UTC as +02:00.", shown(tz));
            question.zone = Zone::parse(tz).ok_or_else(wrong)?;
        }
        for (name, value) in &pairs {
            // The judge has looked at the token.
            if name == "token" {
                continue;
            }
            if has_filters && question.filter.take(name, value, now_ms, question.zone)? {
                continue;
            }
            if takes.contains(&name.as_str()) {
                question.take(name, value)?;
            } else {
                return Err(unknown(name, route));
            }
        }
        // Who listens hears of rows to come, and points of time end by themselves.
        if !matches!(route, Local::Live | Local::OverTime) {
            question.filter.end_at_present(now_ms);
        }
        Ok(question)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = |takes: &str| format!("{name} is {}: it takes {takes}.", shown(value));
        match name {
            "limit" => self.limit = limit(value)?,
            "after" => {
                let id = value.parse().ok().filter(|_| value.bytes().all(|byte| byte.is_ascii_digit()));
                self.after = Some(id.ok_or_else(|| wrong("the id of a request"))?);
            }
            "bucket" => self.bucket = Bucket::named(value).ok_or_else(|| wrong("hour, day, week or month"))?,
            "by" => {
                self.by = Some(By::named(value).ok_or_else(|| wrong("model, endpoint, client, key or outcome"))?);
            }
            "format" => self.format = Format::named(value).ok_or_else(|| wrong("csv, jsonl or chat"))?,
            "q" => value.clone_into(&mut self.words),
            // Read before the others.
            "tz" => {}
            other => return Err(format!("There is no parameter {}.", shown(other))),
        }
        Ok(())
    }
}

fn unknown(name: &str, route: Local) -> String {
    let takes = match route.line().takes {
        None => "none".to_owned(),
        Some(others) => [FILTERS].iter().chain(others).copied().collect::<Vec<_>>().join(", "),
    };
    format!("There is no parameter {}: this route takes {takes}.", shown(name))
}

/// 1 to 1000; outside it is clamped.
fn limit(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("limit is {}: it takes a whole number from 1 to 1000.", shown(text)));
    }
    let number = if text.starts_with('-') { 0 } else { digits.parse().unwrap_or(u32::MAX) };
    Ok(number.clamp(1, 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::HOUR_MS;

    const NOW_MS: i64 = 1_768_818_645_678;

    #[test]
    fn a_limit_is_clamped_and_must_be_a_number() {
        let check = |query: &str, expected: Option<u32>| {
            let question = Question::read(Local::Recent, query, NOW_MS);
            assert_eq!(question.ok().map(|question| question.limit), expected, "{query}");
        };
        check("", Some(100));
        check("limit=1", Some(1));
        check("limit=0", Some(1));
        check("limit=-5", Some(1));
        check("limit=1000", Some(1000));
        check("limit=1001", Some(1000));
        check("limit=99999999999999999999", Some(1000));
        check("limit=", None);
        check("limit=ten", None);
        check("limit=%2B5", None);
        check("limit=5&limit=7", Some(7));
    }

    #[test]
    fn what_is_not_understood_is_named_with_what_would_be() {
        let check = |route: Local, query: &str, words: &[&str]| {
            let error = Question::read(route, query, NOW_MS).expect_err(query);
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        check(
            Local::Summary,
            "modle=a",
            &["\"modle\"", "from, to, model, endpoint, client, key, outcome, conversation."],
        );
        check(Local::Summary, "limit=5", &["\"limit\""]);
        check(Local::Recent, "modle=a", &["\"modle\"", ", limit."]);
        check(Local::Summary, "from=soon", &["from is \"soon\"", "2026-01-19T10:30:45Z", "-24h"]);
        check(Local::Summary, "to=", &["to is \"\""]);
        check(Local::Summary, "outcome=good", &["outcome is \"good\"", "completed, client_closed, truncated"]);
        check(Local::Summary, "conversation=", &["conversation is \"\"", "the name of a conversation"]);
        check(Local::OverTime, "bucket=year", &["bucket is \"year\"", "hour, day, week or month"]);
        check(Local::OverTime, "tz=CET", &["tz is \"CET\"", "+02:00"]);
        check(Local::OverTime, "by=colour", &["by is \"colour\"", "model, endpoint"]);
        check(Local::Export, "format=xls", &["format is \"xls\"", "csv, jsonl or chat"]);
        check(Local::Requests, "after=-1", &["after is \"-1\""]);
        check(Local::Request(1), "model=a", &["\"model\"", "takes none"]);
    }

    #[test]
    fn what_is_since_a_moment_is_until_now() {
        let ends = |route: Local, query: &str| {
            Question::read(route, query, NOW_MS).expect("a question").filter.to_ms.map(|to| (to - NOW_MS) / HOUR_MS)
        };
        // A clock may be ahead by a day.
        for route in [Local::Summary, Local::By(By::Model), Local::Latency, Local::Export, Local::Recent, Local::Search]
        {
            assert_eq!(ends(route, "from=-7d"), Some(24), "{route:?}");
            assert_eq!(ends(route, "from=2026-01-01"), Some(24), "{route:?}");
            assert_eq!(ends(route, "from=-7d&to=-1d"), Some(-24), "{route:?}");
            assert_eq!(ends(route, "from=2098-01-01"), None, "it asks for rows of a wrong clock");
            assert_eq!(ends(route, ""), None, "all of them");
        }
        assert_eq!(ends(Local::Live, "from=-7d"), None, "the day after tomorrow somebody still listens");
    }

    #[test]
    fn repeated_names_are_any_of_them_and_a_date_is_in_the_zone_asked_for() {
        let query = "from=2026-01-19&model=a&model=b+c&outcome=completed&outcome=truncated&client=&tz=+02:00&token=x\
            &conversation=a%2Fb&conversation=c";
        let filter = Question::read(Local::OverTime, query, NOW_MS).expect("a question").filter;
        assert_eq!(filter.names[By::Model], ["a", "b c"]);
        assert_eq!(filter.names[By::Outcome], ["completed", "truncated"]);
        assert_eq!(filter.names[By::Client], [""]);
        assert_eq!(filter.conversations, ["a/b", "c"]);
        assert_eq!(filter.from_ms, Some(1_768_780_800_000 - 2 * HOUR_MS));
    }
}
