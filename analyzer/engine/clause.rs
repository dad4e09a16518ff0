//! One clause of a rule over time: its state, and how it is stepped at a look.
//!
//! A clause that exists here is of a form the engine can judge (`rule.rs`); what it finds carries
//! estimate, bound, progress and samples, or the reason why nothing can be said.

use std::time::Duration;

use super::{
    dwell::Dwell,
    evidence::{ComparisonEvidence, Counts, Noise, OnsetMixture, limit_ratios},
    noise::{KAPPA_PRIOR_SECS, comparison_noise, limit_noise},
    observation::{Arm, Health, Histogram, Missing, Pair, Reading, Time, Value, Why},
    quantile::{CALIBRATION_REQUESTS, QuantileEvidence},
    rule::{Bound, Clause, HealthHold, Op, Signal, SignalKind, Test},
    track::Track,
    verdict::{ClauseFinding, Progress, Samples, State},
};

/// Requests an arm must have seen before "no evidence" is called clear rather than not enough data.
pub const CLEAR_REQUESTS_MIN: f64 = 100.0;

/// Shortest look taken as a base for rates; two looks at one moment must not divide by zero.
const LOOK_SECS_MIN: f64 = 0.001;

/// What one look offers to a clause.
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
    pub track: &'a Track,
}

/// State of one clause.
#[derive(Clone, Debug)]
pub struct ClauseState {
    test: Test,
    /// log10 of 1/alpha for this clause.
    needed: f64,
    judge: Judge,
}

#[derive(Clone, Debug)]
enum Judge {
    Dwell(Dwell),
    Limit(OnsetMixture),
    Comparison(Box<ComparisonEvidence>),
    Quantile(Box<QuantileEvidence>),
    Counted,
    Health { streak: u32, dwell: Dwell },
}

impl ClauseState {
    /// Whether a clause takes a share of the false-rollback rate.
    pub fn is_evidence(test: &Test) -> bool {
        match test {
            Test::BeyondConstant { .. } | Test::BeyondBaseline { .. } => true,
            Test::Dwell { .. }
            | Test::Counted { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => false,
        }
    }

    /// A clause that has seen nothing. `alpha` is its share of the false-rollback rate, `horizon`
    /// the analysis' length in looks.
    pub fn new(clause: &Clause, signal: &Signal, alpha: f64, horizon: u32) -> Self {
        let judge = match clause.test {
            Test::Dwell { .. } | Test::HealthLatency { .. } => Judge::Dwell(Dwell::default()),
            Test::BeyondConstant { .. } => Judge::Limit(OnsetMixture::new(horizon)),
            Test::Counted { .. } => Judge::Counted,
            Test::HealthIs { .. } => Judge::Health { streak: 0, dwell: Dwell::default() },
            Test::BeyondBaseline { margin } => match signal.kind {
                SignalKind::Quantile { .. } => {
                    Judge::Quantile(Box::new(QuantileEvidence::new(margin, horizon)))
                }
                SignalKind::Ratio { floor } => {
                    Judge::Comparison(Box::new(ComparisonEvidence::new(margin, floor, horizon)))
                }
                SignalKind::Rate
                | SignalKind::Count
                | SignalKind::Gauge
                | SignalKind::Health
                | SignalKind::Restarts => {
                    Judge::Comparison(Box::new(ComparisonEvidence::new(margin, 0.0, horizon)))
                }
            },
        };
        Self { test: clause.test, needed: -alpha.log10(), judge }
    }

    /// Takes one look.
    pub fn look(&mut self, look: &Look<'_>) -> ClauseFinding {
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
            (Judge::Comparison(evidence), Test::BeyondBaseline { margin }) => {
                comparison_look(evidence, look, margin, needed)
            }
            (Judge::Quantile(evidence), Test::BeyondBaseline { margin }) => {
                quantile_look(evidence, look, margin, needed)
            }
            (Judge::Counted, Test::Counted { op, limit }) => counted_look(look, op, limit),
            (Judge::Health { streak, dwell }, Test::HealthIs { status, hold }) => {
                health_look(streak, dwell, look, status, hold)
            }
            // `new` pairs each test with its judge.
            (_, test) => unreachable!("{test:?} is judged by another judge"),
        }
    }
}

fn dwell_look(
    dwell: &mut Dwell,
    look: &Look<'_>,
    op: Op,
    bound: Bound,
    hold: Duration,
) -> ClauseFinding {
    let canary = look.track.arm(Arm::Canary);
    let baseline = look.track.arm(Arm::Baseline);
    let per_instance = look.signal.kind == SignalKind::Rate;
    let (estimate, reference, bound, compares) = match bound {
        Bound::Constant(limit) => (canary.estimate, None, Some(limit), false),
        Bound::TimesBaseline(factor) if per_instance => {
            let reference = baseline.rate_per_instance(look.now);
            let bound = reference.map(|rate| rate * factor);
            (canary.rate_per_instance(look.now), reference, bound, true)
        }
        Bound::TimesBaseline(factor) => {
            let bound = baseline.estimate.map(|value| value * factor);
            (canary.estimate, baseline.estimate, bound, true)
        }
        Bound::BaselinePlus(offset) => {
            let bound = baseline.estimate.map(|value| value + offset);
            (canary.estimate, baseline.estimate, bound, true)
        }
    };
    let missing = outage(look, compares);
    let holds = match (estimate, bound, &missing) {
        (Some(estimate), Some(bound), None) => Some(op.holds(estimate, bound)),
        _ => None,
    };
    let held = dwell.look(look.now, holds, look.window);
    let state = match (held, holds) {
        (Some(held), Some(true)) if held >= hold => State::Fires,
        (_, Some(_)) => State::Clear,
        (_, None) => State::NotEnoughData,
    };
    let missing = missing.or_else(|| {
        (state == State::NotEnoughData).then(|| Missing::new(Why::NoTraffic, "none in the window"))
    });
    ClauseFinding {
        state,
        estimate,
        baseline: reference,
        bound,
        window: canary.window_counts,
        progress: Progress::Held { held: held.unwrap_or(Duration::ZERO), needed: hold },
        samples: samples(look),
        missing,
        note: None,
    }
}

fn latency_look(
    dwell: &mut Dwell,
    look: &Look<'_>,
    op: Op,
    limit: f64,
    hold: Duration,
) -> ClauseFinding {
    let canary = look.track.arm(Arm::Canary);
    let estimate = canary.latency_secs;
    let holds = estimate.map(|secs| op.holds(secs, limit));
    let held = dwell.look(look.now, holds, look.window);
    let (state, missing) = match (held, holds) {
        (Some(held), Some(true)) if held >= hold => (State::Fires, None),
        (_, Some(_)) => (State::Clear, None),
        (_, None) => {
            let silent = || Missing::new(Why::NotObserved, "the endpoint did not answer");
            (State::NotEnoughData, Some(outage(look, false).unwrap_or_else(silent)))
        }
    };
    let progress = Progress::Held { held: held.unwrap_or(Duration::ZERO), needed: hold };
    ClauseFinding { estimate, bound: Some(limit), missing, ..blank(look, state, progress) }
}

fn limit_look(
    mixture: &mut OnsetMixture,
    look: &Look<'_>,
    op: Op,
    limit: f64,
    needed: f64,
) -> ClauseFinding {
    let mut note = None;
    let counts: Option<(f64, f64, f64)> = match (&look.pair.canary, look.signal.kind, op) {
        (Ok(Value::Share { events, total }), _, Op::Above | Op::AtLeast) => {
            Some((*events, *total, limit))
        }
        // "less than 95 % good" is "more than 5 % not good".
        (Ok(Value::Share { events, total }), _, Op::Below | Op::AtMost) => {
            Some((total - events, *total, 1.0 - limit))
        }
        (Ok(Value::Events { events, instance_secs, instances }), ..) => {
            Some((*events, instance_secs / f64::from((*instances).max(1)), limit))
        }
        (Ok(Value::Histogram(histogram)), SignalKind::Quantile { q }, _) => {
            let counted = beyond_edge(histogram, limit);
            note = counted.map(|(edge, _)| format!("judged at the bucket edge {edge}"));
            counted.map(|(_, above)| (above, histogram.total(), 1.0 - q))
        }
        _ => None,
    };
    let secs = look.secs.max(LOOK_SECS_MIN);
    let (mut noise, mut step) = (1.0, [0.0; super::evidence::EFFECTS.len()]);
    if let Some((events, total, limit)) = counts {
        noise = limit_noise(KAPPA_PRIOR_SECS, limit * total / secs);
        step = limit_ratios(events, total, limit.max(f64::MIN_POSITIVE), noise);
    }
    let log_value = mixture.step(&step);
    let no_edge = matches!((&look.pair.canary, counts), (Ok(Value::Histogram(_)), None));
    let missing = if no_edge {
        Some(Missing::new(Why::BucketLayout, format!("no bucket edge at or above {limit}")))
    } else {
        scarcity(look, false)
    };
    let canary = look.track.arm(Arm::Canary);
    ClauseFinding {
        estimate: canary.estimate,
        bound: Some(limit),
        window: canary.window_counts,
        note,
        ..evidence_finding(look, log_value, needed, noise, missing)
    }
}

/// The lowest bucket edge at or above a limit and the requests beyond it. Above rather than
/// nearest: fewer requests are beyond a higher edge, so evidence there is evidence for the limit.
fn beyond_edge(histogram: &Histogram, limit: f64) -> Option<(f64, f64)> {
    let edge = histogram.edges.partition_point(|&edge| edge < limit);
    (edge < histogram.edges.len()).then(|| (histogram.edges[edge], histogram.above(edge)))
}

fn comparison_look(
    evidence: &mut ComparisonEvidence,
    look: &Look<'_>,
    margin: f64,
    needed: f64,
) -> ClauseFinding {
    let mut counts = Counts::default();
    let both = arm_counts(&look.pair.canary).zip(arm_counts(&look.pair.baseline));
    if let Some((canary, baseline)) = both {
        (counts.canary_events, counts.canary_total) = canary;
        (counts.baseline_events, counts.baseline_total) = baseline;
    }
    let floor = match look.signal.kind {
        SignalKind::Ratio { floor } => floor,
        _ => 0.0,
    };
    // The expected rates come from the baseline before this look: a regression must not raise the
    // noise factor that is to judge it.
    let [events, total] = look.track.arm(Arm::Baseline).totals_before;
    let share = if total > 0.0 { events / total } else { 0.0 };
    let secs = look.secs.max(LOOK_SECS_MIN);
    let per_sec = |total: f64, share: f64| share * total / secs;
    let noise = Noise {
        baseline: comparison_noise(
            KAPPA_PRIOR_SECS,
            per_sec(counts.canary_total, share),
            per_sec(counts.baseline_total, share),
        ),
        floor: limit_noise(KAPPA_PRIOR_SECS, per_sec(counts.canary_total, floor)),
    };
    let log_value = evidence.step(&counts, noise);
    let (canary, baseline) = (look.track.arm(Arm::Canary), look.track.arm(Arm::Baseline));
    let (estimate, reference) = match look.signal.kind {
        SignalKind::Rate => {
            (canary.rate_per_instance(look.now), baseline.rate_per_instance(look.now))
        }
        _ => (canary.estimate, baseline.estimate),
    };
    ClauseFinding {
        estimate,
        baseline: reference,
        bound: reference.map(|reference| (reference * margin).max(floor)),
        window: canary.window_counts,
        ..evidence_finding(look, log_value, needed, noise.baseline, scarcity(look, true))
    }
}

fn arm_counts(reading: &Reading) -> Option<(f64, f64)> {
    match reading {
        Ok(Value::Share { events, total }) => Some((*events, *total)),
        Ok(Value::Events { events, instance_secs, .. }) => Some((*events, *instance_secs)),
        Ok(Value::Histogram(_) | Value::Level(_) | Value::Health { .. } | Value::Restarts(_))
        | Err(_) => None,
    }
}

fn quantile_look(
    evidence: &mut QuantileEvidence,
    look: &Look<'_>,
    margin: f64,
    needed: f64,
) -> ClauseFinding {
    let histogram = |reading: &'_ Reading| match reading {
        Ok(Value::Histogram(histogram)) => Some(histogram.clone()),
        Ok(_) | Err(_) => None,
    };
    let (canary, baseline) = (histogram(&look.pair.canary), histogram(&look.pair.baseline));
    let secs = look.secs.max(LOOK_SECS_MIN);
    evidence.step(canary.as_ref(), baseline.as_ref(), KAPPA_PRIOR_SECS, secs);
    let missing = scarcity(look, true).or_else(|| {
        let seen = evidence.calibrating()?;
        let detail = if seen < CALIBRATION_REQUESTS {
            format!(
                "learning the baseline's latencies, {seen:.0} of {CALIBRATION_REQUESTS} requests"
            )
        } else {
            "no common bucket edge where 0.5 % to 40 % of the baseline's requests are slower".into()
        };
        let why = if seen < CALIBRATION_REQUESTS { Why::NoTraffic } else { Why::BucketLayout };
        Some(Missing::new(why, detail))
    });
    let reference = look.track.arm(Arm::Baseline).estimate;
    ClauseFinding {
        estimate: look.track.arm(Arm::Canary).estimate,
        baseline: reference,
        bound: reference.map(|reference| reference * margin),
        note: evidence
            .leading_edge()
            .map(|(edge, edges)| format!("strongest at the bucket edge {edge}, of {edges} judged")),
        ..evidence_finding(look, evidence.log_value(), needed, evidence.noise(), missing)
    }
}

fn counted_look(look: &Look<'_>, op: Op, limit: f64) -> ClauseFinding {
    let canary = look.track.arm(Arm::Canary);
    let count = canary.totals[0];
    let missing = outage(look, false);
    // A count that has been reached stays reached, whatever the target does now.
    let state = match (op.holds(count, limit) && canary.last_data.is_some(), &missing) {
        (true, _) => State::Fires,
        (false, None) => State::Clear,
        (false, Some(_)) => State::NotEnoughData,
    };
    let missing = missing.filter(|_| state == State::NotEnoughData);
    let progress = Progress::Count { count, limit };
    let estimate = canary.last_data.map(|_| count);
    ClauseFinding { estimate, bound: Some(limit), missing, ..blank(look, state, progress) }
}

fn health_look(
    streak: &mut u32,
    dwell: &mut Dwell,
    look: &Look<'_>,
    status: Health,
    hold: HealthHold,
) -> ClauseFinding {
    let seen = match &look.pair.canary {
        Ok(Value::Health { status, .. }) => Some(*status),
        Ok(_) | Err(_) => None,
    };
    let holds = seen.map(|seen| seen == status);
    match holds {
        Some(true) => *streak = streak.saturating_add(1),
        Some(false) => *streak = 0,
        None => {}
    }
    let held = dwell.look(look.now, holds, look.window).unwrap_or(Duration::ZERO);
    let (enough, progress) = match hold {
        HealthHold::Checks(needed) => {
            (*streak >= needed, Progress::Checks { checks: *streak, needed })
        }
        HealthHold::For(needed) => (held >= needed, Progress::Held { held, needed }),
    };
    let (state, missing) = match holds {
        Some(true) if enough => (State::Fires, None),
        Some(_) => (State::Clear, None),
        None => {
            let unseen = || Missing::new(Why::NotObserved, "canary: no probe at this look");
            (State::NotEnoughData, Some(outage(look, false).unwrap_or_else(unseen)))
        }
    };
    let note = seen.map(|seen| seen.to_string());
    ClauseFinding { missing, note, ..blank(look, state, progress) }
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
        | SignalKind::Gauge
        | SignalKind::Health
        | SignalKind::Restarts => return None,
    }
    let arms: &[Arm] = if compares { &Arm::BOTH } else { &[Arm::Canary] };
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
    noise: f64,
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
    }
}

fn samples(look: &Look<'_>) -> Samples {
    let [canary_events, canary_total] = look.track.arm(Arm::Canary).totals;
    let [baseline_events, baseline_total] = look.track.arm(Arm::Baseline).totals;
    Samples { canary_events, canary_total, baseline_events, baseline_total }
}
