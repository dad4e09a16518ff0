//! Draws of counts: how many requests came, how many failed, how many fell into each bucket.

use rand::{RngExt, rngs::StdRng};
use rand_distr::{Binomial, Distribution, Poisson};

/// Largest mean that a count is drawn with; nobody serves more requests in one look.
const MEAN_MAX: f64 = 1e12;

/// A Poisson count; zero for a mean that is not above zero.
pub fn poisson(random: &mut StdRng, mean: f64) -> u64 {
    if mean.is_nan() || mean <= 0.0 {
        return 0;
    }
    match Poisson::new(mean.min(MEAN_MAX)) {
        Ok(law) => law.sample(random) as u64,
        Err(_) => 0,
    }
}

/// How many of `trials` happen when each does with probability `share`, cut to 0..=1.
pub fn binomial(random: &mut StdRng, trials: u64, share: f64) -> u64 {
    if trials == 0 || share.is_nan() || share <= 0.0 {
        return 0;
    }
    if share >= 1.0 {
        return trials;
    }
    match Binomial::new(trials, share) {
        Ok(law) => law.sample(random),
        Err(_) => 0,
    }
}

/// Fewer requests than this are put into their buckets one by one.
const ONE_BY_ONE_MAX: u64 = 6;

/// Adds `trials` requests to `counts`, each in bucket `i` with probability `cumulative[i] -
/// cumulative[i - 1]`. The last entry of `cumulative` is 1.
pub fn multinomial(random: &mut StdRng, trials: u64, cumulative: &[f64], counts: &mut [f64]) {
    if trials <= ONE_BY_ONE_MAX {
        for _ in 0..trials {
            let at: f64 = random.random();
            let bucket = cumulative.partition_point(|share| *share <= at);
            counts[bucket.min(counts.len() - 1)] += 1.0;
        }
        return;
    }
    let (mut left, mut below) = (trials, 0.0);
    for (share, count) in cumulative.iter().zip(counts) {
        if left == 0 {
            return;
        }
        let here = ((share - below) / (1.0 - below)).clamp(0.0, 1.0);
        let drawn = binomial(random, left, here);
        *count += drawn as f64;
        left -= drawn;
        below = *share;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const DRAWS: usize = 40_000;

    /// Mean and variance of what is drawn.
    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let values: Vec<f64> = (0..DRAWS).map(|_| draw()).collect();
        let mean = values.iter().sum::<f64>() / DRAWS as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (mean, squares / (DRAWS - 1) as f64)
    }

    /// Both moments within four and five standard errors; the fourth moment of a count is about
    /// three squares of its variance, and one variance more where it is rare.
    fn check(name: &str, found: (f64, f64), mean: f64, variance: f64) {
        let draws = DRAWS as f64;
        let mean_error = (variance / draws).sqrt();
        let variance_error = ((2.0 * variance * variance + variance) / draws).sqrt();
        assert!((found.0 - mean).abs() <= 4.0 * mean_error, "{name}: {found:?}, mean {mean}");
        let off = (found.1 - variance).abs();
        assert!(off <= 5.0 * variance_error, "{name}: {found:?}, variance {variance}");
    }

    #[test]
    fn counts_have_the_moments_of_their_laws() {
        let mut random = StdRng::seed_from_u64(1);
        for mean in [0.02, 0.7, 5.0, 11.9, 12.1, 100.0, 5000.0] {
            let found = moments(|| poisson(&mut random, mean) as f64);
            check(&format!("poisson {mean}"), found, mean, mean);
        }
        for (trials, share) in [(1, 0.3), (100, 0.005), (100, 0.5), (5000, 0.05), (50, 0.97)] {
            let found = moments(|| binomial(&mut random, trials, share) as f64);
            let mean = trials as f64 * share;
            check(&format!("binomial {trials} {share}"), found, mean, mean * (1.0 - share));
        }
    }

    #[test]
    fn buckets_have_their_shares_and_lose_no_request() {
        let cumulative = [0.1, 0.1, 0.55, 0.99, 1.0];
        for trials in [3u64, 40] {
            let mut random = StdRng::seed_from_u64(2);
            let mut before = 0.0;
            for (bucket, end) in cumulative.iter().enumerate() {
                let found = moments(|| {
                    let mut counts = [0.0; 5];
                    multinomial(&mut random, trials, &cumulative, &mut counts);
                    assert_eq!(counts.iter().sum::<f64>(), trials as f64);
                    counts[bucket]
                });
                let share: f64 = end - before;
                let mean = trials as f64 * share;
                check(&format!("bucket {bucket} of {trials}"), found, mean, mean * (1.0 - share));
                before = *end;
            }
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_zero() {
        let mut random = StdRng::seed_from_u64(3);
        for mean in [0.0, -1.0, f64::NAN] {
            assert_eq!(poisson(&mut random, mean), 0);
            assert_eq!(binomial(&mut random, 5, mean), 0);
        }
        assert_eq!(binomial(&mut random, 5, 1.5), 5);
        assert_eq!(binomial(&mut random, 0, 0.5), 0);
        assert!(poisson(&mut random, f64::INFINITY) > 0);
    }
}
