//! What the service's own past says before an analysis begins: how noisy each signal is.
//!
//! A calibration is an *input* of an analysis, made once when it begins and stored beside its order,
//! so that replaying the journal gives the same verdict, bit for bit. Without history every signal
//! has the stated prior of [`super::noise`].

use std::time::Duration;

use super::{
    noise::{KAPPA_PRIOR_SECS, Origin},
    observation::{Reading, Time},
    rule::RuleSet,
};

/// One look at the old version, before the release.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// When it was taken.
    pub at: Time,
    /// Seconds that its increments cover.
    pub secs: f64,
    /// One entry per signal of the rule set, in its order.
    pub readings: Vec<Reading>,
}

/// What is known of each signal before the first look.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Calibration {
    /// One entry per signal of the rule set, in its order; none, or missing at the end, is the prior.
    pub signals: Vec<Option<SignalCalibration>>,
}

impl Calibration {
    /// What is known of one signal.
    pub fn of(&self, signal: usize) -> SignalCalibration {
        self.signals.get(signal).copied().flatten().unwrap_or_default()
    }
}

/// Measures a service's noise on its own past. `lag` is how much older the baseline's looks are than
/// the canary's: zero for a baseline that runs beside it, so that bursts which both arms share
/// cancel; otherwise drift over that time is part of the noise.
pub fn calibrate(rules: &RuleSet, past: &[Past], lag: Duration) -> Calibration {
    let _ = (rules, past, lag);
    Calibration::default()
}

/// What is known of one signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignalCalibration {
    /// Noise intensity of a comparison of concurrent arms, or of the signal with its own past,
    /// whichever the rule set asks for; in seconds.
    pub kappa_secs: f64,
    /// Where that came from.
    pub origin: Origin,
}

impl Default for SignalCalibration {
    fn default() -> Self {
        Self { kappa_secs: KAPPA_PRIOR_SECS, origin: Origin::Prior }
    }
}
