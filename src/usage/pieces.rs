//! A prompt cut into pieces, so that what the next turn of a conversation says again is found to be the same.
//!
//! ```text
//!  {"model":"m","messages":[{"role":"system",…},{"role":"user",…}],"stream":true}
//!  └───────────┬──────────┘└─────────┬────────┘└────────┬────────┘└──────┬──────┘
//! ```
//!
//! A part ends behind an element of one of the arrays that conversations are sent as, in front of such an array, and
//! behind any other member of the object. A piece is one part, or several where they are short. All of either one behind
//! the other are the text, whatever it is: from where it is not understood, it is one part to its end.
//!
//! Where a part or a piece ends depends on what stands before it, and on nothing behind it but the character that tells
//! that a number is over. So what has been cut once need not be cut again: see [`pieces_behind`].

use std::ops::Range;

use super::members::{BOM, behind, spells};
use super::skip::{skip_space, value_end};
use crate::limits::{PIECE_BYTES_MIN, PIECE_PART_MIN};

/// A member of a request whose elements are parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PromptArray {
    /// Of Chat Completions, Messages and LM Studio's own API.
    Messages,
    /// Items of Responses.
    Input,
    /// Of Gemini.
    Contents,
    /// The blocks of a system prompt.
    System,
    /// Tools.
    Tools,
}

impl PromptArray {
    const ALL: [(PromptArray, &str); 5] = [
        (PromptArray::Messages, "messages"),
        (PromptArray::Input, "input"),
        (PromptArray::Contents, "contents"),
        (PromptArray::System, "system"),
        (PromptArray::Tools, "tools"),
    ];

    /// The member with this key.
    fn named(key: &[u8]) -> Option<PromptArray> {
        PromptArray::ALL.iter().find(|(_, name)| spells(key, name)).map(|(array, _)| *array)
    }
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// What stands between the others: members of other names, brackets, and what is not understood.
    Between,
    /// An element, counted from 0.
    Element(PromptArray, u32),
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptPart {
    /// What it is.
    pub kind: PartKind,
    /// Where it stands: behind the part before it.
    pub span: Range<usize>,
    /// Of an element, without the comma and the white space in front of it.
    pub value: Range<usize>,
}

/// Where a part ends, which is where the next one begins.
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
    /// An array whose elements are parts.
    Array(PromptArray),
    /// What follows an element of one.
    Element(PromptArray, u32),
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

/// All parts of a text, in order.
pub fn parts(text: &[u8]) -> impl Iterator<Item = PromptPart> {
    let mut last = PieceEnd::START;
    std::iter::from_fn(move || {
        let from = last;
        last = next_part(text, from)?;
        let span = from.at..last.at;
        Some(match last.place {
            PiecePlace::Element(array, index) => {
                let bracket_or_comma = if index == 0 { span.start } else { skip_space(text, span.start) };
                let value = skip_space(text, bracket_or_comma + 1)..span.end;
                PromptPart { kind: PartKind::Element(array, index), span, value }
            }
            PiecePlace::Text | PiecePlace::Array(_) | PiecePlace::Member => {
                PromptPart { kind: PartKind::Between, value: span.clone(), span }
            }
        })
    })
}

/// Where the pieces end that stand behind `from`, a cut of this text or of one that is the same up to and beyond it
/// ([`PieceEnd::is_within`]). The last one ends with the text; there is none behind its end.
pub fn pieces_behind(text: &[u8], from: PieceEnd) -> impl Iterator<Item = PieceEnd> {
    let mut last = from;
    std::iter::from_fn(move || {
        let from = last.at;
        let bytes_min = PIECE_BYTES_MIN.max(from / PIECE_PART_MIN);
        last = next_part(text, last)?;
        while last.at - from < bytes_min {
            match next_part(text, last) {
                Some(next) => last = next,
                None => break,
            }
        }
        Some(last)
    })
}

/// The end of the part behind `from`; `None`: the text ends there.
fn next_part(text: &[u8], from: PieceEnd) -> Option<PieceEnd> {
    (from.at < text.len()).then(|| next(text, from).unwrap_or(PieceEnd::end(text)))
}

/// The next place where a part may end. `None`: only the text's end is left, or what is no JSON.
fn next(text: &[u8], PieceEnd { at, place }: PieceEnd) -> Option<PieceEnd> {
    let element =
        |array, index, at| Some(PieceEnd { at: value_end(text, at)?, place: PiecePlace::Element(array, index) });
    match place {
        PiecePlace::Text => {
            let start = skip_space(text, if text.starts_with(BOM) { BOM.len() } else { 0 });
            member(text, behind(b'{', text, start).filter(|_| at == 0)?)
        }
        PiecePlace::Array(array) => {
            let first = behind(b'[', text, at)?;
            match behind(b']', text, first) {
                Some(_) => Some(PieceEnd { at: first + 1, place: PiecePlace::Member }),
                None => element(array, 0, first),
            }
        }
        PiecePlace::Element(array, index) => {
            let at = skip_space(text, at);
            match behind(b',', text, at) {
                Some(next) => element(array, index.saturating_add(1), next),
                None => behind(b']', text, at).map(|_| PieceEnd { at: at + 1, place: PiecePlace::Member }),
            }
        }
        PiecePlace::Member => member(text, behind(b',', text, skip_space(text, at))?),
    }
}

/// Behind the member whose key begins here; where its elements are parts, in front of its value.
fn member(text: &[u8], key: usize) -> Option<PieceEnd> {
    behind(b'"', text, key)?;
    let key_end = value_end(text, key)?;
    let value = behind(b':', text, skip_space(text, key_end))?;
    if text.get(value) == Some(&b'[')
        && let Some(array) = PromptArray::named(&text[key + 1..key_end - 1])
    {
        return Some(PieceEnd { at: value, place: PiecePlace::Array(array) });
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

    #[test]
    fn a_part_is_an_element_or_what_stands_between() {
        let check = |text: &str, expected: &str| {
            let (mut shown, mut from) = (Vec::new(), 0);
            for PromptPart { kind, span, value } in parts(text.as_bytes()) {
                assert_eq!(span.start, from, "{text}");
                from = span.end;
                shown.push(match kind {
                    PartKind::Between => text[value].to_owned(),
                    PartKind::Element(array, index) => format!("{array:?} {index} {}", &text[value]),
                });
            }
            assert_eq!((from, shown.join("|").as_str()), (text.len(), expected));
        };
        check(
            r#"{"model":"m","tools":[],"messages":[{"a":[1]} , 2,"c"],"x":1}"#,
            r#"{"model":"m"|,"tools":|[]|,"messages":|Messages 0 {"a":[1]}|Messages 1 2|Messages 2 "c"|]|,"x":1|}"#,
        );
        check(
            r#"{"system": [ "a" ],"input":[["b"]],"contents":{"tools":[1]},"tools":[null ]}"#,
            r#"{"system": |System 0 "a"| ]|,"input":|Input 0 ["b"]|]|,"contents":{"tools":[1]}|,"tools":|Tools 0 null| ]|}"#,
        );
        check(r#"{"messages":[1,2;3]}"#, r#"{"messages":|Messages 0 1|,2;3]}"#);
        check("hello", "hello");
        check("", "");
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
