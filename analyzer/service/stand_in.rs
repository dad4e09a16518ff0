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
        rule::Baseline,
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
    From {
        /// Where it comes from.
        source: Source,
        /// How much older it is.
        lag: Duration,
        /// Where it lies.
        stretch: Stretch,
        /// Up to where it has been used.
        used: Time,
        /// What is said beyond its end.
        note: String,
    },
    /// There is none, for this reason.
    Nothing(String),
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
        baseline: Baseline,
        source: impl FnOnce(PastSource) -> Option<Source>,
        last_look: Option<Time>,
    ) -> Option<Self> {
        match baseline {
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
        Some(StandIn::From { source, lag, stretch, used, note })
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
        let (source, lag, stretch, used, note) = match self {
            StandIn::Nothing(why) => return Err(nothing_then(why.clone())),
            StandIn::From { source, lag, stretch, used, note } => {
                (source, *lag, *stretch, used, note)
            }
        };
        let wanted = Stretch { after: *used, until: back(at, lag).min(stretch.until) };
        if wanted.until <= wanted.after && back(at, lag) > stretch.until {
            return Err(nothing_then(note.clone()));
        }
        match source {
            Source::Watch { store, service, signals } => {
                let kept = store.kept(service, signals, wanted, PAGE_MAX).await;
                let kept = kept.map_err(|error| Missing::new(Why::QueryFailed, chain(&error)))?;
                let whole = kept.len() < PAGE_MAX as usize;
                *used = kept.last().filter(|_| !whole).map_or(wanted.until, |last| last.at);
                Ok(kept)
            }
            Source::Server { collector, reducer } => {
                let gathered = collector.gather_past(wanted.until).await;
                let covers = wanted.length();
                *used = wanted.until;
                Ok(vec![PastLook::of(reducer.reduce(&gathered), covers)])
            }
        }
    }

    /// Marks in the past's counters, to be stored with those of the canary.
    pub fn add_to(&self, carry: &mut Carry) {
        match self {
            StandIn::From { source: Source::Server { reducer, .. }, .. } => {
                let marks = reducer.carry().instances.clone();
                carry.instances.extend(marks);
            }
            StandIn::From { source: Source::Watch { .. }, .. } | StandIn::Nothing(_) => {}
        }
    }
}

/// The marks of one arm.
pub fn marks_of(carry: &Carry, arm: Arm) -> Carry {
    let marks = carry.instances.iter().filter(|((of, _), _)| *of == arm);
    Carry { instances: marks.map(|(key, marks)| (key.clone(), marks.clone())).collect() }
}
