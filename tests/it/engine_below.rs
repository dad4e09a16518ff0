//! What is worse when it is less: shares and rates below the baseline's, through `Analysis::step`.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        analysis::Analysis,
        calibration::{Past, calibrate},
        observation::{Observation, Pair, Reading, Time, Value},
        rule::RuleSet,
        verdict::{ClauseFinding, Progress, State, Step, Verdict},
    },
    rulefile,
};

use super::engine_rules::START;

fn rules(rule: &str) -> Arc<RuleSet> {
    let text = format!(
        "version: 1\nservice: scene\nobserve: {{ interval: 1s, window: 10s, warmup: 0s }}\n\
         signals:\n\
         \x20 hits: {{ ratio: 'cache_hits_total / cache_lookups_total', better: higher }}\n\
         \x20 logins: {{ rate: logins_total, better: higher }}\n\
         rules:\n  - {{ when: {rule}, then: rollback }}\n\
         promote: {{ after: 5m, deadline: 10m }}\n"
    );
    let file = rulefile::load("scene.yaml", &text).unwrap_or_else(|faults| panic!("{faults}"));
    Arc::new(file.rules)
}

fn at(secs: i64) -> Time {
    Time(START.0 + secs * 1000)
}

/// Hits of a hundred lookups, and logins of twenty instances, with these shares of what is usual.
fn readings(random: &mut StdRng, hits: f64, logins: f64) -> [Reading; 2] {
    let mut draw = |of: u32, share: f64| {
        f64::from((0..of).map(|_| u32::from(random.random_bool(share))).sum::<u32>())
    };
    let (events, logged_in) = (draw(100, hits), draw(200, 0.5 * logins));
    [
        Ok(Value::Share { events, total: 100.0 }),
        Ok(Value::Events { events: logged_in, instance_secs: 20.0, instances: 20 }),
    ]
}

/// Looks until a final verdict: the canary's and the baseline's shares at each second.
fn judge(rule: &str, shares: impl Fn(i64) -> [(f64, f64); 2]) -> Vec<Step> {
    let mut analysis = Analysis::new(rules(rule), START);
    let mut random = StdRng::seed_from_u64(11);
    let mut steps: Vec<Step> = Vec::new();
    for secs in 1..=300 {
        let [canary, baseline] = shares(secs);
        let canary = readings(&mut random, canary.0, canary.1);
        let baseline = readings(&mut random, baseline.0, baseline.1);
        let signals = canary.into_iter().zip(baseline).map(|(new, old)| Pair::new(new, old));
        let observation = Observation {
            at: at(secs),
            signals: signals.collect(),
            canary_gap: None,
            instances: None,
        };
        steps.push(analysis.step(&observation));
        if steps.last().is_some_and(|step| step.verdict.is_final()) {
            break;
        }
    }
    steps
}

fn clause(steps: &[Step]) -> &ClauseFinding {
    &steps.last().expect("looks were taken").findings[0].clauses[0]
}

#[test]
fn less_than_the_baseline_is_found_and_alike_is_promoted() {
    let check = |rule: &str, canary: (f64, f64), baseline: (f64, f64), found: bool| {
        let steps = judge(rule, |secs| [if secs > 60 { canary } else { baseline }, baseline]);
        let last = steps.last().expect("looks were taken");
        let expected = if found { Verdict::Rollback { rule: 0 } } else { Verdict::Promote };
        assert_eq!(last.verdict, expected, "{rule}: {canary:?} of {baseline:?}");
        if found {
            let secs = last.elapsed.as_secs();
            assert!((61..180).contains(&secs), "{rule} after {secs} s");
        }
    };
    check("hits < 0.9x baseline", (0.6, 1.0), (0.85, 1.0), true);
    check("hits < 0.9x baseline", (0.85, 1.0), (0.85, 1.0), false);
    check("hits < 0.9x baseline", (0.78, 1.0), (0.85, 1.0), false);
    check("hits < 0.9x baseline", (0.97, 1.0), (0.85, 1.0), false);
    check("hits < 0.9x baseline", (0.8, 1.0), (0.9999, 1.0), true);
    check("logins < 0.7x baseline", (0.9, 0.4), (0.9, 1.0), true);
    check("logins < 0.7x baseline", (0.9, 1.0), (0.9, 1.0), false);
    check("logins < 0.7x baseline", (0.9, 0.8), (0.9, 1.0), false);
}

#[test]
fn a_fault_of_both_is_the_fault_of_neither() {
    for rule in ["hits < 0.9x baseline", "logins < 0.9x baseline"] {
        let steps = judge(rule, |secs| {
            let share = if secs > 100 { 0.3 } else { 0.999 };
            [(share, share), (share, share)]
        });
        assert_eq!(steps.last().expect("one").verdict, Verdict::Promote, "{rule}");
    }
}

#[test]
fn the_finding_says_what_is_compared_and_what_is_lacking() {
    let steps = judge("hits < 0.9x baseline", |_| [(0.85, 1.0), (0.85, 1.0)]);
    let missing = steps[1].findings[0].clauses[0].missing.clone().expect("two looks are few");
    assert!(missing.to_string().contains("100 of 400 requests"), "{missing}");
    let found = clause(&steps);
    assert_eq!(found.state, State::Clear);
    let (baseline, bound) =
        (found.baseline.expect("it compares"), found.bound.expect("it has one"));
    assert!((bound / baseline - 0.9).abs() < 1e-12);
    assert_eq!(found.estimate.map(|share| (share * 10.0).round()), Some(9.0));
}

/// Noise that was measured on hits is larger when said of misses, which are fewer.
#[test]
fn noise_of_hits_is_said_of_misses() {
    let rules = rules("hits < 0.9x baseline");
    let past: Vec<Past> = (0..1800)
        .map(|secs| Past {
            at: at(secs - 1800),
            secs: 1.0,
            readings: vec![Ok(Value::Share {
                events: if secs / 30 % 2 == 0 { 85.0 } else { 95.0 },
                total: 100.0,
            })],
        })
        .collect();
    let calibration = calibrate(&rules, &past, Duration::ZERO);
    let mut analysis = Analysis::calibrated(rules, START, &calibration);
    let share = || Ok(Value::Share { events: 90.0, total: 100.0 });
    let mut look = |secs| {
        let signals = vec![Pair::new(share(), share())];
        let observation = Observation { at: at(secs), signals, canary_gap: None, instances: None };
        let step = analysis.step(&observation);
        match step.findings[0].clauses[0].progress {
            Progress::Evidence { noise, .. } => noise,
            _ => panic!("a comparison is judged by evidence"),
        }
    };
    look(1);
    let (hits, misses) = (calibration.of(0).kappa_secs, look(2).kappa_secs);
    assert!((misses / hits / 81.0 - 1.0).abs() < 0.5, "{misses} of {hits}");
}
