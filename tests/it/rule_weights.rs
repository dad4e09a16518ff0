//! Weights of rules: how the false-rollback rate is shared between clauses by evidence.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::rulefile;

use super::rules::readme;

/// Shares of the false-rollback rate: an even split as long as no rule has a weight, bit for bit what
/// a division gives; otherwise by weight; together always the rate.
#[test]
fn evidence_shares_the_rate_by_weight() {
    let (file, _) = readme();
    let (head, rest) = file.split_once("rules:\n").expect("it has rules");
    let (_, tail) = rest.split_once("promote:").expect("it promotes");
    let seed = 11;
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..200 {
        let conditions = [
            ("error_rate > 5% or hits < 0.9x baseline", 2),
            ("p95_latency > 2s and error_rate > 1%", 2),
            ("slope(memory) > 100MB/min", 1),
            ("error_rate > 1% for 1m and pool > 80%", 1),
            ("app is down for 3 checks", 0),
        ];
        let mut rules = String::new();
        let (mut weights, mut counts) = (Vec::new(), Vec::new());
        let is_even = random.random_range(0..4) == 0;
        for _ in 0..random.random_range(1..8) {
            let (condition, count) = conditions[random.random_range(0..conditions.len())];
            let weight = if is_even || count == 0 || random.random_range(0..3) == 0 {
                1.0
            } else {
                f64::from(random.random_range(1..100_000u32)) / 100.0
            };
            let written = if weight == 1.0 { String::new() } else { format!(", weight: {weight}") };
            rules += &format!("  - {{ when: {condition}, then: rollback{written} }}\n");
            weights.push(weight);
            counts.push(f64::from(count));
        }
        let read = rulefile::load("t", &format!("{head}rules:\n{rules}promote:{tail}"))
            .unwrap_or_else(|faults| panic!("seed {seed}: {}", faults.render(false)))
            .rules;
        let sum: f64 = weights.iter().zip(&counts).map(|(weight, count)| weight * count).sum();
        let mut spent = 0.0;
        for ((rule, weight), count) in read.rules.iter().zip(&weights).zip(&counts) {
            assert_eq!(rule.weight, *weight, "seed {seed}\n{rules}");
            let alpha = read.alpha(rule);
            spent += alpha * count;
            if sum > 0.0 {
                let expected = read.false_rollback_rate * weight / sum;
                assert!((alpha / expected - 1.0).abs() < 1e-12, "seed {seed}\n{rules}");
            }
            if is_even && sum > 0.0 {
                assert_eq!(alpha, read.false_rollback_rate / sum, "seed {seed}\n{rules}");
            }
        }
        let whole = if sum > 0.0 { read.false_rollback_rate } else { 0.0 };
        assert!((spent - whole).abs() < 1e-15, "seed {seed}: {spent}\n{rules}");
    }
}
