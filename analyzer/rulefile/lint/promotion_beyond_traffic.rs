//! A promotion that the stated traffic does not allow.

use super::{
    Findings, Lint, Subject,
    reckon::{Noise, proof, rate_text, time_text},
};
use crate::{
    engine::{clause::CLEAR_REQUESTS_MIN, rule::SignalKind},
    rulefile::literal::duration_text,
};

pub(super) static LINT: Lint = Lint {
    name: "promotion-beyond-traffic",
    what: "a promotion that cannot come before the deadline at the stated traffic",
    why: "Proof is made of requests. Where they are too few, a healthy release ends inconclusive, \
          every time. `rollgate plan` says how long each proof takes.",
    needs_traffic: true,
    look,
};

fn look(subject: &Subject, found: &mut Findings) {
    let rules = subject.rules;
    let Some(traffic) = subject.traffic else { return };
    let deadline = rules.promote.deadline;
    let arms = traffic.arms(rules);
    for signal in &rules.signals {
        let Some(margin) = signal.margin else { continue };
        let times = arms.iter().map(|arms| proof(rules, signal, margin, *arms, Noise::None));
        let time = times.flatten().min();
        if time.is_none_or(|time| time > deadline) {
            found.warn(
                subject.margin(&signal.name),
                format!(
                    "at {} showing `{}` within {}x takes {} at best, and the deadline is {}",
                    rate_text(traffic.rps),
                    signal.name,
                    margin.factor,
                    time_text(time),
                    duration_text(deadline)
                ),
                "a healthy release is not shown good in time, and ends inconclusive",
                match margin.or {
                    Some(_) => "a later deadline, or a looser margin or `or`",
                    None => "a later deadline, a looser margin, or an `or`, such as `1.5x or 1%`",
                },
            );
        }
    }
    // Where evidence decides, clear means that so many requests were seen.
    let counts = rules.rules.iter().flat_map(|rule| rule.when.clauses()).any(|clause| {
        let kind = rules.signals[clause.signal].kind;
        clause.test.is_evidence()
            && matches!(kind, SignalKind::Ratio { .. } | SignalKind::Quantile { .. })
    });
    let secs = CLEAR_REQUESTS_MIN / arms.iter().map(|arm| arm.0).fold(0.0, f64::max);
    if counts && secs > deadline.as_secs_f64() {
        found.warn(
            subject.below("observe", "traffic"),
            format!(
                "at {} the canary has fewer than {CLEAR_REQUESTS_MIN} requests before the deadline \
                 of {}",
                rate_text(traffic.rps),
                duration_text(deadline)
            ),
            "no rule of evidence has enough data to be clear, and no release is promoted",
            "a later deadline, or rules with `for` in their place",
        );
    }
}
