//! A rollback because of one health check.

use super::{Findings, Lint, Subject};
use crate::engine::{
    observation::Health,
    rule::{Action, Condition, HealthHold, Test},
};

pub(super) static LINT: Lint = Lint {
    name: "rollback-on-one-check",
    what: "a rollback as soon as one health check fails",
    why: "One lost answer, a full queue or a slow moment ends a release.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, rule) in subject.rules.rules.iter().enumerate() {
        if rule.then != Action::Rollback || !decides(&rule.when, true) {
            continue;
        }
        let placed = subject.clauses(index);
        let checks = placed.into_iter().filter(|placed| {
            matches!(placed.clause.test, Test::HealthIs { hold: HealthHold::Checks(1), .. })
        });
        if let Some(first) = checks.into_iter().next() {
            found.warn_rule(
                index,
                first.span,
                "one failed check rolls the release back",
                "a single lost answer is taken for an outage",
                format!("such as `{} is down for 3 checks`", subject.name(first.clause.signal)),
            );
        }
    }
}

/// Whether one check of a service that is not up settles the condition.
fn decides(condition: &Condition, as_asked: bool) -> bool {
    match condition {
        Condition::Clause(clause) => match clause.test {
            Test::HealthIs { status, hold: HealthHold::Checks(1) } => {
                (status == Health::Up) != as_asked
            }
            Test::HealthIs { .. }
            | Test::Dwell { .. }
            | Test::BeyondConstant { .. }
            | Test::BeyondBaseline { .. }
            | Test::Slope { .. }
            | Test::Counted { .. }
            | Test::HealthLatency { .. } => false,
        },
        Condition::Not(part) => decides(part, !as_asked),
        Condition::Or(parts) if as_asked => parts.iter().any(|part| decides(part, true)),
        Condition::And(parts) if !as_asked => parts.iter().any(|part| decides(part, false)),
        Condition::Or(parts) | Condition::And(parts) => {
            parts.iter().all(|part| decides(part, as_asked))
        }
    }
}
