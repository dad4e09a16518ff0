//! The scenarios: healthy releases that must not be rolled back, and faults that must be found.

use std::sync::Arc;

use rollgate::{
    engine::rule::RuleSet,
    rulefile,
    simulation::{
        Fault, FaultKind, Hits, LatencyLaw, NoiseModel, Scenario, Traffic, TrafficStep, Truth,
    },
};

use crate::bound;

/// The stated false-rollback rate of both rule files.
pub const ALPHA: f64 = 0.001;

/// How long a healthy release is watched, and how long a fault is waited for, in seconds.
const WATCH_SECS: f64 = 900.0;
const WAIT_SECS: f64 = 3_600.0;

/// Margin and floor of the error rule, margin of the latency rule. With 1.25 the scheme of likelihood
/// ratios mixed over effects and onsets needs 9 s for 0.5 % to 5 % where this page requires 10 s.
pub const ERROR_RULE: (f64, f64) = (1.25, 0.001);
pub const LATENCY_MARGIN: f64 = 1.2;

/// Share of failures of the healthy service.
const ERRORS: f64 = 0.005;

/// What an arm's noise is known by before the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// An hour of the old version, looked at every 15 s.
    Hour,
    /// Nothing: the stated prior.
    Nothing,
}

/// A release to be judged again and again.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    pub rules: Arc<RuleSet>,
    pub scenario: Scenario,
    pub known: Known,
    pub peers: bool,
    /// Must it be at most the stated rate? If not, why it is shown.
    pub demand: Demand,
}

/// What is asked of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Demand {
    /// At most the stated rate.
    Rate,
    /// The same, exactly at the margin.
    RateAtMargin,
    /// The median delay is at most so many times Wald's bound.
    Ratio(f64),
    /// The median delay is at most so many seconds.
    Secs(f64),
    /// Only shown.
    Shown,
}

/// A fault with its onset.
#[derive(Clone, Debug)]
pub struct FaultRow {
    pub row: Row,
    pub onset_secs: f64,
    /// Wald's bound in seconds, where there is a simple one.
    pub bound_secs: Option<f64>,
}

/// Rules with a hold of 15 min that watch for so long, looking so often, and then let the release
/// go. Watching longer than the hold needs a rule that asks for a person's eye all the while.
fn rules(signal: &str, rule: &str, watch_secs: f64, interval_secs: f64) -> Arc<RuleSet> {
    let deadline_secs = watch_secs + interval_secs;
    let asks = match rule.split_once(' ') {
        Some(("errors", _)) if watch_secs > WATCH_SECS => "errors < 99%",
        Some(_) if watch_secs > WATCH_SECS => "p95 < 1h",
        Some(_) | None => "",
    };
    let stay = match asks {
        "" => String::new(),
        asks => format!("  - {{ when: {asks} for 2s, then: investigate }}\n"),
    };
    let text = format!(
        "version: 1
service: simulated
observe: {{ interval: {interval_secs}s, window: 1m, warmup: 1m }}
false_rollback_rate: 0.1%
signals:
  {signal}
rules:
  - {{ when: {rule}, then: rollback }}
{stay}promote: {{ after: {WATCH_SECS}s, deadline: {deadline_secs}s, otherwise: hold }}
"
    );
    Arc::new(rulefile::load("simulated.yaml", &text).expect("valid rules").rules)
}

fn error_rules(watch_secs: f64, interval_secs: f64) -> Arc<RuleSet> {
    error_rules_at(ERROR_RULE.0, watch_secs, interval_secs)
}

fn error_rules_at(margin: f64, watch_secs: f64, interval_secs: f64) -> Arc<RuleSet> {
    let floor = ERROR_RULE.1;
    let signal = format!("errors: {{ ratio: 'failed_total / asked_total', floor: {floor} }}");
    rules(&signal, &format!("errors > {margin}x baseline"), watch_secs, interval_secs)
}

/// The rules of `rules/recommended.yaml` allow more.
fn recommended_rules(watch_secs: f64, interval_secs: f64) -> Arc<RuleSet> {
    error_rules_at(1.5, watch_secs, interval_secs)
}

fn latency_rules(watch_secs: f64, interval_secs: f64) -> Arc<RuleSet> {
    let rule = format!("p95 > {LATENCY_MARGIN}x baseline");
    rules("p95: { quantile: 0.95, of: latency_seconds }", &rule, watch_secs, interval_secs)
}

fn even() -> Scenario {
    Scenario::healthy(Traffic::new(100.0, 100.0))
}

fn split(canary_rps: f64, baseline_rps: f64) -> Scenario {
    Scenario::healthy(Traffic::new(canary_rps, baseline_rps))
}

fn truth(error_share: f64) -> Truth {
    Truth { error_share, ..Truth::default() }
}

fn law(latency: LatencyLaw) -> Truth {
    Truth { latency, ..Truth::default() }
}

fn own(sigma: f64, tau_secs: f64) -> NoiseModel {
    NoiseModel::own(sigma, tau_secs)
}

fn level(latency_sigma: f64, tau_secs: f64) -> NoiseModel {
    NoiseModel { latency_sigma, tau_secs, ..NoiseModel::NONE }
}

fn shared_level(shared_latency_sigma: f64, shared_tau_secs: f64) -> NoiseModel {
    NoiseModel { shared_latency_sigma, shared_tau_secs, ..NoiseModel::NONE }
}

const BIMODAL: LatencyLaw =
    LatencyLaw::Bimodal { fast_secs: 0.02, slow_secs: 0.3, slow_share: 0.15, spread: 0.4 };

const GAMMA: LatencyLaw = LatencyLaw::Gamma { median_secs: 0.05, shape: 3.0 };

/// Traffic that doubles on the baseline's side only, and quadruples on both.
fn stepping() -> Traffic {
    let step =
        |at_secs, canary_rps, baseline_rps| TrafficStep { at_secs, canary_rps, baseline_rps };
    let steps = vec![step(300.0, 100.0, 200.0), step(600.0, 400.0, 800.0)];
    Traffic { steps, ..Traffic::new(100.0, 100.0) }
}

/// The first minute, ten times the errors or three times the latency, then healed.
fn cold(kind: FaultKind) -> Fault {
    Fault { kind, hits: Hits::Canary, onset_secs: 0.0, until_secs: 60.0 }
}

/// Releases that must not be rolled back.
pub fn healthy() -> Vec<Row> {
    let errors = error_rules(WATCH_SECS, 1.0);
    let latency = latency_rules(WATCH_SECS, 1.0);
    let row = |name, rules: &Arc<RuleSet>, scenario, known, peers, demand| Row {
        name,
        rules: rules.clone(),
        scenario,
        known,
        peers,
        demand,
    };
    let e = |name, scenario, peers| row(name, &errors, scenario, Known::Hour, peers, Demand::Rate);
    let l = |name, scenario, peers| row(name, &latency, scenario, Known::Hour, peers, Demand::Rate);
    let prior = |name, scenario| row(name, &errors, scenario, Known::Nothing, false, Demand::Shown);
    let zero = Scenario { baseline: truth(0.0), canary: truth(0.001), ..even() };
    let margin = Scenario { canary: truth(ERROR_RULE.0 * ERRORS), ..even() };
    let five = Scenario::healthy(Traffic::new(100.0, 100.0).with_instances(5, 5));
    let young = Scenario { canary_age_secs: 0.0, ..even() };
    vec![
        e("errors, iid", even(), true),
        e("errors, AR 0.3 / 10 s", even().with_noise(own(0.3, 10.0)), true),
        e("errors, AR 0.5 / 30 s", even().with_noise(own(0.5, 30.0)), true),
        e("errors, AR 0.8 / 60 s", even().with_noise(own(0.8, 60.0)), true),
        e(
            "errors, shared bursts 0.8 / 30 s",
            even().with_noise(NoiseModel::shared(0.8, 30.0)),
            true,
        ),
        e("errors, 95/5 split", split(10.0, 190.0), false),
        e(
            "errors, 95/5 split, AR 0.5 / 30 s",
            split(10.0, 190.0).with_noise(own(0.5, 30.0)),
            false,
        ),
        e(
            "errors, 95/5 split, AR 0.8 / 60 s",
            split(10.0, 190.0).with_noise(own(0.8, 60.0)),
            false,
        ),
        e("errors, 99/1 split", split(2.0, 198.0), false),
        e("errors, 99/1 split, AR 0.5 / 30 s", split(2.0, 198.0).with_noise(own(0.5, 30.0)), false),
        e("errors, 1 request/s an arm", split(1.0, 1.0), true),
        e("errors, 0.2 requests/s an arm", split(0.2, 0.2), false),
        e("errors, baseline without any, canary at the floor", zero, false),
        row(
            "errors, exactly at the margin, iid",
            &errors,
            margin,
            Known::Hour,
            false,
            Demand::RateAtMargin,
        ),
        e("errors, five instances", five, false),
        e("errors, traffic steps", Scenario::healthy(stepping()), false),
        e(
            "errors, counters reset (2 % of looks)",
            even().with(both(FaultKind::CounterResets { probability: 0.02 })),
            false,
        ),
        e(
            "errors, missing scrapes (10 % of looks)",
            even().with(both(FaultKind::MissingScrapes { probability: 0.1 })),
            false,
        ),
        e(
            "errors, bad first minute within the warm-up",
            young.with(cold(FaultKind::Errors { factor: 10.0 })),
            false,
        ),
        prior("errors, iid, no history", even()),
        prior("errors, AR 0.3 / 10 s, no history", even().with_noise(own(0.3, 10.0))),
        prior("errors, AR 0.5 / 30 s, no history", even().with_noise(own(0.5, 30.0))),
        l("latency, log-normal", even(), true),
        l("latency, gamma", even().with_truth(law(GAMMA)), false),
        l("latency, bimodal", even().with_truth(law(BIMODAL)), false),
        l("latency, 20 and 60 requests/s", split(20.0, 60.0), false),
        l("latency, 1 request/s an arm", split(1.0, 1.0), false),
        l("latency, level AR 0.1 / 10 s", even().with_noise(level(0.1, 10.0)), true),
        l("latency, level AR 0.2 / 30 s", even().with_noise(level(0.2, 30.0)), false),
        l("latency, shared level 0.3 / 30 s", even().with_noise(shared_level(0.3, 30.0)), true),
        row(
            "latency, log-normal, no history",
            &latency,
            even(),
            Known::Nothing,
            false,
            Demand::Shown,
        ),
        row(
            "latency, level AR 0.05 / 10 s, 20 and 60 requests/s, no history",
            &latency,
            split(20.0, 60.0).with_noise(level(0.05, 10.0)),
            Known::Nothing,
            false,
            Demand::Shown,
        ),
        row(
            "latency, level AR 0.1 / 10 s, 20 and 60 requests/s, no history",
            &latency,
            split(20.0, 60.0).with_noise(level(0.1, 10.0)),
            Known::Nothing,
            false,
            Demand::Shown,
        ),
    ]
}

fn both(kind: FaultKind) -> Fault {
    Fault { kind, hits: Hits::BothArms, onset_secs: 0.0, until_secs: f64::INFINITY }
}

/// Faults that must be found, waited for an hour beyond the onset, so that the slow ones can be.
pub fn faulty() -> Vec<FaultRow> {
    let mut rows = Vec::new();
    let mut error = |name, scenario: Scenario, factor, onset_secs, peers, demand| {
        let bound = bound::errors(&scenario.traffic, ERRORS, ERRORS * factor, ERROR_RULE, ALPHA);
        let scenario = scenario.with_fault(FaultKind::Errors { factor }, onset_secs);
        let (rules, known) = (error_rules(onset_secs + WAIT_SECS, 1.0), Known::Hour);
        let row = Row { name, rules, scenario, known, peers, demand };
        rows.push(FaultRow { row, onset_secs, bound_secs: Some(bound) });
    };
    error("errors 2x, from the start", even(), 2.0, 0.0, false, Demand::Ratio(1.3));
    error("errors 5x, from the start", even(), 5.0, 0.0, false, Demand::Ratio(1.3));
    error("errors 10x, from the start", even(), 10.0, 0.0, false, Demand::Ratio(1.3));
    error("errors 50x, from the start", even(), 50.0, 0.0, false, Demand::Ratio(1.3));
    error("errors 2x, from 5 min", even(), 2.0, 300.0, true, Demand::Ratio(2.0));
    error("errors 5x, from 5 min", even(), 5.0, 300.0, true, Demand::Ratio(2.0));
    error("errors 10x, from 5 min", even(), 10.0, 300.0, true, Demand::Secs(10.0));
    error("errors 50x, from 5 min", even(), 50.0, 300.0, true, Demand::Ratio(2.0));
    let noisy = even().with_noise(own(0.5, 30.0));
    error("errors 10x, from 5 min, AR 0.5 / 30 s", noisy, 10.0, 300.0, true, Demand::Secs(80.0));
    let shown = Demand::Shown;
    let calmer = even().with_noise(own(0.3, 10.0));
    error("errors 10x, from 5 min, AR 0.3 / 10 s", calmer, 10.0, 300.0, false, shown);
    let stormy = even().with_noise(own(0.8, 60.0));
    error("errors 10x, from 5 min, AR 0.8 / 60 s", stormy, 10.0, 300.0, false, shown);
    let bursts = even().with_noise(NoiseModel::shared(0.8, 30.0));
    error("errors 10x, from 5 min, shared bursts 0.8 / 30 s", bursts, 10.0, 300.0, false, shown);
    error("errors 10x, from 5 min, 95/5 split", split(10.0, 190.0), 10.0, 300.0, false, shown);
    error("errors 10x, from 5 min, 99/1 split", split(2.0, 198.0), 10.0, 300.0, false, shown);
    error("errors 10x, from 5 min, 1 request/s an arm", split(1.0, 1.0), 10.0, 300.0, true, shown);
    error(
        "errors 50x, from 5 min, 0.2 requests/s an arm",
        split(0.2, 0.2),
        50.0,
        300.0,
        false,
        shown,
    );
    let resets = even().with(both(FaultKind::CounterResets { probability: 0.02 }));
    error("errors 10x, from 5 min, counters reset", resets, 10.0, 300.0, false, shown);
    let holes = even().with(both(FaultKind::MissingScrapes { probability: 0.1 }));
    error("errors 10x, from 5 min, missing scrapes", holes, 10.0, 300.0, false, shown);

    // Without a simple bound.
    let mut plain =
        |name, rules: fn(f64, f64) -> Arc<RuleSet>, interval_secs, scenario, known, onset_secs| {
            let rules = rules(onset_secs + WAIT_SECS, interval_secs);
            let row = Row { name, rules, scenario, known, peers: false, demand: shown };
            rows.push(FaultRow { row, onset_secs, bound_secs: None });
        };
    let stepping =
        Scenario::healthy(stepping()).with_fault(FaultKind::Errors { factor: 10.0 }, 600.0);
    plain("errors 10x, with a traffic step", error_rules, 1.0, stepping, Known::Hour, 600.0);
    let zero = Scenario { baseline: truth(0.0), canary: truth(0.05), ..even() };
    plain(
        "errors 5 %, baseline without any, from the start",
        error_rules,
        1.0,
        zero,
        Known::Hour,
        0.0,
    );
    let five = Scenario::healthy(Traffic::new(100.0, 100.0).with_instances(5, 5)).with(Fault {
        kind: FaultKind::Errors { factor: 50.0 },
        hits: Hits::OneCanaryInstance,
        onset_secs: 300.0,
        until_secs: f64::INFINITY,
    });
    plain(
        "errors 50x on one instance of five, from 5 min",
        error_rules,
        1.0,
        five,
        Known::Hour,
        300.0,
    );
    let cold_start = even().with(cold(FaultKind::Errors { factor: 10.0 }));
    plain(
        "errors 10x in the first minute, no warm-up",
        error_rules,
        1.0,
        cold_start,
        Known::Hour,
        0.0,
    );
    let few = split(20.0, 60.0).with_truth(truth(0.002));
    let few = few.with_fault(FaultKind::Errors { factor: 25.0 }, 302.0);
    let often = "errors 0.2 % to 5 %, 20 and 60 requests/s, no history";
    plain(often, error_rules, 1.0, few.clone(), Known::Nothing, 302.0);
    let seldom = "errors 0.2 % to 5 %, 20 and 60 requests/s, no history, looks of 5 s";
    plain(seldom, error_rules, 5.0, few, Known::Nothing, 302.0);
    let slow = split(20.0, 60.0).with_fault(FaultKind::Latency { factor: 2.0 }, 302.0);
    let seldom = "latency 2x, 20 and 60 requests/s, no history, looks of 5 s";
    plain(seldom, latency_rules, 5.0, slow, Known::Nothing, 302.0);
    let late = even().with_fault(FaultKind::Errors { factor: 10.0 }, 300.0);
    let allowing = "errors 10x, from 5 min, by a rule at 1.5x";
    plain(allowing, recommended_rules, 1.0, late.clone(), Known::Hour, 300.0);
    let noisy = late.clone().with_noise(own(0.5, 30.0));
    let allowing = "errors 10x, from 5 min, AR 0.5 / 30 s, by a rule at 1.5x";
    plain(allowing, recommended_rules, 1.0, noisy, Known::Hour, 300.0);
    plain("errors 10x, from 5 min, no history", error_rules, 1.0, late, Known::Nothing, 300.0);

    let mut slow = |name, scenario: Scenario, factor, known, peers| {
        let (traffic, law) = (&scenario.traffic, scenario.baseline.latency);
        let bound = bound::latency(traffic, law, factor, LATENCY_MARGIN, ALPHA);
        let scenario = scenario.with_fault(FaultKind::Latency { factor }, 300.0);
        let onset_secs = 300.0;
        let rules = latency_rules(onset_secs + WAIT_SECS, 1.0);
        let row = Row { name, rules, scenario, known, peers, demand: shown };
        rows.push(FaultRow { row, onset_secs, bound_secs: Some(bound) });
    };
    let hour = Known::Hour;
    slow("latency 1.5x, from 5 min", even(), 1.5, hour, true);
    slow("latency 2x, from 5 min", even(), 2.0, hour, true);
    slow("latency 3x, from 5 min", even(), 3.0, hour, false);
    slow("latency 2x, from 5 min, gamma", even().with_truth(law(GAMMA)), 2.0, hour, false);
    slow("latency 2x, from 5 min, bimodal", even().with_truth(law(BIMODAL)), 2.0, hour, false);
    slow("latency 1.5x, from 5 min, 20 and 60 requests/s", split(20.0, 60.0), 1.5, hour, false);
    slow("latency 2x, from 5 min, 20 and 60 requests/s", split(20.0, 60.0), 2.0, hour, false);
    let nothing = Known::Nothing;
    slow(
        "latency 2x, from 5 min, 20 and 60 requests/s, no history",
        split(20.0, 60.0),
        2.0,
        nothing,
        false,
    );
    slow(
        "latency 2x, from 5 min, level AR 0.1 / 10 s",
        even().with_noise(level(0.1, 10.0)),
        2.0,
        hour,
        true,
    );
    rows
}
