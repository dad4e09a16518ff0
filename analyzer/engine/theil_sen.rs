//! The slope of a few points, and how sure it is.
//!
//! The slope is the median of the slopes of all pairs (Theil 1950): three of twelve points may be
//! anything at all without moving it much. Its standard error is the larger of two:
//!
//! - *Sen's*, from the ranks of Kendall's S among the pairs' slopes (Sen 1968), which takes the
//!   points' errors for independent; widened by `sqrt((1 + r) / (1 - r))` with `r` the lag-1
//!   autocorrelation of the residuals (effective sample size);
//! - *the drift's*: memory wanders rather than scatters about a line, and of a random walk the slope
//!   is known no better than the mean of its steps. With `e_i` the step less the slope's part and
//!   `d_i` its length, `sqrt(sum(e_i^2 / d_i) / (n - 2) / T)`, widened in the same way by the
//!   autocorrelation of the steps when it is positive.
//!
//! The second is what a mean-reverting level approaches from below when the window is shorter than
//! its memory, so the larger of both is on the safe side of either.

use super::envelope::{Point, WINDOW};

/// Pairs of a window.
const PAIRS: usize = WINDOW * (WINDOW - 1) / 2;

/// Ranks of the 95 % interval: C = 1.96 sqrt(n (n - 1) (2n + 5) / 18) = 28.6 for 12 points, so the
/// interval is between the pairs' slopes of rank (66 - C) / 2 and (66 + C) / 2 (Sen 1968, 2.6).
const SEN_RANKS: (usize, usize) = (18, 47);

/// Half the width of that interval in standard errors.
const SEN_Z: f64 = 1.959_963_984_540_054;

/// Degrees of freedom of the standard error.
pub const FREEDOM: f64 = (WINDOW - 2) as f64;

/// Autocorrelations are taken to be no larger: beyond it a window says nothing.
const AUTOCORRELATION_MAX: f64 = 0.95;

/// A slope with what it is known by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// Theil-Sen slope, in units a second.
    pub slope: f64,
    /// Ends of Sen's 95 % interval, before it is widened.
    pub sen: (f64, f64),
    /// Standard error, widened, in units a second.
    pub error: f64,
    /// Variance over what Sen's interval says: how much it was widened.
    pub inflation: f64,
    /// From the first point to the last, in seconds.
    pub span_secs: f64,
}

/// Fits a line. Times must ascend.
pub fn fit(points: &[Point; WINDOW]) -> Fit {
    let mut slopes = [0.0; PAIRS];
    let mut pairs = slopes.iter_mut();
    for (index, late) in points.iter().enumerate() {
        for early in &points[..index] {
            let secs = f64::from(late.secs - early.secs);
            if let Some(slope) = pairs.next() {
                *slope = f64::from(late.level - early.level) / secs;
            }
        }
    }
    let mut rank = |rank: usize| *slopes.select_nth_unstable_by(rank, f64::total_cmp).1;
    let slope = 0.5 * (rank(PAIRS / 2 - 1) + rank(PAIRS / 2));
    let sen = (rank(SEN_RANKS.0), rank(SEN_RANKS.1));
    let sen_error = (sen.1 - sen.0) / (2.0 * SEN_Z);
    let residuals = points.map(|point| f64::from(point.level) - slope * f64::from(point.secs));
    let mean = residuals.iter().sum::<f64>() / WINDOW as f64;
    let scatter = sen_error * widening(autocorrelation(&residuals.map(|r| r - mean)));
    let span_secs = f64::from(points[WINDOW - 1].secs - points[0].secs);
    let mut steps = [0.0; WINDOW - 1];
    for (index, step) in steps.iter_mut().enumerate() {
        let secs = f64::from(points[index + 1].secs - points[index].secs);
        *step = (residuals[index + 1] - residuals[index]) / secs.sqrt();
    }
    let variance = steps.iter().map(|step| step * step).sum::<f64>() / FREEDOM;
    let drift = (variance / span_secs).sqrt() * widening(autocorrelation(&steps));
    let error = scatter.max(drift);
    let inflation = if sen_error > 0.0 { (error / sen_error).powi(2) } else { 1.0 };
    Fit { slope, sen, error, inflation, span_secs }
}

/// Lag-1 autocorrelation of values about zero.
fn autocorrelation(values: &[f64]) -> f64 {
    let all: f64 = values.iter().map(|value| value * value).sum();
    let lagged: f64 = values.windows(2).map(|pair| pair[0] * pair[1]).sum();
    if all > 0.0 { lagged / all } else { 0.0 }
}

/// What an autocorrelation does to a standard error; a negative one is not taken advantage of.
fn widening(autocorrelation: f64) -> f64 {
    let r = autocorrelation.clamp(0.0, AUTOCORRELATION_MAX);
    ((1.0 + r) / (1.0 - r)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(levels: &[f32; WINDOW]) -> [Point; WINDOW] {
        std::array::from_fn(|index| Point { secs: index as f32 * 4.0, level: levels[index] })
    }

    /// Golden numbers: scipy 1.15, `scipy.stats.theilslopes(y, 4.0 * numpy.arange(12), 0.95)`.
    #[test]
    fn slope_and_interval_equal_scipy() {
        for (levels, slope, low, high) in GOLDEN {
            let fit = fit(&points(levels));
            for (found, expected) in [(fit.slope, slope), (fit.sen.0, low), (fit.sen.1, high)] {
                // Points are of single precision.
                let near = 1e-6 * (1.0 + expected.abs());
                assert!((found - expected).abs() < near, "{levels:?}: {found}, not {expected}");
            }
            assert!(fit.error >= (fit.sen.1 - fit.sen.0) / (2.0 * SEN_Z) && fit.inflation >= 1.0);
        }
    }

    #[test]
    fn a_line_is_certain_and_three_wild_points_do_not_move_it() {
        let mut levels: [f32; WINDOW] = std::array::from_fn(|index| 8.0 * index as f32);
        let line = fit(&points(&levels));
        assert_eq!((line.slope, line.error, line.span_secs), (2.0, 0.0, 44.0));
        (levels[2], levels[6], levels[9]) = (1e6, -1e6, 1e6);
        let wild = fit(&points(&levels));
        assert!((wild.slope - 2.0).abs() < 0.5 && wild.error > 1e3, "{wild:?}");
    }

    /// Of a random walk without drift the error is the drift's, not Sen's: 1.0 a step of 4 s over
    /// 44 s is 1 / 4 * sqrt(4 / 11) = 0.075 a second.
    #[test]
    fn a_walk_is_known_no_better_than_the_mean_of_its_steps() {
        let (mut sum, runs) = (0.0, 400);
        let mut state = 1u64;
        for _ in 0..runs {
            let mut level = 0.0;
            let walk = std::array::from_fn(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                level += if state >> 63 == 0 { 1.0 } else { -1.0 };
                level
            });
            sum += fit(&points(&walk)).error;
        }
        let mean = sum / f64::from(runs);
        assert!((0.075..0.12).contains(&mean), "{mean}");
    }

    #[rustfmt::skip]
    const GOLDEN: &[([f32; WINDOW], f64, f64, f64)] = &[
        ([0.0, 3.0, -2.7, -8.9, -4.5, -9.9, 0.6, 13.4, -4.9, -6.2, 4.9, 3.6],
            0.0672979797979798, -0.2875, 0.43333333333333335),
        ([5.3, -34.5, 22.5, 70.8, -19.2, 37.1, -23.1, 19.5, 3.9, 96.2, 56.6, 145.6],
            2.29375, -0.15, 4.520833333333333),
        ([12.5, -23.0, -217.3, -67.1, -35.9, -30.9, -170.4, -94.2, -142.3, -136.7, 4.9, -152.6],
            -2.7859375, -5.04, 1.7972222222222227),
        ([-9.8, 665.3, 624.9, 1166.5, 1633.1, 2019.1, 2032.5, 2822.8, 3607.6, 3135.9, 4257.8, 4435.8],
            100.92443181818183, 85.09583333333333, 113.04375),
    ];
}
