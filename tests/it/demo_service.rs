//! The demo's services, load and receiver over real HTTP on loopback: what they expose is what
//! their clients saw, and each fault does what it says.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt, stream};
use prometheus_parse::{Scrape, Value};
use reqwest::{Client, StatusCode};
use rollgate::demo::{
    fault::Fault,
    load::{self, Load, LoadCounts},
    receiver::{self, Receiver},
    scenario::{Plan, Scenario},
    service::{self, Service, ServiceOptions},
    stage::Stage,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SEED: u64 = 20_261;

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

async fn start() -> Service {
    let options = ServiceOptions { name: "shop".into(), version: "v2".into(), seed: SEED };
    Service::start(options).await.expect("a free port")
}

fn client() -> Client {
    crate::wire::client_builder().no_gzip().timeout(PATIENCE).build().expect("a client")
}

async fn text(client: &Client, addr: SocketAddr, accept: &str) -> String {
    let request = client.get(format!("http://{addr}/metrics")).header("accept", accept);
    request.send().await.expect("an answer").text().await.expect("a body")
}

fn parse(body: &str) -> Scrape {
    Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).expect("a well-formed body")
}

async fn scrape(client: &Client, addr: SocketAddr) -> Scrape {
    parse(&text(client, addr, "text/plain").await)
}

fn number(scrape: &Scrape, metric: &str) -> f64 {
    let sample = scrape.samples.iter().find(|sample| sample.metric == metric);
    match sample.unwrap_or_else(|| panic!("no {metric}")).value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
        ref other => panic!("{metric} is {other:?}"),
    }
}

/// Requests by method, route and code; series at zero left out.
fn requests(scrape: &Scrape) -> BTreeMap<(String, String, u16), u64> {
    let label = |sample: &prometheus_parse::Sample, name: &str| {
        sample.labels.get(name).unwrap_or_default().to_owned()
    };
    let mut requests = BTreeMap::new();
    for sample in scrape.samples.iter().filter(|sample| sample.metric == "http_requests_total") {
        let Value::Counter(count) = sample.value else { panic!("{:?}", sample.value) };
        let code = label(sample, "code").parse().expect("a status code");
        if count > 0.0 {
            let key = (label(sample, "method"), label(sample, "route"), code);
            requests.insert(key, count as u64);
        }
    }
    requests
}

/// Status codes and seconds of `count` requests for items, forty at a time.
async fn ask(client: &Client, addr: SocketAddr, count: usize) -> Vec<(u16, f64)> {
    stream::iter(0..count)
        .map(|_| async {
            let begun = Instant::now();
            let request = client.get(format!("http://{addr}/api/items"));
            let code = request.send().await.expect("an answer").status().as_u16();
            (code, begun.elapsed().as_secs_f64())
        })
        .buffer_unordered(40)
        .collect()
        .await
}

/// Polls until `found` gives something, and fails after [`PATIENCE`].
async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut found: impl FnMut() -> F,
) -> T {
    let mut turns = tokio::time::interval(Duration::from_millis(10));
    let polling = async {
        loop {
            turns.tick().await;
            if let Some(found) = found().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, polling).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn sent(load: &Load, count: u64) -> LoadCounts {
    eventually("enough requests", || async {
        Some(load.counts()).filter(|counts| counts.sent >= count)
    })
    .await
}

fn unix_secs() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[tokio::test]
async fn the_metrics_say_what_the_clients_saw() {
    let (service, client) = (start().await, client());
    let load = Load::start(service.addr, 150.0, SEED).expect("a client");
    sent(&load, 200).await;
    let seen = load.stop().await;
    assert_eq!(seen.answered_total(), seen.sent, "{seen:?}");

    let scrape = scrape(&client, service.addr).await;
    let expected: BTreeMap<_, _> = seen
        .answered
        .iter()
        .map(|((method, path, code), count)| (((*method).into(), (*path).into(), *code), *count))
        .collect();
    assert_eq!(requests(&scrape), expected);

    let in_histograms: f64 = scrape
        .samples
        .iter()
        .filter(|sample| sample.metric == "http_request_duration_seconds")
        .map(|sample| match &sample.value {
            Value::Histogram(buckets) => {
                assert!(buckets.windows(2).all(|pair| pair[0].count <= pair[1].count));
                buckets.last().expect("a +Inf bucket").count
            }
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(in_histograms as u64, seen.sent);
    assert_eq!(service.fault.first_bad_unix_secs(), None, "natural errors are not a fault");
    service.stop().await;
}

#[tokio::test]
async fn both_formats_and_gzip_carry_the_same_numbers() {
    let (service, client) = (start().await, client());
    ask(&client, service.addr, 20).await;
    let text_body = text(&client, service.addr, "text/plain").await;
    let open = text(&client, service.addr, "application/openmetrics-text;version=1.0.0").await;
    assert!(open.ends_with("\n# EOF\n"), "{open}");
    let samples = |body: &str| -> Vec<String> {
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.replace(".0\"}", "\"}")).collect()
    };
    assert_eq!(samples(&text_body), samples(&open));

    let request = client.get(format!("http://{}/metrics", service.addr));
    let packed = request.header("accept-encoding", "gzip").send().await.expect("an answer");
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.bytes().await.expect("a body");
    let mut unpacked = String::new();
    let mut reader = flate2::read::GzDecoder::new(packed.as_ref());
    std::io::Read::read_to_string(&mut reader, &mut unpacked).expect("gzip");
    assert_eq!(unpacked, text_body);

    let health = client.get(format!("http://{}/health", service.addr)).send().await.expect("one");
    assert_eq!(health.headers()["content-type"], "application/health+json");
    let health: serde_json::Value = health.json().await.expect("JSON");
    assert_eq!((&health["status"], &health["version"]), (&"pass".into(), &"v2".into()));
    let lost = client.get(format!("http://{}/nowhere", service.addr)).send().await.expect("one");
    assert_eq!(lost.status(), StatusCode::NOT_FOUND);
    service.stop().await;
}

#[tokio::test]
async fn the_error_share_is_within_its_binomial_bounds() {
    let (service, client) = (start().await, client());
    let (share, count) = (0.2, 600);
    service.fault.set(Fault::Errors { share });
    let before = unix_secs();
    let answers = ask(&client, service.addr, count).await;
    let errors = answers.iter().filter(|(code, _)| *code == 500).count() as f64;
    let (mean, deviation) = (share * count as f64, (share * (1.0 - share) * count as f64).sqrt());
    assert!((errors - mean).abs() < 4.0 * deviation + 0.002 * count as f64, "{errors} errors");
    let first_bad = service.fault.first_bad_unix_secs().expect("errors were injected");
    assert!(first_bad >= before - 0.001 && first_bad <= unix_secs(), "{before} {first_bad}");

    service.fault.set(Fault::None);
    let answers = ask(&client, service.addr, 200).await;
    assert!(answers.iter().filter(|(code, _)| *code == 500).count() < 6);
    assert_eq!(service.fault.first_bad_unix_secs(), Some(first_bad));
    service.stop().await;
}

#[tokio::test]
async fn the_latency_fault_multiplies_the_median() {
    let (service, client) = (start().await, client());
    let median = |mut answers: Vec<(u16, f64)>| {
        answers.sort_by(|a, b| a.1.total_cmp(&b.1));
        answers[answers.len() / 2].1
    };
    let healthy = median(ask(&client, service.addr, 400).await);
    service.fault.set(Fault::Latency { factor: 4.0 });
    let slow = median(ask(&client, service.addr, 400).await);
    // What the machine adds to both is why the ratio may fall short of four.
    assert!(slow / healthy > 2.2 && slow / healthy < 5.0, "{healthy} s, {slow} s");
    assert!(slow > 0.07 && service.fault.first_bad_unix_secs().is_some(), "{slow} s");
    service.stop().await;
}

#[tokio::test]
async fn a_crash_refuses_then_comes_back_with_its_counters_reset() {
    let (service, client) = (start().await, client());
    let load = Load::start(service.addr, 50.0, SEED).expect("a client");
    sent(&load, 20).await;
    let before = scrape(&client, service.addr).await;
    assert!(requests(&before).values().sum::<u64>() > 0);

    service.fault.set(Fault::Crash { every: PATIENCE });
    let begun = Instant::now();
    let refusal = eventually("a refusal", || async {
        TcpStream::connect(service.addr).await.err().map(|error| error.kind())
    })
    .await;
    assert_eq!(refusal, ErrorKind::ConnectionRefused);
    let after = eventually("the restart", || async {
        TcpStream::connect(service.addr).await.ok()?;
        Some(scrape(&client, service.addr).await)
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(990), "{:?}", begun.elapsed());
    let started = "process_start_time_seconds";
    assert!(number(&after, started) >= number(&before, started) + 1.0);

    let counts = load.stop().await;
    assert!(counts.failed > 0, "{counts:?}");
    let since = requests(&scrape(&client, service.addr).await).values().sum::<u64>();
    assert!(since < counts.answered_total(), "{since} of {counts:?}");
    let first_bad = service.fault.first_bad_unix_secs().expect("it crashed");
    let unanswered = counts.first_unanswered_unix_secs.expect("requests failed");
    assert!((unanswered - first_bad).abs() < 1.0, "{first_bad} {unanswered}");
    service.stop().await;
}

#[tokio::test]
async fn a_leak_shows_in_the_memory_and_a_hang_answers_nothing() {
    let (service, client) = (start().await, client());
    let memory = "process_resident_memory_bytes";
    let before = number(&scrape(&client, service.addr).await, memory);
    service.fault.set(Fault::Leak { bytes_per_request: 1000 });
    ask(&client, service.addr, 30).await;
    assert_eq!(number(&scrape(&client, service.addr).await, memory) - before, 30_000.0);

    service.fault.set(Fault::Hang);
    let url = format!("http://{}/health", service.addr);
    let impatient = client.get(&url).timeout(Duration::from_millis(300)).send().await;
    assert!(impatient.expect_err("nothing is answered").is_timeout());
    // What hangs is answered once the fault is gone.
    let (answer, ()) = tokio::join!(client.get(&url).send(), async {
        tokio::task::yield_now().await;
        service.fault.set(Fault::None);
    });
    assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    service.stop().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let (service, client) = (start().await, client());
    let orders = format!("http://{}/api/orders", service.addr);
    let large = vec![b'x'; service::BODY_BYTES_MAX + 1];
    let answer = client.post(orders).body(large).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    service.stop().await;
}

#[tokio::test]
async fn load_keeps_its_rate_and_bounds_what_is_in_flight() {
    let service = start().await;
    let (rps, count) = (200.0, 300_u64);
    let begun = Instant::now();
    let load = Load::start(service.addr, rps, SEED).expect("a client");
    let reached = sent(&load, count).await.sent as f64;
    let secs = begun.elapsed().as_secs_f64();
    let expected = reached / rps;
    // Four deviations of a Poisson process; late by what a busy machine takes.
    let slack = 4.0 * reached.sqrt() / rps;
    assert!(secs > expected - slack && secs < expected + slack + 1.0, "{secs} s, not {expected}");
    load.stop().await;

    // Against a service that answers nothing, what is in flight grows to its limit and no further.
    service.fault.set(Fault::Hang);
    let flood = Load::start(service.addr, 5000.0, SEED).expect("a client");
    let counts = eventually("arrivals beyond the limit", || async {
        Some(flood.counts()).filter(|counts| counts.shed > 0)
    })
    .await;
    let ended = counts.answered_total() + counts.failed + counts.timed_out;
    assert!(counts.sent - ended <= load::IN_FLIGHT_MAX as u64, "{counts:?}");
    service.fault.set(Fault::None);
    flood.stop().await;
    assert!(Load::start(service.addr, f64::NAN, SEED).is_err());
    service.stop().await;
}

fn seal(headers: &reqwest::header::HeaderMap, body: &[u8]) -> Result<(), String> {
    let expected = format!("sealed {}", body.len());
    match headers.get("seal") {
        Some(seal) if seal.as_bytes() == expected.as_bytes() => Ok(()),
        Some(_) => Err("the seal is broken".into()),
        None => Err("there is no seal".into()),
    }
}

async fn hook(client: &Client, url: &str, id: Option<&str>, seal: Option<&str>) -> (u16, String) {
    let mut request = client.post(url).body("{}");
    if let Some(id) = id {
        request = request.header("webhook-id", id);
    }
    if let Some(seal) = seal {
        request = request.header("seal", seal);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("a body").trim_end().to_owned())
}

#[tokio::test]
async fn the_receiver_refuses_bad_signatures_and_counts_repetitions() {
    let client = client();
    let mut receiver = Receiver::start(seal).await.expect("a free port");
    let url = receiver.url();
    for (id, seal, expected) in [
        (Some("a"), None, (401, "there is no seal")),
        (Some("a"), Some("sealed 3"), (401, "the seal is broken")),
        (None, Some("sealed 2"), (400, "there is no webhook-id header")),
        (Some("a"), Some("sealed 2"), (200, "thank you")),
        (Some("a"), Some("sealed 2"), (200, "seen before")),
        (Some("a"), Some("sealed 9"), (401, "the seal is broken")),
        (Some("b"), Some("sealed 2"), (200, "thank you")),
    ] {
        let (code, words) = hook(&client, &url, id, seal).await;
        assert_eq!((code, words.as_str()), expected, "{id:?} {seal:?}");
    }
    assert_eq!(client.get(&url).send().await.expect("an answer").status(), 405);
    let large = vec![b'x'; receiver::BODY_BYTES_MAX + 1];
    assert_eq!(client.post(&url).body(large).send().await.expect("an answer").status(), 413);
    let counts = receiver.counts();
    assert_eq!((counts.verified, counts.duplicates), (2, 1));
    assert_eq!((counts.refused, counts.unusable), (3, 3));
    for id in ["a", "b"] {
        let delivery = receiver.next(PATIENCE).await.expect("a delivery");
        assert_eq!((delivery.id.as_str(), delivery.body.as_ref()), (id, b"{}".as_slice()));
    }
    assert!(receiver.next(Duration::from_millis(1)).await.is_none());
    receiver.stop().await;
}

#[tokio::test]
async fn a_full_receiver_turns_away_and_takes_it_later() {
    let client = client();
    let mut receiver = Receiver::start(|_, _| Ok(())).await.expect("a free port");
    let url = receiver.url();
    for number in 0..receiver::WAITING_MAX {
        let (code, _) = hook(&client, &url, Some(&number.to_string()), None).await;
        assert_eq!(code, 200);
    }
    assert_eq!(hook(&client, &url, Some("late"), None).await.0, 503);
    assert!(receiver.next(PATIENCE).await.is_some());
    let (code, words) = hook(&client, &url, Some("late"), None).await;
    assert_eq!((code, words.as_str()), (200, "thank you"));
    receiver.stop().await;
}

#[tokio::test]
async fn the_stage_gives_an_idle_canary_no_traffic() {
    let stage = Stage::start(Scenario::Idle, SEED).await.expect("free ports");
    eventually("traffic of the baseline", || async {
        Some(stage.counts()).filter(|counts| counts.baseline.sent >= 20)
    })
    .await;
    assert_eq!(stage.first_bad_unix_secs(), None);
    let counts = stage.stop().await;
    assert_eq!((counts.canary.sent, counts.baseline.failed), (0, 0), "{counts:?}");
}

#[tokio::test]
async fn the_fault_sets_in_on_time_on_the_arm_that_the_plan_names() {
    let onset = Duration::from_millis(200);
    let fault = Fault::Errors { share: 0.5 };
    let plan = Scenario::Errors.plan();
    let plan = Plan { onset: Some(onset), canary_fault: fault, ..plan };
    let begun = unix_secs();
    let stage = Stage::play(plan, SEED).await.expect("free ports");
    let first_bad = eventually("a bad request", || async { stage.first_bad_unix_secs() }).await;
    assert!(first_bad - begun >= onset.as_secs_f64(), "after {} s", first_bad - begun);
    eventually("an error seen by a client", || async {
        (stage.counts().canary.errors() > 0).then_some(())
    })
    .await;
    assert_eq!(stage.baseline.fault.current(), Fault::None);
    let counts = stage.stop().await;
    assert_eq!(counts.canary.failed + counts.canary.timed_out, 0, "{counts:?}");
}

/// Asks for the health over a connection of its own, which is kept, and gives the first byte.
async fn first_byte(connection: &mut TcpStream) -> u8 {
    let request = b"GET /health HTTP/1.1\r\nhost: shop\r\n\r\n";
    connection.write_all(request).await.expect("an open connection");
    connection.read_u8().await.expect("an answer")
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_until_another_ends() {
    let service = start().await;
    let mut held = Vec::new();
    for _ in 0..service::CONNECTIONS_MAX {
        let mut connection = TcpStream::connect(service.addr).await.expect("a connection");
        assert_eq!(first_byte(&mut connection).await, b'H');
        held.push(connection);
    }
    let mut late = TcpStream::connect(service.addr).await.expect("the backlog takes it");
    let answer = first_byte(&mut late);
    tokio::pin!(answer);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut answer).await.is_err());
    held.pop();
    assert_eq!(tokio::time::timeout(PATIENCE, answer).await, Ok(b'H'));
    service.stop().await;
}
