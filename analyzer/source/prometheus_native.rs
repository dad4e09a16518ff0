//! Native histograms in answers of the Prometheus HTTP API.
//!
//! The API lists the buckets that are not empty as `[rule, "lower", "upper", "count"]` and tells no
//! schema: it is found from the bounds. Where bounds follow none, the histogram has custom buckets
//! (schema -53, a classic one that the server converted), and its bounds are kept as they are.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::{
    engine::native::{NATIVE_BUCKETS_MAX, NativeHistogram, SCHEMAS, index_of, upper_edge},
    signal::sample::{Labels, Sample},
};

/// Relative difference of a bound to the one its schema has: what is left of printing and powers.
const BOUND_ERROR_MAX: f64 = 1e-9;

/// A histogram at a time, in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct HistogramPoint {
    pub at_ms: i64,
    pub histogram: Listed,
}

impl<'de> Deserialize<'de> for HistogramPoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (secs, histogram) = <(f64, Listed)>::deserialize(deserializer)?;
        Ok(Self { at_ms: (secs * 1000.0).round() as i64, histogram })
    }
}

/// Buckets as they are listed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Listed {
    #[serde(default)]
    buckets: Vec<(u8, Number, Number, Number)>,
}

/// A number that is written as a string.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Number(f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number in quotes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
                text.parse().map(Number).map_err(|_| E::custom("a bucket has no number"))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// One bucket that is not empty: above `lower`, up to `upper`.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    lower: f64,
    upper: f64,
    count: f64,
}

impl Listed {
    /// The histogram as samples of this metric: one, or with custom buckets one for each.
    ///
    /// # Errors
    /// In words, when a bucket makes no sense.
    pub(super) fn samples(&self, metric: &str, labels: &Labels) -> Result<Vec<Sample>, String> {
        let mut above: Vec<Bucket> = Vec::with_capacity(self.buckets.len());
        let (mut zero_threshold, mut zero_count) = (0.0_f64, 0.0);
        for &(_, Number(lower), Number(upper), Number(count)) in &self.buckets {
            let is_bucket = lower <= upper && count.is_finite() && count >= 0.0;
            if !is_bucket {
                return Err(format!("found the bucket {lower} to {upper} with {count}"));
            }
            if lower > 0.0 || lower == f64::NEG_INFINITY || upper == f64::INFINITY {
                above.push(Bucket { lower, upper, count });
            } else {
                // The zero bucket, or one below it.
                zero_threshold = zero_threshold.max(upper);
                zero_count += count;
            }
        }
        above.sort_by(|a, b| a.upper.total_cmp(&b.upper));
        match exponential(&above) {
            Some((schema, buckets)) => {
                let mut native =
                    NativeHistogram { schema, zero_threshold: 0.0, zero_count, buckets };
                native.widen_zero(zero_threshold);
                native.bound(NATIVE_BUCKETS_MAX);
                Ok(vec![Sample::native(metric, labels.clone(), native)])
            }
            None => {
                // Of custom buckets none is a zero bucket; the ones up to zero are as they are.
                let all = self.buckets.iter().map(|&(_, lower, upper, count)| Bucket {
                    lower: lower.0,
                    upper: upper.0,
                    count: count.0,
                });
                Ok(all.map(|one| custom(metric, labels, one)).collect())
            }
        }
    }
}

/// The schema that all bounds follow, and the buckets' indices in it. Of no buckets every schema is
/// true, and the finest costs nothing.
fn exponential(above: &[Bucket]) -> Option<(i32, Vec<(i32, f64)>)> {
    let Some(first) = above.first() else {
        return Some((*SCHEMAS.end(), Vec::new()));
    };
    let schema = -(first.upper / first.lower).log2().log2().round();
    let schema = schema.is_finite().then_some(schema as i32)?;
    SCHEMAS.contains(&schema).then_some(())?;
    let is_near = |a: f64, b: f64| (a - b).abs() <= BOUND_ERROR_MAX * b;
    let mut buckets: Vec<(i32, f64)> = Vec::with_capacity(above.len());
    for bucket in above {
        // From the middle, where rounding decides nothing.
        let index = index_of(schema, (bucket.lower * bucket.upper).sqrt());
        // The bucket of the largest numbers ends where they do.
        let upper = upper_edge(schema, index).min(f64::MAX);
        let fits = is_near(bucket.lower, upper_edge(schema, index - 1))
            && is_near(bucket.upper, upper)
            && buckets.last().is_none_or(|(last, _)| *last < index);
        if !fits {
            return None;
        }
        buckets.push((index, bucket.count));
    }
    buckets.retain(|(_, count)| *count > 0.0);
    Some((schema, buckets))
}

fn custom(metric: &str, labels: &Labels, bucket: Bucket) -> Sample {
    let bound = |bound: f64| match bound {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        bound => bound.to_string(),
    };
    let (lower, upper) = (bound(bucket.lower), bound(bucket.upper));
    let mut pairs: Vec<(&str, &str)> = labels.iter().collect();
    pairs.extend([(Sample::LOWER, &*lower), ("le", &*upper)]);
    let name = format!("{metric}{}", Sample::CUSTOM);
    Sample::number(name.into(), Labels::of(&mut pairs), bucket.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buckets: &str) -> Result<Vec<Sample>, String> {
        let text = format!("[1.5,{{\"count\":\"9\",\"sum\":\"1\",\"buckets\":{buckets}}}]");
        let point: HistogramPoint = serde_json::from_str(&text).unwrap();
        assert_eq!(point.at_ms, 1500);
        point.histogram.samples("h", &Labels::default())
    }

    #[test]
    fn the_schema_is_found_from_the_bounds() {
        let check = |buckets: &str, schema, zero: (f64, f64), expected: &[(i32, f64)]| {
            let samples = read(buckets).unwrap();
            let native = samples[0].native.as_ref().unwrap();
            assert_eq!((samples.len(), &*samples[0].name), (1, "h (native)"));
            assert_eq!((native.schema, &*native.buckets), (schema, expected));
            assert_eq!((native.zero_threshold, native.zero_count), zero);
        };
        // As Prometheus 3.5 wrote them.
        let real = r#"[[0,"0.001642375811042411","0.0017910235218841233","3"],
                       [0,"0.001953125","0.0021298979153618314","16"],
                       [0,"0.0078125","0.008519591661447326","6"]]"#;
        check(real, 3, (0.0, 0.0), &[(-73, 3.0), (-71, 16.0), (-55, 6.0)]);
        let zero = r#"[[1,"-2","-1","4"],[3,"-0.001","0.001","5"],[0,"1","2","3"]]"#;
        check(zero, 0, (0.001, 9.0), &[(1, 3.0)]);
        check("[]", 8, (0.0, 0.0), &[]);
        check(
            r#"[[0,"1","65536","1"],[0,"65536","4294967296","2"]]"#,
            -4,
            (0.0, 0.0),
            &[(1, 1.0), (2, 2.0)],
        );
        for schema in SCHEMAS {
            let bound = |index| upper_edge(schema, index).to_string();
            let bucket = |index| format!("[0,\"{}\",\"{}\",\"1\"]", bound(index - 1), bound(index));
            let listed = format!("[{},{},{}]", bucket(-7), bucket(0), bucket(11));
            check(&listed, schema, (0.0, 0.0), &[(-7, 1.0), (0, 1.0), (11, 1.0)]);
        }
    }

    #[test]
    fn custom_bounds_are_kept() {
        let samples =
            read(r#"[[0,"-Inf","0.1","3"],[0,"0.25","0.5","2"],[0,"1","+Inf","1"]]"#).unwrap();
        let shown: Vec<_> = samples
            .iter()
            .map(|sample| {
                let bound = |label| sample.labels.value(label);
                (&*sample.name, bound(Sample::LOWER), bound("le"), sample.value)
            })
            .collect();
        let name = "h (custom buckets)";
        assert_eq!(
            shown,
            [(name, "-Inf", "0.1", 3.0), (name, "0.25", "0.5", 2.0), (name, "1", "+Inf", 1.0)]
        );
        // Bounds that grow by 2.5 follow no schema, whatever the first two do.
        assert_eq!(read(r#"[[0,"1","2","3"],[0,"2","5","2"]]"#).unwrap().len(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for buckets in [
            r#"[[0,"2","1","3"]]"#,
            r#"[[0,"1","2","-3"]]"#,
            r#"[[0,"1","2","NaN"]]"#,
            r#"[[0,"NaN","2","1"]]"#,
        ] {
            assert!(read(buckets).unwrap_err().contains("found the bucket"), "{buckets}");
        }
    }
}
