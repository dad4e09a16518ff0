//! A rule that fires for a release that is as it should be.

use super::{Findings, Lint, Subject};
use crate::engine::{
    observation::Health,
    rule::{Action, Condition, Test},
};

pub(super) static LINT: Lint = Lint {
    name: "fires-when-healthy",
    what: "a rule that holds when every service is up and nothing was counted",
    why: "Every healthy release is rolled back, or never promoted.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, rule) in subject.rules.rules.iter().enumerate() {
        // A count that is still too low later on says something.
        let is_early = rule.after.is_none_or(|after| after.is_zero());
        if rule.then == Action::Ok || holds(&rule.when, is_early) != Some(true) {
            continue;
        }
        let means = match rule.then {
            Action::Rollback => "a healthy release is rolled back at the first look",
            Action::Investigate | Action::Ok => "a healthy release is never promoted",
        };
        found.warn_rule(
            index,
            subject.when(index),
            "this holds for a release that is as it should be",
            means,
            "a condition of what is wrong, such as `app is down for 3 checks` or `restarts >= 1`",
        );
    }
}

/// Whether a condition holds when all is well; none where no look decides that.
fn holds(condition: &Condition, is_early: bool) -> Option<bool> {
    match condition {
        Condition::Clause(clause) => match clause.test {
            Test::HealthIs { status, .. } => Some(status == Health::Up),
            Test::Counted { op, limit } if is_early => Some(op.holds(0.0, limit)),
            Test::Counted { .. }
            | Test::Dwell { .. }
            | Test::BeyondConstant { .. }
            | Test::BeyondBaseline { .. }
            | Test::Slope { .. }
            | Test::HealthLatency { .. } => None,
        },
        Condition::Not(part) => holds(part, is_early).map(|holds| !holds),
        Condition::And(parts) => all(parts, is_early, false),
        Condition::Or(parts) => all(parts, is_early, true),
    }
}

/// What parts come to of which one that is `decisive` settles the whole.
fn all(parts: &[Condition], is_early: bool, decisive: bool) -> Option<bool> {
    let parts: Vec<Option<bool>> = parts.iter().map(|part| holds(part, is_early)).collect();
    if parts.contains(&Some(decisive)) {
        return Some(decisive);
    }
    parts.iter().all(Option::is_some).then_some(!decisive)
}
