//! Exact (Clopper-Pearson) interval of a share: for showing how much a point estimate is worth.
//!
//! It holds for one look at a time and decides nothing; what decides is the evidence process.
//! Source: Clopper and Pearson 1934. Bounds are found by bisection over the regularised incomplete
//! beta function, because the library's inverse hangs or errs for large counts.

use statrs::function::beta::checked_beta_reg;

/// Two-sided error of the interval.
const ALPHA: f64 = 0.05;

/// Bisection steps: the bound is good to 2^-40 of the logit range, below any display's precision.
const STEPS: u32 = 48;

/// 95 % interval of `events / total`; none when `total` is not positive or events exceed it.
pub fn share_interval(events: f64, total: f64) -> Option<(f64, f64)> {
    if !(total > 0.0 && (0.0..=total).contains(&events)) {
        return None;
    }
    let low =
        if events == 0.0 { 0.0 } else { beta_inverse(ALPHA / 2.0, events, total - events + 1.0)? };
    let high = if events == total {
        1.0
    } else {
        beta_inverse(1.0 - ALPHA / 2.0, events + 1.0, total - events)?
    };
    Some((low, high))
}

/// Where the beta distribution function with parameters `a`, `b` reaches `p`.
fn beta_inverse(p: f64, a: f64, b: f64) -> Option<f64> {
    let (mut low, mut high) = (-50.0f64, 50.0f64);
    for _ in 0..STEPS {
        let middle = 0.5 * (low + high);
        if checked_beta_reg(a, b, share_of_logit(middle)).ok()? < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(share_of_logit(0.5 * (low + high)))
}

fn share_of_logit(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden numbers: scipy 1.15, `scipy.stats.binomtest(k, n).proportion_ci(method='exact')`.
    #[test]
    fn equals_scipy() {
        for (events, total, low, high) in GOLDEN {
            let (a, b) = share_interval(*events, *total).expect("valid counts");
            assert!((a - low).abs() < 1e-9, "{events}/{total}: low {a} against {low}");
            assert!((b - high).abs() < 1e-9, "{events}/{total}: high {b} against {high}");
        }
    }

    #[test]
    fn nonsense_has_no_interval() {
        for (events, total) in [(1.0, 0.0), (2.0, 1.0), (-1.0, 5.0), (f64::NAN, 5.0)] {
            assert_eq!(share_interval(events, total), None);
        }
    }

    const GOLDEN: &[(f64, f64, f64, f64)] = &[
        (0.0, 10.0, 0.0, 0.30849710781876294),
        (1.0, 10.0, 0.0025285785444625728, 0.44501611702819543),
        (5.0, 10.0, 0.1870860284474045, 0.8129139715525955),
        (10.0, 10.0, 0.6915028921812371, 1.0),
        (29.0, 405.0, 0.04847636710263053, 0.10121965975415016),
        (3.0, 100000.0, 6.186763915927223e-06, 8.767020256784099e-05),
        (700.0, 1000.0, 0.6705383213026349, 0.7282788878708513),
        (12.0, 1234567.0, 5.022479273018649e-06, 1.6978834661859524e-05),
    ];
}
