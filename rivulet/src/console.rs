//! What the program prints for people. Control characters of anything that came from outside are escaped.
//!
//! **Invariant:** nothing a sender wrote reaches a terminal unescaped; a closed pipe ends the program quietly.

use std::io::{self, Write as _};

/// Prints a line on standard output. `false` when nobody reads any more.
pub(crate) fn say(line: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()).is_ok()
}

/// Prints an error with its causes on standard error.
pub(crate) fn complain(error: &anyhow::Error) {
    let _ = writeln!(io::stderr().lock(), "error: {}", printable(&format!("{error:#}")));
}

/// The text with control characters and bidirectional overrides as escapes.
pub(crate) fn printable(text: &str) -> String {
    let risky = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    text.chars()
        .flat_map(|c| if risky(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_bidi_overrides_are_shown_not_obeyed() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c"), "a\\u{1b}[2Jb\\u{202e}c");
        assert_eq!(printable("žluť 🐲"), "žluť 🐲");
    }
}
