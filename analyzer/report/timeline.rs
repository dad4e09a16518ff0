//! What changed in the course of an analysis: the verdict, the rules' states, and what was missing.
//!
//! A fold over the reports of all looks, so that it says what was said then, in the same words.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    explain,
    shape::{FindingShape, Report},
    words,
};

/// Changes that are kept from the beginning; those that began it all.
pub const FIRST_MAX: usize = 100;

/// Changes that are kept from the end; together with the first ones all that are.
pub const LAST_MAX: usize = 400;

/// What changed, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// The changes: the first 100 and the last 400 of them.
    pub changes: Vec<Change>,
    /// How many were left out between those.
    pub left_out: u64,
    #[serde(skip)]
    before: Option<Before>,
}

/// One change at one look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When, in unix seconds.
    pub at: f64,
    /// Seconds since the analysis began.
    pub elapsed_secs: f64,
    /// At which look.
    pub look: u64,
    /// `verdict`, `rule` or `gap`.
    pub kind: String,
    /// The rule that changed, as written in the rule file; null of what is no rule.
    pub rule: Option<String>,
    /// What the rule leads to.
    pub then: Option<String>,
    /// What it became: the verdict's word; the rule's state; of a gap `begins` or `ends`.
    pub to: String,
    /// With which numbers, or why not, in words.
    pub detail: String,
}

/// What the last look said.
#[derive(Clone, Debug, PartialEq)]
struct Before {
    verdict: String,
    /// Step of the release.
    step: Option<usize>,
    /// Of each rule its state, and the kinds of data that it lacks.
    rules: Vec<(String, BTreeSet<String>)>,
    gap: bool,
}

impl Timeline {
    /// Notes what changed since the look before.
    pub fn see(&mut self, report: &Report) {
        let now = Before {
            verdict: report.verdict.clone(),
            step: report.release_step,
            rules: report
                .findings
                .iter()
                .map(|finding| (finding.state.clone(), lacks(finding)))
                .collect(),
            gap: report.gap.is_some(),
        };
        let before = self.before.replace(now.clone());
        for (place, finding) in report.findings.iter().enumerate() {
            let known = before.as_ref().and_then(|before| before.rules.get(place));
            if known == now.rules.get(place) {
                continue;
            }
            self.add(report, ("rule", &finding.state), Some(finding), detail(finding));
        }
        let had_gap = before.as_ref().is_some_and(|before| before.gap);
        match &report.gap {
            Some(gap) if !had_gap => {
                let words = explain::missing_words(&gap.why, &gap.detail);
                self.add(report, ("gap", "begins"), None, words);
            }
            None if had_gap => self.add(report, ("gap", "ends"), None, String::new()),
            Some(_) | None => {}
        }
        let is_same = |before: &Before| before.verdict == now.verdict && before.step == now.step;
        // An advance is a decision each time.
        if !before.as_ref().is_some_and(is_same) || report.verdict == "advance" {
            self.add(report, ("verdict", &report.verdict), None, report.reason.clone());
        }
    }

    fn add(
        &mut self,
        report: &Report,
        (kind, to): (&str, &str),
        finding: Option<&FindingShape>,
        detail: String,
    ) {
        if self.changes.len() == FIRST_MAX + LAST_MAX {
            self.changes.remove(FIRST_MAX);
            self.left_out += 1;
        }
        self.changes.push(Change {
            at: report.at,
            elapsed_secs: report.elapsed_secs,
            look: report.look,
            kind: kind.to_owned(),
            rule: finding.map(|finding| finding.rule.clone()),
            then: finding.map(|finding| finding.then.clone()),
            to: to.to_owned(),
            detail,
        });
    }
}

/// Kinds of data that a rule lacks; of one that does not, none, though a clause of it may.
fn lacks(finding: &FindingShape) -> BTreeSet<String> {
    let missing = finding.clauses.iter().filter_map(|clause| clause.missing.as_ref());
    match finding.state.as_str() {
        "not_enough_data" => missing.map(|missing| missing.why.clone()).collect(),
        _ => BTreeSet::new(),
    }
}

fn detail(finding: &FindingShape) -> String {
    if finding.state == "asleep" {
        return String::new();
    }
    let numbers: Vec<String> = finding.clauses.iter().filter_map(words::numbers).collect();
    numbers.join("; ")
}
