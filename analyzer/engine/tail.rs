//! What a baseline's past says of slow requests: the share beyond any latency, how much of it a
//! slower canary may have, and how far noise moves it.
//!
//! Between two bucket edges the share is interpolated on normal scores over the logarithm of the
//! latency: exact for log-normal latencies, and close for the other shapes that latencies take. A
//! straight line in ln share would lie below all of them and so allow a slower canary too little.

use std::sync::OnceLock;

use statrs::distribution::{ContinuousCDF, Normal};

use super::rule::Allowed;

/// Baseline requests that must have been seen before any margin is estimated from them.
pub const CALIBRATION_REQUESTS: f64 = 400.0;

/// Baseline requests that must lie above an edge for the edge to be used: the margin of an edge
/// with fewer is mostly chance.
pub const EDGE_EVENTS_MIN: f64 = 10.0;

/// Edges whose baseline tail share lies in this range carry information about high quantiles.
const TAIL_SHARES: std::ops::RangeInclusive<f64> = 0.005..=0.40;

/// Beyond this share a slower canary has no room left to show it.
const ALLOWED_SHARE_MAX: f64 = 0.9;

/// Slowdown by which the steepness of the tail is taken.
const STEEPNESS_FACTOR: f64 = 1.2;

/// How much less and more noise an edge is taken to have than the quantile itself.
const NOISE_SHARES: (f64, f64) = (0.2, 4.0);

/// The past of one arm's latencies.
#[derive(Clone, Copy, Debug)]
pub struct Tail<'a> {
    edges: &'a [f64],
    /// Requests beyond each edge.
    beyond: &'a [f64],
    total: f64,
}

impl<'a> Tail<'a> {
    /// `beyond` holds the requests slower than each of `edges`, of `total`.
    pub fn new(edges: &'a [f64], beyond: &'a [f64], total: f64) -> Self {
        Self { edges, beyond, total }
    }

    /// Whether enough has been seen to judge at edge number `index` how far the quantile `q` is from
    /// what is `allowed`. By an amount an edge far beyond the quantile may tell most: it is looked at
    /// where a canary that is just allowed would have slow requests enough.
    pub fn is_usable(&self, index: usize, q: f64, allowed: Allowed) -> bool {
        let too_common = self.share(index) > *TAIL_SHARES.end();
        if !self.is_known(index) || self.edges[index] <= 0.0 || too_common {
            return false;
        }
        let share = match allowed {
            Allowed::Times(_) => self.share(index),
            Allowed::Plus(_) => self.share_allowed(index, q, allowed).min(*TAIL_SHARES.end()),
        };
        TAIL_SHARES.contains(&share)
    }

    fn is_known(&self, index: usize) -> bool {
        self.total >= CALIBRATION_REQUESTS && self.beyond[index] >= EDGE_EVENTS_MIN
    }

    /// Share of requests beyond edge number `index`, and by how much more a canary may have whose
    /// quantile `q` is as far from this one's as is `allowed`; none where too little is known, or
    /// nothing could be seen.
    ///
    /// So many times as slow: all latencies are. By an amount slower: each by that, or all in the
    /// proportion by which the quantile is, whichever explains more slow requests. The quantile is
    /// at its bound either way, and below it the one, beyond it the other allows more.
    pub fn margin(&self, index: usize, q: f64, allowed: Allowed) -> Option<(f64, f64)> {
        if !self.is_known(index) {
            return None;
        }
        let (share, allowed) = (self.share(index), self.share_allowed(index, q, allowed));
        (allowed <= ALLOWED_SHARE_MAX).then_some((share, allowed / share))
    }

    /// The share of requests beyond an edge that a canary is allowed.
    fn share_allowed(&self, index: usize, q: f64, allowed: Allowed) -> f64 {
        let edge = self.edges[index];
        let before = match allowed {
            Allowed::Times(factor) => edge / factor,
            Allowed::Plus(amount) => {
                let in_proportion =
                    self.quantile(q).map_or(edge, |quantile| edge * quantile / (quantile + amount));
                in_proportion.min(edge - amount)
            }
        };
        self.share_beyond(before).max(self.share(index))
    }

    /// Noise intensity of the share beyond an edge, as a multiple of that of the share beyond the
    /// quantile `q`. Noise is taken to move the level of all latencies, so a share wanders by as
    /// much as the tail is steep there: a common edge is much calmer than a rare one.
    pub fn noise_share(&self, index: usize, q: f64) -> f64 {
        let Some(quantile) = self.quantile(q) else { return 1.0 };
        let steepness = |x: f64, share: f64| (self.share_beyond(x / STEEPNESS_FACTOR) / share).ln();
        let there = steepness(quantile, 1.0 - q);
        let here = steepness(self.edges[index], self.share(index));
        // A tail that is flat at the quantile says nothing of its noise.
        if there <= 0.0 || !here.is_finite() {
            return 1.0;
        }
        (here / there).powi(2).clamp(NOISE_SHARES.0, NOISE_SHARES.1)
    }

    /// Share of requests slower than edge number `index`.
    pub fn share(&self, index: usize) -> f64 {
        self.beyond[index] / self.total
    }

    /// Requests slower than edge number `index`.
    pub fn events(&self, index: usize) -> f64 {
        self.beyond[index]
    }

    /// Share of requests slower than `x`. Below the lowest edge everything counts.
    pub fn share_beyond(&self, x: f64) -> f64 {
        let right = self.edges.partition_point(|&edge| edge < x);
        if x > 0.0 && self.edges.get(right) == Some(&x) {
            return self.share(right);
        }
        if right == 0 || self.edges[right - 1] <= 0.0 {
            return 1.0;
        }
        let Some(&x_right) = self.edges.get(right) else {
            return self.beyond[right - 1] / self.total;
        };
        let x_left = self.edges[right - 1];
        let (z_left, z_right) = (self.score(right - 1), self.score(right));
        let at = (x / x_left).ln() / (x_right / x_left).ln();
        standard().sf(z_left + at * (z_right - z_left))
    }

    /// The latency beyond which a share `1 - q` lies; none outside the edges.
    fn quantile(&self, q: f64) -> Option<f64> {
        let right =
            (0..self.edges.len()).find(|&edge| self.beyond[edge] <= (1.0 - q) * self.total)?;
        let left = right.checked_sub(1).filter(|&left| self.edges[left] > 0.0)?;
        let (z_left, z_right) = (self.score(left), self.score(right));
        let at = (standard().inverse_cdf(q) - z_left) / (z_right - z_left);
        let (x_left, x_right) = (self.edges[left], self.edges[right]);
        Some(x_left * (x_right / x_left).powf(at.clamp(0.0, 1.0)))
    }

    /// Normal score of an edge. An edge beyond which nothing, or everything, lies is half a request
    /// away from that.
    fn score(&self, index: usize) -> f64 {
        let beyond = self.beyond[index].clamp(0.5, (self.total - 0.5).max(0.5));
        -standard().inverse_cdf(beyond / self.total)
    }
}

/// Requests slower than each edge, of counts per bucket.
pub fn slower(counts: &[f64]) -> Vec<f64> {
    let mut sum = 0.0;
    let from_last = counts.iter().skip(1).rev().map(|count| {
        sum += count;
        sum
    });
    let mut slower: Vec<f64> = from_last.collect();
    slower.reverse();
    slower
}

/// The standard normal distribution.
fn standard() -> &'static Normal {
    static STANDARD: OnceLock<Normal> = OnceLock::new();
    STANDARD.get_or_init(Normal::standard)
}
