//! Which instances are up, and the numbers that health answers tell.

use std::time::Duration;

use rollgate::signal::{carry::Carry, reduce::Reducer, sample::Gathered};

use super::{check, check_warm, gathered, line, specs};

#[test]
fn a_silent_instance_is_down_and_not_missing() {
    check(
        "up",
        &[
            (0.0, "i: x 1 | k: x 1 | m: x 1 | n: x 1", "level 1"),
            (1.0, "i: x 1 | k: x 1 | m: ! | n: x 1", "level 0.75"),
            (2.0, "i: ! | k: ! | m: ! | n: !", "level 0"),
            // An answer without any wanted series is an answer.
            (3.0, "i: | k: ! | m: ! | n: !", "level 0.25"),
            (4.0, "i: x 1 | k: x 1 | m: x 1 | n: x 1", "level 1"),
        ],
    );
    // An instance that is gone from the release was scaled down: it is not asked for.
    check("up", &[(0.0, "i: x 1 | k: x 1", "level 1"), (1.0, "i: x 1", "level 1")]);
}

#[test]
fn what_nobody_asked_is_not_down() {
    check(
        "up",
        &[
            (0.0, "", "not observed: the analysis has no such arm"),
            (1.0, "i: x 1 | k: x 1", "level 1"),
            (2.0, "i: - | k: -", "stale: i: not asked any more"),
            (3.0, "i: x 1 | k: -", "level 1"),
            (4.0, "i: ! | k: -", "level 0"),
            (5.0, "promql: x 1", "level 1"),
        ],
    );
}

/// What a metrics server says of its own scrapes counts, whatever is left of the samples.
#[test]
fn a_metrics_server_says_itself_which_are_up() {
    check(
        "up",
        &[
            (0.0, "i: x 1; =1 | k: x 1; =1", "level 1"),
            (1.0, "i: x 1; =1 | k: !; =0", "level 0.5"),
            (2.0, "i: =1 | k: -; =absent", "level 1"),
            (3.0, "i: x 1; =absent", "absent series: i: =absent"),
        ],
    );
}

#[test]
fn an_instance_has_the_warm_up_to_answer_its_first_scrape() {
    check_warm(
        "up",
        30,
        &[
            (0.0, "i: !", "warm-up: i: has not answered a scrape yet"),
            // Others speak for the arm meanwhile.
            (29.0, "i: ! | k: x 1", "level 1"),
            (30.0, "i: ! | k: x 1", "level 0.5"),
            (31.0, "i: x 1 | k: x 1", "level 1"),
            // Once it has answered, silence is an outage, warm-up or not.
            (32.0, "i: x 1 | k: !", "level 0.5"),
            (33.0, "i: x 1 | k: x 1 | m: !", "level 1"),
            (63.0, "i: x 1 | k: x 1 | m: ! | n: !", "level 0.6666666666666666"),
        ],
    );
}

#[test]
fn up_is_told_from_both_arms_and_leaves_the_gap() {
    let mut reducer = Reducer::new(specs("up"), Duration::ZERO, Carry::default());
    let both = |canary, baseline| Gathered {
        baseline: gathered(1.0, baseline).canary,
        ..gathered(1.0, canary)
    };
    let seen = reducer.reduce(&both("i: x 1 | k: !", "a: x 1"));
    assert_eq!(line(&seen.signals[0].canary), "level 0.5");
    assert_eq!(line(&seen.signals[0].baseline), "level 1");
    let gap = seen.canary_gap.map(|gap| gap.detail);
    assert_eq!(gap.as_deref(), Some("1 of 2 canary instances: k: refused"));
}

#[test]
fn numbers_of_health_answers_are_levels_of_their_instances() {
    check(
        "field",
        &[
            (0.0, "i: x 1; =5 | k: x 1; =7", "level 7"),
            // A service may have no metrics at all.
            (1.0, "i: !; =5 | k: !; =absent", "level 5"),
            (2.0, "i: =absent | k: x 1; =absent", "absent series: i: =absent"),
            (3.0, "i: x 1", "not observed: i: no health answer"),
            (4.0, "", "not observed: the analysis has no such arm"),
            (5.0, "i: x 1; =NaN", "bad value"),
        ],
    );
    check("least", &[(0.0, "i: x 1; =5 | k: x 1; =7", "level 5")]);
    check_warm(
        "field",
        30,
        &[
            (0.0, "i: x 1; =5", "warm-up: i: younger than the warm-up"),
            (29.0, "i: !; =5", "warm-up"),
            (30.0, "i: !; =5", "level 5"),
            (31.0, "i: x 1; =5", "level 5"),
            (32.0, "i: process_start_time_seconds 1000030; =5", "warm-up"),
            (40.0, "i: !; =5", "warm-up"),
            (60.0, "i: !; =5", "level 5"),
        ],
    );
}

#[test]
fn numbers_of_a_dependency_are_told_once_and_by_no_instance() {
    check(
        "far",
        &[
            (0.0, "i: x 1 | promql: =5", "level 5"),
            (1.0, "i: x 1 | promql: =absent", "absent series: =absent"),
            (2.0, "i: x 1", "not observed: http://other/health"),
            (3.0, "promql: =NaN", "bad value"),
        ],
    );
    let mut reducer = Reducer::new(specs("far"), Duration::ZERO, Carry::default());
    let seen = reducer.reduce(&gathered(0.0, "promql: =5"));
    assert!(
        line(&seen.signals[0].baseline).starts_with("not observed: http://other/health is asked")
    );
    assert_eq!((seen.canary_gap, reducer.carry().instances.len()), (None, 0));
}
