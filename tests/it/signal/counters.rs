//! Counters: resets, restarts, vanished series, bad values, warm-up, clocks and instances.

use std::time::Duration;

use rollgate::{
    engine::observation::Observation,
    signal::{
        carry::Carry,
        increments::REMEMBERED_SERIES_MIN,
        reduce::{INSTANCES_REMEMBERED_MAX, Reducer},
    },
};

use super::{COUNT, RATIO, check, check_warm, gathered, line, specs};

#[test]
fn counters_are_differenced() {
    check(
        COUNT,
        &[
            (0.0, "i: err_total 100", "first look: i"),
            (2.0, "i: err_total 103", "3 in 2s over 1"),
            (4.0, "i: err_total 103", "0 in 2s over 1"),
            // A look that failed is made good by the next one, over its own time.
            (6.0, "i: !", "scrape failed: i: refused"),
            (8.0, "i: err_total 110", "7 in 4s over 1"),
        ],
    );
    check(
        RATIO,
        &[
            (0.0, r#"i: req{status="200"} 50; req{status="500"} 5"#, "first look"),
            (1.0, r#"i: req{status="200"} 57; req{status="500"} 8"#, "3 of 10"),
            (2.0, r#"i: req{status="200"} 57; req{status="500"} 8"#, "no traffic"),
        ],
    );
}

#[test]
fn resets_and_restarts_count_from_zero() {
    // A value below the last one.
    check(
        COUNT,
        &[
            (0.0, "i: err_total 100", "first look"),
            (1.0, "i: err_total 4", "4 in 1s over 1"),
            (2.0, "i: err_total 6", "2 in 1s over 1"),
        ],
    );
    // The start moved: also a counter that has passed its old value again began at zero.
    check(
        COUNT,
        &[
            (0.0, "i: process_start_time_seconds 900000; err_total 3", "first look"),
            (1.0, "i: process_start_time_seconds 999999; err_total 5", "5 in 1s over 1"),
            (2.0, "i: process_start_time_seconds 999999; err_total 6", "1 in 1s over 1"),
            // Less than a second is clock arithmetic.
            (3.0, "i: process_start_time_seconds 999999.4; err_total 8", "2 in 1s over 1"),
        ],
    );
    // A start that cannot be is no start.
    check(
        COUNT,
        &[
            (0.0, "i: process_start_time_seconds NaN; err_total 3", "first look"),
            (1.0, "i: process_start_time_seconds NaN; err_total 5", "2 in 1s over 1"),
            (2.0, "i: process_start_time_seconds 900000; err_total 6", "1 in 1s over 1"),
            (3.0, "i: process_start_time_seconds NaN; err_total 8", "2 in 1s over 1"),
            (4.0, "i: process_start_time_seconds 1000003; err_total 9", "9 in 1s over 1"),
        ],
    );
    // A restart that is first seen in an old sample is still seen in the next new one.
    check(
        COUNT,
        &[
            (0.0, "i: process_start_time_seconds 900000; err_total 3", "first look"),
            (1.0, "i: @0; process_start_time_seconds 1000001; err_total 3", "no traffic"),
            (2.0, "i: process_start_time_seconds 1000001; err_total 4", "4 in 2s over 1"),
        ],
    );
}

#[test]
fn a_load_balancer_at_the_address_counts_nothing_twice() {
    let a = "i: process_start_time_seconds 900000; err_total";
    let b = "i: process_start_time_seconds 950000; err_total";
    check(
        COUNT,
        &[
            (0.0, &format!("{a} 100"), "first look"),
            (1.0, &format!("{b} 500"), "first look: i: another process answered at the last look"),
            (2.0, &format!("{b} 501"), "1 in 1s over 1"),
            (3.0, &format!("{a} 104"), "first look: i: another process"),
            (4.0, &format!("{a} 105"), "1 in 1s over 1"),
        ],
    );
}

#[test]
fn new_vanished_and_returning_series() {
    check(
        COUNT,
        &[
            (0.0, r#"i: err_total{r="a"} 100"#, "first look"),
            (1.0, r#"i: err_total{r="a"} 100; err_total{r="b"} 7"#, "7 in 1s over 1"),
            (2.0, r#"i: err_total{r="b"} 8"#, "1 in 1s over 1"),
            (3.0, r#"i: err_total{r="a"} 102; err_total{r="b"} 8"#, "2 in 1s over 1"),
        ],
    );
    // A body that is empty once does not make everything new.
    check(
        COUNT,
        &[
            (0.0, r#"i: err_total{r="a"} 100; err_total{r="b"} 100; x 1; y 1; z 1"#, "first look"),
            (1.0, "i: ", "absent series: i: no err_total"),
            (
                2.0,
                r#"i: err_total{r="a"} 101; err_total{r="b"} 100; x 1; y 1; z 1"#,
                "1 in 1s over 1",
            ),
        ],
    );
    // A whole instance that was away.
    check(
        COUNT,
        &[
            (0.0, "i: err_total 100 | k: err_total 50", "first look"),
            (1.0, "k: err_total 51", "1 in 1s over 1"),
            (2.0, "i: err_total 105 | k: err_total 51", "5 in 3s over 2"),
            // After an hour it is another one.
            (3700.0, "k: err_total 51", "0 in 3698s over 1"),
            (3701.0, "i: err_total 200 | k: err_total 51", "0 in 1s over 1"),
        ],
    );
}

#[test]
fn bad_values_cost_only_themselves() {
    for bad in ["NaN", "+Inf", "-Inf", "-4"] {
        check(
            COUNT,
            &[
                (0.0, r#"i: err_total{r="a"} 10; err_total{r="b"} 10"#, "first look"),
                (
                    1.0,
                    &format!(r#"i: err_total{{r="a"}} {bad}; err_total{{r="b"}} 12"#),
                    "2 in 1s over 1",
                ),
                // What came in between is counted from the last good value.
                (2.0, r#"i: err_total{r="a"} 13; err_total{r="b"} 12"#, "3 in 1s over 1"),
                (3.0, &format!(r#"i: err_total{{r="a"}} {bad}"#), "bad value: i: err_total is"),
            ],
        );
        // Bad at the first reading: the good value is a mark, not a thousand events.
        check(
            COUNT,
            &[
                (0.0, &format!("i: err_total {bad}"), "first look"),
                (1.0, "i: err_total 1000", "first look: i: err_total had no good value before"),
                (2.0, "i: err_total 1002", "2 in 1s over 1"),
            ],
        );
    }
    // The largest value that is believed, and one beyond it.
    check(
        COUNT,
        &[
            (0.0, "i: err_total 0", "first look"),
            (1.0, "i: err_total 1e30", "1000000000000000000000000000000 in 1s over 1"),
            (2.0, "i: err_total 1.1e30", "bad value: i: err_total is"),
        ],
    );
    check(
        "restarts r_total",
        &[
            (0.0, r#"i: r_total{r="a"} 0; r_total{r="b"} 0"#, "0 restarts"),
            (1.0, r#"i: r_total{r="a"} 1e30; r_total{r="b"} 1e30"#, "4294967295 restarts"),
        ],
    );
}

#[test]
fn a_series_given_twice_counts_once_as_first_given() {
    check(
        COUNT,
        &[
            (0.0, "i: err_total 10; err_total 99", "first look"),
            (1.0, "i: err_total 12; err_total 99", "2 in 1s over 1"),
            (2.0, "i: err_total 13", "1 in 1s over 1"),
        ],
    );
    check("sum g", &[(0.0, "i: g 2; g 3", "level 2")]);
}

#[test]
fn young_instances_set_marks_only() {
    let young = "i: process_start_time_seconds 999990; err_total";
    check_warm(
        COUNT,
        30,
        &[
            (0.0, &format!("{young} 100"), "warm-up: i"),
            (10.0, &format!("{young} 150"), "warm-up: i"),
            // Old enough now, but what is counted began when it was not.
            (20.0, &format!("{young} 151"), "warm-up: i"),
            (25.0, &format!("{young} 153"), "2 in 5s over 1"),
            // A new process is young again, and an old one beside it is judged.
            (30.0, "i: process_start_time_seconds 1000029; err_total 9", "warm-up"),
            (
                40.0,
                "i: process_start_time_seconds 1000029; err_total 9 | k: err_total 5",
                "warm-up",
            ),
            (59.0, "i: process_start_time_seconds 1000029; err_total 11", "warm-up"),
            (60.0, "i: process_start_time_seconds 1000029; err_total 14", "3 in 1s over 1"),
        ],
    );
    // Without a start, or with one in the future, age is counted from the first look.
    for start in ["", "process_start_time_seconds 2000000;", "process_start_time_seconds NaN;"] {
        check_warm(
            COUNT,
            30,
            &[
                (0.0, &format!("i: {start} err_total 1"), "warm-up"),
                (29.0, &format!("i: {start} err_total 2"), "warm-up"),
                (30.0, &format!("i: {start} err_total 4"), "warm-up"),
                (31.0, &format!("i: {start} err_total 6"), "2 in 1s over 1"),
            ],
        );
    }
    check_warm("max g", 30, &[(0.0, "i: g 1", "warm-up"), (30.0, "i: g 2", "level 2")]);
}

#[test]
fn the_same_sample_read_twice_is_no_new_one() {
    check(
        COUNT,
        &[
            (0.0, "i: @0; err_total 10", "first look"),
            (5.0, "i: @4; err_total 12", "2 in 4s over 1"),
            (6.0, "i: @4; err_total 12", "no traffic: i: no new sample since the last look"),
            // An older one of a slow replica is not a reset.
            (7.0, "i: @3; err_total 11", "no traffic"),
            (8.0, "i: @7; err_total 15", "3 in 3s over 1"),
        ],
    );
    check(
        "restarts process_start_time_seconds",
        &[
            (0.0, "i: process_start_time_seconds 900000", "0 restarts"),
            (1.0, "i: @0; process_start_time_seconds 900009", "0 restarts"),
            (2.0, "i: process_start_time_seconds 900009", "1 restarts"),
        ],
    );
}

#[test]
fn a_clock_that_goes_back_costs_one_look() {
    check(
        COUNT,
        &[
            (1000.0, "i: err_total 10", "first look"),
            (1001.0, "i: err_total 11", "1 in 1s over 1"),
            // A step of seconds is waited out.
            (999.0, "i: err_total 12", "no traffic"),
            (1002.0, "i: err_total 13", "2 in 1s over 1"),
            (10.0, "i: err_total 20", "first look"),
            (11.0, "i: err_total 22", "2 in 1s over 1"),
        ],
    );
}

#[test]
fn instances_are_summed_and_the_failing_one_is_named() {
    let mut reducer = Reducer::new(specs(COUNT), Duration::ZERO, Carry::default());
    let mut look = |secs, text| reducer.reduce(&gathered(secs, text));
    let gap = |seen: &Observation| seen.canary_gap.as_ref().map(ToString::to_string);
    let all = look(0.0, "a: err_total 1 | b: err_total 2 | c: err_total 3");
    assert_eq!((line(&all.signals[0].canary).as_str(), gap(&all)), ("first look: a", None));
    let two = look(2.0, "a: err_total 2 | b: ! | c: err_total 5");
    let words = "scrape failed: 1 of 3 canary instances: b: refused".to_owned();
    assert_eq!((line(&two.signals[0].canary).as_str(), gap(&two)), ("3 in 4s over 2", Some(words)));
    let late = look(4.0, "a: err_total 2 | b: err_total 9 | c: err_total 5");
    assert_eq!((line(&late.signals[0].canary).as_str(), gap(&late)), ("7 in 8s over 3", None));
    let baseline = "not observed: the analysis has no such arm";
    assert_eq!(line(&late.signals[0].baseline), baseline);
    let none = look(6.0, "a: ! | b: ! | c: !");
    assert_eq!(line(&none.signals[0].canary), "scrape failed: a: refused");
}

#[test]
fn restarts_by_start_time_and_by_counter() {
    check(
        "restarts process_start_time_seconds",
        &[
            (0.0, "i: process_start_time_seconds 100", "0 restarts"),
            (1.0, "i: process_start_time_seconds 100.5", "0 restarts"),
            (
                2.0,
                "i: process_start_time_seconds 999 | k: process_start_time_seconds 5",
                "1 restarts",
            ),
            (3.0, "i: ! | k: process_start_time_seconds 8", "1 restarts"),
            // Two readings later it is still one restart that was missed.
            (
                4.0,
                "i: process_start_time_seconds 1999 | k: process_start_time_seconds 8",
                "1 restarts",
            ),
            (5.0, "i: process_start_time_seconds NaN", "bad value"),
            (6.0, "i: x 1", "absent series"),
        ],
    );
    check(
        "restarts r_total",
        &[
            (0.0, "i: r_total 4", "0 restarts"),
            (1.0, "i: r_total 6", "2 restarts"),
            (2.0, r#"i: r_total 6; r_total{pod="new"} 1"#, "1 restarts"),
            (3.0, "i: r_total 1", "1 restarts"),
            (4.0, "i: r_total NaN", "bad value"),
        ],
    );
    // A counter of restarts outlives the process that exposes it.
    check(
        "restarts r_total",
        &[
            (0.0, "i: process_start_time_seconds 100; r_total 4", "0 restarts"),
            (1.0, "i: process_start_time_seconds 1000000; r_total 5", "1 restarts"),
        ],
    );
    // Restarts of a young instance count: that is how a crash loop looks.
    check_warm(
        "restarts process_start_time_seconds",
        60,
        &[
            (0.0, "i: process_start_time_seconds 999999", "0 restarts"),
            (5.0, "i: process_start_time_seconds 1000004", "1 restarts"),
        ],
    );
}

#[test]
fn beyond_the_remembered_series_the_marks_are_set_anew() {
    let many = |count: usize| {
        let one = |n: usize| format!(r#"err_total{{n="{n}"}} 5"#);
        format!("i: x 1; {}", (0..count).map(one).collect::<Vec<_>>().join(";"))
    };
    let limit = REMEMBERED_SERIES_MIN - 1;
    check(
        COUNT,
        &[
            (0.0, &many(limit), "first look"),
            (1.0, r#"i: x 1; err_total{n="0"} 6"#, "1 in 1s over 1"),
            (2.0, &many(limit), "5 in 1s over 1"),
        ],
    );
    check(
        COUNT,
        &[
            (0.0, &many(limit), "first look"),
            (1.0, r#"i: x 1; err_total{n="new"} 1"#, "1 in 1s over 1"),
            (2.0, &many(limit), "first look"),
            (3.0, &many(limit), "0 in 1s over 1"),
        ],
    );
}

#[test]
fn beyond_the_remembered_instances_the_oldest_absent_are_forgotten() {
    let mut reducer = Reducer::new(specs(COUNT), Duration::ZERO, Carry::default());
    for n in 0..=INSTANCES_REMEMBERED_MAX {
        reducer
            .reduce(&gathered(n as f64 / 10.0, &format!("old: err_total 1 | i{n}: err_total 1")));
    }
    let known = &reducer.carry().instances;
    assert_eq!(known.len(), INSTANCES_REMEMBERED_MAX);
    let knows = |name: &str| known.keys().any(|(_, known)| **known == *name);
    assert_eq!((knows("old"), knows("i0"), knows("i1"), knows("i2")), (true, false, false, true));
}
