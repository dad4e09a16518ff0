//! Clauses with `for`: point estimates and answer times that have to hold for a while.

use std::time::Duration;

use super::{Look, blank, outage};
use crate::engine::{
    dwell::Dwell,
    observation::{Arm, Missing, Why},
    rule::{Bound, Op, SignalKind},
    verdict::{ClauseFinding, Progress, State},
};

pub(super) fn dwell_look(
    dwell: &mut Dwell,
    look: &Look<'_>,
    op: Op,
    bound: Bound,
    hold: Duration,
) -> ClauseFinding {
    let canary = look.track.arm(Arm::Canary);
    let baseline = look.track.arm(Arm::Baseline);
    let per_instance = look.signal.kind == SignalKind::Rate;
    let (estimate, reference, bound, compares) = match bound {
        Bound::Constant(limit) => (canary.estimate, None, Some(limit), false),
        Bound::TimesBaseline(_) | Bound::BaselinePlus(_) if per_instance => {
            let reference = baseline.rate_per_instance(look.now);
            let bound = reference.map(|rate| match bound {
                Bound::TimesBaseline(factor) => rate * factor,
                Bound::BaselinePlus(offset) => rate + offset,
                Bound::Constant(limit) => limit,
            });
            (canary.rate_per_instance(look.now), reference, bound, true)
        }
        Bound::TimesBaseline(factor) => {
            let bound = baseline.estimate.map(|value| value * factor);
            (canary.estimate, baseline.estimate, bound, true)
        }
        Bound::BaselinePlus(offset) => {
            let bound = baseline.estimate.map(|value| value + offset);
            (canary.estimate, baseline.estimate, bound, true)
        }
    };
    let missing = outage(look, compares);
    let holds = match (estimate, bound, &missing) {
        (Some(estimate), Some(bound), None) => Some(op.holds(estimate, bound)),
        _ => None,
    };
    let held = dwell.look(look.now, holds, look.window);
    let state = match (held, holds) {
        (Some(held), Some(true)) if held >= hold => State::Fires,
        (_, Some(_)) => State::Clear,
        (_, None) => State::NotEnoughData,
    };
    let missing = missing.or_else(|| {
        (state == State::NotEnoughData).then(|| Missing::new(Why::NoTraffic, "none in the window"))
    });
    ClauseFinding {
        state,
        estimate,
        baseline: reference,
        bound,
        window: canary.window_counts,
        missing,
        ..blank(look, state, Progress::Held { held: held.unwrap_or(Duration::ZERO), needed: hold })
    }
}

pub(super) fn latency_look(
    dwell: &mut Dwell,
    look: &Look<'_>,
    op: Op,
    limit: f64,
    hold: Duration,
) -> ClauseFinding {
    let canary = look.track.arm(Arm::Canary);
    let estimate = canary.latency_secs;
    let holds = estimate.map(|secs| op.holds(secs, limit));
    let held = dwell.look(look.now, holds, look.window);
    let (state, missing) = match (held, holds) {
        (Some(held), Some(true)) if held >= hold => (State::Fires, None),
        (_, Some(_)) => (State::Clear, None),
        (_, None) => {
            let silent = || Missing::new(Why::NotObserved, "the endpoint did not answer");
            (State::NotEnoughData, Some(outage(look, false).unwrap_or_else(silent)))
        }
    };
    let progress = Progress::Held { held: held.unwrap_or(Duration::ZERO), needed: hold };
    ClauseFinding { estimate, bound: Some(limit), missing, ..blank(look, state, progress) }
}
