//! Lines of toned text: measured first and coloured last, so that no width ever counts an escape.
//!
//! Text that came from outside (rules, reasons, details of a failed scrape) passes [`clean`]: a
//! target must not be able to move the cursor of whoever watches it.

use owo_colors::{OwoColorize, Style};

/// Longest foreign text that is shown; the whole of it is in the JSON.
pub const TEXT_CHARS_MAX: usize = 600;

/// What a piece of text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Ordinary.
    Plain,
    /// In the background.
    Dim,
    /// To be read first.
    Strong,
    /// As it should be.
    Good,
    /// Wants an eye.
    Warn,
    /// As it should not be.
    Bad,
    /// Neither good nor bad.
    Info,
}

impl Tone {
    fn colours(self) -> Style {
        match self {
            Tone::Plain => Style::new(),
            Tone::Dim => Style::new().dimmed(),
            Tone::Strong => Style::new().bold(),
            Tone::Good => Style::new().green(),
            Tone::Warn => Style::new().yellow(),
            Tone::Bad => Style::new().red().bold(),
            Tone::Info => Style::new().cyan(),
        }
    }
}

/// One line of the terminal.
#[derive(Clone, Debug, Default)]
pub struct Line(Vec<(String, Tone)>);

impl Line {
    /// A line of one piece.
    pub fn of(text: impl Into<String>, tone: Tone) -> Self {
        Self(vec![(text.into(), tone)])
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, text: impl Into<String>, tone: Tone) {
        self.0.push((text.into(), tone));
    }

    /// The same line with a piece more.
    pub fn and(mut self, text: impl Into<String>, tone: Tone) -> Self {
        self.push(text, tone);
        self
    }

    /// Columns it takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(text, _)| width(text)).sum()
    }

    /// The line as written to the terminal, without blanks at its end.
    pub fn render(&self, color: bool) -> String {
        let mut pieces = self.0.as_slice();
        while let Some(((text, _), before)) = pieces.split_last()
            && text.trim_end().is_empty()
        {
            pieces = before;
        }
        let mut out = String::new();
        for (place, (text, tone)) in pieces.iter().enumerate() {
            let text = if place + 1 == pieces.len() { text.trim_end() } else { text };
            if color && *tone != Tone::Plain && !text.is_empty() {
                out.push_str(&text.style(tone.colours()).to_string());
            } else {
                out.push_str(text);
            }
        }
        out
    }
}

/// Columns that `text` takes in a terminal.
pub fn width(text: &str) -> usize {
    console::measure_text_width(text)
}

/// `text` at the left of `columns`, cut with an ellipsis when it is longer.
pub fn left(text: &str, columns: usize) -> String {
    let cut = cut(text, columns);
    let blanks = columns.saturating_sub(width(&cut));
    cut + &" ".repeat(blanks)
}

/// `text` at the right of `columns`, cut with an ellipsis when it is longer.
pub fn right(text: &str, columns: usize) -> String {
    let cut = cut(text, columns);
    " ".repeat(columns.saturating_sub(width(&cut))) + &cut
}

fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let (head, _) = split(text, columns.saturating_sub(1));
    if columns == 0 { String::new() } else { format!("{}…", head.trim_end()) }
}

/// The longest head of `text` that fits into `columns`, and the rest.
fn split(text: &str, columns: usize) -> (&str, &str) {
    let mut taken = 0;
    for (place, letter) in text.char_indices() {
        taken += width(letter.encode_utf8(&mut [0; 4]));
        if taken > columns {
            return text.split_at(place);
        }
    }
    (text, "")
}

/// `text` broken between words into lines of at most `columns`; a longer word is broken inside.
/// Beyond `lines_max` lines the last one ends with an ellipsis.
pub fn wrap(text: &str, columns: usize, lines_max: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for mut word in text.split_whitespace() {
        let space = usize::from(!line.is_empty());
        if width(&line) + space + width(word) > columns && !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        while width(word) > columns {
            let (head, rest) = split(word, columns);
            lines.push(head.to_owned());
            word = rest;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    if lines.len() > lines_max {
        lines.truncate(lines_max);
        if let Some(last) = lines.last_mut() {
            *last = cut(&format!("{last} …"), columns);
        }
    }
    lines
}

/// Foreign text made harmless: no control characters, no reversal of direction, a bounded length.
pub fn clean(text: &str) -> String {
    let mut clean: String = text
        .chars()
        .take(TEXT_CHARS_MAX)
        .map(|letter| match letter {
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            '\n' | '\t' | '\r' => ' ',
            letter if letter.is_control() => '\u{fffd}',
            letter => letter,
        })
        .collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        clean.push('…');
    }
    clean
}

/// A meter of `columns`: how much of the whole `share` is. Half a column is its resolution.
pub fn meter(share: f64, columns: usize) -> (String, String) {
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    // Rounded down, so that it is full only when there is nothing left to wait for.
    let halves = (share * columns as f64 * 2.0 + 1e-9).floor() as usize;
    let mut done = "━".repeat(halves / 2);
    if halves % 2 == 1 {
        done.push('╸');
    }
    let open = "─".repeat(columns - halves.div_ceil(2));
    (done, open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_padded_by_columns() {
        for (text, columns, expected_left, expected_right) in [
            ("abc", 5, "abc  ", "  abc"),
            ("abcdef", 5, "abcd…", "abcd…"),
            ("日本語", 5, "日本…", "日本…"),
            ("日本語", 4, "日… ", " 日…"),
            ("a", 0, "", ""),
        ] {
            assert_eq!(left(text, columns), expected_left);
            assert_eq!(right(text, columns), expected_right);
        }
    }

    #[test]
    fn words_wrap_and_long_ones_break() {
        for (text, columns, lines_max, expected) in [
            ("one two three", 7, 9, vec!["one two", "three"]),
            ("abcdefgh ij", 5, 9, vec!["abcde", "fgh", "ij"]),
            ("one two three four", 7, 2, vec!["one two", "three …"]),
            ("", 7, 2, vec![""]),
        ] {
            assert_eq!(wrap(text, columns, lines_max), expected, "{text}");
        }
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb c\u{fffd}d");
        assert_eq!(clean(&"x".repeat(5000)).chars().count(), TEXT_CHARS_MAX + 1);
    }

    #[test]
    fn a_meter_is_full_only_at_its_limit() {
        for (share, expected) in [
            (-1.0, "────"),
            (0.0, "────"),
            (0.13, "╸───"),
            (0.5, "━━──"),
            (0.99, "━━━╸"),
            (1.0, "━━━━"),
            (7.0, "━━━━"),
            (f64::NAN, "────"),
        ] {
            let (done, open) = meter(share, 4);
            assert_eq!(done + &open, expected, "{share}");
        }
    }

    #[test]
    fn colour_adds_no_width() {
        let line = Line::of("▲ fires", Tone::Bad).and("  x  ", Tone::Plain).and(" ", Tone::Dim);
        assert_eq!(line.render(false), "▲ fires  x");
        assert_eq!(width(&anstream::adapter::strip_str(&line.render(true)).to_string()), 10);
        assert!(line.render(true).contains("\u{1b}["));
    }
}
