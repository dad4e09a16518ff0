//! One simulated release judged from its first look to its final verdict.

use std::{sync::Arc, time::Duration};

use super::{
    release::{Release, START, past},
    scenario::Scenario,
};
use crate::engine::{
    analysis::Analysis,
    calibration::{Calibration, calibrate},
    rule::{Action, Baseline, Condition, RuleSet},
    verdict::{Finding, Progress, State, Step, Verdict},
};

/// How one release ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// What became of it.
    pub ending: Ending,
    /// Seconds from the beginning of the analysis to the verdict.
    pub secs: f64,
    /// Index of the first rule that stood in the way of a promotion at the deadline: it asked to
    /// investigate, or had no data. None when something else did, such as a margin not shown.
    pub blocked_by: Option<usize>,
}

/// A final verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Promoted.
    Promote,
    /// Rolled back by this rule.
    Rollback {
        /// Its index in the rule set.
        rule: usize,
    },
    /// The deadline passed.
    Inconclusive,
}

/// Judges one release; `watch` sees every look. In a progressive release the steps' weights say who
/// gets how much of all requests.
pub fn judge(
    rules: &Arc<RuleSet>,
    scenario: &Scenario,
    calibration: &Calibration,
    seed: u64,
    mut watch: impl FnMut(&Step),
) -> Trial {
    let mut analysis = Analysis::calibrated(rules.clone(), START, calibration);
    let mut release = Release::new(rules, scenario, seed);
    let all_rps = scenario.traffic.canary_rps + scenario.traffic.baseline_rps;
    let send = |release: &mut Release, step: usize| {
        if let Some(step) = rules.steps.get(step) {
            release.send(all_rps * step.weight, all_rps * (1.0 - step.weight));
        }
    };
    send(&mut release, 0);
    let (mut secs, mut blocked_by) = (0.0, None);
    for _ in 0..looks_max(rules) {
        let Some(observation) = release.next() else { break };
        let step = analysis.step(&observation);
        watch(&step);
        secs = step.elapsed.as_secs_f64();
        let ending = match step.verdict {
            Verdict::Watching | Verdict::Investigate { .. } => continue,
            Verdict::Advance { to } => {
                send(&mut release, to);
                continue;
            }
            Verdict::Promote => Ending::Promote,
            Verdict::Rollback { rule } => Ending::Rollback { rule },
            Verdict::Inconclusive { .. } => {
                blocked_by = blocking(rules, &step);
                Ending::Inconclusive
            }
        };
        return Trial { ending, secs, blocked_by };
    }
    Trial { ending: Ending::Inconclusive, secs, blocked_by }
}

/// The first rule that keeps a release from being promoted at one look.
fn blocking(rules: &RuleSet, step: &Step) -> Option<usize> {
    let mut both = rules.rules.iter().zip(&step.findings);
    both.position(|(rule, finding)| match finding.state {
        State::Fires => rule.then == Action::Investigate,
        State::NotEnoughData => true,
        State::Clear | State::Asleep => false,
    })
}

/// Looks until the deadline, and one more.
pub fn looks_max(rules: &RuleSet) -> u64 {
    let looks = rules.promote.deadline.as_secs_f64() / rules.observe.interval.as_secs_f64();
    looks.ceil() as u64 + 1
}

/// What is known of the service's noise after so long a history of the old version.
pub fn calibration(
    rules: &RuleSet,
    scenario: &Scenario,
    history: Duration,
    seed: u64,
) -> Calibration {
    let lag = match rules.baseline {
        Baseline::Concurrent => Duration::ZERO,
        Baseline::Before => rules.promote.after,
        Baseline::Offset(lag) => lag,
    };
    calibrate(rules, &past(rules, scenario, history, rules.observe.interval, seed), lag)
}

/// How far the rollback rules are from firing by evidence at one look: 1 is there, 0 is no evidence
/// at all. None when no such rule is awake.
pub fn nearness(rules: &RuleSet, step: &Step) -> Option<f64> {
    let both = rules.rules.iter().zip(&step.findings);
    both.filter(|(rule, _)| rule.then == Action::Rollback)
        .filter_map(|(rule, finding)| nearness_of(&rule.when, finding))
        .reduce(f64::max)
}

fn nearness_of(condition: &Condition, finding: &Finding) -> Option<f64> {
    let clauses = finding.clauses.iter().filter_map(|clause| match clause.progress {
        Progress::Evidence { decades, needed, .. } => Some((decades / needed).clamp(0.0, 1.0)),
        Progress::Held { .. } | Progress::Checks { .. } | Progress::Count { .. } => None,
    });
    match condition {
        // All have to get there, so the last one counts.
        Condition::And(_) => clauses.reduce(f64::min),
        Condition::Clause(_) | Condition::Or(_) | Condition::Not(_) => clauses.reduce(f64::max),
    }
}
