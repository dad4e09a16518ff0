//! What changed in the course of an analysis: the verdict, the rules' states, and what was missing.
//!
//! A fold over the reports of all looks, so that it says what was said then, in the same words.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    explain,
    shape::{FindingShape, InterventionShape, Report},
    words,
};

/// Changes that are kept from the beginning; those that began it all.
pub const FIRST_MAX: usize = 100;

/// Changes that are kept from the end; together with the first ones all that are.
pub const LAST_MAX: usize = 400;

/// What changed, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timeline {
    /// The changes: the first 100 and the last 400 of them.
    pub changes: Vec<Change>,
    /// How many were left out between those.
    pub left_out: u64,
    #[serde(skip)]
    before: Option<Before>,
}

/// One change at one look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// When, in unix seconds.
    pub at: f64,
    /// Seconds since the analysis began.
    pub elapsed_secs: f64,
    /// At which look.
    pub look: u64,
    /// `verdict`, `rule`, `gap` or `intervention`.
    pub kind: String,
    /// The rule that changed, as written in the rule file; null of what is no rule.
    pub rule: Option<String>,
    /// What the rule leads to.
    pub then: Option<String>,
    /// What it became: the verdict's word; the rule's state; of a gap `begins` or `ends`; of an
    /// intervention what was done.
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

    /// Puts in its place what a person did, seconds after the analysis began.
    pub fn stepped_in(&mut self, by: &InterventionShape, elapsed_secs: f64) {
        let place = self.changes.partition_point(|change| change.at <= by.at);
        let look = place.checked_sub(1).map_or(0, |before| self.changes[before].look);
        let change = Change {
            at: by.at,
            elapsed_secs,
            look,
            kind: "intervention".to_owned(),
            rule: None,
            then: None,
            to: by.what.clone(),
            detail: by.words(),
        };
        self.changes.insert(place, change);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::shape::{ClauseShape, MissingShape, ProgressShape, SamplesShape};

    /// A report with one rule, which is in this state or lacks data for this reason.
    fn report(look: u64, verdict: &str, state: &str, lacks: Option<&str>) -> Report {
        let missing =
            lacks.map(|why| MissingShape { why: why.to_owned(), detail: "a:1".to_owned() });
        let clause = ClauseShape {
            clause: "error_rate > 5%".to_owned(),
            signal: "error_rate".to_owned(),
            state: state.to_owned(),
            unit: "share".to_owned(),
            estimate: Some(0.06),
            interval: None,
            baseline: None,
            bound: Some(0.05),
            progress: ProgressShape {
                kind: "evidence_decades".to_owned(),
                value: 3.0,
                needed: 3.0,
                noise_factor: None,
                noise: None,
            },
            samples: SamplesShape {
                canary_events: 6.0,
                canary_total: 100.0,
                baseline_events: 0.0,
                baseline_total: 0.0,
            },
            missing,
            note: None,
            effect: None,
            blame: None,
        };
        let finding = FindingShape {
            rule: "error_rate > 5%".to_owned(),
            then: "rollback".to_owned(),
            reason: None,
            state: state.to_owned(),
            in_state_secs: 0.0,
            clauses: vec![clause],
        };
        Report {
            verdict: verdict.to_owned(),
            is_final: verdict == "rollback",
            decided_at: None,
            at: 1000.0 + look as f64,
            elapsed_secs: look as f64,
            look,
            rule: None,
            reason: format!("because of look {look}"),
            otherwise: None,
            release_step: None,
            gap: None,
            findings: vec![finding],
            signals: Vec::new(),
            overridden: None,
            rules: None,
        }
    }

    fn told(timeline: &Timeline) -> Vec<String> {
        let line = |change: &Change| {
            format!("{} {} {}: {}", change.look, change.kind, change.to, change.detail)
        };
        timeline.changes.iter().map(line).collect()
    }

    #[test]
    fn only_what_changed_is_told() {
        let mut timeline = Timeline::default();
        let gap = MissingShape { why: "scrape_failed".to_owned(), detail: "b:1".to_owned() };
        for report in [
            report(1, "watching", "not_enough_data", Some("first_look")),
            report(2, "watching", "not_enough_data", Some("no_traffic")),
            report(3, "watching", "not_enough_data", Some("no_traffic")),
            report(4, "watching", "clear", None),
            // Of a rule that is clear nothing is missing, whatever a clause of it lacks.
            report(5, "watching", "clear", Some("no_traffic")),
            Report { gap: Some(gap.clone()), ..report(6, "watching", "clear", None) },
            Report { gap: Some(gap), ..report(7, "watching", "clear", None) },
            report(8, "watching", "asleep", None),
            report(9, "rollback", "fires", None),
        ] {
            timeline.see(&report);
        }
        let numbers = "6 %, bound 5 %, 3.0 of 3.0 decades";
        assert_eq!(
            told(&timeline),
            [
                "1 rule not_enough_data: first look: a:1",
                "1 verdict watching: because of look 1",
                "2 rule not_enough_data: no traffic: a:1",
                &format!("4 rule clear: {numbers}"),
                "6 gap begins: scrape failed: b:1",
                "8 rule asleep: ",
                "8 gap ends: ",
                &format!("9 rule fires: {numbers}"),
                "9 verdict rollback: because of look 9",
            ]
        );
    }

    #[test]
    fn of_many_changes_the_first_and_the_last_are_kept() {
        let (mut timeline, looks) = (Timeline::default(), 2000);
        for look in 1..=looks {
            let state = if look % 2 == 0 { "clear" } else { "fires" };
            timeline.see(&report(look, "watching", state, None));
        }
        // One more than looks: the first says the verdict too.
        let kept = FIRST_MAX + LAST_MAX;
        assert_eq!((timeline.changes.len(), timeline.left_out), (kept, looks + 1 - kept as u64));
        assert_eq!(timeline.changes[FIRST_MAX - 1].look, FIRST_MAX as u64 - 1);
        assert_eq!(timeline.changes[FIRST_MAX].look, looks - LAST_MAX as u64 + 1);
        assert_eq!(timeline.changes.last().map(|last| last.look), Some(looks));
    }
}
