//! How many release hours a backtest judges in a second on one core, once they are fetched: releases of
//! a service with five rules, two instances an arm and four status codes, scraped every 15 s, each with
//! its hour of history. The metrics server is one of ours that makes its samples up.
//!
//! The target is asserted on the best of several rounds: a busy machine makes a run slower, never
//! faster.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::post};
use rollgate::{
    backtest::{judging::Ending, releases::Release, rules::PastRules, run::Backtest},
    engine::observation::Time,
    rulefile,
    signal::past::Stretch,
    source::{
        archive::Archivist,
        client::Client,
        prometheus::{PrometheusLimits, PrometheusOptions, PrometheusServer},
    },
    telemetry::Telemetry,
};
use tokio_util::sync::CancellationToken;

/// Release hours a second, at least.
const HOURS_PER_SECOND_MIN: f64 = 50.0;

const ROUNDS: usize = 5;
const RELEASES: i64 = 8;
const SCRAPE_SECS: i64 = 15;

const RULES: &str = "version: 1
service: bench
observe: { interval: 5s, window: 1m, warmup: 0s }
signals:
  errors: { ratio: 'requests_total{code=~\"5..\"} / requests_total', floor: 0.1% }
  p95: { quantile: 0.95, of: latency_seconds }
  memory: { gauge: process_resident_memory_bytes }
  restarts: { restarts: process_start_time_seconds }
rules:
  - { when: errors > 1.5x baseline, then: rollback }
  - { when: errors > 50% for 2m, then: rollback }
  - { when: p95 > 1.2x baseline, then: rollback }
  - { when: slope(memory) > baseline + 1MB/min, then: rollback }
  - { when: restarts >= 1, then: rollback }
promote: { after: 1h, deadline: 1h }
";

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let best = (0..ROUNDS).map(|_| runtime.block_on(round())).fold(0.0, f64::max);
    eprintln!("{best:.0} release hours judged a second (at least {HOURS_PER_SECOND_MIN})");
    assert!(best >= HOURS_PER_SECOND_MIN, "{best:.1} release hours a second");
}

/// Judges all releases once, and says how many hours a second that was.
async fn round() -> f64 {
    let address = serve().await;
    let options = PrometheusOptions {
        url: format!("http://{address}"),
        headers: Vec::new(),
        timeout: Duration::from_secs(30),
        limits: PrometheusLimits::default(),
    };
    let client = Client::new().expect("a client");
    let server = PrometheusServer::new(client, options).expect("a server");
    let file = rulefile::load("bench.yaml", RULES).expect("valid rules");
    let backtest = Backtest {
        past: PastRules::of(file),
        archivist: Archivist::new(Arc::new(server), Duration::from_secs(30), Telemetry::new()),
        span: Stretch { after: Time(0), until: Time(2_000_000_000_000) },
        stop: CancellationToken::new(),
    };
    // One after the other, so that no other work is timed.
    let (mut hours, mut secs) = (0.0, 0.0);
    for number in 0..RELEASES {
        let release = Release {
            service: "bench".to_owned(),
            version: "v2".to_owned(),
            started: Time((1_700_000_001 + number * 20_000) * 1000),
            ended: None,
            canary: "version=\"v2\"".to_owned(),
            baseline: Some("version=\"v1\"".to_owned()),
            known: None,
            notes: Vec::new(),
        };
        let outcome = backtest.run(vec![release], Vec::new(), || {}).await;
        let judged = outcome.releases[0].1.as_ref().expect("a verdict");
        assert_eq!((judged.verdict, judged.looks), (Ending::Promote, 241), "{}", judged.reason);
        hours += outcome.hours();
        secs += outcome.judging_secs;
    }
    hours / secs
}

/// A server that has samples of any range selector.
async fn serve() -> SocketAddr {
    let answer = |body: String| async move {
        let form = reqwest::Url::parse(&format!("http://form.invalid/?{body}")).expect("a form");
        let of = |name: &str| {
            let found = form.query_pairs().find(|(pair, _)| pair == name);
            found.map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        let until = of("time").parse::<f64>().unwrap_or(0.0) as i64;
        samples(&of("query"), until)
    };
    let app = Router::new().route("/api/v1/query", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The answer to `name{matchers}[900s]` at a moment.
fn samples(query: &str, until: i64) -> String {
    let (name, rest) = query.split_once('{').expect("a selector");
    let (_, covers) = rest.rsplit_once('[').expect("a range");
    let covers: i64 = covers.trim_end_matches("s]").parse().expect("seconds");
    let version = if query.contains("v2") { "v2" } else { "v1" };
    let mut series = Vec::new();
    for instance in ["a", "b"] {
        let instance = format!("{version}-{instance}:80");
        let mut add = |label: &str, value: &str, of: &dyn Fn(i64) -> f64| {
            series.push(one(name, &instance, (label, value), until - covers..until, of));
        };
        match name {
            "requests_total" => {
                for (code, per_sec) in [("200", 40), ("204", 5), ("404", 1), ("500", 1)] {
                    // A count that goes on evenly, with a little chance in it.
                    add("code", code, &move |at| (at * per_sec / 2 + at * 7919 % 5) as f64);
                }
            }
            "latency_seconds_bucket" => {
                for (place, edge) in
                    ["0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "+Inf"].into_iter().enumerate()
                {
                    let share = 24 - (24 >> (place + 1));
                    add("le", edge, &move |at| (at * share) as f64);
                }
            }
            "process_resident_memory_bytes" => {
                add("kind", "all", &|at| 2e8 + (at % 60) as f64 * 1e5);
            }
            "process_start_time_seconds" => add("kind", "all", &|_| 1.6e9),
            _ => {}
        }
    }
    let series = series.join(",");
    format!(
        "{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{series}]}}}}"
    )
}

fn one(
    name: &str,
    instance: &str,
    (label, value): (&str, &str),
    during: std::ops::Range<i64>,
    of: &dyn Fn(i64) -> f64,
) -> String {
    let mut points = String::new();
    let first = during.start / SCRAPE_SECS + 1;
    for scrape in first..=during.end / SCRAPE_SECS {
        let at = scrape * SCRAPE_SECS;
        let comma = if points.is_empty() { "" } else { "," };
        let _ = write!(points, "{comma}[{at},\"{}\"]", of(at));
    }
    format!(
        "{{\"metric\":{{\"__name__\":\"{name}\",\"instance\":\"{instance}\",\"job\":\"bench\",\
         \"{label}\":\"{value}\"}},\"values\":[{points}]}}"
    )
}
