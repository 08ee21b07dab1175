//! A prompt as a list of its elements: enough to tell what two prompts have in common, without a word of either.
//!
//! Elements stand in the order in which templates render them: tools, then the system text, then messages. A cache of
//! what a model has read goes on for as long as two prompts are the same in that order, whatever the order in the body.

use crate::packs::varint::{Bytes, push};

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

/// The elements of a prompt, in the order of rendering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    elements: Vec<Element>,
}

/// Bytes of a hash in a blob.
const HASH_BYTES: usize = 8;
/// In the first byte of an element the role stands above the part.
const ROLE_SHIFT: u32 = 2;
const PART_BITS: u8 = (1 << ROLE_SHIFT) - 1;

impl Outline {
    /// Of elements in the order of the body.
    pub fn new(elements: impl IntoIterator<Item = Element>) -> Outline {
        let mut elements = Vec::from_iter(elements);
        // Stable: within a part, the order of the body counts.
        elements.sort_by_key(|element| element.part);
        Outline { elements }
    }

    /// All of them.
    pub fn elements(&self) -> &[Element] {
        &self.elements
    }

    /// Those of one part.
    pub fn part(&self, part: ElementPart) -> &[Element] {
        let begin = self.elements.partition_point(|element| element.part < part);
        let end = self.elements.partition_point(|element| element.part <= part);
        &self.elements[begin..end]
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
