//! A prompt cut into pieces, so that what the next turn of a conversation says again is found to be the same.
//!
//! ```text
//!  {"model":"m","messages":[{"role":"system",…},{"role":"user",…}],"stream":true}
//!  └───────────┬──────────┘└─────────┬────────┘└────────┬────────┘└──────┬──────┘
//! ```
//!
//! A piece ends behind an element of one of the arrays that conversations are sent as, in front of such an array, and
//! behind any other member of the object; a shorter one goes on to the next such place. All pieces one behind the other
//! are the text, whatever it is: from where it is not understood, it is one piece to its end.
//!
//! Where a piece ends depends on what stands before it, and on nothing behind it but the character that tells that a
//! number is over. So what has been cut once need not be cut again: see [`pieces_behind`].

use super::members::{BOM, behind, skip_space, spells, value_end};
use crate::limits::{PIECE_BYTES_MIN, PIECE_PART_MIN};

/// Members whose elements are pieces: messages of Chat Completions, Messages and LM Studio's own API, items of Responses,
/// contents of Gemini, the blocks of a system prompt, tools.
const ARRAYS: [&str; 5] = ["messages", "input", "contents", "system", "tools"];

/// Where a piece ends, which is where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceEnd {
    /// Bytes of the text in front of it.
    pub at: usize,
    place: PiecePlace,
}

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PiecePlace {
    /// The text itself, from its first byte.
    Text,
    /// An array whose elements are pieces.
    Array,
    /// What follows an element of one.
    Element,
    /// What follows a member of the object.
    Member,
}

impl PieceEnd {
    /// In front of the whole text.
    pub const START: PieceEnd = PieceEnd { at: 0, place: PiecePlace::Text };

    /// Behind the whole text.
    fn end(text: &[u8]) -> PieceEnd {
        PieceEnd { at: text.len(), place: PiecePlace::Text }
    }

    /// Whether another text has it, too, that is the same for so many bytes and differs in the next: unless the first of
    /// them ends with it.
    pub fn is_within(self, same: usize) -> bool {
        self.at < same
    }
}

/// Where the pieces end that stand behind `from`, a cut of this text or of one that is the same up to and beyond it
/// ([`PieceEnd::is_within`]). The last one ends with the text; there is none behind its end.
pub fn pieces_behind(text: &[u8], from: PieceEnd) -> impl Iterator<Item = PieceEnd> {
    let mut last = from;
    std::iter::from_fn(move || {
        let from = last.at;
        if from >= text.len() {
            return None;
        }
        let bytes_min = PIECE_BYTES_MIN.max(from / PIECE_PART_MIN);
        last = loop {
            match next(text, last) {
                Some(cut) if cut.at - from < bytes_min => last = cut,
                Some(cut) => break cut,
                None => break PieceEnd::end(text),
            }
        };
        Some(last)
    })
}

/// The next place where a piece may end. `None`: only the text's end is left, or what is no JSON.
fn next(text: &[u8], PieceEnd { at, place }: PieceEnd) -> Option<PieceEnd> {
    let element = |at| Some(PieceEnd { at: value_end(text, at)?, place: PiecePlace::Element });
    match place {
        PiecePlace::Text => {
            let start = skip_space(text, if text.starts_with(BOM) { BOM.len() } else { 0 });
            member(text, behind(b'{', text, start).filter(|_| at == 0)?)
        }
        PiecePlace::Array => {
            let first = behind(b'[', text, at)?;
            match behind(b']', text, first) {
                Some(_) => Some(PieceEnd { at: first + 1, place: PiecePlace::Member }),
                None => element(first),
            }
        }
        PiecePlace::Element => {
            let at = skip_space(text, at);
            match behind(b',', text, at) {
                Some(next) => element(next),
                None => behind(b']', text, at).map(|_| PieceEnd { at: at + 1, place: PiecePlace::Member }),
            }
        }
        PiecePlace::Member => member(text, behind(b',', text, skip_space(text, at))?),
    }
}

/// Behind the member whose key begins here; where its elements are pieces, in front of its value.
fn member(text: &[u8], key: usize) -> Option<PieceEnd> {
    behind(b'"', text, key)?;
    let key_end = value_end(text, key)?;
    let value = behind(b':', text, skip_space(text, key_end))?;
    if text.get(value) == Some(&b'[') && ARRAYS.iter().any(|name| spells(&text[key + 1..key_end - 1], name)) {
        return Some(PieceEnd { at: value, place: PiecePlace::Array });
    }
    Some(PieceEnd { at: value_end(text, value)?, place: PiecePlace::Member })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces, each ended by `|`; that they are the text, and the same from any of them on, whatever comes behind it.
    fn pieces(text: &str) -> String {
        let cuts: Vec<PieceEnd> = pieces_behind(text.as_bytes(), PieceEnd::START).collect();
        assert_eq!(cuts.last().map_or(0, |cut| cut.at), text.len(), "{text}");
        for (number, cut) in cuts.iter().enumerate() {
            let rest: Vec<PieceEnd> = pieces_behind(text.as_bytes(), *cut).collect();
            assert_eq!(rest, cuts[number + 1..], "{text}");
            // Of a text that goes on in another way behind the next byte.
            if let Some(next) = text.as_bytes().get(cut.at) {
                let other = [&text.as_bytes()[..cut.at], &[*next], b"7,\"x\":[{}]"].concat();
                let before: Vec<PieceEnd> =
                    pieces_behind(&other, PieceEnd::START).take_while(|other| other.at <= cut.at).collect();
                assert_eq!(before, cuts[..=number], "{text}");
            }
        }
        let mut from = 0;
        let mut shown = String::new();
        for cut in cuts {
            shown.push_str(&text[from..cut.at]);
            shown.push('|');
            from = cut.at;
        }
        shown
    }

    /// `~` stands for a text that makes a piece long enough.
    fn check(text: &str, expected: &str) {
        let long = "l".repeat(PIECE_BYTES_MIN);
        assert_eq!(pieces(&text.replace('~', &long)).replace(&long, "~"), expected);
    }

    #[test]
    fn a_piece_is_an_element_with_what_stands_before_it() {
        check(
            r#"{"model":"~","messages":[{"a":"~"}, {"a":"~"},"~"],"stream":true}"#,
            r#"{"model":"~"|,"messages":[{"a":"~"}|, {"a":"~"}|,"~"|],"stream":true}|"#,
        );
        check(
            r#"{"system":[{"text":"~"}],"tools" : [ "~" , ["~"] ] ,"max":"~","input":["~"]}"#,
            r#"{"system":[{"text":"~"}|],"tools" : [ "~"| , ["~"]| ] ,"max":"~"|,"input":["~"|]}|"#,
        );
        check(r#"{"contents":[["~","~"],{"parts":["~"]}]}"#, r#"{"contents":[["~","~"]|,{"parts":["~"]}|]}|"#);
        check(r#"{"\u006dessages":["~","~"]}"#, r#"{"\u006dessages":["~"|,"~"|]}|"#);
        check("\u{feff} {\"messages\":[\"~\"]}\n", "\u{feff} {\"messages\":[\"~\"|]}\n|");
        check(r#"{"messages":[],"system":"~","x":1}"#, r#"{"messages":[],"system":"~"|,"x":1}|"#);
        check(r#"{"a~":1,"messages":["~"]}"#, r#"{"a~":1|,"messages":["~"|]}|"#);
        // The elements of other arrays are not.
        check(
            r#"{"stop":["~","~"],"messages":{"input":["~","~"]}}"#,
            r#"{"stop":["~","~"]|,"messages":{"input":["~","~"]}|}|"#,
        );
    }

    #[test]
    fn short_pieces_go_on_to_the_next_end() {
        check(r#"{"messages":["a","b","~","c","~","d"]}"#, r#"{"messages":["a","b","~"|,"c","~"|,"d"]}|"#);
        check(r#"{"messages":["a"]}"#, r#"{"messages":["a"]}|"#);
        check("", "");
    }

    #[test]
    fn what_is_not_understood_is_one_piece() {
        for text in ["~", "[\"~\",\"~\"]", "\"~\"", "{~", "{\"messages\" \"~\"}", "{\"messages\":[\"~", "{'a':\"~\"}"] {
            check(text, &format!("{text}|"));
        }
        check(r#"{"messages":["~","~";"~","~"]}"#, r#"{"messages":["~"|,"~"|;"~","~"]}|"#);
        check(r#"{"messages":["~",]}"#, r#"{"messages":["~"|,]}|"#);
        check(r#"{"messages":["~"]}{"messages":["~"]}"#, r#"{"messages":["~"|]}{"messages":["~"]}|"#);
        check(r#"{"messages":["~"] "input":["~"]}"#, r#"{"messages":["~"|] "input":["~"]}|"#);
    }

    #[test]
    fn a_number_goes_on_for_as_long_as_it_has_digits() {
        let digits = "1".repeat(PIECE_BYTES_MIN);
        for text in ["{\"input\":[#,#],\"n\":#}", "{\"input\":[#", "{\"n\":#", "{\"n\":#,\"input\":[#,"] {
            pieces(&text.replace('#', &digits));
        }
    }

    #[test]
    fn the_longer_a_prompt_the_longer_its_pieces() {
        let text = format!("{{\"messages\":[{}\"\"]}}", "\"x\",".repeat(4 * 1024 * 1024));
        let (mut from, mut count) = (0, 0);
        for cut in pieces_behind(text.as_bytes(), PieceEnd::START) {
            assert!(cut.at == text.len() || cut.at - from >= PIECE_BYTES_MIN.max(from / PIECE_PART_MIN));
            (from, count) = (cut.at, count + 1);
        }
        assert!((4000..6000).contains(&count), "{count}");
    }
}
