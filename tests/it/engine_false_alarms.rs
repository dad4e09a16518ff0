//! What the engine promises in numbers: a healthy release is rolled back no more often than stated,
//! however often one looks, and a bad one is found within seconds. Seeded simulation of two arms.
//!
//! The check that passes the engine must fail a process that is known to be invalid, or it would
//! prove nothing; two such processes are run through it.

use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        calibration::Calibration,
        evidence::Counts,
        observation::Histogram,
        rule::RuleSet,
        wager::{ComparisonEvidence, Noise},
    },
    rulefile,
    simulation::{
        Arrivals, FaultKind, Scenario, Traffic, Truth,
        trial::{Ending, judge},
    },
};
use statrs::function::erf::erf;

/// The default buckets of the metrics libraries, in seconds.
const EDGES: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const LOOKS: u64 = 900;

/// Probability with which a test of a process that exactly spends its alpha may fail.
const DOUBT: f64 = 0.001;

fn recommended() -> Arc<RuleSet> {
    let text = "version: 1
service: simulated
observe: { interval: 1s, window: 1m, warmup: 0s }
false_rollback_rate: 0.1%
signals:
  error_rate: { ratio: 'failed_total / asked_total', floor: 0.1% }
  p95_latency: { quantile: 0.95, of: latency_seconds }
rules:
  - { when: error_rate > 1.5x baseline, then: rollback }
  - { when: p95_latency > 1.2x baseline, then: rollback }
promote: { after: 15m, deadline: 30m, otherwise: hold }
";
    Arc::new(rulefile::load("simulated.yaml", text).expect("valid rules").rules)
}

/// Counts of a Poisson or binomial law, drawn by inversion of a table.
pub struct Law(Vec<f64>);

impl Law {
    /// From the probability of zero and the ratio of each probability to the one before.
    fn new(zero: f64, ratio: impl Fn(f64) -> f64) -> Self {
        let (mut term, mut sum, mut table) = (zero, 0.0, Vec::new());
        while sum < 1.0 - 1e-12 && table.len() < 2_000 {
            sum += term;
            table.push(sum);
            term *= ratio(table.len() as f64);
        }
        Self(table)
    }

    pub fn poisson(mean: f64) -> Self {
        Self::new((-mean).exp(), |k| mean / k)
    }

    fn binomial(trials: f64, share: f64) -> Self {
        let odds = share / (1.0 - share);
        Self::new((1.0 - share).powf(trials), |k| (trials - k + 1.0).max(0.0) / k * odds)
    }

    pub fn draw(&self, random: &mut StdRng) -> f64 {
        let at: f64 = random.random();
        self.0.partition_point(|sum| *sum < at).min(self.0.len() - 1) as f64
    }
}

/// One arm: requests a second, the share that fails, and the median of log-normal latencies.
#[derive(Clone, Copy)]
pub struct Service {
    pub rps: f64,
    pub failing: f64,
    pub median_secs: f64,
}

const HEALTHY: Service = Service { rps: 100.0, failing: 0.005, median_secs: 0.05 };

/// A service's laws, made once.
pub struct Source {
    total: f64,
    /// Given so many requests each second, or none: then they are Poisson as well.
    fixed: bool,
    failed: Law,
    served: Law,
    buckets: Vec<Law>,
    edges: Arc<[f64]>,
}

impl Source {
    pub fn new(service: Service, fixed: bool) -> Self {
        let Service { rps, failing, median_secs } = service;
        let below = |edge: f64| 0.5 + 0.5 * erf((edge / median_secs).ln() / 0.6 / 2f64.sqrt());
        let mut shares: Vec<f64> = EDGES.iter().map(|edge| below(*edge)).collect();
        shares.push(1.0);
        let buckets = shares.iter().enumerate().map(|(index, share)| {
            let before = if index == 0 { 0.0 } else { shares[index - 1] };
            Law::poisson(rps * (share - before).max(0.0))
        });
        let failed = match fixed {
            true => Law::binomial(rps, failing),
            false => Law::poisson(rps * failing),
        };
        let served = Law::poisson(rps * (1.0 - failing));
        Self { total: rps, fixed, failed, served, buckets: buckets.collect(), edges: EDGES.into() }
    }

    pub fn errors(&self, random: &mut StdRng) -> (f64, f64) {
        let failed = self.failed.draw(random);
        (failed, if self.fixed { self.total } else { failed + self.served.draw(random) })
    }

    pub fn histogram(&self, random: &mut StdRng) -> Histogram {
        let counts = self.buckets.iter().map(|law| law.draw(random)).collect();
        Histogram { edges: self.edges.clone(), counts }
    }
}

/// The most alarms of `runs` that chance makes plausible at the rate `alpha`: more have a
/// probability below [`DOUBT`] by the binomial law.
pub fn alarms_max(runs: usize, alpha: f64) -> usize {
    let mut term = (1.0 - alpha).powf(runs as f64);
    let mut sum = term;
    let mut alarms = 0;
    while 1.0 - sum > DOUBT {
        alarms += 1;
        term *= (runs - alarms + 1) as f64 / alarms as f64 * alpha / (1.0 - alpha);
        sum += term;
    }
    alarms
}

/// How many of `runs` alarm, counted on both cores, and whether that is plausible at `alpha`.
pub fn plausible(runs: usize, alpha: f64, alarm: impl Fn(u64) -> bool + Sync) -> (usize, bool) {
    let count = |from: usize| (from..runs).step_by(2).filter(|run| alarm(*run as u64)).count();
    let alarms = std::thread::scope(|scope| {
        let odd = scope.spawn(|| count(1));
        count(0) + odd.join().expect("a run panicked")
    });
    (alarms, alarms <= alarms_max(runs, alpha))
}

#[test]
fn the_bound_on_alarms_is_that_of_the_binomial_law() {
    // By hand: with mean 0.4, P(more than 3) = 0.00078 and P(more than 2) = 0.0079.
    for (runs, alpha, expected) in [(400, 0.001, 3), (400, 0.0, 0), (1000, 0.001, 5), (1, 0.5, 1)] {
        assert_eq!(alarms_max(runs, alpha), expected, "{runs} runs at {alpha}");
    }
}

#[test]
fn identical_arms_are_rolled_back_no_more_often_than_stated() {
    let rules = recommended();
    let (alarms, plausible) = plausible(RUNS, rules.false_rollback_rate, |seed| {
        // Equal arms; a canary with a third of the traffic; a quiet service with rare errors.
        let (canary_rps, baseline_rps, error_share) = match seed % 3 {
            0 => (100.0, 100.0, 0.005),
            1 => (20.0, 60.0, 0.005),
            _ => (30.0, 30.0, 0.001),
        };
        let arrivals = if seed % 2 == 0 { Arrivals::Fixed } else { Arrivals::Poisson };
        let traffic = Traffic { arrivals, ..Traffic::new(canary_rps, baseline_rps) };
        let truth = Truth { error_share, ..Truth::default() };
        let scenario = Scenario::healthy(traffic).with_truth(truth);
        let trial = judge(&rules, &scenario, &Calibration::default(), seed, |_| {});
        match trial.ending {
            Ending::Rollback { .. } => true,
            Ending::Promote => {
                assert_eq!(trial.secs, LOOKS as f64, "promoted before the hold was over");
                false
            }
            Ending::Inconclusive => panic!("seed {seed}: no verdict"),
        }
    });
    println!(
        "{alarms} of {RUNS} identical arms rolled back, {:?} allowed",
        alarms_max(RUNS, 0.001)
    );
    assert!(plausible, "{alarms} of {RUNS} healthy releases were rolled back");
}

const RUNS: usize = 300;

/// The hardest healthy release: exactly as much worse as the rules allow. Evidence alone, so that
/// the number of runs can be large.
#[test]
fn a_canary_exactly_at_the_margin_is_not_rolled_back() {
    let (alarms, plausible) = plausible(1_000, 0.001, |seed| {
        let baseline = Service { failing: 0.01, ..HEALTHY };
        let canary = Service { failing: 0.015, ..HEALTHY };
        let evidence = ComparisonEvidence::new(1.5, 0.001, LOOKS as u32);
        let noise = Noise { baseline: 1.0, floor: 1.0 };
        reaches(evidence, noise, 0.001, seed, canary, baseline)
    });
    assert!(plausible, "{alarms} of 1000 at the margin");
}

/// Whether evidence ever reaches 1/alpha.
fn reaches(
    mut evidence: ComparisonEvidence,
    noise: Noise,
    alpha: f64,
    seed: u64,
    canary: Service,
    baseline: Service,
) -> bool {
    let mut random = StdRng::seed_from_u64(seed);
    let (canary, baseline) = (Source::new(canary, false), Source::new(baseline, false));
    (0..LOOKS).any(|_| {
        let (canary_events, canary_total) = canary.errors(&mut random);
        let (baseline_events, baseline_total) = baseline.errors(&mut random);
        let counts = Counts { canary_events, canary_total, baseline_events, baseline_total };
        evidence.step(&counts, noise, None) >= -alpha.ln()
    })
}

#[test]
fn planted_invalid_processes_are_caught_by_the_same_check() {
    // Likelihood ratios multiplied instead of divided.
    let (alarms, sound) = plausible(RUNS, 0.001, |seed| {
        let evidence = ComparisonEvidence::new(1.0, 0.0, LOOKS as u32);
        reaches(evidence, Noise { baseline: 0.2, floor: 0.2 }, 0.001, seed, HEALTHY, HEALTHY)
    });
    assert!(!sound, "noise 0.2 passed with {alarms} alarms");

    // A z-test of two shares at 1 %, looked at again and again.
    let (alarms, sound) = plausible(RUNS, 0.01, |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let source = Source::new(HEALTHY, false);
        let mut sums = [0.0f64; 4];
        (0..LOOKS).any(|_| {
            let ((a, n), (b, m)) = (source.errors(&mut random), source.errors(&mut random));
            sums.iter_mut().zip([a, n, b, m]).for_each(|(sum, value)| *sum += value);
            let [a, n, b, m] = sums;
            let pooled = (a + b) / (n + m);
            let deviation = (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt();
            a + b >= 20.0 && (a / n - b / m) / deviation > 2.326
        })
    });
    assert!(!sound, "repeated z-tests passed with {alarms} alarms");
}

/// Onset at second 120; every run must find it, by the rule that is meant to.
fn check_detection(fault: FaultKind, rule: usize, median_max: f64, worst_max: f64) {
    const ONSET_SECS: f64 = 120.0;
    const DETECTIONS: u64 = 60;
    let rules = recommended();
    let scenario = Scenario::healthy(Traffic::new(100.0, 100.0)).with_fault(fault, ONSET_SECS);
    let find = |seed: u64| {
        let trial = judge(&rules, &scenario, &Calibration::default(), seed, |_| {});
        assert_eq!(trial.ending, Ending::Rollback { rule }, "seed {seed}");
        let delay = trial.secs - ONSET_SECS;
        assert!(delay > 0.0, "seed {seed}: rolled back {delay} s after the onset");
        delay
    };
    let mut delays: Vec<f64> = (0..DETECTIONS).map(find).collect();
    delays.sort_by(f64::total_cmp);
    let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    println!("found by rule {rule} after {median} looks in the median, {worst} at worst");
    assert!(median <= median_max && worst <= worst_max, "{delays:?}");
}

#[test]
fn ten_times_the_errors_are_found_within_seconds() {
    check_detection(FaultKind::Errors { factor: 10.0 }, 0, 15.0, 25.0);
}

#[test]
fn twice_the_latency_is_found_within_seconds() {
    check_detection(FaultKind::Latency { factor: 2.0 }, 1, 5.0, 10.0);
}
