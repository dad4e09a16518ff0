//! What came of a test, in the shape that `rollgate test --json` prints. Times are seconds since the
//! beginning of the analysis.

use serde::Serialize;

use crate::report::shape::Report;

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The test's name.
    pub name: String,
    /// Line of the test file that it begins on.
    pub line: usize,
    /// Whether everything came as expected.
    pub passed: bool,
    /// Looks taken.
    pub looks: u64,
    /// The last verdict, and the reason for it.
    pub verdict: String,
    /// When it was given.
    pub at_secs: f64,
    /// The rule that decided, as written.
    pub rule: Option<String>,
    /// The last verdict in words.
    pub reason: String,
    /// Each verdict with when it was first given, in order.
    pub timeline: Vec<Turn>,
    /// What did not come as expected, in file order.
    pub failures: Vec<Failure>,
    /// The last look in full.
    #[serde(skip)]
    pub end: Report,
    /// By rule of the file: what it was seen to do.
    #[serde(skip)]
    pub seen: Vec<Seen>,
}

/// When something became what it then was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Turn {
    /// From when on.
    pub at_secs: f64,
    /// A verdict, or the state of a rule.
    pub is: String,
}

/// One expectation that was not met.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// Line of the test file.
    pub line: usize,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub found: String,
    /// The look that shows it.
    pub at_secs: f64,
    /// What to do about it, when that can be said.
    pub hint: Option<String>,
    /// The rule that it is about, when it is about one, and what that did over time.
    pub rule: Option<RuleTurns>,
    /// The look itself.
    pub look: Option<Box<Report>>,
}

/// What a rule did over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleTurns {
    /// As written.
    pub rule: String,
    /// Its number in the file, from 1.
    pub number: usize,
    /// Each state with when it began.
    pub timeline: Vec<Turn>,
}

/// What a rule was seen to do in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Seen {
    /// It fired.
    pub fires: bool,
    /// It was clear.
    pub clear: bool,
}

impl Seen {
    /// What either saw.
    pub fn or(self, other: Seen) -> Seen {
        Seen { fires: self.fires || other.fires, clear: self.clear || other.clear }
    }
}
