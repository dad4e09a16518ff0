//! A plausible histogram with a given quantile: log-normal, on edges fine enough to judge by.
//!
//! The quantile, every constant that the rules hold it against, and both ends of every ramp are edges,
//! so that what is read off the histogram there is exact. Counts are not rounded, for the same reason.

use std::sync::Arc;

use statrs::distribution::{ContinuousCDF, Normal};

use crate::engine::{
    observation::Histogram,
    rule::{Bound, RuleSet, SignalKind, Test},
};

/// Standard deviation of the logarithm: the 95th percentile is 2.3 times the median.
const SIGMA: f64 = 0.5;

/// A decade in ten steps of about a quarter (Renard's series), so that edges read well.
const STEPS: [f64; 10] = [1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0];

/// How far the edges reach beyond the least and the largest value that is shown.
const REACH: f64 = 8.0;

/// The shape of one signal's histograms: the same edges at every look and in both arms.
#[derive(Clone, Debug)]
pub struct Shape {
    edges: Arc<[f64]>,
    quantile: f64,
    standard: Normal,
}

impl Shape {
    /// For a quantile signal that shows these values; none for any other kind.
    pub fn new(rules: &RuleSet, signal: usize, values: impl Iterator<Item = f64>) -> Option<Self> {
        let SignalKind::Quantile { q } = rules.signals[signal].kind else { return None };
        let clauses = rules.rules.iter().flat_map(|rule| rule.when.clauses());
        let limits = clauses.filter(|clause| clause.signal == signal).filter_map(|clause| {
            if let Test::BeyondConstant { limit, .. }
            | Test::Dwell { bound: Bound::Constant(limit), .. } = clause.test
            {
                return Some(limit);
            }
            None
        });
        let margin = rules.signals[signal].margin.and_then(|margin| margin.or);
        let mut edges: Vec<f64> =
            values.chain(limits).chain(margin).filter(|value| *value > 0.0).collect();
        let least = edges.iter().copied().fold(f64::INFINITY, f64::min);
        let most = edges.iter().copied().fold(0.0, f64::max);
        if !least.is_finite() {
            return None;
        }
        edges.extend(grid(least / REACH, most * REACH));
        edges.sort_by(f64::total_cmp);
        edges.dedup_by(|later, first| (*later - *first).abs() < *first * 1e-6);
        let standard = Normal::new(0.0, 1.0).ok()?;
        Some(Self { edges: edges.into(), quantile: q, standard })
    }

    /// The edges.
    pub fn edges(&self) -> &Arc<[f64]> {
        &self.edges
    }

    /// How many of these requests took at most as long as each edge, and all of them.
    pub fn cumulative(&self, requests: f64, quantile: f64) -> Vec<f64> {
        let at_quantile = self.standard.inverse_cdf(self.quantile);
        let share = |edge: &f64| {
            self.standard.cdf(at_quantile + (edge.ln() - quantile.ln()) / SIGMA) * requests
        };
        self.edges.iter().map(share).chain([requests]).collect()
    }

    /// The same, bucket by bucket.
    pub fn histogram(&self, requests: f64, quantile: f64) -> Histogram {
        let cumulative = self.cumulative(requests, quantile);
        let below = [0.0].into_iter().chain(cumulative.iter().copied());
        let counts = cumulative.iter().zip(below).map(|(count, below)| count - below).collect();
        Histogram { edges: self.edges.clone(), counts }
    }
}

/// Edges of Renard's series between two numbers.
fn grid(from: f64, to: f64) -> impl Iterator<Item = f64> {
    let decades = from.log10().floor() as i32..=to.log10().ceil() as i32;
    decades
        .flat_map(|decade| STEPS.iter().map(move |step| step * 10f64.powi(decade)))
        .filter(move |edge| (from..=to).contains(edge))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rulefile;

    fn shape(values: &[f64]) -> Shape {
        let text = "{ version: 1, service: a, signals: { p95: { quantile: 0.95, of: a_seconds } },\
                    rules: [{ when: p95 > 2s, then: rollback }], promote: { after: 1m } }";
        let rules = rulefile::load("a.yaml", text).unwrap().rules;
        Shape::new(&rules, 0, values.iter().copied()).unwrap()
    }

    #[test]
    fn the_quantile_is_where_it_is_said_to_be() {
        let shape = shape(&[0.2, 0.7]);
        for quantile in [0.2, 0.7] {
            let histogram = shape.histogram(1000.0, quantile);
            let edge = shape.edges().iter().position(|edge| *edge == quantile).unwrap();
            assert!((histogram.above(edge) - 50.0).abs() < 1e-6, "{quantile}: {histogram:?}");
            assert!((histogram.total() - 1000.0).abs() < 1e-9);
            assert!(histogram.counts.iter().all(|count| *count >= 0.0));
        }
    }

    /// scipy.stats.norm.sf(norm.ppf(0.95) + log(2.0 / 0.7) / 0.5) * 1000 = 0.09037745304393278
    #[test]
    fn the_share_beyond_a_limit_is_that_of_a_log_normal() {
        let shape = shape(&[0.7]);
        let edge = shape.edges().iter().position(|edge| *edge == 2.0).unwrap();
        let above = shape.histogram(1000.0, 0.7).above(edge);
        assert!((above - GOLDEN_ABOVE).abs() < 1e-9, "{above}");
    }

    const GOLDEN_ABOVE: f64 = 0.090_377_453_043_932_78;
}
