//! `rollgate simulate` and `rollgate plan`: the questions asked of a rule file, the same numbers for
//! the same seed, table, JSON and page that say the same, and a plan that the simulation bears out.

use std::{
    process::{Command, Output},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use rollgate::{
    engine::rule::RuleSet,
    rulefile,
    simulation::{
        FaultKind, NoiseModel, Traffic, Truth,
        outlook::{Wait, outlook},
        questions::{Ask, Assumed, Question, questions},
        study::{Answer, answer, quantile, work_of},
    },
};
use serde_json::Value;

const RULES: &str = "version: 1
service: shop
observe: { interval: 1s, window: 1m, warmup: 10s }
signals:
  errors: { ratio: 'failed_total / asked_total', floor: 0.1% }
  p95: { quantile: 0.95, of: latency_seconds }
  app: { health: /health }
  restarts: { restarts: process_start_time_seconds }
rules:
  - { when: errors > 1.5x baseline, then: rollback }
  - { when: p95 > 1.2x baseline, then: rollback }
  - { when: errors > 20% for 1m, then: rollback }
  - { when: app is down for 3 checks, then: rollback }
  - { when: restarts >= 1, then: rollback }
promote: { after: 5m, deadline: 15m, otherwise: hold }
";

fn rules(text: &str) -> RuleSet {
    rulefile::load("simulated.yaml", text).expect("valid rules").rules
}

fn assumed(rps: f64, noise: NoiseModel) -> Assumed {
    Assumed {
        traffic: Traffic::new(rps, rps),
        truth: Truth::default(),
        noise,
        history: None,
        onset: Duration::from_secs(60),
    }
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rollgate"));
    command.args(arguments).env("NO_COLOR", "1").output().expect("the program runs")
}

fn out(arguments: &[&str]) -> String {
    let output = run(arguments);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {err}");
    assert!(err.is_empty(), "{arguments:?} said {err}");
    String::from_utf8(output.stdout).expect("text")
}

const SMALL: [&str; 8] =
    ["simulate", "rules/recommended.yaml", "--traffic", "50rps", "--runs", "20", "--history", "5m"];

#[test]
fn table_json_and_page_say_the_same_and_a_seed_says_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("study.html");
    let page_name = page.to_str().unwrap();
    let json = out(&[&SMALL[..], &["--json", "--html", page_name]].concat());
    let study: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json, out(&[&SMALL[..], &["--json"]].concat()), "the same seed, other numbers");
    let other: Value =
        serde_json::from_str(&out(&[&SMALL[..], &["--json", "--seed", "2"]].concat())).unwrap();
    assert_ne!(study["releases"], other["releases"], "another seed, the same numbers");

    assert_eq!(study["schema"], "rollgate.simulation.v1");
    assert_eq!(study["assumed"]["canary_rps"], 50.0);
    assert_eq!(study["assumed"]["history_secs"], 300.0);
    assert_eq!((&study["runs"], &study["seed"]), (&20.into(), &1.into()));
    let releases = study["releases"].as_array().unwrap();
    assert_eq!(releases[0]["kind"], "healthy");
    assert_eq!(releases[0]["promise"]["of"], "rolled_back");
    let kinds: Vec<&str> =
        releases.iter().map(|release| release["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "rollback_bound").count(), 2);
    assert_eq!(kinds.iter().filter(|kind| **kind == "promotion_margin").count(), 2);
    for release in releases {
        let count = |of: &str| release[of]["count"].as_u64().unwrap();
        let sum = count("rolled_back") + count("promoted") + count("inconclusive");
        assert_eq!(sum, release["runs"].as_u64().unwrap(), "{release}");
        let share = &release["rolled_back"];
        let value = |of: &str| share[of].as_f64().unwrap();
        assert!(value("low") <= value("share") && value("share") <= value("high"), "{share}");
    }
    let find = |name: &str| {
        let mut named = releases.iter().filter(|release| release["name"] == name);
        named.next().unwrap_or_else(|| panic!("no {name} in {json}"))
    };
    let gross = find("errors 50x");
    assert_eq!(gross["rolled_back"]["share"], 1.0);
    assert!(gross["delay"]["median_secs"].as_f64().unwrap() <= 20.0, "{gross}");
    let rule = gross["rules"][0]["rule"].as_str().unwrap();
    assert!(rule.starts_with("error_rate >"), "{gross}");
    assert!(find("crash")["delay"]["p95_secs"].as_f64().unwrap() <= 10.0);
    assert!(!study["examples"].as_array().unwrap().is_empty());

    let table = out(&SMALL);
    let html = std::fs::read_to_string(&page).unwrap();
    for release in releases {
        let name = release["name"].as_str().unwrap();
        assert!(table.contains(name), "the table lacks {name}: {table}");
        assert!(html.contains(name), "the page lacks {name}");
        if let Some(median) = release["delay"]["median_secs"].as_f64() {
            let median = rollgate::report::format::duration(median);
            assert!(table.contains(&median), "the table lacks {median}: {table}");
            assert!(html.contains(&format!("<td>{median}</td>")), "the page lacks {median}");
        }
    }
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.iter().any(|line| line.contains("A healthy release was rolled back in 0 of 20")));
    assert!(html.contains("0 of 20"));
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"));
    for fetching in ["http://", "https://", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!html.contains(fetching), "the page holds {fetching}");
    }
    assert!(html.matches("<svg viewBox").count() >= 5, "plots are missing");
    assert!(!html.contains("NaN") && !html.contains("inf "));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// A level that a rule holds against a constant is simulated within it, and what keeps releases from
/// being promoted is named.
#[test]
fn a_healthy_level_is_within_its_limits_and_blockers_are_named() {
    let text = "version: 1
service: shop
observe: { interval: 5s, window: 1m, warmup: 10s }
signals:
  connections: { gauge: connections_active }
  free: { gauge: disk_free_bytes, better: higher }
  p95: { quantile: 0.95, of: latency_seconds }
rules:
  - { when: connections >= 80 for 1m, then: rollback }
  - { when: free < 10GB for 1m, then: rollback }
  - { when: p95 > 10ms for 1m, then: investigate }
promote: { after: 5m, deadline: 10m }
";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("levels.yaml");
    std::fs::write(&file, text).unwrap();
    let simulate = ["simulate", file.to_str().unwrap(), "--traffic", "50rps", "--runs", "20"];
    let study: Value =
        serde_json::from_str(&out(&[&simulate[..], &["--json"]].concat())).expect("JSON");
    let healthy = &study["releases"][0];
    assert_eq!(healthy["kind"], "healthy");
    assert_eq!(healthy["rolled_back"]["count"], 0, "{healthy}");
    assert_eq!(healthy["blockers"][0]["rule"], "p95 > 10ms for 1m", "{healthy}");
    assert!(out(&simulate).contains("not promoted because of p95 > 10ms for 1m (20x)"));
}

#[test]
fn bad_usage_is_told_and_ends_with_2() {
    let check = |arguments: &[&str], expected: &str| {
        let output = run(arguments);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(err.contains(expected), "{arguments:?} said {err}, expected {expected}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    };
    for command in ["simulate", "plan"] {
        let file = "rules/recommended.yaml";
        check(&[command, file], "--traffic");
        check(&[command, file, "--traffic", "50"], "a rate such as 50rps");
        check(&[command, file, "--traffic", "0/s"], "more than no traffic");
        check(&[command, file, "--traffic", "50rps", "--errors", "80%"], "from 0 to 50%");
        check(&[command, file, "--traffic", "50rps", "--noise", "loud"], "such as 0.3/10s");
        check(&[command, file, "--traffic", "50rps", "--history", "1s"], "from 5m to 24h");
        check(&[command, "nowhere.yaml", "--traffic", "50rps"], "nowhere.yaml");
        check(&[command, "Cargo.toml", "--traffic", "50rps"], "Cargo.toml");
    }
    let simulate = ["simulate", "rules/recommended.yaml", "--traffic", "50rps"];
    check(&[&simulate[..], &["--runs", "0"]].concat(), "from 1 to 100000");
    let long = ["--runs", "100000", "--hold", "168h"];
    check(&[&simulate[..], &long].concat(), "fewer --runs or a shorter --hold");
    let folder = tempfile::tempdir().unwrap();
    let steps = folder.path().join("steps.yaml");
    std::fs::write(&steps, stepped()).unwrap();
    let steps = ["plan", steps.to_str().unwrap(), "--traffic", "50rps"];
    let both = [&steps[..], &["--baseline-traffic", "50rps"]].concat();
    check(&both, "does not go with a rule file that has `steps`");
}

fn stepped() -> String {
    format!("{RULES}steps: [{{ weight: 10%, hold: 2m }}, {{ weight: 50%, hold: 4m }}]\n")
        .replace("after: 5m, ", "")
}

#[test]
fn a_progressive_release_is_simulated_step_by_step() {
    let rules = rules(&stepped());
    let asked = questions(
        &rules,
        &Assumed { traffic: Traffic::new(10.0, 90.0), ..assumed(1.0, NoiseModel::NONE) },
        4,
        4,
    );
    let healthy = vec![asked[0].clone()];
    let answers = study(&Arc::new(rules), healthy, None);
    for trial in &answers[0].trials {
        // Both holds, give or take a look.
        assert!((360.0..=363.0).contains(&trial.secs), "{trial:?}");
    }
    assert_eq!(answers[0].promoted().count, 4);
}

fn study(rules: &Arc<RuleSet>, asked: Vec<Question>, history: Option<Duration>) -> Vec<Answer> {
    answer(rules, asked, history, 5, &|| {}, &AtomicBool::new(false)).expect("not stopped")
}

#[test]
fn questions_follow_from_the_signals() {
    let all = "version: 1
service: shop
observe: { interval: 1s, window: 1m, warmup: 10s }
signals:
  errors: { ratio: 'failed_total / asked_total', floor: 2% }
  latency: { quantile: 0.99, of: latency_seconds }
  memory: { gauge: process_resident_memory_bytes }
  pool: { gauge: connections }
  restarts: { restarts: process_start_time_seconds }
rules:
  - { when: errors > 1.5x baseline, then: rollback }
  - { when: errors > 3x baseline, then: rollback }
  - { when: latency > 1.2x baseline, then: investigate }
  - { when: latency > 1.5x baseline, then: rollback }
  - { when: memory > 1GB for 1m, then: rollback }
  - { when: pool > 90 for 1m, then: rollback }
  - { when: restarts >= 1, then: rollback }
promote: { after: 5m, deadline: 15m, otherwise: hold }
";
    let asks: Vec<Ask> = questions(&rules(all), &assumed(10.0, NoiseModel::NONE), 9, 3)
        .into_iter()
        .map(|question| {
            let is_fault = matches!(question.ask, Ask::Fault(_));
            assert_eq!(question.runs, if is_fault { 3 } else { 9 });
            assert_eq!(question.scenario.canary_age_secs, 0.0);
            question.ask
        })
        .filter(|ask| !matches!(ask, Ask::AtPromotionMargin { .. }))
        .collect();
    // 0.5 % errors are four times below the floor, and nobody is worse off below it.
    assert_eq!(
        asks[..3],
        [
            Ask::Healthy,
            Ask::AtRollbackBound { signal: 0, factor: 4.0 },
            Ask::AtRollbackBound { signal: 1, factor: 1.5 },
        ]
    );
    let count = |is: fn(&FaultKind) -> bool| {
        asks.iter().filter(|ask| matches!(ask, Ask::Fault(fault) if is(fault))).count()
    };
    assert_eq!(count(|fault| matches!(fault, FaultKind::Errors { .. })), 4);
    assert_eq!(count(|fault| matches!(fault, FaultKind::Latency { .. })), 4);
    assert_eq!(count(|fault| matches!(fault, FaultKind::Leak { .. })), 3);
    assert_eq!(count(|fault| matches!(fault, FaultKind::Level { .. })), 3);
    assert_eq!(count(|fault| matches!(fault, FaultKind::Crash { .. })), 1);

    // A rule with a constant that is rightly concerned leaves nothing to ask at the bound.
    let strict = RULES.replace("errors > 20% for 1m", "errors > 0.6% for 1m");
    let asks = questions(&rules(&strict), &assumed(10.0, NoiseModel::NONE), 9, 3);
    assert!(!asks.iter().any(|q| matches!(q.ask, Ask::AtRollbackBound { signal: 0, .. })));
}

/// Of an amount the same is asked where it is known what a healthy version shows, and a rule with
/// more of the false-rollback rate is planned to be quicker.
#[test]
fn amounts_and_weights_are_asked_about_and_planned() {
    let by_amount = RULES
        .replace("errors > 1.5x baseline,", "errors > baseline + 1%, weight: 100,")
        .replace("p95 > 1.2x baseline", "p95 > baseline + 30ms");
    let (even, by_amount) =
        (rules(&by_amount.replace("weight: 100, ", "")), Arc::new(rules(&by_amount)));
    let assumed = assumed(60.0, NoiseModel::NONE);
    let asks = questions(&by_amount, &assumed, 9, 3);
    let bound = asks.iter().find_map(|question| match question.ask {
        Ask::AtRollbackBound { signal: 0, factor } => Some(factor),
        _ => None,
    });
    // One point more than 0.5 % is three times that.
    assert!((bound.expect("it is asked") - 3.0).abs() < 1e-12);
    let plan = |rules: &RuleSet| outlook(rules, &assumed, 1).rules;
    let (planned, planned_even) = (plan(&by_amount), plan(&even));
    let mut found = 0;
    for (rule, (of, of_even)) in planned.iter().zip(&planned_even).take(2).enumerate() {
        for ((fault, wait), (_, even)) in of.faults.iter().zip(&of_even.faults) {
            let (Wait::About(planned), Wait::About(even)) = (*wait, *even) else { continue };
            assert_eq!(planned < even, rule == 0, "{fault:?}: {planned:?} and {even:?}");
            found += 1;
            let asked = Question {
                ask: Ask::Fault(*fault),
                scenario: assumed.healthy().with_fault(*fault, 60.0),
                runs: 15,
            };
            let delays = study(&by_amount, vec![asked], None)[0].delays_secs();
            if delays.len() > 7 {
                check_plan(&format!("{fault:?} by an amount"), planned, &delays);
            } else {
                assert!(planned > Duration::from_secs(120), "{fault:?}: {planned:?}, never found");
            }
        }
    }
    assert!(found >= 4, "{planned:?}");
}

#[test]
fn a_rule_that_fires_on_chance_breaks_its_promise() {
    let hasty = RULES.replace("errors > 20% for 1m", "errors > 0.6% for 5s");
    let rules = Arc::new(rules(&hasty));
    let mut asked = questions(&rules, &assumed(20.0, NoiseModel::NONE), 20, 1);
    asked.truncate(1);
    let answers = study(&rules, asked, None);
    let rolled_back = answers[0].rolled_back();
    assert!(rolled_back.count >= 10, "{rolled_back:?}");
    assert!(!rolled_back.agrees_with_at_most(rules.false_rollback_rate));
    assert_eq!(answers[0].rules(), [(2, rolled_back.count)]);
}

#[test]
fn a_stopped_study_has_no_answers_and_every_piece_of_work_is_told() {
    let rules = Arc::new(rules(RULES));
    let asked = questions(&rules, &assumed(5.0, NoiseModel::NONE), 3, 2);
    let history = Some(Duration::from_secs(300));
    let told = std::sync::atomic::AtomicUsize::new(0);
    let tell = || {
        told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    };
    let stop = AtomicBool::new(true);
    assert_eq!(answer(&rules, asked.clone(), history, 1, &tell, &stop), None);
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 0);
    let work = work_of(&asked, history);
    stop.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(answer(&rules, asked, history, 1, &tell, &stop).is_some());
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), work);
}

/// A plan is right within this factor either way, give or take some looks: it reckons the middle one
/// of many releases, and evidence comes in steps.
const PLAN_FACTOR: f64 = 2.0;
const PLAN_LOOKS: f64 = 3.0;

/// A tight hold, so that the proofs decide when a release is promoted.
const PROVING: &str = "
promote:
  after: 10s
  margin: { errors: 2x, p95: 1.5x }
  deadline: 2h
  otherwise: hold
";

#[test]
fn the_simulation_bears_the_plan_out() {
    let finding = Arc::new(rules(RULES));
    let (head, _) = RULES.split_once("promote:").expect("a promotion");
    let proving = Arc::new(rules(&format!("{head}{PROVING}")));
    for (rps, noise, history) in [
        (60.0, NoiseModel::NONE, None),
        (15.0, NoiseModel::NONE, None),
        (60.0, NoiseModel::own(0.3, 10.0), Some(Duration::from_secs(1200))),
    ] {
        let assumed = Assumed { history, ..assumed(rps, noise) };
        let healthy = assumed.healthy();
        // The two rules that go by evidence, each with its three faults.
        let foreseen = outlook(&finding, &assumed, 1);
        let faults: Vec<(FaultKind, Wait)> =
            foreseen.rules[..2].iter().flat_map(|rule| rule.faults.clone()).collect();
        assert_eq!(faults.len(), 6);
        let asked = faults.iter().map(|(fault, _)| Question {
            ask: Ask::Fault(*fault),
            scenario: healthy.clone().with_fault(*fault, 60.0),
            runs: 15,
        });
        let answers = study(&finding, asked.collect(), history);
        for ((fault, wait), found) in faults.iter().zip(answers) {
            let Wait::About(planned) = *wait else { panic!("{fault:?} is never found") };
            let delays = found.delays_secs();
            let rest = finding.promote.after.as_secs_f64() - 60.0;
            if delays.len() * 2 <= found.trials.len() {
                let planned = planned.as_secs_f64();
                assert!(planned * PLAN_FACTOR > rest, "{rps} {fault:?}: {planned} s, never found");
                continue;
            }
            let what = format!("{rps} rps, noise {}, {fault:?}", noise.sigma);
            check_plan(&what, planned, &delays);
        }
        let Wait::About(planned) = outlook(&proving, &assumed, 1).promotion else {
            panic!("never promoted")
        };
        // A proof needs little evidence, so chance counts for more in when it comes.
        let asked = Question { ask: Ask::Healthy, scenario: healthy, runs: 61 };
        let promoted = study(&proving, vec![asked], history);
        let what = format!("{rps} rps, noise {}, promotion", noise.sigma);
        check_plan(&what, planned, &promoted[0].delays_secs());
    }
}

fn check_plan(what: &str, planned: Duration, delays: &[f64]) {
    let planned = planned.as_secs_f64();
    let median = quantile(delays, 0.5).unwrap_or_else(|| panic!("{what}: {planned} s, never"));
    println!("{what}: planned {planned:.1} s, simulated {median} s");
    assert!(median <= planned * PLAN_FACTOR + PLAN_LOOKS, "{what}: {planned} s, found {median}");
    assert!(planned <= (median + PLAN_LOOKS) * PLAN_FACTOR, "{what}: {planned} s, found {median}");
}

#[test]
fn a_plan_names_times_and_warns_of_what_cannot_be() {
    let plan = |traffic: &str| -> Value {
        let arguments = ["plan", "rules/recommended.yaml", "--traffic", traffic, "--json"];
        serde_json::from_str(&out(&arguments)).expect("JSON")
    };
    let busy = plan("50rps");
    assert_eq!(busy["schema"], "rollgate.plan.v1");
    assert_eq!(busy["warnings"].as_array().unwrap().len(), 0, "{busy}");
    let times: Vec<f64> = busy["rules"][0]["faults"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|fault| fault["secs"].as_f64())
        .collect();
    assert!(times.len() >= 2 && times.is_sorted_by(|a, b| a > b), "{times:?}");
    assert!(busy["promotion"]["secs"].as_f64().unwrap() >= 600.0);
    let idle = plan("1/min");
    let warnings = idle["warnings"].as_array().unwrap();
    let told = |text: &str| warnings.iter().any(|warning| warning.as_str().unwrap().contains(text));
    assert!(told("cannot be shown") && told("before the deadline of 30 m"), "{warnings:?}");
    assert!(told("held"), "{warnings:?}");
    let table = out(&["plan", "rules/recommended.yaml", "--traffic", "1/min"]);
    for text in
        ["error_rate > 1.5x baseline", "errors 10x", "latency 2x", "cannot be shown", "hold"]
    {
        assert!(table.contains(text), "{text} is not in {table}");
    }
    // What was said to be enough traffic is enough.
    let proof = &idle["promotion"]["proofs"][0];
    let needed = proof["rps_needed"].as_f64().expect("more traffic helps");
    let enough = plan(&format!("{}rps", needed * 0.52));
    let secs = enough["promotion"]["proofs"][0]["secs"].as_f64().unwrap();
    assert!(secs <= 1800.0, "{needed}: {secs}");
}
