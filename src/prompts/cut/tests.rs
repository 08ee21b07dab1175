//! Prompts of every kind that clients send, whose tokens real tokenizers have counted, and what is thought of them.

use std::iter::{Once, once};

use super::*;
use crate::testing::Random;

const WORDS: [&str; 64] = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
    "his",
    "but",
    "at",
    "are",
    "this",
    "have",
    "from",
    "or",
    "had",
    "an",
    "which",
    "you",
    "were",
    "there",
    "when",
    "their",
    "would",
    "people",
    "because",
    "between",
    "government",
    "development",
    "information",
    "understand",
    "important",
    "different",
    "question",
    "experience",
    "according",
    "necessary",
    "particular",
    "environment",
    "available",
    "performance",
    "temperature",
    "nevertheless",
    "international",
    "responsibility",
    "communication",
    "university",
    "mountain",
    "river",
    "evening",
    "letter",
    "house",
    "remember",
    "quietly",
];
const NAMES: [&str; 24] = [
    "self",
    "value",
    "index",
    "request",
    "response",
    "config",
    "result",
    "handler",
    "buffer",
    "offset",
    "parse_header",
    "maxRetries",
    "user_id",
    "fetchAll",
    "isReady",
    "node",
    "children",
    "timeout_ms",
    "HttpClient",
    "encode",
    "state",
    "next",
    "items",
    "callback",
];
const CHINESE: &str = "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会家可下而过天去能对小多然于心学么之都好看起发当没成只如事把还用第样道想作种开美总从无情己面最女但现前些所同日手又行意动方期它头经长儿回位分爱老因很给名法间斯知世什两次使身者被高已亲其进此话常与活正感";
const RUSSIAN: [&str; 24] = [
    "и",
    "в",
    "не",
    "на",
    "что",
    "быть",
    "который",
    "человек",
    "время",
    "говорить",
    "работа",
    "государство",
    "вопрос",
    "система",
    "развитие",
    "необходимо",
    "информация",
    "пользователь",
    "сообщение",
    "поэтому",
    "однако",
    "город",
    "вечером",
    "понимать",
];

/// The kinds of prompts. Of each a text of so many bytes, at least.
type Writer = fn(&mut Random, usize) -> String;
const KINDS: [(&str, Writer); 13] = [
    ("prose", prose),
    ("code with braces", braces),
    ("code with indents", indents),
    ("chinese", chinese),
    ("russian", russian),
    ("base64", base64),
    ("hex", hex),
    ("tools", tools),
    ("log", log),
    ("numbers", numbers),
    ("table of blanks", padded),
    ("diff", diff),
    ("minified", minified),
];

fn repeat(random: &mut Random, bytes: usize, mut line: impl FnMut(&mut Random) -> String) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(&line(random));
    }
    text
}

fn sentence(random: &mut Random) -> String {
    let words: Vec<&str> = (0..6 + random.below(14)).map(|_| random.pick(&WORDS)).collect();
    let mut sentence = words.join(" ");
    sentence[..1].make_ascii_uppercase();
    sentence + random.pick(&[". ", ".\n\n", "? ", ", which is why "])
}

fn prose(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, sentence)
}

fn braces(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        let mut name = || random.pick(&NAMES);
        let (a, b, c, d) = (name(), name(), name(), name());
        format!(
            "    fn {a}(&self, {b}: &str) -> Option<{c}> {{\n        if {b}.is_empty() {{\n            return None;\n        }}\n        let {d} = self.{c}.{a}({b}, {});\n        Some({d})\n    }}\n\n",
            random.below(4096)
        )
    })
}

fn indents(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        let mut name = || random.pick(&NAMES);
        let (a, b, c) = (name(), name(), name());
        format!(
            "        def {a}(self, {b}=None):\n            for {c} in self.{b}:\n                if {c} is not None:\n                    with open({c}) as {a}:\n                        yield {a}.{b}({c})\n"
        )
    })
}

fn chinese(random: &mut Random, bytes: usize) -> String {
    let signs: Vec<char> = CHINESE.chars().collect();
    repeat(random, bytes, |random| {
        let sentence: String = (0..8 + random.below(20)).map(|_| random.pick(&signs)).collect();
        sentence + random.pick(&["。", ",", "。\n"])
    })
}

fn russian(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        let words: Vec<&str> = (0..8).map(|_| random.pick(&RUSSIAN)).collect();
        words.join(" ") + ". "
    })
}

fn base64(random: &mut Random, bytes: usize) -> String {
    let signs = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    repeat(random, bytes, |random| char::from(random.pick(signs)).to_string())
}

fn hex(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| format!("{:04x} ", random.below(1 << 16)))
}

fn tools(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        let (name, about) = (random.pick(&NAMES), sentence(random).replace('\n', " "));
        format!(
            "{{\"type\":\"function\",\"function\":{{\"name\":\"{name}_{}\",\"description\":\"{about}\",\"parameters\":{{\"type\":\"object\",\"properties\":{{\"path\":{{\"type\":\"string\",\"description\":\"{about}\"}},\"limit\":{{\"type\":\"integer\",\"minimum\":1}}}},\"required\":[\"path\"],\"additionalProperties\":false}}}}}},",
            random.below(100)
        )
    })
}

fn log(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        let (name, words) = (random.pick(&NAMES), random.pick(&WORDS));
        format!(
            "2026-11-28T10:{:02}:{:02}.{:03}Z  INFO [{name}] {words} 10.0.{}.{} took {} ms\n",
            random.below(60),
            random.below(60),
            random.below(1000),
            random.below(256),
            random.below(256),
            random.below(9000)
        )
    })
}

fn numbers(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        let cells: Vec<String> = (0..8).map(|_| format!("{:.3}", random.below(1_000_000) as f64 / 997.0)).collect();
        cells.join(",") + "\n"
    })
}

fn padded(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        format!("| {:<28} | {:<40} | {:>16} |\n", random.pick(&NAMES), random.pick(&WORDS), random.below(9999))
    })
}

fn diff(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        let (a, b) = (random.pick(&NAMES), random.pick(&NAMES));
        format!(
            "@@ -{0},7 +{0},7 @@\n     let {a} = {b}.next();\n-    {a}.encode({b});\n+    {a}.encode(&{b}, {0});\n================================\n",
            random.below(2000)
        )
    })
}

fn minified(random: &mut Random, bytes: usize) -> String {
    repeat(random, bytes, |random| {
        let name = random.pick(&NAMES);
        format!(
            "function {}({}){{return {}.{name}?{}({}):null}};",
            random.pick(&["e", "t", "n", "r"]),
            random.pick(&["o", "i"]),
            random.pick(&["e", "t"]),
            random.pick(&["a", "u"]),
            random.below(99)
        )
    })
}

/// The prompts: of each kind so many, each of some 10 to 90 KB.
const EACH: usize = 8;

fn prompts() -> Vec<(&'static str, String)> {
    let mut random = Random::new(17);
    let mut prompts = Vec::new();
    for (kind, write) in KINDS {
        for _ in 0..EACH {
            let bytes = 10_000 + random.below(80_000) as usize;
            prompts.push((kind, write(&mut random, bytes)));
        }
    }
    prompts
}

/// How many tokens these have, as the tokenizers cl100k_base, o200k_base and GPT-2's count them (js-tiktoken 1.0).
#[rustfmt::skip]
const TOKENS: [[[u64; EACH]; 3]; 13] = [
    [[2153, 5028, 4845, 7560, 13703, 3992, 10310, 13177], [2150, 5015, 4840, 7542, 13688, 3990, 10297, 13151], [2219, 5215, 5035, 7866, 14235, 4161, 10688, 13657]], // prose
    [[19880, 15515, 17817, 13739, 21686, 16432, 8193, 17759], [19866, 15467, 17786, 13692, 21621, 16393, 8165, 17711], [39938, 31103, 35770, 27609, 43510, 32983, 16436, 35603]], // code with braces
    [[6653, 4784, 13132, 11455, 2717, 7123, 15390, 8932], [6655, 4763, 13003, 11379, 2705, 7074, 15310, 8875], [20857, 14983, 40788, 35489, 8416, 22173, 48044, 27798]], // code with indents
    [[8268, 5339, 26688, 12923, 13911, 16827, 5633, 6041], [7326, 4703, 23589, 11468, 12308, 14904, 5021, 5337], [14861, 9519, 47901, 23273, 24939, 30195, 10183, 10775]], // chinese
    [[1997, 5138, 15784, 7498, 2684, 15573, 5372, 8493], [875, 2281, 6915, 3252, 1175, 6813, 2360, 3765], [5867, 15599, 46903, 22323, 8092, 46147, 16057, 25687]], // russian
    [[55163, 9069, 38747, 11798, 21425, 61746, 39095, 24379], [52432, 8629, 36888, 11228, 20391, 58763, 37282, 23241], [59219, 9744, 41519, 12684, 23050, 66221, 41987, 26182]], // base64
    [[54309, 41141, 31138, 44400, 57967, 28707, 47630, 26417], [54270, 41113, 31104, 44352, 57910, 28684, 47635, 26396], [45945, 34886, 26406, 37640, 49139, 24286, 40310, 22444]], // hex
    [[12579, 16615, 11478, 3861, 12165, 11447, 15351, 13501], [12737, 16809, 11612, 3898, 12303, 11580, 15528, 13656], [13245, 17501, 12091, 4071, 12826, 12063, 16175, 14224]], // tools
    [[5696, 13594, 5919, 23637, 34506, 17254, 30141, 12463], [5704, 13614, 5928, 23682, 34533, 17277, 30164, 12490], [5464, 13035, 5693, 22681, 33100, 16573, 28930, 11987]], // log
    [[36420, 13897, 42022, 22606, 16620, 8808, 43244, 37481], [36420, 13897, 42022, 22606, 16620, 8808, 43244, 37481], [40064, 15254, 46164, 24935, 18242, 9698, 47649, 41219]], // numbers
    [[10215, 4359, 10478, 5267, 4035, 1481, 5058, 4574], [10211, 4355, 10469, 5269, 4036, 1480, 5065, 4572], [64269, 27207, 65959, 33171, 25574, 9262, 31826, 28605]], // table of blanks
    [[5143, 2631, 14343, 6727, 11441, 17059, 12064, 18643], [5261, 2715, 14771, 6907, 11764, 17499, 12379, 19140], [7493, 3876, 20984, 9797, 16684, 24883, 17576, 27256]], // diff
    [[25169, 25744, 21791, 21223, 27588, 10573, 15866, 4991], [25081, 25658, 21720, 21164, 27512, 10537, 15806, 4981], [30069, 30784, 26040, 25368, 32944, 12655, 18958, 5980]], // minified
];

/// All prompts with their text, and their tokens by one of the tokenizers.
fn counted(tokenizer: usize) -> Vec<(&'static str, String, u64)> {
    let tokens = TOKENS.iter().flat_map(|of_kind| of_kind[tokenizer]);
    prompts().into_iter().zip(tokens).map(|((kind, text), tokens)| (kind, text, tokens + 12)).collect()
}

fn size(text: &str, told_tokens: u64, context_tokens: Option<u64>) -> PromptSize {
    let bytes = text.len() as u64;
    PromptSize { bytes, new_bytes: bytes, told_tokens, context_tokens }
}

/// Whether it seems to be cut.
fn seems_cut(usual: &mut UsualDensity, text: &str, told_tokens: u64, context_tokens: Option<u64>) -> bool {
    let judgement = usual.judge(size(text, told_tokens, context_tokens), || Some((text.len(), once(text))));
    judgement.expect("it is long enough").is_cut
}

#[test]
fn no_whole_prompt_seems_to_be_cut_whatever_was_usual_before() {
    let (mut judged, mut alarms) = (0, Vec::new());
    for tokenizer in 0..3 {
        let all = counted(tokenizer);
        let mut judge = |usual: &mut UsualDensity, (kind, text, tokens): &(&'static str, String, u64)| {
            for context in [None, Some(131_072)] {
                judged += 1;
                if seems_cut(usual, text, *tokens, context) {
                    alarms.push((tokenizer, *kind, text.len() as u64 / tokens));
                }
            }
        };
        // A model that nothing is known of; one that was asked for one kind alone before; and one that was asked for all.
        for prompt in &all {
            judge(&mut UsualDensity::default(), prompt);
        }
        for of_kind in all.chunks(EACH) {
            let mut usual = UsualDensity::default();
            of_kind
                .iter()
                .cycle()
                .take(100)
                .for_each(|(_, text, tokens)| usual.learn(text.len() as f64 / *tokens as f64));
            all.iter().for_each(|prompt| judge(&mut usual.clone(), prompt));
        }
        let (mut usual, mut random) = (UsualDensity::default(), Random::new(3));
        for _ in 0..2000 {
            judge(&mut usual, &all[random.index(all.len())]);
        }
    }
    assert_eq!((judged, alarms), (20_736, vec![]));
}

/// Of how many prompts that were cut to 4096 tokens it shows, and of how many not: where more than half is left, and less.
fn found(tokenizer: usize, context: Option<u64>) -> [[usize; 2]; 2] {
    let all = counted(tokenizer);
    let mut found = [[0; 2]; 2];
    for of_kind in all.chunks(EACH) {
        let mut usual = UsualDensity::default();
        of_kind.iter().cycle().take(100).for_each(|(_, text, tokens)| usual.learn(text.len() as f64 / *tokens as f64));
        for (_, text, tokens) in of_kind.iter().filter(|(.., tokens)| *tokens > 4096) {
            let is_found = seems_cut(&mut usual.clone(), text, 4096, context);
            found[usize::from(*tokens > 2 * 4096)][usize::from(!is_found)] += 1;
        }
    }
    found
}

#[test]
fn most_prompts_of_which_less_than_half_is_left_are_found() {
    for context in [None, Some(4096)] {
        let found = [0, 1, 2].map(|tokenizer| found(tokenizer, context));
        assert_eq!(found, [[[4, 17], [63, 11]], [[7, 15], [60, 9]], [[1, 9], [67, 24]]]);
    }
}

#[test]
fn what_is_learned_from_is_not_what_seems_to_be_cut() {
    let mut usual = UsualDensity::default();
    let text = prose(&mut Random::new(1), 100_000);
    // From the first request on, and whatever comes.
    for _ in 0..100 {
        assert!(seems_cut(&mut usual, &text, 4096, None));
    }
    assert_eq!((usual.middle(), usual.high()), (COMMON, COMMON_HIGH));
    for _ in 0..20 {
        assert!(!seems_cut(&mut usual, &text, 16_000, None));
    }
    let expected = usual.judge(size(&text, 4096, None), || None::<(usize, Once<&str>)>).expect("it is long enough");
    assert!(expected.is_cut && expected.expected_tokens.abs_diff(16_000) < 1600, "{expected:?}");
}

#[test]
fn what_may_have_another_reason_is_unknown_or_no_cut() {
    let mut usual = UsualDensity::default();
    let judged = |usual: &mut UsualDensity, bytes, new_bytes, told_tokens, text: &str| {
        let size = PromptSize { bytes, new_bytes, told_tokens, context_tokens: None };
        usual.judge(size, || Some((text.len(), once(text)))).map(|judgement| judgement.is_cut)
    };
    let text = prose(&mut Random::new(1), 100_000);
    assert_eq!(judged(&mut usual, 4000, 4000, 10, &text), None, "short");
    assert_eq!(judged(&mut usual, 100_000, 100_000, 0, &text), None, "no count");
    assert_eq!(judged(&mut usual, 100_000, 8000, 2100, &text), None, "a count of what was read anew");
    assert_eq!(judged(&mut usual, 100_000, 8000, 4096, &text), Some(true));
    let blanks = format!("{}|\n", " ".repeat(120)).repeat(900);
    assert_eq!(judged(&mut usual, 109_800, 109_800, 2800, &blanks), Some(false), "lines of blanks");
    assert_eq!(judged(&mut usual, 100_000, 100_000, 2800, &"=".repeat(100_000)), Some(false));
    // The same count is none of chance where nothing larger fits.
    let at = |told_tokens, context_tokens| {
        let size = PromptSize { bytes: 36_000, new_bytes: 36_000, told_tokens, context_tokens };
        UsualDensity::default()
            .judge(size, || Some((text.len(), once(text.as_str()))))
            .map(|judgement| judgement.is_cut)
    };
    assert_eq!((at(4300, None), at(4096, None)), (Some(false), Some(true)));
    assert_eq!((at(4300, Some(8192)), at(4300, Some(4500))), (Some(false), Some(true)));
}
