//! A value that is good enough to promote and bad enough to roll back.

use super::{Findings, Lint, Subject};
use crate::engine::rule::{Action, Better, Bound, Op, Test};

pub(super) static LINT: Lint = Lint {
    name: "margin-beyond-limit",
    what: "an `or` of a margin beyond a limit at which the signal is rolled back",
    why: "One of the two is not meant: what is good enough whatever the baseline does cannot be a \
          reason to roll back.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, rule) in subject.rules.rules.iter().enumerate() {
        if rule.then != Action::Rollback {
            continue;
        }
        // Among several clauses the others may be what makes it bad.
        let [clause] = rule.when.clauses()[..] else { continue };
        let (op, limit) = match clause.test {
            Test::Dwell { op, bound: Bound::Constant(limit), .. } => (op, limit),
            Test::BeyondConstant { op, limit } => (op, limit),
            Test::Dwell { .. }
            | Test::BeyondBaseline { .. }
            | Test::Slope { .. }
            | Test::Counted { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => continue,
        };
        let signal = &subject.rules.signals[clause.signal];
        let Some(or) = signal.margin.and_then(|margin| margin.or) else { continue };
        let is_beyond = match (signal.better, op) {
            (Better::Lower, Op::Above | Op::AtLeast) => or > limit,
            (Better::Higher, Op::Below | Op::AtMost) => or < limit,
            (Better::Lower, Op::Below | Op::AtMost) | (Better::Higher, Op::Above | Op::AtLeast) => {
                false
            }
        };
        if is_beyond {
            found.warn(
                subject.margin(&signal.name),
                format!(
                    "the `or` is beyond `{}` on line {}, which rolls back",
                    clause.text,
                    subject.line(index)
                ),
                "a release can be good enough to promote and be rolled back for it",
                "an `or` within the limit",
            );
        }
    }
}
