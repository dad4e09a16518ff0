//! Wealth staked on alternatives: one e-process over many ways to be worse and any onset.
//!
//! An e-process is the wealth of a gambler who bets against the null hypothesis at fair odds: if a
//! healthy release can be told from the null's, it grows; while the null holds it reaches 1/alpha
//! with a probability of at most alpha, whenever one looks (Ville's inequality). What is staked at
//! a look may be any function of the looks before it. Here it is the chance that each alternative
//! is true by then, as a Bayesian sees it who knows when faults begin:
//!
//! - In the healthy state nothing is staked, so a release that turns bad in its tenth minute has
//!   lost nothing in nine. A fault begins with hazard `HAZARD / (age + HAZARD_SECS)`: early rather
//!   than late, on no scale of its own; and with [`START`] it is there from the first look.
//! - The chances are weighed by likelihoods against *equal arms*, without the noise factor: the
//!   suspicion grows faster than the evidence against the margin, and costs nothing when wrong but
//!   the stakes of a look or two.
//! - The wealth is multiplied by `healthy + sum of chance_i exp(l_i)`, with `l_i` the log
//!   likelihood ratio of the alternative against the null, divided by the noise factor.
//!
//! It is the idea of [`super::wager`] for alternatives of which each has odds of its own. An onset
//! costs the seconds that suspicion takes, where a mixture over onsets pays for every look at which
//! the fault might have begun.
//!
//! Sources: Shafer 2021 and Waudby-Smith and Ramdas 2023 (testing by betting, predictable bets);
//! Herbster and Warmuth 1998 (tracking the best of several experts); Shiryaev 1963 (the chance that
//! a change has happened); Shin, Ramdas and Rinaldo 2024 (e-detectors).

/// Chance that the release was bad from the first look.
const START: f64 = 0.1;

/// Faults expected per e-fold of the release's age.
const HAZARD: f64 = 0.25;

/// Age below which the hazard stays even, in seconds.
const HAZARD_SECS: f64 = 30.0;

/// How long a fault lasts that heals by itself, in seconds. It keeps the healthy state from being
/// ruled out for ever by one burst.
const HEALING_SECS: f64 = 100.0;

/// Log likelihood ratios of one alternative at one look.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Odds {
    /// Against the null, divided by the noise factor: what the stake pays.
    pub null: f64,
    /// Against equal arms: what suspicion goes by.
    pub equal: f64,
}

/// The wealth, and what is thought of each alternative.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Stakes {
    log_wealth: f64,
    /// Chance of each alternative; what is missing from 1 is the healthy state's.
    chances: Vec<f64>,
    age_secs: f64,
    started: bool,
}

impl Stakes {
    /// ln of the wealth: ln of the e-value.
    pub fn log_value(&self) -> f64 {
        self.log_wealth
    }

    /// The chance of an alternative, before the next look.
    pub fn chance(&self, alternative: usize) -> f64 {
        self.chances.get(alternative).copied().unwrap_or(0.0)
    }

    /// Takes in further alternatives, which nobody has suspected so far.
    pub fn join(&mut self, alternatives: usize) {
        self.chances.resize(self.chances.len() + alternatives, 0.0);
    }

    /// Takes one look of `secs` seconds: one entry per alternative, zeros where it says nothing.
    pub fn step(&mut self, odds: &[Odds], secs: f64) {
        debug_assert_eq!(odds.len(), self.chances.len());
        if odds.is_empty() {
            return;
        }
        self.age(secs);
        let healthy = (1.0 - self.chances.iter().sum::<f64>()).max(0.0);
        let both = || self.chances.iter().zip(odds);
        self.log_wealth += log_mix(healthy, both().map(|(chance, odds)| (*chance, odds.null)));
        let top = odds.iter().map(|odds| odds.equal).fold(0.0, f64::max);
        let mut sum = healthy * (-top).exp();
        for (chance, odds) in self.chances.iter_mut().zip(odds) {
            *chance *= (odds.equal - top).exp();
            sum += *chance;
        }
        // The sum is above zero: after `age` no state's chance is, and one of them has the top.
        self.chances.iter_mut().for_each(|chance| *chance /= sum);
    }

    /// Time passes: faults begin, and faults heal.
    fn age(&mut self, secs: f64) {
        let begin = match self.started {
            true => (HAZARD * secs / (self.age_secs + HAZARD_SECS)).min(0.5),
            false => START,
        };
        self.started = true;
        self.age_secs += secs;
        let heal = (secs / HEALING_SECS).min(0.5);
        let bad: f64 = self.chances.iter().sum();
        let begun = (1.0 - bad).max(0.0) * begin / self.chances.len() as f64;
        for chance in &mut self.chances {
            *chance = (*chance * (1.0 - heal) + begun).max(f64::MIN_POSITIVE);
        }
    }
}

/// `ln(rest + sum of weight * exp(exponent))`.
fn log_mix(rest: f64, parts: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let top = parts.clone().map(|(_, exponent)| exponent).fold(0.0, f64::max);
    let sum: f64 = parts.map(|(weight, exponent)| weight * (exponent - top).exp()).sum();
    top + (rest * (-top).exp() + sum).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand. One alternative, looks of 1 s. At the first look the chance is 0.1 and the look
    /// pays 3 to 1: wealth 0.9 + 0.1 * 3 = 1.2. Against equal arms it is 5 to 1, so the chance is
    /// then 0.5 / (0.9 + 0.5). At the second, 1 % of it heals and 0.25 / 31 of the rest begins.
    #[test]
    fn two_looks_by_hand() {
        let mut stakes = Stakes::default();
        stakes.join(1);
        stakes.step(&[Odds { null: 3f64.ln(), equal: 5f64.ln() }], 1.0);
        assert!((stakes.log_value() - 1.2f64.ln()).abs() < 1e-12);
        let chance = 0.5 / 1.4;
        assert!((stakes.chance(0) - chance).abs() < 1e-12);
        stakes.step(&[Odds { null: 2f64.ln(), equal: 0.0 }], 1.0);
        let staked = chance * 0.99 + (1.0 - chance) * 0.25 / 31.0;
        let wealth = 1.2 * (1.0 - staked + staked * 2.0);
        assert!((stakes.log_value() - wealth.ln()).abs() < 1e-12);
    }

    #[test]
    fn without_alternatives_or_odds_nothing_is_won_or_lost() {
        let mut stakes = Stakes::default();
        stakes.step(&[], 1.0);
        stakes.join(3);
        for _ in 0..10_000 {
            stakes.step(&[Odds::default(); 3], 1.0);
        }
        assert!(stakes.log_value().abs() < 1e-9);
    }

    #[test]
    fn extreme_odds_stay_finite_and_are_recovered_from() {
        let mut stakes = Stakes::default();
        stakes.join(2);
        let sure = [Odds { null: 5e4, equal: 1e5 }, Odds { null: -5e4, equal: -1e5 }];
        stakes.step(&sure, 1.0);
        let won = stakes.log_value();
        assert!(won > 4e4 && stakes.chance(0) > 0.999);
        // The opposite: what was staked is lost, never more, and suspicion goes over.
        stakes.step(&sure.map(|odds| Odds { null: -odds.null, equal: -odds.equal }), 1.0);
        assert!(stakes.log_value().is_finite());
        assert!(stakes.chance(0) < 0.001 && stakes.chance(1) > 0.999);
    }
}
