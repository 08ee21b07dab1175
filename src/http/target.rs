//! The grammar of a target: the segments of its path, the pairs of its query. What a path is for is no matter of HTTP.

use percent_encoding::percent_decode;

/// Whether the segments after a prefix lead above it at any point, for any server that decodes `%2e`, `%2f` and `%5c`,
/// takes `\` for `/`, cuts a segment at `;`, or drops empty segments.
pub fn climbs_out(rest: &str) -> bool {
    let decoded: Vec<u8> = percent_decode(rest.as_bytes()).collect();
    let mut depth = 0_usize;
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment.split(|&byte| byte == b';').next() {
            Some(b"..") if depth == 0 => return true,
            Some(b"..") => depth -= 1,
            Some(b"." | b"") | None => {}
            Some(_) => depth += 1,
        }
    }
    false
}

/// The pairs of a query in order, percent-decoded, `+` as a space. A name without `=` has an empty value. What is no
/// UTF-8 is replaced.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let text = |part: &str| {
        let spaced: Vec<u8> = part.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
        decoded_bytes(&spaced)
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// A segment of a path, percent-decoded. What is no UTF-8 is replaced.
pub fn decoded(segment: &str) -> String {
    decoded_bytes(segment.as_bytes())
}

fn decoded_bytes(bytes: &[u8]) -> String {
    percent_decode(bytes).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_climbs_out_where_any_server_could_take_it_to() {
        for rest in
            ["..", "../x", "../v1/models", "a/../../x", "./../x", "/../x", "%2e%2E/x", "..%2fx", "..%5Cx", "..;a/x"]
        {
            assert!(climbs_out(rest), "{rest}");
        }
        for rest in ["", "a/../b", "a/./b", "...", "..a", "a%2f..%2fb", "%", "%2", "%252e%252e/"] {
            assert!(!climbs_out(rest), "{rest}");
        }
    }

    #[test]
    fn queries_are_decoded_in_order() {
        let check = |query: &str, expected: &[(&str, &str)]| {
            let expected: Vec<_> =
                expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(query_pairs(query), expected, "{query}");
        };
        check("", &[]);
        check("limit=5&limit=6", &[("limit", "5"), ("limit", "6")]);
        check("a&b=&&=c", &[("a", ""), ("b", ""), ("", "c")]);
        check("a+b=c%20d%2B%C3%A9&x=y=z", &[("a b", "c d+\u{e9}"), ("x", "y=z")]);
        check("a=%&b=%4&c=%zz&d=%ff", &[("a", "%"), ("b", "%4"), ("c", "%zz"), ("d", "\u{fffd}")]);
    }
}
