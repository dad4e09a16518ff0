//! The two styles in which other release judges decide, on the same data as ours: a threshold that
//! must fail several times, and a rank test on one-minute rates. Small and faithful, not improved.

use statrs::distribution::{ContinuousCDF, Normal};

/// Looks of the threshold style that may fail in all; the next one rolls back.
pub const FAILED_LOOKS_MAX: u32 = 3;

/// One judgement of the judge style every so many minutes, for an hour.
pub const JUDGEMENT_MINUTES: usize = 10;

/// Two-sided confidence of the judge style.
const CONFIDENCE: f64 = 0.98;

/// Share of the estimate that the shift must exceed.
const TOLERANCE: f64 = 0.25;

/// A canary controller: the error share of the last minute against a fixed limit, once a minute,
/// with a counter of failures that nothing clears.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    limit: f64,
    failed: u32,
}

impl Threshold {
    /// `limit` is an error share.
    pub fn new(limit: f64) -> Self {
        Self { limit, failed: 0 }
    }

    /// Takes one minute's error share; a minute without requests passes. Says whether to roll back.
    pub fn minute(&mut self, share: Option<f64>) -> bool {
        self.failed += u32::from(share.is_some_and(|share| share > self.limit));
        self.failed > FAILED_LOOKS_MAX
    }
}

/// A canary judge: a rank test of all one-minute values so far, once every ten minutes.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    experiment: Vec<f64>,
    control: Vec<f64>,
    minutes: usize,
}

impl Judge {
    /// Takes one minute's values of canary and baseline. Says whether to roll back.
    pub fn minute(&mut self, experiment: Option<f64>, control: Option<f64>) -> bool {
        self.experiment.extend(experiment);
        self.control.extend(control);
        self.minutes += 1;
        self.minutes.is_multiple_of(JUDGEMENT_MINUTES) && is_high(&self.experiment, &self.control)
    }
}

/// Whether the experiment is classified "high". No data, and identical series, pass.
pub fn is_high(experiment: &[f64], control: &[f64]) -> bool {
    if experiment.is_empty() || control.is_empty() || experiment == control {
        return false;
    }
    let Some(shift) = Shift::of(experiment, control) else { return false };
    shift.low > TOLERANCE * shift.estimate.abs()
}

/// By how much the experiment lies above the control.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shift {
    /// Where the rank statistic is zero.
    pub estimate: f64,
    /// Ends of the interval.
    pub low: f64,
    /// Ends of the interval.
    pub high: f64,
}

impl Shift {
    /// By inverting the normal approximation: with continuity and tie correction for the interval,
    /// without continuity for the estimate. None where all values of both are one.
    pub fn of(experiment: &[f64], control: &[f64]) -> Option<Self> {
        let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let low = least(experiment) - most(control);
        let high = most(experiment) - least(control);
        if low >= high {
            return None;
        }
        let wanted = Normal::standard().inverse_cdf(1.0 - (1.0 - CONFIDENCE) / 2.0);
        let root = |continuity: bool, wanted: f64| {
            bisect(low, high, |shift| z(experiment, control, shift, continuity) - wanted)
        };
        let estimate = root(false, 0.0);
        Some(Self { estimate, low: root(true, wanted), high: root(true, -wanted) })
    }
}

/// The rank statistic of `experiment - shift` against `control`, standardised. It falls as the shift
/// grows.
pub fn z(experiment: &[f64], control: &[f64], shift: f64, continuity: bool) -> f64 {
    let (n, m) = (experiment.len() as f64, control.len() as f64);
    let mut all: Vec<(f64, bool)> = experiment.iter().map(|value| (value - shift, true)).collect();
    all.extend(control.iter().map(|value| (*value, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut ties, mut before) = (0.0, 0.0, 0.0);
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let size = group.len() as f64;
        let mean_rank = before + (size + 1.0) / 2.0;
        ranks += mean_rank * group.iter().filter(|value| value.1).count() as f64;
        ties += size.powi(3) - size;
        before += size;
    }
    let above = ranks - n * (n + 1.0) / 2.0 - n * m / 2.0;
    let deviation = (n * m / 12.0 * (n + m + 1.0 - ties / ((n + m) * (n + m - 1.0)))).sqrt();
    let correction = if continuity && above != 0.0 { 0.5 * above.signum() } else { 0.0 };
    if deviation > 0.0 { (above - correction) / deviation } else { 0.0 }
}

/// Where a falling function crosses zero; an end of the range when it does not.
fn bisect(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if f(middle) > 0.0 { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
