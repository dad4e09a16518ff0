//! The same observations through rule tests, `replay` and `serve`: the same verdict at the same look, by
//! the same rule, on the same counts.
//!
//! A rule test's series are the one source. Its samples are written as a recording, and played by servers
//! that a real service scrapes: what it exposes at look k is what the servers answer to scrape k.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    routing::get,
};
use rollgate::{
    cli::replay::replay,
    engine::observation::{Observation, Time},
    report::shape::Report,
    rulefile::{self, RuleFile},
    ruletest::{self, Scene, Test},
    signal::{carry::Carry, reduce::Reducer, sample::InstanceReading, spec::SignalSpec},
    source::{exposition::Format, recording::Recording},
};
use serde_json::{Value, json};

use super::house::{House, arm};

/// When recordings begin, in unix seconds.
const T0: i64 = 1_795_000_000;

/// Looks are a second apart, give or take, and a replay's begin half a second late: no time that is asked
/// for lies near a look of any of them.
const RULES: &str = "\
version: 1
service: shop
observe: { interval: 1s, window: 5s, warmup: 0s }
signals:
  error_rate: { ratio: 'http_requests_total{code=~\"5..\"} / http_requests_total' }
  jobs: { count: 'jobs_failed_total' }
  depth: { gauge: queue_depth }
rules:
  - { when: error_rate > 2x baseline, then: rollback }
  - { when: jobs > 40, then: rollback }
  - { when: depth > 100 for 3500ms, then: investigate }
promote: { after: 11700ms, deadline: 19700ms }
";

const TESTS: &str = "\
defaults:
  baseline:
    series:
      'http_requests_total{code=\"200\"}': 5000+200
      'http_requests_total{code=\"500\"}': 7+1
      jobs_failed_total: 3
      queue_depth: 12
tests:
  - name: errors
    canary:
      series:
        'http_requests_total{code=\"200\"}': 100+100
        'http_requests_total{code=\"500\"}': 0+1x5 ..+40
        jobs_failed_total: 0
        queue_depth: 10+1
    expect: { verdict: rollback, because: error_rate > 2x baseline }
  - name: nothing
    canary:
      series:
        'http_requests_total{code=\"200\"}': 100+100
        'http_requests_total{code=\"500\"}': 1x6 ..+1
        jobs_failed_total: 0
        queue_depth: 10x3 150x1 10
    expect: { verdict: promote }
  - name: gaps and a reset
    canary:
      gaps: 4s..6s and 9s..10s
      series:
        'http_requests_total{code=\"200\"}': 900+100x6 20+100
        'http_requests_total{code=\"500\"}': 1x6 0x4 ..+1
        jobs_failed_total: 20+3x7 2+5
        queue_depth: 10x2 150
    findings: [{ at: 8s, verdict: investigate }]
    expect: { verdict: rollback, because: jobs > 40 }
";

fn rules() -> RuleFile {
    rulefile::load("shop.yaml", RULES).unwrap_or_else(|faults| panic!("{}", faults.render(false)))
}

fn tests() -> Vec<Test> {
    let outline = ruletest::load("shop.test.yaml", TESTS).and_then(|read| read.bind(&rules()));
    outline.unwrap_or_else(|faults| panic!("{}", faults.render(false)))
}

/// What both arms expose, look by look: a body, or none where they do not answer.
fn bodies(test: &Test, file: &RuleFile, looks: u64) -> [Vec<Option<String>>; 2] {
    let mut scene = Scene::new(test, file);
    let mut bodies = [Vec::new(), Vec::new()];
    for _ in 0..looks {
        let gathered = scene.gather();
        bodies[0].push(body(&gathered.canary[0]));
        bodies[1].push(body(&gathered.baseline[0]));
        scene.observe();
    }
    bodies
}

fn body(reading: &InstanceReading) -> Option<String> {
    let samples = reading.samples.as_ref().ok()?;
    let mut body = String::new();
    for sample in samples {
        let labels: Vec<String> =
            sample.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        body.push_str(&format!("{}{{{}}} {}\n", sample.name, labels.join(","), sample.value));
    }
    Some(body)
}

fn record(dir: &Path, bodies: &[Vec<Option<String>>; 2]) -> Recording {
    let mut rows = String::new();
    for (role, bodies) in ["canary", "baseline"].iter().zip(bodies) {
        for (look, body) in bodies.iter().enumerate() {
            let (t, ctype) = (T0 + look as i64, "text/plain; version=0.0.4");
            let row = match body {
                Some(body) => {
                    json!({"t": t, "role": role, "fmt": "text", "status": 200, "ctype": ctype, "body": body})
                }
                None => json!({"t": t, "role": role, "fmt": "text", "status": 500, "body": "no"}),
            };
            rows.push_str(&format!("{row}\n"));
        }
    }
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("scrapes.ndjson"), rows).unwrap();
    Recording::open(dir, Format::Text).unwrap()
}

/// Plays body k at scrape k; the last one again and again.
async fn play(bodies: Vec<Option<String>>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (bodies, asked) = (Arc::new(bodies), Arc::new(AtomicUsize::new(0)));
    let metrics = move || {
        let look = asked.fetch_add(1, Ordering::SeqCst).min(bodies.len() - 1);
        let (status, body) = match &bodies[look] {
            Some(body) => (StatusCode::OK, body.clone()),
            None => (StatusCode::INTERNAL_SERVER_ERROR, "no".to_owned()),
        };
        async move { (status, [(CONTENT_TYPE, "text/plain; version=0.0.4")], body) }
    };
    let app = Router::new().route("/metrics", get(metrics));
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

/// What was decided, and on what counts. A live look is taken some milliseconds early or late, which
/// moves what a window holds and how many seconds were watched: of it no estimates, and whole seconds.
fn essence(report: &Report, is_live: bool) -> Value {
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let clauses: Vec<Value> = finding
                .clauses
                .iter()
                .map(|clause| {
                    let missing = clause.missing.as_ref().map(|missing| &missing.why);
                    let samples = &clause.samples;
                    let counts = [
                        samples.canary_events,
                        samples.canary_total,
                        samples.baseline_events,
                        samples.baseline_total,
                    ];
                    let estimate = clause.estimate.filter(|_| !is_live);
                    json!([clause.state, estimate, counts.map(f64::round), missing])
                })
                .collect();
            json!([finding.rule, finding.state, clauses])
        })
        .collect();
    json!({ "verdict": report.verdict, "rule": report.rule, "look": report.look, "findings": findings })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tests_replay_and_serve_agree() {
    let (file, dir) = (rules(), tempfile::tempdir().unwrap());
    let house = House::new(json!({}), &[("shop", RULES.to_owned())]);
    let (_server, api) = house.start().await;
    let mut expected = Vec::new();
    for (index, test) in tests().into_iter().enumerate() {
        let outcome = ruletest::run(&test, &file);
        assert!(outcome.passed, "{}: {:#?}", test.name, outcome.failures);
        let bodies = bodies(&test, &file, outcome.looks + 2);

        let recording = record(&dir.path().join(index.to_string()), &bodies);
        let replayed = replay(&recording, file.clone()).unwrap();
        assert_eq!(essence(&replayed, false), essence(&outcome.end, false), "{}", test.name);

        let [canary, baseline] = bodies;
        let (canary, baseline) = (play(canary).await, play(baseline).await);
        let order = json!({
            "service": "shop", "rules": "shop", "idempotency_key": test.name,
            "canary": arm("v2", &[canary]), "baseline": arm("v1", &[baseline]),
        });
        expected.push((test.name.clone(), api.open(&order).await, outcome));
    }
    for (name, id, outcome) in expected {
        api.verdict(&id).await;
        let report: Report = serde_json::from_value(api.view(&id).await["report"].clone()).unwrap();
        let (served, tested) = (essence(&report, true), essence(&outcome.end, true));
        assert_eq!(served, tested, "{name}: serve");
    }
}

/// Where time stamps are the same the observations are, bit for bit.
#[test]
fn a_recording_of_a_test_is_observed_as_the_test_is() {
    let (file, dir) = (rules(), tempfile::tempdir().unwrap());
    for (index, test) in tests().iter().enumerate() {
        let looks = 15;
        let recording =
            record(&dir.path().join(index.to_string()), &bodies(test, &file, looks as u64));
        let specs: Arc<[SignalSpec]> = file.specs.clone().into();
        let mut reducer = Reducer::new(specs.clone(), Duration::ZERO, Carry::default());
        let mut scene = Scene::new(test, &file);
        let mut counted = 0;
        for look in 0..looks {
            let at = Time((T0 + look) * 1000 + 500);
            let since = Time(at.0 - 1000);
            let recorded = reducer.reduce(&recording.gather(&specs, at, since));
            let tested = scene.observe();
            counted += tested.signals.iter().filter(|pair| pair.canary.is_ok()).count();
            assert_eq!(plain(recorded), plain(tested), "{}: look {look}", test.name);
        }
        assert!(counted > 20, "{}: only {counted} readings", test.name);
    }
}

/// An observation without its time, and with reasons in place of their words.
fn plain(observation: Observation) -> Vec<String> {
    let words = |reading: &rollgate::engine::observation::Reading| match reading {
        Ok(value) => format!("{value:?}"),
        Err(missing) => missing.why.to_string(),
    };
    let pairs = observation.signals.iter();
    let gap = observation.canary_gap.as_ref().map(|gap| gap.why);
    pairs
        .map(|pair| format!("{} {} {:?}", words(&pair.canary), words(&pair.baseline), pair.parts))
        .chain([format!("{gap:?}")])
        .collect()
}
