//! One simulated release, look by look, and the old version's past before it.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};

use super::{
    instance::{Instance, Moment, Read, Seen},
    latency::EDGES,
    noise::{NoiseModel, Wander},
    plan::{SignalPlan, plans},
    scenario::{Fault, Hits, Scenario, Traffic, TrafficStep, Truth},
};
use crate::engine::{
    calibration::Past,
    observation::{
        Arm, Histogram, Missing, Observation, Pair, Part, PartKind, Parts, Reading, Time, Value,
        Why,
    },
    rule::{Baseline, RuleSet},
};

/// When every simulated analysis begins.
pub const START: Time = Time(1_800_000_000_000);

/// A release without an end: the first look is one interval after [`START`].
#[derive(Debug)]
pub struct Release {
    random: StdRng,
    signals: Vec<SignalPlan>,
    traffic: Traffic,
    interval_secs: f64,
    warmup_secs: f64,
    looks: u64,
    shared: Noises,
    /// A baseline that is the service's own past does not see today's bursts.
    baseline_shared: Option<Noises>,
    canary: Source,
    baseline: Source,
}

impl Release {
    /// A release of this scenario, looked at as often as the rule set says.
    pub fn new(rules: &RuleSet, scenario: &Scenario, seed: u64) -> Self {
        Self::every(rules, scenario, rules.observe.interval, seed)
    }

    /// The same, looked at every `interval`.
    pub fn every(rules: &RuleSet, scenario: &Scenario, interval: Duration, seed: u64) -> Self {
        let noise = &scenario.noise;
        let shared =
            || Noises::new(noise.shared_sigma, noise.shared_latency_sigma, noise.shared_tau_secs);
        let traffic = &scenario.traffic;
        Self {
            random: StdRng::seed_from_u64(seed),
            signals: plans(rules),
            interval_secs: interval.as_secs_f64(),
            warmup_secs: rules.observe.warmup.as_secs_f64(),
            looks: 0,
            shared: shared(),
            baseline_shared: match rules.baseline {
                Baseline::Concurrent => None,
                Baseline::Before | Baseline::Offset(_) => Some(shared()),
            },
            canary: Source::new(
                Arm::Canary,
                scenario.canary,
                traffic.canary_instances,
                -scenario.canary_age_secs,
                noise,
                &scenario.faults,
            ),
            baseline: Source::new(
                Arm::Baseline,
                scenario.baseline,
                traffic.baseline_instances,
                f64::NEG_INFINITY,
                noise,
                &scenario.faults,
            ),
            traffic: scenario.traffic.clone(),
        }
    }

    /// Sends so many requests a second to each arm from the next look on.
    pub fn send(&mut self, canary_rps: f64, baseline_rps: f64) {
        let at_secs = self.looks as f64 * self.interval_secs;
        self.traffic.steps = vec![TrafficStep { at_secs, canary_rps, baseline_rps }];
    }
}

impl Iterator for Release {
    type Item = Observation;

    fn next(&mut self) -> Option<Observation> {
        self.looks += 1;
        let at_secs = self.looks as f64 * self.interval_secs;
        let secs = self.interval_secs;
        let (canary_rps, baseline_rps) = self.traffic.at(at_secs - secs);
        let random = &mut self.random;
        let shared = self.shared.over(random, secs);
        let theirs = match &mut self.baseline_shared {
            Some(noises) => noises.over(random, secs),
            None => shared,
        };
        let moment = |rps: f64, (event_noise, latency_noise): (f64, f64)| Moment {
            at_secs,
            secs,
            rps,
            event_noise,
            latency_noise,
            warmup_secs: self.warmup_secs,
            arrivals: self.traffic.arrivals,
        };
        let canary = self.canary.look(random, moment(canary_rps, shared), &self.signals);
        let baseline = self.baseline.look(random, moment(baseline_rps, theirs), &self.signals);
        let canary_gap = self.canary.gap();
        let pairs = canary.into_iter().zip(baseline);
        let signals = pairs
            .map(|((canary, of_canary), (baseline, of_baseline))| Pair {
                canary,
                baseline,
                parts: Parts { canary: of_canary, baseline: of_baseline },
            })
            .collect();
        let at = START.after(Duration::from_secs_f64(at_secs));
        Some(Observation { at, signals, canary_gap, instances: None })
    }
}

/// What the old version showed before the release, with the traffic and noise of the scenario and
/// none of its faults: looks every `interval` for `length`, oldest first.
pub fn past(
    rules: &RuleSet,
    scenario: &Scenario,
    length: Duration,
    interval: Duration,
    seed: u64,
) -> Vec<Past> {
    let healthy = Scenario { faults: Vec::new(), ..scenario.clone() };
    let looks = (length.as_secs_f64() / interval.as_secs_f64()).floor() as u64;
    let mut release = Release::every(rules, &healthy, interval, seed);
    // The canary is not there yet.
    release.canary.instances.clear();
    release.traffic.steps.clear();
    let begin = START.0 - i64::try_from(length.as_millis()).unwrap_or(START.0);
    let every = release.by_ref().take(usize::try_from(looks).unwrap_or(usize::MAX));
    every
        .map(|observation| Past {
            at: Time(begin + (observation.at.0 - START.0)),
            secs: interval.as_secs_f64(),
            readings: observation.signals.into_iter().map(|pair| pair.baseline).collect(),
        })
        .collect()
}

/// Noise of event rates and of latency.
#[derive(Clone, Debug)]
struct Noises {
    events: Wander,
    latency: Wander,
}

impl Noises {
    fn new(sigma: f64, latency_sigma: f64, tau_secs: f64) -> Self {
        Self { events: Wander::new(sigma, tau_secs), latency: Wander::new(latency_sigma, tau_secs) }
    }

    fn over(&mut self, random: &mut StdRng, secs: f64) -> (f64, f64) {
        (self.events.over(random, secs), self.latency.over(random, secs))
    }
}

/// One arm: its processes and the noise that they share.
#[derive(Clone, Debug)]
struct Source {
    arm: Arm,
    instances: Vec<Instance>,
    noises: Noises,
    /// Faults that hit every instance, and those that hit the first.
    faults: [Vec<Fault>; 2],
    seen: Vec<Seen>,
    edges: Arc<[f64]>,
}

impl Source {
    fn new(
        arm: Arm,
        truth: Truth,
        instances: u32,
        born_secs: f64,
        noise: &NoiseModel,
        faults: &[Fault],
    ) -> Self {
        let hitting = |also_one: bool| {
            let hits = |fault: &&Fault| match (fault.hits, arm) {
                (Hits::BothArms, _) | (Hits::Canary, Arm::Canary) => true,
                (Hits::OneCanaryInstance, Arm::Canary) => also_one,
                (Hits::Canary | Hits::OneCanaryInstance, Arm::Baseline) => false,
            };
            faults.iter().filter(hits).copied().collect()
        };
        Self {
            arm,
            instances: (0..instances)
                .map(|number| Instance::new(format!("{arm}-{number}"), truth, born_secs))
                .collect(),
            noises: Noises::new(noise.sigma, noise.latency_sigma, noise.tau_secs),
            faults: [hitting(false), hitting(true)],
            seen: Vec::new(),
            edges: EDGES.into(),
        }
    }

    /// One look: per signal the reading and the parts.
    fn look(
        &mut self,
        random: &mut StdRng,
        arm: Moment,
        signals: &[SignalPlan],
    ) -> Vec<(Reading, Vec<Part>)> {
        let (events, latency) = self.noises.over(random, arm.secs);
        let moment = Moment {
            rps: arm.rps / self.instances.len().max(1) as f64,
            event_noise: arm.event_noise * events,
            latency_noise: arm.latency_noise * latency,
            ..arm
        };
        self.seen.clear();
        for (number, instance) in self.instances.iter_mut().enumerate() {
            let faults = &self.faults[usize::from(number == 0)];
            self.seen.push(instance.look(random, &moment, signals, faults));
        }
        signals
            .iter()
            .enumerate()
            .map(|(signal, plan)| (self.reading(signal, *plan), self.parts(signal, *plan)))
            .collect()
    }

    fn reading(&self, signal: usize, plan: SignalPlan) -> Reading {
        let values = || self.seen.iter().filter_map(|seen| self.value(seen, signal, plan).ok());
        if plan == SignalPlan::Up && !self.seen.is_empty() {
            let up = self.seen.iter().filter(|seen| seen.read.is_ok()).count();
            return Ok(Value::Level(up as f64 / self.seen.len() as f64));
        }
        match values().reduce(|sum, value| sum.beside(value, f64::max)) {
            Some(Value::Share { total, .. }) if total <= 0.0 => Err(quiet()),
            Some(Value::Histogram(histogram)) if histogram.total() <= 0.0 => Err(quiet()),
            Some(value) => Ok(value),
            None => Err(match self.seen.iter().zip(&self.instances).next() {
                Some((Seen { read: Err(missing), .. }, instance)) => {
                    Missing::new(missing.why, format!("{}: {}", instance.name, missing.detail))
                }
                Some(_) | None => Missing::new(Why::NotObserved, "the analysis has no such arm"),
            }),
        }
    }

    /// Instances are told apart where there are several, and for gauges always: a slope is judged
    /// instance by instance.
    fn parts(&self, signal: usize, plan: SignalPlan) -> Vec<Part> {
        let has_parts = match plan {
            SignalPlan::Level { .. } => true,
            SignalPlan::Health | SignalPlan::Restarts => false,
            SignalPlan::Failing
            | SignalPlan::Succeeding
            | SignalPlan::FailingOverTime
            | SignalPlan::Throughput
            | SignalPlan::Excess
            | SignalPlan::Latency
            | SignalPlan::Up => self.instances.len() > 1,
        };
        if !has_parts {
            return Vec::new();
        }
        let both = self.instances.iter().zip(&self.seen);
        both.filter_map(|(instance, seen)| {
            let value = self.value(seen, signal, plan).ok()?;
            let started = instance.born_secs.is_finite();
            let started = started.then(|| Time(START.0 + (instance.born_secs * 1000.0) as i64));
            Some(Part { kind: PartKind::Instance, name: instance.name.clone(), started, value })
        })
        .collect()
    }

    /// One instance's value of one signal.
    fn value(&self, seen: &Seen, signal: usize, plan: SignalPlan) -> Result<Value, Missing> {
        let failed = || match &seen.read {
            Err(missing) => missing.clone(),
            Ok(_) => Missing::new(Why::NotObserved, ""),
        };
        match plan {
            SignalPlan::Health => {
                let (status, latency_secs) = seen.health;
                return Ok(Value::Health { status, latency_secs });
            }
            SignalPlan::Up => {
                let up = seen.read.is_ok();
                return Ok(Value::Level(f64::from(u8::from(up))));
            }
            SignalPlan::Restarts => return seen.restarts.map(Value::Restarts).ok_or_else(failed),
            SignalPlan::Failing
            | SignalPlan::Succeeding
            | SignalPlan::FailingOverTime
            | SignalPlan::Throughput
            | SignalPlan::Excess
            | SignalPlan::Latency
            | SignalPlan::Level { .. } => {}
        }
        let Read { secs, requests, values, buckets } = seen.read.as_ref().map_err(Clone::clone)?;
        Ok(match plan {
            SignalPlan::Failing | SignalPlan::Succeeding => {
                Value::Share { events: values[signal], total: *requests }
            }
            SignalPlan::FailingOverTime | SignalPlan::Throughput | SignalPlan::Excess => {
                Value::Events { events: values[signal], instance_secs: *secs, instances: 1 }
            }
            SignalPlan::Latency => {
                Value::Histogram(Histogram { edges: self.edges.clone(), counts: buckets.clone() })
            }
            SignalPlan::Level { .. }
            | SignalPlan::Up
            | SignalPlan::Health
            | SignalPlan::Restarts => Value::Level(values[signal]),
        })
    }

    /// Instances whose scrape failed at this look, in words.
    fn gap(&self) -> Option<Missing> {
        let mut failed = self.instances.iter().zip(&self.seen).filter_map(|(instance, seen)| {
            let missing = seen.read.as_ref().err()?;
            (missing.why == Why::ScrapeFailed).then_some((instance, missing))
        });
        let (first, missing) = failed.next()?;
        let count = 1 + failed.count();
        let (all, name) = (self.instances.len(), &first.name);
        let detail = format!("{count} of {all} {} instances: {name}: {}", self.arm, missing.detail);
        Some(Missing::new(missing.why, detail))
    }
}

fn quiet() -> Missing {
    Missing::new(Why::NoTraffic, "no requests since the last look")
}
