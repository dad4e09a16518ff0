//! What to read for each signal: the rule file's selectors as typed values.
//!
//! A [`SignalSpec`] says which series make a signal up; the engine's `Signal` of the same index
//! says how its numbers are judged.

use regex::Regex;

use super::sample::{Labels, Sample};

/// What one signal is read from. Its index equals the engine signal's index.
#[derive(Clone, Debug)]
pub struct SignalSpec {
    /// The signal's name in the rule file.
    pub name: String,
    /// Where its numbers come from.
    pub reads: Reads,
}

/// Where a signal's numbers come from.
#[derive(Clone, Debug)]
pub enum Reads {
    /// Events among all, both counters.
    Ratio {
        /// What counts as an event.
        events: Selection,
        /// What counts at all.
        total: Selection,
    },
    /// Counters whose increments are summed (`rate`, `count`).
    Counter(Selection),
    /// A classic histogram: selectors name the histogram without `_bucket`.
    Histogram(Selection),
    /// A level.
    Gauge {
        /// The gauge.
        of: Selection,
        /// What it is divided by, per instance, when the signal is a share such as in-use / limit.
        per: Option<Selection>,
        /// How instances become one value.
        reduce: Reduce,
    },
    /// A health endpoint.
    Health(HealthTarget),
    /// Unix time at which the process began; a change is a restart.
    Restarts(Selection),
    /// A whole PromQL expression, evaluated by a metrics server. `$arm` stands for the arm's label
    /// matchers.
    Promql(String),
}

/// How the values of several instances become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// The arithmetic mean.
    Mean,
    /// The sum.
    Sum,
}

/// Which health endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthTarget {
    /// A path, asked of every instance of both arms.
    Path(String),
    /// An absolute URL, asked once.
    Url(String),
}

/// Selectors joined by `or`: the first of their metric names that a target exposes is the one that
/// is read, and of that metric every series that any selector matches, each once.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The alternatives, in file order; never empty.
    pub any_of: Vec<Selector>,
}

impl Selection {
    /// The distinct metric names, in order of preference.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for selector in &self.any_of {
            if !names.contains(&selector.name.as_str()) {
                names.push(&selector.name);
            }
        }
        names
    }

    /// Whether a series of this name and these labels is selected.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.any_of.iter().any(|selector| selector.name == name && selector.matches(labels))
    }
}

/// A PromQL instant selector: a metric name and label matchers.
#[derive(Clone, Debug)]
pub struct Selector {
    /// Metric name, exact.
    pub name: String,
    /// All must hold.
    pub matchers: Vec<Matcher>,
}

impl Selector {
    /// Whether labels satisfy every matcher.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

/// One label matcher.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Label name.
    pub label: String,
    /// What its value must be. A missing label has the empty value.
    pub test: MatchTest,
}

/// What a matcher asks of a label's value.
#[derive(Clone, Debug)]
pub enum MatchTest {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`, anchored at both ends; the text as written is kept for queries.
    Regex(String, Regex),
    /// `!~`, anchored at both ends.
    NotRegex(String, Regex),
}

impl Matcher {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.value(&self.label);
        match &self.test {
            MatchTest::Equal(wanted) => value == wanted,
            MatchTest::NotEqual(unwanted) => value != unwanted,
            MatchTest::Regex(_, regex) => regex.is_match(value),
            MatchTest::NotRegex(_, regex) => !regex.is_match(value),
        }
    }
}

/// The gauge that tells when a process began; read of every target, for warm-up.
pub const PROCESS_START_TIME: &str = "process_start_time_seconds";

/// Every sample name the specs need, without duplicates: what a scrape has to read of a body.
pub fn wanted_names(specs: &[SignalSpec]) -> Vec<String> {
    let mut names = vec![PROCESS_START_TIME.to_owned()];
    let mut want = |selection: &Selection, suffix: &str| {
        for name in selection.names() {
            let name = format!("{name}{suffix}");
            if !names.contains(&name) {
                names.push(name);
            }
        }
    };
    for spec in specs {
        match &spec.reads {
            Reads::Ratio { events, total } => {
                want(events, "");
                want(total, "");
            }
            Reads::Counter(of) | Reads::Restarts(of) => want(of, ""),
            Reads::Histogram(of) => want(of, "_bucket"),
            Reads::Gauge { of, per, .. } => {
                want(of, "");
                if let Some(per) = per {
                    want(per, "");
                }
            }
            Reads::Health(_) | Reads::Promql(_) => {}
        }
    }
    names
}

/// Whether any spec reads this sample: what a source keeps of a body.
pub fn is_wanted(specs: &[SignalSpec], sample: &Sample) -> bool {
    let name: &str = &sample.name;
    name == PROCESS_START_TIME
        || specs.iter().any(|spec| match &spec.reads {
            Reads::Ratio { events, total } => {
                events.matches(name, &sample.labels) || total.matches(name, &sample.labels)
            }
            Reads::Counter(of) | Reads::Restarts(of) => of.matches(name, &sample.labels),
            Reads::Histogram(of) => name
                .strip_suffix("_bucket")
                .is_some_and(|histogram| of.matches(histogram, &sample.labels)),
            Reads::Gauge { of, per, .. } => {
                of.matches(name, &sample.labels)
                    || per.as_ref().is_some_and(|per| per.matches(name, &sample.labels))
            }
            Reads::Health(_) | Reads::Promql(_) => false,
        })
}
