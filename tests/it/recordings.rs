//! The committed recordings of two real services, judged as an operator would: by the recommended
//! rules, in both exposition formats, at three intervals; and through the program itself.
//!
//! Delays are counted from the moment the services reported their fault (`meta.json`).

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use rollgate::{
    cli::replay::replay,
    report::shape::Report,
    rulefile,
    service::case::override_hold,
    source::{exposition::Format, recording::Recording},
};
use serde_json::Value;

const ERRORS: &str = "error_rate > 1.5x baseline";
const LATENCY: &str = "p95_latency > 1.2x baseline";

/// The hold, in seconds: the recordings last three minutes.
const HOLD_SECS: f64 = 120.0;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn recording(name: &str) -> PathBuf {
    root().join("tests/cases/recordings").join(name)
}

fn meta(name: &str) -> Value {
    let text = std::fs::read(recording(name).join("meta.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Judges a recording six times: two formats, three intervals.
fn check(name: &str, judge: impl Fn(&Report)) {
    let rules = std::fs::read_to_string(root().join("rules/recommended.yaml")).unwrap();
    for format in [Format::Text, Format::OpenMetrics] {
        let recording = Recording::open(&recording(name), format).unwrap();
        for interval_secs in [1, 2, 5] {
            let mut file = rulefile::load("recommended.yaml", &rules).unwrap();
            override_hold(&mut file.rules, HOLD_SECS);
            file.rules.observe.interval = Duration::from_secs(interval_secs);
            let report = replay(&recording, file).unwrap();
            println!(
                "{name} {format:?} {interval_secs} s: {} by {:?} after {} s: {}",
                report.verdict, report.rule, report.elapsed_secs, report.reason
            );
            assert_eq!(report.decided_at, Some(report.at));
            judge(&report);
        }
    }
}

/// Rolled back by one of these rules, at most so long after the onset and never before it.
fn check_rollback(name: &str, rules: &[&str], delay_secs_max: f64) {
    let onset = meta(name)["onset"].as_f64().expect("a recorded fault has an onset");
    check(name, |report| {
        assert_eq!(report.verdict, "rollback", "{name}: {}", report.reason);
        let by = report.rule.as_deref().expect("a rule decided");
        assert!(rules.contains(&by), "{name} was rolled back by {by}");
        let delay = report.decided_at.expect("decided") - onset;
        assert!((0.0..=delay_secs_max).contains(&delay), "{name}: {delay:.1} s after the onset");
    });
}

#[test]
fn a_healthy_release_is_promoted() {
    check("healthy", |report| {
        assert_eq!(report.verdict, "promote", "{}", report.reason);
        assert!((HOLD_SECS..HOLD_SECS + 6.0).contains(&report.elapsed_secs));
    });
}

#[test]
fn errors_are_rolled_back() {
    check_rollback("error5", &[ERRORS], 15.0);
}

#[test]
fn doubled_latency_is_rolled_back() {
    check_rollback("latency2x", &[LATENCY], 15.0);
}

#[test]
fn a_crash_loop_is_rolled_back() {
    check_rollback("crashloop", &["restarts >= 1", "app is down for 3 checks"], 6.0);
}

#[test]
fn a_fault_of_both_arms_is_not_rolled_back() {
    check("shared_dependency", |report| {
        assert_ne!(report.verdict, "rollback", "{}", report.reason);
    });
}

#[test]
fn a_canary_without_requests_is_inconclusive() {
    check("zero_traffic", |report| {
        assert_eq!(report.verdict, "inconclusive", "{}", report.reason);
        assert!(report.reason.contains("no traffic"), "{}", report.reason);
    });
}

fn rollgate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollgate"));
    command.current_dir(root()).env("NO_COLOR", "1").env_remove("RUST_LOG").args(arguments);
    command.output().unwrap()
}

/// The program's exit code and, of a verdict, its JSON.
fn check_program(name: &str, code: i32) -> Value {
    let path = recording(name);
    let path = path.to_str().expect("a readable path");
    let rules = ["--rules", "rules/recommended.yaml", "--hold", "2m"];
    let output =
        rollgate(&[&["replay", path][..], &rules, &["--interval", "1s", "--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{name}: {errors}");
    assert_eq!(errors, "", "a verdict leaves stderr alone");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdict = match code {
        0 => "promote",
        3 => "rollback",
        _ => "inconclusive",
    };
    assert_eq!(report["verdict"], verdict);
    assert!(report["elapsed_secs"].as_f64().is_some_and(|secs| secs > 0.0), "{report}");
    assert!(report["reason"].as_str().is_some_and(|reason| reason.len() > 20), "{report}");
    let findings = report["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 4);
    for finding in findings {
        let state = finding["state"].as_str().expect("a state");
        assert!(["fires", "clear", "not_enough_data", "asleep"].contains(&state), "{state}");
        assert!(finding["clauses"].as_array().is_some_and(|clauses| !clauses.is_empty()));
    }
    report
}

#[test]
fn the_program_exits_with_the_verdict() {
    let promoted = check_program("healthy", 0);
    assert_eq!(promoted["rule"], Value::Null);

    let rolled_back = check_program("error5", 3);
    assert_eq!(rolled_back["rule"], ERRORS);
    assert_eq!(rolled_back["findings"][0]["state"], "fires");
    let onset = meta("error5")["onset"].as_f64().unwrap();
    let decided = rolled_back["decided_at"].as_f64().expect("decided");
    assert!((0.0..=15.0).contains(&(decided - onset)), "{decided} after {onset}");

    let idle = check_program("zero_traffic", 4);
    assert!(idle["reason"].as_str().unwrap().contains("no traffic"), "{idle}");
    assert_eq!(idle["rule"], Value::Null);
}

#[test]
fn bad_usage_exits_with_2_and_says_what_is_wrong() {
    let healthy = recording("healthy");
    let healthy = healthy.to_str().unwrap();
    for (arguments, expected) in [
        (vec!["replay", healthy], "--rules"),
        (vec!["replay", healthy, "--rules", "nowhere.yaml"], "nowhere.yaml"),
        (vec!["replay", "nowhere", "--rules", "rules/recommended.yaml"], "nowhere"),
        (vec!["replay", healthy, "--rules", "Cargo.toml"], "Cargo.toml"),
        (vec!["replay", healthy, "--rules", "rules/recommended.yaml", "--hold", "soon"], "2m"),
        (vec!["judge"], "judge"),
    ] {
        let output = rollgate(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
