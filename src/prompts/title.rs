//! What a conversation is called: the beginning of what its user said first.

use serde_json::Value;

use super::outline::{ElementPart, ElementRole, each_placed};

/// Characters of a title.
const TITLE_CHARS_MAX: usize = 80;
/// Agents put notes of their own in front of what the user says.
const NOTES: [(&str, &str); 2] =
    [("<system-reminder>", "</system-reminder>"), ("<environment_context>", "</environment_context>")];

/// The title of a request's body; `None`: it has no user's message.
pub fn title(body: &str) -> Option<String> {
    let users = |placed: &&super::outline::PlacedElement| {
        placed.element.part == ElementPart::Message && placed.element.role == ElementRole::User
    };
    let placed = each_placed(body.as_bytes());
    placed.iter().filter(users).find_map(|placed| {
        let value: Value = serde_json::from_str(body.get(placed.value.clone())?).ok()?;
        texts_of(&value).into_iter().find_map(line_of)
    })
}

/// The texts of a message: of its content, which is one or has several, or of itself.
fn texts_of(message: &Value) -> Vec<&str> {
    match message.get("content").unwrap_or(message) {
        Value::String(text) => vec![text],
        Value::Array(blocks) => blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect(),
        block => block.get("text").and_then(Value::as_str).into_iter().collect(),
    }
}

/// The first line that says something, without notes.
fn line_of(text: &str) -> Option<String> {
    let mut text = text.trim();
    while let Some((begin, end)) = NOTES.iter().find(|(begin, _)| text.starts_with(begin)) {
        text = text[begin.len()..].split_once(end)?.1.trim();
    }
    let line = text.lines().next().filter(|line| !line.is_empty())?;
    let cut = line.char_indices().nth(TITLE_CHARS_MAX).map(|(at, _)| format!("{}…", line[..at].trim_end()));
    Some(cut.unwrap_or_else(|| line.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Option<&str>) {
        assert_eq!(title(body).as_deref(), expected, "{body}");
    }

    #[test]
    fn a_title_is_what_the_user_said_first() {
        check(r#"{"messages":[{"role":"system","content":"Be"},{"role":"user","content":" Hi\nthere"}]}"#, Some("Hi"));
        check(r#"{"system":"s","messages":[{"role":"user","content":[{"type":"text","text":"Two"}]}]}"#, Some("Two"));
        check(r#"{"input":"Say","instructions":"Be"}"#, Some("Say"));
        check(r#"{"prompt":"Once upon"}"#, Some("Once upon"));
        check(r#"{"messages":[{"role":"assistant","content":"Hi"}]}"#, None);
        check(r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#, None);
        check("{", None);
    }

    #[test]
    fn notes_of_agents_are_left_out() {
        let note = "<system-reminder>Today</system-reminder>";
        let block = |text: &str| format!(r#"{{"type":"text","text":"{text}"}}"#);
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{},{}]}}]}}"#, block(note), block("Fix it"));
        check(&body, Some("Fix it"));
        check(&format!(r#"{{"input":"{note}\n{note} Fix it"}}"#), Some("Fix it"));
        check(&format!(r#"{{"input":"{note}"}}"#), None);
        check(r#"{"input":"<system-reminder>open"}"#, None);
    }

    #[test]
    fn long_titles_are_cut_between_characters() {
        check(&format!(r#"{{"input":"{}"}}"#, "ü".repeat(200)), Some(&format!("{}…", "ü".repeat(80))));
    }
}
