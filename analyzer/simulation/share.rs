//! How often something happened, with what chance leaves open.

use statrs::function::beta::beta_reg;

/// Probability with which an interval covers the true share.
pub const CONFIDENCE: f64 = 0.95;

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Share {
    /// How often it happened.
    pub count: usize,
    /// Of how many runs.
    pub of: usize,
}

impl Share {
    /// The share itself; 0 of none is 0.
    pub fn value(self) -> f64 {
        if self.of == 0 { 0.0 } else { self.count as f64 / self.of as f64 }
    }

    /// The exact binomial interval of [`CONFIDENCE`], both ends in 0..=1. Source: Clopper and
    /// Pearson 1934, by the incomplete beta function.
    pub fn interval(self) -> [f64; 2] {
        let (count, of) = (self.count as f64, self.of as f64);
        let tail = (1.0 - CONFIDENCE) / 2.0;
        let low = match self.count {
            0 => 0.0,
            _ => bisect(tail, |p| beta_reg(count, of - count + 1.0, p)),
        };
        let high = match self.of - self.count {
            0 => 1.0,
            _ => bisect(1.0 - tail, |p| beta_reg(count + 1.0, of - count, p)),
        };
        [low, high]
    }

    /// Whether a true share of at most `stated` could well have given this.
    pub fn agrees_with_at_most(self, stated: f64) -> bool {
        self.interval()[0] <= stated
    }
}

/// Where an increasing function on 0..1 reaches `level`. The library's own inverse fails for large
/// counts.
fn bisect(level: f64, of: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if of(middle) < level { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_equal_those_of_an_independent_program() {
        // python3 -c "from scipy.stats import binomtest as b
        // [print(b(k, n).proportion_ci(.95, 'exact')) for k, n in [(0, 2000), (2, 2000), (37, 500),
        // (500, 500), (99990, 100000)]]"
        for (count, of, low, high) in [
            (0, 2_000, 0.0, 0.00184273965),
            (2, 2_000, 0.00012112759, 0.00360762857),
            (37, 500, 0.05263510855, 0.10055887475),
            (500, 500, 0.99264938995, 1.0),
            (99_990, 100_000, 0.99981610415, 0.99995205110),
        ] {
            let [found_low, found_high] = Share { count, of }.interval();
            assert!((found_low - low).abs() < 1e-7, "{count} of {of}: {found_low}");
            assert!((found_high - high).abs() < 1e-7, "{count} of {of}: {found_high}");
        }
        assert_eq!(Share::default().interval(), [0.0, 1.0]);
        assert!(Share { count: 2, of: 2_000 }.agrees_with_at_most(0.001));
        assert!(!Share { count: 12, of: 2_000 }.agrees_with_at_most(0.001));
    }
}
