//! What every source hands over: the samples of one instance at one look, or why there are none.
//!
//! Scrapes, a metrics server and recordings all end in these types, so that the same rules mean
//! the same whatever the data came from. Values are raw (counters as exposed); turning them into
//! increments is the reducer's work.

use std::sync::Arc;

use crate::engine::observation::{Health, Missing, Time};

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
}

/// Labels of a series, sorted by name, so that equality is identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Labels(Vec<(Arc<str>, Arc<str>)>);

impl Labels {
    /// Sorts the pairs by name. A later duplicate of a name is dropped.
    pub fn new(mut pairs: Vec<(Arc<str>, Arc<str>)>) -> Self {
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, earlier| later.0 == earlier.0);
        Self(pairs)
    }

    /// The value of a label; a missing label reads as the empty string, as in PromQL.
    pub fn value(&self, name: &str) -> &str {
        self.0
            .binary_search_by(|(label, _)| (**label).cmp(name))
            .map_or("", |index| &self.0[index].1)
    }

    /// All pairs, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The same labels without one of them.
    pub fn without(&self, name: &str) -> Labels {
        Labels(self.0.iter().filter(|(label, _)| &**label != name).cloned().collect())
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
