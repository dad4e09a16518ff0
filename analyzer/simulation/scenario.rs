//! What is true of a simulated release: traffic, both versions, noise, and what goes wrong when.
//!
//! Only data. Times are seconds since the analysis began.

use super::{latency::LatencyLaw, noise::NoiseModel};

/// A release and the truth about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Who gets how many requests.
    pub traffic: Traffic,
    /// The new version as it is without faults.
    pub canary: Truth,
    /// The old version.
    pub baseline: Truth,
    /// How rates wander.
    pub noise: NoiseModel,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// How long the canary's processes have run when the analysis begins: one that is younger than
    /// the rule set's warm-up is not judged yet. Infinite for "long enough".
    pub canary_age_secs: f64,
}

impl Scenario {
    /// Two equal versions without noise, both long started.
    pub fn healthy(traffic: Traffic) -> Self {
        Self {
            traffic,
            canary: Truth::default(),
            baseline: Truth::default(),
            noise: NoiseModel::NONE,
            faults: Vec::new(),
            canary_age_secs: f64::INFINITY,
        }
    }

    /// The same with this noise.
    pub fn with_noise(self, noise: NoiseModel) -> Self {
        Self { noise, ..self }
    }

    /// The same with both versions so.
    pub fn with_truth(self, truth: Truth) -> Self {
        Self { canary: truth, baseline: truth, ..self }
    }

    /// The same with one more fault, of the whole canary, from `onset_secs` on.
    pub fn with_fault(self, kind: FaultKind, onset_secs: f64) -> Self {
        self.with(Fault { kind, hits: Hits::Canary, onset_secs, until_secs: f64::INFINITY })
    }

    /// The same with one more fault.
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }
}

/// Who gets how many requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Requests a second of the whole canary.
    pub canary_rps: f64,
    /// Requests a second of the whole baseline.
    pub baseline_rps: f64,
    /// Processes of the canary.
    pub canary_instances: u32,
    /// Processes of the baseline; none is a release that nothing runs beside.
    pub baseline_instances: u32,
    /// Later changes of the traffic, in order of time.
    pub steps: Vec<TrafficStep>,
    /// How requests come.
    pub arrivals: Arrivals,
}

impl Traffic {
    /// One process an arm, Poisson arrivals, no changes.
    pub fn new(canary_rps: f64, baseline_rps: f64) -> Self {
        Self {
            canary_rps,
            baseline_rps,
            canary_instances: 1,
            baseline_instances: 1,
            steps: Vec::new(),
            arrivals: Arrivals::Poisson,
        }
    }

    /// The same with so many processes an arm.
    pub fn with_instances(self, canary: u32, baseline: u32) -> Self {
        Self { canary_instances: canary, baseline_instances: baseline, ..self }
    }

    /// Requests a second of canary and baseline at a time.
    pub fn at(&self, secs: f64) -> (f64, f64) {
        let last = self.steps.iter().rev().find(|step| step.at_secs <= secs);
        last.map_or((self.canary_rps, self.baseline_rps), |step| {
            (step.canary_rps, step.baseline_rps)
        })
    }
}

/// A change of the traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrafficStep {
    /// From when on.
    pub at_secs: f64,
    /// Requests a second of the whole canary.
    pub canary_rps: f64,
    /// Requests a second of the whole baseline.
    pub baseline_rps: f64,
}

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Independently: their number at a look is Poisson.
    Poisson,
    /// As regularly as a load generator sends them.
    Fixed,
}

/// What is true of one version.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// Share of requests that fail, in 0..=1.
    pub error_share: f64,
    /// How long requests take.
    pub latency: LatencyLaw,
    /// What its gauges show.
    pub level: LevelLaw,
}

impl Default for Truth {
    fn default() -> Self {
        Self { error_share: 0.005, latency: LatencyLaw::default(), level: LevelLaw::default() }
    }
}

/// What a gauge shows, each instance for itself: a level with a saw-tooth, noise and a slope.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelLaw {
    /// The level, in the signal's unit; none is what is usual for the unit.
    pub base: Option<f64>,
    /// Deviation of the level from look to look, relative to it.
    pub jitter: f64,
    /// Height of the saw-tooth that garbage collection makes, relative to the level.
    pub saw: f64,
    /// Time from one collection to the next, in seconds.
    pub saw_period_secs: f64,
    /// Growth of a healthy process, in the signal's unit a second.
    pub slope_per_sec: f64,
}

impl Default for LevelLaw {
    fn default() -> Self {
        Self { base: None, jitter: 0.002, saw: 0.02, saw_period_secs: 30.0, slope_per_sec: 0.0 }
    }
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Where.
    pub hits: Hits,
    /// From when on.
    pub onset_secs: f64,
    /// Until when; infinite for good.
    pub until_secs: f64,
}

impl Fault {
    /// How much of the time from `from_secs` to `to_secs` it lasts, in 0..=1.
    pub fn part_of(&self, from_secs: f64, to_secs: f64) -> f64 {
        let lasts = to_secs.min(self.until_secs) - from_secs.max(self.onset_secs);
        (lasts / (to_secs - from_secs)).clamp(0.0, 1.0)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FaultKind {
    /// So many times as many requests fail.
    Errors {
        /// Multiple of the healthy share.
        factor: f64,
    },
    /// Every request takes so many times as long.
    Latency {
        /// Multiple of the healthy latency.
        factor: f64,
    },
    /// Every gauge shows so many times as much.
    Level {
        /// Multiple of the healthy level.
        factor: f64,
    },
    /// Every gauge of bytes grows.
    Leak {
        /// Bytes a second, of each instance.
        bytes_per_sec: f64,
    },
    /// The process dies at once, is away, comes back, and dies again.
    Crash {
        /// From one death to the next, in seconds.
        every_secs: f64,
        /// How long it is away, in seconds.
        down_secs: f64,
    },
    /// Scrapes fail, each with this probability; the next one makes their counts good.
    MissingScrapes {
        /// Of each look and instance.
        probability: f64,
    },
    /// Counters begin again, each look with this probability: what the look counted is lost.
    CounterResets {
        /// Of each look and instance.
        probability: f64,
    },
}

/// Where a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hits {
    /// In every instance of the canary: a bad version.
    Canary,
    /// In one instance of the canary: a bad machine.
    OneCanaryInstance,
    /// In everything: a dependency that both versions share.
    BothArms,
}
