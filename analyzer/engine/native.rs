//! Native histograms: buckets whose bounds are powers of a base, written sparsely.
//!
//! Bucket `i` of schema `s` counts values in `(2^((i-1) / 2^s), 2^(i / 2^s)]`: each step down in
//! schema joins two neighbours into one, so histograms of different resolution are merged exactly
//! at the coarser one. Values within `zero_threshold` of zero share one bucket; values below it
//! are counted there too, since nothing that is judged here (latencies, sizes) is negative.
//!
//! The estimate is that of Prometheus 3 (`promql/quantile.go`, read in release 3.5): inside a
//! bucket values are taken as evenly spread over the logarithm. Prometheus 2.40 to 2.55 spread them
//! linearly; the two differ by less than a tenth of a bucket's width at the usual resolutions.
//!
//! Evidence wants bounds that stay the same over looks and arms: [`NativeHistogram::classic`] gives
//! a fixed layout, in which every bound is one of the histogram's own and every count is exact.

use std::sync::{Arc, LazyLock};

use super::observation::Histogram;

/// Schemas there are, from buckets that grow by 65,536 to buckets that grow by 0.27 %.
pub const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// Most buckets kept of one histogram; beyond this its resolution is halved, as the metrics server's
/// `native_histogram_bucket_limit` does. 160 is what the client libraries allow themselves.
pub const NATIVE_BUCKETS_MAX: usize = 160;

/// Largest index of a bucket on either side: at the finest schema the largest double is in bucket
/// 262,144 and the smallest in bucket -274,944.
pub const INDEX_MAX: i32 = 1 << 19;

/// Counts of a native histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct NativeHistogram {
    /// Resolution, one of [`SCHEMAS`].
    pub schema: i32,
    /// Values up to this are in the zero bucket; at least 0 and finite.
    pub zero_threshold: f64,
    /// Values in the zero bucket or below it.
    pub zero_count: f64,
    /// Index and count of each bucket that is not empty, in ascending order.
    pub buckets: Vec<(i32, f64)>,
}

impl NativeHistogram {
    /// One that has counted nothing, at the finest resolution.
    pub fn empty() -> Self {
        let schema = *SCHEMAS.end();
        Self { schema, zero_threshold: 0.0, zero_count: 0.0, buckets: Vec::new() }
    }

    /// All values in it.
    pub fn total(&self) -> f64 {
        self.buckets.iter().fold(self.zero_count, |sum, (_, count)| sum + count)
    }

    /// Joins neighbours down to a coarser schema; a finer one changes nothing.
    pub fn coarsen(&mut self, schema: i32) {
        let schema = schema.max(*SCHEMAS.start());
        if schema >= self.schema {
            return;
        }
        let steps = self.schema - schema;
        let mut joined: Vec<(i32, f64)> = Vec::with_capacity(self.buckets.len());
        for &(index, count) in &self.buckets {
            let index = coarser(index, steps);
            match joined.last_mut() {
                Some((last, sum)) if *last == index => *sum += count,
                Some(_) | None => joined.push((index, count)),
            }
        }
        (self.schema, self.buckets) = (schema, joined);
    }

    /// Halves the resolution until there are no more than `limit` buckets, or it cannot be halved.
    pub fn bound(&mut self, limit: usize) {
        while self.buckets.len() > limit && self.schema > *SCHEMAS.start() {
            self.coarsen(self.schema - 1);
        }
    }

    /// Makes the zero bucket at least this wide. A bucket that it cuts is swallowed whole, and the
    /// zero bucket then ends where that one did.
    pub fn widen_zero(&mut self, threshold: f64) {
        if threshold <= self.zero_threshold {
            return;
        }
        self.zero_threshold = threshold;
        let schema = self.schema;
        let swallowed = self
            .buckets
            .iter()
            .take_while(|(index, _)| upper_edge(schema, index - 1) < threshold)
            .count();
        for (index, count) in self.buckets.drain(..swallowed) {
            self.zero_count += count;
            self.zero_threshold = self.zero_threshold.max(upper_edge(schema, index));
        }
    }

    /// Brings two to the same schema and zero bucket, without loss beyond the coarser resolution.
    pub fn align(&mut self, other: &mut Self) {
        let schema = self.schema.min(other.schema);
        self.coarsen(schema);
        other.coarsen(schema);
        // A threshold that swallows a bucket of the one grows, and may then cut one of the other.
        while self.zero_threshold != other.zero_threshold {
            self.widen_zero(other.zero_threshold);
            other.widen_zero(self.zero_threshold);
        }
    }

    /// Adds another's counts, at the coarser of both resolutions.
    pub fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        self.align(&mut other);
        self.zero_count += other.zero_count;
        let mut sum = Vec::with_capacity(self.buckets.len().max(other.buckets.len()));
        let mut theirs = other.buckets.into_iter().peekable();
        for (index, count) in self.buckets.drain(..) {
            while let Some(one) = theirs.next_if(|(theirs, _)| *theirs < index) {
                sum.push(one);
            }
            let same = theirs.next_if(|(theirs, _)| *theirs == index);
            sum.push((index, count + same.map_or(0.0, |(_, count)| count)));
        }
        sum.extend(theirs);
        self.buckets = sum;
        self.bound(NATIVE_BUCKETS_MAX);
    }

    /// What was counted since `before`; none when a count fell, which a counter that was not reset
    /// never does. Whether it was is judged at the coarser of both resolutions.
    pub fn since(&self, before: &Self) -> Option<Self> {
        let (mut now, mut before) = (self.clone(), before.clone());
        now.align(&mut before);
        now.zero_count -= before.zero_count;
        let mut marks = before.buckets.into_iter().peekable();
        for (index, count) in &mut now.buckets {
            if let Some((_, mark)) = marks.next_if(|(mark, _)| mark == index) {
                *count -= mark;
            }
        }
        // A mark that is left over belongs to a bucket that is gone.
        let fell = now.zero_count < 0.0
            || marks.peek().is_some()
            || now.buckets.iter().any(|(_, count)| *count < 0.0);
        now.buckets.retain(|(_, count)| *count > 0.0);
        (!fell).then_some(now)
    }

    /// Quantile `q`, in the unit of the values; none when there are none.
    pub fn estimate(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total <= 0.0 {
            return None;
        }
        let zero = (self.zero_count > 0.0).then(|| {
            // With no values above it the zero bucket reaches to both sides of zero.
            let lower = if self.buckets.is_empty() { -self.zero_threshold } else { 0.0 };
            (lower, self.zero_threshold, self.zero_count)
        });
        let schema = self.schema;
        let bounds = |&(index, count): &(i32, f64)| {
            (upper_edge(schema, index - 1), upper_edge(schema, index), count)
        };
        // From the nearer end, as the server does: the sums then round in the same way.
        let ((lower, upper, count), share) = if q < 0.5 {
            let rank = q * total;
            let forwards = zero.into_iter().chain(self.buckets.iter().map(bounds));
            let (bucket, passed) = reaching(rank, forwards)?;
            (bucket, rank - passed)
        } else {
            let rank = (1.0 - q) * total;
            let backwards = self.buckets.iter().rev().map(bounds).chain(zero);
            let (bucket, passed) = reaching(rank, backwards)?;
            (bucket, passed + bucket.2 - rank)
        };
        let fraction = (share / count).clamp(0.0, 1.0);
        if lower <= 0.0 {
            return Some(lower + (upper - lower) * fraction);
        }
        let (lower, upper) = (lower.log2(), upper.log2());
        Some((lower + (upper - lower) * fraction).exp2())
    }

    /// The lowest bound at or above a limit, and how many values are beyond it.
    pub fn above(&self, limit: f64) -> (f64, f64) {
        let index = index_of(self.schema, limit);
        let edge = upper_edge(self.schema, index);
        if edge <= self.zero_threshold {
            return (self.zero_threshold, self.total() - self.zero_count);
        }
        let beyond = self.buckets.iter().filter(|(bucket, _)| *bucket > index);
        (edge, beyond.map(|(_, count)| count).sum())
    }

    /// The highest bound at or below a limit, and how many values are beyond it; none where the
    /// limit lies within the zero bucket.
    pub fn above_lower(&self, limit: f64) -> Option<(f64, f64)> {
        let above = index_of(self.schema, limit);
        let index = if upper_edge(self.schema, above) > limit { above - 1 } else { above };
        let edge = upper_edge(self.schema, index);
        if edge <= self.zero_threshold {
            let at = (self.zero_threshold, self.total() - self.zero_count);
            return (self.zero_threshold <= limit).then_some(at);
        }
        let beyond = self.buckets.iter().filter(|(bucket, _)| *bucket > index);
        Some((edge, beyond.map(|(_, count)| count).sum()))
    }

    /// The same counts between fixed bounds, at a quarter of a doubling or as fine as the schema is.
    ///
    /// Every bound is a bound of this histogram, so no count is guessed, and the bounds depend on
    /// nothing but the schema. From 61 us to 4.5 h (in seconds) they are fine, beyond that each is
    /// twice the one before.
    pub fn classic(&self) -> Histogram {
        let steps = (self.schema - CLASSIC_SCHEMA).max(0);
        let schema = self.schema.min(CLASSIC_SCHEMA);
        let layout = &LAYOUTS[(schema - SCHEMAS.start()) as usize];
        let mut counts = vec![0.0; layout.indices.len() + 1];
        // A bucket wider than the distance between two bounds has none inside it.
        let mut put = |index: i32, count: f64| {
            counts[layout.indices.partition_point(|bound| *bound < index)] += count;
        };
        if self.zero_count > 0.0 {
            let index = match self.zero_threshold {
                threshold if threshold > 0.0 => index_of(schema, threshold),
                _ => i32::MIN,
            };
            put(index, self.zero_count);
        }
        for &(index, count) in &self.buckets {
            put(coarser(index, steps), count);
        }
        Histogram { edges: layout.edges.clone(), counts }
    }
}

/// The first bucket at which the counts reach `rank`, and what was passed before it.
fn reaching(
    rank: f64,
    buckets: impl IntoIterator<Item = (f64, f64, f64)>,
) -> Option<((f64, f64, f64), f64)> {
    let (mut passed, mut last) = (0.0, None);
    for bucket in buckets {
        if let Some((_, _, count)) = last {
            passed += count;
        }
        last = Some(bucket);
        if passed + bucket.2 >= rank {
            break;
        }
    }
    last.map(|bucket| (bucket, passed))
}

/// Index of a bucket after `steps` halvings of the resolution.
fn coarser(index: i32, steps: i32) -> i32 {
    ((index - 1) >> steps) + 1
}

/// Upper bound of bucket `index`: exact where it is a power of two.
pub fn upper_edge(schema: i32, index: i32) -> f64 {
    if schema <= 0 {
        return (f64::from(index) * f64::from(1 << -schema)).exp2();
    }
    let per_doubling = 1 << schema;
    let fraction = f64::from(index.rem_euclid(per_doubling)) / f64::from(per_doubling);
    fraction.exp2() * f64::from(index.div_euclid(per_doubling)).exp2()
}

/// Index of the bucket that counts a positive value.
pub fn index_of(schema: i32, value: f64) -> i32 {
    let per_doubling = f64::from(schema).exp2();
    let near = (value.log2() * per_doubling).ceil();
    // Of zero and below the logarithm is no number, or lower than that of any bound.
    let near = if value > 0.0 { near as i32 } else { i32::MIN };
    let near = near.clamp(1 - INDEX_MAX, INDEX_MAX - 1);
    // The logarithm of a bound may come out on the wrong side of it.
    (near - 1..=near + 1).find(|index| upper_edge(schema, *index) >= value).unwrap_or(near)
}

/// Resolution of the fixed layout: bounds grow by 19 %, finer than the usual classic ones.
const CLASSIC_SCHEMA: i32 = 2;

/// Where the fixed layout is fine, and where it ends, in doublings from 1.
const FINE: std::ops::RangeInclusive<i32> = -14..=14;
const WHOLE: std::ops::RangeInclusive<i32> = -30..=34;

struct Layout {
    indices: Vec<i32>,
    edges: Arc<[f64]>,
}

/// One layout per schema up to [`CLASSIC_SCHEMA`].
static LAYOUTS: LazyLock<Vec<Layout>> = LazyLock::new(|| {
    (*SCHEMAS.start()..=CLASSIC_SCHEMA)
        .map(|schema| {
            // Bounds at this schema, each with the doubling it ends in.
            let per_doubling = f64::from(schema).exp2();
            let first = (f64::from(*WHOLE.start()) * per_doubling).ceil() as i32;
            let last = (f64::from(*WHOLE.end()) * per_doubling).floor() as i32;
            let kept = |index: &i32| {
                let doublings = f64::from(*index) / per_doubling;
                let (from, to) = (f64::from(*FINE.start()), f64::from(*FINE.end()));
                doublings.fract() == 0.0 || (from..=to).contains(&doublings)
            };
            let indices: Vec<i32> = (first..=last).filter(kept).collect();
            let edges = indices.iter().map(|index| upper_edge(schema, *index)).collect();
            Layout { indices, edges }
        })
        .collect()
});
