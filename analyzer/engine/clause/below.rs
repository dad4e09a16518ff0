//! Evidence that a share or a rate is below a fraction of the baseline's.

use super::{LOOK_SECS_MIN, Look, evidence_finding, scarcity, used};
use crate::engine::{
    below::{Before, BelowEvidence, LEARNT_REQUESTS},
    evidence::Counts,
    noise::{comparison_noise, limit_noise},
    observation::{Arm, Missing, Why},
    rule::SignalKind,
    verdict::ClauseFinding,
};

pub(super) fn below_look(
    evidence: &mut BelowEvidence,
    look: &Look<'_>,
    margin: f64,
    needed: f64,
) -> ClauseFinding {
    let counts = Counts::of(look.pair).unwrap_or_default();
    let is_rate = look.signal.kind == SignalKind::Rate;
    let [events, total] = look.track.arm(Arm::Baseline).totals_before;
    // Of shares the misses are counted, of rates the events.
    let counted = if is_rate { events } else { total - events };
    let share = if total > 0.0 { counted / total } else { 0.0 };
    let secs = look.secs.max(LOOK_SECS_MIN);
    let per_sec = |total: f64, share: f64| share * total / secs;
    let kappa_secs = look.noise.kappa_secs;
    let before = Before {
        events,
        total,
        noise: comparison_noise(
            kappa_secs,
            per_sec(counts.canary_total, share),
            per_sec(counts.baseline_total, share),
        ),
        limit_noise: limit_noise(kappa_secs, per_sec(counts.canary_total, 1.0 - margin)),
    };
    let log_value = match is_rate {
        true => evidence.step_rate(&counts, &before),
        false => evidence.step_share(&counts, &before),
    };
    let (canary, baseline) = (look.track.arm(Arm::Canary), look.track.arm(Arm::Baseline));
    let (estimate, reference) = match is_rate {
        true => (canary.rate_per_instance(look.now), baseline.rate_per_instance(look.now)),
        false => (canary.estimate, baseline.estimate),
    };
    let missing = scarcity(look, true).or_else(|| {
        let learning = !is_rate && total < LEARNT_REQUESTS;
        let detail =
            || format!("learning the baseline's share, {total:.0} of {LEARNT_REQUESTS} requests");
        learning.then(|| Missing::new(Why::NoTraffic, detail()))
    });
    let used = used(look, before.noise);
    ClauseFinding {
        estimate,
        baseline: reference,
        bound: reference.map(|reference| reference * margin),
        window: canary.window_counts,
        ..evidence_finding(look, log_value, needed, used, missing)
    }
}
