//! What a query string asks of a route. Pure but for the rules of a zone that is named: time is an argument.

use super::answers::By;
use super::columns::{WIDTH, WIDTH_MAX, WIDTH_MIN};
use super::export::Format;
use super::filter::{FILTERS, Filter, shown};
use super::totals::Bucket;
use super::zone::Zone;
use crate::http::target::query_pairs;
use crate::nearest::nearest;
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
    /// Points of time tell percentiles, too.
    pub percentiles: bool,
    /// Words to look for.
    pub words: String,
    /// How rows are exported.
    pub format: Format,
    /// Groups are written as CSV, not as JSON.
    pub csv: bool,
    /// The line for a status bar is JSON, or text, whatever is accepted.
    pub line_json: Option<bool>,
    /// JSON is written for people.
    pub pretty: bool,
    /// Columns of the terminal that a text is for.
    pub width: usize,
    /// The model of the list of prices that all are priced as.
    pub priced_as: Option<String>,
}

impl Question {
    /// Reads a query. An error says which parameter is wrong and what it takes.
    pub fn read(route: Local, query: &str, now_ms: i64) -> Result<Question, String> {
        let pairs = query_pairs(query);
        let (has_filters, takes) = (route.line().takes.is_some(), route.line().takes.unwrap_or_default());
        let mut question = Question { limit: 100, width: WIDTH, ..Question::default() };
        // The zone says whose midnight a date means, wherever it stands.
        if let Some((_, tz)) = pairs.iter().find(|(name, _)| has_filters && name == "tz") {
            let wrong = || {
                let takes = "a distance from UTC as +02:00, or a name as Europe/Berlin if this system has that zone";
                format!("tz is {}: it takes {takes}.", shown(tz))
            };
            question.zone = Zone::parse(tz).ok_or_else(wrong)?;
        }
        for (name, value) in &pairs {
            match name.as_str() {
                // The judge has looked at the token.
                "token" => {}
                "pretty" if route.has_json() => question.pretty = switch(name, value)?,
                "as" if route.tells_costs() => question.priced_as = Some(value.clone()),
                "tz" if has_filters => {}
                _ if has_filters && question.filter.take(name, value, now_ms, &question.zone)? => {}
                _ if takes.contains(&name.as_str()) => question.take(route, name, value)?,
                _ => return Err(unknown(name, route)),
            }
        }
        if let (Some(from), Some(to)) = (question.filter.from_ms, question.filter.to_ms)
            && from > to
        {
            return Err("from is after to: no request can be in between.".to_owned());
        }
        if question.percentiles && question.by.is_some() {
            return Err("percentiles are told of all at once: they go with no by.".to_owned());
        }
        // Who listens hears of rows to come, and points of time end by themselves.
        if !matches!(route, Local::Live | Local::OverTime) {
            question.filter.end_at_present(now_ms);
        }
        Ok(question)
    }

    fn take(&mut self, route: Local, name: &str, value: &str) -> Result<(), String> {
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
            "format" if route == Local::Export => {
                self.format = Format::named(value).ok_or_else(|| wrong("csv, jsonl or chat"))?;
            }
            "format" if route == Local::Line => match value {
                "text" => self.line_json = Some(false),
                "json" => self.line_json = Some(true),
                _ => return Err(wrong("text or json")),
            },
            "format" => match value {
                "csv" => self.csv = true,
                "json" => self.csv = false,
                _ => return Err(wrong("json or csv")),
            },
            "percentiles" => self.percentiles = switch(name, value)?,
            "width" => {
                let width: usize = value.parse().map_err(|_| wrong("a number of columns"))?;
                self.width = width.clamp(WIDTH_MIN, WIDTH_MAX);
            }
            "q" => value.clone_into(&mut self.words),
            other => return Err(format!("There is no parameter {}.", shown(other))),
        }
        Ok(())
    }
}

fn unknown(name: &str, route: Local) -> String {
    let own = route.line().takes;
    let filters = own.map(|_| FILTERS);
    let priced = route.tells_costs().then_some("as");
    let pretty = route.has_json().then_some("pretty");
    let all: Vec<&str> = filters.iter().chain(own.unwrap_or_default()).chain(&priced).chain(&pretty).copied().collect();
    let takes = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    let meant = nearest(name, &mut all.iter().flat_map(|names| names.split(", ")));
    let meant = meant.map_or_else(String::new, |meant| format!(" Did you mean {meant}?"));
    format!("There is no parameter {}.{meant} This route takes {takes}.", shown(name))
}

/// Whether something is asked for: `?pretty` alone says so.
fn switch(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(format!("{name} is {}: it takes 1 or 0.", shown(value))),
    }
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
            &[
                "\"modle\". Did you mean model?",
                "takes from, to, tz, model, endpoint, client, key, outcome, conversation, as, pretty.",
            ],
        );
        check(Local::Recent, "limits=5", &["\"limits\". Did you mean limit?"]);
        check(Local::OverTime, "bukcet=day", &["\"bukcet\". Did you mean bucket?"]);
        check(Local::Summary, "colour=red", &["\"colour\". This route takes from,"]);
        check(Local::Summary, "limit=5", &["\"limit\""]);
        check(Local::Recent, "modle=a", &["\"modle\"", ", limit, as, pretty."]);
        check(Local::Summary, "from=soon", &["from is \"soon\"", "2026-01-19T10:30:45Z", "-24h"]);
        check(Local::Summary, "to=", &["to is \"\""]);
        check(Local::Summary, "outcome=good", &["outcome is \"good\"", "completed, client_closed, truncated"]);
        check(Local::Summary, "conversation=", &["conversation is \"\"", "the name of a conversation"]);
        check(Local::OverTime, "bucket=year", &["bucket is \"year\"", "hour, day, week or month"]);
        check(Local::OverTime, "tz=Nowhere", &["tz is \"Nowhere\"", "+02:00", "Europe/Berlin"]);
        check(Local::Summary, "from=2026-01-02&to=2026-01-01", &["from is after to"]);
        check(Local::By(By::Model), "format=jsonl", &["json or csv"]);
        check(Local::Line, "format=csv", &["text or json"]);
        check(Local::Report, "width=wide", &["width is \"wide\"", "a number of columns"]);
        check(Local::Summary, "width=80", &["\"width\""]);
        check(Local::Summary, "pretty=please", &["pretty is \"please\"", "1 or 0"]);
        check(Local::OverTime, "by=model&percentiles", &["percentiles", "with no by"]);
        check(Local::OverTime, "by=colour", &["by is \"colour\"", "model, endpoint"]);
        check(Local::Export, "format=xls", &["format is \"xls\"", "csv, jsonl or chat"]);
        check(Local::Requests, "after=-1", &["after is \"-1\""]);
        check(Local::Request(1), "model=a", &["\"model\"", "takes as, pretty."]);
        check(Local::Now, "model=a", &["\"model\"", "takes pretty."]);
        // Where there is no JSON, nothing of it is written for people.
        for route in [Local::Body(1), Local::Diff(1, 2), Local::Metrics] {
            check(route, "pretty", &["\"pretty\". This route takes none."]);
        }
        for route in [Local::Export, Local::Live] {
            check(route, "pretty=1", &["\"pretty\". This route takes from"]);
        }
    }

    #[test]
    fn how_an_answer_is_written_is_asked_for() {
        let read = |route: Local, query: &str| Question::read(route, query, NOW_MS).expect(query);
        assert!(read(Local::Request(1), "pretty").pretty && read(Local::Summary, "pretty=1").pretty);
        assert!(!read(Local::Summary, "pretty=0").pretty && !read(Local::Summary, "").pretty);
        let widths = ["", "width=100", "width=9", "width=99999"].map(|query| read(Local::Report, query).width);
        assert_eq!(widths, [WIDTH, 100, WIDTH_MIN, WIDTH_MAX]);
        assert!(read(Local::By(By::Key), "format=csv").csv && !read(Local::OverTime, "format=json").csv);
        // Whose midnight it is stands anywhere.
        let filter = read(Local::Summary, "from=yesterday&to=today&tz=%2B02:00").filter;
        assert_eq!(filter.to_ms.zip(filter.from_ms).map(|(to, from)| to - from), Some(24 * HOUR_MS));
        assert_eq!(filter.to_ms.map(|to| (to + 2 * HOUR_MS) % (24 * HOUR_MS)), Some(0));
    }

    #[test]
    fn what_it_would_have_cost_as_another_model_is_asked_of_routes_that_tell_costs() {
        let check = |route: Local, expected: Option<&str>| {
            let asked = Question::read(route, "as=gpt-4o", NOW_MS);
            assert_eq!(asked.ok().and_then(|question| question.priced_as).as_deref(), expected, "{route:?}");
        };
        for line in &crate::routes::LOCAL {
            check(line.local, line.local.tells_costs().then_some("gpt-4o"));
        }
        check(Local::Request(7), Some("gpt-4o"));
        check(Local::Body(7), None);
        let error = Question::read(Local::Summary, "sa=b", NOW_MS).expect_err("misspelt");
        assert!(error.contains(", as"), "{error}");
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
