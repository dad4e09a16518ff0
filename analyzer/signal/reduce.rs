//! What the sources gave at one look becomes one observation.
//!
//! The reducer holds raw positions only (its [`Carry`]); everything it hands on is an increment, a
//! level or a reason. An instance younger than the warm-up sets its marks and is not judged; its
//! restarts and, once it has been up, its health are. No number that is handed on is NaN or
//! infinite, whatever was exposed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    alive::{
        answer_piece, asked_once, dependency_reading, instance_health, is_answered, too_young,
        up_piece, worst_health,
    },
    buckets::Cumulative,
    carry::{Carry, InstanceCarry},
    increments::{Increments, Life, Series},
    parts::{Gained, Piece},
    quantile::{Latencies, latencies},
    sample::{Gathered, InstanceReading, NATIVE},
    spec::{HealthTarget, PROCESS_START_TIME, Reads, Reduce, Selection, SignalSpec},
};
use crate::engine::{
    native::NativeHistogram,
    observation::{
        Arm, Headcount, Instances, Missing, Observation, Pair, Part, Parts, Reading, Time, Value,
        Why,
    },
};

/// A process start that moved by more than this is another process; less is clock arithmetic.
const RESTART_SECS_MIN: f64 = 1.0;

/// How far a target's clock may be behind ours. A process that began earlier than this before the
/// last reading did not begin since, it is another one: a load balancer stands at the address.
const START_SKEW_SECS_MAX: f64 = 30.0;

/// A sample older than the last one by no more than this is an old sample (a metrics server's slow
/// replica) and is waited out; by more, the clock was set back and the marks are set anew.
const CLOCK_BACK_MAX: Duration = Duration::from_secs(300);

/// Instances that have not been seen for this long are forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Instances remembered by one analysis; beyond this the absent ones are forgotten, oldest first.
pub const INSTANCES_REMEMBERED_MAX: usize = 2048;

/// Turns gathered samples into observations, look by look.
#[derive(Debug)]
pub struct Reducer {
    specs: Arc<[SignalSpec]>,
    warmup: Duration,
    carry: Carry,
    /// Bucket edges last seen per signal and arm, lent to the next histogram of the same layout.
    edges: BTreeMap<(usize, Arm), Arc<[f64]>>,
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
            .map(|((canary, canary_parts), (baseline, baseline_parts))| {
                let parts = Parts { canary: canary_parts, baseline: baseline_parts };
                Pair { canary, baseline, parts }
            })
            .collect();
        for probe in &gathered.dependencies {
            if let Some(pair) = signals.get_mut(probe.signal) {
                pair.canary = dependency_reading(probe);
            }
        }
        let canary_gap = self.gap(&gathered.canary);
        let instances = Instances {
            canary: self.headcount(Arm::Canary, &gathered.canary),
            baseline: self.headcount(Arm::Baseline, &gathered.baseline),
        };
        self.forget(gathered);
        Observation { at: gathered.at, signals, canary_gap, instances: Some(instances) }
    }

    /// How many instances there are, and how many of them answered what the signals ask.
    fn headcount(&mut self, arm: Arm, readings: &[InstanceReading]) -> Headcount {
        let is_scraped = self.reads_samples();
        let answers = |reading: &&InstanceReading| match is_scraped {
            true => reading.samples.is_ok(),
            false => reading.probes.iter().any(is_answered),
        };
        let all = readings.iter().filter(|reading| reading.is_one() && !self.is_pseudo(reading));
        let all: Vec<&InstanceReading> = all.collect();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let answered = all.iter().copied().filter(answers).count();
        Headcount {
            answered: count(answered),
            found: count(all.len()),
            seen: *self.carry.seen.of(arm),
        }
    }

    fn reads_samples(&self) -> bool {
        self.specs.iter().any(|spec| match spec.reads {
            Reads::Health(_) | Reads::Answer { .. } | Reads::Promql(_) => false,
            Reads::Ratio { .. }
            | Reads::Counter(_)
            | Reads::Histogram { .. }
            | Reads::Gauge { .. }
            | Reads::Restarts(_)
            | Reads::Up => true,
        })
    }

    /// The pseudo-instance that a source lends to what is asked once for the whole arm (`promql:`
    /// signals, numbers of a dependency's health answer): it exposes nothing and is no instance of
    /// anything.
    fn is_pseudo(&self, reading: &InstanceReading) -> bool {
        // An instance's own: a metrics server's word on it, numbers of its health answer.
        let is_its_own = |signal: usize| match self.specs.get(signal).map(|spec| &spec.reads) {
            Some(Reads::Up | Reads::Answer { of: HealthTarget::Path(_), .. }) => true,
            Some(_) | None => false,
        };
        !reading.levels.is_empty()
            && !reading.levels.iter().any(|level| is_its_own(level.signal))
            && reading.samples.as_ref().is_ok_and(Vec::is_empty)
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
        let all = canary.iter().filter(|instance| !self.is_pseudo(instance)).count();
        let detail = format!("{count} of {all} canary instances: {name}: {}", missing.detail);
        Some(Missing::new(missing.why, detail))
    }

    /// Each signal's reading of one arm, with its parts.
    fn reduce_arm(
        &mut self,
        arm: Arm,
        now: Time,
        instances: &[InstanceReading],
    ) -> Vec<(Reading, Vec<Part>)> {
        let mut gained: Vec<Gained<'_>> = self.specs.iter().map(|_| Gained::default()).collect();
        let mut health: Vec<Vec<Reading>> = self.specs.iter().map(|_| Vec::new()).collect();
        for reading in instances {
            if self.is_pseudo(reading) {
                continue;
            }
            let key = (arm, reading.instance.clone());
            let blank = InstanceCarry {
                first_seen: now,
                last_read: None,
                process_start_secs: None,
                life_began: None,
                been_up: Vec::new(),
                counters: BTreeMap::new(),
                natives: BTreeMap::new(),
            };
            let known = self.carry.instances.remove(&key);
            if known.is_none() && reading.is_one() {
                let seen = self.carry.seen.of(arm);
                *seen = seen.saturating_add(1);
            }
            let mut carry = known.unwrap_or(blank);
            self.instance_pieces(reading, now, &mut carry, &mut gained);
            for probe in &reading.probes {
                if let Some(answers) = health.get_mut(probe.signal) {
                    answers.push(instance_health(probe, &mut carry, now, self.warmup));
                }
            }
            self.carry.instances.insert(key, carry);
        }
        let specs = self.specs.clone();
        let joined = specs.iter().enumerate().zip(gained).zip(health);
        joined
            .map(|(((signal, spec), gained), health)| match &spec.reads {
                Reads::Health(HealthTarget::Path(_)) => (worst_health(health), Vec::new()),
                Reads::Health(HealthTarget::Url(url)) => (Err(asked_once(url)), Vec::new()),
                Reads::Answer { of: HealthTarget::Url(url), .. } => {
                    let level = level_of(signal, instances);
                    (level.unwrap_or_else(|| Err(asked_once(url))), Vec::new())
                }
                Reads::Promql(_) => {
                    let needed = "promql needs a metrics server as the source";
                    let missing = || Err(Missing::new(Why::NotObserved, needed));
                    (level_of(signal, instances).unwrap_or_else(missing), Vec::new())
                }
                Reads::Ratio { .. }
                | Reads::Counter(_)
                | Reads::Histogram { .. }
                | Reads::Gauge { .. }
                | Reads::Answer { of: HealthTarget::Path(_), .. }
                | Reads::Up
                | Reads::Restarts(_) => {
                    let reduce = match &spec.reads {
                        Reads::Gauge { reduce, .. } | Reads::Answer { reduce, .. } => *reduce,
                        Reads::Up => Reduce::Mean,
                        _ => Reduce::Max,
                    };
                    let edges = self.edges.entry((signal, arm)).or_insert_with(|| Arc::new([]));
                    let reading = join(&gained.pieces, reduce, edges);
                    let parts = gained.parts(arm, &spec.reads, edges);
                    (reading, parts)
                }
            })
            .collect()
    }

    fn instance_pieces<'a>(
        &self,
        reading: &'a InstanceReading,
        now: Time,
        carry: &mut InstanceCarry,
        gained: &mut [Gained<'a>],
    ) {
        let name = &reading.instance;
        let named = |missing: &Missing| match missing.detail.as_str() {
            "" => Missing::new(missing.why, &**name),
            // A source names the target it speaks of; once is enough.
            detail if detail.starts_with(&**name) => missing.clone(),
            detail => Missing::new(missing.why, format!("{name}: {detail}")),
        };
        let samples = match &reading.samples {
            Ok(samples) => samples,
            Err(missing) => {
                let born = carry.process_start_secs.map(Time::from_secs_f64);
                let warm = now.since(born.unwrap_or(carry.first_seen)) >= self.warmup;
                for ((signal, spec), gained) in self.specs.iter().enumerate().zip(gained) {
                    let piece = match &spec.reads {
                        Reads::Up => up_piece(signal, reading, carry, (now, self.warmup)),
                        Reads::Answer { .. } => answer_piece(signal, reading, warm),
                        Reads::Ratio { .. }
                        | Reads::Counter(_)
                        | Reads::Histogram { .. }
                        | Reads::Gauge { .. }
                        | Reads::Restarts(_) => Err(missing.clone()),
                        Reads::Health(_) | Reads::Promql(_) => continue,
                    };
                    gained.push(name, carry.life_began, piece.map_err(|missing| named(&missing)));
                }
                return;
            }
        };
        let started = samples
            .iter()
            .filter(|sample| &*sample.name == PROCESS_START_TIME && sample.value.is_finite())
            .map(|sample| sample.value)
            .reduce(f64::max);
        if carry.last_read.is_some_and(|last| last.since(reading.at) > CLOCK_BACK_MAX) {
            (carry.last_read, carry.first_seen) = (None, carry.first_seen.min(reading.at));
        }
        let is_new = carry.last_read.is_none_or(|last| reading.at > last);
        let secs = carry.last_read.map_or(0.0, |last| reading.at.since(last).as_secs_f64());
        let born = started.filter(|start| *start <= reading.at.as_secs_f64());
        let born = born.map_or(carry.first_seen, Time::from_secs_f64);
        let is_warm = |at: Time| at.since(born) >= self.warmup;
        let warm = is_warm(reading.at);
        // What is counted began at the last reading: the end of its youth is not judged either.
        let counts = warm && carry.last_read.is_none_or(is_warm);
        let life = life_of(started, carry);
        let began = match life {
            Life::Same => carry.life_began.or(started.map(Time::from_secs_f64)),
            Life::New | Life::Other => started.map(Time::from_secs_f64),
        };
        let increments = Increments::new(samples, carry, life);
        for ((signal, spec), gained) in self.specs.iter().enumerate().zip(gained) {
            let judged = if warm { Ok(()) } else { Err(too_young()) };
            let of_age = if counts { Ok(()) } else { Err(too_young()) };
            let not_new = || Missing::new(Why::NoTraffic, "no new sample since the last look");
            let counted = of_age.and(if is_new { Ok(()) } else { Err(not_new()) });
            let piece = match &spec.reads {
                Reads::Restarts(_) if !is_new => Ok(Piece::Restarts(0)),
                Reads::Restarts(of) => restarts_piece(&increments, of),
                Reads::Gauge { of, per, .. } => {
                    judged.and_then(|()| gauge_piece(&increments, of, per.as_ref()))
                }
                Reads::Answer { .. } => answer_piece(signal, reading, warm),
                Reads::Up => up_piece(signal, reading, carry, (now, self.warmup)),
                Reads::Health(_) | Reads::Promql(_) => continue,
                Reads::Ratio { events, total } => {
                    counted.and_then(|()| ratio_piece(&increments, events, total, gained))
                }
                Reads::Counter(of) => counted.and_then(|()| counter_piece(&increments, of, secs)),
                Reads::Histogram { of, q } => {
                    counted.and_then(|()| quantile_piece(&increments, of, *q, gained))
                }
            };
            gained.push(name, began, piece.map_err(|missing| named(&missing)));
        }
        if is_new {
            carry.life_began = began;
            increments.remember(carry, reading.at);
            carry.process_start_secs = started.or(carry.process_start_secs);
        }
    }

    /// What is present is never forgotten, however long it has been failing: its health would be
    /// given the warm-up once more.
    fn forget(&mut self, gathered: &Gathered) {
        let arms = [(Arm::Canary, &gathered.canary), (Arm::Baseline, &gathered.baseline)];
        let present: BTreeSet<(Arm, &str)> = arms
            .into_iter()
            .flat_map(|(arm, all)| all.iter().map(move |reading| (arm, &*reading.instance)))
            .collect();
        let last_seen = |carry: &InstanceCarry| carry.last_read.unwrap_or(carry.first_seen);
        let is_present = |key: &(Arm, Arc<str>)| present.contains(&(key.0, &*key.1));
        let remembered = &mut self.carry.instances;
        remembered.retain(|key, carry| {
            is_present(key) || gathered.at.since(last_seen(carry)) < FORGET_AFTER
        });
        let surplus = remembered.len().saturating_sub(INSTANCES_REMEMBERED_MAX);
        if surplus > 0 {
            let mut absent: Vec<(Time, (Arm, Arc<str>))> = remembered
                .iter()
                .filter(|(key, _)| !is_present(key))
                .map(|(key, carry)| (last_seen(carry), key.clone()))
                .collect();
            absent.sort();
            for (_, key) in absent.into_iter().take(surplus) {
                remembered.remove(&key);
            }
        }
    }
}

fn life_of(started: Option<f64>, carry: &InstanceCarry) -> Life {
    let (Some(now), Some(before)) = (started, carry.process_start_secs) else { return Life::Same };
    if (now - before).abs() <= RESTART_SECS_MIN {
        return Life::Same;
    }
    let last_read = carry.last_read.map_or(f64::NEG_INFINITY, Time::as_secs_f64);
    if now > before && now >= last_read - START_SKEW_SECS_MAX { Life::New } else { Life::Other }
}

fn ratio_piece<'a>(
    increments: &Increments<'a>,
    events: &Selection,
    total: &Selection,
    gained: &mut Gained<'a>,
) -> Result<Piece, Missing> {
    let all = increments.selected(total, "")?;
    let total = increments.sum(&all)?;
    let bad = increments.selected(events, "")?;
    let events = increments.sum(&bad)?;
    gained.push_share_routes(increments, &bad, &all);
    Ok(Piece::Share { events, total })
}

fn counter_piece(increments: &Increments<'_>, of: &Selection, secs: f64) -> Result<Piece, Missing> {
    Ok(Piece::Events { events: increments.sum(&increments.selected(of, "")?)?, secs })
}

fn quantile_piece<'a>(
    increments: &Increments<'a>,
    of: &Selection,
    q: f64,
    gained: &mut Gained<'a>,
) -> Result<Piece, Missing> {
    Ok(match latencies(increments, of, q)? {
        Latencies::Buckets(sum) => {
            gained.push_bucket_routes(increments, &increments.selected(of, "_bucket")?);
            Piece::Buckets(sum)
        }
        Latencies::Custom(sum) => Piece::Buckets(sum),
        Latencies::Native(sum) => {
            gained.push_native_routes(increments, &increments.selected(of, NATIVE)?);
            Piece::Native(sum)
        }
        Latencies::Level(level) => Piece::Level(level),
    })
}

fn gauge_piece(
    increments: &Increments<'_>,
    of: &Selection,
    per: Option<&Selection>,
) -> Result<Piece, Missing> {
    let level = |of: &Selection| {
        let series = increments.selected(of, "")?;
        let Some(first) = series.first() else {
            return Err(Missing::new(Why::AbsentSeries, format!("no {}", of.names().join(" or "))));
        };
        let level: f64 = series.iter().map(|series| series.sample.value).sum();
        if level.is_finite() {
            return Ok(level);
        }
        Err(Missing::new(Why::BadValue, format!("{} is {level}", first.sample.name)))
    };
    let value = level(of)?;
    let Some(per) = per else { return Ok(Piece::Level(value)) };
    let whole = level(per)?;
    if whole > 0.0 {
        return Ok(Piece::Level(value / whole));
    }
    Err(Missing::new(Why::BadValue, format!("{} is {whole}", per.names().join(" or "))))
}

/// Restarts of one instance: a start time that moved on, or a counter of restarts that grew.
fn restarts_piece(increments: &Increments<'_>, of: &Selection) -> Result<Piece, Missing> {
    let mut restarts = 0u32;
    for series in increments.selected(of, "")? {
        restarts = restarts.saturating_add(restarts_of(increments, &series)?);
    }
    Ok(Piece::Restarts(restarts))
}

fn restarts_of(increments: &Increments<'_>, series: &Series<'_>) -> Result<u32, Missing> {
    if series.sample.name.ends_with("_total") {
        return match increments.of_outliving(series) {
            Ok(increment) => Ok(increment as u32),
            Err(missing) if missing.why == Why::FirstLook => Ok(0),
            Err(missing) => Err(missing),
        };
    }
    let start = series.sample.value;
    if !start.is_finite() {
        return Err(Missing::new(Why::BadValue, format!("{} is {start}", series.sample.name)));
    }
    Ok(u32::from(series.moved().is_some_and(|moved| moved > RESTART_SECS_MIN)))
}

/// What was asked once for the whole arm; none when it was not asked.
fn level_of(signal: usize, instances: &[InstanceReading]) -> Option<Reading> {
    let mut levels = instances.iter().flat_map(|instance| &instance.levels);
    let level = levels.find(|level| level.signal == signal)?;
    Some(level.value.clone().and_then(|level| finite(Value::Level(level))))
}

/// The pieces of all instances as one value of the arm.
fn join(pieces: &[Result<Piece, Missing>], reduce: Reduce, edges: &mut Arc<[f64]>) -> Reading {
    let (mut shares, mut counted, mut restarts) = ((0.0, 0.0), (0.0, 0.0, 0u32), None);
    let (mut buckets, mut levels): (Option<Cumulative>, Vec<f64>) = (None, Vec::new());
    let mut natives: Option<NativeHistogram> = None;
    let (mut saw_share, mut reasons) = (false, BTreeSet::new());
    for piece in pieces {
        match piece {
            Ok(Piece::Share { events, total }) => {
                shares = (shares.0 + events, shares.1 + total);
                saw_share = true;
            }
            Ok(Piece::Events { events, secs }) => {
                counted = (counted.0 + events, counted.1 + secs, counted.2 + 1);
            }
            Ok(Piece::Buckets(one)) => {
                buckets = Some(match buckets {
                    Some(sum) => Cumulative::plus(sum, one.clone()),
                    None => one.clone(),
                });
            }
            Ok(Piece::Native(one)) => match &mut natives {
                Some(sum) => sum.add(one),
                None => natives = Some(one.clone()),
            },
            Ok(Piece::Level(level)) => levels.push(*level),
            Ok(Piece::Restarts(one)) => {
                restarts = Some(restarts.unwrap_or(0u32).saturating_add(*one))
            }
            Err(missing) => {
                reasons.insert((missing.why, missing.detail.clone()));
            }
        }
    }
    let quiet = || Missing::new(Why::NoTraffic, "no requests since the last look");
    // Some instances are of a build that has buckets, some of one that has native histograms.
    let (buckets, natives) = match (buckets, natives) {
        (Some(sum), Some(native)) => (Some(sum.plus(Cumulative::of_native(&native))), None),
        (buckets, natives) => (buckets, natives),
    };
    if let Some(native) = natives {
        return if native.total() > 0.0 { finite(Value::Native(native)) } else { Err(quiet()) };
    }
    if let Some(cumulative) = buckets {
        return if cumulative.total() > 0.0 {
            cumulative.histogram(edges).map(Value::Histogram).and_then(finite)
        } else {
            Err(quiet())
        };
    }
    if let Some(restarts) = restarts {
        return Ok(Value::Restarts(restarts));
    }
    if counted.2 > 0 {
        let (events, instance_secs, instances) = counted;
        return finite(Value::Events { events, instance_secs, instances });
    }
    if saw_share {
        let (events, total) = shares;
        return if total > 0.0 { finite(Value::Share { events, total }) } else { Err(quiet()) };
    }
    if !levels.is_empty() {
        return finite(Value::Level(reduced(&levels, reduce)));
    }
    match reasons.into_iter().next() {
        Some((why, detail)) => Err(Missing { why, detail }),
        None => Err(Missing::new(Why::NotObserved, "the analysis has no such arm")),
    }
}

/// Finite numbers may have a sum that is not.
fn finite(value: Value) -> Reading {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Missing::new(Why::BadValue, "a sum beyond the largest number"))
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
