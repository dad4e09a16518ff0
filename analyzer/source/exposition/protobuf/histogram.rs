//! One histogram of the protobuf exposition: classic buckets, and the sparse ones of a native.
//!
//! Sparse buckets are spans of consecutive indices, and beside them either the difference of each
//! count to the one before or the counts themselves. Both may be written packed or one by one.

use super::{
    super::Refusal,
    Fault,
    wire::{Field, Wire, zigzag},
};
use crate::engine::native::{INDEX_MAX, NATIVE_BUCKETS_MAX, NativeHistogram, SCHEMAS};

/// Buckets of a kind read of one histogram. The client libraries keep to 160; a hundred times that is a
/// mistake and not a service.
pub const BUCKETS_MAX: usize = 16_000;

/// A histogram as far as its fields go.
#[derive(Default)]
pub struct Read<'a> {
    /// Observations.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Classic buckets, unread.
    pub buckets: Vec<Wire<'a>>,
    schema: i64,
    zero_threshold: f64,
    zero_count: f64,
    negative: Side,
    positive: Side,
}

/// The buckets on one side of zero.
#[derive(Default)]
struct Side {
    /// Offset to the span before and length.
    spans: Vec<(i64, u64)>,
    deltas: Vec<i64>,
    counts: Vec<f64>,
}

impl<'a> Read<'a> {
    /// Takes the fields in; what they mean together is asked later.
    pub fn of(histogram: Wire<'a>) -> Result<Self, Refusal> {
        let mut read = Self::default();
        let (mut count_float, mut zero_count_float) = (0.0, 0.0);
        let mut fields = histogram;
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Varint(count)) => read.count = count as f64,
                (2, Field::Double(sum)) => read.sum = sum,
                (3, Field::Bytes(bucket)) => push(&mut read.buckets, bucket),
                (4, Field::Double(count)) => count_float = count,
                (5, Field::Varint(schema)) => read.schema = zigzag(schema),
                (6, Field::Double(threshold)) => read.zero_threshold = threshold,
                (7, Field::Varint(count)) => read.zero_count = count as f64,
                (8, Field::Double(count)) => zero_count_float = count,
                (9, Field::Bytes(span)) => read.negative.span(span)?,
                (10, field) => read.negative.delta(field)?,
                (11, field) => read.negative.count(field)?,
                (12, Field::Bytes(span)) => read.positive.span(span)?,
                (13, field) => read.positive.delta(field)?,
                (14, field) => read.positive.count(field)?,
                _ => {}
            }
        }
        // The counts of a float histogram override the others.
        if count_float > 0.0 {
            read.count = count_float;
        }
        if zero_count_float > 0.0 {
            read.zero_count = zero_count_float;
        }
        Ok(read)
    }

    /// Whether it has sparse buckets: an empty one says so by a span without a length.
    pub fn is_native(&self) -> bool {
        let spans = !self.positive.spans.is_empty() || !self.negative.spans.is_empty();
        spans || self.zero_threshold > 0.0 || self.zero_count > 0.0
    }

    /// The native histogram. What lies below zero is counted as zero.
    pub fn native(&self) -> Result<NativeHistogram, Fault> {
        let schema = i32::try_from(self.schema).ok().filter(|schema| SCHEMAS.contains(schema));
        let schema = schema.ok_or_else(|| {
            let (from, to) = (SCHEMAS.start(), SCHEMAS.end());
            format!("found the histogram schema {}, expected {from} to {to}", self.schema)
        })?;
        let mut zero_count = good(self.zero_count)?;
        for (_, count) in self.negative.buckets()? {
            zero_count += count;
        }
        let mut native = NativeHistogram {
            schema,
            zero_threshold: good(self.zero_threshold)?,
            zero_count,
            buckets: self.positive.buckets()?,
        };
        // A zero bucket may reach over buckets that were filled before it did.
        let threshold = std::mem::replace(&mut native.zero_threshold, 0.0);
        native.widen_zero(threshold);
        native.bound(NATIVE_BUCKETS_MAX);
        Ok(native)
    }
}

impl Side {
    fn span(&mut self, span: Wire<'_>) -> Result<(), Refusal> {
        let (mut offset, mut length) = (0, 0);
        let mut fields = span;
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Varint(value)) => offset = zigzag(value),
                (2, Field::Varint(value)) => length = value,
                _ => {}
            }
        }
        // One more than the limit is enough to refuse it later.
        if self.spans.len() <= BUCKETS_MAX {
            self.spans.push((offset, length));
        }
        Ok(())
    }

    fn delta(&mut self, field: Field<'_>) -> Result<(), Refusal> {
        match field {
            Field::Varint(delta) => push(&mut self.deltas, zigzag(delta)),
            Field::Bytes(mut packed) => {
                while !packed.is_empty() {
                    push(&mut self.deltas, zigzag(packed.varint()?));
                }
            }
            Field::Double(_) | Field::Short => {}
        }
        Ok(())
    }

    fn count(&mut self, field: Field<'_>) -> Result<(), Refusal> {
        match field {
            Field::Double(count) => push(&mut self.counts, count),
            Field::Bytes(mut packed) => {
                while !packed.is_empty() {
                    push(&mut self.counts, packed.double()?);
                }
            }
            Field::Varint(_) | Field::Short => {}
        }
        Ok(())
    }

    /// Index and count of the buckets that are not empty.
    fn buckets(&self) -> Result<Vec<(i32, f64)>, Fault> {
        let listed = self.deltas.len().max(self.counts.len()).max(self.spans.len());
        if listed > BUCKETS_MAX {
            return Err(format!("more than {BUCKETS_MAX} buckets, expected fewer"));
        }
        let mut running = 0_i64;
        let mut counts: Vec<f64> = Vec::with_capacity(listed);
        for delta in &self.deltas {
            running = running.checked_add(*delta).ok_or("a count beyond 64 bits")?;
            counts.push(good(running as f64)?);
        }
        if counts.is_empty() {
            counts = self.counts.iter().map(|count| good(*count)).collect::<Result<_, _>>()?;
        }
        let spanned = self.spans.iter().fold(0_u64, |sum, (_, length)| sum.saturating_add(*length));
        if spanned != counts.len() as u64 {
            let found = counts.len();
            return Err(format!("found {found} counts, expected {spanned} by the spans"));
        }
        let mut counts = counts.into_iter();
        let mut buckets = Vec::with_capacity(listed);
        let mut index = 0_i64;
        for (place, (offset, length)) in self.spans.iter().enumerate() {
            let known = if place == 0 { *offset >= -i64::from(INDEX_MAX) } else { *offset >= 0 };
            index = index.saturating_add(*offset);
            let end = index.saturating_add_unsigned(*length);
            if !known || end > i64::from(INDEX_MAX) {
                return Err(format!("a span of buckets from {index} on, which no number falls in"));
            }
            for count in counts.by_ref().take(*length as usize) {
                if count > 0.0 {
                    buckets.push((index as i32, count));
                }
                index += 1;
            }
        }
        Ok(buckets)
    }
}

fn push<T>(list: &mut Vec<T>, value: T) {
    // One more than the limit is enough to refuse it later.
    if list.len() <= BUCKETS_MAX {
        list.push(value);
    }
}

fn good(count: f64) -> Result<f64, Fault> {
    if count.is_finite() && count >= 0.0 {
        Ok(count)
    } else {
        Err(format!("found the count {count}, expected one from 0 on"))
    }
}

/// Upper bound and cumulative count of a classic bucket.
pub fn bucket(bucket: Wire<'_>) -> Result<(f64, f64), Refusal> {
    let (mut bound, mut count, mut count_float) = (0.0, 0.0, 0.0);
    let mut fields = bucket;
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Varint(value)) => count = value as f64,
            (2, Field::Double(value)) => bound = value,
            (4, Field::Double(value)) => count_float = value,
            _ => {}
        }
    }
    Ok((bound, if count_float > 0.0 { count_float } else { count }))
}
