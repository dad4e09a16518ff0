//! Native histograms as they lie in the journal, in observations and in carries.

use serde::{Deserialize, Serialize};

use super::{exact::Exact, finite};
use crate::engine::native::{INDEX_MAX, NativeHistogram, SCHEMAS};

/// A native histogram: schema, zero threshold, zero count, indices, counts. Each index but the first
/// is written as its distance to the one before, which is mostly 1.
#[derive(Serialize, Deserialize)]
pub(super) struct NativeRecord(i32, Exact, Exact, Vec<i32>, Vec<Exact>);

impl NativeRecord {
    /// Of an observation, where every number is finite.
    pub fn of(native: &NativeHistogram) -> Result<Self, String> {
        finite(native.zero_threshold)?;
        finite(native.zero_count)?;
        native.buckets.iter().try_for_each(|(_, count)| finite(*count).map(|_| ()))?;
        Ok(Self::raw(native))
    }

    /// Of a carry, where any number may be.
    pub fn raw(native: &NativeHistogram) -> Self {
        let indices = native.buckets.iter().scan(0, |last, (index, _)| {
            let step = index - *last;
            *last = *index;
            Some(step)
        });
        let counts = native.buckets.iter().map(|(_, count)| Exact(*count)).collect();
        let (threshold, zero) = (Exact(native.zero_threshold), Exact(native.zero_count));
        Self(native.schema, threshold, zero, indices.collect(), counts)
    }

    /// The histogram, or why it cannot be read.
    pub fn histogram(self) -> Result<NativeHistogram, String> {
        let Self(schema, zero_threshold, zero_count, steps, counts) = self;
        if !SCHEMAS.contains(&schema) || steps.len() != counts.len() {
            return Err(format!(
                "a native histogram of schema {schema} with {} buckets and {} counts",
                steps.len(),
                counts.len()
            ));
        }
        let mut buckets: Vec<(i32, f64)> = Vec::with_capacity(counts.len());
        for (step, count) in steps.into_iter().zip(counts) {
            let index = match buckets.last() {
                None => Some(step),
                Some((last, _)) => last.checked_add(step).filter(|index| index > last),
            };
            let index = index.filter(|index| index.unsigned_abs() <= INDEX_MAX.unsigned_abs());
            let index = index.ok_or("buckets of a native histogram are not in order")?;
            buckets.push((index, count.0));
        }
        Ok(NativeHistogram {
            schema,
            zero_threshold: zero_threshold.0,
            zero_count: zero_count.0,
            buckets,
        })
    }
}
