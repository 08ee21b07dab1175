//! What a client says that it takes (RFC 9110 §12.5): types in `Accept`, codings in `Accept-Encoding`.

use super::head::RequestHead;
use super::syntax::elements;

/// An element of such a field.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    name: &'a [u8],
    parameters: &'a [u8],
}

/// The elements of all fields of this name, in order.
pub fn accepted<'a>(head: &'a RequestHead, field: &'a str) -> impl Iterator<Item = Accepted<'a>> {
    let fields = head.fields().filter(move |(name, _)| name.eq_ignore_ascii_case(field));
    fields.flat_map(|(_, value)| elements(value)).map(|element| {
        let end = element.iter().position(|byte| *byte == b';').unwrap_or(element.len());
        let (name, parameters) = element.split_at(end);
        Accepted { name: name.trim_ascii_end(), parameters }
    })
}

impl<'a> Accepted<'a> {
    /// Whether it names this.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value of its parameter of this name, quotes taken off.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        let parameters = self.parameters.split(|byte| *byte == b';');
        let mut named = parameters.filter_map(|parameter| std::str::from_utf8(parameter).ok()?.trim().split_once('='));
        let (_, value) = named.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value.trim_matches('"'))
    }

    /// How much it is wanted: 1 where it does not say, 0 is not at all. What is no number is 0, too.
    pub fn weight(&self) -> f64 {
        self.parameter("q").map_or(1.0, |weight| weight.parse().unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::read_head;
    use super::*;

    #[test]
    fn elements_of_all_lines_have_names_parameters_and_weights() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\naccept: a/b ;q=0.5, C/D;Version=\"1.0\"; Q=0.000\r\n\
                    Accept-Encoding: gzip\r\nAccept: e/f;q=none,,*/*\r\n\r\n";
        let (head, _) = read_head(text.as_bytes(), &mut 0).expect("valid").expect("whole");
        let all: Vec<Accepted> = accepted(&head, "Accept").collect();
        let told: Vec<(&[u8], f64)> = all.iter().map(|accepted| (accepted.name, accepted.weight())).collect();
        assert_eq!(told, [(&b"a/b"[..], 0.5), (b"C/D", 0.0), (b"e/f", 0.0), (b"", 1.0), (b"*/*", 1.0)]);
        assert!(all[1].is("c/d") && !all[1].is("c") && all[3].is(""));
        assert_eq!((all[1].parameter("version"), all[0].parameter("version")), (Some("1.0"), None));
    }
}
