//! Quantiles of classic histograms: the point estimate, and evidence that the canary's quantile is
//! beyond a multiple of the baseline's.
//!
//! The estimate interpolates inside a bucket exactly as the metrics servers' `histogram_quantile`
//! does. The evidence counts requests slower than a bucket edge `x` as events: if the canary's
//! latencies are at most `factor` times the baseline's, its share of requests slower than `x` is at
//! most `m_x = tail_b(x / factor) / tail_b(x)` times the baseline's. One evidence process runs per
//! edge, with `m_x` taken from what the baseline showed before the present look (so the process
//! stays valid), and the e-values are averaged. An edge joins as soon as the baseline has shown
//! enough requests beyond it.
//!
//! Deliberately absent: any assumption about the shape of the latencies.

use std::sync::Arc;

use super::{
    evidence::{Counts, EFFECTS, OnsetMixture, baseline_ratios},
    noise::comparison_noise,
    observation::Histogram,
};

/// Baseline requests that must have been seen before any margin is estimated from them.
pub const CALIBRATION_REQUESTS: f64 = 400.0;

/// Baseline requests that must lie above an edge for the edge to be used: the margin of an edge
/// with fewer is mostly chance.
const EDGE_EVENTS_MIN: f64 = 10.0;

/// Edges whose baseline tail share lies in this range carry information about high quantiles.
const TAIL_SHARES: std::ops::RangeInclusive<f64> = 0.005..=0.40;

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

/// Evidence that a quantile of the canary exceeds `factor` times the baseline's.
#[derive(Clone, Debug)]
pub struct QuantileEvidence {
    factor: f64,
    horizon: u32,
    /// Baseline requests per bucket before the present look.
    history: Option<(Arc<[f64]>, Vec<f64>)>,
    history_secs: f64,
    edges: Vec<EdgeProcess>,
    log_value: f64,
    noise: f64,
}

#[derive(Clone, Debug)]
struct EdgeProcess {
    edge: f64,
    /// ln of the mean e-value when the edge came in: that is what was shared out to it.
    head_start: f64,
    mixture: OnsetMixture,
}

impl EdgeProcess {
    fn log_value(&self) -> f64 {
        self.head_start + self.mixture.log_value()
    }
}

impl QuantileEvidence {
    /// `factor` is at least 1, `horizon` in looks.
    pub fn new(factor: f64, horizon: u32) -> Self {
        let (history, edges) = (None, Vec::new());
        Self { factor, horizon, history, history_secs: 0.0, edges, log_value: 0.0, noise: 1.0 }
    }

    /// ln of the e-value now.
    pub fn log_value(&self) -> f64 {
        self.log_value
    }

    /// The noise factor of the edge that carries most evidence.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// The edge that carries most evidence, and how many edges are judged.
    pub fn leading_edge(&self) -> Option<(f64, usize)> {
        self.edges
            .iter()
            .max_by(|a, b| a.log_value().total_cmp(&b.log_value()))
            .map(|process| (process.edge, self.edges.len()))
    }

    /// Baseline requests seen so far, until the edges are chosen.
    pub fn calibrating(&self) -> Option<f64> {
        if !self.edges.is_empty() {
            return None;
        }
        Some(self.history.as_ref().map_or(0.0, |(_, counts)| counts.iter().sum()))
    }

    /// Takes one look of `secs` seconds. Margins come from the looks before this one.
    pub fn step(
        &mut self,
        canary: Option<&Histogram>,
        baseline: Option<&Histogram>,
        kappa: f64,
        secs: f64,
    ) {
        self.choose_edges(canary);
        if let (Some(canary), Some(baseline)) = (canary, baseline) {
            self.judge(canary, baseline, kappa, secs);
        }
        if let Some(baseline) = baseline {
            self.remember(baseline, secs);
        }
    }

    /// Takes in the edges that have become usable. A rare edge does so long after a common one: the
    /// 99th percentile's needs a thousand requests. Each begins with the mean e-value of that moment,
    /// so that the mean does not move; sharing out what was won, by what was seen before, is a fair
    /// bet, and the mean stays an e-process.
    fn choose_edges(&mut self, canary: Option<&Histogram>) {
        let (Some((edges, counts)), Some(canary)) = (&self.history, canary) else { return };
        let total: f64 = counts.iter().sum();
        if total < CALIBRATION_REQUESTS {
            return;
        }
        let head_start = self.log_value;
        for (index, &edge) in edges.iter().enumerate() {
            let above: f64 = counts[index + 1..].iter().sum();
            let usable = TAIL_SHARES.contains(&(above / total)) && above >= EDGE_EVENTS_MIN;
            let common = edge > 0.0 && edge_index(&canary.edges, edge).is_some();
            let known = || self.edges.iter().any(|process| process.edge == edge);
            if usable && common && self.edges.len() < EDGES_MAX && !known() {
                let mixture = OnsetMixture::new(self.horizon);
                self.edges.push(EdgeProcess { edge, head_start, mixture });
            }
        }
    }

    fn judge(&mut self, canary: &Histogram, baseline: &Histogram, kappa: f64, secs: f64) {
        let Some((edges, counts)) = &self.history else { return };
        let history = Tail::new(edges, counts);
        let (canary_total, baseline_total) = (canary.total(), baseline.total());
        let mut top = f64::NEG_INFINITY;
        for process in &mut self.edges {
            let margin = history.margin(process.edge, self.factor);
            let at = (
                edge_index(&canary.edges, process.edge),
                edge_index(&baseline.edges, process.edge),
            );
            let (Some((margin, share)), (Some(of_canary), Some(of_baseline))) = (margin, at) else {
                // Nothing can be said of this edge at this look; the onset prior still passes.
                process.mixture.step(&[0.0; EFFECTS.len()]);
                continue;
            };
            let noise = comparison_noise(
                kappa,
                share * canary_total / secs.max(f64::MIN_POSITIVE),
                share * baseline_total / secs.max(f64::MIN_POSITIVE),
            );
            let counts = Counts {
                canary_events: canary.above(of_canary),
                canary_total,
                baseline_events: baseline.above(of_baseline),
                baseline_total,
            };
            process.mixture.step(&baseline_ratios(&counts, margin, noise));
            if process.log_value() > top {
                top = process.log_value();
                self.noise = noise;
            }
        }
        self.log_value = log_mean(self.edges.iter().map(EdgeProcess::log_value));
    }

    fn remember(&mut self, baseline: &Histogram, secs: f64) {
        self.history_secs += secs;
        match &mut self.history {
            Some((edges, counts)) if **edges == *baseline.edges => {
                counts.iter_mut().zip(&baseline.counts).for_each(|(sum, count)| *sum += count);
            }
            Some(_) | None => {
                self.history = Some((baseline.edges.clone(), baseline.counts.clone()));
            }
        }
    }
}

/// Position of an edge in a layout, by value.
pub fn edge_index(edges: &[f64], edge: f64) -> Option<usize> {
    edges.binary_search_by(|probe| probe.total_cmp(&edge)).ok()
}

/// By how much the share of requests beyond `edge` may exceed the baseline's, when latencies may be
/// `factor` times as long; none when the baseline has shown too few.
pub fn allowed_tail(edges: &[f64], counts: &[f64], edge: f64, factor: f64) -> Option<f64> {
    Tail::new(edges, counts).margin(edge, factor).map(|(allowed, _)| allowed)
}

/// Share of requests beyond a latency, as a baseline showed it.
struct Tail<'a> {
    edges: &'a [f64],
    counts: &'a [f64],
    total: f64,
}

impl<'a> Tail<'a> {
    fn new(edges: &'a [f64], counts: &'a [f64]) -> Self {
        Self { edges, counts, total: counts.iter().sum() }
    }

    fn beyond(&self, index: usize) -> f64 {
        self.counts[index + 1..].iter().sum::<f64>() / self.total
    }

    /// Allowed ratio of tail shares at `edge`, and the baseline's own share there.
    ///
    /// The ratio is widened by one relative standard error of the tail's count: a margin that
    /// chance made too small would look like a regression at every later look. There is none before
    /// enough requests were seen: a baseline that changes its layout is learned anew.
    fn margin(&self, edge: f64, factor: f64) -> Option<(f64, f64)> {
        let index = edge_index(self.edges, edge)?;
        let share = self.beyond(index);
        if self.total < CALIBRATION_REQUESTS || share * self.total < EDGE_EVENTS_MIN {
            return None;
        }
        let widened = 1.0 + 1.0 / (share * self.total).sqrt();
        let allowed = (self.interpolated(edge / factor) / share).max(1.0);
        Some((allowed * widened, share))
    }

    /// ln tail is interpolated over ln x between edges; below the lowest edge everything counts.
    fn interpolated(&self, x: f64) -> f64 {
        let right = self.edges.partition_point(|&edge| edge < x);
        if right == 0 || self.edges[right - 1] <= 0.0 {
            return 1.0;
        }
        let left = right - 1;
        let (tail_left, tail_right) =
            (self.beyond(left), self.beyond(right.min(self.edges.len() - 1)));
        if right >= self.edges.len() || tail_right <= 0.0 {
            return tail_left;
        }
        let (x_left, x_right) = (self.edges[left], self.edges[right]);
        let share = (x / x_left).ln() / (x_right / x_left).ln();
        (tail_left.ln() + share * (tail_right / tail_left).ln()).exp()
    }
}

/// ln of the mean of e-values given as logarithms; 0 for none.
fn log_mean(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return 0.0;
    }
    let (count, sum) =
        values.fold((0.0, 0.0), |(n, sum), value| (n + 1.0, sum + (value - top).exp()));
    top + (sum / count).ln()
}
