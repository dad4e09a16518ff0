//! How long it takes to know: the planning formulas of promotion and rollback.
//!
//! Evidence grows by the Kullback-Leibler divergence between what is true and what is to be
//! rejected, a second, divided by the noise factor; a decision falls when it has grown past
//! `ln(1/alpha)` and the price of not knowing beforehand what is true (the grid of alternatives) or
//! when it began (the onset). Medians come out close to these times; one release in four takes half
//! as long again. Source: Wald 1947.
//!
//! Pure functions of traffic: `plan`, the words of a verdict and the check of a rule file share them.

use std::time::Duration;

use super::{
    calibration::SignalCalibration,
    difference::{Greater, Rates, growth},
    evidence::EFFECTS,
    noise::{Expected, comparison_noise, limit_noise},
    rule::{Better, Margin},
};

/// Nats that a proof pays for not knowing how good the canary is: the alternatives that matter are
/// about a third of all, 1.1 nats. Half of the releases get most of that back by luck, since few
/// events waver much: with this much, medians come out as told (measured in `engine_promotion`).
pub const PROOF_GRID_NATS: f64 = 0.4;

/// Nats that a proof pays for being allowed two ways, the margin and the `or`.
pub const TWO_WAYS_NATS: f64 = std::f64::consts::LN_2;

/// Nats that detection pays for not knowing when the regression began: half of the prior mass is
/// on the first look.
const ONSET_NATS: f64 = std::f64::consts::LN_2;

/// A time longer than this is not told: no release waits for it.
const TIME_MAX_SECS: f64 = 14.0 * 24.0 * 3600.0;

/// What is known of a signal's traffic when a release is planned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Requests (or instance seconds) a second of the canary.
    pub canary_per_sec: f64,
    /// The same of the baseline.
    pub baseline_per_sec: f64,
    /// Share of them that are events on the baseline (events a second, for a rate).
    pub event_share: f64,
    /// Noise intensity, in seconds.
    pub kappa_secs: f64,
}

impl Traffic {
    /// Nats a second by which evidence grows that the ratio of the event rates is not `null`, when
    /// it is `truth`; 0 when an arm has no traffic or nothing ever happens.
    pub fn ratio_nats_per_sec(&self, truth: f64, null: f64) -> f64 {
        let Self { canary_per_sec, baseline_per_sec, event_share, kappa_secs } = *self;
        if canary_per_sec <= 0.0 || baseline_per_sec <= 0.0 || event_share <= 0.0 {
            return 0.0;
        }
        let theta =
            |ratio: f64| ratio * canary_per_sec / (ratio * canary_per_sec + baseline_per_sec);
        let events = event_share * (truth * canary_per_sec + baseline_per_sec);
        let divergence = bernoulli_divergence(theta(truth), theta(null));
        let noise = comparison_noise(
            kappa_secs,
            event_share * canary_per_sec,
            event_share * baseline_per_sec,
        );
        events * divergence / noise
    }

    /// Nats a second by which evidence grows that one arm's event rate exceeds the other's by more
    /// than `amount`, when the canary's is `truth`; 0 when it does not, or an arm has no traffic.
    pub fn difference_nats_per_sec(&self, truth: f64, amount: f64, greater: Greater) -> f64 {
        let Self { canary_per_sec, baseline_per_sec, event_share, kappa_secs } = *self;
        let arms = [(truth, canary_per_sec), (event_share, baseline_per_sec)];
        let ([(more, more_per_sec), (less, less_per_sec)], bound) = match greater {
            Greater::Canary => (arms, [event_share + amount, event_share]),
            Greater::Baseline => ([arms[1], arms[0]], [event_share, event_share - amount]),
        };
        if more <= less + amount || bound[1] < 0.0 {
            return 0.0;
        }
        let nats =
            growth(more_per_sec, less_per_sec, Rates { greater: more, lesser: less }, amount);
        let of = |rate: f64, per_sec: f64| Expected { rate, per_sec };
        let noise = SignalCalibration { kappa_secs, ..SignalCalibration::default() }
            .difference(of(bound[0], more_per_sec), of(bound[1], less_per_sec));
        nats / noise
    }

    /// Nats a second by which evidence grows that the canary's event rate is not `null`, when it is
    /// `truth`; 0 when it has no traffic.
    pub fn constant_nats_per_sec(&self, truth: f64, null: f64) -> f64 {
        if self.canary_per_sec <= 0.0 || null <= 0.0 {
            return 0.0;
        }
        let of_truth = if truth > 0.0 { truth * (truth / null).ln() } else { 0.0 };
        let divergence = of_truth + null - truth;
        let noise = limit_noise(self.kappa_secs, null * self.canary_per_sec);
        self.canary_per_sec * divergence / noise
    }

    /// Nats a second towards the proof of a margin, by its better way, when both arms are alike.
    pub fn proof_nats_per_sec(&self, margin: Margin, better: Better) -> f64 {
        let by_ratio = self.ratio_nats_per_sec(1.0, margin.factor);
        let by_constant = margin.or.map_or(0.0, |or| {
            let good = match better {
                Better::Lower => self.event_share < or,
                Better::Higher => self.event_share > or,
            };
            if good { self.constant_nats_per_sec(self.event_share, or) } else { 0.0 }
        });
        by_ratio.max(by_constant)
    }
}

/// How long it takes to show a signal within its margin when the canary is as good as the baseline;
/// none when it would take longer than two weeks, or for ever. For a quantile `event_share` is the
/// tail share at a bucket edge and the margin's factor the ratio of tail shares that it allows.
pub fn time_to_show(
    traffic: &Traffic,
    margin: Margin,
    better: Better,
    false_promotion_rate: f64,
) -> Option<Duration> {
    let price = PROOF_GRID_NATS + if margin.or.is_some() { TWO_WAYS_NATS } else { 0.0 };
    time_at(traffic.proof_nats_per_sec(margin, better), price - false_promotion_rate.ln())
}

/// What a rule `X > margin x baseline` asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sought {
    /// Multiple of the baseline in the rule.
    pub margin: f64,
    /// Event rate below which nobody cares; 0 for none.
    pub floor: f64,
    /// The rule's share of the false-rollback rate.
    pub alpha: f64,
}

/// How long it takes to find a regression to `effect` times the baseline's event rate that is there
/// from the first look; none when the rule cannot find it within two weeks, or at all.
pub fn time_to_find(traffic: &Traffic, sought: Sought, effect: f64) -> Option<Duration> {
    if effect <= sought.margin {
        return None;
    }
    let price = (EFFECTS.len() as f64).ln() + ONSET_NATS - sought.alpha.ln();
    let mut nats_per_sec = traffic.ratio_nats_per_sec(effect, sought.margin);
    if sought.floor > 0.0 {
        let rate = effect * traffic.event_share;
        if rate <= sought.floor {
            return None;
        }
        // Both parts of the null have to be rejected: the slower one decides.
        nats_per_sec = nats_per_sec.min(traffic.constant_nats_per_sec(rate, sought.floor));
    }
    time_at(nats_per_sec, price)
}

/// The time to gather so many nats.
pub fn time_at(nats_per_sec: f64, nats: f64) -> Option<Duration> {
    // A divergence of almost nothing may come out a little below zero.
    let secs = nats.max(0.0) / nats_per_sec.max(0.0);
    (secs <= TIME_MAX_SECS).then(|| Duration::from_secs_f64(secs))
}

/// Kullback-Leibler divergence of two coins, in nats; both shares lie strictly between 0 and 1.
fn bernoulli_divergence(truth: f64, null: f64) -> f64 {
    truth * (truth / null).ln() + (1.0 - truth) * ((1.0 - truth) / (1.0 - null)).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAFFIC: Traffic = Traffic {
        canary_per_sec: 40.0,
        baseline_per_sec: 120.0,
        event_share: 0.02,
        kappa_secs: 0.25,
    };

    /// Golden numbers: `scipy.stats.entropy([t1, 1 - t1], [t0, 1 - t0])` of the shares at truth and
    /// null, times events a second, over the noise factor; the constant's is
    /// `n * scipy.special.kl_div(truth, null) / phi`.
    #[test]
    fn growth_equals_scipy() {
        for (found, golden) in [
            (TRAFFIC.ratio_nats_per_sec(1.0, 1.5), GOLDEN[0]),
            (TRAFFIC.ratio_nats_per_sec(4.0, 1.5), GOLDEN[1]),
            (TRAFFIC.constant_nats_per_sec(0.02, 0.05), GOLDEN[2]),
            (TRAFFIC.constant_nats_per_sec(0.0, 0.05), GOLDEN[3]),
        ] {
            assert!((found - golden).abs() < 1e-12, "{found} against {golden}");
        }
    }

    const GOLDEN: [f64; 4] =
        [0.04041048277991948, 0.5110693822114647, 0.3113116096671172, 1.3333333333333333];

    #[test]
    fn what_cannot_be_known_has_no_time() {
        let margin = |or| Margin { factor: 1.5, or };
        let show = |traffic: &Traffic, or| time_to_show(traffic, margin(or), Better::Lower, 0.05);
        let silent = Traffic { canary_per_sec: 0.0, ..TRAFFIC };
        let alone = Traffic { baseline_per_sec: 0.0, ..TRAFFIC };
        let spotless = Traffic { event_share: 0.0, ..TRAFFIC };
        assert_eq!(show(&silent, Some(0.05)), None);
        assert_eq!(show(&alone, None), None);
        assert_eq!(show(&spotless, None), None);
        assert_eq!(show(&TRAFFIC, Some(0.01)), show(&TRAFFIC, Some(0.02)));
        // Zero errors on both sides: only the constant shows it, and soon.
        let shown = show(&spotless, Some(0.01)).expect("a constant is shown without events");
        assert!((8.0..20.0).contains(&shown.as_secs_f64()), "{shown:?}");
        let sought = Sought { margin: 1.5, floor: 0.001, alpha: 0.0005 };
        assert_eq!(time_to_find(&TRAFFIC, sought, 1.5), None);
        let rare = Traffic { event_share: 0.0002, ..TRAFFIC };
        assert_eq!(time_to_find(&rare, sought, 5.0), None, "below the floor");
        assert!(time_to_find(&TRAFFIC, sought, 5.0) < time_to_find(&TRAFFIC, sought, 2.0));
    }
}
