//! What `check --format json` says: one object, whose keys do not change their meaning.

use serde::Serialize;

use super::{Checked, Outcome};
use crate::rulefile::Fault;

/// The version of the shape.
const SCHEMA: &str = "rollgate.check.v1";

/// Everything that was checked.
#[derive(Serialize)]
struct Shape<'c> {
    /// [`SCHEMA`].
    schema: &'static str,
    /// Whether the exit code is 0.
    good: bool,
    /// Faults of all files together, unreadable files among them.
    faults: usize,
    /// Warnings of all files together.
    warnings: usize,
    /// In the order given.
    files: Vec<FileShape<'c>>,
}

/// One file.
#[derive(Serialize)]
struct FileShape<'c> {
    /// As given.
    file: &'c str,
    /// `good`, `faulty` or `unreadable`.
    state: &'static str,
    /// The service it is for; null of tests, and where the file is not good.
    service: Option<&'c str>,
    /// SHA-256 of its text, in hexadecimal; null of tests, and where the file is not good.
    sha256: Option<&'c str>,
    /// Why it could not be read; null where it could.
    error: Option<&'c str>,
    /// At most 50; `faults_count` counts all.
    faults: Vec<FaultShape<'c>>,
    faults_count: usize,
    /// At most 50; `warnings_count` counts all.
    warnings: Vec<FaultShape<'c>>,
    warnings_count: usize,
}

/// One fault or warning. Lines and columns count from 1, columns in characters; the end is the first
/// character behind it.
#[derive(Serialize)]
struct FaultShape<'c> {
    /// The lint that warns; null for a fault.
    lint: Option<&'static str>,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
    /// What was found.
    message: &'c str,
    /// What comes of it; null for a fault.
    means: Option<&'c str>,
    /// What was expected.
    expected: &'c str,
    /// What to do about it; null where there is nothing to say.
    hint: Option<&'c str>,
}

/// The object, on several lines.
pub fn render(checked: &[Checked], good: bool) -> String {
    let files: Vec<FileShape> = checked.iter().map(file).collect();
    let shape = Shape {
        schema: SCHEMA,
        good,
        faults: checked.iter().map(|checked| checked.outcome.faults()).sum(),
        warnings: checked.iter().map(|checked| checked.outcome.warnings()).sum(),
        files,
    };
    serde_json::to_string_pretty(&shape).expect("strings and numbers can be written") + "\n"
}

fn file(checked: &Checked) -> FileShape<'_> {
    let mut shape = FileShape {
        file: &checked.name,
        state: "good",
        service: None,
        sha256: None,
        error: None,
        faults: Vec::new(),
        faults_count: checked.outcome.faults(),
        warnings: Vec::new(),
        warnings_count: checked.outcome.warnings(),
    };
    match &checked.outcome {
        Outcome::Good(file) => {
            shape.service = Some(&file.rules.service);
            shape.sha256 = Some(&file.sha256);
            shape.warnings = file.warnings.iter().map(fault).collect();
        }
        Outcome::Tests { .. } => {}
        Outcome::Faulty(faults) => {
            shape.state = "faulty";
            shape.faults = faults.iter().map(fault).collect();
        }
        Outcome::Unreadable(error) => {
            shape.state = "unreadable";
            shape.error = Some(error);
        }
    }
    shape
}

fn fault(fault: &Fault) -> FaultShape<'_> {
    FaultShape {
        lint: fault.lint,
        line: fault.line,
        column: fault.column,
        end_line: fault.end_line,
        end_column: fault.end_column,
        message: &fault.message,
        means: fault.means.as_deref(),
        expected: &fault.expected,
        hint: fault.hint.as_deref(),
    }
}
