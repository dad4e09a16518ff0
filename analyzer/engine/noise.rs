//! The noise factor: by how much the variance of real event counts exceeds Poisson's.
//!
//! Each arm's rate is taken to carry independent multiplicative noise of intensity kappa (seconds:
//! variance of the log rate times its correlation time). The log rate ratio's variance is then
//! inflated by `phi = 1 + 2 kappa e_c e_b / (e_c + e_b)`, with e the expected events per second of
//! each arm; against a constant it is `1 + kappa e_c`. Dividing log likelihood ratios by phi keeps
//! the stated false-rollback rate at the price of speed.
//!
//! Here kappa is a stated prior. It is never measured: a service whose noise is stronger than the
//! prior exceeds the stated rate, and every finding says which factor was used.

use super::calibration::SignalCalibration;

/// Prior noise intensity in seconds: a log-rate standard deviation of 11 % that lasts 10 s.
pub const KAPPA_PRIOR_SECS: f64 = 0.25;

/// Noise that is not small counts for more than its intensity says, by `1 + LARGE s^2` with `s` its
/// spread: while a burst lasts it is as large as a regression. Measured, on log-normal noise.
const LARGE: f64 = 3.0;

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

impl SignalCalibration {
    /// Noise factor of a comparison; `canary` and `baseline` are expected events per second.
    pub fn comparison(&self, canary: f64, baseline: f64) -> f64 {
        if canary <= 0.0 || baseline <= 0.0 {
            return 1.0;
        }
        let lopsided = ((baseline - canary) / (baseline + canary)).max(0.0);
        comparison_noise(self.kappa_secs * large(self.spread, lopsided), canary, baseline)
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
