//! What the sources gave at one look becomes one observation.
//!
//! The reducer holds raw positions only (its [`Carry`]); everything it hands on is an increment, a
//! level or a reason. An instance younger than the warm-up sets its marks and is not judged; its
//! restarts and, once it has been up, its health are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    buckets::Cumulative,
    carry::{Carry, InstanceCarry},
    increments::Increments,
    sample::{Gathered, InstanceReading, Probe},
    spec::{HealthTarget, PROCESS_START_TIME, Reads, Reduce, Selection, SignalSpec},
};
use crate::engine::observation::{
    Arm, Health, Missing, Observation, Pair, Reading, Time, Value, Why,
};

/// A process start that moved by more than this is another process; less is clock arithmetic.
const RESTART_SECS_MIN: f64 = 1.0;

/// Instances that have not been seen for this long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Turns gathered samples into observations, look by look.
#[derive(Debug)]
pub struct Reducer {
    specs: Arc<[SignalSpec]>,
    warmup: Duration,
    carry: Carry,
    /// Bucket edges last seen per signal and arm, lent to the next histogram of the same layout.
    edges: BTreeMap<(usize, Arm), Arc<[f64]>>,
}

/// One instance's part in one signal.
enum Part {
    Share { events: f64, total: f64 },
    Events { events: f64, secs: f64 },
    Buckets(Cumulative),
    Level(f64),
    Restarts(u32),
}

impl Reducer {
    /// A reducer that has seen nothing, or resumes where `carry` says.
    pub fn new(specs: Arc<[SignalSpec]>, warmup: Duration, carry: Carry) -> Self {
        Self { specs, warmup, carry, edges: BTreeMap::new() }
    }

    /// Positions after the last look, to be stored with it.
    pub fn carry(&self) -> &Carry {
        &self.carry
    }

    /// One look.
    pub fn reduce(&mut self, gathered: &Gathered) -> Observation {
        let canary = self.reduce_arm(Arm::Canary, gathered.at, &gathered.canary);
        let baseline = self.reduce_arm(Arm::Baseline, gathered.at, &gathered.baseline);
        let mut signals: Vec<Pair> = canary
            .into_iter()
            .zip(baseline)
            .map(|(canary, baseline)| Pair { canary, baseline })
            .collect();
        for probe in &gathered.dependencies {
            if let Some(pair) = signals.get_mut(probe.signal) {
                pair.canary = dependency_reading(probe);
            }
        }
        self.forget(gathered.at);
        Observation { at: gathered.at, signals, canary_gap: self.gap(&gathered.canary) }
    }

    fn reads_samples(&self) -> bool {
        self.specs.iter().any(|spec| !matches!(spec.reads, Reads::Health(_) | Reads::Promql(_)))
    }

    /// Canary instances that gave nothing while others did.
    fn gap(&self, canary: &[InstanceReading]) -> Option<Missing> {
        if !self.reads_samples() {
            return None;
        }
        let mut failed = canary.iter().filter_map(|instance| {
            instance.samples.as_ref().err().map(|missing| (&instance.instance, missing))
        });
        let (name, missing) = failed.next()?;
        let count = 1 + failed.count();
        let detail =
            format!("{count} of {} canary instances: {name}: {}", canary.len(), missing.detail);
        Some(Missing::new(missing.why, detail))
    }

    fn reduce_arm(&mut self, arm: Arm, now: Time, instances: &[InstanceReading]) -> Vec<Reading> {
        let mut parts: Vec<Vec<Result<Part, Missing>>> =
            self.specs.iter().map(|_| Vec::new()).collect();
        let mut health: Vec<Vec<Reading>> = self.specs.iter().map(|_| Vec::new()).collect();
        for reading in instances {
            let key = (arm, reading.instance.clone());
            let blank = InstanceCarry {
                first_seen: now,
                last_read: None,
                process_start_secs: None,
                been_up: Vec::new(),
                counters: BTreeMap::new(),
            };
            let mut carry = self.carry.instances.remove(&key).unwrap_or(blank);
            self.instance_parts(reading, &mut carry, &mut parts);
            for probe in &reading.probes {
                if let Some(answers) = health.get_mut(probe.signal) {
                    answers.push(instance_health(probe, &mut carry, now, self.warmup));
                }
            }
            self.carry.instances.insert(key, carry);
        }
        let specs = self.specs.clone();
        let joined = specs.iter().enumerate().zip(parts).zip(health);
        joined
            .map(|(((signal, spec), parts), health)| match &spec.reads {
                Reads::Health(HealthTarget::Path(_)) => worst_health(health),
                Reads::Health(HealthTarget::Url(url)) => Err(Missing::new(
                    Why::NotObserved,
                    format!("{url} is asked once, for the canary"),
                )),
                Reads::Promql(_) => level_of(signal, instances),
                Reads::Ratio { .. }
                | Reads::Counter(_)
                | Reads::Histogram(_)
                | Reads::Gauge { .. }
                | Reads::Restarts(_) => {
                    let reduce = match &spec.reads {
                        Reads::Gauge { reduce, .. } => *reduce,
                        _ => Reduce::Max,
                    };
                    let edges = self.edges.entry((signal, arm)).or_insert_with(|| Arc::new([]));
                    join(parts, reduce, edges)
                }
            })
            .collect()
    }

    fn instance_parts(
        &self,
        reading: &InstanceReading,
        carry: &mut InstanceCarry,
        parts: &mut [Vec<Result<Part, Missing>>],
    ) {
        let name = &reading.instance;
        let named =
            |missing: &Missing| Missing::new(missing.why, format!("{name}: {}", missing.detail));
        let samples = match &reading.samples {
            Ok(samples) => samples,
            Err(missing) => {
                parts.iter_mut().for_each(|parts| parts.push(Err(named(missing))));
                return;
            }
        };
        let started = samples
            .iter()
            .filter(|sample| &*sample.name == PROCESS_START_TIME && sample.value.is_finite())
            .map(|sample| sample.value)
            .reduce(f64::max);
        let moved = |(now, before): (f64, f64)| now - before > RESTART_SECS_MIN;
        let restarted = started.zip(carry.process_start_secs).is_some_and(moved);
        let is_new = carry.last_read.is_none_or(|last| reading.at > last);
        let secs = carry.last_read.map_or(0.0, |last| reading.at.since(last).as_secs_f64());
        let born = started.filter(|start| *start <= reading.at.as_secs_f64());
        let born = born.map_or(carry.first_seen, Time::from_secs_f64);
        let warm = reading.at.since(born) >= self.warmup;
        let increments = Increments::new(samples, carry, restarted);
        for (spec, parts) in self.specs.iter().zip(parts) {
            let part = match &spec.reads {
                Reads::Restarts(of) => restarts_part(&increments, of),
                Reads::Gauge { of, per, .. } if warm => gauge_part(&increments, of, per.as_ref()),
                Reads::Health(_) | Reads::Promql(_) => continue,
                _ if !warm => Err(Missing::new(Why::WarmUp, "younger than the warm-up")),
                _ if !is_new => {
                    Err(Missing::new(Why::NoTraffic, "no new sample since the last look"))
                }
                Reads::Ratio { events, total } => ratio_part(&increments, events, total),
                Reads::Counter(of) => counter_part(&increments, of, secs),
                Reads::Histogram(of) => increments
                    .selected(of, "_bucket")
                    .and_then(|buckets| Cumulative::read(&increments, &buckets))
                    .map(Part::Buckets),
                Reads::Gauge { .. } => continue,
            };
            parts.push(part.map_err(|missing| named(&missing)));
        }
        if is_new {
            increments.remember(carry);
            carry.last_read = Some(reading.at);
        }
        if started.is_some() {
            carry.process_start_secs = started;
        }
    }

    fn forget(&mut self, now: Time) {
        self.carry.instances.retain(|_, carry| {
            now.since(carry.last_read.unwrap_or(carry.first_seen)) < FORGET_AFTER
        });
    }
}

fn ratio_part(
    increments: &Increments<'_>,
    events: &Selection,
    total: &Selection,
) -> Result<Part, Missing> {
    let all = increments.sum(&increments.selected(total, "")?)?;
    let events = increments.sum(&increments.selected(events, "")?)?;
    Ok(Part::Share { events, total: all })
}

fn counter_part(increments: &Increments<'_>, of: &Selection, secs: f64) -> Result<Part, Missing> {
    Ok(Part::Events { events: increments.sum(&increments.selected(of, "")?)?, secs })
}

fn gauge_part(
    increments: &Increments<'_>,
    of: &Selection,
    per: Option<&Selection>,
) -> Result<Part, Missing> {
    let level = |of: &Selection| {
        let samples = increments.selected(of, "")?;
        if samples.is_empty() {
            return Err(Missing::new(Why::AbsentSeries, of.names().join(" or ")));
        }
        let level: f64 = samples.iter().map(|sample| sample.value).sum();
        if level.is_finite() {
            return Ok(level);
        }
        Err(Missing::new(Why::BadValue, format!("{} is {level}", samples[0].name)))
    };
    let value = level(of)?;
    let Some(per) = per else { return Ok(Part::Level(value)) };
    let whole = level(per)?;
    if whole > 0.0 {
        return Ok(Part::Level(value / whole));
    }
    Err(Missing::new(Why::BadValue, format!("{} is {whole}", per.names().join(" or "))))
}

/// Restarts of one instance: a start time that moved on, or a counter of restarts that grew.
fn restarts_part(increments: &Increments<'_>, of: &Selection) -> Result<Part, Missing> {
    let samples = increments.selected(of, "")?;
    let mut restarts = 0;
    for sample in &samples {
        match (sample.name.ends_with("_total"), increments.moved(sample)) {
            (true, _) => match increments.of(sample) {
                Ok(increment) => restarts += increment as u32,
                Err(missing) if missing.why == Why::FirstLook => {}
                Err(missing) => return Err(missing),
            },
            (false, Some(moved)) if moved > RESTART_SECS_MIN => restarts += 1,
            (false, Some(_) | None) => {}
        }
    }
    Ok(Part::Restarts(restarts))
}

/// One instance's health. One that has never been up is given the warm-up to come up.
fn instance_health(
    probe: &Probe,
    carry: &mut InstanceCarry,
    now: Time,
    warmup: Duration,
) -> Reading {
    let answer = probe.answer.as_ref().map_err(Clone::clone)?;
    let known = carry.been_up.contains(&probe.signal);
    match answer.status {
        Health::Up | Health::Degraded if !known => carry.been_up.push(probe.signal),
        Health::Down if !known && now.since(carry.first_seen) < warmup => {
            return Err(Missing::new(Why::WarmUp, format!("not up yet: {}", answer.detail)));
        }
        Health::Up | Health::Degraded | Health::Down => {}
    }
    Ok(Value::Health { status: answer.status, latency_secs: answer.latency_secs })
}

fn dependency_reading(probe: &Probe) -> Reading {
    let answer = probe.answer.as_ref().map_err(Clone::clone)?;
    Ok(Value::Health { status: answer.status, latency_secs: answer.latency_secs })
}

/// The worst instance counts. Where none is down, one that cannot be understood leaves the arm
/// unknown: missing data is not health.
fn worst_health(answers: Vec<Reading>) -> Reading {
    let (mut worst, mut slowest, mut unknown) = (None, None::<f64>, None);
    for answer in answers {
        match answer {
            Ok(Value::Health { status, latency_secs }) => {
                worst = worst.max(Some(status));
                slowest = match (slowest, latency_secs) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    (a, b) => a.or(b),
                };
            }
            Ok(_) => {}
            Err(missing) => unknown = Some(missing),
        }
    }
    match (worst, unknown) {
        (Some(Health::Down), _) => {
            Ok(Value::Health { status: Health::Down, latency_secs: slowest })
        }
        (_, Some(missing)) => Err(missing),
        (Some(status), None) => Ok(Value::Health { status, latency_secs: slowest }),
        (None, None) => Err(Missing::new(Why::NotObserved, "no instance was probed")),
    }
}

fn level_of(signal: usize, instances: &[InstanceReading]) -> Reading {
    let mut levels = instances.iter().flat_map(|instance| &instance.levels);
    match levels.find(|level| level.signal == signal) {
        Some(level) => level.value.clone().map(Value::Level),
        None => Err(Missing::new(Why::NotObserved, "promql needs a metrics server as the source")),
    }
}

/// The parts of all instances as one value of the arm.
fn join(parts: Vec<Result<Part, Missing>>, reduce: Reduce, edges: &mut Arc<[f64]>) -> Reading {
    let (mut shares, mut counted, mut restarts) = ((0.0, 0.0), (0.0, 0.0, 0u32), None);
    let (mut buckets, mut levels): (Option<Cumulative>, Vec<f64>) = (None, Vec::new());
    let (mut saw_share, mut reasons) = (false, BTreeSet::new());
    for part in parts {
        match part {
            Ok(Part::Share { events, total }) => {
                shares = (shares.0 + events, shares.1 + total);
                saw_share = true;
            }
            Ok(Part::Events { events, secs }) => {
                counted = (counted.0 + events, counted.1 + secs, counted.2 + 1);
            }
            Ok(Part::Buckets(one)) => {
                buckets = Some(match buckets {
                    Some(sum) => Cumulative::plus(sum, one),
                    None => one,
                });
            }
            Ok(Part::Level(level)) => levels.push(level),
            Ok(Part::Restarts(one)) => restarts = Some(restarts.unwrap_or(0) + one),
            Err(missing) => {
                reasons.insert((missing.why, missing.detail));
            }
        }
    }
    let quiet = || Missing::new(Why::NoTraffic, "no requests since the last look");
    if let Some(cumulative) = buckets {
        return if cumulative.total() > 0.0 {
            cumulative.histogram(edges).map(Value::Histogram)
        } else {
            Err(quiet())
        };
    }
    if let Some(restarts) = restarts {
        return Ok(Value::Restarts(restarts));
    }
    if counted.2 > 0 {
        let (events, instance_secs, instances) = counted;
        return Ok(Value::Events { events, instance_secs, instances });
    }
    if saw_share {
        let (events, total) = shares;
        return if total > 0.0 { Ok(Value::Share { events, total }) } else { Err(quiet()) };
    }
    if !levels.is_empty() {
        return Ok(Value::Level(reduced(&levels, reduce)));
    }
    match reasons.into_iter().next() {
        Some((why, detail)) => Err(Missing { why, detail }),
        None => Err(Missing::new(Why::NotObserved, "the analysis has no such arm")),
    }
}

fn reduced(levels: &[f64], reduce: Reduce) -> f64 {
    let sum = || levels.iter().sum::<f64>();
    match reduce {
        Reduce::Max => levels.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        Reduce::Min => levels.iter().copied().fold(f64::INFINITY, f64::min),
        Reduce::Mean => sum() / levels.len() as f64,
        Reduce::Sum => sum(),
    }
}
