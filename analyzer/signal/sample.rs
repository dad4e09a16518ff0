//! What every source hands over: the samples of one instance at one look, or why there are none.
//!
//! Scrapes, a metrics server and recordings all end in these types, so that the same rules mean
//! the same whatever the data came from. Values are raw (counters as exposed); turning them into
//! increments is the reducer's work.

use std::sync::Arc;

use crate::engine::{
    native::NativeHistogram,
    observation::{Health, Missing, Time},
};

/// What all sources of one analysis gave at one look.
#[derive(Clone, Debug, PartialEq)]
pub struct Gathered {
    /// When the look was taken.
    pub at: Time,
    /// Every instance of the new version.
    pub canary: Vec<InstanceReading>,
    /// Every instance of the old version.
    pub baseline: Vec<InstanceReading>,
    /// Health endpoints with an absolute URL: asked once, not per instance.
    pub dependencies: Vec<Probe>,
}

/// One scraped process at one look.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceReading {
    /// Stable name of the instance: `host:port`, or the `instance` label.
    pub instance: Arc<str>,
    /// When its samples are from.
    pub at: Time,
    /// The samples the rules asked for, or why there are none.
    pub samples: Result<Vec<Sample>, Missing>,
    /// Lines of the body that were refused, and the first of them in words.
    pub refused: Option<RefusedLines>,
    /// Answers of its health endpoints.
    pub probes: Vec<Probe>,
    /// Answers of `promql:` signals for this arm (carried by one pseudo-instance).
    pub levels: Vec<Level>,
}

impl InstanceReading {
    /// Whether it stands for one instance. A name in braces stands for whatever an arm has, or for
    /// the nobody that was found.
    pub fn is_one(&self) -> bool {
        !self.instance.starts_with('{')
    }
}

/// Lines of an exposition body that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLines {
    /// How many.
    pub lines: u32,
    /// The first one: line number, what was found, what was expected.
    pub first: String,
}

/// One value of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name as exposed, with `_total`, `_bucket` and the like.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// The value, which may be NaN or infinite.
    pub value: f64,
    /// The buckets, when the series is a native histogram. Its name then ends with [`NATIVE`], and
    /// the value is how many it has counted.
    pub native: Option<Arc<NativeHistogram>>,
}

/// What follows the metric's name in the name of a native histogram, so that it is never taken for a
/// counter or a gauge: names are not exposed with a blank.
pub const NATIVE: &str = " (native)";

impl Sample {
    /// What follows the metric's name in the name of a native histogram's custom bucket: each is a
    /// counter of its own, not cumulative, between the labels [`Sample::LOWER`] and `le`.
    pub const CUSTOM: &str = " (custom buckets)";

    /// Label of a custom bucket's lower bound.
    pub const LOWER: &str = "above";

    /// A series with one number.
    pub fn number(name: Arc<str>, labels: Labels, value: f64) -> Self {
        Self { name, labels, value, native: None }
    }

    /// Writes the bound of a bucket in its shortest form: formats and servers write `1`, `1.0` and
    /// `1e+00` for the same one.
    pub fn write_bound_plainly(&mut self) {
        if !self.name.ends_with("_bucket") {
            return;
        }
        let bound = self.labels.value("le");
        let Ok(number) = bound.parse::<f64>() else { return };
        // Infinity is written alike everywhere; what is no number is refused where it is read.
        let plain = if number.is_finite() { number.to_string() } else { return };
        if plain != bound {
            let mut pairs: Vec<(&str, &str)> = self.labels.iter().collect();
            for pair in pairs.iter_mut().filter(|(name, _)| *name == "le") {
                pair.1 = &plain;
            }
            self.labels = Labels::of(&mut pairs);
        }
    }

    /// A native histogram of this metric.
    pub fn native(metric: &str, labels: Labels, histogram: NativeHistogram) -> Self {
        let (name, value) = (format!("{metric}{NATIVE}").into(), histogram.total());
        Self { name, labels, value, native: Some(Arc::new(histogram)) }
    }
}

/// Labels of a series, sorted by name, so that equality is identity.
///
/// All of them lie in one text: a body of 20,000 samples is 20,000 of these, and a shared string for
/// each name and value costs more in counting its owners than it saves in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels {
    text: Box<str>,
    /// Where each name and each value ends in the text.
    ends: Box<[u32]>,
}

impl Labels {
    /// Sorts the pairs by name. A later duplicate of a name is dropped.
    pub fn new(pairs: Vec<(Arc<str>, Arc<str>)>) -> Self {
        let mut pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        Self::of(&mut pairs)
    }

    /// The same from borrowed pairs.
    pub fn of(pairs: &mut [(&str, &str)]) -> Self {
        if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
            pairs.sort_by(|a, b| a.0.cmp(b.0));
        }
        let bytes = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut text = String::with_capacity(bytes);
        let mut ends = Vec::with_capacity(2 * pairs.len());
        let mut last = None;
        for &mut (name, value) in pairs {
            if last == Some(name) {
                continue;
            }
            for part in [name, value] {
                text.push_str(part);
                ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
            }
            last = Some(name);
        }
        Self { text: text.into_boxed_str(), ends: ends.into_boxed_slice() }
    }

    /// The value of a label; a missing label reads as the empty string, as in PromQL.
    pub fn value(&self, name: &str) -> &str {
        self.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }

    /// All pairs, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut from = 0;
        self.ends.as_chunks::<2>().0.iter().map(move |&[middle, end]| {
            let (middle, end) = (middle as usize, end as usize);
            let pair = (&self.text[from..middle], &self.text[middle..end]);
            from = end;
            pair
        })
    }

    /// The same labels without one of them.
    pub fn without(&self, name: &str) -> Labels {
        let mut kept: Vec<(&str, &str)> = self.iter().filter(|(label, _)| *label != name).collect();
        Self::of(&mut kept)
    }
}

/// One answer of one health endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Index of the health signal among the specs.
    pub signal: usize,
    /// What it said. An endpoint that refuses the connection or stays silent is
    /// [`Health::Down`]; one whose answer cannot be understood is missing with the reason.
    pub answer: Result<ProbeAnswer, Missing>,
}

/// What a health endpoint said, and how fast.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeAnswer {
    /// The worse of status code and body.
    pub status: Health,
    /// Seconds to the end of the answer; none when there was no answer.
    pub latency_secs: Option<f64>,
    /// Why it is not up, in a few words, when it is not.
    pub detail: String,
}

/// One answer to a `promql:` signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Index of the signal among the specs.
    pub signal: usize,
    /// Its value.
    pub value: Result<f64, Missing>,
}
