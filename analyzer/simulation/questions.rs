//! What is asked of a rule file: which releases are simulated, and how often.
//!
//! Three kinds of question. A healthy release: how often is it rolled back? One that is exactly as
//! bad as a rule or a margin allows: how often does it go wrong there, where it is hardest? One
//! with a fault: how often, how soon and by which rule is it found? Which faults are asked about
//! depends on the signals that the file has.

use std::time::Duration;

use super::{
    noise::NoiseModel,
    plan::{SignalPlan, plans},
    scenario::{FaultKind, Scenario, Traffic, Truth},
};
use crate::engine::rule::{
    Action, Allowed, Better, Bound, Margin, RuleSet, Signal, SignalKind, Test,
};

/// What is taken to be true of the service.
#[derive(Clone, Debug, PartialEq)]
pub struct Assumed {
    /// Who gets how many requests.
    pub traffic: Traffic,
    /// Both versions when they are healthy.
    pub truth: Truth,
    /// How rates wander.
    pub noise: NoiseModel,
    /// How long the old version has been watched before; none for not at all.
    pub history: Option<Duration>,
    /// When a fault begins, from the beginning of the analysis.
    pub onset: Duration,
}

impl Assumed {
    /// A release that is as good as the old version, with a canary that was just started.
    pub fn healthy(&self) -> Scenario {
        Scenario {
            noise: self.noise,
            canary_age_secs: 0.0,
            ..Scenario::healthy(self.traffic.clone()).with_truth(self.truth)
        }
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// What is asked.
    pub ask: Ask,
    /// The release that is simulated.
    pub scenario: Scenario,
    /// How often.
    pub runs: usize,
}

/// What is asked of a rule file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ask {
    /// How often is a release rolled back that is as good as the old version?
    Healthy,
    /// How often is one rolled back that is exactly as bad as the rules allow?
    AtRollbackBound {
        /// Of which signal.
        signal: usize,
        /// Multiple of the baseline.
        factor: f64,
    },
    /// How often is one promoted that is exactly as bad as promotion must not allow?
    AtPromotionMargin {
        /// Of which signal.
        signal: usize,
        /// Multiple of the baseline.
        factor: f64,
    },
    /// How soon is this found?
    Fault(FaultKind),
}

/// How often a fault's share is multiplied, and how much slower requests get.
const ERROR_FACTORS: [f64; 4] = [2.0, 5.0, 10.0, 50.0];
const LATENCY_FACTORS: [f64; 4] = [1.2, 1.5, 2.0, 3.0];
const LEVEL_FACTORS: [f64; 3] = [1.2, 1.5, 2.0];

/// Leaks where no rule names a slope, in bytes a second: 60, 200 and 600 MB a minute.
const LEAKS: [f64; 3] = [1e6, 1e6 * 10.0 / 3.0, 1e7];

/// Multiples of a slope rule's limit that are asked about.
const SLOPE_FACTORS: [f64; 3] = [5.0, 20.0, 100.0];

/// A process that dies, is away for some seconds, and dies again two minutes later.
const CRASH: FaultKind = FaultKind::Crash { every_secs: 120.0, down_secs: 5.0 };

/// Everything that is asked of a rule file: `runs` each for what must not happen, `runs_per_fault`
/// for what must be found.
pub fn questions(
    rules: &RuleSet,
    assumed: &Assumed,
    runs: usize,
    runs_per_fault: usize,
) -> Vec<Question> {
    let healthy = assumed.healthy();
    let mut questions = vec![Question { ask: Ask::Healthy, scenario: healthy.clone(), runs }];
    for ask in at_bounds(rules, &assumed.truth) {
        let fault = match ask {
            Ask::AtRollbackBound { signal, factor } | Ask::AtPromotionMargin { signal, factor } => {
                worse_by(rules, signal, factor, &assumed.truth)
            }
            Ask::Healthy | Ask::Fault(_) => None,
        };
        if let Some(fault) = fault {
            let scenario = healthy.clone().with_fault(fault, 0.0);
            questions.push(Question { ask, scenario, runs });
        }
    }
    for fault in faults(rules) {
        let scenario = healthy.clone().with_fault(fault, assumed.onset.as_secs_f64());
        questions.push(Question { ask: Ask::Fault(fault), scenario, runs: runs_per_fault });
    }
    questions
}

/// Releases exactly at the bound of a rollback rule, and exactly at a margin of promotion.
fn at_bounds(rules: &RuleSet, truth: &Truth) -> Vec<Ask> {
    let mut asks = Vec::new();
    for (index, signal) in rules.signals.iter().enumerate() {
        let healthy = healthy_value(rules, index, truth);
        if let Some(factor) = rollback_bound(rules, index, healthy)
            && !is_beyond_a_constant(rules, index, healthy.map(|value| value * factor))
        {
            asks.push(Ask::AtRollbackBound { signal: index, factor });
        }
        if let Some(margin) = signal.margin {
            let factor = promotion_bound(margin, signal, healthy);
            asks.push(Ask::AtPromotionMargin { signal: index, factor });
        }
    }
    asks
}

/// The tightest multiple of the baseline at which a rollback rule by evidence must not fire yet.
fn rollback_bound(rules: &RuleSet, signal: usize, healthy: Option<f64>) -> Option<f64> {
    let floor = match rules.signals[signal].kind {
        SignalKind::Ratio { floor } => floor,
        SignalKind::Rate
        | SignalKind::Count
        | SignalKind::Quantile { .. }
        | SignalKind::Gauge { .. }
        | SignalKind::Health
        | SignalKind::Restarts => 0.0,
    };
    let of_floor = healthy.filter(|value| *value > 0.0).map_or(0.0, |value| floor / value);
    let margins = rollback_tests(rules, signal).filter_map(|test| match test {
        Test::BeyondBaseline { allowed: Allowed::Times(margin), .. } => Some(margin),
        // Of an amount there is no multiple where it is not known what a healthy version shows.
        Test::BeyondBaseline { allowed: Allowed::Plus(amount), .. } => {
            healthy.filter(|value| *value > 0.0).map(|value| 1.0 + amount / value)
        }
        Test::Dwell { .. }
        | Test::BeyondConstant { .. }
        | Test::Slope { .. }
        | Test::Counted { .. }
        | Test::HealthIs { .. }
        | Test::HealthLatency { .. } => None,
    });
    match rules.signals[signal].better {
        Better::Lower => margins.reduce(f64::min).map(|margin| margin.max(of_floor)),
        Better::Higher => margins.reduce(f64::max),
    }
}

/// The multiple of the baseline at which promotion must not be possible: beyond the margin, and not
/// better than what is good enough anyway.
fn promotion_bound(margin: Margin, signal: &Signal, healthy: Option<f64>) -> f64 {
    let or = margin.or.zip(healthy.filter(|value| *value > 0.0)).map(|(or, value)| or / value);
    match (or, signal.better) {
        (Some(or), Better::Lower) => margin.factor.max(or),
        (Some(or), Better::Higher) => margin.factor.min(or),
        (None, _) => margin.factor,
    }
}

/// Whether a rollback rule with a constant is rightly concerned by this value.
fn is_beyond_a_constant(rules: &RuleSet, signal: usize, value: Option<f64>) -> bool {
    let Some(value) = value else { return false };
    rollback_tests(rules, signal).any(|test| match test {
        Test::BeyondConstant { op, limit } => op.holds(value, limit),
        Test::Dwell { op, bound: Bound::Constant(limit), .. } => op.holds(value, limit),
        Test::Dwell { .. }
        | Test::BeyondBaseline { .. }
        | Test::Slope { .. }
        | Test::Counted { .. }
        | Test::HealthIs { .. }
        | Test::HealthLatency { .. } => false,
    })
}

fn rollback_tests(rules: &RuleSet, signal: usize) -> impl Iterator<Item = Test> {
    let rules = rules.rules.iter().filter(|rule| rule.then == Action::Rollback);
    let clauses = rules.flat_map(|rule| rule.when.clauses());
    clauses.filter(move |clause| clause.signal == signal).map(|clause| clause.test)
}

/// What a healthy version shows of a signal, where one number says it.
fn healthy_value(rules: &RuleSet, signal: usize, truth: &Truth) -> Option<f64> {
    match (plans(rules)[signal], rules.signals[signal].kind) {
        (SignalPlan::Failing, _) => Some(truth.error_share),
        (SignalPlan::Succeeding, _) => Some(1.0 - truth.error_share),
        (SignalPlan::Latency, SignalKind::Quantile { q }) => Some(truth.latency.quantile(q)),
        (SignalPlan::Level { base, .. }, _) => Some(truth.level.base.unwrap_or(base)),
        _ => None,
    }
}

/// The fault that makes one signal exactly this multiple of the baseline's; none where no fault
/// does, or where there is nothing to multiply.
fn worse_by(rules: &RuleSet, signal: usize, factor: f64, truth: &Truth) -> Option<FaultKind> {
    let failing = truth.error_share;
    match plans(rules)[signal] {
        SignalPlan::Failing if failing > 0.0 && factor * failing <= 1.0 => {
            Some(FaultKind::Errors { factor })
        }
        SignalPlan::FailingOverTime if failing > 0.0 => Some(FaultKind::Errors { factor }),
        SignalPlan::Succeeding if failing > 0.0 => {
            Some(FaultKind::Errors { factor: (1.0 - factor * (1.0 - failing)) / failing })
        }
        SignalPlan::Latency => Some(FaultKind::Latency { factor }),
        SignalPlan::Level { .. } => Some(FaultKind::Level { factor }),
        SignalPlan::Failing
        | SignalPlan::FailingOverTime
        | SignalPlan::Succeeding
        | SignalPlan::Throughput
        | SignalPlan::Excess
        | SignalPlan::Up
        | SignalPlan::Health
        | SignalPlan::Restarts => None,
    }
}

/// The faults that this file's signals can show.
fn faults(rules: &RuleSet) -> Vec<FaultKind> {
    let plans = plans(rules);
    let has = |which: fn(&SignalPlan) -> bool| plans.iter().any(which);
    let mut faults = Vec::new();
    if has(|plan| {
        matches!(
            plan,
            SignalPlan::Failing
                | SignalPlan::Succeeding
                | SignalPlan::FailingOverTime
                | SignalPlan::Excess
        )
    }) {
        faults.extend(ERROR_FACTORS.map(|factor| FaultKind::Errors { factor }));
    }
    if has(|plan| *plan == SignalPlan::Latency) {
        faults.extend(LATENCY_FACTORS.map(|factor| FaultKind::Latency { factor }));
    }
    if has(|plan| matches!(plan, SignalPlan::Level { is_bytes: true, .. })) {
        let leaks = match slope_limit(rules) {
            Some(limit) => SLOPE_FACTORS.map(|factor| factor * limit),
            None => LEAKS,
        };
        faults.extend(leaks.map(|bytes_per_sec| FaultKind::Leak { bytes_per_sec }));
    }
    let levels = rules.signals.iter().zip(&plans);
    let mut others =
        levels.filter(|(_, plan)| matches!(plan, SignalPlan::Level { is_bytes: false, .. }));
    if let Some((signal, _)) = others.next() {
        faults.extend(LEVEL_FACTORS.map(|factor| FaultKind::Level {
            factor: match signal.better {
                Better::Lower => factor,
                Better::Higher => 1.0 / factor,
            },
        }));
    }
    if has(|plan| matches!(plan, SignalPlan::Up | SignalPlan::Health | SignalPlan::Restarts)) {
        faults.push(CRASH);
    }
    faults
}

/// The slope that a rollback rule allows, in units a second.
fn slope_limit(rules: &RuleSet) -> Option<f64> {
    let tests = (0..rules.signals.len()).flat_map(|signal| rollback_tests(rules, signal));
    let mut limits = tests.filter_map(|test| match test {
        Test::Slope { bound: Bound::Constant(limit) | Bound::BaselinePlus(limit), .. } => {
            (limit > 0.0).then_some(limit)
        }
        _ => None,
    });
    limits.next()
}
