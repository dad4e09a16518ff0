//! What a person is told about a rule file: where, what was found, what was expected, and a hint.
//!
//! A fault makes a file bad. A warning does not: it carries the name of its lint, and says what
//! comes of what was found. While a file is read, faults are [`Complaint`]s with byte spans; once all are known they become
//! [`Faults`] with lines and columns, ordered by place. At most [`MAX_FAULTS`] are kept; how many
//! more there were is said, never dropped in silence.

use std::{fmt, ops::Range};

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, renderer::DecorStyle,
};

/// More faults than this in one file are counted and not shown: nobody reads further.
pub const MAX_FAULTS: usize = 50;

/// A line longer than this is not shown as an excerpt: it is not a line that a person wrote.
const EXCERPT_BYTES_MAX: usize = 2_000;

/// One fault of a rule file, or one warning about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The lint that warns; none for a fault.
    pub lint: Option<&'static str>,
    /// Name of the file, as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Line where it ends, from 1.
    pub end_line: usize,
    /// Column in characters, from 1, of the first character behind it.
    pub end_column: usize,
    /// Bytes of the text it is about; may be empty at the end of a text.
    pub span: Range<usize>,
    /// What was found.
    pub message: String,
    /// What comes of it for a release; said by warnings only.
    pub means: Option<String>,
    /// What was expected instead.
    pub expected: String,
    /// What to do about it, when there is something to say.
    pub hint: Option<String>,
    /// Its line holds a secret and is not shown.
    secret: bool,
}

/// Every fault of one rule file, ordered by place; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.render(false))]
pub struct Faults {
    list: Vec<Fault>,
    text: String,
    more: usize,
}

impl Faults {
    /// The faults, at most [`MAX_FAULTS`], in the order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.list.iter()
    }

    /// How many faults there are, counting those that are not kept.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// The faults for a terminal: each with its place, an excerpt, what was expected and a hint.
    pub fn render(&self, color: bool) -> String {
        let mut parts: Vec<String> =
            self.list.iter().map(|fault| fault.render(&self.text, color)).collect();
        if self.more > 0 {
            parts.push(format!("and {} more faults after these", self.more));
        }
        parts.join("\n\n")
    }
}

impl<'a> IntoIterator for &'a Faults {
    type Item = &'a Fault;
    type IntoIter = std::slice::Iter<'a, Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { file, line, column, message, expected, .. } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        if let Some(means) = &self.means {
            write!(f, "; so {means}")?;
        }
        write!(f, "; expected {expected}")?;
        match &self.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl Fault {
    /// It for a terminal: with its place, an excerpt of `text` (the file it is about), what was
    /// expected and a hint.
    pub fn render(&self, text: &str, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(100);
        let title = match self.lint {
            None => Level::ERROR.primary_title(self.message.as_str()),
            Some(lint) => Level::WARNING.primary_title(self.message.as_str()).id(lint),
        };
        let (line_start, line) = line_at(text, self.span.start);
        let place = if self.secret || line.is_empty() || line.len() > EXCERPT_BYTES_MAX {
            Group::with_title(title)
                .element(Origin::path(self.file.as_str()).line(self.line).char_column(self.column))
        } else {
            // A fault at a line's CR stands behind what is shown of the line.
            let start = (self.span.start - line_start).min(line.len());
            let end = (self.span.end - line_start).clamp(start, line.len());
            title.element(
                Snippet::source(line)
                    .line_start(self.line)
                    .path(self.file.as_str())
                    .annotation(AnnotationKind::Primary.span(start..end)),
            )
        };
        let mut group = place;
        if let Some(means) = &self.means {
            group = group.element(Level::NOTE.with_name("so").message(means.as_str()));
        }
        group = group.element(Level::NOTE.with_name("expected").message(self.expected.as_str()));
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint.as_str()));
        }
        renderer.render(&[group])
    }
}

/// A fault while the file is still being read: bytes instead of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// Of a warning only; apart, since complaints are returned where warnings never are.
    pub(super) warning: Option<Box<Warning>>,
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) expected: String,
    pub(super) hint: Option<String>,
    pub(super) secret: bool,
}

/// What a warning says beyond what a fault does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Warning {
    pub(super) lint: &'static str,
    /// What comes of it for a release.
    pub(super) means: String,
}

impl Complaint {
    pub(super) fn new(
        span: Range<usize>,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            warning: None,
            span,
            message: message.into(),
            expected: expected.into(),
            hint: None,
            secret: false,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn hint_if(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Keeps the line out of what is shown: it holds a secret.
    pub(super) fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The same complaint about a text that lies elsewhere.
    pub(super) fn moved(mut self, to: impl FnOnce(Range<usize>) -> Range<usize>) -> Self {
        self.span = to(self.span);
        self
    }
}

/// The complaints about one file so far.
#[derive(Default)]
pub(super) struct Complaints {
    list: Vec<Complaint>,
    more: usize,
}

impl Complaints {
    pub(super) fn push(&mut self, complaint: Complaint) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.list.push(complaint);
        }
    }

    /// The value, or none after noting the complaint.
    pub(super) fn keep<T>(&mut self, result: Result<T, Complaint>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(complaint) => {
                self.push(complaint);
                None
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether further complaints would only be counted.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_FAULTS
    }

    pub(super) fn into_faults(self, file: &str, text: &str) -> Faults {
        let (list, more) = self.placed(file, text);
        Faults { list, text: text.to_owned(), more }
    }

    /// What was complained about, with lines and columns, in the order of places; and how much more
    /// there was.
    pub(super) fn placed(mut self, file: &str, text: &str) -> (Vec<Fault>, usize) {
        self.list.sort_by_key(|complaint| complaint.span.start);
        let mut counted = Position::default();
        let list = self.list.into_iter().map(|complaint| {
            let start = floor_boundary(text, complaint.span.start);
            counted.advance(text, start);
            let end = floor_boundary(text, complaint.span.end).max(start);
            let mut behind = counted.clone();
            behind.advance(text, end);
            let warning = complaint.warning.map(|warning| *warning);
            let (lint, means) = warning.map(|warning| (warning.lint, warning.means)).unzip();
            Fault {
                lint,
                file: file.to_owned(),
                line: counted.line + 1,
                column: counted.column(text),
                end_line: behind.line + 1,
                end_column: behind.column(text),
                span: start..end,
                message: complaint.message,
                means,
                expected: complaint.expected,
                hint: complaint.hint,
                secret: complaint.secret,
            }
        });
        let mut list: Vec<Fault> = list.collect();
        let secret_lines: Vec<usize> =
            list.iter().filter(|fault| fault.secret).map(|fault| fault.line).collect();
        for fault in &mut list {
            fault.secret = secret_lines.contains(&fault.line);
        }
        (list, self.more)
    }
}

/// Where in a text we have counted to, so that many faults cost one pass.
#[derive(Clone, Default)]
struct Position {
    line: usize,
    line_start: usize,
    at: usize,
}

impl Position {
    fn advance(&mut self, text: &str, to: usize) {
        for (offset, byte) in text.as_bytes()[self.at..to].iter().enumerate() {
            if *byte == b'\n' {
                self.line += 1;
                self.line_start = self.at + offset + 1;
            }
        }
        self.at = to;
    }

    /// Characters from 1; a byte order mark before the first line is none.
    fn column(&self, text: &str) -> usize {
        let before = &text[self.line_start..self.at];
        // Only at the very beginning is it a byte order mark; elsewhere it is a character.
        let mark = self.line_start == 0 && before.starts_with('\u{feff}');
        before.chars().count() + 1 - usize::from(mark)
    }
}

/// The nearest of `known` to what was written, when it is near enough to be meant.
pub(super) fn nearest<'k>(
    written: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<&'k str> {
    // A name this long was not a slip of the finger, and the distance costs its square.
    if written.len() > 64 {
        return None;
    }
    let lower = written.to_lowercase();
    let allowed = written.chars().count().div_ceil(3);
    let sorted_words = |name: &str| {
        let mut words: Vec<String> = name.split('_').map(str::to_owned).collect();
        words.sort();
        words
    };
    let words = sorted_words(&lower);
    let distance = |name: &str| {
        // `latency_p95` for `p95_latency` is far in letters and near in mind.
        let name = name.to_lowercase();
        if sorted_words(&name) == words { 1 } else { strsim::osa_distance(&lower, &name) }
    };
    known
        .into_iter()
        .map(|name| (distance(name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// "did you mean `x`?" for the nearest known name.
pub(super) fn did_you_mean<'k>(
    written: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<String> {
    nearest(written, known).map(|name| format!("did you mean `{name}`?"))
}

/// At most 60 characters of something a file says, on one line.
pub(super) fn excerpt(text: &str) -> String {
    let mut short: String =
        text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        short.push_str("...");
    }
    short
}

fn line_at(text: &str, offset: usize) -> (usize, &str) {
    // A byte order mark is no character of the first line.
    let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8().min(offset) } else { 0 };
    let start = text[..offset].rfind('\n').map_or(first, |newline| newline + 1);
    let end = text[offset..].find('\n').map_or(text.len(), |newline| offset + newline);
    (start, text[start..end].trim_end_matches('\r'))
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let text = "a: 1\r\nü: grün\nlast";
        let check = |needle: &str, expected: (usize, usize)| {
            let mut complaints = Complaints::default();
            let at = text.find(needle).expect("the needle is in the text");
            complaints.push(Complaint::new(at..at + needle.len(), "m", "e"));
            let faults = complaints.into_faults("f", text);
            let fault = &faults.list[0];
            assert_eq!((fault.line, fault.column), expected, "{needle}");
        };
        check("a", (1, 1));
        check("1", (1, 4));
        check("grün", (2, 4));
        check("last", (3, 1));
    }

    #[test]
    fn faults_beyond_the_limit_are_counted() {
        let mut complaints = Complaints::default();
        for _ in 0..MAX_FAULTS + 7 {
            complaints.push(Complaint::new(0..1, "m", "e"));
        }
        let faults = complaints.into_faults("f", "text");
        assert_eq!((faults.iter().count(), faults.count()), (MAX_FAULTS, MAX_FAULTS + 7));
        assert!(faults.render(false).ends_with("and 7 more faults after these"));
    }

    #[test]
    fn only_a_near_name_is_suggested() {
        let known = ["error_rate", "p95_latency", "app"];
        let check = |written: &str, expected: Option<&str>| {
            assert_eq!(nearest(written, known), expected, "{written}");
        };
        check("eror_rate", Some("error_rate"));
        check("Error_Rate", Some("error_rate"));
        check("p99_latency", Some("p95_latency"));
        check("ap", Some("app"));
        check("latency_p95", Some("p95_latency"));
        check("xy", None);
        check("memory", None);
        check(&"e".repeat(1000), None);
    }
}
