//! What a verdict means to a controller: one of four things to do, with its words.

use super::{
    super::{desk::AnalysisView, verdict::SmallVerdict},
    one_line,
};
use crate::report::{
    format,
    shape::{FindingShape, Report},
};

/// Characters of a reason.
const REASON_CHARS_MAX: usize = 300;
/// Characters of a rule as written.
const RULE_CHARS_MAX: usize = 160;
/// Characters of how far the analysis is.
const PROGRESS_CHARS_MAX: usize = 160;

/// What a controller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Nothing is decided: keep asking.
    Watching,
    /// Go on to the new version.
    Promote,
    /// Go back to the old one.
    Rollback,
    /// It ended without a decision, and a person has to take one.
    Held,
}

impl Ruling {
    /// Of a verdict. What the rule file says to do when inconclusive is done.
    pub(super) fn of(small: &SmallVerdict) -> Self {
        match small.verdict.as_str() {
            "promote" => Ruling::Promote,
            "rollback" => Ruling::Rollback,
            "inconclusive" => match small.otherwise.as_deref() {
                Some("promote") => Ruling::Promote,
                Some("rollback") => Ruling::Rollback,
                _ => Ruling::Held,
            },
            // Not final, whatever it is called.
            _ => Ruling::Watching,
        }
    }

    /// In one word, as controllers compare it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Ruling::Watching => "watching",
            Ruling::Promote => "promote",
            Ruling::Rollback => "rollback",
            Ruling::Held => "inconclusive",
        }
    }
}

/// Why, on one line.
pub(super) fn reason(small: &SmallVerdict) -> String {
    let otherwise = match (small.verdict.as_str(), Ruling::of(small)) {
        ("inconclusive", Ruling::Promote) => " By the rule file it is promoted then.",
        ("inconclusive", Ruling::Rollback) => " By the rule file it is rolled back then.",
        _ => "",
    };
    let room = REASON_CHARS_MAX - otherwise.len();
    format!("{}{otherwise}", one_line(&small.reason, room))
}

/// The rule that decided, on one line.
pub(super) fn rule(small: &SmallVerdict) -> Option<String> {
    small.rule.as_deref().map(|rule| one_line(rule, RULE_CHARS_MAX))
}

/// How far an analysis is, in a few words.
pub(super) fn progress(view: &AnalysisView) -> String {
    let Some(report) = &view.report else { return "before the first look".to_owned() };
    let watched = format::duration(report.elapsed_secs);
    let mut words = vec![match report.is_final {
        true => format!("watched for {watched}"),
        false if report.elapsed_secs < view.hold_secs => {
            format!("watched for {watched} of {} at least", format::duration(view.hold_secs))
        }
        false => {
            let deadline = format::duration(view.deadline_secs);
            format!("watched for {watched}, until {deadline} at the latest")
        }
    }];
    words.extend(step(view).map(|(number, of)| format!("step {number} of {of}")));
    words.extend(missing(report));
    words.extend(nearest(report));
    one_line(&words.join("; "), PROGRESS_CHARS_MAX)
}

/// Which step of a progressive release it is, from 1, and how many there are.
fn step(view: &AnalysisView) -> Option<(usize, usize)> {
    let present = view.report.as_ref()?.release_step?;
    Some((present + 1, view.steps.len()))
}

fn missing(report: &Report) -> Option<String> {
    let without = |finding: &&FindingShape| finding.state == "not_enough_data";
    let count = report.findings.iter().filter(without).count();
    (count > 0).then(|| format!("{count} of {} rules lack data", report.findings.len()))
}

/// The clause that is nearest to firing, of those that are on their way.
fn nearest(report: &Report) -> Option<String> {
    let share = |value: f64, needed: f64| if needed > 0.0 { value / needed } else { 0.0 };
    let clauses = report.findings.iter().flat_map(|finding| &finding.clauses);
    let (near, clause) = clauses
        .map(|clause| (share(clause.progress.value, clause.progress.needed), clause))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (near > 0.0).then(|| format!("{}: {}", clause.clause, format::progress(&clause.progress)))
}
