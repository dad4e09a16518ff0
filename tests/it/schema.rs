//! The JSON Schema of rule files against the reader of rule files: what an editor underlines is
//! wrong, and what it cannot see is listed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use rollgate::rulefile::{self, json_schema};
use serde_json::Value;

use crate::rules;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The file as an editor understands it: numbers, true and false are what YAML says they are. None
/// when it is no YAML.
fn as_an_editor_reads(text: &str) -> Option<Value> {
    serde_saphyr::from_str(text).ok()
}

fn validator() -> jsonschema::Validator {
    let schema = json_schema::rule_file();
    jsonschema::draft7::meta::validate(&schema).expect("it is a schema");
    jsonschema::draft7::new(&schema).expect("it is a schema")
}

/// Every file of a folder with this ending, by name.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let entries = fs::read_dir(repository(folder)).expect("the folder is there");
    let mut files: Vec<(String, String)> = entries
        .map(|entry| entry.expect("a folder can be listed").path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), path))
        .filter(|(name, _)| name.ends_with(ending))
        .map(|(name, path)| (name, fs::read_to_string(path).expect("it is text")))
        .collect();
    files.sort();
    files
}

/// The rule files in the pages' examples: those that are whole, and those that are the end of one.
fn examples() -> Vec<String> {
    let pages = ["README.md", "rules/README.md"].map(|page| fs::read_to_string(repository(page)));
    let (file, _) = rules::readme();
    let (head, _) = file.split_once("promote:").expect("it promotes");
    let mut examples = Vec::new();
    for page in pages {
        let page = page.expect("the page is there");
        for block in page.split("```yaml\n").skip(1) {
            let (block, _) = block.split_once("```").expect("the example ends");
            let whole = [block.to_owned(), format!("{head}{block}")];
            examples.extend(whole.into_iter().filter(|text| rulefile::load("t", text).is_ok()));
        }
    }
    examples
}

/// What the schema has against a text, place by place.
fn faults(validator: &jsonschema::Validator, value: &Value) -> Vec<String> {
    let told =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(value).map(told).collect()
}

/// The committed file, for editors that read it from the repository, is what is printed. `BLESS=1`
/// writes it anew.
#[test]
fn the_committed_schema_is_the_printed_one() {
    let printed = Command::new(env!("CARGO_BIN_EXE_rollgate")).arg("schema").output().unwrap();
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    let committed = repository("rules/rollgate.schema.json");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&committed, &printed.stdout).unwrap();
    }
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(
        fs::read_to_string(committed).unwrap_or_default() == printed,
        "rules/rollgate.schema.json is not what `rollgate schema` prints: run this test with BLESS=1"
    );
    assert_eq!(printed, json_schema::text(&json_schema::rule_file()));
}

#[test]
fn good_files_are_good_to_an_editor() {
    let validator = validator();
    let check = |name: &str, text: &str| {
        let value = as_an_editor_reads(text).unwrap_or_else(|| panic!("{name} is no YAML"));
        assert_eq!(faults(&validator, &value), Vec::<String>::new(), "{name}");
    };
    for (name, text) in files("rules", ".yaml") {
        if !name.ends_with(".test.yaml") {
            check(&name, &text);
        }
    }
    let (file, conditions) = rules::readme();
    check("rules/README.md", &file);
    for condition in conditions {
        check(&condition, &rules::with_condition(&condition));
    }
    let examples = examples();
    assert!(examples.len() >= 3, "{examples:?}");
    for example in examples {
        check(&example, &example);
    }
}

/// Of the wrong files, those in which a schema sees nothing wrong are exactly the listed ones.
/// `BLESS=1` writes the list anew; read what it gained.
#[test]
fn what_the_schema_cannot_see_is_listed() {
    let validator = validator();
    let unseen = |(name, text): (String, String)| {
        let value = as_an_editor_reads(&text)?;
        validator.is_valid(&value).then(|| format!("{name}\n"))
    };
    let wrong = files("tests/cases/rules", ".yaml");
    let count = wrong.len();
    let unseen: Vec<String> = wrong
        .into_iter()
        .filter(|(name, text)| rulefile::load(name, text).is_err())
        .filter_map(unseen)
        .collect();
    let listed = repository("tests/cases/rules/unseen_by_the_schema.list");
    if std::env::var_os("BLESS").is_some() {
        fs::write(&listed, unseen.concat()).unwrap();
    }
    assert_eq!(unseen.concat(), fs::read_to_string(listed).unwrap_or_default());
    assert!(unseen.len() * 2 < count, "it sees too little: {} of {count}", count - unseen.len());
}

/// Whatever the reader accepts, an editor accepts: random changes to good files, where both are
/// asked about every outcome.
#[test]
fn no_squiggle_under_a_good_file() {
    let seed = rules::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let validator = validator();
    let mut whole: Vec<String> = files("rules", ".yaml")
        .into_iter()
        .filter(|(name, _)| !name.ends_with(".test.yaml"))
        .map(|(_, text)| text)
        .collect();
    whole.extend(examples());
    let (mut good, mut changed) = (0, 0);
    for round in 0..3000 {
        let text = damaged(&mut random, &whole[round % whole.len()]);
        if rulefile::load("t", &text).is_err() {
            continue;
        }
        good += 1;
        changed += usize::from(!whole.contains(&text));
        // Anything the two YAML readers disagree on is no matter of the schema.
        let Some(value) = as_an_editor_reads(&text) else { continue };
        if says_null_or_is_named_true(&value) {
            continue;
        }
        let faults = faults(&validator, &value);
        assert!(faults.is_empty(), "seed {seed}: {faults:?}\n{text}");
    }
    assert!(good > 100 && changed > 50, "seed {seed}: only {good} good files, {changed} new");
}

/// Random conditions as people could write them.
#[test]
fn no_squiggle_under_a_good_condition() {
    let seed = rules::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let validator = validator();
    let (file, _) = rules::readme();
    let read = rulefile::load("t", &file).expect("it is good");
    let signals: Vec<String> = read.specs.into_iter().map(|spec| spec.name).collect();
    for _ in 0..300 {
        let (text, _) = rules::random_condition(&mut random, &signals, 3);
        let value = as_an_editor_reads(&rules::with_condition(&text)).expect("it is YAML");
        assert_eq!(faults(&validator, &value), Vec::<String>::new(), "seed {seed}: {text}");
    }
}

/// A change of one place: a piece taken out, put in, or put in the place of another.
fn damaged(random: &mut StdRng, whole: &str) -> String {
    let pieces = [
        " ", "  ", "\n", "#", "'", "\"", "{", "}", ":", "-", "1", "0", "5%", "0.5", "s", "m", "1h",
        "x", " or ", " and ", "not ", "(", ")", " for 1m", " is up", "true", "null", "~", "yes",
        "é", "\"5m\"", "lower", "ok", "+", ".", "_", "/",
    ];
    let mut text = whole.to_owned();
    let mut at = random.random_range(0..=text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let end = text[at..].char_indices().nth(random.random_range(1..8)).map(|(n, _)| at + n);
    let piece = pieces[random.random_range(0..pieces.len())];
    match (random.random_range(0..3), end) {
        (0, Some(end)) => text.replace_range(at..end, ""),
        (1, Some(end)) => text.replace_range(at..end, piece),
        _ => text.insert_str(at, piece),
    }
    text
}

/// The two exceptions: words that YAML reads as null, and selectors that it reads as true or false.
fn says_null_or_is_named_true(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => true,
        Value::Object(entries) => entries.iter().any(|(key, value)| {
            key != "optional" && key != "up" && says_null_or_is_named_true(value)
        }),
        Value::Array(items) => items.iter().any(says_null_or_is_named_true),
        Value::Number(_) | Value::String(_) => false,
    }
}

/// The words of an editor's squiggle are for people: a wrong file is refused where it is wrong.
#[test]
fn a_wrong_value_is_told_where_it_stands() {
    let validator = validator();
    let (file, _) = rules::readme();
    let check = |from: &str, to: &str, place: &str| {
        assert!(file.contains(from), "{from}");
        let value = as_an_editor_reads(&file.replacen(from, to, 1)).expect("it is YAML");
        let faults = faults(&validator, &value);
        let found = faults.iter().any(|fault| fault.starts_with(&format!("{place}: ")));
        assert!(found, "{to}: {faults:?}");
    };
    check("interval: 5s", "interval: 5", "/observe/interval");
    check("interval: 5s", "intervall: 5s", "/observe");
    check("then: rollback", "then: rolback", "/rules/0/then");
    check("error_rate > 1.5x baseline", "error_rate => 5%", "/rules/0/when");
    check("error_rate > 1.5x baseline", "error_rate > 5 min", "/rules/0/when");
    check("error_rate > 1.5x baseline", "app is dwon", "/rules/0/when");
    check("floor: 0.1%", "floor: 90ms", "/signals/error_rate/floor");
    check("{ rate: http_requests_total }", "{ rate: a_total, floor: 1% }", "/signals/traffic");
    check("{ rate: http_requests_total }", "{ rate: a_total, count: a }", "/signals/traffic");
    check("quantile: 0.95", "quantile: 95", "/signals/p95_latency/quantile");
    check("of: http_request_duration_seconds", "instances: max", "/signals/p95_latency");
    check("otherwise: hold", "otherwise: wait", "/promote/otherwise");
    check("after: 15m", "after: 15 min", "/promote/after");
    check("  log_errors:", "  not:", "/signals");
}
