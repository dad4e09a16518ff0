//! What an analysis itself shows of noise in the ratio of two event rates.
//!
//! A past of one arm cannot tell bursts that both arms will share from an arm's own; a short one, or
//! none, may know of no noise at all. The ratio between the arms can: looks are put into blocks, and
//! each block is compared with the one before it as in a two-by-two table. With `r` the ratio of
//! both together (Mantel and Haenszel 1959) and `theta_i = r n_c / (r n_c + n_b)` of block `i`,
//! `chi2 = sum (x_c - N theta_i)^2 / (N theta_i (1 - theta_i))` has mean 1 by chance alone. A ratio
//! that is constant, however bad, leaves it so: a regression does not inflate it, and its onset
//! moves one pair only.
//!
//! Own noise of intensity `kappa` adds `2 kappa h v / B`, where `v` is the variance
//! `N theta (1 - theta)` of a block of `B` seconds and `h` how much of the noise neighbours of that
//! length show when it lasts `tau`: `h(u) = (2 (1 - g) / u - g^2) u / 2`, `g = (1 - exp(-u)) / u`,
//! `u = B / tau`. From that the intensity moves both ways, for the looks that follow:
//!
//! - up, when the chi-squares without the largest exceed chance beyond doubt ([`Index::excess`]):
//!   the largest may be an onset;
//! - down, and only from a measured one, to where the noise would be at most if all chi-squares were
//!   as low as chance makes them once in forty times.
//!
//! Only blocks that are over count, so that what is bet at a look was settled before it.

use super::{calibration::SignalCalibration, dispersion::Index, evidence::Counts, noise::Origin};

/// Blocks are no shorter and no longer than this, and as long as the noise lasts if they can.
const BLOCK_SECS: std::ops::RangeInclusive<f64> = 10.0..=60.0;

/// Length of a block where it is not known how long noise lasts.
const BLOCK_SECS_UNKNOWN: f64 = 20.0;

/// A block waits for this many events of both arms together.
const BLOCK_EVENTS_MIN: f64 = 5.0;

/// Fewer pairs say nothing.
const PAIRS_MIN: f64 = 6.0;

/// A block is in two pairs; so many pairs are worth one that stands alone.
const PAIRS_PER_FREE_ONE: f64 = 1.5;

/// Normal score of the chance that the noise is more than it is lowered to: 2.5 %.
const LOWERED_SCORE: f64 = -1.96;

/// Noise of one comparison as the analysis sees it. Bounded: sums only.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    past: SignalCalibration,
    block_secs: f64,
    open: Block,
    before: Option<Block>,
    pairs: f64,
    /// Of the chi-squares.
    sum: f64,
    largest: f64,
    /// Of the variances per second, over pairs.
    variance_per_sec: f64,
    secs: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
struct Block {
    secs: f64,
    counts: Counts,
}

impl Residual {
    /// Nothing seen; `past` is what is known before the first look.
    pub fn new(past: SignalCalibration) -> Self {
        let block_secs = match lasts_secs(&past) {
            Some(secs) => secs.clamp(*BLOCK_SECS.start(), *BLOCK_SECS.end()),
            None => BLOCK_SECS_UNKNOWN,
        };
        let open = Block::default();
        let (pairs, sum, largest, variance_per_sec, secs) = (0.0, 0.0, 0.0, 0.0, 0.0);
        Self { past, block_secs, open, before: None, pairs, sum, largest, variance_per_sec, secs }
    }

    /// Takes one look of `secs` seconds.
    pub fn step(&mut self, counts: &Counts, secs: f64) {
        self.open.secs += secs;
        self.open.counts = self.open.counts.plus(counts);
        if self.open.secs < self.block_secs || self.open.counts.events() < BLOCK_EVENTS_MIN {
            return;
        }
        let block = std::mem::take(&mut self.open);
        self.secs += block.secs;
        if let Some((chi_square, variance_per_sec)) =
            self.before.replace(block).and_then(|before| pair(&before, &block))
        {
            self.pairs += 1.0;
            self.sum += chi_square;
            self.largest = self.largest.max(chi_square);
            self.variance_per_sec += variance_per_sec;
        }
    }

    /// What is known of the noise after the looks so far.
    pub fn noise(&self) -> SignalCalibration {
        if self.pairs < PAIRS_MIN || self.variance_per_sec <= 0.0 {
            return self.past;
        }
        let per_kappa = 2.0 * self.variance_per_sec / self.pairs;
        let raised = self.excess_less_the_largest() / per_kappa;
        let moved = |kappa_secs: f64| {
            let history_secs = match self.past.origin {
                Origin::Prior => 0.0,
                Origin::History { secs } | Origin::Analysis { history_secs: secs, .. } => secs,
            };
            let origin = Origin::Analysis { history_secs, secs: self.secs };
            SignalCalibration { kappa_secs, origin, ..self.past }
        };
        if raised > self.past.kappa_secs {
            return moved(raised);
        }
        match self.highest() {
            Some(excess) if excess / per_kappa < self.past.kappa_secs => moved(excess / per_kappa),
            Some(_) | None => self.past,
        }
    }

    fn excess_less_the_largest(&self) -> f64 {
        let pairs = self.pairs - 1.0;
        let value = (self.sum - self.largest) / pairs;
        let error = (2.5 * PAIRS_PER_FREE_ONE / pairs).sqrt();
        Index { value, error }.excess().unwrap_or(0.0)
    }

    /// The excess of the chi-squares if they came out as low as once in forty times, scaled up to
    /// all of the noise. None where it is not known how long noise lasts.
    fn highest(&self) -> Option<f64> {
        let lasts = lasts_secs(&self.past)?;
        // Where noise is large, so is what one pair differs by from another.
        let free = self.pairs / (PAIRS_PER_FREE_ONE * (1.0 + 2.0 * self.past.spread));
        // Wilson and Hilferty 1931: the cube root of a chi-square is nearly normal.
        let spread = 2.0 / (9.0 * free);
        let low = (1.0 - spread + LOWERED_SCORE * spread.sqrt()).max(0.0).powi(3);
        let highest = (self.sum / self.pairs / low - 1.0).max(0.0);
        let shown = neighbours_show(self.block_secs / lasts);
        (low > 0.0).then_some(highest / shown)
    }
}

/// How long noise lasts, where a past has shown some: `kappa = 2 spread tau`.
fn lasts_secs(past: &SignalCalibration) -> Option<f64> {
    let measured = past.spread > 0.0 && past.kappa_secs > 0.0;
    measured.then(|| past.kappa_secs / (2.0 * past.spread))
}

/// Share of the noise that shows between neighbouring blocks `u` times as long as it lasts.
fn neighbours_show(u: f64) -> f64 {
    let g = -(-u).exp_m1() / u;
    (2.0 * (1.0 - g) / u - g * g) * u / 2.0
}

/// Chi-square of two blocks, with the mean variance of the canary's events per second. None where
/// they have no ratio.
fn pair(first: &Block, second: &Block) -> Option<(f64, f64)> {
    let both = [first.counts, second.counts];
    let part = |of: fn(&Counts) -> f64| both.iter().map(of).sum::<f64>();
    let of_canary =
        part(|c| c.canary_events * c.baseline_total / (c.canary_total + c.baseline_total));
    let of_baseline =
        part(|c| c.baseline_events * c.canary_total / (c.canary_total + c.baseline_total));
    let ratio = of_canary / of_baseline;
    if !(ratio > 0.0 && ratio.is_finite()) {
        return None;
    }
    let (mut chi_square, mut variances) = (0.0, 0.0);
    for counts in &both {
        let share =
            ratio * counts.canary_total / (ratio * counts.canary_total + counts.baseline_total);
        let variance = counts.events() * share * (1.0 - share);
        chi_square += (counts.canary_events - counts.events() * share).powi(2) / variance;
        variances += variance;
    }
    let found = (chi_square, variances / (first.secs + second.secs));
    (found.0.is_finite() && found.1.is_finite()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_show_all_of_short_noise_and_little_of_long() {
        // By hand: g(1) = 0.632121, so (2 * 0.367879 - 0.399576) / 2.
        assert!((neighbours_show(1.0) - 0.168_091).abs() < 1e-6);
        assert!(neighbours_show(0.1) < 0.01 && neighbours_show(1e3) > 0.99);
    }
}
