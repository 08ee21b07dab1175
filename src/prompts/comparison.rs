//! What two prompts have in common.
//!
//! A server keeps what a model has computed for the prompts that it has read. A prompt that begins as an earlier one
//! did is read from where it differs, in the order of rendering; all behind that place is read anew, also where it is
//! the same again. So what counts is the first difference.

use super::outline::{Element, ElementPart, Outline, bytes_of};

/// What became of an earlier prompt in a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// The later one begins with all of the earlier one, or is equal to it.
    Continued,
    /// The same tools in another order.
    ToolsReordered,
    /// A tool is another one, or one more, or one less.
    ToolsChanged,
    /// The instructions are others, behind the same tools.
    SystemChanged,
    /// Messages are missing: at the end, in the middle, or for a summary.
    HistoryShortened,
    /// A message is another one.
    MessageEdited,
    /// They have no message in common, nor all tools and instructions.
    Unrelated,
}

/// Two prompts beside each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// What became of the earlier one.
    pub relation: Relation,
    /// How many elements both begin with: so many elements in, in either of them, is the first difference.
    pub elements: usize,
    /// Bytes of these elements.
    pub bytes: u64,
    /// How many of them are messages.
    pub messages: usize,
    /// Bytes of the later prompt that would be shared without the first difference.
    pub bytes_otherwise: u64,
    /// Bytes of the whole later prompt.
    pub prompt_bytes: u64,
    /// Whether there is a message that both have, be it in another place.
    pub has_message_in_common: bool,
}

/// How much of an earlier prompt a later one has from the start: of several earlier ones, that with the greatest is
/// the one it goes on from. Messages are compared for themselves, for it is these that make a conversation; then the
/// bytes that are shared in the order of rendering. `None`: not more than `most`.
pub fn closeness(before: &Outline, now: &Outline, most: Option<(usize, u64)>) -> Option<(usize, u64)> {
    let messages = common_start(before.part(ElementPart::Message), now.part(ElementPart::Message));
    // Most others have other messages, and the same instructions and tools.
    if most.is_some_and(|(most, _)| messages < most) {
        return None;
    }
    let elements = common_start(before.elements(), now.elements());
    Some((messages, bytes_of(&now.elements()[..elements]))).filter(|closeness| Some(*closeness) > most)
}

/// Compares a prompt with an earlier one.
pub fn compare(before: &Outline, now: &Outline) -> Comparison {
    let elements = common_start(before.elements(), now.elements());
    let shared = &now.elements()[..elements];
    let (old, new) = (before.part(ElementPart::Message), now.part(ElementPart::Message));
    let history = common_start(old, new);
    let rest = (&old[history..], &new[history..]);
    let broken = match (before.elements().get(elements), now.elements().get(elements)) {
        (None, _) => None,
        (Some(old), new) => Some(new.map_or(old.part, |new| new.part.min(old.part))),
    };
    // Only where it may matter: it is the one thing here that takes more than a look at each element.
    let common = broken.and_then(|_| first_common(rest.0, rest.1));
    let has_message_in_common = history > 0 || common.is_some();
    let is_empty = before.elements().is_empty() || now.elements().is_empty();
    let relation = match broken {
        _ if is_empty => Relation::Unrelated,
        None => Relation::Continued,
        Some(ElementPart::Message) if is_shortened(rest.0, rest.1, common) => Relation::HistoryShortened,
        Some(ElementPart::Message) => Relation::MessageEdited,
        Some(_) if !has_message_in_common => Relation::Unrelated,
        Some(ElementPart::System) => Relation::SystemChanged,
        Some(ElementPart::Tool) if is_reordered(before, now) => Relation::ToolsReordered,
        Some(ElementPart::Tool) => Relation::ToolsChanged,
    };
    let bytes = bytes_of(shared);
    let bytes_otherwise = match (relation, broken) {
        (Relation::Unrelated, _) | (_, None) => bytes,
        (_, Some(ElementPart::Message)) => bytes + shared_behind(rest.0, rest.1, common),
        (_, Some(part)) => shared_without(part, before, now),
    };
    let messages = shared.iter().filter(|element| element.part == ElementPart::Message).count();
    let prompt_bytes = now.bytes();
    Comparison { relation, elements, bytes, messages, bytes_otherwise, prompt_bytes, has_message_in_common }
}

fn common_start(old: &[Element], new: &[Element]) -> usize {
    old.iter().zip(new).take_while(|(old, new)| old == new).count()
}

/// The first of the new messages that is among the old ones, and the first of these that it is.
fn first_common(old: &[Element], new: &[Element]) -> Option<(usize, usize)> {
    let mut places: Vec<(u64, usize)> = old.iter().enumerate().map(|(place, element)| (element.hash, place)).collect();
    places.sort_unstable();
    new.iter().enumerate().find_map(|(place, element)| {
        let alike = places.partition_point(|(hash, _)| *hash < element.hash);
        let mut alike = places[alike..].iter().take_while(|(hash, _)| *hash == element.hash);
        alike.find(|(_, other)| old[*other] == *element).map(|(_, other)| (*other, place))
    })
}

/// Whether messages are missing, of those behind the ones that both begin with.
fn is_shortened(old: &[Element], new: &[Element], common: Option<(usize, usize)>) -> bool {
    let goes_on_later = matches!(common, Some((_, 0)));
    goes_on_later || new.len() < old.len()
}

/// Bytes of what follows the first difference of two histories and is the same again.
fn shared_behind(old: &[Element], new: &[Element], common: Option<(usize, usize)>) -> u64 {
    let Some((old_place, new_place)) = common else { return 0 };
    let run = common_start(&old[old_place..], &new[new_place..]);
    // One message in the place of another: without the edit it would be the same, too.
    let edited = if (old_place, new_place) == (1, 1) { old[0].bytes.min(new[0].bytes) } else { 0 };
    u64::from(edited) + bytes_of(&new[new_place..new_place + run])
}

/// Bytes that would be shared if this part, with which the difference begins, had stayed as it was.
fn shared_without(part: ElementPart, before: &Outline, now: &Outline) -> u64 {
    let stayed = bytes_of(before.part(part)).min(bytes_of(now.part(part)));
    let begin = |outline: &Outline| outline.elements().partition_point(|element| element.part < part);
    let end = |outline: &Outline| outline.elements().partition_point(|element| element.part <= part);
    let (old, new) = (&before.elements()[end(before)..], &now.elements()[end(now)..]);
    bytes_of(&now.elements()[..begin(now)]) + stayed + bytes_of(&new[..common_start(old, new)])
}

fn is_reordered(before: &Outline, now: &Outline) -> bool {
    let sorted = |outline: &Outline| {
        let mut tools: Vec<(u64, u32)> =
            outline.part(ElementPart::Tool).iter().map(|tool| (tool.hash, tool.bytes)).collect();
        tools.sort_unstable();
        tools
    };
    sorted(before) == sorted(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompts::outline::outline_of;

    /// `expected` as `relation elements/messages bytes..bytes_otherwise`.
    #[track_caller]
    fn check(before: &str, now: &str, expected: &str) {
        let Comparison { relation, elements, bytes, messages, bytes_otherwise, prompt_bytes, .. } =
            compare(&outline_of(before), &outline_of(now));
        assert_eq!(format!("{relation:?} {elements}/{messages} {bytes}..{bytes_otherwise}"), expected);
        assert_eq!(prompt_bytes, outline_of(now).bytes());
        assert!(bytes <= bytes_otherwise && bytes_otherwise <= prompt_bytes);
    }

    #[test]
    fn a_prompt_that_begins_with_all_of_the_earlier_one_goes_on_with_it() {
        check("t1 s1 u1", "t1 s1 u1 a1 u2", "Continued 3/1 300..300");
        check("t1 s1 u1", "t1 s1 u1", "Continued 3/1 300..300");
        check("u1", "u1 a1", "Continued 1/1 100..100");
        check("s1", "s1 u1", "Continued 1/0 100..100");
        check("t1 t2", "t1 t2 s1 u1", "Continued 2/0 200..200");
    }

    #[test]
    fn the_closest_has_most_messages_then_most_bytes() {
        let now = outline_of("t1 s1 u1 a1 u2");
        let of = |before: &str, most| closeness(&outline_of(before), &now, most);
        assert_eq!(of("t1 s1 u1 a1 u3", None), Some((2, 400)));
        assert_eq!(of("t2 s1 u1 a1", None), Some((2, 0)));
        assert_eq!(of("t1 s1", None), Some((0, 200)));
        for most in [(2, 400), (2, 401), (3, 0)] {
            assert_eq!(of("t1 s1 u1 a1 u3", Some(most)), None, "{most:?}");
        }
        assert_eq!(of("t1 s1 u1 a1 u3", Some((2, 399))), Some((2, 400)));
        assert_eq!(of("t2 s1 u1 a1", Some((1, 500))), Some((2, 0)));
        assert_eq!(of("t1 s1", Some((1, 0))), None);
    }

    #[test]
    fn tools_come_before_all_else() {
        check("t1 t2 s1 u1 a1 u2", "t2 t1 s1 u1 a1 u2 a2", "ToolsReordered 0/0 0..600");
        check("t1 t2 t3 s1 u1", "t1 t3 t2 s1 u1", "ToolsReordered 1/0 100..500");
        check("t1 t2:400 s1 u1", "t1 x u1 s1 t3:300", "ToolsChanged 1/0 100..500");
        check("t1 s1 u1", "t1 t2 s1 u1 a1", "ToolsChanged 1/0 100..300");
        check("t1 t2 s1 u1", "t1 s1 u1 a1", "ToolsChanged 1/0 100..300");
        check("s1 u1", "t1 s1 u1", "ToolsChanged 0/0 0..200");
        check("t1 s1 u1", "s1 u1", "ToolsChanged 0/0 0..200");
        // Behind other instructions nothing is shared, whatever the tools do.
        check("t1 s1 u1 a1", "t2 s2 u1 a1", "ToolsChanged 0/0 0..100");
        // Twice the same tool is another thing than once.
        check("t1 t1 t2 u1", "t1 t2 t2 u1", "ToolsChanged 1/0 100..400");
    }

    #[test]
    fn other_instructions_cost_the_whole_history() {
        check("t1 s1 u1 a1 u2", "t1 s2 u1 a1 u2 a2 u3", "SystemChanged 1/0 100..500");
        check("s1:900 u1", "s2:1000 u1 a1", "SystemChanged 0/0 0..1000");
        check("s1 s2 u1", "s1 s3 u1", "SystemChanged 1/0 100..300");
        check("s1 u1", "u1 a1", "SystemChanged 0/0 0..100");
        check("s1 u1 a1", "s1 s2 u1 a1", "SystemChanged 1/0 100..300");
        // Instructions and the first message have changed, and yet it is the same conversation.
        check("s1 u1 a1 u2", "s2 u9 a1 u2 a2", "SystemChanged 0/0 0..100");
    }

    #[test]
    fn missing_messages_are_a_shorter_history() {
        check("s1 u1 a1 u2 a2", "s1 u1 a1", "HistoryShortened 3/2 300..300");
        check("s1 u1 a1", "s1", "HistoryShortened 1/0 100..100");
        // Some of the middle are left out.
        check("s1 u1 a1 u2 a2 u3", "s1 u1 u2 a2 u3 a3 u4 a4", "HistoryShortened 2/1 200..500");
        check("s1 u1 a1 u2", "s1 a1 u2 a2 u3", "HistoryShortened 1/0 100..300");
        // A summary in their place.
        check("s1 u1 a1 u2 a2 u3", "s1 xsum u3", "HistoryShortened 1/0 100..200");
        check("s1 u1 a1 u2 a2 u3", "s1 xsum a9", "HistoryShortened 1/0 100..100");
        // A person goes back, and asks something else.
        check("s1 u1 a1 u2 a2 u3", "s1 u1 a1 u9", "HistoryShortened 3/2 300..300");
    }

    #[test]
    fn another_message_is_an_edit() {
        check("s1 u1 a1 u2", "s1 u1 x:50 u2 a2 u3", "MessageEdited 2/1 200..350");
        check("s1 u1 a1:40 u2", "s1 u1 x u2", "MessageEdited 2/1 200..340");
        check("s1 u1 a1 u2", "s1 u1 a1 x", "MessageEdited 3/2 300..300");
        check("u1 a1 u2", "x a1 u2", "MessageEdited 0/0 0..300");
        // One that moves to the end with each turn.
        check("s1 u1 note", "s1 u1 a1 u2 note", "MessageEdited 2/1 200..300");
        check("s1 u1 a1 u2", "s1 x u1 a1 u2", "MessageEdited 1/0 100..400");
    }

    #[test]
    fn without_a_message_in_common_other_instructions_are_another_matter() {
        check("t1 s1 u1", "t1 s2 x", "Unrelated 1/0 100..100");
        check("t1 s1 u1", "t2 s1 x", "Unrelated 0/0 0..0");
        check("s1", "s2", "Unrelated 0/0 0..0");
        check("", "u1", "Unrelated 0/0 0..0");
        check("u1", "", "Unrelated 0/0 0..0");
        check("", "", "Unrelated 0/0 0..0");
    }

    #[test]
    fn of_several_earlier_prompts_the_one_with_most_messages_is_gone_on_from() {
        let now = outline_of("t1 s1 u1 a1 u2");
        let best = |earlier: &[&str]| {
            let outlines: Vec<Outline> = earlier.iter().map(|words| outline_of(words)).collect();
            let best = (0..outlines.len()).max_by_key(|place| closeness(&outlines[*place], &now, None));
            earlier[best.expect("there is one")].to_owned()
        };
        assert_eq!(best(&["t1 s1 u1 x", "t1 s2 u1 a1", "t1 s1 y"]), "t1 s2 u1 a1");
        assert_eq!(best(&["t1 s1 y", "t1 s2 x", "t2 s1 u9"]), "t1 s1 y");
        assert_eq!(closeness(&outline_of("t1 s9 u1 a1"), &now, None), Some((2, 100)));
    }
}
