//! The Grafana dashboard asks only for metrics that exist, in PromQL that can be read.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use regex::Regex;
use rollgate::{
    engine::verdict::Verdict,
    telemetry::{
        Telemetry,
        analysis::{EvidenceFact, LookFact, Opening, Subject},
    },
};
use serde_json::Value;

/// Metrics of the sources and the deliveries, which this test does not bring about.
const OF_OTHER_PARTS: [&str; 4] = [
    "rollgate_scrapes_total",
    "rollgate_scrape_duration_seconds_bucket",
    "rollgate_deliveries_total",
    "rollgate_deliveries_pending",
];

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/grafana/rollgate.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Every `expr` and `query` in the dashboard.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "expr" || name == "query" => {
                        found.push(text.clone());
                    }
                    _ => expressions(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| expressions(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `/metrics` after one of everything has happened.
fn rendered() -> String {
    let telemetry = Telemetry::new();
    for (id, verdict) in [("a", Verdict::Watching), ("b", Verdict::Rollback { rule: 0 })] {
        let subject = Subject { id, service: "shop", canary_version: id };
        telemetry.analysis().opened(subject, Opening::New);
        let fact = LookFact {
            look: 1,
            verdict,
            reason: "",
            took: Duration::from_millis(1),
            elapsed: Duration::from_secs(9),
            evidence: vec![EvidenceFact { clause: "errors > 1%", decades: 1.0, needed: 3.0 }],
        };
        telemetry.analysis().looked(subject, &fact);
    }
    telemetry.http().answered(Some("/"), "GET", 200, Duration::from_millis(1));
    telemetry.render()
}

#[test]
fn every_metric_on_the_dashboard_exists() {
    let mut asked = Vec::new();
    expressions(&dashboard(), &mut asked);
    let name = Regex::new("rollgate_[a-z_]+").unwrap();
    let body = rendered();
    let exist: BTreeSet<&str> =
        body.lines().filter_map(|line| name.find(line)).map(|found| found.as_str()).collect();
    let names: BTreeSet<&str> =
        asked.iter().flat_map(|text| name.find_iter(text)).map(|found| found.as_str()).collect();
    assert!(names.len() > 15, "{names:?}");
    let unknown: Vec<_> = names
        .into_iter()
        .filter(|name| !exist.contains(name) && !OF_OTHER_PARTS.contains(name))
        .collect();
    assert!(unknown.is_empty(), "not in /metrics: {unknown:?}\n{body}");
}

#[test]
fn every_expression_is_promql() {
    let mut asked = Vec::new();
    expressions(&dashboard(), &mut asked);
    for text in asked.iter().filter(|text| text.contains("rollgate_")) {
        let filled = text
            .replace("$__rate_interval", "1m")
            .replace("$__range", "3h")
            .replace("$service", ".*");
        if filled.starts_with("label_values(") {
            continue;
        }
        assert!(promql_parser::parser::parse(&filled).is_ok(), "{text}");
    }
}

#[test]
fn panels_are_distinct_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}", panel["title"]);
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{}", panel["title"]);
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(cells.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
    }
}

/// `/metrics` is read by the same reader that users' tools are built on, after its content type.
#[test]
fn metrics_have_help_units_and_the_names_of_the_field() {
    let body = rendered();
    let helped = body.lines().filter(|line| line.starts_with("# HELP ")).count();
    let typed = body.lines().filter(|line| line.starts_with("# TYPE ")).count();
    assert_eq!(helped, typed);
    assert!(helped > 12, "{body}");
    for line in body.lines().filter(|line| line.starts_with("# UNIT ")) {
        assert!(line.ends_with("_seconds seconds"), "{line}");
    }
    let lines = body.lines().filter(|line| *line != "# EOF").map(|line| Ok(line.to_owned()));
    let scrape = prometheus_parse::Scrape::parse(lines).unwrap();
    assert!(scrape.samples.iter().all(|sample| sample.metric.starts_with("rollgate_")));
}
