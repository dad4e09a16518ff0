//! Reads the delimited protobuf exposition: `io.prometheus.client.MetricFamily`, one after another,
//! each with its length in front. It is the only established format that carries native histograms.
//!
//! A family that is not wanted is stepped over by its length. Of a wanted one the same samples come
//! as text would give: `_bucket`, `_sum`, `_count`, `quantile`; and a native histogram beside them.
//! What breaks the wire format refuses the body, with the offset, since nothing after it can be
//! trusted; what is well formed and means nothing (a schema that does not exist, spans that do not
//! fit their counts) costs that series, which is counted and, when it is the first, named. Unknown
//! fields are skipped; memory grows with what is kept.
//!
//! Deliberately absent: exemplars, timestamps, units, help and types. The field that a metric has
//! says what it is.

mod histogram;
mod wire;

use std::sync::Arc;

use self::wire::{Field, Wire};
use super::{Body, Limits, Refusal, Wanted};
use crate::signal::sample::{Labels, RefusedLines, Sample};

/// Whether a `Content-Type` announces this format.
pub fn is_content_type(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let is = |key: &str, wanted: &str| {
        let mut parts = parts.clone().filter_map(|part| part.split_once('='));
        parts.any(|(name, value)| {
            name.trim().eq_ignore_ascii_case(key) && value.trim().trim_matches('"') == wanted
        })
    };
    media.eq_ignore_ascii_case("application/vnd.google.protobuf")
        && is("proto", "io.prometheus.client.MetricFamily")
        && is("encoding", "delimited")
}

/// Reads a body and keeps the wanted samples, and the native histograms of wanted names.
///
/// # Errors
/// When the body is empty, too large, not of this format, or cut short.
pub fn read_protobuf(body: &[u8], wanted: &Wanted, limits: &Limits) -> Result<Body, Refusal> {
    if body.len() > limits.body_bytes {
        return Err(Refusal::TooLarge { found: body.len(), limit: limits.body_bytes });
    }
    if body.is_empty() {
        return Err(Refusal::Empty);
    }
    let mut reader = Reader {
        wanted,
        limits,
        samples: Vec::new(),
        metrics: 0,
        refused: 0,
        first: String::new(),
        text: String::new(),
    };
    let mut families = Wire::new(body);
    while !families.is_empty() {
        let family = families.delimited()?;
        reader.family(family)?;
    }
    let refused =
        (reader.refused > 0).then_some(RefusedLines { lines: reader.refused, first: reader.first });
    Ok(Body { samples: reader.samples, refused, lines: reader.metrics })
}

/// Why one series is not read: what was found and what was expected.
type Fault = String;

struct Reader<'a> {
    wanted: &'a Wanted,
    limits: &'a Limits,
    samples: Vec<Sample>,
    metrics: u64,
    refused: u32,
    first: String,
    /// Room for a name with its suffix.
    text: String,
}

impl Reader<'_> {
    fn family(&mut self, family: Wire<'_>) -> Result<(), Refusal> {
        let mut fields = family;
        let mut name = "";
        let mut is_gauge_histogram = false;
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(bytes)) => {
                    name = bytes.text()?;
                    // It stands first: what is not wanted is not even looked through.
                    if !self.is_wanted(name) {
                        return Ok(());
                    }
                }
                (3, Field::Varint(kind)) => is_gauge_histogram = kind == GAUGE_HISTOGRAM,
                _ => {}
            }
        }
        let mut fields = family;
        while let Some((number, field)) = fields.next()? {
            if let (4, Field::Bytes(metric)) = (number, field) {
                self.metrics += 1;
                if let Err(fault) = self.metric(name, metric, is_gauge_histogram)? {
                    self.refused = self.refused.saturating_add(1);
                    if self.refused == 1 {
                        self.first = format!("{name} at byte {}: {fault}", metric.offset());
                    }
                }
            }
        }
        Ok(())
    }

    fn is_wanted(&mut self, name: &str) -> bool {
        ["", "_bucket", "_sum", "_count"].iter().any(|suffix| self.contains(name, suffix))
    }

    fn contains(&mut self, name: &str, suffix: &str) -> bool {
        self.text.clear();
        self.text.push_str(name);
        self.text.push_str(suffix);
        self.wanted.contains(&self.text)
    }

    /// One series. The outer error is a broken body, the inner one a series that means nothing.
    fn metric(
        &mut self,
        name: &str,
        metric: Wire<'_>,
        is_gauge_histogram: bool,
    ) -> Result<Result<(), Fault>, Refusal> {
        let mut labels: Vec<(&str, &str)> = Vec::new();
        let mut fields = metric;
        while let Some((number, field)) = fields.next()? {
            if let (1, Field::Bytes(pair)) = (number, field) {
                if labels.len() >= self.limits.labels_per_series {
                    let limit = self.limits.labels_per_series;
                    return Ok(Err(format!("more than {limit} labels, expected fewer")));
                }
                labels.push(label(pair)?);
            }
        }
        let mut fields = metric;
        while let Some((number, field)) = fields.next()? {
            let Field::Bytes(value) = field else { continue };
            match number {
                // Gauge, counter, untyped: their value is the same field.
                2 | 3 | 5 => {
                    let value = value_of(value)?;
                    self.keep(name, "", &labels, value)?;
                }
                4 => self.summary(name, &labels, value)?,
                7 => {
                    let read = histogram::Read::of(value)?;
                    if read.buckets.len() > histogram::BUCKETS_MAX {
                        let limit = histogram::BUCKETS_MAX;
                        return Ok(Err(format!("more than {limit} buckets, expected fewer")));
                    }
                    self.classic(name, &labels, &read)?;
                    if read.is_native() && !is_gauge_histogram && self.wants_native(name) {
                        match read.native() {
                            Ok(native) => {
                                let labels = Labels::of(&mut labels.clone());
                                self.push(Sample::native(name, labels, native))?;
                            }
                            Err(fault) => return Ok(Err(fault)),
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(Ok(()))
    }

    /// Whoever reads buckets can read a native histogram instead.
    fn wants_native(&mut self, name: &str) -> bool {
        self.contains(name, "_bucket")
    }

    fn summary(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        summary: Wire<'_>,
    ) -> Result<(), Refusal> {
        let (mut count, mut sum) = (0.0, 0.0);
        let mut fields = summary;
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Varint(value)) => count = value as f64,
                (2, Field::Double(value)) => sum = value,
                (3, Field::Bytes(pair)) => {
                    let (mut quantile, mut value) = (0.0, 0.0);
                    let mut fields = pair;
                    while let Some((number, field)) = fields.next()? {
                        match (number, field) {
                            (1, Field::Double(number)) => quantile = number,
                            (2, Field::Double(number)) => value = number,
                            _ => {}
                        }
                    }
                    let quantile = plain(quantile);
                    self.keep(name, "", &with(labels, "quantile", &quantile), value)?;
                }
                _ => {}
            }
        }
        self.keep(name, "_sum", labels, sum)?;
        self.keep(name, "_count", labels, count)
    }

    fn classic(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        histogram: &histogram::Read<'_>,
    ) -> Result<(), Refusal> {
        if self.contains(name, "_bucket") {
            let mut ends = false;
            for bucket in &histogram.buckets {
                let (bound, count) = histogram::bucket(*bucket)?;
                ends |= bound == f64::INFINITY;
                self.keep(name, "_bucket", &with(labels, "le", &plain(bound)), count)?;
            }
            // The last bucket may be left out; its count is that of all.
            if !ends {
                self.keep(name, "_bucket", &with(labels, "le", "+Inf"), histogram.count)?;
            }
        }
        self.keep(name, "_sum", labels, histogram.sum)?;
        self.keep(name, "_count", labels, histogram.count)
    }

    fn keep(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) -> Result<(), Refusal> {
        if !self.contains(name, suffix) {
            return Ok(());
        }
        // Samples of one family follow each other: they share their name.
        let name = match self.samples.last() {
            Some(last) if *last.name == *self.text => last.name.clone(),
            Some(_) | None => Arc::from(self.text.as_str()),
        };
        self.push(Sample::number(name, Labels::of(&mut labels.to_vec()), value))
    }

    fn push(&mut self, sample: Sample) -> Result<(), Refusal> {
        if self.samples.len() >= self.limits.samples {
            return Err(Refusal::TooManySamples { limit: self.limits.samples });
        }
        self.samples.push(sample);
        Ok(())
    }
}

/// Of the enum `MetricType`. Its counts may fall, so it is no histogram of what happened.
const GAUGE_HISTOGRAM: u64 = 5;

fn with<'a>(
    labels: &[(&'a str, &'a str)],
    name: &'a str,
    value: &'a str,
) -> Vec<(&'a str, &'a str)> {
    labels.iter().copied().chain([(name, value)]).collect()
}

/// A bound in its shortest form; infinity as text formats write it.
fn plain(bound: f64) -> String {
    if bound == f64::INFINITY { "+Inf".to_owned() } else { bound.to_string() }
}

fn label(pair: Wire<'_>) -> Result<(&str, &str), Refusal> {
    let (mut name, mut value) = ("", "");
    let mut fields = pair;
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(bytes)) => name = bytes.text()?,
            (2, Field::Bytes(bytes)) => value = bytes.text()?,
            _ => {}
        }
    }
    Ok((name, value))
}

fn value_of(value: Wire<'_>) -> Result<f64, Refusal> {
    let mut fields = value;
    let mut found = 0.0;
    while let Some((number, field)) = fields.next()? {
        if let (1, Field::Double(value)) = (number, field) {
            found = value;
        }
    }
    Ok(found)
}
