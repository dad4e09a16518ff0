//! What `check --format json` says: one object, whose keys do not change their meaning.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Checked, Outcome,
    config::{Drawn, Picture},
};
use crate::{deliver::Checks, rulefile::Fault};

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
    /// What a good configuration says; null of any other file.
    configuration: Option<ConfigShape<'c>>,
}

/// A configuration.
#[derive(Serialize)]
struct ConfigShape<'c> {
    listen: String,
    store: String,
    /// The directory of rule files, how many there are, and how many of them load.
    rules: String,
    rule_files: usize,
    rule_files_good: usize,
    /// Names of metrics servers.
    prometheus: Vec<&'c str>,
    /// Services that are watched between releases.
    watch: Vec<&'c str>,
    mechanisms: Vec<MechanismShape<'c>>,
}

/// A mechanism.
#[derive(Serialize)]
struct MechanismShape<'c> {
    name: &'c str,
    kind: &'c str,
    /// Scheme and host.
    to: &'c str,
    /// `nobody`, `receiver`, `people`, or `itself`: who compares what is changed with what was judged.
    checked_by: &'static str,
    /// What is compared; null unless it is by itself.
    checks: Option<&'c str>,
    /// What it does on each decision; null where that is nothing.
    on: BTreeMap<String, Option<&'c str>>,
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
        configuration: None,
    };
    match &checked.outcome {
        Outcome::Good(file) => {
            shape.service = Some(&file.rules.service);
            shape.sha256 = Some(&file.sha256);
            shape.warnings = file.warnings.iter().map(fault).collect();
        }
        Outcome::Config(picture) => {
            shape.warnings = picture.warnings.iter().map(fault).collect();
            shape.configuration = Some(configuration(picture));
        }
        Outcome::Hook(_) | Outcome::Tests { .. } => {}
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

fn configuration(picture: &Picture) -> ConfigShape<'_> {
    let config = &picture.config;
    let (rule_files_good, rule_files) = picture.rule_files;
    ConfigShape {
        listen: config.listen.to_string(),
        store: config.store.display().to_string(),
        rules: config.rules.display().to_string(),
        rule_files,
        rule_files_good,
        prometheus: config.prometheus.keys().map(String::as_str).collect(),
        watch: config.watch.iter().map(|watch| watch.service.as_str()).collect(),
        mechanisms: picture.mechanisms.iter().map(mechanism).collect(),
    }
}

fn mechanism(drawn: &Drawn) -> MechanismShape<'_> {
    let (checked_by, checks) = match &drawn.about.checks {
        Checks::Nobody => ("nobody", None),
        Checks::Receiver => ("receiver", None),
        Checks::People => ("people", None),
        Checks::Itself(checks) => ("itself", Some(checks.as_str())),
    };
    let on = drawn.does.iter().map(|(action, does)| (action.to_string(), does.as_deref()));
    MechanismShape {
        name: &drawn.name,
        kind: drawn.about.kind,
        to: &drawn.about.to,
        checked_by,
        checks,
        on: on.collect(),
    }
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
