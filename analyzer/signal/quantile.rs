//! What a `quantile` signal reads of one instance: buckets, a native histogram, or the quantile that
//! a summary tells by itself.
//!
//! Buckets go first: they are what every format can carry, so that an instance means the same
//! whichever way it is read. A target that exposes a native histogram alone still shows the bucket
//! `+Inf` in text, which says nothing of latencies and does not count as buckets here.

use super::{
    buckets::Cumulative,
    increments::{Increments, Series},
    sample::{NATIVE, Sample},
    spec::Selection,
};
use crate::engine::{
    native::NativeHistogram,
    observation::{Missing, Why},
};

/// One instance's part in a quantile.
pub enum Latencies {
    /// Requests per bucket.
    Buckets(Cumulative),
    /// The same of a native histogram with custom buckets.
    Custom(Cumulative),
    /// The same of any other native histogram.
    Native(NativeHistogram),
    /// A summary's own quantile, of the worst series.
    Level(f64),
}

/// What an instance says, or why it says nothing.
pub fn latencies(
    increments: &Increments<'_>,
    of: &Selection,
    q: f64,
) -> Result<Latencies, Missing> {
    let buckets = increments.selected(of, "_bucket");
    let is_bounded = |series: &Series<'_>| series.sample.labels.value("le") != "+Inf";
    if buckets.as_ref().is_ok_and(|buckets| buckets.iter().any(is_bounded)) {
        return Cumulative::read(increments, &buckets?).map(Latencies::Buckets);
    }
    let natives = increments.selected(of, NATIVE);
    if natives.as_ref().is_ok_and(|natives| !natives.is_empty()) {
        return increments.sum_native(&natives?).map(Latencies::Native);
    }
    let customs = increments.selected(of, Sample::CUSTOM);
    if customs.as_ref().is_ok_and(|customs| !customs.is_empty()) {
        return Cumulative::read_custom(increments, &customs?).map(Latencies::Custom);
    }
    let told = increments.selected(of, "").unwrap_or_default();
    let told: Vec<Series<'_>> =
        told.into_iter().filter(|one| !one.sample.labels.value("quantile").is_empty()).collect();
    if !told.is_empty() {
        return worst(&told, q).map(Latencies::Level);
    }
    let buckets = buckets?;
    let read = Cumulative::read(increments, &buckets)?;
    match buckets.first() {
        Some(only) => {
            let detail = format!("no bucket but +Inf of {}", only.sample.name);
            Err(Missing::new(Why::BucketLayout, detail))
        }
        None => Ok(Latencies::Buckets(read)),
    }
}

/// The largest of a summary's series with exactly this quantile. One that is NaN has seen nothing
/// lately.
fn worst(told: &[Series<'_>], q: f64) -> Result<f64, Missing> {
    let quantile = |series: &Series<'_>| series.sample.labels.value("quantile").parse::<f64>();
    let (asked, others): (Vec<Series<'_>>, Vec<Series<'_>>) =
        told.iter().copied().partition(|series| quantile(series) == Ok(q));
    let Some(first) = asked.first() else {
        let mut known: Vec<&str> =
            others.iter().map(|series| series.sample.labels.value("quantile")).collect();
        known.sort_unstable();
        known.dedup();
        let (name, known) = (&others[0].sample.name, known.join(", "));
        let detail = format!("{name} is a summary with the quantiles {known}, expected {q}");
        return Err(Missing::new(Why::AbsentSeries, detail));
    };
    let values = asked.iter().map(|series| series.sample.value).filter(|value| !value.is_nan());
    match values.reduce(f64::max) {
        None => {
            let detail = format!("the summary {} has seen none lately", first.sample.name);
            Err(Missing::new(Why::NoTraffic, detail))
        }
        Some(worst) if worst.is_finite() => Ok(worst),
        Some(worst) => {
            Err(Missing::new(Why::BadValue, format!("{} is {worst}", first.sample.name)))
        }
    }
}
