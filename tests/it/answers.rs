//! Silent instances and the numbers of health answers, from what a look gathers to the verdict: a rule
//! file's own words, the reducer, the engine.

use std::sync::Arc;

use rollgate::{
    engine::{
        analysis::Analysis,
        observation::{Health, Missing, Time, Why},
        verdict::{State, Step, Verdict},
    },
    rulefile,
    signal::{
        carry::Carry,
        reduce::Reducer,
        sample::{Gathered, InstanceReading, Level, Probe, ProbeAnswer},
        spec::Reads,
    },
};

use super::engine_rules::START;

/// One instance at one look: whether its scrape is answered, and its number when it tells one.
type Told = (bool, Option<f64>);

/// Looks each second until the verdict is final or the time is over.
fn judge(when: &str, secs: u64, told: impl Fn(u64) -> (Vec<Told>, Vec<Told>)) -> Vec<Step> {
    let text = format!(
        "version: 1\nservice: scene\nobserve: {{ interval: 1s, window: 10s, warmup: 5s }}\n\
         signals:\n  app: {{ health: /health }}\n  instances_up: {{ up: true }}\n\
         rules:\n  - {{ when: '{when}', then: rollback }}\n\
         promote: {{ after: 10m, deadline: 20m }}\n"
    );
    let file = rulefile::load("scene.yaml", &text).unwrap_or_else(|faults| panic!("{faults}"));
    let numbers: Vec<usize> = file
        .specs
        .iter()
        .enumerate()
        .filter_map(|(at, spec)| matches!(spec.reads, Reads::Answer { .. }).then_some(at))
        .collect();
    let rules = Arc::new(file.rules);
    let mut reducer = Reducer::new(file.specs.into(), rules.observe.warmup, Carry::default());
    let mut analysis = Analysis::new(rules, START);
    let mut steps: Vec<Step> = Vec::new();
    for second in 1..=secs {
        let at = Time(START.0 + i64::try_from(second).expect("small") * 1000);
        let reading = |arm: &str, index: usize, (answers, number): Told| InstanceReading {
            instance: format!("{arm}-{index}").into(),
            at,
            samples: match answers {
                true => Ok(Vec::new()),
                false => Err(Missing::new(Why::ScrapeFailed, "connection refused")),
            },
            refused: None,
            probes: vec![Probe {
                signal: 0,
                answer: Ok(ProbeAnswer {
                    status: Health::Up,
                    latency_secs: number,
                    detail: String::new(),
                }),
            }],
            levels: numbers
                .iter()
                .map(|signal| Level {
                    signal: *signal,
                    value: number.ok_or_else(|| Missing::new(Why::AbsentSeries, "no such name")),
                })
                .collect(),
        };
        let arm = |name: &str, told: Vec<Told>| {
            told.into_iter().enumerate().map(|(index, told)| reading(name, index, told)).collect()
        };
        let (canary, baseline) = told(second);
        let (canary, baseline) = (arm("new", canary), arm("old", baseline));
        let gathered = Gathered { at, canary, baseline, dependencies: Vec::new() };
        let step = analysis.step(&reducer.reduce(&gathered));
        let is_final = step.verdict.is_final();
        steps.push(step);
        if is_final {
            break;
        }
    }
    steps
}

/// When it was rolled back, in seconds.
fn rolled_back(steps: &[Step]) -> Option<f64> {
    let last = steps.last().expect("looks were taken");
    matches!(last.verdict, Verdict::Rollback { .. }).then(|| last.elapsed.as_secs_f64())
}

fn same(told: Told) -> impl Fn(u64) -> (Vec<Told>, Vec<Told>) {
    move |_| (vec![told], vec![told])
}

#[test]
fn an_instance_that_dies_is_a_reason_only_for_a_rule_that_says_so() {
    let dies = |second| (vec![(true, Some(1.0)), (second < 100, Some(1.0))], vec![(true, None)]);
    let when = rolled_back(&judge("instances_up < 100% for 30s", 300, dies));
    assert_eq!(when, Some(130.0));
    assert_eq!(rolled_back(&judge("instances_up < 0.5 for 30s", 300, dies)), None);
    // Without such a rule the silence blocks promotion, and is named.
    let steps = judge("app is down for 3 checks", 700, dies);
    let last = steps.last().expect("looks were taken");
    assert!(matches!(last.verdict, Verdict::Watching), "{:?}", last.verdict);
    let gap = last.canary_gap.as_ref().expect("one is silent");
    assert!(gap.detail.contains("new-1: connection refused"), "{gap}");
    // All of them: a value too, and no missing data.
    let all_die = |second| (vec![(second < 100, None); 2], vec![(true, None)]);
    assert_eq!(rolled_back(&judge("instances_up < 0.5 for 30s", 300, all_die)), Some(130.0));
    let evidence = rolled_back(&judge("instances_up < 100%", 600, all_die));
    assert!(evidence.is_some_and(|secs| secs > 105.0), "{evidence:?}");
    // Alive from the first look on: promoted.
    let steps = judge("instances_up < 100% for 30s", 700, same((true, None)));
    let last = steps.last().expect("looks were taken");
    assert!(matches!(last.verdict, Verdict::Promote), "{:?}", last.verdict);
}

#[test]
fn numbers_of_health_answers_are_judged_as_levels_are() {
    let number = |new: f64, old: f64| move |_| (vec![(true, Some(new))], vec![(true, Some(old))]);
    let check = |when: &str, bad: (f64, f64), good: (f64, f64)| {
        let found = rolled_back(&judge(when, 590, number(bad.0, bad.1)));
        assert!(found.is_some(), "{when} does not fire");
        let steps = judge(when, 590, number(good.0, good.1));
        assert_eq!(rolled_back(&steps), None, "{when}");
        let clause = &steps.last().expect("looks were taken").findings[0].clauses[0];
        assert_eq!(clause.state, State::Clear, "{when}: {:?}", clause.missing);
    };
    check("field(app, active_connections) > 100 for 1m", (120.0, 0.0), (100.0, 0.0));
    check("field(app, active_connections) > 100", (120.0, 0.0), (80.0, 0.0));
    check("field(app, pool.free) < 5", (3.0, 9.0), (8.0, 9.0));
    check("field(app, active_connections) > 1.5x baseline", (40.0, 20.0), (22.0, 20.0));
    check("field(app, a.b[0].c) > baseline + 10 for 30s", (40.0, 20.0), (25.0, 20.0));
    check("latency(app) > 500ms", (0.8, 0.1), (0.1, 0.1));
    check("latency(app) > 500ms for 1m", (0.8, 0.1), (0.1, 0.1));
    check("latency(app) > 2x baseline for 1m", (0.8, 0.1), (0.15, 0.1));
    check("field(app, queue_ms) > 500ms for 1m", (800.0, 1.0), (400.0, 1.0));
}

#[test]
fn of_several_instances_the_worst_counts_in_the_rules_own_direction() {
    let one_of_three = |odd: f64| {
        move |_| (vec![(true, Some(50.0)), (true, Some(odd)), (true, Some(50.0))], vec![])
    };
    let check = |when: &str, odd: f64, fires: bool| {
        let found = rolled_back(&judge(when, 60, one_of_three(odd)));
        assert_eq!(found.is_some(), fires, "{when} with {odd}");
    };
    check("field(app, n) > 90 for 10s", 95.0, true);
    check("field(app, n) > 90 for 10s", 5.0, false);
    check("field(app, n) < 10 for 10s", 5.0, true);
    check("field(app, n) < 10 for 10s", 95.0, false);
    let both = "field(app, n) > 90 for 10s or field(app, n) < 10 for 10s";
    check(both, 95.0, true);
    check(both, 5.0, true);
    check(both, 50.0, false);
    check("field(app, n) > 90 on most instances for 10s", 95.0, false);
}

#[test]
fn connections_that_leak_have_a_slope() {
    let leaks = |per_sec: f64| {
        move |second: u64| {
            let wave = (second % 7) as f64;
            (vec![(true, Some(40.0 + wave + per_sec * second as f64))], vec![(true, Some(41.0))])
        }
    };
    let when = "slope(field(app, active_connections)) > 10/min";
    let found = rolled_back(&judge(when, 590, leaks(1.0)));
    assert!(found.is_some_and(|secs| (60.0..400.0).contains(&secs)), "{found:?}");
    assert_eq!(rolled_back(&judge(when, 590, leaks(0.0))), None);
}

#[test]
fn a_number_that_is_not_there_neither_rolls_back_nor_promotes() {
    for when in [
        "field(app, n) > 10 for 10s",
        "field(app, n) < 10",
        "slope(field(app, n)) > 10/min",
        "field(app, n) > 1.5x baseline",
    ] {
        let steps = judge(when, 700, same((true, None)));
        let last = steps.last().expect("looks were taken");
        assert!(matches!(last.verdict, Verdict::Watching), "{when}: {:?}", last.verdict);
        let clause = &last.findings[0].clauses[0];
        let missing = clause.missing.as_ref().expect("it is missing");
        assert_eq!((clause.state, missing.why), (State::NotEnoughData, Why::AbsentSeries));
        assert!(missing.detail.contains("no such name"), "{when}: {missing}");
    }
}
