//! The rules of cutting a prompt into pieces. `cargo test` runs them on prompts that it makes, cargo-fuzz on what it
//! thinks of.

use lms_metrics_proxy::limits::{PIECE_BYTES_MIN, PIECE_PART_MIN};
use lms_metrics_proxy::usage::pieces::{PieceEnd, pieces_behind};

/// Whatever the bytes are, their pieces are all of them, and none but the last is short; from any of them on, the others
/// are the same, and so are those that another text shares which differs somewhere behind.
pub fn fuzz_pieces(data: &[u8]) {
    // Where the other text differs, and the text itself.
    let (place, text) = data.split_at(data.len().min(2));
    let ends: Vec<PieceEnd> = pieces_behind(text, PieceEnd::START).collect();
    assert_eq!(ends.last().map_or(0, |end| end.at), text.len());
    let mut from = 0;
    for (number, end) in ends.iter().enumerate() {
        assert!(end.at > from, "an empty piece");
        assert!(end.at == text.len() || end.at - from >= PIECE_BYTES_MIN.max(from / PIECE_PART_MIN), "a short piece");
        let rest: Vec<PieceEnd> = pieces_behind(text, *end).collect();
        assert_eq!(rest, ends[number + 1..], "the cut depends on where it begins");
        from = end.at;
    }
    let same = place.iter().fold(0, |place, byte| place << 8 | usize::from(*byte)) % text.len().max(1);
    let mut other = text.to_vec();
    if let Some(byte) = other.get_mut(same) {
        *byte ^= 1;
    }
    let shared = |ends: &[PieceEnd]| ends.iter().copied().take_while(|end| end.is_within(same)).collect::<Vec<_>>();
    let others: Vec<PieceEnd> = pieces_behind(&other, PieceEnd::START).collect();
    assert_eq!(shared(&others), shared(&ends), "the cut depends on what stands behind it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::BODIES;
    use crate::testing::Random;

    const ARRAYS: [&str; 5] = ["messages", "input", "contents", "system", "tools"];

    /// Where the pieces of a well-formed object end, told by serde_json's values: slow, and by another way.
    fn expected(members: &[(&str, serde_json::Value)]) -> (String, Vec<usize>) {
        let (mut text, mut places) = (String::from("{"), Vec::new());
        for (number, (key, value)) in members.iter().enumerate() {
            text.push_str(if number > 0 { "," } else { "" });
            text.push_str(&format!("\"{key}\":"));
            match value.as_array().filter(|_| ARRAYS.contains(key)) {
                Some(elements) if elements.first().is_some_and(serde_json::Value::is_number) => {
                    places.push(text.len());
                    text.push_str(&value.to_string());
                }
                Some(elements) => {
                    places.push(text.len());
                    text.push('[');
                    for (number, element) in elements.iter().enumerate() {
                        text.push_str(if number > 0 { "," } else { "" });
                        text.push_str(&element.to_string());
                        places.push(text.len());
                    }
                    text.push(']');
                }
                None => text.push_str(&value.to_string()),
            }
            places.push(text.len());
        }
        text.push('}');
        let (mut ends, mut from) = (Vec::new(), 0);
        for place in places {
            // An empty array has no place in it.
            if place - from >= PIECE_BYTES_MIN.max(from / PIECE_PART_MIN) {
                ends.push(place);
                from = place;
            }
        }
        ends.push(text.len());
        (text, ends)
    }

    fn value(random: &mut Random, depth: usize) -> serde_json::Value {
        match random.below(if depth == 0 { 4 } else { 7 }) {
            0 => serde_json::json!(random.below(1_000_000)),
            1 => serde_json::json!("é\"[{}],😀".repeat(random.index(60))),
            2 => serde_json::Value::Null,
            3 => serde_json::json!("word ".repeat(random.index(400))),
            4 => serde_json::json!({ "messages": value(random, depth - 1), "b": value(random, depth - 1) }),
            _ => (0..random.below(9)).map(|_| value(random, depth - 1)).collect::<Vec<_>>().into(),
        }
    }

    fn members(random: &mut Random) -> Vec<(&'static str, serde_json::Value)> {
        const KEYS: [&str; 8] = ["messages", "input", "contents", "system", "tools", "model", "prompt", "stop"];
        (0..1 + random.below(6)).map(|_| (KEYS[random.index(8)], value(random, 3))).collect()
    }

    #[test]
    fn pieces_are_those_that_the_values_tell() {
        let mut random = Random::new(0x9E37_79B9_7F4A_7C15);
        let mut several = 0;
        for _ in 0..2_000 {
            let (text, ends) = expected(&members(&mut random));
            let found: Vec<usize> = pieces_behind(text.as_bytes(), PieceEnd::START).map(|end| end.at).collect();
            assert_eq!(found, ends, "{text}");
            several += usize::from(ends.len() > 3);
        }
        assert!(several > 500, "enough of them have pieces: {several}");
    }

    #[test]
    fn random_and_broken_prompts_keep_the_rules() {
        let mut random = Random::new(7);
        BODIES.iter().for_each(|body| fuzz_pieces(body.as_bytes()));
        for _ in 0..2_000 {
            let (text, _) = expected(&members(&mut random));
            let place = random.below(1 << 16).to_le_bytes();
            let mut bytes = [&place[..2], text.as_bytes()].concat();
            for _ in 0..random.below(3) {
                let at = random.index(bytes.len());
                bytes[at] = b"{}[],:\"\\ 07ae\xff"[random.index(14)];
            }
            bytes.truncate(bytes.len() - random.index(2) * random.index(bytes.len()));
            fuzz_pieces(&bytes);
        }
    }
}
