//! Quantiles: the point estimate against the metrics servers' rule, and quantile evidence against a
//! slow reference and against numbers from another program.
//!
//! `tests/cases/golden_quantile.json` was written by `golden_quantile.py` beside it, which shares
//! nothing with the engine but the formulas.

use std::path::Path;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        calibration::SignalCalibration,
        observation::Histogram,
        quantile::{EFFECTS, QuantileEvidence, estimate},
        rule::Allowed,
    },
    simulation::draw::poisson,
};
use serde::Deserialize;
use statrs::distribution::{ContinuousCDF, Normal};

#[derive(Deserialize)]
struct Golden {
    effects: Vec<f64>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    q: f64,
    factor: f64,
    kappa_secs: f64,
    secs: f64,
    edges: Vec<f64>,
    /// Per look the canary's and the baseline's requests per bucket; none where one said nothing.
    looks: Vec<[Option<Vec<f64>>; 2]>,
    ln_e: Vec<f64>,
}

#[test]
fn quantile_evidence_equals_another_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/golden_quantile.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(golden.effects, EFFECTS);
    assert!(golden.cases.len() >= 8, "{} cases", golden.cases.len());
    for case in golden.cases {
        let mut evidence = QuantileEvidence::new(case.q, Allowed::Times(case.factor));
        assert_eq!(case.looks.len(), case.ln_e.len());
        for (look, (seen, expected)) in case.looks.iter().zip(&case.ln_e).enumerate() {
            let of = |counts: &Option<Vec<f64>>| {
                counts.clone().map(|counts| Histogram { edges: case.edges.clone().into(), counts })
            };
            let [canary, baseline] = [of(&seen[0]), of(&seen[1])];
            evidence.step(canary.as_ref(), baseline.as_ref(), &noise(case.kappa_secs), case.secs);
            let found = evidence.log_value();
            let close = (found - expected).abs() <= 1e-7 * (1.0 + expected.abs());
            assert!(close, "{} look {look}: {found}, expected {expected}", case.name);
        }
    }
}

fn noise(kappa_secs: f64) -> SignalCalibration {
    SignalCalibration { kappa_secs, ..SignalCalibration::default() }
}

/// The default buckets of the metrics libraries, in seconds.
const EDGES: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Requests of one look, slow to log-normal latencies.
fn draw(random: &mut StdRng, rps: f64, median_secs: f64) -> Vec<f64> {
    let normal = Normal::standard();
    let below = |edge: f64| normal.cdf((edge / median_secs).ln() / 0.6);
    let mut shares: Vec<f64> = EDGES.iter().map(|edge| below(*edge)).collect();
    shares.push(1.0);
    let mut before = 0.0;
    let mut counts = Vec::new();
    for share in shares {
        counts.push(poisson(random, rps * (share - before)) as f64);
        before = share;
    }
    counts
}

/// The reference: every look is kept, and each value is reckoned anew from the first look.
struct SlowQuantile {
    q: f64,
    factor: f64,
    kappa_secs: f64,
    /// Canary's and baseline's requests per bucket.
    seen: Vec<[Option<Vec<f64>>; 2]>,
}

impl SlowQuantile {
    /// ln of the wealth after all looks of one second.
    fn log_value(&self) -> f64 {
        // The chance of the healthy state, and of each effect at each edge once it is judged.
        let (mut healthy, mut bad) = (1.0, vec![None; EDGES.len() * EFFECTS.len()]);
        let (mut log_wealth, mut age) = (0.0, None);
        for (look, seen) in self.seen.iter().enumerate() {
            let history = self.history(look);
            for edge in 0..EDGES.len() {
                if seen[0].is_some() && usable(&history, edge) {
                    for effect in 0..EFFECTS.len() {
                        bad[edge * EFFECTS.len() + effect].get_or_insert(0.0);
                    }
                }
            }
            let alternatives = bad.iter().flatten().count() as f64;
            if alternatives == 0.0 {
                continue;
            }
            let begun = healthy * age.map_or(0.1, |age: f64| 0.25 / (age + 30.0));
            let healed: f64 = bad.iter().flatten().sum::<f64>() * 0.01;
            healthy += healed - begun;
            bad.iter_mut().flatten().for_each(|bad| *bad = *bad * 0.99 + begun / alternatives);
            age = Some(age.unwrap_or(0.0) + 1.0);

            let (mut wealth, mut sum) = (healthy, healthy);
            for edge in 0..EDGES.len() {
                for effect in 0..EFFECTS.len() {
                    let Some(bad) = &mut bad[edge * EFFECTS.len() + effect] else { continue };
                    let (null, equal) = self.odds(&history, seen, edge, EFFECTS[effect]);
                    wealth += *bad * null.exp();
                    *bad *= equal.exp();
                    sum += *bad;
                }
            }
            log_wealth += wealth.ln();
            healthy /= sum;
            bad.iter_mut().flatten().for_each(|bad| *bad /= sum);
        }
        log_wealth
    }

    /// Log likelihood ratios against the null, over the noise factor, and against equal arms.
    fn odds(
        &self,
        history: &[f64],
        seen: &[Option<Vec<f64>>; 2],
        edge: usize,
        effect: f64,
    ) -> (f64, f64) {
        let [Some(canary), Some(baseline)] = seen else { return (0.0, 0.0) };
        let (n_c, n_b) = (total(canary), total(baseline));
        let share = total(&history[edge + 1..]) / total(history);
        let allowed = tail_at(history, EDGES[edge] / self.factor);
        if n_c == 0.0 || n_b == 0.0 || allowed > 0.9 {
            return (0.0, 0.0);
        }
        let margin = (allowed / share).max(1.0);
        let rho = (margin * effect).min(0.97 / share);
        let theta = |ratio: f64| ratio * n_c / (ratio * n_c + n_b);
        let fast = |ratio: f64| (1.0 - ratio * share) / (1.0 - share);
        let (x_c, x_b) = (total(&canary[edge + 1..]), total(&baseline[edge + 1..]));
        let versus = |null: f64| {
            let (a, b) = (theta(rho), theta(null));
            let (c, d) = (theta(fast(rho)), theta(fast(null)));
            x_c * (a / b).ln()
                + x_b * ((1.0 - a) / (1.0 - b)).ln()
                + (n_c - x_c) * (c / d).ln()
                + (n_b - x_b) * ((1.0 - c) / (1.0 - d)).ln()
        };
        let kappa = self.kappa_secs * noise_share(history, edge, self.q);
        let (e_c, e_b) = (share * n_c, share * n_b);
        let noise = 1.0 + 2.0 * kappa * e_c * e_b / (e_c + e_b) / (1.0 - share);
        (versus(margin) / noise, versus(1.0))
    }

    /// Baseline requests per bucket in the first `looks` looks.
    fn history(&self, looks: usize) -> Vec<f64> {
        let mut sums = vec![0.0; EDGES.len() + 1];
        for [_, baseline] in &self.seen[..looks] {
            for (sum, count) in sums.iter_mut().zip(baseline.iter().flatten()) {
                *sum += count;
            }
        }
        sums
    }
}

fn total(counts: &[f64]) -> f64 {
    counts.iter().sum()
}

fn usable(history: &[f64], edge: usize) -> bool {
    let above = total(&history[edge + 1..]);
    let share = above / total(history);
    total(history) >= 400.0 && above >= 10.0 && (0.005..=0.40).contains(&share)
}

/// The normal score below which the requests up to an edge lie.
fn score(history: &[f64], edge: usize) -> f64 {
    let all = total(history);
    let below = total(&history[..=edge]).clamp(0.5, all - 0.5);
    Normal::standard().inverse_cdf(below / all)
}

/// Share of requests slower than `x`: the score over ln x is a straight line between two edges.
fn tail_at(history: &[f64], x: f64) -> f64 {
    let right = (0..EDGES.len()).find(|edge| EDGES[*edge] >= x).expect("within the edges");
    if right == 0 {
        return 1.0;
    }
    let (low, high) = (EDGES[right - 1], EDGES[right]);
    let at = (x.ln() - low.ln()) / (high.ln() - low.ln());
    let (z_low, z_high) = (score(history, right - 1), score(history, right));
    1.0 - Normal::standard().cdf((1.0 - at) * z_low + at * z_high)
}

/// The noise at an edge beside that at the quantile itself, by the tail's steepness.
fn noise_share(history: &[f64], edge: usize, q: f64) -> f64 {
    let z = Normal::standard().inverse_cdf(q);
    let right =
        (0..EDGES.len()).find(|&edge| total(&history[edge + 1..]) <= (1.0 - q) * total(history));
    let right = right.expect("within the edges");
    let (z_low, z_high) = (score(history, right - 1), score(history, right));
    let x = EDGES[right - 1]
        * (EDGES[right] / EDGES[right - 1]).powf(((z - z_low) / (z_high - z_low)).clamp(0.0, 1.0));
    let at_quantile = (tail_at(history, x / 1.2) / (1.0 - q)).ln();
    let share = total(&history[edge + 1..]) / total(history);
    let at_edge = (tail_at(history, EDGES[edge] / 1.2) / share).ln();
    (at_edge / at_quantile).powi(2).clamp(0.2, 4.0)
}

#[test]
fn quantile_evidence_equals_the_slow_reference() {
    let mut largest = f64::NEG_INFINITY;
    for seed in 0..24u64 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let factor = random.random_range(1.0..2.0);
        let rps = random.random_range(20.0..200.0);
        let median_secs = random.random_range(0.02..0.2);
        let slower = median_secs * random.random_range(0.7..2.5);
        let mut fast = QuantileEvidence::new(0.95, Allowed::Times(factor));
        let mut slow = SlowQuantile { q: 0.95, factor, kappa_secs: 0.25, seen: Vec::new() };
        for look in 0..50 {
            let mut arm =
                |median_secs| random.random_bool(0.9).then(|| draw(&mut random, rps, median_secs));
            let seen = [arm(slower), arm(median_secs)];
            let [canary, baseline] = seen
                .clone()
                .map(|counts| counts.map(|counts| Histogram { edges: EDGES.into(), counts }));
            fast.step(canary.as_ref(), baseline.as_ref(), &noise(0.25), 1.0);
            slow.seen.push(seen);
            let (a, b) = (fast.log_value(), slow.log_value());
            let close = (a - b).abs() <= 1e-7 * (1.0 + b.abs());
            assert!(close, "seed {seed} look {look}: {a} against the reference's {b}");
            largest = largest.max(b);
        }
    }
    assert!(largest > 20.0, "no run gathered evidence: {largest}");
}

/// One of two arms: requests a look and how slow it is, at each look.
type Pace<'a> = &'a dyn Fn(u32) -> (f64, f64);

/// How many of `runs` releases of five minutes alarm at 1/1000.
fn alarms(runs: u64, kappa_secs: f64, canary: Pace<'_>, baseline: Pace<'_>, wander: f64) -> usize {
    let alarm = |seed: &u64| {
        let mut random = StdRng::seed_from_u64(*seed);
        let mut evidence = QuantileEvidence::new(0.95, Allowed::Times(1.2));
        let mut levels = [0.0; 2];
        (0..300).any(|look| {
            let histograms = [canary(look), baseline(look)].into_iter().zip(&mut levels).map(
                |((rps, median_secs), level): (_, &mut f64)| {
                    // An AR(1) process of deviation `wander` and a correlation time of 30 looks.
                    let fresh: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
                    *level = 0.967 * *level + 0.254 * wander * fresh;
                    let counts = draw(&mut random, rps, median_secs * level.exp());
                    Histogram { edges: EDGES.into(), counts }
                },
            );
            let histograms: Vec<Histogram> = histograms.collect();
            evidence.step(Some(&histograms[0]), Some(&histograms[1]), &noise(kappa_secs), 1.0);
            evidence.log_value() >= 1000f64.ln()
        })
    };
    (0..runs).filter(alarm).count()
}

/// Most alarms of 150 runs that chance makes plausible at 1/1000: more than 2 have a probability
/// below 0.0005 by the binomial law.
const ALARMS_MAX: usize = 2;

#[test]
fn healthy_latencies_do_not_alarm() {
    let check = |name: &str, canary: Pace<'_>, baseline: Pace<'_>| {
        let found = alarms(150, 0.0, canary, baseline, 0.0);
        assert!(found <= ALARMS_MAX, "{name}: {found} of 150");
    };
    let steady = |_| (50.0, 0.05);
    check("identical arms", &steady, &steady);
    check("a small canary", &|_| (5.0, 0.05), &steady);
    check(
        "both slow down to three times",
        &|look| (50.0, 0.05 + f64::from(look) / 3000.0),
        &|look| (50.0, 0.05 + f64::from(look) / 3000.0),
    );
    check("traffic that moves to the canary", &|look| (2.0 + f64::from(look), 0.05), &steady);
    check("hardly any traffic", &|_| (1.0, 0.05), &|_| (3.0, 0.05));
    // As much slower as the rule allows, without any noise to hide behind.
    check("exactly at the margin", &|_| (50.0, 0.06), &steady);
}

/// The check must catch what is wrong: latencies that wander by a third, taken to be still.
#[test]
fn noise_that_is_not_taken_into_account_alarms() {
    let steady = |_| (50.0, 0.05);
    let found = alarms(30, 0.0, &steady, &steady, 0.3);
    assert!(found > ALARMS_MAX, "only {found} of 30 alarmed");
}

#[test]
fn edges_that_only_one_arm_has_are_left_out() {
    let mut random = StdRng::seed_from_u64(5);
    let mut evidence = QuantileEvidence::new(0.95, Allowed::Times(1.2));
    for _ in 0..200 {
        let baseline = draw(&mut random, 100.0, 0.05);
        let canary = draw(&mut random, 100.0, 0.05);
        // The canary exposes every other edge: cumulative counts at those are the same.
        let coarse = Histogram {
            edges: EDGES.iter().copied().step_by(2).collect(),
            counts: std::iter::once(canary[0])
                .chain(canary[1..].chunks(2).map(|pair| pair.iter().sum()))
                .collect(),
        };
        let baseline = Histogram { edges: EDGES.into(), counts: baseline };
        evidence.step(Some(&coarse), Some(&baseline), &noise(0.0), 1.0);
    }
    assert!(evidence.log_value() < 2.0, "{}", evidence.log_value());
    let (edge, judged) = evidence.leading_edge().expect("common edges");
    assert_eq!((edge, judged), (0.1, 1));
}

/// The metrics servers' rule as they write it: cumulative counts, the first that reaches the rank.
fn slow_estimate(q: f64, edges: &[f64], counts: &[f64]) -> Option<f64> {
    let cumulative: Vec<f64> = (1..=counts.len()).map(|n| counts[..n].iter().sum()).collect();
    let total = *cumulative.last()?;
    if total == 0.0 || edges.is_empty() {
        return None;
    }
    let rank = q * total;
    let bucket = cumulative.iter().position(|count| *count >= rank)?;
    if bucket == edges.len() {
        return Some(edges[edges.len() - 1]);
    }
    if bucket == 0 && edges[0] <= 0.0 {
        return Some(edges[0]);
    }
    let (low, before) =
        if bucket == 0 { (0.0, 0.0) } else { (edges[bucket - 1], cumulative[bucket - 1]) };
    Some(low + (edges[bucket] - low) * ((rank - before) / (cumulative[bucket] - before)))
}

#[test]
fn estimates_by_hand() {
    let check = |q: f64, edges: &[f64], counts: &[f64], expected: Option<f64>| {
        let found = estimate(q, edges, counts);
        let close = match (found, expected) {
            (Some(found), Some(expected)) => (found - expected).abs() < 1e-12,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        assert!(close, "{q} of {edges:?} {counts:?}: {found:?}, expected {expected:?}");
    };
    let edges = [1.0, 2.0, 4.0];
    check(0.95, &edges, &[0.0, 0.0, 0.0, 0.0], None);
    check(0.95, &[], &[5.0], None);
    // All slower than the highest edge: nobody knows by how much.
    check(0.95, &edges, &[0.0, 0.0, 0.0, 7.0], Some(4.0));
    // Rank 5 of ten in the first bucket, which begins at 0.
    check(0.5, &edges, &[10.0, 0.0, 0.0, 0.0], Some(0.5));
    // Rank 95 of 100: 90 below 2, so the fifth of ten within 2..4.
    check(0.95, &edges, &[50.0, 40.0, 10.0, 0.0], Some(3.0));
    // Exactly on an edge, with an empty bucket after it.
    check(0.5, &edges, &[5.0, 0.0, 5.0, 0.0], Some(1.0));
    check(0.9, &edges, &[5.0, 4.0, 1.0, 0.0], Some(2.0));
    check(1.0, &edges, &[5.0, 4.0, 1.0, 0.0], Some(4.0));
    // A lowest edge that is not positive is its own beginning.
    check(0.5, &[-1.0, 1.0], &[8.0, 2.0, 0.0], Some(-1.0));
    check(0.9, &[-1.0, 1.0], &[8.0, 2.0, 0.0], Some(0.0));
    check(0.5, &[0.0, 1.0], &[8.0, 2.0, 0.0], Some(0.0));
}

#[test]
fn estimates_equal_a_linear_scan() {
    for seed in 0..2_000u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut edge = random.random_range(-1.0..1.0);
        let mut edges = Vec::new();
        for _ in 0..random.random_range(1..14) {
            edges.push(edge);
            edge += random.random_range(0.01..2.0);
        }
        let sparse = random.random_bool(0.3);
        let mut count = || match sparse && random.random_bool(0.6) {
            true => 0.0,
            false => f64::from(random.random_range(0..50u32)),
        };
        let counts: Vec<f64> = (0..=edges.len()).map(|_| count()).collect();
        let q = random.random_range(0.01..1.0);
        let (a, b) = (estimate(q, &edges, &counts), slow_estimate(q, &edges, &counts));
        let close = match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + b.abs()),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        assert!(close, "seed {seed}: {q} of {edges:?} {counts:?}: {a:?} against {b:?}");
    }
}
