//! The fields of a form, as audio is sent: `multipart/form-data` (RFC 7578; delimiters: RFC 2046 §5.1.1).
//!
//! The delimiter is read from the body itself, which begins with it, perhaps behind an empty line (each delimiter has a
//! line end before it); a JSON body cannot begin so. A form without its last delimiter tells the fields that came
//! whole. One pass over the body; nothing is copied.

use memchr::memmem;

/// Whether a body begins as a form does.
pub fn is_form(body: &[u8]) -> bool {
    without_empty_line(body).starts_with(b"--")
}

fn without_empty_line(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\r\n").unwrap_or(body)
}

/// Visits the name and value of every field, in their order.
pub fn each_field<'a>(body: &'a [u8], mut visit: impl FnMut(&'a [u8], &'a [u8])) {
    let body = without_empty_line(body);
    let Some(line) = is_form(body).then(|| memmem::find(body, b"\r\n")).flatten() else { return };
    // Behind the boundary there may be padding.
    let delimiter = [b"\r\n", body[..line].trim_ascii_end()].concat();
    let delimiter = memmem::Finder::new(&delimiter);
    let mut rest = &body[line..];
    loop {
        let Some(head_end) = memmem::find(rest, b"\r\n\r\n") else { return };
        let (head, part) = (&rest[..head_end], &rest[head_end + 4..]);
        // A part may be empty: the line end before its delimiter is that of its head.
        let from = &rest[head_end + 2..];
        let Some(end) = delimiter.find(from) else { return };
        if let Some(name) = head.split(|byte| *byte == b'\n').find_map(name_in) {
            visit(name, part.get(..end.saturating_sub(2)).unwrap_or_default());
        }
        rest = &from[end + delimiter.needle().len()..];
        if rest.starts_with(b"--") {
            return;
        }
    }
}

/// The field's name, if this is the header line that tells it.
fn name_in(line: &[u8]) -> Option<&[u8]> {
    const FIELD: &[u8] = b"content-disposition:";
    let (field, mut rest) = line.split_at_checked(FIELD.len())?;
    if !field.eq_ignore_ascii_case(FIELD) {
        return None;
    }
    while let Some(at) = rest.iter().position(|byte| *byte == b';') {
        rest = rest[at + 1..].trim_ascii_start();
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (&rest[..equals], &rest[equals + 1..]);
        // What is in quotes may hold a semicolon.
        let (value, behind) = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let end = quoted.iter().position(|byte| *byte == b'"')?;
                (&quoted[..end], &quoted[end + 1..])
            }
            None => {
                let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
                (value[..end].trim_ascii_end(), &value[end..])
            }
        };
        if key.trim_ascii_end().eq_ignore_ascii_case(b"name") {
            return Some(value);
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields as `name=value`, one behind the other. Lines of the form are parted by `|`.
    #[track_caller]
    fn check(form: &str, expected: &str) {
        let body = form.replace('|', "\r\n");
        let mut found = String::new();
        each_field(body.as_bytes(), |name, value| {
            found.push_str(&format!("{}={} ", String::from_utf8_lossy(name), String::from_utf8_lossy(value)));
        });
        assert_eq!(found.trim_end(), expected, "{form}");
    }

    #[test]
    fn every_field_of_a_form_is_visited() {
        let model = "--B|Content-Disposition: form-data; name=\"model\"||whisper-1|";
        let file = "--B|content-disposition: form-data; filename=\"a;name=no.wav\"; name=\"file\"|\
                    Content-Type: audio/wav||RIFF|--|B--|";
        check(&format!("{model}--B--|"), "model=whisper-1");
        check(&format!("{model}{file}--B--|"), "model=whisper-1 file=RIFF\r\n--\r\nB--");
        check(&format!("{file}{model}--B--|behind|"), "file=RIFF\r\n--\r\nB-- model=whisper-1");
        check(&format!("|{model}--B--|"), "model=whisper-1");
        check("--B  |Content-Disposition: form-data; name=model||m|--B--", "model=m");
        check("--B|Content-Disposition: form-data; name=\"model\"|||--B--", "model=");
    }

    #[test]
    fn what_is_no_form_or_not_whole_tells_what_came() {
        for body in ["", "--", "--B", "--B|", "{\"model\":\"m\"}", "--B|Content-Disposition: form-data; name=\"a\"||x"]
        {
            check(body, "");
        }
        let model = "--B|Content-Disposition: form-data; name=\"model\"||m|--B|";
        check(model, "model=m");
        check(&format!("{model}Content-Disposition: form-data; name=\"file\"||RIFF"), "model=m");
        check("--B|Content-Type: text/plain||x|--B|Content-Disposition: form-data; name||y|--B--|", "");
        for end in 0..model.len() {
            each_field(model.replace('|', "\r\n").as_bytes().get(..end).unwrap_or_default(), |_, _| ());
        }
    }
}
