//! `GET /stats/now`: what goes on at this moment, and what is known of upstream, as a table for a person or as JSON; and
//! `DELETE /stats/now/ID`, which calls one off. Neither asks the database, nor upstream.

use std::fmt::Write;

use serde::Serialize;
use serde_json::json;

use super::columns::{WIDTH, cell, figure, write_title};
use super::sources::Sources;
use crate::calendar::text_of_ms;
use crate::http::reply::Reply;
use crate::in_flight::{AskedNow, CallOff, ExchangePhase, UnderWay};
use crate::limits::NOW_SHOWN_MAX;

/// What goes on.
#[derive(Debug, Serialize)]
pub struct Now {
    /// When it was looked at: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// Whether upstream can be reached.
    pub upstream: UpstreamNow,
    /// The models that were seen loaded: those that still are first.
    pub models: Vec<ModelNow>,
    /// How many go on.
    pub in_flight: usize,
    /// How many wait for a place.
    pub queued: usize,
    /// Both, the eldest first, [`NOW_SHOWN_MAX`] at most.
    pub exchanges: Vec<ExchangeNow>,
    #[serde(skip)]
    now_ms: i64,
}

/// Whether upstream can be reached, as the last attempt to connect has shown. `None` before the first.
#[derive(Debug, Serialize)]
pub struct UpstreamNow {
    /// It can.
    pub is_up: Option<bool>,
    /// Since when that is so.
    pub since: Option<String>,
    #[serde(skip)]
    since_ms: i64,
}

/// What is known of a model.
#[derive(Debug, Serialize)]
pub struct ModelNow {
    /// Its name, or that of the loaded instance.
    pub model: String,
    /// The model that it is an instance of, where that was told.
    pub model_key: Option<String>,
    /// `loaded` or `evicted`.
    pub state: &'static str,
    /// When it was first seen to be so.
    pub since: String,
    /// When it was last told to be so.
    pub told: String,
    /// How many tokens its context holds, or held.
    pub context_tokens: Option<u64>,
    /// How many it could hold.
    pub context_tokens_max: Option<u64>,
    #[serde(skip)]
    since_ms: i64,
}

/// One exchange, or one generation on a WebSocket.
#[derive(Debug, Default, Serialize)]
pub struct ExchangeNow {
    /// What to call it off by.
    pub id: u64,
    /// Its path.
    pub endpoint: String,
    /// Who asks.
    pub client: Option<String>,
    /// The model that answers, else the one asked for.
    pub model: Option<String>,
    /// The conversation that the request names.
    pub conversation: Option<String>,
    /// Bytes of the request's body, or of the prompt on a WebSocket.
    pub body_bytes: Option<u64>,
    /// `queued`, `connecting`, `waiting` or `generating`.
    pub phase: &'static str,
    /// When the whole request was there.
    pub start_time: String,
    /// Since then.
    pub duration_ms: u64,
    /// Since the phase began.
    pub phase_ms: u64,
    /// Events of the reply so far; of a WebSocket, messages with words. `None`: they cannot be read.
    pub events: Option<u64>,
    /// Tokens of the answer so far, where the stream tells them.
    pub output_tokens: Option<u64>,
    /// Events with words a second, over the last one or two seconds.
    pub events_per_second: Option<f64>,
    /// Tokens a second, where the stream tells tokens.
    pub tokens_per_second: Option<f64>,
}

impl Now {
    /// As of now.
    pub fn read(sources: &Sources, now_ms: i64) -> Now {
        let known = sources.reach.known();
        let upstream = UpstreamNow {
            is_up: known.map(|(is_up, _)| is_up),
            since: known.map(|(_, since_ms)| text_of_ms(since_ms)),
            since_ms: known.map_or(0, |(_, since_ms)| since_ms),
        };
        let models = sources.models.all().into_iter().map(|(model, known)| ModelNow {
            model,
            model_key: known.key,
            state: if known.is_loaded { "loaded" } else { "evicted" },
            since: text_of_ms(known.since_ms),
            told: text_of_ms(known.told_ms),
            context_tokens: known.context_tokens,
            context_tokens_max: known.context_tokens_max,
            since_ms: known.since_ms,
        });
        let all = sources.in_flight.all();
        let queued = all.iter().filter(|entry| entry.phase().0 == ExchangePhase::Queued).count();
        Now {
            time: text_of_ms(now_ms),
            upstream,
            models: models.collect(),
            in_flight: all.len() - queued,
            queued,
            exchanges: all.iter().take(NOW_SHOWN_MAX).map(|entry| ExchangeNow::of(entry)).collect(),
            now_ms,
        }
    }

    /// How long upstream is what it is.
    pub(super) fn upstream_for_ms(&self) -> i64 {
        self.now_ms - self.upstream.since_ms
    }

    /// Aligned columns, 80 wide.
    pub fn text(&self) -> String {
        let mut text = String::new();
        write_title(&mut text, WIDTH, &format!("{} {} UTC", &self.time[..10], &self.time[11..19]));
        let since = |since_ms: i64| span(self.now_ms - since_ms);
        let _ = match self.upstream.is_up {
            Some(true) => writeln!(text, "LM Studio answers, for {}.", since(self.upstream.since_ms)),
            Some(false) => writeln!(text, "LM Studio does not answer, for {}.", since(self.upstream.since_ms)),
            None => writeln!(text, "LM Studio was not asked for anything yet."),
        };
        for model in &self.models {
            let context = match (model.context_tokens, model.context_tokens_max) {
                (Some(tokens), Some(most)) => format!("context {} of {}", count(tokens), count(most)),
                (Some(tokens), None) => format!("context {}", count(tokens)),
                (None, _) => "context not known".to_owned(),
            };
            let (state, name) = (model.state, cell(&model.model, 28));
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "{state:<9}{name}{context:<32}{:>11}", since(model.since_ms));
        }
        self.write_exchanges(&mut text);
        text
    }

    fn write_exchanges(&self, text: &mut String) {
        if self.exchanges.is_empty() {
            text.push_str("\nNothing is in flight.\n");
            return;
        }
        let head = ["client", "model", "phase"];
        let _ = writeln!(
            text,
            "\n{:>6} {:<13}{:<20}{:<11}{:>7}{:>9}{:>7}{:>6}",
            "id", head[0], head[1], head[2], "s", "bytes", "events", "/s"
        );
        for one in &self.exchanges {
            let name = |name: &Option<String>, width| cell(name.as_deref().unwrap_or("-"), width);
            let known = |value: Option<u64>, width| value.map_or("-".to_owned(), |value| figure(value as i64, width));
            let speed = one.tokens_per_second.or(one.events_per_second);
            let _ = writeln!(
                text,
                "{:>6} {}{}{:<11}{:>7}{:>9}{:>7}{:>6}",
                one.id,
                name(&one.client, 13),
                name(&one.model, 20),
                one.phase,
                seconds(one.phase_ms),
                known(one.body_bytes, 8),
                known(one.output_tokens.or(one.events), 6),
                speed.map_or("-".to_owned(), |speed| format!("{speed:.1}")),
            );
        }
        let more = self.in_flight + self.queued - self.exchanges.len();
        if more > 0 {
            let _ = writeln!(text, "       ({} more)", count(more as u64));
        }
    }
}

impl ExchangeNow {
    fn of(entry: &UnderWay) -> ExchangeNow {
        let AskedNow { client, model, conversation } = entry.asked();
        let now_us = entry.elapsed_us();
        let (phase, phase_us) = entry.phase();
        let progress = entry.progress();
        let read = progress.map(|progress| progress.read_so_far());
        let is_unreadable = read.is_some_and(|read| read.first_us.is_some() && read.events.is_none());
        let events = read.and_then(|read| read.events).unwrap_or(0);
        let output_tokens = read.and_then(|read| read.output_tokens);
        let events_per_second = progress.and_then(|progress| progress.events_per_second(now_us));
        let tokens_of_each = output_tokens.zip(read).map(|(tokens, read)| tokens as f64 / read.words.max(1) as f64);
        let two_decimals = |value: f64| (value * 100.0).round() / 100.0;
        ExchangeNow {
            id: entry.id(),
            endpoint: entry.endpoint().to_owned(),
            client,
            model: progress.and_then(|progress| progress.model()).map(str::to_owned).or(model),
            conversation,
            body_bytes: entry.body_bytes(),
            phase: phase.as_str(),
            start_time: text_of_ms(entry.start_ms()),
            duration_ms: now_us / 1000,
            phase_ms: now_us.saturating_sub(phase_us) / 1000,
            events: (!is_unreadable).then_some(events),
            output_tokens,
            events_per_second: events_per_second.map(two_decimals),
            tokens_per_second: events_per_second.zip(tokens_of_each).map(|(speed, each)| two_decimals(speed * each)),
        }
    }
}

/// Calls the one of this id off.
pub fn call_off(sources: &Sources, id: u64) -> Reply {
    match sources.in_flight.call_off(id) {
        CallOff::HasEnded => {
            let message =
                format!("The id {id} is in flight no more: it has ended by itself, or is about to. Its row tells how.");
            Reply::error(409, &message, "has_ended")
        }
        CallOff::Ends(ids) => Reply::json(202, format!("{}\n", json!({ "called_off": ids })).into_bytes()),
        CallOff::Unknown => Reply::error(404, &format!("Nothing of the id {id} is in flight."), "not_found"),
    }
}

fn count(value: u64) -> String {
    figure(value as i64, 11)
}

fn seconds(ms: u64) -> String {
    if ms < 10_000_000 { format!("{:.1}", ms as f64 / 1000.0) } else { figure((ms / 1000) as i64, 6) }
}

/// How long ago something was, in its largest unit.
pub(super) fn span(ms: i64) -> String {
    let seconds = (ms / 1000).max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
impl Now {
    /// Without asking anybody.
    pub(super) fn of_parts(
        upstream: UpstreamNow,
        models: Vec<ModelNow>,
        exchanges: Vec<ExchangeNow>,
        now_ms: i64,
    ) -> Now {
        let queued = exchanges.iter().filter(|one| one.phase == "queued").count();
        Now {
            time: text_of_ms(now_ms),
            upstream,
            models,
            in_flight: exchanges.len() - queued,
            queued,
            exchanges,
            now_ms,
        }
    }
}

#[cfg(test)]
impl UpstreamNow {
    pub(super) fn since(is_up: Option<bool>, since_ms: i64) -> UpstreamNow {
        UpstreamNow { is_up, since: Some(text_of_ms(since_ms)), since_ms }
    }
}

#[cfg(test)]
impl ModelNow {
    pub(super) fn loaded(model: &str, context_tokens: Option<u64>) -> ModelNow {
        let time = text_of_ms(0);
        ModelNow {
            model: model.to_owned(),
            model_key: None,
            state: "loaded",
            since: time.clone(),
            told: time,
            context_tokens,
            context_tokens_max: None,
            since_ms: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(exchanges: Vec<ExchangeNow>) -> Now {
        let now_ms = 1_800_000_000_000;
        let upstream = UpstreamNow { is_up: Some(true), since: None, since_ms: now_ms - 5_000_000 };
        let model = ModelNow {
            model: "a model with a name that goes on and on until nobody reads it any more".into(),
            model_key: None,
            state: "evicted",
            since: String::new(),
            told: String::new(),
            context_tokens: Some(1_000_000),
            context_tokens_max: Some(10_000_000),
            since_ms: 0,
        };
        let (in_flight, queued) = (exchanges.len() + 1_234, 1);
        Now { time: text_of_ms(now_ms), upstream, models: vec![model], in_flight, queued, exchanges, now_ms }
    }

    fn exchange() -> ExchangeNow {
        ExchangeNow {
            id: 123_456,
            endpoint: "/v1/chat/completions".into(),
            client: Some("\u{1b}[2Jmallory with a long name".into()),
            model: Some("a model with a name that goes on and on".into()),
            conversation: None,
            body_bytes: Some(268_435_456),
            phase: "generating",
            start_time: String::new(),
            duration_ms: 0,
            phase_ms: 123_456_789,
            events: Some(12_345_678),
            output_tokens: None,
            events_per_second: Some(1234.56),
            tokens_per_second: None,
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal_and_nothing_steers_it() {
        let unknown = ExchangeNow {
            client: None,
            model: None,
            body_bytes: None,
            events: None,
            events_per_second: None,
            phase: "connecting",
            ..exchange()
        };
        let text = now(vec![exchange(), unknown]).text();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{} wide: {line}", line.chars().count());
        }
        assert!(!text.contains('\u{1b}'));
        assert!(text.contains("LM Studio answers, for 83 min.\n") && text.contains("(1,235 more)"), "{text}");
        assert!(now(Vec::new()).text().ends_with("\nNothing is in flight.\n"));
    }
}
