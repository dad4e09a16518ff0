//! What the latencies of both arms say about every ratio of a quantile: its anytime-valid interval
//! and the proof that it lies within a margin.
//!
//! As in `quantile.rs`, requests slower than a bucket edge `x` are events, and if the canary's
//! latencies are `s` times the baseline's, the ratio of the shares of slower requests is
//! `r_x(s) = tail_b(x / s) / tail_b(x)`, by `tail.rs` from what the baseline showed *before* the
//! present look. So the profile over `s` at one edge is that of `profile.rs` with `r_x(s)` for `r`.
//! Only a few edges next to the quantile are looked at: far from it the scale model is of no interest.
//!
//! The interval holds what at least one of the two nearest edges does not rule out. Where latencies
//! are not scaled alike, edges disagree, and the interval spans what they say; their mean would come
//! out empty. The proof averages the e-values of all edges. It shows `s < F` by showing at those edges that the ratio of the shares is
//! below `r_x(F)`, lowered by one relative standard error of the tail's count, since a margin that
//! chance made too wide would let through what is beyond the true one.
//!
//! The table of `r_x(s)` is made anew whenever the baseline has grown by a quarter, so that a look
//! costs one logarithm per ratio and edge. Sources: as in `profile.rs`.

use std::sync::{Arc, LazyLock};

use super::{
    calibration::SignalCalibration,
    observation::Histogram,
    profile::{Interval, ODDS_MAX, Side, interval, log_mean_exp},
    quantile::edge_index,
    tail::{CALIBRATION_REQUESTS, EDGE_EVENTS_MIN, Tail, slower},
};

/// Most edges that are judged, those nearest the quantile.
const EDGES_MAX: usize = 4;

/// Edges that the interval rests on.
const INTERVAL_EDGES: usize = 2;

/// Edges are next to the quantile when the share of slower requests is within this factor of the
/// quantile's own.
const SHARE_FACTOR: f64 = 5.0;

/// By how much the baseline has to grow before the table is made anew.
const GROWTH: f64 = 1.25;

/// Ratios of the grid, and the position of 1 in it.
const SCALES: usize = 21;
const ALIKE: usize = 8;

/// Positions from which a proof takes ratios for possible: 0.65 and 1.53 times, or the margin.
const PROOF_REACH: usize = 5;

/// A ratio of shares below this is none that counts could tell from it.
const RATIO_MIN: f64 = 1e-3;

/// `ln s` is `0.2 sinh(0.3 i)`: 6 % apart near 1, from a third to 39.
static LN_SCALES: LazyLock<[f64; SCALES]> = LazyLock::new(|| {
    std::array::from_fn(|index| 0.2 * (0.3 * (index as f64 - ALIKE as f64)).sinh())
});

/// The profile of one quantile's ratio. A step is O(edges times ratios); state never grows.
#[derive(Clone, Debug)]
pub struct QuantileProfile {
    q: f64,
    margin: Option<(f64, Side)>,
    /// Baseline requests per bucket before the present look.
    history: Option<(Arc<[f64]>, Vec<f64>)>,
    /// How many there were when the tables were made.
    tabled: f64,
    edges: Vec<EdgeProfile>,
    interval: Option<Interval>,
    log_value: f64,
}

#[derive(Clone, Debug)]
struct EdgeProfile {
    edge: f64,
    table: Table,
    log_likelihoods: [f64; SCALES],
    /// Per alternative, `L(better of it and the margin) - L(margin)`; see [`proof_scales`].
    leads: [f64; 2 * PROOF_REACH + 1],
}

/// What the baseline says of one edge.
#[derive(Clone, Debug)]
struct Table {
    /// Share of its requests that are slower.
    share: f64,
    /// Noise intensity there, as a multiple of the signal's.
    noise_share: f64,
    ratios: [f64; SCALES],
    ln_ratios: [f64; SCALES],
    /// The ratio of shares at the margin, on the safe side of it.
    margin: f64,
}

/// The edge that a proof rests on most, for planning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeadingEdge {
    /// Share of the baseline's requests that are slower.
    pub share: f64,
    /// The ratio of shares that the margin allows.
    pub ratio: f64,
    /// Noise intensity there, as a multiple of the signal's.
    pub noise_share: f64,
    /// Nats by which "alike" is likelier than "at the margin".
    pub lead: f64,
}

impl QuantileProfile {
    /// A profile of quantile `q` that has seen nothing, with the margin to be shown, if any.
    pub fn new(q: f64, margin: Option<(f64, Side)>) -> Self {
        let (history, edges, interval) = (None, Vec::new(), None);
        Self { q, margin, history, tabled: 0.0, edges, interval, log_value: 0.0 }
    }

    /// The interval now; none before the baseline is known.
    pub fn interval(&self) -> Option<Interval> {
        self.interval
    }

    /// ln of the e-value that the ratio is on the good side of the margin; 0 without a margin.
    pub fn proof(&self) -> f64 {
        self.log_value
    }

    /// The edge that the proof rests on most; none before the baseline is known.
    pub fn leading_edge(&self) -> Option<LeadingEdge> {
        let lead = |edge: &EdgeProfile| edge.leads[PROOF_REACH];
        let edge = self.edges.iter().max_by(|a, b| lead(a).total_cmp(&lead(b)))?;
        let Table { share, margin: ratio, noise_share, .. } = edge.table;
        Some(LeadingEdge { share, ratio, noise_share, lead: lead(edge) })
    }

    /// Takes one look of `secs` seconds.
    pub fn step(
        &mut self,
        canary: Option<&Histogram>,
        baseline: Option<&Histogram>,
        noise: &SignalCalibration,
        secs: f64,
    ) {
        if let (Some(canary), Some(baseline)) = (canary, baseline) {
            self.tabulate(canary);
            self.judge(canary, baseline, noise, secs);
        }
        if let Some(baseline) = baseline {
            self.remember(baseline);
        }
    }

    /// Makes the tables anew once the baseline has grown, and chooses the edges the first time that
    /// there are any.
    fn tabulate(&mut self, canary: &Histogram) {
        let Some((edges, counts)) = &self.history else { return };
        let total: f64 = counts.iter().sum();
        if total < CALIBRATION_REQUESTS.max(self.tabled * GROWTH) {
            return;
        }
        self.tabled = total;
        let slower = slower(counts);
        let tail = Tail::new(edges, &slower, total);
        if self.edges.is_empty() {
            let wanted = 1.0 - self.q;
            let near = wanted / SHARE_FACTOR..=(wanted * SHARE_FACTOR).min(0.5);
            let mut found: Vec<(f64, f64)> = (0..edges.len())
                .map(|index| (edges[index], tail.share(index)))
                .filter(|&(edge, share)| {
                    near.contains(&share)
                        && share * total >= EDGE_EVENTS_MIN
                        && edge > 0.0
                        && edge_index(&canary.edges, edge).is_some()
                })
                .collect();
            let distance = |share: f64| (share / wanted).ln().abs();
            found.sort_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
            found.truncate(EDGES_MAX);
            self.edges = found
                .into_iter()
                .filter_map(|(edge, _)| {
                    let table = Table::new(&tail, edges, edge, self.q, self.margin)?;
                    let (log_likelihoods, leads) = ([0.0; SCALES], [0.0; 2 * PROOF_REACH + 1]);
                    Some(EdgeProfile { edge, table, log_likelihoods, leads })
                })
                .collect();
            return;
        }
        for profile in &mut self.edges {
            // An edge that is no longer there keeps the table of the time when it was.
            if let Some(table) = Table::new(&tail, edges, profile.edge, self.q, self.margin) {
                profile.table = table;
            }
        }
    }

    fn judge(
        &mut self,
        canary: &Histogram,
        baseline: &Histogram,
        noise: &SignalCalibration,
        secs: f64,
    ) {
        let totals = (canary.total(), baseline.total());
        let secs = secs.max(f64::MIN_POSITIVE);
        let mut moved = false;
        for profile in &mut self.edges {
            let at = (
                edge_index(&canary.edges, profile.edge),
                edge_index(&baseline.edges, profile.edge),
            );
            let (Some(of_canary), Some(of_baseline)) = at else { continue };
            let events = (canary.above(of_canary), baseline.above(of_baseline));
            if totals.0 <= 0.0 || totals.1 <= 0.0 || events.0 + events.1 <= 0.0 {
                continue;
            }
            let share = profile.table.share;
            let factor = noise
                .times(profile.table.noise_share)
                .comparison(share * totals.0 / secs, share * totals.1 / secs);
            profile.step(events, totals, factor, self.margin);
            moved = true;
        }
        if moved {
            self.conclude();
        }
    }

    fn conclude(&mut self) {
        // By ratio, ln of the least evidence against it at these edges, less than zero: the more
        // there is, the lower.
        let mut values = [f64::NEG_INFINITY; SCALES];
        for edge in self.edges.iter().take(INTERVAL_EDGES) {
            let against = log_mean_exp(edge.log_likelihoods.iter().copied());
            for (value, log_likelihood) in values.iter_mut().zip(&edge.log_likelihoods) {
                *value = value.max(log_likelihood - against);
            }
        }
        self.interval = Some(interval(&*LN_SCALES, &values, ODDS_MAX.ln()));
        if self.margin.is_some() {
            let leads = self.edges.iter().flat_map(|edge| edge.leads.iter().copied());
            self.log_value = log_mean_exp(leads);
        }
    }

    fn remember(&mut self, baseline: &Histogram) {
        match &mut self.history {
            Some((edges, counts)) if **edges == *baseline.edges => {
                counts.iter_mut().zip(&baseline.counts).for_each(|(sum, count)| *sum += count);
            }
            Some(_) | None => {
                self.tabled = 0.0;
                self.history = Some((baseline.edges.clone(), baseline.counts.clone()));
            }
        }
    }
}

impl EdgeProfile {
    fn step(
        &mut self,
        (canary_events, baseline_events): (f64, f64),
        (canary_total, baseline_total): (f64, f64),
        noise: f64,
        margin: Option<(f64, Side)>,
    ) {
        let events = canary_events + baseline_events;
        let alike = canary_total + baseline_total;
        let gain = |ln_ratio: f64, ratio: f64| {
            let d = (alike / (ratio * canary_total + baseline_total)).ln();
            (canary_events * ln_ratio + events * d) / noise
        };
        let mut gains = [0.0; SCALES];
        for (at, value) in gains.iter_mut().enumerate() {
            *value = gain(self.table.ln_ratios[at], self.table.ratios[at]);
            self.log_likelihoods[at] += *value;
        }
        let Some((_, side)) = margin else { return };
        let limit = self.table.margin;
        let at_limit = gain(limit.ln(), limit);
        for (lead, at) in self.leads.iter_mut().zip(ALIKE - PROOF_REACH..) {
            // An alternative that is not on the good side of the margin bets nothing.
            let good = match side {
                Side::Below => self.table.ratios[at] < limit,
                Side::Above => self.table.ratios[at] > limit,
            };
            if good {
                *lead += gains[at] - at_limit;
            }
        }
    }
}

impl Table {
    fn new(
        tail: &Tail<'_>,
        edges: &[f64],
        edge: f64,
        q: f64,
        margin: Option<(f64, Side)>,
    ) -> Option<Self> {
        let index = edge_index(edges, edge)?;
        let (share, events) = (tail.share(index), tail.events(index));
        if events < EDGE_EVENTS_MIN {
            return None;
        }
        let ratio = |scale: f64| (tail.share_beyond(edge / scale) / share).max(RATIO_MIN);
        let ratios = LN_SCALES.map(|ln| if ln == 0.0 { 1.0 } else { ratio(ln.exp()) });
        let widened = 1.0 + 1.0 / events.sqrt();
        let margin = match margin {
            Some((factor, Side::Below)) => ratio(factor) / widened,
            Some((factor, Side::Above)) => ratio(factor) * widened,
            None => 1.0,
        };
        let noise_share = tail.noise_share(index, q);
        Some(Self { share, noise_share, ratios, ln_ratios: ratios.map(f64::ln), margin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{calibration::Usual, noise::Origin};

    const EDGES: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

    /// Without noise: the factor is that of the rate profile, which has golden numbers of its own.
    const CALM: SignalCalibration = SignalCalibration {
        kappa_secs: 0.0,
        spread: 0.0,
        usual: Usual { events: 0.0, total: 0.0 },
        origin: Origin::Prior,
    };

    fn look(t: u32) -> [Histogram; 2] {
        let odd = f64::from(t % 2);
        let canary = [0.0, 1.0, 10.0, 20.0 + odd, 13.0, 4.0, 1.0 + odd, odd, 0.0, 0.0, 0.0, 0.0];
        let third = 20.0 + f64::from(t % 3);
        let baseline = [0.0, 2.0, third, 40.0, 25.0, 8.0, 3.0, 1.0 + odd, 0.0, 0.0, 0.0, 0.0];
        [canary, baseline].map(|counts| Histogram { edges: EDGES.into(), counts: counts.to_vec() })
    }

    /// Golden numbers by numpy and scipy: a program that keeps every look with the baseline's counts
    /// of the time, takes `r_x(s)` by `scipy.stats.norm.sf` of scores interpolated over ln x, sums
    /// `xc log(theta) + xb log(1 - theta)` and needs no grid for the interval; a proof is
    /// `logsumexp` over edges and alternatives less the logarithm of their number.
    #[test]
    fn profiles_equal_the_reference() {
        for (looks, [low, high, proof]) in [
            (30, [0.6517503784606307, 1.3422058017108303, 23.686782427280672]),
            (90, [0.7576058819278068, 1.1374200023961214, 89.51703936104511]),
        ] {
            let mut profile = QuantileProfile::new(0.95, Some((1.5, Side::Below)));
            for t in 1..=looks {
                let [canary, baseline] = look(t);
                profile.step(Some(&canary), Some(&baseline), &CALM, 2.0);
            }
            let found = profile.interval().expect("enough was seen");
            let near = |found: f64, golden: f64| (found / golden).ln().abs() < 0.03;
            assert!(near(found.low, low) && near(found.high, high), "{looks}: {found:?}");
            assert!((0.9..1.05).contains(&found.estimate), "{looks}: {found:?}");
            let shown = profile.proof();
            assert!((shown - proof).abs() < 1e-9 * proof, "{looks}: {shown}, {proof}");
        }
    }

    /// Layouts that change, arms that are silent, and counts of any size leave a profile that can be
    /// read.
    #[test]
    fn strange_histograms_do_no_harm() {
        let mut state = 88_172_645_463_325_252u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut profile = QuantileProfile::new(0.9, Some((1.2, Side::Below)));
        for _ in 0..3_000 {
            let mut arm = || {
                let edges = &EDGES[random(3) as usize..8 + random(4) as usize];
                let size = 10f64.powf(random(6) as f64 - 1.0);
                let counts = (0..=edges.len()).map(|_| random(4) as f64 * size).collect();
                (random(5) > 0).then(|| Histogram { edges: edges.into(), counts })
            };
            let (canary, baseline) = (arm(), arm());
            profile.step(canary.as_ref(), baseline.as_ref(), &SignalCalibration::default(), 1.0);
            assert!(!profile.proof().is_nan());
            if let Some(Interval { estimate, low, high }) = profile.interval() {
                assert!(low <= estimate && estimate <= high, "{low} {estimate} {high}");
            }
        }
        assert!(profile.leading_edge().is_some());
    }
}
