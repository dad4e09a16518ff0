//! Evidence that a level is beyond a multiple of the baseline's, or beyond a constant, without
//! assuming anything of how levels are distributed.
//!
//! At each look the event is "the canary is beyond": `canary > m x baseline`, paired in time, or
//! `canary > limit`. Under the null hypothesis its probability is at most one half. So what is shown
//! is about the *median*: the canary's level is beyond the bound more often than not. How far beyond
//! does not count, and a level that is equal to its bound is not beyond it.
//!
//! For alternatives `p` of 0.65, 0.8 and 0.95 a look multiplies a bet's capital by `(2p)^(1/phi)`
//! when it is an event and by `(2 (1 - p))^(1/phi)` when it is not; the expectation of both is at
//! most 1 under the null. Half of the capital is put in at the first look, and of the rest one part
//! in a hold's looks at each look, since a level may change late. The sum never reaches `1 / alpha`
//! with a probability above alpha (Ville 1939; sign tests by betting: Waudby-Smith and Ramdas 2024).
//!
//! **Noise.** A level of one second ago says most of what the present one is. With `f` the share of
//! looks at which the *baseline's own* series crosses its median, a two-state chain has the variance
//! factor `phi = (1 - f) / f`. Crossings are counted before the look, one standard error down,
//! beside a prior of two: a level that holds for ten seconds. A signal whose past was measured
//! brings its own time. The baseline's series, not the canary's: a canary that is always beyond
//! never crosses, and must not call that noise.

use super::{observation::Time, rule::Op};

/// Alternatives to one half.
const ALTERNATIVES: [f64; 3] = [0.65, 0.8, 0.95];

/// Share of the capital that is put in at the first look.
const START_MASS: f64 = 0.5;

/// Capital beyond this is not counted: what was needed was reached long ago.
const CAPITAL_MAX: f64 = 1e200;

/// How long a level is taken to hold, in seconds, until the baseline's own series says otherwise.
pub const HOLDS_PRIOR_SECS: f64 = 10.0;

/// Crossings that the prior is worth.
const PRIOR_CROSSINGS: f64 = 2.0;

/// Confidence of the interval that is shown.
pub const CONFIDENCE: f64 = 0.95;

/// Looks at which that interval is narrowest, for independent looks: where it is looked at most.
const INTERVAL_LOOKS: f64 = 10.0;

/// Looks at which both levels were known before "no evidence" is called clear.
pub const CLEAR_LOOKS_MIN: f64 = 20.0;

/// Evidence from the signs of a level against its bound.
#[derive(Clone, Debug)]
pub struct SignEvidence {
    op: Op,
    capital: [f64; ALTERNATIVES.len()],
    unspent: f64,
    per_look: f64,
    looks: f64,
    events: f64,
    noise: f64,
    /// Looks in units of independent ones.
    information: f64,
    crossings: Crossings,
}

impl SignEvidence {
    /// Evidence that has seen nothing; `horizon` is the hold in looks.
    pub fn new(op: Op, horizon: u32) -> Self {
        Self {
            op,
            capital: [START_MASS / ALTERNATIVES.len() as f64; ALTERNATIVES.len()],
            unspent: 1.0 - START_MASS,
            per_look: 1.0 / f64::from(horizon.max(1)),
            looks: 0.0,
            events: 0.0,
            noise: 1.0,
            information: 0.0,
            crossings: Crossings::default(),
        }
    }

    /// Takes one look, `secs` after the one before: the canary's level and its bound. `holds_secs`
    /// is for how long a level of this signal is known to hold.
    pub fn step(&mut self, level: f64, bound: f64, secs: f64, holds_secs: Option<f64>) {
        self.noise = self.crossings.noise(secs, holds_secs);
        let is_event = self.op.holds(level, bound) && level != bound;
        self.looks += 1.0;
        self.events += f64::from(u8::from(is_event));
        self.information += 1.0 / self.noise;
        let spend = self.unspent * self.per_look / ALTERNATIVES.len() as f64;
        self.unspent *= 1.0 - self.per_look;
        for (capital, p) in self.capital.iter_mut().zip(ALTERNATIVES) {
            let ratio = 2.0 * if is_event { p } else { 1.0 - p };
            *capital = ((*capital + spend) * ratio.powf(1.0 / self.noise)).min(CAPITAL_MAX);
        }
    }

    /// Learns from the baseline's level at this look, after the look was judged.
    pub fn learn(&mut self, baseline: f64) {
        self.crossings.take(baseline);
    }

    /// ln of the e-value now.
    pub fn log_value(&self) -> f64 {
        (self.capital.iter().sum::<f64>() + self.unspent).ln()
    }

    /// The noise factor of the last look.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// Looks at which it was known, and how many of them were beyond the bound.
    pub fn looks(&self) -> (f64, f64) {
        (self.looks, self.events)
    }

    /// Share of looks beyond the bound with an interval that holds at all looks together: the normal
    /// mixture's boundary for variables of variance at most 1/4 (Robbins 1970; Howard et al. 2021).
    pub fn share(&self) -> Option<(f64, f64, f64)> {
        if self.looks == 0.0 {
            return None;
        }
        let (share, n) = (self.events / self.looks, self.information);
        let both = (n + INTERVAL_LOOKS) / (n * n);
        let error = 1.0 - CONFIDENCE;
        let radius = 0.5 * (both * ((n + INTERVAL_LOOKS) / (INTERVAL_LOOKS * error * error)).ln());
        let radius = (0.5 * radius).sqrt();
        Some((share, (share - radius).max(0.0), (share + radius).min(1.0)))
    }
}

/// How often a series crosses its own median, which is followed by steps that shrink as in
/// Robbins and Monro 1951: a look costs the same however many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Crossings {
    seen: f64,
    median: f64,
    /// Mean distance from the median.
    spread: f64,
    above: Option<bool>,
    pairs: f64,
    crossed: f64,
}

impl Crossings {
    fn take(&mut self, level: f64) {
        self.seen += 1.0;
        if self.seen == 1.0 {
            self.median = level;
            return;
        }
        let away = level - self.median;
        self.spread += (away.abs() - self.spread) / self.seen;
        self.median += 2.0 * away.signum() * self.spread.min(away.abs()) / self.seen.sqrt();
        if away == 0.0 {
            return;
        }
        let above = away > 0.0;
        if let Some(before) = self.above {
            self.pairs += 1.0;
            self.crossed += f64::from(u8::from(before != above));
        }
        self.above = Some(above);
    }

    /// The variance factor of looks so far apart.
    fn noise(&self, secs: f64, holds_secs: Option<f64>) -> f64 {
        let prior = held_noise(holds_secs.unwrap_or(HOLDS_PRIOR_SECS), secs);
        if holds_secs.is_some() {
            return prior;
        }
        let looks = PRIOR_CROSSINGS * (1.0 + prior) + self.pairs;
        let crossed = PRIOR_CROSSINGS + (self.crossed - self.crossed.sqrt()).max(0.0);
        ((looks - crossed) / crossed).max(1.0)
    }
}

/// The variance factor of looks `secs` apart at a level that holds for so long: correlation
/// `exp(-secs / holds)`, summed over all lags.
fn held_noise(holds_secs: f64, secs: f64) -> f64 {
    let r = (-secs / holds_secs.max(f64::MIN_POSITIVE)).exp();
    ((1.0 + r) / (1.0 - r).max(1e-9)).max(1.0)
}

/// For how long a level holds, in seconds, from a past of at least fifty looks that crosses its
/// median at least five times; with how many seconds of it there were. None where that is too
/// little to say.
pub fn holds_secs(past: &[(Time, f64)]) -> Option<(f64, f64)> {
    const LOOKS_MIN: usize = 50;
    const CROSSED_MIN: f64 = 5.0;
    let (first, last) = (past.first()?, past.last()?);
    let secs = last.0.since(first.0).as_secs_f64();
    if past.len() < LOOKS_MIN || secs <= 0.0 {
        return None;
    }
    let mut levels: Vec<f64> = past.iter().map(|(_, level)| *level).collect();
    let middle = levels.len() / 2;
    let median = *levels.select_nth_unstable_by(middle, f64::total_cmp).1;
    let sides: Vec<bool> = past
        .iter()
        .filter(|(_, level)| *level != median)
        .map(|(_, level)| *level > median)
        .collect();
    let crossed = sides.windows(2).filter(|pair| pair[0] != pair[1]).count() as f64;
    if crossed < CROSSED_MIN {
        return None;
    }
    let share = ((crossed - crossed.sqrt()) / sides.len() as f64).clamp(1e-6, 0.49);
    let between = secs / (past.len() - 1) as f64;
    // 1 - 2f is the correlation of looks so far apart.
    Some((-between / (1.0 - 2.0 * share).ln(), secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden numbers by hand: with `phi = 1` after four events the capital is
    /// `1/6 (1.3^4 + 1.6^4 + 1.9^4)` of what was there at the start, plus what came later.
    #[test]
    fn capital_grows_as_written() {
        let mut evidence = SignEvidence::new(Op::Above, 10);
        let (mut slow, mut unspent) = ([1.0 / 6.0; 3], 0.5);
        for look in 0..200 {
            let is_event = look % 7 != 0;
            evidence.step(if is_event { 2.0 } else { 1.0 }, 1.0, 1.0, Some(1e-9));
            let spend = unspent / 10.0;
            unspent -= spend;
            for (capital, p) in slow.iter_mut().zip([0.65, 0.8, 0.95]) {
                *capital = (*capital + spend / 3.0) * 2.0 * if is_event { p } else { 1.0 - p };
            }
            let expected = (slow.iter().sum::<f64>() + unspent).ln();
            assert!((evidence.log_value() - expected).abs() < 1e-9, "look {look}");
        }
        assert_eq!(evidence.looks(), (200.0, 171.0));
        let (share, low, high) = evidence.share().expect("it was looked at");
        assert!(low < share && share < high && low > 0.5, "{low} {share} {high}");
    }

    #[test]
    fn a_tie_is_no_event_and_evidence_stays_finite() {
        let mut evidence = SignEvidence::new(Op::AtLeast, 10);
        (0..100).for_each(|_| evidence.step(1.0, 1.0, 1.0, None));
        assert_eq!(evidence.looks(), (100.0, 0.0));
        (0..100_000).for_each(|_| evidence.step(2.0, 1.0, 1.0, None));
        assert!(evidence.log_value() > 20.0 && evidence.log_value().is_finite());
    }

    #[test]
    fn noise_is_what_the_baseline_crosses() {
        let mut state = 1u64;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / (1u64 << 31) as f64 - 0.5
        };
        // Correlation r of neighbours: the signs' is 2/pi asin r, crossings (1 - that) / 2.
        for r in [0.0f64, 0.5, 0.9] {
            let (mut crossings, mut level) = (Crossings::default(), 0.0);
            let mut past = Vec::new();
            for look in 0..20_000 {
                level = r * level + random();
                crossings.take(100.0 + level);
                past.push((Time(look * 1000), 100.0 + level));
            }
            let signs = 2.0 / std::f64::consts::PI * r.asin();
            let expected = (1.0 + signs) / (1.0 - signs);
            let found = crossings.noise(1.0, None);
            assert!((found / expected - 1.0).abs() < 0.2, "r {r}: {found}, not {expected}");
            let (holds, secs) = holds_secs(&past).expect("twenty thousand looks");
            let found = held_noise(holds, 1.0);
            assert!((found / expected - 1.0).abs() < 0.2, "r {r}: {found}, not {expected}");
            assert_eq!(secs, 19_999.0);
        }
        assert_eq!(holds_secs(&[(Time(0), 1.0); 100]), None);
        let constant = Crossings::default();
        assert!((19.0..21.0).contains(&constant.noise(1.0, None)));
    }
}
