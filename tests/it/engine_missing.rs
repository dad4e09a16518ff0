//! Missing data never promotes, never rolls back, and has a name.

use rollgate::engine::{
    observation::{Missing, Observation, Pair, Why},
    verdict::{State, Verdict},
};

use super::engine_rules::{
    ALWAYS, ERRORS, HOLD, P95, RESTARTS, WATCHING, baseline, canary, check_verdicts, histogram,
    judge, missing, rules, share, slow, unchanged,
};

#[test]
fn an_instance_that_gives_nothing_blocks_promotion() {
    let rules = rules(&["when: errors > 5%, then: rollback"]);
    let gap = |secs: u64, observation: &mut Observation| {
        observation.canary_gap =
            (50..70).contains(&secs).then(|| Missing::new(Why::ScrapeFailed, "one of three"));
    };
    check_verdicts(rules, gap, &[(60, WATCHING), (69, WATCHING), (70, Verdict::Promote)]);
}

/// A canary that hangs moves no counter: what it showed before must not promote it.
#[test]
fn a_silence_too_long_for_its_pace_blocks_promotion() {
    for signal in [ERRORS, P95] {
        let rule = if signal == ERRORS { "errors > 1.5x baseline" } else { "p95 > 1.2x baseline" };
        let rules = rules(&[&format!("when: {rule}, then: rollback")]);
        // A hundred requests a second until second 55; the hold is over at second 60.
        let hangs = canary(signal, 55..75, missing(Why::NoTraffic));
        let expected = [(60, WATCHING), (74, WATCHING), (75, Verdict::Promote)];
        check_verdicts(rules, hangs, &expected);
    }
    // A lull of two seconds at a request a second is none.
    let rare = |secs: u64, observation: &mut Observation| {
        let reading =
            if secs.is_multiple_of(3) { share(0.0, 6.0) } else { missing(Why::NoTraffic) };
        observation.signals[ERRORS] = Pair::new(reading.clone(), reading);
    };
    let rules = rules(&["when: errors > 1.5x baseline, then: rollback"]);
    check_verdicts(rules, rare, &[(59, WATCHING), (61, Verdict::Promote)]);
}

/// What a rule says of missing data names it.
#[test]
fn missing_data_is_named() {
    let reason = |rule: &str, change: &dyn Fn(u64, &mut Observation)| {
        let steps = judge(rules(&[&format!("when: {rule}, then: rollback")]), 120, change);
        let last = steps.last().expect("there were looks");
        assert_eq!(last.verdict, HOLD, "{rule}");
        assert!(steps.iter().all(|step| step.findings[0].state != State::Fires), "{rule}");
        last.findings[0].clauses[0].missing.clone().expect("a reason").why
    };
    let silent = |signal| canary(signal, ALWAYS, missing(Why::NoTraffic));
    assert_eq!(reason("errors > 1.5x baseline", &silent(ERRORS)), Why::NoTraffic);
    assert_eq!(reason("errors > 5% for 5s", &silent(ERRORS)), Why::NoTraffic);
    assert_eq!(reason("p95 > 1.2x baseline", &silent(P95)), Why::NoTraffic);
    assert_eq!(reason("restarts >= 1", &canary(RESTARTS, ALWAYS, missing(Why::Stale))), Why::Stale);
    let lone = baseline(ERRORS, missing(Why::NotObserved));
    assert_eq!(reason("errors > 1.5x baseline", &lone), Why::NotObserved);
    // No edge in common; and no edge as high as the limit.
    let other = histogram(&[0.15, 0.25, 0.35], &[10.0, 20.0, 30.0, 40.0]);
    assert_eq!(reason("p95 > 1.2x baseline", &canary(P95, ALWAYS, other)), Why::BucketLayout);
    assert_eq!(reason("p95 > 5s", &canary(P95, ALWAYS, slow())), Why::BucketLayout);
    let empty = |_: u64, observation: &mut Observation| observation.signals.clear();
    assert_eq!(reason("errors > 5%", &empty), Why::NotObserved);
}

/// Found by reading: once every rule slept, a release that nobody had seen was promoted.
#[test]
fn rules_that_sleep_do_not_promote_what_nobody_saw() {
    let sleeping = || rules(&["when: errors > 5%, until: 30s, then: rollback"]);
    check_verdicts(sleeping(), unchanged, &[(60, Verdict::Promote)]);
    let silent = canary(ERRORS, ALWAYS, missing(Why::ScrapeFailed));
    let steps = judge(sleeping(), 120, silent);
    assert_eq!(steps[59].verdict, WATCHING);
    let gap = steps[59].canary_gap.clone().expect("the reason is said");
    assert_eq!(gap.to_string(), "scrape failed: errors of canary");
    assert_eq!(steps[119].verdict, HOLD);
}
