//! The noise factor: by how much the variance of real event counts exceeds Poisson's.
//!
//! Each arm's rate is taken to carry independent multiplicative noise of variance `s` (its spread)
//! and correlation time `tau`, of intensity `kappa = 2 s tau` in seconds. Over times longer than
//! that, the variance of the log rate ratio is inflated by
//!
//! ```text
//! phi = 1 + 2 kappa e_c e_b / (e_c + e_b),        against a constant: phi = 1 + kappa e_c,
//! ```
//!
//! with `e` the expected events per second of each arm, from the past and from the baseline before
//! the look: a regression must not raise the factor that judges it. Dividing log likelihood ratios
//! by `phi` keeps the stated false-rollback rate at the price of speed (quasi-likelihood: Wedderburn
//! 1974; McCullagh and Nelder 1989). It is an approximation for sums over many correlation times.
//! What it lacks while a burst lasts, [`SignalCalibration::comparison`] adds by the spread.
//!
//! Where kappa comes from: measured on the service's past ([`super::calibration`],
//! [`super::dispersion`]); moved by what the analysis itself shows of the ratio
//! ([`super::residual`]); and without a past a stated prior. **The prior is not measured**: a
//! service that is noisier than it exceeds the stated rate. Every finding says which it was.

use super::calibration::SignalCalibration;

/// Prior noise intensity in seconds: a log-rate standard deviation of 11 % that lasts 10 s.
pub const KAPPA_PRIOR_SECS: f64 = 0.25;

/// The same for the share of requests beyond a quantile: 7 % that last 10 s, which is what latencies
/// do that wander by 2 %. Latencies that wander by 10 % for 10 s exceed the stated rate with it: of
/// 3,000 simulated releases 12 were rolled back at a stated 0.1 %. A history mends that.
pub const KAPPA_LATENCY_PRIOR_SECS: f64 = 0.1;

/// Noise that is not small counts for more than its intensity says, by `1 + LARGE s^2` with `s` its
/// spread: while a burst lasts it is as large as a regression. Measured, on log-normal noise.
const LARGE: f64 = 2.0;

/// What `s` itself adds for a canary that stands alone. Beside an equal baseline a burst of the one
/// is as likely as one of the other; of a canary that is by far the smaller, its own bursts upward
/// are all that is seen.
const LARGE_ALONE: f64 = 2.5;

fn large(spread: f64, alone: f64) -> f64 {
    1.0 + spread * (LARGE * spread + LARGE_ALONE * alone)
}

/// A noise factor as used at one look, with its origin: part of every finding by evidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseUsed {
    /// The factor, at least 1.
    pub factor: f64,
    /// Noise intensity behind it, in seconds.
    pub kappa_secs: f64,
    /// Where that came from.
    pub origin: Origin,
}

/// Where a noise intensity came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    /// [`KAPPA_PRIOR_SECS`]: nothing was known of the service.
    Prior,
    /// Measured on the service's own past.
    History {
        /// Seconds of it that had data.
        secs: f64,
    },
    /// Measured, or prior, and raised since by what this analysis itself saw.
    Analysis {
        /// Seconds of history behind it; 0 for a prior.
        history_secs: f64,
        /// Seconds of this analysis.
        secs: f64,
    },
}

/// What is expected of one arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Events per request, or per second.
    pub rate: f64,
    /// Requests, or seconds of instances, in a second.
    pub per_sec: f64,
}

impl SignalCalibration {
    /// So many times the noise.
    pub fn times(&self, factor: f64) -> Self {
        Self { kappa_secs: self.kappa_secs * factor, spread: self.spread * factor, ..*self }
    }

    /// Noise factor of a comparison; `canary` and `baseline` are expected events per second.
    pub fn comparison(&self, canary: f64, baseline: f64) -> f64 {
        if canary <= 0.0 || baseline <= 0.0 {
            return 1.0;
        }
        let lopsided = ((baseline - canary) / (baseline + canary)).max(0.0);
        comparison_noise(self.kappa_secs * large(self.spread, lopsided), canary, baseline)
    }

    /// Noise factor of the difference of two rates, the greater one first: `1 + kappa s / v` with
    /// `s` the sum of their squares, which is what noise moves, and `v` the sum of rate over exposure,
    /// which is Poisson's part. With equal rates it is that of a comparison, with a lesser rate of
    /// zero that against a constant.
    pub fn difference(&self, greater: Expected, lesser: Expected) -> f64 {
        let chance = greater.rate / greater.per_sec + lesser.rate / lesser.per_sec;
        let squares = [greater, lesser].map(|arm| arm.rate * arm.rate);
        let moved = squares[0] + squares[1];
        if chance.is_nan() || chance <= 0.0 || greater.per_sec <= 0.0 || lesser.per_sec <= 0.0 {
            return 1.0;
        }
        let exposures = greater.per_sec + lesser.per_sec;
        let lopsided = (lesser.per_sec - greater.per_sec) / exposures;
        let alone = lopsided.max((squares[0] - squares[1]) / moved).max(0.0);
        1.0 + self.kappa_secs * large(self.spread, alone) * moved / chance
    }

    /// Noise factor against a constant; `canary` is expected events per second.
    pub fn limit(&self, canary: f64) -> f64 {
        limit_noise(self.kappa_secs * large(self.spread, 1.0), canary)
    }
}

/// Noise factor of a comparison; `canary` and `baseline` are expected events per second.
pub fn comparison_noise(kappa_secs: f64, canary: f64, baseline: f64) -> f64 {
    if canary <= 0.0 || baseline <= 0.0 {
        return 1.0;
    }
    1.0 + 2.0 * kappa_secs * canary * baseline / (canary + baseline)
}

/// Noise factor against a constant; `canary` is expected events per second.
pub fn limit_noise(kappa_secs: f64, canary: f64) -> f64 {
    1.0 + kappa_secs * canary.max(0.0)
}
