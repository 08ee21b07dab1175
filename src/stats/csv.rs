//! CSV (RFC 4180): of what is written as JSON elsewhere, under the same names.

use serde::Serialize;
use serde_json::Value;

/// The type of such a reply.
pub(super) const CONTENT_TYPE: &str = "text/csv; charset=utf-8; header=present";

/// A table: the header line, and a line for each object.
pub(super) fn table<T: Serialize>(header: &str, objects: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut out = format!("{header}\r\n").into_bytes();
    objects.into_iter().for_each(|object| write_line(&mut out, header, &object));
    out
}

/// Writes the members of an object that a header line names. Commas stand between cells, CRLF behind the line.
pub(super) fn write_line(out: &mut Vec<u8>, header: &str, object: &impl Serialize) {
    let object = serde_json::to_value(object).expect("figures and strings are always JSON");
    for (at, column) in header.split(',').enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_cell(out, &object[column]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Quotes stand around what holds a comma, a quote or a line end, doubled inside.
///
/// A text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, "CSV Injection").
fn write_cell(out: &mut Vec<u8>, value: &Value) {
    let cell = match value {
        Value::Null => return,
        Value::String(text) => {
            let apostrophe = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
            if text.contains(['"', ',', '\r', '\n']) {
                format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
            } else {
                format!("{apostrophe}{text}")
            }
        }
        // JSON has 12.0 and 1e-6.
        Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
        other => other.to_string(),
    };
    out.extend_from_slice(cell.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_cell(value: Value, expected: &str) {
        let mut out = Vec::new();
        write_cell(&mut out, &value);
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }

    #[test]
    fn figures_are_plain_digits_and_unknown_is_nothing() {
        check_cell(Value::Null, "");
        check_cell(Value::from(-5), "-5");
        check_cell(Value::from(12.0), "12");
        check_cell(Value::from(0.000001), "0.000001");
        check_cell(Value::from(true), "true");
    }

    #[test]
    fn cells_are_quoted_where_needed_and_begin_no_formula() {
        let check = |text: &str, expected: &str| {
            check_cell(Value::from(text), expected);
        };
        check("plain", "plain");
        check("a,b", "\"a,b\"");
        check("say \"hi\"", "\"say \"\"hi\"\"\"");
        check("two\r\nlines", "\"two\r\nlines\"");
        check("=1+1", "'=1+1");
        check("=\"a\",1", "\"'=\"\"a\"\",1\"");
        for first in ["+", "-", "@", "\t"] {
            check(&format!("{first}x"), &format!("'{first}x"));
        }
        check("\rx", "\"'\rx\"");
        check("", "");
    }
}
