//! How long evidence and proofs take at best, by the formulas of [`crate::engine::promotion`].
//!
//! A file does not say how often its service fails, or how slow it is. So a lint reckons with what
//! makes a decision quickest of all that a healthy service may be; what does not come in time even
//! then comes never.

use std::time::Duration;

use statrs::distribution::{ContinuousCDF, Normal};

use crate::engine::{
    noise::{KAPPA_LATENCY_PRIOR_SECS, KAPPA_PRIOR_SECS},
    promotion::{Traffic, time_to_show},
    rule::{Better, Margin, RuleSet, Signal, SignalKind},
};

/// A service of which more requests than this fail is not called healthy.
pub(super) const FAILING_MAX: f64 = 0.01;

/// Shares of slow requests at the bucket edges where a quantile's ratio is read.
const TAILS: [f64; 6] = [0.4, 0.2, 0.1, 0.05, 0.02, 0.005];

/// Deviation of the log latency: a tail of three times the median at the 99th percentile.
const LATENCY_SPREAD: f64 = 0.5;

/// Whether the arms' rates are taken to waver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noise {
    /// Not at all.
    None,
    /// As a service does of which nothing is known.
    Prior,
}

/// How long it takes at best to show a signal within its margin, for a canary as good as the
/// baseline, at so many requests a second of each arm; none when it is longer than two weeks.
pub(super) fn proof(
    rules: &RuleSet,
    signal: &Signal,
    margin: Margin,
    (canary_rps, baseline_rps): (f64, f64),
    noise: Noise,
) -> Option<Duration> {
    let kappa = |prior: f64| if noise == Noise::Prior { prior } else { 0.0 };
    let traffic = |event_share: f64, kappa_secs: f64| Traffic {
        canary_per_sec: canary_rps,
        baseline_per_sec: baseline_rps,
        event_share,
        kappa_secs,
    };
    let rate = rules.promote.false_promotion_rate;
    let show = |traffic: Traffic, margin| time_to_show(&traffic, margin, signal.better, rate);
    match signal.kind {
        SignalKind::Ratio { .. } => {
            let shares = match signal.better {
                // By the ratio the more events the better, by the `or` the fewer.
                Better::Lower => [0.0, FAILING_MAX],
                Better::Higher => [1.0 - FAILING_MAX, 1.0],
            };
            let times = shares.into_iter();
            times.filter_map(|share| show(traffic(share, kappa(KAPPA_PRIOR_SECS)), margin)).min()
        }
        SignalKind::Rate => {
            // Each request is an event, and what they are among is time.
            let per_sec = Traffic {
                canary_per_sec: 1.0,
                baseline_per_sec: 1.0,
                ..traffic(canary_rps.min(baseline_rps), kappa(KAPPA_PRIOR_SECS))
            };
            show(per_sec, margin)
        }
        SignalKind::Quantile { .. } => {
            let factor = margin.factor;
            let times = TAILS.into_iter().filter_map(|tail| {
                let ratio = tail_beyond(tail, factor) / tail;
                let margin = Margin { factor: ratio, or: None };
                show(traffic(tail, kappa(KAPPA_LATENCY_PRIOR_SECS)), margin)
            });
            let by_constant = margin.or.and_then(|or| {
                // Every request is faster than what is good enough.
                show(traffic(0.0, 0.0), Margin { factor, or: Some(or.clamp(0.05, 0.5)) })
            });
            times.chain(by_constant).min()
        }
        SignalKind::Count
        | SignalKind::Gauge { .. }
        | SignalKind::Health
        | SignalKind::Restarts => None,
    }
}

/// The share of requests beyond an edge once all take `factor` times as long, where `tail` lie beyond
/// it now: latencies are log-normal.
fn tail_beyond(tail: f64, factor: f64) -> f64 {
    let normal = Normal::standard();
    let edge = normal.inverse_cdf(1.0 - tail);
    1.0 - normal.cdf(edge - factor.ln() / LATENCY_SPREAD)
}

/// A rate as a rule file writes it.
pub(super) fn rate_text(rps: f64) -> String {
    let (amount, unit) = match rps {
        rps if rps >= 1.0 => (rps, "s"),
        rps if rps >= 1.0 / 60.0 => (rps * 60.0, "min"),
        _ => (rps * 3600.0, "h"),
    };
    let scale = if amount >= 10.0 { 1.0 } else { 10.0 };
    format!("{}/{unit}", (amount * scale).round() / scale)
}

/// A time in one unit, or that it is too long to tell.
pub(super) fn time_text(time: Option<Duration>) -> String {
    let Some(time) = time else { return "weeks".to_owned() };
    let secs = time.as_secs_f64();
    match secs {
        _ if secs < 120.0 => format!("{secs:.0} seconds"),
        _ if secs < 7200.0 => format!("{:.0} minutes", secs / 60.0),
        _ if secs < 48.0 * 3600.0 => format!("{:.0} hours", secs / 3600.0),
        _ => format!("{:.0} days", secs / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden numbers: `scipy.stats.norm.sf(norm.isf(t) - log(f) / 0.5)`.
    #[test]
    fn tails_equal_scipy() {
        for (tail, factor, golden) in GOLDEN {
            let found = tail_beyond(tail, factor);
            assert!((found - golden).abs() < 1e-9, "{tail} {factor}: {found}");
        }
    }

    const GOLDEN: [(f64, f64, f64); 3] = [
        (0.05, 1.2, 0.1002355547076546),
        (0.4, 1.5, 0.7114354547907769),
        (0.005, 2.0, 0.11711461465971396),
    ];

    #[test]
    fn rates_and_times_are_short() {
        for (rps, text) in [(20.0, "20/s"), (2.56, "2.6/s"), (0.5, "30/min"), (0.01, "36/h")] {
            assert_eq!(rate_text(rps), text);
        }
        for (secs, text) in [(90, "90 seconds"), (600, "10 minutes"), (10_800, "3 hours")] {
            assert_eq!(time_text(Some(Duration::from_secs(secs))), text);
        }
        assert_eq!(time_text(None), "weeks");
    }
}
