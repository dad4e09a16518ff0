//! What the counts of both arms say about *every* ratio at once: the anytime-valid interval of the
//! effect, and the proof that it lies within a margin.
//!
//! Given all events of a look, each falls to the canary with probability
//! `theta(r) = r n_c / (r n_c + n_b)` when the ratio of the event rates is `r`. The profile keeps
//! `L(r) = sum over looks of [x_c ln theta(r) + x_b ln(1 - theta(r))] / phi` on a fixed grid of
//! ratios, less its value at 1. From it come
//!
//! - **the interval**: the evidence against a ratio `r` is the mean over the grid (a prior) of
//!   `exp(L(rho) - L(r))`, an e-process when `r` is the truth. The ratios with an e-value below
//!   `1 / (1 - confidence)` are the interval; by Ville's inequality it covers the truth at all looks
//!   together with at least that probability. It is the interval of the present look and not the
//!   running intersection: a ratio that changes would leave an empty one behind;
//! - **the proof**: the mean over the ratios better than the margin `F` of `exp(L(rho) - L(F))`. Under
//!   "the ratio is `F` or worse at every look" it is an e-process, whatever it really is: a worse
//!   ratio only makes it smaller.
//!
//! `L` is concave in `ln r`, so that a line through two neighbours lies above it everywhere else: the
//! ends of the interval are where such lines cross, a little outside and never inside.
//!
//! Sources: Robbins 1970 (mixtures); Howard, Ramdas, McAuliffe and Sekhon 2021 (confidence
//! sequences); Lindon and Malek 2022 (counts); Wang and Ramdas 2022 (e-values).

use std::sync::LazyLock;

use super::evidence::Counts;

/// Probability with which an interval covers the truth at all looks together.
pub const CONFIDENCE: f64 = 0.95;

/// A value is out of the interval when the evidence against it is above the inverse of this.
pub(super) const ODDS_MAX: f64 = 1.0 - CONFIDENCE;

/// Ratios of the grid.
const RATIOS: usize = 39;

/// Position of the ratio 1 in it.
const ALIKE: usize = 18;

/// Ratios that a proof takes for possible reach from a half (or from the margin) to two: a canary
/// that is better still is shown sooner by these too, and a wider grid would cost everybody.
const PROOF_REACH: usize = 11;

/// `ln r` is `0.3 sinh(0.175 i)`: ratios lie 5 % apart near 1, where intervals become narrow, and
/// wider apart the further out; from 1/33 to 143.
static GRID: LazyLock<Grid> = LazyLock::new(|| {
    let ln = std::array::from_fn(|index| 0.3 * (0.175 * (index as f64 - ALIKE as f64)).sinh());
    Grid { ln, ratio: ln.map(f64::exp) }
});

struct Grid {
    ln: [f64; RATIOS],
    ratio: [f64; RATIOS],
}

/// An interval with its estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The likeliest value, in the interval.
    pub estimate: f64,
    /// Lower end; 0 when nothing is known below.
    pub low: f64,
    /// Upper end; infinite when nothing is known above.
    pub high: f64,
}

/// Which side of a margin is to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Below it: lower is better.
    Below,
    /// Above it: higher is better.
    Above,
}

/// The profile of one rate ratio. A step is O(ratios of the grid); state never grows.
#[derive(Clone, Debug, PartialEq)]
pub struct RateProfile {
    log_likelihoods: [f64; RATIOS],
    margin: Option<MarginLikelihood>,
    interval: Option<Interval>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct MarginLikelihood {
    factor: f64,
    side: Side,
    /// `L(factor)`.
    log_likelihood: f64,
    /// `L(1) - L(factor)` is what planning goes by; this is ln of the mixture's e-value.
    log_value: f64,
}

impl RateProfile {
    /// A profile that has seen nothing, with the margin that is to be shown, if any.
    pub fn new(margin: Option<(f64, Side)>) -> Self {
        let margin = margin.map(|(factor, side)| MarginLikelihood {
            factor,
            side,
            log_likelihood: 0.0,
            log_value: 0.0,
        });
        Self { log_likelihoods: [0.0; RATIOS], margin, interval: None }
    }

    /// Takes one look. A look in which an arm had no exposure, or nothing happened, says nothing.
    pub fn step(&mut self, counts: &Counts, noise: f64) {
        let Counts { canary_events, canary_total, baseline_events, baseline_total } = *counts;
        let events = canary_events + baseline_events;
        if canary_total <= 0.0 || baseline_total <= 0.0 || events <= 0.0 {
            return;
        }
        // ln theta(r) - ln theta(1) = ln r + d and ln(1 - theta(r)) - ln(1 - theta(1)) = d with
        // d = ln((n_c + n_b) / (r n_c + n_b)): one logarithm per ratio.
        let alike = canary_total + baseline_total;
        let gain = |ln_ratio: f64, ratio: f64| {
            let d = (alike / (ratio * canary_total + baseline_total)).ln();
            (canary_events * ln_ratio + events * d) / noise
        };
        for (sum, (&ln, &ratio)) in
            self.log_likelihoods.iter_mut().zip(GRID.ln.iter().zip(&GRID.ratio))
        {
            *sum += gain(ln, ratio);
        }
        if let Some(margin) = &mut self.margin {
            margin.log_likelihood += gain(margin.factor.ln(), margin.factor);
            let better = better_than(margin.factor, margin.side).map(|at| self.log_likelihoods[at]);
            margin.log_value = log_mean_exp(better) - margin.log_likelihood;
        }
        let against = log_mean_exp(self.log_likelihoods.iter().copied());
        self.interval = Some(interval(&GRID.ln, &self.log_likelihoods, against + ODDS_MAX.ln()));
    }

    /// The interval now; none before anything happened.
    pub fn interval(&self) -> Option<Interval> {
        self.interval
    }

    /// ln of the e-value that the ratio is on the good side of the margin; 0 without a margin.
    pub fn proof(&self) -> f64 {
        self.margin.map_or(0.0, |margin| margin.log_value)
    }

    /// Nats by which "alike" is likelier than "at the margin"; 0 without a margin.
    pub fn lead(&self) -> f64 {
        self.margin.map_or(0.0, |margin| -margin.log_likelihood)
    }
}

/// Positions of the ratios that are better than the margin and within reach of 1.
fn better_than(factor: f64, side: Side) -> impl Iterator<Item = usize> + Clone {
    (ALIKE - PROOF_REACH..=ALIKE + PROOF_REACH).filter(move |&at| match side {
        Side::Below => GRID.ratio[at] < factor,
        Side::Above => GRID.ratio[at] > factor,
    })
}

/// Where log likelihoods over a grid of ascending logarithms of values reach a threshold. Some point
/// of the grid does: the threshold lies below their mean.
pub(super) fn interval(lns: &[f64], log_likelihoods: &[f64], threshold: f64) -> Interval {
    let inside = |value: &f64| *value >= threshold;
    let first = log_likelihoods.iter().position(inside).unwrap_or(0);
    let last = log_likelihoods.iter().rposition(inside).unwrap_or(lns.len() - 1);
    let low = match first {
        0 => 0.0,
        _ => crossing(lns, log_likelihoods, threshold, [first, first - 1]).exp(),
    };
    let high = match last + 1 {
        end if end == lns.len() => f64::INFINITY,
        _ => crossing(lns, log_likelihoods, threshold, [last, last + 1]).exp(),
    };
    Interval { estimate: peak(lns, log_likelihoods).exp().clamp(low, high), low, high }
}

/// Where the function falls below the threshold on the way from a point inside to its neighbour
/// outside: by the lines through the two points before and the two points behind, both above a
/// concave function, so that the nearer crossing is still outside.
fn crossing(lns: &[f64], values: &[f64], threshold: f64, [inside, outside]: [usize; 2]) -> f64 {
    let beyond = |a: usize, b: usize| -> Option<usize> {
        // The point that follows `b` on the way from `a`.
        let next = if b > a { b.checked_add(1) } else { b.checked_sub(1) };
        next.filter(|&next| next < lns.len())
    };
    let line = |a: usize, b: usize| {
        let slope = (values[b] - values[a]) / (lns[b] - lns[a]);
        lns[a] + (threshold - values[a]) / slope
    };
    let (left, right) = (lns[inside].min(lns[outside]), lns[inside].max(lns[outside]));
    // A line that does not cross between the two says nothing but "at the outer one".
    let within = |at: &f64| (left..=right).contains(at);
    let before = beyond(outside, inside).map(|before| line(before, inside)).filter(within);
    let behind = beyond(inside, outside).map(|behind| line(outside, behind)).filter(within);
    let nearer = |a: f64, b: f64| {
        if (a - lns[inside]).abs() < (b - lns[inside]).abs() { a } else { b }
    };
    [before, behind].into_iter().flatten().fold(lns[outside], nearer)
}

/// Where the likelihood is highest: the top of the parabola through the highest point and its
/// neighbours.
fn peak(lns: &[f64], values: &[f64]) -> f64 {
    let top = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0);
    if top == 0 || top + 1 == values.len() {
        return lns[top];
    }
    let (before, behind) = (lns[top] - lns[top - 1], lns[top + 1] - lns[top]);
    let (rise, fall) = (values[top] - values[top - 1], values[top] - values[top + 1]);
    let shift =
        0.5 * (behind * behind * rise - before * before * fall) / (behind * rise + before * fall);
    if shift.is_finite() { lns[top] + shift.clamp(-before, behind) } else { lns[top] }
}

/// ln of the mean of e^value; the values are not empty where it is used.
pub(super) fn log_mean_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let (count, sum) =
        values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + (value - top).exp()));
    if count > 0.0 { top + f64::ln(sum / count) } else { 0.0 }
}

/// Rates that a proof against a constant takes for possible, as multiples of it, where lower is
/// better; the inverses where higher is.
const RATES: [f64; 8] = [0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8];

/// The proof that one arm's event rate is on the good side of a constant: the one-arm form of the
/// same process turned round. Valid for Poisson counts and for Bernoulli requests.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantProof {
    constant: f64,
    side: Side,
    /// Events and exposure, each divided by the noise factor of its look.
    events: f64,
    total: f64,
}

impl ConstantProof {
    /// `constant` is a rate of events per exposure, above 0.
    pub fn new(constant: f64, side: Side) -> Self {
        Self { constant, side, events: 0.0, total: 0.0 }
    }

    /// Takes one look of one arm.
    pub fn step(&mut self, events: f64, total: f64, noise: f64) {
        self.events += events / noise;
        self.total += total / noise;
    }

    /// Which side is the good one.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The rate so far; none before any exposure.
    pub fn rate(&self) -> Option<f64> {
        (self.total > 0.0).then(|| self.events / self.total)
    }

    /// ln of the e-value that the rate is on the good side.
    pub fn proof(&self) -> f64 {
        log_mean_exp(RATES.iter().map(|&rate| {
            let rate = match self.side {
                Side::Below => rate,
                Side::Above => 1.0 / rate,
            };
            self.events * rate.ln() - self.constant * self.total * (rate - 1.0)
        }))
    }

    /// Nats by which a rate of `truth` is likelier than the constant.
    pub fn lead(&self, truth: f64) -> f64 {
        let rate = (truth / self.constant).max(RATES[0]);
        self.events * rate.ln() - self.constant * self.total * (rate - 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts that any program can make: by `case` and look, with the noise factor.
    fn look([a, b, c, d]: [f64; 4], t: u32) -> (Counts, f64) {
        let t = f64::from(t);
        let counts = Counts {
            canary_events: t * 7.0 % a,
            canary_total: 20.0 + t % 5.0,
            baseline_events: t * 5.0 % b,
            baseline_total: c + t % 3.0,
        };
        (counts, 1.0 + d * (t % 4.0))
    }

    /// Golden numbers by numpy and scipy, from the definitions and not from the differences used
    /// here: `L(u)` is the sum of `scipy.stats.binom.logpmf(xc, xc + xb, expit(u + log(nc/nb))) / phi`;
    /// the ends of the interval are `scipy.optimize.brentq` of
    /// `logsumexp(L(grid)) - log(39) - L(u) - log(20)`, with `grid = 0.3 * sinh(0.175 * (i - 18))`;
    /// the proof is `logsumexp(L(g)) - log(count) - L(log 1.5)` over the `g < log 1.5` with
    /// `|i - 18| <= 11`.
    #[test]
    fn profiles_equal_the_reference_and_err_outward() {
        for (case, looks, [estimate, low, high, proof]) in GOLDEN {
            let mut profile = RateProfile::new(Some((1.5, Side::Below)));
            for t in 1..=*looks {
                let (counts, noise) = look(*case, t);
                profile.step(&counts, noise);
            }
            let found = profile.interval().expect("there were events");
            let near = |found: f64, golden: f64| (found / golden).ln().abs() < 0.03;
            assert!(near(found.estimate, *estimate), "{case:?}: {found:?}");
            assert!(
                found.low <= low * (1.0 + 1e-9) && near(found.low, *low),
                "{case:?}: {found:?}"
            );
            let open = found.high == *high && high.is_infinite();
            assert!(
                open || found.high >= high * (1.0 - 1e-9) && near(found.high, *high),
                "{case:?}: {found:?}"
            );
            let shown = profile.proof();
            assert!((shown - proof).abs() < 1e-9 * proof.abs(), "{case:?}: {shown}, {proof}");
        }
    }

    /// `mean_k exp(S_x ln k - c S_n (k - 1))` by `scipy.special.logsumexp`.
    #[test]
    fn constant_proofs_equal_the_reference() {
        for (events, total, constant, side, golden) in [
            (4.0, 2400.0, 0.01, Side::Below, 11.43765002291483),
            (0.0, 700.0, 0.01, Side::Below, 5.815823544712202),
            (50.0, 400.0, 0.05, Side::Above, 13.68191280424535),
        ] {
            let mut proof = ConstantProof::new(constant, side);
            proof.step(events * 0.5, total * 0.5, 1.0);
            proof.step(events, total, 2.0);
            assert!((proof.proof() - golden).abs() < 1e-9, "{} of {golden}", proof.proof());
        }
    }

    #[test]
    fn extreme_counts_leave_an_interval() {
        for (canary_events, baseline_events) in [(1e30, 0.0), (0.0, 1e30), (1e30, 1e30), (1.0, 0.0)]
        {
            let mut profile = RateProfile::new(Some((1.5, Side::Below)));
            for _ in 0..3 {
                let totals = (1e30, 1e-3);
                let counts = Counts {
                    canary_events,
                    canary_total: totals.0,
                    baseline_events,
                    baseline_total: totals.1,
                };
                profile.step(&counts, 1.0);
                let Interval { estimate, low, high } = profile.interval().expect("events");
                assert!(
                    low <= estimate && estimate <= high && low >= 0.0,
                    "{low} {estimate} {high}"
                );
                assert!(!profile.proof().is_nan());
            }
        }
    }

    /// Estimate, low, high, proof.
    const GOLDEN: &[([f64; 4], u32, [f64; 4])] = &[
        (
            [3.0, 4.0, 22.0, 0.0],
            40,
            [0.7069214270239418, 0.3685333474154685, 1.317411822962841, 5.975708418719314],
        ),
        (
            [2.0, 7.0, 60.0, 0.1],
            300,
            [0.4403775191964465, 0.3092976619588954, 0.6090835097594625, 105.13238036646547],
        ),
        (
            [5.0, 3.0, 20.0, 0.2],
            120,
            [1.894511974025853, 1.2495499594669743, 2.9282484174943004, -3.1455387719637287],
        ),
        (
            [2.0, 1.0, 20.0, 0.0],
            15,
            [142.99192874016364, 1.1036818254698473, f64::INFINITY, -1.440528148319363],
        ),
    ];
}
