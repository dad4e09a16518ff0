//! The whole language: what the specification and the pages show is read, and what rules ask of health
//! answers becomes signals.

use std::fs;

use rollgate::{
    engine::rule::{Better, Unit},
    rulefile,
    signal::spec::{Reads, Reduce},
};

use super::rules::{repository, with_condition};

/// What rules ask of health answers becomes signals beside those of the file, each once and called as
/// it is written; the worst of several instances counts.
#[test]
fn numbers_of_health_answers_are_signals_of_their_own() {
    let read = |condition: &str| {
        rulefile::load("t", &with_condition(condition))
            .unwrap_or_else(|faults| panic!("{}", faults.render(false)))
    };
    let named = read("app is down").rules.signals.len();
    let added = |condition: &str| -> Vec<(String, Reduce)> {
        let file = read(condition);
        assert_eq!(file.specs.len(), file.rules.signals.len());
        let both = file.rules.signals.iter().zip(&file.specs).skip(named);
        both.map(|(signal, spec)| {
            assert_eq!(signal.name, spec.name);
            let Reads::Answer { reduce, .. } = &spec.reads else { panic!("{spec:?}") };
            let better = if *reduce == Reduce::Min { Better::Higher } else { Better::Lower };
            assert_eq!((signal.better, signal.optional), (better, false));
            (signal.name.clone(), *reduce)
        })
        .collect()
    };
    let check = |condition: &str, expected: &[(&str, Reduce)]| {
        let expected: Vec<_> =
            expected.iter().map(|(name, how)| ((*name).to_owned(), *how)).collect();
        assert_eq!(added(condition), expected, "{condition}");
    };
    check("latency(app) > 1s for 1m", &[]);
    check("field(app,  n ) > 1 or field(app, n) >= 5 for 1m", &[("field(app, n)", Reduce::Max)]);
    check("field(app, n) < 1", &[("field(app, n)", Reduce::Min)]);
    check(
        "field(app, n) < 1 or field(app, n) > 5 or slope(field(app, n)) > 1/s",
        &[("field(app, n)", Reduce::Min), ("greatest field(app, n)", Reduce::Max)],
    );
    check(
        "field(app, n) > 1 and (field(auth, n) > 1 or latency(app) > 1s)",
        &[
            ("field(app, n)", Reduce::Max),
            ("field(auth, n)", Reduce::Max),
            ("latency(app)", Reduce::Max),
        ],
    );
    let units = |condition: &str| read(condition).rules.signals[named].unit;
    assert_eq!(units("field(app, uptime_seconds) > 1s"), Unit::Seconds);
    assert_eq!(units("field(app, heapBytes) > 1MB"), Unit::Bytes);
    assert_eq!(units("field(app, n) > 1"), Unit::Number);
    // They count among the signals of a file.
    let signals: String = (0..64).map(|n| format!("  s{n}: {{ health: /h }}\n")).collect();
    let text = format!(
        "version: 1\nservice: s\nsignals:\n{signals}rules:\n  \
         - {{ when: 'field(s0, n) > 1', then: ok }}\npromote: {{ after: 1m }}\n"
    );
    let faults = rulefile::load("t", &text).expect_err("one too many").render(false);
    assert!(faults.contains("one signal too many"), "{faults}");
}

/// The specification's own example, and every form that it names.
#[test]
fn the_specification_is_read() {
    let text = fs::read_to_string(repository("tests/cases/specification.yaml")).expect("there");
    let read = rulefile::load("specification.yaml", &text);
    let read = read.unwrap_or_else(|faults| panic!("{}", faults.render(false)));
    assert_eq!((read.rules.rules.len(), read.rules.signals.len()), (11, 7));
    for condition in [
        "error_rate > 5% for 5m",
        "error_rate > 5%",
        "error_rate > 1.5x baseline for 2m",
        "database is down for 3 checks",
        "restarts >= 1 and log_errors >= 1 or not app is up",
        "(slope(memory) > 100MB/min)",
        "latency(app) > 500ms",
        "field(app, active_connections) > 100",
        "app is up for 5m or app is degraded for 1m",
        "memory < 2GiB for 10m",
    ] {
        let text = text.replace("log_errors >= 1,", &format!("'{condition}',"));
        assert!(text.contains(condition));
        if let Err(faults) = rulefile::load("specification.yaml", &text) {
            panic!("{}", faults.render(false));
        }
    }
}

/// No example in the pages goes unread: each fenced block is of a kind that some test reads.
#[test]
fn every_block_of_the_pages_is_of_a_known_kind() {
    let mut rule_files = 0;
    for page in ["README.md", "rules/README.md"] {
        let text = fs::read_to_string(repository(page)).expect("the page is there");
        for block in text.split("```yaml\n").skip(1) {
            let (block, _) = block.split_once("```").expect("it ends");
            let begins = |word: &str| block.lines().any(|line| line.starts_with(word));
            if begins("version:") {
                rule_files += 1;
                if let Err(faults) = rulefile::load(page, block) {
                    panic!("{}", faults.render(false));
                }
                continue;
            }
            // The service's own file, that of a hook, rule tests and parts of one, a workflow of CI,
            // what stands in the place of `promote` or of `allow`, and objects of a cluster.
            let known = [
                "store:",
                "mechanisms:",
                "access:",
                "on:",
                "tests:",
                "    canary:",
                "jobs:",
                "promote:",
                "allow:",
                "metrics:",
                "apiVersion:",
                "  - { apiGroups:",
            ];
            let known = known.into_iter().any(begins);
            assert!(known, "{page}: no test reads this:\n{block}");
        }
    }
    assert!(rule_files >= 2, "{rule_files} rule files");
}

/// What the page offers for a runbook's words can be written so. Signals that its one example does
/// not define are the only thing that may be missing.
#[test]
fn every_condition_that_the_page_offers_is_one() {
    let text = fs::read_to_string(repository("rules/README.md")).expect("the page is there");
    let offered: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split("`when: ").skip(1))
        .filter_map(|rest| Some(rest.split_once('`')?.0))
        .collect();
    assert!(offered.len() >= 6, "{offered:?}");
    for condition in offered {
        let condition = condition.trim_matches('\'');
        if let Err(faults) = rulefile::load("README.md", &with_condition(condition)) {
            let said = faults.render(false);
            assert!(faults.count() == said.matches("unknown signal").count(), "{said}");
        }
    }
}
