//! The prompt as it is stored: the request's body as sent, without its payloads, within a bound.
//!
//! Payloads are what nobody reads back as text: images and audio in base64, vectors. A mark of kind and size stands
//! in their place. The body need not be well-formed: this looks for strings, keys and arrays of numbers and lets
//! everything else pass. One pass, no look back beyond a media type, no memory but what is not as it was sent.

use std::borrow::Cow;

use super::excerpt::Excerpt;
use super::members::BOM;
use super::pieces::{PartWalk, PieceEnd, is_short};
use super::request_facts::RequestOutline;
use super::text::lossy;

/// Shortest string under one of [`PAYLOAD_KEYS`] that is taken for base64: shorter ones are words.
const NAMED_BYTES_MIN: usize = 32;
/// Shortest string under any key that is taken for base64, where it begins like a known file.
const SNIFFED_BYTES_MIN: usize = 64;
/// Shortest list of numbers that is taken for a vector. Embeddings have hundreds; sampling options a handful.
const VECTOR_NUMBERS_MIN: usize = 32;
/// Longest media type with its parameters looked for in front of `;base64,`. RFC 6838 §4.2 allows 127 for each name.
const MEDIA_TYPE_BYTES_MAX: usize = 256;

/// Members whose strings are base64: OpenAI `input_audio.data` and `file_data`, Anthropic `source.data`, Ollama
/// `images`, llama.cpp `image_data[].data`, and what replies are sent back with.
const PAYLOAD_KEYS: [&[u8]; 8] =
    [b"data", b"file_data", b"image_data", b"images", b"image", b"audio", b"b64_json", b"embedding"];

/// The body as sent, at most `bytes_max` of it: payloads replaced by a mark such as `[image/png, 2345678 bytes]`, then
/// head and tail kept with `…[N bytes left out]…` between. `None` for an empty body, or when nothing may be kept.
pub fn prompt_text(body: &[u8], bytes_max: usize) -> Option<String> {
    let mut excerpt = Excerpt::with_room(bytes_max, body.len());
    let mut walk = PromptWalk::of(body);
    while let Some(piece) = walk.next_piece() {
        excerpt.push(piece.text.as_bytes());
    }
    excerpt.into_text()
}

/// The same of a text that was read already, in pieces.
pub fn excerpt_of<'a>(pieces: impl Iterator<Item = &'a str>, bytes_max: usize) -> Option<String> {
    let mut excerpt = Excerpt::new(bytes_max);
    pieces.for_each(|piece| excerpt.push(piece.as_bytes()));
    excerpt.into_text()
}

/// A piece of a prompt's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptPiece<'a> {
    /// As it is stored.
    pub text: Cow<'a, str>,
    /// Where it ends in the body.
    pub end: PieceEnd,
    /// So it was sent.
    pub is_as_sent: bool,
}

/// The one walk over a request's body: it finds the members that tell, and the text piece by piece.
pub struct PromptWalk<'a> {
    body: &'a [u8],
    parts: PartWalk<'a>,
    outline: RequestOutline,
    scan: Scan,
    /// The end of the last piece in the body, and how much text there is up to it.
    from: usize,
    text_bytes: usize,
}

/// How a body is looked through for payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scan {
    /// String by string.
    Json,
    /// As a text.
    Text,
    /// It is one.
    Binary,
}

impl<'a> PromptWalk<'a> {
    /// Over the whole body.
    pub fn of(body: &'a [u8]) -> PromptWalk<'a> {
        PromptWalk::behind(body, PieceEnd::START, RequestOutline::default())
    }

    /// From this place on. What stands before it is known, as sent, and has this outline.
    pub fn behind(body: &'a [u8], from: PieceEnd, outline: RequestOutline) -> PromptWalk<'a> {
        let text = body.strip_prefix(BOM).unwrap_or(body);
        let scan = match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
            _ if is_binary(&body[from.at..]) => Scan::Binary,
            Some(b'{' | b'[' | b'"') => Scan::Json,
            Some(_) | None => Scan::Text,
        };
        let parts = PartWalk::behind(body, from);
        PromptWalk { body, parts, outline, scan, from: from.at, text_bytes: from.at }
    }

    /// Whether there is what no text has: then the whole body is one payload, whatever stands before.
    pub fn is_binary(&self) -> bool {
        self.scan == Scan::Binary
    }

    /// The next piece; `None`: the body ends.
    pub fn next_piece(&mut self) -> Option<PromptPiece<'a>> {
        let body = self.body;
        if self.is_binary() {
            let is_first = std::mem::replace(&mut self.from, body.len()) < body.len();
            let text = Cow::Owned(mark("binary", body.len()));
            return is_first.then(|| PromptPiece { text, end: PieceEnd::end(body), is_as_sent: false });
        }
        let mut copy = Copy { body, copied: self.from, text: Vec::new() };
        let mut last = self.next_part(&mut copy)?;
        while is_short(self.text_bytes, self.text_bytes + copy.bytes(last.at)) {
            match self.next_part(&mut copy) {
                Some(next) => last = next,
                None => break,
            }
        }
        let text = match copy.copied == self.from {
            true => lossy(&body[self.from..last.at]),
            false => Cow::Owned(lossy(&copy.into_text(last.at)).into_owned()),
        };
        self.text_bytes += text.len();
        self.from = last.at;
        let is_as_sent = matches!(text, Cow::Borrowed(_));
        Some(PromptPiece { text, end: last, is_as_sent })
    }

    fn next_part(&mut self, copy: &mut Copy) -> Option<PieceEnd> {
        let (body, outline, from) = (self.body, &mut self.outline, self.parts.last().at);
        let end = self.parts.next(|key, value| outline.note(&body[key], value))?;
        match self.scan {
            Scan::Json => copy.json(from, end.at),
            Scan::Text => copy.data_urls(from, end.at),
            Scan::Binary => {}
        }
        Some(end)
    }

    /// The members that tell, as far as it has come.
    pub fn into_outline(mut self) -> RequestOutline {
        self.outline.end(self.parts.object_end());
        self.outline
    }
}

fn mark(kind: &str, bytes: usize) -> String {
    format!("[{kind}, {bytes} bytes]")
}

/// Whether the body has control characters that no text has: a compressed body, or a form with a file in it.
fn is_binary(body: &[u8]) -> bool {
    let control = |byte: u8| (byte < 0x20) & !matches!(byte, b'\t' | b'\n' | b'\r' | 0x0C | 0x1B);
    // Folded within a chunk, so that the compiler makes vector code of it.
    body.chunks(4096).any(|chunk| chunk.iter().fold(false, |binary, &byte| binary | control(byte)))
}

/// A piece of the body on its way into its text.
struct Copy<'a> {
    body: &'a [u8],
    /// Everything of it before this is in the text, or replaced there. At the piece's beginning: nothing is replaced.
    copied: usize,
    text: Vec<u8>,
}

impl Copy<'_> {
    /// How long the text is that ends here.
    fn bytes(&self, end: usize) -> usize {
        self.text.len() + end - self.copied
    }

    fn into_text(mut self, end: usize) -> Vec<u8> {
        self.text.extend_from_slice(&self.body[self.copied..end]);
        self.text
    }

    fn replace(&mut self, start: usize, end: usize, mark: &str) {
        self.text.extend_from_slice(&self.body[self.copied..start]);
        self.text.extend_from_slice(mark.as_bytes());
        self.copied = end;
    }

    /// Looks at every string and every list of numbers of a part. A key counts until the next one, so it also names
    /// the elements of an array behind it.
    fn json(&mut self, start: usize, end: usize) {
        let body = &self.body[..end];
        let mut key: &[u8] = b"";
        let mut at = start;
        while let Some(found) = memchr::memchr2(b'"', b'[', &body[at..]) {
            let start = at + found;
            if body[start] == b'[' {
                at = self.numbers(start, end, key);
                continue;
            }
            let end = closing_quote(body, start + 1);
            at = body.len().min(end + 1);
            let behind = body[at..].iter().find(|byte| !byte.is_ascii_whitespace());
            if behind == Some(&b':') {
                key = &body[start + 1..end];
            } else {
                self.string(start + 1, end, key);
            }
        }
    }

    /// One string value, from behind its quote to its closing one.
    fn string(&mut self, start: usize, end: usize, key: &[u8]) {
        let text = &self.body[start..end];
        let named = text.len() >= NAMED_BYTES_MIN && PAYLOAD_KEYS.contains(&key);
        let kind = if named || text.len() >= SNIFFED_BYTES_MIN { sniffed(text) } else { None };
        if named || kind.is_some() {
            let run = base64_run(text, Breaks::Skipped);
            if run.end == text.len() {
                return self.replace(start, end, &mark(kind.unwrap_or("base64"), run.bytes()));
            }
        }
        self.data_urls(start, end);
    }

    /// Every `data:` URL with base64 between `start` and `end` (RFC 2397).
    fn data_urls(&mut self, start: usize, end: usize) {
        const BASE64: &[u8] = b";base64,";
        let body = self.body;
        let mut at = start;
        while let Some(found) = memchr::memmem::find(&body[at..end], BASE64) {
            let payload = at + found + BASE64.len();
            let window = at.max((at + found).saturating_sub(MEDIA_TYPE_BYTES_MAX))..at + found;
            at = payload;
            let Some(scheme) = memchr::memmem::rfind(&body[window.clone()], b"data:") else { continue };
            let run = base64_run(&body[payload..end], Breaks::End);
            if let (Some(kind), true) = (media_type(&body[window.start + scheme + 5..window.end]), run.symbols > 0) {
                at = payload + run.end;
                self.replace(window.start + scheme, at, &mark(&kind, run.bytes()));
            }
        }
    }

    /// The list that begins at `start`, if it is one of numbers; returns where to go on. Whole numbers are token ids,
    /// a prompt in its own right, and stay, unless the key says otherwise.
    fn numbers(&mut self, start: usize, end: usize, key: &[u8]) -> usize {
        let list = &self.body[start + 1..end];
        let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b',');
        let length = list.iter().take_while(|byte| is_number(byte) || byte.is_ascii_whitespace()).count();
        let (list, end) = (&list[..length], start + 1 + length);
        let count = memchr::memchr_iter(b',', list).count() + 1;
        let vector = key == b"embedding" || memchr::memchr3(b'.', b'e', b'E', list).is_some();
        if count < VECTOR_NUMBERS_MIN || !vector || self.body.get(end) != Some(&b']') {
            return end;
        }
        self.replace(start, end + 1, &format!("\"[vector, {count} numbers]\""));
        end + 1
    }
}

/// The closing quote of the string whose text begins at `at`, or the end of the body.
fn closing_quote(body: &[u8], mut at: usize) -> usize {
    while let Some(found) = body.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        if body[at + found] == b'"' {
            return at + found;
        }
        at += found + 2;
    }
    body.len()
}

/// The media type of a `data:` URL, without parameters; `None` if that is no media type after all.
fn media_type(text: &[u8]) -> Option<String> {
    let name = text.split(|&byte| byte == b';').next()?;
    // Some serializers write `\/`.
    let name: String = name.iter().filter(|&&byte| byte != b'\\').map(|&byte| char::from(byte)).collect();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '+' | '-' | '.' | '_');
    match name.as_str() {
        "" => Some("base64".to_owned()),
        _ => name.chars().all(fits).then_some(name),
    }
}

/// What a line break within base64 does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breaks {
    /// It is skipped: the whole string is a payload, as MIME wraps it.
    Skipped,
    /// It ends the run: other text may follow.
    End,
}

/// The base64 that a text begins with.
struct Run {
    end: usize,
    /// Characters that carry six bits each.
    symbols: usize,
}

impl Run {
    fn bytes(&self) -> usize {
        self.symbols / 4 * 3 + self.symbols % 4 * 3 / 4
    }
}

/// What a byte is in base64: its six bits, [`PADDING`] or [`OTHER`]. Both alphabets of RFC 4648 count.
const SYMBOLS: [u8; 256] = symbols();
const PADDING: u8 = 64;
const OTHER: u8 = 65;

const fn symbols() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut symbols = [OTHER; 256];
    let mut at = 0;
    while at < alphabet.len() {
        symbols[alphabet[at] as usize] = at as u8;
        at += 1;
    }
    symbols[b'-' as usize] = 62;
    symbols[b'_' as usize] = 63;
    symbols[b'=' as usize] = PADDING;
    symbols
}

fn base64_run(text: &[u8], breaks: Breaks) -> Run {
    let mut run = Run { end: 0, symbols: 0 };
    loop {
        let plain = text[run.end..].iter().take_while(|&&byte| SYMBOLS[byte as usize] < PADDING).count();
        run.end += plain;
        run.symbols += plain;
        let rest = &text[run.end..];
        match rest.first() {
            Some(b'=') => run.end += 1,
            Some(b'\\') => match escape(rest) {
                Some((byte, length)) if SYMBOLS[byte as usize] < PADDING => {
                    run.symbols += 1;
                    run.end += length;
                }
                Some((b'=', length)) => run.end += length,
                Some((b'\n' | b'\r', length)) if breaks == Breaks::Skipped => run.end += length,
                Some(_) | None => return run,
            },
            Some(_) | None => return run,
        }
    }
}

/// The escapes that base64 has in JSON: `\/` (PHP), `\u002B` (.NET) and line breaks (MIME).
fn escape(text: &[u8]) -> Option<(u8, usize)> {
    match text.get(1)? {
        b'/' => Some((b'/', 2)),
        b'n' => Some((b'\n', 2)),
        b'r' => Some((b'\r', 2)),
        b'u' => {
            let digits = std::str::from_utf8(text.get(2..6)?).ok()?;
            u8::from_str_radix(digits.strip_prefix("00")?, 16).ok().map(|byte| (byte, 6))
        }
        _ => None,
    }
}

/// The media type of base64, told by the first bytes of the file in it.
fn sniffed(text: &[u8]) -> Option<&'static str> {
    let mut file = [0; 12];
    let (mut bits, mut held, mut at, mut length) = (0_u32, 0, 0, 0);
    while length < file.len() {
        let rest = text.get(at..)?;
        let (byte, step) = if rest.first()? == &b'\\' { escape(rest)? } else { (rest[0], 1) };
        let symbol = SYMBOLS[byte as usize];
        if symbol >= PADDING {
            return None;
        }
        bits = bits << 6 | u32::from(symbol);
        held += 6;
        at += step;
        if held >= 8 {
            held -= 8;
            file[length] = (bits >> held) as u8;
            length += 1;
        }
    }
    match &file {
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [0xFF, 0xD8, 0xFF, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', .., b'W', b'E', b'B', b'P'] => Some("image/webp"),
        [b'R', b'I', b'F', b'F', .., b'W', b'A', b'V', b'E'] => Some("audio/wav"),
        [b'%', b'P', b'D', b'F', ..] => Some("application/pdf"),
        [b'I', b'D', b'3', ..] => Some("audio/mpeg"),
        [b'O', b'g', b'g', b'S', ..] => Some("audio/ogg"),
        [b'f', b'L', b'a', b'C', ..] => Some("audio/flac"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some("video/mp4"),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => Some("video/webm"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: &str) {
        assert_eq!(prompt_text(body.as_bytes(), 1024 * 1024).as_deref(), Some(expected), "{body}");
    }

    /// Base64 of a file that begins with `magic`, 96 symbols or 72 bytes long.
    fn file(magic: &str) -> String {
        format!("{magic}{}", "A".repeat(96 - magic.len()))
    }

    #[test]
    fn a_body_without_payloads_is_kept_as_sent() {
        for body in [
            r#"{"model":"m","messages":[{"role":"user","content":"Hi \u00e9 \"x\" [1,2] é😀"}],"n": 1.0}"#,
            r#"{"data":"short","images":[],"input":["a","b"],"x":[0.1,0.2]}"#,
            r#"{"data":"a longer text of plain words that is no base64 at all, for it has spaces"}"#,
            r#"{"prompt":"data:text/plain,hello ;base64, data:image/png;base64,${x}"}"#,
            "hello \"world",
            "{\"a\":\"\\",
            "[[[[\"",
            "key=value&data=1",
        ] {
            check(body, body);
        }
        let words = format!(r#"{{"content":"{}"}}"#, "x".repeat(5000));
        check(&words, &words);
        let tokens = format!(r#"{{"prompt":[{}1]}}"#, "101, ".repeat(500));
        check(&tokens, &tokens);
    }

    #[test]
    fn nothing_to_keep_is_none() {
        assert_eq!(prompt_text(b"", 1024), None);
        assert_eq!(prompt_text(b"{}", 0), None);
    }

    #[test]
    fn data_urls_are_replaced_by_their_size() {
        check(r#"{"url":"data:image/png;base64,AAAAAAA="}"#, r#"{"url":"[image/png, 5 bytes]"}"#);
        check(r#"{"url":"data:image\/png;base64,AA\/A\u002bAA="}"#, r#"{"url":"[image/png, 5 bytes]"}"#);
        check(r#"{"url":"data:audio/webm;codecs=opus;base64,AAAA"}"#, r#"{"url":"[audio/webm, 3 bytes]"}"#);
        check(r#"{"url":"data:;base64,AAAA"}"#, r#"{"url":"[base64, 3 bytes]"}"#);
        check(
            r#"{"t":"a ![x](data:image/gif;base64,AAAA) b data:image/svg+xml;base64,AAAAAAAA\nc"}"#,
            r#"{"t":"a ![x]([image/gif, 3 bytes]) b [image/svg+xml, 6 bytes]\nc"}"#,
        );
        check("<img src=\"data:image/png;base64,AAAA\">", "<img src=\"[image/png, 3 bytes]\">");
        check(r#"{"url":"data:image/png;base64,AAAA"#, r#"{"url":"[image/png, 3 bytes]"#);
    }

    #[test]
    fn payload_members_are_replaced_by_their_size() {
        let cases = [
            (r#"{"input_audio":{"data":"@","format":"wav"}}"#, "UklGRgAAAABXQVZF", "audio/wav"),
            (r#"{"source":{"type":"base64","media_type":"image/png","data":"@"}}"#, "iVBORw0KGgo", "image/png"),
            (r#"{"images":["@","@"]}"#, "/9j/", "image/jpeg"),
            (r#"{"any_key": "@" }"#, "R0lGOD", "image/gif"),
            (r#"{"file":{"file_data":"@"}}"#, "JVBERi", "application/pdf"),
            (r#"{"data" : "@"}"#, "", "base64"),
            (r#"{"embedding":"@"}"#, "zczMPc3MTD4", "base64"),
        ];
        for (body, magic, kind) in cases {
            check(&body.replace('@', &file(magic)), &body.replace('@', &format!("[{kind}, 72 bytes]")));
        }
        let wrapped = format!(r#"{{"data":"{0}\n{0}\r\n"}}"#, "AbC+".repeat(19));
        check(&wrapped, r#"{"data":"[base64, 114 bytes]"}"#);
        let escaped = format!(r#"{{"data":"{}"}}"#, r"\/\u002FAA".repeat(20));
        check(&escaped, r#"{"data":"[base64, 60 bytes]"}"#);
    }

    #[test]
    fn vectors_are_replaced_by_their_length() {
        let vector = format!("[{}-1e-3]", "0.25, ".repeat(99));
        check(&format!(r#"{{"x":{vector},"y":1}}"#), r#"{"x":"[vector, 100 numbers]","y":1}"#);
        check(&format!("[{vector},\n{vector}]"), "[\"[vector, 100 numbers]\",\n\"[vector, 100 numbers]\"]");
        let bytes = format!(r#"{{"embedding":[{}5]}}"#, "-1,".repeat(63));
        check(&bytes, r#"{"embedding":"[vector, 64 numbers]"}"#);
        let mixed = format!("[{}\"a\"]", "0.25,".repeat(99));
        check(&mixed, &mixed);
    }

    #[test]
    fn a_binary_body_is_a_mark() {
        assert_eq!(prompt_text(b"--x\r\n\r\nRIFF\0\x01\xFF", 1024).as_deref(), Some("[binary, 14 bytes]"));
        assert_eq!(prompt_text(b"{\"a\":\"caf\xE9\"}", 1024).as_deref(), Some("{\"a\":\"caf\u{fffd}\"}"));
    }

    #[test]
    fn payloads_are_replaced_before_the_text_is_cut() {
        let body = format!(r#"{{"url":"data:image/png;base64,{}","t":"end"}}"#, "A".repeat(100_000));
        assert_eq!(
            prompt_text(body.as_bytes(), 64).as_deref(),
            Some(r#"{"url":"[image/png, 75000 bytes]","t":"end"}"#)
        );
        let body = format!(r#"{{"t":"{}","url":"data:image/png;base64,{}"}}"#, "é".repeat(5000), "A".repeat(4000));
        let text = prompt_text(body.as_bytes(), 200).unwrap_or_default();
        assert!(
            text.len() <= 200
                && text.starts_with(r#"{"t":"éé"#)
                && text.ends_with(r#""url":"[image/png, 3000 bytes]"}"#),
            "{text}"
        );
        assert!(text.contains(" bytes left out]…"));
    }

    #[test]
    fn any_bytes_give_a_text_within_the_bound() {
        let pieces: [&[u8]; 16] = [
            b"\"",
            b"\\",
            b"{",
            b"[",
            b"]",
            b":",
            b",",
            b"data",
            b"data:",
            b";base64,",
            b"image/png",
            b"0.5,",
            b"\xFF",
            "é".as_bytes(),
            b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
            b"\\u002B",
        ];
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for round in 0..20_000 {
            let mut body = Vec::new();
            for _ in 0..round % 40 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                body.extend_from_slice(pieces[(state >> 33) as usize % pieces.len()]);
            }
            let bytes_max = (state >> 50) as usize % 300;
            let text = prompt_text(&body, bytes_max);
            assert_eq!(text.is_none(), body.is_empty() || bytes_max == 0);
            assert!(text.is_none_or(|text| text.len() <= bytes_max), "{}", body.escape_ascii());
        }
    }
}
