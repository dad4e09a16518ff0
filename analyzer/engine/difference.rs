//! Evidence that one event rate exceeds another by more than an amount, whatever the other is.
//!
//! The null of `X > baseline + d` is that of two arms, the *greater* one's rate is at most the
//! *lesser* one's plus `d`. A bet with the stake `u` pays, for `x` events in `n` of each arm,
//!
//! ```text
//! (1 + u / n_g)^x_g  (1 - u / n_l)^x_l  exp(-u d),        0 <= u < n_l.
//! ```
//!
//! Of Poisson counts with the rates `r_g` and `r_l` the first factor's expectation is `exp(u r_g)`,
//! the second's `exp(-u r_l)`; so the bet's is `exp(u (r_g - r_l - d))`, at most 1 wherever the null
//! holds. The lesser arm's rate, which nobody knows, drops out: there is nothing to estimate and no
//! worst case to search for. Of Bernoulli requests both expectations are smaller still, since
//! `(1 + r s)^n <= exp(n r s)`. Bets of a look are wealth as in [`super::wager`], which also chooses
//! between effects; so the chance that it ever reaches `1 / alpha` is at most alpha.
//!
//! Which stake is best when the rates are really `q_g` and `q_l`: the one at which the expected
//! logarithm `n_g q_g ln(1 + u / n_g) + n_l q_l ln(1 - u / n_l) - u d` has its maximum, the root of a
//! quadratic. It is the likelihood ratio of `(q_g, q_l)` against the pair `(b + d, b)` that is
//! nearest to it, so that no other bet grows faster against every pair of the null. With `d = 0` it
//! is the bet of [`super::wager`] on the ratio.
//!
//! Sources: Turner, Ly and Grünwald 2024 (two-sample tests that are safe under optional stopping:
//! the nearest pair for two Bernoulli streams); Grünwald, de Heide and Koolen 2024 (safe testing);
//! Waudby-Smith and Ramdas 2023 (predictable stakes).

use super::{
    evidence::{Counts, EFFECTS},
    wager::{Beyond, LimitTerms, LimitWager, RatioWager, Terms, bounded_exp},
};

/// The arm of which the rule says that it has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greater {
    /// The new version: more errors than the baseline, plus the amount.
    Canary,
    /// The old one: the new version falls short of it by more than the amount.
    Baseline,
}

/// Rates of both arms, as events per request (or second).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of the arm that has more.
    pub greater: f64,
    /// Of the other one.
    pub lesser: f64,
}

/// The best stake at such exposures when these are the rates: from 0, which is no bet, to below the
/// lesser arm's exposure.
pub fn stake(greater_total: f64, lesser_total: f64, rates: Rates, amount: f64) -> f64 {
    let Rates { greater, lesser } = rates;
    // amount u^2 - b u + c = 0; at 0 it is c, and below zero where u is the lesser arm's exposure.
    let c = greater_total * lesser_total * (greater - lesser - amount);
    let b =
        greater_total * greater + lesser_total * lesser + amount * (lesser_total - greater_total);
    let root = (b * b - 4.0 * amount * c).max(0.0).sqrt();
    let found = 2.0 * c / (b + root);
    if found > 0.0 { found.min(lesser_total * (1.0 - f64::EPSILON)) } else { 0.0 }
}

/// ln of what a stake pays, of the greater arm's events and exposure first.
fn log_pay(stake: f64, greater: (f64, f64), lesser: (f64, f64), amount: f64) -> f64 {
    greater.0 * (stake / greater.1).ln_1p() + lesser.0 * (-stake / lesser.1).ln_1p()
        - stake * amount
}

/// ln of what the best stake for these rates pays on such counts; 0 without exposure.
pub fn log_likelihood(counts: &Counts, rates: Rates, amount: f64) -> f64 {
    let Counts { canary_events, canary_total, baseline_events, baseline_total } = *counts;
    if canary_total <= 0.0 || baseline_total <= 0.0 {
        return 0.0;
    }
    let stake = stake(canary_total, baseline_total, rates, amount);
    log_pay(stake, (canary_events, canary_total), (baseline_events, baseline_total), amount)
}

/// Nats by which evidence grows on average, at exposures (of the greater arm and of the other) in
/// which so many events are expected; 0 where the null holds.
pub fn growth(greater_total: f64, lesser_total: f64, rates: Rates, amount: f64) -> f64 {
    if greater_total <= 0.0 || lesser_total <= 0.0 {
        return 0.0;
    }
    let stake = stake(greater_total, lesser_total, rates, amount);
    let greater = (greater_total * rates.greater, greater_total);
    log_pay(stake, greater, (lesser_total * rates.lesser, lesser_total), amount)
}

/// Evidence that the greater arm's rate exceeds the other's by more than an amount; and, of a canary
/// that has more, that it also exceeds a floor.
#[derive(Clone, Debug, PartialEq)]
pub struct DifferenceEvidence {
    amount: f64,
    floor: f64,
    versus_baseline: RatioWager,
    versus_floor: LimitWager,
}

/// What one look is judged with; all of it known before the look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DifferenceTerms {
    /// Which arm has more.
    pub greater: Greater,
    /// The noise factor of the difference, at least 1.
    pub noise: f64,
    /// The noise factor against the floor, at least 1.
    pub floor_noise: f64,
    /// The baseline's usual rate of what is counted. It chooses the stakes; none before it is known,
    /// and then nothing is bet.
    pub usual: Option<f64>,
}

impl DifferenceEvidence {
    /// `amount` is at least 0, `floor` a rate (0 for none), `horizon` in looks. An amount from the
    /// floor on needs no look at it.
    pub fn new(amount: f64, floor: f64, horizon: u32) -> Self {
        let floor = if amount < floor { floor } else { 0.0 };
        let versus_baseline = RatioWager::new(horizon);
        let versus_floor = LimitWager::new(Beyond::Above, horizon);
        Self { amount, floor, versus_baseline, versus_floor }
    }

    /// The floor that it has to exceed beside the baseline; 0 for none.
    pub fn floor(&self) -> f64 {
        self.floor
    }

    /// Takes one look; returns ln of the e-value.
    pub fn step(&mut self, counts: &Counts, terms: &DifferenceTerms) -> f64 {
        let DifferenceTerms { greater, noise, floor_noise, usual } = *terms;
        if let Some((bets, margin)) = usual.and_then(|usual| bets(usual, self.amount, greater)) {
            let (counts, usual) = match greater {
                Greater::Canary => (*counts, usual),
                // The usual rate is that of the arm which is the greater here.
                Greater::Baseline => (counts.turned(), None),
            };
            let pays =
                bets.map(|rates| bounded_exp(log_likelihood(&counts, rates, self.amount) / noise));
            self.versus_baseline.step_paying(&counts, &Terms { margin, noise, usual }, &pays);
        }
        let baseline = self.versus_baseline.log_value();
        if self.floor <= 0.0 || greater == Greater::Baseline {
            return baseline;
        }
        let terms = LimitTerms { limit: self.floor, noise: floor_noise, usual };
        let floor = self.versus_floor.step(counts.canary_events, counts.canary_total, &terms);
        baseline.min(floor)
    }
}

/// The rates that are bet on, effects from the bound on, and the ratio of rates at the bound; none
/// where the other arm cannot fall short by the amount.
fn bets(usual: f64, amount: f64, greater: Greater) -> Option<([Rates; EFFECTS.len()], f64)> {
    match greater {
        Greater::Canary => {
            let bound = usual + amount;
            let bets = EFFECTS.map(|effect| Rates { greater: effect * bound, lesser: usual });
            (usual > 0.0).then_some((bets, bound / usual))
        }
        Greater::Baseline => {
            let bound = usual - amount;
            let bets = EFFECTS.map(|effect| Rates { greater: usual, lesser: bound / effect });
            (bound > 0.0).then_some((bets, usual / bound))
        }
    }
}
