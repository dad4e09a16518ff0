//! Everything that is no plain counter: histograms, selectors, gauges, health, metrics servers.

use std::time::Duration;

use rollgate::signal::{carry::Carry, reduce::Reducer, sample::Probe, spec::retain_wanted};

use super::{BUCKETS, COUNT, RATIO, at, check, check_warm, gathered, instance, line, probe, specs};

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
            concat!(
                r#"lat_bucket{le="1"} NaN; lat_bucket{le="+Inf"} 6;"#,
                r#"lat_bucket{le="1",r="b"} 1; lat_bucket{le="+Inf",r="b"} 2"#
            ),
            "[1.0] [1.0, 1.0]",
        ),
        // The same edge twice, and two spellings of infinity.
        (
            concat!(
                r#"lat_bucket{le="1"} 5; lat_bucket{le="1.0"} 5;"#,
                r#"lat_bucket{le="+Inf"} 6; lat_bucket{le="Inf"} 6"#
            ),
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
            (10.0, "i: x 1 | promql: =1", "warm-up: i:"),
            (20.0, "i: x 1 | promql: =1", "absent series: i: no err_total"),
            (21.0, "promql: =1", "not observed"),
        ],
    );
    let mut reducer = Reducer::new(specs(COUNT), Duration::ZERO, Carry::default());
    let seen = reducer.reduce(&gathered(0.0, "i: ! | k: err_total 1 | promql: =1"));
    let gap = seen.canary_gap.map(|gap| gap.detail);
    assert_eq!(gap.as_deref(), Some("1 of 2 canary instances: i: refused"));
    let known: Vec<&str> = reducer.carry().instances.keys().map(|(_, name)| &**name).collect();
    assert_eq!(known, ["i", "k"]);
}
