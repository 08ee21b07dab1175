//! `GET /`: the page for a browser, one file without anything from elsewhere. It holds no figures itself but asks the
//! other routes for them, so it may be shown to anybody; where a token is needed it asks for that, too.
//!
//! Its parts lie in `page/`, and are put together when this is compiled. What only their readers need is left out then.

use std::sync::OnceLock;

use super::gzip::{accepts_gzip, gzip};
use super::page_parts::{Language, dense, joined};
use crate::http::reply::Reply;
use crate::http::{RequestHead, accepted};

const STYLE_SOURCE: &str = include_str!("page/style.css");
/// The parts share one scope. What runs at once, and not when something is asked or pressed, needs what it uses in front
/// of it: so `start.js` is the last.
const SCRIPT_SOURCE: &str = concat!(
    include_str!("page/words.js"),
    include_str!("page/asking.js"),
    include_str!("page/figures.js"),
    include_str!("page/chart.js"),
    include_str!("page/requests.js"),
    include_str!("page/aside.js"),
    include_str!("page/request.js"),
    include_str!("page/prompt.js"),
    include_str!("page/thread.js"),
    include_str!("page/start.js"),
);

const STYLE: &str = dense!(STYLE_SOURCE, Language::Css);
const SCRIPT: &str = dense!(SCRIPT_SOURCE, Language::Script);
const PARTS: [&str; 8] = [
    include_str!("page/top.html"),
    "<style>",
    STYLE,
    "</style>\n",
    include_str!("page/body.html"),
    "<script>",
    SCRIPT,
    "</script>\n</body>\n</html>\n",
];
const PAGE: &str = joined!(PARTS);

/// Nothing may run or load but what this file holds, known by its hash (CSP 3, §2.3.1); and nobody may put the page into
/// a frame. A test says which hashes are right when the page was changed.
const POLICY: &str = "default-src 'none'; script-src 'sha256-bBlQaJooF2HkZy1ICHN6s0hhDhYA1/gsZ18YNQ7VLEU='; \
    style-src 'sha256-+Jsq+r7Of3NiPwxGpMuR5qlRBlnOqZQNd4nddzFspJY='; connect-src 'self'; img-src data:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The page. The status tells programs whether a token is missing; people see the same page.
pub fn page(head: &RequestHead, status: u16) -> Reply {
    static COMPRESSED: OnceLock<Vec<u8>> = OnceLock::new();
    let page = Reply::new(status, "text/html; charset=utf-8", Vec::new())
        .with_field("Vary", "Accept, Accept-Encoding".to_owned())
        .with_field("Content-Security-Policy", POLICY.to_owned())
        .with_field("X-Content-Type-Options", "nosniff".to_owned())
        .with_field("Referrer-Policy", "no-referrer".to_owned());
    match accepts_gzip(head) {
        true => page
            .with_body(COMPRESSED.get_or_init(|| gzip(PAGE.as_bytes())).clone())
            .with_field("Content-Encoding", "gzip".to_owned()),
        false => page.with_body(PAGE.into()),
    }
}

/// Whether a client wants the page rather than the report: browsers name its type, curl takes anything. Who says nothing
/// gets the page.
pub fn wants_page(head: &RequestHead) -> bool {
    head.field("accept").is_none() || accepted(head, "accept").any(|kind| kind.is("text/html") && kind.weight() > 0.0)
}

#[cfg(test)]
mod tests {
    use ring::digest::{SHA256, digest};

    use super::*;
    use crate::prompts::PrefixBreak;
    use crate::routes::LOCAL;

    fn between(text: &'static str, start: &str, end: &str) -> &'static str {
        let rest = text.split_once(start).map_or("", |(_, rest)| rest);
        rest.split_once(end).map_or("", |(inner, _)| inner)
    }

    /// A hash as Content-Security-Policy writes it (CSP 3, §2.3.1).
    fn hash(text: &str) -> String {
        format!("sha256-{}", base64(digest(&SHA256, text.as_bytes()).as_ref()))
    }

    /// RFC 4648 §4.
    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for group in bytes.chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
            for place in 0..4 {
                let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
                text.push(if place <= group.len() { char::from(digit) } else { '=' });
            }
        }
        text
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
        assert_eq!(hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_policy_knows_the_script_and_the_style() {
        for (directive, start, end) in [("script", "<script>", "</script>"), ("style", "<style>", "</style>")] {
            let expected = format!("{directive}-src '{}';", hash(between(PAGE, start, end)));
            assert!(POLICY.contains(&expected), "{expected}");
        }
    }

    #[test]
    fn the_page_is_small_and_needs_nothing_from_elsewhere() {
        assert!(PAGE.len() < 100 * 1024, "{} bytes", PAGE.len());
        for outside in
            ["http://", "https://", "<link rel=\"stylesheet", "<script src", "@import", "url(", "\"/stats", "(\"/"]
        {
            let allowed = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!allowed.contains(outside), "{outside}");
        }
    }

    #[test]
    fn the_policy_lets_nothing_run_that_is_not_in_it() {
        assert_eq!((PAGE.matches("<script").count(), PAGE.matches("<style").count()), (1, 1));
        for blocked in [" style=\"", " onclick=", " onload=", "javascript:", "innerHTML", "eval("] {
            assert!(!PAGE.contains(blocked), "{blocked}");
        }
        assert!(!POLICY.contains("unsafe"), "{POLICY}");
    }

    #[test]
    fn costs_as_another_model_are_asked_of_routes_that_tell_them() {
        let names = between(SCRIPT_SOURCE, "const COSTS = /^stats(\\/(", ")(\\/");
        let names: Vec<&str> = names.split('|').map(|name| name.trim_start_matches('(')).collect();
        assert_eq!(names.len(), 8, "{names:?}");
        for name in names {
            let path = format!("/stats/{}", name.replace("[a-z]+", "model"));
            assert!(LOCAL.iter().any(|line| line.path == path && line.local.tells_costs()), "{path}");
        }
    }

    #[test]
    fn every_reason_has_its_words() {
        for reason in PrefixBreak::all() {
            let words = format!("\n  {}: [\"", reason.as_str());
            assert_eq!(SCRIPT_SOURCE.matches(&words).count(), 1, "{words}");
        }
    }

    /// WCAG 2.2, 1.4.3 and 1.4.11: text stands out 4.5 to 1 from what is behind it, parts of charts 3 to 1.
    #[test]
    fn colours_stand_out_from_what_is_behind_them() {
        let mut themes = STYLE_SOURCE.split(":root {").skip(1).map(|rest| rest.split('}').next().unwrap_or_default());
        let mut check = |theme: &str| {
            let colours = themes.next().expect("a light theme, then a dark one");
            let luminance = |name: &str| {
                let (_, rest) = colours.split_once(&format!("--{name}: #")).expect(name);
                luminance(rest.split(';').next().unwrap_or_default())
            };
            let stands_out = |front: &str, back: &str, least: f64| {
                let (a, b) = (luminance(front), luminance(back));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                assert!(contrast >= least, "{theme}: {front} on {back} is {contrast:.2} to 1, less than {least}");
            };
            for front in ["text", "soft", "accent", "bad"] {
                for back in ["card", "page", "hover"] {
                    stands_out(front, back, 4.5);
                }
            }
            stands_out("bad", "bad-back", 4.5);
            for part in (0..=12).map(|part| format!("c{part}")).chain(["good".to_owned()]) {
                stands_out(&part, "card", 3.0);
            }
        };
        check("light");
        check("dark");
    }

    /// Forced colours take backgrounds away, and put text on one of their own.
    #[test]
    fn what_a_background_tells_stays_in_forced_colours() {
        let kept = between(STYLE_SOURCE, "@media (forced-colors: active) {", "{ forced-color-adjust: none; }");
        let kept: Vec<&str> = kept.split(',').map(str::trim).collect();
        for told in [".swatch", ".dot::before", ".heat", "fieldset label:has(:checked)", "mark"] {
            assert!(kept.contains(&told), "{told} is not among {kept:?}");
        }
    }

    /// Relative luminance (WCAG 2.2) of a colour in three or six hexadecimal digits.
    fn luminance(digits: &str) -> f64 {
        let width = digits.len() / 3;
        let channel = |at: usize| {
            let value = u8::from_str_radix(&digits[at * width..(at + 1) * width], 16).expect("hexadecimal digits");
            let value = f64::from(value) / if width == 1 { 15.0 } else { 255.0 };
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(0) + 0.7152 * channel(1) + 0.0722 * channel(2)
    }
}
