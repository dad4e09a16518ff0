//! `rollgate check`: which files it reads, what it says of them, to people and to machines.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use rollgate::{
    cli::check::{self, Format, Options},
    rulefile::{self, StatedTraffic, lint},
};
use serde_json::Value;

/// Lints of configurations, beside those of rule files.
const CONFIG_LINTS: usize = 5;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The exit code, and what was said to both sides.
fn checked(paths: &[PathBuf], options: Options) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check::check(paths, &options, &mut out, &mut err).expect("buffers can be written");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (code, text(out), text(err))
}

fn for_machines(paths: &[PathBuf], format: Format) -> (u8, String) {
    let (code, out, err) = checked(paths, Options { format, ..Options::default() });
    assert_eq!(err, "", "what is for machines is said whole on one side");
    (code, out)
}

/// A good file, one with a warning, one with faults, one that is not there.
fn four() -> Vec<PathBuf> {
    vec![
        repository("rules/recommended.yaml"),
        repository("tests/cases/lints/rollback-on-one-check.yaml"),
        repository("tests/cases/rules/not_ascii.yaml"),
        repository("rules/no-such-file.yaml"),
    ]
}

#[test]
fn a_good_file_is_told_in_one_line_when_quiet() {
    let quiet = Options { quiet: true, ..Options::default() };
    let (code, said, err) = checked(&[repository("rules/recommended.yaml")], quiet);
    assert_eq!((code, err.len(), said.lines().count()), (check::GOOD, 0, 1), "{said}");
    let expected = "good: any-http-service, 5 signals and 5 rules (5 rollback) looked at every 2s; \
                    promotes after 10m at the earliest once error_rate is shown within 2x or 1 % and \
                    p95_latency is shown within 1.5x, and at 30m without enough data or proof: hold\n";
    assert!(said.ends_with(expected), "{said}");
}

/// What a good file holds, in exactly these words (`BLESS=1` writes them anew), within 80 columns.
#[test]
fn a_good_file_is_told_as_a_matrix() {
    let beside = repository("tests/cases/check_matrix.txt");
    let mut said = String::new();
    for name in ["rules/recommended.yaml", "tests/cases/lints/shadowed-rule.yaml"] {
        let (code, out, _) = checked(&[repository(name)], Options::default());
        assert_eq!(code, check::GOOD);
        said += &out.replace(&repository(name).display().to_string(), name);
    }
    let wide: Vec<&str> = said.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&beside, &said).expect("the words can be written");
    }
    assert_eq!(fs::read_to_string(&beside).unwrap_or_default(), said, "\n{said}");
}

/// What `README.md` shows is what is said.
#[test]
fn the_page_shows_what_is_said() {
    let file = repository("tests/cases/check_example.yaml");
    let (_, out, err) = checked(std::slice::from_ref(&file), Options::default());
    let said = (out + &err).replace(&file.display().to_string(), "shop.yaml");
    let page = fs::read_to_string(repository("README.md")).expect("the page is there");
    let shown = format!("$ rollgate check shop.yaml\n{}\n```", said.trim_end());
    assert!(page.contains(&shown), "{shown}");
}

#[test]
fn every_file_is_read_whatever_is_wrong_with_one() {
    let quiet = Options { quiet: true, ..Options::default() };
    let (code, out, err) = checked(&four(), quiet);
    assert_eq!((code, out.lines().count()), (check::FAULTY, 2), "{out}");
    for said in ["not_ascii.yaml: 2 faults", "no-such-file", "warning[rollback-on-one-check]"] {
        assert!(err.contains(said), "{said}: {err}");
    }
    assert!(err.ends_with("4 files: 3 faults and 1 warning\n"), "{err}");
}

#[test]
fn a_directory_stands_for_its_rule_files() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("it can be written");
    };
    let good = fs::read_to_string(repository("rules/recommended.yaml")).expect("it is there");
    write("b.yaml", &good);
    write("a.yml", &good);
    for other in ["b.test.yaml", ".hidden.yaml", "c.json", "notes.md"] {
        write(other, "not a rule file");
    }
    fs::create_dir(folder.path().join("sub.yaml")).expect("a folder can be made");
    let quiet = Options { quiet: true, ..Options::default() };
    let (code, out, err) = checked(&[folder.path().to_owned()], quiet);
    let names: Vec<&str> =
        out.lines().filter_map(|line| line.split_once(": ")?.0.rsplit('/').next()).collect();
    assert_eq!((code, names, err.as_str()), (check::GOOD, vec!["a.yml", "b.yaml"], ""));
    let (code, _, err) = checked(&[folder.path().join("sub.yaml")], quiet);
    assert_eq!(code, check::FAULTY);
    assert!(err.contains("holds no rule file"), "{err}");
    for number in 0..=check::MAX_FILES {
        write(&format!("{number}.yaml"), "");
    }
    let (code, _, err) = checked(&[folder.path().to_owned()], quiet);
    assert_eq!(code, check::FAULTY);
    assert!(err.contains("and at most 1000 are read"), "{err}");
}

/// A file of tests is read with the rule file beside it, and not run.
#[test]
fn a_file_of_tests_is_read_as_such() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("it can be written");
    };
    let rules = fs::read_to_string(repository("tests/cases/check_example.yaml")).expect("text");
    let good =
        "tests:\n  - { name: fine, canary: { app: up }, expect: { verdict: inconclusive } }\n";
    for (name, rules, tests, code, said) in [
        ("good", rules.as_str(), good, check::GOOD, "good.test.yaml: good: 1 test of "),
        ("signal", &rules, &good.replace("app", "ap"), check::FAULTY, "did you mean `app`?"),
        ("faulty", "version: 2", good, check::FAULTY, "has faults; check that first"),
        ("shape", &rules, "tests: 5", check::FAULTY, "shape.test.yaml: 1 fault"),
    ] {
        write(&format!("{name}.yaml"), rules);
        write(&format!("{name}.test.yaml"), tests);
        let file = folder.path().join(format!("{name}.test.yaml"));
        let (found, out, err) = checked(&[file], Options::default());
        assert!(found == code && (out.clone() + &err).contains(said), "{name}: {out}{err}");
    }
}

#[test]
fn no_more_is_read_than_a_rule_file_may_have() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let big = folder.path().join("big.yaml");
    fs::write(&big, "# no rules\n".repeat(1 << 20)).expect("it can be written");
    let binary = folder.path().join("binary.yaml");
    fs::write(&binary, [0xff, 0xfe, 0x00]).expect("it can be written");
    let begun = Instant::now();
    let (code, out, err) = checked(&[big, binary], Options::default());
    println!("refused in {:?}", begun.elapsed());
    assert_eq!((code, out.len()), (check::FAULTY, 0));
    assert!(err.contains("larger than 256 KiB") && err.contains("not text"), "{err}");
}

#[test]
fn warnings_are_good_unless_they_are_denied() {
    let file = [repository("tests/cases/lints/unused-signal.yaml")];
    let deny = Options { deny_warnings: true, ..Options::default() };
    assert_eq!(checked(&file, Options::default()).0, check::GOOD);
    assert_eq!(checked(&file, deny).0, check::FAULTY);
    assert_eq!(checked(&[repository("rules")], deny).0, check::GOOD);
    let (_, out) = for_machines(&file, Format::Json);
    let json: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!(json["good"], true);
}

/// The command line's traffic stands in the place of the file's.
#[test]
fn stated_traffic_is_reckoned_with() {
    let file = [repository("rules/recommended.yaml")];
    let at = |rps: f64| Options {
        traffic: Some(StatedTraffic { rps, baseline_rps: None }),
        ..Options::default()
    };
    let (_, _, err) = checked(&file, at(20.0));
    assert_eq!(err, "");
    let (code, _, err) = checked(&file, at(0.01));
    assert_eq!(code, check::GOOD);
    for lint in ["promotion-beyond-traffic", "evidence-beyond-traffic"] {
        assert!(err.contains(&format!("warning[{lint}]: at 36/h")), "{err}");
    }
    let (_, _, err) = checked(&[repository("tests/cases/lints/quantile-of-few.yaml")], at(50.0));
    assert_eq!(err, "");
}

#[test]
fn json_is_one_object_of_a_stable_shape() {
    let (code, out) = for_machines(&four(), Format::Json);
    assert_eq!(code, check::FAULTY);
    let json: Value = serde_json::from_str(&out).expect("it is JSON");
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(keys(&json), ["faults", "files", "good", "schema", "warnings"]);
    assert_eq!(json["schema"], "rollgate.check.v1");
    assert_eq!((&json["faults"], &json["warnings"]), (&3.into(), &1.into()));
    let files = json["files"].as_array().expect("a list");
    let states: Vec<&Value> = files.iter().map(|file| &file["state"]).collect();
    assert_eq!(states, ["good", "good", "faulty", "unreadable"]);
    let expected = [
        "configuration",
        "error",
        "faults",
        "faults_count",
        "file",
        "service",
        "sha256",
        "state",
        "warnings",
        "warnings_count",
    ];
    files.iter().for_each(|file| assert_eq!(keys(file), expected));
    let (warning, fault) = (&files[1]["warnings"][0], &files[2]["faults"][0]);
    let expected = [
        "column",
        "end_column",
        "end_line",
        "expected",
        "hint",
        "line",
        "lint",
        "means",
        "message",
    ];
    assert_eq!(
        (keys(warning), keys(fault)),
        (expected.map(str::to_owned).to_vec(), expected.map(str::to_owned).to_vec())
    );
    assert_eq!(warning["lint"], "rollback-on-one-check");
    assert!(warning["means"].is_string() && fault["means"].is_null() && fault["lint"].is_null());
    assert!(files[3]["error"].as_str().is_some_and(|error| error.contains("no-such-file")));
}

/// What SARIF 2.1.0 asks of a log, as far as this one goes: each key is one that the standard names
/// at its place, required ones are there, and whatever is pointed at exists.
#[test]
fn sarif_is_a_log_of_its_standard() {
    let (code, out) = for_machines(&four(), Format::Sarif);
    assert_eq!(code, check::FAULTY);
    let log: Value = serde_json::from_str(&out).expect("it is JSON");
    let only = |value: &Value, required: &[&str], optional: &[&str]| {
        let keys: BTreeSet<&str> =
            value.as_object().expect("an object").keys().map(String::as_str).collect();
        assert!(required.iter().all(|key| keys.contains(key)), "{required:?}: {value}");
        let known = |key: &&str| required.contains(key) || optional.contains(key);
        assert!(keys.iter().all(known), "{value}");
    };
    let text = |message: &Value| {
        only(message, &["text"], &[]);
        assert!(message["text"].as_str().is_some_and(|text| !text.is_empty()), "{message}");
    };
    only(&log, &["version", "runs"], &["$schema"]);
    assert_eq!(log["version"], "2.1.0");
    assert_eq!(log["runs"].as_array().expect("a list").len(), 1);
    let run = &log["runs"][0];
    only(run, &["tool"], &["results", "columnKind", "invocations"]);
    assert_eq!(run["columnKind"], "unicodeCodePoints");
    only(&run["tool"], &["driver"], &[]);
    only(&run["tool"]["driver"], &["name"], &["version", "rules"]);
    for invocation in run["invocations"].as_array().expect("a list") {
        only(invocation, &["executionSuccessful"], &["toolExecutionNotifications"]);
    }
    let rules = run["tool"]["driver"]["rules"].as_array().expect("a list");
    for rule in rules {
        let known = ["shortDescription", "fullDescription", "help", "defaultConfiguration"];
        only(rule, &["id"], &known);
        known[..3].iter().for_each(|key| text(&rule[key]));
    }
    assert_eq!(rules.len(), lint::ALL.len() + 2 + CONFIG_LINTS);
    let results = run["results"].as_array().expect("a list");
    assert_eq!(results.len(), 4);
    for result in results {
        only(result, &["message"], &["ruleId", "ruleIndex", "level", "locations"]);
        text(&result["message"]);
        let index = result["ruleIndex"].as_u64().expect("a number") as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert_eq!(rules[index]["defaultConfiguration"]["level"], result["level"]);
        let place = &result["locations"][0]["physicalLocation"];
        only(place, &["artifactLocation"], &["region"]);
        let uri = place["artifactLocation"]["uri"].as_str().expect("text");
        assert!(!uri.starts_with('/') && !uri.contains([' ', '\\', ':']), "{uri}");
        if let Some(region) = place.get("region") {
            only(region, &["startLine"], &["startColumn", "endLine", "endColumn"]);
        }
    }
    // `größe` before the place: columns are characters.
    let region = &results[1]["locations"][0]["physicalLocation"]["region"];
    let text = fs::read_to_string(repository("tests/cases/rules/not_ascii.yaml")).expect("text");
    let number = |key: &str| region[key].as_u64().expect("a number") as usize;
    let line: Vec<char> =
        text.lines().nth(number("startLine") - 1).expect("a line").chars().collect();
    let found: String = line[number("startColumn") - 1..number("endColumn") - 1].iter().collect();
    let expected = rulefile::load("t", &text).expect_err("it has a fault");
    let span = expected.iter().next().expect("a fault").span.clone();
    assert_eq!(found, text[span]);
}

#[test]
fn github_gets_one_command_a_line() {
    let (_, out) = for_machines(&four(), Format::Github);
    let lines: Vec<&str> = out.lines().collect();
    let case = |name: &str| repository(name).display().to_string();
    let [warning, fault, _, unreadable] = lines[..] else { panic!("{out}") };
    let begins = format!(
        "::warning file={},line=15,endLine=15,col=",
        case("tests/cases/lints/rollback-on-one-check.yaml")
    );
    assert!(warning.starts_with(&begins), "{warning}");
    assert!(warning.contains(",title=rule file (rollback-on-one-check)::one failed check"));
    assert!(warning.contains("%0Aso: ") && warning.contains("%0Aexpected: "), "{warning}");
    assert!(fault.starts_with("::error file=") && fault.contains("not_ascii.yaml,line="));
    assert!(unreadable.starts_with("::error file=") && !unreadable.contains("line="));
}

/// Every wrong file of `tests/cases/rules` is refused in exactly the words beside it. Run with
/// `BLESS=1` to write those words anew, and read them as the person who made the mistake.
#[test]
fn wrong_files_are_refused_in_the_words_beside_them() {
    let mut cases: Vec<PathBuf> = fs::read_dir(repository("tests/cases/rules"))
        .expect("the cases are there")
        .map(|entry| entry.expect("a directory can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut differing = Vec::new();
    for case in cases {
        let name = case.file_name().expect("it has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&case).expect("a case is text");
        let said = match rulefile::load(&name, &text) {
            Ok(_) => panic!("{name} was found good"),
            Err(faults) => format!("{}\n", faults.render(false)),
        };
        let beside = case.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&beside, &said).expect("the words can be written");
        }
        if fs::read_to_string(&beside).unwrap_or_default() != said {
            differing.push(format!("{name} is now refused with:\n{said}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Lines and columns of every fault of the cases name exactly the bytes of its span.
#[test]
fn places_name_the_text_they_are_about() {
    let position = |text: &str, line: usize, column: usize| {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
        let start = starts.into_iter().nth(line - 1).expect("the line is there");
        let rest = &text[start..];
        let rest = rest.strip_prefix('\u{feff}').unwrap_or(rest);
        let start = text.len() - rest.len();
        start + rest.chars().take(column - 1).map(char::len_utf8).sum::<usize>()
    };
    let mut seen = 0;
    for entry in fs::read_dir(repository("tests/cases/rules")).expect("the cases are there") {
        let path = entry.expect("a directory can be listed").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a case is text");
        let Err(faults) = rulefile::load("t", &text) else { continue };
        for fault in &faults {
            let start = position(&text, fault.line, fault.column);
            let end = position(&text, fault.end_line, fault.end_column);
            assert_eq!(start..end, fault.span, "{}: {fault}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}

#[test]
fn the_command_reads_its_arguments() {
    let run = |args: &[&str]| {
        let run = Command::new(env!("CARGO_BIN_EXE_rollgate"))
            .args(args)
            .current_dir(repository(""))
            .env("NO_COLOR", "1")
            .output()
            .expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        (run.status.code(), text(run.stdout), text(run.stderr))
    };
    let (code, out, _) = run(&["check", "--list-lints"]);
    assert_eq!(code, Some(0));
    assert!(lint::ALL.iter().all(|lint| out.contains(lint.name)), "{out}");
    assert_eq!(run(&["check"]).0, Some(2));
    assert_eq!(run(&["check", "--deny", "warnings", "-q", "rules"]).0, Some(0));
    let warned = Path::new("tests/cases/lints/unused-signal.yaml");
    let warned = warned.to_str().expect("text");
    assert_eq!(run(&["check", warned]).0, Some(0));
    assert_eq!(run(&["check", "--deny", "warnings", warned]).0, Some(2));
    let (_, out, _) = run(&["check", "--format", "sarif", &format!("./{warned}")]);
    assert!(out.contains(&format!("\"uri\": \"{warned}\"")), "{out}");
    let (code, _, err) = run(&["plan", "rules/recommended.yaml"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--traffic 50rps"), "{err}");
    let stated = "tests/cases/lints/quantile-of-few.yaml";
    let (code, out, _) = run(&["plan", stated, "--json"]);
    let plan: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!((code, plan["canary_rps"].as_f64()), (Some(0), Some(2.0)));
    let (_, out, _) = run(&["plan", stated, "--json", "--traffic", "7/s"]);
    let plan: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!(plan["canary_rps"].as_f64(), Some(7.0));
}
