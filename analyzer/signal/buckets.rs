//! Bucket series become one histogram of increments.
//!
//! Series of different routes and of different instances are summed edge by edge. Where layouts
//! differ only the edges they share are kept: cumulative counts at a shared edge are exact.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    increments::Increments,
    sample::{Labels, Sample},
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
    /// The increments of the bucket series of one instance, summed over its other labels.
    pub fn read(increments: &Increments<'_>, buckets: &[&Sample]) -> Result<Self, Missing> {
        let mut groups: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in buckets {
            let le = sample.labels.value("le");
            let edge = le.parse::<f64>().ok().filter(|edge| !edge.is_nan());
            let edge = edge.ok_or_else(|| {
                Missing::new(Why::BucketLayout, format!("{} has le=\"{le}\"", sample.name))
            })?;
            let group = groups.entry(sample.labels.without("le")).or_default();
            group.push((edge, increments.of(sample)?));
        }
        let mut sum: Option<Self> = None;
        for (_, mut group) in groups {
            group.sort_by(|a, b| a.0.total_cmp(&b.0));
            let Some((edge, total)) = group.pop().filter(|(edge, _)| *edge == f64::INFINITY) else {
                return Err(Missing::new(Why::BucketLayout, "a histogram without a +Inf bucket"));
            };
            debug_assert_eq!(edge, f64::INFINITY);
            let (edges, counts) = group.into_iter().filter(|(edge, _)| edge.is_finite()).unzip();
            let one = Self { edges, counts, total };
            sum = Some(match sum {
                Some(sum) => sum.plus(one),
                None => one,
            });
        }
        sum.ok_or_else(|| Missing::new(Why::AbsentSeries, "no buckets"))
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
