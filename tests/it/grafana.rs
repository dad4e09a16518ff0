//! The Grafana dashboard asks only for metrics that exist, in PromQL that can be read, and a real
//! Prometheus that scrapes them answers every one of its queries with data.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::header::CONTENT_TYPE, routing::get};
use regex::Regex;
use rollgate::{
    engine::{
        observation::{Health, Missing, Why},
        rule::Otherwise,
        verdict::Verdict,
    },
    store::DeliveryState,
    telemetry::{
        OPENMETRICS, Telemetry,
        analysis::{EvidenceFact, LookFact, Opening, Subject},
        delivery::{AttemptOutcome, DeliveryAttempt, DeliveryCount},
        rules::VersionFact,
        source::ScrapeFacts,
    },
};
use serde_json::Value;

use crate::source_server::Prometheus;

/// Time that the queries have to find data: a rate needs a few scrapes.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// One of everything happens; `round` names what may happen once only.
fn happen(telemetry: &Telemetry, round: u64) {
    for (kind, verdict) in [
        ("running", Verdict::Watching),
        ("good", Verdict::Promote),
        ("bad", Verdict::Rollback { rule: 0 }),
        ("unclear", Verdict::Inconclusive { otherwise: Otherwise::Hold }),
    ] {
        let id = format!("{kind}-{round}");
        let subject = Subject { id: &id, service: "shop", canary_version: kind };
        telemetry.analysis().opened(subject, Opening::New);
        let fact = LookFact {
            look: 1,
            verdict,
            reason: "",
            took: Duration::from_millis(1),
            elapsed: Duration::from_secs(9),
            evidence: vec![EvidenceFact {
                clause: "errors > 1%",
                decades: 1.0,
                needed: 3.0,
                noise_factor: 1.2,
            }],
        };
        telemetry.analysis().looked(subject, &fact);
    }
    let took = Duration::from_millis(1);
    let http = telemetry.http();
    http.answered(Some("/"), "GET", 200, took);
    http.stream_refused(1);
    http.panicked(Some("/"), "planted");
    let instance: Arc<str> = "h:1".into();
    let facts = ScrapeFacts { bytes: 10, samples: 1, refused_lines: 1, elapsed: took };
    telemetry.scrape_read(&instance, facts);
    telemetry.scrape_failed(&instance, &Missing::new(Why::ScrapeFailed, "refused"));
    telemetry.probed("http://h:1/health", Ok((Health::Up, "200")));
    telemetry.query_answered("up", 1, took);
    telemetry.delivery_attempted(DeliveryAttempt {
        key: "a.hook",
        mechanism: "hook",
        attempt: 1,
        outcome: AttemptOutcome::Delivered,
        answer: "204",
        took,
    });
    let version = VersionFact { sha256: "00ff", loaded_secs: 9.0, warnings: 1 };
    telemetry.rules().in_use("shop", version);
    telemetry.rules().refused("shop", "shop.yaml:1:1: planted", Some("00ff"));
    telemetry.rules().counted(0, 1);
    telemetry.outbox_failed("reading", "planted");
    let by_state = DeliveryState::ALL.map(|state| (state.word(), 1)).to_vec();
    let oldest_pending = Duration::from_secs(3);
    let count = DeliveryCount { mechanism: "hook", by_state, oldest_pending };
    telemetry.deliveries_counted(&[count]);
}

/// `/metrics` after one of everything has happened.
fn rendered() -> String {
    let telemetry = Telemetry::new();
    happen(&telemetry, 0);
    telemetry.render()
}

/// An expression as Grafana sends it.
fn filled(expression: &str) -> String {
    expression
        .replace("$__rate_interval", "10s")
        .replace("$__range", "1m")
        .replace("$service", ".*")
}

/// What a real Prometheus answers to a query of the dashboard.
async fn answer(client: &reqwest::Client, prometheus: &Prometheus, expression: &str) -> Value {
    let labels = Regex::new(r"^label_values\((\w+), (\w+)\)$").unwrap();
    let request = match labels.captures(expression) {
        Some(found) => {
            let url = format!("{}/api/v1/label/{}/values", prometheus.url, &found[2]);
            client.get(url).query(&[("match[]", &found[1])])
        }
        None => {
            let url = format!("{}/api/v1/query", prometheus.url);
            client.get(url).query(&[("query", filled(expression))])
        }
    };
    request.send().await.unwrap().json().await.unwrap()
}

/// Whether an answer has data, and every number in it is one.
fn has_data(answer: &Value) -> bool {
    let numbers = |rows: &Vec<Value>| rows.iter().all(|row| row["value"][1] != "NaN");
    match (&answer["data"], &answer["data"]["result"]) {
        (Value::Array(values), _) => !values.is_empty(),
        (_, Value::Array(rows)) => !rows.is_empty() && numbers(rows),
        _ => false,
    }
}

#[tokio::test]
async fn a_real_prometheus_answers_every_query_with_data() {
    let (telemetry, rounds) = (Telemetry::new(), Arc::new(AtomicU64::new(0)));
    // Something happens before every scrape, so that rates are rates of something.
    let metrics = move || {
        happen(&telemetry, rounds.fetch_add(1, Ordering::Relaxed));
        let body = telemetry.render();
        async move { ([(CONTENT_TYPE, OPENMETRICS)], body) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/metrics", get(metrics));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let targets = serde_json::json!([{ "targets": [address.to_string()] }]);
    let prometheus = Prometheus::scraping("rollgate", targets).await;
    let client = crate::wire::client_builder().build().unwrap();
    let mut asked = Vec::new();
    expressions(&dashboard(), &mut asked);
    asked.retain(|text| text.contains("rollgate_"));
    assert!(asked.len() > 25, "{asked:?}");
    let begun = std::time::Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    for text in asked {
        loop {
            pace.tick().await;
            let answer = answer(&client, &prometheus, &text).await;
            assert_eq!(answer["status"], "success", "{text}: {answer}");
            if has_data(&answer) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "no data for {text}: {answer}");
        }
    }
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
    let unknown: Vec<_> = names.into_iter().filter(|name| !exist.contains(name)).collect();
    assert!(unknown.is_empty(), "not in /metrics: {unknown:?}\n{body}");
}

#[test]
fn every_expression_is_promql() {
    let mut asked = Vec::new();
    expressions(&dashboard(), &mut asked);
    for text in asked.iter().filter(|text| text.contains("rollgate_")) {
        let filled = filled(text);
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
        let is_base = line.ends_with("_seconds seconds") || line.ends_with("_bytes bytes");
        assert!(is_base, "{line}");
    }
    let lines = body.lines().filter(|line| *line != "# EOF").map(|line| Ok(line.to_owned()));
    let scrape = prometheus_parse::Scrape::parse(lines).unwrap();
    assert!(scrape.samples.iter().all(|sample| sample.metric.starts_with("rollgate_")));
}
