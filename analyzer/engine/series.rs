//! How far two series of values lie apart, with an interval that holds however the values hang
//! together in time and however often one looks.
//!
//! It is for values that come without counts, such as a metrics server's averages by the minute. Both
//! series are paired step by step, so that what moves both alike drops out. Of the differences' mean
//! `m` and variance `s^2` the evidence against a true mean of `d` is the mixture t-test
//! `E = sqrt(g / (k + g)) ((1 + u) / (1 + u g / (k + g)))^(k / 2)` with `u = (m - d)^2 / s^2`: for `k`
//! independent normal values its expectation is at most 1 at every look together (Lai 1976; Wang and
//! Ramdas 2024, the Gaussian mixture). The interval is every `d` with `E` below `1 / alpha`.
//!
//! **Noise.** A value of a minute ago says much of what the present one is, so `n` values count as
//! `k = n / phi` independent ones. `phi` is the larger of `(1 + r) / (1 - r)`, with `r` the lag-1
//! correlation freed of its bias (Marriott and Pope 1954) and one standard error up, and what means
//! of blocks of 2, 4, 8, ... steps vary more than independent values would. It is asked of the
//! control's own series and of the differences, and the smaller counts: a canary that turns bad half
//! way looks like slow noise in the differences and not in the control, and a load that rises for both
//! looks like it in the control and not in the differences.
//!
//! With an estimated `phi` nothing is exact any more; how often healthy pairs are called apart is
//! measured (`tests/it/kayenta/series.rs`). Values do not say what they rest on: of arms with very
//! different traffic rare events look different by chance, and counts should be judged instead.

/// The chance that healthy series are ever called apart, at all looks together.
pub const FALSE_ALARM: f64 = 0.01;

/// Values that the mixture is spread over before the first: small, so that it is narrowest for a few
/// independent values, at the price of a tenth of its width for many.
const PRIOR_VALUES: f64 = 0.05;

/// Standard errors by which a correlation is taken to be larger than it was seen.
const CORRELATION_ERRORS: f64 = 1.0;

/// Correlations are taken to be no larger.
const CORRELATION_MAX: f64 = 0.999;

/// Blocks of a size, at least, for their variance to count.
const BLOCKS_MIN: usize = 6;

/// A spread that is smaller beside the values is the rounding of numbers.
const ROUNDING: f64 = 1e-12;

/// Two series, value by value of the same step.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    control: Vec<f64>,
    experiment: Vec<f64>,
}

/// By how much the experiment is beyond something, over all pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apart {
    /// Mean of the differences.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// There are so few values, beside how long they hold, that no difference could be shown however
/// large it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TooFew {
    /// Pairs.
    pub pairs: usize,
    /// Independent values that they are worth.
    pub worth: f64,
}

impl Pairs {
    /// The steps at which both series have a value. Values must be finite and may be anything up to
    /// 1e100.
    pub fn new(control: &[Option<f64>], experiment: &[Option<f64>]) -> Self {
        let both = control.iter().zip(experiment).filter_map(|(c, e)| Some(((*c)?, (*e)?)));
        let (control, experiment) = both.unzip();
        Self { control, experiment }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.control.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty()
    }

    /// Means of the control and of the experiment; zero without pairs.
    pub fn means(&self) -> (f64, f64) {
        (moments(&self.control).0, moments(&self.experiment).0)
    }

    /// How far the experiment is above `control + by |control|`: above the control itself with `by` 0,
    /// above 1.2 times a positive one with 0.2, above 0.8 times one with -0.2.
    ///
    /// # Errors
    /// When no difference could be shown.
    pub fn beyond(&self, by: f64) -> Result<Apart, TooFew> {
        let pairs = self.control.iter().zip(&self.experiment);
        let differences: Vec<f64> = pairs.map(|(c, e)| e - (c + by * c.abs())).collect();
        let noise = noise_factor(&self.control).min(noise_factor(&differences));
        let worth = self.len() as f64 / noise;
        let too_few = TooFew { pairs: self.len(), worth };
        let reach = reach(worth).ok_or(too_few)?;
        let largest =
            self.control.iter().chain(&self.experiment).fold(0.0f64, |a, b| a.max(b.abs()));
        let still = |value: f64| if value.abs() <= ROUNDING * largest { 0.0 } else { value };
        let (mean, spread) = moments(&differences);
        let (mean, half) = (still(mean), still(spread) * reach.sqrt());
        Ok(Apart { mean, low: mean - half, high: mean + half })
    }
}

/// The squared half width of the interval in units of the variance, for `k` independent values: where
/// `E` is `1 / alpha`. None where it never gets there.
fn reach(k: f64) -> Option<f64> {
    let share = PRIOR_VALUES / (k + PRIOR_VALUES);
    let ratio = (2.0 / k * (-FALSE_ALARM.ln() - 0.5 * share.ln())).exp();
    let slack = 1.0 - ratio * share;
    (slack > 0.0).then(|| (ratio - 1.0) / slack)
}

/// By how much more the mean of a series varies than that of as many independent values; at least 1.
pub fn noise_factor(series: &[f64]) -> f64 {
    let (mean, spread) = moments(series);
    let largest = series.iter().fold(0.0f64, |a, b| a.max(b.abs()));
    if series.len() < 2 || spread <= ROUNDING * largest {
        return 1.0;
    }
    let count = series.len() as f64;
    let scaled: Vec<f64> = series.iter().map(|value| (value - mean) / spread).collect();
    let products: f64 = scaled.windows(2).map(|two| two[0] * two[1]).sum();
    let seen = products / (count - 1.0);
    let unbiased = seen + (1.0 + 4.0 * seen) / count;
    let error = ((1.0 - unbiased * unbiased).max(0.0) / count).sqrt();
    let correlation = (unbiased + CORRELATION_ERRORS * error).clamp(0.0, CORRELATION_MAX);
    let mut factor = (1.0 + correlation) / (1.0 - correlation);
    let mut size = 2;
    while scaled.len() / size >= BLOCKS_MIN {
        let means: Vec<f64> = scaled
            .chunks_exact(size)
            .map(|block| block.iter().sum::<f64>() / size as f64)
            .collect();
        let (_, spread) = moments(&means);
        let blocks = means.len() as f64;
        factor = factor.max(size as f64 * spread * spread * blocks / (blocks - 1.0));
        size *= 2;
    }
    factor
}

/// Mean and standard deviation, by the number of values; zero without any.
pub fn moments(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: [f64; 10] = [1.2, 0.7, 2.1, 1.4, 0.3, 1.9, 1.1, 0.8, 1.6, 1.0];

    #[rustfmt::skip]
    const WANDERS: [f64; 40] = [
        0.0, 0.0, 0.3, -0.06, -0.93, -1.1, -1.76, -1.17, 0.52, -0.13, -0.71, -0.01, 0.36, 0.36,
        -0.68, -0.51, 0.35, -1.1, -1.23, -2.76, -3.22, -4.1, -3.11, -3.44, -2.14, -1.34, -1.13,
        -3.31, -2.86, -2.05, -1.32, -2.46, -2.2, -2.52, -2.57, -0.74, -1.33, -0.96, 0.21, -0.43,
    ];

    /// The mixture t-test by the sums that Wang and Ramdas write it with.
    fn evidence(values: &[f64], against: f64) -> f64 {
        let n = values.len() as f64;
        let sum: f64 = values.iter().map(|value| value - against).sum();
        let squares: f64 = values.iter().map(|value| (value - against).powi(2)).sum();
        let (n_g, g) = (n + PRIOR_VALUES, PRIOR_VALUES);
        (g / n_g).sqrt() * (n_g * squares / (n_g * squares - sum * sum)).powf(n / 2.0)
    }

    /// Golden numbers from scipy, with `t` the t-statistic of `SEEN` and of `SEEN - d`:
    /// `quad(lambda d: nct.pdf(t, 9, d * sqrt(10)) * norm.pdf(d, 0, 1 / sqrt(0.05)), -60, 60)[0] /
    /// t.pdf(t, 9)` is 608.69131409; by `brentq` it is 100 at 0.24832966 and at 2.17167034.
    #[test]
    fn the_interval_is_that_of_the_mixture_t_test() {
        assert!((evidence(&SEEN, 0.0) - 608.691_314_090_5).abs() < 1e-6);
        let (mean, spread) = moments(&SEEN);
        let half = spread * reach(10.0).expect("ten values").sqrt();
        assert!((mean - half - 0.248_329_664_075).abs() < 1e-9, "{}", mean - half);
        assert!((mean + half - 2.171_670_335_925).abs() < 1e-9, "{}", mean + half);
        for end in [mean - half, mean + half] {
            assert!((evidence(&SEEN, end) - 1.0 / FALSE_ALARM).abs() < 1e-6, "{end}");
        }
    }

    /// Golden numbers from numpy, with `z = (x - x.mean()) / x.std()`: of `WANDERS` the lag-1
    /// correlation `r = z[1:] @ z[:-1] / 39`, as `u = r + (1 + 4 * r) / 40`, one error up
    /// `v = u + sqrt((1 - u * u) / 40)`, gives `(1 + v) / (1 - v) = 31.8473696377`; of the other series
    /// the means of 16 steps count, `16 * z[:192].reshape(-1, 16).mean(1).var(ddof=1)`.
    #[test]
    fn noise_is_that_of_means() {
        let found = noise_factor(&WANDERS);
        assert!((found - 31.847_369_637_654).abs() < 1e-9, "{found}");
        let both = |at: u32| f64::from(at / 20 % 2) + 0.8 * (-1.0f64).powi(at as i32);
        let found = noise_factor(&(0..200).map(both).collect::<Vec<_>>());
        assert!((found - 2.545_114_061_968).abs() < 1e-9, "{found}");
        assert_eq!(noise_factor(&[5.0; 100]), 1.0);
        assert_eq!(noise_factor(&[]), 1.0);
        // Twenty steps up and twenty down: neighbours are nearly the same.
        let slow: Vec<f64> = (0..200).map(|at| f64::from(at / 20 % 2)).collect();
        assert!(noise_factor(&slow) > 15.0, "{}", noise_factor(&slow));
    }

    fn pairs(control: &[f64], experiment: &[f64]) -> Pairs {
        let known = |values: &[f64]| values.iter().copied().map(Some).collect::<Vec<_>>();
        Pairs::new(&known(control), &known(experiment))
    }

    #[test]
    fn what_is_apart_is_shown_and_what_is_alike_is_not() {
        let control = [10.0, 11.0, 9.0, 10.0, 12.0, 10.0, 11.0, 9.0, 10.0, 10.0];
        let twice = control.map(|value| 2.0 * value);
        let found = pairs(&control, &twice).beyond(0.0).expect("enough");
        assert!((found.mean - 10.2).abs() < 1e-9 && found.low > 0.0, "{found:?}");
        let found = pairs(&control, &twice).beyond(0.5).expect("enough");
        assert!(found.low > 0.0, "{found:?}");
        let found = pairs(&control, &twice).beyond(1.0).expect("enough");
        assert_eq!((found.mean, found.low, found.high), (0.0, 0.0, 0.0));
        let found = pairs(&twice, &control).beyond(-0.2).expect("enough");
        assert!(found.high < 0.0, "{found:?}");
        // Below zero more is still more.
        let found = pairs(&[-10.0; 20], &[-9.0; 20]).beyond(0.2).expect("enough");
        assert!((found.mean + 1.0).abs() < 1e-9, "{found:?}");
        // A level that never moved, at zero and elsewhere.
        let found = pairs(&[0.0; 10], &[0.0; 10]).beyond(0.0).expect("enough");
        assert_eq!((found.low, found.high), (0.0, 0.0));
        let found = pairs(&[0.1; 10], &[0.3; 10]).beyond(0.0).expect("enough");
        assert!((found.low - 0.2).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn too_few_values_are_said_to_be() {
        assert!(Pairs::new(&[], &[]).beyond(0.0).is_err());
        let found = pairs(&[1.0; 3], &[9.0; 3]).beyond(0.0);
        assert_eq!(found, Err(TooFew { pairs: 3, worth: 3.0 }));
        assert!(pairs(&[1.0; 4], &[9.0; 4]).beyond(0.0).is_ok());
        let gaps = Pairs::new(&[Some(1.0), None, Some(1.0)], &[Some(2.0), Some(2.0), None]);
        assert_eq!(gaps.len(), 1);
        // Sixty values of a level that wanders slowly tell as much as a few.
        let slow: Vec<f64> = (0..60).map(|at| f64::from(at).sqrt()).collect();
        let found = pairs(&slow, &slow.iter().rev().copied().collect::<Vec<_>>()).beyond(0.0);
        assert!(matches!(found, Err(TooFew { pairs: 60, worth }) if worth < 4.0), "{found:?}");
    }

    #[test]
    fn any_finite_values_give_finite_ends() {
        for scale in [1e-300, 1e-30, 1.0, 1e30, 1e100] {
            let values: Vec<f64> = SEEN.iter().map(|value| value * scale).collect();
            let found = pairs(&values, &SEEN).beyond(0.2).expect("enough");
            assert!(found.low.is_finite() && found.high.is_finite(), "{scale}: {found:?}");
        }
    }
}
