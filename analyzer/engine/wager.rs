//! Evidence on event rates as the wealth of a gambler who bets against the null hypothesis.
//!
//! The null of `X > m x baseline` is that the canary's event rate is at most `m` times the
//! baseline's. At each look a gambler with wealth `W`, 1 at the start, divides it by a rule that
//! knows only the looks before this one: a part stays in cash, the rest is bet on alternatives.
//! A bet on the rate ratio `rho = m k` pays its likelihood ratio,
//!
//! ```text
//! W <- W (cash + sum over k of bet_k exp(l_k / phi)),
//! l_k = x_c ln(theta(rho) / theta(m)) + x_b ln((1 - theta(rho)) / (1 - theta(m))),
//! theta(r) = r n_c / (r n_c + n_b),
//! ```
//!
//! with `x_c` of `n_c` requests of the canary and `x_b` of `n_b` of the baseline being events. Given
//! all events of a look, each is the canary's with probability `theta`; so under the null a bet
//! pays at most 1 in expectation, whatever the traffic does and however the bets were chosen, and
//! the chance that `W` *ever* reaches 1/alpha is at most alpha (Ville's inequality). Wealth is the
//! e-value. `phi`, at least 1, is the noise factor of [`super::noise`].
//!
//! Since the choice of bets cannot hurt validity, it may use everything that was seen. It is a
//! forecast: the posterior of "healthy", whose share stays in cash, and of each effect, where
//! "healthy" means a ratio of 1 and not of `m`. Two things make it quicker than a mixture over
//! effects and onsets, which is the special case that calls `m` healthy:
//!
//! - a ratio of 1 is told from an effect sooner than `m` is;
//! - in [`Pace::Known`] the baseline's usual event rate is known from its past, so that the canary
//!   alone tells the forecaster, within a look or two, what the ratio takes many looks to prove.
//!   In [`Pace::Drifting`] the rate may be anything, and only the split of events between the arms
//!   counts: a burst that both arms share moves the forecast there, and the money stays in cash.
//!
//! A tenth of the wealth is bet by a second forecaster who knows no pace at all, so that a usual rate
//! that is wrong, or a burst that begins at once, costs no more than that much.
//!
//! Between looks the forecasts leak by fixed shares: from healthy into the effects, since a
//! regression may begin when a cache fills; a little back; and between the paces. The loss while
//! nothing happens is at most the leak, and nothing that happened long ago is needed.
//!
//! Sources: Ville 1939; Kelly 1956 and Shafer 2021 (testing by betting); Waudby-Smith and Ramdas
//! 2023 (predictable bets); Ramdas, Grünwald, Vovk and Shafer 2023 (e-processes); Shiryaev 1963
//! (posterior of a change); Herbster and Warmuth 1998 (fixed share); Shin, Ramdas and Rinaldo 2024
//! (e-detectors); Lindon and Malek 2022 (the conditional form for Poisson counts).
//!
//! Everything is a function of the counts given. State is two rows of numbers and never grows.

use super::evidence::{Counts, EFFECTS, LN_EFFECTS};

/// Prior share of the wealth that is bet at the first look: releases are often bad from the start.
const START_SHARE: f64 = 0.5;

/// Share of the wealth that is kept for a gambler who never trusts a pace: should the usual rate be
/// wrong, this much is not lost by it.
const CAUTIOUS_SHARE: f64 = 0.1;

/// Prior share of the forecast under [`Pace::Drifting`].
const DRIFT_SHARE: f64 = 0.1;

/// Share that leaks between the paces at each look.
const PACE_LEAK: f64 = 0.01;

/// Share that leaks from each effect back to healthy at each look.
const RECOVERY_LEAK: f64 = 1e-4;

/// What a drifting pace pays at each look for following the rate, in nats.
const DRIFT_COST: f64 = 0.1;

/// What a drifting pace remembers from one look to the next: about five looks.
const DRIFT_MEMORY: f64 = 0.8;

/// One look counts for no more than this: of three such factors, one of which is a loss, the product
/// stays below the 709 nats at which `exp` overflows.
const LOOK_NATS_MAX: f64 = 200.0;

/// Healthy rates below this share of a limit are taken to be this share of it; those above a limit
/// that must not be fallen short of, no more than its inverse.
const HEALTHY_SHARE_MIN: f64 = 0.01;

/// Share of the limit that is called healthy where nothing is known; its inverse where falling
/// short of the limit is looked for.
const HEALTHY_SHARE_UNKNOWN: f64 = 0.5;

/// What the forecaster takes the baseline's event rate to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It is as it was.
    Known,
    /// It is whatever it was in the last few looks.
    Drifting,
}

/// Shares of a forecast: `healthy` is what stays in cash.
#[derive(Clone, Debug, PartialEq)]
struct Forecast {
    healthy: f64,
    effects: [f64; EFFECTS.len()],
}

impl Forecast {
    fn new(share: f64) -> Self {
        let each = share * START_SHARE / EFFECTS.len() as f64;
        Self { healthy: share * (1.0 - START_SHARE), effects: [each; EFFECTS.len()] }
    }

    fn sum(&self) -> f64 {
        self.healthy + self.effects.iter().sum::<f64>()
    }

    /// What a bet by this forecast pays.
    fn pays(&self, payoffs: &[f64; EFFECTS.len()]) -> f64 {
        let bets = self.effects.iter().zip(payoffs).map(|(share, payoff)| share * payoff);
        self.healthy + bets.sum::<f64>()
    }

    /// Weighs shares by the likelihoods of what was seen.
    fn weigh(&mut self, healthy: f64, effects: impl Iterator<Item = f64>) {
        self.healthy *= healthy;
        self.effects.iter_mut().zip(effects).for_each(|(share, likelihood)| *share *= likelihood);
    }

    /// Divides by `sum` and lets shares leak: `hazard` into the effects, a little back.
    fn leak(&mut self, sum: f64, hazard: f64) {
        let (into_each, kept) = (self.healthy * hazard / EFFECTS.len() as f64, 1.0 - RECOVERY_LEAK);
        let back = RECOVERY_LEAK * self.effects.iter().sum::<f64>();
        self.healthy = (self.healthy * (1.0 - hazard) + back) / sum;
        for share in &mut self.effects {
            *share = (*share * kept + into_each) / sum;
        }
    }
}

/// Leak into the effects at each look, for a regression that may begin at any of `horizon` looks.
fn hazard(horizon: u32) -> f64 {
    1.0 / f64::from(horizon.max(2))
}

/// ln(e^a + e^b).
fn log_add(a: f64, b: f64) -> f64 {
    a.max(b) + (-(a - b).abs()).exp().ln_1p()
}

/// `exp` of what one look says, which counts for no more than so much.
pub(super) fn bounded_exp(nats: f64) -> f64 {
    nats.clamp(-LOOK_NATS_MAX, LOOK_NATS_MAX).exp()
}

/// Evidence that the ratio of two event rates is beyond a margin.
#[derive(Clone, Debug, PartialEq)]
pub struct RatioWager {
    known: Forecast,
    drifting: Forecast,
    /// ln of the wealth that these two bet, of 1 at the start.
    log_paced: f64,
    cautious: Forecast,
    /// The same for the cautious gambler.
    log_cautious: f64,
    hazard: f64,
    log_wealth: f64,
    recent_events: f64,
    recent_total: f64,
}

/// What one look of a comparison is judged with; all of it known before the look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// The allowed ratio of rates, at least 1.
    pub margin: f64,
    /// The noise factor, at least 1.
    pub noise: f64,
    /// The baseline's usual events per request (or second), when it is known; it makes detection
    /// quicker and has no part in validity.
    pub usual: Option<f64>,
}

impl RatioWager {
    /// A process that has seen nothing. `horizon` is the number of looks over which a regression is
    /// expected to begin if it does: one may begin at any time.
    pub fn new(horizon: u32) -> Self {
        Self {
            known: Forecast::new(1.0 - DRIFT_SHARE),
            drifting: Forecast::new(DRIFT_SHARE),
            log_paced: 0.0,
            cautious: Forecast::new(1.0),
            log_cautious: 0.0,
            hazard: hazard(horizon),
            log_wealth: 0.0,
            recent_events: 0.0,
            recent_total: 0.0,
        }
    }

    /// ln of the e-value now; 0 before the first look.
    pub fn log_value(&self) -> f64 {
        self.log_wealth
    }

    /// Takes one look and returns ln of the e-value. A look in which an arm had no exposure, or in
    /// which a count is not a number, says nothing.
    pub fn step(&mut self, counts: &Counts, terms: &Terms) -> f64 {
        self.look(counts, terms, None)
    }

    /// The same where a bet on each effect pays otherwise than by the likelihood of the ratio: what is
    /// bet stays a forecast of the ratio, and validity is that of the payoffs.
    pub fn step_paying(
        &mut self,
        counts: &Counts,
        terms: &Terms,
        pays: &[f64; EFFECTS.len()],
    ) -> f64 {
        self.look(counts, terms, Some(pays))
    }

    fn look(&mut self, counts: &Counts, terms: &Terms, pays: Option<&[f64; EFFECTS.len()]>) -> f64 {
        let Counts { canary_events, canary_total, baseline_events, baseline_total } = *counts;
        let known = [canary_events, canary_total, baseline_events, baseline_total];
        if !known.into_iter().all(is_count) || canary_total <= 0.0 || baseline_total <= 0.0 {
            return self.log_wealth;
        }
        let Terms { margin, noise, usual } = *terms;
        let events = canary_events + baseline_events;
        let total = canary_total + baseline_total;
        // ln(theta(rho)/theta(m)) = ln(effect) + d and ln((1-theta(rho))/(1-theta(m))) = d with
        // d = ln((m n_c + n_b) / (rho n_c + n_b)): one logarithm per effect instead of two.
        let null = margin * canary_total + baseline_total;
        let mut payoffs = [0.0; EFFECTS.len()];
        for ((payoff, effect), ln_effect) in payoffs.iter_mut().zip(EFFECTS).zip(LN_EFFECTS) {
            let alternative = margin * effect * canary_total + baseline_total;
            let nats = canary_events * ln_effect + events * (null / alternative).ln();
            *payoff = bounded_exp(nats / noise);
        }
        let pays = pays.unwrap_or(&payoffs);
        self.log_paced += (self.known.pays(pays) + self.drifting.pays(pays)).ln();
        self.log_cautious += self.cautious.pays(pays).ln();
        self.log_wealth = log_add(
            (1.0 - CAUTIOUS_SHARE).ln() + self.log_paced,
            CAUTIOUS_SHARE.ln() + self.log_cautious,
        );

        // Likelihoods from here on are relative to "healthy, at the usual pace".
        let ln_margin = margin.ln();
        let healthy = (events * (null / total).ln() - canary_events * ln_margin) / noise;
        let split = bounded_exp(-healthy);
        self.cautious.weigh(1.0, payoffs.iter().map(|payoff| payoff * split));
        let mut drifted = 1.0;
        if let Some(usual) = usual.filter(|usual| *usual > 0.0) {
            let expected = usual * canary_total;
            let likelihoods = EFFECTS.iter().zip(LN_EFFECTS).map(|(effect, ln_effect)| {
                let nats =
                    canary_events * (ln_margin + ln_effect) - expected * (margin * effect - 1.0);
                bounded_exp(nats / noise)
            });
            self.known.weigh(1.0, likelihoods);
            if self.recent_total > 0.0 {
                let recent = (self.recent_events + 0.5) / (self.recent_total + 0.5 / usual);
                let nats = events * (recent / usual).ln() - total * (recent - usual);
                drifted = bounded_exp(nats / noise - DRIFT_COST);
            }
        } else {
            self.known.weigh(1.0, payoffs.iter().map(|payoff| payoff * split));
        }
        self.drifting.weigh(drifted, payoffs.iter().map(|payoff| payoff * split * drifted));
        self.leak();
        self.recent_events = self.recent_events * DRIFT_MEMORY + events;
        self.recent_total = self.recent_total * DRIFT_MEMORY + total;
        self.log_wealth
    }

    fn leak(&mut self) {
        let sum = self.known.sum() + self.drifting.sum();
        self.known.leak(sum, self.hazard);
        self.drifting.leak(sum, self.hazard);
        self.cautious.leak(self.cautious.sum(), self.hazard);
        let exchange = |a: &mut f64, b: &mut f64| {
            let moved = PACE_LEAK * (*b - *a);
            *a += moved;
            *b -= moved;
        };
        exchange(&mut self.known.healthy, &mut self.drifting.healthy);
        for (known, drifting) in self.known.effects.iter_mut().zip(&mut self.drifting.effects) {
            exchange(known, drifting);
        }
    }
}

/// On which side of a limit an event rate is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Above it: too many events.
    Above,
    /// Below it: too few.
    Below,
}

/// Evidence that one event rate is beyond a constant: a limit, or the floor of a comparison.
///
/// Bets pay `exp((x ln k - n f (k - 1)) / phi)` for a rate of `k` times the limit `f`: of `k` in
/// [`EFFECTS`] above the limit, of the inverse of each below. A rate on the other side of the limit
/// than `k` makes the exponent `n (r - f) (k - 1)` of the expectation negative, so that no bet pays
/// more than it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitWager {
    beyond: Beyond,
    forecast: Forecast,
    hazard: f64,
    log_wealth: f64,
}

/// What one look at a limit is judged with; all of it known before the look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LimitTerms {
    /// Allowed events per request (or second), above 0.
    pub limit: f64,
    /// The noise factor, at least 1.
    pub noise: f64,
    /// The usual events per request (or second), when known.
    pub usual: Option<f64>,
}

impl LimitWager {
    /// A process that has seen nothing; `horizon` as in [`RatioWager::new`].
    pub fn new(beyond: Beyond, horizon: u32) -> Self {
        Self { beyond, forecast: Forecast::new(1.0), hazard: hazard(horizon), log_wealth: 0.0 }
    }

    /// ln of the e-value now; 0 before the first look.
    pub fn log_value(&self) -> f64 {
        self.log_wealth
    }

    /// Takes one look of `events` in `total`; returns ln of the e-value.
    pub fn step(&mut self, events: f64, total: f64, terms: &LimitTerms) -> f64 {
        if !is_count(events) || !is_count(total) || total <= 0.0 {
            return self.log_wealth;
        }
        let LimitTerms { limit, noise, usual } = *terms;
        let expected = total * limit;
        let mut payoffs = [0.0; EFFECTS.len()];
        for ((payoff, effect), ln_effect) in payoffs.iter_mut().zip(EFFECTS).zip(LN_EFFECTS) {
            let (times, ln_times) = match self.beyond {
                Beyond::Above => (effect, ln_effect),
                Beyond::Below => (effect.recip(), -ln_effect),
            };
            *payoff = bounded_exp((events * ln_times - expected * (times - 1.0)) / noise);
        }
        self.log_wealth += self.forecast.pays(&payoffs).ln();
        let known = usual.map(|usual| usual / limit);
        let share = match self.beyond {
            Beyond::Above => known.unwrap_or(HEALTHY_SHARE_UNKNOWN).clamp(HEALTHY_SHARE_MIN, 1.0),
            Beyond::Below => {
                known.unwrap_or(HEALTHY_SHARE_UNKNOWN.recip()).clamp(1.0, HEALTHY_SHARE_MIN.recip())
            }
        };
        let healthy = bounded_exp((events * share.ln() - expected * (share - 1.0)) / noise);
        self.forecast.weigh(healthy, payoffs.into_iter());
        self.forecast.leak(self.forecast.sum(), self.hazard);
        self.log_wealth
    }
}

fn is_count(number: f64) -> bool {
    number.is_finite() && number >= 0.0
}

/// The noise factors of one look, each at least 1: by how much real variance exceeds Poisson's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Of the comparison with the baseline.
    pub baseline: f64,
    /// Of the comparison with the floor.
    pub floor: f64,
}

/// Evidence that the canary's event rate exceeds `max(margin * baseline rate, floor)`. Both parts
/// must be rejected, so it is the smaller of two e-values (intersection-union).
#[derive(Clone, Debug, PartialEq)]
pub struct ComparisonEvidence {
    margin: f64,
    floor: f64,
    versus_baseline: RatioWager,
    versus_floor: LimitWager,
}

impl ComparisonEvidence {
    /// `margin` is a factor of at least 1, `floor` a rate (0 for none), `horizon` in looks.
    pub fn new(margin: f64, floor: f64, horizon: u32) -> Self {
        let versus_baseline = RatioWager::new(horizon);
        let versus_floor = LimitWager::new(Beyond::Above, horizon);
        Self { margin, floor, versus_baseline, versus_floor }
    }

    /// Takes one look; `usual` as in [`Terms`]. Returns ln of the e-value.
    pub fn step(&mut self, counts: &Counts, noise: Noise, usual: Option<f64>) -> f64 {
        let terms = Terms { margin: self.margin, noise: noise.baseline, usual };
        let baseline = self.versus_baseline.step(counts, &terms);
        if self.floor <= 0.0 {
            return baseline;
        }
        let terms = LimitTerms { limit: self.floor, noise: noise.floor, usual };
        let floor = self.versus_floor.step(counts.canary_events, counts.canary_total, &terms);
        baseline.min(floor)
    }
}
