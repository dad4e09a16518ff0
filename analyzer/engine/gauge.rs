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
//! **Noise.** A level of one second ago says most of what the present one is. With `f_k` the share of
//! looks at which the *baseline's own* series is on the other side of its median than `k` looks
//! before, for `k` of 1 to 32, its signs' correlation is `r_k = 1 - 2 f_k`, and it holds for
//! `-k / ln r_k` looks; the longest of these counts, since a level that trembles while it wanders
//! crosses often and holds long. With `h` that time in looks and `r = exp(-1 / h)`, the variance of
//! a sum of signs is `phi = (1 + r) / (1 - r)` times that of independent ones. Crossings are counted
//! before the look, one standard error down, beside a prior of a level that holds for ten seconds.
//! A signal whose past was measured brings its own time. What moves the baseline by less than a
//! tenth of the way to the bound is not noise that matters, and is left out. The baseline's series,
//! not the canary's: a canary that is always beyond never crosses, and must not call that noise.

use super::{observation::Time, rule::Op};

/// Alternatives to one half.
const ALTERNATIVES: [f64; 3] = [0.65, 0.8, 0.95];

/// Share of the capital that is put in at the first look.
const START_MASS: f64 = 0.5;

/// Capital beyond this is not counted: what was needed was reached long ago.
const CAPITAL_MAX: f64 = 1e200;

/// How long a level is taken to hold, in seconds, until the baseline's own series says otherwise.
pub const HOLDS_PRIOR_SECS: f64 = 10.0;

/// Looks that the prior is worth, in times that a level holds.
const PRIOR_HOLDS: f64 = 4.0;

/// Distances, in looks, at which signs are compared: powers of two up to this one.
const LAGS: usize = 6;

/// Correlations below this are chance and say nothing of how long a level holds.
const CORRELATION_MIN: f64 = 0.1;

/// A level that moves by less than this part of the way to its bound does not move.
const MOVES_MIN: f64 = 0.1;

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

    /// Learns from the baseline's level at this look, after the look was judged against this bound.
    pub fn learn(&mut self, baseline: f64, bound: f64) {
        self.crossings.take(baseline, bound);
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

/// How often a series is on the other side of its own median than some looks before. The median is
/// followed by steps that shrink as in Robbins and Monro 1951: a look costs the same however many
/// there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Crossings {
    seen: f64,
    median: f64,
    /// Mean distance from the median.
    spread: f64,
    /// The last signs, the latest in the lowest bit, and how many there are.
    signs: u64,
    known: u32,
    pairs: [f64; LAGS],
    crossed: [f64; LAGS],
}

impl Crossings {
    fn take(&mut self, level: f64, bound: f64) {
        self.seen += 1.0;
        if self.seen == 1.0 {
            self.median = level;
            return;
        }
        let away = level - self.median;
        self.spread += (away.abs() - self.spread) / self.seen;
        self.median += (3.0 * self.spread / self.seen).min(away.abs()) * away.signum();
        if away != 0.0 && away.abs() >= MOVES_MIN * (bound - self.median).abs() {
            self.sign(away > 0.0);
        }
    }

    fn sign(&mut self, is_above: bool) {
        for (lag, (pairs, crossed)) in self.pairs.iter_mut().zip(&mut self.crossed).enumerate() {
            let looks = 1u32 << lag;
            if self.known >= looks {
                let before = self.signs >> (looks - 1) & 1 == 1;
                *pairs += 1.0;
                *crossed += f64::from(u8::from(before != is_above));
            }
        }
        self.signs = self.signs << 1 | u64::from(is_above);
        self.known = (self.known + 1).min(64);
    }

    /// For how many looks a level holds, beside a prior of so many; 0 when looks are independent.
    fn holds_looks(&self, prior: Option<f64>) -> f64 {
        let mut longest = 0.0f64;
        for (lag, (pairs, crossed)) in self.pairs.iter().zip(self.crossed).enumerate() {
            let looks = f64::from(1u32 << lag);
            // Pairs within the time that a level holds are nearly the same pair.
            let crossed = (crossed - (longest.max(1.0) * crossed).sqrt()).max(0.0);
            let (weight, expected) = match prior {
                Some(holds) => (PRIOR_HOLDS * holds, 0.5 * (1.0 - (-looks / holds).exp())),
                None => (0.0, 0.0),
            };
            let share = (crossed + weight * expected) / (pairs + weight);
            let correlation = 1.0 - 2.0 * share;
            if correlation > CORRELATION_MIN && correlation < 1.0 {
                longest = longest.max(-looks / correlation.ln());
            }
        }
        longest
    }

    /// The variance factor of looks so far apart.
    fn noise(&self, secs: f64, holds_secs: Option<f64>) -> f64 {
        let holds = match holds_secs {
            Some(holds) => holds / secs,
            None => self.holds_looks(Some(HOLDS_PRIOR_SECS / secs)),
        };
        held_noise(holds)
    }
}

/// The variance factor of neighbouring looks at a level that holds for so many: correlation
/// `exp(-1 / holds)`, summed over all lags.
fn held_noise(holds_looks: f64) -> f64 {
    let r = (-1.0 / holds_looks.max(f64::MIN_POSITIVE)).exp();
    ((1.0 + r) / (1.0 - r).max(1e-9)).max(1.0)
}

/// For how long a level holds, in seconds, and how many seconds of a past that was taken from: at
/// least fifty looks that cross their median at least five times. None where there is too little.
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
    let mut crossings = Crossings::default();
    // Of a level that takes few values the median may be the highest.
    let is_highest = past.iter().all(|(_, level)| *level <= median);
    past.iter().for_each(|(_, level)| {
        crossings.sign(*level > median || is_highest && *level == median);
    });
    if crossings.crossed[0] < CROSSED_MIN {
        return None;
    }
    let between = secs / (past.len() - 1) as f64;
    // Looks that are hardly correlated hold for no longer than one.
    let holds = crossings.holds_looks(None).max(0.1);
    Some((holds * between, secs))
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

    /// A mean-reverting level that holds for `h` looks: the sum of its signs varies
    /// `1 + 2 sum_k 2/pi asin(exp(-k / h))` times as much as independent ones.
    #[test]
    fn noise_is_that_of_the_baseline() {
        let mut state = 1u64;
        let mut random = move || {
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 53) as f64
            };
            (0..12).map(|_| next()).sum::<f64>() - 6.0
        };
        for holds in [0.01f64, 2.0, 10.0, 20.0] {
            let (mut crossings, mut level) = (Crossings::default(), 0.0);
            let (mut past, keep) = (Vec::new(), (-1.0 / holds).exp());
            for look in 0..20_000 {
                level = keep * level + (1.0 - keep * keep).sqrt() * random();
                crossings.take(100.0 + level, 100.0);
                past.push((Time(look * 1000), 100.0 + level));
            }
            let lags = (1..2000).map(|lag| 2.0 / std::f64::consts::PI * keep.powi(lag).asin());
            let expected = 1.0 + 2.0 * lags.sum::<f64>();
            let found = crossings.noise(1.0, None);
            assert!((0.9..1.6).contains(&(found / expected)), "{holds}: {found}, {expected}");
            let (known, secs) = holds_secs(&past).expect("twenty thousand looks");
            let found = held_noise(known);
            assert!((0.9..1.6).contains(&(found / expected)), "{holds}: {found}, {expected}");
            assert_eq!(secs, 19_999.0);
        }
        assert_eq!(holds_secs(&[(Time(0), 1.0); 100]), None);
        let mut still = Crossings::default();
        assert!((19.0..21.0).contains(&still.noise(1.0, None)));
        // A page more now and then is nothing beside a bound that is a tenth away.
        (0..900).for_each(|look| still.take(1e8 + f64::from(look / 100) * 4096.0, 1.1e8));
        assert!((19.0..21.0).contains(&still.noise(1.0, None)));
    }
}
