//! The files of a recording: JSON lines, gzipped or plain, read within bounds.
//!
//! Invariants: every fault names file and line; nothing is held beyond the limits, also of a
//! compressed bomb. It deliberately does not judge what the rows say.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::excerpt::excerpt;
use crate::engine::observation::Arm;

/// Decoded bytes of one line; a row holds one body.
pub const LINE_BYTES_MAX: u64 = 32 << 20;
/// Decoded bytes of one file: 40 recordings of an hour at one scrape a second are less.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
/// Rows of one file.
pub const ROWS_MAX: usize = 2_000_000;

/// Why a recording cannot be read. Every case names its file.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be opened or read.
    #[error("{file}: cannot be read, expected {expected}")]
    Unreadable {
        /// Which file.
        file: String,
        /// What should be there.
        expected: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The compressed stream ends early or is damaged.
    #[error("{file}:{line}: the file is cut or damaged here; hint: copy or record it again")]
    Cut {
        /// Which file.
        file: String,
        /// The line that could not be completed.
        line: usize,
        /// What the decoder says.
        #[source]
        source: io::Error,
    },
    /// A line is not a row.
    #[error("{file}:{line}: found {found}, expected {expected}")]
    Row {
        /// Which file.
        file: String,
        /// Which line.
        line: usize,
        /// The fault.
        found: String,
        /// What a row looks like.
        expected: &'static str,
    },
    /// A limit is reached.
    #[error("{file}:{line}: beyond the limit of {limit}")]
    TooLarge {
        /// Which file.
        file: String,
        /// Where.
        line: usize,
        /// Which limit.
        limit: String,
    },
    /// There is nothing to replay.
    #[error("{file}: {words}")]
    Empty {
        /// Which file.
        file: String,
        /// What is missing.
        words: String,
    },
}

/// Limits of one file, so that tests can reach them.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLimits {
    pub line_bytes: u64,
    pub file_bytes: u64,
    pub rows: usize,
}

impl Default for FileLimits {
    fn default() -> Self {
        Self { line_bytes: LINE_BYTES_MAX, file_bytes: FILE_BYTES_MAX, rows: ROWS_MAX }
    }
}

/// One scrape.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ScrapeRow {
    pub t: f64,
    pub role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub fmt: RowFormat,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
}

/// One health probe.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct HealthRow {
    pub t: f64,
    pub role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Canary,
    Baseline,
}

impl From<Arm> for Role {
    fn from(arm: Arm) -> Self {
        match arm {
            Arm::Canary => Role::Canary,
            Arm::Baseline => Role::Baseline,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RowFormat {
    Text,
    Om,
}

/// What the recorder wrote about the whole.
#[derive(Debug, Deserialize)]
pub(super) struct Meta {
    pub t_record_start: Option<f64>,
    pub t_record_end: Option<f64>,
}

/// Bytes of `meta.json` that are read.
pub(super) const META_BYTES_MAX: u64 = 1 << 20;

/// Reads `meta.json`; a recording may be without.
pub(super) fn read_meta(dir: &Path) -> Result<Option<Meta>, RecordingError> {
    let path = dir.join("meta.json");
    let file = path.display().to_string();
    let expected = "a JSON object about the recording";
    let mut text = String::new();
    match File::open(&path) {
        Ok(opened) => opened.take(META_BYTES_MAX).read_to_string(&mut text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
    }
    .map_err(|source| RecordingError::Unreadable { file: file.clone(), expected, source })?;
    serde_json::from_str(&text).map(Some).map_err(|error| RecordingError::Row {
        file,
        line: error.line(),
        found: excerpt(&error.to_string()),
        expected,
    })
}

/// `NAME.ndjson.gz`, or `NAME.ndjson`, whichever is there.
pub(super) fn rows_path(dir: &Path, name: &str) -> Option<PathBuf> {
    [format!("{name}.ndjson.gz"), format!("{name}.ndjson")]
        .into_iter()
        .map(|name| dir.join(name))
        .find(|path| path.exists())
}

/// Hands every row of a file to `take`, with its line number.
pub(super) fn read_rows<R: DeserializeOwned>(
    path: &Path,
    limits: FileLimits,
    expected: &'static str,
    mut take: impl FnMut(R) -> Result<(), String>,
) -> Result<(), RecordingError> {
    let file = path.display().to_string();
    let opened = File::open(path).map_err(|source| RecordingError::Unreadable {
        file: file.clone(),
        expected: "JSON lines",
        source,
    })?;
    let zipped = path.extension().is_some_and(|ending| ending == "gz");
    let mut lines: Box<dyn BufRead> = if zipped {
        Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(opened))))
    } else {
        Box::new(BufReader::new(opened))
    };
    let mut text = Vec::new();
    let mut bytes = 0;
    for line in 1.. {
        let too_large =
            |limit: String| RecordingError::TooLarge { file: file.clone(), line, limit };
        text.clear();
        let read = (&mut lines)
            .take(limits.line_bytes + 1)
            .read_until(b'\n', &mut text)
            .map_err(|source| RecordingError::Cut { file: file.clone(), line, source })?;
        if read == 0 {
            return Ok(());
        }
        bytes += read as u64;
        if read as u64 > limits.line_bytes {
            return Err(too_large(format!("{} bytes a line", limits.line_bytes)));
        }
        if bytes > limits.file_bytes {
            return Err(too_large(format!("{} bytes a file", limits.file_bytes)));
        }
        if line > limits.rows {
            return Err(too_large(format!("{} rows a file", limits.rows)));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        serde_json::from_slice(&text)
            .map_err(|error| excerpt(&error.to_string()))
            .and_then(&mut take)
            .map_err(|found| RecordingError::Row { file: file.clone(), line, found, expected })?;
    }
    Ok(())
}
