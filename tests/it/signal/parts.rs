//! What a reading is made of: instances and routes, as far as somebody asks for them.

use std::time::Duration;

use rollgate::{
    engine::observation::{PARTS_MAX, Part},
    signal::{
        carry::Carry,
        reduce::Reducer,
        sample::Gathered,
        spec::{PROCESS_START_TIME, SignalSpec},
    },
};

use super::{BEGIN_SECS, gathered, line, specs};

/// Looks of both arms, a second apart; the parts of the last, one per line.
fn last_parts(specs: &std::sync::Arc<[SignalSpec]>, looks: &[(&str, &str)]) -> [Vec<String>; 2] {
    let mut reducer = Reducer::new(specs.clone(), Duration::ZERO, Carry::default());
    let mut parts = [Vec::new(), Vec::new()];
    for (secs, (canary, baseline)) in looks.iter().enumerate() {
        let baseline = gathered(secs as f64, baseline).canary;
        let look = Gathered { baseline, ..gathered(secs as f64, canary) };
        let seen = reducer.reduce(&look);
        parts = [&seen.signals[0].parts.canary, &seen.signals[0].parts.baseline]
            .map(|parts| parts.iter().map(written).collect());
    }
    parts
}

fn written(part: &Part) -> String {
    let value = line(&Ok(part.value.clone()));
    match part.started {
        Some(at) => format!("{} {} since {}: {value}", part.kind, part.name, at.0 - begin_ms()),
        None => format!("{} {}: {value}", part.kind, part.name),
    }
}

fn begin_ms() -> i64 {
    (BEGIN_SECS * 1000.0) as i64
}

#[track_caller]
fn check(spec: &str, looks: &[(&str, &str)], canary: &[&str], baseline: &[&str]) {
    let [new, old] = last_parts(&specs(spec), looks);
    assert_eq!(new, canary, "{spec}: canary");
    assert_eq!(old, baseline, "{spec}: baseline");
}

#[test]
fn instances_are_kept_where_they_tell_something() {
    let ratio = r#"ratio req{status=~"5.."} / req"#;
    let req =
        |good: u32, bad: u32| format!(r#"req{{status="200"}} {good}; req{{status="500"}} {bad}"#);
    let two = |a, b, c, d| format!("k: {} | i: {}", req(a, b), req(c, d));
    let one = |a, b| format!("i: {}", req(a, b));
    check(
        ratio,
        &[(&two(0, 0, 0, 0), &two(0, 0, 0, 0)), (&two(9, 1, 4, 0), &two(9, 1, 4, 0))],
        &["instance i: 0 of 4", "instance k: 1 of 10"],
        &[],
    );
    // A single instance is the arm; one that had no requests, or failed, is no part at this look.
    check(ratio, &[(&one(0, 0), ""), (&one(9, 1), "")], &[], &[]);
    check(ratio, &[(&two(0, 0, 0, 0), ""), (&two(9, 1, 0, 0), "")], &["instance k: 1 of 10"], &[]);
    check(
        ratio,
        &[(&two(0, 0, 0, 0), ""), (&format!("k: ! | i: {}", req(3, 2)), "")],
        &["instance i: 2 of 5"],
        &[],
    );
    check(
        "count err_total",
        &[("i: err_total 1 | k: err_total 5", ""), ("i: err_total 3 | k: err_total 5", "")],
        &["instance i: 2 in 1s over 1", "instance k: 0 in 1s over 1"],
        &[],
    );
    let lat = |a: u32, b: u32| format!(r#"lat_bucket{{le="1"}} {a}; lat_bucket{{le="+Inf"}} {b}"#);
    check(
        "histogram lat",
        &[
            (&format!("i: {} | k: {}", lat(0, 0), lat(0, 0)), ""),
            (&format!("i: {} | k: {}", lat(3, 4), lat(1, 5)), ""),
        ],
        &["instance i: [1.0] [3.0, 1.0]", "instance k: [1.0] [1.0, 4.0]"],
        &[],
    );
    // Levels are for slopes, which are taken process by process on both sides.
    check("max g", &[("i: g 3", "k: g 4")], &["instance i: level 3"], &["instance k: level 4"]);
    check("restarts up_since", &[("i: up_since 3 | k: up_since 4", "")], &[], &[]);
}

#[test]
fn a_life_has_one_beginning() {
    let body = |start: f64, level: u32| format!("i: {PROCESS_START_TIME} {start}; g {level}");
    let start = BEGIN_SECS - 50.0;
    // Wavering by less than a second is clock arithmetic, more is another process.
    let looks = [body(start, 1), body(start + 0.4, 2), body(start - 0.3, 3)];
    let looks: Vec<(&str, &str)> = looks.iter().map(|look| (look.as_str(), "")).collect();
    check("max g", &looks, &["instance i since -50000: level 3"], &[]);
    let restarted = body(BEGIN_SECS + 2.25, 1);
    let looks: Vec<(&str, &str)> = looks.into_iter().chain([(restarted.as_str(), "")]).collect();
    check("max g", &looks, &["instance i since 2250: level 1"], &[]);
}

#[test]
fn routes_are_told_apart_by_their_label() {
    let series = |rows: &[(&str, u32)]| {
        let rows = rows.iter().map(|(labels, count)| format!("req{{{labels}}} {count}"));
        format!("i: {}", rows.collect::<Vec<_>>().join(";"))
    };
    let zero = |rows: &[(&'static str, u32)]| -> String {
        series(&rows.iter().map(|(labels, _)| (*labels, 0)).collect::<Vec<_>>())
    };
    let ratio = r#"ratio req{status="500"} / req"#;
    let rows = [
        (r#"status="200",method="GET",route="/a",path="/x""#, 7),
        (r#"status="500",method="GET",route="/a""#, 2),
        (r#"status="200",method="POST",route="/a""#, 5),
        (r#"status="200",path="/b""#, 1),
        (r#"status="200",handler="/c",endpoint="http""#, 0),
        (r#"status="200""#, 100),
    ];
    let (first, second) = (zero(&rows), series(&rows));
    check(
        ratio,
        &[(&first, &first), (&second, &second)],
        &["route /b: 0 of 1", "route GET /a: 2 of 9", "route POST /a: 0 of 5"],
        &["route /b: 0 of 1", "route GET /a: 2 of 9", "route POST /a: 0 of 5"],
    );
    // One route is the arm.
    let rows = [(r#"status="200",route="/a""#, 7), (r#"status="500",route="/a""#, 2)];
    check(ratio, &[(&zero(&rows), ""), (&series(&rows), "")], &[], &[]);
    // Over instances, with the buckets of each.
    let lat = |route: &str, a: u32, b: u32| {
        format!(
            r#"lat_bucket{{route="{route}",le="1"}} {a}; lat_bucket{{route="{route}",le="+Inf"}} {b}"#
        )
    };
    check(
        "histogram lat",
        &[
            (&format!("i: {} | k: {}", lat("a", 0, 0), lat("b", 0, 0)), ""),
            (&format!("i: {} | k: {}", lat("a", 3, 4), lat("b", 1, 5)), ""),
        ],
        &[
            "instance i: [1.0] [3.0, 1.0]",
            "instance k: [1.0] [1.0, 4.0]",
            "route a: [1.0] [3.0, 1.0]",
            "route b: [1.0] [1.0, 4.0]",
        ],
        &[],
    );
}

#[test]
fn the_largest_parts_are_kept_and_names_are_bounded() {
    let all = 2 * PARTS_MAX as u32;
    let body = |times: u32| {
        let rows = (0..all).map(|n| format!(r#"req{{route="/{n:03}"}} {}"#, times * (n + 1)));
        format!("i: {}", rows.collect::<Vec<_>>().join(";"))
    };
    let [routes, _] =
        last_parts(&specs("ratio req{a=\"b\"} / req"), &[(&body(0), ""), (&body(1), "")]);
    // No series has the label that is selected, so there is no reading, and no parts.
    assert!(routes.is_empty());
    let [routes, _] = last_parts(&specs("ratio req / req"), &[(&body(0), ""), (&body(1), "")]);
    assert_eq!(routes.len(), PARTS_MAX);
    assert_eq!(routes[0], format!("route /{:03}: {n} of {n}", all / 2, n = all / 2 + 1));
    assert!(routes.is_sorted());
    let long = "x".repeat(500);
    let body = |n: u32| format!(r#"i: req{{route="{long}1"}} {n}; req{{route="/"}} {n}"#);
    let [routes, _] = last_parts(&specs("ratio req / req"), &[(&body(0), ""), (&body(3), "")]);
    assert_eq!(routes[1], format!("route {}\u{2026}: 3 of 3", "x".repeat(120)));
    let body = |n: u32| format!(r#"i: req{{route="{long}1"}} {n}; req{{route="{long}2"}} {n}"#);
    let [routes, _] = last_parts(&specs("ratio req / req"), &[(&body(0), ""), (&body(3), "")]);
    assert_eq!(routes.len(), 1);
}

#[test]
fn which_instances_are_up_is_kept_where_there_are_several() {
    let up = ["instance i: level 0", "instance k: level 1"];
    check("up", &[("k: x 1 | i: x 1", "a: | b: "), ("k: x 2 | i: !", "a: | b: ")], &up, &[]);
    check("up", &[("i: x 1", "a: x 1"), ("i: !", "a: !")], &[], &[]);
}

#[test]
fn numbers_of_health_answers_are_kept_process_by_process() {
    let start = |secs: f64| format!("{PROCESS_START_TIME} {}", BEGIN_SECS + secs);
    check(
        "field",
        &[(&format!("i: {}; =5", start(-60.0)), "b: =3"), ("i: !; =6", "b: =4")],
        &["instance i since -60000: level 6"],
        &["instance b: level 4"],
    );
    check("far", &[("promql: =5", "b: x 1")], &[], &[]);
}
