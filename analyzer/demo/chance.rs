//! Seeded draws for the demo: when requests arrive and how long they take.
//!
//! Only the two distributions that the demo needs. The order in which concurrent requests take
//! their draws is up to the scheduler, so a seed fixes the sequence of draws, not who gets which.

use std::f64::consts::TAU;

use rand::{RngExt, rngs::StdRng};

/// A waiting time of a Poisson process of `rate` arrivals a second, in seconds.
pub fn waiting_secs(rng: &mut StdRng, rate: f64) -> f64 {
    -positive(rng).ln() / rate
}

/// A log-normal draw with this median; `sigma` is the deviation of its logarithm. Box and Muller,
/// "A note on the generation of random normal deviates", 1958.
pub fn log_normal(rng: &mut StdRng, median: f64, sigma: f64) -> f64 {
    let normal = (-2.0 * positive(rng).ln()).sqrt() * (TAU * rng.random::<f64>()).cos();
    median * (sigma * normal).exp()
}

/// Uniform on (0, 1]: a generator gives [0, 1), and the logarithm of 0 is not a number to wait for.
fn positive(rng: &mut StdRng) -> f64 {
    1.0 - rng.random::<f64>()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const DRAWS: usize = 20_000;

    #[test]
    fn waiting_times_have_the_mean_of_their_rate() {
        let mut rng = StdRng::seed_from_u64(1);
        let mean = (0..DRAWS).map(|_| waiting_secs(&mut rng, 40.0)).sum::<f64>() / DRAWS as f64;
        // Four standard errors of an exponential mean.
        assert!((mean * 40.0 - 1.0).abs() < 4.0 / (DRAWS as f64).sqrt(), "mean {mean}");
    }

    #[test]
    fn service_times_have_their_median_and_spread() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut draws: Vec<f64> = (0..DRAWS).map(|_| log_normal(&mut rng, 0.04, 0.45)).collect();
        draws.sort_by(f64::total_cmp);
        let (median, high) = (draws[DRAWS / 2], draws[DRAWS * 95 / 100]);
        assert!((median / 0.04 - 1.0).abs() < 0.03, "median {median}");
        // The 95th percentile of a log-normal is median * exp(1.645 sigma).
        assert!((high / (0.04 * (1.645_f64 * 0.45).exp()) - 1.0).abs() < 0.04, "p95 {high}");
    }
}
