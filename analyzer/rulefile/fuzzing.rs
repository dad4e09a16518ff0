//! What must hold of any bytes that are read as a rule file, a condition or a selector.
//!
//! Each function takes what a fuzzer made up and panics when a promise is broken. They are part of
//! the library only for the fuzz targets (`fuzz/`) and for the test that replays the kept corpus:
//! the pieces that they check are private to this module.

use std::{ops::Range, sync::LazyLock};

use regex::Regex;

use super::{
    Faults, RuleFile, condition, json_schema, load,
    selector::{self, Budget},
    test_file,
};
use crate::signal::{sample::Labels, spec::Selection};

/// The signals that fuzzed conditions speak of: one of each kind, and the words around them.
const HEAD: &str = r#"version: 1
service: s
signals:
  error_rate: { ratio: 'errors_total / requests_total' }
  hits: { ratio: 'hits_total / lookups_total', better: higher }
  traffic: { rate: requests_total }
  log_errors: { count: log_errors_total }
  p95_latency: { quantile: 0.95, of: duration_seconds }
  memory: { gauge: resident_bytes }
  pool: { gauge: 'in_use / size' }
  queue: { promql: 'avg(depth{$arm})' }
  app: { health: /health }
  restarts: { restarts: process_start_time_seconds }
promote: { after: 1h }
rules:
"#;

/// A rule file: it is read, and read again to the same, or refused in words that have places.
pub fn rule_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match load("fuzzed", text) {
        Ok(read) => {
            let again = load("fuzzed", text).expect("what was good stays good");
            assert_eq!(said(&read), said(&again));
            assert_eq!(read.specs.len(), read.rules.signals.len());
            let names = read.specs.iter().map(|spec| &spec.name);
            assert!(names.eq(read.rules.signals.iter().map(|signal| &signal.name)));
        }
        Err(faults) => check_faults(text, &faults),
    }
}

/// A test file: its shape is read, and then its tests by the signals of a rule file.
pub fn test_file(data: &[u8]) {
    static RULES: LazyLock<RuleFile> = LazyLock::new(|| {
        load("rules", &with_condition("error_rate > 5%")).expect("the rule file is good")
    });
    let Ok(text) = std::str::from_utf8(data) else { return };
    match test_file::load("fuzzed", text) {
        Ok(outline) => match outline.bind(&RULES) {
            Ok(tests) => assert!(!tests.is_empty() && tests.len() <= test_file::TESTS_MAX),
            Err(faults) => check_faults(text, &faults),
        },
        Err(faults) => check_faults(text, &faults),
    }
}

/// A condition: its words as they are shown are read to the same, and so is each of its clauses.
pub fn condition(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(complaint) = condition::parse(text) {
        return inside(&complaint.span, text);
    }
    let file = with_condition(text);
    let read = match load("fuzzed", &file) {
        Ok(read) => read,
        Err(faults) => return check_faults(&file, &faults),
    };
    // No squiggle in an editor under what is good.
    static PATTERN: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = format!("^(?:{})$", json_schema::value::condition());
        Regex::new(&pattern).expect("the schema's pattern is a regex")
    });
    assert!(PATTERN.is_match(text), "{text:?} is not what the schema knows as a condition");
    let rule = &read.rules.rules[0];
    let again = load("fuzzed", &with_condition(&rule.text));
    let again = again.unwrap_or_else(|faults| panic!("{text:?} is not read back: {faults}"));
    assert_eq!(rule, &again.rules.rules[0], "{text:?} is read back as something else");
    for clause in rule.when.clauses() {
        let alone = load("fuzzed", &with_condition(&clause.text));
        let alone = alone.unwrap_or_else(|faults| panic!("{clause:?} is not read back: {faults}"));
        let clauses = alone.rules.rules[0].when.clauses();
        assert_eq!(clauses.len(), 1, "{clause:?} is read back as several");
        let named = |file: &RuleFile, signal: usize| file.rules.signals[signal].name.clone();
        assert_eq!((clause.test, clause.scope), (clauses[0].test, clauses[0].scope), "{clause:?}");
        assert_eq!(named(&read, clause.signal), named(&alone, clauses[0].signal), "{clause:?}");
    }
}

/// A selector, by each of its readers: what is read can be asked of labels, and what a metrics
/// server is sent is PromQL that is read to the same.
pub fn selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let budget = Budget::new;
    let read = [
        selector::selection(text, &mut budget()).map(|of| vec![of]),
        selector::quotient(text, &mut budget()).map(|(events, total)| vec![events, total]),
        selector::level(text, &mut budget())
            .map(|(of, per)| std::iter::once(of).chain(per).collect()),
        selector::expression(text, &mut budget()).map(|_| Vec::new()),
    ];
    for read in read {
        match read {
            Ok(selections) => selections.iter().for_each(check_selection),
            Err(complaint) => inside(&complaint.span, text),
        }
    }
}

fn check_selection(selection: &Selection) {
    static LABELS: LazyLock<[Labels; 3]> = LazyLock::new(|| {
        let labels = |pairs: &[(&str, &str)]| {
            Labels::new(pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect())
        };
        [labels(&[]), labels(&[("code", "503")]), labels(&[("a", "a"), ("x", "\u{0}ü\n\"\\")])]
    });
    assert!(!selection.any_of.is_empty());
    for one in &selection.any_of {
        let text = one.to_string();
        promql_parser::parser::parse(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let again = selector::selection(&text, &mut Budget::new());
        let again = again.unwrap_or_else(|complaint| panic!("{text:?}: {complaint:?}"));
        assert_eq!(again.any_of.len(), 1, "{text:?}");
        assert_eq!(again.any_of[0].to_string(), text);
        for labels in LABELS.iter() {
            let matched = one.matches(labels);
            assert_eq!(matched, again.any_of[0].matches(labels), "{text:?}");
            assert!(!matched || selection.matches(&one.name, labels), "{text:?}");
            assert!(!matched || selection.could_match(&one.name, labels), "{text:?}");
        }
    }
}

/// A file whose one rule has this condition, quoted so that YAML leaves every character alone.
fn with_condition(condition: &str) -> String {
    let quoted = serde_json::to_string(condition).expect("a text is JSON");
    format!("{HEAD}  - {{ when: {quoted}, then: ok }}\n")
}

fn said(file: &RuleFile) -> String {
    format!("{:?} {:?} {}", file.rules, file.specs, file.sha256)
}

fn inside(span: &Range<usize>, text: &str) {
    assert!(span.start <= span.end && span.end <= text.len(), "{span:?} of {text:?}");
}

/// Every fault has its place, counted here in the slow and obvious way, and can be shown.
fn check_faults(text: &str, faults: &Faults) {
    assert!(faults.count() > 0 && faults.iter().len() > 0);
    for fault in faults {
        inside(&fault.span, text);
        if text.len() <= super::MAX_FILE_BYTES {
            let before = &text[..fault.span.start];
            // A byte order mark is no column.
            let before = before.strip_prefix('\u{feff}').unwrap_or(before);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            assert_eq!((fault.line, fault.column), (line, column), "{fault:?}");
        }
        assert!(!fault.message.is_empty() && !fault.expected.is_empty(), "{fault:?}");
        assert!(text.is_char_boundary(fault.span.end), "{fault:?}");
    }
    let plain = faults.render(false);
    assert!(!plain.contains('\u{1b}') || text.contains('\u{1b}'));
    // Fifty faults of a line of excerpt, each with the file's own words cut short.
    assert!(plain.len() < 400_000, "{} bytes said", plain.len());
    assert!(faults.render(true).len() >= plain.len());
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Every input that the fuzzers found worth keeping, and every one that once broke a promise.
    fn replay(target: &str, check: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/fuzz").join(target);
        let entries = fs::read_dir(folder).expect("the corpus is there");
        let mut count = 0;
        for entry in entries {
            check(&fs::read(entry.expect("it can be listed").path()).expect("it can be read"));
            count += 1;
        }
        assert!(count > 50, "only {count} inputs for {target}");
    }

    #[test]
    fn the_corpus_of_rule_files_keeps_every_promise() {
        replay("rule_file", super::rule_file);
    }

    #[test]
    fn the_corpus_of_conditions_keeps_every_promise() {
        replay("condition", super::condition);
    }

    #[test]
    fn the_corpus_of_selectors_keeps_every_promise() {
        replay("selector", super::selector);
    }
}
