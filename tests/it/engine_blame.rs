//! Which part is blamed, over simulated releases whose truth is known.

use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        analysis::Analysis,
        observation::{
            Arm, Histogram, Missing, Observation, Pair, Part, PartKind, Time, Value, Why,
        },
        rule::RuleSet,
        verdict::{Blame, BlameBy, ClauseFinding, Verdict},
    },
    rulefile,
};

const INSTANCES: usize = 5;
const ROUTES: usize = 8;

/// Requests a second of each canary instance; the baseline has three times as many.
const RPS: u32 = 4;
pub const ONSET: i64 = 120;
const USUAL_ERRORS: f64 = 0.002;

pub fn rules(when: &str) -> Arc<RuleSet> {
    let text = format!(
        "version: 1\nservice: s\nobserve: {{ interval: 1s, window: 1m, warmup: 0s }}\nsignals:\n  \
         errors: {{ ratio: 'failed_total / asked_total', floor: 0.1% }}\n  \
         p95: {{ quantile: 0.95, of: latency_seconds }}\nrules:\n  \
         - {{ when: {when}, then: rollback }}\npromote: {{ after: 20m, deadline: 30m }}\n"
    );
    Arc::new(rulefile::load("blame.yaml", &text).expect("valid rules").rules)
}

/// What is wrong with a request of this instance on this route: errors instead of the usual ones,
/// and so many times the usual latency.
pub type Fault = fn(instance: usize, route: usize) -> (f64, f64);

/// One request: its bucket, and whether it failed.
fn request(random: &mut StdRng, edges: &[f64], (errors, slower): (f64, f64)) -> (usize, bool) {
    // The sum of twelve uniform numbers is normal enough.
    let normal = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
    let latency = 0.08 * slower * (0.5 * normal).exp();
    (edges.partition_point(|&edge| edge < latency), random.random_bool(errors))
}

/// Requests of one part: failed, and per bucket.
#[derive(Clone)]
struct Counted(f64, Vec<f64>);

impl Counted {
    fn values(&self, edges: &Arc<[f64]>) -> [Value; 2] {
        let total: f64 = self.1.iter().sum();
        let histogram = Histogram { edges: edges.clone(), counts: self.1.clone() };
        [Value::Share { events: self.0, total }, Value::Histogram(histogram)]
    }
}

/// What an observation tells of its parts.
#[derive(Clone, Copy, PartialEq)]
pub enum Known {
    Nothing,
    Instances,
    InstancesAndRoutes,
}

pub fn observation(random: &mut StdRng, secs: i64, fault: Fault, known: Known) -> Observation {
    let edges: Arc<[f64]> = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0].into();
    let none = Counted(0.0, vec![0.0; edges.len() + 1]);
    let mut pairs: Vec<Pair> = Vec::new();
    let mut of_arm = |arm: Arm| {
        let requests = if arm == Arm::Canary { RPS } else { 3 * RPS };
        let (mut all, mut instances, mut routes) =
            (none.clone(), vec![none.clone(); INSTANCES], vec![none.clone(); ROUTES]);
        for (instance, of_instance) in instances.iter_mut().enumerate() {
            for _ in 0..requests {
                // Routes are not asked alike: the first has most.
                let route = random.random_range(0..ROUTES).min(random.random_range(0..ROUTES));
                let is_bad = arm == Arm::Canary && secs >= ONSET;
                let how = if is_bad { fault(instance, route) } else { (USUAL_ERRORS, 1.0) };
                let (bucket, failed) = request(random, &edges, how);
                for counted in [&mut all, &mut *of_instance, &mut routes[route]] {
                    counted.0 += f64::from(u8::from(failed));
                    counted.1[bucket] += 1.0;
                }
            }
        }
        (all, instances, routes)
    };
    let arms = Arm::BOTH.map(&mut of_arm);
    for signal in 0..2 {
        let value = |counted: &Counted| counted.values(&edges)[signal].clone();
        let parts = |arm: usize| {
            let (_, instances, routes) = &arms[arm];
            let part = |kind, name: String, counted: &Counted| Part {
                kind,
                name: name.into(),
                started: None,
                value: value(counted),
            };
            let mut parts = Vec::new();
            if arm == 0 && known != Known::Nothing {
                let named = instances.iter().enumerate();
                parts.extend(named.map(|(n, one)| part(PartKind::Instance, format!("i{n}"), one)));
            }
            let routes = routes.iter().enumerate().filter(|_| known == Known::InstancesAndRoutes);
            let seen = routes.filter(|(_, one)| one.1.iter().sum::<f64>() > 0.0);
            parts.extend(seen.map(|(n, one)| part(PartKind::Route, format!("r{n}"), one)));
            parts
        };
        let mut pair = Pair::new(Ok(value(&arms[0].0)), Ok(value(&arms[1].0)));
        (pair.parts.canary, pair.parts.baseline) = (parts(0), parts(1));
        pairs.push(pair);
    }
    Observation { at: Time(secs * 1000), signals: pairs, canary_gap: None, instances: None }
}

/// Runs to the rollback; the finding that led to it, and the seconds from onset.
pub fn found(
    rules: Arc<RuleSet>,
    seed: u64,
    fault: Fault,
    parts: Known,
) -> Option<(ClauseFinding, i64)> {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut analysis = Analysis::new(rules, Time(0));
    for secs in 1..=ONSET + 120 {
        let step = analysis.step(&observation(random, secs, fault, parts));
        if step.verdict == (Verdict::Rollback { rule: 0 }) {
            let finding = step.findings[0].clauses[0].clone();
            return (secs >= ONSET).then_some((finding, secs - ONSET));
        }
    }
    None
}

const RUNS: usize = 20;

fn blamed(when: &str, fault: Fault, parts: Known) -> Vec<Blame> {
    let runs = (0..RUNS as u64).filter_map(|seed| found(rules(when), seed, fault, parts));
    let blamed: Vec<Blame> = runs.filter_map(|(finding, _)| finding.blame).collect();
    assert!(blamed.len() >= RUNS - 1, "only {} of {RUNS} were found and blamed", blamed.len());
    for blame in &blamed {
        let (bad, of) = blame.bad_of;
        assert!(bad <= of && (0.0..=1.0).contains(&blame.share), "{blame:?}");
    }
    blamed
}

/// A statement about the blame holds for all runs but so many.
#[track_caller]
fn check(blamed: &[Blame], but: usize, holds: impl Fn(&Blame) -> bool) {
    let against: Vec<&Blame> = blamed.iter().filter(|blame| !holds(blame)).collect();
    assert!(against.len() <= but, "{} of {}: {against:?}", against.len(), blamed.len());
}

pub const ERRORS: &str = "errors > 1.5x baseline";
pub const LATENCY: &str = "p95 > 1.2x baseline";

pub const ONE_BAD: Fault = |instance, _| if instance == 3 { (0.3, 3.0) } else { (0.002, 1.0) };
pub const ALL_BAD: Fault = |_, _| (0.06, 2.0);
const ROUTE_BAD: Fault = |_, route| if route == 2 { (0.4, 4.0) } else { (0.002, 1.0) };

#[test]
fn one_bad_instance_of_five_is_named() {
    for when in [ERRORS, LATENCY] {
        let blamed = blamed(when, ONE_BAD, Known::InstancesAndRoutes);
        check(&blamed, 0, |blame| blame.by == BlameBy::Instance && blame.name == "i3");
        check(&blamed, 2, |blame| blame.share > 0.7 && blame.bad_of == (1, INSTANCES));
    }
}

/// Of rules that allow an amount the same is said.
#[test]
fn an_amount_blames_as_a_multiple_does() {
    for when in ["errors > baseline + 1%", "p95 > baseline + 40ms"] {
        let one = blamed(when, ONE_BAD, Known::InstancesAndRoutes);
        check(&one, 0, |blame| blame.by == BlameBy::Instance && blame.name == "i3");
        check(&one, 2, |blame| blame.share > 0.7 && blame.bad_of.0 <= 1);
        let all = blamed(when, ALL_BAD, Known::InstancesAndRoutes);
        check(&all, 2, |blame| blame.share < 0.5 || blame.bad_of.0 > 1);
    }
}

#[test]
fn a_bad_version_is_no_bad_instance() {
    for when in [ERRORS, LATENCY] {
        let blamed = blamed(when, ALL_BAD, Known::InstancesAndRoutes);
        check(&blamed, 0, |blame| blame.by == BlameBy::Instance && blame.share < 0.6);
        // At the moment of firing each instance has a fifth of what was needed, so that not all of
        // them are bad by themselves yet; what is never said is that one of them has it all.
        check(&blamed, 2, |blame| blame.share < 0.5 || blame.bad_of.0 > 1);
    }
}

#[test]
fn a_bad_route_is_named_where_routes_are_known() {
    for when in [ERRORS, LATENCY] {
        let route = blamed(when, ROUTE_BAD, Known::InstancesAndRoutes);
        check(&route, 0, |blame| blame.by == BlameBy::Route && blame.name == "r2");
        check(&route, 2, |blame| blame.share > 0.7 && blame.bad_of == (1, ROUTES));
        let instance = blamed(when, ROUTE_BAD, Known::Instances);
        check(&instance, 0, |blame| blame.by == BlameBy::Instance && blame.share < 0.6);
    }
}

#[test]
fn without_parts_a_quantile_blames_an_edge_and_a_ratio_nothing() {
    let blamed = blamed(LATENCY, ALL_BAD, Known::Nothing);
    check(&blamed, 0, |blame| blame.by == BlameBy::Edge && blame.bad_of.1 >= 2);
    // The usual median is 80 ms and the P95 about 180 ms; twice that crosses these.
    check(&blamed, 2, |blame| ["0.1 s", "0.25 s", "0.5 s"].contains(&blame.name.as_str()));
    let (finding, _) = found(rules(ERRORS), 1, ALL_BAD, Known::Nothing).expect("found");
    assert_eq!(finding.blame, None);
}

/// A fixed story in whole numbers, reckoned by hand.
#[test]
fn shares_are_of_the_excess_over_the_baseline() {
    let mut analysis = Analysis::new(rules(ERRORS), Time(0));
    let share = |events: f64, total: f64| Value::Share { events, total };
    let part = |kind, name: &str, value| Part { kind, name: name.into(), started: None, value };
    let mut last = None;
    for secs in 1..=40 {
        let bad = secs > 20;
        let [a, b, c] = if bad { [16.0, 2.0, 0.0] } else { [0.0, 0.0, 0.0] };
        let mut pair = Pair::new(
            Ok(share(a + b + c + if bad { 2.0 } else { 0.0 }, 400.0)),
            Ok(share(1.0, 100.0)),
        );
        let instance = |name, events| part(PartKind::Instance, name, share(events, 100.0));
        // The fourth instance is beyond the limit of parts: its excess counts, without a name.
        pair.parts.canary = vec![instance("a", a), instance("b", b), instance("c", c)];
        let unseen = Pair::new(Err(missing()), Err(missing()));
        let signals = vec![pair, unseen];
        let look =
            Observation { at: Time(secs * 1000), signals, canary_gap: None, instances: None };
        let blame = analysis.step(&look).findings[0].clauses[0].blame.clone();
        assert!(bad || blame.is_none(), "second {secs}: {blame:?}");
        last = blame;
    }
    // Beyond the baseline's 1 %: 15, 1 and nothing a second, and 1 of the instance without a name.
    let blame = last.expect("a clear regression");
    assert_eq!((blame.by, blame.name.as_str()), (BlameBy::Instance, "a"));
    assert!((blame.share - 15.0 / 17.0).abs() < 1e-9, "{}", blame.share);
    assert_eq!(blame.bad_of, (1, 3));
}

/// All routes fail alike: the one with most of the traffic has most of the excess, and is no culprit.
#[test]
fn a_busy_route_is_not_to_blame_for_its_traffic() {
    let blame = |busy_events: f64, quiet_events: f64| {
        let mut analysis = Analysis::new(rules(ERRORS), Time(0));
        let share = |events: f64, total: f64| Value::Share { events, total };
        let route = |name: &str, value| {
            let kind = PartKind::Route;
            Part { kind, name: name.into(), started: None, value }
        };
        let mut last = None;
        for secs in 1..=40 {
            let [busy, quiet] = if secs > 20 { [busy_events, quiet_events] } else { [0.0; 2] };
            let mut pair = Pair::new(Ok(share(busy + quiet, 100.0)), Ok(share(1.0, 100.0)));
            pair.parts.canary = vec![
                route("GET /busy", share(busy, 70.0)),
                route("GET /quiet", share(quiet, 30.0)),
            ];
            let signals = vec![pair, Pair::new(Err(missing()), Err(missing()))];
            let look =
                Observation { at: Time(secs * 1000), signals, canary_gap: None, instances: None };
            last = analysis.step(&look).findings[0].clauses[0].blame.clone();
        }
        last.map(|blame| blame.name)
    };
    assert_eq!(blame(14.0, 6.0), None, "both at 20 %");
    assert_eq!(blame(20.0, 0.0).as_deref(), Some("GET /busy"));
    assert_eq!(blame(0.0, 20.0).as_deref(), Some("GET /quiet"));
}

fn missing() -> Missing {
    Missing::new(Why::NotObserved, "")
}
