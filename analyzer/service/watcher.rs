//! Looks at one analysis' sources on time and hands each observation to the driver.
//!
//! One task per running analysis. It holds the reducer, whose positions travel with every
//! observation so that they are committed together; it never steps the engine.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{driver::Message, stand_in::StandIn};
use crate::{
    engine::observation::Time,
    signal::{carry::Carry, reduce::Reducer, spec::SignalSpec},
    source::collector::Collector,
};

/// What a watcher needs.
pub struct Watch {
    /// Which analysis.
    pub id: String,
    /// What to read.
    pub specs: Arc<[SignalSpec]>,
    /// Time between two looks.
    pub interval: Duration,
    /// An instance younger than this is not judged.
    pub warmup: Duration,
    /// Where the last committed look left off.
    pub carry: Carry,
    /// The sources.
    pub collector: Collector,
    /// The past that stands in for the baseline, when none runs beside the canary.
    pub past: Option<StandIn>,
    /// The clock.
    pub now: Arc<dyn Fn() -> Time + Send + Sync>,
}

/// Watches until `stop` or until the driver is gone.
pub async fn watch(watch: Watch, driver: mpsc::Sender<Message>, stop: CancellationToken) {
    let Watch { id, specs, interval, warmup, carry, collector, mut past, now } = watch;
    let mut reducer = Reducer::new(specs, warmup, carry);
    let mut ticks = interval_at(Instant::now(), interval);
    // A look that took long moves the next ones; two looks in a burst would only see each other.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let at = now();
        // A defect met while reading or reducing ends this analysis, and says so; a watcher that
        // just died would leave it running for ever.
        let look = AssertUnwindSafe(async {
            let mut observation = reducer.reduce(&collector.gather(at).await);
            let mut carry = reducer.carry().clone();
            if let Some(past) = &mut past {
                past.stand_in(&mut observation).await;
                past.add_to(&mut carry);
            }
            (observation, carry)
        });
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = look.catch_unwind() => looked,
        };
        let message = match looked {
            Ok((observation, carry)) => Message::Look {
                id: id.clone(),
                observation: Box::new(observation),
                carry: Box::new(carry),
            },
            Err(_) => Message::Failed { id: id.clone(), at },
        };
        tokio::select! {
            () = stop.cancelled() => return,
            sent = driver.send(message) => if sent.is_err() { return },
        }
    }
}
