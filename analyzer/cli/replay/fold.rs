//! Observations judged one after the other until there is a final verdict or no observation left,
//! and what became of each rule on the way.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    cli::UsageError,
    engine::{
        analysis::Analysis,
        calibration::Calibration,
        observation::{Observation, Time},
        rule::RuleSet,
    },
    report::{
        build, explain,
        shape::{Report, RulesRef},
    },
};

/// An analysis that is being judged again.
pub struct Fold {
    rules: Arc<RuleSet>,
    analysis: Analysis,
    last: Option<Report>,
    courses: Vec<Course>,
}

/// How it came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The last report: the final one, or an inconclusive one where the observations ended early.
    pub report: Report,
    /// One per rule, in file order.
    pub courses: Vec<Course>,
}

/// What became of one rule until the verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Course {
    /// The condition as written.
    pub rule: String,
    /// `rollback`, `investigate` or `ok`.
    pub then: String,
    /// Seconds after the beginning at which it fired first; null when it never did.
    pub fired_secs: Option<f64>,
    /// Its state at the last look: `fires`, `clear`, `not_enough_data`, `asleep`.
    pub state: String,
}

impl Outcome {
    /// The same, its report naming the rule file that it was reached by.
    pub fn by(self, rules: RulesRef) -> Self {
        Self { report: self.report.by(rules), ..self }
    }
}

impl Fold {
    /// Nothing seen yet.
    pub fn new(rules: Arc<RuleSet>, started: Time, calibration: &Calibration) -> Self {
        let analysis = Analysis::calibrated(rules.clone(), started, calibration);
        Self { rules, analysis, last: None, courses: Vec::new() }
    }

    /// Looks judged so far.
    pub fn looks(&self) -> u64 {
        self.analysis.looks()
    }

    /// Judges one look; whether more may come.
    pub fn look(&mut self, observation: &Observation) -> bool {
        let report = build::report(&self.rules, &self.analysis.step(observation));
        if self.courses.is_empty() {
            self.courses.extend(report.findings.iter().map(|finding| Course {
                rule: finding.rule.clone(),
                then: finding.then.clone(),
                fired_secs: None,
                state: String::new(),
            }));
        }
        for (course, finding) in self.courses.iter_mut().zip(&report.findings) {
            course.state.clone_from(&finding.state);
            if finding.state == "fires" {
                course.fired_secs.get_or_insert(report.elapsed_secs);
            }
        }
        let goes_on = !report.is_final;
        self.last = Some(report);
        goes_on
    }

    /// What it came to. Observations that end before a final verdict are inconclusive.
    ///
    /// # Errors
    /// When there was no look at all.
    pub fn end(self) -> anyhow::Result<Outcome> {
        let mut report =
            self.last.ok_or_else(|| UsageError("the recording holds no look".to_owned()))?;
        if !report.is_final {
            report.reason = explain::ended_early(&report, self.rules.promote.after.as_secs_f64());
            "inconclusive".clone_into(&mut report.verdict);
            report.rule = None;
            report.decided_at = Some(report.at);
        }
        Ok(Outcome { report, courses: self.courses })
    }
}
