//! Evidence that an event rate is beyond the baseline's plus, or less, an amount.

use super::{LOOK_SECS_MIN, Look, below::of_misses, evidence_finding, scarcity};
use crate::engine::{
    difference::{DifferenceEvidence, DifferenceTerms, Greater},
    evidence::Counts,
    noise::{Expected, NoiseUsed},
    observation::Arm,
    rule::{Op, SignalKind},
    verdict::ClauseFinding,
};

/// Above this share those requests are counted that are no events: they are fewer and tell more.
const MOSTLY: f64 = 0.5;

/// `amount` is what is added to the baseline's value: below zero for a canary that must not fall
/// short.
pub(super) fn difference_look(
    evidence: &mut DifferenceEvidence,
    look: &Look<'_>,
    op: Op,
    amount: f64,
    needed: f64,
) -> ClauseFinding {
    let is_rate = look.signal.kind == SignalKind::Rate;
    let seen = Counts::of(look.pair).unwrap_or_default();
    let usual = look.usual();
    // As in a comparison by a multiple: what the past has shown keeps the noise up.
    let expected = usual.unwrap_or(0.0).max(look.noise.usual.rate(0.0, 0.0).unwrap_or(0.0));
    let by_misses = !is_rate && expected > MOSTLY;
    let turned = |share: f64| if by_misses { (1.0 - share).max(0.0) } else { share };
    let (counts, share) = (if by_misses { seen.misses() } else { seen }, turned(expected));
    let greater = match (op, by_misses) {
        (Op::Above | Op::AtLeast, false) | (Op::Below | Op::AtMost, true) => Greater::Canary,
        (Op::Above | Op::AtLeast, true) | (Op::Below | Op::AtMost, false) => Greater::Baseline,
    };
    let secs = look.secs.max(LOOK_SECS_MIN);
    let calibration = if by_misses { of_misses(look.noise, share) } else { look.noise };
    // Where the null is hardest to reject: at its bound.
    let canary = |rate: f64| Expected { rate, per_sec: counts.canary_total / secs };
    let baseline = Expected { rate: share, per_sec: counts.baseline_total / secs };
    let noise = match greater {
        Greater::Canary => calibration.difference(canary(share + amount.abs()), baseline),
        Greater::Baseline => {
            calibration.difference(baseline, canary((share - amount.abs()).max(0.0)))
        }
    };
    let terms = DifferenceTerms {
        greater,
        noise,
        floor_noise: look.noise.limit(evidence.floor() * counts.canary_total / secs),
        usual: usual.map(turned),
    };
    let log_value = evidence.step(&counts, &terms);
    let (canary, baseline) = (look.track.arm(Arm::Canary), look.track.arm(Arm::Baseline));
    let (estimate, reference) = match is_rate {
        true => (canary.rate_per_instance(look.now), baseline.rate_per_instance(look.now)),
        false => (canary.estimate, baseline.estimate),
    };
    let (kappa_secs, origin) = (calibration.kappa_secs, calibration.origin);
    let used = NoiseUsed { factor: noise, kappa_secs, origin };
    ClauseFinding {
        estimate,
        baseline: reference,
        bound: reference.map(|reference| (reference + amount).max(evidence.floor())),
        window: canary.window_counts,
        effect: look.effect,
        ..evidence_finding(look, log_value, needed, used, scarcity(look, true))
    }
}
