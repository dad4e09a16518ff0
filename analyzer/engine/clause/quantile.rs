//! Evidence that a quantile is beyond a multiple of the baseline's, or that and an amount.

use super::{LOOK_SECS_MIN, Look, evidence_finding, scarcity, used};
use crate::engine::{
    calibration::SignalCalibration,
    noise::{KAPPA_LATENCY_PRIOR_SECS, NoiseUsed, Origin},
    observation::{Arm, Missing, Why, histogram},
    quantile::QuantileEvidence,
    rule::{Allowed, Op},
    tail::CALIBRATION_REQUESTS,
    verdict::ClauseFinding,
};

pub(super) fn quantile_look(
    evidence: &mut QuantileEvidence,
    look: &Look<'_>,
    op: Op,
    allowed: Allowed,
    needed: f64,
) -> ClauseFinding {
    let (canary, baseline) = (histogram(&look.pair.canary), histogram(&look.pair.baseline));
    let secs = look.secs.max(LOOK_SECS_MIN);
    let noise = match look.noise.origin {
        Origin::Prior => SignalCalibration { kappa_secs: KAPPA_LATENCY_PRIOR_SECS, ..look.noise },
        Origin::History { .. } | Origin::Analysis { .. } => look.noise,
    };
    // A canary that falls short is a baseline that is beyond it.
    let (greater, lesser, learnt) = match op.is_upward() {
        true => (canary.as_deref(), baseline.as_deref(), Arm::Baseline),
        false => (baseline.as_deref(), canary.as_deref(), Arm::Canary),
    };
    evidence.step(greater, lesser, &noise, secs);
    let missing = scarcity(look, true).or_else(|| {
        let seen = evidence.calibrating()?;
        let detail = if seen < CALIBRATION_REQUESTS {
            format!(
                "learning the {learnt}'s latencies, {seen:.0} of {CALIBRATION_REQUESTS} requests"
            )
        } else {
            format!(
                "no common bucket edge where 0.5 % to 40 % of the {learnt}'s requests are slower"
            )
        };
        let why = if seen < CALIBRATION_REQUESTS { Why::NoTraffic } else { Why::BucketLayout };
        Some(Missing::new(why, detail))
    });
    let reference = look.track.arm(Arm::Baseline).estimate;
    ClauseFinding {
        estimate: look.track.arm(Arm::Canary).estimate,
        baseline: reference,
        bound: reference.map(|reference| allowed.bound(reference)),
        effect: look.effect,
        note: evidence
            .leading_edge()
            .map(|(edge, edges)| format!("strongest at the bucket edge {edge}, of {edges} judged")),
        ..evidence_finding(
            look,
            evidence.log_value(),
            needed,
            NoiseUsed { kappa_secs: noise.kappa_secs, ..used(look, evidence.noise()) },
            missing,
        )
    }
}
