//! Whether one condition cannot hold without another.
//!
//! Clauses of the same form on the same signal are compared by their limits and times; what is of
//! two forms (evidence and `for`) is never said to imply the other. Only what is certain is said.

use crate::engine::rule::{Allowed, Bound, Clause, Condition, HealthHold, Op, Test};

/// Whether `strong` holding means that `weak` holds, or has held before.
pub(super) fn implies(strong: &Condition, weak: &Condition) -> bool {
    match (strong, weak) {
        (Condition::Or(parts), _) => parts.iter().all(|part| implies(part, weak)),
        (_, Condition::And(parts)) => parts.iter().all(|part| implies(strong, part)),
        (Condition::And(parts), _) if parts.iter().any(|part| implies(part, weak)) => true,
        (_, Condition::Or(parts)) => parts.iter().any(|part| implies(strong, part)),
        (Condition::Not(strong), Condition::Not(weak)) => implies(weak, strong),
        (Condition::Clause(strong), Condition::Clause(weak)) => clause(strong, weak),
        (Condition::And(_) | Condition::Not(_) | Condition::Clause(_), _) => false,
    }
}

fn clause(strong: &Clause, weak: &Clause) -> bool {
    strong.signal == weak.signal
        && strong.scope == weak.scope
        && (strong.test == weak.test || test(strong.test, weak.test))
}

fn test(strong: Test, weak: Test) -> bool {
    match strong {
        Test::Dwell { op, bound, hold } => matches!(weak,
            Test::Dwell { op: weak_op, bound: weak_bound, hold: weak_hold }
                if weak_hold <= hold && bounded((op, bound), (weak_op, weak_bound))),
        Test::BeyondConstant { op, limit } => matches!(weak,
            Test::BeyondConstant { op: weak_op, limit: weak_limit }
                if beyond((op, limit), (weak_op, weak_limit))),
        Test::BeyondBaseline { op, allowed } => matches!(weak,
            Test::BeyondBaseline { op: weak_op, allowed: weak_allowed }
                if bounded((op, bound_of(allowed)), (weak_op, bound_of(weak_allowed)))),
        Test::Slope { op, bound } => matches!(weak,
            Test::Slope { op: weak_op, bound: weak_bound }
                if bounded((op, bound), (weak_op, weak_bound))),
        Test::Counted { op, limit } => matches!(weak,
            Test::Counted { op: weak_op, limit: weak_limit }
                if beyond((op, limit), (weak_op, weak_limit))),
        Test::HealthIs { status, hold } => matches!(weak,
            Test::HealthIs { status: weak_status, hold: weak_hold }
                if status == weak_status && lasts(hold, weak_hold)),
        Test::HealthLatency { op, limit_secs, hold } => matches!(weak,
            Test::HealthLatency { op: weak_op, limit_secs: weak_limit, hold: weak_hold }
                if weak_hold <= hold && beyond((op, limit_secs), (weak_op, weak_limit))),
    }
}

/// What is allowed beside the baseline, as a bound.
pub(super) fn bound_of(allowed: Allowed) -> Bound {
    match allowed {
        Allowed::Times(times) => Bound::TimesBaseline(times),
        Allowed::Plus(amount) => Bound::BaselinePlus(amount),
    }
}

/// Whether what is beyond the first bound is beyond the second.
fn bounded((op, bound): (Op, Bound), (weak_op, weak_bound): (Op, Bound)) -> bool {
    match (bound, weak_bound) {
        (Bound::Constant(limit), Bound::Constant(weak_limit))
        | (Bound::TimesBaseline(limit), Bound::TimesBaseline(weak_limit))
        | (Bound::BaselinePlus(limit), Bound::BaselinePlus(weak_limit)) => {
            beyond((op, limit), (weak_op, weak_limit))
        }
        (Bound::Constant(_) | Bound::TimesBaseline(_) | Bound::BaselinePlus(_), _) => false,
    }
}

/// Whether what is beyond the first limit is beyond the second.
fn beyond((op, limit): (Op, f64), (weak_op, weak_limit): (Op, f64)) -> bool {
    match (op, weak_op) {
        (Op::Above, Op::Above | Op::AtLeast) | (Op::AtLeast, Op::AtLeast) => limit >= weak_limit,
        (Op::AtLeast, Op::Above) => limit > weak_limit,
        (Op::Below, Op::Below | Op::AtMost) | (Op::AtMost, Op::AtMost) => limit <= weak_limit,
        (Op::AtMost, Op::Below) => limit < weak_limit,
        (Op::Above | Op::AtLeast, Op::Below | Op::AtMost)
        | (Op::Below | Op::AtMost, Op::Above | Op::AtLeast) => false,
    }
}

fn lasts(hold: HealthHold, weak_hold: HealthHold) -> bool {
    match (hold, weak_hold) {
        (HealthHold::Checks(checks), HealthHold::Checks(weak)) => checks >= weak,
        (HealthHold::For(time), HealthHold::For(weak)) => time >= weak,
        (HealthHold::For(_), HealthHold::Checks(1)) => true,
        (HealthHold::Checks(_) | HealthHold::For(_), _) => false,
    }
}
