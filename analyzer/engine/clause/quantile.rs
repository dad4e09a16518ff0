//! Evidence that a quantile is beyond a multiple of the baseline's.

use std::borrow::Cow;

use super::{LOOK_SECS_MIN, Look, evidence_finding, scarcity, used};
use crate::engine::{
    observation::{Arm, Histogram, Missing, Reading, Value, Why},
    quantile::{CALIBRATION_REQUESTS, QuantileEvidence},
    verdict::ClauseFinding,
};

pub(super) fn quantile_look(
    evidence: &mut QuantileEvidence,
    look: &Look<'_>,
    margin: f64,
    needed: f64,
) -> ClauseFinding {
    fn histogram(reading: &Reading) -> Option<Cow<'_, Histogram>> {
        reading.as_ref().ok().and_then(Value::histogram)
    }
    let (canary, baseline) = (histogram(&look.pair.canary), histogram(&look.pair.baseline));
    let secs = look.secs.max(LOOK_SECS_MIN);
    evidence.step(canary.as_deref(), baseline.as_deref(), look.noise.kappa_secs, secs);
    let missing = scarcity(look, true).or_else(|| {
        let seen = evidence.calibrating()?;
        let detail = if seen < CALIBRATION_REQUESTS {
            format!(
                "learning the baseline's latencies, {seen:.0} of {CALIBRATION_REQUESTS} requests"
            )
        } else {
            "no common bucket edge where 0.5 % to 40 % of the baseline's requests are slower".into()
        };
        let why = if seen < CALIBRATION_REQUESTS { Why::NoTraffic } else { Why::BucketLayout };
        Some(Missing::new(why, detail))
    });
    let reference = look.track.arm(Arm::Baseline).estimate;
    ClauseFinding {
        estimate: look.track.arm(Arm::Canary).estimate,
        baseline: reference,
        bound: reference.map(|reference| reference * margin),
        note: evidence
            .leading_edge()
            .map(|(edge, edges)| format!("strongest at the bucket edge {edge}, of {edges} judged")),
        ..evidence_finding(
            look,
            evidence.log_value(),
            needed,
            used(look, evidence.noise()),
            missing,
        )
    }
}
