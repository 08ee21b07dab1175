//! Where a text has what looks like a key: whoever shows text to a person shows [`HIDDEN`] in its place.
//!
//! Keys are known by how their makers begin them, by what introduces them (`Bearer …`, `password=…`), or by their looks:
//! long, and in no order. What merely may be one is hidden, too, such as the hash of a commit. Names, paths, times and
//! UUIDs stay, for they are what people look for in a prompt. Text may be as JSON has it: `\n` and `\"` are read there.
//!
//! Looks at each byte a bounded number of times, whatever the text.

mod named;
mod unordered;

use std::borrow::Cow;
use std::ops::Range;

use self::named::{in_address, introduced, named};
use self::unordered::{is_unordered_run, is_unordered_word};
use crate::limits::SECRET_BYTES_MAX;
use crate::usage::text::{ceil_boundary, floor_boundary};

/// What is shown in the place of a secret.
pub const HIDDEN: &str = "[hidden]";

/// How far it is looked ahead which characters a run has.
const MIXED_BYTES_MAX: usize = 64;

/// How known keys begin, which characters follow, and how many at least: fewer are a word that begins alike.
const KNOWN: [(&[u8], Letters, usize); 32] = [
    // OpenAI, Anthropic, OpenRouter, LM Studio and whoever imitates them; Stripe.
    (b"sk-lm-", Letters::Word, 8),
    (b"sk-", Letters::Word, 16),
    (b"sk_live_", Letters::Word, 10),
    (b"sk_test_", Letters::Word, 10),
    (b"rk_live_", Letters::Word, 10),
    (b"whsec_", Letters::Word, 16),
    // GitHub, GitLab.
    (b"ghp_", Letters::Word, 20),
    (b"gho_", Letters::Word, 20),
    (b"ghu_", Letters::Word, 20),
    (b"ghs_", Letters::Word, 20),
    (b"ghr_", Letters::Word, 20),
    (b"github_pat_", Letters::Word, 20),
    (b"glpat-", Letters::Word, 16),
    // Amazon.
    (b"AKIA", Letters::Upper, 16),
    (b"ASIA", Letters::Upper, 16),
    // Slack.
    (b"xoxa-", Letters::Word, 10),
    (b"xoxb-", Letters::Word, 10),
    (b"xoxe-", Letters::Word, 10),
    (b"xoxe.", Letters::Word, 10),
    (b"xoxp-", Letters::Word, 10),
    (b"xoxr-", Letters::Word, 10),
    (b"xoxs-", Letters::Word, 10),
    (b"xapp-", Letters::Word, 10),
    // Hugging Face, Google, Groq, xAI, Nvidia, Replicate, npm, PyPI, DigitalOcean.
    (b"hf_", Letters::Plain, 20),
    (b"AIza", Letters::Word, 30),
    (b"ya29.", Letters::Word, 20),
    (b"gsk_", Letters::Plain, 20),
    (b"xai-", Letters::Plain, 20),
    (b"nvapi-", Letters::Word, 20),
    (b"r8_", Letters::Plain, 20),
    (b"npm_", Letters::Plain, 30),
    (b"pypi-", Letters::Word, 30),
];

/// Which characters a known key is made of.
#[derive(Clone, Copy)]
enum Letters {
    Upper,
    Plain,
    Word,
}

impl Letters {
    fn has(self, byte: u8) -> bool {
        match self {
            Letters::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Letters::Plain => byte.is_ascii_alphanumeric(),
            Letters::Word => is_word(byte),
        }
    }
}

/// The text with its secrets hidden.
pub fn hide(text: &str) -> Cow<'_, str> {
    let secrets = secrets(text.as_bytes());
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut shown, mut at) = (String::with_capacity(text.len()), 0);
    for secret in secrets {
        shown.push_str(&text[at..secret.start]);
        shown.push_str(HIDDEN);
        at = secret.end;
    }
    shown.push_str(&text[at..]);
    Cow::Owned(shown)
}

/// The secrets that are in the `shown` parts of a text, in full or in part, in order. Only what is around these is looked
/// at ([`SECRET_BYTES_MAX`]).
pub fn secrets_within(text: &str, shown: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut parts = shown.into_iter().peekable();
    while let Some(part) = parts.next() {
        let mut end = part.end;
        while let Some(next) = parts.next_if(|next| next.start <= end.saturating_add(2 * SECRET_BYTES_MAX)) {
            end = end.max(next.end);
        }
        let from = floor_boundary(text, part.start.saturating_sub(SECRET_BYTES_MAX));
        let to = ceil_boundary(text, end.saturating_add(SECRET_BYTES_MAX));
        found.extend(secrets(&text.as_bytes()[from..to]).into_iter().map(|it| it.start + from..it.end + from));
    }
    found
}

/// Every secret, in order; none overlaps another.
fn secrets(text: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut at, mut run_end) = (0, 0);
    while let Some(start) = next_word(text, at) {
        let end = start + length(&text[start..], |byte| byte.is_ascii_alphanumeric());
        let mut secret = block(text, start).or_else(|| known(text, start));
        if secret.is_none() && start >= run_end {
            run_end = end + length(&text[end..], |byte| is_word(byte) || matches!(byte, b'+' | b'/'));
            let is_secret = is_unordered_run(&text[start..run_end]);
            secret = web_token(text, start).or_else(|| is_secret.then_some(start..run_end));
        }
        let secret = secret
            .or_else(|| is_unordered_word(&text[start..end]).then_some(start..end))
            .or_else(|| introduced(text, start, end))
            .or_else(|| in_address(text, end))
            .or_else(|| named(text, end));
        at = end;
        if let Some(Range { start, end }) = secret {
            let start = found.last().map_or(start, |last: &Range<usize>| start.max(last.end));
            // What base64 ends with is a part of it, and so is the rest of a character.
            at = end + length(&text[end..], |byte| byte == b'=').min(2);
            at += length(&text[at..], |byte| byte & 0xC0 == 0x80);
            found.push(start..at);
        }
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn length(text: &[u8], is_part: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| is_part(**byte)).count()
}

/// Where the next letters or digits begin that are no part of an escape.
fn next_word(text: &[u8], mut at: usize) -> Option<usize> {
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if is_unicode_escape(&text[at..]) => at += 6,
            b'\\' => at += 2,
            _ if byte.is_ascii_alphanumeric() => return Some(at),
            _ => at += 1,
        }
    }
    None
}

fn is_unicode_escape(text: &[u8]) -> bool {
    text.get(1) == Some(&b'u') && text.get(2..6).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// A private key in armour (RFC 7468; OpenPGP and OpenSSH have it, too), to its end or that of what can be one.
fn block(text: &[u8], start: usize) -> Option<Range<usize>> {
    const TITLE_BYTES_MAX: usize = 64;
    let before = start.checked_sub(5)?;
    let title = text[start..].strip_prefix(b"BEGIN ").filter(|_| text[before..].starts_with(b"-----"))?;
    let title = &title[..title.len().min(TITLE_BYTES_MAX)];
    let title = &title[..memchr::memmem::find(title, b"-----")?];
    memchr::memmem::find(title, b"PRIVATE KEY")?;
    let inside = start + b"BEGIN ".len() + title.len() + 5;
    let can_be = |byte: u8| byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || b"+/=\\:,-".contains(&byte);
    let end = inside + length(&text[inside..], can_be);
    let closed = memchr::memmem::find(&text[inside..end], b"-----END ").map(|at| inside + at + b"-----END ".len());
    let behind = |from: usize| memchr::memmem::find(&text[from..end], b"-----").map(|at| from + at + 5);
    Some(before..closed.and_then(behind).unwrap_or(end))
}

/// A key that begins as those of a known maker.
fn known(text: &[u8], start: usize) -> Option<Range<usize>> {
    let text = &text[start..];
    let (prefix, letters, bytes_min) =
        KNOWN.iter().find(|(prefix, ..)| prefix[0] == text[0] && text.starts_with(prefix))?;
    let rest = &text[prefix.len()..];
    let is_part = |byte: u8| letters.has(byte);
    if !is_mixed(rest, is_part) || length(rest, is_part) < *bytes_min {
        return None;
    }
    let mut end = prefix.len() + length(rest, is_part);
    // LM Studio's have a second half.
    if let Some(half) = text[end..].strip_prefix(b":")
        && is_mixed(half, is_word)
    {
        end += 1 + length(half, is_word);
    }
    Some(start..start + end)
}

/// Whether a run has a digit, or small letters and capitals, as words joined by dashes have not.
fn is_mixed(text: &[u8], is_part: impl Fn(u8) -> bool) -> bool {
    let near = &text[..text.len().min(MIXED_BYTES_MAX)];
    let near = &near[..length(near, is_part)];
    near.iter().any(u8::is_ascii_digit) || mixes_cases(near)
}

fn mixes_cases(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_uppercase) && text.iter().any(u8::is_ascii_lowercase)
}

/// A JSON Web Token (RFC 7519): base64 of `{"`, and further parts behind dots.
fn web_token(text: &[u8], start: usize) -> Option<Range<usize>> {
    const HEAD_BYTES_MIN: usize = 10;
    text[start..].strip_prefix(b"eyJ")?;
    let mut end = start + length(&text[start..], is_word);
    let mut is_token = false;
    while let Some(part) = text[end..].strip_prefix(b".").map(|rest| length(rest, is_word)).filter(|part| *part > 0) {
        end += 1 + part;
        is_token = true;
    }
    (is_token && end - start >= HEAD_BYTES_MIN).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use super::named::VALUE_BYTES_MAX;
    use super::*;
    use crate::testing::Random;

    /// The secret is what stands between `«` and `»`.
    #[track_caller]
    fn check(marked: &str) {
        let text = marked.replace(['«', '»'], "");
        let mut expected = String::new();
        for part in marked.split('«') {
            match part.split_once('»') {
                Some((_, behind)) => expected.extend([HIDDEN, behind]),
                None => expected.push_str(part),
            }
        }
        assert_eq!(hide(&text), expected, "{text}");
        // A part shows no more than the whole.
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            let next = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
            let is_secret = secrets_within(&text, Some(at..next)).iter().any(|it| it.contains(&at));
            let is_marked = secrets(text.as_bytes()).iter().any(|it| it.contains(&at));
            assert_eq!(is_secret, is_marked, "{at} {text}");
        }
    }

    #[test]
    fn keys_of_known_makers_are_hidden() {
        check("use «sk-proj-abcdEFGH1234ijkl», please");
        check("«sk-ant-api03-Zm9v_YmFy-QUJDREVGMTIzNA»");
        check("«sk-or-v1-0123456789abcdef»");
        check("«sk-lm-abcd1234:efgh5678ijkl9012mnop» is LM Studio's");
        check("lines\\n«sk-abcdefgh12345678» of JSON");
        check("«ghp_abcdefghij0123456789»/«gho_abcdefghij0123456789»");
        check("«github_pat_11ABCDEFG0abcdefghij_klmnop»");
        check("«AKIAIOSFODNN7EXAMPLE»,");
        check("(«xoxb-123456789012-abcdefABCDEF»)");
        check("«hf_abcdefghijklmnop1234»");
        check("key=«AIzaSyA-1234567890abcdefghijklmnop_q»");
        check("«glpat-abcdefgh12345678»");
        check("«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl»");
        check("-H \"x: «eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.»\"".replace(".»", "».").as_str());
    }

    #[test]
    fn private_keys_are_hidden_with_all_their_lines() {
        check("a\n«-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ==\n-----END PRIVATE KEY-----»\nb");
        check("a\\n«-----BEGIN RSA PRIVATE KEY-----\\nMIIE/vQ+IB\\n-----END RSA PRIVATE KEY-----»\\nb");
        check("«-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNza»…");
        check("-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----");
    }

    #[test]
    fn what_is_introduced_as_a_secret_is_hidden() {
        check("Authorization: Bearer «abcdefgh12345678».");
        check("authorization: basic «dXNlcjpwYXNzd29yZDE=»");
        check(r#""Authorization": "«Token 0af»","#);
        check("password=«swordfish»&user=jane");
        check("PGPASSWORD=«hunter2» psql");
        check("export OPENAI_API_KEY='«abc»'");
        check("api_key = \"«abc def»\"");
        check(r#"{"api_key": "«0123»", "user": "jane"}"#);
        check(r#"{\"apiKey\": \"«a\\\"b»\", \"n\": 1}"#);
        check("password: «hunter2»");
        check("client-secret => `«xy»`");
        check("curl --token «abcd1234efgh» https://example.org");
        check("postgres://jane:«s3cr3t»@db.example.org:5432/app");
        check("os.environ[\"HF_TOKEN\"] = \"«abcd1234»\"");
        check("refresh_token: «grüße-9»\n");
        check(&format!("password=«{}»", "é".repeat(VALUE_BYTES_MAX)));
        check(&format!("password=«x{}» b", "é".repeat(VALUE_BYTES_MAX)));
        // Of what has no end so much is hidden, in whole characters.
        check(&format!("password=\"«x{}»{}", "é".repeat(VALUE_BYTES_MAX / 2), "é".repeat(100)));
    }

    #[test]
    fn long_runs_in_no_order_are_hidden() {
        check("«0123456789abcdef0123456789abcdef»");
        check("commit «da39a3ee5e6b4b0d3255bfef95601890afd80709», of today");
        check("aws=«Ke3xR/7hqJp0VtLw9dYz+S1mNbC5uG8aFoQi2TsW»");
        check("«dGhpcyBpcyBhIHRlc3QgZm9yIGJhc2U2NCBlbmNvZGluZw==»");
        check("github.com/a-b/Proofs/blob/«79f8b5f39ed609339f0233098dee1a3c4e6b3080»/src/Curves/Weierstrass/Affine1.v");
        check("/nix/store/«0c9vkbqmh3x5w1j8r2d6y4z7p1n5l8fa»-bash/bin");
    }

    #[test]
    fn random_keys_are_hidden_whatever_their_alphabet() {
        let mut random = Random::new(1);
        let base64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        for (alphabet, length) in
            [("0123456789abcdef", 40), (base64, 48), (&format!("{base64}+/"), 48), (&format!("{base64}-_"), 48)]
        {
            let alphabet: Vec<char> = alphabet.chars().collect();
            let shown = (0..2000).filter(|_| {
                let key: String = (0..length).map(|_| alphabet[random.index(alphabet.len())]).collect();
                let within = format!("the key {key} is new");
                hide(&within) == within
            });
            assert!(shown.count() <= 20, "{alphabet:?}");
        }
    }

    #[test]
    fn prose_code_paths_times_and_uuids_stay() {
        for text in [
            "The password is required; keep your token secret. Bearer authentication is what it is called.",
            "A task-oriented, risk-based and disk-bound approach: sk-learn, asking-for-more.",
            "Current time: 2026-11-28T10:31:07Z. You are in /Users/Jane/Projects/MyApp2/src/components/Button.tsx",
            "123e4567-e89b-12d3-a456-426614174000 /api/v1/threads/123E4567-E89B-12D3-A456-426614174000/Messages",
            "lmstudio-community/Qwen3-Coder-30B-A3B-Instruct-GGUF/Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf",
            "AttemptedDowngradeToTls12WhenTls13IsSupported sceAtracSetHalfwayBufferAndGetID FlushL1DCacheOnContextSwitch",
            "fn convertBase64StringToUtf8ByteArrayWithPadding(inputStringValue: &str) -> Vec<u8> {",
            r#"{"max_tokens": 4096, "token": "the", "password": {"type": "string"}, "secret": null}"#,
            r#"{"eos_token": "<|im_end|>", "pad_token":"[PAD]", "required": ["password", "api_key"]}"#,
            "client = OpenAI(api_key=os.environ[\"OPENAI_API_KEY\"], password=password, token=self.token)",
            "let password: Option<String> = None; password == other; apiKey: process.env.OPENAI_API_KEY!",
            "curl -H \"Authorization: Bearer $TOKEN\" -H 'x-api-key: <your key>' --token \"${TOKEN}\"",
            "https://example.org:8080/a@b?x=1 https://jane@example.org http://u:$PASSWORD@host",
            "PWD=/home/jane/project1 OLDPWD=/tmp/a1b2c3d4",
            r#"{"password": "string", "api_key": "Undefined"} password=None"#,
            "password=your-password api_key=YOUR_API_KEY password=******** token: string",
            "C:\\Users\\jane\\new folder\\tests",
            "call_0123456789abcdefghijklmn toolu_01A09q90qw90lq917835lq9 hf_hub_download_with_retries",
            "12345678901234567890123456789012345678901234567890",
            "================================================ -----------------------------------------------",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "这是一个测试 пароль: привет é😀",
        ] {
            check(text);
        }
    }

    #[test]
    fn only_what_is_around_the_shown_parts_is_looked_at() {
        let key = "ghp_abcdefghij0123456789";
        let far = " word".repeat(SECRET_BYTES_MAX);
        let text = format!("{key}{far} {key}{far} {key}");
        let second = text.len() / 2;
        assert_eq!(secrets_within(&text, Some(second..second + 1)).len(), 1);
        assert_eq!(secrets_within(&text, [0..1, second..second + 1, text.len() - 1..text.len()]).len(), 3);
        assert_eq!(secrets_within(&text, Some(0..text.len())).len(), 3);
        assert!(secrets_within(&text, None).is_empty());
        // Cut anywhere, also within a character.
        let text = "é".repeat(3 * SECRET_BYTES_MAX);
        assert!(secrets_within(&text, Some(SECRET_BYTES_MAX + 2..2 * SECRET_BYTES_MAX)).is_empty());
    }

    #[test]
    fn whatever_stands_together_is_cut_between_characters_and_in_order() {
        const PARTS: [&str; 24] = [
            "-----BEGIN PRIVATE KEY-----",
            "-----END PRIVATE KEY-----",
            "-----",
            "sk-",
            "eyJ",
            ".",
            "password",
            "token",
            "=",
            ": ",
            "\"",
            "\\",
            "\\n",
            "é",
            "😀",
            "a",
            "A1",
            "0f",
            "Bearer ",
            "://u:p@",
            "\n",
            "+/",
            "ghp_0123456789",
            " --",
        ];
        let mut random = Random::new(7);
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..30 {
                text.push_str(PARTS[random.index(PARTS.len())]);
            }
            let found = secrets(text.as_bytes());
            let mut at = 0;
            for secret in &found {
                assert!(at <= secret.start && secret.start < secret.end, "{found:?} {text}");
                assert!(text.is_char_boundary(secret.start) && text.is_char_boundary(secret.end), "{found:?} {text}");
                at = secret.end;
            }
        }
    }

    #[test]
    fn hostile_text_takes_time_in_proportion() {
        for text in [
            "sk-",
            "eyJ-",
            "eyJ.",
            "password=",
            "password ",
            "a",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "x://",
            "--",
            "\\u",
            "token= ",
        ] {
            let text = text.repeat(100_000);
            assert!(hide(&text).len() <= text.len(), "{}", &text[..20]);
        }
    }
}
