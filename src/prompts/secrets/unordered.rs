//! Secrets that are known by their looks: long, and in no order.

use super::{is_word, length, mixes_cases, next_word};

/// Shortest unordered run of characters that is taken for a key: one of 128 bits in hexadecimal digits. Shorter ones are
/// names of revisions, tool calls and messages.
const RUN_BYTES_MIN: usize = 32;

/// Whether a run is base64. Of 100 neighbours there 45 change on the average, in the longest names of functions, files
/// and models up to 25 (in the 10,000 longest runs of the crates that this program is made of).
pub(super) fn is_unordered_run(run: &[u8]) -> bool {
    if run.len() < RUN_BYTES_MIN {
        return false;
    }
    let (mut letters, mut words, mut changed) = (0, 0, 0);
    let mut at = 0;
    while let Some(start) = next_word(run, at) {
        if let Some(behind) = behind_uuid(run, start) {
            at = behind;
            continue;
        }
        at = start + length(&run[start..], |byte| byte.is_ascii_alphanumeric());
        let word = &run[start..at];
        // The hash in an address is hidden alone.
        if !is_hash(word) {
            (letters, words, changed) = (letters + word.len(), words + 1, changed + changes(word));
        }
    }
    mixes_cases(run) && letters >= RUN_BYTES_MIN && letters >= 4 * words && changed * 100 >= (letters - words) * 26
}

/// Where a UUID ends that begins at `start`: eight digits, three times four, twelve.
fn behind_uuid(run: &[u8], start: usize) -> Option<usize> {
    let uuid = run.get(start..start + 36)?;
    let fits = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    (uuid.iter().enumerate().all(fits) && !run.get(start + 36).is_some_and(|byte| is_word(*byte))).then_some(start + 36)
}

/// Whether a word is a long number in hexadecimal digits.
fn is_hash(word: &[u8]) -> bool {
    word.len() >= RUN_BYTES_MIN && mixes_digits(word) && word.iter().all(u8::is_ascii_hexdigit)
}

/// Whether a word is one, or letters and digits in no order.
pub(super) fn is_unordered_word(word: &[u8]) -> bool {
    is_hash(word) || word.len() >= RUN_BYTES_MIN && mixes_digits(word) && changes(word) * 100 >= word.len() * 22
}

fn mixes_digits(word: &[u8]) -> bool {
    let digits = word.iter().filter(|byte| byte.is_ascii_digit()).count();
    digits >= 4 && word.len() - digits >= 4
}

/// Where a word changes between small letters, capitals and digits, but for the capital that a word begins with: keys do
/// so all the time, names now and then.
fn changes(word: &[u8]) -> usize {
    let class = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let is_change = |pair: &&[u8]| {
        class(pair[0]) != class(pair[1]) && !(pair[0].is_ascii_uppercase() && pair[1].is_ascii_lowercase())
    };
    word.windows(2).filter(is_change).count()
}
