//! The service's own past as the baseline of a running analysis, look by look.
//!
//! Beside the watcher's reducer of the canary this holds where the past has been read up to. A look
//! that the past cannot serve has a baseline that is missing, with the reason; what could not be
//! read now is read with the next look, and nothing is used twice.

use std::{sync::Arc, time::Duration};

use super::{
    driver::chain,
    lag::back,
    past::{PastPlan, PastSource},
};
use crate::{
    engine::{
        observation::{Arm, Missing, Observation, Time, Why},
        rule::{Baseline, RuleSet},
    },
    signal::{
        carry::Carry,
        past::{PastLook, SignalsKey, Stretch, nothing_then, stand_in},
        reduce::Reducer,
        spec::SignalSpec,
    },
    source::collector::Collector,
    store::{PAGE_MAX, Store},
};

/// Where looks at the past come from.
pub enum Source {
    /// The standing watch of the service.
    Watch {
        /// Where they are kept.
        store: Arc<dyn Store>,
        /// Of which service.
        service: String,
        /// Of which signals.
        signals: SignalsKey,
    },
    /// A metrics server.
    Server {
        /// Asks it.
        collector: Collector,
        /// Takes the differences.
        reducer: Box<Reducer>,
    },
}

/// A baseline from the past.
pub enum StandIn {
    /// There is one.
    From(Box<Lagged>),
    /// There is none, for this reason.
    Nothing(String),
}

/// Looks at the past that follow those of the present.
pub struct Lagged {
    source: Source,
    /// How much older they are.
    lag: Duration,
    /// Where they lie.
    stretch: Stretch,
    /// Up to where they have been used.
    used: Time,
    /// How much earlier than that one is taken when there is none just then.
    slack: Duration,
    /// What is said of a look beyond their end.
    note: String,
}

impl Source {
    /// A metrics server, which goes on counting from these marks.
    pub fn server(
        collector: Collector,
        specs: Arc<[SignalSpec]>,
        warmup: Duration,
        marks: Carry,
    ) -> Self {
        Source::Server { collector, reducer: Box::new(Reducer::new(specs, warmup, marks)) }
    }
}

impl StandIn {
    /// What stands in for a baseline by this plan; none when one runs beside the canary. `source`
    /// opens the source that the plan names, `last_look` is when the last committed look was taken.
    pub fn by(
        plan: Option<&PastPlan>,
        rules: &RuleSet,
        source: impl FnOnce(PastSource) -> Option<Source>,
        last_look: Option<Time>,
    ) -> Option<Self> {
        match rules.baseline {
            Baseline::Concurrent => return None,
            Baseline::Before | Baseline::Offset(_) => {}
        }
        let Some(plan) = plan else {
            return Some(StandIn::Nothing("the analysis began without a past".to_owned()));
        };
        let Some((planned, source)) = plan.lag.zip(source(plan.source)) else {
            return Some(StandIn::Nothing(plan.note.clone()));
        };
        let (lag, stretch, note) = (planned.lag(), planned.stretch(), plan.note.clone());
        let used = last_look.map_or(stretch.after, |at| back(at, lag));
        let slack = rules.observe.interval / 2;
        Some(StandIn::From(Box::new(Lagged { source, lag, stretch, used, slack, note })))
    }

    /// Puts the past in the place of an observation's baseline.
    pub async fn stand_in(&mut self, observation: &mut Observation) {
        let (looks, absent) = match self.looks(observation.at).await {
            Ok(looks) => {
                (looks, Missing::new(Why::NoTraffic, "no look at the past falls into this moment"))
            }
            Err(missing) => (Vec::new(), missing),
        };
        stand_in(observation, looks, &absent);
    }

    async fn looks(&mut self, at: Time) -> Result<Vec<PastLook>, Missing> {
        match self {
            StandIn::From(lagged) => lagged.looks(at).await,
            StandIn::Nothing(why) => Err(nothing_then(why.clone())),
        }
    }

    /// Marks in the past's counters, to be stored with those of the canary.
    pub fn add_to(&self, carry: &mut Carry) {
        match self {
            StandIn::From(lagged) => match &lagged.source {
                Source::Server { reducer, .. } => {
                    carry.instances.extend(reducer.carry().instances.clone());
                }
                Source::Watch { .. } => {}
            },
            StandIn::Nothing(_) => {}
        }
    }
}

impl Lagged {
    /// The looks that follow those used so far, up to the lag before a moment.
    async fn looks(&mut self, at: Time) -> Result<Vec<PastLook>, Missing> {
        let then = back(at, self.lag);
        let until = then.min(self.stretch.until);
        let looks = match &mut self.source {
            Source::Watch { store, service, signals } => {
                let soon = then.after(self.slack).min(self.stretch.until);
                let wanted = Stretch { after: self.used, until: soon };
                let kept = store.kept(service, signals, wanted, PAGE_MAX).await;
                let kept = kept.map_err(|error| Missing::new(Why::QueryFailed, chain(&error)))?;
                let kept = due(kept, until);
                self.used = kept.last().map_or(self.used, |last| last.at);
                kept
            }
            Source::Server { .. } if until <= self.used => Vec::new(),
            Source::Server { collector, reducer } => {
                let covers = until.since(self.used);
                self.used = until;
                let gathered = collector.gather_past(until).await;
                vec![PastLook::of(reducer.reduce(&gathered), covers)]
            }
        };
        if looks.is_empty() && then > self.stretch.until {
            return Err(nothing_then(self.note.clone()));
        }
        Ok(looks)
    }
}

/// Looks up to a moment, or the one that follows soon. Both watches tick at the same pace: where
/// their ticks fall together, the least delay would give one look two baselines and the next none.
fn due(mut looks: Vec<PastLook>, until: Time) -> Vec<PastLook> {
    let due = looks.partition_point(|look| look.at <= until);
    looks.truncate(due.max(1));
    looks
}

/// The marks of one arm.
pub fn marks_of(carry: &Carry, arm: Arm) -> Carry {
    let marks = carry.instances.iter().filter(|((of, _), _)| *of == arm);
    let instances = marks.map(|(key, marks)| (key.clone(), marks.clone())).collect();
    Carry { instances, seen: carry.seen }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_is_due_though_ticks_fall_together() {
        let look = |at| PastLook { at: Time(at), covers: Duration::ZERO, sides: Vec::new() };
        let check = |looks: &[i64], until, expected: &[i64]| {
            let found = due(looks.iter().copied().map(look).collect(), Time(until));
            let found: Vec<i64> = found.iter().map(|look| look.at.0).collect();
            assert_eq!(found, expected, "{looks:?} until {until}");
        };
        check(&[], 1000, &[]);
        check(&[998], 1000, &[998]);
        check(&[1002], 1000, &[1002]);
        check(&[998, 1400], 1000, &[998]);
        check(&[500, 998, 1400], 1000, &[500, 998]);
    }
}
