//! Memory of one analysis: what it holds at minute 60, and that nothing grows with time.
//!
//! A test binary of its own, because it counts every allocation of its process. The analysis is the
//! largest that the limits are stated for: looks every second, three signals of every kind, ten rules
//! by evidence, ten instances an arm, ten routes, and a regression from minute 10 on that keeps every
//! part of it in view.
#![allow(clippy::unwrap_used, reason = "a test that fails to set up should stop at once")]

use std::{alloc::System, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        analysis::Analysis,
        observation::{Arm, Health, Histogram, Observation, Pair, Part, PartKind, Time, Value},
        rule::{Action, SignalKind},
        verdict::State,
    },
    rulefile,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Most that an analysis may hold, in bytes.
const ANALYSIS_BYTES_MAX: usize = 64 * 1024;

/// By so much two minutes may differ: names come and go with their parts.
const WAVER_BYTES: usize = 1024;

const INSTANCES: usize = 10;
const ROUTES: usize = 10;
const ONSET_SECS: i64 = 600;

const RULES: &str = "version: 1
service: memory
observe: { interval: 1s, window: 1m, warmup: 0s }
signals:
  errors: { ratio: 'failed_total / asked_total', floor: 0.1% }
  refused: { ratio: 'refused_total / asked_total' }
  slow: { ratio: 'slow_total / asked_total' }
  requests: { rate: asked_total }
  retries: { rate: retried_total }
  timeouts: { rate: timeouts_total }
  log_errors: { count: logged_total }
  panics: { count: panics_total }
  dropped: { count: dropped_total }
  p95: { quantile: 0.95, of: latency_seconds }
  p99: { quantile: 0.99, of: latency_seconds }
  median: { quantile: 0.5, of: latency_seconds }
  memory: { gauge: resident_bytes }
  queue: { gauge: queue_length }
  pool: { gauge: pool_used / pool_size }
  restarts: { restarts: process_start_time_seconds }
  reboots: { restarts: boot_time_seconds }
  workers: { restarts: worker_restarts_total }
  app: { health: /health }
  database: { health: /health/db }
  cache: { health: /health/cache }
rules:
  - { when: errors > 1.5x baseline, then: investigate }
  - { when: errors > 5%, then: investigate }
  - { when: refused > 2x baseline, then: investigate }
  - { when: slow > 2x baseline, then: investigate }
  - { when: p95 > 1.2x baseline, then: investigate }
  - { when: p99 > 1.5x baseline, then: investigate }
  - { when: p95 > 500ms, then: investigate }
  - { when: retries > 3x baseline, then: investigate }
  - { when: timeouts > 2x baseline, then: investigate }
  - { when: timeouts > 5/s, then: investigate }
promote: { after: 2h, deadline: 12h, otherwise: hold }
";

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// What ships, with a slope: fewer signals, and the levels of every process over time.
const RECOMMENDED: &str = include_str!("../rules/recommended.yaml");

#[test]
fn an_analysis_holds_at_most_64_kib_and_nothing_grows() {
    // One after the other: every allocation of the process is counted.
    check("the largest", RULES, 5);
    check("the recommended", RECOMMENDED, 0);
    let by_amount = RULES
        .replace("> 1.5x baseline", "> baseline + 1%")
        .replace("> 2x baseline", "> baseline + 1%")
        .replace("p95 > 1.2x baseline", "p95 > baseline + 20ms")
        .replace("p99 > baseline + 1%", "p99 > baseline + 50ms")
        .replace("retries > 3x baseline", "retries > baseline + 1/s")
        .replace("timeouts > baseline + 1%", "timeouts > baseline + 1/s");
    assert!(!by_amount.contains("x baseline"));
    check("by amounts", &by_amount, 0);
}

fn check(name: &str, text: &str, firing_min: usize) {
    let mut rules = rulefile::load("memory.yaml", text).expect("valid rules").rules;
    for rule in &mut rules.rules {
        // What has been concluded must not end the watching.
        rule.then = Action::Investigate;
    }
    let rules = Arc::new(rules);
    let kinds: Vec<SignalKind> = rules.signals.iter().map(|signal| signal.kind).collect();
    let mut random = StdRng::seed_from_u64(60);
    let before = held();
    let mut analysis = Analysis::new(rules, Time(0));
    let mut most = |minutes: std::ops::Range<i64>, analysis: &mut Analysis| {
        let mut most = 0;
        for secs in minutes.start * 60..minutes.end * 60 {
            let look = observation(&mut random, &kinds, secs + 1);
            let step = analysis.step(&look);
            if secs == 29 * 60 && firing_min > 0 {
                let firing = step.findings.iter().filter(|rule| rule.state == State::Fires);
                let firing = firing.count();
                assert!(firing >= firing_min, "only {firing} rules fire in the regression");
                assert!(step.findings.iter().any(|rule| rule.clauses[0].blame.is_some()));
            }
            drop((look, step));
            if secs >= (minutes.end - 1) * 60 {
                most = most.max(held() - before);
            }
        }
        most
    };
    let minute_30 = most(0..30, &mut analysis);
    let minute_60 = most(30..60, &mut analysis);
    let hour_6 = most(60..360, &mut analysis);
    println!("{name}: {minute_30} bytes at minute 30, {minute_60} at 60, {hour_6} after 6 h");
    assert!(minute_60 <= ANALYSIS_BYTES_MAX, "{name}: {minute_60} bytes at minute 60");
    assert!(minute_60 <= minute_30 + WAVER_BYTES, "{name}: from {minute_30} to {minute_60} bytes");
    assert!(hour_6 <= minute_60 + WAVER_BYTES, "{name}: from {minute_60} to {hour_6} bytes");
}

fn observation(random: &mut StdRng, kinds: &[SignalKind], secs: i64) -> Observation {
    let edges: Arc<[f64]> = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0].into();
    let pair = |kind: &SignalKind| {
        let [canary, baseline] = Arm::BOTH.map(|arm| {
            let is_bad = arm == Arm::Canary && secs >= ONSET_SECS;
            let instance = |_| value(random, *kind, is_bad, &edges);
            let values: Vec<Value> = (0..INSTANCES).map(instance).collect();
            (sum(&values), parts(arm, *kind, &values))
        });
        let mut pair = Pair::new(Ok(canary.0), Ok(baseline.0));
        (pair.parts.canary, pair.parts.baseline) = (canary.1, baseline.1);
        pair
    };
    let signals = kinds.iter().map(pair).collect();
    Observation { at: Time(secs * 1000), signals, canary_gap: None, instances: None }
}

/// What one instance says of a signal at one look.
fn value(random: &mut StdRng, kind: SignalKind, is_bad: bool, edges: &Arc<[f64]>) -> Value {
    let mut among =
        |n: u32, share: f64| f64::from((0..n).filter(|_| random.random_bool(share)).count() as u32);
    let bad = if is_bad { 0.4 } else { 0.01 };
    match kind {
        SignalKind::Ratio { .. } => Value::Share { events: among(10, bad), total: 10.0 },
        SignalKind::Rate | SignalKind::Count => {
            let events = among(10, bad);
            Value::Events { events, instance_secs: 1.0, instances: 1 }
        }
        SignalKind::Quantile { .. } => {
            let shift = if is_bad { 2 } else { 0 };
            let mut counts = vec![0.0; edges.len() + 1];
            for _ in 0..10 {
                let bucket = 2 + shift + among(6, 0.4) as usize;
                counts[bucket.min(edges.len())] += 1.0;
            }
            Value::Histogram(Histogram { edges: edges.clone(), counts })
        }
        SignalKind::Gauge { .. } => Value::Level(1e8 + among(10, 0.5) * 1e5),
        SignalKind::Health => Value::Health { status: Health::Up, latency_secs: Some(0.01) },
        SignalKind::Restarts => Value::Restarts(0),
    }
}

fn sum(values: &[Value]) -> Value {
    let mut sum = values[0].clone();
    for value in &values[1..] {
        match (&mut sum, value) {
            (Value::Share { events, total }, Value::Share { events: more, total: all }) => {
                *events += more;
                *total += all;
            }
            (
                Value::Events { events, instance_secs, instances },
                Value::Events { events: more, instance_secs: secs, .. },
            ) => {
                *events += more;
                *instance_secs += secs;
                *instances += 1;
            }
            (Value::Histogram(sum), Value::Histogram(one)) => {
                sum.counts.iter_mut().zip(&one.counts).for_each(|(sum, count)| *sum += count);
            }
            (Value::Level(most), Value::Level(level)) => *most = most.max(*level),
            _ => {}
        }
    }
    sum
}

/// As the reducer hands them on: names are shared by nobody here, which is the dearer case.
fn parts(arm: Arm, kind: SignalKind, values: &[Value]) -> Vec<Part> {
    let part = |kind, name: String, value: &Value| Part {
        kind,
        name: name.into(),
        started: Some(Time(0)),
        value: value.clone(),
    };
    let instance = |(n, value)| part(PartKind::Instance, format!("10.0.0.{n}:8080"), value);
    let route = |(n, value)| part(PartKind::Route, format!("GET /v1/products/{n}"), value);
    let by_instance = || values.iter().enumerate().map(instance);
    let by_route = || values.iter().take(ROUTES).enumerate().map(route);
    match (kind, arm) {
        (SignalKind::Ratio { .. } | SignalKind::Quantile { .. }, Arm::Canary) => {
            by_instance().chain(by_route()).collect()
        }
        (SignalKind::Ratio { .. } | SignalKind::Quantile { .. }, Arm::Baseline) => {
            by_route().collect()
        }
        (SignalKind::Rate | SignalKind::Count, Arm::Canary) | (SignalKind::Gauge { .. }, _) => {
            by_instance().collect()
        }
        (SignalKind::Rate | SignalKind::Count, Arm::Baseline)
        | (SignalKind::Health | SignalKind::Restarts, _) => Vec::new(),
    }
}
