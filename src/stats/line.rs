//! `GET /stats/line`: one line for a status bar, of what goes on and of today; as text, or as JSON that waybar and others take.

use std::fmt::Write;

use serde::Serialize;

use super::answers::Summary;
use super::columns::{amount, plain, with_commas};
use super::now::{ExchangeNow, Now, span};

/// Columns that a model's name has at most.
const NAME_WIDTH: usize = 28;
/// Exchanges that the words behind the line name.
const EXCHANGES_SHOWN: usize = 8;

/// What a bar shows.
#[derive(Debug, PartialEq, Serialize)]
pub struct StatusLine {
    /// The line.
    pub text: String,
    /// What is shown where the pointer rests on it: several lines.
    pub tooltip: String,
    /// What it is by, for a style: `generating`, `waiting`, `idle` or `down`.
    pub class: &'static str,
}

impl StatusLine {
    /// Of what goes on, and of today's sums, where these can be read.
    pub fn of(now: &Now, today: Option<&Summary>) -> StatusLine {
        let (class, mut text) = Self::begin(now);
        if let Some(today) = today {
            let _ = write!(text, " · today {} tokens", brief(today.total_tokens));
        }
        StatusLine { text, tooltip: tooltip(now, today), class }
    }

    fn begin(now: &Now) -> (&'static str, String) {
        // What answers is of more interest than what waits.
        let busy = now.exchanges.iter().find(|one| one.phase == "generating").or(now.exchanges.first());
        let Some(one) = busy else { return Self::nothing(now) };
        let others = now.in_flight + now.queued - 1;
        let more = if others > 0 { format!(" +{others}") } else { String::new() };
        let class = if one.phase == "generating" { "generating" } else { "waiting" };
        (class, format!("▶ {}{}{more}", name(one.model.as_deref()), doing(one)))
    }

    fn nothing(now: &Now) -> (&'static str, String) {
        if now.upstream.is_up == Some(false) {
            return ("down", "✗ LM Studio does not answer".to_owned());
        }
        let mut loaded = now.models.iter().filter(|model| model.state == "loaded").map(|model| model.model.as_str());
        let Some(first) = loaded.next() else { return ("idle", "⏸ idle".to_owned()) };
        let others = loaded.count();
        let more = if others > 0 { format!(" +{others}") } else { String::new() };
        ("idle", format!("⏸ {}{more}", name(Some(first))))
    }
}

/// A model's name without its publisher; bars are narrow.
fn name(model: Option<&str>) -> String {
    let model = model.unwrap_or("a model");
    plain(model.rsplit('/').next().unwrap_or(model), NAME_WIDTH)
}

/// What it is at, behind a blank.
fn doing(one: &ExchangeNow) -> String {
    match (one.phase, one.tokens_per_second, one.events_per_second) {
        ("generating", Some(speed), _) => format!(" {speed:.0} tok/s"),
        // Nearly always an event is a token, but nobody has said so.
        ("generating", None, Some(speed)) => format!(" {speed:.0} events/s"),
        ("generating", None, None) => String::new(),
        (phase, ..) => format!(" {phase} {} s", one.phase_ms / 1000),
    }
}

fn tooltip(now: &Now, today: Option<&Summary>) -> String {
    let mut lines = Vec::new();
    for one in now.exchanges.iter().take(EXCHANGES_SHOWN) {
        let client = plain(one.client.as_deref().unwrap_or("somebody"), NAME_WIDTH);
        lines.push(format!(
            "{client}: {} {}{}",
            name(one.model.as_deref()),
            one.phase,
            match one.phase {
                "generating" => doing(one),
                _ => format!(" {} s", one.phase_ms / 1000),
            }
        ));
    }
    let more = (now.in_flight + now.queued).saturating_sub(lines.len());
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    if let Some(is_up) = now.upstream.is_up {
        let answers = if is_up { "answers" } else { "does not answer" };
        lines.push(format!("LM Studio {answers}, for {}", span(now.upstream_for_ms())));
    }
    for model in now.models.iter().filter(|model| model.state == "loaded") {
        let context = model.context_tokens.map(|tokens| format!(", context {}", with_commas(tokens as i64)));
        lines.push(format!("loaded: {}{}", name(Some(&model.model)), context.unwrap_or_default()));
    }
    if let Some(today) = today {
        let (requests, tokens) = (with_commas(today.total_requests), with_commas(today.total_tokens));
        lines.push(format!("today: {requests} requests, {} failed, {tokens} tokens", today.failed_requests));
        if let Some(cost) = today.cost.as_ref().filter(|cost| cost.cost.is_some()) {
            lines.push(format!("elsewhere: {}", amount(cost.cost, &cost.currency)));
        }
        if let Some(energy) = today.electricity.as_ref().and_then(|electricity| electricity.energy_wh) {
            lines.push(format!("electricity: {energy:.1} Wh"));
        }
    }
    lines.join("\n")
}

/// With three digits at most before the unit: `1.2M`.
fn brief(value: i64) -> String {
    let mut rest = value as f64;
    for unit in ["", "k", "M", "G"] {
        // What would be rounded to 1000 is one of the next.
        if rest < 999.5 {
            return if rest < 9.95 && !unit.is_empty() {
                format!("{rest:.1}{unit}")
            } else {
                format!("{rest:.0}{unit}")
            };
        }
        rest /= 1000.0;
    }
    format!("{rest:.0}T")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::now::{ModelNow, UpstreamNow};

    fn now(exchanges: Vec<ExchangeNow>, is_up: Option<bool>, loaded: &[&str]) -> Now {
        let models = loaded.iter().map(|model| ModelNow::loaded(model, Some(8192))).collect();
        Now::of_parts(UpstreamNow::since(is_up, 60_000), models, exchanges, 180_000)
    }

    fn one(model: &str, phase: &'static str, tokens: Option<f64>, events: Option<f64>) -> ExchangeNow {
        ExchangeNow {
            model: Some(model.to_owned()),
            client: Some("open-webui".to_owned()),
            phase,
            phase_ms: 12_300,
            tokens_per_second: tokens,
            events_per_second: events,
            ..ExchangeNow::default()
        }
    }

    #[track_caller]
    fn check(now: &Now, text: &str, class: &str) {
        let line = StatusLine::of(now, None);
        assert_eq!((line.text.as_str(), line.class), (text, class));
    }

    #[test]
    fn it_tells_what_goes_on_and_else_what_is_idle() {
        let fast = one("qwen/qwen3-30b", "generating", Some(42.4), Some(40.0));
        check(&now(vec![fast], Some(true), &[]), "▶ qwen3-30b 42 tok/s", "generating");
        let untold = one("a", "generating", None, Some(40.0));
        check(&now(vec![untold], None, &[]), "▶ a 40 events/s", "generating");
        check(&now(vec![one("a", "generating", None, None)], None, &[]), "▶ a", "generating");
        check(&now(vec![one("a", "waiting", None, None)], None, &["b"]), "▶ a waiting 12 s", "waiting");
        let several = vec![one("a", "queued", None, None), one("b", "generating", Some(9.0), None)];
        check(&now(several, None, &[]), "▶ b 9 tok/s +1", "generating");
        check(&now(vec![], Some(true), &["lmstudio/b", "c"]), "⏸ b +1", "idle");
        check(&now(vec![], None, &[]), "⏸ idle", "idle");
        check(&now(vec![], Some(false), &["b"]), "✗ LM Studio does not answer", "down");
        let steering = one("a\u{1b}[2J\n", "generating", None, None);
        check(&now(vec![steering], None, &[]), "▶ a?[2J?", "generating");
    }

    #[test]
    fn what_the_pointer_shows_has_a_line_for_each() {
        let busy = vec![one("a", "generating", Some(42.4), None), one("b", "queued", None, None)];
        let tooltip = StatusLine::of(&now(busy, Some(true), &["a"]), None).tooltip;
        let expected = "open-webui: a generating 42 tok/s\nopen-webui: b queued 12 s\nLM Studio answers, for 2 min\n\
                        loaded: a, context 8,192";
        assert_eq!(tooltip, expected);
        let many = (0..20).map(|_| one("a", "generating", None, None)).collect();
        assert!(StatusLine::of(&now(many, None, &[]), None).tooltip.ends_with("and 12 more"));
    }

    #[test]
    fn tokens_are_told_in_a_few_digits() {
        let check = |value: i64, expected: &str| assert_eq!(brief(value), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1.0k");
        check(9_960, "10k");
        check(345_678, "346k");
        check(999_600, "1.0M");
        check(1_234_567, "1.2M");
        check(45_000_000_000, "45G");
        check(5_000_000_000_000, "5T");
    }
}
