//! One clause of a rule over time: its state, and how it is stepped at a look.
//!
//! A clause that exists here is of a form the engine can judge (`rule.rs`); what it finds carries
//! estimate, bound, progress and samples, or the reason why nothing can be said.

mod below;
mod comparison;
mod counted;
mod difference;
mod dwell;
mod gauge;
mod instances;
mod limit;
mod quantile;
mod slope;

use std::{sync::Arc, time::Duration};

use below::below_look;
use comparison::comparison_look;
use counted::{counted_look, health_look};
use difference::difference_look;
use dwell::{dwell_look, latency_look};
use gauge::gauge_look;
use instances::Instances;
use limit::{limit_look, looked_for};
use quantile::quantile_look;
use slope::{question, slope_look};

use super::{
    below::BelowEvidence,
    blame::Suspects,
    calibration::SignalCalibration,
    difference::DifferenceEvidence,
    dwell::Dwell,
    gauge::SignEvidence,
    noise::NoiseUsed,
    observation::{Arm, Missing, Pair, Time, Why},
    quantile::QuantileEvidence,
    rule::{Allowed, Bound, Clause, Signal, SignalKind, Test},
    slope::SlopeEvidence,
    track::Arms,
    verdict::{ClauseFinding, Effect, Progress, Samples, State},
    wager::{ComparisonEvidence, LimitWager},
};

/// Requests an arm must have seen before "no evidence" is called clear rather than not enough data.
pub const CLEAR_REQUESTS_MIN: f64 = 100.0;

/// Shortest look taken as a base for rates; two looks at one moment must not divide by zero.
const LOOK_SECS_MIN: f64 = 0.001;

/// Evidence, in decades, from which on it is said what is to blame for it.
const BLAME_DECADES_MIN: f64 = 1.0;

/// What one look offers to a clause.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// When.
    pub now: Time,
    /// Since the look before.
    pub secs: f64,
    /// The window of point estimates.
    pub window: Duration,
    /// The signal.
    pub signal: &'a Signal,
    /// What both arms said of it.
    pub pair: &'a Pair,
    /// What is remembered of it, this look included.
    pub track: Arms<'a>,
    /// How noisy it is taken to be.
    pub noise: SignalCalibration,
    /// How far apart both arms are, where that is followed.
    pub effect: Option<Effect>,
}

impl Look<'_> {
    /// The usual events per request (or instance and second): of the service's past and of what the
    /// baseline showed before this look. None when there is neither.
    pub fn usual(&self) -> Option<f64> {
        let [events, total] = self.track.arm(Arm::Baseline).totals_before;
        self.noise.usual.rate(events, total)
    }
}

/// State of one clause.
#[derive(Clone, Debug)]
pub struct ClauseState {
    test: Test,
    /// log10 of 1/alpha for this clause.
    needed: f64,
    judge: Judge,
    suspects: Option<Box<Suspects>>,
}

#[derive(Clone, Debug)]
enum Judge {
    Dwell(Dwell),
    Limit(LimitWager),
    Comparison(Box<ComparisonEvidence>),
    Below(Box<BelowEvidence>),
    Difference(Box<DifferenceEvidence>),
    Quantile(Box<QuantileEvidence>),
    Sign(Box<SignEvidence>),
    /// With the name of what is judged where instances are not told apart.
    Slope(Box<SlopeEvidence>, Arc<str>),
    Counted,
    Health {
        streak: u32,
        dwell: Dwell,
    },
    Instances(Box<Instances>),
}

impl ClauseState {
    /// A clause that has seen nothing. `alpha` is its share of the false-rollback rate, `horizon`
    /// the analysis' length in looks.
    pub fn new(clause: &Clause, signal: &Signal, alpha: f64, horizon: u32) -> Self {
        let judge = match clause.test {
            Test::Dwell { .. } | Test::HealthLatency { .. } => Judge::Dwell(Dwell::default()),
            Test::BeyondConstant { op, .. } => match signal.kind {
                SignalKind::Gauge { .. } => Judge::Sign(Box::new(SignEvidence::new(op, horizon))),
                SignalKind::Ratio { .. }
                | SignalKind::Rate
                | SignalKind::Count
                | SignalKind::Quantile { .. }
                | SignalKind::Health
                | SignalKind::Restarts => {
                    Judge::Limit(LimitWager::new(looked_for(signal.kind, op), horizon))
                }
            },
            Test::Slope { op, bound } => {
                let evidence = SlopeEvidence::new(question(clause, op, bound), horizon);
                Judge::Slope(Box::new(evidence), "the arm".into())
            }
            Test::Counted { .. } => Judge::Counted,
            Test::HealthIs { .. } => Judge::Health { streak: 0, dwell: Dwell::default() },
            Test::BeyondBaseline { op, allowed } => {
                let floor = match signal.kind {
                    SignalKind::Ratio { floor } if op.is_upward() => floor,
                    SignalKind::Ratio { .. }
                    | SignalKind::Rate
                    | SignalKind::Count
                    | SignalKind::Quantile { .. }
                    | SignalKind::Gauge { .. }
                    | SignalKind::Health
                    | SignalKind::Restarts => 0.0,
                };
                match (signal.kind, allowed) {
                    (SignalKind::Gauge { .. }, _) => {
                        Judge::Sign(Box::new(SignEvidence::new(op, horizon)))
                    }
                    (SignalKind::Quantile { q }, _) => {
                        let allowed = if op.is_upward() { allowed } else { allowed.turned() };
                        Judge::Quantile(Box::new(QuantileEvidence::new(q, allowed)))
                    }
                    (_, Allowed::Plus(amount)) => {
                        let evidence = DifferenceEvidence::new(amount.abs(), floor, horizon);
                        Judge::Difference(Box::new(evidence))
                    }
                    (SignalKind::Ratio { .. } | SignalKind::Rate, Allowed::Times(margin))
                        if !op.is_upward() =>
                    {
                        Judge::Below(Box::new(BelowEvidence::new(margin, horizon)))
                    }
                    (
                        SignalKind::Ratio { .. }
                        | SignalKind::Rate
                        | SignalKind::Count
                        | SignalKind::Health
                        | SignalKind::Restarts,
                        Allowed::Times(margin),
                    ) => {
                        let evidence = ComparisonEvidence::new(margin, floor, horizon);
                        Judge::Comparison(Box::new(evidence))
                    }
                }
            }
        };
        let judge = match Instances::of(clause, signal, alpha, horizon) {
            Some(instances) => Judge::Instances(Box::new(instances)),
            None => judge,
        };
        let suspects = Suspects::of(clause, signal).map(Box::new);
        Self { test: clause.test, needed: -alpha.log10(), judge, suspects }
    }

    /// Takes one look.
    pub fn look(&mut self, look: &Look<'_>) -> ClauseFinding {
        let mut found = self.judged(look);
        if let Some(suspects) = &mut self.suspects {
            suspects.absorb(look.pair, look.track.arm(Arm::Baseline).totals_before, look.secs);
            if let Progress::Evidence { decades, .. } = found.progress
                && decades >= BLAME_DECADES_MIN
            {
                found.blame = suspects.blame(look.noise.kappa_secs);
            }
        }
        if !(look.signal.optional && look.track.is_absent() && found.state == State::NotEnoughData)
        {
            return found;
        }
        let note = found.missing.as_ref().map(|missing| format!("judged without it: {missing}"));
        ClauseFinding { state: State::Clear, missing: None, note, ..found }
    }

    fn judged(&mut self, look: &Look<'_>) -> ClauseFinding {
        let needed = self.needed;
        match (&mut self.judge, self.test) {
            (Judge::Dwell(dwell), Test::Dwell { op, bound, hold }) => {
                dwell_look(dwell, look, op, bound, hold)
            }
            (Judge::Dwell(dwell), Test::HealthLatency { op, limit_secs, hold }) => {
                latency_look(dwell, look, op, limit_secs, hold)
            }
            (Judge::Limit(mixture), Test::BeyondConstant { op, limit }) => {
                limit_look(mixture, look, op, limit, needed)
            }
            (
                Judge::Comparison(evidence),
                Test::BeyondBaseline { allowed: Allowed::Times(margin), .. },
            ) => comparison_look(evidence, look, margin, needed),
            (
                Judge::Below(evidence),
                Test::BeyondBaseline { allowed: Allowed::Times(margin), .. },
            ) => below_look(evidence, look, margin, needed),
            (
                Judge::Difference(evidence),
                Test::BeyondBaseline { op, allowed: Allowed::Plus(amount) },
            ) => difference_look(evidence, look, op, amount, needed),
            (Judge::Quantile(evidence), Test::BeyondBaseline { op, allowed }) => {
                quantile_look(evidence, look, op, allowed, needed)
            }
            (Judge::Sign(evidence), Test::BeyondConstant { limit, .. }) => {
                gauge_look(evidence, look, Bound::Constant(limit), needed)
            }
            (Judge::Sign(evidence), Test::BeyondBaseline { allowed, .. }) => {
                gauge_look(evidence, look, allowed.into(), needed)
            }
            (Judge::Slope(evidence, whole), Test::Slope { bound, .. }) => {
                slope_look(evidence, look, bound, needed, whole)
            }
            (Judge::Counted, Test::Counted { op, limit }) => counted_look(look, op, limit),
            (Judge::Health { streak, dwell }, Test::HealthIs { status, hold }) => {
                health_look(streak, dwell, look, status, hold)
            }
            (Judge::Instances(instances), _) => instances.look(look),
            // `new` pairs each test with its judge.
            (_, test) => unreachable!("{test:?} is judged by another judge"),
        }
    }
}

/// Why the arms the clause needs have no current data, the canary's reason first.
fn outage(look: &Look<'_>, compares: bool) -> Option<Missing> {
    let of = |arm: Arm| look.track.arm(arm).outage(arm, look.now, look.window);
    of(Arm::Canary).or_else(|| if compares { of(Arm::Baseline) } else { None })
}

/// Why "no evidence" would not mean "clear": no current data, or too few requests so far.
fn scarcity(look: &Look<'_>, compares: bool) -> Option<Missing> {
    if let Some(missing) = outage(look, compares) {
        return Some(missing);
    }
    match look.signal.kind {
        SignalKind::Ratio { .. } | SignalKind::Quantile { .. } => {}
        SignalKind::Rate
        | SignalKind::Count
        | SignalKind::Gauge { .. }
        | SignalKind::Health
        | SignalKind::Restarts => return None,
    }
    let arms: &[Arm] = if compares { &Arm::BOTH } else { &[Arm::Canary] };
    if let Some(arm) = arms.iter().find(|arm| look.track.arm(**arm).reads_summary) {
        let detail = format!(
            "{arm}: a summary tells its quantile and no counts to judge by; hint: use `for`"
        );
        return Some(Missing::new(Why::BucketLayout, detail));
    }
    arms.iter().find_map(|&arm| {
        let seen = look.track.arm(arm).totals[1];
        let detail =
            || format!("{arm}: {seen:.0} of the {CLEAR_REQUESTS_MIN} requests a clear needs");
        (seen < CLEAR_REQUESTS_MIN).then(|| Missing::new(Why::NoTraffic, detail()))
    })
}

fn evidence_finding(
    look: &Look<'_>,
    log_value: f64,
    needed: f64,
    noise: NoiseUsed,
    missing: Option<Missing>,
) -> ClauseFinding {
    let decades = log_value / std::f64::consts::LN_10;
    let state = match (decades >= needed, &missing) {
        (true, _) => State::Fires,
        (false, None) => State::Clear,
        (false, Some(_)) => State::NotEnoughData,
    };
    let missing = missing.filter(|_| state == State::NotEnoughData);
    let progress = Progress::Evidence { decades, needed, noise };
    ClauseFinding { missing, ..blank(look, state, progress) }
}

/// A noise factor with what it was made of.
fn used(look: &Look<'_>, factor: f64) -> NoiseUsed {
    NoiseUsed { factor, kappa_secs: look.noise.kappa_secs, origin: look.noise.origin }
}

fn blank(look: &Look<'_>, state: State, progress: Progress) -> ClauseFinding {
    ClauseFinding {
        state,
        estimate: None,
        baseline: None,
        bound: None,
        window: None,
        progress,
        samples: samples(look),
        missing: None,
        note: None,
        effect: None,
        blame: None,
    }
}

fn samples(look: &Look<'_>) -> Samples {
    let [canary_events, canary_total] = look.track.arm(Arm::Canary).totals;
    let [baseline_events, baseline_total] = look.track.arm(Arm::Baseline).totals;
    Samples { canary_events, canary_total, baseline_events, baseline_total }
}
