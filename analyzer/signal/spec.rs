//! What to read for each signal: the rule file's selectors as typed values.
//!
//! A [`SignalSpec`] says which series make a signal up; the engine's `Signal` of the same index
//! says how its numbers are judged.

use std::fmt;

use regex::Regex;

use super::{
    answer::AnswerNumber,
    sample::{Labels, NATIVE, Sample},
};

/// What one signal is read from. Its index equals the engine signal's index.
#[derive(Clone, Debug)]
pub struct SignalSpec {
    /// The signal's name in the rule file.
    pub name: String,
    /// Where its numbers come from.
    pub reads: Reads,
}

impl SignalSpec {
    /// The path that every instance is asked for, when this is such a health signal.
    pub fn health_path(&self) -> Option<&str> {
        match self.health()? {
            HealthTarget::Path(path) => Some(path),
            HealthTarget::Url(_) => None,
        }
    }

    /// The URL that is asked once, when this is such a health signal.
    pub fn health_url(&self) -> Option<&str> {
        match self.health()? {
            HealthTarget::Path(_) => None,
            HealthTarget::Url(url) => Some(url),
        }
    }

    /// Which endpoint this health signal asks.
    pub fn health(&self) -> Option<&HealthTarget> {
        match &self.reads {
            Reads::Health(target) => Some(target),
            Reads::Ratio { .. }
            | Reads::Counter(_)
            | Reads::Histogram { .. }
            | Reads::Gauge { .. }
            | Reads::Answer { .. }
            | Reads::Up
            | Reads::Restarts(_)
            | Reads::Promql(_) => None,
        }
    }
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
    /// A histogram, or a summary's own quantile.
    Histogram {
        /// The metric, without `_bucket`.
        of: Selection,
        /// Which quantile is judged: that of a summary is read as it stands.
        q: f64,
    },
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
    /// A number of what a health endpoint answers. There is a [`Reads::Health`] of the same target,
    /// and one question serves both.
    Answer {
        /// Which endpoint.
        of: HealthTarget,
        /// Which of its numbers.
        number: AnswerNumber,
        /// How instances become one value.
        reduce: Reduce,
    },
    /// Which of the arm's instances answer when they are scraped.
    Up,
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

    /// Whether a series of this name carries the labels that are asked for, whatever their values.
    /// It then bears witness that a selector which matches nothing is right: nothing has happened.
    pub fn could_match(&self, name: &str, labels: &Labels) -> bool {
        self.any_of.iter().any(|selector| selector.name == name && selector.could_match(labels))
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

    fn could_match(&self, labels: &Labels) -> bool {
        let known = |matcher: &Matcher| !labels.value(&matcher.label).is_empty();
        // `env!="dev"` asks for no label: a series without one satisfies it.
        self.matchers.iter().all(|matcher| known(matcher) || matcher.matches(labels))
    }
}

/// `name{matchers}`, as a metrics server is asked.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{", self.name)?;
        for (index, matcher) in self.matchers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{matcher}")?;
        }
        f.write_str("}")
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

/// As PromQL has it, the value in double quotes.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, value) = match &self.test {
            MatchTest::Equal(value) => ("=", value),
            MatchTest::NotEqual(value) => ("!=", value),
            MatchTest::Regex(text, _) => ("=~", text),
            MatchTest::NotRegex(text, _) => ("!~", text),
        };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(f, "{}{op}\"{value}\"", self.label)
    }
}

/// The numbers that are read of the answer to the health signal at `health`, each with its signal.
/// Of health signals that ask the same endpoint the first serves.
pub fn answer_numbers(specs: &[SignalSpec], health: usize) -> Vec<(usize, &AnswerNumber)> {
    let target = specs.get(health).and_then(SignalSpec::health);
    let first = specs.iter().position(|spec| spec.health().is_some() && spec.health() == target);
    if first != Some(health) {
        return Vec::new();
    }
    let read = |(signal, spec)| match spec {
        &SignalSpec { reads: Reads::Answer { ref of, ref number, .. }, .. }
            if Some(of) == target =>
        {
            Some((signal, number))
        }
        _ => None,
    };
    specs.iter().enumerate().filter_map(read).collect()
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
            Reads::Histogram { of, .. } => {
                want(of, "_bucket");
                want(of, "");
            }
            Reads::Gauge { of, per, .. } => {
                want(of, "");
                if let Some(per) = per {
                    want(per, "");
                }
            }
            Reads::Health(_) | Reads::Answer { .. } | Reads::Up | Reads::Promql(_) => {}
        }
    }
    names
}

/// Whether a quantile is wanted of which these samples have neither buckets, save `+Inf`, nor a
/// summary: it may be a native histogram, which text formats do not carry.
pub fn lacks_buckets(specs: &[SignalSpec], samples: &[Sample]) -> bool {
    let tells = |sample: &Sample, metric: &str| {
        let labels = &sample.labels;
        match sample.name.strip_prefix(metric) {
            Some("_bucket") => labels.value("le") != "+Inf",
            Some("") => !labels.value("quantile").is_empty(),
            Some(_) | None => false,
        }
    };
    specs.iter().any(|spec| match &spec.reads {
        Reads::Histogram { of, .. } => {
            !of.names().iter().any(|metric| samples.iter().any(|sample| tells(sample, metric)))
        }
        Reads::Ratio { .. }
        | Reads::Counter(_)
        | Reads::Gauge { .. }
        | Reads::Health(_)
        | Reads::Answer { .. }
        | Reads::Up
        | Reads::Restarts(_)
        | Reads::Promql(_) => false,
    })
}

/// Drops the samples that no spec reads: what a source keeps of a body. Bounds of buckets are
/// written in one way, so that a target that changes its format keeps its series.
///
/// Of each metric two more are kept that are not selected: its first, which says that the metric is
/// exposed, and the first that carries the selected labels, which says that a selector without a
/// match is right and nothing has happened yet.
pub fn retain_wanted(specs: &[SignalSpec], samples: &mut Vec<Sample>) {
    let mut selections: Vec<(&Selection, &str, Witnesses)> = Vec::new();
    // Quantiles that a summary tells; no witness is needed of what only stands in.
    let mut summaries: Vec<&Selection> = Vec::new();
    for spec in specs {
        let mut add = |of, suffix| selections.push((of, suffix, Witnesses::default()));
        match &spec.reads {
            Reads::Ratio { events, total } => {
                add(events, "");
                add(total, "");
            }
            Reads::Counter(of) | Reads::Restarts(of) => add(of, ""),
            Reads::Histogram { of, .. } => {
                add(of, "_bucket");
                add(of, NATIVE);
                summaries.push(of);
            }
            Reads::Gauge { of, per, .. } => {
                add(of, "");
                if let Some(per) = per {
                    add(per, "");
                }
            }
            Reads::Health(_) | Reads::Answer { .. } | Reads::Up | Reads::Promql(_) => {}
        }
    }
    samples.iter_mut().for_each(Sample::write_bound_plainly);
    samples.retain(|sample| {
        let mut wanted = &*sample.name == PROCESS_START_TIME;
        if !summaries.is_empty() && !sample.labels.value("quantile").is_empty() {
            wanted |= summaries.iter().any(|of| of.matches(&sample.name, &sample.labels));
        }
        for (of, suffix, witnesses) in &mut selections {
            if let Some(name) = sample.name.strip_suffix(*suffix) {
                wanted |=
                    of.matches(name, &sample.labels) || witnesses.take(of, name, &sample.labels);
            }
        }
        wanted
    });
}

/// The samples of one selection that were kept although they are not selected, by metric name.
#[derive(Default)]
struct Witnesses {
    exposed: Vec<String>,
    labelled: Vec<String>,
}

impl Witnesses {
    fn take(&mut self, of: &Selection, name: &str, labels: &Labels) -> bool {
        let new = |names: &mut Vec<String>| {
            let is_new = !names.iter().any(|known| known == name);
            if is_new {
                names.push(name.to_owned());
            }
            is_new
        };
        let is_named = of.any_of.iter().any(|selector| selector.name == name);
        let exposed = is_named && new(&mut self.exposed);
        let labelled = of.could_match(name, labels) && new(&mut self.labelled);
        exposed || labelled
    }
}
