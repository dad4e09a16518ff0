//! Counts of two arms, what they say for each effect, and the plain mixture over effects and onsets.
//!
//! A mixture of likelihood ratios over a grid of effects, and over the look at which a regression may
//! have begun, is the simplest process whose chance of *ever* reaching 1/alpha under the null is at
//! most alpha (Ville's inequality), however often one looks. [`super::wager`] does better where two
//! arms are compared; the mixture serves where nothing but a list of ratios is known.
//!
//! Sources: Wald 1947 (likelihood ratios); Robbins 1970 (mixtures); Howard, Ramdas, McAuliffe,
//! Sekhon 2021 (time-uniform bounds); Lindon and Malek 2022 (Poisson counts, anytime-valid);
//! Shin, Ramdas, Rinaldo 2024 (unknown onset).
//!
//! Everything is a function of the counts given; there is no window and nothing to expire. Time
//! enters only through the horizon, in looks.

use super::observation::{Pair, Reading, Value};

/// Alternatives, as multiples of the null rate: from barely beyond the limit to an outage.
pub const EFFECTS: [f64; 9] = [1.3, 1.6, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0];

/// Prior mass on "the regression was there from the first look"; the rest is spread over the
/// horizon, since a regression may begin when a cache fills or a traffic step comes.
const START_MASS: f64 = 0.5;

/// A single step of more nats than this goes into the scale, far from the 709 at which `exp`
/// overflows.
const RESCALE_NATS: f64 = 200.0;

/// Masses outside this range are rescaled; one more step cannot leave the range of a double.
const MASS_RANGE: std::ops::RangeInclusive<f64> = 1e-150..=1e150;

/// One log likelihood ratio per effect, already divided by the noise factor.
pub type Ratios = [f64; EFFECTS.len()];

/// A mixture over effects and onsets. A step is O(number of effects); state never grows.
///
/// The mass of an effect is kept linear, times `exp` of a scale of its own that is 0 until the mass
/// leaves the range of a double. So a step needs one `exp` per effect where the reference, which
/// keeps logarithms, needs three transcendental calls; and nothing is lost at the extremes.
#[derive(Clone, Debug, PartialEq)]
pub struct OnsetMixture {
    masses: Ratios,
    scales: Ratios,
    unspent: f64,
    per_look: f64,
    log_value: f64,
}

impl OnsetMixture {
    /// A mixture whose onsets are spread over `horizon` looks (at least one).
    pub fn new(horizon: u32) -> Self {
        Self {
            masses: [START_MASS; EFFECTS.len()],
            scales: [0.0; EFFECTS.len()],
            unspent: 1.0 - START_MASS,
            per_look: (1.0 - START_MASS) / f64::from(horizon.max(1)),
            log_value: 0.0,
        }
    }

    /// ln of the e-value now; 0 before the first step.
    pub fn log_value(&self) -> f64 {
        self.log_value
    }

    /// Takes one look's log likelihood ratios and returns ln of the e-value.
    pub fn step(&mut self, ratios: &Ratios) -> f64 {
        let spend = self.per_look.min(self.unspent);
        self.unspent -= spend;
        let (mut sum, mut all_linear) = (0.0, true);
        for ((mass, scale), ratio) in self.masses.iter_mut().zip(&mut self.scales).zip(ratios) {
            if *scale != 0.0 && spend > 0.0 {
                // The start comes at scale 0; a mass that has grown past it keeps its own.
                if *scale < 0.0 {
                    *mass *= scale.exp();
                    *scale = 0.0;
                    *mass += spend;
                } else {
                    *mass += spend * (-*scale).exp();
                }
            } else {
                *mass += spend;
            }
            if ratio.abs() > RESCALE_NATS {
                *scale += ratio;
            } else {
                *mass *= ratio.exp();
            }
            if !MASS_RANGE.contains(mass) && *mass > 0.0 {
                *scale += mass.ln();
                *mass = 1.0;
            }
            all_linear &= *scale == 0.0;
            sum += *mass;
        }
        let log_sum = if all_linear { sum.ln() } else { self.log_sum() };
        self.log_value = log_add(log_sum - (EFFECTS.len() as f64).ln(), self.unspent.ln());
        self.log_value
    }

    /// By the largest scale, with one `exp` per effect. What underflows is at most e^(345-745) beside
    /// at least e^-345, since masses stay within [`MASS_RANGE`]: beyond the digits of the sum.
    fn log_sum(&self) -> f64 {
        let top = self.scales.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let masses = self.masses.iter().zip(&self.scales);
        top + masses.map(|(mass, scale)| mass * (scale - top).exp()).sum::<f64>().ln()
    }
}

/// ln(e^a + e^b); either may be minus infinity.
fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// Counts of one look.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Counts {
    /// Events of the canary.
    pub canary_events: f64,
    /// Requests (or seconds) of the canary.
    pub canary_total: f64,
    /// Events of the baseline.
    pub baseline_events: f64,
    /// Requests (or seconds) of the baseline.
    pub baseline_total: f64,
}

impl Counts {
    /// Of a look at which both arms were counted.
    pub fn of(pair: &Pair) -> Option<Self> {
        let (canary_events, canary_total) = arm_counts(&pair.canary)?;
        let (baseline_events, baseline_total) = arm_counts(&pair.baseline)?;
        Some(Self { canary_events, canary_total, baseline_events, baseline_total })
    }

    /// Events of both arms.
    pub fn events(&self) -> f64 {
        self.canary_events + self.baseline_events
    }

    /// The sum of two looks.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            canary_events: self.canary_events + other.canary_events,
            canary_total: self.canary_total + other.canary_total,
            baseline_events: self.baseline_events + other.baseline_events,
            baseline_total: self.baseline_total + other.baseline_total,
        }
    }
}

fn arm_counts(reading: &Reading) -> Option<(f64, f64)> {
    match reading {
        Ok(Value::Share { events, total }) => Some((*events, *total)),
        Ok(Value::Events { events, instance_secs, .. }) => Some((*events, *instance_secs)),
        Ok(Value::Histogram(_) | Value::Level(_) | Value::Health { .. } | Value::Restarts(_))
        | Err(_) => None,
    }
}

/// Log likelihood ratios of one look against the null "canary rate <= margin * baseline rate", in
/// the conditional form: given all events, each falls to the canary with a probability that the
/// rate ratio and the exposures determine. A look in which an arm had no exposure says nothing.
pub fn baseline_ratios(counts: &Counts, margin: f64, noise: f64) -> Ratios {
    let Counts { canary_events, canary_total, baseline_events, baseline_total } = *counts;
    if canary_total <= 0.0 || baseline_total <= 0.0 {
        return [0.0; EFFECTS.len()];
    }
    // ln(theta(rho)/theta(m)) = ln(effect) + d and ln((1-theta(rho))/(1-theta(m))) = d with
    // d = ln((m n_c + n_b) / (rho n_c + n_b)): one logarithm per effect instead of two.
    let null = margin * canary_total + baseline_total;
    let events = canary_events + baseline_events;
    let mut ratios = [0.0; EFFECTS.len()];
    for ((ratio, effect), ln_effect) in ratios.iter_mut().zip(EFFECTS).zip(LN_EFFECTS) {
        let alternative = margin * effect * canary_total + baseline_total;
        *ratio = (canary_events * ln_effect + events * (null / alternative).ln()) / noise;
    }
    ratios
}

/// Log likelihood ratios of one look against the null "canary rate <= limit", events per exposure.
pub fn limit_ratios(events: f64, total: f64, limit: f64, noise: f64) -> Ratios {
    if total <= 0.0 {
        return [0.0; EFFECTS.len()];
    }
    let mut ratios = [0.0; EFFECTS.len()];
    for ((ratio, effect), ln_effect) in ratios.iter_mut().zip(EFFECTS).zip(LN_EFFECTS) {
        *ratio = (events * ln_effect - total * limit * (effect - 1.0)) / noise;
    }
    ratios
}

/// ln of each of [`EFFECTS`]; a test compares them.
#[allow(clippy::approx_constant, reason = "ln 2 and ln 10 stand among their kind")]
pub const LN_EFFECTS: Ratios = [
    0.262_364_264_467_491_06,
    0.470_003_629_245_735_6,
    0.693_147_180_559_945_3,
    1.098_612_288_668_109_8,
    1.386_294_361_119_890_6,
    1.791_759_469_228_055,
    2.302_585_092_994_046,
    2.995_732_273_553_991,
    3.912_023_005_428_146,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_effects() {
        for (effect, ln_effect) in EFFECTS.iter().zip(LN_EFFECTS) {
            assert!((effect.ln() - ln_effect).abs() < 1e-15, "ln {effect}");
        }
    }

    /// The reference, as slow and obvious as `statistics.md` writes it: nine logarithms.
    struct SlowMixture {
        log_started: Vec<f64>,
        unspent: f64,
        per_look: f64,
    }

    impl SlowMixture {
        fn new(horizon: u32) -> Self {
            let log_started = vec![0.5f64.ln(); EFFECTS.len()];
            Self { log_started, unspent: 0.5, per_look: 0.5 / f64::from(horizon) }
        }

        fn step(&mut self, ratios: &Ratios) -> f64 {
            let spend = self.per_look.min(self.unspent);
            self.unspent -= spend;
            let mut log_mix = f64::NEG_INFINITY;
            for (started, ratio) in self.log_started.iter_mut().zip(ratios) {
                *started = log_add(*started, spend.ln()) + ratio;
                log_mix = log_add(log_mix, *started);
            }
            log_add(log_mix - (EFFECTS.len() as f64).ln(), self.unspent.ln())
        }
    }

    #[test]
    fn linear_masses_equal_the_slow_reference_over_extreme_counts() {
        for seed in 0..200u64 {
            let mut state = seed * 2 + 1;
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            let horizon = 1 + (random() * 300.0) as u32;
            let (mut fast, mut slow) = (OnsetMixture::new(horizon), SlowMixture::new(horizon));
            let scale = 10f64.powf(random() * 5.0);
            for look in 0..400 {
                let counts = Counts {
                    canary_total: (random() * scale).floor(),
                    canary_events: (random() * random() * scale).floor(),
                    baseline_total: (random() * scale).floor(),
                    baseline_events: (random() * random() * scale).floor(),
                };
                let ratios = baseline_ratios(&counts, 1.5, 1.0 + random());
                let (a, b) = (fast.step(&ratios), slow.step(&ratios));
                let close = (a - b).abs() <= 1e-9 * (1.0 + b.abs());
                assert!(close, "seed {seed} look {look}: {a} against the reference's {b}");
            }
        }
    }
}
