//! Four weeks of made-up use, written as any rows are: more by day than by night, less at weekends, a model that came
//! two weeks ago.

use super::chance::Chance;
use super::words::{EMBEDDER, MODELS, QUESTIONS, TOO_LONG, WORDS};
use crate::calendar::{DAY_MS, HOUR_MS};
use crate::order::sort_by_key;
use crate::record::row::{Content, Outcome, Row};
use crate::record::store::Store;

const DAYS: i64 = 28;

/// Writes it, up to an hour ago.
pub(super) fn write(store: &mut Store, now_ms: i64) -> rusqlite::Result<()> {
    let mut chance = Chance::new(20);
    let first = now_ms - DAYS * DAY_MS;
    let mut rows = Vec::new();
    for hour in 0..DAYS * 24 - 1 {
        let start_ms = first + hour * HOUR_MS;
        let (of_day, day) = (start_ms.rem_euclid(DAY_MS) / HOUR_MS, start_ms.div_euclid(DAY_MS));
        // 1970-01-01 was a Thursday.
        let is_weekend = matches!((day + 4) % 7, 0 | 6);
        let busy = if (8..20).contains(&of_day) { 5 } else { 1 };
        for _ in 0..chance.below(if is_weekend { busy / 2 + 1 } else { busy + 1 }) {
            let at = start_ms + chance.below(HOUR_MS as u64) as i64;
            rows.push(row(&mut chance, at, now_ms - at < 14 * DAY_MS));
        }
    }
    sort_by_key(&mut rows, |row: &Row| row.start_ms);
    store.write(&rows).map(drop)
}

fn row(chance: &mut Chance, start_ms: i64, has_newest: bool) -> Row {
    let (model, speed, reasons) = MODELS[chance.below(if has_newest { 3 } else { 2 }) as usize];
    let client = chance.pick(&["Zed", "openai-python", "openai-node", "curl"]);
    let (input, output) = (chance.between(60, 9_000), chance.between(20, 900));
    let speed = speed * chance.between(85, 110) as f64 / 100.0;
    let first_ms = 90 + input / 3;
    let outcome = match chance.below(40) {
        0 => Outcome::UpstreamError,
        1 => Outcome::ClientClosed,
        _ => Outcome::Completed,
    };
    let failed = outcome == Outcome::UpstreamError;
    let known = |count: u64| (outcome == Outcome::Completed).then_some(count);
    let words = chance.pick(&QUESTIONS);
    let prompt = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{words}"}}]}}"#);
    let row = Row {
        endpoint: "/v1/chat/completions".into(),
        model: Some(model.into()),
        requested_model: Some(model.into()),
        start_ms,
        duration_ms: if failed { 12 } else { first_ms + (output as f64 / speed * 1000.0) as u64 },
        input_tokens: known(input),
        output_tokens: known(output),
        total_tokens: known(input + output),
        cached_tokens: known(if client == "Zed" { input * 3 / 4 } else { 0 }),
        reasoning_tokens: known(if reasons { output / 3 } else { 0 }),
        outcome,
        error_message: failed.then(|| TOO_LONG.into()),
        http_status: Some(if failed { 400 } else { 200 }),
        was_streamed: !failed,
        time_to_first_token_ms: (!failed).then_some(first_ms),
        tokens_per_second: known(output).map(|_| speed),
        finish_reason: known(output).map(|_| "stop".into()),
        usage_source: known(output).map(|_| "usage"),
        client: Some(client.into()),
        content: Content {
            prompt: Some(crate::record::prompts::Prompt::Whole(prompt)),
            output: known(output).map(|_| WORDS.into()),
            ..Content::default()
        },
        ..Row::default()
    };
    if chance.below(5) > 0 { row } else { embedded(row) }
}

/// The same of an embedding, which says nothing.
fn embedded(row: Row) -> Row {
    let input_tokens = row.input_tokens.map(|count| count / 10);
    Row {
        endpoint: "/v1/embeddings".into(),
        model: Some(EMBEDDER.into()),
        requested_model: Some(EMBEDDER.into()),
        duration_ms: 40,
        input_tokens,
        output_tokens: None,
        total_tokens: input_tokens,
        cached_tokens: None,
        reasoning_tokens: None,
        was_streamed: false,
        time_to_first_token_ms: None,
        tokens_per_second: None,
        finish_reason: None,
        content: Content::default(),
        ..row
    }
}
