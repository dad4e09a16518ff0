//! Evidence that a level is beyond its bound: the signs of both, look by look.

use super::{LOOK_SECS_MIN, Look, evidence_finding, outage};
use crate::engine::{
    gauge::{CLEAR_LOOKS_MIN, CONFIDENCE, HOLDS_PRIOR_SECS, SignEvidence},
    noise::{NoiseUsed, Origin},
    observation::{Arm, Missing, Reading, Value, Why},
    rule::Bound,
    verdict::{ClauseFinding, Effect, EffectKind},
};

/// `against` is a constant, or a multiple of the baseline's level, or that plus an amount.
pub(super) fn gauge_look(
    evidence: &mut SignEvidence,
    look: &Look<'_>,
    against: Bound,
    needed: f64,
) -> ClauseFinding {
    let canary = level(&look.pair.canary);
    let baseline = level(&look.pair.baseline);
    let (bound, compares) = match against {
        Bound::Constant(limit) => (Some(limit), false),
        Bound::TimesBaseline(margin) => (baseline.map(|level| level * margin), true),
        Bound::BaselinePlus(offset) => (baseline.map(|level| level + offset), true),
    };
    let below_zero = match against {
        Bound::TimesBaseline(_) => baseline.filter(|level| *level < 0.0),
        Bound::Constant(_) | Bound::BaselinePlus(_) => None,
    };
    let holds_secs = match look.noise.origin {
        Origin::History { .. } => Some(look.noise.kappa_secs),
        Origin::Prior | Origin::Analysis { .. } => None,
    };
    if let (Some(level), Some(bound), None) = (canary, bound, below_zero) {
        evidence.step(level, bound, look.secs.max(LOOK_SECS_MIN), holds_secs);
    }
    if let Some((level, bound)) = baseline.zip(bound) {
        evidence.learn(level, bound);
    }
    let missing = outage(look, compares).or_else(|| {
        if let Some(level) = below_zero {
            let detail =
                format!("baseline: a multiple of {level}, which is below zero, says nothing");
            return Some(Missing::new(Why::BadValue, detail));
        }
        let (looks, _) = evidence.looks();
        let detail = || format!("{looks:.0} of the {CLEAR_LOOKS_MIN} looks a clear needs");
        (looks < CLEAR_LOOKS_MIN).then(|| Missing::new(Why::FirstLook, detail()))
    });
    let (origin, kappa_secs) = match holds_secs {
        Some(secs) => (look.noise.origin, secs),
        None => (Origin::Prior, HOLDS_PRIOR_SECS),
    };
    let noise = NoiseUsed { factor: evidence.noise(), kappa_secs, origin };
    ClauseFinding {
        estimate: look.track.arm(Arm::Canary).estimate,
        baseline: baseline.filter(|_| compares),
        bound,
        note: evidence.share().map(|(share, ..)| {
            let (looks, events) = evidence.looks();
            format!("beyond it at {events:.0} of {looks:.0} looks, {:.0} %", share * 100.0)
        }),
        effect: evidence.share().map(|(estimate, low, high)| Effect {
            kind: EffectKind::SignShare,
            estimate,
            low,
            high,
            confidence: CONFIDENCE,
        }),
        ..evidence_finding(look, evidence.log_value(), needed, noise, missing)
    }
}

fn level(reading: &Reading) -> Option<f64> {
    match reading {
        Ok(Value::Level(level)) => Some(*level),
        Ok(_) | Err(_) => None,
    }
}
