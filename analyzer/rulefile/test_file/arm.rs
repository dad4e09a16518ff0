//! What an arm shows: signals by name, raw series, gaps, and instances that differ.
//!
//! What is said of an arm holds for each of its instances, unless the instance says otherwise; what a
//! test says goes before the file's `defaults`, and an arm before `both`. Said in one place, a signal's name
//! goes before the series that it reads.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Reader,
    notation::{self, Notation, Script, split},
    series::{self, Series, Values},
};
use crate::{
    engine::{
        observation::PARTS_MAX,
        rule::{Signal, SignalKind, Unit},
    },
    rulefile::{
        RuleFile,
        fault::{Complaint, did_you_mean, excerpt, nearest},
        literal,
        selector::{self, Budget},
        signals::Scale,
        table,
        tree::{Kind, Node, Scalar},
        units::Units,
    },
    signal::{
        sample::Labels,
        spec::{MatchTest, Reads, Selection, SignalSpec},
    },
};

/// Series of one instance.
const SERIES_MAX: usize = 500;
/// Gaps of one instance.
const GAPS_MAX: usize = 100;
const INSTANCE_BYTES_MAX: usize = 120;

/// What one arm shows; without instances the analysis has no such arm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArmScript {
    /// Its instances, sorted by name.
    pub instances: Vec<InstanceScript>,
}

/// What one instance shows.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceScript {
    /// Its name.
    pub name: String,
    /// By index of the signal: what it shows, whatever series there are.
    pub signals: BTreeMap<usize, Arc<Script>>,
    /// What it exposes.
    pub series: Vec<Arc<Series>>,
    /// When it does not answer: from, and until.
    pub gaps: Vec<(Duration, Duration)>,
}

/// What one mapping of the file says of an arm or an instance.
#[derive(Clone, Default)]
pub(super) struct Layer {
    signals: BTreeMap<usize, Arc<Script>>,
    series: Vec<Arc<Series>>,
    gaps: Option<Vec<(Duration, Duration)>>,
    instances: Vec<(String, Layer)>,
}

impl Reader<'_, '_> {
    /// Reads what one mapping says.
    pub(super) fn layer(&mut self, node: &Node) -> Layer {
        let mut layer = Layer::default();
        let entries = match &node.kind {
            Kind::Map(entries) => entries,
            // `a:` is an instance of which there is nothing special to say; YAML makes a tilde of it.
            Kind::Scalar(scalar) if matches!(scalar.text.trim(), "" | "~") => return layer,
            Kind::Scalar(_) | Kind::List(_) => {
                self.out.push(Complaint::new(
                    node.span.clone(),
                    format!("what is shown was given as {}", table::describe(node)),
                    "a mapping of signals to what they show: `{ error_rate: 60/1000, app: up }`",
                ));
                return layer;
            }
        };
        for (index, (key, value)) in entries.iter().enumerate() {
            if entries[..index].iter().any(|(earlier, _)| earlier.text == key.text) {
                self.out.push(table::twice(key));
                continue;
            }
            let is_map = matches!(value.kind, Kind::Map(_));
            match key.text.as_str() {
                "instances" if is_map => layer.instances = self.instances(value),
                "series" if is_map => layer.series = self.series(value),
                "gaps" if !self.is_signal("gaps") => layer.gaps = Some(self.gaps(value)),
                _ => layer.signals.extend(self.signal(key, value)),
            }
        }
        layer
    }

    /// Puts the layers together, the last of which goes first.
    pub(super) fn arm(
        &mut self,
        table: &table::Table<'_>,
        arm: &str,
        layers: &[&Option<Layer>],
    ) -> ArmScript {
        let layers: Vec<&Layer> = layers.iter().filter_map(|layer| layer.as_ref()).collect();
        let mut names: Vec<&str> = layers
            .iter()
            .flat_map(|layer| layer.instances.iter().map(|(name, _)| name.as_str()))
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > PARTS_MAX {
            self.out.push(Complaint::new(
                table.span(),
                format!("{} instances of the {arm}", names.len()),
                format!("at most {PARTS_MAX}"),
            ));
        }
        if names.is_empty() && !layers.is_empty() {
            names.push(arm);
        }
        let specs = self.rules.map(|file| &file.specs[..]).unwrap_or_default();
        let instance = |name: &str| {
            let mut script = InstanceScript {
                name: name.to_owned(),
                signals: BTreeMap::new(),
                series: Vec::new(),
                gaps: Vec::new(),
            };
            for layer in &layers {
                script.take(layer, specs);
                let own = layer.instances.iter().find(|(known, _)| known == name);
                if let Some((_, own)) = own {
                    script.take(own, specs);
                }
            }
            script
        };
        ArmScript { instances: names.into_iter().map(instance).collect() }
    }

    fn is_signal(&self, name: &str) -> bool {
        self.rules.is_some_and(|file| file.rules.signals.iter().any(|signal| signal.name == name))
    }

    fn instances(&mut self, node: &Node) -> Vec<(String, Layer)> {
        let Kind::Map(entries) = &node.kind else { return Vec::new() };
        let mut read: Vec<(String, Layer)> = Vec::new();
        for (key, value) in entries {
            if read.iter().any(|(name, _)| *name == key.text) {
                self.out.push(table::twice(key));
                continue;
            }
            if key.text.is_empty() || key.text.len() > INSTANCE_BYTES_MAX {
                self.out.push(Complaint::new(
                    key.span.clone(),
                    format!("the instance `{}`", excerpt(&key.text)),
                    format!("a name of 1 to {INSTANCE_BYTES_MAX} bytes"),
                ));
            }
            let layer = self.layer(value);
            if !layer.instances.is_empty() {
                let found = "instances of an instance";
                let expected = "signals, `series` or `gaps`";
                self.out.push(Complaint::new(value.span.clone(), found, expected));
            }
            read.push((key.text.clone(), layer));
        }
        read
    }

    fn gaps(&mut self, node: &Node) -> Vec<(Duration, Duration)> {
        let Some(scalar) = self.out.keep(table::text(node, "`gaps`")) else { return Vec::new() };
        let mut gaps = Vec::new();
        for (at, piece) in split(&scalar.text, "and").into_iter().take(GAPS_MAX) {
            let place = |span: std::ops::Range<usize>| {
                scalar.place(self.source, span.start + at..span.end + at)
            };
            let read = piece
                .split_once("..")
                .ok_or_else(|| {
                    let found = format!("the gap `{}`", excerpt(piece));
                    Complaint::new(0..piece.len(), found, "from when until when: `3m..4m`")
                })
                .and_then(|(from, until)| {
                    let (from, until) = (literal::duration(from)?, literal::duration(until)?);
                    if from < until {
                        return Ok((from, until));
                    }
                    let found = "a gap that ends before it begins";
                    Err(Complaint::new(0..piece.len(), found, "a later end: `3m..4m`"))
                });
            gaps.extend(self.out.keep(read.map_err(|complaint| complaint.moved(place))));
        }
        gaps
    }

    fn signal(&mut self, key: &Scalar, value: &Node) -> Option<(usize, Arc<Script>)> {
        let what = format!("`{}`", excerpt(&key.text));
        let text = table::text(value, &what).map_err(|complaint| complaint.hint_if(cut_off(key)));
        let scalar = self.out.keep(text)?;
        let place = |complaint: Complaint| complaint.moved(|span| scalar.place(self.source, span));
        let Some(file) = self.rules else {
            let read = notation::script(&scalar.text, None).map_err(place);
            self.out.keep(read);
            return None;
        };
        let index = self.out.keep(find_signal(file, key))?;
        let (signal, spec) = (&file.rules.signals[index], file.specs.get(index)?);
        let units = Units { name: &signal.name, kind: signal.kind, scale: scale(signal, spec) };
        let notation = Notation { units, interval: file.rules.observe.interval };
        let script = notation::script(&scalar.text, Some(notation)).map_err(place);
        Some((index, Arc::new(self.out.keep(script)?)))
    }

    fn series(&mut self, node: &Node) -> Vec<Arc<Series>> {
        let Kind::Map(entries) = &node.kind else { return Vec::new() };
        if entries.len() > SERIES_MAX {
            self.out.push(Complaint::new(
                node.span.clone(),
                format!("{} series", entries.len()),
                format!("at most {SERIES_MAX} of an instance"),
            ));
        }
        let mut budget = Budget::new();
        let mut read: Vec<Arc<Series>> = Vec::new();
        for (key, value) in entries.iter().take(SERIES_MAX) {
            let named = series_name(&key.text, &mut budget)
                .map_err(|complaint| complaint.moved(|span| key.place(self.source, span)));
            let (Some((name, labels)), Some(scalar)) =
                (self.out.keep(named), self.out.keep(table::text(value, "a series")))
            else {
                continue;
            };
            if read.iter().any(|series| series.name == name && series.labels == labels) {
                self.out.push(table::twice(key));
                continue;
            }
            let values = self.values(&name, key, scalar);
            let values =
                values.map_err(|complaint| complaint.moved(|span| scalar.place(self.source, span)));
            if let Some(Some(values)) = self.out.keep(values) {
                read.push(Arc::new(Series { name, labels, values }));
            }
        }
        read
    }

    /// What a series shows; none of a histogram while the rule file is not known.
    fn values(
        &self,
        name: &str,
        key: &Scalar,
        scalar: &Scalar,
    ) -> Result<Option<Values>, Complaint> {
        if !scalar.text.contains('@') {
            return series::items(&scalar.text).map(|items| Some(Values::Listed(items)));
        }
        let Some(file) = self.rules else {
            return notation::script(&scalar.text, None).map(|_| None);
        };
        let reads = |spec: &SignalSpec| match &spec.reads {
            Reads::Histogram { of, .. } => of.any_of.iter().any(|selector| selector.name == name),
            _ => false,
        };
        let Some(signal) = file.specs.iter().position(reads) else {
            return Err(Complaint::new(
                0..scalar.text.len(),
                format!("`{}` is written as a histogram", excerpt(&key.text)),
                "the name of a histogram that a `quantile` signal reads, without `_bucket`",
            ));
        };
        let known = &file.rules.signals[signal];
        let scale = scale(known, &file.specs[signal]);
        let units = Units { name: &known.name, kind: known.kind, scale };
        let notation = Notation { units, interval: file.rules.observe.interval };
        let script = Arc::new(notation::script(&scalar.text, Some(notation))?);
        Ok(Some(Values::Histogram { signal, script }))
    }
}

impl InstanceScript {
    fn take(&mut self, layer: &Layer, specs: &[SignalSpec]) {
        self.signals.retain(|signal, _| {
            let reads = |series: &Arc<Series>| reads_series(&specs[*signal].reads, &series.name);
            !layer.series.iter().any(reads)
        });
        self.signals.extend(layer.signals.iter().map(|(signal, script)| (*signal, script.clone())));
        for series in &layer.series {
            let is_same =
                |known: &Arc<Series>| known.name == series.name && known.labels == series.labels;
            self.series.retain(|known| !is_same(known));
            self.series.push(series.clone());
        }
        if let Some(gaps) = &layer.gaps {
            self.gaps.clone_from(gaps);
        }
    }
}

/// Whether a signal is read from a series of this name.
fn reads_series(reads: &Reads, name: &str) -> bool {
    let is_of = |of: &Selection| of.any_of.iter().any(|selector| selector.name == name);
    match reads {
        Reads::Ratio { events, total } => is_of(events) || is_of(total),
        Reads::Counter(of) | Reads::Restarts(of) => is_of(of),
        Reads::Histogram { of, .. } => {
            let metric = name.strip_suffix("_bucket").unwrap_or(name);
            of.any_of.iter().any(|selector| selector.name == metric)
        }
        Reads::Gauge { of, per, .. } => is_of(of) || per.as_ref().is_some_and(is_of),
        Reads::Health(_) | Reads::Answer { .. } | Reads::Up | Reads::Promql(_) => false,
    }
}

/// In `{ }` a comma ends the value, and what follows it reads as a key.
fn cut_off(key: &Scalar) -> Option<String> {
    let cut = key.text.starts_with(|c: char| c.is_ascii_digit());
    cut.then(|| "in `{ }` a comma ends the value: write `then` for it".to_owned())
}

fn find_signal(file: &RuleFile, key: &Scalar) -> Result<usize, Complaint> {
    // A name of two words, such as `field(app, depth)`, is the same however its blanks are set.
    let plain = |name: &str| name.split_whitespace().collect::<String>();
    let wanted = plain(&key.text);
    let names = || file.rules.signals.iter().map(|signal| signal.name.as_str());
    names().position(|name| plain(name) == wanted).ok_or_else(|| {
        let all: Vec<&str> = names().collect();
        let known =
            if all.len() > 12 { "a signal of the rule file".to_owned() } else { table::list(&all) };
        let words = ["series", "instances", "gaps"];
        let near =
            nearest(&key.text, words).map(|word| format!("did you mean `{word}`, as a mapping?"));
        Complaint::new(
            key.span.clone(),
            format!("`{}` is no signal of the rule file", excerpt(&key.text)),
            format!("{known}; or `series`, `gaps`, `instances`"),
        )
        .hint_if(did_you_mean(&key.text, names()).or(near).or(cut_off(key)))
    })
}

/// In which unit a signal's values are written. Times are the one unit that may be kept in another.
fn scale(signal: &Signal, spec: &SignalSpec) -> Scale {
    match signal.unit {
        Unit::Share => Scale::Share,
        Unit::Seconds => Scale::Time { unit_secs: 1.0 },
        Unit::Bytes => Scale::Bytes,
        Unit::PerSecond => Scale::PerSecond,
        Unit::Count => Scale::Count,
        Unit::Health => Scale::Health,
        Unit::Number => {
            let name = match &spec.reads {
                Reads::Histogram { of, .. } | Reads::Gauge { of, per: None, .. } => {
                    of.names().first().copied().unwrap_or_default()
                }
                _ => signal.name.trim_end_matches(')'),
            };
            let endings = ["_milliseconds", "_millis", "_ms"];
            match endings.iter().any(|ending| name.ends_with(ending)) {
                true => Scale::Time { unit_secs: 0.001 },
                false if matches!(signal.kind, SignalKind::Gauge { .. }) => Scale::Any,
                false => Scale::PlainOrBytes,
            }
        }
    }
}

/// `name{label="value"}`.
fn series_name(text: &str, budget: &mut Budget) -> Result<(String, Labels), Complaint> {
    let selection = selector::selection(text, budget)?;
    let expected = "one series by name and labels, such as `http_requests_total{code=\"500\"}`";
    let wrong = |found: &str| Complaint::new(0..text.len(), found.to_owned(), expected);
    let [selector] = &selection.any_of[..] else {
        return Err(wrong("several selectors in place of a series"));
    };
    let mut pairs = Vec::new();
    for matcher in &selector.matchers {
        match &matcher.test {
            MatchTest::Equal(value) => pairs.push((matcher.label.as_str(), value.as_str())),
            MatchTest::NotEqual(_) | MatchTest::Regex(..) | MatchTest::NotRegex(..) => {
                return Err(wrong("a series whose labels are matched rather than given"));
            }
        }
    }
    Ok((selector.name.clone(), Labels::of(&mut pairs)))
}
