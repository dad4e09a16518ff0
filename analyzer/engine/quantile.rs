//! Quantiles of classic histograms: the point estimate, and evidence that the canary's quantile is
//! beyond a multiple of the baseline's, or that plus an amount.
//!
//! The estimate interpolates inside a bucket exactly as the metrics servers' `histogram_quantile`
//! does.
//!
//! The evidence goes by the share of requests slower than a bucket edge `x`. If the canary's
//! latencies are at most `factor` times the baseline's, that share is at most
//! `m_x = tail_b(x / factor) / tail_b(x)` times the baseline's, by [`super::tail`] from what the
//! baseline showed before the present look. With an amount it is `tail_b(x - amount)`, or that of the
//! same proportion, whichever is more; and stakes go where that is exceeded, not where arms differ. That the canary's quantile falls short is that the baseline's is beyond the
//! canary's: the arms change places. An alternative says that at one edge it is `rho` times
//! the baseline's, for `rho` in `m_x` times [`EFFECTS`]. All alternatives at all edges share one
//! wealth ([`super::stakes`]); an edge joins as soon as the baseline has shown enough beyond it.
//!
//! Of one look, `n` requests an arm, each falls to the canary with probability
//! `theta(r) = r n_c / (r n_c + n_b)` where its kind is `r` times as frequent in the canary. Slow
//! requests have `r = rho`, fast ones `r = (1 - rho p) / (1 - p)`, with `p` the baseline's share of
//! slow ones before the look. The log likelihood ratio of a look is the sum over both kinds and both
//! arms, divided by `phi = 1 + 2 kappa_x e_c e_b / (e_c + e_b) / (1 - p)`, with `e = p n / secs` and
//! `kappa_x` the noise intensity at the edge: the signal's, scaled by the steepness of the tail.
//! With equal arms every kind's part has an expectation of at most 1 whatever `p` really is, since
//! `r = 1` lies on the null's side of `m_x` for both kinds, and a multinomial's moment generating
//! function is below that of independent Poisson counts. So a slowdown that both arms share never
//! counts, and a past that no longer holds can only cost speed. At the margin itself the rate holds
//! as far as the interpolation between two edges is right.
//!
//! Deliberately absent: any assumption that a fault moves all latencies alike.

use std::sync::Arc;

use super::{
    calibration::SignalCalibration,
    observation::Histogram,
    rule::Allowed,
    stakes::{Odds, Stakes},
    tail::Tail,
};

/// Shares of slow requests that are thought of at an edge, as multiples of what the margin allows.
pub const EFFECTS: [f64; 3] = [1.4, 2.2, 5.0];

/// No alternative says that more than this share of the canary's requests is slow.
const SLOW_SHARE_MAX: f64 = 0.97;

/// Most edges judged at once: a baseline that keeps changing its layout must not add without end.
pub const EDGES_MAX: usize = 64;

/// Interpolated quantile `q` of a histogram; none when it is empty.
///
/// Prometheus' rule: linear inside a bucket, the lowest bucket begins at 0 (or at its own edge when
/// that is not positive), and a quantile in the `+Inf` bucket is the highest finite edge.
pub fn estimate(q: f64, edges: &[f64], counts: &[f64]) -> Option<f64> {
    let total: f64 = counts.iter().sum();
    if total <= 0.0 || edges.is_empty() {
        return None;
    }
    let rank = q * total;
    let mut below = 0.0;
    for (index, (&edge, &count)) in edges.iter().zip(counts).enumerate() {
        if below + count >= rank {
            let start = match index {
                0 if edge <= 0.0 => return Some(edge),
                0 => 0.0,
                _ => edges[index - 1],
            };
            if count <= 0.0 {
                return Some(start);
            }
            return Some(start + (edge - start) * (rank - below) / count);
        }
        below += count;
    }
    edges.last().copied()
}

/// Evidence that a quantile of the canary exceeds what is allowed beside the baseline's.
#[derive(Clone, Debug)]
pub struct QuantileEvidence {
    q: f64,
    allowed: Allowed,
    past: Option<Past>,
    edges: Vec<f64>,
    /// One alternative per edge and effect, effects innermost.
    stakes: Stakes,
    noise: f64,
}

/// What the baseline showed before the present look.
#[derive(Clone, Debug)]
struct Past {
    edges: Arc<[f64]>,
    /// Requests beyond each edge.
    beyond: Vec<f64>,
    total: f64,
}

impl QuantileEvidence {
    /// For the quantile `q`, in 0..1; `allowed` is a multiple of at least 1, or an amount of at
    /// least 0.
    pub fn new(q: f64, allowed: Allowed) -> Self {
        let (edges, stakes) = (Vec::new(), Stakes::default());
        Self { q, allowed, past: None, edges, stakes, noise: 1.0 }
    }

    /// ln of the e-value now.
    pub fn log_value(&self) -> f64 {
        self.stakes.log_value()
    }

    /// The noise factor at the edge that is most suspected.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// The edge that is most suspected, and how many edges are judged.
    pub fn leading_edge(&self) -> Option<(f64, usize)> {
        let leading = self.leading()?;
        Some((self.edges[leading], self.edges.len()))
    }

    /// Baseline requests seen so far, until the first edge is chosen.
    pub fn calibrating(&self) -> Option<f64> {
        self.edges.is_empty().then(|| self.past.as_ref().map_or(0.0, |past| past.total))
    }

    /// Takes one look of `secs` seconds. Margins come from the looks before this one.
    pub fn step(
        &mut self,
        canary: Option<&Histogram>,
        baseline: Option<&Histogram>,
        noise: &SignalCalibration,
        secs: f64,
    ) {
        if let Some(canary) = canary {
            self.choose_edges(canary);
        }
        self.judge(canary.zip(baseline), noise, secs);
        if let Some(baseline) = baseline {
            self.remember(baseline);
        }
    }

    /// Takes in the edges that have become usable. A rare edge does so long after a common one: the
    /// 99th percentile's needs a thousand requests.
    fn choose_edges(&mut self, canary: &Histogram) {
        let Some(past) = &self.past else { return };
        let tail = past.tail();
        for (index, &edge) in past.edges.iter().enumerate() {
            let is_new = self.edges.len() < EDGES_MAX && !self.edges.contains(&edge);
            if is_new
                && tail.is_usable(index, self.q, self.allowed)
                && edge_index(&canary.edges, edge).is_some()
            {
                self.edges.push(edge);
                self.stakes.join(EFFECTS.len());
            }
        }
    }

    fn judge(
        &mut self,
        both: Option<(&Histogram, &Histogram)>,
        noise: &SignalCalibration,
        secs: f64,
    ) {
        let leading = self.leading();
        // Made anew at each look: kept, it would be the largest part of this.
        let mut odds = Vec::with_capacity(self.edges.len() * EFFECTS.len());
        for (number, &edge) in self.edges.iter().enumerate() {
            let at_edge = both.zip(self.past.as_ref()).and_then(|((canary, baseline), past)| {
                let index = edge_index(&past.edges, edge)?;
                let tail = past.tail();
                let (share, margin) = tail.margin(index, self.q, self.allowed)?;
                let counts =
                    SlowCounts::of(canary, edge)?.beside(SlowCounts::of(baseline, edge)?)?;
                let noise = noise.times(tail.noise_share(index, self.q));
                Some(AtEdge { counts, share, margin, noise: counts.noise(share, &noise, secs) })
            });
            if let (Some(at_edge), true) = (&at_edge, leading == Some(number)) {
                self.noise = at_edge.noise;
            }
            odds.extend(
                at_edge.map_or([Odds::default(); EFFECTS.len()], |it| it.odds(self.allowed)),
            );
        }
        self.stakes.step(&odds, secs);
    }

    fn leading(&self) -> Option<usize> {
        let chance = |edge: usize| -> f64 {
            (0..EFFECTS.len()).map(|effect| self.stakes.chance(edge * EFFECTS.len() + effect)).sum()
        };
        (0..self.edges.len()).max_by(|a, b| chance(*a).total_cmp(&chance(*b)))
    }

    fn remember(&mut self, baseline: &Histogram) {
        let past = match &mut self.past {
            Some(past) if *past.edges == *baseline.edges => past,
            past @ (Some(_) | None) => past.insert(Past {
                edges: baseline.edges.clone(),
                beyond: vec![0.0; baseline.edges.len()],
                total: 0.0,
            }),
        };
        let mut beyond = 0.0;
        for (sum, count) in past.beyond.iter_mut().zip(&baseline.counts[1..]).rev() {
            beyond += count;
            *sum += beyond;
        }
        past.total += baseline.total();
    }
}

impl Past {
    fn tail(&self) -> Tail<'_> {
        Tail::new(&self.edges, &self.beyond, self.total)
    }
}

/// Position of an edge in a layout, by value.
pub fn edge_index(edges: &[f64], edge: f64) -> Option<usize> {
    edges.binary_search_by(|probe| probe.total_cmp(&edge)).ok()
}

/// Requests of one arm, apart by an edge.
#[derive(Clone, Copy)]
struct SlowCounts {
    slow: f64,
    total: f64,
}

impl SlowCounts {
    /// None where the layout has no such edge.
    fn of(histogram: &Histogram, edge: f64) -> Option<Self> {
        let slow = histogram.above(edge_index(&histogram.edges, edge)?);
        Some(Self { slow, total: histogram.total() })
    }

    /// None where an arm has no requests.
    fn beside(self, baseline: SlowCounts) -> Option<BothCounts> {
        let both = self.total > 0.0 && baseline.total > 0.0;
        both.then_some(BothCounts { canary: self, baseline })
    }
}

#[derive(Clone, Copy)]
struct BothCounts {
    canary: SlowCounts,
    baseline: SlowCounts,
}

impl BothCounts {
    fn noise(&self, share: f64, noise: &SignalCalibration, secs: f64) -> f64 {
        let expected = |arm: SlowCounts| share * arm.total / secs.max(f64::MIN_POSITIVE);
        let poisson = noise.comparison(expected(self.canary), expected(self.baseline));
        1.0 + (poisson - 1.0) / (1.0 - share)
    }
}

/// One look at one edge.
struct AtEdge {
    counts: BothCounts,
    share: f64,
    margin: f64,
    noise: f64,
}

impl AtEdge {
    fn odds(&self, allowed: Allowed) -> [Odds; EFFECTS.len()] {
        let (null, equal) = (self.log_likelihood(self.margin), self.log_likelihood(1.0));
        EFFECTS.map(|effect| {
            let log = self.log_likelihood((self.margin * effect).min(SLOW_SHARE_MAX / self.share));
            let null = (log - null) / self.noise;
            let equal = match allowed {
                Allowed::Times(_) => log - equal,
                // An amount allows so much more at one edge than at another that a canary may be far
                // from equal at the first and beyond the null at the second alone: there is the stake.
                Allowed::Plus(_) => null,
            };
            let odds = Odds { null, equal };
            // Counts beyond what a double can tell apart say nothing.
            if odds.null.is_finite() && odds.equal.is_finite() { odds } else { Odds::default() }
        })
    }

    /// Of how the look's requests fell to the arms, when slow ones are `ratio` times as frequent in
    /// the canary as in the baseline; less what does not depend on it.
    fn log_likelihood(&self, ratio: f64) -> f64 {
        let BothCounts { canary, baseline } = self.counts;
        let of_kind = |ratio: f64, canary_events: f64, baseline_events: f64| {
            canary_events * ratio.ln()
                - (canary_events + baseline_events) * (ratio * canary.total + baseline.total).ln()
        };
        let fast = (1.0 - ratio * self.share) / (1.0 - self.share);
        of_kind(ratio, canary.slow, baseline.slow)
            + of_kind(fast, canary.total - canary.slow, baseline.total - baseline.slow)
    }
}
