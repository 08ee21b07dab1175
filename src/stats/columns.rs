//! Text for a terminal: names and figures in columns, whatever script a name is written in (UAX #11).

use std::fmt::{Display, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::looks::is_invisible;

/// Columns of a terminal that says nothing.
pub const WIDTH: usize = 80;
/// Below it some figures are left out, to where names would be no more than their ends.
pub const WIDTH_MIN: usize = 58;
/// Names are no longer.
pub const WIDTH_MAX: usize = 240;

/// The first line, and an empty one: what tells this, at the left, and when, at the right.
pub(super) fn write_title(text: &mut String, width: usize, made: &str) {
    let title = concat!("LMS Metrics Proxy ", env!("CARGO_PKG_VERSION"));
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "{title}{made:>width$}\n", width = width.saturating_sub(title.len()));
}

/// A name in a column of its own, a blank apart from what follows.
pub(super) fn cell(name: &str, width: usize) -> String {
    let name = plain(name, width - 1);
    format!("{name}{:1$}", "", width.saturating_sub(name.width()))
}

/// A name at the left, and behind it cells at the right of their columns.
pub(super) fn write_line(text: &mut String, name_width: usize, name: &str, widths: &[usize], cells: &[impl Display]) {
    write_cells(text, name_width, name, widths, cells);
    text.push('\n');
}

pub(super) fn write_cells(text: &mut String, name_width: usize, name: &str, widths: &[usize], cells: &[impl Display]) {
    text.push_str(&cell(name, name_width));
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(text, "{cell:>width$}");
    }
}

/// Words, then what they are about, with commas in between, on as many lines as that takes.
pub(super) fn write_list(text: &mut String, width: usize, words: &str, list: &[String]) {
    let mut used = words.width();
    text.push_str(words);
    for (at, one) in list.iter().enumerate() {
        let comma = if at + 1 < list.len() { "," } else { "" };
        let more = 1 + one.width() + comma.len();
        // Further lines begin with a blank, too.
        if used + more > width {
            text.push('\n');
            used = 0;
        }
        let _ = write!(text, " {one}{comma}");
        used += more;
    }
    text.push('\n');
}

/// The same of figures, each at least a blank apart from what is before it.
pub(super) fn write_figures(text: &mut String, name_width: usize, name: &str, widths: &[usize], figures: &[i64]) {
    let cells: Vec<String> = figures.iter().zip(widths).map(|(value, width)| figure(*value, width - 1)).collect();
    write_line(text, name_width, name, widths, &cells);
}

/// With a comma between thousands, in at most so many characters: larger ones in thousands, millions, and so on.
pub(super) fn figure(value: i64, width: usize) -> String {
    let mut rest = value;
    for unit in ["", "k", "M", "G", "T", "P"] {
        let text = with_commas(rest) + unit;
        if text.len() <= width {
            return text;
        }
        rest /= 1000;
    }
    rest.to_string()
}

pub(super) fn with_commas(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::from(if value < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Money; of small sums more decimals are of interest.
pub(super) fn amount(value: Option<f64>, currency: &str) -> String {
    match value {
        Some(small) if small.abs() < 1.0 => format!("{small:.4} {currency}"),
        Some(value) => format!("{value:.2} {currency}"),
        None => "unknown".to_owned(),
    }
}

/// What came over the network, fit for a terminal: nothing that cannot be seen, and no wider than so many columns. What is too
/// long loses its middle, for names differ at their ends.
pub(super) fn plain(text: &str, width: usize) -> String {
    let clean: String = text.chars().map(|c| if is_invisible(c) { '?' } else { c }).collect();
    if clean.width() <= width {
        return clean;
    }
    let end_width = width.saturating_sub(1) / 2;
    let begin = cut(clean.chars(), width.saturating_sub(1) - end_width);
    let end: String = cut(clean.chars().rev(), end_width).chars().rev().collect();
    format!("{begin}…{end}")
}

/// As many of these as fit.
fn cut(characters: impl Iterator<Item = char>, width: usize) -> String {
    let mut used = 0;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    characters.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_middle_and_fill_their_column() {
        assert_eq!(plain("qwen2.5-coder-32b-instruct-Q4_K_M", 20), "qwen2.5-co…ct-Q4_K_M");
        assert_eq!(plain("qwen2.5-coder-32b-instruct-Q4_K_M", 33), "qwen2.5-coder-32b-instruct-Q4_K_M");
        assert_eq!(plain("\u{6a21}\u{578b}\u{6a21}\u{578b}", 6), "\u{6a21}…\u{578b}");
        assert_eq!(plain("a\u{202e}b\u{200b}\u{2066}\u{1b}[2J", 20), "a?b???[2J");
        for name in ["plain", "\u{6a21}\u{578b}-7b", "e\u{301}t\u{e9}", "\u{1f600}", "much longer than that"] {
            let cell = cell(name, 10);
            assert!(cell.width() == 10 && cell.ends_with(' '), "{cell:?}");
        }
    }

    #[test]
    fn figures_fit_their_columns() {
        let check = |value: i64, width: usize, expected: &str| assert_eq!(figure(value, width), expected);
        check(0, 9, "0");
        check(999, 9, "999");
        check(1000, 9, "1,000");
        check(1_234_567, 9, "1,234,567");
        check(12_345_678, 9, "12,345k");
        check(i64::MAX, 9, "9,223P");
    }

    #[test]
    fn what_it_would_have_cost_takes_the_lines_that_it_needs() {
        let list = ["today 1.00 EUR", "7 days 12345.00 EUR", "30 days 123456.00 EUR", "all time 1234567.00 EUR"];
        let mut text = String::new();
        write_list(&mut text, 60, "Elsewhere:", &list.map(str::to_owned));
        assert_eq!(
            text,
            "Elsewhere: today 1.00 EUR, 7 days 12345.00 EUR,\n 30 days 123456.00 EUR, all time 1234567.00 EUR\n"
        );
    }
}
