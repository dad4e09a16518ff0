//! Native histograms end to end: a target that exposes them, scraped by us in protobuf, and by a
//! real Prometheus that we ask; summaries by the same ways.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::get,
};
use rollgate::{
    engine::{
        native::{NativeHistogram, index_of, upper_edge},
        observation::{Arm, Reading, Time, Value, Why},
    },
    signal::{
        carry::Carry,
        reduce::Reducer,
        sample::Gathered,
        spec::{Reads, SignalSpec},
    },
    source::{
        client::Client,
        collector::{ArmSource, Collector, CollectorOptions},
        limits::SourceLimits,
        prometheus::{PrometheusLimits, PrometheusOptions, PrometheusServer},
        target::Target,
    },
    telemetry::Telemetry,
};

use super::{
    protobuf::{self, CONTENT_TYPE, Message, family, metric, number},
    source_server::{Prometheus, selector},
};

/// A service with a native histogram `lat` of this schema and a summary `told`.
#[derive(Clone)]
struct Service {
    schema: i32,
    buckets: Arc<Mutex<BTreeMap<i32, f64>>>,
    /// Whether its protobuf is cut short.
    broken: bool,
    /// Content types it was asked for first, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    fn new(schema: i32) -> Self {
        Self { schema, buckets: Arc::default(), broken: false, asked: Arc::default() }
    }

    fn hit(&self, latencies: &[f64]) {
        let mut buckets = self.buckets.lock().unwrap();
        for latency in latencies {
            *buckets.entry(index_of(self.schema, *latency)).or_default() += 1.0;
        }
    }

    fn histogram(&self) -> NativeHistogram {
        let buckets = self.buckets.lock().unwrap();
        NativeHistogram {
            schema: self.schema,
            zero_threshold: 2.938_735_877_055_719e-39,
            zero_count: 0.0,
            buckets: buckets.iter().map(|(index, count)| (*index, *count)).collect(),
        }
    }

    async fn start(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = self.clone();
        let app = Router::new().route(
            "/metrics",
            get(move |headers: HeaderMap| async move { service.body(&headers) }),
        );
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    /// As the Go client does: in text only the bucket `+Inf` of a native histogram is left.
    fn body(&self, headers: &HeaderMap) -> Response {
        let accept = headers["accept"].to_str().unwrap().replace(' ', "");
        self.asked.lock().unwrap().push(accept.split(';').next().unwrap().to_owned());
        let histogram = self.histogram();
        if !accept.starts_with("application/vnd.google.protobuf") {
            let body = format!(
                "lat_bucket{{le=\"+Inf\"}} {0}\nlat_count {0}\nprocess_start_time_seconds 1000\n\
                 told{{quantile=\"0.95\"}} 0.125\n",
                histogram.total()
            );
            return ([("content-type", "text/plain; version=0.0.4")], body).into_response();
        }
        let told = Message::default().double(1, 0.95).double(2, 0.125);
        let body = [
            family("lat", 4, vec![metric(&[], 7, protobuf::native(&histogram))]),
            family("process_start_time_seconds", 1, vec![metric(&[], 2, number(1000.0))]),
            family("told", 2, vec![metric(&[], 4, Message::default().message(3, told))]),
        ];
        let mut body = body.concat();
        body.truncate(body.len() - usize::from(self.broken));
        ([("content-type", CONTENT_TYPE)], body).into_response()
    }
}

fn now() -> Time {
    Time::from_secs_f64(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64())
}

fn specs() -> Arc<[SignalSpec]> {
    let spec = |metric: &str| SignalSpec {
        name: metric.to_owned(),
        reads: Reads::Histogram { of: selector(metric, &[]), q: 0.95 },
    };
    Arc::new([spec("lat"), spec("told")])
}

fn collector(canary: ArmSource, baseline: ArmSource) -> Collector {
    let options = CollectorOptions {
        specs: specs(),
        canary,
        baseline: Some(baseline),
        timeout: Duration::from_secs(2),
        limits: SourceLimits::default(),
    };
    Collector::new(Client::new().unwrap(), options, Telemetry::new())
}

fn scraped(address: SocketAddr) -> ArmSource {
    ArmSource::Targets(vec![Target::parse(&format!("http://{address}")).unwrap()])
}

fn reducer() -> Reducer {
    Reducer::new(specs(), Duration::ZERO, Carry::default())
}

/// Raw positions of both arms, when both have one.
fn positions(gathered: &Gathered) -> Option<[NativeHistogram; 2]> {
    let of = |arm: &[rollgate::signal::sample::InstanceReading]| {
        let samples = arm.first()?.samples.as_ref().ok()?;
        samples.iter().find_map(|sample| sample.native.as_deref().cloned())
    };
    Some([of(&gathered.canary)?, of(&gathered.baseline)?])
}

/// Looks until both arms are where their services are.
async fn caught_up(collector: &Collector, services: [&Service; 2]) -> Gathered {
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    loop {
        pace.tick().await;
        let gathered = collector.gather(now()).await;
        let expected = services.map(|service| service.histogram().buckets);
        if positions(&gathered).map(|found| found.map(|one| one.buckets)) == Some(expected) {
            return gathered;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "never caught up: {gathered:?}");
    }
}

fn latencies(scale: f64) -> Vec<f64> {
    (0..300).map(|i| scale * 0.02 * 50_f64.powf(f64::from(i % 100) / 100.0)).collect()
}

#[tokio::test]
async fn protobuf_is_asked_for_once_text_lacks_buckets() {
    let (canary, baseline) = (Service::new(3), Service::new(5));
    let both = collector(scraped(canary.start().await), scraped(baseline.start().await));
    canary.hit(&latencies(1.0));
    let mut reducer = reducer();
    let mut at = now();
    let mut look = async || {
        at = at.after(Duration::from_secs(1));
        reducer.reduce(&both.gather(at).await).signals[0].canary.clone()
    };
    let why = |reading: Reading| reading.unwrap_err().why;
    assert_eq!(why(look().await), Why::FirstLook);
    // The first one in protobuf sets the marks: what was counted before is not of this analysis.
    assert_eq!(why(look().await), Why::FirstLook);
    canary.hit(&[0.1, 0.1, 0.2]);
    let expected = vec![(index_of(3, 0.1), 2.0), (index_of(3, 0.2), 1.0)];
    match look().await.unwrap() {
        Value::Native(native) => assert_eq!((native.schema, native.buckets), (3, expected)),
        other => panic!("{other:?}"),
    }
    let asked = canary.asked.lock().unwrap().clone();
    let protobuf = "application/vnd.google.protobuf";
    assert_eq!(asked, ["application/openmetrics-text", protobuf, protobuf]);
}

#[tokio::test]
async fn protobuf_that_cannot_be_read_is_asked_for_once() {
    let service = Service { broken: true, ..Service::new(3) };
    let target = collector(scraped(service.start().await), scraped(service.start().await));
    let mut failed = Vec::new();
    for secs in 1..5 {
        let gathered = target.gather(now().after(Duration::from_secs(secs))).await;
        failed.push(gathered.canary[0].samples.as_ref().err().map(ToString::to_string));
    }
    let words = failed[1].take().unwrap();
    assert!(words.contains("the body is not delimited protobuf: at byte"), "{words}");
    assert_eq!(failed, [None, None, None, None], "text is better than nothing");
}

#[tokio::test]
async fn a_summary_tells_its_quantile_in_either_format() {
    let native = Service::new(3);
    let told = collector(scraped(native.start().await), scraped(native.start().await));
    let mut reducer = reducer();
    for secs in 1..3 {
        let at = now().after(Duration::from_secs(secs));
        let observation = reducer.reduce(&told.gather(at).await);
        assert_eq!(observation.signals[1].canary, Ok(Value::Level(0.125)));
    }
}

/// What a server computes over the last 30 s.
async fn server_quantile(url: &str, arm: &str) -> Option<f64> {
    let query = format!("histogram_quantile(0.95, increase(lat{{version=\"{arm}\"}}[30s]))");
    let client = crate::wire::client_builder().build().unwrap();
    let answer = client.get(format!("{url}/api/v1/query")).query(&[("query", query)]).send().await;
    let answer: serde_json::Value = answer.unwrap().json().await.unwrap();
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

/// The quantile of Prometheus 2.40 to 2.55: linear inside a bucket.
fn linear(native: &NativeHistogram, q: f64) -> (f64, f64, f64) {
    let (rank, mut beyond) = ((1.0 - q) * native.total(), 0.0);
    for (index, count) in native.buckets.iter().rev() {
        beyond += count;
        if beyond >= rank {
            let bounds = (upper_edge(native.schema, index - 1), upper_edge(native.schema, *index));
            let share = (beyond - rank) / count;
            return (bounds.0 + (bounds.1 - bounds.0) * share, bounds.0, bounds.1);
        }
    }
    panic!("no requests")
}

#[tokio::test]
async fn a_real_server_and_our_own_scrape_give_the_same_and_its_quantile() {
    let (canary, baseline) = (Service::new(3), Service::new(2));
    let services = [&canary, &baseline];
    services.iter().for_each(|service| service.hit(&[0.05, 4.0]));
    let (canary_at, baseline_at) = (canary.start().await, baseline.start().await);
    let prometheus = Prometheus::start(canary_at, baseline_at).await;
    let server = PrometheusOptions {
        url: prometheus.url.clone(),
        headers: vec![],
        timeout: Duration::from_secs(2),
        limits: PrometheusLimits::default(),
    };
    let server = Arc::new(PrometheusServer::new(Client::new().unwrap(), server).unwrap());
    let arm = |version: &str| ArmSource::Selector {
        prometheus: server.clone(),
        matchers: format!("job=\"shop\",version=\"{version}\""),
    };
    let asked = collector(arm("v2"), arm("v1"));
    let own = collector(scraped(canary_at), scraped(baseline_at));
    let (mut by_server, mut by_scrape) = (reducer(), reducer());
    by_server.reduce(&caught_up(&asked, services).await);
    by_scrape.reduce(&caught_up(&own, services).await);
    canary.hit(&latencies(2.0));
    baseline.hit(&latencies(1.0));
    let gathered = caught_up(&asked, services).await;
    assert_eq!(*gathered.canary[0].instance, *canary_at.to_string());
    let by_server = by_server.reduce(&gathered);
    let by_scrape = by_scrape.reduce(&caught_up(&own, services).await);
    for (side, version) in [(Arm::Canary, "v2"), (Arm::Baseline, "v1")] {
        assert_eq!(by_server.signals[1].of(side), &Ok(Value::Level(0.125)), "the summary");
        let (Ok(Value::Native(asked)), Ok(Value::Native(own))) =
            (by_server.signals[0].of(side), by_scrape.signals[0].of(side))
        else {
            panic!("{:?} {:?}", by_server.signals[0], by_scrape.signals[0]);
        };
        assert_eq!((asked.schema, &asked.buckets), (own.schema, &own.buckets));
        assert_eq!(asked.total(), 300.0);
        let (ours, (older, lower, upper)) = (own.estimate(0.95).unwrap(), linear(own, 0.95));
        let theirs = server_quantile(&prometheus.url, version).await.unwrap();
        // This server is of the older rule or of the newer one.
        let is_near = |a: f64| (a / theirs - 1.0).abs() < 1e-9;
        assert!(is_near(ours) || is_near(older), "{theirs} is neither {ours} nor {older}");
        assert!((lower..=upper).contains(&ours) && (lower..=upper).contains(&theirs));
    }
}
