//! What must hold for any bytes at all. `cargo test` runs it on mutated transcripts, cargo-fuzz on what it thinks of.

use lms_metrics_proxy::usage::{Dialect, Flow, Form, Tap, UsageReport};

use crate::testing::Random;

/// What the first byte of the input of [`fuzz_tap`] chooses from.
pub const DIALECTS: [Dialect; 7] = [
    Dialect::Chat,
    Dialect::Completions,
    Dialect::Embeddings,
    Dialect::Responses,
    Dialect::Messages,
    Dialect::NativeChat,
    Dialect::Other,
];

/// Reads `input` as a reply: one byte chooses how, eight where it is cut, the rest is the body. Panics when a promise
/// is broken: without stripping the client's bytes are those that came; with it, usage events may be missing; and
/// nothing depends on the cuts.
pub fn fuzz_tap(input: &[u8]) {
    let Some((&[choice, ref seed @ ..], body)) = input.split_first_chunk::<9>() else { return };
    let dialect = DIALECTS[(choice >> 2) as usize % DIALECTS.len()];
    let form = if choice & 2 == 0 { Form::Events } else { Form::Body };
    let strip = choice & 1 == 1;
    let whole = run(Tap::new(dialect, form, strip, 300), body, |rest| rest);
    let mut random = Random::new(u64::from_le_bytes(*seed));
    let cut = run(Tap::new(dialect, form, strip, 300), body, |rest| 1 + random.index(rest.min(40)));
    assert!(whole == cut, "the cuts decide: {dialect:?} {form:?} strip={strip}\n{whole:?}\n{cut:?}");
    let bytes = &whole.0;
    if strip {
        check_removed(body, bytes);
    } else {
        assert!(bytes == body, "bytes for the client differ");
    }
}

/// What is missing of `body` must be pieces of it that tell usage.
fn check_removed(body: &[u8], bytes: &[u8]) {
    let mut left = bytes;
    let is_left =
        |byte: &&u8| left.split_first().filter(|(first, _)| first == byte).map(|(_, rest)| left = rest).is_some();
    let missing = body.len() - body.iter().filter(is_left).count();
    assert_eq!(missing, body.len() - bytes.len(), "what is left is in another order");
    let found =
        |bytes: &[u8]| memchr::memmem::find_iter(bytes, b"usage").count() + memchr::memchr_iter(b'\\', bytes).count();
    assert!(missing == 0 || found(bytes) < found(body), "something else is missing");
}

/// Feeds `body` to `tap` in pieces whose length `next` chooses, given how much is left.
pub fn run(mut tap: Tap, body: &[u8], mut next: impl FnMut(usize) -> usize) -> (Vec<u8>, UsageReport) {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < body.len() {
        let end = at + next(body.len() - at).clamp(1, body.len() - at);
        if tap.feed(&body[at..end], 7, &mut out) == Flow::Terminal {
            tap.release(&mut out);
        }
        at = end;
    }
    tap.end(&mut out);
    (out, tap.report())
}
