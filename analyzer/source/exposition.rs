//! Stand-in reader of this branch: splits plain lines. The strict reader takes its place.

use std::sync::Arc;

use crate::signal::sample::{Labels, RefusedLines, Sample};

/// Text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text.
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// By content type.
    pub fn of_content_type(content_type: &str) -> Option<Format> {
        match content_type.split(';').next().unwrap_or("").trim() {
            "text/plain" => Some(Format::Text),
            "application/openmetrics-text" => Some(Format::OpenMetrics),
            _ => None,
        }
    }
}

/// Limits.
#[derive(Clone, Debug, Default)]
pub struct Limits {}

/// Names.
#[derive(Clone, Debug)]
pub struct Wanted(Vec<String>);

impl Wanted {
    /// Of names.
    pub fn names<I: IntoIterator<Item = S>, S: AsRef<str>>(names: I) -> Self {
        Self(names.into_iter().map(|name| name.as_ref().to_owned()).collect())
    }
}

/// A sample before it is owned.
pub struct SampleRef<'a> {
    /// Name.
    pub name: &'a str,
}

/// What was read.
#[derive(Debug)]
pub struct Body {
    /// Kept samples.
    pub samples: Vec<Sample>,
    /// Refused lines.
    pub refused: Option<RefusedLines>,
    /// Lines.
    pub lines: u64,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

/// Reads.
pub fn read(
    body: &[u8],
    format: Format,
    wanted: &Wanted,
    mut keep: impl FnMut(&SampleRef<'_>) -> bool,
    _limits: &Limits,
) -> Result<Body, Refusal> {
    let text = str::from_utf8(body).map_err(|error| Refusal(error.to_string()))?;
    if format == Format::OpenMetrics && !text.trim_end().ends_with("# EOF") {
        return Err(Refusal("no `# EOF` at the end".into()));
    }
    let mut read = Body { samples: Vec::new(), refused: None, lines: 0 };
    for line in text.lines() {
        read.lines += 1;
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let end = line.find("} ").map_or_else(|| line.find(' '), |brace| Some(brace + 1));
        let Some((series, rest)) = end.and_then(|end| line.split_at_checked(end)) else { continue };
        let value = rest.trim_start().split(' ').next().unwrap_or("");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        if !wanted.0.iter().any(|wanted| wanted == name) || !keep(&SampleRef { name }) {
            continue;
        }
        let pairs = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(label, value)| (Arc::from(label), Arc::from(value.trim_matches('"'))))
            .collect();
        let Ok(value) = value.parse() else { continue };
        read.samples.push(Sample { name: name.into(), labels: Labels::new(pairs), value });
    }
    Ok(read)
}
