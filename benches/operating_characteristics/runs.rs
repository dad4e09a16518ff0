//! Runs: one release after another through the whole analysis, on all cores, and the peers on the
//! same releases. A run's seed follows from the page's, the row's name and its number alone, so
//! neither the order of rows nor the number of cores changes a figure.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use rollgate::{
    engine::{
        calibration::{Calibration, calibrate},
        observation::{Arm, Observation, Reading, Value},
        quantile::estimate,
        rule::SignalKind,
    },
    simulation::{
        Release, past,
        trial::{Ending, judge},
    },
};

use crate::{
    peers::{Judge, Threshold},
    rows::{FaultRow, Known, Row},
};

/// An hour of the old version, as a metrics server keeps it.
const HISTORY: Duration = Duration::from_secs(3_600);
const HISTORY_INTERVAL: Duration = Duration::from_secs(15);

/// An hour of one-minute values, which is how long the judge style takes.
const PEER_SECS: u64 = 3_600;

/// How many runs of what.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Fewer runs than the page wants.
    pub is_short: bool,
    pub false_runs: usize,
    pub found_runs: usize,
    pub peer_runs: usize,
}

/// What came of a row: seconds from the beginning to the rollback, run by run.
#[derive(Clone, Debug)]
pub struct Outcome<R> {
    pub row: R,
    pub ours: Vec<Option<f64>>,
    /// Threshold style and judge style, over the first runs and an hour.
    pub peers: Option<[Vec<Option<f64>>; 2]>,
}

/// Runs a healthy release for the usual hold.
pub fn healthy(row: &Row, plan: &Plan) -> Outcome<Row> {
    outcome(row.clone(), row, plan, plan.false_runs)
}

/// Runs a faulty release until an hour after the onset.
pub fn faulty(row: &FaultRow, plan: &Plan) -> Outcome<FaultRow> {
    outcome(row.clone(), &row.row, plan, plan.found_runs)
}

fn outcome<R>(kept: R, row: &Row, plan: &Plan, runs: usize) -> Outcome<R> {
    let begin = Instant::now();
    let seed = |run: usize| run_seed(plan.seed, row.name, run);
    let ours = on_all_cores(runs, |run| rolled_back(row, seed(run)));
    let peers = row.peers.then(|| {
        let both = on_all_cores(plan.peer_runs.min(runs), |run| peers_rolled_back(row, seed(run)));
        let style = |style: usize| both.iter().map(|of| of[style]).collect();
        [style(0), style(1)]
    });
    let rollbacks = ours.iter().flatten().count();
    let took = begin.elapsed().as_secs_f64();
    eprintln!("{:<62} {rollbacks:>6} of {runs} rolled back, {took:.1} s", row.name);
    Outcome { row: kept, ours, peers }
}

/// Seconds to the rollback of one release, if there is one.
fn rolled_back(row: &Row, seed: u64) -> Option<f64> {
    let calibration = match row.known {
        Known::Nothing => Calibration::default(),
        Known::Hour => {
            let past = past(&row.rules, &row.scenario, HISTORY, HISTORY_INTERVAL, !seed);
            calibrate(&row.rules, &past, Duration::ZERO)
        }
    };
    let trial = judge(&row.rules, &row.scenario, &calibration, seed, |_| {});
    match trial.ending {
        Ending::Rollback { .. } => Some(trial.secs),
        Ending::Promote | Ending::Inconclusive => None,
    }
}

/// The same by the peers, who see the release minute by minute.
fn peers_rolled_back(row: &Row, seed: u64) -> [Option<f64>; 2] {
    let baseline = row.scenario.baseline;
    // Twice what the baseline has in the long run.
    let limit = 2.0
        * match row.rules.signals[0].kind {
            SignalKind::Quantile { q } => baseline.latency.quantile(q),
            _ => baseline.error_share,
        };
    let (mut threshold, mut judge) = (Threshold::new(limit), Judge::default());
    let mut found = [None; 2];
    let mut minutes = [Minute::default(), Minute::default()];
    for (look, observation) in (1..=PEER_SECS).zip(Release::new(&row.rules, &row.scenario, seed)) {
        for (minute, arm) in minutes.iter_mut().zip(Arm::BOTH) {
            minute.add(observed(&observation, arm));
        }
        if look % 60 != 0 {
            continue;
        }
        let [canary, baseline] = std::mem::take(&mut minutes).map(|minute| minute.value());
        let says = [threshold.minute(canary), judge.minute(canary, baseline)];
        for (found, says) in found.iter_mut().zip(says) {
            if says && found.is_none() {
                *found = Some(look as f64);
            }
        }
    }
    found
}

fn observed(observation: &Observation, arm: Arm) -> &Reading {
    observation.signals[0].of(arm)
}

/// One minute of one arm.
#[derive(Clone, Debug, Default)]
struct Minute {
    events: f64,
    total: f64,
    edges: Option<std::sync::Arc<[f64]>>,
    buckets: Vec<f64>,
}

impl Minute {
    fn add(&mut self, reading: &Reading) {
        match reading {
            Ok(Value::Share { events, total }) => {
                self.events += events;
                self.total += total;
            }
            Ok(Value::Histogram(histogram)) => {
                self.edges = Some(histogram.edges.clone());
                self.buckets.resize(histogram.counts.len(), 0.0);
                let both = self.buckets.iter_mut().zip(&histogram.counts);
                both.for_each(|(sum, count)| *sum += count);
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// The share of failures, or the 95th percentile.
    fn value(self) -> Option<f64> {
        match &self.edges {
            Some(edges) => estimate(0.95, edges, &self.buckets),
            None => (self.total > 0.0).then(|| self.events / self.total),
        }
    }
}

/// The results of so many runs, in their order.
fn on_all_cores<T: Send>(runs: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let worker = || {
            let mut mine = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= runs {
                    return mine;
                }
                mine.push((number, run(number)));
            }
        };
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a run panicked")).collect()
    });
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, result)| result).collect()
}

/// FNV-1a over everything that a run's seed depends on.
fn run_seed(seed: u64, name: &str, run: usize) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes()).chain(run.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
