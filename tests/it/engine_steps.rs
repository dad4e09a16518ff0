//! When a release goes on: margins that must be shown, steps in their order, and what keeps a release
//! back although it was shown good. Scenes on one error share and one latency, a look a second.

use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    engine::{
        analysis::Analysis,
        observation::{Missing, Observation, Pair, Reading, Time, Why},
        rule::RuleSet,
        verdict::{DOUBT_DECADES, EffectKind, Progress, Step, Verdict},
    },
    report::build,
    rulefile,
    service::case::override_hold,
};

use super::engine_rules::{START, any_reading, events, histogram, missing, share};

const STEPS: &str = "{ deadline: 3m }\n\
    steps: [{ weight: 10%, hold: 20s }, { weight: 50%, hold: 30s }, { weight: 100%, hold: 10s }]";

fn rules(promote: &str) -> Arc<RuleSet> {
    let text = format!(
        "version: 1\nservice: scene\nobserve: {{ interval: 1s, window: 10s, warmup: 0s }}\n\
         signals:\n\
         \x20 errors: {{ ratio: 'failed_total / asked_total', floor: 0.1% }}\n\
         \x20 p95: {{ quantile: 0.95, of: latency_seconds }}\n\
         \x20 logs: {{ count: log_total }}\n\
         rules:\n\
         \x20 - {{ when: errors > 1.5x baseline, then: rollback }}\n\
         \x20 - {{ when: p95 > 1.5x baseline, then: rollback }}\n\
         \x20 - {{ when: errors > 50% for 5s, then: rollback }}\n\
         \x20 - {{ when: logs >= 5, then: investigate }}\n\
         promote: {promote}\n"
    );
    let file = rulefile::load("scene.yaml", &text).unwrap_or_else(|faults| panic!("{faults}"));
    Arc::new(file.rules)
}

/// A look at two arms that are alike; each has so many requests and errors, and latencies in
/// buckets.
fn look(secs: u64, canary: (f64, f64), baseline: (f64, f64)) -> Observation {
    let at = Time(START.0 + i64::try_from(secs).expect("small") * 1000);
    let latencies = |total: f64| {
        let shares = [0.5, 0.3, 0.1, 0.06, 0.03, 0.01];
        let counts: Vec<f64> = shares.iter().map(|share| share * total).collect();
        match total > 0.0 {
            true => histogram(&[0.05, 0.1, 0.2, 0.4, 0.8], &counts),
            false => missing(Why::NoTraffic),
        }
    };
    let failing = |(failed, total): (f64, f64)| match total > 0.0 {
        true => share(failed, total),
        false => missing(Why::NoTraffic),
    };
    let signals = vec![
        Pair::new(failing(canary), failing(baseline)),
        Pair::new(latencies(canary.1), latencies(baseline.1)),
        Pair::new(events(0.0), events(0.0)),
    ];
    Observation { at, signals, canary_gap: None, instances: None }
}

/// Looks until the end, at most `last`.
fn judge(rules: &Arc<RuleSet>, last: u64, looks: impl Fn(u64) -> Observation) -> Vec<(u64, Step)> {
    let mut analysis = Analysis::new(rules.clone(), START);
    let mut steps = Vec::new();
    for secs in 1..=last {
        let step = analysis.step(&looks(secs));
        let is_final = step.verdict.is_final();
        steps.push((secs, step));
        if is_final {
            break;
        }
    }
    steps
}

fn told(steps: &[(u64, Step)]) -> Vec<(u64, Verdict)> {
    let decisions = steps
        .iter()
        .filter(|(_, step)| step.verdict.is_final() || step.verdict.advance_to().is_some());
    decisions.map(|(secs, step)| (*secs, step.verdict)).collect()
}

fn reason(rules: &Arc<RuleSet>, (_, step): &(u64, Step)) -> String {
    build::report(rules, step).reason
}

/// One error in a hundred requests, on both arms.
fn alike(secs: u64) -> Observation {
    look(secs, (0.5, 50.0), (1.5, 150.0))
}

#[test]
fn a_margin_holds_promotion_back_until_it_is_shown() {
    let rules = rules("{ after: 10s, deadline: 10m, margin: { errors: 1.5x, p95: 2x } }");
    let steps = judge(&rules, 600, alike);
    let (secs, last) = steps.last().expect("looks");
    assert_eq!(last.verdict, Verdict::Promote);
    assert!((60..300).contains(secs), "{secs}");
    let proof = last.estimates[0].proof.expect("asked for");
    assert!(proof.shown && proof.decades >= proof.needed && proof.remaining.is_none());
    assert!(
        (proof.needed - 1.301_029_995_663_981).abs() < 1e-12,
        "no rate is split between signals"
    );
    assert!(
        reason(&rules, steps.last().expect("looks")).contains("errors within 1.5x of the baseline")
    );
    // Half way the time that is left is told, and it is about what it then takes.
    let (at, half) = &steps[*secs as usize / 2];
    let left = half.estimates[0].proof.expect("asked for").remaining.expect("it can be told");
    let took = (secs - at) as f64;
    assert!((0.5..2.0).contains(&(left.as_secs_f64() / took)), "{left:?} told, {took} s taken");
    let words = reason(&rules, &steps[*secs as usize / 2]);
    assert!(words.contains("more at 50 requests/s to show errors within 1.5x"), "{words}");
    // The effect is told with every comparison.
    let effect = last.findings[0].clauses[0].effect.expect("a comparison");
    assert_eq!((effect.kind, effect.confidence), (EffectKind::RateRatio, 0.95));
    assert!(effect.low < 1.0 && 1.0 < effect.high && effect.high < 1.6, "{effect:?}");
    let effect = last.findings[1].clauses[0].effect.expect("a comparison");
    assert_eq!(effect.kind, EffectKind::QuantileRatio);
    assert!(effect.low < 1.0 && 1.0 < effect.high && effect.high < 1.5, "{effect:?}");
}

#[test]
fn without_a_margin_nothing_is_asked_and_that_is_said() {
    let rules = rules("{ after: 10s }");
    let steps = judge(&rules, 60, alike);
    assert_eq!(told(&steps), [(10, Verdict::Promote)]);
    let words = reason(&rules, &steps[9]);
    assert!(words.contains("No margin was asked for"), "{words}");
}

#[test]
fn what_is_not_shown_by_the_deadline_is_inconclusive_and_says_how_much_is_missing() {
    let rules = rules("{ after: 10s, deadline: 30s, margin: 1.2x, otherwise: rollback }");
    let steps = judge(&rules, 60, alike);
    let (secs, last) = steps.last().expect("looks");
    assert_eq!(*secs, 30);
    assert!(matches!(last.verdict, Verdict::Inconclusive { .. }), "{:?}", last.verdict);
    let words = reason(&rules, steps.last().expect("looks"));
    assert!(words.contains("to show errors within 1.2x of the baseline"), "{words}");
}

#[test]
fn zero_errors_on_both_sides_are_shown_by_the_constant() {
    let spotless = |secs| look(secs, (0.0, 50.0), (0.0, 150.0));
    let by_ratio = rules("{ after: 10s, deadline: 2m, margin: { errors: 2x } }");
    let steps = judge(&by_ratio, 120, spotless);
    assert!(matches!(steps.last().expect("looks").1.verdict, Verdict::Inconclusive { .. }));
    let words = reason(&by_ratio, steps.last().expect("looks"));
    assert!(words.contains("it cannot be shown that errors is within 2x"), "{words}");
    let either = rules("{ after: 10s, deadline: 2m, margin: { errors: 2x or 1% } }");
    let steps = judge(&either, 120, spotless);
    let (secs, last) = steps.last().expect("looks");
    assert_eq!(last.verdict, Verdict::Promote);
    assert!((10..20).contains(secs), "{secs}");
}

/// What was shown stays shown, but what has come to stand against it is waited for.
#[test]
fn a_regression_after_the_proof_is_not_promoted() {
    let rising = |secs| match secs {
        ..=90 => alike(secs),
        _ => look(secs, (2.0, 50.0), (1.5, 150.0)),
    };
    let within = |hold: u64| {
        rules(&format!("{{ after: {hold}s, deadline: 20m, margin: {{ errors: 3x }} }}"))
    };
    // When the hold ends just as doubt begins, the release is kept back.
    let steps = judge(&within(600), 600, rising);
    let doubted = |(_, step): &&(u64, Step)| match step.findings[0].clauses[0].progress {
        Progress::Evidence { decades, .. } => decades >= DOUBT_DECADES,
        ref other => panic!("{other:?}"),
    };
    let (doubt, step) = steps.iter().find(doubted).expect("errors rise");
    assert!(*doubt > 90 && step.estimates[0].proof.expect("asked for").shown);
    assert_eq!(step.verdict, Verdict::Watching);
    let rules = within(*doubt);
    let steps = judge(&rules, 600, rising);
    assert!(steps.len() > *doubt as usize, "promoted at {doubt} while errors rise");
    let words = reason(&rules, &steps[*doubt as usize - 1]);
    assert!(words.contains("has come to stand against it"), "{words}");
    assert_eq!(steps.last().expect("looks").1.verdict, Verdict::Rollback { rule: 0 });
}

#[test]
fn steps_follow_each_other_once_and_end_in_a_promotion() {
    let rules = rules(STEPS);
    assert_eq!(rules.promote.after.as_secs(), 60);
    // The canary gets more of the traffic at each step; at last the old version gets none.
    let steps = judge(&rules, 180, |secs| match secs {
        ..=20 => look(secs, (0.2, 20.0), (1.8, 180.0)),
        21..=50 => look(secs, (1.0, 100.0), (1.0, 100.0)),
        _ => look(secs, (2.0, 200.0), (0.0, 0.0)),
    });
    let expected = [
        (20, Verdict::Advance { to: 1 }),
        (50, Verdict::Advance { to: 2 }),
        (60, Verdict::Promote),
    ];
    assert_eq!(told(&steps), expected);
    let at = |secs: usize| steps[secs - 1].1.release_step;
    assert_eq!([at(19), at(20), at(49), at(50), at(60)], [0, 1, 1, 2, 2]);
    let words = reason(&rules, &steps[19]);
    let expected =
        "Nothing fires and the hold of step 1 of 3 (10 % of the traffic) is over. Go on to 50 %.";
    assert_eq!(words, expected);
    assert!(reason(&rules, &steps[24]).contains("25 s of the hold of step 2 of 3 left"));
}

#[test]
fn a_first_step_without_the_old_version_is_not_judged() {
    let rules = rules("{ deadline: 1m }\nsteps: [{ weight: 100%, hold: 20s }]");
    let steps = judge(&rules, 60, |secs| look(secs, (2.0, 200.0), (0.0, 0.0)));
    assert_eq!(told(&steps).len(), 1);
    assert!(matches!(steps.last().expect("looks").1.verdict, Verdict::Inconclusive { .. }));
}

#[test]
fn rules_on_the_canary_alone_go_on_when_it_has_all_the_traffic() {
    let rules = rules(&STEPS.replace("10s }]", "30s }]"));
    let steps = judge(&rules, 180, |secs| match secs {
        ..=50 => alike(secs),
        51..=52 => look(secs, (2.0, 200.0), (0.0, 0.0)),
        _ => look(secs, (180.0, 200.0), (0.0, 0.0)),
    });
    assert_eq!(steps.last().expect("looks").1.verdict, Verdict::Rollback { rule: 2 });
}

/// A regression is found at whatever step it begins, and evidence is carried over a step.
#[test]
fn evidence_is_carried_over_a_step() {
    let rules = rules(STEPS);
    let steps = judge(&rules, 180, |secs| match secs {
        ..=15 => look(secs, (0.2, 20.0), (1.8, 180.0)),
        16..=20 => look(secs, (1.0, 20.0), (1.8, 180.0)),
        _ => look(secs, (8.0, 100.0), (1.0, 100.0)),
    });
    let decades = |secs: usize| match steps[secs - 1].1.findings[0].clauses[0].progress {
        Progress::Evidence { decades, .. } => decades,
        ref other => panic!("{other:?}"),
    };
    assert!(decades(21) > decades(20) && decades(20) > decades(15), "evidence began anew");
    let (secs, last) = steps.last().expect("looks");
    assert_eq!(last.verdict, Verdict::Rollback { rule: 0 });
    assert!((21..45).contains(secs), "{secs}");
}

#[test]
fn an_orders_own_hold_is_shared_out_over_the_steps() {
    let mut file = (*rules(STEPS)).clone();
    override_hold(&mut file, 6.0);
    let holds: Vec<f64> = file.steps.iter().map(|step| step.hold.as_secs_f64()).collect();
    assert_eq!(holds, [2.0, 3.0, 1.0]);
    assert_eq!((file.promote.after.as_secs(), file.promote.deadline.as_secs()), (6, 180));
    override_hold(&mut file, 600.0);
    assert_eq!((file.promote.after.as_secs(), file.promote.deadline.as_secs()), (600, 1200));
}

/// Whatever is observed: no promotion and no advance before a hold is over, with a silent canary or
/// before every margin is shown; steps in their order, each once.
#[test]
fn nothing_goes_on_before_its_time() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let (mut promoted, mut advanced) = (0, 0);
    for run in 0..300 {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(run));
        let margin = ["", ", margin: { errors: 3x or 2% }"][random.random_range(0..2)];
        let stepped = random.random_bool(0.5);
        let rules = rules(&match stepped {
            true => format!(
                "{{ deadline: 3m{margin} }}\nsteps: [{{ weight: 10%, hold: 20s }}, \
                 {{ weight: 60%, hold: 15s }}, {{ weight: 100%, hold: 12s }}]"
            ),
            false => format!("{{ after: 20s, deadline: 3m{margin} }}"),
        });
        let holds = [20, 15, 12];
        let bad = random.random_range(0.0..0.2);
        let mut analysis = Analysis::new(rules.clone(), START);
        let (mut step_began, mut current) = (0, 0);
        for secs in 1..=200 {
            let mut observation = alike(secs);
            for pair in &mut observation.signals {
                if random.random_bool(bad) {
                    pair.canary = hole(&mut random);
                }
                if random.random_bool(bad) {
                    pair.baseline = hole(&mut random);
                }
            }
            let gap = random.random_bool(bad);
            observation.canary_gap = gap.then(|| Missing::new(Why::ScrapeFailed, "one"));
            let step = analysis.step(&observation);
            let goes_on = step.verdict == Verdict::Promote || step.verdict.advance_to().is_some();
            if goes_on {
                assert!(!gap, "seed {seed} run {run}: a silent canary at {secs}");
                assert!(
                    secs - step_began >= holds[current],
                    "seed {seed} run {run}: early at {secs}"
                );
                let mut proofs = step.estimates.iter().filter_map(|it| it.proof);
                assert!(proofs.all(|proof| proof.shown), "seed {seed} run {run}: not shown");
                if margin.is_empty() {
                    assert!(step.estimates.iter().all(|it| it.proof.is_none()));
                }
            }
            if let Verdict::Advance { to } = step.verdict {
                assert!(stepped && to == current + 1, "seed {seed} run {run}: to {to}");
                (step_began, current) = (secs, to);
                advanced += 1;
            }
            assert_eq!(step.release_step, current, "seed {seed} run {run}");
            if step.verdict == Verdict::Promote {
                assert_eq!(current, if stepped { 2 } else { 0 }, "seed {seed} run {run}");
                promoted += 1;
            }
            if step.verdict.is_final() {
                break;
            }
        }
    }
    assert!(promoted > 20 && advanced > 20, "{promoted} promoted, {advanced} advanced");
}

fn hole(random: &mut StdRng) -> Reading {
    match random.random_bool(0.9) {
        true => missing(Why::ALL[random.random_range(0..Why::ALL.len())]),
        false => any_reading(random),
    }
}
