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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// What stands between the others: brackets, and what is not understood.
    Between,
    /// A member, whose elements are no parts: where its key is, without the quotes.
    Member(Range<usize>),
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
    /// Of an element or a member the value alone.
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
    pub(super) fn end(text: &[u8]) -> PieceEnd {
        PieceEnd { at: text.len(), place: PiecePlace::Text }
    }

    /// Whether another text has it, too, that is the same for so many bytes and differs in the next: unless the first of
    /// them ends with it.
    pub fn is_within(self, same: usize) -> bool {
        self.at < same
    }

    /// The same place in front of a text that begins there.
    pub fn in_front(self) -> PieceEnd {
        PieceEnd { at: 0, ..self }
    }
}

/// All parts of a text, in order, that stand behind `from`, as [`pieces_behind`] has it.
pub fn parts_behind(text: &[u8], from: PieceEnd) -> impl Iterator<Item = PromptPart> {
    let mut walk = PartWalk::behind(text, from);
    std::iter::from_fn(move || {
        let (from, mut member) = (walk.last().at, None);
        let end = walk.next(|key, value| member = Some((key, value)))?;
        let span = from..end.at;
        Some(match (end.place, member) {
            (PiecePlace::Element(array, index), _) => {
                let bracket_or_comma = if index == 0 { span.start } else { skip_space(text, span.start) };
                let value = skip_space(text, bracket_or_comma + 1)..span.end;
                PromptPart { kind: PartKind::Element(array, index), span, value }
            }
            (_, Some((key, value))) => PromptPart { kind: PartKind::Member(key), span, value },
            (PiecePlace::Text | PiecePlace::Array(_) | PiecePlace::Member, None) => {
                PromptPart { kind: PartKind::Between, value: span.clone(), span }
            }
        })
    })
}

/// Where the pieces end that stand behind `from`, a cut of this text or of one that is the same up to and beyond it
/// ([`PieceEnd::is_within`]). The last one ends with the text; there is none behind its end.
pub fn pieces_behind(text: &[u8], from: PieceEnd) -> impl Iterator<Item = PieceEnd> {
    let mut walk = PartWalk::behind(text, from);
    std::iter::from_fn(move || {
        let from = walk.last().at;
        let mut last = walk.next(|_, _| ())?;
        while is_short(from, last.at) {
            match walk.next(|_, _| ()) {
                Some(next) => last = next,
                None => break,
            }
        }
        Some(last)
    })
}

/// Whether what stands between two places is too short to be a piece, unless it is the last.
pub(super) fn is_short(from: usize, to: usize) -> bool {
    to - from < PIECE_BYTES_MIN.max(from / PIECE_PART_MIN)
}

/// On its way over the parts of a text.
pub(super) struct PartWalk<'a> {
    text: &'a [u8],
    last: PieceEnd,
    object_end: Option<usize>,
}

impl<'a> PartWalk<'a> {
    /// Before the parts behind `from`, as [`pieces_behind`] has it.
    pub(super) fn behind(text: &'a [u8], from: PieceEnd) -> PartWalk<'a> {
        PartWalk { text, last: from, object_end: None }
    }

    /// The end of the next part; `None`: the text ends there. Calls `member` with the spans of the key, without its
    /// quotes, and of the value of each member that it passes, unless its elements are parts.
    pub(super) fn next(&mut self, member: impl FnMut(Range<usize>, Range<usize>)) -> Option<PieceEnd> {
        let (text, from) = (self.text, self.last);
        if from.at >= text.len() {
            return None;
        }
        self.last = next(text, from, member).unwrap_or_else(|| {
            self.object_end = object_end(text, from);
            PieceEnd::end(text)
        });
        Some(self.last)
    }

    /// Where it has come to.
    pub(super) fn last(&self) -> PieceEnd {
        self.last
    }

    /// Behind the closing brace of the object that the text is; `None` if it is none, or not well-formed, or was not
    /// walked to its end.
    pub(super) fn object_end(&self) -> Option<usize> {
        self.object_end
    }
}

/// Behind the brace that closes the object, if it does so behind this part and only white space follows.
fn object_end(text: &[u8], PieceEnd { at, place }: PieceEnd) -> Option<usize> {
    let brace = match place {
        PiecePlace::Member => skip_space(text, at),
        PiecePlace::Text => object_start(text, at)?,
        PiecePlace::Array(_) | PiecePlace::Element(..) => return None,
    };
    (behind(b'}', text, brace)? == text.len()).then_some(brace + 1)
}

/// Behind the opening brace and the white space that follows, where this is a text's beginning.
fn object_start(text: &[u8], at: usize) -> Option<usize> {
    let start = skip_space(text, if text.starts_with(BOM) { BOM.len() } else { 0 });
    behind(b'{', text, start).filter(|_| at == 0)
}

/// The next place where a part may end. `None`: only the text's end is left, or what is no JSON.
fn next(
    text: &[u8],
    PieceEnd { at, place }: PieceEnd,
    member: impl FnMut(Range<usize>, Range<usize>),
) -> Option<PieceEnd> {
    let element =
        |array, index, at| Some(PieceEnd { at: value_end(text, at)?, place: PiecePlace::Element(array, index) });
    match place {
        PiecePlace::Text => next_member(text, object_start(text, at)?, member),
        PiecePlace::Array(array) => {
            let first = behind(b'[', text, at)?;
            match text.get(first)? {
                // Numbers are a vector, or token ids: together they are one value.
                b']' | b'-' | b'0'..=b'9' => Some(PieceEnd { at: value_end(text, at)?, place: PiecePlace::Member }),
                _ => element(array, 0, first),
            }
        }
        PiecePlace::Element(array, index) => {
            let at = skip_space(text, at);
            match behind(b',', text, at) {
                Some(next) => element(array, index.saturating_add(1), next),
                None => behind(b']', text, at).map(|_| PieceEnd { at: at + 1, place: PiecePlace::Member }),
            }
        }
        PiecePlace::Member => next_member(text, behind(b',', text, skip_space(text, at))?, member),
    }
}

/// Behind the member whose key begins here; where its elements are parts, in front of its value.
fn next_member(text: &[u8], key: usize, mut member: impl FnMut(Range<usize>, Range<usize>)) -> Option<PieceEnd> {
    behind(b'"', text, key)?;
    let key_end = value_end(text, key)?;
    let value = behind(b':', text, skip_space(text, key_end))?;
    let name = key + 1..key_end - 1;
    if text.get(value) == Some(&b'[')
        && let Some(array) = PromptArray::named(&text[name.clone()])
    {
        return Some(PieceEnd { at: value, place: PiecePlace::Array(array) });
    }
    let end = value_end(text, value)?;
    member(name, value..end);
    Some(PieceEnd { at: end, place: PiecePlace::Member })
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
            for PromptPart { kind, span, value } in parts_behind(text.as_bytes(), PieceEnd::START) {
                assert_eq!(span.start, from, "{text}");
                from = span.end;
                shown.push(match kind {
                    PartKind::Between => text[value].to_owned(),
                    PartKind::Member(key) => format!("{} = {}", &text[key], &text[value]),
                    PartKind::Element(array, index) => format!("{array:?} {index} {}", &text[value]),
                });
            }
            assert_eq!((from, shown.join("|").as_str()), (text.len(), expected));
        };
        check(
            r#"{"model":"m","tools":[],"messages":[{"a":[1]} , 2,"c"],"x":1}"#,
            r#"model = "m"|,"tools":|[]|,"messages":|Messages 0 {"a":[1]}|Messages 1 2|Messages 2 "c"|]|x = 1|}"#,
        );
        check(
            r#"{"system": [ "a" ],"input":[["b"]],"contents":{"tools":[1]},"tools":[null ]}"#,
            r#"{"system": |System 0 "a"| ]|,"input":|Input 0 ["b"]|]|contents = {"tools":[1]}|,"tools":|Tools 0 null| ]|}"#,
        );
        check(r#"{"messages":["1",2;3]}"#, r#"{"messages":|Messages 0 "1"|,2;3]}"#);
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
        // The elements of other arrays are not, nor are numbers.
        check(r#"{"input": [ 1,"~",3],"tools":[-1,"~"]}"#, r#"{"input": [ 1,"~",3]|,"tools":[-1,"~"]|}|"#);
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
