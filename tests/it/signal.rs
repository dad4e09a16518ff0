//! From samples to observations, look by look: every defined outcome as a row of data.
//!
//! A look is written `seconds`, then instances separated by `|`, each `name: items` with items
//! separated by `;`. An item is a sample (`m{a="b"} 3`), `!` (the scrape failed), `@9` (the samples
//! are from second 9), `?up` (what the health endpoint said, `?unclear` for an answer that cannot be
//! understood) or `=0.5` (an answer of a metrics server). A reading is written in one line.

use std::{sync::Arc, time::Duration};

use regex::Regex;
use rollgate::{
    engine::observation::{Health, Missing, Observation, Reading, Time, Value, Why},
    signal::{
        carry::Carry,
        increments::REMEMBERED_SERIES_MIN,
        reduce::{INSTANCES_REMEMBERED_MAX, Reducer},
        sample::{Gathered, InstanceReading, Labels, Level, Probe, ProbeAnswer, Sample},
        spec::{
            HealthTarget, MatchTest, Matcher, Reads, Reduce, Selection, Selector, SignalSpec,
            retain_wanted,
        },
    },
};

mod random;

/// Second 0 of every case; process starts in the cases are absolute.
const BEGIN_SECS: f64 = 1_000_000.0;

const RATIO: &str = r#"ratio req{status=~"5.."} / req"#;
const COUNT: &str = "count err_total";
const BUCKETS: &str = "histogram lat";

fn selector(text: &str) -> Selector {
    let text = text.trim();
    let (name, inside) = match text.split_once('{') {
        Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
        None => (text, ""),
    };
    let matchers = inside.split(',').filter(|part| !part.is_empty()).map(|part| {
        let at = part.find(['=', '!']).unwrap();
        let (op, value) = part[at..].split_once('"').unwrap();
        let value = value.strip_suffix('"').unwrap().to_owned();
        let regex = || Regex::new(&format!("^(?:{value})$")).unwrap();
        let test = match op {
            "=" => MatchTest::Equal(value),
            "!=" => MatchTest::NotEqual(value),
            "=~" => MatchTest::Regex(value.clone(), regex()),
            "!~" => MatchTest::NotRegex(value.clone(), regex()),
            op => panic!("no such operator: {op}"),
        };
        Matcher { label: part[..at].to_owned(), test }
    });
    Selector { name: name.to_owned(), matchers: matchers.collect() }
}

fn selection(text: &str) -> Selection {
    Selection { any_of: text.split(" or ").map(selector).collect() }
}

fn specs(text: &str) -> Arc<[SignalSpec]> {
    let (kind, of) = text.split_once(' ').unwrap_or((text, ""));
    let (first, second) = match of.split_once(" / ") {
        Some((first, second)) => (first, Some(selection(second))),
        None => (of, None),
    };
    let gauge = |reduce| Reads::Gauge { of: selection(first), per: second.clone(), reduce };
    let reads = match kind {
        "ratio" => Reads::Ratio { events: selection(first), total: second.clone().unwrap() },
        "count" => Reads::Counter(selection(of)),
        "histogram" => Reads::Histogram(selection(of)),
        "restarts" => Reads::Restarts(selection(of)),
        "max" => gauge(Reduce::Max),
        "min" => gauge(Reduce::Min),
        "mean" => gauge(Reduce::Mean),
        "sum" => gauge(Reduce::Sum),
        "health" => Reads::Health(HealthTarget::Path("/health".to_owned())),
        "dependency" => Reads::Health(HealthTarget::Url("http://other/health".to_owned())),
        "promql" => Reads::Promql("up".to_owned()),
        kind => panic!("no such signal: {kind}"),
    };
    Arc::new([SignalSpec { name: "signal".to_owned(), reads }])
}

fn sample(text: &str) -> Sample {
    let (series, value) = text.trim().rsplit_once(' ').unwrap();
    let Selector { name, matchers } = selector(series);
    let labels = matchers.into_iter().map(|Matcher { label, test }| match test {
        MatchTest::Equal(value) => (label.into(), value.into()),
        test => panic!("not a label: {test:?}"),
    });
    let labels = Labels::new(labels.collect());
    Sample { name: name.into(), labels, value: value.parse().unwrap() }
}

fn probe(text: &str) -> Probe {
    let status = match text {
        "up" => Ok(Health::Up),
        "degraded" => Ok(Health::Degraded),
        "down" => Ok(Health::Down),
        _ => Err(Missing::new(Why::UnclearHealth, text)),
    };
    let answer = |status| ProbeAnswer { status, latency_secs: Some(0.25), detail: text.to_owned() };
    Probe { signal: 0, answer: status.map(answer) }
}

fn instance(text: &str, now: Time) -> InstanceReading {
    let (name, items) = text.trim().split_once(':').unwrap();
    let mut reading = InstanceReading {
        instance: name.into(),
        at: now,
        samples: Ok(Vec::new()),
        refused: None,
        probes: Vec::new(),
        levels: Vec::new(),
    };
    for item in items.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        match item.as_bytes()[0] {
            b'!' => reading.samples = Err(Missing::new(Why::ScrapeFailed, "refused")),
            b'@' => reading.at = at(item[1..].parse().unwrap()),
            b'?' => reading.probes.push(probe(&item[1..])),
            b'=' => {
                let value = Ok(item[1..].parse().unwrap());
                reading.levels.push(Level { signal: 0, value });
            }
            _ => reading.samples.as_mut().unwrap().push(sample(item)),
        }
    }
    reading
}

fn at(secs: f64) -> Time {
    Time::from_secs_f64(BEGIN_SECS + secs)
}

fn gathered(secs: f64, text: &str) -> Gathered {
    let now = at(secs);
    let canary = text.split('|').filter(|part| !part.trim().is_empty());
    let canary = canary.map(|part| instance(part, now)).collect();
    Gathered { at: now, canary, baseline: Vec::new(), dependencies: Vec::new() }
}

fn line(reading: &Reading) -> String {
    match reading {
        Ok(Value::Share { events, total }) => format!("{events} of {total}"),
        Ok(Value::Events { events, instance_secs, instances }) => {
            format!("{events} in {instance_secs}s over {instances}")
        }
        Ok(Value::Histogram(histogram)) => format!("{:?} {:?}", histogram.edges, histogram.counts),
        Ok(Value::Level(level)) => format!("level {level}"),
        Ok(Value::Health { status, .. }) => status.to_string(),
        Ok(Value::Restarts(restarts)) => format!("{restarts} restarts"),
        Err(missing) => missing.to_string(),
    }
}

/// Each look's canary reading; for a missing one the expectation may leave the end out.
#[track_caller]
fn check_warm(spec: &str, warmup_secs: u64, looks: &[(f64, &str, &str)]) {
    let mut reducer = Reducer::new(specs(spec), Duration::from_secs(warmup_secs), Carry::default());
    for (secs, text, expected) in looks {
        let seen = reducer.reduce(&gathered(*secs, text));
        let reading = &seen.signals[0].canary;
        let said = line(reading);
        let good = if reading.is_ok() { said == *expected } else { said.starts_with(expected) };
        assert!(good, "{spec}, second {secs}, {text}: {said:?}, expected {expected:?}");
    }
}

#[track_caller]
fn check(spec: &str, looks: &[(f64, &str, &str)]) {
    check_warm(spec, 0, looks);
}

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
    // Finite values whose sum is not.
    check(
        COUNT,
        &[
            (0.0, r#"i: err_total{r="a"} 0; err_total{r="b"} 0"#, "first look"),
            (
                1.0,
                r#"i: err_total{r="a"} 1e308; err_total{r="b"} 1e308"#,
                "bad value: a sum beyond",
            ),
        ],
    );
    check(
        "restarts r_total",
        &[
            (0.0, r#"i: r_total{r="a"} 0; r_total{r="b"} 0"#, "0 restarts"),
            (1.0, r#"i: r_total{r="a"} 1e300; r_total{r="b"} 1e300"#, "4294967295 restarts"),
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
            (20.0, &format!("{young} 151"), "1 in 10s over 1"),
            // A new process is young again, and an old one beside it is judged.
            (30.0, "i: process_start_time_seconds 1000029; err_total 9", "warm-up"),
            (
                40.0,
                "i: process_start_time_seconds 1000029; err_total 9 | k: err_total 5",
                "warm-up",
            ),
            (59.0, "i: process_start_time_seconds 1000029; err_total 11", "2 in 19s over 1"),
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
                (30.0, &format!("i: {start} err_total 4"), "2 in 1s over 1"),
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
fn histograms_are_summed_over_routes_and_instances() {
    let lat = |route: &str, buckets: &[(&str, u32)]| {
        let one = |(le, count): &(&str, u32)| {
            format!(r#"lat_bucket{{route="{route}",le="{le}"}} {count}"#)
        };
        buckets.iter().map(one).collect::<Vec<_>>().join(";")
    };
    let zero = |edges: &[&'static str]| edges.iter().map(|le| (*le, 0)).collect::<Vec<_>>();
    let both = zero(&["0.1", "0.5", "+Inf"]);
    check(
        BUCKETS,
        &[
            (0.0, &format!("i: {};{}", lat("a", &both), lat("b", &both)), "first look"),
            (
                1.0,
                &format!(
                    "i: {};{}",
                    lat("a", &[("0.1", 3), ("0.5", 5), ("+Inf", 6)]),
                    lat("b", &[("0.1", 1), ("0.5", 1), ("+Inf", 1)])
                ),
                "[0.1, 0.5] [4.0, 2.0, 1.0]",
            ),
        ],
    );
    // Different layouts: only the common edges are exact.
    let other = zero(&["0.2", "0.5", "+Inf"]);
    check(
        BUCKETS,
        &[
            (0.0, &format!("i: {} | k: {}", lat("a", &both), lat("a", &other)), "first look"),
            (
                1.0,
                &format!(
                    "i: {} | k: {}",
                    lat("a", &[("0.1", 3), ("0.5", 5), ("+Inf", 6)]),
                    lat("a", &[("0.2", 1), ("0.5", 2), ("+Inf", 4)])
                ),
                "[0.5] [7.0, 3.0]",
            ),
        ],
    );
    let foreign = zero(&["0.3", "+Inf"]);
    check(
        BUCKETS,
        &[
            (0.0, &format!("i: {} | k: {}", lat("a", &both), lat("a", &foreign)), "first look"),
            (
                1.0,
                &format!(
                    "i: {} | k: {}",
                    lat("a", &[("0.1", 3), ("0.5", 5), ("+Inf", 6)]),
                    lat("a", &[("0.3", 1), ("+Inf", 4)])
                ),
                "bucket layout: instances have no bucket edge in common",
            ),
        ],
    );
}

#[test]
fn histograms_that_are_not_right() {
    let rows: [(&str, &str); 7] = [
        // Read while it was written: never a negative bucket.
        (
            r#"lat_bucket{le="1"} 5; lat_bucket{le="2"} 4; lat_bucket{le="+Inf"} 6"#,
            "[1.0, 2.0] [5.0, 0.0, 1.0]",
        ),
        (r#"lat_bucket{le="1"} 5"#, "bucket layout: i: a histogram without a +Inf bucket"),
        (
            r#"lat_bucket{le="?"} 5; lat_bucket{le="+Inf"} 6"#,
            r#"bucket layout: i: lat_bucket has le="?""#,
        ),
        (r#"lat_bucket{le="1"} NaN; lat_bucket{le="+Inf"} 6"#, "bad value: i: lat_bucket is NaN"),
        // A bad histogram costs only itself.
        (
            r#"lat_bucket{le="1"} NaN; lat_bucket{le="+Inf"} 6; lat_bucket{le="1",r="b"} 1; lat_bucket{le="+Inf",r="b"} 2"#,
            "[1.0] [1.0, 1.0]",
        ),
        // The same edge twice, and two spellings of infinity.
        (
            r#"lat_bucket{le="1"} 5; lat_bucket{le="1.0"} 5; lat_bucket{le="+Inf"} 6; lat_bucket{le="Inf"} 6"#,
            "[1.0] [5.0, 1.0]",
        ),
        (r#"lat_bucket{le="1"} 0; lat_bucket{le="+Inf"} 0"#, "no traffic"),
    ];
    for (body, expected) in rows {
        let before = r#"i: lat_bucket{le="1",r="z"} 0; lat_bucket{le="+Inf",r="z"} 0"#;
        check(BUCKETS, &[(0.0, before, "first look"), (1.0, &format!("i: {body}"), expected)]);
    }
    // One bucket fell, so all were reset, also the one that has passed its old value.
    check(
        BUCKETS,
        &[
            (0.0, r#"i: lat_bucket{le="1"} 3; lat_bucket{le="+Inf"} 90"#, "first look"),
            (1.0, r#"i: lat_bucket{le="1"} 5; lat_bucket{le="+Inf"} 8"#, "[1.0] [5.0, 3.0]"),
        ],
    );
}

#[test]
fn alternatives_and_labels() {
    // The first metric name that is exposed is read, also when the second is exposed as well.
    check(
        "count a_total or b_total",
        &[
            (0.0, "i: b_total 1; a_total 1", "first look"),
            (1.0, "i: b_total 100; a_total 2", "1 in 1s over 1"),
        ],
    );
    check(
        "count a_total or b_total",
        &[
            (0.0, "i: b_total 1", "first look"),
            (1.0, "i: b_total 3", "2 in 1s over 1"),
            (2.0, "i: c_total 3", "absent series: i: no a_total or b_total"),
        ],
    );
    // A series that two selectors match counts once.
    check(
        r#"count m{a="1"} or m{b="2"}"#,
        &[
            (0.0, r#"i: m{a="1",b="2"} 1"#, "first look"),
            (1.0, r#"i: m{a="1",b="2"} 4"#, "3 in 1s over 1"),
        ],
    );
    // A label that no series carries is a wrong selector; one without a match is "not yet".
    check(
        r#"ratio req{code=~"5.."} / req"#,
        &[
            (0.0, r#"i: req{status="200"} 1"#, "first look"),
            (1.0, r#"i: req{status="200"} 9"#, "absent series: i: no series of req has the labels"),
        ],
    );
    check(
        RATIO,
        &[
            (0.0, r#"i: req{status="200"} 1"#, "first look"),
            (1.0, r#"i: req{status="200"} 9"#, "0 of 8"),
            (2.0, r#"i: req{status="200"} 9; req{status="503"} 2"#, "2 of 2"),
        ],
    );
    check(
        r#"count m{status="500",env!="dev"}"#,
        &[
            (0.0, r#"i: m{status="200"} 1"#, "first look"),
            (1.0, r#"i: m{status="200"} 2"#, "0 in 1s over 1"),
        ],
    );
    check(r#"histogram lat{r="b"}"#, &[(0.0, r#"i: lat_bucket{r="a",le="+Inf"} 1"#, "no traffic")]);
}

#[test]
fn what_a_source_keeps_still_tells_wrong_from_not_yet() {
    let rows = [
        (r#"count m{code="500"}"#, r#"m{code="200"} 1; m{code="201"} 1; n 2"#, r#"m{code="200"}"#),
        (
            r#"count m{code="500"}"#,
            r#"m 1; m{code="200"} 1; m{code="500"} 1"#,
            r#"m m{code="200"} m{code="500"}"#,
        ),
        (r#"count m{code="500"}"#, r#"m{a="1"} 1; m{a="2"} 1"#, r#"m{a="1"}"#),
        ("count m", "process_start_time_seconds 5; mm 1; m 1", "process_start_time_seconds m"),
        (BUCKETS, r#"lat_bucket{le="1"} 1; lat_count 1; lat 3"#, r#"lat_bucket{le="1"}"#),
        ("max a / b", "a 1; b 2; c 3", "a b"),
        ("health", "a 1", ""),
    ];
    for (spec, body, expected) in rows {
        let mut samples = instance(&format!("i: {body}"), at(0.0)).samples.unwrap();
        retain_wanted(&specs(spec), &mut samples);
        let series = samples.iter().map(|sample| {
            let labels = sample.labels.iter().map(|(name, value)| format!("{name}={value:?}"));
            let labels = labels.collect::<Vec<_>>().join(",");
            if labels.is_empty() {
                sample.name.to_string()
            } else {
                format!("{}{{{labels}}}", sample.name)
            }
        });
        assert_eq!(series.collect::<Vec<_>>().join(" "), expected, "{spec}: {body}");
    }
}

#[test]
fn gauges_are_reduced_over_instances() {
    let body = r#"i: g{a="1"} 1; g{a="2"} 2; limit 6 | k: g 7; limit 10"#;
    for (spec, expected) in [
        ("max g", "level 7"),
        ("min g", "level 3"),
        ("mean g", "level 5"),
        ("sum g", "level 10"),
        ("max g / limit", "level 0.7"),
        ("min g / limit", "level 0.5"),
        ("max g / nothing", "absent series: i: no nothing"),
        (r#"max g{a="3"}"#, r"absent series: i: no g"),
    ] {
        check(spec, &[(0.0, body, expected)]);
    }
    check(
        "max g / limit",
        &[
            (0.0, "i: g 0; limit 0", "bad value: i: limit is 0"),
            (1.0, "i: g 0; limit -1", "bad value: i: limit is -1"),
            (2.0, "i: g NaN; limit 1", "bad value: i: g is NaN"),
            (3.0, "i: g 1e308; limit 1e-308", "bad value: a sum beyond"),
            (4.0, "i: g -3; limit 1", "level -3"),
        ],
    );
    check("sum g", &[(0.0, "i: g 1e308 | k: g 1e308", "bad value: a sum beyond")]);
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
fn health_is_the_worst_instance() {
    check(
        "health",
        &[
            (0.0, "i: ?up | k: ?up", "up"),
            (1.0, "i: ?up | k: ?degraded", "degraded"),
            (2.0, "i: ?down | k: ?degraded", "down"),
            // What cannot be understood is not health, but another one's outage is one.
            (3.0, "i: ?up | k: ?unclear", "unclear health: unclear"),
            (4.0, "i: ?unclear | k: ?down", "down"),
            (5.0, "i: | k: ", "not observed: no instance was probed"),
            // The answer counts whatever the scrape did.
            (6.0, "i: !; ?degraded", "degraded"),
        ],
    );
    check("dependency", &[(0.0, "i: ?up", "not observed: http://other/health is asked once")]);
}

#[test]
fn an_instance_has_the_warm_up_to_come_up() {
    check_warm(
        "health",
        30,
        &[
            (0.0, "i: ?down", "warm-up: not up yet: down"),
            (29.0, "i: ?down", "warm-up"),
            (30.0, "i: ?down", "down"),
            (31.0, "i: ?up", "up"),
        ],
    );
    // Once it was up, it is not coming up any more.
    check_warm(
        "health",
        30,
        &[
            (0.0, "i: ?degraded", "degraded"),
            (1.0, "i: ?down", "down"),
            (2.0, "i: ?up | k: ?down", "warm-up"),
        ],
    );
    // One that has failed for hours is not given the warm-up again.
    check_warm(
        "health",
        30,
        &[
            (0.0, "i: !; ?up", "up"),
            (4000.0, "i: !; ?down", "down"),
            (4001.0, "i: !; ?down", "down"),
        ],
    );
}

#[test]
fn a_dependency_is_read_for_the_canary_only() {
    let mut look = gathered(0.0, "i: ");
    look.dependencies = vec![probe("degraded"), Probe { signal: 7, ..probe("down") }];
    let seen = Reducer::new(specs("dependency"), Duration::ZERO, Carry::default()).reduce(&look);
    assert_eq!(line(&seen.signals[0].canary), "degraded");
    assert!(line(&seen.signals[0].baseline).starts_with("not observed"));
}

#[test]
fn answers_of_a_metrics_server_are_levels_and_no_instance() {
    check(
        "promql",
        &[
            (0.0, "promql: =0.5", "level 0.5"),
            (1.0, "promql: =NaN", "bad value"),
            (2.0, "i: x 1", "not observed: promql needs a metrics server"),
        ],
    );
    // For other signals the carrier of the answers does not exist, neither young nor empty.
    check_warm(
        COUNT,
        10,
        &[
            (0.0, "i: err_total 1 | promql: =1", "warm-up: i:"),
            (10.0, "i: x 1 | promql: =1", "absent series: i: no err_total"),
            (11.0, "promql: =1", "not observed"),
        ],
    );
    let mut reducer = Reducer::new(specs(COUNT), Duration::ZERO, Carry::default());
    let seen = reducer.reduce(&gathered(0.0, "i: ! | k: err_total 1 | promql: =1"));
    let gap = seen.canary_gap.map(|gap| gap.detail);
    assert_eq!(gap.as_deref(), Some("1 of 2 canary instances: i: refused"));
    let known: Vec<&str> = reducer.carry().instances.keys().map(|(_, name)| &**name).collect();
    assert_eq!(known, ["i", "k"]);
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
