//! Arms by selector: a fake server for its manners and faults, and a real Prometheus that scrapes
//! two real services.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{Router, extract::State, http::HeaderMap, routing::post};
use rollgate::{
    engine::observation::{Health, Time, Value, Why},
    signal::{
        carry::Carry,
        reduce::Reducer,
        sample::{Gathered, InstanceReading},
        spec::{Reads, SignalSpec},
    },
    source::{
        client::Client,
        collector::{ArmSource, Collector, CollectorOptions, PROMQL_INSTANCE},
        limits::SourceLimits,
        prometheus::{PrometheusLimits, PrometheusOptions, PrometheusServer},
        target::Target,
    },
    telemetry::{Telemetry, secret::Secret},
};

use super::source_server::{Conduct, Prometheus, Service, closed_port, hostile, selector, specs};

fn now() -> Time {
    Time::from_secs_f64(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64())
}

fn server(client: &Client, url: &str, headers: Vec<(String, Secret)>) -> Arc<PrometheusServer> {
    let limits = PrometheusLimits { body_bytes_max: 1 << 20, ..PrometheusLimits::default() };
    let timeout = Duration::from_secs(1);
    let options = PrometheusOptions { url: url.to_owned(), headers, timeout, limits };
    Arc::new(PrometheusServer::new(client.clone(), options).unwrap())
}

fn by_selector(client: &Client, url: &str, specs: Vec<SignalSpec>) -> Collector {
    let prometheus = server(client, url, vec![]);
    let arm = |version: &str| ArmSource::Selector {
        prometheus: prometheus.clone(),
        matchers: format!("job=\"shop\",version=\"{version}\""),
    };
    let options = CollectorOptions {
        specs: specs.into(),
        canary: arm("v2"),
        baseline: Some(arm("v1")),
        timeout: Duration::from_secs(2),
        limits: SourceLimits::default(),
    };
    Collector::new(client.clone(), options, Telemetry::new())
}

fn by_scrape(client: &Client, canary: SocketAddr, baseline: SocketAddr) -> Collector {
    let arm =
        |address| ArmSource::Targets(vec![Target::parse(&format!("http://{address}")).unwrap()]);
    let options = CollectorOptions {
        specs: specs().into(),
        canary: arm(canary),
        baseline: Some(arm(baseline)),
        timeout: Duration::from_secs(2),
        limits: SourceLimits::default(),
    };
    Collector::new(client.clone(), options, Telemetry::new())
}

/// Values by name, `code` and `le`, as both sources must give them.
fn values(readings: &[InstanceReading]) -> Option<Vec<(String, f64)>> {
    let samples = readings.first()?.samples.as_ref().ok()?;
    let mut values: Vec<_> = samples
        .iter()
        .map(|sample| {
            let (code, le) = (sample.labels.value("code"), sample.labels.value("le"));
            // A server may write the bound of a bucket in another way.
            let le = le.parse::<f64>().map(|le| le.to_string()).unwrap_or_default();
            (format!("{} {code} {le}", sample.name), sample.value)
        })
        .collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    (!values.is_empty()).then_some(values)
}

/// Looks again and again until the look is as expected, or fails after 20 s with the last one.
async fn until(collector: &Collector, expected: impl Fn(&Gathered) -> bool) -> Gathered {
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    loop {
        pace.tick().await;
        let gathered = collector.gather(now()).await;
        if expected(&gathered) {
            return gathered;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "never as expected: {gathered:?}");
    }
}

#[tokio::test]
async fn a_real_server_gives_what_a_scrape_gives_until_it_dies() {
    let (canary, baseline) = (Service::default(), Service::default());
    let (canary_at, baseline_at) = (canary.start().await, baseline.start().await);
    let mut prometheus = Prometheus::start(canary_at, baseline_at).await;
    let client = Client::new().unwrap();
    let mut signals = specs();
    let expression = "sum(requests_total{$arm})".to_owned();
    signals.push(SignalSpec { name: "sum".to_owned(), reads: Reads::Promql(expression) });
    let selected = by_selector(&client, &prometheus.url, signals);
    let scraped = by_scrape(&client, canary_at, baseline_at);
    for (round, (ok, failed)) in [(5, 1), (40, 0), (7, 9)].into_iter().enumerate() {
        canary.hit(ok, failed);
        baseline.hit(3 * ok, failed);
        let direct = scraped.gather(now()).await;
        let expected = (values(&direct.canary).unwrap(), values(&direct.baseline).unwrap());
        let gathered = until(&selected, |gathered| {
            values(&gathered.canary).as_ref() == Some(&expected.0)
                && values(&gathered.baseline).as_ref() == Some(&expected.1)
        })
        .await;
        let reading = &gathered.canary[0];
        assert_eq!(*reading.instance, *canary_at.to_string(), "round {round}");
        assert!(reading.at <= gathered.at && gathered.at.since(reading.at).as_secs() < 5);
        let probe = reading.probes[0].answer.as_ref().unwrap();
        assert_eq!(probe.status, Health::Up);
        let level = &gathered.canary[1];
        assert_eq!(&*level.instance, PROMQL_INSTANCE);
        assert!(level.levels[0].value.is_ok(), "{level:?}");
    }
    prometheus.kill();
    let begun = Instant::now();
    let gathered = selected.gather(now()).await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    for readings in [&gathered.canary, &gathered.baseline] {
        let missing = readings[0].samples.as_ref().unwrap_err();
        assert_eq!(missing.why, Why::QueryFailed);
        assert!(missing.detail.contains("connection refused"), "{missing}");
        let level = readings[1].levels[0].value.as_ref().unwrap_err();
        assert_eq!(level.why, Why::QueryFailed);
    }
}

#[tokio::test]
async fn a_dead_target_behind_a_real_server_goes_stale_and_a_foreign_arm_is_absent() {
    let (canary, baseline) = (Service::default(), Service::default());
    let canary_runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let doomed = canary.clone();
    canary_runtime.spawn(async move { tell.send(doomed.start().await) });
    let canary_at = told.await.unwrap();
    let prometheus = Prometheus::start(canary_at, baseline.start().await).await;
    let client = Client::new().unwrap();
    let selected = by_selector(&client, &prometheus.url, specs());
    // Only from a second scrape on is it known how often there is one.
    let first = until(&selected, |gathered| values(&gathered.canary).is_some()).await;
    until(&selected, |gathered| gathered.canary[0].at > first.canary[0].at).await;
    // Every task of the canary ends, and with them its listener.
    canary_runtime.shutdown_background();
    let gathered = until(&selected, |gathered| gathered.canary[0].samples.is_err()).await;
    let missing = gathered.canary[0].samples.as_ref().unwrap_err();
    assert_eq!(missing.why, Why::Stale, "{missing}");
    assert!(missing.detail.contains("is the target down"), "{missing}");
    let probe = gathered.canary[0].probes[0].answer.as_ref().unwrap();
    assert_eq!(probe.status, Health::Down);
    assert!(values(&gathered.baseline).is_some());
    let foreign = CollectorOptions {
        specs: specs().into(),
        canary: ArmSource::Selector {
            prometheus: server(&client, &prometheus.url, vec![]),
            matchers: "version=\"v99\"".to_owned(),
        },
        baseline: None,
        timeout: Duration::from_secs(2),
        limits: SourceLimits::default(),
    };
    let gathered = Collector::new(client, foreign, Telemetry::new()).gather(now()).await;
    let reading = &gathered.canary[0];
    assert_eq!(reading.samples, Ok(vec![]), "an empty result is an absent series, not a failure");
    assert_eq!(reading.probes[0].answer.as_ref().unwrap_err().why, Why::NotObserved);
}

/// The server's own word on a target is believed at once, before its samples are old.
#[tokio::test]
async fn a_target_that_dies_behind_a_real_server_is_not_up() {
    let (canary, baseline) = (Service::default(), Service::default());
    let canary_runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let doomed = canary.clone();
    canary_runtime.spawn(async move { tell.send(doomed.start().await) });
    let canary_at = told.await.unwrap();
    let prometheus = Prometheus::start(canary_at, baseline.start().await).await;
    let client = Client::new().unwrap();
    let mut signals = specs();
    let signal = signals.len();
    signals.push(SignalSpec { name: "up".to_owned(), reads: Reads::Up });
    let selected = by_selector(&client, &prometheus.url, signals.clone());
    let mut reducer =
        Reducer::new(signals.clone().into(), Duration::from_secs(30), Carry::default());
    let mut up = |gathered: &Gathered| {
        let pair = reducer.reduce(gathered).signals.remove(signal);
        [pair.canary, pair.baseline]
    };
    let all = [Ok(Value::Level(1.0)), Ok(Value::Level(1.0))];
    let is = |gathered: &Gathered, level: f64| {
        gathered.canary[0].levels.iter().any(|told| told.value == Ok(level))
            && values(&gathered.baseline).is_some()
    };
    let gathered = until(&selected, |gathered| is(gathered, 1.0)).await;
    assert_eq!(up(&gathered), all);
    canary_runtime.shutdown_background();
    let gathered = until(&selected, |gathered| is(gathered, 0.0)).await;
    assert_eq!(up(&gathered), [Ok(Value::Level(0.0)), Ok(Value::Level(1.0))]);
    let missing = gathered.canary[0].samples.as_ref().unwrap_err();
    assert_eq!(missing.why, Why::ScrapeFailed, "{missing}");
    let foreign = CollectorOptions {
        specs: signals.into(),
        canary: ArmSource::Selector {
            prometheus: server(&client, &prometheus.url, vec![]),
            matchers: "version=\"v99\"".to_owned(),
        },
        baseline: None,
        timeout: Duration::from_secs(2),
        limits: SourceLimits::default(),
    };
    let gathered = Collector::new(client, foreign, Telemetry::new()).gather(now()).await;
    let [missing, _] = up(&gathered);
    let missing = missing.unwrap_err();
    assert!(missing.detail.contains("no up{version=\"v99\"}"), "{missing}");
}

/// Authorization header and form of one request.
type Asked = (Option<String>, String);

/// What a fake server was asked, and what it answers to everything.
#[derive(Clone, Default)]
struct Fake {
    answer: (u16, String),
    asked: Arc<Mutex<Vec<Asked>>>,
    in_flight: Arc<AtomicUsize>,
    most_in_flight: Arc<AtomicUsize>,
}

impl Fake {
    async fn start(status: u16, body: &str) -> (Self, String) {
        let fake = Self { answer: (status, body.to_owned()), ..Self::default() };
        let app =
            Router::new().route("/base/api/v1/query", post(Self::reply)).with_state(fake.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (fake, url)
    }

    async fn reply(
        State(fake): State<Fake>,
        headers: HeaderMap,
        form: String,
    ) -> (axum::http::StatusCode, String) {
        let token = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        fake.asked.lock().unwrap().push((token, form));
        let in_flight = fake.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        fake.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        // The work of a query: long enough for all others that may come meanwhile.
        tokio::time::sleep(Duration::from_millis(20)).await;
        fake.in_flight.fetch_sub(1, Ordering::SeqCst);
        (axum::http::StatusCode::from_u16(fake.answer.0).unwrap(), fake.answer.1)
    }
}

const EMPTY: &str = "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[]}}";

fn counter(name: &str) -> SignalSpec {
    SignalSpec { name: name.to_owned(), reads: Reads::Counter(selector(name, &[("a", "b\"c")])) }
}

async fn look(url: &str, specs: Vec<SignalSpec>) -> Gathered {
    by_selector(&Client::new().unwrap(), url, specs).gather(Time(1_500_000)).await
}

#[tokio::test]
async fn queries_carry_headers_and_are_asked_once() {
    let (fake, url) = Fake::start(200, EMPTY).await;
    let client = Client::new().unwrap();
    let token = Secret::new("Bearer hunter2");
    let prometheus = server(&client, &url, vec![("authorization".to_owned(), token)]);
    let arm = || ArmSource::Selector {
        prometheus: prometheus.clone(),
        matchers: "version=\"v2\"".to_owned(),
    };
    let options = CollectorOptions {
        specs: [counter("m_total"), counter("m_total")].into(),
        canary: arm(),
        baseline: Some(arm()),
        timeout: Duration::from_secs(2),
        limits: SourceLimits::default(),
    };
    assert!(!format!("{options:?}").contains("hunter2"));
    let collector = Collector::new(client, options, Telemetry::new());
    collector.gather(Time(1_500_000)).await;
    let mut asked = fake.asked.lock().unwrap().clone();
    asked.sort();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|(token, _)| token.as_deref() == Some("Bearer hunter2")));
    let m_total =
        "query=m_total%7Ba%3D%22b%5C%22c%22%2Cversion%3D%22v2%22%7D%5B180s%5D&time=1500.000";
    assert!(asked[0].1.starts_with(m_total), "{}", asked[0].1);
}

#[tokio::test]
async fn faults_of_the_server_are_named() {
    let check = async |url: &str, part: &str| {
        let gathered = look(url, vec![counter("m_total")]).await;
        for readings in [&gathered.canary, &gathered.baseline] {
            let missing = readings[0].samples.as_ref().unwrap_err();
            assert_eq!(missing.why, Why::QueryFailed);
            assert!(missing.detail.contains(part), "{missing}");
            assert!(missing.detail.starts_with("metrics server 127.0.0.1:"), "{missing}");
        }
    };
    let error = "{\"status\":\"error\",\"errorType\":\"execution\",\"error\":\"too many samples\"}";
    check(&Fake::start(422, error).await.1, "status 422 (execution: too many samples)").await;
    check(&Fake::start(401, "nope").await.1, "authorization header").await;
    check(&Fake::start(200, "<html>Sign in</html>").await.1, "expected an answer").await;
    check(&Fake::start(200, &EMPTY.replace('}', "")).await.1, "expected an answer").await;
    check(&Fake::start(200, &" ".repeat(2 << 20)).await.1, "limit of 1048576 bytes").await;
    check(&format!("http://{}", closed_port().await), "connection refused").await;
    check(&format!("http://{}", hostile(Conduct::Silent).await), "no whole answer within").await;
    let wrong_path = Fake::start(200, EMPTY).await.1.replace("/base/", "/other/");
    check(&wrong_path, "status 404").await;
}

#[tokio::test]
async fn questions_in_flight_are_bounded() {
    let (fake, url) = Fake::start(200, EMPTY).await;
    look(&url, (0..20).map(|i| counter(&format!("m{i}_total"))).collect()).await;
    // Both arms ask for 20 counters and the start of the process.
    assert_eq!(fake.asked.lock().unwrap().len(), 42);
    let most = fake.most_in_flight.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at once");
}

#[tokio::test]
async fn a_native_histogram_that_makes_no_sense_is_named_beside_its_absence() {
    let native = concat!(
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":"#,
        r#"{"__name__":"h","instance":"i:1"},"histograms":[[1500,{"count":"1","#,
        r#""buckets":[[0,"2","1","1"]]}]]}]}}"#,
    );
    let (_, url) = Fake::start(200, native).await;
    let reads = Reads::Histogram { of: selector("h", &[]), q: 0.95 };
    let gathered = look(&url, vec![SignalSpec { name: "h".to_owned(), reads }]).await;
    let reading = &gathered.canary[0];
    assert_eq!((&*reading.instance, &reading.samples), ("i:1", &Ok(vec![])));
    let refused = reading.refused.as_ref().unwrap();
    assert!(refused.first.contains("h: found the bucket 2 to 1"), "{}", refused.first);
}
