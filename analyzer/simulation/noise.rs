//! How rates wander beyond Poisson's law.
//!
//! The logarithm of a rate is an AR(1) process (an Ornstein-Uhlenbeck process sampled once a
//! second) with a stated deviation and correlation time, in its stationary law from the beginning.
//! Its factor has mean 1, so that noise alone makes no arm worse than the other.

use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

/// Noise of a release. Deviations are of the natural logarithm; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseModel {
    /// Deviation of each arm's event rate, of its own.
    pub sigma: f64,
    /// Correlation time of what each arm has of its own, in seconds.
    pub tau_secs: f64,
    /// Deviation of the event rate that both arms share: a dependency's bursts.
    pub shared_sigma: f64,
    /// Correlation time of what both share, in seconds.
    pub shared_tau_secs: f64,
    /// Deviation of each arm's latency level, of its own.
    pub latency_sigma: f64,
    /// Deviation of the latency level that both arms share.
    pub shared_latency_sigma: f64,
}

impl NoiseModel {
    /// No noise beyond Poisson's.
    pub const NONE: NoiseModel = NoiseModel {
        sigma: 0.0,
        tau_secs: 10.0,
        shared_sigma: 0.0,
        shared_tau_secs: 10.0,
        latency_sigma: 0.0,
        shared_latency_sigma: 0.0,
    };

    /// Each arm's event rate wanders by itself.
    pub fn own(sigma: f64, tau_secs: f64) -> Self {
        Self { sigma, tau_secs, ..Self::NONE }
    }

    /// Both arms' event rates wander together.
    pub fn shared(sigma: f64, tau_secs: f64) -> Self {
        Self { shared_sigma: sigma, shared_tau_secs: tau_secs, ..Self::NONE }
    }
}

/// Time that a rate is taken to be constant for; a longer look averages over several of them.
const STEP_SECS: f64 = 1.0;

/// One AR(1) process.
#[derive(Clone, Copy, Debug)]
pub struct Wander {
    sigma: f64,
    tau_secs: f64,
    /// The log rate now; none before the first step.
    at: Option<f64>,
}

impl Wander {
    /// A process that has not begun.
    pub fn new(sigma: f64, tau_secs: f64) -> Self {
        Self { sigma, tau_secs, at: None }
    }

    /// The factor over the next `secs` seconds: the mean of its steps, 1 without noise.
    pub fn over(&mut self, random: &mut StdRng, secs: f64) -> f64 {
        if self.sigma <= 0.0 || secs <= 0.0 {
            return 1.0;
        }
        let steps = (secs / STEP_SECS).ceil();
        let kept = (-secs / steps / self.tau_secs).exp();
        let fresh = self.sigma * (1.0 - kept * kept).sqrt();
        let mut sum = 0.0;
        for _ in 0..steps as u64 {
            let normal: f64 = StandardNormal.sample(random);
            let at = match self.at {
                Some(at) => kept * at + fresh * normal,
                None => self.sigma * normal,
            };
            self.at = Some(at);
            sum += (at - 0.5 * self.sigma * self.sigma).exp();
        }
        sum / steps
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn factors(sigma: f64, tau_secs: f64, secs: f64, count: usize) -> Vec<f64> {
        let mut random = StdRng::seed_from_u64(7);
        let mut wander = Wander::new(sigma, tau_secs);
        (0..count).map(|_| wander.over(&mut random, secs)).collect()
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        let (count, sum) =
            values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
        sum / count
    }

    #[test]
    fn the_log_rate_has_its_deviation_and_correlation_time() {
        let (sigma, tau) = (0.5, 30.0);
        let factors = factors(sigma, tau, 1.0, 400_000);
        let logs: Vec<f64> = factors.iter().map(|factor| factor.ln()).collect();
        let centre = mean(logs.iter().copied());
        let variance = mean(logs.iter().map(|log| (log - centre).powi(2)));
        // 400,000 steps are about 6,700 independent ones: errors of 0.006 and 2.5 %.
        assert!((mean(factors.iter().copied()) - 1.0).abs() < 0.03, "mean");
        assert!((centre + 0.125).abs() < 0.03, "centre {centre}");
        assert!((variance.sqrt() - sigma).abs() < 0.02, "deviation {}", variance.sqrt());
        for lag in [1usize, 10, 30, 60] {
            let both = logs.iter().zip(&logs[lag..]);
            let covariance = mean(both.map(|(a, b)| (a - centre) * (b - centre)));
            let expected = (-(lag as f64) / tau).exp();
            let found = covariance / variance;
            assert!((found - expected).abs() < 0.05, "lag {lag}: {found}, expected {expected}");
        }
    }

    #[test]
    fn long_looks_average_and_no_noise_is_one() {
        assert!(factors(0.0, 10.0, 1.0, 5).iter().all(|factor| *factor == 1.0));
        let spread = |secs: f64| {
            let factors = factors(0.5, 5.0, secs, 20_000);
            mean(factors.iter().map(|factor| (factor - 1.0).powi(2)))
        };
        // Variance of the mean of n steps of AR(1) with factor a: v / n (1 + 2 sum (1 - k/n) a^k),
        // of the log-normal's autocovariance exp(sigma^2 a^k) - 1.
        let expected = |n: i32| {
            let covariance = |k: i32| {
                ((0.25 * (-f64::from(k) / 5.0).exp()).exp() - 1.0) * f64::from(n - k) / f64::from(n)
            };
            (covariance(0) + 2.0 * (1..n).map(covariance).sum::<f64>()) / f64::from(n)
        };
        for n in [1, 5, 30] {
            let (found, exact) = (spread(f64::from(n)), expected(n));
            assert!((found / exact - 1.0).abs() < 0.12, "{n} s: {found}, expected {exact}");
        }
    }
}
