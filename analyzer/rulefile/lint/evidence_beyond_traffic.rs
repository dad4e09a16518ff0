//! Evidence that the stated traffic never gives.

use super::{
    Findings, Lint, Subject,
    reckon::{FAILING_MAX, rate_text, time_text},
};
use crate::{
    engine::{
        promotion::{Sought, Traffic, time_at, time_to_find},
        rule::{Action, Allowed, Better, Op, SignalKind, Test},
    },
    rulefile::literal::duration_text,
};

pub(super) static LINT: Lint = Lint {
    name: "evidence-beyond-traffic",
    what: "a rule by evidence that finds nothing before the deadline at the stated traffic",
    why: "Even a release of which every request fails is over before chance is ruled out.",
    needs_traffic: true,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let rules = subject.rules;
    let Some(traffic) = subject.traffic else { return };
    let deadline = rules.promote.deadline;
    for (index, rule) in rules.rules.iter().enumerate() {
        if rule.then == Action::Ok {
            continue;
        }
        for placed in subject.clauses(index) {
            let signal = &rules.signals[placed.clause.signal];
            let (SignalKind::Ratio { floor }, Better::Lower) = (signal.kind, signal.better) else {
                continue;
            };
            let alpha = rules.alpha(rule);
            let times = traffic.arms(rules).into_iter().filter_map(|(canary, baseline)| {
                let traffic = Traffic {
                    canary_per_sec: canary,
                    baseline_per_sec: baseline,
                    event_share: FAILING_MAX,
                    kappa_secs: 0.0,
                };
                match placed.clause.test {
                    Test::BeyondBaseline {
                        op: Op::Above | Op::AtLeast,
                        allowed: Allowed::Times(margin),
                    } => {
                        let sought = Sought { margin, floor, alpha };
                        time_to_find(&traffic, sought, 1.0 / FAILING_MAX)
                    }
                    Test::BeyondConstant { op: Op::Above | Op::AtLeast, limit } => {
                        time_at(traffic.constant_nats_per_sec(1.0, limit), -alpha.ln())
                    }
                    // No formula, no warning.
                    _ => Some(std::time::Duration::ZERO),
                }
            });
            let time = times.min();
            if time.is_none_or(|time| time > deadline) {
                found.warn_rule(
                    index,
                    placed.span,
                    format!(
                        "at {} this takes {} at best, and the deadline is {}",
                        rate_text(traffic.rps),
                        time_text(time),
                        duration_text(deadline)
                    ),
                    "not even a release that fails every request is found in time",
                    format!("a `for`: `{} for 5m`, or a later deadline", placed.clause.text),
                );
            }
        }
    }
}
