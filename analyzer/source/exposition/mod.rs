//! Reads metric expositions: the Prometheus text format and OpenMetrics 1.0, with the quoted UTF-8
//! names of Prometheus 3.
//!
//! Lenient about meaning, strict about syntax. A line that is not a sample costs that line, which
//! is counted and, when it is the first, named; only what makes the whole answer untrustworthy (an
//! HTML page, a cut OpenMetrics body, a limit passed) refuses the body. Nothing in a label value
//! can forge a sample, a label or a line. Only lines of wanted sample names are lexed; the others
//! are skipped at the speed of memory, so what is wrong in them goes unseen.
//!
//! Deliberately absent: families. HELP, TYPE and UNIT decide nothing here, because targets get
//! them wrong and rules name the samples they read; so clashing families, misplaced metadata,
//! impossible histograms and duplicate series are not faults of this reader. Exemplars and
//! timestamps must be well formed but are not handed on with a [`Sample`].

mod grams;
mod line;
mod number;
mod protobuf;
mod search;
mod whole;

use std::{borrow::Cow, sync::Arc};

use memchr::memchr_iter;

use crate::signal::sample::{Labels, RefusedLines, Sample};

use line::Fault;
pub use protobuf::{is_content_type as is_protobuf, read_protobuf};
pub use search::Wanted;
pub use whole::Refusal;
use whole::{check_head, check_whole};

/// Which grammar a body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4 and 1.0.0: blanks are free, timestamps are milliseconds. A carriage
    /// return before the line feed is taken as part of the line's end.
    Text,
    /// OpenMetrics 1.0: every blank counts, timestamps are seconds, `# EOF` ends the body.
    OpenMetrics,
}

impl Format {
    /// The format a `Content-Type` announces; none for what is not an exposition we read (an HTML
    /// page, JSON, protobuf, a foreign character set). An absent type reads as text, since small
    /// exporters forget it and the body is checked anyway.
    pub fn of_content_type(content_type: &str) -> Option<Format> {
        let mut parts = content_type.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let foreign = parts.filter_map(|part| part.split_once('=')).any(|(key, value)| {
            key.trim().eq_ignore_ascii_case("charset")
                && !["utf-8", "utf8", "us-ascii"]
                    .iter()
                    .any(|known| value.trim().trim_matches('"').eq_ignore_ascii_case(known))
        });
        if foreign {
            return None;
        }
        match media.to_ascii_lowercase().as_str() {
            "" | "text/plain" => Some(Format::Text),
            "application/openmetrics-text" => Some(Format::OpenMetrics),
            _ => None,
        }
    }
}

/// What a body may cost. Each limit has a test that reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body; a larger one is refused unread.
    pub body_bytes: usize,
    /// Samples kept of a body; one more refuses it.
    pub samples: usize,
    /// Bytes of a line; a longer one is refused.
    pub line_bytes: usize,
    /// Labels of a series or an exemplar; a line with more is refused.
    pub labels_per_series: usize,
    /// Lines that are not UTF-8; one more refuses the body, which is then no text at all.
    pub broken_utf8_lines: u32,
}

impl Default for Limits {
    /// The largest body met in the field has 2.7 MB, 18,000 samples and lines below 2 KB.
    fn default() -> Self {
        Self {
            body_bytes: 16 << 20,
            samples: 200_000,
            line_bytes: 64 << 10,
            labels_per_series: 128,
            broken_utf8_lines: 100,
        }
    }
}

/// What was read of a body.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// The samples kept, in the body's order, duplicates included.
    pub samples: Vec<Sample>,
    /// Lines that could not be read.
    pub refused: Option<RefusedLines>,
    /// Lines looked into: those of wanted names, or all.
    pub lines: u64,
}

/// What [`visit`] saw, beside the samples it handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Samples handed out.
    pub samples: u64,
    /// Lines that could not be read.
    pub refused: Option<RefusedLines>,
    /// Lines looked into: those of wanted names, or all.
    pub lines: u64,
}

/// One sample, borrowed from the body.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRef<'a> {
    /// Name as exposed; owned only when it was quoted and held an escape.
    pub name: Cow<'a, str>,
    /// Labels in the line's order; no name occurs twice.
    pub labels: &'a [LabelRef<'a>],
    /// The value, which may be NaN or infinite.
    pub value: f64,
    /// When it was taken, in unix seconds in both formats, if the line says so.
    pub timestamp_secs: Option<f64>,
}

/// One label, borrowed from the body.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelRef<'a> {
    /// Its name; owned only when it was quoted and held an escape.
    pub name: Cow<'a, str>,
    /// Its value; owned only when it held an escape.
    pub value: Cow<'a, str>,
}

/// Labels a usual series has at most; more cost an allocation.
const LABELS_USUAL: usize = 16;

/// Bytes of a usual line, for a first guess at the number of samples.
const LINE_BYTES_USUAL: usize = 96;

/// Reads a body and keeps the wanted samples for which `keep` says yes. Memory grows with what is
/// kept, never with what is refused or skipped.
pub fn read(
    body: &[u8],
    format: Format,
    wanted: &Wanted,
    mut keep: impl FnMut(&SampleRef<'_>) -> bool,
    limits: &Limits,
) -> Result<Body, Refusal> {
    let mut samples = Vec::new();
    let mut last_name: Arc<str> = Arc::from("");
    let report = walk(body, format, wanted, limits, |sample| {
        if keep(sample) {
            if samples.len() >= limits.samples {
                return Err(Refusal::TooManySamples { limit: limits.samples });
            }
            if samples.is_empty() && wanted.listed().is_none() {
                // Growing step by step would copy each sample once more and scatter the heap.
                samples.reserve((body.len() / LINE_BYTES_USUAL).min(limits.samples));
            }
            samples.push(owned(sample, &mut last_name));
        }
        Ok(())
    })?;
    Ok(Body { samples, refused: report.refused, lines: report.lines })
}

/// Hands out the wanted samples of a body one by one, without copying them.
pub fn visit(
    body: &[u8],
    format: Format,
    wanted: &Wanted,
    limits: &Limits,
    mut on_sample: impl FnMut(&SampleRef<'_>),
) -> Result<Report, Refusal> {
    let mut seen = 0;
    walk(body, format, wanted, limits, |sample| {
        if seen >= limits.samples {
            return Err(Refusal::TooManySamples { limit: limits.samples });
        }
        seen += 1;
        on_sample(sample);
        Ok(())
    })
}

fn owned(sample: &SampleRef<'_>, last_name: &mut Arc<str>) -> Sample {
    // Samples of one family follow each other: they share their name.
    if **last_name != *sample.name {
        *last_name = Arc::from(&*sample.name);
    }
    let mut few = [("", ""); LABELS_USUAL];
    let labels = match few.get_mut(..sample.labels.len()) {
        Some(few) => {
            for (pair, label) in few.iter_mut().zip(sample.labels) {
                *pair = (&label.name, &label.value);
            }
            Labels::of(few)
        }
        None => {
            let pairs = sample.labels.iter().map(|label| (&*label.name, &*label.value));
            Labels::of(&mut pairs.collect::<Vec<_>>())
        }
    };
    Sample::number(last_name.clone(), labels, sample.value)
}

/// The one way through a body: checks it as a whole, then lexes the wanted lines.
fn walk(
    body: &[u8],
    format: Format,
    wanted: &Wanted,
    limits: &Limits,
    on_sample: impl FnMut(&SampleRef<'_>) -> Result<(), Refusal>,
) -> Result<Report, Refusal> {
    let lines = check_whole(body, format, limits)?;
    let mut reader = Reader {
        body: lines,
        text: None,
        format,
        limits,
        labels: Vec::new(),
        tally: Tally::default(),
        on_sample,
    };
    match wanted.listed() {
        None => {
            reader.text = std::str::from_utf8(lines).ok();
            let mut start = 0;
            for end in memchr_iter(b'\n', lines).chain(std::iter::once(lines.len())) {
                // The end of the body ends a line only if something stands on it.
                if start < end || end < lines.len() {
                    reader.any_line(start, end)?;
                }
                start = end + 1;
            }
            if reader.tally.samples == 0 && reader.tally.refused > 0 {
                return Err(Refusal::NotExposition { first: reader.tally.first });
            }
        }
        Some(names) => {
            check_head(lines, format, limits)?;
            names.lines(lines, |start, end| reader.wanted_line(start, end, wanted))?;
        }
    }
    Ok(reader.tally.report())
}

/// The line as text, if it is short enough and UTF-8.
fn check_line<'a>(line: &'a [u8], limits: &Limits) -> Result<&'a str, Fault> {
    if line.len() > limits.line_bytes {
        return Err(Fault::new(limits.line_bytes, "a shorter line"));
    }
    std::str::from_utf8(line).map_err(|error| Fault::new(error.valid_up_to(), line::UTF8))
}

/// Drops the carriage return that some text expositions have before the line feed.
fn trim_end(line: &[u8], format: Format) -> &[u8] {
    match format {
        Format::Text => line.strip_suffix(b"\r").unwrap_or(line),
        Format::OpenMetrics => line,
    }
}

/// Number of the line, from 1, that the byte at `at` stands on.
fn line_number(body: &[u8], at: usize) -> u64 {
    memchr_iter(b'\n', &body[..at]).count() as u64 + 1
}

/// What has been counted so far.
#[derive(Default)]
struct Tally {
    samples: u64,
    lines: u64,
    refused: u32,
    /// The first refused line, in words.
    first: String,
    broken_utf8: u32,
    /// Line number of the first that is not UTF-8.
    broken_utf8_first: u64,
}

impl Tally {
    fn report(self) -> Report {
        let refused =
            (self.refused > 0).then_some(RefusedLines { lines: self.refused, first: self.first });
        Report { samples: self.samples, refused, lines: self.lines }
    }
}

struct Reader<'a, 'l, F> {
    body: &'a [u8],
    /// The body as text if all of it was found to be: checking it at once is faster than by line.
    text: Option<&'a str>,
    format: Format,
    limits: &'l Limits,
    /// Room for the labels of one line, used again for the next.
    labels: Vec<LabelRef<'a>>,
    tally: Tally,
    on_sample: F,
}

impl<'a, F: FnMut(&SampleRef<'_>) -> Result<(), Refusal>> Reader<'a, '_, F> {
    /// Reads a line when every line counts: comments and blank lines have a grammar too.
    fn any_line(&mut self, start: usize, end: usize) -> Result<(), Refusal> {
        self.tally.lines += 1;
        let raw = trim_end(&self.body[start..end], self.format);
        let fault = match self.format {
            Format::Text => match raw.trim_ascii_start().first() {
                None | Some(b'#') => return Ok(()),
                Some(_) => None,
            },
            Format::OpenMetrics if raw == b"# EOF" => {
                return Err(Refusal::TextAfterEof { line: line_number(self.body, start) });
            }
            Format::OpenMetrics if raw.first() == Some(&b'#') => {
                match check_line(raw, self.limits).and_then(line::metadata) {
                    Ok(()) => return Ok(()),
                    Err(fault) => Some(fault),
                }
            }
            Format::OpenMetrics => None,
        };
        match fault {
            Some(fault) => self.refuse(&fault, start, raw),
            None => self.sample_line(start, raw, None),
        }
    }

    /// Reads a line that begins like a sample of a wanted name.
    fn wanted_line(&mut self, start: usize, end: usize, wanted: &Wanted) -> Result<(), Refusal> {
        self.tally.lines += 1;
        let raw = trim_end(&self.body[start..end], self.format);
        self.sample_line(start, raw, Some(wanted))
    }

    fn sample_line(
        &mut self,
        start: usize,
        raw: &'a [u8],
        wanted: Option<&Wanted>,
    ) -> Result<(), Refusal> {
        self.labels.clear();
        let checked = self.text.and_then(|text| text.get(start..start + raw.len()));
        let line = match checked.filter(|line| line.len() <= self.limits.line_bytes) {
            Some(line) => Ok(line),
            None => check_line(raw, self.limits),
        };
        let read =
            line.and_then(|line| line::sample(line, self.format, &mut self.labels, self.limits));
        let (name, value, timestamp_secs) = match read {
            Ok(head) => (head.name, head.value, head.timestamp_secs),
            Err(fault) => return self.refuse(&fault, start, raw),
        };
        // A quoted name is met anywhere in braces, so only the lexed line tells whose it is.
        if wanted.is_some_and(|wanted| !wanted.contains(&name)) {
            return Ok(());
        }
        self.tally.samples += 1;
        (self.on_sample)(&SampleRef { name, labels: &self.labels, value, timestamp_secs })
    }

    #[cold]
    fn refuse(&mut self, fault: &Fault, start: usize, raw: &[u8]) -> Result<(), Refusal> {
        self.tally.refused = self.tally.refused.saturating_add(1);
        if self.tally.refused == 1 {
            self.tally.first = fault.words(raw, line_number(self.body, start));
        }
        if fault.is_broken_utf8() {
            self.tally.broken_utf8 += 1;
            if self.tally.broken_utf8 == 1 {
                self.tally.broken_utf8_first = line_number(self.body, start);
            }
            if self.tally.broken_utf8 > self.limits.broken_utf8_lines {
                return Err(Refusal::NotUtf8 {
                    limit: self.limits.broken_utf8_lines,
                    first_line: self.tally.broken_utf8_first,
                });
            }
        }
        Ok(())
    }
}
