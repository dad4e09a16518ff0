//! Evidence that an event rate is beyond a multiple of the baseline's.

use super::{LOOK_SECS_MIN, Look, evidence_finding, scarcity, used};
use crate::engine::{
    evidence::Counts,
    observation::{Arm, Reading, Value},
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
    let mut counts = Counts::default();
    let both = arm_counts(&look.pair.canary).zip(arm_counts(&look.pair.baseline));
    if let Some((canary, baseline)) = both {
        (counts.canary_events, counts.canary_total) = canary;
        (counts.baseline_events, counts.baseline_total) = baseline;
    }
    let floor = match look.signal.kind {
        SignalKind::Ratio { floor } => floor,
        _ => 0.0,
    };
    // What is usual comes from the past and the baseline before this look: a regression must not
    // raise the noise factor that is to judge it.
    let usual = look.usual();
    let secs = look.secs.max(LOOK_SECS_MIN);
    let per_sec = |total: f64, rate: f64| rate * total / secs;
    let expected = usual.unwrap_or(0.0);
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

fn arm_counts(reading: &Reading) -> Option<(f64, f64)> {
    match reading {
        Ok(Value::Share { events, total }) => Some((*events, *total)),
        Ok(Value::Events { events, instance_secs, .. }) => Some((*events, *instance_secs)),
        Ok(Value::Histogram(_) | Value::Level(_) | Value::Health { .. } | Value::Restarts(_))
        | Err(_) => None,
    }
}
