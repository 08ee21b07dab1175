//! What the body of a failed request says where it is no JSON that tells: plain text, or a page of HTML.

use super::text::{floor_boundary, lossy, without_partial_character};

/// So much of a body is looked at. A page's title stands in its first lines.
pub const BODY_BYTES_MAX: usize = 4 * 1024;
/// So much of it is kept.
const WORDS_BYTES_MAX: usize = 512;

/// Its words: a page's title, else the text as it stands. `None` where there are none, or it is no text.
pub fn words(body: &[u8]) -> Option<String> {
    let text = body.strip_prefix(super::members::BOM).unwrap_or(body).trim_ascii();
    if text.is_empty() || text.iter().any(|byte| matches!(byte, 0..=8 | 14..=31)) {
        return None;
    }
    let words = match text.starts_with(b"<") {
        true => page(&lossy(text))?,
        false if text.len() <= WORDS_BYTES_MAX => lossy(text).into_owned(),
        false => lossy(without_partial_character(&text[..WORDS_BYTES_MAX])).into_owned(),
    };
    Some(words).filter(|words| !words.is_empty())
}

/// The title of a page, or its first heading; else its text without the marks.
fn page(html: &str) -> Option<String> {
    let lower = html.to_ascii_lowercase();
    let inside = |name: &str| {
        let from = lower.find(&format!("<{name}"))?;
        let from = from + lower[from..].find('>')? + 1;
        let to = from + lower[from..].find(&format!("</{name}")).unwrap_or(lower.len() - from);
        Some(plain(&html[from..to])).filter(|words| !words.is_empty())
    };
    let words = inside("title").or_else(|| inside("h1")).or_else(|| inside("body")).unwrap_or_else(|| plain(html));
    let end = floor_boundary(&words, WORDS_BYTES_MAX);
    Some(words[..end].to_owned())
}

/// Without marks, with the usual entities as what they stand for, and one space where there was white space.
fn plain(html: &str) -> String {
    let mut text = String::new();
    for (n, piece) in html.split('<').enumerate() {
        text.push(' ');
        text.push_str(if n == 0 { piece } else { piece.split_once('>').map_or("", |(_, text)| text) });
    }
    for (entity, character) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")]
    {
        text = text.replace(entity, character);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Option<&str>) {
        assert_eq!(words(body.as_bytes()).as_deref(), expected, "{body}");
    }

    #[test]
    fn text_is_kept_as_it_stands() {
        check("  upstream request timeout\n", Some("upstream request timeout"));
        check("\u{feff}a\tb\nc", Some("a\tb\nc"));
        check("", None);
        check(" \r\n", None);
        let long = "é".repeat(WORDS_BYTES_MAX);
        check(&format!("a{long}"), Some(&format!("a{}", &long[..WORDS_BYTES_MAX - 2])));
    }

    #[test]
    fn a_page_is_its_title() {
        let nginx = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502</h1></center></body></html>";
        check(nginx, Some("502 Bad Gateway"));
        check(
            "<!DOCTYPE html><HTML><Title lang=\"en\">\n Just a\n moment&#39;s &amp; more </TITLE>",
            Some("Just a moment's & more"),
        );
        check("<html><head><title></title></head><body><h1>Not <b>Found</b></h1><p>x", Some("Not Found"));
        check("<body><pre>Cannot POST /v1/x</pre></body>", Some("Cannot POST /v1/x"));
        check("<p>a<p>b<unclosed", Some("a b"));
        check("<title>cut sho", Some("cut sho"));
        check("<", None);
    }

    #[test]
    fn what_is_no_text_has_no_words() {
        assert_eq!(words(b"\x1f\x8b\x08\x00abc"), None);
        assert_eq!(words(b"caf\xe9 ferm\xe9!").as_deref(), Some("caf\u{fffd} ferm\u{fffd}!"));
    }
}
