//! How the parts of the page are put together when the proxy is compiled, and what only their readers need is left out:
//! indentation, lines that are comments, and blanks that mean nothing. So the sources can be written to be read, and a
//! browser gets few bytes.
//!
//! It knows only as much of both languages as the page's own parts use: text between `"` or `'` is left alone, and a
//! regular expression holds neither these nor blanks. What it does to the page is seen in a browser.

use std::str::from_utf8;

/// What a part is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Css,
    Script,
}

impl Language {
    /// Whether a blank means nothing behind this byte, or before that one.
    const fn is_tight(self, behind: u8, before: u8) -> bool {
        match self {
            // Before a colon it parts an element from one in it.
            Language::Css => matches!(behind, b'{' | b'}' | b';' | b',' | b':') || matches!(before, b'{' | b'}'),
            // `a + +b` is no `a++b`.
            Language::Script => behind != before && (is_sign(behind) || is_sign(before)),
        }
    }

    /// Whether what this byte ends needs no end of line, too.
    const fn is_over(self, behind: u8) -> bool {
        matches!(behind, b'{' | b';' | b',' | b'(' | b'\n') || matches!((self, behind), (Language::Css, b'}'))
    }
}

const fn is_sign(byte: u8) -> bool {
    matches!(
        byte,
        b'{' | b'}'
            | b'('
            | b')'
            | b'['
            | b']'
            | b'='
            | b','
            | b';'
            | b':'
            | b'?'
            | b'&'
            | b'|'
            | b'<'
            | b'>'
            | b'!'
            | b'+'
            | b'-'
            | b'*'
    )
}

/// A source in few bytes, of which the second tells how many.
pub(super) const fn dense_bytes<const N: usize>(source: &str, language: Language) -> ([u8; N], usize) {
    let source = source.as_bytes();
    let (mut out, mut length, mut at) = ([0; N], 0, 0);
    // Of the text that is read, the sign that ends it; at the beginning of a line.
    let (mut quote, mut begins) = (None, true);
    while at < source.len() {
        let byte = source[at];
        let before = if length > 0 { out[length - 1] } else { b'\n' };
        let next = if at + 1 < source.len() { source[at + 1] } else { b'\n' };
        at += 1;
        if begins && byte == b' ' {
            continue;
        }
        if begins && byte == b'/' && next == b'/' {
            while source[at] != b'\n' {
                at += 1;
            }
            at += 1;
            continue;
        }
        begins = byte == b'\n';
        let is_kept = match quote {
            Some(_) => true,
            None if begins => !language.is_over(before),
            None => !(byte == b' ' && language.is_tight(before, next)),
        };
        // The last declaration of a rule needs no end.
        if matches!((language, quote, before, byte), (Language::Css, None, b';', b'}')) {
            length -= 1;
        }
        if is_kept {
            out[length] = byte;
            length += 1;
        }
        match quote {
            Some(_) if byte == b'\\' => {
                out[length] = next;
                length += 1;
                at += 1;
            }
            Some(end) if byte == end => quote = None,
            None if byte == b'"' || byte == b'\'' => quote = Some(byte),
            Some(_) | None => {}
        }
    }
    (out, length)
}

/// Parts one behind the other.
pub(super) const fn joined_bytes<const N: usize>(parts: &[&str]) -> [u8; N] {
    let (mut out, mut length, mut part) = ([0; N], 0, 0);
    while part < parts.len() {
        let (_, rest) = out.split_at_mut(length);
        rest.split_at_mut(parts[part].len()).0.copy_from_slice(parts[part].as_bytes());
        length += parts[part].len();
        part += 1;
    }
    out
}

/// How long parts are together.
pub(super) const fn length_of(parts: &[&str]) -> usize {
    let (mut length, mut part) = (0, 0);
    while part < parts.len() {
        length += parts[part].len();
        part += 1;
    }
    length
}

/// What was text before it was put together.
pub(super) const fn text(bytes: &[u8]) -> &str {
    match from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("no character was parted"),
    }
}

/// [`dense_bytes`] as a constant text.
macro_rules! dense {
    ($source:expr, $language:expr) => {{
        const ROOMY: ([u8; $source.len()], usize) = $crate::stats::page_parts::dense_bytes($source, $language);
        const EXACT: [u8; ROOMY.1] = *ROOMY.0.first_chunk().expect("it is no longer than its source");
        $crate::stats::page_parts::text(&EXACT)
    }};
}

/// [`joined_bytes`] as a constant text.
macro_rules! joined {
    ($parts:expr) => {{
        const EXACT: [u8; $crate::stats::page_parts::length_of(&$parts)] =
            $crate::stats::page_parts::joined_bytes(&$parts);
        $crate::stats::page_parts::text(&EXACT)
    }};
}

pub(super) use {dense, joined};

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(language: Language, source: &str, expected: &str) {
        let (bytes, length) = dense_bytes::<200>(source, language);
        assert_eq!(from_utf8(&bytes[..length]), Ok(expected));
    }

    #[test]
    fn a_script_keeps_what_it_says() {
        let check = |source, expected| check(Language::Script, source, expected);
        check("const a = { b: 1, c: [2, 3] };\n", "const a={b:1,c:[2,3]};");
        check("// what for\nlet a = b ? c : d;\n  // why\n  return !a;\n", "let a=b?c:d;return!a;");
        check("a = \"b  ; 'c' = // d\" + 'e \\' f';\n", "a=\"b  ; 'c' = // d\"+'e \\' f';");
        check("a = b + +c - -d;\n", "a=b+ +c- -d;");
        check("for (const a of b) {\n  f(a);\n}\ng()\nh()\n", "for(const a of b){f(a);}\ng()\nh()\n");
        check("a / b / c\n", "a / b / c\n");
    }

    #[test]
    fn a_style_keeps_its_selectors() {
        let check = |source, expected| check(Language::Css, source, expected);
        check("a b, .c > d { e: f g; h: i }\n", "a b,.c > d{e:f g;h:i}");
        check("#a :is(b, c) d:hover { e: 1px }\n", "#a :is(b,c) d:hover{e:1px}");
        check("@media (a: b) {\n  c { d: e(f, 2px + 3px); }\n}\n", "@media (a:b){c{d:e(f,2px + 3px)}}");
        check("a::before { content: \" ; \"; }\n", "a::before{content:\" ; \"}");
    }

    #[test]
    fn parts_are_joined_in_their_order() {
        const PARTS: [&str; 3] = ["für ", "", "alle"];
        assert_eq!(joined!(PARTS), "für alle");
    }
}
