//! Evidence that a share, or a rate, is below a fraction of the baseline's: cache hits, logins.
//!
//! **Shares.** That fewer requests hit is that more of them miss, and misses are what the processes
//! of [`super::wager`] count. `hits < m x baseline` means, with `f` the baseline's share of misses,
//! that the canary's is above `1 - m (1 - f)`: the allowed multiple of the baseline's misses is
//!
//! ```text
//! (1 - m (1 - f)) / f
//! ```
//!
//! with `f` taken from the looks before the present one, and from no fewer than
//! [`LEARNT_REQUESTS`] of them, so that the bet stays fair; and one relative standard error smaller,
//! which makes the multiple larger. Of a baseline that has hardly missed yet (fewer than
//! [`FEW_MISSES`]) there is no multiple to speak of; there the canary's misses are held against the
//! share `1 - m (1 - f)` itself, with the larger `f` of the past and of the present look, each one
//! standard error up: what befalls both arms at once is not held against one. Each look is a bet in
//! one of the two ways, chosen before it, so that their gains multiply. And whatever the baseline
//! does, the canary's misses must also be shown to be above `1 - m`, which is what is allowed of the
//! best baseline there is: the evidence is the smaller of both e-values.
//!
//! **Rates.** `logins < m x baseline` means that the baseline's rate is above `1 / m` times the
//! canary's: the arms change places.

use super::{
    evidence::Counts,
    wager::{Beyond, LimitTerms, LimitWager, RatioWager, Terms},
};

/// Requests of the baseline that its share of misses is taken from, at least.
pub const LEARNT_REQUESTS: f64 = 400.0;

/// With fewer misses than this the baseline's share of them is too small to be multiplied.
pub const FEW_MISSES: f64 = 20.0;

/// Evidence that the canary's share or rate is below `margin` times the baseline's.
#[derive(Clone, Debug, PartialEq)]
pub struct BelowEvidence {
    margin: f64,
    versus_baseline: RatioWager,
    versus_share: LimitWager,
    versus_best: LimitWager,
}

/// What is known before a look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Before {
    /// The baseline's hits (or events) so far.
    pub events: f64,
    /// Its requests (or seconds) so far.
    pub total: f64,
    /// Noise factor of the comparison.
    pub noise: f64,
    /// Noise factor against the constant.
    pub limit_noise: f64,
}

impl BelowEvidence {
    /// `margin` is above 0 and at most 1, `horizon` in looks.
    pub fn new(margin: f64, horizon: u32) -> Self {
        Self {
            margin,
            versus_baseline: RatioWager::new(horizon),
            versus_share: LimitWager::new(Beyond::Above, horizon),
            versus_best: LimitWager::new(Beyond::Above, horizon),
        }
    }

    /// Takes one look at shares, as hits among requests; returns ln of the e-value.
    pub fn step_share(&mut self, hits: &Counts, before: &Before) -> f64 {
        let misses = hits.misses();
        let limit = 1.0 - self.margin;
        let best = match limit > 0.0 {
            true => {
                let terms = LimitTerms { limit, noise: before.limit_noise, usual: None };
                self.versus_best.step(misses.canary_events, misses.canary_total, &terms)
            }
            false => f64::INFINITY,
        };
        if before.total - before.events < FEW_MISSES && before.total >= LEARNT_REQUESTS {
            let limit = allowed_share(self.margin, &misses, before);
            let terms = LimitTerms { limit, noise: before.limit_noise, usual: None };
            self.versus_share.step(misses.canary_events, misses.canary_total, &terms);
        } else if let Some(margin) = allowed_multiple(self.margin, before) {
            let usual = Some(1.0 - before.events / before.total);
            let terms = Terms { margin, noise: before.noise, usual };
            self.versus_baseline.step(&misses, &terms);
        }
        let baseline = self.versus_baseline.log_value() + self.versus_share.log_value();
        baseline.min(best)
    }

    /// Takes one look at rates; returns ln of the e-value.
    pub fn step_rate(&mut self, counts: &Counts, before: &Before) -> f64 {
        let usual = (before.total > 0.0).then(|| before.events / before.total);
        let terms = Terms { margin: 1.0 / self.margin, noise: before.noise, usual };
        self.versus_baseline.step(&counts.turned(), &terms)
    }
}

/// How many times the baseline's share of misses the canary's may be; none before enough was seen.
pub fn allowed_multiple(margin: f64, before: &Before) -> Option<f64> {
    if before.total < LEARNT_REQUESTS {
        return None;
    }
    let misses = (before.total - before.events).max(1.0);
    let share = misses / before.total / (1.0 + 1.0 / misses.sqrt());
    Some((1.0 - margin * (1.0 - share)) / share)
}

/// How large the canary's share of misses may be beside a baseline that hardly misses.
fn allowed_share(margin: f64, misses: &Counts, before: &Before) -> f64 {
    let one_up = |misses: f64, total: f64| (misses + misses.sqrt()) / total;
    let past = one_up(before.total - before.events + 1.0, before.total);
    let present = match misses.baseline_total > 0.0 {
        true => one_up(misses.baseline_events, misses.baseline_total),
        false => 1.0,
    };
    1.0 - margin * (1.0 - past.max(present).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_multiple_is_as_written() {
        let before = |events, total| Before { events, total, noise: 1.0, limit_noise: 1.0 };
        // 15 % misses of a million: 1 - 0.9 * 0.85 = 23.5 % are allowed, 1.567 times as many.
        let multiple = allowed_multiple(0.9, &before(850_000.0, 1_000_000.0)).expect("enough");
        assert!((1.5667..1.5700).contains(&multiple), "{multiple}");
        assert_eq!(allowed_multiple(0.9, &before(350.0, 399.0)), None);
        assert!(allowed_multiple(0.9, &before(1e9, 1e9)).expect("enough").is_finite());
        assert_eq!(allowed_multiple(1.0, &before(500.0, 1000.0)), Some(1.0));
    }

    fn random() -> impl FnMut() -> f64 {
        let mut state = 88_172_645_463_325_252u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// Runs of 300 looks of a hundred requests an arm; how many reach 1/alpha.
    fn reaching(runs: u32, canary: f64, baseline: f64, margin: f64, alpha: f64) -> u32 {
        let mut random = random();
        let mut hits = |share: f64| (0..100).filter(|_| random() < share).count() as f64;
        let mut reached = 0;
        for _ in 0..runs {
            let mut evidence = BelowEvidence::new(margin, 300);
            let (mut events, mut total) = (0.0, 0.0);
            let mut top = f64::NEG_INFINITY;
            for _ in 0..300 {
                let counts = Counts {
                    canary_events: hits(canary),
                    canary_total: 100.0,
                    baseline_events: hits(baseline),
                    baseline_total: 100.0,
                };
                let before = Before { events, total, noise: 1.0, limit_noise: 1.0 };
                top = top.max(evidence.step_share(&counts, &before));
                events += counts.baseline_events;
                total += 100.0;
            }
            reached += u32::from(top >= -f64::ln(alpha));
        }
        reached
    }

    #[test]
    fn alike_and_at_the_margin_is_not_below_and_clearly_below_is() {
        for (canary, baseline) in [(0.85, 0.85), (0.765, 0.85), (0.9, 1.0), (0.91, 1.0)] {
            let reached = reaching(40, canary, baseline, 0.9, 0.01);
            assert!(reached <= 3, "{canary} of {baseline}: {reached} of 40");
        }
        for (canary, baseline) in [(0.6, 0.85), (0.8, 1.0), (0.8, 0.999)] {
            assert_eq!(reaching(40, canary, baseline, 0.9, 0.001), 40, "{canary} of {baseline}");
        }
    }

    /// Both arms hit always, and from one look on hit half as often: nothing of it is the canary's.
    #[test]
    fn what_befalls_both_arms_is_not_held_against_one() {
        let mut random = random();
        let mut hits = |share: f64| (0..100).filter(|_| random() < share).count() as f64;
        let mut evidence = BelowEvidence::new(0.9, 300);
        let (mut events, mut total) = (0.0, 0.0);
        for look in 0..300 {
            let share = if look < 50 { 1.0 } else { 0.5 };
            let counts = Counts {
                canary_events: hits(share),
                canary_total: 100.0,
                baseline_events: hits(share),
                baseline_total: 100.0,
            };
            let before = Before { events, total, noise: 1.0, limit_noise: 1.0 };
            let value = evidence.step_share(&counts, &before);
            assert!(value < f64::ln(100.0), "look {look}: {value}");
            events += counts.baseline_events;
            total += 100.0;
        }
    }
}
