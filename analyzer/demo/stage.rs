//! A scenario on the stage: two services under load, and the fault that sets in on time.
//!
//! It knows nothing of the analyzer; whoever runs the demo points one at the other.

use std::io;

use tokio::task::JoinSet;

use super::{
    fault::Fault,
    load::{Load, LoadCounts},
    scenario::{Plan, Scenario},
    service::{Service, ServiceOptions},
};

/// Both arms of a running scenario. Dropping it ends them too.
#[derive(Debug)]
pub struct Stage {
    /// The old version.
    pub baseline: Service,
    /// The new version.
    pub canary: Service,
    baseline_load: Load,
    canary_load: Load,
    onset: JoinSet<()>,
    surge: Vec<Load>,
}

/// What the clients of both arms saw.
#[derive(Clone, Debug, PartialEq)]
pub struct StageCounts {
    /// The old version's clients.
    pub baseline: LoadCounts,
    /// The new version's clients.
    pub canary: LoadCounts,
}

impl Stage {
    /// Starts services `v1` and `v2` and their load; the scenario's clock begins here.
    ///
    /// # Errors
    /// When a port or an HTTP client cannot be had.
    pub async fn start(scenario: Scenario, seed: u64) -> io::Result<Self> {
        Self::play(scenario.plan(), seed).await
    }

    /// The same for a plan of one's own.
    ///
    /// # Errors
    /// When a port or an HTTP client cannot be had.
    pub async fn play(plan: Plan, seed: u64) -> io::Result<Self> {
        let service = |version: &str, seed| {
            Service::start(ServiceOptions {
                name: "shop".to_owned(),
                version: version.to_owned(),
                seed,
            })
        };
        // Four streams of chance from one seed.
        let baseline = service("v1", seed.wrapping_mul(4)).await?;
        let canary = service("v2", seed.wrapping_mul(4).wrapping_add(1)).await?;
        let baseline_load =
            Load::start(baseline.addr, plan.baseline_rps, seed.wrapping_mul(4).wrapping_add(2))?;
        let canary_load =
            Load::start(canary.addr, plan.canary_rps, seed.wrapping_mul(4).wrapping_add(3))?;
        let switches = [
            (baseline.fault.clone(), plan.baseline_fault),
            (canary.fault.clone(), plan.canary_fault),
        ];
        let mut onset = JoinSet::new();
        onset.spawn(async move {
            let Some(onset) = plan.onset else { return };
            tokio::time::sleep(onset).await;
            for (switch, fault) in &switches {
                switch.set(*fault);
            }
            let Some(heals) = plan.heals else { return };
            tokio::time::sleep(heals.saturating_sub(onset)).await;
            for (switch, _) in &switches {
                switch.set(Fault::None);
            }
        });
        let mut surge = Vec::new();
        if let Some(onset) = plan.onset.filter(|_| plan.surge > 1.0) {
            let more = [(baseline.addr, plan.baseline_rps), (canary.addr, plan.canary_rps)];
            for (stream, (addr, rps)) in (0u64..).zip(more) {
                let seed = seed.wrapping_mul(4).wrapping_add((1 << 40) + stream);
                surge.push(Load::start_after(onset, addr, rps * (plan.surge - 1.0), seed)?);
            }
        }
        Ok(Self { baseline, canary, baseline_load, canary_load, onset, surge })
    }

    /// Unix time of the canary's first request that was served badly because of the fault.
    pub fn first_bad_unix_secs(&self) -> Option<f64> {
        self.canary.fault.first_bad_unix_secs()
    }

    /// What clients have seen so far.
    pub fn counts(&self) -> StageCounts {
        StageCounts { baseline: self.baseline_load.counts(), canary: self.canary_load.counts() }
    }

    /// Ends loads and services, in that order, and gives the clients' final counts.
    pub async fn stop(mut self) -> StageCounts {
        self.onset.shutdown().await;
        self.surge.clear();
        let (baseline, canary) = tokio::join!(self.baseline_load.stop(), self.canary_load.stop());
        tokio::join!(self.baseline.stop(), self.canary.stop());
        StageCounts { baseline, canary }
    }
}
