//! Evidence that a share or a rate is below a fraction of the baseline's.

use super::{LOOK_SECS_MIN, Look, evidence_finding, scarcity};
use crate::engine::{
    below::{Before, BelowEvidence, LEARNT_REQUESTS},
    calibration::SignalCalibration,
    evidence::Counts,
    noise::{NoiseUsed, Origin},
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
    let calibration = if is_rate { look.noise } else { of_misses(look.noise, share) };
    let before = Before {
        events,
        total,
        noise: calibration
            .comparison(per_sec(counts.canary_total, share), per_sec(counts.baseline_total, share)),
        limit_noise: calibration.limit(per_sec(counts.canary_total, 1.0 - margin)),
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
    let SignalCalibration { kappa_secs, origin, .. } = calibration;
    let used = NoiseUsed { factor: before.noise, kappa_secs, origin };
    ClauseFinding {
        estimate,
        baseline: reference,
        bound: reference.map(|reference| reference * margin),
        window: canary.window_counts,
        ..evidence_finding(look, log_value, needed, used, missing)
    }
}

/// What was measured of hits, said of misses: the same excess of variance beside a smaller share is
/// a larger intensity, by the square of the ratio of both. The prior is one of misses as it is.
pub(super) fn of_misses(hits: SignalCalibration, misses: f64) -> SignalCalibration {
    let measured = match hits.origin {
        Origin::Prior => false,
        Origin::History { .. } => true,
        Origin::Analysis { history_secs, .. } => history_secs > 0.0,
    };
    if !measured || misses <= 0.0 {
        return hits;
    }
    let scale = ((1.0 - misses) / misses).powi(2);
    SignalCalibration { kappa_secs: hits.kappa_secs * scale, spread: hits.spread * scale, ..hits }
}
