//! The grammar of one line: a sample in either format, or the metadata of OpenMetrics.
//!
//! Works on one line without its end, so nothing here can reach into another line. A fault is a
//! column and an expectation and costs no memory until it is put into words. Nothing is guessed:
//! what the grammar does not name is a fault, even where only one reading seems possible.

use std::borrow::Cow;

use super::{Format, LabelRef, Limits, number};

/// Characters an exemplar's label names and values may have in all, by OpenMetrics.
const EXEMPLAR_CHARS_MAX: usize = 128;

/// Characters of the offending text that a message quotes.
const EXCERPT_CHARS: usize = 40;

/// What is expected of bytes that are no text.
pub(super) const UTF8: &str = "UTF-8";

/// Where a line stopped making sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Byte offset in the line.
    at: usize,
    expected: &'static str,
}

impl Fault {
    pub fn new(at: usize, expected: &'static str) -> Self {
        Self { at, expected }
    }

    pub fn is_broken_utf8(&self) -> bool {
        self.expected == UTF8
    }

    /// Line, column, what was found and what was expected.
    pub fn words(&self, line: &[u8], number: u64) -> String {
        let rest = &line[self.at.min(line.len())..];
        let rest = &rest[..rest.len().min(4 * EXCERPT_CHARS)];
        let text = String::from_utf8_lossy(rest);
        let excerpt: String = text.chars().take(EXCERPT_CHARS).collect();
        let found = if rest.is_empty() { "the end".to_owned() } else { format!("{excerpt:?}") };
        format!("line {number}, column {}: found {found}, expected {}", self.at + 1, self.expected)
    }
}

/// What a sample line says, beside its labels.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub name: Cow<'a, str>,
    pub value: f64,
    pub timestamp_secs: Option<f64>,
}

/// How a native histogram begins in drafts of OpenMetrics 2.0, which is no settled format.
const NATIVE_DRAFT: &str = "{count:";

/// Lexes a sample; its labels are added to `labels`, which must come empty.
pub(super) fn sample<'a>(
    line: &'a str,
    format: Format,
    labels: &mut Vec<LabelRef<'a>>,
    limits: &Limits,
) -> Result<Head<'a>, Fault> {
    number_sample(line, format, labels, limits).map_err(|fault| match line.find(NATIVE_DRAFT) {
        Some(at) if fault.at >= at => {
            Fault::new(at, "a number: native histograms are read from protobuf, not from text")
        }
        Some(_) | None => fault,
    })
}

fn number_sample<'a>(
    line: &'a str,
    format: Format,
    labels: &mut Vec<LabelRef<'a>>,
    limits: &Limits,
) -> Result<Head<'a>, Fault> {
    let mut lexer = Lexer { line, bytes: line.as_bytes(), at: 0, format };
    lexer.blanks();
    let mut name = None;
    if lexer.peek() != Some(b'{') {
        name = Some(Cow::Borrowed(lexer.name(Alphabet::Metric)?));
        lexer.blanks();
    }
    if lexer.peek() == Some(b'{') {
        lexer.braces(&mut name, labels, limits)?;
        // The text format needs no blank after a brace.
        match format {
            Format::Text => lexer.blanks(),
            Format::OpenMetrics => lexer.space("a space before the value")?,
        }
    } else if format == Format::OpenMetrics {
        lexer.space("`{` or a space")?;
    } else if !matches!(lexer.bytes.get(lexer.at.wrapping_sub(1)), Some(b' ' | b'\t')) {
        return Err(lexer.fault("`{` or a blank"));
    }
    let Some(name) = name else {
        return Err(Fault::new(0, "a metric name"));
    };
    let value = lexer.token(number::value, "a decimal value, NaN or Inf")?;
    let timestamp_secs = match format {
        Format::Text => lexer.text_tail()?,
        Format::OpenMetrics => lexer.openmetrics_tail(limits)?,
    };
    Ok(Head { name, value, timestamp_secs })
}

/// Checks the syntax of a `#` line of OpenMetrics, where free comments are not allowed.
pub(super) fn metadata(line: &str) -> Result<(), Fault> {
    let keyword = line.strip_prefix("# ").and_then(|rest| rest.split(' ').next());
    if !matches!(keyword, Some("HELP" | "TYPE" | "UNIT")) {
        return Err(Fault::new(0, "`# HELP`, `# TYPE`, `# UNIT` or `# EOF`"));
    }
    let mut lexer =
        Lexer { line, bytes: line.as_bytes(), at: "# HELP".len(), format: Format::OpenMetrics };
    lexer.space("a space and a metric name")?;
    if lexer.peek() == Some(b'"') {
        lexer.quoted()?;
    } else {
        lexer.name(Alphabet::Metric)?;
    }
    lexer.space("a space and the text")?;
    // Which word it is belongs to the meaning, but it is one word.
    match line[lexer.at..].find([' ', '\t']) {
        Some(blank) if keyword != Some("HELP") => {
            Err(Fault::new(lexer.at + blank, "the end of the line"))
        }
        _ => Ok(()),
    }
}

/// Which letters a bare name is made of.
#[derive(Clone, Copy)]
enum Alphabet {
    Metric,
    Label,
}

const IN_METRIC: u8 = 1;
const IN_LABEL: u8 = 2;

/// Which names each byte may be part of.
const LETTERS: [u8; 256] = {
    let mut letters = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        letters[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => IN_METRIC | IN_LABEL,
            b':' => IN_METRIC,
            _ => 0,
        };
        byte += 1;
    }
    letters
};

struct Lexer<'a> {
    line: &'a str,
    bytes: &'a [u8],
    at: usize,
    format: Format,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fault(&self, expected: &'static str) -> Fault {
        Fault::new(self.at, expected)
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Fault> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.fault(expected))
        }
    }

    fn space(&mut self, expected: &'static str) -> Result<(), Fault> {
        self.expect(b' ', expected)
    }

    /// Blanks where the text format has them free; OpenMetrics has none there.
    fn blanks(&mut self) {
        if self.format == Format::Text {
            while let Some(b' ' | b'\t') = self.peek() {
                self.at += 1;
            }
        }
    }

    #[inline]
    fn name(&mut self, alphabet: Alphabet) -> Result<&'a str, Fault> {
        let start = self.at;
        let letters = match alphabet {
            Alphabet::Metric => IN_METRIC,
            Alphabet::Label => IN_LABEL,
        };
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            let rest = self.bytes[start..].iter();
            self.at += rest.take_while(|byte| LETTERS[usize::from(**byte)] & letters != 0).count();
        }
        if self.at == start {
            return Err(self.fault(match alphabet {
                Alphabet::Metric => "a metric name",
                Alphabet::Label => "a label name or `}`",
            }));
        }
        Ok(&self.line[start..self.at])
    }

    /// A quoted string from its first quote to past its last.
    fn quoted(&mut self) -> Result<Cow<'a, str>, Fault> {
        if let Some(plain) = self.plain() {
            return Ok(Cow::Borrowed(plain));
        }
        self.expect(b'"', "`\"`")?;
        self.escaped(self.at)
    }

    /// A quoted string without an escape, as nearly all are; otherwise nothing is taken.
    #[inline(always)]
    fn plain(&mut self) -> Option<&'a str> {
        let rest = self.bytes[self.at..].strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if rest[end] == b'\\' {
            return None;
        }
        let start = self.at + 1;
        self.at = start + end + 1;
        Some(&self.line[start..start + end])
    }

    /// The rest of a quoted string that holds a backslash or has no end.
    #[cold]
    fn escaped(&mut self, start: usize) -> Result<Cow<'a, str>, Fault> {
        let mut text = String::new();
        let mut copied = start;
        loop {
            match self.peek() {
                Some(b'"') => {
                    text.push_str(&self.line[copied..self.at]);
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    text.push_str(&self.line[copied..self.at]);
                    let meant = match (self.bytes.get(self.at + 1), self.format) {
                        (Some(b'n'), _) => Some('\n'),
                        (Some(b'"'), _) => Some('"'),
                        (Some(b'\\'), _) => Some('\\'),
                        (Some(_), Format::Text) => {
                            return Err(self.fault("one of `\\\\`, `\\\"` and `\\n`"));
                        }
                        // OpenMetrics lets an unknown escape stand for itself.
                        (Some(_), Format::OpenMetrics) => None,
                        (None, _) => return Err(self.fault("a closing `\"`")),
                    };
                    copied = self.at;
                    self.at += 1;
                    if let Some(meant) = meant {
                        text.push(meant);
                        self.at += 1;
                        copied = self.at;
                    }
                }
                Some(_) => self.at += 1,
                None => return Err(self.fault("a closing `\"`")),
            }
        }
    }

    /// Labels in braces; a quoted string without `=` is the metric's name.
    fn braces(
        &mut self,
        name: &mut Option<Cow<'a, str>>,
        labels: &mut Vec<LabelRef<'a>>,
        limits: &Limits,
    ) -> Result<(), Fault> {
        self.expect(b'{', "`{`")?;
        self.blanks();
        let mut after_comma = false;
        loop {
            if self.peek() == Some(b'}') && (!after_comma || self.format == Format::Text) {
                self.at += 1;
                return Ok(());
            }
            self.label_or_name(name, labels, limits)?;
            self.blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.fault("`,` or `}`")),
            }
            after_comma = true;
            self.blanks();
        }
    }

    #[inline]
    fn label_or_name(
        &mut self,
        name: &mut Option<Cow<'a, str>>,
        labels: &mut Vec<LabelRef<'a>>,
        limits: &Limits,
    ) -> Result<(), Fault> {
        let start = self.at;
        let label = if self.peek() == Some(b'"') {
            let quoted = self.quoted()?;
            if quoted.is_empty() {
                return Err(Fault::new(start, "a name that is not empty"));
            }
            self.blanks();
            if self.peek() != Some(b'=') {
                if name.is_some() {
                    return Err(self.fault("`=`, since the metric has a name already"));
                }
                *name = Some(quoted);
                return Ok(());
            }
            quoted
        } else {
            let bare = self.name(Alphabet::Label)?;
            self.blanks();
            Cow::Borrowed(bare)
        };
        self.expect(b'=', "`=` after the label name")?;
        self.blanks();
        if self.peek() != Some(b'"') {
            return Err(self.fault("a label value in `\"`"));
        }
        let value = match self.plain() {
            Some(plain) => Cow::Borrowed(plain),
            None => self.quoted()?,
        };
        if labels.iter().any(|known| known.name.len() == label.len() && known.name == label) {
            return Err(Fault::new(start, "a label name not used before on this line"));
        }
        if labels.len() >= limits.labels_per_series {
            return Err(Fault::new(start, "fewer labels"));
        }
        labels.push(LabelRef { name: label, value });
        Ok(())
    }

    /// The run of bytes up to the next blank, as `parse` reads it.
    fn token<T>(
        &mut self,
        parse: impl Fn(&str) -> Option<T>,
        expected: &'static str,
    ) -> Result<T, Fault> {
        let start = self.at;
        while let Some(byte) = self.peek()
            && byte != b' '
            && byte != b'\t'
        {
            self.at += 1;
        }
        parse(&self.line[start..self.at]).ok_or(Fault::new(start, expected))
    }

    /// After the value in text: perhaps a timestamp in milliseconds.
    fn text_tail(&mut self) -> Result<Option<f64>, Fault> {
        self.blanks();
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let millis = self.token(number::millis, "a timestamp in whole milliseconds")?;
        self.blanks();
        if self.at < self.bytes.len() {
            return Err(self.fault("the end of the line"));
        }
        Ok(Some(millis as f64 / 1000.0))
    }

    /// After the value in OpenMetrics: perhaps a timestamp in seconds, perhaps an exemplar.
    fn openmetrics_tail(&mut self, limits: &Limits) -> Result<Option<f64>, Fault> {
        let mut timestamp_secs = None;
        if self.at < self.bytes.len() && !self.line[self.at..].starts_with(" #") {
            self.space("a space")?;
            timestamp_secs = Some(self.token(number::real, "a timestamp in seconds or ` # {`")?);
        }
        if self.at == self.bytes.len() {
            return Ok(timestamp_secs);
        }
        self.exemplar(limits)?;
        Ok(timestamp_secs)
    }

    fn exemplar(&mut self, limits: &Limits) -> Result<(), Fault> {
        if !self.line[self.at..].starts_with(" # {") {
            return Err(self.fault("the end of the line or ` # {`"));
        }
        self.at += " # ".len();
        let start = self.at;
        let (mut name, mut labels) = (None, Vec::new());
        self.braces(&mut name, &mut labels, limits)?;
        if name.is_some() {
            return Err(Fault::new(start, "exemplar labels without a metric name"));
        }
        let chars: usize = labels
            .iter()
            .map(|label| label.name.chars().count() + label.value.chars().count())
            .sum();
        if chars > EXEMPLAR_CHARS_MAX {
            return Err(Fault::new(start, "exemplar labels of at most 128 characters in all"));
        }
        self.space("a space before the exemplar's value")?;
        self.token(number::value, "the exemplar's value")?;
        if self.at < self.bytes.len() {
            self.space("a space")?;
            self.token(number::real, "the exemplar's timestamp in seconds")?;
        }
        if self.at < self.bytes.len() { Err(self.fault("the end of the line")) } else { Ok(()) }
    }
}
