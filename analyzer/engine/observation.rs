//! What one look saw: per signal and arm a value, or the reason why there is none.
//!
//! An observation is the only input of the engine and the only thing the journal has to keep.
//! It holds *increments* (what happened since the previous look), never raw counters: resets,
//! new series and restarts were already dealt with in `signal/`. It deliberately holds no labels
//! and no text that the engine would have to understand: the names of parts are only ever shown.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use super::native::NativeHistogram;

/// A moment, in milliseconds since the Unix epoch. The engine never asks for one; it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// The moment `secs` seconds after the Unix epoch, rounded to the millisecond.
    pub fn from_secs_f64(secs: f64) -> Self {
        Self((secs * 1000.0).round() as i64)
    }

    /// Seconds since the Unix epoch.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// How long after `earlier` this is; zero when a clock went backwards.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The moment `wait` later.
    pub fn after(self, wait: Duration) -> Time {
        Time(self.0.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// One of the two sides of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arm {
    /// The new version.
    Canary,
    /// The old version.
    Baseline,
}

impl Arm {
    /// Both arms, canary first.
    pub const BOTH: [Arm; 2] = [Arm::Canary, Arm::Baseline];
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arm::Canary => "canary",
            Arm::Baseline => "baseline",
        })
    }
}

/// Everything one look saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When the look was taken.
    pub at: Time,
    /// One entry per signal of the rule set, in its order.
    pub signals: Vec<Pair>,
    /// Canary instances that gave nothing at this look, in words, while others did. They keep a
    /// release from being promoted; the data of the others is judged all the same.
    pub canary_gap: Option<Missing>,
    /// How many instances there were; none where nobody counted them. Carried along, never judged.
    pub instances: Option<Instances>,
}

/// How many instances both arms had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instances {
    /// The new version's.
    pub canary: Headcount,
    /// The old version's.
    pub baseline: Headcount,
}

/// How many instances one arm had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headcount {
    /// Those that answered at this look.
    pub answered: u32,
    /// Those that were there to be asked.
    pub found: u32,
    /// All that there ever were in this analysis.
    pub seen: u32,
}

/// What both arms said of one signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The new version's reading.
    pub canary: Reading,
    /// The old version's reading.
    pub baseline: Reading,
    /// What single instances and routes contributed, for telling which part is to blame and for
    /// what is judged instance by instance. The readings above are already the sum of them.
    pub parts: Parts,
}

impl Pair {
    /// Two readings, of which it is not known what they are made of.
    pub fn new(canary: Reading, baseline: Reading) -> Self {
        Self { canary, baseline, parts: Parts::default() }
    }

    /// The reading of one arm.
    pub fn of(&self, arm: Arm) -> &Reading {
        match arm {
            Arm::Canary => &self.canary,
            Arm::Baseline => &self.baseline,
        }
    }
}

/// The parts of one signal's readings, at most [`PARTS_MAX`] of each kind and arm. Empty where the
/// source does not tell them apart, or has none of that kind.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Parts {
    /// Of the new version, sorted by kind and name.
    pub canary: Vec<Part>,
    /// Of the old version, sorted by kind and name.
    pub baseline: Vec<Part>,
}

impl Parts {
    /// The parts of one arm.
    pub fn of(&self, arm: Arm) -> &[Part] {
        match arm {
            Arm::Canary => &self.canary,
            Arm::Baseline => &self.baseline,
        }
    }
}

/// Most parts of one kind that an arm's reading is taken apart into; the smallest are left out.
pub const PARTS_MAX: usize = 32;

/// What one instance or one route contributed to a signal at this look.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is a part by.
    pub kind: PartKind,
    /// Its name, for showing: `10.0.0.7:8080`, `GET /checkout`.
    pub name: Arc<str>,
    /// When the process behind an instance began, when it says so: another start is another life.
    pub started: Option<Time>,
    /// Its own increment or level.
    pub value: Value,
}

/// By what a signal is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartKind {
    /// By scraped process.
    Instance,
    /// By the labels that tell routes apart.
    Route,
}

impl fmt::Display for PartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PartKind::Instance => "instance",
            PartKind::Route => "route",
        })
    }
}

/// A value, or the reason why there is none. Never NaN, never a zero that means "unknown".
pub type Reading = Result<Value, Missing>;

/// What a signal of one arm amounted to between the previous look and this one.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a `ratio`: `events` among `total`, both increments; `total` is above zero.
    Share {
        /// Requests that count as events.
        events: f64,
        /// All requests.
        total: f64,
    },
    /// Of a `rate` or a `count`: events in `instance_secs` seconds, summed over instances.
    Events {
        /// How many happened.
        events: f64,
        /// Seconds watched, times instances watched.
        instance_secs: f64,
        /// Instances that contributed.
        instances: u32,
    },
    /// Of a `quantile`: how many requests fell into each bucket since the previous look.
    Histogram(Histogram),
    /// The same where the target exposes a native histogram.
    Native(NativeHistogram),
    /// Of a `gauge`: the level now, reduced over instances. Of a `quantile` that a summary gives:
    /// its own quantile, which has no counts.
    Level(f64),
    /// Of a `health` signal: the worst instance's answer.
    Health {
        /// Worst of all instances.
        status: Health,
        /// Slowest answer, in seconds, when there was one.
        latency_secs: Option<f64>,
    },
    /// Of a `restarts` signal: process lives that began since the previous look.
    Restarts(u32),
}

impl Value {
    /// Whether every number in it is: finite numbers may have a sum that is not.
    pub fn is_finite(&self) -> bool {
        match self {
            Value::Share { events, total } => events.is_finite() && total.is_finite(),
            Value::Events { events, instance_secs, .. } => {
                events.is_finite() && instance_secs.is_finite()
            }
            Value::Histogram(histogram) => histogram.total().is_finite(),
            Value::Native(histogram) => histogram.total().is_finite(),
            Value::Level(level) => level.is_finite(),
            Value::Health { .. } | Value::Restarts(_) => true,
        }
    }

    /// Two instances' values of one signal as one: counts are added, of health the worse and slower
    /// counts, and `level` says what two levels come to. Both have the same buckets.
    pub fn beside(self, other: Value, level: impl FnOnce(f64, f64) -> f64) -> Value {
        match (self, other) {
            (Value::Share { events: a, total: n }, Value::Share { events: b, total: m }) => {
                Value::Share { events: a + b, total: n + m }
            }
            (
                Value::Events { events: a, instance_secs: s, instances: i },
                Value::Events { events: b, instance_secs: t, instances: j },
            ) => Value::Events { events: a + b, instance_secs: s + t, instances: i + j },
            (Value::Histogram(mut sum), Value::Histogram(other)) => {
                sum.counts.iter_mut().zip(other.counts).for_each(|(sum, count)| *sum += count);
                Value::Histogram(sum)
            }
            (Value::Level(a), Value::Level(b)) => Value::Level(level(a, b)),
            (
                Value::Health { status: a, latency_secs: s },
                Value::Health { status: b, latency_secs: t },
            ) => {
                let slower = [s, t].into_iter().flatten().reduce(f64::max);
                Value::Health { status: a.max(b), latency_secs: slower }
            }
            (Value::Restarts(a), Value::Restarts(b)) => Value::Restarts(a.saturating_add(b)),
            // Values of one signal are of one kind.
            (one, _) => one,
        }
    }

    /// Requests per bucket, for what counts requests beyond bounds. A native histogram's bounds are
    /// those of its fixed layout, the same at every look and in every arm.
    pub fn histogram(&self) -> Option<Cow<'_, Histogram>> {
        match self {
            Value::Histogram(histogram) => Some(Cow::Borrowed(histogram)),
            Value::Native(histogram) => Some(Cow::Owned(histogram.classic())),
            Value::Share { .. }
            | Value::Events { .. }
            | Value::Level(_)
            | Value::Health { .. }
            | Value::Restarts(_) => None,
        }
    }
}

/// The requests per bucket of a reading, when it has such.
pub fn histogram(reading: &Reading) -> Option<Cow<'_, Histogram>> {
    reading.as_ref().ok().and_then(Value::histogram)
}

/// Increments of a classic histogram. `counts` has one entry per edge and one more for `+Inf`;
/// entries are per bucket, not cumulative.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds in ascending order, finite, without `+Inf`.
    pub edges: Arc<[f64]>,
    /// Requests per bucket: `counts.len() == edges.len() + 1`.
    pub counts: Vec<f64>,
}

impl Histogram {
    /// All requests in it.
    pub fn total(&self) -> f64 {
        self.counts.iter().sum()
    }

    /// Requests above edge number `edge`.
    pub fn above(&self, edge: usize) -> f64 {
        self.counts[edge + 1..].iter().sum()
    }
}

/// What a health endpoint said, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Serving.
    Up,
    /// Serving, and complaining.
    Degraded,
    /// Not serving, or not answering.
    Down,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Up => "up",
            Health::Degraded => "degraded",
            Health::Down => "down",
        })
    }
}

/// Why there is no value. Each is a defined outcome that a finding names; none of them counts as
/// healthy, and none by itself rolls anything back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Missing {
    /// The kind, which code may branch on.
    pub why: Why,
    /// Which target or series, and what was found instead. One line, no secrets.
    pub detail: String,
}

impl Missing {
    /// A reason with its detail.
    pub fn new(why: Why, detail: impl Into<String>) -> Self {
        Self { why, detail: detail.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// The kinds of missing data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// The first look of an instance: a counter needs two readings.
    FirstLook,
    /// No requests between the two looks.
    NoTraffic,
    /// The target did not answer, or not with metrics.
    ScrapeFailed,
    /// The answer is older than the staleness limit.
    Stale,
    /// Every instance is younger than the warm-up.
    WarmUp,
    /// The target answers, but exposes no such series.
    AbsentSeries,
    /// The series is there and its value is NaN, infinite or negative where it cannot be.
    BadValue,
    /// The health answer could not be understood as up, degraded or down.
    UnclearHealth,
    /// The arms' bucket layouts have no edge in common, or none where the rule needs one.
    BucketLayout,
    /// The analysis has no such arm, or the source cannot give this signal.
    NotObserved,
    /// The metrics server did not answer, or refused the query.
    QueryFailed,
}

impl Why {
    /// All kinds, for tables and round-trip tests.
    pub const ALL: [Why; 11] = [
        Why::FirstLook,
        Why::NoTraffic,
        Why::ScrapeFailed,
        Why::Stale,
        Why::WarmUp,
        Why::AbsentSeries,
        Why::BadValue,
        Why::UnclearHealth,
        Why::BucketLayout,
        Why::NotObserved,
        Why::QueryFailed,
    ];
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::FirstLook => "first look",
            Why::NoTraffic => "no traffic",
            Why::ScrapeFailed => "scrape failed",
            Why::Stale => "stale",
            Why::WarmUp => "warm-up",
            Why::AbsentSeries => "absent series",
            Why::BadValue => "bad value",
            Why::UnclearHealth => "unclear health",
            Why::BucketLayout => "bucket layout",
            Why::NotObserved => "not observed",
            Why::QueryFailed => "query failed",
        })
    }
}
