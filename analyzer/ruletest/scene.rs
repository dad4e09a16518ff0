//! What a test shows, look by look, as the observations that a live analysis would have made.
//!
//! Series, gaps and health go through the reducer, as scrapes and probes do. What the test says of a
//! signal by name takes the place of what the reducer read, unless the instance does not answer then.
//! A count needs two readings, so at the first look, when the analysis begins, there is none.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::latency::Shape;
use crate::{
    engine::{
        observation::{
            Arm, Health, Missing, Observation, Part, PartKind, Reading, Time, Value, Why,
        },
        rule::SignalKind,
    },
    rulefile::{
        RuleFile,
        test_file::{ArmScript, InstanceScript, Script, Series, Shown, Test, Values, value_at},
    },
    signal::{
        answer::AnswerNumber,
        carry::Carry,
        reduce::Reducer,
        sample::{Gathered, InstanceReading, Labels, Probe, ProbeAnswer, Sample},
        spec::{HealthTarget, Reads, Reduce, SignalSpec},
    },
};

/// When the analysis begins: any time that leaves room for processes to have begun before.
pub const BEGIN: Time = Time(1_700_000_000_000);

/// What the name of a series ends in whose values are times. A test gives them from its beginning on.
const START_TIME: &str = "_start_time_seconds";

/// When processes began of which the test does not say it, before the analysis.
const BORN_BEFORE: Duration = Duration::from_secs(3600);

/// One test's looks.
pub struct Scene<'t> {
    test: &'t Test,
    file: &'t RuleFile,
    specs: Arc<[SignalSpec]>,
    reducer: Reducer,
    /// By signal, where it is a quantile that the test shows.
    shapes: Vec<Option<Shape>>,
    /// Buckets counted so far, by arm, instance and series.
    counted: BTreeMap<(Arm, usize, usize), Vec<f64>>,
    /// When the process behind an instance began, by arm and instance.
    lives: BTreeMap<(Arm, usize), Time>,
    look: usize,
}

impl<'t> Scene<'t> {
    /// The looks of a test.
    pub fn new(test: &'t Test, file: &'t RuleFile) -> Self {
        let specs: Arc<[SignalSpec]> = file.specs.clone().into();
        let shapes = (0..specs.len())
            .map(|signal| Shape::new(&file.rules, signal, quantiles(test, signal)))
            .collect();
        Self {
            test,
            file,
            reducer: Reducer::new(specs.clone(), file.rules.observe.warmup, Carry::default()),
            specs,
            shapes,
            counted: BTreeMap::new(),
            lives: BTreeMap::new(),
            look: 0,
        }
    }

    /// When the next look is taken, after the beginning.
    pub fn time(&self) -> Duration {
        self.file.rules.observe.interval * u32::try_from(self.look).unwrap_or(u32::MAX)
    }

    /// What was exposed and answered at the next look, before anything is made of it.
    pub fn gather(&mut self) -> Gathered {
        let time = self.time();
        Gathered {
            at: BEGIN.after(time),
            canary: self.instances(Arm::Canary, time),
            baseline: self.instances(Arm::Baseline, time),
            dependencies: self.dependencies(time),
        }
    }

    /// The next look.
    pub fn observe(&mut self) -> Observation {
        let time = self.time();
        let gathered = self.gather();
        let mut observation = self.reducer.reduce(&gathered);
        for arm in Arm::BOTH {
            self.note_restarts(arm, time);
            for signal in 0..self.specs.len() {
                if let Some((reading, parts)) = self.told(arm, signal, time) {
                    let pair = &mut observation.signals[signal];
                    match arm {
                        Arm::Canary => (pair.canary, pair.parts.canary) = (reading, parts),
                        Arm::Baseline => (pair.baseline, pair.parts.baseline) = (reading, parts),
                    }
                }
            }
        }
        self.look += 1;
        observation
    }

    fn arm(&self, arm: Arm) -> &'t ArmScript {
        match arm {
            Arm::Canary => &self.test.canary,
            Arm::Baseline => &self.test.baseline,
        }
    }

    fn instances(&mut self, arm: Arm, time: Duration) -> Vec<InstanceReading> {
        let mut readings = Vec::new();
        for (index, instance) in self.arm(arm).instances.iter().enumerate() {
            // Counters go on while nobody can read them.
            let samples = self.samples(arm, index, instance, time);
            readings.push(InstanceReading {
                instance: instance.name.as_str().into(),
                at: BEGIN.after(time),
                samples: if has_gap(instance, time) { Err(gap()) } else { Ok(samples) },
                refused: None,
                probes: self.probes(instance, time),
                levels: Vec::new(),
            });
        }
        readings
    }

    fn probes(&self, instance: &InstanceScript, time: Duration) -> Vec<Probe> {
        let specs = self.specs.iter().enumerate();
        specs
            .filter(|(_, spec)| spec.health_path().is_some())
            .map(|(signal, _)| {
                let script = instance.signals.get(&signal);
                Probe { signal, answer: answer(script.map(Arc::as_ref), time) }
            })
            .collect()
    }

    /// Of a dependency the first instance of the canary tells.
    fn dependencies(&self, time: Duration) -> Vec<Probe> {
        let first = self.test.canary.instances.first();
        let specs = self.specs.iter().enumerate();
        specs
            .filter(|(_, spec)| spec.health_url().is_some())
            .map(|(signal, _)| {
                let script = first.and_then(|instance| instance.signals.get(&signal));
                Probe { signal, answer: answer(script.map(Arc::as_ref), time) }
            })
            .collect()
    }

    fn samples(
        &mut self,
        arm: Arm,
        index: usize,
        instance: &InstanceScript,
        time: Duration,
    ) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (number, series) in instance.series.iter().enumerate() {
            let Series { name, labels, values } = &**series;
            match values {
                Values::Listed(items) => {
                    let from = if name.ends_with(START_TIME) { BEGIN.as_secs_f64() } else { 0.0 };
                    let sample =
                        |value| Sample::number(name.as_str().into(), labels.clone(), from + value);
                    samples.extend(value_at(items, self.look).map(sample));
                }
                Values::Histogram { signal, script } => {
                    let Some(shape) = &self.shapes[*signal] else { continue };
                    let counted = self.counted.entry((arm, index, number)).or_default();
                    counted.resize(shape.edges().len() + 1, 0.0);
                    if let Shown::Latency { requests, quantile } = script.count_at(time)
                        && self.look > 0
                    {
                        let more = shape.cumulative(requests, quantile);
                        counted.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
                    }
                    samples.extend(buckets(name, labels, shape.edges(), counted));
                }
            }
        }
        samples
    }

    /// What the test says of a signal by its name: none where it leaves it to the series.
    fn told(&self, arm: Arm, signal: usize, time: Duration) -> Option<(Reading, Vec<Part>)> {
        let reads = &self.specs[signal].reads;
        let script = self.arm(arm);
        // Health was probed, and a dependency has no baseline.
        let is_probed = match reads {
            Reads::Health(_) => true,
            Reads::Answer { of: HealthTarget::Url(_), .. } => arm == Arm::Baseline,
            _ => false,
        };
        if script.instances.is_empty() || is_probed {
            return None;
        }
        let told = |instance: &'t InstanceScript| self.script(instance, signal).is_some();
        if !script.instances.iter().any(told) {
            let has_series = script.instances.iter().any(|instance| !instance.series.is_empty());
            let is_read = match reads {
                // Who answers shows in the gaps.
                Reads::Up => true,
                Reads::Promql(_) | Reads::Answer { .. } => false,
                Reads::Ratio { .. }
                | Reads::Counter(_)
                | Reads::Histogram { .. }
                | Reads::Gauge { .. }
                | Reads::Health(_)
                | Reads::Restarts(_) => has_series,
            };
            return if is_read { None } else { Some((Err(self.unsaid(signal)), Vec::new())) };
        }
        let mut readings = Vec::new();
        for (index, instance) in script.instances.iter().enumerate() {
            let Some(script) = self.script(instance, signal) else { continue };
            let is_answer = matches!(reads, Reads::Answer { .. } | Reads::Promql(_));
            let reading = if has_gap(instance, time) && matches!(reads, Reads::Up) {
                Ok(Value::Level(0.0))
            } else if has_gap(instance, time) && !is_answer {
                Err(Missing::new(Why::ScrapeFailed, format!("{}: {}", instance.name, gap().detail)))
            } else {
                self.reading(signal, script, &instance.name, time)
            };
            readings.push((arm, index, instance.name.as_str(), reading));
        }
        // As the reducer has it: counts are taken apart to find which instance of the canary is bad.
        let has_parts = match reads {
            Reads::Gauge { .. } | Reads::Answer { .. } => true,
            Reads::Ratio { .. } | Reads::Counter(_) | Reads::Histogram { .. } | Reads::Up => {
                arm == Arm::Canary && readings.len() > 1
            }
            Reads::Health(_) | Reads::Restarts(_) | Reads::Promql(_) => false,
        };
        let parts = readings.iter().filter_map(|(arm, index, name, reading)| {
            let value = reading.clone().ok().filter(|_| has_parts)?;
            let started = self.lives.get(&(*arm, *index)).copied();
            let started = started.or(Some(Time(BEGIN.0 - BORN_BEFORE.as_millis() as i64)));
            Some(Part { kind: PartKind::Instance, name: Arc::from(*name), started, value })
        });
        let parts = parts.collect();
        let readings = readings.into_iter().map(|(.., reading)| reading).collect();
        Some((joined(readings, reads), parts))
    }

    /// What an instance shows of a signal. How long a health endpoint takes is said beside its status.
    fn script(&self, instance: &'t InstanceScript, signal: usize) -> Option<&'t Script> {
        let own = instance.signals.get(&signal);
        let of_health = || {
            let Reads::Answer { of, number: AnswerNumber::Latency, .. } = &self.specs[signal].reads
            else {
                return None;
            };
            let is_it = |spec: &SignalSpec| matches!(&spec.reads, Reads::Health(at) if at == of);
            instance.signals.get(&self.specs.iter().position(is_it)?)
        };
        own.or_else(of_health).map(Arc::as_ref)
    }

    fn unsaid(&self, signal: usize) -> Missing {
        let signal = &self.file.rules.signals[signal];
        // What a service may do without is not there unless it is shown.
        let why = if signal.optional { Why::AbsentSeries } else { Why::NotObserved };
        Missing::new(why, format!("the test says nothing of {}", signal.name))
    }

    fn reading(&self, signal: usize, script: &Script, name: &str, time: Duration) -> Reading {
        let kind = self.file.rules.signals[signal].kind;
        let is_level = matches!(kind, SignalKind::Gauge { .. });
        let shown = if is_level { script.level_at(time) } else { script.count_at(time) };
        let first = || Missing::new(Why::FirstLook, name);
        match shown {
            Shown::Missing(why) => Err(Missing::new(why, format!("{name}: the test says so"))),
            Shown::Level(level) => Ok(Value::Level(level)),
            Shown::Health { latency_secs, .. } => latency_secs.map(Value::Level).ok_or_else(|| {
                Missing::new(Why::NotObserved, "the test does not say how long, as in `up@20ms`")
            }),
            Shown::Share { .. } | Shown::Events(_) | Shown::Latency { .. } if self.look == 0 => {
                match kind {
                    SignalKind::Restarts => Ok(Value::Restarts(0)),
                    _ => Err(first()),
                }
            }
            Shown::Share { events, total } if total > 0.0 => Ok(Value::Share { events, total }),
            Shown::Latency { requests, quantile } if requests > 0.0 => {
                let shape = self.shapes[signal].as_ref();
                shape
                    .map(|shape| Value::Histogram(shape.histogram(requests, quantile)))
                    .ok_or_else(|| Missing::new(Why::BucketLayout, name))
            }
            Shown::Share { .. } | Shown::Latency { .. } => Err(Missing::new(
                Why::NoTraffic,
                format!("{name}: no requests since the last look"),
            )),
            Shown::Events(events) if matches!(kind, SignalKind::Restarts) => {
                Ok(Value::Restarts(events.round() as u32))
            }
            Shown::Events(events) => Ok(Value::Events {
                events,
                instance_secs: self.file.rules.observe.interval.as_secs_f64(),
                instances: 1,
            }),
        }
    }

    /// A restart begins another life, on which slopes are judged anew.
    fn note_restarts(&mut self, arm: Arm, time: Duration) {
        let kinds = &self.file.rules.signals;
        for (index, instance) in self.arm(arm).instances.iter().enumerate() {
            let restarted = instance.signals.iter().any(|(signal, script)| {
                matches!(kinds[*signal].kind, SignalKind::Restarts)
                    && matches!(script.count_at(time), Shown::Events(lives) if lives > 0.0)
            });
            if restarted && self.look > 0 {
                self.lives.insert((arm, index), BEGIN.after(time));
            }
        }
    }
}

/// Every quantile that a test shows of a signal, in either arm.
fn quantiles(test: &Test, signal: usize) -> impl Iterator<Item = f64> {
    let instances = test.canary.instances.iter().chain(&test.baseline.instances);
    let scripts = instances.flat_map(move |instance| {
        let of_series = instance.series.iter().filter_map(move |series| match &series.values {
            Values::Histogram { signal: read, script } if *read == signal => Some(&**script),
            Values::Histogram { .. } | Values::Listed(_) => None,
        });
        instance.signals.get(&signal).map(Arc::as_ref).into_iter().chain(of_series)
    });
    scripts.flat_map(Script::values).filter_map(|shown| match shown {
        Shown::Latency { quantile, .. } => Some(quantile),
        Shown::Share { .. }
        | Shown::Events(_)
        | Shown::Level(_)
        | Shown::Health { .. }
        | Shown::Missing(_) => None,
    })
}

fn has_gap(instance: &InstanceScript, time: Duration) -> bool {
    instance.gaps.iter().any(|(from, until)| (*from..*until).contains(&time))
}

fn gap() -> Missing {
    Missing::new(Why::ScrapeFailed, "the test has a gap here")
}

fn answer(script: Option<&Script>, time: Duration) -> Result<ProbeAnswer, Missing> {
    let Some(script) = script else {
        return Err(Missing::new(Why::NotObserved, "the test says nothing of it"));
    };
    match script.level_at(time) {
        Shown::Health { status, latency_secs } => {
            let detail = match status {
                Health::Up => "",
                Health::Degraded | Health::Down => "the test says so",
            };
            Ok(ProbeAnswer { status, latency_secs, detail: detail.to_owned() })
        }
        Shown::Missing(why) => Err(Missing::new(why, "the test says so")),
        Shown::Share { .. } | Shown::Events(_) | Shown::Latency { .. } | Shown::Level(_) => {
            Err(Missing::new(Why::UnclearHealth, "a number in place of a status"))
        }
    }
}

/// The bucket series of a histogram, as it is exposed.
fn buckets(name: &str, labels: &Labels, edges: &[f64], counted: &[f64]) -> Vec<Sample> {
    let bounds = edges.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    let name: Arc<str> = format!("{name}_bucket").into();
    let sample = |(bound, count): (String, &f64)| {
        let mut pairs: Vec<(&str, &str)> = labels.iter().chain([("le", &*bound)]).collect();
        Sample::number(name.clone(), Labels::of(&mut pairs), *count)
    };
    bounds.zip(counted).map(sample).collect()
}

/// The readings of an arm's instances as one, as the reducer joins them.
fn joined(readings: Vec<Reading>, reads: &Reads) -> Reading {
    let (mut values, mut missing) = (Vec::new(), None);
    for reading in readings {
        match reading {
            Ok(value) => values.push(value),
            Err(why) => missing = missing.or(Some(why)),
        }
    }
    let count = values.len();
    // Of a mean the sum, until all are there.
    let level = |one: f64, other: f64| match reduce(reads) {
        Reduce::Max => one.max(other),
        Reduce::Min => one.min(other),
        Reduce::Mean | Reduce::Sum => one + other,
    };
    let sum = values.into_iter().reduce(|sum, value| sum.beside(value, level));
    match (sum, missing) {
        (Some(Value::Level(level)), _) if reduce(reads) == Reduce::Mean => {
            Ok(Value::Level(level / count as f64))
        }
        (Some(value), _) => Ok(value),
        (None, Some(missing)) => Err(missing),
        (None, None) => Err(Missing::new(Why::NotObserved, "the analysis has no such arm")),
    }
}

fn reduce(reads: &Reads) -> Reduce {
    match reads {
        Reads::Gauge { reduce, .. } | Reads::Answer { reduce, .. } => *reduce,
        Reads::Promql(_) | Reads::Up => Reduce::Mean,
        Reads::Ratio { .. }
        | Reads::Counter(_)
        | Reads::Histogram { .. }
        | Reads::Health(HealthTarget::Path(_) | HealthTarget::Url(_))
        | Reads::Restarts(_) => Reduce::Max,
    }
}
