//! The results as `--json` and `--junit` have them.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Bad, Ran, coverage::Coverage};
use crate::ruletest::outcome::{Failure, Outcome};

/// A whole run, version 1.
#[derive(Serialize)]
pub struct Run<'r> {
    /// Tests that passed.
    passed: usize,
    /// Tests that failed.
    failed: usize,
    /// One per test file that could be run.
    files: Vec<FileShape<'r>>,
    /// Files that could not be run.
    faults: Vec<FaultShape>,
    /// One per rule file; empty with `--filter`.
    coverage: &'r [Coverage],
}

/// One test file.
#[derive(Serialize)]
struct FileShape<'r> {
    file: String,
    rules: String,
    tests: &'r [Outcome],
}

/// What is wrong with a file; line and column from 1, 0 where there is no place.
#[derive(Serialize)]
struct FaultShape {
    file: String,
    line: usize,
    column: usize,
    message: String,
    expected: Option<String>,
    hint: Option<String>,
}

impl<'r> Run<'r> {
    pub(super) fn of(ran: &'r [Ran], bad: &[Bad], coverage: &'r [Coverage]) -> Self {
        let outcomes = || ran.iter().flat_map(|ran| &ran.outcomes);
        let file = |ran: &'r Ran| FileShape {
            file: ran.file.display().to_string(),
            rules: ran.rules.display().to_string(),
            tests: &ran.outcomes,
        };
        let mut faults = Vec::new();
        for bad in bad {
            match bad {
                Bad::Faults(list) => faults.extend(list.iter().map(|fault| FaultShape {
                    file: fault.file.clone(),
                    line: fault.line,
                    column: fault.column,
                    message: fault.message.clone(),
                    expected: Some(fault.expected.clone()),
                    hint: fault.hint.clone(),
                })),
                Bad::Unreadable(text) => faults.push(FaultShape {
                    file: String::new(),
                    line: 0,
                    column: 0,
                    message: text.clone(),
                    expected: None,
                    hint: None,
                }),
            }
        }
        Self {
            passed: outcomes().filter(|outcome| outcome.passed).count(),
            failed: outcomes().filter(|outcome| !outcome.passed).count(),
            files: ran.iter().map(file).collect(),
            faults,
            coverage,
        }
    }
}

/// JUnit's XML, as CI systems read it: a suite a file, a case a test.
pub(super) fn junit(ran: &[Ran]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for ran in ran {
        let failed = ran.outcomes.iter().filter(|outcome| !outcome.passed).count();
        let file = escaped(&ran.file.display().to_string());
        let (count, secs) = (ran.outcomes.len(), ran.took.as_secs_f64());
        let _ = writeln!(
            xml,
            "  <testsuite name=\"{file}\" tests=\"{count}\" failures=\"{failed}\" errors=\"0\" \
             time=\"{secs:.3}\">"
        );
        for outcome in &ran.outcomes {
            let (name, line) = (escaped(&outcome.name), outcome.line);
            let _ = write!(
                xml,
                "    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\" line=\"{line}\""
            );
            if outcome.passed {
                xml.push_str("/>\n");
                continue;
            }
            xml.push_str(">\n");
            for failure in &outcome.failures {
                let message = escaped(&in_words(failure));
                let detail = escaped(&format!("{}\n{}", in_words(failure), outcome.reason));
                let _ = writeln!(xml, "      <failure message=\"{message}\">{detail}</failure>");
            }
            xml.push_str("    </testcase>\n");
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn in_words(failure: &Failure) -> String {
    format!("line {}: expected {}, found {}", failure.line, failure.expected, failure.found)
}

/// Text for XML; what XML cannot hold is left out.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => safe.push(c),
        }
    }
    safe
}
