//! Clauses joined by `and` that cannot hold together.

use super::{Findings, Lint, Subject, implies::bound_of};
use crate::engine::rule::{Bound, Clause, Condition, Op, Test};

pub(super) static LINT: Lint = Lint {
    name: "contradiction",
    what: "clauses joined by `and` of which one rules out the other",
    why: "The rule never fires, and its author believes to be protected by it.",
    needs_traffic: false,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    for (index, rule) in subject.rules.rules.iter().enumerate() {
        let mut groups = Vec::new();
        let mut next = 0;
        together(&rule.when, &mut next, &mut groups);
        let placed = subject.clauses(index);
        for group in groups {
            let mut pairs = group
                .iter()
                .enumerate()
                .flat_map(|(at, second)| group[..at].iter().map(move |first| (first, second)));
            if let Some((first, second)) = pairs.find(|(first, second)| excludes(first, second)) {
                found.warn_rule(
                    index,
                    placed[second.index].span.clone(),
                    format!("this and `{}` never hold together", first.clause.text),
                    "this part of the rule never fires",
                    "`or` between them, or other limits",
                );
            }
        }
    }
}

/// A clause of an `and`, by its number in the condition.
struct Part<'c> {
    index: usize,
    clause: &'c Clause,
    negated: bool,
}

/// Gathers the clauses of every `and`, counting clauses from the left.
fn together<'c>(condition: &'c Condition, next: &mut usize, out: &mut Vec<Vec<Part<'c>>>) {
    let mut group = Vec::new();
    gather(condition, next, &mut group, out);
    out.push(group);
}

fn gather<'c>(
    condition: &'c Condition,
    next: &mut usize,
    group: &mut Vec<Part<'c>>,
    out: &mut Vec<Vec<Part<'c>>>,
) {
    match condition {
        Condition::Clause(clause) => {
            group.push(Part { index: *next, clause, negated: false });
            *next += 1;
        }
        Condition::Not(part) => {
            if let Condition::Clause(clause) = part.as_ref() {
                group.push(Part { index: *next, clause, negated: true });
                *next += 1;
            } else {
                together(part, next, out);
            }
        }
        Condition::And(parts) => parts.iter().for_each(|part| gather(part, next, group, out)),
        Condition::Or(parts) => parts.iter().for_each(|part| together(part, next, out)),
    }
}

fn excludes(first: &Part, second: &Part) -> bool {
    let (one, other) = (first.clause, second.clause);
    if one.signal != other.signal || one.scope != other.scope {
        return false;
    }
    if first.negated || second.negated {
        return first.negated != second.negated && one.test == other.test;
    }
    match one.test {
        Test::Dwell { op, bound, .. } => matches!(other.test,
            Test::Dwell { op: other_op, bound: other_bound, .. }
                if bounded((op, bound), (other_op, other_bound))),
        Test::BeyondConstant { op, limit } => matches!(other.test,
            Test::BeyondConstant { op: other_op, limit: other_limit }
                if apart((op, limit), (other_op, other_limit))),
        Test::BeyondBaseline { op, allowed } => matches!(other.test,
            Test::BeyondBaseline { op: other_op, allowed: other_allowed }
                if bounded((op, bound_of(allowed)), (other_op, bound_of(other_allowed)))),
        Test::Slope { op, bound } => matches!(other.test,
            Test::Slope { op: other_op, bound: other_bound }
                if bounded((op, bound), (other_op, other_bound))),
        Test::Counted { op, limit } => matches!(other.test,
            Test::Counted { op: other_op, limit: other_limit }
                if apart((op, limit), (other_op, other_limit))),
        Test::HealthLatency { op, limit_secs, .. } => matches!(other.test,
            Test::HealthLatency { op: other_op, limit_secs: other_limit, .. }
                if apart((op, limit_secs), (other_op, other_limit))),
        // However long each must last, both are asked of the present look.
        Test::HealthIs { status, .. } => matches!(other.test,
            Test::HealthIs { status: other_status, .. } if status != other_status),
    }
}

fn bounded((op, bound): (Op, Bound), (other_op, other): (Op, Bound)) -> bool {
    match (bound, other) {
        (Bound::Constant(limit), Bound::Constant(other_limit))
        | (Bound::TimesBaseline(limit), Bound::TimesBaseline(other_limit))
        | (Bound::BaselinePlus(limit), Bound::BaselinePlus(other_limit)) => {
            apart((op, limit), (other_op, other_limit))
        }
        (Bound::Constant(_) | Bound::TimesBaseline(_) | Bound::BaselinePlus(_), _) => false,
    }
}

/// Whether nothing is beyond both limits.
fn apart((op, limit): (Op, f64), (other_op, other): (Op, f64)) -> bool {
    match (op, other_op) {
        (Op::AtLeast, Op::AtMost) => limit > other,
        (Op::AtMost, Op::AtLeast) => limit < other,
        (Op::Above | Op::AtLeast, Op::Below | Op::AtMost) => limit >= other,
        (Op::Below | Op::AtMost, Op::Above | Op::AtLeast) => limit <= other,
        (Op::Above | Op::AtLeast, Op::Above | Op::AtLeast)
        | (Op::Below | Op::AtMost, Op::Below | Op::AtMost) => false,
    }
}
