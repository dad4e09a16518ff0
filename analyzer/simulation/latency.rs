//! Laws of latency, and how many requests they put into each bucket.

use statrs::function::{erf::erf, gamma::gamma_lr};

/// The default buckets of the metrics libraries, in seconds.
pub const EDGES: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How long requests take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LatencyLaw {
    /// The logarithm is normal with this deviation: what one kind of request looks like.
    LogNormal {
        /// Half of the requests are faster, in seconds.
        median_secs: f64,
        /// Deviation of the logarithm.
        spread: f64,
    },
    /// A gamma law: a chain of waits, with a lighter tail.
    Gamma {
        /// Half of the requests are faster, in seconds.
        median_secs: f64,
        /// Its shape; 1 is exponential, more is narrower.
        shape: f64,
    },
    /// Two log-normal humps: hits and misses of a cache.
    Bimodal {
        /// Median of the fast ones, in seconds.
        fast_secs: f64,
        /// Median of the slow ones, in seconds.
        slow_secs: f64,
        /// Share of slow ones, in 0..1.
        slow_share: f64,
        /// Deviation of the logarithm of either.
        spread: f64,
    },
}

impl Default for LatencyLaw {
    fn default() -> Self {
        LatencyLaw::LogNormal { median_secs: 0.05, spread: 0.6 }
    }
}

impl LatencyLaw {
    /// Share of requests that take at most `secs`.
    pub fn below(self, secs: f64) -> f64 {
        if secs <= 0.0 {
            return 0.0;
        }
        match self {
            LatencyLaw::LogNormal { median_secs, spread } => log_normal(secs, median_secs, spread),
            LatencyLaw::Gamma { median_secs, shape } => {
                gamma_lr(shape, secs / median_secs * gamma_median(shape))
            }
            LatencyLaw::Bimodal { fast_secs, slow_secs, slow_share, spread } => {
                (1.0 - slow_share) * log_normal(secs, fast_secs, spread)
                    + slow_share * log_normal(secs, slow_secs, spread)
            }
        }
    }

    /// The latency that a share `q` of the requests stays within, in seconds; `q` in 0..1.
    pub fn quantile(self, q: f64) -> f64 {
        bisect(q, |secs| self.below(secs))
    }
}

fn log_normal(secs: f64, median_secs: f64, spread: f64) -> f64 {
    0.5 + 0.5 * erf((secs / median_secs).ln() / spread / std::f64::consts::SQRT_2)
}

/// Median of the gamma law of this shape and scale 1.
fn gamma_median(shape: f64) -> f64 {
    bisect(0.5, |x| gamma_lr(shape, x))
}

/// Where a law's share reaches `q`, between a nanosecond and a million seconds.
fn bisect(q: f64, below: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (1e-9f64.ln(), 1e6f64.ln());
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if below(middle.exp()) < q { low = middle } else { high = middle }
    }
    high.exp()
}

/// A law as cumulative shares per bucket, remembered while requests are equally slow.
#[derive(Clone, Debug)]
pub struct BucketShares {
    law: LatencyLaw,
    slowness: f64,
    /// Of the law as it stands, per edge; 1 for `+Inf` at the end.
    cumulative: Vec<f64>,
    /// Scale that takes the law's time to the edges', found once: the gamma law's median is dear.
    gamma_scale: f64,
}

impl BucketShares {
    /// Of a law as it stands.
    pub fn new(law: LatencyLaw) -> Self {
        let gamma_scale = match law {
            LatencyLaw::Gamma { median_secs, shape } => gamma_median(shape) / median_secs,
            LatencyLaw::LogNormal { .. } | LatencyLaw::Bimodal { .. } => 1.0,
        };
        let mut shares = Self { law, slowness: f64::NAN, cumulative: Vec::new(), gamma_scale };
        shares.at(1.0);
        shares
    }

    /// Cumulative shares when every request takes `slowness` times as long.
    pub fn at(&mut self, slowness: f64) -> &[f64] {
        if slowness != self.slowness {
            self.slowness = slowness;
            self.cumulative.clear();
            for edge in EDGES {
                let secs = edge / slowness;
                self.cumulative.push(match self.law {
                    LatencyLaw::Gamma { shape, .. } => gamma_lr(shape, secs * self.gamma_scale),
                    LatencyLaw::LogNormal { .. } | LatencyLaw::Bimodal { .. } => {
                        self.law.below(secs)
                    }
                });
            }
            self.cumulative.push(1.0);
        }
        &self.cumulative
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_equal_those_of_an_independent_program() {
        // python3 -c "from scipy.stats import lognorm, gamma as g
        // print(lognorm(.6, scale=.05).cdf(.1), lognorm(.6, scale=.05).ppf(.95))
        // s = .08 / g(2.5).median(); print(g(2.5, scale=s).cdf(.1), g(2.5, scale=s).ppf(.95))
        // b = lambda x: .8 * lognorm(.4, scale=.02).cdf(x) + .2 * lognorm(.4, scale=.3).cdf(x)
        // from scipy.optimize import brentq; print(b(.1), brentq(lambda x: b(x) - .95, .01, 9))"
        let log_normal = LatencyLaw::LogNormal { median_secs: 0.05, spread: 0.6 };
        let gamma = LatencyLaw::Gamma { median_secs: 0.08, shape: 2.5 };
        let bimodal =
            LatencyLaw::Bimodal { fast_secs: 0.02, slow_secs: 0.3, slow_share: 0.2, spread: 0.4 };
        for (law, below, q95) in [
            (log_normal, 0.8760050057471365, 0.13414686156089267),
            (gamma, 0.6353550323771988, 0.20352704071465696),
            (bimodal, 0.8005793658478553, 0.39290913431235275),
        ] {
            assert!((law.below(0.1) - below).abs() < 1e-9, "{law:?}: {}", law.below(0.1));
            let quantile = law.quantile(0.95);
            assert!((quantile / q95 - 1.0).abs() < 1e-8, "{law:?}: {quantile}");
            assert_eq!(law.below(0.0), 0.0);
            let mut shares = BucketShares::new(law);
            assert!((shares.at(1.0)[4] - below).abs() < 1e-9, "{law:?}");
            assert!((shares.at(2.0)[5] - law.below(0.125)).abs() < 1e-12, "{law:?}");
            assert_eq!(shares.at(2.0).len(), EDGES.len() + 1);
        }
    }
}
