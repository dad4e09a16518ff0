//! Bucket series become one histogram of increments.
//!
//! Series of different routes and of different instances are summed edge by edge. Where layouts
//! differ only the edges they share are kept: cumulative counts at a shared edge are exact. Custom
//! buckets are listed without the empty ones, so there the count at an edge that only one has is also
//! known to the other where nothing lies around it.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    increments::{Increments, Series},
    sample::{Labels, Sample},
};
use crate::engine::{
    native::NativeHistogram,
    observation::{Histogram, Missing, Why},
};

/// Cumulative increments at finite edges, and in all.
#[derive(Clone, Debug, PartialEq)]
pub struct Cumulative {
    edges: Vec<f64>,
    counts: Vec<f64>,
    total: f64,
    /// Whether edges around empty buckets were left out.
    is_sparse: bool,
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
        Ok(Self { edges, counts, total, is_sparse: false })
    }

    /// What a native histogram counted, at the bounds of its fixed layout.
    pub fn of_native(native: &NativeHistogram) -> Self {
        let Histogram { edges, counts } = native.classic();
        let below = counts.iter().scan(0.0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        Self {
            counts: below.take(edges.len()).collect(),
            edges: edges.to_vec(),
            total: native.total(),
            is_sparse: false,
        }
    }

    /// The sum of two, on the edges they share.
    pub fn plus(mut self, other: Self) -> Self {
        if self.is_sparse || other.is_sparse {
            return self.plus_known(&other);
        }
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
        Self { edges: shared.0, counts: shared.1, total: self.total, is_sparse: false }
    }

    /// The same on every edge at which both counts are known.
    fn plus_known(self, other: &Self) -> Self {
        let mut edges = self.edges.clone();
        edges.extend(&other.edges);
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let at = |edge: &f64| Some((*edge, self.known_at(*edge)? + other.known_at(*edge)?));
        let (edges, counts) = edges.iter().filter_map(at).unzip();
        let (total, is_sparse) = (self.total + other.total, self.is_sparse && other.is_sparse);
        Self { edges, counts, total, is_sparse }
    }

    /// The count up to an edge, when it is an own one or lies where nothing was counted.
    fn known_at(&self, edge: f64) -> Option<f64> {
        let place = match self.edges.binary_search_by(|probe| probe.total_cmp(&edge)) {
            Ok(place) => return Some(self.counts[place]),
            Err(place) if self.is_sparse => place,
            Err(_) => return None,
        };
        let below = place.checked_sub(1).map_or(0.0, |place| self.counts[place]);
        let above = self.counts.get(place).copied().unwrap_or(self.total);
        (below == above).then_some(below)
    }

    /// The increments of the custom buckets of one instance, summed over its other labels.
    pub fn read_custom(
        increments: &Increments<'_>,
        buckets: &[Series<'_>],
    ) -> Result<Self, Missing> {
        let mut groups: BTreeMap<Labels, Vec<Series<'_>>> = BTreeMap::new();
        for series in buckets {
            let labels = series.sample.labels.without("le").without(Sample::LOWER);
            groups.entry(labels).or_default().push(*series);
        }
        let mut sum: Option<Self> = None;
        for group in groups.values() {
            let counts = increments.of_group(group)?;
            let bound = |series: &Series<'_>, label| {
                let bound = series.sample.labels.value(label);
                bound.parse::<f64>().ok().filter(|bound| !bound.is_nan()).ok_or_else(|| {
                    let detail = format!("{} has {label}=\"{bound}\"", series.sample.name);
                    Missing::new(Why::BucketLayout, detail)
                })
            };
            let mut listed = Vec::with_capacity(group.len());
            for (series, count) in group.iter().zip(counts) {
                listed.push((bound(series, Sample::LOWER)?, bound(series, "le")?, count));
            }
            let one = Self::of_listed(listed);
            sum = Some(match sum {
                Some(sum) => sum.plus(one),
                None => one,
            });
        }
        sum.ok_or_else(|| Missing::new(Why::NoTraffic, "no bucket has appeared yet"))
    }

    /// Cumulative counts of `(lower, upper, count)` that do not overlap.
    fn of_listed(mut listed: Vec<(f64, f64, f64)>) -> Self {
        listed.sort_by(|a, b| a.1.total_cmp(&b.1));
        let bounds = listed.iter().flat_map(|(lower, upper, _)| [*lower, *upper]);
        let mut edges: Vec<f64> = bounds.filter(|edge| edge.is_finite()).collect();
        edges.sort_by(f64::total_cmp);
        edges.dedup();
        let (mut rest, mut sum) = (listed.iter().peekable(), 0.0);
        let mut counts = Vec::with_capacity(edges.len());
        for edge in &edges {
            while let Some((.., count)) = rest.next_if(|(_, upper, _)| upper <= edge) {
                sum += count;
            }
            counts.push(sum);
        }
        let total = rest.fold(sum, |sum, (.., count)| sum + count);
        Self { edges, counts, total, is_sparse: true }
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
