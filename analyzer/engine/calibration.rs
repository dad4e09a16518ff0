//! What the service's own past says before an analysis begins: how noisy each signal is, and what
//! its usual rate is.
//!
//! A calibration is an *input* of an analysis, made once when it begins and stored beside its order,
//! so that replaying the journal gives the same verdict, bit for bit. Without history every signal
//! has the stated prior of [`super::noise`].
//!
//! Ratios and rates are measured as they are; a quantile by the share of requests beyond the bucket
//! edge whose share is nearest to the quantile's own. Levels are not measured here: a gauge is
//! judged by signs, and takes its noise from the series itself. Health and restarts have none.

use std::time::Duration;

use super::{
    dispersion::{Chance, Slot, measure},
    noise::{KAPPA_PRIOR_SECS, Origin},
    observation::{Histogram, Reading, Time, Value},
    rule::{RuleSet, SignalKind},
};

/// History with less data than this, in seconds, says nothing of noise.
pub const HISTORY_SECS_MIN: f64 = 300.0;

/// With fewer events the noise factor would be chance; and with so few it hardly matters.
const EVENTS_MIN: f64 = 20.0;

/// The past counts for the usual rate as much as so many events: it may have been another day.
const USUAL_EVENTS: f64 = 50.0;

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

/// What is known of one signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignalCalibration {
    /// Noise intensity of a comparison of concurrent arms, or of the signal with its own past,
    /// whichever the rule set asks for; in seconds.
    pub kappa_secs: f64,
    /// Variance of the rate about its mean, as a multiple of the mean squared: how far from small
    /// the noise is while it lasts.
    pub spread: f64,
    /// What the past showed, for the usual rate. Makes detection quicker; has no part in validity.
    pub usual: Usual,
    /// Where that came from.
    pub origin: Origin,
}

/// Events among requests (or instance seconds) that the past showed, scaled down to [`USUAL_EVENTS`].
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Usual {
    /// Events.
    pub events: f64,
    /// What they are among; 0 when nothing is known.
    pub total: f64,
}

impl Usual {
    fn new(events: f64, total: f64) -> Self {
        let scale = (USUAL_EVENTS / events).min(1.0);
        Self { events: events * scale, total: total * scale }
    }

    /// The usual rate, with what was seen since; none when nothing was. Never zero: none so far is
    /// not none ever.
    pub fn rate(self, events: f64, total: f64) -> Option<f64> {
        let total = self.total + total;
        (total > 0.0).then(|| (self.events + events + 0.5) / total)
    }
}

impl Default for SignalCalibration {
    fn default() -> Self {
        Self {
            kappa_secs: KAPPA_PRIOR_SECS,
            spread: 0.0,
            usual: Usual::default(),
            origin: Origin::Prior,
        }
    }
}

/// Measures a service's noise on its own past, looks in order of time. `lag` is how much older the
/// baseline's looks are than the canary's: zero for a baseline that runs beside it, so that bursts
/// which both arms share cancel; otherwise drift over that time is part of the noise.
pub fn calibrate(rules: &RuleSet, past: &[Past], lag: Duration) -> Calibration {
    let of = |(index, signal): (usize, &super::rule::Signal)| {
        signal_calibration(signal.kind, index, past, lag)
    };
    Calibration { signals: rules.signals.iter().enumerate().map(of).collect() }
}

fn signal_calibration(
    kind: SignalKind,
    index: usize,
    past: &[Past],
    lag: Duration,
) -> Option<SignalCalibration> {
    let chance = match kind {
        SignalKind::Ratio { .. } | SignalKind::Quantile { .. } => Chance::Binomial,
        SignalKind::Rate | SignalKind::Count => Chance::Poisson,
        SignalKind::Gauge { .. } | SignalKind::Health | SignalKind::Restarts => return None,
    };
    let edge = match kind {
        SignalKind::Quantile { q } => Some(nearest_edge(index, past, 1.0 - q)?),
        SignalKind::Ratio { .. }
        | SignalKind::Rate
        | SignalKind::Count
        | SignalKind::Gauge { .. }
        | SignalKind::Health
        | SignalKind::Restarts => None,
    };
    let slots: Vec<Slot> = past.iter().filter_map(|look| slot(look, index, edge)).collect();
    let sum = |of: fn(&Slot) -> f64| slots.iter().map(of).sum::<f64>();
    let (secs, events, total) =
        (sum(|slot| slot.secs), sum(|slot| slot.events), sum(|slot| slot.total));
    if total <= 0.0 {
        return None;
    }
    let usual = if edge.is_none() { Usual::new(events, total) } else { Usual::default() };
    let enough = secs >= HISTORY_SECS_MIN && events >= EVENTS_MIN;
    let measured = if enough { measure(&slots, chance, lag.as_secs_f64()) } else { None };
    Some(match measured {
        Some(noise) => SignalCalibration {
            kappa_secs: noise.kappa_secs,
            spread: noise.spread,
            usual,
            origin: Origin::History { secs },
        },
        None => SignalCalibration { usual, ..SignalCalibration::default() },
    })
}

/// What one past look says; none where it says nothing, which leaves a hole in time.
fn slot(look: &Past, index: usize, edge: Option<f64>) -> Option<Slot> {
    let (events, total) = match (look.readings.get(index)?.as_ref().ok()?, edge) {
        (Value::Share { events, total }, None) => (*events, *total),
        (Value::Events { events, instance_secs, .. }, None) => (*events, *instance_secs),
        (Value::Histogram(histogram), Some(edge)) => {
            let at = histogram.edges.iter().position(|other| *other == edge)?;
            (histogram.above(at), histogram.total())
        }
        (
            Value::Share { .. }
            | Value::Events { .. }
            | Value::Histogram(_)
            | Value::Level(_)
            | Value::Health { .. }
            | Value::Restarts(_),
            _,
        ) => return None,
    };
    let slot = Slot { end_secs: look.at.as_secs_f64(), secs: look.secs, events, total };
    let sound = [slot.secs, events, total].into_iter().all(|n| n.is_finite() && n >= 0.0);
    (sound && slot.secs > 0.0).then_some(slot)
}

/// The bucket edge of the last layout beyond which the share of requests is nearest to `share`.
fn nearest_edge(index: usize, past: &[Past], share: f64) -> Option<f64> {
    let histogram = |look: &'_ Past| match look.readings.get(index) {
        Some(Ok(Value::Histogram(histogram))) => Some(histogram.clone()),
        Some(_) | None => None,
    };
    let mut sum: Option<Histogram> = None;
    for next in past.iter().rev().filter_map(histogram) {
        match &mut sum {
            Some(sum) if sum.edges == next.edges => {
                sum.counts.iter_mut().zip(&next.counts).for_each(|(sum, count)| *sum += count);
            }
            Some(_) => {}
            None => sum = Some(next),
        }
    }
    let sum = sum?;
    let total = sum.total();
    let distance = |edge: usize| ((sum.above(edge) / total) / share).ln().abs();
    let edges = (0..sum.edges.len()).filter(|edge| distance(*edge).is_finite());
    edges.min_by(|a, b| distance(*a).total_cmp(&distance(*b))).map(|edge| sum.edges[edge])
}
