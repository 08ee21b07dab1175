//! A prompt as a list of its elements: enough to tell what two prompts have in common, without a word of either.
//!
//! Elements stand in the order in which templates render them: tools, then the system text, then messages. A cache of
//! what a model has read goes on for as long as two prompts are the same in that order, whatever the order in the body.
//!
//! | in the body | part |
//! |---|---|
//! | an element of `tools` | tool |
//! | `system`, as a text or each of its blocks; `instructions`; `system_prompt` | system |
//! | a message of the role `system` or `developer`, before all others | system |
//! | any other element of `messages`, `input` or `contents`; `input` as a text; `prompt` | message |
//!
//! What an element is depends on what stands before it alone. So a body that begins as another one has the same
//! elements there, and only the rest has to be read: see [`elements_of`].

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;

use super::form::{SelfTold, each_form_piece, shared_bytes};
use crate::packs::varint::{Bytes, push};
use crate::usage::members::plain_key;
use crate::usage::pieces::{PartKind, PieceEnd, PromptArray, PromptPart, parts_behind};

/// What an element of a prompt is, in the order of rendering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementPart {
    /// The definition of a tool.
    Tool,
    /// Instructions that stand before the first message.
    System,
    /// A message, or what else stands among them.
    Message,
}

/// Who says an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementRole {
    /// `system`, or instructions outside of the messages.
    System,
    /// `developer`.
    Developer,
    /// `user`, or a prompt that is nothing but text.
    User,
    /// `assistant`, and what the model made beside its messages: calls, reasoning.
    Assistant,
    /// A tool: its definition, or what it answered.
    Tool,
    /// Anybody else, or nobody.
    Other,
}

impl ElementPart {
    const ALL: [ElementPart; 3] = [ElementPart::Tool, ElementPart::System, ElementPart::Message];
}

impl ElementRole {
    const ALL: [ElementRole; 6] = [
        ElementRole::System,
        ElementRole::Developer,
        ElementRole::User,
        ElementRole::Assistant,
        ElementRole::Tool,
        ElementRole::Other,
    ];
}

/// One element of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    /// What it is.
    pub part: ElementPart,
    /// Who says it.
    pub role: ElementRole,
    /// Bytes of its form.
    pub bytes: u32,
    /// Keyed hash of its form.
    pub hash: u64,
}

/// An element, and where its value stands in the text that it was found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedElement {
    /// The element.
    pub element: Element,
    /// Bytes of the text.
    pub value: Range<usize>,
}

/// The elements of a prompt, in the order of rendering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    elements: Vec<Element>,
    /// So many are tools,
    tools: usize,
    /// and so many of the others instructions. Looked for once: each prompt is compared with a hundred.
    instructions: usize,
}

/// Elements of one array that are told apart. An agent's conversation has some hundreds; a list of texts to embed may
/// have more.
pub(super) const ELEMENTS_MAX: u32 = 4096;
const ELEMENTS_LAST: u32 = ELEMENTS_MAX - 1;

/// Bytes of a hash in a blob.
const HASH_BYTES: usize = 8;
/// In the first byte of an element the role stands above the part.
const ROLE_SHIFT: u32 = 2;
const PART_BITS: u8 = (1 << ROLE_SHIFT) - 1;

/// The elements in a text, in the order of the body. `from`: where it begins in the body, [`PieceEnd::START`] for all of
/// it, else an end of a piece; then it goes on up to another one. `last`: the last element before it.
///
/// Of an array that has more than [`ELEMENTS_MAX`], the rest is one element in each text.
pub fn elements_of(
    text: &[u8],
    from: PieceEnd,
    last: Option<Element>,
    hashes: &impl BuildHasher,
) -> Vec<PlacedElement> {
    let (mut found, mut rest) = (Vec::new(), None);
    let mut find = |(origin, value): (Origin, Range<usize>)| {
        let before = found.last().map(|found: &PlacedElement| found.element).or(last);
        found.push(PlacedElement { element: element(&text[value.clone()], origin, before, hashes), value });
    };
    for PromptPart { kind, value, .. } in parts_behind(text, from.in_front()) {
        let origin = match kind {
            PartKind::Between => None,
            PartKind::Member(key) => part_of_member(&plain_key(&text[key]), text[value.start]).map(Origin::Member),
            PartKind::Element(array, number) => Some(Origin::Element(array, number.min(ELEMENTS_LAST))),
        };
        if let Some(of_rest @ Origin::Element(_, ELEMENTS_LAST)) = origin {
            let begin = rest.map_or(value.start, |(_, rest): (Origin, Range<usize>)| rest.start);
            rest = Some((of_rest, begin..value.end));
        } else {
            rest.take().into_iter().chain(origin.map(|origin| (origin, value))).for_each(&mut find);
        }
    }
    rest.into_iter().for_each(find);
    found
}

/// Where an element was found.
#[derive(Clone, Copy)]
enum Origin {
    /// It is a member of the body, and this part of it.
    Member(ElementPart),
    /// It is the one of this number in an array, or the first of those that are left of it.
    Element(PromptArray, u32),
}

/// The element that a value is, behind another one.
fn element(value: &[u8], origin: Origin, before: Option<Element>, hashes: &impl BuildHasher) -> Element {
    let (mut hasher, mut bytes) = (hashes.build_hasher(), 0_usize);
    let told = each_form_piece(value, |piece| {
        hasher.write(piece);
        bytes += piece.len();
    });
    let role = match (origin, value.first()) {
        (Origin::Member(_), _) | (_, Some(b'"')) => ElementRole::User,
        _ => role_of(told),
    };
    let is_instruction = matches!(role, ElementRole::System | ElementRole::Developer);
    let part = match origin {
        Origin::Member(part) => part,
        Origin::Element(PromptArray::Tools, _) => ElementPart::Tool,
        Origin::Element(PromptArray::System, _) => ElementPart::System,
        // Of the same array: that is what stands before any but the first.
        Origin::Element(_, number) => match before.filter(|_| number > 0) {
            Some(Element { part: ElementPart::System, .. }) | None if is_instruction => ElementPart::System,
            Some(_) | None => ElementPart::Message,
        },
    };
    let role = match part {
        ElementPart::Tool => ElementRole::Tool,
        ElementPart::System if !is_instruction => ElementRole::System,
        ElementPart::System | ElementPart::Message => role,
    };
    Element { part, role, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), hash: hasher.finish() }
}

/// The part that a member is with this key, whose value begins with this byte.
fn part_of_member(key: &[u8], first: u8) -> Option<ElementPart> {
    match (key, first) {
        (b"system" | b"instructions" | b"system_prompt", b'"') => Some(ElementPart::System),
        // Of several prompts, or of tokens, too, though nothing is told of what is in it.
        (b"input", b'"') | (b"prompt", b'"' | b'[') => Some(ElementPart::Message),
        _ => None,
    }
}

/// Who says what tells this of itself.
fn role_of(SelfTold { role, kind }: SelfTold) -> ElementRole {
    match (role, kind.unwrap_or_default()) {
        (Some(b"system"), _) => ElementRole::System,
        (Some(b"developer"), _) => ElementRole::Developer,
        (Some(b"user"), _) => ElementRole::User,
        (Some(b"assistant" | b"model"), _) => ElementRole::Assistant,
        (Some(b"tool" | b"function"), _) => ElementRole::Tool,
        (Some(_), _) => ElementRole::Other,
        // Items of Responses, and what LM Studio's own API takes for a user's message.
        (None, kind) if kind.ends_with(b"_call_output") => ElementRole::Tool,
        (None, kind) if kind.ends_with(b"_call") || kind == b"reasoning" => ElementRole::Assistant,
        (None, b"text" | b"message" | b"image") => ElementRole::User,
        (None, _) => ElementRole::Other,
    }
}

/// The elements of a body, in the order of rendering, for who asks where they stand. They have no hashes.
pub fn each_placed(body: &[u8]) -> Vec<PlacedElement> {
    placed_elements(body, &Unhashed)
}

/// The elements of a body and where they stand, in the order of rendering.
pub(super) fn placed_elements(body: &[u8], hashes: &impl BuildHasher) -> Vec<PlacedElement> {
    let mut elements = elements_of(body, PieceEnd::START, None, hashes);
    elements.sort_by_key(|placed| placed.element.part);
    elements
}

/// Where the value stands of the element of this number, in the order of rendering, that a body has.
pub fn value_of(body: &[u8], number: usize) -> Option<Range<usize>> {
    each_placed(body).into_iter().nth(number).map(|placed| placed.value)
}

/// How many bytes two bodies share of the elements of this number, which are no longer the same.
pub fn shared_within(before: &[u8], now: &[u8], number: usize) -> u64 {
    let values = value_of(before, number).zip(value_of(now, number));
    values.map_or(0, |(old, new)| shared_bytes(&before[old], &now[new]) as u64)
}

/// For those who ask where an element stands, not which it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unhashed;

impl BuildHasher for Unhashed {
    type Hasher = Unhashed;

    fn build_hasher(&self) -> Unhashed {
        Unhashed
    }
}

impl Hasher for Unhashed {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        0
    }
}

/// Every bit of a number spread over all of them (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub(super) fn mixed(number: u64) -> u64 {
    let number = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ number >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ number >> 31
}

impl Outline {
    /// Of a request's body.
    pub fn of(body: &[u8], hashes: &impl BuildHasher) -> Outline {
        Outline::new(elements_of(body, PieceEnd::START, None, hashes).into_iter().map(|placed| placed.element))
    }

    /// Of elements in the order of the body.
    pub fn new(elements: impl IntoIterator<Item = Element>) -> Outline {
        let mut elements = Vec::from_iter(elements);
        // Stable: within a part, the order of the body counts.
        elements.sort_by_key(|element| element.part);
        let tools = elements.partition_point(|element| element.part < ElementPart::System);
        let instructions = elements[tools..].partition_point(|element| element.part < ElementPart::Message);
        Outline { elements, tools, instructions }
    }

    /// All of them.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// Those of one part.
    pub fn part(&self, part: ElementPart) -> &[Element] {
        let (tools, others) = self.elements.split_at(self.tools);
        let (instructions, messages) = others.split_at(self.instructions);
        match part {
            ElementPart::Tool => tools,
            ElementPart::System => instructions,
            ElementPart::Message => messages,
        }
    }

    /// Bytes of the whole prompt.
    pub fn bytes(&self) -> u64 {
        bytes_of(&self.elements)
    }

    /// As bytes for the database: for each element a byte for part and role, the length of its form as a number of as
    /// few bytes as it needs, and the hash.
    pub fn encode(&self) -> Vec<u8> {
        let mut blob = Vec::with_capacity(self.elements.len() * (HASH_BYTES + 4));
        for element in &self.elements {
            blob.push(element.part as u8 | (element.role as u8) << ROLE_SHIFT);
            push(&mut blob, u64::from(element.bytes));
            blob.extend_from_slice(&element.hash.to_le_bytes());
        }
        blob
    }

    /// What [`Outline::encode`] wrote; `None` of anything else.
    pub fn decode(blob: &[u8]) -> Option<Outline> {
        let mut bytes = Bytes::new(blob);
        let mut elements = Vec::new();
        while !bytes.is_empty() {
            let [kind] = bytes.array()?;
            elements.push(Element {
                part: *ElementPart::ALL.get(usize::from(kind & PART_BITS))?,
                role: *ElementRole::ALL.get(usize::from(kind >> ROLE_SHIFT))?,
                bytes: u32::try_from(bytes.number()?).ok()?,
                hash: u64::from_le_bytes(bytes.array()?),
            });
        }
        Some(Outline::new(elements))
    }
}

/// Bytes of all these forms.
pub(super) fn bytes_of(elements: &[Element]) -> u64 {
    elements.iter().map(|element| u64::from(element.bytes)).sum()
}

/// A prompt as a word for each element: `t…` is a tool, `s…` instructions, anything else a message. Each has a
/// hundred bytes, or as many as stand behind a colon.
#[cfg(test)]
pub(super) fn outline_of(words: &str) -> Outline {
    Outline::new(words.split_whitespace().map(|word| {
        let (name, bytes) = word.split_once(':').unwrap_or((word, "100"));
        let part = match name.as_bytes()[0] {
            b't' => ElementPart::Tool,
            b's' => ElementPart::System,
            _ => ElementPart::Message,
        };
        let hash = name.bytes().fold(7, |hash, byte| hash << 8 | u64::from(byte));
        Element { part, role: ElementRole::Other, bytes: bytes.parse().expect("a number"), hash }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn random_element(random: &mut Random) -> Element {
        Element {
            part: ElementPart::ALL[random.index(3)],
            role: ElementRole::ALL[random.index(6)],
            bytes: (random.below(u64::from(u32::MAX)) >> random.below(32)) as u32,
            hash: random.below(u64::MAX),
        }
    }

    #[test]
    fn parts_and_roles_stand_in_their_places() {
        for (place, part) in ElementPart::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, place);
        }
        for (place, role) in ElementRole::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, place);
        }
    }

    #[test]
    fn tools_stand_before_the_system_text_and_messages_behind_it_each_in_its_order() {
        let element = |part, hash| Element { part, role: ElementRole::Other, bytes: 1, hash };
        use ElementPart::{Message, System, Tool};
        let body = [(Message, 1), (System, 2), (Tool, 3), (Message, 4), (Tool, 5), (System, 6)];
        let outline = Outline::new(body.map(|(part, hash)| element(part, hash)));
        let hashes = |elements: &[Element]| elements.iter().map(|element| element.hash).collect::<Vec<_>>();
        assert_eq!(hashes(outline.elements()), [3, 5, 2, 6, 1, 4]);
        assert_eq!(hashes(outline.part(Tool)), [3, 5]);
        assert_eq!(hashes(outline.part(System)), [2, 6]);
        assert_eq!(hashes(outline.part(Message)), [1, 4]);
        assert_eq!(outline.bytes(), 6);
        assert!(Outline::default().part(System).is_empty());
    }

    /// Collects what it is given, and tells a number of it.
    #[derive(Clone, Default)]
    struct Sum(u64);

    impl BuildHasher for Sum {
        type Hasher = Sum;

        fn build_hasher(&self) -> Sum {
            Sum(7)
        }
    }

    impl Hasher for Sum {
        fn write(&mut self, bytes: &[u8]) {
            self.0 = bytes.iter().fold(self.0, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }

    /// The elements in the order of rendering, as `part role value`.
    #[track_caller]
    fn check(body: &str, expected: &str) {
        let mut found = elements_of(body.as_bytes(), PieceEnd::START, None, &Sum::default());
        found.sort_by_key(|placed| placed.element.part);
        let mut shown = Vec::new();
        for (number, PlacedElement { element, value }) in found.iter().enumerate() {
            let form = super::super::form::form(&body.as_bytes()[value.clone()]);
            let mut hash = Sum::default().build_hasher();
            hash.write(&form);
            assert_eq!((element.bytes as usize, element.hash), (form.len(), hash.finish()));
            assert_eq!(value_of(body.as_bytes(), number).as_ref(), Some(value));
            shown.push(format!("{:?} {:?} {}", element.part, element.role, &body[value.clone()]));
        }
        assert_eq!(shown.join("|"), expected);
        assert_eq!(value_of(body.as_bytes(), found.len()), None);
        let elements = found.into_iter().map(|placed| placed.element);
        assert_eq!(Outline::of(body.as_bytes(), &Sum::default()), Outline::new(elements));
    }

    #[test]
    fn a_chat_has_its_tools_its_instructions_and_its_messages() {
        check(
            r#"{"model":"m","messages":[{"role":"system"},{"role":"developer"},{"role":"user"},{"role":"assistant"},
                {"role":"tool"},{"role":"system"},{"role":"critic"},{}],"tools":[{"type":"function"}, {"name":"b"}]}"#,
            r#"Tool Tool {"type":"function"}|Tool Tool {"name":"b"}|System System {"role":"system"}|System Developer {"role":"developer"}|Message User {"role":"user"}|Message Assistant {"role":"assistant"}|Message Tool {"role":"tool"}|Message System {"role":"system"}|Message Other {"role":"critic"}|Message Other {}"#,
        );
    }

    #[test]
    fn messages_of_anthropic_have_their_instructions_beside_them() {
        check(
            r#"{"messages":[{"role":"user"}],"system":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#,
            r#"System System {"type":"text","text":"a"}|System System {"type":"text","text":"b"}|Message User {"role":"user"}"#,
        );
        check(r#"{"system": "a" }"#, r#"System System "a""#);
        let hashes = Sum::default();
        let outline = |body: &str| Outline::of(body.as_bytes(), &hashes);
        let blocks = r#"{"system":[{"type":"text","text":"a","cache_control":{}}],"messages":["b"]}"#;
        assert_eq!(outline(blocks), outline(r#"{"messages":[ "b"],"system": "a"}"#), "a text is a block");
    }

    #[test]
    fn responses_and_lm_studio_s_own_api_have_items() {
        check(
            r#"{"instructions":"a","input":[{"role":"developer"},{"role":"user"},{"type":"reasoning"},
                {"type":"function_call"},{"type":"function_call_output"},{"type":"item_reference"}]}"#,
            r#"System System "a"|System Developer {"role":"developer"}|Message User {"role":"user"}|Message Assistant {"type":"reasoning"}|Message Assistant {"type":"function_call"}|Message Tool {"type":"function_call_output"}|Message Other {"type":"item_reference"}"#,
        );
        check(r#"{"input":"a","instructions":null}"#, r#"Message User "a""#);
        check(
            r#"{"system_prompt":"a","input":[{"type":"text","content":"b"},{"type":"image"}]}"#,
            r#"System System "a"|Message User {"type":"text","content":"b"}|Message User {"type":"image"}"#,
        );
        check(r#"{"contents":[{"role":"model"},"b"]}"#, r#"Message Assistant {"role":"model"}|Message User "b""#);
    }

    #[test]
    fn a_prompt_is_one_message() {
        check(r#"{"prompt":"a"}"#, r#"Message User "a""#);
        check(r#"{"prompt":["a","b"]}"#, r#"Message User ["a","b"]"#);
        check(r#"{"prompt":[1,2]}"#, "Message User [1,2]");
        check(
            r#"{"pr\u006fmpt":"a","messages":{},"tools":null,"system":{},"instructions":["a"]}"#,
            r#"Message User "a""#,
        );
        check(r#"{"messages":[],"x":[{"role":"user"}]}"#, "");
        check("hello", "");
        check("", "");
        check(r#"{"messages":[{"role":"user"},{"role":"us"#, r#"Message User {"role":"user"}"#);
    }

    #[test]
    fn of_many_elements_the_last_ones_are_one() {
        let body = |count: usize| format!(r#"{{"input":[{}"z"],"prompt":"p"}}"#, r#""a", "#.repeat(count - 1));
        let elements = |count| Outline::of(body(count).as_bytes(), &Sum::default()).elements().to_vec();
        let (whole, more) = (elements(4096), elements(5000));
        assert_eq!((whole.len(), more.len()), (4097, 4097));
        assert_eq!(whole[..4095], more[..4095]);
        assert_eq!(whole[4096], more[4096]);
        // The rest, with commas between.
        assert_eq!((whole[4095].bytes, more[4095].bytes), (3, 905 * 4 - 1));
    }

    #[test]
    fn of_an_element_that_changed_the_beginning_is_shared() {
        let body = |time: &str| format!(r#"{{"messages":[{{"role":"user"}}],"system":"It is {time}."}}"#);
        assert_eq!(shared_within(body("10:31").as_bytes(), body("10:32").as_bytes(), 0), 11);
        assert_eq!(shared_within(body("10:31").as_bytes(), body("10:31").as_bytes(), 1), 15);
        assert_eq!(shared_within(body("10:31").as_bytes(), b"{}", 0), 0);
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut random = Random::new(3);
        for length in 0..60 {
            let outline = Outline::new((0..length).map(|_| random_element(&mut random)));
            let blob = outline.encode();
            assert_eq!(Outline::decode(&blob).as_ref(), Some(&outline));
            // A message of some kilobytes takes eleven bytes.
            assert!(blob.len() <= length * 14);
        }
    }

    #[test]
    fn what_is_no_outline_is_none() {
        let outline = Outline::new([Element {
            part: ElementPart::Message,
            role: ElementRole::User,
            bytes: 300,
            hash: 0x0102_0304_0506_0708,
        }]);
        let blob = outline.encode();
        assert_eq!(blob, [0b1010, 0xAC, 0x02, 8, 7, 6, 5, 4, 3, 2, 1], "the form of the database stays");
        for end in 1..blob.len() {
            assert_eq!(Outline::decode(&blob[..end]), None, "{end}");
        }
        let with_kind = |kind: u8| [&[kind][..], &blob[1..]].concat();
        assert_eq!(Outline::decode(&with_kind(3)), None, "no part");
        assert_eq!(Outline::decode(&with_kind(6 << ROLE_SHIFT)), None, "no role");
        let too_long = [&[0][..], &[0xFF, 0xFF, 0xFF, 0xFF, 0x1F], &[0; 8]].concat();
        assert_eq!(Outline::decode(&too_long), None, "more bytes than there can be");
    }
}
