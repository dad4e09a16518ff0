//! Foreign text made fit for one line of a finding: short, printable, without line breaks.
//!
//! It deliberately knows nothing of secrets: callers must not pass what may hold one.

/// How much of a foreign text a detail may quote.
pub(super) const EXCERPT_CHARS_MAX: usize = 160;

/// The beginning of a text, on one line. Control characters become spaces, runs of space one.
pub(super) fn excerpt(text: &str) -> String {
    let mut short = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if chars > 0 {
            short.push(' ');
            chars += 1;
        }
        for c in word.chars() {
            if chars >= EXCERPT_CHARS_MAX {
                short.push('…');
                return short;
            }
            short.push(c);
            chars += 1;
        }
    }
    short
}

/// The same of bytes that may not be text.
pub(super) fn excerpt_bytes(bytes: &[u8]) -> String {
    // Four bytes a character at most, and some slack for the spaces that are folded.
    excerpt(&String::from_utf8_lossy(&bytes[..bytes.len().min(8 * EXCERPT_CHARS_MAX)]))
}

/// A duration as an operator would write it.
pub(super) fn in_words(duration: std::time::Duration) -> String {
    if duration.as_millis() < 1000 {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_short_printable_line() {
        let check = |text: &str, expected: &str| assert_eq!(excerpt(text), expected);
        check("", "");
        check("  two\r\n\tlines\u{1b}[31m ", "two lines [31m");
        check(&"x".repeat(1000), &format!("{}…", "x".repeat(EXCERPT_CHARS_MAX)));
        assert_eq!(excerpt_bytes(b"\xff\xfe ok"), "\u{fffd}\u{fffd} ok");
    }
}
