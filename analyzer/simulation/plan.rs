//! Which part of the simulated truth each signal of a rule set shows.
//!
//! A rule file does not say what its numbers mean. What is taken: events of a ratio are failures,
//! or successes where more is better; a rate that somebody minds the lack of is traffic, another
//! one is failures; what is only counted happens in a faulty release alone.

use crate::engine::rule::{Better, Bound, Op, RuleSet, Signal, SignalKind, Test, Unit};

/// What is simulated for a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SignalPlan {
    /// A ratio whose events are bad.
    Failing,
    /// A ratio whose events are good.
    Succeeding,
    /// Failures over time rather than among requests.
    FailingOverTime,
    /// Requests over time: a rate that somebody minds the lack of.
    Throughput,
    /// Failures over time beyond those of a healthy version: what is counted, and not compared,
    /// is not there in a healthy release.
    Excess,
    /// The requests' latencies.
    Latency,
    /// A gauge.
    Level {
        /// Its usual level.
        base: f64,
        /// Whether leaks are seen in it.
        is_bytes: bool,
    },
    /// Which instances answer when they are scraped.
    Up,
    /// A health endpoint.
    Health,
    /// Restarts.
    Restarts,
}

/// What is simulated for each signal of a rule set.
pub fn plans(rules: &RuleSet) -> Vec<SignalPlan> {
    let signals = rules.signals.iter().enumerate();
    signals.map(|(index, signal)| plan(rules, index, signal)).collect()
}

fn plan(rules: &RuleSet, index: usize, signal: &Signal) -> SignalPlan {
    let is_good = signal.better == Better::Higher;
    match signal.kind {
        SignalKind::Ratio { .. } if is_good => SignalPlan::Succeeding,
        SignalKind::Ratio { .. } => SignalPlan::Failing,
        SignalKind::Rate | SignalKind::Count if is_good || is_minded_below(rules, index) => {
            SignalPlan::Throughput
        }
        SignalKind::Count if !tests_of(rules, index).any(Test::needs_baseline) => {
            SignalPlan::Excess
        }
        SignalKind::Rate | SignalKind::Count => SignalPlan::FailingOverTime,
        SignalKind::Quantile { .. } => SignalPlan::Latency,
        // A share that should be whole and has no end of its own.
        SignalKind::Gauge { limit: None } if is_good && signal.unit == Unit::Share => {
            SignalPlan::Up
        }
        SignalKind::Gauge { limit } => {
            let usual: f64 = match signal.unit {
                Unit::Bytes => 200e6,
                Unit::Share => 0.5,
                Unit::Seconds => 0.05,
                Unit::PerSecond | Unit::Count | Unit::Health | Unit::Number => 100.0,
            };
            // Half full where it is known what full is, and well within what the rules allow.
            let base = limit.map_or(usual, |limit| usual.min(0.5 * limit));
            let base = within_constants(rules, index, base);
            SignalPlan::Level { base, is_bytes: signal.unit == Unit::Bytes }
        }
        SignalKind::Health => SignalPlan::Health,
        SignalKind::Restarts => SignalPlan::Restarts,
    }
}

/// A level that no rule on a constant minds: half of the least that it must not exceed, twice the most
/// that it must not fall below, and between both where there are both.
fn within_constants(rules: &RuleSet, signal: usize, usual: f64) -> f64 {
    let (mut ceiling, mut ground) = (f64::INFINITY, 0.0_f64);
    for test in tests_of(rules, signal) {
        let (op, constant) = match test {
            Test::Dwell { op, bound: Bound::Constant(constant), .. } => (op, constant),
            Test::BeyondConstant { op, limit } => (op, limit),
            Test::Dwell { bound: Bound::TimesBaseline(_) | Bound::BaselinePlus(_), .. }
            | Test::BeyondBaseline { .. }
            | Test::Slope { .. }
            | Test::Counted { .. }
            | Test::HealthIs { .. }
            | Test::HealthLatency { .. } => continue,
        };
        match (op, constant > 0.0) {
            (Op::Above | Op::AtLeast, true) => ceiling = ceiling.min(constant),
            (Op::Below | Op::AtMost, true) => ground = ground.max(constant),
            (_, false) => {}
        }
    }
    let base = usual.min(0.5 * ceiling).max(2.0 * ground);
    if base < ceiling { base } else { (ground * ceiling).sqrt() }
}

fn tests_of(rules: &RuleSet, signal: usize) -> impl Iterator<Item = Test> {
    let clauses = rules.rules.iter().flat_map(|rule| rule.when.clauses());
    clauses.filter(move |clause| clause.signal == signal).map(|clause| clause.test)
}

/// Whether a rule asks for a signal to be below something.
fn is_minded_below(rules: &RuleSet, signal: usize) -> bool {
    tests_of(rules, signal).any(|test| match test {
        Test::Dwell { op, .. }
        | Test::BeyondConstant { op, .. }
        | Test::BeyondBaseline { op, .. }
        | Test::Slope { op, .. }
        | Test::Counted { op, .. } => match op {
            Op::Below | Op::AtMost => true,
            Op::Above | Op::AtLeast => false,
        },
        Test::HealthIs { .. } | Test::HealthLatency { .. } => false,
    })
}
