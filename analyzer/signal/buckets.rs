//! Bucket series become one histogram of increments.
//!
//! Series of different routes and of different instances are summed edge by edge. Where layouts
//! differ only the edges they share are kept: cumulative counts at a shared edge are exact.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    increments::{Increments, Series},
    sample::Labels,
};
use crate::engine::observation::{Histogram, Missing, Why};

/// Cumulative increments at finite edges, and in all.
#[derive(Clone, Debug, PartialEq)]
pub struct Cumulative {
    edges: Vec<f64>,
    counts: Vec<f64>,
    total: f64,
}

impl Cumulative {
    /// The increments of the bucket series of one instance, summed over its other labels. A
    /// histogram that cannot be read costs only itself when others are good.
    pub fn read(increments: &Increments<'_>, buckets: &[Series<'_>]) -> Result<Self, Missing> {
        let mut groups: BTreeMap<Labels, Vec<Series<'_>>> = BTreeMap::new();
        for series in buckets {
            groups.entry(series.sample.labels.without("le")).or_default().push(*series);
        }
        let (mut sum, mut fault): (Option<Self>, Option<Missing>) = (None, None);
        for group in groups.values() {
            match Self::of_group(increments, group) {
                Ok(one) => {
                    sum = Some(match sum {
                        Some(sum) => sum.plus(one),
                        None => one,
                    });
                }
                Err(missing) => fault = Some(missing),
            }
        }
        let none = || Missing::new(Why::NoTraffic, "no bucket that is selected has appeared yet");
        sum.ok_or_else(|| fault.unwrap_or_else(none))
    }

    fn of_group(increments: &Increments<'_>, group: &[Series<'_>]) -> Result<Self, Missing> {
        let counts = increments.of_group(group)?;
        let mut buckets = Vec::with_capacity(group.len());
        for (series, count) in group.iter().zip(counts) {
            let le = series.sample.labels.value("le");
            let edge = le.parse::<f64>().ok().filter(|edge| !edge.is_nan());
            let edge = edge.ok_or_else(|| {
                let detail = format!("{} has le=\"{le}\"", series.sample.name);
                Missing::new(Why::BucketLayout, detail)
            })?;
            buckets.push((edge, count));
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        // The same edge written twice (`1` and `1.0`) is one edge.
        buckets.dedup_by(|later, first| later.0 == first.0);
        let Some((_, total)) = buckets.pop().filter(|(edge, _)| *edge == f64::INFINITY) else {
            return Err(Missing::new(Why::BucketLayout, "a histogram without a +Inf bucket"));
        };
        let finite = buckets.into_iter().filter(|(edge, _)| edge.is_finite());
        let (edges, counts) = finite.unzip();
        Ok(Self { edges, counts, total })
    }

    /// The sum of two, on the edges they share.
    pub fn plus(mut self, other: Self) -> Self {
        self.total += other.total;
        if self.edges == other.edges {
            self.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
            return self;
        }
        let mut shared = (Vec::new(), Vec::new());
        for (edge, count) in self.edges.iter().zip(&self.counts) {
            if let Ok(index) = other.edges.binary_search_by(|probe| probe.total_cmp(edge)) {
                shared.0.push(*edge);
                shared.1.push(count + other.counts[index]);
            }
        }
        Self { edges: shared.0, counts: shared.1, total: self.total }
    }

    /// All requests.
    pub fn total(&self) -> f64 {
        self.total
    }

    /// Per bucket instead of cumulative; `last` lends its edges when the layout is the same.
    pub fn histogram(&self, last: &mut Arc<[f64]>) -> Result<Histogram, Missing> {
        if self.edges.is_empty() {
            return Err(Missing::new(Why::BucketLayout, "instances have no bucket edge in common"));
        }
        if **last != *self.edges {
            *last = self.edges.clone().into();
        }
        let mut below = 0.0;
        let mut counts: Vec<f64> = Vec::with_capacity(self.counts.len() + 1);
        for &count in self.counts.iter().chain([&self.total]) {
            // A scrape is not atomic: a bucket may be read a request earlier than the next one.
            counts.push((count - below).max(0.0));
            below = below.max(count);
        }
        Ok(Histogram { edges: last.clone(), counts })
    }
}
