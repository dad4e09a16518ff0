//! A rule that acts on the good side of a signal.

use super::{Findings, Lint, Subject};
use crate::engine::rule::{Action, Better, Condition, Op, SignalKind, Test};

pub(super) static LINT: Lint = Lint {
    name: "against-better",
    what: "a rule that acts when a share or a quantile is on its good side (see `better`)",
    why: "The operator is turned round, or the signal lacks `better: higher`; then margins, blame \
          and all that is shown take more of it for worse.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, rule) in subject.rules.rules.iter().enumerate() {
        if rule.then == Action::Ok {
            continue;
        }
        let mut decisive = Vec::new();
        alone(&rule.when, &mut 0, &mut decisive);
        let placed = subject.clauses(index);
        for number in decisive {
            let clause = placed[number].clause;
            let op = match clause.test {
                Test::Dwell { op, .. }
                | Test::BeyondConstant { op, .. }
                | Test::BeyondBaseline { op, .. } => op,
                Test::Slope { .. }
                | Test::Counted { .. }
                | Test::HealthIs { .. }
                | Test::HealthLatency { .. } => continue,
            };
            let signal = &subject.rules.signals[clause.signal];
            let has_side = match signal.kind {
                SignalKind::Ratio { .. } | SignalKind::Quantile { .. } => true,
                // A rate or a level may be watched on both sides, unless the file says which.
                SignalKind::Rate | SignalKind::Gauge { .. } => signal.better == Better::Higher,
                SignalKind::Count | SignalKind::Health | SignalKind::Restarts => false,
            };
            let name = &signal.name;
            let (side, sign, otherwise) = match (signal.better, op) {
                (Better::Lower, Op::Below | Op::AtMost) => ("low", ">", "better: higher"),
                (Better::Higher, Op::Above | Op::AtLeast) => ("high", "<", "better: lower"),
                (Better::Lower, Op::Above | Op::AtLeast)
                | (Better::Higher, Op::Below | Op::AtMost) => continue,
            };
            if has_side {
                found.warn_rule(
                    index,
                    placed[number].ask.clone(),
                    format!("`{name}` is good when it is {side}, and this acts when it is {side}"),
                    "a release that is better than the old version is held against it",
                    format!("`{sign}` here, or `{otherwise}` beside the definition of `{name}`"),
                );
            }
        }
    }
}

/// The numbers of the clauses that decide a condition by themselves; others may be a guard.
fn alone(condition: &Condition, next: &mut usize, out: &mut Vec<usize>) {
    match condition {
        Condition::Clause(_) => {
            out.push(*next);
            *next += 1;
        }
        Condition::Or(parts) => parts.iter().for_each(|part| alone(part, next, out)),
        Condition::And(_) | Condition::Not(_) => *next += condition.clauses().len(),
    }
}
