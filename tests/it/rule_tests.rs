//! Rule tests from outside: files as people write them, what is told of them, and how a run ends.

use std::{fs, path::PathBuf};

use clap::Parser;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::{
    cli::test::{self, TestArgs},
    engine::observation::{Reading, Value},
    rulefile::{self, RuleFile},
    ruletest::{self, Scene, Test},
};

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: TestArgs,
}

/// Runs `rollgate test` with these arguments: exit code, stdout, stderr.
fn run(args: &[&str]) -> (u8, String, String) {
    let line = Line::try_parse_from(["test"].iter().chain(args)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = test::run(&line.args, (false, 100), &mut out, &mut err).unwrap();
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// The same without what differs from machine to machine and from run to run.
fn told(args: &[&str]) -> String {
    let (code, out, err) = run(args);
    let root = repository("tests/cases/rule_tests/").display().to_string();
    let told = format!("exit {code}\n{err}{out}").replace(&root, "");
    let time = regex::Regex::new(r"in \d+\.\d\d s").unwrap();
    time.replace_all(&told, "in no time").into_owned()
}

/// Every test file of `tests/cases/rule_tests` says what is beside it. Run with `BLESS=1` to write that
/// anew, and read it as the person who wrote the test.
#[test]
fn test_files_say_what_is_beside_them() {
    let dir = repository("tests/cases/rule_tests");
    let mut cases: Vec<PathBuf> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".test.yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 7, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let told = told(&[case.to_str().unwrap()]);
        let beside = case.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&beside, &told).unwrap();
        }
        let expected = fs::read_to_string(&beside).unwrap_or_default();
        if told != expected {
            wrong.push(format!("{}:\n{told}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_run_ends_with_what_came_of_it() {
    let case = |name: &str| repository("tests/cases/rule_tests").join(name).display().to_string();
    let check = |args: &[&str], expected: u8| {
        let (code, out, err) = run(args);
        assert_eq!(code, expected, "{args:?}: {out}{err}");
        out
    };
    let (passes, fails) = (case("passes.test.yaml"), case("fails.test.yaml"));
    check(&[&passes], 0);
    check(&[&passes, "--require-coverage"], 0);
    check(&[&passes, &fails], 1);
    check(&[&fails, "--filter", "no such test"], 0);
    check(&[&passes, &case("broken.test.yaml")], 2);

    let json = check(&[&passes, &fails, &case("faults.test.yaml"), "--json"], 2);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["failed"], 5, "{json:#}");
    assert_eq!(json["files"][1]["tests"][1]["failures"][0]["expected"], "rollback at 1m");
    assert_eq!(json["faults"][0]["line"], 3);
    assert!(json["coverage"][0]["never_clear"].as_array().unwrap().is_empty());

    let dir = tempfile::tempdir().unwrap();
    let healthy = dir.path().join("shop.test.yaml");
    fs::copy(case("shop.yaml"), dir.path().join("shop.yaml")).unwrap();
    let text = "tests: [{ name: nothing is shown, canary: {}, expect: { verdict: inconclusive } }]";
    fs::write(&healthy, text).unwrap();
    check(&[healthy.to_str().unwrap()], 0);
    let out = check(&[healthy.to_str().unwrap(), "--require-coverage"], 1);
    assert!(out.contains("never fires    1  error_rate > 5% for 1m"), "{out}");
    let report = dir.path().join("junit.xml");
    check(&[&passes, &fails, "--junit", report.to_str().unwrap()], 1);
    let xml = fs::read_to_string(report).unwrap();
    let count = |part: &str| xml.matches(part).count();
    assert_eq!((count("<testsuite "), count("<failure ")), (2, 7), "{xml}");
    assert!(xml.contains("found promote at 3m") && xml.contains("error_rate &gt; 5% for 1m"));
}

#[test]
fn a_directory_is_searched_and_one_without_tests_is_refused() {
    let (code, out, err) = run(&[repository("tests/cases/rule_tests").to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(out.contains("passes.test.yaml") && err.contains("nowhere.yaml"), "{out}{err}");
    let empty = tempfile::tempdir().unwrap();
    let line = Line::try_parse_from(["test", empty.path().to_str().unwrap()]).unwrap();
    let refused = test::run(&line.args, (false, 80), &mut Vec::new(), &mut Vec::new());
    assert!(refused.unwrap_err().to_string().contains("found no *.test.yaml"));
}

/// As `rules/*.yaml` gives both.
#[test]
fn a_rule_file_stands_for_the_tests_beside_it() {
    let rules = repository("rules/template.yaml");
    let tests = rules.with_file_name("template.test.yaml");
    let told = |paths: &[&PathBuf]| {
        let paths: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        let (code, out, err) = run(&paths);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        out.lines().filter(|line| line.contains("template.test.yaml")).count()
    };
    assert_eq!(told(&[&rules]), 1);
    assert_eq!(told(&[&rules, &tests]), 1);
}

/// The example of the page, with a rule file of its signals.
#[test]
fn the_example_of_the_page_passes() {
    let page = fs::read_to_string(repository("rules/README.md")).unwrap();
    let (_, rest) = page.split_once("```yaml\nrules: app.yaml").expect("it has an example");
    let (example, _) = rest.split_once("```").unwrap();
    let rules = "version: 1\nservice: app\nsignals:\n  error_rate: { ratio: 'a / b' }\n  \
                 p95_latency: { quantile: 0.95, of: c_seconds }\n  memory: { gauge: d_bytes }\n  \
                 app: { health: /health }\n  restarts: { restarts: e }\nrules:\n  \
                 - { when: error_rate > 5% for 5m, then: rollback }\npromote: { after: 15m }\n";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("app.yaml"), rules).unwrap();
    fs::write(dir.path().join("app.test.yaml"), format!("rules: app.yaml{example}")).unwrap();
    let (code, out, err) = run(&[dir.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
}

fn shop() -> RuleFile {
    let text = fs::read_to_string(repository("tests/cases/rule_tests/shop.yaml")).unwrap();
    rulefile::load("shop.yaml", &text).unwrap()
}

fn read(text: &str) -> Vec<Test> {
    let read = ruletest::load("a.test.yaml", text).and_then(|outline| outline.bind(&shop()));
    read.unwrap_or_else(|faults| panic!("{}", faults.render(false)))
}

/// What is said by name is observed as the same said by series.
#[test]
fn names_and_series_are_observed_alike() {
    let file = shop();
    let tests = read(
        "tests:
  - name: by name
    both: { error_rate: 2/100 x 10 then 5/100, traffic: 100, memory: 3MB, p95_latency: 100@200ms }
    findings: [{ at: 0s, verdict: watching }]
  - name: by series
    both:
      series:
        'http_requests_total{code=\"200\"}': 0+98x10 ..+95
        'http_requests_total{code=\"500\"}': 0+2x10 ..+5
        process_resident_memory_bytes: 3000000
        http_request_duration_seconds: 100@200ms
        process_start_time_seconds: -3600
    findings: [{ at: 0s, verdict: watching }]
",
    );
    let (mut named, mut scraped) = (Scene::new(&tests[0], &file), Scene::new(&tests[1], &file));
    for look in 0..30 {
        let (named, scraped) = (named.observe(), scraped.observe());
        for signal in [0, 1, 2, 4] {
            let (a, b) = (&named.signals[signal], &scraped.signals[signal]);
            assert!(alike(&a.canary, &b.canary), "look {look}: {:?} {:?}", a.canary, b.canary);
            assert!(alike(&a.baseline, &b.baseline), "look {look}");
            assert_eq!(a.parts.canary.len(), b.parts.canary.len(), "look {look}: {a:?} {b:?}");
        }
    }
}

/// Alike but for the last digits: buckets are counted up and taken apart again.
fn alike(one: &Reading, other: &Reading) -> bool {
    match (one, other) {
        (Ok(Value::Histogram(one)), Ok(Value::Histogram(other))) => {
            let mut pairs = one.counts.iter().zip(&other.counts);
            one.edges == other.edges && pairs.all(|(a, b)| (a - b).abs() < 1e-6)
        }
        (Ok(one), Ok(other)) => one == other,
        (Err(one), Err(other)) => one.why == other.why,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

/// Of random instances the arm shows the sum, the largest, and each as a part.
#[test]
fn instances_are_joined_as_a_plain_sum_says() {
    for seed in 0..50 {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(1..9);
        let shown: Vec<(u32, u32, u32)> = (0..count)
            .map(|_| (rng.random_range(0..10), rng.random_range(10..99), rng.random_range(1..99)))
            .collect();
        let instances: Vec<String> = shown
            .iter()
            .enumerate()
            .map(|(i, (events, total, level))| {
                format!(
                    "i{i}: {{ error_rate: {events}/{total}, memory: {level}MB, traffic: {total} }}"
                )
            })
            .collect();
        let text = format!(
            "tests: [{{ name: a, canary: {{ instances: {{ {} }} }}, expect: {{ verdict: promote }} }}]",
            instances.join(", ")
        );
        let (tests, file) = (read(&text), shop());
        let mut scene = Scene::new(&tests[0], &file);
        scene.observe();
        let seen = scene.observe();
        let sum = |of: fn(&(u32, u32, u32)) -> u32| f64::from(shown.iter().map(of).sum::<u32>());
        let share = Value::Share { events: sum(|s| s.0), total: sum(|s| s.1) };
        assert_eq!(seen.signals[0].canary, Ok(share), "seed {seed}");
        let largest = shown.iter().map(|s| s.2).max().unwrap();
        assert_eq!(seen.signals[4].canary, Ok(Value::Level(f64::from(largest) * 1e6)));
        let events = Value::Events {
            events: sum(|s| s.1),
            instance_secs: 5.0 * f64::from(count),
            instances: count as u32,
        };
        assert_eq!(seen.signals[2].canary, Ok(events), "seed {seed}");
        // One instance has nobody beside it to be told from.
        let apart = if count > 1 { count as usize } else { 0 };
        assert_eq!(seen.signals[0].parts.canary.len(), apart);
        assert_eq!(seen.signals[4].parts.canary.len(), count as usize);
    }
}

/// Test files with random damage are read or refused, and what is read runs to an end.
#[test]
fn damaged_test_files_never_panic() {
    let file = shop();
    let text = fs::read_to_string(repository("tests/cases/rule_tests/passes.test.yaml")).unwrap();
    let bits =
        ["'", "{", "}", ":", "then", "\n", "..", "x 3", "5m", "[", "NaN", "\u{0}", "ß", "  "];
    let mut ran = 0;
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut damaged = text.clone();
        for _ in 0..rng.random_range(1..4) {
            let mut at = rng.random_range(0..damaged.len());
            while !damaged.is_char_boundary(at) {
                at -= 1;
            }
            match rng.random_range(0..3) {
                0 => drop(damaged.remove(at)),
                1 => damaged.insert_str(at, bits[rng.random_range(0..bits.len())]),
                _ => damaged.truncate(at.max(200)),
            }
        }
        let read = ruletest::load("a.test.yaml", &damaged).and_then(|outline| outline.bind(&file));
        match read {
            // One of each is enough: they are many.
            Ok(tests) => {
                ran +=
                    tests.iter().take(1).map(|test| ruletest::run(test, &file).looks).sum::<u64>();
            }
            Err(faults) => {
                assert!(faults.iter().all(|fault| fault.span.end <= damaged.len()), "seed {seed}");
                faults.render(false);
            }
        }
    }
    assert!(ran > 0);
}
