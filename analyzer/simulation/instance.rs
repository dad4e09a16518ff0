//! One simulated process: what it counts and shows at a look, or why it gives nothing.
//!
//! Counts that a failed scrape missed are made good by the next one, a crash takes them along, and
//! a process younger than the warm-up is not judged: as the reducer has it.

use std::sync::Arc;

use rand::{RngExt, rngs::StdRng};
use rand_distr::{Distribution, StandardNormal};

use super::{
    draw,
    latency::BucketShares,
    plan::SignalPlan,
    scenario::{Arrivals, Fault, FaultKind, Truth},
};
use crate::engine::observation::{Health, Missing, Why};

/// Time in which a healthy process answers its health endpoint.
const HEALTH_SECS: f64 = 0.005;

/// One process.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name, for showing.
    pub name: Arc<str>,
    /// When it began, in seconds since the analysis did; minus infinity for long ago.
    pub born_secs: f64,
    truth: Truth,
    latency: BucketShares,
    /// What was counted and not yet read.
    pending: Pending,
    /// Requests owed by regular arrivals.
    owed: f64,
    /// What leaks have taken, in bytes.
    leaked: f64,
    life: Life,
}

#[derive(Clone, Debug, Default)]
struct Pending {
    secs: f64,
    requests: f64,
    /// Per signal.
    events: Vec<f64>,
    buckets: Vec<f64>,
    restarts: u32,
}

#[derive(Clone, Copy, Debug)]
enum Life {
    Up { crashes: u32 },
    Down { crashes: u32, until_secs: f64 },
}

/// What one look found of one instance.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its counts and levels, or why there are none.
    pub read: Result<Read, Missing>,
    /// Restarts since the last good scrape; none when this one failed.
    pub restarts: Option<u32>,
    /// What its health endpoint said, and how long that took.
    pub health: (Health, Option<f64>),
}

/// Counts since the last good scrape, and levels now.
#[derive(Clone, Debug)]
pub struct Read {
    /// Seconds that the counts cover.
    pub secs: f64,
    /// Requests.
    pub requests: f64,
    /// Per signal: events, or the level; 0 for the other kinds.
    pub values: Vec<f64>,
    /// Requests per bucket; empty when no signal asks.
    pub buckets: Vec<f64>,
}

/// One look's circumstances, of a whole arm.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// End of the look, in seconds since the analysis began.
    pub at_secs: f64,
    /// Its length.
    pub secs: f64,
    /// Requests a second of this instance.
    pub rps: f64,
    /// Noise of event rates.
    pub event_noise: f64,
    /// Noise of the latency level.
    pub latency_noise: f64,
    /// Younger than this is not judged.
    pub warmup_secs: f64,
    /// How requests come.
    pub arrivals: Arrivals,
}

/// What the faults of the moment come to.
struct Effects {
    errors: f64,
    latency: f64,
    level: f64,
    leak_per_sec: f64,
    missing: f64,
    reset: f64,
}

impl Instance {
    /// A process that has counted nothing.
    pub fn new(name: String, truth: Truth, born_secs: f64) -> Self {
        Self {
            name: name.into(),
            born_secs,
            latency: BucketShares::new(truth.latency),
            truth,
            pending: Pending::default(),
            owed: 0.0,
            leaked: 0.0,
            life: Life::Up { crashes: 0 },
        }
    }

    /// Takes one look. `faults` are those that can hit this instance.
    pub fn look(
        &mut self,
        random: &mut StdRng,
        moment: &Moment,
        signals: &[SignalPlan],
        faults: &[Fault],
    ) -> Seen {
        let effects = effects(faults, moment);
        self.live(faults, moment);
        if let Life::Down { .. } = self.life {
            let refused = Missing::new(Why::ScrapeFailed, "connection refused");
            return Seen { read: Err(refused), restarts: None, health: (Health::Down, None) };
        }
        self.leaked += effects.leak_per_sec * moment.secs;
        self.count(random, moment, signals, &effects);
        let health = (Health::Up, Some(HEALTH_SECS));
        if effects.missing > 0.0 && random.random_bool(effects.missing) {
            let failed = Missing::new(Why::ScrapeFailed, "no answer in time");
            return Seen { read: Err(failed), restarts: None, health };
        }
        let mut pending = std::mem::take(&mut self.pending);
        let restarts = Some(pending.restarts);
        // As in the reducer: what is counted must have begun after the warm-up.
        if moment.at_secs - moment.secs - self.born_secs < moment.warmup_secs {
            let young = Missing::new(Why::WarmUp, "younger than the warm-up");
            return Seen { read: Err(young), restarts, health };
        }
        if effects.reset > 0.0 && random.random_bool(effects.reset) {
            pending = Pending { secs: pending.secs, ..Pending::default() };
            pending.events.resize(signals.len(), 0.0);
            pending.buckets.resize(self.latency.at(1.0).len(), 0.0);
        }
        let mut values = pending.events;
        for (value, signal) in values.iter_mut().zip(signals) {
            if let SignalPlan::Level { base, is_bytes } = signal {
                *value = self.level(random, moment.at_secs, *base, *is_bytes, effects.level);
            }
        }
        let Pending { secs, requests, buckets, .. } = pending;
        Seen { read: Ok(Read { secs, requests, values, buckets }), restarts, health }
    }

    /// Dies and comes back as the faults say.
    fn live(&mut self, faults: &[Fault], moment: &Moment) {
        let now = moment.at_secs;
        let crash = faults.iter().find_map(|fault| match fault.kind {
            FaultKind::Crash { every_secs, down_secs } => Some((fault, every_secs, down_secs)),
            FaultKind::Errors { .. }
            | FaultKind::Latency { .. }
            | FaultKind::Level { .. }
            | FaultKind::Leak { .. }
            | FaultKind::MissingScrapes { .. }
            | FaultKind::CounterResets { .. } => None,
        });
        let Some((fault, every_secs, down_secs)) = crash else { return };
        if let Life::Up { crashes } = self.life {
            let next = fault.onset_secs + f64::from(crashes) * every_secs.max(moment.secs);
            if now > next && next < fault.until_secs {
                self.life = Life::Down { crashes: crashes + 1, until_secs: next + down_secs };
                self.pending = Pending { restarts: self.pending.restarts, ..Pending::default() };
                self.leaked = 0.0;
            }
        }
        if let Life::Down { crashes, until_secs } = self.life
            && now > until_secs
        {
            self.life = Life::Up { crashes };
            self.pending.restarts += 1;
            self.born_secs = until_secs;
        }
    }

    fn count(
        &mut self,
        random: &mut StdRng,
        moment: &Moment,
        signals: &[SignalPlan],
        effects: &Effects,
    ) {
        let expected = moment.rps * moment.secs;
        let requests = match moment.arrivals {
            Arrivals::Poisson => draw::poisson(random, expected),
            Arrivals::Fixed => {
                self.owed += expected;
                // Sums of decimal fractions fall a little short of the whole.
                let whole = (self.owed + 1e-9).floor().max(0.0);
                self.owed -= whole;
                whole as u64
            }
        };
        let share = self.truth.error_share * moment.event_noise;
        let pending = &mut self.pending;
        pending.secs += moment.secs;
        pending.requests += requests as f64;
        pending.events.resize(signals.len(), 0.0);
        for (sum, signal) in pending.events.iter_mut().zip(signals) {
            let events = match signal {
                SignalPlan::Failing => draw::binomial(random, requests, share * effects.errors),
                SignalPlan::Succeeding => {
                    requests - draw::binomial(random, requests, share * effects.errors)
                }
                SignalPlan::FailingOverTime => {
                    draw::poisson(random, expected * share * effects.errors)
                }
                SignalPlan::Throughput => requests,
                SignalPlan::Excess => {
                    draw::poisson(random, expected * share * (effects.errors - 1.0))
                }
                SignalPlan::Latency
                | SignalPlan::Level { .. }
                | SignalPlan::Up
                | SignalPlan::Health
                | SignalPlan::Restarts => 0,
            };
            *sum += events as f64;
        }
        if signals.contains(&SignalPlan::Latency) {
            let shares = self.latency.at(effects.latency * moment.latency_noise);
            pending.buckets.resize(shares.len(), 0.0);
            draw::multinomial(random, requests, shares, &mut pending.buckets);
        }
    }

    fn level(
        &self,
        random: &mut StdRng,
        at_secs: f64,
        base: f64,
        is_bytes: bool,
        factor: f64,
    ) -> f64 {
        let law = self.truth.level;
        let base = law.base.unwrap_or(base);
        let normal: f64 = StandardNormal.sample(random);
        // A process that began long ago is somewhere in its saw-tooth; zero is as good as any.
        let age = if self.born_secs.is_finite() { at_secs - self.born_secs } else { at_secs };
        let saw = if law.saw > 0.0 && law.saw_period_secs > 0.0 {
            law.saw * (age / law.saw_period_secs).rem_euclid(1.0)
        } else {
            0.0
        };
        let grown = law.slope_per_sec * age.max(0.0) + if is_bytes { self.leaked } else { 0.0 };
        (base * factor * (1.0 + saw + law.jitter * normal) + grown).max(0.0)
    }
}

fn effects(faults: &[Fault], moment: &Moment) -> Effects {
    let mut effects = Effects {
        errors: 1.0,
        latency: 1.0,
        level: 1.0,
        leak_per_sec: 0.0,
        missing: 0.0,
        reset: 0.0,
    };
    for fault in faults {
        let part = fault.part_of(moment.at_secs - moment.secs, moment.at_secs);
        if part <= 0.0 {
            continue;
        }
        // A look that a fault began in has it for a part of its time.
        let scaled = |factor: f64| 1.0 + part * (factor - 1.0);
        match fault.kind {
            FaultKind::Errors { factor } => effects.errors *= scaled(factor),
            FaultKind::Latency { factor } => effects.latency *= scaled(factor),
            FaultKind::Level { factor } => effects.level *= scaled(factor),
            FaultKind::Leak { bytes_per_sec } => effects.leak_per_sec += part * bytes_per_sec,
            FaultKind::MissingScrapes { probability } => {
                effects.missing = effects.missing.max(probability.clamp(0.0, 1.0));
            }
            FaultKind::CounterResets { probability } => {
                effects.reset = effects.reset.max(probability.clamp(0.0, 1.0));
            }
            FaultKind::Crash { .. } => {}
        }
    }
    effects
}
