//! The two formats that Prometheus reads: its own text format 0.0.4, and OpenMetrics 1.0.0
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>), which also tells units, and when a counter began. Series have
//! the same names and labels in both.

use std::fmt::{Display, Write};

use crate::http::{RequestHead, accepted};
use crate::packs::histogram::Histogram;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus' own, 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// What `Accept` asks for: OpenMetrics where it is named, and nothing that Prometheus' own would do for is preferred.
    pub fn asked_for(head: &RequestHead) -> Exposition {
        let (mut open_metrics, mut text) = (0.0, 0.0_f64);
        for kind in accepted(head, "accept") {
            let has_version = |version| kind.parameter("version").is_none_or(|asked| asked == version);
            if kind.is("application/openmetrics-text") && has_version("1.0.0") {
                open_metrics = kind.weight().max(open_metrics);
            } else if kind.is("text/plain") && has_version("0.0.4") || kind.is("text/*") || kind.is("*/*") {
                text = kind.weight().max(text);
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Exposition::OpenMetrics } else { Exposition::Text }
    }

    /// The type of the reply, with the version that scrapers look for.
    pub fn content_type(self) -> &'static str {
        match self {
            Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
            Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What ends the whole.
    pub fn end(self) -> &'static str {
        match self {
            Exposition::Text => "",
            Exposition::OpenMetrics => "# EOF\n",
        }
    }
}

/// What the figures of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FamilyKind {
    /// They only grow; their name ends in `_total`.
    Counter,
    /// They are what is now.
    Gauge,
    /// They tell how many are at most so large.
    Histogram,
    /// They are 1; labels tell. Their name ends in `_info`.
    Info,
}

/// A label and its value.
pub(super) type Label<'a> = (&'a str, &'a str);

/// The text as it grows.
#[derive(Debug)]
pub(super) struct MetricPage {
    form: Exposition,
    text: String,
}

/// One family, to which samples are added.
pub(super) struct MetricFamily<'a> {
    page: &'a mut MetricPage,
    /// Of its samples, what belongs to their kind included.
    name: String,
}

/// What the values of a histogram were counted in, and where its buckets end.
pub(super) struct Buckets<'a> {
    /// Upper bounds.
    pub bounds: &'a [i64],
    /// So many of them are one of what is told.
    pub per_unit: f64,
}

impl MetricPage {
    pub fn new(form: Exposition) -> MetricPage {
        MetricPage { form, text: String::new() }
    }

    pub fn into_text(self) -> String {
        self.text
    }

    /// Begins a family. `name` is without what its kind adds; what it ends with is its unit, if that is one.
    pub fn family(&mut self, kind: FamilyKind, name: &str, help: &str) -> MetricFamily<'_> {
        let sampled = match kind {
            FamilyKind::Counter => format!("{name}_total"),
            FamilyKind::Info => format!("{name}_info"),
            FamilyKind::Gauge | FamilyKind::Histogram => name.to_owned(),
        };
        let (told, word) = match (self.form, kind) {
            (Exposition::OpenMetrics, FamilyKind::Info) => (name, "info"),
            (Exposition::OpenMetrics, FamilyKind::Counter) => (name, "counter"),
            (Exposition::Text, FamilyKind::Counter) => (sampled.as_str(), "counter"),
            (Exposition::Text, FamilyKind::Info) => (sampled.as_str(), "gauge"),
            (_, FamilyKind::Gauge) => (name, "gauge"),
            (_, FamilyKind::Histogram) => (name, "histogram"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {told} {help}\n# TYPE {told} {word}");
        let unit = name.rsplit('_').next().filter(|unit| matches!(*unit, "seconds" | "bytes" | "joules"));
        if let Some(unit) = unit.filter(|_| self.form == Exposition::OpenMetrics) {
            let _ = writeln!(self.text, "# UNIT {told} {unit}");
        }
        MetricFamily { page: self, name: sampled }
    }

    /// A family of one figure without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(FamilyKind::Gauge, name, help).sample(&[], value);
    }

    /// The same of what only grows, since a moment in seconds since 1970.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display, created_s: f64) {
        self.family(FamilyKind::Counter, name, help).count(&[], value, created_s);
    }

    fn line(&mut self, name: &str, suffix: &str, labels: &[Label], value: impl Display) {
        self.text.extend([name, suffix]);
        for (at, (label, value)) in labels.iter().enumerate() {
            self.text.extend([if at == 0 { "{" } else { "," }, label, "=\""]);
            self.text.extend(value.chars().flat_map(escaped).flatten());
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

impl MetricFamily<'_> {
    /// A figure of now.
    pub fn sample(&mut self, labels: &[Label], value: impl Display) {
        self.page.line(&self.name, "", labels, value);
    }

    /// A figure that only grows, since a moment in seconds since 1970.
    pub fn count(&mut self, labels: &[Label], value: impl Display, created_s: f64) {
        self.sample(labels, value);
        self.created(labels, created_s);
    }

    /// A distribution, by one label; none where nothing was counted.
    pub fn histogram(&mut self, label: Label, counts: &Histogram, buckets: &Buckets, sum: f64, created_s: f64) {
        let total = counts.total();
        if total == 0 {
            return;
        }
        for bound in buckets.bounds {
            // Always with a point: Prometheus takes "10" and "10.0" for two series.
            let le = format!("{:?}", *bound as f64 / buckets.per_unit);
            self.page.line(&self.name, "_bucket", &[label, ("le", &le)], counts.at_most(*bound));
        }
        self.page.line(&self.name, "_bucket", &[label, ("le", "+Inf")], total);
        self.page.line(&self.name, "_sum", &[label], sum);
        self.page.line(&self.name, "_count", &[label], total);
        self.created(&[label], created_s);
    }

    fn created(&mut self, labels: &[Label], created_s: f64) {
        if self.page.form == Exposition::OpenMetrics {
            let name = self.name.strip_suffix("_total").unwrap_or(&self.name).to_owned();
            self.page.line(&name, "_created", labels, created_s);
        }
    }
}

/// A character of a label's value: backslash, quote and line end are escaped.
fn escaped(c: char) -> [Option<char>; 2] {
    match c {
        '\\' => [Some('\\'), Some('\\')],
        '"' => [Some('\\'), Some('"')],
        '\n' => [Some('\\'), Some('n')],
        c => [None, Some(c)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::read_head;

    fn page(form: Exposition) -> String {
        let mut page = MetricPage::new(form);
        let mut family = page.family(FamilyKind::Counter, "lost_seconds", "Lost.");
        family.count(&[("a", "x\"\\\n")], 1.5, 17.25);
        page.family(FamilyKind::Info, "build", "Built.").sample(&[("version", "1")], 1);
        page.gauge("rows", "Rows.", 7);
        let mut counts = Histogram::default();
        [5, 50].iter().for_each(|value| counts.count(*value));
        let buckets = Buckets { bounds: &[10, 10_000], per_unit: 1000.0 };
        page.family(FamilyKind::Histogram, "took_seconds", "Took.").histogram(
            ("m", "a"),
            &counts,
            &buckets,
            0.055,
            3.0,
        );
        page.into_text() + form.end()
    }

    #[test]
    fn both_formats_tell_the_same_series_each_by_its_own_rules() {
        let text = r#"# HELP lost_seconds_total Lost.
# TYPE lost_seconds_total counter
lost_seconds_total{a="x\"\\\n"} 1.5
# HELP build_info Built.
# TYPE build_info gauge
build_info{version="1"} 1
# HELP rows Rows.
# TYPE rows gauge
rows 7
# HELP took_seconds Took.
# TYPE took_seconds histogram
took_seconds_bucket{m="a",le="0.01"} 1
took_seconds_bucket{m="a",le="10.0"} 2
took_seconds_bucket{m="a",le="+Inf"} 2
took_seconds_sum{m="a"} 0.055
took_seconds_count{m="a"} 2
"#;
        let open_metrics = r#"# HELP lost_seconds Lost.
# TYPE lost_seconds counter
# UNIT lost_seconds seconds
lost_seconds_total{a="x\"\\\n"} 1.5
lost_seconds_created{a="x\"\\\n"} 17.25
# HELP build Built.
# TYPE build info
build_info{version="1"} 1
# HELP rows Rows.
# TYPE rows gauge
rows 7
# HELP took_seconds Took.
# TYPE took_seconds histogram
# UNIT took_seconds seconds
took_seconds_bucket{m="a",le="0.01"} 1
took_seconds_bucket{m="a",le="10.0"} 2
took_seconds_bucket{m="a",le="+Inf"} 2
took_seconds_sum{m="a"} 0.055
took_seconds_count{m="a"} 2
took_seconds_created{m="a"} 3
# EOF
"#;
        assert_eq!(page(Exposition::Text), text);
        assert_eq!(page(Exposition::OpenMetrics), open_metrics);
    }

    #[test]
    fn open_metrics_is_for_who_names_it_and_does_not_prefer_the_other() {
        let asked_for = |accept: Option<&[u8]>| {
            let accept = accept.map(|accept| [b"Accept: ", accept, b"\r\n"].concat()).unwrap_or_default();
            let head = [b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n", &accept[..], b"\r\n"].concat();
            Exposition::asked_for(&read_head(&head, &mut 0).expect("a valid head").expect("a whole head").0)
        };
        let check = |accept: &str, expected| {
            assert_eq!(asked_for(Some(accept.as_bytes())), expected, "{accept}");
        };
        // As Prometheus 2 and 3 ask.
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Exposition::OpenMetrics,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2",
            Exposition::OpenMetrics,
        );
        check("Application/OpenMetrics-Text", Exposition::OpenMetrics);
        check("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8", Exposition::OpenMetrics);
        check("application/openmetrics-text;version=1.0.0;q=0.5, text/plain", Exposition::Text);
        check("application/openmetrics-text;version=1.0.0;q=0", Exposition::Text);
        check("application/openmetrics-text;version=2.0.0", Exposition::Text);
        check("application/openmetrics-text;q=none", Exposition::Text);
        check("*/*", Exposition::Text);
        check("text/html,application/xhtml+xml", Exposition::Text);
        assert_eq!(asked_for(None), Exposition::Text);
        assert_eq!(asked_for(Some(b"\xff")), Exposition::Text);
    }
}
