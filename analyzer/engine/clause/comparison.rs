//! Evidence that an event rate is beyond a multiple of the baseline's.

use super::{LOOK_SECS_MIN, Look, evidence_finding, scarcity, used};
use crate::engine::{
    evidence::Counts,
    observation::Arm,
    rule::SignalKind,
    verdict::ClauseFinding,
    wager::{ComparisonEvidence, Noise},
};

pub(super) fn comparison_look(
    evidence: &mut ComparisonEvidence,
    look: &Look<'_>,
    margin: f64,
    needed: f64,
) -> ClauseFinding {
    let counts = Counts::of(look.pair).unwrap_or_default();
    let floor = match look.signal.kind {
        SignalKind::Ratio { floor } => floor,
        _ => 0.0,
    };
    // What is usual comes from the past and the baseline before this look: a regression must not
    // raise the noise factor that is to judge it.
    let usual = look.usual();
    let secs = look.secs.max(LOOK_SECS_MIN);
    let per_sec = |total: f64, rate: f64| rate * total / secs;
    // A baseline that is just now calm must not make the noise small that the past has shown.
    let past = look.noise.usual.rate(0.0, 0.0).unwrap_or(0.0);
    let expected = usual.unwrap_or(0.0).max(past);
    let noise = Noise {
        baseline: look.noise.comparison(
            per_sec(counts.canary_total, expected),
            per_sec(counts.baseline_total, expected),
        ),
        floor: look.noise.limit(per_sec(counts.canary_total, floor)),
    };
    let log_value = evidence.step(&counts, noise, usual);
    let (canary, baseline) = (look.track.arm(Arm::Canary), look.track.arm(Arm::Baseline));
    let (estimate, reference) = match look.signal.kind {
        SignalKind::Rate => {
            (canary.rate_per_instance(look.now), baseline.rate_per_instance(look.now))
        }
        _ => (canary.estimate, baseline.estimate),
    };
    ClauseFinding {
        estimate,
        baseline: reference,
        bound: reference.map(|reference| (reference * margin).max(floor)),
        window: canary.window_counts,
        effect: look.effect,
        ..evidence_finding(
            look,
            log_value,
            needed,
            used(look, noise.baseline),
            scarcity(look, true),
        )
    }
}
