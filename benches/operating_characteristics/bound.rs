//! Wald's bound on the time to find a fault: no test that is wrong with probability alpha at most
//! finds it sooner than `ln(1/alpha) / KL` on average (Wald 1947), with KL the information a second.
//!
//! KL is taken at the margin's null, in the conditional two-arm form: given all events of a second,
//! each falls to the canary with probability `theta(r) = r n_c / (r n_c + n_b)`, at `r = rho` in
//! truth and at `r = m` under the null. Nobody who compares two arms without knowing the baseline's
//! rate has more. The floor is a second null that must fall too; the smaller KL counts.

use rollgate::simulation::{LatencyLaw, Traffic};

/// Events of one kind, a second: canary and baseline.
fn conditional(canary: f64, baseline: f64, exposure_ratio: f64, null_ratio: f64) -> f64 {
    let truth = canary / (canary + baseline);
    let null = null_ratio * exposure_ratio / (null_ratio * exposure_ratio + 1.0);
    let term = |events: f64, ratio: f64| if events > 0.0 { events * ratio.ln() } else { 0.0 };
    term(canary, truth / null) + term(baseline, (1.0 - truth) / (1.0 - null))
}

/// Seconds to find that the canary's error share is `canary` instead of `margin` times `baseline`,
/// or instead of `floor`.
pub fn errors(traffic: &Traffic, baseline: f64, canary: f64, rule: (f64, f64), alpha: f64) -> f64 {
    let (margin, floor) = rule;
    let (n_c, n_b) = (traffic.canary_rps, traffic.baseline_rps);
    let versus_baseline = conditional(n_c * canary, n_b * baseline, n_c / n_b, margin);
    let versus_floor = n_c * (canary * (canary / floor).ln() - (canary - floor));
    (1.0 / alpha).ln() / versus_baseline.min(versus_floor)
}

/// Seconds to find that the canary is `slowdown` times as slow instead of `margin` times, by the
/// best single bucket edge: requests beyond it and requests before it are two kinds of events.
pub fn latency(traffic: &Traffic, law: LatencyLaw, slowdown: f64, margin: f64, alpha: f64) -> f64 {
    let (n_c, n_b) = (traffic.canary_rps, traffic.baseline_rps);
    let at_edge = |edge: &f64| {
        let beyond = |factor: f64| 1.0 - law.below(edge / factor);
        let (share, truth, null) = (beyond(1.0), beyond(slowdown), beyond(margin));
        let kind = |share: f64, truth: f64, null: f64| match share > 1e-9 && null > 1e-9 {
            true => conditional(n_c * truth, n_b * share, n_c / n_b, null / share),
            false => 0.0,
        };
        kind(share, truth, null) + kind(1.0 - share, 1.0 - truth, 1.0 - null)
    };
    let edges = rollgate::simulation::latency::EDGES;
    (1.0 / alpha).ln() / edges.iter().map(at_edge).fold(0.0, f64::max)
}
