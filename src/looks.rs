//! Which characters have no looks of their own, for whatever is shown on a terminal.

/// Whether a character moves others about, or takes no room: a terminal obeys the one, and nobody sees the other. They are
/// controls, those of bidirectional text (UAX #9), and most that have nothing to be seen by default (UAX #44); a selector of
/// variants stays, for emoji have it.
pub fn is_invisible(c: char) -> bool {
    // ASCII, which most lines are all of, is looked at once.
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}
